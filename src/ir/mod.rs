//! The intermediate representation: one small structured loop nest for every stage.
//!
//! ```text
//! func   := name, stage, elem, symbols, counts, buffers, tables, registers, prepare: stmt*, run: stmt*
//! stmt   := for var in lo..hi step s [par|unroll] { stmt* }     lo is the largest of its bounds, hi the least
//!         | when cond and cond … { stmt* }
//!         | tile name { stmt* }                                 a leaf region; wide code generation takes it whole
//!         | reg[index] = value
//!         | buffer[index] = value                               lanes, interleaved parts and a clip are optional
//! value  := const | reg[index] | buffer[index] | fma(a, b, c) | a op b | f(a) | select(a cmp b, t, e)
//! index  := affine in loop variables, symbols, their products, and table entries; floor division up to stage `form` only
//! cond   := lo <= index < hi | index % m == 0
//! ```
//!
//! *Names are identity.* A variable, symbol, buffer, table or register is its name; there are no
//! hidden ids, so what is printed is all there is. Loop variables carry their role in their name
//! (see [`names`]).
//!
//! *Lanes.* A register has `lanes` (1 = scalar) and constant dimensions (a register array is indexed by
//! variables of `unroll` loops only). A scalar operand meets a vector operand by broadcast.
//!
//! *Order.* Statements run in order, loops upward; each `fma` rounds once, every other operation
//! rounds by itself. `par` and `unroll` mark loops whose iterations may run in any order or be
//! written out; they mean the same as a plain loop.

pub mod affine;
mod build;
mod lex;
pub mod names;
pub mod parse;
pub mod print;
pub mod verify;

pub use affine::{Affine, Atom};
pub use parse::parse;
pub use verify::{Diagnostic, verify};

use internment::Intern;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The name of a variable, symbol, buffer, table or register. Each text is kept once, for as long as the process runs: a name is a reference to it,
/// and equal names are the same reference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(Intern<String>);

impl Name {
    /// The text of the name.
    pub fn as_str(&self) -> &'static str {
        Intern::<String>::as_ref(self.0)
    }
    /// The name that these make one after the other.
    pub fn joined(parts: &[&str]) -> Self {
        let text: SmallVec<[u8; 32]> = parts.iter().flat_map(|part| part.bytes()).collect();
        std::str::from_utf8(&text).expect("whole texts one after the other").into()
    }
}
impl From<&str> for Name {
    fn from(s: &str) -> Self {
        Name(Intern::from_ref(s))
    }
}
impl From<String> for Name {
    fn from(s: String) -> Self {
        s.as_str().into()
    }
}
impl From<&Name> for Name {
    fn from(s: &Name) -> Self {
        *s
    }
}
impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        if self == other { Ordering::Equal } else { self.as_str().cmp(other.as_str()) }
    }
}
impl Hash for Name {
    /// As its text, which stands for it in look-ups.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}
impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An element type of buffers and registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elem {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Elem {
    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Elem::F32 => 4,
            Elem::F64 => 8,
        }
    }
    /// `f32` or `f64`.
    pub fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::F64 => "f64",
        }
    }
}

/// How far a function has been lowered. Each stage permits fewer or more constructs; `verify` checks them.
///
/// | stage | what it adds or forbids |
/// |---|---|
/// | `Naive` | floor division and `% ==` conditions are legal up to `Form` only |
/// | `Form` | the same; scatter nests have no congruence left; scratch buffers appear |
/// | `Phases` | from here on indices are affine and conditions are ranges; counts appear |
/// | `Panel` | input panels with a zero halo, products of a symbol and a variable |
/// | `Tile` | `tile` regions, `unroll` loops, register arrays, packed buffers and a `prepare` section appear |
/// | `Vector` | lanes, interleaved parts and clips appear |
/// | `Lowered` | no `tanh`/`sigmoid`, and no `fma` if the target lacks it |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Stage {
    Naive,
    Form,
    Phases,
    Panel,
    Tile,
    Vector,
    Lowered,
}

