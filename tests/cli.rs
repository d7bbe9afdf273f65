//! The command: what it prints, its exit status, and that hostile input gets a sentence.
//!
//! Runs the binary. Numbers that depend on the machine (times, plans) are not looked at; everything else is.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
mod command;

use command::*;
use polyphase::interp::{Tensors, execute};
use polyphase::ir;
use std::path::Path;
use std::process::Command;

/// A .npy file of f32.
fn npy(dir: &Path, name: &str, shape: &[usize], values: &[f32]) -> String {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}", format!("{shape:?}").replace(['[', ']'], ""));
    header = header.replace("'shape': ", "'shape': (").replace(", }", "), }");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    write(dir, name, file)
}

const SMALL: &str = "2d n1 8x4x4 -> 4 k4 s2 p1";
const QUESTION: &str = "2d n1 1x4x4 -> 1 k4 s2 p1";

#[test]
fn explain_shows_a_dcgan_layer_when_nothing_is_given() {
    let out = ok(&["explain", "--plan-only"]);
    for line in [
        "2d n1 512x4x4 -> 256 k4 s2 p1",
        "  output y = 2*(4-1) + 1*(4-1) + 1 + 0 - 1 - 1 = 8",
        "  with zeros inserted       134,217,728  100.0 %",
        "  removed (zeros, padding)  108,527,616   80.9 %",
        "  useful                     25,690,112   19.1 %",
        "  y     0, 2, 4 ...  1, 3",
        "  even: 2*2 = 4 patches land on each output away from the border",
        "  patches on outputs x = 0, 1, 2 ...: 1 2 2 2 2 2 2 1",
    ] {
        assert!(out.lines().any(|l| l == line), "missing: {line}\n{out}");
    }
    for title in ["Problem", "Multiplications", "Overlap", "Register tile", "Memory", "Passes"] {
        assert!(out.lines().any(|l| l == title), "missing: {title}\n{out}");
    }
    assert!(out.contains(" chosen ") && out.contains(" rejected "), "{out}");
}

#[test]
fn explain_compiles_checks_and_times() {
    for layer in [
        SMALL,
        "1d n2 4x9 -> 3 k3 s2 p1 op1 bias tanh",
        "3d n1 2x3x3x3 -> 2 k2 s2 nwc f64".replace("nwc", "ndhwc").as_str(),
        "2d n1 4x5x5 -> 4 k3 s2 g4 mean",
    ] {
        let out = ok(&["explain", layer]);
        assert!(out.contains("ok     equal to the interpreter, bit for bit"), "{out}");
        assert!(out.contains("ok     largest error against the f64 reference"), "{out}");
        assert!(out.contains("of the FMA peak of the core"), "{out}");
    }
}

#[test]
fn explain_honours_what_is_forced() {
    let forced = json(&["explain", SMALL, "--form", "scatter", "--threads", "2", "--json"]);
    assert_eq!(forced["schedule"]["form"], "scatter");
    assert_eq!(forced["schedule"]["threads"], 2);
    assert_eq!(forced["kernel"]["equal_to_interpreter"], true);
    for isa in polyphase::codegen::target::Isa::detected() {
        let forced = json(&["explain", SMALL, "--isa", isa.name(), "--json"]);
        assert_eq!(forced["schedule"]["isa"], isa.name());
        assert_eq!((&forced["kernel"]["equal_to_interpreter"], &forced["kernel"]["error"]["within_bound"]), (&true.into(), &true.into()));
    }
}

#[test]
fn a_whole_plan_can_be_forced_in_the_words_of_reports() {
    let plan = "gather bounded panel qx=4 oc=4 along oc x4 block 0x0 reduction 2";
    let layer = "2d n1 8x4x4 -> 8 k4 s2 p1";
    let out = ok(&["explain", layer, "--isa", if cfg!(target_arch = "x86_64") { "fma" } else { "neon" }, "--plan", plan]);
    assert!(
        out.contains(plan) && out.contains("2 of 8 input channels at a time") && out.contains("fall outside the input and are left out"),
        "{out}"
    );
    refused(
        &["explain", layer, "--plan", "gather panel oc=4 along oc x4 block 0x0 reduction 3"],
        "8 input channels do not split into parts of 3",
    );
    refused(&["explain", layer, "--plan", "gather sideways"], "`sideways`");
    refused(&["verify", "--plan", plan], "--plan needs a problem");
}

