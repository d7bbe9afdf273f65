//! Text tests that carry their own expectation: every file of `tests/filetests/`.
//!
//! The head of a file says what it tests; lines are `// key: value`:
//!
//! ```text
//! // test: naive           the naive nest of `problem` is the text that follows
//! // test: pass NAME       the text after `// before` becomes, by that pass and the clean-up, the text after `// after`
//! // test: verify-error    the function that follows breaks invariants; `// error:` lines at the end list them
//! // test: run             `// run:` lines give inputs and outputs for the interpreter at every stage and native code at every level
//! // problem: DESCRIPTOR   the layer; in `pass` tests both texts must compute it
//! // plan: PLAN            as plans print; `run` tests without one take the compiler's
//! // run: size N S… x=FILL w=FILL bias=FILL => VALUES
//! ```
//!
//! `size` gives batch and spatial extents where they are open. A fill is `ones`, `count` (1, 2, 3 …), `seed:N` (integers from -3 to 3) or
//! values with commas; without fills they are seeds. `VALUES` are the outputs, or `reference`.
//!
//! `POLYPHASE_BLESS=1 cargo test --test filetests` writes what the compiler does now into the files. Where `// before` is empty, blessing
//! fills in what the passes before it make of the problem.

mod support;

use polyphase::ir::{self, Func};
use polyphase::passes::{self, PASSES, Pass, snapshots};
use polyphase::plan::Plan;
use polyphase::{Deconv, Elem};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use support::*;

/// A file taken apart.
struct File {
    name: String,
    head: Vec<(String, String)>,
    head_text: String,
    body: String,
}

