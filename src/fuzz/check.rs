//! One case, checked everywhere.
//!
//! *Needs* a [`Case`]; *leaves* nothing, or a [`Failure`] that says what parted and after which pass. What is demanded:
//!
//! 1. Native code equals the interpreter on the same function to the bit (NaN payloads aside), and touches nothing but its output.
//! 2. Any number of threads gives the same bits.
//! 3. The result equals the reference: exactly where integers make every sum exact, else within rounding.
//! 4. Every stage, from the naive nest on, does so too (small integer cases; when anything fails, all stages are tried).

use super::data::{Data, Guarded};
use super::{Case, Fill};
use crate::interp::{Tensors, execute};
use crate::plan::{Plan, Rounding};
use crate::problem::{Activation, Merge};
use crate::runtime::Element;
use crate::{Elem, Error, Kernel, Kind, Options, Result, ir::Func, passes, plan, reference};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cases with at most so many multiplications, zeros included, have every stage interpreted.
const STAGES: u128 = 40_000;
/// When something has failed, every stage of larger cases is interpreted too.
const BISECT: u128 = 400_000_000;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// The problem could not be compiled or run.
    Error,
    /// Something panicked.
    Panic,
    /// Native code and interpreter differ.
    Native,
    /// Memory outside the output was written.
    Guard,
    /// The number of threads changed the result.
    Threads,
    /// The result is not that of the reference.
    Reference,
    /// A stage does not compute what the reference does.
    Stage,
}

/// A case that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// What failed.
    pub what: What,
    /// How, as a sentence.
    pub message: String,
    /// The first pass after which the function is wrong, `native code` if none is; empty if that could not be found out.
    pub parted: String,
}

impl Failure {
    /// What failures of one cause have in common: the end of the sentence of an error, or the pass at which results part; without numbers.
    pub fn kind(&self) -> (What, String) {
        let words = match self.what {
            What::Error | What::Panic => self.message.rsplit(": ").next(),
            _ => self.parted.split('(').next(),
        };
        (self.what, words.unwrap_or("").chars().filter(|c| !c.is_ascii_digit()).collect())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.case, self.message)?;
        if !self.parted.is_empty() {
            write!(f, "\n  results part at: {}", self.parted)?;
        }
        Ok(())
    }
}

/// What failed and how, before the stages have been searched.
type Fault = (What, String);

/// Checks one case. Panics within it become failures.
///
/// # Errors
/// The failure, with the first pass at which results part. It is boxed: it carries the problem.
pub fn check(case: &Case) -> std::result::Result<(), Box<Failure>> {
    let checked = guarded(|| match case.problem.elem {
        Elem::F32 => whole::<f32>(case),
        Elem::F64 => whole::<f64>(case),
    });
    let (what, message) = match checked {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(fault)) => fault,
        Err(panic) => (What::Panic, panic),
    };
    let parted = guarded(|| match case.problem.elem {
        Elem::F32 => parted::<f32>(case),
        Elem::F64 => parted::<f64>(case),
    });
    // An error of a pass has named it already.
    let parted = parted.ok().filter(|p| !message.contains(p.as_str())).unwrap_or_default();
    Err(Box::new(Failure { case: case.clone(), what, message, parted }))
}

/// What `f` gives, or the words of its panic.
fn guarded<R>(f: impl FnOnce() -> R) -> std::result::Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let words = payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
        format!("panicked: {}", words.unwrap_or_else(|| "without a message".into()))
    })
}

