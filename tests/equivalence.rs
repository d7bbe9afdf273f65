//! One behavioural suite for every evaluator: the interpreter at every stage, and native code at every level, form and plan.
//!
//! On integer fills all of them equal the reference. On real fills native code equals the interpreter on the same IR to the bit, both
//! lie within the bound, and thread counts change nothing. `PROPTEST_CASES` sets how many random problems there are.

mod support;

use polyphase::codegen::target::Isa;
use polyphase::ir::{Buffer, BufferKind, Func};
use polyphase::passes::snapshots;
use polyphase::plan::{Algorithm, Form, Plan, Processor};
use polyphase::{Activation, Deconv, DeconvBuilder, Elem, Kernel, Layout, Merge, Options};
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::*;

/// Multiplications that a random problem may have: interpreters are slow.
const MOST_MACS: u128 = 6_000;

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() }
}

/// One axis of a random problem.
#[derive(Debug, Clone)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: (i64, i64),
    output_padding: usize,
    open: bool,
}

fn axis(longest: usize) -> impl Strategy<Value = Axis> {
    let kernel = prop_oneof![4 => 1..=5usize, 1 => 6..=longest.max(6)];
    let stride = prop_oneof![5 => 1..=4usize, 1 => Just(longest.min(16))];
    (1..=longest, kernel, stride, prop_oneof![3 => Just(1usize), 1 => 2..=3usize], any::<bool>(), 0..100usize).prop_flat_map(
        |(input, kernel, stride, dilation, open, op)| {
            // Crops and extensions, of different signs at the two ends; a crop may exceed the kernel.
            let reach = (dilation * (kernel - 1)) as i64;
            let pad = prop_oneof![2 => 0..=reach.min(stride as i64 * 2), 1 => -2..=reach + 2];
            let output_padding = if op % 3 == 0 { op % stride.max(dilation) } else { 0 };
            (pad.clone(), pad).prop_map(move |pads| Axis { input, kernel, stride, dilation, pads, output_padding, open })
        },
    )
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        3 => Just(Activation::None),
        1 => Just(Activation::Relu),
        1 => Just(Activation::LeakyRelu(0.25)),
        1 => Just(Activation::Clamp(-2.0, 6.0)),
        1 => Just(Activation::Tanh),
        1 => Just(Activation::Sigmoid),
    ]
}

prop_compose! {
    fn words()(
        groups in prop_oneof![4 => Just(1usize), 1 => 2..=3usize],
        depthwise in prop::bool::weighted(0.15),
        batch in prop_oneof![3 => Just(Some(1usize)), 1 => Just(Some(2)), 1 => Just(None)],
        bias in any::<bool>(),
        activation in activation(),
        merge in prop_oneof![4 => Just(Merge::Sum), 1 => Just(Merge::Mean), 1 => Just(Merge::Max)],
        last in prop::bool::weighted(0.3),
        double in prop::bool::weighted(0.3),
        channels in (1..=4usize, prop_oneof![3 => 1..=5usize, 1 => 6..=20usize]),
    ) -> (usize, bool, Option<usize>, bool, Activation, Merge, bool, bool, (usize, usize)) {
        (groups, depthwise, batch, bias, activation, merge, last, double, channels)
    }
}

/// Problems of every kind that are small enough to interpret; `open` allows extents that come at run time.
fn problems(open: bool) -> impl Strategy<Value = Deconv> {
    let axes = prop_oneof![prop::collection::vec(axis(24), 1), prop::collection::vec(axis(9), 2), prop::collection::vec(axis(4), 3)];
    (axes, words()).prop_filter_map("no such layer, or too large", move |(axes, words)| {
        let (groups, depthwise, batch, bias, activation, merge, last, double, (icg, ocg)) = words;
        let (groups, icg, ocg) = if depthwise { (groups * 3, 1, 1 + ocg % 2) } else { (groups, icg, ocg) };
        let each = |f: fn(&Axis) -> i64| axes.iter().map(f).collect::<Vec<_>>();
        let input = axes.iter().map(|a| if open && a.open { None } else { Some(a.input) });
        let b = DeconvBuilder::new(axes.len(), icg * groups, ocg * groups, each(|a| a.kernel as i64))
            .stride(each(|a| a.stride as i64))
            .dilation(each(|a| a.dilation as i64))
            .padding_begin_end(each(|a| a.pads.0), each(|a| a.pads.1))
            .output_padding(each(|a| a.output_padding as i64))
            .input_extents(input)
            .groups(groups)
            .bias(bias)
            .activation(activation)
            .merge(merge)
            .layout(if last { Layout::ChannelsLast } else { Layout::ChannelsFirst })
            .elem(if double { Elem::F64 } else { Elem::F32 });
        let b = match batch {
            None if open => b.open_batch(),
            n => b.batch(n.unwrap_or(3)),
        };
        let p = b.build().ok()?;
        let spatial: Vec<usize> = axes.iter().map(|a| a.input).collect();
        let size = batch.unwrap_or(3);
        let outputs: usize = p.output_shape(size, &spatial).ok()?.iter().product();
        (p.useful_macs(size, &spatial) <= MOST_MACS && outputs <= 4_000).then_some(p)
    })
}

