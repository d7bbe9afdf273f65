//! Native code.
//!
//! | module | what it does |
//! |---|---|
//! | `target` | instruction-set levels, their detection, forcing one of them |
//! | `cranelift` | every target: drivers, packing, edges, tiles of 128-bit vectors |
//! | `wide` | x86-64: tiles of 256 and 512 bits, encoded by us |

pub mod cranelift;
pub mod target;
pub mod wide;

use crate::ir::{Func, Stmt};
use target::Isa;

/// How the tiles of a function fit the vector registers of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// A tile needs more than there are.
    Not,
    /// A tile has none for the shuffles of its stores: every lane is stored alone.
    Barely,
    /// They have what they need.
    Well,
}

/// How the tiles of a function fit the vector registers of a level. Cranelift's tiles always do: it spills.
///
/// # Errors
/// Those of code generation, for a tile that it refuses for another reason.
pub fn tiles_fit(func: &Func, isa: Isa) -> crate::Result<Fit> {
    #[cfg(target_arch = "x86_64")]
    if isa.wide() {
        let level = if isa == Isa::Avx512 { wide::WideIsa::Avx512 } else { wide::WideIsa::Avx2 };
        let of = |b: wide::Budget| match b.peak <= b.file {
            false => Fit::Not,
            true if b.turns => Fit::Well,
            true => Fit::Barely,
        };
        let mut fit = Ok(Fit::Well);
        for s in func.run.iter().chain(&func.prepare) {
            s.visit(&mut |s| {
                if let (Stmt::Tile { .. }, Ok(now @ (Fit::Well | Fit::Barely))) = (s, &fit) {
                    fit = wide::budget(func, s, level).map(|b| of(b).min(*now));
                }
            });
        }
        return fit;
    }
    let _ = (func, isa, |s: &Stmt| matches!(s, Stmt::Tile { .. }));
    Ok(Fit::Well)
}
