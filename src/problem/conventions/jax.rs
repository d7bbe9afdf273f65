//! JAX `lax.conv_transpose`: padding is that of the convolution over the stride-dilated input, and the kernel is not flipped.
//!
//! Source: `jax.lax.conv_transpose`. With `K = dilation*(k-1) + 1`, SAME pads `K + stride - 2` in all, of which `K - 1` come first if
//! `stride > K - 1`, else the larger half; VALID pads `K - 1` first and `stride - 1 + max(K - stride, 0)` last; explicit pairs are used as
//! they are. A convolution padding `a` is a crop of `K - 1 - a` here. The weight is `[*k, c_in, c_out]`, used as a correlation, so
//! that it enters flipped ([`WeightLayout::Hwio`]); with `transpose_kernel` it is the forward convolution's `[*k, c_out, c_in]` and enters as
//! it is ([`WeightLayout::Hwoi`]).
//!
//! ```
//! use polyphase::Deconv;
//! use polyphase::problem::conventions::jax::{Jax, Padding};
//! let op = Jax { strides: vec![2], padding: Padding::Same, rhs_dilation: None, transpose_kernel: false };
//! let layer = Deconv::from_jax(&op, &[Some(1), None, Some(8)], &[4, 8, 16])?;
//! assert_eq!(layer.output_shape(1, &[10])?, [1, 20, 16]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, Extents, Pads, extents_i64, on_input, padded, per_axis_or, same_channels, split_shape, steps};
use crate::problem::validate::{per_axis, problem};
use crate::problem::{Deconv, DeconvBuilder, Layout};
use crate::weights::WeightLayout;

/// The argument `padding`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Padding {
    /// `out = in * stride`.
    Same,
    /// `out = in * stride + max(K - stride, 0)`.
    Valid,
    /// `(low, high)` per axis, around the dilated input.
    Explicit(Vec<(i64, i64)>),
}

/// The arguments of `conv_transpose`; data is `[n, *spatial, c]`, the default of its dimension numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jax {
    /// Strides.
    pub strides: Vec<i64>,
    /// SAME, VALID or pairs.
    pub padding: Padding,
    /// Dilations; 1 if absent.
    pub rhs_dilation: Option<Vec<i64>>,
    /// Whether `rhs` is the kernel of the forward convolution: flipped, and with its channel axes exchanged.
    pub transpose_kernel: bool,
}

impl Jax {
    /// How the weight given to `conv_transpose` is laid out.
    pub fn weight_layout(&self) -> WeightLayout {
        if self.transpose_kernel { WeightLayout::Hwoi } else { WeightLayout::Hwio }
    }
}

impl Deconv {
    /// From `conv_transpose(lhs, rhs, …)`: shapes `[n, *spatial, c_in]` (open where `None`) and `[*k, c_in, c_out]`, the last two exchanged with
    /// `transpose_kernel`.
    ///
    /// # Errors
    /// Shapes that contradict each other; whatever [`Deconv::validate`] refuses.
    pub fn from_jax(op: &Jax, lhs: Extents<'_>, rhs: &[usize]) -> Built {
        let rank = match rhs.len() {
            n @ 3..=5 => n - 2,
            n => return Err(problem(format!("rhs has {n} extents; 3, 4 or 5 are legal"))),
        };
        let (c_in, c_out) = if op.transpose_kernel { (rhs[rank + 1], rhs[rank]) } else { (rhs[rank], rhs[rank + 1]) };
        let (batch, channels, spatial) = split_shape("lhs", lhs, rank, true)?;
        same_channels("lhs", channels, c_in)?;
        let kernel = extents_i64(&rhs[..rank]);
        let stride = per_axis_or("strides", Some(&op.strides), rank, 1)?;
        let dilation = per_axis_or("rhs_dilation", op.rhs_dilation.as_deref(), rank, 1)?;
        [("kernel", &kernel), ("stride", &stride), ("dilation", &dilation)].into_iter().try_for_each(|(w, v)| steps(w, v))?;
        if let Padding::Explicit(pairs) = &op.padding {
            per_axis("padding", pairs.len(), rank)?;
        }
        let pads: Vec<Pads> = (0..rank)
            .map(|a| {
                let (s, reach) = (i128::from(stride[a]), i128::from(dilation[a]) * (i128::from(kernel[a]) - 1) + 1);
                let (low, high) = match &op.padding {
                    Padding::Explicit(pairs) => (pairs[a].0.into(), pairs[a].1.into()),
                    Padding::Same => {
                        let total = reach + s - 2;
                        let low = if s > reach - 1 { reach - 1 } else { (total + 1) / 2 };
                        (low, total - low)
                    }
                    Padding::Valid => (reach - 1, s - 1 + (reach - s).max(0)),
                };
                Pads::new(reach - 1 - low, reach - 1 - high, stride[a], dilation[a])
            })
            .collect();
        let b = DeconvBuilder::new(rank, c_in, c_out, kernel).stride(stride).dilation(dilation);
        on_input(padded(b, &pads), batch, spatial).layout(Layout::ChannelsLast).build()
    }
}
