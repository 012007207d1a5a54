// SPDX-License-Identifier: MIT
/*
 * bnt.h: run ternary (1.58-bit) language models from .bnt files.
 *
 *     struct bnt_error err;
 *     struct bnt_model *model;
 *     if (bnt_model_open("model.bnt", NULL, &model, &err) != BNT_OK) ... err.message ...
 *     struct bnt_session *session;
 *     bnt_session_open(model, NULL, &session, &err);
 *     bnt_tokenize(...); bnt_evaluate(...); bnt_sample(...);      or bnt_generate(...)
 *     bnt_session_close(session);
 *     bnt_model_close(model);
 *
 * The library never prints, exits, reads the environment or installs signal handlers. What can fail
 * returns a status and, when err is not NULL, leaves one line for a person in err->message.
 *
 * Threads: a model is immutable once open and may be shared by any number of threads. A session
 * belongs to one thread at a time; it works with threads of its own. Several sessions may use one
 * model.
 *
 * Texts are UTF-8 and counted in bytes. Tokens are ids, 0 … vocab_size - 1.
 */
#ifndef BNT_H
#define BNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ---- */

#ifndef BNT_STATUS_DEFINED
#define BNT_STATUS_DEFINED
enum bnt_status {
    BNT_OK = 0,
    BNT_ERR_IO = 1, /* a file could not be read */
    BNT_ERR_FORMAT =
        2, /* the file breaks a rule of its format; the message names it as formats/bnt.md does */
    BNT_ERR_UNSUPPORTED = 3,  /* it is well-formed but asks for what this version lacks */
    BNT_ERR_MEMORY = 4,       /* out of memory */
    BNT_ERR_ARGUMENT = 5,     /* an argument is out of its range */
    BNT_ERR_TEXT = 6,         /* the text is not valid UTF-8 */
    BNT_ERR_NO_TOKENIZER = 7, /* the file has no tokenizer: only token ids can be used */
    BNT_ERR_CONTEXT = 8,      /* the context is full */
    BNT_ERR_DEVICE = 9        /* the GPU cannot be used or failed */
};

enum { BNT_ERROR_SIZE = 512 };

struct bnt_error {
    enum bnt_status status;
    char message[BNT_ERROR_SIZE]; /* one line, without a newline */
};
#endif

/* What a status means, in a few words. Static text. */
const char *bnt_status_text(enum bnt_status status);

/* ---- Models ---- */

struct bnt_model;

/*
 * Maps the file and checks all that memory safety depends on; weights are not read. Opening takes
 * about the time of building nothing: the file's bytes are used as they lie, and processes that
 * open the same file share them. kernel: "scalar", "avx2", …, or NULL for the best that this
 * processor has. BNT_ERR_UNSUPPORTED if it has not. The file must not be changed or truncated while
 * the model is open: the system ends a process (SIGBUS) that reads what is gone.
 */
enum bnt_status bnt_model_open(const char *path, const char *kernel, struct bnt_model **model,
                               struct bnt_error *err);

/* Unmaps it. All of its sessions must be closed before. NULL is allowed. */
void bnt_model_close(struct bnt_model *model);

enum { BNT_MAX_EOS_IDS = 8 };

struct bnt_model_info {
    uint64_t file_size; /* bytes */
    uint32_t n_layers;
    uint32_t hidden_size;
    uint32_t ffn_size;
    uint32_t n_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t vocab_size;
    uint32_t max_context; /* tokens the model was made for */
    int32_t bos_id;       /* -1: none */
    uint32_t eos_count;   /* 0 … 8 */
    uint32_t eos_ids[BNT_MAX_EOS_IDS];
    float temperature; /* the checkpoint's advice for sampling; temperature 0: greedy */
    float top_p;
    uint32_t top_k;
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off */
    float presence_penalty;
    float frequency_penalty;
    uint32_t max_new_tokens; /* tokens of an answer; 0: it does not say */
    bool has_tokenizer;
    const char *kernel; /* the name of the kernels in use */
};

