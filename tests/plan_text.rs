//! The text of plans: what prints parses back, what does not parse says what is legal; and the plan file that holds it.

use polyphase::codegen::target::Isa;
use polyphase::plan::tune::{PlanFile, Tuning, cpu, tune};
use polyphase::plan::{Algorithm, Form, Plan, TileAxis, Winograd, ranked};
use polyphase::{Deconv, Kind, Options};
use proptest::prelude::*;
use std::path::Path;

/// Any plan that the text can say, whether or not it suits a problem.
fn plans() -> impl Strategy<Value = Plan> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let block = prop::collection::vec(0usize..=1 << 20, 1..=3);
    (flags, block, 1usize..=1024, 0u32..=4, 1usize..=4, prop::collection::vec(1usize..=3, 0..3), any::<prop::sample::Index>()).prop_map(
        |((gather, aligned, panel, fma, stream), block, channel_parts, lanes, vectors, others, start)| {
            let axes = &["z", "y", "x"][3 - block.len()..];
            let vars: Vec<String> = ["oc", "g"]
                .map(String::from)
                .into_iter()
                .chain("qrki".chars().flat_map(|r| axes.iter().map(move |a| format!("{r}{a}"))))
                .collect();
            let (lanes, first) = (1 << lanes, start.index(vars.len()));
            let var = |i: usize| vars[(first + i) % vars.len()].as_str();
            let mut tile: Vec<TileAxis> = others.iter().enumerate().map(|(i, e)| TileAxis { var: var(i).into(), extent: *e }).collect();
            let vector = var(others.len());
            tile.push(TileAxis { var: vector.into(), extent: vectors * lanes });
            let form = if gather { Form::Gather } else { Form::Scatter };
            let (aligned, panel) = (aligned && gather, panel && gather);
            let (bounded, reduction) = (panel && fma, if stream { channel_parts } else { 0 });
            let vector = vector.into();
            let plan = Plan {
                form,
                aligned,
                panel,
                bounded,
                block: block.into(),
                reduction,
                channel_parts,
                winograd: None,
                tile: tile.into(),
                vector,
                lanes,
                fma,
                stream,
            };
            if stream && gather { with_windows(plan, vectors) } else { plan }
        },
    )
}

/// The plan with windows, and lanes along them.
fn with_windows(plan: Plan, outputs: usize) -> Plan {
    let winograd = Some(Winograd { outputs: vec![outputs; plan.block.len()].into(), held: 8 * outputs, by_phase: outputs > 1 });
    let tile = vec![TileAxis { var: "oc".into(), extent: outputs }, TileAxis { var: "qw".into(), extent: 2 * plan.lanes }];
    Plan { aligned: true, panel: true, winograd, tile: tile.into(), vector: "qw".into(), ..plan }
}

proptest! {
    #[test]
    fn what_prints_parses_back(plan in plans()) {
        let text = plan.to_string();
        prop_assert_eq!(text.parse::<Plan>().map_err(|e| e.message), Ok(plan));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = text.parse::<Plan>();
    }

    #[test]
    fn words_in_any_order_parse_to_what_prints_them_or_not_at_all(words in prop::collection::vec(prop::sample::select(vec![
        "gather", "scatter", "aligned", "panel", "in-place", "oc=6", "qx=32", "rx=2", "along", "qx", "oc", "x16", "x2", "block", "4x0", "0",
        "parts", "2", "no-fma", "stream", "bounded", "reduction", "winograd", "3", "held", "by-phase", "qw=16", "qw",
    ]), 0..12)) {
        let text = words.join(" ");
        if let Ok(plan) = text.parse::<Plan>() {
            prop_assert_eq!(plan.to_string(), text);
        }
    }
}

