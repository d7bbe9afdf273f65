//! Runs a [`Program`]: one element file, one list of index values, a `match` per instruction.
//!
//! Every buffer access and register index is checked; what is out of bounds ends the run with an error that names the place,
//! the index values and the loop variables at that time. Index arithmetic wraps at 64 bits, and a wrapped index is checked like any other.

use super::program::*;
use super::real::Real;
use super::{Counts, kernels};
use crate::ir::{BinOp, BufferKind};
use crate::{Error, Kind, Result};

/// An error on its way out; boxed so that results stay small.
type Fault = Box<Error>;

/// The memory of one buffer.
pub(super) enum Memory<'a, T> {
    Read(&'a [T]),
    Write(&'a mut [T]),
    Own(Vec<T>),
}

impl<T> Memory<'_, T> {
    #[inline]
    fn read(&self) -> &[T] {
        match self {
            Memory::Read(s) => s,
            Memory::Write(s) => s,
            Memory::Own(s) => s,
        }
    }
    #[inline]
    fn write(&mut self) -> &mut [T] {
        match self {
            Memory::Read(_) => &mut [],
            Memory::Write(s) => s,
            Memory::Own(s) => s,
        }
    }
}

/// The state of a run. `COUNT` says whether `counts` is kept.
pub(super) struct Machine<'p, 'a, T, const COUNT: bool> {
    program: &'p Program,
    fma: Option<kernels::HardwareFma>,
    vars: Vec<i64>,
    exprs: Vec<i64>,
    file: Vec<T>,
    memory: Vec<Memory<'a, T>>,
    /// Slots of the loops that were running when a fault came, innermost first.
    trail: Vec<usize>,
    pub counts: Counts,
}

/// Where an access is in its buffer: the element at its index is `at`, `c` coordinates further along the lanes' dimension it is `at + c * stride`.
struct Span {
    at: i64,
    stride: i64,
}

