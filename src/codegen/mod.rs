//! Native code.

pub mod cranelift;
pub mod target;
pub mod wide;
