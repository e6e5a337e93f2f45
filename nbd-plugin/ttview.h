/*
 * What the plugin's two halves share: the journals that are served
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTVIEW_H
#define TTVIEW_H

#include <posix/disk.h>
#include <posix/reader.h>
#include <posix/zone.h>

/* A journal being served.  Set up before the server forks, then constant. */
struct served {
    char *name; /* in export names */
    char *path; /* absolute */
    struct tt_reader *reader;

    /* What the export name "" means */
    char *default_time; /* a TIME that stays the same */
    bool default_fixed; /* and then default_view is what it means */
    struct tt_view default_view;
};

/* All of them; this version serves exactly one. */
struct served_list {
    struct served *list;
    size_t count;
    const char *at;             /* of at=, or "latest" */
    const struct tt_zone *zone; /* of tz=, or one not given */
};

/* CLOCK_REALTIME in nanoseconds */
int64_t now_ns(void);

/* Reports @err to user and client: one line, and an errno NBD knows. */
void report(const struct tt_error *err, int os_errno);

/* True if a TIME means the same moment whenever it is asked for. */
bool time_is_fixed(const char *text, const struct tt_moment *m);

/* Works out what "" means for @s. */
int set_default(const struct served_list *all, struct served *s,
                struct tt_error *err);

/*
 * Finds the journal and the TIME that an export name asks for; @ret_time
 * points into @name or into the journal.
 */
int find_export(const struct served_list *all, const char *name,
                struct served **ret_served, const char **ret_time,
                struct tt_error *err);

/* Binds a TIME of @s; *ret_fixed: whenever asked, it means this. */
int bind_time(const struct served_list *all, struct served *s, const char *time,
              struct tt_view *ret_view, bool *ret_fixed, struct tt_error *err);

/* One line about a view, for export_description; the caller frees it. */
char *describe_view(struct served *s, struct tt_view *v);

struct nbdkit_exports;
int list_journal(const struct served_list *all, struct served *s,
                 struct nbdkit_exports *exports);

#endif
