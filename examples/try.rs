//! tmp
use polyphase::*;
use std::time::Instant;
fn main() {
    let mut args = std::env::args().skip(1);
    let text = args.next().unwrap();
    let isa = args.next();
    let layers: Vec<(String, Deconv)> = if text.ends_with(".json") {
        polyphase::problem::text::parse_json(&std::fs::read_to_string(&text).unwrap())
            .unwrap()
            .into_iter()
            .map(|l| (l.name.to_string(), l.problem))
            .collect()
    } else {
        vec![(text.clone(), text.parse().unwrap())]
    };
    let filter = args.next().unwrap_or_default();
    let check = args.next().is_some();
    let mut logsum = 0.0;
    let mut n = 0.0f64;
    for (name, p) in layers.iter().filter(|l| l.0.contains(&filter)) {
        let (b, sp) = p.fixed_shape().unwrap();
        let rnd = |n: usize, seed: u64| -> Vec<f32> {
            let mut s = seed;
            (0..n)
                .map(|_| {
                    s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((s >> 40) as f32 / (1u64 << 23) as f32) - 1.0
                })
                .collect()
        };
        let x = rnd(p.input_shape(b, &sp).unwrap().iter().product(), 1);
        let w = rnd(p.weight_shape().iter().product(), 2);
        let mut y = vec![f32::NAN; p.output_shape(b, &sp).unwrap().iter().product()];
        let opt = Options {
            isa: isa.as_deref().filter(|s| *s != "best").map(|i| polyphase::codegen::target::Isa::forced(i).unwrap()),
            threads: std::env::var("T").ok().map_or(1, |t| t.parse().unwrap()),
            stream: std::env::var("S").ok().map(|s| s == "1"),
            ..Options::default()
        };
        if let Ok(top) = std::env::var("ALL") {
            let isa = opt.isa.unwrap_or(polyphase::codegen::target::Isa::best().unwrap());
            let mut rows = vec![];
            let all = polyphase::plan::ranked(p, isa, &opt, true);
            let mut seen: std::collections::HashMap<String, usize> = Default::default();
            for (rank, c) in all.iter().enumerate() {
                let key = format!(
                    "{:?}{}{}{}{}{}",
                    c.plan.form,
                    c.plan.vector,
                    c.plan.panel,
                    c.plan.extent("qx"),
                    c.plan.extent("rx"),
                    c.plan.extent("qy")
                );
                let s = seen.entry(key).or_default();
                *s += 1;
                if rank > 6 && *s > 1 || rows.len() > top.parse::<usize>().unwrap() {
                    continue;
                }
                let o = Options { plan: Some(c.plan.clone()), ..opt.clone() };
                let k = match p.compile::<f32>(&w, None, &o) {
                    Ok(k) => k,
                    Err(e) => {
                        println!("   ERR {} {e}", c.plan);
                        continue;
                    }
                };
                let mut best = f64::INFINITY;
                let t0 = Instant::now();
                let mut n = 0;
                while n < 3 || t0.elapsed().as_secs_f64() < 0.02 && n < 50 {
                    let t = Instant::now();
                    k.run(&x, &mut y).unwrap();
                    best = best.min(t.elapsed().as_secs_f64());
                    n += 1
                }
                rows.push((best, rank, c.cost, c.plan.clone()));
            }
            rows.sort_by(|a, b| a.0.total_cmp(&b.0));
            for r in rows.iter().take(12) {
                println!(
                    "   {:8.3}ms {:6.1} GF rank {:3} pred {:8.3} [c {:.3} s {:.3} p {:.3} t {:.3}] {}",
                    r.0 * 1e3,
                    p.flops_useful(b, &sp) as f64 / r.0 * 1e-9,
                    r.1,
                    r.2.cycles() / 3.9e6,
                    r.2.compute / 3.9e6,
                    r.2.store / 3.9e6,
                    r.2.panel / 3.9e6,
                    r.2.traffic / 3.9e6,
                    r.3
                );
            }
            if let Some(r) = rows.iter().min_by_key(|r| r.1) {
                println!("   first: {:8.3}ms", r.0 * 1e3);
            }
        }
        let k = match p.compile::<f32>(&w, None, &opt) {
            Ok(k) => k,
            Err(e) => {
                println!("{name}: ERROR {e}");
                continue;
            }
        };
        k.run(&x, &mut y).unwrap();
        let mut err = -1.0;
        if check {
            let r = polyphase::reference::deconv(p, b, &sp, &x, &w, None).unwrap();
            let m = polyphase::reference::magnitude(p, b, &sp, &x, &w, None).unwrap();
            err = r
                .iter()
                .zip(&y)
                .zip(&m)
                .map(|((a, b), m)| (a - *b as f64).abs() / m.max(1e-30))
                .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
        }
        let mut ts = vec![];
        let t0 = Instant::now();
        while ts.len() < 3 || t0.elapsed().as_secs_f64() < 0.08 {
            let t = Instant::now();
            k.run(&x, &mut y).unwrap();
            ts.push(t.elapsed().as_secs_f64());
        }
        ts.sort_by(f64::total_cmp);
        let med = ts[0];
        let gf = p.flops_useful(b, &sp) as f64 / med * 1e-9;
        logsum += gf.ln();
        n += 1.0;
        println!(
            "{name:44} {gf:7.1} GF {:9.3}ms pred {:9.3}ms err {err:8.1e} compile {:6.2}ms pack {:6.2}ms code {:6} | {}",
            med * 1e3,
            k.choice().cost.cycles() / 3.9e6,
            k.report().compile.as_secs_f64() * 1e3,
            k.report().pack.as_secs_f64() * 1e3,
            k.report().code_bytes,
            k.plan()
        );
    }
    println!("geomean {:.1}", (logsum / n).exp());
}
