//! A layer as JSON, in the form that layer lists are kept in.
//!
//! Needs one object or a list of them; leaves [`Layer`]s. What is derived (`nd`, `out` and the counts) is checked against the problem
//! wherever the extents it depends on are known. An unknown key is an error: a misspelt `"padding"` must not go unnoticed.
//!
//! ```
//! use polyphase::problem::text;
//! let text = r#"{"name": "up", "cin": 64, "in": ["?"], "cout": 32, "k": [4], "s": [2], "p": [1], "bias": true, "activation": {"leaky_relu": 0.1}}"#;
//! let layers = text::parse_json(text)?;
//! assert_eq!(layers[0].problem.to_string(), "1d n1 64x? -> 32 k4 s2 p1 bias leaky_relu(0.1)");
//!
//! let e = text::parse_json(r#"{"cin": 1, "cout": 1, "in": [4], "k": [2], "stride": [2]}"#).unwrap_err();
//! assert!(e.message.contains("unknown key `stride`"));
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{activation, parse_error, quoted};
use crate::error::Result;
use crate::ir::Elem;
use crate::problem::{Activation, Deconv, DeconvBuilder, Extent, Layout, Merge};
use serde_json::{Map, Value, json};

/// Every key a layer may have. `cin`, `cout`, `in` and `k` are required; `p_end` is the padding at the end where it differs from `p`.
pub const KEYS: [&str; 23] = [
    "name",
    "model",
    "nd",
    "n",
    "cin",
    "in",
    "cout",
    "k",
    "s",
    "p",
    "p_end",
    "op",
    "d",
    "g",
    "out",
    "bias",
    "activation",
    "merge",
    "layout",
    "dtype",
    "flops_useful",
    "flops_dense",
    "bytes_io",
];

/// A problem with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// What it is called; its descriptor, if the text does not say.
    pub name: String,
    /// What is computed.
    pub problem: Deconv,
}

/// Reads one layer or a list of layers.
///
/// # Errors
/// [`Kind::Parse`](crate::Kind::Parse) for text that is not JSON, unknown or missing keys, values of the wrong type, and derived values that
/// contradict the problem; [`Kind::Problem`](crate::Kind::Problem) for problems that cannot be. Each names its layer.
pub fn parse_json(text: &str) -> Result<Vec<Layer>> {
    let value: Value = serde_json::from_str(text).map_err(|e| parse_error(format!("not JSON: {e}")))?;
    match &value {
        Value::Array(layers) => layers.iter().enumerate().map(|(i, l)| layer(l, i)).collect(),
        one => Ok(vec![layer(one, 0)?]),
    }
}

/// The value as it stands in the text, shortened.
fn shown(v: &Value) -> String {
    quoted(&v.to_string())
}

fn layer(value: &Value, index: usize) -> Result<Layer> {
    let Value::Object(map) = value else {
        return Err(parse_error(format!("layer {index} is {}; an object is legal", shown(value))));
    };
    let name = map.get("name").and_then(Value::as_str);
    let at = name.map_or(format!("layer {index}"), |n| format!("layer {}", quoted(n)));
    let problem = problem(map).and_then(|p| check_derived(map, &p).map(|()| p)).map_err(|e| e.context(at))?;
    Ok(Layer { name: name.map_or_else(|| problem.to_string(), str::to_string), problem })
}

fn problem(map: &Map<String, Value>) -> Result<Deconv> {
    if let Some(key) = map.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(parse_error(format!("unknown key {}; legal keys are {}", quoted(key), KEYS.join(", "))));
    }
    for key in ["name", "model"] {
        if let Some(v) = map.get(key).filter(|v| !v.is_string()) {
            return Err(parse_error(format!("{key} is {}; a string is legal", shown(v))));
        }
    }
    let kernel = list(map, "k")?.ok_or_else(|| missing("k"))?;
    let rank = kernel.len();
    if let Some(nd) = map.get("nd").filter(|nd| nd.as_u64() != Some(rank as u64)) {
        return Err(parse_error(format!("nd is {}; k has {rank} values", shown(nd))));
    }
    let input = map.get("in").ok_or_else(|| missing("in"))?;
    let input = entries(input, "in", extent)?;
    let mut b = DeconvBuilder::new(rank, required(map, "cin")?, required(map, "cout")?, kernel).input_extents(input);
    b = match map.get("n").map(|v| extent("n", v)).transpose()? {
        Some(None) => b.open_batch(),
        Some(Some(n)) => b.batch(n),
        None => b,
    };
    if let Some(v) = list(map, "s")? {
        b = b.stride(v);
    }
    let begin = list(map, "p")?;
    b = match (begin, list(map, "p_end")?) {
        (Some(p), None) => b.padding(p),
        (None, Some(e)) => b.padding_begin_end(vec![0; rank], e),
        (Some(p), Some(e)) => b.padding_begin_end(p, e),
        (None, None) => b,
    };
    if let Some(v) = list(map, "op")? {
        b = b.output_padding(v);
    }
    if let Some(v) = list(map, "d")? {
        b = b.dilation(v);
    }
    if let Some(v) = map.get("g") {
        b = b.groups(integer("g", v)?);
    }
    epilogue(map, b)?.build()
}

