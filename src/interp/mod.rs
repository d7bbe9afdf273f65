//! The interpreter: executes a function at every stage, exactly as [`crate::ir`] defines it.
//!
//! It is what every pass and the native code are checked against, to the bit. It knows nothing of plans or targets, and it
//! trusts no verifier: unknown names, wrong ranks and accesses out of bounds are errors of [`Kind::Ir`], never panics.
//!
//! `translate` turns names into positions, `machine` runs the result; `real` says what each operation does.
//!
//! ```
//! use polyphase::interp::{Tensors, execute};
//! use polyphase::ir::*;
//! let buffer = |name: &str, kind| Buffer { name: name.into(), kind, elem: Elem::F32, dims: vec![Affine::sym("L")], order: vec![0] };
//! let i = || vec![Affine::var("i")];
//! let func = Func {
//!     name: "double".into(),
//!     stage: Stage::Naive,
//!     elem: Elem::F32,
//!     symbols: vec!["L".into()],
//!     counts: vec![],
//!     buffers: vec![buffer("x", BufferKind::Input), buffer("y", BufferKind::Output)],
//!     tables: vec![],
//!     regs: vec![],
//!     prepare: vec![],
//!     run: vec![Loop::new("i", Affine::sym("L"), vec![Stmt::store("y", i(), Value::bin(BinOp::Mul, Value::load("x", i()), Value::Const(2.0)))]).into()],
//! };
//! let mut y = [0.0f32; 3];
//! execute(&func, &[3], Tensors { input: &[1.0, 2.0, 3.0], weight: &[], bias: None, output: &mut y })?;
//! assert_eq!(y, [2.0, 4.0, 6.0]);
//! # Ok::<(), polyphase::Error>(())
//! ```

mod kernels;
mod machine;
mod program;
mod real;
mod translate;

pub use real::Real;

use crate::ir::{BufferKind, Func};
use crate::{Error, Kind, Result};
use machine::{Machine, Memory};
use program::{BufferInfo, Program};

/// The tensors of one run, dense, in the order of the function's buffers of their kind.
#[derive(Debug)]
pub struct Tensors<'a, T> {
    /// The input tensor.
    pub input: &'a [T],
    /// The weight tensor; empty if the function has no such buffer.
    pub weight: &'a [T],
    /// The bias vector, if the function has such a buffer.
    pub bias: Option<&'a [T]>,
    /// The output tensor; elements that the function does not store stay as they are.
    pub output: &'a mut [T],
}

/// What a run executed, lanes counted one by one; `prepare` is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Multiplications: `fma` and `*`.
    pub fmas: u64,
    /// Elements read from buffers.
    pub loads: u64,
    /// Elements written to buffers.
    pub stores: u64,
}

/// Runs `prepare`, then `run`. `symbols` holds the values of `func.symbols`, in that order.
///
/// Packed and scratch buffers hold NaN before anything is written to them.
///
/// # Errors
/// [`Kind::Tensor`] if a tensor, its type or the symbols do not fit the function; [`Kind::Ir`] if the function breaks a rule of the
/// IR, such as an access out of bounds; [`Kind::Codegen`] if scratch memory cannot be had.
pub fn execute<T: Real>(func: &Func, symbols: &[i64], tensors: Tensors<'_, T>) -> Result<()> {
    start::<T, false>(func, symbols, tensors).map(|_| ())
}

/// [`execute`], counting what `run` does; somewhat slower.
///
/// # Errors
/// As [`execute`].
pub fn execute_counted<T: Real>(func: &Func, symbols: &[i64], tensors: Tensors<'_, T>) -> Result<Counts> {
    start::<T, true>(func, symbols, tensors)
}

