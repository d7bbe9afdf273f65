//! Code generation by Cranelift: drivers, packing, edges on every target, and tiles of 128-bit vectors.
//!
//! *Needs* a verified function in which no `tanh`/`sigmoid` is left (any stage does otherwise). *Leaves* a [`Native`]: a function for
//! `run` and one for `prepare`, both with the signature
//!
//! ```text
//! extern "C" fn(buffers: *const *mut u8, symbols: *const i64, lo: i64, hi: i64)
//! ```
//!
//! `buffers` has the base address of every buffer of the function, in order; `lo..hi` are the iterations of the `par` loops, numbered
//! with the innermost running fastest, that this call carries out (without `par` loops there is one).
//!
//! Loops are counted, rotated (tested at the end); `unroll` loops are written out. What an address owes to outer loops is computed before the
//! inner loop starts (`address.rs`). Vectors wider than 128 bits are several values (`value.rs`).

mod address;
mod memory;
mod stmt;
#[cfg(target_arch = "x86_64")]
mod tile;
mod value;

use super::target::Isa;
use crate::ir::{Affine, Func, Loop, LoopKind, Name, Stage, Stmt};
use crate::passes::nest::peel;
use crate::{Error, Kind, Result};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self as clif, AbiParam, InstBuilder, Signature, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, default_libcall_names};
use rustc_hash::FxHashMap as HashMap;

/// Bytes of address space that the code of one function may take. Nothing is committed before it is used; pieces that the system placed for themselves
/// could lie further apart than a call reaches.
const RESERVED: usize = 16 << 20;

/// Native code of a section.
pub type Entry = unsafe extern "C" fn(*const *mut u8, *const i64, i64, i64);

/// The native code of one function. Dropping it returns its pages.
pub struct Native {
    module: Option<JITModule>,
    /// `prepare`, if there is anything to pack.
    pub prepare: Option<Entry>,
    /// `run`.
    pub run: Entry,
    /// The pieces of code, for dumps: name, Cranelift IR if Cranelift made it, machine code.
    pub pieces: Vec<Piece>,
}

/// One function of the native code.
pub struct Piece {
    /// What it is called.
    pub name: String,
    /// Cranelift's IR, if it was asked for; empty for tiles that are our own machine code.
    pub clif: String,
    /// The machine code before relocation.
    pub code: Vec<u8>,
}

// SAFETY: the module is only kept to own the pages; after `finalize_definitions` nothing mutates it until it is dropped, and the
// code it holds has no state of its own, so it may be called from any thread.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

impl Drop for Native {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the entries are only called through this object, which is going away; no call can be under way.
            unsafe { module.free_memory() };
        }
    }
}

impl Native {
    /// Bytes of machine code in all.
    pub fn code_bytes(&self) -> usize {
        self.pieces.iter().map(|p| p.code.len()).sum()
    }
}

/// Compiles a function for a level of this machine.
///
/// # Errors
/// [`Kind::Codegen`] if Cranelift refuses, [`Kind::Options`] if a tile does not fit the level's registers.
pub fn compile(func: &Func, isa: Isa) -> Result<Native> {
    build(func, isa, false)
}

/// The same, with Cranelift's IR as text in [`Piece::clif`].
///
/// # Errors
/// As [`compile`].
pub fn compile_with_text(func: &Func, isa: Isa) -> Result<Native> {
    build(func, isa, true)
}

fn build(func: &Func, isa: Isa, text: bool) -> Result<Native> {
    let target = isa.cranelift()?;
    let memory = ArenaMemoryProvider::new_with_size(RESERVED).map_err(|e| refused(&e))?;
    let mut builder = JITBuilder::with_isa(target, default_libcall_names());
    builder.memory_provider(Box::new(memory));
    let module = JITModule::new(builder);
    let mut unit = Unit { func, isa, text, module, pieces: Vec::new(), tables: HashMap::default() };
    unit.define_tables()?;
    let prepare = if func.prepare.is_empty() { None } else { Some(unit.function("prepare", &func.prepare)?) };
    let run = unit.function("run", &func.run)?;
    let Unit { mut module, pieces, .. } = unit;
    module.finalize_definitions().map_err(|e| refused(&e))?;
    let entry = |id: FuncId| {
        // SAFETY: the function was defined above with exactly this signature and has been finalized.
        unsafe { std::mem::transmute::<*const u8, Entry>(module.get_finalized_function(id)) }
    };
    let (prepare, run) = (prepare.map(entry), entry(run));
    Ok(Native { prepare, run, pieces, module: Some(module) })
}

