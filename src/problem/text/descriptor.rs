//! The compact descriptor: one line that prints and parses back to the same problem.
//!
//! ```text
//! rank  batch  c_in x input extents -> c_out   options, in any order
//! 2d    n1     512x4x4              -> 256     k4 s2 p1
//!
//! k s p pe op d g     kernel, stride, padding, padding at the end (if not p), output padding, dilation, groups
//!                     one value for every axis, or one per axis: k4x3 p-1x2
//! n? 64x?x?           an extent that is open until run time
//! bias                words: relu leaky_relu(0.1) clamp(0,6) tanh sigmoid | mean max | nwc nhwc ndhwc | f64
//! ```
//!
//! What is at its default (stride 1, padding 0, one group …) is not printed; the batch always is.
//!
//! ```
//! use polyphase::Deconv;
//! let layer: Deconv = "2d n? 64x?x? -> 3 k4x3 s2 p-1x2 pe1 bias leaky_relu(0.1) nhwc".parse()?;
//! assert_eq!(layer.pad_begin, [-1, 2]);
//! assert_eq!(layer.to_string(), "2d n? 64x?x? -> 3 k4x3 s2 p-1x2 pe1 bias leaky_relu(0.1) nhwc");
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{activation, parse_error, quoted};
use crate::error::{Error, Result};
use crate::ir::Elem;
use crate::problem::{Activation, Deconv, DeconvBuilder, Extent, Layout, Merge};
use std::fmt;
use std::str::FromStr;

const EXAMPLE: &str = "2d n1 512x4x4 -> 256 k4 s2 p1";
const OPTIONS: &str = "k s p pe op d g with values, bias, an activation (relu, leaky_relu(slope), clamp(lo,hi), tanh, sigmoid), \
                       a merge (sum, mean, max), a layout (nchw, nhwc), f32 and f64";

impl fmt::Display for Extent {
    /// The number, or `?`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Fixed(v) => write!(f, "{v}"),
            Extent::Open(_) => f.write_str("?"),
        }
    }
}

/// Writes ` k4` or ` k4x3`; nothing if every value is the default.
fn values<T: fmt::Display + PartialEq>(f: &mut fmt::Formatter<'_>, key: &str, v: &[T], default: Option<T>) -> fmt::Result {
    if default.is_some_and(|d| v.iter().all(|x| *x == d)) {
        return Ok(());
    }
    let shown = if v.iter().all(|x| *x == v[0]) { &v[..v.len().min(1)] } else { v };
    write!(f, " {key}{}", joined(shown))
}

fn joined<T: fmt::Display>(v: &[T]) -> String {
    v.iter().map(T::to_string).collect::<Vec<_>>().join("x")
}

/// The word for channels-last data of a rank.
fn channels_last(rank: usize) -> &'static str {
    ["nwc", "nhwc", "ndhwc"][rank.clamp(1, 3) - 1]
}

impl fmt::Display for Deconv {
    /// The compact descriptor; it parses back to the same problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = joined(&self.input);
        write!(f, "{}d n{} {}x{input} -> {}", self.rank(), self.batch, self.c_in, self.c_out)?;
        values(f, "k", &self.kernel, None)?;
        values(f, "s", &self.stride, Some(1))?;
        values(f, "p", &self.pad_begin, Some(0))?;
        if self.pad_end != self.pad_begin {
            values(f, "pe", &self.pad_end, None)?;
        }
        values(f, "op", &self.output_padding, Some(0))?;
        values(f, "d", &self.dilation, Some(1))?;
        values(f, "g", &[self.groups], Some(1))?;
        let words = [
            self.bias.then(|| "bias".to_string()),
            activation::word(self.activation),
            match self.merge {
                Merge::Sum => None,
                Merge::Mean => Some("mean".into()),
                Merge::Max => Some("max".into()),
            },
            (self.layout == Layout::ChannelsLast).then(|| channels_last(self.rank()).into()),
            (self.elem == Elem::F64).then(|| "f64".into()),
        ];
        words.iter().flatten().try_for_each(|w| write!(f, " {w}"))
    }
}

/// Splits at white space, but not inside parentheses, and makes `->` a word of its own.
fn words(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut depth = 0usize;
    for c in text.replace("->", " -> ").chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !c.is_whitespace() {
            out.last_mut().expect("never empty").push(c);
        } else if depth == 0 {
            out.push(String::new());
        }
    }
    out.retain(|w| !w.is_empty());
    out
}

fn integer(text: &str, word: &str) -> Result<i64> {
    text.parse().map_err(|_| parse_error(format!("{} in {} is not an integer", quoted(text), quoted(word))))
}

fn extent(text: &str, word: &str) -> Result<Option<i64>> {
    if text == "?" { Ok(None) } else { integer(text, word).map(Some) }
}

/// One value for every axis, or one per axis.
fn per_axis(text: &str, word: &str, rank: usize) -> Result<Vec<i64>> {
    let v = text.split('x').map(|t| integer(t, word)).collect::<Result<Vec<_>>>()?;
    match v.len() {
        1 => Ok(vec![v[0]; rank]),
        n if n == rank => Ok(v),
        n => Err(parse_error(format!("{} has {n} values; 1 or {rank} are legal", quoted(word)))),
    }
}

