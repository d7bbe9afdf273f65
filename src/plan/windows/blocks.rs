//! Which plans with windows there are: sizes, blocks, and register tiles in them.

use super::{SCRATCH, WindowAxis, Windows, even};
use crate::ir::Name;
use crate::ir::names::{axes, on};
use crate::passes::winograd::{PIECE, in_pieces};
use crate::plan::candidates::Space;
use crate::plan::rounding::{axis_rounding, is_summed};
use crate::plan::{Algorithm, Form, Plan, Sizes, TileAxis, Winograd};
use crate::problem::Layout;
use std::ops::RangeInclusive;

/// Most bytes of scratch memory where [`SCRATCH`] would take so much longer, since weights then stream by more often.
const MOST_SCRATCH: usize = 5 << 20;
const LONGER: f64 = 1.2;
/// Fewer multiplications than this share of the direct ones are worth a transform.
const WORTH: f64 = 0.8;
/// Products of a window along one axis.
const MOST_PRODUCTS: RangeInclusive<usize> = 3..=6;
/// Window sizes that are costed, those with the fewest products.
const SIZES: usize = 3;
/// The expected rounding error, relative to direct sums, from which on a size must need so much fewer products than those that round less.
const ROUNDS: f64 = 1.65;
const FEWER: f64 = 0.9;
/// The same of those that sum the taps along x; and up to how many output channels they are costed: with more, a transform along x costs little beside what it
/// saves.
const SUMMED: usize = 3;
const FEW: usize = 16;
/// Blocks of each size that are costed with all tiles.
const BLOCKS: usize = 4;
/// By how much a plan that finishes phases one by one must be cheaper: each reads the windows again, where the next of several finds them at hand.
const BY_PHASE: f64 = 1.04;

