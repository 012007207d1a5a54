// SPDX-License-Identifier: MIT
// The forward pass and the sampling on an NVIDIA GPU, behind a C interface. What it computes is
// section 10 of formats/bnt.md; the integer sums are those of the CPU kernels bit for bit, floats
// may differ in their last bits.
//
// Nothing here prints, exits or reads the environment. What can fail returns a status and leaves
// one line in err, which may be NULL. BNT_ERR_DEVICE: no usable GPU, or it failed; after a failure
// of the GPU itself every later call of the process on it fails too. BNT_ERR_MEMORY: too little
// memory, of the host or of the device; the message says which.
//
// Threads: a model is immutable once open and may be shared. A session belongs to one thread at a
// time.
#ifndef BNT_RUNTIME_CUDA_CUDA_H
#define BNT_RUNTIME_CUDA_CUDA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#ifndef _Static_assert
#define _Static_assert static_assert
#endif
extern "C" {
#endif

#include "formats/view.h"
#include "runtime/bnt.h"
#include "runtime/engine/history.h"

struct bnt_cuda_device {
    char name[128];
    int major, minor;    // compute capability
    unsigned processors; // multiprocessors
    uint64_t memory;     // bytes in all
    uint64_t l2_size;    // bytes
};

// Whether this machine has an NVIDIA GPU, usable or not. false too where the library was built
// without GPU support; then all else here is BNT_ERR_DEVICE.
bool bnt_cuda_present(void);

// The number of usable devices: compute capability 8.0 or later and a driver that is new enough. 0:
// there is none, and err says why.
int bnt_cuda_device_count(struct bnt_error *err);

// Describes usable device i (0 … count − 1).
enum bnt_status bnt_cuda_device_get(int i, struct bnt_cuda_device *device, struct bnt_error *err);

struct bnt_cuda_model;

// Uploads the mapped file as it lies: device memory for file_size bytes and a few KB. The view must
// have been checked (bnt_view_open) and need not outlive the call. device: as above.
enum bnt_status bnt_cuda_model_open(const struct bnt_view *view, int device,
                                    struct bnt_cuda_model **model, struct bnt_error *err);

// Frees it; all of its sessions must be closed before. NULL is allowed.
void bnt_cuda_model_close(struct bnt_cuda_model *model);

struct bnt_cuda_session;

// A place in a text. context: tokens to have room for, 1 …
// the model's max_context. Takes context * n_layers * 2 * n_kv_heads * up(head_dim, 4) * 4 bytes of
// device memory for the keys and values, and below 256 MB to work in. full_output: an int8 copy of
// the output matrix in the file is not used.
enum bnt_status bnt_cuda_session_open(const struct bnt_cuda_model *model, uint32_t context,
                                      bool full_output, struct bnt_cuda_session **session,
                                      struct bnt_error *err);
void bnt_cuda_session_close(struct bnt_cuda_session *session);

// The name of its device, valid as long as the model.
const char *bnt_cuda_session_device(const struct bnt_cuda_session *session);

// Tokens seen so far.
uint32_t bnt_cuda_session_position(const struct bnt_cuda_session *session);

// Forgets all tokens from position on, which must not be greater than the present one.
enum bnt_status bnt_cuda_session_rewind(struct bnt_cuda_session *session, uint32_t position,
                                        struct bnt_error *err);

// Feeds count >= 1 tokens. logits, in host memory, receives float32 (1, vocab_size) for LAST and
// (count, vocab_size) for ALL; NULL: they stay on the device (LAST), for bnt_cuda_sample.
// BNT_ERR_CONTEXT, with nothing fed, if the tokens do not fit.
enum bnt_status bnt_cuda_evaluate(struct bnt_cuda_session *session, const uint32_t *tokens,
                                  size_t count, enum bnt_logits which, float *logits,
                                  struct bnt_error *err);

// Chooses a token from the last logits that an evaluation with LAST, or a step that did not go by
// way of the int8 copy, left on the device, as bnt_sample does. *state is the generator's, set to
// the seed before the first call. seen: what the text so far holds, each token once, at most as
// many as the context has room for; penalties are these tokens' alone.
enum bnt_status bnt_cuda_sample(struct bnt_cuda_session *session,
                                const struct bnt_sampling *sampling, struct bnt_seen_list seen,
                                uint64_t *state, uint32_t *token, struct bnt_error *err);

// Feeds one token and chooses the next: evaluate and sample in one go, with nothing but the ids
// crossing between host and device. Where the file has an int8 copy of the output matrix, greedy
// choices and those with a top_k of at most twice the multiprocessors find their candidates by way
// of it: the choice is the same. seen: as above, with the token that is fed.
enum bnt_status bnt_cuda_next(struct bnt_cuda_session *session, uint32_t token,
                              const struct bnt_sampling *sampling, struct bnt_seen_list seen,
                              uint64_t *state, uint32_t *next, struct bnt_error *err);

#ifdef __cplusplus
}
#endif

#endif
