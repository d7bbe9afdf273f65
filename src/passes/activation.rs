//! Replaces `tanh` and `sigmoid` by additions, multiplications, one division and a few selections.
//!
//! *Needs* any function; *leaves* `prepare` and `run` without [`UnOp::Tanh`] and [`UnOp::Sigmoid`], with new registers `act.*` of the operands'
//! lanes, and everything else (`stage` included) as it was. Each activation becomes a run of short statements just
//! before the statement that used it, in the same body, so that a tile keeps few values alive.
//!
//! ```text
//! before   y[oc, q] = tanh(acc + bias[oc])
//! after    act.x = acc + bias[oc]
//!          act.r = 2 * min(|act.x|, 10)
//!          act.n = fma(act.r, log2 e, magic) - magic               the nearest integer
//!          act.r = fma(act.n, -ln2.lo, fma(act.n, -ln2.hi, act.r)) |act.r| <= ln 2 / 2
//!          act.y = fma(act.r * act.r, Q(act.r), act.r)             e^r - 1, Q one fma a statement
//!          …
//!          y[oc, q] = act.y
//! ```
//!
//! # Method
//!
//! Both rest on `e^z = 2^n · e^r`, `n = round(z / ln 2)`, `r = z - n ln 2`, and on `e^r - 1 = r + r² Q(r)`.
//!
//! ```text
//! n       = (z log2 e + magic) - magic        magic = 1.5 · 2^m, m the mantissa width: its last bit is worth 1
//! r       = (z - n ln2.hi) - n ln2.lo         ln2.hi is short: n · ln2.hi and the difference are exact, fused or not
//! Q       Chebyshev interpolant of (e^r - 1 - r) / r² on |r| <= ln 2 / 2, computed with 400 bits, then rounded
//! tanh    z = 2 min(|x|, limit);   m = 2^n (e^r - 1) + (2^n - 1) = e^z - 1
//!         t = m < 2 ? 0 + m / (m + 2) : 1 + -2 / (m + 2)
//!         0 < x ? t : x < 0 ? -t : x          odd by construction; ±0 and NaN pass through
//! sigmoid z = max(-|x|, limit);    e = e^z <= 1;   (x < 0 ? e : 1) / (1 + e), NaN passes through
//! ```
//!
//! *Limits.* `tanh` is 1 to the last bit beyond 10 (f32) and 20 (f64). `e^z` is rounded to 0 below `ln` of half the least denormal,
//! -103.97 and -745.13. `pow2` covers normal numbers only, so e is scaled by `2^max(n, floor)` and, in the
//! numerator alone, by the rest of `2^n`: the one rounding to a denormal is the last, and 1 + e = 1 there.
//!
//! *Error.* Q adds 2^-29 (f32, degree 5) and 2^-60 (f64, degree 10) to `e^r - 1`, relative to it. Rounding r, `r²Q` and the sum leaves m
//! and e within about an ulp and a half; the quotient damps the error of m by 2/(m+2), that of e by e/(1+e) or 1/(1+e), and rounds
//! twice. Near saturation `1 - 2/(m+2)` has one rounding that counts, so results do not turn back.
//!
//! | largest error, ulp | tanh fused | tanh split | sigmoid fused | sigmoid split |
//! |---|---|---|---|---|
//! | f32, every input | 2.42 | 2.43 | 2.41 | 2.41 |
//! | f64, 290 000 inputs | 2.24 | 2.24 | 2.05 | 2.05 |
//!
//! (*split*: each fma is a multiplication and an addition.) `tests/activation.rs` holds all of them to 2.5.
//!
//! The pass works statement by statement: every activation has its own `act.y` until its statement has been executed; `act.x`, `act.n`
//! and `act.r` are used again by the next one. An operand that is a register is read in place.

use crate::ir::{BinOp, CmpOp, Elem, Func, Loop, Name, Reg, Stmt, UnOp, Value};

/// The constants of the method for one element type.
struct Constants {
    /// 1.5 · 2^m: adding it rounds to an integer.
    magic: f64,
    /// The upper part of ln 2, with so few bits that its product with any n is exact.
    ln2_hi: f64,
    /// ln 2 less its upper part.
    ln2_lo: f64,
    /// From here on tanh is 1.
    tanh_limit: f64,
    /// Up to here e^z is 0.
    exp_limit: f64,
    /// The least exponent by which e is scaled at once; n reaches further down.
    exp_floor: f64,
    /// Q, from the constant upward.
    q: &'static [f64],
}

const F32: Constants = Constants {
    magic: 12582912.0,
    ln2_hi: 0.693145751953125,
    ln2_lo: 1.42860677e-6,
    tanh_limit: 10.0,
    exp_limit: -104.0,
    exp_floor: -100.0,
    q: &[0.5, 0.166666672, 0.041666463, 0.00833331048, 0.00139336858, 0.000198910304],
};

