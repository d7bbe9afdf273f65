//! Dropping a kernel returns its pages, code included. On its own in this binary, so that nothing else allocates beside it.
#![cfg(target_os = "linux")]

mod support;

use polyphase::{Deconv, Options};
use support::*;

/// Resident pages of this process, in KiB.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// Mappings of this process.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn two_hundred_kernels_leave_nothing_behind() {
    let p: Deconv = "2d n1 16x8x8 -> 16 k4 s2 p1".parse().unwrap();
    let case = Case::<f32>::new(&p, Fill::Ints, 1);
    let make = |n: usize| {
        for i in 0..n {
            let isa = levels()[i % levels().len()];
            let k = case.kernel(&at(isa));
            let clone = k.clone();
            drop(k);
            case.run(&clone);
        }
    };
    make(20);
    let (pages, maps) = (resident(), mappings());
    make(200);
    let (more_pages, more_maps) = (resident().saturating_sub(pages), mappings().saturating_sub(maps));
    assert!(more_pages < 4 << 10, "{more_pages} KiB more after 200 kernels");
    assert!(more_maps < 20, "{more_maps} more mappings after 200 kernels");
    // So that the figure means something: one kernel alone has pages of its own.
    assert!(case.kernel(&Options::default()).report().code_bytes > 0);
}
