//! The kernel: what it checks, and the call.
//!
//! `run` allocates nothing, takes no lock and copies nothing that the plan did not ask for. Where a run is shared out, that holds of what is done here: a
//! caller that is no thread of a rayon pool hands the work over to one through rayon's queue, which takes a lock, waits, and allocates a block now and
//! then. It works out the run-time extents, checks
//! lengths, shapes, strides and overlap, borrows scratch memory and hands ranges of tasks to the native code.

use super::scratch::Places;
use super::tensor::{Element, MAX_RANK, Shape, TensorView, TensorViewMut, check_dense};
use super::workspace::{Bytes, Stash, Workspace};
use super::{Options, threads};
use crate::codegen::cranelift::Native;
use crate::codegen::target::Isa;
use crate::ir::{Affine, Atom, Buffer, BufferKind, Func, Name};
use crate::plan::{Choice, Plan, Version, cheapest};
use crate::problem::{Deconv, Extent, Layout};
use crate::{Error, Kind, Result};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Most buffers of a function: input, weight, bias, output, packed weights, panel, and one more scratch plane.
pub(super) const MAX_BUFFERS: usize = 16;
/// Most symbols and counts of a function: batch and three axes, what blocks of each hold, two products of these, and what whole tiles cover; and some to spare.
pub(super) const MAX_VALUES: usize = 16;
/// A layer with fewer multiplications than this is not worth a second thread.
const SMALL: f64 = 200_000.0;

/// What making a kernel cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Plan, passes and code generation.
    pub compile: Duration,
    /// Reading the weights, for values that are not finite, and packing them.
    pub pack: Duration,
    /// Machine code in bytes.
    pub code_bytes: usize,
    /// Packed weights in bytes.
    pub packed_bytes: usize,
}

/// A plan of the kernel, compiled; a problem with open extents has one for each of a few sizes.
pub struct Compiled {
    pub(super) version: Version,
    pub(super) func: Func,
    pub(super) native: Native,
    pub(super) places: Places,
    /// Per buffer of the function: memory that the kernel owns. Versions may have the same packed weights.
    pub(super) memory: Vec<Option<Arc<Bytes>>>,
}

impl Compiled {
    /// Where the scratch buffers of one part begin, and how many bytes they need together.
    fn scratch(&self, symbols: &Symbols<'_>) -> Result<([usize; MAX_BUFFERS], usize)> {
        let (mut bytes, mut starts) = ([0; MAX_BUFFERS], [0; MAX_BUFFERS]);
        for (bytes, b) in bytes.iter_mut().zip(&self.func.buffers).filter(|(_, b)| b.kind == BufferKind::Scratch) {
            let extents = b.dims.iter().map(|d| usize::try_from(symbols.eval(d)).unwrap_or(0));
            *bytes = extents.clone().try_fold(b.elem.bytes(), usize::checked_mul).ok_or_else(|| {
                let extents: Vec<usize> = extents.collect();
                let message = format!("scratch buffer {} of extents {extents:?} has more bytes than fit {} bits", b.name, usize::BITS);
                Error::new(Kind::Codegen, message)
            })?;
        }
        let all = self.places.lay_out(&bytes, &mut starts).ok_or_else(|| {
            let message = format!(
                "scratch buffers of {:?} bytes have more than fit {} bits together",
                &bytes[..self.func.buffers.len()],
                usize::BITS
            );
            Error::new(Kind::Codegen, message)
        })?;
        Ok((starts, all))
    }
    /// The spatial extents for which its plan was chosen.
    pub fn typical(&self) -> &[usize] {
        &self.version.typical
    }
    /// The plan with the reasons for it and the candidates that it beat.
    pub fn choice(&self) -> &Choice {
        &self.version.choice
    }
    /// The lowered function from which the code was generated.
    pub fn func(&self) -> &Func {
        &self.func
    }
    /// The native code, for dumps.
    pub fn native(&self) -> &Native {
        &self.native
    }
}

pub(super) struct Inner {
    pub problem: Deconv,
    pub options: Options,
    pub isa: Isa,
    /// Never empty.
    pub versions: Vec<Compiled>,
    /// The one that stands for all of them.
    pub main: usize,
    pub stash: Stash,
    pub report: Report,
}

