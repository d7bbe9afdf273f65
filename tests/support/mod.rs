//! What the behavioural tests share: fills, one problem with its tensors, every way to compute it, and comparisons.
//!
//! *Integer fills* are small enough that every sum is exact, so results must be equal whatever the order. *Real fills* round, so only
//! evaluators of the same IR must agree, to the bit; all of them lie within the stated bound of the reference.

#![allow(dead_code)]

use polyphase::codegen::target::Isa;
use polyphase::interp::{self, Tensors};
use polyphase::ir::Func;
use polyphase::plan::{Plan, Rounding};
use polyphase::{Activation, Deconv, Element, Extent, Kernel, Merge, Options, Result, reference};
use std::fmt::Display;

/// An element type, with what comparisons need of it.
pub trait Num: Element + PartialEq + Display {
    /// Distance from 1 to the next number.
    const EPS: f64;
    /// Smallest positive normal number.
    const TINY: f64;
    fn of(v: f64) -> Self;
    /// The bits; every NaN gives the same.
    fn bits(self) -> u64;
}
impl Num for f32 {
    const EPS: f64 = f32::EPSILON as f64;
    const TINY: f64 = f32::MIN_POSITIVE as f64;
    fn of(v: f64) -> Self {
        v as f32
    }
    fn bits(self) -> u64 {
        if self.is_nan() { u64::MAX } else { self.to_bits().into() }
    }
}
impl Num for f64 {
    const EPS: f64 = f64::EPSILON;
    const TINY: f64 = f64::MIN_POSITIVE;
    fn of(v: f64) -> Self {
        v
    }
    fn bits(self) -> u64 {
        if self.is_nan() { u64::MAX } else { self.to_bits() }
    }
}

/// Numbers from 0 to 2³¹ - 1, the same for a seed on every machine.
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        s >> 33
    }
}

/// What tensors are filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Integers from -3 to 3.
    Ints,
    /// Reals from -1 to 1.
    Reals,
}

/// So many numbers.
pub fn filled<T: Num>(n: usize, fill: Fill, seed: u64) -> Vec<T> {
    let mut next = random(seed);
    let mut one = || match fill {
        Fill::Ints => (next() % 7) as f64 - 3.0,
        Fill::Reals => next() as f64 / (1u64 << 30) as f64 - 1.0,
    };
    (0..n).map(|_| T::of(one())).collect()
}

/// A problem at one size with its tensors.
#[derive(Clone)]
pub struct Case<T> {
    pub problem: Deconv,
    pub batch: usize,
    pub spatial: Vec<usize>,
    pub x: Vec<T>,
    pub w: Vec<T>,
    pub bias: Option<Vec<T>>,
}

impl<T: Num> Case<T> {
    /// With open extents given; fixed ones must agree.
    pub fn sized(problem: &Deconv, batch: usize, spatial: &[usize], fill: Fill, seed: u64) -> Self {
        let input = problem.input_shape(batch, spatial).unwrap_or_else(|e| panic!("{problem}: {e}"));
        Case {
            problem: problem.clone(),
            batch,
            spatial: spatial.to_vec(),
            x: filled(input.iter().product(), fill, seed),
            w: filled(problem.weight_shape().iter().product(), fill, seed + 1),
            bias: problem.bias.then(|| filled(problem.c_out, fill, seed + 2)),
        }
    }
    /// Of a problem without open extents.
    pub fn new(problem: &Deconv, fill: Fill, seed: u64) -> Self {
        let (batch, spatial) = problem.fixed_shape().expect("no extent is open");
        Case::sized(problem, batch, &spatial, fill, seed)
    }
    pub fn output_len(&self) -> usize {
        self.problem.output_shape(self.batch, &self.spatial).unwrap().iter().product()
    }
    /// The values of the open extents, in the order of the symbols.
    pub fn symbols(&self) -> Vec<i64> {
        let p = &self.problem;
        let all = std::iter::once((&p.batch, self.batch)).chain(p.input.iter().zip(self.spatial.iter().copied()));
        all.filter(|(e, _)| matches!(e, Extent::Open(_))).map(|(_, v)| v as i64).collect()
    }
    pub fn reference(&self) -> Vec<f64> {
        reference::deconv(&self.problem, self.batch, &self.spatial, &self.x, &self.w, self.bias.as_deref()).unwrap()
    }
    /// How far from the reference each result of a plan may lie.
    pub fn bounds(&self, rounding: &Rounding) -> Vec<f64> {
        let scale = rounding.scale(&self.problem, self.batch, &self.spatial, &self.x, &self.w, self.bias.as_deref()).unwrap();
        let terms = rounding.epsilons();
        // An activation does not spread errors; tanh, sigmoid and a slope add roundings of their own, which is below 4 ulp of at most 1.
        let own = if self.problem.activation == Activation::None { 0.0 } else { 4.0 * T::EPS };
        scale.iter().map(|m| (terms * T::EPS + own) * m + own + T::TINY).collect()
    }
    /// Whether integer fills leave nothing to round.
    pub fn exact(&self) -> bool {
        let smooth = matches!(self.problem.activation, Activation::Tanh | Activation::Sigmoid);
        // A mean is rounded once, as the reference's is when it is converted; a sum with the bias then rounds again.
        !(smooth || self.problem.merge == Merge::Mean && self.problem.bias)
    }
    pub fn interpret(&self, func: &Func) -> Vec<T> {
        let mut y = vec![T::of(f64::NAN); self.output_len()];
        let tensors = Tensors { input: &self.x, weight: &self.w, bias: self.bias.as_deref(), output: &mut y };
        interp::execute(func, &self.symbols(), tensors).unwrap_or_else(|e| panic!("{}: {e}\n{func}", self.problem));
        y
    }
    pub fn compile(&self, options: &Options) -> Result<Kernel<T>> {
        self.problem.compile(&self.w, self.bias.as_deref(), options)
    }
    /// A kernel; that there is none is a failure.
    pub fn kernel(&self, options: &Options) -> Kernel<T> {
        self.compile(options).unwrap_or_else(|e| panic!("{} with {options:?}: {e}", self.problem))
    }
    /// Runs a kernel; every output is NaN before.
    pub fn run(&self, kernel: &Kernel<T>) -> Vec<T> {
        let mut y = vec![T::of(f64::NAN); self.output_len()];
        kernel.run_sized(self.batch, &self.spatial, &self.x, &mut y).unwrap_or_else(|e| panic!("{}: {e}", self.problem));
        y
    }
}

