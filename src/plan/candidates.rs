//! The schedule space: every plan that is worth costing for a problem on a machine.
//!
//! | vector axis | tile | when |
//! |---|---|---|
//! | `qx` columns | channels × phases of the innermost axes, or a part along x × (rows) × vectors | a row fills vectors |
//! | `oc` output channels | (phases of a row) × columns × (rows) × vectors | several output channels |
//! | `g` groups | (phases of a row) × columns × (rows) × vectors | one channel in and out per group, channels last |
//! | `rx` phases | columns × (rows) × vectors | stride of a vector or more, the same taps in every phase, no dilation on x |
//! | `kx` taps | channels × vectors, scatter | |
//! | `qw` windows | channels × vectors | transforms save multiplications (`windows.rs`) |
//!
//! Each tile is costed with a panel for the second-level cache; the best of them also in blocks of other sizes and with the reduction in parts ([`Space::variants`]).
//! Without a panel (merges other than sum, weights that are not finite) the guards stay at the taps, so a tile holds one position.

mod blocks;

use super::cost::OPEN;
use super::machine::Machine;
use super::windows::{WindowAxes, WindowAxis};
use super::{Algorithm, Form, Plan, TileAxis};
use crate::ir::names::axes;
use crate::passes::tile::UNROLLED;
use crate::problem::{Activation, Deconv, Extent, Layout, Merge};
use crate::runtime::Options;

/// Most passes over the input for which it may be read in place although it has a halo.
const IN_PLACE: usize = 2;

/// Most phases of a tile with columns along the lanes, and least of those that are a part of an axis's.
const MOST_PHASES: usize = 16;
const LEAST_OF_PHASES: usize = 4;

/// Facts about a problem that the space depends on.
pub struct Space<'a> {
    pub problem: &'a Deconv,
    pub machine: Machine,
    pub options: &'a Options,
    /// No weight is infinite or NaN: a zero halo is harmless.
    pub finite: bool,
    /// The share of taps that land on a pixel, per axis.
    landing: Vec<f64>,
    /// Bytes of all tensors together: scratch memory takes no more.
    pub(super) tensors: usize,
    /// What windows along each axis depend on; `None` where there can be none.
    pub(super) window_axes: Option<WindowAxes>,
}

impl<'a> Space<'a> {
    /// The space of a problem on a machine.
    pub fn new(problem: &'a Deconv, machine: Machine, options: &'a Options, finite: bool) -> Self {
        let spatial: Vec<usize> = problem.input.iter().map(|e| e.known().unwrap_or(OPEN)).collect();
        let tensors = usize::try_from(problem.bytes_io(problem.batch.known().unwrap_or(1), &spatial)).unwrap_or(usize::MAX);
        Space { problem, machine, options, finite, landing: landing(problem), tensors, window_axes: WindowAxis::all(problem) }
    }

    /// Every tile, in blocks that fit the caches.
    pub fn plans(&self) -> Vec<Plan> {
        let mut out = Vec::new();
        if self.options.form != Some(Form::Scatter) {
            let direct = self.options.algorithm != Some(Algorithm::Winograd);
            if self.finite && self.problem.merge == Merge::Sum {
                if direct {
                    self.columns(&mut out);
                    self.channels(&mut out);
                    self.groups(&mut out);
                    self.phases(&mut out);
                }
                if self.options.algorithm != Some(Algorithm::Direct) {
                    self.windows(&mut out);
                }
            }
            if direct {
                self.guarded(&mut out);
            }
        }
        if self.options.form != Some(Form::Gather) && self.options.algorithm != Some(Algorithm::Winograd) {
            self.scatter(&mut out);
        }
        out
    }

    fn x(&self) -> usize {
        self.problem.rank() - 1
    }

    fn per_group(&self) -> usize {
        self.problem.c_out / self.problem.groups
    }

