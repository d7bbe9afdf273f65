//! Pass `panel`: the input pixels of one block are copied into a scratch panel with a halo of zeros.
//!
//! *Needs* the blocked gather nest, weights that are all finite (0 · inf would be NaN, where the guard multiplied nothing), and a merge by
//! sum. *Leaves* a nest without range guards on the input: every tap reads the panel.
//!
//! ```text
//! par for qy.b in 0..H step 8:                  par for qy.b in 0..H step 8:
//!   for oc, r…, qy, qx:                           for ic, py in 0..9, px in 0..W+1:
//!     for ty, tx:                                   v = 0
//!       when 0 <= qy - ty < H and …:                when 0 <= qy.b - 1 + py < H and 0 <= px - 1 < W: v = x[n, ic, qy.b - 1 + py, px - 1]
//!         for ic: acc = fma(x[n, ic, …      ⇒       P[ic, py, px] = v
//!                                                 for oc, r…, qy, qx, ty, tx, ic:
//!                                                   acc = fma(P[ic, qy - qy.b + 1 - ty, qx + 1 - tx], …
//! ```
//!

use super::block::{extreme, largest, phases};
use super::nest::{Nest, input_channels, peel, wrap};
use crate::ir::names::{INPUT, on, part};
use crate::ir::{Access, Affine, Buffer, BufferKind, Cond, Func, Loop, LoopKind, Reg, Stmt, Value};
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// The panel buffer.
pub const PANEL: &str = "P";
/// The register through which pixels are copied.
const COPY: &str = "copy";

/// How one axis of the panel maps to the input: `pixel = origin + p`, `p < extent`.
struct Side {
    axis: &'static str,
    origin: Affine,
    extent: i64,
    guard: Cond,
}

/// Stages the input of each block in a panel.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    if !plan.panel {
        return Ok(None);
    }
    let nest = Nest::of(func);
    let par = nest.loops.iter().take_while(|l| l.kind == LoopKind::Par).count();
    let (blocks, inner) = nest.loops.split_at(par);
    let Some(at) = nest.body.iter().position(|s| find_load(std::slice::from_ref(s), INPUT).is_some()) else {
        // Nothing is read: every output is bias only.
        return Ok(None);
    };
    let (taps, guarded) = peel(&nest.body[at..=at]);
    // Where every position has all its taps the guard is gone already, and with it the need for a halo.
    let (conds, reduction) = match guarded {
        [Stmt::When { conds, body }] => (conds.clone(), body.clone()),
        other => (Vec::new(), other.to_vec()),
    };

    let mut access = find_load(&reduction, INPUT).ok_or_else(|| super::unexpected("panel", "a load of the input in the reduction"))?;
    let (taps, conds) = if plan.bounded { bounded(taps, conds, plan, func) } else { (taps, conds) };
    let known = if plan.bounded { static_guards(&conds, &taps, inner, plan, func) } else { Vec::new() };
    let around = Around { func, plan, loops: &nest.loops, taps: &taps, conds: &conds };
    let mut sides = Vec::new();
    for (a, axis) in super::nest::axes(func).iter().enumerate() {
        sides.push(around.side(axis, a, &access.index[a + 2])?);
    }
    let mut channels = input_channels(&nest.body[at..=at]);
    // Groups of one channel each that lie side by side are the panel's channels.
    let grouped = nest.loops[par..].iter().find(|l| l.var == "g").and_then(Loop::const_range).map(|r| r.1);
    if let Some(groups) = grouped {
        channels = groups;
        access.index[1] = access.index[1].subst("g", &Affine::var("ic"));
    }
    let x = func.buffer(INPUT);
    let order = order(plan, x.dims.len() - 1);
    let mut dims: Vec<i64> = std::iter::once(channels).chain(sides.iter().map(|s| s.extent)).collect();
    let last = *order.last().expect("a panel has dimensions");
    let bytes = func.elem.bytes() as i64;
    if last == 0 {
        // The last tile of groups may overhang them. Pixels of few channels lie close, several in a line.
        let all = up(channels, plan.extent("g") as i64);
        dims[0] = if all * bytes < 64 { all } else { odd_lines(all, bytes) };
    } else if x.order.last() != Some(&(last + 1)) || in_lines(plan, taps.iter().any(|t| t.var == on("t", "x"))) {
        // Rows that are turned on the way are written by whole vectors, those of several channels together; others should begin with a line.
        dims[last] = odd_lines(dims[last], bytes);
    } else if plan.winograd.is_none() {
        apart(&mut dims, bytes);
    }
    let fill = fill(&access, &sides, channels, &order);
    let channel = if grouped.is_some() { "g" } else { "ic" };
    let body = Stmt::when([known, leftover(&conds, &sides)].concat(), redirect(reduction, &sides, channel));
    let mut inside = nest.body.clone();
    inside.splice(at..=at, wrap(&taps, body));
    let mut out = func.with_run(wrap(blocks, [fill, wrap(inner, inside)].concat()));
    out.buffers.push(Buffer {
        name: PANEL.into(),
        kind: BufferKind::Scratch,
        elem: func.elem,
        dims: dims.into_iter().map(Affine::from).collect(),
        order,
    });
    out.regs.push(Reg { name: COPY.into(), lanes: 1, dims: Vec::new() });
    Ok(Some(out))
}

