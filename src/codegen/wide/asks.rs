//! Second step, prefetches: cache lines are asked for before they are needed, where hardware cannot know.
//!
//! Weights that come next, ahead and evenly; what else the next iterations of a sum read; rows of the next channel, while one is copied, and the lines that
//! its transformed windows go to; lines of the output, before the sums that go there, and those of the next channel, while transforms store one; and what the
//! next block reads, a few lines at a time, while this one is computed.

use super::inst::*;
use super::select::Selector;
use super::tree::{Inc, Node, Place, Resolver, Spread, Stride, Val, intern, ir};
use super::{AddressArg, TileArg};
use crate::Result;
use crate::ir::{self, Affine, Atom, BufferKind};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Bytes of a cache line.
const LINE: i64 = 64;
/// How far ahead weights are asked for: what a tile reads while a line comes from the third-level cache.
const AHEAD: i64 = 4096;
/// The same where each weight is read once and all of them are too many for the last level: while a line comes from memory. So many lines are under way at once
/// that only the second level has places for them. And how many bytes are too many.
const FAR_AHEAD: i64 = 32 << 10;
const FROM_MEMORY: i64 = 8 << 20;
/// How far ahead panel, transformed windows and input are asked for, in statements: what is computed while a line comes from the second-level cache or, now and
/// then, from the third.
const SOON: i64 = 160;
/// Least statements of an iteration per line that it asks for of those, and least iterations of the loop for each that it asks ahead: what the last ones ask
/// for, nothing reads.
const DENSE: i64 = 12;
const LASTING: i64 = 8;
/// Rows that are closer to each other than a page are fetched ahead by hardware.
const PAGE: i64 = 4096;
/// Most lines that are copied between asking for one and copying it.
const MOST_COPIED: i64 = 192;
/// Least statements of an iteration per line that it asks for.
const REUSE: i64 = 4;
/// Least vectors of an iteration that go to a page each.
const SCATTERED: usize = 3;
/// Most lines that are stored between asking for one and storing to it, and about how many at least.
const MOST_SCATTERED: i64 = 256;
const LEAST_SCATTERED: i64 = 64;
/// Least statements of a reduction per line of the output that it asks for.
const REDUCED: i64 = 16;
/// Most lines of the next block that are asked for at a time; where there would be more, the tile is bound by memory, and copying does no worse.
const MOST_AT_ONCE: i64 = 8;
/// What is taken for an extent that comes at run time.
const ORDINARY: i64 = 64;

/// A number known now, or an integer argument times a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    Const(i64),
    Arg(usize, i64),
}

/// What the tile asks for: rows of so many bytes, and the dimensions around them that have several, the innermost first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// The argument that holds the address of the first row.
    pub arg: usize,
    pub row: Extent,
    pub dims: Vec<(Extent, Stride)>,
}

impl Extent {
    /// So many times the number.
    fn times(self, by: i64) -> IntExpr {
        match self {
            Extent::Const(n) => IntExpr { terms: Vec::new(), add: n * by },
            Extent::Arg(arg, size) => IntExpr::of(IntTerm::Arg(arg), size * by),
        }
    }
}

