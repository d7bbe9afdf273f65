//! First step: a tile with its `unroll` loops written out and its index expressions resolved.
//!
//! Every access becomes a *pointer group* plus a constant displacement. A group is what can share one pointer register: the
//! loop-invariant part of the address (an argument of the tile) and the byte increments per counted loop. Constants, entries of
//! tables chosen by `unroll` variables, and single lower bounds of counted loops are folded in here.
//!
//! Needs a `tile` of stage `vector` or `lowered`. Leaves a [`Tree`] of counted loops, run-time conditions, sets and stores.

use super::asks::Asked;
use super::{AddressArg, TileArg};
use crate::ir::*;
use crate::{Error, Kind, Result};
use rustc_hash::FxHashMap as HashMap;
use std::collections::BTreeSet;

/// A quantity that changes inside the tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Term {
    /// The variable of a counted loop.
    Loop(usize),
    /// An entry of a table, chosen by the variable of a counted loop.
    Table(usize, usize),
    /// An integer argument times the variable of a counted loop.
    Scaled(usize, usize),
}

impl Term {
    /// The loop whose variable it has.
    pub(super) fn of(self) -> usize {
        let (Term::Loop(id) | Term::Table(_, id) | Term::Scaled(_, id)) = self;
        id
    }
}

/// `invariant + Σ coefficient · term`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lin {
    pub inv: Affine,
    pub terms: Vec<(Term, i64)>,
}

impl Lin {
    fn add_scaled(&mut self, other: &Lin, by: i64) {
        self.inv = std::mem::take(&mut self.inv) + other.inv.clone() * by;
        for &(t, c) in &other.terms {
            self.add_term(t, c * by);
        }
    }
    fn add_term(&mut self, term: Term, by: i64) {
        match self.terms.iter_mut().find(|(t, _)| *t == term) {
            Some((_, c)) => *c += by,
            None => self.terms.push((term, by)),
        }
        self.terms.retain(|(_, c)| *c != 0);
    }
    pub(super) fn minus(&self, other: &Lin) -> Lin {
        let mut out = self.clone();
        out.add_scaled(other, -1);
        out
    }
    pub(super) fn plus(&self, other: &Lin) -> Lin {
        let mut out = self.clone();
        out.add_scaled(other, 1);
        out
    }
    /// All but the constant.
    pub(super) fn varying(&self) -> Lin {
        let mut out = self.clone();
        out.inv.offset = 0;
        out
    }
    pub(super) fn as_const(&self) -> Option<i64> {
        if self.terms.is_empty() { self.inv.as_const() } else { None }
    }
}

/// A byte stride: known now, or an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stride {
    Const(i64),
    Arg(usize),
}

/// How far a pointer moves per unit of a term: bytes, plus multiples of strides known at run time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Inc {
    pub bytes: i64,
    pub strides: Vec<(usize, i64)>,
}

/// What shares a pointer register.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// The argument that holds the address of the invariant part.
    pub arg: usize,
    pub incs: Vec<(Term, Inc)>,
}

/// A resolved access.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub group: usize,
    pub disp: i32,
    pub buffer: usize,
    pub spread: Option<Spread>,
}

/// Lower bounds and upper bounds of a clip, minus the coordinate of lane 0.
pub(super) type Clips = (Vec<Lin>, Vec<Lin>);

/// The lanes of a resolved access.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spread {
    pub count: usize,
    pub step: i64,
    /// Between neighbouring coordinates.
    pub stride: Stride,
    pub clip: Option<Clips>,
}

/// A resolved value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Val {
    Const(f64),
    /// An entry of a register.
    Reg(usize),
    Load(Place),
    Fma(Box<[Val; 3]>),
    Bin(BinOp, Box<[Val; 2]>),
    Un(UnOp, Box<Val>),
    Select(CmpOp, Box<[Val; 4]>),
}

