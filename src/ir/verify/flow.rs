//! Registers are set before they are read: `unroll` loops are written out, so that register arrays are followed
//! entry by entry; a `when` that unrolled variables do not decide, or a loop that may have no iteration, sets nothing
//! for what follows it.
//!
//! Runs after the other checks, on functions in which names resolve and ranks match. A section starts with
//! nothing set. Sections that write out to more than [`MOST_STEPS`] statements are followed no further.

use super::*;
use std::collections::{HashMap, HashSet};

/// Statements that are followed in one section.
const MOST_STEPS: usize = 1 << 17;

struct Flow<'a> {
    func: &'a Func,
    unrolled: HashMap<&'a str, i64>,
    /// Entries that are set: a register and its place in the array.
    set: HashSet<(&'a str, usize)>,
    steps: usize,
}

pub(super) fn check(func: &Func, report: &mut Report) {
    for (section, body) in [("prepare", &func.prepare), ("run", &func.run)] {
        report.within(section, |report| {
            let mut flow = Flow { func, unrolled: HashMap::new(), set: HashSet::new(), steps: 0 };
            flow.all(body, report);
        });
    }
}

impl<'a> Flow<'a> {
    fn statement(&mut self, s: &'a Stmt, report: &mut Report) {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return;
        }
        report.within(step_name(s), |report| match s {
            Stmt::For(l) if l.kind == LoopKind::Unroll => self.unroll(l, report),
            Stmt::For(l) => match range::Values::of(l) {
                Some(None) => {}
                Some(Some(_)) => self.all(&l.body, report),
                None => self.perhaps(&l.body, report),
            },
            Stmt::When { conds, body } => match self.decided(conds) {
                Some(true) => self.all(body, report),
                Some(false) => {}
                None => self.perhaps(body, report),
            },
            Stmt::Tile { body, .. } => self.all(body, report),
            Stmt::Set { reg, index, value } => {
                self.reads(value, report);
                if let Some(entry) = self.entry(reg, index, report) {
                    self.set.insert(entry);
                }
            }
            Stmt::Store { parts, .. } => parts.iter().for_each(|v| self.reads(v, report)),
        });
    }

    fn all(&mut self, body: &'a [Stmt], report: &mut Report) {
        body.iter().for_each(|s| self.statement(s, report));
    }

    /// A body that may not run: what it sets does not count afterwards.
    fn perhaps(&mut self, body: &'a [Stmt], report: &mut Report) {
        let mut assigns = false;
        body.iter().for_each(|s| s.visit(&mut |s| assigns |= matches!(s, Stmt::Set { .. })));
        if !assigns {
            return self.all(body, report);
        }
        let before = self.set.clone();
        self.all(body, report);
        self.set = before;
    }

    fn unroll(&mut self, l: &'a Loop, report: &mut Report) {
        let (Some(mut v), Some(end)) = (self.constant(&l.lo[0]), self.constant(&l.hi[0])) else { return };
        while v < end && self.steps <= MOST_STEPS {
            self.unrolled.insert(l.var.as_str(), v);
            self.all(&l.body, report);
            let Some(next) = v.checked_add(l.step) else { break };
            v = next;
            // A loop with an empty body takes steps too.
            self.steps += 1;
        }
        self.unrolled.remove(l.var.as_str());
    }

    /// Whether conditions hold, where unrolled variables decide that.
    fn decided(&self, conds: &[Cond]) -> Option<bool> {
        let each: Vec<_> = conds
            .iter()
            .map(|c| match c {
                Cond::Range { lo, e, hi } => {
                    let e = self.constant(e)?;
                    Some(self.constant(lo)? <= e && e < self.constant(hi)?)
                }
                Cond::Multiple { e, m } => Some(self.constant(e)?.rem_euclid(*m) == 0),
            })
            .collect();
        if each.contains(&Some(false)) { Some(false) } else { each.into_iter().all(|c| c == Some(true)).then_some(true) }
    }

    /// The value of an expression in unrolled variables; `None` if a table has no such entry.
    fn constant(&self, e: &Affine) -> Option<i64> {
        e.terms.iter().try_fold(e.offset, |sum, (atom, &coef)| {
            let v = match atom {
                Atom::Var(v) => *self.unrolled.get(v.as_str())?,
                Atom::Table(t, v) => {
                    let at = usize::try_from(*self.unrolled.get(v.as_str())?).ok()?;
                    *self.func.find_table(t.as_str())?.values.get(at)?
                }
                Atom::Sym(_) | Atom::Div(..) => return None,
            };
            sum.checked_add(v.checked_mul(coef)?)
        })
    }

    /// The place of an entry, reported if it is outside of its array.
    fn entry(&self, name: &Name, index: &[Affine], report: &mut Report) -> Option<(&'a str, usize)> {
        let reg = self.func.find_reg(name.as_str())?;
        let mut place: usize = 0;
        for (e, &dim) in index.iter().zip(&reg.dims) {
            let i = self.constant(e)?;
            match usize::try_from(i).ok().filter(|&i| i < dim) {
                Some(i) => place = place.checked_mul(dim)?.checked_add(i)?,
                None => {
                    report.add(format!("index {e} of {name} is {i}; it must lie in 0..{dim}"));
                    return None;
                }
            }
        }
        Some((reg.name.as_str(), place))
    }

    fn reads(&self, v: &Value, report: &mut Report) {
        v.visit(&mut |v| {
            let Value::Reg(name, index) = v else { return };
            if self.entry(name, index, report).is_some_and(|e| !self.set.contains(&e)) {
                report.add(format!("{v} is read before it is set on every path{}", self.iteration(index)));
            }
        });
    }

    /// Which iteration of the unrolled loops an index is of: ` (oc.t = 2)`.
    fn iteration(&self, index: &[Affine]) -> String {
        let mut vars: Vec<Name> = index.iter().flat_map(Affine::vars).collect();
        vars.dedup();
        let at: Vec<_> = vars.iter().filter_map(|v| Some(format!("{v} = {}", self.unrolled.get(v.as_str())?))).collect();
        if at.is_empty() { String::new() } else { format!(" ({})", at.join(", ")) }
    }
}
