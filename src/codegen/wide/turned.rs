//! Turned stores: several values whose elements lie side by side in memory, while their lanes are apart.
//!
//! A few shuffles gather what belongs to one lane, which then leaves the register as one piece of up to 16 bytes: four vectors of f32 take eight
//! shuffles and a store for each lane, where single elements would take four loads and four stores for each, through the frame.
//!
//! ```text
//! p0 = a0 a1 a2 a3 | …      unpcklps, unpckhps:  a0 b0 a1 b1, a2 b2 a3 b3, c0 d0 c1 d1, c2 d2 c3 d3
//! p1 = b0 b1 b2 b3 | …   ⇒  unpcklpd, unpckhpd:  a0 b0 c0 d0, a1 b1 c1 d1, a2 b2 c2 d2, a3 b3 c3 d3   in every 16 bytes
//! ```

use super::encode::{AT_STEP, Done, Encoder};
use super::inst::*;
use super::vector::{XMM, YMM, ZMM, sized};
use crate::ir::Elem;
use iced_x86::code_asm::*;

/// Bytes that leave a register at once.
pub(super) const PIECE: usize = 16;

/// Registers that the shuffles of so many parts need beside the parts.
pub(super) fn temporaries(parts: usize) -> usize {
    if parts > 2 { 5 } else { 3 }
}

/// Where a lane's piece is.
#[derive(Clone, Copy)]
struct Piece {
    reg: usize,
    /// Which 16 bytes of the register.
    chunk: usize,
    /// Whether it is the upper half of these, of two halves.
    upper: bool,
}

