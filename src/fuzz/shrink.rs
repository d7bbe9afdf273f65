//! Shrinking: the smallest case that fails in the same way.
//!
//! *Needs* a [`Failure`]; *leaves* one whose problem no single step makes smaller. Greedy: of the steps (drop an axis, drop a feature, fewer
//! channels, smaller extents), the first that still fails is taken, and all are tried again.

use super::{Case, Failure, Fill, check};
use crate::Elem;
use crate::problem::{Activation, Deconv, Extent, Layout, Merge};

/// The most cases that are tried.
const BUDGET: usize = 800;

/// The smallest case found that fails in the same way.
pub fn shrink(failure: impl Into<Box<Failure>>) -> Failure {
    let mut best = *failure.into();
    let mut tried = 0;
    'again: loop {
        for case in smaller(&best.case) {
            if tried == BUDGET {
                return best;
            }
            tried += 1;
            if let Err(f) = check(&case)
                && f.kind() == best.kind()
            {
                best = *f;
                continue 'again;
            }
        }
        return best;
    }
}

/// Cases one step smaller that are legal, the boldest steps first.
fn smaller(case: &Case) -> Vec<Case> {
    let mut out = Vec::new();
    let p = &case.problem;
    let mut with = |problem: Deconv| out.push(Case { problem, ..case.clone() });
    features(p, &mut with);
    channels(p, &mut with);
    for a in 0..p.rank() {
        axis(p, a, &mut with);
    }
    out.extend(case.closed());
    for (i, &v) in case.extents.iter().enumerate() {
        let set = |v| {
            let mut c = case.clone();
            c.extents[i] = v;
            c
        };
        out.extend(fewer(v).map(set));
    }
    if case.threads > 1 {
        out.push(Case { threads: 1, ..case.clone() });
    }
    if case.fill != Fill::Integers {
        out.push(Case { fill: Fill::Integers, ..case.clone() });
    }
    if case.plan.is_some() {
        out.push(Case { plan: None, ..case.clone() });
    }
    if case.algorithm.is_some() {
        out.push(Case { algorithm: None, ..case.clone() });
    }
    if case.form.is_some() {
        out.push(Case { form: None, ..case.clone() });
    }
    if p.rank() > 1 {
        out.splice(0..0, (0..p.rank()).filter_map(|a| without_axis(case, a)));
    }
    out.retain(|c| c.problem.validate().is_ok() && c.sizes().is_ok());
    out
}

/// Smaller values than `v`, not below 1: one, half, one less.
fn fewer(v: usize) -> impl Iterator<Item = usize> {
    let mut all = vec![1, v / 2, v.saturating_sub(1)];
    all.retain(|n| (1..v).contains(n));
    all.dedup();
    all.into_iter()
}

fn without_axis(case: &Case, a: usize) -> Option<Case> {
    // Open extents are named by their position, so that only closed cases lose axes.
    if !case.extents.is_empty() {
        return None;
    }
    let mut p = case.problem.clone();
    p.input.remove(a);
    for v in [&mut p.kernel, &mut p.stride, &mut p.dilation, &mut p.output_padding] {
        v.remove(a);
    }
    p.pad_begin.remove(a);
    p.pad_end.remove(a);
    Some(Case { problem: p, ..case.clone() })
}

fn features(p: &Deconv, with: &mut impl FnMut(Deconv)) {
    if p.bias {
        with(Deconv { bias: false, ..p.clone() });
    }
    if p.activation != Activation::None {
        with(Deconv { activation: Activation::None, ..p.clone() });
    }
    if p.merge != Merge::Sum {
        with(Deconv { merge: Merge::Sum, ..p.clone() });
    }
    if p.layout == Layout::ChannelsLast {
        with(Deconv { layout: Layout::ChannelsFirst, ..p.clone() });
    }
    if p.elem == Elem::F64 {
        with(Deconv { elem: Elem::F32, ..p.clone() });
    }
    if let Extent::Fixed(n) = p.batch {
        fewer(n).for_each(|n| with(Deconv { batch: Extent::Fixed(n), ..p.clone() }));
    }
}

fn channels(p: &Deconv, with: &mut impl FnMut(Deconv)) {
    let (per_in, per_out) = (p.c_in / p.groups, p.c_out / p.groups);
    let mut make = |g: usize, i: usize, o: usize| with(Deconv { groups: g, c_in: g * i, c_out: g * o, ..p.clone() });
    fewer(p.groups).for_each(|g| make(g, per_in, per_out));
    fewer(per_in).for_each(|i| make(p.groups, i, per_out));
    fewer(per_out).for_each(|o| make(p.groups, per_in, o));
}

/// Steps on one axis.
fn axis(p: &Deconv, a: usize, with: &mut impl FnMut(Deconv)) {
    let mut set = |change: &dyn Fn(&mut Deconv)| {
        let mut q = p.clone();
        change(&mut q);
        with(q);
    };
    if let Extent::Fixed(n) = p.input[a] {
        fewer(n).for_each(|n| set(&|q| q.input[a] = Extent::Fixed(n)));
    }
    fewer(p.kernel[a]).for_each(|k| set(&|q| q.kernel[a] = k));
    fewer(p.stride[a]).for_each(|s| set(&|q| q.stride[a] = s));
    fewer(p.dilation[a]).for_each(|d| set(&|q| q.dilation[a] = d));
    if p.output_padding[a] > 0 {
        set(&|q| q.output_padding[a] = 0);
    }
    if p.pad_begin[a] != 0 || p.pad_end[a] != 0 {
        set(&|q| (q.pad_begin[a], q.pad_end[a]) = (0, 0));
    }
    for pad in [0, p.pad_begin[a] - p.pad_begin[a].signum()] {
        if pad != p.pad_begin[a] {
            set(&|q| q.pad_begin[a] = pad);
        }
    }
    for pad in [0, p.pad_end[a] - p.pad_end[a].signum()] {
        if pad != p.pad_end[a] {
            set(&|q| q.pad_end[a] = pad);
        }
    }
}
