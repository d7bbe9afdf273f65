//! The examples that people learn transposed convolution from, through the constructors of the frameworks they come from, on every level
//! of this machine, in both forms, and by the interpreter at every stage.

mod support;

use polyphase::passes::snapshots;
use polyphase::plan::Form;
use polyphase::problem::conventions::tensorflow::{Keras, Padding, TensorFlow};
use polyphase::weights::{WeightLayout, to_torch};
use polyphase::{Deconv, Options, reference};
use support::*;

/// Every way to compute the layer gives exactly this.
fn gives(p: &Deconv, x: &[f32], w: &[f32], want: &[f32]) {
    let (batch, spatial) = p.fixed_shape().unwrap();
    let case = Case { problem: p.clone(), batch, spatial, x: x.to_vec(), w: w.to_vec(), bias: None };
    let exact: Vec<f64> = want.iter().map(|v| f64::from(*v)).collect();
    assert_eq!(reference::deconv(p, batch, &case.spatial, x, w, None).unwrap(), exact, "{p}: the reference");
    for isa in levels() {
        for form in [None, Some(Form::Gather), Some(Form::Scatter)] {
            let kernel = case.kernel(&Options { form, ..at(isa) });
            assert_eq!(case.run(&kernel), want, "{}", label(&kernel));
            for s in snapshots(p, kernel.plan()).unwrap() {
                assert_eq!(case.interpret(&s.func), want, "{} after {}", label(&kernel), s.pass);
            }
        }
    }
}

/// `ConvTranspose2d(1, 1, 4, stride=2, padding=1)` on a 4×4 input of ones, with the kernel 1..16.
fn ones_by_sixteen() -> (Deconv, Vec<f32>, Vec<f32>) {
    let p = Deconv::torch2d(1, 1, [4, 4]).stride([2, 2]).padding([1, 1]).input([4, 4]).build().unwrap();
    (p, vec![1.0; 16], (1..=16).map(|v| v as f32).collect())
}

#[rustfmt::skip]
const SIXTEEN: [f32; 64] = [
     6.0, 12.0, 14.0, 12.0, 14.0, 12.0, 14.0,  7.0,
    12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0,
    20.0, 40.0, 44.0, 40.0, 44.0, 40.0, 44.0, 22.0,
    12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0,
    20.0, 40.0, 44.0, 40.0, 44.0, 40.0, 44.0, 22.0,
    12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0,
    20.0, 40.0, 44.0, 40.0, 44.0, 40.0, 44.0, 22.0,
    10.0, 20.0, 22.0, 20.0, 22.0, 20.0, 22.0, 11.0,
];

#[test]
fn ones_by_the_kernel_one_to_sixteen() {
    let (p, x, w) = ones_by_sixteen();
    assert_eq!(p.output_shape(1, &[4, 4]).unwrap(), [1, 1, 8, 8]);
    gives(&p, &x, &w, &SIXTEEN);
}

#[test]
fn the_same_layer_by_its_repr() {
    let (p, x, w) = ones_by_sixteen();
    let repr = "ConvTranspose2d(1, 1, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)";
    let read = polyphase::problem::text::read(repr, Some("1,1,4,4")).unwrap();
    assert_eq!(read, p);
    gives(&read, &x, &w, &SIXTEEN);
}

/// Which pixels and taps land on an output: those with `2*i - 1 + k = o` on both axes.
fn landing(oy: usize, ox: usize) -> Vec<([usize; 2], [usize; 2])> {
    let axis = |o: usize| (0..4).flat_map(move |i| (0..4).filter(move |k| 2 * i + k == o + 1).map(move |k| (i, k)));
    axis(oy).flat_map(|(iy, ky)| axis(ox).map(move |(ix, kx)| ([iy, ix], [ky, kx]))).collect()
}

/// What the sum over [`landing`] is, checked by taking each of its products away from the kernel's result.
fn explained(oy: usize, ox: usize) -> Vec<f32> {
    let (p, x, w) = ones_by_sixteen();
    let run = |w: &[f32]| {
        let mut y = vec![0.0; 64];
        p.compile(w, None, &Options::default()).unwrap().run(&x, &mut y).unwrap();
        y[8 * oy + ox]
    };
    let all = run(&w);
    let landing = landing(oy, ox);
    let products: Vec<f32> = landing.iter().map(|(i, k)| x[4 * i[0] + i[1]] * w[4 * k[0] + k[1]]).collect();
    assert_eq!(products.iter().sum::<f32>(), all, "nothing else lands on {oy},{ox}");
    for ((_, k), product) in landing.iter().zip(&products) {
        let mut without = w.clone();
        without[4 * k[0] + k[1]] = 0.0;
        assert_eq!(run(&without), all - product, "tap {k:?} gives {product}");
    }
    products
}

