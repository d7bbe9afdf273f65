//! Clean-up after every pass: what can be proved about indices is not tested at run time.
//!
//! *Needs* any stage. *Leaves* a function that computes the same values in the same order, in which
//! - tables that are constant or arithmetic are written as affine expressions, unused ones are dropped;
//! - conditions that always hold are gone, and statements whose conditions never hold;
//! - loops of one iteration are replaced by their body, loops of none are gone;
//! - bounds that another bound makes redundant are gone, of loops and of clips, and clips that all lanes are inside of.
//!
//! ```text
//! for rx in 0..2, qx in lo[rx]..W + hi[rx]:         with lo = [1, 0], hi = [1, 0]: kept, neither is arithmetic with qx's use
//!   for tx in 0..T[rx]: when 0 <= qx < W: …    ⇒    for tx in 0..2: when …                        T = [2, 2]
//! ```

use crate::ir::{Access, Affine, Atom, Cond, Func, Loop, Stmt, Table, Value};

/// Simplifies a function; the stage stays as it is.
pub fn run(mut func: Func) -> Func {
    let affine_tables = |a: &Affine, func: &Func| {
        a.map_atoms(&mut |atom| match atom {
            Atom::Table(t, v) => arithmetic(&func.find_table(t)?.values).map(|(base, step)| Affine::var(v) * step + base),
            _ => None,
        })
    };
    let (mut prepare, mut run) = (std::mem::take(&mut func.prepare), std::mem::take(&mut func.run));
    if !func.tables.is_empty() {
        for s in prepare.iter_mut().chain(&mut run) {
            s.map_affine(&mut |a| affine_tables(a, &func));
        }
    }
    let mut env = Env { tables: &func.tables, loops: Vec::new() };
    (prepare, run) = (stmts(prepare, &mut env), stmts(run, &mut env));
    let mut used = Vec::new();
    let mut look = |a: &Affine| used.extend(a.terms.keys().filter_map(|t| if let Atom::Table(t, _) = t { Some(*t) } else { None }));
    if !func.tables.is_empty() {
        prepare.iter().chain(&run).for_each(|s| s.visit_affine(&mut look));
        func.tables.retain(|t| used.contains(&t.name));
    }
    Func { prepare, run, ..func }
}

/// `(base, step)` of an arithmetic sequence.
fn arithmetic(values: &[i64]) -> Option<(i64, i64)> {
    let step = if values.len() > 1 { values[1] - values[0] } else { 0 };
    let fits = values.iter().enumerate().all(|(i, v)| *v == values[0] + step * i as i64);
    (fits && !values.is_empty()).then(|| (values[0], step))
}

/// The loops around a statement, and the tables they may index: what proofs are made from.
pub struct Env<'a> {
    /// The tables of the function.
    pub tables: &'a [Table],
    /// Enclosing loops, outermost first; bodies are not looked at.
    pub loops: Vec<Loop>,
}

/// Tables with more entries than this are bounded by their extremes rather than entry by entry.
const ENUMERATE: usize = 64;

impl Env<'_> {
    fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// Whether `e >= 0` wherever this environment's loops lead. Symbols are at least 0. `false` means "not proved".
    pub fn proves(&self, e: &Affine) -> bool {
        if let Some((t, v)) = e.terms.keys().find_map(|a| if let Atom::Table(t, v) = a { Some((t, v)) } else { None }) {
            let Some(table) = self.table(t.as_str()) else { return false };
            if table.values.len() <= ENUMERATE {
                return (0..table.values.len()).all(|i| self.proves(&fix(e, v.as_str(), i as i64, self.tables)));
            }
            let c = e.coef(&Atom::Table(*t, *v));
            let extreme = if c > 0 { table.values.iter().min() } else { table.values.iter().max() };
            let Some(extreme) = extreme else { return false };
            return self.proves(&(e.clone() - Affine::table(t, v) * c + extreme * c));
        }
        let Some(l) = self.loops.iter().rev().find(|l| e.uses_var(l.var.as_str())) else {
            let known = |(a, c): (&Atom, &i64)| matches!(a, Atom::Sym(_)) && *c >= 0;
            return e.offset >= 0 && e.terms.iter().all(known);
        };
        let c = e.coef_of_var(l.var.as_str());
        let without = e.clone() - Affine::var(l.var) * c;
        match c {
            0 => false, // inside a division
            1.. => l.lo.iter().any(|b| self.proves(&(without.clone() + b.clone() * c))),
            _ => l.hi.iter().any(|b| self.proves(&(without.clone() + (b.clone() - 1) * c))),
        }
    }

    fn holds(&self, c: &Cond) -> bool {
        match c {
            Cond::Range { lo, e, hi } => self.proves(&(e.clone() - lo.clone())) && self.proves(&(hi.clone() - 1 - e.clone())),
            Cond::Multiple { e, m } => e.offset % m == 0 && e.terms.values().all(|c| c % m == 0),
        }
    }

    fn fails(&self, c: &Cond) -> bool {
        match c {
            Cond::Range { lo, e, hi } => self.proves(&(lo.clone() - 1 - e.clone())) || self.proves(&(e.clone() - hi.clone())),
            Cond::Multiple { e, m } => e.as_const().is_some_and(|v| v.rem_euclid(*m) != 0),
        }
    }
}

