//! A compiler for transposed convolutions: from a description to checked native code, with every step visible.
//!
//! A [`Deconv`] says what is computed. [`Deconv::compile`] takes it with its weights, chooses a plan for this
//! processor, lowers the loop nest pass by pass, generates machine code and packs the weights. The [`Kernel`] that it
//! gives is run as often as one likes, by many threads at once if need be. There is no column buffer, and no product by
//! an inserted zero is ever computed.
//!
//! ```
//! use polyphase::{Deconv, Options, explain, reference};
//!
//! // What: 8 channels to 4, kernel 4x4, stride 2, padding 1, with a bias; batch 1 and 5x6 pixels are known now.
//! let layer = Deconv::torch2d(8, 4, [4, 4]).stride([2, 2]).padding([1, 1]).input([5, 6]).bias(true).build()?;
//! assert_eq!(layer.to_string(), "2d n1 8x5x6 -> 4 k4 s2 p1 bias");
//! assert_eq!(layer.output_shape(1, &[5, 6])?, [1, 4, 10, 12]);
//!
//! // Once, when a model is loaded. Weights are [c_in, c_out / groups, ky, kx].
//! let weights: Vec<f32> = (0..8 * 4 * 4 * 4).map(|i| (i % 7) as f32 - 3.0).collect();
//! let bias = [0.5f32, 0.25, 0.0, -1.0];
//! let kernel = layer.compile(&weights, Some(&bias), &Options { threads: 2, ..Options::default() })?;
//!
//! // For each inference: every output is written, nothing is read but the input.
//! let x: Vec<f32> = (0..8 * 5 * 6).map(|i| (i % 5) as f32).collect();
//! let mut y = vec![0.0f32; 4 * 10 * 12];
//! kernel.run(&x, &mut y)?;
//!
//! // Why this plan, and is it right?
//! assert!(!kernel.choice().reasons.is_empty());
//! println!("{}\n{:#?}", kernel.plan(), explain::plan("layer", &layer, &Options::default())?.schedule.reasons);
//! let exact = reference::deconv(&layer, 1, &[5, 6], &x, &weights, Some(&bias))?;
//! assert!(y.iter().zip(&exact).all(|(y, e)| (f64::from(*y) - e).abs() < 1e-3));
//! # Ok::<(), polyphase::Error>(())
//! ```
//!
//! | to | see |
//! |---|---|
//! | describe a layer in PyTorch's words | [`Deconv::torch1d`], [`Deconv::torch2d`], [`Deconv::torch3d`], [`DeconvBuilder`] |
//! | describe it in another framework's, or as the adjoint of a convolution | [`problem::conventions`] |
//! | read it from a module repr, JSON or a descriptor | [`problem::text`], `str::parse::<Deconv>` |
//! | bring weights into PyTorch's order, or make some | [`weights`] |
//! | compile it, and force what the plan would choose | [`Deconv::compile`], [`Options`] |
//! | run it: slices or ndarray arrays, open extents, scratch memory of the caller's | [`Kernel::run`], [`Kernel::run_sized`], [`Kernel::run_in`] |
//! | leave extents open until run time | [`DeconvBuilder::open_batch`], [`DeconvBuilder::open_input`], [`Options::typical`] |
//! | ask what is computed, how and why | [`mod@explain`], [`Kernel::choice`] |
//! | find faster plans by timing them, and ship them | [`plan::tune`] |
//! | see the loop nest after each pass | [`ir`], [`passes`], [`Kernel::func`] |
//! | check a result | [`reference`](mod@reference), [`interp`], [`fuzz`] |
//! | measure the machine | [`measure`] |
//! | call it from C | [`capi`], `docs/polyphase.h` |
//!
//! Everything that fails gives an [`Error`]: a [`Kind`] for programs and a sentence for people. x86-64 and aarch64 have
//! code generation; on other machines compiling is an error. The feature `cli`, on by default, is the command
//! `polyphase` and its dependencies.

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

/// The examples of `docs/conventions.md`, likewise.
#[cfg(doctest)]
#[doc = include_str!("../docs/conventions.md")]
struct Conventions;
