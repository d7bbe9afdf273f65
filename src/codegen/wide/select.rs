//! Second step: a resolved tile as a linear program over virtual registers.
//!
//! Needs a [`Tree`]; leaves instructions in IR order. Register entries become one virtual register per *chunk* of vector length;
//! each counted loop gets a counter and one moving pointer per group it advances. A scalar load feeds an embedded broadcast
//! (AVX-512) when its next use is far away, and a register that is shared by neighbouring statements otherwise.

use super::WideIsa;
use super::inst::*;
use super::tree::{Clips, Lin, Node, Place, Spread, Stride, Tree, Val};
use crate::ir::{BinOp, BufferKind, Elem, Func, UnOp};
use crate::{Error, Kind, Result};
use rustc_hash::FxHashMap as HashMap;

/// The largest distance of lanes for which loading all that lies between them is quicker than loading each.
pub(super) const MOST_STRIDE: i64 = 6;

/// A linear program.
pub(super) struct Program {
    pub code: Vec<Inst>,
    /// Number of vector virtual registers; the first `resident` of them are chunks of IR registers.
    pub vectors: usize,
    pub resident: usize,
    pub ints: usize,
    pub streams: bool,
}

/// A vector's worth of lanes of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) index: usize,
    /// The first lane.
    pub(super) lane: usize,
    /// Lanes that mean something; fewer than the register holds for odd lane counts.
    pub(super) active: usize,
    pub(super) w: Width,
}

/// Writes the program. Scalar loads whose uses lie within `reach` statements of each other share a register; `turns` says whether stores may be turned
/// and interleaved in pairs, which takes registers.
pub(super) fn select(func: &Func, tree: &mut Tree, isa: WideIsa, reach: usize, turns: bool) -> Result<Program> {
    let mut first = Vec::new();
    let mut resident = 0;
    let size = func.elem.bytes();
    for &lanes in &tree.entries {
        first.push(resident);
        resident += chunks(lanes, size, isa, Width::X).len();
    }
    let body = std::mem::take(&mut tree.body);
    let widest = widest(&body, tree, size, isa);
    let mut s = Selector {
        func,
        elem: func.elem,
        isa,
        first,
        widest,
        reach,
        turns,
        ptr: vec![None; tree.groups.len()],
        vars: vec![None; tree.loops.len()],
        strides: HashMap::default(),
        shared: Vec::new(),
        uses: HashMap::default(),
        at: 0,
        copies: 1,
        bounds: None,
        tested: Vec::new(),
        regions: 0,
        packed: func.buffers.iter().map(|b| b.kind == BufferKind::Packed).collect(),
        inputs: func.buffers.iter().map(|b| b.kind == BufferKind::Input).collect(),
        outputs: func.buffers.iter().map(|b| b.kind == BufferKind::Output).collect(),
        open: Vec::new(),
        evenly: Vec::new(),
        tree,
        out: Program { code: Vec::new(), vectors: resident, resident, ints: 0, streams: false },
    };
    let done = s.nodes(&body);
    let out = s.out;
    tree.body = body;
    done.map(|()| out)
}

/// The chunks of a number of lanes; a scalar is one chunk of the given width.
pub(super) fn chunks(lanes: usize, size: usize, isa: WideIsa, scalar: Width) -> Vec<Chunk> {
    if lanes == 1 {
        return vec![Chunk { index: 0, lane: 0, active: scalar.bytes() / size, w: scalar }];
    }
    let mut out = Vec::new();
    let mut lane = 0;
    while lane < lanes {
        let left = lanes - lane;
        let fits = |w: &Width| left * size <= w.bytes();
        let w = [Width::X, Width::Y, Width::Z].into_iter().find(fits).unwrap_or(Width::Z).min(isa.width());
        let active = left.min(w.bytes() / size);
        out.push(Chunk { index: out.len(), lane, active, w });
        lane += active;
    }
    out
}

