//! Why one output has the value it has: every pixel and weight that lands on it.
//!
//! Along an axis, tap `k` of pixel `i` lands on output `o` where `s*i + d*k = o + p`. A tap for which `o + p - d*k` is no multiple of the stride meets
//! an inserted zero, one whose pixel is not in `0..extent` meets padding; what is left are the products that are summed.
//!
//! ```
//! use polyphase::{Deconv, explain::at::{self, Values}};
//! // Ones, 4x4, by the kernel 1..16: why is entry (0, 1) equal to 12?
//! let layer: Deconv = "2d n1 1x4x4 -> 1 k4 s2 p1".parse()?;
//! let values = Values { input: Some(vec![1.0; 16]), weight: Some((1..=16).map(f64::from).collect()), bias: None };
//! let at = at::at(&layer, 0, 0, &[0, 1], &values)?;
//! assert_eq!(at.rows.iter().map(|r| r.product.unwrap()).collect::<Vec<_>>(), [5.0, 7.0]);
//! assert_eq!(at.value, Some(12.0));
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::facts::Sizes;
use crate::ir::names::axes;
use crate::{Activation, Deconv, Error, Kind, Layout, Merge, Result};
use serde::Serialize;

/// Rows that are listed; sums go over all of them.
const LISTED: usize = 1024;
/// Up to this many input channels have a row each; more are summed in one row.
const CHANNELS: usize = 4;
/// Taps that are looked at.
const TAPS: usize = 1 << 24;

/// Tensors, as far as they are known: dense, `input` in the problem's layout.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// The input.
    pub input: Option<Vec<f64>>,
    /// The weight, `[c_in, c_out / groups, *kernel]`.
    pub weight: Option<Vec<f64>>,
    /// The bias, `[c_out]`.
    pub bias: Option<Vec<f64>>,
}

