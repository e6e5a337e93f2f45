/*
 * The catalog of an index: which runs, what they cover, and the small rest
 *
 *   checksum   of all bytes behind it
 *   head       magic, version, UUID, where reading goes on
 *   runs       in order of what they cover, without holes
 *   rest       see rest.c
 *   looks      what lies at the places of the rest's damages
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>

#include "bytes.h"
#include "catalog.h"
#include "run.h"

#define MAGIC "TTJCAT\r\n"
#define VERSION 4u

/*
 * When so many runs of about one size lie side by side they are merged: so
 * each version is written once for every power of it that there are.
 */
#define FAN_BITS 3u
#define FAN (1u << FAN_BITS)

static int no_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

static int is_damaged(struct tt_error *err)
{
    return tt_fail(err, TT_EINDEX, 0,
                   "the index is damaged, or of another version: its catalog "
                   "does not fit");
}

struct tt_catalog *tt_catalog_new(const struct tt_super *super)
{
    struct tt_catalog *c = calloc(1, sizeof(*c));

    if (c) {
        c->rest = tt_history_new();
        if (!c->rest) {
            free(c);
            return NULL;
        }
        memcpy(c->uuid, super->uuid, TT_UUID_SIZE);
    }
    return c;
}

void tt_catalog_free(struct tt_catalog *c)
{
    if (c) {
        tt_history_free(c->rest);
        free(c->runs);
        free(c->looks);
        free(c);
    }
}

/* ---- as bytes ---------------------------------------------------------- */

static void put_run(struct bytes *b, const struct tt_run_info *info)
{
    bytes_put(b, info->id, sizeof(info->id));
    bytes_put64(b, info->pages);
    bytes_put64(b, info->first_seq);
    bytes_put64(b, info->last_seq);
    bytes_put64(b, info->versions);
    bytes_put64(b, info->entries);
    bytes_put64(b, info->checksum);
}

uint8_t *tt_catalog_encode(const struct tt_catalog *c, size_t *ret_length)
{
    struct bytes b = { 0 };
    tt_le64 sum;

    bytes_put64(&b, 0); /* the checksum */
    bytes_put(&b, MAGIC, 8);
    bytes_put64(&b, VERSION);
    bytes_put(&b, c->uuid, TT_UUID_SIZE);
    bytes_put64(&b, c->next_offset);
    bytes_put64(&b, c->next_chain);
    bytes_put64(&b, c->end_chain);
    bytes_put64(&b, c->last_seq);
    bytes_put64(&b, c->run_count);
    for (size_t i = 0; i < c->run_count; i++) {
        put_run(&b, &c->runs[i]);
    }
    if (c->next_offset) {
        tt_rest_encode(c->rest, &b);
        for (size_t i = 0; i < c->look_count; i++) {
            bytes_put64(&b, c->looks[i]);
        }
    }
    if (b.failed) {
        free(b.p);
        return NULL;
    }
    sum = tt_put64(tt_checksum(b.p + sizeof(sum), b.count - sizeof(sum)));
    memcpy(b.p, &sum, sizeof(sum));
    *ret_length = b.count;
    return b.p;
}

static void get_run(struct byte_reader *r, struct tt_run_info *info)
{
    const uint8_t *id = bytes_get(r, sizeof(info->id));

    if (id) {
        memcpy(info->id, id, sizeof(info->id));
    }
    info->pages = bytes_get64(r);
    info->first_seq = bytes_get64(r);
    info->last_seq = bytes_get64(r);
    info->versions = bytes_get64(r);
    info->entries = bytes_get64(r);
    info->checksum = bytes_get64(r);
}

/* 1, 0 if it does not fit, or negative if out of memory. */
static int get_runs(struct tt_catalog *c, struct byte_reader *r)
{
    uint64_t n = bytes_get64(r), seq = 0;

    while (n-- && !r->bad) {
        struct tt_run_info info = { 0 };

        get_run(r, &info);
        if (r->bad || info.first_seq != seq + 1 ||
            info.last_seq < info.first_seq || !info.pages) {
            return 0;
        }
        seq = info.last_seq;
        if (!tt_catalog_add_run(c, &info)) {
            return -TT_ENOMEM;
        }
    }
    return !r->bad && seq == c->last_seq;
}

static int get_looks(struct tt_catalog *c, struct byte_reader *r)
{
    size_t count;

    tt_history_damages(c->rest, &count);
    for (size_t i = 0; i < count && !r->bad; i++) {
        if (!tt_catalog_add_look(c, bytes_get64(r))) {
            return -TT_ENOMEM;
        }
    }
    return !r->bad;
}

