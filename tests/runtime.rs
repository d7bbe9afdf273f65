//! Kernels as callers see them: making, cloning, running in their own or in the caller's memory, open extents, options that cannot be honoured.

mod support;

use ndarray::{Array3, Array4};
use polyphase::codegen::target::Isa;
use polyphase::ir::{Buffer, BufferKind, LoopKind, Stmt};
use polyphase::plan::{Algorithm, Form};
use polyphase::{Deconv, Kernel, Kind, Options};
use support::*;

fn layer() -> Deconv {
    "2d n1 5x6x7 -> 4 k4 s2 p1 bias relu".parse().unwrap()
}

fn shared<T: Send + Sync + Clone>(_: &T) {}

#[test]
fn a_kernel_is_shared_and_cloned() {
    let case = Case::<f32>::new(&layer(), Fill::Reals, 1);
    let kernel = case.kernel(&Options::default());
    shared(&kernel);
    let y = case.run(&kernel);
    let clone = kernel.clone();
    drop(kernel);
    same_bits("a clone outlives the kernel it came from", &y, &case.run(&clone));
}

#[test]
fn a_kernel_keeps_copies_of_weights_and_bias() {
    let case = Case::<f32>::new(&layer(), Fill::Reals, 2);
    for isa in levels() {
        for form in [Form::Gather, Form::Scatter] {
            let mut w = case.w.clone();
            let mut bias = case.bias.clone().unwrap();
            let kernel = case.problem.compile(&w, Some(&bias), &Options { form: Some(form), ..at(isa) }).unwrap();
            let before = case.run(&kernel);
            w.fill(f32::NAN);
            bias.fill(f32::NAN);
            same_bits(&label(&kernel), &before, &case.run(&kernel));
        }
    }
}

#[test]
fn runs_leave_no_trace_in_the_next() {
    let case = Case::<f32>::new(&layer(), Fill::Reals, 3);
    let mut poison = case.clone();
    poison.x.fill(f32::NAN);
    for isa in levels() {
        let kernel = case.kernel(&at(isa));
        let first = case.run(&kernel);
        case_is_nan(&poison.run(&kernel));
        same_bits(&label(&kernel), &first, &case.run(&kernel));
    }
}

fn case_is_nan(y: &[f32]) {
    assert!(y.iter().any(|v| v.is_nan()), "NaN inputs reach the output");
}

#[test]
fn a_workspace_of_the_caller_serves_several_kernels() {
    let (small, large) =
        (Case::<f32>::new(&layer(), Fill::Reals, 4), Case::<f32>::new(&"2d n1 9x20x30 -> 4 k3 s2 p1".parse().unwrap(), Fill::Reals, 5));
    let (a, b) = (small.kernel(&Options::default()), large.kernel(&Options::default()));
    let mut workspace = a.workspace().unwrap();
    for (case, kernel) in [(&small, &a), (&large, &b), (&small, &a)] {
        let mut y = vec![f32::NAN; case.output_len()];
        kernel.run_in(&mut workspace, &case.x, &mut y).unwrap();
        same_bits(&label(kernel), &case.run(kernel), &y);
    }
    assert!(workspace.size() >= b.scratch_bytes(), "{} bytes", workspace.size());
}

#[test]
fn scratch_takes_little_memory() {
    for text in [
        "2d n1 256x32x24 -> 256 k4 s2 p1",
        "1d n1 384x1344 -> 192 k8 s4 p2",
        "2d n1 128x24x24 -> 64 k3 s2 p1 op1",
        "2d n1 21x16x16 -> 21 k4 s2",
        "2d n1 64x32x32 -> 3 k4 s2 p1 nhwc",
        "2d n1 64x32x32 -> 3 k4 s2 p1",
    ] {
        let case = Case::<f32>::new(&text.parse().unwrap(), Fill::Reals, 6);
        for isa in levels() {
            let kernel = case.kernel(&at(isa));
            let tensors = usize::try_from(case.problem.bytes_io(1, &case.spatial)).unwrap();
            let most = tensors.min(2 << 20);
            assert!(kernel.scratch_bytes() <= most, "{}: {} bytes, {most} are legal", label(&kernel), kernel.scratch_bytes());
        }
    }
}