const F64: Constants = Constants {
    magic: 6755399441055744.0,
    ln2_hi: 0.6931471803691238,
    ln2_lo: 1.9082149292705877e-10,
    tanh_limit: 20.0,
    exp_limit: -745.2,
    exp_floor: -1000.0,
    q: &[
        0.5,
        0.1666666666666667,
        0.04166666666666667,
        0.008333333333326112,
        0.001388888888888373,
        0.0001984126987490126,
        2.4801587325605324e-5,
        2.7557255297969643e-6,
        2.755727357010214e-7,
        2.5105259538448494e-8,
        2.0914717341716378e-9,
    ],
};

/// The function with every `tanh` and `sigmoid` replaced by primitive operations.
pub fn run(func: &Func) -> Func {
    let mut out = func.clone();
    let mut pass = Pass { func, regs: Vec::new() };
    out.prepare = pass.block(out.prepare);
    out.run = pass.block(out.run);
    out.regs.append(&mut pass.regs);
    out
}

struct Pass<'a> {
    func: &'a Func,
    /// The registers introduced so far; statements share them.
    regs: Vec<Reg>,
}

impl Pass<'_> {
    fn block(&mut self, stmts: Vec<Stmt>) -> Vec<Stmt> {
        let mut out = Vec::with_capacity(stmts.len());
        for mut stmt in stmts {
            match &mut stmt {
                Stmt::For(Loop { body, .. }) | Stmt::When { body, .. } | Stmt::Tile { body, .. } => {
                    *body = self.block(std::mem::take(body))
                }
                Stmt::Set { value, .. } => self.replace(std::slice::from_mut(value), &mut out),
                Stmt::Store { parts, .. } => self.replace(parts, &mut out),
            }
            out.push(stmt);
        }
        out
    }

    /// Replaces the activations in the values of one statement, innermost first; what they need computed goes to `before`.
    fn replace(&mut self, values: &mut [Value], before: &mut Vec<Stmt>) {
        let mut results = Vec::new();
        for value in values {
            let old = std::mem::replace(value, Value::Const(0.0));
            *value = old.map(&mut |v| match v {
                Value::Un(op @ (UnOp::Tanh | UnOp::Sigmoid), x) => self.expand(op, *x, &mut results, before),
                other => other,
            });
        }
    }

    /// Computes one activation into a register of its own, which joins `results`: those the statement has yet to read.
    fn expand(&mut self, op: UnOp, x: Value, results: &mut Vec<Name>, before: &mut Vec<Stmt>) -> Value {
        let lanes = self.lanes(&x);
        let [n, r] = ["n", "r"].map(|base| self.temporary(base, lanes, &[]));
        let y = self.temporary("y", lanes, results);
        results.push(y);
        // No statement below writes to a register of the function, so one may stand for x itself.
        let x = match x {
            Value::Reg(..) => x,
            _ => {
                let copy = self.temporary("x", lanes, &[]);
                before.push(Stmt::set(copy, x));
                Value::reg(copy)
            }
        };
        let constants = match self.func.elem {
            Elem::F32 => &F32,
            Elem::F64 => &F64,
        };
        let mut code = Code { constants, x, n, r, y, out: before };
        match op {
            UnOp::Tanh => code.tanh(),
            _ => code.sigmoid(),
        }
        Value::reg(code.y)
    }

    /// How many lanes a value has: the most of its operands', 1 for a constant.
    fn lanes(&self, v: &Value) -> usize {
        match v {
            Value::Const(_) => 1,
            Value::Reg(name, _) => {
                let of = |regs: &[Reg]| regs.iter().find(|r| r.name == *name).map(|r| r.lanes);
                of(&self.func.regs).or_else(|| of(&self.regs)).unwrap_or(1)
            }
            Value::Load(access) => access.lanes.as_ref().map_or(1, |l| l.count),
            _ => v.operands().iter().map(|v| self.lanes(v)).max().unwrap_or(1),
        }
    }

    /// `act.base`, or `act.base2`, … if that is another thing's name, has other lanes, or is `busy`.
    fn temporary(&mut self, base: &str, lanes: usize, busy: &[Name]) -> Name {
        for i in 1.. {
            let name = Name::from(if i == 1 { format!("act.{base}") } else { format!("act.{base}{i}") });
            match self.regs.iter().find(|r| r.name == name) {
                Some(reg) if reg.lanes == lanes && !busy.contains(&name) => return name,
                Some(_) => {}
                None if self.is_taken(&name) => {}
                None => {
                    self.regs.push(Reg { name, lanes, dims: Vec::new() });
                    return name;
                }
            }
        }
        unreachable!("names do not run out")
    }

    fn is_taken(&self, name: &Name) -> bool {
        let f = self.func;
        let declared = f.find_reg(name).is_some() || f.find_buffer(name).is_some();
        let mut taken = declared || f.find_table(name).is_some() || f.is_symbol(name);
        for stmt in &f.run {
            stmt.visit(&mut |s| taken |= matches!(s, Stmt::For(l) if l.var == *name));
        }
        taken
    }
}

