//! Turned stores: several values whose elements lie side by side in memory, while their lanes are apart.
//!
//! A few shuffles gather what belongs to one lane, which then leaves the register as one piece of up to 16 bytes: four vectors of f32 take eight
//! shuffles and a store for each lane, where single elements would take four loads and four stores for each, through the frame.
//!
//! ```text
//! p0 = a0 a1 a2 a3 | …      unpcklps, unpckhps:  a0 b0 a1 b1, a2 b2 a3 b3, c0 d0 c1 d1, c2 d2 c3 d3
//! p1 = b0 b1 b2 b3 | …   ⇒  unpcklpd, unpckhpd:  a0 b0 c0 d0, a1 b1 c1 d1, a2 b2 c2 d2, a3 b3 c3 d3   in every 16 bytes
//! ```

use super::WideIsa;
use super::encode::{AT_STEP, Done, Encoder};
use super::inst::*;
use super::vector::{XMM, YMM, ZMM, sized};
use crate::ir::Elem;
use iced_x86::code_asm::*;

/// Bytes that leave a register at once.
pub(super) const PIECE: usize = 16;

/// Registers that the shuffles need beside the parts.
pub(super) const TEMPORARIES: usize = 3;

/// `unpckl` or `unpckh` of single or double elements.
pub(super) struct Unpack {
    pub high: bool,
    pub double: bool,
    pub into: usize,
    pub a: usize,
    pub b: usize,
}

/// Where a lane's piece is.
struct Piece {
    lane: usize,
    reg: usize,
    /// Which 16 bytes of the register.
    chunk: usize,
    /// Whether it is the upper half of these, of two halves.
    upper: bool,
}

/// Shuffles, and the pieces that they leave; then `free` may be overwritten.
struct Round {
    shuffles: Vec<Unpack>,
    pieces: Vec<Piece>,
    free: usize,
}