/// Between their transforms, windows need one half of the other buffers before the products and one half after them.
#[test]
fn what_transforms_leave_makes_way_for_products() {
    let case = Case::<f32>::new(&"3d n1 16x8x8x8 -> 16 k4 s2 p1".parse().unwrap(), Fill::Reals, 7);
    let kernel = case.kernel(&Options { algorithm: Some(Algorithm::Winograd), ..Options::default() });
    let bytes = |b: &Buffer| b.dims.iter().map(|d| d.as_const().unwrap() as usize).product::<usize>() * 4;
    let all: usize = kernel.func().buffers.iter().filter(|b| b.kind == BufferKind::Scratch).map(bytes).sum();
    assert!(kernel.scratch_bytes() < all, "{}: {} of {all} bytes", label(&kernel), kernel.scratch_bytes());
    same_bits(&label(&kernel), &case.interpret(kernel.func()), &case.run(&kernel));
}

#[test]
fn arrays_give_open_extents() {
    let p: Deconv = "2d n? 3x?x? -> 2 k4 s2 p1".parse().unwrap();
    let w = filled::<f32>(3 * 2 * 16, Fill::Ints, 1);
    let kernel = p.compile(&w, None, &Options::default()).unwrap();
    for (n, h, v) in [(1, 1, 1), (2, 3, 5), (1, 8, 33)] {
        let x = Array4::from_shape_vec((n, 3, h, v), filled::<f32>(n * 3 * h * v, Fill::Ints, 2)).unwrap();
        let mut y = Array4::<f32>::from_elem((n, 2, 2 * h, 2 * v), f32::NAN);
        kernel.run(&x, &mut y).unwrap();
        let want = polyphase::reference::deconv(&p, n, &[h, v], x.as_slice().unwrap(), &w, None).unwrap();
        assert!(y.iter().zip(&want).all(|(a, b)| f64::from(*a) == *b), "{n}x{h}x{v}");
    }
    let e = kernel.run(&vec![0.0f32; 3], &mut vec![0.0f32; 8]).unwrap_err();
    assert!(e.kind == Kind::Tensor && e.message.contains("run_sized"), "{e}");
}

#[test]
fn weights_may_be_an_array_and_data_channels_last() {
    let p: Deconv = "1d n1 3x4 -> 2 k4 s2 p1 nwc".parse().unwrap();
    let w = Array3::from_shape_vec((3, 2, 4), filled::<f32>(24, Fill::Ints, 1)).unwrap();
    let kernel = p.compile(&w, None, &Options::default()).unwrap();
    let x = Array3::from_shape_vec((1, 4, 3), filled::<f32>(12, Fill::Ints, 2)).unwrap();
    let mut y = Array3::<f32>::zeros((1, 8, 2));
    kernel.run(&x, &mut y).unwrap();
    let want = polyphase::reference::deconv(&p, 1, &[4], x.as_slice().unwrap(), w.as_slice().unwrap(), None).unwrap();
    assert!(y.iter().zip(&want).all(|(a, b)| f64::from(*a) == *b));
}

#[test]
fn a_report_says_what_making_it_cost() {
    let kernel = Case::<f32>::new(&layer(), Fill::Reals, 1).kernel(&Options { form: Some(Form::Gather), ..Options::default() });
    let r = kernel.report();
    assert!(r.compile.as_nanos() > 0 && r.code_bytes > 0, "{r:?}");
    assert!(r.code_bytes <= 64 << 10, "{} bytes of code", r.code_bytes);
    assert!(r.packed_bytes >= 5 * 4 * 16 * 4, "{} bytes of packed weights", r.packed_bytes);
}

#[test]
fn code_does_not_grow_with_stride_and_kernel() {
    let code = |text: &str| {
        let p: Deconv = text.parse().unwrap();
        Case::<f32>::new(&p, Fill::Ints, 1).kernel(&Options::default()).report().code_bytes
    };
    for text in
        ["1d n1 8x20 -> 1 k1024 s256", "2d n1 21x8x8 -> 21 k64 s32 p16 g21", "3d n1 8x3x4x5 -> 8 k9 s8", "1d n1 64x30 -> 32 k16 s8 p4"]
    {
        let bytes = code(text);
        assert!(bytes <= 64 << 10, "{text}: {bytes} bytes of code");
    }
}

/// The sentence with which a layer cannot be compiled.
fn refused(options: &Options) -> String {
    let Err(e) = Case::<f32>::new(&layer(), Fill::Reals, 1).compile(options) else { panic!("{options:?} is refused") };
    assert_eq!(e.kind, Kind::Options, "{e}");
    e.message
}

