//! One spatial axis of pass `winograd`: its windows, the phases that share them, and what of the direct nest says so.
//!
//! *Needs* the direct nest after pass `panel`. *Leaves* an [`Axis`], or the reason why the algorithm cannot be used along it.

use super::illegal;
use crate::Result;
use crate::ir::names::{on, part};
use crate::ir::{Access, Affine, Func, Loop, Name};
use crate::passes::block::{extreme, largest, phases};
use crate::passes::panel::PANEL;
use crate::passes::simplify::fix;
use crate::passes::toom_cook::ToomCook;

/// Phases of one axis that have equally many taps, and read the same window or windows that interleave.
pub struct Class {
    /// Where their window starts, from the first pixel of the panel; where windows interleave, or taps are summed, that of each phase.
    pub starts: Vec<i64>,
    /// The phases.
    pub phases: Vec<i64>,
    /// How many taps each of them has.
    pub taps: i64,
    /// Its matrices; where taps are summed with channels, those of one tap.
    pub toom: ToomCook,
    /// The first of its products in `V`.
    pub v: i64,
    /// The same in `u` and `M`.
    pub u: i64,
}

impl Class {
    /// The entry `i` of the window of phase number `f` in `V`, where taps are not summed.
    pub fn v(&self, i: usize, f: usize) -> i64 {
        let windows = self.starts.len();
        self.v + (i * windows + f % windows) as i64
    }
    /// The product `i` of phase number `f` of the class.
    pub fn u(&self, i: usize, f: usize) -> i64 {
        self.u + (i * self.phases.len() + f) as i64
    }
}

/// A variable that counts products along an axis.
pub struct Counter {
    pub var: Name,
    pub count: i64,
    /// What it counts of one window entry: it goes inside, so that the entry, or its weights, are read again while they are in a cache.
    pub inside: bool,
    /// Whether each has weights of its own.
    pub weighs: bool,
    /// Whether it goes around products and outputs: then what it counts is not held together.
    pub around: bool,
}

/// One spatial axis.
pub struct Axis {
    /// Its letter.
    pub name: &'static str,
    /// Outputs of each phase per window, `m`.
    pub outputs: i64,
    /// Phases: `s`, or as many times that as windows interleave.
    pub stride: i64,
    /// Pixels between two neighbours of a window, and two positions: 1, or as many windows as interleave.
    pub apart: i64,
    pub classes: Vec<Class>,
    /// Whether one phase is finished before the next begins.
    pub by_phase: bool,
    /// Which product of the window each entry of `u` is of.
    pub of: Vec<i64>,
    /// Whether its taps are summed with the channels, and pixels go into `V` as they are: windows of one output along x save nothing.
    pub summed: bool,
    /// Windows of one block; the most, if how many is known at run time only. Where taps are summed, pixels.
    pub windows: i64,
    /// The count that says how many there are.
    pub count: Option<Name>,
    /// Windows of one block whose outputs are wanted, and their count: all of them, unless taps are summed.
    pub wanted: i64,
    pub wanted_count: Option<Name>,
    /// The first position of the block.
    pub base: Affine,
    /// Whether there are several blocks along it.
    pub blocked: bool,
    /// Rows of the panel.
    pub panel: i64,
}

