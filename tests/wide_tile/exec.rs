//! Runs functions with tiles, statement by statement or with the tiles as raw code, on buffers between guard pages.
//!
//! The evaluator is written from the IR's documentation alone. Buffers end (or begin) at a page without access, so that any touch
//! outside is a crash, not a wrong number.

use polyphase::codegen::wide::{TileArg, WideIsa, WideTile, emit};
use polyphase::ir::*;
use std::collections::HashMap;
use std::ffi::{c_int, c_long, c_void};

unsafe extern "C" {
    fn mmap(addr: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
    fn mprotect(addr: *mut c_void, len: usize, prot: c_int) -> c_int;
    fn munmap(addr: *mut c_void, len: usize) -> c_int;
}
const PAGE: usize = 4096;

/// Pages of memory.
pub struct Pages {
    at: *mut u8,
    len: usize,
}

impl Pages {
    /// Readable and writable pages with one page without access on each side.
    pub fn guarded(bytes: usize) -> Pages {
        let len = bytes.div_ceil(PAGE) * PAGE + 2 * PAGE;
        // SAFETY: a new private mapping; nothing else knows its address.
        let at = unsafe { mmap(std::ptr::null_mut(), len, 3, 0x22, -1, 0) } as *mut u8;
        assert!(at as isize != -1, "mmap of {len} bytes");
        // SAFETY: the first and the last page of the mapping just made.
        unsafe {
            assert_eq!(mprotect(at.cast(), PAGE, 0), 0);
            assert_eq!(mprotect(at.add(len - PAGE).cast(), PAGE, 0), 0);
        }
        Pages { at, len }
    }
    /// Code, made executable.
    pub fn code(bytes: &[u8]) -> Pages {
        let p = Pages::guarded(bytes.len());
        // SAFETY: the inner pages are writable and long enough; nothing else uses them.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p.start(), bytes.len());
            assert_eq!(mprotect(p.start().cast(), p.len - 2 * PAGE, 5), 0);
        }
        p
    }
    pub fn start(&self) -> *mut u8 {
        self.at.wrapping_add(PAGE)
    }
    fn end(&self) -> *mut u8 {
        self.at.wrapping_add(self.len - PAGE)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `guarded`, no longer used.
        unsafe { munmap(self.at.cast(), self.len) };
    }
}

/// An element type.
pub trait Num: Copy + PartialOrd + std::fmt::Debug + 'static {
    fn of(v: f64) -> Self;
    fn bits(self) -> u64;
    fn fma(self, b: Self, c: Self) -> Self;
    fn bin(op: BinOp, a: Self, b: Self) -> Self;
    fn un(op: UnOp, a: Self) -> Self;
}

macro_rules! num {
    ($t:ident, $m:expr) => {
        impl Num for $t {
            fn of(v: f64) -> Self {
                v as $t
            }
            fn bits(self) -> u64 {
                self.to_bits() as u64
            }
            fn fma(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            fn bin(op: BinOp, a: Self, b: Self) -> Self {
                match op {
                    BinOp::Add => a + b,
                    BinOp::Sub => a - b,
                    BinOp::Mul => a * b,
                    BinOp::Div => a / b,
                    BinOp::Max => {
                        if a > b {
                            a
                        } else {
                            b
                        }
                    }
                    BinOp::Min => {
                        if a < b {
                            a
                        } else {
                            b
                        }
                    }
                }
            }
            fn un(op: UnOp, a: Self) -> Self {
                match op {
                    UnOp::Neg => -a,
                    UnOp::Abs => a.abs(),
                    UnOp::Pow2 => {
                        let t: $t = a + 1.5 * (2.0 as $t).powi($m);
                        $t::from_bits((t.to_bits() << $m).wrapping_add((1.0 as $t).to_bits()))
                    }
                    _ => unreachable!("replaced before tiles are emitted"),
                }
            }
        }
    };
}
num!(f32, 23);
num!(f64, 52);

/// Where a buffer lies against its guard pages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Against {
    Start,
    End,
}

/// The memory of a buffer: its pages, its first element, extents and strides in elements.
type Held<T> = (Pages, *mut T, Vec<i64>, Vec<i64>);

/// A function with memory for its buffers.
pub struct Machine<'f, T> {
    func: &'f Func,
    pub syms: HashMap<String, i64>,
    buffers: HashMap<String, Held<T>>,
    regs: HashMap<(String, Vec<i64>), Vec<T>>,
    vars: HashMap<String, i64>,
    /// Raw code of each tile, by the tile's name.
    native: HashMap<String, (WideTile, Pages)>,
    on: bool,
}

