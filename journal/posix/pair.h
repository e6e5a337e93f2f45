/*
 * A journal and its disk, for tools that append to the journal
 *
 * What recovery and reconciliation share.  For the files of this directory.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_PAIR_H
#define TTJOURNAL_POSIX_PAIR_H

#include "appender.h"
#include "disk.h"
#include "target.h"

struct tt_pair {
    struct tt_appender *a;
    struct tt_target *target; /* a file or block device, or NULL: */
    struct tt_disk *nbd;      /* an NBD server */
};

bool tt_pair_same_file(const char *a, const char *b);

/*
 * The newest session that recorded a disk: 1, or 0 if there is none (or it
 * lies behind damage).  *ret is to be cleared if it is there.
 */
int tt_pair_recorder(struct tt_appender *a, struct tt_session *ret,
                     struct tt_error *err);

/*
 * Refuses what was recorded as another format.  *ret_recorded: some session
 * recorded a disk; *ret_known_raw: and said that it was raw.
 */
int tt_pair_check_raw(struct tt_appender *a, const char *disk,
                      bool *ret_recorded, bool *ret_known_raw,
                      struct tt_error *err);

const char *tt_pair_disk_name(const struct tt_pair *p);
uint64_t tt_pair_disk_size(const struct tt_pair *p);
int tt_pair_read(const struct tt_pair *p, uint64_t offset, void *buf,
                 size_t length, struct tt_error *err);
/* How many bytes from @offset on, at most @length, are known to be zero. */
uint64_t tt_pair_hole(const struct tt_pair *p, uint64_t offset,
                      uint64_t length);

/*
 * Is the disk the one that was left (journal/prove.c)?  -TT_EOTHERDISK: no,
 * and why.  @buf has TT_PAYLOAD_RECORD_MAX bytes.
 */
int tt_pair_prove(const struct tt_pair *p, void *buf, bool *ret_shrunk,
                  struct tt_error *err);

/* The journal's tail again, and SESSION of a tool that names the disk. */
int tt_pair_start(const struct tt_pair *p, const char *program,
                  struct tt_error *err);

/*
 * The body of the next CHECKPOINT with what is not in the map yet: free() it.
 * *ret_req is the record; with TT_RECORD_MORE another one follows.  Once it is
 * appended: tt_pair_checkpoint_done().
 */
uint8_t *tt_pair_checkpoint(const struct tt_pair *p, struct tt_checkpoint *c,
                            struct tt_request *ret_req, struct tt_error *err);
void tt_pair_checkpoint_done(const struct tt_pair *p, const uint8_t *body,
                             const struct tt_append *ap);

/*
 * The disk is level and at rest: flushes it and closes the journal clean.
 * *ret_warning: what failed once that was done; its code is 0 if nothing did.
 */
int tt_pair_close(const struct tt_pair *p, uint64_t *ret_checkpoint_seq,
                  struct tt_error *ret_warning, struct tt_error *err);

#endif
