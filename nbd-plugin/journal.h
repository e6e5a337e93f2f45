/*
 * What the plugin asks of journals: all of its access to them is here
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTVIEW_JOURNAL_H
#define TTVIEW_JOURNAL_H

#include <posix/disk.h>
#include <posix/reader.h>
#include <posix/zone.h>

/*
 * An open journal.  It is counted: when another file takes its place, who
 * reads views of the old one keeps that.
 */
struct journal;

/* Where all look for indexes, and keep them; NULL: where they usually lie.
 * Owned; does not change after the configuration. */
extern char *journal_index;

int journal_open(const char *path, const char *disk, struct journal **ret,
                 struct tt_error *err);
struct journal *journal_ref(struct journal *j);
void journal_unref(struct journal *j); /* may be NULL */

/* Is another file at its path now? */
bool journal_replaced(const struct journal *j);
/* One line that the user should know of the live disk, or "". */
const char *journal_warning(const struct journal *j);
/* One line if its index is not where a user expects it, else ""; to be freed. */
char *journal_index_note(const struct journal *j);

/* -TT_ENODISK if its views need the live disk and there is none. */
int journal_usable(struct journal *j, struct tt_error *err);

/* Takes in what was appended since. */
int journal_refresh(struct journal *j, struct tt_error *err);
/* The same for a thread that does so all the time: a failure is logged once. */
void journal_follow(struct journal *j);

/* ---- states ------------------------------------------------------------- */

/*
 * What an export shows: the disk at a moment, or what changed since another.
 * Plain data but for the journal, which is counted.
 */
struct state {
    struct journal *journal; /* NULL: nothing to clear */
    struct tt_view view;
    bool changes; /* between since and view */
    struct tt_view since;
    bool moving; /* bound to what was the journal's end */
    bool fixed;  /* whenever its TIME is bound, it will be the same */
};

/* Binds a TIME, or T1..T2.  Arguments as in tt_moment_resolve(). */
int state_bind(struct journal *j, const char *text, const struct tt_zone *zone,
               int64_t now, struct state *ret, struct tt_error *err);
void state_copy(struct state *to, const struct state *from);
void state_clear(struct state *s);

/*
 * A TIME that means the moment of @s for ever.  Unless @pinned, what is bound
 * to the journal's end is the time itself, or "latest".  free() it.
 */
char *state_time(const struct state *s, bool pinned);

/* One line about it; free() it. */
char *state_describe(struct state *s, const char *name);

int state_read(struct state *s, uint64_t offset, void *buf, size_t length,
               struct tt_error *err);

enum piece_kind {
    PIECE_DATA,
    PIECE_ZERO, /* it reads as zeroes */
    PIECE_SAME, /* it did not change */
};

/*
 * Calls @fn for the pieces of the range in order, each clipped to it, until
 * that fails or the range ends; it may end early, but never before the first.
 * @one: what comes behind the first kind is not needed.
 */
typedef int piece_fn(void *opaque, uint64_t offset, uint64_t length,
                     enum piece_kind kind);
int state_map(struct state *s, uint64_t offset, uint64_t length, bool one,
              piece_fn *fn, void *opaque, struct tt_error *err);

/* Shows with nbdkit_debug() where the bytes of the range are. */
void state_debug(struct state *s, uint64_t offset, uint64_t length);

/* ---- what there is to open ----------------------------------------------- */

/* When was the mark @name set?  False: there is no such mark, or several. */
bool journal_mark(struct journal *j, const char *name, int64_t *ret_time);

struct listed {
    const char *time;  /* opens it */
    const char *name;  /* of a mark, else NULL */
    const char *about; /* one line */
};

/* Newest first; false from @fn stops.  @fn must not ask the journal. */
typedef bool listed_fn(void *opaque, const struct listed *entry);
void journal_list_marks(struct journal *j, listed_fn *fn, void *opaque);
void journal_list_sessions(struct journal *j, listed_fn *fn, void *opaque);

#endif