/// `plan @ level`, for messages.
pub fn label<T: Element>(kernel: &Kernel<T>) -> String {
    format!("{} @ {} for {}", kernel.plan(), kernel.isa(), kernel.problem())
}

/// Results of the same IR: equal to the bit.
pub fn same_bits<T: Num>(what: &str, want: &[T], got: &[T]) {
    assert_eq!(want.len(), got.len(), "{what}");
    let bad = want.iter().zip(got).position(|(a, b)| a.bits() != b.bits());
    if let Some(i) = bad {
        panic!("{what}: output {i} is {:e}, not {:e}", got[i].into(), want[i].into());
    }
}

/// Results of a plan against the reference: equal where nothing rounds, within the bound elsewhere. NaN and infinities must be where the reference
/// has them.
pub fn like_reference<T: Num>(what: &str, case: &Case<T>, plan: &Plan, exact: bool, got: &[T]) {
    let want = case.reference();
    let rounding = Rounding::of(&case.problem, plan);
    let exact = exact && rounding.exact_on_integers;
    let bounds = if exact { Vec::new() } else { case.bounds(&rounding) };
    assert_eq!(want.len(), got.len(), "{what}");
    for (i, (w, g)) in want.iter().zip(got).enumerate() {
        let rounded: f64 = T::of(*w).into();
        let g: f64 = (*g).into();
        let ok = rounded == g || w.is_nan() && g.is_nan() || !exact && rounded.is_finite() && (g - w).abs() <= bounds[i];
        assert!(ok, "{what}: output {i} is {g:e}; the reference is {w:e}{}", if exact { ", exactly" } else { "" });
    }
}

/// A plan from the line that it prints as, for a problem of that many axes; without blocks, each axis is one block.
pub fn plan(text: &str, rank: usize) -> Plan {
    let text = if text.contains("block") { text.to_string() } else { format!("{text} block {}", vec!["0"; rank].join("x")) };
    let plan: Plan = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(plan.to_string(), text, "a plan is written as it prints");
    plan
}

/// The levels of this machine.
pub fn levels() -> Vec<Isa> {
    let levels = Isa::detected();
    assert!(!levels.is_empty(), "code generation has a level on this machine");
    levels
}

/// Options with a level.
pub fn at(isa: Isa) -> Options {
    Options { isa: Some(isa), ..Options::default() }
}

/// Runs every check, and fails with what each failing one said.
pub fn all_hold(checks: impl IntoIterator<Item = (String, Box<dyn FnOnce()>)>) {
    let mut failed = Vec::new();
    let mut count = 0;
    for (what, check) in checks {
        count += 1;
        if let Err(e) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
            let said = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
            failed.push(format!("{what}: {}", said.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} of {count} failed:\n\n{}", failed.len(), failed.join("\n\n"));
}
