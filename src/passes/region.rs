//! Pass `region`: tiles take in the loops around them.
//!
//! *Needs* a vectorised nest. *Leaves* the same statements in the same order; what changes is how much of the nest one call of a tile covers:
//! - a sequential loop (or condition) that holds nothing but one tile moves inside it, so that a call covers a whole row block rather than one register tile;
//! - a nest without a tile, such as the copy that fills a panel, becomes a tile of its own, and runs at the full width of the machine.
//!
//! ```text
//! for ry in 0..2, qy in 0..8, qx.b in 0..64 step 32:        tile qx-6x2x32:
//!   tile qx-6x2x32: …                                  ⇒      for ry in 0..2, qy in 0..8, qx.b in 0..64 step 32: …
//! ```
//!
//! Parallel loops stay outside: they are what threads share out.

use crate::Result;
use crate::ir::{Func, Loop, LoopKind, Name, Stmt};
use crate::plan::Plan;

/// Grows every tile outwards.
pub fn run(func: &Func, plan: &Plan) -> Result<Func> {
    let mut out = func.clone();
    if plan.lanes > 1 {
        out.run = list(&func.run);
    }
    Ok(out)
}

fn list(list: &[Stmt]) -> Vec<Stmt> {
    list.iter().map(stmt).collect()
}

fn stmt(s: &Stmt) -> Stmt {
    match s {
        Stmt::For(l) if l.kind == LoopKind::Par => Stmt::For(Loop { body: self::list(&l.body), ..l.clone() }),
        Stmt::For(l) if !holds_tile(s) => Stmt::Tile { name: copy_name(&l.var), body: vec![s.clone()] },
        Stmt::For(l) => match &self::list(&l.body)[..] {
            [Stmt::Tile { name, body }] => {
                Stmt::Tile { name: name.clone(), body: vec![Stmt::For(Loop { body: body.clone(), ..l.clone() })] }
            }
            body => Stmt::For(Loop { body: body.to_vec(), ..l.clone() }),
        },
        Stmt::When { conds, body } => match &self::list(body)[..] {
            [Stmt::Tile { name, body }] => {
                Stmt::Tile { name: name.clone(), body: vec![Stmt::When { conds: conds.clone(), body: body.clone() }] }
            }
            body => Stmt::When { conds: conds.clone(), body: body.to_vec() },
        },
        Stmt::Tile { .. } | Stmt::Set { .. } | Stmt::Store { .. } => s.clone(),
    }
}

fn copy_name(var: &Name) -> Name {
    format!("copy-{var}").into()
}

fn holds_tile(s: &Stmt) -> bool {
    let mut found = false;
    s.visit(&mut |s| found |= matches!(s, Stmt::Tile { .. }));
    found
}
