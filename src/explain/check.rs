//! Whether a layer's kernel is right, and how fast it is.
//!
//! The kernel is compiled for random weights and compared twice: with the interpreter on the same function, which must agree to the bit, and with the
//! independent reference, within the bound that rounding allows. Layers that would keep the interpreter busy for seconds are checked on an
//! instance with smaller spatial extents under the same plan, and say so. Then the kernel is timed at full size.

use super::facts::Sizes;
use crate::interp::{self, Tensors};
use crate::plan::{Plan, Rounding};
use crate::runtime::Element;
use crate::{Activation, Deconv, Elem, Error, Extent, Kernel, Kind, Options, Result, measure, reference};
use serde::Serialize;

/// Multiplications that the interpreter is asked to do.
const INTERPRETED: u128 = if cfg!(debug_assertions) { 2_000_000 } else { 60_000_000 };
/// Multiplications that the reference is asked to do.
const REFERENCED: u128 = if cfg!(debug_assertions) { 20_000_000 } else { 600_000_000 };
/// Elements of all tensors together that are allocated for a check and a timing.
const ELEMENTS: u128 = 1 << 29;
/// How long a kernel is timed, in milliseconds.
const TIMED_MS: f64 = 150.0;

/// A kernel that was compiled, checked and timed.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Plan, passes and code generation, in milliseconds.
    pub compile_ms: f64,
    /// Packing of the weights, in milliseconds.
    pub pack_ms: f64,
    /// Machine code in bytes.
    pub code_bytes: usize,
    /// Packed weights in bytes.
    pub packed_bytes: usize,
    /// The instance that the interpreter was given, if it is a smaller one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreted_instance: Option<String>,
    /// Whether interpreter and native code agree to the bit on the final IR (NaN payloads aside).
    pub equal_to_interpreter: bool,
    /// Outputs that were compared with the interpreter.
    pub outputs_interpreted: usize,
    /// The instance that the reference was given, if it is a smaller one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_instance: Option<String>,
    /// How the kernel compares with the reference.
    pub error: Deviation,
    /// Milliseconds of one run, median.
    pub run_ms: f64,
    /// Runs that were timed.
    pub runs: usize,
    /// Useful operations per nanosecond.
    pub gflops: f64,
    /// What one core's multiply-add units can do, measured just now, in GFLOP/s.
    pub peak_gflops: f64,
    /// `gflops / (peak_gflops * threads)`.
    pub share_of_peak: f64,
    /// Bytes of tensors that move at least once, per nanosecond of a run.
    pub gigabytes_per_second: f64,
}

impl Checked {
    /// Whether both checks passed.
    pub fn passed(&self) -> bool {
        self.equal_to_interpreter && self.error.within_bound
    }
}

/// How far outputs are from the reference's.
#[derive(Debug, Clone, Serialize)]
pub struct Deviation {
    /// Whether every output is within its bound.
    pub within_bound: bool,
    /// Outputs that were compared.
    pub outputs: usize,
    /// The largest error, relative to the sum of absolute products of its output; with windows, to the largest pixel times the sum of the
    /// channel's absolute weights.
    pub largest: f64,
    /// The bound on it: `(terms + 2) * eps`, times what transforms amplify it by.
    pub bound: f64,
    /// The length of the longest reduction, transforms included.
    pub terms: usize,
    /// Whether the plan transforms windows.
    pub windows: bool,
    /// What the activation may add, in units of `eps` of the output.
    pub activation_eps: f64,
}

/// Compiles, checks and times a layer.
///
/// # Errors
/// What compiling and running refuse; tensors too large to be made up.
pub fn checked(p: &Deconv, options: &Options) -> Result<Checked> {
    match p.elem {
        Elem::F32 => Run::<f32>::new(p, options)?.checked(|v| v as f32),
        Elem::F64 => Run::<f64>::new(p, options)?.checked(|v| v),
    }
}

/// Made-up values in -1..1, the same on every machine.
pub fn values(count: usize, seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// One problem with its extents known, and what is made up for it.
struct Run<'a, T> {
    p: &'a Deconv,
    options: &'a Options,
    sizes: Sizes,
    marker: std::marker::PhantomData<T>,
}