#[test]
fn json_has_what_the_text_says() {
    let e = json(&["explain", SMALL, "--json"]);
    assert_eq!(e["problem"], SMALL);
    assert_eq!(e["work"]["useful"], 6272);
    assert_eq!(e["work"]["with_zeros"], 32768);
    assert_eq!(e["tensors"][2]["shape"], serde_json::json!([1, 4, 8, 8]));
    assert_eq!(e["phases"][0]["listed"][0]["taps"], serde_json::json!([1, 3]));
    assert_eq!(e["overlap"]["even"], true);
    assert!(e["schedule"]["rejected"].as_array().is_some_and(|r| !r.is_empty()));
    assert!(e["schedule"]["reasons"].as_array().is_some_and(|r| !r.is_empty()));
    assert_eq!(e["schedule"]["passes"].as_array().map(Vec::len), Some(polyphase::passes::PASSES.len() + 1));
    assert!(e["kernel"]["run_ms"].as_f64().is_some_and(|v| v > 0.0));
    assert!(e["kernel"]["error"]["largest"].as_f64() <= e["kernel"]["error"]["bound"].as_f64());
    assert!(e.get("at").is_none() && e.get("matrix").is_none());
}

#[test]
fn a_checkerboard_is_named_with_what_would_fix_it() {
    let out = ok(&["explain", "2d n1 8x5x5 -> 4 k3 s2 p1 op1", "--plan-only"]);
    assert!(out.contains("checkerboard: 1 to 4 patches land on an output"), "{out}");
    assert!(out.contains("even with kernel 4 with padding 1 keeps the output size"), "{out}");
    let holes = ok(&["explain", "1d n1 1x5 -> 1 k2 s3", "--plan-only"]);
    assert!(holes.contains("holes: on some outputs nothing lands") && holes.contains("none: bias only"), "{holes}");
    let dilated = ok(&["explain", "1d n1 1x5 -> 1 k4 s2 d2", "--plan-only"]);
    assert!(dilated.contains("even with dilation 1: 2 shares a factor with stride 2"), "{dilated}");
    let windows = ok(&["explain", "2d n1 8x32x32 -> 8 k3 s1 p2 d2", "--algorithm", "winograd", "--plan-only"]);
    assert!(windows.contains("dilation: 2x2 windows interleave"), "{windows}");
    let apart = ok(&["explain", "2d n1 2x5x5 -> 2 k2 s2", "--plan-only"]);
    assert!(apart.contains("even: exactly one patch lands on each output"), "{apart}");
}

#[test]
fn open_extents_are_said_to_be_examples() {
    let out = ok(&["explain", "2d n1 4x?x5 -> 2 k4 s2 p1"]);
    assert!(out.contains("note: open until run time; numbers below are for H = 64"), "{out}");
    assert!(out.contains("= 2*H = 128"), "{out}");
    assert!(out.contains("ok     equal to the interpreter"), "{out}");
    let all = ok(&["explain", "2d n? 2x?x? -> 2 k4 s2 p1"]);
    assert!(all.contains("numbers below are for N = 1, H = 64, W = 64") && all.contains("= 2*W = 128"), "{all}");
    assert!(all.contains("ok     equal to the interpreter"), "{all}");
}

#[test]
fn why_is_entry_0_1_equal_to_12() {
    let out = ok(&["explain", QUESTION, "--at", "0,1", "--input", "ones", "--weight", "count"]);
    for line in [
        "Why is y[0, 0, 0, 1] equal to 12?",
        "  axis y: 2*i + k = 0 + 1 holds for k=1 i=0; outside of the input: k=3 i=-1",
        "  axis x: 2*i + k = 1 + 1 holds for k=0 i=1, k=2 i=0",
        "  so 2 of 16 taps land here; 12 meet inserted zeros, 2 padding",
        "  x[0,1]  w[1,0]      1       5        5           5",
        "  x[0,0]  w[1,2]      1       7        7          12",
        "  The output is 12.",
    ] {
        assert!(out.lines().any(|l| l == line), "missing: {line}\n{out}");
    }
    let corner = json(&["explain", QUESTION, "--at", "0,0", "--input", "ones", "--weight", "count", "--json"]);
    assert_eq!(corner["at"]["value"], 6.0);
}

