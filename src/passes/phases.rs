//! Pass `phases`: the polyphase decomposition. The multiplications by inserted zeros go away.
//!
//! *Needs* a naive nest in gather form (a scatter nest has no congruence and passes unchanged). *Leaves* no division and no
//! congruence: on each axis the output loop becomes a loop over phases `r` and one over positions `q`, the tap loop becomes a loop
//! over the taps `t` of the phase, and the guard becomes a range.
//!
//! Counted from the uncropped edge, output `u = o + p` is hit by tap `k` of pixel `i` when `u = s*i + d*k`. With `g = gcd(s, d)` only
//! residues divisible by `g` occur. Write `k = k0 + (s/g)*t` with `k0 < s/g`: then `u = s*q + d*k0` with `q = i + (d/g)*t`, and each `u`
//! divisible by `g` has exactly one such `(k0, q)`. So phases are numbered by their first tap, and *every phase reads the
//! same window* `i = q - (d/g)*t` of the input. Residues that nothing hits are phases without taps.
//!
//! ```text
//! for o in 0..O:                                  for r in 0..s, q in lo[r]..I + hi[r]:            o = s*q + off[r] - p
//!   for k in 0..K:                                  for t in 0..T[r]:                              k = k0[r] + (s/g)*t
//!     when (o + p - d*k) % s == 0                     when 0 <= q - (d/g)*t < I:
//!      and 0 <= (o + p - d*k)/s < I: …                  …
//! ```
//!
//! Tables that turn out to be constant or arithmetic, as they are without dilation, are written as such by `simplify`.

use super::nest::{Congruence, Nest, congruence, peel, wrap};
use crate::ir::names::on;
use crate::ir::{Affine, Atom, Cond, Func, Loop, Stage, Stmt, Table};
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// Replaces the congruence guards by phases.
pub fn run(func: &Func, _plan: &Plan) -> Result<Func> {
    let mut out = func.clone();
    out.stage = Stage::Phases;
    if super::form::is_scatter(func) {
        return Ok(out);
    }
    let nest = Nest::of(func)?;
    let axes = nest.axes();
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
        axis_phases.push(AxisPhases::new(axis, taps.1, &o.hi[0], congruence(guarded, axis)?)?);
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
    let body = [rewrite(&nest.body[..at]), inner, rewrite(&nest.body[at + 1..])].concat();
    let loops = [
        outer.to_vec(),
        axis_phases.iter().map(AxisPhases::phase_loop).collect(),
        axis_phases.iter().map(AxisPhases::position_loop).collect(),
    ]
    .concat();
    out.run = wrap(&loops, body);
    out.tables.extend(axis_phases.into_iter().flat_map(|p| p.tables));
    Ok(out)
}

/// The phases of one axis: tables per phase, and the loops that replace `o` and `k`.
struct AxisPhases {
    axis: &'static str,
    c: Congruence,
    /// `s / gcd(s, d)`: distance of the taps of one phase.
    tap_step: i64,
    /// `d / gcd(s, d)`: distance of the inputs they read.
    pixel_step: i64,
    tables: Vec<Table>,
}

impl AxisPhases {
    fn new(axis: &'static str, kernel: i64, output: &Affine, c: Congruence) -> Result<Self> {
        let (s, d) = (c.stride, c.dilation);
        let g = gcd(s, d);
        let tap_step = s / g;
        // The output extent is s * I + rest, by the formula of the operator.
        let rest = output.clone() - c.extent.clone() * s;
        let rest = rest.as_const().ok_or_else(|| {
            Error::new(Kind::Ir, format!("the output extent on axis {axis} is not the stride {s} times the input extent plus a constant"))
        })?;
        let ceil = |a: i64| (a + s - 1).div_euclid(s);
        let mut t = [const { Vec::new() }; 5];
        for r in 0..s {
            // The first s/g phases have taps (if the kernel reaches them); the others lie between, at residues that nothing hits.
            let (first, shift) = (r % tap_step, r / tap_step);
            let off = d * first + shift;
            let taps = if shift == 0 { (kernel - first + tap_step - 1).div_euclid(tap_step).max(0) } else { 0 };
            let row = [off, first, taps, ceil(c.pad - off), ceil(rest + c.pad - off)];
            t.iter_mut().zip(row).for_each(|(t, v)| t.push(v));
        }
        let names = ["off", "k0", "T", "lo", "hi"];
        let tables = names.iter().zip(t).map(|(n, values)| Table { name: on(&format!("{n}."), axis), values }).collect();
        Ok(AxisPhases { axis, c, tap_step, pixel_step: d / g, tables })
    }

    fn var(&self, role: &str) -> Affine {
        Affine::var(on(role, self.axis))
    }
    fn table(&self, name: &str) -> Affine {
        Affine::table(on(&format!("{name}."), self.axis), on("r", self.axis))
    }
    fn phase_loop(&self) -> Loop {
        Loop::new(on("r", self.axis), self.c.stride, Vec::new())
    }
    fn position_loop(&self) -> Loop {
        let mut l = Loop::new(on("q", self.axis), self.c.extent.clone() + self.table("hi"), Vec::new());
        l.lo = vec![self.table("lo")];
        l
    }
    fn tap_loop(&self) -> Loop {
        Loop::new(on("t", self.axis), self.table("T"), Vec::new())
    }
    /// The input pixel, the same window for every phase.
    fn pixel(&self) -> Affine {
        self.var("q") - self.var("t") * self.pixel_step
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
            Atom::Var(v) if *v == o => Some(self.var("q") * self.c.stride + self.table("off") - self.c.pad),
            Atom::Var(v) if *v == k => Some(self.table("k0") + self.var("t") * self.tap_step),
            _ => None,
        })
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
