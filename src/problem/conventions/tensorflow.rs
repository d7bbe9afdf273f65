//! TensorFlow `conv2d_transpose` (and its 1-D and 3-D siblings), Keras `Conv2DTranspose`, TFLite `TRANSPOSE_CONV`.
//!
//! TensorFlow defines the operation as the gradient of a forward convolution *from* `output_shape`: padding is the one that forward
//! convolution would have, `total = max(stride*(ceil(out / stride) - 1) + dilation*(k-1) + 1 - out, 0)` for SAME with the odd one at the
//! end, 0 for VALID; and `output_shape` must be one that the forward convolution maps to the input's extents. Data is channels last.
//! Filters are `[*k, c_out, c_in]` (TensorFlow, Keras: [`WeightLayout::Hwoi`](crate::weights::WeightLayout)) or `[c_out, *k, c_in]` (TFLite: `Ohwi`).
//!
//! ```
//! use polyphase::Deconv;
//! use polyphase::problem::conventions::tensorflow::{Padding, TensorFlow};
//! let op = TensorFlow { strides: vec![2, 2], padding: Padding::Same, dilations: vec![1, 1] };
//! let layer = Deconv::from_tensorflow(&op, &[1, 2, 2, 1], &[3, 3, 1, 1], &[1, 4, 4, 1])?;
//! assert_eq!((layer.pad_begin.as_slice(), layer.pad_end.as_slice()), (&[0, 0][..], &[1, 1][..]));
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, Extents, Pads, extents_i64, known, on_input, padded, per_axis_or, same_channels, split_shape, steps};
use crate::error::{Error, Kind, Result};
use crate::problem::validate::{axis_name, problem, within};
use crate::problem::{Deconv, DeconvBuilder, Layout};
use std::str::FromStr;

/// The padding attribute; Keras writes it in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The forward convolution keeps `ceil(in / stride)`.
    Same,
    /// The forward convolution is not padded.
    Valid,
}

impl FromStr for Padding {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s.to_ascii_uppercase().as_str() {
            "SAME" => Ok(Padding::Same),
            "VALID" => Ok(Padding::Valid),
            _ => Err(Error::new(Kind::Parse, format!("padding is {s:?}; SAME and VALID are legal"))),
        }
    }
}

/// The attributes of `tf.nn.conv{1,2,3}d_transpose`, spatial axes only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorFlow {
    /// Strides, one per spatial axis.
    pub strides: Vec<i64>,
    /// SAME or VALID.
    pub padding: Padding,
    /// Dilations, one per spatial axis.
    pub dilations: Vec<i64>,
}

/// The arguments of `keras.layers.Conv{1,2,3}DTranspose` that shape the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keras {
    /// Output channels.
    pub filters: i64,
    /// Kernel extents.
    pub kernel_size: Vec<i64>,
    /// Strides.
    pub strides: Vec<i64>,
    /// `same` or `valid`.
    pub padding: Padding,
    /// Chooses the output extent, below the stride; inferred if absent.
    pub output_padding: Option<Vec<i64>>,
    /// Dilations.
    pub dilation_rate: Vec<i64>,
    /// Keras adds a bias unless told otherwise.
    pub use_bias: bool,
}

impl Deconv {
    /// From `conv2d_transpose(input, filters, output_shape, strides, padding)`: shapes `[n, *spatial, c_in]`, `[*k, c_out, c_in]` and
    /// `[n, *spatial, c_out]` (or just the spatial extents).
    ///
    /// # Errors
    /// Shapes that contradict each other, and an `output_shape` that the forward convolution would not map to the input.
    pub fn from_tensorflow(op: &TensorFlow, input: &[usize], filters: &[usize], output_shape: &[usize]) -> Built {
        let rank = rank_of("the filter", filters)?;
        let (c_out, c_in) = (filters[rank], filters[rank + 1]);
        same_channels("the input", input.last().copied(), c_in)?;
        from_shapes(op, &extents_i64(&filters[..rank]), c_out, input, output_shape)
    }

    /// From TFLite's `TRANSPOSE_CONV`: as [`from_tensorflow`](Self::from_tensorflow), with the filter as `[c_out, *k, c_in]` and optional bias.
    ///
    /// # Errors
    /// As [`from_tensorflow`](Self::from_tensorflow).
    pub fn from_tflite(op: &TensorFlow, input: &[usize], filters: &[usize], output_shape: &[usize], bias: bool) -> Built {
        let rank = rank_of("the filter", filters)?;
        let (c_out, c_in) = (filters[0], filters[rank + 1]);
        same_channels("the input", input.last().copied(), c_in)?;
        let layer = from_shapes(op, &extents_i64(&filters[1..=rank]), c_out, input, output_shape)?;
        Ok(Deconv { bias, ..layer })
    }

