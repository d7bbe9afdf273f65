//! PyTorch's module repr, pasted as printed.
//!
//! Needs one `ConvTranspose1d/2d/3d(…)`, with or without the `(name):` that a model's printout puts before it, or the constructor
//! call a user would write (`nn.ConvTranspose2d(64, 3, 4, 2, 1)`). An absent `bias` means there is one, as in PyTorch.
//!
//! ```
//! use polyphase::problem::text::parse_repr;
//! let line = "  (3): ConvTranspose1d(512, 256, kernel_size=(16,), stride=(8,), padding=(4,))";
//! assert_eq!(parse_repr(line, Some("1,512,?"))?.to_string(), "1d n1 512x? -> 256 k16 s8 p4 bias");
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{input_shape, parse_error, quoted};
use crate::error::Result;
use crate::ir::Elem;
use crate::problem::{Deconv, DeconvBuilder};

/// The constructor's arguments in PyTorch's order.
const ARGUMENTS: [&str; 12] = [
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "bias",
    "dilation",
    "padding_mode",
    "device",
    "dtype",
];

/// Reads a module repr; the input shape is `n,c,*spatial` with `?` for what stays open, and everything is open without one.
///
/// # Errors
/// [`Kind::Parse`](crate::Kind::Parse) naming what was found and what is legal; [`Kind::Problem`](crate::Kind::Problem) for layers that cannot be.
pub fn parse_repr(text: &str, shape: Option<&str>) -> Result<Deconv> {
    let (rank, arguments) = module(text)?;
    let mut found: [Option<&str>; 12] = [None; 12];
    let mut by_name = false;
    for (position, part) in split(arguments).into_iter().enumerate() {
        let (slot, value) = match part.split_once('=') {
            Some((key, value)) => {
                let key = key.trim();
                let slot = ARGUMENTS.iter().position(|a| *a == key);
                (slot.ok_or_else(|| parse_error(format!("unknown argument {}; legal are {}", quoted(key), ARGUMENTS.join(", "))))?, value)
            }
            None if by_name => return Err(parse_error(format!("{} follows named arguments; it needs a name too", quoted(part)))),
            None if position < ARGUMENTS.len() => (position, part),
            None => return Err(parse_error(format!("{} is one argument too many; {} are legal", quoted(part), ARGUMENTS.len()))),
        };
        by_name |= part.contains('=');
        if found[slot].replace(value.trim()).is_some() {
            return Err(parse_error(format!("{} is given twice", ARGUMENTS[slot])));
        }
    }
    build(rank, &found, shape)
}

/// The rank, and the text between the parentheses.
fn module(text: &str) -> Result<(usize, &str)> {
    let text = text.trim().trim_end_matches([',', ';']);
    let at = text.find("ConvTranspose").ok_or_else(|| {
        parse_error(format!("{} is no module repr; ConvTranspose1d(…), ConvTranspose2d(…) and ConvTranspose3d(…) are legal", quoted(text)))
    })?;
    let (before, rest) = (text[..at].trim(), &text[at + "ConvTranspose".len()..]);
    let path = before.rsplit(':').next().unwrap_or("").trim();
    let named = before.len() == path.len() || (before.starts_with('(') && before[..before.len() - path.len()].trim_end().ends_with("):"));
    if !named || !(path.is_empty() || path.ends_with('.')) {
        return Err(parse_error(format!("{} stands before ConvTranspose; only `(name):` is legal there", quoted(before))));
    }
    let rank = match rest.get(..2) {
        Some("1d") => 1,
        Some("2d") => 2,
        Some("3d") => 3,
        _ => return Err(parse_error(format!("{} follows ConvTranspose; 1d, 2d and 3d are legal", quoted(rest)))),
    };
    let inside = rest[2..].trim_start().strip_prefix('(').and_then(|r| r.strip_suffix(')')).filter(|r| balanced(r));
    let inside = inside.ok_or_else(|| parse_error(format!("{} must be one pair of parentheses with arguments", quoted(&rest[2..]))))?;
    Ok((rank, inside))
}

/// Whether every parenthesis is closed, none before it is opened.
fn balanced(text: &str) -> bool {
    let step = |depth: usize, c| match c {
        '(' => Some(depth + 1),
        ')' => depth.checked_sub(1),
        _ => Some(depth),
    };
    text.chars().try_fold(0, step) == Some(0)
}

/// Splits at commas outside parentheses; an empty last part is dropped.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    if out.last().is_some_and(|p| p.is_empty()) {
        out.pop();
    }
    out
}

fn integer(what: &str, text: &str) -> Result<i64> {
    text.trim().parse().map_err(|_| parse_error(format!("{what} is {}; an integer is legal", quoted(text))))
}

/// An integer for every axis, or a tuple with one per axis.
fn tuple(what: &str, text: &str, rank: usize) -> Result<Vec<i64>> {
    let inside = [('(', ')'), ('[', ']')].iter().find_map(|&(a, b)| text.strip_prefix(a)?.strip_suffix(b));
    let Some(inside) = inside else { return Ok(vec![integer(what, text)?; rank]) };
    let v = split(inside).into_iter().map(|t| integer(what, t)).collect::<Result<Vec<_>>>()?;
    if v.len() != rank {
        return Err(parse_error(format!("{what} is {}, which has {} values; a {rank}-D layer needs {rank}", quoted(text), v.len())));
    }
    Ok(v)
}

fn build(rank: usize, found: &[Option<&str>; 12], shape: Option<&str>) -> Result<Deconv> {
    let required = |at: usize| found[at].ok_or_else(|| parse_error(format!("{} is missing", ARGUMENTS[at])));
    let axes = |at: usize, default: i64| found[at].map_or(Ok(vec![default; rank]), |t| tuple(ARGUMENTS[at], t, rank));
    let (c_in, c_out) = (integer("in_channels", required(0)?)?, integer("out_channels", required(1)?)?);
    let mut b = DeconvBuilder::new(rank, c_in, c_out, tuple("kernel_size", required(2)?, rank)?)
        .stride(axes(3, 1)?)
        .padding(axes(4, 0)?)
        .output_padding(axes(5, 0)?)
        .dilation(axes(8, 1)?)
        .groups(found[6].map_or(Ok(1), |t| integer("groups", t))?);
    b = b.bias(match found[7] {
        None | Some("True") => true,
        Some("False") => false,
        Some(t) => return Err(parse_error(format!("bias is {}; True and False are legal", quoted(t)))),
    });
    if let Some(t) = found[9].filter(|t| !["'zeros'", "\"zeros\"", "zeros"].contains(t)) {
        return Err(parse_error(format!("padding_mode is {}; only 'zeros' is legal for a transposed convolution", quoted(t))));
    }
    b = b.elem(match found[11] {
        None | Some("None" | "torch.float32" | "torch.float") => Elem::F32,
        Some("torch.float64" | "torch.double") => Elem::F64,
        Some(t) => return Err(parse_error(format!("dtype is {}; torch.float32 and torch.float64 are legal", quoted(t)))),
    });
    match shape {
        None => b.open_batch().open_input().build(),
        Some(shape) => {
            let (batch, spatial) = input_shape(shape, rank, usize::try_from(c_in).unwrap_or(0))?;
            let b = b.input_extents(spatial);
            match batch {
                Some(n) => b.batch(n),
                None => b.open_batch(),
            }
            .build()
        }
    }
}