/// The keys that are words: bias, activation, merge, layout, dtype.
fn epilogue(map: &Map<String, Value>, mut b: DeconvBuilder) -> Result<DeconvBuilder> {
    if let Some(v) = map.get("bias") {
        b = b.bias(v.as_bool().ok_or_else(|| parse_error(format!("bias is {}; true and false are legal", shown(v))))?);
    }
    if let Some(v) = map.get("activation") {
        b = b.activation(json_activation(v)?);
    }
    b = b.merge(one_of(map, "merge", [("sum", Merge::Sum), ("mean", Merge::Mean), ("max", Merge::Max)])?);
    let layouts = [("channels_first", Layout::ChannelsFirst), ("channels_last", Layout::ChannelsLast)];
    b = b.layout(one_of(map, "layout", layouts)?);
    Ok(b.elem(one_of(map, "dtype", [("f32", Elem::F32), ("f64", Elem::F64)])?))
}

/// The value of a word; the first one if the key is absent.
fn one_of<T: Copy, const N: usize>(map: &Map<String, Value>, key: &str, words: [(&str, T); N]) -> Result<T> {
    let Some(v) = map.get(key) else { return Ok(words[0].1) };
    let found = words.iter().find(|(w, _)| v.as_str() == Some(w));
    found.map(|&(_, t)| t).ok_or_else(|| {
        let legal = words.map(|(w, _)| w).join(", ");
        parse_error(format!("{key} is {}; {legal} are legal", shown(v)))
    })
}

fn json_activation(v: &Value) -> Result<Activation> {
    let illegal = || {
        parse_error(format!(
            "activation is {}; {{\"leaky_relu\": slope}}, {{\"clamp\": [lo, hi]}} or a word of {} are legal",
            shown(v),
            activation::LEGAL
        ))
    };
    let number = |v: &Value| match v {
        Value::String(s) => activation::number(s).map_err(|_| illegal()),
        v => v.as_f64().ok_or_else(illegal),
    };
    match v {
        Value::Null => Ok(Activation::None),
        Value::String(word) => activation::parse(word).unwrap_or_else(|| Err(illegal())),
        Value::Object(map) if map.len() == 1 => match (map.get("leaky_relu"), map.get("clamp")) {
            (Some(slope), _) => Ok(Activation::LeakyRelu(number(slope)?)),
            (_, Some(Value::Array(bounds))) if bounds.len() == 2 => Ok(Activation::Clamp(number(&bounds[0])?, number(&bounds[1])?)),
            _ => Err(illegal()),
        },
        _ => Err(illegal()),
    }
}

fn missing(key: &str) -> crate::Error {
    parse_error(format!("the key `{key}` is missing; cin, cout, in and k are required"))
}

fn integer(key: &str, v: &Value) -> Result<i64> {
    v.as_i64().ok_or_else(|| parse_error(format!("{key} is {}; an integer is legal", shown(v))))
}

fn required(map: &Map<String, Value>, key: &str) -> Result<i64> {
    integer(key, map.get(key).ok_or_else(|| missing(key))?)
}

/// A number, or `"?"` for an open extent.
fn extent(key: &str, v: &Value) -> Result<Option<i64>> {
    if v.as_str() == Some("?") {
        return Ok(None);
    }
    v.as_i64().map(Some).ok_or_else(|| parse_error(format!("{key} has {}; an integer or \"?\" is legal", shown(v))))
}

