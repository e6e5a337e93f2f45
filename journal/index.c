/*
 * The tail's index: which version of this byte is the newest up to a sequence
 * number?
 *
 * A record's range is cut into pieces (piece.h), each piece goes to the tier
 * of its class, and within a tier two pieces are at the same place or do not
 * touch.  The newest version of a byte is then found by one predecessor search
 * per class in use: for the piece that the byte would lie in, the largest
 * sequence number that is not above the one asked for.
 *
 * A tier is a list of runs, each sorted by (start, seq).  New versions go into
 * the last one, which is small; when it is full, runs are merged as long as
 * the one before is not more than twice as large.  So there are O(log n) runs,
 * and n insertions cost O(n log n).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "index.h"

#define TAIL 64u     /* versions in a run that is still being filled */
#define RUNS_MAX 64u /* more than log2 of all versions that fit in memory */

_Static_assert(sizeof(struct version) == 32, "a version is small");

struct run {
    struct version *versions; /* sorted by (start, seq) */
    size_t count, room;
};

struct tier {
    struct run runs[RUNS_MAX]; /* from large and old to small and new */
    unsigned count;
};

void tt_index_clear(struct index *x)
{
    for (unsigned c = 0; c < PIECE_CLASSES; c++) {
        struct tier *t = x->tiers[c];

        for (unsigned i = 0; t && i < t->count; i++) {
            free(t->runs[i].versions);
        }
        free(t);
    }
    *x = (struct index){ 0 };
}

/* ---- searching --------------------------------------------------------- */

static bool is_after(const struct version *v, uint64_t start, uint64_t seq)
{
    return v->start > start || (v->start == start && v->seq > seq);
}

/* The first version from @from on that is after (start, seq). */
static size_t upper_bound(const struct run *r, size_t from, uint64_t start,
                          uint64_t seq)
{
    size_t end = r->count;

    while (from < end) {
        size_t mid = from + (end - from) / 2;

        if (is_after(&r->versions[mid], start, seq)) {
            end = mid;
        } else {
            from = mid + 1;
        }
    }
    return from;
}

/*
 * Looks into one run for the piece at @start: the newest version up to @seq,
 * or the oldest of all if @seq is 0.  *next is lowered to the next start.
 */
static const struct version *search_run(const struct run *r, uint64_t start,
                                        uint64_t seq, uint64_t *next)
{
    size_t i = upper_bound(r, 0, start, seq), j = i;
    const struct version *v = NULL;

    if (seq == 0) {
        v = i < r->count ? &r->versions[i] : NULL;
    } else if (i > 0) {
        v = &r->versions[i - 1];
    }
    if (j < r->count && r->versions[j].start == start) {
        j = upper_bound(r, j, start, UINT64_MAX);
    }
    if (j < r->count && r->versions[j].start < *next) {
        *next = r->versions[j].start;
    }
    return v && v->start == start ? v : NULL;
}

/* @seq 0: the oldest of all; no record has that number. */
static void search(const struct index *x, uint64_t at, uint64_t seq,
                   struct index_hit *ret)
{
    const struct version *best = NULL;
    uint64_t next = UINT64_MAX, piece_end = UINT64_MAX;

    for (uint64_t left = x->used; left; left &= left - 1) {
        unsigned c = (unsigned)__builtin_ctzll(left);
        const struct tier *t = x->tiers[c];
        uint64_t size = piece_size(c);
        uint64_t start = at & ~(size - 1);

        for (unsigned i = 0; i < t->count; i++) {
            const struct version *v =
                search_run(&t->runs[i], start, seq, &next);

            if (v &&
                (!best || (seq ? v->seq > best->seq : v->seq < best->seq))) {
                best = v;
                ret->piece_class = c;
                piece_end = start + size;
            }
        }
    }
    ret->version = best;
    ret->end = next < piece_end ? next : piece_end;
}

