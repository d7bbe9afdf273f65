//! One layer of every kind, timed by criterion: `cargo bench --bench layers`, or `… -- kernel-equals-stride` for one of them.
//!
//! The throughput is in multiply-adds that reach an output. `polyphase bench` times whole lists and states shares of the peak.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polyphase::{Deconv, Options};

/// A layer of every kind that wants a schedule of its own.
const LAYERS: [(&str, &str); 8] = [
    ("generator", "2d n1 256x8x8 -> 128 k4 s2 p1"),
    ("to-image", "2d n1 64x32x32 -> 3 k4 s2 p1"),
    ("kernel-equals-stride", "2d n1 128x32x32 -> 64 k2 s2"),
    ("matrix-vector", "2d n1 100x1x1 -> 512 k4"),
    ("depthwise", "2d n1 64x32x32 -> 64 k4 s2 p1 g64"),
    ("vocoder", "1d n1 256x100 -> 128 k16 s8 p4"),
    ("odd-kernel", "2d n1 64x16x16 -> 32 k5 s2 p2 op1 bias relu"),
    ("volume", "3d n1 32x8x8x8 -> 16 k2 s2"),
];

/// The same small pseudo-random tensor every time.
fn tensor(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn layers(c: &mut Criterion) {
    let mut run = c.benchmark_group("run");
    for (name, text) in LAYERS {
        let layer: Deconv = text.parse().expect("the descriptor is legal");
        let (batch, spatial) = layer.fixed_shape().expect("every extent is known");
        let elements = |shape: polyphase::Result<Vec<usize>>| shape.expect("the layer has an output").iter().product::<usize>();
        let x = tensor(elements(layer.input_shape(batch, &spatial)));
        let w = tensor(elements(Ok(layer.weight_shape())));
        let bias = layer.bias.then(|| tensor(layer.c_out));
        let mut y = vec![0.0; elements(layer.output_shape(batch, &spatial))];
        let kernel = layer.compile(&w, bias.as_deref(), &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        run.throughput(Throughput::Elements(u64::try_from(layer.useful_macs(batch, &spatial)).unwrap_or(u64::MAX)));
        run.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(|| kernel.run(&x, &mut y)));
    }
    run.finish();
}

fn compile(c: &mut Criterion) {
    let layer: Deconv = LAYERS[0].1.parse().expect("the descriptor is legal");
    let w = tensor(layer.weight_shape().iter().product());
    c.bench_function("compile/generator", |b| b.iter(|| layer.compile(&w, None, &Options::default())));
}

criterion_group!(benches, layers, compile);
criterion_main!(benches);