    pub(super) fn plan(&self, form: Form, panel: bool, tile: &[(&str, usize)], vector: &str) -> Plan {
        Plan {
            form,
            aligned: vector == "rx",
            panel,
            block: [0; 3][..self.problem.rank()].into(),
            bounded: false,
            reduction: 0,
            channel_parts: 1,
            winograd: None,
            tile: tile.iter().filter(|t| t.1 > 1).map(|(v, e)| TileAxis { var: (*v).into(), extent: *e }).collect(),
            vector: vector.into(),
            lanes: self.machine.lanes,
            fma: self.machine.isa.fma(),
            stream: self.options.stream.unwrap_or(false),
        }
    }

    /// Registers left for accumulators when so many operands are held besides.
    fn room(&self, operands: usize) -> usize {
        // One for a broadcast, and one to spare for what Cranelift's allocator or a store needs; polynomials need some more.
        let polynomial = match self.problem.activation {
            Activation::Tanh | Activation::Sigmoid => 4 + self.problem.stride[self.x()].min(4),
            _ => 0,
        };
        // With one channel there may be no loop left: operands of several taps are then in flight at once.
        let straight = if self.problem.c_in == self.problem.groups { operands + 1 } else { 0 };
        self.machine.registers.saturating_sub(operands + 2 + polynomial + straight)
    }

    /// Registers left for accumulators where outputs leave in pieces: the shuffles need some.
    fn turning(&self) -> usize {
        const SHUFFLES: usize = 6;
        self.machine.registers.saturating_sub(SHUFFLES)
    }

    /// Columns along the lanes. The tile may hold the phases of the innermost axes; aligned, they all share the vectors that they read.
    fn columns(&self, out: &mut Vec<Plan>) {
        let (p, lanes) = (self.problem, self.machine.lanes);
        let rank = p.rank();
        let rows: &[usize] = if rank > 1 { &[1, 2, 4] } else { &[1] };
        for held in self.phase_tiles() {
            let phases: usize = held.iter().product();
            // Phases without a tap hold registers for nothing, but along x they fill the gaps between the others, which would be stored lane by lane.
            let idle = (rank - held.len()..self.x()).any(|a| idle_phases(p, a));
            if phases > MOST_PHASES || idle {
                continue;
            }
            for aligned in [false, true] {
                // Without padding the windows agree anyway; without phases in the tile nothing shares them. A part of the phases needs windows that agree.
                let part = held.len() == 1 && phases < p.stride[self.x()];
                if aligned && (phases == 1 || self.windows_agree()) || part && !aligned && !self.windows_agree() {
                    continue;
                }
                for (vectors, &row) in (1..=3).flat_map(|v| rows.iter().map(move |r| (v, r))) {
                    let one = phases * vectors * row;
                    let room = if p.layout == Layout::ChannelsLast {
                        self.room(vectors * row).min(self.turning())
                    } else {
                        self.room(vectors * row)
                    };
                    if room < one {
                        continue;
                    }
                    for channels in self.channel_tiles((room / one).min(self.per_group())) {
                        self.columns_tile(&held, aligned, channels, row, vectors * lanes, out);
                    }
                }
            }
        }
    }

    /// How many phases of the innermost axes a tile may hold: none, or all of each; of many along x also a part, which leaves registers for more pixels, if all need
    /// the same taps.
    fn phase_tiles(&self) -> Vec<Vec<usize>> {
        let (p, x) = (self.problem, self.x());
        let mut all: Vec<Vec<usize>> = (0..=p.rank()).map(|held| p.stride[p.rank() - held..].to_vec()).collect();
        all.retain(|held| held.first() != Some(&1));
        if p.kernel[x].is_multiple_of(p.stride[x]) && p.dilation[x] == 1 && !few_positions(p) {
            all.extend((LEAST_OF_PHASES..p.stride[x]).filter(|part| p.stride[x].is_multiple_of(*part)).map(|part| vec![part]));
        }
        all
    }