/// The widest chunk of the tile: scalars are kept repeated over that many bytes.
fn widest(body: &[Node], tree: &Tree, size: usize, isa: WideIsa) -> Width {
    let of = |lanes: usize| chunks(lanes, size, isa, Width::X)[0].w;
    body.iter().fold(Width::X, |w, n| {
        w.max(match n {
            Node::Set { entry, .. } => of(tree.entries[*entry]),
            Node::Store { to, .. } => of(to.spread.as_ref().map_or(1, |s| s.count)),
            Node::Loop { body, .. } | Node::When { body, .. } => widest(body, tree, size, isa),
        })
    })
}

pub(super) struct Selector<'a> {
    pub(super) func: &'a Func,
    pub(super) elem: Elem,
    pub(super) isa: WideIsa,
    pub(super) tree: &'a mut Tree,
    /// First virtual register of each entry.
    pub(super) first: Vec<V>,
    pub(super) widest: Width,
    pub(super) reach: usize,
    pub(super) turns: bool,
    /// The pointer register of each group that is valid here.
    pub(super) ptr: Vec<Option<G>>,
    /// The variable of each open loop, where it is needed.
    pub(super) vars: Vec<Option<G>>,
    /// Registers that hold multiples of run-time strides, valid inside the outermost open loop.
    pub(super) strides: HashMap<(usize, i64), G>,
    /// Scalar loads that are in a register: place, register, statement of the last use.
    pub(super) shared: Vec<(Key, usize, V, usize)>,
    /// Statements of the present block that use a scalar load, last first.
    pub(super) uses: HashMap<Key, Vec<usize>>,
    /// The present statement of the block.
    pub(super) at: usize,
    /// Chunks into which the present statement falls: how often it uses each scalar.
    pub(super) copies: usize,
    /// The clip whose bounds are in registers.
    pub(super) bounds: Option<(Clips, Window)>,
    /// What several guards of the open lists of nodes test, but for a constant, and the register that holds it.
    pub(super) tested: Vec<(Lin, G)>,
    pub(super) regions: usize,
    /// Which buffers hold packed weights.
    pub(super) packed: Vec<bool>,
    /// Which buffers are the caller's inputs.
    pub(super) inputs: Vec<bool>,
    /// Which buffers are the caller's outputs.
    pub(super) outputs: Vec<bool>,
    /// The loops around the present statement, outermost first.
    pub(super) open: Vec<usize>,
    /// Weights that are asked for evenly: their group, where the next request goes, and how many bytes it moves.
    pub(super) evenly: Vec<(usize, G, i64)>,
    pub(super) out: Program,
}

/// A scalar in memory: group and displacement.
pub(super) type Key = (usize, i32);

