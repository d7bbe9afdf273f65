//! The C ABI: compile a layer from JSON, run it, free it.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the functions as C sees them; `docs/polyphase.h` is generated from this file |
//! | `memory.rs` | from the caller's pointers to slices and text, with the checks |
//! | `failure.rs` | codes, the error text of each thread, and the stop for panics |
//! | `options.rs` | [`crate::Options::from_json`] |
//!
//! Every function may be called from any thread. A function that can fail gives 0 on success and a `POLYPHASE_ERROR_…` code
//! otherwise; the sentence is then in [`polyphase_last_error`], until the next call on the same thread. Nothing unwinds into C.
//! `examples/c_api.c` is a whole program.
//!
//! ```
//! use polyphase::capi::*;
//! use std::ptr::{null, null_mut};
//! let (weight, x, mut y) = ([1.0f32, 2.0], [1.0f32, 10.0], [0.0f32; 4]);
//! let layer = cr#"{"cin": 1, "in": [2], "cout": 1, "k": [2], "s": [2]}"#;
//! let mut kernel = null_mut();
//! // SAFETY: each pointer leads to as many bytes as the argument after it says; `kernel` is freed once.
//! unsafe {
//!     assert_eq!(polyphase_compile(layer.as_ptr(), null(), weight.as_ptr().cast(), 8, null(), 0, &mut kernel), POLYPHASE_OK);
//!     assert_eq!(polyphase_run(kernel, x.as_ptr().cast(), 8, y.as_mut_ptr().cast(), 16), POLYPHASE_OK);
//!     polyphase_kernel_free(kernel);
//! }
//! assert_eq!(y, [1.0, 2.0, 10.0, 20.0]);
//! ```

mod failure;
mod memory;
mod options;

use crate::problem::text::parse_json;
use crate::runtime::Element;
use crate::{Deconv, Elem, Error, Extent, Kernel, Kind, Options};
use failure::{Failure, report};
use memory::{Region, text};
use std::ffi::{c_char, c_int, c_void};

/// The call succeeded.
pub const POLYPHASE_OK: c_int = 0;
/// The problem is not a transposed convolution that can exist: a zero stride, an output extent below 1 and the like.
pub const POLYPHASE_ERROR_PROBLEM: c_int = 1;
/// A text could not be read: not UTF-8, not JSON, an unknown key of the problem, a plan that is none.
pub const POLYPHASE_ERROR_PARSE: c_int = 2;
/// Weight, bias, input or output have the wrong size, or input and output overlap.
pub const POLYPHASE_ERROR_TENSOR: c_int = 3;
/// An option is unknown, or neither this problem nor this machine can honour it.
pub const POLYPHASE_ERROR_OPTIONS: c_int = 4;
/// The intermediate representation breaks an invariant: a bug in the library.
pub const POLYPHASE_ERROR_IR: c_int = 5;
/// Code generation failed, or memory ran out.
pub const POLYPHASE_ERROR_CODEGEN: c_int = 6;
/// A file could not be read or written.
pub const POLYPHASE_ERROR_IO: c_int = 7;
/// A pointer is null where it must not be, or is not aligned to what it points to.
pub const POLYPHASE_ERROR_POINTER: c_int = 8;
/// The library panicked: a bug in it. The kernel may be used further.
pub const POLYPHASE_ERROR_INTERNAL: c_int = 9;

/// A compiled layer: machine code, packed weights, bias, and scratch memory for runs.
///
/// Every function of this header may be called from any thread, and from many at once. One kernel may be run by many
/// threads at a time, each into an output of its own, and on another thread than the one that made it. It is freed
/// once, when no run of it is under way.
pub struct PolyphaseKernel(Any);

enum Any {
    F32(Kernel<f32>),
    F64(Kernel<f64>),
}

impl PolyphaseKernel {
    fn problem(&self) -> &Deconv {
        match &self.0 {
            Any::F32(k) => k.problem(),
            Any::F64(k) => k.problem(),
        }
    }
}

