//! Every stage computes the same, for plans of every shape: integer-valued data is exact, so equality can be demanded of the interpreter
//! on every stage and of native code on the last.

use polyphase::codegen::target::Isa;
use polyphase::interp::{Tensors, execute};
use polyphase::ir::{LoopKind, Stmt};
use polyphase::passes::snapshots;
use polyphase::plan::Plan;
use polyphase::{Deconv, Options};

/// Small integers, from a fixed sequence.
fn integers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 7) as f32 - 3.0
    };
    (0..n).map(|_| next()).collect()
}

/// Runs every stage, and the kernel that the plan makes at the least level with its lanes.
fn check(text: &str, plan: &str) {
    let p: Deconv = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    let plan: Plan = plan.parse().unwrap_or_else(|e| panic!("{plan}: {e}"));
    let (batch, spatial) = p.fixed_shape().expect("the problems here have no open extent");
    let x = integers(p.input_shape(batch, &spatial).expect("legal").iter().product(), 1);
    let w = integers(p.weight_shape().iter().product(), 2);
    let bias = p.bias.then(|| integers(p.c_out, 3));
    let outputs = p.output_shape(batch, &spatial).expect("legal").iter().product();
    let mut expected: Option<Vec<f32>> = None;
    for s in snapshots(&p, &plan).unwrap_or_else(|e| panic!("{text}, {plan}: {e}")) {
        let mut y = vec![f32::NAN; outputs];
        let tensors = Tensors { input: &x, weight: &w, bias: bias.as_deref(), output: &mut y };
        execute(&s.func, &[], tensors).unwrap_or_else(|e| panic!("{text} after {}: {e}\n{}", s.pass, s.func));
        let first = expected.get_or_insert_with(|| y.clone());
        assert_eq!(first, &y, "{text}, {plan}, after {}\n{}", s.pass, s.func);
    }
    let isa = Isa::detected().into_iter().find(|i| i.fma()).expect("every machine has a level with fused multiply-add");
    let options = Options { isa: Some(isa), plan: Some(plan.clone()), ..Options::default() };
    let kernel = p.compile(&w, bias.as_deref(), &options).unwrap_or_else(|e| panic!("{text}, {plan}: {e}"));
    let mut y = vec![f32::NAN; outputs];
    kernel.run(&x, &mut y).unwrap_or_else(|e| panic!("{text}, {plan}: {e}"));
    assert_eq!(expected.as_ref(), Some(&y), "{text}, {plan}, native at {isa}\n{}", kernel.func());
}

/// Problems whose axes differ in what they do to the passes: strides with and without common divisors with the dilation, ragged taps,
/// crops, extensions, strides larger than the kernel.
const PROBLEMS: &[&str] = &[
    "2d n1 5x6x7 -> 7 k4 s2 p1",
    "2d n1 5x6x7 -> 7 k3 s2 p1 op1 bias relu",
    "1d n1 3x40 -> 4 k16 s8 p4",
    "2d n1 3x5x9 -> 4 k3 s1 p1 d2",
    "2d n1 4x5x9 -> 4 k3 s2 p1 d2 g2",
    "2d n1 3x5x9 -> 2 k2 s3 p0",
    "3d n1 3x3x4x5 -> 4 k4 s2 p1",
    "2d n1 3x5x9 -> 2 k5 s3 p4",
    "2d n1 3x5x9 -> 2 k3 s2 p-1 pe2",
    "2d n1 1x1x1 -> 1 k1 s1 p0",
    "2d n1 3x5x9 -> 2 k3 s4 d2",
    "2d n1 3x5x9 -> 2 k3 s2 p1 nhwc",
];

