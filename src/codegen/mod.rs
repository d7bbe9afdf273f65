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

/// Whether every tile of a function fits the vector registers of a level. Cranelift's tiles always do: it spills.
///
/// # Errors
/// Those of code generation, for a tile that it refuses for another reason.
pub fn tiles_fit(func: &Func, isa: Isa) -> crate::Result<bool> {
    #[cfg(target_arch = "x86_64")]
    if isa.wide() {
        let level = if isa == Isa::Avx512 { wide::WideIsa::Avx512 } else { wide::WideIsa::Avx2 };
        let mut fit = Ok(true);
        for s in func.run.iter().chain(&func.prepare) {
            s.visit(&mut |s| {
                if matches!((s, &fit), (Stmt::Tile { .. }, Ok(true))) {
                    fit = wide::budget(func, s, level).map(|b| b.peak <= b.file);
                }
            });
        }
        return fit;
    }
    let _ = (func, isa, |s: &Stmt| matches!(s, Stmt::Tile { .. }));
    Ok(true)
}