impl Resolver<'_> {
    /// What the tile asks for, in bytes.
    pub(super) fn asked(&mut self, a: &ir::Ask) -> Result<Asked> {
        let found = self.func.buffers.iter().position(|b| b.name == a.buffer);
        let at = found.ok_or_else(|| ir(format!("no buffer {}", a.buffer)))?;
        let buffer = &self.func.buffers[at];
        let strides = self.strides_of(at);
        let address = AddressArg { buffer: a.buffer, index: a.ranges.iter().map(|r| r.0.clone()).collect() };
        let arg = intern(&mut self.tree.args, TileArg::Address(address));
        let mut extent = |dim: usize, size: i64| {
            let n = a.ranges[dim].1.clone() - a.ranges[dim].0.clone();
            match n.as_const() {
                Some(n) => Extent::Const(n.saturating_mul(size)),
                None => Extent::Arg(intern(&mut self.tree.args, TileArg::Int(n)), size),
            }
        };
        let covers = |dim: usize| a.ranges[dim].1.clone() - a.ranges[dim].0.clone() == buffer.dims[dim];
        let (&inner, outer) = buffer.order.split_last().ok_or_else(|| ir(format!("buffer {} has no dimensions", a.buffer)))?;
        let mut row = extent(inner, buffer.elem.bytes() as i64);
        let mut counts: Vec<(usize, Extent)> = Vec::new();
        // Rows that lie side by side are one.
        let mut joined = covers(inner);
        for &dim in outer.iter().rev() {
            match (&mut row, extent(dim, 1)) {
                (_, Extent::Const(1)) => {}
                (Extent::Const(row), Extent::Const(n)) if joined => *row = row.saturating_mul(n),
                (_, n) => counts.push((dim, n)),
            }
            joined &= covers(dim) && counts.is_empty();
        }
        let mut dims: Vec<(Extent, Stride)> = counts.into_iter().map(|(dim, n)| (n, self.stride(at, dim, strides[dim]))).collect();
        if dims.is_empty() {
            dims.push((Extent::Const(1), Stride::Const(0)));
        }
        Ok(Asked { arg, row, dims })
    }
}

