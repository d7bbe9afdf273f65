//! Descriptions that have broken other implementations: each gets an error whose sentence contains the value, or the right answer.

use polyphase::problem::conventions::onnx::OnnxAttributes;
use polyphase::problem::{DeconvBuilder, text};
use polyphase::weights::{WeightLayout, to_torch};
use polyphase::{Activation, Deconv, Error, Extent, Kind};

fn layer() -> DeconvBuilder {
    Deconv::torch2d(4, 6, [3, 3]).stride([2, 2]).input([5, 5])
}

/// The error is about the problem and contains every one of these.
fn refused(d: Result<Deconv, Error>, wants: &[&str]) {
    let e = d.expect_err(&format!("{wants:?} should be refused"));
    assert_eq!(e.kind, Kind::Problem, "{e}");
    wants.iter().for_each(|w| assert!(e.message.contains(w), "{e:?} lacks {w:?}"));
}

fn out(d: Deconv) -> Vec<usize> {
    let (n, i) = d.fixed_shape().unwrap();
    d.output_spatial(n, &i).unwrap()
}

#[test]
fn zero_stride() {
    refused(layer().stride([2, 0]).build(), &["stride is 0 on axis x", "at least 1"]);
}

#[test]
fn negative_stride() {
    refused(layer().stride([-1, 2]).build(), &["stride is -1 on axis y", "at least 1"]);
}

#[test]
fn zero_dilation() {
    refused(layer().dilation([0, 1]).build(), &["dilation is 0 on axis y"]);
}

#[test]
fn negative_dilation() {
    refused(layer().dilation([1, -3]).build(), &["dilation is -3 on axis x"]);
}

#[test]
fn zero_kernel() {
    refused(Deconv::torch3d(1, 1, [3, 0, 3]).build(), &["kernel is 0 on axis y", "at least 1"]);
}

#[test]
fn negative_kernel() {
    refused(Deconv::torch1d(1, 1, [-4]).build(), &["kernel is -4 on axis x"]);
}

#[test]
fn zero_and_negative_groups() {
    refused(layer().groups(0).build(), &["groups is 0", "at least 1"]);
    refused(layer().groups(-2).build(), &["groups is -2"]);
}

#[test]
fn zero_and_negative_channels() {
    refused(DeconvBuilder::new(1, 0, 4, [3]).build(), &["c_in is 0", "at least 1"]);
    refused(DeconvBuilder::new(1, 4, 0, [3]).build(), &["c_out is 0"]);
    refused(Deconv::torch1d(-4, 4, [3]).build(), &["c_in is -4"]);
    refused(Deconv::torch1d(4, -1, [3]).build(), &["c_out is -1"]);
}

#[test]
fn channels_not_divisible_by_groups() {
    refused(layer().groups(3).build(), &["c_in is 4, which is not divisible by groups = 3"]);
    refused(layer().groups(4).build(), &["c_out is 6, which is not divisible by groups = 4"]);
}

#[test]
fn empty_filter_and_too_many_axes() {
    refused(DeconvBuilder::new(0, 1, 1, Vec::<i64>::new()).build(), &["0 spatial axes", "1, 2 or 3"]);
    refused(DeconvBuilder::new(4, 1, 1, [1, 1, 1, 1]).build(), &["4 spatial axes", "1, 2 or 3"]);
    refused(DeconvBuilder::new(usize::MAX, 1, 1, [1]).build(), &["18446744073709551615 spatial axes"]);
    refused(Deconv::torch2d(1, 1, Vec::<i64>::new()).build(), &["kernel has 0 values", "needs 2"]);
}

#[test]
fn vectors_of_the_wrong_length() {
    refused(layer().stride([2]).build(), &["stride has 1 values", "needs 2"]);
    refused(layer().padding([1, 1, 1]).build(), &["padding at the beginning has 3 values"]);
    refused(layer().padding_begin_end([1, 1], [0]).build(), &["padding at the end has 1 values"]);
    refused(layer().input([5]).build(), &["input extent has 1 values"]);
    refused(layer().output_size([5, 5, 5]).build(), &["output_size has 3 values", "2 (spatial) or 4"]);
}

