// SPDX-License-Identifier: MIT
// A step of generation: a token in, the next one out.
#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/sample.cuh"
#include "runtime/random.h"

// How many tokens must be known of to choose as sampling says: 0 is all.
static uint32_t find_shortlist(const struct bnt_cuda_session *s,
                               const struct bnt_sampling *sampling)
{
    const uint32_t k = sampling->temperature > 0 ? sampling->top_k : 1;
    return k <= bnt_cuda_longest_shortlist(s->decoder) ? k : 0;
}

static bool is_greedy(const struct bnt_sampling *sampling)
{
    return !(sampling->temperature > 0);
}

// Waits for the choice and takes it.
static enum bnt_status take_choice(struct bnt_cuda_session *s, uint64_t after, uint64_t *state,
                                   uint32_t *token, struct bnt_error *err)
{
    cudaError_t error = cudaStreamSynchronize(s->stream);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "choosing a token on the GPU");
    *token = s->sampler->choice->token;
    if (s->sampler->choice->drew)
        *state = after;
    return BNT_OK;
}

enum bnt_status bnt_cuda_sample(struct bnt_cuda_session *s, const struct bnt_sampling *sampling,
                                uint64_t *state, uint32_t *token, struct bnt_error *err)
{
    if (!s->has_logits)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "there are no logits to choose from");
    cudaError_t error = cudaSetDevice(s->model->device);
    uint64_t after = *state;
    double random = bnt_random_number(&after);
    if (error == cudaSuccess)
        error = bnt_cuda_choose(s->sampler, s->logits, s->model->hyper.vocab_size, sampling, random,
                                s->stream);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "choosing a token on the GPU");
    return take_choice(s, after, state, token, err);
}

enum bnt_status bnt_cuda_next(struct bnt_cuda_session *s, uint32_t token,
                              const struct bnt_sampling *sampling, uint64_t *state, uint32_t *next,
                              struct bnt_error *err)
{
    enum bnt_status status;
    if (!s->decoder) {
        status = bnt_cuda_evaluate(s, &token, 1, BNT_LOGITS_LAST, NULL, err);
        return status == BNT_OK ? bnt_cuda_sample(s, sampling, state, next, err) : status;
    }
    status = bnt_cuda_check_tokens(s, &token, 1, err);
    if (status != BNT_OK)
        return status;
    const uint32_t shortlist = find_shortlist(s, sampling);
    cudaError_t error = cudaSetDevice(s->model->device);
    if (error == cudaSuccess)
        error = bnt_cuda_decode(s->decoder, token, s->position, shortlist,
                                &s->sampler->device_choice->token);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "evaluating a token on the GPU");
    s->position++;
    s->has_logits = true;
    if (is_greedy(sampling)) {
        s->sampler->choice->drew = 0;
        status = take_choice(s, *state, state, next, err);
    } else {
        status = bnt_cuda_sample(s, sampling, state, next, err);
    }
    s->has_logits = shortlist == 0; // another choice may need others
    return status;
}
