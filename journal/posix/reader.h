/*
 * A journal opened for views: history, live disk and a lock around them
 *
 * Any number of threads may use one reader at once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_READER_H
#define TTJOURNAL_POSIX_READER_H

#include <stdatomic.h>
#include <ttjournal/ttjournal.h>

struct tt_reader;

/*
 * Opens the journal at @path and reads its history.  The live disk is @disk (a
 * path or an NBD URI), else the one that the newest recording session names,
 * if that is raw and here; else there is none, and tt_reader_disk_problem()
 * says why.  A disk that is not this journal's is refused.
 */
int tt_reader_open(const char *path, const char *disk, struct tt_reader **ret,
                   struct tt_error *err);

struct tt_reader_options {
    const char *disk;  /* as in tt_reader_open() */
    const char *index; /* the folder where indexes are kept, or NULL: beside */
                       /* the journal, or in the user's cache */
    bool no_index;     /* keep all in memory instead */
};
int tt_reader_open_with(const char *path,
                        const struct tt_reader_options *options,
                        struct tt_reader **ret, struct tt_error *err);
void tt_reader_close(struct tt_reader *r);

/* Takes in what was appended since, undurable frames included. */
int tt_reader_refresh(struct tt_reader *r, struct tt_error *err);

/*
 * Counts what may change the answers of look-ups.  If it is after a refresh
 * what it was before a look, looking again would tell the same.
 */
uint64_t tt_reader_changes(const struct tt_reader *r);

/*
 * For a server, once or twice a second, by one thread: takes in what was
 * appended since, so that no reader has to, and keeps the index up to date.
 */
int tt_reader_follow(struct tt_reader *r, struct tt_error *err);

/*
 * One line if the index is not where a user expects it, else "".  To be freed
 * with free().
 */
char *tt_reader_index_note(struct tt_reader *r);

/*
 * The history, for questions about epochs, marks and the like.  It stays as it
 * is until tt_reader_unlock(); do not keep the lock over slow work.
 */
const struct tt_history *tt_reader_lock(struct tt_reader *r);
void tt_reader_unlock(struct tt_reader *r);

/* Where the live disk is, or NULL if there is none. */
const char *tt_reader_disk(const struct tt_reader *r);
/* One line if there is no live disk or it looks doubtful, else "". */
const char *tt_reader_disk_problem(const struct tt_reader *r);

/*
 * Does the live disk (false if there is none) read as zeroes at @offset just
 * now?  As in tt_disk_zero().  Look up again afterwards: a block that has a
 * version then may have been overwritten before the disk was asked.
 */
bool tt_reader_disk_zero(const struct tt_reader *r, uint64_t offset,
                         uint64_t length, uint64_t *ret_run);

/*
 * A past state.  It is bound to the frame that ends it, not only to a
 * sequence number: a power cut may take the undurable end of a journal, and a
 * later session then uses its numbers again.
 */
struct tt_view {
    struct tt_moment moment;
    uint64_t size; /* of the disk, then */
    uint8_t uuid[TT_UUID_SIZE];
    bool anchored;               /* false: no frame yet, nothing to lose */
    bool anchor_durable;         /* it was durable when the view was made */
    uint64_t anchor_offset;      /* a whole frame at or after moment.seq */
    uint64_t anchor_chain;       /* own_chain of that frame */
    _Atomic uint64_t generation; /* of the history it was last found in */
};

/* Binds @text to a view; arguments as in tt_moment_resolve(). */
int tt_reader_bind(struct tt_reader *r, const char *text,
                   const struct tt_zone *zone, int64_t now,
                   struct tt_view *ret_view, struct tt_error *err);

/* True while a power cut might still take some of what the view holds. */
bool tt_reader_provisional(struct tt_reader *r, const struct tt_view *v);

/* -TT_ENODISK if the view needs a live disk and there is none. */
int tt_reader_check(struct tt_reader *r, struct tt_view *v,
                    struct tt_error *err);

/* Fills @buf with what the disk held, whole, or fails. */
int tt_reader_read(struct tt_reader *r, struct tt_view *v, uint64_t offset,
                   void *buf, size_t length, struct tt_error *err);

/*
 * Calls @fn for the extents of the range in order, each clipped to it, until
 * that returns false or the range ends.
 */
int tt_reader_extents(struct tt_reader *r, struct tt_view *v, uint64_t offset,
                      uint64_t length, tt_extent_fn *fn, void *opaque,
                      struct tt_error *err);

/*
 * What tt_history_recent() tells, without what a gap puts in doubt: of @room
 * that are looked at.
 */
int tt_reader_recent(struct tt_reader *r, uint64_t level_seq,
                     struct tt_extent *ret_extents, size_t room,
                     size_t *ret_count, struct tt_error *err);

#endif