/// The panel's dimensions in memory, outermost first. Where pixels are broadcast to output channels along the lanes, a pixel's channels
/// lie side by side, so that the few pixels of a tile take few cache lines; otherwise rows do, from which vectors are loaded.
fn order(plan: &Plan, rank: usize) -> Vec<usize> {
    match plan.vector.as_str() {
        "oc" | "g" => (1..rank).chain([0]).collect(),
        _ => (0..rank).collect(),
    }
}

/// Lengthens the rows of a channel by a line, or adds one, whichever takes less memory, until channels do not lie a quarter of a page apart, or several: those
/// that a tile asks for ahead of its sums would drive each other out of the few sets that they fall into. One more makes an even number odd.
fn apart(dims: &mut [i64], bytes: i64) {
    const CLOSE: i64 = 16;
    let [_, rows @ .., row] = dims else { return };
    let lines = |row: i64| (row * bytes + 63) / 64;
    while rows.iter().product::<i64>() * lines(*row) % CLOSE == 0 {
        let n = lines(*row);
        match rows.iter_mut().filter(|count| **count % 2 == 0).max() {
            Some(count) if n % 2 == 1 || *count > n => *count += 1,
            _ => *row = (n + 1) * 64 / bytes,
        }
    }
}

/// Whether rows begin with a cache line each: where taps read vectors that are shifted against each other, and a tile uses each for few outputs, those in
/// step with the first should not lie across two lines.
fn in_lines(plan: &Plan, shifted: bool) -> bool {
    const FEW: usize = 8;
    let outputs: usize = plan.tile.iter().filter(|t| t.var == "oc" || t.var.as_str().starts_with('r')).map(|t| t.extent).product();
    shifted && plan.winograd.is_none() && plan.vector == "qx" && outputs <= FEW
}

/// The next multiple.
pub fn up(n: i64, to: i64) -> i64 {
    (n + to - 1) / to * to
}

/// An extent that takes an odd number of 64-byte cache lines: pixels of one tile then lie in different sets of the first-level cache.
pub fn odd_lines(elements: i64, bytes: i64) -> i64 {
    (((elements * bytes + 63) / 64) | 1) * 64 / bytes
}

/// An extent whose cache lines are no multiple of four: of rows that are read whole, or two lines at a time, the same lines then lie in different sets.
pub fn spread_lines(elements: i64, bytes: i64) -> i64 {
    let lines = (elements * bytes + 63) / 64;
    (lines + i64::from(lines % 4 == 0)) * 64 / bytes
}

/// On axes of which the tile holds one position, the taps that fall outside the input are left out: their loops are bounded by it instead of testing it.
fn bounded(mut taps: Vec<Loop>, mut conds: Vec<Cond>, plan: &Plan, func: &Func) -> (Vec<Loop>, Vec<Cond>) {
    for axis in super::nest::axes(func).iter().filter(|axis| plan.extent_on("q", axis) == 1 && plan.extent_on("r", axis) == 1) {
        let Some(l) = taps.iter_mut().find(|l| l.var == on("t", axis)) else { continue };
        let t = l.var.as_str();
        let of = |c: &Cond| matches!(c, Cond::Range { lo, e, .. } if e.coef_of_var(t) == -1 && *lo == Affine::from(0));
        let Some(at) = conds.iter().position(of) else { continue };
        if let Cond::Range { e, hi, .. } = conds.remove(at) {
            // 0 <= p - t < hi
            let p = e + Affine::var(t);
            l.lo.push(p.clone() - hi + 1);
            l.hi.push(p + 1);
        }
    }
    (taps, conds)
}

