//! `polyphase bench`: layers, checked against the reference, then timed.
//!
//! *Needs* layers, best as a JSON list; *leaves* one JSON line per layer (`--json`), or a table with the geometric mean of the share of the
//! FMA peak. The peak is measured in the same run, just before each layer, because clocks change. A layer that fails its check is marked,
//! not timed, and makes the exit status 1.

use super::source::Source;
use super::{Outcome, print};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use polyphase::codegen::target::Isa;
use polyphase::measure::{self, Timing};
use polyphase::{Deconv, Elem, Element, Error, Kernel, Kind, Layout, Options, Result, reference};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Least runs of each of two kernels that are compared.
const OPEN_ROUNDS: usize = 5;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("layer", |a| a.help("The layers to time: a part of the name, or a pattern with * and ?")))]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// One JSON line per layer
    #[arg(long)]
    json: bool,
    /// Time each layer for at least this long
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    min_ms: f64,
    /// Compile each layer with open batch and spatial extents as well, and say how much of its speed that keeps
    #[arg(long)]
    open: bool,
    /// Order of the data in memory, instead of the layer's own
    #[arg(long, value_parser = ["nchw", "nhwc"])]
    layout: Option<String>,
}

/// What one layer came to.
struct Row {
    name: String,
    isa: Isa,
    threads: usize,
    result: Result<Timed>,
}

/// A layer that passed its check.
struct Timed {
    plan: String,
    compile_ms: f64,
    pack_ms: f64,
    run: Timing,
    gflops: f64,
    share: f64,
    error: Errors,
    code_bytes: usize,
    scratch_bytes: usize,
    packed_bytes: usize,
    /// The time of a run over that of the kernel with open extents, best times of interleaved runs.
    open: Option<f64>,
}

/// The machine that layers are timed on.
struct Bench {
    options: Options,
    isa: Isa,
    min_ms: f64,
    open: bool,
    pool: Option<ThreadPool>,
    /// The best peak of one core so far, for f32 and f64.
    peak: [f64; 2],
}

