//! Last step: bytes. This file holds the frame, control flow and integers; [`super::vector`] and [`super::lanes`] the rest.
//!
//! ```text
//! [rsp +  0]  64 bytes, aligned: lanes on their way to or from scattered places     \
//! [rsp + 64]  bounds and step of such an access while it is masked (3 x 8)           } only if there is such an access, or a mask
//! [rsp + 88]  the caller's rsp                                                      /
//! [rsp + 96]  masks that are kept, 32 bytes each (AVX2)
//! [rsp + ..]  pointers and counters that found no register, 8 bytes each
//! ```

use super::alloc::{Loc, Places};
use super::inst::*;
use super::link::link;
use super::select::Program;
use super::{Budget, TileArg, WideIsa, WideTile};
use crate::ir::{Elem, Func, Table};
use crate::{Error, Kind, Result};
use iced_x86::code_asm::*;
use iced_x86::{IcedError, Instruction};
use rustc_hash::FxHashMap as HashMap;

/// Registers for pointers and counters; those that need not be saved come first.
const ALLOCATABLE: [AsmRegister64; POINTERS] = [r8, r9, r10, r11, rbx, rbp, r12, r13, r14, r15];
/// Their lower 32 bits.
const LOWER: [AsmRegister32; POINTERS] = [r8d, r9d, r10d, r11d, ebx, ebp, r12d, r13d, r14d, r15d];
/// How many there are.
pub(super) const POINTERS: usize = 10;
/// Those of them, by index from here on, that belong to the caller.
const FIRST_SAVED: usize = 4;
/// Bytes of the frame used by scattered accesses.
const LANE_FRAME: i32 = 96;
/// Bytes of a mask in the frame.
const MASK: i32 = 32;
/// Where the lower bound, the upper bound and the byte step of a masked scattered access are kept.
pub(super) const AT_LO: i32 = 64;
pub(super) const AT_HI: i32 = 72;
pub(super) const AT_STEP: i32 = 80;
const AT_RSP: i32 = 88;

/// Where the lower 32 bits of an integer are.
pub(super) enum Low {
    Reg(AsmRegister32),
    Mem(AsmMemoryOperand),
}

/// What assembling gives.
pub(super) type Done<T = ()> = std::result::Result<T, IcedError>;

/// Constants behind the code, each once.
#[derive(Default)]
pub(super) struct Pool {
    entries: Vec<(Vec<u8>, CodeLabel)>,
}

impl Pool {
    pub(super) fn label(&mut self, asm: &mut CodeAssembler, bytes: Vec<u8>) -> CodeLabel {
        if let Some((_, l)) = self.entries.iter().find(|e| e.0 == bytes) {
            return *l;
        }
        let label = asm.create_label();
        self.entries.push((bytes, label));
        label
    }
}

pub(super) struct Encoder<'a> {
    pub asm: CodeAssembler,
    pub places: &'a Places,
    pub elem: Elem,
    pub isa: WideIsa,
    pub pool: Pool,
    tables: &'a [Table],
    /// Where frame slots begin.
    slots_at: i32,
    frame: i32,
    aligned: bool,
    saved: Vec<AsmRegister64>,
    /// Top and end of each region.
    regions: HashMap<usize, (CodeLabel, CodeLabel)>,
}

/// Encodes a program whose registers have places.
pub(super) fn encode(func: &Func, args: Vec<TileArg>, p: &Program, places: &Places, isa: WideIsa) -> Result<WideTile> {
    let assembled = assemble(func, p, places, isa).and_then(|(code, frame)| Ok((link(&code)?, frame)));
    let (code, frame) = assembled.map_err(|e| Error::new(Kind::Codegen, format!("assembling a tile: {e}")))?;
    let notes = Budget { frame_bytes: frame, code_bytes: code.len(), ..places.budget };
    Ok(WideTile { code, args, notes })
}