/// The kinds of plans, as tests count them.
fn kind(p: &Plan) -> String {
    format!(
        "{} {} {}{}",
        p.form.name(),
        if p.panel { "panel" } else { "in-place" },
        if p.winograd.is_some() { "winograd " } else { "" },
        p.vector
    )
}

/// The suite for one kernel: integers exactly, reals to the bit and within the bound.
fn holds<T: Num>(ints: &Case<T>, reals: &Case<T>, options: &Options) -> Kernel<T> {
    for (case, exact) in [(ints, ints.exact()), (reals, false)] {
        let kernel = case.kernel(options);
        let what = label(&kernel);
        let native = case.run(&kernel);
        like_reference(&what, case, kernel.plan(), exact, &native);
        same_bits(&format!("{what}: native and interpreted"), &case.interpret(kernel.func()), &native);
    }
    ints.kernel(options)
}

/// Every stage of one plan computes the same.
fn stages_agree<T: Num>(case: &Case<T>, plan: &Plan) {
    for s in snapshots(&case.problem, plan).unwrap_or_else(|e| panic!("{} with {plan}: {e}", case.problem)) {
        like_reference(&format!("{} after {} of {plan}", case.problem, s.pass), case, plan, case.exact(), &case.interpret(&s.func));
    }
}

/// The suite for every level, form and plan of one problem at one size.
fn all_agree<T: Num>(p: &Deconv, batch: usize, spatial: &[usize], pick: usize) {
    let (ints, reals) = (Case::<T>::sized(p, batch, spatial, Fill::Ints, 1), Case::<T>::sized(p, batch, spatial, Fill::Reals, 7));
    let levels = levels();
    let chosen: Vec<_> = levels.iter().map(|isa| holds(&ints, &reals, &at(*isa))).collect();
    let one = &chosen[pick % chosen.len()];
    stages_agree(&ints, one.plan());
    for r in &one.choice().rejected {
        holds(&ints, &reals, &Options { plan: Some(r.plan.clone()), ..at(one.isa()) });
        stages_agree(&ints, &r.plan);
    }
    for form in [Form::Gather, Form::Scatter] {
        let k = holds(&ints, &reals, &Options { form: Some(form), ..at(levels[pick % levels.len()]) });
        assert_eq!(k.plan().form, form, "{p}: the form was forced");
    }
}

fn all_agree_for(p: &Deconv, batch: usize, spatial: &[usize], pick: usize) {
    match p.elem {
        Elem::F32 => all_agree::<f32>(p, batch, spatial, pick),
        Elem::F64 => all_agree::<f64>(p, batch, spatial, pick),
    }
}

proptest! {
    #![proptest_config(config(24))]
    #[test]
    fn random_problems_agree_everywhere(p in problems(false), pick in 0..60usize) {
        let (batch, spatial) = p.fixed_shape().unwrap();
        all_agree_for(&p, batch, &spatial, pick);
    }
}

/// Found by random problems: nine outputs of a window, interleaved from as many registers, of which AVX2 has sixteen.
#[test]
fn problems_that_once_failed() {
    // Rows in place whose tail is clamped; one position whose pixel depends on the phase.
    // Weights whose channels are neighbours, and one dimension with the phases.
    for text in ["1d n3 1x12 -> 1 k5 s3 bias clamp(-2,6) f64", "1d n1 1x1 -> 5 k2 s2 p1 pe-1 f64", "1d n1 1x5 -> 2 k1 s2 f64"] {
        let p: Deconv = text.parse().expect("legal");
        let (batch, spatial) = p.fixed_shape().expect("nothing is open");
        (0..60).for_each(|pick| all_agree_for(&p, batch, &spatial, pick));
        let w = vec![1.0f64; p.weight_shape().iter().product()];
        for isa in levels() {
            let options = Options { isa: Some(isa), ..Options::default() };
            p.compile(&w, p.bias.then_some(&[0.0][..]), &options).unwrap_or_else(|e| panic!("{text} at {isa:?}: {e}"));
        }
    }
}

