//! `polyphase explain`: what a layer computes, how and why; then compiled, checked and timed.
//!
//! The facts come from [`polyphase::explain`]; `explain_text.rs` and `explain_answers.rs` put them in words, `--json` gives them as they are.

use super::explain_tensors::{Tensor, read};
use super::source::{Given, Source};
use super::{Outcome, explain_answers, explain_text, print};
use polyphase::explain::{self, at, ir, matrix};
use polyphase::ir::Func;
use polyphase::{Deconv, Error, Extent, Kind, Result};
use serde::Serialize;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Why does this output have its value? Coordinates, one per axis: `0,1`
    #[arg(long, value_name = "Y,X", allow_hyphen_values = true)]
    at: Option<String>,
    /// The output channel of --at
    #[arg(long, value_name = "OC", default_value_t = 0)]
    channel: usize,
    /// The batch item of --at
    #[arg(long, value_name = "N", default_value_t = 0)]
    item: usize,
    /// Print the convolution matrix C and its transpose (small layers)
    #[arg(long)]
    matrix: bool,
    /// Input values for --at: a .npy file, or `ones`, or `count` (1, 2, 3 …)
    #[arg(long, value_name = "X.NPY")]
    input: Option<String>,
    /// Weight values for --at and --matrix: a .npy file, `ones` or `count`
    #[arg(long, value_name = "W.NPY")]
    weight: Option<String>,
    /// Bias values for --at: a .npy file, `ones` or `count`
    #[arg(long, value_name = "B.NPY")]
    bias: Option<String>,
    /// The value of a symbol of an IR file, such as `W=100`; 8 if not given
    #[arg(long, value_name = "NAME=VALUE")]
    symbol: Vec<String>,
    /// Stop at the plan: compile, check and time nothing
    #[arg(long)]
    plan_only: bool,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

/// Explains the problem that was given.
///
/// # Errors
/// Problems, options and files that cannot be used; a check that fails is [`Outcome::CheckFailed`].
pub fn run(args: &Args) -> Result<Outcome> {
    match args.source.given()? {
        Given::Ir(name, func) => explain_ir(args, &name, &func),
        Given::Layers(_) => {
            let (name, problem) = args.source.problem()?;
            explain_layer(args, &name, &problem)
        }
    }
}

fn explain_layer(args: &Args, name: &str, problem: &Deconv) -> Result<Outcome> {
    if !args.symbol.is_empty() {
        return Err(Error::new(Kind::Options, "--symbol is for IR files; --input-shape gives the extents of a layer"));
    }
    let asked = args.at.is_some() || args.matrix;
    if !asked && (args.input.is_some() || args.weight.is_some() || args.bias.is_some()) {
        return Err(Error::new(Kind::Options, "--input, --weight and --bias are values for --at or --matrix; give one of these too"));
    }
    let options = args.source.options()?;
    let input = args.input.as_deref().map(read).transpose()?;
    let problem = &fixed_by(problem, input.as_ref())?;
    let mut e = match asked || args.plan_only {
        true => explain::plan(name, problem, &options)?,
        false => explain::layer(name, problem, &options)?,
    };
    if asked {
        let values = values(args, problem, input)?;
        if let Some(at) = &args.at {
            e.at = Some(at::at(problem, args.item, args.channel, &coordinates(at)?, &values)?);
        }
        if args.matrix {
            e.matrix = Some(matrix::matrix(problem, values.weight.as_deref())?);
        }
    }
    if args.json {
        print(&json(&e)?);
    } else if asked {
        print(&explain_answers::text(&e));
    } else {
        print(&explain_text::layer(&e));
    }
    Ok(match &e.kernel {
        Some(kernel) if !kernel.passed() => Outcome::CheckFailed,
        _ => Outcome::Done,
    })
}

fn explain_ir(args: &Args, name: &str, func: &Func) -> Result<Outcome> {
    if args.at.is_some() || args.matrix {
        return Err(Error::new(Kind::Options, "--at and --matrix need a layer; this is a function in the IR"));
    }
    if args.input.is_some() || args.weight.is_some() || args.bias.is_some() {
        return Err(Error::new(
            Kind::Options,
            "a function in the IR is checked with made-up values; leave --input, --weight and --bias out",
        ));
    }
    let symbols = args.symbol.iter().map(|s| symbol(s)).collect::<Result<Vec<_>>>()?;
    let report = ir::function(name, func, &symbols, args.source.options()?.isa)?;
    print(&if args.json { json(&report)? } else { explain_text::function(&report) });
    Ok(if report.equal_to_interpreter { Outcome::Done } else { Outcome::CheckFailed })
}

fn json(value: &impl Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::new(Kind::Io, format!("the report cannot be written as JSON: {e}")))?;
    Ok(text + "\n")
}

/// The problem with its open extents taken from the shape of the input, if there is one.
fn fixed_by(p: &Deconv, input: Option<&Tensor>) -> Result<Deconv> {
    let Some(Tensor { shape: Some(shape), .. }) = input else { return Ok(p.clone()) };
    let (batch, spatial) = p.extents_of_input(shape)?;
    Ok(Deconv { batch: Extent::Fixed(batch), input: spatial.into_iter().map(Extent::Fixed).collect(), ..p.clone() })
}

fn values(args: &Args, p: &Deconv, input: Option<Tensor>) -> Result<at::Values> {
    let weight = args.weight.as_deref().map(read).transpose()?;
    let bias = args.bias.as_deref().map(read).transpose()?;
    if bias.is_some() && !p.bias {
        return Err(Error::new(Kind::Tensor, "--bias is given, but the layer has no bias"));
    }
    let shape = match p.fixed_shape() {
        Some((batch, spatial)) => p.input_shape(batch, &spatial)?,
        None if input.is_some() => {
            return Err(Error::new(
                Kind::Tensor,
                "the layer's extents are open; give them with --input-shape, or an input file that has them",
            ));
        }
        None => vec![],
    };
    Ok(at::Values {
        input: input.map(|t| t.filled("input", &shape)).transpose()?,
        weight: weight.map(|t| t.filled("weight", &p.weight_shape())).transpose()?,
        bias: bias.map(|t| t.filled("bias", &[p.c_out])).transpose()?,
    })
}

fn coordinates(text: &str) -> Result<Vec<usize>> {
    let one = |t: &str| {
        let wrong = || Error::new(Kind::Parse, format!("--at is '{}'; whole numbers such as 0,1 are legal", text.escape_debug()));
        t.trim().parse::<usize>().map_err(|_| wrong())
    };
    text.split(',').map(one).collect()
}

fn symbol(text: &str) -> Result<(String, i64)> {
    let wrong = || Error::new(Kind::Parse, format!("--symbol is '{}'; NAME=VALUE such as W=100 is legal", text.escape_debug()));
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.trim().to_string(), value.trim().parse().map_err(|_| wrong())?))
}
