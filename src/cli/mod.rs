//! The command `polyphase`: one file per verb, and how a problem is given (`source.rs`).
//!
//! A verb has `Args` and `run(&Args) -> Result<Outcome>`. Nothing here computes: what is printed comes from the library.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a check failed; what was printed says which |
//! | 2 | bad usage or input; one sentence on standard error |

mod bench;
mod dump_ir;
mod explain;
mod explain_answers;
mod explain_tensors;
mod explain_text;
mod run;
mod source;
mod tune;
mod verify;

use clap::Parser;
use polyphase::Result;
use std::process::ExitCode;

/// What a verb has to say about its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and every check passed.
    Done,
    /// A check failed.
    CheckFailed,
}

/// A compiler for transposed convolutions: from a description to checked native code, with every step visible.
#[derive(Debug, Parser)]
#[command(name = "polyphase", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what a layer computes, how it will be computed and why; compile it, check it, time it
    Explain(explain::Args),
    /// Print the layer's loop nest after any pass, Cranelift's IR, machine code
    DumpIr(dump_ir::Args),
    /// Compute a layer on tensors from .npy files
    Run(run::Args),
    /// Check random problems, or the given ones, against interpreter and reference
    Verify(verify::Args),
    /// Check and time layers, and state their share of the FMA peak measured in the same run
    Bench(bench::Args),
    /// Time the most promising plans of a layer and keep the best one in a plan file
    Tune(tune::Args),
}

/// Reads the arguments, runs the verb, and gives the exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Explain(args) => explain::run(args),
        Command::DumpIr(args) => dump_ir::run(args),
        Command::Run(args) => run::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Tune(args) => tune::run(args),
    };
    report(done)
}

fn report(done: Result<Outcome>) -> ExitCode {
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

/// Prints text on standard output; a reader that has gone away (`| head`) is no error.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyphase::{Error, Kind};

    #[test]
    fn exit_status_is_0_1_or_2() {
        let shown = |code: ExitCode| format!("{code:?}");
        assert_eq!(shown(report(Ok(Outcome::Done))), shown(ExitCode::from(0)));
        assert_eq!(shown(report(Ok(Outcome::CheckFailed))), shown(ExitCode::from(1)));
        assert_eq!(shown(report(Err(Error::new(Kind::Parse, "a sentence")))), shown(ExitCode::from(2)));
    }
}
