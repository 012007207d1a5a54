// SPDX-License-Identifier: MIT
// What Hopper (compute capability 9.0, code for sm_90a) has beyond its forerunners: products of a
// warpgroup with operands in shared memory.
#ifndef BNT_RUNTIME_CUDA_WGMMA_CUH
#define BNT_RUNTIME_CUDA_WGMMA_CUH

#include "runtime/cuda/barrier.cuh"

// Defined where the code being compiled may use them. Elsewhere kernels made of them are empty.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BNT_HAS_WGMMA
#endif

enum { WARPGROUP = 4 * WARP };

// Brings some warps of the block together; number: 1 … 15.
static __device__ __forceinline__ void sync_threads(uint32_t number, uint32_t threads)
{
    asm volatile("barrier.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// --- products ---

// Registers and shared memory written by threads are to be seen by products that follow.
static __device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most N groups of products are under way.
template <int N> static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// What this thread has written to shared memory is to be seen by the products of threads that it
// meets afterwards.
static __device__ __forceinline__ void wgmma_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// After the last wait: what the products made, not what the registers held before.
template <int N> static __device__ __forceinline__ void wgmma_take(int (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+r"(d[i])::"memory");
}

template <int N> static __device__ __forceinline__ void wgmma_take(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

// Describes rows of 128 bytes at a multiple of 1024, the 16-byte pieces of row r exchanged: piece p
// at place p ^ r % 8. Adding n moves the first column by 16·n bytes.
static __device__ __forceinline__ uint64_t wgmma_rows(const void *shared)
{
    const uint64_t swizzle_128 = 1ull << 62, eight_rows = 1024 / 16;
    return swizzle_128 | eight_rows << 32 | 1ull << 16 | (shared_address(shared) & 0x3FFFF) >> 4;
}

// The same rows as the second operand's depth rather than its width, 64 columns of 16 bits each:
// the next 64 columns lie that many bytes further on.
static __device__ __forceinline__ uint64_t wgmma_columns(const void *shared, uint32_t next_columns)
{
    const uint64_t swizzle_128 = 1ull << 62, eight_rows = 1024 / 16;
    return swizzle_128 | eight_rows << 32 | (uint64_t)(next_columns / 16) << 16 |
           (shared_address(shared) & 0x3FFFF) >> 4;
}

// d (64 × N, int32) += a (64 × 32, unsigned codes, in registers) · b (32 × N, int8, N rows of
// shared memory). N is twice the number of registers.
#define BNT_D4(i)  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define BNT_D16(i) BNT_D4(i), BNT_D4(i + 4), BNT_D4(i + 8), BNT_D4(i + 12)
#define BNT_P8     "%0, %1, %2, %3, %4, %5, %6, %7"
#define BNT_P16    BNT_P8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define BNT_P32                                                                                    \
    BNT_P16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define BNT_P48                                                                                    \
    BNT_P32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define BNT_P64                                                                                    \
    BNT_P48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define BNT_WGMMA(n, places, a0, a1, a2, a3, b, ...)                                               \
    asm volatile("{\n"                                                                             \
                 ".reg .pred add;\n"                                                               \
                 "setp.eq.u32 add, 0, 0;\n"                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" n "k32.s32.u8.s8 {" places "}, "              \
                 "{" a0 ", " a1 ", " a2 ", " a3 "}, " b ", add;\n"                                 \
                 "}"                                                                               \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(rows))

static __device__ __forceinline__ void wgmma_codes(int (&d)[8], const uint32_t (&a)[4],
                                                   uint64_t rows)
{
    BNT_WGMMA("16", BNT_P8, "%8", "%9", "%10", "%11", "%12", BNT_D4(0), BNT_D4(4));
}

static __device__ __forceinline__ void wgmma_codes(int (&d)[16], const uint32_t (&a)[4],
                                                   uint64_t rows)
{
    BNT_WGMMA("32", BNT_P16, "%16", "%17", "%18", "%19", "%20", BNT_D16(0));
}

static __device__ __forceinline__ void wgmma_codes(int (&d)[32], const uint32_t (&a)[4],
                                                   uint64_t rows)
{
    BNT_WGMMA("64", BNT_P32, "%32", "%33", "%34", "%35", "%36", BNT_D16(0), BNT_D16(16));
}

static __device__ __forceinline__ void wgmma_codes(int (&d)[48], const uint32_t (&a)[4],
                                                   uint64_t rows)
{
    BNT_WGMMA("96", BNT_P48, "%48", "%49", "%50", "%51", "%52", BNT_D16(0), BNT_D16(16),
              BNT_D16(32));
}

static __device__ __forceinline__ void wgmma_codes(int (&d)[64], const uint32_t (&a)[4],
                                                   uint64_t rows)
{
    BNT_WGMMA("128", BNT_P64, "%64", "%65", "%66", "%67", "%68", BNT_D16(0), BNT_D16(16),
              BNT_D16(32), BNT_D16(48));
}

// The same of signed weights (scales.cuh); what was in d counts only if keep is not 0.
#define BNT_WGMMA_SIGNED(n, places, a0, a1, a2, a3, b, k, ...)                                     \
    asm volatile("{\n"                                                                             \
                 ".reg .pred keep;\n"                                                              \
                 "setp.ne.u32 keep, " k ", 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" n "k32.s32.s8.s8 {" places "}, "              \
                 "{" a0 ", " a1 ", " a2 ", " a3 "}, " b ", keep;\n"                                \
                 "}"                                                                               \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(rows), "r"(keep))

static __device__ __forceinline__ void wgmma_weights(int (&d)[16], const uint32_t (&a)[4],
                                                     uint64_t rows, uint32_t keep)
{
    BNT_WGMMA_SIGNED("32", BNT_P16, "%16", "%17", "%18", "%19", "%20", "%21", BNT_D16(0));
}

static __device__ __forceinline__ void wgmma_weights(int (&d)[32], const uint32_t (&a)[4],
                                                     uint64_t rows, uint32_t keep)
{
    BNT_WGMMA_SIGNED("64", BNT_P32, "%32", "%33", "%34", "%35", "%36", "%37", BNT_D16(0),
                     BNT_D16(16));
}

static __device__ __forceinline__ void wgmma_weights(int (&d)[64], const uint32_t (&a)[4],
                                                     uint64_t rows, uint32_t keep)
{
    BNT_WGMMA_SIGNED("128", BNT_P64, "%64", "%65", "%66", "%67", "%68", "%69", BNT_D16(0),
                     BNT_D16(16), BNT_D16(32), BNT_D16(48));
}

// d (64 × 64, float32) = a (64 × 16) · b (16 × 64), both float16 rows of shared memory. To it, or
// to zero: add is "1" or "0", and the places are "+f" or "=f".
#define BNT_F4(f, i)  f(d[i]), f(d[i + 1]), f(d[i + 2]), f(d[i + 3])
#define BNT_F16(f, i) BNT_F4(f, i), BNT_F4(f, i + 4), BNT_F4(f, i + 8), BNT_F4(f, i + 12)
#define BNT_WGMMA_ROWS(add, f)                                                                     \
    asm volatile("{\n"                                                                             \
                 ".reg .pred add;\n"                                                               \
                 "setp.ne.u32 add, " add ", 0;\n"                                                  \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" BNT_P32 "}, "              \
                 "%32, %33, add, 1, 1, 0, 0;\n"                                                    \
                 "}"                                                                               \
                 : BNT_F16(f, 0), BNT_F16(f, 16)                                                   \
                 : "l"(a), "l"(b))

static __device__ __forceinline__ void wgmma_rows_first(float (&d)[32], uint64_t a, uint64_t b)
{
    BNT_WGMMA_ROWS("0", "=f");
}

static __device__ __forceinline__ void wgmma_rows_add(float (&d)[32], uint64_t a, uint64_t b)
{
    BNT_WGMMA_ROWS("1", "+f");
}

// d (64 × N, float32) += a (64 × 16, float16, in registers) · b (16 × N, float16 columns of shared
// memory).
#define BNT_WGMMA_COLUMNS(n, places, a0, a1, a2, a3, columns, ...)                                 \
    asm volatile("{\n"                                                                             \
                 ".reg .pred add;\n"                                                               \
                 "setp.eq.u32 add, 0, 0;\n"                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.f16.f16 {" places "}, "            \
                 "{" a0 ", " a1 ", " a2 ", " a3 "}, " columns ", add, 1, 1, 1;\n"                  \
                 "}"                                                                               \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

static __device__ __forceinline__ void wgmma_columns_add(float (&d)[32], const uint32_t (&a)[4],
                                                         uint64_t b)
{
    BNT_WGMMA_COLUMNS("64", BNT_P32, "%32", "%33", "%34", "%35", "%36", BNT_F16("+f", 0),
                      BNT_F16("+f", 16));
}

static __device__ __forceinline__ void wgmma_columns_add(float (&d)[64], const uint32_t (&a)[4],
                                                         uint64_t b)
{
    BNT_WGMMA_COLUMNS("128", BNT_P64, "%64", "%65", "%66", "%67", "%68", BNT_F16("+f", 0),
                      BNT_F16("+f", 16), BNT_F16("+f", 32), BNT_F16("+f", 48));
}

#undef BNT_WGMMA_ROWS
#undef BNT_WGMMA_COLUMNS
#undef BNT_F4
#undef BNT_F16
#undef BNT_D4
#undef BNT_D16
#undef BNT_P8
#undef BNT_P16
#undef BNT_P32
#undef BNT_P48
#undef BNT_P64
#undef BNT_WGMMA
#undef BNT_WGMMA_SIGNED

#endif
