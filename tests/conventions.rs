//! Conventions against facts of their frameworks: published shapes, small published results, and each framework's own definition
//! of the operation written out by brute force.

use polyphase::problem::conventions::adjoint::ForwardConv;
use polyphase::problem::conventions::caffe::Caffe;
use polyphase::problem::conventions::jax::{self, Jax};
use polyphase::problem::conventions::onnx::{AutoPad, OnnxAttributes};
use polyphase::problem::conventions::puzzlelib::{DeconvNd, PerAxis};
use polyphase::problem::conventions::tensorflow::{Keras, Padding, TensorFlow};
use polyphase::problem::conventions::xnnpack::Deconvolution2d;
use polyphase::weights::{WeightLayout, bilinear, to_torch};
use polyphase::{Activation, Deconv};

/// Every index of an array with these extents, outermost first.
fn indices(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![vec![]], |all, &e| all.iter().flat_map(|p| (0..e).map(move |i| [&p[..], &[i]].concat())).collect())
}

fn flat(extents: &[usize], index: &[usize]) -> usize {
    extents.iter().zip(index).fold(0, |n, (e, i)| n * e + i)
}

/// The definition, over channels-first data.
fn apply(d: &Deconv, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (n, input) = d.fixed_shape().unwrap();
    let out = d.output_spatial(n, &input).unwrap();
    let (i, o) = (d.c_in / d.groups, d.c_out / d.groups);
    let mut y = vec![0.0; n * d.c_out * out.iter().product::<usize>()];
    for at in indices(&[&[n, d.c_in, o], &input[..], &d.kernel[..]].concat()) {
        let ((b, ic, oc), at) = ((at[0], at[1], at[2]), &at[3..]);
        let (pos, tap) = at.split_at(input.len());
        let to: Vec<i64> = (0..pos.len()).map(|a| (d.stride[a] * pos[a] + d.dilation[a] * tap[a]) as i64 - d.pad_begin[a]).collect();
        if to.iter().zip(&out).all(|(t, &e)| (0..e as i64).contains(t)) {
            let to: Vec<usize> = to.iter().map(|&t| t as usize).collect();
            let out_at = flat(&[&[n, d.c_out], &out[..]].concat(), &[&[b, ic / i * o + oc], &to[..]].concat());
            let x_at = flat(&[&[n, d.c_in], &input[..]].concat(), &[&[b, ic], pos].concat());
            y[out_at] += x[x_at] * w[flat(&[&[d.c_in, o], &d.kernel[..]].concat(), &[&[ic, oc], tap].concat())];
        }
    }
    y
}

/// Small integers that differ from place to place.
fn fill(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7 + seed * 5 + i * i * 3) % 11) as f64 - 5.0).collect()
}

fn rows(y: &[f64], columns: usize) -> Vec<Vec<f64>> {
    y.chunks(columns).map(<[f64]>::to_vec).collect()
}

fn onnx(a: &OnnxAttributes, x: &[usize], w: &[usize]) -> Deconv {
    let x: Vec<_> = x.iter().copied().map(Some).collect();
    Deconv::from_onnx(a, &x, w, false).unwrap_or_else(|e| panic!("{e}"))
}

fn shape(d: &Deconv) -> Vec<usize> {
    let (n, i) = d.fixed_shape().unwrap();
    d.output_shape(n, &i).unwrap()
}

#[test]
fn worked_examples_come_out() {
    let d = Deconv::torch2d(1, 1, [4, 4]).stride([2, 2]).padding([1, 1]).input([4, 4]).build().unwrap();
    let y = apply(&d, &[1.0; 16], &(1..=16).map(f64::from).collect::<Vec<_>>());
    assert_eq!(rows(&y, 8)[0], [6.0, 12.0, 14.0, 12.0, 14.0, 12.0, 14.0, 7.0]);
    assert_eq!(rows(&y, 8)[1], [12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0]);
    let d = Deconv::torch2d(1, 1, [2, 2]).input([2, 2]).build().unwrap();
    let y = apply(&d, &[2.0, 4.0, 0.0, 1.0], &[3.0, 1.0, 1.0, 5.0]);
    assert_eq!(y, [6.0, 14.0, 4.0, 2.0, 17.0, 21.0, 0.0, 1.0, 5.0]);
}

