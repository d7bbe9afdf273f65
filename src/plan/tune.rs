//! Tuning: timing the best candidates instead of believing the cost model.
//!
//! Needs a problem with its weights; leaves the candidate that ran fastest, and what every other one took. The candidates are the model's
//! first choice, then the best of every other kind ([`Plan::kind`]), then the rest in the model's order. They are timed in
//! interleaved rounds on one set of random data, so that a machine that slows down slows all of them; what counts is the median.
//! A candidate whose result differs from the first one's cannot win. All of them are in memory at once, each with its packed weights.
//!
//! ```
//! use polyphase::{Deconv, Options, plan::tune::{Tuning, tune}};
//! let layer: Deconv = "1d n1 4x20 -> 8 k4 s2 p1".parse()?;
//! let weights = vec![0.5f32; 4 * 8 * 4];
//! let tuned = tune(&layer, &weights, None, &Options::default(), &Tuning { top: 2, rounds: 1, ..Tuning::default() }, &mut |_| ())?;
//! let options = Options { plan: Some(tuned.plan), ..Options::default() };
//! let kernel = layer.compile(&weights, None, &options)?;
//! # Ok::<(), polyphase::Error>(())
//! ```

mod file;

pub use file::{Entry, PlanFile, cpu};

use super::{Plan, Rejected, ranked};
use crate::codegen::target::Isa;
use crate::problem::{Activation, Deconv, Extent};
use crate::runtime::{Element, Kernel, Options};
use crate::{Error, Kind, Result, reference};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

/// A sample is as many runs as take about so many seconds.
const SAMPLE: f64 = 200e-6;
/// Every candidate gets so many samples, however slow it is.
const LEAST_ROUNDS: usize = 3;
/// A candidate that takes so many times as long as the fastest gets no more samples than that.
const HOPELESS: f64 = 2.0;

/// How much effort tuning makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// How many candidates are timed.
    pub top: usize,
    /// How many samples are taken of each.
    pub rounds: usize,
    /// After so many seconds of timing, no round is begun that can be done without.
    pub seconds: f64,
    /// What open spatial extents are taken to be; an open batch is taken to be 1. The plan that wins then serves every size.
    pub open: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { top: 12, rounds: 15, seconds: 2.0, open: 64 }
    }
}

/// How far tuning has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// `compiling` or `timing`.
    pub stage: &'static str,
    /// Steps of the stage that are done.
    pub done: usize,
    /// Steps of the stage.
    pub total: usize,
}

/// A candidate and the time it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The plan.
    pub plan: Plan,
    /// Median seconds of a run.
    pub seconds: f64,
    /// Cycles that the cost model predicts.
    pub predicted: f64,
}

/// What tuning found.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The fastest plan.
    pub plan: Plan,
    /// The level that it was timed at.
    pub isa: Isa,
    /// The candidates that were timed, in the order in which they were picked: the model's first choice comes first.
    pub measured: Vec<Measured>,
    /// Candidates that could not be compiled or computed something else: each is a bug of the compiler.
    pub failed: Vec<(Plan, Error)>,
}

impl Tuned {
    /// By how much the model's cheapest candidate is slower than the fastest one: 0.05 is 5 %.
    pub fn regret(&self) -> f64 {
        let least = |key: fn(&Measured) -> f64| self.measured.iter().min_by(|a, b| key(a).total_cmp(&key(b)));
        match (least(|m| m.predicted), least(|m| m.seconds)) {
            (Some(first), Some(best)) => first.seconds / best.seconds - 1.0,
            _ => 0.0,
        }
    }

    /// Spearman's rank correlation of predicted cycles and measured times, from -1 to 1; `None` for fewer than two candidates, or
    /// if all of them are equal.
    pub fn rank_correlation(&self) -> Option<f64> {
        let ranks = |key: fn(&Measured) -> f64| ranks(&self.measured.iter().map(key).collect::<Vec<_>>());
        correlation(&ranks(|m| m.predicted), &ranks(|m| m.seconds))
    }
}

