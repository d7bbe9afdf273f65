//! Kernels: native code with its packed weights, ready to run.
//!
//! | file | what it holds |
//! |---|---|
//! | `options.rs` | what a caller may choose: level, form, threads, plan |
//! | `compile.rs` | from problem and weights to a [`Kernel`]: plan, passes, native code, packing |
//! | `kernel.rs` | [`Kernel`] with its versions: checks of what it is given, and the call |
//! | `tensor.rs` | views of slices and arrays with their shapes |
//! | `scratch.rs` | where scratch buffers lie, and which may share memory |
//! | `workspace.rs` | scratch memory, and the stash from which `run` borrows it without a lock |
//! | `threads.rs` | sharing out tasks on a rayon pool |

mod compile;
mod kernel;
mod options;
pub(crate) mod scratch;
mod tensor;
mod threads;
mod workspace;

pub use kernel::{Compiled, Kernel, Report};
pub use options::{MAX_THREADS, Options};
pub use tensor::{Element, TensorView, TensorViewMut};
pub use workspace::Workspace;