#[test]
fn sizes_whose_product_overflows() {
    let most = i32::MAX as usize;
    refused(
        Deconv::torch3d(most, most, [1, 1, 1]).input([1, 1, 1]).build(),
        &["the weight of extents [2147483647, 2147483647, 1, 1, 1] is too large"],
    );
    refused(Deconv::torch3d(1, 1, [1, 1, 1]).input([most, most, most]).build(), &["the input of extents [1, 1, 2147483647", "too large"]);
    refused(Deconv::torch2d(1, most, [1, 1]).batch(0).input([most, 8]).build(), &["the output of extents [0, 2147483647", "too large"]);
    refused(Deconv::torch1d(usize::MAX, 1, [1]).build(), &["c_in is 9223372036854775807", "at most 2147483647"]);
    refused(layer().input([5, 1usize << 40]).build(), &["input extent is 1099511627776 on axis x", "at most 2147483647"]);
    refused(layer().batch(i64::MAX).build(), &["batch is 9223372036854775807", "at most 2147483647"]);
    refused(
        Deconv::torch1d(1, 1, [1]).stride([1 << 20]).input([1 << 20]).build(),
        &["output extent is 1099510579201", "at most 2147483647"],
    );
    refused(layer().stride([1 << 21, 1]).build(), &["stride is 2097152 on axis y", "at most 1048576"]);
}

#[test]
fn sizes_that_overflow_at_run_time() {
    let open = layer().open_batch().open_input().build().unwrap();
    for extents in [[usize::MAX, 1], [1, 1 << 31], [1 << 30, 1 << 30]] {
        let e = open.output_shape(1, &extents).unwrap_err();
        assert!(e.kind == Kind::Problem && (e.message.contains("at most") || e.message.contains("too large")), "{e}");
    }
    assert!(open.output_shape(usize::MAX, &[5, 5]).unwrap_err().message.contains("batch is 18446744073709551615"));
    assert!(open.shape_from_symbols(&[1, 5]).unwrap_err().message.contains("2 run-time extents were given; the layer has 3: [N, H, W]"));
}

#[test]
fn output_extent_of_zero_or_less() {
    refused(
        layer().padding([6, 1]).build(),
        &[
            "output extent is -1 on axis y",
            "stride*(input-1) + dilation*(kernel-1) + 1 + output_padding - padding",
            "2*(5-1) + 1*(3-1) + 1 + 0 - (6) - (6)",
            "at least 1",
        ],
    );
    refused(Deconv::torch1d(1, 1, [2]).padding([1]).input([1]).build(), &["output extent is 0 on axis x"]);
    let open = Deconv::torch1d(1, 1, [2]).padding([1]).open_input().build().unwrap();
    assert!(open.output_shape(1, &[1]).unwrap_err().message.contains("output extent is 0 on axis x"));
    assert_eq!(open.output_shape(1, &[2]).unwrap(), [1, 1, 1]);
}

#[test]
fn zero_size_batch_gives_an_empty_output() {
    let d = layer().batch(0).build().unwrap();
    assert_eq!(d.output_shape(0, &[5, 5]).unwrap(), [0, 6, 11, 11]);
    assert_eq!(d.useful_macs(0, &[5, 5]), 0);
    refused(layer().batch(-1).build(), &["batch is -1", "at least 0"]);
}

#[test]
fn zero_size_image() {
    refused(layer().input([5, 0]).build(), &["input extent is 0 on axis x", "at least 1"]);
    refused(layer().input([-5, 5]).build(), &["input extent is -5 on axis y"]);
    let open = layer().open_input().build().unwrap();
    assert!(open.output_shape(1, &[0, 5]).unwrap_err().message.contains("input extent is 0 on axis y"));
}

#[test]
fn output_padding_up_to_stride_or_dilation() {
    refused(layer().output_padding([2, 0]).build(), &["output_padding is 2 on axis y", "max(stride 2, dilation 1) = 2"]);
    refused(layer().output_padding([0, -1]).build(), &["output_padding is -1 on axis x", "at least 0"]);
    let d = layer().dilation([3, 1]).output_padding([2, 1]).build().unwrap();
    assert_eq!(out(d), [8 + 6 + 1 + 2, 8 + 2 + 1 + 1], "below the dilation it is legal, stride or not");
}