impl File {
    fn read(path: &Path) -> File {
        let text = std::fs::read_to_string(path).unwrap();
        let end = text.lines().take_while(|l| l.starts_with("// ") && !matches!(*l, "// before" | "// after")).map(|l| l.len() + 1).sum();
        let (head_text, body) = text.split_at(text.len().min(end));
        let head = head_text.lines().filter_map(|l| l[3..].split_once(": ")).map(|(k, v)| (k.into(), v.trim().into())).collect();
        File { name: path.file_name().unwrap().to_string_lossy().into(), head, head_text: head_text.into(), body: body.into() }
    }
    fn find(&self, key: &str) -> Option<&str> {
        self.head.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_else(|| panic!("{}: there is no `// {key}:` line", self.name))
    }
    fn problem(&self) -> Deconv {
        self.get("problem").parse().unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
    fn plan(&self) -> Option<Plan> {
        self.find("plan").map(|t| plan(t, self.problem().rank()))
    }
}

fn parse(f: &File, text: &str) -> Func {
    ir::parse(text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", f.name))
}

/// What the body of the file should be.
fn naive(f: &File) -> String {
    format!("\n{}", passes::naive::build(&f.problem()))
}

/// What the passes before number `at` make of the problem.
fn before_pass(f: &File, at: usize, plan: &Plan) -> Func {
    PASSES[..at].iter().fold(passes::naive::build(&f.problem()), |func, p| apply(f, p, func, plan))
}

/// One pass and the clean-up after it.
fn apply(f: &File, pass: &Pass, func: Func, plan: &Plan) -> Func {
    let text = func.to_string();
    pass.apply(func, plan).unwrap_or_else(|e| panic!("{}: {e}\n{text}", f.name)).0
}

fn pass(f: &File, name: &str) -> String {
    let at = PASSES.iter().position(|p| p.name == name).unwrap_or_else(|| panic!("{}: there is no pass {name}", f.name));
    let plan = f.plan().unwrap_or_else(|| panic!("{}: a pass needs a plan", f.name));
    let before = f.body.split("// after\n").next().unwrap().trim_start_matches("// before\n").trim();
    let before = match before {
        "" => before_pass(f, at, &plan),
        text => parse(f, text),
    };
    before.verify().unwrap_or_else(|e| panic!("{}: {e}", f.name));
    let after = apply(f, &PASSES[at], before.clone(), &plan);
    for (when, func) in [("before", &before), ("after", &after)] {
        computes(f, when, func);
    }
    format!("// before\n{before}\n// after\n{after}")
}

/// The function computes the file's problem: integers exactly, at a few sizes where extents are open.
fn computes(f: &File, when: &str, func: &Func) {
    let p = f.problem();
    for (batch, extents) in [(1, [2, 3, 5]), (2, [4, 1, 9])] {
        let size = |e: &polyphase::Extent, v: usize| if let polyphase::Extent::Fixed(v) = e { *v } else { v };
        let spatial: Vec<usize> = p.input.iter().zip(extents).map(|(e, v)| size(e, v)).collect();
        let what = format!("{}: the text {when} the pass", f.name);
        match p.elem {
            Elem::F32 => computed::<f32>(&p, size(&p.batch, batch), &spatial, &what, func),
            Elem::F64 => computed::<f64>(&p, size(&p.batch, batch), &spatial, &what, func),
        }
    }
}

fn computed<T: Num>(p: &Deconv, batch: usize, spatial: &[usize], what: &str, func: &Func) {
    let case = Case::<T>::sized(p, batch, spatial, Fill::Ints, 5);
    // Coefficients of the transforms in these files are halves: what a direct plan makes exact stays so.
    let direct = plan("gather in-place along qx x1", p.rank());
    like_reference(what, &case, &direct, case.exact(), &case.interpret(func));
}

fn verify_error(f: &File) -> String {
    let text = f.body.split("\n// error: ").next().unwrap().trim();
    let func = parse(f, text);
    let found = ir::verify(&func).err().unwrap_or_else(|| panic!("{}: the function verifies", f.name));
    let errors = found.iter().fold(String::new(), |mut all, d| {
        let _ = writeln!(all, "// error: {d}");
        all
    });
    format!("\n{text}\n\n{errors}")
}

/// `run:` lines; the body is empty.
fn run(f: &File) -> String {
    let lines: Vec<_> = f.head.iter().filter(|(k, _)| k == "run").collect();
    assert!(!lines.is_empty(), "{}: there is no `// run:` line", f.name);
    for (_, line) in lines {
        match f.problem().elem {
            Elem::F32 => run_line::<f32>(f, line),
            Elem::F64 => run_line::<f64>(f, line),
        }
    }
    f.body.clone()
}

fn fill<T: Num>(text: &str, n: usize) -> Vec<T> {
    let values: Vec<T> = match text.split_once(':') {
        Some(("seed", s)) => filled(n, Fill::Ints, s.parse().unwrap()),
        _ if text == "ones" => vec![T::of(1.0); n],
        _ if text == "count" => (1..=n).map(|i| T::of(i as f64)).collect(),
        _ => text.split(',').map(|v| T::of(v.parse().unwrap_or_else(|e| panic!("fill {text}: {e}")))).collect(),
    };
    assert_eq!(values.len(), n, "fill {text}");
    values
}

fn run_line<T: Num>(f: &File, line: &str) {
    let p = f.problem();
    let (inputs, outputs) = line.split_once("=>").unwrap_or_else(|| panic!("{}: `{line}` has no =>", f.name));
    let mut words = inputs.split_whitespace().peekable();
    let (batch, spatial) = if words.next_if_eq(&"size").is_some() {
        let mut next = || words.next().unwrap().parse::<usize>().unwrap();
        (next(), (0..p.rank()).map(|_| next()).collect())
    } else {
        p.fixed_shape().unwrap_or_else(|| panic!("{}: `{line}` needs a size", f.name))
    };
    let mut case = Case::<T>::sized(&p, batch, &spatial, Fill::Ints, 1);
    for w in words {
        let (tensor, values) = w.split_once('=').unwrap_or_else(|| panic!("{}: `{w}` is no fill", f.name));
        match tensor {
            "x" => case.x = fill(values, case.x.len()),
            "w" => case.w = fill(values, case.w.len()),
            "bias" => case.bias = Some(fill(values, p.c_out)),
            _ => panic!("{}: `{tensor}` is no tensor", f.name),
        }
    }
    let want = match outputs.trim() {
        "reference" => case.reference().into_iter().map(T::of).collect(),
        values => fill::<T>(&values.split_whitespace().collect::<Vec<_>>().join(","), case.output_len()),
    };
    for isa in levels() {
        let mut options = at(isa);
        options.plan = f.plan().map(|p| Plan { fma: isa.fma(), ..p });
        let kernel = case.kernel(&options);
        let what = format!("{}: `{line}` by {}", f.name, label(&kernel));
        same_bits(&what, &want, &case.run(&kernel));
        for s in snapshots(&p, kernel.plan()).unwrap() {
            same_bits(&format!("{what}, interpreted after {}", s.pass), &want, &case.interpret(&s.func));
        }
    }
}

fn expected(f: &File) -> String {
    match f.get("test").split_once(' ') {
        Some(("pass", name)) => pass(f, name),
        None if f.get("test") == "naive" => naive(f),
        None if f.get("test") == "verify-error" => verify_error(f),
        None if f.get("test") == "run" => run(f),
        _ => panic!("{}: unknown test `{}`", f.name, f.get("test")),
    }
}

/// The first line in which texts differ.
fn difference(old: &str, new: &str) -> String {
    let at = old.lines().zip(new.lines()).position(|(a, b)| a != b).unwrap_or_else(|| old.lines().count().min(new.lines().count()));
    let line = |t: &str| t.lines().nth(at).unwrap_or("(end)").to_string();
    format!("line {} after the head:\n  in the file  {}\n  now          {}", at + 1, line(old), line(new))
}

fn check(path: &Path) {
    let f = File::read(path);
    let now = expected(&f);
    if now == f.body {
        return;
    }
    if std::env::var("POLYPHASE_BLESS").is_ok_and(|v| v == "1") {
        std::fs::write(path, format!("{}{now}", f.head_text)).unwrap();
        println!("blessed {}", f.name);
        return;
    }
    panic!("{}: {}\nThe whole text is now\n{now}\nPOLYPHASE_BLESS=1 writes it into the file", f.name, difference(&f.body, &now));
}

#[test]
fn every_file_holds() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "ir")).collect();
    paths.sort();
    assert!(paths.len() >= 15, "only {} files in {}", paths.len(), dir.display());
    let mut failed = Vec::new();
    for p in &paths {
        if let Err(e) = std::panic::catch_unwind(|| check(p)) {
            let text = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
            failed.push(text.unwrap_or_default());
        }
    }
    assert!(failed.is_empty(), "{} of {} files failed:\n\n{}", failed.len(), paths.len(), failed.join("\n\n"));
}

