//! The reference against worked examples, against the definition written as one naive loop, and against forward convolution.

use polyphase::reference::{deconv, error_bound_terms, magnitude};
use polyphase::{Activation, Deconv, Elem, Extent, Kind, Layout, Merge};

/// One channel to one channel, stride 1, no padding.
fn plain(input: &[usize], kernel: &[usize]) -> Deconv {
    let r = kernel.len();
    Deconv {
        batch: Extent::Open("N".into()),
        input: input.iter().map(|n| Extent::Fixed(*n)).collect(),
        c_in: 1,
        c_out: 1,
        groups: 1,
        kernel: kernel.to_vec(),
        stride: vec![1; r],
        dilation: vec![1; r],
        pad_begin: vec![0; r],
        pad_end: vec![0; r],
        output_padding: vec![0; r],
        bias: false,
        activation: Activation::None,
        merge: Merge::Sum,
        layout: Layout::ChannelsFirst,
        elem: Elem::F32,
    }
}

fn extents(p: &Deconv) -> Vec<usize> {
    p.input.iter().map(|e| if let Extent::Fixed(n) = e { *n } else { 0 }).collect()
}

/// Small integers of both signs, the same every time.
fn fill(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % 11) as f64 - 5.0).collect()
}

fn run(p: &Deconv, x: &[f64], w: &[f64]) -> Vec<f64> {
    let pixels: usize = extents(p).iter().product();
    deconv(p, x.len() / (pixels * p.c_in), &extents(p), x, w, None).unwrap()
}

#[test]
fn ones_by_a_counting_kernel_stride_2_padding_1() {
    let mut p = plain(&[4, 4], &[4, 4]);
    (p.stride, p.pad_begin, p.pad_end) = (vec![2; 2], vec![1; 2], vec![1; 2]);
    let w: Vec<f64> = (1..=16).map(f64::from).collect();
    let y = run(&p, &[1.0; 16], &w);
    assert_eq!(y.len(), 64);
    assert_eq!(y[..8], [6.0, 12.0, 14.0, 12.0, 14.0, 12.0, 14.0, 7.0]);
    assert_eq!(y[8..16], [12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0]);
}

#[test]
fn tensorflow_same_of_a_kernel_of_ones() {
    let mut p = plain(&[2, 2], &[3, 3]);
    (p.stride, p.pad_end) = (vec![2; 2], vec![1; 2]);
    let y = run(&p, &[1.0, 2.0, 3.0, 4.0], &[1.0; 9]);
    assert_eq!(y, [1., 1., 3., 2., 1., 1., 3., 2., 4., 4., 10., 6., 3., 3., 7., 4.]);
}

#[test]
fn two_by_two_by_two_by_two() {
    let y = run(&plain(&[2, 2], &[2, 2]), &[2.0, 4.0, 0.0, 1.0], &[3.0, 1.0, 1.0, 5.0]);
    assert_eq!(y, [6.0, 14.0, 4.0, 2.0, 17.0, 21.0, 0.0, 1.0, 5.0]);
}

