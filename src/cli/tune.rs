//! `polyphase tune`: times the best candidates for each layer, and keeps the fastest in a plan file.
//!
//! Prints what each candidate took for one layer, a line per layer for a list; then how well the cost model did: the rank correlation
//! of predicted cycles and measured times, and its regret, by how much its first choice is slower than the fastest.

use super::source::Source;
use super::{Outcome, print};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use polyphase::Element;
use polyphase::plan::tune::{PlanFile, Progress, Tuned, Tuning, tune};
use polyphase::{Deconv, Elem, Kind, Options, Result};
use rand::{Rng, SeedableRng};
use std::path::PathBuf;

/// What `tune` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Plan file to keep the fastest plans in; it is made if it is not there, and other plans in it are kept
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many candidates are timed for a layer
    #[arg(long, value_name = "COUNT", default_value_t = Tuning::default().top)]
    top: usize,
    /// How many samples are taken of each candidate
    #[arg(long, value_name = "COUNT", default_value_t = Tuning::default().rounds)]
    rounds: usize,
    /// How long timing may take for a layer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Tuning::default().seconds)]
    seconds: f64,
    /// What open spatial extents are taken to be
    #[arg(long, value_name = "EXTENT", default_value_t = Tuning::default().open)]
    open: usize,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<Outcome> {
    let options = args.source.options()?;
    let layers = args.source.all()?;
    let tuning = Tuning { top: args.top, rounds: args.rounds, seconds: args.seconds, open: args.open };
    let mut file = args.file.as_deref().map(open_file).transpose()?;
    let bar = ProgressBar::new(1);
    bar.set_style(ProgressStyle::with_template("{prefix} {msg:>9} {wide_bar} {pos}/{len}").expect("the template is well formed"));
    let mut all = Vec::new();
    for (at, (name, problem)) in layers.iter().enumerate() {
        bar.set_prefix(format!("{}/{} {name}", at + 1, layers.len()));
        let tuned = one(problem, &options, &tuning, &bar).map_err(|e| e.context(name))?;
        bar.suspend(|| print(&if layers.len() == 1 { table(name, problem, &tuned) } else { line(name, &tuned) }));
        if let (Some(file), Some(path)) = (&mut file, &args.file) {
            file.insert(problem, tuned.isa, options.threads, tuned.plan.clone())?;
            file.save(path)?;
        }
        all.push(tuned);
    }
    bar.finish_and_clear();
    print(&summary(&all));
    if let Some(path) = &args.file {
        print(&format!("plans kept in {}\n", path.display()));
    }
    Ok(if all.iter().all(|t| t.failed.is_empty()) { Outcome::Done } else { Outcome::CheckFailed })
}

/// The file that is there, or a new one. A file of another CPU is refused before any time is spent.
fn open_file(path: &std::path::Path) -> Result<PlanFile> {
    if !path.exists() {
        return Ok(PlanFile::new());
    }
    let file = PlanFile::load(path)?;
    let here = polyphase::plan::tune::cpu();
    if file.cpu != here {
        let message = format!("the plan file {} is for the CPU '{}', this one is '{here}'; give another --file", path.display(), file.cpu);
        return Err(polyphase::Error::new(Kind::Options, message));
    }
    Ok(file)
}

fn one(problem: &Deconv, options: &Options, tuning: &Tuning, bar: &ProgressBar) -> Result<Tuned> {
    let mut show = |p: Progress| {
        bar.set_length(p.total as u64);
        bar.set_position(p.done as u64);
        bar.set_message(p.stage);
    };
    match problem.elem {
        Elem::F32 => typed::<f32>(problem, options, tuning, &mut show),
        Elem::F64 => typed::<f64>(problem, options, tuning, &mut show),
    }
}

/// Tunes with random weights: what they are does not matter to the time.
fn typed<T: Element>(problem: &Deconv, options: &Options, tuning: &Tuning, show: &mut dyn FnMut(Progress)) -> Result<Tuned> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let mut random = |len: usize| -> Vec<T> { (0..len).map(|_| T::from_f64(2.0 * rng.random::<f64>() - 1.0)).collect() };
    let weights = random(problem.weight_shape().iter().product());
    let bias = problem.bias.then(|| random(problem.c_out));
    tune(problem, &weights, bias.as_deref(), options, tuning, show)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.4}", seconds * 1e3)
}

fn correlation(tuned: &Tuned) -> String {
    tuned.rank_correlation().map_or("-".into(), |c| format!("{c:.2}"))
}

fn failures(tuned: &Tuned) -> String {
    tuned.failed.iter().map(|(plan, e)| format!("FAILED {plan}\n       {e}\n")).collect()
}

/// Every candidate of one layer, fastest first.
fn table(name: &str, problem: &Deconv, tuned: &Tuned) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["ms", "vs best", "predicted cycles", "plan"]);
    let mut sorted: Vec<_> = tuned.measured.iter().collect();
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    for m in &sorted {
        let ratio = format!("{:.2}", m.seconds / sorted[0].seconds);
        table.add_row([milliseconds(m.seconds), ratio, format!("{:.0}", m.predicted), m.plan.to_string()]);
    }
    for column in 0..3 {
        table.column_mut(column).expect("there are four columns").set_cell_alignment(CellAlignment::Right);
    }
    let named = if name == problem.to_string() { String::new() } else { format!("{name}: ") };
    format!("{named}{problem}\n{} candidates at {}\n\n{}\n\n{}", sorted.len(), tuned.isa, table.trim_fmt(), failures(tuned))
}

/// One layer of several.
fn line(name: &str, tuned: &Tuned) -> String {
    let best = tuned.measured.iter().map(|m| m.seconds).fold(f64::INFINITY, f64::min);
    let (ms, correlation, regret) = (milliseconds(best), correlation(tuned), 100.0 * tuned.regret());
    format!("{name:<40} {ms:>10} ms  correlation {correlation:>5}  regret {regret:>5.1} %  {}\n{}", tuned.plan, failures(tuned))
}

/// How well the cost model did over all layers.
fn summary(all: &[Tuned]) -> String {
    if let [one] = all {
        return format!("rank correlation {}, regret of the model's first choice {:.1} %\n", correlation(one), 100.0 * one.regret());
    }
    let known: Vec<f64> = all.iter().filter_map(Tuned::rank_correlation).collect();
    let mean = if known.is_empty() { "-".into() } else { format!("{:.2}", known.iter().sum::<f64>() / known.len() as f64) };
    let logs: f64 = all.iter().map(|t| t.regret().ln_1p()).sum();
    let worst = all.iter().map(Tuned::regret).fold(0.0, f64::max);
    let regret = 100.0 * (logs / all.len().max(1) as f64).exp_m1();
    format!(
        "{} layers: mean rank correlation {mean}, regret of the model's first choices {regret:.1} % (geometric mean), {:.1} % at worst\n",
        all.len(),
        100.0 * worst
    )
}
