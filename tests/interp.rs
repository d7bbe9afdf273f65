//! The interpreter against hand-written loops: nests at every stage, lanes, clips, interleaved parts, tables, and errors instead of panics.

use polyphase::interp::{self, Counts, Tensors};
use polyphase::ir::*;
use polyphase::{Kind, Result};

fn v(name: &str) -> Affine {
    Affine::var(name)
}

fn buffer(name: &str, kind: BufferKind, dims: &[Affine]) -> Buffer {
    Buffer { name: name.into(), kind, elem: Elem::F32, dims: dims.to_vec(), order: (0..dims.len()).collect() }
}

fn fixed(name: &str, kind: BufferKind, dims: &[i64]) -> Buffer {
    buffer(name, kind, &dims.iter().map(|d| Affine::from(*d)).collect::<Vec<_>>())
}

fn func(buffers: Vec<Buffer>, regs: &[(&str, usize, &[usize])], run: Vec<Stmt>) -> Func {
    Func {
        name: "test".into(),
        stage: Stage::Vector,
        elem: Elem::F32,
        symbols: vec![],
        counts: vec![],
        buffers,
        tables: vec![],
        regs: regs.iter().map(|(n, lanes, dims)| Reg { name: (*n).into(), lanes: *lanes, dims: dims.to_vec() }).collect(),
        prepare: vec![],
        run,
    }
}

/// A function of an input of `n` elements and an output of `m`.
fn x_to_y(n: i64, m: i64, regs: &[(&str, usize, &[usize])], run: Vec<Stmt>) -> Func {
    func(vec![fixed("x", BufferKind::Input, &[n]), fixed("y", BufferKind::Output, &[m])], regs, run)
}

fn run(f: &Func, x: &[f32], y: &mut [f32]) -> Result<Counts> {
    interp::execute_counted(f, &[], Tensors { input: x, weight: &[], bias: None, output: y })
}

/// What a function makes of `1, 2, 3 …` in an output that held -1.
fn output(f: &Func, n: usize, m: usize) -> Vec<f32> {
    let mut y = vec![-1.0; m];
    run(f, &ramp(n), &mut y).unwrap();
    y
}

/// The sentence with which a function fails.
fn failure(f: &Func, n: usize, m: usize) -> String {
    let e = run(f, &ramp(n), &mut vec![0.0; m]).unwrap_err();
    assert_eq!(e.kind, Kind::Ir, "{e}");
    e.message
}

fn ramp(n: usize) -> Vec<f32> {
    (1..=n).map(|i| i as f32).collect()
}

fn lanes(dim: usize, count: usize, step: i64, clip: Option<(i64, i64)>) -> Option<Lanes> {
    let clip = clip.map(|(lo, hi)| Clip { lo: vec![lo.into()], hi: vec![hi.into()] });
    Some(Lanes { dim, count, step, clip })
}

fn store(buffer: &str, index: Vec<Affine>, lanes: Option<Lanes>, parts: Vec<Value>) -> Stmt {
    Stmt::Store { to: Access { buffer: buffer.into(), index, lanes }, parts, stream: false }
}

fn load(buffer: &str, index: Vec<Affine>, lanes: Option<Lanes>) -> Value {
    Value::Load(Access { buffer: buffer.into(), index, lanes })
}

/// The textbook nest along one axis: `o + p - d*k` must be a multiple of `s` and land inside the input.
fn naive_1d(k: i64, s: i64, p: i64, d: i64) -> Func {
    let u = v("ox") + p - v("kx") * d;
    let i = u.clone().floor_div(s);
    let conds = vec![Cond::Multiple { e: u, m: s }, Cond::Range { lo: 0.into(), e: i.clone(), hi: Affine::sym("W") }];
    let (x, w) = (Value::load("x", vec![v("ic"), i]), Value::load("w", vec![v("ic"), v("oc"), v("kx")]));
    let when = Stmt::When { conds, body: vec![Stmt::set("acc", Value::fma(x, w, Value::reg("acc")))] };
    let out = (Affine::sym("W") - 1) * s + d * (k - 1) + 1 - 2 * p;
    let body = vec![
        Stmt::set("acc", Value::load("bias", vec![v("oc")])),
        Loop::new("ic", 3, vec![Loop::new("kx", k, vec![when]).into()]).into(),
        Stmt::store("y", vec![v("oc"), v("ox")], Value::reg("acc")),
    ];
    let nest = Loop::new("oc", 2, vec![Loop::new("ox", out.clone(), body).into()]).into();
    let buffers = vec![
        buffer("x", BufferKind::Input, &[3.into(), Affine::sym("W")]),
        fixed("w", BufferKind::Weight, &[3, 2, k]),
        fixed("bias", BufferKind::Bias, &[2]),
        buffer("y", BufferKind::Output, &[2.into(), out]),
    ];
    let mut f = func(buffers, &[("acc", 1, &[])], vec![nest]);
    f.symbols = vec!["W".into()];
    f.stage = Stage::Naive;
    f
}

