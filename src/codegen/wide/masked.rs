//! Fourth step, masks: whether an access leaves its window, and the lanes that stay inside.
//!
//! AVX-512 keeps masks in mask registers, `k1` for what is masked on its own and the others for as long as [`super::masks`] says; AVX2 has vectors for them.

use super::WideIsa;
use super::encode::{Done, Encoder, Low};
use super::inst::*;
use super::masks::{FAR, KEPT};
use super::vector::{XMM, YMM, ZMM, sized};
use crate::ir::Elem;
use iced_x86::code_asm::*;

/// The mask registers whose masks are kept, in the order of their numbers.
const REGISTERS: [AsmRegisterK; KEPT] = [k2, k3, k4, k5, k6, k7];

/// The vector whose elements of 32 bits are as many lanes at least.
fn lanes(active: usize) -> Width {
    [Width::X, Width::Y].into_iter().find(|w| active * 4 <= w.bytes()).unwrap_or(Width::Z)
}

/// What an instruction writes, under a mask.
macro_rules! under {
    ($to:expr, $k:expr) => {
        match $k {
            k if k == k1 => $to.k1(),
            k if k == k2 => $to.k2(),
            k if k == k3 => $to.k3(),
            k if k == k4 => $to.k4(),
            k if k == k5 => $to.k5(),
            k if k == k6 => $to.k6(),
            _ => $to.k7(),
        }
    };
}

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

    /// A bound in `rax`, no further from 0 than coordinates can be told apart in 32 bits.
    pub(super) fn limit(&mut self, of: Bound) -> Done {
        self.bound(rax, of)?;
        self.asm.mov(rcx, -(FAR as i64))?;
        self.asm.cmp(rax, rcx)?;
        self.asm.cmovl(rax, rcx)?;
        self.asm.neg(rcx)?;
        self.asm.cmp(rax, rcx)?;
        self.asm.cmovg(rax, rcx)
    }

    /// Keeps the mask of the lanes in the window, among the first `active`, under that number. The lanes are numbers of 32 bits, of f64 as well, and are
    /// compared with the bounds, which are limited to them; those after the last one are above every bound.
    pub(super) fn keep_mask(&mut self, to: usize, active: usize, window: Window, tmp: Option<usize>) -> Done {
        let Some(tmp) = tmp else { return self.mask_register(REGISTERS[to], active, window) };
        let whole = [Width::X, Width::Y, Width::Z].iter().any(|w| w.bytes() == active * self.elem.bytes());
        let above = !matches!(window.lo, Bound::Const(c) if c <= 0);
        let below = !whole || !above || !matches!(window.hi, Bound::Const(c) if c >= active as i64);
        match self.isa {
            WideIsa::Avx512 => {
                const LESS_OR_EQUAL: i32 = 2;
                const GREATER: i32 = 6;
                let k = REGISTERS[to];
                if below {
                    self.compare(k, tmp, active, window.hi, GREATER)?;
                }
                if above {
                    let to = if below { under!(k, k) } else { k };
                    self.compare(to, tmp, active, window.lo, LESS_OR_EQUAL)?;
                }
                Ok(())
            }
            WideIsa::Avx2 => self.keep_vector(to, active, window, tmp, above, below),
        }
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

    /// Compares a bound, repeated in `tmp`, with the numbers of lanes: the result to a mask register, as far as the mask that is on it allows.
    fn compare(&mut self, to: AsmRegisterK, tmp: usize, active: usize, bound: Bound, how: i32) -> Done {
        let numbers = self.repeat(tmp, active, bound)?;
        match lanes(active) {
            Width::X => self.asm.vpcmpd(to, XMM[tmp], xmmword_ptr(numbers), how),
            Width::Y => self.asm.vpcmpd(to, YMM[tmp], ymmword_ptr(numbers), how),
            Width::Z => self.asm.vpcmpd(to, ZMM[tmp], zmmword_ptr(numbers), how),
        }
    }

    /// The same in the frame. There is one comparison, greater, and its result is a vector.
    fn keep_vector(&mut self, to: usize, active: usize, window: Window, m: usize, above: bool, below: bool) -> Done {
        let (at, narrow) = (self.kept_at(to), lanes(active));
        if below {
            self.greater(m, active, window.hi)?;
        }
        if above {
            let mut others = at;
            match below {
                true => self.store_whole(m, narrow, at)?,
                false => others = ptr(self.pool.label(&mut self.asm, vec![0xff; 32])),
            }
            self.greater(m, active, window.lo)?;
            match narrow {
                Width::X => self.asm.vpandn(XMM[m], XMM[m], xmmword_ptr(others))?,
                _ => self.asm.vpandn(YMM[m], YMM[m], ymmword_ptr(others))?,
            }
        }
        let w = self.vector_of(active);
        match (self.elem, w) {
            (Elem::F32, _) => {}
            (Elem::F64, Width::X) => self.asm.vpmovsxdq(XMM[m], XMM[m])?,
            (Elem::F64, _) => self.asm.vpmovsxdq(YMM[m], XMM[m])?,
        }
        self.store_whole(m, w, at)
    }

    /// Where a bound is greater than the number of a lane.
    fn greater(&mut self, m: usize, active: usize, bound: Bound) -> Done {
        let numbers = self.repeat(m, active, bound)?;
        match lanes(active) {
            Width::X => self.asm.vpcmpgtd(XMM[m], XMM[m], xmmword_ptr(numbers)),
            _ => self.asm.vpcmpgtd(YMM[m], YMM[m], ymmword_ptr(numbers)),
        }
    }

    /// Repeats a bound in a vector; gives what it is to be compared with: the numbers of the lanes, less what is added to the bound.
    fn repeat(&mut self, to: usize, active: usize, bound: Bound) -> Done<CodeLabel> {
        let (loc, add) = match bound {
            Bound::Const(c) => {
                let label = self.pool.label(&mut self.asm, (c.clamp(-FAR as i64, FAR as i64) as i32).to_le_bytes().to_vec());
                (Low::Mem(dword_ptr(label)), 0)
            }
            Bound::Reg(g, add) => (self.low(g), add),
            Bound::Arg(..) => unreachable!("bounds of masks that are kept are limited"),
        };
        match (lanes(active), loc) {
            (Width::X, Low::Mem(m)) => self.asm.vpbroadcastd(XMM[to], m)?,
            (Width::Y, Low::Mem(m)) => self.asm.vpbroadcastd(YMM[to], m)?,
            (Width::Z, Low::Mem(m)) => self.asm.vpbroadcastd(ZMM[to], m)?,
            (w, Low::Reg(r)) => match (w, self.isa) {
                (Width::X, WideIsa::Avx512) => self.asm.vpbroadcastd(XMM[to], r)?,
                (Width::Y, WideIsa::Avx512) => self.asm.vpbroadcastd(YMM[to], r)?,
                (Width::Z, WideIsa::Avx512) => self.asm.vpbroadcastd(ZMM[to], r)?,
                (w, WideIsa::Avx2) => {
                    self.asm.vmovd(XMM[to], r)?;
                    match w {
                        Width::X => self.asm.vpbroadcastd(XMM[to], XMM[to])?,
                        _ => self.asm.vpbroadcastd(YMM[to], XMM[to])?,
                    }
                }
            },
        }
        let number = |lane: usize| if lane < active { (lane as i64 - add) as i32 } else { i32::MAX };
        let numbers = (0..lanes(active).bytes() / 4).flat_map(|lane| number(lane).to_le_bytes()).collect();
        Ok(self.pool.label(&mut self.asm, numbers))
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
        let m = sized(w, m);
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vmovups(under!(XMM[d], k).z(), m),
            (Elem::F32, Width::Y) => self.asm.vmovups(under!(YMM[d], k).z(), m),
            (Elem::F32, Width::Z) => self.asm.vmovups(under!(ZMM[d], k).z(), m),
            (Elem::F64, Width::X) => self.asm.vmovupd(under!(XMM[d], k).z(), m),
            (Elem::F64, Width::Y) => self.asm.vmovupd(under!(YMM[d], k).z(), m),
            (Elem::F64, Width::Z) => self.asm.vmovupd(under!(ZMM[d], k).z(), m),
        }
    }

    /// Stores the lanes whose bits are set in `k1`.
    pub(super) fn store_masked(&mut self, s: usize, w: Width, m: AsmMemoryOperand) -> Done {
        self.store_under(s, w, m, k1)
    }

    /// Stores under a mask that is kept, in a mask register.
    pub(super) fn store_kept(&mut self, s: usize, w: Width, m: AsmMemoryOperand, mask: usize) -> Done {
        self.store_under(s, w, m, REGISTERS[mask])
    }

    fn store_under(&mut self, s: usize, w: Width, m: AsmMemoryOperand, k: AsmRegisterK) -> Done {
        let m = under!(sized(w, m), k);
        match (self.elem, w) {
            (Elem::F32, Width::X) => self.asm.vmovups(m, XMM[s]),
            (Elem::F32, Width::Y) => self.asm.vmovups(m, YMM[s]),
            (Elem::F32, Width::Z) => self.asm.vmovups(m, ZMM[s]),
            (Elem::F64, Width::X) => self.asm.vmovupd(m, XMM[s]),
            (Elem::F64, Width::Y) => self.asm.vmovupd(m, YMM[s]),
            (Elem::F64, Width::Z) => self.asm.vmovupd(m, ZMM[s]),
        }
    }
}
