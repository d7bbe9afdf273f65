//! The builder: PyTorch's words and defaults, plus what PyTorch cannot say (padding per side, open extents, merges).
//!
//! Needs nothing; [`DeconvBuilder::build`] leaves a validated [`Deconv`]. Numbers may have any integer type, so that a
//! negative one reaches the builder and gets an error that names it.
//!
//! ```
//! use polyphase::Deconv;
//! let layer = Deconv::torch2d(512, 256, [4, 4]).stride([2, 2]).padding([1, 1]).input([4, 4]).build()?;
//! assert_eq!(layer.output_shape(1, &[4, 4])?, [1, 256, 8, 8]);
//!
//! let e = Deconv::torch1d(8, 8, [4]).stride([-2]).input([10]).build().unwrap_err();
//! assert_eq!(e.to_string(), "stride is -2 on axis x; it must be at least 1");
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::shape::{BATCH, spatial_symbols};
use super::validate::{MAX_EXTENT, MAX_STEP, axis_name, per_axis, problem, within};
use super::{Activation, Deconv, Extent, Layout, Merge};
use crate::error::Result;
use crate::ir::Elem;

/// Collects a description in PyTorch's words; [`build`](Self::build) validates it.
///
/// Defaults are PyTorch's (stride 1, padding 0, dilation 1, one group), except that there is no bias unless asked for.
/// Batch is 1 and every spatial extent is open until said otherwise.
#[derive(Debug, Clone)]
pub struct DeconvBuilder {
    rank: usize,
    c_in: i64,
    c_out: i64,
    kernel: Vec<i64>,
    stride: Vec<i64>,
    pad_begin: Vec<i64>,
    pad_end: Vec<i64>,
    output_padding: Vec<i64>,
    output_size: Option<Vec<i64>>,
    dilation: Vec<i64>,
    groups: i64,
    batch: Option<i64>,
    input: Vec<Option<i64>>,
    bias: bool,
    activation: Activation,
    merge: Merge,
    layout: Layout,
    elem: Elem,
}

/// Any integer as `i64`; what does not fit becomes the largest, which every rule refuses.
fn int<T: TryInto<i64>>(v: T) -> i64 {
    v.try_into().unwrap_or(i64::MAX)
}

fn ints<T: TryInto<i64>>(v: impl IntoIterator<Item = T>) -> Vec<i64> {
    v.into_iter().map(int).collect()
}

impl Deconv {
    /// A 1-D layer in PyTorch's convention: weight `[c_in, c_out / groups, k]`.
    pub fn torch1d<T: TryInto<i64>>(
        c_in: impl TryInto<i64>,
        c_out: impl TryInto<i64>,
        kernel: impl IntoIterator<Item = T>,
    ) -> DeconvBuilder {
        DeconvBuilder::new(1, c_in, c_out, kernel)
    }
    /// A 2-D layer in PyTorch's convention: weight `[c_in, c_out / groups, ky, kx]`.
    ///
    /// ```
    /// use polyphase::Deconv;
    /// let open = Deconv::torch2d(64, 3, [4, 4]).stride([2, 2]).padding([1, 1]).open_batch().open_input().bias(true).build()?;
    /// assert_eq!(open.symbols().iter().map(|s| s.as_str()).collect::<Vec<_>>(), ["N", "H", "W"]);
    /// # Ok::<(), polyphase::Error>(())
    /// ```
    pub fn torch2d<T: TryInto<i64>>(
        c_in: impl TryInto<i64>,
        c_out: impl TryInto<i64>,
        kernel: impl IntoIterator<Item = T>,
    ) -> DeconvBuilder {
        DeconvBuilder::new(2, c_in, c_out, kernel)
    }
    /// A 3-D layer in PyTorch's convention: weight `[c_in, c_out / groups, kz, ky, kx]`.
    pub fn torch3d<T: TryInto<i64>>(
        c_in: impl TryInto<i64>,
        c_out: impl TryInto<i64>,
        kernel: impl IntoIterator<Item = T>,
    ) -> DeconvBuilder {
        DeconvBuilder::new(3, c_in, c_out, kernel)
    }
}

