//! The choice: the cheapest candidate, and why.

use super::candidates::{self, Space};
use super::cost::{Cost, Costs};
use super::rounding::{interleaved, is_summed, phase_classes};
use super::versions::TypicalSize;
use super::windows::{SCRATCH, Windows};
use super::{Form, Machine, Plan, Processor, Rounding, TileAxis, Winograd, versions};
use crate::codegen::target::Isa;
use crate::ir::Func;
use crate::ir::names::axes;
use crate::problem::{Activation, Deconv, Extent, Layout, Merge};
use crate::runtime::Options;
use crate::{Error, Kind, Result, passes};

/// A plan with its cost, the reasons for it, and what it beat.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The plan.
    pub plan: Plan,
    /// Its predicted cost.
    pub cost: Cost,
    /// The machine that the prediction is for.
    pub machine: Machine,
    /// How many candidates there were.
    pub candidates: usize,
    /// Why, one sentence per decision.
    pub reasons: Vec<String>,
    /// The best candidate of every other kind ([`Plan::kind`]), cheapest first.
    pub rejected: Vec<Rejected>,
}

/// A candidate that was not chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The plan.
    pub plan: Plan,
    /// Its predicted cost.
    pub cost: Cost,
}

/// Chooses a plan, or checks and takes the one that the options force. `finite` says that no weight is infinite or NaN.
///
/// # Errors
/// [`Kind::Options`] if a forced plan is illegal for this problem.
pub fn choose(problem: &Deconv, isa: Isa, options: &Options, finite: bool) -> Result<Choice> {
    let size = versions::main_size(problem, options)?;
    Ok(versions::version_for(problem, &size, isa, options, finite)?.choice)
}

/// What was chosen for one size.
pub(super) struct Chosen {
    pub choice: Choice,
    /// The plan for one thread, so that no choice depends on the number of threads.
    pub alone: Plan,
    /// The lowered plan, where lowering it was part of the choice.
    pub lowered: Option<Func>,
}

/// What other sizes have to do with the choice for one.
#[derive(Clone, Copy)]
pub(super) struct Others<'a> {
    /// The plans for those before it: one of them, or its packed weights, are taken where that costs little.
    pub plans: &'a [Plan],
    /// Plans that pack the weights as one of these does are the only ones that count; all do, if there is none.
    pub only: &'a [Plan],
}