/// The definition for any rank, with every patch kept in a list per output: slow, and nothing in common with the reference.
fn definition(p: &Deconv, batch: usize, x: &[f64], w: &[f64], bias: &[f64]) -> Vec<f64> {
    let (r, input) = (p.rank(), extents(p));
    let out: Vec<i64> = (0..r).map(|a| p.output_extent(a).eval(&mut |_| 0)).collect();
    let (pixels, taps) = (input.iter().product::<usize>(), p.kernel.iter().product::<usize>());
    let plane = out.iter().product::<i64>() as usize;
    let coordinates = |mut flat: usize, sizes: &[usize]| {
        let mut c = vec![0; sizes.len()];
        for a in (0..sizes.len()).rev() {
            (c[a], flat) = ((flat % sizes[a]) as i64, flat / sizes[a]);
        }
        c
    };
    let at = |n: usize, c: usize, i: usize, channels: usize, size: usize| match p.layout {
        Layout::ChannelsFirst => (n * channels + c) * size + i,
        Layout::ChannelsLast => (n * size + i) * channels + c,
    };
    let (gi, go) = (p.c_in / p.groups, p.c_out / p.groups);
    let mut y = vec![0.0; batch * p.c_out * plane];
    for (n, oc) in (0..batch).flat_map(|n| (0..p.c_out).map(move |oc| (n, oc))) {
        let mut patches = vec![Vec::new(); plane];
        for (i, k) in (0..pixels).flat_map(|i| (0..taps).map(move |k| (i, k))) {
            let (ci, ck) = (coordinates(i, &input), coordinates(k, &p.kernel));
            let o: Vec<i64> = (0..r).map(|a| p.stride[a] as i64 * ci[a] - p.pad_begin[a] + p.dilation[a] as i64 * ck[a]).collect();
            if o.iter().zip(&out).all(|(o, n)| 0 <= *o && o < n) {
                let ics = oc / go * gi..(oc / go + 1) * gi;
                let v: f64 = ics.map(|ic| x[at(n, ic, i, p.c_in, pixels)] * w[(ic * go + oc % go) * taps + k]).sum();
                patches[o.iter().zip(&out).fold(0, |f, (o, n)| f * n + o) as usize].push(v);
            }
        }
        for (o, landed) in patches.iter().enumerate() {
            let sum: f64 = landed.iter().sum();
            let merged = match p.merge {
                _ if landed.is_empty() => 0.0,
                Merge::Sum => sum,
                Merge::Mean => sum / landed.len() as f64,
                Merge::Max => landed.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            };
            y[at(n, oc, o, p.c_out, plane)] = merged + bias.get(oc).copied().unwrap_or(0.0);
        }
    }
    y
}

fn agrees_with_the_definition(p: &Deconv) {
    let taps: usize = p.kernel.iter().product();
    let pixels: usize = extents(p).iter().product();
    let (x, w) = (fill(2 * p.c_in * pixels, 1), fill(p.c_in * p.c_out / p.groups * taps, 2));
    let bias = fill(if p.bias { p.c_out } else { 0 }, 3);
    let y = deconv(p, 2, &extents(p), &x, &w, p.bias.then_some(&bias[..])).unwrap();
    assert_eq!(y, definition(p, 2, &x, &w, &bias), "{p:?}");
}

#[test]
fn every_parameter_in_every_rank_layout_and_merge_follows_the_definition() {
    // Per axis: input, kernel, stride, dilation, pad_begin, pad_end, output_padding.
    type AxisCase = (usize, usize, usize, usize, i64, i64, usize);
    let cases: [AxisCase; 8] = [
        (5, 4, 2, 1, 1, 1, 0),
        (4, 3, 1, 3, 0, 2, 1),
        (3, 2, 4, 1, 0, 0, 3),
        (2, 7, 3, 2, -1, 4, 0),
        (1, 5, 2, 1, 0, 0, 1),
        (6, 3, 2, 4, 6, 5, 3),
        (3, 3, 6, 4, 2, -2, 0),
        (7, 1, 1, 1, 3, 0, 0),
    ];
    let channels = [(1, 1, 1), (3, 2, 1), (4, 6, 2), (3, 3, 3)];
    for i in 0..48 {
        let rank = 1 + i % 3;
        let axes: Vec<AxisCase> = (0..rank).map(|a| cases[(i + 3 * a + i / 8) % 8]).collect();
        let mut p = plain(&axes.iter().map(|c| c.0).collect::<Vec<_>>(), &axes.iter().map(|c| c.1).collect::<Vec<_>>());
        p.stride = axes.iter().map(|c| c.2).collect();
        p.dilation = axes.iter().map(|c| c.3).collect();
        p.pad_begin = axes.iter().map(|c| c.4).collect();
        p.pad_end = axes.iter().map(|c| c.5).collect();
        p.output_padding = axes.iter().map(|c| c.6).collect();
        (p.c_in, p.c_out, p.groups) = channels[i / 3 % 4];
        p.bias = i % 2 == 0;
        for (merge, layout) in
            [Merge::Sum, Merge::Mean, Merge::Max].into_iter().flat_map(|m| [(m, Layout::ChannelsFirst), (m, Layout::ChannelsLast)])
        {
            (p.merge, p.layout) = (merge, layout);
            agrees_with_the_definition(&p);
        }
    }
}

