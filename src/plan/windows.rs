//! Plans with transformed windows: what they cost, and (`blocks`) which there are.
//!
//! One [`Windows`] holds the counts that both depend on: windows and products of a block, and the memory that they take.

mod blocks;

use super::cost::{Cost, OPEN, lane_apart, step};
use super::rounding::{PhaseClasses, interleaved, is_summed, phase_classes, summed_reach};
use super::{Machine, Plan};
use crate::Short;
use crate::ir::names::axes;
use crate::passes::panel::spread_lines;
use crate::passes::toom_cook::{self, Exact, ToomCook};
use crate::passes::winograd::{PIECE, in_pieces, window_places};
use crate::problem::{Deconv, Layout};
use smallvec::SmallVec;
use std::sync::OnceLock;

/// Most bytes of scratch memory.
pub(super) const SCRATCH: usize = 2 << 20;
/// Cycles of one vector of a transform, by what it does.
const LOAD: f64 = 0.3;
const STORE: f64 = 1.1;
const ADD: f64 = 0.4;
/// Loading a vector whose lanes lie so many elements apart, per element, whatever the width: so many vectors are loaded and merged.
const APART: f64 = 1.1;
/// Interleaving one vector of outputs with another.
const INTERLEAVE: f64 = 0.6;
/// Storing one vector of outputs, clipped.
const OUTPUT: f64 = 1.5;
/// Storing one piece of outputs.
const PIECE_OUT: f64 = 2.0;
/// Turning one vector of products.
const TURN: f64 = 1.0;
/// How much longer a transform of channels along the lanes takes than its instructions: each of its vectors is a cache line of its own.
const SPARSE: f64 = 1.8;
/// Bytes of a cache line.
const LINE: f64 = 64.0;
/// Starting and ending a tile.
const CALL: f64 = 4.0;
/// Bytes of weights a step below which less comes from memory, as the power `narrow` of their share: so many steps are in flight at once, and each asks for its own.
const WIDE: f64 = 128.0;
/// The share of the second level beyond which products that wait leave it.
const MOST_WAITING: f64 = 0.5;
/// The share of the time for weights from the third-level cache, and from memory, that prefetching does not hide.
const EXPOSED: [f64; 2] = [0.015, 0.2];

/// What all plans with windows of a problem have in common along one axis.
pub struct WindowAxis {
    /// Positions in units of which windows hold a number; and those where taps are summed, which count from the first output, if they can be.
    positions: usize,
    summed: Option<usize>,
    /// How many windows interleave.
    interleaved: usize,
    /// How many taps the phases have.
    classes: PhaseClasses,
    /// Whether one phase can be finished before the next begins: all of them read the same windows, and along x they are stored together.
    separable: bool,
}

/// All axes.
pub type WindowAxes = SmallVec<[WindowAxis; 3]>;

impl WindowAxis {
    /// The axes of a problem; `None` if the taps of one read no neighbours of a window.
    pub fn all(p: &Deconv) -> Option<WindowAxes> {
        let of = |a: usize| {
            let (interleaved, classes, stride) = (interleaved(p, a)?, phase_classes(p, a), p.stride[a]);
            let shared = interleaved == 1 && stride > 1 && matches!(classes[..], [(_, phases)] if phases == stride);
            let input = p.input[a].known().unwrap_or(OPEN);
            // Where windows interleave, positions of all of them together.
            let positions = positions_every(p, a, input, stride * interleaved);
            let summed = is_summed(p, a, 1).then(|| summed_positions(p, a, input));
            Some(WindowAxis { positions, summed, interleaved, classes, separable: shared && a + 1 < p.rank() })
        };
        (0..p.rank()).map(of).collect()
    }

    /// Positions of a plan with windows of so many outputs.
    pub(super) fn positions(&self, outputs: usize) -> usize {
        self.summed.filter(|_| outputs == 1).unwrap_or(self.positions)
    }

    /// The taps of the phases that have most.
    fn taps(&self) -> usize {
        self.classes.last().map_or(0, |c| c.0)
    }
}