/// Layers with plans, whose vectors have as many `LANES` as the level, on integers: equal to the reference at every level. An open extent is 10.
fn planned_layers_are_exact(layers: &[(&str, &str)]) {
    for (text, plan) in layers {
        let p: Deconv = text.parse().expect("legal");
        let spatial: Vec<usize> = p.input.iter().map(|e| if let polyphase::Extent::Fixed(n) = e { *n } else { 10 }).collect();
        let batch = if let polyphase::Extent::Fixed(n) = p.batch { n } else { 1 };
        let case = Case::<f32>::sized(&p, batch, &spatial, Fill::Ints, 11);
        for isa in levels() {
            let lanes = match isa.name() {
                "avx512" => "16",
                "avx2" => "8",
                _ => "4",
            };
            let fma = if isa.fma() { "" } else { " no-fma" };
            let plan = format!("{}{fma}", plan.replace("LANES", lanes)).parse().unwrap_or_else(|e| panic!("{plan}: {e}"));
            let kernel = case.kernel(&Options { plan: Some(plan), ..at(isa) });
            let got: Vec<f64> = case.run(&kernel).iter().map(|v| *v as f64).collect();
            assert_eq!(got, case.reference(), "{text} at {isa}");
        }
    }
}

/// Kernel positions are packed together where channels lie along the lanes, in as many dimensions as are written out; elsewhere what lies side by side.
#[test]
fn weights_are_packed_as_they_lie() {
    let tiles = [
        ("1d n1 9x20 -> 32 k5 s2 p1", "gather panel qx=3 oc=LANES along oc xLANES block 0"),
        ("1d n1 9x20 -> 33 k12 s5 p1", "gather panel qx=3 oc=LANES along oc xLANES block 0"),
        ("1d n1 17x20 -> 32 k1 s1", "gather panel qx=3 oc=LANES along oc xLANES block 0"),
        ("1d n1 17x20 -> 32 k40 s3 p2", "gather panel rx=3 qx=2 oc=LANES along oc xLANES block 0"),
        ("2d n1 10x5x6 -> 32 k3 s4 p1 d2 g2", "gather panel qx=3 oc=LANES along oc xLANES block 0x0"),
        ("2d n1 10x5x6 -> 16 k6x5 s3x2 p1", "gather panel ry=3 qx=3 oc=LANES along oc xLANES block 0x0"),
        ("3d n1 9x3x4x5 -> 16 k3x4x5 s2 p1", "gather panel qx=3 oc=LANES along oc xLANES block 0x0x0"),
        ("2d n1 9x5x40 -> 7 k2 s2", "gather panel oc=3 ry=2 rx=2 qx=LANES along qx xLANES block 0x0"),
        ("3d n1 18x3x4x20 -> 6 k2 s2 g2", "gather panel oc=3 ry=2 rx=2 qx=LANES along qx xLANES block 0x0x0"),
    ];
    planned_layers_are_exact(&tiles);
}

/// Tiles of one channel whose phases read shifted windows load each vector once and put their multiply-adds in that order; loops of few sums take
/// several iterations at a time where their number divides, as 12 and 4 channels do and 7 do not.
#[test]
fn shifted_phases_share_their_pixels() {
    let tiles = [
        ("3d n1 12x4x5x20 -> 1 k4 s2 p1", "gather panel rz=2 ry=2 rx=2 qx=LANES along qx xLANES block 2x3x0"),
        ("2d n2 7x6x35 -> 1 k4 s2 p1", "gather panel ry=2 rx=2 qy=2 qx=LANES along qx xLANES block 4x0"),
        ("1d n1 4x40 -> 1 k9 s3 p4 op2", "gather panel rx=3 qx=LANES along qx xLANES block 0"),
        ("1d n1 12x40 -> 3 k5 s3 p2", "gather panel oc=2 rx=3 qx=LANES along qx xLANES block 0"),
    ];
    planned_layers_are_exact(&tiles);
}

