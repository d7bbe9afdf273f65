//! `Func` → [`Program`]: resolves names, folds symbols, lays out buffers and the element file.
//!
//! It needs nothing from the verifier: an unknown name, a wrong rank, lanes that do not fit and sizes that overflow are errors here.

use super::program::*;
use crate::ir::{Access, Affine, Atom, Buffer, Cond, Func, Lanes, Loop, LoopKind, Name, Stmt, Value};
use crate::{Error, Kind, Result};
use rustc_hash::FxHashMap as HashMap;

/// Largest element file in elements; a function that wants more is not one a pass made.
const MAX_FILE: usize = 1 << 26;

fn bad(message: impl Into<String>) -> Error {
    Error::new(Kind::Ir, message)
}

/// Binds a function to the values of its symbols, in their order.
pub(super) fn translate(func: &Func, symbols: &[i64]) -> Result<Program> {
    let mut t = Translator::new(func, symbols)?;
    let prepare = t.body(&func.prepare).map_err(|e| e.context("prepare"))?;
    let mut run = t.body(&func.run).map_err(|e| e.context("run"))?;
    forget(&func.run, &mut run);
    Ok(t.finish(prepare, run))
}

/// Lets each iteration of the outermost `par` loops start without what others left in scratch memory: they may run in any order, and elsewhere.
fn forget(body: &[Stmt], run: &mut Vec<Inst>) {
    if let ([Stmt::For(l)], [Inst::For { body: run, .. }]) = (body, &mut run[..])
        && l.kind == LoopKind::Par
    {
        return forget(&l.body, run);
    }
    run.insert(0, Inst::Forget);
}

struct Translator<'f> {
    symbols: HashMap<&'f str, i64>,
    buffers: Vec<BufferInfo>,
    regs: Vec<RegInfo>,
    tables: Vec<(String, Vec<i64>)>,
    slots: Vec<String>,
    /// Variables in scope with their slots, innermost last.
    scope: Vec<(Name, usize)>,
    exprs: HashMap<(Vec<(Term, i64)>, i64), usize>,
    file: usize,
    consts: HashMap<u64, usize>,
    /// Temporaries as `(lanes, place, taken by the statement at hand)`.
    temps: Vec<(usize, usize, bool)>,
}

