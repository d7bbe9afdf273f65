//! XNNPACK's `deconvolution_2d`: padding per side plus an adjustment per axis.
//!
//! Source: `xnnpack.h`. `out = stride*(in-1) + adjustment + dilation*(k-1) + 1 - (padding at both sides)`: the adjustment is our output
//! padding. Data is `[n, h, w, c]`, the filter `[groups * group_output_channels, kh, kw, group_input_channels]`
//! ([`WeightLayout::Ohwi`](crate::weights::WeightLayout)), and every output is clamped to `[output_min, output_max]`.
//!
//! ```
//! use polyphase::Deconv;
//! use polyphase::problem::conventions::xnnpack::Deconvolution2d;
//! let node = Deconvolution2d { padding_top: 1, padding_left: 1, adjustment: [1, 1], ..Deconvolution2d::new([3, 3], [2, 2], 64, 32) };
//! assert_eq!(Deconv::from_xnnpack(&node, Some(1), [Some(8), Some(8)])?.output_shape(1, &[8, 8])?, [1, 17, 17, 32]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, on_input};
use crate::problem::{Activation, Deconv, DeconvBuilder, Layout};

/// The arguments of `xnn_define_deconvolution_2d`; pairs are `[height, width]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Deconvolution2d {
    pub padding_top: i64,
    pub padding_right: i64,
    pub padding_bottom: i64,
    pub padding_left: i64,
    /// Extra outputs at the end of each axis.
    pub adjustment: [i64; 2],
    pub kernel: [i64; 2],
    /// The strides, which XNNPACK calls upsampling.
    pub upsampling: [i64; 2],
    pub dilation: [i64; 2],
    pub groups: i64,
    pub group_input_channels: i64,
    pub group_output_channels: i64,
    pub output_min: f64,
    pub output_max: f64,
    pub bias: bool,
}

impl Deconvolution2d {
    /// One group, no padding, adjustment, dilation, bias or clamp.
    pub fn new(kernel: [i64; 2], upsampling: [i64; 2], input_channels: i64, output_channels: i64) -> Self {
        Deconvolution2d {
            padding_top: 0,
            padding_right: 0,
            padding_bottom: 0,
            padding_left: 0,
            adjustment: [0, 0],
            kernel,
            upsampling,
            dilation: [1, 1],
            groups: 1,
            group_input_channels: input_channels,
            group_output_channels: output_channels,
            output_min: f64::NEG_INFINITY,
            output_max: f64::INFINITY,
            bias: false,
        }
    }
}

impl Deconv {
    /// From an XNNPACK node, a batch size and the input's height and width (open where `None`).
    ///
    /// # Errors
    /// Whatever [`Deconv::validate`] refuses.
    pub fn from_xnnpack(d: &Deconvolution2d, batch: Option<usize>, input: [Option<usize>; 2]) -> Built {
        let all = |per_group: i64| per_group.saturating_mul(d.groups);
        let unbounded = d.output_min == f64::NEG_INFINITY && d.output_max == f64::INFINITY;
        let b = DeconvBuilder::new(2, all(d.group_input_channels), all(d.group_output_channels), d.kernel)
            .stride(d.upsampling)
            .padding_begin_end([d.padding_top, d.padding_left], [d.padding_bottom, d.padding_right])
            .output_padding(d.adjustment)
            .dilation(d.dilation)
            .groups(d.groups)
            .bias(d.bias)
            .activation(if unbounded { Activation::None } else { Activation::Clamp(d.output_min, d.output_max) })
            .layout(Layout::ChannelsLast);
        on_input(b, batch, &input).build()
    }
}