/// `y[i] = Σ_k x[s*i - p + d*k] * w[k]`, the convolution whose adjoint the layer is; channels of x are the layer's outputs.
fn forward(p: &Deconv, size: [usize; 2], x: &[f64], w: &[f64]) -> Vec<f64> {
    let (input, k) = (extents(p), &p.kernel);
    let mut y = vec![0.0; p.c_in * input[0] * input[1]];
    for ic in 0..p.c_in {
        for (iy, ix) in (0..input[0]).flat_map(|a| (0..input[1]).map(move |b| (a, b))) {
            for oc in 0..p.c_out {
                for (ky, kx) in (0..k[0]).flat_map(|a| (0..k[1]).map(move |b| (a, b))) {
                    let oy = (p.stride[0] * iy + p.dilation[0] * ky) as i64 - p.pad_begin[0];
                    let ox = (p.stride[1] * ix + p.dilation[1] * kx) as i64 - p.pad_begin[1];
                    if (0..size[0] as i64).contains(&oy) && (0..size[1] as i64).contains(&ox) {
                        y[(ic * input[0] + iy) * input[1] + ix] +=
                            x[(oc * size[0] + oy as usize) * size[1] + ox as usize] * w[((ic * p.c_out + oc) * k[0] + ky) * k[1] + kx];
                    }
                }
            }
        }
    }
    y
}

#[test]
fn it_is_the_adjoint_of_forward_convolution() {
    let mut p = plain(&[5, 4], &[3, 4]);
    (p.c_in, p.c_out, p.stride, p.dilation) = (3, 2, vec![2, 3], vec![2, 1]);
    (p.pad_begin, p.pad_end, p.output_padding) = (vec![1, 2], vec![2, 0], vec![1, 0]);
    let size = [0, 1].map(|a| p.output_extent(a).as_const().unwrap() as usize);
    let (x, y, w) = (fill(2 * size[0] * size[1], 4), fill(3 * 20, 5), fill(3 * 2 * 12, 6));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!(dot(&forward(&p, size, &x, &w), &y), dot(&x, &run(&p, &y, &w)));
}

#[test]
fn a_stride_above_the_kernel_leaves_outputs_of_bias_alone() {
    let mut p = plain(&[3], &[1]);
    (p.stride, p.bias) = (vec![3], true);
    for merge in [Merge::Sum, Merge::Mean, Merge::Max] {
        p.merge = merge;
        let y = deconv(&p, 1, &[3], &[-1.0, -2.0, -3.0], &[2.0], Some(&[0.5])).unwrap();
        assert_eq!(y, [-1.5, 0.5, 0.5, -3.5, 0.5, 0.5, -5.5]);
    }
}

#[test]
fn inserted_zeros_make_no_nan() {
    let mut p = plain(&[2], &[3]);
    p.stride = vec![3];
    let inf = f64::INFINITY;
    assert_eq!(run(&p, &[1.0, 2.0], &[inf, 1.0, -inf]), [inf, 1.0, -inf, inf, 2.0, -inf]);
    let y = run(&p, &[inf, 1.0], &[1.0, 0.0, 1.0]);
    assert_eq!((y[0], y[2..].to_vec()), (inf, vec![inf, 1.0, 0.0, 1.0]));
    assert!(y[1].is_nan(), "a weight that is 0 is a weight");
}

#[test]
fn nan_spreads_to_the_outputs_it_lands_on_and_no_further() {
    let mut p = plain(&[4], &[2]);
    for merge in [Merge::Sum, Merge::Mean, Merge::Max] {
        for activation in [
            Activation::None,
            Activation::Relu,
            Activation::LeakyRelu(0.1),
            Activation::Clamp(-1.0, 1.0),
            Activation::Tanh,
            Activation::Sigmoid,
        ] {
            (p.merge, p.activation) = (merge, activation);
            let y = run(&p, &[1.0, f64::NAN, 1.0, 1.0], &[1.0, 1.0]);
            assert_eq!(y.iter().map(|v| v.is_nan()).collect::<Vec<_>>(), [false, true, true, false, false], "{merge:?} {activation:?}");
        }
    }
}