/// One axis of a plan with windows.
#[derive(Clone, Copy)]
struct AxisCounts {
    /// Windows of a block, and blocks.
    windows: f64,
    blocks: f64,
    /// Outputs of a window, all phases together.
    outputs: f64,
    /// Entries of a transformed window; products of all phases.
    entries: f64,
    products: f64,
    /// Additions of the transforms, per window: into entries, and into outputs.
    inward: f64,
    outward: f64,
    /// Pixels of a window.
    pixels: f64,
    /// Pixels from one window to the next.
    positions: f64,
    /// Windows that interleave, with the same weights.
    interleaved: f64,
    /// Phases that are finished one after the other.
    around: f64,
    /// Whether taps are summed with the channels, and pixels go into `V` as they are; how many, the mean over the phases, else 1; and the pixels behind the last
    /// output's, which are held like windows.
    summed: bool,
    taps: f64,
    reach: f64,
}

impl AxisCounts {
    /// Pixels that the windows of a block cover.
    fn panel(&self) -> f64 {
        (self.windows - 1.0) * self.positions + self.pixels
    }

    /// Products that have weights of their own.
    fn factors(&self) -> f64 {
        self.multiplied() / self.interleaved
    }

    /// Multiplications of each channel.
    fn multiplied(&self) -> f64 {
        self.products * self.taps
    }

    /// Products that wait together, and outputs that are computed from them.
    fn waiting(&self) -> f64 {
        self.products / self.around
    }
    fn together(&self) -> f64 {
        self.outputs / self.around
    }
}

/// The counts of a plan with windows.
pub struct Windows<'a> {
    p: &'a Deconv,
    plan: &'a Plan,
    axes: Short<AxisCounts, 3>,
    ic: f64,
    oc: f64,
    batch: f64,
    held: f64,
}

/// Additions of the transforms of one window along one axis: into its entries, and into the outputs of one phase. Rows that share some count as if they did not:
/// timed, plans are as fast with sharing as others without.
fn additions(outputs: usize, taps: usize) -> (f64, f64) {
    const MOST: usize = toom_cook::MOST_PRODUCTS;
    // The planner asks for the same few ones again and again.
    static KNOWN: [[OnceLock<(f64, f64)>; MOST]; MOST] = [const { [const { OnceLock::new() }; MOST] }; MOST];
    let count = || {
        let of = |rows: &[Vec<Exact>]| rows.iter().map(|row| row.iter().filter(|c| **c != 0.into()).count().saturating_sub(1) as f64).sum();
        ToomCook::new(outputs, taps).map_or((0.0, 0.0), |t| (of(&t.input), of(&t.output)))
    };
    KNOWN.get(outputs).and_then(|row| row.get(taps)).map_or_else(count, |known| *known.get_or_init(count))
}

/// Permutations for one vector of so many interleaved parts: one for each time that their number can be halved, and one fewer than what is left.
fn permutations(parts: f64) -> f64 {
    let halved = (parts as u64).trailing_zeros();
    halved as f64 + parts / 2f64.powi(halved as i32) - 1.0
}

/// The windows of a block, if so many are shared out evenly among as few blocks of at most so many as there can be.
pub(super) fn even(windows: usize, most: usize) -> usize {
    windows.div_ceil(windows.div_ceil(most.max(1)).max(1)).max(1)
}

/// Positions of an axis, counted from the uncropped edge.
pub(super) fn positions(p: &Deconv, a: usize) -> usize {
    positions_of(p, a, p.input[a].known().unwrap_or(OPEN))
}

/// The same for so many pixels.
pub(super) fn positions_of(p: &Deconv, a: usize, input: usize) -> usize {
    positions_every(p, a, input, p.stride[a])
}

/// Positions of an axis whose taps are summed, which count from the first output.
pub(super) fn summed_positions(p: &Deconv, a: usize, input: usize) -> usize {
    let output = p.output_extent(a).eval(&mut |_| input as i64).max(1) as usize;
    output.div_ceil(p.stride[a])
}

