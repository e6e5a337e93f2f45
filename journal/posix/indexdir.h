/*
 * Where an index lies, and how files come into it and leave it
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_INDEXDIR_H
#define TTJOURNAL_POSIX_INDEXDIR_H

#include <sys/types.h>
#include <ttjournal/ttjournal.h>

#include "file.h"

/* Names: "new-" or "run-" and a number of 16 bytes in hex; and the catalog. */
#define TT_INDEX_ID_SIZE 16
#define TT_INDEX_NAME_SIZE 40
#define TT_INDEX_CATALOG "catalog"

/*
 * The folder of one journal's index, or none: then the files that are made
 * have no names, and vanish with their descriptors.  Zeroed with fd -1: not
 * open.
 */
struct tt_index_dir {
    int fd;         /* of the folder; -1: none */
    char *path;     /* of the folder, or where files without names go */
    bool writable;  /* files can be made */
    char note[512]; /* one line if it is not where a user expects it, or "" */
};

/* Fails if @folder, which a user named, is none. */
int tt_index_dir_check(const char *folder, struct tt_error *err);

/*
 * Opens the folder of the journal @journal with @uuid, made if @make: the
 * @n-th of those where it may be.  Below @folder if that is not NULL; else
 * beside the journal (0) or in the user's cache (1).  0 or -errno; -ERANGE:
 * there is no such place, nor further ones.
 */
int tt_index_dir_open(const struct tt_file *journal,
                      const uint8_t uuid[TT_UUID_SIZE], const char *folder,
                      unsigned n, bool make, struct tt_index_dir *ret);
/* No folder, since there cannot be one where @where says. */
void tt_index_dir_none(const char *where, int os_errno,
                       struct tt_index_dir *ret);
void tt_index_dir_close(struct tt_index_dir *d);

/*
 * One process at a time makes or removes files.  Returns a descriptor whose
 * closing unlocks, or -errno: -EWOULDBLOCK if another one does unless @wait.
 */
int tt_index_dir_lock(const struct tt_index_dir *d, bool wait);

/* Opens a file of the index for reading: a descriptor or -errno. */
int tt_index_dir_open_file(const struct tt_index_dir *d, const char *name,
                           uint64_t *ret_size);

/*
 * A new file to be filled, with a name that is not final yet ("" without a
 * folder): a descriptor or -errno.
 */
int tt_index_dir_create(const struct tt_index_dir *d,
                        const uint8_t id[TT_INDEX_ID_SIZE],
                        char ret_name[static TT_INDEX_NAME_SIZE]);
/*
 * What is in @fd becomes durable and the file @name gets the name @to, over
 * what had it before.  0 or -errno; then it is removed.
 */
int tt_index_dir_finish(const struct tt_index_dir *d, int fd, const char *name,
                        const char *to);
void tt_index_dir_discard(const struct tt_index_dir *d, const char *name);
/* A number that no other file has. */
void tt_index_dir_new_id(uint8_t ret_id[TT_INDEX_ID_SIZE]);
/* The final name of the run @id. */
void tt_index_dir_run_name(const uint8_t id[TT_INDEX_ID_SIZE],
                           char ret_name[static TT_INDEX_NAME_SIZE]);

/*
 * Removes our files but those that @keep says are needed; with the lock held.
 */
typedef bool tt_index_keep(void *opaque, const char *name);
void tt_index_dir_clean(const struct tt_index_dir *d, tt_index_keep *keep,
                        void *opaque);

#endif
