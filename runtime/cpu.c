// SPDX-License-Identifier: MIT
// Which kernels this processor and its operating system can run.
#include <stdbool.h>

#include "runtime/bnt.h"
#include "runtime/kernels.h"

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports(
        "avx2"); // asks the operating system too: it must save the wide registers
}
#endif

// Best first.
static const struct {
    const struct bnt_kernels *kernels;
    bool (*usable)(void);
} kernel_table[] = {
#if defined(__x86_64__)
    {&bnt_kernels_avx2, has_avx2},
#endif
    {&bnt_kernels_scalar, always},
};

const struct bnt_kernels *bnt_kernels_get(size_t i)
{
    for (size_t row = 0; row < sizeof kernel_table / sizeof kernel_table[0]; row++) {
        if (kernel_table[row].usable() && i-- == 0)
            return kernel_table[row].kernels;
    }
    return NULL;
}

const char *bnt_kernel_name(size_t i)
{
    const struct bnt_kernels *kernels = bnt_kernels_get(i);
    return kernels ? kernels->name : NULL;
}
