//! Wide tiles: raw AVX2 and AVX-512 code does to the bit what the IR says, and touches nothing else.
#![cfg(target_arch = "x86_64")]

#[path = "wide_tile/emitted.rs"]
mod emitted;
#[path = "wide_tile/exec.rs"]
mod exec;
#[path = "wide_tile/random.rs"]
mod random;
#[path = "wide_tile/shapes.rs"]
mod shapes;

use exec::{Against, Machine, Num};
use polyphase::Kind;
use polyphase::codegen::wide::{WideIsa, budget, emit};
use polyphase::ir::*;
use shapes::*;

/// The levels this machine has.
fn levels() -> Vec<WideIsa> {
    [WideIsa::avx2(), WideIsa::avx512()].into_iter().flatten().collect()
}

/// Runs a function evaluated and native on both placements of its buffers and compares every buffer.
fn agree<T: Num>(func: &Func, syms: &[(&str, i64)], isa: WideIsa) {
    for against in [Against::Start, Against::End] {
        let mut want = Machine::<T>::new(func, syms, against);
        want.run();
        let mut got = Machine::<T>::new(func, syms, against);
        got.compile(isa).expect("the tile fits");
        got.run();
        let nan = |bits: &u64| match size_of::<T>() {
            4 => f32::from_bits(*bits as u32).is_nan(),
            _ => f64::from_bits(*bits).is_nan(),
        };
        for b in &func.buffers {
            let (w, g) = (want.bits(b.name.as_str()), got.bits(b.name.as_str()));
            let bad = w.iter().zip(&g).position(|(w, g)| w != g && !(nan(w) && nan(g)));
            assert!(bad.is_none(), "{} on {isa:?}, {syms:?}, {against:?}: element {bad:?}", b.name);
        }
    }
}

fn both(f32s: &dyn Fn(i64) -> Func, f64s: &dyn Fn(i64) -> Func, syms: &[(&str, i64)]) {
    for isa in levels() {
        let bytes = isa.vector_bytes() as i64;
        agree::<f32>(&f32s(bytes / 4), syms, isa);
        agree::<f64>(&f64s(bytes / 8), syms, isa);
    }
}

#[test]
fn x_axis_tiles_interleave_two_phases() {
    for isa in levels() {
        let wide = isa == WideIsa::Avx512;
        for (open, crop, stream, late) in
            [(false, 0, false, false), (false, 0, true, true), (false, 3, false, false), (true, 1, true, false)]
        {
            for (elem, lanes) in [(Elem::F32, isa.vector_bytes() as i64 / 4), (Elem::F64, isa.vector_bytes() as i64 / 8)] {
                let (oc, vectors) = if wide { (6, 2) } else { (4, 1) };
                let shape = XTile { elem, oc, vectors, lanes, ic: 5, blocks: 3, c_out: 2 * oc - 1, crop, stream, open, late };
                let f = x_tile(&shape);
                let full = 6 * vectors * lanes;
                for w in [full, full - 1, full - lanes - 3, full / 3 + 1, 2, 1] {
                    let syms = [("W", w), ("P", 3 * vectors * lanes + 2)];
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &syms, isa),
                        Elem::F64 => agree::<f64>(&f, &syms, isa),
                    }
                    if !open {
                        break;
                    }
                }
            }
        }
    }
}

