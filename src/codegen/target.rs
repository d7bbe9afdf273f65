//! What the machine can do: instruction-set levels, their detection, and forcing one of them.
//!
//! A level names how tiles are made, not a CPU: `sse2` and `fma` are 128-bit tiles by Cranelift without and with fused
//! multiply-add, `avx2` and `avx512` are our own wide tiles, `neon` is Cranelift's 128-bit tile on aarch64.

use crate::ir::Elem;
use crate::{Error, Kind, Result};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use std::fmt;

/// Multiply-adds for each vector of pixels that a tile of AVX-512 loads, up to which it waits for loads: vectors that overlap are then shifted out of
/// whole cache lines.
pub const FEW_PRODUCTS: f64 = 4.0;

/// An instruction-set level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// x86-64 without FMA: 128-bit vectors, product and sum rounded separately.
    Sse2,
    /// x86-64 with AVX2 and FMA, 128-bit vectors.
    Fma,
    /// x86-64 with AVX2 and FMA, 256-bit tiles.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL), 512-bit tiles.
    Avx512,
    /// aarch64, 128-bit vectors.
    Neon,
}

impl Isa {
    /// Every level, lowest first.
    pub const ALL: [Isa; 5] = [Isa::Sse2, Isa::Fma, Isa::Avx2, Isa::Avx512, Isa::Neon];

    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Sse2 => "sse2",
            Isa::Fma => "fma",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// The architecture it belongs to.
    pub fn arch(self) -> &'static str {
        if self == Isa::Neon { "aarch64" } else { "x86_64" }
    }

    /// Whether multiply and add are fused.
    pub fn fma(self) -> bool {
        self != Isa::Sse2
    }

    /// Bytes of a tile's vector.
    pub fn vector_bytes(self) -> usize {
        match self {
            Isa::Avx512 => 64,
            Isa::Avx2 => 32,
            _ => 16,
        }
    }

    /// Lanes of a tile's vector.
    pub fn lanes(self, elem: Elem) -> usize {
        self.vector_bytes() / elem.bytes()
    }

    /// Vector registers of a tile.
    pub fn registers(self) -> usize {
        match self {
            Isa::Avx512 | Isa::Neon => 32,
            _ => 16,
        }
    }

    /// Whether tiles are our own machine code rather than Cranelift's.
    pub fn wide(self) -> bool {
        matches!(self, Isa::Avx2 | Isa::Avx512)
    }

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Isa::Sse2 => true,
            Isa::Fma => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Isa::Avx2 => super::wide::WideIsa::avx2().is_some(),
            Isa::Avx512 => super::wide::WideIsa::avx512().is_some(),
            Isa::Neon => false,
        };
        #[cfg(target_arch = "aarch64")]
        return self == Isa::Neon;
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return false;
    }

    /// The levels of this machine, lowest first.
    pub fn detected() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|i| i.available()).collect()
    }

    /// The highest level of this machine.
    ///
    /// # Errors
    /// [`Kind::Options`] on a machine that is neither x86-64 nor aarch64.
    pub fn best() -> Result<Isa> {
        let none = || Error::new(Kind::Options, format!("no code generation for {}; legal: x86_64, aarch64", std::env::consts::ARCH));
        Isa::detected().pop().ok_or_else(none)
    }

    /// The level of that name, if this machine has it.
    ///
    /// # Errors
    /// [`Kind::Options`] naming the levels that are legal here.
    pub fn forced(name: &str) -> Result<Isa> {
        let found = Isa::detected().into_iter().find(|i| i.name() == name);
        found.ok_or_else(|| {
            let legal = Isa::detected().iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
            Error::new(Kind::Options, format!("instruction set '{name}' is not available; legal on this machine: {legal}"))
        })
    }

    /// The Cranelift target for this level on this machine.
    pub(crate) fn cranelift(self) -> Result<OwnedTargetIsa> {
        let failed = |e: &dyn fmt::Display| Error::new(Kind::Codegen, format!("cannot set up code generation for {}: {e}", self.name()));
        let mut shared = settings::builder();
        // `none` keeps our instruction order and compiles an order of magnitude faster than `speed`.
        for (name, value) in
            [("opt_level", "none"), ("is_pic", "false"), ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" })]
        {
            shared.set(name, value).map_err(|e| failed(&e))?;
        }
        let mut builder = isa::lookup(target_lexicon::Triple::host()).map_err(|e| failed(&e))?;
        if self.arch() == "x86_64" && self.fma() {
            for flag in ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_avx", "has_avx2", "has_fma"] {
                builder.enable(flag).map_err(|e| failed(&e))?;
            }
        }
        builder.finish(settings::Flags::new(shared)).map_err(|e| failed(&e))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
