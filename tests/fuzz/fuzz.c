/*
 * What the fuzzers share: see fuzz.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <ctype.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"

void fuzz_wrong(const char *file, int line, const char *what)
{
    /* stderr may be somebody else's */
    dprintf(STDERR_FILENO, "%s:%d: it does not hold that %s\n", file, line,
            what);
    abort();
}

void *fuzz_alloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);

    if (!p) {
        fuzz_wrong(__FILE__, __LINE__, "there is memory");
    }
    return p;
}

int fuzz_told(int ret, const struct tt_error *err)
{
    if (ret >= 0) {
        return ret;
    }
    FUZZ_CHECK(ret == -err->code);
    FUZZ_CHECK(err->message[0]);
    for (const char *p = err->message; *p; p++) {
        FUZZ_CHECK(!iscntrl((unsigned char)*p));
    }
    return ret;
}

/* ---- bytes that are a journal ------------------------------------------ */

static int image_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    const struct fuzz_image *image = opaque;

    FUZZ_CHECK(offset <= image->size && length <= image->size - offset);
    memcpy(buf, image->bytes + offset, length);
    return 0;
}

struct tt_source fuzz_source(struct fuzz_image *image)
{
    return (struct tt_source){
        .read = image_read,
        .opaque = image,
        .size = image->size,
    };
}

void fuzz_unpack(const uint8_t *data, size_t size, struct fuzz_image *ret)
{
    const size_t one = FUZZ_SUPERS / 2;
    size_t rest = size > FUZZ_SUPERS ? size - FUZZ_SUPERS : 0;

    if (size < FUZZ_SUPERS) {
        /* cut short: what there is */
        ret->size = size;
        ret->bytes = fuzz_alloc(size);
        memcpy(ret->bytes, data, size);
        return;
    }
    ret->size = TT_SEGMENTS_OFFSET + rest;
    ret->bytes = fuzz_alloc(ret->size);
    memcpy(ret->bytes, data, one);
    memcpy(ret->bytes + TT_SUPERBLOCK_COPY, data + one, one);
    memcpy(ret->bytes + TT_SEGMENTS_OFFSET, data + FUZZ_SUPERS, rest);
}

void fuzz_pack(const struct fuzz_image *image, uint8_t **ret, size_t *ret_size)
{
    const size_t one = FUZZ_SUPERS / 2;
    size_t rest = image->size - TT_SEGMENTS_OFFSET;

    *ret_size = FUZZ_SUPERS + rest;
    *ret = fuzz_alloc(*ret_size);
    memcpy(*ret, image->bytes, one);
    memcpy(*ret + one, image->bytes + TT_SUPERBLOCK_COPY, one);
    memcpy(*ret + FUZZ_SUPERS, image->bytes + TT_SEGMENTS_OFFSET, rest);
}
