//! Text forms: what is printed parses back to the same problem, facts of real layers hold, and no text panics.

use polyphase::problem::text::{self, Layer, parse_json, parse_repr};
use polyphase::{Activation, Deconv, Elem, Extent, Kind, Layout, Merge};
use proptest::prelude::*;

fn extent(open: &'static str) -> impl Strategy<Value = Extent> {
    prop_oneof![4 => (1usize..40).prop_map(Extent::Fixed), 1 => Just(Extent::Open(open.into()))]
}

fn activation() -> impl Strategy<Value = Activation> {
    let finite = -1e30f64..1e30;
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Relu),
        finite.clone().prop_map(Activation::LeakyRelu),
        (finite.clone(), 0.0..1e30f64).prop_map(|(lo, more)| Activation::Clamp(lo, lo + more)),
        finite.prop_map(|hi| Activation::Clamp(f64::NEG_INFINITY, hi)),
        Just(Activation::Tanh),
        Just(Activation::Sigmoid),
    ]
}

/// Valid problems of every kind the text forms can say.
fn problems() -> impl Strategy<Value = Deconv> {
    (1usize..=3).prop_flat_map(|rank| {
        let axis = |range: std::ops::Range<usize>| prop::collection::vec(range, rank);
        let padding = || prop::collection::vec(-3i64..4, rank);
        let input: Vec<_> = ["D", "H", "W"][3 - rank..].iter().map(|s| extent(s)).collect();
        let shape = (prop_oneof![extent("N"), Just(Extent::Fixed(0))], input, 1usize..5, 1usize..5, 1usize..4);
        let axes = (axis(1..6), axis(1..5), axis(1..4), padding(), padding(), axis(0..4), any::<bool>());
        let merge = prop::sample::select(vec![Merge::Sum, Merge::Mean, Merge::Max]);
        let layout = prop::sample::select(vec![Layout::ChannelsFirst, Layout::ChannelsLast]);
        let elem = prop::sample::select(vec![Elem::F32, Elem::F64]);
        (shape, axes, any::<bool>(), activation(), merge, layout, elem)
            .prop_map(
                |(
                    (batch, input, i, o, groups),
                    (kernel, stride, dilation, begin, end, op, same),
                    bias,
                    activation,
                    merge,
                    layout,
                    elem,
                )| Deconv {
                    batch,
                    input,
                    c_in: i * groups,
                    c_out: o * groups,
                    groups,
                    output_padding: op.iter().zip(stride.iter().zip(&dilation)).map(|(o, (s, d))| o % s.max(d)).collect(),
                    kernel,
                    stride,
                    dilation,
                    pad_end: if same { begin.clone() } else { end },
                    pad_begin: begin,
                    bias,
                    activation,
                    merge,
                    layout,
                    elem,
                },
            )
            .prop_filter("the output must exist", |p| p.validate().is_ok())
    })
}

