/*
 * Versions that wait to be written as a run: see pend.h
 *
 * A footer is sorted, so each lane gets lists that are in order, few and long;
 * they are merged when they are written.  What comes from frames is in no
 * order: such a lane is sorted.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "merge.h"
#include "pend.h"
#include "times.h"

#define PREFETCH 4u     /* rows */
#define LISTS_MAX 1024u /* more are not merged: the lane is sorted */

static bool is_after(const struct pend_row *a, const struct pend_row *b)
{
    return a->start != b->start ? a->start > b->start : a->seq > b->seq;
}

static bool add_row(struct pend *p, unsigned id, const struct pend_row *row)
{
    struct pend_lane *l = &p->lanes[id];

    if (!tt_history_room(&l->rows, l->count, &l->room, sizeof(*l->rows))) {
        return false;
    }
    if (l->count && is_after(&l->rows[l->count - 1], row)) {
        if (!tt_history_room(&l->starts, l->starts_count, &l->starts_room,
                             sizeof(*l->starts))) {
            return false;
        }
        l->starts[l->starts_count++] = l->count;
    }
    l->rows[l->count++] = *row;
    p->memory += sizeof(*row);
    return true;
}

static bool add_sums(struct pend *p, unsigned id, const tt_le64 *sums,
                     unsigned n)
{
    struct pend_lane *l = &p->lanes[id];

    while (l->sums_room < l->sums_count + n) {
        if (!tt_history_room(&l->sums, l->sums_room, &l->sums_room,
                             sizeof(*l->sums))) {
            return false;
        }
    }
    memcpy(l->sums + l->sums_count, sums, n * sizeof(*sums));
    l->sums_count += n;
    p->memory += n * sizeof(*sums);
    return true;
}

static bool add_piece(struct pend *p, const struct placed *v, unsigned kind,
                      uint64_t start, unsigned c)
{
    unsigned id = run_lane_id(kind, c);
    struct pend_row row = { .start = start, .seq = v->seq };

    if (v->payload) {
        const tt_le64 *sums = v->sums + piece_first_sum(v->disk_offset, start);

        row.place = v->payload + (start - v->disk_offset);
        row.place |= piece_cell(v->disk_offset, v->disk_length, start, c);
        row.sum = tt_get64(*sums);
        if (c > PIECE_GRID_CLASS && !add_sums(p, id, sums, piece_sums(c))) {
            return false;
        }
    }
    return add_row(p, id, &row);
}

bool tt_pend_version(struct pend *p, const struct placed *v)
{
    uint64_t at = v->disk_offset, end = at + v->disk_length;
    unsigned kind = v->payload ? RUN_DATA : RUN_ZERO;

    p->versions++;
    if (v->kind == TT_KIND_PREIMAGE) {
        kind = v->payload ? RUN_PRE_DATA : RUN_PRE_ZERO;
    } else if (v->kind == TT_KIND_RESIZE) {
        end = placed_is_growth(v) ? v->disk_length : at;
    }
    while (at < end) {
        unsigned c = piece_class(at, end - at);

        if (!add_piece(p, v, kind, at, c)) {
            return false;
        }
        at += piece_size(c);
    }
    return true;
}

bool tt_pend_time(struct pend *p, uint64_t seq, int64_t time, uint64_t frame)
{
    struct pend_row row = { .start = seq,
                            .seq = times_bias(time),
                            .place = frame };

    return add_row(p, run_lane_id(RUN_TIMES, 0), &row);
}

/* ---- marks ------------------------------------------------------------- */

void tt_pend_mark(const struct pend *p, struct pend_mark *m)
{
    for (unsigned i = 0; i < PEND_LANES; i++) {
        m->count[i] = p->lanes[i].count;
        m->sums_count[i] = p->lanes[i].sums_count;
        m->starts_count[i] = p->lanes[i].starts_count;
    }
    m->versions = p->versions;
    m->memory = p->memory;
}

void tt_pend_back(struct pend *p, const struct pend_mark *m)
{
    for (unsigned i = 0; i < PEND_LANES; i++) {
        p->lanes[i].count = m->count[i];
        p->lanes[i].sums_count = m->sums_count[i];
        p->lanes[i].starts_count = m->starts_count[i];
    }
    p->versions = m->versions;
    p->memory = m->memory;
}

