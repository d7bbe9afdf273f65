//! How far the results of a plan may lie from the exact ones.
//!
//! A direct sum of `n` products errs by at most `n u Σ|x||w|` (`u` the unit roundoff, to first order). A Toom-Cook algorithm sums over input channels
//! only, but its transforms amplify what is rounded before them, and pixels of the whole window take part; so its bound is
//! `(c + d) u κ max|x| Σ|w|`, with `c` input channels, `d` the roundings of the transforms and `κ` the product of [`ToomCook::growth`] over the axes.
//! For independent data both errors grow like partial sums do; the ratio of their root-mean-squares is the product of
//! [`ToomCook::mean_growth`], and it is this ratio by which plans are admitted. `docs/algorithms.md` derives both.

use super::Plan;
use crate::Result;
use crate::passes::toom_cook::{Exact, ToomCook, is_dyadic};
use crate::problem::Deconv;
use crate::reference;
use crate::runtime::Element;
use smallvec::{SmallVec, smallvec};

/// The rounding of one plan for one problem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounding {
    /// Roundings on the way from products to an output.
    pub terms: usize,
    /// How much the transforms amplify them, at worst; 1 for direct sums.
    pub growth: f64,
    /// The expected error over that of a direct sum, for independent data; 1 for direct sums.
    pub expected: f64,
    /// Whether small integers stay exact.
    pub exact_on_integers: bool,
    /// Whether every pixel of a window takes part in each of its outputs: then NaN and infinity spread within windows.
    pub windows: bool,
}

impl Rounding {
    /// The rounding of a plan. A plan whose windows have no algorithm, which no pass accepts, counts as direct.
    pub fn of(problem: &Deconv, plan: &Plan) -> Rounding {
        let terms = reference::error_bound_terms(problem) + 2;
        let direct = Rounding { terms, growth: 1.0, expected: 1.0, exact_on_integers: true, windows: false };
        let Some(w) = &plan.winograd else { return direct };
        let summed: usize = w.outputs.iter().enumerate().take(problem.rank()).map(|(a, &m)| summed_taps(problem, a, m)).product();
        let mut out = Rounding { terms: (problem.c_in / problem.groups).saturating_mul(summed) + 2, windows: true, ..direct };
        for (a, &m) in w.outputs.iter().enumerate().take(problem.rank()) {
            let Some(axis) = axis_rounding(problem, a, m) else { return direct };
            out.terms += axis.terms;
            out.growth *= axis.growth;
            out.expected *= axis.expected;
            out.exact_on_integers &= axis.exact_on_integers;
        }
        out
    }

    /// What the bound is relative to, for every output, and before the activation: the sum of its absolute products and bias; with windows the largest
    /// pixel times the sum of the channel's absolute weights.
    ///
    /// # Errors
    /// As [`reference::magnitude`].
    pub fn scale<T: Element>(&self, p: &Deconv, batch: usize, spatial: &[usize], x: &[T], w: &[T], bias: Option<&[T]>) -> Result<Vec<f64>> {
        let own = reference::magnitude(p, batch, spatial, x, w, bias)?;
        if !self.windows {
            return Ok(own);
        }
        let pixel = x.iter().map(|v| (*v).into().abs()).fold(0.0, f64::max);
        let taps: usize = p.kernel.iter().product();
        let per = p.c_out / p.groups;
        let ic = p.c_in / p.groups;
        let weights = |oc: usize| -> f64 {
            let (g, oc) = (oc / per, oc % per);
            (g * ic..(g + 1) * ic).flat_map(|i| &w[(i * per + oc) * taps..(i * per + oc + 1) * taps]).map(|v| (*v).into().abs()).sum()
        };
        let of: Vec<f64> = (0..p.c_out).map(|oc| pixel * weights(oc) + bias.map_or(0.0, |b| b[oc].into().abs())).collect();
        let plane = own.len() / (batch * p.c_out).max(1);
        let channel = |at: usize| match p.layout {
            crate::problem::Layout::ChannelsFirst => at / plane.max(1) % p.c_out,
            crate::problem::Layout::ChannelsLast => at % p.c_out,
        };
        Ok((0..own.len()).map(|at| of[channel(at)]).collect())
    }