/* Valid as long as the model. */
const struct bnt_model_info *bnt_model_info(const struct bnt_model *model);

/* The name of the i-th set of kernels that this processor can run, best first; NULL past the last.
 */
const char *bnt_kernel_name(size_t i);

/* What the library's GPU support was built with, such as "CUDA 12.4"; NULL: it has none. */
const char *bnt_gpu_support(void);

/* ---- Text and tokens ---- */

enum bnt_tokenize_flags {
    BNT_TOKENIZE_SPECIAL = 1, /* put the tokenizer's own tokens (a BOS) around the text; a text that
                                 begins with them itself does not get them twice */
    BNT_TOKENIZE_PLAIN = 2    /* what spells a control token ("<|eot_id|>") stays text */
};

/*
 * Encodes text. *tokens is an array of *count ids that the caller frees with free(); NULL for none.
 * flags: BNT_TOKENIZE_…, or 0. Without BNT_TOKENIZE_PLAIN texts of control tokens in the text
 * become those tokens; give it for text that comes from somebody else. Control tokens are the
 * tokenizer's special ones and those that the chat template writes. BNT_ERR_TEXT names the offset
 * of the first byte that is no UTF-8. A tokenizer whose patterns take too long on a text, or blow
 * it up, ends in BNT_ERR_FORMAT.
 */
enum bnt_status bnt_tokenize(const struct bnt_model *model, const char *text, size_t size,
                             unsigned flags, uint32_t **tokens, size_t *count,
                             struct bnt_error *err);

/*
 * The bytes that a token decodes to; a token may hold a part of a character. *size = 0 for ids
 * without a token. Valid as long as the model. NULL if the model has no tokenizer or token is not
 * below vocab_size.
 */
const char *bnt_token_text(const struct bnt_model *model, uint32_t token, size_t *size);

/*
 * Decodes count tokens into at most capacity bytes and sets *size to what they need. Ill-formed
 * UTF-8 becomes U+FFFD, so the result is always valid. It is not zero-terminated.
 */
enum bnt_status bnt_detokenize(const struct bnt_model *model, const uint32_t *tokens, size_t count,
                               char *text, size_t capacity, size_t *size, struct bnt_error *err);

/*
 * Whether a token steers the model (the end of a turn, say) and is no part of what it writes. False
 * for ids without a token.
 */
bool bnt_token_is_control(const struct bnt_model *model, uint32_t token);

/* ---- Conversations ---- */

/*
 * Writes one turn of a conversation as the model was trained to see it, up to where its answer
 * begins, into at most capacity bytes, and sets *size to what it needs. first: the beginning of the
 * conversation, with a BOS where the tokenizer or the template has one (system may be NULL for the
 * model's own, or "" for none); otherwise what ends the answer before comes first. Encode it with
 * flags = 0. BNT_ERR_UNSUPPORTED if the file has no chat template that is known, or one without a
 * place for a system text and there is one.
 */
enum bnt_status bnt_chat_turn(const struct bnt_model *model, bool first, const char *system,
                              const char *user, size_t user_size, char *text, size_t capacity,
                              size_t *size, struct bnt_error *err);

/*
 * The same turn as tokens. plain: what the system and the user say stays text even where it spells
 * a control token, as it should. before: what comes before the turn's text and is encoded with it
 * (see bnt_chat_answer), before_size bytes; NULL for nothing. *tokens is an array of *count ids
 * that the caller frees with free().
 */
enum bnt_status bnt_chat_tokenize(const struct bnt_model *model, bool first, const char *system,
                                  const char *user, size_t user_size, const char *before,
                                  size_t before_size, bool plain, uint32_t **tokens, size_t *count,
                                  struct bnt_error *err);

/*
 * An answer as the template repeats it when another turn follows: some drop white space around it,
 * or the thinking in it. Returns where that begins in the answer, and *kept its size. Where it is
 * not the whole answer, rewind the session to where the answer began (bnt_session_rewind) and give
 * what is kept as `before` of the next turn.
 */
