//! The part of pass `vector` that runs innermost copy loops over vectors.
//!
//! A copy loop is a counted innermost loop that carries nothing from one iteration to the next, stores contiguously along its variable, and loads
//! contiguously or the same for every iteration. Its tail is a clip, never a second loop.
//!
//! ```text
//! for px in 0..66:                                   for px in 0..66 step 4:
//!   copy = 0                                           copy = x[n, ic, iy, px - 1 : 4 clip 0..64]
//!   when 0 <= px - 1 < 64: copy = x[n, ic, iy, px - 1] P[ic, py, px : 4 clip ..66] = copy
//!   P[ic, py, px] = copy                         ⇒
//! ```

use super::vector::clip;
use crate::ir::{Access, Affine, Clip, Cond, Func, Lanes, Loop, LoopKind, Name, Stmt, Value};

/// Rewrites every copy loop of `run`.
pub fn run(func: &mut Func, lanes: usize) {
    let mut copied = Vec::new();
    let body = std::mem::take(&mut func.run);
    func.run = body.into_iter().map(|s| walk(s, func, lanes, &mut copied)).collect();
    for r in func.regs.iter_mut().filter(|r| copied.contains(&r.name)) {
        r.lanes = lanes;
    }
}

fn walk(s: Stmt, func: &Func, lanes: usize, copied: &mut Vec<Name>) -> Stmt {
    match s {
        Stmt::Tile { .. } | Stmt::Set { .. } | Stmt::Store { .. } => s,
        Stmt::For(l) => match (Copy { func, l: &l, lanes, assigned: Vec::new() }).rewrite() {
            Some((new, regs)) => {
                copied.extend(regs);
                new
            }
            None => {
                let body = l.body.iter().map(|s| walk(s.clone(), func, lanes, copied)).collect();
                Stmt::For(Loop { body, ..l })
            }
        },
        Stmt::When { conds, body } => Stmt::When { conds, body: body.into_iter().map(|s| walk(s, func, lanes, copied)).collect() },
    }
}

struct Copy<'a> {
    func: &'a Func,
    l: &'a Loop,
    lanes: usize,
    assigned: Vec<Name>,
}

impl Copy<'_> {
    fn on(&self, a: &Affine) -> bool {
        a.uses_var(self.l.var.as_str())
    }

    fn rewrite(mut self) -> Option<(Stmt, Vec<Name>)> {
        let l = self.l;
        if l.step != 1 || l.kind != LoopKind::Seq || !stores(&l.body) {
            return None;
        }
        let mut conds =
            l.hi.iter().map(|hi| Cond::Range { lo: l.lo[0].clone(), e: Affine::var(&l.var), hi: hi.clone() }).collect::<Vec<_>>();
        if let Some((lo, hi)) = l.const_range()
            && (hi - lo) % self.lanes as i64 == 0
        {
            conds.clear();
        }
        let body = self.list(&l.body, &conds, &[])?;
        let new = Loop { step: self.lanes as i64, body, ..l.clone() };
        Some((new.into(), self.assigned))
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
                Stmt::Set { reg, index, value } if index.is_empty() => {
                    if !conds.is_empty() && !matches!(value, Value::Load(_)) {
                        return None;
                    }
                    let value = self.value(value, tail, conds)?;
                    self.assigned.push(reg.clone());
                    out.push(Stmt::Set { reg: reg.clone(), index: index.clone(), value });
                }
                Stmt::Store { to, parts, stream } if parts.len() == 1 && conds.is_empty() => {
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
        if a.lanes.is_some()
            || a.index[dim].coef_of_var(self.l.var.as_str()) != 1
            || self.func.buffer(a.buffer.as_str()).order.last() != Some(&dim)
        {
            return None;
        }
        let clip: Option<Clip> = clip(&a.index[dim], &[tail, conds].concat(), &self.l.var, Affine::clone).ok()?;
        Some(Access { buffer: a.buffer.clone(), index: a.index.clone(), lanes: Some(Lanes { dim, count: self.lanes, step: 1, clip }) })
    }
}

fn stores(body: &[Stmt]) -> bool {
    body.iter().any(|s| matches!(s, Stmt::Store { .. })) && !body.iter().any(|s| matches!(s, Stmt::For(_) | Stmt::Tile { .. }))
}
