//! Registers are set before they are read: `unroll` loops are written out, so that register arrays are followed
//! entry by entry; a `when` that unrolled variables do not decide, or a loop that may have no iteration, sets nothing
//! for what follows it. A tile keeps its registers to itself: what is set on one side of its border is not read on the other.
//!
//! Runs after the other checks, on functions in which names resolve and ranks match. Names are resolved once (`Step`), since a
//! statement of a tile runs hundreds of times here. A section starts with nothing set, and writes out to at most
//! [`MOST_STEPS`] statements.

use super::*;
use smallvec::SmallVec;

/// Most statements of a section, unroll loops written out.
const MOST_STEPS: usize = 1 << 18;
/// The region of statements outside of tiles; each tile has one of its own.
const OUTSIDE: u32 = 1;

/// A statement with its names resolved.
struct Step<'a> {
    stmt: &'a Stmt,
    does: Does<'a>,
}

enum Does<'a> {
    /// A body that runs.
    All(Vec<Step<'a>>),
    /// The body of a tile.
    Tile(Vec<Step<'a>>),
    /// A body that may not run: what it sets does not count afterwards.
    Perhaps(Vec<Step<'a>>),
    /// An unroll loop; its variable has the slot.
    Unroll {
        slot: usize,
        lo: Sum<'a>,
        hi: Sum<'a>,
        step: i64,
        body: Vec<Step<'a>>,
    },
    When(Vec<Test<'a>>, Vec<Step<'a>>),
    Assign {
        reads: Vec<Entry<'a>>,
        sets: Option<Entry<'a>>,
    },
}

/// An index expression over the slots of unrolled variables; `None` if something else is in it.
type Sum<'a> = Option<(i64, SmallVec<[(Factor<'a>, i64); 2]>)>;

enum Factor<'a> {
    Var(usize),
    Table(&'a [i64], usize),
}

