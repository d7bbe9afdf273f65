//! Second step, loads of neighbours whose lanes lie a few elements apart: what they share is loaded once.
//!
//! With lanes `s` apart, `s` loads at neighbouring elements read the same `s` vectors. Element `e` of these belongs to load `e % s`. From each pair of
//! vectors one permutation takes the lanes of as many loads as fit a vector; another joins what two of them hold of one load:
//!
//! ```text
//! dx0 = P[4*wx : 16 step 4]           a, b, c, d = the 64 elements from P[4*wx] on
//! dx1 = P[4*wx + 1 : 16 step 4]   ⇒   ab01 = lanes of dx0 and dx1 in a, b        ab23, cd01, cd23 likewise
//! dx2 = P[4*wx + 2 : 16 step 4]       dx0 = join(ab01, cd01)   dx1 = join(ab01, cd01)   dx2 = join(ab23, cd23)   ...
//! dx4 = P[4*wx + 4 : 16 step 4]       dx4 = dx0 from its second lane on, and P[4*wx + 64]
//! ```
//!
//! A load `s` elements behind another has its lanes but the first, and one more.
//!
//! Where lanes lie further apart, and with AVX2, which has no permutation of two vectors, the elements that several loads take of one lane come as a piece
//! of 16 bytes, and the shuffles of turned stores make vectors of them.

use super::WideIsa;
use super::inst::*;
use super::select::{MOST_STRIDE, Selector, chunks};
use super::tree::{Node, Place, Spread, Stride, Val};
use super::turned::PIECE;
use crate::Result;

/// What of one load a register holds: which of its lanes are in which lane of the register.
#[derive(Clone)]
struct Part {
    reg: V,
    lanes: Vec<(usize, usize)>,
}