/// Times the best candidates for a problem and keeps the fastest. `options.plan` is not looked at; the level, form and threads are.
/// `progress` hears of every step.
///
/// # Errors
/// As [`Deconv::compile`]; [`Kind::Options`] if `tuning` asks for nothing, or no plan is legal.
pub fn tune<T: Element>(
    problem: &Deconv,
    weights: &[T],
    bias: Option<&[T]>,
    options: &Options,
    tuning: &Tuning,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tuned> {
    if tuning.top == 0 || tuning.rounds == 0 || tuning.open == 0 {
        let message = format!(
            "tuning with {} candidates, {} rounds and open extents of {}; each must be at least 1",
            tuning.top, tuning.rounds, tuning.open
        );
        return Err(Error::new(Kind::Options, message));
    }
    problem.validate()?;
    let isa = options.isa.map_or_else(Isa::best, |isa| Isa::forced(isa.name()))?;
    let finite = weights.iter().all(|w| (*w).into().is_finite());
    let mut trial = Trial::new(problem, weights, bias, tuning.open)?;
    let options = Options { isa: Some(isa), plan: None, typical: vec![trial.input.clone()], ..options.clone() };
    let candidates = pick(ranked(problem, isa, &options, finite), tuning.top);
    let (mut runners, mut failed) = (Vec::new(), Vec::new());
    for (done, Rejected { plan, cost }) in candidates.iter().enumerate() {
        progress(Progress { stage: "compiling", done, total: candidates.len() });
        let compiled = problem.compile(weights, bias, &Options { plan: Some(plan.clone()), ..options.clone() });
        match compiled.and_then(|kernel| trial.admit(kernel, cost.cycles())) {
            Ok(runner) => runners.push(runner),
            Err(e) if e.kind == Kind::Tensor => return Err(e),
            Err(e) => failed.push((plan.clone(), e)),
        }
    }
    let measured = trial.time(runners, tuning, progress)?;
    let best = measured.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    match (best, failed.first()) {
        (Some(best), _) => Ok(Tuned { plan: best.plan.clone(), isa, measured, failed }),
        (None, Some((plan, e))) => Err(e.clone().context(format_args!("the plan '{plan}'"))),
        (None, None) => Err(Error::new(Kind::Options, "no plan is legal for this problem and these options")),
    }
}

/// The cheapest candidate, the cheapest of every other kind, then the others, cheapest first: so many of them.
fn pick(ranked: Vec<Rejected>, top: usize) -> Vec<Rejected> {
    let (mut first, mut others): (Vec<Rejected>, Vec<Rejected>) = (Vec::new(), Vec::new());
    for r in ranked {
        if first.iter().chain(&others).any(|o| o.plan == r.plan) {
            continue;
        }
        let seen = first.iter().any(|o| o.plan.kind() == r.plan.kind());
        if seen { &mut others } else { &mut first }.push(r);
    }
    first.extend(others);
    first.truncate(top);
    first
}

/// The data that candidates run on.
struct Trial<T> {
    batch: usize,
    input: Vec<usize>,
    /// By how much results of two candidates may differ.
    tolerance: f64,
    x: Vec<T>,
    y: Vec<T>,
    /// What the first candidate computed.
    expected: Option<Vec<T>>,
}

/// A compiled candidate and its samples.
struct Runner<T> {
    kernel: Kernel<T>,
    predicted: f64,
    /// Runs per sample.
    repeats: usize,
    samples: Vec<f64>,
}

impl<T: Element> Runner<T> {
    fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }
}

