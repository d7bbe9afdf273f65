//! Second step, guards: statements that run where some integers are positive, stores that go together although each has a guard of its own, and stores of a
//! tile that may leave the output: whether it does is asked once, not for each of them.

use super::inst::*;
use super::select::Selector;
use super::tree::{Lin, Node, Place};
use super::turned::PIECE;
use crate::Result;

/// Stores under guards that differ in a constant.
pub(super) struct Guarded<'n> {
    /// What holds where every guard does.
    all: Vec<Lin>,
    stores: Vec<Node>,
    /// The same stores under their guards.
    pub(super) together: &'n [Node],
}

/// Most comparisons that say whether all stores of a tile stay inside.
const MOST_TESTS: i64 = 4;

/// Stores, guarded or not, some of which may leave their windows.
pub(super) struct Clipped<'n> {
    /// What holds where none of them does.
    inside: Vec<Lin>,
    /// The stores without their windows.
    whole: Vec<Node>,
    pub(super) all: &'n [Node],
}

/// What holds where no lane of a store leaves its window; `None` if one always does.
fn stays(to: &Place, parts: usize) -> Option<Vec<Lin>> {
    let Some(s) = &to.spread else { return Some(Vec::new()) };
    let last = (s.count as i64 - 1) * s.step + parts as i64;
    let zero = Lin { inv: 0.into(), terms: Vec::new() };
    let (lo, hi) = s.clip.as_ref()?;
    let mut out: Vec<Lin> = lo.iter().map(|lo| zero.minus(lo)).collect();
    out.extend(hi.iter().cloned().map(|mut hi| {
        hi.inv.offset -= last;
        hi
    }));
    out.retain(|c| c.as_const().is_none_or(|c| c < 0));
    out.iter().all(|c| c.as_const().is_none()).then_some(out)
}

/// The store without its window.
fn unclipped(n: &Node) -> Node {
    match n.clone() {
        Node::Store { mut to, parts, stream } => {
            to.spread.iter_mut().for_each(|s| s.clip = None);
            Node::Store { to, parts, stream }
        }
        Node::When { conds, body } => Node::When { conds, body: body.iter().map(unclipped).collect() },
        n => n,
    }
}

/// Calls `f` for where stores go, and how many parts each has.
pub(super) fn visit_stores(nodes: &[Node], f: &mut impl FnMut(&Place, usize)) {
    for n in nodes {
        match n {
            Node::Store { to, parts, .. } => f(to, parts.len()),
            Node::When { body, .. } => visit_stores(body, f),
            Node::Set { .. } | Node::Loop { .. } => {}
        }
    }
}

/// Whether some stores may leave their windows.
pub(super) fn may_leave(stores: &[Node]) -> bool {
    let mut found = false;
    visit_stores(stores, &mut |to, parts| found |= stays(to, parts).is_none_or(|conds| !conds.is_empty()));
    found
}

/// What holds where all of the guards do, of which each differs from the first in constants.
fn strictest(guards: &[&Vec<Lin>]) -> Option<Vec<Lin>> {
    let first = guards[0];
    let mut least = vec![0; first.len()];
    for guard in guards {
        if guard.len() != first.len() {
            return None;
        }
        for ((g, f), least) in guard.iter().zip(first).zip(&mut least) {
            *least = (*least).min(g.minus(f).as_const()?);
        }
    }
    let mut all = first.clone();
    all.iter_mut().zip(least).for_each(|(c, least)| c.inv.offset += least);
    Some(all)
}

/// What is to be at least 0, and at most how much: the two ends of a range of known length are one comparison.
fn ranges(conds: &[Lin]) -> impl Iterator<Item = (&Lin, Option<i32>)> {
    let mut left: Vec<&Lin> = conds.iter().rev().collect();
    std::iter::from_fn(move || {
        let c = left.pop()?;
        let most = |other: &Lin| c.plus(other).as_const().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
        let other = left.iter().rposition(|o| most(o).is_some());
        Some((c, other.and_then(|o| most(left.remove(o)))))
    })
}

/// What guards among `nodes` test, but for constants, and how often; those inside loops and other guards as well, if they are `deep`.
fn collect_tested(nodes: &[Node], deep: bool, all: &mut Vec<(Lin, usize)>) {
    for n in nodes {
        let body = match n {
            Node::When { conds, body } => {
                for of in ranges(conds).map(|(c, _)| c.varying()) {
                    match all.iter_mut().find(|(l, _)| *l == of) {
                        Some((_, uses)) => *uses += 1,
                        None => all.push((of, 1)),
                    }
                }
                body
            }
            Node::Loop { body, .. } => body,
            Node::Set { .. } | Node::Store { .. } => continue,
        };
        if deep {
            collect_tested(body, deep, all);
        }
    }
}

