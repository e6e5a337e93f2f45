/*
 * Journals: open one, bind a moment, read it, and say what it is
 *
 * Which bytes a view has is decided in journal/posix/reader.c.  Here is what
 * an export needs beyond that; map.c has extents and changes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "journal-int.h"

/* How often a file may be exchanged while it is opened */
#define OPEN_TRIES 10

char *journal_index;

/* ---- open --------------------------------------------------------------- */

static bool file_id(const char *path, struct file_id *ret)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        return false;
    }
    *ret = (struct file_id){ st.st_dev, st.st_rdev, st.st_ino };
    return true;
}

static bool same_file(const struct file_id *a, const struct file_id *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->rdev == b->rdev;
}

/* The file that was opened is known only if it did not change meanwhile. */
static int open_same(struct journal *j, const char *disk, bool *ret_same,
                     struct tt_error *err)
{
    struct file_id after;
    bool there = file_id(j->path, &j->id);
    const struct tt_reader_options options = {
        .disk = disk,
        .index = journal_index,
    };
    int ret = tt_reader_open_with(j->path, &options, &j->reader, err);

    if (ret < 0) {
        return ret;
    }
    *ret_same = there && file_id(j->path, &after) && same_file(&j->id, &after);
    return 0;
}

int journal_open(const char *path, const char *disk, struct journal **ret,
                 struct tt_error *err)
{
    struct journal *j = calloc(1, sizeof(*j));
    bool same = false;
    int r = 0;

    if (!j || !(j->path = strdup(path))) {
        free(j);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    atomic_init(&j->refs, 1);
    for (int i = 0; i < OPEN_TRIES && r == 0 && !same; i++) {
        tt_reader_close(j->reader);
        j->reader = NULL;
        r = open_same(j, disk, &same, err);
    }
    if (r == 0 && !same) {
        r = tt_fail(err, TT_ECHANGED, EBUSY,
                    "%s: it is being replaced again and again", path);
    }
    if (r < 0) {
        journal_unref(j);
        return r;
    }
    *ret = j;
    return 0;
}

struct journal *journal_ref(struct journal *j)
{
    atomic_fetch_add(&j->refs, 1);
    return j;
}

void journal_unref(struct journal *j)
{
    if (!j || atomic_fetch_sub(&j->refs, 1) > 1) {
        return;
    }
    tt_reader_close(j->reader);
    free(j->failure);
    free(j->path);
    free(j);
}

/* One that was removed is served on: nothing else is there. */
bool journal_replaced(const struct journal *j)
{
    struct file_id now;

    return file_id(j->path, &now) && !same_file(&now, &j->id);
}

const char *journal_warning(const struct journal *j)
{
    return tt_reader_disk(j->reader) ? tt_reader_disk_problem(j->reader) : "";
}

char *journal_index_note(const struct journal *j)
{
    return tt_reader_index_note(j->reader);
}

int journal_refresh(struct journal *j, struct tt_error *err)
{
    return tt_reader_refresh(j->reader, err);
}

void journal_follow(struct journal *j)
{
    struct tt_error err;

    if (tt_reader_follow(j->reader, &err) == 0) {
        free(j->failure);
        j->failure = NULL;
    } else if (!j->failure || strcmp(j->failure, err.message)) {
        free(j->failure);
        j->failure = strdup(err.message);
        nbdkit_error("%s", err.message);
    }
}

/* ---- states ------------------------------------------------------------- */

/* A view that needs the live disk and has none is refused. */
static int check_disk(struct journal *j, struct tt_view *v,
                      struct tt_error *err)
{
    int ret = 0;

