/*
 * Footers: what did the segment that ended hold?
 *
 * While a segment is filled, its writer keeps a list of the versions in it
 * with their checksums.  When the next segment has begun, the list is sorted
 * by (disk offset, sequence) and appended there as FOOTER records: sealing
 * never goes back and never stalls.  A frame whose header was destroyed is
 * known from the footer still; a segment without one is a segment all the
 * same.
 *
 * Each part names the frames that its versions are of, with their times, so it
 * can be read without the others.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "footer.h"

/*
 * So much of a footer goes into one record: what is appended meanwhile waits
 * for no more.  One version always fits, with the checksums of the longest and
 * all times that a frame can have.
 */
#define PART_MAX (128 * 1024)

struct tt_footer *tt_footer_new(uint64_t segment, uint64_t segment_offset,
                                const struct tt_frame *first)
{
    struct tt_footer *ft = calloc(1, sizeof(*ft));

    if (ft) {
        ft->segment = segment;
        ft->segment_offset = segment_offset;
        ft->first_seq = first->first_seq;
        ft->first_time = first->first_time;
        ft->epoch = first->epoch;
        ft->first_leaf = first->first_leaf;
    }
    return ft;
}

void tt_footer_free(struct tt_footer *ft)
{
    if (ft) {
        free(ft->versions);
        free(ft->stretches);
        free(ft->cuts);
        free(ft->sums);
        free(ft);
    }
}

static bool grow(void **p, size_t *room, size_t need, size_t unit)
{
    size_t n = *room ? *room : 1024;
    void *q;

    while (n < need) {
        n *= 2;
    }
    if (n == *room) {
        return true;
    }
    q = realloc(*p, n * unit);
    if (!q) {
        return false;
    }
    *p = q;
    *room = n;
    return true;
}

/* Records have @time from this one on. */
static bool add_stretch(struct tt_footer *ft, const struct tt_frame *f,
                        uint64_t seq, int64_t time)
{
    if (!grow((void **)&ft->stretches, &ft->stretch_room, ft->stretch_count + 1,
              sizeof(*ft->stretches))) {
        return false;
    }
    ft->stretches[ft->stretch_count++] = (struct footer_stretch){
        .seq = (uint32_t)(seq - ft->first_seq),
        .offset = (uint32_t)(f->offset - ft->segment_offset),
        .time = time,
    };
    return true;
}

static bool add_version(struct tt_footer *ft, const struct tt_frame *f,
                        const struct tt_record *r, size_t frame)
{
    struct footer_version v = {
        .disk_offset = r->disk_offset,
        .disk_length = r->disk_length,
        .seq = (uint32_t)(r->seq - ft->first_seq),
        .frame = (uint32_t)frame,
        .first_sum = (uint32_t)ft->sum_count,
        .kind = r->kind,
        .flags = r->flags,
    };

    if (r->payload_offset) {
        v.payload =
            (uint32_t)(f->offset - ft->segment_offset + r->payload_offset);
    }
    if (!grow((void **)&ft->versions, &ft->room, ft->count + 1,
              sizeof(*ft->versions)) ||
        !grow((void **)&ft->sums, &ft->sum_room,
              ft->sum_count + r->checksum_count, sizeof(*ft->sums))) {
        return false;
    }
    ft->versions[ft->count++] = v;
    memcpy(ft->sums + ft->sum_count, r->checksums,
           r->checksum_count * sizeof(*ft->sums));
    ft->sum_count += r->checksum_count;
    if (r->kind != TT_KIND_RESIZE && r->disk_length > ft->max_disk_length) {
        ft->max_disk_length = r->disk_length;
    }
    return true;
}

/* What a footer tells of a frame, if it has versions */
static bool add_records(struct tt_footer *ft, const struct tt_frame *f,
                        const uint8_t *table)
{
    size_t frame = ft->stretch_count, count = ft->count;
    uint32_t pos = 0, index = 0;
    int64_t time = 0;
    struct tt_record r;

    if (tt_frame_last_seq(f) - ft->first_seq > UINT32_MAX) {
        return false;
    }
    while (tt_table_next(f, table, &pos, &index, &r)) {
        if ((index == 1 || r.time != time) &&
            !add_stretch(ft, f, r.seq, r.time)) {
            return false;
        }
        time = r.time;
        if ((tt_kind_is_version(r.kind) || r.kind == TT_KIND_RESIZE) &&
            !add_version(ft, f, &r, frame)) {
            return false;
        }
    }
    if (ft->count == count) {
        ft->stretch_count = frame;
    }
    return true;
}