#[test]
fn torch_documentation_examples_have_their_shapes() {
    let d = Deconv::torch2d(16, 33, [3, 5]).stride([2, 1]).padding([4, 2]).batch(20).input([50, 100]).bias(true).build().unwrap();
    assert_eq!(shape(&d), [20, 33, 93, 100]);
    let up = || Deconv::torch2d(16, 16, [3, 3]).stride([2, 2]).padding([1, 1]).input([6, 6]);
    assert_eq!(shape(&up().build().unwrap()), [1, 16, 11, 11]);
    assert_eq!(shape(&up().output_size([12, 12]).build().unwrap()), [1, 16, 12, 12]);
    assert_eq!(shape(&up().output_size([1, 16, 12, 11]).build().unwrap()), [1, 16, 12, 11]);
    let e = up().output_size([13, 12]).build().unwrap_err();
    assert_eq!(e.to_string(), "output_size is 13 on axis y; 11 to 12 are legal");
    assert!(up().output_size([2, 16, 12, 12]).build().unwrap_err().message.contains("[1, 16]"));
    assert!(up().open_input().output_size([12, 12]).build().unwrap_err().message.contains("axis y is open"));
}

#[test]
fn onnx_node_tests_have_their_shapes() {
    let base = OnnxAttributes::default();
    let strided = OnnxAttributes { strides: Some(vec![3, 2]), ..base.clone() };
    let sized = OnnxAttributes { output_shape: Some(vec![10, 8]), ..strided.clone() };
    let both = OnnxAttributes { output_padding: Some(vec![1, 1]), ..sized.clone() };
    let same = OnnxAttributes { auto_pad: AutoPad::SameUpper, strides: Some(vec![2, 2]), ..base.clone() };
    let group = OnnxAttributes { group: 2, ..base.clone() };
    type Case<'a> = (&'a OnnxAttributes, &'a [usize], &'a [usize], &'a [usize]);
    let cases: &[Case<'_>] = &[
        (&base, &[1, 1, 3, 3], &[1, 2, 3, 3], &[1, 2, 5, 5]),
        (&base, &[1, 1, 3], &[1, 2, 3], &[1, 2, 5]),
        (&base, &[1, 1, 3, 4, 5], &[1, 2, 3, 3, 3], &[1, 2, 5, 6, 7]),
        (&sized, &[1, 1, 3, 3], &[1, 2, 3, 3], &[1, 2, 10, 8]),
        (&both, &[1, 1, 3, 3], &[1, 2, 3, 3], &[1, 2, 10, 8]),
        (&OnnxAttributes { kernel_shape: Some(vec![3, 3]), ..both.clone() }, &[1, 1, 3, 3], &[1, 2, 3, 3], &[1, 2, 10, 8]),
        (&OnnxAttributes { pads: Some(vec![1, 2, 1, 2]), ..strided.clone() }, &[1, 1, 3, 3], &[1, 2, 3, 3], &[1, 2, 7, 3]),
        (&OnnxAttributes { dilations: Some(vec![2, 2]), ..base.clone() }, &[1, 1, 3, 3], &[1, 1, 2, 2], &[1, 1, 5, 5]),
        (&same, &[1, 1, 3, 3], &[1, 2, 3, 3], &[1, 2, 6, 6]),
        (&group, &[1, 2, 3, 3], &[2, 1, 3, 3], &[1, 2, 5, 5]),
        (&group, &[3, 2, 3, 3], &[2, 1, 3, 3], &[3, 2, 5, 5]),
    ];
    for (a, x, w, y) in cases {
        assert_eq!(shape(&onnx(a, x, w)), *y, "{a:?}");
    }
}

