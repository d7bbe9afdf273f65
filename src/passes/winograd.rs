//! Pass `winograd`: fewer multiplications than the direct sum, by Toom-Cook convolution along every axis.
//!
//! *Needs* a panel, and phases that count from the uncropped edge along every axis that is transformed. *Leaves*, if the plan asks for it, three nests in place
//! of one. Each phase of a transposed convolution is a short convolution of stride 1, and phases with equally many taps read the same window; so a window of `m + T - 1`
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
//! Loops over the phases `f` of the axes before x may go around products and outputs instead ([`Winograd::by_phase`]): then the products of one phase wait
//! at a time, and blocks of so many more windows have room, at the price of reading `V` again for each.
//!
//! Loops over `f` may be a tile's: with few output channels, all phases together use the registers, and an entry of a window is loaded once for them.
//!
//! Every axis is handled by the same construction, one after the other, the innermost first on the way in and last on the way out; matrices come from
//! [`super::toom_cook`]. `v` counts the entries of a transformed window, `f` the phases that share it; where phases differ in their taps, `u` counts both
//! and the table `v.y` says which entry a product is of. `h` counts the `s*m` outputs of a window along one axis.
//!
//! Windows of one output along x have nothing to transform along it: the taps there are summed with the input channels, `V` holds the columns of the panel, and
//! `acc = fma(V[vy, ic, qw + p.x[fx] + tx], u[vy, fy, fx, tx, ic, oc], acc)`. With few output channels that costs less than transforms along the lanes. The phases
//! of x share no window then, so they count from the first output: each reads from a pixel `p.x` of its own.
//!
//! How many windows a block has may be a count that is known at run time. Rows of windows lie side by side all the same, so that a tile is not cut by their
//! ends.
//!
//! | file | what it makes |
//! |---|---|
//! | `axis.rs` | what the direct nest says about one axis: its windows, phases and matrices |
//! | `inward.rs` | panel and transformed windows |
//! | `outward.rs` | outputs from products |
//! | `weights.rs` | `prepare` |
//! | `sums.rs` | sums of registers, of which all transforms consist |

mod axis;
mod inward;
mod outward;
mod sums;
mod weights;

pub use inward::window_places;

use super::nest::{Nest, peel, wrap};
use super::panel::{PANEL, spread_lines, up};
use crate::ir::names::{ACC, OUTPUT, WEIGHT, part};
use crate::ir::{Access, Affine, Buffer, BufferKind, Count, CountOf, Elem, Func, Loop, LoopKind, Name, Reg, Stage, Stmt, Table, Value};
use crate::plan::{Plan, Winograd};
use crate::{Error, Kind, Result};
use axis::{Around, Axis, counted_within, counts_of};
use std::ops::Add;
use sums::{Entry, Shared, Stored, register, shared};

/// The transformed weights, before they are packed.
pub const FACTORS: &str = "u";
/// The transformed windows of one block.
const WINDOWS: &str = "V";
/// The products that wait for their inverse transform.
const PRODUCTS: &str = "M";
/// The outputs of one window row, before they are stored.
const OUT: &str = "out";
/// Outputs that are computed and stored together where they leave in pieces: what 16 bytes hold of `f32`.
pub const PIECE: usize = 4;
/// Input channels whose weights are transformed at a time: with a tile of output channels, what one store covers is several cache lines.
pub const CHANNELS: i64 = 8;
/// The variable that counts the windows of a block, over all axes.
const WINDOW: &str = "qw";

/// Whether so many outputs of a window, side by side along x, are stored a few at a time rather than all interleaved: where they are more than the lanes,
/// interleaving takes all of the registers. Narrow vectors are no longer than a piece.
pub fn in_pieces(outputs: usize, lanes: usize, elem: Elem) -> bool {
    outputs > lanes && lanes * elem.bytes() > 16
}

