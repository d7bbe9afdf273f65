//! Tile functions of every vector axis, built by hand.

use polyphase::ir::*;

pub fn v(name: &str) -> Affine {
    Affine::var(name)
}
pub fn c(n: i64) -> Affine {
    Affine::from(n)
}
pub fn sym(name: &str) -> Affine {
    Affine::sym(name)
}
pub fn unroll(var: &str, hi: i64, body: Vec<Stmt>) -> Stmt {
    Loop::new(var, hi, body).kind(LoopKind::Unroll).into()
}
pub fn seq(var: &str, hi: impl Into<Affine>, body: Vec<Stmt>) -> Stmt {
    Loop::new(var, hi, body).into()
}
pub fn buffer(name: &str, kind: BufferKind, elem: Elem, dims: &[Affine]) -> Buffer {
    Buffer { name: name.into(), kind, elem, dims: dims.to_vec(), order: (0..dims.len()).collect() }
}
pub fn reg(name: &str, lanes: usize, dims: &[usize]) -> Reg {
    Reg { name: name.into(), lanes, dims: dims.to_vec() }
}
pub fn at(name: &str, index: &[&str]) -> Value {
    Value::Reg(name.into(), index.iter().map(|i| v(i)).collect())
}
pub fn set(name: &str, index: &[&str], value: Value) -> Stmt {
    Stmt::Set { reg: name.into(), index: index.iter().map(|i| v(i)).collect(), value }
}
pub fn lanes(buffer: &str, index: Vec<Affine>, dim: usize, count: usize, step: i64, clip: Option<Clip>) -> Access {
    Access { buffer: buffer.into(), index, lanes: Some(Lanes { dim, count, step, clip }) }
}
pub fn clip(lo: Affine, hi: Affine) -> Option<Clip> {
    Some(Clip { lo: vec![lo], hi: vec![hi] })
}
pub fn tile(name: &str, body: Vec<Stmt>) -> Stmt {
    Stmt::Tile { name: name.into(), asks: None, body }
}
pub fn func(elem: Elem, syms: &[&str], buffers: Vec<Buffer>, regs: Vec<Reg>, run: Vec<Stmt>) -> Func {
    Func {
        name: "test".into(),
        stage: Stage::Vector,
        elem,
        symbols: syms.iter().map(|s| (*s).into()).collect(),
        counts: Vec::new(),
        buffers,
        tables: Vec::new(),
        regs,
        prepare: Vec::new(),
        run,
    }
}

/// k4 s2 along x: `acc[oc][rx][v]`, shifted rows from a panel, broadcast weights, bias, relu, interleaved clipped store.
/// Symbol `W` is the output width; `extra` more columns are cropped on the left.
pub struct XTile {
    pub elem: Elem,
    pub oc: i64,
    pub vectors: i64,
    pub lanes: i64,
    pub ic: i64,
    pub blocks: i64,
    pub c_out: i64,
    pub crop: i64,
    pub stream: bool,
    /// Whether the panel's and the output's widths are symbols.
    pub open: bool,
    /// Whether windows are loaded for one phase and tap at a time (few registers) or all at once (few loads).
    pub late: bool,
}

