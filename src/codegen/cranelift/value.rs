//! Values: constants, registers, arithmetic. A vector of more than 128 bits is several Cranelift values; one that 128 bits do not divide is
//! as many scalars.

use super::{Emit, refused};
use crate::Result;
use crate::ir::{Affine, BinOp, CmpOp, Elem, Name, UnOp, Value};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlagsData, Type, types};

/// A value of the IR.
#[derive(Clone)]
pub struct Vals {
    /// Its lanes.
    pub lanes: usize,
    /// Its 128-bit parts, or scalars.
    pub parts: Vec<clif::Value>,
}

impl Emit<'_, '_, '_> {
    /// The Cranelift type of a scalar.
    pub(super) fn scalar_type(&self) -> Type {
        match self.unit.func.elem {
            Elem::F32 => types::F32,
            Elem::F64 => types::F64,
        }
    }
    /// Lanes of 128 bits.
    pub(super) fn native_lanes(&self) -> usize {
        16 / self.unit.func.elem.bytes()
    }
    /// The type of each part of a value with that many lanes, and how many parts there are.
    pub(super) fn parts(&self, lanes: usize) -> (Type, usize) {
        let native = self.native_lanes();
        match lanes % native {
            0 => (self.scalar_type().by(native as u32).expect("128-bit vectors exist"), lanes / native),
            _ => (self.scalar_type(), lanes),
        }
    }

    pub(super) fn declare_registers(&mut self) {
        for r in &self.unit.func.regs {
            let (ty, parts) = self.parts(r.lanes);
            let entries = r.dims.iter().product();
            let vars = (0..entries).map(|_| (0..parts).map(|_| self.b.declare_var(ty)).collect()).collect();
            self.regs.insert(r.name, vars);
        }
    }
    pub(super) fn reg_lanes(&self, reg: &Name) -> usize {
        self.unit.func.find_reg(reg).expect("verified: registers are declared").lanes
    }
    /// The flat position of an entry of a register array.
    ///
    /// # Errors
    /// An index that is not constant once unroll loops are written out, or outside of the array.
    pub(super) fn reg_entry(&self, reg: &Name, index: &[Affine]) -> Result<usize> {
        let dims = &self.unit.func.find_reg(reg).expect("verified: registers are declared").dims;
        index.iter().zip(dims).try_fold(0, |at, (i, d)| match self.constant(i).map(usize::try_from) {
            Some(Ok(v)) if v < *d => Ok(at * d + v),
            Some(_) => Err(refused(&format_args!("index {i} of register {reg} is outside of 0..{d}"))),
            None => Err(refused(&format_args!("index {i} of register {reg} is no constant after unrolling"))),
        })
    }

    pub(super) fn value(&mut self, v: &Value) -> Result<Vals> {
        Ok(match v {
            Value::Const(c) => {
                let scalar = match self.unit.func.elem {
                    Elem::F32 => self.b.ins().f32const(*c as f32),
                    Elem::F64 => self.b.ins().f64const(*c),
                };
                Vals { lanes: 1, parts: vec![scalar] }
            }
            Value::Reg(r, index) => {
                let entry = self.reg_entry(r, index)?;
                let vars = self.regs[r][entry].clone();
                Vals { lanes: self.reg_lanes(r), parts: vars.into_iter().map(|v| self.b.use_var(v)).collect() }
            }
            Value::Load(a) => self.load(a),
            Value::Fma(abc) => self.map(&abc[..], |e, v| e.b.ins().fma(v[0], v[1], v[2]))?,
            Value::Bin(op, ab) => self.map(&ab[..], |e, v| e.binary(*op, v[0], v[1]))?,
            Value::Un(op @ (UnOp::Tanh | UnOp::Sigmoid), _) => {
                return Err(refused(&format_args!("{} must be replaced before code is generated", op.name())));
            }
            Value::Un(op, a) => self.map(std::slice::from_ref(a), |e, v| e.unary(*op, v[0]))?,
            Value::Select(cmp, abte) => self.map(&abte[..], |e, v| e.choose(float_cc(*cmp), v[0], v[1], v[2], v[3]))?,
        })
    }

    /// Applies an operation part by part, scalars broadcast to the lanes of the widest operand.
    fn map(&mut self, operands: &[Value], mut op: impl FnMut(&mut Self, &[clif::Value]) -> clif::Value) -> Result<Vals> {
        let lanes = operands.iter().map(|v| self.lanes_of(v)).max().unwrap_or(1);
        let vals: Vec<Vals> = operands.iter().map(|v| self.value_as(v, lanes)).collect::<Result<_>>()?;
        let parts = (0..vals[0].parts.len()).map(|i| {
            let v: Vec<clif::Value> = vals.iter().map(|v| v.parts[i]).collect();
            op(self, &v)
        });
        Ok(Vals { lanes, parts: parts.collect() })
    }

    /// How many lanes a value has.
    pub(super) fn lanes_of(&self, v: &Value) -> usize {
        match v {
            Value::Const(_) => 1,
            Value::Reg(r, _) => self.reg_lanes(r),
            Value::Load(a) => a.lanes.as_ref().map_or(1, |l| l.count),
            _ => v.operands().iter().map(|v| self.lanes_of(v)).max().unwrap_or(1),
        }
    }

    /// The value with so many lanes. A scalar that a tile only reads is loaded and broadcast once per loop body.
    fn value_as(&mut self, v: &Value, lanes: usize) -> Result<Vals> {
        let reusable = |e: &Self, b: &Name| e.stored.as_ref().is_some_and(|s| !s.contains(b));
        if let Value::Load(a) = v
            && a.lanes.is_none()
            && lanes > 1
            && reusable(self, &a.buffer)
        {
            let at = self.address(&a.buffer, &a.index);
            let key = (at.key.clone(), lanes);
            let (_, parts) = self.parts(lanes);
            if let Some(v) = self.scopes.last().and_then(|s| s.splats.get(&key)) {
                return Ok(Vals { lanes, parts: vec![*v; parts] });
            }
            let ty = self.scalar_type();
            let scalar = self.b.ins().load(ty, MemFlagsData::new().with_notrap(), at.base, at.offset as i32);
            let all = self.broadcast(Vals { lanes: 1, parts: vec![scalar] }, lanes);
            self.scopes.last_mut().expect("there is a scope").splats.insert(key, all.parts[0]);
            return Ok(all);
        }
        let v = self.value(v)?;
        Ok(self.broadcast(v, lanes))
    }

    /// A scalar in every lane; a vector as it is.
    pub(super) fn broadcast(&mut self, v: Vals, lanes: usize) -> Vals {
        if v.lanes == lanes {
            return v;
        }
        assert_eq!(v.lanes, 1, "verified: operands have equal lanes or are scalars");
        let (ty, parts) = self.parts(lanes);
        let all = if ty.is_vector() { self.b.ins().splat(ty, v.parts[0]) } else { v.parts[0] };
        Vals { lanes, parts: vec![all; parts] }
    }

    fn binary(&mut self, op: BinOp, a: clif::Value, b: clif::Value) -> clif::Value {
        match op {
            BinOp::Add => self.b.ins().fadd(a, b),
            BinOp::Sub => self.b.ins().fsub(a, b),
            BinOp::Mul => self.b.ins().fmul(a, b),
            BinOp::Div => self.b.ins().fdiv(a, b),
            BinOp::Max => self.choose(FloatCC::GreaterThan, a, b, a, b),
            BinOp::Min => self.choose(FloatCC::LessThan, a, b, a, b),
        }
    }

    fn unary(&mut self, op: UnOp, a: clif::Value) -> clif::Value {
        match op {
            UnOp::Neg => self.b.ins().fneg(a),
            UnOp::Abs => self.b.ins().fabs(a),
            UnOp::Pow2 => self.pow2(a),
            UnOp::Tanh | UnOp::Sigmoid => unreachable!("refused where values are made"),
        }
    }

    /// `((a + 1.5·2^m) as bits << m) + bits(1.0)`.
    fn pow2(&mut self, a: clif::Value) -> clif::Value {
        let ty = self.b.func.dfg.value_type(a);
        let (lane, mantissa, one) = match self.unit.func.elem {
            Elem::F32 => (types::I32, 23, i64::from(1.0f32.to_bits())),
            Elem::F64 => (types::I64, 52, 1.0f64.to_bits() as i64),
        };
        let magic = match self.unit.func.elem {
            Elem::F32 => self.b.ins().f32const(1.5 * (1u32 << 23) as f32),
            Elem::F64 => self.b.ins().f64const(1.5 * (1u64 << 52) as f64),
        };
        let one = self.b.ins().iconst(lane, one);
        let (ints, magic, one) = match ty.is_vector() {
            true => {
                let ints = lane.by(ty.lane_count()).expect("128-bit vectors exist");
                (ints, self.b.ins().splat(ty, magic), self.b.ins().splat(ints, one))
            }
            false => (lane, magic, one),
        };
        let shifted = self.b.ins().fadd(a, magic);
        let bits = self.bitcast(ints, shifted);
        let bits = self.b.ins().ishl_imm_u(bits, mantissa);
        let bits = self.b.ins().iadd(bits, one);
        self.bitcast(ty, bits)
    }

    /// `if a cmp b { t } else { e }`.
    fn choose(&mut self, cc: FloatCC, a: clif::Value, b: clif::Value, t: clif::Value, e: clif::Value) -> clif::Value {
        let ty = self.b.func.dfg.value_type(t);
        let mask = self.b.ins().fcmp(cc, a, b);
        if !ty.is_vector() {
            return self.b.ins().select(mask, t, e);
        }
        let mask = self.bitcast(ty, mask);
        self.b.ins().bitselect(mask, t, e)
    }

    pub(super) fn bitcast(&mut self, to: Type, v: clif::Value) -> clif::Value {
        let little = MemFlagsData::new().with_endianness(clif::Endianness::Little);
        if self.b.func.dfg.value_type(v) == to { v } else { self.b.ins().bitcast(to, little, v) }
    }

    /// A comparison of two index values.
    pub(super) fn less(&mut self, a: clif::Value, b: clif::Value) -> clif::Value {
        self.b.ins().icmp(IntCC::SignedLessThan, a, b)
    }
}

fn float_cc(op: CmpOp) -> FloatCC {
    match op {
        CmpOp::Lt => FloatCC::LessThan,
        CmpOp::Le => FloatCC::LessThanOrEqual,
        CmpOp::Eq => FloatCC::Equal,
        CmpOp::Ne => FloatCC::NotEqual,
    }
}
