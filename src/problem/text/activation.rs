//! Activations as words, shared by JSON and descriptor: `relu`, `leaky_relu(0.1)`, `clamp(0,6)`, `tanh`, `sigmoid`.
//!
//! Numbers print as the shortest text that reads back to the same bits; infinities print as `inf` and `-inf`.

use super::{parse_error, quoted};
use crate::error::Result;
use crate::problem::Activation;

/// What is legal, for error messages.
pub(super) const LEGAL: &str = "none, relu, leaky_relu(slope), clamp(lo,hi), tanh, sigmoid";

/// The word for an activation; `None` for no activation.
pub(super) fn word(a: Activation) -> Option<String> {
    match a {
        Activation::None => None,
        Activation::Relu => Some("relu".into()),
        Activation::LeakyRelu(slope) => Some(format!("leaky_relu({slope})")),
        Activation::Clamp(lo, hi) => Some(format!("clamp({lo},{hi})")),
        Activation::Tanh => Some("tanh".into()),
        Activation::Sigmoid => Some("sigmoid".into()),
    }
}

/// Reads a word; `None` if it does not name an activation at all.
pub(super) fn parse(word: &str) -> Option<Result<Activation>> {
    let (name, arguments) = match word.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')),
        None => (word, None),
    };
    let wanted = match name {
        "none" | "relu" | "tanh" | "sigmoid" => 0,
        "leaky_relu" => 1,
        "clamp" => 2,
        _ => return None,
    };
    Some(numbers(arguments.unwrap_or("")).and_then(|v| {
        if v.len() != wanted || arguments.is_some() != (wanted > 0) {
            return Err(parse_error(format!("the activation is {}; {LEGAL} are legal", quoted(word))));
        }
        Ok(match name {
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "leaky_relu" => Activation::LeakyRelu(v[0]),
            "clamp" => Activation::Clamp(v[0], v[1]),
            _ => Activation::None,
        })
    }))
}

fn numbers(text: &str) -> Result<Vec<f64>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(number).collect()
}

/// Reads a number, `inf` and `-inf` included.
pub(super) fn number(text: &str) -> Result<f64> {
    text.trim().parse().map_err(|_| parse_error(format!("{} is not a number", quoted(text))))
}
