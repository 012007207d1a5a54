// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // open_memstream, strndup
#include "convert/fetch_env.h"

#include <float.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

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

// --- folders ---

// The home folder of a user; name NULL: of this one. NULL: there is none.
static const char *home_of(const char *name)
{
    if (!name && variable("HOME"))
        return variable("HOME");
    const struct passwd *entry = name ? getpwnam(name) : getpwuid(getuid());
    return entry ? entry->pw_dir : NULL;
}

// Python's os.path.expanduser: "~" and "~name" at the start.
static char *expand_user(const char *path)
{
    if (path[0] != '~')
        return bnt_fetch_format("%s", path);
    size_t length = strcspn(path, "/");
    char *name = length > 1 ? strndup(path + 1, length - 1) : NULL;
    const char *home = length > 1 && !name ? NULL : home_of(name);
    free(name);
    if (!home)
        return bnt_fetch_format("%s", path);
    int kept = (int)strlen(home);
    while (kept > 0 && home[kept - 1] == '/')
        kept--;
    char *full = bnt_fetch_format("%.*s%s", kept, home, path + length);
    if (full && !*full) { // the root's "~"
        free(full);
        full = bnt_fetch_format("/");
    }
    return full;
}

// The variable that "$NAME" or "${NAME}" at text names: its value, or NULL; *length: of the text.
static const char *variable_at(const char *text, size_t *length)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    bool braces = text[1] == '{';
    const char *start = text + 1 + braces;
    size_t size = braces ? strcspn(start, "}") : strspn(start, word);
    *length = 1;
    if (size == 0 || (braces && start[size] != '}'))
        return NULL;
    char *name = strndup(start, size);
    const char *value = name ? getenv(name) : NULL;
    free(name);
    *length = size + (braces ? 3 : 1);
    return value;
}

// Python's os.path.expandvars: what is not set stays as it is.
static char *expand_variables(const char *text)
{
    char *expanded = NULL;
    size_t size;
    FILE *out = open_memstream(&expanded, &size);
    if (!out)
        return NULL;
    for (size_t length; *text; text += length) {
        const char *value = NULL;
        length = strcspn(text, "$");
        if (length == 0)
            value = variable_at(text, &length);
        if (value)
            (void)fputs(value, out);
        else
            (void)fwrite(text, 1, length, out);
    }
    if (fclose(out) == 0)
        return expanded;
    free(expanded);
    return NULL;
}

static char *expand(const char *path)
{
    char *full = expand_user(path);
    char *expanded = full ? expand_variables(full) : NULL;
    free(full);
    return expanded;
}

// A path variable as the Python tools read it; NULL: it is not set, or there is no memory.
static char *path_variable(const char *name)
{
    const char *value = variable(name);
    return value ? expand(value) : NULL;
}

// HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface. NULL: there is no home.
static char *hub_home(void)
{
    if (variable("HF_HOME"))
        return path_variable("HF_HOME");
    char *cache = variable("XDG_CACHE_HOME") ? path_variable("XDG_CACHE_HOME")
                  : home_of(NULL)            ? expand("~/.cache")
                                             : NULL;
    char *home = cache ? bnt_path_join(cache, "huggingface") : NULL;
    free(cache);
    return home;
}

// --- numbers ---

enum { MOST_SECONDS = 86400 }; // as good as no limit, and no timer overflows

static enum bnt_status bad_seconds(const char *name, const char *value, struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_ARGUMENT, "%s must be a number of seconds, not '%.60s'", name,
                    value);
}

// A timeout as the Python tools read it: white space around it is ignored, and 0 means the usual.
static enum bnt_status read_timeout(const char *name, double fallback, double *out,
                                    struct bnt_error *err)
{
    const char *value = variable(name);
    *out = fallback;
    if (!value)
        return BNT_OK;
    const char *start = value + strspn(value, " \t\r\n");
    char *text = strndup(start, strcspn(start, " \t\r\n"));
    if (!text)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bool alone = start[strlen(text) + strspn(start + strlen(text), " \t\r\n")] == '\0';
    double seconds = 0;
    bool good = alone && bnt_cli_double(text, 0, DBL_MAX, &seconds);
    free(text);
    if (!good)
        return bad_seconds(name, value, err);
    if (seconds > 0)
        *out = seconds < 0.001 ? 0.001 : seconds < MOST_SECONDS ? seconds : MOST_SECONDS;
    return BNT_OK;
}

// For the tests: all waiting between tries is multiplied by it.
static enum bnt_status read_retry_scale(double *out, struct bnt_error *err)
{
    const char *value = variable("BNT_FETCH_RETRY_SCALE");
    *out = 1;
    return !value || bnt_cli_double(value, 0.001, 1000, out)
               ? BNT_OK
               : bad_seconds("BNT_FETCH_RETRY_SCALE", value, err);
}