/// What the options say, before they go to the builder.
#[derive(Default)]
struct Options {
    axes: Vec<(&'static str, Vec<i64>)>,
    groups: Option<i64>,
    bias: bool,
    activation: Option<Activation>,
    merge: Option<Merge>,
    layout: Option<Layout>,
    elem: Option<Elem>,
}

/// Sets what may be said only once.
fn once<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(parse_error(format!("{} says again what an earlier word has said", quoted(word)))),
    }
}

impl Options {
    fn read(&mut self, word: &str, rank: usize) -> Result<()> {
        if let Some(a) = activation::parse(word) {
            return once(&mut self.activation, a?, word);
        }
        match word {
            "bias" if self.bias => return once(&mut Some(()), (), word),
            "bias" => self.bias = true,
            "sum" => return once(&mut self.merge, Merge::Sum, word),
            "mean" => return once(&mut self.merge, Merge::Mean, word),
            "max" => return once(&mut self.merge, Merge::Max, word),
            "ncw" | "nchw" | "ncdhw" => return once(&mut self.layout, Layout::ChannelsFirst, word),
            "nwc" | "nhwc" | "ndhwc" => return once(&mut self.layout, Layout::ChannelsLast, word),
            "f32" => return once(&mut self.elem, Elem::F32, word),
            "f64" => return once(&mut self.elem, Elem::F64, word),
            _ => {
                let letters = word.bytes().take_while(u8::is_ascii_alphabetic).count();
                let (key, rest) = word.split_at(letters);
                if key == "g" {
                    return once(&mut self.groups, integer(rest, word)?, word);
                }
                let known = ["k", "s", "p", "pe", "op", "d"].into_iter().find(|k| *k == key);
                let key = known.ok_or_else(|| parse_error(format!("{} is unknown here; legal are {OPTIONS}", quoted(word))))?;
                if self.axes.iter().any(|(k, _)| *k == key) {
                    return once(&mut Some(()), (), word);
                }
                self.axes.push((key, per_axis(rest, word, rank)?));
            }
        }
        Ok(())
    }

    fn axis_values(&self, key: &str) -> Option<Vec<i64>> {
        self.axes.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone())
    }
}

impl FromStr for Deconv {
    type Err = Error;

    /// Reads the compact descriptor.
    fn from_str(text: &str) -> Result<Deconv> {
        let words = words(text);
        let shape = |what: &str| parse_error(format!("{} {what}; a descriptor reads like `{EXAMPLE}`", quoted(text.trim())));
        let arrow = words.iter().position(|w| w == "->").ok_or_else(|| shape("has no ->"))?;
        let (head, tail) = (&words[..arrow], &words[arrow + 1..]);
        let (rank, batch, data) = match head {
            [rank, data] => (rank, "n1", data),
            [rank, batch, data] => (rank, batch.as_str(), data),
            _ => return Err(shape("does not have rank, batch and input before the ->")),
        };
        let rank = match rank.as_str() {
            "1d" => 1,
            "2d" => 2,
            "3d" => 3,
            other => return Err(parse_error(format!("the rank is {}; 1d, 2d and 3d are legal", quoted(other)))),
        };
        let batch = batch.strip_prefix('n').ok_or_else(|| parse_error(format!("the batch is {}; n1 or n? is legal", quoted(batch))))?;
        let (c_in, extents) = data.split_once('x').ok_or_else(|| shape("has no input extents such as 512x4x4"))?;
        let extents = extents.split('x').map(|t| extent(t, data)).collect::<Result<Vec<_>>>()?;
        let (c_out, options) = tail.split_first().ok_or_else(|| shape("has no output channels after the ->"))?;
        let mut o = Options::default();
        options.iter().try_for_each(|w| o.read(w, rank))?;
        let kernel = o.axis_values("k").ok_or_else(|| shape("has no kernel such as k4"))?;
        let b = DeconvBuilder::new(rank, integer(c_in, data)?, integer(c_out, c_out)?, kernel).input_extents(extents);
        let b = match extent(batch, batch)? {
            Some(n) => b.batch(n),
            None => b.open_batch(),
        };
        let or = |key, default| o.axis_values(key).unwrap_or_else(|| vec![default; rank]);
        let begin = or("p", 0);
        let end = o.axis_values("pe").unwrap_or_else(|| begin.clone());
        b.stride(or("s", 1))
            .padding_begin_end(begin, end)
            .output_padding(or("op", 0))
            .dilation(or("d", 1))
            .groups(o.groups.unwrap_or(1))
            .bias(o.bias)
            .activation(o.activation.unwrap_or(Activation::None))
            .merge(o.merge.unwrap_or(Merge::Sum))
            .layout(o.layout.unwrap_or(Layout::ChannelsFirst))
            .elem(o.elem.unwrap_or(Elem::F32))
            .build()
    }
}