impl Axis {
    /// How many windows a block has.
    pub fn held(&self) -> Affine {
        self.count.as_ref().map_or(self.windows.into(), Affine::sym)
    }
    /// How many of them have outputs that are wanted.
    pub fn stored(&self) -> Affine {
        self.wanted_count.as_ref().map_or(self.wanted.into(), Affine::sym)
    }
    /// Pixels behind a position that its taps read.
    pub fn reach(&self) -> i64 {
        self.windows - self.wanted
    }
    pub fn var(&self, role: &str) -> Name {
        on(role, self.name)
    }
    pub fn at(&self, role: &str) -> Affine {
        Affine::var(self.var(role))
    }
    /// Entries of a transformed window.
    pub fn v(&self) -> i64 {
        self.of.iter().max().map_or(0, |v| v + 1)
    }
    /// The same, as a dimension of `V`, if it is one.
    pub fn v_dim(&self) -> Option<i64> {
        (!self.summed).then(|| self.v())
    }
    /// Outputs per window that are computed together.
    pub fn h(&self) -> i64 {
        if self.by_phase { self.outputs } else { self.stride * self.outputs }
    }
    /// Which output of its window number `h` of them is.
    pub fn output(&self) -> Affine {
        if self.by_phase { self.at("h") * self.stride + self.at("f") } else { self.at("h") }
    }
    /// Whether all phases share every window: then a product is counted by window entry and phase, and phases go inside, so that a window entry
    /// is read again while it is in a cache.
    pub fn shared(&self) -> Option<&Class> {
        self.alike().filter(|c| self.shares(c))
    }
    /// Whether phases of a class share a window, or all of the pixels.
    fn shares(&self, c: &Class) -> bool {
        self.summed || c.starts.len() == 1
    }
    /// Whether one phase can be finished before the next begins: their windows are the same, so nothing is transformed twice.
    pub fn separable(&self) -> bool {
        self.shared().is_some_and(|c| c.phases.len() as i64 == self.stride)
    }
    /// The class, if there is one of several phases: their products are counted by entry and phase.
    fn alike(&self) -> Option<&Class> {
        if let [c] = &self.classes[..] { Some(c).filter(|c| c.phases.len() > 1) } else { None }
    }
    /// Whether a table says which entry of the window a product is of.
    pub fn in_table(&self) -> bool {
        self.alike().is_none()
    }
    /// What counts products, with the place of product `u`.
    fn placed(&self, u: i64) -> Vec<(Counter, i64)> {
        let one = |role, count: usize| Counter { var: self.var(role), count: count as i64, inside: false, weighs: true, around: false };
        let Some(c) = self.alike() else {
            return vec![(one("u", self.of.len()), u)];
        };
        let (shared, phases) = (self.shares(c), c.phases.len());
        let role = if shared { "f" } else { "e" };
        let of_phase = Counter { inside: true, weighs: shared, around: self.by_phase, ..one(role, phases) };
        let entry = (!self.summed).then(|| (one("v", c.toom.products()), u / phases as i64));
        entry.into_iter().chain([(of_phase, u % phases as i64)]).collect()
    }
    /// What counts taps that are summed with channels; the most, where phases differ.
    pub fn taps(&self) -> Option<Counter> {
        let count = self.classes.iter().map(|c| c.taps).max().filter(|_| self.summed)?;
        Some(Counter { var: self.var("t"), count, inside: false, weighs: true, around: false })
    }
    /// The loop over them.
    pub fn tap_loop(&self) -> Option<Loop> {
        let all = self.taps()?;
        let alike = self.classes.iter().all(|c| c.taps == all.count);
        let hi = if alike { all.count.into() } else { Affine::table(self.var("t."), self.var("u")) };
        Some(Loop { hi: vec![hi], ..Loop::new(all.var, all.count, Vec::new()) })
    }
    /// What of each product, in the order of `u`, tables say where phases differ: which entry of the window, or which pixel is the first, and how many taps.
    pub fn tables(&self) -> Vec<(Name, Vec<i64>)> {
        let taps = || self.classes.iter().flat_map(|c| vec![c.taps; c.phases.len()]).collect();
        let starts = || (self.var("p."), self.classes.iter().flat_map(|c| c.starts.clone()).collect());
        match (self.in_table(), self.summed) {
            (false, false) => Vec::new(),
            (false, true) => vec![starts()],
            (true, false) => vec![(self.var("v."), self.of.clone())],
            (true, true) => vec![starts(), (self.var("t."), taps())],
        }
    }
    /// How far behind the position of a product the pixel of a tap lies, where taps are summed.
    pub fn pixel(&self) -> Affine {
        if !self.summed {
            return 0.into();
        }
        let phase = self.var(if self.in_table() { "u" } else { "f" });
        Affine::table(self.var("p."), phase) + self.at("t")
    }
    /// What counts the products that are held.
    pub fn counters(&self) -> Vec<Counter> {
        self.placed(0).into_iter().map(|p| p.0).filter(|c| !c.around).collect()
    }
    /// What counts the products that have weights of their own.
    pub fn factors(&self) -> Vec<Counter> {
        self.placed(0).into_iter().map(|p| p.0).filter(|c| c.weighs).chain(self.taps()).collect()
    }
    /// What goes around products and outputs.
    pub fn around(&self) -> Vec<Counter> {
        self.placed(0).into_iter().map(|p| p.0).filter(|c| c.around).collect()
    }
    pub fn counts(&self) -> Vec<i64> {
        self.counters().iter().map(|c| c.count).collect()
    }
    pub fn product(&self) -> Vec<Affine> {
        self.counters().into_iter().map(|c| Affine::var(c.var)).collect()
    }
    /// The index of product `u`.
    pub fn product_at(&self, u: i64) -> Vec<Affine> {
        self.placed(u).into_iter().filter(|p| !p.0.around).map(|p| p.1.into()).collect()
    }
    /// The index of its weights, of a tap if taps are summed.
    pub fn factor_at(&self, u: i64, tap: i64) -> Vec<Affine> {
        let tap = self.taps().map(|_| tap.into());
        self.placed(u).into_iter().filter(|p| p.0.weighs).map(|p| p.1.into()).chain(tap).collect()
    }
    /// Which entry of the window a product is of, if that is a dimension of `V`.
    pub fn entry(&self) -> Option<Affine> {
        match self.alike() {
            _ if self.summed => None,
            Some(c) if c.starts.len() > 1 => Some(self.at("v") * c.starts.len() as i64 + self.at("e")),
            Some(_) => Some(self.at("v")),
            None => Some(Affine::table(self.var("v."), self.var("u"))),
        }
    }
    /// The pixels that its windows read, from the start of a window.
    pub fn pixels(&self) -> std::ops::Range<i64> {
        if self.summed {
            return 0..1;
        }
        let of = |c: &Class| c.starts.iter().map(|s| *s..s + (c.toom.products() as i64 - 1) * self.apart + 1).collect::<Vec<_>>();
        let all = || self.classes.iter().flat_map(of);
        all().map(|p| p.start).min().unwrap_or(0)..all().map(|p| p.end).max().unwrap_or(0)
    }
    /// Pixels from one window to the next.
    pub fn advance(&self) -> i64 {
        self.outputs * self.apart
    }
}