#[test]
fn the_naive_nest_of_one_axis_computes_the_formula() {
    for (k, s, p, d, w) in [(4, 2, 1, 1, 5), (3, 1, 0, 2, 4), (2, 3, 0, 1, 3), (3, 2, 2, 3, 6)] {
        let f = naive_1d(k, s, p, d);
        let (x, wt, bias) = (ramp(3 * w), ramp(6 * k as usize), ramp(2));
        let out = (s * (w as i64 - 1) + d * (k - 1) + 1 - 2 * p) as usize;
        let mut want = vec![0.0f32; 2 * out];
        let mut products = 0;
        for oc in 0..2 {
            want[oc * out..][..out].fill(bias[oc]);
            for (ic, i, t) in (0..3).flat_map(|ic| (0..w).flat_map(move |i| (0..k as usize).map(move |t| (ic, i, t)))) {
                let o = s * i as i64 - p + d * t as i64;
                if (0..out as i64).contains(&o) {
                    want[oc * out + o as usize] += x[ic * w + i] * wt[(ic * 2 + oc) * k as usize + t];
                    products += 1;
                }
            }
        }
        let mut y = vec![f32::NAN; 2 * out];
        let tensors = Tensors { input: &x, weight: &wt, bias: Some(&bias), output: &mut y };
        let counts = interp::execute_counted(&f, &[w as i64], tensors).unwrap();
        assert_eq!(y, want, "k{k} s{s} p{p} d{d}");
        let outputs = 2 * out as u64;
        assert_eq!(counts, Counts { fmas: products, loads: 2 * products + outputs, stores: outputs });
    }
}

#[test]
fn the_naive_nest_of_two_axes_agrees_with_a_loop_over_products() {
    let (h, w, k, s) = (3, 4, 3, 2);
    let (oh, ow) = (s * (h - 1) + k, s * (w - 1) + k);
    let (uy, ux) = (v("oy") - v("ky"), v("ox") - v("kx"));
    let (iy, ix) = (uy.clone().floor_div(s), ux.clone().floor_div(s));
    let range = |e: &Affine, hi: i64| Cond::Range { lo: 0.into(), e: e.clone(), hi: hi.into() };
    let conds = vec![Cond::Multiple { e: uy, m: s }, Cond::Multiple { e: ux, m: s }, range(&iy, h), range(&ix, w)];
    let product = Value::fma(Value::load("x", vec![iy, ix]), Value::load("w", vec![v("ky"), v("kx")]), Value::reg("acc"));
    let when = Stmt::When { conds, body: vec![Stmt::set("acc", product)] };
    let taps = Loop::new("ky", k, vec![Loop::new("kx", k, vec![when]).into()]);
    let body = vec![Stmt::set("acc", Value::Const(0.0)), taps.into(), Stmt::store("y", vec![v("oy"), v("ox")], Value::reg("acc"))];
    let nest = Loop::new("oy", oh, vec![Loop::new("ox", ow, body).into()]);
    let buffers =
        vec![fixed("x", BufferKind::Input, &[h, w]), fixed("w", BufferKind::Weight, &[k, k]), fixed("y", BufferKind::Output, &[oh, ow])];
    let f = func(buffers, &[("acc", 1, &[])], vec![nest.into()]);
    let (x, wt) = (ramp(12), ramp(9));
    let mut want = vec![0.0; (oh * ow) as usize];
    for (i, t) in (0..12).flat_map(|i| (0..9).map(move |t| (i, t))) {
        want[((s * (i / w) + t / k) * ow + s * (i % w) + t % k) as usize] += x[i as usize] * wt[t as usize];
    }
    let mut y = vec![f32::NAN; want.len()];
    let counts = interp::execute_counted(&f, &[], Tensors { input: &x, weight: &wt, bias: None, output: &mut y }).unwrap();
    assert_eq!(y, want);
    assert_eq!(counts.fmas, 12 * 9);
}