impl Encoder<'_> {
    pub(super) fn store_turned(&mut self, parts: &[usize], w: Width, to: &Scattered, moves: bool, tmps: &[usize]) -> Done {
        let rounds = self.rounds(parts, w, tmps);
        let bytes = parts.len() * self.elem.bytes();
        // Coordinates of a piece.
        let length = if moves { parts.len() as i64 } else { 1 };
        let span = to.step * (to.lanes as i64 - 1) + length;
        let (mut tested, mut done) = (self.asm.create_label(), self.asm.create_label());
        // All lanes inside is the common case.
        if let Some(window) = &to.window {
            self.cmp_bound(window.hi, span)?;
            self.asm.jl(tested)?;
            self.cmp_bound(window.lo, 0)?;
            self.asm.jg(tested)?;
        }
        self.pieces(&rounds, w, to, bytes, None)?;
        if let Some(window) = &to.window {
            self.asm.jmp(done)?;
            self.here(&mut tested)?;
            self.pieces(&rounds, w, to, bytes, Some((window, length)))?;
            if length > 1 {
                // Where the window ends within a piece: element by element.
                let mut cut = self.asm.create_label();
                self.jump_if_cut(window.hi, to.step, length, cut)?;
                self.jump_if_cut(window.lo, to.step, length, cut)?;
                self.asm.jmp(done)?;
                self.here(&mut cut)?;
                for (i, &part) in parts.iter().enumerate() {
                    let mem = Mem { disp: to.mem.disp + (i * self.elem.bytes()) as i32, ..to.mem };
                    self.store_tested(part, w, &Scattered { mem, window: Some(window.shifted(i as i64)), ..*to })?;
                }
            }
            self.here(&mut done)?;
        }
        Ok(())
    }

    /// Stores each lane's piece, if it is in the window, of which it takes so many coordinates.
    fn pieces(&mut self, rounds: &[Round], w: Width, to: &Scattered, bytes: usize, window: Option<(&Window, i64)>) -> Done {
        let near = to.near(PIECE);
        let base = self.base(to.mem.base)?;
        if near.is_none() {
            self.pitch(to.pitch)?;
            self.asm.mov(qword_ptr(rsp + AT_STEP), rcx)?;
            self.asm.lea(rdx, ptr(base + to.mem.disp))?;
        }
        // The lane to which `rdx` points.
        let mut reached = 0;
        for round in rounds {
            for s in &round.shuffles {
                self.unpack(s, w)?;
            }
            for piece in round.pieces.iter().filter(|p| p.lane < to.lanes) {
                let lane = piece.lane as i32;
                let m = match near {
                    Some(by) => base + (to.mem.disp + lane * by),
                    None => {
                        match lane - reached {
                            0 => {}
                            1 => self.asm.add(rdx, qword_ptr(rsp + AT_STEP))?,
                            by => {
                                self.asm.imul_3(rax, qword_ptr(rsp + AT_STEP), by)?;
                                self.asm.add(rdx, rax)?;
                            }
                        }
                        rdx + 0
                    }
                };
                reached = lane;
                let Some((window, length)) = window else {
                    self.piece(piece, w, m, bytes, round.free)?;
                    continue;
                };
                let mut next = self.asm.create_label();
                let at = to.step * lane as i64;
                self.cmp_bound(window.hi, at + length)?;
                self.asm.jl(next)?;
                self.cmp_bound(window.lo, at)?;
                self.asm.jg(next)?;
                self.piece(piece, w, m, bytes, round.free)?;
                self.here(&mut next)?;
            }
        }
        Ok(())
    }

    /// Jumps if a bound lies within a piece, of which one begins every `step` coordinates.
    fn jump_if_cut(&mut self, b: Bound, step: i64, length: i64, cut: CodeLabel) -> Done {
        let mut whole = self.asm.create_label();
        self.bound(rax, b)?;
        self.asm.test(rax, rax)?;
        self.asm.jle(whole)?;
        self.asm.cqo()?;
        self.asm.mov(rcx, step)?;
        self.asm.idiv(rcx)?;
        self.asm.test(rdx, rdx)?;
        self.asm.je(whole)?;
        self.asm.cmp(rdx, length as i32)?;
        self.asm.jl(cut)?;
        self.here(&mut whole)
    }

    /// Stores one piece; `free` is overwritten.
    fn piece(&mut self, p: &Piece, w: Width, m: AsmMemoryOperand, bytes: usize, free: usize) -> Done {
        let mut from = p.reg;
        if p.chunk > 0 {
            let (whole, chunk) = (bytes == PIECE, p.chunk as i32);
            match (w, self.isa, whole) {
                (Width::Z, _, true) => return self.asm.vextractf32x4(xmmword_ptr(m), ZMM[p.reg], chunk),
                (_, WideIsa::Avx512, true) => return self.asm.vextractf32x4(xmmword_ptr(m), YMM[p.reg], chunk),
                (_, WideIsa::Avx2, true) => return self.asm.vextractf128(xmmword_ptr(m), YMM[p.reg], chunk),
                (Width::Z, _, false) => self.asm.vextractf32x4(XMM[free], ZMM[p.reg], chunk)?,
                (_, WideIsa::Avx512, false) => self.asm.vextractf32x4(XMM[free], YMM[p.reg], chunk)?,
                (_, WideIsa::Avx2, false) => self.asm.vextractf128(XMM[free], YMM[p.reg], chunk)?,
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

    /// The pieces of so many parts: those of every second pair of lanes at a time, so that few registers hold them.
    fn rounds(&self, parts: &[usize], w: Width, tmps: &[usize]) -> Vec<Round> {
        let per = w.bytes() / self.elem.bytes();
        let [x, y, z] = [tmps[0], tmps[1], tmps[2]];
        let unpack = |high, double, into, a, b| Unpack { high, double, into, a, b };
        let [a, b] = [parts[0], parts[1]];
        if parts.len() == 2 {
            let double = self.elem == Elem::F64;
            // In every 16 bytes of the two registers: a lane of f64, two lanes of f32.
            let halves = if double { 1 } else { 2 };
            let piece = |lane| Piece { lane, reg: [x, y][lane / halves % 2], chunk: lane / halves / 2, upper: lane % halves == 1 };
            let shuffles = vec![unpack(false, double, x, a, b), unpack(true, double, y, a, b)];
            return vec![Round { shuffles, pieces: (0..per).map(piece).collect(), free: z }];
        }
        let (c, d) = (parts[2], *parts.get(3).unwrap_or(&parts[2]));
        let round = |high: bool| {
            let pairs = [unpack(high, false, x, a, b), unpack(high, false, y, c, d)];
            let fours = [unpack(false, true, z, x, y), unpack(true, true, x, x, y)];
            let lanes = (0..per).filter(|lane| (lane % 4 > 1) == high);
            let pieces = lanes.map(|lane| Piece { lane, reg: [z, x][lane % 2], chunk: lane / 4, upper: false }).collect();
            Round { shuffles: pairs.into_iter().chain(fours).collect(), pieces, free: y }
        };
        vec![round(false), round(true)]
    }

    pub(super) fn unpack(&mut self, s: &Unpack, w: Width) -> Done {
        let Unpack { into: d, a, b, .. } = *s;
        macro_rules! unpack {
            ($regs:ident) => {
                match (s.high, s.double) {
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
