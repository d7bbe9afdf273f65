//! What a function is translated to before it runs: names have become positions, symbols numbers.
//!
//! - Every loop has its own *slot*, the position of its variable. Every index expression without a division is an
//!   entry of one list, kept up to date as slots change ([`Updates`]), so reading an index is one load.
//! - Registers, constants and temporaries share one flat file of elements; a place in it is a [`Loc`].
//! - Values have become instructions of at most three operands; memory is read and written by `Load` and `Store` only.

use crate::ir::{BinOp, BufferKind, CmpOp, UnOp};

/// The value of an index expression, at the time it is asked for.
#[derive(Debug, Clone)]
pub(super) enum Ix {
    /// An entry of the list of expressions.
    At(usize),
    /// `base + Σ coef · floor(inside / by)`; evaluated when asked, since guards skip most of them.
    Div(Box<Divisions>),
}

/// `base + Σ coef · floor(inside / by)`.
#[derive(Debug, Clone)]
pub(super) struct Divisions {
    pub base: Ix,
    /// `(inside, by, coef)`
    pub parts: Vec<(Ix, i64, i64)>,
}

/// What an expression of the list is a sum of, besides its constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Term {
    /// The variable in a slot.
    Slot(usize),
    /// `table[variable in a slot]`.
    Table(usize, usize),
}

/// What follows when the variable in a slot changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Updates {
    /// `(expression, coefficient)`
    pub linear: Vec<(usize, i64)>,
    /// `(expression, table, coefficient)`
    pub tables: Vec<(usize, usize, i64)>,
}

/// A buffer with its extents known.
#[derive(Debug)]
pub(super) struct BufferInfo {
    pub name: String,
    pub kind: BufferKind,
    pub dims: Vec<i64>,
    /// Distance in elements between neighbours along each dimension.
    pub strides: Vec<i64>,
    /// Number of elements.
    pub len: usize,
}

/// A place in the element file.
#[derive(Debug, Clone)]
pub(super) enum Loc {
    Fixed(usize),
    /// An entry of a register array: its position in the list of registers, and its indices.
    Entry(usize, Vec<Ix>),
}

/// An operand: where its lane 0 is, and the distance between its lanes (0 if it is broadcast).
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub at: Loc,
    pub step: usize,
}

/// A register or register array in the element file.
#[derive(Debug)]
pub(super) struct RegInfo {
    pub name: String,
    pub dims: Vec<usize>,
    pub lanes: usize,
    pub base: usize,
}

/// A range of coordinates outside which lanes are not touched.
#[derive(Debug)]
pub(super) struct ClipIx {
    pub lo: Vec<Ix>,
    pub hi: Vec<Ix>,
}

/// Lanes of an access.
#[derive(Debug)]
pub(super) struct LanesIx {
    pub dim: usize,
    pub count: usize,
    pub step: i64,
    pub clip: Option<ClipIx>,
}

/// An index along one dimension, with what it must stay below and how far apart neighbours are.
#[derive(Debug)]
pub(super) struct DimIx {
    pub ix: Ix,
    pub extent: i64,
    pub stride: i64,
}

/// A place in a buffer. `index` is as long as the buffer has dimensions.
#[derive(Debug)]
pub(super) struct AccessIx {
    pub buffer: usize,
    pub index: Vec<DimIx>,
    pub lanes: Option<LanesIx>,
}

/// A condition.
#[derive(Debug)]
pub(super) enum CondIx {
    Range { lo: Ix, e: Ix, hi: Ix },
    Multiple { e: Ix, m: i64 },
}

/// One step. `n` is the number of lanes written. `Forget` fills scratch buffers with NaN.
#[derive(Debug)]
pub(super) enum Inst {
    For { slot: usize, lo: Vec<Ix>, hi: Vec<Ix>, step: i64, body: Vec<Inst> },
    When { conds: Vec<CondIx>, body: Vec<Inst> },
    Forget,
    Load { to: Loc, from: AccessIx },
    Store { to: AccessIx, parts: Vec<Operand> },
    Copy { n: usize, to: Loc, a: Operand },
    Fma { n: usize, to: Loc, args: [Operand; 3] },
    Bin { op: BinOp, n: usize, to: Loc, args: [Operand; 2] },
    Un { op: UnOp, n: usize, to: Loc, a: Operand },
    Select { cmp: CmpOp, n: usize, to: Loc, args: [Operand; 4] },
}

/// A function bound to the values of its symbols.
#[derive(Debug)]
pub(super) struct Program {
    pub buffers: Vec<BufferInfo>,
    pub regs: Vec<RegInfo>,
    pub tables: Vec<(String, Vec<i64>)>,
    /// The variable of each slot, for messages.
    pub slots: Vec<String>,
    pub updates: Vec<Updates>,
    /// Values of the expressions while every slot holds 0.
    pub start: Vec<i64>,
    /// Size of the element file.
    pub file: usize,
    /// Constants and where they are in the element file.
    pub consts: Vec<(usize, f64)>,
    pub prepare: Vec<Inst>,
    pub run: Vec<Inst>,
}