/// Tiles of a part of the phases along x, aligned or without padding, and of several rows of pixels with all phases of a row along the lanes.
#[test]
fn phases_of_a_row_lie_in_several_tiles() {
    let tiles = [
        ("2d n1 9x5x14 -> 3 k16 s16", "gather panel rx=4 qy=2 qx=LANES along qx xLANES block 2x0"),
        ("2d n2 6x3x? -> 2 k8 s8 bias relu", "gather panel oc=2 rx=4 qx=LANES along qx xLANES block 2x32"),
        ("1d n1 7x40 -> 1 k14 s14", "gather panel rx=7 qx=LANES along qx xLANES block 0"),
        ("1d n1 7x40 -> 5 k16 s8 p4", "gather aligned panel oc=2 rx=4 qx=LANES along qx xLANES block 0"),
        ("2d n1 5x6x20 -> 2 k16 s8 p3 op2 nhwc", "gather aligned panel oc=2 rx=4 qx=LANES along qx xLANES block 4x0"),
        ("2d n1 9x5x14 -> 3 k16 s16", "gather aligned panel qy=2 qx=5 rx=LANES along rx xLANES block 2x0"),
        ("2d n1 4x5x9 -> 2 k32 s16 p8", "gather aligned panel qy=3 qx=2 rx=LANES along rx xLANES block 0x0"),
    ];
    planned_layers_are_exact(&tiles);
}

/// Dilated taps read windows that interleave, of extents that are known or open.
#[test]
fn windows_interleave() {
    let tiles = [
        ("2d n1 5x19x40 -> 5 k3 s1 p2 d2", "gather aligned panel winograd 2x2 held 5 oc=5 qw=LANES along qw xLANES block 4x0"),
        ("2d n1 5x19x40 -> 5 k3 s1 p2 d2 nhwc", "gather aligned panel winograd 2x2 held 5 oc=5 qw=LANES along qw xLANES block 4x0"),
        ("2d n1 4x?x? -> 5 k3 s1 p3 d3 bias relu", "gather aligned panel winograd 2x2 held 5 oc=5 qw=LANES along qw xLANES block 2x16"),
        ("1d n2 6x? -> 4 k2 s2 p3 d6 op5", "gather aligned panel winograd 3 held 4 oc=4 qw=LANES along qw xLANES block 48"),
        ("2d n1 4x9x30 -> 4 k3 s1x2 p2x1 d2x1 g2", "gather aligned panel winograd 2x3 held 2 oc=2 qw=LANES along qw xLANES block 0x0"),
    ];
    planned_layers_are_exact(&tiles);
}

/// One phase may be finished before the next begins, of extents that are known or open.
#[test]
fn phases_go_one_by_one() {
    let tiles = [
        ("2d n1 5x19x40 -> 5 k4 s2 p1", "gather aligned panel winograd 3x3 held 5 by-phase oc=5 qw=LANES along qw xLANES block 6x0"),
        (
            "2d n2 5x?x? -> 6 k4 s2 p1 bias relu",
            "gather aligned panel winograd 3x3 held 6 by-phase oc=3 qw=LANES along qw xLANES block 6x48",
        ),
        (
            "2d n1 5x9x20 -> 6 k4 s2 p1 nhwc",
            "gather aligned panel winograd 3x3 held LANES by-phase oc=LANES qw=3 along oc xLANES block 6x0",
        ),
        ("2d n1 4x9x16 -> 3 k16 s8 p4", "gather aligned panel winograd 3x3 held 3 by-phase oc=3 qw=LANES along qw xLANES block 3x0"),
        (
            "3d n1 6x5x7x20 -> 4 k4 s2 p1",
            "gather aligned panel winograd 3x3x3 held 4 by-phase fx=2 oc=2 qw=LANES along qw xLANES block 3x0x0",
        ),
        (
            "3d n1 6x?x7x20 -> 4 k4 s2 p1",
            "gather aligned panel winograd 3x3x3 held LANES by-phase oc=LANES qw=5 along oc xLANES block 3x0x0",
        ),
    ];
    planned_layers_are_exact(&tiles);
}

/// Taps along x may be summed with the channels, of extents that are known or open.
#[test]
fn taps_are_summed() {
    let tiles = [
        ("2d n1 9x19x70 -> 3 k4 s2 p1", "gather aligned panel winograd 3x1 held 3 fy=2 fx=2 oc=3 qw=LANES along qw xLANES block 6x0"),
        ("2d n2 5x?x? -> 2 k3 s2 p1 op1 bias relu", "gather aligned panel winograd 3x1 held 2 oc=2 qw=LANES along qw xLANES block 6x33"),
        ("2d n1 6x?x? -> 4 k3 s1 p1 g2", "gather aligned panel winograd 2x1 held 2 oc=2 qw=LANES along qw xLANES block 8x20"),
        ("2d n1 9x19x40 -> 3 k9 s3 p4 nhwc", "gather aligned panel winograd 2x1 held 3 oc=3 qw=LANES along qw xLANES block 4x16"),
        ("2d n1 20x9x40 -> 20 k5 s2 p2 nhwc", "gather aligned panel winograd 2x1 held LANES oc=LANES qw=5 along oc xLANES block 4x0"),
        ("3d n1 6x?x7x20 -> 1 k4 s2 p1", "gather aligned panel winograd 3x3x1 held 1 fz=2 fy=2 fx=2 qw=LANES along qw xLANES block 3x0x0"),
        ("3d n1 6x5x?x? -> 9 k4 s2 p1", "gather aligned panel winograd 3x1x1 held LANES oc=LANES qw=5 along oc xLANES block 3x4x7"),
    ];
    planned_layers_are_exact(&tiles);
}

