//! `tanh` and `sigmoid` as the pass `activation` writes them: within 4 ulp of the exact value, with and without fused multiply-add, for
//! every kind of input; and the shape of the rewritten function.
//!
//! `cargo test --release --test activation -- --ignored` tries every f32 there is (minutes).

#[path = "activation/eval.rs"]
mod eval;
#[path = "activation/exact.rs"]
mod exact;

use eval::{Machine, Real};
use polyphase::Elem;
use polyphase::ir::{Access, Affine, BinOp, Func, Lanes, Loop, LoopKind, Reg, Stage, Stmt, UnOp, Value};
use polyphase::passes::activation;

/// The contract is 4 ulp; the method leaves less, and losing that margin would be a mistake somewhere.
const BOUND: f64 = 2.5;
const OPS: [UnOp; 2] = [UnOp::Tanh, UnOp::Sigmoid];

fn func(elem: Elem, regs: Vec<Reg>, run: Vec<Stmt>) -> Func {
    let (buffers, tables, symbols, prepare) = (vec![], vec![], vec![], vec![]);
    Func { name: "test".into(), stage: Stage::Vector, elem, symbols, counts: vec![], buffers, tables, regs, prepare, run }
}

fn reg(name: &str, lanes: usize, dims: &[usize]) -> Reg {
    Reg { name: name.into(), lanes, dims: dims.to_vec() }
}

/// `buffer[at + step * j]` for the lanes j.
fn lanes(buffer: &str, at: Affine, count: usize, step: i64) -> Access {
    let lanes = Lanes { dim: 0, count, step, clip: None };
    Access { buffer: buffer.into(), index: vec![at], lanes: Some(lanes) }
}

fn store(to: Access, parts: Vec<Value>) -> Stmt {
    Stmt::Store { to, parts, stream: false }
}

/// `y = op(x)` after the pass, for `count` elements at once.
fn lowered(op: UnOp, elem: Elem, count: usize) -> Func {
    let x = Value::Load(lanes("x", 0.into(), count, 1));
    activation::run(&func(elem, vec![], vec![store(lanes("y", 0.into(), count, 1), vec![Value::un(op, x)])]))
}

fn eval<T: Real>(f: &Func, fused: bool, x: &[T]) -> Vec<T> {
    let mut machine = Machine::new(f, fused, &[("x", x), ("y", x)]);
    machine.run();
    machine.memory.remove("y").expect("y was given")
}

/// The error of `y` in units in the last place of the exact f32 result.
fn ulps32(y: f32, exact: f64) -> f64 {
    let exponent = ((exact.to_bits() >> 52) as i32 & 2047) - 1023;
    let shift = 1023 - (exponent.max(-126) - 23);
    (y as f64 - exact).abs() * f64::from_bits((shift as u64) << 52)
}

