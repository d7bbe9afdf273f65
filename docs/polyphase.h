/* The C ABI of polyphase, a compiler for transposed convolutions. */

#ifndef POLYPHASE_H
#define POLYPHASE_H

/* Generated from src/capi/mod.rs: POLYPHASE_BLESS=1 cargo test --test capi writes it anew. */

#include <stddef.h>

// The call succeeded.
#define POLYPHASE_OK 0

// The problem is not a transposed convolution that can exist: a zero stride, an output extent below 1 and the like.
#define POLYPHASE_ERROR_PROBLEM 1

// A text could not be read: not UTF-8, not JSON, an unknown key of the problem, a plan that is none.
#define POLYPHASE_ERROR_PARSE 2

// Weight, bias, input or output have the wrong size, or input and output overlap.
#define POLYPHASE_ERROR_TENSOR 3

// An option is unknown, or neither this problem nor this machine can honour it.
#define POLYPHASE_ERROR_OPTIONS 4

// The intermediate representation breaks an invariant: a bug in the library.
#define POLYPHASE_ERROR_IR 5

// Code generation failed, or memory ran out.
#define POLYPHASE_ERROR_CODEGEN 6

// A file could not be read or written.
#define POLYPHASE_ERROR_IO 7

// A pointer is null where it must not be, or is not aligned to what it points to.
#define POLYPHASE_ERROR_POINTER 8

// The library panicked: a bug in it. The kernel may be used further.
#define POLYPHASE_ERROR_INTERNAL 9

// A compiled layer: machine code, packed weights, bias, and scratch memory for runs.
//
// Every function of this header may be called from any thread, and from many at once. One kernel may be run by many
// threads at a time, each into an output of its own, and on another thread than the one that made it. It is freed
// once, when no run of it is under way.
typedef struct PolyphaseKernel PolyphaseKernel;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Compiles a layer.
//
// `problem_json` is one layer, an object such as
// `{"n": 1, "cin": 512, "in": [4, 4], "cout": 256, "k": [4, 4], "s": [2, 2], "p": [1, 1]}`. Lists have one entry for
// each spatial axis (1 to 3 of them), outermost first. An unknown key is an error.
//
// | key             | meaning                                                     | default           |
// |-----------------|-------------------------------------------------------------|-------------------|
// | `cin`, `cout`   | input and output channels                                   | required          |
// | `in`            | spatial extents of the input; "?" for one that stays open   | required          |
// | `k`             | kernel extents                                              | required          |
// | `n`             | batch; "?" if it stays open                                 | 1                 |
// | `s`             | strides                                                     | 1 on every axis   |
// | `d`             | dilations                                                   | 1 on every axis   |
// | `p`             | padding at the beginning: crops the output, may be negative | 0 on every axis   |
// | `p_end`         | padding at the end                                          | as `p`            |
// | `op`            | output padding, below the larger of stride and dilation     | 0 on every axis   |
// | `g`             | groups                                                      | 1                 |
// | `bias`          | true if there is a bias                                     | false             |
// | `activation`    | "relu", "tanh", "sigmoid", `{"leaky_relu": slope}`,         | "none"            |
// |                 | `{"clamp": [lo, hi]}`                                       |                   |
// | `merge`         | of overlapping patches: "sum", "mean", "max"                | "sum"             |
// | `layout`        | "channels_first", "channels_last"                           | "channels_first"  |
// | `dtype`         | element type of all tensors: "f32", "f64"                   | "f32"             |
// | `name`, `model` | strings for people; errors say the name                     | none              |
// | `nd`, `out`     | number of axes, output extents: checked if they are there   | none              |
// | `flops_useful`, | counts of operations and bytes: checked if they are there   | none              |
// | `flops_dense`,  |                                                             |                   |
// | `bytes_io`      |                                                             |                   |
//
// The output extent of an axis is `s*(in-1) + d*(k-1) + 1 + op - p - p_end`.
//
// `options_json` is an object; NULL and "" are the defaults. An unknown key is an error.
//
// | key             | meaning                                                     | default           |
// |-----------------|-------------------------------------------------------------|-------------------|
// | `threads`       | over how many threads a run is shared out, 1 to 1024        | 1                 |
// | `isa`           | "sse2", "fma", "avx2", "avx512", "neon"                     | the best there is |
// | `processor`     | for which plans are chosen: "this", "zen3", "zen4", "zen5", | "this"            |
// |                 | "cascade-lake", "intel-server"                              |                   |
// | `form`          | "gather", "scatter"                                         | the cheaper one   |
// | `algorithm`     | "direct", "winograd"                                        | the cheaper one   |
// | `rounding`      | the most that the expected rounding error may be, relative  | 2                 |
// |                 | to that of direct sums                                      |                   |
// | `typical`       | sizes at which a layer with open extents is to be fast:     | a few sizes       |
// |                 | `[[32, 32], [64, 64]]`                                      |                   |
// | `packing_limit` | most bytes of packed weights for all sizes of such a layer  | ten times the     |
// |                 |                                                             | weights, but at   |
// |                 |                                                             | least 64 MiB      |
// | `plan`          | a plan, as the library prints it                            | the cheapest, as  |
// |                 |                                                             | predicted         |
// | `stream`        | true if stores are to bypass the caches                     | false             |
//
// With more than one thread a run uses a pool of the library's own, which the whole process shares and which is
// started by the first such run: as many threads as the system offers, or as the environment variable
// RAYON_NUM_THREADS says. Results do not depend on it.
//
// `weight` is `[cin, cout / g, k...]` and `bias` `[cout]`, both of the problem's dtype, dense, and aligned to it. A
// layer without a bias takes NULL and 0. Texts, weight and bias are copied: all of them may be freed when the call
// returns.
//
// On success `*out` is the kernel, to be freed by `polyphase_kernel_free`, and the result is 0. Otherwise `*out` is
// NULL.
//
// # Safety
// Texts are NULL or end with a zero byte; `weight` and `bias` lead to as many bytes as is said; `out` may be written.
int polyphase_compile(const char *problem_json,
                      const char *options_json,
                      const void *weight,
                      size_t weight_bytes,
                      const void *bias,
                      size_t bias_bytes,
                      struct PolyphaseKernel **out);

