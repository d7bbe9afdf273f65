//! The cost model: predicted cycles of a plan on one thread, by cause.
//!
//! A tile's reduction step costs what its slowest resource needs: multiply-adds, loads, or the latency of its chain of accumulators. On top of
//! it come the stores of a tile, the panel, and what streams from caches and memory. Tiles that overhang the output work for nothing,
//! which shows as more tiles.

use super::machine::Machine;
use super::{Form, Plan};
use crate::ir::names::axes;
use crate::problem::{Deconv, Extent, Layout};

/// Predicted cycles, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Reduction steps of all tiles.
    pub compute: f64,
    /// Storing tiles: interleaving, transposing, clipping.
    pub store: f64,
    /// Filling panels.
    pub panel: f64,
    /// Weights and outputs from and to caches and memory, beyond what overlaps with computing.
    pub traffic: f64,
}

impl Cost {
    /// All of it.
    pub fn cycles(&self) -> f64 {
        self.compute + self.store + self.panel + self.traffic
    }
}

/// What an open extent is taken to be.
const OPEN: usize = 64;
/// Calling a tile: arguments, call, loops around it.
const CALL: f64 = 40.0;
/// Loop control of one reduction step.
const STEP: f64 = 1.0;

/// The cost of a plan.
pub fn cost(p: &Deconv, plan: &Plan, m: &Machine) -> Cost {
    Model::new(p, plan, m).cost()
}

struct Model<'a> {
    p: &'a Deconv,
    plan: &'a Plan,
    m: &'a Machine,
    rank: usize,
    batch: f64,
    ic: f64,
    oc: f64,
    input: Vec<f64>,
    output: Vec<f64>,
}

impl<'a> Model<'a> {
    fn new(p: &'a Deconv, plan: &'a Plan, m: &'a Machine) -> Self {
        let known = |e: &Extent, open: usize| if let Extent::Fixed(v) = e { *v } else { open };
        let input: Vec<usize> = p.input.iter().map(|e| known(e, OPEN)).collect();
        let output = (0..p.rank()).map(|a| p.output_extent(a).eval(&mut |_| input[a] as i64).max(1) as f64).collect();
        Model {
            p,
            plan,
            m,
            rank: p.rank(),
            batch: known(&p.batch, 1) as f64,
            ic: (p.c_in / p.groups) as f64,
            oc: (p.c_out / p.groups) as f64,
            input: input.iter().map(|i| *i as f64).collect(),
            output,
        }
    }

    fn extent(&self, role: &str, a: usize) -> f64 {
        self.plan.extent(&format!("{role}{}", axes(self.rank)[a])) as f64
    }

    /// Taps of a phase, on average.
    fn taps(&self, a: usize) -> f64 {
        self.p.kernel[a] as f64 / self.p.stride[a] as f64
    }

    fn cost(&self) -> Cost {
        match self.plan.form {
            Form::Gather => self.gather(),
            Form::Scatter => self.scatter(),
        }
    }

