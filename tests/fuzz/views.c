/*
 * What views of a history may say: see views.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "views.h"

#define MOMENTS 6
#define EXTENTS 64
#define PIECES 40

/* A failed read tells of damage, or that the index is to be forgotten. */
static void may_fail(const struct fuzz_views *v, int ret,
                     const struct tt_error *err)
{
    fuzz_told(ret, err);
    FUZZ_CHECK(ret == -TT_EDAMAGED || (v->index && ret == -TT_EINDEX) ||
               (v->index && !v->truth && ret == -TT_EINVAL));
    FUZZ_CHECK(!v->whole || ret == -TT_EINDEX);
}

/* The bytes at @offset of the disk as of @seq are what was recorded. */
static void is_true(const struct fuzz_views *v, uint64_t seq, uint64_t offset,
                    const uint8_t *buf, uint64_t length)
{
    if (v->truth) {
        const struct sim_state *s = fuzz_truth(v->truth, seq);

        FUZZ_CHECK(offset <= SIM_DISK_MAX && length <= SIM_DISK_MAX - offset);
        FUZZ_CHECK(!memcmp(s->data + offset, buf, length));
    }
}

static void check_bytes(const struct fuzz_views *v, uint64_t seq,
                        const struct tt_extent *ext)
{
    static uint8_t buf[TT_PAYLOAD_RECORD_MAX];
    struct tt_error err = { 0 };
    uint64_t length = ext->length < sizeof(buf) ? ext->length : sizeof(buf);
    int ret = tt_extent_read(v->h, v->src, ext, ext->offset, length, buf, &err);

    if (ret < 0) {
        may_fail(v, ret, &err);
        return;
    }
    FUZZ_CHECK(ext->place <= v->src->size &&
               length <= v->src->size - ext->place);
    is_true(v, seq, ext->offset, buf, length);
}

static void check_same(const struct fuzz_views *v, uint64_t seq,
                       const struct tt_extent *ext)
{
    struct tt_extent other;

    FUZZ_CHECK(tt_view_lookup(v->same, seq, ext->offset, ext->length, &other,
                              NULL) == 0);
    FUZZ_CHECK(other.kind == ext->kind && other.seq == ext->seq &&
               other.record_seq == ext->record_seq &&
               other.length == ext->length);
}

static void check_extent(const struct fuzz_views *v, uint64_t seq,
                         const struct tt_extent *ext)
{
    static const uint8_t zeroes[SIM_DISK_MAX];

    if (v->same) {
        check_same(v, seq, ext);
    }
    switch (ext->kind) {
    case TT_EXTENT_JOURNAL:
        FUZZ_CHECK(ext->seq <= seq && ext->record_seq >= ext->seq);
        check_bytes(v, seq, ext);
        break;
    case TT_EXTENT_ZERO:
        FUZZ_CHECK(ext->seq <= seq);
        if (v->truth) {
            is_true(v, seq, ext->offset, zeroes, ext->length);
        }
        break;
    case TT_EXTENT_DISK:
        /* never overwritten: then it is as it was when recording began */
        if (v->truth) {
            is_true(v, seq, ext->offset,
                    fuzz_truth(v->truth, 0)->data + ext->offset, ext->length);
        }
        break;
    case TT_EXTENT_DAMAGED:
        break;
    default:
        FUZZ_CHECK(!"an extent of a known kind");
    }
}

/* The same range in pieces: they say what the extents say. */
static void check_pieces(const struct fuzz_views *v, uint64_t seq,
                         uint64_t offset, uint64_t length)
{
    /* of rows out of order each search may find another one */
    const bool forged = v->index && !v->truth;
    struct tt_piece pieces[PIECES];
    struct tt_error err = { 0 };
    size_t count = 0;
    int ret =
        tt_view_pieces(v->h, seq, offset, length, pieces, PIECES, &count, &err);

    if (ret < 0) {
        may_fail(v, ret, &err);
        return;
    }
    FUZZ_CHECK(count > 0 && count <= PIECES);
    for (size_t i = 0; i < count; i++) {
        const struct tt_piece *p = &pieces[i];
        uint8_t cell[TT_GRID];
        struct tt_extent ext;

        FUZZ_CHECK(p->offset == offset && p->length && p->length <= length);
        offset += p->length;
        length -= p->length;
        ret = tt_view_lookup(v->h, seq, p->offset, p->length, &ext, &err);
        if (ret < 0) {
            may_fail(v, ret, &err);
            continue;
        }
        FUZZ_CHECK(forged ||
                   (ext.kind == p->kind && ext.record_seq == p->record_seq));
        if (p->kind != TT_EXTENT_JOURNAL) {
            continue;
        }
        FUZZ_CHECK(p->cell_length <= TT_GRID &&
                   p->skip + p->length <= p->cell_length);
        FUZZ_CHECK(forged || p->at + p->skip == ext.place);
        if (p->at > v->src->size || p->cell_length > v->src->size - p->at) {
            FUZZ_CHECK(!v->whole);
            continue;
        }
        v->src->read(v->src->opaque, p->at, cell, p->cell_length);
        FUZZ_CHECK(tt_piece_ok(p, cell) || !v->whole);
        if (tt_piece_ok(p, cell)) {
            is_true(v, seq, p->offset, cell + p->skip, p->length);
        }
    }
}

static void check_moment(const struct fuzz_views *v, uint64_t seq)
{
    uint64_t size = tt_history_disk_size(v->h, seq), at = 0;

    FUZZ_CHECK(size <= TT_DISK_SIZE_MAX);
    if (v->truth && size > SIM_DISK_MAX) {
        size = SIM_DISK_MAX;
    }
    for (unsigned n = 0; at < size && n < EXTENTS; n++) {
        struct tt_error err = { 0 };
        struct tt_extent ext;
        int ret = tt_view_lookup(v->h, seq, at, size - at, &ext, &err);

        if (ret < 0) {
            may_fail(v, ret, &err);
            at += TT_SECTOR;
            continue;
        }
        FUZZ_CHECK(ext.offset == at && ext.length && ext.length <= size - at);
        check_extent(v, seq, &ext);
        at += ext.length;
    }
    if (size) {
        check_pieces(v, seq, 0, size);
    }
}

void fuzz_check_views(const struct fuzz_views *v)
{
    const uint64_t last = tt_history_end(v->h)->last_seq;

    for (uint64_t i = 0; i <= MOMENTS; i++) {
        /* without a product that could overflow */
        check_moment(v, last / MOMENTS * i + last % MOMENTS * i / MOMENTS);
    }
}