impl Inner {
    /// Scratch memory of one thread in bytes, whichever version runs; `None` if it depends on extents that come at run time.
    fn scratch(&self) -> Result<Option<usize>> {
        self.most(|_| 1)
    }
    /// What a workspace has from the start: scratch memory of all parts of a run in bytes, whichever version runs; 0 if it depends on extents that
    /// come at run time.
    fn reserved(&self) -> Result<usize> {
        let fixed = Sizes::fixed(&self.problem);
        let parts = |v: &Compiled| match fixed {
            Some(sizes) => self.parts(sizes, v.func.tasks(&v.func.run, &[])),
            None => threads::parts(self.options.threads, i64::MAX),
        };
        Ok(self.most(parts)?.unwrap_or(0))
    }
    /// Over how many parts a run of so many tasks is shared out.
    fn parts(&self, sizes: Sizes, tasks: i64) -> usize {
        if work(&self.problem, sizes) < SMALL { 1 } else { threads::parts(self.options.threads, tasks) }
    }
    /// The most scratch memory of so many parts of a version.
    fn most(&self, parts: impl Fn(&Compiled) -> usize) -> Result<Option<usize>> {
        let mut most = 0;
        for v in &self.versions {
            let mut extents = v.func.buffers.iter().filter(|b| b.kind == BufferKind::Scratch).flat_map(|b| &b.dims);
            if !extents.all(|d| d.as_const().is_some()) {
                return Ok(None);
            }
            let (_, bytes) = v.scratch(&Symbols { func: &v.func, values: &[] })?;
            most = most.max(of_parts(bytes, parts(v))?);
        }
        Ok(Some(most))
    }
    fn version_for(&self, spatial: &[usize]) -> &Compiled {
        match &self.versions[..] {
            [one] => one,
            all => &all[cheapest(all.iter().map(|c| &c.version), spatial)],
        }
    }
}

/// A compiled layer. Cheap to clone; may be run from many threads at once.
pub struct Kernel<T> {
    inner: Arc<Inner>,
    marker: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Kernel<T> {
    fn clone(&self) -> Self {
        Kernel { inner: self.inner.clone(), marker: PhantomData }
    }
}

/// Run-time extents, in the order of the problem's symbols.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    spatial: [usize; 3],
}

impl Sizes {
    /// Those of a problem without open extents.
    fn fixed(p: &Deconv) -> Option<Sizes> {
        let value = |e: &Extent| if let Extent::Fixed(v) = e { Some(*v) } else { None };
        let mut sizes = Sizes { batch: value(&p.batch)?, spatial: [1; 3] };
        for (to, e) in sizes.spatial.iter_mut().zip(&p.input) {
            *to = value(e)?;
        }
        Some(sizes)
    }
}

impl<T: Element> Kernel<T> {
    pub(super) fn new(inner: Inner) -> Result<Self> {
        // One workspace is there from the start, so that the first run allocates nothing either.
        let mut first = Box::new(Workspace::empty()?);
        first.reserve(inner.reserved()?)?;
        inner.stash.put(first);
        Ok(Kernel { inner: Arc::new(inner), marker: PhantomData })
    }

    /// Computes `y` from `x`, both in the problem's layout: slices, or ndarray arrays whose shape then gives the open extents.
    ///
    /// # Errors
    /// [`Kind::Tensor`] if a length, shape or stride does not fit, if tensors overlap, or if open extents cannot be told from slices
    /// (then use [`Kernel::run_sized`]).
    pub fn run<'x, 'y>(&self, x: impl Into<TensorView<'x, T>>, y: impl Into<TensorViewMut<'y, T>>) -> Result<()> {
        let (x, y) = (x.into(), y.into());
        let sizes = self.sizes_from(&x)?;
        self.run_any(sizes, x, y, None)
    }