#[test]
fn every_entry_of_the_example_is_explained() {
    let dir = directory("entries");
    let x = npy(&dir, "x.npy", &[1, 1, 4, 4], &[1.0; 16]);
    let kernel: Vec<f32> = (1..=16).map(|v| v as f32).collect();
    let w = npy(&dir, "w.npy", &[1, 1, 4, 4], &kernel);
    let rows = [[6.0, 12.0, 14.0, 12.0, 14.0, 12.0, 14.0, 7.0], [12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0]];
    for (y, row) in rows.iter().enumerate() {
        for (x_at, expected) in row.iter().enumerate() {
            let e = json(&["explain", QUESTION, "--at", &format!("{y},{x_at}"), "--input", &x, "--weight", &w, "--json"]);
            assert_eq!(e["at"]["value"], *expected, "entry ({y}, {x_at})");
        }
    }
}

#[test]
fn an_output_of_many_channels_sums_over_them_and_ends_with_bias_and_activation() {
    let args = [
        "explain",
        "2d n1 8x3x3 -> 2 k3 s2 bias relu",
        "--at",
        "2,2",
        "--channel",
        "1",
        "--input",
        "ones",
        "--weight",
        "ones",
        "--bias",
        "count",
    ];
    let e = json(&[&args[..], &["--json"]].concat());
    assert_eq!((&e["at"]["merged"], &e["at"]["bias"], &e["at"]["value"]), (&32.0.into(), &2.0.into(), &34.0.into()));
    let out = ok(&args);
    assert!(out.contains("sum over 8 ic") && out.contains("plus bias 2: 34"), "{out}");
    let max = json(&["explain", "1d n1 1x3 -> 1 k3 s1 max", "--at", "2", "--input", "ones", "--weight", "count", "--json"]);
    assert_eq!(max["at"]["value"], 3.0);
    let mean = json(&["explain", "1d n1 1x3 -> 1 k3 s1 mean", "--at", "2", "--input", "ones", "--weight", "count", "--json"]);
    assert_eq!(mean["at"]["value"], 2.0);
}

#[test]
fn the_matrix_and_its_transpose_are_printed() {
    let out = ok(&["explain", "2d n1 1x2x2 -> 1 k2 s1", "--matrix"]);
    let c = "C\n  a b . c d . . . .\n  . a b . c d . . .\n  . . . a b . c d .\n  . . . . a b . c d\n";
    assert!(out.contains(c), "{out}");
    assert!(out.contains("C^T\n  a . . .\n  b a . .\n  . b . .\n  c . a .\n"), "{out}");
    let dir = directory("matrix");
    let w = npy(&dir, "w.npy", &[1, 1, 2, 2], &[3.0, 1.0, 1.0, 5.0]);
    let numbers = json(&["explain", "2d n1 1x2x2 -> 1 k2 s1", "--matrix", "--weight", &w, "--json"]);
    // The third worked example: [[2, 4], [0, 1]] by this kernel.
    let transpose = numbers["matrix"]["transpose_values"].as_array().unwrap().clone();
    let x = [2.0, 4.0, 0.0, 1.0];
    let y: Vec<f64> =
        transpose.iter().map(|row| row.as_array().unwrap().iter().zip(x).map(|(c, x)| c.as_f64().unwrap() * x).sum()).collect();
    assert_eq!(y, [6.0, 14.0, 4.0, 2.0, 17.0, 21.0, 0.0, 1.0, 5.0]);
}

