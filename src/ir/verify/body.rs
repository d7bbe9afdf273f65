//! Invariants of statements: structure, scopes, and what a stage may contain. Values and accesses are in `access.rs`.

use super::access::{ask, store, value};
use super::declare::bad_name;
use super::range::Values;
use super::*;

/// An enclosing loop.
pub(super) struct Scope<'a> {
    pub var: Name,
    pub kind: LoopKind,
    /// The values it takes, if they are constants.
    pub values: Option<Values>,
    /// The one around it.
    pub outer: Option<&'a Scope<'a>>,
}

/// Where a statement stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub func: &'a Func,
    pub prepare: bool,
    /// The innermost loop around it.
    pub inside: Option<&'a Scope<'a>>,
    pub in_tile: bool,
    /// It may not run at all: a `when` or a loop without iterations is around it.
    pub guarded: bool,
    /// Only `par` loops are around it, perfectly nested.
    pub outermost: bool,
}

impl At<'_> {
    pub fn scope(&self, var: Name) -> Option<&Scope<'_>> {
        std::iter::successors(self.inside, |s| s.outer).find(|s| s.var == var)
    }
    /// Whether every variable of an expression is one of an unroll loop.
    pub fn all_unroll(&self, e: &Affine) -> bool {
        e.all_vars(&mut |v| self.scope(v).is_some_and(|s| s.kind == LoopKind::Unroll))
    }
    /// The range of an index, if it is decided.
    pub fn range(&self, e: &Affine) -> Option<(i64, i64)> {
        range::range(self.func, e, &|v| self.scope(v)?.values)
    }
}

pub(super) fn check(func: &Func, report: &mut Report) {
    for (section, body, prepare) in [("prepare", &func.prepare, true), ("run", &func.run, false)] {
        let at = At { func, prepare, inside: None, in_tile: false, guarded: false, outermost: body.len() == 1 };
        report.within(|| section.into(), |report| body.iter().for_each(|s| statement(&at, s, report)));
    }
}

fn statement(at: &At<'_>, s: &Stmt, report: &mut Report) {
    report.within(
        || step_name(s),
        |report| match s {
            Stmt::For(l) => {
                head(at, l, report);
                let values = Values::of(l);
                let scope = Scope { var: l.var, kind: l.kind, values: values.flatten(), outer: at.inside };
                let guarded = at.guarded || matches!(values, Some(None));
                let outermost = at.outermost && l.kind == LoopKind::Par && l.body.len() == 1;
                let inner = At { inside: Some(&scope), guarded, outermost, ..*at };
                l.body.iter().for_each(|s| statement(&inner, s, report));
            }
            Stmt::When { conds, body } => {
                conds.iter().for_each(|c| cond(at, c, report));
                let inner = At { guarded: true, outermost: false, ..*at };
                body.iter().for_each(|s| statement(&inner, s, report));
            }
            Stmt::Tile { asks, body, .. } => {
                if let Some(a) = asks {
                    ask(at, a, report);
                }
                report.stage(at.func.stage >= Stage::Tile, "a tile", "from tile on", at.func);
                if at.in_tile {
                    report.add("a tile inside a tile; tiles are leaves");
                }
                let inner = At { in_tile: true, outermost: false, ..*at };
                body.iter().for_each(|s| statement(&inner, s, report));
            }
            Stmt::Set { reg, index, value: v } => {
                let width = value(at, v, report);
                let to = access::entry(at, reg, index, report);
                if let (Some(width), Some(to)) = (width, to)
                    && width != 1
                    && width != to
                {
                    report.add(format!("a value of {width} lanes is assigned to {reg}, which has {to}"));
                }
            }
            Stmt::Store { to, parts, .. } => store(at, to, parts, report),
        },
    );
}

/// The bounds, step and variable of a loop.
fn head(at: &At<'_>, l: &Loop, report: &mut Report) {
    if let Some(why) = bad_name(&l.var) {
        report.add(why);
    }
    let func = at.func;
    let taken = at.scope(l.var).is_some()
        || func.is_symbol(&l.var)
        || func.find_buffer(&l.var).is_some()
        || func.find_table(&l.var).is_some()
        || func.find_reg(&l.var).is_some();
    if taken {
        report.add(format!("{} hides another {}; a loop variable needs a name of its own", l.var, l.var));
    }
    if l.lo.is_empty() || l.hi.is_empty() {
        report.add("a bound is missing; a loop has at least one lower and one upper bound");
    }
    if l.step < 1 {
        report.add(format!("step {}; it must be at least 1", l.step));
    }
    if let Some(symbol) = &l.times {
        if l.kind != LoopKind::Par {
            report.add(format!("the step is multiplied by {symbol}; those of par loops only may be"));
        }
        if at.prepare || !func.is_symbol(symbol) {
            report.add(format!("the step is multiplied by {symbol}, which is no symbol declared for run"));
        }
    }
    l.lo.iter().chain(&l.hi).for_each(|e| index(at, e, report));
    match l.kind {
        LoopKind::Seq => {
            let unrolled = |v: Name| at.scope(v).is_some_and(|s| s.kind == LoopKind::Unroll);
            for v in l.lo.iter().chain(&l.hi).filter(|_| at.in_tile).flat_map(Affine::vars).filter(|v| unrolled(*v)) {
                report.add(format!("a bound uses the unroll variable {v}; bounds of counted loops in a tile do not"));
            }
        }
        LoopKind::Par => par_head(at, l, report),
        LoopKind::Unroll => unroll_head(at, l, report),
    }
}

