//! What `explain` says, as data: text and JSON are made from the same structs.
//!
//! *Needs* a validated problem (or a function in the IR, [`ir`]) and options. *Leaves* serialisable facts; nothing here prints.
//!
//! | file | what it answers |
//! |---|---|
//! | `facts.rs` | what is computed: shapes, multiplications, phases |
//! | `overlap.rs` | how many patches land on each output, and what evens them out |
//! | `schedule.rs` | how it will be computed: the plan, its rivals, registers, memory, passes |
//! | `check.rs` | whether it is right, and how fast: compile, compare, time |
//! | `at.rs` | why one output has the value it has |
//! | `matrix.rs` | the convolution matrix and its transpose |
//! | `ir.rs` | the same checks for a function in the IR |
//! | `bounds.rs` | whether 64 bits hold the indices of a function in the IR |
//!
//! ```
//! use polyphase::{Deconv, Options, explain};
//! let layer: Deconv = "2d n1 4x4x4 -> 2 k3 s2 p1".parse()?;
//! let e = explain::plan("layer", &layer, &Options::default())?;
//! assert!(!e.overlap.even);
//! assert_eq!(e.overlap.fixes[0], "kernel 4 with padding 2 and output_padding 1 keeps the output size");
//! # Ok::<(), polyphase::Error>(())
//! ```

pub mod at;
mod bounds;
pub mod check;
pub mod facts;
pub mod ir;
pub mod matrix;
pub mod overlap;
pub mod schedule;

use crate::{Deconv, Options, Result};
use serde::Serialize;

/// Everything about one layer. What was not asked for is `None`, and absent from JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// What the layer is called.
    pub name: String,
    /// Its descriptor.
    pub problem: String,
    /// What is said first: extents that were open, and what they were taken to be.
    pub notes: Vec<String>,
    /// Shapes and bytes.
    pub tensors: Vec<facts::Tensor>,
    /// The output extent of each axis, as formula and number.
    pub output: Vec<facts::OutputExtent>,
    /// Multiplications.
    pub work: facts::Work,
    /// Phases of each axis with their taps.
    pub phases: Vec<facts::AxisPhases>,
    /// Patches per output.
    pub overlap: overlap::Overlap,
    /// How it will be computed.
    pub schedule: schedule::Schedule,
    /// Compiled, checked and timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<check::Checked>,
    /// One output, taken apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<at::At>,
    /// The convolution matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix: Option<matrix::Matrix>,
}

/// Explains a layer up to its plan: nothing is compiled.
///
/// # Errors
/// A problem without output for the extents that are taken, options that cannot be honoured here.
pub fn plan(name: &str, problem: &Deconv, options: &Options) -> Result<Explanation> {
    problem.validate()?;
    let sizes = facts::Sizes::of(problem)?;
    Ok(Explanation {
        name: name.into(),
        problem: problem.to_string(),
        notes: sizes.notes.clone(),
        tensors: facts::tensors(problem, &sizes)?,
        output: facts::output_extents(problem, &sizes)?,
        work: facts::work(problem, &sizes),
        phases: facts::phases(problem),
        overlap: overlap::overlap(problem, &sizes)?,
        schedule: schedule::schedule(problem, &sizes, options)?,
        kernel: None,
        at: None,
        matrix: None,
    })
}

/// Explains a layer, compiles it, checks the kernel against interpreter and reference, and times it.
///
/// # Errors
/// As [`plan`], and what compiling and running refuse. A check that fails is no error: see [`check::Checked::passed`].
pub fn layer(name: &str, problem: &Deconv, options: &Options) -> Result<Explanation> {
    let mut e = plan(name, problem, options)?;
    e.kernel = Some(check::checked(problem, options)?);
    Ok(e)
}