impl<'f> Translator<'f> {
    fn new(func: &'f Func, values: &[i64]) -> Result<Self> {
        let mut t = Translator {
            symbols: func.all_symbols().map(Name::as_str).zip(func.with_counts(values)).collect(),
            buffers: Vec::new(),
            regs: Vec::new(),
            tables: Vec::new(),
            slots: Vec::new(),
            scope: Vec::new(),
            exprs: HashMap::default(),
            file: 0,
            consts: HashMap::default(),
            temps: Vec::new(),
        };
        for table in &func.tables {
            if table.values.is_empty() {
                return Err(bad(format!("table {} has no entries; it must have at least one", table.name)));
            }
            t.tables.push((table.name.to_string(), table.values.clone()));
        }
        for b in &func.buffers {
            if b.elem != func.elem {
                return Err(bad(format!("buffer {} holds {}, but {} computes in {}", b.name, b.elem.name(), func.name, func.elem.name())));
            }
            let info = t.buffer(b)?;
            t.buffers.push(info);
        }
        for r in &func.regs {
            let entries = r.dims.iter().try_fold(r.lanes, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
            if r.lanes == 0 {
                return Err(bad(format!("register {} has 0 lanes; it must have at least 1", r.name)));
            }
            let base = t.take(entries).map_err(|e| e.context(format!("register {}", r.name)))?;
            t.regs.push(RegInfo { name: r.name.to_string(), dims: r.dims.clone(), lanes: r.lanes, base });
        }
        Ok(t)
    }

    fn finish(self, prepare: Vec<Inst>, run: Vec<Inst>) -> Program {
        let mut updates = vec![Updates::default(); self.slots.len()];
        let mut start = vec![0; self.exprs.len()];
        for ((terms, offset), id) in self.exprs {
            start[id] = offset;
            for (term, coef) in terms {
                match term {
                    Term::Slot(s) => updates[s].linear.push((id, coef)),
                    Term::Table(t, s) => {
                        start[id] = coef.wrapping_mul(self.tables[t].1[0]).wrapping_add(start[id]);
                        updates[s].tables.push((id, t, coef));
                    }
                }
            }
        }
        for u in &mut updates {
            u.linear.sort_unstable();
            u.tables.sort_unstable();
        }
        let consts = self.consts.into_iter().map(|(bits, at)| (at, f64::from_bits(bits))).collect();
        let Self { buffers, regs, tables, slots, file, .. } = self;
        Program { buffers, regs, tables, slots, updates, start, file, consts, prepare, run }
    }

    fn buffer(&self, b: &Buffer) -> Result<BufferInfo> {
        let mut dims = Vec::new();
        for (i, d) in b.dims.iter().enumerate() {
            let v = self.extent(d).map_err(|e| e.context(format!("buffer {}, dimension {i}", b.name)))?;
            if v < 0 {
                return Err(bad(format!("buffer {} has extent {v} in dimension {i}; it must be at least 0", b.name)));
            }
            dims.push(v);
        }
        let mut sorted = b.order.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..dims.len()) {
            return Err(bad(format!("buffer {} has order {:?}; it must be a permutation of 0..{}", b.name, b.order, dims.len())));
        }
        let mut strides = vec![0; dims.len()];
        let mut len = 1i64;
        for &d in b.order.iter().rev() {
            strides[d] = len;
            len = len.checked_mul(dims[d].max(1)).ok_or_else(|| bad(format!("buffer {} of extents {dims:?} overflows 64 bits", b.name)))?;
        }
        if dims.contains(&0) {
            len = 0;
        }
        let len = usize::try_from(len).map_err(|_| bad(format!("buffer {} of extents {dims:?} exceeds memory", b.name)))?;
        Ok(BufferInfo { name: b.name.to_string(), kind: b.kind, dims, strides, len })
    }

    /// The value of an expression in symbols only.
    fn extent(&self, a: &Affine) -> Result<i64> {
        a.terms.iter().try_fold(a.offset, |sum, (atom, coef)| match atom {
            Atom::Sym(s) => Ok(self.symbol(s)?.wrapping_mul(*coef).wrapping_add(sum)),
            Atom::Div(e, by) if *by >= 1 => Ok(self.extent(e)?.div_euclid(*by).wrapping_mul(*coef).wrapping_add(sum)),
            other => Err(bad(format!("an extent uses {other:?}; it may use symbols only"))),
        })
    }

    fn symbol(&self, s: &Name) -> Result<i64> {
        self.symbols.get(s.as_str()).copied().ok_or_else(|| bad(format!("there is no symbol {s}")))
    }

    /// The slot of the innermost variable of that name.
    fn slot(&self, var: &Name) -> Result<usize> {
        let found = self.scope.iter().rev().find(|(name, _)| name == var);
        found.map(|(_, slot)| *slot).ok_or_else(|| bad(format!("no enclosing loop binds the variable {var}")))
    }

    /// Reserves elements of the element file.
    fn take(&mut self, n: usize) -> Result<usize> {
        let at = self.file;
        match at.checked_add(n) {
            Some(end) if end <= MAX_FILE => self.file = end,
            _ => return Err(bad(format!("registers need {n} elements after {at} others; at most {MAX_FILE} are allowed"))),
        }
        Ok(at)
    }

    fn temp(&mut self, lanes: usize) -> Result<Loc> {
        if let Some(t) = self.temps.iter_mut().find(|t| t.0 == lanes && !t.2) {
            t.2 = true;
            return Ok(Loc::Fixed(t.1));
        }
        let at = self.take(lanes)?;
        self.temps.push((lanes, at, true));
        Ok(Loc::Fixed(at))
    }