fn assemble(func: &Func, p: &Program, places: &Places, isa: WideIsa) -> Done<(Vec<Instruction>, usize)> {
    let mut asm = CodeAssembler::new(64)?;
    asm.set_prefer_vex(isa == WideIsa::Avx2);
    asm.set_prefer_short_branch(false);
    // Lanes go through the frame one by one.
    let through = |i: &Inst| match i {
        Inst::LoadScattered { .. } | Inst::StoreScattered { .. } | Inst::StoreTurned { .. } => true,
        Inst::StorePacked { to, w, .. } => isa == WideIsa::Avx2 && (to.window.is_some() || to.active * func.elem.bytes() < w.bytes()),
        _ => false,
    };
    let kept = |i: &Inst| match i {
        Inst::Mask { to, .. } if isa == WideIsa::Avx2 => *to as i32 + 1,
        _ => 0,
    };
    let masks = p.code.iter().map(kept).max().unwrap_or(0);
    let aligned = masks > 0 || p.code.iter().any(through);
    let slots_at = if aligned { LANE_FRAME + MASK * masks } else { 0 };
    let used = |r: usize| places.g.contains(&Loc::Reg(r));
    let saved = (FIRST_SAVED..POINTERS).filter(|&r| used(r)).map(|r| ALLOCATABLE[r]).collect();
    let mut e = Encoder {
        asm,
        places,
        elem: func.elem,
        isa,
        pool: Pool::default(),
        tables: &func.tables,
        slots_at,
        frame: slots_at + 8 * places.budget.spilled as i32,
        aligned,
        saved,
        regions: HashMap::default(),
    };
    e.prologue()?;
    for inst in &p.code {
        e.inst(inst)?;
    }
    e.epilogue()?;
    e.constants()?;
    Ok((e.asm.take_instructions(), e.frame as usize))
}

