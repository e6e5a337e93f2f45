/*
 * Merging runs
 *
 * Lane by lane, the rows of all runs are merged into one.  The rows of a lane
 * lie in its leaves in order of their pages, so each run is read from front to
 * back, and one page of it is held at a time.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "merge.h"

/* ---- the tree of losers ------------------------------------------------ */

static inline bool is_before(const struct merge_key *a,
                             const struct merge_key *b)
{
    return a->start != b->start ? a->start < b->start : a->seq < b->seq;
}

bool tt_merge_init(struct merge *m, unsigned count)
{
    unsigned n = 1;

    while (n < count) {
        n *= 2;
    }
    m->count = n;
    m->keys = malloc(n * sizeof(*m->keys));
    m->losers = malloc(3 * n * sizeof(*m->losers));
    if (!m->keys || !m->losers) {
        tt_merge_clear(m);
        return false;
    }
    m->starts = m->losers + n;
    m->seqs = m->starts + n;
    for (unsigned i = 0; i < n; i++) {
        m->keys[i] = MERGE_END;
    }
    return true;
}

void tt_merge_clear(struct merge *m)
{
    free(m->keys);
    free(m->losers);
    *m = (struct merge){ 0 };
}

/* Plays out the tree below node @at; returns who wins. */
static unsigned play(struct merge *m, unsigned at)
{
    unsigned a, b;

    if (at >= m->count) {
        return at - m->count;
    }
    a = play(m, 2 * at);
    b = play(m, 2 * at + 1);
    if (is_before(&m->keys[b], &m->keys[a])) {
        unsigned t = a;

        a = b;
        b = t;
    }
    m->losers[at] = b;
    m->starts[at] = m->keys[b].start;
    m->seqs[at] = m->keys[b].seq;
    return a;
}

void tt_merge_start(struct merge *m)
{
    m->winner = play(m, 1);
}

/* One comparison that ends in a flag, where two would need a branch. */
static inline unsigned __int128 whole_key(uint64_t start, uint64_t seq)
{
    return (unsigned __int128)start << 64 | seq;
}

/*
 * Who wins is a toss-up, so no branch depends on it: a processor would guess
 * wrong at every other node.
 */
void tt_merge_next(struct merge *m)
{
    uint64_t list = m->winner;
    uint64_t start = m->keys[list].start, seq = m->keys[list].seq;

    for (unsigned at = (m->winner + m->count) / 2; at > 0; at /= 2) {
        bool less =
            whole_key(m->starts[at], m->seqs[at]) < whole_key(start, seq);
        uint64_t swap = -(uint64_t)less, x;

        x = (m->starts[at] ^ start) & swap;
        m->starts[at] ^= x;
        start ^= x;
        x = (m->seqs[at] ^ seq) & swap;
        m->seqs[at] ^= x;
        seq ^= x;
        x = (m->losers[at] ^ list) & swap;
        m->losers[at] ^= x;
        list ^= x;
    }
    m->winner = (unsigned)list;
}

/* ---- reading a lane from front to back --------------------------------- */

struct lane_reader {
    const struct tt_run *run;
    const struct run_lane *lane; /* NULL: the run has no such lane */
    struct run_page page;
    bool held;
    unsigned index; /* of the present row */
    uint64_t next_page;
    uint64_t left; /* rows, the present one included */
    struct run_row row;
};

static int index_damaged(const struct tt_run *run, struct tt_error *err)
{
    return tt_fail(err, TT_EINDEX, EIO,
                   "the index is damaged: a lane of run %02x%02x%02x%02x does "
                   "not have the rows that it should",
                   run->info.id[0], run->info.id[1], run->info.id[2],
                   run->info.id[3]);
}

static void put_leaf(struct lane_reader *r)
{
    if (r->held) {
        tt_run_page_put(&r->page);
        r->held = false;
    }
}

/* Goes to the next leaf of the lane. */
static int next_leaf(struct lane_reader *r, struct tt_error *err)
{
    put_leaf(r);
    while (r->next_page < r->lane->end_page) {
        int ret = tt_run_page_get(r->run, r->next_page++, &r->page, err);

        if (ret < 0) {
            return ret;
        }
        if (r->page.type == RUN_PAGE_LEAF && r->page.lane == r->lane->id) {
            r->held = true;
            r->index = 0;
            return 0;
        }
        tt_run_page_put(&r->page);
    }
    return index_damaged(r->run, err);
}

static int take(struct lane_reader *r, struct merge_key *key,
                struct tt_error *err)
{
    int ret = 0;

