// SPDX-License-Identifier: MIT
#include "runtime/rope.h"

#include <math.h>

// Llama 3's stretching of long wavelengths (bnt.md section 10).
static double scale_frequency(const struct bnt_hyper *h, double f)
{
    if (h->rope_scaling != BNT_ROPE_LLAMA3)
        return f;
    const double pi = 3.14159265358979323846;
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

void bnt_rope_frequencies(const struct bnt_hyper *h, float *frequency)
{
    for (uint32_t i = 0; i < h->head_dim / 2; i++)
        frequency[i] = (float)scale_frequency(h, pow(h->rope_theta, -2.0 * i / h->head_dim));
}