impl Encoder<'_> {
    fn prologue(&mut self) -> Done {
        for r in self.saved.clone() {
            self.asm.push(r)?;
        }
        if self.aligned {
            self.asm.mov(rax, rsp)?;
            self.asm.sub(rsp, self.frame)?;
            self.asm.and(rsp, -64)?;
            self.asm.mov(qword_ptr(rsp + AT_RSP), rax)?;
        } else if self.frame > 0 {
            self.asm.sub(rsp, self.frame)?;
        }
        Ok(())
    }

    fn epilogue(&mut self) -> Done {
        if self.aligned {
            self.asm.mov(rsp, qword_ptr(rsp + AT_RSP))?;
        } else if self.frame > 0 {
            self.asm.add(rsp, self.frame)?;
        }
        for r in self.saved.clone().into_iter().rev() {
            self.asm.pop(r)?;
        }
        self.asm.vzeroupper()?;
        self.asm.ret()
    }

    fn constants(&mut self) -> Done {
        for (bytes, mut label) in std::mem::take(&mut self.pool.entries) {
            self.here(&mut label)?;
            for part in bytes.chunks(16) {
                self.asm.db(part)?;
            }
        }
        Ok(())
    }

    /// Places a label; several may share an address.
    pub(super) fn here(&mut self, label: &mut CodeLabel) -> Done {
        self.asm.set_label(label)?;
        self.asm.zero_bytes()
    }

    fn inst(&mut self, i: &Inst) -> Done {
        match i {
            Inst::LoopBegin { id, count, check } => self.loop_begin(*id, *count, *check),
            Inst::LoopEnd { id, count, step } => self.loop_end(*id, *count, *step),
            Inst::WhenBegin { id, conds, .. } => {
                let end = self.asm.create_label();
                self.regions.insert(*id, (end, end));
                for Test { of: c, most } in conds {
                    if let Some(most) = *most {
                        // As an unsigned number, what is negative is above all others.
                        self.eval(c)?;
                        self.asm.cmp(rax, most)?;
                        self.asm.ja(end)?;
                        continue;
                    }
                    let bound = match c.terms[..] {
                        [(IntTerm::Arg(a), 1)] => Some(Bound::Arg(a, 0)),
                        [(IntTerm::Reg(g), 1)] => Some(Bound::Reg(g, 0)),
                        _ => None,
                    };
                    match (bound, c.add.checked_neg()) {
                        (Some(bound), Some(least)) => self.cmp_bound(bound, least)?,
                        _ => {
                            self.eval(c)?;
                            self.asm.test(rax, rax)?;
                        }
                    }
                    self.asm.jl(end)?;
                }
                Ok(())
            }
            Inst::WhenElse { id } => {
                let (_, mut other) = self.regions[id];
                let end = self.asm.create_label();
                self.asm.jmp(end)?;
                self.regions.insert(*id, (end, end));
                self.here(&mut other)
            }
            Inst::WhenEnd { id } => {
                let (_, mut end) = self.regions[id];
                self.here(&mut end)
            }
            Inst::Int { dst, expr } => self.int(*dst, expr),
            Inst::Extreme { dst, exprs, max } => self.extreme(*dst, exprs, *max),
            Inst::Mask { to, active, window, tmp } => self.keep_mask(*to, *active, *window, tmp.map(|t| self.places.v[t])),
            Inst::Limit { dst, of } => {
                self.limit(*of)?;
                self.put(*dst)
            }
            Inst::Prefetch { mem, ask } => {
                let m = self.mem(*mem)?;
                let m = byte_ptr(m);
                match ask {
                    Ask::Read => self.asm.prefetcht0(m),
                    Ask::ReadLater => self.asm.prefetcht1(m),
                    Ask::Write => self.asm.prefetchw(m),
                }
            }
            Inst::AddImm { dst, by } => self.add_imm(*dst, *by),
            Inst::AddReg { dst, by } => {
                self.get(rax, *by)?;
                match self.places.g[*dst] {
                    Loc::Reg(r) => self.asm.add(ALLOCATABLE[r], rax),
                    Loc::Slot(s) => self.asm.add(self.slot(s), rax),
                }
            }
            other => self.vector(other),
        }
    }

    // Control

    fn loop_begin(&mut self, id: usize, count: G, check: bool) -> Done {
        let (mut top, end) = (self.asm.create_label(), self.asm.create_label());
        if check {
            match self.places.g[count] {
                Loc::Reg(r) => self.asm.test(ALLOCATABLE[r], ALLOCATABLE[r])?,
                Loc::Slot(s) => self.asm.cmp(self.slot(s), 0)?,
            }
            self.asm.jle(end)?;
        }
        self.here(&mut top)?;
        self.regions.insert(id, (top, end));
        Ok(())
    }

    fn loop_end(&mut self, id: usize, count: G, step: i64) -> Done {
        let (top, mut end) = self.regions[&id];
        match (self.places.g[count], step) {
            (Loc::Reg(r), 1) => self.asm.dec(ALLOCATABLE[r])?,
            (Loc::Slot(s), 1) => self.asm.dec(self.slot(s))?,
            _ => self.add_imm(count, -step)?,
        }
        self.asm.jg(top)?;
        self.here(&mut end)
    }

    // Integers

    fn slot(&self, s: usize) -> AsmMemoryOperand {
        qword_ptr(rsp + (self.slots_at + 8 * s as i32))
    }

    /// Where the frame keeps a mask of AVX2.
    pub(super) fn kept_at(&self, mask: usize) -> AsmMemoryOperand {
        ptr(rsp + (LANE_FRAME + MASK * mask as i32))
    }

    pub(super) fn arg(&self, slot: usize) -> AsmMemoryOperand {
        qword_ptr(rdi + 8 * slot as i32)
    }

    /// Copies an integer register to a machine register.
    pub(super) fn get(&mut self, to: AsmRegister64, g: G) -> Done {
        match self.places.g[g] {
            Loc::Reg(r) => self.asm.mov(to, ALLOCATABLE[r]),
            Loc::Slot(s) => self.asm.mov(to, self.slot(s)),
        }
    }

    /// The lower 32 bits of an integer register.
    pub(super) fn low(&self, g: G) -> Low {
        match self.places.g[g] {
            Loc::Reg(r) => Low::Reg(LOWER[r]),
            Loc::Slot(s) => Low::Mem(dword_ptr(self.slot(s))),
        }
    }

    /// The machine register with a pointer in it: its own, or `rsi` if it lives in the frame.
    pub(super) fn base(&mut self, g: G) -> Done<AsmRegister64> {
        match self.places.g[g] {
            Loc::Reg(r) => Ok(ALLOCATABLE[r]),
            Loc::Slot(s) => {
                self.asm.mov(rsi, self.slot(s))?;
                Ok(rsi)
            }
        }
    }

    fn add_imm(&mut self, dst: G, by: i64) -> Done {
        let to = self.places.g[dst];
        match (i32::try_from(by), to) {
            (Ok(by), Loc::Reg(r)) => self.asm.add(ALLOCATABLE[r], by),
            (Ok(by), Loc::Slot(s)) => self.asm.add(self.slot(s), by),
            (Err(_), _) => {
                self.asm.mov(rax, by)?;
                match to {
                    Loc::Reg(r) => self.asm.add(ALLOCATABLE[r], rax),
                    Loc::Slot(s) => self.asm.add(self.slot(s), rax),
                }
            }
        }
    }

    fn int(&mut self, dst: G, expr: &IntExpr) -> Done {
        if let (Loc::Reg(r), [(IntTerm::Arg(a), 1)], 0) = (self.places.g[dst], &expr.terms[..], expr.add) {
            return self.asm.mov(ALLOCATABLE[r], self.arg(*a));
        }
        if let (Loc::Reg(r), [(IntTerm::Reg(g), 1)], 0) = (self.places.g[dst], &expr.terms[..], expr.add) {
            return self.get(ALLOCATABLE[r], *g);
        }
        self.eval(expr)?;
        self.put(dst)
    }

    /// Stores `rax` into an integer register.
    fn put(&mut self, dst: G) -> Done {
        match self.places.g[dst] {
            Loc::Reg(r) => self.asm.mov(ALLOCATABLE[r], rax),
            Loc::Slot(s) => self.asm.mov(self.slot(s), rax),
        }
    }

    fn extreme(&mut self, dst: G, exprs: &[IntExpr], max: bool) -> Done {
        for (i, e) in exprs.iter().enumerate() {
            self.eval(e)?;
            if i > 0 {
                self.get(rdx, dst)?;
                self.asm.cmp(rdx, rax)?;
                match max {
                    true => self.asm.cmovg(rax, rdx)?,
                    false => self.asm.cmovl(rax, rdx)?,
                }
            }
            self.put(dst)?;
        }
        Ok(())
    }

    /// Evaluates an expression into `rax`; `rdx` and `rcx` are overwritten.
    pub(super) fn eval(&mut self, e: &IntExpr) -> Done {
        // What is subtracted comes after something that it can be subtracted from.
        let negative = |t: &&(IntTerm, i64)| t.1 == -1;
        let terms = e.terms.iter().filter(|t| !negative(t)).chain(e.terms.iter().filter(negative));
        let mut started = false;
        for (term, coef) in terms {
            if let (true, IntTerm::Arg(_) | IntTerm::Reg(_), 1 | -1) = (started, term, coef) {
                self.add_term(*term, *coef < 0)?;
                continue;
            }
            let to = if started { rdx } else { rax };
            match *term {
                IntTerm::Arg(a) => {
                    let m = self.arg(a);
                    self.asm.mov(to, m)?
                }
                IntTerm::Reg(g) => self.get(to, g)?,
                IntTerm::Table(t, g) => self.table(to, t, g)?,
                IntTerm::Product(a, b) => {
                    self.get(to, a)?;
                    self.get(rcx, b)?;
                    self.asm.imul_2(to, rcx)?;
                }
                IntTerm::TableProduct(t, a, b) => {
                    self.table(to, t, a)?;
                    self.get(rcx, b)?;
                    self.asm.imul_2(to, rcx)?;
                }
            }
            match i32::try_from(*coef) {
                Ok(1) => {}
                Ok(-1) => self.asm.neg(to)?,
                Ok(c) => self.asm.imul_3(to, to, c)?,
                Err(_) => {
                    self.asm.mov(rcx, *coef)?;
                    self.asm.imul_2(to, rcx)?;
                }
            }
            if started {
                self.asm.add(rax, rdx)?;
            }
            started = true;
        }
        match i32::try_from(e.add) {
            // The upper half becomes 0.
            Ok(c @ 0..) if !started => self.asm.mov(eax, c),
            _ if !started => self.asm.mov(rax, e.add),
            Ok(0) => Ok(()),
            Ok(c) => self.asm.add(rax, c),
            Err(_) => {
                self.asm.mov(rdx, e.add)?;
                self.asm.add(rax, rdx)
            }
        }
    }

    /// Adds an argument or a register to `rax`, or subtracts it.
    fn add_term(&mut self, term: IntTerm, subtracts: bool) -> Done {
        let from = match term {
            IntTerm::Arg(a) => Err(self.arg(a)),
            IntTerm::Reg(g) => match self.places.g[g] {
                Loc::Reg(r) => Ok(ALLOCATABLE[r]),
                Loc::Slot(s) => Err(self.slot(s)),
            },
            _ => unreachable!("what is computed is added from a register"),
        };
        match (from, subtracts) {
            (Ok(r), false) => self.asm.add(rax, r),
            (Ok(r), true) => self.asm.sub(rax, r),
            (Err(m), false) => self.asm.add(rax, m),
            (Err(m), true) => self.asm.sub(rax, m),
        }
    }

    /// `table[g]` into a machine register; `rcx` is overwritten.
    fn table(&mut self, to: AsmRegister64, t: usize, g: G) -> Done {
        let bytes = self.tables[t].values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let label = self.pool.label(&mut self.asm, bytes);
        self.asm.lea(rcx, ptr(label))?;
        self.get(to, g)?;
        self.asm.mov(to, qword_ptr(rcx + to * 8))
    }

    /// A bound into a machine register.
    pub(super) fn bound(&mut self, to: AsmRegister64, b: Bound) -> Done {
        let add = match b {
            Bound::Const(c) => return self.asm.mov(to, c),
            Bound::Arg(a, add) => {
                let m = self.arg(a);
                self.asm.mov(to, m)?;
                add
            }
            Bound::Reg(g, add) => {
                self.get(to, g)?;
                add
            }
        };
        match i32::try_from(add) {
            Ok(0) => Ok(()),
            Ok(c) => self.asm.add(to, c),
            Err(_) => {
                self.asm.mov(rcx, add)?;
                self.asm.add(to, rcx)
            }
        }
    }

    /// Compares a bound that is not constant with a number: sets the flags of `bound - number`. May overwrite `rax` and `rcx`.
    pub(super) fn cmp_bound(&mut self, b: Bound, number: i64) -> Done {
        let direct = match b {
            Bound::Const(_) => None,
            Bound::Arg(a, add) => i32::try_from(number - add).ok().map(|n| (self.arg(a), n)),
            Bound::Reg(g, add) => match (self.places.g[g], i32::try_from(number - add)) {
                (Loc::Reg(r), Ok(n)) => return self.asm.cmp(ALLOCATABLE[r], n),
                (Loc::Slot(s), Ok(n)) => Some((self.slot(s), n)),
                _ => None,
            },
        };
        if let Some((m, n)) = direct {
            return self.asm.cmp(m, n);
        }
        self.bound(rax, b)?;
        self.asm.mov(rcx, number)?;
        self.asm.cmp(rax, rcx)
    }
}