pub fn x_tile(s: &XTile) -> Func {
    let XTile { elem, oc, vectors, lanes: l, ic, blocks, .. } = *s;
    let span = vectors * l;
    let width = if s.open { sym("P") } else { c(blocks * span + 2) };
    let out = if s.open { sym("W") } else { c(2 * blocks * span - s.crop) };
    let obs = (s.c_out + oc - 1) / oc;
    let buffers = vec![
        buffer("P", BufferKind::Scratch, elem, &[c(ic), c(3), width]),
        buffer("WP", BufferKind::Packed, elem, &[c(obs), c(ic), c(2), c(2), c(2), c(oc)]),
        buffer("bias", BufferKind::Bias, elem, &[c(obs * oc)]),
        buffer("y", BufferKind::Output, elem, &[c(s.c_out), c(2), out.clone()]),
    ];
    let n = l as usize;
    let regs = vec![reg("acc", n, &[oc as usize, 2, vectors as usize]), reg("x", n, &[3, vectors as usize])];
    let load = lanes("P", vec![v("ic"), v("row") + v("ty"), v("col") + v("v") * l + v("s")], 2, n, 1, None);
    let weight = Value::load("WP", vec![v("ob"), v("ic"), v("ty"), v("tx"), v("rx"), v("oc")]);
    let window = Value::Reg("x".into(), vec![v("rx") + v("tx"), v("v")]);
    let product = set("acc", &["oc", "rx", "v"], Value::fma(window, weight, at("acc", &["oc", "rx", "v"])));
    let products = unroll("oc", oc, vec![unroll("rx", 2, vec![unroll("tx", 2, vec![unroll("v", vectors, vec![product])])])]);
    let loads = unroll("s", 3, vec![unroll("v", vectors, vec![set("x", &["s", "v"], Value::Load(load))])]);
    let channel = v("ob") * oc + v("oc");
    let bias = Value::bin(BinOp::Add, at("acc", &["oc", "rx", "v"]), Value::load("bias", vec![channel.clone()]));
    let relu = set("acc", &["oc", "rx", "v"], Value::bin(BinOp::Max, bias, Value::Const(0.0)));
    let to = lanes("y", vec![channel.clone(), v("row"), (v("col") + v("v") * l) * 2 - s.crop], 2, n, 2, clip(c(0), out));
    let part = |r: i64| Value::Reg("acc".into(), vec![v("oc"), c(r), v("v")]);
    let store = Stmt::Store { to, parts: vec![part(0), part(1)], stream: s.stream };
    let guard = Cond::Range { lo: c(0), e: channel, hi: c(s.c_out) };
    let guarded = Stmt::When { conds: vec![guard], body: vec![unroll("v", vectors, vec![unroll("rx", 2, vec![relu]), store])] };
    let zero = set("acc", &["oc", "rx", "v"], Value::Const(0.0));
    let reduce = if s.late { late_windows(s) } else { vec![loads, products] };
    let body = vec![
        unroll("oc", oc, vec![unroll("rx", 2, vec![unroll("v", vectors, vec![zero])])]),
        seq("ic", ic, vec![unroll("ty", 2, reduce)]),
        unroll("oc", oc, vec![guarded]),
    ];
    let col = Stmt::For(Loop { step: span, ..Loop::new("col", blocks * span, vec![tile("x", body)]) });
    let run = vec![seq("ob", obs, vec![seq("row", 2, vec![col])])];
    func(elem, &["W", "P"], buffers, regs, run)
}

/// The products of one row of taps with the windows of one phase and tap in registers at a time.
fn late_windows(s: &XTile) -> Vec<Stmt> {
    let n = s.lanes as usize;
    let column = v("col") + v("v") * s.lanes + v("rx") + v("tx");
    let load = lanes("P", vec![v("ic"), v("row") + v("ty"), column], 2, n, 1, None);
    let weight = Value::load("WP", vec![v("ob"), v("ic"), v("ty"), v("tx"), v("rx"), v("oc")]);
    let window = Value::Reg("x".into(), vec![c(0), v("v")]);
    let product = set("acc", &["oc", "rx", "v"], Value::fma(window, weight, at("acc", &["oc", "rx", "v"])));
    let keep = Stmt::Set { reg: "x".into(), index: vec![c(0), v("v")], value: Value::Load(load) };
    let body = vec![unroll("v", s.vectors, vec![keep]), unroll("oc", s.oc, vec![unroll("v", s.vectors, vec![product])])];
    vec![unroll("rx", 2, vec![unroll("tx", 2, body)])]
}

/// oc along the lanes: `acc[q][v]` of `l` lanes, weights as vectors, inputs broadcast; `last` puts channels last in memory.
pub fn oc_tile(elem: Elem, [q, vectors, l]: [i64; 3], ic: i64, taps: i64, c_out: i64, last: bool) -> Func {
    let span = vectors * l;
    let obs = (c_out + span - 1) / span;
    let mut y = buffer("y", BufferKind::Output, elem, &[c(c_out), sym("W")]);
    if last {
        y.order = vec![1, 0];
    }
    let buffers = vec![
        buffer("P", BufferKind::Scratch, elem, &[c(ic), sym("W") + taps - 1]),
        buffer("WP", BufferKind::Packed, elem, &[c(obs), c(ic), c(taps), c(span)]),
        y,
    ];
    let n = l as usize;
    let regs = vec![reg("acc", n, &[q as usize, vectors as usize]), reg("w", n, &[vectors as usize])];
    let load = lanes("WP", vec![v("ob"), v("ic"), v("t"), v("v") * l], 3, n, 1, None);
    let input = Value::load("P", vec![v("ic"), v("q0") + v("q") + v("t")]);
    let product = set("acc", &["q", "v"], Value::fma(at("w", &["v"]), input, at("acc", &["q", "v"])));
    let reduce =
        vec![unroll("v", vectors, vec![set("w", &["v"], Value::Load(load))]), unroll("q", q, vec![unroll("v", vectors, vec![product])])];
    let to = lanes("y", vec![v("ob") * span + v("v") * l, v("q0") + v("q")], 0, n, 1, clip(c(0), c(c_out)));
    let store = Stmt::Store { to, parts: vec![at("acc", &["q", "v"])], stream: false };
    let body = vec![
        unroll("q", q, vec![unroll("v", vectors, vec![set("acc", &["q", "v"], Value::Const(0.0))])]),
        seq("ic", ic, vec![seq("t", taps, reduce)]),
        unroll("q", q, vec![unroll("v", vectors, vec![store])]),
    ];
    let inner = Stmt::For(Loop { step: q, ..Loop::new("q0", sym("W"), vec![tile("oc", body)]) });
    func(elem, &["W"], buffers, regs, vec![seq("ob", obs, vec![inner])])
}

