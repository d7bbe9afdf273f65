//! Each invariant of `src/ir/verify.rs`, broken one at a time in a function that otherwise verifies.

use polyphase::ir::*;

const NAIVE: &str = "\
func naive f32 stage naive {
  symbols L
  buffer x: input f32[1, 64, L]
  buffer w: weight f32[64, 32, 4]
  buffer bias: bias f32[32]
  buffer y: output f32[1, 32, 2*L]
  table T = [0, 1]
  reg acc: f32
  run {
    par for n in 0..1, oc in 0..32 {
      for ox in 0..2*L step 1 {
        acc = bias[oc]
        for ic in 0..64, kx in 0..4 {
          when (ox - kx + 1) % 2 == 0 and 0 <= (ox - kx + 1) / 2 < L {
            acc = fma(x[n, ic, (ox - kx + 1) / 2], w[ic, oc, kx], acc)
          }
        }
        y[n, oc, ox] = tanh(acc)
      }
      for r in 0..2 {
        acc = w[0, T[r], r]
        y[0, T[r], 0] = acc
      }
    }
  }
}
";

const VECTOR: &str = "\
func vector f32 stage vector {
  buffer x: input f32[8, 32]
  buffer w: weight f32[8, 4, 2]
  buffer y: output f32[4, 64]
  buffer pk: packed f32[8, 2, 4]
  buffer P: scratch f32[8, 40]
  table T = [1, 3]
  reg acc: f32x4[4, 2]
  reg v: f32x4
  reg s: f32
  prepare {
    for ic in 0..8, t in 0..2, oc in 0..4 {
      pk[ic, t, oc] = w[ic, oc, t]
    }
  }
  run {
    par for n in 0..1 {
      for ic in 0..8, px.b in 0..40 step 4 {
        P[ic, px.b : 4] = x[ic, px.b : 4 clip 0..32]
      }
      tile x-4x2x1 {
        unroll for oc in 0..4, r in 0..2 {
          acc[oc, r] = 0.0
        }
        for ic in 0..8 {
          v = P[ic, 1 : 4]
          s = 2.0
          unroll for oc in 0..4, r in 0..2 {
            acc[oc, r] = fma(v, pk[ic, r, oc], acc[oc, r]) * s
          }
        }
        unroll for oc in 0..4 {
          y[oc, 1 : 4 step 2] = interleave(acc[oc, 0], acc[oc, 1])
        }
      }
    }
  }
}
";

fn diagnostics(f: &Func) -> Vec<String> {
    verify(f).err().unwrap_or_default().iter().map(|d| d.to_string()).collect()
}

/// Replaces `from` in a text that verifies, and expects `expected` among what is reported.
fn broken(base: &str, from: &str, to: &str, expected: &str) {
    assert!(base.contains(from), "{from} is not in the text");
    let f = parse(&base.replacen(from, to, 1)).unwrap_or_else(|e| panic!("{from} -> {to}: {e}"));
    let found = diagnostics(&f);
    assert!(found.iter().any(|d| d.contains(expected)), "{from} -> {to}\n  gave {found:#?}\n  not  {expected}");
}

fn each(base: &str, cases: &[(&str, &str, &str)]) {
    cases.iter().for_each(|(from, to, expected)| broken(base, from, to, expected));
}

#[test]
fn the_functions_verify_unbroken() {
    for base in [NAIVE, VECTOR] {
        assert_eq!(diagnostics(&parse(base).unwrap()), [""; 0]);
    }
}

