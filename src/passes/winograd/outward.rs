//! The way out of pass `winograd`: A along every axis, the innermost last, then the epilogue and the store.
//!
//! *Needs* the products of the output channels that are held. *Leaves* their outputs, where the direct nest would have stored them.

use super::axis::{Axis, index_over, loops_over};
use super::sums::{Entry, Shared, Stored, Sum, axis_reg, shared, sum};
use super::{Lowering, OUT, PIECE, PRODUCTS, WINDOW};
use crate::ir::names::{ACC, OUTPUT, part};
use crate::ir::{Access, Affine, BufferKind, Cond, Loop, LoopKind, Name, Reg, Stmt, Value};
use crate::passes::nest::wrap;
use crate::passes::panel::up;

impl Lowering<'_> {
    /// The nest over the output channels that are held.
    pub(super) fn outward(&mut self, held: &Loop, start: &Affine) -> Stmt {
        let rank = self.axes.len();
        let x = rank - 1;
        // Their own names: the tile's are taken apart by pass `tile`.
        let (oc, window) = (part(&"oc".into(), "y"), part(&WINDOW.into(), "y"));
        let (side_by_side, along) = (self.side_by_side(), self.channels_along());
        let unit = part(&"oc".into(), "u");
        let units = Loop::new(unit, side_by_side, Vec::new());
        let channel = Loop { var: oc, step: side_by_side, ..held.clone() };
        let mut body: Vec<Stmt> = Vec::new();
        let mut from: Name = PRODUCTS.into();
        // Products are held by channel; what comes after is of one channel.
        let mut lead = |index: Vec<Affine>, a: usize, w: Affine| -> Vec<Affine> {
            let of = if a == 0 { Affine::var(oc) - start.clone() + Affine::var(unit) } else { Affine::var(unit) };
            [index, vec![of, w]].concat()
        };
        for a in 0..x {
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            let axis = &self.axes[a];
            let mut loops: Vec<Loop> = before.iter().map(|b| Loop::new(b.var("h"), b.h(), Vec::new())).collect();
            loops.extend(behind.iter().flat_map(|axis| loops_over(axis.counters())));
            // The lanes are innermost: windows, or channels of one window, whose loop is around all steps.
            let mut one = if along { Affine::from(0) } else { Affine::var(window) };
            let windows = self.multiplied();
            match windows.as_const() {
                _ if along => loops.push(units.clone()),
                Some(windows) => loops.push(Loop::new(window, up(windows, self.lanes()), Vec::new())),
                None => {
                    let first = part(&WINDOW.into(), "o");
                    one = one + Affine::var(first);
                    loops.push(Loop { step: self.lanes(), ..Loop::new(first, windows, Vec::new()) });
                    loops.push(Loop::new(window, self.lanes(), Vec::new()));
                }
            }
            if !along {
                loops.insert(0, units.clone());
            }
            let read = if along && a == 0 { self.flat() } else { one.clone() };
            let h: Vec<Affine> = before.iter().map(|b| b.at("h")).collect();
            let u: Vec<Affine> = behind.iter().flat_map(|axis| index_over(axis.counters())).collect();
            let at = |i: Vec<Affine>| [h.clone(), i, u.clone()].concat();
            let dims: Vec<i64> = self.axes[..=a]
                .iter()
                .map(Axis::h)
                .chain(behind.iter().flat_map(Axis::counts))
                .chain([side_by_side, if along { 1 } else { self.windows_read() }])
                .collect();
            let phases = outputs(axis);
            let name = Name::from(format!("R{}", axis.name));
            // Phase by phase, so that few products wait in registers.
            let phases: Vec<(Vec<Entry>, Vec<Stored>)> = phases
                .into_iter()
                .map(|phase| {
                    let entries = phase.products.iter().map(|&e| (e, lead(at(axis.product_at(e)), a, read.clone()))).collect();
                    let to = |i: i64| [at(vec![i.into()]), vec![Affine::var(unit), one.clone()]].concat();
                    (entries, phase.rows.into_iter().map(|(i, s)| (to(i), s)).collect())
                })
                .collect();
            let into = self.buffer(name, BufferKind::Scratch, &dims);
            if along {
                self.innermost(dims.len() - 2);
            }
            let prefix = axis_reg("e", a, rank);
            let step = phases.into_iter().flat_map(|(entries, sums)| self.transform(&prefix, &from, &entries, &into, sums)).collect();
            body.extend(wrap(&loops, step));
            from = into;
        }
        let last = self.last(&from, &oc, &mut lead);
        body.extend(last);
        if along {
            let windows: Vec<Loop> = self.axes.iter().map(|a| Loop::new(a.var("w"), a.stored(), Vec::new())).collect();
            body = wrap(&windows, body);
        }
        Loop { body, ..channel }.into()
    }

    /// The last step: A along x, the epilogue, and the interleaved store.
    fn last(&mut self, from: &Name, oc: &Name, lead: &mut impl FnMut(Vec<Affine>, usize, Affine) -> Vec<Affine>) -> Vec<Stmt> {
        let x = self.axes.len() - 1;
        let axis = &self.axes[x];
        let mut loops: Vec<Loop> = Vec::new();
        let along = self.channels_along();
        for a in &self.axes[..x] {
            let outer = if along { None } else { Some(Loop::new(a.var("w"), a.held(), Vec::new())) };
            loops.extend(outer.into_iter().chain([Loop::new(a.var("h"), a.h(), Vec::new())]));
        }
        let at: Vec<Affine> = self.axes[..x].iter().map(|a| a.at("h")).collect();
        let mut step = Vec::new();
        let h = axis.var("h");
        let flat = if along && x > 0 { 0.into() } else { self.flat() };
        let index = |u: i64| [at.clone(), axis.product_at(u)].concat();
        let phases = outputs(axis);
        let (reach, across) = (axis.h(), axis.var("w"));
        let prefix = axis_reg("e", x, x + 1);
        let (together, unit) = (self.side_by_side(), part(&"oc".into(), "u"));
        // Outputs that wait to be stored together: one, or those of a window, or those of several channels.
        let (held, one_of) = match together {
            _ if along => (1, Affine::from(0)),
            1 => (reach, Affine::var(h)),
            n => (n, Affine::var(unit)),
        };
        self.regs.push(Reg { name: OUT.into(), lanes: 1, dims: vec![held as usize] });

        // The output that the window's output `h` is, and the conditions under which it exists.
        let place = |e: &Affine| {
            let e = e.subst("oc", &(Affine::var(oc) + Affine::var(unit)));
            self.axes.iter().fold(e, |e, a| {
                // With one phase only there is no variable for it: the outputs of a window are neighbouring positions.
                let within = if a.stride == 1 { a.output() } else { 0.into() };
                let e = e.subst(a.var("q").as_str(), &(a.base.clone() + a.at("w") * a.outputs + within));
                e.subst(a.var("r").as_str(), &a.output())
            })
        };
        let to = Access { index: self.output.index.iter().map(place).collect(), ..self.output.clone() };
        let dims = &self.func.buffer(OUTPUT).dims;
        let inside = |d: usize| Cond::Range { lo: 0.into(), e: to.index[d].clone(), hi: dims[d].clone() };
        let rows_exist: Vec<Cond> = (0..x).map(|a| inside(a + 2)).collect();
        let mut value = self.epilogue.clone().map(&mut |v| match v {
            Value::Reg(r, _) if r == ACC => Value::Reg(OUT.into(), vec![one_of.clone()]),
            v => v,
        });
        value.map_affine(&mut |e| place(e));
        let mut exists = vec![inside(x + 2)];
        // An axis of one position, or a block of one, has no variable that would tell its windows apart.
        let moves = self.output.index[x + 2].uses_var(axis.var("q").as_str());
        if !along && moves && axis.blocked && !axis.stored().is(self.row_stored()) {
            // Lanes behind the end of a block's row belong to the next block.
            let e = to.index[x + 2].clone();
            let end = e.subst(axis.var("w").as_str(), &axis.stored()).subst(h.as_str(), &0.into());
            exists.push(Cond::Range { lo: 0.into(), e, hi: end });
        }
        if along && !self.chunks_of(together) {
            let e = Affine::var(oc) + Affine::var(unit);
            exists.extend(self.channels.hi.iter().map(|hi| Cond::Range { lo: 0.into(), e: e.clone(), hi: hi.clone() }));
        }
        let store = Stmt::when(exists, vec![Stmt::Store { to: to.clone(), parts: vec![value], stream: self.plan.stream }]);
        let fixed = |mut s: Vec<Stmt>, var: &Name, i: i64| {
            s.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst(var.as_str(), &i.into())));
            s
        };
        // Products are loaded phase by phase: few of them wait in registers. Channels of a piece each have their own.
        let each = if along { 1 } else { together };
        let mut loaded: Vec<i64> = Vec::new();
        let pieces = together == 1 && self.in_pieces();
        // What outputs of a phase have in common waits in registers until the last of them, which those of a piece, or of several channels, are not there for.
        let mut rows: Vec<(i64, Sum, Vec<Entry>, Vec<Shared>)> = Vec::new();
        for phase in phases {
            let (outputs, sums): (Vec<i64>, Vec<Sum>) = phase.rows.into_iter().unzip();
            let (mut common, sums) = if pieces || each > 1 { (Vec::new(), sums) } else { shared(sums) };
            let entries: Vec<Entry> = phase.products.iter().map(|&e| (e, lead(index(e), x, flat.clone()))).collect();
            rows.extend(outputs.into_iter().zip(sums).map(|(i, s)| (i, s, entries.clone(), std::mem::take(&mut common))));
        }
        if pieces {
            rows.sort_by_key(|r| r.0);
        }
        for (n, (i, s, entries, common)) in rows.into_iter().enumerate() {
            // Each piece has registers of its own: one that several pieces used would be taken from the first to the last.
            let prefix = if pieces { format!("{prefix}{}p", n / PIECE) } else { prefix.clone() };
            if pieces && n % PIECE == 0 {
                loaded.clear();
            }
            let used = |e: i64| !pieces || s.0.iter().any(|t| t.0 == e);
            for u in 0..each {
                let new = |e: &&Entry| used(e.0) && (each > 1 || !loaded.contains(&e.0));
                for (e, index) in entries.iter().filter(new).cloned().collect::<Vec<_>>() {
                    loaded.push(e);
                    let load = vec![Stmt::set(self.reg(&prefix, e), Value::load(*from, index))];
                    step.extend(if along { load } else { fixed(load, &unit, u) });
                }
                if u == 0 {
                    step.extend(self.set(&prefix, common.clone()));
                }
                let at = match each {
                    _ if along => 0,
                    1 => i,
                    _ => u,
                };
                step.push(Stmt::Set { reg: OUT.into(), index: vec![at.into()], value: s.value(&prefix) });
            }
            let stored = fixed(store.clone(), &h, i);
            match each {
                _ if along => step.extend(stored),
                1 if pieces && (n % PIECE == PIECE - 1 || n as i64 + 1 == reach) => {
                    let piece = Loop::new(h, n as i64 + 1, fixed(store.clone(), &unit, 0)).kind(LoopKind::Unroll);
                    step.push(Loop { lo: vec![((n - n % PIECE) as i64).into()], ..piece }.into());
                }
                1 => {}
                n => step.push(Loop::new(unit, n, stored).kind(LoopKind::Unroll).into()),
            }
        }
        if along {
            return wrap(&loops, Stmt::when(rows_exist, vec![Loop::new(unit, together, step).into()]));
        }
        if together == 1 && !pieces {
            step.push(Loop::new(h, reach, fixed(store, &unit, 0)).kind(LoopKind::Unroll).into());
        }
        let columns = Loop::new(across, if moves { self.row_stored() } else { 1 }, step);
        wrap(&loops, Stmt::when(rows_exist, vec![columns.into()]))
    }

    /// Output channels whose outputs are stored together, since they lie side by side.
    fn side_by_side(&self) -> i64 {
        const MOST: i64 = 4;
        if self.channels_along() {
            return self.lanes();
        }
        let channels_last = self.func.buffer(OUTPUT).order.last() == Some(&1);
        if channels_last { (2..=MOST).rev().find(|n| self.chunks_of(*n)).unwrap_or(1) } else { 1 }
    }

    /// Whether no chunk of channels, of no part of them, ends within so many.
    fn chunks_of(&self, n: i64) -> bool {
        let all = self.func.buffer(OUTPUT).dims[1].as_const().unwrap_or(1) / self.groups().and_then(Loop::const_range).map_or(1, |r| r.1);
        let starts = &self.channels.lo[0];
        self.held % n == 0 && all % n == 0 && starts.offset % n == 0 && starts.terms.values().all(|c| c % n == 0)
    }
}

/// The outputs of a window that are computed from the same products: which, and the sum that each is.
struct Phase {
    products: Vec<i64>,
    rows: Vec<(i64, Sum)>,
}

/// The outputs of a window along one axis that are computed together.
fn outputs(axis: &Axis) -> Vec<Phase> {
    let mut out = Vec::new();
    let (phases, apart) = if axis.by_phase { (1, 1) } else { (usize::MAX, axis.stride) };
    for c in &axis.classes {
        for (f, r) in c.phases.iter().enumerate().take(phases) {
            let products: Vec<i64> = (0..c.toom.products()).map(|i| c.u(i, f)).collect();
            let rows = c.toom.output.iter().enumerate().map(|(j, row)| (apart * j as i64 + r, sum(row, |i| products[i]))).collect();
            out.push(Phase { products, rows });
        }
    }
    let covered: Vec<i64> = out.iter().flat_map(|p| p.rows.iter().map(|r| r.0)).collect();
    // A phase that no tap hits has outputs of bias only.
    let rows = (0..axis.h()).filter(|h| !covered.contains(h)).map(|h| (h, Sum(Vec::new()))).collect();
    out.push(Phase { products: Vec::new(), rows });
    out
}
