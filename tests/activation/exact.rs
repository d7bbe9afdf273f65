//! tanh and sigmoid to about 90 bits, from their series in double-double arithmetic, and the error of an f64 against them.
//!
//! Results are kept times 2^300: denormal results are then ordinary numbers, and their errors too.

use polyphase::ir::UnOp;

/// An unevaluated sum of two f64, the second below the last bit of the first.
#[derive(Clone, Copy)]
struct Dd(f64, f64);

const SCALE: i32 = 300;
const LN2: Dd = Dd(std::f64::consts::LN_2, 2.3190468138462996e-17);

impl Dd {
    fn sum(a: f64, b: f64) -> Dd {
        let s = a + b;
        let t = s - a;
        Dd(s, (a - (s - t)) + (b - t))
    }
    fn add(self, o: Dd) -> Dd {
        let (s, t) = (Dd::sum(self.0, o.0), Dd::sum(self.1, o.1));
        let u = Dd::sum(s.0, s.1 + t.0);
        Dd::sum(u.0, u.1 + t.1)
    }
    fn mul(self, o: Dd) -> Dd {
        let p = self.0 * o.0;
        let low = self.0.mul_add(o.0, -p) + (self.0 * o.1 + self.1 * o.0);
        Dd::sum(p, low)
    }
    fn div(self, o: Dd) -> Dd {
        let mut rest = self;
        let mut q = Dd(0.0, 0.0);
        for _ in 0..3 {
            let digit = rest.0 / o.0;
            q = q.add(Dd(digit, 0.0));
            rest = rest.add(o.mul(Dd(-digit, 0.0)));
        }
        q
    }
    /// Times 2^k, with both parts in the range of normal numbers.
    fn scale(self, k: i32) -> Dd {
        Dd(self.0 * pow2(k), self.1 * pow2(k))
    }
}

fn pow2(k: i32) -> f64 {
    f64::from_bits(((k + 1023) as u64) << 52)
}

/// `(e^r - 1, n)` with `z = n ln 2 + r`, from the Taylor series of 30 terms.
fn expm1(z: f64) -> (Dd, i32) {
    let n = (z / LN2.0).round();
    let r = Dd(z, 0.0).add(LN2.mul(Dd(-n, 0.0)));
    let mut sum = Dd(1.0, 0.0);
    for k in (2..=30).rev() {
        sum = Dd(1.0, 0.0).add(r.mul(sum).div(Dd(k as f64, 0.0)));
    }
    (r.mul(sum), n as i32)
}

/// The exact value times 2^300.
fn exact(op: UnOp, x: f64) -> Dd {
    let (one, a) = (Dd(1.0, 0.0), x.abs());
    if op == UnOp::Tanh {
        let positive = if a < 1e-9 {
            let scaled = a * pow2(SCALE);
            Dd(scaled, -scaled * a * a / 3.0)
        } else if a > 50.0 {
            one.scale(SCALE)
        } else {
            let (m, n) = expm1(2.0 * a);
            let m = m.scale(n).add(Dd(pow2(n), 0.0)).add(Dd(-1.0, 0.0));
            m.div(m.add(Dd(2.0, 0.0))).scale(SCALE)
        };
        return Dd(positive.0.copysign(x), if x < 0.0 { -positive.1 } else { positive.1 });
    }
    if a > 800.0 {
        return if x < 0.0 { Dd(0.0, 0.0) } else { one.scale(SCALE) };
    }
    let (m, n) = expm1(-a);
    let e = m.add(one);
    let numerator = if x < 0.0 { e.scale(n + SCALE) } else { one.scale(SCALE) };
    numerator.div(one.add(e.scale(n.max(-200))))
}

/// The error of `y` as the value of `op(x)`, in units in the last place of the exact result.
pub fn ulps64(op: UnOp, x: f64, y: f64) -> f64 {
    let Dd(hi, lo) = exact(op, x);
    let exponent = (((hi.to_bits() >> 52) & 2047) as i32 - 1023).max(-1022 + SCALE);
    ((y * pow2(SCALE) - hi) - lo).abs() / pow2(exponent - 52)
}

#[test]
fn the_exact_values_agree_with_known_digits() {
    // tanh(1/2) = 0.462117157260009758502318483643672549…, sigmoid(-1) = 0.268941421369995120748840758178163726…
    for (op, x, hi, lo) in
        [(UnOp::Tanh, 0.5, 0.46211715726000974, 2.1916603238260928e-17), (UnOp::Sigmoid, -1.0, 0.2689414213699951, 1.679727399649845e-17)]
    {
        let Dd(a, b) = exact(op, x).scale(-SCALE);
        assert!(a == hi && (b - lo).abs() < 1e-30, "{op:?}({x}) = {a:e} + {b:e}");
    }
}
