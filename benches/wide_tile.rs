//! How close the main loops of wide tiles come to the FMA peak, with data in the first two caches.
//!
//! `cargo bench --bench wide_tile` prints GFLOP/s and two shares: of the best peak of the run, and of a loop of nothing but independent
//! fmas on registers that takes turns with the tile, a third of a millisecond each. The second says what the tile loses by itself:
//! processors lower their clock by several percent under loads and multiply-adds together, and raise it slowly.

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

    /// Seconds of one slice, and how many slices of each kind.
    const SLICE: f64 = 3e-4;
    const SLICES: usize = 151;

    /// A tile with its memory, compiled.
    struct Tile<'f> {
        machine: Machine<'f, f32>,
        name: &'f str,
        args: Vec<i64>,
        /// Floating-point operations of a call.
        flops: f64,
        emitted: u128,
    }

    impl<'f> Tile<'f> {
        fn new(func: &'f Func, name: &'f str, syms: &[(&str, i64)], bind: &[&str], flops: f64, isa: WideIsa) -> Tile<'f> {
            let mut machine = Machine::<f32>::new(func, syms, Against::Start);
            let t = Instant::now();
            machine.compile(isa).expect("the tile fits");
            let emitted = t.elapsed().as_micros();
            bind.iter().for_each(|v| machine.bind(v, 0));
            let args = machine.args(machine.tile(name));
            Tile { machine, name, args, flops, emitted }
        }

        /// GFLOP/s of one slice, at so many per second as it is expected to reach.
        fn slice(&self, rate: f64) -> f64 {
            let calls = (SLICE * rate * 1e9 / self.flops).max(1.0) as usize;
            let t = Instant::now();
            (0..calls).for_each(|_| self.machine.call(self.name, &self.args));
            calls as f64 * self.flops / t.elapsed().as_secs_f64() * 1e-9
        }

        /// GFLOP/s, the best of many slices, and the median share of a slice of `peak` just before.
        fn beside(&self, peak: &Tile, best: f64) -> (f64, f64) {
            let pairs = (0..SLICES).map(|_| (peak.slice(best), self.slice(best)));
            let (mut most, mut shares) = (0f64, Vec::new());
            for (of_peak, own) in pairs {
                most = most.max(own);
                shares.push(own / of_peak);
            }
            shares.sort_by(f64::total_cmp);
            (most, shares[SLICES / 2])
        }

        fn notes(&self) -> String {
            let n = &self.machine.tile(self.name).notes;
            format!("{} of {} registers, {} bytes, emitted in {} us", n.peak, n.file, n.code_bytes, self.emitted)
        }
    }

    /// Nothing but fmas: each register accumulates by itself. Their floating-point operations beside.
    fn fmas(isa: WideIsa) -> (Func, f64) {
        let (l, n, trips) = (isa.vector_bytes() as i64 / 4, 12, 1000);
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
        (func(Elem::F32, &[], vec![y], regs, vec![tile("peak", body)]), (2 * l * n * 4 * trips) as f64)
    }

    pub fn main() {
        for isa in [WideIsa::avx2(), WideIsa::avx512()].into_iter().flatten() {
            let (func, flops) = fmas(isa);
            let peak = Tile::new(&func, "peak", &[], &[], flops, isa);
            let best = (0..SLICES).map(|_| peak.slice(100.0)).fold(0.0, f64::max);
            println!("{}: peak {best:.1} GFLOP/s", isa.name());
            let show = |what: &str, tile: Tile| {
                let (rate, beside) = tile.beside(&peak, best);
                let [share, beside] = [rate / best, beside].map(|s| s * 100.0);
                println!("  {what:38}: {rate:6.1} GFLOP/s, {share:5.1} % of the peak, {beside:5.1} % in turn  {}", tile.notes());
            };
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
                    let func = x_tile(&x);
                    let tile = Tile::new(&func, "x", &[("W", 0), ("P", 0)], &["ob", "row", "col"], flops, isa);
                    let when = if late { "late" } else { "early" };
                    show(&format!("x  {oc}x2x{vectors} windows {when:5} ic {ic:3}"), tile);
                }
            }
            for ic in [32, 64, 256] {
                let (q, vectors) = if wide { (12, 2) } else { (6, 2) };
                let shapes = [([q, vectors, l], true), ([q, 1, vectors * l], true), ([q * vectors, 1, l], true), ([q, vectors, l], false)];
                for ([q, vectors, l], last) in shapes {
                    let f = oc_tile(Elem::F32, [q, vectors, l], ic, 2, vectors * l, last);
                    let flops = (2 * q * vectors * l * ic * 2) as f64;
                    let tile = Tile::new(&f, "oc", &[("W", 4 * q)], &["ob", "q0"], flops, isa);
                    let stores = if last { "contiguous" } else { "strided" };
                    show(&format!("oc {q}x{vectors} of {l} lanes, {stores:10} ic {ic:3}"), tile);
                }
            }
        }
    }
}

fn main() {
    #[cfg(target_arch = "x86_64")]
    bench::main();
}
