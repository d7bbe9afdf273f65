//! Weights: where the numbers come from, and the orders in which frameworks keep them.
//!
//! The compiler reads one order only, PyTorch's `[c_in, c_out / groups, *kernel]`.
//!
//! | file | what it holds |
//! |---|---|
//! | `layout.rs` | [`to_torch`]: every other order into that one |
//! | `init.rs` | bilinear, Xavier, He and PuzzleLib's schemes |

mod init;
mod layout;

pub use init::{FanType, Fans, InitScheme, bilinear, he_normal, he_uniform, puzzlelib_weight, xavier_normal, xavier_uniform};
pub use layout::{WeightLayout, to_torch};