/// Rows that become columns: `n` stores of neighbours, whose lanes are a row apart. The window starts and ends within the lanes; the row's length is known or open.
#[test]
fn neighbours_of_scattered_lanes_are_stored_together() {
    for isa in levels() {
        for elem in [Elem::F32, Elem::F64] {
            let lanes = isa.vector_bytes() / if elem == Elem::F32 { 4 } else { 8 };
            for (n, open, step) in [(1, false, 1), (2, false, 1), (3, true, 1), (4, false, 2), (5, true, 2), (7, false, 1), (8, true, 1)] {
                let (row, name) = (if open { "R".to_string() } else { "11".into() }, elem.name());
                let to = format!("{}*i + 1", step * lanes);
                let with = if step > 1 { format!(" step {step}") } else { String::new() };
                let text = format!(
                    "func t {name} stage vector {{\n  symbols W, R\n  buffer x: input {name}[8, {all}]\n  buffer y: output {name}[{high}, {row}]\n  reg c: {name}x{lanes}[8]\n  \
                     run {{\n    tile t {{\n      for i in 0..3 {{\n        unroll for j in 0..{n} {{\n          c[j] = x[j, {lanes}*i : {lanes}]\n        }}\n        \
                     unroll for j in 0..{n} {{\n          y[{to} : {lanes}{with} clip 0..W, j + 2] = c[j]\n        }}\n      }}\n    }}\n  }}\n}}\n",
                    all = 3 * lanes,
                    high = 3 * step * lanes + 2,
                );
                let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                let most = (3 * step * lanes + 2) as i64;
                for w in [most, most - 3, most / 2, 2, 1, 0] {
                    let syms = [("W", w), ("R", 11)];
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &syms, isa),
                        Elem::F64 => agree::<f64>(&f, &syms, isa),
                    }
                }
            }
        }
    }
}

/// Neighbours that lie one after the other in a window, and lanes `step` apart: the window starts and ends between lanes and within what a lane holds.
#[test]
fn neighbours_in_a_window_are_stored_together() {
    for isa in levels() {
        for elem in [Elem::F32, Elem::F64] {
            let (name, lanes) = (elem.name(), (isa.vector_bytes() / if elem == Elem::F32 { 4 } else { 8 }) as i64);
            for (n, step, from) in [(2, 5, 0), (3, 4, 2), (4, 5, 0), (4, 7, 3), (4, 4, 6), (7, 9, 11)] {
                let all = step * lanes + n;
                let text = format!(
                    "func t {name} stage vector {{\n  symbols L, W\n  buffer x: input {name}[{n}, {lanes}]\n  buffer y: output {name}[{all}]\n  \
                     reg c: {name}x{lanes}[{n}]\n  run {{\n    tile t {{\n      unroll for j in 0..{n} {{\n        c[j] = x[j, 0 : {lanes}]\n      }}\n      \
                     unroll for j in 0..{n} {{\n        y[j - {from} : {lanes} step {step} clip max(L, 0)..min(W, {all})] = c[j]\n      }}\n    }}\n  }}\n}}\n",
                );
                let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                for lo in [0, 1, n - 1, step, step + 2, all] {
                    for hi in [all, all - n, all - n - 1, all - step - 2, step + 1, n, 1, 0] {
                        let syms = [("L", lo), ("W", hi)];
                        match elem {
                            Elem::F32 => agree::<f32>(&f, &syms, isa),
                            Elem::F64 => agree::<f64>(&f, &syms, isa),
                        }
                    }
                }
            }
        }
    }
}

/// Any number of parts interleaved into a window that is known: vectors outside it are neither put together nor stored.
#[test]
fn interleaved_parts_meet_windows_that_are_known() {
    for isa in levels() {
        for elem in [Elem::F32, Elem::F64] {
            let (name, lanes) = (elem.name(), (isa.vector_bytes() / if elem == Elem::F32 { 4 } else { 8 }) as i64);
            for parts in 2..=12 {
                let (all, from) = (parts * lanes, lanes / 2);
                let loads: Vec<String> = (0..parts).map(|i| format!("x[{i}, 0 : {lanes}]")).collect();
                for (lo, hi) in [(0, all), (0, lanes + 1), (lanes - 1, lanes + 1), (2 * lanes, 2 * lanes), (all - 3, all)] {
                    let text = format!(
                        "func t {name} stage vector {{\n  buffer x: input {name}[{parts}, {lanes}]\n  buffer y: output {name}[{all}]\n  run {{\n    tile t {{\n      \
                         y[-{from} : {lanes} step {parts} clip {lo}..{hi}] = interleave({})\n    }}\n  }}\n}}\n",
                        loads.join(", "),
                    );
                    let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &[], isa),
                        Elem::F64 => agree::<f64>(&f, &[], isa),
                    }
                }
            }
        }
    }
}

