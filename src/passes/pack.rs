//! Packing of weights, the part of pass `tile` that fills `prepare`.
//!
//! The packed buffer `wp` has one dimension per loop that the weight's index depends on, in the order in which the tile reads:
//! loops around the tile, reduction loops, then the tile's own axes with the one along the lanes last. Entries whose channel or kernel position
//! does not exist are 0.
//!
//! ```text
//! for oc.b in 0..11, ic in 0..256, tx in 0..2, oc.t in 0..6:      channels first, so that each cache line of weights is read once
//!   pack = 0
//!   when 0 <= 6*oc.b + oc.t < 64 and …: pack = w[ic, 6*oc.b + oc.t, rx + 2*tx]
//!   wp[oc.b, ic, tx, oc.t] = pack
//! ```
//!
//! Weights that `prepare` transforms (pass `winograd`) are not packed a second time: it stores them where the tile reads them.

mod memory;

use super::block::extreme;
use super::nest::wrap;
use super::winograd::{CHANNELS, FACTORS};
use crate::ir::names::{WEIGHT, part};
use crate::ir::{Access, Affine, Buffer, BufferKind, Cond, Func, Loop, Name, Reg, Stmt, Value};
use crate::{Error, Kind, Result};

/// The packed weights.
pub const PACKED: &str = "wp";
/// The loop over tiles of output channels, and the one over chunks whose products are held.
const TILES: &str = "oc.b";
const CHUNKS: &str = "oc.k";
/// The register through which they are copied.
const COPY: &str = "pack";
/// Bytes of a cache line: what a store past the caches has to fill.
const LINE: usize = 64;
/// Packed weights of so many bytes leave past the caches: a run would not find them there, and memory is not read before it is written.
const STREAMED: i64 = 32 << 20;

/// Collects how the weights are read, and writes `prepare`.
pub struct Packer {
    /// Bytes of a vector.
    vector: usize,
    packed: Option<(Access, Vec<Dim>)>,
}

/// One dimension of the packed weights.
#[derive(Clone)]
struct Dim {
    /// The variable that counts it.
    var: Name,
    /// Which entry the tile reads.
    index: Affine,
    extent: Affine,
    /// Where `prepare` stores it, in terms of the variable that counts the same there; by default as that is.
    stored: fn(Affine, Affine) -> Affine,
}

impl Dim {
    fn new(var: &Name, extent: Affine) -> Dim {
        Dim { var: *var, index: Affine::var(var), extent, stored: |at, _| at }
    }
}

impl Packer {
    /// For vectors of so many bytes.
    pub fn new(bytes: usize) -> Packer {
        Packer { vector: bytes, packed: None }
    }

    /// Replaces a load of the weights by one of the packed weights. `loops` surround the statement, `tile` are the axes within the tile,
    /// of which `vector` will lie along the lanes.
    pub fn redirect(&mut self, func: &Func, value: Value, loops: &[Loop], tile: &[(Name, usize)], vector: &Name) -> Result<Value> {
        let mut found = None;
        value.visit(&mut |v| {
            if let Value::Load(a) = v
                && (a.buffer == WEIGHT || a.buffer == FACTORS)
            {
                found = Some(a.clone());
            }
        });
        let Some(access) = found else { return Ok(value) };
        let used = |v: &Name| access.index.iter().any(|i| i.uses_var(v.as_str()));
        let mut dims: Vec<Dim> = Vec::new();
        for l in loops.iter().filter(|l| used(&l.var)) {
            dims.push(Dim::new(&l.var, trips(l, func, loops, tile)?));
        }
        if access.buffer == FACTORS {
            dims = in_order(dims, loops);
        }
        let (last, first): (Vec<_>, Vec<_>) = tile.iter().filter(|(t, _)| used(t)).partition(|(t, _)| t == vector);
        let along = !last.is_empty();
        dims.extend(first.into_iter().chain(last).map(|(t, e)| Dim::new(&t, Affine::from(e as i64))));
        let load = Value::Load(access.clone());
        let whole = extents(func).filter(|_| access.buffer == WEIGHT && !along);
        let (from, dims) = whole.and_then(|n| memory::together(&access, &dims, &n, self.wide())).unwrap_or((access, dims));
        let index = dims.iter().map(|d| d.index.clone()).collect();
        self.packed = Some((from, dims));
        let packed = Value::load(PACKED, index);
        Ok(value.map(&mut |v| if v == load { packed.clone() } else { v }))
    }