#[test]
fn output_size_that_does_not_fit_the_parameters() {
    refused(layer().output_size([10, 11]).build(), &["output_size is 10 on axis y; 11 to 12 are legal"]);
    refused(layer().output_size([11, -1]).build(), &["output_size is -1 on axis x"]);
    refused(layer().stride([1, 1]).output_size([8, 7]).build(), &["output_size is 8 on axis y; only 7 is legal"]);
}

#[test]
fn output_shape_with_batch_and_channels_and_with_output_padding() {
    let x = [Some(2), Some(4), Some(5)];
    let onnx = |shape: &[i64], op: i64| {
        let a = OnnxAttributes {
            strides: Some(vec![2]),
            output_shape: Some(shape.to_vec()),
            output_padding: Some(vec![op]),
            ..Default::default()
        };
        Deconv::from_onnx(&a, &x, &[4, 6, 3], false)
    };
    assert_eq!(out(onnx(&[10], 0).unwrap()), [10]);
    assert_eq!(out(onnx(&[10], 1).unwrap()), [10], "output_padding does not change what output_shape asks for");
    assert_eq!(out(onnx(&[2, 6, 10], 1).unwrap()), [10]);
    refused(onnx(&[2, 7, 10], 0), &["output_shape is [2, 7, 10] with batch 2 and 7 channels", "[2, 6]"]);
    refused(onnx(&[1, 6, 10], 0), &["batch 1", "[2, 6]"]);
    refused(onnx(&[6, 10], 0), &["output_shape [6, 10] has 2 values"]);
    refused(onnx(&[-10], 0), &["output_shape is -10"]);
}

#[test]
fn padding_larger_than_the_kernel_crops() {
    let d = layer().padding([4, 3]).build().unwrap();
    assert_eq!(out(d.clone()), [3, 5]);
    // On axis y outputs are 2i + k = 4, 5, 6: the first and the last input land outside altogether.
    assert_eq!((d.useful_pairs(0, 5), d.useful_pairs(1, 5)), (5, 7));
}

#[test]
fn padding_of_different_sign_per_axis() {
    let d = layer().padding_begin_end([-2, 3], [1, -4]).build().unwrap();
    assert_eq!(out(d), [11 + 2 - 1, 11 - 3 + 4]);
    refused(layer().padding([i64::MIN, 0]).build(), &["padding at the beginning is -9223372036854775808 on axis y"]);
    refused(layer().padding_begin_end([0, 0], [0, i64::MAX]).build(), &["padding at the end is 9223372036854775807 on axis x"]);
}

#[test]
fn stride_larger_than_the_kernel_leaves_phases_without_taps() {
    let d = Deconv::torch1d(1, 1, [2]).stride([4]).input([3]).build().unwrap();
    let taps: Vec<_> = d.phases(0).into_iter().map(|p| p.taps).collect();
    assert_eq!(taps, [vec![0], vec![1], vec![], vec![]]);
    assert_eq!(d.useful_macs(1, &[3]), 6);
}

#[test]
fn dilation_that_shares_a_divisor_with_the_stride() {
    let d = Deconv::torch1d(1, 1, [5]).stride([4]).dilation([2]).input([3]).build().unwrap();
    let taps: Vec<_> = d.phases(0).into_iter().map(|p| p.taps).collect();
    assert_eq!(taps, [vec![0, 2, 4], vec![], vec![1, 3], vec![]]);
}

#[test]
fn weights_of_the_wrong_size() {
    let d = layer().build().unwrap();
    let e = to_torch(&d, WeightLayout::Hwoi, &[0.0f32; 3]).unwrap_err();
    assert!(e.kind == Kind::Tensor && e.message.contains("3 values; the layer needs 216: [3, 3, 6, 4]"), "{e}");
    let e = to_torch::<f32>(&d, WeightLayout::Ohwi, &[]).unwrap_err();
    assert!(e.message.contains("0 values"), "{e}");
    let a = OnnxAttributes::default();
    refused(Deconv::from_onnx(&a, &[Some(1), Some(4), Some(5)], &[4, 6], false), &["W has 2 extents"]);
    refused(Deconv::from_onnx(&a, &[Some(1), Some(4), Some(5)], &[4, 0, 3], false), &["c_out is 0"]);
}

