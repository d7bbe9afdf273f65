//! Affine index expressions: `offset + Σ coefficient · atom`, kept in a canonical order.
//!
//! Two expressions that are equal as sums compare equal:
//!
//! ```
//! use polyphase::ir::Affine;
//! let (q, r) = (Affine::var("q"), Affine::var("r"));
//! let a = q.clone() * 2 + r.clone() - 1;
//! assert_eq!(a, r - 1 + q * 2);
//! assert_eq!(a.coef_of_var("q"), 2);
//! assert_eq!(a.offset, -1);
//! ```

use super::Name;
use crate::Short;
use internment::Intern;
use std::ops::{Add, Mul, Neg, Sub};

/// What an affine expression is a sum of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A run-time extent.
    Sym(Name),
    /// A loop variable.
    Var(Name),
    /// An entry of a constant table, chosen by a loop variable: `table[var]`.
    Table(Name, Name),
    /// A symbol times a loop variable: `symbol*var`.
    Scaled(Name, Name),
    /// Floor division by a positive constant; up to stage `form` only. Each dividend is kept once, as names are.
    Div(Intern<Affine>, i64),
}

/// `offset + Σ coefficient · atom`; no coefficient is 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Affine {
    /// Atoms with their coefficients, in canonical order.
    pub terms: Terms,
    /// The constant part.
    pub offset: i64,
}

/// Atoms with their coefficients, sorted by atom, each once: a map that is cheap to copy, since most have one or two entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Terms(Short<(Atom, i64), 3>);