proptest! {
    #[test]
    fn descriptor_round_trips(p in problems()) {
        let text = p.to_string();
        prop_assert_eq!(text.parse::<Deconv>().unwrap_or_else(|e| panic!("{text}: {e}")), p.clone());
        prop_assert_eq!(text::read(&text, None).unwrap(), p);
    }

    #[test]
    fn json_round_trips(p in problems()) {
        let layer = Layer { name: "a \"name\"".into(), problem: p };
        let json = layer.to_json().to_string();
        prop_assert_eq!(parse_json(&json).unwrap_or_else(|e| panic!("{json}: {e}")), vec![layer]);
    }

    #[test]
    fn counts_agree_with_their_definition(p in problems()) {
        let spatial: Vec<usize> = p.input.iter().map(|e| if let Extent::Fixed(v) = e { *v } else { 9 }).collect();
        let Ok(out) = p.output_spatial(if let Extent::Fixed(b) = p.batch { b } else { 2 }, &spatial) else { return Ok(()) };
        for a in 0..p.rank() {
            let lands = |i: usize, k: usize| (p.stride[a] * i + p.dilation[a] * k) as i64 - p.pad_begin[a];
            let pairs = (0..spatial[a]).flat_map(|i| (0..p.kernel[a]).map(move |k| (i, k)));
            let useful: Vec<_> = pairs.filter(|&(i, k)| (0..out[a] as i64).contains(&lands(i, k))).collect();
            prop_assert_eq!(p.useful_pairs(a, spatial[a]), useful.len() as u128);
            let phases = p.phases(a);
            prop_assert_eq!(phases.iter().map(|f| f.taps.len()).sum::<usize>(), p.kernel[a]);
            for (i, k) in useful {
                let residue = (lands(i, k) + p.pad_begin[a]).rem_euclid(p.stride[a] as i64) as usize;
                prop_assert!(phases[residue].taps.contains(&k));
            }
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>(), shape in any::<String>()) {
        let _ = text::read(&text, Some(&shape));
        let _ = parse_json(&text);
        let _ = parse_repr(&text, None);
        let _ = text.parse::<Deconv>();
    }

    #[test]
    fn no_nearly_right_text_panics(
        words in prop::collection::vec(prop::sample::select(vec![
            "2d", "1d", "n1", "n?", "4x4x4", "x", "->", "8", "k", "k4", "k4x3", "s2", "p-1", "pe", "op9", "d0", "g99999999999999999999", "bias",
            "clamp(", "clamp(0,6)", "leaky_relu(nan)", ")", "(", "ConvTranspose2d(", "kernel_size=(4, 4)", ",", "=", "1", "é", "{", "}", "[", "]", "\"k\":", "nhwc",
            "9223372036854775807", "-9223372036854775808", "?",
        ]), 0..14),
        space in prop::sample::select(vec!["", " "]),
    ) {
        let text = words.join(space);
        let _ = text::read(&text, Some("1,8,?,4"));
        let _ = parse_json(&text);
        let _ = parse_repr(&text, None);
        let _ = text.parse::<Deconv>();
    }

    #[test]
    fn no_number_panics(v in prop::collection::vec(any::<i64>(), 9), small in prop::collection::vec(-2i64..5, 9), mask in any::<u16>()) {
        let n: Vec<i64> = (0..9).map(|i| if mask >> i & 1 == 1 { v[i] } else { small[i] }).collect();
        let text = format!("1d n{} {}x{} -> {} k{} s{} p{} op{} d{}", n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]);
        if let Ok(p) = text.parse::<Deconv>() {
            let (batch, spatial) = p.fixed_shape().unwrap();
            p.output_shape(batch, &spatial).unwrap();
            p.useful_macs(batch, &spatial);
            p.dense_macs(batch, &spatial);
        }
    }
}

/// Published layers: descriptor, output extents, useful and zero-inserted operations, bytes of input, output and weight.
#[test]
fn facts_of_real_layers_hold() {
    type Fact = (&'static str, &'static [usize], u128, u128, u128);
    let facts: &[Fact] = &[
        ("2d n1 100x1x1 -> 512 k4", &[4, 4], 1_638_400, 26_214_400, 3_309_968),
        ("2d n1 512x4x4 -> 256 k4 s2 p1", &[8, 8], 51_380_224, 268_435_456, 8_486_912),
        ("2d n1 64x32x32 -> 3 k4 s2 p1", &[64, 64], 6_096_384, 25_165_824, 323_584),
        ("2d n1 256x64x64 -> 128 k3 s2 p1 op1", &[128, 128], 2_390_818_816, 9_663_676_416, 13_762_560),
        ("2d n1 56x128x128 -> 1 k9 s3 p4 op2", &[384, 384], 146_834_800, 1_337_720_832, 4_277_984),
        ("2d n1 56x180x320 -> 1 k9 s2 p4 op1", &[360, 640], 517_518_400, 2_090_188_800, 13_842_144),
        ("1d n1 512x100 -> 256 k16 s8 p4", &[800], 417_333_248, 3_355_443_200, 9_412_608),
        ("1d n1 64x12800 -> 32 k4 s2 p1", &[25_600], 209_707_008, 419_430_400, 6_586_368),
    ];
    for (text, out, useful, dense, bytes) in facts {
        let p: Deconv = text.parse().unwrap();
        let (n, i) = p.fixed_shape().unwrap();
        assert_eq!(p.output_spatial(n, &i).unwrap(), *out, "{text}");
        assert_eq!((p.flops_useful(n, &i), p.flops_dense(n, &i), p.bytes_io(n, &i)), (*useful, *dense, *bytes), "{text}");
    }
}

