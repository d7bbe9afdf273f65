//! Index and address arithmetic.
//!
//! An address is `base + constant + Σ coefficient · stride · atom`. Its terms are summed in the order of the loops that bind their variables, outermost
//! first, and every partial sum is remembered in the scope in which it was computed. Before a loop starts, [`Emit::hoist`] computes
//! the partial sums that accesses inside it owe to the loops around it; inside, one multiplication and one addition are left. The constant becomes the displacement
//! of the load or store, so that the accesses of a loop that was written out share one address.

use super::{Bound, Emit};
use crate::ir::{Access, Affine, Atom, Name, Stmt, Value};
use crate::{Error, Kind, Result};
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlagsData, types};
use cranelift_module::Module;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use std::collections::BTreeMap;

/// From here on a constant is added to the base: displacements have 31 bits and a sign, and the parts of a vector, of at most 1024 lanes, lie behind it.
const FAR: u64 = 1 << 30;

/// A dimension's distance in memory, in bytes.
#[derive(Clone, Copy)]
pub enum Stride {
    /// Known now.
    Const(i64),
    /// Depends on symbols; computed when the function starts.
    Value(clif::Value),
}

/// One summand of an address: an atom (or 1) times a run-time stride (or 1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    atom: Option<Atom>,
    stride: Option<(Name, usize)>,
}

type Key = (Option<Name>, Vec<(Term, i64)>);
/// A loaded scalar: its buffer, address terms and displacement.
type Loaded = (Key, i64);

/// What has been computed since a loop body or branch started.
#[derive(Default)]
pub struct Scope {
    sums: HashMap<Key, clif::Value>,
    /// Scalars that were loaded and broadcast, by lanes.
    pub splats: HashMap<(Loaded, usize), clif::Value>,
}

/// An address: a value and a displacement.
pub struct Address {
    /// Everything that is not constant.
    pub base: clif::Value,
    /// Bytes to add.
    pub offset: i64,
    /// What identifies the place, for re-use of loaded scalars.
    pub key: Loaded,
}

