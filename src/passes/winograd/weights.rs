//! The weights of pass `winograd`: `prepare` transforms them, G along every axis, once.
//!
//! *Needs* the axes and the tile's channels. *Leaves* `u`, in blocks of channels that stay in cache from step to step.

use super::axis::{Axis, index_over, loops_over};
use super::sums::{Entry, Stored, Sum, axis_reg, sum};
use super::{CHANNELS, FACTORS, Lowering};
use crate::ir::names::{WEIGHT, part};
use crate::ir::{Affine, BufferKind, Cond, Loop, LoopKind, Name, Stmt};
use crate::passes::nest::wrap;
use crate::passes::simplify::fix;

impl Lowering<'_> {
    /// Which group a weight belongs to, if there are several, then products, input and output channel.
    pub(super) fn factor_index(&self) -> Vec<Affine> {
        let group = self.groups().map(|_| Affine::var("g"));
        group
            .into_iter()
            .chain(self.axes.iter().flat_map(Axis::factors).map(|c| Affine::var(c.var)))
            .chain([Affine::var("ic"), Affine::var("oc")])
            .collect()
    }

    pub(super) fn groups(&self) -> Option<&Loop> {
        self.par.iter().find(|l| l.var == "g" && self.weight.index[0].uses_var("g"))
    }

    /// `prepare`: blocks of channels, so that what one step leaves for the next stays in cache, and each step stores whole cache lines.
    pub(super) fn weights(&mut self) -> Vec<Stmt> {
        let rank = self.axes.len();
        let dims: Vec<i64> = self.func.buffer(WEIGHT).dims.iter().filter_map(Affine::as_const).collect();
        let (kernel, tile) = (&dims[2..], self.plan.extent("oc") as i64);
        let mut around: Vec<Loop> = self.groups().into_iter().map(|l| Loop { kind: LoopKind::Seq, ..l.clone() }).collect();
        let groups: Vec<i64> = around.iter().filter_map(|l| l.const_range().map(|r| r.1)).collect();
        // Channels in blocks: `oc.o` and `ic.o` count them, `oc.i` and `ic.i` count within.
        let split = |channel: &str, extent: i64, size: i64| {
            let (o, i) = (part(&channel.into(), "o"), part(&channel.into(), "i"));
            let at = Affine::var(o) * size + Affine::var(i);
            let exists = Cond::Range { lo: 0.into(), e: at.clone(), hi: extent.into() };
            (Loop::new(o, (extent + size - 1) / size, Vec::new()), Loop::new(i, size, Vec::new()), at, exists)
        };
        let (mut oc_blocks, oc_within, oc, oc_exists) = split("oc", dims[1], tile);
        let (ic_blocks, ic_within, ic, ic_exists) = split("ic", self.inputs, CHANNELS.min(self.inputs));
        let within = [Affine::var(ic_within.var), Affine::var(oc_within.var)];
        // Tiles of output channels that are held together are transformed together, since they are stored side by side.
        let (tiles, blocks) = (self.held / tile, oc_blocks.const_range().map_or(1, |r| r.1));
        let chunk = Loop::new(part(&"oc".into(), "k"), (blocks + tiles - 1) / tiles, Vec::new());
        let start = Affine::var(chunk.var) * tiles;
        oc_blocks.lo = vec![start.clone()];
        oc_blocks.hi = vec![start + tiles, blocks.into()];
        around.extend([chunk, oc_blocks, ic_blocks]);
        let channels: Vec<Affine> = self.weight.index[..2].iter().map(|e| e.subst("ic", &ic).subst("oc", &oc)).collect();
        let mut from: Name = WEIGHT.into();
        let mut body = Vec::new();
        for a in (0..rank).rev() {
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            let axis = &self.axes[a];
            let mut loops: Vec<Loop> = before.iter().zip(kernel).map(|(b, k)| Loop::new(b.var("k"), *k, Vec::new())).collect();
            loops.extend(behind.iter().flat_map(|b| loops_over(b.factors())));
            loops.extend([ic_within.clone(), oc_within.clone()]);
            let k: Vec<Affine> = before.iter().map(|b| b.at("k")).collect();
            let u: Vec<Affine> = behind.iter().flat_map(|b| index_over(b.factors())).collect();
            let tap = |e: i64| {
                let at = [k.clone(), vec![e.into()], u.clone()].concat();
                if a + 1 == rank { [channels.clone(), at].concat() } else { [at, within.to_vec()].concat() }
            };
            let to = |at: Vec<Affine>| {
                let at = [k.clone(), at, u.clone()].concat();
                if a > 0 {
                    return [at, within.to_vec()].concat();
                }
                self.groups().map(|_| Affine::var("g")).into_iter().chain(at).chain([ic.clone(), oc.clone()]).collect()
            };
            // Phase by phase, so that few taps wait in registers. The filter runs against the taps: its last coefficient belongs to tap 0.
            let mut phases: Vec<(Vec<Entry>, Vec<Stored>)> = Vec::new();
            for c in &axis.classes {
                // Phases whose windows interleave have the same taps.
                for (f, r) in c.phases.iter().enumerate().take(if axis.apart > 1 { 1 } else { usize::MAX }) {
                    let taps: Vec<i64> = (0..c.taps).rev().map(|t| self.tap(a, *r, t)).collect();
                    let products = c.toom.weight.iter().enumerate();
                    let stores = if let Some(all) = axis.taps() {
                        let one = |t: usize| Sum(taps.get(t).map(|e| (*e, 1.into())).into_iter().collect());
                        (0..all.count).map(|t| (to(axis.factor_at(c.u(0, f), t)), one(t as usize))).collect()
                    } else {
                        products.map(|(i, g)| (to(axis.factor_at(c.u(i, f), 0)), sum(g, |t| taps[t]))).collect()
                    };
                    phases.push((taps.iter().map(|&e| (e, tap(e))).collect(), stores));
                }
            }
            let counts = self.axes[a..].iter().flat_map(Axis::factors).map(|c| c.count);
            let extents: Vec<i64> = if a == 0 {
                groups.iter().copied().chain(counts).chain([self.inputs, dims[1]]).collect()
            } else {
                kernel[..a].iter().copied().chain(counts).chain([CHANNELS.min(self.inputs), tile]).collect()
            };
            let name = if a == 0 { FACTORS.into() } else { Name::from(format!("G{}", axis.name)) };
            let into = self.buffer(name, BufferKind::Packed, &extents);
            let prefix = axis_reg("g", a, rank);
            let step = phases.into_iter().flat_map(|(taps, stores)| self.transform(&prefix, &from, &taps, &into, stores)).collect();
            body.extend(wrap(&loops, Stmt::when(vec![ic_exists.clone(), oc_exists.clone()], step)));
            from = into;
        }
        wrap(&around, body)
    }

    /// The kernel position of a tap of a phase.
    fn tap(&self, a: usize, r: i64, t: i64) -> i64 {
        let axis = &self.axes[a];
        let at = fix(&self.weight.index[a + 2], axis.var("r").as_str(), r, &self.func.tables);
        fix(&at, axis.var("t").as_str(), t, &self.func.tables).as_const().unwrap_or(0)
    }
}
