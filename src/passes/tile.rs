//! Pass `tile`: the register tile, and weights packed in the order in which it reads them.
//!
//! *Needs* a blocked nest. *Leaves* each loop that the plan tiles cut into a counted loop over tiles (`.b`) and an `unroll` loop within
//! the tile (`.t`), which moves inside to every single statement; registers become arrays over the tile; the operand that will lie along
//! the lanes is loaded once into `v`; stores that a tile might write outside the output are guarded; `prepare` fills the packed weights `wp`.
//!
//! ```text
//! for oc in 0..64:                               for oc.b in 0..11:
//!   acc = 0                                        tile oc6:
//!   for tx, ic:                              ⇒       unroll oc.t in 0..6: acc[oc.t] = 0
//!     acc = fma(P[ic, …], w[ic, oc, …], acc)         for ic: unroll tx: v = P[ic, …]
//!   y[oc, …] = acc                                     unroll oc.t: acc[oc.t] = fma(v, wp[oc.b, ic, tx, oc.t], acc[oc.t])
//!                                                    unroll oc.t: when oc.t + 6*oc.b < 64: y[oc.t + 6*oc.b, …] = acc[oc.t]
//! ```
//!
//! What whole tiles leave over of positions (or windows) whose number is known at run time is a small tile of half as many, with registers of its own.
//!
//! Within a tile the reduction runs over input channels first, then over taps, where no guard forbids it. Phases without taps have no channels either.

use super::block::{extreme, phases};
use super::nest::wrap;
use super::pack::Packer;
use crate::ir::names::{INPUT, OUTPUT, part};
use crate::ir::{Access, Affine, Atom, Cond, Count, CountOf, Func, Loop, LoopKind, Name, Reg, Stmt, Value};
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// The register that holds the operand along the lanes.
const OPERAND: &str = "v";
/// A tap loop is written out if the tile body then has at most this many multiply-adds of one vector each.
pub const UNROLLED: usize = 128;

/// One axis of the tile while statements are moved into it.
#[derive(Clone)]
struct TileVar {
    /// The variable within the tile, `oc.t`.
    t: Name,
    extent: usize,
    /// What must hold for the element to exist, if tiles may overhang.
    tails: Vec<Cond>,
}

struct Tiler<'a> {
    func: &'a Func,
    plan: &'a Plan,
    /// Enclosing loops, outermost first.
    loops: Vec<Loop>,
    tile: Vec<TileVar>,
    packer: Packer,
    regs: Vec<Reg>,
    counts: Vec<Count>,
    /// What holds where the present statement runs, for the whole tile.
    tested: Vec<Cond>,
    /// Whether the tile is a small one for what a large one leaves over: it has registers of its own, so that neither keeps the other's.
    small: bool,
}

/// Cuts the nest into register tiles.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    let (regs, counts) = (func.regs.clone(), func.counts.clone());
    let mut tiler = Tiler {
        func,
        plan,
        loops: Vec::new(),
        tile: Vec::new(),
        packer: Packer::new(plan.lanes * func.elem.bytes()),
        regs,
        counts,
        tested: Vec::new(),
        small: false,
    };
    let mut out = func.with_run(tiler.list(&func.run)?);
    (out.regs, out.counts) = (tiler.regs, tiler.counts);
    tiler.packer.finish(&mut out);
    Ok(Some(out))
}

/// Loops that run over outputs, inputs or kernel positions, as opposed to a reduction.
fn walks(var: &Name) -> bool {
    let head = var.as_str().split('.').next().unwrap_or("");
    // Parts of the reduction are a loop around the positions.
    var == "ic.k"
        || matches!(head, "n" | "g" | "oc")
        || head.len() == 2 && matches!(head.as_bytes()[0], b'r' | b'f' | b'q' | b'i' | b'k' | b'o') && head != "ic"
}

fn as_loop(s: &Stmt) -> Option<&Loop> {
    if let Stmt::For(l) = s { Some(l) } else { None }
}