/// Positions that are so many outputs wide.
fn positions_every(p: &Deconv, a: usize, input: usize, outputs: usize) -> usize {
    let output = p.output_extent(a).eval(&mut |_| input as i64).max(1);
    let (s, pad) = (outputs as i64, p.pad_begin[a]);
    ((output - 1 + pad).div_euclid(s) - pad.div_euclid(s) + 1).max(1) as usize
}

impl<'a> Windows<'a> {
    /// `None` if the plan has no windows, or one without an algorithm.
    pub fn new(p: &'a Deconv, plan: &'a Plan) -> Option<Self> {
        Self::of(p, &WindowAxis::all(p)?, plan, false)
    }

    /// The same, if blocks are cut `evenly` since the extents come at run time.
    pub fn of(p: &'a Deconv, axes: &[WindowAxis], plan: &'a Plan, evenly: bool) -> Option<Self> {
        let w = plan.winograd.as_ref()?;
        let counts = |(a, axis): (usize, &WindowAxis)| -> Option<AxisCounts> {
            let m = *w.outputs.get(a)?;
            // Interleaved windows are computed together, each with entries and products of its own.
            let interleaved = axis.interleaved;
            let each = interleaved as f64;
            let (windows, most) = (axis.positions(m).div_ceil(m), if plan.block[a] > 0 { plan.block[a] / m } else { usize::MAX });
            let summed = is_summed(p, a, m);
            let held = if evenly { even(windows, most) } else { most.min(windows.max(1)) };
            // Taps that are summed leave each phase a product.
            let classes = || axis.classes.iter().map(|&(taps, phases)| (if summed { 1 } else { taps }, phases as f64));
            let reach = if summed { summed_reach(p, a) as f64 } else { 0.0 };
            let hit: usize = axis.classes.iter().map(|c| c.1).sum();
            let taps = if summed { p.kernel[a] as f64 / hit as f64 } else { 1.0 };
            let entries: f64 = if summed { 1.0 } else { classes().map(|c| (m + c.0 - 1) as f64).sum() };
            let products: f64 = classes().map(|c| (m + c.0 - 1) as f64 * c.1).sum();
            let inward: f64 = classes().map(|c| additions(m, c.0).0).sum();
            let outward: f64 = classes().map(|c| additions(m, c.0).1 * c.1).sum();
            Some(AxisCounts {
                windows: held as f64 + reach,
                blocks: windows.div_ceil(held) as f64,
                outputs: (m * p.stride[a] * interleaved) as f64,
                entries: entries * each,
                products: products * each,
                inward: inward * each,
                outward: outward * each,
                pixels: if summed { 1.0 } else { ((m + axis.classes.last()?.0 - 1) * interleaved) as f64 },
                positions: (m * interleaved) as f64,
                interleaved: each,
                around: if w.by_phase && axis.separable { p.stride[a] as f64 } else { 1.0 },
                summed,
                taps,
                reach,
            })
        };
        let mut all = Short::new();
        for axis in axes.iter().enumerate() {
            all.push(counts(axis)?);
        }
        let batch = p.batch.known().unwrap_or(1);
        let oc = (p.c_out / p.groups) as f64;
        Some(Windows { p, plan, axes: all, ic: (p.c_in / p.groups) as f64, oc, batch: batch as f64, held: w.held as f64 })
    }