#[test]
fn problems_come_as_repr_json_file_or_standard_input() {
    let repr = "ConvTranspose2d(8, 4, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)";
    assert_eq!(json(&["explain", repr, "--input-shape", "1,8,4,4", "--plan-only", "--json"])["problem"], SMALL);
    let layer = r#"{"name": "up.1", "cin": 8, "cout": 4, "in": [4, 4], "k": [4, 4], "s": [2, 2], "p": [1, 1]}"#;
    assert_eq!(json(&["explain", layer, "--plan-only", "--json"])["problem"], SMALL);
    let dir = directory("sources");
    let other = layer.replace("up.1", "up.10").replace("\"cout\": 4", "\"cout\": 2");
    let list = write(&dir, "layers.json", format!("[{layer}, {other}]"));
    assert_eq!(json(&["explain", &list, "--layer", "up.1", "--plan-only", "--json"])["problem"], SMALL);
    assert_eq!(json(&["explain", &list, "--layer", ".10", "--plan-only", "--json"])["name"], "up.10");
    let several = run(&["explain", &list]);
    assert_eq!((several.status, several.err.as_str()), (2, "error: 2 layers were given; --layer NAME picks one: up.1, up.10\n"));
    let ambiguous = run(&["explain", &list, "--layer", "up"]);
    assert!(ambiguous.status == 2 && ambiguous.err.contains("2 layers have 'up' in their names"), "{}", ambiguous.err);
    let mut child = Command::new(env!("CARGO_BIN_EXE_polyphase"));
    child.args(["explain", "-", "--plan-only", "--json"]).stdin(std::fs::File::open(&list).unwrap()).args(["--layer", "up.10"]);
    assert!(String::from_utf8(child.output().unwrap().stdout).unwrap().contains("up.10"));
    let text = write(&dir, "layer.txt", SMALL);
    assert_eq!(json(&["explain", &text, "--plan-only", "--json"])["problem"], SMALL);
}

#[test]
fn every_dumped_stage_parses_verifies_and_interprets_to_the_same_numbers() {
    let x: Vec<f32> = (0..8 * 16).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    let w: Vec<f32> = (0..8 * 4 * 16).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
    let mut expected: Option<Vec<f32>> = None;
    let names: Vec<&str> = std::iter::once("naive").chain(polyphase::passes::PASSES.iter().map(|p| p.name)).collect();
    for form in ["gather", "scatter"] {
        for name in &names {
            let text = ok(&["dump-ir", SMALL, "--after", name, "--form", form]);
            let func = ir::parse(&text).unwrap_or_else(|e| panic!("after {name}: {e}\n{text}"));
            func.verify().unwrap_or_else(|e| panic!("after {name}: {e}"));
            assert_eq!(func.to_string(), text, "after {name}");
            let mut y = vec![f32::NAN; 4 * 64];
            execute(&func, &[], Tensors { input: &x, weight: &w, bias: None, output: &mut y }).unwrap();
            assert_eq!(*expected.get_or_insert_with(|| y.clone()), y, "after {name}, {form}");
        }
    }
}

#[test]
fn all_stages_are_printed_and_unchanged_ones_are_marked() {
    let out = ok(&["dump-ir", SMALL, "--form", "gather"]);
    for name in std::iter::once("naive").chain(polyphase::passes::PASSES.iter().map(|p| p.name)) {
        assert!(out.lines().any(|l| l.starts_with(&format!("// after {name}: "))), "{name}\n{out}");
    }
    let form = out.lines().find(|l| l.starts_with("// after form: ")).unwrap();
    assert!(form.ends_with("(unchanged)"), "{form}");
    assert!(!out.lines().any(|l| l.starts_with("// after phases: ") && l.ends_with("(unchanged)")));
    assert_eq!(out, ok(&["dump-ir", SMALL, "--form", "gather", "--after", "all"]));
}

#[test]
fn a_dumped_stage_is_a_problem_that_explain_checks_natively() {
    let dir = directory("stages");
    for after in ["naive", "phases", "panel", "tile", "lower"] {
        let path = write(&dir, &format!("{after}.ir"), ok(&["dump-ir", SMALL, "--after", after]));
        let out = ok(&["explain", &path]);
        assert!(out.contains("bit for bit (256 outputs)"), "{out}");
        let report = json(&["explain", &path, "--json"]);
        assert_eq!((&report["verified"], &report["equal_to_interpreter"]), (&true.into(), &true.into()));
        assert_eq!(ok(&["dump-ir", &path]), std::fs::read_to_string(&path).unwrap());
    }
    let open = write(&dir, "open.ir", ok(&["dump-ir", "2d n1 2x?x5 -> 2 k4 s2 p1 sigmoid bias", "--after", "naive"]));
    let report = json(&["explain", &open, "--symbol", "H=3", "--json"]);
    assert_eq!((&report["outputs"], &report["equal_to_interpreter"]), (&120.into(), &true.into()));
}

