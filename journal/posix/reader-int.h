/*
 * What the files of the reader share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_READER_INT_H
#define TTJOURNAL_POSIX_READER_INT_H

#include <pthread.h>

#include "attach.h"
#include "file.h"
#include "reader.h"
#include "store.h"

/* A history and all that it reads from */
struct past {
    struct tt_file file; /* the reader's, with a size of its own */
    struct tt_history *history;
    struct tt_index_set *set; /* what it was opened with, or NULL */
};

struct tt_reader {
    struct tt_file *file;   /* its source is used while opening only */
    struct tt_super super;  /* as it was at open */
    struct tt_store *store; /* NULL: without an index on disk */

    pthread_rwlock_t lock;
    struct past *past;           /* protected by lock, what it holds too */
    _Atomic uint64_t generation; /* written with the lock held for writing */
    _Atomic uint64_t changes;    /* likewise: of what look-ups may answer */

    /*
     * What was known to be durable can only be missing from a journal that was
     * cut short or exchanged for another: then pre-images are missing, too, and
     * the live disk does not fit what is left.
     */
    uint64_t durable_seq; /* protected by lock, like what follows */
    bool has_durable_frame;
    uint64_t durable_offset, durable_chain; /* of a frame up to there */
    _Atomic bool cut; /* written with the lock held for writing */

    pthread_mutex_t reload; /* taken before lock */
    unsigned mended;        /* times the index was damaged; with reload */
    unsigned pause;         /* steps to leave out; with reload */
    unsigned failures;      /* one after the other; with reload */

    struct tt_disk *disk; /* set at open, NULL if there is none */
    char problem[TT_PROBLEM_SIZE];
};

/* Puts the journal's name in front of what the core says of its bytes. */
int tt_reader_named(const struct tt_reader *r, int ret, struct tt_error *err);

/* With the lock held: fails if the history is not the one that @v is of. */
int tt_reader_still_holds(struct tt_reader *r, struct tt_view *v,
                          struct tt_error *err);

/*
 * After @ret, which a function returned that looked into the history of
 * @generation: true if that was since the index is damaged, and another history
 * is there now.  No lock is held.
 */
bool tt_reader_mended(struct tt_reader *r, uint64_t generation, int ret);

#endif
