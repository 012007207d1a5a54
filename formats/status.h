// SPDX-License-Identifier: MIT
// Status codes and the error record that every function which can fail fills in.
#ifndef BNT_FORMATS_STATUS_H
#define BNT_FORMATS_STATUS_H

// The one list. runtime/bnt.h spells it out for readers of the public header;
// runtime/engine/status.c asserts that both agree.
#define BNT_STATUS_LIST(X)                                                                         \
    X(BNT_OK, 0, "success")                                                                        \
    X(BNT_ERR_IO, 1, "a file or stream could not be read or written")                              \
    X(BNT_ERR_FORMAT, 2, "the input breaks a rule of its format")                                  \
    X(BNT_ERR_UNSUPPORTED, 3, "the input is well-formed but asks for what this version lacks")     \
    X(BNT_ERR_MEMORY, 4, "out of memory")                                                          \
    X(BNT_ERR_ARGUMENT, 5, "an argument is out of its range")                                      \
    X(BNT_ERR_TEXT, 6, "the text is not valid UTF-8")                                              \
    X(BNT_ERR_NO_TOKENIZER, 7, "the model file has no tokenizer")                                  \
    X(BNT_ERR_CONTEXT, 8, "the context is full")                                                   \
    X(BNT_ERR_DEVICE, 9, "the GPU cannot be used or failed")

#ifndef BNT_STATUS_DEFINED
#define BNT_STATUS_DEFINED
enum bnt_status {
#define BNT_STATUS_ENUM(name, value, text) name = value,
    BNT_STATUS_LIST(BNT_STATUS_ENUM)
#undef BNT_STATUS_ENUM
};

enum { BNT_ERROR_SIZE = 512 };

// One line for a person: what, where (file, byte offset, tensor), which rule, what to do. Without a
// newline.
struct bnt_error {
    enum bnt_status status;
    char message[BNT_ERROR_SIZE];
};
#endif

// Fills err (which may be NULL) and returns status, so that callers can `return bnt_fail(...)`.
// Control characters in the message are replaced by '?': names come from untrusted files and end on
// a terminal.
__attribute__((format(printf, 3, 4))) enum bnt_status
bnt_fail(struct bnt_error *err, enum bnt_status status, const char *format, ...);

// Replaces what could steer a terminal (C0 and C1 control characters, DEL) by '?', in place. For
// texts from untrusted files.
void bnt_make_printable(char *text);

// Puts "prefix: " before err's message.
void bnt_fail_prefix(struct bnt_error *err, const char *prefix);

#endif