    if (v->size > atomic_load(&j->whole_size)) {
        ret = tt_reader_check(j->reader, v, err);
        if (ret == 0 && !tt_reader_disk(j->reader)) {
            atomic_store(&j->whole_size, v->size);
        }
    }
    return ret;
}

/* A block that was never captured is missing in all views alike. */
int journal_usable(struct journal *j, struct tt_error *err)
{
    struct tt_view v;
    int ret = tt_reader_bind(j->reader, "latest", NULL, 0, &v, err);

    return ret < 0 ? ret : check_disk(j, &v, err);
}

static void note_kind(struct journal *j, const char *text,
                      const struct tt_view *v, struct state *s)
{
    s->moving |= v->moment.latest || v->moment.future;
    s->fixed &= !v->moment.latest && !v->moment.future && text[0] != '-' &&
                !tt_reader_provisional(j->reader, v);
}

static int bind_one(struct journal *j, const char *text,
                    const struct tt_zone *zone, int64_t now, struct state *s,
                    struct tt_error *err)
{
    int ret = tt_reader_bind(j->reader, text, zone, now, &s->view, err);

    if (ret == 0) {
        ret = check_disk(j, &s->view, err);
    }
    if (ret == 0) {
        note_kind(j, text, &s->view, s);
    }
    return ret;
}

static int bind_range(struct journal *j, const char *from, const char *to,
                      const struct tt_zone *zone, int64_t now, struct state *s,
                      struct tt_error *err)
{
    int ret = bind_one(j, to, zone, now, s, err);