#[test]
fn onnx_node_tests_have_their_values() {
    let x: Vec<f64> = (0..9).map(f64::from).collect();
    let y = |a: &OnnxAttributes, w: &[f64], k: usize, columns: usize| rows(&apply(&onnx(a, &[1, 1, 3, 3], &[1, 1, k, k]), &x, w), columns);
    let same = OnnxAttributes { auto_pad: AutoPad::SameUpper, strides: Some(vec![2, 2]), ..Default::default() };
    assert_eq!(
        y(&same, &[1.0; 9], 3, 6),
        [
            [0.0, 0.0, 1.0, 1.0, 3.0, 2.0],
            [0.0, 0.0, 1.0, 1.0, 3.0, 2.0],
            [3.0, 3.0, 8.0, 5.0, 12.0, 7.0],
            [3.0, 3.0, 7.0, 4.0, 9.0, 5.0],
            [9.0, 9.0, 20.0, 11.0, 24.0, 13.0],
            [6.0, 6.0, 13.0, 7.0, 15.0, 8.0]
        ]
    );
    let sized = OnnxAttributes { strides: Some(vec![3, 2]), output_shape: Some(vec![10, 8]), ..Default::default() };
    let sized = y(&sized, &[1.0; 9], 3, 8);
    assert_eq!(sized[0], [0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 2.0, 0.0], "the extension is at the end");
    assert_eq!(sized[9], [0.0; 8]);
    let pads = OnnxAttributes { strides: Some(vec![3, 2]), pads: Some(vec![1, 2, 1, 2]), ..Default::default() };
    assert_eq!(y(&pads, &[1.0; 9], 3, 3)[1..4], [[1.0, 1.0, 3.0], [7.0, 4.0, 9.0], [7.0, 4.0, 9.0]]);
    let dilated = onnx(&OnnxAttributes { dilations: Some(vec![2, 2]), ..Default::default() }, &[1, 1, 3, 3], &[1, 1, 2, 2]);
    let values = apply(&dilated, &[3.0, 8.0, 1.0, 9.0, 5.0, 7.0, 3.0, 2.0, 6.0], &[7.0, 2.0, 1.0, 9.0]);
    assert_eq!(rows(&values, 5)[0], [21.0, 56.0, 13.0, 16.0, 2.0]);
    assert_eq!(rows(&values, 5)[4], [3.0, 2.0, 33.0, 18.0, 54.0]);
}

#[test]
fn onnx_pads_are_shared_out_by_mode() {
    // k5 s2, 9 -> 18: total 16 + 5 - 18 = 3, odd.
    for (auto_pad, output_shape, begin, end) in [
        (AutoPad::SameUpper, None, 1, 2),
        (AutoPad::SameLower, None, 2, 1),
        (AutoPad::NotSet, Some(vec![18]), 2, 1),
        (AutoPad::SameUpper, Some(vec![18]), 1, 2),
        (AutoPad::Valid, Some(vec![18]), 2, 1),
        (AutoPad::Valid, None, 0, 0),
        (AutoPad::NotSet, Some(vec![1, 1, 18]), 2, 1),
    ] {
        let a = OnnxAttributes { auto_pad, output_shape, strides: Some(vec![2]), ..Default::default() };
        let d = onnx(&a, &[1, 1, 9], &[1, 1, 5]);
        assert_eq!((d.pad_begin[0], d.pad_end[0]), (begin, end), "{a:?}");
    }
    let a = OnnxAttributes { auto_pad: AutoPad::SameUpper, strides: Some(vec![3]), output_padding: Some(vec![1]), ..Default::default() };
    let open = Deconv::from_onnx(&a, &[None, Some(1), None], &[1, 1, 4], true).unwrap();
    assert_eq!(open.output_shape(2, &[7]).unwrap(), [2, 1, 21]);
    let a = OnnxAttributes { strides: Some(vec![2]), output_padding: Some(vec![2]), pads: Some(vec![1, 1]), ..Default::default() };
    assert_eq!(shape(&onnx(&a, &[1, 1, 9], &[1, 1, 3])), [1, 1, 19], "output_padding of the stride is legal in ONNX");
}

