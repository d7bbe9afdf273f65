//! What has broken others when a kernel is made or run: each gets an error that names the value, or the right result.
//! (Descriptions that cannot exist are in `hostile_problems.rs`.)

mod support;

use ndarray::{Array4, ArrayView4, ArrayViewMut4, s};
use polyphase::plan::{Algorithm, Form};
use polyphase::{Deconv, Error, Kind, Options};
use support::*;

fn layer(text: &str) -> Deconv {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn plain() -> Case<f32> {
    Case::new(&layer("2d n1 3x4x5 -> 2 k4 s2 p1"), Fill::Ints, 1)
}

/// The error is about a tensor and contains every one of these.
fn refused<T>(r: Result<T, Error>, wants: &[&str]) {
    let Err(e) = r else { panic!("{wants:?} should be refused") };
    assert_eq!(e.kind, Kind::Tensor, "{e}");
    wants.iter().for_each(|w| assert!(e.message.contains(w), "{e:?} lacks {w:?}"));
}

/// Every level and form.
fn everywhere(mut f: impl FnMut(&Options)) {
    for isa in levels() {
        for form in [None, Some(Form::Gather), Some(Form::Scatter)] {
            f(&Options { form, ..at(isa) });
        }
    }
}

#[test]
fn weights_of_the_wrong_length_or_rank() {
    let c = plain();
    refused(c.problem.compile(&c.w[1..], None, &Options::default()), &["95", "96", "[3, 2, 4, 4]"]);
    refused(c.problem.compile(&[] as &[f32], None, &Options::default()), &["0 elements", "96"]);
    let flat = ndarray::Array2::from_shape_vec((6, 16), c.w.clone()).unwrap();
    refused(c.problem.compile(&flat, None, &Options::default()), &["[6, 16]", "[3, 2, 4, 4]"]);
    let swapped = Array4::from_shape_vec((2, 3, 4, 4), c.w.clone()).unwrap();
    refused(c.problem.compile(&swapped, None, &Options::default()), &["[2, 3, 4, 4]"]);
}

#[test]
fn weights_that_are_not_contiguous() {
    let c = plain();
    let w = Array4::from_shape_vec((3, 2, 4, 4), c.w.clone()).unwrap();
    let transposed = w.view().permuted_axes([0, 1, 3, 2]);
    refused(c.problem.compile(&transposed, None, &Options::default()), &["weights", "strides", "contiguous"]);
}

#[test]
fn weights_of_the_other_element_type() {
    let c = plain();
    refused(c.problem.compile::<f64>(&vec![0.0; 96], None, &Options::default()), &["f32", "f64"]);
}

#[test]
fn bias_absent_superfluous_or_of_the_wrong_length() {
    let with = Case::<f32>::new(&layer("1d n1 4x5 -> 6 k3 bias g2"), Fill::Ints, 1);
    let compile = |bias: Option<&[f32]>| with.problem.compile(&with.w, bias, &Options::default()).map(drop);
    refused(compile(None), &["bias", "6"]);
    refused(compile(Some(&[1.0; 3])), &["3 values", "6"]);
    refused(compile(Some(&[])), &["0 values", "6"]);
    assert!(compile(Some(&[1.0; 6])).is_ok());
    let c = plain();
    refused(c.problem.compile(&c.w, Some(&[1.0, 2.0]), &Options::default()), &["2 bias values", "no bias"]);
}

#[test]
fn a_grouped_bias_belongs_to_all_channels() {
    let case = Case::<f32>::new(&layer("2d n2 4x3x3 -> 6 k3 s2 p1 g2 bias"), Fill::Ints, 3);
    everywhere(|o| {
        let k = case.kernel(o);
        like_reference(&label(&k), &case, k.plan(), true, &case.run(&k));
    });
}

#[test]
fn input_and_output_of_the_wrong_length() {
    let c = plain();
    let k = c.kernel(&Options::default());
    let n = c.output_len();
    refused(k.run(&c.x[1..], &mut vec![0.0; n]), &["x has 59", "60"]);
    refused(k.run(&c.x, &mut vec![0.0; n - 1]), &["y has 159", "160"]);
    refused(k.run(&c.x, &mut vec![0.0; n + 1]), &["y has 161", "160"]);
    refused(k.run(&[] as &[f32], &mut vec![0.0; n]), &["x has 0"]);
}

#[test]
fn a_refused_run_writes_nothing() {
    let c = plain();
    let k = c.kernel(&Options::default());
    let mut y = vec![7.0; c.output_len() - 1];
    assert!(k.run(&c.x, &mut y).is_err());
    assert!(y.iter().all(|v| *v == 7.0));
}

#[test]
fn arrays_of_the_wrong_rank_or_shape() {
    let c = plain();
    let k = c.kernel(&Options::default());
    let mut y = Array4::<f32>::zeros((1, 2, 8, 10));
    let x3 = ndarray::Array3::from_shape_vec((3, 4, 5), c.x.clone()).unwrap();
    refused(k.run(&x3, &mut y), &["x has shape [3, 4, 5]", "[1, 3, 4, 5]"]);
    let swapped = Array4::from_shape_vec((1, 3, 5, 4), c.x.clone()).unwrap();
    refused(k.run(&swapped, &mut y), &["[1, 3, 5, 4]", "[1, 3, 4, 5]"]);
    let x = Array4::from_shape_vec((1, 3, 4, 5), c.x.clone()).unwrap();
    refused(k.run(&x, &mut Array4::<f32>::zeros((1, 2, 10, 8))), &["y has shape [1, 2, 10, 8]", "[1, 2, 8, 10]"]);
    refused(k.run(&ndarray::ArrayD::<f32>::zeros(vec![1; 6]), &mut y), &["6 dimensions"]);
    k.run(&x, &mut y).unwrap();
}

#[test]
fn arrays_that_are_not_contiguous() {
    let c = plain();
    let k = c.kernel(&Options::default());
    let wide = Array4::<f32>::zeros((1, 3, 4, 10));
    let strided: ArrayView4<f32> = wide.slice(s![.., .., .., ..;2]);
    let mut y = Array4::<f32>::zeros((1, 2, 8, 10));
    refused(k.run(&strided, &mut y), &["x of shape [1, 3, 4, 5] has strides", "40, 10, 2]", "contiguous"]);
    let square = Case::<f32>::new(&layer("2d n1 2x3x3 -> 1 k3"), Fill::Ints, 1);
    let k = square.kernel(&Options::default());
    let x = Array4::from_shape_vec((1, 2, 3, 3), square.x.clone()).unwrap();
    let mut y = Array4::<f32>::zeros((1, 1, 5, 5));
    refused(k.run(&x.view().permuted_axes([0, 1, 3, 2]), &mut y), &["strides"]);
    refused(k.run(&x.slice(s![.., .., ..;-1, ..]), &mut y), &["strides"]);
    let mut tall = Array4::<f32>::zeros((1, 1, 5, 10));
    let mut half: ArrayViewMut4<f32> = tall.slice_mut(s![.., .., .., ..5]);
    refused(k.run(&x, &mut half), &["y of shape [1, 1, 5, 5]", "strides"]);
}

#[test]
fn a_batch_item_of_a_larger_array_is_contiguous_enough() {
    let c = plain();
    let k = c.kernel(&Options::default());
    let want = c.run(&k);
    let mut x = Array4::<f32>::from_elem((3, 3, 4, 5), f32::NAN);
    x.slice_mut(s![1..2, .., .., ..]).assign(&ArrayView4::from_shape((1, 3, 4, 5), &c.x).unwrap());
    let mut y = Array4::<f32>::from_elem((3, 2, 8, 10), -1.0);
    k.run(&x.slice(s![1..2, .., .., ..]), &mut y.slice_mut(s![1..2, .., .., ..])).unwrap();
    same_bits("the item in the middle", &want, &y.as_slice().unwrap()[160..320]);
    assert!(y.as_slice().unwrap()[..160].iter().chain(&y.as_slice().unwrap()[320..]).all(|v| *v == -1.0), "its neighbours are untouched");
}

#[test]
fn output_channels_gigabytes_apart_compile() {
    // Asking for output lines ahead once failed where lanes lie further apart than an address reaches.
    let p = layer("2d n1 64x8000x8000 -> 64 k2 s2");
    for isa in levels() {
        let lanes = isa.lanes(polyphase::Elem::F32);
        let plan = format!("gather panel rx=2 qx=2 oc={lanes} along oc x{lanes} block 4x0 {}", if isa.fma() { "" } else { "no-fma" });
        let options = Options { plan: Some(plan.trim().parse().unwrap()), ..at(isa) };
        p.compile(&[0.5f32; 64 * 64 * 4], None, &options).unwrap_or_else(|e| panic!("{isa}: {e}"));
    }
}

#[test]
fn code_lies_together() {
    // Cranelift once placed each piece of code where the system had room: here, below three gigabytes or in the gap above them, further apart than a
    // call reaches.
    let p = layer("2d n1 8x9x17 -> 16 k4 s2 p1");
    let reserve = |bytes: usize| std::hint::black_box(Vec::<u8>::with_capacity(bytes));
    // What gaps there are already.
    let filled: Vec<_> = (0..1024).map(|_| reserve(256 << 10)).collect();
    let (gap, below) = (reserve(256 << 10), reserve(3 << 30));
    drop(gap);
    let weight = [0.5f32; 8 * 16 * 16];
    let kernels: Vec<_> = (0..60).map(|_| p.compile(&weight, None, &Options::default()).unwrap()).collect();
    let (x, mut y) = (vec![1.0f32; 8 * 9 * 17], vec![0.0f32; 16 * 18 * 34]);
    kernels.iter().for_each(|k| k.run(&x, &mut y).unwrap());
    assert!(below.is_empty() && filled.iter().all(Vec::is_empty));
}

#[test]
fn unaligned_slices() {
    // One element off whatever alignment the allocator gave: in, out, both.
    for text in ["2d n1 3x9x17 -> 5 k4 s2 p1 bias", "1d n1 4x37 -> 3 k16 s8 p4", "2d n1 5x3x3 -> 33 k2 s2 nhwc", "1d n1 4x9 -> 3 k3 f64"] {
        let p = layer(text);
        match p.elem {
            polyphase::Elem::F32 => unaligned::<f32>(&p),
            polyphase::Elem::F64 => unaligned::<f64>(&p),
        }
    }
}

fn unaligned<T: Num>(p: &Deconv) {
    let case = Case::<T>::new(p, Fill::Ints, 1);
    everywhere(|o| {
        let k = case.kernel(o);
        let want = case.run(&k);
        for (ox, oy) in [(1, 0), (0, 1), (1, 1), (3, 5)] {
            let mut x = vec![T::of(f64::NAN); ox];
            x.extend(&case.x);
            let mut y = vec![T::of(9.0); oy + want.len() + 1];
            k.run(&x[ox..], &mut y[oy..oy + want.len()]).unwrap();
            same_bits(&label(&k), &want, &y[oy..oy + want.len()]);
            assert!(y[..oy].iter().chain(&y[oy + want.len()..]).all(|v| *v == T::of(9.0)), "{}: neighbours are untouched", label(&k));
        }
    });
}

/// A layer with one special value somewhere: NaN and infinities are where the reference has them, everything else within the bound.
fn special(text: &str, put: impl Fn(&mut Case<f32>)) {
    let mut case = Case::<f32>::new(&layer(text), Fill::Ints, 1);
    put(&mut case);
    everywhere(|o| {
        let k = case.kernel(o);
        let native = case.run(&k);
        like_reference(&label(&k), &case, k.plan(), case.exact(), &native);
        same_bits(&label(&k), &case.interpret(k.func()), &native);
    });
}

const SPECIALS: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
const SPECIAL_LAYERS: [&str; 6] = [
    "2d n1 2x4x9 -> 3 k4 s2 p1",
    "2d n1 2x4x5 -> 5 k3 s2 p1 op1 relu nhwc",
    "1d n1 2x7 -> 3 k2 s3 bias",
    "1d n1 2x7 -> 3 k3 p1 clamp(-4,4)",
    "1d n1 2x6 -> 2 k3 s2 max",
    "1d n1 1x6 -> 2 k16 s16 leaky_relu(0.5)",
];

#[test]
fn nan_and_infinity_in_the_input() {
    for text in SPECIAL_LAYERS {
        for v in SPECIALS {
            for at in [0, 5] {
                special(text, |c| c.x[at] = v);
            }
        }
    }
}

/// With windows a special pixel reaches every output of the windows that hold it, and no other: those are as if it were 0, to the bit.
#[test]
fn nan_and_infinity_in_a_window() {
    let p = layer("2d n1 3x9x8 -> 4 k4 s2 p1 bias");
    let winograd = |isa| Options { algorithm: Some(Algorithm::Winograd), ..at(isa) };
    for isa in levels() {
        for v in SPECIALS {
            let mut case = Case::<f32>::new(&p, Fill::Reals, 4);
            let (iy, ix) = (4, 5);
            case.x[72 + iy * 8 + ix] = 0.0;
            let kernel = case.kernel(&winograd(isa));
            let outputs = &kernel.plan().winograd.as_ref().expect("windows were asked for").outputs;
            let clean = case.run(&kernel);
            case.x[72 + iy * 8 + ix] = v;
            let y = case.run(&kernel);
            // Position q of output o, counted from the uncropped edge, lies in window q / m, which reads pixels m*w - 1 … m*w + m - 1.
            let holds = |o: usize, i: usize, m: usize| (i + 1).checked_sub(o.div_ceil(2) / m * m).is_some_and(|at| at <= m);
            let touched = |at: usize| holds(at / 16 % 18, iy, outputs[0]) && holds(at % 16, ix, outputs[1]);
            for (i, (y, clean)) in y.iter().zip(&clean).enumerate() {
                match touched(i) {
                    true => assert!(!y.is_finite() || y.to_bits() == clean.to_bits(), "output {i} is {y}"),
                    false => assert_eq!(y.to_bits(), clean.to_bits(), "output {i}, which no window with {v} gives"),
                }
            }
            assert!(y.iter().any(|y| !y.is_finite()));
        }
    }
}

#[test]
fn nan_and_infinity_in_the_weights() {
    // Inserted zeros are not multiplied: `0 * inf` arises only where an input is 0.
    for text in SPECIAL_LAYERS {
        for v in SPECIALS {
            special(text, |c| {
                let last = c.w.len() - 1;
                c.w[1] = v;
                c.w[last] = -v;
            });
        }
    }
}

/// One value that is not finite, wherever it lies in 8 MiB of them, forbids a panel.
#[test]
fn one_of_many_weights_is_not_a_number() {
    let p = layer("1d n1 1024x3 -> 512 k4 s2 p1");
    let options = Options { algorithm: Some(Algorithm::Direct), ..Options::default() };
    let case = Case::<f32>::new(&p, Fill::Ints, 1);
    assert!(case.kernel(&options).plan().panel);
    for at in [0, 777_777, case.w.len() - 1] {
        let mut case = Case::<f32>::new(&p, Fill::Ints, 1);
        case.w[at] = f32::NAN;
        let kernel = case.kernel(&options);
        assert!(!kernel.plan().panel, "{at}");
        let got = case.run(&kernel);
        let want = case.reference();
        let same = |(g, w): (&f32, &f64)| f64::from(*g) == *w || g.is_nan() && w.is_nan();
        assert!(got.iter().zip(&want).all(same) && want.iter().any(|w| w.is_nan()), "{at}");
    }
}

#[test]
fn an_infinite_weight_meets_only_pixels() {
    // Of a layer of ones no output may be NaN, however many inserted zeros and halos there are.
    for v in [f32::INFINITY, f32::NEG_INFINITY] {
        special("2d n1 1x4x6 -> 1 k4 s2 p1", |c| {
            c.x.fill(1.0);
            c.w.fill(1.0);
            c.w[5] = v;
        });
        special("1d n1 1x6 -> 4 k5 s2 p1", |c| {
            c.x.fill(1.0);
            c.w.fill(v);
        });
    }
}

#[test]
fn nan_and_infinity_in_the_bias() {
    for v in SPECIALS {
        special("1d n1 2x7 -> 3 k4 s2 p1 bias relu", |c| c.bias.as_mut().unwrap()[1] = v);
    }
}

#[test]
fn denormals_are_numbers() {
    let tiny = f32::from_bits(3);
    special("1d n1 1x9 -> 2 k4 s2 p1", |c| {
        c.x.fill(tiny);
        c.w.fill(1.0);
    });
    special("2d n1 2x3x5 -> 3 k2 s2", |c| {
        c.x.fill(1.0);
        c.w.fill(-tiny);
    });
}

#[test]
fn an_empty_batch() {
    let p = layer("2d n? 3x4x5 -> 2 k4 s2 p1");
    let w = filled::<f32>(96, Fill::Ints, 1);
    everywhere(|o| {
        let k = p.compile(&w, None, o).unwrap();
        k.run_sized(0, &[4, 5], &[] as &[f32], &mut [] as &mut [f32]).unwrap();
        refused(k.run_sized(0, &[4, 5], &[] as &[f32], &mut [0.0f32; 160]), &["y has 160", "0"]);
    });
    let fixed = layer("2d n0 3x4x5 -> 2 k4 s2 p1");
    fixed.compile(&w, None, &Options::default()).unwrap().run(&[] as &[f32], &mut [] as &mut [f32]).unwrap();
}

#[test]
fn extents_of_zero_and_extents_that_differ() {
    let p = layer("2d n? 3x?x5 -> 2 k4 s2 p1");
    let w = filled::<f32>(96, Fill::Ints, 1);
    let k = p.compile(&w, None, &Options::default()).unwrap();
    refused(k.run_sized(1, &[0, 5], &[] as &[f32], &mut [] as &mut [f32]), &["y is 0", "1"]);
    refused(k.run_sized(1, &[4, 6], &[0.0f32; 72], &mut [0.0f32; 192]), &["x is 6", "5"]);
    refused(k.run_sized(1, &[4], &[0.0f32; 60], &mut [0.0f32; 160]), &["1 spatial extents", "2 axes"]);
    refused(k.run_sized(usize::MAX, &[4, 5], &[0.0f32; 60], &mut [0.0f32; 160]), &["18446744073709551615"]);
    let crop = layer("1d n1 2x? -> 2 k3 s2 p4");
    let k = crop.compile(&filled::<f32>(12, Fill::Ints, 1), None, &Options::default()).unwrap();
    refused(k.run_sized(1, &[3], &[0.0f32; 6], &mut [] as &mut [f32]), &["x = 3", "-1"]);
}

#[test]
fn one_kernel_from_many_threads_at_once() {
    for (text, threads) in [("2d n1 8x12x17 -> 8 k4 s2 p1", 1), ("2d n1 16x16x16 -> 16 k4 s2 p1", 2)] {
        let case = Case::<f32>::new(&layer(text), Fill::Reals, 1);
        for isa in levels() {
            let k = case.kernel(&Options { threads, ..at(isa) });
            let want = case.run(&k);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    let (k, case, want) = (k.clone(), &case, &want);
                    scope.spawn(move || (0..20).for_each(|_| same_bits("in a thread", want, &case.run(&k))));
                }
            });
        }
    }
}

