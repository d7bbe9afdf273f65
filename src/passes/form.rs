//! Pass `form`: per output (gather) or per input pixel (scatter).
//!
//! *Needs* the naive nest. *Leaves* it unchanged for gather. For scatter it solves the congruence for the output,
//! `o = s*i - p + d*k`, so that input pixels become the loops and the guard is only the crop:
//!
//! ```text
//! for o: { acc = 0                                 for o: y[o] = 0
//!   for k: when (o+p-d*k) % s == 0 and …           for i, k: when 0 <= s*i - p + d*k < O:
//!     for ic: acc = fma(x[(o+p-d*k)/s], w, acc)      patch = 0; for ic: patch = fma(x[i], w, patch)
//!   y[o] = relu(acc + bias) }                        y[s*i - p + d*k] = y[s*i - p + d*k] + patch
//!                                                  for o: y[o] = relu(y[o] + bias)
//! ```
//!
//! Registers that live across the taps move to memory: `acc` to the output itself, the hit count of
//! mean and max merges to a scratch plane.

use super::naive::HITS;
use super::nest::{Nest, wrap};
use crate::Result;
use crate::ir::names::{ACC, OUTPUT, on};
use crate::ir::{Access, Affine, Atom, BinOp, Buffer, BufferKind, Cond, Func, Loop, Name, Reg, Stmt, Value};
use crate::plan::{Form, Plan};

const PATCH: &str = super::naive::PATCH;

/// Rewrites a naive nest into the plan's form.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    if plan.form == Form::Gather {
        return Ok(None);
    }
    let mut out = func.clone();
    scatter(&mut out)?;
    Ok(Some(out))
}

fn scatter(func: &mut Func) -> Result<()> {
    let nest = Nest::of(func);
    let axes = super::nest::axes(func);
    let (outer, outputs) = nest.loops.split_at(nest.loops.len() - axes.len());
    let [init @ .., taps, Stmt::Store { to, parts, .. }] = &nest.body[..] else {
        return Err(super::unexpected("form", "initial values, the tap loops and one store"));
    };
    let (tap_loops, guarded) = super::nest::peel(std::slice::from_ref(taps));
    let [Stmt::When { body, .. }] = guarded else {
        return Err(super::unexpected("form", "a guarded body inside the tap loops"));
    };

    // Where each axis' output lies for input pixel i and tap k, and how many inputs there are.
    let mut forward = Vec::new();
    let mut pixels = Vec::new();
    for (axis, o) in axes.iter().zip(outputs) {
        let g = super::nest::congruence(guarded, axis)?;
        let at = Affine::var(on("i", axis)) * g.stride - g.pad + Affine::var(on("k", axis)) * g.dilation;
        forward.push((o.var, on("i", axis), at, o.hi[0].clone()));
        pixels.push((on("i", axis), g.extent));
    }
    let solve = |a: &Affine| {
        // Stride 1 has no division: o + p - d*k solves to i by itself.
        a.map_atoms(&mut |atom| match atom {
            Atom::Div(e, _) => forward.iter().find(|f| e.coef_of_var(f.0.as_str()) != 0).map(|f| Affine::var(f.1)),
            Atom::Var(v) => forward.iter().find(|f| f.0 == *v).map(|f| f.2.clone()),
            _ => None,
        })
    };

    let hits = init.iter().any(|s| matches!(s, Stmt::Set { reg, .. } if *reg == HITS));
    let plane: Vec<Affine> = outputs.iter().map(|o| Affine::var(o.var)).collect();
    if hits {
        func.buffers.push(Buffer {
            name: HITS.into(),
            kind: BufferKind::Scratch,
            elem: func.elem,
            dims: outputs.iter().map(|o| o.hi[0].clone()).collect(),
            order: (0..axes.len()).collect(),
        });
    }
    let home = |reg: &str| match reg {
        ACC => Some(to.clone()),
        HITS if hits => Some(Access::at(HITS, plane.clone())),
        _ => None,
    };
    let spill = |s: &Stmt| -> Stmt { to_memory(s, &home) };

    let clear = wrap(outputs, init.iter().map(spill).collect());
    let mut landing: Vec<Stmt> = if hits { body.iter().map(spill).collect() } else { privatise(body, &home) };
    landing.iter_mut().for_each(|s| s.map_affine(&mut |a| solve(a)));
    let conds = forward.iter().map(|f| Cond::Range { lo: 0.into(), e: f.2.clone(), hi: f.3.clone() }).collect();
    let taps = wrap(&tap_loops, vec![Stmt::When { conds, body: landing }]);
    let walk: Vec<Loop> = pixels.into_iter().map(|(var, hi)| Loop::new(var, hi, Vec::new())).collect();
    let finish = Stmt::Store { to: to.clone(), parts: parts.iter().map(|v| reload(v, &home)).collect(), stream: false };
    let mut body = clear;
    body.extend(wrap(&walk, taps));
    body.extend(wrap(outputs, vec![finish]));
    func.run = wrap(outer, body);
    func.regs.retain(|r| r.name == PATCH);
    if func.regs.is_empty() {
        func.regs.push(Reg { name: PATCH.into(), lanes: 1, dims: Vec::new() });
    }
    func.name = Name::from(format!("{}_scatter", func.name));
    Ok(())
}

