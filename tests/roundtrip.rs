//! What is printed parses back to an equal function; what is broken gives an error with its place, never a panic.

use polyphase::ir::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A function whose text uses every construct of the grammar; it need not verify.
const EVERYTHING: &str = "\
func deconv-2d.f32 f32 stage vector {
  symbols H, W
  buffer x: input f32[1, 512, H, W] order 0 2 3 1
  buffer w: weight f32[512, 256, 4, 4]
  buffer bias: bias f32[256]
  buffer y: output f32[1, 256, 2*H, 2*W - 1]
  buffer pk: packed f32[]
  buffer P: scratch f32[512, W + 2]
  table T = [2, -1]
  table none = []
  reg acc: f32
  reg v: f32x16[3, 2]
  reg s: f32x4
  prepare {
    for ic in 0..512, k in 0..4 {
      pk[] = w[ic, 0, k, 0]
    }
  }
  run {
    par for n in 0..1, oc in 0..256 {
      for qx.b in max(0, T[r] - 1)..min(W, 2*H, 7) step 2 {
        when (oy - ky + 1) % 2 == 0 and 0 <= (oy - ky + 1) / 2 < H and -q - 1 <= 3 - q < 2*(q / 2) + 5*((2*q + 1) / 4) - 5 {
          acc = fma(x[n, ic, (oy - ky + 1) / 2, 0], w[ic, oc, ky, kx], acc)
        }
        when true {
        }
        tile x-6x2x2 {
          unroll for oc.t in 0..6, t in 0..2 {
            v[oc.t, 1] = P[ic, qx.b + t : 16] * 2.0 + x[n, ic, 0, q : 16 step 2 clip 0..W]
            s = x[n, ic, 0, q : 4 clip max(0, W - 3)..min(W, H)]
          }
          for ic in 0..3 {
            unroll for t in 0..2 {
              acc = (1.0 + acc) * -2.5e-10 - (acc - (inf - -inf)) / (acc / 3.0) / 4.0
            }
          }
        }
        stream y[n, oc, oy, 2*qx - 1 : 16 step 2 clip 0..2*W] = interleave(v[0, 0], v[1, 0] + 1.0)
        y[n, oc, oy, ox] = max(min(neg(acc), abs(acc)), pow2(tanh(sigmoid(acc))))
        acc = select(acc < 1.0, select(acc <= 1.0, acc, 0.0), select(acc == 1.0, 1e300, select(acc != -0.0, 5e-324, 0.1)))
      }
    }
  }
}
";

#[test]
fn text_with_every_construct_prints_as_it_was_read() {
    assert_eq!(parse(EVERYTHING).unwrap().to_string(), EVERYTHING);
}

#[test]
fn comments_blanks_and_single_bounds_in_parentheses_are_read() {
    let a = parse("func f f32 stage naive { run { for i in max(0)..min(4), j in 0..2 { } } } // end").unwrap();
    let b = parse("func f f32 stage naive{run{// loops\nfor i in 0..4{for j in 0..2{}}}}").unwrap();
    assert_eq!(a, b);
    assert_eq!(a.to_string(), "func f f32 stage naive {\n  run {\n    for i in 0..4, j in 0..2 {\n    }\n  }\n}\n");
}

#[test]
fn long_nests_break_into_lines_and_keep_their_shape() {
    let mut body = vec![];
    for i in 0..40 {
        body = vec![Loop::new(format!("variable_{i}"), 10, body).into()];
    }
    let mut f = parse("func f f32 stage naive { run { } }").unwrap();
    f.run = body;
    let text = f.to_string();
    assert!(text.lines().count() > 6 && text.lines().all(|l| l.len() <= 120), "{text}");
    assert_eq!(parse(&text).unwrap(), f);
}

#[test]
fn nan_is_spelled() {
    let f = parse("func f f32 stage naive { reg a: f32 run { a = nan } }").unwrap();
    assert!(matches!(&f.run[0], Stmt::Set { value: Value::Const(c), .. } if c.is_nan()));
    assert!(f.to_string().contains("a = nan\n"));
}

