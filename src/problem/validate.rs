//! What a transposed convolution may be: every rule, each with a sentence that names the offending number.
//!
//! Needs any [`Deconv`], however wrong; after [`Deconv::validate`] all index arithmetic fits in `i64` and every tensor's
//! size in bytes fits in `isize`. Padding may exceed the kernel (a crop) or be negative (an extension).
//!
//! ```
//! use polyphase::Deconv;
//! let mut layer = Deconv::torch1d(4, 4, [3]).stride([2]).input([5]).build()?;
//! layer.output_padding[0] = 2;
//! assert_eq!(
//!     layer.validate().unwrap_err().to_string(),
//!     "output_padding is 2 on axis x; it must be less than max(stride 2, dilation 1) = 2"
//! );
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::shape::{BATCH, spatial_symbols};
use super::{Activation, Deconv, Extent};
use crate::error::{Error, Kind, Result};
use crate::ir::{Elem, names};

/// The largest extent, channel count, batch or padding: 2³¹ - 1. Index arithmetic then fits in 64 bits.
pub const MAX_EXTENT: i64 = i32::MAX as i64;
/// The largest kernel, stride, dilation or output padding per axis: 2²⁰. Tables have one entry per phase.
pub const MAX_STEP: i64 = 1 << 20;

/// An error about the problem itself.
pub(super) fn problem(message: impl Into<String>) -> Error {
    Error::new(Kind::Problem, message)
}

/// `z`, `y`, `x`, or the number of an axis no rank has.
pub(super) fn axis_name(rank: usize, axis: usize) -> String {
    match rank {
        1..=3 if axis < rank => names::axes(rank)[axis].to_string(),
        _ => axis.to_string(),
    }
}

/// Refuses a number outside `lo..=hi`; `what` is the first half of the sentence, such as `stride is 0 on axis x`.
pub(super) fn within(what: &str, v: i128, lo: i128, hi: i128) -> Result<()> {
    if v < lo {
        return Err(problem(format!("{what}; it must be at least {lo}")));
    }
    if v > hi {
        return Err(problem(format!("{what}; it must be at most {hi}")));
    }
    Ok(())
}

/// Refuses a vector without exactly one entry per axis.
pub(super) fn per_axis(what: &str, len: usize, rank: usize) -> Result<()> {
    if len != rank {
        return Err(problem(format!("{what} has {len} values; a {rank}-D layer needs {rank}")));
    }
    Ok(())
}

