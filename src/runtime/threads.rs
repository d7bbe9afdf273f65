//! Sharing out tasks: contiguous ranges, one per thread, on the rayon pool in which `run` is called. A thread that is done with its range takes half of what
//! another has left, since cores are seldom equally fast and tasks seldom equally long.
//!
//! Tasks write disjoint outputs, and each is computed the same way whichever thread it lands on, so results do not depend on
//! how many threads there are, nor on which of them takes what. `join` puts its work on the stack, and so are the ranges: nothing is allocated here.
//! Within a rayon pool nobody takes a lock either. From any other thread, the first `join` goes through the queue of rayon's global pool: its caller takes a lock and waits for a
//! worker, and the queue allocates a block for each 63 or so such calls.

use std::sync::atomic::{AtomicU64, Ordering};

/// Most parts of a run.
const MOST: usize = 256;

/// Over how many parts so many tasks are shared out among threads.
pub fn parts(threads: usize, tasks: i64) -> usize {
    threads.clamp(1, MOST).min(usize::try_from(tasks).unwrap_or(1).max(1))
}

/// What each thread has left: the first task and the end, in the upper and the lower half.
struct Left([AtomicU64; MOST]);

/// Calls `f(part, lo, hi)` for ranges that together make `0..tasks`; ranges of the same `part` (below `parts`) one after the other.
pub fn share(tasks: i64, parts: usize, f: &(impl Fn(usize, i64, i64) + Sync)) {
    // So many tasks are counted in units of several.
    let unit = tasks.max(0) / i64::from(u32::MAX) + 1;
    let units = (tasks.max(0) + unit - 1) / unit;
    let parts = self::parts(parts, units);
    let left = Left([const { AtomicU64::new(0) }; MOST]);
    for p in 0..parts {
        let at = |p: usize| (units as i128 * p as i128 / parts as i128) as u64;
        left.0[p].store(packed((at(p), at(p + 1))), Ordering::Relaxed);
    }
    split(0, parts, &|part| {
        while let Some((lo, hi)) = left.next(part, parts) {
            f(part, lo as i64 * unit, (hi as i64 * unit).min(tasks));
        }
    });
}

fn split(first: usize, count: usize, f: &(impl Fn(usize) + Sync)) {
    if count <= 1 {
        return f(first);
    }
    let half = count / 2;
    rayon::join(|| split(first, half, f), || split(first + half, count - half, f));
}

impl Left {
    /// The next tasks of a part: a quarter of what it has left, or of what it takes from another.
    fn next(&self, part: usize, parts: usize) -> Option<(u64, u64)> {
        let quarter = |(lo, hi): (u64, u64)| (lo + (hi - lo).div_ceil(4), hi);
        if let Some(((lo, _), (end, _))) = self.change(part, quarter) {
            return Some((lo, end));
        }
        loop {
            let most = (0..parts).max_by_key(|&p| self.of(p).map_or(0, |(lo, hi)| hi - lo))?;
            self.of(most)?;
            let half = |(lo, hi): (u64, u64)| (lo, hi - (hi - lo).div_ceil(2));
            if let Some(((_, hi), (_, lo))) = self.change(most, half) {
                // A range that is empty is changed by its owner only. What is returned is no longer to be had, so whoever takes something also runs something.
                let rest = quarter((lo, hi));
                self.0[part].store(packed(rest), Ordering::Relaxed);
                return Some((lo, rest.0));
            }
        }
    }

    /// What a part has left, if anything.
    fn of(&self, part: usize) -> Option<(u64, u64)> {
        range(self.0[part].load(Ordering::Relaxed))
    }

    /// Changes what a part has left, if anything: what it was, and is.
    fn change(&self, part: usize, to: impl Fn((u64, u64)) -> (u64, u64)) -> Option<((u64, u64), (u64, u64))> {
        let was =
            self.0[part].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |v| range(v).map(|r| packed(to(r)))).ok().and_then(range)?;
        Some((was, to(was)))
    }
}

fn packed((lo, hi): (u64, u64)) -> u64 {
    lo << 32 | hi
}

fn range(packed: u64) -> Option<(u64, u64)> {
    let (lo, hi) = (packed >> 32, packed & u64::from(u32::MAX));
    (lo < hi).then_some((lo, hi))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once() {
        for (tasks, parts) in [(0, 2), (1, 1), (1, 4), (7, 2), (64, 3), (1000, 5), (999, 300)] {
            let runs: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
            share(tasks, parts, &|part, lo, hi| {
                assert!(part < parts && lo < hi && hi <= tasks, "{part}: {lo}..{hi} of {tasks} in {parts} parts");
                (lo..hi).for_each(|t| {
                    runs[t as usize].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1), "{tasks} tasks in {parts} parts");
        }
    }

    #[test]
    fn more_tasks_than_fit_half_a_word() {
        let tasks = 3 * i64::from(u32::MAX) + 5;
        let all = AtomicU64::new(0);
        share(tasks, 3, &|_, lo, hi| {
            all.fetch_add((hi - lo) as u64, Ordering::Relaxed);
        });
        assert_eq!(all.into_inner(), tasks as u64);
    }

    /// A part that waits in its first task leaves the others to the rest.
    #[test]
    fn who_is_done_takes_from_others() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
        let done = AtomicU32::new(0);
        pool.install(|| {
            share(16, 2, &|_, lo, hi| {
                // Whoever has the first tasks waits for all others.
                while lo == 0 && done.load(Ordering::Acquire) < 16 - hi as u32 {
                    std::thread::yield_now();
                }
                done.fetch_add((hi - lo) as u32, Ordering::AcqRel);
            });
        });
        assert_eq!(done.into_inner(), 16);
    }
}
