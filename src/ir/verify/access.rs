//! Invariants of values, accesses and stores: declared names, ranks, lanes, kinds of buffers, and bounds.

use super::body::{At, index};
use super::*;

/// Checks a value; its lanes, unless they cannot be told.
pub(super) fn value(at: &At<'_>, v: &Value, report: &mut Report) -> Option<usize> {
    match v {
        Value::Const(_) => return Some(1),
        Value::Reg(name, idx) => return entry(at, name, idx, report),
        Value::Load(a) => {
            load(at, a, report);
            return Some(a.lanes.as_ref().map_or(1, |l| l.count));
        }
        Value::Un(op @ (UnOp::Tanh | UnOp::Sigmoid), _) => {
            report.stage(at.func.stage < Stage::Lowered, op.name(), "before lowered", at.func);
        }
        _ => {}
    }
    let mut width = 1;
    for operand in v.operands() {
        let w = value(at, operand, report)?;
        if w != 1 && width != 1 && w != width {
            report.add(format!("operands of {width} and of {w} lanes meet in {v}; lanes must be equal or 1"));
            return None;
        }
        width = width.max(w);
    }
    Some(width)
}

/// Checks a register with its index; its lanes, if it is declared.
pub(super) fn entry(at: &At<'_>, name: &Name, idx: &[Affine], report: &mut Report) -> Option<usize> {
    idx.iter().for_each(|e| index(at, e, report));
    let Some(reg) = at.func.find_reg(name) else {
        report.add(format!("{name} is not a declared register"));
        return None;
    };
    if idx.len() != reg.dims.len() {
        report.add(format!("{name} with {} indices; it has {} dimensions", idx.len(), reg.dims.len()));
        return Some(reg.lanes);
    }
    for (e, &dim) in idx.iter().zip(&reg.dims) {
        let symbolic = e.terms.keys().any(|a| matches!(a, Atom::Sym(_) | Atom::Scaled(..) | Atom::Div(..)));
        if symbolic || !at.all_unroll(e) {
            report.add(format!("{name} is indexed by {e}; registers are indexed by constants and unroll variables"));
        } else if let Some((lo, hi)) = at.range(e).filter(|_| !at.guarded) {
            outside(&|| format!("{e} of {name}"), (lo, hi), &Affine::from(int(dim)), report);
        }
    }
    Some(reg.lanes)
}

fn int(v: usize) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}

/// Reports a range that leaves `0..dim`; an open extent bounds nothing from above.
fn outside(what: &dyn Fn() -> String, (lo, hi): (i64, i64), dim: &Affine, report: &mut Report) {
    if lo < 0 || dim.as_const().is_some_and(|dim| hi >= dim) {
        report.add(format!("index {} runs from {lo} to {hi}; it must lie in 0..{dim}", what()));
    }
}

fn load(at: &At<'_>, a: &Access, report: &mut Report) {
    let Some(buffer) = access(at, a, 1, report) else { return };
    let packed = at.func.buffers.iter().any(|b| b.kind == BufferKind::Packed);
    match buffer.kind {
        BufferKind::Input | BufferKind::Output | BufferKind::Scratch if at.prepare => report.add(format!(
            "prepare loads from {}, of kind {}; it loads from weight, bias and packed only",
            a.buffer,
            buffer.kind.name()
        )),
        BufferKind::Weight if !at.prepare && packed && at.func.stage >= Stage::Tile => {
            report.add(format!("run loads from {}; at stage {} the weights are read where they were packed", a.buffer, at.func.stage))
        }
        _ => {}
    }
}

