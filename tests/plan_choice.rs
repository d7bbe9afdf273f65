//! The plan of every benchmark layer on every known processor, on whatever machine the test runs: `tests/plan_choice/`.
//!
//! Rates are fitted to timings on one processor and must not cost another its plans. A change of the cost model shows here which plans it
//! moves; `POLYPHASE_BLESS=1 cargo test --test plan_choice` accepts them, after the benchmark has said that they are better.

#![cfg(target_arch = "x86_64")]

use polyphase::codegen::target::Isa;
use polyphase::ir::{Buffer, BufferKind, Stmt};
use polyphase::passes::lower_problem;
use polyphase::plan::{Algorithm, Plan, Processor, Version, cheapest, choose, packed_bytes, packs_alike, versions};
use polyphase::problem::{Extent, text};
use polyphase::{Layout, Options};
use std::fmt::Write as _;
use std::path::Path;

/// What is chosen for a processor: a section for each level and layout, a line for each layer.
fn chosen(processor: Processor) -> String {
    let layers = text::parse_json(include_str!("../benches/layers.json")).expect("the layers are readable");
    let options = Options { processor: Some(processor), ..Options::default() };
    let mut out = String::new();
    let levels = if processor == Processor::ZEN_3 { vec![Isa::Avx2] } else { vec![Isa::Avx512, Isa::Avx2] };
    for isa in levels {
        for (layout, order) in [(Layout::ChannelsFirst, "channels first"), (Layout::ChannelsLast, "channels last")] {
            writeln!(out, "# {}, {order}", isa.name()).unwrap();
            for layer in &layers {
                let mut problem = layer.problem.clone();
                problem.layout = layout;
                let choice = choose(&problem, isa, &options, true).unwrap_or_else(|e| panic!("{}: {e}", layer.name));
                let lowered = lower_problem(&problem, &choice.plan);
                assert!(lowered.is_ok(), "{}: {}: {}", layer.name, choice.plan, lowered.unwrap_err());
                writeln!(out, "{}: {}", layer.name, choice.plan).unwrap();
            }
        }
    }
    out
}

fn unchanged(processor: Processor) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plan_choice/{}.txt", processor.name));
    let now = chosen(processor);
    if std::env::var_os("POLYPHASE_BLESS").is_some() {
        return std::fs::write(&path, now).expect("the file can be written");
    }
    let before = std::fs::read_to_string(&path).expect("the file is there");
    assert_eq!(before.lines().count(), now.lines().count(), "another number of layers");
    let moved: Vec<String> = before.lines().zip(now.lines()).filter(|(b, n)| b != n).map(|(b, n)| format!("- {b}\n+ {n}")).collect();
    assert!(moved.is_empty(), "{}: {} plans moved\n{}", processor.name, moved.len(), moved.join("\n"));
}

#[test]
fn plans_for_zen_3() {
    unchanged(Processor::ZEN_3);
}

#[test]
fn plans_for_zen_4() {
    unchanged(Processor::ZEN_4);
}

#[test]
fn plans_for_zen_5() {
    unchanged(Processor::ZEN_5);
}

#[test]
fn plans_for_cascade_lake() {
    unchanged(Processor::CASCADE_LAKE);
}

#[test]
fn plans_for_servers_of_intel() {
    unchanged(Processor::INTEL_SERVER);
}

/// At a size for which there is a plan that one runs. Predictions were once carried over from the sizes of the other plans: images of 8x8 ran that for 16x16,
/// at three quarters of the speed.
#[test]
fn plans_of_open_extents_run_at_their_own_sizes() {
    let options = Options { processor: Some(Processor::ZEN_4), packing_limit: Some(usize::MAX), ..Options::default() };
    for (text, lengths) in [("2d n1 1024x?x? -> 512 k4 s2 p1", 6), ("2d n1 256x?x? -> 256 k4 s2 p1", 9)] {
        let problem: polyphase::Deconv = text.parse().expect("legal");
        let all = versions(&problem, Isa::Avx512, &options, true).expect("there are plans");
        assert_eq!(all.len(), lengths, "{text}");
        for (i, version) in all.iter().enumerate() {
            let taken = cheapest(all.iter(), &version.typical);
            assert_eq!(taken, i, "{text}: at {:?} the plan for {:?} would run", version.typical, all[taken].typical);
        }
    }
}