/// The plans for every problem: `R` stands for the stride on x, `B` for the block.
fn each(plans: &[&str]) {
    for text in PROBLEMS {
        let p: Deconv = text.parse().expect("legal");
        let rank = p.rank();
        let whole = vec!["0"; rank].join("x");
        let mut small = vec!["2"; rank];
        small[rank - 1] = "8";
        for block in [whole, small.join("x")] {
            for plan in plans {
                check(text, &plan.replace('R', &p.stride[rank - 1].to_string()).replace('B', &block));
            }
        }
    }
}

#[test]
fn gather_with_columns_along_the_lanes() {
    each(&[
        "gather panel oc=3 qx=8 along qx x4 block B",
        "gather panel oc=2 rx=R qx=4 along qx x4 block B",
        "gather aligned panel oc=2 rx=R qx=4 along qx x4 block B",
    ]);
}

/// Rows above and below the image are tested where a tile holds positions or phases of several, columns masked.
#[test]
fn gather_in_place_with_columns_along_the_lanes() {
    for text in PROBLEMS {
        let p: Deconv = text.parse().expect("legal");
        let zeros = vec!["0"; p.rank()].join("x");
        let stride = |back: usize| p.stride[p.rank() - back];
        let rows = if p.rank() > 1 { format!("ry={} ", stride(2)) } else { String::new() };
        for form in ["gather", "gather aligned"] {
            check(text, &format!("{form} in-place oc=2 rx={} qx=8 along qx x4 block {zeros}", stride(1)));
            check(text, &format!("{form} in-place oc=2 {rows}rx={} qx=4 along qx x4 block {zeros}", stride(1)));
            if p.rank() > 1 {
                check(text, &format!("{form} in-place oc=2 {rows}rx={} qy=2 qx=4 along qx x4 block {zeros}", stride(1)));
            }
        }
    }
}

#[test]
fn gather_with_phases_of_two_axes_in_the_tile() {
    for text in PROBLEMS.iter().filter(|t| t.parse::<Deconv>().is_ok_and(|p| p.rank() > 1 && p.stride[p.rank() - 2] == 2)) {
        let p: Deconv = text.parse().expect("legal");
        let zeros = vec!["0"; p.rank()].join("x");
        for form in ["gather", "gather aligned"] {
            check(text, &format!("{form} panel oc=2 ry=2 rx={} qy=2 qx=4 along qx x4 block {zeros}", p.stride[p.rank() - 1]));
        }
    }
}

#[test]
fn gather_with_channels_along_the_lanes() {
    each(&[
        "gather panel qx=4 oc=4 along oc x4 block B",
        "gather panel rx=R qx=2 oc=8 along oc x4 block B",
        "gather in-place oc=4 along oc x4 block B",
        "gather in-place oc=8 along oc x4 block B parts 2",
    ]);
}

