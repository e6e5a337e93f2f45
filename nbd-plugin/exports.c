/*
 * Export names: which moment of which journal does a client ask for?
 *
 *     NAME@TIME    the journal called NAME at TIME
 *     @TIME        the same, if only one journal is served
 *     NAME, ""     the default moment: at=, else latest
 *
 * NAME is compared as a whole before the name is split, so it may itself hold
 * an '@', and TIME begins behind the '@' that follows it, so TIME may begin
 * with one ("vda@@1700000000.5").  Names that are not listed can be opened all
 * the same; the list only shows the moments that mean something.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ttview.h"

/* nbdkit fails the whole list if there are more */
#define EXPORTS_MAX 10000

/* ---- from a name to a view --------------------------------------------- */

static int no_such_export(const struct served_list *all, const char *name,
                          struct tt_error *err)
{
    return tt_fail(err, TT_EINVAL, ENOENT,
                   "no export \"%.200s\": names are %s@TIME or @TIME", name,
                   all->list[0].name);
}

int find_export(const struct served_list *all, const char *name,
                struct served **ret_served, const char **ret_time,
                struct tt_error *err)
{
    if (name[0] == '\0') {
        *ret_served = &all->list[0];
        *ret_time = all->list[0].default_time;
        return 0;
    }
    for (size_t i = 0; i < all->count; i++) {
        struct served *s = &all->list[i];
        size_t n = strlen(s->name);

        if (strncmp(name, s->name, n) || (name[n] && name[n] != '@')) {
            continue;
        }
        *ret_served = s;
        *ret_time = name[n] ? name + n + 1 : s->default_time;
        return 0;
    }
    if (name[0] != '@' || all->count != 1) {
        return no_such_export(all, name, err);
    }
    *ret_served = &all->list[0];
    *ret_time = name + 1;
    return 0;
}

bool time_is_fixed(const char *text, const struct tt_moment *m)
{
    return !m->latest && !m->future && text[0] != '-';
}

int set_default(const struct served_list *all, struct served *s,
                struct tt_error *err)
{
    char buf[TT_TIME_SIZE];
    const struct tt_moment *m = &s->default_view.moment;
    int ret = tt_reader_bind(s->reader, all->at, all->zone, now_ns(),
                             &s->default_view, err);

    if (ret == 0) {
        ret = tt_reader_check(s->reader, &s->default_view, err);
    }
    if (ret < 0) {
        return ret;
    }
    s->default_fixed = !m->latest && !m->future;
    if (s->default_fixed) {
        snprintf(buf, sizeof(buf), "seq:%" PRIu64, m->seq);
    } else if (m->future && m->has_time) {
        tt_time_format(m->time, buf);
    } else {
        snprintf(buf, sizeof(buf), "latest");
    }
    s->default_time = strdup(buf);
    return s->default_time ? 0
                           : tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

int bind_time(const struct served_list *all, struct served *s, const char *time,
              struct tt_view *v, bool *ret_fixed, struct tt_error *err)
{
    int ret;

