//! Pass `ahead`: while a block is computed, its tiles ask memory for what the next block reads.
//!
//! *Needs* a nest whose tiles are whole. *Leaves* the same statements. Where a loop over blocks holds tiles that copy a part of the input and tiles that multiply it
//! by weights, the latter are given the part of the input that the loop's next iteration copies, as far as this one has not read it: among several tiles, or
//! several runs of one, each has its share of the channels. Copies wait for memory and products do not, so a copy whose lines are there already costs little.
//!
//! ```text
//! par for qy.b in 0..128 step 8:
//!   tile copy-ic: … P[ic, py, px] = x[0, ic, py + qy.b, px] …
//!   tile qx-3x2x2x2x16: …                                     ⇒   tile qx-3x2x2x2x16 asks x[0..1, 0..128, qy.b + 8..qy.b + 16, 0..108]: …
//! ```
//!
//! The last iteration asks for what nobody reads; that is no error, and its values are not used.

use crate::Result;
use crate::ir::{Access, Affine, Ask, Atom, BufferKind, Func, Loop, Stmt, Value};
use crate::plan::Plan;

/// The dimension of an input that holds its channels.
const CHANNELS: usize = 1;

/// Adds what tiles ask for.
pub fn run(func: &Func, _plan: &Plan) -> Result<Option<Func>> {
    let mut out = func.clone();
    list(func, &mut out.run, &mut Vec::new());
    Ok(Some(out))
}

/// `around` are the loops that hold nothing but these statements, outermost first.
fn list(func: &Func, stmts: &mut [Stmt], around: &mut Vec<Loop>) {
    if let Some(next) = next_block(func, stmts, around) {
        let shares = shares(func, stmts);
        share_out(func, stmts, &next, shares, &mut 0, &0.into());
    }
    let alone = stmts.len() == 1;
    for s in stmts {
        match s {
            Stmt::For(l) => {
                let mut around = if alone { std::mem::take(around) } else { Vec::new() };
                around.push(l.around(Vec::new()));
                list(func, &mut l.body, &mut around);
            }
            Stmt::When { body, .. } => list(func, body, &mut Vec::new()),
            Stmt::Tile { .. } | Stmt::Set { .. } | Stmt::Store { .. } => {}
        }
    }
}

/// What the next iteration of the loops over blocks copies of the input, and this one does not.
fn next_block(func: &Func, body: &[Stmt], around: &[Loop]) -> Option<Ask> {
    let mut blocks = around.iter().rev().filter(|l| l.const_range().is_none_or(|(lo, hi)| hi - lo > l.step));
    let inner = blocks.next()?;
    // Of blocks whose extents come at run time, an ordinary one is as long as a row.
    let l = blocks.next().filter(|outer| inner.times.is_some() && outer.times.is_some()).unwrap_or(inner);
    let tiles = body.iter().filter(|s| matches!(s, Stmt::Tile { .. }) && !reads(func, s, BufferKind::Packed));
    let now = tiles.filter_map(|s| read(func, s)).reduce(|a, b| if a.buffer == b.buffer { hull(a, b) } else { a })?;
    let var = l.var.as_str();
    let by = l.times.as_ref().map_or(l.step.into(), |times| Affine::sym(times) * l.step);
    let plain = |e: &Affine| e.terms.keys().all(|a| matches!(a, Atom::Sym(_) | Atom::Var(_)));
    if !now.ranges.iter().all(|(lo, hi)| plain(lo) && plain(hi)) {
        return None;
    }
    let mut moves = false;
    let ranges = now.ranges.into_iter().map(|(lo, hi)| {
        let next = |e: &Affine| e.subst(var, &(Affine::var(l.var) + by.clone()));
        let (first, end) = (next(&lo), next(&hi));
        moves |= first != lo;
        // What both read is there already.
        match (hi.clone() - first.clone()).as_const() {
            Some(both) if both > 0 && first != lo => (hi, end),
            _ => (first, end),
        }
    });
    let ranges = ranges.collect();
    moves.then_some(Ask { buffer: now.buffer, ranges })
}

/// Whether a statement loads from a buffer of that kind.
fn reads(func: &Func, s: &Stmt, kind: BufferKind) -> bool {
    let mut found = false;
    loads(s, &mut |a| found |= func.buffer(a.buffer.as_str()).kind == kind);
    found
}

fn loads(s: &Stmt, f: &mut impl FnMut(&Access)) {
    s.visit(&mut |s| {
        let values = match s {
            Stmt::Set { value, .. } => std::slice::from_ref(value),
            Stmt::Store { parts, .. } => &parts[..],
            _ => &[],
        };
        for v in values {
            v.visit(&mut |v| {
                if let Value::Load(a) = v {
                    f(a);
                }
            });
        }
    });
}

