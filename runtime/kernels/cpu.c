// SPDX-License-Identifier: MIT
// Which kernels this processor and its operating system can run.
#include <stdbool.h>
#include <string.h>

#include "runtime/bnt.h"
#include "runtime/kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
// __builtin_cpu_supports asks the operating system too: it must save the wide registers.
static bool has_avx2(void)
{
    unsigned a, b, c, d;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

// AVX-VNNI, too, has a bit but not yet a name in every compiler.
static bool has_avx_vnni(void)
{
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__)
enum { HWCAP_DOT_PRODUCT = 1 << 20 }; // HWCAP_ASIMDDP of Linux

static bool has_dot_product(void)
{
    return getauxval(AT_HWCAP) & HWCAP_DOT_PRODUCT;
}
#endif

// Best first.
static const struct {
    const struct bnt_kernels *kernels;
    bool (*usable)(void);
} kernel_table[] = {
#if defined(__x86_64__)
    {&bnt_kernels_avx512, has_avx512},
    {&bnt_kernels_avx_vnni, has_avx_vnni},
    {&bnt_kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {&bnt_kernels_neon_dot, has_dot_product},
    {&bnt_kernels_neon, always}, // every 64-bit ARM has it
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

enum bnt_status bnt_kernels_find(const char *name, const struct bnt_kernels **kernels,
                                 struct bnt_error *err)
{
    for (size_t i = 0; (*kernels = bnt_kernels_get(i)) != NULL; i++) {
        if (!name || strcmp((*kernels)->name, name) == 0)
            return BNT_OK;
    }
    return bnt_fail(err, BNT_ERR_UNSUPPORTED, "kernel '%s' is unknown or not for this processor",
                    name);
}

const char *bnt_kernel_name(size_t i)
{
    const struct bnt_kernels *kernels = bnt_kernels_get(i);
    return kernels ? kernels->name : NULL;
}