#[test]
fn onnx_contradictions_are_named() {
    let no = |a: OnnxAttributes, x: &[Option<usize>], w: &[usize]| Deconv::from_onnx(&a, x, w, false).unwrap_err().message;
    let x = [Some(1), Some(4), Some(9)];
    let d = OnnxAttributes::default;
    for (message, wants) in [
        (no(OnnxAttributes { kernel_shape: Some(vec![4]), ..d() }, &x, &[4, 4, 3]), "kernel_shape is [4]; W of shape [4, 4, 3] has [3]"),
        (no(d(), &x, &[3, 4, 3]), "X has 4 channels; the weights need 3"),
        (no(d(), &x[..2], &[4, 4, 3]), "X has 2 extents; a 1-D layer needs 3"),
        (no(d(), &x, &[4, 4]), "W has 2 extents"),
        (no(OnnxAttributes { pads: Some(vec![1]), ..d() }, &x, &[4, 4, 3]), "pads [1] has 1 values; a 1-D layer needs 2"),
        (no(OnnxAttributes { output_shape: Some(vec![1, 5, 11]), ..d() }, &x, &[4, 4, 3]), "X and W give [1, 4]"),
        (no(OnnxAttributes { output_shape: Some(vec![4, 11]), ..d() }, &x, &[4, 4, 3]), "has 2 values; 1 (spatial) or 3"),
        (no(OnnxAttributes { output_shape: Some(vec![0]), ..d() }, &x, &[4, 4, 3]), "output_shape is 0 on axis x"),
        (no(OnnxAttributes { output_shape: Some(vec![9]), ..d() }, &[None, None, None], &[4, 4, 3]), "axis x of X is open"),
        (no(OnnxAttributes { strides: Some(vec![0]), ..d() }, &x, &[4, 4, 3]), "stride is 0 on axis x"),
        (no(OnnxAttributes { group: 0, ..d() }, &x, &[4, 4, 3]), "group is 0"),
        (no(OnnxAttributes { group: 3, ..d() }, &x, &[4, 4, 3]), "c_in is 4, which is not divisible by groups = 3"),
        (no(OnnxAttributes { output_padding: Some(vec![-1]), ..d() }, &x, &[4, 4, 3]), "output_padding is -1"),
        (
            no(OnnxAttributes { auto_pad: AutoPad::SameLower, pads: Some(vec![1, 1]), ..d() }, &x, &[4, 4, 3]),
            "pads are [1, 1] beside an auto_pad",
        ),
        ("SAME".parse::<AutoPad>().unwrap_err().message, "SAME_UPPER and SAME_LOWER are legal"),
    ] {
        assert!(message.contains(wants), "{message} lacks {wants}");
    }
}

fn tf(strides: &[i64], padding: Padding, dilations: &[i64]) -> TensorFlow {
    TensorFlow { strides: strides.to_vec(), padding, dilations: dilations.to_vec() }
}

#[test]
fn tensorflow_worked_example_comes_out() {
    let d = Deconv::from_tensorflow(&tf(&[2, 2], Padding::Same, &[1, 1]), &[1, 2, 2, 1], &[3, 3, 1, 1], &[1, 4, 4, 1]).unwrap();
    let y = rows(&apply(&d, &[1.0, 2.0, 3.0, 4.0], &[1.0; 9]), 4);
    assert_eq!(y, [[1.0, 1.0, 3.0, 2.0], [1.0, 1.0, 3.0, 2.0], [4.0, 4.0, 10.0, 6.0], [3.0, 3.0, 7.0, 4.0]]);
}

/// TensorFlow's definition: the gradient of a 1-D forward convolution, which pads `total / 2` before and reads zeros beyond.
fn tf_gradient(x: &[f64], w: &[f64], out: usize, s: usize, dil: usize, padding: Padding) -> Vec<f64> {
    let reach = dil * (w.len() - 1) + 1;
    let before = match padding {
        Padding::Same => ((out.div_ceil(s) - 1) * s + reach).saturating_sub(out) / 2,
        Padding::Valid => 0,
    };
    let mut y = vec![0.0; out];
    for (i, x) in x.iter().enumerate() {
        for (k, w) in w.iter().enumerate() {
            if let Some(cell) = (i * s + k * dil).checked_sub(before).and_then(|o| y.get_mut(o)) {
                *cell += x * w;
            }
        }
    }
    y
}

#[test]
fn tensorflow_is_the_gradient_of_its_forward_convolution() {
    for (k, s, dil) in indices(&[5, 4, 3]).into_iter().map(|v| (v[0] + 1, v[1] + 1, v[2] + 1)) {
        for (out, padding) in (1..20usize).flat_map(|o| [(o, Padding::Same), (o, Padding::Valid)]) {
            let reach = dil * (k - 1) + 1;
            let forward = match padding {
                Padding::Same => out.div_ceil(s),
                Padding::Valid => (out + 1).saturating_sub(reach).div_ceil(s),
            };
            for input in 1..8 {
                let d = Deconv::from_tensorflow(&tf(&[s as i64], padding, &[dil as i64]), &[1, input, 1], &[k, 1, 1], &[out]);
                assert_eq!(d.is_ok(), input == forward, "{input} -> {out} k{k} s{s} d{dil} {padding:?}: {d:?}");
                if let Ok(d) = d {
                    let (x, w) = (fill(input, 1), fill(k, 2));
                    assert_eq!(apply(&d, &x, &w), tf_gradient(&x, &w, out, s, dil, padding), "{d}");
                }
            }
        }
    }
}

