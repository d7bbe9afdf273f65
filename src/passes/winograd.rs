//! Pass `winograd`: fewer multiplications than the direct sum, by Toom-Cook convolution along every axis.
//!
//! *Needs* a panel, and phases that all count from the uncropped edge. *Leaves*, if the plan asks for it, three nests in place of one. Each phase of a
//! transposed convolution is a short convolution of stride 1, and phases with equally many taps read the same window; so a window of `m + T - 1`
//! pixels is transformed once, multiplied channel by channel with transformed weights, and what comes out is `m` outputs of each of those phases.
//!
//! ```text
//! for ic: fill P; X = B P along x; V[.., ic, w] = B X along y, for every window w of the block
//! for oc.k, in steps of the channels that are held:
//!   for vy, vx, fy, fx, qw, oc: acc = 0; for ic: acc = fma(V[vy, vx, ic, qw], u[vy, fy, vx, fx, ic, oc], acc); M[vy, fy, vx, fx, oc, qw] = acc
//!   for oc: R = A M along y; y[n, oc, s*m*wy + hy.., s*m*wx + hx..] = epilogue(A R along x)
//! prepare: u = G w along x, then along y
//! ```
//!
//! Every axis is handled by the same construction, one after the other, the innermost first on the way in and last on the way out; matrices come from
//! [`super::toom_cook`]. `v` counts the entries of a transformed window, `f` the phases that share it; where phases differ in their taps, `u` counts both
//! and the table `v.y` says which entry a product is of. `h` counts the `s*m` outputs of a window along one axis.

mod axis;
mod weights;

use super::nest::{Nest, peel, wrap};
use super::panel::{PANEL, odd_lines, up};
use super::toom_cook::{Exact, float};
use crate::ir::names::{ACC, INPUT, OUTPUT, WEIGHT, part};
use crate::ir::{
    Access, Affine, BinOp, Buffer, BufferKind, Cond, Count, CountOf, Func, Loop, LoopKind, Name, Reg, Stage, Stmt, Table, Value,
};
use crate::plan::Plan;
use crate::{Error, Kind, Result};
use axis::{Around, Axis};
use std::ops::Add;

/// The transformed weights, before they are packed.
pub const FACTORS: &str = "u";
/// The transformed windows of one block.
const WINDOWS: &str = "V";
/// The products that wait for their inverse transform.
const PRODUCTS: &str = "M";
/// The outputs of one window row, before they are stored.
const OUT: &str = "out";
/// Input channels whose weights are transformed at a time: with a tile of output channels, what one store covers is several cache lines.
const CHANNELS: i64 = 8;
/// The variable that counts the windows of a block, over all axes.
const WINDOW: &str = "qw";

/// Replaces the reduction by transforms and products.
pub fn run(func: &Func, plan: &Plan) -> Result<Func> {
    match &plan.winograd {
        // Without an output there is nothing to do.
        Some(_) if func.run.is_empty() => Ok(func.clone()),
        Some(w) => Lowering::new(func, plan, &w.outputs, w.held)?.lower(),
        None => Ok(func.clone()),
    }
}

fn illegal(message: impl Into<String>) -> Error {
    Error::new(Kind::Options, message)
}

struct Lowering<'a> {
    func: &'a Func,
    plan: &'a Plan,
    axes: Vec<Axis>,
    /// The parallel loops, and the loop over output channels inside them.
    par: Vec<Loop>,
    channels: Loop,
    /// The nest that fills the panel.
    fill: Stmt,
    /// Input channels of a group.
    inputs: i64,
    /// Output channels whose products are held at a time.
    held: i64,
    /// Where the weights of a tap, and the output of a position, are.
    weight: Access,
    output: Access,
    /// What is stored, in terms of the accumulator.
    epilogue: Value,
    buffers: Vec<Buffer>,
    regs: Vec<Reg>,
}

