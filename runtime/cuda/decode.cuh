// SPDX-License-Identifier: MIT
// One token through the whole model. (decode.cu)
#ifndef BNT_RUNTIME_CUDA_DECODE_CUH
#define BNT_RUNTIME_CUDA_DECODE_CUH

#include "runtime/cuda/session.cuh"

struct bnt_cuda_decoder;

// *decoder stays NULL where the model is not made for it: head_dim not divisible by 4 (with q/k
// norms by 64) or above 256, sizes not divisible by 8 and 4, vectors too long for shared memory, or
// a norm of its own before each linear.
enum bnt_status bnt_cuda_decoder_open(const struct bnt_cuda_session *session,
                                      struct bnt_cuda_decoder **decoder, struct bnt_error *err);
void bnt_cuda_decoder_close(struct bnt_cuda_decoder *decoder);

// How many of the likeliest tokens a step can find by way of the int8 copy of the output matrix; 0:
// there is none, or it is not to be used.
uint32_t bnt_cuda_longest_shortlist(const struct bnt_cuda_decoder *decoder);

// Feeds a token at a position: its keys and values go into the cache, its logits to the session's,
// and the likeliest token to *best, in memory that the device can write, the same in every call.
// shortlist: if not 0, only so many of the likeliest tokens are sure to have their logits, others
// may have −infinity.
cudaError_t bnt_cuda_decode(struct bnt_cuda_decoder *decoder, uint32_t token, uint32_t position,
                            uint32_t shortlist, uint32_t *best);

#endif