#[test]
fn a_kernel_dropped_while_clones_run() {
    let case = Case::<f32>::new(&layer("2d n1 8x12x17 -> 8 k4 s2 p1"), Fill::Reals, 1);
    let k = case.kernel(&Options::default());
    let want = case.run(&k);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (k, case, want) = (k.clone(), &case, &want);
            scope.spawn(move || (0..20).for_each(|_| same_bits("in a thread", want, &case.run(&k))));
        }
        drop(k);
    });
}

/// A panel of 2^58 bytes for each thread: for 64 of them the product is a small number, if it may wrap around.
#[test]
fn scratch_memory_that_does_not_fit_64_bits() {
    let layers = polyphase::problem::text::parse_json(
        r#"{"n": 32768, "cin": 1, "in": [1, 1, 1], "cout": 16, "k": [2, 2, 2], "d": [65535, 1048575, 1048575],
            "p": [32767, 524287, 524287], "p_end": [32768, 524288, 524288]}"#,
    )
    .unwrap();
    let p = &layers[0].problem;
    let plan: polyphase::plan::Plan = "gather panel oc=16 along oc x16 block 0x0x0".parse().unwrap();
    for threads in [1, 63, 64, 65, 1024] {
        let options = Options { threads, plan: Some(plan.clone()), ..Options::default() };
        let Err(e) = p.compile(&[1.0f32; 16 * 8], None, &options) else { panic!("{threads} threads cannot have their memory") };
        assert_eq!(e.kind, Kind::Codegen, "{e}");
        assert!(e.message.contains("bytes"), "{e}");
    }
}