/// A counted loop.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub lo: Vec<Lin>,
    pub hi: Vec<Lin>,
    pub step: i64,
    /// Whether the variable starts at 0 (its lower bound is folded into every use) or at the largest lower bound.
    pub from_zero: bool,
    /// Whether its value is needed apart from addresses.
    pub var_needed: bool,
    /// Groups used inside.
    pub groups: BTreeSet<usize>,
}

/// A resolved statement.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Set {
        entry: usize,
        value: Val,
    },
    Store {
        to: Place,
        parts: Vec<Val>,
        stream: bool,
    },
    Loop {
        id: usize,
        body: Vec<Node>,
    },
    /// Runs if every condition is at least 0.
    When {
        conds: Vec<Lin>,
        body: Vec<Node>,
    },
}

/// A resolved tile.
pub(super) struct Tree {
    pub body: Vec<Node>,
    pub args: Vec<TileArg>,
    pub groups: Vec<Group>,
    pub loops: Vec<Counted>,
    /// Lanes of every register entry.
    pub entries: Vec<usize>,
    pub asked: Option<Asked>,
}

/// More statements than this after unrolling is a plan that has lost control of its code size.
const MAX_STATEMENTS: usize = 20_000;

/// Most iterations of a loop that are taken at a time.
const MOST_AT_A_TIME: usize = 8;

/// How many iterations to take at a time of a loop that only adds up: a divisor of their number, for a body of at most `most` statements.
fn at_a_time(body: &[Node], trips: i64, most: usize) -> i64 {
    let adds_up = body.iter().all(|n| matches!(n, Node::Set { .. }));
    let most = if adds_up { (most / body.len().max(1)).min(MOST_AT_A_TIME) as i64 } else { 1 };
    (1..=most).rev().find(|n| trips % n == 0 && *n < trips).unwrap_or(1)
}

/// Resolves a tile. Loops that only add up take several iterations at a time, as long as that makes at most `most` statements.
pub(super) fn resolve(func: &Func, tile: &Stmt, most: usize) -> Result<Tree> {
    let Stmt::Tile { name, asks, body } = tile else {
        return Err(Error::new(Kind::Ir, "wide code generation was given a statement that is not a tile"));
    };
    if func.stage < Stage::Vector {
        return Err(Error::new(
            Kind::Ir,
            format!("tile {name} is at stage {:?}; wide code generation takes Vector or Lowered", func.stage),
        ));
    }
    let mut r = Resolver {
        func,
        regs: HashMap::default(),
        env: HashMap::default(),
        strides: HashMap::default(),
        keys: Vec::new(),
        open: Vec::new(),
        statements: 0,
        most,
        tree: Tree { body: Vec::new(), args: Vec::new(), groups: Vec::new(), loops: Vec::new(), entries: Vec::new(), asked: None },
    };
    for reg in &func.regs {
        if reg.lanes == 0 {
            return Err(ir(format!("register {} has 0 lanes; it must have at least 1", reg.name)));
        }
        r.regs.insert(reg.name.as_str(), (r.tree.entries.len(), reg));
        r.tree.entries.extend(std::iter::repeat_n(reg.lanes, reg.dims.iter().product()));
    }
    let body = r.body(body).map_err(|e| e.context(format!("tile {name}")))?;
    r.tree.body = body;
    r.tree.asked = asks.as_ref().map(|a| r.asked(a)).transpose().map_err(|e| e.context(format!("tile {name}")))?;
    Ok(r.tree)
}

/// What a variable bound inside the tile stands for.
enum Bind {
    Const(i64),
    Counted { id: usize, base: Lin },
}

pub(super) struct Resolver<'a> {
    pub(super) func: &'a Func,
    /// First entry of each register.
    regs: HashMap<&'a str, (usize, &'a Reg)>,
    env: HashMap<Name, Bind>,
    strides: HashMap<usize, Vec<Option<i64>>>,
    /// Invariant index of each group, beside `tree.groups`.
    keys: Vec<(usize, Vec<Affine>)>,
    open: Vec<usize>,
    statements: usize,
    /// Most statements of a loop that takes several iterations at a time.
    most: usize,
    pub(super) tree: Tree,
}

