//! Pass `phases`: the polyphase decomposition. The multiplications by inserted zeros go away.
//!
//! *Needs* a naive nest in gather form (a scatter nest has no congruence and passes unchanged). *Leaves* no division and no
//! congruence: on each axis the output loop becomes a loop over phases `r` and one over positions `q`, the tap loop becomes a loop
//! over the taps `t` of the phase, and the guard becomes a range.
//!
//! With an origin `c`, write `o = s*q + r - c`. Output `o` is hit by tap `k` of pixel `i` when `o + p = s*i + d*k`. With `g = gcd(s, d)` the taps that
//! hit phase `r` are `k0[r]`, `k0[r] + s/g`, …, and tap `t` of them reads pixel `i = q + i0[r] - (d/g)*t`. A residue that nothing hits is a phase
//! without taps. The plan chooses the origin:
//! - `c = 0` counts from the first output: every phase starts at `q = 0`, and neighbouring phases store side by side from the edge on;
//! - `c = p` counts from the uncropped edge: without dilation `k0[r] = r` and `i0[r] = 0`, so every phase reads *the same window*,
//!   and neighbouring phases have neighbouring taps, which is what phases along the lanes need, and windows, unless they leave the pixels along x as they are.
//!
//! ```text
//! for o in 0..O:                                  for r in 0..s, q in lo[r]..I + hi[r]:            o = s*q + r - c
//!   for k in 0..K:                                  for t in 0..T[r]:                              k = k0[r] + (s/g)*t
//!     when (o + p - d*k) % s == 0                     when 0 <= q + i0[r] - (d/g)*t < I:
//!      and 0 <= (o + p - d*k)/s < I: …                  …
//! ```
//!
//! With windows (pass `winograd`) and a dilation that the stride divides, `e = d/s` windows interleave: a position then is `e` pixels wide and has `e*s` phases,
//! so that taps of one phase read neighbouring positions: `o = e*s*q + r - c` and `i = e*(q - t) + i0[r]`.
//!
//! Tables that turn out to be constant or arithmetic, as most are without dilation, are written as such by `simplify`.

use super::nest::{Congruence, Nest, congruence, peel, wrap};
use crate::ir::names::on;
use crate::ir::{Affine, Atom, Cond, Count, CountOf, Func, Loop, Stmt, Table};
use crate::plan::{Plan, Winograd, interleaved_by};
use crate::{Error, Kind, Result};

/// Replaces the congruence guards by phases.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    if super::form::is_scatter(func) {
        return Ok(None);
    }
    let nest = Nest::of(func);
    let axes = super::nest::axes(func);
    let (outer, outputs) = nest.loops.split_at(nest.loops.len() - axes.len());
    let Some(at) = nest.body.iter().position(|s| matches!(s, Stmt::For(_))) else {
        return Err(super::unexpected("phases", "tap loops"));
    };
    let (tap_loops, guarded) = peel(&nest.body[at..=at]);
    let [Stmt::When { body, .. }] = guarded else {
        return Err(super::unexpected("phases", "a guarded body inside the tap loops"));
    };

    let mut axis_phases = Vec::new();
    for (axis, o) in axes.iter().zip(outputs) {
        let k = tap_loops.iter().find(|l| l.var == on("k", axis));
        let taps = k.and_then(Loop::const_range).ok_or_else(|| super::unexpected("phases", "a constant number of taps"))?;
        axis_phases.push(AxisPhases::new(axis, taps.1, &o.hi[0], congruence(guarded, axis)?, plan)?);
    }
    let rewrite = |stmts: &[Stmt]| -> Vec<Stmt> {
        let mut stmts = stmts.to_vec();
        for s in &mut stmts {
            s.map_affine(&mut |a| axis_phases.iter().fold(a.clone(), |a, p| p.rewrite(&a)));
        }
        stmts
    };
    let conds = axis_phases.iter().map(AxisPhases::guard).collect();
    let taps: Vec<Loop> = tap_loops.iter().zip(&axis_phases).map(|(_, p)| p.tap_loop()).collect();
    let inner = wrap(&taps, vec![Stmt::When { conds, body: rewrite(body) }]);
    let exist: Vec<Cond> = axis_phases.iter().filter_map(AxisPhases::exists).collect();
    let store = Stmt::when(exist, rewrite(&nest.body[at + 1..]));
    let body = [rewrite(&nest.body[..at]), inner, store].concat();
    let loops = [
        outer.to_vec(),
        axis_phases.iter().map(AxisPhases::phase_loop).collect(),
        axis_phases.iter().map(AxisPhases::position_loop).collect(),
    ]
    .concat();
    let mut out = func.with_run(wrap(&loops, body));
    out.counts.extend(axis_phases.iter().filter_map(|p| p.count.clone()));
    out.tables.extend(axis_phases.into_iter().flat_map(|p| p.tables));
    Ok(Some(out))
}

/// The phases of one axis: tables per phase, and the loops that replace `o` and `k`.
struct AxisPhases {
    axis: &'static str,
    c: Congruence,
    /// What is added to an output before it is divided by the stride.
    origin: i64,
    /// `s / gcd(s, d)`: distance of the taps of one phase.
    tap_step: i64,
    /// `d / gcd(s, d)`: distance of the inputs they read.
    pixel_step: i64,
    /// Pixels from one position to the next: 1, or as many windows as interleave.
    wide: i64,
    /// How many positions there are, if that is known at run time only.
    count: Option<Count>,
    /// Output extent.
    output: Affine,
    tables: Vec<Table>,
}

