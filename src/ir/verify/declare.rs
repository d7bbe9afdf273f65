//! Invariants of declarations: names, extents, memory order, registers, and what a stage may declare.

use super::super::lex::is_name;
use super::super::parse::RESERVED;
use super::*;
use std::collections::HashMap;

pub(super) fn check(func: &Func, report: &mut Report) {
    names(func, report);
    for (i, c) in func.counts.iter().enumerate() {
        report.within(|| format!("count {}", c.name), |report| count(func, i, c, report));
    }
    let mut last: Option<&Buffer> = None;
    for b in &func.buffers {
        report.within(|| format!("buffer {}", b.name), |report| {
            buffer(func, b, report);
            if let Some(last) = last.filter(|last| !may_follow(last.kind, b.kind)) {
                report.add(format!(
                    "a buffer of kind {} stands after {} of kind {}; the order is input, weight, bias, output (each at most once), then the others",
                    b.kind.name(),
                    last.name,
                    last.kind.name()
                ));
            }
        });
        last = Some(b);
    }
    let mut lanes = 0usize;
    for r in &func.regs {
        report.within(
            || format!("reg {}", r.name),
            |report| {
                reg(func, r, report);
                let before = lanes;
                lanes = r.dims.iter().fold(r.lanes, |n, &d| n.saturating_mul(d)).saturating_add(lanes);
                if lanes > MOST_ENTRIES && before <= MOST_ENTRIES {
                    report.add(format!("{lanes} lanes of all registers so far; legal: at most {MOST_ENTRIES}"));
                }
            },
        );
    }
    if !func.prepare.is_empty() {
        report.within(|| "prepare".into(), |report| report.stage(func.stage >= Stage::Tile, "a prepare section", "from tile on", func));
    }
}

/// A count is made of symbols, and of counts declared before it.
fn count(func: &Func, at: usize, c: &Count, report: &mut Report) {
    let before = func.symbols.len() + at;
    let mut known = |s: &Name| {
        if !func.all_symbols().take(before).any(|b| b == s) {
            report.add(format!("{s} is no symbol declared before it"));
        }
    };
    match &c.of {
        CountOf::Product(a, b) => [a, b].into_iter().for_each(known),
        CountOf::Even { extent, unit, .. } | CountOf::Whole { extent, unit, .. } | CountOf::Units { extent, unit } => {
            extent.terms.keys().for_each(|a| {
                if let Atom::Sym(s) = a {
                    known(s)
                }
            });
            if extent.terms.keys().any(|a| !matches!(a, Atom::Sym(_))) {
                report.add(format!("the extent {extent}; it must be affine in symbols only"));
            }
            match c.of {
                CountOf::Even { most, .. } if *unit < 1 || most < 1 => {
                    report.add(format!("units of {unit}, at most {most} of them; both must be at least 1"));
                }
                CountOf::Whole { rest, .. } if rest < 0 || rest >= *unit => {
                    report.add(format!("units of {unit}, and {rest} left over; that must be at least 0 and less than a unit"));
                }
                CountOf::Units { .. } if *unit < 1 => report.add(format!("units of {unit}; they must be at least 1")),
                _ => {}
            }
        }
    }
    report.stage(func.stage >= Stage::Phases, "a count", "from phases on", func);
}

/// Why a name is not one, if so.
pub(super) fn bad_name(name: &Name) -> Option<String> {
    if RESERVED.contains(&name.as_str()) {
        Some(format!("{name} is a reserved word"))
    } else if !is_name(name.as_str()) {
        Some(format!("{:?} is not a name; names are letters, digits, `_` and inner `.` after a letter", name.as_str()))
    } else {
        None
    }
}

fn names(func: &Func, report: &mut Report) {
    let all = (func.symbols.iter().map(|n| ("symbol", n)))
        .chain(func.counts.iter().map(|c| ("count", &c.name)))
        .chain(func.buffers.iter().map(|b| ("buffer", &b.name)))
        .chain(func.tables.iter().map(|t| ("table", &t.name)))
        .chain(func.regs.iter().map(|r| ("reg", &r.name)));
    let mut seen = HashMap::new();
    for (what, name) in all {
        report.within(
            || format!("{what} {name}"),
            |report| {
                if let Some(why) = bad_name(name) {
                    report.add(why);
                }
                if let Some(before) = seen.insert(name, what) {
                    report.add(format!("{name} is declared already, as a {before}; a name is declared once"));
                }
            },
        );
    }
}

/// Whether a buffer of kind `next` may be declared right after one of kind `last`.
fn may_follow(last: BufferKind, next: BufferKind) -> bool {
    let rank = |kind| match kind {
        BufferKind::Input => 0,
        BufferKind::Weight => 1,
        BufferKind::Bias => 2,
        BufferKind::Output => 3,
        BufferKind::Packed | BufferKind::Scratch => 4,
    };
    rank(last) < rank(next) || rank(last) == 4 && rank(next) == 4
}

fn buffer(func: &Func, b: &Buffer, report: &mut Report) {
    for e in &b.dims {
        if e.as_const().is_some_and(|c| c < 0) {
            report.add(format!("extent {e} is negative"));
        }
        let constant = matches!(b.kind, BufferKind::Weight | BufferKind::Bias | BufferKind::Packed);
        for (atom, &coef) in &e.terms {
            match atom {
                _ if coef == 0 => report.add(format!("extent {e} has a term {atom} with coefficient 0")),
                Atom::Sym(_) if constant => {
                    report.add(format!("extent {e} is not constant; the extents of a {} buffer are", b.kind.name()))
                }
                Atom::Sym(s) if func.is_symbol(s) => {}
                Atom::Sym(s) => report.add(format!("extent {e} uses {s}, which is not a declared symbol")),
                _ => report.add(format!("extent {e} uses {atom}; extents are affine in symbols only")),
            }
        }
    }
    let mut sorted = b.order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..b.dims.len()) {
        report.add(format!("order {:?} is not a permutation of the {} dimensions", b.order, b.dims.len()));
    }
    if b.elem != func.elem {
        report.add(format!("element type {} differs from the function's, {}", b.elem.name(), func.elem.name()));
    }
    match b.kind {
        BufferKind::Packed => report.stage(func.stage >= Stage::Tile, "a packed buffer", "from tile on", func),
        BufferKind::Scratch => report.stage(func.stage >= Stage::Form, "a scratch buffer", "from form on", func),
        _ => {}
    }
}

fn reg(func: &Func, r: &Reg, report: &mut Report) {
    if r.lanes == 0 {
        report.add("0 lanes; a register has at least 1");
    }
    if r.lanes > MOST_LANES {
        report.add(format!("{} lanes; legal: at most {MOST_LANES}", r.lanes));
    }
    if r.lanes > 1 {
        report.stage(func.stage >= Stage::Vector, "a vector register", "from vector on", func);
    }
    if !r.dims.is_empty() {
        report.stage(func.stage >= Stage::Tile, "a register array", "from tile on", func);
    }
    if r.dims.contains(&0) {
        report.add("an extent is 0; it must be at least 1");
    }
    if r.dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).is_none_or(|n| n > MOST_ENTRIES) {
        report.add(format!("an array of {:?} registers; legal: at most {MOST_ENTRIES} entries", r.dims));
    }
}
