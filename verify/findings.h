// SPDX-License-Identifier: MIT
// Broken rules, kept until they are printed: several threads look at a file, but its report has one
// order.
#ifndef BNT_VERIFY_FINDINGS_H
#define BNT_VERIFY_FINDINGS_H

#include "formats/status.h"
#include "formats/view.h"

enum { FINDINGS_MAX = 64 }; // kept of each list; the rest is counted

struct finding {
    char rule[8];
    char message[BNT_ERROR_SIZE];
};

struct findings {
    struct finding *items;
    size_t count; // kept
    uint64_t total;
};

// A report that adds to the list.
struct bnt_report bnt_findings_report(struct findings *findings);
// Adds b's to a's and frees b.
void bnt_findings_append(struct findings *a, struct findings *b);
void bnt_findings_free(struct findings *findings);

#endif
