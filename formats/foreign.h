// SPDX-License-Identifier: MIT
// What a file is that is not what was expected: the mistakes that people make have names.
#ifndef BNT_FORMATS_FOREIGN_H
#define BNT_FORMATS_FOREIGN_H

#include <stdint.h>

// What begins with these bytes (8 are enough) and what to do, as the end of a message: ": it is …".
// "" if they are nothing that is known.
const char *bnt_foreign_file(const void *data, uint64_t size);

#endif