pub(super) fn ir(message: String) -> Error {
    Error::new(Kind::Ir, message)
}

impl<'a> Resolver<'a> {
    fn body(&mut self, body: &[Stmt]) -> Result<Vec<Node>> {
        let mut out = Vec::new();
        for s in body {
            self.stmt(s, &mut out)?;
        }
        Ok(out)
    }

    fn stmt(&mut self, s: &Stmt, out: &mut Vec<Node>) -> Result<()> {
        self.statements += 1;
        if self.statements > MAX_STATEMENTS {
            let m = format!("it unrolls to more than {MAX_STATEMENTS} statements; make its unroll loops shorter");
            return Err(Error::new(Kind::Options, m));
        }
        match s {
            Stmt::For(l) => self.for_loop(l, out),
            Stmt::When { conds, body } => self.when(conds, body, out),
            Stmt::Tile { name, .. } => Err(ir(format!("tile {name} lies inside another tile"))),
            Stmt::Set { reg, index, value } => {
                let entry = self.entry(reg, index)?;
                out.push(Node::Set { entry, value: self.value(value)? });
                Ok(())
            }
            Stmt::Store { to, parts, stream } => {
                let parts = parts.iter().map(|p| self.value(p)).collect::<Result<_>>()?;
                out.push(Node::Store { to: self.place(to)?, parts, stream: *stream });
                Ok(())
            }
        }
    }

    fn for_loop(&mut self, l: &Loop, out: &mut Vec<Node>) -> Result<()> {
        let lo = l.lo.iter().map(|a| self.lin(a)).collect::<Result<Vec<_>>>()?;
        let hi = l.hi.iter().map(|a| self.lin(a)).collect::<Result<Vec<_>>>()?;
        if l.step < 1 {
            return Err(ir(format!("loop {} has step {}; it must be at least 1", l.var, l.step)));
        }
        let first = lo.iter().map(Lin::as_const).collect::<Option<Vec<_>>>().and_then(|v| v.into_iter().max());
        let last = hi.iter().map(Lin::as_const).collect::<Option<Vec<_>>>().and_then(|v| v.into_iter().min());
        if let (Some(first), Some(last)) = (first, last) {
            if last <= first {
                return Ok(());
            }
            if l.kind == LoopKind::Unroll || last - first <= l.step {
                for i in (first..last).step_by(l.step as usize) {
                    self.env.insert(l.var, Bind::Const(i));
                    for s in &l.body {
                        self.stmt(s, out)?;
                    }
                }
                self.env.remove(&l.var);
                return Ok(());
            }
        }
        match l.kind {
            LoopKind::Seq => self.counted(l, lo, hi, out),
            LoopKind::Unroll => Err(ir(format!("unroll loop {} has bounds that are not constant", l.var))),
            LoopKind::Par => Err(ir(format!("loop {} inside a tile is par; only seq and unroll are legal there", l.var))),
        }
    }

    fn counted(&mut self, l: &Loop, lo: Vec<Lin>, hi: Vec<Lin>, out: &mut Vec<Node>) -> Result<()> {
        let id = self.tree.loops.len();
        let from_zero = lo.len() == 1 && !l.indexes_table();
        let base = if from_zero { lo[0].clone() } else { Lin { inv: 0.into(), terms: Vec::new() } };
        let (needed, groups) = (false, BTreeSet::new());
        self.need_vars(lo.iter().chain(&hi));
        let trips = match (&lo[..], &hi[..]) {
            ([lo], [hi]) => hi.minus(lo).as_const().map(|n| (n + l.step - 1) / l.step),
            _ => None,
        };
        self.tree.loops.push(Counted { lo, hi, step: l.step, from_zero, var_needed: needed, groups });
        self.env.insert(l.var, Bind::Counted { id, base: base.clone() });
        self.open.push(id);
        let mut body = self.body(&l.body)?;
        let times = trips.filter(|_| from_zero).map_or(1, |trips| at_a_time(&body, trips, self.most));
        for more in 1..times {
            let mut base = base.clone();
            base.inv.offset += more * l.step;
            self.env.insert(l.var, Bind::Counted { id, base });
            body.extend(self.body(&l.body)?);
        }
        self.tree.loops[id].step *= times;
        self.open.pop();
        self.env.remove(&l.var);
        out.push(Node::Loop { id, body });
        Ok(())
    }

