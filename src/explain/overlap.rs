//! How many patches land on each output, and what evens them out.
//!
//! Along an axis an output is hit once per tap of its phase. If the phases have different numbers of taps, neighbouring outputs sum different numbers
//! of products: the checkerboard of badly matched kernels and strides. They have the same number exactly if the stride divides
//! the kernel and shares no factor with the dilation.
//!
//! ```text
//! k3 s2   phase 0: taps 0 2    phase 1: tap 1     →  1 2 1 2 1 2 …
//! k4 s2   phase 0: taps 0 2    phase 1: taps 1 3  →  2 2 2 2 2 2 …
//! ```

use super::facts::Sizes;
use crate::ir::names::axes;
use crate::{Deconv, Result};
use serde::Serialize;

/// How many outputs of an axis are counted one by one.
const SHOWN: usize = 16;

/// Patches per output.
#[derive(Debug, Clone, Serialize)]
pub struct Overlap {
    /// Whether every output away from the border sums equally many patches.
    pub even: bool,
    /// Each axis.
    pub axes: Vec<AxisOverlap>,
    /// What it comes to, in a sentence.
    pub verdict: String,
    /// Kernels and strides that would even it out; empty if it is even.
    pub fixes: Vec<String>,
}

/// Patches per output along one axis.
#[derive(Debug, Clone, Serialize)]
pub struct AxisOverlap {
    /// `z`, `y` or `x`.
    pub axis: &'static str,
    /// Fewest taps of a phase.
    pub least: usize,
    /// Most taps of a phase.
    pub most: usize,
    /// Patches that land on outputs 0, 1, 2 … of this axis, the first 16; fewer at the border.
    pub first: Vec<usize>,
}

/// The overlap of a problem.
pub(super) fn overlap(p: &Deconv, sizes: &Sizes) -> Result<Overlap> {
    let all: Vec<AxisOverlap> = (0..p.rank()).map(|a| axis(p, sizes, a)).collect();
    let even = all.iter().all(|a| a.least == a.most);
    let product = |f: &dyn Fn(&AxisOverlap) -> usize| all.iter().map(|a| f(a).to_string()).collect::<Vec<_>>().join("*");
    let total = |f: &dyn Fn(&AxisOverlap) -> usize| all.iter().map(f).fold(1usize, usize::saturating_mul);
    let (least, most) = (total(&|a| a.least), total(&|a| a.most));
    let patches = |n: usize| if n == 1 { "patch" } else { "patches" };
    let verdict = if even && most == 1 {
        "even: exactly one patch lands on each output, patches do not overlap".into()
    } else if even {
        let product = if all.len() > 1 { format!("{} = {most}", product(&|a| a.most)) } else { most.to_string() };
        format!("even: {product} {} land on each output away from the border", patches(most))
    } else if least == 0 {
        format!("holes: on some outputs nothing lands (they are bias only), on others up to {most} {}", patches(most))
    } else {
        format!("checkerboard: {least} to {most} patches land on an output, depending on its phase")
    };
    let fixes = if even { vec![] } else { fixes(p, sizes) };
    Ok(Overlap { even, axes: all, verdict, fixes })
}

fn axis(p: &Deconv, sizes: &Sizes, a: usize) -> AxisOverlap {
    let (s, d, k, pad) = (p.stride[a] as i64, p.dilation[a] as i64, p.kernel[a] as i64, p.pad_begin[a]);
    let taps = p.phases(a).into_iter().map(|f| f.taps.len());
    let (least, most) = taps.fold((usize::MAX, 0), |(l, m), n| (l.min(n), m.max(n)));
    let lands = |o: i64, t: i64| {
        let at = o + pad - d * t;
        at % s == 0 && (0..sizes.input[a] as i64).contains(&at.div_euclid(s))
    };
    let hits = |o: usize| (0..k).filter(|t| lands(o as i64, *t)).count();
    AxisOverlap { axis: axes(p.rank())[a], least, most, first: (0..sizes.output[a].min(SHOWN)).map(hits).collect() }
}

/// What would give every phase equally many taps, one sentence per possibility; axes that need the same are named together.
fn fixes(p: &Deconv, sizes: &Sizes) -> Vec<String> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    let uneven: Vec<usize> = (0..p.rank()).filter(|&a| gcd(p.stride[a], p.dilation[a]) > 1 || p.kernel[a] % p.stride[a] != 0).collect();
    for &a in &uneven {
        for fix in axis_fixes(p, sizes, a) {
            match found.iter_mut().find(|f| f.0 == fix) {
                Some(f) => f.1.push(axes(p.rank())[a]),
                None => found.push((fix, vec![axes(p.rank())[a]])),
            }
        }
    }
    let all_axes = |names: &[&str]| names.len() == p.rank();
    found.into_iter().map(|(fix, names)| if all_axes(&names) { fix } else { format!("axis {}: {fix}", names.join(", ")) }).collect()
}

fn axis_fixes(p: &Deconv, sizes: &Sizes, a: usize) -> Vec<String> {
    let (s, d, k) = (p.stride[a], p.dilation[a], p.kernel[a]);
    if gcd(s, d) > 1 {
        let near = (1..=d + s).filter(|c| gcd(s, *c) == 1).min_by_key(|c| c.abs_diff(d)).unwrap_or(1);
        return vec![format!("dilation {near}: {d} shares a factor with stride {s}, so some phases get no tap at all")];
    }
    let mut out = Vec::new();
    let multiples = [k.div_ceil(s) * s, k / s * s];
    for kernel in multiples.into_iter().filter(|n| *n > 0) {
        out.push(keeping_size(p, sizes, a, kernel));
    }
    let divisors = (1..s.min(k)).rev().filter(|c| k % c == 0 && gcd(*c, d) == 1);
    out.extend(divisors.take(1).map(|c| format!("stride {c} (the output gets smaller)")));
    out
}

/// A kernel, with the padding that keeps the output as large as it is.
fn keeping_size(p: &Deconv, sizes: &Sizes, a: usize, kernel: usize) -> String {
    let (s, d) = (p.stride[a] as i64, p.dilation[a] as i64);
    let total = s * (sizes.input[a] as i64 - 1) + d * (kernel as i64 - 1) + 1 - sizes.output[a] as i64;
    let pad = (total + 1).div_euclid(2);
    match (total, total.rem_euclid(2)) {
        (..0, _) if -total < s.max(d) => format!("kernel {kernel} with padding 0 and output_padding {} keeps the output size", -total),
        (..0, _) => format!("kernel {kernel} (the output gets smaller)"),
        (_, 0) => format!("kernel {kernel} with padding {pad} keeps the output size"),
        _ => format!("kernel {kernel} with padding {pad} and output_padding 1 keeps the output size"),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