#[test]
fn declarations() {
    each(
        NAIVE,
        &[
            ("symbols L", "symbols L, acc", "reg acc: acc is declared already, as a symbol; a name is declared once"),
            ("table T", "table x = [] table T", "table x: x is declared already, as a buffer"),
            ("f32[1, 64, L]", "f32[1, 64, M]", "buffer x: extent M uses M; extents are affine in symbols only"),
            ("f32[1, 64, L]", "f32[-1, 64, L]", "buffer x: extent -1 is negative"),
            ("f32[64, 32, 4]", "f32[64, 32, L]", "buffer w: extent L is not constant"),
            ("f32[1, 64, L]", "f32[1, 64, L] order 0 1 1", "buffer x: order [0, 1, 1] is not a permutation of the 3 dimensions"),
            ("f32[1, 64, L]", "f64[1, 64, L]", "buffer x: element type f64 differs from the function's, f32"),
            ("bias: bias", "bias: output", "buffer y: a buffer of kind output stands after bias of kind output"),
            ("bias: bias", "bias: input", "buffer bias: a buffer of kind input stands after w of kind weight"),
        ],
    );
    each(VECTOR, &[("reg s: f32", "reg s: f32x0", "reg s: 0 lanes"), ("f32x4[4, 2]", "f32x4[4, 0]", "reg acc: an extent is 0")]);
    each(
        VECTOR,
        &[
            ("f32x4[4, 2]", "f32x4[4294967296, 4294967296]", "at most 131072 entries"),
            ("f32x4[4, 2]", "f32x4[65537, 2]", "at most 131072 entries"),
            ("f32x4[4, 2]", "f32x1025[4, 2]", "reg acc: 1025 lanes; legal: at most 1024"),
            ("f32x4[4, 2]", "f32x1024[64, 2]", "reg v: 131076 lanes of all registers so far; legal: at most 131072"),
        ],
    );
}

/// Blocks of a length that comes at run time.
const COUNTED: &str = "\
func counted f32 stage panel {
  symbols L
  count n.x = even(L + 1, 5, 13)
  count n = n.x*L
  count n.w = whole(n.x, 6, 2)
  count n.q = units(L + 1, 2)
  buffer x: input f32[1, 1, L]
  buffer w: weight f32[1, 1, 1]
  buffer y: output f32[1, 1, L]
  buffer t: scratch f32[64]
  run {
    par for q.b in 0..L step 5*n.x {
      for q in q.b..min(L, q.b + 5*n.x) {
        t[q - q.b] = x[0, 0, q]
      }
      for i in 0..2, q in 0..1 {
        when 0 <= q.b + n.x*i < L {
          y[0, 0, q.b + n.x*i] = t[n.x*i]
        }
      }
    }
  }
}
";

#[test]
fn counts_and_what_they_scale() {
    assert_eq!(diagnostics(&parse(COUNTED).unwrap()), [""; 0]);
    each(
        COUNTED,
        &[
            ("count n = n.x*L", "count n = n*L", "count n: n is no symbol declared before it"),
            ("count n = n.x*L", "count L = n.x*n.x", "count L: L is declared already, as a symbol"),
            ("even(L + 1, 5, 13)", "even(L + n, 5, 13)", "count n.x: the extent L + n; it must be affine in symbols only"),
            ("even(L + 1, 5, 13)", "even(M, 5, 13)", "count n.x: the extent M; it must be affine in symbols only"),
            ("even(L + 1, 5, 13)", "even(L + 1, 0, 13)", "count n.x: units of 0, at most 13 of them; both must be at least 1"),
            (
                "whole(n.x, 6, 2)",
                "whole(n.x, 6, 6)",
                "count n.w: units of 6, and 6 left over; that must be at least 0 and less than a unit",
            ),
            ("units(L + 1, 2)", "units(L + 1, 0)", "count n.q: units of 0; they must be at least 1"),
            ("units(L + 1, 2)", "units(L + M, 2)", "count n.q: the extent L + M; it must be affine in symbols only"),
            ("for q in q.b..min(L, q.b + 5*n.x)", "for q in q.b..L step n.x", "those of par loops only may be"),
            ("step 5*n.x", "step 5*q", "the step is multiplied by q, which is no symbol declared for run"),
            ("t[n.x*i]", "t[n.x*j]", "j is neither a loop variable in scope nor a declared symbol"),
            ("stage panel", "stage form", "a count at stage form; legal from phases on"),
            ("stage panel", "stage form", "the product n.x*i at stage form; legal from panel on"),
        ],
    );
}

#[test]
fn counts_cut_evenly() {
    let f = parse(COUNTED).unwrap();
    let n = |length: i64| f.with_counts(&[length])[1];
    // One part up to 13 units of 5; then two parts of 7, of 7 and 8 …
    assert_eq!([0, 4, 5, 64, 65, 69, 70, 130].map(n), [1, 1, 2, 13, 7, 7, 8, 9]);
    // 7 units are one whole and one left over, 9 are two, of which the last overhangs.
    let whole = |length: i64| f.with_counts(&[length])[3];
    assert_eq!([4, 65, 70, 130].map(whole), [0, 6, 6, 12]);
    assert_eq!(f.with_counts(&[i64::MAX - 1])[1], 13);
    // What does not fit 64 bits wraps; nothing panics.
    assert!(f.with_counts(&[i64::MAX])[1] >= 1);
    assert_eq!(["n.x", "n.w"].map(|s| f.largest(&Affine::sym(s))), [Some(13), Some(12)]);
    assert_eq!(["L", "n"].map(|s| f.largest(&Affine::sym(s))), [None, None]);
}

