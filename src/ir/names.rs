//! The names that passes and people agree on.
//!
//! A loop variable's name is its role: `n` batch, `g` group, `oc` and `ic` the output and input channel within
//! the group; for each spatial axis (`z`, `y`, `x`, outermost first) `o` output, `i` input, `k` tap of the whole kernel,
//! `r` phase, `q` position within a phase, `t` tap of a phase, `p` panel: `oy`, `kx`, `rz`. Where windows are transformed, `w` counts them, `v` the
//! entries of one, `f` the phases that share it (`u` both, where phases differ), `e` the windows that interleave, `h` its outputs; `qw` counts windows over all axes. A suffix marks a
//! part of a split axis: `.b` block, `.t` within the register tile, `.v` vector, `.l` lane, `.c` part for threads, `.k` what is held or summed at a time, `.y` what
//! becomes output, `.o` and `.i` blocks and what is in them while weights are made ready: `qx.b`, `oc.t`. `w.t` counts weights that lie side by side.

use super::Name;

/// The input tensor, `[n, c_in, *spatial]`.
pub const INPUT: &str = "x";
/// The weight tensor, `[c_in, c_out / groups, *kernel]`.
pub const WEIGHT: &str = "w";
/// The bias vector, `[c_out]`.
pub const BIAS: &str = "bias";
/// The output tensor, `[n, c_out, *spatial]`.
pub const OUTPUT: &str = "y";
/// The accumulator of one output.
pub const ACC: &str = "acc";

/// The letters of the spatial axes of a rank, outermost first: `x`; `y x`; `z y x`.
pub fn axes(rank: usize) -> &'static [&'static str] {
    &["z", "y", "x"][3 - rank..]
}

/// The variable of a role on an axis: `on("q", "x")` is `qx`.
pub fn on(role: &str, axis: &str) -> Name {
    Name::joined(&[role, axis])
}

/// A part of a split axis: `part(&"qx".into(), "b")` is `qx.b`.
pub fn part(var: &Name, suffix: &str) -> Name {
    Name::joined(&[var.as_str(), ".", suffix])
}
