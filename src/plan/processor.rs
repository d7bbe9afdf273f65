//! Processors: their caches, how wide their units are, and what data costs on its way, as plans timed on them show it.

use crate::{Error, Kind, Result};
use std::sync::OnceLock;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A processor as plans are chosen for it: what is the same at every instruction-set level.
///
/// Plans may be chosen for another processor than this one, to see them or to ship them:
///
/// ```
/// use polyphase::{Deconv, Options, codegen::target::Isa, plan::{Processor, choose}};
/// let layer: Deconv = "2d n1 256x32x32 -> 128 k4 s2 p1".parse()?;
/// for processor in Processor::KNOWN {
///     let options = Options { processor: Some(processor), ..Options::default() };
///     println!("{}: {}", processor.name, choose(&layer, Isa::Avx512, &options, true)?.plan);
/// }
/// # Ok::<(), polyphase::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Processor {
    /// Its name, as options spell it; `this` for the one that runs the program.
    pub name: &'static str,
    /// Bytes of the data caches that one core can count on: first, second and last level.
    pub caches: [usize; 3],
    /// Bytes of a vector that a unit takes at once.
    pub unit: usize,
    /// What data costs on its way.
    pub rates: Rates,
}

impl Processor {
    /// AMD's Zen 3, which has AVX2 only.
    pub const ZEN_3: Processor = Processor { name: "zen3", caches: [32 << 10, 512 << 10, 32 << 20], unit: 32, rates: Rates::ZEN_3 };
    /// AMD's Zen 4.
    pub const ZEN_4: Processor = Processor { name: "zen4", caches: [32 << 10, 1 << 20, 32 << 20], unit: 32, rates: Rates::ZEN_4 };
    /// AMD's Zen 5 with AVX-512 units at full width, as its servers have.
    pub const ZEN_5: Processor = Processor { name: "zen5", caches: [48 << 10, 1 << 20, 32 << 20], unit: LINE, rates: Rates::ZEN_5 };
    /// Intel's Cascade Lake, and Skylake as its servers have it.
    pub const CASCADE_LAKE: Processor =
        Processor { name: "cascade-lake", caches: [32 << 10, 1 << 20, 32 << 20], unit: LINE, rates: Rates::CASCADE_LAKE };
    /// A later server of Intel's with AVX-512 units at full width.
    pub const INTEL_SERVER: Processor =
        Processor { name: "intel-server", caches: [48 << 10, 2 << 20, SHARED], unit: LINE, rates: Rates::MESH };
    /// The processors whose rates were timed.
    pub const KNOWN: [Processor; 5] =
        [Processor::ZEN_3, Processor::ZEN_4, Processor::ZEN_5, Processor::CASCADE_LAKE, Processor::INTEL_SERVER];

    /// The processor that runs this program: its caches and units where it tells them, and the rates of the known one that it is most like.
    pub fn this() -> Processor {
        let [l1, l2, l3] = caches();
        let rates = match (skylake(), mesh(), zen_5(), zen_3()) {
            (true, ..) => Rates::CASCADE_LAKE,
            (_, true, ..) => Rates::MESH,
            (.., true, _) => Rates::ZEN_5,
            (.., true) => Rates::ZEN_3,
            _ => Rates::ZEN_4,
        };
        Processor { name: "this", caches: [l1, l2, l3.min(SHARED)], unit: unit_bytes(), rates }
    }

    /// A known processor by its name, or `this`.
    ///
    /// # Errors
    /// [`Kind::Options`] for any other name.
    pub fn named(name: &str) -> Result<Processor> {
        let known = Processor::KNOWN.into_iter().find(|p| p.name == name);
        let this = || (name == "this").then(Processor::this);
        known.or_else(this).ok_or_else(|| {
            let names = Processor::KNOWN.map(|p| p.name).join(", ");
            Error::new(Kind::Options, format!("no processor is called '{}'; legal: this, {names}", name.escape_debug()))
        })
    }
}

