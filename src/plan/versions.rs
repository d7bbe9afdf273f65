//! Open extents: one plan for each of a few sizes.
//!
//! A plan's blocks, and often its tile, suit a size: rows of 8 positions leave most of a block for 64 empty. So a problem whose spatial extents are
//! open gets a [`Version`] for each of a few typical sizes; all are compiled, each is right for every size, and a run takes the one that is predicted
//! to be the cheapest for its extents ([`Version::cycles_at`]). A size takes the plan of another one if none is cheaper, and the packed weights of
//! any where that costs little; packings that are missed least are left out until all of them take no more than a limit (`packings`).
//!
//! Typical sizes are powers of two, up to what a layer of a model may have to compute. Half-way between two of them, and beyond the largest image, where there is enough to compute that it
//! matters, are sizes which rather read the weights as one of them does: plans for these differ in blocks and tiles.

mod packings;

pub use packings::{packed_bytes, packs_alike};

use super::choose::{Others, choose_at, mean, mean_costs};
use super::cost::Costs;
use super::rounding::{interleaved, is_summed};
use super::windows::{even, positions_of, summed_positions};
use super::{Choice, Machine, Plan, Processor, Sizes};
use crate::codegen::target::Isa;
use crate::ir::Func;
use crate::ir::names::{axes, on};
use crate::passes::lower_problem;
use crate::problem::{Deconv, MAX_EXTENT};
use crate::runtime::{MAX_THREADS, Options};
use crate::{Error, Kind, Result};
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// The sizes of an open extent for which there are plans if the caller names none, by rank.
const TYPICAL: [&[usize]; 3] = [&[64, 256, 1024, 4096], &[4, 8, 16, 32, 64, 128], &[4, 8, 16, 32, 64]];
/// Most operations of a batch item at such a size: layers of models do fewer, and plans for more would have the memory that others need for packed weights.
const MOST_WORK: u128 = 40_000_000_000;
/// Sizes half-way between two of these (lengths have none: they gained nothing by it) and, of images, up to twice the largest; and the operations of a batch item for which they are worth a plan.
const HALF_WAY: [&[usize]; 3] = [&[], &[6, 12, 24, 48, 96, 192, 256], &[6, 12, 24, 48]];
const HALF_WAY_WORK: RangeInclusive<u128> = 50_000_000..=5_000_000_000;
/// Most sizes that a caller may name.
pub const MOST_SIZES: usize = 16;
/// By how much a prediction may be off for a plan that was made for twice or half the pixels.
const FAR: f64 = 0.05;
/// How much dearer a plan may be if it takes weights that are packed already: at a size that the caller names, at a typical one, and half-way between two.
const SHARING_NAMED: f64 = 1.03;
const SHARING: f64 = 1.05;
const SHARING_HALF_WAY: f64 = 1.15;

/// A plan for one size of a problem; the only one, if no spatial extent is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The spatial input extents for which it was chosen, outermost first.
    pub typical: Vec<usize>,
    /// The plan, with its reasons.
    pub choice: Choice,
    /// What its cost grows with, per axis.
    units: Vec<Units>,
    /// The windows of a block, over all axes.
    windows: Tiles,
    /// Predicted cycles per unit at its own typical size, or at all there are, in ascending order; a size is given by the logarithm of its pixels.
    each: Vec<(f64, f64)>,
    /// The lowered plan, where it is known from the choice.
    lowered: Option<Func>,
}

/// What a kernel's cost grows with along one axis: positions in units of a tile, or of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Units {
    /// Output positions for `i` input pixels are `(i + more) / wide`, rounded up.
    more: i64,
    wide: usize,
    unit: usize,
    /// Units of a block that is computed as a whole.
    most: usize,
    tiles: Tiles,
}

impl Units {
    /// The units of a block, as far as its tiles reach, and the number of blocks.
    fn of(self, extent: usize) -> (usize, usize) {
        let pixels = (extent as i64).saturating_add(self.more).max(1) as usize;
        let positions = pixels.div_ceil(self.wide);
        let units = positions.div_ceil(self.unit);
        let held = even(units, self.most);
        (self.tiles.reach(held), units.div_ceil(held))
    }
}

/// Tiles, and smaller ones for what these leave over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tiles {
    whole: usize,
    rest: usize,
}

impl Tiles {
    fn of(plan: &Plan, var: &str) -> Tiles {
        Tiles { whole: plan.extent(var), rest: plan.rest(var) }
    }

    /// What so many positions take.
    fn reach(self, positions: usize) -> usize {
        let large = if self.rest > 0 { positions.saturating_sub(self.rest) } else { positions };
        let whole = large.div_ceil(self.whole).saturating_mul(self.whole);
        if whole < positions { whole + self.rest } else { whole }
    }
}

