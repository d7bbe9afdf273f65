//! Weights as they lie in memory: kernel positions of one channel side by side, and channels side by side where the tile reads all of their positions.
//!
//! Copies are as fast as what lies side by side is long. Where the tile reads neighbours in the order of memory, its dimensions are one; where channels lie
//! along the lanes, each position's lanes are far apart, but positions are neighbours, and are copied together.
//!
//! ```text
//! wp[oc.b, ic, oc.t, ry, rx] = w[ic, 3*oc.b + oc.t, ry, rx]        ⇒  for w.t in 0..12: wp[oc.b, ic, w.t] = w[ic, 12*oc.b + w.t]
//!
//! wp[oc.b, ic, tx, rx, oc.t] = w[ic, 16*oc.b + oc.t, 2*tx - rx + 1]  ⇒  pack0 = w[ic, 16*oc.b + oc.t, 0]; pack1 = w[ic, 16*oc.b + oc.t, 1]; …
//!                                                                      wp[oc.b, ic, 0, 1, oc.t] = pack0; wp[oc.b, ic, 0, 0, oc.t] = pack1; …
//! ```

use super::{COPY, Dim, PACKED};
use crate::ir::{Access, Affine, Atom, Cond, Name, Reg, Stmt, Table, Value};
use crate::passes::simplify::fix;

/// Kernel positions that are written out.
const WRITTEN_OUT: i64 = 32;
/// Those that wait in registers at a time.
const WAITING: usize = 8;
/// How many have to be neighbours for it to pay.
const NEIGHBOURS: usize = 4;
/// What counts the neighbours that are one dimension.
const TOGETHER: &str = "w.t";

/// The extents when the dimensions from `first` on are one.
pub fn flattened(extents: &[i64], first: usize) -> Vec<i64> {
    [&extents[..first], &[extents[first..].iter().product()]].concat()
}

/// Between which values, both included, an index runs, if only the dimensions' variables move it.
fn range(index: &Affine, dims: &[Dim]) -> Option<(i64, i64)> {
    index.terms.iter().try_fold((index.offset, index.offset), |(lo, hi), (atom, by)| {
        let Atom::Var(v) = atom else { return None };
        let most = (dims.iter().find(|d| d.var == *v)?.extent.as_const()? - 1) * by;
        Some((lo + most.min(0), hi + most.max(0)))
    })
}

fn inside(index: &Affine, extent: i64, dims: &[Dim]) -> bool {
    range(index, dims).is_some_and(|(lo, hi)| 0 <= lo && hi < extent)
}

/// Where the last dimensions of the tile follow memory: the weights with their last dimensions as one, and the tile's as one. Unless there are `masks`, no
/// tile may have channels that do not exist.
pub fn together(from: &Access, dims: &[Dim], extents: &[i64], masks: bool) -> Option<(Access, Vec<Dim>)> {
    (1..extents.len() - 1).find_map(|first| {
        let (outside, inner) = from.index.split_at(first);
        let here = inner.iter().zip(&extents[first..]).fold(Affine::from(0), |at, (e, n)| at * *n + e.clone());
        let (mut size, mut n) = (1, 0);
        for d in dims.iter().rev() {
            let (var, extent) = (d.var.as_str(), d.extent.as_const());
            let Some(extent) = extent.filter(|_| here.coef_of_var(var) == size && !outside.iter().any(|e| e.uses_var(var))) else {
                break;
            };
            (size, n) = (size * extent, n + 1);
        }
        // No position may be outside of the kernel: it would be another one of the next channel.
        let whole = (first + usize::from(masks)..extents.len()).all(|d| inside(&from.index[d], extents[d], dims));
        let plain = here.terms.keys().all(|a| matches!(a, Atom::Var(_)));
        if n < 2 || !whole || !plain {
            return None;
        }
        let (rest, merged) = dims.split_at(dims.len() - n);
        let zero = |e: &Affine| merged.iter().fold(e.clone(), |e, d| e.subst(d.var.as_str(), &0.into()));
        let flattened = Access { index: [outside, &[zero(&here) + Affine::var(TOGETHER)]].concat(), ..from.clone() };
        let at = merged.iter().fold(Affine::from(0), |at, d| at + d.index.clone() * here.coef_of_var(d.var.as_str()));
        let one = Dim { index: at, ..Dim::new(&TOGETHER.into(), size.into()) };
        Some((flattened, [rest, &[one]].concat()))
    })
}

/// Copies of neighbouring positions, for channels along the lanes.
pub struct Rows {
    /// The dimensions that loops still run over.
    pub around: Vec<Dim>,
    pub body: Vec<Stmt>,
    /// From which dimension on those of the weights are one.
    pub first: usize,
    pub regs: Vec<Reg>,
}