#[test]
fn tensorflow_and_tflite_name_contradictions() {
    let op = tf(&[2, 2], Padding::Same, &[1, 1]);
    let e = Deconv::from_tensorflow(&op, &[1, 2, 2, 1], &[3, 3, 1, 1], &[1, 5, 4, 1]).unwrap_err();
    assert_eq!(e.to_string(), "output_shape is 5 on axis y for an input of 2 and stride 2; 3 to 4 are legal");
    let e = Deconv::from_tensorflow(&op, &[1, 2, 2, 1], &[3, 3, 1, 1], &[1, 4, 4, 7]).unwrap_err();
    assert!(e.message.contains("[1, 4, 4, 7]") && e.message.contains("1 channels"), "{e}");
    let e = Deconv::from_tflite(&op, &[1, 2, 2, 5], &[8, 3, 3, 4], &[1, 4, 4, 8], true).unwrap_err();
    assert_eq!(e.to_string(), "the input has 5 channels; the weights need 4");
    let d = Deconv::from_tflite(&op, &[1, 2, 2, 4], &[8, 3, 3, 4], &[1, 4, 4, 8], true).unwrap();
    assert_eq!((shape(&d), d.bias), (vec![1, 4, 4, 8], true));
    assert!("FULL".parse::<Padding>().unwrap_err().message.contains("SAME and VALID"));
}

#[test]
fn keras_output_lengths_are_its_own() {
    // (padding, kernel, stride, dilation, output_padding, input) -> Keras's deconv_output_length.
    for (padding, k, s, d, op, input, out) in [
        (Padding::Same, 3, 2, 1, None, 8, 16),
        (Padding::Same, 4, 2, 1, None, 7, 14),
        (Padding::Valid, 3, 2, 1, None, 8, 17),
        (Padding::Valid, 2, 3, 1, None, 8, 24),
        (Padding::Valid, 3, 1, 2, None, 8, 12),
        (Padding::Same, 3, 2, 1, Some(1), 8, 16),
        (Padding::Same, 3, 2, 1, Some(0), 8, 15),
        (Padding::Valid, 3, 2, 1, Some(1), 8, 18),
        (Padding::Same, 1, 3, 1, None, 5, 15),
    ] {
        let layer = Keras {
            filters: 4,
            kernel_size: vec![k],
            strides: vec![s],
            padding,
            output_padding: op.map(|v| vec![v]),
            dilation_rate: vec![d],
            use_bias: true,
        };
        let fixed = Deconv::from_keras(&layer, &[Some(1), Some(input), Some(3)]).unwrap();
        assert_eq!(shape(&fixed), [1, out, 4], "{layer:?}");
        let open = Deconv::from_keras(&layer, &[None, None, Some(3)]).unwrap();
        assert_eq!(open.output_shape(1, &[input]).unwrap(), [1, out, 4]);
        let wrong = Keras { output_padding: Some(vec![s]), ..layer };
        let e = Deconv::from_keras(&wrong, &[None, None, Some(3)]).unwrap_err();
        assert_eq!(e.to_string(), format!("output_padding is {s} on axis x; it must be at most {}", s - 1));
    }
}

#[test]
fn keras_layers_that_tensorflow_refuses_are_refused() {
    let layer = Keras {
        filters: 4,
        kernel_size: vec![4],
        strides: vec![2],
        padding: Padding::Same,
        output_padding: Some(vec![0]),
        dilation_rate: vec![1],
        use_bias: false,
    };
    let e = Deconv::from_keras(&layer, &[Some(1), Some(8), Some(3)]).unwrap_err();
    assert_eq!(e.to_string(), "output_shape is 14 on axis x for an input of 8 and stride 2; 15 to 16 are legal");
    assert!(Deconv::from_keras(&layer, &[Some(1), Some(8), None]).unwrap_err().message.contains("channels are open"));
}

