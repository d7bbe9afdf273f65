//! Operations on lanes of the element file. An operand is `(place of lane 0, distance between lanes)`.
//!
//! Lanes are computed upward one by one; a destination is either one of the operands exactly or apart from all of them.

use super::real::Real;
use crate::ir::{BinOp, CmpOp};

/// `file[to + j] = f(a)` for each of `n` lanes.
#[inline]
pub(super) fn map1<T: Real>(file: &mut [T], n: usize, to: usize, a: (usize, usize), f: impl Fn(T) -> T) {
    for j in 0..n {
        file[to + j] = f(file[a.0 + j * a.1]);
    }
}

#[inline]
fn map2<T: Real>(file: &mut [T], n: usize, to: usize, [a, b]: [(usize, usize); 2], f: impl Fn(T, T) -> T) {
    for j in 0..n {
        file[to + j] = f(file[a.0 + j * a.1], file[b.0 + j * b.1]);
    }
}

/// `a * b + c`, rounded once.
#[inline]
pub(super) fn fma<T: Real>(file: &mut [T], n: usize, to: usize, [a, b, c]: [(usize, usize); 3]) {
    for j in 0..n {
        file[to + j] = file[a.0 + j * a.1].fused(file[b.0 + j * b.1], file[c.0 + j * c.1]);
    }
}

/// An operation on two values.
pub(super) fn bin<T: Real>(file: &mut [T], op: BinOp, n: usize, to: usize, args: [(usize, usize); 2]) {
    match op {
        BinOp::Add => map2(file, n, to, args, |a, b| T::bin(BinOp::Add, a, b)),
        BinOp::Sub => map2(file, n, to, args, |a, b| T::bin(BinOp::Sub, a, b)),
        BinOp::Mul => map2(file, n, to, args, |a, b| T::bin(BinOp::Mul, a, b)),
        BinOp::Div => map2(file, n, to, args, |a, b| T::bin(BinOp::Div, a, b)),
        BinOp::Max => map2(file, n, to, args, |a, b| T::bin(BinOp::Max, a, b)),
        BinOp::Min => map2(file, n, to, args, |a, b| T::bin(BinOp::Min, a, b)),
    }
}

/// `if a cmp b { t } else { e }`.
pub(super) fn select<T: Real>(file: &mut [T], cmp: CmpOp, n: usize, to: usize, [a, b, t, e]: [(usize, usize); 4]) {
    for j in 0..n {
        let holds = T::cmp(cmp, file[a.0 + j * a.1], file[b.0 + j * b.1]);
        file[to + j] = if holds { file[t.0 + j * t.1] } else { file[e.0 + j * e.1] };
    }
}