fn entries<T>(v: &Value, key: &str, read: impl Fn(&str, &Value) -> Result<T>) -> Result<Vec<T>> {
    let list = v.as_array().ok_or_else(|| parse_error(format!("{key} is {}; a list with one entry per axis is legal", shown(v))))?;
    list.iter().map(|v| read(key, v)).collect()
}

fn list(map: &Map<String, Value>, key: &str) -> Result<Option<Vec<i64>>> {
    map.get(key).map(|v| entries(v, key, integer)).transpose()
}

/// Checks `out` and the counts, where the extents they depend on are known.
fn check_derived(map: &Map<String, Value>, p: &Deconv) -> Result<()> {
    if let Some(v) = map.get("out") {
        let given = entries(v, "out", extent)?;
        if given.len() != p.rank() {
            return Err(parse_error(format!("out is {}; it needs {} entries", shown(v), p.rank())));
        }
        for (a, given) in given.into_iter().enumerate() {
            if let (Some(given), Some(out)) = (given, p.output_extent(a).as_const())
                && given != out
            {
                return Err(parse_error(format!("out is {}; its entry {a} must be {out} by the other keys", shown(v))));
            }
        }
    }
    let counts = p.fixed_shape().map(|(n, i)| [p.flops_useful(n, &i), p.flops_dense(n, &i), p.bytes_io(n, &i)]);
    for (at, key) in ["flops_useful", "flops_dense", "bytes_io"].into_iter().enumerate() {
        let Some(v) = map.get(key) else { continue };
        let right = counts.map(|c| c[at]);
        if !v.is_number() || right.is_some_and(|r| v.as_number().and_then(|n| n.as_u128()) != Some(r)) {
            let legal = right.map_or("a number".into(), |r| r.to_string());
            return Err(parse_error(format!("{key} is {}; by the other keys it must be {legal}", shown(v))));
        }
    }
    Ok(())
}

fn json_extent(e: &Extent) -> Value {
    match e {
        Extent::Fixed(v) => json!(v),
        Extent::Open(_) => json!("?"),
    }
}

/// A number, or `"inf"`, `"-inf"`, which JSON has no number for.
fn json_number(v: f64) -> Value {
    if v.is_finite() { json!(v) } else { json!(v.to_string()) }
}

impl Layer {
    /// The layer as a JSON object that [`parse_json`] reads back to the same layer. What is at its default is left out.
    pub fn to_json(&self) -> Value {
        let p = &self.problem;
        let mut map = Map::new();
        let mut put = |key: &str, v: Value| {
            map.insert(key.into(), v);
        };
        put("name", json!(self.name));
        put("nd", json!(p.rank()));
        put("n", json_extent(&p.batch));
        put("cin", json!(p.c_in));
        put("in", p.input.iter().map(json_extent).collect());
        put("cout", json!(p.c_out));
        put("k", json!(p.kernel));
        put("s", json!(p.stride));
        put("p", json!(p.pad_begin));
        if p.pad_end != p.pad_begin {
            put("p_end", json!(p.pad_end));
        }
        put("op", json!(p.output_padding));
        put("d", json!(p.dilation));
        put("g", json!(p.groups));
        put("out", (0..p.rank()).map(|a| p.output_extent(a).as_const().map_or(json!("?"), |v| json!(v))).collect());
        if p.bias {
            put("bias", json!(true));
        }
        match p.activation {
            Activation::None => {}
            Activation::LeakyRelu(slope) => put("activation", json!({"leaky_relu": json_number(slope)})),
            Activation::Clamp(lo, hi) => put("activation", json!({"clamp": [json_number(lo), json_number(hi)]})),
            a => put("activation", activation::word(a).into()),
        }
        match p.merge {
            Merge::Sum => {}
            Merge::Mean => put("merge", json!("mean")),
            Merge::Max => put("merge", json!("max")),
        }
        if p.layout == Layout::ChannelsLast {
            put("layout", json!("channels_last"));
        }
        if p.elem == Elem::F64 {
            put("dtype", json!("f64"));
        }
        if let Some((n, i)) = p.fixed_shape() {
            for (key, v) in
                [("flops_useful", p.flops_useful(n, &i)), ("flops_dense", p.flops_dense(n, &i)), ("bytes_io", p.bytes_io(n, &i))]
            {
                if let Ok(v) = u64::try_from(v) {
                    put(key, json!(v));
                }
            }
        }
        Value::Object(map)
    }
}