/// Any number of neighbouring loads, their lanes any number of elements apart: nothing but what they name is read, up to the last element of the buffer.
#[test]
fn neighbours_whose_lanes_are_apart_are_loaded_together() {
    for isa in levels() {
        for elem in [Elem::F32, Elem::F64] {
            let (name, lanes) = (elem.name(), isa.vector_bytes() / if elem == Elem::F32 { 4 } else { 8 });
            for step in 2..=7 {
                for n in [1, step - 1, step, step + 1, step + 2, 2 * step, 2 * step + 1] {
                    let text = format!(
                        "func t {name} stage vector {{\n  buffer x: input {name}[3, {len}]\n  buffer y: output {name}[3, {n}, {lanes}]\n  \
                         reg c: {name}x{lanes}[{n}]\n  run {{\n    tile t {{\n      for i in 0..3 {{\n        unroll for j in 0..{n} {{\n          \
                         c[j] = x[i, j : {lanes} step {step}]\n        }}\n        unroll for j in 0..{n} {{\n          y[i, j, 0 : {lanes}] = c[j]\n        \
                         }}\n      }}\n    }}\n  }}\n}}\n",
                        len = step * (lanes - 1) + n,
                    );
                    let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &[], isa),
                        Elem::F64 => agree::<f64>(&f, &[], isa),
                    }
                }
            }
        }
    }
}

/// Two elements between lanes, three neighbours stored: what one store writes to a lane, a later one writes again, and the later one counts.
#[test]
fn neighbours_that_reach_the_next_lane_keep_their_order() {
    for isa in levels() {
        for elem in [Elem::F32, Elem::F64] {
            let lanes = isa.vector_bytes() / if elem == Elem::F32 { 4 } else { 8 };
            let name = elem.name();
            let text = format!(
                "func t {name} stage vector {{\n  buffer x: input {name}[3, {lanes}]\n  buffer y: output {name}[{all}]\n  reg c: {name}x{lanes}[3]\n  \
                 run {{\n    tile t {{\n      unroll for j in 0..3 {{\n        c[j] = x[j, 0 : {lanes}]\n      }}\n      \
                 unroll for j in 0..3 {{\n        y[j : {lanes} step 2] = c[j]\n      }}\n    }}\n  }}\n}}\n",
                all = 2 * lanes + 1,
            );
            let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
            match elem {
                Elem::F32 => agree::<f32>(&f, &[], isa),
                Elem::F64 => agree::<f64>(&f, &[], isa),
            }
        }
    }
}

#[test]
fn oc_axis_tiles_store_channels_first_and_last() {
    for isa in levels() {
        let q = if isa == WideIsa::Avx512 { 12 } else { 6 };
        let l = isa.vector_bytes() as i64 / 4;
        for last in [false, true] {
            for c_out in [2 * l, 2 * l - 1, 3 * l + 1, 1] {
                agree::<f32>(&oc_tile(Elem::F32, [q, 2, l], 7, 2, c_out, last), &[("W", 2 * q)], isa);
            }
            agree::<f64>(&oc_tile(Elem::F64, [q, 2, l / 2], 3, 1, l + 1, last), &[("W", q)], isa);
        }
    }
}

#[test]
fn lanes_may_be_more_or_fewer_than_a_register_has() {
    for isa in levels() {
        for l in [2, 3, 4, 5, 8, 12, 16, 24, 32] {
            for last in [false, true] {
                agree::<f32>(&oc_tile(Elem::F32, [2, 1, l], 3, 1, l - 1, last), &[("W", 4)], isa);
                agree::<f64>(&oc_tile(Elem::F64, [2, 1, l.min(16)], 3, 1, l, last), &[("W", 4)], isa);
            }
            let x = XTile {
                elem: Elem::F32,
                oc: 1,
                vectors: 1,
                lanes: l.min(16),
                ic: 2,
                blocks: 2,
                c_out: 1,
                crop: 1,
                stream: true,
                open: false,
                late: false,
            };
            agree::<f32>(&x_tile(&x), &[("W", 0), ("P", 0)], isa);
        }
    }
}

