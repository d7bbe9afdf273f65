//! The verbs `run`, `verify` and `bench`, as a user calls them: what they print, the files they write, their exit status; and the fuzzing
//! behind `verify` as a smoke test.

#![cfg(feature = "cli")]

use ndarray::{Array1, Array4, ArrayD, ShapeBuilder, array};
use ndarray_npy::{read_npy, write_npy};
use polyphase::codegen::target::Isa;
use polyphase::fuzz::{Case, Fill, check};
use polyphase::{Elem, measure};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory that is gone at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("polyphase-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        Folder(path)
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn polyphase(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_polyphase")).args(args).output().expect("the command starts")
}

fn out(o: &Output) -> String {
    String::from_utf8_lossy(&o.stdout).into_owned()
}

fn err(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// `polyphase run` on the files of a folder.
fn run_in(f: &Folder, problem: &str, more: &[&str]) -> Output {
    let path = |name: &str| f.at(name).to_string_lossy().into_owned();
    let (x, w, y) = (path("x.npy"), path("w.npy"), path("y.npy"));
    let mut args = vec!["run", problem, "--input", &x, "--weight", &w, "--output", &y];
    args.extend(more);
    polyphase(&args)
}

fn read(path: &Path) -> ArrayD<f32> {
    read_npy(path).expect("the output can be read")
}

/// The worked example: ones under the kernel 1..16, stride 2, padding 1.
const EXAMPLE: &str = "2d n1 1x4x4 -> 1 k4 s2 p1";

fn example(f: &Folder) {
    write_npy(f.at("x.npy"), &Array4::<f32>::ones((1, 1, 4, 4))).expect("x is written");
    let w = Array1::range(1.0f32, 17.0, 1.0).into_shape_with_order((1, 1, 4, 4)).expect("16 values");
    write_npy(f.at("w.npy"), &w).expect("w is written");
}

#[test]
fn every_engine_runs_the_worked_example() {
    let f = Folder::new("engines");
    example(&f);
    for engine in ["jit", "interp", "reference"] {
        let o = run_in(&f, EXAMPLE, &["--engine", engine]);
        assert!(o.status.success(), "{engine}: {}", err(&o));
        assert!(out(&o).contains("of shape [1, 1, 8, 8]"), "{}", out(&o));
        let y = read(&f.at("y.npy"));
        let row = |r: usize| (0..8).map(|x| y[[0, 0, r, x]]).collect::<Vec<_>>();
        assert_eq!(row(0), [6.0, 12.0, 14.0, 12.0, 14.0, 12.0, 14.0, 7.0], "{engine}");
        assert_eq!(row(1), [12.0, 24.0, 28.0, 24.0, 28.0, 24.0, 28.0, 14.0], "{engine}");
    }
}

#[test]
fn a_function_in_the_ir_runs_in_either_engine() {
    let f = Folder::new("ir");
    example(&f);
    let dump = polyphase(&["dump-ir", EXAMPLE, "--after", "vector"]);
    std::fs::write(f.at("layer.ir"), out(&dump)).expect("the function is written");
    let path = f.at("layer.ir").to_string_lossy().into_owned();
    for engine in ["jit", "interp"] {
        let o = run_in(&f, &path, &["--engine", engine]);
        assert!(o.status.success(), "{engine}: {}", err(&o));
        let y = read(&f.at("y.npy"));
        assert_eq!(y.iter().take(4).copied().collect::<Vec<_>>(), [6.0, 12.0, 14.0, 12.0], "{engine}");
        std::fs::remove_file(f.at("y.npy")).expect("the output is there");
    }
}

#[test]
fn open_extents_come_from_the_input_and_fortran_order_is_converted() {
    let f = Folder::new("open");
    let mut x = Array4::<f32>::zeros((1, 1, 2, 2).f());
    x.assign(&array![[[[2.0, 4.0], [0.0, 1.0]]]]);
    write_npy(f.at("x.npy"), &x).expect("x is written");
    write_npy(f.at("w.npy"), &array![[[[3.0f32, 1.0], [1.0, 5.0]]]]).expect("w is written");
    for engine in ["interp", "reference"] {
        let o = run_in(&f, "2d n? 1x?x? -> 1 k2", &["--engine", engine]);
        assert!(o.status.success(), "{engine}: {}", err(&o));
        assert_eq!(read(&f.at("y.npy")), array![[[[6.0f32, 14.0, 4.0], [2.0, 17.0, 21.0], [0.0, 1.0, 5.0]]]].into_dyn());
    }
}

#[test]
fn run_names_what_does_not_fit() {
    let f = Folder::new("misfits");
    example(&f);
    let refused = |problem: &str, more: &[&str], words: &str| {
        let o = run_in(&f, problem, more);
        assert_eq!(o.status.code(), Some(2), "{problem}: {}", out(&o));
        assert!(err(&o).contains(words), "{problem}: {}", err(&o));
    };
    refused("2d n1 1x5x5 -> 1 k4 s2 p1", &[], "input extent of axis y is 4; the layer was made for 5");
    refused("2d n1 1x4x4 -> 1 k3 s2 p1", &[], "has shape [1, 1, 4, 4]; the layer needs [1, 1, 3, 3]");
    refused("2d n1 1x4x4 -> 1 k4 s2 p1 bias", &[], "--bias must give its 1 values");
    refused("2d n1 1x4x4 -> 1 k4 s2 p1 f64", &[], "the layer computes in f64");
    refused(EXAMPLE, &["--isa", "none"], "instruction set 'none' is not available");
    std::fs::remove_file(f.at("x.npy")).expect("x is there");
    refused(EXAMPLE, &[], "cannot be read");
}

#[test]
fn verify_checks_a_given_problem() {
    let o = polyphase(&["verify", EXAMPLE, "--isa", Isa::best().expect("a level").name()]);
    assert!(o.status.success(), "{}{}", out(&o), err(&o));
    assert!(out(&o).ends_with("9 passed, 0 failed\n"), "{}", out(&o));
    let o = polyphase(&["verify", "2d n? 1x4x4 -> 1 k4", "--extents", "1,2"]);
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).contains("--extents has 2 values"), "{}", err(&o));
    // Nothing checked is nothing proved.
    let o = polyphase(&["verify", "--cases", "0"]);
    assert!(o.status.code() == Some(2) && err(&o).contains("0 is not in 1.."), "{}", err(&o));
}

