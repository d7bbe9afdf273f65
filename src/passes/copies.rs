//! The part of pass `vector` that runs innermost copy loops over vectors.
//!
//! A copy loop is a counted innermost loop that carries nothing from one iteration to the next, stores along its variable, and loads along it
//! or the same for every iteration. It may compute on the way, as transforms do. Its tail is a clip, never a second loop. Where a row is copied as it is by wide vectors, several
//! of them go at a time, so that what guards the row is tested once for all, and clips at places that are constants cost nothing.
//!
//! ```text
//! for px in 0..66:                                         unroll px.v in 0..5: copy[px.v] = 0
//!   copy = 0                                               when 0 <= py < 64:
//!   when 0 <= py < 64 and 0 <= px - 1 < 64:          ⇒       unroll px.v in 0..5: copy[px.v] = x[n, ic, py, 16*px.v - 1 : 16 clip 0..64]
//!     copy = x[n, ic, py, px - 1]                          unroll px.v in 0..5: P[ic, py, 16*px.v : 16 clip 0..66] = copy[px.v]
//!   P[ic, py, px] = copy
//! ```
//!
//! A nest that copies between orders, from pixels with all their channels to rows or back, goes by squares of as many vectors as there are lanes ([`turn`]).

use super::nest::{peel, wrap};
use super::panel::up;
use super::vector::{clip, interleave};
use crate::ir::names::part;
use crate::ir::{Access, Affine, Clip, Cond, Func, Lanes, Loop, LoopKind, Name, Stmt, Value};

/// Rewrites every copy loop.
pub fn run(func: &mut Func, lanes: usize) {
    let mut copied = Vec::new();
    let (run, prepare) = (std::mem::take(&mut func.run), std::mem::take(&mut func.prepare));
    let mut rewrite = |body: Vec<Stmt>| -> Vec<Stmt> {
        let body = body.into_iter().map(|s| walk(s, func, lanes, &mut copied));
        body.map(|s| interleave(s, &func.buffers)).collect()
    };
    let (run, prepare) = (rewrite(run), rewrite(prepare));
    (func.run, func.prepare) = (run, prepare);
    for (name, entries) in copied {
        let r = func.regs.iter_mut().find(|r| r.name == name).expect("the register was declared");
        r.lanes = lanes;
        if entries > 0 {
            r.dims = vec![entries.max(r.dims.first().copied().unwrap_or(0))];
        }
    }
}

/// Vectors that are copied at a time: they wait in as many registers.
const AT_A_TIME: i64 = 8;
/// A row of at most so many vectors is written out.
const WRITTEN_OUT: i64 = 32;

fn walk(s: Stmt, func: &Func, lanes: usize, copied: &mut Vec<(Name, usize)>) -> Stmt {
    if let Some((new, copy)) = turn(&s, func, lanes) {
        copied.push(copy);
        return new;
    }
    match s {
        Stmt::Tile { .. } | Stmt::Set { .. } | Stmt::Store { .. } => s,
        Stmt::For(mut l) => {
            let rewritten = Copy { func, l: &l, lanes, assigned: Vec::new(), apart: !plain(&l.body) || several(&l.body) }.rewrite();
            if let Some((new, regs)) = rewritten {
                copied.extend(regs);
                return new;
            }
            l.body = l.body.into_iter().map(|s| walk(s, func, lanes, copied)).collect();
            Stmt::For(l)
        }
        Stmt::When { conds, body } => Stmt::When { conds, body: body.into_iter().map(|s| walk(s, func, lanes, copied)).collect() },
    }
}