#[test]
fn stages() {
    let at = |stage: &str, expected: &str| broken(VECTOR, "stage vector", &format!("stage {stage}"), expected);
    at("tile", "reg v: a vector register at stage tile; legal from vector on");
    at("tile", "an access with lanes at stage tile; legal from vector on");
    at("panel", "reg acc: a register array at stage panel; legal from tile on");
    at("panel", "buffer pk: a packed buffer at stage panel; legal from tile on");
    at("panel", "prepare: a prepare section at stage panel; legal from tile on");
    at("panel", "tile x-4x2x1: a tile at stage panel; legal from tile on");
    at("panel", "for r: an unroll loop at stage panel; legal from tile on");
    at("naive", "buffer P: a scratch buffer at stage naive; legal from form on");
    let at = |stage: &str, expected: &str| broken(NAIVE, "stage naive", &format!("stage {stage}"), expected);
    at("phases", "the division (ox - kx + 1) / 2 at stage phases; legal up to form");
    at("phases", "the condition (ox - kx + 1) % 2 == 0 at stage phases; legal up to form");
    at("lowered", "y[…] = …: tanh at stage lowered; legal before lowered");
    assert_eq!(diagnostics(&parse(&NAIVE.replace("stage naive", "stage form")).unwrap()), [""; 0]);
}

#[test]
fn loops_and_scopes() {
    each(
        NAIVE,
        &[
            ("ic in 0..64, kx in 0..4", "ic in 0..64, oc in 0..4", "for oc/for ox/for ic/for oc: oc hides another oc"),
            ("ic in 0..64, kx in 0..4", "acc in 0..64, kx in 0..4", "for acc: acc hides another acc"),
            ("step 1", "step 0", "run/for n/for oc/for ox: step 0; it must be at least 1"),
            ("for ox in 0..2*L", "for ox in 0..2*M", "for ox: M is neither a loop variable in scope nor a declared symbol"),
            ("oc in 0..32 {", "oc in 0..n {", "for oc: bound n of a par loop; it must be affine in symbols only"),
            ("oc in 0..32 {", "oc in 0..min(32, L) {", "for oc: several bounds on one side of a par loop"),
            ("for ic in", "par for ic in", "for ic: a par loop further in"),
            ("bias[oc]", "bias[kx]", "acc = …: kx is neither a loop variable in scope nor a declared symbol"),
            ("w[0, T[r], r]", "w[0, U[r], r]", "U is not a declared table"),
            ("w[0, T[r], r]", "w[0, T[q], r]", "q is neither a loop variable in scope"),
            ("for r in 0..2", "for r in 0..3", "T[r] with r from 0 to 2; the table has 2 entries"),
            ("% 2 ==", "% 0 ==", "modulus 0 in (ox - kx + 1) % 0 == 0; it must be at least 1"),
        ],
    );
    each(
        VECTOR,
        &[
            (
                "oc in 0..4, r in 0..2 {\n          acc",
                "oc in 0..4, r in 0..min(2, 3) {\n acc",
                "for r: several bounds on one side of an unroll loop",
            ),
            ("          unroll for oc in 0..4, r in 0..2", "unroll for oc in 0..4, r in 0..ic", "for r: bound ic of an unroll loop"),
            ("s = 2.0", "tile inner { s = 2.0 }", "tile inner: a tile inside a tile"),
            ("          unroll for oc in 0..4, r", "par for oc in 0..4, r", "for oc: a par loop inside a tile"),
            ("acc[oc, r] = 0.0", "acc[oc, r] = 0.0 for k in 0..r { }", "for k: a bound uses the unroll variable r"),
            (
                "      pk[ic, t, oc] = w",
                "pk[ic, t, oc] = 2.0 for z in 0..L { } pk[ic, t, oc] = w",
                "prepare/for ic/for t/for oc/for z: L is neither",
            ),
        ],
    );
}