impl DeconvBuilder {
    /// A layer of `rank` spatial axes (1 to 3; anything else is an error of `build`) with PyTorch's defaults.
    pub fn new<T: TryInto<i64>>(
        rank: usize,
        c_in: impl TryInto<i64>,
        c_out: impl TryInto<i64>,
        kernel: impl IntoIterator<Item = T>,
    ) -> Self {
        let axes = rank.min(4);
        DeconvBuilder {
            rank,
            c_in: int(c_in),
            c_out: int(c_out),
            kernel: ints(kernel),
            stride: vec![1; axes],
            pad_begin: vec![0; axes],
            pad_end: vec![0; axes],
            output_padding: vec![0; axes],
            output_size: None,
            dilation: vec![1; axes],
            groups: 1,
            batch: Some(1),
            input: vec![None; axes],
            bias: false,
            activation: Activation::None,
            merge: Merge::Sum,
            layout: Layout::ChannelsFirst,
            elem: Elem::F32,
        }
    }
    /// Strides, one per axis.
    pub fn stride<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = T>) -> Self {
        self.stride = ints(v);
        self
    }
    /// The same padding at both ends of each axis; it crops the output. Negative values extend it.
    pub fn padding<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = T>) -> Self {
        self.pad_begin = ints(v);
        self.pad_end = self.pad_begin.clone();
        self
    }
    /// Padding at the beginning and at the end of each axis.
    pub fn padding_begin_end<T: TryInto<i64>, U: TryInto<i64>>(
        mut self,
        begin: impl IntoIterator<Item = T>,
        end: impl IntoIterator<Item = U>,
    ) -> Self {
        self.pad_begin = ints(begin);
        self.pad_end = ints(end);
        self
    }
    /// Extra outputs at the end of each axis; less than the larger of stride and dilation.
    pub fn output_padding<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = T>) -> Self {
        self.output_padding = ints(v);
        self
    }
    /// The wanted output extents, as PyTorch's `forward(x, output_size)`: it selects `output_padding` and overrides it. One value per
    /// axis, or the whole shape `[n, c_out, *spatial]`. The input extents must be known, and each size within `stride - 1` of the smallest.
    pub fn output_size<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = T>) -> Self {
        self.output_size = Some(ints(v));
        self
    }
    /// Dilations, one per axis.
    pub fn dilation<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = T>) -> Self {
        self.dilation = ints(v);
        self
    }
    /// Groups; both channel counts must be divisible by it.
    pub fn groups(mut self, v: impl TryInto<i64>) -> Self {
        self.groups = int(v);
        self
    }
    /// The batch size; 0 is legal and gives an empty output.
    pub fn batch(mut self, v: impl TryInto<i64>) -> Self {
        self.batch = Some(int(v));
        self
    }
    /// Leaves the batch size open until run time, as symbol `N`.
    pub fn open_batch(mut self) -> Self {
        self.batch = None;
        self
    }
    /// The spatial extents of the input.
    pub fn input<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = T>) -> Self {
        self.input = v.into_iter().map(|v| Some(int(v))).collect();
        self
    }
    /// The spatial extents of the input, `None` where it stays open until run time.
    pub fn input_extents<T: TryInto<i64>>(mut self, v: impl IntoIterator<Item = Option<T>>) -> Self {
        self.input = v.into_iter().map(|v| v.map(int)).collect();
        self
    }
    /// Leaves every spatial extent open until run time, as symbols `D`, `H`, `W` (the last ones of these; 1-D has `W`).
    pub fn open_input(mut self) -> Self {
        self.input = vec![None; self.rank.min(4)];
        self
    }
    /// Whether a bias of `c_out` values is added.
    pub fn bias(mut self, v: bool) -> Self {
        self.bias = v;
        self
    }
    /// What follows the bias.
    pub fn activation(mut self, v: Activation) -> Self {
        self.activation = v;
        self
    }
    /// How overlapping patches are merged.
    pub fn merge(mut self, v: Merge) -> Self {
        self.merge = v;
        self
    }
    /// The order of input and output in memory.
    pub fn layout(mut self, v: Layout) -> Self {
        self.layout = v;
        self
    }
    /// The element type.
    pub fn elem(mut self, v: Elem) -> Self {
        self.elem = v;
        self
    }

    /// Checks everything and gives the description.
    ///
    /// # Errors
    /// Whatever [`Deconv::validate`] refuses, negative numbers where a count is meant, and an `output_size` out of reach.
    pub fn build(self) -> Result<Deconv> {
        if !(1..=3).contains(&self.rank) {
            return Err(problem(format!("there are {} spatial axes; 1, 2 or 3 are legal", self.rank)));
        }
        let rank = self.rank;
        let count = |what: &str, v: i64, lo: i64, hi: i64| within(what, v.into(), lo.into(), hi.into()).map(|()| v as usize);
        let counts = |what: &str, v: &[i64], lo: i64, hi: i64| -> Result<Vec<usize>> {
            per_axis(what, v.len(), rank)?;
            v.iter().enumerate().map(|(a, &v)| count(&format!("{what} is {v} on axis {}", axis_name(rank, a)), v, lo, hi)).collect()
        };
        let channels = |what: &str, v: i64| count(&format!("{what} is {v}"), v, 1, MAX_EXTENT);
        per_axis("input extent", self.input.len(), rank)?;
        let input = self.input.iter().zip(spatial_symbols(rank)).enumerate().map(|(a, (v, symbol))| match v {
            None => Ok(Extent::Open((*symbol).into())),
            Some(v) => Ok(Extent::Fixed(count(&format!("input extent is {v} on axis {}", axis_name(rank, a)), *v, 1, MAX_EXTENT)?)),
        });
        let mut layer = Deconv {
            batch: match self.batch {
                None => Extent::Open(BATCH.into()),
                Some(v) => Extent::Fixed(count(&format!("batch is {v}"), v, 0, MAX_EXTENT)?),
            },
            c_in: channels("c_in", self.c_in)?,
            c_out: channels("c_out", self.c_out)?,
            groups: channels("groups", self.groups)?,
            kernel: counts("kernel", &self.kernel, 1, MAX_STEP)?,
            stride: counts("stride", &self.stride, 1, MAX_STEP)?,
            dilation: counts("dilation", &self.dilation, 1, MAX_STEP)?,
            output_padding: counts("output_padding", &self.output_padding, 0, MAX_STEP)?,
            input: input.collect::<Result<_>>()?,
            pad_begin: self.pad_begin,
            pad_end: self.pad_end,
            bias: self.bias,
            activation: self.activation,
            merge: self.merge,
            layout: self.layout,
            elem: self.elem,
        };
        if let Some(size) = self.output_size {
            layer.output_padding = vec![0; rank];
            layer.validate_constants()?;
            layer.output_padding = layer.padding_for_size(&size)?;
        }
        layer.validate()?;
        Ok(layer)
    }
}

