//! Second step, masks: where loads that may leave a row stay under the same mask, it is made once.
//!
//! A load that is clipped by itself compares its bounds with the lanes it has, and makes a mask if it leaves the row. Bounds that a loop does not change, or that
//! several loads share, would be compared again and again; so their masks are made before the loop, or at the top of its body, and stay in a mask register
//! until its end. AVX2 has masks in vectors, which accumulators need; they wait in the frame, from where a mask is another load.

use super::WideIsa;
use super::inst::*;
use super::select::{Selector, chunks};
use super::tree::{Clips, Lin, Node, Place};

/// How many are kept: as many as there are mask registers but for `k0`, which means no mask, and `k1`, which serves what is masked on its own.
pub(super) const KEPT: usize = 6;
/// Least loads at the top of a loop's body that make a mask worth keeping.
const SHARED: usize = 2;

/// Coordinates from here on are all alike, outside, so that they can be compared in 32 bits.
pub(super) const FAR: i32 = 1 << 30;

/// The mask of a chunk of a clipped load.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mask {
    clip: Clips,
    lane: usize,
    active: usize,
}

impl Selector<'_> {
    /// Keeps the masks, as far as there are registers, of loads in `body` whose bounds are known by now; `repeated` if a loop is about to run it. Says how many
    /// were kept before.
    pub(super) fn keep_masks(&mut self, body: &[Node], repeated: bool) -> usize {
        let before = self.masks.len();
        let mut wanted: Vec<(Mask, usize)> = Vec::new();
        self.collect(body, repeated, &mut wanted);
        let least = if repeated { 1 } else { SHARED };
        wanted.retain(|(_, uses)| *uses >= least);
        wanted.sort_by_key(|(_, uses)| std::cmp::Reverse(*uses));
        wanted.truncate(KEPT.saturating_sub(before));
        for (mask, _) in wanted {
            let to = self.masks.len();
            let inst = match self.as_range(&mask) {
                Some((first, range)) => Inst::MaskRange { to, active: mask.active, first, range, tmp: self.vec() },
                None => {
                    let (lo, hi) = (self.extreme(&mask.clip.0, true), self.extreme(&mask.clip.1, false));
                    let tmp = (self.isa == WideIsa::Avx2).then(|| self.vec());
                    Inst::Mask { to, active: mask.active, window: Window { lo, hi }.shifted(mask.lane as i64), tmp }
                }
            };
            self.push(inst);
            self.masks.push(mask);
        }
        before
    }

    /// The coordinate of lane 0 from the lower bound on, and how far the upper one is from that, if that is known and the lanes are a whole vector.
    fn as_range(&mut self, mask: &Mask) -> Option<(Bound, i32)> {
        let ([lo], [hi]) = (&mask.clip.0[..], &mask.clip.1[..]) else { return None };
        let range = hi.minus(lo).as_const().and_then(|n| i32::try_from(n).ok()).filter(|n| (0..FAR).contains(n))?;
        if lo.as_const().is_some() || ![16, 32, 64].contains(&(mask.active * self.size())) {
            return None;
        }
        let first = Lin { inv: (mask.lane as i64).into(), terms: Vec::new() }.minus(lo);
        Some((self.extreme(&[first], true), range))
    }

    /// The masks of the loads in `nodes` that can be made here, and how many loads each serves. Those of loops inside are made when these begin, unless
    /// `repeated` says that a loop around them does.
    fn collect(&self, nodes: &[Node], repeated: bool, out: &mut Vec<(Mask, usize)>) {
        let known = |l: &Lin| l.terms.iter().all(|(t, _)| self.open.contains(&t.of()));
        for n in nodes {
            match n {
                Node::Loop { body, .. } if repeated => self.collect(body, repeated, out),
                Node::Loop { .. } => {}
                Node::When { body, .. } => self.collect(body, repeated, out),
                Node::Set { .. } | Node::Store { .. } => n.visit_loads(&mut |p| {
                    let Some(clip) = self.clip_of(p).filter(|clip| clip.0.iter().chain(&clip.1).all(known)) else { return };
                    let count = p.spread.as_ref().map_or(1, |s| s.count);
                    for c in chunks(count, self.size(), self.isa, self.widest) {
                        let mask = Mask { clip: clip.clone(), lane: c.lane, active: c.active };
                        if self.masks.contains(&mask) {
                            continue;
                        }
                        match out.iter_mut().find(|(m, _)| *m == mask) {
                            Some((_, uses)) => *uses += 1,
                            None => out.push((mask, 1)),
                        }
                    }
                }),
            }
        }
    }

    /// What clips a load of neighbouring lanes, if it may leave that.
    fn clip_of<'p>(&self, p: &'p Place) -> Option<&'p Clips> {
        let s = p.spread.as_ref().filter(|s| s.side_by_side(self.size()))?;
        let clip = s.clip.as_ref()?;
        let holds = |all: &[Lin], f: &dyn Fn(i64) -> bool| all.iter().all(|l| l.as_const().is_some_and(f));
        let inside = holds(&clip.0, &|lo| lo <= 0) && holds(&clip.1, &|hi| hi >= s.count as i64);
        (!inside).then_some(clip)
    }

    /// The number of the mask of a chunk, if it is kept.
    pub(super) fn kept_mask(&self, p: &Place, lane: usize, active: usize) -> Option<usize> {
        let clip = self.clip_of(p)?;
        self.masks.iter().position(|m| m.clip == *clip && m.lane == lane && m.active == active)
    }
}