#[test]
fn accesses_and_values() {
    each(
        NAIVE,
        &[
            ("bias[oc]", "b[oc]", "acc = …: b is not a declared buffer"),
            ("bias[oc]", "bias[oc, 0]", "bias with 2 indices; it has 1 dimensions"),
            ("acc = bias", "sum = bias", "sum = …: sum is not a declared register"),
            ("tanh(acc)", "tanh(acc[0])", "acc with 1 indices; it has 0 dimensions"),
            ("y[n, oc, ox]", "x[n, oc, ox]", "run stores to x, of kind input; it stores to output and scratch buffers only"),
        ],
    );
    each(
        VECTOR,
        &[
            ("acc[oc, r] = 0.0", "acc[oc, n] = 0.0", "acc is indexed by n; registers are indexed by constants and unroll variables"),
            ("acc[oc, r] = 0.0", "acc[oc, r + 1] = 0.0", "index r + 1 of acc runs from 1 to 2; it must lie in 0..2"),
            ("[ic, 1 : 4]", "[ic, 1 : 0]", "an access of 0 lanes"),
            ("[ic, 1 : 4]", "[ic, 1 : 4 step 0]", "lanes with step 0; it must be at least 1"),
            ("1 : 4 step 2]", "1 : 4]", "2 parts are interleaved with step 1; they need at least step 2"),
            ("y[oc, 1 : 4 step 2]", "y[oc, 1]", "2 parts are interleaved without lanes"),
            ("interleave(acc[oc, 0], acc[oc, 1])", "interleave()", "y[…] = …: a store without a value"),
            ("[ic, 1 : 4]", "[ic, 1 : 8]", "v = …: a value of 8 lanes is assigned to v, which has 4"),
            ("s = 2.0", "s = v", "s = …: a value of 4 lanes is assigned to s, which has 1"),
            ("* s", "* P[ic, 1 : 2]", "operands of 4 and of 2 lanes meet"),
            ("y[oc, 1 : 4 step 2]", "y[oc, 1 : 2 step 2]", "a value of 4 lanes is stored to 2"),
            ("P[ic, px.b : 4] =", "pk[ic, 0, 0 : 4] =", "run stores to pk, of kind packed"),
            ("pk[ic, t, oc] = w", "P[ic, oc] = w", "prepare stores to P, of kind scratch; it stores to packed buffers only"),
            ("= w[ic, oc, t]", "= x[ic, oc]", "prepare loads from x, of kind input"),
            ("s = 2.0", "s = w[0, 0, 0]", "run loads from w; at stage vector the weights are read where they were packed"),
        ],
    );
}

