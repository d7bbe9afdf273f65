//! Wide tiles for x86-64: one `tile` region as raw AVX2 or AVX-512 machine code.
//!
//! Four steps, in files of these names: `tree` writes `unroll` loops out and resolves index expressions into pointers and
//! displacements; `select` (with `loops`, `asks`, `guards`, `masks`, `values`, `strided`, `overlap` and `stores`) makes a linear program over virtual registers (`inst`); `alloc` gives them
//! places; `encode` (with `vector`, `lanes`, `masked` and `link`) turns it into bytes with iced-x86.
//!
//! Needs a tile of stage `vector` or `lowered` that keeps its registers to itself. Leaves a function
//! `extern "C" fn(args: *const i64)` in the System V convention, position independent, which never unwinds. Its caller
//! evaluates [`WideTile::args`] in order and passes a pointer to them. The result agrees with the interpreter to the bit.
//!
//! ```text
//! zmm0-31 / ymm0-15   IR registers and temporaries, by live range      k1  the mask of the moment, k2-k7 those that are kept
//! rdi                 the arguments, all through                        rsi  a pointer that lives in the frame
//! rax rcx rdx         scratch of one instruction                        r8-r11 rbx rbp r12-r15  pointers, counters, bounds
//! ```
//!
//! The main loop of `x-6x2x2` comes out as the sketches have it: six loads of shifted rows, then for each channel, phase and tap one
//! `vbroadcastss` and two `vfmadd231ps`, at the end two `add`, `dec`, `jg`.

#![cfg(target_arch = "x86_64")]

mod alloc;
mod asks;
mod encode;
mod guards;
mod inst;
mod lanes;
mod link;
mod loops;
mod masked;
mod masks;
mod order;
mod overlap;
mod select;
mod stores;
mod strided;
mod tree;
mod turned;
mod values;
mod vector;

use crate::ir::{Affine, Func, Name, Stmt};
use crate::{Kind, Result};
use inst::Width;

/// The instruction sets for which tiles can be emitted. A value that [`WideIsa::detect`] gave is proof that the machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WideIsa {
    /// 16 registers of 32 bytes; AVX2, FMA and BMI2.
    Avx2,
    /// 32 registers of 64 bytes; AVX-512 F, VL, DQ and BW, and BMI2.
    Avx512,
}

impl WideIsa {
    /// AVX2, if this machine has it.
    pub fn avx2() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        all.then_some(WideIsa::Avx2)
    }
    /// AVX-512, if this machine has it.
    pub fn avx512() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        (all && Self::avx2().is_some()).then_some(WideIsa::Avx512)
    }
    /// The widest of the two that this machine has.
    pub fn detect() -> Option<Self> {
        Self::avx512().or_else(Self::avx2)
    }
    /// `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            WideIsa::Avx2 => "avx2",
            WideIsa::Avx512 => "avx512",
        }
    }
    /// Bytes of a vector register.
    pub fn vector_bytes(self) -> usize {
        self.width().bytes()
    }
    /// Vector registers in the file.
    pub fn registers(self) -> usize {
        match self {
            WideIsa::Avx2 => 16,
            WideIsa::Avx512 => 32,
        }
    }
    /// Statements that a loop of sums should have. Where two multiply-adds begin each cycle, what is done once an iteration, such as counting, moving
    /// pointers and asking for what comes next, takes its share of the instructions that a core begins: 2 % of the time of AVX2's tiles of 12 accumulators
    /// on Zen 4, which begins one of 512 bits a cycle and has time for the rest.
    fn at_a_time(self) -> usize {
        match self {
            WideIsa::Avx2 => 56,
            WideIsa::Avx512 => 0,
        }
    }
    fn width(self) -> Width {
        match self {
            WideIsa::Avx2 => Width::Y,
            WideIsa::Avx512 => Width::Z,
        }
    }
}

/// The machine code of a tile.
#[derive(Debug, Clone)]
pub struct WideTile {
    /// Position-independent code and its constants; the entry is the first byte.
    pub code: Vec<u8>,
    /// What the caller stores in the array that it passes, one `i64` each.
    pub args: Vec<TileArg>,
    /// What the tile uses.
    pub notes: Budget,
}

/// One argument of a tile; it uses no variable that the tile binds.
#[derive(Debug, Clone, PartialEq)]
pub enum TileArg {
    /// The address of an element. The index may lie outside the buffer (the tile adds the rest): evaluate with wrapping arithmetic.
    Address(AddressArg),
    /// An integer.
    Int(Affine),
    /// The largest of several integers.
    IntMax(Vec<Affine>),
    /// The least of several integers.
    IntMin(Vec<Affine>),
    /// The distance in bytes between neighbours along a dimension of a buffer.
    Stride {
        /// Which buffer.
        buffer: Name,
        /// Which of its dimensions.
        dim: usize,
    },
}