/// Input channels in parts, between which sums wait; taps bounded by the input, by rows and, in tiles that hold a row, one by one; both, for every axis that may lie along the lanes.
#[test]
fn reductions_in_parts_and_bounded_taps() {
    for text in [
        "2d n2 6x5x4 -> 5 k4 s2 p1 bias relu",
        "2d n1 4x3x7 -> 6 k3 s2 p1 op1 g2",
        "1d n1 6x9 -> 4 k5 s3 p1 bias",
        "3d n1 4x2x3x4 -> 3 k4 s2 p1",
    ] {
        let p: Deconv = text.parse().expect("legal");
        let (rank, stride) = (p.rank(), p.stride[p.rank() - 1]);
        let (whole, small) = (vec!["0"; rank].join("x"), [&vec!["1"; rank - 1][..], &["8"]].concat().join("x"));
        for (channels, block) in [(1, &whole), (2, &whole), (2, &small)] {
            for tile in [
                "qx=4 oc=4 along oc x4",
                "oc=3 qx=4 along qx x4",
                &format!("oc=2 rx={stride} qx=4 along qx x4"),
                &format!("rx={stride} qx=2 oc=4 along oc x4"),
                &format!("rx={stride} qx=4 oc=4 along oc x4"),
            ] {
                for bounded in ["", "bounded "] {
                    check(text, &format!("gather {bounded}panel {tile} block {block} reduction {channels}"));
                }
            }
            check(text, &format!("gather in-place oc=4 along oc x4 block {whole} reduction {channels}"));
            check(text, &format!("gather aligned in-place oc=2 rx={stride} qx=4 along qx x4 block {block} reduction {channels}"));
            check(text, &format!("gather bounded panel qx=4 oc=4 along oc x4 block {block} reduction {channels} parts 2"));
            check(&format!("{text} nhwc"), &format!("gather bounded panel qx=4 oc=4 along oc x4 block {block} reduction {channels}"));
        }
    }
    check("1d n1 4x21 -> 2 k32 s16 p8", "gather aligned panel qx=2 rx=16 along rx x4 block 0 reduction 2");
    // Found by random plans: no loop left around the sum; one row of taps, whose end depends on the phase.
    check("2d n1 4x1x1 -> 1 k1 s3x1 p1x0 pe-1x0", "gather bounded panel qx=8 oc=4 along oc x4 block 0x0 reduction 2");
    check("2d n1 1x2x3 -> 1 k5 s2 pe3x0 op1x0", "gather bounded panel qx=4 oc=4 along oc x4 block 0x0");
    check("1d n1 7x1 -> 7 k1 g7 nhwc", "gather panel g=8 along g x4 block 0");
    // Weights that look like a copy between orders, of which rows and columns overlap; positions that a table counts.
    check("2d n1 1x1x1 -> 1 k1x4 s1x3", "gather panel qy=2 qx=5 oc=4 along oc x4 block 0x0");
    check("2d n1 1x1x1 -> 1 k5x2 s4x1 p1x0 pe0", "gather panel ry=4 qx=4 along qx x4 block 0x0");
}

/// Channels last: rows of the panel are turned on the way, and outputs leave in pieces, with channels that fill pieces and channels that do not.
#[test]
fn columns_along_the_lanes_channels_last() {
    for channels in ["3x5x9 -> 4", "5x4x11 -> 6", "8x3x9 -> 8", "1x5x9 -> 3"] {
        for (kernel, block) in [("k4 s2 p1", "0x0"), ("k4 s2 p1", "2x8"), ("k3 s2 p1 op1 bias relu", "4x0"), ("k2 s2", "0x0")] {
            for tile in ["oc=4 rx=2 qx=4", "oc=3 qx=8", "oc=2 rx=2 qy=2 qx=4"] {
                check(&format!("2d n2 {channels} {kernel} nhwc"), &format!("gather panel {tile} along qx x4 block {block}"));
            }
        }
    }
}

/// Windows whose channels leave together, where parts of the channels begin at multiples of what is stored at once, and where they do not.
#[test]
fn windows_channels_last_in_parts() {
    for (held, tile, parts) in [(20, 5, 2), (8, 4, 2), (8, 8, 2), (6, 3, 3), (24, 12, 2)] {
        let plan = format!("gather aligned panel winograd 3x2 held {held} oc={tile} qw=4 along qw x4 block 0x0 parts {parts}");
        check("2d n1 5x4x7 -> 24 k4 s2 p1 nhwc bias", &plan);
    }
}

#[test]
fn groups_along_the_lanes() {
    for problem in ["2d n2 5x4x9 -> 5 k4 s2 p1 g5 nhwc bias", "2d n1 8x5x7 -> 8 k3 s2 p1 op1 g8 nhwc relu", "2d n1 6x3x5 -> 6 k3 s3 d2 g6"]
    {
        for tile in ["qx=2 g=4", "rx=R qx=2 g=4", "qy=2 qx=2 g=8"] {
            for block in ["0x0", "2x4"] {
                let p: Deconv = problem.parse().expect("legal");
                let tile = tile.replace('R', &p.stride[1].to_string());
                check(problem, &format!("gather panel {tile} along g x4 block {block}"));
            }
        }
    }
    check("1d n2 5x13 -> 5 k4 s2 g5 nhwc", "gather panel rx=2 qx=2 g=4 along g x4 block 0");
    check("3d n1 5x2x3x4 -> 5 k3 s2 g5 nhwc", "gather panel qz=2 qx=2 g=4 along g x4 block 0x0x0");
}