/// Replaces the reduction by transforms and products.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    match &plan.winograd {
        // Without an output there is nothing to do.
        Some(_) if func.run.is_empty() => Ok(None),
        Some(w) => Ok(Some(Lowering::new(func, plan, w)?.lower()?)),
        None => Ok(None),
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
    fn new(func: &'a Func, plan: &'a Plan, winograd: &Winograd) -> Result<Self> {
        let outputs = &winograd.outputs;
        let wanted = |what: &str| super::unexpected("winograd", what);
        let nest = Nest::of(func);
        let par: Vec<Loop> = nest.loops.iter().take_while(|l| l.kind == LoopKind::Par).cloned().collect();
        let [fill, inner] = &nest.body[..] else { return Err(wanted("a panel and one nest that reads it")) };
        let (loops, body) = peel(std::slice::from_ref(inner));
        let [Stmt::Set { value: Value::Const(0.0), .. }, taps, last] = body else {
            return Err(wanted("an accumulator, its taps and a store"));
        };
        // Whether an output exists is asked anew, for those of each window.
        let stored = if let Stmt::When { body, .. } = last { &body[..] } else { std::slice::from_ref(last) };
        let [Stmt::Store { to, parts, .. }] = stored else { return Err(wanted("a store")) };
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
        let mut axes: Vec<Axis> = (0..names.len()).map(|a| around.axis(a, names[a], outputs[a] as i64)).collect::<Result<_>>()?;
        // Along x the phases of a window are stored together.
        let x = axes.len() - 1;
        axes[..x].iter_mut().for_each(|a| a.by_phase = winograd.by_phase && a.separable());
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
            held: winograd.held as i64,
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
        for axis in &self.axes {
            let (name, shared) = (axis.var("f"), axis.shared().map(|c| c.phases.len()));
            let extent = self.plan.extent(name.as_str());
            if extent != 1 && (axis.by_phase || shared != Some(extent)) {
                let why = if axis.by_phase { "go one by one" } else { "share no window" };
                let legal = shared
                    .filter(|_| !axis.by_phase)
                    .map_or_else(|| format!("none, since they {why}"), |n| format!("{n}, which share a window, or none"));
                return Err(illegal(format!("the tile has {extent} phases along {name}; legal: {legal}")));
            }
        }
        if self.plan.winograd.as_ref().is_some_and(|w| w.by_phase) && !self.axes.iter().any(|a| a.by_phase) {
            return Err(illegal(
                "products are held by phase, but on no axis before x do all phases share a window; legal: without `by-phase`",
            ));
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
    /// Windows of a block that are multiplied: rows lie side by side, and only behind the last one there are pixels that no output is at.
    fn most_multiplied(&self) -> i64 {
        self.windows() - self.x().reach()
    }
    fn multiplied(&self) -> Affine {
        let all = match self.held_within(self.axes.len()) {
            (known, None) => known.into(),
            (known, Some(symbol)) => Affine::sym(symbol) * known,
        };
        all - self.x().reach()
    }
    /// The same in whole tiles.
    fn tiled(&self) -> i64 {
        up(self.most_multiplied(), self.plan.extent(WINDOW) as i64)
    }
    /// Windows of a row, in whole vectors.
    fn row(&self) -> i64 {
        up(self.x().windows, self.lanes())
    }
    /// Those of a row whose outputs are wanted, in whole vectors.
    fn row_stored(&self) -> i64 {
        up(self.x().wanted, self.lanes())
    }
    /// Places for the windows of a block: whole tiles, in cache lines whose number is no multiple of four. With an odd number of rows, entries of one window,
    /// which are written together, then lie in different sets of a cache.
    fn windows_held(&self) -> i64 {
        // Whole vectors are read of them, which may be longer than a line of f64.
        let all = self.tiled().max(up(self.most_multiplied(), self.lanes()));
        spread_lines(all, self.func.elem.bytes() as i64)
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
        let chunks = Loop::new(chunk, (count + self.held - 1) / self.held, Vec::new());
        let start = first + Affine::var(chunk) * self.held;
        let held = Loop {
            lo: vec![start.clone()],
            hi: [vec![start.clone() + self.held], self.channels.hi.clone()].concat(),
            ..Loop::new("oc", 1, Vec::new())
        };
        let products = self.products(&held, &start);
        let outward = self.outward(&held, &start);
        let phases = self.axes.iter().flat_map(Axis::around).map(|c| Loop::new(c.var, c.count, Vec::new()));
        let over: Vec<Loop> = [chunks].into_iter().chain(phases).collect();
        let body = [vec![inward], wrap(&over, vec![products, outward])].concat();
        out.run = wrap(&self.par, body);
        // The panel of all channels makes way for that of one.
        out.buffers.retain(|b| b.name != PANEL);
        out.buffers.extend(self.buffers);
        out.regs.extend(self.regs);
        for a in &self.axes {
            if let (Some(name), Some(wanted), true) = (a.count, a.wanted_count, a.summed) {
                out.counts.push(Count { name, of: CountOf::Units { extent: Affine::sym(wanted) + a.reach(), unit: 1 } });
            }
        }
        // Products of counts, the innermost axes first.
        for n in 2..=self.axes.len() {
            let within = &self.axes[self.axes.len() - n..];
            if let (Some(outer), Some(inner)) = (&within[0].count, counted_within(&within[1..])) {
                out.counts.push(Count { name: counts_of(within), of: CountOf::Product(*outer, inner) });
            }
        }
        out.tables.extend(self.axes.iter().flat_map(Axis::tables).map(|(name, values)| Table { name, values }));
        Ok(out)
    }

    fn buffer(&mut self, name: impl Into<Name>, kind: BufferKind, dims: &[i64]) -> Name {
        let name = name.into();
        let dims: Vec<Affine> = dims.iter().map(|d| Affine::from(*d)).collect();
        self.buffers.push(Buffer { name, kind, elem: self.func.elem, order: (0..dims.len()).collect(), dims });
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
        let name = Name::from(register(prefix, i));
        if !self.regs.iter().any(|r| r.name == name) {
            self.regs.push(Reg { name, lanes: 1, dims: Vec::new() });
        }
        name
    }

    /// Whether the outputs of a window leave in pieces, a few at a time.
    fn in_pieces(&self) -> bool {
        in_pieces(self.x().h() as usize, self.plan.lanes, self.func.elem)
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
            out.push(Stmt::set(reg, Value::load(*from, index.clone())));
        }
        let (places, sums): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        let (mut common, sums) = shared(sums);
        for (index, s) in places.into_iter().zip(sums) {
            // What several sums share is computed where the first of them needs it, so that little waits in registers.
            let (now, later) = common.into_iter().partition(|(e, _)| s.0.iter().any(|t| t.0 == *e));
            common = later;
            out.extend(self.set(prefix, now));
            out.push(Stmt::store(*into, index, s.value(prefix)));
        }
        out
    }

    /// Sets registers to sums.
    fn set(&mut self, prefix: &str, sums: Vec<Shared>) -> Vec<Stmt> {
        sums.into_iter().map(|(e, s)| Stmt::set(self.reg(prefix, e), s.value(prefix))).collect()
    }

    // Products

    fn products(&mut self, held: &Loop, start: &Affine) -> Stmt {
        let counts: Vec<i64> = self.axes.iter().flat_map(Axis::counts).collect();
        let held_at = counts.len();
        if self.channels_along() {
            let windows = self.tiled();
            self.buffer(PRODUCTS, BufferKind::Scratch, &[&counts[..], &[up(self.held, self.lanes()), windows | 1]].concat());
            self.innermost(held_at);
        } else {
            self.buffer(PRODUCTS, BufferKind::Scratch, &[counts, vec![self.held | 1, self.windows_held()]].concat());
        }
        let (oc, ic, w) = (Affine::var("oc"), Affine::var("ic"), Affine::var(WINDOW));
        let pixel = self.axes.iter().map(Axis::pixel).fold(w.clone(), Affine::add);
        let window = self.axes.iter().filter_map(Axis::entry).chain([ic, pixel]).collect();
        let product = self.axes.iter().flat_map(Axis::product).chain([oc - start.clone(), w]).collect();
        let factor = self.factor_index();
        let step = Stmt::set(ACC, Value::fma(Value::load(WINDOWS, window), Value::load(FACTORS, factor), Value::reg(ACC)));
        let taps: Vec<Loop> = self.axes.iter().filter_map(Axis::tap_loop).collect();
        let body = vec![
            Stmt::set(ACC, Value::Const(0.0)),
            wrap(&[vec![Loop::new("ic", self.inputs, Vec::new())], taps].concat(), vec![step]).remove(0),
            Stmt::store(PRODUCTS, product, Value::reg(ACC)),
        ];
        let loops: Vec<Loop> = [false, true]
            .into_iter()
            .flat_map(|inside| self.axes.iter().flat_map(Axis::counters).filter(move |c| c.inside == inside))
            .map(|c| Loop::new(c.var, c.count, Vec::new()))
            .collect();
        // Windows around channels: the windows of a tile stay in the first-level cache while weights stream by.
        let windows = self.multiplied();
        let over = [loops, vec![Loop::new(WINDOW, windows, Vec::new()), held.clone()]].concat();
        wrap(&over, body).remove(0)
    }
}