    fn ix(&mut self, a: &Affine) -> Result<Ix> {
        let (mut terms, mut offset, mut divs) = (Vec::new(), a.offset, Vec::new());
        for (atom, &coef) in &a.terms {
            match atom {
                Atom::Sym(s) => offset = self.symbol(s)?.wrapping_mul(coef).wrapping_add(offset),
                Atom::Var(v) => terms.push((Term::Slot(self.slot(v)?), coef)),
                Atom::Scaled(s, v) => terms.push((Term::Slot(self.slot(v)?), self.symbol(s)?.wrapping_mul(coef))),
                Atom::Table(name, v) => {
                    let t = self.tables.iter().position(|t| name == t.0.as_str());
                    let t = t.ok_or_else(|| bad(format!("there is no table {name}")))?;
                    terms.push((Term::Table(t, self.slot(v)?), coef));
                }
                Atom::Div(_, by) if *by < 1 => return Err(bad(format!("an index is divided by {by}; the divisor must be at least 1"))),
                Atom::Div(e, by) => divs.push((self.ix(e)?, *by, coef)),
            }
        }
        terms.sort_unstable();
        let next = self.exprs.len();
        let base = Ix::At(*self.exprs.entry((terms, offset)).or_insert(next));
        Ok(if divs.is_empty() { base } else { Ix::Div(Box::new(Divisions { base, parts: divs })) })
    }

    fn ixs(&mut self, list: &[Affine]) -> Result<Vec<Ix>> {
        list.iter().map(|a| self.ix(a)).collect()
    }

    fn body(&mut self, stmts: &[Stmt]) -> Result<Vec<Inst>> {
        let mut out = Vec::new();
        for s in stmts {
            self.stmt(s, &mut out)?;
        }
        Ok(out)
    }

    fn stmt(&mut self, s: &Stmt, out: &mut Vec<Inst>) -> Result<()> {
        self.temps.iter_mut().for_each(|t| t.2 = false);
        match s {
            Stmt::For(l) => out.push(self.for_loop(l).map_err(|e| e.context(format!("for {}", l.var)))?),
            Stmt::When { conds, body } => {
                let conds = conds.iter().map(|c| self.cond(c)).collect::<Result<_>>()?;
                out.push(Inst::When { conds, body: self.body(body)? });
            }
            Stmt::Tile { name, asks, body } => {
                // What is asked for changes no value, but code works out where it lies: a table must have the entry.
                for (lo, hi) in asks.iter().flat_map(|a| &a.ranges) {
                    self.ix(lo).and_then(|_| self.ix(hi)).map_err(|e| e.context(format!("tile {name}")))?;
                }
                out.append(&mut self.body(body).map_err(|e| e.context(format!("tile {name}")))?);
            }
            Stmt::Set { reg, index, value } => {
                let (to, lanes) = self.reg(reg, index)?;
                self.assign(to, lanes, value, out).map_err(|e| e.context(format!("{reg} = …")))?;
            }
            Stmt::Store { to, parts, .. } => self.store(to, parts, out).map_err(|e| e.context(format!("store to {}", to.buffer)))?,
        }
        Ok(())
    }

    fn for_loop(&mut self, l: &Loop) -> Result<Inst> {
        if l.lo.is_empty() || l.hi.is_empty() {
            return Err(bad("a loop needs at least one lower and one upper bound"));
        }
        if l.step < 1 {
            return Err(bad(format!("the step is {}; it must be at least 1", l.step)));
        }
        let times = l.times.as_ref().map_or(Ok(1), |s| self.symbol(s))?;
        let step = l.step.checked_mul(times).filter(|step| *step >= 1);
        let step = step.ok_or_else(|| bad(format!("the step is {} times {times}; it must be at least 1, and fit 64 bits", l.step)))?;
        let (lo, hi) = (self.ixs(&l.lo)?, self.ixs(&l.hi)?);
        let slot = self.slots.len();
        self.slots.push(l.var.to_string());
        self.scope.push((l.var, slot));
        let body = self.body(&l.body)?;
        self.scope.pop();
        Ok(Inst::For { slot, lo, hi, step, body })
    }

