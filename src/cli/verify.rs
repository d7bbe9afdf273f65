//! `polyphase verify`: random problems, or given ones, checked against interpreter and reference.
//!
//! *Needs* a number of cases and a seed, or a problem; *leaves* a line `N passed, N failed` on standard output, after each failure with the
//! command that reproduces it, shrunk, and the first pass at which results part. Exit status 1 if anything failed.

use super::source::Source;
use super::{Outcome, print};
use indicatif::{ProgressBar, ProgressStyle};
use polyphase::codegen::target::Isa;
use polyphase::fuzz::{Case, Failure, Fill, What, check, shrink};
use polyphase::plan::Form;
use polyphase::{Deconv, Error, Extent, Kind, Result};
use rayon::prelude::*;

/// Kinds of failure that are shrunk and shown; others are only counted.
const SHOWN: usize = 10;
/// Given problems with more multiplications than this are checked on the best level only.
const HEAVY: u128 = 20_000_000;
/// The extent for which an open one stands in checks of a given problem, if none is given.
const OPEN: usize = 7;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// How many random problems
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// The seed of the random problems; of the tensors, if a problem is given
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What tensors are filled with, instead of every kind in turn
    #[arg(long, value_parser = ["integers", "random", "special"])]
    fill: Option<String>,
    /// Values of the open extents of the given problem: batch, then spatial axes
    #[arg(long, value_delimiter = ',')]
    extents: Vec<usize>,
    /// Of how many kinds of failure one is shrunk and shown
    #[arg(long, default_value_t = SHOWN)]
    show: usize,
    /// Print every case on standard error before it is checked: the last ones tell what brought the process down
    #[arg(long)]
    trace: bool,
}

/// Checks, and prints what failed.
pub fn run(args: &Args) -> Result<Outcome> {
    // Panics are caught and reported as failures; their default report would tear the progress bar.
    std::panic::set_hook(Box::new(|_| {}));
    let forced = args.source.options()?;
    let fill = args.fill.as_deref().and_then(|f| Fill::ALL.into_iter().find(|k| k.name() == f));
    let failures = match &args.source.problem {
        None if forced.plan.is_some() => return Err(Error::new(Kind::Options, "--plan needs a problem that the plan is for")),
        None if !args.extents.is_empty() => return Err(Error::new(Kind::Options, "--extents needs a problem whose extents are open")),
        None => check_all(args, args.cases, |i| {
            let mut case = Case::random(args.seed, i);
            case.isa = forced.isa.unwrap_or(case.isa);
            case.form = forced.form.or(case.form);
            case.algorithm = if forced.form.is_some() { forced.algorithm } else { forced.algorithm.or(case.algorithm) };
            // What is forced is not what the case's own plan was made for.
            if forced.isa.is_some() || forced.form.is_some() || forced.algorithm.is_some() {
                case.plan = None;
            }
            case.fill = fill.unwrap_or(case.fill);
            case.threads = if forced.threads > 1 { forced.threads } else { case.threads };
            case
        }),
        Some(_) => {
            let mut cases = Vec::new();
            for (name, problem) in args.source.all()? {
                cases.extend(given(args, &forced, fill, problem).map_err(|e| e.context(name))?);
            }
            check_all(args, cases.len() as u64, |i| cases[i as usize].clone())
        }
    };
    report(args, failures)
}

/// Checks cases on every thread; the number that passed, and what failed.
fn check_all(args: &Args, cases: u64, case: impl Fn(u64) -> Case + Sync) -> (u64, Vec<Failure>) {
    let bar = ProgressBar::new(cases);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} cases, {eta} left").expect("the template is constant"));
    let failures: Vec<_> = (0..cases)
        .into_par_iter()
        .filter_map(|i| {
            let case = case(i);
            if args.trace {
                bar.suspend(|| eprintln!("{case}"));
            }
            let failure = check(&case).err().map(|f| *f);
            bar.inc(1);
            failure
        })
        .collect();
    bar.finish_and_clear();
    (cases - failures.len() as u64, failures)
}

/// The cases in which one given problem is checked: every level, form and fill that is not forced.
fn given(args: &Args, forced: &polyphase::Options, fill: Option<Fill>, problem: Deconv) -> Result<Vec<Case>> {
    let symbols = problem.symbols().len();
    let extents = match args.extents.len() {
        0 => open_extents(&problem),
        n if n == symbols => args.extents.clone(),
        n => {
            return Err(Error::new(Kind::Options, format!("--extents has {n} values; the problem '{problem}' has {symbols} open extents")));
        }
    };
    let (batch, spatial) = problem.shape_from_symbols(&extents)?;
    let heavy = problem.useful_macs(batch, &spatial) > HEAVY;
    let isas = match forced.isa {
        Some(isa) => vec![isa],
        None if heavy => vec![Isa::best()?],
        None => Isa::detected(),
    };
    let forms = match forced.form {
        Some(_) => vec![forced.form],
        None if forced.plan.is_some() => vec![None],
        // A command that was printed for a failure says everything; what it leaves out is meant so.
        None if heavy || (forced.isa.is_some() && fill.is_some()) => vec![None],
        None => vec![None, Some(Form::Gather), Some(Form::Scatter)],
    };
    let fills = fill.map_or(Fill::ALL.to_vec(), |f| vec![f]);
    let mut cases = Vec::new();
    for isa in isas {
        for &form in &forms {
            for &fill in &fills {
                let (problem, extents) = (problem.clone(), extents.clone());
                cases.push(Case {
                    problem,
                    extents,
                    isa,
                    form,
                    algorithm: forced.algorithm,
                    plan: forced.plan.clone(),
                    threads: forced.threads,
                    fill,
                    seed: args.seed,
                });
            }
        }
    }
    Ok(cases)
}

/// Values for the open extents of a problem: small ones that give an output.
fn open_extents(problem: &Deconv) -> Vec<usize> {
    let extents = std::iter::once(&problem.batch).chain(&problem.input);
    let open = extents.enumerate().filter(|(_, e)| matches!(e, Extent::Open(_)));
    let value = |at: usize| match at {
        0 => 2,
        // Crops eat the output of small inputs.
        _ => {
            let (p, a) = (problem, at - 1);
            OPEN + (p.pad_begin[a] + p.pad_end[a]).clamp(0, 1 << 20) as usize / p.stride[a]
        }
    };
    open.map(|(at, _)| value(at)).collect()
}

/// Failures of one kind.
struct Group {
    kind: (What, String),
    first: Failure,
    count: usize,
}

/// Prints one failure of each kind, and the totals.
fn report(args: &Args, (passed, failures): (u64, Vec<Failure>)) -> Result<Outcome> {
    let failed = failures.len();
    let mut groups: Vec<Group> = Vec::new();
    for first in failures {
        let kind = first.kind();
        match groups.iter_mut().find(|g| g.kind == kind) {
            Some(group) => group.count += 1,
            None => groups.push(Group { kind, first, count: 1 }),
        }
    }
    let hidden = groups.len().saturating_sub(args.show);
    let shown: Vec<(Failure, usize)> = groups.into_par_iter().take(args.show).map(|g| (shrink(g.first), g.count)).collect();
    for (failure, count) in shown {
        let more = if count > 1 { format!("\n  and {} more like it", count - 1) } else { String::new() };
        print(&format!("FAILED {failure}{more}\n"));
    }
    if hidden > 0 {
        print(&format!("and {hidden} more kinds of failure; --show {} shows one of each\n", args.show + hidden));
    }
    print(&format!("{passed} passed, {failed} failed\n"));
    Ok(if failed == 0 { Outcome::Done } else { Outcome::CheckFailed })
}
