// SPDX-License-Identifier: MIT
#include "runtime/engine/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

// What the model's rope makes of frequencies (bnt.md section 10).

// Llama 3's stretching of long wavelengths.
static double llama3(const struct bnt_hyper *h, double f)
{
    double wavelength = 2 * pi / f;
    double original = h->rope_original_context;
    double low = (double)h->rope_low_freq_factor, high = (double)h->rope_high_freq_factor,
           factor = (double)h->rope_factor;
    if (wavelength < original / high)
        return f;
    if (wavelength > original / low)
        return f / factor;
    double t = (original / wavelength - low) / (high - low);
    return ((1 - t) / factor + t) * f;
}

// The pair, as a real number, that turns so often in the original context.
static double yarn_pair(const struct bnt_hyper *h, double turns)
{
    return h->head_dim * log(h->rope_original_context / (2 * pi * turns)) /
           (2 * log(h->rope_theta));
}

static double yarn(const struct bnt_hyper *h, double f, uint32_t i)
{
    double low = yarn_pair(h, (double)h->rope_beta_fast);
    double high = yarn_pair(h, (double)h->rope_beta_slow);
    if (!(h->flags & BNT_HYPER_YARN_EXACT)) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < h->head_dim - 1 ? high : h->head_dim - 1;
    if (low == high)
        high += 0.001;
    double t = (i - low) / (high - low);
    t = t > 0 ? t : 0;
    t = t < 1 ? t : 1;
    return f / (double)h->rope_factor * t + f * (1 - t);
}

static double scale_frequency(const struct bnt_hyper *h, double f, uint32_t i)
{
    switch (h->rope_scaling) {
    case BNT_ROPE_LLAMA3:
        return llama3(h, f);
    case BNT_ROPE_YARN:
        return yarn(h, f, i);
    case BNT_ROPE_LINEAR:
        return f / (double)h->rope_factor;
    default:
        return f;
    }
}

void bnt_rope_frequencies(const struct bnt_hyper *h, float *frequency)
{
    for (uint32_t i = 0; i < h->head_dim / 2; i++)
        frequency[i] = (float)scale_frequency(h, pow(h->rope_theta, -2.0 * i / h->head_dim), i);
}