impl<'a> Lowering<'a> {
    fn new(func: &'a Func, plan: &'a Plan, outputs: &[usize], held: usize) -> Result<Self> {
        let wanted = |what: &str| super::unexpected("winograd", what);
        let nest = Nest::of(func);
        let par: Vec<Loop> = nest.loops.iter().take_while(|l| l.kind == LoopKind::Par).cloned().collect();
        let [fill, inner] = &nest.body[..] else { return Err(wanted("a panel and one nest that reads it")) };
        let (loops, body) = peel(std::slice::from_ref(inner));
        let [Stmt::Set { value: Value::Const(0.0), .. }, taps, Stmt::Store { to, parts, .. }] = body else {
            return Err(wanted("an accumulator, its taps and a store"));
        };
        let (taps, reduction) = peel(std::slice::from_ref(taps));
        let [Stmt::Set { value: Value::Fma(factors), .. }] = reduction else {
            return Err(illegal("the algorithm needs taps without a guard, and weights that are all finite; legal: a direct plan"));
        };
        let load = |of: &str| factors.iter().find_map(|v| if let Value::Load(a) = v { Some(a).filter(|a| a.buffer == of) } else { None });
        let (Some(pixel), Some(weight)) = (load(PANEL), load(WEIGHT)) else { return Err(wanted("products of pixels and weights")) };
        let names = super::nest::axes(func);
        if outputs.len() != names.len() {
            return Err(illegal(format!("{} window sizes for {} axes", outputs.len(), names.len())));
        }
        let around = Around { func, par: &par, loops: &loops, taps: &taps, pixel, weight, output: to };
        let axes: Vec<Axis> = (0..names.len()).map(|a| around.axis(a, names[a], outputs[a] as i64)).collect::<Result<_>>()?;
        let channels = loops.iter().find(|l| l.var == "oc").cloned().unwrap_or_else(|| Loop::new("oc", 1, Vec::new()));
        let inputs = taps.iter().find(|l| l.var == "ic").and_then(Loop::const_range).map_or(1, |r| r.1);
        let made = Lowering {
            func,
            plan,
            axes,
            par,
            channels,
            fill: fill.clone(),
            inputs,
            held: held as i64,
            weight: weight.clone(),
            output: to.clone(),
            epilogue: parts[0].clone(),
            buffers: Vec::new(),
            regs: Vec::new(),
        };
        made.check()?;
        Ok(made)
    }

    fn check(&self) -> Result<()> {
        let tile = self.plan.extent("oc") as i64;
        if self.plan.vector != WINDOW && self.plan.vector != "oc" {
            return Err(illegal(format!("{} lies along the lanes; with windows {WINDOW} or oc does", self.plan.vector)));
        }
        if self.held % tile != 0 {
            return Err(illegal(format!("{} channels are held, which is no multiple of the tile's {tile}", self.held)));
        }
        Ok(())
    }

    fn lanes(&self) -> i64 {
        self.plan.lanes as i64
    }
    fn x(&self) -> &Axis {
        &self.axes[self.axes.len() - 1]
    }
    /// Windows of a block, over all axes; the most, if how many is known at run time only.
    fn windows(&self) -> i64 {
        self.axes.iter().map(|a| a.windows).product()
    }
    /// Windows of the innermost `n` axes of a block: a number, times a symbol if some are counted at run time.
    fn held_within(&self, n: usize) -> (i64, Option<Name>) {
        let axes = &self.axes[self.axes.len() - n..];
        let known = axes.iter().filter(|a| a.count.is_none()).map(|a| a.windows).product();
        (known, counted_within(axes))
    }
    /// Windows of a row, in whole vectors.
    fn row(&self) -> i64 {
        up(self.x().windows, self.lanes())
    }
    /// Places for the windows of a block: whole tiles, an odd number of cache lines. With an odd number of rows, entries of one window, which are
    /// written together, then lie in different sets of a cache.
    fn windows_held(&self) -> i64 {
        odd_lines(up(self.windows(), self.plan.extent(WINDOW) as i64), self.func.elem.bytes() as i64)
    }
    /// The same where rows are read by whole vectors, past the end of the last.
    fn windows_read(&self) -> i64 {
        self.windows_held().max(self.windows() - self.x().windows + self.row())
    }

