//! The same checks for a function in the IR: verify, interpret, compile from that stage, compare to the bit, time.
//!
//! *Needs* a function at any stage, and values for its symbols. Functions that would run for minutes, need more memory than a layer has any use
//! for, or whose indices 64 bits might not hold, are refused before anything runs. What the target lacks (`tanh`, `sigmoid`, fused multiply-add without FMA) is replaced as the last
//! pass does it, and the interpreter runs the result of that, so that bits can be compared.

use super::bounds;
use super::check::{same_bits, values};
use crate::codegen::cranelift::{self, Native};
use crate::codegen::target::Isa;
use crate::interp::{Counts, Tensors, execute_counted};
use crate::ir::{Affine, Atom, BufferKind, Elem, Func, Stmt};
use crate::passes::lower;
use crate::plan::{self, Plan};
use crate::runtime::Element;
use crate::{Deconv, Error, Kind, Options, Result, measure};
use serde::Serialize;
use std::time::Instant;

/// Statements that the interpreter is asked to execute.
const STATEMENTS: f64 = if cfg!(debug_assertions) { 2e7 } else { 5e8 };
/// Bytes of all buffers together.
const BYTES: u64 = 1 << 31;
/// What a symbol is taken to be if nothing is said.
pub const EXAMPLE: i64 = 8;

/// What is known of a function after it was run both ways.
#[derive(Debug, Clone, Serialize)]
pub struct IrReport {
    /// Where it came from.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// Its element type.
    pub elem: &'static str,
    /// The values of its symbols.
    pub symbols: Vec<(String, i64)>,
    /// Its buffers: name, kind, extents.
    pub buffers: Vec<(String, String, Vec<i64>)>,
    /// The verifier found nothing (a function that it refuses is an error instead).
    pub verified: bool,
    /// Multiplications that `run` executed.
    pub multiplications: u64,
    /// Elements that it read.
    pub loads: u64,
    /// Elements that it wrote.
    pub stores: u64,
    /// The level that it was compiled for.
    pub isa: &'static str,
    /// Milliseconds of code generation.
    pub compile_ms: f64,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Whether interpreter and native code agree to the bit (NaN payloads aside).
    pub equal_to_interpreter: bool,
    /// Outputs that were compared.
    pub outputs: usize,
    /// The first output that differs: its position, the interpreter's value, the native one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<(usize, f64, f64)>,
    /// Milliseconds of one native run on one thread, median.
    pub run_ms: f64,
    /// Two operations per multiplication, per nanosecond.
    pub gflops: f64,
    /// The core's FMA peak in GFLOP/s, measured just now.
    pub peak_gflops: f64,
}

/// Verifies, interprets, compiles and compares a function. `given` has values of symbols by name; the others are 8.
///
/// # Errors
/// What the verifier, the interpreter and code generation refuse; symbols that the function does not have; functions that are too much to run.
pub fn function(name: &str, func: &Func, given: &[(String, i64)], isa: Option<Isa>) -> Result<IrReport> {
    func.verify()?;
    let isa = match isa {
        Some(isa) => isa,
        None => Isa::best()?,
    };
    if let Some((unknown, _)) = given.iter().find(|g| !func.symbols.iter().any(|s| s.as_str() == g.0)) {
        let legal: Vec<&str> = func.symbols.iter().map(|s| s.as_str()).collect();
        return Err(Error::new(Kind::Options, format!("the function has no symbol {unknown}; it has [{}]", legal.join(", "))));
    }
    let value = |s: &str| given.iter().find(|g| g.0 == s).map_or(EXAMPLE, |g| g.1);
    let symbols: Vec<i64> = func.symbols.iter().map(|s| value(s.as_str())).collect();
    if let Some(v) = symbols.iter().find(|v| !(0..=1 << 31).contains(*v)) {
        return Err(Error::new(Kind::Options, format!("a symbol is {v}; 0 to {} are legal", 1u64 << 31)));
    }
    let lowered = lowered(func, isa)?;
    let run = IrRun { func: &lowered, values: lowered.with_counts(&symbols), isa };
    bounds::check(&lowered, &run.values)?;
    run.affordable()?;
    match func.elem {
        Elem::F32 => run.report::<f32>(name, func, |v| v as f32),
        Elem::F64 => run.report::<f64>(name, func, |v| v),
    }
}

