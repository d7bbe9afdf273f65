//! Third step: places for virtual registers, by linear scan over live ranges.
//!
//! Ranges have no holes, so the number of vector registers needed is the largest number of ranges that overlap, and the scan
//! reaches it. Vector registers are never spilled: a tile that needs more than the file is an error, because a plan that
//! spills accumulators is not worth running. Integer registers go to the stack frame where they are used least.
//!
//! A value set in one iteration of a loop and read in the next is live all through the loop; so is one that a conditional
//! region inside the loop sets and something outside that region reads.

use super::inst::{Inst, Role};
use super::select::Program;
use super::{Budget, WideIsa};
use crate::{Error, Kind, Result};

/// Where an integer virtual register lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loc {
    /// The index of an allocatable register.
    Reg(usize),
    /// The index of a slot of the frame.
    Slot(usize),
}

/// Places of all virtual registers, and what they come to.
pub(super) struct Places {
    pub v: Vec<usize>,
    pub g: Vec<Loc>,
    pub budget: Budget,
}

/// A live range `start..end` in half steps: an instruction reads at `2i` and writes at `2i + 1`.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
    weight: u64,
    /// Live all through some loop.
    carried: bool,
}

struct Region {
    begin: usize,
    end: usize,
    is_loop: bool,
    /// Whether it seldom runs.
    seldom: bool,
}

/// Live ranges of both classes of registers; `None` for one that does not occur.
struct Live {
    v: Vec<Option<Range>>,
    g: Vec<Option<Range>>,
}

impl Live {
    fn of(p: &Program) -> Live {
        let regions = regions(&p.code);
        let [v, g] = occurrences(p);
        Live { v: ranges(p, &regions, &v), g: ranges(p, &regions, &g) }
    }

    /// The registers that the program needs, whether or not they are there.
    fn budget(&self, p: &Program, isa: WideIsa) -> Budget {
        let peak = |from: usize, to: usize| overlap(self.v[from..to].iter().flatten());
        let carried = self.v[..p.resident].iter().flatten().filter(|r| r.carried).count();
        Budget {
            accumulators: carried,
            vectors: peak(0, p.resident).saturating_sub(carried),
            temporaries: peak(p.resident, p.vectors),
            peak: peak(0, p.vectors),
            file: isa.registers(),
            pointers: overlap(self.g.iter().flatten()),
            streams: p.streams,
            ..Budget::default()
        }
    }
}

/// The registers a program needs, whether or not they are there.
pub(super) fn measure(p: &Program, isa: WideIsa) -> Result<Budget> {
    check_set(p)?;
    Ok(Live::of(p).budget(p, isa))
}

/// Gives every virtual register a place; `ints` integer registers are there.
pub(super) fn allocate(p: &Program, isa: WideIsa, ints: usize) -> Result<Places> {
    check_set(p)?;
    let live = Live::of(p);
    let need = live.budget(p, isa);
    if need.peak > need.file {
        let m = format!(
            "the tile needs {} vector registers at once ({} accumulators, {} vectors, {} temporaries); {} has {}: use fewer accumulators",
            need.peak,
            need.accumulators,
            need.vectors,
            need.temporaries,
            isa.name(),
            need.file
        );
        return Err(Error::new(Kind::Options, m));
    }
    let v = scan(&live.v, isa.registers(), false);
    let g = scan(&live.g, ints, true);
    let in_file = |l: &Loc| match l {
        Loc::Reg(r) => *r,
        Loc::Slot(_) => unreachable!("vector registers are not spilled"),
    };
    let spilled = g.iter().filter(|l| matches!(l, Loc::Slot(_))).count();
    Ok(Places { v: v.iter().map(in_file).collect(), g, budget: Budget { spilled, ..need } })
}

/// An IR register that is read before anything sets it has no value.
fn check_set(p: &Program) -> Result<()> {
    let mut seen = vec![false; p.resident];
    let mut bad = false;
    for inst in &p.code {
        let mut v = |r: usize, role: Role| {
            if r < p.resident {
                bad |= role == Role::Use && !seen[r];
                seen[r] = true;
            }
        };
        inst.registers(&mut v, &mut |_, _| {});
    }
    match bad {
        true => Err(Error::new(Kind::Ir, "a register is read before the tile sets it; a tile keeps its registers to itself")),
        false => Ok(()),
    }
}

fn regions(code: &[Inst]) -> Vec<Region> {
    let (mut out, mut open) = (Vec::<Region>::new(), Vec::new());
    for (i, inst) in code.iter().enumerate() {
        match inst {
            Inst::LoopBegin { .. } | Inst::WhenBegin { .. } => {
                open.push(out.len());
                let seldom = matches!(inst, Inst::WhenBegin { seldom: true, .. });
                out.push(Region { begin: i, end: i, is_loop: matches!(inst, Inst::LoopBegin { .. }), seldom });
            }
            Inst::LoopEnd { .. } | Inst::WhenEnd { .. } => {
                let r: usize = open.pop().expect("regions nest");
                out[r].end = i;
            }
            _ => {}
        }
    }
    out
}

/// Where the registers of one class occur: instructions in order, those of one register side by side.
struct Occurrences {
    /// Where those of each register begin, and where the last one's end.
    starts: Vec<usize>,
    all: Vec<(usize, Role)>,
}

