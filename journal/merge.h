/*
 * Merging sorted lists: a tree of losers
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_MERGE_H
#define TTJOURNAL_MERGE_H

#include "run.h"

struct merge_key {
    uint64_t start, seq;
};

/* Of a list that has ended; no row has it. */
#define MERGE_END ((struct merge_key){ UINT64_MAX, UINT64_MAX })

/*
 * The caller sets keys[i] to the first key of list i, then tt_merge_start().
 * The least is that of list winner: take it, set its key to the list's next,
 * then tt_merge_next().
 */
struct merge {
    unsigned count; /* a power of two */
    unsigned winner;
    struct merge_key *keys;
    /* Of the match at each node but 0 who has lost: the list, and its key,
     * which does not change before it wins */
    uint64_t *losers, *starts, *seqs;
};

bool tt_merge_init(struct merge *m, unsigned count); /* all have ended */
void tt_merge_clear(struct merge *m);
void tt_merge_start(struct merge *m);
void tt_merge_next(struct merge *m);

static inline bool tt_merge_done(const struct merge *m)
{
    return m->keys[m->winner].start == UINT64_MAX;
}

#endif
