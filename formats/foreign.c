// SPDX-License-Identifier: MIT
#include "formats/foreign.h"

#include <stddef.h>
#include <string.h>

#include "formats/bytes.h"
#include "formats/layout.h"

static const struct {
    const char *magic, *words;
} known[] = {
    {"version https://git-lfs.github.com/spec/",
     ": it is a Git LFS pointer instead of the file: run git lfs pull in its repository"},
    {"GGUF",
     ": it is a GGUF file, which bnt does not read: take the model's safetensors files, with "
     "config.json and tokenizer.json"},
    {BNT_MAGIC, ": it is a .bnt file, packed already"},
    {"<!DOCTYPE html", ": it is a web page, saved instead of the file"},
    {"<!doctype html", ": it is a web page, saved instead of the file"},
};
enum { ENOUGH = 8, SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000 };

const char *bnt_foreign_file(const void *data, uint64_t size)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t length = strlen(known[i].magic);
        length = size >= ENOUGH && size < length ? (size_t)size : length;
        if (size >= length && memcmp(data, known[i].magic, length) == 0)
            return known[i].words;
    }
    if (size > ENOUGH && bnt_load_u64(data) <= SAFETENSORS_MAX_HEADER &&
        ((const char *)data)[ENOUGH] == '{')
        return ": it is a safetensors file: bnt-convert makes ternary weights of a checkpoint "
               "folder, "
               "bnt-pack packs those";
    return "";
}