/// The choice for open spatial extents of that size.
pub(super) fn choose_at(
    problem: &Deconv,
    size: &TypicalSize<'_>,
    isa: Isa,
    options: &Options,
    finite: bool,
    others: Others<'_>,
) -> Result<Chosen> {
    let TypicalSize { typical, costs, machine, .. } = size;
    let machine = **machine;
    // Sizes that cannot be are left open: costs then assume one.
    let at = problem.fixed_at(typical).unwrap_or_else(|_| problem.clone());
    if let Some(plan) = &options.plan {
        let choice = forced(problem, plan, machine, options, finite)?;
        return Ok(Chosen { choice, alone: plan.clone(), lowered: None });
    }
    let space = Space::new(&at, machine, options, finite);
    let mut ranked = ranked_in(&space, problem, costs);
    let candidates = ranked.len();
    if !others.only.is_empty() {
        ranked.retain(|r| others.only.iter().any(|o| versions::packs_alike(o, &r.plan)));
    }
    let doubtful = |plan: &Plan| unusual(problem) || wide_windows(problem, plan, &machine);
    let mut last: Option<(Plan, Func)> = None;
    let mut legal = |r: &Rejected| {
        if !doubtful(&r.plan) || !isa.wide() {
            return true;
        }
        last = fitting(problem, &r.plan, isa).map(|func| (r.plan.clone(), func));
        last.is_some()
    };
    let first = ranked.iter().position(&mut legal);
    let first = first.ok_or_else(|| Error::new(Kind::Options, "no plan is legal for this problem and these options"))?;
    let cheapest = ranked[first].cost.cycles();
    let near = |r: &Rejected| r.cost.cycles() <= cheapest * size.sharing;
    let known = others.plans.iter().filter(|_| !costs.is_empty()).map(|plan| (plan, mean(costs, plan)));
    let again = known.filter(|k| k.1.cycles() <= cheapest).min_by(|a, b| a.1.cycles().total_cmp(&b.1.cycles()));
    let again = again.map(|(plan, cost)| Rejected { plan: plan.clone(), cost });
    let shares = |r: &Rejected| others.plans.iter().any(|o| versions::packs_alike(o, &r.plan));
    let shared = ranked[first..].iter().take_while(|r| near(r)).position(|r| shares(r) && legal(r));
    let best = again.clone().unwrap_or_else(|| ranked.remove(first + shared.unwrap_or(0)));
    let wider = if again.is_none() && !costs.is_empty() { widened(&space, problem, size, &best) } else { None };
    let (best, grown) = wider.map_or((best, None), |(wide, reason)| (wide, Some(reason)));
    let mut rejected: Vec<Rejected> = Vec::new();
    for r in ranked {
        if r.plan.kind() != best.plan.kind() && !rejected.iter().any(|o| o.plan.kind() == r.plan.kind()) {
            rejected.push(r);
        }
    }
    let plan = space.shared_out(best.plan.clone());
    let mut reasons = reasons(&at, &plan, options, finite, &machine);
    let saved = (1.0 - cheapest / best.cost.cycles()) * 100.0;
    if again.is_none() && shared.is_some_and(|at| at > 0) {
        reasons.push(format!("weights: packed as for another size; a packing of its own would save {saved:.1} %"));
    }
    if (0..problem.rank()).any(|a| problem.input[a].known().is_none() && plan.block[a] > 0) {
        reasons.push("blocks: of open extents, cut evenly when these are known; the plan has the largest size".into());
    }
    reasons.extend(grown);
    let lowered = last.filter(|(lowered, _)| *lowered == plan).map(|(_, func)| func);
    let choice = Choice { plan, cost: best.cost, machine, candidates, reasons, rejected };
    Ok(Chosen { choice, alone: best.plan, lowered })
}

/// Lets a block that holds all positions hold those of larger sizes, too, up to the largest of a few where that is predicted to be cheaper than several blocks (which
/// stream the weights again, and have ends of their own where tiles overhang), and no dearer at the plan's own size: rows of a panel are as far apart as the
/// largest block has them.
fn widened(space: &Space, problem: &Deconv, own: &TypicalSize<'_>, best: &Rejected) -> Option<(Rejected, String)> {
    WIDER.iter().find_map(|by| {
        let grown = |(t, e): (&usize, &Extent)| e.known().unwrap_or((*t as f64 * by) as usize);
        let size: Vec<usize> = own.typical.iter().zip(&problem.input).map(grown).collect();
        let at = problem.fixed_at(&size).ok()?;
        let costs = Costs::at_run_time(&at, &space.machine);
        let plan = Space::new(&at, space.machine, space.options, space.finite).widened(&best.plan, space, problem)?;
        let cost = mean(&own.costs, &plan);
        let [one, several] = [&plan, &best.plan].map(|plan| costs.of(plan).cycles());
        let worth = one < several * WORTH && cost.cycles() <= best.cost.cycles() * SLACK;
        let size = size.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let reason = format!(
            "blocks: one holds all positions up to inputs of {size}; several would take {:.0} % longer there",
            (several / one - 1.0) * 100.0
        );
        worth.then_some((Rejected { plan, cost }, reason))
    })
}

/// Whether the candidates' own count of registers may be off: activations, several registers per output, taps that are written out whole.
fn unusual(p: &Deconv) -> bool {
    let idle = (0..p.rank()).any(|a| candidates::idle_phases(p, a));
    p.activation != Activation::None || idle || p.merge != Merge::Sum || p.c_in / p.groups <= 4
}

