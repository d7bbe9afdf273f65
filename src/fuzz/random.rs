//! Random problems: every feature, small enough to be quick, with a few that are large enough to be shared out to threads.
//!
//! *Needs* a seed and an index; *leaves* a valid [`Case`], the same one for the same pair on machines with the same levels.

use super::{Case, Fill};
use crate::codegen::target::Isa;
use crate::ir::names;
use crate::plan::{self, Algorithm, Form, Plan};
use crate::problem::{Activation, Deconv, Extent, Layout, Merge};
use crate::{Elem, Options};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The most multiplications, zeros included, of a small case and of a large one.
const SMALL: u128 = 150_000;
const LARGE: u128 = 4_000_000;
/// Useful multiplications from which a run is shared out to threads; large cases have at least so many.
const SHARED: u128 = 200_000;
/// The most output elements.
const OUTPUTS: usize = 60_000;

impl Case {
    /// The case of that index: one of a stream that the seed makes.
    pub fn random(seed: u64, index: u64) -> Case {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        loop {
            let large = rng.random_bool(0.08);
            // Most attempts are legal; the others (empty outputs, too much work) are thrown again.
            if let Some(case) = (0..40).find_map(|_| attempt(&mut rng, large)) {
                return case;
            }
        }
    }
}

fn attempt(rng: &mut ChaCha8Rng, large: bool) -> Option<Case> {
    let (problem, batch, spatial) = problem(rng, large);
    problem.validate().ok()?;
    let outputs: usize = problem.output_shape(batch, &spatial).ok()?.iter().product();
    let (dense, useful) = (problem.dense_macs(batch, &spatial), problem.useful_macs(batch, &spatial));
    let fits = if large { dense <= LARGE && useful >= SHARED } else { dense <= SMALL };
    if !fits || outputs > OUTPUTS {
        return None;
    }
    let open = std::iter::once((&problem.batch, batch)).chain(problem.input.iter().zip(spatial));
    let extents = open.filter(|(e, _)| matches!(e, Extent::Open(_))).map(|(_, v)| v).collect();
    let fills = [(Fill::Integers, 9), (Fill::Random, 8), (Fill::Special, 3)];
    let isa = *Isa::detected().choose(rng)?;
    let form = *[None, None, Some(Form::Gather), Some(Form::Scatter)].choose(rng)?;
    // Windows where they are possible, more often than the cost of such small problems would have them.
    let windows = Options { isa: Some(isa), algorithm: Some(Algorithm::Winograd), ..Options::default() };
    let possible = form.is_none() && rng.random_bool(0.8) && plan::choose(&problem, isa, &windows, true).is_ok();
    let fill = fills.choose_weighted(rng, |f| f.1).ok()?.0;
    // Any plan that the compiler weighs, not only the one that it would take.
    let plan = if form.is_none() && !possible && rng.random_bool(0.4) { plan(rng, &problem, isa, fill) } else { None };
    Some(Case {
        extents,
        isa,
        form,
        algorithm: possible.then_some(Algorithm::Winograd),
        threads: if large || rng.random_bool(0.2) { 2 } else { 1 },
        plan,
        fill,
        seed: rng.random_range(0..1_000_000),
        problem,
    })
}

/// A plan of those that the compiler weighs for a problem, with choices that only large problems are offered.
fn plan(rng: &mut ChaCha8Rng, p: &Deconv, isa: Isa, fill: Fill) -> Option<Plan> {
    let options = Options { isa: Some(isa), ..Options::default() };
    let ranked = plan::ranked(p, isa, &options, fill != Fill::Special);
    let mut plan = ranked.choose(rng)?.plan.clone();
    if plan.winograd.is_none() && plan.form == Form::Gather && p.merge == Merge::Sum {
        let channels = p.c_in / p.groups;
        let parts: Vec<usize> = (1..channels).filter(|r| channels.is_multiple_of(*r)).collect();
        if rng.random_bool(0.5) {
            plan.reduction = parts.choose(rng).copied().unwrap_or(0);
        }
        // Any tile may read the input in place, however slowly.
        plan.panel &= plan.extent("g") > 1 || rng.random_bool(0.8);
        plan.bounded = plan.panel && rng.random_bool(0.5);
    }
    if rng.random_bool(0.5) {
        alter(rng, p, &mut plan);
    }
    Some(plan)
}

/// Changes a plan to one that the compiler would not weigh: other extents, blocks and alignment. It may be illegal.
fn alter(rng: &mut ChaCha8Rng, p: &Deconv, plan: &mut Plan) {
    let whole = |n: usize, unit: usize| n.max(1).next_multiple_of(unit.max(1));
    for t in plan.tile.iter_mut() {
        if rng.random_bool(0.4) && !t.var.as_str().starts_with('r') {
            let unit = if t.var == plan.vector { plan.lanes } else { 1 };
            t.extent = whole(rng.random_range(1..=t.extent + 2), unit);
        }
    }
    for (a, axis) in names::axes(p.rank()).iter().enumerate() {
        let unit = plan.winograd.as_ref().map_or_else(|| plan.extent_on("q", axis), |w| w.outputs[a]);
        if plan.form == Form::Gather && rng.random_bool(0.4) {
            plan.block[a] = if rng.random_bool(0.3) { 0 } else { whole(rng.random_range(1..=4) * unit, unit) };
        }
    }
    if let Some(w) = &mut plan.winograd {
        w.by_phase ^= rng.random_bool(0.3);
        // Taps along x that are summed, where many channels would have them transformed.
        if rng.random_bool(0.3)
            && let Some(x) = w.outputs.last_mut()
        {
            *x = 1;
        }
    }
    plan.aligned ^= plan.winograd.is_none() && plan.form == Form::Gather && rng.random_bool(0.3);
    plan.channel_parts = if rng.random_bool(0.3) { rng.random_range(1..=3) } else { plan.channel_parts };
}

