//! The linear program of a tile: virtual registers, resolved addresses, one list of instructions.
//!
//! `select` writes it, `alloc` gives its virtual registers places, `encode` turns it into bytes. Vector virtual registers
//! ([`V`]) hold one chunk (16, 32 or 64 bytes); a scalar is a vector with the same value in every lane. Integer virtual
//! registers ([`G`]) hold pointers, counters and bounds. Arguments stay in memory and are read where they are used.

use crate::ir::{BinOp, CmpOp};

/// A vector virtual register.
pub(super) type V = usize;
/// An integer virtual register.
pub(super) type G = usize;

/// How many bytes of a vector register an instruction works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    X,
    Y,
    Z,
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Width::X => 16,
            Width::Y => 32,
            Width::Z => 64,
        }
    }
}

/// `[base + disp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mem {
    pub base: G,
    pub disp: i32,
}

/// A source operand of a vector instruction; at most one per instruction is not a register.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Src {
    Reg(V),
    /// A whole vector in memory.
    Full(Mem),
    /// One element in memory, repeated (AVX-512 only).
    Splat(Mem),
    /// A constant of the pool, given by its bits, repeated.
    Const(u64),
}

/// An integer known before the instruction: a bound of a clip, relative to the coordinate of lane 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Const(i64),
    /// An argument plus a constant.
    Arg(usize, i64),
    /// An integer register plus a constant.
    Reg(G, i64),
}

impl Bound {
    pub(super) fn plus(self, by: i64) -> Bound {
        match self {
            Bound::Const(c) => Bound::Const(c + by),
            Bound::Arg(a, c) => Bound::Arg(a, c + by),
            Bound::Reg(g, c) => Bound::Reg(g, c + by),
        }
    }
}

/// Which elements of one contiguous or strided access are touched: element `e` (a coordinate relative to lane 0 of this chunk) if `lo <= e < hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub lo: Bound,
    pub hi: Bound,
}

/// What an integer expression is a sum of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum IntTerm {
    Arg(usize),
    Reg(G),
    /// `table[register]`.
    Table(usize, G),
    /// The product of two registers.
    Product(G, G),
    /// `table[first register] * second register`.
    TableProduct(usize, G, G),
}

/// `add + Σ coefficient · term`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct IntExpr {
    pub terms: Vec<(IntTerm, i64)>,
    pub add: i64,
}

impl IntExpr {
    pub(super) fn of(term: IntTerm, coef: i64) -> Self {
        IntExpr { terms: vec![(term, coef)], add: 0 }
    }
}

/// The byte distance between neighbouring lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pitch {
    Const(i64),
    Reg(G),
}

/// Lanes that do not lie side by side: loads gather them in registers, stores and lanes under a window pass through the stack frame one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scattered {
    pub mem: Mem,
    pub lanes: usize,
    /// Coordinates between lanes; lane `j` of the chunk has coordinate `step * j` relative to the window.
    pub step: i64,
    pub pitch: Pitch,
    pub window: Option<Window>,
}

impl Scattered {
    /// The byte step between lanes, if accesses of up to `most` bytes at all of them have displacements.
    pub(super) fn near(&self, most: usize) -> Option<i32> {
        let Pitch::Const(by) = self.pitch else { return None };
        let end = by.checked_mul(self.lanes as i64)?.checked_add(self.mem.disp as i64 + most as i64)?;
        i32::try_from(end).ok().map(|_| by as i32)
    }
}

/// Lanes side by side in memory; only the first `active` of the register count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Packed {
    pub mem: Mem,
    pub active: usize,
    pub window: Option<Window>,
    /// Holds the mask of a load on AVX2, if one may be needed.
    pub mask: Option<V>,
    /// The number of the mask that is kept already, instead of a window.
    pub kept: Option<usize>,
}

/// Whether an integer is at least 0, and at most some number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Test {
    pub of: IntExpr,
    pub most: Option<i32>,
}

/// What a cache line is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// To be read soon: into the first-level cache.
    Read,
    /// To be read later: into the second.
    ReadLater,
    /// To be written soon: into the first, and no other core's.
    Write,
}