/// Compiles a layer.
///
/// `problem_json` is one layer, an object such as
/// `{"n": 1, "cin": 512, "in": [4, 4], "cout": 256, "k": [4, 4], "s": [2, 2], "p": [1, 1]}`. Lists have one entry for
/// each spatial axis (1 to 3 of them), outermost first. An unknown key is an error.
///
/// | key             | meaning                                                     | default           |
/// |-----------------|-------------------------------------------------------------|-------------------|
/// | `cin`, `cout`   | input and output channels                                   | required          |
/// | `in`            | spatial extents of the input; "?" for one that stays open   | required          |
/// | `k`             | kernel extents                                              | required          |
/// | `n`             | batch; "?" if it stays open                                 | 1                 |
/// | `s`             | strides                                                     | 1 on every axis   |
/// | `d`             | dilations                                                   | 1 on every axis   |
/// | `p`             | padding at the beginning: crops the output, may be negative | 0 on every axis   |
/// | `p_end`         | padding at the end                                          | as `p`            |
/// | `op`            | output padding, below the larger of stride and dilation     | 0 on every axis   |
/// | `g`             | groups                                                      | 1                 |
/// | `bias`          | true if there is a bias                                     | false             |
/// | `activation`    | "relu", "tanh", "sigmoid", `{"leaky_relu": slope}`,         | "none"            |
/// |                 | `{"clamp": [lo, hi]}`                                       |                   |
/// | `merge`         | of overlapping patches: "sum", "mean", "max"                | "sum"             |
/// | `layout`        | "channels_first", "channels_last"                           | "channels_first"  |
/// | `dtype`         | element type of all tensors: "f32", "f64"                   | "f32"             |
/// | `name`, `model` | strings for people; errors say the name                     | none              |
/// | `nd`, `out`     | number of axes, output extents: checked if they are there   | none              |
/// | `flops_useful`, | counts of operations and bytes: checked if they are there   | none              |
/// | `flops_dense`,  |                                                             |                   |
/// | `bytes_io`      |                                                             |                   |
///
/// The output extent of an axis is `s*(in-1) + d*(k-1) + 1 + op - p - p_end`.
///
/// `options_json` is an object; NULL and "" are the defaults. An unknown key is an error.
///
/// | key             | meaning                                                     | default           |
/// |-----------------|-------------------------------------------------------------|-------------------|
/// | `threads`       | over how many threads a run is shared out, 1 to 1024        | 1                 |
/// | `isa`           | "sse2", "fma", "avx2", "avx512", "neon"                     | the best there is |
/// | `processor`     | for which plans are chosen: "this", "zen3", "zen4", "zen5", | "this"            |
/// |                 | "cascade-lake", "intel-server"                              |                   |
/// | `form`          | "gather", "scatter"                                         | the cheaper one   |
/// | `algorithm`     | "direct", "winograd"                                        | the cheaper one   |
/// | `rounding`      | the most that the expected rounding error may be, relative  | 2                 |
/// |                 | to that of direct sums                                      |                   |
/// | `typical`       | sizes at which a layer with open extents is to be fast:     | a few sizes       |
/// |                 | `[[32, 32], [64, 64]]`                                      |                   |
/// | `packing_limit` | most bytes of packed weights for all sizes of such a layer  | ten times the     |
/// |                 |                                                             | weights, but at   |
/// |                 |                                                             | least 64 MiB      |
/// | `plan`          | a plan, as the library prints it                            | the cheapest, as  |
/// |                 |                                                             | predicted         |
/// | `stream`        | true if stores are to bypass the caches                     | false             |
///
/// With more than one thread a run uses a pool of the library's own, which the whole process shares and which is
/// started by the first such run: as many threads as the system offers, or as the environment variable
/// RAYON_NUM_THREADS says. Results do not depend on it.
///
/// `weight` is `[cin, cout / g, k...]` and `bias` `[cout]`, both of the problem's dtype, dense, and aligned to it. A
/// layer without a bias takes NULL and 0. Texts, weight and bias are copied: all of them may be freed when the call
/// returns.
///
/// On success `*out` is the kernel, to be freed by `polyphase_kernel_free`, and the result is 0. Otherwise `*out` is
/// NULL.
///
/// # Safety
/// Texts are NULL or end with a zero byte; `weight` and `bias` lead to as many bytes as is said; `out` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn polyphase_compile(
    problem_json: *const c_char,
    options_json: *const c_char,
    weight: *const c_void,
    weight_bytes: usize,
    bias: *const c_void,
    bias_bytes: usize,
    out: *mut *mut PolyphaseKernel,
) -> c_int {
    report(|| {
        if out.is_null() || !out.is_aligned() {
            return Err(Failure::pointer("out is null or not aligned; it must point to where the kernel goes"));
        }
        // SAFETY: neither null nor misaligned; may be written by the caller's word.
        unsafe { out.write(std::ptr::null_mut()) };
        // SAFETY: null or ending with a zero byte, by the caller's word.
        let (problem, options) = unsafe { (text("problem_json", problem_json)?, text("options_json", options_json)?) };
        let problem = layer(problem.ok_or_else(|| Failure::pointer("problem_json is null; it must be a layer as JSON"))?)?;
        let options = Options::from_json(options.unwrap_or(""))?;
        let weight = Region { name: "weight", at: weight, bytes: weight_bytes };
        let bias = Region { name: "bias", at: bias, bytes: bias_bytes };
        // SAFETY: both lead to as many bytes as they say, by the caller's word.
        let kernel = unsafe {
            match problem.elem {
                Elem::F32 => Any::F32(compile(&problem, &options, weight, bias)?),
                Elem::F64 => Any::F64(compile(&problem, &options, weight, bias)?),
            }
        };
        let kernel = Box::into_raw(Box::new(PolyphaseKernel(kernel)));
        // SAFETY: as above.
        unsafe { out.write(kernel) };
        Ok(())
    })
}

