//! Loads and stores of lanes: whole vectors, masked ones, scattered ones, and interleaving.
//!
//! A clipped access first compares its window with the lanes it has: if all are inside (the common case, two predicted
//! branches) it is an ordinary one, unless its mask is kept. Otherwise AVX-512 builds an opmask, and AVX2 a vector mask for a load, which leave memory
//! outside alone; stores of AVX2 go lane by lane. Lanes on their way to memory pass through the frame, since a wide store forwards to narrow loads at
//! full speed; lanes that are loaded come together in registers, since narrow stores do not forward to a wide load.

use super::WideIsa;
use super::encode::{AT_HI, AT_LO, AT_STEP, Done, Encoder};
use super::inst::*;
use super::masked::Leaves;
use super::turned::Unpack;
use super::vector::{XMM, YMM, ZMM, sized};
use crate::ir::Elem;
use iced_x86::code_asm::*;

impl Encoder<'_> {
    fn per(&self, w: Width) -> usize {
        w.bytes() / self.elem.bytes()
    }

    // Whole vectors

    pub(super) fn load_whole(&mut self, d: usize, w: Width, m: AsmMemoryOperand) -> Done {
        match w {
            Width::X => self.asm.vmovups(XMM[d], sized(w, m)),
            Width::Y => self.asm.vmovups(YMM[d], sized(w, m)),
            Width::Z => self.asm.vmovups(ZMM[d], sized(w, m)),
        }
    }

    pub(super) fn store_whole(&mut self, s: usize, w: Width, m: AsmMemoryOperand) -> Done {
        match w {
            Width::X => self.asm.vmovups(sized(w, m), XMM[s]),
            Width::Y => self.asm.vmovups(sized(w, m), YMM[s]),
            Width::Z => self.asm.vmovups(sized(w, m), ZMM[s]),
        }
    }

    /// Past the caches if the address is aligned, an ordinary store if not.
    fn store_stream(&mut self, s: usize, w: Width, m: AsmMemoryOperand) -> Done {
        let (mut plain, mut done) = (self.asm.create_label(), self.asm.create_label());
        self.asm.lea(rax, ptr(m))?;
        self.asm.test(al, w.bytes() as i32 - 1)?;
        self.asm.jne(plain)?;
        match w {
            Width::X => self.asm.vmovntps(sized(w, m), XMM[s])?,
            Width::Y => self.asm.vmovntps(sized(w, m), YMM[s])?,
            Width::Z => self.asm.vmovntps(sized(w, m), ZMM[s])?,
        }
        self.asm.jmp(done)?;
        self.here(&mut plain)?;
        self.store_whole(s, w, m)?;
        self.here(&mut done)
    }

    pub(super) fn store_scalar(&mut self, s: usize, m: AsmMemoryOperand) -> Done {
        match self.elem {
            Elem::F32 => self.asm.vmovss(dword_ptr(m), XMM[s]),
            Elem::F64 => self.asm.vmovsd(qword_ptr(m), XMM[s]),
        }
    }

    // Lanes side by side

    pub(super) fn load_packed(&mut self, d: usize, w: Width, from: &Packed) -> Done {
        let (mut away, mut done) = (self.asm.create_label(), self.asm.create_label());
        let m = self.mem(from.mem)?;
        if let Some(mask) = from.kept {
            return self.load_kept(d, w, m, mask);
        }
        let leaves = self.leaves(w, from, away)?;
        if leaves != Leaves::Always {
            self.load_whole(d, w, m)?;
        }
        if leaves == Leaves::Never {
            return Ok(());
        }
        if leaves == Leaves::Sometimes {
            self.asm.jmp(done)?;
            self.here(&mut away)?;
        }
        self.mask(w, from)?;
        self.load_masked(d, w, m, from)?;
        if leaves == Leaves::Sometimes {
            self.here(&mut done)?;
        }
        Ok(())
    }

    fn leaves(&mut self, w: Width, p: &Packed, away: CodeLabel) -> Done<Leaves> {
        if p.active < self.per(w) {
            return Ok(Leaves::Always);
        }
        match &p.window {
            None => Ok(Leaves::Never),
            Some(win) => self.unless_inside(win, p.active as i64, away),
        }
    }

    pub(super) fn store_packed(&mut self, s: usize, w: Width, to: &Packed, stream: bool) -> Done {
        let (mut away, mut done) = (self.asm.create_label(), self.asm.create_label());
        let m = self.mem(to.mem)?;
        if let Some(mask) = to.kept {
            return self.store_kept(s, w, m, mask);
        }
        let leaves = self.leaves(w, to, away)?;
        if leaves != Leaves::Always {
            match stream {
                true => self.store_stream(s, w, m)?,
                false => self.store_whole(s, w, m)?,
            }
        }
        if leaves == Leaves::Never {
            return Ok(());
        }
        if leaves == Leaves::Sometimes {
            self.asm.jmp(done)?;
            self.here(&mut away)?;
        }
        match self.isa {
            WideIsa::Avx512 => {
                self.mask(w, to)?;
                self.store_masked(s, w, m)?;
            }
            WideIsa::Avx2 => self.store_some(s, w, m, to)?,
        }
        if leaves == Leaves::Sometimes {
            self.here(&mut done)?;
        }
        Ok(())
    }

    /// The lanes in the window, through the frame: masked stores of AVX2 are some forty micro-operations on AMD's processors, even of no lane.
    fn store_some(&mut self, s: usize, w: Width, m: AsmMemoryOperand, to: &Packed) -> Done {
        let size = self.elem.bytes() as i32;
        self.store_whole(s, w, ptr(rsp + 0))?;
        let window = to.window.unwrap_or(Window { lo: Bound::Const(0), hi: Bound::Const(to.active as i64) });
        if let (Bound::Const(lo), Bound::Const(hi)) = (window.lo, window.hi) {
            // Known lanes: the largest pieces that fit.
            let [mut at, end] = [lo, hi].map(|lane| lane.clamp(0, to.active as i64) as i32 * size);
            while at < end {
                let (from, into) = (ptr(rsp + at), m + at);
                at += match end - at {
                    16.. if at == 0 => self.asm.vmovups(xmmword_ptr(into), XMM[s]).map(|()| 16)?,
                    8.. => {
                        self.asm.mov(rdx, qword_ptr(from))?;
                        self.asm.mov(qword_ptr(into), rdx).map(|()| 8)?
                    }
                    _ => {
                        self.asm.mov(edx, dword_ptr(from))?;
                        self.asm.mov(dword_ptr(into), edx).map(|()| 4)?
                    }
                };
            }
            return Ok(());
        }
        self.clamped(rdx, window.hi, to.active)?;
        self.clamped(rax, window.lo, to.active)?;
        self.asm.mov(rcx, rdx)?;
        let (mut top, mut end) = (self.asm.create_label(), self.asm.create_label());
        self.here(&mut top)?;
        self.asm.cmp(rax, rcx)?;
        self.asm.jge(end)?;
        self.lane(rsp + rax * size, m + rax * size, false)?;
        self.asm.inc(rax)?;
        self.asm.jmp(top)?;
        self.here(&mut end)
    }

    // Lanes a few elements apart

    /// Loads the vectors in which the lanes lie and picks from two at a time. The last one ends with the last lane, so that nothing behind it is read.
    pub(super) fn load_strided(&mut self, d: usize, w: Width, m: AsmMemoryOperand, step: usize, tmp: usize) -> Done {
        let per = self.per(w);
        let size = self.elem.bytes();
        let span = step * (per - 1) + 1;
        self.load_whole(d, w, m)?;
        for k in 1..span.div_ceil(per) {
            let from = (k * per).min(span - per);
            // Lanes that earlier vectors gave stay; those of this one come from the second table.
            let index = (0..per).map(|j| match j * step {
                at if at >= k * per && at < (k + 1) * per => per + at - from,
                at if k == 1 && at < per => at,
                _ => j,
            });
            let table = self.index_table(index);
            self.load_whole(tmp, w, table)?;
            let second = sized(w, m + (from * size) as i32);
            match (self.elem, w) {
                (Elem::F32, Width::X) => self.asm.vpermt2ps(XMM[d], XMM[tmp], second)?,
                (Elem::F32, Width::Y) => self.asm.vpermt2ps(YMM[d], YMM[tmp], second)?,
                (Elem::F32, Width::Z) => self.asm.vpermt2ps(ZMM[d], ZMM[tmp], second)?,
                (Elem::F64, Width::X) => self.asm.vpermt2pd(XMM[d], XMM[tmp], second)?,
                (Elem::F64, Width::Y) => self.asm.vpermt2pd(YMM[d], YMM[tmp], second)?,
                (Elem::F64, Width::Z) => self.asm.vpermt2pd(ZMM[d], ZMM[tmp], second)?,
            }
        }
        Ok(())
    }

    // Scattered lanes

    /// Lanes come together in registers; a vector that is loaded from where narrow stores have just gone waits for them.
    pub(super) fn load_scattered(&mut self, d: usize, w: Width, from: &Scattered, tmp: Option<usize>) -> Done {
        let tested = |e: &mut Self| {
            e.constant_zero(d)?;
            e.store_whole(d, w, ptr(rsp + 0))?;
            e.lanes_tested(from, true)?;
            e.load_whole(d, w, ptr(rsp + 0))
        };
        self.if_inside(from, |e| e.gather(d, w, from, tmp), tested)
    }

    pub(super) fn store_scattered(&mut self, s: usize, w: Width, to: &Scattered) -> Done {
        self.store_whole(s, w, ptr(rsp + 0))?;
        self.if_inside(to, |e| e.lanes_inside(to), |e| e.lanes_tested(to, false))
    }

    /// Stores the lanes in the window, testing each.
    pub(super) fn store_tested(&mut self, s: usize, w: Width, to: &Scattered) -> Done {
        self.store_whole(s, w, ptr(rsp + 0))?;
        self.lanes_tested(to, false)
    }

    /// One thing where all lanes are inside their window, another where not.
    fn if_inside(&mut self, p: &Scattered, inside: impl FnOnce(&mut Self) -> Done, tested: impl FnOnce(&mut Self) -> Done) -> Done {
        let (mut away, mut done) = (self.asm.create_label(), self.asm.create_label());
        let span = p.step * (p.lanes as i64 - 1) + 1;
        let leaves = match &p.window {
            None => Leaves::Never,
            Some(w) => self.unless_inside(w, span, away)?,
        };
        match leaves {
            Leaves::Never => inside(self),
            Leaves::Always => tested(self),
            Leaves::Sometimes => {
                inside(self)?;
                self.asm.jmp(done)?;
                self.here(&mut away)?;
                tested(self)?;
                self.here(&mut done)
            }
        }
    }

    /// Lanes that are all inside, 16 bytes at a time; what the register has more is zero.
    fn gather(&mut self, d: usize, w: Width, from: &Scattered, tmp: Option<usize>) -> Done {
        let (size, each) = (self.elem.bytes(), self.per(Width::X));
        let base = self.base(from.mem.base)?;
        let near = from.near(size);
        if near.is_none() {
            self.asm.lea(rax, ptr(base + from.mem.disp))?;
            self.pitch(from.pitch)?;
        }
        for quarter in 0..from.lanes.div_ceil(each) {
            let reg = if quarter == 0 { d } else { tmp.expect("upper lanes come by a register of their own") };
            for lane in quarter * each..from.lanes.min((quarter + 1) * each) {
                let m = match near {
                    Some(bytes) => base + (from.mem.disp + lane as i32 * bytes),
                    None => rax + 0,
                };
                match (self.elem, lane % each) {
                    (Elem::F32, 0) => self.asm.vmovss(XMM[reg], dword_ptr(m))?,
                    (Elem::F32, at) => self.asm.vinsertps(XMM[reg], XMM[reg], dword_ptr(m), (at << 4) as i32)?,
                    (Elem::F64, 0) => self.asm.vmovsd(XMM[reg], qword_ptr(m))?,
                    (Elem::F64, _) => self.asm.vmovhpd_3(XMM[reg], XMM[reg], qword_ptr(m))?,
                }
                if near.is_none() {
                    self.asm.add(rax, rcx)?;
                }
            }
            match (w, self.isa) {
                _ if quarter == 0 => {}
                (Width::Z, _) => self.asm.vinsertf32x4(ZMM[d], ZMM[d], XMM[reg], quarter as i32)?,
                (_, WideIsa::Avx512) => self.asm.vinsertf32x4(YMM[d], YMM[d], XMM[reg], quarter as i32)?,
                (_, WideIsa::Avx2) => self.asm.vinsertf128(YMM[d], YMM[d], XMM[reg], quarter as i32)?,
            }
        }
        Ok(())
    }

    fn constant_zero(&mut self, d: usize) -> Done {
        self.asm.vxorps(XMM[d], XMM[d], XMM[d])
    }

    /// Moves one lane; `rdx` is overwritten.
    fn lane(&mut self, here: AsmMemoryOperand, there: AsmMemoryOperand, load: bool) -> Done {
        let (from, to) = if load { (there, here) } else { (here, there) };
        match self.elem {
            Elem::F32 => {
                self.asm.mov(edx, dword_ptr(from))?;
                self.asm.mov(dword_ptr(to), edx)
            }
            Elem::F64 => {
                self.asm.mov(rdx, qword_ptr(from))?;
                self.asm.mov(qword_ptr(to), rdx)
            }
        }
    }

    /// Lanes of the frame that are all inside, to memory.
    fn lanes_inside(&mut self, to: &Scattered) -> Done {
        let size = self.elem.bytes();
        let base = self.base(to.mem.base)?;
        let near = to.near(size);
        if near.is_none() {
            self.asm.lea(rax, ptr(base + to.mem.disp))?;
            self.pitch(to.pitch)?;
        }
        for j in 0..to.lanes as i32 {
            match near {
                Some(bytes) => self.lane(rsp + j * size as i32, base + (to.mem.disp + j * bytes), false)?,
                None => {
                    self.lane(rsp + j * size as i32, rax + 0, false)?;
                    self.asm.add(rax, rcx)?;
                }
            }
        }
        Ok(())
    }

    /// The byte step between lanes into `rcx`.
    pub(super) fn pitch(&mut self, p: Pitch) -> Done {
        match p {
            Pitch::Const(bytes) => self.asm.mov(rcx, bytes),
            Pitch::Reg(g) => self.get(rcx, g),
        }
    }

    fn lanes_tested(&mut self, p: &Scattered, load: bool) -> Done {
        let window = p.window.expect("only lanes in a window are tested");
        let size = self.elem.bytes() as i32;
        self.bound(rax, window.lo)?;
        self.asm.mov(qword_ptr(rsp + AT_LO), rax)?;
        self.bound(rax, window.hi)?;
        self.asm.mov(qword_ptr(rsp + AT_HI), rax)?;
        self.pitch(p.pitch)?;
        self.asm.mov(qword_ptr(rsp + AT_STEP), rcx)?;
        let base = self.base(p.mem.base)?;
        self.asm.lea(rax, ptr(base + p.mem.disp))?;
        self.asm.xor(ecx, ecx)?;
        let (mut top, mut next) = (self.asm.create_label(), self.asm.create_label());
        self.here(&mut top)?;
        match i32::try_from(p.step) {
            Ok(step) => self.asm.imul_3(rdx, rcx, step)?,
            Err(_) => {
                self.asm.mov(rdx, p.step)?;
                self.asm.imul_2(rdx, rcx)?;
            }
        }
        self.asm.cmp(rdx, qword_ptr(rsp + AT_LO))?;
        self.asm.jl(next)?;
        self.asm.cmp(rdx, qword_ptr(rsp + AT_HI))?;
        self.asm.jge(next)?;
        self.lane(rsp + rcx * size, rax + 0, load)?;
        self.here(&mut next)?;
        self.asm.add(rax, qword_ptr(rsp + AT_STEP))?;
        self.asm.inc(rcx)?;
        self.asm.cmp(rcx, p.lanes as i32)?;
        self.asm.jl(top)
    }

    // Interleaving

    /// Vector `k` of the interleaved parts.
    pub(super) fn interleave(&mut self, d: usize, w: Width, parts: &[usize], k: usize, tmp: Option<usize>) -> Done {
        let (n, per) = (parts.len(), self.per(w));
        // Which part and which lane of it each element comes from.
        let from: Vec<(usize, usize)> = (0..per).map(|e| ((k * per + e) % n, (k * per + e) / n)).collect();
        match self.isa {
            WideIsa::Avx512 => self.interleave_two_tables(d, w, parts, &from, tmp),
            WideIsa::Avx2 => self.interleave_blend(d, w, parts, k, &from, tmp.expect("AVX2 interleaves through a temporary")),
        }
    }

    /// `vpermi2ps` picks from two vectors: first from parts 0 and 1, then from what there is and the next part.
    fn interleave_two_tables(&mut self, d: usize, w: Width, parts: &[usize], from: &[(usize, usize)], tmp: Option<usize>) -> Done {
        let per = from.len();
        let steps = parts.len() - 1;
        let mut have = parts[0];
        for (step, &b) in parts.iter().enumerate().skip(1) {
            let index = from.iter().enumerate().map(|(e, &(part, lane))| match part {
                p if p == step => per + lane,
                0 if step == 1 => lane,
                _ if step == 1 => 0,
                _ => e,
            });
            // The last step must land in the destination.
            let into = if (steps - step).is_multiple_of(2) { d } else { tmp.expect("three parts need a temporary") };
            self.permute(into, w, have, b, index)?;
            have = into;
        }
        Ok(())
    }

    /// Lanes of `a` and `b`, by a table that is loaded into the destination first.
    pub(super) fn permute(&mut self, d: usize, w: Width, a: usize, b: usize, index: impl Iterator<Item = usize>) -> Done {
        let table = self.index_table(index);
        self.load_whole(d, w, table)?;
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vpermi2ps(XMM[d], XMM[a], XMM[b]),
            (Elem::F32, Width::Y) => self.asm.vpermi2ps(YMM[d], YMM[a], YMM[b]),
            (Elem::F32, Width::Z) => self.asm.vpermi2ps(ZMM[d], ZMM[a], ZMM[b]),
            (Elem::F64, Width::X) => self.asm.vpermi2pd(XMM[d], XMM[a], XMM[b]),
            (Elem::F64, Width::Y) => self.asm.vpermi2pd(YMM[d], YMM[a], YMM[b]),
            (Elem::F64, Width::Z) => self.asm.vpermi2pd(ZMM[d], ZMM[a], ZMM[b]),
        }
    }

    fn index_table(&mut self, index: impl Iterator<Item = usize>) -> AsmMemoryOperand {
        let size = self.elem.bytes();
        let bytes = index.flat_map(|i| (i as u64).to_le_bytes()[..size].to_vec()).collect();
        ptr(self.pool.label(&mut self.asm, bytes))
    }

    /// Permutes each part and blends it in; two parts need no table.
    fn interleave_blend(&mut self, d: usize, w: Width, parts: &[usize], k: usize, from: &[(usize, usize)], tmp: usize) -> Done {
        if let [a, b] = *parts {
            let double = self.elem == Elem::F64;
            let unpack = |high, into| Unpack { high, double, into, a, b };
            if w == Width::X {
                return self.unpack(&unpack(k == 1, d), w);
            }
            // In every 16 bytes the lower elements, and the upper ones: vector 0 is the lower halves of both, vector 1 the upper ones.
            self.unpack(&unpack(false, d), w)?;
            self.unpack(&unpack(true, tmp), w)?;
            return self.asm.vperm2f128(YMM[d], YMM[d], YMM[tmp], [0x20, 0x31][k]);
        }
        for (i, &p) in parts.iter().enumerate() {
            let mine = |&(part, lane): &(usize, usize)| if part == i { lane } else { 0 };
            let blend = from.iter().enumerate().filter(|(_, f)| f.0 == i).fold(0, |m, (e, _)| m | 1 << e);
            if blend == 0 && i > 0 {
                continue;
            }
            let into = if i == 0 { d } else { tmp };
            let bits = |width: usize| from.iter().map(mine).enumerate().fold(0, |m, (e, l)| m | l << (e * width)) as i32;
            match (self.elem, w) {
                (Elem::F32, Width::X) => self.asm.vpermilps(XMM[into], XMM[p], bits(2))?,
                (Elem::F64, Width::X) => self.asm.vpermilpd(XMM[into], XMM[p], bits(1))?,
                (Elem::F64, _) => self.asm.vpermpd(YMM[into], YMM[p], bits(2))?,
                (Elem::F32, _) => {
                    let table = self.index_table(from.iter().map(mine));
                    self.load_whole(into, w, table)?;
                    self.asm.vpermps(YMM[into], YMM[into], YMM[p])?;
                }
            }
            match (self.elem, w) {
                _ if i == 0 => {}
                (Elem::F32, Width::X) => self.asm.vblendps(XMM[d], XMM[d], XMM[tmp], blend)?,
                (Elem::F32, _) => self.asm.vblendps(YMM[d], YMM[d], YMM[tmp], blend)?,
                (Elem::F64, Width::X) => self.asm.vblendpd(XMM[d], XMM[d], XMM[tmp], blend)?,
                (Elem::F64, _) => self.asm.vblendpd(YMM[d], YMM[d], YMM[tmp], blend)?,
            }
        }
        Ok(())
    }
}
