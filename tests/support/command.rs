//! Running the command, and what it left: for tests of what people see. Each test binary uses a part of it.
#![allow(dead_code)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

pub fn run_in(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyphase"));
    let done = command.args(args).current_dir(dir).stdin(Stdio::null()).output().expect("the binary runs");
    Ran {
        status: done.status.code().expect("it was not killed"),
        out: String::from_utf8(done.stdout).expect("the output is UTF-8"),
        err: String::from_utf8(done.stderr).expect("errors are UTF-8"),
    }
}

pub fn run(args: &[&str]) -> Ran {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

/// The output of a run that must succeed.
pub fn ok(args: &[&str]) -> String {
    let r = run(args);
    assert_eq!((r.status, r.err.as_str()), (0, ""), "{args:?}");
    r.out
}

pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("--json prints JSON")
}

/// A directory of its own for one test.
pub fn directory(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(test);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

pub fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

/// Exit status 2, nothing on standard output, and one sentence that has the given words.
#[track_caller]
pub fn refused(args: &[&str], words: &str) {
    let r = run(args);
    assert_eq!(r.status, 2, "{args:?}: {}", r.err);
    assert!(r.err.starts_with("error: ") && r.err.contains(words), "{args:?}: {}", r.err);
    assert!(!r.err.contains("panicked") && !r.err.contains("RUST_BACKTRACE"), "{args:?}: {}", r.err);
    assert_eq!(r.out, "", "{args:?}");
}
