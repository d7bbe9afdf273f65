//! Options as JSON, for callers that are not Rust: the C ABI and the command.
//!
//! Needs one object, whose keys are the fields of [`Options`]; leaves the options, with defaults for what is absent or null. An unknown
//! key is an error: a misspelt `"thread"` must not go unnoticed.
//!
//! ```
//! use polyphase::{Options, plan::Form};
//! let options = Options::from_json(r#"{"threads": 2, "form": "gather", "stream": true}"#)?;
//! assert_eq!(options, Options { threads: 2, form: Some(Form::Gather), stream: Some(true), ..Options::default() });
//!
//! let e = Options::from_json(r#"{"thread": 2}"#).unwrap_err();
//! assert_eq!(e.message, "options: unknown key `thread`; legal keys are threads, isa, processor, form, algorithm, rounding, typical, packing_limit, plan, stream");
//! # Ok::<(), polyphase::Error>(())
//! ```

use crate::codegen::target::Isa;
use crate::plan::{Algorithm, Form, Plan, Processor};
use crate::runtime::MAX_THREADS;
use crate::{Error, Kind, Options, Result};
use serde_json::{Map, Value};

/// Every key that options may have.
pub const KEYS: [&str; 10] = ["threads", "isa", "processor", "form", "algorithm", "rounding", "typical", "packing_limit", "plan", "stream"];

impl Options {
    /// Options from a JSON object such as `{"threads": 2, "isa": "avx2", "form": "gather", "plan": "gather panel …", "stream": true}`.
    /// Text of nothing but blanks, and `null`, stand for the defaults.
    ///
    /// # Errors
    /// [`Kind::Parse`] if it is not a JSON object or the plan cannot be read; [`Kind::Options`] for an unknown key, a value that is not
    /// legal, and an instruction set that this machine has not.
    pub fn from_json(text: &str) -> Result<Options> {
        read(text).map_err(|e| e.context("options"))
    }
}

fn read(text: &str) -> Result<Options> {
    if text.trim().is_empty() {
        return Ok(Options::default());
    }
    let value: Value = serde_json::from_str(text).map_err(|e| Error::new(Kind::Parse, format!("not JSON: {e}")))?;
    let map = match value {
        Value::Null => return Ok(Options::default()),
        Value::Object(map) => map,
        other => return Err(Error::new(Kind::Parse, format!("{}; an object is legal", shown(&other)))),
    };
    if let Some(key) = map.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(illegal(format!("unknown key {}; legal keys are {}", quoted(key), KEYS.join(", "))));
    }
    let mut options = Options::default();
    if let Some(v) = given(&map, "threads") {
        let threads = v.as_u64().and_then(|t| usize::try_from(t).ok()).filter(|t| (1..=MAX_THREADS).contains(t));
        options.threads = threads.ok_or_else(|| illegal(format!("threads is {}; 1 to {MAX_THREADS} are legal", shown(v))))?;
    }
    if let Some(v) = given(&map, "isa") {
        options.isa = Some(Isa::forced(string("isa", v)?)?);
    }
    if let Some(v) = given(&map, "processor") {
        options.processor = Some(Processor::named(string("processor", v)?)?);
    }
    if let Some(v) = given(&map, "form") {
        options.form = Some(match v.as_str() {
            Some("gather") => Form::Gather,
            Some("scatter") => Form::Scatter,
            _ => return Err(illegal(format!("form is {}; \"gather\" and \"scatter\" are legal", shown(v)))),
        });
    }
    if let Some(v) = given(&map, "algorithm") {
        options.algorithm = Some(Algorithm::named(string("algorithm", v)?)?);
    }
    if let Some(v) = given(&map, "rounding") {
        let most = v.as_f64().filter(|r| r.is_finite() && *r >= 0.0);
        options.rounding = most.ok_or_else(|| illegal(format!("rounding is {}; a number from 0 on is legal", shown(v))))?;
    }
    if let Some(v) = given(&map, "typical") {
        let size = |size: &Value| size.as_array()?.iter().map(|e| e.as_u64().and_then(|e| usize::try_from(e).ok())).collect();
        let sizes = v.as_array().and_then(|all| all.iter().map(size).collect::<Option<Vec<Vec<usize>>>>());
        let wrong = || illegal(format!("typical is {}; a list of sizes such as [[32, 32], [64, 64]] is legal", shown(v)));
        options.typical = sizes.ok_or_else(wrong)?;
    }
    if let Some(v) = given(&map, "packing_limit") {
        let bytes = v.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        options.packing_limit = Some(bytes.ok_or_else(|| illegal(format!("packing_limit is {}; a number of bytes is legal", shown(v))))?);
    }
    if let Some(v) = given(&map, "plan") {
        options.plan = Some(string("plan", v)?.parse::<Plan>()?);
    }
    if let Some(v) = given(&map, "stream") {
        options.stream = Some(v.as_bool().ok_or_else(|| illegal(format!("stream is {}; true and false are legal", shown(v))))?);
    }
    Ok(options)
}

fn given<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|v| !v.is_null())
}

fn string<'a>(key: &str, v: &'a Value) -> Result<&'a str> {
    v.as_str().ok_or_else(|| illegal(format!("{key} is {}; a string is legal", shown(v))))
}

fn illegal(message: String) -> Error {
    Error::new(Kind::Options, message)
}

/// The value as it stands in the text, shortened.
fn shown(v: &Value) -> String {
    quoted(&v.to_string())
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("`{}{}`", short.escape_debug(), if short.len() < text.len() { "…" } else { "" })
}
