/* What is sent: request messages from a file, in turn and over again, each with the five bytes that gRPC puts before it.
 *
 * The file has them one after the other, each behind its length as four bytes, the highest first. `digits` last bytes of each
 * message, if any, are overwritten with a number of its own when it leaves: ids that are never sent twice. */
#pragma once

#include "link.h"

typedef struct {
    const uint8_t *at;
    size_t size;
} message_t;

typedef struct {
    message_t *all;
    size_t count, next, digits;
    uint64_t number;
} messages_t;

static inline void messages_read(messages_t *self, const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t prefix[4];
    size_t room = 0;
    if (!file)
        die(path);
    while (fread(prefix, 1, 4, file) == 4) {
        uint32_t size = (uint32_t)prefix[0] << 24 | prefix[1] << 16 | prefix[2] << 8 | prefix[3];
        uint8_t *at = malloc(5 + (size_t)size);
        if (self->count == room && !(self->all = realloc(self->all, (room = 2 * room + 64) * sizeof *self->all)))
            die("memory");
        if (!at)
            die("memory");
        at[0] = 0;
        memcpy(at + 1, prefix, 4);
        if (fread(at + 5, 1, size, file) != size || size < self->digits)
            die("a message ends early");
        self->all[self->count++] = (message_t){at, 5 + (size_t)size};
    }
    fclose(file);
    if (!self->count)
        die("no messages");
}

static inline const message_t *messages_next(messages_t *self)
{
    if (self->next == self->count)
        self->next = 0;
    return &self->all[self->next++];
}

/* Write the next number over the digits before `end`. */
static inline void messages_number(messages_t *self, uint8_t *end)
{
    uint64_t left = self->number++;
    for (size_t i = 0; i < self->digits; i++, left /= 10)
        *--end = (uint8_t)('0' + left % 10);
}