#[test]
fn fused_lanes_round_once_on_every_path() {
    // 11 lanes: a whole block and a rest; the exact square of 1 + ε has a last bit that only a fused operation keeps.
    let a = 1.0 + f32::EPSILON;
    let x = || load("x", vec![0.into()], lanes(0, 11, 1, None));
    let value = Value::fma(x(), x(), Value::Const(f64::from(-1.0 - 2.0 * f32::EPSILON)));
    let f = x_to_y(11, 11, &[], vec![store("y", vec![0.into()], lanes(0, 11, 1, None), vec![value])]);
    let mut y = [0.0; 11];
    run(&f, &[a; 11], &mut y).unwrap();
    assert_eq!(y, [f32::EPSILON * f32::EPSILON; 11]);
}

#[test]
fn dimensions_lie_in_memory_in_the_order_the_buffer_says() {
    let at = || vec![v("c"), v("r"), v("q")];
    let copy = Stmt::store("y", at(), load("x", at(), None));
    let nest = Loop::new("c", 2, vec![Loop::new("r", 3, vec![Loop::new("q", 4, vec![copy]).into()]).into()]);
    let mut f = func(vec![fixed("x", BufferKind::Input, &[2, 3, 4]), fixed("y", BufferKind::Output, &[2, 3, 4])], &[], vec![nest.into()]);
    f.buffers[0].order = vec![1, 2, 0];
    let y = output(&f, 24, 24);
    for (c, r, q) in (0..2).flat_map(|c| (0..3).flat_map(move |r| (0..4).map(move |q| (c, r, q)))) {
        assert_eq!(y[(c * 3 + r) * 4 + q], ((r * 4 + q) * 2 + c + 1) as f32);
    }
}

#[test]
fn lanes_with_a_step_gather_and_scatter() {
    let f =
        x_to_y(8, 8, &[], vec![store("y", vec![1.into()], lanes(0, 3, 3, None), vec![load("x", vec![0.into()], lanes(0, 3, 2, None))])]);
    assert_eq!(output(&f, 8, 8), [-1.0, 1.0, -1.0, -1.0, 3.0, -1.0, -1.0, 5.0]);
}

#[test]
fn lanes_outside_a_clip_load_zero_and_are_not_stored() {
    let value = load("x", vec![Affine::from(-1)], lanes(0, 4, 1, Some((0, 2))));
    let f = x_to_y(2, 3, &[], vec![store("y", vec![0.into()], lanes(0, 4, 1, Some((0, 3))), vec![value])]);
    assert_eq!(output(&f, 2, 3), [0.0, 1.0, 2.0]);
    let counts = run(&f, &ramp(2), &mut [0.0; 3]).unwrap();
    assert_eq!(counts, Counts { fmas: 0, loads: 2, stores: 3 });
}

#[test]
fn a_clip_that_excludes_every_lane_touches_nothing() {
    for clip in [(5, 9), (-9, -5), (2, 1)] {
        let value = load("x", vec![Affine::from(-3)], lanes(0, 2, 1, Some(clip)));
        let keep = store("y", vec![Affine::from(99)], lanes(0, 2, 1, Some(clip)), vec![Value::Const(5.0)]);
        let f = x_to_y(1, 2, &[], vec![store("y", vec![0.into()], lanes(0, 2, 1, None), vec![value]), keep]);
        assert_eq!(output(&f, 1, 2), [0.0, 0.0], "clip {clip:?}");
    }
}

