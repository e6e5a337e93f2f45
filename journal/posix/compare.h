/*
 * Does a disk at rest hold what its journal says that it holds?
 *
 * For the files of this directory.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_COMPARE_H
#define TTJOURNAL_POSIX_COMPARE_H

#include "pair.h"
#include "reader.h"

/* Zeroed, then the first part filled in by the caller. */
struct tt_compare {
    const struct tt_pair *pair;
    struct tt_reader *reader;
    struct tt_view *view; /* of the latest moment; its size is the journal's */
    void (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;

    /* Blocks of TT_GRID, found by tt_compare_run(): */
    struct tt_blocks *differ;  /* have a version, and hold something else */
    struct tt_blocks *unknown; /* what they should hold cannot be told */
    struct tt_blocks *grown;   /* behind the journal's end, if not all zero */
    /* In units of TT_SECTOR: cut off by a shrink, and never captured */
    struct tt_blocks *lost;

    uint64_t compared, differing, unknown_bytes, lost_bytes; /* bytes */
    uint64_t uncompared; /* have no version: there is nothing to compare */
    uint64_t oldest;     /* record of those that differ */

    uint8_t *ours, *theirs; /* buffers */
};

int tt_compare_run(struct tt_compare *c, struct tt_error *err);
void tt_compare_clear(struct tt_compare *c);

#endif
