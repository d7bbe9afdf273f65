//! The two element types in which the interpreter computes, and what every operation of the IR means on them.
//!
//! Each method rounds exactly once, as native code does; only `tanh` and `sigmoid` go through f64.

use crate::ir::{BinOp, CmpOp, Elem, UnOp};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`: what tensors hold and registers compute in.
pub trait Real: Copy + PartialOrd + std::fmt::Debug + Send + Sync + 'static + sealed::Sealed {
    /// The IR's name of this type.
    const ELEM: Elem;
    /// Zero.
    const ZERO: Self;
    /// The least finite value.
    const LOWEST: Self;
    /// The greatest finite value.
    const HIGHEST: Self;
    /// A quiet NaN: what memory holds before it is written.
    const NAN: Self;
    /// The nearest value.
    fn from_f64(v: f64) -> Self;
    /// The same value.
    fn to_f64(self) -> f64;
    /// Whether every value is neither infinite nor NaN.
    fn all_finite(values: &[Self]) -> bool {
        // Without a way out inside a block, a block is tested by vectors.
        values.chunks(1024).all(|block| block.iter().fold(true, |all, v| all & (*v >= Self::LOWEST) & (*v <= Self::HIGHEST)))
    }
    /// `self * b + c`, rounded once.
    fn fused(self, b: Self, c: Self) -> Self;
    /// An operation on two values, see [`BinOp`].
    fn bin(op: BinOp, a: Self, b: Self) -> Self;
    /// An operation on one value, see [`UnOp`].
    fn un(op: UnOp, a: Self) -> Self;
    /// A comparison, see [`CmpOp`].
    fn cmp(op: CmpOp, a: Self, b: Self) -> bool {
        match op {
            CmpOp::Lt => a < b,
            CmpOp::Le => a <= b,
            CmpOp::Eq => a == b,
            CmpOp::Ne => a != b,
        }
    }
}

macro_rules! real {
    ($t:ident, $elem:expr, $mantissa:expr) => {
        impl Real for $t {
            const ELEM: Elem = $elem;
            const ZERO: Self = 0.0;
            const LOWEST: Self = $t::MIN;
            const HIGHEST: Self = $t::MAX;
            const NAN: Self = $t::NAN;
            #[inline]
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            #[inline]
            fn bin(op: BinOp, a: Self, b: Self) -> Self {
                match op {
                    BinOp::Add => a + b,
                    BinOp::Sub => a - b,
                    BinOp::Mul => a * b,
                    BinOp::Div => a / b,
                    BinOp::Max => {
                        if a > b {
                            a
                        } else {
                            b
                        }
                    }
                    BinOp::Min => {
                        if a < b {
                            a
                        } else {
                            b
                        }
                    }
                }
            }
            #[inline]
            fn un(op: UnOp, a: Self) -> Self {
                match op {
                    UnOp::Neg => -a,
                    UnOp::Abs => a.abs(),
                    UnOp::Pow2 => {
                        // Adding 1.5·2^m leaves the integer in the low bits; they move into the exponent field.
                        let magic = 1.5 * (1u64 << $mantissa) as $t;
                        $t::from_bits(((a + magic).to_bits() << $mantissa).wrapping_add((1.0 as $t).to_bits()))
                    }
                    UnOp::Tanh => f64::from(a).tanh() as $t,
                    UnOp::Sigmoid => (1.0 / (1.0 + (-f64::from(a)).exp())) as $t,
                }
            }
        }
    };
}
real!(f32, Elem::F32, 23);
real!(f64, Elem::F64, 52);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pow2_is_exact_over_the_normal_exponents() {
        for e in -126..=127 {
            assert_eq!(f32::un(UnOp::Pow2, e as f32).to_bits(), 2f32.powi(e).to_bits(), "2^{e}");
        }
        for e in -1022..=1023 {
            assert_eq!(f64::un(UnOp::Pow2, f64::from(e)).to_bits(), 2f64.powi(e).to_bits(), "2^{e}");
        }
    }

    #[test]
    fn max_and_min_give_their_second_operand_with_a_nan() {
        assert_eq!(f32::bin(BinOp::Max, f32::NAN, 1.0), 1.0);
        assert!(f32::bin(BinOp::Max, 1.0, f32::NAN).is_nan());
        assert_eq!(f64::bin(BinOp::Min, f64::NAN, 1.0), 1.0);
        assert!(f64::bin(BinOp::Min, 1.0, f64::NAN).is_nan());
        assert_eq!(f32::bin(BinOp::Max, 0.0, -0.0).to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn fused_rounds_once() {
        let a = 1.0 + f32::EPSILON;
        assert_eq!(a.fused(a, -1.0 - 2.0 * f32::EPSILON), f32::EPSILON * f32::EPSILON);
    }
}