/// What one core can count on of a last level that many share: beyond it, data came as slowly as from memory (timed on a server with 480 MiB).
const SHARED: usize = 96 << 20;

/// What data costs on its way to a core and beside its sums, as timed plans show it: the part of a processor that no manual states.
///
/// One set is fitted to plans of the benchmark's layers that were timed on AMD's Zen 4, one each to those on its Zen 3 (AVX2) and Zen 5, one to those on two
/// servers of Intel's (48 KiB and 2 MiB a core, a last level behind a mesh) at AVX-512; the last starts from these and is fitted to plans of 33 layers
/// on Intel's Cascade Lake. On all but the first two multiply-adds take half as long; on Intel's whatever lies beyond the second level is twice to four times as far
/// away besides, so that other plans win. Cascade Lake has fewer slots for loads, and a page that is read in place costs more there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The kind of machine that they were timed on.
    pub of: &'static str,
    /// Bytes per cycle from the second level.
    pub l2: f64,
    /// Bytes per cycle of a panel's rows that come from the second level while a direct tile computes.
    pub rows: f64,
    /// Bytes per cycle from the last level.
    pub l3: f64,
    /// Bytes per cycle from and to memory.
    pub memory: f64,
    /// Bytes of weights per cycle that the second level, the last one and memory send while a direct tile computes.
    pub weights: [f64; 3],
    /// The same for products of transformed windows; from the second level come windows and weights together.
    pub factors: [f64; 3],
    /// The power of the share of 128 bytes a step that such weights come with from memory where a step needs fewer.
    pub narrow: f64,
    /// The share of the time that these take when they come again, for another tile of windows, by which the first ones from beyond the second level come later. Of
    /// AMD's not timed.
    pub again: f64,
    /// Loads of an element into every lane, per cycle.
    pub broadcasts: f64,
    /// How sharply the slowest resource of a reduction step prevails over the others: the power of the mean is two to the power of this.
    pub sharp: u32,
    /// Cycles of a reduction step beside multiply-adds and loads.
    pub step: f64,
    /// Cycles that each line of a tile's piece of a channel takes to arrive where it is read in place, from a page of its own.
    pub line: f64,
    /// Rows that are fetched ahead where they are read in place side by side, a few channels at a time; 0 where that was not timed.
    pub streams: usize,
    /// Cycles that each line of the output takes besides, for each time the second level that a panel is larger than an eighth of it: it goes through it, too. Of
    /// others than Cascade Lake not timed.
    pub crowded: f64,
    /// Cycles to copy a vector into a panel.
    pub fill: f64,
    /// Cycles to start copying from another page.
    pub start: f64,
    /// Cycles to copy one element into a panel whose order differs from the input's.
    pub turned: f64,
    /// How many times as long as on Zen 4 storing lanes takes that are apart, channels last.
    pub apart: f64,
    /// How many times as long as its bytes alone the first panel takes to arrive, since no block before it has asked for it.
    pub cold: f64,
    /// Lines of the output that may be under way at once.
    pub under_way: f64,
    /// The share of the second level that the weights of a direct tile and a panel may take and stay there.
    pub holds: f64,
    /// The share of the second level that windows and products may take and stay there: weights and outputs go through it as well.
    pub stays: f64,
    /// The share of the time for windows, products and weights from the last level again that does not overlap with computing.
    pub reread: f64,
    /// How many times as long products take that leave the second level while they wait: they are written, too.
    pub waiting: f64,
    /// The share of the time for inputs and outputs that does not overlap with computing.
    pub tensors: f64,
    /// Cycles that a piece of a row takes besides, if it is a cache line long and blocks are that narrow. Of AMD's not timed: what comes again.
    pub piece: f64,
    /// Cycles that each piece of a row but the first takes besides, however long it is. Of others than Cascade Lake not timed.
    pub cut: f64,
    /// Loads that a vector across two lines counts for where it is shifted out of lines that other vectors are shifted out of, too.
    pub shifted: f64,
    /// Cycles more for storing a vector of transformed windows where rows are joined, so that it lies across two lines beyond the first level.
    pub joined: f64,
    /// Cycles that each line of the output takes besides, beyond the second level, where transforms store it: direct sums ask for it before they add up. Of
    /// AMD's not timed.
    pub leaving: f64,
}