#[test]
fn errors_say_where_what_and_what_else() {
    let cases = [
        ("", "1:1: found the end of the text, expected `func`"),
        ("func f f16 stage naive {}", "1:8: found `f16`, expected an element type: f32, f64"),
        (
            "func f f32 stage naive {\n  loop {",
            "2:3: found `loop`, expected `symbols`, `count`, `buffer`, `table`, `reg`, `prepare` or `run`",
        ),
        ("func f f32 stage naive { run { for max in 0..1 {} } }", "1:36: found `max`, expected a loop variable (the word is reserved)"),
        (
            "func f f32 stage naive { run { for i in 0..99999999999999999999 {} } }",
            "found 99999999999999999999, which does not fit 64 bits",
        ),
        ("func f f32 stage naive { run { for i in 0..9223372036854775807 + 1 {} } }", "the sum with this term does not fit 64 bits"),
        ("func f f32 stage naive { run { for i in 0..3*(9223372036854775807*j) {} } }", "does not fit 64 bits"),
        ("func f f32 stage naive { run { for i in 0..j / 0 {} } }", "found the divisor 0, expected at least 1"),
        ("func f f32 stage naive { run { for i in 0..2*j / 2 {} } }", "a product is divided"),
        ("func f f32 stage naive { run { for i in 0..j*k {} } }", "1:44: a product of two factors; one is a symbol, the other a variable"),
        ("func f f32 stage panel { symbols W count n = W + 2 run {} }", "found `+`, expected `*`"),
        ("func f f32 stage panel { symbols W count n = even(W, 2) run {} }", "found `)`, expected `,`"),
        ("func f f32 stage naive { run { when i + 1 % 2 == 0 {} } }", "a sum before `%` needs parentheses"),
        ("func f f32 stage naive { run { a = 1e999 } }", "1:36: found 1e999, which does not fit 64 bits"),
        ("func f f32 stage naive { run { a = fma(1.0, 2.0) } }", "found 2 operands of fma, expected 3"),
        ("func f f32 stage naive { run { a = exp(1.0) } }", "found `exp(`, expected fma, select, max, min, neg"),
        ("func f f32 stage naive { run { a[i : 4, j : 4] = 1.0 } }", "lie along one dimension"),
        ("func f f32 stage naive { reg v: f64x4 run { } }", "found `f64x4`, expected the function's element type"),
        ("func f f32 stage naive { run { é } }", "1:32: found 'é', which starts no name, number or sign"),
        ("func f f32 stage naive { run { } } }", "1:36: found `}`, expected the end of the text"),
    ];
    for (text, expected) in cases {
        let e = parse(text).unwrap_err();
        assert_eq!(e.kind, polyphase::Kind::Parse);
        assert!(e.message.contains(expected), "{text}\n  gave {e}\n  not  {expected}");
    }
}

#[test]
fn nesting_is_bounded() {
    let n = 100_000;
    let texts = [
        format!("func f f32 stage naive {{ run {{ {}", "when true { ".repeat(n)),
        format!("func f f32 stage naive {{ run {{ for i in 0..1{}", ", i in 0..1".repeat(n)),
        format!("func f f32 stage naive {{ run {{ a = {}", "(".repeat(n)),
        format!("func f f32 stage naive {{ run {{ a = {}", "neg(".repeat(n)),
        format!("func f f32 stage naive {{ run {{ a = a{}", " + a".repeat(n)),
        format!("func f f32 stage naive {{ run {{ a = {}a{}", "(".repeat(75), " + a)".repeat(75) + &" * a".repeat(75)),
        format!("func f f32 stage naive {{ run {{ for i in {}", "(".repeat(n)),
        format!("func f f32 stage naive {{ run {{ when {}", "(".repeat(n)),
    ];
    for text in texts {
        let e = parse(&text).unwrap_err();
        assert!(e.message.contains("nesting is deeper than 100"), "{e}");
    }
}

fn name(of: &'static [&'static str]) -> impl Strategy<Value = Name> + Clone {
    prop::sample::select(of).prop_map(Name::from)
}
fn integer() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![8 => -9..9_i64, 1 => any::<i64>(), 1 => prop::sample::select(&[i64::MIN, i64::MAX][..])]
}
const VARS: &[&str] = &["m", "oc.t", "qx.b", "i_1", "t", "e"];

