//! Fourth step, masks: whether an access leaves its window, and the lanes that stay inside.
//!
//! AVX-512 keeps masks in mask registers, `k1` for what is masked on its own and the others for as long as [`super::masks`] says; AVX2 has vectors for them.

use super::WideIsa;
use super::encode::{Done, Encoder};
use super::inst::*;
use super::masks::{FAR, KEPT};
use super::vector::{XMM, YMM, ZMM, sized};
use crate::ir::Elem;
use iced_x86::code_asm::*;

/// The mask registers whose masks are kept, in the order of their numbers.
const REGISTERS: [AsmRegisterK; KEPT] = [k2, k3, k4, k5, k6, k7];

/// Whether an access may leave its window.
#[derive(PartialEq, Eq)]
pub(super) enum Leaves {
    Never,
    Sometimes,
    Always,
}

impl Encoder<'_> {
    /// Jumps to `away` if one of the coordinates `0..n` is outside the window; says which way that can go.
    pub(super) fn unless_inside(&mut self, window: &Window, n: i64, away: CodeLabel) -> Done<Leaves> {
        let mut leaves = Leaves::Never;
        match window.hi {
            Bound::Const(c) if c >= n => {}
            Bound::Const(_) => return Ok(Leaves::Always),
            b => {
                self.cmp_bound(b, n)?;
                self.asm.jl(away)?;
                leaves = Leaves::Sometimes;
            }
        }
        match window.lo {
            Bound::Const(c) if c <= 0 => {}
            // What has been emitted so far only skips what follows, and nothing follows.
            Bound::Const(_) => return Ok(if leaves == Leaves::Never { Leaves::Always } else { self.always(away)? }),
            b => {
                self.cmp_bound(b, 0)?;
                self.asm.jg(away)?;
                leaves = Leaves::Sometimes;
            }
        }
        Ok(leaves)
    }

    fn always(&mut self, away: CodeLabel) -> Done<Leaves> {
        self.asm.jmp(away)?;
        Ok(Leaves::Sometimes)
    }

    /// A bound limited to `0..=cap`.
    pub(super) fn clamped(&mut self, to: AsmRegister64, b: Bound, cap: usize) -> Done {
        self.bound(to, b)?;
        self.asm.xor(ecx, ecx)?;
        self.asm.test(to, to)?;
        self.asm.cmovs(to, rcx)?;
        self.asm.mov(ecx, cap as i32)?;
        self.asm.cmp(to, rcx)?;
        self.asm.cmovg(to, rcx)
    }

    /// Keeps the mask of the lanes in the window, among the first `active`, under that number; by way of a vector register where there are no mask registers.
    pub(super) fn keep_mask(&mut self, to: usize, active: usize, window: Window, by: Option<usize>) -> Done {
        let Some(m) = by else { return self.mask_register(REGISTERS[to], active, window) };
        let w = self.vector_of(active);
        self.mask_vector(m, w, active, window)?;
        let at = self.kept_at(to);
        self.store_whole(m, w, at)
    }

    /// The vector of AVX2 that so many lanes are in.
    fn vector_of(&self, active: usize) -> Width {
        if active * self.elem.bytes() > 16 { Width::Y } else { Width::X }
    }

    /// Puts the mask of the lanes in the window, among the first `active`, into a mask register.
    fn mask_register(&mut self, to: AsmRegisterK, active: usize, Window { lo, hi }: Window) -> Done {
        if let (Bound::Const(lo), Bound::Const(hi)) = (lo, hi) {
            let below = |b: i64| (1u64 << b.clamp(0, active as i64)) - 1;
            self.asm.mov(eax, (below(hi) & !below(lo)) as u32)?;
            return self.asm.kmovd(to, eax);
        }
        let from_start = matches!(lo, Bound::Const(c) if c <= 0);
        self.clamped(rax, hi, active)?;
        if !from_start {
            self.clamped(rdx, lo, active)?;
        }
        self.asm.mov(ecx, -1)?;
        self.asm.bzhi(eax, ecx, eax)?;
        if !from_start {
            self.asm.bzhi(edx, ecx, edx)?;
            self.asm.andn(eax, edx, eax)?;
        }
        self.asm.kmovd(to, eax)
    }

    /// The same where lane `j` is inside if `0 <= first + j < range`: compared as numbers without a sign, below 0 is too much. Lanes are counted in 32 bits,
    /// of f64 as well.
    pub(super) fn keep_range(&mut self, to: usize, active: usize, first: Bound, range: i32, tmp: usize) -> Done {
        self.bound(rax, first)?;
        self.asm.mov(rcx, -(FAR as i64))?;
        self.asm.cmp(rax, rcx)?;
        self.asm.cmovl(rax, rcx)?;
        self.asm.neg(rcx)?;
        self.asm.cmp(rax, rcx)?;
        self.asm.cmovg(rax, rcx)?;
        if self.isa == WideIsa::Avx2 {
            return self.range_vector(to, active, range, tmp);
        }
        let to = REGISTERS[to];
        let numbers = self.pool.label(&mut self.asm, (0..16u32).flat_map(u32::to_le_bytes).collect());
        let most = self.pool.label(&mut self.asm, range.to_le_bytes().to_vec());
        const BELOW: i32 = 1;
        match active {
            16 => {
                self.asm.vpbroadcastd(ZMM[tmp], eax)?;
                self.asm.vpaddd(ZMM[tmp], ZMM[tmp], zmmword_ptr(numbers))?;
                self.asm.vpcmpud(to, ZMM[tmp], dword_bcst(most), BELOW)
            }
            8 => {
                self.asm.vpbroadcastd(YMM[tmp], eax)?;
                self.asm.vpaddd(YMM[tmp], YMM[tmp], ymmword_ptr(numbers))?;
                self.asm.vpcmpud(to, YMM[tmp], dword_bcst(most), BELOW)
            }
            _ => {
                self.asm.vpbroadcastd(XMM[tmp], eax)?;
                self.asm.vpaddd(XMM[tmp], XMM[tmp], xmmword_ptr(numbers))?;
                self.asm.vpcmpud(to, XMM[tmp], dword_bcst(most), BELOW)
            }
        }
    }

    /// The same in the frame, with `first` in `eax`. There is a comparison of numbers with a sign only, whose second operand may be in memory: the lanes are
    /// counted down from the largest number, below which those without a sign turn round.
    fn range_vector(&mut self, to: usize, active: usize, range: i32, m: usize) -> Done {
        let bytes = |lane: &dyn Fn(i32) -> i32| (0..8).flat_map(|j| lane(j).to_le_bytes()).collect::<Vec<u8>>();
        let numbers = self.pool.label(&mut self.asm, bytes(&|j| i32::MAX - j));
        let most = self.pool.label(&mut self.asm, bytes(&|_| i32::MAX - range));
        self.asm.neg(eax)?;
        self.asm.vmovd(XMM[m], eax)?;
        match active {
            8 => {
                self.asm.vpbroadcastd(YMM[m], XMM[m])?;
                self.asm.vpaddd(YMM[m], YMM[m], ymmword_ptr(numbers))?;
                self.asm.vpcmpgtd(YMM[m], YMM[m], ymmword_ptr(most))?;
            }
            _ => {
                self.asm.vpbroadcastd(XMM[m], XMM[m])?;
                self.asm.vpaddd(XMM[m], XMM[m], xmmword_ptr(numbers))?;
                self.asm.vpcmpgtd(XMM[m], XMM[m], xmmword_ptr(most))?;
            }
        }
        let w = self.vector_of(active);
        match (self.elem, w) {
            (Elem::F32, _) => {}
            (Elem::F64, Width::X) => self.asm.vpmovsxdq(XMM[m], XMM[m])?,
            (Elem::F64, _) => self.asm.vpmovsxdq(YMM[m], XMM[m])?,
        }
        let at = self.kept_at(to);
        self.store_whole(m, w, at)
    }

    /// The mask of the lanes in the window, among the first `active`: in `k1`, or in the vector register given.
    pub(super) fn mask(&mut self, w: Width, p: &Packed) -> Done {
        let hi = p.window.map_or(Bound::Const(p.active as i64), |w| w.hi);
        let lo = p.window.map_or(Bound::Const(0), |w| w.lo);
        match p.mask.map(|v| self.places.v[v]) {
            Some(m) => self.mask_vector(m, w, p.active, Window { lo, hi }),
            None => self.mask_register(k1, p.active, Window { lo, hi }),
        }
    }

    /// Puts the mask of the lanes in the window, among the first `active`, into a vector register.
    fn mask_vector(&mut self, m: usize, w: Width, active: usize, Window { lo, hi }: Window) -> Done {
        let from_start = matches!(lo, Bound::Const(c) if c <= 0);
        self.clamped(rax, hi, active)?;
        if !from_start {
            self.clamped(rdx, lo, active)?;
        }
        // The first h lanes are the vector that ends h lanes into the zeros; the others start l lanes before the second ones.
        let table: Vec<u8> = (0..96).map(|i| if (32..64).contains(&i) { 0 } else { 0xff }).collect();
        let label = self.pool.label(&mut self.asm, table);
        let size = self.elem.bytes() as i32;
        self.asm.lea(rcx, ptr(label))?;
        self.asm.neg(rax)?;
        self.load_whole(m, w, rcx + rax * size + 32)?;
        if !from_start {
            self.asm.neg(rdx)?;
            match w {
                Width::X => self.asm.vandps(XMM[m], XMM[m], xmmword_ptr(rcx + rdx * size + 64))?,
                _ => self.asm.vandps(YMM[m], YMM[m], ymmword_ptr(rcx + rdx * size + 64))?,
            }
        }
        Ok(())
    }

    pub(super) fn load_masked(&mut self, d: usize, w: Width, m: AsmMemoryOperand, p: &Packed) -> Done {
        match p.mask.map(|v| self.places.v[v]) {
            Some(v) => self.load_by_vector(d, w, m, v),
            None => self.load_under(d, w, m, k1),
        }
    }

    /// Loads under a mask that is kept.
    pub(super) fn load_kept(&mut self, d: usize, w: Width, m: AsmMemoryOperand, mask: usize) -> Done {
        if self.isa == WideIsa::Avx512 {
            return self.load_under(d, w, m, REGISTERS[mask]);
        }
        let at = self.kept_at(mask);
        self.load_whole(d, w, at)?;
        self.load_by_vector(d, w, m, d)
    }

    /// Loads the lanes whose first bits are set in a vector register, which may be the one that is loaded; the others become 0.
    fn load_by_vector(&mut self, d: usize, w: Width, m: AsmMemoryOperand, v: usize) -> Done {
        let m = sized(w, m);
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vmaskmovps(XMM[d], XMM[v], m),
            (Elem::F32, _) => self.asm.vmaskmovps(YMM[d], YMM[v], m),
            (Elem::F64, Width::X) => self.asm.vmaskmovpd(XMM[d], XMM[v], m),
            (Elem::F64, _) => self.asm.vmaskmovpd(YMM[d], YMM[v], m),
        }
    }

    /// Loads the lanes whose bits are set in a mask register; the others become 0.
    fn load_under(&mut self, d: usize, w: Width, m: AsmMemoryOperand, k: AsmRegisterK) -> Done {
        /// A register, under that mask.
        macro_rules! under {
            ($register:expr) => {
                match k {
                    _ if k == k1 => $register.k1(),
                    _ if k == k2 => $register.k2(),
                    _ if k == k3 => $register.k3(),
                    _ if k == k4 => $register.k4(),
                    _ if k == k5 => $register.k5(),
                    _ if k == k6 => $register.k6(),
                    _ => $register.k7(),
                }
                .z()
            };
        }
        let m = sized(w, m);
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vmovups(under!(XMM[d]), m),
            (Elem::F32, Width::Y) => self.asm.vmovups(under!(YMM[d]), m),
            (Elem::F32, Width::Z) => self.asm.vmovups(under!(ZMM[d]), m),
            (Elem::F64, Width::X) => self.asm.vmovupd(under!(XMM[d]), m),
            (Elem::F64, Width::Y) => self.asm.vmovupd(under!(YMM[d]), m),
            (Elem::F64, Width::Z) => self.asm.vmovupd(under!(ZMM[d]), m),
        }
    }

    pub(super) fn store_masked(&mut self, s: usize, w: Width, m: AsmMemoryOperand) -> Done {
        let m = sized(w, m);
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vmovups(m.k1(), XMM[s]),
            (Elem::F32, Width::Y) => self.asm.vmovups(m.k1(), YMM[s]),
            (Elem::F32, Width::Z) => self.asm.vmovups(m.k1(), ZMM[s]),
            (Elem::F64, Width::X) => self.asm.vmovupd(m.k1(), XMM[s]),
            (Elem::F64, Width::Y) => self.asm.vmovupd(m.k1(), YMM[s]),
            (Elem::F64, Width::Z) => self.asm.vmovupd(m.k1(), ZMM[s]),
        }
    }
}
