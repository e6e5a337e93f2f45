/*
 * What the files of the store share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_STORE_INT_H
#define TTJOURNAL_POSIX_STORE_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "indexdir.h"
#include "runfile.h"
#include "store.h"

/* Tells a file from all that had or will have its name. */
struct file_id {
    dev_t dev;
    ino_t ino;
    struct timespec changed;
};

struct file_id tt_file_id(const struct stat *st);

struct tt_index_set {
    _Atomic unsigned users;
    struct tt_catalog *catalog;
    struct tt_run_file **files; /* count of them, owned */
    struct tt_run **runs;       /* the same, for the library */
    size_t count;
    struct file_id file; /* of the catalog; zero: it has none */
};

struct tt_store {
    char *path, *folder; /* the journal's; the user's, or NULL */
    struct tt_super super;
    int fd; /* the journal's, not owned */
    struct tt_pagecache *cache;

    pthread_mutex_t build;   /* who has it may take lock, too */
    struct tt_index_dir dir; /* path NULL: none yet */

    pthread_mutex_t lock;
    struct tt_index_set *set; /* or NULL */
    char *where, *note;       /* or NULL */
};

/* Takes @catalog.  Its runs are still to be added.  NULL: out of memory. */
struct tt_index_set *tt_set_new(struct tt_catalog *catalog);
/* Takes @file. */
void tt_set_add(struct tt_index_set *set, struct tt_run_file *file);
/* The last record that @set (or NULL) covers, or 0. */
uint64_t tt_set_covered(const struct tt_index_set *set);

/* The journal as it is now; @f is not to be closed. */
int tt_store_journal(const struct tt_store *s, struct tt_file *f,
                     struct tt_error *err);
/* What lies in @d; -TT_EINDEX: nothing that fits this journal. */
int tt_store_load(struct tt_store *s, const struct tt_index_dir *d,
                  struct tt_index_set **ret, struct tt_error *err);
/* Takes @set, which may be NULL. */
void tt_store_install(struct tt_store *s, struct tt_index_set *set);
/* Takes @d in place of dir; with the build lock held. */
void tt_store_use_dir(struct tt_store *s, const struct tt_index_dir *d);

#endif