impl Selector<'_> {
    /// How many statements from the first on load neighbours whose lanes are apart, so many that all between them is read: they go together.
    pub(super) fn strided(&self, nodes: &[Node]) -> usize {
        let load = |n: &Node| match n {
            Node::Set { entry, value: Val::Load(p) } => Some((*entry, p.clone())),
            _ => None,
        };
        let Some((entry, first)) = nodes.first().and_then(load) else { return 0 };
        let Some(s) = &first.spread else { return 0 };
        let size = self.size();
        let all = chunks(s.count, size, self.isa, self.widest);
        let full = all.len() == 1 && all[0].active * size == all[0].w.bytes();
        // How many loads give all that lies between the lanes, or a piece of each lane.
        let (least, most) = match s.stride {
            Stride::Const(_) if self.permutes(s) => (s.step, 2 * s.step),
            Stride::Const(_) => ((PIECE / size) as i64, i64::MAX),
            Stride::Arg(_) => return 0,
        };
        let apart = s.step > 1 || s.stride != Stride::Const(size as i64);
        if !self.turns || !apart || !full || s.clip.is_some() || self.tree.entries[entry] != s.count {
            return 0;
        }
        let follows = |(i, n): (usize, &Node)| {
            let disp = first.disp as i64 + (i * size) as i64;
            load(n).is_some_and(|(e, p)| {
                self.tree.entries[e] == s.count && p.group == first.group && p.disp as i64 == disp && p.spread == first.spread
            })
        };
        let n = nodes.iter().enumerate().take_while(|n| follows(*n)).count() as i64;
        if n >= least { n.min(most) as usize } else { 0 }
    }

    /// Whether permutations take lanes that are so near from whole vectors.
    fn permutes(&self, s: &Spread) -> bool {
        self.isa == WideIsa::Avx512 && s.stride == Stride::Const(self.size() as i64) && (2..=MOST_STRIDE).contains(&s.step)
    }

    /// Statements that go together.
    pub(super) fn load_strided_together(&mut self, nodes: &[Node]) -> Result<()> {
        let mut into: Vec<V> = Vec::new();
        let mut place: Option<&Place> = None;
        for n in nodes {
            let Node::Set { entry, value: Val::Load(p) } = n else { unreachable!("loads go together") };
            into.push(self.first[*entry]);
            place = place.or(Some(p));
        }
        let p = place.expect("several statements go together");
        let s = p.spread.as_ref().expect("their lanes are apart");
        if !self.permutes(s) {
            return self.load_turned(p, &into);
        }
        let (size, step) = (self.size(), s.step as usize);
        let c = chunks(s.count, size, self.isa, self.widest)[0];
        let (w, per) = (c.w, c.active);
        let vector = |s: &mut Self, k: usize| -> Result<V> {
            let mem = s.mem(p, (k * per * size) as i64)?;
            let dst = s.vec();
            s.push(Inst::Load { dst, w, mem });
            Ok(dst)
        };
        // What each of the first loads has so far, in registers to be joined.
        let mut parts: Vec<Vec<Part>> = vec![Vec::new(); step];
        for k in (0..step).step_by(2) {
            let a = vector(self, k)?;
            let lanes = |e: usize, n: usize| -> Vec<(usize, usize)> {
                (0..per)
                    .map(|i| (i, i * step + e))
                    .filter(|l| (k * per..(k + n) * per).contains(&l.1))
                    .map(|l| (l.0, l.1 - k * per))
                    .collect()
            };
            if k + 1 == step {
                (0..step).for_each(|e| parts[e].push(Part { reg: a, lanes: lanes(e, 1) }));
                continue;
            }
            let b = vector(self, k + 1)?;
            let room = per / (2 * per).div_ceil(step);
            for e in (0..step).step_by(room) {
                let together: Vec<(usize, Vec<(usize, usize)>)> = (e..(e + room).min(step)).map(|e| (e, lanes(e, 2))).collect();
                let mut index = Vec::new();
                for (e, lanes) in &together {
                    // A load that is alone has its lanes where they belong.
                    let first = if room == 1 { lanes[0].0 } else { index.len() };
                    index.resize(first, 0);
                    index.extend(lanes.iter().map(|l| l.1));
                    let held = lanes.iter().enumerate().map(|(i, l)| (l.0, first + i)).collect();
                    parts[*e].push(Part { reg: 0, lanes: held });
                }
                index.resize(per, 0);
                let reg = self.permute(w, a, b, index, None);
                together.iter().for_each(|(e, _)| parts[*e].last_mut().expect("it was added").reg = reg);
            }
        }
        for (e, parts) in parts.into_iter().enumerate() {
            let last = parts.len() - 1;
            let mut have: Option<Part> = None;
            for (k, next) in parts.into_iter().enumerate() {
                let Some(held) = have else {
                    have = Some(next);
                    continue;
                };
                let mut index: Vec<usize> = vec![0; per];
                held.lanes.iter().for_each(|l| index[l.0] = l.1);
                next.lanes.iter().for_each(|l| index[l.0] = per + l.1);
                let reg = self.permute(w, held.reg, next.reg, index, (k == last).then_some(into[e]));
                have = Some(Part { reg, lanes: [held.lanes, next.lanes].concat().iter().map(|l| (l.0, l.0)).collect() });
            }
            let have = have.expect("every load has lanes in the first vectors");
            if have.reg != into[e] {
                self.push(Inst::Move { dst: into[e], w, src: have.reg });
            }
        }
        for e in step..into.len() {
            let mem = self.mem(p, ((step * per + e - step) * size) as i64)?;
            let last = self.vec();
            self.push(Inst::Splat { dst: last, w, mem });
            self.permute(w, into[e - step], last, (1..=per).collect(), Some(into[e]));
        }
        Ok(())
    }

    /// A piece of 16 bytes of each lane at a time, by the shuffles of turned stores: as many registers as there are elements in a piece.
    fn load_turned(&mut self, p: &Place, into: &[V]) -> Result<()> {
        let s = p.spread.as_ref().expect("their lanes are apart");
        let Stride::Const(bytes) = s.stride else { unreachable!("the distance of the lanes is known") };
        let (size, pitch) = (self.size(), bytes * s.step);
        let w = chunks(s.count, size, self.isa, self.widest)[0].w;
        let each = PIECE / size;
        let mut done = 0;
        while done < into.len() {
            // The last piece ends with the last load, so that nothing behind it is read.
            let first = done.min(into.len() - each);
            let mut rows = Vec::new();
            for lane in 0..each as i64 {
                let at = (first * size) as i64 + lane * pitch;
                let far = |i: usize| at + (i * each) as i64 * pitch;
                let pieces = (0..w.bytes() / PIECE).map(|i| self.mem(p, far(i))).collect::<Result<_>>()?;
                let dst = self.vec();
                rows.push(dst);
                self.push(Inst::LoadPieces { dst, w, pieces });
            }
            // Elements two by two: the lower or upper ones of two rows, or of two pairs of rows.
            for half in 0..each / 2 {
                let wanted = |e: usize| (done..into.len()).contains(&(first + e)).then(|| into[first + e]);
                let of = [wanted(2 * half), wanted(2 * half + 1)];
                if of == [None; 2] {
                    continue;
                }
                let pair = match rows[..] {
                    [a, b, c, d] => [[a, b], [c, d]].map(|rows| self.unpack(w, rows, half == 1, false, None)),
                    _ => [rows[0], rows[1]],
                };
                for (high, want) in of.into_iter().enumerate().filter(|o| o.1.is_some()) {
                    self.unpack(w, pair, high == 1, true, want);
                }
            }
            done = first + each;
        }
        Ok(())
    }

    fn unpack(&mut self, w: Width, [a, b]: [V; 2], high: bool, double: bool, want: Option<V>) -> V {
        let dst = want.unwrap_or_else(|| self.vec());
        self.push(Inst::Unpack { dst, w, a, b, high, double });
        dst
    }

    /// Lanes of two vectors: `index` counts those of the first, then those of the second.
    fn permute(&mut self, w: Width, a: V, b: V, index: Vec<usize>, want: Option<V>) -> V {
        let dst = want.unwrap_or_else(|| self.vec());
        self.push(Inst::Permute { dst, w, a, b, index });
        dst
    }
}