#[test]
fn why_entry_0_0_is_6_and_entry_0_1_is_12() {
    // A corner gets one product: pixel (0,0) through tap (1,1), the sixth of the kernel. Taps of an even row or column would put the
    // pixel half-way between outputs, tap 3 would need a pixel at -1.
    assert_eq!(landing(0, 0), [([0, 0], [1, 1])]);
    assert_eq!(explained(0, 0), [6.0]);
    // One column on there are two: pixel (0,0) through tap (1,2), and its neighbour (0,1) through tap (1,0).
    assert_eq!(landing(0, 1), [([0, 0], [1, 2]), ([0, 1], [1, 0])]);
    assert_eq!(explained(0, 1), [7.0, 5.0]);
    // Inside, four patches overlap everywhere: this layer has no checkerboard.
    assert_eq!(explained(2, 2), [16.0, 14.0, 8.0, 6.0]);
}

#[rustfmt::skip]
const SAME: [f32; 16] = [
    1.0, 1.0,  3.0, 2.0,
    1.0, 1.0,  3.0, 2.0,
    4.0, 4.0, 10.0, 6.0,
    3.0, 3.0,  7.0, 4.0,
];

#[test]
fn tensorflow_same_to_4_by_4() {
    let op = TensorFlow { strides: vec![2, 2], padding: Padding::Same, dilations: vec![1, 1] };
    let p = Deconv::from_tensorflow(&op, &[1, 2, 2, 1], &[3, 3, 1, 1], &[1, 4, 4, 1]).unwrap();
    let w = to_torch(&p, WeightLayout::Hwoi, &[1.0f32; 9]).unwrap();
    gives(&p, &[1.0, 2.0, 3.0, 4.0], &w, &SAME);
}

#[test]
fn keras_and_tflite_say_the_same() {
    let op = TensorFlow { strides: vec![2, 2], padding: Padding::Same, dilations: vec![1, 1] };
    let lite = Deconv::from_tflite(&op, &[1, 2, 2, 1], &[1, 3, 3, 1], &[1, 4, 4, 1], false).unwrap();
    gives(&lite, &[1.0, 2.0, 3.0, 4.0], &[1.0; 9], &SAME);
    let layer = Keras {
        filters: 1,
        kernel_size: vec![3, 3],
        strides: vec![2, 2],
        padding: Padding::Same,
        output_padding: None,
        dilation_rate: vec![1, 1],
        use_bias: false,
    };
    let keras = Deconv::from_keras(&layer, &[Some(1), Some(2), Some(2), Some(1)]).unwrap();
    gives(&keras, &[1.0, 2.0, 3.0, 4.0], &[1.0; 9], &SAME);
}

#[test]
fn two_by_two_with_stride_one() {
    let p = Deconv::torch2d(1, 1, [2, 2]).input([2, 2]).build().unwrap();
    gives(&p, &[2.0, 4.0, 0.0, 1.0], &[3.0, 1.0, 1.0, 5.0], &[6.0, 14.0, 4.0, 2.0, 17.0, 21.0, 0.0, 1.0, 5.0]);
}

/// The table of docs/algorithms.md, from the matrices that the compiler uses, and as a layer.
#[test]
fn a_window_by_hand() {
    use polyphase::passes::toom_cook::{Exact, ToomCook};
    let t = ToomCook::new(3, 2).unwrap();
    let times = |m: &[Vec<Exact>], v: &[i64]| -> Vec<i64> {
        let row = |r: &Vec<Exact>| r.iter().zip(v).map(|(a, b)| *a * Exact::from(*b)).sum::<Exact>();
        m.iter().map(row).map(|v| if v.is_integer() { v.to_integer() } else { panic!("{v} is no integer") }).collect()
    };
    let window = times(&t.input, &[1, 2, 0, 3]);
    assert_eq!(window, [1, 2, 2, -1]);
    let page = include_str!("../docs/algorithms.md");
    let text = |v: &[i64]| format!("`{}`", v.iter().map(i64::to_string).collect::<Vec<_>>().join(" "));
    assert!(page.contains(&text(&window)));
    let mut outputs = Vec::new();
    for (phase, taps) in [[3, 1], [4, 2]].iter().enumerate() {
        let factors = times(&t.weight, taps);
        let products: Vec<i64> = factors.iter().zip(&window).map(|(a, b)| a * b).collect();
        let y = times(&t.output, &products);
        let row = format!("| {phase} | {} | {} | {} | {} |", text(taps), text(&factors), text(&products), text(&y));
        assert!(page.contains(&row), "docs/algorithms.md lacks {row}");
        outputs.push(y);
    }
    let interleaved: Vec<i64> = (0..3).flat_map(|j| [outputs[0][j], outputs[1][j]]).collect();
    assert!(page.contains(&text(&interleaved)));

    // The same pixels in a row of zeros: the window starts at pixel 2, so its first output is that of position 3.
    let p: Deconv = "1d n1 1x9 -> 1 k4 s2 p1".parse().unwrap();
    let x = [0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0];
    let want: Vec<f32> = interleaved.iter().map(|v| *v as f32).collect();
    for isa in levels() {
        let case = Case { problem: p.clone(), batch: 1, spatial: vec![9], x: x.to_vec(), w: vec![1.0, 2.0, 3.0, 4.0], bias: None };
        let kernel = case.kernel(&Options { algorithm: Some(polyphase::plan::Algorithm::Winograd), ..at(isa) });
        assert!(kernel.plan().winograd.is_some());
        assert_eq!(case.run(&kernel)[5..11], want, "{}", label(&kernel));
    }
}