/// A layer of 32 MiB of weights had six packings of 870 MB together.
#[test]
fn packings_of_open_extents_are_few() {
    let problem: polyphase::Deconv = "2d n1 1024x?x? -> 512 k4 s2 p1".parse().expect("legal");
    let packings = |packing_limit| {
        let options = Options { processor: Some(Processor::ZEN_4), packing_limit, ..Options::default() };
        let mut all = versions(&problem, Isa::Avx512, &options, true).expect("there are plans");
        let mut different: Vec<&mut Version> = Vec::new();
        for v in &mut all {
            if !different.iter().any(|first| packs_alike(&first.choice.plan, &v.choice.plan)) {
                different.push(v);
            }
        }
        different.iter_mut().map(|v| packed_bytes(&v.lower(&problem).expect("the plan is legal")) >> 20).collect::<Vec<_>>()
    };
    assert!(packings(None).iter().sum::<usize>() <= 320, "{:?}", packings(None));
    assert!(packings(Some(usize::MAX)).iter().sum::<usize>() > 512, "{:?}", packings(Some(usize::MAX)));
    assert_eq!(packings(Some(0)).len(), 1);
}

/// Pixels of three channels took a cache line each: 4.2 MiB for a panel that the plan had counted as 804 KiB.
#[test]
fn pixels_of_few_channels_lie_close_in_a_panel() {
    let problem = "2d n1 3x512x512 -> 64 k7 s2 p3 nhwc".parse().expect("legal");
    let options = Options { processor: Some(Processor::ZEN_4), algorithm: Some(Algorithm::Direct), ..Options::default() };
    let plan = choose(&problem, Isa::Avx512, &options, true).expect("there is a plan").plan;
    assert!(plan.panel && plan.vector == "oc", "{plan}");
    let func = lower_problem(&problem, &plan).expect("the plan is legal");
    let panel = func.buffers.iter().find(|b| b.kind == BufferKind::Scratch).expect("the plan has a panel");
    let extents: Vec<i64> = panel.dims.iter().map(|d| d.as_const().expect("extents are known")).collect();
    assert_eq!(extents[0], 3, "{extents:?}");
    assert!(extents.iter().product::<i64>() * 4 <= 1 << 20, "{extents:?}");
}

/// Layers that no rate was fitted to: what is chosen can be done, and takes no more memory than it may.
#[test]
fn other_layers_have_plans_within_the_limits() {
    let layers = text::parse_json(include_str!("../benches/other_layers.json")).expect("the layers are readable");
    assert_eq!(layers.len(), 172);
    for processor in Processor::KNOWN {
        let options = Options { processor: Some(processor), ..Options::default() };
        for layer in &layers {
            let choice = choose(&layer.problem, Isa::Avx512, &options, true).unwrap_or_else(|e| panic!("{}: {e}", layer.name));
            let func = lower_problem(&layer.problem, &choice.plan).unwrap_or_else(|e| panic!("{}: {}: {e}", layer.name, choice.plan));
            // Of some, the places overlap when their work is done.
            let bytes = |b: &Buffer| b.dims.iter().map(|d| d.as_const().expect("extents are known")).product::<i64>() * 4;
            let scratch: i64 = func.buffers.iter().filter(|b| b.kind == BufferKind::Scratch).map(bytes).sum();
            assert!(scratch <= 8 << 20, "{}: {}: {scratch} bytes", layer.name, choice.plan);
        }
    }
}

/// What sizes share is packed once. Plans with bounded rows of taps were said to pack as others do, which read the rows inside the sum over channels.
#[test]
fn plans_that_are_said_to_pack_alike_do() {
    for layer in text::parse_json(include_str!("../benches/layers.json")).expect("the layers are readable") {
        for limit in [0, usize::MAX] {
            let mut problem = layer.problem.clone();
            problem.input.iter_mut().enumerate().for_each(|(a, e)| *e = Extent::Open(["A", "B", "C"][a].into()));
            let options = Options { processor: Some(Processor::ZEN_4), packing_limit: Some(limit), ..Options::default() };
            let mut before: Vec<(Plan, Vec<Stmt>, Vec<Buffer>)> = Vec::new();
            for version in &mut versions(&problem, Isa::Avx512, &options, true).expect("there are plans") {
                let func = version.lower(&problem).expect("the plan is legal");
                let packed: Vec<Buffer> = func.buffers.iter().filter(|b| b.kind == BufferKind::Packed).cloned().collect();
                let plan = &version.choice.plan;
                if let Some((alike, prepare, buffers)) = before.iter().find(|(p, ..)| packs_alike(p, plan)) {
                    assert!(*prepare == func.prepare && *buffers == packed, "{}: '{plan}' does not pack as '{alike}'", layer.name);
                }
                before.push((plan.clone(), func.prepare, packed));
            }
        }
    }
}

