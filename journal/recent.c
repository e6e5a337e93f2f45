/*
 * What was written of late: to find out whether a disk is the journal's
 *
 * Whoever attaches a disk compares some of what it should hold.  The newest
 * versions are the best for that, for what was done to the disk behind our
 * back begins with what is written often.  They are looked for in the tail,
 * all of it; and if that has too few, in some pages of the newest runs, which
 * are picked evenly: an index is never read through.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdlib.h>

#include "look.h"

#define PAGES_A_LANE 64u
#define SPARE 4u /* so many times more are collected, for some are outdated */

struct found {
    uint64_t seq, start, length;
};

struct recent {
    uint64_t level_seq;
    struct found *found; /* the newest ones, in no order */
    size_t count, room;
    size_t oldest; /* of found; set once that is full */
};

static void find_oldest(struct recent *r)
{
    r->oldest = 0;
    for (size_t i = 1; i < r->count; i++) {
        if (r->found[i].seq < r->found[r->oldest].seq) {
            r->oldest = i;
        }
    }
}

static void consider(struct recent *r, uint64_t seq, uint64_t start,
                     uint64_t length)
{
    struct found f = { seq, start, length };

    if (seq > r->level_seq) {
        return;
    }
    if (r->count < r->room) {
        r->found[r->count++] = f;
    } else if (seq > r->found[r->oldest].seq) {
        r->found[r->oldest] = f;
    } else {
        return;
    }
    if (r->count == r->room) {
        find_oldest(r);
    }
}

static void consider_tail(void *opaque, const struct version *v,
                          uint64_t length)
{
    consider(opaque, v->seq, v->start, length);
}

/* Rows of the first leaf at or behind @page. */
static int consider_leaf(struct recent *r, const struct tt_run *run,
                         const struct run_lane *lane, uint64_t page,
                         struct tt_error *err)
{
    for (; page < lane->end_page; page++) {
        struct run_page p;
        int ret = tt_run_page_get(run, page, &p, err);

        if (ret < 0) {
            return ret;
        }
        if (p.type != RUN_PAGE_LEAF || p.lane != lane->id) {
            tt_run_page_put(&p);
            continue;
        }
        for (unsigned i = 0; i < p.count; i++) {
            struct run_row row;

            tt_run_row(&p, i, &row);
            consider(r, row.seq, row.start, piece_size(lane->id & 63));
        }
        tt_run_page_put(&p);
        break;
    }
    return 0;
}

static int consider_run(struct recent *r, const struct tt_run *run,
                        struct tt_error *err)
{
    int ret = 0;

    for (unsigned i = run->first_lane[RUN_DATA];
         i < run->first_lane[RUN_ZERO + 1] && ret == 0; i++) {
        const struct run_lane *l = &run->lanes[i];
        uint64_t pages = l->end_page - l->first_page;
        uint64_t step = (pages + PAGES_A_LANE - 1) / PAGES_A_LANE;

        for (uint64_t p = 0; p < pages && ret == 0; p += step) {
            ret = consider_leaf(r, run, l, l->first_page + p, err);
        }
    }
    return ret;
}

static int compare_found(const void *a, const void *b)
{
    const struct found *x = a, *y = b;

    return (x->seq < y->seq) - (x->seq > y->seq);
}

/* Takes those that are still what the newest state holds. */
static int take_newest(const struct tt_history *h, const struct recent *r,
                       struct tt_extent *ret_extents, size_t room,
                       size_t *ret_count, struct tt_error *err)
{
    uint64_t size = tt_history_disk_size(h, UINT64_MAX);

    for (size_t i = 0; i < r->count && *ret_count < room; i++) {
        const struct found *f = &r->found[i];
        struct tt_extent *ext = &ret_extents[*ret_count];
        int ret;

        if (f->start >= size) {
            continue;
        }
        ret = tt_view_lookup(h, UINT64_MAX, f->start,
                             f->length < size - f->start ? f->length
                                                         : size - f->start,
                             ext, err);
        if (ret < 0) {
            return ret;
        }
        *ret_count += ext->record_seq == f->seq && ext->seq == f->seq &&
                      ext->kind != TT_EXTENT_DAMAGED;
    }
    return 0;
}

int tt_history_recent(const struct tt_history *h, uint64_t level_seq,
                      struct tt_extent *ret_extents, size_t room,
                      size_t *ret_count, struct tt_error *err)
{
    struct recent r = { .level_seq = level_seq, .room = room * SPARE };
    int ret = 0;

    *ret_count = 0;
    r.found = calloc(r.room, sizeof(*r.found));
    if (!r.found) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    tt_index_each(&h->versions, consider_tail, &r);
    for (size_t i = h->runs_count; i > 0 && r.count < r.room && ret == 0; i--) {
        ret = consider_run(&r, h->runs[i - 1], err);
    }
    if (ret == 0) {
        qsort(r.found, r.count, sizeof(*r.found), compare_found);
        ret = take_newest(h, &r, ret_extents, room, ret_count, err);
    }
    free(r.found);
    return ret;
}
