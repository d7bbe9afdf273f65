//! Second step, masks: where accesses that may leave a row stay under the same mask, it is made once.
//!
//! An access that is clipped by itself compares its bounds with the lanes it has, and makes a mask if it leaves the row. Bounds that a loop does not change, or that
//! several loads share, would be compared again and again; so their masks are made before the loop, or at the top of its body, and stay in a mask register
//! until its end; those of stores that end the body, before the first of them. Masks a number of lanes apart share their bounds, and take a comparison for each. AVX2 has masks
//! in vectors, which accumulators need; they wait in the frame, from where a mask is another load. Its stores go lane by lane.

use super::WideIsa;
use super::guards::visit_stores;
use super::inst::*;
use super::select::{Selector, chunks};
use super::tree::{Clips, Lin, Node, Place, Spread, Term};

/// How many are kept: as many as there are mask registers but for `k0`, which means no mask, and `k1`, which serves what is masked on its own.
pub(super) const KEPT: usize = 6;
/// Least loads at the top of a loop's body that make a mask worth keeping.
const SHARED: usize = 2;

/// Coordinates from here on are all alike, outside, so that they can be compared in 32 bits.
pub(super) const FAR: i32 = 1 << 30;

/// Masks further apart than this many coordinates do not share bounds.
const NEAR: i64 = 1 << 20;

/// The mask of a chunk of a clipped access.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mask {
    clip: Clips,
    /// The coordinate of its first lane, relative to the bounds.
    at: usize,
    active: usize,
}

/// By how much each of some bounds is less than its counterpart in `all`, if that is the same number.
fn less(all: &[Lin], than: &[Lin]) -> Option<i64> {
    let mut less = all.iter().zip(than).map(|(a, b)| a.minus(b).as_const());
    let first = less.next()??;
    (all.len() == than.len() && first.abs() < NEAR && less.all(|d| d == Some(first))).then_some(first)
}

/// Bounds that are numbers of 32 bits: the largest, or least, of these expressions.
type Limits = Vec<(Vec<Lin>, bool, Bound)>;

