/*
 * What the plugin's parts share: the disks that are served
 *
 *   config.c    parameters, machines and folders: which disks there are
 *   exports.c   names: which moment of which disk does a client ask for?
 *   journal.c   a disk's journal; only this and map.c ask the library
 *   map.c       extents, and what changed
 *   ttview.c    NBD
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTVIEW_H
#define TTVIEW_H

#include <glib.h>
#include <pthread.h>

#include "journal.h"

/* Several disks that were one machine's: a TIME opens all of them, or none. */
struct machine {
    char *name;
    GPtrArray *disks; /* of struct served, in the file's order */
};

/* A disk being served.  It stays, and so do its names and paths. */
struct served {
    char *name; /* in export names */
    char *path; /* of the journal, absolute */
    char *disk; /* where the live disk is, or NULL: as recorded */
    const struct machine *machine; /* or NULL */
    bool in_folder;                /* found there, not named by the user */

    pthread_mutex_t lock; /* protects what follows */
    struct journal *journal;
    /*
     * What the names "" and NAME mean: at= in this journal.  It is used if it
     * is of the journal above and did not depend on that journal's end.
     */
    struct state fallback;
    char *fallback_time; /* a TIME for it that stays the same */
};

/* Set up before the server forks; but for disks, then constant. */
struct serving {
    pthread_mutex_t lock; /* protects disks */
    GPtrArray *disks;     /* of struct served; grows only */
    GPtrArray *machines;
    GPtrArray *folders;   /* paths */
    char *at;             /* of at=, or "latest" */
    struct tt_zone *zone; /* of tz=, or one not given */

    /* single=: the only export, bound when the server starts */
    char *single;
    struct served *single_disk;
    struct state single_state;
    char *single_time; /* by sequence number */
    char *single_name; /* as it was given, but with the disk's name */
};

/* CLOCK_REALTIME in nanoseconds */
int64_t now_ns(void);

/* For what is worth knowing and no error; -f or not, stderr is still there. */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- config.c ------------------------------------------------------------ */

/* These report what is wrong themselves, and return -1. */
int config_set(struct serving *all, const char *key, const char *value);
int config_complete(struct serving *all);
void config_free(struct serving *all);
extern const char config_help[];

/* What folders hold by now; @start: tell the user what cannot be served. */
void scan_folders(struct serving *all, bool start);

/* ---- the disks ------------------------------------------------------------ */

/* As many as there are now; free with g_ptr_array_unref(). */
GPtrArray *serving_disks(struct serving *all);

/* The journal of @s, opened again if it was replaced; journal_unref() it. */
int served_journal(struct served *s, struct journal **ret,
                   struct tt_error *err);

/* ---- exports.c ------------------------------------------------------------ */

/* Works out what "" means for @s, before any client asks. */
int set_fallback(const struct serving *all, struct served *s,
                 struct tt_error *err);
/* The same for the export of single=. */
int set_single(struct serving *all, struct tt_error *err);

/*
 * Finds and binds what an export name asks for.  *ret_others (g_free() it) is
 * "", or tells where the other disks of the machine are at that TIME.
 */
int open_export(struct serving *all, const char *name, struct served **ret_disk,
                struct state *ret_state, char **ret_others,
                struct tt_error *err);

/* The canonical name of the export ""; g_free() it. */
char *default_name(struct serving *all);

struct nbdkit_exports;
int list_exports(struct serving *all, struct nbdkit_exports *exports);

#endif
