//! Initial weights, in PyTorch's order `[c_in, c_out / groups, *kernel]`.
//!
//! Needs a validated [`Deconv`]. Random ones come from ChaCha8 with the seed given, so that a seed means the same numbers on every machine.
//! Fans are those PyTorch computes for a transposed weight: `fan_in = w.size(1) * taps`, that is `c_out / groups * taps`, and
//! `fan_out = w.size(0) * taps = c_in * taps`; which reads backwards, but is what `torch.nn.init` does.
//!
//! ```
//! use polyphase::weights::bilinear;
//! use polyphase::Deconv;
//! let up = Deconv::caffe_upsampling(1, 2, &[Some(8)])?;
//! assert_eq!(bilinear(&up)?, [0.25, 0.75, 0.75, 0.25]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use crate::error::{Error, Kind, Result};
use crate::problem::Deconv;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// How many values each output and each input is connected to, as `torch.nn.init` counts them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fans {
    /// `c_out / groups * taps`.
    pub fan_in: f64,
    /// `c_in * taps`.
    pub fan_out: f64,
}

impl Fans {
    /// The fans of a layer's weight.
    pub fn of(d: &Deconv) -> Self {
        let taps: f64 = d.kernel.iter().map(|&k| k as f64).product();
        Fans { fan_in: (d.c_out / d.groups.max(1)) as f64 * taps, fan_out: d.c_in as f64 * taps }
    }
}

/// PuzzleLib's `initscheme`. Its `factor` is what the fan type chooses of `ins = inmaps * taps` and `outs = outmaps / groups * taps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitScheme {
    /// `"none"`: not initialised.
    None,
    /// `"xavier_uniform"`, and what Python's `None` means: uniform in ±√(3 / factor).
    XavierUniform(FanType),
    /// `"xavier_normal"` and `"xavier"`: normal with deviation √(1 / factor).
    XavierNormal(FanType),
    /// `"he"`: normal with deviation √(2 / factor).
    He(FanType),
    /// `"gaussian"`: normal with deviation `wscale`.
    Gaussian,
    /// `"uniform"`: uniform in ±`wscale`.
    Uniform,
}

/// PuzzleLib's factor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FanType {
    /// `"in"`: `ins`.
    #[default]
    In,
    /// `"out"`: `outs`.
    Out,
    /// `"avg"`: their mean.
    Avg,
}

impl Default for InitScheme {
    fn default() -> Self {
        InitScheme::XavierUniform(FanType::In)
    }
}

impl InitScheme {
    /// Reads PuzzleLib's scheme name and factor type; an absent name is the default scheme, an absent type `"in"`.
    ///
    /// # Errors
    /// A name that PuzzleLib does not have; the message lists those it has.
    pub fn parse(scheme: Option<&str>, factor: Option<&str>) -> Result<Self> {
        let parse = |m: String| Error::new(Kind::Parse, m);
        let fan = match factor {
            None | Some("in") => FanType::In,
            Some("out") => FanType::Out,
            Some("avg") => FanType::Avg,
            Some(t) => return Err(parse(format!("the factor type is {t:?}; in, out and avg are legal"))),
        };
        Ok(match scheme {
            None | Some("xavier_uniform") => InitScheme::XavierUniform(fan),
            Some("xavier" | "xavier_normal") => InitScheme::XavierNormal(fan),
            Some("he") => InitScheme::He(fan),
            Some("gaussian") => InitScheme::Gaussian,
            Some("uniform") => InitScheme::Uniform,
            Some("none") => InitScheme::None,
            Some(s) => {
                let legal = "none, xavier, xavier_uniform, xavier_normal, he, gaussian and uniform are legal";
                return Err(parse(format!("initscheme is {s:?}; {legal}")));
            }
        })
    }
}

fn count(d: &Deconv) -> Result<usize> {
    d.validate()?;
    Ok(d.weight_shape().iter().product())
}

fn uniform(d: &Deconv, bound: f64, seed: u64) -> Result<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Ok((0..count(d)?).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect())
}

fn normal(d: &Deconv, deviation: f64, seed: u64) -> Result<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Ok((0..count(d)?).map(|_| (deviation * rng.sample::<f64, _>(StandardNormal)) as f32).collect())
}

/// Xavier (Glorot) uniform with gain 1: uniform in ±√(6 / (fan_in + fan_out)).
///
/// # Errors
/// Whatever [`Deconv::validate`] refuses; so for all of these.
pub fn xavier_uniform(d: &Deconv, seed: u64) -> Result<Vec<f32>> {
    let f = Fans::of(d);
    uniform(d, (6.0 / (f.fan_in + f.fan_out)).sqrt(), seed)
}