#[test]
fn inputs_of_the_wrong_rank_channels_or_extent() {
    let d = layer().build().unwrap();
    for (shape, wants) in [
        (&[1, 4, 5][..], "3 dimensions; a 2-D layer needs 4"),
        (&[1, 5, 5, 5], "has 5 channels; the layer needs 4"),
        (&[2, 4, 5, 5], "batch is 2; the layer was made for 1"),
        (&[1, 4, 5, 6], "axis x is 6; the layer was made for 5"),
    ] {
        let e = d.extents_of_input(shape).unwrap_err();
        assert!(e.kind == Kind::Tensor && e.message.contains(wants), "{e}");
    }
    assert_eq!(d.extents_of_input(&[1, 4, 5, 5]).unwrap(), (1, vec![5, 5]));
}

#[test]
fn activations_that_make_no_sense() {
    refused(layer().activation(Activation::Clamp(1.0, -1.0)).build(), &["clamp is (1, -1)"]);
    refused(layer().activation(Activation::Clamp(f64::NAN, 1.0)).build(), &["clamp is (NaN, 1)"]);
    refused(layer().activation(Activation::LeakyRelu(f64::INFINITY)).build(), &["slope is inf", "finite f32"]);
    refused(layer().activation(Activation::LeakyRelu(1e300)).build(), &["slope is 1", "finite f32"]);
}

#[test]
fn structs_filled_by_hand_are_validated_too() {
    let good = layer().build().unwrap();
    let refused = |change: &dyn Fn(&mut Deconv), wants: &str| {
        let mut d = good.clone();
        change(&mut d);
        let e = d.validate().unwrap_err();
        assert!(e.kind == Kind::Problem && e.message.contains(wants), "{e}");
    };
    refused(&|d| d.kernel = vec![], "the kernel has 0 axes");
    refused(&|d| d.kernel = vec![1; 4], "the kernel has 4 axes");
    refused(&|d| d.groups = 0, "groups is 0");
    refused(&|d| d.stride = vec![1], "stride has 1 values");
    refused(&|d| d.stride[0] = usize::MAX, "stride is 18446744073709551615");
    refused(&|d| d.c_in = usize::MAX, "c_in is 18446744073709551615");
    refused(&|d| d.output_padding[0] = usize::MAX, "output_padding is 18446744073709551615");
    refused(&|d| d.pad_begin[0] = i64::MIN, "-9223372036854775808");
    refused(&|d| d.batch = Extent::Fixed(usize::MAX), "batch is 18446744073709551615");
    refused(&|d| d.batch = Extent::Open("B".into()), "named B; its name must be N");
    refused(&|d| d.input[0] = Extent::Open("W".into()), "axis y is named W; its name must be H");
    refused(&|d| d.input[1] = Extent::Fixed(0), "input extent is 0 on axis x");
}

#[test]
fn hostile_text() {
    for (source, wants) in [
        ("1d n1 4x5 -> 4 k3 s0", "stride is 0 on axis x"),
        ("1d n1 4x5 -> 4 k3 s-2", "stride is -2"),
        ("1d n1 4x5 -> 4 k3 s99999999999999999999", "99999999999999999999"),
        ("1d n1 4x5 -> 4 k3 op3", "output_padding is 3"),
        (r#"{"cin": 4, "cout": 4, "in": [5], "k": [0]}"#, "kernel is 0"),
        (r#"{"cin": 4, "cout": 4, "in": [5], "k": [1e3]}"#, "1000"),
        (r#"{"cin": 4, "cout": 4, "in": [5], "k": []}"#, "0 spatial axes"),
        ("ConvTranspose2d(4, 4, kernel_size=(3, 3), stride=(0, 0))", "stride is 0 on axis y"),
        ("ConvTranspose2d(4, 4, kernel_size=(3, 3), groups=3)", "groups = 3"),
    ] {
        let e = text::read(source, None).unwrap_err();
        assert!(e.message.contains(wants), "{e}");
    }
    let deep = "[".repeat(100_000);
    assert!(text::read(&deep, None).unwrap_err().message.starts_with("not JSON"));
}
