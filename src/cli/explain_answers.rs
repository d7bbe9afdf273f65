//! The answers of `explain --at` and `explain --matrix` in words and tables.

use super::explain_text::{head, joined, table};
use polyphase::explain::Explanation;
use polyphase::explain::at::{At, Landing};
use polyphase::explain::matrix::Matrix;
use std::fmt::Write;

/// Weights that have letters; more are numbered.
const LETTERS: usize = 26;

/// What was asked for.
pub fn text(e: &Explanation) -> String {
    let mut out = head(e);
    if let Some(at) = &e.at {
        out.push('\n');
        answer(&mut out, at);
    }
    if let Some(m) = &e.matrix {
        out.push('\n');
        matrix(&mut out, m);
    }
    out
}

/// A number as a person would write it.
fn number(v: f64) -> String {
    if v == v.trunc() && v.abs() < 1e15 { format!("{v}") } else { format!("{v:.7}").trim_end_matches('0').to_string() }
}

fn answer(out: &mut String, at: &At) {
    let place = format!("y[{}, {}, {}]", at.batch, at.channel, joined(&at.output, ", "));
    match at.value {
        Some(v) => {
            let _ = writeln!(out, "Why is {place} equal to {}?\n", number(v));
        }
        None => {
            let _ = writeln!(out, "What lands on {place}?\n");
        }
    }
    for a in &at.axes {
        let lands: Vec<String> = a.lands.iter().map(|(k, i)| format!("k={k} i={i}")).collect();
        let _ =
            write!(out, "  axis {}: {} holds for {}", a.axis, a.condition, if lands.is_empty() { "no pixel".into() } else { few(&lands) });
        let outside: Vec<String> = a.outside.iter().map(|(k, i)| format!("k={k} i={i}")).collect();
        if !outside.is_empty() {
            let _ = write!(out, "; outside of the input: {}", few(&outside));
        }
        out.push('\n');
    }
    let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let taps = plural(at.taps, "tap", "taps");
    let _ = writeln!(out, "  so {} of {taps} land here; {} meet inserted zeros, {} padding\n", at.landing, at.on_zeros, at.outside);
    rows(out, at);
    totals(out, at);
}

fn few(all: &[String]) -> String {
    const SHOWN: usize = 8;
    match all.len() {
        ..=SHOWN => all.join(", "),
        n => format!("{}, ... ({n} in all)", all[..SHOWN].join(", ")),
    }
}

fn rows(out: &mut String, at: &At) {
    if at.rows.is_empty() {
        return;
    }
    let single = at.rows[0].channel.is_some();
    let with_channel = single && at.channels > 1;
    let valued = at.rows[0].product.is_some();
    let mut header = vec!["pixel", "tap"];
    if with_channel {
        header.push("ic");
    }
    if valued && single {
        header.extend(["input", "weight"]);
    }
    let (sum_of, so_far) =
        (format!("sum over {} ic", at.channels), format!("{} so far", if at.merge == "max" { "largest" } else { "sum" }));
    if valued {
        header.extend([if single { "product" } else { sum_of.as_str() }, so_far.as_str()]);
    }
    let row = |r: &Landing| {
        let mut cells = vec![format!("x[{}]", joined(&r.pixel, ",")), format!("w[{}]", joined(&r.tap, ","))];
        cells.extend(r.channel.filter(|_| with_channel).map(|c| c.to_string()));
        cells.extend([r.input, r.weight, r.product, r.running].into_iter().flatten().map(number));
        cells
    };
    let columns: String = header.iter().enumerate().map(|(i, _)| if i < 2 { 'l' } else { 'r' }).collect();
    out.push_str(&table(&columns, &header, at.rows.iter().map(row).collect()));
    if at.row_count > at.rows.len() {
        let _ = writeln!(out, "  ... and {} more", at.row_count - at.rows.len());
    }
    if !valued {
        let over = if at.channels > 1 { format!(", each over {} input channels", at.channels) } else { String::new() };
        let _ = writeln!(out, "\n  {} of these products{over}; --input and --weight give values", at.merge);
    }
}

fn totals(out: &mut String, at: &At) {
    if at.landing == 0 {
        out.push_str("  nothing lands here: the output is bias and activation of 0\n");
    }
    let Some(merged) = at.merged else { return };
    if at.merge == "mean" {
        let _ = writeln!(out, "\n  mean over {} patches: {}", at.landing, number(merged));
    }
    if let Some(b) = at.bias {
        let _ = writeln!(out, "\n  plus bias {}: {}", number(b), number(merged + b));
    }
    match at.value {
        Some(v) => {
            let _ = writeln!(out, "\n  The output is {}.", number(v));
        }
        None => out.push_str("\n  The layer has a bias; --bias gives its values.\n"),
    }
}

fn matrix(out: &mut String, m: &Matrix) {
    let weights = m.c.iter().flatten().flatten().max().map_or(0, |w| w + 1);
    let letter = |w: usize| if weights <= LETTERS { char::from(b'a' + w as u8).to_string() } else { format!("w{w}") };
    let _ = writeln!(
        out,
        "Convolution matrix C: {} x {}, {} weights and {} zeros. The layer is y = C^T x, one row of C per input.",
        m.rows, m.columns, m.entries, m.zeros
    );
    if m.c_values.is_none() {
        let names = if weights <= LETTERS { "a, b, c ..." } else { "w0, w1, w2 ..." };
        let _ = writeln!(out, "Entries {names} are the weights in the order of memory; --weight gives numbers.");
    }
    let symbols = |rows: &[Vec<Option<usize>>]| -> Vec<Vec<String>> {
        rows.iter().map(|r| r.iter().map(|e| e.map_or(".".into(), letter)).collect()).collect()
    };
    let numbers = |rows: &[Vec<f64>], holds: &[Vec<Option<usize>>]| -> Vec<Vec<String>> {
        let cell = |(v, w): (&f64, &Option<usize>)| if w.is_some() { number(*v) } else { ".".into() };
        rows.iter().zip(holds).map(|(r, h)| r.iter().zip(h).map(cell).collect()).collect()
    };
    for (name, holds, values) in [("C", &m.c, &m.c_values), ("C^T", &m.transpose, &m.transpose_values)] {
        let cells = values.as_ref().map_or_else(|| symbols(holds), |v| numbers(v, holds));
        let _ = writeln!(out, "\n{name}");
        grid(out, &cells);
    }
}

/// Cells in columns of one width, which keeps the diagonals straight.
fn grid(out: &mut String, cells: &[Vec<String>]) {
    let width = cells.iter().flatten().map(String::len).max().unwrap_or(1);
    for row in cells {
        let line: Vec<String> = row.iter().map(|c| format!("{c:>width$}")).collect();
        let _ = writeln!(out, "  {}", line.join(" "));
    }
}
