//! The C ABI: right results, an error for every misuse that can be seen, a header that cannot drift, and a C program.
//!
//! `POLYPHASE_BLESS=1 cargo test --test capi` writes `docs/polyphase.h` anew.

use polyphase::capi::*;
use std::ffi::{CStr, CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::{null, null_mut};

const LAYER: &str = r#"{"n": 1, "cin": 2, "in": [3, 3], "cout": 3, "k": [2, 2], "s": [2, 2]}"#;
const OPEN: &str = r#"{"n": "?", "cin": 1, "in": ["?"], "cout": 1, "k": [3], "s": [2], "p": [1]}"#;

fn last_error() -> String {
    // SAFETY: the text ends with a zero byte and lives until the next call on this thread.
    unsafe { CStr::from_ptr(polyphase_last_error()) }.to_str().unwrap().to_string()
}

/// A kernel that is freed when it goes.
#[derive(Debug)]
struct Owned(*mut PolyphaseKernel);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: from `polyphase_compile`, freed only here.
        unsafe { polyphase_kernel_free(self.0) }
    }
}

fn compile_with<T>(problem: &str, options: Option<&str>, weight: &[T], bias: &[T]) -> Result<Owned, (c_int, String)> {
    let problem = CString::new(problem).unwrap();
    let options = options.map(|o| CString::new(o).unwrap());
    let options = options.as_ref().map_or(null(), |o| o.as_ptr());
    let bias_at = if bias.is_empty() { null() } else { bias.as_ptr().cast() };
    let mut out = std::ptr::dangling_mut();
    // SAFETY: texts end with zero bytes, slices are as long as is said.
    let code = unsafe {
        polyphase_compile(problem.as_ptr(), options, weight.as_ptr().cast(), size_of_val(weight), bias_at, size_of_val(bias), &mut out)
    };
    if code == POLYPHASE_OK {
        assert!(!out.is_null() && last_error().is_empty());
        return Ok(Owned(out));
    }
    assert!(out.is_null(), "a failed compile leaves no kernel");
    assert!(!last_error().is_empty());
    Err((code, last_error()))
}

fn run<T>(kernel: &Owned, x: &[T], y: &mut [T]) -> c_int {
    // SAFETY: the kernel is alive, slices are as long as is said.
    unsafe { polyphase_run(kernel.0, x.as_ptr().cast(), size_of_val(x), y.as_mut_ptr().cast(), size_of_val(y)) }
}

fn run_sized<T>(kernel: &Owned, sizes: &[usize], x: &[T], y: &mut [T]) -> c_int {
    let (x_bytes, y_bytes) = (size_of_val(x), size_of_val(y));
    // SAFETY: the kernel is alive, slices are as long as is said.
    unsafe { polyphase_run_sized(kernel.0, sizes.as_ptr(), sizes.len(), x.as_ptr().cast(), x_bytes, y.as_mut_ptr().cast(), y_bytes) }
}

/// Small integers, which add up exactly.
fn integers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect()
}

fn assert_fails(found: (c_int, String), code: c_int, words: &[&str]) {
    assert_eq!(found.0, code, "{}", found.1);
    for w in words {
        assert!(found.1.contains(w), "`{w}` is missing in: {}", found.1);
    }
}

#[test]
fn a_layer_runs_as_in_the_library() {
    let (w, x) = (integers(2 * 3 * 4), integers(2 * 9));
    let problem = &polyphase::problem::text::parse_json(LAYER).unwrap()[0].problem;
    let expected = polyphase::reference::deconv(problem, 1, &[3, 3], &x, &w, None).unwrap();
    for options in [None, Some(""), Some("null"), Some("{}"), Some(r#"{"threads": 2, "form": "scatter", "isa": null}"#)] {
        let kernel = compile_with(LAYER, options, &w, &[]).unwrap();
        let mut y = vec![f32::NAN; 3 * 36];
        assert_eq!(run(&kernel, &x, &mut y), POLYPHASE_OK, "{}", last_error());
        assert_eq!(y.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), expected, "{options:?}");
    }
}