void tt_pend_reset(struct pend *p)
{
    static const struct pend_mark nothing;

    tt_pend_back(p, &nothing);
}

void tt_pend_clear(struct pend *p)
{
    for (unsigned i = 0; i < PEND_LANES; i++) {
        free(p->lanes[i].rows);
        free(p->lanes[i].sums);
        free(p->lanes[i].starts);
    }
    memset(p, 0, sizeof(*p));
}

/* ---- writing ----------------------------------------------------------- */

static void write_row(struct run_writer *w, const struct pend_lane *l,
                      unsigned beside, size_t i)
{
    const struct pend_row *r = &l->rows[i];
    struct run_row row = {
        .start = r->start,
        .seq = r->seq,
        .place = r->place - r->place % TT_SECTOR,
        .sum = r->sum,
        .cell = (uint8_t)(r->place % TT_SECTOR),
    };

    tt_run_writer_add(w, &row, beside ? l->sums + i * beside : NULL);
}

/* The lists of a lane, of which each has got so far */
struct lists {
    size_t *at, *end;
};

static struct merge_key key_of(const struct pend_row *r)
{
    return (struct merge_key){ r->start, r->seq };
}

static bool merge_lists(struct pend_lane *l, unsigned id, struct run_writer *w)
{
    unsigned beside = tt_run_shape(id, true).beside;
    size_t n = l->starts_count + 1;
    struct lists k = { calloc(n, sizeof(size_t)), calloc(n, sizeof(size_t)) };
    struct merge_key last = { 0, 0 };
    struct merge m = { 0 };
    bool ok = k.at && k.end && tt_merge_init(&m, (unsigned)n);

    for (size_t i = 0; i < n && ok; i++) {
        k.at[i] = i ? l->starts[i - 1] : 0;
        k.end[i] = i + 1 < n ? l->starts[i] : l->count;
        m.keys[i] = key_of(&l->rows[k.at[i]]);
    }
    if (ok) {
        tt_merge_start(&m);
    }
    while (ok && !tt_merge_done(&m) && !tt_run_writer_failed(w)) {
        unsigned i = m.winner;
        struct merge_key *key = &m.keys[i];

        /* a footer that lists a record twice would spoil the order */
        if (!last.seq || key->start != last.start || key->seq != last.seq) {
            write_row(w, l, beside, k.at[i]);
            last = *key;
        }
        if (++k.at[i] < k.end[i]) {
            /* too many lists for the processor to see each coming */
            __builtin_prefetch(&l->rows[k.at[i] + PREFETCH]);
            *key = key_of(&l->rows[k.at[i]]);
        } else {
            *key = MERGE_END;
        }
        tt_merge_next(&m);
    }
    tt_merge_clear(&m);
    free(k.at);
    free(k.end);
    return ok;
}

static int compare_rows(const void *a, const void *b)
{
    const struct pend_row *x = a, *y = b;

    return is_after(x, y) ? 1 : is_after(y, x) ? -1 : 0;
}

/* Sorts a lane, its checksums along with its rows. */
static bool sort_lane(struct pend_lane *l, unsigned id)
{
    unsigned beside = tt_run_shape(id, true).beside;
    tt_le64 *sums = NULL;

    if (beside) {
        sums = malloc(l->sums_count * sizeof(*sums));
        if (!sums) {
            return false;
        }
        /* the first checksum is also among those beside: its place is free */
        for (size_t i = 0; i < l->count; i++) {
            l->rows[i].sum = i;
        }
    }
    qsort(l->rows, l->count, sizeof(*l->rows), compare_rows);
    if (beside) {
        for (size_t i = 0; i < l->count; i++) {
            memcpy(sums + i * beside, l->sums + l->rows[i].sum * beside,
                   beside * sizeof(*sums));
        }
        free(l->sums);
        l->sums = sums;
        l->sums_room = l->sums_count;
    }
    l->starts_count = 0;
    return true;
}

bool tt_pend_write(struct pend *p, struct run_writer *w)
{
    for (unsigned id = 0; id < PEND_LANES; id++) {
        struct pend_lane *l = &p->lanes[id];

        if (!l->count) {
            continue;
        }
        if (l->starts_count >= LISTS_MAX && !sort_lane(l, id)) {
            return false;
        }
        tt_run_writer_lane(w, id);
        if (!merge_lists(l, id, w)) {
            return false;
        }
    }
    return true;
}