/// A function: the whole computation of one layer at one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Func {
    /// What the function is called in dumps.
    pub name: Name,
    /// How far it has been lowered.
    pub stage: Stage,
    /// The type in which registers compute.
    pub elem: Elem,
    /// Extents known at run time only (≥ 0), in the order in which callers give them.
    pub symbols: Vec<Name>,
    /// Symbols that are worked out from those before them, before anything runs.
    pub counts: Vec<Count>,
    /// Every buffer, with the caller's first: input, weight, bias (if any), output.
    pub buffers: Vec<Buffer>,
    /// Constant integer tables, indexed by a loop variable.
    pub tables: Vec<Table>,
    /// Registers and register arrays.
    pub regs: Vec<Reg>,
    /// Runs once, when the kernel is made: fills the `Packed` buffers from the weights. It uses no symbols.
    pub prepare: Vec<Stmt>,
    /// Runs per inference. Only the outermost, perfectly nested loops may be `par`: they are what threads share out.
    pub run: Vec<Stmt>,
}

/// A symbol that is worked out from others.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub of: CountOf,
}

/// What a count is; never negative.
#[derive(Debug, Clone, PartialEq)]
pub enum CountOf {
    /// An extent is cut into units, the last of which may overhang, and these as evenly as possible into as few parts as there can be with at most `most` units
    /// each: the units of the largest part.
    Even {
        /// What is cut; affine in symbols.
        extent: Affine,
        /// The size of a unit, at least 1.
        unit: i64,
        /// The most units of a part, at least 1.
        most: i64,
    },
    /// How much of an extent is covered by whole units, if what is left at the end is none of them unless it exceeds `rest`: a multiple of `unit`, which
    /// may overhang.
    Whole {
        /// What is covered; affine in symbols.
        extent: Affine,
        /// The size of a unit, at least 1.
        unit: i64,
        /// The most that may be left over, below `unit` and at least 0.
        rest: i64,
    },
    /// How many units an extent is cut into, the last of which may overhang.
    Units {
        /// What is cut; affine in symbols.
        extent: Affine,
        /// The size of a unit, at least 1.
        unit: i64,
    },
    /// The product of two symbols.
    Product(Name, Name),
}

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BufferKind {
    /// The input tensor `x`, read only.
    Input,
    /// The weight tensor `w`, read only; after packing only `prepare` reads it.
    Weight,
    /// The bias vector, read only.
    Bias,
    /// The output tensor `y`.
    Output,
    /// Written by `prepare` only, kept by the kernel.
    Packed,
    /// Working memory of one thread; its contents do not outlive one iteration of the `par` loops.
    Scratch,
}

/// A dense multi-dimensional array.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: BufferKind,
    /// What it stores.
    pub elem: Elem,
    /// Logical extents, affine in symbols only.
    pub dims: Vec<Affine>,
    /// The order of the dimensions in memory, outermost first: a permutation of `0..dims.len()`.
    pub order: Vec<usize>,
}

/// A constant table of integers, `name[var]`, with `0 <= var < values.len()`.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: Name,
    /// Its entries.
    pub values: Vec<i64>,
}

/// A register or register array of the function's element type.
#[derive(Debug, Clone, PartialEq)]
pub struct Reg {
    /// Its name.
    pub name: Name,
    /// Lanes of each entry; 1 is a scalar.
    pub lanes: usize,
    /// Extents of the array; empty for a single register. Indexed by constants and `unroll` variables only.
    pub dims: Vec<usize>,
}

/// How the iterations of a loop are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoopKind {
    /// One after the other, counted.
    Seq,
    /// Independent; the outermost, perfectly nested loops of `run` only. Bounds are single affine expressions in symbols.
    Par,
    /// Written out by code generation; bounds are constants (they may use outer `unroll` variables and tables of them).
    Unroll,
}

/// `for var in max(lo)..min(hi) step step*times`.
#[derive(Debug, Clone, PartialEq)]
pub struct Loop {
    /// The variable it binds; no enclosing loop may bind the same name.
    pub var: Name,
    /// Lower bounds; the largest counts. Never empty.
    pub lo: Vec<Affine>,
    /// Upper bounds (exclusive); the least counts. Never empty. No iteration if it is not above the lower bound.
    pub hi: Vec<Affine>,
    /// The increment, at least 1.
    pub step: i64,
    /// A symbol by which the increment is multiplied; of `par` loops only.
    pub times: Option<Name>,
    /// How iterations are carried out.
    pub kind: LoopKind,
    /// The body.
    pub body: Vec<Stmt>,
}

/// A condition on indices.
#[expect(clippy::large_enum_variant, reason = "nearly every condition is a range")]
#[derive(Debug, Clone, PartialEq)]
pub enum Cond {
    /// `lo <= e < hi`.
    Range {
        /// Lower bound.
        lo: Affine,
        /// What is tested.
        e: Affine,
        /// Upper bound, exclusive.
        hi: Affine,
    },
    /// `e % m == 0`, with `m >= 1`: the congruence guard of the naive stage.
    Multiple {
        /// What is tested.
        e: Affine,
        /// The modulus.
        m: i64,
    },
}

