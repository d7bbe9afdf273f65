//! Packings: the orders in which the plans for different sizes read the weights, and how many of them a kernel keeps.

use super::super::windows::Windows;
use super::{Sizes, Version};
use crate::plan::rounding::phase_classes;
use crate::plan::{Form, Plan};
use crate::problem::Deconv;

/// How many times the bytes of the weights all packings may take, where the caller sets no limit; and what they may take in any case.
const MOST: usize = 10;
const LITTLE: usize = 64 << 20;

/// Whether two plans, of one thread, pack the weights alike.
pub fn packs_alike(a: &Plan, b: &Plan) -> bool {
    let packing = |plan: &Plan| {
        let mut tile = plan.tile.clone();
        // Where rows of taps are bounded depends on the positions of a tile, and bounded rows surround the sum over channels.
        tile.retain(|t| plan.bounded || !t.var.as_str().starts_with('q'));
        Plan { tile, panel: false, stream: false, block: Sizes::new(), ..plan.clone() }
    };
    packing(a) == packing(b)
}

/// Bytes of the packed weights of a plan, but for what fills up its last tile.
pub fn packed_bytes(p: &Deconv, plan: &Plan) -> usize {
    if let Some(windows) = Windows::new(p, plan) {
        return windows.factor_bytes() as usize;
    }
    // Gathered, every phase has room for as many taps as the phases that have most.
    let taps = |a: usize| match plan.form {
        Form::Gather => p.stride[a].saturating_mul(phase_classes(p, a).last().map_or(1, |c| c.0)),
        Form::Scatter => p.kernel[a],
    };
    let channels = p.c_in.saturating_mul(p.c_out / p.groups);
    (0..p.rank()).map(taps).fold(channels.saturating_mul(p.elem.bytes()), usize::saturating_mul)
}

fn weight_bytes(p: &Deconv) -> usize {
    p.weight_shape().iter().fold(p.elem.bytes(), |n, d| n.saturating_mul(*d))
}

/// Most bytes that all packings of a kernel take.
pub fn limit(given: Option<usize>, p: &Deconv) -> usize {
    given.unwrap_or_else(|| weight_bytes(p).saturating_mul(MOST).max(LITTLE))
}

/// Plans whose packings a kernel keeps, one for each; `None` if it keeps all. Packings are left out, each time the one that is missed least for the bytes that are
/// still too many, until the others keep to the limit, or one is left. `plans` are those of one thread, `sizes` the ones that are to be fast.
pub fn within(given: Option<usize>, p: &Deconv, all: &[Version], plans: &[Plan], sizes: &[&[usize]]) -> Option<Vec<Plan>> {
    let limit = limit(given, p);
    let first_alike = |plan: &Plan| plans.iter().position(|first| packs_alike(first, plan));
    let of: Vec<usize> = plans.iter().filter_map(first_alike).collect();
    let mut kept: Vec<usize> = (0..plans.len()).filter(|i| of[*i] == *i).collect();
    let packings = kept.len();
    let bytes = |packing: usize| packed_bytes(p, &plans[packing]);
    let cycles: Vec<Vec<f64>> = sizes.iter().map(|size| all.iter().map(|v| v.cycles_at(size)).collect()).collect();
    let least =
        |row: &[f64], kept: &[usize]| row.iter().zip(&of).filter(|(_, o)| kept.contains(o)).map(|(c, _)| *c).fold(f64::INFINITY, f64::min);
    // How much longer the sizes take than with all packings: squared, since much of one is missed more than a little of each.
    let every = kept.clone();
    let total = |kept: &[usize]| -> f64 { cycles.iter().map(|row| (least(row, kept) / least(row, &every) - 1.0).powi(2)).sum() };
    while kept.len() > 1 {
        let too_many = kept.iter().map(|k| bytes(*k)).fold(0, usize::saturating_add).saturating_sub(limit);
        if too_many == 0 {
            break;
        }
        let without = |out: usize| kept.iter().copied().filter(|k| *k != out).collect::<Vec<_>>();
        let missed = |out: usize| (total(&without(out)) - total(&kept)) / bytes(out).min(too_many) as f64;
        let out = kept.iter().copied().min_by(|a, b| missed(*a).total_cmp(&missed(*b)))?;
        kept = without(out);
    }
    (kept.len() < packings).then(|| kept.iter().map(|k| plans[*k].clone()).collect())
}