#[test]
fn clif_and_machine_code_are_printed() {
    let clif = ok(&["dump-ir", SMALL, "--clif"]);
    assert!(clif.contains("; run\nfunction u0:"), "{clif}");
    let asm = ok(&["dump-ir", SMALL, "--asm", "--isa", polyphase::codegen::target::Isa::detected()[0].name()]);
    assert!(asm.starts_with("; ") && asm.contains(" bytes for "), "{asm}");
    if cfg!(target_arch = "x86_64") {
        assert!(asm.lines().any(|l| l.ends_with("ret")) && asm.contains("mulps"), "{asm}");
    }
}

/// What a pass leaves in the middle has operations that no target has; code is made of it all the same.
#[test]
fn curves_are_replaced_wherever_code_is_made() {
    let dir = directory("curves");
    let path = write(&dir, "prepare.ir", CURVES);
    for isa in polyphase::codegen::target::Isa::detected() {
        for after in ["naive", "phases", "tile", "vector", "lower"] {
            for curve in ["tanh", "sigmoid"] {
                let asm = ok(&["dump-ir", &format!("{SMALL} {curve}"), "--after", after, "--asm", "--isa", isa.name()]);
                assert!(asm.contains(" bytes for "), "after {after} at {isa}: {asm}");
            }
        }
        assert!(ok(&["dump-ir", &path, "--asm", "--isa", isa.name()]).contains("; prepare: "), "{isa}");
        let report = json(&["explain", &path, "--isa", isa.name(), "--json"]);
        assert_eq!(report["equal_to_interpreter"], true, "{isa}: {report}");
    }
}

const CURVES: &str = "func t f32 stage tile {
  buffer w: weight f32[8]
  buffer y: output f32[8]
  buffer pk: packed f32[8]
  prepare { for i in 0..8 { pk[i] = fma(tanh(w[i]), w[i], sigmoid(w[i])) } }
  run { for i in 0..8 { y[i] = pk[i] } }
}
";

#[test]
fn bad_usage_and_input_get_a_sentence_and_status_2() {
    for (args, words) in [
        (&["explain", "nothing.json"][..], "'nothing.json' cannot be read as a file"),
        (&["explain", ""], "a problem is a file, a module repr"),
        (&["explain", "/"], "it is not a regular file"),
        (&["explain", "{"], "not JSON"),
        (&["explain", "[]"], "the list of layers is empty"),
        (&["explain", "2d n1 1x4x4 -> 1 k4 s0"], "stride is 0 on axis y; it must be at least 1"),
        (&["explain", "2d n1 1x4x4 -> 1 k-4"], "kernel is -4"),
        (&["explain", "2d n1 3x4x4 -> 4 k3 g2"], "3"),
        (&["explain", "1d n1 1x1 -> 1 k1 p5"], "output extent"),
        (&["explain", "ConvTranspose2d(1, 1, 3, stride=zero)"], "`zero`"),
        (&["explain", "--layer", "x"], "no layer is called 'x'"),
        (&["explain", "--input-shape", "1,3,4,4"], "the layer has 512"),
        (&["explain", "--threads", "0"], "--threads is 0; 1 to 1024 are legal"),
        (&["explain", "--isa", "mmx"], "legal on this machine"),
        (&["explain", "--form", "diagonal"], "possible values: gather, scatter"),
        (&["explain", "--at", "0"], "needs 2"),
        (&["explain", "--at", "0,99"], "0 to 7 are legal"),
        (&["explain", "--at", "0,-1"], "whole numbers"),
        (&["explain", "--at", "0,0", "--channel", "256"], "output channel 256 does not exist; there are 256"),
        (&["explain", "--at", "0,0", "--item", "1"], "batch item 1 does not exist"),
        (&["explain", "--at", "0,0", "--input", "none.npy"], "'none.npy' cannot be read"),
        (&["explain", "--at", "0,0", "--weight", "Cargo.toml"], "'Cargo.toml' cannot be read"),
        (&["explain", "--at", "0,0", "--bias", "ones"], "the layer has no bias"),
        (&["explain", "--weight", "ones"], "values for --at or --matrix"),
        (&["explain", "--matrix"], "8192 rows and 16384 columns; up to 64"),
        (&["explain", "1d n1 1x3 -> 1 k3 max", "--matrix"], "merges by mean or max"),
        (&["explain", "1d n1 1000000x2147483647 -> 1000000 k1"], "--plan-only explains without one"),
        (&["explain", "func f f32 stage naive {"], "1:"),
        (&["dump-ir", "--after", "nope"], "no pass is called 'nope'; legal: naive, form, phases"),
        (&["dump-ir", "--isa", "neon2"], "not available"),
        (&["explain", "--symbol", "W=3"], "--symbol is for IR files"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["explain", "--frobnicate"], "unexpected argument"),
    ] {
        refused(args, words);
    }
}

