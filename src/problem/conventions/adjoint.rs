//! The adjoint of a forward convolution: ZFNet's deconvnet, with the forward convolution's own filters.
//!
//! `<conv(x), y> = <x, deconv(y)>` for every `x`, `y`. A forward convolution maps `H` to `floor((H + padding - dilation*(k-1) - 1) / stride) + 1`, so
//! `stride` extents share one result; the adjoint gets back to the right one by its output padding. The forward weight `[c_out, c_in / groups, *k]`
//! *is* the transposed weight: the adjoint's `c_in` is the forward `c_out`.
//!
//! ```
//! use polyphase::Deconv;
//! use polyphase::problem::conventions::adjoint::ForwardConv;
//! let conv = ForwardConv { stride: vec![2, 2], padding_begin: vec![1, 1], padding_end: vec![1, 1], ..ForwardConv::new(3, 96, [7, 7]) };
//! let back = Deconv::adjoint_of(&conv, 1, &[224, 224])?;
//! assert_eq!(back.to_string(), "2d n1 96x110x110 -> 3 k7 s2 p1 op1");
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, steps};
use crate::error::Result;
use crate::problem::validate::{axis_name, per_axis, problem, within};
use crate::problem::{Deconv, DeconvBuilder};

/// A forward convolution in PyTorch's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardConv {
    /// Channels of the image it reads.
    pub c_in: i64,
    /// Channels of the feature map it makes.
    pub c_out: i64,
    /// Kernel extents.
    pub kernel: Vec<i64>,
    /// Strides.
    pub stride: Vec<i64>,
    /// Zero padding before each axis.
    pub padding_begin: Vec<i64>,
    /// Zero padding after each axis.
    pub padding_end: Vec<i64>,
    /// Dilations.
    pub dilation: Vec<i64>,
    /// Groups.
    pub groups: i64,
}

impl ForwardConv {
    /// Stride 1, no padding, no dilation, one group.
    pub fn new(c_in: i64, c_out: i64, kernel: impl Into<Vec<i64>>) -> Self {
        let kernel = kernel.into();
        let n = kernel.len();
        let (ones, zeros) = (vec![1; n], vec![0; n]);
        ForwardConv {
            c_in,
            c_out,
            kernel,
            stride: ones.clone(),
            padding_begin: zeros.clone(),
            padding_end: zeros,
            dilation: ones,
            groups: 1,
        }
    }

    /// The extents of the feature map for an image of these extents.
    ///
    /// # Errors
    /// An image that the dilated kernel does not fit into; vectors of the wrong length; steps below 1.
    pub fn output(&self, image: &[usize]) -> Result<Vec<usize>> {
        let rank = self.kernel.len();
        for (what, v) in [("kernel", &self.kernel), ("stride", &self.stride), ("dilation", &self.dilation)] {
            per_axis(what, v.len(), rank)?;
            steps(what, v)?;
        }
        per_axis("padding at the beginning", self.padding_begin.len(), rank)?;
        per_axis("padding at the end", self.padding_end.len(), rank)?;
        per_axis("the image", image.len(), rank)?;
        let extent = |a: usize| {
            let n = |v: i64| i128::from(v);
            let (at, i) = (axis_name(rank, a), image[a]);
            within(&format!("the image extent is {i} on axis {at}"), i as i128, 1, i128::from(i32::MAX))?;
            let (reach, pads) = (n(self.dilation[a]) * (n(self.kernel[a]) - 1) + 1, n(self.padding_begin[a]) + n(self.padding_end[a]));
            let room = i as i128 + pads - reach;
            if room < 0 {
                return Err(problem(format!(
                    "the image extent is {i} on axis {at}; with padding {pads} it must be at least {}, for the dilated kernel to fit",
                    reach - pads
                )));
            }
            Ok((room / n(self.stride[a]) + 1) as usize)
        };
        (0..rank).map(extent).collect()
    }

    /// The adjoint's builder, without extents: set `.input([..])` to the feature map's, and `.output_size([..])` to the image's where the stride
    /// leaves it ambiguous (without it the smallest image is meant).
    pub fn builder(&self) -> DeconvBuilder {
        DeconvBuilder::new(self.kernel.len(), self.c_out, self.c_in, self.kernel.iter().copied())
            .stride(self.stride.iter().copied())
            .padding_begin_end(self.padding_begin.iter().copied(), self.padding_end.iter().copied())
            .dilation(self.dilation.iter().copied())
            .groups(self.groups)
    }
}

impl Deconv {
    /// The adjoint of a convolution over images of these extents: it reads feature maps and makes images of exactly that size.
    ///
    /// # Errors
    /// Whatever [`ForwardConv::output`] and [`Deconv::validate`] refuse.
    pub fn adjoint_of(conv: &ForwardConv, batch: usize, image: &[usize]) -> Built {
        let feature = conv.output(image)?;
        conv.builder().batch(batch).input(feature).output_size(image.iter().copied()).build()
    }
}
