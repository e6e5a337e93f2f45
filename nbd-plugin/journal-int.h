/*
 * What journal.c and map.c share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTVIEW_JOURNAL_INT_H
#define TTVIEW_JOURNAL_INT_H

#include <stdatomic.h>
#include <sys/types.h>

#include "journal.h"

/* One answer about extents takes at most so many look-ups, the rest follows */
#define LOOKUPS_MAX 65536u

struct file_id {
    dev_t dev, rdev;
    ino_t ino;
};

struct journal {
    atomic_uint refs;
    char *path;
    struct file_id id;
    struct tt_reader *reader;
    /* A disk of so many bytes is known to be in the journal as a whole. */
    _Atomic uint64_t whole_size;
    char *failure; /* logged last; of the thread that follows */
};

#endif