/// Tensors of one run.
struct Data<T> {
    x: Vec<T>,
    w: Vec<T>,
    bias: Option<Vec<T>>,
    outputs: usize,
}

impl<'a, T: Element + PartialEq> Run<'a, T> {
    fn new(p: &'a Deconv, options: &'a Options) -> Result<Self> {
        let sizes = Sizes::of(p)?;
        Ok(Run { p, options, sizes, marker: std::marker::PhantomData })
    }

    fn data(&self, from: fn(f64) -> T) -> Result<Data<T>> {
        let count = |shape: Vec<usize>| shape.iter().map(|d| *d as u128).fold(1, u128::saturating_mul);
        let x = count(self.p.input_shape(self.sizes.batch, &self.sizes.input)?);
        let y = count(self.p.output_shape(self.sizes.batch, &self.sizes.input)?);
        let w = count(self.p.weight_shape());
        let all = x.saturating_add(y).saturating_add(w);
        if all > ELEMENTS {
            let message =
                format!("the tensors have {all} elements; up to {ELEMENTS} are made up for a check (--plan-only explains without one)");
            return Err(Error::new(Kind::Tensor, message));
        }
        Ok(Data {
            x: values(x as usize, 1).map(from).collect(),
            w: values(w as usize, 2).map(from).collect(),
            bias: self.p.bias.then(|| values(self.p.c_out, 3).map(from).collect()),
            outputs: y as usize,
        })
    }

    fn checked(&self, from: fn(f64) -> T) -> Result<Checked> {
        let data = self.data(from)?;
        let kernel = self.p.compile::<T>(&data.w, data.bias.as_deref(), self.options)?;
        let mut y = vec![T::NAN; data.outputs];
        self.run(&kernel, &data, &mut y)?;

        let (equal_to_interpreter, outputs_interpreted, interpreted_instance) = match self.smaller(INTERPRETED) {
            None => (self.interpreted(&kernel, &data, &y)?, y.len(), None),
            Some(small) => {
                let (equal, outputs, _) = self.on_smaller(&small, &kernel, from, true)?;
                (equal, outputs, Some(small.to_string()))
            }
        };
        let (error, reference_instance) = match self.smaller(REFERENCED) {
            None => (self.deviation(self.plan(&kernel), &data, &y)?, None),
            Some(small) => (self.on_smaller(&small, &kernel, from, false)?.2, Some(small.to_string())),
        };
        let mut failed = None;
        let timing = measure::time(|| failed = self.run(&kernel, &data, &mut y).err(), TIMED_MS);
        if let Some(e) = failed {
            return Err(e);
        }
        let (run_ms, runs) = (timing.median * 1e3, timing.iters);
        let per_ns = |n: u128| n as f64 / (run_ms * 1e6);
        let gflops = per_ns(self.p.flops_useful(self.sizes.batch, &self.sizes.input));
        let peak_gflops = measure::fma_peak(kernel.isa(), self.p.elem);
        Ok(Checked {
            compile_ms: kernel.report().compile.as_secs_f64() * 1e3,
            pack_ms: kernel.report().pack.as_secs_f64() * 1e3,
            code_bytes: kernel.report().code_bytes,
            packed_bytes: kernel.report().packed_bytes,
            interpreted_instance,
            equal_to_interpreter,
            outputs_interpreted,
            reference_instance,
            error,
            run_ms,
            runs,
            gflops,
            peak_gflops,
            share_of_peak: if peak_gflops > 0.0 { gflops / (peak_gflops * self.options.threads as f64) } else { 0.0 },
            gigabytes_per_second: per_ns(self.p.bytes_io(self.sizes.batch, &self.sizes.input)),
        })
    }

    fn run(&self, kernel: &Kernel<T>, data: &Data<T>, y: &mut [T]) -> Result<()> {
        kernel.run_sized(self.sizes.batch, &self.sizes.input, data.x.as_slice(), y)
    }

