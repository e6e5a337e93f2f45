/*
 * Recovery without QEMU: brings a raw disk up to date with its journal
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_RECOVERER_H
#define TTJOURNAL_POSIX_RECOVERER_H

#include <ttjournal/ttjournal.h>

#include "watcher.h"

struct tt_recoverer;

/* What there is to do, and after tt_recoverer_run() what was done. */
struct tt_recover_report {
    bool nothing;       /* closed clean, or never recorded into */
    uint64_t level_seq; /* the disk was certain to hold all up to here */
    uint64_t last_seq;  /* the end of history that was found */
    uint64_t rewritten_frames, rewritten_bytes; /* of the journal's tail */
    uint64_t damages; /* places in the journal that nobody noted before */
    /* what the disk may lack, newest versions only: */
    uint64_t records, ranges;
    uint64_t write_bytes, zero_bytes;
    uint64_t first_seq, newest_seq; /* of those records; 0: there are none */
    int64_t first_time, newest_time;
    uint64_t captured_bytes;     /* PREIMAGEs; complete after the run only */
    uint64_t old_size, new_size; /* unlike if the disk is resized */
    uint64_t damaged_bytes;      /* could not be redone; after the run */
    uint64_t checkpoint_seq;     /* what says that it is done */
};

/*
 * Opens and locks both, scans the journal, and proves that the disk is the one
 * that was left (-TT_EOTHERDISK: it is not).  Writes nothing.  With @dry_run
 * no lock is kept, and tt_recoverer_run() writes nothing either: it reads and
 * checks what would be redone.
 */
int tt_recoverer_open(const char *journal, const char *disk, bool dry_run,
                      struct tt_recoverer **ret, struct tt_error *err);
const struct tt_recover_report *
tt_recoverer_report(const struct tt_recoverer *r);

/*
 * Does it, in a session of @program.  Interrupted at any point, the next one,
 * or QEMU's open, begins anew and finishes it.
 */
int tt_recoverer_run(struct tt_recoverer *r, const char *program,
                     const struct tt_watcher *ops, struct tt_error *err);
void tt_recoverer_close(struct tt_recoverer *r);

#endif
