//! The machine that the cost model sees: widths, slots, registers, caches.

use crate::codegen::target::Isa;
use crate::ir::Elem;
use std::sync::OnceLock;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What a core can do per cycle, and how much its caches hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// The level.
    pub isa: Isa,
    /// Lanes of a tile's vector.
    pub lanes: usize,
    /// Vector multiply-adds per cycle.
    pub fma_per_cycle: f64,
    /// Loads of a vector per cycle.
    pub loads_per_cycle: f64,
    /// Loads of an element into every lane, per cycle.
    pub broadcasts_per_cycle: f64,
    /// How many times a vector passes through a unit: 2 where the units are half as wide as the level's vectors.
    pub passes: f64,
    /// Cycles from one multiply-add to one that needs its result.
    pub latency: f64,
    /// Vector registers.
    pub registers: usize,
    /// Bytes of the first-level data cache.
    pub l1: usize,
    /// Bytes of the second-level cache of one core.
    pub l2: usize,
    /// Bytes of the last-level cache.
    pub l3: usize,
    /// Bytes per cycle from the second level.
    pub l2_bytes: f64,
    /// Bytes per cycle from the last level.
    pub l3_bytes: f64,
    /// Bytes per cycle from and to memory.
    pub memory_bytes: f64,
}

impl Machine {
    /// Bytes per cycle from the cache that holds so many bytes.
    pub fn rate(&self, bytes: f64) -> f64 {
        match bytes {
            b if b <= self.l1 as f64 => 64.0,
            b if b <= self.l2 as f64 => self.l2_bytes,
            b if b <= self.l3 as f64 * 0.6 => self.l3_bytes,
            _ => self.memory_bytes,
        }
    }

    /// The machine at a level, with the caches of this computer where it tells them.
    pub fn of(isa: Isa, elem: Elem) -> Machine {
        let [l1, l2, l3] = caches();
        // A multiply and an add take two slots where they are not fused.
        let fma_per_cycle = if isa.fma() { 2.0 } else { 1.0 };
        let passes = (isa.vector_bytes() as f64 / unit_bytes() as f64).max(1.0);
        Machine {
            isa,
            lanes: isa.lanes(elem),
            fma_per_cycle: fma_per_cycle / passes,
            loads_per_cycle: 2.0 / passes,
            broadcasts_per_cycle: 2.0,
            passes,
            latency: 4.0,
            registers: isa.registers(),
            l1,
            l2,
            l3,
            l2_bytes: 32.0,
            l3_bytes: 12.0,
            memory_bytes: 7.0,
        }
    }
}

/// Bytes of a vector that a unit takes at once. AMD's processors say it (leaf 8000_001A: bit 2 for 256 bits, bit 3 for 512); of others the widest is assumed.
#[cfg(target_arch = "x86_64")]
fn unit_bytes() -> usize {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_001a;
    // In a virtual machine every question is one for the host.
    static FOUND: OnceLock<usize> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let vendor = __cpuid(0);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        if name.as_flattened() != b"AuthenticAMD" || __cpuid(0x8000_0000).eax < LEAF {
            return LINE;
        }
        match __cpuid(LEAF).eax {
            w if w & 8 != 0 => LINE,
            w if w & 4 != 0 => 32,
            _ => 16,
        }
    })
}

/// Elsewhere vectors are no wider than the units.
#[cfg(not(target_arch = "x86_64"))]
fn unit_bytes() -> usize {
    LINE
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