bool tt_footer_add_frame(struct tt_footer *ft, const struct tt_frame *f,
                         const uint8_t *table)
{
    ft->last_seq = tt_frame_last_seq(f);
    ft->last_time = f->last_time;
    ft->last_chain = f->own_chain;
    ft->end_offset = tt_frame_end(f);
    ft->leaf_count =
        f->first_leaf + (f->length + TT_LEAF - 1) / TT_LEAF - ft->first_leaf;
    ft->incomplete = ft->incomplete || !add_records(ft, f, table);
    return !ft->incomplete;
}

static int compare_versions(const void *a, const void *b)
{
    const struct footer_version *x = a, *y = b;

    return x->disk_offset != y->disk_offset
               ? (x->disk_offset < y->disk_offset ? -1 : 1)
               : (x->seq > y->seq) - (x->seq < y->seq);
}

/* Versions [first, end), their frames and sums, make one FOOTER record. */
struct part {
    size_t first, end, stretches, sums;
    uint32_t mark; /* of the frames in it */
};

static size_t part_length(const struct part *p)
{
    return sizeof(struct tt_footer_body) +
           p->stretches * sizeof(struct tt_footer_frame) +
           (p->end - p->first) * sizeof(struct tt_footer_entry) +
           p->sums * sizeof(tt_le64);
}

static struct part begin_part(struct tt_footer *ft, size_t first)
{
    return (struct part){ .first = first, .end = first, .mark = ++ft->mark };
}

static bool begins_frame(const struct tt_footer *ft, size_t i)
{
    return i == 0 || ft->stretches[i].offset != ft->stretches[i - 1].offset;
}

/* The part with version @i, but for its mark on the frame */
static struct part with_version(const struct tt_footer *ft,
                                const struct part *p, size_t i)
{
    const struct footer_version *v = &ft->versions[i];
    struct part q = *p;

    if (v->payload) {
        q.sums += tt_grid_pieces(v->disk_offset, v->disk_length);
    }
    if (ft->stretches[v->frame].mark != p->mark) {
        size_t k = v->frame;

        do {
            q.stretches++;
        } while (++k < ft->stretch_count && !begins_frame(ft, k));
    }
    q.end = i + 1;
    return q;
}

static void take_version(struct tt_footer *ft, struct part *p, size_t i)
{
    *p = with_version(ft, p, i);
    ft->stretches[ft->versions[i].frame].mark = p->mark;
}

static bool add_cut(struct tt_footer *ft, size_t first)
{
    if (!grow((void **)&ft->cuts, &ft->cut_room, ft->cut_count + 1,
              sizeof(*ft->cuts))) {
        return false;
    }
    ft->cuts[ft->cut_count++] = first;
    return true;
}

/* Cuts the versions into parts.  There is always one, which may be empty. */
static bool cut_parts(struct tt_footer *ft)
{
    struct part p = begin_part(ft, 0);
    bool ok = add_cut(ft, 0);

    for (size_t i = 0; ok && i < ft->count; i++) {
        struct part q = with_version(ft, &p, i);

        if (i > p.first && part_length(&q) > PART_MAX) {
            p = begin_part(ft, i);
            ok = add_cut(ft, i);
        }
        take_version(ft, &p, i);
    }
    if (!ok) {
        ft->cut_count = 0;
    }
    return ok;
}

static void encode_body(const struct tt_footer *ft, const struct part *p,
                        uint32_t part, uint32_t parts, uint8_t *buf)
{
    struct tt_footer_body body = {
        .segment = tt_put64(ft->segment),
        .first_seq = tt_put64(ft->first_seq),
        .last_seq = tt_put64(ft->last_seq),
        .epoch = tt_put64(ft->epoch),
        .first_time = tt_put64((uint64_t)ft->first_time),
        .last_time = tt_put64((uint64_t)ft->last_time),
        .end_offset = tt_put64(ft->end_offset),
        .last_chain = tt_put64(ft->last_chain),
        .first_leaf = tt_put64(ft->first_leaf),
        .leaf_count = tt_put64(ft->leaf_count),
        .max_disk_length = tt_put64(ft->max_disk_length),
        .part = tt_put32(part),
        .part_count = tt_put32(parts),
        .entry_count = tt_put32((uint32_t)(p->end - p->first)),
        .checksum_count = tt_put32((uint32_t)p->sums),
        .frame_count = tt_put32((uint32_t)p->stretches),
    };

    memcpy(buf, &body, sizeof(body));
}