/// Phases that share a window may be in the tile of its products: all of them, along some axes or all.
#[test]
fn phases_share_a_tile() {
    let tiles = [
        ("1d n2 7x50 -> 2 k9 s3 p4 op2", "gather aligned panel winograd 2 held 2 fx=3 oc=2 qw=LANES along qw xLANES block 0"),
        ("2d n1 5x9x33 -> 3 k4 s2 p1", "gather aligned panel winograd 3x3 held 3 fy=2 fx=2 oc=3 qw=LANES along qw xLANES block 6x0"),
        ("2d n1 5x?x33 -> 5 k4 s2 p1 g5", "gather aligned panel winograd 3x3 held 1 fx=2 qw=LANES along qw xLANES block 6x0"),
        ("2d n1 8x9x33 -> 3 k4 s2 p1 relu nhwc", "gather aligned panel winograd 3x3 held 3 fy=2 oc=3 qw=LANES along qw xLANES block 0x0"),
        ("3d n1 6x5x7x20 -> 1 k4 s2 p1", "gather aligned panel winograd 3x3x3 held 1 fz=2 fy=2 fx=2 qw=LANES along qw xLANES block 3x0x0"),
    ];
    planned_layers_are_exact(&tiles);
    // Transformed weights are not cut between phases, and phases of different numbers of taps share nothing.
    for (text, legal) in
        [("1d n1 4x40 -> 1 k16 s8 p4", "legal: 8, which share a window"), ("1d n1 4x40 -> 1 k3 s2 p1", "they share no window")]
    {
        let p: Deconv = text.parse().expect("legal");
        let isa = levels()[0];
        let fma = if isa.fma() { "" } else { " no-fma" };
        let plan = format!("gather aligned panel winograd 3 held 1 fx=4 qw=4 along qw x4 block 0{fma}").parse().expect("a plan");
        let weight = vec![1.0f32; p.weight_shape().iter().product()];
        let error = p.compile(&weight, None, &Options { plan: Some(plan), ..at(isa) }).map(drop).expect_err(text).to_string();
        assert!(error.contains(legal), "{text}: {error}");
    }
}

/// Versions of an open kernel whose phases begin elsewhere pack by the same statements and other tables: they once shared one packing.
#[test]
fn versions_with_other_tables_pack_for_themselves() {
    let p: Deconv = "2d n1 1x1x? -> 1 k1x3 s3 p0x8 op0x2 d1x2".parse().expect("legal");
    for isa in levels() {
        for extent in [5, 8, 16, 64] {
            let case = Case::<f32>::sized(&p, 1, &[1, extent], Fill::Ints, 7);
            let got: Vec<f64> = case.run(&case.kernel(&at(isa))).iter().map(|v| *v as f64).collect();
            assert_eq!(got, case.reference(), "{isa} at {extent}");
        }
    }
}

/// One kernel with open extents at several sizes.
fn any_size<T: Num>(p: &Deconv, isa: Isa, sizes: &[(usize, [usize; 3])]) {
    let mut kernels: Option<[Kernel<T>; 2]> = None;
    for (batch, extents) in sizes {
        let fixed = |e: &polyphase::Extent, v: usize| if let polyphase::Extent::Fixed(f) = e { *f } else { v };
        let spatial: Vec<usize> = p.input.iter().zip(extents).map(|(e, v)| fixed(e, *v)).collect();
        let batch = fixed(&p.batch, *batch);
        if p.output_shape(batch, &spatial).is_err() || p.useful_macs(batch, &spatial) > 4 * MOST_MACS {
            continue;
        }
        let (ints, reals) = (Case::<T>::sized(p, batch, &spatial, Fill::Ints, 1), Case::<T>::sized(p, batch, &spatial, Fill::Reals, 1));
        let [exact, rounded] = kernels.get_or_insert_with(|| [ints.kernel(&at(isa)), reals.kernel(&at(isa))]);
        let version = rounded.version_for(&spatial);
        let plan = &version.choice().plan;
        let what = format!("{plan} @ {isa} for {p} at {batch}, {spatial:?}");
        // Weights come from the same seed whatever the size, so the kernels made at the first size serve all.
        like_reference(&what, &ints, &exact.version_for(&spatial).choice().plan, ints.exact(), &ints.run(exact));
        let native = reals.run(rounded);
        like_reference(&what, &reals, plan, false, &native);
        same_bits(&what, &reals.interpret(version.func()), &native);
    }
}

