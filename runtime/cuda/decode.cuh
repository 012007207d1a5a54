// SPDX-License-Identifier: MIT
// One token through the whole model, in one kernel. (decode.cu)
#ifndef BNT_RUNTIME_CUDA_DECODE_CUH
#define BNT_RUNTIME_CUDA_DECODE_CUH

#include "runtime/cuda/session.cuh"

struct bnt_cuda_decoder;

// *decoder stays NULL where the model's shapes are not made for it: head_dim not divisible by 4 or
// above 256, sizes not divisible by 8, or vectors too long for shared memory.
enum bnt_status bnt_cuda_decoder_open(const struct bnt_cuda_session *session,
                                      struct bnt_cuda_decoder **decoder, struct bnt_error *err);
void bnt_cuda_decoder_close(struct bnt_cuda_decoder *decoder);

// Feeds a token at session->position: its keys and values go into the cache, its logits (vocab) to
// logits, and the likeliest token to *best, in memory that the device can write.
cudaError_t bnt_cuda_decode(struct bnt_cuda_decoder *decoder, uint32_t token, uint32_t position,
                            float *logits, uint32_t *best);

#endif