    /// [`Kernel::run`] with batch and spatial extents given, for slices of a problem with open extents.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub fn run_sized<'x, 'y>(
        &self,
        batch: usize,
        spatial: &[usize],
        x: impl Into<TensorView<'x, T>>,
        y: impl Into<TensorViewMut<'y, T>>,
    ) -> Result<()> {
        let rank = self.inner.problem.rank();
        if spatial.len() != rank {
            return Err(Error::new(
                Kind::Tensor,
                format!("{} spatial extents given: {spatial:?}; the problem has {rank} axes", spatial.len()),
            ));
        }
        let mut sizes = Sizes { batch, spatial: [1; 3] };
        sizes.spatial[..rank].copy_from_slice(spatial);
        self.run_any(sizes, x.into(), y.into(), None)
    }

    /// [`Kernel::run`] in scratch memory of the caller's, which it enlarges if it has to.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub fn run_in<'x, 'y>(
        &self,
        workspace: &mut Workspace,
        x: impl Into<TensorView<'x, T>>,
        y: impl Into<TensorViewMut<'y, T>>,
    ) -> Result<()> {
        let (x, y) = (x.into(), y.into());
        let sizes = self.sizes_from(&x)?;
        self.run_any(sizes, x, y, Some(workspace))
    }

    /// A workspace for [`Kernel::run_in`].
    ///
    /// # Errors
    /// [`Kind::Codegen`] if memory cannot be had.
    pub fn workspace(&self) -> Result<Workspace> {
        let mut w = Workspace::empty()?;
        w.reserve(self.inner.reserved()?)?;
        Ok(w)
    }

    /// The problem that it computes.
    pub fn problem(&self) -> &Deconv {
        &self.inner.problem
    }
    /// The instruction-set level that it was compiled for.
    pub fn isa(&self) -> Isa {
        self.inner.isa
    }
    /// Its plans, compiled, for sizes in ascending order; one if no spatial extent is open.
    pub fn versions(&self) -> &[Compiled] {
        &self.inner.versions
    }
    /// The one that [`Kernel::run`] takes for these spatial extents.
    pub fn version_for(&self, spatial: &[usize]) -> &Compiled {
        self.inner.version_for(spatial)
    }
    /// The plan that it follows; of several, the one for extents around 64.
    pub fn plan(&self) -> &Plan {
        &self.choice().plan
    }
    /// That plan with the reasons for it and the candidates that it beat.
    pub fn choice(&self) -> &Choice {
        self.main().choice()
    }
    /// What making it cost.
    pub fn report(&self) -> &Report {
        &self.inner.report
    }
    /// The lowered function of that plan.
    pub fn func(&self) -> &Func {
        self.main().func()
    }
    /// The native code of that plan, for dumps.
    pub fn native(&self) -> &Native {
        self.main().native()
    }
    fn main(&self) -> &Compiled {
        &self.inner.versions[self.inner.main]
    }
    /// Scratch memory of one thread in bytes; 0 if it depends on open extents.
    pub fn scratch_bytes(&self) -> usize {
        self.inner.scratch().ok().flatten().unwrap_or(0)
    }

    /// The run-time extents, from the problem or from the shape of the input.
    fn sizes_from(&self, x: &TensorView<'_, T>) -> Result<Sizes> {
        let p = &self.inner.problem;
        let spatial_at = if p.layout == Layout::ChannelsFirst { 2 } else { 1 };
        let dim = |e: &Extent, at: usize| match (e, &x.shape) {
            (Extent::Fixed(v), _) => Ok(*v),
            (Extent::Open(_), Some(s)) if s.rank == p.rank() + 2 => Ok(s.dims[at]),
            (Extent::Open(name), Some(s)) => {
                let message = format!("x has {} dimensions {:?}; {} are needed to tell extent {name}", s.rank, s.dims(), p.rank() + 2);
                Err(Error::new(Kind::Tensor, message))
            }
            (Extent::Open(name), None) => {
                Err(Error::new(Kind::Tensor, format!("extent {name} is open and x is a plain slice: give the extents with run_sized")))
            }
        };
        let mut sizes = Sizes { batch: dim(&p.batch, 0)?, spatial: [1; 3] };
        for (a, e) in p.input.iter().enumerate() {
            sizes.spatial[a] = dim(e, spatial_at + a)?;
        }
        Ok(sizes)
    }

    fn run_any(&self, sizes: Sizes, x: TensorView<'_, T>, y: TensorViewMut<'_, T>, workspace: Option<&mut Workspace>) -> Result<()> {
        let (p, inner) = (&self.inner.problem, &*self.inner);
        check_dense("x", x.shape.as_ref())?;
        check_dense("y", y.shape.as_ref())?;
        let (input, output) = extents(p, sizes)?;
        check_tensor("x", &input[..p.rank() + 2], x.len, x.shape.as_ref())?;
        check_tensor("y", &output[..p.rank() + 2], y.len, y.shape.as_ref())?;
        let bytes = size_of::<T>();
        let (from, to) = (x.at as usize..x.at as usize + x.len * bytes, y.at as usize..y.at as usize + y.len * bytes);
        if overlap(&from, &to) {
            return Err(Error::new(Kind::Tensor, "x and y overlap in memory; the output needs memory of its own"));
        }
        if !(x.at as usize).is_multiple_of(bytes) || !(y.at as usize).is_multiple_of(bytes) {
            return Err(Error::new(Kind::Tensor, format!("x or y is not aligned to its {bytes}-byte elements")));
        }
        if y.len == 0 {
            return Ok(());
        }
        let mut values = [0i64; MAX_VALUES];
        let open = [(&p.batch, sizes.batch)].into_iter().chain(p.input.iter().zip(sizes.spatial));
        for (slot, v) in values.iter_mut().zip(open.filter(|(e, _)| matches!(e, Extent::Open(_))).map(|(_, v)| v)) {
            *slot = v as i64;
        }
        let version = inner.version_for(&sizes.spatial[..p.rank()]);
        version.func.work_out(&mut values);
        let symbols = Symbols { func: &version.func, values: &values };
        let tasks = version.func.tasks(&version.func.run, &values);
        let call =
            Call { version, symbols, tasks, parts: inner.parts(sizes, tasks), x: x.at.cast::<u8>().cast_mut(), y: y.at.cast::<u8>() };
        match workspace {
            Some(w) => call.run(w),
            None => {
                let mut w = inner.stash.take()?;
                let done = call.run(&mut w);
                inner.stash.put(w);
                done
            }
        }
    }
}