/// Checks and times the layers.
pub fn run(args: &Args) -> Result<Outcome> {
    if !(0.0..=1e7).contains(&args.min_ms) {
        return Err(Error::new(Kind::Options, format!("--min-ms is {}; 0 to 1e7 milliseconds are legal", args.min_ms)));
    }
    let layers = layers(args)?;
    for (_, problem) in &layers {
        sized(problem)?;
    }
    let mut bench = Bench::new(args)?;
    let bar = ProgressBar::new(layers.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}").expect("the template is constant"));
    let mut rows = Vec::new();
    for (name, problem) in layers {
        bar.set_message(name.clone());
        let result = match problem.elem {
            Elem::F32 => bench.layer::<f32>(&problem),
            Elem::F64 => bench.layer::<f64>(&problem),
        };
        let row = Row { name, isa: bench.isa, threads: bench.options.threads, result };
        if args.json {
            bar.suspend(|| print(&format!("{}\n", row.json())));
        }
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !args.json {
        print(&table(&rows, &bench));
    }
    Ok(if rows.iter().all(|r| r.result.is_ok()) { Outcome::Done } else { Outcome::CheckFailed })
}

/// Batch and spatial extents of the input.
///
/// # Errors
/// [`Kind::Problem`] if some are open.
fn sized(problem: &Deconv) -> Result<(usize, Vec<usize>)> {
    problem.fixed_shape().ok_or_else(|| {
        Error::new(Kind::Problem, format!("'{problem}' has open extents; --input-shape n,c,*spatial says what to time it with"))
    })
}

/// The layers that were asked for, in the order of the source.
fn layers(args: &Args) -> Result<Vec<(String, Deconv)>> {
    let all = Source { layer: None, ..args.source.clone() }.all()?;
    let layers: Vec<_> = match &args.source.layer {
        None => all,
        Some(wanted) => {
            let pattern = if wanted.contains(['*', '?']) { wanted.clone() } else { format!("*{wanted}*") };
            all.into_iter().filter(|(name, _)| matches(pattern.as_bytes(), name.as_bytes())).collect()
        }
    };
    if layers.is_empty() {
        let wanted = args.source.layer.as_deref().unwrap_or_default();
        return Err(Error::new(
            Kind::Parse,
            format!("no layer's name matches '{wanted}'; a part of a name, or a pattern with * and ?, is legal"),
        ));
    }
    let layout = |p: Deconv| match args.layout.as_deref() {
        Some("nhwc") => Deconv { layout: Layout::ChannelsLast, ..p },
        Some(_) => Deconv { layout: Layout::ChannelsFirst, ..p },
        None => p,
    };
    Ok(layers.into_iter().map(|(name, p)| (name, layout(p))).collect())
}

/// Whether a name matches a pattern in which `*` stands for any text and `?` for one byte.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut retry) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                // The star takes nothing at first; a later mismatch comes back here and lets it take one byte more.
                (retry, p) = (Some((p + 1, n + 1)), p + 1);
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((at, from)) => {
                    (p, n) = (at, from);
                    retry = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl Bench {
    fn new(args: &Args) -> Result<Bench> {
        let options = args.source.options()?;
        let isa = match options.isa {
            Some(isa) => isa,
            None => Isa::best()?,
        };
        let pool = |n| {
            let built = ThreadPoolBuilder::new().num_threads(n).build();
            built.map_err(|e| Error::new(Kind::Options, format!("--threads is {n}, but the threads cannot be started: {e}")))
        };
        let pool = if options.threads > 1 { Some(pool(options.threads)?) } else { None };
        Ok(Bench { options, isa, min_ms: args.min_ms, open: args.open, pool, peak: [0.0; 2] })
    }

    /// The peak of one core; the best that was measured so far, as other load can only lower it.
    fn peak(&mut self, elem: Elem) -> f64 {
        let best = &mut self.peak[usize::from(elem == Elem::F64)];
        *best = best.max(measure::fma_peak(self.isa, elem));
        *best
    }

    /// Compiles, checks and times one layer.
    fn layer<T: Element>(&mut self, problem: &Deconv) -> Result<Timed> {
        let (batch, spatial) = sized(problem)?;
        let tensors = Tensors::<T>::new(problem, batch, &spatial)?;
        let (kernel, made) = self.compile(problem, &tensors)?;
        let mut y = vec![T::from_f64(f64::NAN); problem.output_shape(batch, &spatial)?.iter().product()];
        self.on_pool(|| kernel.run(&tensors.x, &mut y))?;
        let error = tensors.check(problem, batch, &spatial, &y)?;
        let peak = self.peak(problem.elem) * self.options.threads as f64;
        let mut done = Ok(());
        let run = self.on_pool(|| measure::time(|| done = done.clone().and(kernel.run(&tensors.x, &mut y)), self.min_ms));
        done?;
        let gflops = problem.flops_useful(batch, &spatial) as f64 / run.median * 1e-9;
        let open = self.open.then(|| self.opened(problem, &kernel, &tensors)).transpose()?;
        Ok(Timed { open, ..timed(&kernel, made, run, gflops, gflops / peak, error) })
    }

    /// How much of a kernel's speed remains if its batch and its spatial extents come at run time.
    fn opened<T: Element>(&self, problem: &Deconv, kernel: &Kernel<T>, tensors: &Tensors<T>) -> Result<f64> {
        let (batch, spatial) = problem.fixed_shape().unwrap_or_default();
        let open = problem.open_extents().compile(&tensors.w, tensors.bias.as_deref(), &self.options)?;
        let mut y = vec![T::from_f64(f64::NAN); problem.output_shape(batch, &spatial)?.iter().product()];
        let run = |kernel: &Kernel<T>, y: &mut Vec<T>| self.on_pool(|| kernel.run_sized(batch, &spatial, &tensors.x, y));
        run(&open, &mut y)?;
        tensors.check(problem, batch, &spatial, &y)?;
        let mut best = [f64::INFINITY; 2];
        let start = Instant::now();
        let mut rounds = 0;
        while rounds < OPEN_ROUNDS || start.elapsed().as_secs_f64() * 1e3 < 2.0 * self.min_ms {
            for (kernel, best) in [kernel, &open].into_iter().zip(&mut best) {
                let start = Instant::now();
                run(kernel, &mut y)?;
                *best = best.min(start.elapsed().as_secs_f64());
            }
            rounds += 1;
        }
        Ok(best[0] / best[1])
    }

    /// A kernel, with the median times of making it three times: the first time also pays for what the allocator
    /// gives back of the layer before, and for fresh pages.
    fn compile<T: Element>(&self, problem: &Deconv, tensors: &Tensors<T>) -> Result<(Kernel<T>, [Duration; 2])> {
        let make = || problem.compile(&tensors.w, tensors.bias.as_deref(), &self.options);
        let times = |kernel: &Kernel<T>| (kernel.report().compile, kernel.report().pack);
        let (first, second) = (times(&make()?), times(&make()?));
        let kernel = make()?;
        let third = times(&kernel);
        let median = |mut t: [Duration; 3]| {
            t.sort();
            t[1]
        };
        Ok((kernel, [median([first.0, second.0, third.0]), median([first.1, second.1, third.1])]))
    }

    /// Calls `f` where kernels find the threads that were asked for.
    fn on_pool<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }
}

fn timed<T: Element>(kernel: &Kernel<T>, [compile, pack]: [Duration; 2], run: Timing, gflops: f64, share: f64, error: Errors) -> Timed {
    let report = kernel.report();
    Timed {
        plan: kernel.plan().to_string(),
        compile_ms: compile.as_secs_f64() * 1e3,
        pack_ms: pack.as_secs_f64() * 1e3,
        run,
        gflops,
        share,
        error,
        code_bytes: report.code_bytes,
        scratch_bytes: kernel.scratch_bytes(),
        packed_bytes: report.packed_bytes,
        open: None,
    }
}

/// Errors against the reference, relative to the largest output.
#[derive(Clone, Copy)]
struct Errors {
    largest: f64,
    rms: f64,
}

/// Random tensors, weights scaled so that outputs are of the order of 1.
struct Tensors<T> {
    x: Vec<T>,
    w: Vec<T>,
    bias: Option<Vec<T>>,
}

impl<T: Element> Tensors<T> {
    fn new(p: &Deconv, batch: usize, spatial: &[usize]) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut fill =
            |n: usize, scale: f32| -> Vec<T> { (0..n).map(|_| T::from_f64((scale * rng.random_range(-1.0f32..1.0)).into())).collect() };
        let scale = (3.0 / reference::error_bound_terms(p) as f32).sqrt();
        let x = fill(p.input_shape(batch, spatial)?.iter().product(), 1.0);
        let w = fill(p.weight_shape().iter().product(), scale);
        Ok(Tensors { x, w, bias: p.bias.then(|| fill(p.c_out, 1.0)) })
    }

    /// The errors over the largest output, or an error that says where one is too large.
    ///
    /// Rounding errors of a sum of n random terms grow like the square root of n; a wrong or missing term is thousands of times that.
    fn check(&self, p: &Deconv, batch: usize, spatial: &[usize], y: &[T]) -> Result<Errors> {
        let expected = reference::deconv(p, batch, spatial, &self.x, &self.w, self.bias.as_deref())?;
        let eps = if p.elem == Elem::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let bound = eps * (8.0 + 4.0 * (reference::error_bound_terms(p) as f64).sqrt());
        let scale = expected.iter().map(|v| v.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let (mut worst, mut squares) = ((0.0, 0), 0.0);
        for (at, (e, y)) in expected.iter().zip(y).enumerate() {
            let y: f64 = (*y).into();
            let error = if y.is_nan() { f64::INFINITY } else { (y - e).abs() / scale };
            squares += error * error;
            if error > worst.0 {
                worst = (error, at);
            }
        }
        if worst.0 > bound {
            let (at, y) = (worst.1, y[worst.1].into());
            let message = format!(
                "check failed: output {at} is {y:?}, of the reference {:?}; legal is an error of {bound:.1e} of the largest output",
                expected[at]
            );
            return Err(Error::new(Kind::Codegen, message));
        }
        Ok(Errors { largest: worst.0, rms: (squares / y.len().max(1) as f64).sqrt() })
    }
}

impl Row {
    fn json(&self) -> Value {
        let mut line = json!({"name": self.name, "threads": self.threads, "isa": self.isa.name()});
        let rest = match &self.result {
            Ok(t) => json!({
                "ok": true, "plan": t.plan, "compile_ms": rounded(t.compile_ms), "pack_ms": rounded(t.pack_ms),
                "run_ms": rounded(t.run.median * 1e3), "run_min_ms": rounded(t.run.min * 1e3), "runs": t.run.iters,
                "gflops": rounded(t.gflops), "share_of_peak": rounded(t.share), "max_rel_err": rounded(t.error.largest), "rms_rel_err": rounded(t.error.rms),
                "code_bytes": t.code_bytes, "scratch_bytes": t.scratch_bytes, "packed_bytes": t.packed_bytes,
            }),
            Err(e) => json!({"ok": false, "error": e.message}),
        };
        if let (Value::Object(line), Value::Object(rest)) = (&mut line, rest) {
            line.extend(rest);
            if let Ok(Timed { open: Some(keeps), .. }) = &self.result {
                line.insert("open_keeps".into(), json!(rounded(*keeps)));
            }
        }
        line
    }
}

/// Four significant digits.
fn rounded(v: f64) -> f64 {
    format!("{v:.3e}").parse().unwrap_or(v)
}

fn table(rows: &[Row], bench: &Bench) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "layer",
        "run ms",
        "GFLOP/s",
        "of peak",
        "compile ms",
        "pack ms",
        "code",
        "scratch",
        "max err",
        "plan",
    ]);
    for row in rows {
        match &row.result {
            Ok(t) => table.add_row([
                row.name.clone(),
                format!("{:.3}", t.run.median * 1e3),
                format!("{:.1}", t.gflops),
                format!("{:.3}", t.share),
                format!("{:.2}", t.compile_ms),
                format!("{:.2}", t.pack_ms),
                t.code_bytes.to_string(),
                t.scratch_bytes.to_string(),
                format!("{:.1e}", t.error.largest),
                t.plan.clone(),
            ]),
            Err(_) => table.add_row([row.name.clone(), "FAILED".into()]),
        };
    }
    (1..9).filter_map(|i| table.column(i).map(|_| i)).collect::<Vec<_>>().into_iter().for_each(|i| {
        table.column_mut(i).expect("the column was found").set_cell_alignment(CellAlignment::Right);
    });
    let mut out = format!("{table}\n");
    for row in rows {
        if let Err(e) = &row.result {
            out += &format!("FAILED {}: {e}\n", row.name);
        }
    }
    let shares: Vec<f64> = rows.iter().filter_map(|r| r.result.as_ref().ok()).map(|t| t.share.max(f64::MIN_POSITIVE).ln()).collect();
    let peaks = bench.peak.iter().zip(["f32", "f64"]).filter(|(p, _)| **p > 0.0);
    let peaks: Vec<String> = peaks.map(|(p, elem)| format!("{p:.1} GFLOP/s in {elem}")).collect();
    if !shares.is_empty() {
        let mean = (shares.iter().sum::<f64>() / shares.len() as f64).exp();
        out += &format!(
            "geometric mean of {} layers: {mean:.3} of the FMA peak ({} threads, {})\n",
            shares.len(),
            bench.options.threads,
            bench.isa
        );
        out += &format!("FMA peak of one core: {}\n", peaks.join(", "));
    }
    let keeps: Vec<(&str, f64)> = rows.iter().filter_map(|r| Some((r.name.as_str(), r.result.as_ref().ok()?.open?))).collect();
    if let Some(least) = keeps.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
        let mean = (keeps.iter().map(|k| k.1.ln()).sum::<f64>() / keeps.len() as f64).exp();
        out += &format!("open extents keep {mean:.3} of the speed in geometric mean, least {:.3} ({})\n", least.1, least.0);
    }
    let failed = rows.len() - shares.len();
    out + &format!("{} passed, {failed} failed\n", shares.len())
}
