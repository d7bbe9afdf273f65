//! ONNX `ConvTranspose`: attributes, and the derivation of pads from `auto_pad` and `output_shape`.
//!
//! Source: the operator's specification (opset 11 on), and ONNX Runtime where the specification is silent. With `total = stride*(in-1) +
//! output_padding + dilation*(k-1) + 1 - out`, `SAME_UPPER` puts the odd one at the end, every other mode, `NOTSET` included, at the
//! beginning. `SAME_*` without `output_shape` means `out = in*stride`. A negative total extends the output at the end, which is what
//! the node test `convtranspose_output_shape` expects.
//!
//! ```
//! use polyphase::problem::conventions::onnx::OnnxAttributes;
//! use polyphase::Deconv;
//! let a = OnnxAttributes { strides: Some(vec![3, 2]), output_shape: Some(vec![10, 8]), ..Default::default() };
//! let layer = Deconv::from_onnx(&a, &[Some(1), Some(1), Some(3), Some(3)], &[1, 2, 3, 3], false)?;
//! assert_eq!(layer.output_shape(1, &[3, 3])?, [1, 2, 10, 8]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, Extents, extents_i64, on_input, per_axis_or, same_channels, split_shape, steps};
use crate::error::{Error, Kind, Result};
use crate::problem::validate::{axis_name, problem, within};
use crate::problem::{Deconv, DeconvBuilder};
use std::str::FromStr;

/// The attribute `auto_pad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoPad {
    /// `pads` count, or `output_shape` if it is given.
    #[default]
    NotSet,
    /// No padding.
    Valid,
    /// `out = in * stride`; the odd padding goes to the end.
    SameUpper,
    /// `out = in * stride`; the odd padding goes to the beginning.
    SameLower,
}

impl FromStr for AutoPad {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "" | "NOTSET" => Ok(AutoPad::NotSet),
            "VALID" => Ok(AutoPad::Valid),
            "SAME_UPPER" => Ok(AutoPad::SameUpper),
            "SAME_LOWER" => Ok(AutoPad::SameLower),
            _ => Err(Error::new(Kind::Parse, format!("auto_pad is {s:?}; NOTSET, VALID, SAME_UPPER and SAME_LOWER are legal"))),
        }
    }
}

/// The attributes of a `ConvTranspose` node; `None` is an absent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxAttributes {
    /// Kernel extents; inferred from the weight if absent, and must agree with it.
    pub kernel_shape: Option<Vec<i64>>,
    /// Strides; 1 if absent.
    pub strides: Option<Vec<i64>>,
    /// `[begin…, end…]`; 0 if absent. Ignored with `output_shape`, as the specification says.
    pub pads: Option<Vec<i64>>,
    /// Extra outputs at the end; 0 if absent.
    pub output_padding: Option<Vec<i64>>,
    /// Dilations; 1 if absent.
    pub dilations: Option<Vec<i64>>,
    /// Groups.
    pub group: i64,
    /// How pads are derived.
    pub auto_pad: AutoPad,
    /// Wanted output extents: spatial ones, or the whole shape with N and C, which must then be right.
    pub output_shape: Option<Vec<i64>>,
}

impl Default for OnnxAttributes {
    fn default() -> Self {
        OnnxAttributes {
            kernel_shape: None,
            strides: None,
            pads: None,
            output_padding: None,
            dilations: None,
            group: 1,
            auto_pad: AutoPad::NotSet,
            output_shape: None,
        }
    }
}

impl Deconv {
    /// From an ONNX node: its attributes, the shapes of X `[n, c, *spatial]` and W `[c, m / group, *kernel]`, and whether there is a B.
    ///
    /// # Errors
    /// Shapes and attributes that contradict each other, each named with its values; whatever [`Deconv::validate`] refuses.
    pub fn from_onnx(a: &OnnxAttributes, x_shape: Extents<'_>, w_shape: &[usize], bias: bool) -> Built {
        if !(3..=5).contains(&w_shape.len()) {
            return Err(problem(format!("W has {} extents; 3, 4 or 5 are legal: [c, m / group, *kernel]", w_shape.len())));
        }
        let rank = w_shape.len() - 2;
        let kernel = extents_i64(&w_shape[2..]);
        if let Some(k) = a.kernel_shape.as_ref().filter(|k| **k != kernel) {
            return Err(problem(format!("kernel_shape is {k:?}; W of shape {w_shape:?} has {kernel:?}")));
        }
        let (batch, channels, spatial) = split_shape("X", x_shape, rank, false)?;
        same_channels("X", channels, w_shape[0])?;
        let stride = per_axis_or("strides", a.strides.as_deref(), rank, 1)?;
        let dilation = per_axis_or("dilations", a.dilations.as_deref(), rank, 1)?;
        let output_padding = per_axis_or("output_padding", a.output_padding.as_deref(), rank, 0)?;
        steps("kernel", &kernel)?;
        steps("stride", &stride)?;
        steps("dilation", &dilation)?;
        within(&format!("group is {}", a.group), a.group.into(), 1, i128::from(i32::MAX))?;
        let c_out = w_shape[1].saturating_mul(a.group as usize);
        let geometry = Geometry { kernel: &kernel, stride: &stride, dilation: &dilation, output_padding: &output_padding };
        let (begin, mut end) = match wanted(a, rank, batch, c_out)? {
            Some(out) => geometry.split(a.auto_pad, |axis| match spatial[axis] {
                Some(i) => Ok(geometry.reach(axis, i) - i128::from(out[axis])),
                None => Err(problem(format!("output_shape needs a known input extent; axis {} of X is open", axis_name(rank, axis)))),
            })?,
            None => match a.auto_pad {
                AutoPad::NotSet => explicit(a, rank)?,
                AutoPad::Valid => (vec![0; rank], vec![0; rank]),
                // out = in*stride, so the input extent cancels and may be open.
                _ => geometry.split(a.auto_pad, |axis| Ok(geometry.reach(axis, 1) - i128::from(stride[axis])))?,
            },
        };
        if a.auto_pad != AutoPad::NotSet && a.pads.iter().flatten().any(|p| *p != 0) {
            return Err(problem(format!("pads are {:?} beside an auto_pad; they must be absent or 0", a.pads.as_deref().unwrap_or(&[]))));
        }
        let output_padding = legal_output_padding(&geometry, &mut end)?;
        let b = DeconvBuilder::new(rank, w_shape[0], c_out, kernel.iter().copied()).groups(a.group).bias(bias);
        let b = b.stride(stride.iter().copied()).dilation(dilation.iter().copied()).output_padding(output_padding);
        on_input(b.padding_begin_end(begin, end), batch, spatial).build()
    }
}

