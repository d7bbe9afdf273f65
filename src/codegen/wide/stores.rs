//! Second step, stores: values leave their registers whole, interleaved, turned, or lane by lane.

use super::WideIsa;
use super::inst::*;
use super::select::{Chunk, Selector, chunks};
use super::tree::{Node, Place, Spread, Stride, Val};
use super::turned::{PIECE, TEMPORARIES};
use crate::{Error, Kind, Result};

impl Chunk {
    /// The first coordinate of vector `k` of this chunk of so many parts interleaved.
    pub(super) fn first_of(&self, parts: usize, k: usize, size: usize) -> usize {
        self.lane * parts + k * (self.w.bytes() / size)
    }
}

impl Spread {
    /// Whether so many parts fill memory without gaps.
    pub(super) fn is_filled(&self, parts: usize, size: usize) -> bool {
        parts as i64 == self.step && self.stride == Stride::Const(size as i64)
    }
    /// The same lanes `by` coordinates further on.
    fn moved(&self, by: i64) -> Spread {
        let mut out = self.clone();
        if let Some((lo, hi)) = &mut out.clip {
            lo.iter_mut().chain(hi).for_each(|l| l.inv.offset -= by);
        }
        out
    }
}

impl Selector<'_> {
    // Stores

    pub(super) fn store(&mut self, to: &Place, parts: &[Val], stream: bool) -> Result<()> {
        match &to.spread {
            None => {
                let [value] = parts else {
                    return Err(Error::new(Kind::Ir, format!("a scalar store has {} parts; one is legal", parts.len())));
                };
                self.copies = 1;
                let c = chunks(1, self.size(), self.isa, self.widest)[0];
                let src = self.value(value, 1, c, None)?;
                let mem = self.mem(to, 0)?;
                self.push(Inst::StoreScalar { src, mem });
            }
            Some(s) => self.store_lanes(to, s, parts, stream)?,
        }
        self.shared.retain(|x| x.1 != to.buffer);
        Ok(())
    }

    pub(super) fn store_lanes(&mut self, to: &Place, s: &Spread, parts: &[Val], stream: bool) -> Result<()> {
        let n = parts.len();
        if n == 0 || (n > 1 && n as i64 > s.step) {
            let m = format!("a store interleaves {n} parts at step {}; 1..={} are legal", s.step, s.step);
            return Err(Error::new(Kind::Ir, m));
        }
        let all = chunks(s.count, self.size(), self.isa, self.widest);
        self.copies = all.len();
        let dense = s.is_filled(n, self.size());
        let whole = all.iter().all(|c| c.active * self.size() == c.w.bytes());
        // A value that reads the buffer is complete before the first lane is written, unless each lane reads itself only.
        let reads_back = parts.iter().any(|p| p.loads_from(to.buffer, if n == 1 { Some(to) } else { None }));
        let mut ready = Vec::new();
        if reads_back {
            for c in &all {
                ready.push(self.parts(parts, s.count, *c)?);
            }
        }
        for c in all {
            let values = if reads_back { ready[c.index].clone() } else { self.parts(parts, s.count, c)? };
            if dense && (n == 1 || whole) {
                self.store_dense(to, s, &values, c, stream)?;
            } else {
                for (i, src) in values.into_iter().enumerate() {
                    let window = self.window(&s.clip).map(|b| b.shifted(s.step * c.lane as i64 + i as i64));
                    let at = self.scattered(to, s, c, i as i64)?;
                    self.push(Inst::StoreScattered { src, w: c.w, to: Scattered { window, ..at } });
                }
            }
        }
        Ok(())
    }

    pub(super) fn parts(&mut self, parts: &[Val], lanes: usize, c: Chunk) -> Result<Vec<V>> {
        parts.iter().map(|p| self.value(p, lanes, c, None)).collect()
    }

    /// Parts that fill memory without gaps: each vector that has a lane in the window is put together and stored.
    pub(super) fn store_dense(&mut self, to: &Place, s: &Spread, parts: &[V], c: Chunk, stream: bool) -> Result<()> {
        let (n, w, size) = (parts.len(), c.w, self.size() as i64);
        let first = |k: usize| c.first_of(n, k, size as usize) as i64;
        let kept: Vec<Option<usize>> = (0..n).map(|k| self.kept_store_mask(s, first(k) as usize, c.active)).collect();
        // Bounds are needed for what is not kept.
        let window = if kept.contains(&None) { self.window(&s.clip) } else { None };
        let written = |k: &usize| window.is_none_or(|b| !b.shifted(first(*k)).misses(c.active as i64));
        let stored: Vec<usize> = (0..n).filter(written).collect();
        let streams = self.in_pairs(parts, w, &stored);
        let q = streams.len();
        for k in stored {
            // Every vector that is stored is made of one vector of each stream.
            let of: Vec<V> = streams.iter().map(|s| s[k / q].expect("what is stored was wanted")).collect();
            let src = if q == 1 { of[0] } else { self.interleave(of, w, k % q) };
            let window = window.filter(|_| kept[k].is_none()).map(|b| b.shifted(first(k)));
            let mem = self.mem(to, first(k) * size)?;
            self.out.streams |= stream;
            self.push(Inst::StorePacked { src, w, to: Packed { mem, active: c.active, window, mask: None, kept: kept[k] }, stream });
        }
        Ok(())
    }

    /// Interleaves parts in pairs while their number is even: streams half of it apart become one, of twice as many vectors, at one permutation each. What
    /// is left, an odd number of streams, takes one permutation fewer than it has streams for each of the vectors `wanted`.
    fn in_pairs(&mut self, parts: &[V], w: Width, wanted: &[usize]) -> Vec<Vec<Option<V>>> {
        let n = parts.len();
        // By stream, and vector within it.
        let mut streams: Vec<Vec<Option<V>>> = parts.iter().map(|v| vec![Some(*v)]).collect();
        while self.turns && streams.len() > 1 && streams.len().is_multiple_of(2) {
            let half = streams.len() / 2;
            let needed = |v: usize| wanted.iter().any(|k| k / half == v);
            let mut joined = |a: &[Option<V>], b: &[Option<V>], v: usize| match (a[v / 2], b[v / 2]) {
                (Some(a), Some(b)) if needed(v) => Some(self.interleave(vec![a, b], w, v % 2)),
                _ => None,
            };
            streams = (0..half).map(|i| (0..n / half).map(|v| joined(&streams[i], &streams[i + half], v)).collect()).collect();
        }
        streams
    }

    fn interleave(&mut self, parts: Vec<V>, w: Width, k: usize) -> V {
        let tmp = (parts.len() > 2 || self.isa == WideIsa::Avx2).then(|| self.vec());
        let dst = self.vec();
        self.push(Inst::Interleave { dst, w, parts, k, tmp });
        dst
    }

    // Turned stores

    /// How many stores from the first on write neighbouring elements, each with lanes that are apart: they go together.
    pub(super) fn turned(&self, nodes: &[Node]) -> usize {
        fn place(n: &Node) -> Option<&Place> {
            match n {
                Node::Store { to, parts, stream: false } if parts.len() == 1 && !parts[0].loads_from(to.buffer, None) => Some(to),
                _ => None,
            }
        }
        let Some((first, lanes)) = nodes.first().and_then(place).and_then(|to| Some((to, to.spread.as_ref()?))) else { return 0 };
        let size = self.size();
        let one_chunk = chunks(lanes.count, size, self.isa, self.widest).len() == 1;
        if !self.turns || lanes.count == 1 || !one_chunk {
            return 0;
        }
        // What reaches the next lane would be written in another order. Lanes that are a run-time stride apart are in different rows.
        let apart = match lanes.stride {
            Stride::Const(bytes) => bytes.saturating_mul(lanes.step).unsigned_abs() as usize / size,
            Stride::Arg(_) => PIECE,
        };
        // The window stays where it is for all of them, or they move through it together.
        let moves = nodes.get(1).and_then(place).and_then(|p| p.spread.as_ref()).is_some_and(|s| s.clip != lanes.clip);
        let follows = |(i, n): (usize, &Node)| {
            let next = first.disp as i64 + (i * size) as i64;
            let spread = if moves { lanes.moved(i as i64) } else { lanes.clone() };
            place(n).is_some_and(|p| p.group == first.group && p.disp as i64 == next && p.spread.as_ref() == Some(&spread))
        };
        nodes.iter().take(apart.min(PIECE / size)).enumerate().take_while(|n| follows(*n)).count()
    }

    pub(super) fn store_turned(&mut self, nodes: &[Node]) -> Result<()> {
        let Node::Store { to, .. } = &nodes[0] else { unreachable!("only stores are turned") };
        let s = to.spread.as_ref().expect("turned stores have lanes");
        let c = chunks(s.count, self.size(), self.isa, self.widest)[0];
        self.copies = 1;
        let first = self.at;
        let (mut parts, mut moves) = (Vec::new(), false);
        for (i, n) in nodes.iter().enumerate() {
            let Node::Store { to: own, parts: values, .. } = n else { unreachable!("only stores are turned") };
            moves |= own.spread != to.spread;
            self.at = first + i;
            parts.push(self.value(&values[0], s.count, c, None)?);
        }
        let window = self.window(&s.clip).map(|b| b.shifted(s.step * c.lane as i64));
        let at = self.scattered(to, s, c, 0)?;
        let tmps = (0..TEMPORARIES).map(|_| self.vec()).collect();
        self.push(Inst::StoreTurned { parts, w: c.w, to: Scattered { window, ..at }, moves, tmps });
        self.shared.retain(|x| x.1 != to.buffer);
        Ok(())
    }
}