impl Encoder<'_> {
    pub(super) fn store_turned(&mut self, parts: &[usize], w: Width, to: &Scattered, tmps: &[usize]) -> Done {
        let (pieces, free) = self.gather(parts, w, tmps)?;
        let bytes = parts.len() * self.elem.bytes();
        let span = to.step * (to.lanes as i64 - 1) + 1;
        let (mut tested, mut done) = (self.asm.create_label(), self.asm.create_label());
        // All lanes inside is the common case.
        if let Some(window) = &to.window {
            self.cmp_bound(window.hi, span)?;
            self.asm.jl(tested)?;
            self.cmp_bound(window.lo, 0)?;
            self.asm.jg(tested)?;
        }
        self.pieces(&pieces, w, to, bytes, free, None)?;
        if let Some(window) = &to.window {
            self.asm.jmp(done)?;
            self.here(&mut tested)?;
            self.pieces(&pieces, w, to, bytes, free, Some(window))?;
            self.here(&mut done)?;
        }
        Ok(())
    }

    /// Stores each lane's piece, if it is in the window.
    fn pieces(&mut self, pieces: &[Piece], w: Width, to: &Scattered, bytes: usize, free: usize, window: Option<&Window>) -> Done {
        let near = match to.pitch {
            Pitch::Const(by) => {
                let last = by.checked_mul(to.lanes as i64).and_then(|b| b.checked_add(to.mem.disp as i64 + PIECE as i64));
                last.and_then(|l| i32::try_from(l).ok()).map(|_| by as i32)
            }
            Pitch::Reg(_) => None,
        };
        let base = self.base(to.mem.base)?;
        if near.is_none() {
            self.pitch(to.pitch)?;
            self.asm.mov(qword_ptr(rsp + AT_STEP), rcx)?;
            self.asm.lea(rdx, ptr(base + to.mem.disp))?;
        }
        for (j, piece) in pieces.iter().enumerate().take(to.lanes) {
            let mut next = self.asm.create_label();
            if let Some(window) = window {
                let at = to.step * j as i64;
                self.cmp_bound(window.hi, at + 1)?;
                self.asm.jl(next)?;
                self.cmp_bound(window.lo, at)?;
                self.asm.jg(next)?;
            }
            let m = match near {
                Some(by) => base + (to.mem.disp + j as i32 * by),
                None => rdx + 0,
            };
            self.piece(*piece, w, m, bytes, free)?;
            if window.is_some() {
                self.here(&mut next)?;
            }
            if near.is_none() {
                self.asm.add(rdx, qword_ptr(rsp + AT_STEP))?;
            }
        }
        Ok(())
    }

    /// Stores one piece; `free` is overwritten.
    fn piece(&mut self, p: Piece, w: Width, m: AsmMemoryOperand, bytes: usize, free: usize) -> Done {
        let mut from = p.reg;
        if p.chunk > 0 {
            let (whole, chunk) = (bytes == PIECE, p.chunk as i32);
            match (w, whole) {
                (Width::Z, true) => return self.asm.vextractf32x4(xmmword_ptr(m), ZMM[p.reg], chunk),
                (_, true) => return self.asm.vextractf128(xmmword_ptr(m), YMM[p.reg], chunk),
                (Width::Z, false) => self.asm.vextractf32x4(XMM[free], ZMM[p.reg], chunk)?,
                (_, false) => self.asm.vextractf128(XMM[free], YMM[p.reg], chunk)?,
            }
            from = free;
        }
        match bytes {
            PIECE => self.asm.vmovups(sized(Width::X, m), XMM[from]),
            8 if p.upper => self.asm.vmovhps(qword_ptr(m), XMM[from]),
            8 => self.asm.vmovlps(qword_ptr(m), XMM[from]),
            _ => {
                self.asm.vmovlps(qword_ptr(m), XMM[from])?;
                self.asm.vextractps(dword_ptr(m + 8), XMM[from], 2)
            }
        }
    }

    /// The shuffles: where each lane's piece is then, and a register that is free.
    fn gather(&mut self, parts: &[usize], w: Width, tmps: &[usize]) -> Done<(Vec<Piece>, usize)> {
        let per = w.bytes() / self.elem.bytes();
        let [a, b] = [parts[0], parts[1]];
        if self.elem == Elem::F64 {
            self.unpack(false, true, w, tmps[0], a, b)?;
            self.unpack(true, true, w, tmps[1], a, b)?;
            let pieces = (0..per).map(|j| Piece { reg: tmps[j % 2], chunk: j / 2, upper: false }).collect();
            return Ok((pieces, tmps[2]));
        }
        self.unpack(false, false, w, tmps[0], a, b)?;
        self.unpack(true, false, w, tmps[1], a, b)?;
        if parts.len() == 2 {
            let pieces = (0..per).map(|j| Piece { reg: tmps[j % 4 / 2], chunk: j / 4, upper: j % 2 == 1 }).collect();
            return Ok((pieces, tmps[2]));
        }
        let (c, d) = (parts[2], *parts.get(3).unwrap_or(&parts[2]));
        self.unpack(false, false, w, tmps[2], c, d)?;
        self.unpack(true, false, w, tmps[3], c, d)?;
        self.unpack(false, true, w, tmps[4], tmps[0], tmps[2])?;
        self.unpack(true, true, w, tmps[0], tmps[0], tmps[2])?;
        self.unpack(false, true, w, tmps[2], tmps[1], tmps[3])?;
        self.unpack(true, true, w, tmps[1], tmps[1], tmps[3])?;
        let of = [tmps[4], tmps[0], tmps[2], tmps[1]];
        let pieces = (0..per).map(|j| Piece { reg: of[j % 4], chunk: j / 4, upper: false }).collect();
        Ok((pieces, tmps[3]))
    }

    /// `unpckl` or `unpckh` of single or double elements.
    fn unpack(&mut self, high: bool, double: bool, w: Width, d: usize, a: usize, b: usize) -> Done {
        macro_rules! unpack {
            ($regs:ident) => {
                match (high, double) {
                    (false, false) => self.asm.vunpcklps($regs[d], $regs[a], $regs[b]),
                    (true, false) => self.asm.vunpckhps($regs[d], $regs[a], $regs[b]),
                    (false, true) => self.asm.vunpcklpd($regs[d], $regs[a], $regs[b]),
                    (true, true) => self.asm.vunpckhpd($regs[d], $regs[a], $regs[b]),
                }
            };
        }
        match w {
            Width::X => unpack!(XMM),
            Width::Y => unpack!(YMM),
            Width::Z => unpack!(ZMM),
        }
    }
}
