/* The C ABI: a transposed convolution from C. From the crate's directory, after `cargo build --release`:
 *
 *     cc -std=c99 -Wall -Idocs examples/c_api.c -Ltarget/release -lpolyphase -Wl,-rpath,target/release -o target/c_api && target/c_api
 *
 * It runs the worked example 4x4 ones by the kernel 1..16, stride 2, padding 1; then a layer of open length at two lengths; then shows what
 * an error looks like. It ends with 0 if every number is right.
 */
#include <polyphase.h>
#include <stdio.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, polyphase_last_error());
    return 1;
}

/* Known extents: everything but the tensors is said once, when the kernel is made. */
static int fixed(void) {
    static const float row[2][8] = {{6, 12, 14, 12, 14, 12, 14, 7}, {12, 24, 28, 24, 28, 24, 28, 14}};
    const char *layer = "{\"n\": 1, \"cin\": 1, \"in\": [4, 4], \"cout\": 1, \"k\": [4, 4], \"s\": [2, 2], \"p\": [1, 1]}";
    float weight[16], x[16], y[64];
    PolyphaseKernel *kernel;
    int i;
    for (i = 0; i < 16; i++) {
        weight[i] = (float)(i + 1);
        x[i] = 1;
    }
    if (polyphase_compile(layer, "{\"threads\": 1}", weight, sizeof weight, NULL, 0, &kernel) != POLYPHASE_OK)
        return failed("compile");
    if (polyphase_run(kernel, x, sizeof x, y, sizeof y) != POLYPHASE_OK)
        return failed("run");
    polyphase_kernel_free(kernel);
    for (i = 0; i < 16; i++) {
        printf("%4g%s", y[i], i % 8 == 7 ? "\n" : "");
        if (y[i] != row[i / 8][i % 8])
            return 1;
    }
    return 0;
}

/* Open extents: one kernel for every length, which comes with each run. */
static int open_length(void) {
    const char *layer = "{\"cin\": 1, \"in\": [\"?\"], \"cout\": 1, \"k\": [2], \"s\": [2], \"bias\": true, \"dtype\": \"f64\"}";
    const double weight[2] = {1, 10}, bias[1] = {0.5}, x[3] = {1, 2, 3};
    double y[6];
    PolyphaseKernel *kernel;
    size_t length, o;
    if (polyphase_compile(layer, NULL, weight, sizeof weight, bias, sizeof bias, &kernel) != POLYPHASE_OK)
        return failed("compile");
    for (length = 2; length <= 3; length++) {
        const size_t sizes[2] = {1, length};
        if (polyphase_run_sized(kernel, sizes, 2, x, length * sizeof *x, y, 2 * length * sizeof *y) != POLYPHASE_OK)
            return failed("run");
        for (o = 0; o < 2 * length; o++) {
            printf(" %g", y[o]);
            if (y[o] != x[o / 2] * weight[o % 2] + bias[0])
                return 1;
        }
        printf("\n");
    }
    polyphase_kernel_free(kernel);
    return 0;
}

/* An error: a code for the program and a sentence for its user. */
static int mistaken(void) {
    const char *layer = "{\"cin\": 1, \"in\": [4], \"cout\": 1, \"k\": [2], \"s\": [0]}";
    const float weight[2] = {1, 1};
    PolyphaseKernel *kernel;
    if (polyphase_compile(layer, NULL, weight, sizeof weight, NULL, 0, &kernel) != POLYPHASE_ERROR_PROBLEM || kernel != NULL)
        return 1;
    printf("a stride of 0: %s\n", polyphase_last_error());
    polyphase_kernel_free(kernel);
    return 0;
}

int main(void) {
    printf("polyphase %s\n", polyphase_version());
    return fixed() || open_length() || mistaken();
}
