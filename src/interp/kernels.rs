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

/// The proof that this CPU fuses a multiplication and an addition in one instruction; elsewhere `mul_add` is a call.
#[derive(Clone, Copy)]
pub(super) struct HardwareFma(());

impl HardwareFma {
    /// The proof, if the CPU has it.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
            return Some(HardwareFma(()));
        }
        None
    }
}

/// `file[to + j] = a * b + c`, rounded once, for each of `n` lanes. The bits do not depend on the hardware.
#[inline]
pub(super) fn fma<T: Real>(hardware: Option<HardwareFma>, file: &mut [T], n: usize, to: usize, args: [(usize, usize); 3]) {
    #[cfg(target_arch = "x86_64")]
    if hardware.is_some() {
        // SAFETY: a `HardwareFma` exists only where `detect` found the features that `fma_avx2` enables.
        unsafe { fma_avx2(file, n, to, args) };
        return;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = hardware;
    fma_lanes(file, n, to, args);
}

/// [`fma_lanes`] where `mul_add` is one instruction rather than a call.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma_avx2<T: Real>(file: &mut [T], n: usize, to: usize, args: [(usize, usize); 3]) {
    fma_lanes(file, n, to, args);
}

#[inline(always)]
fn fma_lanes<T: Real>(file: &mut [T], n: usize, to: usize, [a, b, c]: [(usize, usize); 3]) {
    const BLOCK: usize = 8;
    let mut j = 0;
    while j + BLOCK <= n {
        // Operands first, so that the compiler need not ask whether the destination is one of them.
        let [a, b, c] = [a, b, c].map(|o| block::<T, BLOCK>(file, o, j));
        let out = &mut file[to + j..][..BLOCK];
        for i in 0..BLOCK {
            out[i] = a[i].fused(b[i], c[i]);
        }
        j += BLOCK;
    }
    for j in j..n {
        file[to + j] = file[a.0 + j * a.1].fused(file[b.0 + j * b.1], file[c.0 + j * c.1]);
    }
}

/// Lanes `j..j + N` of an operand.
#[inline(always)]
fn block<T: Real, const N: usize>(file: &[T], (at, step): (usize, usize), j: usize) -> [T; N] {
    let mut out = [T::ZERO; N];
    if step == 0 {
        out.fill(file[at]);
    } else {
        out.copy_from_slice(&file[at + j..][..N]);
    }
    out
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
