// SPDX-License-Identifier: MIT
#include "convert/fetch_ui.h"

#include <stdio.h>

void bnt_fetch_ui_init(struct bnt_fetch_ui *ui, bool quiet)
{
    *ui = (struct bnt_fetch_ui){.quiet = quiet};
    (void)pthread_mutex_init(&ui->lock, NULL);
    atomic_flag_clear(&ui->said_waiting);
    atomic_flag_clear(&ui->said_limited);
    atomic_flag_clear(&ui->said_again);
    atomic_flag_clear(&ui->said_unhashed);
}

void bnt_fetch_ui_start(struct bnt_fetch_ui *ui, uint64_t bytes, bool no_bar)
{
    bnt_progress_start(&ui->bar, "fetching", bytes, NULL, ui->quiet || no_bar);
}

void bnt_fetch_ui_add(struct bnt_fetch_ui *ui, uint64_t bytes)
{
    (void)pthread_mutex_lock(&ui->lock);
    bnt_progress_add(&ui->bar, bytes);
    (void)pthread_mutex_unlock(&ui->lock);
}

void bnt_fetch_ui_lost(struct bnt_fetch_ui *ui, uint64_t bytes)
{
    // The total grows instead of the count shrinking: the rate stays what the line carries.
    (void)pthread_mutex_lock(&ui->lock);
    ui->bar.total += bytes;
    (void)pthread_mutex_unlock(&ui->lock);
}

void bnt_fetch_ui_once(struct bnt_fetch_ui *ui, atomic_flag *said, const char *text,
                       const char *detail)
{
    if (ui->quiet || atomic_flag_test_and_set(said))
        return;
    (void)pthread_mutex_lock(&ui->lock);
    if (ui->bar.active && ui->bar.drawn > 0)
        (void)fputs("\r\033[K", stderr);
    bnt_cli_note("%s%s", text, detail);
    (void)pthread_mutex_unlock(&ui->lock);
}

void bnt_fetch_ui_end(struct bnt_fetch_ui *ui)
{
    bnt_progress_end(&ui->bar);
    (void)pthread_mutex_destroy(&ui->lock);
}