/// Runs a function natively on the caller's tensors, on one thread. The interpreter goes first: it refuses every access out of bounds, which
/// native code would carry out.
///
/// # Errors
/// [`Kind::Ir`] if the function breaks a rule, [`Kind::Tensor`] if a tensor does not fit it.
pub fn compute<T: Element>(func: &Func, symbols: &[i64], isa: Isa, tensors: Tensors<'_, T>) -> Result<()> {
    func.verify()?;
    let func = lowered(func, isa)?;
    bounds::check(&func, &func.with_counts(symbols))?;
    let Tensors { input, weight, bias, output } = tensors;
    execute_counted(&func, symbols, Tensors { input, weight, bias, output: &mut *output })?;
    let native = cranelift::compile(&func, isa)?;
    let given = [(BufferKind::Input, input), (BufferKind::Weight, weight), (BufferKind::Bias, bias.unwrap_or(&[]))];
    IrRun { func: &func, values: func.with_counts(symbols), isa }.native(&native, &given, output, 0.0)?;
    Ok(())
}

/// The function with only the operations that the level has, as code generation takes it. Of the plan only `fma` matters.
///
/// # Errors
/// What the pass refuses.
pub fn lowered(func: &Func, isa: Isa) -> Result<Func> {
    let any: Deconv = "1d n1 1x1 -> 1 k1".parse()?;
    let plan = Plan { fma: isa.fma(), ..plan::choose(&any, isa, &Options::default(), true)?.plan };
    Ok(lower::run(func, &plan)?.unwrap_or_else(|| func.clone()))
}

struct IrRun<'a> {
    func: &'a Func,
    /// Of symbols and counts.
    values: Vec<i64>,
    isa: Isa,
}

/// Scratch and packed buffers start at a multiple of this many bytes.
const LINE: usize = 64;

