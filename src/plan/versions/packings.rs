//! Packings: the orders in which the plans for different sizes read the weights, and how many of them a kernel keeps.

use super::{Sizes, TypicalSize, Version};
use crate::Result;
use crate::ir::{Affine, Buffer, BufferKind, Func};
use crate::plan::Plan;
use crate::problem::Deconv;

/// How many times the bytes of the weights all packings may take, where the caller sets no limit; and what they may take in any case.
const MOST: usize = 10;
const LITTLE: usize = 64 << 20;

/// Whether two plans of a problem with open extents, each for one thread, pack the weights alike.
pub fn packs_alike(a: &Plan, b: &Plan) -> bool {
    let packing = |plan: &Plan| {
        let mut tile = plan.tile.clone();
        // Rows of taps that are bounded surround the sum over channels, and which are depends on the axes along which a tile has several positions.
        tile.retain(|t| plan.bounded || !t.var.as_str().starts_with('q'));
        tile.iter_mut().filter(|t| t.var.as_str().starts_with('q')).for_each(|t| t.extent = t.extent.min(2));
        Plan { tile, panel: false, stream: false, block: Sizes::new(), ..plan.clone() }
    };
    packing(a) == packing(b)
}

/// Bytes of the packed weights of a lowered plan.
pub fn packed_bytes(func: &Func) -> usize {
    let extents = |b: &Buffer| b.dims.iter().filter_map(Affine::as_const).fold(b.elem.bytes(), |n, d| n.saturating_mul(d as usize));
    func.buffers.iter().filter(|b| b.kind == BufferKind::Packed).map(extents).fold(0, usize::saturating_add)
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
///
/// # Errors
/// Those of lowering a plan.
pub fn within(
    given: Option<usize>,
    p: &Deconv,
    all: &mut [Version],
    plans: &[Plan],
    sizes: &[TypicalSize<'_>],
) -> Result<Option<Vec<Plan>>> {
    let limit = limit(given, p);
    let first_alike = |plan: &Plan| plans.iter().position(|first| packs_alike(first, plan));
    let of: Vec<usize> = plans.iter().filter_map(first_alike).collect();
    let mut kept: Vec<usize> = (0..plans.len()).filter(|i| of[*i] == *i).collect();
    let packings = kept.len();
    if packings == 1 {
        return Ok(None);
    }
    // What fills up the last tile of channels is known when a plan is lowered.
    let mut bytes = vec![0; plans.len()];
    for k in &kept {
        bytes[*k] = packed_bytes(&*all[*k].lowered_alone(p, &plans[*k])?);
    }
    let cycles: Vec<Vec<f64>> = sizes.iter().map(|size| all.iter().map(|v| v.cycles_at(size.typical)).collect()).collect();
    let least =
        |row: &[f64], kept: &[usize]| row.iter().zip(&of).filter(|(_, o)| kept.contains(o)).map(|(c, _)| *c).fold(f64::INFINITY, f64::min);
    // How much longer the sizes take than with all packings: squared, since much of one is missed more than a little of each.
    let every = kept.clone();
    let total = |kept: &[usize]| -> f64 { cycles.iter().map(|row| (least(row, kept) / least(row, &every) - 1.0).powi(2)).sum() };
    while kept.len() > 1 {
        let too_many = kept.iter().map(|k| bytes[*k]).fold(0, usize::saturating_add).saturating_sub(limit);
        if too_many == 0 {
            break;
        }
        let without = |out: usize| kept.iter().copied().filter(|k| *k != out).collect::<Vec<_>>();
        let missed = |out: usize| (total(&without(out)) - total(&kept)) / bytes[out].min(too_many) as f64;
        let Some(out) = kept.iter().copied().min_by(|a, b| missed(*a).total_cmp(&missed(*b))) else { break };
        kept = without(out);
    }
    Ok((kept.len() < packings).then(|| kept.iter().map(|k| plans[*k].clone()).collect()))
}