/// About how many multiplications a run takes: every tap of every pixel.
fn work(p: &Deconv, sizes: Sizes) -> f64 {
    let taps = p.kernel.iter().zip(sizes.spatial).map(|(k, i)| (k * i) as f64).product::<f64>();
    sizes.batch as f64 * p.c_in as f64 * (p.c_out / p.groups) as f64 * taps
}

/// Scratch memory of so many parts.
fn of_parts(bytes: usize, parts: usize) -> Result<usize> {
    bytes.checked_mul(parts).ok_or_else(|| {
        let message = format!("{bytes} bytes of scratch memory for each of {parts} threads are more than fit {} bits", usize::BITS);
        Error::new(Kind::Codegen, message)
    })
}

/// The values of a function's symbols and counts.
struct Symbols<'a> {
    func: &'a Func,
    values: &'a [i64],
}

impl Symbols<'_> {
    fn eval(&self, a: &Affine) -> i64 {
        a.eval(&mut |atom| match atom {
            Atom::Sym(s) => self.func.all_symbols().position(|n| n == s).map_or(0, |i| self.values[i]),
            _ => 0,
        })
    }
}

/// One run whose tensors have been checked.
struct Call<'a> {
    version: &'a Compiled,
    symbols: Symbols<'a>,
    tasks: i64,
    parts: usize,
    x: *mut u8,
    y: *mut u8,
}

// SAFETY: the pointers are to tensors borrowed for the whole run; threads read `x` and write disjoint parts of `y`.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    fn run(&self, workspace: &mut Workspace) -> Result<()> {
        let (starts, per_part) = self.version.scratch(&self.symbols)?;
        workspace.reserve(of_parts(per_part, self.parts)?)?;
        let scratch = Scratch(workspace.bytes.as_ptr());
        if self.parts == 1 {
            self.part(&scratch, &starts, 0, 0, self.tasks);
        } else {
            threads::share(self.tasks, self.parts, &|part, lo, hi| self.part(&scratch, &starts, part * per_part, lo, hi));
        }
        Ok(())
    }

    /// Tasks from `lo` to `hi`, with the scratch memory of a part from `first` on, in which each buffer has its start.
    fn part(&self, scratch: &Scratch, starts: &[usize; MAX_BUFFERS], first: usize, lo: i64, hi: i64) {
        let mut table = [std::ptr::null_mut::<u8>(); MAX_BUFFERS];
        for (i, (b, own)) in self.version.func.buffers.iter().zip(&self.version.memory).enumerate() {
            table[i] = match (b.kind, own) {
                (_, Some(bytes)) => bytes.as_ptr(),
                (BufferKind::Input, _) => self.x,
                (BufferKind::Output, _) => self.y,
                // SAFETY: `run` reserved for every part what its buffers need, counted from their starts.
                (BufferKind::Scratch, _) => unsafe { scratch.0.add(first + starts[i]) },
                _ => std::ptr::null_mut(),
            };
        }
        // SAFETY: the table holds, in order, memory of every buffer's full extent for these symbols: tensors were checked against their
        // extents, owned buffers were allocated with theirs, scratch was reserved. That the function accesses nothing outside of these extents is the duty of the
        // passes that made it: the verifier has looked at what each of them left, and tests and fuzzing run what they leave in the interpreter, which refuses such
        // accesses. Parts write disjoint outputs and have scratch of their own, in which only buffers that are never in use
        // at the same time share memory.
        unsafe { (self.version.native.run)(table.as_ptr(), self.symbols.values.as_ptr(), lo, hi) }
    }
}

