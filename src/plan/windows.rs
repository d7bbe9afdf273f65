//! Plans with transformed windows: which there are, and what they cost.
//!
//! One [`Windows`] holds the counts that both depend on: windows and products of a block, and the memory that they take.

use super::candidates::Space;
use super::cost::{Cost, OPEN, lane_apart, step};
use super::rounding::{PhaseClasses, axis_rounding, interleaved, phase_classes};
use super::{Algorithm, Form, Machine, Plan, TileAxis, Winograd};
use crate::ir::Name;
use crate::ir::names::{axes, on};
use crate::passes::panel::spread_lines;
use crate::passes::toom_cook::{self, Exact, ToomCook};
use crate::passes::winograd::{PIECE, in_pieces, rows_whole};
use crate::problem::{Deconv, Layout};
use smallvec::SmallVec;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// Most bytes of scratch memory; and most where less would take so much longer, since weights then stream by more often.
pub(super) const SCRATCH: usize = 2 << 20;
const MOST_SCRATCH: usize = 5 << 20;
const LONGER: f64 = 1.2;
/// Fewer multiplications than this share of the direct ones are worth a transform.
const WORTH: f64 = 0.8;
/// Products of a window along one axis.
const MOST_PRODUCTS: RangeInclusive<usize> = 3..=6;
/// Window sizes that are costed, those with the fewest products.
const SIZES: usize = 3;
/// Blocks of each size that are costed with all tiles.
const BLOCKS: usize = 4;
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
/// Bytes of weights a step below which less comes from memory: so many steps are in flight at once, and each asks for its own. And the power of it.
const WIDE: f64 = 128.0;
const NARROW: f64 = 0.35;
/// The share of the second level beyond which products that wait leave it.
const MOST_WAITING: f64 = 0.5;
/// By how much a plan that finishes phases one by one must be cheaper: each reads the windows again, where the next of several finds them at hand.
const BY_PHASE: f64 = 1.04;
/// The share of the time for weights from the third-level cache, and from memory, that prefetching does not hide.
const EXPOSED: [f64; 2] = [0.015, 0.2];

/// What all plans with windows of a problem have in common along one axis.
pub struct WindowAxis {
    /// Positions in units of which windows hold a number.
    positions: usize,
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
            Some(WindowAxis { positions: window_positions(p, a), interleaved, classes, separable: shared && a + 1 < p.rank() })
        };
        (0..p.rank()).map(of).collect()
    }

    /// The taps of the phases that have most.
    fn taps(&self) -> usize {
        self.classes.last().map_or(0, |c| c.0)
    }
}

/// One axis of a plan with windows.
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
}

impl AxisCounts {
    /// Pixels that the windows of a block cover.
    fn panel(&self) -> f64 {
        (self.windows - 1.0) * self.positions + self.pixels
    }