impl<T: Element> Trial<T> {
    fn new(problem: &Deconv, weights: &[T], bias: Option<&[T]>, open: usize) -> Result<Trial<T>> {
        let known = |e: &Extent, open: usize| if let Extent::Fixed(v) = e { *v } else { open };
        let batch = known(&problem.batch, 1);
        let input: Vec<usize> = problem.input.iter().map(|e| known(e, open)).collect();
        let outputs = problem.output_shape(batch, &input)?;
        let inputs = [batch, problem.c_in].into_iter().chain(input.iter().copied());
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let x = (0..elements(inputs)?).map(|_| T::from_f64(2.0 * rng.random::<f64>() - 1.0)).collect();
        let y = vec![T::from_f64(0.0); elements(outputs.into_iter())?];
        Ok(Trial { batch, input, tolerance: tolerance(problem, weights, bias), x, y, expected: None })
    }

    fn run(&mut self, kernel: &Kernel<T>) -> Result<()> {
        kernel.run_sized(self.batch, &self.input, &self.x, &mut self.y)
    }

    /// Seconds per run. Candidates take turns, so each runs once before the clock does: what the others drove out of the caches is not its loss.
    fn sample(&mut self, kernel: &Kernel<T>, repeats: usize) -> Result<f64> {
        self.run(kernel)?;
        let start = Instant::now();
        for _ in 0..repeats {
            self.run(kernel)?;
        }
        Ok(start.elapsed().as_secs_f64() / repeats as f64)
    }

    /// Runs a candidate for the first time, and lets it compete if it computes what the others do.
    fn admit(&mut self, kernel: Kernel<T>, predicted: f64) -> Result<Runner<T>> {
        self.run(&kernel)?;
        match &self.expected {
            None => self.expected = Some(self.y.clone()),
            Some(expected) => agree(expected, &self.y, self.tolerance)?,
        }
        let seconds = self.sample(&kernel, 1)?;
        let repeats = ((SAMPLE / seconds.max(1e-9)).ceil() as usize).clamp(1, 1000);
        Ok(Runner { kernel, predicted, repeats, samples: Vec::new() })
    }

    fn time(&mut self, mut runners: Vec<Runner<T>>, tuning: &Tuning, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Measured>> {
        let start = Instant::now();
        for round in 0..tuning.rounds {
            progress(Progress { stage: "timing", done: round, total: tuning.rounds });
            let extra = round >= LEAST_ROUNDS;
            if extra && start.elapsed().as_secs_f64() > tuning.seconds {
                break;
            }
            let best = runners.iter().map(Runner::median).fold(f64::INFINITY, f64::min);
            // Each round starts with another candidate, so that none always follows the same one.
            for i in 0..runners.len() {
                let r = (i + round) % runners.len();
                if extra && runners[r].median() > HOPELESS * best {
                    continue;
                }
                let seconds = self.sample(&runners[r].kernel, runners[r].repeats)?;
                runners[r].samples.push(seconds);
            }
        }
        progress(Progress { stage: "timing", done: tuning.rounds, total: tuning.rounds });
        Ok(runners.iter().map(|r| Measured { plan: r.kernel.plan().clone(), seconds: r.median(), predicted: r.predicted }).collect())
    }
}

fn elements(dims: impl Iterator<Item = usize>) -> Result<usize> {
    let dims: Vec<usize> = dims.collect();
    let product = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= isize::MAX as usize / 8);
    product.ok_or_else(|| Error::new(Kind::Tensor, format!("a tensor of shape {dims:?} does not fit into memory")))
}

/// By how much two orders of summation may part: `n` roundings of partial sums that grow like the root of `n`, as inputs are random in
/// -1 to 1, with a factor to spare.
fn tolerance<T: Element>(problem: &Deconv, weights: &[T], bias: Option<&[T]>) -> f64 {
    let eps = if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON };
    let largest = |v: &[T]| v.iter().map(|w| (*w).into().abs()).filter(|w| w.is_finite()).fold(0.0, f64::max);
    let slope = if let Activation::LeakyRelu(slope) = problem.activation { slope.abs().max(1.0) } else { 1.0 };
    let roundings = (reference::error_bound_terms(problem) as f64 + 2.0).powf(1.5);
    // The last term is for tanh and sigmoid, whose results are near 1.
    eps * (8.0 * slope * (roundings * largest(weights) + bias.map_or(0.0, largest)) + 8.0)
}