impl Version {
    /// `plan` is the one for one thread: which version runs, and so in which order outputs are summed, must not depend on the blocks that threads share out.
    fn new(p: &Deconv, typical: Vec<usize>, choice: Choice, plan: &Plan, lowered: Option<Func>) -> Version {
        let units = |(a, axis): (usize, &&str)| {
            let summed = plan.winograd.as_ref().is_some_and(|w| is_summed(p, a, w.outputs[a]));
            let positions = if summed { summed_positions(p, a, typical[a]) } else { positions_of(p, a, typical[a]) };
            let more = positions as i64 - typical[a] as i64;
            let tiles = Tiles::of(plan, on("q", axis).as_str());
            let wide = interleaved(p, a).filter(|_| plan.winograd.is_some()).unwrap_or(1);
            match &plan.winograd {
                Some(w) if plan.block[a] > 0 => Units { more, wide, unit: w.outputs[a], most: plan.block[a] / w.outputs[a], tiles },
                Some(w) => Units { more, wide, unit: w.outputs[a], most: usize::MAX, tiles },
                None => Units { more, wide, unit: 1, most: usize::MAX, tiles },
            }
        };
        let units = axes(p.rank()).iter().enumerate().map(units).collect();
        let windows = Tiles::of(plan, "qw");
        let cycles = choice.cost.cycles();
        let mut version = Version { typical, choice, units, windows, each: Vec::new(), lowered };
        version.each = vec![(logarithm(&version.typical), cycles / version.units_at(&version.typical))];
        version
    }

    /// The lowered plan, as [`lower_problem`] makes it.
    ///
    /// # Errors
    /// Those of [`lower_problem`].
    pub fn lower(&mut self, problem: &Deconv) -> Result<Func> {
        if let Some(func) = self.lowered.take() {
            return Ok(func);
        }
        lower_problem(problem, &self.choice.plan)
    }

    /// The lowered plan for one thread. Where that is what runs, it is kept for [`Version::lower`].
    fn lowered_alone(&mut self, problem: &Deconv, alone: &Plan) -> Result<Cow<'_, Func>> {
        if self.choice.plan != *alone {
            return lower_problem(problem, alone).map(Cow::Owned);
        }
        let func = match self.lowered.take() {
            Some(func) => func,
            None => lower_problem(problem, alone)?,
        };
        Ok(Cow::Borrowed(self.lowered.insert(func)))
    }

    /// Takes from the cost model what the plan needs at all typical sizes. What the model leaves out counts for more the further a size is from the plan's own.
    fn predict(&mut self, alone: &Plan, sizes: &[TypicalSize<'_>]) {
        let own = logarithm(&self.typical);
        let each = |size: &TypicalSize<'_>| {
            let at = logarithm(size.typical);
            (at, mean(&size.costs, alone).cycles() * (1.0 + FAR * (at - own).abs()) / self.units_at(size.typical))
        };
        self.each = sizes.iter().map(each).collect();
        self.each.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// Units of a run. Blocks are computed as a whole, and in them whole tiles.
    fn units_at(&self, spatial: &[usize]) -> f64 {
        let each = self.units.iter().zip(spatial).map(|(u, extent)| u.of(*extent));
        let (held, blocks) = each.fold((1, 1.0), |all: (usize, f64), (held, blocks)| (all.0.saturating_mul(held), all.1 * blocks as f64));
        (blocks * self.windows.reach(held) as f64).max(1.0)
    }

    /// Predicted cycles for other spatial extents: as many a unit as at the typical sizes next to them.
    pub fn cycles_at(&self, spatial: &[usize]) -> f64 {
        let at = logarithm(spatial);
        let above = self.each.partition_point(|(size, _)| *size <= at);
        let each = match (self.each[..above].last(), self.each.get(above)) {
            (Some((a, x)), Some((b, y))) => x + (y - x) * (at - a) / (b - a),
            (Some((_, each)), None) | (None, Some((_, each))) => *each,
            (None, None) => 1.0,
        };
        each * self.units_at(spatial)
    }
}

/// Which of several versions is predicted to be the cheapest for these spatial extents.
pub fn cheapest<'a>(versions: impl Iterator<Item = &'a Version>, spatial: &[usize]) -> usize {
    let cycles = versions.map(|v| v.cycles_at(spatial)).enumerate();
    cycles.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i)
}

fn logarithm(spatial: &[usize]) -> f64 {
    (pixels(spatial) as f64).log2()
}