/// One entry of the tile's: the values of the variables that are written out.
type Entry = Vec<(Name, i64)>;

/// Where channels lie along the lanes: all positions of the last dimensions, written out.
pub fn rows(from: &Access, dims: &[Dim], extents: &[i64], tables: &[Table]) -> Option<Rows> {
    let (lanes, others) = dims.split_last()?;
    let along = |e: &Affine| e.uses_var(lanes.var.as_str());
    let channels = from.index[1].coef_of_var(lanes.var.as_str()) == 1 && !from.index.iter().enumerate().any(|(d, e)| d != 1 && along(e));
    if !channels || !(0..2).all(|d| inside(&from.index[d], extents[d], dims)) {
        return None;
    }
    // The last dimensions, as many as there is room for.
    let (mut first, mut entries): (usize, Vec<Entry>) = (extents.len(), vec![Vec::new()]);
    while first > 2
        && let Some(more) = written_out(&entries, &from.index[first - 1], others)
    {
        (first, entries) = (first - 1, more);
    }
    let written = |v: &Name| entries[0].iter().any(|e| e.0 == *v);
    let whole = first == 2 && extents[2..].iter().all(|e| *e == 1);
    if first == extents.len() || from.index[..first].iter().any(|e| e.vars().iter().any(written)) {
        return None;
    }
    let fixed = |e: &Affine, entry: &Entry| entry.iter().fold(e.clone(), |e, (v, i)| fix(&e, v.as_str(), *i, tables));
    // Where each entry lies, if there is such a position.
    let mut placed: Vec<(Option<i64>, Vec<Affine>)> = Vec::new();
    for entry in &entries {
        let at: Vec<i64> = from.index[first..].iter().map(|e| fixed(e, entry).as_const()).collect::<Option<_>>()?;
        let exists = at.iter().zip(&extents[first..]).all(|(i, n)| (0..*n).contains(i));
        let place = exists.then(|| at.iter().zip(&extents[first..]).fold(0, |at, (i, n)| at * n + i));
        placed.push((place, dims.iter().map(|d| fixed(&Affine::var(d.var), entry)).collect()));
    }
    placed.sort_by_key(|p| p.0);
    let mut positions: Vec<i64> = placed.iter().filter_map(|p| p.0).collect();
    positions.dedup();
    if positions.len() < NEIGHBOURS && !whole {
        return None;
    }
    let outer: Vec<Cond> = (2..first)
        .filter(|d| !inside(&from.index[*d], extents[*d], dims))
        .map(|d| Cond::Range { lo: 0.into(), e: from.index[d].clone(), hi: extents[d].into() })
        .collect();
    let reg = |i: usize| Name::from(format!("{COPY}{i}"));
    let store = |to: &[Affine], from: Value| Stmt::store(PACKED, to.to_vec(), from);
    let mut body = Vec::new();
    for positions in positions.chunks(WAITING) {
        let load = |(i, at): (usize, &i64)| {
            // With one position only, channels are neighbours.
            let index = if whole { from.index[..2].to_vec() } else { [&from.index[..first], &[Affine::from(*at)]].concat() };
            Stmt::set(reg(i), Value::Load(Access { index, ..from.clone() }))
        };
        let zeros = (0..positions.len()).filter(|_| !outer.is_empty()).map(|i| Stmt::set(reg(i), Value::Const(0.0)));
        body.extend(zeros);
        body.extend(Stmt::when(outer.clone(), positions.iter().enumerate().map(load).collect()));
        for (i, at) in positions.iter().enumerate() {
            body.extend(placed.iter().filter(|p| p.0 == Some(*at)).map(|p| store(&p.1, Value::reg(reg(i)))));
        }
    }
    body.extend(placed.iter().filter(|p| p.0.is_none()).map(|p| store(&p.1, Value::Const(0.0))));
    let regs = (0..positions.len().min(WAITING)).map(|i| Reg { name: reg(i), lanes: 1, dims: Vec::new() }).collect();
    let around = dims.iter().filter(|d| !written(&d.var)).cloned().collect();
    Some(Rows { around, body, first: if whole { 1 } else { first }, regs })
}

/// The entries for every value of the variables of one more index, if they are not too many.
fn written_out(entries: &[Entry], index: &Affine, dims: &[Dim]) -> Option<Vec<Entry>> {
    let mut out = entries.to_vec();
    for d in dims.iter().filter(|d| index.uses_var(d.var.as_str()) && !entries[0].iter().any(|e| e.0 == d.var)) {
        let each = d.extent.as_const().filter(|n| n * out.len() as i64 <= WRITTEN_OUT)?;
        out = out.iter().flat_map(|e| (0..each).map(move |i| [&e[..], &[(d.var, i)]].concat())).collect();
    }
    Some(out)
}
