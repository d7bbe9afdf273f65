//! How close the main loops of wide tiles come to the FMA peak, with data in the first two caches.
//!
//! `cargo bench --bench wide_tile` prints GFLOP/s and the share of a peak that is measured first, with nothing but independent
//! fmas on registers.

#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
#[path = "../tests/wide_tile/exec.rs"]
mod exec;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
#[path = "../tests/wide_tile/shapes.rs"]
mod shapes;

#[cfg(target_arch = "x86_64")]
mod bench {
    use super::exec::{Against, Machine};
    use super::shapes::*;
    use polyphase::codegen::wide::WideIsa;
    use polyphase::ir::*;
    use std::time::Instant;

    /// The best of many timings of a tile, in GFLOP/s.
    fn rate(func: &Func, name: &str, syms: &[(&str, i64)], bind: &[&str], flops: f64, isa: WideIsa) -> (f64, String) {
        let mut m = Machine::<f32>::new(func, syms, Against::Start);
        let t = Instant::now();
        m.compile(isa).expect("the tile fits");
        let emit = t.elapsed();
        bind.iter().for_each(|v| m.bind(v, 0));
        let args = m.args(m.tile(name));
        let calls = (2e7 / flops).max(1.0) as usize;
        let mut best = f64::MAX;
        for _ in 0..200 {
            let t = Instant::now();
            (0..calls).for_each(|_| m.call(name, &args));
            best = best.min(t.elapsed().as_secs_f64() / calls as f64);
        }
        let n = m.tile(name).notes;
        let notes = format!("{} of {} registers, {} bytes, emitted in {} us", n.peak, n.file, n.code_bytes, emit.as_micros());
        (flops / best * 1e-9, notes)
    }

    /// Nothing but fmas: each register accumulates by itself.
    fn peak(isa: WideIsa) -> f64 {
        let (l, n, trips) = (isa.vector_bytes() as i64 / 4, 12, 100_000);
        let y = buffer("y", BufferKind::Output, Elem::F32, &[c(n), c(l)]);
        let regs = vec![reg("acc", l as usize, &[n as usize]), reg("a", l as usize, &[])];
        let fma = set("acc", &["j"], Value::fma(at("a", &[]), at("a", &[]), at("acc", &["j"])));
        let store =
            Stmt::Store { to: lanes("y", vec![v("j"), c(0)], 1, l as usize, 1, None), parts: vec![at("acc", &["j"])], stream: false };
        let body = vec![
            set("a", &[], Value::Const(0.5)),
            unroll("j", n, vec![set("acc", &["j"], Value::Const(0.0))]),
            seq("i", trips, vec![unroll("r", 4, vec![unroll("j", n, vec![fma])])]),
            unroll("j", n, vec![store]),
        ];
        let f = func(Elem::F32, &[], vec![y], regs, vec![tile("peak", body)]);
        rate(&f, "peak", &[], &[], (2 * l * n * 4 * trips) as f64, isa).0
    }

    pub fn main() {
        for isa in [WideIsa::avx2(), WideIsa::avx512()].into_iter().flatten() {
            let peak = peak(isa);
            println!("{}: peak {peak:.1} GFLOP/s", isa.name());
            let l = isa.vector_bytes() as i64 / 4;
            let wide = isa == WideIsa::Avx512;
            for ic in [8, 32, 64, 256] {
                for (oc, vectors, late) in if wide { [(6, 2, false), (6, 2, true)] } else { [(6, 1, false), (3, 2, true)] } {
                    let x = XTile {
                        elem: Elem::F32,
                        oc,
                        vectors,
                        lanes: l,
                        ic,
                        blocks: 1,
                        c_out: oc,
                        crop: 0,
                        stream: false,
                        open: false,
                        late,
                    };
                    let flops = (2 * oc * 2 * vectors * l * ic * 4) as f64;
                    let (g, notes) = rate(&x_tile(&x), "x", &[("W", 0), ("P", 0)], &["ob", "row", "col"], flops, isa);
                    let when = if late { "late" } else { "early" };
                    println!("  x  {oc}x2x{vectors} windows {when:5} ic {ic:3}: {g:6.1} GFLOP/s, {:5.1} %  {notes}", g / peak * 100.0);
                }
            }
            for ic in [32, 64, 256] {
                let (q, vectors) = if wide { (12, 2) } else { (6, 2) };
                for (shape, last) in [([q, vectors, l], true), ([q, 1, vectors * l], true), ([q, vectors, l], false)] {
                    let f = oc_tile(Elem::F32, shape, ic, 2, vectors * l, last);
                    let flops = (2 * q * vectors * l * ic * 2) as f64;
                    let (g, notes) = rate(&f, "oc", &[("W", 4 * q)], &["ob", "q0"], flops, isa);
                    let stores = if last { "contiguous" } else { "strided" };
                    let [_, v, n] = shape;
                    println!("  oc {q}x{v} of {n} lanes, {stores:10} ic {ic:3}: {g:6.1} GFLOP/s, {:5.1} %  {notes}", g / peak * 100.0);
                }
            }
        }
    }
}

fn main() {
    #[cfg(target_arch = "x86_64")]
    bench::main();
}