enum Test<'a> {
    Range([Sum<'a>; 3]),
    Multiple(Sum<'a>, i64),
}

/// One register of an array.
struct Entry<'a> {
    /// The number of the array's first register among all registers.
    first: usize,
    name: &'a Name,
    index: &'a [Affine],
    places: SmallVec<[(Sum<'a>, usize); 2]>,
}

pub(super) fn check(func: &Func, report: &mut Report) {
    for (section, body) in [("prepare", &func.prepare), ("run", &func.run)] {
        report.within(
            || section.into(),
            |report| {
                let (mut arrays, mut count) = (Vec::new(), 0);
                for array in &func.regs {
                    arrays.push((array, count));
                    count += registers(array);
                }
                let steps = Resolver { func, arrays, unrolled: Vec::new() }.list(body);
                let mut flow = Flow { unrolled: Vec::new(), set: vec![0; count], region: OUTSIDE, tiles: 0, steps: 0 };
                flow.all(&steps, report);
                if flow.steps > MOST_STEPS {
                    report.add(format!("it writes out to more than {MOST_STEPS} statements; make its unroll loops shorter"));
                }
            },
        );
    }
}

/// The registers of an array.
fn registers(array: &Reg) -> usize {
    array.dims.iter().product()
}

struct Resolver<'a> {
    func: &'a Func,
    /// The arrays of registers, each with the number of its first register among all registers.
    arrays: Vec<(&'a Reg, usize)>,
    /// Variables of the unroll loops around; a variable's place is its slot.
    unrolled: Vec<&'a Name>,
}

impl<'a> Resolver<'a> {
    fn list(&mut self, body: &'a [Stmt]) -> Vec<Step<'a>> {
        body.iter().map(|stmt| Step { stmt, does: self.statement(stmt) }).collect()
    }

    fn statement(&mut self, s: &'a Stmt) -> Does<'a> {
        match s {
            Stmt::For(l) if l.kind == LoopKind::Unroll => {
                let (lo, hi, slot) = (self.sum(&l.lo[0]), self.sum(&l.hi[0]), self.unrolled.len());
                self.unrolled.push(&l.var);
                let body = self.list(&l.body);
                self.unrolled.pop();
                Does::Unroll { slot, lo, hi, step: l.step, body }
            }
            Stmt::For(l) => match range::Values::of(l) {
                Some(Some(_)) => Does::All(self.list(&l.body)),
                // Without iterations, too: code is made of it.
                Some(None) | None => Does::Perhaps(self.list(&l.body)),
            },
            Stmt::When { conds, body } => {
                let test = |c: &'a Cond| match c {
                    Cond::Range { lo, e, hi } => Test::Range([self.sum(lo), self.sum(e), self.sum(hi)]),
                    Cond::Multiple { e, m } => Test::Multiple(self.sum(e), *m),
                };
                Does::When(conds.iter().map(test).collect(), self.list(body))
            }
            Stmt::Tile { body, .. } => Does::Tile(self.list(body)),
            Stmt::Set { reg, index, value } => Does::Assign { reads: self.reads([value]), sets: self.entry(reg, index) },
            Stmt::Store { parts, .. } => Does::Assign { reads: self.reads(parts), sets: None },
        }
    }

    fn reads(&self, values: impl IntoIterator<Item = &'a Value>) -> Vec<Entry<'a>> {
        let mut out = Vec::new();
        for v in values {
            v.visit(&mut |v| {
                if let Value::Reg(name, index) = v {
                    out.extend(self.entry(name, index));
                }
            });
        }
        out
    }

    fn entry(&self, name: &'a Name, index: &'a [Affine]) -> Option<Entry<'a>> {
        let &(array, first) = self.arrays.iter().find(|(array, _)| array.name == *name)?;
        let places = index.iter().zip(&array.dims).map(|(e, &dim)| (self.sum(e), dim)).collect();
        Some(Entry { first, name, index, places })
    }

    fn sum(&self, e: &'a Affine) -> Sum<'a> {
        let slot = |v: &Name| self.unrolled.iter().position(|u| *u == v);
        let factor = |atom: &Atom| match atom {
            Atom::Var(v) => Some(Factor::Var(slot(v)?)),
            Atom::Table(t, v) => Some(Factor::Table(&self.func.find_table(t)?.values, slot(v)?)),
            Atom::Sym(_) | Atom::Scaled(..) | Atom::Div(..) => None,
        };
        let terms = e.terms.iter().map(|(atom, &coef)| Some((factor(atom)?, coef))).collect::<Option<_>>()?;
        Some((e.offset, terms))
    }
}

struct Flow {
    /// The values of the unrolled variables, by slot.
    unrolled: Vec<i64>,
    /// In which region each register was set, array after array; 0 if it was not.
    set: Vec<u32>,
    /// The region at hand.
    region: u32,
    /// How many tiles there were.
    tiles: u32,
    steps: usize,
}

impl Flow {
    fn all(&mut self, body: &[Step<'_>], report: &mut Report) {
        body.iter().for_each(|s| self.step(s, report));
    }

    fn step(&mut self, s: &Step<'_>, report: &mut Report) {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return;
        }
        report.within(
            || step_name(s.stmt),
            |report| match &s.does {
                Does::All(body) => self.all(body, report),
                Does::Tile(body) => {
                    self.tiles += 1;
                    let around = std::mem::replace(&mut self.region, OUTSIDE + self.tiles);
                    self.all(body, report);
                    self.region = around;
                }
                Does::Perhaps(body) => self.perhaps(body, report),
                Does::Unroll { slot, lo, hi, step, body } => self.unroll(*slot, [lo, hi], *step, body, report),
                Does::When(tests, body) => match self.decided(tests) {
                    Some(true) => self.all(body, report),
                    Some(false) => {}
                    None => self.perhaps(body, report),
                },
                Does::Assign { reads, sets } => {
                    reads.iter().for_each(|e| self.read(e, report));
                    if let Some(place) = sets.as_ref().and_then(|e| self.place(e, report)) {
                        self.set[place] = self.region;
                    }
                }
            },
        );
    }

    fn perhaps(&mut self, body: &[Step<'_>], report: &mut Report) {
        if !body.iter().any(assigns) {
            return self.all(body, report);
        }
        let before = self.set.clone();
        self.all(body, report);
        self.set = before;
    }

    fn unroll(&mut self, slot: usize, bounds: [&Sum<'_>; 2], step: i64, body: &[Step<'_>], report: &mut Report) {
        let [Some(mut v), Some(end)] = bounds.map(|b| self.value(b)) else {
            return report.add("a bound has no value: a table has no such entry, or 64 bits do not hold it");
        };
        self.unrolled.truncate(slot);
        self.unrolled.push(v);
        while v < end && self.steps <= MOST_STEPS {
            self.unrolled[slot] = v;
            self.all(body, report);
            let Some(next) = v.checked_add(step) else { break };
            v = next;
            // A loop with an empty body takes steps too.
            self.steps += 1;
        }
        self.unrolled.truncate(slot);
    }

    /// Whether conditions hold, where unrolled variables decide that.
    fn decided(&self, tests: &[Test<'_>]) -> Option<bool> {
        let mut all = Some(true);
        for t in tests {
            let holds = match t {
                Test::Range([lo, e, hi]) => (|| {
                    let e = self.value(e)?;
                    Some(self.value(lo)? <= e && e < self.value(hi)?)
                })(),
                Test::Multiple(e, m) => self.value(e).map(|e| e.rem_euclid(*m) == 0),
            };
            match holds {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
        }
        all
    }

    /// The value of an expression in unrolled variables; `None` if it has others, overflows, or a table has no such entry.
    fn value(&self, sum: &Sum<'_>) -> Option<i64> {
        let (offset, terms) = sum.as_ref()?;
        terms.iter().try_fold(*offset, |sum, (factor, coef)| {
            let v = match factor {
                Factor::Var(slot) => self.unrolled[*slot],
                Factor::Table(values, slot) => *values.get(usize::try_from(self.unrolled[*slot]).ok()?)?,
            };
            sum.checked_add(v.checked_mul(*coef)?)
        })
    }

    /// The place of an entry among all registers, reported if it is outside of its array.
    fn place(&self, entry: &Entry<'_>, report: &mut Report) -> Option<usize> {
        let mut place: usize = 0;
        for ((e, dim), text) in entry.places.iter().zip(entry.index) {
            let Some(i) = self.value(e) else {
                report.add(format!("index {text} of {} has no value: a table has no such entry, or 64 bits do not hold it", entry.name));
                return None;
            };
            match usize::try_from(i).ok().filter(|i| i < dim) {
                Some(i) => place = place * dim + i,
                None => {
                    report.add(format!("index {text} of {} is {i}; it must lie in 0..{dim}", entry.name));
                    return None;
                }
            }
        }
        Some(entry.first + place)
    }

    fn read(&self, entry: &Entry<'_>, report: &mut Report) {
        let Some(place) = self.place(entry, report) else { return };
        let set = self.set[place];
        if set == self.region {
            return;
        }
        let (read, at) = (Value::Reg(*entry.name, entry.index.to_vec()), self.iteration(entry));
        report.add(match set {
            0 => format!("{read} is read before it is set on every path{at}"),
            OUTSIDE => format!("{read} is set outside of the tile that reads it{at}; a tile keeps its registers to itself"),
            _ => format!("{read} is set inside a tile and read outside of it{at}; a tile keeps its registers to itself"),
        });
    }

    /// Which iteration of the unrolled loops an entry is of: ` (oc.t = 2)`.
    fn iteration(&self, entry: &Entry<'_>) -> String {
        let mut at = Vec::new();
        for ((e, _), text) in entry.places.iter().zip(entry.index) {
            let slots = e.iter().flat_map(|(_, terms)| terms).map(|(Factor::Var(slot) | Factor::Table(_, slot), _)| *slot);
            let values: Vec<_> = text.terms.keys().zip(slots).collect();
            for (atom, slot) in values {
                if let Atom::Var(v) | Atom::Table(_, v) | Atom::Scaled(_, v) = atom {
                    at.push(format!("{v} = {}", self.unrolled[slot]));
                }
            }
        }
        at.dedup();
        if at.is_empty() { String::new() } else { format!(" ({})", at.join(", ")) }
    }
}

/// Whether something in it sets a register.
fn assigns(s: &Step<'_>) -> bool {
    match &s.does {
        Does::All(body) | Does::Tile(body) | Does::Perhaps(body) | Does::Unroll { body, .. } | Does::When(_, body) => {
            body.iter().any(assigns)
        }
        Does::Assign { sets, .. } => sets.is_some(),
    }
}