/// Windows and direct sums, whose versions have blocks and tiles of several sizes; each of them at sizes that it was not made for.
#[test]
fn every_version_serves_every_size() {
    let layers = [
        ("2d n1 16x?x? -> 20 k4 s2 p1", vec![vec![4, 4], vec![5, 11], vec![9, 20], vec![24, 24]]),
        ("2d n1 12x?x? -> 16 k3 s2 p1 op1 nhwc bias relu", vec![vec![3, 3], vec![7, 13], vec![17, 18]]),
        ("1d n? 24x? -> 18 k10 s5 p3 op1", vec![vec![5], vec![31], vec![90], vec![200]]),
        ("3d n1 8x4x?x? -> 9 k4 s2 p1", vec![vec![4, 4, 4], vec![4, 7, 12]]),
        ("2d n1 5x?x? -> 3 k2 s2", vec![vec![2, 2], vec![9, 40], vec![33, 17]]),
    ];
    let every = layers.into_iter().flat_map(|layer| levels().into_iter().map(move |isa| (layer.clone(), isa)));
    all_hold(every.flat_map(|((text, sizes), isa)| {
        [None, Some(Algorithm::Winograd)].map(|algorithm| {
            let sizes = sizes.clone();
            let check = move || {
                let p: Deconv = text.parse().unwrap();
                let options = Options { algorithm, typical: sizes.clone(), ..at(isa) };
                let kernel = Case::<f32>::sized(&p, 1, &sizes[0], Fill::Reals, 1).compile(&options);
                // Where kernel and stride are equal there is no window.
                let Ok(kernel) = kernel else { return assert!(algorithm.is_some() && text.contains("k2 s2"), "{text} at {isa}") };
                assert!(!kernel.versions().is_empty() && kernel.versions().len() <= sizes.len());
                for spatial in &sizes {
                    let case = Case::<f32>::sized(&p, 1, spatial, Fill::Reals, 1);
                    for version in kernel.versions() {
                        let options = Options { plan: Some(version.choice().plan.clone()), ..at(isa) };
                        let one = case.kernel(&options);
                        let what = format!("made for {:?}, at {spatial:?}: {}", version.typical(), label(&one));
                        let native = case.run(&one);
                        like_reference(&what, &case, one.plan(), false, &native);
                        same_bits(&what, &case.interpret(version.func()), &native);
                    }
                    let taken = kernel.version_for(spatial);
                    same_bits(&format!("{text} at {spatial:?}"), &case.interpret(taken.func()), &case.run(&kernel));
                }
            };
            (format!("{text} @ {isa} {algorithm:?}"), Box::new(check) as Box<dyn FnOnce()>)
        })
    }));
}

#[test]
fn versions_share_packed_weights_and_stand_in_order() {
    let p: Deconv = "2d n1 64x?x? -> 64 k4 s2 p1".parse().unwrap();
    let weights = vec![0.5f32; 64 * 64 * 16];
    let kernel = p.compile(&weights, None, &Options::default()).unwrap();
    let sizes: Vec<usize> = kernel.versions().iter().map(|v| v.typical().iter().product()).collect();
    assert!(sizes.is_sorted(), "{sizes:?}");
    let packed = |f: &Func| f.buffers.iter().filter(|b| b.kind == BufferKind::Packed).cloned().collect::<Vec<_>>();
    let mut different: Vec<&Func> = Vec::new();
    for v in kernel.versions() {
        if !different.iter().any(|f| f.prepare == v.func().prepare && packed(f) == packed(v.func())) {
            different.push(v.func());
        }
    }
    let elements = |b: &Buffer| b.dims.iter().map(|d| d.as_const().unwrap()).product::<i64>();
    let bytes: i64 = different.iter().flat_map(|f| packed(f)).map(|b| elements(&b) * 4).sum();
    assert_eq!(kernel.report().packed_bytes as i64, bytes, "{sizes:?}");
    for (typical, why) in
        [(vec![vec![4]], "has 1 extents for 2 axes"), (vec![vec![0, 4]], "cannot be"), (vec![vec![4, 4]; 17], "17 typical sizes")]
    {
        let e = p.compile(&weights, None, &Options { typical, ..Options::default() }).err().expect("illegal sizes");
        assert!(e.to_string().contains(why), "{e}");
    }
}

