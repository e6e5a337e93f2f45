/*
 * Reconciliation: a disk that was changed while nobody recorded, and its
 * journal
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_RECONCILER_H
#define TTJOURNAL_POSIX_RECONCILER_H

#include <ttjournal/ttjournal.h>

#include "watcher.h"

struct tt_reconciler;

struct tt_reconcile_options {
    const char *disk;  /* path or NBD URI; NULL: where it was recorded */
    const char *index; /* as in struct tt_reader_options */
    bool check;        /* compare only: no lock is kept, nothing is written */
    bool as_is;        /* the disk counts, even if recovery would change it */
};

struct tt_reconcile_report {
    const char *disk;  /* which one it is */
    char why[512];     /* what the proof says against the disk, or "" */
    bool differs;      /* there is something to record */
    bool touched;      /* it is written, also if nothing differs: the disk was
                         changed, but not in what can be compared */
    uint64_t last_seq; /* the end of history that was found */
    uint64_t old_size, new_size; /* the journal's, the disk's */
    uint64_t compared_bytes;     /* equal or not */
    uint64_t differing_bytes;    /* in sectors that differ */
    uint64_t unknown_bytes;      /* a gap or damage hides what was there */
    uint64_t uncompared_bytes;   /* have no version */
    uint64_t lost_bytes;         /* had none, and are cut off */
    uint64_t dropped;            /* ranges that recovery would redo */
    uint64_t from_seq;           /* the disk was changed after this one */
    bool has_from_time;
    int64_t from_time;
    /* what was done: */
    uint64_t captured_bytes;
    uint64_t write_bytes, zero_bytes; /* recorded as found */
    uint64_t exact_seq;               /* from here on views are exact again */
    uint64_t checkpoint_seq;
};

/*
 * Opens and locks both.  Refuses a pair that recovery can put in order.
 */
int tt_reconciler_open(const char *journal,
                       const struct tt_reconcile_options *options,
                       struct tt_reconciler **ret, struct tt_error *err);
const struct tt_reconcile_report *
tt_reconciler_report(const struct tt_reconciler *r);

/*
 * Compares, and (unless it only checks) records what differs in a session of
 * @program.  Interrupted at any point the next one finishes it.
 */
int tt_reconciler_run(struct tt_reconciler *r, const char *program,
                      const struct tt_watcher *ops, struct tt_error *err);
void tt_reconciler_close(struct tt_reconciler *r);

#endif