impl Selector<'_> {
    /// In an innermost loop: asks for the packed weights of iterations to come. They lie in the order in which they are read, tile after
    /// tile, so what is ahead of the loop's end is read, too; hardware stops at the end of a page.
    pub(super) fn ask_ahead(&mut self, body: &[Node], moves: &[(G, Inc)], step: i64) {
        if !body.iter().all(|n| matches!(n, Node::Set { .. })) {
            return;
        }
        let mut asked: Vec<G> = Vec::new();
        let weights: Vec<Place> = body.iter().flat_map(Node::loads).filter(|p| self.kinds[p.buffer] == BufferKind::Packed).collect();
        for p in weights {
            let Some(base) = self.ptr[p.group] else { continue };
            let Some((_, inc)) = moves.iter().find(|(g, _)| *g == base) else { continue };
            let bytes = inc.bytes * step;
            let lines = (bytes + LINE - 1) / LINE;
            // Where every weight is used once or twice the loop waits for loads as it is.
            if bytes <= 0 || !inc.strides.is_empty() || asked.contains(&base) || lines * REUSE > body.len() as i64 {
                continue;
            }
            asked.push(base);
            let evenly = self.evenly.iter().find(|e| e.0 == p.group).copied();
            if let Some((_, at, by)) = evenly {
                for line in 0..(by + LINE - 1) / LINE {
                    self.push(Inst::Prefetch { mem: Mem { base: at, disp: (line * LINE) as i32 }, ask: Ask::ReadLater });
                }
                self.push(Inst::AddImm { dst: at, by });
            }
            let once = evenly.is_none() && self.bytes_of(p.buffer) > FROM_MEMORY;
            for line in 0..lines {
                self.push(Inst::Prefetch { mem: Mem { base, disp: (AHEAD + line * LINE) as i32 }, ask: Ask::Read });
                if once {
                    self.push(Inst::Prefetch { mem: Mem { base, disp: (FAR_AHEAD + line * LINE) as i32 }, ask: Ask::ReadLater });
                }
            }
        }
    }

    /// Bytes of a buffer whose extents are known.
    fn bytes_of(&self, buffer: usize) -> i64 {
        let elements = |n: i64, d: &Affine| n.saturating_mul(d.as_const().unwrap_or(1));
        self.func.buffers[buffer].dims.iter().fold(self.size() as i64, elements)
    }

    /// In the innermost loop of a sum: asks for what a few iterations ahead read of the panel, of transformed windows, or of the input in place. A channel's rows
    /// may lie in another page, where hardware stops, and the sums of a tile leave it little time.
    pub(super) fn ask_soon(&mut self, id: usize, body: &[Node]) {
        if !body.iter().all(|n| matches!(n, Node::Set { .. })) {
            return;
        }
        let statements = body.len() as i64;
        let ahead = (SOON + statements - 1) / statements.max(1);
        if self.most_trips(id).is_none_or(|n| n < ahead * LASTING) {
            return;
        }
        let mut lines: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
        let kinds = [BufferKind::Scratch, BufferKind::Input];
        for p in body.iter().flat_map(Node::loads).filter(|p| kinds.contains(&self.kinds[p.buffer])) {
            let last = elements((&p, 1)).last().unwrap_or(0);
            let line = |at: i64| (p.disp as i64 + at).div_euclid(LINE);
            lines.entry(p.group).or_default().extend([line(0), line(last)]);
        }
        for (group, lines) in lines {
            let (Some(base), Some(by)) = (self.ptr[group], self.moved(group, id)) else { continue };
            if !by.strides.is_empty() || by.bytes < LINE || lines.len() as i64 * DENSE > statements {
                continue;
            }
            for line in lines {
                if let Ok(disp) = i32::try_from(by.bytes * ahead + line * LINE) {
                    self.push(Inst::Prefetch { mem: Mem { base, disp }, ask: Ask::Read });
                }
            }
        }
    }

    /// In a loop that scatters what it computes, each vector to another page: asks for the lines that the next iteration of a loop around it will store to, the
    /// outermost whose iterations store no more than the first-level cache keeps. Those of a block are seldom all in the second level, and stores leave a short
    /// queue in order.
    pub(super) fn ask_next_stores(&mut self, body: &[Node]) {
        let dense = |p: &Place| p.spread.as_ref().is_some_and(|s| s.step == 1 && s.stride == Stride::Const(self.size() as i64));
        let scratch = |to: &(&Place, usize)| self.kinds[to.0.buffer] == BufferKind::Scratch && to.1 == 1 && dense(to.0);
        let places: BTreeSet<(usize, i64)> =
            unguarded(body).filter_map(stored).filter(scratch).map(|to| (to.0.group, to.0.disp as i64)).collect();
        let far = |p: &(usize, i64)| places.range((p.0, p.1 - PAGE + 1)..(p.0, p.1 + PAGE)).count() == 1;
        if places.len() < SCATTERED || !places.iter().all(far) {
            return;
        }
        self.ask_in_next_iteration(&places, LINE..PAGE, LEAST_SCATTERED);
    }

    /// In a loop that stores a run of outputs which it does not sum up: asks for the lines that the next iteration of a loop around it will store to, in another
    /// page, the outermost whose iterations store no more than the first-level cache keeps. That is the next channel, or the next row of a long one. Channels last,
    /// each pixel is a run of its own, and more is lost than gained.
    pub(super) fn ask_next_outputs(&mut self, body: &[Node]) {
        let output = |to: &(&Place, usize)| self.kinds[to.0.buffer] == BufferKind::Output;
        let other = |n: &Node| matches!(n, Node::Loop { .. } | Node::When { .. }) || past_caches(n);
        if unguarded(body).any(other) || !unguarded(body).filter_map(stored).all(|to| output(&to)) {
            return;
        }
        let run: BTreeSet<(usize, i64)> = unguarded(body).filter_map(stored).flat_map(lines).collect();
        if run.iter().zip(run.iter().skip(1)).any(|(a, b)| (a.0, a.1 + 1) != *b) {
            return;
        }
        let places = run.into_iter().map(|(group, line)| (group, line.saturating_mul(LINE))).collect();
        self.ask_in_next_iteration(&places, PAGE..i64::MAX, 0);
    }

    /// Asks, as their owner, for where the places (a group and bytes from its pointer, a line each) are in the next iteration of a loop around them: the outermost
    /// that moves them by so many bytes and whose iterations store no more than the first-level cache keeps. Where that is the innermost one, its iterations may
    /// store less than `least` lines and be over before a line comes: then it is one of those behind.
    fn ask_in_next_iteration(&mut self, places: &BTreeSet<(usize, i64)>, by: Range<i64>, least: i64) {
        // Loops around the places, the innermost first, with the lines that an iteration stores.
        let lines = self.open.iter().rev().scan(places.len() as i64, |lines, l| {
            let one = *lines;
            *lines = one.saturating_mul(self.most_trips(*l).unwrap_or(i64::MAX));
            Some((*l, one))
        });
        let mut near: Vec<(usize, i64)> = lines.take_while(|(_, lines)| *lines <= MOST_SCATTERED).collect();
        near.reverse();
        for &(group, disp) in places {
            let moved = |&(l, lines): &(usize, i64)| Some((self.moved(group, l).filter(|moved| by.contains(&moved.bytes))?, lines));
            let (Some(base), Some((moved, lines))) = (self.ptr[group], near.iter().find_map(moved)) else { continue };
            let ahead = if lines == places.len() as i64 { (least / lines.max(1)).max(1) } else { 1 };
            if moved.strides.is_empty()
                && let Ok(disp) = i32::try_from(disp.saturating_add(moved.bytes.saturating_mul(ahead)))
            {
                self.push(Inst::Prefetch { mem: Mem { base, disp }, ask: Ask::Write });
            }
        }
    }

    /// Before a loop whose iterations read the same weights: a pointer that asks for those behind them, a part in each innermost iteration, so that
    /// memory brings them at an even pace while they are not needed yet.
    pub(super) fn ask_evenly(&mut self, id: usize, body: &[Node]) {
        let (path, body) = only_loops(id, body);
        let innermost = path[path.len() - 1];
        let weights: Vec<usize> =
            body.iter().flat_map(Node::loads).filter(|p| self.kinds[p.buffer] == BufferKind::Packed).map(|p| p.group).collect();
        for g in weights {
            let moved = |l: usize| self.moved(g, l).filter(|by| by.strides.is_empty()).map(|by| by.bytes);
            let times = |n: Option<i64>, l: &usize| n?.checked_mul(self.most_trips(*l)?);
            let again = path.iter().filter(|l| moved(**l).is_none()).fold(Some(1), times);
            let behind = self.open.iter().rev().find_map(|l| moved(*l));
            let (None, Some(bytes), Some(again), Some(behind)) = (moved(id), moved(innermost), again, behind) else { continue };
            if bytes <= 0 || again < 2 || self.evenly.iter().any(|e| e.0 == g) {
                continue;
            }
            let mut expr = self.pointer(g);
            expr.add += behind;
            let at = self.int();
            self.push(Inst::Int { dst: at, expr });
            self.evenly.push((g, at, (bytes - 1) / again + 1));
        }
    }

    /// In a loop that copies rows of the input: asks for those of the next channel, of which hardware knows nothing before it gets there. The channel
    /// is counted by this loop or by one around it.
    pub(super) fn ask_next_rows(&mut self, body: &[Node]) {
        let copies = |n: &Node| matches!(n, Node::Store { parts, .. } if matches!(parts[..], [Val::Reg(_)]));
        if !body.iter().any(copies) {
            return;
        }
        let mut rows: Vec<Place> = Vec::new();
        input_rows(body, &self.kinds, self.size(), &mut rows);
        let copied: BTreeSet<(usize, i64)> = rows.iter().flat_map(|p| lines((p, 1))).collect();
        let mut next: Vec<(usize, Option<(G, i64)>)> = Vec::new();
        for p in rows {
            let at = match next.iter().find(|n| n.0 == p.group) {
                Some(n) => n.1,
                None => {
                    let at = self.next_channel(p.group, copied.len() as i64);
                    next.push((p.group, at));
                    at
                }
            };
            let (Some((base, add)), Some(s)) = (at, &p.spread) else { continue };
            for line in (0..(s.count * self.size()) as i64).step_by(LINE as usize) {
                if let Ok(disp) = i32::try_from(p.disp as i64 + add + line) {
                    self.push(Inst::Prefetch { mem: Mem { base, disp }, ask: Ask::Read });
                }
            }
        }
    }

    /// Where a group's pointer will be when a loop next moves it to another page: a register, and what to add. Of the two innermost loops it is the one that
    /// does so first; one further out, if its iterations copy few lines.
    fn next_channel(&mut self, g: usize, lines: i64) -> Option<(G, i64)> {
        let base = self.ptr[g]?;
        let (mut by, mut copied): (Option<Inc>, i64) = (None, lines);
        for (depth, l) in self.open.iter().rev().enumerate() {
            // Of two distances known at run time, the outer one is between channels.
            let far = |by: &Inc| if by.strides.is_empty() { by.bytes >= PAGE } else { depth < 2 };
            let near = by.as_ref().is_none_or(|by| !by.strides.is_empty()) && depth < 2 || copied <= MOST_COPIED;
            by = self.moved(g, *l).filter(|by| near && far(by)).or(by);
            copied = copied.saturating_mul(self.most_trips(*l).unwrap_or(i64::MAX));
        }
        let by = by?;
        if by.strides.is_empty() {
            return Some((base, by.bytes));
        }
        let strides: Vec<(IntTerm, i64)> = by.strides.iter().map(|&(arg, coef)| (IntTerm::Reg(self.stride_reg(arg, coef)), 1)).collect();
        let dst = self.int();
        self.push(Inst::Int { dst, expr: IntExpr { terms: [vec![(IntTerm::Reg(base), 1)], strides].concat(), add: by.bytes } });
        Some((dst, 0))
    }

    /// Before a reduction whose sums are stored behind it: asks for the lines of the output that they go to. Stores leave a short queue in order, and
    /// memory would bring those lines one after the other. What is stored past the caches needs none of them, and where each step waits for a page of the
    /// input they would be in its way.
    pub(super) fn ask_outputs(&mut self, id: usize, body: &[Node], behind: &[Node]) -> Result<()> {
        let ends = behind.iter().position(|n| !n.only_stores()).unwrap_or(behind.len());
        let stores = unguarded(&behind[..ends]).filter(|n| !past_caches(n)).filter_map(stored);
        let asked: BTreeSet<(usize, i64)> = stores.filter(|to| self.kinds[to.0.buffer] == BufferKind::Output).flat_map(lines).collect();
        let (path, inner) = only_loops(id, body);
        let statements = path.iter().fold(inner.len() as i64, |n, l| n.saturating_mul(self.most_trips(*l).unwrap_or(1)));
        if statements < asked.len() as i64 * REDUCED || self.reads_pages(&path, inner) {
            return Ok(());
        }
        let outer = self.ptr.clone();
        // Lanes may lie further apart than an address reaches.
        let near = |at: &(usize, i64)| i32::try_from(at.1 * LINE).is_ok();
        for (group, line) in asked.into_iter().filter(near) {
            let mem = self.mem(&Place { group, disp: 0, buffer: 0, spread: None }, line * LINE)?;
            self.push(Inst::Prefetch { mem, ask: Ask::Write });
        }
        self.ptr = outer;
        Ok(())
    }

    /// Whether loops read the input in place, and from another page in each iteration of one of them.
    fn reads_pages(&self, loops: &[usize], body: &[Node]) -> bool {
        let far = |group: usize| loops.iter().any(|l| self.moved(group, *l).is_some_and(|by| by.bytes >= PAGE));
        let mut reads = false;
        body.iter().for_each(|n| n.visit_loads(&mut |p| reads |= self.kinds[p.buffer] == BufferKind::Input && far(p.group)));
        reads
    }

    // The next block

    /// At the top of the tile: where it begins to ask for what the next block reads, and how much at a time.
    pub(super) fn begin_asking(&mut self, body: &[Node]) {
        let Some(asked) = self.tree.asked.clone() else { return };
        let mut sums = Vec::new();
        self.reductions(body, 1, &mut sums);
        let all = sums.iter().fold(0, |n: i64, v| n.saturating_add(v.1));
        let rows = asked.dims.iter().fold(1, |n: i64, (count, _)| n.saturating_mul(self.likely(count)));
        let bytes = self.likely(&asked.row).saturating_mul(rows);
        if bytes <= 0 || all <= 0 || bytes > all.saturating_mul(MOST_AT_ONCE * LINE) {
            return;
        }
        // Less than a line at a time: the same one is asked for again.
        let by = (bytes - 1) / all + 1;
        let by = if by < LINE { by } else { (by + LINE - 1) / LINE * LINE };
        let at = self.kept(IntExpr::of(IntTerm::Arg(asked.arg), 1));
        let level = |s: &mut Self, (count, stride): &(Extent, Stride)| Level {
            start: s.kept(IntExpr::of(IntTerm::Reg(at), 1)),
            left: s.kept(count.times(-1)),
            count: *count,
            stride: *stride,
        };
        let levels = asked.dims.iter().map(|d| level(self, d)).collect();
        let left = self.kept(asked.row.times(-1));
        self.asking = Some(Asking { loops: sums.iter().map(|v| v.0).collect(), by, at, left, first: asked.arg, row: asked.row, levels });
    }

    fn kept(&mut self, expr: IntExpr) -> G {
        let dst = self.int();
        self.push(Inst::Int { dst, expr });
        dst
    }

    /// At the top of a loop's body: asks for what comes next, if it is a loop that does.
    pub(super) fn ask_next_block(&mut self, id: usize) {
        let Some(asking) = self.asking.take_if(|a| a.loops.contains(&id)) else { return };
        // Asking again costs nothing where the line is in the first level by then; many lines would drive out of it what the tile reads.
        let ask = if asking.by < LINE { Ask::Read } else { Ask::ReadLater };
        for line in (0..asking.by).step_by(LINE as usize) {
            self.push(Inst::Prefetch { mem: Mem { base: asking.at, disp: line as i32 }, ask });
        }
        self.push(Inst::AddImm { dst: asking.at, by: asking.by });
        self.push(Inst::AddImm { dst: asking.left, by: asking.by });
        let row_ends = self.when_over(asking.left);
        self.next_row(&asking.levels, asking.first);
        self.push(Inst::Int { dst: asking.at, expr: IntExpr::of(IntTerm::Reg(asking.levels[0].start), 1) });
        self.push(Inst::Int { dst: asking.left, expr: asking.row.times(-1) });
        self.push(Inst::WhenEnd { id: row_ends });
        self.asking = Some(asking);
    }

    /// Moves to the next row, and to the next one of the dimensions around it where one ends; behind the last it begins again.
    fn next_row(&mut self, levels: &[Level], first: usize) {
        let [inner, outer @ ..] = levels else { return };
        match inner.stride {
            Stride::Const(by) => self.push(Inst::AddImm { dst: inner.start, by }),
            Stride::Arg(arg) => {
                let by = self.stride_reg(arg, 1);
                self.push(Inst::AddReg { dst: inner.start, by });
            }
        }
        self.push(Inst::AddImm { dst: inner.left, by: 1 });
        let ends = self.when_over(inner.left);
        self.next_row(outer, first);
        let start = outer.first().map_or(IntTerm::Arg(first), |o| IntTerm::Reg(o.start));
        self.push(Inst::Int { dst: inner.start, expr: IntExpr::of(start, 1) });
        self.push(Inst::Int { dst: inner.left, expr: inner.count.times(-1) });
        self.push(Inst::WhenEnd { id: ends });
    }

    /// The beginning of a region that runs when a register gets to 0.
    fn when_over(&mut self, g: G) -> usize {
        self.region_begin(vec![Test { of: IntExpr::of(IntTerm::Reg(g), 1), most: None }], true)
    }

    /// Loops that only add up, outermost ones, and how often their bodies run.
    fn reductions(&self, nodes: &[Node], times: i64, out: &mut Vec<(usize, i64)>) {
        for n in nodes {
            match n {
                Node::Loop { id, body } => {
                    let times = times.saturating_mul(self.likely_trips(*id));
                    match body.iter().all(adds_up) {
                        true => out.push((*id, times)),
                        false => self.reductions(body, times, out),
                    }
                }
                Node::When { body, .. } => self.reductions(body, times, out),
                Node::Set { .. } | Node::Store { .. } => {}
            }
        }
    }

    fn likely_trips(&self, id: usize) -> i64 {
        let l = &self.tree.loops[id];
        let ranges = l.hi.iter().flat_map(|hi| l.lo.iter().map(|lo| likely(&hi.minus(lo).inv)));
        self.most_trips(id).unwrap_or_else(|| (ranges.min().unwrap_or(1).max(1) - 1) / l.step + 1)
    }

    fn likely(&self, n: &Extent) -> i64 {
        match n {
            Extent::Const(n) => *n,
            Extent::Arg(arg, size) => match &self.tree.args[*arg] {
                TileArg::Int(n) => likely(n).max(1).saturating_mul(*size),
                _ => unreachable!("extents are integers"),
            },
        }
    }
}

