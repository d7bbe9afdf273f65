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

/// A sum of registers with coefficients.
pub struct Sum(pub Vec<(i64, Exact)>);

/// The sum that a row of a matrix stands for; `entry` says which register a column is.
pub fn sum(row: &[Exact], entry: impl Fn(usize) -> i64) -> Sum {
    let nonzero = row.iter().enumerate().filter(|(_, c)| **c != Exact::from(0));
    let mut terms: Vec<(i64, Exact)> = nonzero.map(|(i, c)| (entry(i), *c)).collect();
    // A positive term comes first, so that the others can be added or subtracted.
    if let Some(first) = terms.iter().position(|t| t.1 > Exact::from(0)) {
        terms[..=first].rotate_right(1);
    }
    Sum(terms)
}

impl Sum {
    /// Its value, in registers of that prefix.
    pub fn value(&self, prefix: &str) -> Value {
        let reg = |e: i64| Value::reg(format!("{prefix}{e}"));
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
}