    if (s->default_fixed && !strcmp(time, s->default_time)) {
        *v = s->default_view;
        *ret_fixed = true;
        return 0;
    }
    ret = tt_reader_refresh(s->reader, err);
    if (ret == 0) {
        ret = tt_reader_bind(s->reader, time, all->zone, now_ns(), v, err);
    }
    if (ret == 0) {
        ret = tt_reader_check(s->reader, v, err);
    }
    *ret_fixed = ret == 0 && time_is_fixed(time, &v->moment);
    return ret;
}

/* ---- what a view is, in words ------------------------------------------ */

static bool count_disk(void *opaque, const struct tt_extent *ext)
{
    if (ext->kind == TT_EXTENT_DISK) {
        *(uint64_t *)opaque += ext->length;
    }
    return true;
}

static size_t gaps_before(const struct tt_history *h, uint64_t seq)
{
    size_t count, before = 0;
    const struct tt_gap *gaps = tt_history_gaps(h, &count);

    for (size_t i = 0; i < count; i++) {
        before += gaps[i].from_seq <= seq;
    }
    return before;
}

char *describe_view(struct served *s, struct tt_view *v)
{
    const struct tt_moment *m = &v->moment;
    const char *problem = tt_reader_disk_problem(s->reader);
    bool provisional = tt_reader_provisional(s->reader, v);
    const struct tt_history *h;
    char last[TT_TIME_SIZE] = "", *text;
    uint64_t disk = 0;
    int64_t time;
    size_t gaps;

    h = tt_reader_lock(s->reader);
    if (tt_history_time(h, m->seq, &time)) {
        tt_time_format(time, last);
    }
    gaps = gaps_before(h, m->seq);
    tt_reader_unlock(s->reader);
    if (tt_reader_extents(s->reader, v, 0, v->size, count_disk, &disk, NULL) <
        0) {
        return NULL;
    }
    if (asprintf(&text,
                 "%s at sequence number %" PRIu64 "%s%s, %s; %" PRIu64
                 " of %" PRIu64 " bytes are on the live disk%s%s%s%s%s",
                 s->name, m->seq, last[0] ? ", " : "", last,
                 provisional ? "provisional (a power cut may still take it)"
                             : "durable",
                 disk, v->size,
                 gaps ? "; there are gaps in the recording before it" : "",
                 m->note[0] ? "; " : "", m->note,
                 disk && problem[0] ? "; " : "", disk ? problem : "") < 0) {
        return NULL;
    }
    return text;
}

/* ---- the list ---------------------------------------------------------- */

/* Names to be listed, with what is said of each. */
struct entry {
    char *name, *about;
};

struct entries {
    struct entry *list;
    size_t count, room;
    bool failed;
};

static void add_entry(struct entries *e, char *name, char *about)
{
    if (e->count == e->room && e->room < EXPORTS_MAX) {
        size_t room = e->room ? e->room * 2 : 64;
        void *p = realloc(e->list, room * sizeof(*e->list));

        if (p) {
            e->list = p;
            e->room = room;
        }
    }
    if (!name || !about || e->count == e->room) {
        e->failed = true;
        free(name);
        free(about);
        return;
    }
    e->list[e->count++] = (struct entry){ name, about };
}

static char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *format(const char *fmt, ...)
{
    va_list ap;
    char *text;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : text;
}

/*
 * Marks, newest first, each name once.  A name that was given twice means
 * whatever the library says it means, or nothing: so it is asked.
 */
static void add_marks(struct entries *e, const struct served *s,
                      const struct tt_history *h)
{
    char time[TT_TIME_SIZE], text[TT_NAME_MAX + 8];
    size_t count;
    const struct tt_mark *marks = tt_history_marks(h, &count);

    for (size_t i = count; i > 0 && e->count < EXPORTS_MAX - 2; i--) {
        const struct tt_mark *mark = &marks[i - 1];
        struct tt_moment m;

        snprintf(text, sizeof(text), "mark:%s", mark->name);
        if (tt_moment_resolve(h, text, NULL, 0, &m, NULL) < 0 ||
            m.seq != mark->seq) {
            continue;
        }
        add_entry(e, format("%s@%s", s->name, text),
                  format("mark at %s, sequence number %" PRIu64,
                         tt_time_format(mark->time, time), mark->seq));
    }
}

/* Starts of sessions, newest first, by time where that is unique. */
static void add_sessions(struct entries *e, const struct served *s,
                         const struct tt_history *h)
{
    size_t count;
    const struct tt_session *list = tt_history_sessions(h, &count);

    for (size_t i = count; i > 0 && e->count < EXPORTS_MAX - 2; i--) {
        const struct tt_session *t = &list[i - 1];
        char time[TT_TIME_SIZE];
        struct tt_moment m;
        int64_t at;
        bool unique;

        if (!tt_history_time(h, t->seq, &at)) {
            continue;
        }
        tt_time_format(at, time);
        unique = tt_moment_resolve(h, time, NULL, 0, &m, NULL) == 0 &&
                 m.seq == t->seq;
        add_entry(e,
                  unique ? format("%s@%s", s->name, time)
                         : format("%s@seq:%" PRIu64, s->name, t->seq),
                  format("session %" PRIu64 " of %s begins at %s, sequence "
                         "number %" PRIu64,
                         t->session,
                         t->program && t->program[0] ? t->program
                                                     : "an unnamed program",
                         time, t->seq));
    }
}

int list_journal(const struct served_list *all, struct served *s,
                 struct nbdkit_exports *exports)
{
    struct entries e = { 0 };
    const struct tt_history *h;
    int ret = 0;

    if (strcmp(s->default_time, "latest")) {
        add_entry(&e, format("%s@%s", s->name, s->default_time),
                  format("the default, at=%s", all->at));
    }
    add_entry(&e, format("%s@latest", s->name),
              format("the newest state when it is opened"));
    h = tt_reader_lock(s->reader);
    add_marks(&e, s, h);
    add_sessions(&e, s, h);
    tt_reader_unlock(s->reader);
    if (e.failed) {
        nbdkit_error("out of memory");
        ret = -1;
    }
    for (size_t i = 0; i < e.count; i++) {
        if (ret == 0) {
            ret = nbdkit_add_export(exports, e.list[i].name, e.list[i].about);
        }
        free(e.list[i].name);
        free(e.list[i].about);
    }
    free(e.list);
    return ret;
}
