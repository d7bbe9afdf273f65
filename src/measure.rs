//! What the machine does, measured now: the FMA peak of one core, streaming bandwidth, and the time of a call.
//!
//! *Needs* an instruction-set level that this machine has; *leaves* GFLOP/s, GB/s (10⁹ bytes) and seconds. Shares of the peak are
//! only honest if the peak was measured in the same run, so everything here is quick: a few tens of milliseconds.
//!
//! ```
//! use polyphase::{Elem, codegen::target::Isa, measure};
//! # if let Ok(isa) = Isa::best() {
//! let peak = measure::fma_peak(isa, Elem::F32);
//! let t = measure::time(|| { std::hint::black_box(vec![0u8; 64]); }, 1.0);
//! assert!(peak > 0.0 && t.min <= t.median && t.iters > 0);
//! # }
//! ```

use crate::codegen::target::Isa;
use crate::ir::Elem;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Repeats of the peak loop, and how long each lasts.
const REPEATS: usize = 20;
const REPEAT: Duration = Duration::from_micros(1500);
/// Bytes that are streamed: more than caches hold.
const STREAM: usize = 128 << 20;

/// How long a call takes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The median of the samples.
    pub median: f64,
    /// The shortest sample.
    pub min: f64,
    /// Calls that were timed.
    pub iters: usize,
}

/// GFLOP/s of one core in a loop of nothing but multiply-adds on registers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// The best repeat: the peak.
    pub best: f64,
    /// The median repeat; far below the best on a machine that is busy.
    pub median: f64,
}

/// GB/s of one core, streaming through more memory than its caches hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Reading.
    pub read: f64,
    /// Writing, with ordinary stores.
    pub write: f64,
}

