// SPDX-License-Identifier: MIT
// One file: received into its unfinished file, resumed where that ends, tried again where the
// network fails, and verified. Nothing gets a name here.
#ifndef BNT_CONVERT_FETCH_FILE_H
#define BNT_CONVERT_FETCH_FILE_H

#include "convert/fetch_hub.h"

// Brings the file at partial (made if missing; the caller holds its lock) to the bytes that
// file->size and file->oid name, and onto the disk. After a failure it stays for the next run,
// unless its bytes are wrong.
enum bnt_status bnt_fetch_receive(const struct bnt_fetch_hub *hub,
                                  const struct bnt_fetch_file *file, const char *partial,
                                  struct bnt_error *err);

#endif
