/*
 * How a tool writes frames: what marks and recovery share
 *
 * For the files of this directory; others append through file.h.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_APPENDER_H
#define TTJOURNAL_POSIX_APPENDER_H

#include "file.h"

struct tt_appender {
    int fd;
    char *path;
    bool read_only;         /* it only looks: no lock is held */
    struct tt_file reading; /* the same descriptor, to read through */
    struct tt_super super;
    struct tt_recovery recovery;
    struct tt_writer *writer; /* recovery's */
    struct tt_batch *batch;
    bool broken;
};

/*
 * Opens the journal, takes QEMU's image lock (@read_only: only asks whether
 * somebody has it) and finds out what a writer must know.  Writes nothing.
 */
int tt_appender_prepare(const char *path, bool read_only, tt_accept_fn *accept,
                        void *opaque, struct tt_appender **ret,
                        struct tt_error *err);

/*
 * Rewrites the journal's tail and appends SESSION, then a DAMAGE for each
 * place that nobody noted before.  @about has the program, flags and what is
 * known of the disk; the rest is filled in.
 */
int tt_appender_start(struct tt_appender *a, const struct tt_session *about,
                      struct tt_error *err);

/*
 * Appends what is in a->batch (tt_appender_begin(), tt_batch_add()) as one
 * frame, durable on return.  *ret is of no more use than its numbers.
 */
void tt_appender_begin(struct tt_appender *a);
int tt_appender_commit(struct tt_appender *a, struct tt_append *ret,
                       struct tt_error *err);
/* The same for one record; *ret may be NULL. */
int tt_appender_add(struct tt_appender *a, const struct tt_request *req,
                    struct tt_append *ret, struct tt_error *err);

void tt_appender_free(struct tt_appender *a);

/* CLOCK_REALTIME and CLOCK_BOOTTIME. */
struct tt_now tt_clocks(void);

#endif