#[test]
fn phase_axis_tiles_clip_both_ends() {
    for pad in [0, 3, 9] {
        both(&|_| phase_tile(Elem::F32, 6, 8, 5, pad), &|_| phase_tile(Elem::F64, 6, 8, 5, pad), &[("L", 12)]);
        both(&|l| phase_tile(Elem::F32, 3, 2 * l, 5, pad), &|l| phase_tile(Elem::F64, 3, l, 5, pad), &[("L", 6)]);
    }
}

#[test]
fn scatter_tiles_add_to_what_is_there() {
    for (s, pad) in [(1, 0), (2, 1), (3, 2)] {
        for w in [40, 33, 16, 7] {
            let syms = [("W", w)];
            both(&|l| scatter_tile(Elem::F32, 3, l, 4, s, 4, pad), &|l| scatter_tile(Elem::F64, 3, l, 4, s, 3, pad), &syms);
        }
    }
}

/// A tile that stores `value(a, b)` of two loaded vectors and one loaded scalar.
fn pointwise(elem: Elem, l: i64, parts: usize, value: impl Fn(usize, Value, Value, Value) -> Value) -> Func {
    let n = l as usize;
    let p = parts as i64;
    let buffers = vec![
        buffer("a", BufferKind::Input, elem, &[c(p), c(l)]),
        buffer("b", BufferKind::Weight, elem, &[c(p), c(l)]),
        buffer("y", BufferKind::Output, elem, &[c(l * p)]),
    ];
    let load = |name: &str, i: i64| Value::Load(lanes(name, vec![c(i), c(0)], 1, n, 1, None));
    let all = (0..parts).map(|i| value(i, load("a", i as i64), load("b", i as i64), Value::load("b", vec![c(0), c(1)]))).collect();
    let to = lanes("y", vec![c(0)], 0, n, p, None);
    func(elem, &[], buffers, Vec::new(), vec![tile("p", vec![Stmt::Store { to, parts: all, stream: true }])])
}

#[test]
fn every_operation_agrees() {
    type Op = fn(usize, Value, Value, Value) -> Value;
    let ops: Vec<Op> = vec![
        |_, a, b, _| Value::bin(BinOp::Sub, a, b),
        |_, a, _, s| Value::bin(BinOp::Sub, s, a),
        |_, a, b, _| Value::bin(BinOp::Div, a, b),
        |_, a, b, _| Value::bin(BinOp::Mul, a.clone(), Value::bin(BinOp::Add, a, b)),
        |_, a, _, s| Value::bin(BinOp::Max, a, s),
        |_, a, b, _| Value::bin(BinOp::Min, Value::bin(BinOp::Div, a, Value::Const(0.0)), b),
        |_, a, _, _| Value::bin(BinOp::Max, Value::bin(BinOp::Mul, a, Value::Const(-0.0)), Value::Const(0.0)),
        |_, a, b, _| {
            Value::bin(
                BinOp::Max,
                Value::bin(BinOp::Sub, Value::Const(f64::INFINITY), Value::Const(f64::INFINITY)),
                Value::bin(BinOp::Add, a, b),
            )
        },
        |_, a, _, _| Value::un(UnOp::Neg, a),
        |_, a, _, _| Value::un(UnOp::Abs, a),
        |_, a, _, _| {
            Value::un(
                UnOp::Pow2,
                Value::bin(
                    BinOp::Sub,
                    Value::bin(BinOp::Add, Value::bin(BinOp::Mul, a, Value::Const(30.0)), Value::Const(12582912.0)),
                    Value::Const(12582912.0),
                ),
            )
        },
        |_, a, b, s| Value::fma(a, b, s),
        |_, a, b, s| Value::fma(s, a, b),
        |_, a, b, s| Value::fma(Value::Const(3.0), s, Value::bin(BinOp::Add, a, b)),
        |_, a, b, s| Value::fma(Value::un(UnOp::Neg, a.clone()), Value::bin(BinOp::Mul, a, b), s),
        |_, a, b, _| Value::fma(Value::Const(0.5), Value::Const(3.0), Value::bin(BinOp::Add, a, b)),
        |_, a, b, s| Value::select(CmpOp::Lt, a.clone(), s, a, b),
        |_, a, b, s| Value::select(CmpOp::Le, a.clone(), b.clone(), s, b),
        |_, a, b, s| Value::select(CmpOp::Eq, a.clone(), s, a, b),
        |_, a, b, _| Value::select(CmpOp::Ne, a.clone(), Value::bin(BinOp::Div, Value::Const(0.0), Value::Const(0.0)), a, b),
        |i, a, b, _| if i == 0 { a } else { b },
    ];
    for op in ops {
        for parts in [1, 2, 3, 4, 5, 8] {
            both(&|l| pointwise(Elem::F32, l, parts, op), &|l| pointwise(Elem::F64, l, parts, op), &[]);
            both(&|l| pointwise(Elem::F32, l / 2, parts, op), &|l| pointwise(Elem::F64, l / 2, parts, op), &[]);
            both(&|l| pointwise(Elem::F32, 2 * l, parts, op), &|_| pointwise(Elem::F64, 3, parts, op), &[]);
        }
    }
}