/// The conditions on axes of which the tile holds every position of every phase: where it is written out, each of its multiply-adds is known to have a pixel
/// or not. Those without are left out.
fn static_guards(conds: &[Cond], taps: &[Loop], loops: &[Loop], plan: &Plan, func: &Func) -> Vec<Cond> {
    let whole = |role: &str, axis: &str| {
        let held = plan.extent_on(role, axis) as i64;
        loops.iter().find(|l| l.var == on(role, axis)).map_or(held == 1, |l| l.const_range() == Some((0, held)))
    };
    let x = plan.vector.as_str().strip_prefix(['q', 'r']);
    let of = |axis: &&str| {
        let t = on("t", axis);
        let tests = |c: &&Cond| matches!(c, Cond::Range { e, .. } if e.uses_var(t.as_str()));
        let written = x != Some(*axis) && taps.iter().any(|l| l.var == t && l.const_range().is_some());
        conds.iter().find(tests).filter(|_| written && whole("q", axis) && whole("r", axis)).cloned()
    };
    super::nest::axes(func).iter().filter_map(of).collect()
}

/// Conditions that no side of the panel takes care of.
fn leftover(conds: &[Cond], sides: &[Side]) -> Vec<Cond> {
    conds.iter().filter(|c| !sides.iter().any(|s| s.guard == **c)).cloned().collect()
}

/// What surrounds the load of the input.
struct Around<'a> {
    func: &'a Func,
    plan: &'a Plan,
    loops: &'a [Loop],
    taps: &'a [Loop],
    conds: &'a [Cond],
}

impl Around<'_> {
    /// The panel along one axis, whose input index is `pixel`.
    fn side(&self, axis: &'static str, a: usize, pixel: &Affine) -> Result<Side> {
        let Around { func, plan, loops, taps, conds } = *self;
        let q = on("q", axis);
        let block = part(&q, "b");
        let at = [&q, &block].into_iter().find(|v| pixel.uses_var(v.as_str()));
        // A position is one pixel wide, or as many as windows interleave.
        let wide = at.map_or(1, |v| pixel.coef_of_var(v.as_str()));
        let at = at.map_or(Affine::from(0), |v| Affine::var(v) * wide);
        let t = taps.iter().find(|t| t.var == on("t", axis));
        // The panel holds every pixel that a position of the block may read through any phase and tap.
        let last_tap = t.map_or(1, |t| extreme(&t.hi[0], func, phases(loops), true).as_const().unwrap_or(1)).max(1);
        let reach = |largest| {
            let range = |v: &str| if v.starts_with('t') { Some((0, last_tap)) } else { phases(loops)(v) };
            (extreme(pixel, func, range, largest) - at.clone()).as_const()
        };
        let (Some(first), Some(last)) = (reach(false), reach(true)) else {
            return Err(super::unexpected("panel", &format!("pixels on axis {axis} a constant distance from the position")));
        };
        let Positions { base, extent: positions } = Positions::of(func, loops, axis)?;
        let tile = plan.extent(q.as_str()) as i64;
        let window = plan.winograd.as_ref().and_then(|w| w.outputs.get(a)).map_or(1, |m| *m as i64);
        let whole = tile.max(window);
        let extent = (up(positions, whole) - 1) * wide + 1 + last - first;
        let on_axis = |e: &Affine| e.uses_var(q.as_str()) || e.uses_var(block.as_str());
        let guard = conds.iter().find(|c| matches!(c, Cond::Range { e, .. } if on_axis(e))).cloned();
        let x = func.buffer(INPUT);
        let guard = guard.unwrap_or(Cond::Range { lo: 0.into(), e: pixel.clone(), hi: x.dims[a + 2].clone() });
        Ok(Side { axis, origin: base * wide + first, extent, guard })
    }
}

/// The positions of one block along one axis: `base <= q < base + extent`, over all phases.
pub struct Positions {
    /// The first.
    pub base: Affine,
    /// How many there are.
    pub extent: i64,
}

impl Positions {
    /// Reads them from the loops around the reduction.
    pub fn of(func: &Func, loops: &[Loop], axis: &str) -> Result<Self> {
        let q = on("q", axis);
        let block = part(&q, "b");
        if let Some(b) = loops.iter().find(|b| b.var == block) {
            return Ok(Positions { base: Affine::var(b.var), extent: largest(func, b) });
        }
        // An axis with a single position has no loop left.
        let Some(l) = loops.iter().find(|l| l.var == q) else { return Ok(Positions { base: 0.into(), extent: 1 }) };
        let base = extreme(&l.lo[0], func, phases(loops), false);
        let extent = (extreme(&l.hi[0], func, phases(loops), true) - base.clone()).as_const();
        let extent = extent.ok_or_else(|| {
            let message = format!("axis {axis} has a run-time extent: scratch memory needs a block size there, 0 is the whole axis");
            Error::new(Kind::Options, message)
        })?;
        Ok(Positions { base, extent })
    }
}