    /// Declares the packed buffer and writes the nest that fills it.
    pub fn finish(self, func: &mut Func) {
        let wide = self.wide();
        let Some((from, dims)) = self.packed else { return };
        if from.buffer == FACTORS {
            stored_in_place(func, &from, &dims);
        } else {
            copied(func, &from, dims, wide);
        }
        let packed = func.buffer(PACKED);
        let bytes = packed.dims.iter().filter_map(Affine::as_const).fold(packed.elem.bytes() as i64, i64::saturating_mul);
        if self.vector == LINE && bytes >= STREAMED {
            func.prepare.iter_mut().for_each(past_caches);
        }
    }

    /// Whether vectors are wide ones: these take neighbours whose lanes are apart through shuffles, and mask lanes.
    fn wide(&self) -> bool {
        self.vector > 16
    }
}

/// Lets packed weights leave past the caches.
fn past_caches(s: &mut Stmt) {
    if let Stmt::Store { to, stream, .. } = s {
        *stream |= to.buffer == PACKED;
    }
    s.body_mut().into_iter().flatten().for_each(past_caches);
}

/// Declares the packed buffer and writes the nest that copies the weights.
fn copied(func: &mut Func, from: &Access, dims: Vec<Dim>, wide: bool) {
    let lengths: Vec<Affine> = dims.iter().map(|d| d.extent.clone()).collect();
    let extents = extents(func);
    let apart = |n: &&Vec<i64>| wide && n.len() == from.index.len();
    let rows = extents.as_ref().filter(apart).and_then(|n| memory::rows(from, &dims, n, &func.tables));
    if let Some(n) = extents {
        let first = rows.as_ref().map_or(from.index.len() - 1, |r| r.first);
        let weight = func.buffers.iter_mut().find(|b| b.name == WEIGHT).expect("every function has weights");
        weight.dims = memory::flattened(&n, first).into_iter().map(Affine::from).collect();
        weight.order = (0..weight.dims.len()).collect();
    }
    let (around, body, regs) = match rows {
        Some(r) => (r.around, r.body, r.regs),
        None => {
            let (body, reg) = copy(func, from, &dims);
            (dims, body, vec![reg])
        }
    };
    // Channels around kernel positions: a cache line of weights, which holds one channel's positions, is read once.
    let counted = |d: &Dim| Loop::new(d.var, d.extent.clone(), Vec::new());
    let (tile, around): (Vec<_>, Vec<_>) = around.iter().partition(|d| d.var.as_str().ends_with(".t"));
    let (channels, positions): (Vec<_>, Vec<_>) =
        around.into_iter().partition(|d| matches!(d.var.as_str().as_bytes()[0], b'g' | b'o' | b'i'));
    let mut loops: Vec<Loop> = [channels, positions, tile].concat().into_iter().map(counted).collect();
    // A few input channels at a time around those of the output: what they read is a few streams, and what they write lies side by side.
    if let Some(at) = loops.iter().position(|l| l.var == "ic")
        && let Some((0, n)) = loops[at].const_range()
        && n > CHANNELS
    {
        let block = part(&"ic".into(), "o");
        let start = Affine::var(block) * CHANNELS;
        loops[at].lo = vec![start.clone()];
        loops[at].hi = vec![start + CHANNELS, n.into()];
        let outer = loops.iter().position(|l| l.var != "g").unwrap_or(0);
        loops.insert(outer, Loop::new(block, (n + CHANNELS - 1) / CHANNELS, Vec::new()));
    }
    func.prepare = wrap(&loops, body);
    func.regs.extend(regs);
    let (elem, order) = (func.buffer(WEIGHT).elem, (0..lengths.len()).collect());
    func.buffers.push(Buffer { name: PACKED.into(), kind: BufferKind::Packed, elem, dims: lengths, order });
}

/// The extents of the weights, which are known, in the order of memory.
fn extents(func: &Func) -> Option<Vec<i64>> {
    let weight = func.buffer(WEIGHT);
    weight.order.is_sorted().then(|| weight.dims.iter().map(Affine::as_const).collect()).flatten()
}

/// The copy of one entry, and the register that it goes through.
fn copy(func: &Func, from: &Access, dims: &[Dim]) -> (Vec<Stmt>, Reg) {
    let inside = |(e, hi): (&Affine, &Affine)| Cond::Range { lo: 0.into(), e: e.clone(), hi: hi.clone() };
    let conds = from.index.iter().zip(&func.buffer(WEIGHT).dims).map(inside).collect();
    let index = dims.iter().map(|d| Affine::var(d.var)).collect();
    let body = vec![
        Stmt::set(COPY, Value::Const(0.0)),
        Stmt::When { conds, body: vec![Stmt::set(COPY, Value::Load(from.clone()))] },
        Stmt::store(PACKED, index, Value::reg(COPY)),
    ];
    (body, Reg { name: COPY.into(), lanes: 1, dims: Vec::new() })
}

