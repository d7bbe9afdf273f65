//! Sums of registers: what a row of a transform is when it is carried out.

use crate::ir::{Affine, BinOp, Value};
use crate::passes::toom_cook::{Exact, float};

/// Registers of one axis' step: each step has its own, since pass `vector` treats each loop by itself.
pub fn axis_reg(role: &str, a: usize, rank: usize) -> String {
    format!("{role}{}", crate::ir::names::axes(rank)[a])
}

/// Which register an entry of a buffer is loaded into, and the entry's index.
pub type Entry = (i64, Vec<Affine>);

/// Where a sum is stored.
pub type Stored = (Vec<Affine>, Sum);

/// A register that holds what several sums share, and what it is.
pub type Shared = (i64, Sum);

/// A sum of registers with coefficients.
#[derive(Clone)]
pub struct Sum(pub Vec<(i64, Exact)>);

/// The sum that a row of a matrix stands for; `entry` says which register a column is.
pub fn sum(row: &[Exact], entry: impl Fn(usize) -> i64) -> Sum {
    let nonzero = row.iter().enumerate().filter(|(_, c)| **c != Exact::from(0));
    Sum::of(nonzero.map(|(i, c)| (entry(i), *c)).collect())
}

impl Sum {
    /// Its value, in registers of that prefix.
    pub fn value(&self, prefix: &str) -> Value {
        let reg = |e: i64| Value::reg(register(prefix, e));
        let one = Exact::from(1);
        let scaled = |e: i64, c: Exact| if c == one { reg(e) } else { Value::bin(BinOp::Mul, reg(e), Value::Const(float(c))) };
        let Some(((e, c), rest)) = self.0.split_first() else { return Value::Const(0.0) };
        // Coefficients that are all alike multiply the sum.
        let alike = self.0.len() > 1 && *c != one && self.0.iter().all(|t| t.1 == *c || t.1 == -*c);
        let by = if alike { *c } else { one };
        let v = rest.iter().fold(scaled(*e, *c / by), |v, &(e, c)| match c / by {
            c if c == one => Value::bin(BinOp::Add, v, reg(e)),
            c if c == -one => Value::bin(BinOp::Sub, v, reg(e)),
            c => Value::fma(reg(e), Value::Const(float(c)), v),
        });
        if alike { Value::bin(BinOp::Mul, v, Value::Const(float(by))) } else { v }
    }

    fn of(mut terms: Vec<(i64, Exact)>) -> Self {
        // A term that needs no multiplication comes first, or a positive one, so that the others can be added or subtracted.
        let first = terms.iter().position(|t| t.1 == 1.into()).or_else(|| terms.iter().position(|t| t.1 > 0.into()));
        if let Some(first) = first {
            terms[..=first].rotate_right(1);
        }
        Sum(terms)
    }

    fn coefficient(&self, of: i64) -> Exact {
        self.0.iter().find(|t| t.0 == of).map_or(0.into(), |t| t.1)
    }
}

/// The register of an entry; negative ones are what several sums share.
pub fn register(prefix: &str, e: i64) -> String {
    if e < 0 { format!("{prefix}s{}", -e) } else { format!("{prefix}{e}") }
}

/// Sums in terms of what several of them have in common, which is computed first: registers with the sums that they hold, in order.
///
/// Points come in pairs `a, -a`, whose rows of a matrix are `E + O` and `E - O`, and whose columns in another are the same but for signs. Either way half of
/// the additions are done once for both.
pub fn shared(mut rows: Vec<Sum>) -> (Vec<Shared>, Vec<Sum>) {
    let mut common = Vec::new();
    rows_in_pairs(&mut rows, &mut common);
    columns_in_pairs(&mut rows, &mut common);
    (common, rows)
}

/// Pairs of rows whose terms have the same coefficients but for signs: what they agree in, and what they do not, is summed once.
fn rows_in_pairs(rows: &mut [Sum], common: &mut Vec<Shared>) {
    for i in 0..rows.len() {
        for j in i + 1..rows.len() {
            let (a, b) = (&rows[i], &rows[j]);
            if a.0.len() != b.0.len() || a.0.len() < 3 || !a.0.iter().all(|t| b.coefficient(t.0) == t.1 || b.coefficient(t.0) == -t.1) {
                continue;
            }
            let (even, odd): (Vec<_>, Vec<_>) = a.0.iter().copied().partition(|t| b.coefficient(t.0) == t.1);
            if even.is_empty() || odd.is_empty() {
                continue;
            }
            let [even, odd] = [even, odd].map(|half| as_one(half, common));
            rows[i] = Sum::of(vec![even, odd]);
            rows[j] = Sum::of(vec![even, (odd.0, -odd.1)]);
        }
    }
}

