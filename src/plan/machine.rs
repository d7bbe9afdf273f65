//! The machine that the cost model sees, a processor at one instruction-set level: widths, slots, registers, caches, and what data costs on its way.

use super::processor::{Processor, Rates};
use crate::codegen::target::Isa;
use crate::ir::Elem;
use std::fmt;

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
    /// What data costs on its way.
    pub rates: Rates,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [l1, l2, l3] = [self.l1, self.l2, self.l3].map(|bytes| bytes >> 10);
        write!(f, "caches of {l1}, {l2} and {l3} KiB a core can count on, rates as timed on {}", self.rates.of)
    }
}

impl Machine {
    /// Bytes per cycle from the cache that holds so many bytes.
    pub fn rate(&self, bytes: f64) -> f64 {
        match bytes {
            b if b <= self.l1 as f64 => 64.0,
            b if b <= self.l2 as f64 => self.rates.l2,
            b if b <= self.l3 as f64 * 0.6 => self.rates.l3,
            _ => self.rates.memory,
        }
    }

    /// A processor at a level.
    pub fn of(isa: Isa, elem: Elem, processor: &Processor) -> Machine {
        let [l1, l2, l3] = processor.caches;
        // A multiply and an add take two slots where they are not fused.
        let fma_per_cycle = if isa.fma() { 2.0 } else { 1.0 };
        let passes = (isa.vector_bytes() as f64 / processor.unit as f64).max(1.0);
        Machine {
            isa,
            lanes: isa.lanes(elem),
            fma_per_cycle: fma_per_cycle / passes,
            loads_per_cycle: 2.0 / passes,
            passes,
            latency: 4.0,
            registers: isa.registers(),
            l1,
            l2,
            l3,
            rates: processor.rates,
        }
    }
}