/// The lanes of a vector access: lane `j` is at coordinate `index[dim] + step * j` of dimension `dim`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lanes {
    /// The dimension along which lanes lie.
    pub dim: usize,
    /// How many lanes.
    pub count: usize,
    /// Distance between lanes along `dim`, at least 1.
    pub step: i64,
    /// Lanes (and parts) whose coordinate along `dim` lies outside `max(lo)..min(hi)` are not touched: a load
    /// gives 0 there, a store leaves memory alone. `None`: every lane is inside the buffer.
    pub clip: Option<Clip>,
}

/// A range of coordinates, `max(lo)..min(hi)`; neither list is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Lower bounds.
    pub lo: Vec<Affine>,
    /// Upper bounds, exclusive.
    pub hi: Vec<Affine>,
}

/// A place in a buffer: one element, or several lanes.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Which buffer.
    pub buffer: Name,
    /// One affine index per dimension; of lane 0 if there are lanes.
    pub index: Vec<Affine>,
    /// `None` is one scalar element.
    pub lanes: Option<Lanes>,
}

/// Operations on two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// `if a > b { a } else { b }`: with a NaN the result is `b`.
    Max,
    /// `if a < b { a } else { b }`: with a NaN the result is `b`.
    Min,
}

/// Operations on one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnOp {
    /// Flips the sign bit.
    Neg,
    /// Clears the sign bit.
    Abs,
    /// `2^a` for an integer-valued `a` in the exponent range of normal numbers; anything else is a bug of the pass that made it
    /// (the bits are then those of the integer arithmetic: `((a + 1.5·2^m) as bits << m) + bits(1.0)`, `m` the mantissa width).
    Pow2,
    /// Hyperbolic tangent; replaced by polynomials before code generation.
    Tanh,
    /// `1 / (1 + e^-a)`; replaced by polynomials before code generation.
    Sigmoid,
}

/// Comparisons; all are false with a NaN, except `Ne`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum CmpOp {
    Lt,
    Le,
    Eq,
    Ne,
}

/// A value of the function's element type, scalar or vector.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A constant; it is rounded to the element type.
    Const(f64),
    /// A register, or an entry of a register array.
    Reg(Name, Vec<Affine>),
    /// An element or lanes of a buffer.
    Load(Access),
    /// `a * b + c`, rounded once.
    Fma(Box<[Value; 3]>),
    /// An operation on two values.
    Bin(BinOp, Box<[Value; 2]>),
    /// An operation on one value.
    Un(UnOp, Box<Value>),
    /// `if a cmp b { t } else { e }`, lane by lane; the array is `[a, b, t, e]`. Both arms are evaluated.
    Select(CmpOp, Box<[Value; 4]>),
}

/// A part of a buffer that somebody will read next, so that its cache lines are asked for now. It changes no value; what lies outside the buffer is legal, and
/// a code generator may ignore it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Which buffer.
    pub buffer: Name,
    /// First index and end, for each dimension.
    pub ranges: Vec<(Affine, Affine)>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Stmt {
    /// A loop.
    For(Loop),
    /// The body runs if all conditions hold.
    When {
        /// The conditions, joined by *and*.
        conds: Vec<Cond>,
        /// The body.
        body: Vec<Stmt>,
    },
    /// A leaf region: register arrays, `unroll` loops, counted reduction loops, loads, stores. No loop inside is
    /// `par`, and bounds of its counted loops do not depend on `unroll` variables.
    Tile {
        /// Named by its shape, such as `x-6x2x2`.
        name: Name,
        /// What it asks memory for while it runs.
        asks: Option<Ask>,
        /// The body.
        body: Vec<Stmt>,
    },
    /// `reg[index] = value`. A scalar value is broadcast to the register's lanes.
    Set {
        /// The register.
        reg: Name,
        /// Constants and affine expressions of `unroll` variables.
        index: Vec<Affine>,
        /// What is assigned.
        value: Value,
    },
    /// `buffer[index] = value`. Several parts are interleaved: part `i`, lane `j` goes to coordinate
    /// `index[dim] + i + step * j`; then `parts.len() <= step`.
    Store {
        /// Where to.
        to: Access,
        /// One value, or several interleaved ones.
        parts: Vec<Value>,
        /// Bypass the caches (non-temporal), if the target can.
        stream: bool,
    },
}