impl<'f, T: Num> Machine<'f, T> {
    /// Allocates the buffers and fills them with the same random numbers each time.
    pub fn new(func: &'f Func, syms: &[(&str, i64)], against: Against) -> Self {
        let syms: HashMap<String, i64> = syms.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        let mut m =
            Machine { func, syms, buffers: HashMap::new(), regs: HashMap::new(), vars: HashMap::new(), native: HashMap::new(), on: false };
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for b in &func.buffers {
            let dims: Vec<i64> = b.dims.iter().map(|d| m.eval(d)).collect();
            let mut strides = vec![0; dims.len()];
            let mut n = 1;
            for &d in b.order.iter().rev() {
                strides[d] = n;
                n *= dims[d];
            }
            let bytes = n as usize * size_of::<T>();
            let pages = Pages::guarded(bytes);
            let at: *mut T = if against == Against::Start { pages.start() } else { pages.end().wrapping_sub(bytes) }.cast();
            for i in 0..n as usize {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // SAFETY: within the pages just mapped.
                unsafe { at.add(i).write(T::of((seed >> 40) as f64 / (1 << 23) as f64 - 1.0)) };
            }
            m.buffers.insert(b.name.to_string(), (pages, at, dims, strides));
        }
        m
    }

    /// Emits every tile, which is then called instead of evaluated.
    pub fn compile(&mut self, isa: WideIsa) -> polyphase::Result<()> {
        let mut tiles = Vec::new();
        self.func.run.iter().for_each(|s| {
            s.visit(&mut |s| {
                if let Stmt::Tile { name, .. } = s {
                    tiles.push((name.to_string(), s.clone()))
                }
            })
        });
        for (name, t) in tiles {
            let wide = emit(self.func, &t, isa)?;
            let pages = Pages::code(&wide.code);
            self.native.insert(name, (wide, pages));
        }
        self.on = true;
        Ok(())
    }

    pub fn tile(&self, name: &str) -> &WideTile {
        &self.native[name].0
    }

    pub fn run(&mut self) {
        let func = self.func;
        self.stmts(&func.run);
    }

    /// The bits of a buffer.
    pub fn bits(&self, name: &str) -> Vec<u64> {
        let (_, at, dims, _) = &self.buffers[name];
        // SAFETY: the buffer has as many elements as its dimensions say.
        (0..dims.iter().product::<i64>() as usize).map(|i| unsafe { at.add(i).read() }.bits()).collect()
    }

    fn eval(&self, a: &Affine) -> i64 {
        a.eval(&mut |atom| match atom {
            Atom::Sym(s) => self.syms[s.as_str()],
            Atom::Var(v) => self.vars[v.as_str()],
            Atom::Table(t, v) => self.func.find_table(t.as_str()).expect("table").values[self.vars[v.as_str()] as usize],
            Atom::Scaled(..) | Atom::Div(..) => unreachable!("evaluated by Affine"),
        })
    }

    /// The arguments of a tile as its caller evaluates them.
    pub fn args(&self, tile: &WideTile) -> Vec<i64> {
        tile.args
            .iter()
            .map(|a| match a {
                TileArg::Address(a) => {
                    let (_, at, _, strides) = &self.buffers[a.buffer.as_str()];
                    let off: i64 = a.index.iter().zip(strides).map(|(i, s)| self.eval(i) * s).sum();
                    *at as i64 + off * size_of::<T>() as i64
                }
                TileArg::Int(a) => self.eval(a),
                TileArg::IntMax(v) => v.iter().map(|a| self.eval(a)).max().expect("bounds"),
                TileArg::IntMin(v) => v.iter().map(|a| self.eval(a)).min().expect("bounds"),
                TileArg::Stride { buffer, dim } => self.buffers[buffer.as_str()].3[*dim] * size_of::<T>() as i64,
            })
            .collect()
    }

    /// Calls a tile once with the variables as they are.
    pub fn call(&self, name: &str, args: &[i64]) {
        // SAFETY: the code was emitted for this machine's ISA, and the arguments are its own, evaluated in order.
        let f: extern "C" fn(*const i64) = unsafe { std::mem::transmute(self.native[name].1.start()) };
        f(args.as_ptr());
    }

    pub fn bind(&mut self, var: &str, v: i64) {
        self.vars.insert(var.into(), v);
    }

