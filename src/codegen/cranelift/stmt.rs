//! Statements: loops, conditions, tiles, assignments.

use super::address::Scope;
use super::{Bound, Emit};
use crate::Result;
use crate::ir::{Cond, Loop, LoopKind, Name, Stmt};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};

impl Emit<'_, '_, '_> {
    pub(super) fn list(&mut self, list: &[Stmt]) -> Result<()> {
        list.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) -> Result<()> {
        match s {
            Stmt::For(l) if l.kind == LoopKind::Unroll => self.unroll(l),
            Stmt::For(l) => {
                let (lo, hi) = (self.extreme(&l.lo, true), self.extreme(&l.hi, false));
                self.hoist(&l.body);
                self.counted(l.var.as_str(), lo, hi, l.step, |e| {
                    e.hoist(&l.body);
                    e.list(&l.body)
                })
            }
            Stmt::When { conds, body } => self.when(conds, body),
            #[cfg(target_arch = "x86_64")]
            Stmt::Tile { .. } if self.unit.calls_tiles() => self.call_tile(s),
            Stmt::Tile { body, .. } => {
                self.stored = Some(stored(body));
                let done = self.list(body);
                self.stored = None;
                done
            }
            Stmt::Set { reg, index, value } => {
                let lanes = self.reg_lanes(reg);
                let v = self.value(value)?;
                let v = self.broadcast(v, lanes);
                let entry = self.reg_entry(reg, index)?;
                for (var, v) in self.regs[reg][entry].clone().into_iter().zip(v.parts) {
                    self.b.def_var(var, v);
                }
                Ok(())
            }
            Stmt::Store { to, parts, .. } => {
                let values = parts.iter().map(|v| self.value(v)).collect::<Result<_>>()?;
                self.store(to, values);
                Ok(())
            }
        }
    }

    /// Writes the iterations out.
    fn unroll(&mut self, l: &Loop) -> Result<()> {
        let lo = l.lo.iter().map(|a| self.constant(a)).max().flatten();
        let hi = l.hi.iter().map(|a| self.constant(a)).min().flatten();
        let (Some(lo), Some(hi)) = (lo, hi) else {
            return Err(super::refused(&format!("unroll loop over {} has no constant bounds", l.var)));
        };
        let mut i = lo;
        while i < hi {
            self.vars.insert(l.var, Bound::Const(i));
            self.list(&l.body)?;
            let Some(next) = i.checked_add(l.step) else { break };
            i = next;
        }
        self.vars.remove(&l.var);
        Ok(())
    }

    fn when(&mut self, conds: &[Cond], body: &[Stmt]) -> Result<()> {
        let mut test: Option<clif::Value> = None;
        for c in conds {
            match self.condition(c) {
                Test::Known(true) => {}
                Test::Known(false) => return Ok(()),
                Test::Value(v) => test = Some(test.map_or(v, |t| self.b.ins().band(t, v))),
            }
        }
        let Some(test) = test else { return self.list(body) };
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(test, inside, &[], after, &[]);
        self.b.switch_to_block(inside);
        self.b.seal_block(inside);
        self.scopes.push(Scope::default());
        self.list(body)?;
        self.scopes.pop();
        self.b.ins().jump(after, &[]);
        self.b.seal_block(after);
        self.b.switch_to_block(after);
        Ok(())
    }

    fn condition(&mut self, c: &Cond) -> Test {
        match c {
            Cond::Range { lo, e, hi } => {
                // lo <= e < hi as one unsigned comparison: e - lo < hi - lo, the width clamped at 0.
                let (at, width) = (e.clone() - lo.clone(), hi.clone() - lo.clone());
                if let (Some(at), Some(width)) = (self.constant(&at), self.constant(&width)) {
                    return Test::Known(0 <= at && at < width);
                }
                let at = self.index(&at);
                let width = match self.constant(&width) {
                    Some(w) => self.b.ins().iconst(types::I64, w.max(0)),
                    None => {
                        let (w, zero) = (self.index(&width), self.b.ins().iconst(types::I64, 0));
                        self.b.ins().smax(w, zero)
                    }
                };
                Test::Value(self.b.ins().icmp(IntCC::UnsignedLessThan, at, width))
            }
            Cond::Multiple { e, m } => {
                if let Some(v) = self.constant(e) {
                    return Test::Known(v.rem_euclid(*m) == 0);
                }
                let (v, m) = (self.index(e), self.b.ins().iconst(types::I64, *m));
                let r = self.b.ins().srem(v, m);
                Test::Value(self.b.ins().icmp_imm_s(IntCC::Equal, r, 0))
            }
        }
    }
}

enum Test {
    Known(bool),
    Value(clif::Value),
}

fn stored(body: &[Stmt]) -> Vec<Name> {
    let mut out = Vec::new();
    for s in body {
        s.visit(&mut |s| {
            if let Stmt::Store { to, .. } = s {
                out.push(to.buffer);
            }
        });
    }
    out
}
