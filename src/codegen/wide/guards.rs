//! Second step, guards: statements that run where some integers are positive, and stores that go together although each has a guard of its own.

use super::inst::*;
use super::select::Selector;
use super::tree::{Lin, Node};
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

impl Selector<'_> {
    /// Computes once what several guards among `nodes` test, but for a constant.
    pub(super) fn keep_tested(&mut self, nodes: &[Node]) {
        let mut all: Vec<(Lin, usize)> = Vec::new();
        for n in nodes {
            let Node::When { conds, .. } = n else { continue };
            for of in ranges(conds).map(|(c, _)| c.varying()) {
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
        let tests = ranges(conds).map(|(c, most)| Test { of: self.test(c), most }).collect();
        self.region_begin(tests)
    }

    /// The beginning of a region that runs if every test holds.
    pub(super) fn region_begin(&mut self, conds: Vec<Test>) -> usize {
        let id = self.regions;
        self.regions += 1;
        self.push(Inst::WhenBegin { id, conds });
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
}