/// Found by `verify --seed 3101`: windows in blocks of one position along x stored nothing, since no variable told that position from the next block's.
#[test]
fn blocks_hold_one_position_along_x() {
    for text in ["2d n1 3x4x9 -> 2 k2x1", "2d n2 3x4x9 -> 2 k2x2 bias relu", "2d n1 3x4x9 -> 2 k4x2 s2x1 nhwc", "2d n1 1x1x2 -> 1 k2x1"] {
        let p: Deconv = text.parse().unwrap();
        for isa in levels().into_iter().filter(|isa| isa.wide()) {
            let lanes = isa.lanes(Elem::F32);
            for block in ["0x1", "2x1"] {
                let plan = format!("gather aligned panel winograd 2x1 held 2 oc=2 qw={lanes} along qw x{lanes} block {block}");
                let case = Case::<f32>::sized(
                    &p,
                    p.batch.known().unwrap(),
                    &[p.input[0].known().unwrap(), p.input[1].known().unwrap()],
                    Fill::Reals,
                    1,
                );
                let kernel = case.kernel(&Options { plan: Some(plan.parse().unwrap()), ..at(isa) });
                let native = case.run(&kernel);
                like_reference(&format!("{text} @ {isa} {block}"), &case, kernel.plan(), false, &native);
                same_bits(&format!("{text} @ {isa} {block}"), &case.interpret(kernel.func()), &native);
            }
        }
    }
}

#[test]
fn packed_weights_of_all_sizes_keep_to_their_limit() {
    // On a processor whose plans for these sizes read the weights in several orders: three, but at levels with short vectors.
    let p: Deconv = "2d n1 64x?x? -> 64 k4 s2 p1".parse().unwrap();
    let kernel = |packing_limit| {
        let options = Options { packing_limit, processor: Some(Processor::ZEN_4), ..Options::default() };
        let kernel = Case::<f32>::sized(&p, 1, &[8, 8], Fill::Reals, 1).compile(&options).expect("a kernel");
        for spatial in [[4, 4], [17, 9]] {
            let case = Case::<f32>::sized(&p, 1, &spatial, Fill::Reals, 1);
            same_bits(&format!("{packing_limit:?} {spatial:?}"), &case.interpret(kernel.version_for(&spatial).func()), &case.run(&kernel));
        }
        kernel
    };
    let bytes = |k: &Kernel<f32>| k.report().packed_bytes;
    let all = kernel(None);
    let limit = bytes(&all) - 1;
    let [some, one] = [Some(limit), Some(0)].map(kernel);
    let orders = |k: &Kernel<f32>| {
        let all: Vec<_> = k.versions().iter().map(|v| &v.func().prepare).collect();
        (0..all.len()).filter(|at| !all[..*at].contains(&all[*at])).count()
    };
    assert!(bytes(&some) <= limit, "{} {limit}", bytes(&some));
    assert!(bytes(&one) < bytes(&some) || orders(&all) == 2, "{} {}", bytes(&one), bytes(&some));
    assert!(one.versions().iter().all(|v| v.func().prepare == one.func().prepare));
    assert!(one.choice().reasons.iter().any(|r| r.starts_with("weights: all packings take at most 0 MiB")), "{:?}", one.choice().reasons);
}

proptest! {
    #![proptest_config(config(16))]
    #[test]
    fn one_kernel_serves_every_size(p in problems(true), pick in 0..60usize) {
        let levels = levels();
        let sizes = [(1, [1, 1, 1]), (1, [2, 3, 17]), (2, [3, 5, 4]), (1, [1, 9, 33]), (3, [4, 1, 2])];
        match p.elem {
            Elem::F32 => any_size::<f32>(&p, levels[pick % levels.len()], &sizes),
            Elem::F64 => any_size::<f64>(&p, levels[pick % levels.len()], &sizes),
        }
    }
}

