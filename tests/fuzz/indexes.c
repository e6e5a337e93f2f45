/*
 * An index as an input: see indexes.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "indexes.h"

static size_t take_length(uint8_t **p, size_t *left)
{
    size_t length;
    tt_le32 v;

    if (*left < sizeof(v)) {
        *left = 0;
        return 0;
    }
    memcpy(&v, *p, sizeof(v));
    *p += sizeof(v);
    *left -= sizeof(v);
    length = tt_get32(v);
    return length < *left ? length : *left;
}

void fuzz_index_parse(uint8_t *data, size_t size, struct fuzz_index *ret)
{
    uint8_t *p = data;
    size_t left = size;

    memset(ret, 0, sizeof(*ret));
    ret->catalog_length = take_length(&p, &left);
    ret->catalog = p;
    p += ret->catalog_length;
    left -= ret->catalog_length;
    while (left >= 16 + sizeof(tt_le32) && ret->run_count < FUZZ_RUNS) {
        struct fuzz_run *run = &ret->runs[ret->run_count++];

        run->id = p;
        p += 16;
        left -= 16;
        run->length = take_length(&p, &left);
        run->bytes = p;
        p += run->length;
        left -= run->length;
    }
}

static uint8_t *put(uint8_t *p, const void *bytes, size_t length)
{
    const tt_le32 v = tt_put32((uint32_t)length);

    memcpy(p, &v, sizeof(v));
    memcpy(p + sizeof(v), bytes, length);
    return p + sizeof(v) + length;
}

void fuzz_index_pack(const struct simindex *x, uint8_t **ret, size_t *ret_size)
{
    size_t size = sizeof(tt_le32) + x->catalog_length;
    uint8_t *p;

    for (size_t i = 0; i < x->count; i++) {
        size += 16 + sizeof(tt_le32) + x->files[i]->length;
    }
    *ret = fuzz_alloc(size);
    *ret_size = size;
    p = put(*ret, x->catalog, x->catalog_length);
    for (size_t i = 0; i < x->count; i++) {
        memcpy(p, x->files[i]->id, 16);
        p = put(p + 16, x->files[i]->bytes, x->files[i]->length);
    }
}

void fuzz_index_make(struct simindex x[FUZZ_INDEXES],
                     const struct tt_source *src)
{
    for (unsigned i = 0; i < FUZZ_INDEXES; i++) {
        si_init(&x[i], 100 + i);
        FUZZ_CHECK(si_extend(&x[i], src, i > 0, NULL) == 0);
    }
}
