//! Random problems, checked everywhere: the logic behind `polyphase verify`, tests and fuzz targets.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`Case`]: a problem with everything that a check depends on |
//! | `random.rs` | [`Case::random`]: small problems with every feature, from a seed |
//! | `data.rs` | the tensors of a case, between guards |
//! | `check.rs` | [`check`]: native code, interpreter, every stage and the reference against each other |
//! | `shrink.rs` | [`shrink`]: the smallest problem that still fails |
//!
//! A fuzz target needs no more than this:
//!
//! ```
//! use polyphase::fuzz::{Case, check, shrink};
//! for index in 0..3 {
//!     if let Err(failure) = check(&Case::random(1, index)) {
//!         panic!("{}", shrink(failure));
//!     }
//! }
//! ```

mod check;
mod data;
mod random;
mod shrink;

pub use check::{Failure, What, check};
pub use shrink::shrink;

use crate::codegen::target::Isa;
use crate::plan::{Algorithm, Form, Plan};
use crate::problem::Deconv;
use crate::{Extent, Options, Result};
use std::fmt;

/// What tensors are filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Integers from -3 to 3: sums are exact, so that equality can be demanded.
    Integers,
    /// Uniform in [-1, 1).
    Random,
    /// Uniform, with some NaN, infinities, zeros of both signs and denormals in inputs, weights or both.
    Special,
}

impl Fill {
    /// Every kind.
    pub const ALL: [Fill; 3] = [Fill::Integers, Fill::Random, Fill::Special];

    /// `integers`, `random` or `special`.
    pub fn name(self) -> &'static str {
        match self {
            Fill::Integers => "integers",
            Fill::Random => "random",
            Fill::Special => "special",
        }
    }
}

/// A problem with all that a check of it depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The problem.
    pub problem: Deconv,
    /// Values of its open extents, in the order of [`Deconv::symbols`].
    pub extents: Vec<usize>,
    /// The instruction-set level.
    pub isa: Isa,
    /// The form, if it is forced.
    pub form: Option<Form>,
    /// The algorithm, if it is forced.
    pub algorithm: Option<Algorithm>,
    /// The whole plan, if it is forced; where it cannot be used with these weights the compiler's own is checked.
    pub plan: Option<Plan>,
    /// Threads of the run.
    pub threads: usize,
    /// What the tensors hold.
    pub fill: Fill,
    /// The seed of the tensors.
    pub seed: u64,
}

impl Case {
    /// Batch and spatial input extents.
    ///
    /// # Errors
    /// A wrong number of extents, or extents for which there is no output.
    pub fn sizes(&self) -> Result<(usize, Vec<usize>)> {
        self.problem.shape_from_symbols(&self.extents)
    }

    /// The options of the compilation.
    pub fn options(&self) -> Options {
        let Case { form, algorithm, threads, .. } = *self;
        Options { isa: Some(self.isa), form, algorithm, plan: self.plan.clone(), threads, ..Options::default() }
    }

    /// The same case with every extent known when it is compiled, or `None` if that is so already or it is no legal problem.
    pub fn closed(&self) -> Option<Case> {
        let (batch, spatial) = self.sizes().ok().filter(|_| !self.extents.is_empty())?;
        let input = spatial.into_iter().map(Extent::Fixed).collect();
        let problem = Deconv { batch: Extent::Fixed(batch), input, ..self.problem.clone() };
        problem.validate().ok()?;
        Some(Case { problem, extents: Vec::new(), ..self.clone() })
    }
}

impl fmt::Display for Case {
    /// The command line that checks this case again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "polyphase verify '{}'", self.problem)?;
        if !self.extents.is_empty() {
            let extents: Vec<String> = self.extents.iter().map(usize::to_string).collect();
            write!(f, " --extents {}", extents.join(","))?;
        }
        write!(f, " --isa {}", self.isa)?;
        if let Some(form) = self.form {
            write!(f, " --form {}", form.name())?;
        }
        if let Some(algorithm) = self.algorithm {
            write!(f, " --algorithm {}", algorithm.name())?;
        }
        if let Some(plan) = &self.plan {
            write!(f, " --plan '{plan}'")?;
        }
        if self.threads != 1 {
            write!(f, " --threads {}", self.threads)?;
        }
        write!(f, " --fill {} --seed {}", self.fill.name(), self.seed)
    }
}
