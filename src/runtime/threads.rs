//! Sharing out tasks: contiguous ranges, one per thread, on the rayon pool in which `run` is called.
//!
//! Tasks write disjoint outputs, and each is computed the same way whichever thread it lands on, so results do not depend on
//! how many threads there are. `join` puts its work on the stack: nothing is allocated.

/// Calls `f(part, lo, hi)` for `parts` consecutive ranges that together make `0..tasks`.
pub fn share(tasks: i64, parts: usize, f: &(impl Fn(usize, i64, i64) + Sync)) {
    let parts = parts.max(1).min(usize::try_from(tasks).unwrap_or(1).max(1));
    split(0, parts, parts, tasks, f);
}

fn split(first: usize, count: usize, parts: usize, tasks: i64, f: &(impl Fn(usize, i64, i64) + Sync)) {
    if count <= 1 {
        let at = |p: usize| (i128::from(tasks) * p as i128 / parts as i128) as i64;
        f(first, at(first), at(first + 1));
        return;
    }
    let half = count / 2;
    rayon::join(|| split(first, half, parts, tasks, f), || split(first + half, count - half, parts, tasks, f));
}
