//! From a problem and its weights to a kernel: plan, passes, native code, packing.

use super::kernel::{Compiled, Inner, Kernel, MAX_BUFFERS, MAX_VALUES, Report};
use super::scratch::Places;
use super::tensor::{Element, TensorView, elem_of};
use super::workspace::{Bytes, Stash};
use super::{Options, kernel};
use crate::codegen::{cranelift, target::Isa};
use crate::ir::names::WEIGHT;
use crate::ir::{Affine, Atom, Buffer, BufferKind, Func, Value};
use crate::problem::Deconv;
use crate::{Error, Kind, Result, plan};
use std::sync::Arc;
use std::time::Instant;

impl Deconv {
    /// Compiles a kernel for these weights: chooses a plan, lowers the problem, generates native code and packs the weights.
    ///
    /// `weights` is `[c_in, c_out / groups, *kernel]`, `bias` `[c_out]`; both are copied into the kernel.
    ///
    /// # Errors
    /// [`Kind::Tensor`] if weights or bias do not fit the problem, [`Kind::Options`] if the options cannot be honoured here,
    /// [`Kind::Codegen`] if code generation or allocation fails.
    ///
    /// ```
    /// use polyphase::{Deconv, Options};
    /// let layer = Deconv::torch2d(2, 3, [4, 4]).stride([2, 2]).padding([1, 1]).input([5, 5]).build()?;
    /// let weights = vec![0.5f32; 2 * 3 * 4 * 4];
    /// let kernel = layer.compile(&weights, None, &Options::default())?;
    /// let (x, mut y) = (vec![1.0f32; 2 * 5 * 5], vec![0.0f32; 3 * 10 * 10]);
    /// kernel.run(&x, &mut y)?;
    /// assert_eq!(y[0], 1.0);
    /// # Ok::<(), polyphase::Error>(())
    /// ```
    pub fn compile<'a, T: Element>(
        &self,
        weights: impl Into<TensorView<'a, T>>,
        bias: Option<&[T]>,
        options: &Options,
    ) -> Result<Kernel<T>> {
        self.validate()?;
        if elem_of::<T>() != self.elem {
            let message = format!("the problem is in {}, the weights are {}", self.elem.name(), elem_of::<T>().name());
            return Err(Error::new(Kind::Tensor, message));
        }
        let weights = weights.into();
        check_weights(self, &weights)?;
        check_bias(self, bias)?;
        let weights = weights.as_slice("weights")?;

        let start = Instant::now();
        let finite = T::all_finite(weights);
        let look = start.elapsed();
        let start = Instant::now();
        let isa = match options.isa {
            Some(isa) => Isa::forced(isa.name())?,
            None => Isa::best()?,
        };
        let mut compiled = Vec::new();
        for mut version in plan::versions(self, isa, options, finite)? {
            let func = version.lower(self).map_err(|e| not_for_this_layer(e, options))?;
            if func.buffers.len() > MAX_BUFFERS {
                return Err(Error::new(Kind::Codegen, format!("{} buffers; at most {MAX_BUFFERS}", func.buffers.len())));
            }
            if func.all_symbols().count() > MAX_VALUES {
                return Err(Error::new(Kind::Codegen, format!("{} symbols; at most {MAX_VALUES}", func.all_symbols().count())));
            }
            let native = cranelift::compile(&func, isa)?;
            let places = Places::of(&func);
            compiled.push(Compiled { version, func, native, places, memory: Vec::new() });
        }
        let compile = start.elapsed();

        let start = Instant::now();
        let mut versions: Vec<Compiled> = Vec::new();
        let mut packed_bytes = 0;
        for mut one in compiled {
            let same = versions.iter().find(|v| same_packing(&v.func, &one.func));
            one.memory = own_buffers(&one.func, same, weights, bias.unwrap_or(&[]))?;
            if same.is_none() {
                kernel::prepare(&one, weights);
                let packed = one.func.buffers.iter().zip(&one.memory).filter(|(b, _)| b.kind == BufferKind::Packed);
                packed_bytes += packed.filter_map(|(_, m)| m.as_ref()).map(|m| m.len()).sum::<usize>();
            }
            versions.push(one);
        }
        let code_bytes = versions.iter().map(|v| v.native.code_bytes()).sum();
        let main = plan::cheapest(versions.iter().map(|v| &v.version), &plan::main_size(self, options)?);
        let report = Report { compile, pack: look + start.elapsed(), code_bytes, packed_bytes };
        Kernel::new(Inner { problem: self.clone(), options: options.clone(), isa, versions, main, stash: Stash::new(), report })
    }
}