impl Deconv {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`Kind::Problem`], with a sentence that names the number and what would be legal.
    pub fn validate(&self) -> Result<()> {
        self.validate_constants()?;
        self.validate_output_padding()?;
        self.validate_extents()?;
        self.validate_activation()
    }

    /// The rules on everything but extents, output padding and the activation.
    pub(super) fn validate_constants(&self) -> Result<()> {
        let rank = self.rank();
        if !(1..=3).contains(&rank) {
            return Err(problem(format!("the kernel has {rank} axes; 1, 2 or 3 are legal")));
        }
        for (what, len) in [
            ("input extent", self.input.len()),
            ("stride", self.stride.len()),
            ("dilation", self.dilation.len()),
            ("padding at the beginning", self.pad_begin.len()),
            ("padding at the end", self.pad_end.len()),
            ("output_padding", self.output_padding.len()),
        ] {
            per_axis(what, len, rank)?;
        }
        for (what, v) in [("c_in", self.c_in), ("c_out", self.c_out), ("groups", self.groups)] {
            within(&format!("{what} is {v}"), v as i128, 1, MAX_EXTENT.into())?;
        }
        for (what, v) in [("c_in", self.c_in), ("c_out", self.c_out)] {
            if v % self.groups != 0 {
                return Err(problem(format!("{what} is {v}, which is not divisible by groups = {}", self.groups)));
            }
        }
        for (what, values) in [("kernel", &self.kernel), ("stride", &self.stride), ("dilation", &self.dilation)] {
            for (a, &v) in values.iter().enumerate() {
                within(&format!("{what} is {v} on axis {}", axis_name(rank, a)), v as i128, 1, MAX_STEP.into())?;
            }
        }
        for (end, values) in [("beginning", &self.pad_begin), ("end", &self.pad_end)] {
            for (a, &v) in values.iter().enumerate() {
                let what = format!("padding at the {end} is {v} on axis {}", axis_name(rank, a));
                within(&what, v.into(), (-MAX_EXTENT).into(), MAX_EXTENT.into())?;
            }
        }
        self.tensor_bytes("weight", self.weight_shape()).map(drop)
    }

    fn validate_output_padding(&self) -> Result<()> {
        for (a, &op) in self.output_padding.iter().enumerate() {
            let (s, d) = (self.stride[a], self.dilation[a]);
            if op >= s.max(d) {
                let axis = axis_name(self.rank(), a);
                return Err(problem(format!(
                    "output_padding is {op} on axis {axis}; it must be less than max(stride {s}, dilation {d}) = {}",
                    s.max(d)
                )));
            }
        }
        Ok(())
    }

    /// Extents that are known must give outputs that exist; open ones must bear their own names. What stays open counts as 1.
    fn validate_extents(&self) -> Result<()> {
        let batch = match &self.batch {
            Extent::Fixed(v) => *v,
            Extent::Open(s) if *s == BATCH => 1,
            Extent::Open(s) => return Err(problem(format!("the open batch is named {s}; its name must be {BATCH}"))),
        };
        let (mut input, mut output) = (vec![batch, self.c_in], vec![batch, self.c_out]);
        within(&format!("batch is {batch}"), batch as i128, 0, MAX_EXTENT.into())?;
        for (a, (extent, symbol)) in self.input.iter().zip(spatial_symbols(self.rank())).enumerate() {
            match extent {
                Extent::Fixed(v) => {
                    input.push(*v);
                    output.push(self.output_at(a, *v)?);
                }
                Extent::Open(s) if s == symbol => {}
                Extent::Open(s) => {
                    let axis = axis_name(self.rank(), a);
                    return Err(problem(format!("the open extent of axis {axis} is named {s}; its name must be {symbol}")));
                }
            }
        }
        self.tensor_bytes("input", input)?;
        self.tensor_bytes("output", output).map(drop)
    }

    /// The output extent of one axis for a given input extent.
    pub(super) fn output_at(&self, a: usize, input: usize) -> Result<usize> {
        let axis = axis_name(self.rank(), a);
        within(&format!("input extent is {input} on axis {axis}"), input as i128, 1, MAX_EXTENT.into())?;
        let out = self.output_formula(a, input);
        if out < 1 || out > MAX_EXTENT.into() {
            let (s, d, k, op) = (self.stride[a], self.dilation[a], self.kernel[a], self.output_padding[a]);
            let legal = if out < 1 { "at least 1".to_string() } else { format!("at most {MAX_EXTENT}") };
            return Err(problem(format!(
                "output extent is {out} on axis {axis}: stride*(input-1) + dilation*(kernel-1) + 1 + output_padding - padding = \
                 {s}*({input}-1) + {d}*({k}-1) + 1 + {op} - ({}) - ({}); it must be {legal}",
                self.pad_begin[a], self.pad_end[a]
            )));
        }
        Ok(out as usize)
    }

    /// `stride*(input-1) + dilation*(kernel-1) + 1 + output_padding - padding`, whatever its sign.
    pub(super) fn output_formula(&self, a: usize, input: usize) -> i128 {
        let n = |v: usize| v as i128;
        n(self.stride[a]) * (n(input) - 1) + n(self.dilation[a]) * (n(self.kernel[a]) - 1) + 1 + n(self.output_padding[a])
            - i128::from(self.pad_begin[a])
            - i128::from(self.pad_end[a])
    }

    /// The size of a tensor in bytes; more than an address space holds is an error. An empty batch counts as one item.
    pub(super) fn tensor_bytes(&self, what: &str, shape: Vec<usize>) -> Result<usize> {
        let bytes = shape.iter().try_fold(self.elem.bytes(), |n, &v| n.checked_mul(v.max(1)).filter(|&n| n <= isize::MAX as usize));
        bytes.ok_or_else(|| {
            let most = isize::MAX as usize / self.elem.bytes();
            problem(format!("the {what} of extents {shape:?} is too large; at most {most} {} values can be addressed", self.elem.name()))
        })
    }

    fn validate_activation(&self) -> Result<()> {
        let fits = |v: f64| v.is_finite() && (self.elem == Elem::F64 || (v as f32).is_finite());
        match self.activation {
            Activation::LeakyRelu(slope) if !fits(slope) => {
                Err(problem(format!("the LeakyReLU slope is {slope}; it must be a finite {}", self.elem.name())))
            }
            Activation::Clamp(lo, hi) if lo.is_nan() || hi.is_nan() || lo > hi => {
                Err(problem(format!("the clamp is ({lo}, {hi}); its lower bound must not exceed the upper one, and neither may be NaN")))
            }
            _ => Ok(()),
        }
    }
}