// --- the token ---

// Without line ends, and white space around it, as the Python tools clean it; what is left must be
// fit for a header. Nothing is left: *out is NULL.
static enum bnt_status clean_token(const char *text, const char *from, char **out,
                                   struct bnt_error *err)
{
    char *token = malloc(strlen(text) + 1);
    size_t length = 0;
    if (!token)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    for (const char *p = text + strspn(text, " \t\r\n"); *p; p++) {
        if (*p != '\r' && *p != '\n')
            token[length++] = *p;
    }
    while (length > 0 && (token[length - 1] == ' ' || token[length - 1] == '\t'))
        length--;
    token[length] = '\0';
    for (size_t i = 0; i < length; i++) {
        if (token[i] <= ' ' || token[i] > '~') {
            free(token);
            return bnt_fail(err, BNT_ERR_ARGUMENT, "%s: not a token: it has unprintable characters",
                            from);
        }
    }
    if (length > 0)
        *out = token;
    else
        free(token);
    return BNT_OK;
}

static enum bnt_status read_token_file(struct bnt_fetch_env *env, const char *home,
                                       struct bnt_error *err)
{
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

// HF_TOKEN, else its former name, else the file HF_TOKEN_PATH, else $HF_HOME/token. No token is no
// error.
static enum bnt_status read_token(struct bnt_fetch_env *env, const char *home,
                                  struct bnt_error *err)
{
    const char *name = variable("HF_TOKEN") ? "HF_TOKEN" : "HUGGING_FACE_HUB_TOKEN";
    enum bnt_status status = BNT_OK;
    if (is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        return BNT_OK;
    if (variable(name))
        status = clean_token(variable(name), name, &env->token, err);
    return status == BNT_OK && !env->token ? read_token_file(env, home, err) : status;
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
    env->cache = path_variable(variable("HF_HUB_CACHE") ? "HF_HUB_CACHE" : "HUGGINGFACE_HUB_CACHE");
    if (!env->cache && home)
        env->cache = bnt_path_join(home, "hub");
    enum bnt_status status =
        env->cache ? read_token(env, home, err)
                   : bnt_fail(err, BNT_ERR_IO, "no place for the cache: set HOME or HF_HOME");
    free(home);
    return status;
}

// The variables as libcurl looks for them. HTTP_PROXY is not among them: a CGI script's caller sets
// it.
static enum bnt_status read_proxy(const char *const names[4], struct bnt_fetch_proxy *proxy,
                                  struct bnt_error *err)
{
    for (int i = 0; i < 4 && !proxy->variable; i++) {
        if (names[i] && variable(names[i]))
            proxy->variable = names[i];
    }
    if (!proxy->variable)
        return BNT_OK;
    const char *address = variable(proxy->variable);
    const char *scheme = strstr(address, "://");
    address = scheme ? scheme + 3 : address;
    const char *user = strrchr(address, '@');
    address = user ? user + 1 : address;
    proxy->address = bnt_fetch_format("%.*s", (int)strcspn(address, "/"), address);
    return proxy->address ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
}

static enum bnt_status read_proxies(struct bnt_fetch_env *env, struct bnt_error *err)
{
    static const char *const http[4] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL};
    static const char *const https[4] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    enum bnt_status status = read_proxy(http, &env->proxy_http, err);
    return status == BNT_OK ? read_proxy(https, &env->proxy_https, err) : status;
}

enum bnt_status bnt_fetch_env_read(struct bnt_fetch_env *env, struct bnt_error *err)
{
    const char *offline = variable("HF_HUB_OFFLINE") ? "HF_HUB_OFFLINE" : "TRANSFORMERS_OFFLINE";
    *env = (struct bnt_fetch_env){.offline = is_true(offline) ? offline : NULL,
                                  .no_bar = is_true("HF_HUB_DISABLE_PROGRESS_BARS"),
                                  .no_links = is_true("HF_HUB_DISABLE_SYMLINKS"),
                                  .ca_file = variable("SSL_CERT_FILE")};
    enum bnt_status status = read_endpoint(env, err);
    if (status == BNT_OK)
        status = read_folders(env, err);
    if (status == BNT_OK)
        status = read_timeout("HF_HUB_ETAG_TIMEOUT", 10, &env->etag_timeout, err);
    if (status == BNT_OK)
        status = read_timeout("HF_HUB_DOWNLOAD_TIMEOUT", 10, &env->download_timeout, err);
    if (status == BNT_OK)
        status = read_retry_scale(&env->retry_scale, err);
    if (status == BNT_OK)
        status = read_proxies(env, err);
    return status;
}

void bnt_fetch_env_free(struct bnt_fetch_env *env)
{
    free(env->endpoint);
    free(env->cache);
    free(env->token);
    free(env->proxy_http.address);
    free(env->proxy_https.address);
}