#[test]
fn every_pass_has_a_file() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let tests: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| File::read(&e.unwrap().path())).filter_map(|f| f.find("test").map(String::from)).collect();
    for p in PASSES {
        assert!(tests.iter().any(|t| *t == format!("pass {}", p.name)), "pass {} has no file", p.name);
    }
}

/// Fragments of `docs/passes.md` with the file and the part that they are said to come from.
fn fragments(page: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let said = page.split("\nFrom `").skip(1).map(|rest| {
        let (file, rest) = rest.split_once("`, ").expect("a file name in backquotes");
        let (part, rest) = rest.split_once(":\n\n```text\n").expect("a part, then a block");
        let block = rest.split("```").next().unwrap();
        (file, part, block.lines().map(str::trim).collect())
    });
    said.collect()
}

#[test]
fn fragments_in_the_docs_stand_in_these_files() {
    let fragments = fragments(include_str!("../docs/passes.md"));
    assert!(fragments.len() > PASSES.len(), "only {} fragments", fragments.len());
    for (file, part, want) in fragments {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = text.split(&format!("// {part}\n")).nth(1).unwrap_or_else(|| panic!("{file} has no part {part}"));
        let text: Vec<&str> = text.split("// after\n").next().unwrap().lines().map(str::trim).collect();
        assert!(
            text.windows(want.len()).any(|w| w == want),
            "{file}, {part}, does not have the fragment of docs/passes.md\n{}",
            want.join("\n")
        );
    }
}

#[test]
fn the_page_on_passes_names_every_pass() {
    let page = include_str!("../docs/passes.md");
    for p in PASSES {
        assert!(
            page.contains(&format!("\n## {}\n", p.name)) && page.contains(&format!("| `{}` |", p.name)),
            "docs/passes.md lacks {}",
            p.name
        );
    }
}