fn par_head(at: &At<'_>, l: &Loop, report: &mut Report) {
    if at.in_tile {
        report.add("a par loop inside a tile; legal as the outermost loop of a region");
    } else if !at.outermost {
        report.add("a par loop further in; par loops are the outermost, perfectly nested loops of a region");
    }
    single(l, "a par", report);
    for e in l.lo.iter().chain(&l.hi) {
        if e.terms.keys().any(|a| !matches!(a, Atom::Sym(_))) {
            report.add(format!("bound {e} of a par loop; it must be affine in symbols only"));
        }
    }
}

fn unroll_head(at: &At<'_>, l: &Loop, report: &mut Report) {
    report.stage(at.func.stage >= Stage::Tile, "an unroll loop", "from tile on", at.func);
    single(l, "an unroll", report);
    for e in l.lo.iter().chain(&l.hi) {
        let symbolic = e.terms.keys().any(|a| matches!(a, Atom::Sym(_) | Atom::Scaled(..) | Atom::Div(..)));
        if symbolic || !at.all_unroll(e) {
            report.add(format!("bound {e} of an unroll loop; it must be made of constants and outer unroll variables"));
        }
    }
}

fn single(l: &Loop, kind: &str, report: &mut Report) {
    if l.lo.len() > 1 || l.hi.len() > 1 {
        report.add(format!("several bounds on one side of {kind} loop; it has one lower and one upper bound"));
    }
}

fn cond(at: &At<'_>, c: &Cond, report: &mut Report) {
    c.affines().into_iter().for_each(|e| index(at, e, report));
    if let Cond::Multiple { m, .. } = c {
        report.stage(at.func.stage <= Stage::Form, format_args!("the condition {c}"), "up to form", at.func);
        if *m < 1 {
            report.add(format!("modulus {m} in {c}; it must be at least 1"));
        }
    }
}

/// Names and forms in an index expression.
pub(super) fn index(at: &At<'_>, e: &Affine, report: &mut Report) {
    for (atom, &coef) in &e.terms {
        if coef == 0 {
            report.add(format!("{atom} has the coefficient 0 in an index; such terms are left out"));
        }
        match atom {
            Atom::Sym(s) if at.prepare => report.add(format!("symbol {s} in prepare, which runs before symbols are known")),
            Atom::Sym(s) if at.func.is_symbol(s) => {}
            Atom::Sym(s) => report.add(format!("{s} is not a declared symbol")),
            Atom::Scaled(s, v) => {
                if at.prepare || !at.func.is_symbol(s) {
                    report.add(format!("{s} in {atom} is no symbol declared for run"));
                }
                report.stage(at.func.stage >= Stage::Panel, format_args!("the product {atom}"), "from panel on", at.func);
                in_scope(at, v, report);
            }
            Atom::Var(v) => in_scope(at, v, report),
            Atom::Table(t, v) => {
                in_scope(at, v, report);
                table(at, t, v, report);
            }
            Atom::Div(inner, by) => {
                report.stage(at.func.stage <= Stage::Form, format_args!("the division {atom}"), "up to form", at.func);
                if *by < 1 {
                    report.add(format!("divisor {by} in {atom}; it must be at least 1"));
                } else if inner.terms.values().all(|c| c % by == 0) {
                    report.add(format!("the division {atom} can be carried out; such divisions are"));
                }
                index(at, inner, report);
            }
        }
    }
}

fn in_scope(at: &At<'_>, v: &Name, report: &mut Report) {
    if at.scope(*v).is_none() {
        report.add(format!("{v} is neither a loop variable in scope nor a declared symbol"));
    }
}

fn table(at: &At<'_>, t: &Name, v: &Name, report: &mut Report) {
    let Some(table) = at.func.find_table(t) else {
        return report.add(format!("{t} is not a declared table"));
    };
    if let Some(values) = at.scope(*v).and_then(|s| s.values) {
        let len = table.values.len();
        if values.first < 0 || usize::try_from(values.last).is_ok_and(|last| last >= len) {
            report.add(format!("{t}[{v}] with {v} from {} to {}; the table has {len} entries", values.first, values.last));
        }
    }
}