/// JAX's definition in 1-D: zeros between inputs, explicit padding, then a correlation at stride 1.
fn jax_correlation(x: &[f64], w: &[f64], s: usize, dil: usize, low: i64, high: i64) -> Vec<f64> {
    let wide = ((x.len() - 1) * s + 1) as i64;
    let reach = (dil * (w.len() - 1) + 1) as i64;
    let at = |p: i64| if p >= 0 && p < wide && p % s as i64 == 0 { x[p as usize / s] } else { 0.0 };
    (0..wide + low + high - reach + 1).map(|o| w.iter().enumerate().map(|(j, w)| w * at(o + (j * dil) as i64 - low)).sum()).collect()
}

#[test]
fn jax_is_a_correlation_over_the_dilated_input() {
    for (k, s, dil, input) in indices(&[5, 4, 2, 3]).into_iter().map(|v| (v[0] + 1, v[1] + 1, v[2] + 1, v[3] + 2)) {
        let reach = dil * (k - 1) + 1;
        for padding in [
            jax::Padding::Same,
            jax::Padding::Valid,
            jax::Padding::Explicit(vec![(2, 1)]),
            jax::Padding::Explicit(vec![(-1, reach as i64 + 3)]),
        ] {
            let (low, high) = match &padding {
                jax::Padding::Explicit(p) => p[0],
                jax::Padding::Same => {
                    let total = (reach + s - 2) as i64;
                    let low = if s > reach - 1 { reach as i64 - 1 } else { (total as f64 / 2.0).ceil() as i64 };
                    (low, total - low)
                }
                jax::Padding::Valid => (reach as i64 - 1, (s - 1 + reach.saturating_sub(s)) as i64),
            };
            let op =
                Jax { strides: vec![s as i64], padding: padding.clone(), rhs_dilation: Some(vec![dil as i64]), transpose_kernel: false };
            let wide = (input - 1) * s + 1;
            let Ok(d) = Deconv::from_jax(&op, &[Some(1), Some(input), Some(1)], &[k, 1, 1]) else {
                assert!(wide as i64 + low + high < reach as i64, "{op:?} was refused");
                continue;
            };
            let (x, w) = (fill(input, 3), fill(k, 4));
            let y = apply(&d, &x, &to_torch(&d, op.weight_layout(), &w).unwrap());
            assert_eq!(y, jax_correlation(&x, &w, s, dil, low, high), "{op:?}");
            match padding {
                jax::Padding::Same => assert_eq!(y.len(), input * s),
                jax::Padding::Valid => assert_eq!(y.len(), input * s + reach.saturating_sub(s)),
                jax::Padding::Explicit(_) => {}
            }
            // transpose_kernel flips the kernel first and exchanges its channels.
            let flipped: Vec<f64> = w.iter().rev().copied().collect();
            let transposed = Jax { transpose_kernel: true, ..op };
            let t = apply(&d, &x, &to_torch(&d, transposed.weight_layout(), &w).unwrap());
            assert_eq!(t, jax_correlation(&x, &flipped, s, dil, low, high));
        }
    }
}

#[test]
fn jax_channels_follow_transpose_kernel() {
    let op = |transpose_kernel| Jax { strides: vec![2, 2], padding: jax::Padding::Same, rhs_dilation: None, transpose_kernel };
    let x = [Some(1), Some(4), Some(4), Some(8)];
    assert_eq!(shape(&Deconv::from_jax(&op(false), &x, &[3, 3, 8, 16]).unwrap()), [1, 8, 8, 16]);
    assert_eq!(shape(&Deconv::from_jax(&op(true), &x, &[3, 3, 16, 8]).unwrap()), [1, 8, 8, 16]);
    assert_eq!(Deconv::from_jax(&op(true), &x, &[3, 3, 8, 16]).unwrap_err().to_string(), "lhs has 8 channels; the weights need 16");
}