#[test]
fn activations_follow_the_bias() {
    let mut p = plain(&[3], &[1]);
    p.bias = true;
    let mut act = |a| {
        p.activation = a;
        deconv(&p, 1, &[3], &[-3.0, 0.0, 3.0], &[1.0], Some(&[1.0])).unwrap()
    };
    assert_eq!(act(Activation::Relu), [0.0, 1.0, 4.0]);
    assert_eq!(act(Activation::LeakyRelu(0.5)), [-1.0, 1.0, 4.0]);
    assert_eq!(act(Activation::Clamp(-1.0, 2.0)), [-1.0, 1.0, 2.0]);
    assert_eq!(act(Activation::Tanh), [(-2.0f64).tanh(), 1.0f64.tanh(), 4.0f64.tanh()]);
    assert!((act(Activation::Sigmoid)[0] - 0.119_202_922_022_117_57).abs() < 1e-15);
}

#[test]
fn magnitude_is_the_sum_without_signs_and_terms_its_longest() {
    let mut p = plain(&[3], &[4]);
    (p.stride, p.bias, p.activation, p.c_in) = (vec![2], true, Activation::Relu, 2);
    let (x, w) = ([1.0, -1.0, 1.0, 2.0, -2.0, 2.0], [1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(magnitude(&p, 1, &[3], &x, &w, Some(&[-0.5])).unwrap(), [3.5, 3.5, 6.5, 6.5, 6.5, 6.5, 3.5, 3.5]);
    assert_eq!(error_bound_terms(&p), 4);
    (p.dilation, p.stride) = (vec![2], vec![4]);
    assert_eq!(error_bound_terms(&p), 4, "taps two apart meet at stride 4 and dilation 2");
    p.stride = vec![5];
    assert_eq!(error_bound_terms(&p), 2);
    (p.stride, p.dilation, p.input) = (vec![1], vec![1], vec![Extent::Open("W".into())]);
    assert_eq!(error_bound_terms(&p), 8);
}

#[test]
fn empty_batches_inputs_and_outputs_are_fine() {
    let mut p = plain(&[2], &[2]);
    assert_eq!(deconv::<f32>(&p, 0, &[2], &[], &[1.0, 1.0], None).unwrap(), [0.0f64; 0]);
    p.pad_end = vec![3];
    assert_eq!(run(&p, &[1.0, 2.0], &[1.0, 1.0]), [0.0f64; 0]);
    let mut p = plain(&[0], &[3]);
    (p.stride, p.bias) = (vec![2], true);
    for merge in [Merge::Sum, Merge::Mean, Merge::Max] {
        p.merge = merge;
        assert_eq!(deconv(&p, 1, &[0], &[], &[1.0; 3], Some(&[4.0])).unwrap(), [4.0]);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let p = plain(&[2], &[2]);
    let fails = |p: &Deconv, input: &[usize], x: usize, bias: Option<&[f32]>| {
        let e = deconv(p, 1, input, &vec![0.0; x], &[0.0; 2], bias).unwrap_err();
        (e.kind, e.message)
    };
    assert_eq!(fails(&p, &[2], 3, None), (Kind::Tensor, "the input has 3 elements; the problem wants 2".into()));
    assert_eq!(fails(&p, &[3], 3, None), (Kind::Tensor, "the input extent of axis 0 is 3; the problem says 2".into()));
    assert_eq!(fails(&p, &[2], 2, Some(&[1.0])), (Kind::Tensor, "the bias has 1 elements; the problem wants 0".into()));
    assert_eq!(fails(&p, &[], 2, None).0, Kind::Tensor);
    let zero = Deconv { stride: vec![0], ..p.clone() };
    assert_eq!(fails(&zero, &[2], 2, None).0, Kind::Problem);
    let negative = Deconv { pad_begin: vec![9], ..p.clone() };
    assert!(fails(&negative, &[2], 2, None).1.contains("an output extent of -6"));
    let huge = Deconv { stride: vec![usize::MAX], ..p.clone() };
    assert_eq!(fails(&huge, &[2], 2, None).0, Kind::Problem);
    let wide = Deconv { pad_end: vec![-(1 << 59)], c_out: 64, ..p };
    assert!(fails(&wide, &[2], 2, None).1.contains("exceeds memory"));
}
