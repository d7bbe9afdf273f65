//! Second step, values: loads and arithmetic, a chunk at a time. A scalar that several statements near by use is loaded once.

use super::WideIsa;
use super::inst::*;
use super::select::{Chunk, MOST_STRIDE, Selector, chunks};
use super::tree::{Place, Spread, Stride, Val};
use crate::ir::{BinOp, Elem, UnOp};
use crate::{Error, Kind, Result};

impl Selector<'_> {
    pub(super) fn set(&mut self, entry: usize, value: &Val) -> Result<()> {
        let lanes = self.tree.entries[entry];
        let all = chunks(lanes, self.size(), self.isa, self.widest);
        self.copies = all.len();
        for c in all {
            let dst = self.first[entry] + c.index;
            let v = self.value(value, lanes, c, Some(dst))?;
            if v != dst {
                self.push(Inst::Move { dst, w: c.w, src: v });
            }
        }
        Ok(())
    }

    /// Brings a chunk of a value into a register, `want` if that is of use.
    pub(super) fn value(&mut self, v: &Val, lanes: usize, c: Chunk, want: Option<V>) -> Result<V> {
        let w = c.w;
        Ok(match v {
            Val::Reg(e) => self.register(*e, lanes, c)?,
            Val::Const(x) => {
                let dst = want.unwrap_or_else(|| self.vec());
                let bits = self.bits(*x);
                self.push(Inst::Const { dst, w, bits });
                dst
            }
            Val::Load(p) => self.load(p, lanes, c, want)?,
            Val::Fma(v) => self.fma(v, lanes, c, want)?,
            Val::Bin(op, v) => {
                let (a, b) = match op {
                    BinOp::Add | BinOp::Mul if v[0].is_direct() && !v[1].is_direct() => (&v[1], &v[0]),
                    _ => (&v[0], &v[1]),
                };
                let first = want.filter(|&d| !self.reads(b, c, d));
                let a = self.value(a, lanes, c, first)?;
                let b = self.operand(b, lanes, c)?;
                let dst = want.unwrap_or_else(|| self.vec());
                self.push(Inst::Bin { op: *op, dst, w, a, b });
                dst
            }
            Val::Un(op, v) => {
                let a = self.value(v, lanes, c, want)?;
                let dst = want.unwrap_or_else(|| self.vec());
                self.push(match op {
                    UnOp::Neg => Inst::Sign { dst, w, a, clear: false },
                    UnOp::Abs => Inst::Sign { dst, w, a, clear: true },
                    UnOp::Pow2 => Inst::Pow2 { dst, w, a },
                    UnOp::Tanh | UnOp::Sigmoid => unreachable!("refused by the first step"),
                });
                dst
            }
            Val::Select(cmp, v) => {
                let [a, b, t, e] = &**v;
                let t = self.value(t, lanes, c, None)?;
                let e = self.value(e, lanes, c, None)?;
                let a = self.value(a, lanes, c, None)?;
                let b = self.operand(b, lanes, c)?;
                let tmp = (self.isa == WideIsa::Avx2).then(|| self.vec());
                let dst = want.unwrap_or_else(|| self.vec());
                self.push(Inst::Select { cmp: *cmp, dst, w, a, b, t, e, tmp });
                dst
            }
        })
    }

    pub(super) fn fma(&mut self, v: &[Val; 3], lanes: usize, ch: Chunk, want: Option<V>) -> Result<V> {
        let [a, b, c] = v;
        // The factor that is not a direct operand, or else the first, goes to a register.
        let (a, b) = if a.is_direct() && !b.is_direct() { (b, a) } else { (a, b) };
        let free = |s: &Self, rest: [&Val; 2]| want.filter(|&d| rest.iter().all(|x| !s.reads(x, ch, d)));
        let nested = !matches!(c, Val::Reg(_));
        let early = if nested && !c.is_direct() { Some(self.value(c, lanes, ch, free(self, [a, b]))?) } else { None };
        let wanted = if early.is_some() || !nested { None } else { free(self, [b, c]) };
        let ra = self.value(a, lanes, ch, wanted)?;
        let rb = self.operand(b, lanes, ch)?;
        let rc = match early {
            Some(r) => Src::Reg(r),
            None if matches!(rb, Src::Reg(_)) => self.operand(c, lanes, ch)?,
            None => Src::Reg(self.value(c, lanes, ch, None)?),
        };
        let dst = want.unwrap_or_else(|| self.vec());
        self.push(Inst::Fma { dst, w: ch.w, a: ra, b: rb, c: rc });
        Ok(dst)
    }

    /// A value as the last operand of an instruction: in memory where that is direct.
    pub(super) fn operand(&mut self, v: &Val, lanes: usize, c: Chunk) -> Result<Src> {
        match v {
            Val::Const(x) => Ok(Src::Const(self.bits(*x))),
            Val::Load(p) if p.spread.is_none() => {
                if let Some(r) = self.share(p, c)? {
                    return Ok(Src::Reg(r));
                }
                if self.isa == WideIsa::Avx512 {
                    return Ok(Src::Splat(self.mem(p, 0)?));
                }
                Ok(Src::Reg(self.splat(p)?))
            }
            Val::Load(Place { spread: Some(s), .. }) if s.is_dense(self.size()) && c.active * self.size() == c.w.bytes() => {
                let Val::Load(p) = v else { unreachable!("matched above") };
                self.check_lanes(s.count, lanes)?;
                if let Some(r) = self.share(p, c)? {
                    return Ok(Src::Reg(r));
                }
                if let Some(r) = self.shifted(p, None)? {
                    return Ok(Src::Reg(r));
                }
                Ok(Src::Full(self.mem(p, (c.lane * self.size()) as i64)?))
            }
            _ => Ok(Src::Reg(self.value(v, lanes, c, None)?)),
        }
    }

    pub(super) fn splat(&mut self, p: &Place) -> Result<V> {
        let mem = self.mem(p, 0)?;
        let (dst, w) = (self.vec(), self.widest);
        self.push(Inst::Splat { dst, w, mem });
        Ok(dst)
    }

    /// The register that holds a load for several uses, if there are any near by: a scalar, or a whole vector.
    pub(super) fn share(&mut self, p: &Place, c: Chunk) -> Result<Option<V>> {
        let (key, at) = (p.key(), self.at);
        if p.spread.is_some() && self.copies > 1 {
            return Ok(None);
        }
        let reach = if self.lines.contains(&key) { usize::MAX } else { self.reach };
        if let Some(hit) = self.shared.iter_mut().find(|s| s.0 == key && at - s.3 <= reach) {
            hit.3 = at;
            return Ok(Some(hit.2));
        }
        self.shared.retain(|s| s.0 != key);
        let near = |u: &Vec<usize>| u.iter().any(|&i| i > at && i - at <= reach);
        let later = self.copies > 1 || self.uses.get(&key).is_some_and(near);
        if !later {
            return Ok(None);
        }
        let v = match p.spread {
            None => self.splat(p)?,
            Some(_) => match self.shifted(p, None)? {
                Some(v) => v,
                None => {
                    let (mem, dst) = (self.mem(p, 0)?, self.vec());
                    self.push(Inst::Load { dst, w: c.w, mem });
                    dst
                }
            },
        };
        self.shared.push((key, p.buffer, v, at));
        Ok(Some(v))
    }

    pub(super) fn check_lanes(&self, has: usize, wants: usize) -> Result<()> {
        if has == wants {
            return Ok(());
        }
        Err(Error::new(Kind::Ir, format!("an operand of {has} lanes meets {wants} lanes; only 1 or {wants} are legal")))
    }

    pub(super) fn register(&self, e: usize, lanes: usize, c: Chunk) -> Result<V> {
        if self.tree.entries[e] == 1 {
            return Ok(self.first[e]);
        }
        self.check_lanes(self.tree.entries[e], lanes)?;
        Ok(self.first[e] + c.index)
    }

    pub(super) fn reads(&self, v: &Val, c: Chunk, d: V) -> bool {
        match v {
            Val::Const(_) | Val::Load(_) => false,
            Val::Reg(e) => {
                let of = self.first[*e] + if self.tree.entries[*e] == 1 { 0 } else { c.index };
                of == d
            }
            Val::Fma(v) => v.iter().any(|v| self.reads(v, c, d)),
            Val::Bin(_, v) => v.iter().any(|v| self.reads(v, c, d)),
            Val::Un(_, v) => self.reads(v, c, d),
            Val::Select(_, v) => v.iter().any(|v| self.reads(v, c, d)),
        }
    }

    pub(super) fn bits(&self, x: f64) -> u64 {
        match self.elem {
            Elem::F32 => (x as f32).to_bits() as u64,
            Elem::F64 => x.to_bits(),
        }
    }

    pub(super) fn load(&mut self, p: &Place, lanes: usize, c: Chunk, want: Option<V>) -> Result<V> {
        let Some(s) = &p.spread else {
            if let Some(r) = self.share(p, c)? {
                return Ok(r);
            }
            let mem = self.mem(p, 0)?;
            let dst = want.unwrap_or_else(|| self.vec());
            self.push(Inst::Splat { dst, w: self.widest, mem });
            return Ok(dst);
        };
        self.check_lanes(s.count, lanes)?;
        let w = c.w;
        if let Some(kept) = self.kept_mask(p, c.lane, c.active) {
            let mem = self.mem(p, (c.lane * self.size()) as i64)?;
            let dst = want.unwrap_or_else(|| self.vec());
            self.push(Inst::LoadPacked { dst, w, from: Packed { mem, active: c.active, window: None, mask: None, kept: Some(kept) } });
            return Ok(dst);
        }
        let window = self.window(&s.clip).map(|b| b.shifted(s.step * c.lane as i64));
        if s.side_by_side(self.size()) {
            let whole = window.is_none() && c.active * self.size() == w.bytes();
            if whole && let Some(r) = self.share(p, c)? {
                return Ok(r);
            }
            if whole && let Some(r) = self.shifted(p, want)? {
                return Ok(r);
            }
            let mem = self.mem(p, (c.lane * self.size()) as i64)?;
            let dst = want.unwrap_or_else(|| self.vec());
            let inst = if whole {
                Inst::Load { dst, w, mem }
            } else {
                // The mask of AVX2 may share the destination: it is dead once the lanes are loaded.
                let mask = (self.isa == WideIsa::Avx2).then(|| self.vec());
                Inst::LoadPacked { dst, w, from: Packed { mem, active: c.active, window, mask, kept: None } }
            };
            self.push(inst);
            return Ok(dst);
        }
        let near = (2..=MOST_STRIDE).contains(&s.step) && s.stride == Stride::Const(self.size() as i64);
        if self.isa == WideIsa::Avx512 && near && window.is_none() && c.active * self.size() == w.bytes() {
            let mem = self.mem(p, s.step * (c.lane * self.size()) as i64)?;
            let (dst, tmp) = (want.unwrap_or_else(|| self.vec()), self.vec());
            self.push(Inst::LoadStrided { dst, w, mem, step: s.step as usize, tmp });
            return Ok(dst);
        }
        let from = self.scattered(p, s, c, 0)?;
        let dst = want.unwrap_or_else(|| self.vec());
        let tmp = (w > Width::X).then(|| self.vec());
        self.push(Inst::LoadScattered { dst, w, from: Scattered { window, ..from }, tmp });
        Ok(dst)
    }

    /// Lanes that are not neighbours, of the part at offset `part`; its window is left to the caller.
    pub(super) fn scattered(&mut self, p: &Place, s: &Spread, c: Chunk, part: i64) -> Result<Scattered> {
        let from = s.step * c.lane as i64 + part;
        let (mem, pitch) = match s.stride {
            Stride::Const(bytes) => (self.mem(p, from * bytes)?, Pitch::Const(bytes * s.step)),
            Stride::Arg(arg) => {
                let mut mem = self.mem(p, 0)?;
                if from != 0 {
                    let by = self.stride_reg(arg, from);
                    let dst = self.int();
                    let terms = vec![(IntTerm::Reg(mem.base), 1), (IntTerm::Reg(by), 1)];
                    self.push(Inst::Int { dst, expr: IntExpr { terms, add: 0 } });
                    mem.base = dst;
                }
                (mem, Pitch::Reg(self.stride_reg(arg, s.step)))
            }
        };
        Ok(Scattered { mem, lanes: c.active, step: s.step, pitch, window: None })
    }
}