impl Selector<'_> {
    /// Keeps the masks, as far as there are registers, of loads in `body` whose bounds are known by now; `repeated` if a loop is about to run it. Says how many
    /// were kept before.
    pub(super) fn keep_masks(&mut self, body: &[Node], repeated: bool) -> usize {
        let before = self.masks.len();
        let mut wanted = Vec::new();
        self.collect(body, repeated, &mut wanted);
        let least = if repeated { 1 } else { SHARED };
        wanted.retain(|(_, uses)| *uses >= least);
        self.make_masks(wanted);
        before
    }

    /// Keeps the masks, as far as there are registers, of stores that nothing but stores comes after; in place of those from `own` on, which nothing reads
    /// any more.
    pub(super) fn keep_store_masks(&mut self, stores: &[Node], own: usize) {
        if self.isa == WideIsa::Avx2 {
            return;
        }
        self.masks.truncate(own);
        let mut wanted = Vec::new();
        self.collect_stores(stores, &mut wanted);
        self.make_masks(wanted);
    }

    /// The same for stores that have not been asked whether they leave their windows; not where blocks do: few of many leave them, and the others had the masks for
    /// nothing.
    pub(super) fn keep_unasked_store_masks(&mut self, stores: &[Node], own: usize) {
        let mut blocks = false;
        visit_stores(stores, &mut |to, _| {
            let clips = to.spread.iter().filter_map(|s| s.clip.as_ref());
            blocks |= clips.flat_map(|clip| clip.0.iter().chain(&clip.1)).any(|l| !l.inv.vars().is_empty());
        });
        if !blocks {
            self.keep_store_masks(stores, own);
        }
    }

    /// Makes masks, those of which there are most uses first.
    fn make_masks(&mut self, mut wanted: Vec<(Mask, usize)>) {
        wanted.sort_by_key(|(_, uses)| std::cmp::Reverse(*uses));
        wanted.truncate(KEPT.saturating_sub(self.masks.len()));
        let mut limits = Limits::new();
        for (mask, _) in wanted {
            let starts_inside = mask.clip.0.iter().all(|lo| self.at_most(lo).is_some_and(|lo| lo <= mask.at as i64));
            let lo = if starts_inside { Bound::Const(mask.at as i64) } else { self.limit(&mask.clip.0, true, &mut limits) };
            let window = Window { lo, hi: self.limit(&mask.clip.1, false, &mut limits) }.shifted(mask.at as i64);
            let known = matches!((window.lo, window.hi), (Bound::Const(_), Bound::Const(_)));
            let tmp = (!known || self.isa == WideIsa::Avx2).then(|| self.vec());
            self.push(Inst::Mask { to: self.masks.len(), active: mask.active, window, tmp });
            self.masks.push(mask);
        }
    }

    /// The largest, or least, of several expressions as a number of 32 bits: from one that lies a number of coordinates off, if there is one.
    fn limit(&mut self, all: &[Lin], max: bool, limits: &mut Limits) -> Bound {
        let made = limits.iter().filter(|l| l.1 == max).find_map(|(of, _, bound)| Some(bound.plus(-less(of, all)?)));
        if let Some(bound) = made {
            return bound;
        }
        let bound = match self.extreme(all, max) {
            of @ Bound::Const(_) => of,
            of => {
                let dst = self.int();
                self.push(Inst::Limit { dst, of });
                Bound::Reg(dst, 0)
            }
        };
        limits.push((all.to_vec(), max, bound));
        bound
    }

    /// A number that an expression does not exceed, if its loops say so.
    fn at_most(&self, l: &Lin) -> Option<i64> {
        let least = |id: usize| {
            let l = &self.tree.loops[id];
            if l.from_zero { Some(0) } else { l.lo.iter().filter_map(Lin::as_const).max() }
        };
        let moved = |&(term, by): &(Term, i64)| match term {
            Term::Loop(id) if by <= 0 => least(id)?.checked_mul(by),
            _ => None,
        };
        l.terms.iter().map(moved).try_fold(l.inv.as_const()?, |sum, moved| sum.checked_add(moved?))
    }

    /// The masks of the loads in `nodes` that can be made here, and how many loads each serves. Those of loops inside are made when these begin, unless
    /// `repeated` says that a loop around them does.
    fn collect(&self, nodes: &[Node], repeated: bool, out: &mut Vec<(Mask, usize)>) {
        for n in nodes {
            match n {
                Node::Loop { body, .. } if repeated => self.collect(body, repeated, out),
                Node::Loop { .. } => {}
                Node::When { body, .. } => self.collect(body, repeated, out),
                Node::Set { .. } | Node::Store { .. } => n.visit_loads(&mut |p| {
                    let Some(clip) = self.clip_of(p).filter(|clip| self.known(clip)) else { return };
                    let count = p.spread.as_ref().map_or(1, |s| s.count);
                    for c in chunks(count, self.size(), self.isa, self.widest) {
                        self.want(Mask { clip: clip.clone(), at: c.lane, active: c.active }, out);
                    }
                }),
            }
        }
    }

    /// The masks of the stores in `nodes` whose parts fill memory, and how many stores each serves.
    fn collect_stores(&self, nodes: &[Node], out: &mut Vec<(Mask, usize)>) {
        for n in nodes {
            match n {
                Node::When { body, .. } => self.collect_stores(body, out),
                Node::Store { to, parts, .. } => {
                    let Some(s) = to.spread.as_ref().filter(|s| s.is_filled(parts.len(), self.size())) else { continue };
                    let Some(clip) = s.clip.as_ref().filter(|clip| self.known(clip)) else { continue };
                    for c in chunks(s.count, self.size(), self.isa, self.widest) {
                        for k in 0..parts.len() {
                            self.want(Mask { clip: clip.clone(), at: c.first_of(parts.len(), k, self.size()), active: c.active }, out);
                        }
                    }
                }
                Node::Set { .. } | Node::Loop { .. } => {}
            }
        }
    }

    /// Counts one more use of a mask, unless it is kept already.
    fn want(&self, mask: Mask, out: &mut Vec<(Mask, usize)>) {
        match out.iter_mut().find(|(m, _)| *m == mask) {
            Some((_, uses)) => *uses += 1,
            None if self.masks.contains(&mask) => {}
            None => out.push((mask, 1)),
        }
    }

    /// Whether the bounds of a clip are known by now.
    fn known(&self, clip: &Clips) -> bool {
        clip.0.iter().chain(&clip.1).all(|l| l.terms.iter().all(|(t, _)| self.open.contains(&t.of())))
    }

    /// What clips a load of neighbouring lanes, if it may leave that.
    fn clip_of<'p>(&self, p: &'p Place) -> Option<&'p Clips> {
        let s = p.spread.as_ref().filter(|s| s.side_by_side(self.size()))?;
        let clip = s.clip.as_ref()?;
        let holds = |all: &[Lin], f: &dyn Fn(i64) -> bool| all.iter().all(|l| l.as_const().is_some_and(f));
        let inside = holds(&clip.0, &|lo| lo <= 0) && holds(&clip.1, &|hi| hi >= s.count as i64);
        (!inside).then_some(clip)
    }

    /// The number of the mask of a chunk of a load, if it is kept.
    pub(super) fn kept_mask(&self, p: &Place, at: usize, active: usize) -> Option<usize> {
        self.kept_at(self.clip_of(p)?, at, active)
    }

    /// The same for a store from that coordinate of its window on. AVX2 stores under no mask.
    pub(super) fn kept_store_mask(&self, s: &Spread, at: usize, active: usize) -> Option<usize> {
        let clip = s.clip.as_ref().filter(|_| self.isa == WideIsa::Avx512)?;
        self.kept_at(clip, at, active)
    }

    fn kept_at(&self, clip: &Clips, at: usize, active: usize) -> Option<usize> {
        self.masks.iter().position(|m| m.clip == *clip && m.at == at && m.active == active)
    }
}