#[test]
fn without_lanes() {
    each(&["gather panel along qx x1 block B", "gather in-place along qx x1 block B", "scatter in-place along kx x1 block B"]);
}

#[test]
fn scatter_with_lanes() {
    each(&["scatter in-place oc=2 kx=4 along kx x4 block B", "scatter in-place oc=4 along oc x4 block B"]);
}

#[test]
fn phases_along_the_lanes() {
    check("1d n1 3x40 -> 4 k16 s8 p4", "gather aligned panel qx=3 rx=4 along rx x4 block 0");
    check("2d n1 2x3x9 -> 3 k8x16 s4x8 p2x0", "gather aligned panel qx=2 rx=8 along rx x4 block 0x0");
}

#[test]
fn rows_in_place() {
    // One tile whose taps are written out: the guards of the pixels are known, and still no taps that a phase lacks.
    check("1d n1 5x12 -> 1 k7 p1", "gather in-place qx=16 along qx x4 block 0");
    check("1d n1 5x12 -> 1 k7 p1", "gather in-place qx=8 along qx x4 block 8");
    check("1d n1 3x40 -> 2 k16 s8", "gather in-place oc=2 rx=8 qx=4 along qx x4 block 0");
    check("1d n1 3x40 -> 2 k16 s8 p4 bias", "gather aligned in-place rx=8 qx=8 along qx x4 block 16");
}

/// Checks plans with windows of a channels-first problem, and of the same one channels last.
fn windows_in_both_layouts(text: &str, outputs: &str, block: &str, tiles: &[&str]) {
    for text in [text.to_string(), format!("{text} nhwc")] {
        for tile in tiles {
            check(&text, &format!("gather aligned panel winograd {outputs} {tile} x4 block {block}"));
        }
    }
}