    fn columns_tile(&self, held: &[usize], aligned: bool, channels: usize, row: usize, columns: usize, out: &mut Vec<Plan>) {
        let p = self.problem;
        let rank = p.rank();
        let held_axes = &axes(rank)[rank - held.len()..];
        let phases: Vec<(String, usize)> = held_axes.iter().zip(held).map(|(axis, n)| (format!("r{axis}"), *n)).collect();
        let mut tile = vec![("oc", channels)];
        tile.extend(phases.iter().map(|(n, s)| (n.as_str(), *s)));
        tile.extend([("qy", row), ("qx", columns)]);
        let plan = Plan { aligned, ..self.plan(Form::Gather, true, &tile, "qx") };
        // In place every tap sweeps over the input again. That pays for a few passes over long rows, of which a panel would hold short pieces, or over
        // a single channel: rows of several are pages apart, and often in the same sets of a cache.
        let near = rank == 1 || p.c_in == p.groups;
        let sweeps = self.per_group().div_ceil(channels) * (0..rank).map(|a| p.stride[a]).product::<usize>()
            / phases.iter().map(|p| p.1).product::<usize>();
        let agree = (aligned || self.windows_agree()) && !few_positions(p);
        if p.layout == Layout::ChannelsFirst && (no_halo(p) || near && row == 1 && sweeps <= IN_PLACE && agree) {
            let in_place = self.blocked_by(Plan { panel: false, ..plan.clone() }, self.machine.l2 / 2);
            out.extend((sweeps == 1).then(|| self.streamed(&in_place)).flatten());
            out.push(in_place);
        }
        self.blocked(plan, out);
    }

    /// Whether every phase reads the same window without being aligned.
    fn windows_agree(&self) -> bool {
        let p = self.problem;
        (0..p.rank()).all(|a| p.pad_begin[a] % p.stride[a] as i64 == 0 && p.dilation[a] == 1)
    }

    fn channels(&self, out: &mut Vec<Plan>) {
        let lanes = self.machine.lanes;
        let rank = self.problem.rank();
        // With all phases of a row in the tile, channels-first outputs leave in pieces.
        let x = self.x();
        let stride = self.problem.stride[x];
        let pieces = self.problem.layout == Layout::ChannelsFirst && (2..=4).contains(&stride) && !idle_phases(self.problem, x);
        for (vectors, phases) in (1..=4).flat_map(|v| [1, stride].into_iter().take(if pieces { 2 } else { 1 }).map(move |p| (v, p))) {
            if self.per_group() <= (vectors - 1) * lanes || phases > 1 && vectors > 2 {
                continue;
            }
            let room = if phases > 1 { self.room(vectors * phases).min(self.turning()) } else { self.room(vectors) };
            let most = room / vectors / phases;
            for columns in (1..=most).rev() {
                let rows: &[usize] = if rank > 1 { &[1, 2, 3, 4] } else { &[1] };
                for &row in rows {
                    if columns * row > most || columns * row * 2 < most {
                        continue;
                    }
                    let tile = [("rx", phases), ("qy", row), ("qx", columns), ("oc", vectors * lanes)];
                    self.blocked(self.plan(Form::Gather, true, &tile, "oc"), out);
                }
            }
        }
    }

    /// Groups of one channel each along the lanes, where they lie side by side.
    fn groups(&self, out: &mut Vec<Plan>) {
        let p = self.problem;
        if !depthwise(p) || p.layout != Layout::ChannelsLast {
            return;
        }
        let lanes = self.machine.lanes;
        let x = self.x();
        let rows: &[usize] = if p.rank() > 1 { &[1, 2, 4] } else { &[1] };
        let phases = [1, p.stride[x]].into_iter().take(if idle_phases(p, x) { 1 } else { 2 });
        for (vectors, phases) in (1..=4).flat_map(|v| phases.clone().map(move |p| (v, p))) {
            if (vectors - 1) * lanes >= p.groups {
                break;
            }
            for (columns, &row) in [8, 4, 2, 1].into_iter().flat_map(|c| rows.iter().map(move |r| (c, r))) {
                if phases * row * columns * vectors <= self.room(vectors) {
                    let tile = [("rx", phases), ("qy", row), ("qx", columns), ("g", vectors * lanes)];
                    self.blocked(self.plan(Form::Gather, true, &tile, "g"), out);
                }
            }
        }
    }