/// Parts of the channels transform their windows again; blocks do not, where there are enough of them or they can be shorter.
#[test]
fn threads_share_blocks_of_windows_rather_than_channels() {
    let plan = |text: &str, threads: usize| {
        let options = Options { processor: Some(Processor::ZEN_4), algorithm: Some(Algorithm::Winograd), threads, ..Options::default() };
        choose(&text.parse().expect("legal"), Isa::Avx512, &options, true).expect("there is a plan").plan
    };
    let parts = |text: &str, threads: usize| plan(text, threads).channel_parts;
    let dilated = "2d n1 64x64x64 -> 64 k3 s1 p2 d2";
    assert_eq!((parts(dilated, 1), parts(dilated, 2)), (1, 1));
    assert!(parts(dilated, 64) > 1, "five blocks are too few for 64 threads");
    // Parts are whole tiles.
    let few = plan("2d n1 64x32x32 -> 3 k4 s2 p1", 64);
    assert!(few.channel_parts <= 3usize.div_ceil(few.extent("oc")), "{few}");
    let problem: polyphase::Deconv = dilated.parse().expect("legal");
    let e = choose(&problem, Isa::Avx512, &Options { threads: usize::MAX, ..Options::default() }, true).unwrap_err();
    assert!(e.message.ends_with("threads; at most 1024 are legal"), "{e}");
    let (one, two) = (plan("1d n1 256x800 -> 128 k16 s8 p4", 1), plan("1d n1 256x800 -> 128 k16 s8 p4", 2));
    assert_eq!((one.tile, one.winograd, two.channel_parts), (two.tile, two.winograd, 1));
    assert!(two.block[0] < one.block[0], "{:?} {:?}", one.block, two.block);
}

/// Lengths that the caller names are taken as they are; others stand for all up to the next.
#[test]
fn lengths_that_are_named_get_their_closed_plan() {
    let plan = |text: &str, typical: Vec<Vec<usize>>| {
        let options = Options { processor: Some(Processor::ZEN_4), typical, ..Options::default() };
        let problem: polyphase::Deconv = text.parse().expect("legal");
        let plan = choose(&problem, Isa::Avx512, &options, true).expect("there is a plan").plan;
        Plan { block: Default::default(), ..plan }
    };
    let closed = plan("1d n1 512x150 -> 256 k16 s8 p4", vec![]);
    assert_eq!(plan("1d n1 512x? -> 256 k16 s8 p4", vec![vec![150]]), closed);
}

#[test]
fn processors_differ_and_have_names() {
    let plans = Processor::KNOWN.map(chosen);
    for (at, some) in plans.iter().enumerate() {
        assert!(!plans[..at].contains(some), "{} has the plans of another", Processor::KNOWN[at].name);
    }
    for p in Processor::KNOWN {
        assert_eq!(Processor::named(p.name), Ok(p));
    }
    assert_eq!(Processor::named("this"), Ok(Processor::this()));
    let e = Processor::named("zen\n").unwrap_err();
    assert_eq!(e.message, "no processor is called 'zen\\n'; legal: this, zen3, zen4, zen5, cascade-lake, intel-server");
}

/// A length of 100 ran in two blocks of the plan for 64, which read 21 MB of weights twice. Where that is not so, rows of panels stay as close as they were.
#[test]
fn blocks_of_open_extents_hold_more_than_their_own_size() {
    let block = |text: &str, typical: &[usize]| {
        let options = Options { processor: Some(Processor::ZEN_4), ..Options::default() };
        let all = versions(&text.parse().expect("legal"), Isa::Avx512, &options, true).expect("there are plans");
        let version = all.iter().find(|v| v.typical == typical).expect("a version for that size");
        version.choice.plan.block.to_vec()
    };
    let sequence = block("1d n1 512x? -> 256 k16 s8 p4", &[64]);
    assert!(sequence[0] > 100, "{sequence:?}");
    let volume = block("3d n1 256x?x?x? -> 128 k2 s2", &[16, 16, 16]);
    assert_eq!(volume[2], 16, "{volume:?}");
}