/// A nest that copies from rows along one variable to rows along another: vectors are loaded along the former, as many as there are lanes, and
/// stored lane by lane; what neighbouring stores write to a lane lies side by side.
fn turn(s: &Stmt, func: &Func, lanes: usize) -> Option<(Stmt, (Name, usize))> {
    let (loops, body) = peel(std::slice::from_ref(s));
    if loops.iter().any(|l| l.kind != LoopKind::Seq) {
        return None;
    }
    let (copy, zero, conds, from, to) = match body {
        [Stmt::Set { reg, value: zero @ Value::Const(_), .. }, Stmt::When { conds, body }, Stmt::Store { to, .. }] => match &body[..] {
            [Stmt::Set { value: Value::Load(from), .. }] => (reg, Some(zero), &conds[..], from, to),
            _ => return None,
        },
        [Stmt::Set { reg, value: Value::Load(from), .. }, Stmt::Store { to, .. }] => (reg, None, &[][..], from, to),
        _ => return None,
    };
    let innermost = |a: &Access| {
        let dim = *func.buffer(a.buffer.as_str()).order.last()?;
        let along = |l: &&Loop| a.index[dim].coef_of_var(l.var.as_str()) == 1;
        loops.iter().find(along).map(|l| (l.clone(), dim))
    };
    let ((u, source), (v, target)) = (innermost(from)?, innermost(to)?);
    let across = (0..to.index.len()).find(|d| to.index[*d].uses_var(u.var.as_str()))?;
    let dense = |l: &Loop| l.const_range().filter(|r| l.step == 1 && r.0 == 0).map(|r| r.1);
    let (wide, high) = (dense(&u)?, dense(&v)?);
    let places = from.index.iter().chain(&to.index).chain(conds.iter().flat_map(Cond::affines));
    if [&u.var, &v.var].into_iter().any(|v| !places.clone().all(|a| even(a, v))) {
        return None;
    }
    if u.var == v.var || to.index[across] != Affine::var(u.var) || to.index[target] != Affine::var(v.var) {
        return None;
    }
    // As many rows at a time as there are lanes, where the target has room for them; otherwise a divisor of their number.
    let n = lanes as i64;
    let room = func.buffer(to.buffer.as_str()).dims[target].as_const()?;
    let rows = if up(high, n) <= room { n } else { (4..=n).rev().find(|r| high % r == 0)? };
    let row = part(&v.var, "v");
    let at = Affine::var(v.var) + Affine::var(row);
    let exists = Cond::Range { lo: 0.into(), e: at.clone(), hi: high.into() };
    let along = |c: &Cond| c.affines().iter().any(|a| a.uses_var(u.var.as_str()));
    let (lane, mut rest): (Vec<Cond>, Vec<Cond>) = conds.iter().cloned().partition(along);
    rest.iter_mut().for_each(|c| c.map_affine(&mut |a| a.subst(v.var.as_str(), &at)));
    rest.extend((high % rows != 0).then_some(exists));
    let tail: Vec<Cond> =
        (wide % n != 0).then(|| Cond::Range { lo: 0.into(), e: Affine::var(u.var), hi: wide.into() }).into_iter().collect();
    let access = |a: &Access, dim: usize, conds: &[Cond]| {
        let clip = clip(&a.index[dim], conds, &u.var, Affine::clone).ok()?;
        let mut to = Access { lanes: Some(Lanes { dim, count: lanes, step: 1, clip }), ..a.clone() };
        to.map_affine(&mut |a| a.subst(v.var.as_str(), &at));
        Some(to)
    };
    let index = vec![Affine::var(row)];
    let set = |value| Stmt::Set { reg: *copy, index: index.clone(), value };
    let each = |s: Vec<Stmt>| Stmt::from(Loop::new(row, rows, s).kind(LoopKind::Unroll));
    let load = set(Value::Load(access(from, source, &[&tail[..], &lane].concat())?));
    let store = Stmt::Store { to: access(to, across, &tail)?, parts: vec![Value::Reg(*copy, index.clone())], stream: false };
    let zero = zero.cloned().or((!rest.is_empty()).then_some(Value::Const(0.0)));
    let mut body: Vec<Stmt> = zero.into_iter().map(|z| each(vec![set(z)])).collect();
    body.extend([each(Stmt::when(rest, vec![load])), each(vec![store])]);
    let mut nest: Vec<Loop> = loops.iter().filter(|l| l.var != u.var && l.var != v.var).cloned().collect();
    nest.extend([Loop { step: rows, ..v }, Loop { step: n, ..u }]);
    let mut nest = wrap(&nest, body);
    Some((nest.remove(0), (*copy, rows as usize)))
}

struct Copy<'a> {
    func: &'a Func,
    l: &'a Loop,
    lanes: usize,
    assigned: Vec<Name>,
    /// Whether lanes may lie apart in memory: values are computed, not only moved, or several are loaded together.
    apart: bool,
}

