/*
 * Versions that wait to be written as a run
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_PEND_H
#define TTJOURNAL_PEND_H

#include "footread.h"
#include "run.h"

#define PEND_LANES (RUN_KINDS << 6)

/* A row; the cell is in the low bits of place, which are 0 otherwise. */
struct pend_row {
    uint64_t start, seq, place, sum;
};

struct pend_lane {
    struct pend_row *rows;
    size_t count, room;
    tt_le64 *sums; /* of lanes that have them beside their rows */
    size_t sums_count, sums_room;
    /* Each list of rows that is in order begins at one of these, or at 0 */
    size_t *starts;
    size_t starts_count, starts_room;
};

/* Zeroed is empty. */
struct pend {
    struct pend_lane lanes[PEND_LANES];
    uint64_t versions;
    size_t memory;
};

/* How much of each lane there was */
struct pend_mark {
    size_t count[PEND_LANES], sums_count[PEND_LANES], starts_count[PEND_LANES];
    uint64_t versions;
    size_t memory;
};

/* False: out of memory. */
bool tt_pend_version(struct pend *p, const struct placed *v);
bool tt_pend_time(struct pend *p, uint64_t seq, int64_t time, uint64_t frame);

void tt_pend_mark(const struct pend *p, struct pend_mark *ret_mark);
void tt_pend_back(struct pend *p, const struct pend_mark *mark);
void tt_pend_reset(struct pend *p);
void tt_pend_clear(struct pend *p);

/* Writes all, in order; errors are w's, but for want of memory. */
bool tt_pend_write(struct pend *p, struct run_writer *w);

#endif