/// Some terms of a sum as one: the register that holds them, and its coefficient.
fn as_one(terms: Vec<(i64, Exact)>, common: &mut Vec<Shared>) -> (i64, Exact) {
    // In a row of products with points, that of the last entry divides the others without a fraction that `f32` does not have.
    let one = Exact::from(1);
    let whole = terms.iter().find(|t| t.1 == one || t.1 == -one);
    let &(e, by) = whole.or(terms.iter().max_by_key(|t| t.0)).expect("a half has terms");
    if terms.len() == 1 {
        return (e, by);
    }
    let register = -1 - common.len() as i64;
    common.push((register, Sum::of(terms.into_iter().map(|(e, c)| (e, c / by)).collect())));
    (register, by)
}

/// Pairs of columns that are the same but for signs, where more rows than two need them: their sum and their difference are computed once.
fn columns_in_pairs(rows: &mut [Sum], common: &mut Vec<Shared>) {
    let mut columns: Vec<i64> = rows.iter().flat_map(|r| r.0.iter().map(|t| t.0)).collect();
    columns.sort_unstable();
    columns.dedup();
    for (at, &a) in columns.iter().enumerate() {
        for &b in &columns[at + 1..] {
            let of = |r: &Sum| (r.coefficient(a), r.coefficient(b));
            let zero = Exact::from(0);
            let alike = rows.iter().filter(|r| of(r).0 != zero && of(r).0 == of(r).1).count();
            let opposite = rows.iter().filter(|r| of(r).0 != zero && of(r).0 == -of(r).1).count();
            let neither = rows.iter().filter(|r| of(r) != (zero, zero)).count() - alike - opposite;
            if neither > 0 || alike == 0 || opposite == 0 || alike + opposite < 3 {
                continue;
            }
            let (sum, difference) = (-1 - common.len() as i64, -2 - common.len() as i64);
            common.push((sum, Sum(vec![(a, 1.into()), (b, 1.into())])));
            common.push((difference, Sum(vec![(a, 1.into()), (b, Exact::from(-1))])));
            for r in &mut *rows {
                let (of_a, of_b) = of(r);
                if of_a == zero {
                    continue;
                }
                let by = if of_a == of_b { sum } else { difference };
                let terms = r.0.iter().filter(|t| t.0 != b).map(|&(e, c)| if e == a { (by, c) } else { (e, c) });
                *r = Sum::of(terms.collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::toom_cook::{MOST_PRODUCTS, ToomCook};

    /// What a sum is in terms of entries, registers that are shared written out.
    fn written_out(s: &Sum, common: &[Shared], by: Exact, into: &mut [Exact]) {
        for &(e, c) in &s.0 {
            match common.iter().find(|o| o.0 == e) {
                Some((_, shared)) => written_out(shared, common, by * c, into),
                None => into[e as usize] += by * c,
            }
        }
    }

    /// How many additions, multiply-adds and multiplications the rows of a matrix take.
    fn operations(rows: &[Vec<Exact>]) -> usize {
        let (common, rows) = shared(rows.iter().map(|r| sum(r, |i| i as i64)).collect());
        let unit = |s: &Sum| s.0.iter().any(|t| t.1 == 1.into()) || s.0.iter().all(|t| t.1 == Exact::from(-1));
        let of = |s: &Sum| s.0.len().saturating_sub(usize::from(s.0.is_empty() || unit(s)));
        common.iter().map(|c| &c.1).chain(&rows).map(of).sum()
    }

    #[test]
    fn shared_sums_are_the_same_sums() {
        for (m, r) in (1..MOST_PRODUCTS).flat_map(|m| (1..=MOST_PRODUCTS + 1 - m).map(move |r| (m, r))) {
            let t = ToomCook::new(m, r).expect("there are points");
            for rows in [&t.input, &t.weight, &t.output] {
                let (common, shared) = shared(rows.iter().map(|r| sum(r, |i| i as i64)).collect());
                for (row, s) in rows.iter().zip(&shared) {
                    let mut all = vec![Exact::from(0); row.len()];
                    written_out(s, &common, 1.into(), &mut all);
                    assert_eq!(*row, all, "F({m}, {r})");
                }
            }
        }
    }

    #[test]
    fn pairs_of_points_share_their_operations() {
        let t = ToomCook::new(4, 2).expect("there are points");
        let by_row = |rows: &[Vec<Exact>]| rows.iter().map(|r| r.iter().filter(|c| **c != 0.into()).count() - 1).sum::<usize>();
        assert_eq!((by_row(&t.input), operations(&t.input)), (14, 10));
        // Two of four rows have no term that is not multiplied.
        assert_eq!((by_row(&t.output), operations(&t.output)), (13, 11));
    }
}
