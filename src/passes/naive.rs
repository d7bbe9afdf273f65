//! Stage `naive`: the definition as a loop nest, before any pass.
//!
//! Every output walks over all taps and keeps those whose upsampled input position holds a pixel rather than an
//! inserted zero: the congruence guard. It is the picture that textbooks draw; `phases` makes the guards vanish.
//!
//! ```text
//! for n, g, oc, o…:
//!   acc = 0
//!   for k…:
//!     when (o + p - d*k) % s == 0 and 0 <= (o + p - d*k) / s < I:        per axis
//!       for ic:
//!         acc = fma(x[n, g*ICg + ic, (o + p - d*k) / s], w[g*ICg + ic, oc, k], acc)
//!   y[n, g*OCg + oc, o] = activation(acc + bias[g*OCg + oc])
//! ```
//!
//! With merge `mean` or `max` a patch value is summed over the channels first, then merged into `acc`, and `hits` counts
//! the patches that landed. Loops over one batch item or one group are left out.

use crate::ir::names::{self, ACC, BIAS, INPUT, OUTPUT, WEIGHT, on};
use crate::ir::{Affine, BinOp, Buffer, BufferKind, CmpOp, Cond, Func, Loop, Name, Reg, Stage, Stmt, UnOp, Value};
use crate::problem::{Activation, Deconv, Extent, Layout, Merge};

/// The register that counts the patches merged into one output.
pub const HITS: &str = "hits";
/// The register that sums one patch value over the input channels.
pub const PATCH: &str = "patch";

/// Builds the naive nest of a problem.
pub fn build(problem: &Deconv) -> Func {
    let axes = names::axes(problem.rank());
    let (icg, ocg) = (problem.c_in / problem.groups, problem.c_out / problem.groups);
    let channel = |per_group: usize, var: &str| match problem.groups {
        1 => Affine::var(var),
        _ => Affine::var("g") * per_group as i64 + Affine::var(var),
    };
    let n = if problem.batch == Extent::Fixed(1) { Affine::from(0) } else { Affine::var("n") };

    let upsampled =
        |a: usize| Affine::var(on("o", axes[a])) + problem.pad_begin[a] - Affine::var(on("k", axes[a])) * problem.dilation[a] as i64;
    let pixel = |a: usize| upsampled(a).floor_div(problem.stride[a] as i64);
    let mut conds = Vec::new();
    for a in 0..problem.rank() {
        if problem.stride[a] > 1 {
            conds.push(Cond::Multiple { e: upsampled(a), m: problem.stride[a] as i64 });
        }
        conds.push(Cond::Range { lo: 0.into(), e: pixel(a), hi: problem.input[a].affine() });
    }

    let per_axis = |f: &dyn Fn(usize) -> Affine| (0..problem.rank()).map(f).collect::<Vec<_>>();
    let index = |head: [Affine; 2], tail: Vec<Affine>| head.into_iter().chain(tail).collect::<Vec<_>>();
    let x = Value::load(INPUT, index([n.clone(), channel(icg, "ic")], per_axis(&pixel)));
    let w = Value::load(WEIGHT, index([channel(icg, "ic"), Affine::var("oc")], per_axis(&|a| Affine::var(on("k", axes[a])))));
    let reduce = |into: &str| -> Stmt {
        Loop::new("ic", icg as i64, vec![Stmt::set(into, Value::fma(x.clone(), w.clone(), Value::reg(into)))]).into()
    };

    let mut out = vec![Stmt::set(ACC, Value::Const(0.0))];
    let landing = match problem.merge {
        Merge::Sum => vec![reduce(ACC)],
        Merge::Mean | Merge::Max => {
            out.push(Stmt::set(HITS, Value::Const(0.0)));
            let merged = merge(problem.merge);
            let count = Value::bin(BinOp::Add, Value::reg(HITS), Value::Const(1.0));
            vec![Stmt::set(PATCH, Value::Const(0.0)), reduce(PATCH), Stmt::set(ACC, merged), Stmt::set(HITS, count)]
        }
    };
    let mut taps = vec![Stmt::When { conds, body: landing }];
    for a in (0..problem.rank()).rev() {
        taps = vec![Loop::new(on("k", axes[a]), problem.kernel[a] as i64, taps).into()];
    }
    out.append(&mut taps);
    let y = index([n, channel(ocg, "oc")], per_axis(&|a| Affine::var(on("o", axes[a]))));
    let oc = y[1].clone();
    out.push(Stmt::store(OUTPUT, y, finish(problem, oc)));

    for a in (0..problem.rank()).rev() {
        out = vec![Loop::new(on("o", axes[a]), problem.output_extent(a), out).into()];
    }
    out = vec![Loop::new("oc", ocg as i64, out).into()];
    if problem.groups > 1 {
        out = vec![Loop::new("g", problem.groups as i64, out).into()];
    }
    if problem.batch != Extent::Fixed(1) {
        out = vec![Loop::new("n", problem.batch.affine(), out).into()];
    }
    declare(problem, out)
}

