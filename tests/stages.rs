//! Every stage computes the same: integer-valued data is exact, so equality can be demanded.

use polyphase::Deconv;
use polyphase::interp::{Tensors, execute};
use polyphase::passes::lower_problem;
use polyphase::plan::{Form, Plan, TileAxis};

fn ints(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((s >> 33) % 7) as f32 - 3.0
        })
        .collect()
}

fn plan(form: Form, panel: bool, tile: &[(&str, usize)], vector: &str, lanes: usize, block: &[usize]) -> Plan {
    Plan {
        form,
        aligned: false,
        panel,
        block: block.to_vec(),
        channel_parts: 1,
        tile: tile.iter().map(|(v, e)| TileAxis { var: (*v).into(), extent: *e }).collect(),
        vector: vector.into(),
        lanes,
        fma: true,
        stream: false,
    }
}

fn check(text: &str, plan: &Plan) {
    let p: Deconv = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    let x = ints(p.input_shape(1, &spatial(&p)).unwrap().iter().product(), 1);
    let w = ints(p.weight_shape().iter().product(), 2);
    let bias = p.bias.then(|| ints(p.c_out, 3));
    let len = p.output_shape(1, &spatial(&p)).unwrap().iter().product();
    let snaps = lower_problem(&p, plan).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut first: Option<Vec<f32>> = None;
    for s in &snaps {
        let mut y = vec![f32::NAN; len];
        execute(&s.func, &[], Tensors { input: &x, weight: &w, bias: bias.as_deref(), output: &mut y })
            .unwrap_or_else(|e| panic!("{text} after {}: {e}{}", s.pass, show(&s.func)));
        if let Some(f) = &first {
            let at = f.iter().zip(&y).position(|(a, b)| a != b);
            assert!(
                at.is_none(),
                "{text}: after {} output {at:?} is {} instead of {}{}",
                s.pass,
                y[at.unwrap()],
                f[at.unwrap()],
                show(&s.func)
            );
        } else {
            first = Some(y);
        }
    }
    let func = &snaps.last().unwrap().func;
    let native = polyphase::codegen::cranelift::compile(func, polyphase::codegen::target::Isa::Fma).unwrap();
    let mut y = vec![f32::NAN; len];
    let mut bufs: Vec<Vec<f32>> =
        func.buffers.iter().map(|b| vec![f32::NAN; b.dims.iter().map(|d| d.as_const().unwrap() as usize).product()]).collect();
    let mut xx = x.clone();
    let mut ww = w.clone();
    let mut bb = bias.clone().unwrap_or_default();
    let ptrs: Vec<*mut u8> = func
        .buffers
        .iter()
        .zip(&mut bufs)
        .map(|(b, m)| match b.name.as_str() {
            "x" => xx.as_mut_ptr() as *mut u8,
            "w" => ww.as_mut_ptr() as *mut u8,
            "bias" => bb.as_mut_ptr() as *mut u8,
            "y" => y.as_mut_ptr() as *mut u8,
            _ => m.as_mut_ptr() as *mut u8,
        })
        .collect();
    if let Some(p) = native.prepare {
        unsafe { p(ptrs.as_ptr(), [].as_ptr(), 0, 1) }
    }
    {
        let r = native.run;
        let mut tasks = 1;
        let mut s = &func.run[0];
        while let polyphase::ir::Stmt::For(l) = s {
            if l.kind != polyphase::ir::LoopKind::Par {
                break;
            }
            tasks *= (l.hi[0].as_const().unwrap() - l.lo[0].as_const().unwrap() + l.step - 1) / l.step;
            if l.body.len() != 1 {
                break;
            }
            s = &l.body[0];
        }
        unsafe { r(ptrs.as_ptr(), [].as_ptr(), 0, tasks) }
    }
    let f = first.unwrap();
    let at = f.iter().zip(&y).position(|(a, b)| a != b);
    assert!(at.is_none(), "{text}: native output {at:?} is {} instead of {}{}", y[at.unwrap()], f[at.unwrap()], show(func));
    println!("{text}: code {}", native.code_bytes());
}

fn spatial(p: &Deconv) -> Vec<usize> {
    p.input
        .iter()
        .map(|e| match e {
            polyphase::Extent::Fixed(v) => *v,
            _ => panic!(),
        })
        .collect()
}

#[test]
fn gather_by_columns() {
    for t in [
        "2d n1 5x6x7 -> 7 k4 s2 p1",
        "2d n1 5x6x7 -> 7 k3 s2 p1 op1 bias relu",
        "1d n1 3x40 -> 4 k16 s8 p4",
        "2d n1 3x5x9 -> 4 k3 s1 p1 d2",
        "2d n1 4x5x9 -> 4 k3 s2 p1 d2 g2",
        "2d n1 3x5x9 -> 2 k2 s3 p0",
        "3d n1 3x3x4x5 -> 4 k4 s2 p1",
        "2d n1 3x5x9 -> 2 k5 s3 p4",
        "2d n1 3x5x9 -> 2 k3 s2 p-1 pe2",
        "2d n1 1x1x1 -> 1 k1 s1 p0",
        "2d n1 3x5x9 -> 2 k3 s4 d2",
    ] {
        let p: Deconv = t.parse().unwrap();
        let r = p.rank();
        for block in [vec![0; r], vec![2; r]] {
            let mut block = block;
            if block[r - 1] != 0 {
                block[r - 1] = 8
            }
            for sx in [
                &[("oc", 3), ("qx", 8)][..],
                &[("oc", 2), ("rx", p.stride[r - 1]), ("qx", 4)],
                &[("oc", 2), ("ry", 2), ("rx", p.stride[r - 1]), ("qy", 2), ("qx", 4)],
            ] {
                if sx.len() == 5 && (r < 2 || p.stride[r - 2] != 2) {
                    continue;
                }
                check(t, &plan(Form::Gather, true, sx, "qx", 4, &block));
            }
            if p.c_out > 1 {
                check(t, &plan(Form::Gather, true, &[("oc", 4), ("qx", 4)], "oc", 4, &block));
                check(t, &plan(Form::Gather, false, &[("oc", 4)], "oc", 4, &block));
            }
            check(t, &plan(Form::Gather, true, &[], "qx", 1, &block));
            check(t, &plan(Form::Gather, false, &[], "qx", 1, &block));
            check(t, &plan(Form::Scatter, false, &[], "kx", 1, &block));
        }
    }
}
fn show(f: &polyphase::ir::Func) -> String {
    format!("\n{f}")
}