/// Coefficients are halves at most, so integers stay exact here, too.
#[test]
fn windows_transformed() {
    let whole = [
        ("1d n1 3x40 -> 4 k16 s8 p4", "3"),
        ("1d n2 3x13 -> 4 k4 s2 p1 relu", "2"),
        ("2d n1 5x6x7 -> 7 k4 s2 p1", "3x3"),
        ("2d n1 5x6x7 -> 7 k4 s2 p1 bias leaky_relu(0.25)", "2x3"),
        ("2d n1 5x6x7 -> 7 k3 s2 p1 op1 bias relu", "3x3"),
        ("2d n1 3x5x9 -> 4 k3 s1 p1", "2x2"),
        ("2d n2 4x5x9 -> 4 k3 s2 p1 d2 g2", "2x2"),
        ("2d n1 3x5x9 -> 2 k2 s3 p0", "2x1"),
        // Windows that interleave: along both axes, one of them; beside phases without a tap; with fewer pixels than a position is wide at the end.
        ("2d n1 3x5x9 -> 4 k3 s1 p1 d2", "2x1"),
        ("2d n1 3x4x9 -> 4 k3 s1x2 p0x1 d3x1", "1x3"),
        ("2d n2 4x5x9 -> 4 k2 s2 p3 d4 g2 bias relu", "2x2"),
        ("1d n1 3x11 -> 4 k2 s1 p2 d4 op3", "3"),
        ("3d n1 3x3x4x5 -> 4 k2x3x2 s1 p0 d2x1x2", "2x2x3"),
        ("2d n1 3x5x9 -> 2 k5 s3 p4", "3x2"),
        ("2d n1 3x5x9 -> 2 k3 s2 p-1 pe2", "1x3"),
        ("2d n1 3x1x9 -> 2 k3 s2 p1", "1x3"),
        ("2d n1 3x5x9 -> 2 k3x4 s1x2 p1 nhwc", "2x3"),
        ("2d n1 1x2x1 -> 1 k2x1", "2x1"),
        ("3d n1 3x3x4x5 -> 4 k4 s2 p1", "3x3x3"),
        ("3d n1 3x3x4x5 -> 4 k2x3x4 s2x1x2 p0", "2x2x3"),
    ];
    for (text, outputs) in whole {
        let block = vec!["0"; text.parse::<Deconv>().expect("legal").rank()].join("x");
        for (held, tile, parts) in [(2, "oc=2 qw=8", ""), (6, "oc=3 qw=4", " parts 2"), (4, "qw=4", "")] {
            check(text, &format!("gather aligned panel winograd {outputs} held {held} {tile} along qw x4 block {block}{parts}"));
        }
        // Channels-last, channels lie along the lanes in every step.
        let last = if text.contains("nhwc") { text.to_string() } else { format!("{text} nhwc") };
        for (held, tile, parts) in [(4, "oc=4 qw=3", ""), (8, "oc=4 qw=5", ""), (8, "oc=8", " parts 2"), (16, "oc=8 qw=2", "")] {
            for text in [text, &last] {
                check(text, &format!("gather aligned panel winograd {outputs} held {held} {tile} along oc x4 block {block}{parts}"));
            }
        }
    }
    // Taps along x that are summed with the channels: phases alike, of different taps, without any, with starts of their own; groups; in three dimensions.
    let summed = [
        ("2d n1 5x6x7 -> 3 k4 s2 p1 bias relu", "3x1", "0x0"),
        ("2d n2 4x7x13 -> 4 k3 s1 p1 g2", "2x1", "4x8"),
        ("2d n1 3x5x9 -> 2 k3 s2 p0", "3x1", "3x0"),
        ("2d n1 3x5x9 -> 2 k4x5 s2x3 p1x2 op1", "2x1", "0x6"),
        ("2d n1 3x5x9 -> 2 k4x2 s2x3 p1x0", "3x1", "0x0"),
        ("2d n1 3x5x9 -> 2 k3x5 s1 p1x2 d2x1", "2x1", "0x4"),
        ("2d n1 3x5x9 -> 2 k3x3 s1x2 p1 d1x2", "2x1", "0x0"),
        ("2d n1 3x5x9 -> 2 k3x2 s1 p1x2 d1x3", "2x1", "0x0"),
        ("3d n1 3x3x4x9 -> 2 k4 s2 p1", "3x3x1", "3x0x0"),
        ("3d n1 3x3x4x9 -> 2 k3x4x5 s1x2x2 p1", "1x3x1", "0x0x0"),
    ];
    for (text, outputs, block) in summed {
        windows_in_both_layouts(
            text,
            outputs,
            block,
            &["held 2 oc=2 qw=8 along qw", "held 4 oc=1 qw=4 along qw", "held 4 oc=4 qw=5 along oc"],
        );
    }
    for rest in ["by-phase fx=2 oc=2 qw=4", "fy=2 fx=2 oc=2 qw=8"] {
        check("2d n1 5x6x7 -> 3 k4 s2 p1 bias", &format!("gather aligned panel winograd 3x1 held 2 {rest} along qw x4 block 3x0"));
    }
    // One phase after the other: along one axis or two, beside an axis whose phases differ, beside one with windows that interleave; blocks; more phases than two.
    let by_phase = [
        ("2d n1 5x6x7 -> 7 k4 s2 p1 bias leaky_relu(0.25)", "2x3", "0x0"),
        ("2d n2 4x9x9 -> 4 k4x3 s2 p1 g2", "3x2", "6x0"),
        ("2d n1 3x5x20 -> 4 k4x3 s2x1 p1x2 d1x2", "3x2", "0x6"),
        ("2d n1 2x5x4 -> 2 k8x6 s4x3 p2", "2x3", "4x0"),
        ("3d n1 3x3x4x5 -> 4 k4 s2 p1 relu", "3x3x3", "0x0x0"),
        ("3d n1 3x7x4x5 -> 4 k4x3x4 s2x1x2 p1", "3x2x3", "3x0x0"),
    ];
    for (text, outputs, block) in by_phase {
        let tiles = ["held 4 by-phase oc=2 qw=8 along qw", "held 8 by-phase oc=4 qw=5 along oc", "held 2 by-phase fx=2 oc=2 qw=4 along qw"];
        // Phases along x that share a window.
        let fit = if text.contains("k4 ") { 3 } else { 2 };
        windows_in_both_layouts(text, outputs, block, &tiles[..fit]);
    }
    // Parts of the channels that are no multiple of those that are held; groups.
    for vector in ["oc=4 qw=4 along qw", "oc=4 qw=3 along oc"] {
        check("2d n1 3x5x9 -> 44 k4 s2 p1", &format!("gather aligned panel winograd 3x3 held 12 {vector} x4 block 0x0 parts 2"));
        for layout in ["", " nhwc"] {
            check(
                &format!("2d n2 4x5x9 -> 20 k4 s2 p1 g2{layout}"),
                &format!("gather aligned panel winograd 3x3 held 8 {vector} x4 block 0x0 parts 2"),
            );
            check(
                &format!("2d n2 18x5x9 -> 20 k4 s2 p1 g2{layout}"),
                &format!("gather aligned panel winograd 3x3 held 8 {vector} x4 block 0x0"),
            );
        }
    }
    // More taps than a level has registers for at once.
    check("1d n1 2x7 -> 2 k32 s16", "gather aligned panel winograd 2 held 2 oc=2 qw=4 along qw x4 block 0");
    let blocked = [
        ("2d n1 3x9x5 -> 3 k4 s2 p1", "3x3", "3x0"),
        ("2d n2 3x9x20 -> 3 k4 s2 p1", "3x2", "6x8"),
        ("1d n1 3x50 -> 3 k4 s2 p1", "3", "12"),
        // Rows of a block that end within a vector.
        ("2d n1 3x5x40 -> 3 k4 s2 p1", "3x3", "0x6"),
        ("2d n2 3x9x41 -> 3 k4 s2 p1 op1", "3x2", "6x10"),
        ("1d n1 3x50 -> 3 k6 s3 p2", "3", "15"),
        // Positions that are several pixels wide.
        ("2d n2 3x9x41 -> 3 k3 s1 p2 d2", "2x2", "4x10"),
        ("2d n1 3x7x41 -> 3 k3x2 s2 p1 d6x2 op1x0", "2x3", "2x6"),
        ("1d n1 3x50 -> 3 k3 s1 p5 d3", "2", "10"),
    ];
    check("2d n1 3x9x20 -> 3 k4 s2 p1", "gather aligned panel winograd 3x2 held 2 oc=2 qw=8 along qw x4 block 6x8 stream");
    for (text, outputs, block) in blocked {
        check(text, &format!("gather aligned panel winograd {outputs} held 2 oc=2 qw=8 along qw x4 block {block}"));
        if !text.contains("nhwc") {
            for vector in ["qw=8 along qw", "qw=5 along oc"] {
                let plan = format!("gather aligned panel winograd {outputs} held 4 oc=4 {vector} x4 block {block}");
                check(&format!("{text} nhwc"), &plan);
            }
        }
    }
}