fn pixels(spatial: &[usize]) -> usize {
    spatial.iter().fold(1, |n, e| n.saturating_mul(*e))
}

/// A size for which there is to be a plan.
pub(super) struct TypicalSize<'a> {
    /// The spatial input extents, outermost first.
    pub typical: &'a [usize],
    /// How much dearer its plan may be if it takes weights that are packed already.
    pub sharing: f64,
    /// The costs whose weighted sum ranks plans for it; none if no extent is open.
    pub costs: Vec<(f64, Costs<'a>)>,
    /// The machine that they are for.
    pub machine: &'a Machine,
}

/// The plans of a problem, for sizes in ascending order; one for a problem without open spatial extents, and where the options force a plan.
///
/// # Errors
/// As [`super::choose`]; [`Kind::Options`] if the options name sizes that the problem cannot have, or too many threads.
pub fn versions(problem: &Deconv, isa: Isa, options: &Options, finite: bool) -> Result<Vec<Version>> {
    if options.threads > MAX_THREADS {
        return Err(Error::new(Kind::Options, format!("{} threads; at most {MAX_THREADS} are legal", options.threads)));
    }
    let machine = Machine::of(isa, problem.elem, &options.processor.unwrap_or_else(Processor::this));
    let main = sizes(problem, options)?;
    let half_way = half_way(problem, options);
    // Large sizes first, and those half-way after all others: what these pack is what later ones may take.
    let ordered: Vec<&[usize]> = main.iter().rev().chain(half_way.iter().rev()).map(Vec::as_slice).collect();
    let around: Vec<Vec<(f64, Deconv)>> = ordered.iter().map(|typical| around(problem, typical, options)).collect();
    let size = |(i, typical): (usize, _)| {
        let sharing = match i {
            _ if !options.typical.is_empty() => SHARING_NAMED,
            i if i < main.len() => SHARING,
            _ => SHARING_HALF_WAY,
        };
        TypicalSize { typical, sharing, costs: mean_costs(&around[i], &machine), machine: &machine }
    };
    let sizes: Vec<TypicalSize> = ordered.iter().copied().enumerate().map(size).collect();
    let choose = |only: &[Plan]| choose_all(problem, &sizes, isa, options, finite, only);
    let (mut all, plans) = choose(&[])?;
    if let Some(kept) = packings::within(options.packing_limit, problem, &mut all, &plans, &sizes)? {
        // Sizes whose packing is left out find blocks of their own for another.
        (all, _) = choose(&kept)?;
        let limit = packings::limit(options.packing_limit, problem) >> 20;
        let reason = format!("weights: all packings take at most {limit} MiB; for some sizes another order would be faster");
        all.iter_mut().for_each(|v| v.choice.reasons.push(reason.clone()));
    }
    all.sort_by_key(|v| pixels(&v.typical));
    Ok(all)
}