void tt_index_newest(const struct index *x, uint64_t at, uint64_t seq,
                     struct index_hit *ret)
{
    if (seq == 0) {
        /* Before the first record nothing had a version, anywhere. */
        *ret = (struct index_hit){ .end = UINT64_MAX };
        return;
    }
    search(x, at, seq, ret);
}

void tt_index_oldest(const struct index *x, uint64_t at, struct index_hit *ret)
{
    search(x, at, 0, ret);
}

/* ---- adding ------------------------------------------------------------ */

/* Merges the last two runs of @t. */
static bool merge_last(struct tier *t)
{
    struct run *a = &t->runs[t->count - 2], *b = &t->runs[t->count - 1];
    size_t count = a->count + b->count, i = 0, j = 0;
    struct version *to = malloc(count * sizeof(*to));

    if (!to) {
        return false;
    }
    for (size_t k = 0; k < count; k++) {
        const struct version *v = j < b->count ? &b->versions[j] : NULL;

        if (!v ||
            (i < a->count && !is_after(&a->versions[i], v->start, v->seq))) {
            to[k] = a->versions[i++];
        } else {
            to[k] = b->versions[j++];
        }
    }
    free(a->versions);
    free(b->versions);
    *a = (struct run){ to, count, count };
    t->count--;
    return true;
}

/* Begins an empty run at the end of @t, merging what is due. */
static struct run *new_tail(struct tier *t)
{
    struct run *r;

    while (t->count >= 2 &&
           t->runs[t->count - 2].count <= 2 * t->runs[t->count - 1].count) {
        if (!merge_last(t)) {
            return NULL;
        }
    }
    if (t->count == RUNS_MAX) {
        return NULL;
    }
    r = &t->runs[t->count];
    *r = (struct run){ .room = TAIL };
    r->versions = malloc(TAIL * sizeof(*r->versions));
    if (!r->versions) {
        return NULL;
    }
    t->count++;
    return r;
}

static bool add_piece(struct index *x, unsigned c, const struct version *v)
{
    struct tier *t = x->tiers[c];
    struct run *r;
    size_t at;

    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t) {
            return false;
        }
        x->tiers[c] = t;
        x->used |= UINT64_C(1) << c;
    }
    r = t->count ? &t->runs[t->count - 1] : NULL;
    if (!r || r->count == r->room) {
        r = new_tail(t);
        if (!r) {
            return false;
        }
    }
    at = upper_bound(r, 0, v->start, v->seq);
    memmove(&r->versions[at + 1], &r->versions[at],
            (r->count - at) * sizeof(*v));
    r->versions[at] = *v;
    r->count++;
    return true;
}

bool tt_index_add(struct index *x, uint64_t offset, uint64_t length,
                  const struct version *v)
{
    uint64_t end = offset + length;

    for (uint64_t at = offset; end - at >= TT_SECTOR;) {
        unsigned c = piece_class(at, end - at);
        struct version piece = *v;

        piece.start = at;
        if (!v->zero) {
            piece.place += at - offset;
            piece.sum += piece_first_sum(offset, at);
            piece.cell = piece_cell(offset, length, at, c);
        }
        if (!add_piece(x, c, &piece)) {
            return false;
        }
        at += piece_size(c);
    }
    return true;
}

size_t tt_index_memory(const struct index *x)
{
    size_t sum = 0;

    for (unsigned c = 0; c < PIECE_CLASSES; c++) {
        const struct tier *t = x->tiers[c];

        sum += t ? sizeof(*t) : 0;
        for (unsigned i = 0; t && i < t->count; i++) {
            sum += t->runs[i].room * sizeof(struct version);
        }
    }
    return sum;
}

bool tt_index_compact(struct index *x)
{
    for (unsigned c = 0; c < PIECE_CLASSES; c++) {
        struct tier *t = x->tiers[c];

        while (t && t->count >= 2) {
            if (!merge_last(t)) {
                return false;
            }
        }
    }
    return true;
}