/// Computes a layer: reads `[n, cin, in...]` from `input` and writes `[n, cout, out...]` to `output`; if the layer has
/// channels last, these are `[n, in..., cin]` and `[n, out..., cout]`. Per axis `out` is
/// `s*(in-1) + d*(k-1) + 1 + op - p - p_end`. Both are dense, of the problem's dtype, aligned to it, and apart from
/// each other. `input_bytes` and `output_bytes` must be exactly their sizes. A layer with open extents needs
/// `polyphase_run_sized`.
///
/// Many threads may run one kernel at once, each into its own output. Nothing is allocated once there have been as many
/// runs at a time. (With several threads, runs are handed to a pool through its queue, which takes a lock and now and
/// then allocates a block.)
///
/// # Safety
/// `kernel` is NULL or a kernel that is not freed; `input` and `output` lead to as many bytes as is said; nobody writes
/// the input, and nobody reads or writes the output, until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn polyphase_run(
    kernel: *const PolyphaseKernel,
    input: *const c_void,
    input_bytes: usize,
    output: *mut c_void,
    output_bytes: usize,
) -> c_int {
    report(|| {
        // SAFETY: null or alive, by the caller's word.
        let kernel = unsafe { alive(kernel)? };
        let p = kernel.problem();
        if std::iter::once(&p.batch).chain(&p.input).any(|e| matches!(e, Extent::Open(_))) {
            let message = format!(
                "the layer {p} has open extents, which bytes do not tell: use polyphase_run_sized with {} sizes, batch and spatial",
                p.rank() + 1
            );
            return Err(Failure::tensor(message));
        }
        let input = Region { name: "input", at: input, bytes: input_bytes };
        let output = Region { name: "output", at: output, bytes: output_bytes };
        // SAFETY: both lead to as many bytes as they say, by the caller's word.
        unsafe { run(kernel, None, input, output) }
    })
}