    /// From a Keras layer and its input shape `[n, *spatial, c_in]`, of which batch and spatial extents may be open (`None`).
    ///
    /// Without `output_padding` the output is `in*stride` (same) or `in*stride + max(k - stride, 0)` (valid), with it
    /// `stride*(in-1) + k - 2*pad + output_padding`, `pad` being `k/2` (same) or 0, `k` the dilated extent.
    ///
    /// # Errors
    /// `output_padding` of the stride or more; extents that TensorFlow would refuse; open channels.
    pub fn from_keras(l: &Keras, input: Extents<'_>) -> Built {
        let rank = l.kernel_size.len();
        let (batch, c_in, spatial) = split_shape("the input", input, rank, true)?;
        let c_in = c_in.ok_or_else(|| problem("the input's channels are open; Keras needs them to make the weight"))?;
        let stride = per_axis_or("strides", Some(&l.strides), rank, 1)?;
        let dilation = per_axis_or("dilation_rate", Some(&l.dilation_rate), rank, 1)?;
        [("kernel", &l.kernel_size), ("stride", &stride), ("dilation", &dilation)].into_iter().try_for_each(|(w, v)| steps(w, v))?;
        let output_padding = match &l.output_padding {
            None => None,
            Some(op) => Some(per_axis_or("output_padding", Some(op), rank, 0)?),
        };
        let mut pads = Vec::new();
        for a in 0..rank {
            let axis = Axis { name: axis_name(rank, a), kernel: l.kernel_size[a], stride: stride[a], dilation: dilation[a] };
            let op = output_padding.as_ref().map(|op| op[a]);
            // Every length is `stride * in + constant`, so the padding does not depend on `in` and a stand-in serves for an open one.
            let input = spatial[a].unwrap_or(1 + l.kernel_size[a] as usize);
            let out = axis.keras_length(l.padding, op, input)?;
            pads.push(axis.pads(l.padding, input, out)?);
        }
        let b = DeconvBuilder::new(rank, c_in, l.filters, l.kernel_size.iter().copied()).stride(stride).dilation(dilation).bias(l.use_bias);
        on_input(padded(b, &pads), batch, spatial).layout(Layout::ChannelsLast).build()
    }
}

fn rank_of(what: &str, shape: &[usize]) -> Result<usize> {
    match shape.len() {
        n @ 3..=5 => Ok(n - 2),
        n => Err(problem(format!("{what} has {n} extents; 3, 4 or 5 are legal"))),
    }
}

fn from_shapes(op: &TensorFlow, kernel: &[i64], c_out: usize, input: &[usize], output_shape: &[usize]) -> Built {
    let rank = kernel.len();
    let shape = known(input);
    let (batch, c_in, spatial) = split_shape("the input", &shape, rank, true)?;
    let stride = per_axis_or("strides", Some(&op.strides), rank, 1)?;
    let dilation = per_axis_or("dilations", Some(&op.dilations), rank, 1)?;
    [("kernel", kernel), ("stride", &stride), ("dilation", &dilation)].into_iter().try_for_each(|(w, v)| steps(w, v))?;
    let out = match output_shape.len() {
        n if n == rank => output_shape,
        n if n == rank + 2 && Some(output_shape[0]) == batch && output_shape[rank + 1] == c_out => &output_shape[1..=rank],
        _ => {
            return Err(problem(format!(
                "output_shape is {output_shape:?}; it needs batch {}, {rank} spatial extents and {c_out} channels, or just the spatial extents",
                input[0]
            )));
        }
    };
    let pads = (0..rank).map(|a| {
        let axis = Axis { name: axis_name(rank, a), kernel: kernel[a], stride: stride[a], dilation: dilation[a] };
        axis.pads(op.padding, spatial[a].unwrap_or(0), out[a] as i128)
    });
    let pads = pads.collect::<Result<Vec<_>>>()?;
    let b = DeconvBuilder::new(rank, c_in.unwrap_or(0), c_out, kernel.iter().copied()).stride(stride).dilation(dilation);
    on_input(padded(b, &pads), batch, spatial).layout(Layout::ChannelsLast).build()
}

struct Axis {
    name: String,
    kernel: i64,
    stride: i64,
    dilation: i64,
}

impl Axis {
    /// The kernel's extent with its dilation.
    fn reach(&self) -> i128 {
        i128::from(self.dilation) * (i128::from(self.kernel) - 1) + 1
    }

    /// The padding of the forward convolution from `out` to `input`, and what is left over at the end.
    fn pads(&self, padding: Padding, input: usize, out: i128) -> Result<Pads> {
        let (s, reach, at) = (i128::from(self.stride), self.reach(), &self.name);
        within(&format!("output_shape is {out} on axis {at}"), out, 1, i128::from(i32::MAX))?;
        within(&format!("input extent is {input} on axis {at}"), input as i128, 1, i128::from(i32::MAX))?;
        let input = input as i128;
        let (least, most) = match padding {
            Padding::Same => (s * (input - 1) + 1, s * input),
            Padding::Valid => (s * (input - 1) + reach, s * input + reach - 1),
        };
        if out < least || out > most {
            let legal = if least == most { format!("only {least} is legal") } else { format!("{least} to {most} are legal") };
            return Err(problem(format!("output_shape is {out} on axis {at} for an input of {input} and stride {s}; {legal}")));
        }
        let total = s * (input - 1) + reach - out;
        let begin = if padding == Padding::Same { total.max(0) / 2 } else { 0 };
        Ok(Pads::new(begin, total - begin, self.stride, self.dilation))
    }

    /// Keras's `deconv_output_length`.
    fn keras_length(&self, padding: Padding, output_padding: Option<i64>, input: usize) -> Result<i128> {
        let (s, reach, input) = (i128::from(self.stride), self.reach(), input as i128);
        let Some(op) = output_padding else {
            return Ok(input * s + if padding == Padding::Valid { (reach - s).max(0) } else { 0 });
        };
        within(&format!("output_padding is {op} on axis {}", self.name), op.into(), 0, s - 1)?;
        let pad = if padding == Padding::Same { reach / 2 } else { 0 };
        Ok((input - 1) * s + reach - 2 * pad + i128::from(op))
    }
}