/// Xavier (Glorot) normal with gain 1: deviation √(2 / (fan_in + fan_out)).
pub fn xavier_normal(d: &Deconv, seed: u64) -> Result<Vec<f32>> {
    let f = Fans::of(d);
    normal(d, (2.0 / (f.fan_in + f.fan_out)).sqrt(), seed)
}

/// He (Kaiming) uniform for ReLU, mode `fan_in`: uniform in ±√(6 / fan_in).
pub fn he_uniform(d: &Deconv, seed: u64) -> Result<Vec<f32>> {
    uniform(d, (6.0 / Fans::of(d).fan_in).sqrt(), seed)
}

/// He (Kaiming) normal for ReLU, mode `fan_in`: deviation √(2 / fan_in).
pub fn he_normal(d: &Deconv, seed: u64) -> Result<Vec<f32>> {
    normal(d, (2.0 / Fans::of(d).fan_in).sqrt(), seed)
}

/// The weight PuzzleLib's `DeconvND` starts from; `None` for the scheme `none`.
///
/// # Errors
/// A `wscale` that is negative or not finite, where the scheme uses it; whatever [`Deconv::validate`] refuses.
pub fn puzzlelib_weight(d: &Deconv, scheme: InitScheme, wscale: f64, seed: u64) -> Result<Option<Vec<f32>>> {
    d.validate()?;
    // PuzzleLib infers neurons with its transposed rule: inputs feed `ins`, which PyTorch calls fan_out.
    let Fans { fan_in: outs, fan_out: ins } = Fans::of(d);
    let factor = |t: FanType| match t {
        FanType::In => ins,
        FanType::Out => outs,
        FanType::Avg => (ins + outs) / 2.0,
    };
    if matches!(scheme, InitScheme::Gaussian | InitScheme::Uniform) && !(wscale.is_finite() && wscale >= 0.0) {
        return Err(Error::new(Kind::Problem, format!("wscale is {wscale}; it must be finite and at least 0")));
    }
    let weight = match scheme {
        InitScheme::None => return Ok(None),
        InitScheme::XavierUniform(t) => uniform(d, (3.0 / factor(t)).sqrt(), seed),
        InitScheme::XavierNormal(t) => normal(d, (1.0 / factor(t)).sqrt(), seed),
        InitScheme::He(t) => normal(d, (2.0 / factor(t)).sqrt(), seed),
        InitScheme::Gaussian => normal(d, wscale, seed),
        InitScheme::Uniform => uniform(d, wscale, seed),
    };
    weight.map(Some)
}

/// Bilinear (1-D linear, 3-D trilinear) upsampling weights by the recipe of Caffe's filler and of FCN.
///
/// Along an axis of extent `k`, with `f = ceil(k / 2)` and `c = (2f - 1 - f%2) / 2f`, tap `i` weighs `1 - |i/f - c|`. Every channel is
/// upsampled into itself: one group per channel (the recipe proper), or one group with a diagonal weight, as FCN's published code has it.
///
/// # Errors
/// Unequal channel counts, or groups other than 1 and the number of channels; whatever [`Deconv::validate`] refuses.
pub fn bilinear(d: &Deconv) -> Result<Vec<f32>> {
    let needed = count(d)?;
    if d.c_in != d.c_out || (d.groups != 1 && d.groups != d.c_in) {
        return Err(Error::new(
            Kind::Problem,
            format!(
                "bilinear weights map each channel to itself; {} -> {} channels in {} groups cannot: equal channels in one group, or one group each, are legal",
                d.c_in, d.c_out, d.groups
            ),
        ));
    }
    let kernel =
        d.kernel.iter().fold(vec![1.0f64], |outer, &k| outer.iter().flat_map(|o| hat(k).into_iter().map(move |h| o * h)).collect());
    let mut out = vec![0.0; needed];
    let per_channel = d.c_out / d.groups;
    for ic in 0..d.c_in {
        let at = (ic * per_channel + ic % per_channel) * kernel.len();
        out[at..at + kernel.len()].iter_mut().zip(&kernel).for_each(|(o, k)| *o = *k as f32);
    }
    Ok(out)
}

/// The triangle along one axis.
fn hat(k: usize) -> Vec<f64> {
    let f = k.div_ceil(2) as f64;
    let centre = (2.0 * f - 1.0 - f % 2.0) / (2.0 * f);
    (0..k).map(|i| 1.0 - (i as f64 / f - centre).abs()).collect()
}
