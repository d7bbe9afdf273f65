//! Whether 64 bits hold every index, bound, condition and clip of a function in the IR.
//!
//! *Needs* a verified function and the values of its symbols and counts. *Leaves* it alone, or an error that names the first expression that may leave
//! ±2^61. The interpreter compares and checks indices one by one, while code takes differences, adds lanes and steps, and sums in another order; it
//! would wrap around where the interpreter does not. Within the limit nothing wraps, whichever way it is computed. Ranges are over all iterations, guards taken
//! as passed: no loop nest of a layer comes near the limit.

use crate::ir::{Access, Affine, Atom, Cond, Func, Loop, Name, Stmt, Value};
use crate::{Error, Kind, Result};

/// What an expression may be, without its sign.
const LIMIT: i128 = 1 << 61;

/// The least and the greatest value of something.
type Range = (i128, i128);

/// Refuses a function in which an expression may leave the limit.
pub(super) fn check(func: &Func, values: &[i64]) -> Result<()> {
    let mut walk = Walk { func, values, vars: Vec::new() };
    for (section, body) in [("prepare", &func.prepare), ("run", &func.run)] {
        walk.list(body).map_err(|e| e.context(section))?;
    }
    Ok(())
}

struct Walk<'a> {
    func: &'a Func,
    values: &'a [i64],
    /// The loops around, innermost last.
    vars: Vec<(Name, Range)>,
}

impl Walk<'_> {
    fn list(&mut self, body: &[Stmt]) -> Result<()> {
        body.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) -> Result<()> {
        match s {
            Stmt::For(l) => self.for_loop(l),
            Stmt::When { conds, body } => {
                for e in conds.iter().flat_map(Cond::affines) {
                    self.range(e)?;
                }
                self.list(body)
            }
            Stmt::Tile { asks, body, .. } => {
                for (lo, hi) in asks.iter().flat_map(|a| &a.ranges) {
                    self.range(lo)?;
                    self.range(hi)?;
                }
                self.list(body)
            }
            Stmt::Set { value, .. } => self.value(value),
            Stmt::Store { to, parts, .. } => {
                self.access(to, parts.len())?;
                parts.iter().try_for_each(|v| self.value(v))
            }
        }
    }

    fn for_loop(&mut self, l: &Loop) -> Result<()> {
        let (mut first, mut end) = (-LIMIT, LIMIT);
        for e in &l.lo {
            first = first.max(self.range(e)?.0);
        }
        for e in &l.hi {
            end = end.min(self.range(e)?.1);
        }
        let times = l.times.as_ref().map_or(1, |s| self.symbol(s));
        let step = i128::from(l.step).saturating_mul(times);
        if step > LIMIT {
            return Err(too_large(&format_args!("the step of {}", l.var), step));
        }
        self.vars.push((l.var, (first, (end - 1).max(first))));
        let done = self.list(&l.body);
        self.vars.pop();
        done
    }

    fn value(&self, v: &Value) -> Result<()> {
        let mut done = Ok(());
        v.visit(&mut |v| {
            if let (Value::Load(a), Ok(())) = (v, &done) {
                done = self.access(a, 1);
            }
        });
        done
    }

    fn access(&self, a: &Access, parts: usize) -> Result<()> {
        for e in &a.index {
            self.range(e)?;
        }
        if let Some(l) = &a.lanes {
            let span = (l.count as i128).saturating_mul(l.step.into()).saturating_add(parts as i128);
            let (lo, hi) = a.index.get(l.dim).map_or(Ok((0, 0)), |e| self.range(e))?;
            let far = hi.max(-lo).saturating_add(span);
            if far > LIMIT {
                return Err(too_large(&format_args!("the last lane of {}", a.buffer), far));
            }
            for e in l.clip.iter().flat_map(|c| c.lo.iter().chain(&c.hi)) {
                self.range(e)?;
            }
        }
        Ok(())
    }

    fn symbol(&self, s: &Name) -> i128 {
        let at = self.func.all_symbols().position(|n| n == s);
        at.and_then(|i| self.values.get(i)).map_or(0, |v| i128::from(*v))
    }

    fn var(&self, v: &Name) -> Range {
        self.vars.iter().rev().find(|(name, _)| name == v).map_or((0, 0), |(_, range)| *range)
    }

    /// The range of an expression, all of whose sums stay within the limit, in whatever order.
    fn range(&self, e: &Affine) -> Result<Range> {
        let offset = i128::from(e.offset);
        let (mut lo, mut hi, mut size) = (offset, offset, offset.abs());
        for (atom, &coef) in &e.terms {
            let (a, b) = self.atom(atom)?;
            let coef = i128::from(coef);
            let (a, b) = (a.saturating_mul(coef), b.saturating_mul(coef));
            (lo, hi) = (lo.saturating_add(a.min(b)), hi.saturating_add(a.max(b)));
            // A coefficient counts by itself, too: expressions are subtracted from each other before their variables are known.
            size = size.saturating_add(a.saturating_abs().max(b.saturating_abs()).max(coef.abs()));
        }
        if size > LIMIT { Err(too_large(e, size)) } else { Ok((lo, hi)) }
    }

    fn atom(&self, atom: &Atom) -> Result<Range> {
        Ok(match atom {
            Atom::Sym(s) => (self.symbol(s), self.symbol(s)),
            Atom::Var(v) => self.var(v),
            Atom::Scaled(s, v) => {
                let (s, (lo, hi)) = (self.symbol(s), self.var(v));
                let (a, b) = (lo.saturating_mul(s), hi.saturating_mul(s));
                (a.min(b), a.max(b))
            }
            Atom::Table(t, _) => {
                let values = self.func.find_table(t).map_or(&[][..], |t| &t.values);
                let (lo, hi) = (values.iter().min(), values.iter().max());
                (lo.map_or(0, |v| i128::from(*v)), hi.map_or(0, |v| i128::from(*v)))
            }
            Atom::Div(e, by) => {
                let (lo, hi) = self.range(e)?;
                (lo.div_euclid(i128::from(*by).max(1)), hi.div_euclid(i128::from(*by).max(1)))
            }
        })
    }
}

fn too_large(what: &dyn std::fmt::Display, size: i128) -> Error {
    let message = format!("{what} may reach {size} in size; indices, bounds and conditions of a function that is run reach at most 2^61");
    Error::new(Kind::Ir, message)
}