fn refused(e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Codegen, format!("code generation failed: {e}"))
}

/// The module while functions are added to it.
struct Unit<'a> {
    func: &'a Func,
    isa: Isa,
    text: bool,
    module: JITModule,
    pieces: Vec<Piece>,
    tables: HashMap<Name, DataId>,
}

impl Unit<'_> {
    /// Whether tiles are machine code of their own, which takes vectors: before stage `vector` there are none, and Cranelift does tiles, too.
    fn calls_tiles(&self) -> bool {
        self.isa.wide() && self.func.stage >= Stage::Vector
    }

    fn define_tables(&mut self) -> Result<()> {
        for t in &self.func.tables {
            let id = self.module.declare_anonymous_data(false, false).map_err(|e| refused(&e))?;
            let mut data = DataDescription::new();
            data.set_align(8);
            data.define(t.values.iter().flat_map(|v| v.to_le_bytes()).collect());
            self.module.define_data(id, &data).map_err(|e| refused(&e))?;
            self.tables.insert(t.name, id);
        }
        Ok(())
    }

    fn signature(&self) -> Signature {
        let mut sig = self.module.make_signature();
        sig.params.extend([AbiParam::new(types::I64); 4]);
        sig
    }

    fn function(&mut self, name: &str, body: &[Stmt]) -> Result<FuncId> {
        let sig = self.signature();
        let id = self.module.declare_function(name, Linkage::Local, &sig).map_err(|e| refused(&e))?;
        let mut ctx = self.module.make_context();
        ctx.func.signature = sig;
        let mut fbc = FunctionBuilderContext::new();
        let config = self.module.isa().frontend_config();
        let mut emit = Emit::new(self, FunctionBuilder::new(&mut ctx.func, &mut fbc));
        emit.region(body)?;
        let b = emit.b;
        b.finalize(config);
        let clif = if self.text { ctx.func.display().to_string() } else { String::new() };
        self.module
            .define_function_with_control_plane(id, &mut ctx, &mut ControlPlane::default())
            .map_err(|e| Error::new(Kind::Codegen, format!("code generation of {name} failed: {e:?}")))?;
        let code = ctx.compiled_code().map(|c| c.code_buffer().to_vec()).unwrap_or_default();
        self.pieces.push(Piece { name: name.into(), clif, code });
        Ok(id)
    }
}

/// What a loop variable is while code is emitted.
#[derive(Clone)]
enum Bound {
    /// An iteration of a loop that is written out.
    Const(i64),
    /// A value that a loop at this depth counts.
    Value(clif::Value, usize),
}

/// One function while it is emitted.
struct Emit<'u, 'f, 'b> {
    unit: &'u mut Unit<'f>,
    b: FunctionBuilder<'b>,
    vars: HashMap<Name, Bound>,
    symbols: HashMap<Name, clif::Value>,
    bases: HashMap<Name, clif::Value>,
    strides: HashMap<Name, Vec<address::Stride>>,
    /// Registers as variables: entry, then 128-bit part.
    regs: HashMap<Name, Vec<Vec<Variable>>>,
    scopes: Vec<address::Scope>,
    tables: HashMap<Name, clif::Value>,
    /// Memory on the stack through which lanes go one by one, by bytes: each is done with before the next statement.
    slots: HashMap<usize, clif::StackSlot>,
    /// Inside a tile: the buffers that it stores to. Scalars loaded from others may be used again.
    stored: Option<Vec<Name>>,
    /// Whether a tile stores past the caches: then a fence ends the function.
    streams: bool,
}

impl<'u, 'f, 'b> Emit<'u, 'f, 'b> {
    fn new(unit: &'u mut Unit<'f>, b: FunctionBuilder<'b>) -> Self {
        Emit {
            unit,
            b,
            vars: HashMap::default(),
            symbols: HashMap::default(),
            bases: HashMap::default(),
            strides: HashMap::default(),
            regs: HashMap::default(),
            scopes: vec![address::Scope::default()],
            tables: HashMap::default(),
            slots: HashMap::default(),
            stored: None,
            streams: false,
        }
    }

