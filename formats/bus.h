// SPDX-License-Identifier: MIT
// A mapped file that is truncated, or whose disk fails, ends its reader with SIGBUS. The tools make
// an error of it.
#ifndef BNT_FORMATS_BUS_H
#define BNT_FORMATS_BUS_H

// From now on SIGBUS says which file it was, in one line, removes the unfinished output and exits
// with 1. program: for the message, kept.
void bnt_bus_errors_handle(const char *program);

#endif
