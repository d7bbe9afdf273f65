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
            ..Options::default()
        };
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
        let med = ts[ts.len() / 2];
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