fn whole<T: Element>(case: &Case) -> std::result::Result<(), Fault> {
    let error = |doing: &str| {
        let doing = doing.to_string();
        move |e: Error| (What::Error, format!("{doing} failed: {e}"))
    };
    let data = Data::<T>::new(case).map_err(error("making the tensors"))?;
    let plan = plan_of(case, &data).map_err(error("compile"))?;
    let expected = Expected::new(case, &plan, &data).map_err(error("the reference"))?;
    let compile = |options: &Options| case.problem.compile::<T>(&data.w, data.bias.as_deref(), options).map_err(error("compile"));
    // The interpreter goes first: it refuses accesses out of bounds, which would bring native code, and this process, down.
    let func = lowered(case, &data).map_err(error("compile"))?.pop().expect("the table of passes is not empty").func;
    let interpreted = interpret(&func, case, &data).map_err(error("interpreting the last stage"))?;
    let options = options_for(case, &data);
    let kernel = compile(&options)?;
    let version = kernel.version_for(&data.spatial);
    if *version.func() != func {
        return Err((What::Native, "compiling the problem twice gives different functions".into()));
    }
    let y = native(&kernel, case, &data)?;
    if let Some(at) = differ(&interpreted, y.slice()) {
        let (n, i) = (y.slice()[at], interpreted[at]);
        return Err((What::Native, format!("output {} of native code is {n:?}, of the interpreter {i:?}; plan {plan}", data.place(at))));
    }
    if let Some(message) = expected.judge(&data, y.slice()) {
        return Err((What::Reference, format!("{message}; plan {plan}")));
    }
    if case.threads > 1 {
        let single = compile(&Options { threads: 1, ..options })?;
        let alone = native(&single, case, &data)?;
        if let Some(at) = differ(alone.slice(), y.slice()) {
            let (n, i) = (y.slice()[at], alone.slice()[at]);
            let alone = &single.version_for(&data.spatial).choice().plan;
            let plans = format!("plan {plan} on {} threads, {alone} on one", case.threads);
            return Err((What::Threads, format!("output {} is {n:?}, on one thread {i:?}; {plans}", data.place(at))));
        }
    }
    if case.fill == Fill::Integers && case.problem.dense_macs(data.batch, &data.spatial) <= STAGES {
        let wrong = first_wrong(case, &data, &expected).map_err(error("lowering"))?;
        if let Some((pass, message)) = wrong {
            return Err((What::Stage, format!("after {pass}: {message}; plan {plan}")));
        }
    }
    Ok(())
}

/// The kernel's output, between guards that have held.
fn native<T: Element>(kernel: &Kernel<T>, case: &Case, data: &Data<T>) -> std::result::Result<Guarded<T>, Fault> {
    let mut y = Guarded::output(data.outputs(), case.seed / 5);
    let done = kernel.run_sized(data.batch, &data.spatial, data.x.slice(), y.slice_mut());
    done.map_err(|e| (What::Error, format!("run failed: {e}")))?;
    match y.breach() {
        None => Ok(y),
        Some(at) => {
            let side = if at < 0 { "before the output" } else { "behind the output" };
            let plan = &kernel.version_for(&data.spatial).choice().plan;
            Err((What::Guard, format!("native code wrote {} elements {side}; plan {plan}", at.abs())))
        }
    }
}

fn interpret<T: Element>(func: &Func, case: &Case, data: &Data<T>) -> Result<Vec<T>> {
    let mut output = vec![T::from_f64(f64::NAN); data.outputs()];
    let symbols: Vec<i64> = case.extents.iter().map(|v| *v as i64).collect();
    let tensors = Tensors { input: data.x.slice(), weight: &data.w, bias: data.bias.as_deref(), output: &mut output };
    execute(func, &symbols, tensors)?;
    Ok(output)
}

/// The first place at which two results differ in a bit; all NaN are one.
fn differ<T: Element>(a: &[T], b: &[T]) -> Option<usize> {
    let bits = |v: T| if v.to_f64().is_nan() { u64::MAX } else { v.to_f64().to_bits() };
    a.iter().zip(b).position(|(a, b)| bits(*a) != bits(*b))
}

/// Every stage, as compilation goes through them.
fn lowered<T: Element>(case: &Case, data: &Data<T>) -> Result<Vec<passes::Snapshot>> {
    passes::snapshots(&case.problem, &plan_of(case, data)?)
}

fn plan_of<T: Element>(case: &Case, data: &Data<T>) -> Result<Plan> {
    let finite = data.w.iter().all(|w| w.to_f64().is_finite());
    Ok(plan::version_for(&case.problem, &data.spatial, case.isa, &options_for(case, data), finite)?.choice.plan)
}

/// The options of a case; an algorithm or a plan is dropped where these weights forbid it, or where its tile has no room.
fn options_for<T: Element>(case: &Case, data: &Data<T>) -> Options {
    let finite = data.w.iter().all(|w| w.to_f64().is_finite());
    let options = case.options();
    let chosen = plan::choose(&case.problem, case.isa, &options, finite);
    let fits = |plan: &Plan| {
        let func = passes::lower_problem(&case.problem, plan)?;
        crate::codegen::tiles_fit(&func, case.isa)
    };
    // What a plan may not ask for; any other error is a fault, which the check will meet.
    let fits = |plan: &Plan| fits(plan).unwrap_or_else(|e| e.kind != Kind::Options);
    match chosen {
        Ok(c) if case.plan.is_none() || fits(&c.plan) => options,
        Err(_) if case.plan.is_none() && case.algorithm.is_none() => options,
        _ => Options { algorithm: None, plan: None, ..options },
    }
}