/// A sum that ran on in `acc` becomes a patch of its own that is then added to the output.
fn privatise(body: &[Stmt], home: &impl Fn(&str) -> Option<Access>) -> Vec<Stmt> {
    let to = home(ACC).expect("acc has a home in memory");
    let mut out = vec![Stmt::set(PATCH, Value::Const(0.0))];
    out.extend(body.iter().cloned().map(|s| rename(s, ACC, PATCH)));
    let sum = Value::bin(BinOp::Add, Value::Load(to.clone()), Value::reg(PATCH));
    out.push(Stmt::Store { to, parts: vec![sum], stream: false });
    out
}

fn rename(mut s: Stmt, from: &str, to: &str) -> Stmt {
    if let Stmt::Set { reg, value, .. } = &mut s {
        if *reg == from {
            *reg = to.into();
        }
        let v = std::mem::replace(value, Value::Const(0.0));
        *value = v.map(&mut |v| match v {
            Value::Reg(r, i) if r == from => Value::Reg(to.into(), i),
            v => v,
        });
    }
    if let Some(body) = s.body_mut() {
        let old = std::mem::take(body);
        *body = old.into_iter().map(|s| rename(s, from, to)).collect();
    }
    s
}

/// The statement with registers that live in memory read from and written to there.
fn to_memory(s: &Stmt, home: &impl Fn(&str) -> Option<Access>) -> Stmt {
    match s {
        Stmt::Set { reg, index, value } => match home(reg.as_str()) {
            Some(to) => Stmt::Store { to, parts: vec![reload(value, home)], stream: false },
            None => Stmt::Set { reg: *reg, index: index.clone(), value: reload(value, home) },
        },
        other => {
            let mut s = other.clone();
            if let Some(body) = s.body_mut() {
                let old = std::mem::take(body);
                *body = old.iter().map(|s| to_memory(s, home)).collect();
            }
            s
        }
    }
}

fn reload(v: &Value, home: &impl Fn(&str) -> Option<Access>) -> Value {
    v.clone().map(&mut |v| match &v {
        Value::Reg(r, _) => home(r.as_str()).map_or(v, Value::Load),
        _ => v,
    })
}

/// Whether a function is in scatter form: patches are added to the output one after the other.
pub fn is_scatter(func: &Func) -> bool {
    let mut stores = 0;
    func.run.iter().for_each(|s| s.visit(&mut |s| stores += usize::from(matches!(s, Stmt::Store { to, .. } if to.buffer == OUTPUT))));
    stores > 1
}
