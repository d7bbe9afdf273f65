//! Weight orders of the frameworks, converted to PyTorch's `[c_in, c_out / groups, *kernel]`.
//!
//! Needs a validated [`Deconv`] and a dense slice; leaves a new vector. Input channel `ic` belongs to group `ic / (c_in / groups)`; orders that
//! keep all output channels and `c_in / groups` input channels are unrolled by that.
//!
//! ```
//! use polyphase::weights::{WeightLayout, to_torch};
//! use polyphase::Deconv;
//! let layer = Deconv::torch1d(1, 1, [3]).input([4]).build()?;
//! assert_eq!(to_torch(&layer, WeightLayout::Hwio, &[1.0, 2.0, 3.0])?, [3.0, 2.0, 1.0], "a correlation's kernel enters flipped");
//! # Ok::<(), polyphase::Error>(())
//! ```

use crate::error::{Error, Kind, Result};
use crate::problem::Deconv;

/// The order of a weight tensor, outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// `[c_in, c_out / groups, *k]`: PyTorch, Caffe, PuzzleLib.
    Torch,
    /// `[c_in, c_out / groups, *k]`: ONNX, the same.
    Onnx,
    /// `[c_out', c_in' / groups, *k]` of the forward convolution of which this is the adjoint: the same again.
    ForwardOihw,
    /// `[*k, c_out / groups, c_in]`: TensorFlow, Keras; JAX with `transpose_kernel`.
    Hwoi,
    /// `[c_out, *k, c_in / groups]`: TFLite, XNNPACK.
    Ohwi,
    /// `[*k, c_in / groups, c_out]`, flipped along every spatial axis: JAX without `transpose_kernel`.
    Hwio,
}

impl WeightLayout {
    /// The shape of a weight in this order.
    pub fn shape(self, d: &Deconv) -> Vec<usize> {
        let k = d.kernel.iter().copied();
        let (c_in, c_out, g) = (d.c_in, d.c_out, d.groups);
        match self {
            WeightLayout::Torch | WeightLayout::Onnx | WeightLayout::ForwardOihw => d.weight_shape(),
            WeightLayout::Hwoi => k.chain([c_out / g, c_in]).collect(),
            WeightLayout::Ohwi => std::iter::once(c_out).chain(k).chain([c_in / g]).collect(),
            WeightLayout::Hwio => k.chain([c_in / g, c_out]).collect(),
        }
    }

    /// The offset of weight `(ic, oc, tap)`: `oc` within the group, `tap` the flat index into the kernel.
    fn offset(self, d: &Deconv, ic: usize, oc: usize, tap: usize) -> usize {
        let (i, o, taps) = (d.c_in / d.groups, d.c_out / d.groups, d.kernel.iter().product::<usize>());
        let oc_all = ic / i * o + oc;
        match self {
            WeightLayout::Torch | WeightLayout::Onnx | WeightLayout::ForwardOihw => (ic * o + oc) * taps + tap,
            WeightLayout::Hwoi => (tap * o + oc) * d.c_in + ic,
            WeightLayout::Ohwi => (oc_all * taps + tap) * i + ic % i,
            // Reversing the flat index reverses every spatial axis.
            WeightLayout::Hwio => ((taps - 1 - tap) * i + ic % i) * d.c_out + oc_all,
        }
    }
}

/// The weight in PyTorch's order `[c_in, c_out / groups, *kernel]`.
///
/// # Errors
/// [`Kind::Tensor`] if the slice has not as many values as the layer's weight, and whatever [`Deconv::validate`] refuses.
pub fn to_torch<T: Copy>(d: &Deconv, layout: WeightLayout, weight: &[T]) -> Result<Vec<T>> {
    d.validate()?;
    let needed: usize = d.weight_shape().iter().product();
    if weight.len() != needed {
        let shape = layout.shape(d);
        return Err(Error::new(Kind::Tensor, format!("the weight has {} values; the layer needs {needed}: {shape:?}", weight.len())));
    }
    let taps: usize = d.kernel.iter().product();
    let mut out = Vec::with_capacity(needed);
    for ic in 0..d.c_in {
        for oc in 0..d.c_out / d.groups {
            out.extend((0..taps).map(|tap| weight[layout.offset(d, ic, oc, tap)]));
        }
    }
    Ok(out)
}