#[test]
fn bench_gives_a_line_of_json_for_each_layer() {
    let f = Folder::new("bench");
    let layers = r#"[{"name": "a", "cin": 8, "cout": 4, "in": [8, 8], "k": [4, 4], "s": [2, 2], "p": [1, 1]},
                     {"name": "b1", "cin": 4, "cout": 8, "in": [20], "k": [4], "s": [2], "p": [1]},
                     {"name": "b2", "cin": 4, "cout": 8, "in": [20], "k": [4], "s": [2], "p": [1]}]"#;
    std::fs::write(f.at("layers.json"), layers).expect("the list is written");
    let file = f.at("layers.json").to_string_lossy().into_owned();
    let names = |args: &[&str]| -> Vec<String> {
        let o = polyphase(&[&["bench", &file, "--json", "--min-ms", "1"], args].concat());
        assert!(o.status.success(), "{}{}", out(&o), err(&o));
        out(&o)
            .lines()
            .map(|line| {
                let v: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
                for key in ["run_ms", "gflops", "share_of_peak", "compile_ms", "pack_ms", "max_rel_err", "code_bytes", "threads"] {
                    assert!(v[key].is_number(), "{key} of {line}");
                }
                assert!(v["plan"].is_string() && v["isa"].is_string() && v["ok"] == true, "{line}");
                v["name"].as_str().expect("a name").to_string()
            })
            .collect()
    };
    assert_eq!(names(&[]), ["a", "b1", "b2"]);
    assert_eq!(names(&["--layer", "b"]), ["b1", "b2"]);
    assert_eq!(names(&["--layer", "?1", "--threads", "2"]), ["b1"]);
    let o = polyphase(&["bench", &file, "--layer", "none"]);
    assert_eq!(o.status.code(), Some(2));
    let o = polyphase(&["bench", &file, "--layer", "a", "--min-ms", "1"]);
    assert!(out(&o).contains("geometric mean of 1 layers") && out(&o).ends_with("1 passed, 0 failed\n"), "{}", out(&o));
    let o = polyphase(&["bench", &file, "--layer", "b1", "--min-ms", "1", "--open", "--typical", "16,40"]);
    assert!(out(&o).contains("open extents keep ") && out(&o).contains("(b1)\n"), "{}", out(&o));
    let o = polyphase(&["bench", "2d n1 8x?x? -> 8 k4 s2 p1"]);
    assert!(o.status.code() == Some(2) && err(&o).contains("--input-shape n,c,*spatial") && out(&o).is_empty(), "{}", err(&o));
}

#[test]
fn typical_sizes_are_listed_and_checked() {
    let o = polyphase(&["explain", "2d n1 8x?x? -> 8 k4 s2 p1", "--plan-only", "--typical", "20x30,9x9"]);
    assert!(out(&o).contains("Versions") && out(&o).contains("20x30") && out(&o).contains("9x9"), "{}", out(&o));
    for (typical, why) in [("20", "has 1 extents for 2 axes"), ("4xx4", "--typical has '4xx4'"), ("0x4", "cannot be")] {
        let o = polyphase(&["explain", "2d n1 8x?x? -> 8 k4 s2 p1", "--typical", typical]);
        assert!(o.status.code() == Some(2) && err(&o).contains(why), "{}", err(&o));
    }
}

#[test]
fn random_cases_repeat_and_print_as_problems() {
    for index in 0..50 {
        let case = Case::random(3, index);
        assert_eq!(case, Case::random(3, index));
        assert_eq!(case.problem.to_string().parse(), Ok(case.problem.clone()));
        assert!(case.sizes().is_ok(), "{case}");
    }
}

#[test]
fn random_cases_pass() {
    for index in 0..60 {
        if let Err(failure) = check(&Case::random(7, index)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn an_impossible_case_is_a_failure_with_its_command() {
    let problem: polyphase::Deconv = "2d n1 1x4x? -> 1 k4".parse().expect("a legal descriptor");
    let case = Case {
        problem,
        extents: vec![],
        isa: Isa::best().expect("a level"),
        form: None,
        algorithm: None,
        plan: None,
        threads: 1,
        fill: Fill::Integers,
        seed: 0,
    };
    let failure = check(&case).expect_err("an extent is missing");
    assert!(failure.to_string().starts_with("polyphase verify '2d n1 1x4x? -> 1 k4' --isa"), "{failure}");
}

#[test]
fn the_peak_grows_with_the_width_of_vectors() {
    for isa in Isa::detected() {
        let (single, double) = (measure::fma_peak(isa, Elem::F32), measure::fma_peak(isa, Elem::F64));
        assert!(single > 0.0 && double > 0.0, "{isa}: {single} {double}");
    }
}
