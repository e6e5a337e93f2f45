/*
 * What the files of the reconciler share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_RECONCILER_INT_H
#define TTJOURNAL_POSIX_RECONCILER_INT_H

#include "compare.h"
#include "pair.h"
#include "reconciler.h"

/* Payload of one frame */
#define FRAME_PAYLOAD (2 * TT_MIB)

struct tt_reconciler {
    bool check, as_is, recorded, at_rest;
    char *disk;
    struct tt_pair pair;
    struct tt_reader *reader;
    struct tt_view view;
    struct tt_compare compare;
    struct tt_reconcile_report report;
    const struct tt_watcher *ops;
    int64_t from_time;
    uint64_t from_epoch;
    bool was_damaged; /* records are missing: nothing may be captured */
    uint8_t *buf;     /* FRAME_PAYLOAD bytes */
    size_t used;      /* by the payloads of the frame that is forming */
    uint64_t done, total;
};

/*
 * Appends, in a session of @program, what compare has found, and closes the
 * journal clean.
 */
int tt_reconciler_record(struct tt_reconciler *r, const char *program,
                         struct tt_error *err);

#endif