/// The exact value, to the last few bits of an f64; where a series has two terms or one that count, it is that.
fn exact32(op: UnOp, x: f32) -> f64 {
    let (x, a) = (x as f64, x.abs() as f64);
    match op {
        UnOp::Tanh if a < 1e-5 => x - x * x * x / 3.0,
        UnOp::Tanh if a > 20.0 => x.signum(),
        UnOp::Tanh => x.tanh(),
        _ if a < 1e-5 => 0.5 + x / 4.0,
        _ if x < -200.0 => 0.0,
        _ if x > 40.0 => 1.0,
        _ => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The largest error over the inputs in ulp, and where; every result is checked to be in range and of the right sign.
fn worst32(op: UnOp, f: &Func, fused: bool, x: &[f32], exact: &[f64]) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for ((&x, y), &exact) in x.iter().zip(eval(f, fused, x)).zip(exact) {
        if x.is_nan() {
            assert!(y.is_nan(), "{op:?}({x}) = {y}");
            continue;
        }
        match op {
            UnOp::Tanh => assert!(y.abs() <= 1.0 && y.is_sign_negative() == x.is_sign_negative(), "{op:?}({x:e}) = {y:e}"),
            _ => assert!((0.0..=1.0).contains(&y) && y.is_sign_positive(), "{op:?}({x:e}) = {y:e}"),
        }
        let e = ulps32(y, exact);
        assert!(e <= BOUND, "{op:?}({x:e}) = {y:e}, exactly {exact:e}: {e} ulp");
        if e > worst.0 {
            worst = (e, x);
        }
    }
    worst
}

/// Finite, infinite and denormal inputs of every exponent, and the neighbours of each point where the method changes.
fn sample32() -> Vec<f32> {
    let mut x = vec![0.0, -0.0, f32::INFINITY, -f32::INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE];
    for bits in (0..0x7f80_0000u32).step_by(4099) {
        x.push(f32::from_bits(bits));
    }
    let mut at = vec![9.01, 10.0, 103.27, 103.97, 104.0, 1e-45, 1.2e-38, 16.6, 17.4];
    at.extend((0..300).map(|k| k as f32 * 0.25 * std::f32::consts::LN_2));
    at.extend((160..304).map(|k| k as f32 * 0.5 * std::f32::consts::LN_2));
    for at in at {
        x.extend((0..400u32).map(|k| f32::from_bits((at.to_bits() + k).saturating_sub(200))));
    }
    let negative: Vec<_> = x.iter().map(|x| -x).collect();
    x.extend(negative);
    x
}

#[test]
fn f32_stays_within_4_ulp_of_the_exact_value() {
    let x = sample32();
    for op in OPS {
        let f = lowered(op, Elem::F32, x.len());
        let exact: Vec<_> = x.iter().map(|x| exact32(op, *x)).collect();
        for fused in [true, false] {
            let (e, at) = worst32(op, &f, fused, &x, &exact);
            println!("f32 {op:?}, fused {fused}: {e:.3} ulp at {at:e}, {} inputs", x.len());
        }
    }
}

#[test]
#[ignore = "tries all 2^32 inputs: minutes in release mode"]
fn f32_tanh_stays_within_4_ulp_for_every_input() {
    try_every_input(UnOp::Tanh);
}

#[test]
#[ignore = "tries all 2^32 inputs: minutes in release mode"]
fn f32_sigmoid_stays_within_4_ulp_for_every_input() {
    try_every_input(UnOp::Sigmoid);
}

fn try_every_input(op: UnOp) {
    const BLOCK: usize = 1 << 13;
    let f = lowered(op, Elem::F32, BLOCK);
    let mut worst = [(0.0, 0.0); 2];
    for start in (0..1u64 << 32).step_by(BLOCK) {
        let x: Vec<_> = (start..).take(BLOCK).map(|b| f32::from_bits(b as u32)).collect();
        let exact: Vec<_> = x.iter().map(|x| exact32(op, *x)).collect();
        for (fused, worst) in [true, false].into_iter().zip(&mut worst) {
            let here = worst32(op, &f, fused, &x, &exact);
            if here.0 > worst.0 {
                *worst = here;
            }
        }
    }
    println!("every f32, {op:?}: largest error in ulp and its place, fused {:?}, split {:?}", worst[0], worst[1]);
}

/// Like [`sample32`], for f64.
fn sample64() -> Vec<f64> {
    let mut x = vec![0.0, -0.0, f64::INFINITY, -f64::INFINITY, f64::NAN, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324];
    // Exponents at which tanh is neither x nor 1, and sigmoid neither 1/2, 1 nor 0, are taken far more densely.
    for (exponents, count) in [(0..2047u64, 20), (995..1034, 2000)] {
        for e in exponents {
            x.extend((0..count).map(|k: u64| f64::from_bits(e << 52 | k.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(e) >> 12)));
        }
    }
    let mut at = vec![19.06, 20.0, 745.13, 745.2, 708.4, 36.7, 37.4, 2.2e-308];
    at.extend((0..160).map(|k| k as f64 * 0.25 * std::f64::consts::LN_2));
    at.extend((1990..2152).map(|k| k as f64 * 0.5 * std::f64::consts::LN_2));
    for at in at {
        x.extend((0..40u64).map(|k| f64::from_bits((at.to_bits() + k).saturating_sub(20))));
        x.extend((0..40u64).map(|k| f64::from_bits(at.to_bits() + (k << 38))));
    }
    let negative: Vec<_> = x.iter().map(|x| -x).collect();
    x.extend(negative);
    x
}

#[test]
fn f64_stays_within_4_ulp_of_the_exact_value() {
    let x = sample64();
    for (op, fused) in OPS.into_iter().flat_map(|op| [(op, true), (op, false)]) {
        let f = lowered(op, Elem::F64, x.len());
        let mut worst = (0.0, 0.0);
        for (&x, y) in x.iter().zip(eval(&f, fused, &x)) {
            if x.is_nan() {
                assert!(y.is_nan(), "{op:?}({x}) = {y}");
                continue;
            }
            match op {
                UnOp::Tanh => assert!(y.abs() <= 1.0 && y.is_sign_negative() == x.is_sign_negative(), "{op:?}({x:e}) = {y:e}"),
                _ => assert!((0.0..=1.0).contains(&y) && y.is_sign_positive(), "{op:?}({x:e}) = {y:e}"),
            }
            let e = exact::ulps64(op, x, y);
            assert!(e <= BOUND, "{op:?}({x:e}) = {y:e}, fused {fused}: {e} ulp");
            if e > worst.0 {
                worst = (e, x);
            }
        }
        println!("f64 {op:?}, fused {fused}: {:.3} ulp at {:e}, {} inputs", worst.0, worst.1, x.len());
    }
}

#[test]
fn tanh_is_odd_to_the_bit() {
    let x = sample32();
    let x = &x[..x.len() / 2];
    let negative: Vec<_> = x.iter().map(|x| -x).collect();
    let f = lowered(UnOp::Tanh, Elem::F32, x.len());
    for ((a, b), x) in eval(&f, true, x).iter().zip(eval(&f, true, &negative)).zip(x) {
        assert!(a.to_bits() == (-b).to_bits() || x.is_nan(), "tanh({x:e}) = {a:e}, tanh(-{x:e}) = {b:e}");
    }
}

#[test]
fn results_do_not_turn_back_at_saturation() {
    let between = |a: f32, b: f32| (a.to_bits()..=b.to_bits()).map(f32::from_bits).collect::<Vec<_>>();
    let steep = |x: Vec<f32>| x.into_iter().map(|x| -x).rev().collect();
    let cases = [
        (UnOp::Tanh, between(8.5, 10.5), 1.0),
        (UnOp::Sigmoid, between(15.0, 18.0), 1.0),
        (UnOp::Sigmoid, steep(between(95.0, 105.0)), 0.0),
    ];
    for (op, x, end) in cases {
        let y = eval(&lowered(op, Elem::F32, x.len()), false, &x);
        for (x, y) in x.windows(2).zip(y.windows(2)) {
            assert!(y[0] <= y[1], "{op:?}: {:e} -> {:e}, then {:e} -> {:e}", x[0], y[0], x[1], y[1]);
        }
        assert!(y.contains(&end), "{op:?} never reaches {end}");
    }
}

#[test]
fn activations_inside_a_tile_get_temporaries_of_their_lanes() {
    let q = || Affine::var("qx.t");
    let value = |r: i64| {
        let acc = Value::Reg("acc".into(), vec![r.into(), q()]);
        Value::un(UnOp::Tanh, Value::bin(BinOp::Add, acc, Value::reg("b")))
    };
    let set = Stmt::Set {
        reg: "acc".into(),
        index: vec![Affine::var("rx"), q()],
        value: Value::Load(lanes("x", Affine::var("rx") * 8 + q() * 4, 4, 1)),
    };
    let unroll = |var: &str, body| Stmt::from(Loop::new(var, 2, body).kind(LoopKind::Unroll));
    let body = vec![
        Stmt::set("b", Value::Const(0.25)),
        unroll("rx", vec![unroll("qx.t", vec![set])]),
        unroll("qx.t", vec![store(lanes("y", q() * 8, 4, 2), vec![value(0), value(1)])]),
    ];
    let before =
        func(Elem::F32, vec![reg("acc", 4, &[2, 2]), reg("b", 1, &[])], vec![Stmt::Tile { name: "x-1x2x2".into(), asks: None, body }]);
    let after = activation::run(&before);

    let new: Vec<_> = after.regs[2..].iter().map(|r| (r.name.as_str(), r.lanes)).collect();
    assert_eq!(new, [("act.n", 4), ("act.r", 4), ("act.y", 4), ("act.x", 4), ("act.y2", 4)]);
    let x: Vec<f32> = (0..16).map(|i| i as f32 * 0.5 - 4.0).collect();
    let sums: Vec<f32> = x.iter().map(|x| x + 0.25).collect();
    let single = eval(&lowered(UnOp::Tanh, Elem::F32, 16), true, &sums);
    let expected: Vec<f32> = (0..8).flat_map(|i| [single[i], single[8 + i]]).collect();
    assert_eq!(eval(&after, true, &x), expected);
}

#[test]
fn nested_activations_are_computed_from_the_inside() {
    let inner = Value::un(UnOp::Sigmoid, Value::reg("s"));
    let sum = Value::bin(BinOp::Add, inner, Value::Load(lanes("x", 0.into(), 3, 1)));
    let run = vec![
        Stmt::set("s", Value::Const(2.0)),
        Stmt::set("s", Value::un(UnOp::Tanh, Value::reg("s"))),
        store(lanes("y", 0.into(), 3, 1), vec![Value::un(UnOp::Tanh, sum)]),
    ];
    let after = activation::run(&func(Elem::F64, vec![reg("s", 1, &[])], run));
    let mut names: Vec<_> = after.regs.iter().map(|r| r.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), after.regs.len(), "two registers of one name: {:?}", after.regs);

    let x = [0.5, -1.0, 3.0];
    let s = 1.0 / (1.0 + (-(2f64.tanh())).exp());
    for (y, x) in eval(&after, true, &x).iter().zip(x) {
        assert!((y - (s + x).tanh()).abs() < 1e-15, "{y} against {}", (s + x).tanh());
    }
}

#[test]
fn names_in_use_are_avoided() {
    let inner = store(Access::at("y", vec![Affine::var("act.n")]), vec![Value::un(UnOp::Sigmoid, Value::reg("act.y"))]);
    let run = vec![Stmt::set("act.y", Value::Const(0.0)), Loop::new("act.n", 3, vec![inner]).into()];
    let after = activation::run(&func(Elem::F32, vec![reg("act.y", 1, &[])], run));
    let names: Vec<_> = after.regs.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["act.y", "act.n2", "act.r", "act.y2"]);
    assert_eq!(eval(&after, true, &[1f32; 3]), [0.5; 3]);
}

#[test]
fn a_function_without_activations_stays_as_it_is() {
    let run = vec![store(Access::at("y", vec![0.into()]), vec![Value::un(UnOp::Abs, Value::load("x", vec![1.into()]))])];
    let f = func(Elem::F32, vec![reg("acc", 8, &[2])], run);
    assert_eq!(activation::run(&f), f);
}