/// An error unless every output is the same within the tolerance.
fn agree<T: Element>(expected: &[T], found: &[T], tolerance: f64) -> Result<()> {
    let same = |a: f64, b: f64| a == b || (a - b).abs() <= tolerance || a.is_nan() && b.is_nan();
    match expected.iter().zip(found).position(|(a, b)| !same((*a).into(), (*b).into())) {
        None => Ok(()),
        Some(at) => {
            let (a, b): (f64, f64) = (expected[at].into(), found[at].into());
            Err(Error::new(
                Kind::Codegen,
                format!("output {at} is {b}, where the first candidate has {a}; they may differ by {tolerance:.3e}"),
            ))
        }
    }
}

/// The rank of every value; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |v: f64| values.iter().filter(|o| o.total_cmp(&v).is_lt()).count() as f64;
    let equal = |v: f64| values.iter().filter(|o| o.total_cmp(&v).is_eq()).count() as f64;
    values.iter().map(|v| below(*v) + (equal(*v) - 1.0) / 2.0).collect()
}

/// Pearson's correlation; `None` if either does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let (ma, mb) = (mean(a), mean(b));
    let product = |x: &[f64], mx: f64, y: &[f64], my: f64| x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum::<f64>();
    let scale = (product(a, ma, a, ma) * product(b, mb, b, mb)).sqrt();
    (scale > 0.0).then(|| product(a, ma, b, mb) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned(pairs: &[(f64, f64)]) -> Tuned {
        let plan: Plan = "scatter in-place oc=4 along oc x4 block 0".parse().unwrap();
        let measured = pairs.iter().map(|&(predicted, seconds)| Measured { plan: plan.clone(), seconds, predicted }).collect();
        Tuned { plan, isa: Isa::Sse2, measured, failed: Vec::new() }
    }

    #[test]
    fn correlation_is_of_ranks_and_ties_share_theirs() {
        assert_eq!(tuned(&[(1.0, 1.0), (2.0, 10.0), (3.0, 11.0)]).rank_correlation(), Some(1.0));
        assert_eq!(tuned(&[(3.0, 1.0), (2.0, 10.0), (1.0, 11.0)]).rank_correlation(), Some(-1.0));
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 9.0]), [1.5, 0.0, 1.5, 3.0]);
        assert_eq!(tuned(&[(1.0, 1.0)]).rank_correlation(), None);
        assert_eq!(tuned(&[(1.0, 1.0), (1.0, 2.0)]).rank_correlation(), None);
    }

    #[test]
    fn regret_is_the_first_choices_loss() {
        let regret = tuned(&[(1.0, 3.0), (2.0, 2.0), (3.0, 4.0)]).regret();
        assert_eq!(regret, 0.5);
        assert_eq!(tuned(&[]).regret(), 0.0);
    }

    #[test]
    fn the_best_of_every_kind_is_picked_first() {
        let problem: Deconv = "2d n1 64x32x32 -> 64 k4 s2 p1".parse().unwrap();
        let all = ranked(&problem, Isa::best().unwrap(), &Options::default(), true);
        let kinds: std::collections::HashSet<_> = all.iter().map(|r| r.plan.kind()).collect();
        let picked = pick(all.clone(), kinds.len());
        assert_eq!(picked[0], all[0]);
        assert_eq!(picked.iter().map(|r| r.plan.kind()).collect::<std::collections::HashSet<_>>(), kinds);
        assert_eq!(pick(all, 1).len(), 1);
    }

    #[test]
    fn results_that_differ_do_not_agree() {
        assert!(agree(&[1.0f32, 2.0, f32::NAN], &[1.0, 2.0 + 1e-6, f32::NAN], 1e-5).is_ok());
        let e = agree(&[1.0f32, 2.0], &[1.0, 2.1], 1e-5).unwrap_err();
        assert!(e.message.starts_with("output 1 is"), "{e}");
        assert!(agree(&[1.0f32], &[f32::NAN], 1e-5).is_err());
    }
}