#[test]
fn json_of_a_layer_list_is_read_with_every_key() {
    let text = r#"[
     {"name": "dcgan", "model": "dcgan", "nd": 2, "n": 1, "cin": 512, "in": [4, 4], "cout": 256, "k": [4, 4], "s": [2, 2], "p": [1, 1], "op": [0, 0],
      "d": [1, 1], "g": 1, "out": [8, 8], "flops_useful": 51380224, "flops_dense": 268435456, "bytes_io": 8486912},
     {"name": "rest", "n": "?", "cin": 4, "in": ["?"], "cout": 4, "k": [3], "p": [1], "p_end": [0], "bias": true, "activation": {"clamp": [0, 6]},
      "merge": "mean", "layout": "channels_last", "dtype": "f64", "out": ["?"]}]"#;
    let layers = parse_json(text).unwrap();
    assert_eq!(layers[0].problem.to_string(), "2d n1 512x4x4 -> 256 k4 s2 p1");
    assert_eq!(
        (layers[1].name.as_str(), layers[1].problem.to_string().as_str()),
        ("rest", "1d n? 4x? -> 4 k3 p1 pe0 bias clamp(0,6) mean nwc f64")
    );
}

#[test]
fn json_errors_name_the_layer_the_value_and_what_is_legal() {
    let with = |rest: &str| format!(r#"{{"name": "l", "cin": 2, "cout": 2, "in": [4], "k": [3]{rest}}}"#);
    for (rest, wants) in [
        (r#", "stride": [2]"#, &["unknown key `stride`", "legal keys are name", "bytes_io"][..]),
        (r#", "s": 2"#, &["s is `2`", "a list"]),
        (r#", "s": [1.5]"#, &["s is `1.5`", "integer"]),
        (r#", "nd": 2"#, &["nd is `2`", "k has 1"]),
        (r#", "out": [7]"#, &["out is `[7]`", "must be 6"]),
        (r#", "flops_useful": 7"#, &["flops_useful is `7`", "must be 96"]),
        (r#", "bytes_io": "x""#, &["bytes_io", "128"]),
        (r#", "bias": 1"#, &["bias is `1`", "true and false"]),
        (r#", "activation": "gelu""#, &["gelu", "leaky_relu"]),
        (r#", "merge": "min""#, &["min", "sum, mean, max"]),
        (r#", "dtype": "f16""#, &["f16", "f32, f64"]),
        (r#", "layout": 3"#, &["layout is `3`", "channels_first, channels_last"]),
        (r#", "d": [0]"#, &["dilation is 0 on axis x", "at least 1"]),
        (r#", "model": 3"#, &["model is `3`", "string"]),
    ] {
        let e = parse_json(&with(rest)).unwrap_err();
        assert!(e.message.contains("layer `l`"), "{e}");
        wants.iter().for_each(|w| assert!(e.message.contains(w), "{e} lacks {w}"));
    }
    assert!(parse_json(r#"{"cout": 2, "in": [4], "k": [3]}"#).unwrap_err().message.contains("`cin` is missing"));
    assert!(parse_json("[3]").unwrap_err().message.contains("layer 0 is `3`"));
    assert!(parse_json("{").unwrap_err().message.contains("not JSON"));
    assert!(text::read("[]", None).unwrap_err().message.contains("0 layers"));
}

#[test]
fn torch_repr_is_read_as_printed() {
    for (repr, shape, wants) in [
        (
            "ConvTranspose2d(512, 256, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)",
            Some("1,512,4,4"),
            "2d n1 512x4x4 -> 256 k4 s2 p1",
        ),
        ("ConvTranspose2d(64, 3, kernel_size=(4, 3), stride=(2, 1))", Some("?, 64, 8, ?"), "2d n? 64x8x? -> 3 k4x3 s2x1 bias"),
        (
            "  (0): ConvTranspose1d(8, 4, kernel_size=(16,), stride=(8,), padding=(4,), output_padding=(1,))",
            None,
            "1d n? 8x? -> 4 k16 s8 p4 op1 bias",
        ),
        (
            "(up.0): ConvTranspose3d(8, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1), dilation=(2, 2, 2), groups=8, bias=False),",
            Some("(2,8,4,4,4)"),
            "3d n2 8x4x4x4 -> 8 k3 d2 g8",
        ),
        (
            "nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=True, padding_mode='zeros', dtype=torch.float64)",
            None,
            "2d n? 8x?x? -> 4 k4 s2 p1 bias f64",
        ),
    ] {
        assert_eq!(parse_repr(repr, shape).unwrap_or_else(|e| panic!("{repr}: {e}")).to_string(), wants);
        assert_eq!(text::read(repr, shape).unwrap().to_string(), wants);
    }
}

#[test]
fn torch_repr_errors_say_what_is_legal() {
    for (repr, shape, wants) in [
        ("Conv2d(3, 3, kernel_size=(3, 3))", None, "is no module repr"),
        ("ConvTranspose4d(3, 3, 3)", None, "1d, 2d and 3d are legal"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3, 3))", None, "a 2-D layer needs 2"),
        ("ConvTranspose2d(3, 3)", None, "kernel_size is missing"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3), padding_mode='reflect')", None, "only 'zeros'"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3), kernel=2)", None, "unknown argument `kernel`"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3), stride=(2, x))", None, "stride is `x`"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3), stride=4, kernel_size=3)", None, "kernel_size is given twice"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3), 4)", None, "follows named arguments"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3), dtype=torch.float16)", None, "torch.float32 and torch.float64"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3)", None, "one pair of parentheses"),
        ("x = ConvTranspose2d(3, 3, kernel_size=(3, 3))", None, "only `(name):`"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3))", Some("1,4,8,8"), "has 4 channels; the layer has 3"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3))", Some("1,3,8"), "needs 4"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3))", Some("1,?,8,8"), "leaves the channels open"),
        ("ConvTranspose2d(3, 3, kernel_size=(3, 3))", Some("1,3,8,a"), "an integer or ? is legal"),
    ] {
        let e = parse_repr(repr, shape).unwrap_err();
        assert!(e.kind == Kind::Parse && e.message.contains(wants), "{repr}: {e}");
    }
}

#[test]
fn descriptor_errors_say_where_and_what_is_legal() {
    for (text, wants) in [
        ("", "has no ->"),
        ("2d n1 8x4x4 8 k4", "has no ->"),
        ("4d n1 8x4x4 -> 8 k4", "1d, 2d and 3d are legal"),
        ("2d m1 8x4x4 -> 8 k4", "n1 or n? is legal"),
        ("2d n1 8x4 -> 8 k4", "input extent has 1 values"),
        ("2d n1 8x4x4 ->", "has no output channels"),
        ("2d n1 8x4x4 -> 8", "has no kernel"),
        ("2d n1 8x4x4 -> 8 k4 q3", "`q3` is unknown here"),
        ("2d n1 8x4x4 -> 8 k4 s", "is not an integer"),
        ("2d n1 8x4x4 -> 8 k4x4x4", "has 3 values; 1 or 2"),
        ("2d n1 8x4x4 -> 8 k4 k5", "says again"),
        ("2d n1 8x4x4 -> 8 k4 relu tanh", "says again"),
        ("2d n1 8x4x4 -> 8 k4 bias bias", "says again"),
        ("2d n1 8x4x4 -> 8 k4 clamp(1)", "clamp(lo,hi)"),
        ("2d n1 8x4x4 -> 8 k4 leaky_relu(a)", "`a` is not a number"),
    ] {
        let e = text.parse::<Deconv>().unwrap_err();
        assert!(e.message.contains(wants), "{text}: {e}");
    }
    assert_eq!("2d 8x4x4->8 k4 clamp(0, 6)".parse::<Deconv>().unwrap().to_string(), "2d n1 8x4x4 -> 8 k4 clamp(0,6)");
}

#[test]
fn an_input_shape_replaces_the_extents_of_any_form() {
    let p = text::read("1d n1 8x4 -> 8 k4", Some("?,8,9")).unwrap();
    assert_eq!(p.to_string(), "1d n? 8x9 -> 8 k4");
    let p = text::read(r#"{"cin": 8, "cout": 8, "in": [4], "k": [4]}"#, Some("3,8,?")).unwrap();
    assert_eq!(p.to_string(), "1d n3 8x? -> 8 k4");
    assert!(text::read("1d n1 8x4 -> 8 k4", Some("1,8,-3")).unwrap_err().message.contains("-3"));
}