/// The loops over products in a transform. Their phases have names of their own: those of the products may be a tile's, which pass `tile` takes apart.
pub fn loops_over(counters: Vec<Counter>) -> impl Iterator<Item = Loop> {
    counters.into_iter().map(|c| Loop::new(if c.inside { part(&c.var, "y") } else { c.var }, c.count, Vec::new()))
}

/// The index of the product that these loops are at.
pub fn index_over(counters: Vec<Counter>) -> impl Iterator<Item = Affine> {
    loops_over(counters).map(|l| Affine::var(l.var))
}

/// The name of the product of the counts of several axes.
pub fn counts_of(axes: &[Axis]) -> Name {
    let counted = axes.iter().filter(|a| a.count.is_some()).map(|a| a.name);
    format!("n.{}", counted.collect::<String>()).into()
}

/// The symbol for the counts of some axes, if there is one.
pub fn counted_within(axes: &[Axis]) -> Option<Name> {
    let mut counted = axes.iter().filter(|a| a.count.is_some());
    match (counted.next(), counted.next()) {
        (Some(one), None) => one.count,
        (Some(_), Some(_)) => Some(counts_of(axes)),
        _ => None,
    }
}

/// What surrounds the products of the direct nest.
pub struct Around<'a> {
    pub func: &'a Func,
    pub par: &'a [Loop],
    pub loops: &'a [Loop],
    pub taps: &'a [Loop],
    pub pixel: &'a Access,
    pub weight: &'a Access,
    pub output: &'a Access,
}