/// The plans for all sizes, in their order, with those of one thread. They pack the weights as one of `only` does, if there are any.
fn choose_all(
    problem: &Deconv,
    sizes: &[TypicalSize<'_>],
    isa: Isa,
    options: &Options,
    finite: bool,
    only: &[Plan],
) -> Result<(Vec<Version>, Vec<Plan>)> {
    let (mut all, mut plans): (Vec<Version>, Vec<Plan>) = (Vec::new(), Vec::new());
    let mut illegal = None;
    for size in sizes {
        let chosen = match choose_at(problem, size, isa, options, finite, Others { plans: &plans, only }) {
            Ok(chosen) => chosen,
            // What the options ask for may need more positions; plans of other sizes serve this one, too.
            Err(e) => {
                illegal = Some(e);
                continue;
            }
        };
        // One version serves both from this size on, whatever blocks threads share out: which versions there are must not depend on how many threads there are,
        // since the one that runs decides in which order an output is summed.
        if let Some(same) = plans.iter().position(|plan| *plan == chosen.alone) {
            if pixels(&all[same].typical) <= pixels(size.typical) {
                continue;
            }
            plans.remove(same);
            all.remove(same);
        }
        all.push(Version::new(problem, size.typical.to_vec(), chosen.choice, &chosen.alone, chosen.lowered));
        plans.push(chosen.alone);
    }
    if all.len() > 1 {
        all.iter_mut().zip(&plans).for_each(|(version, alone)| version.predict(alone, sizes));
    }
    match illegal {
        Some(e) if all.is_empty() => Err(e),
        _ => Ok((all, plans)),
    }
}

/// The version that runs for these spatial extents.
///
/// # Errors
/// As [`versions`].
pub fn version_for(problem: &Deconv, spatial: &[usize], isa: Isa, options: &Options, finite: bool) -> Result<Version> {
    let mut all = versions(problem, isa, options, finite)?;
    Ok(all.swap_remove(cheapest(all.iter(), spatial)))
}

/// The sizes that a plan for this one must suit, with what makes the sum of their costs a mean at this size; none if no extent is open. Images and volumes
/// often have typical sizes to the pixel; lengths of sequences seldom do, so where the caller names none a plan must suit those up to the next size as well.
pub(super) fn around(problem: &Deconv, typical: &[usize], options: &Options) -> Vec<(f64, Deconv)> {
    if !is_open(problem) {
        return Vec::new();
    }
    let grown: &[f64] = if problem.rank() == 1 && options.typical.is_empty() { &[1.0, 1.2, 1.4, 1.7] } else { &[1.0] };
    let at = |by: &f64| {
        let size: Vec<usize> = typical.iter().zip(&problem.input).map(|(t, e)| e.known().unwrap_or((*t as f64 * by) as usize)).collect();
        Some((pixels(typical) as f64 / pixels(&size) as f64 / grown.len() as f64, problem.fixed_at(&size).ok()?))
    };
    grown.iter().filter_map(at).collect()
}

/// The size that stands for all of them where one plan is wanted: the one nearest to 64 along each axis.
///
/// # Errors
/// As [`versions`].
pub fn main_size(problem: &Deconv, options: &Options) -> Result<Vec<usize>> {
    let far = |size: &Vec<usize>| -> f64 { size.iter().map(|s| (*s as f64 / super::cost::OPEN as f64).ln().abs()).sum() };
    let sizes = sizes(problem, options)?;
    Ok(sizes.into_iter().min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or_default())
}

/// The typical sizes of a problem, in ascending order; never none.
fn sizes(problem: &Deconv, options: &Options) -> Result<Vec<Vec<usize>>> {
    if !is_open(problem) || options.plan.is_some() {
        return Ok(vec![square(problem, super::cost::OPEN)]);
    }
    if !options.typical.is_empty() {
        check(problem, &options.typical)?;
        return Ok(ascending(options.typical.clone()));
    }
    let all = ascending(TYPICAL[problem.rank() - 1].iter().map(|s| square(problem, *s)).collect());
    let usual = all.iter().take_while(|size| problem.flops_useful(1, size) <= MOST_WORK).count();
    Ok(all[..usual.max(1)].to_vec())
}

/// The sizes half-way between two typical ones, in ascending order; none if sizes or a plan are given.
fn half_way(problem: &Deconv, options: &Options) -> Vec<Vec<usize>> {
    if !is_open(problem) || options.plan.is_some() || !options.typical.is_empty() {
        return Vec::new();
    }
    let all = ascending(HALF_WAY[problem.rank() - 1].iter().map(|s| square(problem, *s)).collect());
    all.into_iter().filter(|size| HALF_WAY_WORK.contains(&problem.flops_useful(1, size))).collect()
}

/// Whether spatial extents are open.
fn is_open(problem: &Deconv) -> bool {
    problem.input.iter().any(|e| e.known().is_none())
}

/// That many pixels along each open axis, or as many more as it takes to have an output.
fn square(problem: &Deconv, size: usize) -> Vec<usize> {
    let along = |a: usize| problem.input[a].known().unwrap_or_else(|| size.max(least(problem, a)));
    (0..problem.rank()).map(along).collect()
}

/// From few pixels to many, each once.
fn ascending(mut sizes: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    sizes.sort_by_key(|s| pixels(s));
    sizes.dedup();
    sizes
}

fn check(problem: &Deconv, typical: &[Vec<usize>]) -> Result<()> {
    let illegal = |message: String| Err(Error::new(Kind::Options, message));
    if typical.len() > MOST_SIZES {
        return illegal(format!("{} typical sizes; at most {MOST_SIZES} are legal", typical.len()));
    }
    for size in typical {
        if size.len() != problem.rank() {
            return illegal(format!("the typical size {size:?} has {} extents for {} axes", size.len(), problem.rank()));
        }
        if let Err(e) = problem.fixed_at(size) {
            return illegal(format!("the typical size {size:?} cannot be: {}", e.message));
        }
    }
    Ok(())
}

/// The least input extent that has an output.
fn least(p: &Deconv, a: usize) -> usize {
    let outputs = |i: i64| p.output_extent(a).eval(&mut |_| i);
    let missing = 1 - outputs(1);
    let more = (missing + p.stride[a] as i64 - 1).div_euclid(p.stride[a] as i64).clamp(0, MAX_EXTENT);
    1 + more as usize
}
