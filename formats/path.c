// SPDX-License-Identifier: MIT
#include "formats/path.h"

#include <stdbool.h>
#include <string.h>

enum { MAX_PATH_NAME = 1024 };

static bool has_part(const char *name, const char *part)
{
    size_t size = strlen(part);
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/' && p != name;
        if (strncmp(p, part, size) == 0 && (p[size] == '/' || p[size] == '\0'))
            return true;
    }
    return false;
}

const char *bnt_path_hostile(const char *name)
{
    if (name[0] == '/')
        return "it is absolute";
    if (has_part(name, "..") || has_part(name, "."))
        return "it has a part '..' or '.'";
    if (name[0] == '\0' || name[strlen(name) - 1] == '/' || strstr(name, "//"))
        return "it has an empty part";
    return NULL;
}

const char *bnt_path_problem(const char *name)
{
    const char *problem = bnt_path_hostile(name);
    if (problem)
        return problem;
    for (const char *p = name; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return "it has control characters";
        if (*p == '\\')
            return "it has a backslash";
    }
    return strlen(name) > MAX_PATH_NAME ? "it is too long" : NULL;
}