#[test]
fn windows_that_are_not_legal() {
    let refused = [
        ("2d n1 3x5x9 -> 4 k3 s2 p1 d3", "2x2", "", "0x0", "neighbouring"),
        ("2d n1 3x5x9 -> 4 k4 s2 p1", "8x8", "", "0x0", "points"),
        ("2d n1 3x5x9 -> 4 k4 s2 p1", "3x3", "", "4x0", "whole windows"),
        ("2d n1 3x1x9 -> 4 k1x4 s1x2 p0x1", "2x3", "", "0x0", "one position"),
        ("2d n1 3x?x9 -> 4 k4 s2 p1", "3x3", "", "0x0", "run-time"),
        ("2d n1 3x5x9 -> 4 k3x4 s2 p1", "3x3", "by-phase", "0x0", "legal: without `by-phase`"),
        ("2d n1 3x5x9 -> 4 k2 s3", "3x2", "by-phase", "0x0", "legal: without `by-phase`"),
        ("1d n1 3x9 -> 4 k4 s2 p1", "3", "by-phase", "0", "legal: without `by-phase`"),
        ("2d n1 3x5x9 -> 4 k4 s2 p1", "3x3", "by-phase fy=2", "0x0", "none, since they go one by one"),
    ];
    for (text, outputs, more, block, why) in refused {
        let p: Deconv = text.parse().expect("legal");
        let plan: Plan =
            format!("gather aligned panel winograd {outputs} held 2 {more} oc=2 qw=8 along qw x4 block {block}").parse().expect("legal");
        let e = snapshots(&p, &plan).err().unwrap_or_else(|| panic!("{text} was lowered"));
        assert!(e.to_string().contains(why), "{text}: {e}");
    }
}