#[test]
fn flow_of_registers() {
    let unset = "acc = …: acc is read before it is set on every path";
    each(
        NAIVE,
        &[
            ("acc = bias[oc]", "", unset),
            ("acc = bias[oc]", "when 0 <= ox < 1 { acc = bias[oc] }", unset),
            ("acc = bias[oc]", "for j in 0..L { acc = bias[oc] }", unset),
            ("acc = bias[oc]", "for j in 1..1 { acc = bias[oc] }", unset),
            ("      acc = w[0, T[r], r]\n", "", "run/for n/for oc/for r/y[…] = …: acc is read before it is set on every path"),
        ],
    );
    each(
        VECTOR,
        &[
            (
                "oc in 0..4, r in 0..2 {\n          acc",
                "oc in 0..3, r in 0..2 {\n acc",
                "acc[oc, r] is read before it is set on every path (oc = 3, r = 0)",
            ),
            (
                "oc in 0..4, r in 0..2 {\n          acc",
                "r in 0..2, oc in 0..T[r] {\n acc",
                "is read before it is set on every path (oc = 1, r = 0)",
            ),
            ("oc in 0..4, r in 0..2 {\n          acc", "r in 0..2, oc in T[r]..6 {\n acc", "index oc of acc is 4; it must lie in 0..4"),
        ],
    );
    // What is not followed to its end is not accepted either; neither is what has no value.
    broken(
        VECTOR,
        "unroll for oc in 0..4 {",
        "unroll for z in 0..70000, oc in 0..4 {",
        "run: it writes out to more than 262144 statements",
    );
    broken(
        VECTOR,
        "unroll for oc in 0..4 {",
        "unroll for z in 0..9223372036854775807 { } unroll for oc in 0..4 {",
        "run: it writes out to more",
    );
    for (at, message) in [
        ("unroll for c in T[b]..2 { acc[c] = 0.0 }", "for a/for b/for c: a bound has no value: a table has no such entry"),
        ("acc[T[b]] = 0.0", "for a/for b/acc = …: index T[b] of acc has no value: a table has no such entry"),
    ] {
        let text = format!(
            "func f f32 stage tile {{ buffer y: output f32[8] table T = [1, 0] reg acc: f32[2]
             run {{ unroll for a in 0..3 {{ unroll for b in a..a + 1 {{ {at} }} }} }} }}"
        );
        let found = diagnostics(&parse(&text).unwrap());
        assert!(found.iter().any(|d| d.contains(message)), "{found:?}");
    }
    let dead =
        "func f f32 stage tile { buffer y: output f32[8] reg r: f32[2] run { unroll for i in 0..9 { for j in 3..2 { r[i] = 0.0 } } } }";
    assert!(diagnostics(&parse(dead).unwrap()).iter().any(|d| d.contains("index i of r")), "code is made of loops without iterations, too");
    for set in ["for j in 0..1 { acc = bias[oc] }", "when true { acc = bias[oc] }", "when 1 <= 2 < 3 and (4) % 2 == 0 { acc = bias[oc] }"] {
        assert_eq!(diagnostics(&parse(&NAIVE.replacen("acc = bias[oc]", set, 1)).unwrap()), [""; 0], "{set}");
    }
    broken(NAIVE, "acc = bias[oc]", "when 0 <= ox < 9 and 1 <= 3 < 3 { acc = bias[oc] }", unset);
    // A tail that only some entries have.
    let tail = VECTOR.replacen("acc[oc, r] = 0.0", "when 0 <= oc < 3 { acc[oc, r] = 0.0 }", 1).replacen(
        "acc[oc, r] = fma(v, pk[ic, r, oc], acc[oc, r]) * s",
        "when 0 <= oc < 3 { acc[oc, r] = fma(v, pk[ic, r, oc], acc[oc, r]) * s }",
        1,
    );
    let found = diagnostics(&parse(&tail).unwrap());
    assert!(found.len() == 2 && found.iter().all(|d| d.contains("/y[…] = …: acc[oc, ") && d.contains("(oc = 3")), "{found:#?}");
}

#[test]
fn bounds_of_buffers() {
    each(
        NAIVE,
        &[
            ("oc in 0..32 {", "oc in 0..33 {", "acc = …: index oc of bias runs from 0 to 32; it must lie in 0..32"),
            ("y[0, T[r], 0]", "y[0, 16*T[r] - r, T[r] - 2*r]", "index T[r] - 2*r of y runs from -1 to 0; it must lie in 0..2*L"),
            ("y[0, T[r], 0]", "y[0, (r + 63) / 2, 0]", "index (r + 63) / 2 of y runs from 31 to 32"),
        ],
    );
    each(
        VECTOR,
        &[
            ("[ic, 1 : 4]", "[ic, 1 : 1025]", "an access of 1025 lanes; legal: at most 1024"),
            ("[ic, 1 : 4]", "[ic, 37 : 4]", "index 37 of P runs from 37 to 40; it must lie in 0..40"),
            ("y[oc, 1 : 4 step 2]", "y[oc, 57 : 4 step 2]", "index 57 of y runs from 57 to 64; it must lie in 0..64"),
        ],
    );
    // Not decided, or guarded: not reported.
    for (from, to) in [
        ("y[0, T[r], 0]", "y[0, T[r], 1000]"),
        ("      y[0, T[r], 0] = acc", "when 1 <= r < 1 { y[0, r + 99, 0] = acc }"),
        ("      y[0, T[r], 0] = acc", "for q in 0..L { y[0, 0, q - 1] = acc }"),
        ("      y[0, T[r], 0] = acc", "for q in 5..5 { y[0, q + 99, 0] = acc }"),
    ] {
        assert_eq!(diagnostics(&parse(&NAIVE.replacen(from, to, 1)).unwrap()), [""; 0], "{to}");
    }
}

