//! The road from the naive nest to code generation: one table of passes, run in order.
//!
//! [`PASSES`] is the only list: dumps, `explain`, timings, documentation and tests are made from it. Each pass is one file and one public
//! function from a function and the plan to a new function; [`simplify`] cleans up after those that change indices, and the verifier runs after each.

pub mod activation;
pub mod ahead;
pub mod block;
mod copies;
pub mod form;
pub mod lower;
pub mod naive;
pub mod nest;
mod pack;
pub mod panel;
pub mod phases;
pub mod reduction;
pub mod region;
pub mod simplify;
pub mod tile;
pub mod toom_cook;
pub mod vector;
pub mod winograd;

use crate::ir::{Func, Stage};
use crate::plan::Plan;
use crate::problem::Deconv;
use crate::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// One pass.
pub struct Pass {
    /// Its name, as `dump-ir --after` takes it.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The stage that it leaves a function in, at least.
    pub stage: Stage,
    /// Whether it changes indices, bounds or conditions, so that `simplify` follows it.
    pub indices: bool,
    /// The pass itself: the new function, or `None` where it has nothing to do.
    pub run: fn(&Func, &Plan) -> Result<Option<Func>>,
}

impl Pass {
    /// Runs the pass, the clean-up after it and the verifier. The function, and whether anything but its stage is another.
    ///
    /// # Errors
    /// What the pass refuses; what the verifier finds is a bug of the pass.
    pub fn apply(&self, before: Func, plan: &Plan) -> Result<(Func, bool)> {
        let after = (self.run)(&before, plan).map_err(|e| e.context(format!("pass {}", self.name)))?;
        let stage = before.stage;
        // Before `phases` every loop is still there, so that passes find them where the problem puts them.
        let simplify = |func: Func| if func.stage >= Stage::Phases && self.indices { simplify::run(func) } else { func };
        let staged = |func: Func| Func { stage: func.stage.max(self.stage), ..func };
        let (func, changed) = match after {
            // What is left as it is has been simplified before, unless stage `phases` is new.
            None if stage >= Stage::Phases || self.stage < Stage::Phases => (staged(before), false),
            after => {
                let func = simplify(staged(after.unwrap_or_else(|| before.clone())));
                let changed = !before.same_but_stage(&func);
                (func, changed)
            }
        };
        // What has been verified as it is need not be again.
        if changed || func.stage != stage {
            check(self.name, &func)?;
        }
        Ok((func, changed))
    }
}

/// Every pass, in order.
pub const PASSES: &[Pass] = &[
    Pass { name: "form", summary: "per output (gather) or per input pixel (scatter)", stage: Stage::Form, indices: true, run: form::run },
    Pass {
        name: "phases",
        summary: "one nest per residue: no multiplication by inserted zeros is left",
        stage: Stage::Phases,
        indices: true,
        run: phases::run,
    },
    Pass { name: "block", summary: "cache blocks, and what threads share out", stage: Stage::Panel, indices: true, run: block::run },
    Pass {
        name: "panel",
        summary: "input staged with a halo of zeros: no guard is left inside",
        stage: Stage::Panel,
        indices: true,
        run: panel::run,
    },
    Pass {
        name: "winograd",
        summary: "windows and weights transformed: fewer multiplications",
        stage: Stage::Panel,
        indices: true,
        run: winograd::run,
    },
    Pass {
        name: "reduction",
        summary: "input channels summed in parts: weights come from memory once",
        stage: Stage::Panel,
        indices: true,
        run: reduction::run,
    },
    Pass {
        name: "tile",
        summary: "register tile; weights packed in the order they are read",
        stage: Stage::Tile,
        indices: true,
        run: tile::run,
    },
    Pass {
        name: "vector",
        summary: "one tile axis becomes lanes; tails become clips",
        stage: Stage::Vector,
        indices: true,
        run: vector::run,
    },
    Pass {
        name: "region",
        summary: "tiles take in the loops around them; copies become tiles",
        stage: Stage::Vector,
        indices: false,
        run: region::run,
    },
    Pass { name: "ahead", summary: "tiles ask for the input of the next block", stage: Stage::Vector, indices: false, run: ahead::run },
    Pass { name: "lower", summary: "only operations that the target has", stage: Stage::Lowered, indices: false, run: lower::run },
];

/// The name under which the naive nest, before any pass, is dumped.
pub const NAIVE: &str = "naive";

/// A function as it stands after one pass.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The pass, or [`NAIVE`].
    pub pass: &'static str,
    /// The function after it.
    pub func: Func,
    /// Whether the pass changed anything but the stage.
    pub changed: bool,
    /// How long pass and clean-up took.
    pub time: Duration,
}

/// Runs every pass on a problem: the function that code generation takes.
///
/// # Errors
/// What a pass refuses.
pub fn lower_problem(problem: &Deconv, plan: &Plan) -> Result<Func> {
    let naive = naive(problem)?;
    PASSES.iter().try_fold(naive.func, |func, pass| Ok(pass.apply(func, plan)?.0))
}

/// The same, with the function as it stands after each pass; the last snapshot is what code generation takes.
///
/// # Errors
/// What a pass refuses.
pub fn snapshots(problem: &Deconv, plan: &Plan) -> Result<Vec<Snapshot>> {
    let mut all = vec![naive(problem)?];
    for pass in PASSES {
        let before = all[all.len() - 1].func.clone();
        let start = Instant::now();
        let (func, changed) = pass.apply(before, plan)?;
        all.push(Snapshot { pass: pass.name, func, changed, time: start.elapsed() });
    }
    Ok(all)
}

fn naive(problem: &Deconv) -> Result<Snapshot> {
    let start = Instant::now();
    let func = naive::build(problem);
    check(NAIVE, &func)?;
    Ok(Snapshot { pass: NAIVE, func, changed: true, time: start.elapsed() })
}

/// A pass that leaves something illegal is a bug of that pass.
fn check(pass: &str, func: &Func) -> Result<()> {
    func.verify().map_err(|e| e.context(format!("after {pass}")))
}

fn unexpected(pass: &str, wanted: &str) -> Error {
    Error::new(Kind::Ir, format!("{pass} expects {wanted}"))
}