/// One instruction, or a short fixed sequence of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Inst {
    // Control. Begin and End pair up; what lies between is a region.
    /// Enters a counted loop whose remaining count is in a register; skipped at once if `check` and the count is not positive.
    LoopBegin {
        id: usize,
        count: G,
        check: bool,
    },
    /// Subtracts `step` from the count and repeats while it is positive.
    LoopEnd {
        id: usize,
        count: G,
        step: i64,
    },
    /// The region runs if every test holds.
    WhenBegin {
        id: usize,
        conds: Vec<Test>,
        /// Whether that is seldom so.
        seldom: bool,
    },
    /// What follows runs instead, if some test does not hold.
    WhenElse {
        id: usize,
    },
    WhenEnd {
        id: usize,
    },

    // Integers.
    Int {
        dst: G,
        expr: IntExpr,
    },
    /// The largest (or least) of several expressions.
    Extreme {
        dst: G,
        exprs: Vec<IntExpr>,
        max: bool,
    },
    AddImm {
        dst: G,
        by: i64,
    },
    AddReg {
        dst: G,
        by: G,
    },

    /// A bound as a number of 32 bits, below or above all coordinates where it is too far from them.
    Limit {
        dst: G,
        of: Bound,
    },

    /// Makes the mask of the lanes in the window, among the first `active`, and keeps it under that number: in a mask register; on AVX2, which has none, in
    /// the frame. Bounds are constants or [`Inst::Limit`]s; what is not constant passes through a vector.
    Mask {
        to: usize,
        active: usize,
        window: Window,
        tmp: Option<V>,
    },

    /// Asks for a cache line ahead of its use. It may lie outside any buffer.
    Prefetch {
        mem: Mem,
        ask: Ask,
    },

    // Vectors. `w` is the width.
    Const {
        dst: V,
        w: Width,
        bits: u64,
    },
    Move {
        dst: V,
        w: Width,
        src: V,
    },
    Load {
        dst: V,
        w: Width,
        mem: Mem,
    },
    Splat {
        dst: V,
        w: Width,
        mem: Mem,
    },
    LoadPacked {
        dst: V,
        w: Width,
        from: Packed,
    },
    /// Every `step`-th element from the address on, all of them inside: neighbouring vectors, of which lanes are picked.
    LoadStrided {
        dst: V,
        w: Width,
        mem: Mem,
        step: usize,
        tmp: V,
    },
    /// `tmp` holds the lanes of upper 16 bytes, if there are any.
    LoadScattered {
        dst: V,
        w: Width,
        from: Scattered,
        tmp: Option<V>,
    },
    /// So many times 16 bytes.
    LoadPieces {
        dst: V,
        w: Width,
        pieces: Vec<Mem>,
    },
    /// Lower or upper elements of two vectors by turns, single or double ones, in every 16 bytes.
    Unpack {
        dst: V,
        w: Width,
        a: V,
        b: V,
        high: bool,
        double: bool,
    },
    Bin {
        op: BinOp,
        dst: V,
        w: Width,
        a: V,
        b: Src,
    },
    Fma {
        dst: V,
        w: Width,
        a: V,
        b: Src,
        c: Src,
    },
    /// Clears (abs) or flips (neg) the sign.
    Sign {
        dst: V,
        w: Width,
        a: V,
        clear: bool,
    },
    Pow2 {
        dst: V,
        w: Width,
        a: V,
    },
    /// `tmp` holds the mask on AVX2.
    Select {
        cmp: CmpOp,
        dst: V,
        w: Width,
        a: V,
        b: Src,
        t: V,
        e: V,
        tmp: Option<V>,
    },
    /// Lanes of two vectors: `index` counts those of `a`, then those of `b`. AVX-512 only.
    Permute {
        dst: V,
        w: Width,
        a: V,
        b: V,
        index: Vec<usize>,
    },
    /// The lanes of `a` from `by` on, then the first of `b`. AVX-512 only.
    Shift {
        dst: V,
        w: Width,
        a: V,
        b: V,
        by: usize,
    },
    /// Vector `k` of the parts interleaved: element `e` is lane `(k * n + e) / parts` of part `(k * n + e) % parts`.
    Interleave {
        dst: V,
        w: Width,
        parts: Vec<V>,
        k: usize,
        tmp: Option<V>,
    },
    StorePacked {
        src: V,
        w: Width,
        to: Packed,
        stream: bool,
    },
    StoreScattered {
        src: V,
        w: Width,
        to: Scattered,
    },
    /// As many elements of each lane as there are parts, side by side. The window is that of the first part; it is that of all of them, or they lie
    /// one after the other in it.
    StoreTurned {
        parts: Vec<V>,
        w: Width,
        to: Scattered,
        moves: bool,
        tmps: Vec<V>,
    },
    StoreScalar {
        src: V,
        mem: Mem,
    },
}

/// What an instruction does with a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Use,
    /// Written after every use: it may share its place with a source that dies here.
    Def,
    /// Written before the last use: it may not.
    Early,
}

