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
    struct bnt_seen *seen; // (the lesser of context and vocab) on the device
    float *saved;          // (the same) logits of these before they were penalized
};

enum bnt_status bnt_cuda_sampler_open(const struct bnt_cuda_session *session,
                                      struct bnt_cuda_sampler **sampler, struct bnt_error *err);
void bnt_cuda_sampler_close(struct bnt_cuda_sampler *sampler);

// Copies the list to the device, for choices to come.
cudaError_t bnt_cuda_take_seen(const struct bnt_cuda_sampler *sampler, struct bnt_seen_list seen,
                               cudaStream_t stream);

// Chooses from float32 (vocab) logits on the device as bnt_sample does. They are penalized where
// they lie, and then made again what they were. n_seen: tokens of the list that was taken. random:
// in [0, 1).
cudaError_t bnt_cuda_choose(const struct bnt_cuda_sampler *sampler, float *logits, uint32_t vocab,
                            const struct bnt_sampling *sampling, uint32_t n_seen, double random,
                            cudaStream_t stream);

#endif
