//! `polyphase dump-ir`: the loop nest after any pass, Cranelift's IR, machine code.
//!
//! What is printed for one pass is a whole function that parses back, and that `explain` takes as a problem:
//!
//! ```text
//! polyphase dump-ir "2d n1 2x4x4 -> 2 k4 s2 p1" --after phases > phases.ir
//! polyphase explain phases.ir
//! ```

use super::source::{self, Given, Source};
use super::{Outcome, print};
use polyphase::codegen::cranelift::{self, Native, Piece};
use polyphase::codegen::target::Isa;
use polyphase::ir::Func;
use polyphase::passes::{self, NAIVE, PASSES, Snapshot, lower};
use polyphase::{Error, Kind, Result, explain, plan};
use std::fmt::Write;

/// Arguments of `dump-ir`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The pass after which to print: naive (before any), form, phases … lower, or `all`
    #[arg(long, value_name = "PASS", default_value = "all")]
    after: String,
    /// Print Cranelift's IR of what native code is made from
    #[arg(long)]
    clif: bool,
    /// Print the machine code, disassembled where that is possible
    #[arg(long)]
    asm: bool,
}

/// Prints what was asked for.
///
/// # Errors
/// Problems, passes and options that cannot be used.
pub fn run(args: &Args) -> Result<Outcome> {
    let options = args.source.options()?;
    let isa = match options.isa {
        Some(isa) => isa,
        None => Isa::best()?,
    };
    let mut out = String::new();
    match args.source.given()? {
        Given::Ir(_, func) => {
            if args.after != "all" {
                return Err(Error::new(Kind::Options, "--after is for layers; a function in the IR is printed as it stands"));
            }
            func.verify()?;
            if args.clif || args.asm { native(&mut out, args, &explain::ir::lowered(&func, isa)?, isa)? } else { out = func.to_string() }
        }
        Given::Layers(layers) => {
            let (_, problem) = source::one(layers)?;
            check_pass(&args.after)?;
            let choice = plan::choose(&problem, isa, &options, true)?;
            let snapshots = passes::snapshots(&problem, &choice.plan)?;
            if args.clif || args.asm {
                let chosen = snapshots.iter().find(|s| s.pass == args.after).or(snapshots.last());
                let func = &chosen.expect("there is a snapshot for every pass").func;
                // What a pass leaves may have operations that no target has.
                let lowered = lower::run(func, &choice.plan)?;
                native(&mut out, args, lowered.as_ref().unwrap_or(func), isa)?;
            } else {
                stages(&mut out, &snapshots, &args.after);
            }
        }
    }
    print(&out);
    Ok(Outcome::Done)
}

fn check_pass(name: &str) -> Result<()> {
    let legal: Vec<&str> = std::iter::once(NAIVE).chain(PASSES.iter().map(|p| p.name)).chain(["all"]).collect();
    match legal.contains(&name) {
        true => Ok(()),
        false => Err(Error::new(Kind::Options, format!("no pass is called '{}'; legal: {}", name.escape_debug(), legal.join(", ")))),
    }
}

/// One stage as it is, or all of them under headings that the IR takes as comments.
fn stages(out: &mut String, snapshots: &[Snapshot], after: &str) {
    if let Some(one) = snapshots.iter().find(|s| s.pass == after) {
        let _ = write!(out, "{}", one.func);
        return;
    }
    for s in snapshots {
        let summary = PASSES.iter().find(|p| p.name == s.pass).map_or("the zero-inserted loop nest, before any pass", |p| p.summary);
        if s.changed {
            let _ = writeln!(out, "// after {}: {summary}\n{}", s.pass, s.func);
        } else {
            let _ = writeln!(out, "// after {}: {summary} (unchanged)\n", s.pass);
        }
    }
}

fn native(out: &mut String, args: &Args, func: &Func, isa: Isa) -> Result<()> {
    let Native { pieces, .. } = &cranelift::compile_with_text(func, isa)?;
    for piece in pieces {
        if args.clif {
            let _ = match piece.clif.is_empty() {
                true => writeln!(out, "; {}: {} bytes that Cranelift did not make (--asm shows them)\n", piece.name, piece.code.len()),
                false => writeln!(out, "; {}\n{}", piece.name, piece.clif),
            };
        }
        if args.asm {
            let _ = writeln!(out, "; {}: {} bytes for {isa}, before relocation", piece.name, piece.code.len());
            disassemble(out, piece);
            out.push('\n');
        }
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn disassemble(out: &mut String, piece: &Piece) {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_first_operand_char_index(12);
    for instruction in Decoder::with_ip(64, &piece.code, 0, DecoderOptions::NONE) {
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        let _ = writeln!(out, "{:6x}  {text}", instruction.ip());
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn disassemble(out: &mut String, piece: &Piece) {
    for (i, row) in piece.code.chunks(16).enumerate() {
        let bytes: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "{:6x}  {}", i * 16, bytes.join(" "));
    }
}
