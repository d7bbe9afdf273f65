//! What passes share: taking perfectly nested loops apart and putting them together again, and reading the
//! congruence that ties output, tap and input together.

use crate::Result;
use crate::ir::names::{self, INPUT, on};
use crate::ir::{Affine, Atom, Cond, Func, Loop, Name, Stmt};

/// What runs, seen as its perfectly nested loops and the statements inside them.
pub struct Nest {
    /// The loops, outermost first, with empty bodies.
    pub loops: Vec<Loop>,
    /// What is inside the innermost of them.
    pub body: Vec<Stmt>,
}

impl Nest {
    /// What a function runs.
    pub fn of(func: &Func) -> Nest {
        let (loops, body) = peel(&func.run);
        Nest { loops, body: body.to_vec() }
    }
}

/// The letters of a function's spatial axes, outermost first.
pub fn axes(func: &Func) -> &'static [&'static str] {
    names::axes(func.buffer(INPUT).dims.len() - 2)
}

/// Takes off loops as long as each is alone in the body of the one before.
pub fn peel(mut body: &[Stmt]) -> (Vec<Loop>, &[Stmt]) {
    let mut loops = Vec::new();
    while let [Stmt::For(l)] = body {
        loops.push(l.around(Vec::new()));
        body = &l.body;
    }
    (loops, body)
}

/// Puts statements inside loops, given outermost first.
pub fn wrap(loops: &[Loop], body: Vec<Stmt>) -> Vec<Stmt> {
    loops.iter().rev().fold(body, |body, l| vec![Stmt::For(l.around(body))])
}

/// The number of input channels that one group sums over.
pub fn input_channels(list: &[Stmt]) -> i64 {
    let mut found = None;
    for s in list {
        s.visit(&mut |s| {
            if let Stmt::For(l) = s
                && l.var == "ic"
            {
                found = l.const_range();
            }
        });
    }
    // A loop over one channel has been simplified away.
    found.map_or(1, |(_, hi)| hi)
}

/// The congruence of one axis, `stride * i = o + pad - dilation * k` with `0 <= i < extent`.
pub struct Congruence {
    /// Stride `s`.
    pub stride: i64,
    /// Padding `p` at the beginning.
    pub pad: i64,
    /// Dilation `d`.
    pub dilation: i64,
    /// Input extent.
    pub extent: Affine,
}

/// Reads the congruence of an axis from the guards of a naive nest.
pub fn congruence(guarded: &[Stmt], axis: &str) -> Result<Congruence> {
    let (o, k): (Name, Name) = (on("o", axis), on("k", axis));
    if let [Stmt::When { conds, .. }] = guarded {
        for c in conds {
            let Cond::Range { e, hi, .. } = c else { continue };
            let (num, stride) = match e.terms.iter().next() {
                Some((Atom::Div(num, by), 1)) if e.terms.len() == 1 => (&**num, *by),
                _ => (e, 1),
            };
            if num.coef_of_var(o.as_str()) == 1 {
                return Ok(Congruence { stride, pad: num.offset, dilation: -num.coef_of_var(k.as_str()), extent: hi.clone() });
            }
        }
    }
    Err(super::unexpected("the pass", &format!("a range guard on input axis {axis}")))
}