#[test]
fn every_weight_layout_is_converted_by_its_index_formula() {
    let d = Deconv::torch2d(6, 4, [2, 3]).groups(2).input([4, 4]).build().unwrap();
    let (i, o) = (3, 2);
    let layouts =
        [WeightLayout::Torch, WeightLayout::Onnx, WeightLayout::ForwardOihw, WeightLayout::Hwoi, WeightLayout::Ohwi, WeightLayout::Hwio];
    for layout in layouts {
        let shape = layout.shape(&d);
        let w: Vec<usize> = (0..shape.iter().product()).collect();
        let torch = to_torch(&d, layout, &w).unwrap();
        for at in indices(&[6, 2, 2, 3]) {
            let (ic, oc, y, x) = (at[0], at[1], at[2], at[3]);
            let (group, all) = (ic / i, ic / i * o + oc);
            let source = match layout {
                WeightLayout::Torch | WeightLayout::Onnx | WeightLayout::ForwardOihw => vec![ic, oc, y, x],
                WeightLayout::Hwoi => vec![y, x, oc, ic],
                WeightLayout::Ohwi => vec![all, y, x, ic - group * i],
                WeightLayout::Hwio => vec![1 - y, 2 - x, ic - group * i, all],
            };
            assert_eq!(torch[flat(&[6, 2, 2, 3], &at)], w[flat(&shape, &source)], "{layout:?} {at:?}");
        }
        let e = to_torch(&d, layout, &w[1..]).unwrap_err();
        assert!(e.message.starts_with("the weight has 71 values; the layer needs 72"), "{e}");
    }
}

#[test]
fn caffe_layers_and_its_upsampling_recipe() {
    let l = Caffe {
        num_output: 21,
        kernel_size: vec![64, 64],
        stride: Some(vec![32, 32]),
        pad: None,
        dilation: None,
        group: 21,
        bias_term: false,
    };
    let d = Deconv::from_caffe(&l, &[Some(1), Some(21), Some(16), Some(16)]).unwrap();
    assert_eq!(shape(&d), [1, 21, 544, 544], "FCN-32s before its crop");
    assert!(Deconv::from_caffe(&l, &[Some(1), None, Some(16), Some(16)]).unwrap_err().message.contains("channels are open"));
    for (factor, k, pad) in [(1, 1, 0), (2, 4, 1), (3, 5, 1), (4, 8, 2), (5, 9, 2)] {
        let up = Deconv::caffe_upsampling(3, factor, &[Some(6), Some(7)]).unwrap();
        assert_eq!((up.kernel[0], up.pad_begin[0], up.groups), (k, pad, 3));
        assert_eq!(shape(&up), [1, 3, 6 * factor as usize, 7 * factor as usize]);
        // A constant image stays constant away from the border.
        let w: Vec<f64> = bilinear(&up).unwrap().into_iter().map(f64::from).collect();
        let y = apply(&up, &[1.0; 3 * 42], &w);
        let centre = 3 * factor as usize * 7 * factor as usize + 3 * factor as usize;
        assert!((y[centre] - 1.0).abs() < 1e-6, "factor {factor}: {}", y[centre]);
    }
    assert!(Deconv::caffe_upsampling(3, 0, &[Some(6)]).unwrap_err().message.contains("factor is 0"));
}

#[test]
fn puzzlelib_modules_have_their_sizes() {
    let m = DeconvNd {
        stride: PerAxis::All(2),
        pad: PerAxis::Each(vec![1, 0]),
        dilation: PerAxis::All(2),
        groups: 2,
        ..DeconvNd::new(2, 8, 4, PerAxis::Each(vec![3, 5]))
    };
    let d = m.problem(Some(2), &[Some(5), Some(6)]).unwrap();
    assert_eq!(shape(&d), [2, 4, 4 * 2 + 2 * 2 + 1 - 2, 5 * 2 + 2 * 4 + 1]);
    assert_eq!((d.weight_shape(), d.bias), (vec![8, 2, 3, 5], true));
    assert_eq!(m.weight(1).unwrap().map(|w| w.len()), Some(8 * 2 * 15));
    assert_eq!(DeconvNd { empty: true, ..m.clone() }.weight(1).unwrap(), None);
    let e = DeconvNd { groups: 3, ..m }.problem(None, &[None, None]).unwrap_err();
    assert_eq!(e.to_string(), "c_in is 8, which is not divisible by groups = 3");
}

