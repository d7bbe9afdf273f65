//! What wide tiles consist of: which instructions load, ask, and shift.

use super::*;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use std::collections::HashSet;

/// The instructions of a function's first tile.
fn instructions(f: &Func, isa: WideIsa) -> Vec<Instruction> {
    let mut tiles = Vec::new();
    f.run.iter().for_each(|s| s.visit(&mut |s| tiles.extend(matches!(s, Stmt::Tile { .. }).then(|| s.clone()))));
    let code = emit(f, &tiles[0], isa).expect("the tile fits").code;
    Decoder::new(64, &code, DecoderOptions::NONE).into_iter().take_while(|i| i.mnemonic() != Mnemonic::Ret).collect()
}

/// Sixteen registers hold twelve accumulators, two vectors and one broadcast for both of them: the stores make do with what is left, and none is masked.
#[test]
fn tiles_of_avx2_load_each_broadcast_once() {
    let Some(isa) = WideIsa::avx2() else { return };
    for last in [false, true] {
        let f = oc_tile(Elem::F32, [6, 2, 8], 5, 2, 20, last);
        let all = instructions(&f, isa);
        let count = |m: Mnemonic| all.iter().filter(|i| i.mnemonic() == m).count();
        assert_eq!((count(Mnemonic::Vbroadcastss), count(Mnemonic::Vfmadd231ps)), (6, 12), "channels last: {last}");
        assert_eq!(count(Mnemonic::Vmaskmovps), 0, "channels last: {last}");
    }
}

/// What a tile asks for is prefetched inside its sums, a part in each iteration, wherever it lies: before the buffer, behind it, in no memory at all.
#[test]
fn tiles_ask_for_what_comes_next() {
    for (range, rows) in [("0..1", "0..N"), ("0..3", "-7..N + 9"), ("40..44", "2*N..3*N"), ("1000000000..1000000004", "0..2")] {
        let text = |asks: &str| {
            format!(
                "func t f32 stage vector {{\n  symbols N\n  buffer x: input f32[4, N, 64]\n  buffer y: output f32[4, 16]\n  reg acc: f32x4\n  run {{\n    \
                 par for b in 0..4 {{\n      tile t {asks}{{\n        for q in 0..16 step 4 {{\n          acc = 0.0\n          for n in 0..N {{\n            \
                 acc = fma(x[b, n, q : 4], 2.0, acc)\n          }}\n          y[b, q : 4] = acc\n        }}\n      }}\n    }}\n  }}\n}}\n"
            )
        };
        let asks = format!("asks x[{range}, {rows}, b..b + 40] ");
        let [f, plain]: [Func; 2] = [asks.as_str(), ""].map(|a| text(a).parse().unwrap_or_else(|e| panic!("{e}\n{}", text(a))));
        for isa in levels() {
            let prefetches = |f: &Func| {
                instructions(f, isa).iter().filter(|i| matches!(i.mnemonic(), Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1)).count()
            };
            assert_eq!(prefetches(&plain), 0);
            assert!((1..=8).contains(&prefetches(&f)), "{asks}");
            for n in [1, 2, 7, 100] {
                agree::<f32>(&f, &[("N", n)], isa);
            }
        }
    }
}

/// Lines of the output are asked for before they are stored to: those of sums before the sums begin, under one guard or not, runs of anything else a channel
/// ahead, and none that are stored past the caches.
#[test]
fn tiles_ask_for_the_lines_that_they_store_to() {
    let summed =
        "acc = 0.0\n        for n in 0..64 {\n          acc = fma(x[n, 0 : 4], 2.0, acc)\n        }\n        STORE y[c, r, 0 : 4] = acc";
    let guarded = &summed.replace(
        "STORE y[c, r, 0 : 4] = acc",
        "when 0 <= c < 7 {\n          STORE y[c, r, 0 : 4] = acc\n          STORE y[c, r, 32 : 4] = acc\n        }",
    );
    let copied = "STORE y[c, r, 0 : 4] = x[r, 0 : 4] * 2.0";
    let apart = "STORE y[c, r, 0 : 4] = x[r, 0 : 4] * 2.0\n        STORE y[c, r, 32 : 4] = x[r, 32 : 4] * 2.0";
    for (body, rows) in [(summed, 16), (guarded, 16), (copied, 16), (copied, 1024), (apart, 16)] {
        for isa in levels() {
            let asked = |store: &str| {
                let text = format!(
                    "func t f32 stage vector {{\n  buffer x: input f32[1024, 64]\n  buffer y: output f32[8, {rows}, 64]\n  reg acc: f32x4\n  run {{\n    \
                     tile t {{\n      for c in 0..8, r in 0..{rows} {{\n        {}\n      }}\n    }}\n  }}\n}}\n",
                    body.replace("STORE ", store)
                );
                let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                agree::<f32>(&f, &[], isa);
                instructions(&f, isa)
                    .iter()
                    .filter(|i| i.mnemonic() == Mnemonic::Prefetchw)
                    .map(|i| i.memory_displacement64())
                    .collect::<Vec<_>>()
            };
            // A channel is 16 rows of 256 bytes. What 1024 rows take would leave the first level before it is stored to; lines that are no neighbours are not asked
            // for.
            let expected = match body {
                b if b == summed => vec![0],
                b if b == guarded => vec![0, 128],
                _ => vec![4096; usize::from(body == copied && rows == 16)],
            };
            assert_eq!(asked(""), expected, "{body}");
            assert!(asked("stream ").is_empty(), "{body}");
        }
    }
}