fn affine() -> impl Strategy<Value = Affine> + Clone {
    let leaf = prop_oneof![
        name(&["H", "W", "n.x"]).prop_map(Atom::Sym),
        name(VARS).prop_map(Atom::Var),
        (name(&["T", "k0"]), name(VARS)).prop_map(|(t, v)| Atom::Table(t, v)),
        (name(&["H", "n.x"]), name(VARS)).prop_map(|(s, v)| Atom::Scaled(s, v)),
    ];
    let sum = |terms: BTreeMap<Atom, i64>, offset| Affine { terms: terms.into_iter().filter(|t| t.1 != 0).collect(), offset };
    let leaves = (prop::collection::btree_map(leaf, integer(), 0..3), integer()).prop_map(move |(t, o)| sum(t, o));
    leaves
        .clone()
        .prop_recursive(3, 6, 2, move |inner| {
            (leaves.clone(), inner, 1..9_i64, integer()).prop_map(|(mut e, inside, by, coef)| {
                // Only divisions that cannot be carried out stay divisions.
                if coef != 0 && inside.terms.values().any(|c| c % by != 0) {
                    e.terms.insert(Atom::Div(inside.into(), by), coef);
                }
                e
            })
        })
        .boxed()
}
fn bounds() -> impl Strategy<Value = Vec<Affine>> + Clone {
    prop_oneof![3 => prop::collection::vec(affine(), 1), 1 => prop::collection::vec(affine(), 2..4)]
}

fn access() -> impl Strategy<Value = Access> + Clone {
    let clip = prop::option::of((bounds(), bounds()).prop_map(|(lo, hi)| Clip { lo, hi }));
    let lanes = prop::option::of((any::<prop::sample::Index>(), 0..20_usize, integer(), clip));
    (name(&["x", "w", "P"]), prop::collection::vec(affine(), 0..4), lanes).prop_map(|(buffer, index, lanes)| {
        let lanes =
            lanes.filter(|_| !index.is_empty()).map(|(dim, count, step, clip)| Lanes { dim: dim.index(index.len()), count, step, clip });
        Access { buffer, index, lanes }
    })
}
fn entry() -> impl Strategy<Value = (Name, Vec<Affine>)> + Clone {
    (name(&["acc", "v"]), prop::collection::vec(affine(), 0..3))
}
fn value() -> impl Strategy<Value = Value> + Clone {
    let constant = any::<f64>().prop_filter("nan differs from itself", |c| !c.is_nan());
    let leaf = prop_oneof![
        constant.prop_map(Value::Const),
        prop::sample::select(&[0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY][..]).prop_map(Value::Const),
        entry().prop_map(|(r, i)| Value::Reg(r, i)),
        access().prop_map(Value::Load),
    ];
    leaf.prop_recursive(4, 12, 3, |v| {
        let v2 = (v.clone(), v.clone());
        prop_oneof![
            3 => (prop::sample::select(&BinOp::ALL[..]), v2.clone()).prop_map(|(op, (a, b))| Value::bin(op, a, b)),
            1 => (prop::sample::select(&UnOp::ALL[..]), v.clone()).prop_map(|(op, a)| Value::un(op, a)),
            1 => (v2.clone(), v.clone()).prop_map(|((a, b), c)| Value::fma(a, b, c)),
            1 => (prop::sample::select(&CmpOp::ALL[..]), v2.clone(), v2).prop_map(|(op, (a, b), (t, e))| Value::select(op, a, b, t, e)),
        ]
    })
    .boxed()
}

fn stmt() -> impl Strategy<Value = Stmt> + Clone {
    let cond = prop_oneof![
        (affine(), affine(), affine()).prop_map(|(lo, e, hi)| Cond::Range { lo, e, hi }),
        (affine(), integer()).prop_map(|(e, m)| Cond::Multiple { e, m }),
    ];
    let leaf = prop_oneof![
        (entry(), value()).prop_map(|((reg, index), value)| Stmt::Set { reg, index, value }),
        (access(), prop::collection::vec(value(), 0..3), any::<bool>()).prop_map(|(to, parts, stream)| Stmt::Store { to, parts, stream }),
    ];
    leaf.prop_recursive(4, 10, 3, move |s| {
        let body = prop::collection::vec(s, 0..3);
        let kind = prop::sample::select(&[LoopKind::Seq, LoopKind::Seq, LoopKind::Par, LoopKind::Unroll][..]);
        let ask =
            (name(&["x", "w"]), prop::collection::vec((affine(), affine()), 0..4)).prop_map(|(buffer, ranges)| Ask { buffer, ranges });
        let label = name(&["x-6x2x2", "oc.b", "6x16", "a-", "2e"]);
        prop_oneof![
            3 => (name(VARS), bounds(), bounds(), integer(), prop::option::weighted(0.2, name(&["W", "n.x"])), kind, body.clone())
                .prop_map(|(var, lo, hi, step, times, kind, body)| Stmt::For(Loop { var, lo, hi, step, times, kind, body })),
            1 => (prop::collection::vec(cond.clone(), 0..3), body.clone()).prop_map(|(conds, body)| Stmt::When { conds, body }),
            1 => (label, prop::option::of(ask), body).prop_map(|(name, asks, body)| Stmt::Tile { name, asks, body }),
        ]
    })
    .boxed()
}