/// Something between `lo` and `hi`, mostly near `lo`.
fn few(rng: &mut ChaCha8Rng, lo: usize, usual: usize, hi: usize) -> usize {
    if rng.random_bool(0.85) { rng.random_range(lo..=usual) } else { rng.random_range(lo..=hi) }
}

/// Groups, and channels in and out of each.
fn channels(rng: &mut ChaCha8Rng, large: bool) -> (usize, usize, usize) {
    match rng.random_range(0..8) {
        _ if large => (rng.random_range(1..=2), rng.random_range(4..=32), rng.random_range(1..=48)),
        0 => (rng.random_range(2..=20), 1, rng.random_range(1..=2)),
        1 => (rng.random_range(2..=4), rng.random_range(1..=5), rng.random_range(1..=20)),
        _ => (1, few(rng, 1, 6, 40), few(rng, 1, 9, 40)),
    }
}

fn activation(rng: &mut ChaCha8Rng) -> Activation {
    match rng.random_range(0..12) {
        0 | 1 => Activation::Relu,
        2 => Activation::LeakyRelu([0.25, 0.1, 0.01, 2.0, -0.5][rng.random_range(0..5)]),
        3 => Activation::Clamp(-1.5, 2.0),
        4 => Activation::Clamp(0.0, f64::INFINITY),
        5 => Activation::Tanh,
        6 => Activation::Sigmoid,
        _ => Activation::None,
    }
}

/// Padding of one end: mostly within the kernel, sometimes a crop beyond it, sometimes negative.
fn padding(rng: &mut ChaCha8Rng, reach: usize) -> i64 {
    match rng.random_range(0..10) {
        0 => -rng.random_range(1..=5),
        1 => (reach + rng.random_range(0..=4)) as i64,
        2..=4 => 0,
        _ => rng.random_range(0..=reach) as i64,
    }
}

/// One value per axis: the same for all of them as often as not.
fn per_axis<T: Clone>(rng: &mut ChaCha8Rng, rank: usize, mut one: impl FnMut(&mut ChaCha8Rng, usize) -> T) -> Vec<T> {
    if rng.random_bool(0.4) {
        return vec![one(rng, 0); rank];
    }
    (0..rank).map(|a| one(rng, a)).collect()
}

/// A problem that need not be legal, with its batch and spatial extents.
fn problem(rng: &mut ChaCha8Rng, large: bool) -> (Deconv, usize, Vec<usize>) {
    let rank = *[1, 1, 1, 2, 2, 2, 2, 2, 3, 3].choose(rng).expect("the list is not empty");
    let (groups, per_in, per_out) = channels(rng, large);
    let longest = [0, 20, 6, 4][rank];
    let kernel = per_axis(rng, rank, |r, _| few(r, 1, 5, longest));
    let stride = per_axis(rng, rank, |r, _| few(r, 1, 4, 10));
    // Often a multiple of the stride: then windows interleave.
    let dilation = per_axis(rng, rank, |r, a| match r.random_range(0..8) {
        0 => stride[a] * r.random_range(1..=3),
        1 => r.random_range(1..=4),
        _ => 1,
    });
    let (usual, most) = [(0, 0), (40, 150), (9, 40), (5, 12)][rank];
    let spatial: Vec<usize> = (0..rank).map(|_| few(rng, 1, usual, most)).collect();
    let reach: Vec<usize> = (0..rank).map(|a| dilation[a] * (kernel[a] - 1)).collect();
    let pad_begin: Vec<i64> = reach.iter().map(|&r| padding(rng, r)).collect();
    let pad_end = if rng.random_bool(0.6) { pad_begin.clone() } else { reach.iter().map(|&r| padding(rng, r)).collect() };
    let output_padding =
        (0..rank).map(|a| if rng.random_bool(0.6) { 0 } else { rng.random_range(0..stride[a].max(dilation[a])) }).collect();
    let batch = if rng.random_bool(0.02) { 0 } else { few(rng, 1, 2, 5) };
    let mut extent = |v: usize, symbol: &str| if rng.random_bool(0.2) { Extent::Open(symbol.into()) } else { Extent::Fixed(v) };
    let problem = Deconv {
        batch: extent(batch, "N"),
        input: spatial.iter().zip(&["D", "H", "W"][3 - rank..]).map(|(&v, s)| extent(v, s)).collect(),
        c_in: groups * per_in,
        c_out: groups * per_out,
        groups,
        kernel,
        stride,
        dilation,
        pad_begin,
        pad_end,
        output_padding,
        bias: rng.random_bool(0.5),
        activation: activation(rng),
        merge: *[Merge::Sum, Merge::Sum, Merge::Sum, Merge::Sum, Merge::Sum, Merge::Mean, Merge::Max].choose(rng).expect("not empty"),
        layout: if rng.random_bool(0.3) { Layout::ChannelsLast } else { Layout::ChannelsFirst },
        elem: if rng.random_bool(0.25) { Elem::F64 } else { Elem::F32 },
    };
    (problem, batch, spatial)
}
