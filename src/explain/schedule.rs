//! How it will be computed: the plan with its reasons and rivals, the register tile, memory, and what each pass did.
//!
//! *Needs* a validated problem. *Leaves* the same plan that `compile` would follow for finite weights, because it asks the same function.

use super::facts::{Sizes, value_of};
use crate::codegen::target::Isa;
use crate::ir::{BufferKind, Func, Stmt};
use crate::plan::{self, Cost, Plan, Version};
use crate::runtime::scratch::Places;
use crate::{Deconv, Options, Result, passes};
use serde::Serialize;

/// Cycles per microsecond that predictions in time assume; predictions themselves are cycles.
const MHZ: f64 = 3700.0;

/// The schedule of a problem.
#[derive(Debug, Clone, Serialize)]
pub struct Schedule {
    /// Instruction-set level.
    pub isa: &'static str,
    /// Threads.
    pub threads: usize,
    /// The plan in one line; of several, the one for the example extents.
    pub plan: String,
    /// The plans of a problem with open spatial extents, for sizes in ascending order; empty if there is one plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionOf>,
    /// `gather` or `scatter`.
    pub form: &'static str,
    /// Why, one sentence per decision.
    pub reasons: Vec<String>,
    /// How many plans were considered.
    pub candidates: usize,
    /// The machine that costs are predicted for.
    pub machine: String,
    /// The predicted cost of the plan.
    pub cost: CostOf,
    /// The best plan of every other kind, cheapest first.
    pub rejected: Vec<CostOf>,
    /// The register tile.
    pub tile: Tile,
    /// Memory that the kernel needs besides the tensors.
    pub memory: Memory,
    /// What every pass did.
    pub passes: Vec<Pass>,
}

/// A plan for one size.
#[derive(Debug, Clone, Serialize)]
pub struct VersionOf {
    /// The spatial input extents for which it was chosen.
    pub typical: Vec<usize>,
    /// The plan in one line.
    pub plan: String,
    /// Bytes of its packed weights, but for what fills up its last tile.
    pub packed: u64,
    /// The first of the versions that pack the weights as it does.
    pub packing: usize,
    /// Whether it is the one for the example extents.
    pub shown: bool,
}

/// Predicted cycles of a plan on one thread, by cause.
#[derive(Debug, Clone, Serialize)]
pub struct CostOf {
    /// The plan in one line.
    pub plan: String,
    /// All of it.
    pub cycles: f64,
    /// That in microseconds at a nominal clock.
    pub microseconds: f64,
    /// Cycles relative to the chosen plan.
    pub relative: f64,
    /// Reduction steps of tiles.
    pub compute: f64,
    /// Storing tiles.
    pub store: f64,
    /// Filling panels.
    pub panel: f64,
    /// Weights and outputs from and to caches and memory.
    pub traffic: f64,
}

impl CostOf {
    fn new(plan: &Plan, cost: &Cost, chosen: &Cost) -> Self {
        let cycles = cost.cycles();
        CostOf {
            plan: plan.to_string(),
            cycles,
            microseconds: cycles / MHZ,
            relative: if chosen.cycles() > 0.0 { cycles / chosen.cycles() } else { 1.0 },
            compute: cost.compute,
            store: cost.store,
            panel: cost.panel,
            traffic: cost.traffic,
        }
    }
}

/// The register tile and the registers that it takes.
#[derive(Debug, Clone, Serialize)]
pub struct Tile {
    /// Its name, which is its shape.
    pub name: String,
    /// Its axes, outer ones first: variable and extent in elements.
    pub axes: Vec<(String, usize)>,
    /// The axis along the lanes.
    pub along: String,
    /// Lanes of a vector.
    pub lanes: usize,
    /// The register arrays that the lowered function declares.
    pub registers: Vec<Registers>,
    /// Accumulators, in machine registers.
    pub accumulators: usize,
    /// Vector registers of the machine.
    pub budget: usize,
}

/// One register array.
#[derive(Debug, Clone, Serialize)]
pub struct Registers {
    /// Its name in the IR.
    pub name: String,
    /// Its extents.
    pub dims: Vec<usize>,
    /// Lanes of each entry.
    pub lanes: usize,
    /// Machine registers that it fills.
    pub vectors: usize,
}

/// Memory besides the tensors, in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Scratch of one thread: less than all its buffers, if some make way for others.
    pub scratch: u64,
    /// Its buffers.
    pub buffers: Vec<Scratch>,
    /// Packed weights, kept by the kernel.
    pub packed: u64,
}

/// One scratch buffer.
#[derive(Debug, Clone, Serialize)]
pub struct Scratch {
    /// Its name in the IR.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: u64,
}