/// Whether windows are wide for the register file: their pixels, copies into the panel and outputs may all wait in registers.
fn wide_windows(p: &Deconv, plan: &Plan, m: &Machine) -> bool {
    let pixels = |a: usize, outputs: usize| {
        let taps = phase_classes(p, a).last().map_or(1, |c| c.0);
        (outputs + taps - 1) * interleaved(p, a).unwrap_or(1)
    };
    let wide = |w: &Winograd| w.outputs.iter().enumerate().any(|(a, outputs)| pixels(a, *outputs) > m.registers / 4);
    plan.winograd.as_ref().is_some_and(wide)
}

/// The lowered plan, if each of its tiles fits the level's registers. Lowering takes about a millisecond, so it is asked only where there is doubt.
fn fitting(problem: &Deconv, plan: &Plan, isa: Isa) -> Option<Func> {
    let func = passes::lower_problem(problem, plan).ok()?;
    crate::codegen::tiles_fit(&func, isa).unwrap_or(false).then_some(func)
}

/// How many times as long axes may be that a block still holds whole, the largest first.
const WIDER: [f64; 3] = [2.0, 1.5, 1.25];
/// How much cheaper that must make it there, and how much dearer it may make it at the plan's own size.
const WORTH: f64 = 0.95;
const SLACK: f64 = 1.005;

/// Tiles whose variants are costed, too.
const VARIED: usize = 64;

/// Every candidate with its predicted cost, cheapest first.
pub fn ranked(problem: &Deconv, isa: Isa, options: &Options, finite: bool) -> Vec<Rejected> {
    let machine = Machine::of(isa, problem.elem, &options.processor.unwrap_or_else(Processor::this));
    let size = versions::main_size(problem, options).unwrap_or_default();
    let at = problem.fixed_at(&size).unwrap_or_else(|_| problem.clone());
    let around = versions::around(problem, &size, options);
    ranked_in(&Space::new(&at, machine, options, finite), problem, &mean_costs(&around, &machine))
}

/// The costs whose weighted sum ranks plans of open extents; none if no extent is open.
pub(super) fn mean_costs<'a>(around: &'a [(f64, Deconv)], machine: &'a Machine) -> Vec<(f64, Costs<'a>)> {
    around.iter().map(|(weight, p)| (*weight, Costs::at_run_time(p, machine))).collect()
}

/// The mean cost of a plan.
pub(super) fn mean(costs: &[(f64, Costs)], plan: &Plan) -> Cost {
    costs.iter().fold(Cost::default(), |sum, (weight, costs)| sum.plus(costs.of(plan).times(*weight)))
}

fn cheapest_first(all: &mut [Rejected]) {
    // Cycles are not negative: their bits are in the same order. Plans are large, so that keys are sorted, not they.
    all.sort_by_cached_key(|r| r.cost.cycles().to_bits());
}

/// The plans of a space, for the problem whose open extents it has fixed, by their mean cost if there are such extents.
fn ranked_in(space: &Space, problem: &Deconv, around: &[(f64, Costs)]) -> Vec<Rejected> {
    let costs = Costs::new(space.problem, &space.machine);
    let costed = |plan: Plan| Rejected { cost: costs.of(&plan), plan };
    let mut all: Vec<Rejected> = space.plans().into_iter().map(costed).collect();
    cheapest_first(&mut all);
    let variants: Vec<Rejected> = all.iter().take(VARIED).flat_map(|r| space.variants(&r.plan)).map(costed).collect();
    all.extend(variants);
    for r in &mut all {
        space.open(&mut r.plan, problem);
        if !around.is_empty() {
            r.cost = mean(around, &r.plan);
        }
    }
    cheapest_first(&mut all);
    all
}