// Computes a layer: reads `[n, cin, in...]` from `input` and writes `[n, cout, out...]` to `output`; if the layer has
// channels last, these are `[n, in..., cin]` and `[n, out..., cout]`. Per axis `out` is
// `s*(in-1) + d*(k-1) + 1 + op - p - p_end`. Both are dense, of the problem's dtype, aligned to it, and apart from
// each other. `input_bytes` and `output_bytes` must be exactly their sizes. A layer with open extents needs
// `polyphase_run_sized`.
//
// Many threads may run one kernel at once, each into its own output. Nothing is allocated once there have been as many
// runs at a time. (With several threads, runs are handed to a pool through its queue, which takes a lock and now and
// then allocates a block.)
//
// # Safety
// `kernel` is NULL or a kernel that is not freed; `input` and `output` lead to as many bytes as is said; nobody writes
// the input, and nobody reads or writes the output, until the call returns.
int polyphase_run(const struct PolyphaseKernel *kernel, const void *input, size_t input_bytes, void *output, size_t output_bytes);

// As `polyphase_run`, with the extents of the input given, for a layer that leaves some of them open: `sizes` has
// `count` entries, the batch and then every spatial extent, outermost first. Those that the layer fixes must be as it
// fixes them.
//
// # Safety
// As for `polyphase_run`; `sizes` leads to `count` values.
int polyphase_run_sized(const struct PolyphaseKernel *kernel,
                        const size_t *sizes,
                        size_t count,
                        const void *input,
                        size_t input_bytes,
                        void *output,
                        size_t output_bytes);

// Frees a kernel, its machine code and its memory; on any thread, once. NULL is ignored.
//
// # Safety
// `kernel` is NULL or a kernel that is not freed, and no run of it is under way.
void polyphase_kernel_free(struct PolyphaseKernel *kernel);

// What went wrong in the last call on this thread, as a sentence in UTF-8; empty if it succeeded. Every thread has its
// own. Valid until the next call on this thread of a function other than this one and `polyphase_version`, and no
// longer than the thread.
const char *polyphase_last_error(void);

// The version of the library, such as `0.1.0`.
const char *polyphase_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* POLYPHASE_H */
