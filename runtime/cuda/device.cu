// SPDX-License-Identifier: MIT
// Which devices can be used, and what the code that is loaded for them can do.
#include <string.h>

#include "runtime/cuda/device.cuh"
#include "runtime/cuda/session.cuh"

enum { OLDEST_MAJOR = 8 };

// For what code was loaded: that of all kernels is for the same architecture.
__global__ static void any_kernel() {}

static cudaError_t find_can_start_early(bool *can)
{
    cudaFuncAttributes loaded;
    cudaError_t error = cudaFuncGetAttributes(&loaded, any_kernel);
    *can = error == cudaSuccess && loaded.ptxVersion >= 90;
    return error;
}

cudaError_t bnt_cuda_can_start_early(bool *can)
{
    static known_answers answers;
    return answers.ask(can, find_can_start_early);
}

enum bnt_status bnt_cuda_fail(struct bnt_error *err, cudaError_t error, const char *what)
{
    (void)cudaGetLastError(); // an error that does not break the device must not be seen again
    bool memory = error == cudaErrorMemoryAllocation;
    return bnt_fail(err, memory ? BNT_ERR_MEMORY : BNT_ERR_DEVICE, "%s: %s", what,
                    memory ? "too little memory on the GPU" : cudaGetErrorString(error));
}

static bool is_usable(int device)
{
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= OLDEST_MAJOR;
}

// The number of all devices; 0 with the reason.
static int count_all(struct bnt_error *err)
{
    int n = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0)
        return n;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaGetLastError();
    if (driver == 0)
        (void)bnt_fail(err, BNT_ERR_DEVICE, "no NVIDIA driver is installed");
    else if (error == cudaErrorInsufficientDriver)
        (void)bnt_fail(err, BNT_ERR_DEVICE,
                       "the NVIDIA driver is too old: it offers CUDA %d.%d, and %d.%d is needed",
                       driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                       CUDART_VERSION % 1000 / 10);
    else if (error == cudaSuccess || error == cudaErrorNoDevice)
        (void)bnt_fail(err, BNT_ERR_DEVICE, "there is no NVIDIA GPU");
    else
        (void)bnt_cuda_fail(err, error, "looking for GPUs");
    return 0;
}

#define QUOTE(text)        #text
#define QUOTE_VALUE(macro) QUOTE(macro)

const char *bnt_gpu_support(void)
{
    return "CUDA " QUOTE_VALUE(__CUDACC_VER_MAJOR__) "." QUOTE_VALUE(__CUDACC_VER_MINOR__);
}

bool bnt_cuda_present(void)
{
    int n = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    (void)cudaDriverGetVersion(&driver);
    (void)cudaGetLastError();
    return error == cudaSuccess ? n > 0 : driver > 0 && error != cudaErrorNoDevice;
}

int bnt_cuda_device_count(struct bnt_error *err)
{
    int usable = 0, n = count_all(err);
    for (int i = 0; i < n; i++)
        usable += is_usable(i);
    if (n > 0 && usable == 0)
        (void)bnt_fail(err, BNT_ERR_DEVICE,
                       "the GPU is too old: compute capability %d.0 or later is needed",
                       OLDEST_MAJOR);
    return usable;
}

// The device as CUDA counts, or −1.
static int find_device(int i, struct bnt_error *err)
{
    int n = count_all(err);
    for (int device = 0; device < n; device++) {
        if (is_usable(device) && i-- == 0)
            return device;
    }
    if (n > 0)
        (void)bnt_fail(err, BNT_ERR_ARGUMENT, "there is no such usable GPU");
    return -1;
}

static enum bnt_status describe(int device, struct bnt_cuda_device *out, struct bnt_error *err)
{
    cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "asking for the GPU's properties");
    memset(out, 0, sizeof *out);
    memcpy(out->name, p.name, sizeof out->name - 1);
    out->major = p.major;
    out->minor = p.minor;
    out->processors = (unsigned)p.multiProcessorCount;
    out->memory = p.totalGlobalMem;
    out->l2_size = (uint64_t)p.l2CacheSize;
    return BNT_OK;
}

enum bnt_status bnt_cuda_device_get(int i, struct bnt_cuda_device *device, struct bnt_error *err)
{
    int found = find_device(i, err);
    return found < 0 ? BNT_ERR_DEVICE : describe(found, device, err);
}

enum bnt_status bnt_cuda_use(int i, int *device, struct bnt_cuda_device *info,
                             struct bnt_error *err)
{
    *device = find_device(i, err);
    if (*device < 0)
        return BNT_ERR_DEVICE;
    cudaError_t error = cudaSetDevice(*device);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "starting the GPU");
    return describe(*device, info, err);
}
