// SPDX-License-Identifier: MIT
// A step of generation: a token in, the next one out.
#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/sample.cuh"
#include "runtime/engine/penalty.h"
#include "runtime/engine/random.h"

static bool is_greedy(const struct bnt_sampling *sampling)
{
    return !(sampling->temperature > 0);
}

// How many tokens must be known of to choose as sampling says: 0 is all.
static uint32_t find_shortlist(const struct bnt_cuda_session *s,
                               const struct bnt_sampling *sampling, uint32_t n_seen)
{
    const struct bnt_penalties penalties = bnt_penalties_of(sampling);
    const uint32_t k = is_greedy(sampling) ? 1 : sampling->top_k;
    const uint32_t longest = bnt_cuda_longest_shortlist(s->decoder);
    if (k > longest)
        return 0;
    if (k == 0 || n_seen == 0 || !bnt_penalties_any(penalties))
        return k;
    return bnt_penalties_lower(penalties) && n_seen <= longest - k ? k + n_seen : 0;
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

// Chooses from the logits that are there, of which the list of seen tokens has been taken.
static enum bnt_status sample(struct bnt_cuda_session *s, const struct bnt_sampling *sampling,
                              uint32_t n_seen, uint64_t *state, uint32_t *token,
                              struct bnt_error *err)
{
    uint64_t after = *state;
    double random = bnt_random_number(&after);
    cudaError_t error = bnt_cuda_choose(s->sampler, s->logits, s->model->hyper.vocab_size, sampling,
                                        n_seen, random, s->stream);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "choosing a token on the GPU");
    return take_choice(s, after, state, token, err);
}

enum bnt_status bnt_cuda_sample(struct bnt_cuda_session *s, const struct bnt_sampling *sampling,
                                struct bnt_seen_list seen, uint64_t *state, uint32_t *token,
                                struct bnt_error *err)
{
    if (!s->has_logits)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "there are no logits to choose from");
    cudaError_t error = cudaSetDevice(s->model->device);
    if (error == cudaSuccess)
        error = bnt_cuda_take_seen(s->sampler, seen, s->stream);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "choosing a token on the GPU");
    return sample(s, sampling, seen.n, state, token, err);
}

enum bnt_status bnt_cuda_next(struct bnt_cuda_session *s, uint32_t token,
                              const struct bnt_sampling *sampling, struct bnt_seen_list seen,
                              uint64_t *state, uint32_t *next, struct bnt_error *err)
{
    enum bnt_status status;
    if (!s->decoder) {
        status = bnt_cuda_evaluate(s, &token, 1, BNT_LOGITS_LAST, NULL, err);
        return status == BNT_OK ? bnt_cuda_sample(s, sampling, seen, state, next, err) : status;
    }
    status = bnt_cuda_check_tokens(s, &token, 1, err);
    if (status != BNT_OK)
        return status;
    const uint32_t shortlist = find_shortlist(s, sampling, seen.n);
    cudaError_t error = cudaSetDevice(s->model->device);
    if (error == cudaSuccess)
        error = bnt_cuda_take_seen(s->sampler, seen, s->stream);
    if (error == cudaSuccess)
        error = bnt_cuda_decode(s->decoder, token, s->position, shortlist,
                                &s->sampler->device_choice->token);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "evaluating a token on the GPU");
    s->position++;
    s->has_logits = true;
    if (is_greedy(sampling) && !bnt_penalties_any(bnt_penalties_of(sampling))) {
        s->sampler->choice->drew = 0;
        status = take_choice(s, *state, state, next, err);
    } else {
        status = sample(s, sampling, seen.n, state, next, err);
    }
    s->has_logits = shortlist == 0; // another choice may need others
    return status;
}
