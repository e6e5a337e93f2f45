/*
 * Look-ups: which version of this byte counts?
 *
 * The newest up to S, or of pre-images the first.  Versions are in the tail
 * (index.c) and in the runs (run.c), which follow each other in history: so
 * the search for the newest goes from the tail to the oldest run, that for the
 * oldest the other way, and either ends where something is found.  In each of
 * them the piece that the byte would lie in is looked for in each lane.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "look.h"

static void none(struct look *ret)
{
    *ret = (struct look){ .end = UINT64_MAX };
}

/* ---- the tail ---------------------------------------------------------- */

static void take_tail(const struct tt_history *h, const struct index_hit *hit,
                      struct look *ret)
{
    const struct version *v = hit->version;

    if (hit->end < ret->end) {
        ret->end = hit->end;
    }
    if (v) {
        ret->found = true;
        ret->seq = v->seq;
        ret->zero = v->zero;
        ret->start = v->start;
        ret->piece_class = hit->piece_class;
        ret->place = v->place;
        ret->cell = v->cell;
        ret->sums = v->zero ? NULL : h->sums + v->sum;
    }
}

/* ---- runs -------------------------------------------------------------- */

static void take_hit(const struct run_lane *lane, const struct run_hit *hit,
                     struct look *ret)
{
    unsigned c = lane->id & 63;

    ret->found = true;
    ret->seq = hit->row.seq;
    ret->zero = !run_kind_has_sums(lane->id >> 6);
    ret->start = hit->row.start;
    ret->piece_class = c;
    ret->place = hit->row.place;
    ret->cell = hit->row.cell;
    ret->sums = NULL;
    ret->hit = *hit;
}

static uint64_t piece_end(const struct look *l)
{
    return l->start + piece_size(l->piece_class);
}

void tt_look_begin(const struct tt_history *h, struct look_memo *memo)
{
    size_t n = 0;

    for (size_t i = 0; i < h->runs_count; i++) {
        n += h->runs[i]->lane_count;
    }
    memo->lanes = n;
    for (size_t i = 0; i < n && i < LOOK_SLOTS; i++) {
        memo->slots[i] = (struct run_memo){ 0 };
    }
}

void tt_look_end(struct look_memo *memo)
{
    for (size_t i = 0; i < memo->lanes && i < LOOK_SLOTS; i++) {
        tt_run_memo_clear(&memo->slots[i]);
    }
}

/* A search for one version of the byte at @at */
struct search {
    uint64_t at, seq;
    bool newest;
    struct look_memo *memo; /* or NULL */
    struct tt_error *err;
};

/* @slot: of the run's first lane; newer runs come first. */
static struct run_memo *memo_of(const struct search *s, size_t slot)
{
    return s->memo && slot < LOOK_SLOTS ? &s->memo->slots[slot] : NULL;
}

/* Looks into the lanes of @kind and the kind of zeroes behind it. */
static int look_run(const struct tt_run *run, unsigned kind, size_t slot,
                    const struct search *s, struct look *ret)
{
    for (unsigned i = run->first_lane[kind]; i < run->first_lane[kind + 2];
         i++) {
        const struct run_lane *lane = &run->lanes[i];
        uint64_t start = s->at & ~(piece_size(lane->id & 63) - 1);
        struct run_memo *memo = memo_of(s, slot + i);
        struct run_hit hit;
        int r = s->newest
                    ? tt_run_floor(run, lane, start, s->seq, memo, &hit, s->err)
                    : tt_run_first(run, lane, start, memo, &hit, s->err);

        if (r < 0) {
            return r;
        }
        if (hit.next <= s->at) {
            /* no order that fits its checksums may make us go round */
            return tt_fail(s->err, TT_EINDEX, 0,
                           "the index is damaged: versions of the disk at "
                           "%" PRIu64 " are not in order",
                           s->at);
        }
        if (hit.next < ret->end) {
            ret->end = hit.next;
        }
        if (hit.found && hit.row.start == start &&
            (!ret->found ||
             (s->newest ? hit.row.seq > ret->seq : hit.row.seq < ret->seq))) {
            take_hit(lane, &hit, ret);
        }
    }
    return 0;
}

static void clip(struct look *ret)
{
    if (ret->found && piece_end(ret) < ret->end) {
        ret->end = piece_end(ret);
    }
}

int tt_look_newest(const struct tt_history *h, uint64_t at, uint64_t seq,
                   struct look_memo *memo, struct look *ret,
                   struct tt_error *err)
{
    const struct search s = { at, seq, true, memo, err };
    struct index_hit hit;
    size_t slot = 0;
    int r = 0;

    none(ret);
    if (seq == 0) {
        /* Before the first record nothing had a version, anywhere. */
        return 0;
    }
    if (seq > h->covered_seq) {
        tt_index_newest(&h->versions, at, seq, &hit);
        take_tail(h, &hit, ret);
    }
    for (size_t i = h->runs_count; i > 0 && r == 0 && !ret->found; i--) {
        const struct tt_run *run = h->runs[i - 1];

        if (run->info.first_seq <= seq) {
            r = look_run(run, RUN_DATA, slot, &s, ret);
        }
        slot += run->lane_count;
    }
    clip(ret);
    return r;
}

static int look_oldest(const struct tt_history *h, const struct index *tail,
                       unsigned kind, const struct search *s, struct look *ret)
{
    size_t slot = s->memo ? s->memo->lanes : 0;
    struct index_hit hit;
    int r = 0;

    none(ret);
    for (size_t i = 0; i < h->runs_count && r == 0 && !ret->found; i++) {
        slot -= s->memo ? h->runs[i]->lane_count : 0;
        r = look_run(h->runs[i], kind, slot, s, ret);
    }
    if (r == 0 && !ret->found) {
        tt_index_oldest(tail, s->at, &hit);
        take_tail(h, &hit, ret);
    }
    clip(ret);
    return r;
}

int tt_look_oldest(const struct tt_history *h, uint64_t at, struct look *ret,
                   struct tt_error *err)
{
    const struct search s = { .at = at, .err = err };

    return look_oldest(h, &h->versions, RUN_DATA, &s, ret);
}

int tt_look_preimage(const struct tt_history *h, uint64_t at,
                     struct look_memo *memo, struct look *ret,
                     struct tt_error *err)
{
    const struct search s = { .at = at, .memo = memo, .err = err };

    return look_oldest(h, &h->preimages, RUN_PRE_DATA, &s, ret);
}

/* ---- what was found ---------------------------------------------------- */

int tt_look_sums(const struct look *l, uint64_t at, unsigned count,
                 tt_le64 *ret_sums, struct tt_error *err)
{
    unsigned first = l->piece_class > PIECE_GRID_CLASS
                         ? (unsigned)((at - l->start) / TT_GRID)
                         : 0;

    if (l->sums) {
        memcpy(ret_sums, l->sums + first, count * sizeof(*ret_sums));
        return 0;
    }
    if (l->piece_class < PIECE_GRID_CLASS &&
        cell_skip(l->cell) + piece_size(l->piece_class) >
            cell_length(l->cell)) {
        return tt_fail(err, TT_EINDEX, EIO,
                       "the index is damaged: a version of the disk at %" PRIu64
                       " has a cell that cannot be",
                       at);
    }
    return tt_run_sums(&l->hit, l->piece_class, first, count, ret_sums, err);
}