/// Plans that once read or wrote where they must not, divided by zero, or computed something else.
#[test]
fn plans_that_cannot_be_right_are_refused() {
    let given = [
        ("1d n1 17x13 -> 16 k4 s3 p2 bias", "gather panel oc=4 ic=8 along oc x4 block 0", "names `ic`"),
        ("1d n1 8x40 -> 8 k4 s2 p1", "gather aligned panel winograd 3 held 8 oc=8 qw=16 along qw x16 block 2", "whole windows of 3"),
        ("1d n1 4x8 -> 8 k4 s4 p-2 g4", "gather aligned panel winograd 8 held 1 qw=2 oc=2 along oc x2 block 4", "whole windows of 8"),
        ("1d n1 3x40 -> 20 k4 s2 p1 mean", "gather in-place oc=4 qx=16 along qx x16 block 0", "16 positions or phases along qx"),
        ("1d n1 3x9 -> 20 k4 s2 p1 max", "gather in-place rx=2 oc=16 along oc x16 block 0", "2 positions or phases along rx"),
        ("2d n1 3x5x5 -> 3 k4 s2 g3", "gather panel g=2 qx=16 along qx x16 block 0x0", "along its lanes"),
        ("1d n1 8x40 -> 8 k4 s2 p1", "scatter panel along oc x1 block 0", "neither a panel nor aligned"),
    ];
    for (problem, plan, want) in given {
        let p = layer(problem);
        let weights = vec![0.5f32; p.weight_shape().iter().product()];
        let bias = p.bias.then(|| vec![0.0; p.c_out]);
        let refused = plan.parse().and_then(|plan| {
            let options = Options { plan: Some(plan), ..Options::default() };
            p.compile(&weights, bias.as_deref(), &options).map(|_| ())
        });
        let e = refused.expect_err(&format!("{problem}, {plan}: should be refused"));
        assert!(matches!(e.kind, Kind::Options | Kind::Parse), "{problem}, {plan}: {e}");
        assert!(e.message.contains(want), "{problem}, {plan}: {e:?} lacks {want:?}");
    }
    let p = layer("1d n1 3x9 -> 20 k4 s2 p1");
    let mut weights = vec![0.5f32; 3 * 20 * 4];
    weights[7] = f32::INFINITY;
    let plan = "gather in-place rx=2 oc=16 along oc x16 block 0".parse().expect("a plan");
    let e = p.compile(&weights, None, &Options { plan: Some(plan), ..Options::default() }).map(|_| ()).expect_err("zeros times infinity");
    assert!(e.message.contains("not finite"), "{e}");
}

