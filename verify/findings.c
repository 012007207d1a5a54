// SPDX-License-Identifier: MIT
#include "verify/findings.h"

#include <stdio.h>
#include <stdlib.h>

static void keep(void *context, const char *rule, const char *message)
{
    struct findings *f = context;
    f->total++;
    if (!f->items)
        f->items = calloc(FINDINGS_MAX, sizeof f->items[0]);
    if (!f->items || f->count == FINDINGS_MAX)
        return;
    struct finding *item = &f->items[f->count++];
    (void)snprintf(item->rule, sizeof item->rule, "%s", rule);
    (void)snprintf(item->message, sizeof item->message, "%s", message);
}

struct bnt_report bnt_findings_report(struct findings *findings)
{
    return (struct bnt_report){.found = keep, .context = findings};
}

void bnt_findings_append(struct findings *a, struct findings *b)
{
    uint64_t lost = b->total - b->count;
    for (size_t i = 0; i < b->count; i++)
        keep(a, b->items[i].rule, b->items[i].message);
    a->total += lost;
    bnt_findings_free(b);
}

void bnt_findings_free(struct findings *findings)
{
    free(findings->items);
    *findings = (struct findings){0};
}