/// Layers that between them have a plan of every kind, with what they add.
const LAYERS: &[(&str, &str)] = &[
    ("a row of several vectors", "2d n1 3x3x40 -> 5 k4 s2 p1 bias relu"),
    ("one pixel", "2d n1 9x1x1 -> 17 k4 s1"),
    ("kernel equals stride", "2d n2 3x3x9 -> 4 k2 s2"),
    ("stride exceeds kernel", "2d n1 3x3x5 -> 2 k2 s3 bias tanh"),
    ("long strides: phases along the lanes", "1d n1 3x7 -> 2 k32 s16 p8"),
    ("dilation that shares a factor with the stride", "2d n1 2x4x6 -> 3 k3 s4 p1 d2"),
    ("depthwise", "2d n1 6x4x9 -> 6 k4 s2 p1 g6"),
    ("groups, channels last", "2d n1 4x5x6 -> 6 k3 s2 p1 op1 g2 nhwc bias"),
    ("a crop beyond the kernel, an extension", "2d n1 2x6x6 -> 3 k3 s2 p4x-1 pe-2x3"),
    ("output padding above the stride", "1d n1 3x9 -> 4 k3 s1 d3 op2"),
    ("volume", "3d n1 2x3x3x5 -> 3 k4 s2 p1"),
    ("volume, channels last, double", "3d n1 2x2x3x4 -> 3 k2 s2 ndhwc f64 sigmoid"),
    ("mean", "2d n1 2x4x5 -> 3 k3 s2 p1 mean"),
    ("max", "2d n1 2x4x5 -> 17 k3 s2 p1 max bias leaky_relu(0.25)"),
    ("double", "1d n1 4x20 -> 3 k10 s5 p2 op1 f64"),
];

#[test]
fn every_kind_of_plan_agrees_at_every_level() {
    all_hold(LAYERS.iter().flat_map(|(what, text)| {
        let p: Deconv = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        (0..levels().len()).map(move |pick| {
            let p = p.clone();
            let check = move || {
                let (batch, spatial) = p.fixed_shape().unwrap();
                all_agree_for(&p, batch, &spatial, pick);
            };
            (what.to_string(), Box::new(check) as Box<dyn FnOnce()>)
        })
    }));
}

#[test]
fn layers_offer_every_kind_of_plan() {
    let mut seen = BTreeSet::new();
    for (_, text) in LAYERS {
        let p: Deconv = text.parse().unwrap();
        if p.elem == Elem::F32 {
            let case = Case::<f32>::new(&p, Fill::Ints, 1);
            let Ok(k) = case.compile(&Options::default()) else { continue };
            seen.insert(kind(k.plan()));
            seen.extend(k.choice().rejected.iter().map(|r| kind(&r.plan)));
        }
    }
    let all = ["gather in-place oc", "gather panel oc", "gather panel qx", "gather panel rx", "scatter in-place kx", "scatter in-place oc"];
    let missing: Vec<_> = all.iter().filter(|k| !seen.contains(**k)).collect();
    assert!(missing.is_empty(), "no layer has a plan of kind {missing:?}; seen: {seen:?}");
}

#[test]
fn thread_counts_change_no_bit() {
    // Large enough to be shared out.
    let layers = [
        "2d n1 16x12x20 -> 24 k4 s2 p1",
        "2d n3 16x14x14 -> 16 k3 s2 p1 op1 g2 bias relu",
        "1d n1 32x60 -> 16 k16 s8 p4",
        "2d n1 64x4x4 -> 48 k4 s2 p1 nhwc",
    ];
    let forms = [None, Some(Form::Gather), Some(Form::Scatter)];
    let each = levels().into_iter().flat_map(|isa| forms.map(|form| (isa, form)));
    all_hold(each.flat_map(|(isa, form)| {
        layers.map(|text| {
            let check = move || threads_agree(&text.parse().unwrap(), isa, form);
            (format!("{text} @ {isa} {form:?}"), Box::new(check) as Box<dyn FnOnce()>)
        })
    }));
}

fn threads_agree(p: &Deconv, isa: Isa, form: Option<Form>) {
    let case = Case::<f32>::new(p, Fill::Reals, 3);
    assert!(p.useful_macs(case.batch, &case.spatial) > 200_000, "{p} is not shared out");
    let options = |threads| Options { threads, form, ..at(isa) };
    let kernel = case.kernel(&options(1));
    let one = case.run(&kernel);
    like_reference(&label(&kernel), &case, kernel.plan(), false, &one);
    for threads in [2, 3] {
        let kernel = case.kernel(&options(threads));
        same_bits(&format!("{threads} threads: {}", label(&kernel)), &one, &case.run(&kernel));
    }
}
