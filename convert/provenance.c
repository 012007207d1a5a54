// SPDX-License-Identifier: MIT
#include "convert/provenance.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/digest.h"

#define UNKNOWN_SHA256 "0000000000000000000000000000000000000000000000000000000000000000"

// The value of "license:" in the front matter of a model card, or JSON null.
static json_t *find_license(const char *card)
{
    if (!card || strncmp(card, "---\n", 4) != 0)
        return json_null();
    const char *end = strstr(card + 4, "\n---");
    for (const char *line = card + 4; end && line < end; line = strchr(line, '\n') + 1) {
        if (strncmp(line, "license:", 8) != 0)
            continue;
        const char *value = line + 8 + strspn(line + 8, " \"'");
        json_t *text = json_stringn(value, strcspn(value, " \"'\r\n#"));
        return text ? text : json_null();
    }
    return json_null();
}

static bool is_commit(const char *text)
{
    return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40;
}

// A folder of the Hub's cache tells both: …/models--ORG--NAME/snapshots/COMMIT.
static void find_repository(const char *dir, json_t *json)
{
    char path[PATH_MAX];
    char *commit = realpath(dir, path) ? strrchr(path, '/') : NULL;
    if (!commit || !is_commit(commit + 1))
        return;
    *commit++ = '\0';
    char *snapshots = strrchr(path, '/');
    if (!snapshots || strcmp(snapshots, "/snapshots") != 0)
        return;
    *snapshots = '\0';
    const char *models = strrchr(path, '/');
    if (!models || strncmp(models, "/models--", 9) != 0)
        return;
    const char *owner = models + 9;
    const char *separator = strstr(owner, "--");
    if (separator)
        (void)json_object_set_new(
            json, "repository",
            json_sprintf("%.*s/%s", (int)(separator - owner), owner, separator + 2));
    else
        (void)json_object_set_new(json, "repository", json_string(owner));
    (void)json_object_set_new(json, "commit", json_string(commit));
}

static int add_source(json_t *sources, const char *file, uint64_t size)
{
    return json_array_append_new(sources, json_pack("{s:s, s:I, s:s}", "file", file, "size",
                                                    (json_int_t)size, "sha256", UNKNOWN_SHA256));
}

static int add_sources(json_t *sources, const struct bnt_checkpoint *c)
{
    int failed = 0;
    for (size_t i = 0; i < BNT_SMALL_FILES; i++) {
        if (c->small[i].text)
            failed |= add_source(sources, c->small[i].name, c->small[i].size);
    }
    for (size_t i = 0; i < c->n_shards; i++)
        failed |= add_source(sources, c->shards[i].name, c->shards[i].map.size);
    return failed;
}

static int set_digest(json_t *source, const void *data, uint64_t size)
{
    uint8_t digest[BNT_SHA256_SIZE];
    char text[BNT_SHA256_TEXT];
    if (!bnt_sha256(data, size, digest))
        return -1;
    bnt_sha256_text(digest, text);
    return json_object_set_new(source, "sha256", json_string(text));
}

// In the order of add_sources.
static void *compute_digests(void *argument)
{
    struct provenance *p = argument;
    const struct bnt_checkpoint *c = p->checkpoint;
    json_t *sources = json_object_get(p->json, "sources");
    size_t n = 0;
    int failed = 0;
    for (size_t i = 0; i < BNT_SMALL_FILES; i++) {
        if (c->small[i].text)
            failed |= set_digest(json_array_get(sources, n++), c->small[i].text, c->small[i].size);
    }
    for (size_t i = 0; i < c->n_shards; i++)
        failed |=
            set_digest(json_array_get(sources, n++), c->shards[i].map.data, c->shards[i].map.size);
    p->failed = failed != 0;
    return NULL;
}

// A few runs of rows, each with one scale, rather than a scale for each row.
static bool is_sharded(const struct bnt_checkpoint *c)
{
    for (size_t i = 0; i < c->n_sources; i++) {
        const struct bnt_source *s = &c->sources[i];
        if (s->place.dtype == BNT_TERNARY && s->shards > (s->place.rows + 3) / 4)
            return false;
    }
    return true;
}

static const char *rounding(const struct bnt_checkpoint *c)
{
    if (c->config.form == BNT_FORM_LEVELS && c->levels.forced)
        return c->levels.nearest ? "nearest_level, half_even" : "levels, half_even";
    if (c->config.form == BNT_FORM_LEVELS)
        return c->levels.nearest ? "nearest_level" : "levels";
    return c->config.form == BNT_FORM_MASTERS ? "half_even" : "stored";
}

static void describe_form(const struct bnt_checkpoint *c, char *out, size_t size)
{
    const char *type = "";
    for (size_t i = 0; i < c->n_sources; i++) {
        if (c->sources[i].place.dtype == BNT_TERNARY)
            type = c->sources[i].tensor->type_name;
    }
    if (c->config.form != BNT_FORM_LEVELS)
        (void)snprintf(out, size, "%s, %s", bnt_form_name(c->config.form), type);
    else if (c->levels.groups == BNT_LEVELS_ROW && c->levels.shards > 0 && is_sharded(c))
        (void)snprintf(out, size, "%s by shard of rows (up to %u), %s",
                       bnt_form_name(c->config.form), c->levels.shards, type);
    else
        (void)snprintf(out, size, "%s by %s, %s", bnt_form_name(c->config.form),
                       bnt_levels_name(c->levels.groups), type);
}

enum bnt_status bnt_provenance_start(struct provenance *p, const struct bnt_checkpoint *c,
                                     struct bnt_error *err)
{
    char form[80];
    describe_form(c, form, sizeof form);
    *p = (struct provenance){.checkpoint = c};
    p->json = json_pack("{s:s, s:s, s:s, s:s, s:n, s:n, s:o, s:[]}", "converter",
                        "bnt-convert " BNT_VERSION, "architecture", c->config.arch->name, "form",
                        form, "rounding", rounding(c), "repository", "commit", "license",
                        find_license(c->small[BNT_FILE_README].text), "sources");
    if (!p->json || add_sources(json_object_get(p->json, "sources"), c) != 0)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (c->levels.nearest)
        (void)json_object_update_new(p->json,
                                     json_pack("{s:I, s:f}", "off", (json_int_t)c->levels.off,
                                               "worst", (double)c->levels.worst));
    find_repository(c->dir, p->json);
    p->size = json_dumpb(p->json, NULL, 0, JSON_COMPACT);
    p->running = pthread_create(&p->thread, NULL, compute_digests, p) == 0;
    return BNT_OK;
}

enum bnt_status bnt_provenance_finish(struct provenance *p, char **text, struct bnt_error *err)
{
    if (p->running)
        (void)pthread_join(p->thread, NULL);
    else
        (void)compute_digests(p);
    p->running = false;
    if (p->failed)
        return bnt_fail(err, BNT_ERR_MEMORY, "libcrypto cannot compute SHA-256");
    *text = json_dumps(p->json, JSON_COMPACT);
    return *text ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
}

void bnt_provenance_close(struct provenance *p)
{
    if (p->running)
        (void)pthread_join(p->thread, NULL);
    p->running = false;
    json_decref(p->json);
    p->json = NULL;
}
