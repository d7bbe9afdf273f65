//! Arithmetic on vectors: one machine instruction each, or two or three.
//!
//! Operand order is the meaning: `max(a, b)` is `vmaxps a, b`, which gives `b` if either is a NaN or both are zeros, as the IR says.
//! An fma accumulates in place (`231`) where the addend dies into the result, and takes the form that saves a move elsewhere.

use super::WideIsa;
use super::encode::{Done, Encoder};
use super::inst::*;
use super::turned::Unpack;
use crate::ir::{BinOp, CmpOp, Elem};
use iced_x86::code_asm::*;

/// xmm registers by number.
pub(super) const XMM: [AsmRegisterXmm; 32] = [
    xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15, xmm16, xmm17, xmm18, xmm19,
    xmm20, xmm21, xmm22, xmm23, xmm24, xmm25, xmm26, xmm27, xmm28, xmm29, xmm30, xmm31,
];
/// ymm registers by number.
pub(super) const YMM: [AsmRegisterYmm; 32] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15, ymm16, ymm17, ymm18, ymm19,
    ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27, ymm28, ymm29, ymm30, ymm31,
];
/// zmm registers by number.
pub(super) const ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17, zmm18, zmm19,
    zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];

/// A source with its place known.
#[derive(Clone, Copy)]
pub(super) enum At {
    Reg(usize),
    Mem(AsmMemoryOperand),
}

/// `op d, a, b` in the width and element type at hand; `b` is an [`At`].
macro_rules! op3 {
    ($s:expr, $w:expr, $ps:ident / $pd:ident, $d:expr, $a:expr, $b:expr) => {{
        let (d, a): (usize, usize) = ($d, $a);
        match ($s.elem, $w, $b) {
            (Elem::F32, Width::X, At::Reg(b)) => $s.asm.$ps(XMM[d], XMM[a], XMM[b]),
            (Elem::F32, Width::Y, At::Reg(b)) => $s.asm.$ps(YMM[d], YMM[a], YMM[b]),
            (Elem::F32, Width::Z, At::Reg(b)) => $s.asm.$ps(ZMM[d], ZMM[a], ZMM[b]),
            (Elem::F32, Width::X, At::Mem(m)) => $s.asm.$ps(XMM[d], XMM[a], m),
            (Elem::F32, Width::Y, At::Mem(m)) => $s.asm.$ps(YMM[d], YMM[a], m),
            (Elem::F32, Width::Z, At::Mem(m)) => $s.asm.$ps(ZMM[d], ZMM[a], m),
            (Elem::F64, Width::X, At::Reg(b)) => $s.asm.$pd(XMM[d], XMM[a], XMM[b]),
            (Elem::F64, Width::Y, At::Reg(b)) => $s.asm.$pd(YMM[d], YMM[a], YMM[b]),
            (Elem::F64, Width::Z, At::Reg(b)) => $s.asm.$pd(ZMM[d], ZMM[a], ZMM[b]),
            (Elem::F64, Width::X, At::Mem(m)) => $s.asm.$pd(XMM[d], XMM[a], m),
            (Elem::F64, Width::Y, At::Mem(m)) => $s.asm.$pd(YMM[d], YMM[a], m),
            (Elem::F64, Width::Z, At::Mem(m)) => $s.asm.$pd(ZMM[d], ZMM[a], m),
        }
    }};
}