/// A reduction in parts counts the channels that are summed, not the groups that lie along the lanes.
#[test]
fn groups_along_the_lanes_are_no_reduction() {
    for text in ["1d n1 32x40 -> 32 k4 s2 p1 g32 nwc", "1d n1 33x40 -> 33 k4 s2 p1 g33 nwc"] {
        let c = Case::<f32>::new(&layer(text), Fill::Ints, 1);
        let plan = "gather panel qx=2 g=16 along g x16 block 0 reduction 1".parse().expect("a plan");
        let options = Options { plan: Some(plan), ..Options::default() };
        let k = c.kernel(&options);
        like_reference(text, &c, k.plan(), true, &c.run(&k));
    }
}

/// Products of few windows are read by whole vectors, which are two lines of f64; and what no pass can do with a plan that was given is no bug of the library.
#[test]
fn plans_with_windows_of_few_positions() {
    let c = Case::<f64>::new(&layer("1d n1 1x9 -> 17 k2 s2 pe1 f64"), Fill::Ints, 1);
    let plan = "gather aligned panel winograd 1 held 32 oc=16 qw=2 along oc x16 block 2".parse().expect("a plan");
    let k = c.kernel(&Options { plan: Some(plan), ..Options::default() });
    like_reference(&label(&k), &c, k.plan(), true, &c.run(&k));
    let c = Case::<f32>::new(&layer("1d n1 1x1 -> 1 k1"), Fill::Ints, 1);
    let plan = "gather aligned panel winograd 1 held 16 oc=16 qw=2 along oc x16 block 1".parse().expect("a plan");
    let e = c.compile(&Options { plan: Some(plan), ..Options::default() }).map(|_| ()).expect_err("there is nothing to transform");
    assert_eq!(e.kind, Kind::Options, "{e}");
    assert!(e.message.contains("cannot be used"), "{e}");
}
