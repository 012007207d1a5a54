// SPDX-License-Identifier: MIT
// Choosing a token on the device. (sample.cu)
#ifndef BNT_RUNTIME_CUDA_SAMPLE_CUH
#define BNT_RUNTIME_CUDA_SAMPLE_CUH

#include "runtime/cuda/session.cuh"

// In host memory that the device can write.
struct bnt_cuda_choice {
    uint32_t token;
    uint32_t drew; // 1: the random number was used
};

struct bnt_cuda_sampler {
    volatile struct bnt_cuda_choice *choice;
    struct bnt_cuda_choice *device_choice; // the same memory as the device sees it
    void *scratch;
    uint32_t blocks;
};

enum bnt_status bnt_cuda_sampler_open(const struct bnt_cuda_session *session,
                                      struct bnt_cuda_sampler **sampler, struct bnt_error *err);
void bnt_cuda_sampler_close(struct bnt_cuda_sampler *sampler);

// Chooses from float32 (vocab) logits on the device as bnt_sample does. random: in [0, 1).
cudaError_t bnt_cuda_choose(const struct bnt_cuda_sampler *sampler, const float *logits,
                            uint32_t vocab, const struct bnt_sampling *sampling, double random,
                            cudaStream_t stream);

#endif