impl Selector<'_> {
    /// Computes once what several guards among `nodes` test, but for a constant.
    pub(super) fn keep_tested(&mut self, nodes: &[Node]) {
        let mut all = Vec::new();
        collect_tested(nodes, false, &mut all);
        all.retain(|(_, uses)| *uses > 1);
        self.compute_tested(all);
    }

    /// Computes before a loop what guards in its body test, but for a constant, where the loop does not change that.
    pub(super) fn keep_tested_before(&mut self, body: &[Node]) {
        let mut all = Vec::new();
        collect_tested(body, true, &mut all);
        all.retain(|(of, _)| of.terms.iter().all(|(t, _)| self.open.contains(&t.of())));
        self.compute_tested(all);
    }

    fn compute_tested(&mut self, all: Vec<(Lin, usize)>) {
        for (of, _) in all {
            // What no loop of the tile moves is an argument already.
            if !of.terms.is_empty() && !self.tested.iter().any(|(l, _)| *l == of) {
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
        let tests = ranges(conds).map(|(c, most)| Test { of: self.test(c), most }).collect();
        self.region_begin(tests, false)
    }

    /// The beginning of a region that runs if every test holds, which may be seldom.
    pub(super) fn region_begin(&mut self, conds: Vec<Test>, seldom: bool) -> usize {
        let id = self.regions;
        self.regions += 1;
        self.push(Inst::WhenBegin { id, conds, seldom });
        id
    }

    /// What a guard compares with 0, from the register that holds the part it shares with others.
    fn test(&mut self, c: &Lin) -> IntExpr {
        let of = c.varying();
        match self.tested.iter().find(|(l, _)| *l == of) {
            Some((_, g)) => IntExpr { terms: vec![(IntTerm::Reg(*g), 1)], add: c.inv.offset },
            None => self.expr(c),
        }
    }

    /// Stores, each under a guard of its own, that are turned together where all of the guards hold; none if the first is not one of several.
    pub(super) fn guarded<'n>(&self, nodes: &'n [Node]) -> Option<Guarded<'n>> {
        let of = |n: &'n Node| match n {
            Node::When { conds, body } if matches!(body[..], [Node::Store { .. }]) => Some((conds, body[0].clone())),
            _ => None,
        };
        let (guards, mut stores): (Vec<&Vec<Lin>>, Vec<Node>) = nodes.iter().map_while(of).take(PIECE / self.size()).unzip();
        stores.truncate(self.turned(&stores));
        let n = stores.len();
        let all = if n > 1 { strictest(&guards[..n])? } else { return None };
        Some(Guarded { all, stores, together: &nodes[..n] })
    }

    /// All of the stores turned, or those that their guards allow.
    pub(super) fn store_guarded(&mut self, g: &Guarded) -> Result<()> {
        let id = self.when_begin(&g.all);
        self.block(&g.stores)?;
        self.push(Inst::WhenElse { id });
        for n in g.together {
            let Node::When { conds, body } = n else { unreachable!("only guarded stores go together") };
            self.when(conds, body)?;
        }
        self.push(Inst::WhenEnd { id });
        Ok(())
    }

    /// Several stores from the first node on of which some may leave their windows, if it is worth asking once whether any does.
    pub(super) fn clipped<'n>(&self, nodes: &'n [Node]) -> Option<Clipped<'n>> {
        let n = nodes.iter().take_while(|n| n.only_stores()).count();
        let all = &nodes[..n];
        let (mut inside, mut clipped, mut never): (Vec<Lin>, usize, bool) = (Vec::new(), 0, false);
        visit_stores(all, &mut |to, parts| {
            if to.spread.as_ref().is_none_or(|s| s.clip.is_none()) {
                return;
            }
            let Some(conds) = stays(to, parts) else {
                never = true;
                return;
            };
            clipped += if conds.is_empty() { 0 } else { parts };
            for c in conds {
                match inside.iter_mut().find(|i| i.varying() == c.varying()) {
                    Some(i) => i.inv.offset = i.inv.offset.min(c.inv.offset),
                    None => inside.push(c),
                }
            }
        });
        // One of the tiles fails each of the tests; where there are few, most would be asked in vain.
        let tests = inside.len() as i64;
        let around = inside.iter().flat_map(|c| &c.terms).map(|(t, _)| self.most_trips(t.of()));
        let mostly = around.flatten().max().is_none_or(|tiles| tiles > 2 * tests);
        let worth = self.wholes && !never && clipped > 1 && (1..=MOST_TESTS).contains(&tests) && mostly;
        worth.then(|| Clipped { inside, whole: all.iter().map(unclipped).collect(), all })
    }

    /// The stores as they are where none leaves its window, each in its window elsewhere; where they end the body of a loop, `own` says from which number on
    /// masks are theirs.
    pub(super) fn store_clipped(&mut self, c: &Clipped, own: Option<usize>) -> Result<()> {
        let id = self.when_begin(&c.inside);
        self.within_windows(&c.whole)?;
        self.push(Inst::WhenElse { id });
        if let Some(own) = own {
            self.keep_store_masks(c.all, own);
        }
        self.within_windows(c.all)?;
        self.push(Inst::WhenEnd { id });
        Ok(())
    }

    /// Stores whose windows have been asked for.
    fn within_windows(&mut self, nodes: &[Node]) -> Result<()> {
        let wholes = std::mem::replace(&mut self.wholes, false);
        let done = self.nodes(nodes);
        self.wholes = wholes;
        done
    }
}