impl Inst {
    /// Calls `v` and `g` for every register it touches, uses first.
    pub(super) fn registers(&self, v: &mut impl FnMut(V, Role), g: &mut impl FnMut(G, Role)) {
        use Role::{Def, Early, Use};
        match self {
            Inst::LoopBegin { count, check, .. } => {
                if *check {
                    g(*count, Use)
                }
            }
            Inst::LoopEnd { count, .. } => {
                g(*count, Use);
                g(*count, Def);
            }
            Inst::WhenBegin { conds, .. } => conds.iter().for_each(|t| t.of.registers(g)),
            Inst::WhenElse { .. } | Inst::WhenEnd { .. } => {}
            Inst::Int { dst, expr } => {
                expr.registers(g);
                g(*dst, Def);
            }
            Inst::Extreme { dst, exprs, .. } => {
                exprs.iter().for_each(|e| e.registers(g));
                g(*dst, Early);
            }
            Inst::AddImm { dst, .. } => {
                g(*dst, Use);
                g(*dst, Def);
            }
            Inst::AddReg { dst, by } => {
                g(*dst, Use);
                g(*by, Use);
                g(*dst, Def);
            }
            Inst::Mask { window, tmp, .. } => {
                window.registers(g);
                tmp.iter().for_each(|t| v(*t, Early));
            }
            Inst::Limit { dst, of } => {
                of.registers(g);
                g(*dst, Def);
            }
            Inst::Prefetch { mem, .. } => g(mem.base, Use),
            Inst::Const { dst, .. } => v(*dst, Def),
            Inst::Move { dst, src, .. } => {
                v(*src, Use);
                v(*dst, Def);
            }
            Inst::Load { dst, mem, .. } | Inst::Splat { dst, mem, .. } => {
                g(mem.base, Use);
                v(*dst, Def);
            }
            Inst::LoadPacked { dst, from, .. } => {
                from.registers(v, g);
                v(*dst, Def);
            }
            Inst::LoadStrided { dst, mem, tmp, .. } => {
                g(mem.base, Use);
                v(*tmp, Early);
                v(*dst, Early);
            }
            Inst::LoadScattered { dst, from, tmp, .. } => {
                from.registers(g);
                tmp.iter().for_each(|t| v(*t, Early));
                v(*dst, Early);
            }
            Inst::LoadPieces { dst, pieces, .. } => {
                pieces.iter().for_each(|m| g(m.base, Use));
                v(*dst, Def);
            }
            Inst::Unpack { dst, a, b, .. } | Inst::Shift { dst, a, b, .. } => {
                v(*a, Use);
                v(*b, Use);
                v(*dst, Def);
            }
            Inst::Bin { dst, a, b, .. } => {
                v(*a, Use);
                b.registers(v, g);
                v(*dst, Def);
            }
            Inst::Fma { dst, a, b, c, .. } => {
                v(*a, Use);
                b.registers(v, g);
                c.registers(v, g);
                v(*dst, Def);
            }
            Inst::Sign { dst, a, .. } | Inst::Pow2 { dst, a, .. } => {
                v(*a, Use);
                v(*dst, Def);
            }
            Inst::Select { dst, a, b, t, e, tmp, .. } => {
                v(*a, Use);
                b.registers(v, g);
                v(*t, Use);
                v(*e, Use);
                tmp.iter().for_each(|t| v(*t, Early));
                v(*dst, Def);
            }
            Inst::Permute { dst, a, b, .. } => {
                v(*a, Use);
                v(*b, Use);
                v(*dst, Early);
            }
            Inst::Interleave { dst, parts, tmp, .. } => {
                parts.iter().for_each(|p| v(*p, Use));
                tmp.iter().for_each(|t| v(*t, Early));
                v(*dst, Early);
            }
            Inst::StorePacked { src, to, .. } => {
                v(*src, Use);
                to.registers(v, g);
            }
            Inst::StoreScattered { src, to, .. } => {
                v(*src, Use);
                to.registers(g);
            }
            Inst::StoreTurned { parts, to, tmps, .. } => {
                parts.iter().for_each(|p| v(*p, Use));
                to.registers(g);
                tmps.iter().for_each(|t| v(*t, Early));
            }
            Inst::StoreScalar { src, mem } => {
                v(*src, Use);
                g(mem.base, Use);
            }
        }
    }
}

impl Src {
    fn registers(&self, v: &mut impl FnMut(V, Role), g: &mut impl FnMut(G, Role)) {
        match self {
            Src::Reg(r) => v(*r, Role::Use),
            Src::Full(m) | Src::Splat(m) => g(m.base, Role::Use),
            Src::Const(_) => {}
        }
    }
}

impl IntExpr {
    fn registers(&self, g: &mut impl FnMut(G, Role)) {
        for (t, _) in &self.terms {
            match t {
                IntTerm::Arg(_) => {}
                IntTerm::Reg(r) | IntTerm::Table(_, r) => g(*r, Role::Use),
                IntTerm::Product(a, b) | IntTerm::TableProduct(_, a, b) => {
                    g(*a, Role::Use);
                    g(*b, Role::Use);
                }
            }
        }
    }
}

impl Window {
    fn registers(&self, g: &mut impl FnMut(G, Role)) {
        self.lo.registers(g);
        self.hi.registers(g);
    }
}

impl Bound {
    fn registers(&self, g: &mut impl FnMut(G, Role)) {
        if let Bound::Reg(r, _) = self {
            g(*r, Role::Use)
        }
    }
}

impl Packed {
    fn registers(&self, v: &mut impl FnMut(V, Role), g: &mut impl FnMut(G, Role)) {
        g(self.mem.base, Role::Use);
        self.window.iter().for_each(|w| w.registers(g));
        self.mask.iter().for_each(|m| v(*m, Role::Early));
    }
}

impl Scattered {
    fn registers(&self, g: &mut impl FnMut(G, Role)) {
        g(self.mem.base, Role::Use);
        if let Pitch::Reg(r) = self.pitch {
            g(r, Role::Use)
        }
        self.window.iter().for_each(|w| w.registers(g));
    }
}
