//! Random tiles: nested counted and unrolled loops, conditions, registers that live across them, every kind of access.
//!
//! Indices stay inside the buffers by construction: each variable is below 3 and every extent leaves room for the sums used.

use super::shapes::*;
use polyphase::ir::*;

/// Extents of both buffers; the middle one may be a symbol of the same value.
const DIMS: [i64; 3] = [12, 24, 40];
/// Lanes of vector registers.
const LANES: [usize; 6] = [2, 4, 7, 8, 16, 24];

pub struct Random {
    state: u64,
    lanes: usize,
    elem: Elem,
    /// Variables in scope.
    vars: Vec<String>,
    fresh: usize,
}

/// A function with one tile inside a loop over `o`, made from a seed; symbol `N` must be 24.
pub fn random(elem: Elem, seed: u64) -> Func {
    let mut r = Random { state: seed * 2 + 1, lanes: 1, elem, vars: vec!["o".into()], fresh: 0 };
    r.lanes = LANES[r.below(LANES.len() as u64) as usize];
    r.func()
}

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) % n
    }

    fn func(&mut self) -> Func {
        let open = self.below(2) == 0;
        let dims = [c(DIMS[0]), if open { sym("N") } else { c(DIMS[1]) }, c(DIMS[2])];
        let mut buffers = vec![buffer("a", BufferKind::Input, self.elem, &dims), buffer("y", BufferKind::Output, self.elem, &dims)];
        for b in &mut buffers {
            let k = self.below(3) as usize;
            b.order.rotate_left(k);
        }
        let regs = vec![reg("acc", self.lanes, &[3]), reg("v", self.lanes, &[]), reg("s", 1, &[2])];
        let mut body = Vec::new();
        for i in 0..3 {
            body.push(Stmt::Set { reg: "acc".into(), index: vec![c(i)], value: self.value(0, true) });
        }
        body.push(Stmt::set("v", Value::Load(self.access("a", true))));
        for i in 0..2 {
            body.push(Stmt::Set { reg: "s".into(), index: vec![c(i)], value: Value::Load(self.access("a", false)) });
        }
        body.extend(self.block(0));
        for i in 0..3 {
            let parts = vec![Value::Reg("acc".into(), vec![c(i)])];
            body.push(Stmt::Store { to: self.access("y", true), parts, stream: i == 0 });
        }
        let mut f = func(self.elem, &["N"], buffers, regs, vec![seq("o", 3, vec![tile("random", body)])]);
        f.tables.push(Table { name: "T".into(), values: vec![2, 0, 1] });
        f
    }

    fn block(&mut self, depth: u32) -> Vec<Stmt> {
        (0..2 + self.below(4)).map(|_| self.stmt(depth)).collect()
    }

    fn stmt(&mut self, depth: u32) -> Stmt {
        match self.below(if depth < 3 { 12 } else { 7 }) {
            0..=2 => {
                let index = vec![c(self.below(3) as i64)];
                Stmt::Set { reg: "acc".into(), index, value: self.value(2, true) }
            }
            3 => Stmt::set("v", self.value(2, true)),
            4 => Stmt::Set { reg: "s".into(), index: vec![c(self.below(2) as i64)], value: self.value(2, false) },
            5 => self.store(),
            6 => Stmt::Store { to: self.access("y", false), parts: vec![self.value(1, false)], stream: false },
            7..=9 => self.seq_loop(depth),
            10 => {
                let var = self.name();
                self.vars.push(var.clone());
                let body = self.block(depth + 1);
                self.vars.pop();
                unroll(&var, 2, body)
            }
            _ => {
                let cond = Cond::Range { lo: c(1), e: self.affine(), hi: c(1 + self.below(5) as i64) };
                Stmt::When { conds: vec![cond], body: self.block(depth + 1) }
            }
        }
    }

    fn seq_loop(&mut self, depth: u32) -> Stmt {
        let var = self.name();
        let (mut lo, mut hi) = (vec![c(self.below(2) as i64)], vec![c(3)]);
        match self.below(5) {
            0 => hi.push(self.affine()),
            1 => lo.push(self.affine()),
            2 => hi = vec![sym("N") - 21],
            _ => {}
        }
        if self.below(4) == 0 {
            let n = self.vars.len() as u64;
            let at = self.below(n) as usize;
            let v = self.vars[at].clone();
            lo = vec![Affine::var(v)];
        }
        self.vars.push(var.clone());
        let body = self.block(depth + 1);
        self.vars.pop();
        Stmt::For(Loop { lo, hi, step: 1 + self.below(2) as i64, ..Loop::new(var.as_str(), 0, body) })
    }

    fn name(&mut self) -> String {
        self.fresh += 1;
        format!("i{}", self.fresh)
    }

    /// At least 0 and at most 7.
    fn affine(&mut self) -> Affine {
        let n = self.vars.len() as u64;
        let (a, b) = (self.below(n) as usize, self.below(n) as usize);
        let (a, b) = (self.vars[a].clone(), self.vars[b].clone());
        match self.below(5) {
            0 => c(self.below(6) as i64),
            1 => Affine::var(a) + 1,
            2 => Affine::var(a) + Affine::var(b),
            3 => Affine::var(a) * 2 + Affine::table("T", b) + 1,
            _ => Affine::table("T", a) + Affine::var(b) * 2,
        }
    }

    fn access(&mut self, buffer: &str, vector: bool) -> Access {
        let mut index = vec![self.affine(), self.affine(), self.affine()];
        if !vector {
            return Access::at(buffer, index);
        }
        let dim = self.below(3) as usize;
        let step = if self.below(2) == 0 { 1 } else { 1 + self.below(3) as i64 };
        let end = if dim == 1 { sym("N") } else { c(DIMS[dim]) };
        let fits = 7 + step * self.lanes as i64 <= DIMS[dim];
        let mut hi = vec![end];
        if self.below(2) == 0 {
            hi.push(self.affine() * 3 + 2);
        }
        let mut lo = vec![c(0)];
        if self.below(3) == 0 {
            lo.push(self.affine());
        }
        let clip = if fits && self.below(2) == 0 { None } else { Some(Clip { lo, hi }) };
        if clip.is_some() {
            index[dim] = std::mem::take(&mut index[dim]) * 2 - 5;
        }
        lanes(buffer, index, dim, self.lanes, step, clip)
    }

    fn store(&mut self) -> Stmt {
        let to = self.access("y", true);
        let parts = to.lanes.as_ref().map_or(1, |l| l.step);
        let parts = if self.below(2) == 0 { 1 } else { parts };
        // Parts beyond the last lane's coordinate stay inside the extent: `access` counts a whole step for each lane.
        Stmt::Store { to, parts: (0..parts).map(|_| self.value(1, true)).collect(), stream: self.below(3) == 0 }
    }

    fn value(&mut self, depth: u32, vector: bool) -> Value {
        if depth == 0 || self.below(4) == 0 {
            return match self.below(3) {
                0 => Value::Load(self.access("a", vector && self.fresh.is_multiple_of(2))),
                1 => Value::Const(0.25),
                _ => Value::Load(self.access("y", false)),
            };
        }
        let registers = self.below(2) == 0;
        let leaf = |r: &mut Self| match (registers, vector) {
            (true, true) if r.below(3) == 0 => Value::reg("v"),
            (true, true) => Value::Reg("acc".into(), vec![c(r.below(3) as i64)]),
            (true, false) => Value::Reg("s".into(), vec![c(r.below(2) as i64)]),
            _ => r.value(depth - 1, vector),
        };
        let (a, b, d) = (leaf(self), leaf(self), leaf(self));
        match self.below(8) {
            0 => Value::bin(BinOp::Add, a, b),
            1 => Value::bin(BinOp::Sub, a, b),
            2 => Value::bin(BinOp::Max, a, b),
            3 => Value::bin(BinOp::Min, a, b),
            4 => Value::un(UnOp::Neg, a),
            5 => Value::select(CmpOp::Lt, a.clone(), b.clone(), b, d),
            _ => Value::fma(a, Value::bin(BinOp::Min, b, Value::Const(0.5)), d),
        }
    }
}
