// SPDX-License-Identifier: MIT
// What the threads of bnt-fetch tell the user: one bar for all files, and notes that do not tear
// it.
#ifndef BNT_CONVERT_FETCH_UI_H
#define BNT_CONVERT_FETCH_UI_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/cli.h"

struct bnt_fetch_ui {
    pthread_mutex_t lock;
    struct bnt_progress bar;
    bool quiet;
    atomic_flag said_waiting; // for another process
    atomic_flag said_limited; // the Hub asks to wait
    atomic_flag said_again;   // after failures
    atomic_flag said_unhashed;
};

void bnt_fetch_ui_init(struct bnt_fetch_ui *ui, bool quiet);
// bytes: all that is still to come.
void bnt_fetch_ui_start(struct bnt_fetch_ui *ui, uint64_t bytes, bool no_bar);
void bnt_fetch_ui_add(struct bnt_fetch_ui *ui, uint64_t bytes);
// Bytes that were counted and have to come again.
void bnt_fetch_ui_lost(struct bnt_fetch_ui *ui, uint64_t bytes);
// Says text unless quiet, once for each flag.
void bnt_fetch_ui_once(struct bnt_fetch_ui *ui, atomic_flag *said, const char *text,
                       const char *detail);
void bnt_fetch_ui_end(struct bnt_fetch_ui *ui);

#endif
