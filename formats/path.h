// SPDX-License-Identifier: MIT
// Paths that strangers name.
#ifndef BNT_FORMATS_PATH_H
#define BNT_FORMATS_PATH_H

// What no git tree can hold: a server that lists it means harm. Why, or NULL.
const char *bnt_path_hostile(const char *name);

// Why a name cannot become a path below a folder of ours; NULL if it can.
const char *bnt_path_problem(const char *name);

#endif