impl Encoder<'_> {
    /// A vector instruction.
    pub(super) fn vector(&mut self, i: &Inst) -> Done {
        match i {
            Inst::Const { dst, w, bits } => self.constant(self.places.v[*dst], *w, *bits),
            Inst::Move { dst, w, src } => self.copy(self.places.v[*dst], *w, self.places.v[*src]),
            Inst::Load { dst, w, mem } => {
                let m = self.mem(*mem)?;
                self.load_whole(self.places.v[*dst], *w, m)
            }
            Inst::Splat { dst, w, mem } => {
                let m = self.mem(*mem)?;
                self.broadcast(self.places.v[*dst], *w, m)
            }
            Inst::LoadPacked { dst, w, from } => self.load_packed(self.places.v[*dst], *w, from),
            Inst::LoadStrided { dst, w, mem, step, tmp } => {
                let m = self.mem(*mem)?;
                self.load_strided(self.places.v[*dst], *w, m, *step, self.places.v[*tmp])
            }
            Inst::LoadScattered { dst, w, from, tmp } => {
                let tmp = tmp.map(|r| self.places.v[r]);
                self.load_scattered(self.places.v[*dst], *w, from, tmp)
            }
            Inst::LoadPieces { dst, w, pieces } => {
                let d = self.places.v[*dst];
                for (i, piece) in pieces.iter().enumerate() {
                    let m = sized(Width::X, self.mem(*piece)?);
                    match (i, w, self.isa) {
                        (0, ..) => self.asm.vmovups(XMM[d], m)?,
                        (_, Width::Z, _) => self.asm.vinsertf32x4(ZMM[d], ZMM[d], m, i as i32)?,
                        (_, _, WideIsa::Avx512) => self.asm.vinsertf32x4(YMM[d], YMM[d], m, i as i32)?,
                        (_, _, WideIsa::Avx2) => self.asm.vinsertf128(YMM[d], YMM[d], m, i as i32)?,
                    }
                }
                Ok(())
            }
            Inst::Unpack { dst, w, a, b, high, double } => {
                let [into, a, b] = [*dst, *a, *b].map(|r| self.places.v[r]);
                self.unpack(&Unpack { high: *high, double: *double, into, a, b }, *w)
            }
            Inst::Bin { op, dst, w, a, b } => {
                let b = self.src(*b, *w)?;
                self.bin(*op, *w, self.places.v[*dst], self.places.v[*a], b)
            }
            Inst::Fma { dst, w, a, b, c } => {
                let (b, c) = (self.src(*b, *w)?, self.src(*c, *w)?);
                self.fma(*w, self.places.v[*dst], self.places.v[*a], b, c)
            }
            Inst::Sign { dst, w, a, clear } => {
                let sign = match self.elem {
                    Elem::F32 => 1u64 << 31,
                    Elem::F64 => 1u64 << 63,
                };
                let ones = if self.elem == Elem::F32 { u32::MAX as u64 } else { u64::MAX };
                let mask = self.src(Src::Const(if *clear { ones ^ sign } else { sign }), *w)?;
                let (d, a) = (self.places.v[*dst], self.places.v[*a]);
                match clear {
                    true => op3!(self, *w, vandps / vandpd, d, a, mask),
                    false => op3!(self, *w, vxorps / vxorpd, d, a, mask),
                }
            }
            Inst::Pow2 { dst, w, a } => self.pow2(*w, self.places.v[*dst], self.places.v[*a]),
            Inst::Select { cmp, dst, w, a, b, t, e, tmp } => {
                let b = self.src(*b, *w)?;
                let [d, a, t, e] = [*dst, *a, *t, *e].map(|r| self.places.v[r]);
                let tmp = tmp.map(|r| self.places.v[r]);
                self.select(*cmp, *w, d, (a, b), (t, e), tmp)
            }
            Inst::Permute { dst, w, a, b, index } => {
                let [d, a, b] = [*dst, *a, *b].map(|r| self.places.v[r]);
                self.permute(d, *w, a, b, index.iter().copied())
            }
            Inst::Shift { dst, w, a, b, by } => {
                let [d, a, b] = [*dst, *a, *b].map(|r| self.places.v[r]);
                self.shift(*w, d, a, b, *by as u32)
            }
            Inst::Interleave { dst, w, parts, k, tmp } => {
                let parts: Vec<usize> = parts.iter().map(|&p| self.places.v[p]).collect();
                let tmp = tmp.map(|r| self.places.v[r]);
                self.interleave(self.places.v[*dst], *w, &parts, *k, tmp)
            }
            Inst::StorePacked { src, w, to, stream } => self.store_packed(self.places.v[*src], *w, to, *stream),
            Inst::StoreTurned { parts, w, to, moves, tmps } => {
                let place = |vs: &[V]| -> Vec<usize> { vs.iter().map(|v| self.places.v[*v]).collect() };
                let (parts, tmps) = (place(parts), place(tmps));
                self.store_turned(&parts, *w, to, *moves, &tmps)
            }
            Inst::StoreScattered { src, w, to } => self.store_scattered(self.places.v[*src], *w, to),
            Inst::StoreScalar { src, mem } => {
                let m = self.mem(*mem)?;
                self.store_scalar(self.places.v[*src], m)
            }
            other => unreachable!("{other:?} is not a vector instruction"),
        }
    }

    fn shift(&mut self, w: Width, d: usize, a: usize, b: usize, by: u32) -> Done {
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.valignd(XMM[d], XMM[b], XMM[a], by),
            (Elem::F32, Width::Y) => self.asm.valignd(YMM[d], YMM[b], YMM[a], by),
            (Elem::F32, Width::Z) => self.asm.valignd(ZMM[d], ZMM[b], ZMM[a], by),
            (Elem::F64, Width::X) => self.asm.valignq(XMM[d], XMM[b], XMM[a], by),
            (Elem::F64, Width::Y) => self.asm.valignq(YMM[d], YMM[b], YMM[a], by),
            (Elem::F64, Width::Z) => self.asm.valignq(ZMM[d], ZMM[b], ZMM[a], by),
        }
    }

    pub(super) fn mem(&mut self, m: Mem) -> Done<AsmMemoryOperand> {
        Ok(self.base(m.base)? + m.disp)
    }

    fn src(&mut self, s: Src, w: Width) -> Done<At> {
        Ok(match s {
            Src::Reg(v) => At::Reg(self.places.v[v]),
            Src::Full(m) => At::Mem(sized(w, self.mem(m)?)),
            Src::Splat(m) => At::Mem(self.repeated(m)?),
            Src::Const(bits) => At::Mem(self.pooled(w, bits)),
        })
    }

    fn repeated(&mut self, m: Mem) -> Done<AsmMemoryOperand> {
        let m = self.mem(m)?;
        Ok(match self.elem {
            Elem::F32 => dword_bcst(m),
            Elem::F64 => qword_bcst(m),
        })
    }

    fn bytes_of(&self, bits: u64) -> Vec<u8> {
        bits.to_le_bytes()[..self.elem.bytes()].to_vec()
    }

    /// A constant as a memory operand: one element repeated, or a whole vector where the ISA cannot repeat.
    fn pooled(&mut self, w: Width, bits: u64) -> AsmMemoryOperand {
        let one = self.bytes_of(bits);
        match (self.isa, self.elem) {
            (WideIsa::Avx2, _) => sized(w, ptr(self.pool.label(&mut self.asm, one.repeat(32 / one.len())))),
            (WideIsa::Avx512, Elem::F32) => dword_bcst(self.pool.label(&mut self.asm, one)),
            (WideIsa::Avx512, Elem::F64) => qword_bcst(self.pool.label(&mut self.asm, one)),
        }
    }

    fn constant(&mut self, d: usize, w: Width, bits: u64) -> Done {
        if bits == 0 {
            return self.asm.vxorps(XMM[d], XMM[d], XMM[d]);
        }
        let one = self.bytes_of(bits);
        let label = self.pool.label(&mut self.asm, one);
        self.broadcast(d, w, ptr(label))
    }

    /// Repeats the element at an address.
    fn broadcast(&mut self, d: usize, w: Width, m: AsmMemoryOperand) -> Done {
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vbroadcastss(XMM[d], dword_ptr(m)),
            (Elem::F32, Width::Y) => self.asm.vbroadcastss(YMM[d], dword_ptr(m)),
            (Elem::F32, Width::Z) => self.asm.vbroadcastss(ZMM[d], dword_ptr(m)),
            (Elem::F64, Width::X) => self.asm.vmovddup(XMM[d], qword_ptr(m)),
            (Elem::F64, Width::Y) => self.asm.vbroadcastsd(YMM[d], qword_ptr(m)),
            (Elem::F64, Width::Z) => self.asm.vbroadcastsd(ZMM[d], qword_ptr(m)),
        }
    }

    pub(super) fn copy(&mut self, d: usize, w: Width, a: usize) -> Done {
        match w {
            _ if d == a => Ok(()),
            Width::X => self.asm.vmovaps(XMM[d], XMM[a]),
            Width::Y => self.asm.vmovaps(YMM[d], YMM[a]),
            Width::Z => self.asm.vmovaps(ZMM[d], ZMM[a]),
        }
    }

    fn bin(&mut self, op: BinOp, w: Width, d: usize, a: usize, b: At) -> Done {
        match op {
            BinOp::Add => op3!(self, w, vaddps / vaddpd, d, a, b),
            BinOp::Sub => op3!(self, w, vsubps / vsubpd, d, a, b),
            BinOp::Mul => op3!(self, w, vmulps / vmulpd, d, a, b),
            BinOp::Div => op3!(self, w, vdivps / vdivpd, d, a, b),
            BinOp::Max => op3!(self, w, vmaxps / vmaxpd, d, a, b),
            BinOp::Min => op3!(self, w, vminps / vminpd, d, a, b),
        }
    }

    /// `d = a * b + c`; at most one of `b` and `c` is in memory.
    fn fma(&mut self, w: Width, d: usize, a: usize, b: At, c: At) -> Done {
        match (b, c) {
            (b, At::Reg(c)) if c == d => op3!(self, w, vfmadd231ps / vfmadd231pd, d, a, b),
            (At::Reg(b), c) if a == d => op3!(self, w, vfmadd213ps / vfmadd213pd, d, b, c),
            (At::Reg(b), c) if b == d => op3!(self, w, vfmadd213ps / vfmadd213pd, d, a, c),
            (b @ At::Mem(_), At::Reg(c)) if a == d => op3!(self, w, vfmadd132ps / vfmadd132pd, d, c, b),
            (b, At::Reg(c)) => {
                self.copy(d, w, c)?;
                op3!(self, w, vfmadd231ps / vfmadd231pd, d, a, b)
            }
            (At::Reg(b), c) => {
                self.copy(d, w, a)?;
                op3!(self, w, vfmadd213ps / vfmadd213pd, d, b, c)
            }
            (At::Mem(_), At::Mem(_)) => unreachable!("one operand of an fma is in memory at most"),
        }
    }

    /// `((a + 1.5 * 2^m) as bits << m) + bits(1.0)`, with `m` the width of the mantissa.
    fn pow2(&mut self, w: Width, d: usize, a: usize) -> Done {
        let (magic, one) = match self.elem {
            Elem::F32 => ((1.5f32 * (1 << 23) as f32).to_bits() as u64, 1f32.to_bits() as u64),
            Elem::F64 => ((1.5f64 * (1u64 << 52) as f64).to_bits(), 1f64.to_bits()),
        };
        let (magic, one) = (At::Mem(self.pooled(w, magic)), At::Mem(self.pooled(w, one)));
        op3!(self, w, vaddps / vaddpd, d, a, magic)?;
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vpslld(XMM[d], XMM[d], 23)?,
            (Elem::F32, Width::Y) => self.asm.vpslld(YMM[d], YMM[d], 23)?,
            (Elem::F32, Width::Z) => self.asm.vpslld(ZMM[d], ZMM[d], 23)?,
            (Elem::F64, Width::X) => self.asm.vpsllq(XMM[d], XMM[d], 52)?,
            (Elem::F64, Width::Y) => self.asm.vpsllq(YMM[d], YMM[d], 52)?,
            (Elem::F64, Width::Z) => self.asm.vpsllq(ZMM[d], ZMM[d], 52)?,
        }
        op3!(self, w, vpaddd / vpaddq, d, d, one)
    }

    /// `d = a cmp b ? t : e`, through `k1` or through a mask register.
    fn select(&mut self, cmp: CmpOp, w: Width, d: usize, (a, b): (usize, At), (t, e): (usize, usize), tmp: Option<usize>) -> Done {
        // Ordered and quiet, except that unequal is true for a NaN.
        let how = match cmp {
            CmpOp::Lt => 0x11,
            CmpOp::Le => 0x12,
            CmpOp::Eq => 0x00,
            CmpOp::Ne => 0x04,
        };
        macro_rules! compare {
            ($to:expr, $regs:ident) => {
                match (self.elem, b) {
                    (Elem::F32, At::Reg(b)) => self.asm.vcmpps($to, $regs[a], $regs[b], how),
                    (Elem::F32, At::Mem(m)) => self.asm.vcmpps($to, $regs[a], m, how),
                    (Elem::F64, At::Reg(b)) => self.asm.vcmppd($to, $regs[a], $regs[b], how),
                    (Elem::F64, At::Mem(m)) => self.asm.vcmppd($to, $regs[a], m, how),
                }
            };
        }
        match (tmp, w) {
            (Some(k), Width::X) => compare!(XMM[k], XMM)?,
            (Some(k), _) => compare!(YMM[k], YMM)?,
            (None, Width::X) => compare!(k1, XMM)?,
            (None, Width::Y) => compare!(k1, YMM)?,
            (None, Width::Z) => compare!(k1, ZMM)?,
        }
        match (tmp, w, self.elem) {
            (Some(k), Width::X, Elem::F32) => self.asm.vblendvps(XMM[d], XMM[e], XMM[t], XMM[k]),
            (Some(k), _, Elem::F32) => self.asm.vblendvps(YMM[d], YMM[e], YMM[t], YMM[k]),
            (Some(k), Width::X, Elem::F64) => self.asm.vblendvpd(XMM[d], XMM[e], XMM[t], XMM[k]),
            (Some(k), _, Elem::F64) => self.asm.vblendvpd(YMM[d], YMM[e], YMM[t], YMM[k]),
            (None, Width::X, Elem::F32) => self.asm.vblendmps(XMM[d].k1(), XMM[e], XMM[t]),
            (None, Width::Y, Elem::F32) => self.asm.vblendmps(YMM[d].k1(), YMM[e], YMM[t]),
            (None, Width::Z, Elem::F32) => self.asm.vblendmps(ZMM[d].k1(), ZMM[e], ZMM[t]),
            (None, Width::X, Elem::F64) => self.asm.vblendmpd(XMM[d].k1(), XMM[e], XMM[t]),
            (None, Width::Y, Elem::F64) => self.asm.vblendmpd(YMM[d].k1(), YMM[e], YMM[t]),
            (None, Width::Z, Elem::F64) => self.asm.vblendmpd(ZMM[d].k1(), ZMM[e], ZMM[t]),
        }
    }
}

/// A memory operand of a whole vector.
pub(super) fn sized(w: Width, m: AsmMemoryOperand) -> AsmMemoryOperand {
    match w {
        Width::X => xmmword_ptr(m),
        Width::Y => ymmword_ptr(m),
        Width::Z => zmmword_ptr(m),
    }
}
