//! What is computed: shapes, multiplications, phases. Everything is counted, nothing estimated.
//!
//! *Needs* a validated problem. Open extents are taken as examples ([`Sizes`]) and said to be.

use crate::ir::names::axes;
use crate::ir::{Affine, Atom};
use crate::{Deconv, Error, Extent, Kind, Layout, Result};
use serde::Serialize;

/// What an open spatial extent is taken to be where a number is needed.
const EXAMPLE: usize = 64;
/// Phases that are listed per axis; the rest are counted.
pub const LISTED: usize = 16;

/// Batch and spatial input extents with every symbol replaced by a number.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Batch.
    pub batch: usize,
    /// Spatial input extents, outermost first.
    pub input: Vec<usize>,
    /// Spatial output extents.
    pub output: Vec<usize>,
    /// The values of the problem's symbols, in their order.
    pub symbols: Vec<usize>,
    /// What was assumed.
    pub notes: Vec<String>,
}

impl Sizes {
    /// The problem's extents; an open batch is taken as 1, an open spatial extent as 64, or more where 64 gives no output.
    ///
    /// # Errors
    /// Extents for which there is no output.
    pub fn of(p: &Deconv) -> Result<Sizes> {
        let mut open = Vec::new();
        let mut take = |e: &Extent, example: usize| match e {
            Extent::Fixed(v) => *v,
            Extent::Open(name) => {
                open.push((name.to_string(), example));
                example
            }
        };
        let batch = take(&p.batch, 1);
        let input: Vec<usize> = (0..p.rank()).map(|a| take(&p.input[a], example(p, a))).collect();
        let output = p.output_spatial(batch, &input)?;
        let notes = match open.len() {
            0 => vec![],
            _ => {
                let taken: Vec<String> = open.iter().map(|(n, v)| format!("{n} = {v}")).collect();
                vec![format!("open until run time; numbers below are for {}", taken.join(", "))]
            }
        };
        Ok(Sizes { batch, input, output, symbols: open.into_iter().map(|o| o.1).collect(), notes })
    }
}

/// An extent for an open axis that has an output.
fn example(p: &Deconv, axis: usize) -> usize {
    let has_output = |i: &usize| p.output_extent(axis).eval(&mut |_| *i as i64) >= 1;
    [EXAMPLE, 1 << 10, 1 << 16, 1 << 22].into_iter().find(has_output).unwrap_or(EXAMPLE)
}

/// One tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Tensor {
    /// `input`, `weight`, `bias` or `output`.
    pub name: &'static str,
    /// Extents, outermost first, in the order of memory.
    pub shape: Vec<usize>,
    /// What the extents are: `n c y x`.
    pub axes: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The tensors of a problem.
pub(super) fn tensors(p: &Deconv, sizes: &Sizes) -> Result<Vec<Tensor>> {
    let spatial = axes(p.rank()).join(" ");
    let data = match p.layout {
        Layout::ChannelsFirst => format!("n c {spatial}"),
        Layout::ChannelsLast => format!("n {spatial} c"),
    };
    let taps: Vec<String> = axes(p.rank()).iter().map(|a| format!("k{a}")).collect();
    let tensor = |name, shape: Vec<usize>, axes: String| {
        let bytes = shape.iter().fold(p.elem.bytes() as u64, |n, d| n.saturating_mul(*d as u64));
        Tensor { name, shape, axes, bytes }
    };
    let mut all = vec![
        tensor("input", p.input_shape(sizes.batch, &sizes.input)?, data.clone()),
        tensor("weight", p.weight_shape(), format!("ic oc {}", taps.join(" "))),
    ];
    if p.bias {
        all.push(tensor("bias", vec![p.c_out], "oc".into()));
    }
    all.push(tensor("output", p.output_shape(sizes.batch, &sizes.input)?, data));
    Ok(all)
}

/// How an output extent comes about.
#[derive(Debug, Clone, Serialize)]
pub struct OutputExtent {
    /// `z`, `y` or `x`.
    pub axis: &'static str,
    /// The formula with its numbers: `2*(4-1) + 1*(4-1) + 1 + 0 - 1 - 1`.
    pub formula: String,
    /// Its value, in terms of the symbol if the extent is open: `8`, `2*W`.
    pub extent: String,
    /// Its value for the extents that were taken.
    pub value: usize,
}

