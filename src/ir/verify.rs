//! Checks that a function keeps the invariants of its stage; every violation is reported, with its place.
//!
//! Takes any function, changes nothing. What verifies may be interpreted and compiled: later parts
//! look names up and index without asking again.
//!
//! **Declarations** (`declare.rs`)
//! 1. Names are letters, digits, `_`, `.` after a letter, and not reserved words. Symbols, buffers, tables and registers are declared once.
//! 2. A count is made of symbols and counts declared before it. Extents are affine in symbols only and not negative constants; those of weight, bias and packed buffers use no symbol.
//! 3. `order` is a permutation of the dimensions. A buffer has the function's element type.
//! 4. The caller's buffers come first, each at most once: input, weight, bias, output.
//! 5. A register has 1 to 1024 lanes, no extent 0, and at most 131,072 entries; so many lanes have all registers together.
//!
//! **Stages**
//! 6. Floor division and `%` conditions: up to `form`. Scratch buffers: from `form` on. Counts: from `phases` on. Products of a symbol and a variable: from `panel` on.
//! 7. `tile`, `unroll`, register arrays, packed buffers and `prepare`: from `tile` on.
//! 8. Lanes, of registers and of accesses: from `vector` on. `tanh` and `sigmoid`: before `lowered`.
//!
//! **Structure** (`body.rs`)
//! 9. A loop variable hides nothing: no enclosing loop, symbol, buffer, table or register has its name.
//! 10. A loop or clip has at least one lower and one upper bound; a step is at least 1, and multiplied by a symbol in `par` loops only.
//! 11. `par` loops are the outermost, perfectly nested loops of a region, with single bounds affine in symbols only.
//! 12. Bounds of `unroll` loops are single and made of constants and outer `unroll` variables (and tables of them).
//! 13. No tile within a tile, no `par` within a tile. Bounds of its counted loops use no `unroll` variable.
//! 14. An index uses declared symbols, variables in scope, and declared tables with a variable in scope whose
//!     range, where constant, lies inside the table. `prepare` uses no symbol. Divisors and moduli are at least 1.
//!     Sums are canonical: no coefficient is 0, no division could have been carried out.
//!
//! **Accesses and values** (`access.rs`)
//! 15. Buffers and registers are declared, and indexed with one index per dimension.
//! 16. Register arrays are indexed by constants and `unroll` variables, within their extents.
//! 17. Lanes: 1 to 1024, along a dimension of the buffer, with a step of at least 1.
//! 18. A store has a value; several parts need lanes and a step that leaves room for them.
//! 19. The lanes of operands are equal or 1; so are those of a value and of where it goes.
//! 20. `run` stores to output and scratch only; `prepare` stores to packed buffers only and loads from weight, bias and packed only.
//!     From stage `tile` on, where something is packed, `run` does not load from the weight.
//!
//! **Flow** (`flow.rs`, `range.rs`)
//! 21. A register is read only after it was set, on every path of its region, entry by entry. A section writes out to at most 262,144 statements.
//! 22. A tile keeps its registers to itself: none is set on one side of its border and read on the other.
//! 23. An index lies inside its dimension. Only definite violations are reported: where the loops around have
//!     constant ranges and no `when` or clip stands in between.

mod access;
mod body;
mod declare;
mod flow;
mod range;

use super::*;
use crate::{Error, Kind};

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The way to it, outermost first: `run/for n/for oc/acc = …`, or a declaration: `buffer x`.
    pub location: String,
    /// What is wrong and what would be legal.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

/// Checks every invariant.
///
/// # Errors
/// Every violation that was found, in the order of the text form, up to a hundred.
pub fn verify(func: &Func) -> Result<(), Vec<Diagnostic>> {
    let mut report = Report::default();
    declare::check(func, &mut report);
    body::check(func, &mut report);
    if report.found.is_empty() {
        // Meaningful only where names resolve and ranks match.
        flow::check(func, &mut report);
    }
    if report.found.is_empty() { Ok(()) } else { Err(report.found) }
}

impl Func {
    /// Checks every invariant.
    ///
    /// # Errors
    /// [`Kind::Ir`] with every violation, one per line.
    pub fn verify(&self) -> crate::Result<()> {
        verify(self).map_err(|found| {
            let lines: Vec<_> = found.iter().map(|d| format!("\n  {d}")).collect();
            Error::new(Kind::Ir, format!("function {} breaks invariants of stage {}:{}", self.name, self.stage, lines.concat()))
        })
    }
}

/// Entries of one register array, each of which would have to be set and read; and lanes of all registers, for which code generation may need room on the stack.
const MOST_ENTRIES: usize = 1 << 17;
/// Lanes of a register or an access.
const MOST_LANES: usize = 1 << 10;
/// Violations that are kept; a broken pass breaks everything it touches.
const MOST_FOUND: usize = 100;

/// What was found so far.
///
/// Places are built from the inside out, and only when something was found, so that a sound function costs no text.
#[derive(Default)]
struct Report {
    found: Vec<Diagnostic>,
    /// Where in `found` the current step of the path begins.
    here: usize,
}

impl Report {
    /// Adds a violation here, once.
    fn add(&mut self, message: impl Into<String>) {
        self.insert(Diagnostic { location: String::new(), message: message.into() });
    }
    fn insert(&mut self, d: Diagnostic) {
        if self.found.len() < MOST_FOUND && !self.found[self.here..].contains(&d) {
            self.found.push(d);
        }
    }
    /// Runs `f` one step further down the path.
    fn within(&mut self, step: impl FnOnce() -> String, f: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.here, self.found.len());
        f(self);
        let inner = self.found.split_off(self.here);
        self.here = outer;
        if !inner.is_empty() {
            let step = step();
            for Diagnostic { location, message } in inner {
                let location = if location.is_empty() { step.clone() } else { format!("{step}/{location}") };
                self.insert(Diagnostic { location, message });
            }
        }
    }
    /// Adds a violation if a construct appears outside of its stages.
    fn stage(&mut self, legal: bool, what: impl fmt::Display, when: &str, func: &Func) {
        if !legal {
            self.add(format!("{what} at stage {}; legal {when}", func.stage));
        }
    }
}

/// How a statement is called in a location.
fn step_name(s: &Stmt) -> String {
    match s {
        Stmt::For(l) => format!("for {}", l.var),
        Stmt::When { .. } => "when".into(),
        Stmt::Tile { name, .. } => format!("tile {name}"),
        Stmt::Set { reg, .. } => format!("{reg} = …"),
        Stmt::Store { to, .. } => format!("{}[…] = …", to.buffer),
    }
}