fn find_load(body: &[Stmt], buffer: &str) -> Option<Access> {
    let mut found = None;
    for s in body {
        s.visit(&mut |s| {
            let values: &[Value] = match s {
                Stmt::Set { value, .. } => std::slice::from_ref(value),
                Stmt::Store { parts, .. } => parts,
                _ => &[],
            };
            values.iter().for_each(|v| {
                v.visit(&mut |v| {
                    if let Value::Load(a) = v
                        && a.buffer == buffer
                    {
                        found = Some(a.clone());
                    }
                })
            });
        });
    }
    found
}

/// The copy: zero, or the pixel where there is one. Loops follow the panel's order in memory.
fn fill(access: &Access, sides: &[Side], channels: i64, order: &[usize]) -> Vec<Stmt> {
    let var = |s: &Side| on("p", s.axis);
    let mut from = access.clone();
    for (s, index) in sides.iter().zip(&mut from.index[2..]) {
        *index = s.origin.clone() + Affine::var(var(s));
    }
    let panel_index: Vec<Affine> = std::iter::once(Affine::var("ic")).chain(sides.iter().map(|s| Affine::var(var(s)))).collect();
    let conds = sides.iter().zip(&from.index[2..]).map(|(s, e)| match &s.guard {
        Cond::Range { lo, hi, .. } => Cond::Range { lo: lo.clone(), e: e.clone(), hi: hi.clone() },
        Cond::Multiple { .. } => unreachable!("a side's guard is a range"),
    });
    let conds: Vec<Cond> = conds.collect();
    let body = vec![
        Stmt::set(COPY, Value::Const(0.0)),
        Stmt::When { conds, body: vec![Stmt::set(COPY, Value::Load(from))] },
        Stmt::store(PANEL, panel_index, Value::reg(COPY)),
    ];
    let extents = std::iter::once(("ic".into(), channels)).chain(sides.iter().map(|s| (var(s), s.extent)));
    let loops: Vec<Loop> = extents.map(|(v, e): (crate::ir::Name, i64)| Loop::new(v, e, Vec::new())).collect();
    let ordered: Vec<Loop> = order.iter().map(|d| loops[*d].clone()).collect();
    wrap(&ordered, body)
}

/// Loads of the input become loads of the panel, whose channels the variable `channel` counts.
fn redirect(mut body: Vec<Stmt>, sides: &[Side], channel: &str) -> Vec<Stmt> {
    fn value(v: Value, sides: &[Side], channel: &str) -> Value {
        v.map(&mut |v| match v {
            Value::Load(a) if a.buffer == INPUT => {
                let at = sides.iter().zip(&a.index[2..]).map(|(s, e)| e.clone() - s.origin.clone());
                // The channel within the group, or the group itself.
                let at_all = a.index[1].uses_var(channel);
                let channel = if at_all { Affine::var(channel) } else { 0.into() };
                Value::load(PANEL, std::iter::once(channel).chain(at).collect())
            }
            v => v,
        })
    }
    for s in &mut body {
        match s {
            Stmt::Set { value: v, .. } => *v = value(std::mem::replace(v, Value::Const(0.0)), sides, channel),
            Stmt::Store { parts, .. } => parts.iter_mut().for_each(|v| *v = value(std::mem::replace(v, Value::Const(0.0)), sides, channel)),
            _ => {}
        }
        if let Some(inner) = s.body_mut() {
            *inner = redirect(std::mem::take(inner), sides, channel);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn channels_lie_apart_at_little_cost() {
        let of = |mut dims: Vec<i64>, bytes| {
            apart(&mut dims, bytes);
            dims
        };
        assert_eq!(of(vec![128, 2, 200], 4), [128, 2, 200], "26 lines");
        assert_eq!(of(vec![128, 2, 256], 4), [128, 2, 272], "a line more, since a row would be half as much again");
        assert_eq!(of(vec![128, 8, 32], 4), [128, 9, 32], "a row more, since a line would be half as much again");
        assert_eq!(of(vec![2, 16, 256], 4), [2, 17, 272], "either alone leaves a multiple of sixteen lines");
        assert_eq!(of(vec![2, 16, 3, 8], 8), [2, 17, 3, 8], "planes count as rows do");
        assert_eq!(of(vec![2, 128], 8), [2, 136]);
    }
}
