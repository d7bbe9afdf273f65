//! Pass `region`: tiles take in the loops around them.
//!
//! *Needs* a vectorised nest. *Leaves* the same statements in the same order; what changes is how much of the nest one call of a tile covers:
//! - a sequential loop (or condition) that holds nothing but one tile moves inside it, so that a call covers a whole row block rather than one register tile;
//!   a large tile and the small one for what it leaves over become one on the way;
//! - a nest without a tile whose registers nothing else uses, such as the copy that fills a panel, becomes a tile of its own, and runs at the full
//!   width of the machine.
//!
//! ```text
//! for ry in 0..2, qy in 0..8, qx.b in 0..64 step 32:        tile qx-6x2x32:
//!   tile qx-6x2x32: …                                  ⇒      for ry in 0..2, qy in 0..8, qx.b in 0..64 step 32: …
//! ```
//!
//! Parallel loops stay outside: they are what threads share out.

use crate::Result;
use crate::ir::{Func, LoopKind, Name, Stmt, Value};
use crate::plan::Plan;
use rustc_hash::FxHashMap as HashMap;

/// Grows every tile outwards.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    if plan.lanes <= 1 {
        return Ok(None);
    }
    let all = mentions(func.run.iter().chain(&func.prepare));
    let mut out = func.with_run(list(&func.run, &all));
    out.prepare = list(&func.prepare, &all);
    Ok(Some(out))
}

type Mentions = HashMap<Name, usize>;

fn list(stmts: &[Stmt], all: &Mentions) -> Vec<Stmt> {
    stmts.iter().map(|s| stmt(s, all)).collect()
}

fn stmt(s: &Stmt, all: &Mentions) -> Stmt {
    match s {
        Stmt::For(l) if l.kind == LoopKind::Par => Stmt::For(l.around(list(&l.body, all))),
        Stmt::For(l) if !holds_tile(s) => match private(s, all) {
            true => Stmt::Tile { name: format!("copy-{}", l.var).into(), asks: None, body: vec![s.clone()] },
            false => s.clone(),
        },
        Stmt::For(l) => inside_tile(list(&l.body, all), |body| Stmt::For(l.around(body))),
        Stmt::When { conds, body } => inside_tile(list(body, all), |body| Stmt::When { conds: conds.clone(), body }),
        Stmt::Tile { .. } | Stmt::Set { .. } | Stmt::Store { .. } => s.clone(),
    }
}

/// Statements inside what `around` makes; if they are tiles of the same loops, one tile goes around that.
fn inside_tile(body: Vec<Stmt>, around: impl Fn(Vec<Stmt>) -> Stmt) -> Stmt {
    let name = |s: &Stmt| if let Stmt::Tile { name, .. } = s { Some(*name) } else { None };
    let Some(first) = body.first().and_then(name) else { return around(body) };
    // A large tile and the small one for what it leaves over run along the same loop, with which their names begin.
    let along = |name: &Name| name.as_str().split('-').next().map(str::to_string);
    let kin = |s: &Stmt| !first.as_str().starts_with("copy-") && name(s).is_some_and(|n| along(&n) == along(&first));
    if !body[1..].iter().all(kin) {
        return around(body);
    }
    let inside = body.into_iter().flat_map(|s| if let Stmt::Tile { body, .. } = s { body } else { vec![s] }).collect();
    Stmt::Tile { name: first, asks: None, body: vec![around(inside)] }
}

fn holds_tile(s: &Stmt) -> bool {
    let mut found = false;
    s.visit(&mut |s| found |= matches!(s, Stmt::Tile { .. }));
    found
}

/// Whether every register of the statement is mentioned nowhere else.
fn private(s: &Stmt, all: &Mentions) -> bool {
    mentions([s]).iter().all(|(reg, count)| all.get(reg) == Some(count))
}

/// How often each register is mentioned.
fn mentions<'a>(stmts: impl IntoIterator<Item = &'a Stmt>) -> Mentions {
    let mut out = Mentions::default();
    let mut mention = |reg: &Name| *out.entry(*reg).or_default() += 1;
    for s in stmts {
        s.visit(&mut |s| {
            let values = match s {
                Stmt::Set { reg, value, .. } => {
                    mention(reg);
                    std::slice::from_ref(value)
                }
                Stmt::Store { parts, .. } => &parts[..],
                _ => &[],
            };
            for v in values {
                v.visit(&mut |v| {
                    if let Value::Reg(reg, _) = v {
                        mention(reg);
                    }
                });
            }
        });
    }
    out
}