    /// Those of a plan with the same windows and blocks, but other tiles.
    fn tiled<'b>(&self, plan: &'b Plan) -> Windows<'b>
    where
        'a: 'b,
    {
        let held = plan.winograd.as_ref().map_or(self.held, |w| w.held as f64);
        Windows { plan, held, axes: self.axes.clone(), ..*self }
    }

    fn product_of(&self, f: impl Fn(&AxisCounts) -> f64) -> f64 {
        self.axes.iter().map(f).product()
    }

    /// Multiplications over those of direct sums, for windows that are full.
    pub fn share(&self) -> f64 {
        let direct = self.product_of(|a| a.outputs)
            * (0..self.axes.len()).map(|a| self.p.kernel[a] as f64 / self.p.stride[a] as f64).product::<f64>();
        self.product_of(AxisCounts::multiplied) / direct
    }

    /// Bytes of the transformed weights over those of the weights.
    pub fn expansion(&self) -> f64 {
        self.product_of(AxisCounts::factors) / self.p.kernel.iter().product::<usize>() as f64
    }

    /// Blocks of all axes, batch items and groups.
    pub fn blocks(&self) -> f64 {
        self.product_of(|a| a.blocks) * self.batch * self.p.groups as f64
    }

    /// Windows of a block along an axis.
    pub fn in_block(&self, a: usize) -> usize {
        (self.axes[a].windows - self.axes[a].reach) as usize
    }

    /// Windows of a block that are multiplied, in whole tiles.
    fn windows(&self) -> f64 {
        let tile = self.plan.extent("qw") as f64;
        (self.wanted() / tile).ceil() * tile
    }

    /// The same as they are: but for the pixels behind the last output of the last row, all.
    fn wanted(&self) -> f64 {
        self.product_of(|a| a.windows) - self.axes[self.axes.len() - 1].reach
    }

    fn bytes(&self) -> f64 {
        self.p.elem.bytes() as f64
    }

    /// Phases of a register tile.
    fn phases_in_tile(&self) -> f64 {
        axes(self.axes.len()).iter().map(|a| self.plan.extent_on("f", a) as f64).product()
    }

    /// Bytes of the transformed windows of a block.
    fn window_bytes(&self) -> f64 {
        self.product_of(|a| a.entries) * self.ic * self.windows() * self.bytes()
    }

    /// Bytes of the products of one channel that wait together.
    fn product_bytes(&self) -> f64 {
        self.product_of(AxisCounts::waiting) * self.windows() * self.bytes()
    }

    /// How many times all windows of a block are read for the same channels.
    fn around(&self) -> f64 {
        self.product_of(|a| a.around)
    }

    /// Bytes of scratch memory: the windows of a block, and beside them first the panel with what lies between the steps of their transforms, then products
    /// with what lies between the steps of theirs.
    pub fn scratch(&self) -> f64 {
        let rank = self.axes.len();
        let natural = self.natural();
        let (lanes, x) = (self.plan.lanes as f64, &self.axes[rank - 1]);
        let bytes = self.p.elem.bytes() as i64;
        let row = if natural { x.windows } else { (x.windows / lanes).ceil() * lanes };
        let panel = |a: usize| if a + 1 == rank { (row - 1.0) * x.positions + x.pixels } else { self.axes[a].panel() };
        let along = |a: usize| {
            if a + 1 < rank {
                self.axes[a].windows
            } else if natural {
                lanes
            } else {
                row
            }
        };
        let together = if self.p.layout == Layout::ChannelsLast { lanes } else { 1.0 };
        let read = self.windows().max(self.product_of(|a| a.windows) - x.windows + row);
        let (mut first, mut then) = ((0..rank).map(panel).product::<f64>() * together, 0.0);
        for a in 0..rank {
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            if a > 0 && !self.axes[a].summed {
                first += (0..a).map(panel).product::<f64>() * (a..rank).map(|b| self.axes[b].entries * along(b)).product::<f64>();
            }
            if a + 1 < rank {
                let left = before.iter().map(AxisCounts::together).product::<f64>() * self.axes[a].together();
                let held = if natural { lanes } else { read * together.min(PIECE as f64) };
                then += left * behind.iter().map(AxisCounts::waiting).product::<f64>() * held;
            }
        }
        let (places, _) = window_places((self.windows() + x.reach) as i64, read as i64, self.plan.vector != "oc", bytes);
        let windows = self.product_of(|a| a.entries) * (self.ic + 1.0) * places as f64;
        then += self.product_of(AxisCounts::waiting) * (self.held + 1.0) * spread_lines(self.windows() as i64, bytes) as f64;
        (windows + first.max(then)) * self.bytes()
    }

    /// Whether channels lie along the lanes from the input to the output.
    fn natural(&self) -> bool {
        self.plan.vector == "oc" && self.p.layout == Layout::ChannelsLast
    }

    /// Bytes of the transformed weights.
    pub(super) fn factor_bytes(&self) -> f64 {
        self.product_of(AxisCounts::factors) * self.ic * self.oc * self.bytes() * self.p.groups as f64
    }

    /// Predicted cycles.
    pub fn cost(&self, m: &Machine) -> Cost {
        let (plan, bytes) = (self.plan, self.bytes());
        let lanes = plan.lanes as f64;
        let (moc, mqw) = (plan.extent("oc") as f64, plan.extent("qw") as f64);
        // Phases that are in the tile read the same windows, as its channels do.
        let phases = self.phases_in_tile();
        // Vectors of one operand meet scalars of the other.
        let (vectors, scalars) = if plan.vector == "oc" { (moc / lanes * phases, mqw) } else { (mqw / lanes, moc * phases) };
        let blocks = self.blocks();
        let chunks = (self.oc / self.held).ceil();
        let whole = (self.oc / self.held).floor();
        let channel_tiles = whole * (self.held / moc).ceil() + ((self.oc - whole * self.held) / moc).ceil();

        // Products: as a direct tile's reduction step, with windows from the second level where a tile's exceed the first. Tiles of whole vectors of windows
        // begin with a cache line, others anywhere.
        let of_windows = if plan.vector == "oc" { mqw * bytes + LINE - bytes } else { (mqw * bytes / LINE).ceil() * LINE };
        // The windows of a tile serve all channels that are held, if they stay in the first level meanwhile.
        let again = if of_windows * self.ic > m.l1 as f64 * 0.6 { 1.0 } else { moc / self.held };
        let needed = moc * phases * bytes;
        // Where taps are summed, the same windows are read again a pixel further, across the ends of lines; the first time they come from where they are.
        let taps = self.product_of(|a| a.taps);
        let loads = if plan.vector == "oc" { vectors } else { vectors * (2.0 - 1.0 / taps) };
        let fetched = of_windows * again / taps + needed;
        let step = step(m, scalars * vectors, loads, scalars, fetched / m.rates.factors[0]);
        // The tiles along the windows that share weights compute while those of the next ones come from where they are.
        let far = self.factor_bytes();
        let rate =
            if far > m.l3 as f64 * 0.6 { m.rates.factors[2] * (needed / WIDE).min(1.0).powf(m.rates.narrow) } else { m.rates.factors[1] };
        let along = self.windows() / mqw;
        // Weights of the channels that are held come again for every tile of windows, unless they stay.
        let stay = self.held.min(self.oc) * self.ic * taps * bytes <= m.l2 as f64 * m.rates.stays;
        let once_more = if stay { 0.0 } else { (along - 1.0) * needed / m.rates.factors[1] * m.rates.again };
        let coming = if far > m.l2 as f64 * 0.7 { needed / rate + once_more } else { 0.0 };
        let tiles = self.product_of(|a| a.products) / phases * channel_tiles;
        // Channels may lie along the lanes from the input to the output. Otherwise lanes that are channels are turned, since products are held by channel.
        let natural = self.natural();
        let stores =
            scalars * vectors * STORE + if plan.vector == "oc" && !natural { moc * phases * STORE + scalars * vectors * TURN } else { 0.0 };
        let compute = blocks * tiles * (self.ic * taps * (step * along).max(coming) + along * (CALL + stores * m.passes));

        // Transforms: one axis after the other, rows of windows along the lanes.
        let rank = self.axes.len();
        let x = &self.axes[rank - 1];
        // Vectors of a row of windows of one channel; and how many channels each step takes.
        let (row, step) = if natural { (x.windows, lanes) } else { ((x.windows / lanes).ceil(), 1.0) };
        let (mut inward, mut outward) = (0.0, 0.0);
        for (a, axis) in self.axes.iter().enumerate() {
            let before: f64 = self.axes[..a].iter().map(AxisCounts::panel).product();
            let windows: f64 = self.axes[a..rank - 1].iter().map(|b| b.windows).product();
            let entries: f64 = self.axes[a + 1..].iter().map(|b| b.entries).product();
            let load = if a + 1 == rank && !natural { APART * axis.positions / m.passes } else { LOAD };
            if !axis.summed {
                inward += before * windows * entries * row * (axis.pixels * load + axis.inward * ADD + axis.entries * STORE);
            }
            if a + 1 < rank {
                let before: f64 = self.axes[..a].iter().map(|b| b.outputs).product();
                let products: f64 = self.axes[a + 1..].iter().map(|b| b.products).product();
                let windows = self.wanted();
                let vectors = if natural { windows } else { (windows / lanes).ceil() };
                outward += before * products * vectors * (axis.products * LOAD + axis.outward * ADD + axis.outputs * STORE);
            }
        }
        let rows: f64 = self.axes[..rank - 1].iter().map(|b| b.windows * b.outputs).product();
        let store = match self.p.layout {
            _ if natural => x.outputs * OUTPUT,
            // Two shuffles for each vector, and its pieces.
            Layout::ChannelsFirst if in_pieces(x.outputs as usize, plan.lanes, self.p.elem) => {
                x.outputs * (x.positions * LOAD + 2.0 * INTERLEAVE + lanes / PIECE as f64 * PIECE_OUT)
            }
            Layout::ChannelsFirst => x.outputs * (permutations(x.outputs) * INTERLEAVE + OUTPUT),
            Layout::ChannelsLast => {
                let together = (1..=4).rev().find(|n| (self.held as usize).is_multiple_of(*n) && (self.oc as usize).is_multiple_of(*n));
                x.outputs * (x.products * LOAD * 0.5 + lanes * lane_apart(self.p, m, together.unwrap_or(1)))
            }
        };
        let stored = if natural { x.windows - x.reach } else { ((x.windows - x.reach) / lanes).ceil() };
        outward += rows * stored * (x.products * LOAD + x.outward * ADD + store);
        let sparse = if natural { SPARSE } else { 1.0 };
        // Rows follow each other in the transformed windows, whole lines or not; where they come from transforms along x, storing them is not what takes time.
        let joined = x.summed && !natural && self.product_of(|a| a.windows) > x.windows;
        if joined {
            inward += self.product_of(|a| a.entries) * self.product_of(|a| a.windows) / x.windows * row * m.rates.joined / m.passes;
        }
        let outward = blocks * (self.oc / step).ceil() * outward * sparse * m.passes;
        let inward =
            blocks * (self.ic / step).ceil() * (inward + self.fill(m, lanes, natural)) * sparse * m.passes * plan.channel_parts as f64;

        // What comes from further away than the second level.
        let (l2, l3) = (m.l2 as f64, m.l3 as f64 * 0.6);
        let factors = self.factor_bytes();
        let streamed = match factors {
            f if f > l3 => f / m.rates.memory * EXPOSED[1],
            f => f / m.rates.l3 * EXPOSED[0],
        } * (blocks / self.p.groups as f64);
        let windows = self.window_bytes();
        let waiting = self.product_bytes() * self.held.min(self.oc);
        let longer = if waiting > l2 * MOST_WAITING { m.rates.waiting } else { 1.0 };
        let reread = if windows + waiting > l2 * m.rates.stays {
            windows * (chunks * self.around() + 1.0) + 2.0 * self.product_bytes() * self.around() * self.oc * longer
        } else {
            0.0
        };
        let weights = if stay { 0.0 } else { factors / self.p.groups as f64 * (along - 1.0) };
        let traffic = streamed + blocks * (reread + weights) / m.rates.l3 * m.rates.reread;
        Cost { compute, store: outward, panel: inward, traffic }
    }

    /// Copying the panel of one channel, or of a vector of channels that lie side by side.
    fn fill(&self, m: &Machine, lanes: f64, natural: bool) -> f64 {
        let rank = self.axes.len();
        let rows: f64 = self.axes[..rank - 1].iter().map(AxisCounts::panel).product();
        let columns = self.axes[rank - 1].panel();
        let turned = self.p.layout == Layout::ChannelsLast;
        rows * match (natural, turned) {
            (true, _) => columns * (LOAD + STORE),
            (false, true) => columns * m.rates.turned,
            (false, false) => (columns / lanes).ceil() * 2.0 + 2.0,
        }
    }
}