    fn cond(&mut self, c: &Cond) -> Result<CondIx> {
        match c {
            Cond::Range { lo, e, hi } => Ok(CondIx::Range { lo: self.ix(lo)?, e: self.ix(e)?, hi: self.ix(hi)? }),
            Cond::Multiple { e: _, m } if *m < 1 => {
                Err(bad(format!("a condition asks for multiples of {m}; the modulus must be at least 1")))
            }
            Cond::Multiple { e, m } => Ok(CondIx::Multiple { e: self.ix(e)?, m: *m }),
        }
    }

    /// Where an entry of a register is, and its lanes.
    fn reg(&mut self, name: &Name, index: &[Affine]) -> Result<(Loc, usize)> {
        let id = self.regs.iter().position(|r| name == r.name.as_str()).ok_or_else(|| bad(format!("there is no register {name}")))?;
        let (dims, lanes) = (self.regs[id].dims.len(), self.regs[id].lanes);
        if index.len() != dims {
            return Err(bad(format!("register {name} has {} indices; it must have {dims}", index.len())));
        }
        if dims == 0 {
            return Ok((Loc::Fixed(self.regs[id].base), lanes));
        }
        Ok((Loc::Entry(id, self.ixs(index)?), lanes))
    }

    fn access(&mut self, a: &Access) -> Result<(AccessIx, usize)> {
        let buffer = self.buffers.iter().position(|b| a.buffer == b.name.as_str());
        let buffer = buffer.ok_or_else(|| bad(format!("there is no buffer {}", a.buffer)))?;
        let rank = self.buffers[buffer].dims.len();
        if a.index.len() != rank {
            return Err(bad(format!("buffer {} has {} indices; it must have {rank}", a.buffer, a.index.len())));
        }
        let index = self.ixs(&a.index)?;
        let lanes = a.lanes.as_ref().map(|l| self.lanes(l, rank)).transpose().map_err(|e| e.context(format!("buffer {}", a.buffer)))?;
        let count = lanes.as_ref().map_or(1, |l| l.count);
        let b = &self.buffers[buffer];
        let index = index.into_iter().zip(&b.dims).zip(&b.strides).map(|((ix, &extent), &stride)| DimIx { ix, extent, stride }).collect();
        Ok((AccessIx { buffer, index, lanes }, count))
    }

    fn lanes(&mut self, l: &Lanes, rank: usize) -> Result<LanesIx> {
        if l.dim >= rank {
            return Err(bad(format!("lanes lie along dimension {}; there are {rank}", l.dim)));
        }
        let far = i64::try_from(l.count).ok().and_then(|c| c.checked_mul(l.step));
        if l.count == 0 || l.count > MAX_FILE || l.step < 1 || far.is_none_or(|f| f > i64::MAX / 4) {
            return Err(bad(format!("{} lanes with step {}; both must be at least 1, and their product fit 61 bits", l.count, l.step)));
        }
        let clip = match &l.clip {
            None => None,
            Some(c) if c.lo.is_empty() || c.hi.is_empty() => return Err(bad("a clip needs at least one lower and one upper bound")),
            Some(c) => Some(ClipIx { lo: self.ixs(&c.lo)?, hi: self.ixs(&c.hi)? }),
        };
        Ok(LanesIx { dim: l.dim, count: l.count, step: l.step, clip })
    }

    fn store(&mut self, to: &Access, parts: &[Value], out: &mut Vec<Inst>) -> Result<()> {
        let (to, count) = self.access(to)?;
        let b = &self.buffers[to.buffer];
        if !super::writable(b.kind) {
            return Err(bad(format!("{} is a {:?} buffer, which is read only", b.name, b.kind)));
        }
        let room = to.lanes.as_ref().map_or(1, |l| l.step);
        if parts.is_empty() || parts.len() as i64 > room {
            return Err(bad(format!("{} parts; there must be at least 1 and at most {room}, the step of the lanes", parts.len())));
        }
        let mut operands = Vec::new();
        for p in parts {
            let (at, lanes) = self.operand(p, out)?;
            operands.push(spread(at, lanes, count)?);
        }
        out.push(Inst::Store { to, parts: operands });
        Ok(())
    }

