//! Second step, integers: loops, pointers and bounds.
//!
//! A counted loop has a counter that runs down to 0 and one moving pointer for each group that its variable advances. Pointers start
//! from the enclosing loop's pointer, or from the argument, so nothing has to be undone behind a loop. The loop's variable itself is
//! kept only where a bound, a condition or a table needs it.

use super::TileArg;
use super::inst::*;
use super::select::Selector;
use super::tree::{Clips, Inc, Lin, Node, Place, Spread, Stride, Term, intern};
use crate::Result;
use crate::ir::Affine;

impl Selector<'_> {
    // Integers

    /// An expression whose loop variables are in registers.
    pub(super) fn expr(&mut self, l: &Lin) -> IntExpr {
        let mut out = IntExpr { terms: Vec::new(), add: l.inv.offset };
        let mut inv = l.inv.clone();
        inv.offset = 0;
        if !inv.terms.is_empty() {
            out.terms.push((IntTerm::Arg(intern(&mut self.tree.args, TileArg::Int(inv))), 1));
        }
        for &(t, c) in &l.terms {
            let var = self.vars[t.of()].expect("the variable of a loop is kept where it is needed");
            out.terms.push(match t {
                Term::Loop(_) => (IntTerm::Reg(var), c),
                Term::Table(at, _) => (IntTerm::Table(at, var), c),
                Term::Scaled(arg, _) => (IntTerm::Product(var, self.stride_reg(arg, c)), 1),
            });
        }
        out
    }

    /// The largest or least of several expressions.
    pub(super) fn extreme(&mut self, all: &[Lin], max: bool) -> Bound {
        let pick = |v: Vec<i64>| if max { v.into_iter().max() } else { v.into_iter().min() };
        if let Some(c) = all.iter().map(Lin::as_const).collect::<Option<Vec<_>>>().and_then(pick) {
            return Bound::Const(c);
        }
        if all.iter().all(|l| l.terms.is_empty()) {
            let add = all[0].inv.offset;
            let shifted: Vec<Affine> = all.iter().map(|l| l.inv.clone() - add).collect();
            let arg = match (&shifted[..], max) {
                ([one], _) => TileArg::Int(one.clone()),
                (_, true) => TileArg::IntMax(shifted),
                (_, false) => TileArg::IntMin(shifted),
            };
            return Bound::Arg(intern(&mut self.tree.args, arg), add);
        }
        let exprs = all.iter().map(|l| self.expr(l)).collect();
        let dst = self.int();
        self.push(Inst::Extreme { dst, exprs, max });
        Bound::Reg(dst, 0)
    }

    /// Bounds of a clip relative to lane 0, which stay in registers for the rest of the block.
    pub(super) fn window(&mut self, clip: &Option<Clips>) -> Option<Window> {
        let clip = clip.as_ref()?;
        match &self.bounds {
            Some((key, w)) if key == clip => return Some(*w),
            _ => {}
        }
        let w = Window { lo: self.extreme(&clip.0, true), hi: self.extreme(&clip.1, false) };
        self.bounds = Some((clip.clone(), w));
        Some(w)
    }

    pub(super) fn stride_reg(&mut self, arg: usize, by: i64) -> G {
        if let Some(&g) = self.strides.get(&(arg, by)) {
            return g;
        }
        let dst = self.int();
        self.push(Inst::Int { dst, expr: IntExpr::of(IntTerm::Arg(arg), by) });
        // Inside loops the register would be set in the body: it is not shared there.
        if self.open.is_empty() {
            self.strides.insert((arg, by), dst);
        }
        dst
    }

    // Loops and pointers

    pub(super) fn counted(&mut self, id: usize, body: &[Node]) -> Result<()> {
        let info = self.tree.loops[id].clone();
        let groups: Vec<usize> = info.groups.iter().copied().collect();
        let outer = self.ptr.clone();
        if self.open.is_empty() {
            self.prepare(body, &groups);
        }
        let (masks, tested) = (self.keep_masks(body, true), self.tested.len());
        self.keep_tested_before(body);
        let lo = (!info.from_zero).then(|| {
            let lo = self.extreme(&info.lo, true);
            self.bound_reg(lo)
        });
        let (count, check) = self.count(&info.lo, &info.hi, lo);
        self.vars[id] = info.var_needed.then(|| {
            let dst = self.int();
            let expr = lo.map_or(IntExpr::default(), |g| IntExpr::of(IntTerm::Reg(g), 1));
            self.push(Inst::Int { dst, expr });
            dst
        });
        let mut moves = Vec::new();
        for &g in &groups {
            let group = self.tree.groups[g].clone();
            if let Some((_, inc)) = group.incs.iter().find(|(t, _)| *t == Term::Loop(id)) {
                let mut expr = self.pointer(g);
                if let Some(lo) = lo {
                    self.scaled(&mut expr, IntTerm::Reg(lo), inc);
                }
                let dst = self.int();
                self.push(Inst::Int { dst, expr });
                self.ptr[g] = Some(dst);
                moves.push((dst, inc.clone()));
            }
        }
        self.ask_evenly(id, body);
        let region = self.regions;
        self.regions += 1;
        self.push(Inst::LoopBegin { id: region, count, check });
        self.open.push(id);
        self.table_pointers(id, &groups);
        let own = self.keep_masks(body, false);
        self.ask_next_block(id);
        self.ask_ahead(body, &moves, info.step);
        self.ask_soon(id, body);
        self.ask_next_rows(body);
        self.ask_next_stores(body);
        self.ask_next_outputs(body);
        self.ends = Some(own);
        self.nodes(body)?;
        self.advance(&moves, info.step);
        if let Some(dst) = self.vars[id].take() {
            self.push(Inst::AddImm { dst, by: info.step });
        }
        self.masks.truncate(masks);
        self.tested.truncate(tested);
        self.open.pop();
        self.push(Inst::LoopEnd { id: region, count, step: info.step });
        self.ptr = outer;
        if self.open.is_empty() {
            self.strides.clear();
        }
        Ok(())
    }

    /// The most iterations of a loop, where that is known.
    pub(super) fn most_trips(&self, id: usize) -> Option<i64> {
        let l = &self.tree.loops[id];
        let most = |range: Lin| if range.terms.is_empty() { self.func.largest(&range.inv) } else { None };
        let ranges = l.hi.iter().flat_map(|hi| l.lo.iter().filter_map(|lo| most(hi.minus(lo))));
        ranges.min().map(|range| (range + l.step - 1) / l.step)
    }

    /// By how much a loop moves the pointer of a group from one iteration to the next.
    pub(super) fn moved(&self, g: usize, l: usize) -> Option<Inc> {
        let step = self.tree.loops[l].step;
        let (_, inc) = self.tree.groups[g].incs.iter().find(|(t, _)| *t == Term::Loop(l))?;
        Some(Inc { bytes: inc.bytes * step, strides: inc.strides.iter().map(|(arg, coef)| (*arg, coef * step)).collect() })
    }

    /// Before an outermost loop: loads pointers that no loop moves, and the run-time strides by which others move.
    pub(super) fn prepare(&mut self, body: &[Node], groups: &[usize]) {
        for &g in groups {
            let group = self.tree.groups[g].clone();
            if group.incs.is_empty() {
                let dst = self.int();
                self.push(Inst::Int { dst, expr: IntExpr::of(IntTerm::Arg(group.arg), 1) });
                self.ptr[g] = Some(dst);
            }
            for (t, inc) in &group.incs {
                let step = match t {
                    Term::Loop(id) => self.tree.loops[*id].step,
                    Term::Table(..) | Term::Scaled(..) => 1,
                };
                for &(arg, coef) in &inc.strides {
                    self.stride_reg(arg, coef * step);
                    self.stride_reg(arg, coef);
                }
            }
        }
        for (arg, by) in pitches(body) {
            self.stride_reg(arg, by);
        }
    }

    pub(super) fn bound_reg(&mut self, b: Bound) -> G {
        let expr = match b {
            Bound::Reg(g, 0) => return g,
            Bound::Reg(g, add) => IntExpr { terms: vec![(IntTerm::Reg(g), 1)], add },
            Bound::Arg(a, add) => IntExpr { terms: vec![(IntTerm::Arg(a), 1)], add },
            Bound::Const(add) => IntExpr { terms: Vec::new(), add },
        };
        let dst = self.int();
        self.push(Inst::Int { dst, expr });
        dst
    }

    /// The register that counts down from the distance between the bounds, and whether it may start at 0 or below.
    pub(super) fn count(&mut self, lo: &[Lin], hi: &[Lin], first: Option<G>) -> (G, bool) {
        let dst = self.int();
        if let ([lo], [hi]) = (lo, hi) {
            let n = hi.minus(lo);
            let check = n.as_const().is_none_or(|n| n <= 0);
            let expr = self.expr(&n);
            self.push(Inst::Int { dst, expr });
            return (dst, check);
        }
        let lo = match first {
            Some(g) => g,
            None => {
                let lo = self.extreme(lo, true);
                self.bound_reg(lo)
            }
        };
        let hi = self.extreme(hi, false);
        let hi = self.bound_reg(hi);
        let expr = IntExpr { terms: vec![(IntTerm::Reg(hi), 1), (IntTerm::Reg(lo), -1)], add: 0 };
        self.push(Inst::Int { dst, expr });
        (dst, true)
    }

    /// The pointer of a group as it is outside the loop being entered.
    pub(super) fn pointer(&self, g: usize) -> IntExpr {
        match self.ptr[g] {
            Some(p) => IntExpr::of(IntTerm::Reg(p), 1),
            None => IntExpr::of(IntTerm::Arg(self.tree.groups[g].arg), 1),
        }
    }

    /// Adds `term * inc` to an expression.
    pub(super) fn scaled(&mut self, expr: &mut IntExpr, term: IntTerm, inc: &Inc) {
        if inc.bytes != 0 {
            expr.terms.push((term, inc.bytes));
        }
        for &(arg, coef) in &inc.strides {
            let s = self.stride_reg(arg, coef);
            let product = match term {
                IntTerm::Table(t, v) => IntTerm::TableProduct(t, v, s),
                IntTerm::Reg(g) => IntTerm::Product(g, s),
                _ => unreachable!("only variables and table entries are scaled"),
            };
            expr.terms.push((product, 1));
        }
    }

    /// At the top of a loop's body: pointers that depend on tables indexed by its variable.
    pub(super) fn table_pointers(&mut self, id: usize, groups: &[usize]) {
        for &g in groups {
            let group = self.tree.groups[g].clone();
            let tables = group.incs.iter().filter_map(|(t, inc)| match t {
                Term::Table(at, l) if *l == id => Some((*at, inc)),
                _ => None,
            });
            for (table, inc) in tables {
                let mut expr = self.pointer(g);
                let var = self.vars[id].expect("a loop that indexes tables keeps its variable");
                self.scaled(&mut expr, IntTerm::Table(table, var), inc);
                let dst = self.int();
                self.push(Inst::Int { dst, expr });
                self.ptr[g] = Some(dst);
            }
        }
    }

    pub(super) fn advance(&mut self, moves: &[(G, Inc)], step: i64) {
        for (dst, inc) in moves {
            if inc.bytes != 0 {
                self.push(Inst::AddImm { dst: *dst, by: inc.bytes * step });
            }
            for &(arg, coef) in &inc.strides {
                let by = self.stride_reg(arg, coef * step);
                self.push(Inst::AddReg { dst: *dst, by });
            }
        }
    }
}

/// The run-time strides, times the step, along which lanes lie anywhere in the statements.
fn pitches(body: &[Node]) -> Vec<(usize, i64)> {
    let mut out = Vec::new();
    for n in body {
        let mut add = |p: &Place| {
            if let Some(Spread { stride: Stride::Arg(a), step, .. }) = p.spread {
                out.push((a, step))
            }
        };
        match n {
            Node::Set { value, .. } => value.visit_loads(&mut add),
            Node::Store { to, parts, .. } => {
                add(to);
                parts.iter().for_each(|v| v.visit_loads(&mut add));
            }
            Node::Loop { body, .. } | Node::When { body, .. } => out.extend(pitches(body)),
        }
    }
    out
}
