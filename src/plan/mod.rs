//! The plan: every choice the compiler takes for one problem on one target, as data.
//!
//! | file | what it holds |
//! |---|---|
//! | `processor.rs` | processors: caches, units, and what data costs on its way |
//! | `machine.rs` | a processor at one level: what costs are computed from |
//! | `candidates.rs`, `candidates/` | the schedule space: every plan that is legal for a problem on a machine; its blocks |
//! | `cost.rs` | the cost model: cycles of a plan, by cause |
//! | `rounding.rs` | how far the results of a plan may lie from the exact ones |
//! | `windows.rs` | candidates with transformed windows, and their cost |
//! | `choose.rs` | the choice, with the candidates that it beat |
//! | `versions.rs` | open extents: a choice for each of a few sizes |
//! | `text.rs` | the plan as one line of text, printed and parsed |
//! | `tune.rs`, `tune/` | timing candidates, and the file that keeps the winners |

mod candidates;
mod choose;
mod cost;
mod machine;
mod processor;
mod rounding;
mod text;
pub mod tune;
mod versions;
mod windows;

pub use choose::{Choice, Rejected, choose, ranked};
pub use cost::Cost;
pub use machine::Machine;
pub use processor::{Processor, Rates};
pub use rounding::Rounding;
pub(crate) use rounding::interleaved_by;
pub use versions::{MOST_SIZES, Version, cheapest, main_size, packed_bytes, packs_alike, version_for, versions};

use crate::ir::Name;
use crate::{Error, Kind, Result, Short};

/// One number per spatial axis, outermost first.
pub type Sizes = Short<usize, 3>;

/// Per output (gather) or per input pixel (scatter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Each output sums over its taps; nothing is written twice.
    Gather,
    /// Each input pixel adds its patch to the output.
    Scatter,
}

impl Form {
    /// `gather` or `scatter`.
    pub fn name(self) -> &'static str {
        match self {
            Form::Gather => "gather",
            Form::Scatter => "scatter",
        }
    }
}

/// Direct sums, or fewer multiplications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Sums of products, in an order that no window changes.
    Direct,
    /// Toom-Cook (Winograd) transforms of windows.
    Winograd,
}

impl Algorithm {
    /// `direct` or `winograd`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
            Algorithm::Winograd => "winograd",
        }
    }

    /// The algorithm of that name.
    ///
    /// # Errors
    /// [`Kind::Options`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        let all = [Algorithm::Direct, Algorithm::Winograd];
        let found = all.into_iter().find(|a| a.name() == name);
        found.ok_or_else(|| Error::new(Kind::Options, format!("algorithm is `{}`; direct and winograd are legal", name.escape_debug())))
    }
}

/// One loop that is split for the register tile: `extent` consecutive iterations are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileAxis {
    /// The loop variable: `oc`, `qx`, `qy`, `rx`, `ry`, `kx`, `ix`, `qw` (windows) …
    pub var: Name,
    /// How many iterations (elements, not vectors) one tile holds.
    pub extent: usize,
}

/// Windows of a Toom-Cook (Winograd) algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Winograd {
    /// Outputs of each phase that one window gives, per spatial axis, outermost first.
    pub outputs: Sizes,
    /// Output channels whose products are held in scratch memory at a time.
    pub held: usize,
    /// Whether they are those of one phase along the axes before x whose phases share their windows: one phase is finished before the next begins.
    pub by_phase: bool,
}

impl Winograd {
    /// Whether windows have one output along the innermost of several axes: then nothing is transformed along it.
    pub fn leaves_x(&self) -> bool {
        self.outputs.len() > 1 && self.outputs.last() == Some(&1)
    }
}

/// Every choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Gather or scatter.
    pub form: Form,
    /// Whether phases count from the uncropped edge, so that all of them read the same window; otherwise from the first output. Where windows leave the pixels
    /// along x as they are, those of x count from the first output in any case.
    pub aligned: bool,
    /// Whether input is staged in a zero-halo panel (gather only). Without it the guards stay, at the taps.
    pub panel: bool,
    /// Whether taps that fall outside the input are left out, along axes of which the tile holds one position or all; otherwise the panel has zeros there.
    pub bounded: bool,
    /// Positions per panel block on each spatial axis, outermost first; 0 is the whole axis.
    pub block: Sizes,
    /// Input channels that are summed before the outputs wait for the next so many; 0 is all of them.
    pub reduction: usize,
    /// Into how many parts the output channels of a group are cut for threads.
    pub channel_parts: usize,
    /// Fewer multiplications by Toom-Cook (Winograd) transforms, or `None` for direct sums.
    pub winograd: Option<Winograd>,
    /// The register tile, outer axes first.
    pub tile: Short<TileAxis, 4>,
    /// Which tile axis lies along the lanes.
    pub vector: Name,
    /// Lanes per vector.
    pub lanes: usize,
    /// Whether the target fuses multiply and add.
    pub fma: bool,
    /// Whether stores bypass the caches.
    pub stream: bool,
}

impl Plan {
    /// Direct sums, or transformed windows.
    pub fn algorithm(&self) -> Algorithm {
        if self.winograd.is_some() { Algorithm::Winograd } else { Algorithm::Direct }
    }
    /// What kind of plan it is: form, whether input is staged, what lies along the lanes, and the algorithm. Of each kind the best plan is shown, and timed.
    pub fn kind(&self) -> (Form, bool, Name, Algorithm) {
        (self.form, self.panel, self.vector, self.algorithm())
    }
    /// How many iterations of a loop one tile holds.
    pub fn extent(&self, var: &str) -> usize {
        self.tile.iter().find(|t| t.var == var).map_or(1, |t| t.extent)
    }
    /// Whether rows are read in place, of a few input channels at a time.
    pub(super) fn streams_rows(&self) -> bool {
        !self.panel && self.reduction > 0
    }
    /// Positions (or windows) of the small tile for what whole tiles of an open extent leave over: half as many, in whole vectors if they lie along the
    /// lanes. The innermost axis of positions has one; 0 if there is none.
    pub fn rest(&self, var: &str) -> usize {
        let position = |v: &Name| v.as_str().starts_with('q');
        let innermost = self.tile.iter().rev().find(|t| position(&t.var) && t.extent > 1);
        let unit = if self.vector == var { self.lanes } else { 1 };
        innermost.filter(|t| t.var == var).map_or(0, |t| t.extent / 2 / unit * unit)
    }
    /// The same for the loop of that role along a spatial axis: `q` and `x` for `qx`.
    pub fn extent_on(&self, role: &str, axis: &str) -> usize {
        self.tile.iter().find(|t| t.var.as_str().strip_prefix(role) == Some(axis)).map_or(1, |t| t.extent)
    }
}