#[test]
fn parts_are_interleaved_and_clipped_by_their_own_coordinate() {
    let part = |at: i64| load("x", vec![at.into()], lanes(0, 3, 1, None));
    let f = |step, clip| x_to_y(6, 9, &[], vec![store("y", vec![0.into()], lanes(0, 3, step, clip), vec![part(0), part(3)])]);
    assert_eq!(output(&f(2, None), 6, 9), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, -1.0, -1.0, -1.0]);
    assert_eq!(output(&f(3, None), 6, 9), [1.0, 4.0, -1.0, 2.0, 5.0, -1.0, 3.0, 6.0, -1.0]);
    assert_eq!(output(&f(2, Some((1, 5))), 6, 9), [-1.0, 4.0, 2.0, 5.0, 3.0, -1.0, -1.0, -1.0, -1.0]);
    assert_eq!(output(&f(3, Some((2, 3))), 6, 9), [-1.0; 9]);
    assert_eq!(output(&f(3, Some((4, 7))), 6, 9), [-1.0, -1.0, -1.0, -1.0, 5.0, -1.0, 3.0, -1.0, -1.0]);
}

#[test]
fn register_arrays_scalars_and_vectors_meet_by_broadcast() {
    let acc = |r: Affine| Value::Reg("acc".into(), vec![r]);
    let set = |r: Affine, value| Stmt::Set { reg: "acc".into(), index: vec![r], value };
    let vector = load("x", vec![0.into()], lanes(0, 4, 1, None));
    let scaled = Value::fma(vector, Value::load("x", vec![v("r") + 1]), acc(v("r")));
    let out = store("y", vec![v("r"), 0.into()], lanes(1, 4, 1, None), vec![acc(v("r"))]);
    let unroll = |body| Stmt::from(Loop::new("r", 2, body).kind(LoopKind::Unroll));
    let tile = vec![unroll(vec![set(v("r"), Value::Const(0.5))]), unroll(vec![set(v("r"), scaled)]), unroll(vec![out])];
    let buffers = vec![fixed("x", BufferKind::Input, &[4]), fixed("y", BufferKind::Output, &[2, 4])];
    let f = func(buffers, &[("acc", 4, &[2])], vec![Stmt::Tile { name: "t".into(), asks: None, body: tile }]);
    assert_eq!(output(&f, 4, 8), [2.5, 4.5, 6.5, 8.5, 3.5, 6.5, 9.5, 12.5]);
    assert_eq!(run(&f, &ramp(4), &mut [0.0; 8]).unwrap().fmas, 8);
}

#[test]
fn tables_choose_bounds_and_indices_and_follow_their_variable() {
    let body = Loop::new(
        "t",
        Affine::table("T", "r"),
        vec![Stmt::store("y", vec![Affine::table("off", "r") + v("t")], Value::load("x", vec![v("r")]))],
    );
    let mut f = x_to_y(3, 6, &[], vec![Loop::new("again", 2, vec![Loop::new("r", 3, vec![body.into()]).into()]).into()]);
    f.tables = vec![Table { name: "T".into(), values: vec![2, 0, 3] }, Table { name: "off".into(), values: vec![4, 99, 0] }];
    assert_eq!(output(&f, 3, 6), [3.0, 3.0, 3.0, -1.0, 1.0, 1.0]);
    f.tables[1].values.pop();
    assert_eq!(failure(&f, 3, 6), "run, at again = 0, r = 2: table off is indexed by 2; it has entries 0..2");
}

#[test]
fn bounds_are_the_largest_and_the_least_and_steps_are_kept() {
    let mut l = Loop::new("i", 9, vec![Stmt::store("y", vec![v("i")], Value::Const(1.0))]);
    l.lo = vec![Affine::from(-4), 1.into()];
    l.hi.push(6.into());
    l.step = 2;
    assert_eq!(output(&x_to_y(0, 7, &[], vec![l.into()]), 0, 7), [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]);
}

#[test]
fn division_rounds_down_and_remainders_are_euclidean() {
    let conds = vec![Cond::Multiple { e: v("i") - 6, m: 3 }];
    let put = Stmt::store("y", vec![(v("i") - 6).floor_div(4) + 2], Value::load("x", vec![v("i")]));
    let f = x_to_y(12, 4, &[], vec![Loop::new("i", 12, vec![Stmt::When { conds, body: vec![put] }]).into()]);
    assert_eq!(output(&f, 12, 4), [1.0, 4.0, 10.0, -1.0]);
}