#[test]
fn the_dtype_is_the_problems() {
    let layer = r#"{"cin": 1, "in": [2], "cout": 1, "k": [2], "s": [2], "bias": true, "dtype": "f64"}"#;
    let kernel = compile_with(layer, None, &[1.0f64, 2.0], &[0.25f64]).unwrap();
    let mut y = [0.0f64; 4];
    assert_eq!(run(&kernel, &[1.0f64, 10.0], &mut y), POLYPHASE_OK);
    assert_eq!(y, [1.25, 2.25, 10.25, 20.25]);
    assert_fails(compile_with(layer, None, &[1.0f32, 2.0], &[0.25f32]).unwrap_err(), POLYPHASE_ERROR_TENSOR, &["bias", "8-byte"]);
}

#[test]
fn a_forced_plan_is_followed_or_refused() {
    let w = integers(2 * 3 * 4);
    compile_with(LAYER, Some(r#"{"plan": "scatter in-place oc=4 along oc x4 block 0x0"}"#), &w, &[]).unwrap();
    let e = compile_with(LAYER, Some(r#"{"plan": "scatter in-place oc=4 along oc x4 block 0x0x0"}"#), &w, &[]).unwrap_err();
    assert_fails(e, POLYPHASE_ERROR_OPTIONS, &["3 block sizes for 2 axes"]);
    let e = compile_with(LAYER, Some(r#"{"plan": "sideways"}"#), &w, &[]).unwrap_err();
    assert_fails(e, POLYPHASE_ERROR_PARSE, &["`sideways`", "`gather` or `scatter`"]);
}

#[test]
fn open_extents_come_with_the_run() {
    let w = [1.0f32, 2.0, 3.0];
    let kernel = compile_with(OPEN, None, &w, &[]).unwrap();
    for (n, length) in [(1, 5), (3, 2), (2, 40)] {
        let x = integers(n * length);
        let mut y = vec![f32::NAN; n * (2 * length - 1)];
        assert_eq!(run_sized(&kernel, &[n, length], &x, &mut y), POLYPHASE_OK, "{}", last_error());
        let problem = &polyphase::problem::text::parse_json(OPEN).unwrap()[0].problem;
        let expected = polyphase::reference::deconv(problem, n, &[length], &x, &w, None).unwrap();
        assert_eq!(y.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), expected);
    }
    let (x, mut y) = ([1.0f32; 5], [0.0f32; 9]);
    let code = run(&kernel, &x, &mut y);
    assert_fails((code, last_error()), POLYPHASE_ERROR_TENSOR, &["polyphase_run_sized with 2 sizes"]);
    for (sizes, word) in
        [(&[1usize][..], "1 sizes given"), (&[1, 5, 5], "needs 2"), (&[1, 4], "elements"), (&[1, 0], "extent"), (&[usize::MAX, 5], "")]
    {
        let code = run_sized(&kernel, sizes, &x, &mut y);
        assert_fails((code, last_error()), POLYPHASE_ERROR_TENSOR, &[word]);
    }
    // SAFETY: null is one of the things that it refuses.
    let code = unsafe { polyphase_run_sized(kernel.0, null(), 2, x.as_ptr().cast(), 20, y.as_mut_ptr().cast(), 36) };
    assert_fails((code, last_error()), POLYPHASE_ERROR_POINTER, &["sizes is null"]);
    // A layer whose extents are known takes the same ones, and no others.
    let kernel = compile_with(r#"{"cin": 1, "in": [5], "cout": 1, "k": [3], "s": [2], "p": [1]}"#, None, &w, &[]).unwrap();
    assert_eq!(run_sized(&kernel, &[1, 5], &x, &mut y), POLYPHASE_OK);
    assert_eq!(run_sized(&kernel, &[1, 4], &x, &mut y), POLYPHASE_ERROR_TENSOR);
}

#[test]
fn texts_that_say_nothing_legal_are_errors() {
    let w = integers(24);
    let cases = [
        ("", POLYPHASE_ERROR_PARSE, "JSON"),
        ("{", POLYPHASE_ERROR_PARSE, "JSON"),
        ("[]", POLYPHASE_ERROR_PARSE, "list of 0 layers"),
        (&format!("[{LAYER}, {LAYER}]"), POLYPHASE_ERROR_PARSE, "list of 2 layers"),
        (r#"{"cin": 2, "in": [3, 3], "cout": 3, "k": [2, 2], "stride": [2, 2]}"#, POLYPHASE_ERROR_PARSE, "`stride`"),
        (r#"{"cin": 2, "in": [3, 3], "cout": 3, "k": [2, 2], "s": [0, 2]}"#, POLYPHASE_ERROR_PROBLEM, "stride is 0"),
        (r#"{"cin": 2, "in": [3, 3], "cout": 3, "k": [2, 2], "out": [9, 9]}"#, POLYPHASE_ERROR_PARSE, "out"),
    ];
    for (problem, code, word) in cases {
        assert_fails(compile_with(problem, None, &w, &[]).unwrap_err(), code, &[word]);
    }
    let deep = "[".repeat(100_000);
    assert_fails(compile_with(&deep, None, &w, &[]).unwrap_err(), POLYPHASE_ERROR_PARSE, &["JSON"]);
    assert_fails(compile_with(LAYER, Some(&deep), &w, &[]).unwrap_err(), POLYPHASE_ERROR_PARSE, &["JSON"]);
    let cases = [
        (
            r#"{"thread": 2}"#,
            POLYPHASE_ERROR_OPTIONS,
            "unknown key `thread`; legal keys are threads, isa, processor, form, algorithm, rounding, typical, packing_limit, plan, stream",
        ),
        (r#"{"threads": 0}"#, POLYPHASE_ERROR_OPTIONS, "1 to 1024"),
        (r#"{"threads": 1e300}"#, POLYPHASE_ERROR_OPTIONS, "1 to 1024"),
        (r#"{"processor": "i486"}"#, POLYPHASE_ERROR_OPTIONS, "legal: this, zen3, zen4, zen5, cascade-lake, intel-server"),
        (r#"{"isa": "mmx"}"#, POLYPHASE_ERROR_OPTIONS, "legal on this machine"),
        (r#"{"isa": 2}"#, POLYPHASE_ERROR_OPTIONS, "a string is legal"),
        (r#"{"form": "both"}"#, POLYPHASE_ERROR_OPTIONS, "\"scatter\""),
        (r#"{"stream": "yes"}"#, POLYPHASE_ERROR_OPTIONS, "true and false"),
        (r#"{"plan": {}}"#, POLYPHASE_ERROR_OPTIONS, "a string is legal"),
        ("3", POLYPHASE_ERROR_PARSE, "an object is legal"),
        ("{threads: 2}", POLYPHASE_ERROR_PARSE, "JSON"),
    ];
    for (options, code, word) in cases {
        assert_fails(compile_with(LAYER, Some(options), &w, &[]).unwrap_err(), code, &[word]);
    }
}

#[test]
fn tensors_of_the_wrong_size_are_errors() {
    let w = integers(24);
    for wrong in [&w[..0], &w[..23], &[&w[..], &w[..]].concat()] {
        assert_fails(compile_with(LAYER, None, wrong, &[]).unwrap_err(), POLYPHASE_ERROR_TENSOR, &["24"]);
    }
    assert_fails(compile_with(LAYER, None, &w, &w[..3]).unwrap_err(), POLYPHASE_ERROR_TENSOR, &["bias"]);
    let bytes = [0u8; 95];
    let at = bytes.as_ptr().align_offset(4);
    assert_fails(compile_with(LAYER, None, &bytes[at..at + 91], &[]).unwrap_err(), POLYPHASE_ERROR_TENSOR, &["91 bytes", "4-byte"]);

    let kernel = compile_with(LAYER, None, &w, &[]).unwrap();
    let (x, mut y) = (integers(18), vec![7.0f32; 108]);
    for (from, to) in [(0, 108), (17, 108), (18, 0), (18, 107)] {
        let code = run(&kernel, &x[..from], &mut y[..to]);
        assert_fails((code, last_error()), POLYPHASE_ERROR_TENSOR, &["elements"]);
    }
    // SAFETY: sizes that no memory has are refused before anything is read.
    let code = unsafe { polyphase_run(kernel.0, x.as_ptr().cast(), usize::MAX - 3, y.as_mut_ptr().cast(), 432) };
    assert_fails((code, last_error()), POLYPHASE_ERROR_TENSOR, &[]);
    assert!(y.iter().all(|v| *v == 7.0), "a refused run writes nothing");
}

#[test]
fn null_misaligned_and_overlapping_pointers_are_errors() {
    let w = integers(24);
    let problem = CString::new(LAYER).unwrap();
    let mut out = null_mut();
    let place: *mut *mut PolyphaseKernel = &mut out;
    let compile = |problem, weight, bias, out| {
        // SAFETY: what is wrong with these pointers is what it refuses; the right ones are as long as is said.
        let code = unsafe { polyphase_compile(problem, null(), weight, 96, bias, if weight.is_null() { 0 } else { 12 }, out) };
        (code, last_error())
    };
    let weight: *const c_void = w.as_ptr().cast();
    assert_fails(compile(null(), weight, weight, place), POLYPHASE_ERROR_POINTER, &["problem_json is null"]);
    assert_fails(compile(problem.as_ptr(), null(), null(), place), POLYPHASE_ERROR_POINTER, &["weight is null", "96 bytes"]);
    assert_fails(compile(problem.as_ptr(), weight, null(), place), POLYPHASE_ERROR_POINTER, &["bias is null", "12 bytes"]);
    assert_fails(
        compile(problem.as_ptr(), weight.wrapping_byte_add(1), null(), place),
        POLYPHASE_ERROR_POINTER,
        &["weight is not aligned"],
    );
    assert_fails(compile(problem.as_ptr(), weight, null(), null_mut()), POLYPHASE_ERROR_POINTER, &["out is null"]);
    assert_fails(
        compile(problem.as_ptr(), weight, null(), place.wrapping_byte_add(1)),
        POLYPHASE_ERROR_POINTER,
        &["out is null or not aligned"],
    );
    assert!(out.is_null());

    let kernel = compile_with(LAYER, None, &w, &[]).unwrap();
    let mut both = vec![1.0f32; 200];
    let at = both.as_mut_ptr();
    let run = |kernel: *const PolyphaseKernel, x: *const f32, y: *mut f32| {
        // SAFETY: as above.
        let code = unsafe { polyphase_run(kernel, x.cast(), 72, y.cast(), 432) };
        (code, last_error())
    };
    assert_fails(run(null(), at, at.wrapping_add(18)), POLYPHASE_ERROR_POINTER, &["kernel is null"]);
    assert_fails(run(kernel.0, null(), at), POLYPHASE_ERROR_POINTER, &["input is null"]);
    assert_fails(run(kernel.0, at, null_mut()), POLYPHASE_ERROR_POINTER, &["output is null"]);
    assert_fails(run(kernel.0, at.wrapping_byte_add(2), at.wrapping_add(20)), POLYPHASE_ERROR_POINTER, &["input is not aligned"]);
    assert_fails(run(kernel.0, at, at.wrapping_byte_add(81)), POLYPHASE_ERROR_POINTER, &["output is not aligned"]);
    for (x, y) in [(0, 0), (0, 17), (107, 0), (50, 0)] {
        assert_fails(run(kernel.0, at.wrapping_add(x), at.wrapping_add(y)), POLYPHASE_ERROR_TENSOR, &["overlap"]);
    }
    // Side by side is not overlapping.
    assert_eq!(run(kernel.0, at, at.wrapping_add(18)).0, POLYPHASE_OK);
    // SAFETY: null is ignored.
    unsafe { polyphase_kernel_free(null_mut()) };
}

#[test]
fn texts_that_are_not_utf8_are_errors() {
    let (w, mut out) = (integers(24), null_mut());
    // SAFETY: the text ends with a zero byte; the weights are as long as is said.
    let code = unsafe { polyphase_compile(c"{\"cin\": \xff}".as_ptr(), null(), w.as_ptr().cast(), 96, null(), 0, &mut out) };
    assert_fails((code, last_error()), POLYPHASE_ERROR_PARSE, &["problem_json is not UTF-8 from byte 8 on"]);
}

#[test]
fn each_thread_has_its_own_error_and_success_clears_it() {
    let w = integers(24);
    compile_with("{", None, &w, &[]).unwrap_err();
    let mine = last_error();
    let theirs = std::thread::spawn(|| {
        let before = last_error();
        compile_with(LAYER, Some(r#"{"threads": 0}"#), &integers(24), &[]).unwrap_err();
        (before, last_error())
    });
    let (before, after) = theirs.join().unwrap();
    assert!(before.is_empty() && after.contains("threads is `0`"), "{before} / {after}");
    assert_eq!(last_error(), mine);
    drop(compile_with(LAYER, None, &w, &[]).unwrap());
    assert!(last_error().is_empty());
}

#[test]
fn one_kernel_runs_on_many_threads() {
    let (w, x) = (integers(24), integers(18));
    let kernel = compile_with(LAYER, Some(r#"{"threads": 2}"#), &w, &[]).unwrap();
    let mut expected = vec![0.0f32; 108];
    assert_eq!(run(&kernel, &x, &mut expected), POLYPHASE_OK);
    let at = kernel.0 as usize;
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                let mut y = vec![0.0f32; 108];
                for _ in 0..50 {
                    // SAFETY: the kernel outlives the scope; the output is this thread's.
                    let code = unsafe { polyphase_run(at as *const PolyphaseKernel, x.as_ptr().cast(), 72, y.as_mut_ptr().cast(), 432) };
                    assert_eq!(code, POLYPHASE_OK);
                    assert_eq!(y, expected);
                }
            });
        }
    });
}

#[test]
fn the_version_is_the_crates() {
    // SAFETY: a static text that ends with a zero byte.
    assert_eq!(unsafe { CStr::from_ptr(polyphase_version()) }.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_header_is_what_cbindgen_makes() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_config(config).with_src(root().join("src/capi/mod.rs")).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = root().join("docs/polyphase.h");
    if std::env::var("POLYPHASE_BLESS").is_ok_and(|v| v == "1") {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/polyphase.h is not what src/capi/mod.rs says; POLYPHASE_BLESS=1 cargo test --test capi writes it anew:\n{made}"
    );
}

/// The shared library, which cargo builds beside the one that this test is linked with.
fn shared_library() -> Option<PathBuf> {
    let deps = std::env::current_exe().ok()?.parent()?.to_path_buf();
    let name = format!("{}polyphase{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    [deps.join(&name), deps.parent()?.join(&name)].into_iter().find(|p| p.is_file())
}

/// Compiles the example with a compiler, if there is one for this target, and runs it.
fn build_and_run(compiler: &str, flags: &[&str], suffix: &str) -> Option<String> {
    let machine = Command::new(compiler).arg("-dumpmachine").output().ok().filter(|o| o.status.success());
    let machine = String::from_utf8(machine?.stdout).ok()?;
    let arch = std::env::consts::ARCH;
    if !(machine.starts_with(arch) || arch == "aarch64" && machine.starts_with("arm64")) {
        return None;
    }
    let library = shared_library().expect("cargo builds the cdylib with the library");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("c_api_{suffix}"));
    let built = Command::new(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-Werror", "-I"])
        .arg(root().join("docs"))
        .arg(root().join("examples/c_api.c"))
        .args(if compiler == "c++" { ["-x", "none"].as_slice() } else { &[] })
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(&program).output().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    Some(String::from_utf8(run.stdout).unwrap())
}

#[test]
fn a_c_program_compiles_and_computes() {
    let expected = format!(
        "polyphase {}\n   6  12  14  12  14  12  14   7\n  12  24  28  24  28  24  28  14\n 1.5 10.5 2.5 20.5\n 1.5 10.5 2.5 20.5 3.5 30.5\na stride of 0: ",
        env!("CARGO_PKG_VERSION")
    );
    for (compiler, flags, suffix) in [("cc", ["-std=c99", "-pedantic"].as_slice(), "c"), ("c++", &["-x", "c++"], "cpp")] {
        match build_and_run(compiler, flags, suffix) {
            Some(said) => assert!(said.starts_with(&expected) && said.contains("stride is 0"), "{said}"),
            None => eprintln!("skipped: no `{compiler}` for {}", std::env::consts::ARCH),
        }
    }
}