#[test]
fn what_no_text_can_say() {
    let change = |base: &str, change: fn(&mut Func), expected: &str| {
        let mut f = parse(base).unwrap();
        change(&mut f);
        let found = diagnostics(&f);
        assert!(found.iter().any(|d| d.contains(expected)), "gave {found:#?}\n  not  {expected}");
        // A dump of what is broken must still be possible.
        assert!(!f.to_string().is_empty());
    };
    fn first_loop(f: &mut Func) -> &mut Loop {
        match &mut f.run[0] {
            Stmt::For(l) => l,
            other => panic!("{other} is not a loop"),
        }
    }
    change(NAIVE, |f| f.regs[0].name = "2x".into(), "reg 2x: \"2x\" is not a name");
    change(NAIVE, |f| f.regs[0].name = "max".into(), "reg max: max is a reserved word");
    change(NAIVE, |f| first_loop(f).var = "a b".into(), "\"a b\" is not a name");
    change(NAIVE, |f| first_loop(f).lo.clear(), "a bound is missing");
    change(NAIVE, |f| first_loop(f).hi[0] = Affine::sym("Q"), "Q is not a declared symbol");
    change(
        NAIVE,
        |f| first_loop(f).hi[0].terms.insert(Atom::Sym("L".into()), 0),
        "L has the coefficient 0 in an index; such terms are left out",
    );
    change(
        NAIVE,
        |f| first_loop(f).hi[0] = Affine::atom(Atom::Div((Affine::sym("L") * 2).into(), 2)),
        "the division (2*L) / 2 can be carried out",
    );
    change(NAIVE, |f| first_loop(f).hi[0] = Affine::atom(Atom::Div((Affine::sym("L")).into(), -2)), "divisor -2 in L / -2");
    change(
        VECTOR,
        |f| f.prepare.push(Loop::new("z", Affine::sym("L"), vec![]).into()),
        "prepare/for z: symbol L in prepare, which runs before symbols are known",
    );
    let lanes = |dim, clip| Access { lanes: Some(Lanes { dim, count: 4, step: 1, clip }), ..Access::at("y", vec![0.into(), 0.into()]) };
    let mut f = parse(VECTOR).unwrap();
    f.run.clear();
    f.run.push(Stmt::Store { to: lanes(7, None), parts: vec![Value::Const(0.0)], stream: false });
    f.run.push(Stmt::Store { to: lanes(1, Some(Clip { lo: vec![], hi: vec![] })), parts: vec![Value::Const(0.0)], stream: true });
    assert_eq!(
        f.verify().unwrap_err().to_string(),
        "function vector breaks invariants of stage vector:\n  \
         run/y[…] = …: lanes along dimension 7; the buffer has 2 dimensions\n  \
         run/y[…] = …: a bound is missing; a clip has at least one lower and one upper bound"
    );
    assert_eq!(f.verify().unwrap_err().kind, polyphase::Kind::Ir);
}

#[test]
fn everything_is_reported_up_to_a_limit() {
    let many = "a = b ".repeat(3);
    let f = parse(&format!("func f f32 stage naive {{ run {{ {many} c = d e[0] = 1.0 }} }}")).unwrap();
    assert_eq!(diagnostics(&f).len(), 5);
    let many: String = (0..500).map(|i| format!("a{i} = 1.0 ")).collect();
    assert_eq!(diagnostics(&parse(&format!("func f f32 stage naive {{ run {{ {many} }} }}")).unwrap()).len(), 100);
}

#[test]
fn extreme_numbers_are_judged_without_overflow() {
    let (min, max, m) = (i64::MIN, i64::MAX, i64::MIN.unsigned_abs());
    let text = format!(
        "func f f32 stage naive {{ buffer y: output f32[3] run {{
           for a in {min}..0, b in {min}..{max} step {max}, c in {min}..-1 step 3, d in {max}..{min}, e in 0..{max} {{
             y[{min}*a - {m}*c - {m}*e] = 1.0
             y[{min}*a - {max}*c + ({max}*e - {m}) / 2] = 1.0
             y[{max}*a + {max}*b + {max}] = 1.0
           }} }} }}"
    );
    let empty = format!(" d in {max}..{min},");
    assert!(text.contains(&empty));
    for text in [text.replace(&empty, ""), text] {
        // Too large to decide is not a violation.
        assert_eq!(diagnostics(&parse(&text).unwrap()), [""; 0]);
    }
}
