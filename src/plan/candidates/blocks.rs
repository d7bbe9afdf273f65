//! The blocks of a plan: how many positions a panel holds, or outputs wait; other sizes of them, the reduction in parts, and blocks for open extents and for threads.

use super::super::cost::{Costs, ROOMY};
use super::super::windows::{Windows, positions};
use super::super::{Form, Plan, Sizes, text};
use super::{OPEN, Space};
use crate::ir::names::axes;
use crate::passes::block::channels_of_part;
use crate::problem::Deconv;

/// Most bytes of a panel.
const SCRATCH: usize = 3 << 19;

/// Columns of a row that is fetched ahead which threads do not cut: half as many still come as fast, a quarter does not.
const STREAMED: usize = 1024;

impl Space<'_> {
    /// The same tile with a panel for the first level, or one as large as scratch memory may be, for weights that are dearer to read again than the
    /// panel; a panel that leaves room for the outputs in the second level, where that was timed; and with the reduction in parts. Only tiles that are good without
    /// are worth it.
    pub fn variants(&self, plan: &Plan) -> Vec<Plan> {
        if plan.form == Form::Scatter || !plan.panel || plan.winograd.is_some() {
            return Vec::new();
        }
        let mut all = vec![plan.clone()];
        let (l1, l2, x) = (self.machine.l1, self.machine.l2, self.x());
        let mut add = |bytes: usize, rows_stay: bool| {
            let blocked = self.blocked_by(plan.clone(), bytes);
            if all.iter().all(|p| p.block != blocked.block) && (!rows_stay || plan.block[x] == blocked.block[x]) {
                all.push(blocked);
            }
        };
        [l1 * 3 / 4, SCRATCH].into_iter().for_each(|bytes| add(bytes, false));
        if self.machine.rates.crowded > 0.0 {
            let roomy = (l2 as f64 * ROOMY) as usize;
            [2 * roomy, roomy].into_iter().for_each(|bytes| add(bytes, true));
        }
        let parts: Vec<Plan> = all.iter().filter_map(|p| self.in_parts(p)).collect();
        all.into_iter().skip(1).chain(parts).collect()
    }

    /// The same plan with the reduction in parts, where the weights of one tile's channels would not stay in the second-level cache between two tiles.
    fn in_parts(&self, plan: &Plan) -> Option<Plan> {
        let p = self.problem;
        let channels = p.c_in / p.groups;
        let taps: usize = (0..p.rank()).map(|a| p.kernel[a].div_ceil(p.stride[a])).product();
        let phases: usize = axes(p.rank()).iter().map(|axis| plan.extent_on("r", axis)).product();
        let bytes = taps * phases * plan.extent("oc") * p.elem.bytes();
        let fits = |part: &usize| channels.is_multiple_of(*part) && part * bytes <= self.machine.l2 / 2;
        if plan.vector != "oc" || channels * bytes <= self.machine.l2 / 2 {
            return None;
        }
        let reduction = (channels / 16..channels).rev().find(fits)?;
        Some(Plan { reduction, ..plan.clone() })
    }

    /// A plan that reads the input in place, once, with as many rows at a time, of a few channels, as hardware fetches ahead for: each from its first column in a block
    /// to its last. All outputs of a block wait between two parts, in the second level.
    pub(super) fn streamed(&self, plan: &Plan) -> Option<Plan> {
        let p = self.problem;
        let (rank, channels) = (p.rank(), p.c_in / p.groups);
        let rows: usize = axes(rank)[..rank - 1].iter().map(|axis| plan.extent_on("q", axis)).product();
        let part = self.machine.rates.streams / rows;
        let input = (0..rank).map(|a| p.input[a].known().unwrap_or(OPEN)).fold(p.c_in * p.elem.bytes(), usize::saturating_mul);
        if part == 0 || channels <= part || !channels.is_multiple_of(part) || input <= self.machine.l2 {
            return None;
        }
        let mut block: Sizes = [0; 3][..rank].into();
        // Whole rows, as far as they go.
        for a in 0..rank {
            let tile = plan.extent_on("q", axes(rank)[a]);
            let shorter = |block: &[usize]| self.in_block(block, a).div_ceil(2).next_multiple_of(tile);
            while self.waiting(&block) > self.may_wait() && shorter(&block) < self.in_block(&block, a) {
                block[a] = shorter(&block);
            }
        }
        Some(Plan { block, reduction: part, ..plan.clone() })
    }

    /// Positions of a block along an axis.
    fn in_block(&self, block: &[usize], a: usize) -> usize {
        if block[a] == 0 { positions(self.problem, a) } else { block[a] }
    }

    /// Bytes of the outputs of a block.
    fn waiting(&self, block: &[usize]) -> usize {
        let p = self.problem;
        let along = |a: usize| p.stride[a].saturating_mul(self.in_block(block, a));
        (0..p.rank()).map(along).fold(self.per_group() * p.elem.bytes(), usize::saturating_mul)
    }

    /// Most bytes of sums that wait between two parts of the reduction in a streamed plan.
    fn may_wait(&self) -> usize {
        (self.machine.l2 / 8).min(self.tensors)
    }

    /// Blocks positions so that the panel takes at most so many bytes.
    pub(super) fn blocked_by(&self, mut plan: Plan, bytes: usize) -> Plan {
        let p = self.problem;
        let rank = p.rank();
        let names = axes(rank);
        let limit = bytes.min(SCRATCH).min(self.tensors) / p.elem.bytes();
        let channels = if plan.extent("g") > 1 { p.c_in } else { p.c_in / p.groups };
        let reach = |a: usize| (p.kernel[a] - 1) * p.dilation[a] / p.stride[a] + 1;
        let tiles: Vec<usize> = names.iter().map(|n| plan.extent_on("q", n)).collect();
        let tile = |a: usize| tiles[a];
        let round = |n: usize, m: usize| n.div_ceil(m) * m;
        // Whole axes first; then shorter ones, rows last, so that as little as possible of the panel is a halo that the next block copies again.
        // As many positions as pixels and some more, unless much is cropped or added.
        let along = |a: usize| positions(p, a).max((p.input[a].known().unwrap_or(OPEN) + reach(a)).min(positions(p, a) + reach(a)));
        let mut size: Vec<usize> = (0..rank).map(|a| round(along(a), tile(a))).collect();
        let panel = |size: &[usize]| channels * (0..rank).map(|a| size[a] + reach(a)).product::<usize>();
        let shorter = |size: &[usize], a: usize| {
            let mut size = size.to_vec();
            size[a] = round(size[a].div_ceil(2), tile(a)).min(size[a] - tile(a)).max(tile(a));
            size
        };
        let halo = |size: &Vec<usize>| (0..rank).map(|a| 1.0 + (reach(a) - 1) as f64 / size[a] as f64).product::<f64>();
        while panel(&size) > limit {
            let longer = |a: &usize| size[*a] > tile(*a);
            let outer = (0..rank - 1).filter(longer).map(|a| shorter(&size, a)).min_by(|a, b| halo(a).total_cmp(&halo(b)));
            let Some(next) = outer.or_else(|| longer(&(rank - 1)).then(|| shorter(&size, rank - 1))) else { break };
            size = next;
        }
        let fits = |a: usize, s: usize| p.input[a].known().is_some() && round(along(a), tile(a)) <= s;
        plan.block = (0..rank).map(|a| if fits(a, size[a]) { 0 } else { size[a] }).collect();
        plan
    }

    /// Makes a plan fit for a problem with open extents: a block that is the whole axis becomes one that holds an axis of this size. Where rows are streamed, it is few
    /// of them that are as long as may be.
    pub fn open(&self, plan: &mut Plan, problem: &Deconv) {
        const ROWS: usize = 8;
        let x = self.x();
        if plan.streams_rows() && problem.input[x].known().is_none() {
            let tile = plan.extent_on("q", axes(problem.rank())[x]);
            for a in (0..x).filter(|a| problem.input[*a].known().is_none()) {
                plan.block[a] = if a + 1 < x { 1 } else { ROWS };
            }
            plan.block[x] = tile;
            plan.block[x] = (self.may_wait() / self.waiting(&plan.block)).max(1) * tile;
        }
        for a in (0..problem.rank()).filter(|a| problem.input[*a].known().is_none()) {
            if (plan.panel || plan.streams_rows()) && plan.block[a] == 0 {
                plan.block[a] = self.whole_block(plan, a);
            }
        }
    }

    /// Positions of an axis, as the blocks of a plan count them.
    fn whole(&self, plan: &Plan, a: usize) -> usize {
        match (&plan.winograd, &self.window_axes) {
            (Some(w), Some(axes)) => axes[a].positions(w.outputs[a]),
            _ => positions(self.problem, a),
        }
    }

    /// The least block that holds them, in whole tiles or windows.
    fn whole_block(&self, plan: &Plan, a: usize) -> usize {
        let axis = axes(self.problem.rank())[a];
        let unit = plan.winograd.as_ref().map_or_else(|| plan.extent_on("q", axis), |w| w.outputs[a]);
        self.whole(plan, a).next_multiple_of(unit)
    }

    /// A plan whose block holds all positions at a `smaller` size, with a block that does so at this one; `None` if it is no such plan, or if that takes more scratch
    /// memory than a panel may at the smaller size. Where there are many blocks, they are not fewer for being wider, and caches hold less of each.
    pub fn widened(&self, plan: &Plan, smaller: &Space, problem: &Deconv) -> Option<Plan> {
        let mut wide = plan.clone();
        for a in (0..problem.rank()).filter(|a| plan.block[*a] > 0) {
            if plan.block[a] < smaller.whole(plan, a) {
                return None;
            }
            if problem.input[a].known().is_none() {
                wide.block[a] = self.whole_block(plan, a).max(plan.block[a]);
            }
        }
        let scratch = match &self.window_axes {
            Some(axes) if wide.winograd.is_some() => Windows::of(self.problem, axes, &wide, true)?.scratch(),
            _ => Costs::at_run_time(self.problem, &self.machine).panel_bytes(&wide),
        };
        (wide != *plan && scratch <= SCRATCH.min(smaller.tensors) as f64).then_some(wide)
    }

    /// The plan for several threads: smaller blocks, or parts of the channels, so that every thread gets several tasks. What a tile computes, and in
    /// which order, stays the same, so results do not depend on the number of threads.
    pub fn shared_out(&self, mut plan: Plan) -> Plan {
        let (p, threads) = (self.problem, self.options.threads.max(1));
        if threads == 1 {
            return plan;
        }
        if plan.winograd.is_some() {
            return self.windows_shared_out(plan, threads);
        }
        let rank = p.rank();
        let positions: Vec<usize> = (0..rank).map(|a| positions(p, a)).collect();
        let batch = p.batch.known().unwrap_or(1);
        // Groups that lie in a tile are not shared out.
        let groups = if plan.extent("g") > 1 { 1 } else { p.groups };
        let blocks = |block: &[usize]| {
            let along = |a: usize| if block[a] == 0 { 1 } else { positions[a].div_ceil(block[a]).min(threads * 8) };
            (batch * groups * (0..rank).map(along).product::<usize>()).max(1)
        };
        let tiles: Vec<usize> = axes(rank).iter().map(|n| plan.extent_on("q", n)).collect();
        for a in 0..rank {
            let whole = |b: usize| if b == 0 { positions[a] } else { b };
            let long = if plan.streams_rows() && a + 1 == rank { STREAMED } else { 0 };
            let least = long.max(4 * tiles[a]);
            while plan.form == Form::Gather && blocks(&plan.block) < 4 * threads && whole(plan.block[a]) > least {
                plan.block[a] = (whole(plan.block[a]) / 2).div_ceil(tiles[a]) * tiles[a];
            }
        }
        if blocks(&plan.block) < 4 * threads {
            // Parts are whole tiles of channels.
            plan.channel_parts = (4 * threads).div_ceil(blocks(&plan.block)).min(self.per_group());
            let per = channels_of_part(self.per_group() as i64, &plan) as usize;
            plan.channel_parts = self.per_group().div_ceil(per).min(text::MAX_PARTS);
        }
        plan
    }

    /// The plan with windows for several threads: smaller blocks stream the transformed weights more often, parts of the channels transform their windows again,
    /// and threads that wait for the last task do nothing. The cheapest of them, by the cost of all tasks and of waiting.
    fn windows_shared_out(&self, plan: Plan, threads: usize) -> Plan {
        let Some((whole, outputs)) = self.windows_of(&plan).zip(plan.winograd.as_ref().map(|w| w.outputs.clone())) else { return plan };
        let costs = Costs::new(self.problem, &self.machine);
        let waits = |cut: &Plan| {
            let tasks = self.windows_of(cut).map_or(1.0, |w| w.blocks()) * cut.channel_parts as f64;
            // Of many tasks the last ones are short, and threads that read other weights at the same time read more from memory.
            let threads = threads as f64;
            let taken = if tasks >= 4.0 * threads { tasks } else { (tasks / threads).ceil() * threads };
            costs.of(cut).cycles() * taken / tasks
        };
        let shorter = |a: usize, cuts: usize| {
            let mut cut = plan.clone();
            cut.block[a] = whole.in_block(a).div_ceil(cuts) * outputs[a];
            cut
        };
        // In how many pieces: 1, 2, 3, 4, 6, 8, 12 and so on, and as many as there are threads.
        let powers = (0..usize::BITS - 2).flat_map(|n| [1 << n, 3 << n]).take_while(|n| *n <= 2 * threads);
        let pieces: Vec<usize> = powers.chain([threads, 2 * threads]).collect();
        let every = |a: usize| pieces.iter().map(move |n| (a, *n));
        let cuts = (0..self.problem.rank()).flat_map(every).filter(|(a, n)| (2..=whole.in_block(*a)).contains(n));
        let blocks = std::iter::once(plan.clone()).chain(cuts.map(|(a, n)| shorter(a, n)));
        // Parts are whole tiles of channels, and channels of a part share their windows.
        let per = |n: usize| channels_of_part(self.per_group() as i64, &Plan { channel_parts: n, ..plan.clone() }) as usize;
        let parts = pieces.iter().filter(|n| **n == 1 || per(**n) > 1 && self.per_group().div_ceil(per(**n)) == **n);
        let all = blocks.flat_map(|cut| parts.clone().map(move |n| Plan { channel_parts: *n, ..cut.clone() }));
        let all = all.map(|plan| (waits(&plan), plan));
        all.min_by(|a, b| a.0.total_cmp(&b.0)).map_or_else(|| plan.clone(), |best| best.1)
    }

    /// The counts of a plan with windows.
    fn windows_of<'p>(&'p self, plan: &'p Plan) -> Option<Windows<'p>> {
        Windows::of(self.problem, self.window_axes.as_ref()?, plan, false)
    }
}
