//! Exact ranges of index expressions over loops with constant ranges.
//!
//! Variables of constant loops run independently of each other, so the range of a sum is the sum of the
//! ranges of its variables' parts, and both ends are attained. A part with tables is
//! tabulated. What cannot be decided exactly has no range.

use super::*;

/// The values that a loop variable takes: `first`, `first + step`, … `last`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values {
    pub first: i64,
    pub last: i64,
    pub step: i64,
}

/// More values than this are not tabulated.
const MOST_VALUES: i64 = 1 << 16;

impl Values {
    /// Those of a loop with constant bounds: `None` if they are not constant, `Some(None)` if there are no iterations.
    pub fn of(l: &Loop) -> Option<Option<Values>> {
        let bound = |all: &[Affine], of: fn(i64, i64) -> i64| {
            let mut all = all.iter().map(Affine::as_const);
            let first = all.next()??;
            all.try_fold(first, |bound, b| Some(of(bound, b?)))
        };
        let (first, end) = (bound(&l.lo, i64::max)?, bound(&l.hi, i64::min)?);
        let step = l.step.max(1);
        if l.times.is_some() {
            return None;
        }
        if first >= end {
            return Some(None);
        }
        let trips = (end.checked_sub(1)?.checked_sub(first)?) / step;
        Some(Some(Values { first, last: first + trips * step, step }))
    }
}

/// The least and the greatest value of `e`, both attained; `None` if that is not decided.
pub(super) fn range(func: &Func, e: &Affine, values: &impl Fn(Name) -> Option<Values>) -> Option<(i64, i64)> {
    let (mut lo, mut hi) = (i128::from(e.offset), i128::from(e.offset));
    for (at, (atom, &coef)) in e.terms.iter().enumerate() {
        let (a, b) = match atom {
            Atom::Sym(_) | Atom::Scaled(..) => return None,
            Atom::Var(v) | Atom::Table(_, v) => {
                let same = |(atom, _): &(&Atom, &i64)| matches!(atom, Atom::Var(o) | Atom::Table(_, o) if o == v);
                if e.terms.iter().take(at).any(|t| same(&t)) {
                    continue;
                }
                part(func, e.terms.iter().skip(at).filter(same), values(*v)?)?
            }
            Atom::Div(inner, by) => {
                // Exact only where no variable occurs both inside and outside.
                let shared = inner.vars().iter().any(|v| e.terms.keys().any(|a| a != atom && Affine::atom(*a).uses_var(v.as_str())));
                if shared || *by < 1 {
                    return None;
                }
                let (a, b) = range(func, inner, values)?;
                let (a, b) = (i128::from(a.div_euclid(*by)) * i128::from(coef), i128::from(b.div_euclid(*by)) * i128::from(coef));
                (a.min(b), a.max(b))
            }
        };
        (lo, hi) = (lo.checked_add(a)?, hi.checked_add(b)?);
    }
    Some((lo.try_into().ok()?, hi.try_into().ok()?))
}

/// The range of the sum of the terms of one variable.
fn part<'a>(func: &Func, terms: impl Iterator<Item = (&'a Atom, &'a i64)> + Clone, values: Values) -> Option<(i128, i128)> {
    let at = |v: i64| {
        terms.clone().try_fold(0_i128, |sum, (atom, coef)| {
            let term = match atom {
                Atom::Table(t, _) => *func.find_table(t)?.values.get(usize::try_from(v).ok()?)?,
                _ => v,
            };
            sum.checked_add(i128::from(term) * i128::from(*coef))
        })
    };
    let linear = terms.clone().all(|(atom, _)| matches!(atom, Atom::Var(_)));
    if linear {
        let (a, b) = (at(values.first)?, at(values.last)?);
        return Some((a.min(b), a.max(b)));
    }
    if (values.last - values.first) / values.step > MOST_VALUES {
        return None;
    }
    let mut out: Option<(i128, i128)> = None;
    let mut v = values.first;
    while v <= values.last {
        let x = at(v)?;
        out = Some(out.map_or((x, x), |(lo, hi)| (lo.min(x), hi.max(x))));
        v = v.checked_add(values.step)?;
    }
    out
}