#[test]
fn every_operation_means_what_the_ir_says() {
    let c = Value::Const;
    let nan = || c(f64::NAN);
    let values = vec![
        Value::bin(BinOp::Sub, c(1.0), c(3.0)),
        Value::bin(BinOp::Div, c(1.0), c(4.0)),
        Value::bin(BinOp::Max, nan(), c(2.0)),
        Value::bin(BinOp::Min, c(3.0), c(2.0)),
        Value::un(UnOp::Neg, c(2.0)),
        Value::un(UnOp::Abs, c(-2.0)),
        Value::un(UnOp::Pow2, c(-3.0)),
        Value::un(UnOp::Tanh, c(0.5)),
        Value::un(UnOp::Sigmoid, c(0.0)),
        Value::select(CmpOp::Lt, nan(), c(0.0), c(1.0), c(2.0)),
        Value::select(CmpOp::Ne, nan(), nan(), c(1.0), c(2.0)),
        Value::select(CmpOp::Le, c(1.0), c(1.0), c(1.0), c(2.0)),
        c(0.1),
    ];
    let n = values.len();
    let stmts = values.into_iter().enumerate().map(|(i, value)| Stmt::store("y", vec![(i as i64).into()], value)).collect();
    let y = output(&x_to_y(0, n as i64, &[], stmts), 0, n);
    assert_eq!(y, [-2.0, 0.25, 2.0, 2.0, -2.0, 2.0, 0.125, 0.5f64.tanh() as f32, 0.5, 2.0, 1.0, 1.0, 0.1f32]);
}

#[test]
fn prepare_runs_first_and_scratch_starts_as_nan() {
    let buffers = vec![
        fixed("x", BufferKind::Input, &[0]),
        fixed("w", BufferKind::Weight, &[2]),
        fixed("y", BufferKind::Output, &[2]),
        fixed("packed", BufferKind::Packed, &[1]),
        fixed("s", BufferKind::Scratch, &[1]),
    ];
    let copy = |to: &str, at: i64, from: &str| Stmt::store(to, vec![at.into()], Value::load(from, vec![0.into()]));
    let mut f = func(buffers, &[], vec![copy("y", 0, "packed"), copy("y", 1, "s")]);
    f.prepare = vec![copy("packed", 0, "w")];
    let mut y = [0.0f32; 2];
    interp::execute(&f, &[], Tensors { input: &[], weight: &[3.0, 4.0], bias: None, output: &mut y }).unwrap();
    assert_eq!(y[0], 3.0);
    assert!(y[1].is_nan());
}

#[test]
fn an_access_out_of_bounds_names_the_place_and_the_loops() {
    let f = x_to_y(3, 9, &[], vec![Loop::new("i", 5, vec![Stmt::store("y", vec![v("i")], Value::load("x", vec![v("i") * 2 - 1]))]).into()]);
    assert_eq!(failure(&f, 3, 9), "run, at i = 0: x[-1] is outside the buffer's extents [3]");
    let f = x_to_y(8, 8, &[], vec![store("y", vec![2.into()], lanes(0, 4, 2, None), vec![Value::Const(0.0)])]);
    assert_eq!(failure(&f, 8, 8), "run: y[2..=8 step 2] is outside the buffer's extents [8]");
    let f = x_to_y(8, 8, &[], vec![store("y", vec![2.into()], lanes(0, 4, 2, Some((0, 8))), vec![Value::Const(0.0)])]);
    assert_eq!(output(&f, 8, 8), [-1.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0, -1.0]);
    let wide = Stmt::Set { reg: "acc".into(), index: vec![v("i")], value: Value::Const(0.0) };
    let f = x_to_y(0, 0, &[("acc", 1, &[2])], vec![Loop::new("i", 3, vec![wide]).into()]);
    assert_eq!(failure(&f, 0, 0), "run, at i = 2: acc[2] is outside the register array's extents [2]");
}