/// As `polyphase_run`, with the extents of the input given, for a layer that leaves some of them open: `sizes` has
/// `count` entries, the batch and then every spatial extent, outermost first. Those that the layer fixes must be as it
/// fixes them.
///
/// # Safety
/// As for `polyphase_run`; `sizes` leads to `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn polyphase_run_sized(
    kernel: *const PolyphaseKernel,
    sizes: *const usize,
    count: usize,
    input: *const c_void,
    input_bytes: usize,
    output: *mut c_void,
    output_bytes: usize,
) -> c_int {
    report(|| {
        // SAFETY: null or alive, by the caller's word.
        let kernel = unsafe { alive(kernel)? };
        let needed = kernel.problem().rank() + 1;
        if count != needed {
            let message = format!("{count} sizes given; this layer needs {needed}: the batch and {} spatial extents", needed - 1);
            return Err(Failure::tensor(message));
        }
        let sizes = Region { name: "sizes", at: sizes.cast(), bytes: count * size_of::<usize>() };
        // SAFETY: `sizes` leads to `count` values, by the caller's word.
        let sizes = unsafe { sizes.read::<usize>()? };
        let input = Region { name: "input", at: input, bytes: input_bytes };
        let output = Region { name: "output", at: output, bytes: output_bytes };
        // SAFETY: both lead to as many bytes as they say, by the caller's word.
        unsafe { run(kernel, Some(sizes), input, output) }
    })
}

/// Frees a kernel, its machine code and its memory; on any thread, once. NULL is ignored.
///
/// # Safety
/// `kernel` is NULL or a kernel that is not freed, and no run of it is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn polyphase_kernel_free(kernel: *mut PolyphaseKernel) {
    report(|| {
        if !kernel.is_null() {
            // SAFETY: it comes from `Box::into_raw` in `polyphase_compile` and is freed once, by the caller's word.
            drop(unsafe { Box::from_raw(kernel) });
        }
        Ok(())
    });
}

/// What went wrong in the last call on this thread, as a sentence in UTF-8; empty if it succeeded. Every thread has its
/// own. Valid until the next call on this thread of a function other than this one and `polyphase_version`, and no
/// longer than the thread.
#[unsafe(no_mangle)]
pub extern "C" fn polyphase_last_error() -> *const c_char {
    failure::last()
}

/// The version of the library, such as `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn polyphase_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// One layer as JSON.
fn layer(json: &str) -> Result<Deconv, Error> {
    let mut layers = parse_json(json).map_err(|e| e.context("problem_json"))?;
    match (layers.pop(), layers.len()) {
        (Some(layer), 0) => Ok(layer.problem),
        (last, before) => {
            let count = before + usize::from(last.is_some());
            Err(Error::new(Kind::Parse, format!("problem_json is a list of {count} layers; one layer is legal")))
        }
    }
}

/// # Safety
/// `weight` and `bias` lead to as many bytes as they say.
unsafe fn compile<T: Element>(problem: &Deconv, options: &Options, weight: Region, bias: Region) -> Result<Kernel<T>, Failure> {
    // SAFETY: the caller's obligation is this function's.
    let (weight, bias) = unsafe { (weight.read::<T>()?, if bias.bytes == 0 { None } else { Some(bias.read::<T>()?) }) };
    Ok(problem.compile(weight, bias, options)?)
}

/// # Safety
/// Not null means alive.
unsafe fn alive<'a>(kernel: *const PolyphaseKernel) -> Result<&'a PolyphaseKernel, Failure> {
    if kernel.is_null() || !kernel.is_aligned() {
        return Err(Failure::pointer("kernel is null or not aligned; it must come from polyphase_compile"));
    }
    // SAFETY: not null, so alive.
    Ok(unsafe { &*kernel })
}

/// # Safety
/// Input and output lead to as many bytes as they say; nobody writes the former, nobody else uses the latter.
unsafe fn run(kernel: &PolyphaseKernel, sizes: Option<&[usize]>, input: Region, output: Region) -> Result<(), Failure> {
    output.apart_from(&input)?;
    // SAFETY: the caller's obligation is this function's; the regions are apart.
    unsafe {
        match &kernel.0 {
            Any::F32(k) => run_typed(k, sizes, input.read()?, output.write()?),
            Any::F64(k) => run_typed(k, sizes, input.read()?, output.write()?),
        }
    }
}

fn run_typed<T: Element>(kernel: &Kernel<T>, sizes: Option<&[usize]>, x: &[T], y: &mut [T]) -> Result<(), Failure> {
    match sizes {
        Some([batch, spatial @ ..]) => kernel.run_sized(*batch, spatial, x, y)?,
        _ => kernel.run(x, y)?,
    }
    Ok(())
}