impl Copy<'_> {
    fn on(&self, a: &Affine) -> bool {
        a.uses_var(self.l.var.as_str())
    }

    fn rewrite(mut self) -> Option<(Stmt, Vec<(Name, usize)>)> {
        let l = self.l;
        if l.step != 1 || l.kind != LoopKind::Seq || !stores(&l.body) {
            return None;
        }
        let lanes = self.lanes as i64;
        let each = self.at_a_time();
        let covered = |(lo, hi): (i64, i64)| (hi - lo) % (lanes * each) == 0;
        let tail = |hi: &Affine| Cond::Range { lo: l.lo[0].clone(), e: Affine::var(l.var), hi: hi.clone() };
        let conds: Vec<Cond> = if l.const_range().is_some_and(covered) { Vec::new() } else { l.hi.iter().map(tail).collect() };
        let mut body = self.list(&l.body, &conds, &[])?;
        if each == 1 {
            let new = Loop { step: lanes, ..l.around(body) };
            return Some((new.into(), self.assigned.into_iter().map(|r| (r, 0)).collect()));
        }
        let v = part(&l.var, "v");
        let at = Affine::var(l.var) + Affine::var(v) * lanes;
        body = body.iter().map(|s| self.spread(s, &v, each)).collect();
        body.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst(l.var.as_str(), &at)));
        let short = l.const_range().is_some_and(|(lo, hi)| hi - lo <= WRITTEN_OUT * lanes);
        let new = Loop { step: lanes * each, kind: if short { LoopKind::Unroll } else { l.kind }, ..l.around(body) };
        Some((new.into(), self.assigned.into_iter().map(|r| (r, each as usize)).collect()))
    }

    /// How many vectors go at a time: as few rounds as possible, all of the same number.
    fn at_a_time(&self) -> i64 {
        let lanes = self.lanes as i64;
        let wide = self.lanes * self.func.elem.bytes() > 16;
        let plain = plain(&self.l.body) && !several(&self.l.body);
        let Some((lo, hi)) = self.l.const_range().filter(|(lo, hi)| wide && hi > lo && plain) else { return 1 };
        let vectors = (hi - lo + lanes - 1) / lanes;
        let most = (AT_A_TIME / registers(&self.l.body)).max(1);
        let rounds = (vectors + most - 1) / most;
        (vectors + rounds - 1) / rounds
    }

    /// A statement on one vector, for each of several.
    fn spread(&self, s: &Stmt, v: &Name, each: i64) -> Stmt {
        let value = |x: &Value| {
            x.clone().map(&mut |x| match x {
                Value::Reg(r, _) if self.assigned.contains(&r) => Value::Reg(r, vec![Affine::var(v)]),
                x => x,
            })
        };
        let one = match s {
            Stmt::When { conds, body } => {
                return Stmt::When { conds: conds.clone(), body: body.iter().map(|s| self.spread(s, v, each)).collect() };
            }
            Stmt::Set { reg, value: x, .. } => Stmt::Set { reg: *reg, index: vec![Affine::var(v)], value: value(x) },
            Stmt::Store { to, parts, stream } => Stmt::Store { to: to.clone(), parts: parts.iter().map(value).collect(), stream: *stream },
            Stmt::For(_) | Stmt::Tile { .. } => unreachable!("a copy loop is innermost"),
        };
        Loop::new(v, each, vec![one]).kind(LoopKind::Unroll).into()
    }

    /// `tail` bounds the iterations that exist, `conds` are the guards inside the loop.
    fn list(&mut self, list: &[Stmt], tail: &[Cond], conds: &[Cond]) -> Option<Vec<Stmt>> {
        let mut out = Vec::new();
        for s in list {
            match s {
                Stmt::When { conds: here, body } => {
                    let (lane, rest): (Vec<_>, Vec<_>) = here.iter().cloned().partition(|c| c.affines().iter().any(|a| self.on(a)));
                    out.extend(Stmt::when(rest, self.list(body, tail, &[conds, &lane].concat())?));
                }
                Stmt::For(l) if l.kind == LoopKind::Unroll => {
                    let body = self.list(&l.body, tail, conds)?;
                    out.push(l.around(body).into());
                }
                Stmt::Set { reg, index, value } => {
                    if !conds.is_empty() && !matches!(value, Value::Load(_)) {
                        return None;
                    }
                    let value = self.value(value, tail, conds)?;
                    self.assigned.push(*reg);
                    out.push(Stmt::Set { reg: *reg, index: index.clone(), value });
                }
                Stmt::Store { to, parts, stream } if parts.len() == 1 => {
                    let value = self.value(&parts[0], tail, conds)?;
                    let to = self.access(to, tail, conds).filter(|t| t.lanes.is_some())?;
                    out.push(Stmt::Store { to, parts: vec![value], stream: *stream });
                }
                _ => return None,
            }
        }
        Some(out)
    }

    fn value(&self, v: &Value, tail: &[Cond], conds: &[Cond]) -> Option<Value> {
        let mut possible = true;
        let out = v.clone().map(&mut |v| match &v {
            Value::Load(a) => match self.access(a, tail, conds) {
                Some(a) => Value::Load(a),
                None => {
                    possible = false;
                    v
                }
            },
            Value::Reg(r, _) => {
                possible &= self.assigned.contains(r);
                v
            }
            _ => v,
        });
        possible.then_some(out)
    }

    fn access(&self, a: &Access, tail: &[Cond], conds: &[Cond]) -> Option<Access> {
        let along: Vec<usize> = (0..a.index.len()).filter(|d| self.on(&a.index[*d])).collect();
        let [dim] = along[..] else { return along.is_empty().then(|| a.clone()) };
        let step = a.index[dim].coef_of_var(self.l.var.as_str());
        let contiguous = self.func.buffer(a.buffer.as_str()).order.last() == Some(&dim);
        // What a table says of the variable is not the same distance from lane to lane.
        if a.lanes.is_some() || step < 1 || !even(&a.index[dim], &self.l.var) || !contiguous && !self.apart {
            return None;
        }
        let clip: Option<Clip> = clip(&a.index[dim], &[tail, conds].concat(), &self.l.var, Affine::clone).ok()?;
        Some(Access { buffer: a.buffer, index: a.index.clone(), lanes: Some(Lanes { dim, count: self.lanes, step, clip }) })
    }
}

