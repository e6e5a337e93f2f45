/*
 * The catalog of an index
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_CATALOG_H
#define TTJOURNAL_CATALOG_H

#include <ttjournal/index.h>

#include "history.h"

struct tt_catalog {
    /*
     * All that is covered and is no version, also what waits in a builder to
     * be written as a run.
     */
    struct tt_history *rest;
    uint8_t uuid[TT_UUID_SIZE];
    struct tt_run_info *runs;
    size_t run_count, run_room;
    /*
     * What is covered ends before the frame at next_offset, a segment's start;
     * next_chain is that frame's own chain value, end_chain that of the one
     * before.  All 0: nothing is covered.
     */
    uint64_t next_offset, next_chain, end_chain;
    uint64_t last_seq;
};

/* Copies the rest into @h, which has begun. */
int tt_catalog_rest(const struct tt_catalog *c, struct tt_history *h,
                    struct tt_error *err);
/* Are @runs those that @c names? */
int tt_catalog_has_runs(const struct tt_catalog *c, struct tt_run *const *runs,
                        size_t run_count, struct tt_error *err);
bool tt_catalog_add_run(struct tt_catalog *c, const struct tt_run_info *info);

#endif