    fn phases(&self, out: &mut Vec<Plan>) {
        let (p, x) = (self.problem, self.x());
        let (stride, lanes) = (p.stride[x], self.machine.lanes);
        // Lanes are neighbouring phases: they need the same number of taps, and dilation would spread them.
        if stride % lanes != 0 || p.kernel[x] % stride != 0 || p.dilation[x] != 1 || few_positions(p) {
            return;
        }
        for vectors in (1..=4).filter(|v| stride % (v * lanes) == 0) {
            for row in 1..=if p.rank() > 1 { 4 } else { 1 } {
                for columns in self.divisors(self.room(vectors) / vectors / row) {
                    let tile = [("qy", row), ("qx", columns), ("rx", vectors * lanes)];
                    self.blocked(self.plan(Form::Gather, true, &tile, "rx"), out);
                }
            }
        }
    }

    /// Guards at the taps: one position, lanes along the channels.
    fn guarded(&self, out: &mut Vec<Plan>) {
        let lanes = self.machine.lanes;
        for vectors in 1..=4 {
            let registers = vectors * if self.problem.merge == Merge::Sum { 1 } else { 3 };
            if vectors > 1 && (self.per_group() <= (vectors - 1) * lanes || self.room(vectors) < registers) {
                break;
            }
            out.push(self.plan(Form::Gather, false, &[("oc", vectors * lanes)], "oc"));
        }
    }

    fn scatter(&self, out: &mut Vec<Plan>) {
        let (p, x) = (self.problem, self.x());
        let lanes = self.machine.lanes;
        if p.merge == Merge::Sum {
            let vectors = p.kernel[x].div_ceil(lanes).min(4);
            for channels in self.divisors((self.room(0) / vectors).max(1).min(self.per_group())) {
                out.push(self.plan(Form::Scatter, false, &[("oc", channels), ("kx", vectors * lanes)], "kx"));
            }
        }
        // The channels of a tile would share one count of patches.
        let tile: &[(&str, usize)] = if p.merge == Merge::Sum { &[("oc", lanes)] } else { &[] };
        let plan = self.plan(Form::Scatter, false, tile, "oc");
        out.push(Plan { lanes: if tile.is_empty() { 1 } else { plan.lanes }, ..plan });
    }

    /// Channels of a tile. Channels-last outputs leave the registers in pieces of 16 bytes, so tiles hold whole pieces where there are enough channels.
    pub(super) fn channel_tiles(&self, most: usize) -> Vec<usize> {
        let piece = 16 / self.problem.elem.bytes();
        let whole = |m: &usize| m.is_multiple_of(piece) && self.per_group().is_multiple_of(*m) || *m == self.per_group();
        let pieces: Vec<usize> = (1..=most).rev().filter(whole).take(3).collect();
        if self.problem.layout == Layout::ChannelsLast && !pieces.is_empty() { pieces } else { self.divisors(most) }
    }

    /// The largest extent and a few smaller ones that divide the channels better.
    pub(super) fn divisors(&self, most: usize) -> Vec<usize> {
        let most = most.max(1);
        let smaller = (1..most).rev().take(5).filter(|m| self.per_group().is_multiple_of(*m) || *m >= most / 2);
        std::iter::once(most).chain(smaller).collect()
    }

    /// Blocks positions so that the panel takes at most half of the second-level cache.
    fn blocked(&self, mut plan: Plan, out: &mut Vec<Plan>) {
        plan.bounded = self.rows_bounded(&plan);
        out.push(self.blocked_by(plan, self.machine.l2 / 2));
    }

