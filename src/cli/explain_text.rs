//! The report of `explain` in words and tables.
//!
//! *Needs* the facts of [`polyphase::explain`]; *leaves* text of at most about 110 columns. Sections answer, in this order: what is
//! computed, how much of it is useful, how outputs overlap, how it will be computed and why, whether it is right, how fast it is.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use polyphase::explain::check::Checked;
use polyphase::explain::ir::IrReport;
use polyphase::explain::overlap::Overlap;
use polyphase::explain::schedule::{CostOf, Schedule, VersionOf};
use polyphase::explain::{Explanation, facts};
use std::fmt::Write;

/// A table, indented, its columns aligned to the left or (`r`) to the right: `columns` has a letter for each.
pub fn table(columns: &str, header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut t = Table::new();
    t.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        t.set_header(header);
    }
    for row in rows {
        t.add_row(row);
    }
    for (column, letter) in t.column_iter_mut().zip(columns.chars()) {
        column.set_cell_alignment(if letter == 'r' { CellAlignment::Right } else { CellAlignment::Left });
    }
    t.lines().map(|l| format!(" {}\n", l.trim_end())).collect()
}

/// `25,690,112`.
pub fn grouped(v: u64) -> String {
    let digits = v.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// `8.0 MiB`.
pub fn bytes(v: u64) -> String {
    match v {
        0..1024 => format!("{v} B"),
        1024..1_048_576 => format!("{:.1} KiB", v as f64 / 1024.0),
        _ => format!("{:.1} MiB", v as f64 / 1_048_576.0),
    }
}

pub fn joined<T: ToString>(v: &[T], with: &str) -> String {
    v.iter().map(T::to_string).collect::<Vec<_>>().join(with)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Milliseconds with as many digits as they deserve.
fn ms(v: f64) -> String {
    match v {
        ..0.1 => format!("{:.1} us", v * 1e3),
        ..10.0 => format!("{v:.2} ms"),
        _ => format!("{v:.1} ms"),
    }
}

fn section(out: &mut String, title: &str) {
    let _ = writeln!(out, "\n{title}");
}

/// The report of a layer.
pub fn layer(e: &Explanation) -> String {
    let mut out = head(e);
    problem(&mut out, e);
    overlap(&mut out, &e.overlap);
    schedule(&mut out, &e.schedule);
    match &e.kernel {
        Some(k) => kernel(&mut out, k, &e.schedule),
        None => out.push_str("\nNothing was compiled; without --plan-only the kernel is compiled, checked and timed.\n"),
    }
    out
}

/// Name, descriptor and notes.
pub fn head(e: &Explanation) -> String {
    let mut out = match e.name == e.problem {
        true => format!("{}\n", e.problem),
        false => format!("{}\n{}\n", e.name, e.problem),
    };
    for note in &e.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}

fn problem(out: &mut String, e: &Explanation) {
    section(out, "Problem");
    let tensor = |t: &facts::Tensor| vec![t.name.to_string(), joined(&t.shape, " x "), t.axes.clone(), bytes(t.bytes)];
    out.push_str(&table("lllr", &[], e.tensors.iter().map(tensor).collect()));
    for o in &e.output {
        let value = if o.extent == o.value.to_string() { o.extent.clone() } else { format!("{} = {}", o.extent, o.value) };
        let _ = writeln!(out, "  output {} = {} = {value}", o.axis, o.formula);
    }

    section(out, "Multiplications");
    let w = &e.work;
    let of = |v: u64| if w.with_zeros == 0 { 0.0 } else { v as f64 / w.with_zeros as f64 };
    let row = |what: &str, v: u64| vec![what.to_string(), grouped(v), percent(of(v))];
    let rows = vec![row("with zeros inserted", w.with_zeros), row("removed (zeros, padding)", w.removed), row("useful", w.useful)];
    out.push_str(&table("lrr", &[], rows));
    let _ = writeln!(out, "  {} tensor bytes move, {:.1} operations for each", grouped(w.bytes_io), w.intensity);

    section(out, "Phases (an output sums the taps of its phase)");
    let mut rows = Vec::new();
    for axis in &e.phases {
        for (i, f) in axis.listed.iter().enumerate() {
            let outputs = match axis.count {
                1 => "all".to_string(),
                s => format!("{}, {}, {} ...", f.first_output, f.first_output + s, f.first_output + 2 * s),
            };
            rows.push(vec![if i == 0 { axis.axis.to_string() } else { String::new() }, outputs, taps(&f.taps)]);
        }
        if axis.count > axis.listed.len() {
            rows.push(vec![String::new(), format!("{} more phases", axis.count - axis.listed.len()), String::new()]);
        }
    }
    out.push_str(&table("lll", &["axis", "outputs", "taps"], rows));
}

fn taps(taps: &[usize]) -> String {
    match taps.len() {
        0 => "none: bias only".into(),
        n @ 9.. => format!("{}, {}, {} ... {} ({n} taps)", taps[0], taps[1], taps[2], taps[n - 1]),
        _ => joined(taps, ", "),
    }
}

fn overlap(out: &mut String, o: &Overlap) {
    section(out, "Overlap");
    let _ = writeln!(out, "  {}", o.verdict);
    for a in &o.axes {
        let _ = writeln!(out, "  patches on outputs {} = 0, 1, 2 ...: {}", a.axis, joined(&a.first, " "));
    }
    for (i, fix) in o.fixes.iter().enumerate() {
        let _ = writeln!(out, "  {} {fix}", if i == 0 { "even with" } else { "       or" });
    }
}

fn schedule(out: &mut String, s: &Schedule) {
    let threads = if s.threads == 1 { "1 thread".to_string() } else { format!("{} threads", s.threads) };
    section(out, &format!("Plan ({}, {threads}): {}", s.isa, s.plan));
    for r in &s.reasons {
        let _ = writeln!(out, "  - {r}");
    }
    let k = |v: f64| format!("{:.1}", v / 1e3);
    let row = |c: &CostOf, mark: &str| {
        let cells = [format!("{:.2}", c.relative), k(c.cycles), k(c.compute), k(c.store), k(c.panel), k(c.traffic)];
        [mark.to_string(), c.plan.clone()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let rows = std::iter::once(row(&s.cost, "chosen")).chain(s.rejected.iter().map(|c| row(c, "rejected"))).collect();
    let _ = writeln!(out, "\n  Predicted thousands of cycles; {} candidates, the best of each kind:", s.candidates);
    let _ = writeln!(out, "  ({})", s.machine);
    out.push_str(&table("llrrrrrr", &["", "plan", "ratio", "cycles", "compute", "store", "panel", "traffic"], rows));

    if !s.versions.is_empty() {
        section(out, "Versions (a run takes the one that is cheapest for its extents; --typical names other sizes)");
        let size = |v: &VersionOf| joined(&v.typical, "x");
        let row = |(i, v): (usize, &VersionOf)| {
            let packed = if v.packing == i { bytes(v.packed) } else { format!("as for {}", size(&s.versions[v.packing])) };
            vec![if v.shown { "above" } else { "" }.to_string(), size(v), v.plan.clone(), packed]
        };
        out.push_str(&table("lllr", &["", "for", "plan", "packed weights"], s.versions.iter().enumerate().map(row).collect()));
    }

    section(out, "Register tile");
    let t = &s.tile;
    let axes: Vec<String> = t.axes.iter().map(|(v, n)| format!("{v} {n}")).collect();
    let _ = writeln!(out, "  {} = {}, {} lanes along {}", t.name, joined(&axes, " x "), t.lanes, t.along);
    let _ = writeln!(out, "  {} of {} vector registers hold accumulators; operands share the rest", t.accumulators, t.budget);
    section(out, "Memory");
    let shapes: Vec<String> = s.memory.buffers.iter().map(|b| format!("{} {}", b.name, joined(&b.shape, "x"))).collect();
    let what = if shapes.is_empty() { "none is needed".to_string() } else { joined(&shapes, ", ") };
    let _ = writeln!(out, "  scratch {} a thread ({what}), packed weights {}", bytes(s.memory.scratch), bytes(s.memory.packed));

    section(out, "Passes");
    let row = |p: &polyphase::explain::schedule::Pass| {
        let time = format!("{:.2} ms", p.microseconds / 1e3);
        vec![p.name.to_string(), p.summary.to_string(), if p.changed { time } else { "unchanged".into() }]
    };
    out.push_str(&table("llr", &[], s.passes.iter().map(row).collect()));
}

fn kernel(out: &mut String, k: &Checked, s: &Schedule) {
    section(out, "Kernel");
    let (compile, pack) = (ms(k.compile_ms), ms(k.pack_ms));
    let _ = writeln!(out, "  compiled in {compile}, weights packed in {pack}, {} of code", bytes(k.code_bytes as u64));

    section(out, "Checks");
    let mark = |ok: bool| if ok { "ok    " } else { "FAILED" };
    let on = |instance: &Option<String>| instance.as_ref().map_or(String::new(), |i| format!("\n         on a smaller instance: {i}"));
    let bits = if k.equal_to_interpreter { "equal to the interpreter, bit for bit" } else { "differs from the interpreter" };
    let outputs = grouped(k.outputs_interpreted as u64);
    let _ = writeln!(out, "  {} {bits} ({outputs} outputs){}", mark(k.equal_to_interpreter), on(&k.interpreted_instance));
    let d = &k.error;
    let activation = if d.activation_eps > 0.0 { format!(" and {} eps for the activation", d.activation_eps) } else { String::new() };
    let _ = writeln!(
        out,
        "  {} largest error against the f64 reference {:.1e} of {}; bound {:.1e} for {} terms{activation}{}",
        mark(d.within_bound),
        d.largest,
        if d.windows { "the largest pixel times a channel's absolute weights" } else { "an output's absolute products" },
        d.bound,
        grouped(d.terms as u64),
        on(&k.reference_instance)
    );

    section(out, "Speed");
    let _ = writeln!(
        out,
        "  {} a run (median of {}), {:.1} GFLOP/s of useful work, {:.1} GB/s",
        ms(k.run_ms),
        grouped(k.runs as u64),
        k.gflops,
        k.gigabytes_per_second
    );
    let cores = if s.threads == 1 { "the core".to_string() } else { format!("{} cores", s.threads) };
    let _ = writeln!(
        out,
        "  {} of the FMA peak of {cores} ({:.1} GFLOP/s a core at {}, measured just now)",
        percent(k.share_of_peak),
        k.peak_gflops,
        s.isa
    );
    out.push_str(DEBUG);
}

/// What is said below a speed that was measured by a debug build.
const DEBUG: &str = if cfg!(debug_assertions) { "  (a debug build measures too low a peak; use --release)\n" } else { "" };

/// The report of a function in the IR.
pub fn function(r: &IrReport) -> String {
    let mut out = format!("{}\nIR of stage {}, {}\n", r.name, r.stage, r.elem);
    if !r.symbols.is_empty() {
        let symbols: Vec<String> = r.symbols.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        let _ = writeln!(out, "  symbols: {} (--symbol NAME=VALUE sets them)", joined(&symbols, ", "));
    }
    section(&mut out, "Buffers");
    let row = |(name, kind, dims): &(String, String, Vec<i64>)| vec![name.clone(), kind.clone(), joined(dims, " x ")];
    out.push_str(&table("lll", &[], r.buffers.iter().map(row).collect()));
    section(&mut out, "Work of a run");
    let counts = [grouped(r.multiplications), grouped(r.loads), grouped(r.stores)];
    let _ = writeln!(out, "  {} multiplications, {} elements read, {} written", counts[0], counts[1], counts[2]);
    section(&mut out, "Checks");
    let _ = writeln!(out, "  ok     the verifier found nothing");
    match &r.first_difference {
        None => {
            let outputs = grouped(r.outputs as u64);
            let _ = writeln!(out, "  ok     native code ({}) is equal to the interpreter, bit for bit ({outputs} outputs)", r.isa);
        }
        Some((i, expected, found)) => {
            let _ = writeln!(out, "  FAILED output {i} is {found:e} in native code ({}) and {expected:e} in the interpreter", r.isa);
        }
    }
    section(&mut out, "Speed");
    let _ = writeln!(out, "  compiled in {}, {} of code", ms(r.compile_ms), bytes(r.code_bytes as u64));
    let share = if r.peak_gflops > 0.0 { r.gflops / r.peak_gflops } else { 0.0 };
    let _ = writeln!(out, "  {} a run on one thread, {:.1} GFLOP/s, {} of the core's FMA peak", ms(r.run_ms), r.gflops, percent(share));
    out.push_str(DEBUG);
    out
}