    /// Instructions that leave a value in `to`, broadcast to its lanes.
    fn assign(&mut self, to: Loc, lanes: usize, v: &Value, out: &mut Vec<Inst>) -> Result<()> {
        let (inst, n) = match v {
            Value::Const(_) | Value::Reg(..) => {
                let (at, n) = self.operand(v, out)?;
                out.push(Inst::Copy { n: lanes, to, a: spread(at, n, lanes)? });
                return Ok(());
            }
            _ => self.compute(to.clone(), v, out)?,
        };
        if n == lanes {
            out.push(inst);
            return Ok(());
        }
        // The value has fewer lanes than its destination: compute it aside, then broadcast.
        let (at, n) = self.aside(inst, n)?;
        out.push(at.1);
        out.push(Inst::Copy { n: lanes, to, a: spread(at.0, n, lanes)? });
        Ok(())
    }

    /// The same instruction with its result in a temporary.
    fn aside(&mut self, mut inst: Inst, n: usize) -> Result<((Loc, Inst), usize)> {
        let temp = self.temp(n)?;
        if let Inst::Load { to, .. } | Inst::Fma { to, .. } | Inst::Bin { to, .. } | Inst::Un { to, .. } | Inst::Select { to, .. } =
            &mut inst
        {
            *to = temp.clone();
        }
        Ok(((temp, inst), n))
    }

    /// Where a value is, after instructions that put it there; and its lanes.
    fn operand(&mut self, v: &Value, out: &mut Vec<Inst>) -> Result<(Loc, usize)> {
        match v {
            Value::Const(c) => {
                let at = match self.consts.get(&c.to_bits()) {
                    Some(at) => *at,
                    None => {
                        let at = self.take(1)?;
                        self.consts.insert(c.to_bits(), at);
                        at
                    }
                };
                Ok((Loc::Fixed(at), 1))
            }
            Value::Reg(name, index) => self.reg(name, index),
            _ => {
                let (inst, n) = self.compute(Loc::Fixed(0), v, out)?;
                let ((at, inst), n) = self.aside(inst, n)?;
                out.push(inst);
                Ok((at, n))
            }
        }
    }

    /// The last instruction of a value (its operands' come before), and its lanes.
    fn compute(&mut self, to: Loc, v: &Value, out: &mut Vec<Inst>) -> Result<(Inst, usize)> {
        if let Value::Load(a) = v {
            let (from, n) = self.access(a)?;
            return Ok((Inst::Load { to, from }, n));
        }
        let found = v.operands().iter().map(|o| self.operand(o, out)).collect::<Result<Vec<_>>>()?;
        let n = found.iter().map(|(_, n)| *n).max().unwrap_or(1);
        let args = found.into_iter().map(|(at, lanes)| spread(at, lanes, n)).collect::<Result<Vec<_>>>()?;
        let inst = match (v, <[Operand; 1]>::try_from(args)) {
            (Value::Un(op, _), Ok([a])) => Inst::Un { op: *op, n, to, a },
            (Value::Fma(_), Err(args)) => Inst::Fma { n, to, args: exactly(args)? },
            (Value::Bin(op, _), Err(args)) => Inst::Bin { op: *op, n, to, args: exactly(args)? },
            (Value::Select(cmp, _), Err(args)) => Inst::Select { cmp: *cmp, n, to, args: exactly(args)? },
            _ => return Err(bad("a value has the wrong number of operands")),
        };
        Ok((inst, n))
    }
}

fn exactly<const N: usize>(args: Vec<Operand>) -> Result<[Operand; N]> {
    <[Operand; N]>::try_from(args).map_err(|a| bad(format!("{} operands where there must be {N}", a.len())))
}

/// An operand of `lanes` lanes where `n` are wanted.
fn spread(at: Loc, lanes: usize, n: usize) -> Result<Operand> {
    match lanes {
        _ if lanes == n => Ok(Operand { at, step: 1 }),
        1 => Ok(Operand { at, step: 0 }),
        _ => Err(bad(format!("a value of {lanes} lanes where {n} are wanted; it must have {n} or 1"))),
    }
}