    /// The problem with halved extents until it has at most `most` multiplications; `None` if it has no more as it is.
    fn smaller(&self, most: u128) -> Option<Deconv> {
        let (mut batch, mut input) = (self.sizes.batch, self.sizes.input.clone());
        if self.p.useful_macs(batch, &input) <= most {
            return None;
        }
        while self.p.useful_macs(batch, &input) > most {
            let (at, largest) = input.iter().copied().enumerate().max_by_key(|e| e.1)?;
            let halved = self.p.open_extents();
            let mut shorter = input.clone();
            shorter[at] = largest.div_ceil(2);
            if batch > 1 {
                batch = 1;
            } else if largest > 1 && halved.output_spatial(batch, &shorter).is_ok() {
                input = shorter;
            } else {
                break;
            }
        }
        let fixed = input.into_iter().map(Extent::Fixed).collect();
        Some(Deconv { batch: Extent::Fixed(batch), input: fixed, ..self.p.clone() })
    }

    /// Compiles a smaller instance under the same plan and checks it: with the interpreter if asked to, and with the reference.
    fn on_smaller(&self, small: &Deconv, kernel: &Kernel<T>, from: fn(f64) -> T, interpret: bool) -> Result<(bool, usize, Deviation)> {
        let options = Options { plan: Some(self.plan(kernel).clone()), form: None, isa: Some(kernel.isa()), ..self.options.clone() };
        let run = Run::<T>::new(small, &options)?;
        let data = run.data(from)?;
        let kernel = small.compile::<T>(&data.w, data.bias.as_deref(), &options)?;
        let mut y = vec![T::NAN; data.outputs];
        run.run(&kernel, &data, &mut y)?;
        let equal = !interpret || run.interpreted(&kernel, &data, &y)?;
        Ok((equal, y.len(), run.deviation(run.plan(&kernel), &data, &y)?))
    }

    /// The plan that runs for these sizes.
    fn plan<'k>(&self, kernel: &'k Kernel<T>) -> &'k Plan {
        &kernel.version_for(&self.sizes.input).choice().plan
    }

    /// Whether the interpreter gets the same bits from the function that the kernel was made of.
    fn interpreted(&self, kernel: &Kernel<T>, data: &Data<T>, y: &[T]) -> Result<bool> {
        let mut expected = vec![T::NAN; y.len()];
        let symbols: Vec<i64> = self.sizes.symbols.iter().map(|s| *s as i64).collect();
        let tensors = Tensors { input: &data.x, weight: &data.w, bias: data.bias.as_deref(), output: &mut expected };
        interp::execute(kernel.version_for(&self.sizes.input).func(), &symbols, tensors)?;
        Ok(same_bits(&expected, y))
    }

    fn deviation(&self, plan: &Plan, data: &Data<T>, y: &[T]) -> Result<Deviation> {
        let (batch, input) = (self.sizes.batch, &self.sizes.input);
        let bias = data.bias.as_deref();
        let exact = reference::deconv(self.p, batch, input, &data.x, &data.w, bias)?;
        let rounding = Rounding::of(self.p, plan);
        let scale = rounding.scale(self.p, batch, input, &data.x, &data.w, bias)?;
        let terms = rounding.terms - 2;
        let eps = if self.p.elem == Elem::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let bound = rounding.epsilons() * eps;
        // What the activation does to an error, and what it adds to it.
        let (factor, own) = match self.p.activation {
            Activation::LeakyRelu(slope) => (slope.abs().max(1.0), eps),
            Activation::Tanh | Activation::Sigmoid => (1.0, 4.0 * eps),
            _ => (1.0, 0.0),
        };
        let (mut largest, mut within_bound) = (0.0f64, exact.len() == y.len());
        for ((e, s), y) in exact.iter().zip(&scale).zip(y) {
            let off = (e - (*y).into()).abs();
            within_bound &= off <= bound * factor * s + own * e.abs();
            if *s > 0.0 {
                largest = largest.max(off / s);
            }
        }
        Ok(Deviation { within_bound, outputs: y.len(), largest, bound, terms, windows: rounding.windows, activation_eps: own / eps })
    }
}

/// Equal to the bit; NaN equals NaN.
pub(super) fn same_bits<T: Element>(a: &[T], b: &[T]) -> bool {
    // Widening is exact and keeps the sign of zero.
    let bits = |v: T| -> u64 {
        let v: f64 = v.into();
        if v.is_nan() { u64::MAX } else { v.to_bits() }
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bits(*a) == bits(*b))
}