impl IrRun<'_> {
    fn eval(&self, a: &Affine) -> i64 {
        a.eval(&mut |atom| match atom {
            Atom::Sym(s) => self.func.all_symbols().position(|n| n == s).map_or(0, |i| self.values[i]),
            _ => 0,
        })
    }

    /// The increment of a loop.
    fn step(&self, l: &crate::ir::Loop) -> i64 {
        l.step.saturating_mul(l.times.as_ref().map_or(1, |s| self.eval(&Affine::sym(s)))).max(1)
    }

    /// Elements of a buffer.
    fn len(&self, dims: &[Affine]) -> u64 {
        dims.iter().fold(1u64, |n, d| n.saturating_mul(self.eval(d).max(0) as u64))
    }

    /// Refuses what would take too long or too much memory.
    fn affordable(&self) -> Result<()> {
        let bytes = self.func.buffers.iter().fold(0u64, |n, b| n.saturating_add(self.len(&b.dims).saturating_mul(b.elem.bytes() as u64)));
        if bytes > BYTES {
            return Err(Error::new(Kind::Options, format!("its buffers have {bytes} bytes; up to {BYTES} are made up for a check")));
        }
        let statements = self.statements(&self.func.prepare) + self.statements(&self.func.run);
        if statements > STATEMENTS {
            let message = format!("it executes about {statements:.1e} statements; up to {STATEMENTS:.0e} are interpreted for a check");
            return Err(Error::new(Kind::Options, message));
        }
        Ok(())
    }

    /// About how many statements run: bounds are taken where outer variables are 0, guards as passed.
    fn statements(&self, body: &[Stmt]) -> f64 {
        let one = |s: &Stmt| match s {
            Stmt::For(l) => {
                let bound = |all: &[Affine], pick: fn(i64, i64) -> i64| all.iter().map(|a| self.eval(a)).reduce(pick).unwrap_or(0);
                let span = bound(&l.hi, i64::min).saturating_sub(bound(&l.lo, i64::max));
                (span.max(1) as f64 / self.step(l) as f64).max(1.0) * (1.0 + self.statements(&l.body))
            }
            other => 1.0 + other.body().map_or(0.0, |b| self.statements(b)),
        };
        body.iter().map(one).sum()
    }

    fn report<T: Element>(&self, name: &str, original: &Func, from: fn(f64) -> T) -> Result<IrReport> {
        let of_kind = |kind| self.func.buffers.iter().find(|b| b.kind == kind);
        let made = |kind, seed| -> Option<Vec<T>> {
            let len = self.len(&of_kind(kind)?.dims) as usize;
            Some(values(len, seed).map(from).collect())
        };
        let (x, w, bias) = (made(BufferKind::Input, 1), made(BufferKind::Weight, 2), made(BufferKind::Bias, 3));
        let outputs = of_kind(BufferKind::Output).map_or(0, |b| self.len(&b.dims) as usize);
        let (mut expected, mut y) = (vec![T::NAN; outputs], vec![T::NAN; outputs]);
        let input = x.as_deref().unwrap_or(&[]);
        let weight = w.as_deref().unwrap_or(&[]);
        // The interpreter goes first: it refuses every access out of bounds, which native code would carry out.
        let tensors = Tensors { input, weight, bias: bias.as_deref(), output: &mut expected };
        let counts: Counts = execute_counted(self.func, &self.values[..self.func.symbols.len()], tensors)?;

        let start = Instant::now();
        let native = cranelift::compile(self.func, self.isa)?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        let given = [(BufferKind::Input, input), (BufferKind::Weight, weight), (BufferKind::Bias, bias.as_deref().unwrap_or(&[]))];
        let run_s = self.native(&native, &given, &mut y, 50.0)?;

        let differs = |(a, b): (&T, &T)| !same_bits(&[*a], &[*b]);
        let first = expected.iter().zip(&y).position(differs);
        let gflops = if run_s > 0.0 { 2.0 * counts.fmas as f64 / run_s * 1e-9 } else { 0.0 };
        Ok(IrReport {
            name: name.into(),
            stage: format!("{:?}", original.stage).to_lowercase(),
            elem: original.elem.name(),
            symbols: original.symbols.iter().map(|s| s.to_string()).zip(self.values.iter().copied()).collect(),
            buffers: original
                .buffers
                .iter()
                .map(|b| (b.name.to_string(), format!("{:?}", b.kind).to_lowercase(), b.dims.iter().map(|d| self.eval(d)).collect()))
                .collect(),
            verified: true,
            multiplications: counts.fmas,
            loads: counts.loads,
            stores: counts.stores,
            isa: self.isa.name(),
            compile_ms,
            code_bytes: native.code_bytes(),
            equal_to_interpreter: first.is_none(),
            outputs,
            first_difference: first.map(|i| (i, expected[i].into(), y[i].into())),
            run_ms: run_s * 1e3,
            gflops,
            peak_gflops: measure::fma_peak(self.isa, original.elem),
        })
    }

    /// Runs `prepare` and `run` natively on one thread, again for `min_ms` milliseconds if that is above 0; seconds of one `run`, median.
    fn native<T: Element>(&self, native: &Native, given: &[(BufferKind, &[T])], y: &mut [T], min_ms: f64) -> Result<f64> {
        // NaN everywhere: what is read before it is written shows.
        let mut own: Vec<Vec<T>> = Vec::new();
        let mut table: Vec<*mut u8> = Vec::new();
        for b in &self.func.buffers {
            table.push(match b.kind {
                BufferKind::Output => y.as_mut_ptr().cast(),
                BufferKind::Packed | BufferKind::Scratch => {
                    let mut memory = vec![T::NAN; self.len(&b.dims) as usize + LINE];
                    let skip = memory.as_ptr().align_offset(LINE).min(LINE);
                    let at = memory[skip..].as_mut_ptr();
                    own.push(memory);
                    at.cast()
                }
                kind => given.iter().find(|g| g.0 == kind).map_or(std::ptr::null_mut(), |g| g.1.as_ptr().cast_mut().cast()),
            });
        }
        let tasks = |section| self.func.tasks(section, &self.values);
        let (first, tasks) = (tasks(&self.func.prepare), tasks(&self.func.run));
        // SAFETY: the table has, in order, memory of each buffer's full extent; the callers have just run the same function on the same extents in the
        // interpreter, which refuses any access outside of them; `bounds` has found that code computes the same indices, and none depends on values.
        unsafe {
            if let Some(prepare) = native.prepare {
                prepare(table.as_ptr(), self.values.as_ptr(), 0, first);
            }
            (native.run)(table.as_ptr(), self.values.as_ptr(), 0, tasks);
        }
        let mut median = 0.0;
        if min_ms > 0.0 {
            // SAFETY: as above; a run writes its scratch anew and leaves inputs alone, so it may be repeated.
            median = measure::time(|| unsafe { (native.run)(table.as_ptr(), self.values.as_ptr(), 0, tasks) }, min_ms).median;
        }
        drop(own);
        Ok(median)
    }
}
