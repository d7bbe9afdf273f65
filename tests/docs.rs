//! Lists in `docs/architecture.md` that would otherwise drift: files with `unsafe`, and dependencies.

use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../docs/architecture.md");

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if e.is_dir() {
            sources(&e, out);
        } else if e.extension().is_some_and(|x| x == "rs") {
            out.push(e);
        }
    }
}

/// Whether a line of code, comments left out, has the keyword.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn every_file_with_unsafe_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let section = PAGE.split("## Where `unsafe` is").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    assert!(listed.len() > 3, "{listed:?}");
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    for f in files {
        let name = f.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        let found = std::fs::read_to_string(&f).unwrap().lines().any(is_unsafe);
        assert!(!found || listed.iter().any(|l| name.starts_with(l)), "{name} has `unsafe` and docs/architecture.md does not list it");
    }
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = include_str!("../Cargo.toml");
    let mut inside = false;
    let mut count = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(" = ")) {
            count += 1;
            assert!(
                PAGE.contains(&format!("`{}`", name.trim())),
                "{name} is a dependency, and docs/architecture.md gives no reason for it"
            );
        }
    }
    assert!(count > 10, "only {count} dependencies were found in Cargo.toml");
}