    fn lower(mut self) -> Result<Func> {
        let mut out = self.func.clone();
        out.stage = Stage::Tile;
        out.prepare = self.weights();
        let inward = self.inward();
        let chunk = part(&"oc".into(), "k");
        let first = self.channels.lo[0].clone();
        let count = self.channels.hi.iter().find_map(|hi| (hi.clone() - first.clone()).as_const()).unwrap_or(1);
        let chunks = Loop::new(chunk.clone(), (count + self.held - 1) / self.held, Vec::new());
        let start = first + Affine::var(&chunk) * self.held;
        let held = Loop {
            lo: vec![start.clone()],
            hi: [vec![start.clone() + self.held], self.channels.hi.clone()].concat(),
            ..Loop::new("oc", 1, Vec::new())
        };
        let products = self.products(&held, &start);
        let outward = self.outward(&held, &start);
        let body = [vec![inward], wrap(&[chunks], vec![products, outward])].concat();
        out.run = wrap(&self.par, body);
        // The panel of all channels makes way for that of one.
        out.buffers.retain(|b| b.name != PANEL);
        out.buffers.extend(self.buffers);
        out.regs.extend(self.regs);
        // Products of counts, the innermost axes first.
        for n in 2..=self.axes.len() {
            let within = &self.axes[self.axes.len() - n..];
            if let (Some(outer), Some(inner)) = (&within[0].count, counted_within(&within[1..])) {
                out.counts.push(Count { name: counts_of(within), of: CountOf::Product(outer.clone(), inner) });
            }
        }
        for a in self.axes.iter().filter(|a| a.shared().is_none()) {
            out.tables.push(Table { name: a.var("v."), values: a.of.clone() });
        }
        Ok(out)
    }

    fn buffer(&mut self, name: impl Into<Name>, kind: BufferKind, dims: &[i64]) -> Name {
        let name = name.into();
        let dims: Vec<Affine> = dims.iter().map(|d| Affine::from(*d)).collect();
        self.buffers.push(Buffer { name: name.clone(), kind, elem: self.func.elem, order: (0..dims.len()).collect(), dims });
        name
    }

    /// Lets a dimension of the buffer that was declared last lie innermost in memory.
    fn innermost(&mut self, dim: usize) {
        if let Some(b) = self.buffers.last_mut() {
            b.order.retain(|d| *d != dim);
            b.order.push(dim);
        }
    }

    /// Whether channels lie along the lanes from the input to the output, since they lie side by side in both.
    fn channels_along(&self) -> bool {
        self.plan.vector == "oc" && self.together() > 1 && self.func.buffer(OUTPUT).order.last() == Some(&1)
    }

    /// A scalar register, declared once.
    fn reg(&mut self, prefix: &str, i: i64) -> Name {
        let name = Name::from(format!("{prefix}{i}"));
        if !self.regs.iter().any(|r| r.name == name) {
            self.regs.push(Reg { name: name.clone(), lanes: 1, dims: Vec::new() });
        }
        name
    }

    // The window: fill, then B along every axis, the innermost first

