/*
 * The index of one journal, as files that processes share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_STORE_H
#define TTJOURNAL_POSIX_STORE_H

#include <ttjournal/index.h>

#include "file.h"

/* Any number of threads may use one store at once. */
struct tt_store;

/*
 * An index as it was published once: a catalog and its runs, open.  It serves
 * as long as somebody has it, whatever becomes of the files' names.
 */
struct tt_index_set;

/*
 * Finds the index of @journal, which must stay open until the store is closed:
 * below the folder @folder if that is not NULL, else where it usually lies.
 * That there is none, or one that does not fit, is no error; nothing is
 * written.  -TT_EINVAL: there is no such folder.
 */
int tt_store_open(const struct tt_file *journal, const struct tt_super *super,
                  const char *folder, struct tt_store **ret,
                  struct tt_error *err);
void tt_store_close(struct tt_store *s);

/* What is there now, or NULL; to be put back. */
struct tt_index_set *tt_store_get(struct tt_store *s);
struct tt_index_set *tt_index_set_ref(struct tt_index_set *set);
void tt_index_set_put(struct tt_index_set *set); /* @set may be NULL */
const struct tt_catalog *tt_index_set_catalog(const struct tt_index_set *set);
struct tt_run *const *tt_index_set_runs(const struct tt_index_set *set,
                                        size_t *ret_count);

struct tt_store_work {
    /*
     * Something is done only if so many bytes of the journal can be covered
     * that are not yet; 0: whatever there is, and what a killed process has
     * left is removed.
     */
    uint64_t at_least;
    bool wait;  /* until another process that is at it has ended */
    bool named; /* fail if there is no room for files with names */
    /* May be NULL; false stops it after what is done so far. */
    bool (*progress)(void *opaque, const struct tt_builder_stats *stats);
    void *opaque;

    bool busy;    /* returned: another process is at it */
    bool grown;   /* returned: tt_store_get() gives another set than before */
    bool stopped; /* returned: by progress() */
    unsigned runs_written, runs_merged; /* returned */
    struct tt_builder_stats stats;      /* returned, of what was done here */
};

/*
 * Brings the index up to date: first with what other processes have made,
 * then with what the journal has.  What cannot be written to where the index
 * lies goes to files without names.  On failure the set is as good as before.
 */
int tt_store_extend(struct tt_store *s, struct tt_store_work *work,
                    struct tt_error *err);

/*
 * @set was found not to fit its journal, or a page of it is damaged: it is
 * forgotten, here and on disk, unless that has happened already.
 */
void tt_store_forget(struct tt_store *s, const struct tt_index_set *set);

/*
 * Where the index lies (NULL: nowhere yet), or one line that says why it is not
 * where a user expects it (else "").  Both are to be freed with free().
 */
char *tt_store_where(struct tt_store *s);
char *tt_store_note(struct tt_store *s);

/* Bytes of the files of @set. */
uint64_t tt_index_set_bytes(const struct tt_index_set *set);

#endif