impl Emit<'_, '_, '_> {
    /// Loads the base of every buffer and every symbol, and works out strides.
    pub(super) fn load_arguments(&mut self, buffers: clif::Value, symbols: clif::Value) -> Result<()> {
        let flags = MemFlagsData::trusted().with_readonly();
        for (i, s) in self.unit.func.all_symbols().enumerate() {
            let v = self.b.ins().load(types::I64, flags, symbols, (i * 8) as i32);
            self.symbols.insert(*s, v);
        }
        let func = self.unit.func;
        for (i, buffer) in func.buffers.iter().enumerate() {
            let base = self.b.ins().load(types::I64, flags, buffers, (i * 8) as i32);
            self.bases.insert(buffer.name, base);
            let mut strides = vec![Stride::Const(0); buffer.dims.len()];
            let mut stride = Stride::Const(buffer.elem.bytes() as i64);
            for &d in buffer.order.iter().rev() {
                strides[d] = stride;
                stride = match (stride, buffer.dims[d].as_const()) {
                    (Stride::Const(s), Some(e)) => {
                        let too_large = || Error::new(Kind::Problem, format!("buffer {} exceeds 64-bit addresses", buffer.name));
                        Stride::Const(s.checked_mul(e).ok_or_else(too_large)?)
                    }
                    (s, _) => {
                        let extent = self.index(&buffer.dims[d]);
                        let s = match s {
                            Stride::Const(s) => self.b.ins().iconst(types::I64, s),
                            Stride::Value(s) => s,
                        };
                        Stride::Value(self.b.ins().imul(s, extent))
                    }
                };
            }
            self.strides.insert(buffer.name, strides);
        }
        for (name, id) in self.unit.tables.clone() {
            let global = self.unit.module.declare_data_in_func(id, self.b.func);
            let at = self.b.ins().symbol_value(types::I64, global);
            self.tables.insert(name, at);
        }
        Ok(())
    }

    /// The atom's value, if it is known now.
    pub(super) fn fold(&self, atom: &Atom) -> Option<Affine> {
        let known = |v: &Name| match self.vars.get(v) {
            Some(Bound::Const(c)) => Some(*c),
            _ => None,
        };
        match atom {
            Atom::Var(v) => known(v).map(Affine::from),
            Atom::Table(t, v) => {
                let table = self.unit.func.find_table(t)?;
                table.values.get(usize::try_from(known(v)?).ok()?).map(|v| Affine::from(*v))
            }
            Atom::Scaled(s, v) => known(v).map(|v| Affine::sym(s) * v),
            Atom::Sym(_) | Atom::Div(..) => None,
        }
    }

    /// The depth of the loop from which on a term is known; `None` if a variable has no value yet.
    fn depth(&self, t: &Term) -> Option<usize> {
        let var = |v: &Name| match self.vars.get(v)? {
            Bound::Const(_) => Some(0),
            Bound::Value(_, d) => Some(*d),
        };
        match &t.atom {
            // A constant number of run-time strides differs between copies of a loop that was written out: last.
            None => Some(usize::MAX),
            Some(Atom::Sym(_)) => Some(0),
            Some(Atom::Var(v) | Atom::Table(_, v) | Atom::Scaled(_, v)) => var(v),
            Some(Atom::Div(e, _)) => e.vars().iter().map(var).try_fold(0, |d, v| Some(d.max(v?))),
        }
    }

    /// The value of an index expression.
    pub(super) fn index(&mut self, a: &Affine) -> clif::Value {
        let a = a.map_atoms(&mut |atom| self.fold(atom));
        let terms = a.terms.into_iter().map(|(atom, c)| (Term { atom: Some(atom), stride: None }, c)).collect();
        match self.sum(None, terms, usize::MAX) {
            Some(v) if a.offset == 0 => v,
            Some(v) => self.b.ins().iadd_imm_s(v, a.offset),
            None => self.b.ins().iconst(types::I64, a.offset),
        }
    }

    /// The largest (or smallest) of several index expressions.
    pub(super) fn extreme(&mut self, list: &[Affine], largest: bool) -> clif::Value {
        let mut values = list.iter().map(|a| self.index(a)).collect::<Vec<_>>().into_iter();
        let first = values.next().expect("bounds are never empty");
        values.fold(first, |a, b| if largest { self.b.ins().smax(a, b) } else { self.b.ins().smin(a, b) })
    }

    /// The address of an access (of lane 0).
    pub(super) fn address(&mut self, buffer: &Name, index: &[Affine]) -> Address {
        let (terms, offset) = self.linear(buffer, index);
        let key: Key = (Some(*buffer), terms.iter().map(|(t, c)| (t.clone(), *c)).collect());
        let base = self.sum(Some(buffer), terms, usize::MAX).expect("a buffer has a base");
        let (base, offset) = match offset.unsigned_abs() {
            0..FAR => (base, offset),
            _ => (self.b.ins().iadd_imm_s(base, offset), 0),
        };
        Address { base, offset, key: (key, offset) }
    }

    /// Terms and constant of an address in bytes.
    fn linear(&self, buffer: &Name, index: &[Affine]) -> (BTreeMap<Term, i64>, i64) {
        let (mut terms, mut offset) = (BTreeMap::new(), 0i64);
        let strides = &self.strides[buffer];
        for (d, a) in index.iter().enumerate() {
            let a = a.map_atoms(&mut |atom| self.fold(atom));
            let (scale, stride) = match strides[d] {
                Stride::Const(s) => (s, None),
                Stride::Value(_) => (1, Some((*buffer, d))),
            };
            // Addresses wrap at 64 bits: what is accessed lies in memory, so the sum is right, whatever its terms are.
            let mut add = |atom, c: i64| {
                let sum = terms.entry(Term { atom, stride }).or_insert(0i64);
                *sum = sum.wrapping_add(c);
            };
            a.terms.into_iter().for_each(|(atom, c)| add(Some(atom), c.wrapping_mul(scale)));
            match stride {
                None => offset = a.offset.wrapping_mul(scale).wrapping_add(offset),
                Some(_) if a.offset == 0 => {}
                Some(_) => add(None, a.offset),
            }
        }
        terms.retain(|_, c| *c != 0);
        (terms, offset)
    }

    /// The sum of those terms that are known at a loop depth of at most `limit`, added to a buffer's base. `None` for an empty sum without a base.
    fn sum(&mut self, base: Option<&Name>, terms: BTreeMap<Term, i64>, limit: usize) -> Option<clif::Value> {
        let known = terms.into_iter().filter_map(|(t, c)| Some((self.depth(&t)?, t, c)));
        let mut terms: Vec<_> = known.filter(|(d, ..)| *d <= limit).collect();
        terms.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut running = base.map(|n| self.bases[n]);
        let mut key: Key = (base.cloned(), Vec::new());
        for (_, t, c) in terms {
            key.1.push((t.clone(), c));
            if let Some(v) = self.scopes.iter().rev().find_map(|s| s.sums.get(&key)) {
                running = Some(*v);
                continue;
            }
            let v = self.term(&t, c);
            let sum = match running {
                Some(r) => self.b.ins().iadd(r, v),
                None => v,
            };
            self.scopes.last_mut().expect("there is a scope").sums.insert(key.clone(), sum);
            running = Some(sum);
        }
        running
    }

    fn term(&mut self, t: &Term, coefficient: i64) -> clif::Value {
        let stride = t.stride.as_ref().map(|(buffer, d)| match self.strides[buffer][*d] {
            Stride::Value(v) => v,
            Stride::Const(_) => unreachable!("constant strides are folded"),
        });
        let atom = t.atom.as_ref().map(|a| self.atom(a));
        let v = match (atom, stride) {
            (Some(a), Some(s)) => self.b.ins().imul(a, s),
            (Some(v), None) | (None, Some(v)) => v,
            (None, None) => self.b.ins().iconst(types::I64, 1),
        };
        if coefficient == 1 { v } else { self.b.ins().imul_imm_s(v, coefficient) }
    }

    fn atom(&mut self, a: &Atom) -> clif::Value {
        match a {
            Atom::Sym(s) => self.symbols[s],
            Atom::Var(v) => self.var(v.as_str()),
            Atom::Scaled(s, v) => {
                let v = self.var(v.as_str());
                self.b.ins().imul(self.symbols[s], v)
            }
            Atom::Table(t, v) => {
                let v = self.var(v.as_str());
                let at = self.b.ins().imul_imm_s(v, 8);
                let at = self.b.ins().iadd(self.tables[t], at);
                self.b.ins().load(types::I64, MemFlagsData::trusted().with_readonly(), at, 0)
            }
            // An arithmetic shift or a division of a value made non-negative by its sign: rounds down.
            Atom::Div(e, by) => {
                let e = self.index(e);
                let by_value = self.b.ins().iconst(types::I64, *by);
                let sign = self.b.ins().sshr_imm_s(e, 63);
                let flipped = self.b.ins().bxor(e, sign);
                let q = self.b.ins().udiv(flipped, by_value);
                self.b.ins().bxor(q, sign)
            }
        }
    }

    /// Computes, ahead of a loop, what accesses in its body owe to the loops around it.
    pub(super) fn hoist(&mut self, body: &[Stmt]) {
        let mut places: Vec<(&Name, &[Affine])> = Vec::new();
        body.iter().for_each(|s| accesses(s, self.unit.calls_tiles(), &mut |a| places.push((&a.buffer, &a.index))));
        let mut seen = HashSet::default();
        places.retain(|p| seen.insert(*p));
        let limit = self.scopes.len() - 1;
        for (buffer, index) in places {
            let (terms, _) = self.linear(buffer, index);
            self.sum(Some(buffer), terms, limit);
        }
    }
}

/// Calls `f` on every access of a statement and what is inside it. Tiles that are called find their own addresses.
fn accesses<'a>(s: &'a Stmt, called: bool, f: &mut impl FnMut(&'a Access)) {
    let values: &[Value] = match s {
        Stmt::Tile { .. } if called => return,
        Stmt::Set { value, .. } => std::slice::from_ref(value),
        Stmt::Store { to, parts, .. } => {
            f(to);
            parts
        }
        _ => &[],
    };
    for v in values {
        v.visit(&mut |v| {
            if let Value::Load(a) = v {
                f(a);
            }
        });
    }
    s.body().into_iter().flatten().for_each(|s| accesses(s, called, f));
}