impl Selector<'_> {
    pub(super) fn push(&mut self, i: Inst) {
        self.out.code.push(i)
    }
    pub(super) fn vec(&mut self) -> V {
        self.out.vectors += 1;
        self.out.vectors - 1
    }
    pub(super) fn int(&mut self) -> G {
        self.out.ints += 1;
        self.out.ints - 1
    }
    pub(super) fn size(&self) -> usize {
        self.elem.bytes()
    }

    /// Statements in order; runs of sets and stores form blocks.
    pub(super) fn nodes(&mut self, nodes: &[Node]) -> Result<()> {
        let tested = self.tested.len();
        let mut first = true;
        let mut i = 0;
        while i < nodes.len() {
            let straight = |n: &Node| matches!(n, Node::Set { .. } | Node::Store { .. });
            let n = nodes[i..].iter().take_while(|n| straight(n)).count();
            self.block(&nodes[i..i + n])?;
            i += n;
            match nodes.get(i) {
                Some(Node::Loop { id, body }) => {
                    self.ask_outputs(*id, body, &nodes[i + 1..])?;
                    self.counted(*id, body)?;
                }
                Some(Node::When { conds, body }) => {
                    if std::mem::take(&mut first) {
                        self.keep_tested(&nodes[i..]);
                    }
                    match self.guarded(&nodes[i..]) {
                        Some(stores) => {
                            i += stores.together.len();
                            self.store_guarded(&stores)?;
                            continue;
                        }
                        None => self.when(conds, body)?,
                    }
                }
                _ => {}
            }
            i += 1;
        }
        self.tested.truncate(tested);
        Ok(())
    }

    /// Computes once what several guards among `nodes` test, but for a constant.
    fn keep_tested(&mut self, nodes: &[Node]) {
        let mut all: Vec<(Lin, usize)> = Vec::new();
        for n in nodes {
            let Node::When { conds, .. } = n else { continue };
            for of in conds.iter().map(Lin::varying) {
                match all.iter_mut().find(|(l, _)| *l == of) {
                    Some((_, uses)) => *uses += 1,
                    None => all.push((of, 1)),
                }
            }
        }
        for (of, uses) in all {
            // What no loop of the tile moves is an argument already.
            if uses > 1 && !of.terms.is_empty() && !self.tested.iter().any(|(l, _)| *l == of) {
                let (dst, expr) = (self.int(), self.expr(&of));
                self.push(Inst::Int { dst, expr });
                self.tested.push((of, dst));
            }
        }
    }

    /// Statements under a guard.
    pub(super) fn when(&mut self, conds: &[Lin], body: &[Node]) -> Result<()> {
        let id = self.when_begin(conds);
        self.nodes(body)?;
        self.push(Inst::WhenEnd { id });
        Ok(())
    }

    /// The beginning of statements under a guard, by the number of the region.
    pub(super) fn when_begin(&mut self, conds: &[Lin]) -> usize {
        let cond = |c: &Lin| match self.tested.iter().find(|(l, _)| *l == c.varying()) {
            Some((_, g)) => IntExpr { terms: vec![(IntTerm::Reg(*g), 1)], add: c.inv.offset },
            None => self.expr(c),
        };
        let conds = conds.iter().map(cond).collect();
        let id = self.regions;
        self.regions += 1;
        self.push(Inst::WhenBegin { id, conds });
        id
    }

    /// Sets and stores.
    pub(super) fn block(&mut self, nodes: &[Node]) -> Result<()> {
        let outer = self.ptr.clone();
        self.uses.clear();
        for (i, n) in nodes.iter().enumerate().rev() {
            let uses = &mut self.uses;
            n.scalar_loads(&mut |k| uses.entry(k).or_default().push(i));
        }
        let mut i = 0;
        while i < nodes.len() {
            let n = &nodes[i];
            self.at = i;
            let turned = self.turned(&nodes[i..]);
            if turned > 1 {
                self.store_turned(&nodes[i..i + turned])?;
                i += turned;
                continue;
            }
            let strided = self.strided(&nodes[i..]);
            if strided > 1 {
                self.load_strided_together(&nodes[i..i + strided])?;
                i += strided;
                continue;
            }
            i += 1;
            match n {
                Node::Set { entry, value } => self.set(*entry, value)?,
                Node::Store { to, parts, stream } => self.store(to, parts, *stream)?,
                Node::Loop { .. } | Node::When { .. } => unreachable!("blocks hold sets and stores only"),
            }
        }
        self.shared.clear();
        self.bounds = None;
        self.ptr = outer;
        if self.open.is_empty() {
            self.strides.clear();
        }
        Ok(())
    }

    pub(super) fn mem(&mut self, p: &Place, more: i64) -> Result<Mem> {
        let base = match self.ptr[p.group] {
            Some(g) => g,
            None => {
                let dst = self.int();
                let arg = self.tree.groups[p.group].arg;
                self.push(Inst::Int { dst, expr: IntExpr::of(IntTerm::Arg(arg), 1) });
                self.ptr[p.group] = Some(dst);
                dst
            }
        };
        let disp = i32::try_from(p.disp as i64 + more);
        let disp = disp.map_err(|_| Error::new(Kind::Codegen, format!("an address lies {more} bytes from its base; 2^31 is the limit")))?;
        Ok(Mem { base, disp })
    }

    // Values

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
                if let Some(r) = self.share(p)? {
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

    /// The register that holds a scalar load for several uses, if there are any near by.
    pub(super) fn share(&mut self, p: &Place) -> Result<Option<V>> {
        let (key, at) = ((p.group, p.disp), self.at);
        let reach = self.reach;
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
        let v = self.splat(p)?;
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
            if let Some(r) = self.share(p)? {
                return Ok(r);
            }
            let mem = self.mem(p, 0)?;
            let dst = want.unwrap_or_else(|| self.vec());
            self.push(Inst::Splat { dst, w: self.widest, mem });
            return Ok(dst);
        };
        self.check_lanes(s.count, lanes)?;
        let w = c.w;
        let window = self.window(&s.clip).map(|b| b.shifted(s.step * c.lane as i64));
        if s.step == 1 && s.stride == Stride::Const(self.size() as i64) {
            let mem = self.mem(p, (c.lane * self.size()) as i64)?;
            let dst = want.unwrap_or_else(|| self.vec());
            let inst = if window.is_none() && c.active * self.size() == w.bytes() {
                Inst::Load { dst, w, mem }
            } else {
                // The mask of AVX2 may share the destination: it is dead once the lanes are loaded.
                let mask = (self.isa == WideIsa::Avx2).then(|| self.vec());
                Inst::LoadPacked { dst, w, from: Packed { mem, active: c.active, window, mask } }
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

impl Window {
    /// The same range, relative to a coordinate `by` further on.
    pub(super) fn shifted(self, by: i64) -> Window {
        Window { lo: self.lo.plus(-by), hi: self.hi.plus(-by) }
    }

    /// Whether it is known that none of the coordinates `0..n` is inside.
    pub(super) fn misses(self, n: i64) -> bool {
        matches!(self.hi, Bound::Const(hi) if hi <= 0) || matches!(self.lo, Bound::Const(lo) if lo >= n)
    }
}

impl Spread {
    /// Whether the lanes lie side by side and are all there.
    pub(super) fn is_dense(&self, size: usize) -> bool {
        self.step == 1 && self.clip.is_none() && self.stride == Stride::Const(size as i64)
    }
}

impl Val {
    /// Whether it can be the last operand of an instruction as it is.
    pub(super) fn is_direct(&self) -> bool {
        match self {
            Val::Const(_) => true,
            Val::Load(p) => p.spread.as_ref().is_none_or(|s| s.clip.is_none() && s.step == 1),
            _ => false,
        }
    }
    pub(super) fn visit_loads(&self, f: &mut impl FnMut(&Place)) {
        match self {
            Val::Const(_) | Val::Reg(_) => {}
            Val::Load(p) => f(p),
            Val::Fma(v) => v.iter().for_each(|v| v.visit_loads(f)),
            Val::Bin(_, v) => v.iter().for_each(|v| v.visit_loads(f)),
            Val::Un(_, v) => v.visit_loads(f),
            Val::Select(_, v) => v.iter().for_each(|v| v.visit_loads(f)),
        }
    }
    /// Whether it loads from the buffer at another place than `same`.
    pub(super) fn loads_from(&self, buffer: usize, same: Option<&Place>) -> bool {
        let mut found = false;
        self.visit_loads(&mut |p| found |= p.buffer == buffer && same != Some(p));
        found
    }
}

impl Node {
    /// Everything that a statement loads.
    pub(super) fn loads(&self) -> Vec<Place> {
        let mut out = Vec::new();
        let mut visit = |v: &Val| v.visit_loads(&mut |p| out.push(p.clone()));
        match self {
            Node::Set { value, .. } => visit(value),
            Node::Store { parts, .. } => parts.iter().for_each(visit),
            Node::Loop { .. } | Node::When { .. } => {}
        }
        out
    }

    pub(super) fn scalar_loads(&self, f: &mut impl FnMut(Key)) {
        let mut visit = |v: &Val| {
            v.visit_loads(&mut |p| {
                if p.spread.is_none() {
                    f((p.group, p.disp))
                }
            })
        };
        match self {
            Node::Set { value, .. } => visit(value),
            Node::Store { parts, .. } => parts.iter().for_each(visit),
            Node::Loop { .. } | Node::When { .. } => {}
        }
    }
}