#[test]
fn loads_see_the_stores_before_them() {
    for isa in levels() {
        let l = isa.vector_bytes() as i64 / 4;
        let y = buffer("y", BufferKind::Output, Elem::F32, &[c(4 * l)]);
        let first = || Value::load("y", vec![c(1)]);
        let every = |from: i64| lanes("y", vec![c(from)], 0, 2 * l as usize, 2, clip(c(1), c(4 * l - 1)));
        let plus = |a: Value, b: Value| Value::bin(BinOp::Add, a, b);
        let body = vec![
            Stmt::set("v", Value::bin(BinOp::Mul, first(), Value::reg("r"))),
            Stmt::store("y", vec![c(1)], plus(first(), Value::Const(1.0))),
            Stmt::set("v", Value::fma(first(), Value::reg("v"), first())),
            Stmt::Store { to: every(0), parts: vec![plus(Value::Load(every(1)), first()), Value::Load(every(0))], stream: false },
            Stmt::Store { to: every(0), parts: vec![plus(Value::Load(every(0)), Value::reg("v"))], stream: false },
            Stmt::set("v", Value::bin(BinOp::Mul, first(), Value::reg("v"))),
            Stmt::Store { to: every(1), parts: vec![plus(Value::reg("v"), Value::Load(every(0)))], stream: false },
        ];
        let start = Stmt::set("r", Value::Load(lanes("y", vec![c(0)], 0, 2 * l as usize, 1, None)));
        let n = 2 * l as usize;
        let run = vec![tile("alias", [vec![start], body].concat())];
        agree::<f32>(&func(Elem::F32, &[], vec![y], vec![reg("v", n, &[]), reg("r", n, &[])], run), &[], isa);
    }
}

/// Scalar registers, nested counted loops with bounds from outer loops, tables and several bounds; a table indexed by a counted loop.
fn nest(elem: Elem, strided: bool) -> Func {
    let width = if strided { sym("N") } else { c(40) };
    let buffers =
        vec![buffer("a", BufferKind::Input, elem, &[c(9), width.clone(), c(8)]), buffer("y", BufferKind::Output, elem, &[c(9), width])];
    let term = Value::load("a", vec![Affine::table("T", "i"), v("j") + Affine::table("T", "i"), v("k") * 2 - v("m") + 1]);
    let sum = Stmt::set("s", Value::fma(term, Value::load("a", vec![v("i"), v("j"), v("k")]), Value::reg("s")));
    let inner = Stmt::For(Loop {
        lo: vec![c(1), v("i") - 2],
        hi: vec![c(4), v("j"), sym("N") - 20],
        ..Loop::new("k", 0, vec![seq("m", 2, vec![sum])])
    });
    let guard = Cond::Range { lo: v("i"), e: v("j") + Affine::table("T", "o"), hi: c(11) };
    let body = vec![
        Stmt::set("s", Value::Const(1.0)),
        Stmt::For(Loop {
            step: 2,
            ..Loop::new(
                "i",
                5,
                vec![Stmt::For(Loop {
                    lo: vec![v("i")],
                    ..Loop::new(
                        "j",
                        Affine::table("T", "o") + 6,
                        vec![
                            inner,
                            Stmt::When {
                                conds: vec![guard],
                                body: vec![Stmt::set("s", Value::bin(BinOp::Mul, Value::reg("s"), Value::Const(0.5)))],
                            },
                            Stmt::store("y", vec![v("i") + v("o"), v("j")], Value::reg("s")),
                        ],
                    )
                })],
            )
        }),
    ];
    let mut f = func(elem, &["N"], buffers, vec![reg("s", 1, &[])], vec![seq("o", 3, vec![tile("n", body)])]);
    f.tables.push(Table { name: "T".into(), values: vec![3, 0, 7, 1, 5] });
    f
}