/// A layer of one output channel reads few rows at a time, from end to end: in place, a few channels in each part of the reduction. Where extents come at run
/// time its rows are as long; blocks of the typical size cut them into pieces.
#[test]
fn rows_of_few_channels_are_read_from_end_to_end() {
    let options = |processor| Options { processor: Some(processor), ..Options::default() };
    let plan = |text: &str, processor| {
        choose(&text.parse().expect("legal"), Isa::Avx512, &options(processor), true).expect("there is a plan").plan
    };
    for text in ["1d n1 512x4000 -> 1 k16 s8", "2d n1 64x320x320 -> 1 k2 s2", "3d n1 64x64x64x64 -> 1 k2 s2"] {
        let streamed = plan(text, Processor::CASCADE_LAKE);
        assert!(!streamed.panel && streamed.reduction == 8 && streamed.block.last() == Some(&0), "{text}: {streamed}");
        // Where that was not timed there is no such plan.
        assert_eq!(plan(text, Processor::ZEN_4).reduction, 0, "{text}");
    }
    // Threads share them out in pieces that are long enough.
    let shared = Options { threads: 8, ..options(Processor::CASCADE_LAKE) };
    let sequence = choose(&"1d n1 512x4000 -> 1 k16 s8".parse().expect("legal"), Isa::Avx512, &shared, true).expect("there is a plan").plan;
    assert!(sequence.block[0] >= 512, "{sequence}");
    // Many output channels would wait too long, and few pixels are in a cache.
    for text in ["1d n1 512x4000 -> 256 k16 s8", "1d n1 512x100 -> 1 k16 s8"] {
        assert_eq!(plan(text, Processor::CASCADE_LAKE).reduction, 0, "{text}");
    }
    let open = versions(&"2d n1 64x?x? -> 1 k2 s2".parse().expect("legal"), Isa::Avx512, &options(Processor::CASCADE_LAKE), true)
        .expect("there are plans");
    let version = &open[cheapest(open.iter(), &[320, 320])].choice.plan;
    assert!(version.reduction == 8 && version.block[1] >= 320, "{version}");
}

/// Patches of many phases and few channels leave registers for several pixels, and small planes of many channels are not read in place: a tile of all phases of a row
/// and one vector of pixels was 0.6 times as fast.
#[test]
fn patches_share_their_weights_among_pixels() {
    let options = Options { processor: Some(Processor::CASCADE_LAKE), ..Options::default() };
    for text in
        ["2d n1 512x16x16 -> 3 k16 s16", "2d n1 768x14x14 -> 3 k16 s16", "2d n1 192x14x14 -> 3 k8 s8", "2d n1 384x16x16 -> 3 k14 s14"]
    {
        let plan = choose(&text.parse().expect("legal"), Isa::Avx512, &options, true).expect("there is a plan").plan;
        assert!(plan.panel && plan.extent("qy") > 1, "{text}: {plan}");
    }
}

/// Where outputs crowd a panel out of the second level it is smaller, of whole rows; the versions of open extents have rows of up to 256 pixels.
#[test]
fn panels_leave_room_for_outputs() {
    let plan = |processor: Processor| {
        let options = Options { processor: Some(processor), ..Options::default() };
        choose(&"2d n1 64x160x160 -> 64 k2 s2".parse().expect("legal"), Isa::Avx512, &options, true).expect("there is a plan").plan
    };
    let bytes = |plan: &Plan| 64 * 4 * 160 * plan.block[0];
    let [roomy, usual] = [Processor::CASCADE_LAKE, Processor::ZEN_4].map(plan);
    assert!(roomy.block[1] == 0 && bytes(&roomy) <= Processor::CASCADE_LAKE.caches[1] / 8, "{roomy}");
    assert!(bytes(&usual) > Processor::ZEN_4.caches[1] / 8, "{usual}");
    let options = Options { processor: Some(Processor::CASCADE_LAKE), ..Options::default() };
    let open = versions(&"2d n1 64x?x? -> 64 k2 s2".parse().expect("legal"), Isa::Avx512, &options, true).expect("there are plans");
    for columns in [160, 184, 256] {
        let version = &open[cheapest(open.iter(), &[columns, columns])].choice.plan;
        assert!(version.block[1] >= columns, "{columns}: {version}");
    }
}