#[test]
fn functions_that_break_the_rules_are_errors_not_panics() {
    let put = |value| Stmt::store("y", vec![0.into()], value);
    let fails = |stmts: Vec<Stmt>, words: &str| {
        let message = failure(&x_to_y(4, 4, &[("a", 4, &[]), ("b", 2, &[])], stmts), 4, 4);
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    };
    fails(vec![put(Value::reg("ghost"))], "no register ghost");
    fails(vec![put(Value::load("ghost", vec![]))], "no buffer ghost");
    fails(vec![put(Value::load("x", vec![v("i")]))], "binds the variable i");
    fails(vec![put(Value::load("x", vec![Affine::sym("L")]))], "no symbol L");
    fails(vec![put(Value::load("x", vec![Affine::table("T", "i")]))], "no table T");
    fails(vec![put(Value::load("x", vec![]))], "0 indices; it must have 1");
    fails(vec![put(Value::reg("a"))], "4 lanes where 1 are wanted");
    fails(vec![Stmt::set("a", Value::bin(BinOp::Add, Value::reg("a"), Value::reg("b")))], "2 lanes where 4 are wanted");
    fails(vec![Stmt::store("x", vec![0.into()], Value::Const(0.0))], "read only");
    fails(vec![store("y", vec![0.into()], lanes(0, 1, 1, None), vec![Value::Const(0.0); 2])], "2 parts");
    fails(vec![store("y", vec![0.into()], lanes(1, 2, 1, None), vec![Value::Const(0.0)])], "dimension 1");
    fails(vec![Loop { step: 0, ..Loop::new("i", 2, vec![]) }.into()], "step is 0");
    fails(vec![Stmt::When { conds: vec![Cond::Multiple { e: 0.into(), m: 0 }], body: vec![] }], "multiples of 0");
    let big = i64::MAX;
    fails(vec![put(load("x", vec![Affine::from(big)], lanes(0, 1, big / 8, None)))], "outside the buffer's extents");
    fails(vec![Loop { lo: vec![big.into()], ..Loop::new("i", 1, vec![]) }.into(), put(Value::load("x", vec![big.into()]))], "outside");
    let mut f = x_to_y(4, 4, &[], vec![]);
    f.buffers.push(fixed("s", BufferKind::Scratch, &[big, big]));
    assert!(failure(&f, 4, 4).contains("overflows 64 bits"));
    f.buffers[2] = fixed("s", BufferKind::Scratch, &[-1]);
    assert!(failure(&f, 4, 4).contains("extent -1"));
}

#[test]
fn tensors_and_symbols_that_do_not_fit_are_named() {
    let f = naive_1d(2, 2, 0, 1);
    let (x, w, bias) = (ramp(6), ramp(12), ramp(2));
    let call = |symbols: &[i64], x: &[f32], bias: Option<&[f32]>, n: usize| {
        let e = interp::execute(&f, symbols, Tensors { input: x, weight: &w, bias, output: &mut vec![0.0; n] }).unwrap_err();
        assert_eq!(e.kind, Kind::Tensor, "{e}");
        e.message
    };
    assert_eq!(call(&[2], &x[..5], Some(&bias), 8), "the tensor for buffer x has 5 elements; its extents [3, 2] make 6");
    assert_eq!(call(&[2], &x, Some(&bias), 9), "the tensor for buffer y has 9 elements; its extents [2, 4] make 8");
    assert_eq!(call(&[2], &x, None, 8), "there is no bias tensor for buffer bias of 2 elements");
    assert_eq!(call(&[-2], &x, Some(&bias), 8), "symbol W is -2; it must be at least 0");
    assert!(call(&[], &x, Some(&bias), 8).starts_with("0 values for symbols"));
    let mut y = [0.0f64; 8];
    let e = interp::execute(&f, &[2], Tensors { input: &[0.0f64; 6], weight: &[0.0; 12], bias: None, output: &mut y }).unwrap_err();
    assert_eq!(e.message, "test computes in f32; it was given tensors of f64");
}

/// What an iteration of the outermost `par` loops leaves in scratch memory, no other may read, for another thread may run it.
#[test]
fn scratch_does_not_outlive_an_iteration_of_par_loops() {
    let text = |kind: &str| {
        format!(
            "func t f32 stage vector {{\n  buffer x: input f32[4]\n  buffer y: output f32[4]\n  buffer s: scratch f32[1]\n  reg r: f32\n  run {{\n    \
             {kind}for i in 0..4 {{\n      when 0 <= i < 1 {{\n        s[0] = x[i]\n      }}\n      r = s[0]\n      y[i] = r\n    }}\n  }}\n}}\n"
        )
    };
    let [par, seq]: [Func; 2] = ["par ", ""].map(|kind| text(kind).parse().unwrap_or_else(|e| panic!("{e}\n{}", text(kind))));
    assert_eq!(output(&seq, 4, 4), [1.0; 4]);
    let y = output(&par, 4, 4);
    assert_eq!(y[0], 1.0);
    assert!(y[1..].iter().all(|v| v.is_nan()), "{y:?}");
}