impl Terms {
    /// Every atom with its coefficient.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Atom, &i64)> + Clone {
        self.0.iter().map(|(a, c)| (a, c))
    }
    /// The atoms.
    pub fn keys(&self) -> impl Iterator<Item = &Atom> {
        self.0.iter().map(|t| &t.0)
    }
    /// The coefficients.
    pub fn values(&self) -> impl Iterator<Item = &i64> {
        self.0.iter().map(|t| &t.1)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The coefficient of an atom, if it is there.
    pub fn get(&self, atom: &Atom) -> Option<&i64> {
        self.0.binary_search_by(|t| t.0.cmp(atom)).ok().map(|at| &self.0[at].1)
    }
    /// Sets the coefficient of an atom, 0 included.
    pub fn insert(&mut self, atom: Atom, coef: i64) {
        match self.0.binary_search_by(|t| t.0.cmp(&atom)) {
            Ok(at) => self.0[at].1 = coef,
            Err(at) => self.0.insert(at, (atom, coef)),
        }
    }
    /// Takes an atom out.
    pub fn remove(&mut self, atom: &Atom) {
        self.0.retain(|t| t.0 != *atom);
    }
}
impl IntoIterator for Terms {
    type Item = (Atom, i64);
    type IntoIter = <Short<(Atom, i64), 3> as IntoIterator>::IntoIter;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
impl<'a> IntoIterator for &'a Terms {
    type Item = (&'a Atom, &'a i64);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (Atom, i64)>, fn(&'a (Atom, i64)) -> (&'a Atom, &'a i64)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|t| (&t.0, &t.1))
    }
}
impl FromIterator<(Atom, i64)> for Terms {
    fn from_iter<I: IntoIterator<Item = (Atom, i64)>>(all: I) -> Self {
        let mut out = Terms::default();
        all.into_iter().for_each(|(a, c)| out.insert(a, c));
        out
    }
}

impl Affine {
    /// A loop variable.
    pub fn var(name: impl Into<Name>) -> Self {
        Self::atom(Atom::Var(name.into()))
    }
    /// A run-time extent.
    pub fn sym(name: impl Into<Name>) -> Self {
        Self::atom(Atom::Sym(name.into()))
    }
    /// An entry of a table.
    pub fn table(table: impl Into<Name>, var: impl Into<Name>) -> Self {
        Self::atom(Atom::Table(table.into(), var.into()))
    }
    /// A symbol times a loop variable.
    pub fn scaled(symbol: impl Into<Name>, var: impl Into<Name>) -> Self {
        Self::atom(Atom::Scaled(symbol.into(), var.into()))
    }
    /// An atom by itself.
    pub fn atom(atom: Atom) -> Self {
        Affine { terms: Terms([(atom, 1)].as_slice().into()), offset: 0 }
    }
    /// `floor(self / by)`, carried out at once where every coefficient is divisible or the expression is constant.
    pub fn floor_div(self, by: i64) -> Self {
        assert!(by >= 1, "division of an index by {by}");
        if self.terms.values().all(|c| c % by == 0) {
            let terms = self.terms.into_iter().map(|(a, c)| (a, c / by)).collect();
            return Affine { terms, offset: self.offset.div_euclid(by) };
        }
        Self::atom(Atom::Div(Intern::new(self), by))
    }
    /// The constant, if nothing else is in it.
    pub fn as_const(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.offset)
    }
    /// Whether it is the constant `v`.
    pub fn is(&self, v: i64) -> bool {
        self.as_const() == Some(v)
    }
    /// The coefficient of an atom, 0 if it is not there.
    pub fn coef(&self, atom: &Atom) -> i64 {
        self.terms.get(atom).copied().unwrap_or(0)
    }
    /// The coefficient of a loop variable (its uses inside tables and divisions not counted).
    pub fn coef_of_var(&self, var: &str) -> i64 {
        self.terms.iter().find_map(|(a, &c)| matches!(a, Atom::Var(v) if v.as_str() == var).then_some(c)).unwrap_or(0)
    }
    /// Whether a loop variable occurs anywhere, tables and divisions included.
    pub fn uses_var(&self, var: &str) -> bool {
        self.terms.keys().any(|a| match a {
            Atom::Sym(_) => false,
            Atom::Var(v) => v.as_str() == var,
            Atom::Table(_, v) | Atom::Scaled(_, v) => v.as_str() == var,
            Atom::Div(e, _) => e.uses_var(var),
        })
    }
    /// Every loop variable that occurs, tables and divisions included.
    pub fn vars(&self) -> Vec<Name> {
        let mut out = Vec::new();
        self.all_vars(&mut |v| {
            if !out.contains(&v) {
                out.push(v);
            }
            true
        });
        out
    }
    /// Whether something holds of every loop variable that occurs, tables and divisions included.
    pub fn all_vars(&self, f: &mut dyn FnMut(Name) -> bool) -> bool {
        self.terms.keys().all(|a| match a {
            Atom::Sym(_) => true,
            Atom::Var(v) | Atom::Table(_, v) | Atom::Scaled(_, v) => f(*v),
            Atom::Div(e, _) => e.all_vars(f),
        })
    }
    /// Adds `coef * atom` in place.
    pub fn add_term(&mut self, atom: Atom, coef: i64) {
        let all = &mut self.terms.0;
        match all.binary_search_by(|t| t.0.cmp(&atom)) {
            Err(at) if coef != 0 => all.insert(at, (atom, coef)),
            Err(_) => {}
            Ok(at) => {
                all[at].1 += coef;
                if all[at].1 == 0 {
                    all.remove(at);
                }
            }
        }
    }
    /// The expression with each atom replaced by what `f` says (`None` keeps it); divisions are rebuilt from their new insides.
    pub fn map_atoms(&self, f: &mut impl FnMut(&Atom) -> Option<Affine>) -> Affine {
        let mut out = Affine::from(self.offset);
        for (a, &c) in &self.terms {
            match (f(a), a) {
                (Some(new), _) => out = out + new * c,
                (None, Atom::Div(e, by)) => out = out + e.map_atoms(f).floor_div(*by) * c,
                (None, _) => out.add_term(*a, c),
            }
        }
        out
    }
    /// The expression with a loop variable replaced. A table indexed by it follows if the replacement is another variable.
    ///
    /// # Panics
    /// If a table is indexed by the variable and the replacement is not a variable; if a symbol scales it and the replacement is no sum of variables.
    pub fn subst(&self, var: &str, by: &Affine) -> Affine {
        if !self.uses_var(var) {
            return self.clone();
        }
        self.map_atoms(&mut |a| match a {
            Atom::Var(v) if v.as_str() == var => Some(by.clone()),
            Atom::Table(t, v) if v.as_str() == var => match by.terms.iter().next() {
                Some((Atom::Var(w), 1)) if by.terms.len() == 1 && by.offset == 0 => Some(Affine::table(t, w)),
                _ => panic!("table {t}[{var}] cannot be indexed by {by:?}"),
            },
            Atom::Scaled(s, v) if v.as_str() == var => {
                Some(by.terms.iter().fold(Affine::sym(s) * by.offset, |sum, (atom, &c)| match atom {
                    Atom::Var(w) => sum + Affine::scaled(s, w) * c,
                    _ => panic!("{s}*{var} cannot take {by:?}"),
                }))
            }
            _ => None,
        })
    }
    /// The value, with atoms looked up by `f`; divisions round down, and what does not fit 64 bits wraps, as in the code that is made of it.
    pub fn eval(&self, f: &mut impl FnMut(&Atom) -> i64) -> i64 {
        self.terms.iter().fold(self.offset, |s, (a, c)| {
            let v = match a {
                Atom::Div(e, by) => e.eval(f).div_euclid(*by),
                Atom::Scaled(s, v) => f(&Atom::Sym(*s)).wrapping_mul(f(&Atom::Var(*v))),
                _ => f(a),
            };
            s.wrapping_add(c.wrapping_mul(v))
        })
    }
}

impl From<i64> for Affine {
    fn from(offset: i64) -> Self {
        Affine { terms: Terms::default(), offset }
    }
}
impl Add for Affine {
    type Output = Affine;
    fn add(mut self, rhs: Affine) -> Affine {
        for (a, c) in &rhs.terms {
            self.add_term(*a, *c);
        }
        self.offset += rhs.offset;
        self
    }
}
impl Sub for Affine {
    type Output = Affine;
    fn sub(self, rhs: Affine) -> Affine {
        self + -rhs
    }
}
impl Neg for Affine {
    type Output = Affine;
    fn neg(self) -> Affine {
        self * -1
    }
}
impl Mul<i64> for Affine {
    type Output = Affine;
    fn mul(mut self, by: i64) -> Affine {
        if by == 0 {
            return Affine::from(0);
        }
        self.terms.0.iter_mut().for_each(|t| t.1 *= by);
        self.offset *= by;
        self
    }
}
impl Add<i64> for Affine {
    type Output = Affine;
    fn add(mut self, by: i64) -> Affine {
        self.offset += by;
        self
    }
}
impl Sub<i64> for Affine {
    type Output = Affine;
    fn sub(self, by: i64) -> Affine {
        self + -by
    }
}