impl Tiler<'_> {
    fn list(&mut self, list: &[Stmt]) -> Result<Vec<Stmt>> {
        let region = !list.iter().all(|s| matches!(s, Stmt::For(l) if walks(&l.var) || self.tile.is_empty()));
        if region && !self.tile.is_empty() {
            let body = self.sink(list, &[])?;
            return Ok(vec![Stmt::Tile { name: self.tile_name(), asks: None, body }]);
        }
        let mut out = Vec::new();
        for s in list {
            match s {
                Stmt::For(l) => out.extend(self.for_loop(l)?),
                s => out.push(s.clone()),
            }
        }
        Ok(out)
    }

    fn tile_name(&self) -> Name {
        let extents = self.tile.iter().map(|t| t.extent.to_string()).collect::<Vec<_>>().join("x");
        format!("{}-{extents}", self.plan.vector.as_str()).into()
    }

    fn for_loop(&mut self, l: &Loop) -> Result<Vec<Stmt>> {
        // Loops over outputs in a scatter nest clear or finish a plane: the tile's channels go around them.
        if l.var.as_str().starts_with('o') && l.var != "oc" && l.var != "oc.c" && !self.tile.is_empty() {
            // They are counted loops, not part of the register tile: they get names of their own.
            let counter = |t: &TileVar| Name::from(format!("{}o", t.t));
            let loops: Vec<Loop> = self.tile.iter().map(|t| Loop::new(counter(t), t.extent as i64, Vec::new())).collect();
            let conds = self.tile.iter().flat_map(|t| t.tails.clone()).collect();
            let mut body = Stmt::when(conds, vec![l.clone().into()]);
            for t in &self.tile {
                let by = Affine::var(counter(t));
                body.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst(t.t.as_str(), &by)));
            }
            return Ok(wrap(&loops, body));
        }
        let extent = self.plan.extent(l.var.as_str());
        if let Some(first) = self.left_over(l)? {
            let rest = self.plan.rest(l.var.as_str());
            let whole = Loop { hi: [l.hi.clone(), vec![first.clone()]].concat(), ..l.clone() };
            let tail = Loop { lo: vec![first.clone()], hi: [l.hi.clone(), vec![first + rest as i64]].concat(), ..l.clone() };
            let mut out = self.split(&whole, extent)?;
            self.small = true;
            out.extend(self.split(&tail, rest)?);
            self.small = false;
            return Ok(out);
        }
        if extent > 1 {
            return self.split(l, extent);
        }
        let mut head = l.around(Vec::new());
        self.widen_bounds(&mut head);
        self.loops.push(head.clone());
        let body = self.list(&l.body)?;
        self.loops.pop();
        Ok(vec![Stmt::For(Loop { body, ..head })])
    }

    /// Where a small tile takes over from large ones, in a loop over positions (or windows) of which the run says how many there are; nowhere, if large tiles
    /// cover all of them. Every block starts with a whole tile, so that only the last of them has an end of its own.
    fn left_over(&mut self, l: &Loop) -> Result<Option<Affine>> {
        let rest = self.plan.rest(l.var.as_str());
        if rest == 0 || self.small {
            return Ok(None);
        }
        // Of all blocks together.
        let mut head = self.block(l).unwrap_or(l).around(Vec::new());
        self.widen_bounds(&mut head);
        let first = extreme(&head.lo[0], self.func, phases(&self.loops), false);
        let extent = extreme(&head.hi[0], self.func, phases(&self.loops), true) - first.clone();
        let counted = |a: &Affine| a.terms.keys().all(|t| matches!(t, Atom::Sym(_)));
        if extent.as_const().is_some() || !counted(&extent) || !counted(&first) {
            return Ok(None);
        }
        let name: Name = l.var.as_str().replacen('q', "whole.", 1).into();
        let count = Count { name, of: CountOf::Whole { extent, unit: self.plan.extent(l.var.as_str()) as i64, rest: rest as i64 } };
        match self.counts.iter().find(|c| c.name == name) {
            Some(c) if *c != count => return Err(super::unexpected("tile", "one loop over the positions of an axis")),
            Some(_) => {}
            None => self.counts.push(count),
        }
        Ok(Some(first + Affine::sym(name)))
    }

    /// The loop over blocks of these positions.
    fn block(&self, l: &Loop) -> Option<&Loop> {
        let b = part(&l.var, "b");
        self.loops.iter().find(|o| o.var == b)
    }

    /// Bounds that depend on a phase within the tile take the extreme over the phases; stores are guarded anyway.
    fn widen_bounds(&self, l: &mut Loop) {
        let inside = |a: &Affine| self.tile.iter().any(|t| a.uses_var(t.t.as_str()));
        let range = |v: &str| self.tile.iter().find(|t| t.t == v).map(|t| (0, t.extent as i64));
        l.lo.iter_mut().filter(|a| inside(a)).for_each(|a| *a = extreme(a, self.func, range, false));
        l.hi.iter_mut().filter(|a| inside(a)).for_each(|a| *a = extreme(a, self.func, range, true));
    }

    /// Position loops below run as far as any phase does; what is outside the output is not stored.
    fn loosen(&self, body: &mut [Stmt], phase: &Loop) {
        let (var, loops) = (phase.var.as_str(), std::slice::from_ref(phase));
        for s in body {
            if let Stmt::For(l) = s
                && l.var.as_str().starts_with('q')
            {
                l.lo.iter_mut().filter(|a| a.uses_var(var)).for_each(|a| *a = extreme(a, self.func, phases(loops), false));
                l.hi.iter_mut().filter(|a| a.uses_var(var)).for_each(|a| *a = extreme(a, self.func, phases(loops), true));
            }
            if let Some(inner) = s.body_mut() {
                self.loosen(inner, phase);
            }
        }
    }

    fn split(&mut self, l: &Loop, extent: usize) -> Result<Vec<Stmt>> {
        let (m, t, b) = (extent as i64, part(&l.var, "t"), part(&l.var, "b"));
        let b = if self.loops.iter().any(|o| o.var == b) { part(&l.var, "c") } else { b };
        let mut head = Loop { var: b, ..l.around(Vec::new()) };
        self.widen_bounds(&mut head);
        if l.var.as_str().starts_with('q') && !self.small {
            // Tiles start where the block (and with it the panel) does, whatever the phase.
            let block = self.block(l);
            let first = extreme(&head.lo[0], self.func, phases(&self.loops), false);
            head.lo = vec![block.map_or(first, |b| Affine::var(b.var))];
        }
        let whole = head.const_range() == Some((0, m));
        let mut body = l.body.clone();
        if l.var.as_str().starts_with('r') && l.const_range().is_none_or(|(lo, hi)| lo != 0 || hi % m != 0) {
            let message = format!("a tile of {m} phases along {} does not divide their number; legal: a divisor of the stride", l.var);
            return Err(Error::new(Kind::Options, message));
        }
        if !whole {
            self.loosen(&mut body, l);
        }
        let tables = l.around(body.clone()).indexes_table();
        let at = if whole {
            Affine::var(t)
        } else if tables {
            let message = format!("{} cannot be tiled by {m}: its phases differ in taps, so a tile must hold all of them", l.var);
            return Err(Error::new(Kind::Options, message));
        } else if let Some(counted) = count_tiles(&head, m) {
            head = counted;
            Affine::var(b) * m + Affine::var(t)
        } else {
            head.step = m;
            Affine::var(b) + Affine::var(t)
        };
        if whole {
            head.hi = vec![1.into()];
        }
        // Positions have no tail of their own: stores test the output coordinate, which is the same and becomes a clip.
        let tail = |hi: &Affine| Cond::Range { lo: 0.into(), e: at.clone(), hi: hi.clone() };
        let tails = if l.var.as_str().starts_with('q') { Vec::new() } else { l.hi.iter().map(tail).collect() };
        body.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst(l.var.as_str(), &at)));
        self.loops.push(head.clone());
        self.tile.push(TileVar { t, extent, tails });
        let body = self.list(&body)?;
        self.tile.pop();
        self.loops.pop();
        Ok(vec![Stmt::For(Loop { body, ..head })])
    }

    /// Moves the tile's loops inside to each statement. `guards` are conditions that depend on the place in the tile.
    fn sink(&mut self, list: &[Stmt], guards: &[Cond]) -> Result<Vec<Stmt>> {
        let mut out = Vec::new();
        for s in list {
            match self.channels_first(s) {
                Stmt::For(l) => out.extend(self.sink_loop(l, guards)?),
                Stmt::When { conds, body } => {
                    let (inside, outside): (Vec<Cond>, Vec<Cond>) = conds.into_iter().partition(|c| self.within(c));
                    let before = self.tested.len();
                    self.tested.extend(outside.iter().cloned());
                    let body = self.sink(&body, &[guards, &inside].concat())?;
                    self.tested.truncate(before);
                    out.extend(Stmt::when(outside, body));
                }
                Stmt::Set { reg, value, .. } => out.extend(self.sink_set(reg, value, guards)?),
                Stmt::Store { to, parts, stream } => out.extend(self.sink_store(to, parts, stream, guards)?),
                Stmt::Tile { .. } => return Err(super::unexpected("tile", "no tile yet")),
            }
        }
        Ok(out)
    }

    /// Whether a condition depends on the place in the tile.
    fn within(&self, c: &Cond) -> bool {
        c.affines().iter().any(|a| self.tile.iter().any(|t| a.uses_var(t.t.as_str())))
    }

    /// Moves the loop over input channels outside the tap loops where it is alone inside them, but for guards of single elements.
    fn channels_first(&self, s: &Stmt) -> Stmt {
        let around = |s: &Stmt| match s {
            Stmt::For(l) => Some(Stmt::For(l.around(Vec::new()))),
            Stmt::When { conds, .. } if conds.iter().all(|c| self.within(c)) => Some(Stmt::When { conds: conds.clone(), body: Vec::new() }),
            _ => None,
        };
        let (mut outer, mut body) = (Vec::new(), std::slice::from_ref(s));
        while let [s] = body
            && let Some(head) = around(s)
        {
            outer.push(head);
            body = s.body().unwrap_or_default();
        }
        let reduction = |s: &Stmt| as_loop(s).is_none_or(|l| l.var == "ic" || l.var.as_str().starts_with('t'));
        let Some(at) = outer.iter().position(|s| as_loop(s).is_some_and(|l| l.var == "ic")) else { return s.clone() };
        if !outer.iter().all(reduction) {
            return s.clone();
        }
        let Stmt::For(mut ic) = outer.remove(at) else { unreachable!("its place is that of a loop") };
        // Taps that are bounded by the input differ from position to position; they stay around.
        let bounded = |s: &Stmt| as_loop(s).is_some_and(|l| l.lo.len() > 1);
        let first = outer[..at].iter().rposition(bounded).map_or(0, |l| l + 1);
        let (mut body, mut inside) = (body.to_vec(), outer.split_off(first));
        self.skip_channels(&mut ic, &mut inside, &mut body);
        outer.push(Stmt::For(ic));
        outer.extend(inside);
        let within = |body: Vec<Stmt>, s: &Stmt| match s {
            Stmt::For(l) => vec![Stmt::For(l.around(body))],
            Stmt::When { conds, .. } => Stmt::when(conds.clone(), body),
            _ => unreachable!("loops and guards were taken off"),
        };
        outer.iter().rev().fold(body, within).remove(0)
    }

    /// Lets the loop over input channels have no iterations where a phase has no tap of a loop inside: there would be nothing to do in them.
    fn skip_channels(&self, ic: &mut Loop, inside: &mut Vec<Stmt>, body: &mut [Stmt]) {
        let Some((_, channels)) = ic.const_range() else { return };
        let lacking: Vec<Loop> = inside.iter().filter_map(as_loop).filter(|l| self.taps(l, false) == Some(0)).cloned().collect();
        for taps in lacking {
            ic.hi.push(taps.hi[0].clone() * channels);
            if self.taps(&taps, true) == Some(1) {
                // A tap that is there or not is no loop any more.
                inside.retain(|s| as_loop(s).is_none_or(|l| l.var != taps.var));
                inside.iter_mut().chain(&mut *body).for_each(|s| s.map_affine(&mut |a| a.subst(taps.var.as_str(), &0.into())));
            }
        }
    }

    /// The least or most taps that a loop has over the phases around it, unless they differ within the tile as well.
    fn taps(&self, l: &Loop, most: bool) -> Option<i64> {
        let ([lo], [hi]) = (&l.lo[..], &l.hi[..]) else { return None };
        if lo.as_const() != Some(0) || self.tile.iter().any(|t| hi.uses_var(t.t.as_str())) {
            return None;
        }
        extreme(hi, self.func, phases(&self.loops), most).as_const()
    }

    fn sink_loop(&mut self, l: Loop, guards: &[Cond]) -> Result<Vec<Stmt>> {
        let mut head = l.around(Vec::new());
        let mut guards = guards.to_vec();
        let ragged = head.hi.iter().any(|a| self.tile.iter().any(|t| a.uses_var(t.t.as_str())));
        if ragged {
            guards.push(Cond::Range { lo: 0.into(), e: Affine::var(l.var), hi: l.hi[0].clone() });
            self.widen_bounds(&mut head);
        }
        let lanes = self.plan.lanes.max(1);
        let per_tap = (self.tile.iter().map(|t| t.extent).product::<usize>() / lanes).max(1);
        let trips = head.const_range().map_or(usize::MAX, |(lo, hi)| (hi - lo).max(0) as usize);
        let tap = l.var.as_str().starts_with('t');
        if ragged || tap && inner_taps(&l.body).saturating_mul(trips).saturating_mul(per_tap) <= UNROLLED {
            head.kind = LoopKind::Unroll;
        }
        self.loops.push(head.clone());
        let body = self.sink(&l.body, &guards)?;
        self.loops.pop();
        Ok(vec![Stmt::For(Loop { body, ..head })])
    }

    /// An assignment. For a multiply-add, the operand along the lanes is loaded into `v` once and used for every tile axis that it does not depend on;
    /// axes on which both operands depend go around, so that `v` stays small.
    fn sink_set(&mut self, reg: Name, value: Value, guards: &[Cond]) -> Result<Vec<Stmt>> {
        let vector = part(&self.plan.vector, "t");
        let axes: Vec<(Name, usize)> = self.tile.iter().map(|t| (t.t, t.extent)).collect();
        let value = self.packer.redirect(self.func, value, &self.loops, &axes, &vector)?;
        let loads = loads(&value);
        let uses = |a: &Access, t: &Name| a.index.iter().any(|i| i.uses_var(t.as_str()));
        // Of two operands along the lanes, the one that serves several elements.
        let along = || loads.iter().filter(|a| uses(a, &vector));
        let serves = |a: &&Access| self.tile.iter().any(|t| !uses(a, &t.t));
        let lane_load = along().find(serves).or_else(|| along().next()).filter(|_| matches!(value, Value::Fma(_)));
        // What reads the input past its end is loaded under a guard, whether it lies along the lanes or not.
        let reused = lane_load.filter(|a| a.buffer == INPUT || self.tile.iter().any(|t| !uses(a, &t.t)));
        let reused = reused.or_else(|| loads.iter().find(|a| self.overhangs(a)));
        self.check_in_place(&loads, reused)?;

        let reg = self.own(&reg);
        // A register may hold anything where its output does not exist; only taps that a phase lacks must be left out.
        // A pixel outside the input is loaded as 0, which adds nothing: its guard has done its work.
        let real: Vec<Cond> = guards.iter().filter(|c| self.lacks_tap(c) && !self.clips(reused, c)).cloned().collect();
        let index = self.expand(&reg);
        let Some(load) = reused.cloned() else {
            let set = Stmt::Set { reg, index, value: self.expand_value(value) };
            return Ok(wrap(&unroll(&self.ordered(|_| true)), Stmt::when(real, vec![set])));
        };
        let other = |t: &Name| loads.iter().any(|a| *a != load && uses(a, t));
        let around = self.ordered(|t| *t != vector && uses(&load, t) && other(t));
        let held = self.ordered(|t| uses(&load, t) && !around.iter().any(|a| a.t == *t));
        let rest = self.ordered(|t| !uses(&load, t));
        let mut body = Vec::new();
        let operand = self.operand(&held, &load, &mut body);
        let value = value.map(&mut |v| if v == Value::Load(load.clone()) { operand.clone() } else { v });
        let set = Stmt::Set { reg, index, value: self.expand_value(value) };
        let (inner, outer): (Vec<Cond>, Vec<Cond>) =
            real.into_iter().partition(|c| c.affines().iter().any(|a| rest.iter().chain(&held).any(|t| a.uses_var(t.t.as_str()))));
        body.extend(wrap(&unroll(&[rest, held].concat()), Stmt::when(inner, vec![set])));
        Ok(wrap(&unroll(&around), Stmt::when(outer, body)))
    }

    /// Whether a load may read the input past its end at the edge of a tile.
    fn overhangs(&self, a: &Access) -> bool {
        a.buffer == INPUT && self.tile.iter().any(|t| a.index[1..].iter().any(|i| i.uses_var(t.t.as_str())))
    }

    /// A tile may overhang the input only through the operand that is loaded under a guard.
    fn check_in_place(&self, loads: &[Access], clipped: Option<&Access>) -> Result<()> {
        match loads.iter().find(|a| Some(*a) != clipped && self.overhangs(a)) {
            Some(_) => {
                let message = format!("tile {} would read the input in place past its end; it needs a panel", self.tile_name());
                Err(Error::new(Kind::Options, message))
            }
            None => Ok(()),
        }
    }

    /// Whether a guard says no more than that the pixel which an operand loads exists.
    fn clips(&self, operand: Option<&Access>, c: &Cond) -> bool {
        operand.is_some_and(|a| a.buffer == INPUT && self.exists(a).any(|e| e == *c))
    }

    /// That the input pixel which is loaded exists, along every axis.
    fn exists(&self, load: &Access) -> impl Iterator<Item = Cond> {
        let range = |(e, hi): (&Affine, &Affine)| Cond::Range { lo: 0.into(), e: e.clone(), hi: hi.clone() };
        load.index.iter().zip(&self.func.buffer(INPUT).dims).skip(2).map(range)
    }

    /// Loads the operand along the lanes into `v`, zero where the input ends.
    fn operand(&mut self, held: &[TileVar], load: &Access, out: &mut Vec<Stmt>) -> Value {
        let index: Vec<Affine> = held.iter().map(|t| Affine::var(t.t)).collect();
        let name = self.own(&OPERAND.into());
        if !self.regs.iter().any(|r| r.name == name) {
            self.regs.push(Reg { name, lanes: 1, dims: held.iter().map(|t| t.extent).collect() });
        }
        let set = |value| Stmt::Set { reg: name, index: index.clone(), value };
        let mut body = vec![set(Value::Load(load.clone()))];
        if load.buffer == INPUT {
            // The positions of a tile are those of any of its phases: also where no tap of one phase leaves the input, one of another may.
            let conds = self.exists(load).filter(|c| !self.tested.contains(c)).collect();
            body = [vec![set(Value::Const(0.0))], Stmt::when(conds, body)].concat();
        }
        out.extend(wrap(&unroll(held), body));
        Value::Reg(name, index)
    }

    fn sink_store(&mut self, to: Access, parts: Vec<Value>, stream: bool, guards: &[Cond]) -> Result<Vec<Stmt>> {
        let dims = &self.func.buffer(to.buffer.as_str()).dims;
        let mut conds = guards.to_vec();
        for t in &self.tile {
            if to.index.iter().any(|i| i.uses_var(t.t.as_str())) {
                conds.extend(t.tails.iter().cloned());
            }
        }
        for (e, hi) in to.index.iter().zip(dims).skip(2) {
            if to.buffer == OUTPUT && self.tile.iter().any(|t| e.uses_var(t.t.as_str())) {
                conds.push(Cond::Range { lo: 0.into(), e: e.clone(), hi: hi.clone() });
            }
        }
        conds.dedup();
        let parts = parts.into_iter().map(|v| self.expand_value(v)).collect();
        // What waits in scratch memory is read again soon.
        let stream = stream || self.plan.stream && to.buffer == OUTPUT;
        // Neighbours in memory are written one after the other.
        let buffer = self.func.buffer(to.buffer.as_str());
        let side_by_side = buffer.order.last().map(|d| to.index[*d].clone()).unwrap_or_default();
        let vector = part(&self.plan.vector, "t");
        let along = |t: &TileVar| side_by_side.coef_of_var(t.t.as_str());
        let (mut neighbours, others): (Vec<_>, Vec<_>) = self.ordered(|_| true).into_iter().partition(|t| t.t != vector && along(t) > 0);
        neighbours.sort_by_key(|t| std::cmp::Reverse(along(t)));
        let loops = [others, neighbours].concat();
        let store = Stmt::Store { to, parts, stream };
        Ok(wrap(&unroll(&loops), Stmt::when(conds, vec![store])))
    }

    /// Tile axes that satisfy `keep`, with the axis along the lanes last.
    fn ordered(&self, keep: impl Fn(&Name) -> bool) -> Vec<TileVar> {
        let vector = part(&self.plan.vector, "t");
        let (last, first): (Vec<_>, Vec<_>) = self.tile.iter().filter(|t| keep(&t.t)).cloned().partition(|t| t.t == vector);
        [first, last].concat()
    }

    /// The register that stands for one in this tile.
    fn own(&self, reg: &Name) -> Name {
        if self.small { part(reg, "s") } else { *reg }
    }

    /// Makes a register an array over the tile and gives its index.
    fn expand(&mut self, reg: &Name) -> Vec<Affine> {
        if !self.regs.iter().any(|r| r.name == *reg) {
            self.regs.push(Reg { name: *reg, lanes: 1, dims: Vec::new() });
        }
        let dims: Vec<usize> = self.tile.iter().map(|t| t.extent).collect();
        if let Some(r) = self.regs.iter_mut().find(|r| r.name == *reg) {
            r.dims = dims;
        }
        self.tile.iter().map(|t| Affine::var(t.t)).collect()
    }

    fn expand_value(&mut self, v: Value) -> Value {
        v.map(&mut |v| match v {
            Value::Reg(r, i) if i.is_empty() && r != self.own(&OPERAND.into()) => {
                let r = self.own(&r);
                let index = self.expand(&r);
                Value::Reg(r, index)
            }
            v => v,
        })
    }

    /// Whether a guard leaves out a tap that some phases of the tile do not have: it tests a tap loop, and is known when the tile is written out.
    fn lacks_tap(&self, c: &Cond) -> bool {
        let taps = self.loops.iter().filter(|l| l.kind == LoopKind::Unroll);
        let tests = taps.into_iter().any(|l| c.affines().iter().any(|a| a.uses_var(l.var.as_str())));
        tests && c.affines().iter().all(|a| self.is_static(a))
    }

    /// Whether an expression is known when the tile is written out.
    fn is_static(&self, a: &Affine) -> bool {
        let known = |v: &Name| self.tile.iter().any(|t| t.t == *v) || self.loops.iter().any(|l| l.var == *v && l.kind == LoopKind::Unroll);
        a.vars().iter().all(known) && !a.terms.keys().any(|t| matches!(t, Atom::Sym(_) | Atom::Scaled(..)))
    }
}