/// The occurrences of both classes.
fn occurrences(p: &Program) -> [Occurrences; 2] {
    let mut found: [Vec<(usize, usize, Role)>; 2] = Default::default();
    let [v, g] = &mut found;
    for (i, inst) in p.code.iter().enumerate() {
        inst.registers(&mut |r, role| v.push((r, i, role)), &mut |r, role| g.push((r, i, role)));
    }
    let sorted = |(of, count): (&Vec<(usize, usize, Role)>, usize)| {
        let mut starts = vec![0; count + 1];
        of.iter().for_each(|o| starts[o.0 + 1] += 1);
        (0..count).for_each(|r| starts[r + 1] += starts[r]);
        let (mut next, mut all) = (starts.clone(), vec![(0, Role::Use); of.len()]);
        for &(r, i, role) in of {
            all[next[r]] = (i, role);
            next[r] += 1;
        }
        Occurrences { starts, all }
    };
    [(&found[0], p.vectors), (&found[1], p.ints)].map(sorted)
}

/// Live ranges of one class of registers.
fn ranges(p: &Program, regions: &[Region], occurrences: &Occurrences) -> Vec<Option<Range>> {
    let mut depth = vec![0u32; p.code.len()];
    for r in regions.iter().filter(|r| r.is_loop) {
        depth[r.begin..=r.end].iter_mut().for_each(|d| *d += 1);
    }
    // What runs now and then inside a loop counts as if it stood outside.
    for r in regions.iter().filter(|r| r.seldom) {
        depth[r.begin + 1..r.end].iter_mut().for_each(|d| *d = d.saturating_sub(1));
    }
    let range = |w: &[usize]| {
        let at = &occurrences.all[w[0]..w[1]];
        let (first, role) = *at.first()?;
        let start = if role == Role::Def { 2 * first + 1 } else { 2 * first };
        let end = at.iter().map(|&(i, role)| if role == Role::Def { 2 * i + 2 } else { 2 * i + 1 }).max()?;
        let weight = at.iter().map(|&(i, _)| 8u64.saturating_pow(depth[i])).fold(0, u64::saturating_add);
        let mut out = Range { start, end, weight, carried: false };
        for r in regions.iter().filter(|r| r.is_loop) {
            if carried(at, r, regions) {
                out.start = out.start.min(2 * r.begin);
                out.end = out.end.max(2 * r.end + 2);
                out.carried = true;
            }
        }
        Some(out)
    };
    occurrences.starts.windows(2).map(range).collect()
}

/// Whether a register with these occurrences is live from one iteration of the loop to the next.
fn carried(at: &[(usize, Role)], r: &Region, regions: &[Region]) -> bool {
    let from = at.partition_point(|o| o.0 <= r.begin);
    let to = at.partition_point(|o| o.0 <= r.end);
    let Some(&(first, role)) = at[from..to].first() else { return false };
    if role == Role::Use {
        return true;
    }
    // Set first: by the loop's own body, or by a region inside it beyond which it must not be used.
    let inner = regions.iter().filter(|x| x.begin > r.begin && x.begin < first && first < x.end && x.end < r.end);
    let inner = inner.min_by_key(|x| x.end - x.begin);
    inner.is_some_and(|x| at[from..to].iter().any(|o| o.0 > x.end))
}

/// The largest number of ranges that are live at once.
fn overlap<'a>(ranges: impl Iterator<Item = &'a Range>) -> usize {
    let mut edges: Vec<(usize, i32)> = ranges.flat_map(|r| [(r.start, 1), (r.end, -1)]).collect();
    edges.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, d) in edges {
        now += d;
        most = most.max(now);
    }
    most as usize
}

/// Linear scan. Where registers run out the lightest range goes to the frame, if that is allowed.
fn scan(ranges: &[Option<Range>], registers: usize, spill: bool) -> Vec<Loc> {
    let mut order: Vec<usize> = (0..ranges.len()).filter(|&i| ranges[i].is_some()).collect();
    let of = |i: usize| ranges[i].as_ref().expect("only ranges that exist are in the order");
    order.sort_by_key(|&i| of(i).start);
    let mut out = vec![Loc::Reg(0); ranges.len()];
    let mut owner: Vec<Option<usize>> = vec![None; registers];
    let mut slots = 0;
    for i in order {
        for o in owner.iter_mut() {
            if o.is_some_and(|x| of(x).end <= of(i).start) {
                *o = None;
            }
        }
        if let Some(r) = owner.iter().position(Option::is_none) {
            owner[r] = Some(i);
            out[i] = Loc::Reg(r);
            continue;
        }
        assert!(spill, "the need was measured before");
        let lightest = (0..registers).min_by_key(|&r| owner[r].map(|x| of(x).weight)).expect("there are registers");
        let victim = owner[lightest].expect("all are taken");
        if of(victim).weight < of(i).weight {
            out[i] = Loc::Reg(lightest);
            out[victim] = Loc::Slot(slots);
            owner[lightest] = Some(i);
        } else {
            out[i] = Loc::Slot(slots);
        }
        slots += 1;
    }
    out
}