    fn inward(&mut self) -> Stmt {
        let rank = self.axes.len();
        let (x, row) = (rank - 1, self.row());
        let mut panel: Vec<i64> = self.axes.iter().enumerate().map(|(a, axis)| self.panel_extent(a, axis)).collect();
        let (together, along) = (self.together(), self.channels_along());
        if together > 1 && !along {
            panel[x] = up(panel[x], self.lanes());
        }
        let mut from = self.buffer(PANEL, BufferKind::Scratch, &[&[together], &panel[..]].concat());
        let (channel, within): (Name, Name) = ("ic".into(), part(&"ic".into(), "i"));
        let counter = if together > 1 { part(&channel, "o") } else { channel.clone() };
        let first = Affine::var(&counter);
        if along {
            self.innermost(0);
        }
        let fill = self.fill(&first, together);
        // What lies along the lanes, innermost: windows of a row, or channels. Then windows of a row are around all steps, which hold one of them.
        let lanes = if along { Loop::new(within.clone(), together, Vec::new()) } else { Loop::new(self.x().var("w"), row, Vec::new()) };
        let (from_panel, into_windows) = match along {
            true => (Affine::var(&within), first.clone() + Affine::var(&within)),
            false => (Affine::var(&channel) - first.clone(), Affine::var(&channel)),
        };
        let mut body = Vec::new();
        for a in (0..rank).rev() {
            // What this step reads: panel rows of the axes before it, products of those behind it, windows of those behind it.
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            let mut loops: Vec<Loop> =
                before.iter().enumerate().map(|(i, axis)| Loop::new(axis.var("p"), self.panel_rows(i, panel[i]), Vec::new())).collect();
            loops.extend((a..x).map(|i| Loop::new(self.axes[i].var("w"), self.axes[i].held(), Vec::new())));
            loops.extend(behind.iter().map(|axis| Loop::new(axis.var("v"), axis.v(), Vec::new())));
            loops.push(lanes.clone());
            let p: Vec<Affine> = before.iter().map(|axis| axis.at("p")).collect();
            let v: Vec<Affine> = behind.iter().map(|axis| axis.at("v")).collect();
            let held = |i: usize| if i == x { Affine::var(&lanes.var) } else { self.axes[i].at("w") };
            let w: Vec<Affine> = (a + 1..rank).map(held).collect();
            let flat = self.flat();
            let axis = &self.axes[a];
            let pixel = |e: i64| [p.clone(), vec![axis.at("w") * axis.outputs + e], v.clone(), w.clone()].concat();
            let to = |i: i64| -> Vec<Affine> {
                if a == 0 {
                    return [vec![i.into()], v.clone(), vec![into_windows.clone(), flat.clone()]].concat();
                }
                [p.clone(), vec![i.into()], v.clone(), vec![held(a)], w.clone()].concat()
            };
            let rows: Vec<(i64, Sum)> = axis
                .classes
                .iter()
                .flat_map(|c| c.toom.input.iter().enumerate().map(move |(i, b)| (c.v + i as i64, sum(b, |e| c.start + e as i64))))
                .collect();
            let name = if a == 0 { WINDOWS.into() } else { Name::from(format!("X{}", axis.name)) };
            let dims: Vec<i64> = if a == 0 {
                self.axes.iter().map(Axis::v).chain(self.windows_dims()).collect()
            } else {
                let held = |i: usize| if i < x { self.axes[i].windows } else { lanes.const_range().map_or(1, |r| r.1) };
                panel[..a].iter().copied().chain(self.axes[a..].iter().map(Axis::v)).chain((a..rank).map(held)).collect()
            };
            let from_panel = if a == x { vec![from_panel.clone()] } else { Vec::new() };
            let pixels: Vec<Entry> = axis.pixels().map(|e| (e, [from_panel.clone(), pixel(e)].concat())).collect();
            let stores: Vec<Stored> = rows.into_iter().map(|(i, s)| (to(i), s)).collect();
            let into = self.buffer(name, BufferKind::Scratch, &dims);
            if along && a == 0 {
                self.innermost(rank);
            }
            let mut step = self.transform(&axis_reg("d", a, rank), &from, &pixels, &into, stores);
            let columns = self.x().held();
            if a == 0 && !columns.is(row) && !along {
                // What lies behind the end of a row belongs to the next.
                let stored = step.split_off(pixels.len());
                let e = self.x().at("w");
                step.extend(Stmt::when(vec![Cond::Range { lo: 0.into(), e, hi: columns }], stored));
            }
            body.extend(wrap(&loops, step));
            from = into;
        }
        if along {
            body = vec![Loop::new(self.x().var("w"), self.x().held(), body).into()];
        } else if together > 1 {
            let hi = vec![first.clone() + together, self.inputs.into()];
            body = vec![Loop { lo: vec![first], hi, ..Loop::new(channel, 1, body) }.into()];
        }
        Loop { step: together, ..Loop::new(counter, self.inputs, [fill, body].concat()) }.into()
    }

    /// Places for the input channels and windows of a block. Where channels lie innermost, a window's are whole vectors and an odd number of lines.
    fn windows_dims(&self) -> [i64; 2] {
        if self.channels_along() {
            let channels = odd_lines(up(self.inputs, self.lanes()), self.func.elem.bytes() as i64);
            return [channels, up(self.windows(), self.plan.extent(WINDOW) as i64)];
        }
        [self.inputs | 1, self.windows_held()]
    }

    /// Input channels that the panel holds: one, or as many as lie side by side in what a vector loads.
    fn together(&self) -> i64 {
        let x = self.func.buffer(INPUT);
        if x.order.last() == Some(&1) && self.inputs > 1 { self.lanes() } else { 1 }
    }

    /// The rows of the panel that windows read; along x as many columns as whole vectors of windows read.
    fn panel_extent(&self, a: usize, axis: &Axis) -> i64 {
        let windows = if a + 1 == self.axes.len() && !self.channels_along() { self.row() } else { axis.windows };
        ((windows - 1) * axis.outputs + axis.pixels().end).max(axis.panel)
    }

    /// How many of the panel's rows along an axis a block reads.
    fn panel_rows(&self, a: usize, panel: i64) -> Affine {
        let axis = &self.axes[a];
        let lanes = a + 1 == self.axes.len() && !self.channels_along();
        if axis.count.is_none() || lanes { panel.into() } else { axis.held() * axis.outputs + axis.pixels().end - axis.outputs }
    }