    fn when(&mut self, conds: &[Cond], body: &[Stmt], out: &mut Vec<Node>) -> Result<()> {
        let mut open = Vec::new();
        for c in conds {
            let Cond::Range { lo, e, hi } = c else {
                return Err(ir("a congruence condition is legal only before stage phases".into()));
            };
            let (lo, e, mut hi) = (self.lin(lo)?, self.lin(e)?, self.lin(hi)?);
            hi.inv.offset -= 1;
            for d in [e.minus(&lo), hi.minus(&e)] {
                match d.as_const() {
                    Some(v) if v < 0 => return Ok(()),
                    Some(_) => {}
                    None => open.push(d),
                }
            }
        }
        self.need_vars(open.iter());
        let body = self.body(body)?;
        match out.last_mut() {
            _ if open.is_empty() => out.extend(body),
            // Nothing inside changes what a condition tests.
            Some(Node::When { conds, body: before }) if *conds == open => before.extend(body),
            _ => out.push(Node::When { conds: open, body }),
        }
        Ok(())
    }

    /// Marks the loops whose variables the expressions use.
    fn need_vars<'b>(&mut self, exprs: impl Iterator<Item = &'b Lin>) {
        for (t, _) in exprs.flat_map(|e| &e.terms) {
            self.tree.loops[t.of()].var_needed = true;
        }
    }

    fn value(&mut self, v: &Value) -> Result<Val> {
        Ok(match v {
            Value::Const(c) => Val::Const(*c),
            Value::Reg(name, index) => Val::Reg(self.entry(name, index)?),
            Value::Load(a) => Val::Load(self.place(a)?),
            Value::Fma(v) => Val::Fma(Box::new([self.value(&v[0])?, self.value(&v[1])?, self.value(&v[2])?])),
            Value::Bin(op, v) => Val::Bin(*op, Box::new([self.value(&v[0])?, self.value(&v[1])?])),
            Value::Un(op @ (UnOp::Tanh | UnOp::Sigmoid), _) => {
                return Err(ir(format!("{op:?} must be replaced by polynomials before code generation")));
            }
            Value::Un(op, v) => Val::Un(*op, Box::new(self.value(v)?)),
            Value::Select(op, v) => {
                let [a, b, t, e] = &**v;
                Val::Select(*op, Box::new([self.value(a)?, self.value(b)?, self.value(t)?, self.value(e)?]))
            }
        })
    }

    fn entry(&mut self, name: &Name, index: &[Affine]) -> Result<usize> {
        let &(base, reg) = self.regs.get(name.as_str()).ok_or_else(|| ir(format!("no register {name}")))?;
        let mut flat = 0;
        if index.len() != reg.dims.len() {
            return Err(ir(format!("register {name} has {} dimensions and {} indices", reg.dims.len(), index.len())));
        }
        for (a, &n) in index.iter().zip(&reg.dims) {
            let at = self.lin(a)?.as_const();
            let at = at.ok_or_else(|| ir(format!("an index of register {name} is not a constant after unrolling")))?;
            if at < 0 || at >= n as i64 {
                return Err(ir(format!("index {at} of register {name} is outside 0..{n}")));
            }
            flat = flat * n + at as usize;
        }
        Ok(base + flat)
    }

    /// An index expression with the variables of the tile resolved.
    fn lin(&mut self, a: &Affine) -> Result<Lin> {
        let mut out = Lin { inv: a.offset.into(), terms: Vec::new() };
        for (atom, &c) in &a.terms {
            match atom {
                Atom::Sym(_) => out.inv.add_term(*atom, c),
                Atom::Var(v) => match self.env.get(v) {
                    None => out.inv.add_term(*atom, c),
                    Some(Bind::Const(i)) => out.inv.offset += c * i,
                    Some(Bind::Counted { id, base }) => {
                        let (id, base) = (*id, base.clone());
                        out.add_term(Term::Loop(id), c);
                        out.add_scaled(&base, c);
                    }
                },
                Atom::Scaled(s, v) => match self.env.get(v) {
                    None => out.inv.add_term(*atom, c),
                    Some(Bind::Const(i)) => out.inv.add_term(Atom::Sym(*s), c * i),
                    Some(Bind::Counted { id, base }) => {
                        let id = *id;
                        let base = base.as_const().ok_or_else(|| ir(format!("{s} scales {v}, which starts at no constant")))?;
                        out.inv.add_term(Atom::Sym(*s), c * base);
                        let arg = intern(&mut self.tree.args, TileArg::Int(Affine::sym(s)));
                        out.add_term(Term::Scaled(arg, id), c);
                    }
                },
                Atom::Table(t, v) => match self.env.get(v) {
                    None => out.inv.add_term(*atom, c),
                    Some(bind) => {
                        let found = self.func.tables.iter().position(|x| x.name == *t);
                        let at = found.ok_or_else(|| ir(format!("no table {t}")))?;
                        match bind {
                            Bind::Const(i) => {
                                let values = &self.func.tables[at].values;
                                let v = usize::try_from(*i).ok().and_then(|i| values.get(i));
                                let v = v.ok_or_else(|| ir(format!("index {i} of table {t} is outside 0..{}", values.len())))?;
                                out.inv.offset += c * v;
                            }
                            Bind::Counted { id, .. } => {
                                let id = *id;
                                self.tree.loops[id].var_needed = true;
                                out.add_term(Term::Table(at, id), c);
                            }
                        }
                    }
                },
                Atom::Div(..) => return Err(ir("floor division is legal only before stage phases".into())),
            }
        }
        Ok(out)
    }

    fn place(&mut self, a: &Access) -> Result<Place> {
        let found = self.func.buffers.iter().position(|b| b.name == a.buffer);
        let at = found.ok_or_else(|| ir(format!("no buffer {}", a.buffer)))?;
        let buffer = &self.func.buffers[at];
        if buffer.elem != self.func.elem {
            let (b, f) = (buffer.elem.name(), self.func.elem.name());
            return Err(ir(format!("buffer {} holds {b} and the function computes in {f}; they must agree", a.buffer)));
        }
        if a.index.len() != buffer.dims.len() {
            return Err(ir(format!("buffer {} has {} dimensions and {} indices", a.buffer, buffer.dims.len(), a.index.len())));
        }
        let strides = self.strides_of(at);
        let index = a.index.iter().map(|i| self.lin(i)).collect::<Result<Vec<_>>>()?;
        let (mut disp, mut incs, mut key) = (0i64, Vec::<(Term, Inc)>::new(), Vec::new());
        for (dim, (lin, &stride)) in index.iter().zip(&strides).enumerate() {
            let mut inv = lin.inv.clone();
            if let Some(bytes) = stride {
                let moved = inv.offset.checked_mul(bytes).and_then(|b| disp.checked_add(b));
                if let Some(d) = moved.filter(|d| d.abs() < 1 << 30) {
                    disp = d;
                    inv.offset = 0;
                }
            }
            key.push(inv);
            for &(term, c) in &lin.terms {
                match (term, stride) {
                    (Term::Scaled(arg, id), Some(bytes)) => add_inc(&mut incs, Term::Loop(id), Stride::Arg(arg), c * bytes),
                    (Term::Scaled(..), None) => return Err(ir(format!("a scaled index of {}, whose extents are open", a.buffer))),
                    _ => add_inc(&mut incs, term, self.stride(at, dim, stride), c),
                }
            }
        }
        incs.retain(|(_, i)| *i != Inc::default());
        let group = self.group(at, key, incs);
        let spread = match &a.lanes {
            None => None,
            Some(l) if l.dim >= index.len() => {
                return Err(ir(format!("lanes lie along dimension {} of {}, which has {}", l.dim, a.buffer, index.len())));
            }
            Some(l) => {
                let stride = self.stride(at, l.dim, strides[l.dim]);
                Some(self.spread(l, &index[l.dim], stride)?)
            }
        };
        Ok(Place { group, disp: disp as i32, buffer: at, spread })
    }

    fn spread(&mut self, l: &Lanes, at: &Lin, stride: Stride) -> Result<Spread> {
        if l.count == 0 || l.step < 1 {
            return Err(ir(format!("an access has {} lanes at step {}; both must be at least 1", l.count, l.step)));
        }
        let clip = match &l.clip {
            None => None,
            Some(c) => {
                let lo = c.lo.iter().map(|b| Ok(self.lin(b)?.minus(at))).collect::<Result<Vec<_>>>()?;
                let hi = c.hi.iter().map(|b| Ok(self.lin(b)?.minus(at))).collect::<Result<Vec<_>>>()?;
                self.need_vars(lo.iter().chain(&hi));
                Some((lo, hi))
            }
        };
        Ok(Spread { count: l.count, step: l.step, stride, clip })
    }

    /// Byte strides of a buffer's dimensions: products of the extents inside them, `None` where a symbol is among these.
    pub(super) fn strides_of(&mut self, at: usize) -> Vec<Option<i64>> {
        if let Some(s) = self.strides.get(&at) {
            return s.clone();
        }
        let b = &self.func.buffers[at];
        let mut out = vec![None; b.dims.len()];
        let mut inner = Some(b.elem.bytes() as i64);
        for &dim in b.order.iter().rev() {
            out[dim] = inner;
            inner = inner.and_then(|i| i.checked_mul(b.dims[dim].as_const()?));
        }
        self.strides.insert(at, out.clone());
        out
    }

    /// A stride that the tile's code uses: an argument if it is not known now.
    pub(super) fn stride(&mut self, buffer: usize, dim: usize, known: Option<i64>) -> Stride {
        match known {
            Some(bytes) => Stride::Const(bytes),
            None => {
                let buffer = self.func.buffers[buffer].name;
                Stride::Arg(intern(&mut self.tree.args, TileArg::Stride { buffer, dim }))
            }
        }
    }

    fn group(&mut self, buffer: usize, index: Vec<Affine>, incs: Vec<(Term, Inc)>) -> usize {
        let same = |g: usize| self.keys[g].0 == buffer && self.keys[g].1 == index && self.tree.groups[g].incs == incs;
        let id = match (0..self.keys.len()).rev().find(|&g| same(g)) {
            Some(g) => g,
            None => {
                let name = self.func.buffers[buffer].name;
                let address = AddressArg { buffer: name, index: index.clone() };
                let arg = intern(&mut self.tree.args, TileArg::Address(address));
                self.keys.push((buffer, index));
                self.tree.groups.push(Group { arg, incs });
                self.keys.len() - 1
            }
        };
        for &l in &self.open {
            self.tree.loops[l].groups.insert(id);
        }
        id
    }
}

fn add_inc(incs: &mut Vec<(Term, Inc)>, term: Term, stride: Stride, coef: i64) {
    let at = incs.iter().position(|(t, _)| *t == term).unwrap_or_else(|| {
        incs.push((term, Inc::default()));
        incs.len() - 1
    });
    match stride {
        Stride::Const(bytes) => incs[at].1.bytes += bytes * coef,
        Stride::Arg(arg) => incs[at].1.strides.push((arg, coef)),
    }
}

/// The index of an argument, which is added if it is new.
pub(super) fn intern(args: &mut Vec<TileArg>, arg: TileArg) -> usize {
    args.iter().position(|a| *a == arg).unwrap_or_else(|| {
        args.push(arg);
        args.len() - 1
    })
}