/// `s*(i-1) + d*(k-1) + 1 + op - pb - pe` per axis.
pub(super) fn output_extents(p: &Deconv, sizes: &Sizes) -> Result<Vec<OutputExtent>> {
    let signed = |v: i64| if v < 0 { format!("+ {}", -v) } else { format!("- {v}") };
    let one = |a: usize| {
        let (s, d, k, op) = (p.stride[a], p.dilation[a], p.kernel[a], p.output_padding[a]);
        let formula =
            format!("{s}*({}-1) + {d}*({k}-1) + 1 + {op} {} {}", name_of(&p.input[a]), signed(p.pad_begin[a]), signed(p.pad_end[a]));
        OutputExtent { axis: axes(p.rank())[a], formula, extent: shown(&p.output_extent(a)), value: sizes.output[a] }
    };
    Ok((0..p.rank()).map(one).collect())
}

fn name_of(e: &Extent) -> String {
    match e {
        Extent::Fixed(v) => v.to_string(),
        Extent::Open(name) => name.to_string(),
    }
}

fn shown(a: &Affine) -> String {
    a.as_const().map_or_else(|| a.to_string(), |v| v.to_string())
}

/// Multiplications (each with its addition).
#[derive(Debug, Clone, Serialize)]
pub struct Work {
    /// With zeros inserted between the pixels, as textbooks compute it: every tap of every output.
    pub with_zeros: u64,
    /// Of these, by an inserted zero or by padding: they are not done.
    pub removed: u64,
    /// What is left: every product that reaches an output.
    pub useful: u64,
    /// `useful / with_zeros`.
    pub useful_share: f64,
    /// Floating-point operations of the useful ones: two each.
    pub flops: u64,
    /// Bytes of input, weight and output together.
    pub bytes_io: u64,
    /// Operations per byte.
    pub intensity: f64,
}

/// The multiplications of a problem.
pub(super) fn work(p: &Deconv, sizes: &Sizes) -> Work {
    let (dense, useful) = (p.dense_macs(sizes.batch, &sizes.input), p.useful_macs(sizes.batch, &sizes.input));
    let bytes = p.bytes_io(sizes.batch, &sizes.input);
    let count = |v: u128| u64::try_from(v).unwrap_or(u64::MAX);
    let ratio = |a: u128, b: u128| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    Work {
        with_zeros: count(dense),
        removed: count(dense.saturating_sub(useful)),
        useful: count(useful),
        useful_share: ratio(useful, dense),
        flops: count(useful.saturating_mul(2)),
        bytes_io: count(bytes),
        intensity: ratio(useful.saturating_mul(2), bytes),
    }
}

/// The phases of one axis.
#[derive(Debug, Clone, Serialize)]
pub struct AxisPhases {
    /// `z`, `y` or `x`.
    pub axis: &'static str,
    /// How many there are: the stride.
    pub count: usize,
    /// The first 16 of them.
    pub listed: Vec<Phase>,
}

/// One phase: the outputs `o` with `(o + pad) % stride == residue`.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// The residue.
    pub residue: usize,
    /// The first output that belongs to it.
    pub first_output: usize,
    /// The taps that feed it, ascending; empty where nothing lands.
    pub taps: Vec<usize>,
}

/// The phases of every axis.
pub(super) fn phases(p: &Deconv) -> Vec<AxisPhases> {
    let axis = |a: usize| {
        let (s, pad) = (p.stride[a] as i64, p.pad_begin[a]);
        let phase = |i: crate::problem::PhaseInfo| {
            let first_output = (i.residue as i64 - pad).rem_euclid(s) as usize;
            Phase { residue: i.residue, first_output, taps: i.taps }
        };
        let mut listed: Vec<Phase> = p.phases(a).into_iter().map(phase).collect();
        listed.sort_by_key(|f| f.first_output);
        listed.truncate(LISTED);
        AxisPhases { axis: axes(p.rank())[a], count: p.stride[a], listed }
    };
    (0..p.rank()).map(axis).collect()
}

/// The number that stands for an expression in symbols.
pub(super) fn value_of(a: &Affine, names: &[crate::ir::Name], values: &[usize]) -> Result<usize> {
    let v = a.eval(&mut |atom| match atom {
        Atom::Sym(s) => names.iter().position(|n| n == s).and_then(|i| values.get(i)).map_or(0, |v| *v as i64),
        _ => 0,
    });
    usize::try_from(v).map_err(|_| Error::new(Kind::Tensor, format!("the extent {a} is {v}; it must be at least 0")))
}