impl AxisPhases {
    fn new(axis: &'static str, kernel: i64, output: &Affine, c: Congruence, plan: &Plan) -> Result<Self> {
        let (s, d) = (c.stride, c.dilation);
        let g = gcd(s, d);
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        let interleaved = interleaved_by(size(kernel), size(s), size(d)).unwrap_or(1) as i64;
        let wide = if plan.winograd.is_some() { interleaved } else { 1 };
        // Phases share no window where taps are summed.
        let summed = interleaved == 1 && axis == "x" && plan.winograd.as_ref().is_some_and(Winograd::leaves_x);
        let origin = if plan.aligned && !summed { c.pad } else { 0 };
        let span = s * wide;
        // The output extent is s * I + rest, by the formula of the operator.
        let rest = output.clone() - c.extent.clone() * s;
        let rest = rest.as_const().ok_or_else(|| {
            Error::new(Kind::Ir, format!("the output extent on axis {axis} is not the stride {s} times the input extent plus a constant"))
        })?;
        let ceil = |a: i64| (a + span - 1).div_euclid(span);
        // Positions are counted beyond those that every pixel brings: as many, or fewer if they are wide.
        let pixels = c.extent.as_const().unwrap_or(0);
        // Of an open extent, how many wide positions there are is a count; the last may have no output of every phase.
        let of = || CountOf::Units { extent: output.clone() + origin, unit: span };
        let count = (wide > 1 && c.extent.as_const().is_none()).then(|| Count { name: on("n.q", axis), of: of() });
        // The first tap that hits each phase: `d*k = r - c + p` modulo the stride.
        let mut first = vec![None; usize::try_from(s).unwrap_or(0)];
        for k in (0..kernel.min(s / g)).rev() {
            first[(d * k + origin - c.pad).rem_euclid(s) as usize] = Some(k);
        }
        let mut t = [const { Vec::new() }; 5];
        for r in 0..span {
            let at = r - origin + c.pad;
            let first = first[(r % s) as usize];
            let (k0, i0) = first.map_or((0, 0), |k: i64| (k, (at - d * k).div_euclid(s)));
            let taps = first.map_or(0, |k| (kernel - k + s / g - 1) / (s / g));
            let row = [k0, i0, taps, ceil(origin - r), ceil(s * pixels + rest + origin - r) - pixels];
            t.iter_mut().zip(row).for_each(|(t, v)| t.push(v));
        }
        let names = ["k0", "i0", "T", "lo", "hi"];
        let tables = names.iter().zip(t).map(|(n, values)| Table { name: on(&format!("{n}."), axis), values }).collect();
        Ok(AxisPhases { axis, c, origin, tap_step: s / g, pixel_step: d / g, wide, count, output: output.clone(), tables })
    }

    fn var(&self, role: &str) -> Affine {
        Affine::var(on(role, self.axis))
    }
    fn table(&self, name: &str) -> Affine {
        Affine::table(on(&format!("{name}."), self.axis), on("r", self.axis))
    }
    /// Outputs from one position to the next.
    fn span(&self) -> i64 {
        self.c.stride * self.wide
    }
    fn phase_loop(&self) -> Loop {
        Loop::new(on("r", self.axis), self.span(), Vec::new())
    }
    fn position_loop(&self) -> Loop {
        let end = self.c.extent.clone() + self.table("hi");
        let end = self.count.as_ref().map_or(end, |count| Affine::sym(count.name));
        let mut l = Loop::new(on("q", self.axis), end, Vec::new());
        l.lo = vec![self.table("lo")];
        l
    }
    fn tap_loop(&self) -> Loop {
        Loop::new(on("t", self.axis), self.table("T"), Vec::new())
    }
    /// The input pixel.
    fn pixel(&self) -> Affine {
        self.var("q") * self.wide + self.table("i0") - self.var("t") * self.pixel_step
    }
    /// Whether the output exists, if not every position has one.
    fn exists(&self) -> Option<Cond> {
        let o = self.rewrite(&Affine::var(on("o", self.axis)));
        self.count.as_ref().map(|_| Cond::Range { lo: 0.into(), e: o, hi: self.output.clone() })
    }
    fn guard(&self) -> Cond {
        Cond::Range { lo: 0.into(), e: self.pixel(), hi: self.c.extent.clone() }
    }
    /// `o` and `k` in terms of `r`, `q`, `t`; the upsampled position divided by the stride is the pixel.
    fn rewrite(&self, a: &Affine) -> Affine {
        let (o, k) = (on("o", self.axis), on("k", self.axis));
        if self.c.stride == 1 && a.coef_of_var(o.as_str()) == 1 && a.coef_of_var(k.as_str()) == -self.c.dilation {
            return a.clone() - Affine::var(o) + Affine::var(k) * self.c.dilation - self.c.pad + self.pixel();
        }
        a.map_atoms(&mut |atom| match atom {
            Atom::Div(e, _) if e.uses_var(o.as_str()) => Some(self.pixel()),
            Atom::Var(v) if *v == o => Some(self.var("q") * self.span() + self.var("r") - self.origin),
            Atom::Var(v) if *v == k => Some(self.table("k0") + self.var("t") * self.tap_step),
            _ => None,
        })
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
