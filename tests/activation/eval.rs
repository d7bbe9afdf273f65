//! A plain evaluator of IR for the tests of single passes: every register is a vector of its lanes, every operation one loop over them.
//!
//! Buffers are one-dimensional and indexed by constants, loop variables and sums of them.

use polyphase::ir::{Access, Affine, Atom, BinOp, CmpOp, Func, Name, Stmt, UnOp, Value};
use std::collections::BTreeMap;

/// What the evaluator needs of an element type.
pub trait Real: Copy + PartialOrd {
    fn from_f64(v: f64) -> Self;
    fn bin(op: BinOp, a: Self, b: Self) -> Self;
    fn fma(self, b: Self, c: Self) -> Self;
    fn un(op: UnOp, a: Self) -> Self;
}

macro_rules! real {
    ($t:ty, $bits:ty, $normal:expr, $mantissa:expr, $bias:expr) => {
        impl Real for $t {
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
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
            #[inline(always)]
            fn fma(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            #[inline(always)]
            fn un(op: UnOp, a: Self) -> Self {
                match op {
                    UnOp::Neg => -a,
                    UnOp::Abs => a.abs(),
                    UnOp::Pow2 => {
                        assert!(a.trunc() == a && $normal.contains(&a), "2^{a} is outside the range of pow2");
                        <$t>::from_bits(((a as i64 + $bias) as $bits) << $mantissa)
                    }
                    UnOp::Tanh | UnOp::Sigmoid => panic!("{op:?} is left in the function"),
                }
            }
        }
    };
}
real!(f32, u32, (-126.0..=127.0), 23, 127);
real!(f64, u64, (-1022.0..=1023.0), 52, 1023);

/// The contents of buffers and registers, and the values of loop variables.
pub struct Machine<'a, T> {
    /// What the function declares.
    pub func: &'a Func,
    /// Whether `fma` rounds once, or is a multiplication and an addition.
    pub fused: bool,
    /// Buffers by name.
    pub memory: BTreeMap<Name, Vec<T>>,
    regs: BTreeMap<(Name, Vec<i64>), Vec<T>>,
    vars: BTreeMap<Name, i64>,
}

impl<'a, T: Real> Machine<'a, T> {
    /// A machine with these buffers.
    pub fn new(func: &'a Func, fused: bool, memory: &[(&str, &[T])]) -> Self {
        let memory = memory.iter().map(|(n, v)| (Name::from(*n), v.to_vec())).collect();
        Machine { func, fused, memory, regs: BTreeMap::new(), vars: BTreeMap::new() }
    }

    /// Executes the section `run`.
    pub fn run(&mut self) {
        let func = self.func;
        self.block(&func.run);
    }

    fn index(&self, a: &Affine) -> i64 {
        a.eval(&mut |atom| match atom {
            Atom::Var(v) => self.vars[v],
            other => panic!("{other:?} in an index"),
        })
    }

    fn block(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match stmt {
                Stmt::For(l) => {
                    let (lo, hi) = l.const_range().expect("constant bounds");
                    for i in (lo..hi).step_by(l.step as usize) {
                        self.vars.insert(l.var, i);
                        self.block(&l.body);
                    }
                }
                Stmt::When { .. } => panic!("the tests have no conditions"),
                Stmt::Tile { body, .. } => self.block(body),
                Stmt::Set { reg, index, value } => {
                    let lanes = self.func.find_reg(reg.as_str()).unwrap_or_else(|| panic!("no register {reg}")).lanes;
                    let value = widen(self.value(value), lanes);
                    let index = index.iter().map(|a| self.index(a)).collect();
                    self.regs.insert((*reg, index), value);
                }
                Stmt::Store { to, parts, .. } => self.store(to, parts),
            }
        }
    }

    fn store(&mut self, to: &Access, parts: &[Value]) {
        let (count, step) = shape(to);
        let start = self.index(&to.index[0]) as usize;
        let parts: Vec<_> = parts.iter().map(|v| widen(self.value(v), count)).collect();
        let memory = self.memory.get_mut(&to.buffer).expect("the buffer is given");
        for (i, part) in parts.iter().enumerate() {
            part.iter().enumerate().for_each(|(j, v)| memory[start + i + step * j] = *v);
        }
    }

    fn value(&self, v: &Value) -> Vec<T> {
        match v {
            Value::Const(c) => vec![T::from_f64(*c)],
            Value::Reg(name, index) => {
                let index = index.iter().map(|a| self.index(a)).collect();
                self.regs.get(&(*name, index)).unwrap_or_else(|| panic!("{name} is read before it is set")).clone()
            }
            Value::Load(from) => {
                let (count, step) = shape(from);
                let start = self.index(&from.index[0]) as usize;
                (0..count).map(|j| self.memory[&from.buffer][start + step * j]).collect()
            }
            Value::Fma(v) => {
                let [a, b, c] = self.operands(v);
                let n = a.len();
                if self.fused {
                    (0..n).map(|i| a[i].fma(b[i], c[i])).collect()
                } else {
                    (0..n).map(|i| T::bin(BinOp::Add, T::bin(BinOp::Mul, a[i], b[i]), c[i])).collect()
                }
            }
            Value::Bin(op, v) => {
                let [a, b] = self.operands(v);
                a.iter().zip(&b).map(|(a, b)| T::bin(*op, *a, *b)).collect()
            }
            Value::Un(op, v) => self.value(v).into_iter().map(|a| T::un(*op, a)).collect(),
            Value::Select(cmp, v) => {
                let [a, b, t, e] = self.operands(v);
                let holds = |a: T, b: T| match cmp {
                    CmpOp::Lt => a < b,
                    CmpOp::Le => a <= b,
                    CmpOp::Eq => a == b,
                    CmpOp::Ne => a != b,
                };
                (0..a.len()).map(|i| if holds(a[i], b[i]) { t[i] } else { e[i] }).collect()
            }
        }
    }

    /// The operands, brought to the same number of lanes.
    fn operands<const N: usize>(&self, v: &[Value; N]) -> [Vec<T>; N] {
        let v = v.each_ref().map(|v| self.value(v));
        let lanes = v.iter().map(Vec::len).max().unwrap_or(1);
        v.map(|v| widen(v, lanes))
    }
}

/// A scalar in every lane; a vector must have the lanes already.
fn widen<T: Real>(v: Vec<T>, lanes: usize) -> Vec<T> {
    if v.len() == 1 {
        return vec![v[0]; lanes];
    }
    assert_eq!(v.len(), lanes, "lanes of a value against those of its place");
    v
}

/// Lanes of an access, and the distance between them.
fn shape(a: &Access) -> (usize, usize) {
    a.lanes.as_ref().map_or((1, 1), |l| (l.count, l.step as usize))
}