/// The part of the input that a tile reads, if that can be said in terms of what lies around it.
fn read(func: &Func, tile: &Stmt) -> Option<Ask> {
    fn walk(func: &Func, s: &Stmt, loops: &mut Vec<Loop>, out: &mut Option<Ask>) {
        if let Stmt::For(l) = s {
            loops.push(l.around(Vec::new()));
        }
        let body = s.body().unwrap_or_default();
        body.iter().for_each(|s| walk(func, s, loops, out));
        if let Stmt::For(_) = s {
            loops.pop();
        }
        if !body.is_empty() {
            return;
        }
        loads(s, &mut |a| {
            if func.buffer(a.buffer.as_str()).kind == BufferKind::Input
                && let Some(one) = extent(a, loops)
            {
                *out = Some(match out.take() {
                    Some(all) if all.buffer == one.buffer => hull(all, one),
                    Some(all) => all,
                    None => one,
                });
            }
        });
    }
    let mut out = None;
    walk(func, tile, &mut Vec::new(), &mut out);
    out
}

/// What an access covers in loops, of which the last is the innermost.
fn extent(a: &Access, loops: &[Loop]) -> Option<Ask> {
    let one = |(dim, e): (usize, &Affine)| {
        let (mut lo, mut last) = (e.clone(), e.clone());
        for l in loops.iter().rev() {
            let var = l.var.as_str();
            let first = &l.lo[0];
            let end = match l.const_range() {
                Some((lo, hi)) => (lo + (hi - 1 - lo) / l.step * l.step).into(),
                None => l.hi[0].clone() - 1,
            };
            for (e, up) in [(&mut lo, false), (&mut last, true)] {
                if e.terms.keys().any(|a| !matches!(a, Atom::Sym(_) | Atom::Var(_))) {
                    return None;
                }
                let at = if (e.coef_of_var(var) > 0) == up { &end } else { first };
                *e = e.subst(var, at);
            }
        }
        let mut range = (lo, last + 1);
        if let Some(lanes) = a.lanes.as_ref().filter(|l| l.dim == dim) {
            range.1 = range.1 + (lanes.count as i64 - 1) * lanes.step;
            // Lanes outside the clip are not read.
            if let Some(c) = &lanes.clip {
                let inside = |d: Affine| d.as_const().is_none_or(|d| d > 0);
                if inside(c.lo[0].clone() - range.0.clone()) {
                    range.0 = c.lo[0].clone();
                }
                if inside(range.1.clone() - c.hi[0].clone()) {
                    range.1 = c.hi[0].clone();
                }
            }
        }
        Some(range)
    };
    Some(Ask { buffer: a.buffer, ranges: a.index.iter().enumerate().map(one).collect::<Option<_>>()? })
}

/// A part that covers both, where it is known which bound is the further one.
fn hull(a: Ask, b: Ask) -> Ask {
    let less = |x: &Affine, y: &Affine| (y.clone() - x.clone()).as_const().is_some_and(|d| d > 0);
    let ranges = a
        .ranges
        .into_iter()
        .zip(b.ranges)
        .map(|(a, b)| (if less(&b.0, &a.0) { b.0 } else { a.0 }, if less(&a.1, &b.1) { b.1 } else { a.1 }));
    Ask { buffer: a.buffer, ranges: ranges.collect() }
}

/// How often tiles that multiply by weights run in a block.
fn shares(func: &Func, body: &[Stmt]) -> i64 {
    let of = |s: &Stmt| match s {
        Stmt::Tile { .. } => i64::from(reads(func, s, BufferKind::Packed)),
        Stmt::For(l) => shares(func, &l.body) * runs(l),
        Stmt::When { body, .. } => shares(func, body),
        Stmt::Set { .. } | Stmt::Store { .. } => 0,
    };
    body.iter().map(of).sum()
}

/// The iterations of a loop; of one of which that is unknown each asks for the same.
fn runs(l: &Loop) -> i64 {
    l.const_range().filter(|_| l.step == 1).map_or(1, |(lo, hi)| (hi - lo).max(0))
}

/// Gives each tile its share, of which `before` belong to other tiles and `at` to other runs of the same.
fn share_out(func: &Func, body: &mut [Stmt], all: &Ask, shares: i64, before: &mut i64, at: &Affine) {
    for s in body {
        match s {
            Stmt::Tile { .. } if !reads(func, s, BufferKind::Packed) => {}
            Stmt::Tile { asks, .. } => {
                *asks = Some(share(all, shares, &(at.clone() + *before)));
                *before += 1;
            }
            Stmt::For(l) => {
                let (runs, mut inside) = (runs(l), 0);
                let each = self::shares(func, &l.body);
                let at = match l.const_range().filter(|_| runs > 1) {
                    Some((lo, _)) => at.clone() + (Affine::var(l.var) - lo) * each,
                    None => at.clone(),
                };
                share_out(func, &mut l.body, all, shares, &mut inside, &(at + *before));
                *before += runs * each;
            }
            Stmt::When { body, .. } => share_out(func, body, all, shares, before, at),
            Stmt::Set { .. } | Stmt::Store { .. } => {}
        }
    }
}

/// One of so many parts of the channels.
fn share(all: &Ask, shares: i64, which: &Affine) -> Ask {
    let mut out = all.clone();
    let Some((lo, hi)) = out.ranges.get_mut(CHANNELS) else { return out };
    if let Some(channels) = (hi.clone() - lo.clone()).as_const().filter(|_| shares > 1) {
        let each = (channels + shares - 1) / shares;
        *lo = lo.clone() + which.clone() * each;
        *hi = lo.clone() + each;
    }
    out
}