    if (!r->left) {
        put_leaf(r);
        *key = MERGE_END;
        return 0;
    }
    if (!r->held || r->index == r->page.count) {
        ret = next_leaf(r, err);
    }
    if (ret == 0) {
        struct merge_key old = *key;

        tt_run_row(&r->page, r->index, &r->row);
        *key = (struct merge_key){ r->row.start, r->row.seq };
        if (r->left < r->lane->entries && !is_before(&old, key)) {
            ret = index_damaged(r->run, err);
        }
    }
    return ret;
}

static int advance(struct lane_reader *r, struct merge_key *key,
                   struct tt_error *err)
{
    r->index++;
    r->left--;
    return take(r, key, err);
}

static const struct run_lane *find_lane(const struct tt_run *run, unsigned id)
{
    for (unsigned i = 0; i < run->lane_count; i++) {
        if (run->lanes[i].id == id) {
            return &run->lanes[i];
        }
    }
    return NULL;
}

static int add(struct lane_reader *r, struct run_writer *w,
               struct tt_error *err)
{
    tt_le64 sums[1u << (PIECE_DATA_CLASSES - 1 - PIECE_GRID_CLASS)];
    unsigned beside = r->page.shape.beside;
    struct run_hit hit = { .run = r->run,
                           .page = r->page.number,
                           .index = r->index };
    int ret = 0;

    if (beside) {
        ret = tt_run_sums(&hit, r->lane->id & 63, 0, beside, sums, err);
    }
    if (ret == 0) {
        tt_run_writer_add(w, &r->row, sums);
    }
    return ret;
}

static int merge_lane(struct tt_run *const *runs, size_t count,
                      struct lane_reader *readers, unsigned id, struct merge *m,
                      struct run_writer *w, struct tt_error *err)
{
    int ret = 0;

    for (size_t i = 0; i < count && ret == 0; i++) {
        const struct run_lane *l = find_lane(runs[i], id);

        readers[i] = (struct lane_reader){ .run = runs[i], .lane = l };
        m->keys[i] = MERGE_END;
        if (l) {
            readers[i].next_page = l->first_page;
            readers[i].left = l->entries;
            ret = take(&readers[i], &m->keys[i], err);
        }
    }
    if (ret == 0) {
        tt_merge_start(m);
    }
    while (ret == 0 && !tt_merge_done(m) && !tt_run_writer_failed(w)) {
        struct lane_reader *r = &readers[m->winner];

        ret = add(r, w, err);
        if (ret == 0) {
            ret = advance(r, &m->keys[m->winner], err);
        }
        if (ret == 0) {
            tt_merge_next(m);
        }
    }
    for (size_t i = 0; i < count; i++) {
        put_leaf(&readers[i]);
    }
    return ret;
}

static int merge_lanes(struct tt_run *const *runs, size_t count,
                       struct lane_reader *readers, struct run_writer *w,
                       struct tt_error *err)
{
    struct merge m = { 0 };
    int ret = 0;

    if (!tt_merge_init(&m, (unsigned)count)) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    for (unsigned id = 0; id < RUN_KINDS << 6 && ret == 0; id++) {
        bool any = false;

        for (size_t i = 0; i < count; i++) {
            any |= find_lane(runs[i], id) != NULL;
        }
        if (any) {
            tt_run_writer_lane(w, id);
            ret = merge_lane(runs, count, readers, id, &m, w, err);
        }
    }
    tt_merge_clear(&m);
    return ret;
}

int tt_run_merge(struct tt_run *const *runs, size_t count,
                 const uint8_t id[static 16], const struct tt_sink *sink,
                 struct tt_run_info *ret_info, struct tt_error *err)
{
    struct lane_reader *readers = calloc(count, sizeof(*readers));
    struct run_writer *w = tt_run_writer_new(id, runs[0]->uuid, sink);
    int ret = 0;

    *ret_info = (struct tt_run_info){
        .first_seq = runs[0]->info.first_seq,
        .last_seq = runs[count - 1]->info.last_seq,
    };
    for (size_t i = 0; i < count; i++) {
        ret_info->versions += runs[i]->info.versions;
        if (memcmp(runs[i]->uuid, runs[0]->uuid, TT_UUID_SIZE) ||
            (i && runs[i]->info.first_seq != runs[i - 1]->info.last_seq + 1)) {
            ret = tt_fail(err, TT_EINDEX, 0,
                          "the index is damaged: its runs are not adjacent");
        }
    }
    if (ret == 0 && (!readers || !w)) {
        ret = tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    if (ret == 0) {
        ret = merge_lanes(runs, count, readers, w, err);
    }
    if (ret == 0) {
        ret = tt_run_writer_end(w, runs[count - 1]->chain, ret_info, err);
    }
    tt_run_writer_free(w);
    free(readers);
    return ret;
}