/// An expression where every symbol is of an ordinary size.
fn likely(e: &Affine) -> i64 {
    e.terms
        .iter()
        .fold(e.offset, |sum, (atom, c)| if matches!(atom, Atom::Sym(_)) { sum.saturating_add(c.saturating_mul(ORDINARY)) } else { sum })
}

/// Whether a statement only adds up: it stores nothing.
fn adds_up(n: &Node) -> bool {
    match n {
        Node::Set { .. } => true,
        Node::Store { .. } => false,
        Node::Loop { body, .. } | Node::When { body, .. } => body.iter().all(adds_up),
    }
}

/// A tile that asks for what the next block reads: rows of bytes, and the dimensions around a row, the innermost first.
pub(super) struct Asking {
    /// At the top of which loops' bodies.
    loops: Vec<usize>,
    /// How many bytes at a time.
    by: i64,
    /// Where the next request goes.
    at: G,
    /// Minus the bytes that are left of the row.
    left: G,
    /// The argument that holds the address of the first row.
    first: usize,
    row: Extent,
    levels: Vec<Level>,
}

/// A dimension around rows.
struct Level {
    /// Where the present one begins.
    start: G,
    /// Minus the number left.
    left: G,
    count: Extent,
    stride: Stride,
}

/// Where a statement stores, guarded or not, and how many parts next to each other.
fn stored(n: &Node) -> Option<(&Place, usize)> {
    match n {
        Node::Store { to, parts, .. } => Some((to, parts.len())),
        Node::When { body, .. } if body.len() == 1 => stored(&body[0]),
        _ => None,
    }
}