/// Writes the statements of one activation: from `x` to `y`, by way of `n` and `r`.
struct Code<'a> {
    constants: &'static Constants,
    x: Value,
    n: Name,
    r: Name,
    y: Name,
    out: &'a mut Vec<Stmt>,
}

impl Code<'_> {
    fn tanh(&mut self) {
        let (x, n, r, y) = self.values();
        // The constant comes second: with a NaN it is the result, and what `pow2` is given stays an integer.
        let a = bin(BinOp::Min, Value::un(UnOp::Abs, x.clone()), Value::Const(self.constants.tanh_limit));
        self.set_r(bin(BinOp::Mul, a, Value::Const(2.0)));
        self.reduce();
        self.set_n(Value::un(UnOp::Pow2, n.clone()));
        self.set_y(Value::fma(n.clone(), y.clone(), bin(BinOp::Sub, n.clone(), Value::Const(1.0))));
        let (zero, one, two) = (Value::Const(0.0), Value::Const(1.0), Value::Const(2.0));
        let if_small = |t, e| Value::select(CmpOp::Lt, y.clone(), two.clone(), t, e);
        self.set_r(bin(BinOp::Add, y.clone(), two.clone()));
        self.set_n(if_small(zero.clone(), one));
        self.set_y(bin(BinOp::Div, if_small(y.clone(), Value::Const(-2.0)), r));
        self.set_y(bin(BinOp::Add, n, y.clone()));
        let rest = Value::select(CmpOp::Lt, x.clone(), zero.clone(), Value::un(UnOp::Neg, y.clone()), x.clone());
        self.set_y(Value::select(CmpOp::Lt, zero, x, y, rest));
    }

    fn sigmoid(&mut self) {
        let (x, n, r, y) = self.values();
        let a = Value::un(UnOp::Neg, Value::un(UnOp::Abs, x.clone()));
        self.set_r(bin(BinOp::Max, a, Value::Const(self.constants.exp_limit)));
        self.reduce();
        let one = Value::Const(1.0);
        self.set_y(bin(BinOp::Add, y.clone(), one.clone()));
        self.set_r(bin(BinOp::Max, n.clone(), Value::Const(self.constants.exp_floor)));
        self.set_y(bin(BinOp::Mul, y.clone(), Value::un(UnOp::Pow2, r.clone())));
        self.set_n(Value::un(UnOp::Pow2, bin(BinOp::Sub, n.clone(), r.clone())));
        self.set_r(bin(BinOp::Add, y.clone(), one.clone()));
        let numerator = Value::select(CmpOp::Lt, x.clone(), Value::Const(0.0), bin(BinOp::Mul, y.clone(), n), one);
        self.set_y(bin(BinOp::Div, numerator, r));
        self.set_y(Value::select(CmpOp::Ne, x.clone(), x.clone(), x, y));
    }

    /// From z in `r` to n in `n`, the remainder in `r` and `e^r - 1` in `y`.
    fn reduce(&mut self) {
        let (_, n, r, y) = self.values();
        let Constants { magic, ln2_hi, ln2_lo, q, .. } = *self.constants;
        let shifted = Value::fma(r.clone(), Value::Const(std::f64::consts::LOG2_E), Value::Const(magic));
        self.set_n(bin(BinOp::Sub, shifted, Value::Const(magic)));
        for part in [ln2_hi, ln2_lo] {
            self.set_r(Value::fma(n.clone(), Value::Const(-part), r.clone()));
        }
        let (top, rest) = q.split_last().expect("Q has coefficients");
        let mut sum = Value::Const(*top);
        for c in rest.iter().rev() {
            self.set_y(Value::fma(sum, r.clone(), Value::Const(*c)));
            sum = y.clone();
        }
        self.set_y(Value::fma(bin(BinOp::Mul, r.clone(), r.clone()), y, r));
    }

    fn values(&self) -> (Value, Value, Value, Value) {
        (self.x.clone(), Value::reg(self.n), Value::reg(self.r), Value::reg(self.y))
    }
    fn set_n(&mut self, value: Value) {
        self.out.push(Stmt::set(self.n, value));
    }
    fn set_r(&mut self, value: Value) {
        self.out.push(Stmt::set(self.r, value));
    }
    fn set_y(&mut self, value: Value) {
        self.out.push(Stmt::set(self.y, value));
    }
}

fn bin(op: BinOp, a: Value, b: Value) -> Value {
    Value::bin(op, a, b)
}