static uint8_t *encode_frames(const struct tt_footer *ft, const struct part *p,
                              uint8_t *buf)
{
    bool in_part = false;

    for (size_t i = 0; i < ft->stretch_count; i++) {
        const struct footer_stretch *s = &ft->stretches[i];
        struct tt_footer_frame f = {
            .seq = tt_put32(s->seq),
            .offset = tt_put32(s->offset),
            .time = tt_put64((uint64_t)s->time),
        };

        if (begins_frame(ft, i)) {
            in_part = s->mark == p->mark;
        }
        if (in_part) {
            memcpy(buf, &f, sizeof(f));
            buf += sizeof(f);
        }
    }
    return buf;
}

static void encode_versions(const struct tt_footer *ft, const struct part *p,
                            uint8_t *buf)
{
    uint8_t *sums = buf + (p->end - p->first) * sizeof(struct tt_footer_entry);

    for (size_t i = p->first; i < p->end; i++) {
        const struct footer_version *v = &ft->versions[i];
        uint64_t sectors = v->disk_length / TT_SECTOR;
        struct tt_footer_entry e = {
            .disk_offset = tt_put64(v->disk_offset),
            .sectors = tt_put32((uint32_t)sectors),
            .seq = tt_put32(v->seq),
            .payload_offset =
                tt_put32(v->kind == TT_KIND_RESIZE ? (uint32_t)(sectors >> 32)
                                                   : v->payload),
            .kind = (uint8_t)v->kind,
            .flags = (uint8_t)v->flags,
        };
        size_t n =
            v->payload ? tt_grid_pieces(v->disk_offset, v->disk_length) : 0;

        memcpy(buf, &e, sizeof(e));
        buf += sizeof(e);
        if (n) {
            memcpy(sums, ft->sums + v->first_sum, n * sizeof(tt_le64));
            sums += n * sizeof(tt_le64);
        }
    }
}

static void sort(struct tt_footer *ft)
{
    if (!ft->sorted && ft->count) {
        qsort(ft->versions, ft->count, sizeof(*ft->versions), compare_versions);
    }
    ft->sorted = true;
}

bool tt_footer_find(struct tt_footer *ft, const uint8_t *entry,
                    size_t *ret_index)
{
    struct footer_version key = { 0 }, *found = NULL;
    struct tt_footer_entry e;

    memcpy(&e, entry, sizeof(e));
    key.disk_offset = tt_get64(e.disk_offset);
    key.seq = tt_get32(e.seq);
    sort(ft);
    if (ft->count) {
        found = bsearch(&key, ft->versions, ft->count, sizeof(*ft->versions),
                        compare_versions);
    }
    *ret_index = found ? (size_t)(found - ft->versions) : 0;
    return found != NULL;
}

static uint8_t *make_part(struct tt_footer *ft, size_t first, size_t end,
                          uint32_t part, uint32_t parts, uint32_t *ret_length)
{
    struct part p = begin_part(ft, first);
    size_t length;
    uint8_t *buf;

    for (size_t i = first; i < end; i++) {
        take_version(ft, &p, i);
    }
    length = part_length(&p);
    buf = malloc(length);
    if (buf) {
        encode_body(ft, &p, part, parts, buf);
        encode_versions(
            ft, &p, encode_frames(ft, &p, buf + sizeof(struct tt_footer_body)));
        *ret_length = (uint32_t)length;
    }
    return buf;
}

uint8_t *tt_footer_part(struct tt_footer *ft, uint32_t part,
                        uint32_t *ret_length, bool *ret_last)
{
    size_t end;

    *ret_last = true;
    if (!ft || ft->incomplete) {
        return NULL;
    }
    sort(ft);
    if ((!ft->cut_count && !cut_parts(ft)) || part >= ft->cut_count) {
        return NULL;
    }
    *ret_last = part + 1 == ft->cut_count;
    end = *ret_last ? ft->count : ft->cuts[part + 1];
    return make_part(ft, ft->cuts[part], end, part, (uint32_t)ft->cut_count,
                     ret_length);
}

uint8_t *tt_footer_span(struct tt_footer *ft, size_t first, size_t count,
                        uint32_t part, uint32_t parts, uint32_t *ret_length)
{
    sort(ft);
    return make_part(ft, first, first + count, part, parts, ret_length);
}

struct tt_footer *tt_writer_take_footer(struct tt_writer *w)
{
    struct tt_footer *ft = w->ended;

    w->ended = NULL;
    return ft;
}

void tt_writer_footer_done(struct tt_writer *w)
{
    tt_footer_free(tt_writer_take_footer(w));
}