fn forced(problem: &Deconv, plan: &Plan, machine: Machine, options: &Options, finite: bool) -> Result<Choice> {
    let illegal = |why: String| Err(Error::new(Kind::Options, format!("the plan '{plan}' cannot be used: {why}")));
    if plan.block.len() != problem.rank() {
        return illegal(format!("it has {} block sizes for {} axes", plan.block.len(), problem.rank()));
    }
    super::text::check(plan).map_err(|e| Error::new(Kind::Options, e.message))?;
    if let Some(w) = &plan.winograd {
        if let Some((m, block)) = w.outputs.iter().zip(&plan.block).find(|(m, block)| **m == 0 || *block % *m != 0) {
            return illegal(format!("a block of {block} positions does not hold whole windows of {m}; legal: a multiple of it, or 0"));
        }
        if w.held == 0 {
            return illegal("products of 0 channels are held; at least 1 is legal".into());
        }
    }
    if plan.tile.iter().any(|t| t.extent == 0) || plan.lanes == 0 || plan.channel_parts == 0 {
        return illegal("an extent, the lanes or the parts are 0; at least 1 is legal".into());
    }
    if plan.panel && problem.merge != Merge::Sum {
        return illegal("a panel's zero halo would take part in a mean or max; legal: in-place".into());
    }
    if plan.panel && !finite {
        return illegal("weights are not all finite, and a panel's zero halo times infinity is NaN; legal: in-place".into());
    }
    let held = |t: &&TileAxis| t.extent > 1 && t.var.as_str().starts_with(['q', 'r']);
    if plan.form == Form::Gather
        && !plan.panel
        && (problem.merge != Merge::Sum || !finite)
        && let Some(t) = plan.tile.iter().find(held)
    {
        let why = if finite { "would be counted, or compared, as zeros" } else { "would be zeros times a weight that is not finite" };
        return illegal(format!(
            "pixels outside the input, which a tile of {} positions or phases along {} loads, {why}; legal: a tile of channels",
            t.extent, t.var
        ));
    }
    if plan.lanes > 1 && !["qx", "oc", "g", "rx", "kx", "qw"].contains(&plan.vector.as_str()) {
        return illegal(format!("{} cannot lie along the lanes; legal: qx, oc, g, rx, kx, qw", plan.vector));
    }
    if plan.extent("g") > 1 && (!candidates::depthwise(problem) || !plan.panel || plan.vector != "g") {
        return illegal("groups can lie in a tile, along its lanes, where each has one channel in and out, read from a panel".into());
    }
    if plan.bounded && (!plan.panel || plan.winograd.is_some()) {
        return illegal("bounded taps are for direct sums from a panel".into());
    }
    let channels = problem.c_in / problem.groups;
    if plan.reduction > 0 {
        if plan.form == Form::Scatter || problem.merge != Merge::Sum || plan.winograd.is_some() {
            return illegal("a reduction in parts is for direct sums in gather form".into());
        }
        if !channels.is_multiple_of(plan.reduction) {
            return illegal(format!("{channels} input channels do not split into parts of {}; legal: a divisor of them", plan.reduction));
        }
    }
    if plan.form == Form::Scatter && problem.merge != Merge::Sum && plan.extent("oc") > 1 {
        return illegal("the channels of a tile would share one count of patches; legal: no tile along oc".into());
    }
    if plan.vector == "rx" && candidates::few_positions(problem) {
        return illegal("a phase along x may have a single position, so phases are not neighbours; legal: along oc".into());
    }
    let x = problem.rank() - 1;
    if plan.vector == "rx" && !plan.aligned && problem.pad_begin[x] % problem.stride[x] as i64 != 0 {
        return illegal("phases along the lanes must read the same window; legal: aligned".into());
    }
    let per_group = problem.c_out / problem.groups;
    if plan.winograd.is_some() && per_group > 1 && passes::block::channels_of_part(per_group as i64, plan) == 1 {
        return illegal(format!("{} parts of the output channels leave one channel each, and windows share theirs", plan.channel_parts));
    }
    if plan.vector == "qx" && !plan.panel && plan.extent("rx") > 1 && candidates::few_positions(problem) && !candidates::no_halo(problem) {
        return illegal("a phase along x may have a single position, and where it reads then depends on the phase; legal: a panel".into());
    }
    if options.form.is_some_and(|f| f != plan.form) {
        return illegal(format!("its form is {}", plan.form.name()));
    }
    if options.algorithm.is_some_and(|a| a != plan.algorithm()) {
        return illegal(format!("its algorithm is {}", plan.algorithm().name()));
    }
    let expected = Rounding::of(problem, plan).expected;
    if plan.winograd.is_some() && expected > options.rounding {
        return illegal(format!("its expected rounding error is {expected:.1} times that of direct sums; {} is allowed", options.rounding));
    }
    if plan.fma && !machine.isa.fma() {
        return illegal(format!("it fuses multiply and add, which {} cannot", machine.isa));
    }
    let cost = Costs::new(problem, &machine).of(plan);
    let given = vec!["the plan was given".into()];
    let reasons = [given, reasons(problem, plan, options, finite, &machine)].concat();
    Ok(Choice { plan: plan.clone(), cost, machine, candidates: 1, reasons, rejected: Vec::new() })
}