    fn stmts(&mut self, body: &[Stmt]) {
        body.iter().for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) {
        match s {
            Stmt::For(l) => {
                let lo = l.lo.iter().map(|a| self.eval(a)).max().expect("bounds");
                let hi = l.hi.iter().map(|a| self.eval(a)).min().expect("bounds");
                let mut i = lo;
                while i < hi {
                    self.bind(l.var.as_str(), i);
                    self.stmts(&l.body);
                    i += l.step;
                }
            }
            Stmt::When { conds, body } => {
                let holds = conds.iter().all(|c| match c {
                    Cond::Range { lo, e, hi } => (self.eval(lo)..self.eval(hi)).contains(&self.eval(e)),
                    Cond::Multiple { e, m } => self.eval(e) % m == 0,
                });
                if holds {
                    self.stmts(body)
                }
            }
            Stmt::Tile { name, .. } if self.on => {
                let args = self.args(&self.native[name.as_str()].0);
                self.call(name.as_str(), &args);
            }
            Stmt::Tile { body, .. } => self.stmts(body),
            Stmt::Set { reg, index, value } => {
                let lanes = self.func.find_reg(reg.as_str()).expect("register").lanes;
                let v = self.value(value, lanes);
                let key = (reg.to_string(), index.iter().map(|a| self.eval(a)).collect());
                self.regs.insert(key, v);
            }
            Stmt::Store { to, parts, .. } => {
                let lanes = to.lanes.as_ref().map_or(1, |l| l.count);
                let parts: Vec<Vec<T>> = parts.iter().map(|p| self.value(p, lanes)).collect();
                for (i, p) in parts.iter().enumerate() {
                    for (j, v) in p.iter().enumerate() {
                        if let Some(at) = self.address(to, j as i64, i as i64) {
                            // SAFETY: `address` checks the index against the dimensions.
                            unsafe { at.write(*v) }
                        }
                    }
                }
            }
        }
    }

    fn address(&self, a: &Access, lane: i64, part: i64) -> Option<*mut T> {
        let mut index: Vec<i64> = a.index.iter().map(|i| self.eval(i)).collect();
        if let Some(l) = &a.lanes {
            index[l.dim] += part + l.step * lane;
            if let Some(c) = &l.clip {
                let lo = c.lo.iter().map(|b| self.eval(b)).max().expect("bounds");
                let hi = c.hi.iter().map(|b| self.eval(b)).min().expect("bounds");
                if !(lo..hi).contains(&index[l.dim]) {
                    return None;
                }
            }
        }
        let (_, at, dims, strides) = &self.buffers[a.buffer.as_str()];
        for (i, d) in index.iter().zip(dims) {
            assert!((0..*d).contains(i), "{index:?} is outside {} of {dims:?}", a.buffer);
        }
        Some(at.wrapping_offset(index.iter().zip(strides).map(|(i, s)| i * s).sum::<i64>() as isize))
    }

    fn value(&self, v: &Value, lanes: usize) -> Vec<T> {
        let zip = |a: &Value, b: &Value| self.value(a, lanes).into_iter().zip(self.value(b, lanes));
        match v {
            Value::Const(c) => vec![T::of(*c); lanes],
            Value::Reg(name, index) => {
                let v = &self.regs[&(name.to_string(), index.iter().map(|a| self.eval(a)).collect())];
                if v.len() == 1 { vec![v[0]; lanes] } else { v.clone() }
            }
            // SAFETY: `address` checks the index against the dimensions.
            Value::Load(a) if a.lanes.is_none() => vec![unsafe { self.address(a, 0, 0).expect("a scalar has no clip").read() }; lanes],
            Value::Load(a) => {
                // SAFETY: as above.
                (0..lanes as i64).map(|j| self.address(a, j, 0).map_or(T::of(0.0), |p| unsafe { p.read() })).collect()
            }
            Value::Fma(v) => zip(&v[0], &v[1]).zip(self.value(&v[2], lanes)).map(|((a, b), c)| a.fma(b, c)).collect(),
            Value::Bin(op, v) => zip(&v[0], &v[1]).map(|(a, b)| T::bin(*op, a, b)).collect(),
            Value::Un(op, v) => self.value(v, lanes).into_iter().map(|a| T::un(*op, a)).collect(),
            Value::Select(op, v) => {
                let arms = zip(&v[2], &v[3]);
                let pick = |((a, b), (t, e)): ((T, T), (T, T))| {
                    let c = match op {
                        CmpOp::Lt => a < b,
                        CmpOp::Le => a <= b,
                        CmpOp::Eq => a == b,
                        CmpOp::Ne => a != b,
                    };
                    if c { t } else { e }
                };
                zip(&v[0], &v[1]).zip(arms).map(pick).collect()
            }
        }
    }
}
