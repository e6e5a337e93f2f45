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
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "footer.h"

/*
 * So much of a footer goes into one record: what is appended meanwhile waits
 * for no more.  One entry always fits, with the checksums of the longest.
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
        free(ft->entries);
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

static bool add_record(struct tt_footer *ft, const struct tt_frame *f,
                       const struct tt_record *r)
{
    struct tt_footer_entry e = {
        .disk_offset = tt_put64(r->disk_offset),
        .disk_length = tt_put64(r->disk_length),
        .time = tt_put64((uint64_t)r->time),
        .seq = tt_put32((uint32_t)(r->seq - ft->first_seq)),
        .first_checksum = tt_put32((uint32_t)ft->sum_count),
        .kind = tt_put16(r->kind),
        .flags = tt_put16(r->flags),
    };

    if (r->payload_offset) {
        e.payload_offset = tt_put32(
            (uint32_t)(f->offset - ft->segment_offset + r->payload_offset));
    }
    if (r->seq - ft->first_seq > UINT32_MAX ||
        !grow((void **)&ft->entries, &ft->room, ft->count + 1,
              sizeof(*ft->entries)) ||
        !grow((void **)&ft->sums, &ft->sum_room,
              ft->sum_count + r->checksum_count, sizeof(*ft->sums))) {
        return false;
    }
    ft->entries[ft->count++] = e;
    memcpy(ft->sums + ft->sum_count, r->checksums,
           r->checksum_count * sizeof(*ft->sums));
    ft->sum_count += r->checksum_count;
    if (r->kind != TT_KIND_RESIZE && r->disk_length > ft->max_disk_length) {
        ft->max_disk_length = r->disk_length;
    }
    return true;
}

bool tt_footer_add_frame(struct tt_footer *ft, const struct tt_frame *f,
                         const uint8_t *table)
{
    uint32_t pos = 0, index = 0;
    struct tt_record r;

    ft->last_seq = tt_frame_last_seq(f);
    ft->last_time = f->last_time;
    ft->last_chain = f->own_chain;
    ft->end_offset = tt_frame_end(f);
    ft->leaf_count =
        f->first_leaf + (f->length + TT_LEAF - 1) / TT_LEAF - ft->first_leaf;
    while (!ft->incomplete && tt_table_next(f, table, &pos, &index, &r)) {
        if ((tt_kind_is_version(r.kind) || r.kind == TT_KIND_RESIZE) &&
            !add_record(ft, f, &r)) {
            ft->incomplete = true;
        }
    }
    return !ft->incomplete;
}

static int compare_entries(const void *a, const void *b)
{
    const struct tt_footer_entry *x = a, *y = b;
    uint64_t xo = tt_get64(x->disk_offset), yo = tt_get64(y->disk_offset);
    uint32_t xs = tt_get32(x->seq), ys = tt_get32(y->seq);

    return xo != yo ? (xo < yo ? -1 : 1) : (xs > ys) - (xs < ys);
}

static uint32_t entry_sums(const struct tt_footer_entry *e)
{
    return tt_get32(e->payload_offset)
               ? tt_grid_pieces(tt_get64(e->disk_offset),
                                tt_get64(e->disk_length))
               : 0;
}

/* Entries [first, end) with their sums make one FOOTER record. */
struct part {
    size_t first, end, sums;
};

static size_t part_length(size_t entries, size_t sums)
{
    return sizeof(struct tt_footer_body) +
           entries * sizeof(struct tt_footer_entry) + sums * sizeof(tt_le64);
}

/* Cuts the entries into parts; how many, and which entries @want holds. */
static uint32_t cut_parts(const struct tt_footer *ft, uint32_t want,
                          struct part *ret)
{
    struct part p = { 0 };
    uint32_t parts = 0;

    for (size_t i = 0; i <= ft->count; i++) {
        uint32_t sums = i < ft->count ? entry_sums(&ft->entries[i]) : 0;
        size_t bytes = part_length(i + 1 - p.first, p.sums + sums);

        if (i == ft->count || (bytes > PART_MAX && i > p.first)) {
            p.end = i;
            if (parts++ == want) {
                *ret = p;
            }
            p = (struct part){ .first = i };
        }
        p.sums += sums;
    }
    return parts;
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
    };
    uint8_t *entries = buf + sizeof(body);
    uint8_t *sums =
        entries + (p->end - p->first) * sizeof(struct tt_footer_entry);
    uint32_t done = 0;

    memcpy(buf, &body, sizeof(body));
    for (size_t i = p->first; i < p->end; i++) {
        struct tt_footer_entry e = ft->entries[i];
        uint32_t n = entry_sums(&e);

        memcpy(sums + done * sizeof(tt_le64),
               ft->sums + tt_get32(e.first_checksum), n * sizeof(tt_le64));
        e.first_checksum = tt_put32(done);
        done += n;
        memcpy(entries, &e, sizeof(e));
        entries += sizeof(e);
    }
}

static void sort(struct tt_footer *ft)
{
    if (!ft->sorted && ft->count) {
        qsort(ft->entries, ft->count, sizeof(*ft->entries), compare_entries);
    }
    ft->sorted = true;
}

bool tt_footer_find(struct tt_footer *ft, const uint8_t *entry,
                    size_t *ret_index)
{
    struct tt_footer_entry key, *found = NULL;

    memcpy(&key, entry, sizeof(key));
    sort(ft);
    if (ft->count) {
        found = bsearch(&key, ft->entries, ft->count, sizeof(*ft->entries),
                        compare_entries);
    }
    *ret_index = found ? (size_t)(found - ft->entries) : 0;
    return found != NULL;
}

static uint8_t *make_part(const struct tt_footer *ft, const struct part *p,
                          uint32_t part, uint32_t parts, uint32_t *ret_length)
{
    size_t length = part_length(p->end - p->first, p->sums);
    uint8_t *buf = malloc(length);

    if (buf) {
        encode_body(ft, p, part, parts, buf);
        *ret_length = (uint32_t)length;
    }
    return buf;
}

uint8_t *tt_footer_part(struct tt_footer *ft, uint32_t part,
                        uint32_t *ret_length, bool *ret_last)
{
    struct part p = { 0 };
    uint32_t parts;

    *ret_last = true;
    if (!ft || ft->incomplete) {
        return NULL;
    }
    sort(ft);
    parts = cut_parts(ft, part, &p);
    *ret_last = part + 1 >= parts;
    return part < parts ? make_part(ft, &p, part, parts, ret_length) : NULL;
}

uint8_t *tt_footer_span(struct tt_footer *ft, size_t first, size_t count,
                        uint32_t part, uint32_t parts, uint32_t *ret_length)
{
    struct part p = { .first = first, .end = first + count };

    sort(ft);
    for (size_t i = p.first; i < p.end; i++) {
        p.sums += entry_sums(&ft->entries[i]);
    }
    return make_part(ft, &p, part, parts, ret_length);
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