/// Times a call: once to warm up, then for at least `min_ms` milliseconds and three samples. Calls much shorter than the clock's
/// resolution are timed several at once.
pub fn time(mut f: impl FnMut(), min_ms: f64) -> Timing {
    let start = Instant::now();
    f();
    let batch = (2e-6 / start.elapsed().as_secs_f64().max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    let (mut samples, start) = (Vec::new(), Instant::now());
    while samples.len() < 3 || start.elapsed().as_secs_f64() * 1e3 < min_ms {
        let t = Instant::now();
        (0..batch).for_each(|_| f());
        samples.push(t.elapsed().as_secs_f64() / batch as f64);
    }
    samples.sort_by(f64::total_cmp);
    Timing { median: samples[samples.len() / 2], min: samples[0], iters: samples.len() * batch }
}

/// The FMA peak of one core in GFLOP/s: the best of several repeats. 0 if this machine lacks the level.
pub fn fma_peak(isa: Isa, elem: Elem) -> f64 {
    peak(isa, elem).best
}

/// The FMA peak of one core. Where the level has no fused multiply-add, products and sums count as they are executed.
pub fn peak(isa: Isa, elem: Elem) -> Peak {
    let Some(run) = kernels::of(isa, elem) else { return Peak { best: 0.0, median: 0.0 } };
    // Doubles the number of rounds until a repeat is long enough for the clock; this warms the core up too.
    let mut rounds = 1024;
    let elapsed = |rounds: u64| {
        let t = Instant::now();
        let flops = run(black_box(rounds));
        (flops, t.elapsed())
    };
    while elapsed(rounds).1 < REPEAT && rounds < 1 << 40 {
        rounds *= 2;
    }
    let mut rates: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let (flops, t) = elapsed(rounds);
            flops as f64 / t.as_secs_f64().max(1e-9) * 1e-9
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    Peak { best: rates[REPEATS - 1], median: rates[REPEATS / 2] }
}

/// The streaming bandwidth of one core, best of three; it takes 128 MiB for the time of the measurement.
pub fn bandwidth() -> Bandwidth {
    let mut memory = vec![1u64; STREAM / 8];
    let rate = |t: Duration| STREAM as f64 / t.as_secs_f64().max(1e-9) * 1e-9;
    let mut best = Bandwidth { read: 0.0, write: 0.0 };
    for round in 0..3u64 {
        let t = Instant::now();
        black_box(memory.iter().fold(0u64, |sum, v| sum.wrapping_add(*v)));
        best.read = best.read.max(rate(t.elapsed()));
        let t = Instant::now();
        black_box(&mut memory[..]).fill(round);
        best.write = best.write.max(rate(t.elapsed()));
        black_box(&memory);
    }
    best
}

/// Loops of multiply-adds on registers, written with the compiler's vector intrinsics. Independent chains hide the latency: 12 of them
/// fill two units of five cycles, and fit 16 registers with the two constant operands.
mod kernels {
    use super::{Elem, Isa, black_box};

    /// Runs some rounds, and gives the floating-point operations that it did.
    pub type Loop = fn(u64) -> u64;

    /// A loop under target features, and the plain function through which it is called. `$step` is what a chain does once, of `$flops`
    /// operations on `$lanes` lanes.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    macro_rules! peak_loop {
        ($name:ident, $features:literal, $elem:ty, $chains:literal, $lanes:literal, $splat:path, |$acc:ident, $a:ident, $b:ident| $step:expr) => {
            pub fn $name(rounds: u64) -> u64 {
                #[target_feature(enable = $features)]
                fn run(rounds: u64) {
                    // Chains start apart, or the compiler would make them one; 0.5 v + 1 stays near 2, away from denormals.
                    let start: [$elem; $chains] = black_box(std::array::from_fn(|i| i as $elem));
                    let [a, b]: [$elem; 2] = black_box([0.5, 1.0]);
                    let ($a, $b) = ($splat(a), $splat(b));
                    let mut chains = start.map(|v| $splat(v));
                    for _ in 0..rounds {
                        for chain in &mut chains {
                            let $acc = *chain;
                            *chain = $step;
                        }
                    }
                    black_box(chains);
                }
                // SAFETY: `of` gives this function out only after `Isa::available` has found the features on this machine.
                unsafe { run(rounds) };
                rounds * $chains * $lanes * 2
            }
        };
    }

    #[cfg(target_arch = "x86_64")]
    mod x86 {
        use super::black_box;
        use std::arch::x86_64::*;

        peak_loop!(avx512_f32, "avx512f", f32, 16, 16, _mm512_set1_ps, |v, a, b| _mm512_fmadd_ps(v, a, b));
        peak_loop!(avx512_f64, "avx512f", f64, 16, 8, _mm512_set1_pd, |v, a, b| _mm512_fmadd_pd(v, a, b));
        peak_loop!(avx2_f32, "avx2,fma", f32, 12, 8, _mm256_set1_ps, |v, a, b| _mm256_fmadd_ps(v, a, b));
        peak_loop!(avx2_f64, "avx2,fma", f64, 12, 4, _mm256_set1_pd, |v, a, b| _mm256_fmadd_pd(v, a, b));
        peak_loop!(fma_f32, "avx2,fma", f32, 12, 4, _mm_set1_ps, |v, a, b| _mm_fmadd_ps(v, a, b));
        peak_loop!(fma_f64, "avx2,fma", f64, 12, 2, _mm_set1_pd, |v, a, b| _mm_fmadd_pd(v, a, b));
        peak_loop!(sse2_f32, "sse2", f32, 12, 4, _mm_set1_ps, |v, a, b| _mm_add_ps(_mm_mul_ps(v, a), b));
        peak_loop!(sse2_f64, "sse2", f64, 12, 2, _mm_set1_pd, |v, a, b| _mm_add_pd(_mm_mul_pd(v, a), b));
    }

    #[cfg(target_arch = "aarch64")]
    mod arm {
        use super::black_box;
        use std::arch::aarch64::*;

        peak_loop!(neon_f32, "neon", f32, 16, 4, vdupq_n_f32, |v, a, b| vfmaq_f32(v, a, b));
        peak_loop!(neon_f64, "neon", f64, 16, 2, vdupq_n_f64, |v, a, b| vfmaq_f64(v, a, b));
    }

    /// The loop of a level, if this machine has it.
    pub fn of(isa: Isa, elem: Elem) -> Option<Loop> {
        if !isa.available() {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        return Some(match (isa, elem) {
            (Isa::Avx512, Elem::F32) => x86::avx512_f32,
            (Isa::Avx512, Elem::F64) => x86::avx512_f64,
            (Isa::Avx2, Elem::F32) => x86::avx2_f32,
            (Isa::Avx2, Elem::F64) => x86::avx2_f64,
            (Isa::Fma, Elem::F32) => x86::fma_f32,
            (Isa::Fma, Elem::F64) => x86::fma_f64,
            (Isa::Sse2, Elem::F32) => x86::sse2_f32,
            (Isa::Sse2, Elem::F64) => x86::sse2_f64,
            (Isa::Neon, _) => return None,
        });
        #[cfg(target_arch = "aarch64")]
        return Some(if elem == Elem::F32 { arm::neon_f32 } else { arm::neon_f64 });
        // No other architecture has a level, so none is available there.
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return None;
    }
}