/// Plans that altered candidates have found: what no pass can do is refused before any pass is asked.
#[test]
fn plans_that_are_not_legal() {
    let refused = [
        ("1d n1 1x3 -> 1 k4 s4 p1", "gather panel qx=10 rx=4 along rx x4 block 0", "the same window"),
        ("2d n1 1x4x8 -> 2 k4 s2 p1", "gather aligned panel winograd 2x3 held 2 qw=4 along qw x4 block 0x0 parts 2", "one channel each"),
    ];
    for (text, plan, why) in refused {
        let p: Deconv = text.parse().expect("legal");
        let w = vec![1.0f32; p.weight_shape().iter().product()];
        let options = Options { plan: Some(plan.parse().expect("legal")), ..Options::default() };
        let e = p.compile(&w, None, &options).err().unwrap_or_else(|| panic!("{text} was compiled by {plan}"));
        assert!(e.to_string().contains(why), "{text}: {e}");
    }
    let p: Deconv = "1d n1 2x3 -> 2 k4 s2 p1".parse().expect("legal");
    let plan: Plan = "gather panel oc=2 qx=4 along qx x4 block 0".parse().expect("legal");
    let options = Options { plan: Some(Plan { channel_parts: 0, ..plan }), ..Options::default() };
    assert!(p.compile(&[1.0f32; 16], None, &options).is_err_and(|e| e.to_string().contains("parts are 0")));
}

/// Parallel loops are legal in `prepare`, too; `explain` once ran the first of their iterations only.
#[test]
fn parallel_loops_of_prepare_run_to_their_end() {
    let p: Deconv = "1d n1 3x9 -> 8 k4 s2 p1".parse().expect("legal");
    let plan = "gather panel oc=4 along oc x4 block 0".parse().expect("legal");
    let vector = snapshots(&p, &plan).expect("the plan is legal").into_iter().find(|s| s.pass == "vector");
    let mut func = vector.expect("there is a pass vector").func;
    let [Stmt::For(outermost)] = &mut func.prepare[..] else { panic!("prepare is one nest:\n{func}") };
    assert!(outermost.const_range().is_some_and(|(lo, hi)| hi - lo > 1), "one iteration:\n{func}");
    outermost.kind = LoopKind::Par;
    let report = polyphase::explain::ir::function("par", &func, &[], None).expect("it verifies and runs");
    assert!(report.equal_to_interpreter, "{:?}", report.first_difference);
}
