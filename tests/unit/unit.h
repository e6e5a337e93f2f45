/*
 * What the unit tests share: a recorder on a small disk, ready to write
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef UNIT_H
#define UNIT_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "simwriter.h"

typedef unsigned long long ull;

/* The call succeeds, or the test says what the model found wrong. */
#define OK(sw, call)                                                           \
    do {                                                                       \
        int ok_ret = (call);                                                   \
        ck_assert_msg(ok_ret == 0, "%s: %d %s", #call, ok_ret,                 \
                      ok_ret == SW_WRONG ? (sw)->problem : "");                \
    } while (0)

struct unit {
    struct sim_world world;
    struct simwriter sw;
};

/* A journal for a disk of 64 KiB full of random bytes; not open. */
void unit_create(struct unit *u, uint64_t seed);
/* The same, open. */
void unit_begin(struct unit *u, uint64_t seed);
void unit_end(struct unit *u);
/* A write of random bytes. */
void unit_write(struct unit *u, uint64_t offset, uint64_t length);
/* Writes until @left bytes are left of the segment. */
void unit_fill_segment(struct unit *u, uint64_t left);
/* Ends the session and opens a new one. */
void unit_reopen(struct unit *u);
/*
 * Appends a GAP of [@offset, @offset + @length), of the whole disk if @length
 * is 0.  Returns its sequence number.
 */
uint64_t unit_gap(struct unit *u, uint64_t opens, uint32_t flags,
                  uint64_t offset, uint64_t length);
/* The power is cut, and the journal's sector at @lost never arrived. */
void unit_cut_power(struct unit *u, uint64_t lost);
/* Steps CLOCK_REALTIME. */
void unit_step_clock(struct unit *u, int64_t seconds);

enum unit_part { UNIT_HEADER, UNIT_TABLE, UNIT_PAYLOAD, UNIT_WHOLE };
/* Of the frame @n nothing, or that part, is any more what was written. */
void unit_destroy(struct unit *u, const struct sim_node *n,
                  enum unit_part part);

/* What a scan of the whole journal found */
#define UNIT_DAMAGES 16
struct unit_scan {
    struct tt_scan scan;
    unsigned frames, damage_count;
    struct tt_damage damages[UNIT_DAMAGES];
    uint64_t seqs; /* in the accepted frames */
};
void unit_scan(struct unit *u, struct unit_scan *ret);

/* What two histories of one journal count is the same. */
void unit_same_stats(const struct tt_history *a, const struct tt_history *b);

/*
 * A scan from where @h says meets all that one of everything does, for each
 * @step-th record.
 */
void unit_same_scans(const struct tt_source *src, const struct tt_history *h,
                     uint64_t step);

/*
 * How often something is to be done that is done @all times: less often for
 * tools that take fifty times as long, and look for what one round shows as
 * well as a hundred (TTJ_ROUNDS_IN=n: every n-th), but @least so often.
 */
unsigned unit_rounds(unsigned all, unsigned least);

/* Runs the tests; the exit status. */
int unit_run(const char *name, const TTest *const *const *tests);

#endif