/// Masks of clipped loads are made before the loop that does not change their bounds, as far as there are registers for them, whatever the bounds are.
#[test]
fn masks_are_made_once_where_loops_do_not_change_them() {
    let widths =
        [(Elem::F32, 16), (Elem::F32, 8), (Elem::F32, 4), (Elem::F32, 3), (Elem::F64, 8), (Elem::F64, 4), (Elem::F64, 3), (Elem::F64, 2)];
    for (isa, (elem, lanes)) in levels().into_iter().flat_map(|isa| widths.map(|w| (isa, w))) {
        let name = elem.name();
        // Vectors that a row of lanes takes, each under a mask of its own.
        let vectors = (lanes * elem.bytes()).div_ceil(isa.vector_bytes());
        for bounds in ["0..37", "2..31", "0..W", "max(0, 2*b)..min(W, 37)", "5..5"] {
            for taps in [1usize, 3, 6, 9] {
                let text = format!(
                    "func t {name} stage vector {{\n  symbols W\n  buffer x: input {name}[4, 37]\n  buffer y: output {name}[4, {lanes}]\n  \
                     reg acc: {name}x{lanes}\n  reg v: {name}x{lanes}\n  run {{\n    tile t {{\n      for b in 0..4 {{\n        acc = 0.0\n        \
                     for i in 0..4 {{\n          unroll for t in 0..{taps} {{\n            v = 0.0\n            \
                     v = x[i, 11*b + 2*t - 5 : {lanes} clip {bounds}]\n            acc = fma(v, 2.0, acc)\n          }}\n        }}\n        \
                     y[b, 0 : {lanes}] = acc\n      }}\n    }}\n  }}\n}}\n"
                );
                let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                for w in [37, 36, 20, 1, 0] {
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &[("W", w)], isa),
                        Elem::F64 => agree::<f64>(&f, &[("W", w)], isa),
                    }
                }
                // A mask register is set, or a vector stored in the frame: where each goes.
                let made = |i: &Instruction| {
                    let in_frame = i.mnemonic() == Mnemonic::Vmovups && i.op0_kind() == OpKind::Memory && i.memory_base() == Register::RSP;
                    let in_register = i.op0_kind() == OpKind::Register && i.op0_register().is_k();
                    (in_frame || in_register).then(|| (i.op0_register(), i.memory_displacement64() * u64::from(in_frame)))
                };
                let all = instructions(&f, isa);
                // Loops end with a jump back; the inner one begins last.
                let back = all.iter().filter(|i| i.mnemonic() == Mnemonic::Jg && i.near_branch_target() < i.ip());
                let (top, end) = back.map(|i| (i.near_branch_target(), i.ip())).max().expect("there are loops");
                let before = all.iter().filter(|i| i.ip() < top).filter_map(made).collect::<HashSet<_>>().len();
                let inside = all.iter().filter(|i| (top..end).contains(&i.ip())).filter_map(made).count();
                let masks = vectors * taps;
                // Others are made where they are used, on AVX2 in a vector.
                let others = if isa == WideIsa::Avx512 { masks.saturating_sub(6) } else { 0 };
                assert_eq!((before, inside), (masks.min(6), others), "{text}");
            }
        }
    }
}