/// The spatial part of `output_shape`, if it is given.
fn wanted(a: &OnnxAttributes, rank: usize, batch: Option<usize>, c_out: usize) -> Result<Option<Vec<i64>>> {
    let Some(shape) = &a.output_shape else { return Ok(None) };
    let spatial = match shape.len() {
        n if n == rank => &shape[..],
        n if n == rank + 2 => {
            if batch.is_some_and(|b| b as i64 != shape[0]) || shape[1] != c_out as i64 {
                let batch = batch.map_or("?".into(), |b| b.to_string());
                return Err(problem(format!(
                    "output_shape is {shape:?} with batch {} and {} channels; X and W give [{batch}, {c_out}]",
                    shape[0], shape[1]
                )));
            }
            &shape[2..]
        }
        n => {
            return Err(problem(format!(
                "output_shape {shape:?} has {n} values; {rank} (spatial) or {} (with N and C) are legal",
                rank + 2
            )));
        }
    };
    for (axis, &v) in spatial.iter().enumerate() {
        within(&format!("output_shape is {v} on axis {}", axis_name(rank, axis)), v.into(), 1, i128::from(i32::MAX))?;
    }
    Ok(Some(spatial.to_vec()))
}

fn explicit(a: &OnnxAttributes, rank: usize) -> Result<(Vec<i64>, Vec<i64>)> {
    let Some(pads) = &a.pads else { return Ok((vec![0; rank], vec![0; rank])) };
    if pads.len() != 2 * rank {
        return Err(problem(format!(
            "pads {pads:?} has {} values; a {rank}-D layer needs {}: all begins, then all ends",
            pads.len(),
            2 * rank
        )));
    }
    Ok((pads[..rank].to_vec(), pads[rank..].to_vec()))
}

/// ONNX does not bound `output_padding`; what exceeds our bound becomes a negative padding at the end, which means the same.
fn legal_output_padding(g: &Geometry<'_>, end: &mut [i64]) -> Result<Vec<i64>> {
    let mut out = g.output_padding.to_vec();
    for (axis, op) in out.iter_mut().enumerate() {
        within(&format!("output_padding is {op} on axis {}", axis_name(end.len(), axis)), (*op).into(), 0, i128::from(i32::MAX))?;
        if *op >= g.stride[axis].max(g.dilation[axis]) {
            end[axis] = end[axis].saturating_sub(*op);
            *op = 0;
        }
    }
    Ok(out)
}

struct Geometry<'a> {
    kernel: &'a [i64],
    stride: &'a [i64],
    dilation: &'a [i64],
    output_padding: &'a [i64],
}

impl Geometry<'_> {
    /// The output extent before any padding is taken off.
    fn reach(&self, axis: usize, input: usize) -> i128 {
        let n = |v: i64| i128::from(v);
        n(self.stride[axis]) * (input as i128 - 1) + n(self.output_padding[axis]) + n(self.dilation[axis]) * (n(self.kernel[axis]) - 1) + 1
    }
    /// The total padding of each axis, shared out between its ends.
    fn split(&self, mode: AutoPad, total: impl Fn(usize) -> Result<i128>) -> Result<(Vec<i64>, Vec<i64>)> {
        let mut ends = (Vec::new(), Vec::new());
        for axis in 0..self.kernel.len() {
            let total = super::saturate(total(axis)?);
            let begin = match mode {
                _ if total <= 0 => 0,
                AutoPad::SameUpper => total / 2,
                _ => total - total / 2,
            };
            ends.0.push(begin);
            ends.1.push(total - begin);
        }
        Ok(ends)
    }
}