impl Around<'_> {
    /// The axis of that number and name, with windows of so many outputs per phase.
    ///
    /// # Errors
    /// What forbids the algorithm, and what is legal instead.
    pub fn axis(&self, a: usize, name: &'static str, outputs: i64) -> Result<Axis> {
        let Around { func, par, loops, taps, pixel, weight, output } = *self;
        let (q, r, t) = (on("q", name), on("r", name), on("t", name));
        let cannot = |why: &str| illegal(format!("the algorithm cannot be used along {name}: {why}; legal: a direct plan"));
        let find = |l: &[Loop], v: &Name| l.iter().find(|l| l.var == *v).cloned();
        let stride = find(loops, &r).and_then(|l| l.const_range()).map_or(1, |(_, s)| s);
        let block = find(par, &part(&q, "b"));
        let positions = find(loops, &q);
        let base = match (&block, &positions) {
            (Some(b), _) => Affine::var(b.var),
            (None, Some(l)) => extreme(&l.lo[0], func, phases(loops), false),
            (None, None) => 0.into(),
        };
        let whole = |l: &Loop| (extreme(&l.hi[0], func, phases(loops), true) - base.clone()).as_const();
        let span = match (&block, &positions) {
            (Some(b), _) => largest(func, b),
            (None, Some(l)) => whole(l).ok_or_else(|| cannot("its extent is open and the block is the whole axis"))?,
            (None, None) => 1,
        };
        if block.is_some() && span % outputs != 0 {
            return Err(illegal(format!("a block of {span} positions along {q} does not hold whole windows of {outputs}")));
        }
        if positions.is_none() && outputs != 1 {
            return Err(cannot("it has one position; legal: windows of 1"));
        }
        let o = &output.index[a + 2];
        let steps = [(&q, stride, positions.is_some()), (&r, 1, stride > 1)];
        if steps.iter().any(|(v, by, there)| *there && o.coef_of_var(v.as_str()) != *by) {
            return Err(crate::passes::unexpected("winograd", "outputs a stride apart"));
        }

        // Classes of phases, by where their window starts and how many taps it serves. Where windows interleave, each phase has one of its own; where taps are
        // summed, each starts at a pixel of its own.
        let apart = positions.as_ref().map_or(1, |_| pixel.index[a + 1].coef_of_var(q.as_str()));
        let summed = outputs == 1 && apart == 1 && a > 0 && a + 3 == output.index.len() && positions.is_some();
        let mut classes: Vec<Class> = Vec::new();
        let fixed = |e: &Affine, r0: i64, t0: i64| {
            let e = fix(&fix(e, r.as_str(), r0, &func.tables), t.as_str(), t0, &func.tables);
            e.subst(q.as_str(), &base).as_const()
        };
        for phase in 0..stride {
            let count = match find(taps, &t) {
                Some(l) => fixed(&l.hi[0], phase, 0).ok_or_else(|| cannot("its number of taps is not known"))?,
                None => 1,
            };
            let reads: Option<Vec<i64>> = (0..count).map(|t| fixed(&pixel.index[a + 1], phase, t)).collect();
            let known = (0..count).all(|t| fixed(&weight.index[a + 2], phase, t).is_some());
            let reads = reads.filter(|_| known).ok_or_else(|| cannot("what a tap reads is not known"))?;
            let Some(&start) = reads.last() else { continue };
            if reads.iter().rev().enumerate().any(|(i, &at)| at != start + i as i64 * apart) {
                return Err(cannot("its taps do not read neighbouring pixels"));
            }
            let own = apart > 1 || summed;
            match classes.iter_mut().find(|c| (own || c.starts == [start]) && c.taps == count) {
                Some(c) => {
                    c.phases.push(phase);
                    c.starts.extend(own.then_some(start));
                }
                None => {
                    let taps = if summed { 1 } else { count as usize };
                    let toom = usize::try_from(outputs).ok().filter(|m| *m > 0).and_then(|m| ToomCook::new(m, taps));
                    let toom = toom.ok_or_else(|| cannot(&format!("{outputs} outputs of {count} taps need more points than there are")))?;
                    classes.push(Class { starts: vec![start], phases: vec![phase], taps: count, toom, v: 0, u: 0 });
                }
            }
        }
        let mut of = Vec::new();
        let mut v = 0;
        for c in &mut classes {
            (c.v, c.u) = (v, of.len() as i64);
            of.extend((0..c.toom.products()).flat_map(|i| (0..c.phases.len()).map(move |f| (i, f))).map(|(i, f)| c.v(i, f)));
            v += (c.toom.products() * c.starts.len()) as i64;
        }
        if classes.is_empty() {
            return Err(cannot("no tap hits it"));
        }
        let panel = func.buffer(PANEL).dims[a + 1].as_const().unwrap_or(1);
        let wanted = (span + outputs - 1) / outputs;
        let wanted_count = block.as_ref().and_then(|b| b.times);
        let last = |c: &Class| c.starts.iter().map(|start| start + c.taps - 1).max();
        let reach = classes.iter().filter_map(last).max().filter(|_| summed).unwrap_or(0);
        let (windows, count) = (wanted + reach, wanted_count.map(|n| if summed { part(&n, "p") } else { n }));
        let blocked = block.is_some();
        Ok(Axis {
            name,
            outputs,
            stride,
            apart,
            classes,
            by_phase: false,
            of,
            summed,
            windows,
            count,
            wanted,
            wanted_count,
            base,
            blocked,
            panel,
        })
    }
}