/// One output, taken apart.
#[derive(Debug, Clone, Serialize)]
pub struct At {
    /// Which item of the batch.
    pub batch: usize,
    /// Which output channel.
    pub channel: usize,
    /// Spatial coordinates, outermost first.
    pub output: Vec<usize>,
    /// What happens along each axis.
    pub axes: Vec<AxisAt>,
    /// Taps of the kernel.
    pub taps: usize,
    /// Of these: pixels land with them here.
    pub landing: usize,
    /// Of these: they meet an inserted zero.
    pub on_zeros: usize,
    /// Of these: their pixel lies outside of the input.
    pub outside: usize,
    /// Input channels that each of them sums.
    pub channels: usize,
    /// What lands, the first 1024.
    pub rows: Vec<Landing>,
    /// How many there are.
    pub row_count: usize,
    /// How rows are merged: `sum`, `mean`, `max`.
    pub merge: &'static str,
    /// What they come to, if values were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<f64>,
    /// The bias that is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// The output, after bias and activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// One axis of an output.
#[derive(Debug, Clone, Serialize)]
pub struct AxisAt {
    /// `z`, `y` or `x`.
    pub axis: &'static str,
    /// The condition with its numbers: `2*i + k = 1 + 1`.
    pub condition: String,
    /// Tap and pixel of what lands.
    pub lands: Vec<(usize, usize)>,
    /// Taps that meet an inserted zero.
    pub on_zeros: Vec<usize>,
    /// Taps whose pixel lies outside, with it.
    pub outside: Vec<(usize, i64)>,
}

/// One product, or one sum of products over the input channels.
#[derive(Debug, Clone, Serialize)]
pub struct Landing {
    /// The tap, per axis.
    pub tap: Vec<usize>,
    /// The pixel, per axis.
    pub pixel: Vec<usize>,
    /// The input channel, if the row is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<usize>,
    /// The pixel's value, if the row is about one channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<f64>,
    /// The weight, if the row is about one channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Their product, or the sum of products.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<f64>,
    /// What has been merged so far (the sum, or the largest).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<f64>,
}

/// Takes one output apart.
///
/// # Errors
/// [`Kind::Tensor`] for coordinates outside of the output and values of the wrong length.
pub fn at(p: &Deconv, batch: usize, channel: usize, output: &[usize], values: &Values) -> Result<At> {
    let sizes = Sizes::of(p)?;
    check(p, &sizes, batch, channel, output, values)?;
    let along: Vec<AxisAt> = (0..p.rank()).map(|a| axis(p, &sizes, a, output[a])).collect();
    let count = |f: &dyn Fn(&AxisAt) -> usize| along.iter().map(f).product::<usize>();
    let taps = p.kernel.iter().product();
    let landing = count(&|a| a.lands.len());
    let congruent = count(&|a| a.lands.len() + a.outside.len());

    let here = Here { p, sizes: &sizes, batch, channel, values };
    let mut rows = Vec::new();
    let mut merged = (values.input.is_some() && values.weight.is_some()).then_some(0.0);
    let mut row_count = 0;
    for_each_pair(&along, &mut |tap, pixel| {
        for mut row in here.rows(tap, pixel) {
            merged = match (merged, row.product) {
                (Some(m), Some(v)) => Some(if p.merge == Merge::Max && row_count > 0 { larger(m, v) } else { m + v }),
                _ => None,
            };
            row.running = merged;
            row_count += 1;
            if rows.len() < LISTED {
                rows.push(row);
            }
        }
    });
    if p.merge == Merge::Mean && landing > 0 {
        merged = merged.map(|m| m / landing as f64);
    }
    let bias = values.bias.as_ref().filter(|_| p.bias).map(|b| b[channel]);
    let known = if p.bias { bias } else { Some(0.0) };
    let value = merged.zip(known).map(|(m, b)| activated(p.activation, m + b));
    let merge = match p.merge {
        Merge::Sum => "sum",
        Merge::Mean => "mean",
        Merge::Max => "max",
    };
    Ok(At {
        batch,
        channel,
        output: output.to_vec(),
        taps,
        landing,
        on_zeros: taps - congruent,
        outside: congruent - landing,
        channels: p.c_in / p.groups,
        axes: along,
        rows,
        row_count,
        merge,
        merged,
        bias,
        value,
    })
}

fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn activated(a: Activation, v: f64) -> f64 {
    match a {
        Activation::None => v,
        Activation::Relu if v < 0.0 => 0.0,
        Activation::Relu => v,
        Activation::LeakyRelu(slope) => {
            if v > 0.0 {
                v
            } else {
                slope * v
            }
        }
        Activation::Clamp(lo, _) if v < lo => lo,
        Activation::Clamp(_, hi) if v > hi => hi,
        Activation::Clamp(..) => v,
        Activation::Tanh => v.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-v).exp()),
    }
}

fn check(p: &Deconv, sizes: &Sizes, batch: usize, channel: usize, output: &[usize], values: &Values) -> Result<()> {
    let tensor = |message: String| Err(Error::new(Kind::Tensor, message));
    if output.len() != p.rank() {
        return tensor(format!("{} coordinates were given: {output:?}; a {}-D layer needs {}", output.len(), p.rank(), p.rank()));
    }
    if batch >= sizes.batch {
        return tensor(format!("batch item {batch} does not exist; there are {}, counted from 0", sizes.batch));
    }
    if channel >= p.c_out {
        return tensor(format!("output channel {channel} does not exist; there are {}, counted from 0", p.c_out));
    }
    for (a, (o, extent)) in output.iter().zip(&sizes.output).enumerate() {
        if o >= extent {
            return tensor(format!(
                "coordinate {o} on axis {} lies outside of the output; 0 to {} are legal",
                axes(p.rank())[a],
                extent - 1
            ));
        }
    }
    if p.kernel.iter().fold(1usize, |n, k| n.saturating_mul(*k)) > TAPS {
        return tensor(format!("a kernel of {:?} has more than {TAPS} taps, too many to list", p.kernel));
    }
    let lengths = [
        ("input", &values.input, p.input_shape(sizes.batch, &sizes.input)?),
        ("weight", &values.weight, p.weight_shape()),
        ("bias", &values.bias, vec![p.c_out]),
    ];
    for (name, given, shape) in lengths {
        let needed = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
        if let Some(v) = given.as_ref().filter(|v| v.len() != needed) {
            return tensor(format!("the {name} has {} values; shape {shape:?} needs {needed}", v.len()));
        }
    }
    Ok(())
}