#[test]
fn options_of_layers_mean_nothing_for_a_function() {
    let dir = directory("options");
    let path = write(&dir, "f.ir", CURVES);
    for (flag, value) in [
        ("--layer", "a"),
        ("--input-shape", "1,1,1"),
        ("--form", "gather"),
        ("--processor", "zen4"),
        ("--algorithm", "direct"),
        ("--plan", "gather panel oc=16 along oc x16 block 0x0"),
        ("--typical", "8"),
        ("--packing-limit", "1"),
        ("--threads", "2"),
    ] {
        refused(&["explain", &path, flag, value], &format!("{flag} means nothing for a function in the IR"));
    }
}

#[test]
fn hostile_files_get_a_sentence_and_status_2() {
    let dir = directory("hostile");
    let bytes = write(&dir, "bytes.json", [0xff, 0xfe, 0x00, 0x80]);
    refused(&["explain", &bytes], "cannot be read");
    let empty = write(&dir, "empty.ir", "");
    refused(&["explain", &empty], "empty.ir");
    let deep = write(&dir, "deep.json", "[".repeat(100_000));
    refused(&["explain", &deep], "not JSON");
    let outside = "func f f32 stage lowered {\n  buffer x: input f32[4]\n  buffer y: output f32[4]\n  run {\n    for i in 0..5 {\n      y[i] = x[i]\n    }\n  }\n}\n";
    refused(&["explain", &write(&dir, "outside.ir", outside)], "must lie in 0..4");
    let forever = outside.replace("0..5 {\n      y[i] = x[i]", "0..4, j in 0..1000000000000 {\n      y[i] = x[i]");
    refused(&["explain", &write(&dir, "forever.ir", forever)], "statements");
    let huge = outside.replace("0..5", "0..4").replace("input f32[4]", "input f32[4000000000]");
    refused(&["explain", &write(&dir, "huge.ir", huge)], "bytes");
    let wrong = npy(&dir, "wrong.npy", &[1, 1, 2, 2], &[0.0; 4]);
    refused(&["explain", QUESTION, "--at", "0,0", "--weight", &wrong], "[1, 1, 2, 2]");
    refused(&["explain", QUESTION, "--at", "0,0", "--input", &wrong], "input extent");
}

#[test]
fn help_names_every_verb_and_flag() {
    let help = ok(&["--help"]);
    assert!(help.contains("explain") && help.contains("dump-ir"), "{help}");
    let explain = ok(&["explain", "--help"]);
    for flag in ["--layer", "--input-shape", "--isa", "--form", "--threads", "--at", "--channel", "--matrix", "--json", "--plan-only"] {
        assert!(explain.contains(flag), "{flag}\n{explain}");
    }
}

/// The `console` blocks of a page: command line, and the output that follows it.
fn console(page: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (line, line.strip_prefix("$ ")) {
            ("```console", _) => inside = true,
            ("```", _) => inside = false,
            (_, Some(command)) if inside => blocks.push((command.to_string(), Vec::new())),
            _ if inside => blocks.last_mut().expect("a block begins with a command").1.push(line.to_string()),
            _ => {}
        }
    }
    blocks
}

/// Splits a command line as a shell would that knows double quotes only.
fn words(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => out.push(String::new()),
            c => out.last_mut().unwrap().push(c),
        }
    }
    out
}

#[test]
fn the_readme_shows_what_the_commands_print() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let blocks = console(&readme);
    assert_eq!(blocks.len(), 3);
    for (command, expected) in blocks {
        let args = command.strip_prefix("polyphase ").or(command.strip_prefix("cargo run --release -- ")).expect("a command of ours");
        let args = words(args);
        let out = ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut printed = out.lines();
        // What follows the plan depends on the machine; `...` and empty lines stand for what was left out.
        for line in expected.iter().take_while(|l| !l.starts_with("Plan (")).filter(|l| *l != "  ..." && !l.is_empty()) {
            assert!(printed.any(|l| l == line), "{command} does not print, in this order: {line}\n{out}");
        }
    }
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains("cargo run --release -- explain") && readme.contains("`cargo test`"));
}