static int decode(struct tt_catalog *c, struct byte_reader *r,
                  const struct tt_super *super)
{
    const uint8_t *magic = bytes_get(r, 8);
    uint64_t version = bytes_get64(r);
    const uint8_t *uuid = bytes_get(r, TT_UUID_SIZE);
    int ret;

    if (r->bad || memcmp(magic, MAGIC, 8) || version != VERSION ||
        memcmp(uuid, super->uuid, TT_UUID_SIZE)) {
        return 0;
    }
    c->next_offset = bytes_get64(r);
    c->next_chain = bytes_get64(r);
    c->end_chain = bytes_get64(r);
    c->last_seq = bytes_get64(r);
    ret = get_runs(c, r);
    if (ret > 0 && c->next_offset) {
        ret = tt_rest_decode(c->rest, r);
        ret = ret == -TT_EINDEX ? 0 : ret < 0 ? ret : 1;
        ret = ret > 0 ? get_looks(c, r) : ret;
    }
    return ret > 0 ? r->left == 0 && !r->bad : ret;
}

int tt_catalog_decode(const void *buf, size_t length,
                      const struct tt_super *super, struct tt_catalog **ret,
                      struct tt_error *err)
{
    struct byte_reader r = { .p = buf, .left = length };
    uint64_t sum = bytes_get64(&r);
    struct tt_catalog *c;
    int ok;

    *ret = NULL;
    if (r.bad || sum != tt_checksum(r.p, r.left)) {
        return is_damaged(err);
    }
    c = tt_catalog_new(super);
    if (!c) {
        return no_memory(err);
    }
    ok = decode(c, &r, super);
    if (ok <= 0) {
        tt_catalog_free(c);
        return ok < 0 ? no_memory(err) : is_damaged(err);
    }
    *ret = c;
    return 0;
}

/* ---- what it says ------------------------------------------------------ */

static int is_other(const struct tt_catalog *c, struct tt_error *err)
{
    return tt_fail(err, TT_EINDEX, 0,
                   "the index is not of this journal: where it ends, at "
                   "%" PRIu64 ", the journal holds something else",
                   c->next_offset);
}

/*
 * 1 and *f, or 0 if none is there or the medium has an error: who makes the
 * index anew will find another place for its end.
 */
static int end_frame(const struct tt_catalog *c, const struct tt_super *super,
                     const struct tt_source *src, struct tt_frame *f,
                     struct tt_error *err)
{
    uint8_t head[TT_HEAD_MAX];
    struct tt_error e = { 0 };
    int ret = tt_frame_read(super, src, c->next_offset, head, f, &e);

    if (ret == -TT_EIO && e.os_errno == EIO) {
        return 0;
    }
    if (ret < 0 && err) {
        *err = e;
    }
    return ret;
}

static int check_looks(const struct tt_catalog *c, const struct tt_super *super,
                       const struct tt_source *src, struct tt_error *err)
{
    size_t count;
    const struct tt_damage *d = tt_history_damages(c->rest, &count);

    for (size_t i = 0; i < count && i < c->look_count; i++) {
        uint64_t look;
        int ret = tt_catalog_look(super, src, &d[i], &look, err);

        if (ret < 0) {
            return ret;
        }
        if (look != c->looks[i]) {
            return tt_fail(err, TT_EINDEX, 0,
                           "the index is not of this journal: where that was "
                           "damaged, at %" PRIu64 ", it holds something else",
                           d[i].offset);
        }
    }
    return 0;
}

int tt_catalog_check(const struct tt_catalog *c, const struct tt_source *src,
                     struct tt_error *err)
{
    struct tt_super super;
    struct tt_frame f;
    int ret = tt_super_read(src, &super, NULL, err);

    if (ret < 0) {
        return ret;
    }
    if (memcmp(super.uuid, c->uuid, TT_UUID_SIZE)) {
        return is_other(c, err);
    }
    if (!c->next_offset) {
        return 0;
    }
    ret = end_frame(c, &super, src, &f, err);
    if (ret < 0) {
        return ret;
    }
    return ret > 0 && f.own_chain == c->next_chain &&
                   f.first_seq == c->last_seq + 1
               ? check_looks(c, &super, src, err)
               : is_other(c, err);
}

int tt_catalog_rest(const struct tt_catalog *c, struct tt_history *h,
                    struct tt_error *err)
{
    struct bytes b = { 0 };
    struct byte_reader r;
    int ret;

    if (!c->next_offset) {
        return 0;
    }
    if (!tt_rest_encode(c->rest, &b)) {
        free(b.p);
        return no_memory(err);
    }
    r = (struct byte_reader){ .p = b.p, .left = b.count };
    ret = tt_rest_decode(h, &r);
    free(b.p);
    return ret < 0 ? no_memory(err) : 0;
}