/// One pass.
#[derive(Debug, Clone, Serialize)]
pub struct Pass {
    /// Its name, as `dump-ir --after` takes it.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Whether it changed this layer.
    pub changed: bool,
    /// How long it took.
    pub microseconds: f64,
}

/// The schedule that `compile` would follow for finite weights.
pub(super) fn schedule(p: &Deconv, sizes: &Sizes, options: &Options) -> Result<Schedule> {
    let isa = match options.isa {
        Some(isa) => isa,
        None => Isa::best()?,
    };
    let mut all = plan::versions(p, isa, options, true)?;
    let shown = plan::cheapest(all.iter(), &sizes.input);
    let lowered = if all.len() > 1 { all.iter_mut().map(|v| v.lower(p)).collect::<Result<Vec<Func>>>()? } else { Vec::new() };
    let of = |(i, (v, func)): (usize, (&Version, &Func))| VersionOf {
        typical: v.typical.clone(),
        plan: v.choice.plan.to_string(),
        packed: plan::packed_bytes(func) as u64,
        packing: all.iter().position(|first| plan::packs_alike(&first.choice.plan, &v.choice.plan)).unwrap_or(i),
        shown: i == shown,
    };
    let versions = all.iter().zip(&lowered).enumerate().map(of).collect();
    let choice = all.swap_remove(shown).choice;
    let snapshots = passes::snapshots(p, &choice.plan)?;
    let func = &snapshots[snapshots.len() - 1].func;
    let summary =
        |name| passes::PASSES.iter().find(|p| p.name == name).map_or("the zero-inserted loop nest that textbooks draw", |p| p.summary);
    Ok(Schedule {
        isa: isa.name(),
        threads: options.threads,
        plan: choice.plan.to_string(),
        versions,
        form: choice.plan.form.name(),
        candidates: choice.candidates,
        machine: choice.machine.to_string(),
        cost: CostOf::new(&choice.plan, &choice.cost, &choice.cost),
        rejected: choice.rejected.iter().map(|r| CostOf::new(&r.plan, &r.cost, &choice.cost)).collect(),
        tile: tile(func, &choice.plan, isa),
        memory: memory(func, sizes)?,
        passes: snapshots
            .iter()
            .map(|s| Pass { name: s.pass, summary: summary(s.pass), changed: s.changed, microseconds: s.time.as_secs_f64() * 1e6 })
            .collect(),
        reasons: choice.reasons,
    })
}

fn tile(func: &Func, plan: &Plan, isa: Isa) -> Tile {
    let mut name = None;
    for s in &func.run {
        s.visit(&mut |s| {
            if let Stmt::Tile { name: n, .. } = s
                && !n.as_str().starts_with("copy-")
            {
                name.get_or_insert_with(|| n.to_string());
            }
        });
    }
    let registers: Vec<Registers> = func
        .regs
        .iter()
        .map(|r| {
            let entry = (r.lanes * func.elem.bytes()).div_ceil(isa.vector_bytes());
            Registers { name: r.name.to_string(), dims: r.dims.clone(), lanes: r.lanes, vectors: r.dims.iter().product::<usize>() * entry }
        })
        .collect();
    let accumulators = registers.iter().filter(|r| r.name == crate::ir::names::ACC).map(|r| r.vectors).sum();
    Tile {
        name: name.unwrap_or_else(|| "none".into()),
        axes: plan.tile.iter().map(|t| (t.var.to_string(), t.extent)).collect(),
        along: plan.vector.to_string(),
        lanes: plan.lanes,
        registers,
        accumulators,
        budget: isa.registers(),
    }
}

fn memory(func: &Func, sizes: &Sizes) -> Result<Memory> {
    let mut memory = Memory { scratch: 0, buffers: vec![], packed: 0 };
    let mut scratch = vec![0; func.buffers.len()];
    for (i, b) in func.buffers.iter().enumerate() {
        let shape = b.dims.iter().map(|d| value_of(d, &func.symbols, &sizes.symbols)).collect::<Result<Vec<_>>>()?;
        let bytes = shape.iter().fold(b.elem.bytes() as u64, |n, d| n.saturating_mul(*d as u64));
        match b.kind {
            BufferKind::Scratch => {
                scratch[i] = bytes as usize;
                memory.buffers.push(Scratch { name: b.name.to_string(), shape, bytes });
            }
            BufferKind::Packed => memory.packed += bytes,
            _ => {}
        }
    }
    memory.scratch = Places::of(func).lay_out(&scratch, &mut vec![0; func.buffers.len()]).map_or(u64::MAX, |bytes| bytes as u64);
    Ok(memory)
}
