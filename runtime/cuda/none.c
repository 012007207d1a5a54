// SPDX-License-Identifier: MIT
// Stands in for runtime/cuda/ where the library is built without nvcc.
#include "runtime/cuda/cuda.h"

static enum bnt_status none(struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_DEVICE,
                    "this build has no GPU support (nvcc was not found when it was made)");
}

const char *bnt_gpu_support(void)
{
    return NULL;
}

bool bnt_cuda_present(void)
{
    return false;
}

int bnt_cuda_device_count(struct bnt_error *err)
{
    (void)none(err);
    return 0;
}

enum bnt_status bnt_cuda_device_get(int i, struct bnt_cuda_device *device, struct bnt_error *err)
{
    (void)i;
    (void)device;
    return none(err);
}

enum bnt_status bnt_cuda_model_open(const struct bnt_view *view, int device,
                                    struct bnt_cuda_model **model, struct bnt_error *err)
{
    (void)view;
    (void)device;
    *model = NULL;
    return none(err);
}

void bnt_cuda_model_close(struct bnt_cuda_model *model)
{
    (void)model;
}

enum bnt_status bnt_cuda_session_open(const struct bnt_cuda_model *model, uint32_t context,
                                      bool full_output, struct bnt_cuda_session **session,
                                      struct bnt_error *err)
{
    (void)model;
    (void)context;
    (void)full_output;
    *session = NULL;
    return none(err);
}

void bnt_cuda_session_close(struct bnt_cuda_session *session)
{
    (void)session;
}

const char *bnt_cuda_session_device(const struct bnt_cuda_session *session)
{
    (void)session;
    return "";
}

enum bnt_status bnt_cuda_session_rewind(struct bnt_cuda_session *session, uint32_t position,
                                        struct bnt_error *err)
{
    (void)session;
    (void)position;
    return none(err);
}

enum bnt_status bnt_cuda_evaluate(struct bnt_cuda_session *session, const uint32_t *tokens,
                                  size_t count, enum bnt_logits which, float *logits,
                                  struct bnt_error *err)
{
    (void)session;
    (void)tokens;
    (void)count;
    (void)which;
    (void)logits;
    return none(err);
}

enum bnt_status bnt_cuda_sample(struct bnt_cuda_session *session,
                                const struct bnt_sampling *sampling, struct bnt_seen_list seen,
                                uint64_t *state, uint32_t *token, struct bnt_error *err)
{
    (void)session;
    (void)sampling;
    (void)seen;
    (void)state;
    (void)token;
    return none(err);
}

enum bnt_status bnt_cuda_next(struct bnt_cuda_session *session, uint32_t token,
                              const struct bnt_sampling *sampling, struct bnt_seen_list seen,
                              uint64_t *state, uint32_t *next, struct bnt_error *err)
{
    (void)session;
    (void)token;
    (void)sampling;
    (void)seen;
    (void)state;
    (void)next;
    return none(err);
}