    fn gather(&self) -> Cost {
        let (plan, m) = (self.plan, self.m);
        let x = self.rank - 1;
        let lanes = plan.lanes as f64;
        let (moc, mq, mrow, mr) =
            (plan.extent("oc") as f64, self.extent("q", x), if self.rank > 1 { self.extent("q", x - 1) } else { 1.0 }, self.extent("r", x));
        let vectors = moc * mq * mrow * mr / lanes;

        // How many tiles: positions of each phase, rounded up to tiles, times phases and channels.
        let mut tiles = self.batch * self.p.groups as f64 * (self.oc / moc).ceil();
        for a in 0..self.rank {
            let phases = self.p.stride[a] as f64 / self.extent("r", a);
            let span = self.output[a] / self.p.stride[a] as f64
                + if plan.aligned && self.p.pad_begin[a] % self.p.stride[a] as i64 != 0 { 1.0 } else { 0.0 };
            let tile = self.extent("q", a);
            let block = if plan.block[a] > 0 { plan.block[a] as f64 } else { span };
            let whole = (span / block).floor();
            let rest = span - whole * block;
            tiles *= phases * (whole * (block / tile).ceil() + (rest / tile).ceil());
        }

        // One reduction step is one channel and one combination of taps.
        let steps: f64 = self.ic * (0..self.rank).map(|a| self.taps(a)).product::<f64>();
        let (operand, scalars) = match plan.vector.as_str() {
            // Column phases read shifted windows: each has vectors of its own.
            "qx" => (mq / lanes * mrow * mr, moc * mr),
            "oc" => (moc / lanes, mq * mrow),
            _ => (mr / lanes, mq * mrow),
        };
        let per_scalar = vectors / scalars;
        let broadcasts = if m.isa.wide() && per_scalar <= 1.5 { vectors } else { scalars };
        let fmas = vectors / m.fma_per_cycle;
        let loads = (operand + broadcasts) / m.loads_per_cycle;
        let chain = m.latency * (vectors / vectors.max(1.0)) / 1.0;
        let guard = if plan.panel { 0.0 } else { 2.0 };
        let body = fmas.max(loads).max(chain / (vectors * m.fma_per_cycle).max(1.0) * fmas.max(0.5));
        let latency_bound = if vectors < m.latency * m.fma_per_cycle { m.latency } else { 0.0 };
        let step = body.max(latency_bound) + STEP / (mr * 2.0).max(1.0) + guard / self.ic.max(1.0);
        // Cranelift's allocator spills accumulators and loads them back.
        let spill = if m.isa.wide() { 1.0 } else { 2.0 };
        let compute = tiles * (steps * step * spill + CALL);

        let contiguous = match (plan.vector.as_str(), self.p.layout) {
            ("qx", Layout::ChannelsFirst) => self.p.stride[x] == plan.extent("rx") && plan.extent("rx") <= 4,
            ("oc", Layout::ChannelsLast) | ("rx", Layout::ChannelsFirst) => true,
            _ => false,
        };
        let store = tiles * vectors * if contiguous { 2.0 } else { lanes * 1.5 };

        let halo = |a: usize| (self.taps(a).ceil() - 1.0) * self.p.dilation[a] as f64;
        let mut filled = self.batch * self.p.c_in as f64 * plan.channel_parts as f64;
        for a in 0..self.rank {
            let block = if plan.block[a] > 0 { plan.block[a] as f64 } else { self.input[a] + 1.0 };
            filled *= (self.input[a] / block).ceil() * (block + halo(a));
        }
        let panel = if plan.panel { filled / lanes.min(4.0) * 1.5 } else { 0.0 };

        Cost { compute, store, panel, traffic: self.traffic(tiles) }
    }

    fn scatter(&self) -> Cost {
        let (plan, m) = (self.plan, self.m);
        let x = self.rank - 1;
        let lanes = plan.lanes as f64;
        let (moc, mk) = (plan.extent("oc") as f64, plan.extent("kx") as f64);
        let vectors = moc * mk / lanes;
        let patches: f64 = self.batch * self.input.iter().product::<f64>() * self.p.groups as f64 * (self.oc / moc).ceil();
        let kernel: f64 = self.p.kernel[..x].iter().map(|k| *k as f64).product::<f64>() * (self.p.kernel[x] as f64 / mk).ceil();
        let step = (vectors / m.fma_per_cycle).max(vectors / m.loads_per_cycle).max(m.latency.min(4.0)) + STEP;
        let compute = patches * kernel * (self.ic * step + CALL);
        let contiguous =
            plan.vector == "kx" && self.p.layout == Layout::ChannelsFirst || plan.vector == "oc" && self.p.layout == Layout::ChannelsLast;
        let store = patches * kernel * vectors * if contiguous { 4.0 } else { lanes * 3.0 };
        let outputs = self.batch * self.p.c_out as f64 * self.output.iter().product::<f64>();
        Cost { compute, store, panel: outputs / lanes * 4.0, traffic: self.traffic(patches * kernel) }
    }

    /// Weights are read again for every block of positions, outputs are written once.
    fn traffic(&self, _tiles: f64) -> f64 {
        let m = self.m;
        let bytes = self.p.elem.bytes() as f64;
        let weights = self.p.weight_shape().iter().map(|d| *d as f64).product::<f64>() * bytes;
        let outputs = self.batch * self.p.c_out as f64 * self.output.iter().product::<f64>() * bytes;
        let blocks: f64 = self.batch
            * (0..self.rank)
                .map(|a| match self.plan.block[a] {
                    0 => 1.0,
                    b => (self.input[a] / b as f64).ceil(),
                })
                .product::<f64>();
        let rate = if weights > m.l3 as f64 {
            m.memory_bytes
        } else if weights > m.l2 as f64 {
            m.l3_bytes
        } else {
            m.l2_bytes
        };
        let out_rate = if outputs > m.l3 as f64 / 2.0 {
            m.memory_bytes
        } else if outputs > m.l2 as f64 {
            m.l3_bytes
        } else {
            m.l2_bytes
        };
        // The reads run ahead of the tile for the most part.
        0.3 * blocks * weights / rate + outputs / out_rate
    }
}