const char *bnt_chat_answer(const struct bnt_model *model, const char *answer, size_t size,
                            size_t *kept);

/* The tokens that end an answer besides the eos ids: *count of them. Valid as long as the model. */
const uint32_t *bnt_chat_stop_ids(const struct bnt_model *model, size_t *count);

/* ---- Sessions ---- */

struct bnt_session;

/*
 * How keys and values are kept: as 16-bit floats (rounded half to even, limited to +-65504), or as
 * they are. Rounding them changes logits about as much as any other rounding does, since the next
 * matrix quantizes its input to 8 bits.
 */
enum bnt_cache { BNT_CACHE_F16, BNT_CACHE_F32 };

/*
 * Where a session computes. CUDA: the first NVIDIA GPU that is usable (compute capability 8.0 or
 * later; CUDA_VISIBLE_DEVICES chooses among several); the first such session uploads the model's
 * file as it lies, later ones share it. AUTO: CUDA if that works, else CPU. Logits of the two
 * differ in their last digits.
 */
enum bnt_device { BNT_DEVICE_CPU, BNT_DEVICE_CUDA, BNT_DEVICE_AUTO };

/* "cpu", "cuda" or "auto"; false: none of them. */
bool bnt_device_from_name(const char *name, enum bnt_device *device);

/* "f16" or "f32"; false: neither. */
bool bnt_cache_from_name(const char *name, enum bnt_cache *cache);

struct bnt_session_options {
    uint32_t context;     /* tokens to have room for; 0: the model's max_context. More than that is
                             refused */
    uint32_t threads;     /* 1 … 256; 0: one for each processor that this process may use,
                             within the CPU quota of its cgroups */
    enum bnt_cache cache; /* of the CPU; the GPU keeps floats */
    enum bnt_device device;
    bool full_output; /* do not use the int8 copy of the output matrix, if the file has one: the
                         same tokens, more memory traffic */
};

/*
 * A place in a text: the keys and values of the tokens seen so far, and room to work. All memory is
 * allocated here: context * n_layers * 2 * n_kv_heads * head_dim * (2 or 4) bytes for keys and
 * values, used as positions are reached, and room to work: about 0.5 KB for each unit of
 * hidden_size and of twice ffn_size, 16 bytes for each token of the vocabulary, 12 bytes for each
 * position. options may be NULL.
 */
enum bnt_status bnt_session_open(const struct bnt_model *model,
                                 const struct bnt_session_options *options,
                                 struct bnt_session **session, struct bnt_error *err);
void bnt_session_close(struct bnt_session *session);

/* "cpu", or the name of the GPU. Valid as long as the session. */
const char *bnt_session_device(const struct bnt_session *session);

/* Why a session that was opened with AUTO is not on the machine's GPU; "" if it is, or if there is
 * none. Valid as long as the session. */
const char *bnt_session_note(const struct bnt_session *session);

/* Tokens seen so far. */
uint32_t bnt_session_position(const struct bnt_session *session);
/* Room for tokens in all. */
uint32_t bnt_session_context(const struct bnt_session *session);
/* Forgets all tokens from position on. position must not be greater than the present one. */
enum bnt_status bnt_session_rewind(struct bnt_session *session, uint32_t position,
                                   struct bnt_error *err);

enum bnt_logits { BNT_LOGITS_NONE, BNT_LOGITS_LAST, BNT_LOGITS_ALL };

/*
 * Feeds count >= 1 tokens. logits receives float32 (1, vocab_size) for LAST, (count, vocab_size)
 * for ALL, and may be NULL for NONE. BNT_ERR_CONTEXT, with nothing fed, if they do not fit.
 */
enum bnt_status bnt_evaluate(struct bnt_session *session, const uint32_t *tokens, size_t count,
                             enum bnt_logits which, float *logits, struct bnt_error *err);