pub(super) fn store(at: &At<'_>, to: &Access, parts: &[Value], report: &mut Report) {
    let count = to.lanes.as_ref().map_or(1, |l| l.count);
    for part in parts {
        if let Some(width) = value(at, part, report).filter(|&w| w != 1 && w != count) {
            report.add(format!("a value of {width} lanes is stored to {count}"));
        }
    }
    match (parts.len(), &to.lanes) {
        (0, _) => report.add("a store without a value"),
        (1, _) => {}
        (n, None) => report.add(format!("{n} parts are interleaved without lanes")),
        (n, Some(l)) if i64::try_from(n).is_ok_and(|n| n > l.step) => {
            report.add(format!("{n} parts are interleaved with step {}; they need at least step {n}", l.step))
        }
        _ => {}
    }
    let Some(buffer) = access(at, to, parts.len(), report) else { return };
    let legal: &[BufferKind] = if at.prepare { &[BufferKind::Packed] } else { &[BufferKind::Output, BufferKind::Scratch] };
    if !legal.contains(&buffer.kind) {
        let (section, only) = if at.prepare { ("prepare", "packed") } else { ("run", "output and scratch") };
        report.add(format!("{section} stores to {}, of kind {}; it stores to {only} buffers only", to.buffer, buffer.kind.name()));
    }
}

/// What a tile asks for may lie outside the buffer, but not depend on anything that the tile binds.
pub(super) fn ask(at: &At<'_>, a: &Ask, report: &mut Report) {
    a.ranges.iter().flat_map(|(lo, hi)| [lo, hi]).for_each(|e| index(at, e, report));
    match at.func.find_buffer(&a.buffer) {
        None => report.add(format!("{} is not a declared buffer", a.buffer)),
        Some(b) if b.dims.len() != a.ranges.len() => {
            report.add(format!("asks {} with {} ranges; it has {} dimensions", a.buffer, a.ranges.len(), b.dims.len()));
        }
        Some(_) => {}
    }
}

/// Checks the buffer, index and lanes of an access of so many parts; the buffer, if it is declared.
fn access<'a>(at: &At<'a>, a: &Access, parts: usize, report: &mut Report) -> Option<&'a Buffer> {
    a.index.iter().for_each(|e| index(at, e, report));
    let Some(buffer) = at.func.find_buffer(&a.buffer) else {
        report.add(format!("{} is not a declared buffer", a.buffer));
        return None;
    };
    if a.index.len() != buffer.dims.len() {
        report.add(format!("{} with {} indices; it has {} dimensions", a.buffer, a.index.len(), buffer.dims.len()));
        return Some(buffer);
    }
    let sound = a.lanes.as_ref().is_none_or(|l| lanes(at, l, a.index.len(), report));
    if sound && !at.guarded {
        bounds(at, a, buffer, parts, report);
    }
    Some(buffer)
}

/// Whether the lanes are some, along a dimension that there is: then their last place is known. A report that was made before is not made again, so it cannot say.
fn lanes(at: &At<'_>, l: &Lanes, rank: usize, report: &mut Report) -> bool {
    report.stage(at.func.stage >= Stage::Vector, "an access with lanes", "from vector on", at.func);
    if l.count < 1 {
        report.add("an access of 0 lanes; there must be at least 1");
    }
    if l.count > MOST_LANES {
        report.add(format!("an access of {} lanes; legal: at most {MOST_LANES}", l.count));
    }
    if l.dim >= rank {
        report.add(format!("lanes along dimension {}; the buffer has {rank} dimensions", l.dim));
    }
    if l.step < 1 {
        report.add(format!("lanes with step {}; it must be at least 1", l.step));
    }
    if let Some(clip) = &l.clip {
        if clip.lo.is_empty() || clip.hi.is_empty() {
            report.add("a bound is missing; a clip has at least one lower and one upper bound");
        }
        clip.lo.iter().chain(&clip.hi).for_each(|e| index(at, e, report));
    }
    l.count >= 1 && l.dim < rank && l.step >= 1
}

/// Reports indices that leave their dimension for certain.
fn bounds(at: &At<'_>, a: &Access, buffer: &Buffer, parts: usize, report: &mut Report) {
    for (d, (e, dim)) in a.index.iter().zip(&buffer.dims).enumerate() {
        let mut more = 0;
        if let Some(l) = a.lanes.as_ref().filter(|l| l.dim == d) {
            if l.clip.is_some() {
                continue;
            }
            more = int(l.count - 1).saturating_mul(l.step).saturating_add(int(parts.max(1) - 1));
        }
        if let Some((lo, hi)) = at.range(e) {
            outside(&|| format!("{e} of {}", a.buffer), (lo, hi.saturating_add(more)), dim, report);
        }
    }
}