#[test]
fn levels_are_forced_by_name() {
    for isa in levels() {
        assert_eq!(Isa::forced(isa.name()).unwrap(), isa);
        assert_eq!(Case::<f32>::new(&layer(), Fill::Reals, 1).kernel(&at(isa)).isa(), isa);
    }
    let e = Isa::forced("altivec").unwrap_err();
    assert!(e.message.contains("'altivec'") && e.message.contains(levels()[0].name()), "{e}");
    let foreign = Isa::ALL.into_iter().find(|i| !i.available()).expect("no machine has them all");
    assert!(refused(&at(foreign)).contains(foreign.name()));
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let force = |text: &str| refused(&Options { plan: Some(plan(text, 2)), ..Options::default() });
    let mut short = plan("gather panel oc=2 qx=16 along qx x16", 1);
    short.lanes = 1;
    assert!(refused(&Options { plan: Some(short), ..Options::default() }).contains("block sizes"));
    let form = Options { form: Some(Form::Scatter), plan: Some(plan("gather panel along qx x1", 2)), ..Options::default() };
    assert!(refused(&form).contains("gather"));
    let mut uneven = plan("gather panel oc=2 qx=8 along qx x4", 2);
    uneven.tile[1].extent = 6;
    let uneven = Options { plan: Some(uneven), ..Options::default() };
    assert!(refused(&uneven).contains('6'), "a tile that is no whole number of vectors");
    assert!(force("gather panel oc=2 qx=4 along qx x4 block 0x6").contains('6'), "a block that is no whole number of tiles");
}

#[test]
fn a_mean_cannot_be_staged_in_a_panel() {
    let p: Deconv = "1d n1 2x5 -> 2 k3 s2 mean".parse().unwrap();
    let case = Case::<f32>::new(&p, Fill::Ints, 1);
    let e = case
        .compile(&Options { plan: Some(plan("gather panel along qx x1", 1)), ..Options::default() })
        .map(|_: Kernel<f32>| ())
        .unwrap_err();
    assert!(e.kind == Kind::Options && e.message.contains("in-place"), "{e}");
}

/// At most 256 parts, no more than there are tasks, and one where a run is not worth sharing out.
#[test]
fn scratch_memory_is_had_for_the_parts_that_run() {
    /// Iterations of the parallel loops around everything else.
    fn tasks(body: &[Stmt]) -> usize {
        match body {
            [Stmt::For(l)] if l.kind == LoopKind::Par => {
                let (lo, hi) = l.const_range().expect("extents are known");
                ((hi - lo) as usize).div_ceil(l.step as usize) * tasks(&l.body)
            }
            _ => 1,
        }
    }

    let size = |text: &str, threads: usize| {
        let case = Case::<f32>::new(&text.parse().unwrap(), Fill::Ints, 1);
        let kernel = case.kernel(&Options { threads, form: Some(Form::Gather), algorithm: Some(Algorithm::Direct), ..Options::default() });
        let mut w = kernel.workspace().unwrap();
        let (before, mut y) = (w.size(), vec![0.0; case.output_len()]);
        kernel.run_in(&mut w, &case.x, &mut y).unwrap();
        assert_eq!(w.size(), before, "{text}: a run needs what was reserved");
        assert!(kernel.scratch_bytes() > 0, "{text}: {}", kernel.plan());
        (w.size() / kernel.scratch_bytes(), tasks(&kernel.func().run))
    };
    assert_eq!(size("2d n8 4x6x6 -> 4 k4 s2 p1", 1024).0, 1, "a small layer");
    assert_eq!(size("2d n3 16x16x16 -> 16 k4 s2 p1", 2).0, 2);
    // How many blocks there are is the plan's choice, and so the processor's.
    let (parts, tasks) = size("2d n3 16x16x16 -> 16 k4 s2 p1", 1024);
    assert_eq!(parts, tasks);
    assert!((3..256).contains(&tasks), "{tasks} tasks");
    assert_eq!(size("2d n1500 16x4x4 -> 16 k4 s2 p1", 1024).0, 256, "more tasks than parts");
}

/// Which plan of an open layer runs once depended on the blocks that threads share out.
#[test]
fn the_plan_that_runs_does_not_depend_on_threads() {
    let c = Case::<f64>::sized(&"2d n? 1x?x? -> 1 k2x1 pe0x1 f64".parse().expect("a layer"), 1, &[9, 2], Fill::Reals, 7);
    for isa in levels() {
        let of = |threads| c.run(&c.kernel(&Options { threads, algorithm: Some(Algorithm::Winograd), ..at(isa) }));
        same_bits(isa.name(), &of(1), &of(2));
    }
}
