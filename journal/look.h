/*
 * Look-ups: which version of this byte counts?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_LOOK_H
#define TTJOURNAL_LOOK_H

#include "history.h"
#include "run.h"

/* What was found at a place: a piece, or nothing. */
struct look {
    bool found;
    bool zero;    /* it reads as zeroes */
    uint8_t cell; /* see piece.h */
    unsigned piece_class;
    uint64_t end; /* the answer holds up to here, at least */
    uint64_t seq; /* of the record */
    uint64_t start, place;
    const tt_le64 *sums; /* of the tail's; NULL: in a run */
    struct run_hit hit;
};

/*
 * What look-ups tell those that follow: of places behind theirs, as of the
 * same moment.  Of lanes for which there is no room nothing is told.
 */
#define LOOK_SLOTS 128u
struct look_memo {
    size_t lanes; /* of all runs */
    struct run_memo slots[LOOK_SLOTS];
};

void tt_look_begin(const struct tt_history *h, struct look_memo *memo);
/* Lets go of the pages that it holds. */
void tt_look_end(struct look_memo *memo);

/* The version of the byte at @at with the largest seq that is <= @seq. */
int tt_look_newest(const struct tt_history *h, uint64_t at, uint64_t seq,
                   struct look_memo *memo, struct look *ret,
                   struct tt_error *err);
/* The version of it with the smallest seq. */
int tt_look_oldest(const struct tt_history *h, uint64_t at, struct look *ret,
                   struct tt_error *err);
/* Its first pre-image. */
int tt_look_preimage(const struct tt_history *h, uint64_t at,
                     struct look_memo *memo, struct look *ret,
                     struct tt_error *err);

/* The checksums of @count cells from the one that holds @at on. */
int tt_look_sums(const struct look *l, uint64_t at, unsigned count,
                 tt_le64 *ret_sums, struct tt_error *err);

#endif
