//! What a caller may choose; everything else is the plan's business.

use crate::codegen::target::Isa;
use crate::plan::{Algorithm, Form, Plan, Processor};

/// Most threads of a kernel: scratch memory grows with them.
pub const MAX_THREADS: usize = 1024;

/// Options of [`crate::Deconv::compile`]. The default lets the compiler choose, on one thread.
///
/// ```
/// use polyphase::Options;
/// let options = Options { threads: 2, ..Options::default() };
/// assert!(options.isa.is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Instruction-set level; `None` is the best that the machine has.
    pub isa: Option<Isa>,
    /// The processor for which plans are chosen; `None` is the one that runs the program.
    pub processor: Option<Processor>,
    /// Gather or scatter; `None` lets the plan choose.
    pub form: Option<Form>,
    /// Over how many threads, at most [`MAX_THREADS`], a run is shared out, on the rayon pool in which `run` is called. Results do not depend on it.
    pub threads: usize,
    /// Whether stores bypass the caches, where they are aligned; `None` is no.
    pub stream: Option<bool>,
    /// Direct sums or transformed windows; `None` lets the plan choose. Direct sums keep one order of summation for every position.
    pub algorithm: Option<Algorithm>,
    /// The most that the expected rounding error of an algorithm may be, relative to that of direct sums.
    pub rounding: f64,
    /// Spatial extents, outermost first, at which a problem with open ones is to be fast: a plan is chosen and compiled for each. None: for a few
    /// sizes, small to large. A problem without open extents has no use for them.
    pub typical: Vec<Vec<usize>>,
    /// Most bytes that the packed weights of a kernel with open extents take, whose plans for different sizes may read them in different orders; one
    /// packing it has in any case. `None`: ten times the bytes of the weights, but 64 MiB at least. It is kept as for one thread, so that results are the same for
    /// every number of them; where threads share out the channels, sizes that do so in other parts pack the weights once more.
    pub packing_limit: Option<usize>,
    /// A plan to use as it is, instead of choosing one.
    pub plan: Option<Plan>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            isa: None,
            processor: None,
            form: None,
            threads: 1,
            stream: None,
            algorithm: None,
            rounding: 2.0,
            typical: Vec::new(),
            packing_limit: None,
            plan: None,
        }
    }
}