/// The first stage, the naive nest included, whose result is wrong.
fn first_wrong<T: Element>(case: &Case, data: &Data<T>, expected: &Expected) -> Result<Option<(&'static str, String)>> {
    for stage in lowered(case, data)? {
        let wrong = match interpret(&stage.func, case, data) {
            Ok(y) => expected.judge(data, &y),
            Err(e) => Some(format!("the interpreter says {e}")),
        };
        if let Some(message) = wrong {
            return Ok(Some((stage.pass, message)));
        }
    }
    Ok(None)
}

/// Where results part: the name of a pass, or `native code`.
fn parted<T: Element>(case: &Case) -> String {
    let search = || -> Result<String> {
        let data = Data::<T>::new(case)?;
        if case.problem.dense_macs(data.batch, &data.spatial) > BISECT {
            return Ok(String::new());
        }
        let expected = Expected::new(case, &plan_of(case, &data)?, &data)?;
        Ok(match first_wrong(case, &data, &expected)? {
            Some((pass, message)) => format!("pass {pass} ({message})"),
            None => "native code".into(),
        })
    };
    search().unwrap_or_else(|e| e.message)
}

impl<T: Element> Data<T> {
    /// The index of an output in its shape.
    fn place(&self, at: usize) -> String {
        let (mut rest, mut index) = (at, Vec::new());
        for extent in self.out.iter().rev() {
            index.push(rest % extent);
            rest /= extent;
        }
        index.reverse();
        format!("{index:?} of {:?}", self.out)
    }
}

/// What the reference says, with the error that each output may have.
struct Expected {
    y: Vec<f64>,
    bound: Vec<f64>,
    /// Whether NaN and infinity reach neighbours: then the reference says nothing about special values.
    spreads: bool,
}

impl Expected {
    fn new<T: Element>(case: &Case, plan: &Plan, data: &Data<T>) -> Result<Expected> {
        let (p, batch, spatial) = (&case.problem, data.batch, &data.spatial[..]);
        let (x, w, bias) = (data.x.slice(), &data.w[..], data.bias.as_deref());
        let y = reference::deconv(p, batch, spatial, x, w, bias)?;
        let (eps, tiny) = match p.elem {
            Elem::F32 => (f64::from(f32::EPSILON), f64::from(f32::from_bits(1))),
            Elem::F64 => (f64::EPSILON, f64::from_bits(1)),
        };
        // How much of an error before the activation is left after it, and what the activation adds, in ulp.
        let (slope, ulps) = match p.activation {
            Activation::None | Activation::Relu | Activation::Clamp(..) => (1.0, 0.0),
            Activation::LeakyRelu(s) => (s.abs().max(1.0), if s.abs().log2().fract() == 0.0 { 0.0 } else { 2.0 }),
            Activation::Tanh | Activation::Sigmoid => (1.0, 4.0),
        };
        let ulps = ulps + if p.merge == Merge::Mean { 4.0 } else { 0.0 };
        let rounding = Rounding::of(p, plan);
        let terms = rounding.epsilons();
        let bound = if case.fill == Fill::Integers && p.merge != Merge::Mean && rounding.exact_on_integers {
            // Sums are exact, and so is what the activation is given.
            y.iter().map(|y| ulps * (eps * y.abs() + tiny)).collect()
        } else {
            // Where infinities meet, the magnitude is infinite; the largest finite products bound it as well.
            let most = |v: &[T]| v.iter().map(|v| v.to_f64().abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
            let crude = terms * most(x) * most(w) + bias.map_or(0.0, most);
            let magnitude = rounding.scale(p, batch, spatial, x, w, bias)?;
            let scale = magnitude.iter().map(|m| if m.is_finite() { *m } else { crude });
            scale.zip(&y).map(|(m, y)| slope * terms * (eps * m + tiny) + ulps * (eps * y.abs() + tiny)).collect()
        };
        Ok(Expected { y, bound, spreads: rounding.windows && case.fill == Fill::Special })
    }

    /// The first output that is wrong, as a sentence.
    fn judge<T: Element>(&self, data: &Data<T>, y: &[T]) -> Option<String> {
        if self.spreads {
            return None;
        }
        let wrong = |(y, (r, bound)): (&T, (&f64, &f64))| {
            let y = y.to_f64();
            match () {
                () if r.is_nan() || y.is_nan() => r.is_nan() != y.is_nan(),
                () if r.is_infinite() || y.is_infinite() => *r != y,
                () => (y - r).abs() > *bound,
            }
        };
        let at = y.iter().zip(self.y.iter().zip(&self.bound)).position(wrong)?;
        let (y, r, bound) = (y[at], self.y[at], self.bound[at]);
        Some(format!("output {} is {y:?}, of the reference {r:?} (error allowed {bound:.1e})", data.place(at)))
    }
}
