//! How each framework spells a transposed convolution: one file per framework, each leaving a validated [`Deconv`].
//!
//! A constructor here speaks its framework's words and applies its rules for sizes; the rules are quoted at the place where they
//! are applied. Weights in the framework's order are converted by [`crate::weights::to_torch`]. The table of all of them is
//! `docs/conventions.md`.
//!
//! [`Deconv`]: crate::Deconv

pub mod adjoint;
pub mod caffe;
pub mod jax;
pub mod onnx;
pub mod puzzlelib;
pub mod tensorflow;
pub mod xnnpack;

use super::validate::{MAX_STEP, problem};
use super::{Deconv, DeconvBuilder};
use crate::error::Result;

/// Extents as callers give them: `None` stays open until run time.
pub type Extents<'a> = &'a [Option<usize>];

/// Padding of one axis, for the builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pads {
    begin: i64,
    end: i64,
    output_padding: i64,
}

impl Pads {
    /// Padding at both ends. An end that extends the output by less than `max(stride, dilation)` is said as output padding.
    fn new(begin: i128, end: i128, stride: i64, dilation: i64) -> Self {
        if end < 0 && -end < i128::from(stride.max(dilation)) {
            return Pads { begin: saturate(begin), end: 0, output_padding: saturate(-end) };
        }
        Pads { begin: saturate(begin), end: saturate(end), output_padding: 0 }
    }
}

/// The number in 64 bits; what does not fit becomes one that validation refuses.
fn saturate(v: i128) -> i64 {
    v.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Padding of every axis.
fn padded(b: DeconvBuilder, pads: &[Pads]) -> DeconvBuilder {
    b.padding_begin_end(pads.iter().map(|p| p.begin), pads.iter().map(|p| p.end)).output_padding(pads.iter().map(|p| p.output_padding))
}

/// The extents of data in a shape `[n, c, *spatial]` or `[n, *spatial, c]`: batch, channels, spatial.
fn split_shape<'a>(
    what: &str,
    shape: Extents<'a>,
    rank: usize,
    channels_last: bool,
) -> Result<(Option<usize>, Option<usize>, Extents<'a>)> {
    if shape.len() != rank + 2 {
        return Err(problem(format!("{what} has {} extents; a {rank}-D layer needs {}", shape.len(), rank + 2)));
    }
    if channels_last { Ok((shape[0], shape[rank + 1], &shape[1..=rank])) } else { Ok((shape[0], shape[1], &shape[2..])) }
}

/// One value per axis: the list given, or `default` for all; a list of another length is an error.
fn per_axis_or(what: &str, given: Option<&[i64]>, rank: usize, default: i64) -> Result<Vec<i64>> {
    let values = given.map_or_else(|| vec![default; rank], <[i64]>::to_vec);
    super::validate::per_axis(what, values.len(), rank)?;
    Ok(values)
}

/// Refuses strides, dilations and kernels before the rules of a framework divide by them or add them up.
fn steps(what: &str, values: &[i64]) -> Result<()> {
    for (a, &v) in values.iter().enumerate() {
        let at = super::validate::axis_name(values.len(), a);
        super::validate::within(&format!("{what} is {v} on axis {at}"), v.into(), 1, MAX_STEP.into())?;
    }
    Ok(())
}

/// `Some` for every extent of a list that is known.
fn known(extents: &[usize]) -> Vec<Option<usize>> {
    extents.iter().copied().map(Some).collect()
}

/// The builder with batch and spatial input extents set.
fn on_input(b: DeconvBuilder, batch: Option<usize>, spatial: Extents<'_>) -> DeconvBuilder {
    let b = b.input_extents(spatial.iter().copied());
    match batch {
        Some(n) => b.batch(n),
        None => b.open_batch(),
    }
}

/// Refuses data whose channels are known and are not those of the weights.
fn same_channels(what: &str, given: Option<usize>, needed: usize) -> Result<()> {
    match given {
        Some(c) if c != needed => Err(problem(format!("{what} has {c} channels; the weights need {needed}"))),
        _ => Ok(()),
    }
}

/// The extents of a kernel within a weight shape, as `i64`.
fn extents_i64(v: &[usize]) -> Vec<i64> {
    v.iter().map(|&v| i64::try_from(v).unwrap_or(i64::MAX)).collect()
}

/// What a constructor of this module leaves.
type Built = Result<Deconv>;