fn start<T: Real, const COUNT: bool>(func: &Func, symbols: &[i64], tensors: Tensors<'_, T>) -> Result<Counts> {
    check_call::<T>(func, symbols)?;
    let program = translate::translate(func, symbols)?;
    let memory = bind(&program, tensors)?;
    let mut machine = Machine::<T, COUNT>::new(&program, memory);
    machine.run(&program.prepare, "prepare")?;
    machine.counts = Counts::default();
    machine.run(&program.run, "run")?;
    Ok(machine.counts)
}

fn check_call<T: Real>(func: &Func, symbols: &[i64]) -> Result<()> {
    if func.elem != T::ELEM {
        let message = format!("{} computes in {}; it was given tensors of {}", func.name, func.elem.name(), T::ELEM.name());
        return Err(Error::new(Kind::Tensor, message));
    }
    if func.symbols.len() != symbols.len() {
        let message = format!("{} values for symbols; {} has {}: {:?}", symbols.len(), func.name, func.symbols.len(), func.symbols);
        return Err(Error::new(Kind::Tensor, message));
    }
    match func.symbols.iter().zip(symbols).find(|(_, v)| **v < 0) {
        Some((name, v)) => Err(Error::new(Kind::Tensor, format!("symbol {name} is {v}; it must be at least 0"))),
        None => Ok(()),
    }
}

/// Whether a store may go to a buffer of this kind.
fn writable(kind: BufferKind) -> bool {
    matches!(kind, BufferKind::Output | BufferKind::Packed | BufferKind::Scratch)
}

/// Gives every buffer its memory, and every tensor its buffer.
fn bind<'a, T: Real>(program: &Program, tensors: Tensors<'a, T>) -> Result<Vec<Memory<'a, T>>> {
    let Tensors { input, weight, bias, output } = tensors;
    let (mut input, mut weight, mut bias, mut output) = (Some(input), Some(weight), bias, Some(output));
    let mut memory = Vec::new();
    for b in &program.buffers {
        let twice = || Error::new(Kind::Ir, format!("buffer {} is a second {:?} buffer, or its tensor was not given", b.name, b.kind));
        memory.push(match b.kind {
            BufferKind::Input => Memory::Read(fits(b, input.take().ok_or_else(twice)?)?),
            BufferKind::Weight => Memory::Read(fits(b, weight.take().ok_or_else(twice)?)?),
            BufferKind::Bias => {
                let missing = || Error::new(Kind::Tensor, format!("there is no bias tensor for buffer {} of {} elements", b.name, b.len));
                Memory::Read(fits(b, bias.take().ok_or_else(missing)?)?)
            }
            BufferKind::Output => {
                let out = output.take().ok_or_else(twice)?;
                fits(b, out)?;
                Memory::Write(out)
            }
            BufferKind::Packed | BufferKind::Scratch => Memory::Own(allocate(b)?),
        });
    }
    let left = [("input", input.map_or(0, <[T]>::len)), ("weight", weight.map_or(0, <[T]>::len)), ("bias", bias.map_or(0, <[T]>::len))];
    let left = left.into_iter().chain([("output", output.map_or(0, |o| o.len()))]).find(|(_, n)| *n > 0);
    match left {
        Some((name, n)) => {
            Err(Error::new(Kind::Tensor, format!("the {name} tensor has {n} elements, but the function has no such buffer")))
        }
        None => Ok(memory),
    }
}

/// The tensor, if it is as long as its buffer.
fn fits<'t, T>(b: &BufferInfo, tensor: &'t [T]) -> Result<&'t [T]> {
    if tensor.len() == b.len {
        return Ok(tensor);
    }
    let message = format!("the tensor for buffer {} has {} elements; its extents {:?} make {}", b.name, tensor.len(), b.dims, b.len);
    Err(Error::new(Kind::Tensor, message))
}

fn allocate<T: Real>(b: &BufferInfo) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(b.len)
        .map_err(|e| Error::new(Kind::Codegen, format!("buffer {} of extents {:?} cannot be allocated: {e}", b.name, b.dims)))?;
    v.resize(b.len, T::NAN);
    Ok(v)
}
