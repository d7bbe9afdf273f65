//! polyphase: a compiler for transposed convolutions.

pub mod capi;
pub mod codegen;
mod error;
pub mod explain;
pub mod fuzz;
pub mod interp;
pub mod ir;
pub mod measure;
pub mod passes;
pub mod plan;
pub mod problem;
pub mod reference;
pub mod runtime;
mod short;
pub mod weights;

pub use error::{Error, Kind, Result};
pub use ir::Elem;
pub use problem::{Activation, Deconv, DeconvBuilder, Extent, Layout, Merge};
pub use runtime::{Element, Kernel, Options, TensorView, TensorViewMut, Workspace};
pub use short::Short;

/// The examples of the README, compiled and run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