impl Deconv {
    /// The output padding that gives the wanted output extents, as PyTorch's `output_size` selects it.
    fn padding_for_size(&self, size: &[i64]) -> Result<Vec<usize>> {
        let rank = self.rank();
        let wanted = match size.len() {
            n if n == rank => size,
            n if n == rank + 2 => {
                let batch = matches!(self.batch, Extent::Fixed(b) if b as i64 != size[0]);
                if batch || size[1] != self.c_out as i64 {
                    let batch = match &self.batch {
                        Extent::Fixed(b) => b.to_string(),
                        Extent::Open(_) => "?".into(),
                    };
                    return Err(problem(format!(
                        "output_size {size:?} begins with batch {} and {} channels; the layer gives [{batch}, {}]",
                        size[0], size[1], self.c_out
                    )));
                }
                &size[2..]
            }
            n => return Err(problem(format!("output_size has {n} values; {rank} (spatial) or {} (the whole shape) are legal", rank + 2))),
        };
        (0..rank)
            .map(|a| {
                let least = self
                    .output_extent(a)
                    .as_const()
                    .ok_or_else(|| problem(format!("output_size needs a known input extent; axis {} is open", axis_name(rank, a))))?;
                let most = least + self.stride[a] as i64 - 1;
                if wanted[a] < least || wanted[a] > most {
                    let legal = if least == most { format!("only {least} is legal") } else { format!("{least} to {most} are legal") };
                    return Err(problem(format!("output_size is {} on axis {}; {legal}", wanted[a], axis_name(rank, a))));
                }
                Ok((wanted[a] - least) as usize)
            })
            .collect()
    }
}