/// Kernel positions along the lanes (stride 8): `acc[q][oc]`, stores of neighbouring outputs at `8 q - pad`.
pub fn phase_tile(elem: Elem, q: i64, l: i64, ic: i64, pad: i64) -> Func {
    let buffers = vec![
        buffer("P", BufferKind::Scratch, elem, &[c(ic), sym("L") + 1]),
        buffer("WP", BufferKind::Packed, elem, &[c(ic), c(2), c(l)]),
        buffer("y", BufferKind::Output, elem, &[c(1), sym("L") * l - 2 * pad]),
    ];
    let n = l as usize;
    let regs = vec![reg("acc", n, &[q as usize]), reg("w", n, &[])];
    let load = Value::Load(lanes("WP", vec![v("ic"), v("t"), c(0)], 2, n, 1, None));
    let input = Value::load("P", vec![v("ic"), v("q0") + v("q") + 1 - v("t")]);
    let product = set("acc", &["q"], Value::fma(at("w", &[]), input, at("acc", &["q"])));
    let to = lanes("y", vec![c(0), (v("q0") + v("q")) * l - pad], 1, n, 1, clip(c(0), sym("L") * l - 2 * pad));
    let store = Stmt::Store { to, parts: vec![at("acc", &["q"])], stream: true };
    let body = vec![
        unroll("q", q, vec![set("acc", &["q"], Value::Const(0.0))]),
        seq("ic", c(ic), vec![unroll("t", 2, vec![set("w", &[], load), unroll("q", q, vec![product])])]),
        unroll("q", q, vec![store]),
    ];
    func(elem, &["L"], buffers, regs, vec![Stmt::For(Loop { step: q, ..Loop::new("q0", sym("L"), vec![tile("phase", body)]) })])
}

/// Scatter at stride `s`: inputs along the lanes, `y[oc, s i + k - p] += acc` for one tap after the other, clipped.
pub fn scatter_tile(elem: Elem, oc: i64, l: i64, ic: i64, s: i64, taps: i64, pad: i64) -> Func {
    let out = sym("W") * s - 2 * pad;
    let buffers = vec![
        buffer("x", BufferKind::Input, elem, &[c(ic), sym("W")]),
        buffer("w", BufferKind::Weight, elem, &[c(ic), c(oc), c(taps)]),
        buffer("y", BufferKind::Output, elem, &[c(oc), out.clone()]),
    ];
    let n = l as usize;
    let regs = vec![reg("acc", n, &[oc as usize]), reg("v", n, &[])];
    let load = Value::Load(lanes("x", vec![v("ic"), v("i")], 1, n, 1, clip(c(0), sym("W"))));
    let weight = Value::load("w", vec![v("ic"), v("oc"), v("k")]);
    let product = set("acc", &["oc"], Value::fma(at("v", &[]), weight, at("acc", &["oc"])));
    // Lanes beyond the input hold zeros; those beyond the output are clipped, and the last tap's own bound too.
    let hi = Clip { lo: vec![c(0), v("k") - pad], hi: vec![out, sym("W") * s + v("k") - pad] };
    let to = lanes("y", vec![v("oc"), v("i") * s + v("k") - pad], 1, n, s, Some(hi));
    let sum = Value::bin(BinOp::Add, Value::Load(to.clone()), at("acc", &["oc"]));
    let body = vec![seq(
        "k",
        taps,
        vec![
            unroll("oc", oc, vec![set("acc", &["oc"], Value::Const(0.0))]),
            seq("ic", ic, vec![set("v", &[], load), unroll("oc", oc, vec![product])]),
            unroll("oc", oc, vec![Stmt::Store { to, parts: vec![sum], stream: false }]),
        ],
    )];
    func(elem, &["W"], buffers, regs, vec![Stmt::For(Loop { step: l, ..Loop::new("i", sym("W"), vec![tile("scatter", body)]) })])
}
