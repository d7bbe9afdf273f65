//! What is computed: the description of one transposed convolution, before any choice is made.
//!
//! Per spatial axis, with stride `s`, dilation `d`, padding `p` at the beginning,
//!
//! ```text
//! y[n, oc, s*i - p + d*k] += x[n, ic, i] * w[ic, oc, k]
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `builder.rs` | [`Deconv::torch2d`] and its siblings: PyTorch's words, with everything else this crate knows |
//! | `validate.rs` | [`Deconv::validate`]: every rule, and the limits |
//! | `shape.rs` | tensor shapes, symbols, run-time extents |
//! | `work.rs` | multiplications, phases and their taps |
//! | `conventions/` | one file per framework |
//! | `text/` | module repr, JSON, and the compact descriptor |

mod builder;
pub mod conventions;
mod shape;
pub mod text;
mod validate;
mod work;

pub use builder::DeconvBuilder;
pub use validate::{MAX_EXTENT, MAX_STEP};
pub use work::PhaseInfo;

use crate::ir::{Affine, Elem, Name};

/// An extent: known now, or a symbol whose value comes with each `run`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Known now.
    Fixed(usize),
    /// Given at run time, under this name (`N` batch; `D`, `H`, `W` the spatial axes, outermost first).
    Open(Name),
}

impl Extent {
    /// The extent as an index expression.
    pub fn affine(&self) -> Affine {
        match self {
            Extent::Fixed(v) => Affine::from(*v as i64),
            Extent::Open(s) => Affine::sym(s),
        }
    }
    /// The extent, if it is known now.
    pub fn known(&self) -> Option<usize> {
        if let Extent::Fixed(v) = self { Some(*v) } else { None }
    }
}

/// What happens to an output after bias has been added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(0, v)`; NaN stays NaN.
    Relu,
    /// `v` if `v > 0`, else `slope * v`.
    LeakyRelu(f64),
    /// `min(max(v, lo), hi)`; NaN stays NaN.
    Clamp(f64, f64),
    /// Hyperbolic tangent, within 4 ulp in f32.
    Tanh,
    /// `1 / (1 + e^-v)`, within 4 ulp in f32.
    Sigmoid,
}

/// How patches of different input pixels are merged where they overlap. A patch value is summed over input channels first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Merge {
    /// Their sum: what every framework computes.
    Sum,
    /// Their sum divided by how many patches land on the pixel; 0 where none does.
    Mean,
    /// The largest; NaN if any is NaN; 0 where none lands.
    Max,
}

/// The order of data in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[n, c, *spatial]`
    ChannelsFirst,
    /// `[n, *spatial, c]`
    ChannelsLast,
}

/// A validated transposed convolution. Vectors have one entry per spatial axis (1 to 3), outermost first.
///
/// The weight is `[c_in, c_out / groups, *kernel]`, as in PyTorch.
#[derive(Debug, Clone, PartialEq)]
pub struct Deconv {
    /// Batch size.
    pub batch: Extent,
    /// Spatial extents of the input.
    pub input: Vec<Extent>,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Groups; `c_in` and `c_out` are divisible by it.
    pub groups: usize,
    /// Kernel extents.
    pub kernel: Vec<usize>,
    /// Strides.
    pub stride: Vec<usize>,
    /// Dilations.
    pub dilation: Vec<usize>,
    /// Padding at the beginning of each axis; it crops the output, negative values extend it.
    pub pad_begin: Vec<i64>,
    /// Padding at the end of each axis.
    pub pad_end: Vec<i64>,
    /// Extra outputs at the end of each axis.
    pub output_padding: Vec<usize>,
    /// Whether a bias of `c_out` values is added.
    pub bias: bool,
    /// What follows the bias.
    pub activation: Activation,
    /// How overlapping patches are merged.
    pub merge: Merge,
    /// Order of `x` and `y` in memory.
    pub layout: Layout,
    /// Element type of every tensor.
    pub elem: Elem,
}

impl Deconv {
    /// Number of spatial axes, 1 to 3.
    pub fn rank(&self) -> usize {
        self.kernel.len()
    }
    /// The output extent of an axis, `s*(i-1) + d*(k-1) + 1 + output_padding - pad_begin - pad_end`, affine in the input extent.
    pub fn output_extent(&self, axis: usize) -> Affine {
        let (s, d, k) = (self.stride[axis] as i64, self.dilation[axis] as i64, self.kernel[axis] as i64);
        (self.input[axis].affine() - 1) * s + d * (k - 1) + 1 + self.output_padding[axis] as i64 - self.pad_begin[axis] - self.pad_end[axis]
    }
    /// Extents of the weight tensor, `[c_in, c_out / groups, *kernel]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        [self.c_in, self.c_out / self.groups].into_iter().chain(self.kernel.iter().copied()).collect()
    }
}
