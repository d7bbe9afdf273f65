//! The plan file: tuned plans of one CPU, to be shipped with an application.
//!
//! JSON: `{"cpu": "…", "entries": [{"problem": "2d n1 …", "isa": "avx2", "threads": 1, "plan": "gather panel …"}]}`. Needs a file that
//! may be anything; leaves plans that parse. A plan is used only for the CPU, problem, level and number of threads that it was timed with.
//!
//! ```
//! use polyphase::{Deconv, codegen::target::Isa, plan::tune::PlanFile};
//! let layer: Deconv = "1d n1 4x20 -> 8 k4 s2 p1".parse()?;
//! let mut file = PlanFile::new();
//! file.insert(&layer, Isa::Sse2, 1, "gather in-place oc=8 along oc x4 block 0".parse()?)?;
//! assert!(file.get(&layer, Isa::Sse2, 1).is_ok());
//! assert!(file.get(&layer, Isa::Sse2, 2).unwrap_err().starts_with("the plan file has no plan for"));
//!
//! file.cpu = "another".into();
//! assert!(file.get(&layer, Isa::Sse2, 1).unwrap_err().starts_with("the plan file is for the CPU 'another'"));
//! # Ok::<(), polyphase::Error>(())
//! ```

use crate::codegen::target::Isa;
use crate::plan::Plan;
use crate::problem::Deconv;
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Tuned plans of one CPU.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanFile {
    /// The model of the CPU, as [`cpu`] gives it.
    pub cpu: String,
    /// The plans.
    pub entries: Vec<Entry>,
}

/// One tuned plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The problem.
    pub problem: Deconv,
    /// The instruction-set level.
    pub isa: Isa,
    /// The number of threads.
    pub threads: usize,
    /// The plan.
    pub plan: Plan,
}

/// The file as it stands.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    cpu: String,
    entries: Vec<RawEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    problem: String,
    isa: String,
    threads: usize,
    plan: String,
}

impl Default for PlanFile {
    fn default() -> Self {
        PlanFile::new()
    }
}

impl PlanFile {
    /// A file without plans, for this machine's CPU.
    pub fn new() -> PlanFile {
        PlanFile { cpu: cpu(), entries: Vec::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Io`] if it cannot be read, [`Kind::Parse`] if it is no plan file; both name it.
    pub fn load(path: &Path) -> Result<PlanFile> {
        let at = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| Error::new(Kind::Io, format!("the plan file {at} cannot be read: {e}")))?;
        PlanFile::parse(&text).map_err(|e| e.context(format_args!("the plan file {at}")))
    }

    /// Writes the file: all of it or, if that fails, nothing.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |e: std::io::Error| Error::new(Kind::Io, format!("the plan file {} cannot be written: {e}", path.display()));
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        let written = std::fs::write(&beside, self.to_json()).and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            // The error that counts is the first one.
            let _ = std::fs::remove_file(&beside);
        }
        written.map_err(failed)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`Kind::Parse`], naming the entry.
    pub fn parse(text: &str) -> Result<PlanFile> {
        let raw: RawFile = serde_json::from_str(text).map_err(|e| Error::new(Kind::Parse, format!("not a plan file: {e}")))?;
        let entry = |(i, e): (usize, RawEntry)| read_entry(&e).map_err(|err| err.context(format_args!("entry {i}")));
        Ok(PlanFile { cpu: raw.cpu, entries: raw.entries.into_iter().enumerate().map(entry).collect::<Result<_>>()? })
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        let entry =
            |e: &Entry| RawEntry { problem: e.problem.to_string(), isa: e.isa.name().into(), threads: e.threads, plan: e.plan.to_string() };
        let raw = RawFile { cpu: self.cpu.clone(), entries: self.entries.iter().map(entry).collect() };
        serde_json::to_string_pretty(&raw).expect("strings and numbers are JSON") + "\n"
    }

    /// The plan for a problem at a level on so many threads, or else the reason why there is none.
    ///
    /// # Errors
    /// The reason, as a sentence: the file is for another CPU, or has no such entry.
    pub fn get(&self, problem: &Deconv, isa: Isa, threads: usize) -> std::result::Result<&Plan, String> {
        self.fits_here()?;
        let found = self.entries.iter().find(|e| (&e.problem, e.isa, e.threads) == (problem, isa, threads));
        found.map(|e| &e.plan).ok_or_else(|| {
            format!("the plan file has no plan for '{problem}' at {isa} on {threads} threads among its {} entries", self.entries.len())
        })
    }

    /// Adds a plan that was timed on this machine, in place of any there is for the same problem, level and threads.
    ///
    /// # Errors
    /// [`Kind::Options`] if the file is for another CPU.
    pub fn insert(&mut self, problem: &Deconv, isa: Isa, threads: usize, plan: Plan) -> Result<()> {
        self.fits_here().map_err(|reason| Error::new(Kind::Options, format!("{reason}; use another file")))?;
        let new = Entry { problem: problem.clone(), isa, threads, plan };
        match self.entries.iter_mut().find(|e| (&e.problem, e.isa, e.threads) == (problem, isa, threads)) {
            Some(old) => *old = new,
            None => self.entries.push(new),
        }
        Ok(())
    }

    fn fits_here(&self) -> std::result::Result<(), String> {
        match cpu() {
            here if here == self.cpu => Ok(()),
            here => Err(format!("the plan file is for the CPU '{}', this one is '{here}'", self.cpu)),
        }
    }
}

fn read_entry(raw: &RawEntry) -> Result<Entry> {
    let legal = Isa::ALL.map(Isa::name);
    let isa = Isa::ALL.into_iter().find(|i| i.name() == raw.isa);
    let isa = isa.ok_or_else(|| Error::new(Kind::Parse, format!("isa is '{}'; legal: {}", raw.isa.escape_debug(), legal.join(", "))))?;
    if raw.threads == 0 {
        return Err(Error::new(Kind::Parse, "threads is 0; it must be at least 1"));
    }
    let (problem, plan): (Deconv, Plan) = (raw.problem.parse()?, raw.plan.parse()?);
    if plan.block.len() != problem.rank() {
        let message = format!("the plan '{plan}' has {} block sizes; '{problem}' has {} axes", plan.block.len(), problem.rank());
        return Err(Error::new(Kind::Parse, message));
    }
    Ok(Entry { problem, isa, threads: raw.threads, plan })
}

/// The model of this machine's CPU as the system names it, or its architecture if the system does not say.
pub fn cpu() -> String {
    static MODEL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    MODEL.get_or_init(|| linux().or_else(macos).unwrap_or_else(|| std::env::consts::ARCH.to_string())).clone()
}

/// `model name` on x86-64; on aarch64, where there is none, the numbers of implementer and part.
fn linux() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = info.lines().find(|l| l.split(':').next().is_some_and(|key| key.trim() == name))?;
        line.split_once(':').map(|(_, v)| v.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|v| !v.is_empty())
    };
    field("model name").or_else(|| Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?)))
}

fn macos() -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let out = std::process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
    let name = String::from_utf8(out.stdout).ok()?.trim().to_string();
    (!name.is_empty()).then_some(name)
}
