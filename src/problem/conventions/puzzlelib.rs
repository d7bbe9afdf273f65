//! PuzzleLib's `DeconvND(nd, inmaps, outmaps, size, stride, pad, dilation, wscale, useBias, name, initscheme, empty, groups)`.
//!
//! Source: PuzzleLib's `Modules/DeconvND.py`. `out = stride*(in-1) + dilation*(size-1) + 1 - 2*pad`; data is `[n, c, *spatial]`; the weight is
//! `[inmaps, outmaps / groups, *size]`, as here; a number stands for every axis. `wscale`, `initscheme` and `empty` are about the initial
//! weight: [`DeconvNd::weight`]. PuzzleLib makes the bias `outmaps / groups` long; here it is `outmaps` long, as every output map needs one.
//!
//! ```
//! use polyphase::problem::conventions::puzzlelib::{DeconvNd, PerAxis};
//! let module = DeconvNd { stride: PerAxis::All(2), pad: PerAxis::All(1), ..DeconvNd::new(2, 64, 3, PerAxis::All(4)) };
//! assert_eq!(module.problem(Some(1), &[None, None])?.to_string(), "2d n1 64x?x? -> 3 k4 s2 p1 bias");
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Built, Extents, on_input};
use crate::error::Result;
use crate::problem::DeconvBuilder;
use crate::weights::{InitScheme, puzzlelib_weight};

/// A number for every axis, or one per axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerAxis {
    /// The same for all.
    All(i64),
    /// One per axis.
    Each(Vec<i64>),
}

impl PerAxis {
    fn repeat(&self, nd: usize) -> Vec<i64> {
        match self {
            PerAxis::All(v) => vec![*v; nd.min(4)],
            PerAxis::Each(v) => v.clone(),
        }
    }
}

/// The arguments of `DeconvND`, in its order and with its defaults ([`DeconvNd::new`]).
#[derive(Debug, Clone, PartialEq)]
pub struct DeconvNd {
    /// Number of spatial axes.
    pub nd: usize,
    /// Input channels.
    pub inmaps: i64,
    /// Output channels.
    pub outmaps: i64,
    /// Kernel extents.
    pub size: PerAxis,
    /// Strides.
    pub stride: PerAxis,
    /// Padding at both ends.
    pub pad: PerAxis,
    /// Dilations.
    pub dilation: PerAxis,
    /// Scale of the schemes `gaussian` and `uniform`; the others ignore it.
    pub wscale: f64,
    /// Whether there is a bias.
    pub use_bias: bool,
    /// What the module is called.
    pub name: Option<String>,
    /// How the weight is drawn.
    pub initscheme: InitScheme,
    /// Whether the module is made without parameters.
    pub empty: bool,
    /// Groups.
    pub groups: i64,
}

impl DeconvNd {
    /// `DeconvND(nd, inmaps, outmaps, size)` with every default.
    pub fn new(nd: usize, inmaps: i64, outmaps: i64, size: PerAxis) -> Self {
        DeconvNd {
            nd,
            inmaps,
            outmaps,
            size,
            stride: PerAxis::All(1),
            pad: PerAxis::All(0),
            dilation: PerAxis::All(1),
            wscale: 1.0,
            use_bias: true,
            name: None,
            initscheme: InitScheme::default(),
            empty: false,
            groups: 1,
        }
    }

    /// The module on a batch of inputs with these spatial extents (open where `None`).
    ///
    /// # Errors
    /// Whatever [`Deconv::validate`](crate::Deconv::validate) refuses.
    pub fn problem(&self, batch: Option<usize>, spatial: Extents<'_>) -> Built {
        let b = DeconvBuilder::new(self.nd, self.inmaps, self.outmaps, self.size.repeat(self.nd))
            .stride(self.stride.repeat(self.nd))
            .padding(self.pad.repeat(self.nd))
            .dilation(self.dilation.repeat(self.nd))
            .groups(self.groups)
            .bias(self.use_bias);
        on_input(b, batch, spatial).build()
    }

    /// The initial weight, `[inmaps, outmaps / groups, *size]`, by `initscheme` and `wscale` with a seed; `None` for an `empty` module and for the
    /// scheme `none`, which leave it to be loaded. Its distribution is PuzzleLib's, its numbers are not.
    ///
    /// # Errors
    /// Whatever [`problem`](Self::problem) refuses, and a `wscale` that is negative or not finite.
    pub fn weight(&self, seed: u64) -> Result<Option<Vec<f32>>> {
        let open = vec![None; self.nd.min(4)];
        let problem = self.problem(None, &open)?;
        if self.empty { Ok(None) } else { puzzlelib_weight(&problem, self.initscheme, self.wscale, seed) }
    }
}