#[test]
fn every_candidate_parses_back() {
    let problems = [
        "1d n1 1026x224 -> 1 k1024 s256",
        "1d n? 64x? -> 32 k16 s8 p4 bias",
        "2d n1 512x4x4 -> 256 k4 s2 p1",
        "2d n4 21x16x16 -> 21 k64 s32 p16 g21",
        "2d n1 6x5x7 -> 4 k3x5 s2x1 d2x3 g2 mean nhwc f64",
        "3d n1 32x8x16x16 -> 16 k2 s2",
        "3d n1 32x8x16x16 -> 16 k4 s2 p1",
        "2d n1 64x?x64 -> 64 k4 s2 p1",
    ];
    for problem in problems {
        let problem: Deconv = problem.parse().unwrap();
        for isa in Isa::detected() {
            for options in [Options::default(), Options { threads: 2, stream: Some(true), ..Options::default() }] {
                for r in ranked(&problem, isa, &options, true) {
                    assert_eq!(r.plan.to_string().parse::<Plan>().unwrap(), r.plan, "{problem}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_parse_says_what_is_legal() {
    let cases = [
        ("", "`gather` or `scatter` is legal"),
        ("gathers", "`gathers` stands where `gather` or `scatter` is legal"),
        ("gather", "`panel` or `in-place`"),
        ("gather oc=4", "`oc=4` stands where `panel` or `in-place` is legal"),
        ("gather panel oc=4", "the text ends where along"),
        ("gather panel oc=4 qx along", "`qx` stands where a tile loop such as oc=6"),
        ("gather panel oc=0 along oc x4 block 0", "a number from 1 to 256"),
        ("gather panel oc=04 along oc x4 block 0", "`04`"),
        ("gather panel oc=99999999999999999999 along oc x4 block 0", "a number from 1 to 256"),
        ("gather panel oc=4 oc=4 along oc x4 block 0", "twice"),
        ("gather panel oc=4 along oc 4 block 0", "as in x16"),
        ("gather panel oc=4 along oc x3 block 0", "1, 2, 4, 8 and 16 are legal"),
        ("gather panel oc=6 along oc x4 block 0", "oc=6 is not a multiple of the 4 lanes"),
        ("gather panel oc=4 along qx x4 block 0", "along `qx`, which is no loop of the tile; legal: oc"),
        ("gather panel along qx x4 block 0", "the tile is empty"),
        ("gather panel oc=4 along oc x4", "the text ends where block is legal"),
        ("gather panel oc=4 along oc x4 block", "a list of block sizes"),
        ("gather panel oc=4 along oc x4 block 0x0x0x0", "has 4 sizes"),
        ("gather panel oc=4 along oc x4 block 4x-1", "`-1`"),
        ("gather panel oc=4 qy=2 along oc x4 block 0", "with 1 block sizes the legal loops are g, oc, qx, rx, kx, ix"),
        ("gather panel oc=4 along oc x4 block 0 parts 1", "a number from 2 to 1024"),
        ("gather panel oc=4 along oc x4 block 0 stream no-fma", "`no-fma` is left over"),
        ("gather panel oc=256 qx=256 along oc x16 block 0", "4096 vectors; at most 64"),
        ("gather panel oc=4 qw=16 along qw x16 block 0", "`qw`"),
        ("gather aligned panel winograd 3", "the text ends where held is legal"),
        ("gather aligned panel winograd 9 held 4 oc=4 qw=16 along qw x16 block 0", "a number from 1 to 8"),
        ("gather aligned panel winograd 3 held 0 oc=4 qw=16 along qw x16 block 0", "a number from 1 to 4096"),
        ("gather aligned panel winograd 3x3 held 4 oc=4 qw=16 along qw x16 block 0", "2 window sizes with 1 block sizes"),
        ("gather panel winograd 3 held 4 oc=4 qw=16 along qw x16 block 0", "windows need aligned phases"),
        ("scatter panel oc=4 along oc x4 block 0", "`scatter in-place`"),
    ];
    for (text, words) in cases {
        let e = text.parse::<Plan>().unwrap_err();
        assert_eq!(e.kind, Kind::Parse);
        assert!(e.message.contains(words), "{text}: {}", e.message);
    }
}

#[test]
fn options_come_from_json() {
    let plan = "gather aligned panel oc=6 rx=2 qx=32 along qx x16 block 4x0 parts 2 no-fma stream";
    let text = format!(r#"{{"threads": 2, "isa": null, "form": "gather", "plan": "{plan}", "stream": false}}"#);
    let options = Options::from_json(&text).unwrap();
    assert_eq!(options.plan.unwrap().to_string(), plan);
    assert_eq!((options.threads, options.form, options.stream), (2, Some(Form::Gather), Some(false)));
    for isa in Isa::detected() {
        assert_eq!(Options::from_json(&format!(r#"{{"isa": "{isa}"}}"#)).unwrap().isa, Some(isa));
    }
    let options = Options::from_json(r#"{"algorithm": "winograd", "rounding": 4.5}"#).unwrap();
    assert_eq!((options.algorithm, options.rounding), (Some(Algorithm::Winograd), 4.5));
    for empty in ["", " ", "null", "{}"] {
        assert_eq!(Options::from_json(empty).unwrap(), Options::default());
    }
}

#[test]
fn a_plan_that_contradicts_the_options_is_refused() {
    let p: Deconv = "1d n1 4x20 -> 4 k4 s2 p1".parse().unwrap();
    let w = vec![1.0f32; 4 * 4 * 4];
    let (direct, windows) =
        ("gather in-place oc=4 along oc x4 block 0", "gather aligned panel winograd 3 held 4 oc=4 qw=8 along qw x4 block 0");
    let refused = |plan: &str, options: Options| {
        let isa = Isa::detected().into_iter().find(|i| i.fma());
        let options = Options { plan: Some(plan.parse().unwrap()), isa, ..options };
        p.compile(&w, None, &options).err().unwrap_or_else(|| panic!("{plan} was taken")).message
    };
    let asked = |a| Options { algorithm: Some(a), ..Options::default() };
    assert!(refused(direct, asked(Algorithm::Winograd)).contains("its algorithm is direct"));
    assert!(refused(windows, asked(Algorithm::Direct)).contains("its algorithm is winograd"));
    assert!(refused(windows, Options { rounding: 0.5, ..Options::default() }).contains("0.5 is allowed"));
}

fn layer() -> Deconv {
    "2d n1 8x6x6 -> 8 k4 s2 p1 bias relu".parse().unwrap()
}

#[test]
fn tuning_keeps_a_plan_that_can_be_forced() {
    let layer = layer();
    let weights: Vec<f32> = (0..8 * 8 * 16).map(|i| (i % 7) as f32 - 3.0).collect();
    let bias = vec![1.0f32; 8];
    let tuning = Tuning { top: 5, rounds: 2, seconds: 0.5, ..Tuning::default() };
    let mut steps = Vec::new();
    let tuned = tune(&layer, &weights, Some(&bias), &Options::default(), &tuning, &mut |p| steps.push(p)).unwrap();
    assert!(tuned.failed.is_empty(), "{:?}", tuned.failed);
    assert_eq!(tuned.measured.len(), 5);
    assert!(tuned.measured.iter().all(|m| m.seconds > 0.0 && m.seconds.is_finite() && m.predicted > 0.0));
    assert!(tuned.measured.iter().any(|m| m.plan == tuned.plan) && tuned.regret() >= 0.0);
    assert!(steps.iter().any(|s| s.stage == "compiling") && steps.iter().all(|s| s.done <= s.total));
    assert_eq!(steps.last().map(|s| (s.stage, s.done)), Some(("timing", 2)));

    let options = Options { plan: Some(tuned.plan.clone()), ..Options::default() };
    let kernel = layer.compile(&weights, Some(&bias), &options).unwrap();
    assert_eq!(*kernel.plan(), tuned.plan);
}

#[test]
fn tuning_refuses_what_it_cannot_time() {
    let (layer, none) = (layer(), &mut |_| ());
    let options = Options::default();
    let e = tune::<f32>(&layer, &[1.0; 3], None, &options, &Tuning::default(), none).unwrap_err();
    assert_eq!(e.kind, Kind::Tensor);
    let nothing = Tuning { top: 0, ..Tuning::default() };
    assert_eq!(tune(&layer, &[1.0f32; 1024], Some(&[0.0; 8]), &options, &nothing, none).unwrap_err().kind, Kind::Options);
}

#[test]
fn a_plan_file_is_kept_and_found_again() {
    let (layer, isa) = (layer(), Isa::best().unwrap());
    let plans: Vec<Plan> = ranked(&layer, isa, &Options::default(), true).into_iter().map(|r| r.plan).take(2).collect();
    let mut file = PlanFile::new();
    file.insert(&layer, isa, 1, plans[0].clone()).unwrap();
    file.insert(&layer, isa, 2, plans[0].clone()).unwrap();
    file.insert(&layer, isa, 1, plans[1].clone()).unwrap();
    assert_eq!(file.entries.len(), 2, "the same key is replaced");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plans.json");
    file.save(&path).unwrap();
    let mut read = PlanFile::load(&path).unwrap();
    assert_eq!(read, file);
    assert_eq!(read.get(&layer, isa, 1), Ok(&plans[1]));

    let reason = read.get(&layer, isa, 3).unwrap_err();
    assert!(reason.contains("on 3 threads"), "{reason}");
    read.cpu = "some other".into();
    let reason = read.get(&layer, isa, 1).unwrap_err();
    assert!(reason.contains("for the CPU 'some other'") && reason.contains(&cpu()), "{reason}");
    assert_eq!(read.insert(&layer, isa, 1, plans[0].clone()).unwrap_err().kind, Kind::Options);
}

#[test]
fn a_file_that_is_no_plan_file_says_why() {
    let entry = |problem: &str, isa: &str, threads: &str, plan: &str| {
        format!(r#"{{"cpu": "c", "entries": [{{"problem": "{problem}", "isa": "{isa}", "threads": {threads}, "plan": "{plan}"}}]}}"#)
    };
    let (problem, plan) = ("1d n1 4x20 -> 8 k4 s2 p1", "gather in-place oc=8 along oc x4 block 0");
    assert!(PlanFile::parse(&entry(problem, "avx2", "1", plan)).is_ok());
    let cases = [
        ("[]".to_string(), "not a plan file"),
        (r#"{"cpu": "c", "entries": [], "extra": 1}"#.to_string(), "extra"),
        (entry("nonsense", "avx2", "1", plan), "entry 0"),
        (entry(problem, "mmx", "1", plan), "isa is 'mmx'; legal: sse2"),
        (entry(problem, "avx2", "0", plan), "threads is 0"),
        (entry(problem, "avx2", "1", "fast"), "`fast`"),
        (entry(problem, "avx2", "1", "gather in-place oc=8 along oc x4 block 0x0"), "2 block sizes"),
    ];
    for (text, words) in cases {
        let e = PlanFile::parse(&text).unwrap_err();
        assert!(e.kind == Kind::Parse && e.message.contains(words), "{}", e.message);
    }
    let e = PlanFile::load(Path::new("no/such/file.json")).unwrap_err();
    assert!(e.kind == Kind::Io && e.message.contains("no/such/file.json"), "{e}");
    let e = PlanFile::new().save(Path::new("no/such/file.json")).unwrap_err();
    assert_eq!(e.kind, Kind::Io);
}

#[test]
fn groups_lie_in_a_tile_only_where_each_has_one_channel() {
    for (problem, plan) in [
        ("1d n1 4x9 -> 4 k4 s2 p1", "gather panel qx=2 g=4 along g x4 block 0"),
        ("1d n1 8x9 -> 8 k4 s2 p1 g4", "gather panel qx=2 g=4 along g x4 block 0"),
        ("1d n1 4x9 -> 4 k4 s2 p1 g4", "gather in-place qx=2 g=4 along g x4 block 0"),
    ] {
        let p: Deconv = problem.parse().unwrap();
        let w = vec![1.0f32; p.weight_shape().iter().product()];
        let isa = Isa::detected().into_iter().find(|i| i.fma());
        let options = Options { plan: Some(plan.parse().unwrap()), isa, ..Options::default() };
        let e = p.compile(&w, None, &options).err().unwrap_or_else(|| panic!("{problem}: {plan} was taken"));
        assert_eq!(e.kind, Kind::Options);
        assert!(e.message.contains("each has one channel in and out"), "{}", e.message);
    }
}