/// Whether it stores past the caches, to lines that are better not in them.
fn past_caches(n: &Node) -> bool {
    match n {
        Node::Store { stream, .. } => *stream,
        Node::When { body, .. } => body.iter().any(past_caches),
        _ => false,
    }
}

/// The lines that a store goes to: its group, and how many lines from its pointer.
fn lines(to: (&Place, usize)) -> impl Iterator<Item = (usize, i64)> {
    elements(to).map(move |at| (to.0.group, (to.0.disp as i64 + at).div_euclid(LINE)))
}

/// The statements of a body, those under a guard among them.
fn unguarded(body: &[Node]) -> impl Iterator<Item = &Node> {
    body.iter().flat_map(|n| if let Node::When { body, .. } = n { &body[..] } else { std::slice::from_ref(n) })
}

/// Where the elements of a store lie, in bytes from its first; where distances come at run time, only that.
fn elements((to, parts): (&Place, usize)) -> impl Iterator<Item = i64> {
    let (count, step, stride) = match &to.spread {
        Some(Spread { count, step, stride: Stride::Const(bytes), .. }) => (*count as i64, *step, *bytes),
        _ => (1, 1, 0),
    };
    (0..count).flat_map(move |lane| (0..parts as i64).map(move |part| (lane * step + part) * stride))
}

/// The loops that lie alone in one another, from one whose body is given, and the body of the innermost.
fn only_loops(id: usize, mut body: &[Node]) -> (Vec<usize>, &[Node]) {
    let mut path = vec![id];
    loop {
        let mut inner = body.iter().filter_map(|n| if let Node::Loop { id, body } = n { Some((*id, &body[..])) } else { None });
        let (Some((id, inside)), None) = (inner.next(), inner.next()) else { return (path, body) };
        path.push(id);
        body = inside;
    }
}

/// The vectors of whole rows that statements load from the input.
fn input_rows(body: &[Node], kinds: &[BufferKind], size: usize, out: &mut Vec<Place>) {
    for n in body {
        match n {
            Node::When { body, .. } => input_rows(body, kinds, size, out),
            n => {
                let dense = |s: &Spread| s.step == 1 && s.stride == Stride::Const(size as i64);
                out.extend(n.loads().into_iter().filter(|p| kinds[p.buffer] == BufferKind::Input && p.spread.as_ref().is_some_and(dense)));
            }
        }
    }
}
