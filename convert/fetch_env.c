// SPDX-License-Identifier: MIT
#include "convert/fetch_env.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "convert/fetch_url.h"
#include "formats/cli.h"
#include "formats/file.h"

enum { MAX_TOKEN_FILE = 64 << 10 };

// A variable that is set and not empty, or NULL.
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *name)
{
    const char *value = variable(name);
    return value && (strcmp(value, "1") == 0 || strcasecmp(value, "ON") == 0 ||
                     strcasecmp(value, "YES") == 0 || strcasecmp(value, "TRUE") == 0);
}

// A path variable, "~" standing for the home folder as in the Python tools.
static char *path_variable(const char *name)
{
    const char *value = variable(name);
    const char *home = variable("HOME");
    if (!value)
        return NULL;
    if (value[0] == '~' && home && (value[1] == '/' || value[1] == '\0'))
        return bnt_fetch_format("%s%s", home, value + 1);
    return bnt_fetch_format("%s", value);
}

// HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface. NULL: there is no home.
static char *hub_home(void)
{
    char *home = path_variable("HF_HOME");
    if (home)
        return home;
    char *cache = path_variable("XDG_CACHE_HOME");
    if (cache) {
        home = bnt_path_join(cache, "huggingface");
        free(cache);
        return home;
    }
    return variable("HOME") ? bnt_path_join(variable("HOME"), ".cache/huggingface") : NULL;
}

static enum bnt_status read_seconds(const char *name, double fallback, double *out,
                                    struct bnt_error *err)
{
    const char *value = variable(name);
    *out = fallback;
    if (value && !bnt_cli_double(value, 0.001, 86400, out))
        return bnt_fail(err, BNT_ERR_ARGUMENT, "%s must be a number of seconds, not '%.60s'", name,
                        value);
    return BNT_OK;
}

// Without the white space around it; what is left must be fit for a header.
static enum bnt_status clean_token(const char *text, const char *from, char **out,
                                   struct bnt_error *err)
{
    text += strspn(text, " \t\r\n");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r\n", text[length - 1]))
        length--;
    for (size_t i = 0; i < length; i++) {
        if (text[i] <= ' ' || text[i] > '~')
            return bnt_fail(err, BNT_ERR_ARGUMENT, "%s: not a token: it has unprintable characters",
                            from);
    }
    *out = length ? bnt_fetch_format("%.*s", (int)length, text) : NULL;
    return length && !*out ? bnt_fail(err, BNT_ERR_MEMORY, "out of memory") : BNT_OK;
}

// HF_TOKEN, else the file HF_TOKEN_PATH, else $HF_HOME/token. No token is no error.
static enum bnt_status read_token(struct bnt_fetch_env *env, const char *home,
                                  struct bnt_error *err)
{
    const char *value = variable("HF_TOKEN");
    if (value)
        return clean_token(value, "HF_TOKEN", &env->token, err);
    char *path = path_variable("HF_TOKEN_PATH");
    if (!path && home)
        path = bnt_path_join(home, "token");
    if (!path)
        return BNT_OK;
    char *text;
    size_t size;
    bool missing;
    enum bnt_status status = bnt_read_file(path, MAX_TOKEN_FILE, &text, &size, &missing, err);
    if (status == BNT_OK)
        status = clean_token(text, path, &env->token, err);
    else if (missing)
        status = BNT_OK;
    free(text);
    free(path);
    return status;
}

static enum bnt_status read_endpoint(struct bnt_fetch_env *env, struct bnt_error *err)
{
    const char *value = variable("HF_ENDPOINT");
    env->endpoint = bnt_fetch_format("%s", value ? value : "https://huggingface.co");
    if (!env->endpoint)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    size_t length = strlen(env->endpoint);
    while (length > 0 && env->endpoint[length - 1] == '/')
        env->endpoint[--length] = '\0';
    return BNT_OK;
}

static enum bnt_status read_folders(struct bnt_fetch_env *env, struct bnt_error *err)
{
    char *home = hub_home();
    env->cache = path_variable("HF_HUB_CACHE");
    if (!env->cache && home)
        env->cache = bnt_path_join(home, "hub");
    enum bnt_status status =
        env->cache ? read_token(env, home, err)
                   : bnt_fail(err, BNT_ERR_IO, "no place for the cache: set HOME or HF_HOME");
    free(home);
    return status;
}

enum bnt_status bnt_fetch_env_read(struct bnt_fetch_env *env, struct bnt_error *err)
{
    *env = (struct bnt_fetch_env){.offline = is_true("HF_HUB_OFFLINE"),
                                  .no_bar = is_true("HF_HUB_DISABLE_PROGRESS_BARS"),
                                  .ca_file = variable("SSL_CERT_FILE")};
    enum bnt_status status = read_endpoint(env, err);
    if (status == BNT_OK)
        status = read_folders(env, err);
    if (status == BNT_OK)
        status = read_seconds("HF_HUB_ETAG_TIMEOUT", 10, &env->etag_timeout, err);
    if (status == BNT_OK)
        status = read_seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10, &env->download_timeout, err);
    // For the tests: all waiting between tries is multiplied by it.
    if (status == BNT_OK)
        status = read_seconds("BNT_FETCH_RETRY_SCALE", 1, &env->retry_scale, err);
    return status;
}

void bnt_fetch_env_free(struct bnt_fetch_env *env)
{
    free(env->endpoint);
    free(env->cache);
    free(env->token);
}
