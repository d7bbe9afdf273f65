//! `run` allocates nothing: this binary's allocator counts.

mod support;

use polyphase::plan::Form;
use polyphase::{Deconv, Options};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;

struct Counting;
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; counting does not touch memory that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's obligations are those of `System.alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are those of `System.dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often the allocator is called.
fn calls(f: impl FnOnce()) -> usize {
    let before = CALLS.load(Ordering::Relaxed);
    f();
    CALLS.load(Ordering::Relaxed) - before
}

/// One test, so that nothing else runs beside it.
#[test]
fn runs_allocate_nothing() {
    for text in [
        "2d n1 8x12x20 -> 8 k4 s2 p1 bias relu",
        "1d n1 4x30 -> 3 k16 s8 p4",
        "2d n1 4x5x6 -> 4 k3 s2 p1 mean nhwc",
        "1d n? 8x? -> 8 k4 s2 p1",
        "1d n2 64x? -> 64 k4 s2 p1",
    ] {
        let p: Deconv = text.parse().unwrap();
        for isa in levels() {
            for form in [None, Some(Form::Gather), Some(Form::Scatter)] {
                let (batch, spatial) = p.fixed_shape().unwrap_or((2, vec![50]));
                let case = Case::<f32>::sized(&p, batch, &spatial, Fill::Ints, 1);
                let k = case.kernel(&Options { form, ..at(isa) });
                let mut y = vec![0.0; case.output_len()];
                let mut run = || k.run_sized(batch, &spatial, &case.x, &mut y).unwrap();
                let first = calls(&mut run);
                // With open extents the first run may learn how much scratch memory is needed.
                assert!(first == 0 || k.scratch_bytes() == 0, "{}: {first} in the first run", label(&k));
                let more = calls(|| (0..10).for_each(|_| run()));
                assert_eq!(more, 0, "{}", label(&k));
                let mut w = k.workspace().unwrap();
                if p.fixed_shape().is_some() {
                    assert_eq!(calls(|| k.run_in(&mut w, &case.x, &mut y).unwrap()), 0, "{} in a workspace", label(&k));
                }
            }
        }
    }
    shared_runs_allocate_nothing();
}

/// On a pool that is warm: rayon's own queues are not ours.
fn shared_runs_allocate_nothing() {
    let p: Deconv = "2d n1 16x16x16 -> 16 k4 s2 p1".parse().unwrap();
    let case = Case::<f32>::new(&p, Fill::Ints, 1);
    let k = case.kernel(&Options { threads: 2, ..Options::default() });
    let mut y = vec![0.0; case.output_len()];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let seen = pool.install(|| {
        let mut round = || calls(|| (0..50).for_each(|_| k.run(&case.x, &mut y).unwrap()));
        (0..20).map(|_| round()).min()
    });
    // A worker that steals for the first time registers itself, in whichever round that happens; an allocation of ours would be in all of them.
    assert_eq!(seen, Some(0), "on a pool of two");
}