    /// The largest error relative to [`Rounding::scale`], in units of the element's epsilon (twice the unit roundoff, which pays for the terms of
    /// second order).
    pub fn epsilons(&self) -> f64 {
        self.terms as f64 * self.growth
    }
}

/// What windows of `m` outputs of each phase along one axis contribute. `None` if there is no such algorithm.
pub fn axis_rounding(problem: &Deconv, axis: usize, m: usize) -> Option<Rounding> {
    if is_summed(problem, axis, m) {
        return Some(Rounding { terms: 0, growth: 1.0, expected: 1.0, exact_on_integers: true, windows: true });
    }
    let all: Vec<ToomCook> = phase_classes(problem, axis).into_iter().map(|(taps, _)| ToomCook::new(m, taps)).collect::<Option<_>>()?;
    let most = |f: fn(&ToomCook) -> f64| all.iter().map(f).reduce(f64::max);
    let longest = |rows: &[Vec<Exact>]| rows.iter().map(Vec::len).max().unwrap_or(0);
    let terms = all.iter().map(|t| longest(&t.input) + longest(&t.weight) + longest(&t.output)).max()?;
    let whole = |t: &ToomCook| [&t.input, &t.weight, &t.output].iter().all(|rows| rows.iter().flatten().all(|c: &Exact| is_dyadic(*c)));
    Some(Rounding {
        terms,
        growth: most(ToomCook::growth)?,
        expected: most(ToomCook::mean_growth)?,
        exact_on_integers: all.iter().all(whole),
        windows: true,
    })
}

/// Whether the taps of an axis are summed with the channels, and nothing is transformed: windows of one output along x of several axes. What one of them
/// reads lies side by side in the panel, as the lanes do.
pub fn is_summed(p: &Deconv, axis: usize, m: usize) -> bool {
    m == 1 && axis > 0 && axis + 1 == p.rank() && interleaved(p, axis) == Some(1)
}

/// The most taps of a phase, if they are summed with the channels, and 1 if not.
fn summed_taps(p: &Deconv, axis: usize, m: usize) -> usize {
    let most = || phase_classes(p, axis).last().map_or(1, |c| c.0);
    if is_summed(p, axis, m) { most() } else { 1 }
}

/// Pixels that are read beside one for each position of such an axis, which count from the first output: tap `k` of its phase reads the pixel
/// `-floor((d*k - p) / s)` from the position.
pub fn summed_reach(p: &Deconv, axis: usize) -> usize {
    let (s, d, pad) = (p.stride[axis] as i64, p.dilation[axis] as i64, p.pad_begin[axis]);
    let behind = |tap: i64| (d * tap - pad).div_euclid(s);
    (behind(p.kernel[axis] as i64 - 1) - behind(0)).max(0) as usize
}

/// How many windows interleave along an axis: taps that are dilated read pixels so far apart, and what lies between belongs to other windows. 1 without
/// dilation, and where it divides the stride; `None` if neither divides the other, since phases then read pixels apart that differ from phase to phase.
pub fn interleaved(p: &Deconv, axis: usize) -> Option<usize> {
    interleaved_by(p.kernel[axis], p.stride[axis], p.dilation[axis])
}

/// The same for kernel, stride and dilation.
pub fn interleaved_by(kernel: usize, stride: usize, dilation: usize) -> Option<usize> {
    let (stride, dilation) = (stride.max(1), dilation.max(1));
    if kernel == 1 || stride.is_multiple_of(dilation) {
        return Some(1);
    }
    dilation.is_multiple_of(stride).then(|| dilation / stride)
}

/// Numbers of taps, each once with how many phases have it.
pub type PhaseClasses = SmallVec<[(usize, usize); 2]>;

/// How many taps the phases of an axis have, fewest taps first; phases without a tap are left out.
pub fn phase_classes(p: &Deconv, axis: usize) -> PhaseClasses {
    let (k, s, d) = (p.kernel[axis], p.stride[axis], p.dilation[axis]);
    let mut taps: SmallVec<[usize; 32]> = smallvec![0; s];
    for tap in 0..k {
        taps[tap * d % s] += 1;
    }
    taps.retain(|t| *t > 0);
    taps.sort_unstable();
    taps.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect()
}