/// Passes expect what a chosen plan gives them. One that was given may be none that they can carry out.
fn not_for_this_layer(e: Error, options: &Options) -> Error {
    match &options.plan {
        Some(plan) if e.kind == Kind::Ir => Error::new(Kind::Options, format!("the plan '{plan}' cannot be used: {}", e.message)),
        _ => e,
    }
}

/// Whether two functions pack the weights alike, and so can read the same ones.
fn same_packing(a: &Func, b: &Func) -> bool {
    let packed = |f: &Func| f.buffers.iter().filter(|b| b.kind == BufferKind::Packed).cloned().collect::<Vec<_>>();
    // The same statements read other weights by other tables.
    let tables = |f: &Func| {
        let mut read = Vec::new();
        let mut note = |e: &Affine| {
            read.extend(e.terms.keys().filter_map(|t| match t {
                Atom::Table(name, _) => f.find_table(name).cloned(),
                _ => None,
            }));
        };
        f.prepare.iter().for_each(|s| s.visit_affine(&mut note));
        read
    };
    a.prepare == b.prepare && packed(a) == packed(b) && tables(a) == tables(b)
}

fn check_weights<T>(problem: &Deconv, w: &TensorView<'_, T>) -> Result<()> {
    let shape = problem.weight_shape();
    if let Some(given) = &w.shape
        && given.dims() != shape
    {
        return Err(Error::new(Kind::Tensor, format!("weights have shape {:?}; this problem's are {shape:?}", given.dims())));
    }
    let len: usize = shape.iter().product();
    if w.len != len {
        return Err(Error::new(Kind::Tensor, format!("weights have {} elements; shape {shape:?} has {len}", w.len)));
    }
    Ok(())
}

fn check_bias<T>(problem: &Deconv, bias: Option<&[T]>) -> Result<()> {
    match (problem.bias, bias) {
        (true, None) => Err(Error::new(Kind::Tensor, format!("the problem has a bias: {} values are needed", problem.c_out))),
        (false, Some(b)) => Err(Error::new(Kind::Tensor, format!("{} bias values given, but the problem has no bias", b.len()))),
        (true, Some(b)) if b.len() != problem.c_out => {
            Err(Error::new(Kind::Tensor, format!("bias has {} values; one per output channel is {}", b.len(), problem.c_out)))
        }
        _ => Ok(()),
    }
}

/// Whether `run` reads the weights as they came.
fn reads_weights(func: &Func) -> bool {
    let mut found = false;
    let mut look = |v: &Value| found |= matches!(v, Value::Load(a) if a.buffer == WEIGHT);
    func.run.iter().for_each(|s| s.visit_values(&mut look));
    found
}

/// Memory that the kernel keeps, per buffer of the function: packed weights, bias, and the weights themselves if `run` reads them. What `same` has, which
/// packs alike, is not made again.
fn own_buffers<T: Element>(func: &Func, same: Option<&Compiled>, weights: &[T], bias: &[T]) -> Result<Vec<Option<Arc<Bytes>>>> {
    let copy = |from: &[T]| -> Result<Option<Arc<Bytes>>> {
        let to = Bytes::zeroed(size_of_val(from))?;
        // SAFETY: `to` has as many bytes as `from` and is new, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().cast::<u8>(), to.as_ptr(), to.len()) };
        Ok(Some(Arc::new(to)))
    };
    let keep = reads_weights(func);
    let had =
        |b: &Buffer| same.and_then(|v| v.func.buffers.iter().zip(&v.memory).find(|(o, _)| o.name == b.name)).and_then(|(_, m)| m.clone());
    let own = |b: &Buffer| match b.kind {
        BufferKind::Packed | BufferKind::Bias if let Some(memory) = had(b) => Ok(Some(memory)),
        BufferKind::Weight if keep && let Some(memory) = had(b) => Ok(Some(memory)),
        BufferKind::Weight if keep => copy(weights),
        BufferKind::Bias => copy(bias),
        BufferKind::Packed => {
            let len = kernel::elements(b, &|_| 0)?.checked_mul(b.elem.bytes());
            let len = len.ok_or_else(|| Error::new(Kind::Codegen, format!("packed weights {:?} are too large", b.dims)))?;
            Ok(Some(Arc::new(Bytes::zeroed(len)?)))
        }
        _ => Ok(None),
    };
    func.buffers.iter().map(own).collect()
}