    if (ret == 0) {
        ret = tt_reader_bind(j->reader, from, zone, now, &s->since, err);
    }
    if (ret < 0) {
        return ret;
    }
    if (s->since.moment.seq > s->view.moment.seq) {
        return tt_fail(err, TT_ENOTTIME, EINVAL,
                       "%s: T1..T2 is what changed from T1 to T2, but "
                       "seq:%" PRIu64 " is after seq:%" PRIu64,
                       j->path, s->since.moment.seq, s->view.moment.seq);
    }
    s->changes = true;
    note_kind(j, from, &s->since, s);
    return 0;
}

/* No form of TIME holds "..", so there is one way to read it. */
int state_bind(struct journal *j, const char *text, const struct tt_zone *zone,
               int64_t now, struct state *s, struct tt_error *err)
{
    const char *dots = strstr(text, "..");
    char *from = NULL;
    int ret;

    *s = (struct state){ .fixed = true };
    if (!dots) {
        ret = bind_one(j, text, zone, now, s, err);
    } else if (!(from = strndup(text, (size_t)(dots - text)))) {
        ret = tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    } else {
        ret = bind_range(j, from, dots + 2, zone, now, s, err);
    }
    free(from);
    if (ret == 0) {
        s->journal = journal_ref(j);
    }
    return ret;
}

void state_copy(struct state *to, const struct state *from)
{
    *to = *from;
    journal_ref(to->journal);
}

void state_clear(struct state *s)
{
    journal_unref(s->journal);
    s->journal = NULL;
}

static char *view_time(const struct tt_view *v, bool pinned)
{
    const struct tt_moment *m = &v->moment;
    char time[TT_TIME_SIZE];
    char *text;

    if (!pinned && m->future && m->has_time) {
        return strdup(tt_time_format(m->time, time));
    }
    if (!pinned && (m->latest || m->future)) {
        return strdup("latest");
    }
    return asprintf(&text, "seq:%" PRIu64, m->seq) < 0 ? NULL : text;
}

char *state_time(const struct state *s, bool pinned)
{
    char *to = view_time(&s->view, pinned), *from, *text;

    if (!s->changes || !to) {
        return to;
    }
    from = view_time(&s->since, pinned);
    if (!from || asprintf(&text, "%s..%s", from, to) < 0) {
        text = NULL;
    }
    free(from);
    free(to);
    return text;
}

int state_read(struct state *s, uint64_t offset, void *buf, size_t length,
               struct tt_error *err)
{
    return tt_reader_read(s->journal->reader, &s->view, offset, buf, length,
                          err);
}

/* ---- what a state is, in words -------------------------------------------- */

/* Bytes of one kind; too many extents are not all counted. */
struct sum {
    uint64_t bytes, next;
    enum tt_extent_kind kind;
    unsigned left;
};

static bool count_extent(void *opaque, const struct tt_extent *ext)
{
    struct sum *sum = opaque;

    if (ext->kind == sum->kind) {
        sum->bytes += ext->length;
    }
    sum->next = ext->offset + ext->length;
    return --sum->left > 0;
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

/* "sequence number 7, 2026-…Z, durable" and what else the moment calls for */
static void describe_moment(struct journal *j, const struct tt_view *v,
                            GString *text)
{
    const struct tt_history *h = tt_reader_lock(j->reader);
    char last[TT_TIME_SIZE];
    int64_t time;

    g_string_append_printf(text, "sequence number %" PRIu64, v->moment.seq);
    if (tt_history_time(h, v->moment.seq, &time)) {
        g_string_append_printf(text, ", %s", tt_time_format(time, last));
    }
    tt_reader_unlock(j->reader);
    g_string_append(text, tt_reader_provisional(j->reader, v)
                              ? ", provisional (a power cut may still take it)"
                              : ", durable");
}

/* Notes that are worth a client's attention, too */
static void describe_notes(struct journal *j, const struct tt_view *v,
                           GString *text)
{
    size_t gaps = gaps_before(tt_reader_lock(j->reader), v->moment.seq);

    tt_reader_unlock(j->reader);
    if (gaps) {
        g_string_append(text, "; there are gaps in the recording before it");
    }
    if (v->moment.note[0]) {
        g_string_append_printf(text, "; %s", v->moment.note);
    }
}

static int describe_view(struct state *s, GString *text)
{
    struct journal *j = s->journal;
    const char *problem = tt_reader_disk_problem(j->reader);
    struct sum disk = { .kind = TT_EXTENT_DISK, .left = LOOKUPS_MAX };

    describe_moment(j, &s->view, text);
    if (tt_reader_extents(j->reader, &s->view, 0, s->view.size, count_extent,
                          &disk, NULL) < 0) {
        return -1;
    }
    g_string_append_printf(
        text, "; %s%" PRIu64 " of %" PRIu64 " bytes are on the live disk",
        disk.next < s->view.size ? "at least " : "", disk.bytes, s->view.size);
    describe_notes(j, &s->view, text);
    if (disk.bytes && problem[0]) {
        g_string_append_printf(text, "; %s", problem);
    }
    return 0;
}

struct changed {
    uint64_t bytes, next;
};

static int count_changed(void *opaque, uint64_t offset, uint64_t length,
                         enum piece_kind kind)
{
    struct changed *c = opaque;

    c->bytes += kind == PIECE_DATA ? length : 0;
    c->next = offset + length;
    return 0;
}

static int describe_changes(struct state *s, GString *text)
{
    struct changed c = { 0 };

    g_string_append(text, "its changes up to ");
    describe_moment(s->journal, &s->view, text);
    g_string_append(text, ", since ");
    describe_moment(s->journal, &s->since, text);
    if (state_map(s, 0, s->view.size, false, count_changed, &c, NULL) < 0) {
        return -1;
    }
    g_string_append_printf(
        text,
        "; %s%" PRIu64 " of %" PRIu64 " bytes changed, and the rest is a "
        "hole that reads as it was",
        c.next < s->view.size ? "at least " : "", c.bytes, s->view.size);
    describe_notes(s->journal, &s->view, text);
    return 0;
}

char *state_describe(struct state *s, const char *name)
{
    GString *text = g_string_new(name);
    int ret;

    g_string_append(text, " at ");
    if (s->changes) {
        g_string_truncate(text, strlen(name));
        g_string_append(text, ", ");
        ret = describe_changes(s, text);
    } else {
        ret = describe_view(s, text);
    }
    return g_string_free(text, ret < 0);
}

/* ---- what there is to open ------------------------------------------------ */

bool journal_mark(struct journal *j, const char *name, int64_t *ret_time)
{
    const struct tt_history *h = tt_reader_lock(j->reader);
    char text[TT_NAME_MAX + 8];
    struct tt_moment m;
    bool found = strlen(name) <= TT_NAME_MAX;

    if (found) {
        snprintf(text, sizeof(text), "mark:%s", name);
        found = tt_moment_resolve(h, text, NULL, 0, &m, NULL) == 0;
    }
    tt_reader_unlock(j->reader);
    if (found) {
        *ret_time = m.time;
    }
    return found;
}

/* How often each name was given */
static GHashTable *count_names(const struct tt_mark *marks, size_t count)
{
    GHashTable *names = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; i < count; i++) {
        guint n = GPOINTER_TO_UINT(g_hash_table_lookup(names, marks[i].name));

        g_hash_table_insert(names, marks[i].name, GUINT_TO_POINTER(n + 1));
    }
    return names;
}

static bool list_mark(const struct tt_mark *mark, bool unique, listed_fn *fn,
                      void *opaque)
{
    char at[TT_NAME_MAX + 32], about[TT_NAME_MAX + 128], time[TT_TIME_SIZE];
    struct listed entry = { .time = at, .about = about };

    tt_time_format(mark->time, time);
    if (unique) {
        entry.name = mark->name;
        snprintf(at, sizeof(at), "mark:%s", mark->name);
        snprintf(about, sizeof(about), "mark at %s, sequence number %" PRIu64,
                 time, mark->seq);
    } else {
        snprintf(at, sizeof(at), "seq:%" PRIu64, mark->seq);
        snprintf(about, sizeof(about),
                 "one of several marks \"%s\", at %s, sequence number %" PRIu64,
                 mark->name, time, mark->seq);
    }
    return fn(opaque, &entry);
}

void journal_list_marks(struct journal *j, listed_fn *fn, void *opaque)
{
    size_t count;
    const struct tt_mark *marks =
        tt_history_marks(tt_reader_lock(j->reader), &count);
    GHashTable *names = count_names(marks, count);

    for (size_t i = count; i > 0; i--) {
        const struct tt_mark *mark = &marks[i - 1];
        bool unique =
            GPOINTER_TO_UINT(g_hash_table_lookup(names, mark->name)) == 1;

        if (!list_mark(mark, unique, fn, opaque)) {
            break;
        }
    }
    g_hash_table_destroy(names);
    tt_reader_unlock(j->reader);
}

/* By time where that is unique. */
static bool list_session(const struct tt_history *h, const struct tt_session *s,
                         listed_fn *fn, void *opaque)
{
    char at[TT_TIME_SIZE], time[TT_TIME_SIZE], *about;
    struct listed entry = { .time = at };
    const char *program = "an unnamed program";
    struct tt_moment m;
    int64_t t;
    bool go_on;

    if (!tt_history_time(h, s->seq, &t)) {
        return true;
    }
    tt_time_format(t, time);
    snprintf(at, sizeof(at), "%s", time);
    if (tt_moment_resolve(h, at, NULL, 0, &m, NULL) < 0 || m.seq != s->seq) {
        snprintf(at, sizeof(at), "seq:%" PRIu64, s->seq);
    }
    if (s->program && s->program[0]) {
        program = s->program;
    }
    about = g_strdup_printf("session %" PRIu64 " of %s begins at %s, sequence "
                            "number %" PRIu64,
                            s->session, program, time, s->seq);
    entry.about = about;
    go_on = fn(opaque, &entry);
    g_free(about);
    return go_on;
}

void journal_list_sessions(struct journal *j, listed_fn *fn, void *opaque)
{
    const struct tt_history *h = tt_reader_lock(j->reader);
    size_t count;
    const struct tt_session *list = tt_history_sessions(h, &count);

    for (size_t i = count; i > 0; i--) {
        if (!list_session(h, &list[i - 1], fn, opaque)) {
            break;
        }
    }
    tt_reader_unlock(j->reader);
}