    /// The whole function: a loop over the tasks, which decodes the `par` variables of each.
    fn region(&mut self, body: &[Stmt]) -> Result<()> {
        let entry = self.b.create_block();
        self.b.append_block_params_for_function_params(entry);
        self.b.switch_to_block(entry);
        self.b.seal_block(entry);
        let [buffers, symbols, lo, hi] = self.b.block_params(entry)[..] else { unreachable!("four parameters") };
        self.load_arguments(buffers, symbols)?;
        self.declare_registers();

        let (mut par, mut inner) = peel(body);
        let outermost = par.iter().take_while(|l| l.kind == LoopKind::Par).count();
        if outermost < par.len() {
            // Sequential loops below the parallel ones belong to the body.
            inner = below(body, outermost);
            par.truncate(outermost);
        }
        let trips: Vec<clif::Value> = par.iter().map(|l| self.trips(l)).collect();
        self.counted("task", lo, hi, 1, |e| {
            let mut rest = e.var("task");
            for (l, trips) in par.iter().zip(&trips).rev() {
                let index = e.b.ins().urem(rest, *trips);
                rest = e.b.ins().udiv(rest, *trips);
                let lo = e.index(&l.lo[0]);
                let step = e.step(l);
                let scaled = e.b.ins().imul(index, step);
                let v = e.b.ins().iadd(lo, scaled);
                let depth = e.scopes.len() - 1;
                e.vars.insert(l.var, Bound::Value(v, depth));
            }
            e.hoist(inner);
            e.list(inner)
        })?;
        if self.streams {
            self.b.ins().fence();
        }
        self.b.ins().return_(&[]);
        Ok(())
    }

    /// How many iterations a `par` loop has, at least 0.
    fn trips(&mut self, l: &Loop) -> clif::Value {
        let step = self.step(l);
        let span = self.index(&(l.hi[0].clone() - l.lo[0].clone() - 1));
        let span = self.b.ins().iadd(span, step);
        let zero = self.b.ins().iconst(types::I64, 0);
        let span = self.b.ins().smax(span, zero);
        self.b.ins().udiv(span, step)
    }

    /// The increment of a `par` loop.
    fn step(&mut self, l: &Loop) -> clif::Value {
        match &l.times {
            Some(symbol) => self.b.ins().imul_imm_s(self.symbols[symbol], l.step),
            None => self.b.ins().iconst(types::I64, l.step),
        }
    }

    /// The value of a variable. One that is written out is a constant, which expressions have folded already, unless it indexes a table that has no such
    /// entry: in code that does not run.
    fn var(&mut self, name: &str) -> clif::Value {
        match self.vars[name] {
            Bound::Value(v, _) => v,
            Bound::Const(c) => self.b.ins().iconst(types::I64, c),
        }
    }

    /// A rotated loop: `if lo < hi { i = lo; do { body; i += step } while i < hi }`.
    fn counted(
        &mut self,
        var: &str,
        lo: clif::Value,
        hi: clif::Value,
        step: i64,
        body: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(inside, types::I64);
        let some = self.b.ins().icmp(clif::condcodes::IntCC::SignedLessThan, lo, hi);
        self.b.ins().brif(some, inside, &[lo.into()], after, &[]);
        self.b.switch_to_block(inside);
        self.scopes.push(address::Scope::default());
        let before = self.vars.insert(var.into(), Bound::Value(i, self.scopes.len() - 1));
        body(self)?;
        let next = self.b.ins().iadd_imm_s(i, step);
        let more = self.b.ins().icmp(clif::condcodes::IntCC::SignedLessThan, next, hi);
        self.b.ins().brif(more, inside, &[next.into()], after, &[]);
        self.b.seal_block(inside);
        self.b.seal_block(after);
        self.b.switch_to_block(after);
        self.scopes.pop();
        match before {
            Some(b) => self.vars.insert(var.into(), b),
            None => self.vars.remove(var),
        };
        Ok(())
    }

    /// The expression's value, if it is known while code is emitted.
    fn constant(&self, a: &Affine) -> Option<i64> {
        a.map_atoms(&mut |atom| self.fold(atom)).as_const()
    }
}

/// The statements inside the outermost `depth` loops of a nest.
fn below(mut body: &[Stmt], depth: usize) -> &[Stmt] {
    for _ in 0..depth {
        if let [Stmt::For(l)] = body {
            body = &l.body;
        }
    }
    body
}