impl<'p, 'a, T: Real, const COUNT: bool> Machine<'p, 'a, T, COUNT> {
    /// A machine whose registers hold NaN. `memory` has one entry per buffer, of the buffer's length.
    pub fn new(program: &'p Program, memory: Vec<Memory<'a, T>>) -> Self {
        let mut file = vec![T::NAN; program.file];
        for &(at, v) in &program.consts {
            file[at] = T::from_f64(v);
        }
        let vars = vec![0; program.slots.len()];
        Machine {
            program,
            fma: kernels::HardwareFma::detect(),
            vars,
            exprs: program.start.clone(),
            file,
            memory,
            trail: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Runs statements from the outermost level.
    pub fn run(&mut self, body: &'p [Inst], section: &str) -> Result<()> {
        self.body(body).map_err(|e| {
            let at = self.trail.iter().rev().map(|&s| format!("{} = {}", self.program.slots[s], self.vars[s])).collect::<Vec<_>>();
            let at = if at.is_empty() { section.to_string() } else { format!("{section}, at {}", at.join(", ")) };
            e.context(at)
        })
    }

    fn body(&mut self, body: &'p [Inst]) -> std::result::Result<(), Fault> {
        for inst in body {
            match inst {
                Inst::For { slot, lo, hi, step, body } => self.for_loop(*slot, lo, hi, *step, body)?,
                Inst::When { conds, body } => {
                    if conds.iter().all(|c| self.holds(c)) {
                        self.body(body)?;
                    }
                }
                Inst::Forget => self.forget(),
                Inst::Load { to, from } => self.load(to, from)?,
                Inst::Store { to, parts } => self.store(to, parts)?,
                Inst::Copy { n, to, a } => {
                    let (to, [a]) = (self.place(to)?, self.places(std::array::from_ref(a))?);
                    kernels::map1(&mut self.file, *n, to, a, |a| a);
                }
                Inst::Fma { n, to, args } => {
                    let (to, args) = (self.place(to)?, self.places(args)?);
                    kernels::fma(self.fma, &mut self.file, *n, to, args);
                    self.count_products(*n);
                }
                Inst::Bin { op, n, to, args } => {
                    let (to, args) = (self.place(to)?, self.places(args)?);
                    kernels::bin(&mut self.file, *op, *n, to, args);
                    if *op == BinOp::Mul {
                        self.count_products(*n);
                    }
                }
                Inst::Un { op, n, to, a } => {
                    let (to, [a]) = (self.place(to)?, self.places(std::array::from_ref(a))?);
                    kernels::map1(&mut self.file, *n, to, a, |a| T::un(*op, a));
                }
                Inst::Select { cmp, n, to, args } => {
                    let (to, args) = (self.place(to)?, self.places(args)?);
                    kernels::select(&mut self.file, *cmp, *n, to, args);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn count_products(&mut self, n: usize) {
        if COUNT {
            self.counts.fmas += n as u64;
        }
    }

    fn for_loop(&mut self, slot: usize, lo: &[Ix], hi: &[Ix], step: i64, body: &'p [Inst]) -> std::result::Result<(), Fault> {
        let hi = self.least(hi);
        let mut v = self.largest(lo);
        while v < hi {
            let done = self.set_var(slot, v).and_then(|()| self.body(body));
            if let Err(e) = done {
                self.trail.push(slot);
                return Err(e);
            }
            match v.checked_add(step) {
                Some(next) => v = next,
                None => break,
            }
        }
        Ok(())
    }

    /// A task finds nothing in scratch memory that it did not put there.
    fn forget(&mut self) {
        let scratch = self.program.buffers.iter().zip(&mut self.memory).filter(|(b, _)| b.kind == BufferKind::Scratch);
        scratch.for_each(|(_, memory)| memory.write().fill(T::NAN));
    }

    /// Moves a variable and every expression that depends on it.
    #[inline]
    fn set_var(&mut self, slot: usize, v: i64) -> std::result::Result<(), Fault> {
        let program = self.program;
        let updates = &program.updates[slot];
        let old = std::mem::replace(&mut self.vars[slot], v);
        let by = v.wrapping_sub(old);
        for &(id, coef) in &updates.linear {
            self.exprs[id] = coef.wrapping_mul(by).wrapping_add(self.exprs[id]);
        }
        for &(id, table, coef) in &updates.tables {
            let (name, values) = &program.tables[table];
            let new = usize::try_from(v).ok().and_then(|v| values.get(v));
            let (Some(new), Some(old)) = (new, values.get(old as usize)) else {
                return Err(fault(format!("table {name} is indexed by {v}; it has entries 0..{}", values.len())));
            };
            self.exprs[id] = coef.wrapping_mul(new.wrapping_sub(*old)).wrapping_add(self.exprs[id]);
        }
        Ok(())
    }

    #[inline(always)]
    fn ix(&self, ix: &Ix) -> i64 {
        match ix {
            Ix::At(id) => self.exprs[*id],
            Ix::Div(d) => self.divisions(d),
        }
    }

    #[inline(never)]
    fn divisions(&self, d: &Divisions) -> i64 {
        let terms = d.parts.iter().map(|(e, by, coef)| self.ix(e).div_euclid(*by).wrapping_mul(*coef));
        terms.fold(self.ix(&d.base), i64::wrapping_add)
    }

    fn largest(&self, list: &[Ix]) -> i64 {
        list.iter().map(|e| self.ix(e)).max().unwrap_or(i64::MAX)
    }

    fn least(&self, list: &[Ix]) -> i64 {
        list.iter().map(|e| self.ix(e)).min().unwrap_or(i64::MIN)
    }

    fn holds(&self, c: &CondIx) -> bool {
        match c {
            CondIx::Range { lo, e, hi } => {
                let e = self.ix(e);
                self.ix(lo) <= e && e < self.ix(hi)
            }
            CondIx::Multiple { e, m } => self.ix(e).rem_euclid(*m) == 0,
        }
    }

    #[inline]
    fn place(&self, at: &Loc) -> std::result::Result<usize, Fault> {
        match at {
            Loc::Fixed(at) => Ok(*at),
            Loc::Entry(reg, index) => self.entry(*reg, index),
        }
    }

    fn entry(&self, reg: usize, index: &[Ix]) -> std::result::Result<usize, Fault> {
        let r = &self.program.regs[reg];
        let mut flat = 0;
        for (ix, &extent) in index.iter().zip(&r.dims) {
            match usize::try_from(self.ix(ix)) {
                Ok(v) if v < extent => flat = flat * extent + v,
                _ => {
                    let values = index.iter().map(|i| self.ix(i)).collect::<Vec<_>>();
                    return Err(fault(format!("{}{values:?} is outside the register array's extents {:?}", r.name, r.dims)));
                }
            }
        }
        Ok(r.base + flat * r.lanes)
    }

    #[inline]
    fn places<const N: usize>(&self, args: &[Operand; N]) -> std::result::Result<[(usize, usize); N], Fault> {
        let mut out = [(0, 0); N];
        for (o, a) in out.iter_mut().zip(args) {
            *o = (self.place(&a.at)?, a.step);
        }
        Ok(out)
    }

    /// Where an access is in its buffer, if coordinates `first..=last` past the index along `dim` are touched.
    #[inline]
    fn locate(&self, a: &AccessIx, dim: usize, first: i64, last: i64) -> std::result::Result<Span, Fault> {
        let (mut at, mut stride, mut inside) = (0i64, 0, true);
        for (d, i) in a.index.iter().enumerate() {
            let v = self.ix(&i.ix);
            if d == dim {
                stride = i.stride;
                // All in i64 without overflow: `first` and `last` are non-negative and the far end saturates.
                inside &= v.saturating_add(first) >= 0 && v.saturating_add(last) < i.extent;
            } else {
                inside &= 0 <= v && v < i.extent;
            }
            at = v.wrapping_mul(i.stride).wrapping_add(at);
        }
        if inside { Ok(Span { at, stride }) } else { Err(self.outside(a, first, last)) }
    }

    /// Where a single element is.
    #[inline]
    fn element(&self, a: &AccessIx) -> std::result::Result<usize, Fault> {
        let (mut at, mut inside) = (0i64, true);
        for i in &a.index {
            let v = self.ix(&i.ix);
            inside &= 0 <= v && v < i.extent;
            at = v.wrapping_mul(i.stride).wrapping_add(at);
        }
        if inside { Ok(at as usize) } else { Err(self.outside(a, 0, 0)) }
    }

    #[cold]
    fn outside(&self, a: &AccessIx, first: i64, last: i64) -> Fault {
        let b = &self.program.buffers[a.buffer];
        let list = a.index.iter().enumerate().map(|(d, DimIx { ix, .. })| match &a.lanes {
            Some(l) if l.dim == d => {
                let v = self.ix(ix);
                format!("{}..={} step {}", v.saturating_add(first), v.saturating_add(last), l.step)
            }
            _ => self.ix(ix).to_string(),
        });
        fault(format!("{}[{}] is outside the buffer's extents {:?}", b.name, list.collect::<Vec<_>>().join(", "), b.dims))
    }

    #[inline]
    fn load(&mut self, to: &Loc, a: &AccessIx) -> std::result::Result<(), Fault> {
        let to = self.place(to)?;
        let Some(l) = &a.lanes else {
            let at = self.element(a)?;
            self.file[to] = self.memory[a.buffer].read()[at];
            if COUNT {
                self.counts.loads += 1;
            }
            return Ok(());
        };
        let (low, high) = self.kept(a, l, 1);
        let lane = |bound: i64| (bound.saturating_add(l.step - 1)) / l.step;
        let (first, last) = (lane(low), lane(high));
        self.file[to..to + l.count].fill(T::ZERO);
        if first >= last {
            return Ok(());
        }
        let span = self.locate(a, l.dim, first * l.step, (last - 1) * l.step)?;
        let mem = self.memory[a.buffer].read();
        let by = l.step.wrapping_mul(span.stride);
        for (j, r) in (first..last).zip(&mut self.file[to + first as usize..]) {
            *r = mem[span.at.wrapping_add(j.wrapping_mul(by)) as usize];
        }
        if COUNT {
            self.counts.loads += (last - first) as u64;
        }
        Ok(())
    }

    /// The coordinates, counted from the index along the lanes' dimension, that an access covers and no clip excludes.
    #[inline]
    fn kept(&self, a: &AccessIx, l: &LanesIx, parts: usize) -> (i64, i64) {
        let all = l.step * (l.count as i64 - 1) + parts as i64;
        let Some(clip) = &l.clip else { return (0, all) };
        let v = self.ix(&a.index[l.dim].ix);
        let from = |bound: i64| bound.saturating_sub(v).clamp(0, all);
        (from(self.largest(&clip.lo)), from(self.least(&clip.hi)))
    }

    #[inline]
    fn store(&mut self, a: &AccessIx, parts: &[Operand]) -> std::result::Result<(), Fault> {
        let Some(l) = &a.lanes else {
            let at = self.element(a)?;
            let from = self.place(&parts[0].at)?;
            let v = self.file[from];
            self.memory[a.buffer].write()[at] = v;
            if COUNT {
                self.counts.stores += 1;
            }
            return Ok(());
        };
        let (low, high) = self.kept(a, l, parts.len());
        // Lanes of part i whose coordinate step·j + i is kept; between neighbouring lanes there may be none.
        let lanes = |i: usize| {
            let from = |bound: i64| (bound - i as i64 + l.step - 1).div_euclid(l.step).clamp(0, l.count as i64);
            (from(low), from(high))
        };
        let (mut near, mut far) = (i64::MAX, -1);
        for i in 0..parts.len() {
            let (first, last) = lanes(i);
            if first < last {
                near = near.min(first * l.step + i as i64);
                far = far.max((last - 1) * l.step + i as i64);
            }
        }
        if far < 0 {
            return Ok(());
        }
        let span = self.locate(a, l.dim, near, far)?;
        for (i, p) in parts.iter().enumerate() {
            let from = self.place(&p.at)?;
            let (first, last) = lanes(i);
            let (file, mem) = (&self.file, self.memory[a.buffer].write());
            for j in first..last {
                let at = (j * l.step + i as i64).wrapping_mul(span.stride).wrapping_add(span.at);
                mem[at as usize] = file[from + j as usize * p.step];
            }
            if COUNT {
                self.counts.stores += (last - first).max(0) as u64;
            }
        }
        Ok(())
    }
}

#[cold]
fn fault(message: String) -> Fault {
    Box::new(Error::new(Kind::Ir, message))
}
