// SPDX-License-Identifier: MIT
#include "formats/generation.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "formats/json.h"

// What the file carries, and what says nothing about a text: bookkeeping, caches, ways of computing
// the same, what goes with beams alone.
static const char *const harmless[] = {
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_new_tokens",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "decoder_start_token_id",
    "disable_compile",
    "early_stopping",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "return_legacy_cache",
    "target_lookbehind",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
    "use_model_defaults",
};

// Numbers that ask for nothing.
static const struct {
    const char *name;
    double off;
    bool of_sampling; // without do_sample any number does
} neutral[] = {
    {"num_beams", 1, false},
    {"num_beam_groups", 1, false},
    {"num_return_sequences", 1, false},
    {"diversity_penalty", 0, false},
    {"penalty_alpha", 0, false},
    {"typical_p", 1, true},
    {"epsilon_cutoff", 0, true},
    {"eta_cutoff", 0, true},
    {"top_h", 1, true},
    {"encoder_repetition_penalty", 1, false},
    {"no_repeat_ngram_size", 0, false},
    {"encoder_no_repeat_ngram_size", 0, false},
    {"guidance_scale", 1, false},
    {"min_length", 0, false},
    {"min_new_tokens", 0, false},
};

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (strcmp(harmless[i], key) == 0)
            return true;
    }
    return key[0] == '_'; // transformers' own notes
}

static bool is_empty(const json_t *value)
{
    return json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_neutral(const json_t *generation, const char *key, const json_t *value)
{
    for (size_t i = 0; i < sizeof neutral / sizeof neutral[0]; i++) {
        if (strcmp(neutral[i].name, key) == 0)
            return (json_is_number(value) && json_number_value(value) == neutral[i].off) ||
                   (neutral[i].of_sampling && !bnt_json_true(generation, "do_sample"));
    }
    return false;
}

// Of the prompt and the answer together; max_new_tokens overrides it, and 20 is transformers' word
// for nothing said.
static bool limits_nothing(const json_t *generation, const char *key, const json_t *value,
                           uint32_t max_context)
{
    return strcmp(key, "max_length") == 0 &&
           (bnt_json_get(generation, "max_new_tokens") || json_number_value(value) == 20 ||
            json_number_value(value) >= max_context);
}

void bnt_generation_passed_over(const json_t *generation, uint32_t max_context, char *text,
                                size_t size)
{
    const char *key;
    json_t *value;
    size_t used = 0;
    text[0] = '\0';
    json_object_foreach((json_t *)generation, key, value)
    {
        if (is_harmless(key) || is_empty(value) || is_neutral(generation, key, value) ||
            limits_nothing(generation, key, value, max_context))
            continue;
        if (used + strlen(key) + sizeof ", , …" > size) {
            (void)snprintf(text + used, size - used, "%s…", used ? ", " : "");
            return;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", key);
    }
}
