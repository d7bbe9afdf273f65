//! Pass `block`: cache blocks of positions, and what threads share out.
//!
//! *Needs* a nest of stage `phases`. *Leaves* its outermost loops `par`: batch, group, blocks of positions and parts of the output channels.
//!
//! ```text
//! for n, g, oc, r…, q…:                       par for n, g, qy.b in … step 8, oc.c in 0..2:
//!   …                                           for oc in 64*oc.c..min(128, 64*oc.c + 64), r…, qy in max(lo, qy.b)..min(hi, qy.b + 8), qx…:
//!                                                 …
//! ```
//!
//! Blocks of an extent that is known at run time only are cut evenly: the plan's size is then the most that a block holds, and a count of the
//! function says how many tiles (or windows) it does hold.
//!
//! A scatter nest has no blocks of positions: patches of neighbours overlap, so its threads share batch, groups and channels.

use super::nest::{Nest, wrap};
use crate::ir::names::{self, part};
use crate::ir::{Affine, Atom, Count, CountOf, Func, Loop, LoopKind, Name};
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// Splits positions into blocks and marks the parallel loops.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    let mut counts = Vec::new();
    let nest = Nest::of(func);
    let mut outer: Vec<Loop> = Vec::new();
    let mut blocks: Vec<Loop> = Vec::new();
    let mut inner: Vec<Loop> = Vec::new();
    let mut innermost: Vec<Loop> = Vec::new();
    let axes = names::axes(plan.block.len());
    let loops = nest.loops.clone();
    for l in nest.loops {
        if l.var == "g" && plan.extent("g") > 1 {
            // Groups that lie side by side are the innermost loop: what is next to a tile in memory comes next.
            innermost.push(l);
        } else if l.var == "n" || l.var == "g" {
            outer.push(l.kind(LoopKind::Par));
        } else if l.var == "oc" {
            let (per, parts) = channel_parts(&l, plan);
            if parts == 1 {
                inner.push(l);
                continue;
            }
            let c = part(&l.var, "c");
            blocks.push(Loop::new(c, parts, Vec::new()).kind(LoopKind::Par));
            let start = Affine::var(c) * per;
            inner.push(Loop { lo: vec![start.clone()], hi: vec![start + per, l.hi[0].clone()], ..l });
        } else {
            let size = axes.iter().position(|a| l.var == names::on("q", a)).map_or(0, |a| plan.block[a] as i64);
            if size == 0 {
                inner.push(l);
                continue;
            }
            let tile = plan.tile.iter().find(|t| t.var == l.var).map_or(1, |t| t.extent as i64);
            if size % tile != 0 {
                let message = format!("a block of {size} positions along {} does not hold whole tiles of {tile}", l.var);
                return Err(Error::new(Kind::Options, message));
            }
            let at = part(&l.var, "b");
            let window = plan.winograd.as_ref().and_then(|w| axes.iter().zip(&w.outputs).find(|(a, _)| l.var == names::on("q", a)));
            let unit = window.map_or(tile, |(_, m)| *m as i64);
            let (lo, hi) = (extreme(&l.lo[0], func, phases(&loops), false), extreme(&l.hi[0], func, phases(&loops), true));
            // Channel parts are the innermost of the parallel loops, so that neighbours in a thread share a panel's rows in cache.
            let pos = blocks.iter().position(|b| b.var == "oc.c").unwrap_or(blocks.len());
            let extent = hi.clone() - lo.clone();
            let mut block = Loop { step: size, ..Loop::new(at, hi, Vec::new()).kind(LoopKind::Par) };
            block.lo = vec![lo];
            let mut end = Affine::var(at) + size;
            // How many units an extent takes is known at run time: blocks are then cut as evenly as they can be.
            if extent.as_const().is_none() && size > unit && size % unit == 0 {
                let count = Name::from(l.var.as_str().replacen('q', "n.", 1));
                end = Affine::var(at) + Affine::sym(count) * unit;
                (block.step, block.times) = (unit, Some(count));
                counts.push(Count { name: count, of: CountOf::Even { extent, unit, most: size / unit } });
            }
            blocks.insert(pos, block);
            inner.push(Loop { lo: [l.lo.clone(), vec![Affine::var(at)]].concat(), hi: [l.hi.clone(), vec![end]].concat(), ..l });
        }
    }
    let mut out = func.with_run(wrap(&[outer, blocks, inner, innermost].concat(), nest.body));
    out.counts.extend(counts);
    Ok(Some(out))
}

/// The positions of the largest block that a parallel loop steps over.
pub fn largest(func: &Func, block: &Loop) -> i64 {
    let most = |c: &Count| match c.of {
        CountOf::Even { most, .. } if block.times.as_ref() == Some(&c.name) => Some(most),
        _ => None,
    };
    block.step * func.counts.iter().find_map(most).unwrap_or(1)
}

/// Channels per part (a multiple of the register tile's) and how many parts there are.
fn channel_parts(l: &Loop, plan: &Plan) -> (i64, i64) {
    let (_, channels) = l.const_range().unwrap_or((0, 1));
    let per = channels_of_part(channels, plan);
    (per, (channels + per - 1) / per)
}

/// Output channels of each part of so many: whole tiles.
pub fn channels_of_part(channels: i64, plan: &Plan) -> i64 {
    let (tile, parts) = (plan.extent("oc") as i64, plan.channel_parts as i64);
    let tiles = (channels + tile - 1) / tile;
    tile * ((tiles + parts - 1) / parts).max(1)
}

/// The least or largest value of a bound over the phases: tables give their least or largest entry, and so do variables for which `range`
/// knows `(lo, hi)`.
pub fn extreme(bound: &Affine, func: &Func, range: impl Fn(&str) -> Option<(i64, i64)>, largest: bool) -> Affine {
    bound.terms.iter().fold(Affine::from(bound.offset), |sum, (atom, &c)| {
        let up = largest == (c > 0);
        let end = match atom {
            Atom::Table(t, _) => func.find_table(t).and_then(|t| if up { t.values.iter().max() } else { t.values.iter().min() }).copied(),
            Atom::Var(v) => range(v.as_str()).map(|(lo, hi)| if up { hi - 1 } else { lo }),
            _ => None,
        };
        sum + end.map_or_else(|| Affine::atom(*atom) * c, |e| Affine::from(e * c))
    })
}

/// The constant ranges of the phase loops among `loops`, for [`extreme`].
pub fn phases(loops: &[Loop]) -> impl Fn(&str) -> Option<(i64, i64)> + '_ {
    |v| loops.iter().find(|l| l.var == v && v.starts_with('r')).and_then(Loop::const_range)
}