fn reasons(p: &Deconv, plan: &Plan, options: &Options, finite: bool, m: &Machine) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(f) = options.form {
        out.push(format!("form: {} was asked for", f.name()));
    }
    if let Some(a) = options.algorithm {
        out.push(format!("algorithm: {} was asked for", a.name()));
    }
    if let (Some(w), Some(windows)) = (&plan.winograd, Windows::new(p, plan)) {
        let rounding = Rounding::of(p, plan);
        let outputs: Vec<String> = w.outputs.iter().map(usize::to_string).collect();
        out.push(format!(
            "algorithm: Toom-Cook (Winograd), {} outputs of each phase per window; {:.0} % of the multiplications of direct sums",
            outputs.join("x"),
            windows.share() * 100.0
        ));
        let x = p.rank() - 1;
        if is_summed(p, x, w.outputs[x]) && phase_classes(p, x).last().is_some_and(|c| c.0 > 1) {
            out.push(
                "algorithm: taps along x are summed with the input channels; transforming their windows would cost what it saves".into(),
            );
        }
        let together: Vec<usize> = (0..p.rank()).map(|a| interleaved(p, a).unwrap_or(1)).collect();
        if together.iter().any(|n| *n > 1) {
            let together = together.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
            out.push(format!("dilation: {together} windows interleave, so that each reads neighbours; they share their weights"));
        }
        out.push(format!(
            "rounding: {:.2} times the expected error of direct sums, at most {} is allowed; transforms amplify it by {:.0} at worst, over {} terms instead of {}",
            rounding.expected,
            options.rounding,
            rounding.growth,
            rounding.terms,
            Rounding::of(p, &Plan { winograd: None, ..plan.clone() }).terms
        ));
        out.push(format!(
            "memory: transformed weights take {:.1} times the bytes of the weights; products of {} output channels{} wait at a time",
            windows.expansion(),
            w.held,
            if w.by_phase { ", of one phase after the other along axes before x," } else { "" }
        ));
        if windows.scratch() > SCRATCH as f64 {
            out.push("scratch: more than 2 MiB, as is chosen only where less takes a fifth longer".into());
        }
    }
    let last = p.layout == Layout::ChannelsLast;
    out.push(match plan.panel {
        true if plan.winograd.is_some() => {
            let together = if last { plan.lanes.min(p.c_in / p.groups) } else { 1 };
            format!(
                "input: {together} channel{} at a time in a panel with a zero halo, then as transformed windows",
                if together > 1 { "s" } else { "" }
            )
        }
        true => "input: a panel with a zero halo, so that no tap is tested in the inner loop".into(),
        false if p.merge != Merge::Sum => "input: in place, because a zero halo would take part in a mean or max".into(),
        false if !finite => "input: in place, because a weight is infinite or NaN and a zero halo would turn it into NaN".into(),
        false if plan.form == Form::Scatter => "input: in place; every pixel sends its patch to the outputs that exist".into(),
        false if plan.vector == "qx" && !candidates::no_halo(p) => {
            "input: in place; pixels outside of it are masked or left out, and a copy would cost more than it saves".into()
        }
        false if plan.vector == "qx" => {
            "input: in place; every position reads one pixel, which exists, and a copy would cost more than it saves".into()
        }
        false => "input: in place; every position tests its taps, which costs less than a panel here".into(),
    });
    out.push(match plan.vector.as_str() {
        _ if plan.lanes == 1 && p.merge != Merge::Sum => "lanes: none; the channels of a tile would share one count of patches".into(),
        _ if plan.lanes == 1 => "lanes: none".into(),
        "qx" if last => format!("lanes: {} neighbouring columns; weights are broadcast, channels of a tile leave side by side", plan.lanes),
        "qx" => format!("lanes: {} neighbouring columns; weights are broadcast, column phases are interleaved when stored", plan.lanes),
        "qw" => format!("lanes: {} windows, row after row; transformed weights are broadcast", plan.lanes),
        "oc" if plan.winograd.is_some() => {
            format!("lanes: {} output channels; transformed windows, {} at a time, are broadcast", plan.lanes, plan.extent("qw"))
        }
        "oc" => format!("lanes: {} output channels; input pixels are broadcast", plan.lanes),
        "g" => format!("lanes: {} groups of one channel, which lie side by side", plan.lanes),
        "rx" => format!("lanes: {} neighbouring phases, whose outputs are contiguous", plan.lanes),
        _ => format!("lanes: {} neighbouring taps of one patch, whose outputs are contiguous", plan.lanes),
    });
    if plan.bounded {
        let share = (1.0 - candidates::bounded_share(p, plan, &candidates::landing(p))) * 100.0;
        out.push(format!(
            "taps: {share:.0} % fall outside the input and are left out instead of multiplied by a halo: whole rows of them, and single ones where a tile holds the whole row"
        ));
    }
    if plan.reduction > 0 {
        let why = match plan.streams_rows() {
            true => "few rows are read side by side, each from end to end: these are fetched ahead",
            false => "their weights stay in cache for every tile of the block",
        };
        out.push(format!("reduction: {} of {} input channels at a time, so that {why}", plan.reduction, p.c_in / p.groups));
    }
    let accumulators = plan.tile.iter().map(|t| t.extent).product::<usize>().div_ceil(plan.lanes);
    out.push(format!("tile: {accumulators} accumulators of the {} vector registers", m.registers));
    let phases: usize = axes(p.rank()).iter().map(|a| plan.extent_on("f", a)).product();
    if phases > 1 {
        let shared = if plan.winograd.as_ref().is_some_and(Winograd::leaves_x) && plan.extent("fx") > 1 {
            "read the same rows of windows, each of x from a pixel of its own"
        } else {
            "share a window, which is loaded once for them"
        };
        out.push(format!("tile: {phases} phases that {shared}; the channels alone would leave registers idle"));
    }
    if plan.winograd.is_some() && plan.block.iter().any(|b| *b > 0) {
        out.push("blocks: so many windows that their transforms stay in cache while the weights stream by".into());
    } else if plan.panel && plan.block.iter().any(|b| *b > 0) {
        let bytes = Costs::new(p, m).panel_bytes(plan) / 1024.0;
        let (first, second) = (m.l1 >> 10, m.l2 >> 10);
        out.push(format!("blocks: the panel of one takes about {bytes:.0} KiB; the caches have {first} and {second} KiB"));
    }
    out
}
