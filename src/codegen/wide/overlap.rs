//! Second step, vectors that overlap: lines are loaded once, and what lies across two of them is shifted out of both.
//!
//! Taps read the same row a pixel further on each. A load that crosses the end of a cache line takes two reads, and on Zen 5 two cycles more. A tile of one
//! output channel, which uses each vector for few multiply-adds, then waits for loads: with k4 s2 in 3-D its loop, written by hand, ran at 0.40 of the
//! peak of Zen 5, with shifts at 0.90. Shifts share a unit with the multiply-adds, so tiles that have more of these for each load do without.
//!
//! ```text
//! v = P[px + 1 : 16]   ⇒   a, b = P[px : 16], P[px + 16 : 16]       v = lanes 1.. of a, then the first of b
//! ```
//!
//! Rows of a panel begin with a line each, and so does the first vector of a tile: of the vectors that a block reads at places that differ, those in step
//! with the first one are loaded, and others are shifted. Nothing is read but what lies between the first and the last byte that the block reads anyhow.

use super::WideIsa;
use super::inst::*;
use super::select::{Key, Selector, chunks};
use super::tree::{Node, Place, Val};
use crate::Result;
use crate::codegen::target::FEW_PRODUCTS;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

/// Bytes of a cache line, and of a vector of AVX-512.
const LINE: i32 = 64;

/// Vectors of one block that are shifted out of two others: where the first of these is, and by how many lanes.
pub(super) type Overlaps = HashMap<Key, (i32, usize)>;

/// The lines that a vector lies across, given the first of them.
pub(super) fn lines((group, _, lanes): Key, first: i32) -> [Key; 2] {
    [(group, first, lanes), (group, first + LINE, lanes)]
}

impl Selector<'_> {
    /// The vectors of a block that overlap others.
    pub(super) fn overlaps(&self, nodes: &[Node]) -> Overlaps {
        let mut all: Overlaps = HashMap::default();
        if self.isa != WideIsa::Avx512 || !self.shifts {
            return all;
        }
        let size = self.size();
        let mut loads: HashMap<usize, HashSet<i32>> = HashMap::default();
        let products = nodes.iter().filter(|n| matches!(n, Node::Set { value: Val::Fma(_), .. })).count();
        let whole = |p: &Place| p.spread.as_ref().is_some_and(|s| s.is_dense(size) && s.count * size == LINE as usize);
        nodes.iter().for_each(|n| {
            n.visit_loads(&mut |p| {
                if whole(p) {
                    loads.entry(p.group).or_default().insert(p.disp);
                }
            })
        });
        let vectors: usize = loads.values().map(HashSet::len).sum();
        if products == 0 || products as f64 > FEW_PRODUCTS * vectors as f64 {
            return all;
        }
        for (group, places) in loads {
            let (Some(&first), Some(&last)) = (places.iter().min(), places.iter().max()) else { continue };
            let behind = |at: i32| (at - first).rem_euclid(LINE);
            let inside = |at: i32| at - behind(at) + LINE <= last;
            let shifted = |at: &&i32| behind(**at) != 0 && (behind(**at) as usize).is_multiple_of(size) && inside(**at);
            let of: Vec<i32> = places.iter().filter(shifted).copied().collect();
            let starts: HashSet<i32> = of.iter().flat_map(|at| [at - behind(*at), at - behind(*at) + LINE]).collect();
            let more = starts.iter().filter(|at| !places.contains(at)).count();
            // Two loads for each that crosses a line.
            if more < 2 * of.len() {
                let key = |at: i32| (group, at, LINE as usize / size);
                all.extend(of.iter().map(|&at| (key(at), (at - behind(at), behind(at) as usize / size))));
            }
        }
        all
    }

    /// A whole vector out of two that it overlaps; `None` if it is to be loaded.
    pub(super) fn shifted(&mut self, p: &Place, want: Option<V>) -> Result<Option<V>> {
        let Some(&(first, by)) = self.overlapping.get(&p.key()) else { return Ok(None) };
        let lanes = p.spread.as_ref().map_or(1, |s| s.count);
        let c = chunks(lanes, self.size(), self.isa, self.widest)[0];
        let mut line = |disp: i32| -> Result<V> {
            let p = Place { disp, ..p.clone() };
            if let Some(v) = self.share(&p, c)? {
                return Ok(v);
            }
            let (mem, dst) = (self.mem(&p, 0)?, self.vec());
            self.push(Inst::Load { dst, w: c.w, mem });
            Ok(dst)
        };
        let (a, b) = (line(first)?, line(first + LINE)?);
        let dst = want.unwrap_or_else(|| self.vec());
        self.push(Inst::Shift { dst, w: c.w, a, b, by });
        Ok(Some(dst))
    }
}
