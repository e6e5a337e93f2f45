/*
 * Numbers and bytes, one after the other
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_BYTES_H
#define TTJOURNAL_BYTES_H

#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

/* Grows as it is written; failed once memory ran out. */
struct bytes {
    uint8_t *p;
    size_t count, room;
    bool failed;
};

static inline void bytes_put(struct bytes *b, const void *from, size_t n)
{
    while (!b->failed && b->room - b->count < n) {
        size_t room = b->room ? b->room * 2 : 4096;
        void *p = room > b->room ? realloc(b->p, room) : NULL;

        b->failed = !p;
        if (p) {
            b->p = p;
            b->room = room;
        }
    }
    if (!b->failed && n) {
        memcpy(b->p + b->count, from, n);
        b->count += n;
    }
}

static inline void bytes_put64(struct bytes *b, uint64_t v)
{
    tt_le64 le = tt_put64(v);

    bytes_put(b, &le, sizeof(le));
}

/* Bad once more was asked for than there is. */
struct byte_reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static inline const uint8_t *bytes_get(struct byte_reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->bad || r->left < n) {
        r->bad = true;
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static inline uint64_t bytes_get64(struct byte_reader *r)
{
    const uint8_t *p = bytes_get(r, sizeof(tt_le64));
    tt_le64 v = { { 0 } };

    if (p) {
        memcpy(&v, p, sizeof(v));
    }
    return tt_get64(v);
}

#endif