/// The invariant part of an address.
#[derive(Debug, Clone, PartialEq)]
pub struct AddressArg {
    /// Which buffer.
    pub buffer: Name,
    /// One index per dimension.
    pub index: Vec<Affine>,
}

/// What a tile uses of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Vector registers of IR registers that live through a counted loop.
    pub accumulators: usize,
    /// Most vector registers of other IR registers in use at once.
    pub vectors: usize,
    /// Most vector registers of intermediate results in use at once.
    pub temporaries: usize,
    /// Most vector registers in use at once.
    pub peak: usize,
    /// Vector registers there are.
    pub file: usize,
    /// Most integer registers wanted at once.
    pub pointers: usize,
    /// Of these, how many live in the stack frame.
    pub spilled: usize,
    /// Bytes of the stack frame, saved registers not counted.
    pub frame_bytes: usize,
    /// Bytes of code and constants.
    pub code_bytes: usize,
    /// Whether there are non-temporal stores. If so, the caller must execute `sfence` (or `mfence`) before other threads or
    /// ordinary Rust code read what the tiles wrote; once after the last tile is enough.
    pub streams: bool,
}

/// Distances, in statements, over which a broadcast scalar is kept in a register. Less sharing needs fewer registers, but a
/// broadcast for every fma costs a load each: on a Zen 5 the tile x-6x2x2 runs at 98 % of the peak with sharing, at 78 % without.
const REACHES: [usize; 4] = [8, 3, 1, 0];

/// What is tried in turn until the registers suffice: vectors that overlap, shifted out of lines; then a distance, and whether stores are turned and
/// interleaved in pairs, which takes registers for the shuffles; all of that with stores that are written twice, once for tiles that do not leave the output, and
/// without, since what both store waits until the second. Stores come once a tile, and the loads of AVX2 once a step, where no operand can be a broadcast from memory.
fn attempts(isa: WideIsa) -> impl Iterator<Item = Attempt> {
    let (turned, plain) = match isa {
        WideIsa::Avx2 => (&REACHES[..3], &REACHES[..]),
        WideIsa::Avx512 => (&REACHES[..], &REACHES[3..]),
    };
    let attempt = |reach: usize, turns, shifts| Attempt { reach, turns, shifts, wholes: true };
    let shifted = (isa == WideIsa::Avx512).then(|| attempt(REACHES[0], true, true));
    let turned = turned.iter().map(move |reach| attempt(*reach, true, false));
    let all = shifted.into_iter().chain(turned).chain(plain.iter().map(move |reach| attempt(*reach, false, false)));
    all.flat_map(|a| [a, Attempt { wholes: false, ..a }])
}

/// What is tried.
#[derive(Clone, Copy)]
struct Attempt {
    /// Over how many statements a scalar stays in a register.
    reach: usize,
    /// Whether stores are turned and interleaved in pairs.
    turns: bool,
    /// Whether vectors that overlap are shifted out of lines, which wait in registers as long as they are used.
    shifts: bool,
    /// Whether stores that may leave their windows are written twice.
    wholes: bool,
}

/// The registers that a tile needs, without encoding it: `code_bytes`, `frame_bytes` and `spilled` are 0.
/// The tile fits if `peak <= file`.
///
/// # Errors
/// As [`emit`], except that a tile which needs too many registers is not an error here.
pub fn budget(func: &Func, tile: &Stmt, isa: WideIsa) -> Result<Budget> {
    let mut tree = tree::resolve(func, tile, isa.at_a_time())?;
    let mut last = Budget::default();
    for attempt in attempts(isa) {
        last = alloc::measure(&select::select(func, &mut tree, isa, attempt)?, isa)?;
        if last.peak <= last.file {
            break;
        }
    }
    Ok(last)
}

/// Emits a tile.
///
/// # Errors
/// `Options` if the tile needs more vector registers than there are (the sentence names both numbers) or unrolls without bound;
/// `Ir` if it breaks an invariant of its stage; `Codegen` if an address or the assembler's limits are exceeded.
pub fn emit(func: &Func, tile: &Stmt, isa: WideIsa) -> Result<WideTile> {
    let mut tree = tree::resolve(func, tile, isa.at_a_time())?;
    let mut failed = None;
    for attempt in attempts(isa) {
        let program = select::select(func, &mut tree, isa, attempt)?;
        match alloc::allocate(&program, isa, encode::POINTERS) {
            Ok(places) => return encode::encode(func, tree.args, &program, &places, isa),
            Err(e) if e.kind == Kind::Options => failed = Some(e),
            Err(e) => return Err(e),
        }
    }
    let e = failed.expect("something was tried");
    match tile {
        Stmt::Tile { name, .. } => Err(e.context(format!("tile {name}"))),
        _ => Err(e),
    }
}
