//! The one error type of the crate.
//!
//! An [`Error`] has a [`Kind`], which programs match on, and a sentence for people that names the
//! offending numbers and what would be legal.

use std::fmt;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The problem itself is not a transposed convolution that can exist (zero stride, output extent ≤ 0 …).
    Problem,
    /// A text (module repr, JSON, descriptor, IR) could not be read.
    Parse,
    /// A tensor given to `compile` or `run` does not fit the problem: length, shape, strides, aliasing.
    Tensor,
    /// Options, a plan or a target that this problem or this machine cannot honour.
    Options,
    /// The IR breaks an invariant of its stage.
    Ir,
    /// Code generation or memory allocation failed.
    Codegen,
    /// Reading or writing a file failed.
    Io,
}

/// An error: a kind for programs and a sentence for people.
///
/// ```
/// use polyphase::{Error, Kind};
/// let e = Error::new(Kind::Problem, "stride is 0 on axis x; it must be at least 1");
/// assert_eq!(e.kind, Kind::Problem);
/// assert_eq!(e.to_string(), "stride is 0 on axis x; it must be at least 1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// What went wrong, for programs.
    pub kind: Kind,
    /// The sentence for people.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// An error of the given kind with its sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// The same error with words put before its sentence: `at: message`.
    pub fn context(mut self, at: impl fmt::Display) -> Self {
        self.message = format!("{at}: {}", self.message);
        self
    }
}

/// A result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