int tt_catalog_has_runs(const struct tt_catalog *c, struct tt_run *const *runs,
                        size_t run_count, struct tt_error *err)
{
    bool same = run_count == c->run_count;

    for (size_t i = 0; i < run_count && same; i++) {
        const struct tt_run_info *info = tt_run_info(runs[i]);

        same = !memcmp(info->id, c->runs[i].id, sizeof(info->id)) &&
               info->checksum == c->runs[i].checksum &&
               !memcmp(runs[i]->uuid, c->uuid, TT_UUID_SIZE);
    }
    return same ? 0
                : tt_fail(err, TT_EINDEX, 0,
                          "the index's runs are not those of its catalog");
}

const struct tt_run_info *tt_catalog_runs(const struct tt_catalog *c,
                                          size_t *ret_count)
{
    *ret_count = c->run_count;
    return c->runs;
}

uint64_t tt_catalog_last_seq(const struct tt_catalog *c)
{
    return c->last_seq;
}

uint64_t tt_catalog_end_offset(const struct tt_catalog *c)
{
    return c->next_offset;
}

/* ---- damages ----------------------------------------------------------- */

/* As much as a header and its table may be, but nothing behind @end. */
static int look_at(const struct tt_source *src, uint64_t offset, uint64_t end,
                   uint64_t *look, struct tt_error *err)
{
    uint8_t buf[TT_HEAD_MAX] = { 0 };
    uint64_t length = end - offset < sizeof(buf) ? end - offset : sizeof(buf);
    uint64_t there = offset < src->size ? src->size - offset : 0;
    int ret = 0;

    there = there < length ? there : length;
    if (there) {
        ret = src->read(src->opaque, offset, buf, there);
    }
    if (ret < 0 && ret != -EIO) {
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    *look = *look * 31 + (ret < 0 ? 1 : tt_checksum(buf, length));
    return 0;
}

/*
 * A frame that is missing lay where the damage begins, or at the start of the
 * next segment.
 */
int tt_catalog_look(const struct tt_super *super, const struct tt_source *src,
                    const struct tt_damage *d, uint64_t *ret_look,
                    struct tt_error *err)
{
    uint64_t end = d->offset + d->length, next;
    int ret;

    *ret_look = 0;
    if (d->offset < super->segments_offset || end <= d->offset) {
        return 0;
    }
    next = tt_segment_offset(super, tt_segment_at(super, d->offset) + 1);
    ret = look_at(src, d->offset, end < next ? end : next, ret_look, err);
    if (ret == 0 && end > next) {
        ret = look_at(src, next, end, ret_look, err);
    }
    return ret;
}

bool tt_catalog_add_look(struct tt_catalog *c, uint64_t look)
{
    if (!tt_history_room(&c->looks, c->look_count, &c->look_room,
                         sizeof(*c->looks))) {
        return false;
    }
    c->looks[c->look_count++] = look;
    return true;
}

/* ---- runs -------------------------------------------------------------- */

bool tt_catalog_add_run(struct tt_catalog *c, const struct tt_run_info *info)
{
    if (!tt_history_room(&c->runs, c->run_count, &c->run_room,
                         sizeof(*c->runs))) {
        return false;
    }
    c->runs[c->run_count++] = *info;
    return true;
}

static unsigned size_class(const struct tt_run_info *info)
{
    return (63 - (unsigned)__builtin_clzll(info->pages)) / FAN_BITS;
}

/*
 * The newest runs are the smallest, by and large.  Of those at the end that
 * are of a class or below, FAN are enough.
 */
bool tt_merge_due(const struct tt_catalog *c, size_t *ret_first,
                  size_t *ret_count)
{
    unsigned largest = 0;

    for (size_t n = 1; n <= c->run_count; n++) {
        unsigned k = size_class(&c->runs[c->run_count - n]);
        bool ends;

        largest = k > largest ? k : largest;
        ends = n == c->run_count ||
               size_class(&c->runs[c->run_count - n - 1]) > largest;
        if (ends && n >= FAN) {
            *ret_first = c->run_count - n;
            *ret_count = n;
            return true;
        }
    }
    return false;
}

void tt_catalog_merged(struct tt_catalog *c, size_t first, size_t count,
                       const struct tt_run_info *info)
{
    memmove(&c->runs[first + 1], &c->runs[first + count],
            (c->run_count - first - count) * sizeof(*c->runs));
    c->runs[first] = *info;
    c->run_count -= count - 1;
}
