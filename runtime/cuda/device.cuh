// SPDX-License-Identifier: MIT
// What the kernels share: sums over a warp and a block, the tensor-core product, the launch order.
#ifndef BNT_RUNTIME_CUDA_DEVICE_CUH
#define BNT_RUNTIME_CUDA_DEVICE_CUH

#include <atomic>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

enum { WARP = 32 };
static const unsigned FULL_WARP = 0xFFFFFFFFu;

// Each brings the lanes of a warp together first: after a loop that they left at different times
// they may still run apart, and a shuffle would then take its slow path.
static __device__ __forceinline__ float warp_sum(float v)
{
    __syncwarp();
    for (int step = WARP / 2; step > 0; step /= 2)
        v += __shfl_xor_sync(FULL_WARP, v, step);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
    __syncwarp();
    for (int step = WARP / 2; step > 0; step /= 2)
        v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, step));
    return v;
}

static __device__ __forceinline__ int warp_sum(int v)
{
    __syncwarp();
    return __reduce_add_sync(FULL_WARP, v);
}

// round_half_even(v · s), held within int8; NaN becomes −128.
static __device__ __forceinline__ int quantize(float v, float s)
{
    return __float2int_rn(fminf(fmaxf(v * s, -128.0f), 127.0f));
}

static __device__ __forceinline__ uint32_t pack_bytes(uint32_t a, uint32_t b, uint32_t c,
                                                      uint32_t d)
{
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

static __device__ __forceinline__ float silu(float v)
{
    return v / (1.0f + expf(-v));
}

static __device__ __forceinline__ float relu2(float v)
{
    float r = v > 0 ? v : 0;
    return r * r;
}

// d (16 × 8, int32) += a (16 × 32, unsigned codes) · b (32 × 8, int8).
static __device__ __forceinline__ void mma_codes(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                 uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// What is read once need not stay in the L1 cache. In this place, which the compiler must keep.
static __device__ __forceinline__ void load_once(uint4 &to, const void *p)
{
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                 : "l"(p));
}

// Two bf16 as they lie in a word.
static __device__ __forceinline__ float2 bf16_pair(uint32_t word)
{
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
}

// Copies 16 bytes into shared memory without waiting, or writes zeros there when not valid.
static __device__ __forceinline__ void copy_async(void *shared, const void *global, bool valid)
{
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    int size = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(size)
                 : "memory");
}

static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N of this thread's groups are on their way.
template <int N> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Programmatic dependent launch: a kernel may start while the one before it in the stream still
// runs. What comes before wait_for_previous must not depend on that one's results.
static __device__ __forceinline__ void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static __device__ __forceinline__ void wait_for_previous()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// An attribute of the thread's current device.
static inline cudaError_t find_attribute(cudaDeviceAttr which, int *value)
{
    int device;
    cudaError_t error = cudaGetDevice(&device);
    return error == cudaSuccess ? cudaDeviceGetAttribute(value, which, device) : error;
}

// An answer for each device, found once.
class known_answers
{
  public:
    template <class Find> cudaError_t ask(bool *answer, const Find &find)
    {
        int device;
        cudaError_t error = cudaGetDevice(&device);
        if (error != cudaSuccess)
            return error;
        const int found = device < DEVICES ? known[device].load() : UNKNOWN;
        *answer = found == YES;
        if (found != UNKNOWN)
            return cudaSuccess;
        error = find(answer);
        if (error == cudaSuccess && device < DEVICES)
            known[device].store(*answer ? YES : NO);
        return error;
    }

  private:
    enum { UNKNOWN, NO, YES, DEVICES = 64 };
    std::atomic<int> known[DEVICES] = {};
};

// Whether kernels may start early, as said above: the code that was loaded for the current device
// waits. Then it knows of clusters of blocks too. (device.cu)
cudaError_t bnt_cuda_can_start_early(bool *can);

// Fills in how kernels are launched that share a multiprocessor: with a division of the L1 cache
// that is the same for all, and early where that is possible. attributes: two.
static inline void set_sharing(cudaLaunchConfig_t *config, cudaLaunchAttribute *attributes,
                               bool early)
{
    attributes[0].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[0].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    config->attrs = attributes;
    config->numAttrs = early ? 2 : 1;
}

// Launches a kernel that may start early where that is so.
template <class... Parameters, class... Arguments>
static cudaError_t launch_early(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                                cudaStream_t stream, const Arguments &...arguments)
{
    bool can;
    cudaError_t error = bnt_cuda_can_start_early(&can);
    if (error != cudaSuccess)
        return error;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = can;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

#endif