/// How many taps one iteration of a tap loop goes through: the tap loops inside it are written out with it.
fn inner_taps(body: &[Stmt]) -> usize {
    let of = |s: &Stmt| match s {
        Stmt::For(l) => {
            let trips = l.const_range().map_or(usize::MAX, |(lo, hi)| (hi - lo).max(0) as usize);
            let tap = l.var.as_str().starts_with('t');
            if tap { trips.saturating_mul(inner_taps(&l.body)) } else { usize::MAX }
        }
        Stmt::When { body, .. } => inner_taps(body),
        _ => 1,
    };
    body.iter().map(of).max().unwrap_or(1)
}

fn loads(value: &Value) -> Vec<Access> {
    let mut out = Vec::new();
    value.visit(&mut |v| {
        if let Value::Load(a) = v {
            out.push(a.clone());
        }
    });
    out
}

fn unroll(vars: &[TileVar]) -> Vec<Loop> {
    vars.iter().map(|t| Loop::new(t.t, t.extent as i64, Vec::new()).kind(LoopKind::Unroll)).collect()
}

/// The loop counted in tiles, if its start is a whole number of tiles: `for b in 0..ceil(hi / m)`.
fn count_tiles(l: &Loop, m: i64) -> Option<Loop> {
    let exact = |a: &Affine| a.offset % m == 0 && a.terms.values().all(|c| c % m == 0);
    let lo = l.lo.iter().map(|a| exact(a).then(|| a.clone().floor_div(m))).collect::<Option<Vec<_>>>()?;
    let up = |a: &Affine| match a.as_const() {
        Some(v) => Some(Affine::from((v + m - 1).div_euclid(m))),
        None => exact(a).then(|| a.clone().floor_div(m)),
    };
    let hi = l.hi.iter().map(up).collect::<Option<Vec<_>>>()?;
    Some(Loop { lo, hi, ..l.around(l.body.clone()) })
}
