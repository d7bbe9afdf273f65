//! Second step: a resolved tile as a linear program over virtual registers.
//!
//! Needs a [`Tree`]; leaves instructions in IR order, but for the blocks that `order` rearranges. Register entries become one virtual register per *chunk* of vector length;
//! each counted loop gets a counter and one moving pointer per group it advances. A scalar load feeds an embedded broadcast
//! (AVX-512) when its next use is far away, and a register that is shared by neighbouring statements otherwise; so does a vector, in these blocks.

use super::asks::Asking;
use super::guards::may_leave;
use super::inst::*;
use super::masks::Mask;
use super::order;
use super::overlap::{Overlaps, lines};
use super::tree::{Clips, Lin, Node, Place, Spread, Stride, Tree, Val};
use super::{Attempt, WideIsa};
use crate::ir::{BufferKind, Elem, Func};
use crate::{Error, Kind, Result};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use smallvec::{SmallVec, smallvec};

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
pub(super) fn select(func: &Func, tree: &mut Tree, isa: WideIsa, attempt: Attempt) -> Result<Program> {
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
        reach: attempt.reach,
        turns: attempt.turns,
        shifts: attempt.shifts,
        wholes: attempt.wholes,
        overlapping: HashMap::default(),
        lines: HashSet::default(),
        ptr: vec![None; tree.groups.len()],
        vars: vec![None; tree.loops.len()],
        strides: HashMap::default(),
        shared: Vec::new(),
        uses: HashMap::default(),
        at: 0,
        copies: 1,
        bounds: None,
        tested: Vec::new(),
        masks: Vec::new(),
        ends: None,
        regions: 0,
        kinds: func.buffers.iter().map(|b| b.kind).collect(),
        open: Vec::new(),
        evenly: Vec::new(),
        asking: None,
        tree,
        out: Program { code: Vec::new(), vectors: resident, resident, ints: 0, streams: false },
    };
    s.begin_asking(&body);
    let done = s.nodes(&body);
    let out = s.out;
    tree.body = body;
    done.map(|()| out)
}

/// Chunks in order; tiles seldom have more.
pub(super) type Chunks = SmallVec<[Chunk; 3]>;

/// The chunks of a number of lanes; a scalar is one chunk of the given width.
pub(super) fn chunks(lanes: usize, size: usize, isa: WideIsa, scalar: Width) -> Chunks {
    if lanes == 1 {
        return smallvec![Chunk { index: 0, lane: 0, active: scalar.bytes() / size, w: scalar }];
    }
    let mut out = Chunks::new();
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
    pub(super) shifts: bool,
    /// Whether stores that may leave their windows are written twice, once as if they did not.
    pub(super) wholes: bool,
    /// The vectors of the present block that are shifted out of lines, and these lines.
    pub(super) overlapping: Overlaps,
    pub(super) lines: HashSet<Key>,
    /// The pointer register of each group that is valid here.
    pub(super) ptr: Vec<Option<G>>,
    /// The variable of each open loop, where it is needed.
    pub(super) vars: Vec<Option<G>>,
    /// Registers that hold multiples of run-time strides, valid inside the outermost open loop.
    pub(super) strides: HashMap<(usize, i64), G>,
    /// Loads that are in a register: place, buffer, register, statement of the last use.
    pub(super) shared: Vec<(Key, usize, V, usize)>,
    /// Statements of the present block that use a scalar load, last first; if the block is in order of its vectors, a vector, too.
    pub(super) uses: HashMap<Key, Vec<usize>>,
    /// The present statement of the block.
    pub(super) at: usize,
    /// Chunks into which the present statement falls: how often it uses each scalar.
    pub(super) copies: usize,
    /// The clip whose bounds are in registers.
    pub(super) bounds: Option<(Clips, Window)>,
    /// What several guards of the open lists of nodes test, but for a constant, and the register that holds it.
    pub(super) tested: Vec<(Lin, G)>,
    /// The masks that are kept, in the order of their numbers.
    pub(super) masks: Vec<Mask>,
    /// Where statements that are about to be written end the body of a loop: how many masks are kept that what comes after them needs.
    pub(super) ends: Option<usize>,
    pub(super) regions: usize,
    /// What each buffer is for.
    pub(super) kinds: Vec<BufferKind>,
    /// The loops around the present statement, outermost first.
    pub(super) open: Vec<usize>,
    /// Weights that are asked for evenly: their group, where the next request goes, and how many bytes it moves.
    pub(super) evenly: Vec<(usize, G, i64)>,
    /// What the next block reads, as far as it is asked for.
    pub(super) asking: Option<Asking>,
    pub(super) out: Program,
}

