//! The passes.

pub mod activation;