fn axis(p: &Deconv, sizes: &Sizes, a: usize, o: usize) -> AxisAt {
    let (s, d, pad) = (p.stride[a] as i64, p.dilation[a] as i64, p.pad_begin[a]);
    let times = |factor: i64, what: &str| if factor == 1 { what.to_string() } else { format!("{factor}*{what}") };
    let right = if pad < 0 { format!("{o} - {}", -pad) } else { format!("{o} + {pad}") };
    let condition = format!("{} + {} = {right}", times(s, "i"), times(d, "k"));
    let mut out = AxisAt { axis: axes(p.rank())[a], condition, lands: vec![], on_zeros: vec![], outside: vec![] };
    for k in 0..p.kernel[a] {
        let place = o as i64 + pad - d * k as i64;
        let i = place.div_euclid(s);
        if place.rem_euclid(s) != 0 {
            out.on_zeros.push(k);
        } else if (0..sizes.input[a] as i64).contains(&i) {
            out.lands.push((k, i as usize));
        } else {
            out.outside.push((k, i));
        }
    }
    out
}

/// Every combination of what lands along the axes, the last axis fastest.
fn for_each_pair(along: &[AxisAt], f: &mut dyn FnMut(&[usize], &[usize])) {
    let total: usize = along.iter().map(|a| a.lands.len()).product();
    let (mut tap, mut pixel) = (vec![0; along.len()], vec![0; along.len()]);
    for flat in 0..total {
        let mut rest = flat;
        for (a, axis) in along.iter().enumerate().rev() {
            (tap[a], pixel[a]) = axis.lands[rest % axis.lands.len()];
            rest /= axis.lands.len();
        }
        f(&tap, &pixel);
    }
}

/// Where values are looked up.
struct Here<'a> {
    p: &'a Deconv,
    sizes: &'a Sizes,
    batch: usize,
    channel: usize,
    values: &'a Values,
}

impl Here<'_> {
    /// One row per input channel if there are few and their products are simply added, one for all of them otherwise.
    fn rows(&self, tap: &[usize], pixel: &[usize]) -> Vec<Landing> {
        let per_group = self.p.c_in / self.p.groups;
        let first = self.channel / (self.p.c_out / self.p.groups) * per_group;
        let row = |channel, input, weight, product| Landing {
            tap: tap.to_vec(),
            pixel: pixel.to_vec(),
            channel,
            input,
            weight,
            product,
            running: None,
        };
        let both = |c: usize| (self.input(c, pixel), self.weight(c, tap));
        let product = |(x, w): (Option<f64>, Option<f64>)| Some(x? * w?);
        let channels = first..first + per_group;
        if per_group <= CHANNELS && (self.p.merge == Merge::Sum || per_group == 1) {
            return channels.map(|c| row(Some(c), both(c).0, both(c).1, product(both(c)))).collect();
        }
        vec![row(None, None, None, channels.map(|c| product(both(c))).sum())]
    }

    fn input(&self, c: usize, pixel: &[usize]) -> Option<f64> {
        let x = self.values.input.as_ref()?;
        let place = |start: usize| pixel.iter().zip(&self.sizes.input).fold(start, |at, (i, n)| at * n + i);
        Some(match self.p.layout {
            Layout::ChannelsFirst => x[place(self.batch * self.p.c_in + c)],
            Layout::ChannelsLast => x[place(self.batch) * self.p.c_in + c],
        })
    }

    fn weight(&self, c: usize, tap: &[usize]) -> Option<f64> {
        let w = self.values.weight.as_ref()?;
        let per_group = self.p.c_out / self.p.groups;
        let start = c * per_group + self.channel % per_group;
        Some(w[tap.iter().zip(&self.p.kernel).fold(start, |at, (t, k)| at * k + t)])
    }
}