    /// Whether so many taps fall outside the input, along axes of which a tile holds one position or all of them, that leaving them out is worth it.
    fn rows_bounded(&self, plan: &Plan) -> bool {
        const WORTH: f64 = 0.99;
        plan.panel && bounded_share(self.problem, plan, &self.landing) < WORTH
    }
}

/// The share of the taps that land on a pixel, per axis; the others are in the halo. All of them, where the extent is open.
pub fn landing(p: &Deconv) -> Vec<f64> {
    let share = |a: usize| match (&p.input[a], p.output_extent(a).as_const()) {
        (Extent::Fixed(i), Some(outputs)) => {
            let taps = outputs.max(1) as f64 * p.kernel[a] as f64 / p.stride[a] as f64;
            (p.useful_pairs(a, *i) as f64 / taps).min(1.0)
        }
        _ => 1.0,
    };
    (0..p.rank()).map(share).collect()
}

/// The share of the taps that is left where those outside the input are left out: along axes of which a tile holds one position and one phase, or all of them and
/// is written out.
pub fn bounded_share(p: &Deconv, plan: &Plan, landing: &[f64]) -> f64 {
    let mut share = 1.0;
    let written = written_out(p, plan, true);
    for (a, axis) in axes(p.rank()).iter().enumerate() {
        let (q, r) = (plan.extent_on("q", axis), plan.extent_on("r", axis));
        let same =
            plan.vector.as_str().strip_prefix(['q', 'r']) != Some(*axis) && (!plan.aligned || p.pad_begin[a] % p.stride[a] as i64 == 0);
        let all = same && r == p.stride[a] && p.output_extent(a).as_const() == Some((q * r) as i64);
        let single = q == 1 && r == 1;
        if p.dilation[a] == 1 && (single || all && written[a]) {
            share *= landing[a];
        }
    }
    share
}

/// The axes whose taps are written out in a tile, as pass `tile` does it: the innermost ones, as long as that does not make too many statements.
pub fn written_out(p: &Deconv, plan: &Plan, bounded: bool) -> Vec<bool> {
    let mut written = (plan.tile.iter().map(|t| t.extent).product::<usize>() / plan.lanes.max(1)).max(1);
    let mut out = vec![false; p.rank()];
    for (a, axis) in axes(p.rank()).iter().enumerate().rev() {
        // A single position has the taps that land in the input only, if they are bounded: how many depends on where it is.
        let single = bounded && plan.extent_on("q", axis) == 1 && plan.extent_on("r", axis) == 1;
        written = if single { usize::MAX } else { written.saturating_mul(p.kernel[a].div_ceil(p.stride[a])) };
        out[a] = written <= UNROLLED;
    }
    out
}

/// Whether a phase of the innermost axis may have a single position: its place then depends on the phase, and neighbouring phases need not be neighbours.
pub fn few_positions(p: &Deconv) -> bool {
    let x = p.rank() - 1;
    p.output_extent(x).as_const().is_some_and(|outputs| outputs < 2 * p.stride[x] as i64)
}

/// Whether every position reads one pixel that exists, so that the input can be read in place.
pub fn no_halo(p: &Deconv) -> bool {
    let exact =
        |a: usize| p.pad_begin[a] == 0 && p.pad_end[a] >= 0 && p.output_padding[a] == 0 && p.kernel[a] <= p.stride[a] && p.dilation[a] == 1;
    (0..p.rank()).all(exact)
}

/// Whether every group has one channel in and one out.
pub fn depthwise(p: &Deconv) -> bool {
    p.groups > 1 && p.c_in == p.groups && p.c_out == p.groups
}

/// Whether some phases of an axis have no tap: the stride exceeds the kernel, or shares a divisor with the dilation.
pub fn idle_phases(p: &Deconv, axis: usize) -> bool {
    let (s, d) = (p.stride[axis], p.dilation[axis]);
    s > p.kernel[axis] || (2..=s.min(d)).any(|f| s.is_multiple_of(f) && d.is_multiple_of(f))
}