/// The new value of `acc` when one more patch lands.
fn merge(merge: Merge) -> Value {
    let (acc, patch) = (Value::reg(ACC), Value::reg(PATCH));
    if merge == Merge::Mean {
        return Value::bin(BinOp::Add, acc, patch);
    }
    // `max` gives its second operand on NaN: an `acc` that is NaN has to be kept by hand.
    let larger = Value::bin(BinOp::Max, acc.clone(), patch.clone());
    let sticky = Value::select(CmpOp::Ne, acc.clone(), acc.clone(), acc, larger);
    Value::select(CmpOp::Eq, Value::reg(HITS), Value::Const(0.0), patch, sticky)
}

/// What is stored: the merged value, bias, activation.
fn finish(problem: &Deconv, oc: Affine) -> Value {
    let mut v = Value::reg(ACC);
    if problem.merge == Merge::Mean {
        // Where nothing lands, 0 / max(1, 0) is the 0 that is asked for.
        v = Value::bin(BinOp::Div, v, Value::bin(BinOp::Max, Value::Const(1.0), Value::reg(HITS)));
    }
    if problem.bias {
        v = Value::bin(BinOp::Add, v, Value::load(BIAS, vec![oc]));
    }
    match problem.activation {
        Activation::None => v,
        Activation::Relu => Value::bin(BinOp::Max, Value::Const(0.0), v),
        Activation::LeakyRelu(slope) => {
            let low = Value::bin(BinOp::Mul, v.clone(), Value::Const(slope));
            Value::select(CmpOp::Lt, v.clone(), Value::Const(0.0), low, v)
        }
        // The bound comes first, so that a NaN, the second operand, passes.
        Activation::Clamp(lo, hi) => Value::bin(BinOp::Min, Value::Const(hi), Value::bin(BinOp::Max, Value::Const(lo), v)),
        Activation::Tanh => Value::un(UnOp::Tanh, v),
        Activation::Sigmoid => Value::un(UnOp::Sigmoid, v),
    }
}

/// Wraps the nest into a function with its buffers, symbols and registers.
fn declare(problem: &Deconv, run: Vec<Stmt>) -> Func {
    let rank = problem.rank();
    let data = |name: &str, kind, channels: usize, spatial: Vec<Affine>| Buffer {
        name: name.into(),
        kind,
        elem: problem.elem,
        dims: [problem.batch.affine(), (channels as i64).into()].into_iter().chain(spatial).collect(),
        order: match problem.layout {
            Layout::ChannelsFirst => (0..rank + 2).collect(),
            Layout::ChannelsLast => [0].into_iter().chain(2..rank + 2).chain([1]).collect(),
        },
    };
    let dense = |name: &str, kind, dims: Vec<usize>| Buffer {
        name: name.into(),
        kind,
        elem: problem.elem,
        order: (0..dims.len()).collect(),
        dims: dims.into_iter().map(|d| (d as i64).into()).collect(),
    };
    let mut buffers = vec![
        data(INPUT, BufferKind::Input, problem.c_in, problem.input.iter().map(Extent::affine).collect()),
        dense(WEIGHT, BufferKind::Weight, problem.weight_shape()),
    ];
    if problem.bias {
        buffers.push(dense(BIAS, BufferKind::Bias, vec![problem.c_out]));
    }
    buffers.push(data(OUTPUT, BufferKind::Output, problem.c_out, (0..rank).map(|a| problem.output_extent(a)).collect()));
    let registers: &[&str] = if problem.merge == Merge::Sum { &[ACC] } else { &[ACC, HITS, PATCH] };
    Func {
        name: format!("deconv{rank}d").into(),
        stage: Stage::Naive,
        elem: problem.elem,
        counts: Vec::new(),
        symbols: symbols(problem),
        buffers,
        tables: Vec::new(),
        regs: registers.iter().map(|r| Reg { name: (*r).into(), lanes: 1, dims: Vec::new() }).collect(),
        prepare: Vec::new(),
        run,
    }
}

/// The run-time extents of a problem: batch first, then the axes, outermost first.
fn symbols(problem: &Deconv) -> Vec<Name> {
    let open = |e: &Extent| match e {
        Extent::Open(name) => Some(*name),
        Extent::Fixed(_) => None,
    };
    [&problem.batch].into_iter().chain(&problem.input).filter_map(open).collect()
}