impl Rates {
    const ZEN_4: Rates = Rates {
        of: "Zen 4",
        l2: 32.0,
        rows: 29.0,
        l3: 12.0,
        memory: 7.0,
        weights: [40.0, 28.0, 8.0],
        factors: [24.0, 24.0, 6.0],
        narrow: 0.35,
        again: 0.0,
        broadcasts: 2.0,
        sharp: 3,
        step: 0.4,
        line: 0.0,
        streams: 0,
        crowded: 0.0,
        fill: 2.0,
        start: 75.0,
        turned: 0.5,
        apart: 1.0,
        cold: 0.0,
        under_way: 16.0,
        holds: 1.0,
        stays: 0.5,
        reread: 0.16,
        waiting: 3.0,
        tensors: 0.8,
        piece: 27.0,
        cut: 0.0,
        shifted: 2.0,
        joined: 0.0,
        leaving: 0.0,
    };
    const ZEN_3: Rates = Rates {
        of: "Zen 3",
        rows: 24.0,
        l3: 8.0,
        memory: 5.0,
        weights: [28.0, 20.0, 6.0],
        factors: [24.0, 8.0, 6.0],
        broadcasts: 1.8,
        start: 40.0,
        holds: 0.6,
        stays: 0.3,
        piece: 50.0,
        ..Rates::ZEN_4
    };
    const ZEN_5: Rates = Rates {
        of: "Zen 5",
        memory: 8.0,
        step: 0.47,
        factors: [28.5, 11.0, 9.0],
        stays: 0.15,
        reread: 0.33,
        waiting: 1.0,
        tensors: 0.14,
        shifted: 1.5,
        ..Rates::ZEN_4
    };
    const MESH: Rates = Rates {
        of: "a server of Intel's",
        l2: 20.0,
        rows: 29.0,
        l3: 5.5,
        memory: 4.0,
        weights: [28.0, 9.0, 4.0],
        factors: [17.5, 6.5, 4.5],
        narrow: 0.0,
        again: 1.0,
        broadcasts: 3.5,
        sharp: 2,
        step: 1.7,
        line: 5.0,
        streams: 0,
        crowded: 0.0,
        fill: 8.0,
        start: 75.0,
        turned: 2.0,
        apart: 1.5,
        cold: 4.0,
        under_way: 20.0,
        holds: 0.8,
        stays: 0.25,
        reread: 0.15,
        waiting: 1.0,
        tensors: 0.8,
        piece: 83.0,
        cut: 0.0,
        shifted: 1.5,
        joined: 3.0,
        leaving: 8.5,
    };
    const CASCADE_LAKE: Rates = Rates {
        of: "Cascade Lake",
        l3: 8.0,
        weights: [40.0, 8.0, 4.0],
        factors: [21.0, 6.5, 4.5],
        broadcasts: 2.6,
        line: 10.0,
        streams: 8,
        crowded: 45.0,
        fill: 5.5,
        start: 20.0,
        cold: 2.0,
        cut: 80.0,
        ..Rates::MESH
    };
}

/// Bytes of a vector that a unit takes at once. AMD's processors say it; of others the widest is assumed.
#[cfg(target_arch = "x86_64")]
fn unit_bytes() -> usize {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_001a;
    // In a virtual machine every question is one for the host.
    static FOUND: OnceLock<usize> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let told = made_by(b"AuthenticAMD") && __cpuid(0x8000_0000).eax >= LEAF;
        if told { widest_unit(__cpuid(LEAF).eax) } else { LINE }
    })
}