/// The expression with a loop variable fixed to a constant, table entries included.
pub fn fix(e: &Affine, var: &str, value: i64, tables: &[Table]) -> Affine {
    e.map_atoms(&mut |a| match a {
        Atom::Var(v) if *v == *var => Some(value.into()),
        Atom::Scaled(s, v) if *v == *var => Some(Affine::sym(s) * value),
        Atom::Table(t, v) if *v == *var => {
            let t = tables.iter().find(|x| x.name == *t)?;
            t.values.get(usize::try_from(value).ok()?).map(|v| Affine::from(*v))
        }
        _ => None,
    })
}

fn stmts(list: Vec<Stmt>, env: &mut Env) -> Vec<Stmt> {
    let mut out = Vec::with_capacity(list.len());
    list.into_iter().for_each(|s| stmt(s, env, &mut out));
    out
}

/// Appends what is left of a statement.
fn stmt(s: Stmt, env: &mut Env, out: &mut Vec<Stmt>) {
    match s {
        Stmt::For(l) => for_loop(l, env, out),
        Stmt::When { conds, body } => {
            if conds.iter().any(|c| env.fails(c)) {
                return;
            }
            let mut left: Vec<Cond> = Vec::new();
            for c in conds {
                if !env.holds(&c) && !left.contains(&c) {
                    left.push(c);
                }
            }
            let body = stmts(body, env);
            if !body.is_empty() {
                out.extend(Stmt::when(left, body));
            }
        }
        Stmt::Tile { name, asks, body } => out.push(Stmt::Tile { name, asks, body: stmts(body, env) }),
        Stmt::Set { reg, index, value } => out.push(Stmt::Set { reg, index, value: loads(value, env) }),
        Stmt::Store { mut to, parts, stream } => {
            unclip(&mut to, parts.len() as i64 - 1, env);
            let parts = parts.into_iter().map(|v| loads(v, env)).collect();
            out.push(Stmt::Store { to, parts, stream });
        }
    }
}

fn clipped(a: &Access) -> bool {
    a.lanes.as_ref().is_some_and(|l| l.clip.is_some())
}

/// Whether something in a value is loaded under a clip.
fn clips(v: &Value) -> bool {
    let mut found = false;
    v.visit(&mut |v| found |= matches!(v, Value::Load(a) if clipped(a)));
    found
}

fn loads(v: Value, env: &Env) -> Value {
    if !clips(&v) {
        return v;
    }
    v.map(&mut |v| match v {
        Value::Load(mut a) => {
            unclip(&mut a, 0, env);
            Value::Load(a)
        }
        v => v,
    })
}

/// Drops the bounds of an access's clip that another bound makes redundant, and a clip that all lanes are inside of. The last part of
/// a store goes `reach` elements further than the first.
fn unclip(a: &mut Access, reach: i64, env: &Env) {
    if let Some(l) = &mut a.lanes
        && let Some(clip) = &mut l.clip
    {
        strip(&mut clip.lo, |kept, b| env.proves(&(kept.clone() - b.clone())));
        strip(&mut clip.hi, |kept, b| env.proves(&(b.clone() - kept.clone())));
        let (first, last) = (&a.index[l.dim], a.index[l.dim].clone() + l.step * (l.count as i64 - 1) + reach);
        let inside = clip.lo.iter().all(|lo| env.proves(&(first.clone() - lo.clone())))
            && clip.hi.iter().all(|hi| env.proves(&(hi.clone() - 1 - last.clone())));
        if inside {
            l.clip = None;
        }
    }
}

fn for_loop(mut l: Loop, env: &mut Env, out: &mut Vec<Stmt>) {
    strip(&mut l.lo, |kept, b| env.proves(&(kept.clone() - b.clone())));
    strip(&mut l.hi, |kept, b| env.proves(&(b.clone() - kept.clone())));
    if l.lo.iter().any(|lo| l.hi.iter().any(|hi| env.proves(&(lo.clone() - hi.clone())))) {
        return;
    }
    if let ([lo], [hi]) = (&l.lo[..], &l.hi[..])
        && (hi.clone() - lo.clone()).as_const().is_some_and(|trips| trips > 0 && trips <= l.step)
        && let Some(once) = once(&l, lo, env.tables)
    {
        return once.into_iter().for_each(|s| stmt(s, env, out));
    }
    let body = std::mem::take(&mut l.body);
    env.loops.push(l);
    let body = stmts(body, env);
    let l = env.loops.pop();
    if let Some(l) = l.filter(|_| !body.is_empty()) {
        out.push(Loop { body, ..l }.into());
    }
}

/// The body for the only iteration, or `None` if a table is indexed by the variable and the value is not constant.
fn once(l: &Loop, at: &Affine, tables: &[Table]) -> Option<Vec<Stmt>> {
    let mut body = l.body.clone();
    let mut possible = true;
    for s in &mut body {
        s.map_affine(&mut |a| {
            if let Some(v) = at.as_const() {
                return fix(a, l.var.as_str(), v, tables);
            }
            possible &= !a.terms.keys().any(|t| matches!(t, Atom::Table(_, v) if *v == l.var));
            if possible { a.subst(l.var.as_str(), at) } else { a.clone() }
        });
    }
    possible.then_some(body)
}

/// Drops each bound that a kept one makes redundant.
fn strip(bounds: &mut Vec<Affine>, redundant: impl Fn(&Affine, &Affine) -> bool) {
    let mut i = 0;
    while i < bounds.len() {
        let others = (0..bounds.len()).filter(|j| *j != i);
        if others.into_iter().any(|j| redundant(&bounds[j], &bounds[i])) {
            bounds.remove(i);
        } else {
            i += 1;
        }
    }
}
