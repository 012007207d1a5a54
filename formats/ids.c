// SPDX-License-Identifier: MIT
#include "formats/ids.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

// One id and the comma behind it, if any. Returns the rest, or NULL.
static const char *parse_id(const char *p, uint32_t *id)
{
    char *end;
    p = skip_blanks(p);
    if (*p < '0' || *p > '9')
        return NULL;
    errno = 0;
    unsigned long long value = strtoull(p, &end, 10);
    if (errno != 0 || value > UINT32_MAX)
        return NULL;
    *id = (uint32_t)value;
    p = skip_blanks(end);
    if (*p == ',')
        return *skip_blanks(p + 1) ? p + 1 : NULL; // an id must follow a comma
    return *p ? NULL : p;
}

enum bnt_status bnt_ids_parse(const char *text, uint32_t **ids, size_t *count,
                              struct bnt_error *err)
{
    *count = 0;
    *ids =
        malloc((strlen(text) / 2 + 1) * sizeof **ids); // each id takes a digit and a comma at least
    if (!*ids)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    for (const char *p = skip_blanks(text); *p;) {
        p = parse_id(p, &(*ids)[*count]);
        if (!p) {
            free(*ids);
            *ids = NULL;
            return bnt_fail(err, BNT_ERR_ARGUMENT,
                            "token ids must be numbers separated by commas, not '%.60s'", text);
        }
        *count += 1;
    }
    return BNT_OK;
}