/// What is loaded: group, displacement and number of lanes, 1 for a scalar.
pub(super) type Key = (usize, i32, usize);

impl Place {
    pub(super) fn key(&self) -> Key {
        (self.group, self.disp, self.spread.as_ref().map_or(1, |s| s.count))
    }
}

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
        // Masks from this number on serve nothing after the statements, and masks of the stores among them may take their place.
        let own = self.ends.take();
        let last = nodes.len() - nodes.iter().rev().take_while(|n| n.only_stores()).count();
        let mut i = 0;
        while i < nodes.len() {
            if let Some(stores) = self.clipped(&nodes[i..]) {
                i += stores.all.len();
                self.store_clipped(&stores, own.filter(|_| i == nodes.len()))?;
                continue;
            }
            if let Some(own) = own.filter(|_| i == last) {
                self.keep_unasked_store_masks(&nodes[i..], own);
            }
            let straight = |n: &Node| matches!(n, Node::Set { .. } | Node::Store { .. });
            // Stores that may leave their windows are a block of their own.
            let end = if own.is_some() && i < last && may_leave(&nodes[last..]) { last } else { nodes.len() };
            let n = nodes[i..end].iter().take_while(|n| straight(n)).count();
            if n > 0 {
                self.block(&nodes[i..i + n])?;
                i += n;
                continue;
            }
            match &nodes[i] {
                Node::Loop { id, body } => {
                    self.ask_outputs(*id, body, &nodes[i + 1..])?;
                    self.counted(*id, body)?;
                }
                Node::When { conds, body } => {
                    if std::mem::take(&mut first) {
                        self.keep_tested(&nodes[i..]);
                    }
                    if let Some(stores) = self.guarded(&nodes[i..]) {
                        i += stores.together.len();
                        self.store_guarded(&stores)?;
                        continue;
                    }
                    self.when(conds, body)?;
                }
                Node::Set { .. } | Node::Store { .. } => unreachable!("blocks take sets and stores"),
            }
            i += 1;
        }
        self.tested.truncate(tested);
        Ok(())
    }

    /// Sets and stores.
    pub(super) fn block(&mut self, nodes: &[Node]) -> Result<()> {
        let outer = self.ptr.clone();
        let ordered = order::by_vector(nodes, self.size());
        let nodes = ordered.as_deref().unwrap_or(nodes);
        self.uses.clear();
        self.overlapping = self.overlaps(nodes);
        self.lines = self.overlapping.iter().flat_map(|(key, of)| lines(*key, of.0)).collect();
        for (i, n) in nodes.iter().enumerate().rev() {
            let (uses, overlapping, whole) = (&mut self.uses, &self.overlapping, &self.lines);
            n.visit_loads(&mut |p| {
                let key = p.key();
                if p.spread.is_none() || ordered.is_some() || whole.contains(&key) {
                    uses.entry(key).or_default().push(i)
                }
                overlapping.get(&key).into_iter().flat_map(|of| lines(key, of.0)).for_each(|line| uses.entry(line).or_default().push(i));
            });
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
    /// Whether the lanes lie side by side.
    pub(super) fn side_by_side(&self, size: usize) -> bool {
        self.step == 1 && self.stride == Stride::Const(size as i64)
    }
    /// Whether they are all there, too.
    pub(super) fn is_dense(&self, size: usize) -> bool {
        self.side_by_side(size) && self.clip.is_none()
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
        self.visit_loads(&mut |p| out.push(p.clone()));
        out
    }

    /// Whether a statement stores and does nothing else, guarded or not.
    pub(super) fn only_stores(&self) -> bool {
        match self {
            Node::Store { .. } => true,
            Node::When { body, .. } => body.iter().all(Node::only_stores),
            Node::Set { .. } | Node::Loop { .. } => false,
        }
    }

    pub(super) fn visit_loads(&self, f: &mut impl FnMut(&Place)) {
        match self {
            Node::Set { value, .. } => value.visit_loads(f),
            Node::Store { parts, .. } => parts.iter().for_each(|v| v.visit_loads(f)),
            Node::Loop { .. } | Node::When { .. } => {}
        }
    }
}
