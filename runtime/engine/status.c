// SPDX-License-Identifier: MIT
#include "runtime/bnt.h"

#include "formats/status.h"

// bnt.h spells the codes out for its readers; they must be those of the one list.
#define SAME(name, value, text)                                                                    \
    _Static_assert((name) == (value), "bnt.h and formats/status.h agree on " #name);
BNT_STATUS_LIST(SAME)
#undef SAME

const char *bnt_status_text(enum bnt_status status)
{
    switch (status) {
#define TEXT(name, value, text)                                                                    \
    case name:                                                                                     \
        return text;
        BNT_STATUS_LIST(TEXT)
#undef TEXT
    }
    return "unknown status";
}