/* ---- Sampling and generation ---- */

/* All zero: the most likely token. */
struct bnt_sampling {
    float temperature; /* 0: the most likely token; otherwise logits are divided by it */
    uint32_t top_k;    /* keep the k most likely; 0: all */
    float top_p;   /* then keep the fewest most likely whose probabilities reach p; 0 or 1: all */
    uint64_t seed; /* the same seed gives the same text */
    float min_p;   /* then keep those at least min_p times as probable as the likeliest; 0 … 1 */
    /* Of tokens that the session has seen, prompt or not: a negative logit is multiplied by it,
       others are divided. Above 0, up to 100; 0 or 1: off */
    float repetition_penalty;
    /* Of tokens that were generated (see bnt_session_end_prompt), each -2 … 2; 0: off. A logit is
       lowered by frequency_penalty for each time, and by presence_penalty once. */
    float presence_penalty;
    float frequency_penalty;
};

/*
 * BNT_ERR_ARGUMENT if min_p or a penalty is out of its range. bnt_generate does this itself;
 * bnt_sample, which cannot fail, takes such values for what they are.
 */
enum bnt_status bnt_sampling_check(const struct bnt_sampling *sampling, struct bnt_error *err);

/*
 * For callers of bnt_sample: what the session has seen is the prompt, and tokens that it is fed
 * from here on count as generated, until this is called again or the prompt is cut by
 * bnt_session_rewind. Before that all count as prompt. bnt_generate does this itself: there the
 * prompt is all that the session has seen when the first token is chosen.
 */
void bnt_session_end_prompt(struct bnt_session *session);

/*
 * Chooses a token from float32 (vocab_size) logits. *state is the generator's: set it to the seed
 * before the first call. Order: repetition_penalty, frequency_penalty, presence_penalty (these for
 * temperature 0 too), temperature, top_k, softmax, top_p, min_p, choice. Of equal logits the lower
 * id counts as more likely. NaN counts as -infinity.
 */
uint32_t bnt_sample(struct bnt_session *session, const float *logits,
                    const struct bnt_sampling *sampling, uint64_t *state);

enum bnt_stop_reason {
    BNT_STOP_LENGTH,  /* max_tokens were generated */
    BNT_STOP_EOS,     /* the model ended the text */
    BNT_STOP_TEXT,    /* a stop text came up */
    BNT_STOP_CONTEXT, /* the context is full */
    BNT_STOP_CALLBACK /* the callback returned false */
};

struct bnt_generation {
    size_t max_tokens;
    struct bnt_sampling sampling;
    const char *const *stop_texts; /* n_stop_texts zero-terminated, non-empty texts; output ends
                                      before the first that appears */
    size_t n_stop_texts;
    const uint32_t *stop_ids; /* n_stop_ids tokens that end the text as an EOS does */
    size_t n_stop_ids;
    bool ignore_eos;
    bool show_control; /* control tokens have a text too; otherwise it is empty (a stop text that is
                          one's text ends the output all the same) */
    /*
     * Called once for each token generated, in order, with the text that has become certain: whole
     * characters that cannot be the start of a stop text. size may be 0. A last call with token =
     * UINT32_MAX brings what was held back, if any. Return false to stop. text is valid during the
     * call. Models without a tokenizer: size is always 0.
     */
    bool (*callback)(void *context, uint32_t token, const char *text, size_t size);
    void *context;
};

struct bnt_generation_result {
    size_t n_tokens; /* generated; an EOS is not counted */
    enum bnt_stop_reason reason;
};

/* Feeds the prompt (count >= 1 tokens) and generates. No memory is allocated after the prompt. */
enum bnt_status bnt_generate(struct bnt_session *session, const uint32_t *prompt, size_t count,
                             const struct bnt_generation *generation,
                             struct bnt_generation_result *result, struct bnt_error *err);

#ifdef __cplusplus
}
#endif

#endif