fn func() -> impl Strategy<Value = Func> {
    let elem = prop::sample::select(&[Elem::F32, Elem::F64][..]);
    let buffer = (name(&["x", "w", "P"]), prop::sample::select(&BufferKind::ALL[..]), elem.clone(), prop::collection::vec(affine(), 0..4))
        .prop_flat_map(|(name, kind, elem, dims)| {
            Just((0..dims.len()).collect::<Vec<_>>()).prop_shuffle().prop_map(move |order| Buffer {
                name,
                kind,
                elem,
                dims: dims.clone(),
                order,
            })
        });
    let table = (name(&["T", "k0"]), prop::collection::vec(integer(), 0..4)).prop_map(|(name, values)| Table { name, values });
    let shape = (0..20_usize, prop::collection::vec(0..9_usize, 0..3));
    let regs = (shape.clone(), shape)
        .prop_map(|((l, d), (m, e))| vec![Reg { name: "acc".into(), lanes: l, dims: d }, Reg { name: "v".into(), lanes: m, dims: e }]);
    let body = || prop::collection::vec(stmt(), 0..3);
    let head = (name(&["f", "deconv-2d", "a.b"]), prop::sample::select(&Stage::ALL[..]), elem);
    (head, prop::collection::vec(buffer, 0..3), prop::collection::vec(table, 0..2), regs, body(), body()).prop_map(
        |((name, stage, elem), buffers, tables, regs, prepare, run)| {
            let symbols = vec!["H".into(), "W".into()];
            let even = CountOf::Even { extent: Affine::sym("W") * 2 + 1, unit: 5, most: 13 };
            let product = CountOf::Product("H".into(), "n.x".into());
            let whole = CountOf::Whole { extent: Affine::sym("n"), unit: 13, rest: 6 };
            let count = |name: &str, of| Count { name: name.into(), of };
            let counts = vec![count("n.x", even), count("n", product), count("n.w", whole)];
            Func { name, stage, elem, symbols, counts, buffers, tables, regs, prepare, run }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_functions_come_back_equal(f in func()) {
        let text = f.to_string();
        let back = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(back, f, "{}", text);
        // Whether it is legal does not matter here, only that it can be asked.
        let _ = verify(&parse(&text).unwrap());
    }

    #[test]
    fn mutated_text_never_panics(base in any::<prop::sample::Index>(), edits in prop::collection::vec(edit(), 1..6)) {
        let texts: Vec<&str> = include_str!("../docs/ir.md").split("```ir\n").skip(1).map(|t| t.split("```").next().unwrap()).collect();
        let base = base.index(texts.len() + 1);
        let mut text: Vec<char> = texts.get(base).unwrap_or(&EVERYTHING).chars().collect();
        for (kind, at, from, c) in edits {
            let (at, from) = (at.index(text.len()), from.index(text.len()));
            mutate(&mut text, kind, at, from, c);
        }
        let text: String = text.into_iter().collect();
        if let Ok(f) = parse(&text) {
            prop_assert_eq!(parse(&f.to_string()).unwrap().to_string(), f.to_string());
            let _ = verify(&f);
        }
    }
}

fn edit() -> impl Strategy<Value = (usize, prop::sample::Index, prop::sample::Index, char)> {
    (0..8_usize, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<char>())
}

/// One change: a character copied, removed or put in, a piece doubled, or a number made extreme (the one most likely to still parse).
fn mutate(text: &mut Vec<char>, kind: usize, at: usize, from: usize, c: char) {
    match kind {
        0 => text[at] = text[from],
        1 if text.len() > 1 => drop(text.remove(at)),
        2 => text.insert(at, c),
        3 => {
            let piece = text[from..(from + 9).min(text.len())].to_vec();
            text.splice(at..at, piece);
        }
        _ => {
            let extremes = ["0", "-1", "1", "3", "70000", "9223372036854775807", "-9223372036854775808", "18446744073709551615"];
            if let Some(digit) = (at..text.len()).find(|&i| text[i].is_ascii_digit()) {
                text.splice(digit..=digit, extremes[from % extremes.len()].chars());
            }
        }
    }
}