struct Scratch(*mut u8);
// SAFETY: parts use disjoint ranges behind the pointer.
unsafe impl Sync for Scratch {}

/// Packs the weights into the memory of a version.
pub(super) fn prepare<T: Element>(version: &Compiled, weights: &[T]) {
    let Some(entry) = version.native.prepare else { return };
    let mut table = [std::ptr::null_mut::<u8>(); MAX_BUFFERS];
    for (i, (b, own)) in version.func.buffers.iter().zip(&version.memory).enumerate() {
        table[i] = match (b.kind, own) {
            (BufferKind::Weight, _) => weights.as_ptr().cast::<u8>().cast_mut(),
            (_, Some(bytes)) => bytes.as_ptr(),
            _ => std::ptr::null_mut(),
        };
    }
    // The code loads every symbol when it starts, though no access in `prepare` depends on one.
    let symbols = [0i64; MAX_VALUES];
    let tasks = version.func.tasks(&version.func.prepare, &symbols);
    // SAFETY: `prepare` reads the weights, whose length was checked, and writes packed buffers of the extents that it declares; `symbols` is as
    // long as a problem can have symbols.
    unsafe { entry(table.as_ptr(), symbols.as_ptr(), 0, tasks) };
}

/// Elements of a buffer.
pub(super) fn elements(b: &Buffer, symbol: &dyn Fn(&Name) -> i64) -> Result<usize> {
    let too_large = || Error::new(Kind::Tensor, format!("buffer {} of extents {:?} is too large", b.name, b.dims));
    b.dims.iter().try_fold(1usize, |n, d| {
        let d = d.eval(&mut |a| if let Atom::Sym(s) = a { symbol(s) } else { 0 });
        n.checked_mul(usize::try_from(d.max(0)).map_err(|_| too_large())?).ok_or_else(too_large)
    })
}

type Dims = [usize; MAX_RANK];

/// Shapes of input and output in the problem's layout, with every extent checked.
fn extents(p: &Deconv, sizes: Sizes) -> Result<(Dims, Dims)> {
    let rank = p.rank();
    let (mut input, mut output) = ([0; MAX_RANK], [0; MAX_RANK]);
    let (channel, spatial) = if p.layout == Layout::ChannelsFirst { (1, 2) } else { (rank + 1, 1) };
    (input[0], output[0], input[channel], output[channel]) = (sizes.batch, sizes.batch, p.c_in, p.c_out);
    let fixed = |e: &Extent, v: usize, what: &dyn std::fmt::Display| match e {
        Extent::Fixed(f) if *f != v => Err(Error::new(Kind::Tensor, format!("{what} is {v}; the problem fixes it at {f}"))),
        _ => Ok(()),
    };
    fixed(&p.batch, sizes.batch, &"the batch")?;
    for a in 0..rank {
        let i = sizes.spatial[a];
        let axis = crate::ir::names::axes(rank)[a];
        fixed(&p.input[a], i, &format_args!("input extent {axis}"))?;
        if i == 0 || i > crate::problem::MAX_EXTENT as usize {
            let message = format!("input extent {axis} is {i}; legal: 1 to {}", crate::problem::MAX_EXTENT);
            return Err(Error::new(Kind::Tensor, message));
        }
        let (s, d, k) = (p.stride[a] as i64, p.dilation[a] as i64, p.kernel[a] as i64);
        let o = s * (i as i64 - 1) + d * (k - 1) + 1 + p.output_padding[a] as i64 - p.pad_begin[a] - p.pad_end[a];
        if o < 1 {
            let message = format!("with input extent {axis} = {i} the output extent is {o}; it must be at least 1");
            return Err(Error::new(Kind::Tensor, message));
        }
        (input[spatial + a], output[spatial + a]) = (i, o as usize);
    }
    Ok((input, output))
}

fn check_tensor(name: &str, dims: &[usize], len: usize, shape: Option<&Shape>) -> Result<()> {
    if let Some(s) = shape
        && s.dims() != dims
        && s.rank > 1
    {
        return Err(Error::new(Kind::Tensor, format!("{name} has shape {:?}; this problem needs {dims:?}", s.dims())));
    }
    let needed = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match needed {
        Some(n) if n == len => Ok(()),
        Some(n) => Err(Error::new(Kind::Tensor, format!("{name} has {len} elements; shape {dims:?} needs {n}"))),
        None => Err(Error::new(Kind::Tensor, format!("{name} of shape {dims:?} does not fit into memory"))),
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}