    /// The fill of the panel for some channels, from the first on: the loop over channels goes around.
    fn fill(&self, first: &Affine, together: i64) -> Vec<Stmt> {
        let (loops, body) = peel(std::slice::from_ref(&self.fill));
        let within = part(&"ic".into(), "i");
        let at = first.clone() + Affine::var(&within);
        let mut body = body.to_vec();
        body.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst("ic", &at)));
        fn redirect(body: &mut [Stmt], within: &Name) {
            for s in body {
                if let Stmt::Store { to, .. } = s
                    && to.buffer == PANEL
                {
                    to.index[0] = Affine::var(within);
                }
                s.body_mut().into_iter().for_each(|inner| redirect(inner, within));
            }
        }
        redirect(&mut body, &within);
        if self.inputs % together != 0 {
            let exists = vec![Cond::Range { lo: 0.into(), e: at, hi: self.inputs.into() }];
            let loads = |s: &Stmt| matches!(s, Stmt::When { .. } | Stmt::Set { value: Value::Load(_), .. });
            let guarded = body.into_iter().map(|s| if loads(&s) { Stmt::when(exists.clone(), vec![s]) } else { vec![s] });
            body = guarded.flatten().collect();
            if let Some(Stmt::When { body: inner, .. }) = body.first()
                && let Some(Stmt::Set { reg, .. }) = inner.first()
            {
                body.insert(0, Stmt::set(reg.clone(), Value::Const(0.0)));
            }
        }
        let mut nest: Vec<Loop> = loops.into_iter().filter(|l| l.var != "ic").collect();
        for l in &mut nest {
            if let (Some(a), Some((0, rows))) = (self.axes.iter().position(|axis| axis.var("p") == l.var), l.const_range()) {
                l.hi = vec![self.panel_rows(a, rows)];
            }
        }
        // Lanes are channels either way: innermost, or turned with the columns.
        let at = if self.channels_along() { nest.len() } else { 0 };
        nest.insert(at, Loop::new(within, together, Vec::new()));
        wrap(&nest, body)
    }

    /// The number of a window within its block.
    fn flat(&self) -> Affine {
        let term = |(a, axis): (usize, &Axis)| match self.held_within(self.axes.len() - 1 - a) {
            (known, None) => axis.at("w") * known,
            (known, Some(symbol)) => Affine::scaled(symbol, axis.var("w")) * known,
        };
        self.axes.iter().enumerate().map(term).fold(Affine::from(0), Affine::add)
    }

    /// Loads entries of `from` into registers, and stores sums of them.
    fn transform(&mut self, prefix: &str, from: &Name, entries: &[Entry], into: &Name, sums: Vec<Stored>) -> Vec<Stmt> {
        let mut out: Vec<Stmt> = Vec::new();
        for (e, index) in entries {
            let reg = self.reg(prefix, *e);
            out.push(Stmt::set(reg, Value::load(from.clone(), index.clone())));
        }
        out.extend(sums.into_iter().map(|(index, s)| Stmt::store(into.clone(), index, s.value(prefix))));
        out
    }

    // Products

    fn products(&mut self, held: &Loop, start: &Affine) -> Stmt {
        let counts: Vec<i64> = self.axes.iter().flat_map(Axis::counts).collect();
        let held_at = counts.len();
        if self.channels_along() {
            let windows = up(self.windows(), self.plan.extent(WINDOW) as i64);
            self.buffer(PRODUCTS, BufferKind::Scratch, &[&counts[..], &[up(self.held, self.lanes()), windows | 1]].concat());
            self.innermost(held_at);
        } else {
            self.buffer(PRODUCTS, BufferKind::Scratch, &[counts, vec![self.held | 1, self.windows_held()]].concat());
        }
        let (oc, ic, w) = (Affine::var("oc"), Affine::var("ic"), Affine::var(WINDOW));
        let window = self.axes.iter().map(Axis::entry).chain([ic, w.clone()]).collect();
        let product = self.axes.iter().flat_map(Axis::product).chain([oc - start.clone(), w]).collect();
        let factor = self.factor_index();
        let step = Stmt::set(ACC, Value::fma(Value::load(WINDOWS, window), Value::load(FACTORS, factor), Value::reg(ACC)));
        let body = vec![
            Stmt::set(ACC, Value::Const(0.0)),
            Loop::new("ic", self.inputs, vec![step]).into(),
            Stmt::store(PRODUCTS, product, Value::reg(ACC)),
        ];
        let counters = || self.axes.iter().flat_map(Axis::counters);
        let mut loops: Vec<Loop> = [false, true]
            .into_iter()
            .flat_map(|inside| counters().filter(move |c| c.2 == inside))
            .map(|c| Loop::new(c.0, c.1, Vec::new()))
            .collect();
        // Windows around channels: the windows of a tile stay in the first-level cache while weights stream by.
        let windows = match self.held_within(self.axes.len()) {
            (known, None) => known.into(),
            (known, Some(symbol)) => Affine::sym(symbol) * known,
        };
        loops.push(Loop::new(WINDOW, windows, Vec::new()));
        loops.push(held.clone());
        wrap(&loops, body).remove(0)
    }

    // Outputs: A along every axis, the innermost last

    fn outward(&mut self, held: &Loop, start: &Affine) -> Stmt {
        let rank = self.axes.len();
        let x = rank - 1;
        // Their own names: the tile's are taken apart by pass `tile`.
        let (oc, window) = (part(&"oc".into(), "y"), part(&WINDOW.into(), "y"));
        let (side_by_side, along) = (self.side_by_side(), self.channels_along());
        let unit = part(&"oc".into(), "u");
        let units = Loop::new(unit.clone(), side_by_side, Vec::new());
        let channel = Loop { var: oc.clone(), step: side_by_side, ..held.clone() };
        let mut body: Vec<Stmt> = Vec::new();
        let mut from: Name = PRODUCTS.into();
        // Products are held by channel; what comes after is of one channel.
        let mut lead = |index: Vec<Affine>, a: usize, w: Affine| -> Vec<Affine> {
            let of = if a == 0 { Affine::var(&oc) - start.clone() + Affine::var(&unit) } else { Affine::var(&unit) };
            [index, vec![of, w]].concat()
        };
        for a in 0..x {
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            let axis = &self.axes[a];
            let mut loops: Vec<Loop> = before.iter().map(|b| Loop::new(b.var("h"), b.h(), Vec::new())).collect();
            loops.extend(behind.iter().flat_map(Axis::product_loops));
            // The lanes are innermost: windows, or channels of one window, whose loop is around all steps.
            let mut one = if along { Affine::from(0) } else { Affine::var(&window) };
            match self.held_within(rank) {
                _ if along => loops.push(units.clone()),
                (windows, None) => loops.push(Loop::new(window.clone(), up(windows, self.lanes()), Vec::new())),
                (windows, Some(symbol)) => {
                    let first = part(&WINDOW.into(), "o");
                    one = one + Affine::var(&first);
                    loops.push(Loop { step: self.lanes(), ..Loop::new(first, Affine::sym(symbol) * windows, Vec::new()) });
                    loops.push(Loop::new(window.clone(), self.lanes(), Vec::new()));
                }
            }
            if !along {
                loops.insert(0, units.clone());
            }
            let read = if along && a == 0 { self.flat() } else { one.clone() };
            let h: Vec<Affine> = before.iter().map(|b| b.at("h")).collect();
            let u: Vec<Affine> = behind.iter().flat_map(Axis::product).collect();
            let at = |i: Vec<Affine>| [h.clone(), i, u.clone()].concat();
            let dims: Vec<i64> = self.axes[..=a]
                .iter()
                .map(Axis::h)
                .chain(behind.iter().flat_map(Axis::counts))
                .chain([side_by_side, if along { 1 } else { self.windows_read() }])
                .collect();
            let rows: Vec<(i64, Sum, Vec<i64>)> = outputs(axis);
            let name = Name::from(format!("R{}", axis.name));
            let entries: Vec<Vec<Entry>> =
                rows.iter().map(|r| r.2.iter().map(|&e| (e, lead(at(axis.product_at(e)), a, read.clone()))).collect()).collect();
            let to: Vec<Vec<Affine>> =
                rows.iter().map(|r| [at(vec![r.0.into()]), vec![Affine::var(&unit), one.clone()]].concat()).collect();
            let into = self.buffer(name, BufferKind::Scratch, &dims);
            if along {
                self.innermost(dims.len() - 2);
            }
            let mut step = Vec::new();
            let mut loaded: Vec<i64> = Vec::new();
            for ((row, entries), to) in rows.into_iter().zip(entries).zip(to) {
                let new: Vec<_> = entries.into_iter().filter(|(e, _)| !loaded.contains(e)).collect();
                loaded.extend(new.iter().map(|e| e.0));
                step.extend(self.transform(&axis_reg("e", a, rank), &from, &new, &into, vec![(to, row.1)]));
            }
            body.extend(wrap(&loops, step));
            from = into;
        }
        let last = self.last(&from, &oc, &mut lead);
        body.extend(last);
        if along {
            let windows: Vec<Loop> = self.axes.iter().map(|a| Loop::new(a.var("w"), a.held(), Vec::new())).collect();
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
        let rows = outputs(axis);
        let h = axis.var("h");
        let flat = if along && x > 0 { 0.into() } else { self.flat() };
        let index = |u: i64| [at.clone(), axis.product_at(u)].concat();
        let rows: Vec<(i64, Sum, Vec<Entry>)> = rows
            .into_iter()
            .map(|(i, s, entries)| (i, s, entries.into_iter().map(|e| (e, lead(index(e), x, flat.clone()))).collect()))
            .collect();
        let (reach, across) = (axis.h(), axis.var("w"));
        let prefix = axis_reg("e", x, x + 1);
        let (together, unit) = (self.side_by_side(), part(&"oc".into(), "u"));
        // Outputs that wait to be stored together: one, or those of a window, or those of several channels.
        let (held, one_of) = match together {
            _ if along => (1, Affine::from(0)),
            1 => (reach, Affine::var(&h)),
            n => (n, Affine::var(&unit)),
        };
        self.regs.push(Reg { name: OUT.into(), lanes: 1, dims: vec![held as usize] });

        // The output that the window's output `h` is, and the conditions under which it exists.
        let place = |e: &Affine| {
            let e = e.subst("oc", &(Affine::var(oc) + Affine::var(&unit)));
            self.axes.iter().fold(e, |e, a| {
                // With one phase only there is no variable for it: the outputs of a window are neighbouring positions.
                let within = if a.stride == 1 { a.at("h") } else { 0.into() };
                let e = e.subst(a.var("q").as_str(), &(a.base.clone() + a.at("w") * a.outputs + within));
                e.subst(a.var("r").as_str(), &a.at("h"))
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
        if !along && axis.blocked && !axis.held().is(self.row()) {
            // Lanes behind the end of a block's row belong to the next block.
            let e = to.index[x + 2].clone();
            let end = e.subst(axis.var("w").as_str(), &axis.held()).subst(h.as_str(), &0.into());
            exists.push(Cond::Range { lo: 0.into(), e, hi: end });
        }
        if along && !self.chunks_of(together) {
            let e = Affine::var(oc) + Affine::var(&unit);
            exists.extend(self.channels.hi.iter().map(|hi| Cond::Range { lo: 0.into(), e: e.clone(), hi: hi.clone() }));
        }
        let store = Stmt::when(exists, vec![Stmt::Store { to: to.clone(), parts: vec![value], stream: self.plan.stream }]);
        let fixed = |mut s: Vec<Stmt>, var: &Name, i: i64| {
            s.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst(var.as_str(), &i.into())));
            s
        };
        // Products are loaded phase by phase: few of them wait in registers.
        let mut loaded: Vec<i64> = Vec::new();
        for (i, s, entries) in rows {
            if along {
                for (e, index) in entries.into_iter().filter(|e| !loaded.contains(&e.0)).collect::<Vec<_>>() {
                    loaded.push(e);
                    step.push(Stmt::set(self.reg(&prefix, e), Value::load(from.clone(), index)));
                }
                step.push(Stmt::Set { reg: OUT.into(), index: vec![0.into()], value: s.value(&prefix) });
                step.extend(fixed(store.clone(), &h, i));
                continue;
            }
            for u in 0..together {
                for (e, index) in entries.iter().filter(|e| together > 1 || !loaded.contains(&e.0)).cloned().collect::<Vec<_>>() {
                    loaded.push(e);
                    let reg = self.reg(&prefix, e);
                    step.extend(fixed(vec![Stmt::set(reg, Value::load(from.clone(), index))], &unit, u));
                }
                let at = if together > 1 { u } else { i };
                step.push(Stmt::Set { reg: OUT.into(), index: vec![at.into()], value: s.value(&prefix) });
            }
            if together > 1 {
                step.push(Loop::new(unit.clone(), together, fixed(store.clone(), &h, i)).kind(LoopKind::Unroll).into());
            }
        }
        if along {
            return wrap(&loops, Stmt::when(rows_exist, vec![Loop::new(unit, together, step).into()]));
        }
        if together == 1 {
            step.push(Loop::new(h, reach, fixed(store, &unit, 0)).kind(LoopKind::Unroll).into());
        }
        // An axis of one position has no variable that would tell its windows apart.
        let moves = self.output.index[x + 2].uses_var(self.x().var("q").as_str());
        let columns = Loop::new(across, if moves { self.row() } else { 1 }, step);
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

/// The name of the product of the counts of several axes.
fn counts_of(axes: &[Axis]) -> Name {
    let counted = axes.iter().filter(|a| a.count.is_some()).map(|a| a.name);
    format!("n.{}", counted.collect::<String>()).into()
}

/// The symbol for the counts of some axes, if there is one.
fn counted_within(axes: &[Axis]) -> Option<Name> {
    let mut counted = axes.iter().filter(|a| a.count.is_some());
    match (counted.next(), counted.next()) {
        (Some(one), None) => one.count.clone(),
        (Some(_), Some(_)) => Some(counts_of(axes)),
        _ => None,
    }
}

/// The outputs of a window along one axis: which, the sum of products, and which products.
fn outputs(axis: &Axis) -> Vec<(i64, Sum, Vec<i64>)> {
    let mut out = Vec::new();
    for c in &axis.classes {
        for (f, r) in c.phases.iter().enumerate() {
            let all: Vec<i64> = (0..c.toom.products()).map(|i| c.u(i, f)).collect();
            for (j, row) in c.toom.output.iter().enumerate() {
                out.push((axis.stride * j as i64 + r, sum(row, |i| all[i]), all.clone()));
            }
        }
    }
    let covered: Vec<i64> = out.iter().map(|o| o.0).collect();
    // A phase that no tap hits has outputs of bias only.
    out.extend((0..axis.h()).filter(|h| !covered.contains(h)).map(|h| (h, Sum(Vec::new()), Vec::new())));
    out
}

/// Registers of one axis' step: each step has its own, since pass `vector` treats each loop by itself.
fn axis_reg(role: &str, a: usize, rank: usize) -> String {
    format!("{role}{}", crate::ir::names::axes(rank)[a])
}

/// Which register an entry of a buffer is loaded into, and the entry's index.
type Entry = (i64, Vec<Affine>);

/// Where a sum is stored.
type Stored = (Vec<Affine>, Sum);

/// A sum of registers with coefficients.
struct Sum(Vec<(i64, Exact)>);

/// The sum that a row of a matrix stands for; `entry` says which register a column is.
fn sum(row: &[Exact], entry: impl Fn(usize) -> i64) -> Sum {
    let nonzero = row.iter().enumerate().filter(|(_, c)| **c != Exact::from(0));
    let mut terms: Vec<(i64, Exact)> = nonzero.map(|(i, c)| (entry(i), *c)).collect();
    // A positive term comes first, so that the others can be added or subtracted.
    if let Some(first) = terms.iter().position(|t| t.1 > Exact::from(0)) {
        terms[..=first].rotate_right(1);
    }
    Sum(terms)
}

impl Sum {
    fn value(&self, prefix: &str) -> Value {
        let reg = |e: i64| Value::reg(format!("{prefix}{e}"));
        let one = Exact::from(1);
        let scaled = |e: i64, c: Exact| if c == one { reg(e) } else { Value::bin(BinOp::Mul, reg(e), Value::Const(float(c))) };
        let Some(((e, c), rest)) = self.0.split_first() else { return Value::Const(0.0) };
        // Coefficients that are all alike multiply the sum.
        let alike = self.0.len() > 1 && *c != one && self.0.iter().all(|t| t.1 == *c || t.1 == -*c);
        let by = if alike { *c } else { one };
        let v = rest.iter().fold(scaled(*e, *c / by), |v, &(e, c)| match c / by {
            c if c == one => Value::bin(BinOp::Add, v, reg(e)),
            c if c == -one => Value::bin(BinOp::Sub, v, reg(e)),
            c => Value::fma(reg(e), Value::Const(float(c)), v),
        });
        if alike { Value::bin(BinOp::Mul, v, Value::Const(float(by))) } else { v }
    }
}