/// Transformed weights in the order in which they are read: the channels that are held at a time around all products of them, then the tiles of these.
/// So one run reads them from the first to the last, one after the other.
fn in_order(dims: Vec<Dim>, loops: &[Loop]) -> Vec<Dim> {
    let (tiles, mut out): (Vec<Dim>, Vec<Dim>) = dims.into_iter().partition(|d| d.var == TILES);
    let [tiles] = &tiles[..] else { return out };
    let group = out.iter().take_while(|d| d.var == "g").count();
    // Where the loop over tiles starts with those of a chunk, chunks are a dimension of their own.
    let start = loops.iter().find(|l| l.var == TILES).and_then(|l| if let [lo] = &l.lo[..] { Some(lo.clone()) } else { None });
    let chunks = loops.iter().find(|l| l.var == CHUNKS).and_then(Loop::const_range);
    let each = start.as_ref().map_or(0, |lo| lo.coef_of_var(CHUNKS));
    match (start, chunks) {
        (Some(start), Some((0, chunks))) if each > 0 && start == Affine::var(CHUNKS) * each => {
            let at = out.iter().position(|d| d.var == "ic").unwrap_or(out.len());
            let within = Dim {
                index: tiles.index.clone() - start.clone(),
                extent: each.into(),
                stored: |tile, start| tile - start,
                ..tiles.clone()
            };
            out.insert(at, within);
            out.insert(group, Dim { stored: |_, _| Affine::var(CHUNKS), ..Dim::new(&CHUNKS.into(), chunks.into()) });
        }
        _ => out.insert(group, tiles.clone()),
    }
    out
}

/// Makes `prepare` store its results in the order of the tile. Where the tile splits a channel, `prepare` has split it in the same way.
fn stored_in_place(func: &mut Func, from: &Access, dims: &[Dim]) {
    // What stands for a variable of the tile, given the index of a store: the same dimension, or the part of it with the same coefficient.
    let counted = |v: &str, to: &[Affine]| -> Affine {
        let Some(d) = from.index.iter().position(|e| e.uses_var(v)) else { return Affine::from(0) };
        if from.index[d] == Affine::var(v) {
            return to[d].clone();
        }
        let by = from.index[d].coef_of_var(v);
        to[d].terms.iter().find(|(_, c)| **c == by).map_or(Affine::from(0), |(atom, _)| Affine::atom(*atom))
    };
    // The first tile of a chunk, as the loops of `prepare` count them.
    let start = Affine::var(CHUNKS) * dims.iter().find(|d| d.var == TILES).map_or(0, |d| -d.index.coef_of_var(CHUNKS));
    let entry = |d: &Dim, to: &[Affine]| (d.stored)(counted(d.var.as_str(), to), start.clone());
    let index = |to: &[Affine]| -> Vec<Affine> { dims.iter().map(|d| entry(d, to)).collect() };
    fn redirect(s: &mut Stmt, index: &impl Fn(&[Affine]) -> Vec<Affine>) {
        if let Stmt::Store { to, .. } = s
            && to.buffer == FACTORS
        {
            *to = Access::at(PACKED, index(&to.index));
        }
        s.body_mut().into_iter().flatten().for_each(|s| redirect(s, index));
    }
    func.prepare.iter_mut().for_each(|s| redirect(s, &index));
    let buffer = func.buffers.iter_mut().find(|b| b.name == FACTORS).expect("the factors are declared where they are made");
    buffer.name = PACKED.into();
    buffer.dims = dims.iter().map(|d| d.extent.clone()).collect();
    buffer.order = (0..dims.len()).collect();
}

/// How far the variable of a loop may go, over all phases: its last value plus one.
fn trips(l: &Loop, func: &Func, loops: &[Loop], tile: &[(Name, usize)]) -> Result<Affine> {
    range(l.var.as_str(), func, loops, tile).map(|r| Affine::from(r.1)).ok_or_else(|| {
        Error::new(Kind::Ir, format!("weights cannot be packed along {}: its end is not known when the kernel is made", l.var))
    })
}

/// Between which constants a variable runs, over all values of the variables that its bounds depend on.
fn range(var: &str, func: &Func, loops: &[Loop], tile: &[(Name, usize)]) -> Option<(i64, i64)> {
    if let Some((_, extent)) = tile.iter().find(|t| t.0 == var) {
        return Some((0, *extent as i64));
    }
    let l = loops.iter().find(|l| l.var == var)?;
    let end = |bound: &Affine, largest| extreme(bound, func, |v| range(v, func, loops, tile), largest).as_const();
    let lo = l.lo.iter().filter_map(|lo| end(lo, false)).max()?;
    let hi = l.hi.iter().filter_map(|hi| end(hi, true)).min()?;
    Some((lo, hi))
}