/// The sizes, and one for the next axis.
fn and(sizes: &Sizes, next: usize) -> Sizes {
    sizes.iter().copied().chain([next]).collect()
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
            let entries = |a: usize| axes[a].classes.iter().map(|c| outputs[a] + c.0 - 1).sum::<usize>() * axes[a].interleaved;
            let per_window = |a: usize| if is_summed(p, a, outputs[a]) { 1 } else { entries(a) };
            let channels = (p.c_in / p.groups).saturating_mul(p.elem.bytes());
            let window = (0..rank).map(per_window).fold(channels, usize::saturating_mul);
            for block in self.window_blocks(axes, outputs) {
                let along = |a: usize| if block[a] > 0 { block[a] } else { axes[a].positions(outputs[a]) }.div_ceil(outputs[a]);
                let windows = (0..rank).map(along).fold(window, usize::saturating_mul);
                let plan = Plan { aligned: true, block, ..self.plan(Form::Gather, true, &[], "qw") };
                // What it costs with a few tiles, small ones where others need too much memory; and whether phases go one by one.
                let of = |limit: usize, vectors: RangeInclusive<usize>, by_phase: bool| {
                    if windows > limit || by_phase && !axes.iter().any(|a| a.separable) {
                        return None;
                    }
                    let plan = Plan { winograd: Some(Winograd { outputs: outputs.clone(), held: 1, by_phase }), ..plan.clone() };
                    let counts = self.counts(&plan)?;
                    let mut some = Vec::new();
                    self.window_tiles(&counts, limit, vectors, 1, &mut some);
                    let cost = some.iter().map(|plan| counts.tiled(plan).cost(&self.machine).cycles()).reduce(f64::min)?;
                    Some(Block { cost, limit, plan })
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
            for b in of_size.take(BLOCKS) {
                let Some(counts) = self.counts(&b.plan) else { continue };
                self.window_tiles(&counts, b.limit, 1..=4, 3, out);
            }
        }
    }

    /// Most bytes of scratch memory, and most where less takes much longer: no more than the tensors take, unless windows are asked for.
    fn scratch_limits(&self) -> [usize; 2] {
        let forced = self.options.algorithm == Some(Algorithm::Winograd);
        [SCRATCH, MOST_SCRATCH].map(|limit| if forced { limit } else { self.tensors.min(limit) })
    }

    /// Window sizes that save multiplications and may be used, those first that need the fewest products for the whole output.
    fn window_sizes(&self, axes: &[WindowAxis]) -> Vec<Sizes> {
        let p = self.problem;
        struct Size {
            outputs: usize,
            growth: f64,
            /// Products of the whole axis, over those of direct sums; the same within one window.
            all: f64,
            share: f64,
        }
        // Where channels lie along the lanes from the input to the output, a transform along x is none of lanes.
        let per_group = p.c_out / p.groups;
        let few = per_group <= FEW && (p.layout == Layout::ChannelsFirst || per_group < self.machine.lanes);
        let along = |a: usize| -> Vec<Size> {
            let (axis, taps) = (&axes[a], axes[a].taps());
            let of = |products: usize| if taps < 2 { 1 } else { (products + 1).saturating_sub(taps).clamp(1, axis.positions) };
            let mut outputs: Vec<usize> = MOST_PRODUCTS.map(of).collect();
            outputs.extend((few && is_summed(p, a, 1)).then_some(1));
            outputs.sort_unstable();
            outputs.dedup();
            let size = |m: usize| {
                let products: usize = axis.classes.iter().map(|(taps, phases)| (m + taps - 1) * phases).sum();
                let direct = p.kernel[a] as f64;
                let windows = axis.positions(m).div_ceil(m) as f64;
                let growth = axis_rounding(p, a, m)?.expected;
                Some(Size { outputs: m, growth, all: windows * products as f64 / direct, share: products as f64 / (m as f64 * direct) })
            };
            outputs.into_iter().filter_map(size).collect()
        };
        let mut sizes = vec![(Sizes::new(), 1.0, 1.0, 1.0)];
        for a in 0..p.rank() {
            let of = along(a);
            let with = |(outputs, growth, all, share): &(Sizes, f64, f64, f64)| -> Vec<_> {
                of.iter().map(|s| (and(outputs, s.outputs), growth * s.growth, all * s.all, share * s.share)).collect()
            };
            sizes = sizes.iter().flat_map(with).collect();
        }
        let usable = |(outputs, growth, _, share): &(Sizes, f64, f64, f64)| {
            *share < WORTH && *growth <= self.options.rounding && self.outputs_fit(axes, outputs)
        };
        sizes.retain(usable);
        let least = sizes.iter().filter(|s| s.1 < ROUNDS).map(|s| s.2).fold(f64::INFINITY, f64::min);
        sizes.retain(|s| s.1 < ROUNDS || s.2 < least * FEWER);
        sizes.sort_by(|a, b| a.2.total_cmp(&b.2));
        let x = p.rank() - 1;
        let (summed, all): (Vec<_>, Vec<_>) =
            sizes.into_iter().map(|s| s.0).partition(|outputs| axes[x].taps() > 1 && is_summed(p, x, outputs[x]));
        all.into_iter().take(SIZES).chain(summed.into_iter().take(SUMMED)).collect()
    }

    /// Whether the first steps have registers for the pixels of windows that interleave, and the last one for the outputs of a window and one phase's products.
    fn outputs_fit(&self, axes: &[WindowAxis], outputs: &[usize]) -> bool {
        let (p, x) = (self.problem, self.problem.rank() - 1);
        let together = |a: usize| axes[a].interleaved;
        let all = outputs[x] * p.stride[x] * together(x);
        let waiting = if in_pieces(all, self.machine.lanes, p.elem) { 2 * PIECE } else { all };
        // Beside them, what pairs of entries share.
        let shared = |a: usize| if outputs[a] + axes[a].taps() > 5 { 4 } else { 0 };
        let pixels = |a: usize| if together(a) > 1 { (outputs[a] + axes[a].taps() - 1) * together(a) + shared(a) } else { 0 };
        let most = (0..=x).map(pixels).fold(waiting + outputs[x] + axes[x].taps(), usize::max);
        !self.machine.isa.wide() || most < self.machine.registers
    }

    /// Block sizes: along x the whole row, a half of it (a third of a sequence), or whole vectors of windows; along the other axes a few windows, or all.
    fn window_blocks(&self, axes: &[WindowAxis], outputs: &[usize]) -> Vec<Sizes> {
        let rank = axes.len();
        let lanes = self.machine.lanes;
        let mut all = vec![Sizes::new()];
        for (a, &m) in outputs.iter().enumerate() {
            let windows = axes[a].positions(m).div_ceil(m);
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
            all = all.into_iter().flat_map(|b| sizes.iter().map(move |s| and(&b, *s))).collect();
        }
        // Several windows along an outer axis only where the axes between it and x are whole.
        let few = |a: usize, b: &[usize]| b[a] == outputs[a] || b[a + 1..(rank - 1).max(a + 1)].iter().all(|s| *s == 0);
        all.retain(|b| (0..rank).all(|a| few(a, b)));
        all
    }

    /// Register tiles for windows, of so many vectors, with at most so many numbers of channels: windows along the lanes, or channels where that fits the
    /// number of windows better; and how many channels' products are held.
    fn window_tiles(&self, counts: &Windows<'_>, limit: usize, vectors: RangeInclusive<usize>, most: usize, out: &mut Vec<Plan>) {
        let lanes = self.machine.lanes;
        let per_group = self.problem.c_out / self.problem.groups;
        let [oc, qw] = ["oc", "qw"].map(Name::from);
        // Besides accumulators: the vectors and a broadcast, or what turning stores takes.
        let room = |vectors: usize| self.machine.registers.saturating_sub((vectors + 1).max(3)) / vectors;
        for vectors in vectors.clone().filter(|v| *v <= 3) {
            for channels in self.channel_tiles(room(vectors).min(per_group)).into_iter().take(most) {
                self.window_tile(counts, limit, &[], [(oc, channels), (qw, vectors * lanes)], qw, out);
            }
            // Few channels leave room for the phases that share a window: it is loaded once for all of them.
            let fit = |phases: &Vec<(Name, usize)>| phases.iter().map(|f| f.1).product::<usize>() * per_group <= room(vectors);
            for phases in self.phases_together(counts.plan).filter(fit) {
                self.window_tile(counts, limit, &phases, [(oc, per_group), (qw, vectors * lanes)], qw, out);
            }
        }
        if !self.machine.isa.wide() {
            return;
        }
        let count = counts.wanted() as usize;
        for vectors in vectors {
            let most = room(vectors).min(count);
            // The number that leaves the fewest places empty, the largest of those.
            let tile = (most.div_ceil(2)..=most).rev().min_by_key(|t| count.next_multiple_of(*t));
            if let Some(tile) = tile.filter(|_| vectors * lanes <= per_group.next_multiple_of(lanes)) {
                self.window_tile(counts, limit, &[], [(oc, vectors * lanes), (qw, tile)], oc, out);
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
        counts: &Windows<'_>,
        limit: usize,
        phases: &[(Name, usize)],
        inner: [(Name, usize); 2],
        vector: Name,
        out: &mut Vec<Plan>,
    ) {
        let per_group = self.problem.c_out / self.problem.groups;
        let [(_, channels), _] = inner;
        let tile = phases.iter().copied().chain(inner).filter(|t| t.1 > 1).map(|(var, extent)| TileAxis { var, extent }).collect();
        let holding = |held: usize| counts.plan.winograd.clone().map(|w| Winograd { held, ..w });
        let mut plan = Plan { tile, vector, winograd: holding(channels), ..counts.plan.clone() };
        let tiled = counts.tiled(&plan);
        let (one, rest) = (tiled.product_bytes(), tiled.scratch());
        // What one tile of channels leaves for more of them, whose products take somewhat more room than they have bytes.
        let left = (limit as f64 - rest).max(0.0) / 1.1;
        let mut last = 0;
        for budget in [self.machine.l2 / 8, self.machine.l2 / 3] {
            let most = ((budget as f64).min(left) / one / channels as f64) as usize;
            let held = even(per_group.div_ceil(channels), most) * channels;
            if held == last {
                continue;
            }
            last = held;
            plan.winograd = holding(held);
            if counts.tiled(&plan).scratch() <= limit as f64 {
                out.push(plan.clone());
            }
        }
    }
}