/// Whether an expression moves by the same for every step of a variable, as what a table says of it does not.
fn even(a: &Affine, var: &Name) -> bool {
    !(a.clone() - Affine::var(var) * a.coef_of_var(var.as_str())).uses_var(var.as_str())
}

/// Whether values are only moved, so that each needs one register.
fn plain(body: &[Stmt]) -> bool {
    let moved = |v: &Value| matches!(v, Value::Const(_) | Value::Load(_) | Value::Reg(..));
    body.iter().all(|s| match s {
        Stmt::When { body, .. } => plain(body),
        Stmt::Set { value, .. } => moved(value),
        Stmt::Store { parts, .. } => parts.iter().all(moved),
        Stmt::For(_) | Stmt::Tile { .. } => false,
    })
}

/// Whether a body loads more than one value: neighbours in memory share their way to the registers.
fn several(body: &[Stmt]) -> bool {
    let mut loads = 0;
    for s in body {
        s.visit(&mut |s| loads += usize::from(matches!(s, Stmt::Set { value: Value::Load(_), .. })));
    }
    loads > 1
}

/// How many registers a body sets.
fn registers(body: &[Stmt]) -> i64 {
    let mut set: Vec<Name> = Vec::new();
    for s in body {
        s.visit(&mut |s| {
            if let Stmt::Set { reg, .. } = s
                && !set.contains(reg)
            {
                set.push(*reg);
            }
        });
    }
    set.len().max(1) as i64
}

/// Whether a body stores, and holds no counted loop.
fn stores(body: &[Stmt]) -> bool {
    let (mut stores, mut counts) = (false, false);
    for s in body {
        s.visit(&mut |s| match s {
            Stmt::Store { .. } => stores = true,
            Stmt::For(l) => counts |= l.kind != LoopKind::Unroll,
            Stmt::Tile { .. } => counts = true,
            Stmt::Set { .. } | Stmt::When { .. } => {}
        });
    }
    stores && !counts
}
