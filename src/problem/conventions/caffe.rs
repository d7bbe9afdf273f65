//! Caffe's `Deconvolution` layer: symmetric padding, no output padding, weight `[c_in, c_out / group, *k]` as here.
//!
//! Source: `deconv_layer.cpp`, where `out = stride*(in-1) + dilation*(k-1) + 1 - 2*pad`. For upsampling by `f` the filler documentation gives
//! `k = 2f - f%2`, `stride = f`, `pad = ceil((f-1)/2)`, one group per channel, no bias: [`Deconv::caffe_upsampling`], whose
//! weights are [`crate::weights::bilinear`].
//!
//! ```
//! use polyphase::Deconv;
//! let up = Deconv::caffe_upsampling(21, 2, &[Some(16), Some(16)])?;
//! assert_eq!(up.to_string(), "2d n1 21x16x16 -> 21 k4 s2 p1 g21");
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, Extents, on_input, per_axis_or, split_shape};
use crate::problem::validate::{MAX_STEP, problem, within};
use crate::problem::{Deconv, DeconvBuilder};

/// The fields of `convolution_param` that a Deconvolution layer uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caffe {
    /// Output channels.
    pub num_output: i64,
    /// Kernel extents, one per axis.
    pub kernel_size: Vec<i64>,
    /// Strides; 1 if absent.
    pub stride: Option<Vec<i64>>,
    /// Padding at both ends; 0 if absent.
    pub pad: Option<Vec<i64>>,
    /// Dilations; 1 if absent.
    pub dilation: Option<Vec<i64>>,
    /// Groups; Caffe's default is 1.
    pub group: i64,
    /// Whether there is a bias; Caffe's default is true.
    pub bias_term: bool,
}

impl Deconv {
    /// From a Caffe layer and the shape of its bottom blob `[n, c_in, *spatial]`, of which all but the channels may be open (`None`).
    ///
    /// # Errors
    /// Open channels; whatever [`Deconv::validate`] refuses.
    pub fn from_caffe(l: &Caffe, bottom: Extents<'_>) -> Built {
        let rank = l.kernel_size.len();
        let (batch, c_in, spatial) = split_shape("the bottom blob", bottom, rank, false)?;
        let c_in = c_in.ok_or_else(|| problem("the bottom blob's channels are open; the weight needs them"))?;
        let b = DeconvBuilder::new(rank, c_in, l.num_output, l.kernel_size.iter().copied())
            .stride(per_axis_or("stride", l.stride.as_deref(), rank, 1)?)
            .padding(per_axis_or("pad", l.pad.as_deref(), rank, 0)?)
            .dilation(per_axis_or("dilation", l.dilation.as_deref(), rank, 1)?)
            .groups(l.group)
            .bias(l.bias_term);
        on_input(b, batch, spatial).build()
    }

    /// The layer that upsamples each of `channels` by the integer `factor` on every axis of `input` (open where `None`).
    ///
    /// # Errors
    /// A factor below 1; whatever [`Deconv::validate`] refuses.
    pub fn caffe_upsampling(channels: usize, factor: i64, input: Extents<'_>) -> Built {
        within(&format!("the upsampling factor is {factor}"), factor.into(), 1, i128::from(MAX_STEP / 2))?;
        let rank = input.len();
        let b = DeconvBuilder::new(rank, channels, channels, vec![2 * factor - factor % 2; rank]);
        let b = b.stride(vec![factor; rank]).padding(vec![factor / 2; rank]).groups(i64::try_from(channels).unwrap_or(i64::MAX));
        on_input(b, Some(1), input).build()
    }
}