#[test]
fn xnnpack_padding_is_per_side_and_adjusted() {
    let node = Deconvolution2d {
        padding_top: 1,
        padding_right: 2,
        padding_bottom: 0,
        padding_left: 1,
        adjustment: [1, 0],
        groups: 2,
        output_min: 0.0,
        output_max: 6.0,
        bias: true,
        ..Deconvolution2d::new([4, 5], [2, 3], 3, 5)
    };
    let d = Deconv::from_xnnpack(&node, Some(1), [Some(8), Some(9)]).unwrap();
    assert_eq!(shape(&d), [1, 2 * 7 + 1 + 3 + 1 - 1, 3 * 8 + 4 + 1 - 3, 10]);
    assert_eq!((d.pad_begin, d.pad_end, d.activation), (vec![1, 1], vec![0, 2], Activation::Clamp(0.0, 6.0)));
    let e = Deconv::from_xnnpack(&Deconvolution2d { adjustment: [2, 0], ..node }, Some(1), [None, None]).unwrap_err();
    assert!(e.message.starts_with("output_padding is 2 on axis y"), "{e}");
}

/// A forward convolution by its definition, `[n, c, *spatial]`.
fn convolve(c: &ForwardConv, image: &[usize], x: &[f64], w: &[f64]) -> Vec<f64> {
    let out = c.output(image).unwrap();
    let (ci, co, g) = (c.c_in as usize, c.c_out as usize, c.groups as usize);
    let kernel: Vec<usize> = c.kernel.iter().map(|&k| k as usize).collect();
    let mut y = vec![0.0; co * out.iter().product::<usize>()];
    for at in indices(&[&[co, ci / g], &out[..], &kernel[..]].concat()) {
        let (o, i) = (at[0], at[1]);
        let (pos, tap) = at[2..].split_at(out.len());
        let from: Vec<i64> =
            (0..pos.len()).map(|a| c.stride[a] * pos[a] as i64 + c.dilation[a] * tap[a] as i64 - c.padding_begin[a]).collect();
        if from.iter().zip(image).all(|(f, &e)| (0..e as i64).contains(f)) {
            let from: Vec<usize> = from.iter().map(|&f| f as usize).collect();
            let channel = o / (co / g) * (ci / g) + i;
            let x_at = flat(&[&[ci], image].concat(), &[&[channel], &from[..]].concat());
            y[flat(&[&[co], &out[..]].concat(), &[&[o], pos].concat())] +=
                x[x_at] * w[flat(&[&[co, ci / g], &kernel[..]].concat(), &at_weight(o, i, tap))];
        }
    }
    y
}

fn at_weight(o: usize, i: usize, tap: &[usize]) -> Vec<usize> {
    [&[o, i], tap].concat()
}

#[test]
fn the_adjoint_satisfies_its_definition_for_every_image_size() {
    for (h, s, d, g) in indices(&[6, 3, 2, 2]).into_iter().map(|v| (v[0] + 7, v[1] + 1, v[2] + 1, v[3] + 1)) {
        let conv = ForwardConv {
            stride: vec![s as i64, 1],
            dilation: vec![d as i64, 1],
            padding_begin: vec![1, 0],
            padding_end: vec![0, 2],
            groups: g as i64,
            ..ForwardConv::new(4, 2, [3, 4])
        };
        let image = [h, 5];
        let back = Deconv::adjoint_of(&conv, 1, &image).unwrap();
        assert_eq!(shape(&back)[2..], image);
        let feature = conv.output(&image).unwrap();
        let (x, y) = (fill(4 * h * 5, 1), fill(2 * feature.iter().product::<usize>(), 2));
        let w = fill(2 * (4 / g) * 12, 3);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let torch = to_torch(&back, WeightLayout::ForwardOihw, &w).unwrap();
        assert_eq!(dot(&convolve(&conv, &image, &x, &w), &y), dot(&x, &apply(&back, &y, &torch)), "{back}");
    }
    let conv = ForwardConv { stride: vec![2], ..ForwardConv::new(1, 1, [3]) };
    assert_eq!(conv.builder().input([4]).build().unwrap().output_spatial(1, &[4]).unwrap(), [9]);
    assert_eq!(conv.builder().input([4]).output_size([10]).build().unwrap().output_spatial(1, &[4]).unwrap(), [10]);
    let e = Deconv::adjoint_of(&conv, 1, &[2]).unwrap_err();
    assert_eq!(e.to_string(), "the image extent is 2 on axis x; with padding 0 it must be at least 3, for the dilated kernel to fit");
}