#[test]
fn nested_counted_loops_may_be_empty_and_use_tables() {
    for isa in levels() {
        for n in [15, 21, 22, 23, 24, 40] {
            agree::<f32>(&nest(Elem::F32, n > 20), &[("N", n.max(15))], isa);
            agree::<f64>(&nest(Elem::F64, n > 20), &[("N", n.max(15))], isa);
        }
    }
}

#[test]
fn random_tiles_agree() {
    let cases = std::env::var("WIDE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut fit, mut tried) = (0, 0);
    for seed in 0..cases {
        for (isa, elem) in levels().into_iter().flat_map(|i| [(i, Elem::F32), (i, Elem::F64)]) {
            let f = random::random(elem, seed);
            let Stmt::For(l) = &f.run[0] else { unreachable!("a loop around the tile") };
            tried += 1;
            match emit(&f, &l.body[0], isa) {
                Err(e) => assert_eq!(e.kind, Kind::Options, "seed {seed}: {e}"),
                Ok(_) => {
                    fit += 1;
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &[("N", 24)], isa),
                        Elem::F64 => agree::<f64>(&f, &[("N", 24)], isa),
                    }
                }
            }
        }
    }
    assert!(fit * 4 > tried, "only {fit} of {tried} tiles fit");
}

#[test]
fn more_pointers_than_registers_live_in_the_frame() {
    let inputs: Vec<String> = (0..15).map(|i| format!("x{i}")).collect();
    let mut buffers: Vec<Buffer> = inputs.iter().map(|n| buffer(n, BufferKind::Input, Elem::F32, &[c(6), c(8)])).collect();
    buffers.push(buffer("y", BufferKind::Output, Elem::F32, &[c(8)]));
    let sum = |n: &String| {
        let x = Value::Load(lanes(n, vec![v("i"), c(0)], 1, 8, 1, None));
        Stmt::set("s", Value::bin(BinOp::Add, Value::reg("s"), x))
    };
    let store = Stmt::Store { to: lanes("y", vec![c(0)], 0, 8, 1, None), parts: vec![Value::reg("s")], stream: false };
    let body = vec![Stmt::set("s", Value::Const(0.0)), seq("i", 6, inputs.iter().map(sum).collect()), store];
    let f = func(Elem::F32, &[], buffers, vec![reg("s", 8, &[])], vec![tile("many", body)]);
    for isa in levels() {
        agree::<f32>(&f, &[], isa);
        let mut m = Machine::<f32>::new(&f, &[], Against::End);
        m.compile(isa).expect("it fits");
        assert!(m.tile("many").notes.spilled >= 6);
    }
}

#[test]
fn a_tile_that_does_not_fit_names_need_and_file() {
    let x = XTile {
        elem: Elem::F32,
        oc: 8,
        vectors: 2,
        lanes: 16,
        ic: 5,
        blocks: 1,
        c_out: 8,
        crop: 0,
        stream: false,
        open: false,
        late: false,
    };
    let f = x_tile(&x);
    let mut found = None;
    f.run[0].visit(&mut |s| {
        if let Stmt::Tile { .. } = s {
            found = Some(s.clone())
        }
    });
    let t = found.expect("there is a tile");
    let e = emit(&f, &t, WideIsa::Avx512).expect_err("32 accumulators and 6 vectors do not fit");
    assert_eq!(e.kind, Kind::Options);
    assert!(e.message.contains("needs 38 vector registers") && e.message.contains("avx512 has 32"), "{e}");
    assert_eq!(budget(&f, &t, WideIsa::Avx512).expect("measured").peak, 38);
}