    /// Products that have weights of their own.
    fn factors(&self) -> f64 {
        self.products / self.interleaved
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
    axes: SmallVec<[AxisCounts; 3]>,
    ic: f64,
    oc: f64,
    batch: f64,
    held: f64,
}

/// Additions of the transforms of one window along one axis: into its entries, and into the outputs of one phase.
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

/// Positions in units of which windows hold a number: where windows interleave, those of all of them together.
pub(super) fn window_positions(p: &Deconv, a: usize) -> usize {
    positions_every(p, a, p.input[a].known().unwrap_or(OPEN), p.stride[a] * interleaved(p, a).unwrap_or(1))
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
            let (windows, most) = (axis.positions.div_ceil(m), if plan.block[a] > 0 { plan.block[a] / m } else { usize::MAX });
            let held = if evenly { even(windows, most) } else { most.min(windows.max(1)) };
            let classes = || axis.classes.iter().map(|&(taps, phases)| (taps, phases as f64));
            let entries: f64 = classes().map(|c| (m + c.0 - 1) as f64).sum();
            let products: f64 = classes().map(|c| (m + c.0 - 1) as f64 * c.1).sum();
            let inward: f64 = classes().map(|c| additions(m, c.0).0).sum();
            let outward: f64 = classes().map(|c| additions(m, c.0).1 * c.1).sum();
            Some(AxisCounts {
                windows: held as f64,
                blocks: windows.div_ceil(held) as f64,
                outputs: (m * p.stride[a] * interleaved) as f64,
                entries: entries * each,
                products: products * each,
                inward: inward * each,
                outward: outward * each,
                pixels: ((m + axis.classes.last()?.0 - 1) * interleaved) as f64,
                positions: (m * interleaved) as f64,
                interleaved: each,
                around: if w.by_phase && axis.separable { p.stride[a] as f64 } else { 1.0 },
            })
        };
        let axes = axes.iter().enumerate().map(counts).collect::<Option<SmallVec<_>>>()?;
        let batch = p.batch.known().unwrap_or(1);
        let oc = (p.c_out / p.groups) as f64;
        Some(Windows { p, plan, axes, ic: (p.c_in / p.groups) as f64, oc, batch: batch as f64, held: w.held as f64 })
    }

    fn product_of(&self, f: impl Fn(&AxisCounts) -> f64) -> f64 {
        self.axes.iter().map(f).product()
    }

    /// Multiplications over those of direct sums, for windows that are full.
    pub fn share(&self) -> f64 {
        let direct = self.product_of(|a| a.outputs)
            * (0..self.axes.len()).map(|a| self.p.kernel[a] as f64 / self.p.stride[a] as f64).product::<f64>();
        self.product_of(|a| a.products) / direct
    }

    /// Bytes of the transformed weights over those of the weights.
    pub fn expansion(&self) -> f64 {
        self.product_of(AxisCounts::factors) / self.p.kernel.iter().product::<usize>() as f64
    }

    /// Windows of a block, as they are held.
    fn windows(&self) -> f64 {
        let tile = self.plan.extent("qw") as f64;
        (self.product_of(|a| a.windows) / tile).ceil() * tile
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

    /// Bytes of scratch memory: panel, windows and products of a block, and what lies between the steps of the transforms.
    pub fn scratch(&self) -> f64 {
        let rank = self.axes.len();
        let natural = self.natural();
        let (lanes, x) = (self.plan.lanes as f64, &self.axes[rank - 1]);
        let bytes = self.p.elem.bytes() as i64;
        let places = |windows: f64| spread_lines(windows as i64, bytes) as f64;
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
        let mut all = (0..rank).map(panel).product::<f64>() * together;
        for a in 0..rank {
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            if a > 0 {
                all += (0..a).map(panel).product::<f64>() * (a..rank).map(|b| self.axes[b].entries * along(b)).product::<f64>();
            }
            if a + 1 < rank {
                let left = before.iter().map(AxisCounts::together).product::<f64>() * self.axes[a].together();
                let held = if natural { lanes } else { read * together.min(PIECE as f64) };
                all += left * behind.iter().map(AxisCounts::waiting).product::<f64>() * held;
            }
        }
        let held = places(self.windows());
        let whole = rows_whole(held as i64, read as i64, bytes);
        all += self.product_of(|a| a.entries) * (self.ic + 1.0) * if whole { places(read) } else { held };
        all += self.product_of(AxisCounts::waiting) * (self.held + 1.0) * held;
        all * self.bytes()
    }

    /// Whether channels lie along the lanes from the input to the output.
    fn natural(&self) -> bool {
        self.plan.vector == "oc" && self.p.layout == Layout::ChannelsLast
    }

    fn factor_bytes(&self) -> f64 {
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
        let blocks = self.product_of(|a| a.blocks) * self.batch * self.p.groups as f64;
        let chunks = (self.oc / self.held).ceil();
        let whole = (self.oc / self.held).floor();
        let channel_tiles = whole * (self.held / moc).ceil() + ((self.oc - whole * self.held) / moc).ceil();

        // Products: as a direct tile's reduction step, with windows from the second level where a tile's exceed the first. Tiles of whole vectors of windows
        // begin with a cache line, others anywhere.
        let of_windows = if plan.vector == "oc" { mqw * bytes + LINE - bytes } else { (mqw * bytes / LINE).ceil() * LINE };
        // The windows of a tile serve all channels that are held, if they stay in the first level meanwhile.
        let again = if of_windows * self.ic > m.l1 as f64 * 0.6 { 1.0 } else { moc / self.held };
        let needed = moc * phases * bytes;
        let fetched = of_windows * again + needed;
        let step = step(m, scalars * vectors, vectors, scalars, fetched / m.rates.factors[0]);
        // The tiles along the windows that share weights compute while those of the next ones come from where they are.
        let far = self.factor_bytes();
        let rate = if far > m.l3 as f64 * 0.6 { m.rates.factors[2] * (needed / WIDE).min(1.0).powf(NARROW) } else { m.rates.factors[1] };
        let coming = if far > m.l2 as f64 * 0.7 { needed / rate } else { 0.0 };
        let along = self.windows() / mqw;
        let tiles = self.product_of(|a| a.products) / phases * channel_tiles;
        // Channels may lie along the lanes from the input to the output. Otherwise lanes that are channels are turned, since products are held by channel.
        let natural = self.natural();
        let stores =
            scalars * vectors * STORE + if plan.vector == "oc" && !natural { moc * phases * STORE + scalars * vectors * TURN } else { 0.0 };
        let compute = blocks * tiles * (self.ic * (step * along).max(coming) + along * (CALL + stores * m.passes));

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
            inward += before * windows * entries * row * (axis.pixels * load + axis.inward * ADD + axis.entries * STORE);
            if a + 1 < rank {
                let before: f64 = self.axes[..a].iter().map(|b| b.outputs).product();
                let products: f64 = self.axes[a + 1..].iter().map(|b| b.products).product();
                let windows = self.product_of(|a| a.windows);
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
        outward += rows * row * (x.products * LOAD + x.outward * ADD + store);
        let sparse = if natural { SPARSE } else { 1.0 };
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
        let products = 2.0 * self.product_bytes() * self.around() * self.oc;
        let reread = match windows + waiting {
            // Products alone push each other out.
            _ if waiting > l2 * MOST_WAITING => windows * (chunks * self.around() + 1.0) + products * m.rates.waiting,
            all if all > l2 * m.rates.stays => windows * (chunks * self.around() + 1.0) + products,
            _ => 0.0,
        };
        // Weights of the channels that are held come again for every tile of windows.
        let weights = if self.held.min(self.oc) * self.ic * bytes > l2 * m.rates.stays {
            factors / self.p.groups as f64 * (along - 1.0)
        } else {
            0.0
        };
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

/// A way to cut the output into blocks of windows, with what it costs and how much scratch memory it may take.
struct Block {
    cost: f64,
    limit: usize,
    plan: Plan,
}

impl Space<'_> {
    /// The counts of a plan with windows.
    fn counts<'b>(&'b self, plan: &'b Plan) -> Option<Windows<'b>> {
        Windows::of(self.problem, self.window_axes.as_ref()?, plan, false)
    }

    /// Candidates with windows.
    pub fn windows(&self, out: &mut Vec<Plan>) {
        let p = self.problem;
        let rank = p.rank();
        let Some(axes) = &self.window_axes else { return };
        // With one or two positions the phases of an axis are not where the windows would look for them.
        let plain = |a: usize| (p.kernel[a], p.stride[a], p.pad_begin[a], p.pad_end[a]) == (1, 1, 0, 0);
        let meets = |a: usize| p.input[a].known().is_none_or(|i| p.useful_pairs(a, i) > 0);
        if (0..rank).any(|a| axes[a].positions < 3 && !plain(a) || !meets(a)) {
            return;
        }
        let [limit, most] = self.scratch_limits();
        let mut blocks: Vec<Block> = Vec::new();
        let sizes = self.window_sizes(axes);
        for outputs in &sizes {
            let per_window = |a: usize| axes[a].classes.iter().map(|c| outputs[a] + c.0 - 1).sum::<usize>() * axes[a].interleaved;
            let channels = (p.c_in / p.groups).saturating_mul(p.elem.bytes());
            let window = (0..rank).map(per_window).fold(channels, usize::saturating_mul);
            for block in self.window_blocks(axes, outputs) {
                let along = |a: usize| if block[a] > 0 { block[a] } else { axes[a].positions }.div_ceil(outputs[a]);
                let windows = (0..rank).map(along).fold(window, usize::saturating_mul);
                let plan = Plan { aligned: true, block, ..self.plan(Form::Gather, true, &[], "qw") };
                // What it costs with a few tiles, small ones where others need too much memory; and whether phases go one by one.
                let of = |limit: usize, vectors: RangeInclusive<usize>, by_phase: bool| {
                    let plan = Plan { winograd: Some(Winograd { outputs: outputs.clone(), held: 1, by_phase }), ..plan.clone() };
                    let mut some = Vec::new();
                    if windows <= limit && (!by_phase || axes.iter().any(|a| a.separable)) {
                        self.window_tiles(&plan, limit, vectors, 1, &mut some);
                    }
                    let cost = |plan: &Plan| self.counts(plan).map(|w| w.cost(&self.machine).cycles());
                    some.iter().filter_map(cost).reduce(f64::min).map(|cost| Block { cost, limit, plan })
                };
                let either = |limit: usize, vectors: RangeInclusive<usize>| {
                    let (together, one_by_one) = (of(limit, vectors.clone(), false), of(limit, vectors, true));
                    let worth = |b: &Block| together.as_ref().is_none_or(|t| b.cost * BY_PHASE < t.cost);
                    one_by_one.filter(worth).or(together)
                };
                let more = || of(most, 2..=3, true).or_else(|| of(most, 2..=3, false));
                blocks.extend(either(limit, 2..=3).or_else(|| either(limit, 1..=1)).or_else(more));
            }
        }
        // Where no block is within the limit, direct sums are, unless windows are asked for.
        let forced = self.options.algorithm == Some(Algorithm::Winograd);
        let within = blocks.iter().filter(|b| b.limit == limit).map(|b| b.cost).reduce(f64::min);
        let least = within.unwrap_or(if forced { f64::INFINITY } else { 0.0 });
        blocks.retain(|b| b.limit == limit || b.cost * LONGER < least);
        // All tiles for the best blocks of each size.
        blocks.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        for outputs in &sizes {
            let of_size = blocks.iter().filter(|b| b.plan.winograd.as_ref().is_some_and(|w| w.outputs == *outputs));
            of_size.take(BLOCKS).for_each(|b| self.window_tiles(&b.plan, b.limit, 1..=4, 3, out));
        }
    }

    /// Most bytes of scratch memory, and most where less takes much longer: no more than the tensors take, unless windows are asked for.
    fn scratch_limits(&self) -> [usize; 2] {
        let forced = self.options.algorithm == Some(Algorithm::Winograd);
        [SCRATCH, MOST_SCRATCH].map(|limit| if forced { limit } else { self.tensors.min(limit) })
    }

    /// Window sizes that save multiplications and may be used, those first that need the fewest products for the whole output.
    fn window_sizes(&self, axes: &[WindowAxis]) -> Vec<Vec<usize>> {
        let p = self.problem;
        struct Size {
            outputs: usize,
            growth: f64,
            /// Products of the whole axis, over those of direct sums; the same within one window.
            all: f64,
            share: f64,
        }
        let along = |a: usize| -> Vec<Size> {
            let (axis, taps) = (&axes[a], axes[a].taps());
            let of = |products: usize| if taps < 2 { 1 } else { (products + 1).saturating_sub(taps).clamp(1, axis.positions) };
            let mut outputs: Vec<usize> = MOST_PRODUCTS.map(of).collect();
            outputs.dedup();
            let size = |m: usize| {
                let products: usize = axis.classes.iter().map(|(taps, phases)| (m + taps - 1) * phases).sum();
                let direct = p.kernel[a] as f64;
                let windows = axis.positions.div_ceil(m) as f64;
                let growth = axis_rounding(p, a, m)?.expected;
                Some(Size { outputs: m, growth, all: windows * products as f64 / direct, share: products as f64 / (m as f64 * direct) })
            };
            outputs.into_iter().filter_map(size).collect()
        };
        let mut sizes = vec![(Vec::new(), 1.0, 1.0, 1.0)];
        for a in 0..p.rank() {
            let of = along(a);
            let with = |(outputs, growth, all, share): &(Vec<usize>, f64, f64, f64)| -> Vec<_> {
                of.iter().map(|s| ([&outputs[..], &[s.outputs]].concat(), growth * s.growth, all * s.all, share * s.share)).collect()
            };
            sizes = sizes.iter().flat_map(with).collect();
        }
        let usable = |(outputs, growth, _, share): &(Vec<usize>, f64, f64, f64)| {
            *share < WORTH && *growth <= self.options.rounding && self.outputs_fit(axes, outputs)
        };
        sizes.retain(usable);
        sizes.sort_by(|a, b| a.2.total_cmp(&b.2));
        sizes.into_iter().take(SIZES).map(|s| s.0).collect()
    }

    /// Whether the first steps have registers for the pixels of windows that interleave, and the last one for the outputs of a window and one phase's products.
    fn outputs_fit(&self, axes: &[WindowAxis], outputs: &[usize]) -> bool {
        let (p, x) = (self.problem, self.problem.rank() - 1);
        let together = |a: usize| axes[a].interleaved;
        let all = outputs[x] * p.stride[x] * together(x);
        let waiting = if in_pieces(all, self.machine.lanes, p.elem) { 2 * PIECE } else { all };
        let pixels = |a: usize| if together(a) > 1 { (outputs[a] + axes[a].taps() - 1) * together(a) } else { 0 };
        let most = (0..=x).map(pixels).fold(waiting + outputs[x] + axes[x].taps(), usize::max);
        !self.machine.isa.wide() || most < self.machine.registers
    }

    /// Block sizes: along x the whole row, a half of it (a third of a sequence), or whole vectors of windows; along the other axes a few windows, or all.
    fn window_blocks(&self, axes: &[WindowAxis], outputs: &[usize]) -> Vec<Vec<usize>> {
        let rank = axes.len();
        let lanes = self.machine.lanes;
        let mut all: Vec<Vec<usize>> = vec![Vec::new()];
        for (a, &m) in outputs.iter().enumerate() {
            let windows = axes[a].positions.div_ceil(m);
            let mut sizes: Vec<usize> = if a + 1 == rank {
                let counts: &[usize] = if rank == 1 { &[2, 3, 4, 6, 8, 12] } else { &[1, 2, 4] };
                let parts = (2..=if rank == 1 { 3 } else { 2 }).map(|parts| windows.div_ceil(parts)).filter(|w| *w > lanes);
                counts.iter().map(|k| k * lanes).filter(|w| *w < windows).chain(parts).map(|w| w * m).collect()
            } else {
                [1, 2, 3, 4, 6, 8, 12].into_iter().filter(|w| *w < windows).map(|w| even(windows, w) * m).collect()
            };
            sizes.sort();
            sizes.dedup();
            sizes.push(0);
            all = all.into_iter().flat_map(|b| sizes.iter().map(move |s| [b.clone(), vec![*s]].concat())).collect();
        }
        // Several windows along an outer axis only where the axes between it and x are whole.
        let few = |a: usize, b: &[usize]| b[a] == outputs[a] || b[a + 1..(rank - 1).max(a + 1)].iter().all(|s| *s == 0);
        all.retain(|b| (0..rank).all(|a| few(a, b)));
        all
    }

    /// Register tiles for windows, of so many vectors, with at most so many numbers of channels: windows along the lanes, or channels where that fits the
    /// number of windows better; and how many channels' products are held.
    fn window_tiles(&self, plan: &Plan, limit: usize, vectors: RangeInclusive<usize>, most: usize, out: &mut Vec<Plan>) {
        let lanes = self.machine.lanes;
        let per_group = self.problem.c_out / self.problem.groups;
        // Besides accumulators: the vectors and a broadcast, or what turning stores takes.
        let room = |vectors: usize| self.machine.registers.saturating_sub((vectors + 1).max(3)) / vectors;
        for vectors in vectors.clone().filter(|v| *v <= 3) {
            for channels in self.channel_tiles(room(vectors).min(per_group)).into_iter().take(most) {
                self.window_tile(plan, limit, &[], (channels, vectors * lanes), "qw", out);
            }
            // Few channels leave room for the phases that share a window: it is loaded once for all of them.
            let fit = |phases: &Vec<(Name, usize)>| phases.iter().map(|f| f.1).product::<usize>() * per_group <= room(vectors);
            for phases in self.phases_together(plan).filter(fit) {
                self.window_tile(plan, limit, &phases, (per_group, vectors * lanes), "qw", out);
            }
        }
        if !self.machine.isa.wide() {
            return;
        }
        let Some(count) = self.counts(plan).map(|w| w.product_of(|a| a.windows) as usize) else { return };
        for vectors in vectors {
            let most = room(vectors).min(count);
            // The number that leaves the fewest places empty, the largest of those.
            let tile = (most.div_ceil(2)..=most).rev().min_by_key(|t| count.next_multiple_of(*t));
            if let Some(tile) = tile.filter(|_| vectors * lanes <= per_group.next_multiple_of(lanes)) {
                self.window_tile(plan, limit, &[], (vectors * lanes, tile), "oc", out);
            }
        }
    }

    /// The phases that share a window and are computed together: of the innermost axis, of the two innermost ones, of all.
    fn phases_together(&self, plan: &Plan) -> impl Iterator<Item = Vec<(Name, usize)>> {
        let all = self.window_axes.as_deref().unwrap_or_default();
        let by_phase = plan.winograd.as_ref().is_some_and(|w| w.by_phase);
        let shared = |a: usize| match (&all[a].classes[..], all[a].interleaved) {
            ([(_, phases)], 1) if *phases > 1 && !(by_phase && all[a].separable) => Some(*phases),
            _ => None,
        };
        let names = axes(all.len());
        let all: Vec<_> = (0..names.len()).filter_map(|a| Some((on("f", names[a]), shared(a)?))).collect();
        (0..all.len()).rev().map(move |first| all[first..].to_vec())
    }

    /// One register tile of phases, channels and windows, with each number of channels that are worth holding.
    fn window_tile(
        &self,
        plan: &Plan,
        limit: usize,
        phases: &[(Name, usize)],
        (channels, count): (usize, usize),
        vector: &str,
        out: &mut Vec<Plan>,
    ) {
        let per_group = self.problem.c_out / self.problem.groups;
        let tile = phases.iter().copied().chain([("oc".into(), channels), ("qw".into(), count)]);
        let tile = tile.filter(|t| t.1 > 1).map(|(var, extent)| TileAxis { var, extent }).collect();
        let of = plan.winograd.clone();
        let holding = |held: usize| of.clone().map(|w| Winograd { held, ..w });
        let mut plan = Plan { tile, vector: vector.into(), winograd: holding(channels), ..plan.clone() };
        let Some((one, rest)) = self.counts(&plan).map(|w| (w.product_bytes(), w.scratch())) else { return };
        // What one tile of channels leaves for more of them, whose products take somewhat more room than they have bytes.
        let left = (limit as f64 - rest).max(0.0) / 1.1;
        let mut last = 0;
        for budget in [self.machine.l2 / 8, self.machine.l2 / 3] {
            let most = ((budget as f64).min(left) / one / channels as f64).floor().max(1.0) as usize * channels;
            let held = most.min(per_group.next_multiple_of(channels));
            if held == last {
                continue;
            }
            last = held;
            plan.winograd = holding(held);
            if self.counts(&plan).is_some_and(|w| w.scratch() <= limit as f64) {
                out.push(plan.clone());
            }
        }
    }
}