/// The width that leaf 8000_001A gives in its first word: bit 0 for 128 bits, bit 2 for 256, bit 3 for 512. Where none is set, as on Zen 5 in a virtual machine,
/// it tells nothing, and the widest is assumed.
#[cfg(target_arch = "x86_64")]
fn widest_unit(told: u32) -> usize {
    match told {
        w if w & 8 != 0 => LINE,
        w if w & 4 != 0 => 32,
        w if w & 1 != 0 => 16,
        _ => LINE,
    }
}

/// Whether cores share a last level behind a mesh: servers of Intel's, which those with AVX-512 are but for a few.
#[cfg(target_arch = "x86_64")]
fn mesh() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| made_by(b"GenuineIntel") && std::is_x86_feature_detected!("avx512f"))
}

/// Whether it is one of the first of these, Skylake or Cascade Lake: those from Ice Lake on permute bytes.
#[cfg(target_arch = "x86_64")]
fn skylake() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| mesh() && !std::is_x86_feature_detected!("avx512vbmi"))
}

/// Whether it is AMD's Zen 5 or later: families from 1Ah on.
#[cfg(target_arch = "x86_64")]
fn zen_5() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| made_by(b"AuthenticAMD") && family(std::arch::x86_64::__cpuid(1).eax) >= 0x1a)
}

/// Whether it is AMD's Zen 3 or an earlier one: their widest vectors are those of AVX2.
#[cfg(target_arch = "x86_64")]
fn zen_3() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| made_by(b"AuthenticAMD") && !std::is_x86_feature_detected!("avx512f"))
}

/// The family in the first word of leaf 1: four bits, and eight more to add where those are full.
#[cfg(target_arch = "x86_64")]
fn family(told: u32) -> u32 {
    match told >> 8 & 0xf {
        0xf => 0xf + (told >> 20 & 0xff),
        base => base,
    }
}

#[cfg(target_arch = "x86_64")]
fn made_by(vendor: &[u8; 12]) -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == vendor
}

/// Elsewhere vectors are no wider than the units.
#[cfg(not(target_arch = "x86_64"))]
fn unit_bytes() -> usize {
    LINE
}

#[cfg(not(target_arch = "x86_64"))]
fn mesh() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn skylake() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn zen_5() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn zen_3() -> bool {
    false
}

/// Sizes of the data caches in bytes: first, second and third level.
fn caches() -> [usize; 3] {
    static FOUND: OnceLock<[usize; 3]> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let mut sizes = [32 << 10, 1 << 20, 16 << 20];
        for index in 0..8 {
            let read = |what: &str| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}"));
            let (Ok(level), Ok(kind), Ok(size)) = (read("level"), read("type"), read("size")) else { break };
            let size = size.trim();
            let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
            let scale = match unit {
                "K" => 1 << 10,
                "M" => 1 << 20,
                _ => 1,
            };
            if let (Ok(level @ 1..=3), Ok(n)) = (level.trim().parse::<usize>(), digits.parse::<usize>())
                && kind.trim() != "Instruction"
            {
                sizes[level - 1] = n * scale;
            }
        }
        sizes
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_does_not_tell_its_units_has_the_widest() {
        const MOVU: u32 = 2;
        assert_eq!([1, 4, 8, 12].map(|bits| widest_unit(bits | MOVU)), [16, 32, 64, 64]);
        assert_eq!([0, MOVU].map(widest_unit), [64, 64]);
    }

    #[test]
    fn a_family_is_the_sum_of_two_fields() {
        // Zen 5, Zen 4, and a server of Intel's with AVX-512.
        assert_eq!([0x00b0_0f21, 0x00a1_0f11, 0x000c_06f2].map(family), [0x1a, 0x19, 0x6]);
    }
}