/// There are plans for what layers of models have to compute. Volumes of 64x64x64 with 512 channels, 4 TFLOP, had a plan, and packed weights whose memory 4x4x4 lacked;
/// between 16x16 and 32x32 there was none.
#[test]
fn typical_sizes_go_by_what_there_is_to_compute() {
    let of = |text: &str| {
        let options = Options { processor: Some(Processor::CASCADE_LAKE), ..Options::default() };
        versions(&text.parse().expect("legal"), Isa::Avx512, &options, true).expect("there are plans")
    };
    let volumes = of("3d n1 512x?x?x? -> 256 k4 s2 p1");
    assert!(volumes.iter().all(|v| v.typical[0] <= 8), "{:?}", volumes.iter().map(|v| &v.typical).collect::<Vec<_>>());
    let images = of("2d n1 256x?x? -> 256 k4 s2 p1");
    for size in [16, 24, 32, 64] {
        assert!(images.iter().any(|v| v.typical == [size, size]), "no version for {size}x{size}");
    }
    // Sequences have typical lengths only.
    assert!(of("1d n1 512x? -> 256 k16 s8 p4").iter().all(|v| v.typical[0].is_power_of_two()));
    // A size of neither kind: 0.57 of the closed layer's speed were predicted, and 0.42 measured, before there was a plan for 24x24.
    let closed = choose(
        &"2d n1 256x24x18 -> 256 k4 s2 p1".parse().expect("legal"),
        Isa::Avx512,
        &Options { processor: Some(Processor::CASCADE_LAKE), ..Options::default() },
        true,
    );
    let open = images[cheapest(images.iter(), &[24, 18])].cycles_at(&[24, 18]);
    let keeps = closed.expect("there is a plan").cost.cycles() / open;
    assert!(keeps > 0.7, "{keeps:.2}");
}

/// The layers with which the loss between typical sizes is measured.
#[test]
fn other_sizes_are_between_the_typical_ones() {
    let layers = text::parse_json(include_str!("../benches/other_sizes.json")).expect("the layers are readable");
    assert_eq!(layers.len(), 76);
    let typical = |e: &Extent| e.known().is_some_and(|e| e.is_power_of_two());
    let at_typical = layers.iter().filter(|l| l.problem.input.iter().all(typical)).map(|l| &l.name).collect::<Vec<_>>();
    assert_eq!(at_typical, ["gan3d_256-128_k4s2p1_4x4x4"]);
}

/// Which versions an open layer has, and which of them runs, does not depend on the number of threads.
#[test]
fn versions_of_open_layers() {
    let of = |text: &str, threads: usize| {
        let p: polyphase::Deconv = text.parse().expect("a layer");
        let options = Options { processor: Some(Processor::named("intel-server").expect("a processor")), threads, ..Options::default() };
        versions(&p, Isa::Avx512, &options, true).expect("there are plans")
    };
    for text in ["2d n? 1x?x? -> 1 k2x1 pe0x1 f64", "2d n1 16x?x? -> 8 k4 s2 p1", "1d n1 128x? -> 64 k8 s4 p2"] {
        let all = of(text, 1);
        for threads in [2, 8] {
            let shared = of(text, threads);
            assert_eq!(all.len(), shared.len(), "{text}");
            for (one, several) in all.iter().zip(&shared) {
                let (one, several) = (&one.choice.plan, &several.choice.plan);
                assert_eq!((&one.tile, &one.winograd, &one.vector), (&several.tile, &several.winograd, &several.vector), "{text}");
            }
            for at in [[9, 2], [31, 17], [100, 100]] {
                let at = &at[..all[0].typical.len()];
                assert_eq!(cheapest(all.iter(), at), cheapest(shared.iter(), at), "{text} at {at:?} on {threads} threads");
            }
        }
    }
}