/// Masks of stores that end the body of a loop are made before the first of them, in place of those that its loads had.
#[test]
fn masks_of_stores_are_made_once() {
    let isa = WideIsa::Avx512;
    if !levels().contains(&isa) {
        return;
    }
    for (elem, lanes, step) in
        [(Elem::F32, 16, 1), (Elem::F32, 32, 1), (Elem::F32, 16, 2), (Elem::F64, 8, 1), (Elem::F64, 8, 2), (Elem::F64, 3, 1)]
    {
        let name = elem.name();
        for bounds in ["0..37", "0..W", "max(1, 3*b - 2)..min(W, 35)"] {
            for rows in [1usize, 2, 4] {
                let parts = ["acc", "interleave(acc, acc)"][step - 1];
                let text = format!(
                    "func t {name} stage vector {{\n  symbols W\n  buffer x: input {name}[1, 37]\n  buffer y: output {name}[{rows}, 37]\n  \
                     reg acc: {name}x{lanes}\n  run {{\n    tile t {{\n      for b in 0..4 {{\n        acc = x[0, 9*b - 5 : {lanes} clip {bounds}]\n        \
                     unroll for r in 0..{rows} {{\n          y[r, 11*b - 5 : {lanes} step {step} clip {bounds}] = {parts}\n        }}\n      }}\n    \
                     }}\n  }}\n}}\n"
                );
                let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                for w in [37, 36, 20, 1, 0] {
                    match elem {
                        Elem::F32 => agree::<f32>(&f, &[("W", w)], isa),
                        Elem::F64 => agree::<f64>(&f, &[("W", w)], isa),
                    }
                }
                let all = instructions(&f, isa);
                let kept = all.iter().map(Instruction::op_mask).filter(|k| ![Register::None, Register::K1].contains(k));
                // One for each vector of a row, whatever the number of rows; the load is alone and makes its own.
                let vectors = (lanes * elem.bytes()).div_ceil(isa.vector_bytes()) * step;
                let stored = all.iter().filter(|i| i.op0_kind() == OpKind::Memory && i.op_mask() != Register::None).count();
                assert_eq!((kept.collect::<HashSet<_>>().len(), stored), (vectors, vectors * rows), "{text}");
            }
        }
    }
}

/// Vectors that lie across two lines are shifted out of these where a tile has few products for each; but not the last ones, since nothing behind what is read
/// anyhow may be touched.
#[test]
fn vectors_that_overlap_are_shifted_out_of_lines() {
    for elem in [Elem::F32, Elem::F64] {
        let (name, isa) = (elem.name(), WideIsa::Avx512);
        if !levels().contains(&isa) {
            return;
        }
        let lanes = isa.vector_bytes() / if elem == Elem::F32 { 4 } else { 8 };
        // A row of two lines and two elements more; each accumulator takes three taps of it.
        let shifts = |channels: usize| {
            let body = format!(
                "unroll for c in 0..{channels}, v in 0..2 {{ acc[c, v] = 0.0 }}\n      for i in 0..4 {{\n        unroll for t in 0..3, c in 0..{channels}, v in 0..2 {{\n          \
                 acc[c, v] = fma(x[i, {lanes}*v + t : {lanes}], w[i, c, t], acc[c, v])\n        }}\n      }}\n      unroll for c in 0..{channels}, v in 0..2 {{ y[c, \
                 {lanes}*v : {lanes}] = acc[c, v] }}"
            );
            let text = format!(
                "func t {name} stage vector {{\n  buffer x: input {name}[4, {}]\n  buffer w: weight {name}[4, {channels}, 3]\n  buffer y: output {name}[{channels}, \
                 {}]\n  reg acc: {name}x{lanes}[{channels}, 2]\n  run {{\n    tile t {{\n      {body}\n    }}\n  }}\n}}\n",
                2 * lanes + 2,
                2 * lanes,
            );
            let f: Func = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
            if elem == Elem::F32 {
                agree::<f32>(&f, &[], isa)
            } else {
                agree::<f64>(&f, &[], isa)
            }
            let shift = if elem == Elem::F32 { Mnemonic::Valignd } else { Mnemonic::Valignq };
            instructions(&f, isa).iter().filter(|i| i.mnemonic() == shift).count()
        };
        // Two taps of the first vector; of the second, what it is shifted out of would end behind the row. Five products for each vector are many.
        assert_eq!([1, 2, 5].map(shifts), [2, 2, 0], "{name}");
    }
}
