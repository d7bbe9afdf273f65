//! Text in and out: PyTorch's module repr, JSON layers, and the compact descriptor.
//!
//! Needs nothing but text, which may be anything; leaves a validated [`Deconv`]. Errors say what was found and what is legal there.
//!
//! ```
//! use polyphase::problem::text;
//! let repr = "ConvTranspose2d(512, 256, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)";
//! let layer = text::read(repr, Some("1,512,4,4"))?;
//! assert_eq!(layer.to_string(), "2d n1 512x4x4 -> 256 k4 s2 p1");
//! assert_eq!(text::read(&layer.to_string(), None)?, layer);
//! # Ok::<(), polyphase::Error>(())
//! ```

mod activation;
mod descriptor;
mod json;
mod repr;

pub use json::{KEYS, Layer, parse_json};
pub use repr::parse_repr;

use super::{Deconv, Extent};
use crate::error::{Error, Kind, Result};

/// An error about text that cannot be read.
fn parse_error(message: impl Into<String>) -> Error {
    Error::new(Kind::Parse, message)
}

/// Text of the user's, quoted and cut to a length that a sentence bears.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{}`", short.escape_debug())
}

/// Reads one problem from a module repr, a JSON layer or a descriptor, whichever it is. The input shape, such as `1,512,4,4` or
/// `?,512,?,?`, gives batch and spatial extents; a repr without one has them all open.
///
/// # Errors
/// [`Kind::Parse`] if the text cannot be read, or is a JSON list of other than one layer; [`Kind::Problem`] if what it says cannot be.
pub fn read(source: &str, input_shape: Option<&str>) -> Result<Deconv> {
    let text = source.trim();
    if text.contains("ConvTranspose") && !text.starts_with(['{', '[']) {
        return parse_repr(text, input_shape);
    }
    let layer = if text.starts_with(['{', '[']) {
        let mut layers = parse_json(text)?;
        match (layers.pop(), layers.len()) {
            (Some(layer), 0) => layer.problem,
            (last, before) => {
                return Err(parse_error(format!("the JSON text has {} layers; one is needed here", before + usize::from(last.is_some()))));
            }
        }
    } else {
        text.parse::<Deconv>()?
    };
    match input_shape {
        Some(shape) => with_input_shape(layer, shape),
        None => Ok(layer),
    }
}

/// The layer with batch and spatial extents replaced by those of an input shape `n,c,*spatial`.
fn with_input_shape(layer: Deconv, shape: &str) -> Result<Deconv> {
    let (batch, spatial) = input_shape(shape, layer.rank(), layer.c_in)?;
    let symbol = |v: Option<i64>, name: &str| match v {
        Some(v) => {
            usize::try_from(v).map(Extent::Fixed).map_err(|_| parse_error(format!("the input shape has extent {v}; it must be at least 0")))
        }
        None => Ok(Extent::Open(name.into())),
    };
    let names = super::shape::spatial_symbols(layer.rank());
    let input = spatial.into_iter().zip(names).map(|(v, n)| symbol(v, n)).collect::<Result<_>>()?;
    let layer = Deconv { batch: symbol(batch, super::shape::BATCH)?, input, ..layer };
    layer.validate()?;
    Ok(layer)
}

/// Reads an input shape `n,c,*spatial`, where `?` leaves batch or a spatial extent open: the batch, then the spatial extents.
fn input_shape(text: &str, rank: usize, c_in: usize) -> Result<(Option<i64>, Vec<Option<i64>>)> {
    let entry = |t: &str| match t.trim() {
        "?" => Ok(None),
        t => t.parse::<i64>().map(Some).map_err(|_| parse_error(format!("the input shape has {}; an integer or ? is legal", quoted(t)))),
    };
    let trimmed = text.trim().trim_matches(|c| "()[]".contains(c)).trim_end_matches(',');
    let shape = trimmed.split(',').map(entry).collect::<Result<Vec<_>>>()?;
    if shape.len() != rank + 2 {
        return Err(parse_error(format!(
            "the input shape {} has {} extents; a {rank}-D layer needs {}: batch, channels, spatial",
            quoted(text),
            shape.len(),
            rank + 2
        )));
    }
    match shape[1] {
        Some(c) if c == c_in as i64 => Ok((shape[0], shape[2..].to_vec())),
        Some(c) => Err(parse_error(format!("the input shape {} has {c} channels; the layer has {c_in}", quoted(text)))),
        None => Err(parse_error(format!("the input shape {} leaves the channels open; the layer has {c_in}", quoted(text)))),
    }
}
