/*
 * Journals: open one, bind a moment, read it, and tell what changed
 *
 * Which bytes a view has is decided in journal/posix/reader.c.  Here is what
 * an export needs beyond that: journals that are replaced, extents, and what
 * changed between two moments.
 *
 * What changed is found without reading anything.  Of the bytes at T2
 *
 *   a version that is newer than T1     changed (perhaps to what it was)
 *   zeroes, and zeroes at T1 as well    did not
 *   other zeroes                        changed
 *   a version that is not newer, disk   did not
 *   damage, what a gap puts in doubt,
 *   what was beyond the disk's end      changed, as far as can be known
 *
 * A hole of the live disk is a hole of the view if the disk was asked first
 * and the block has no version afterwards: then it was not yet overwritten
 * when the disk was asked (reader.c has the same double look-up).
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

#include "journal.h"

/* One answer about extents takes at most so many look-ups, the rest follows */
#define LOOKUPS_MAX 65536u

/* How often a file may be exchanged while it is opened */
#define OPEN_TRIES 10

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
    int ret = tt_reader_open(j->path, disk, &j->reader, err);

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

int journal_refresh(struct journal *j, struct tt_error *err)
{
    return tt_reader_refresh(j->reader, err);
}

void journal_follow(struct journal *j)
{
    struct tt_error err;

    if (tt_reader_refresh(j->reader, &err) == 0) {
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

/* ---- extents ------------------------------------------------------------- */

/* Extents of a view, as they were at one moment of the history. */
struct extents {
    GArray *list; /* of struct tt_extent */
    bool one;     /* only those that are alike are needed */
    bool merge;   /* which record they are of does not matter */
};

/* What it comes to when only data and zeroes are told apart. */
static bool is_data(const struct tt_extent *ext)
{
    return ext->kind == TT_EXTENT_JOURNAL || ext->kind == TT_EXTENT_DAMAGED;
}

static bool take_extent(void *opaque, const struct tt_extent *ext)
{
    struct extents *e = opaque;
    struct tt_extent *last = NULL;

    if (e->list->len) {
        last = &g_array_index(e->list, struct tt_extent, e->list->len - 1);
    }
    if (last && e->merge && is_data(last) && is_data(ext)) {
        last->length += ext->length;
        return true;
    }
    if (last && e->one && e->merge) {
        return false;
    }
    g_array_append_val(e->list, *ext);
    return e->list->len < LOOKUPS_MAX;
}

static int collect(struct journal *j, struct tt_view *v, uint64_t offset,
                   uint64_t length, struct extents *e, struct tt_error *err)
{
    e->list = g_array_new(FALSE, FALSE, sizeof(struct tt_extent));
    return tt_reader_extents(j->reader, v, offset, length, take_extent, e, err);
}

/* A range that a map has come to; what is alike is told as one piece. */
struct mapper {
    struct state *state;
    piece_fn *fn;
    void *opaque;
    struct tt_error *err;
    uint64_t offset, length; /* of what was not told yet */
    enum piece_kind kind;
};

static int tell(struct mapper *m)
{
    int ret = 0;

    if (m->length) {
        ret = m->fn(m->opaque, m->offset, m->length, m->kind);
    }
    m->offset += m->length;
    m->length = 0;
    return ret;
}

static int put(struct mapper *m, uint64_t length, enum piece_kind kind)
{
    int ret = 0;

    if (m->length && m->kind != kind) {
        ret = tell(m);
    }
    m->kind = kind;
    m->length += length;
    return ret;
}

/* ---- extents of a view --------------------------------------------------- */

/* A part of the live disk, when it was asked */
struct run {
    uint64_t offset, length;
    bool zero;
};

static bool take_all(void *opaque, const struct tt_extent *ext)
{
    g_array_append_val((GArray *)opaque, *ext);
    return true;
}

/* The live disk had a hole there: and had it not been overwritten yet? */
static int put_hole(struct mapper *m, const struct run *run)
{
    struct state *s = m->state;
    GArray *list = g_array_new(FALSE, FALSE, sizeof(struct tt_extent));
    int ret = tt_reader_extents(s->journal->reader, &s->view, run->offset,
                                run->length, take_all, list, m->err);

    for (guint i = 0; i < list->len && ret == 0; i++) {
        const struct tt_extent *e = &g_array_index(list, struct tt_extent, i);

        ret = put(m, e->length, is_data(e) ? PIECE_DATA : PIECE_ZERO);
    }
    g_array_free(list, TRUE);
    return ret;
}

/* Asks the disk first, then takes in the tail, then looks again. */
static int put_disk(struct mapper *m, uint64_t offset, uint64_t length)
{
    struct tt_reader *r = m->state->journal->reader;
    GArray *runs = g_array_new(FALSE, FALSE, sizeof(struct run));
    struct run run;
    int ret = 0;

    for (uint64_t left = length; left && runs->len < LOOKUPS_MAX;
         left -= run.length) {
        run.offset = offset + (length - left);
        run.zero = tt_reader_disk_zero(r, run.offset, left, &run.length);
        g_array_append_val(runs, run);
    }
    if (runs->len > 1 || run.zero) {
        ret = tt_reader_refresh(r, m->err);
    }
    for (guint i = 0; i < runs->len && ret == 0; i++) {
        const struct run *p = &g_array_index(runs, struct run, i);

        ret = p->zero ? put_hole(m, p) : put(m, p->length, PIECE_DATA);
    }
    /* What there are too many runs for need not be a hole. */
    if (ret == 0 && runs->len == LOOKUPS_MAX) {
        ret = put(m, offset + length - (run.offset + run.length), PIECE_DATA);
    }
    g_array_free(runs, TRUE);
    return ret;
}

static int map_view(struct mapper *m, uint64_t length, bool one)
{
    struct extents e = { .one = one, .merge = true };
    struct state *s = m->state;
    int ret = collect(s->journal, &s->view, m->offset, length, &e, m->err);

    for (guint i = 0; i < e.list->len && ret == 0; i++) {
        const struct tt_extent *x = &g_array_index(e.list, struct tt_extent, i);

        if (x->kind == TT_EXTENT_DISK) {
            ret = put_disk(m, x->offset, x->length);
        } else {
            ret = put(m, x->length, is_data(x) ? PIECE_DATA : PIECE_ZERO);
        }
    }
    g_array_free(e.list, TRUE);
    return ret;
}

/* ---- extents of what changed ---------------------------------------------- */

/* Did the recording miss something between the two moments? */
static bool has_gap(const struct tt_history *h, const struct state *s)
{
    size_t count;
    const struct tt_gap *gaps = tt_history_gaps(h, &count);

    for (size_t i = 0; i < count; i++) {
        if (gaps[i].seq > s->since.moment.seq &&
            gaps[i].from_seq <= s->view.moment.seq) {
            return true;
        }
    }
    return false;
}

/* What has no newer version is the same, unless a gap leaves it in doubt. */
static int put_same(struct mapper *m, uint64_t offset, uint64_t length)
{
    struct state *s = m->state;
    const struct tt_history *h = tt_reader_lock(s->journal->reader);
    bool doubt = has_gap(h, s) &&
                 tt_view_in_doubt(h, s->since.moment.seq, offset, length);

    tt_reader_unlock(s->journal->reader);
    return put(m, length, doubt ? PIECE_DATA : PIECE_SAME);
}

/* Zeroes: what was there before? */
static int put_zeroes(struct mapper *m, uint64_t offset, uint64_t length)
{
    struct state *s = m->state;
    GArray *list = g_array_new(FALSE, FALSE, sizeof(struct tt_extent));
    int ret = tt_reader_extents(s->journal->reader, &s->since, offset, length,
                                take_all, list, m->err);

    for (guint i = 0; i < list->len && ret == 0; i++) {
        const struct tt_extent *x = &g_array_index(list, struct tt_extent, i);

        if (x->kind == TT_EXTENT_ZERO) {
            ret = put_same(m, x->offset, x->length);
        } else {
            ret = put(m, x->length, PIECE_DATA);
        }
    }
    g_array_free(list, TRUE);
    return ret;
}

/* @x is an extent of the later view that lies inside the earlier one's disk. */
static int put_change(struct mapper *m, const struct tt_extent *x)
{
    switch (x->kind) {
    case TT_EXTENT_ZERO:
        return put_zeroes(m, x->offset, x->length);
    case TT_EXTENT_JOURNAL:
        if (x->seq > m->state->since.moment.seq) {
            break;
        }
        return put_same(m, x->offset, x->length);
    case TT_EXTENT_DISK:
        return put_same(m, x->offset, x->length);
    case TT_EXTENT_DAMAGED:
        break;
    }
    return put(m, x->length, PIECE_DATA);
}

static int map_changes(struct mapper *m, uint64_t length)
{
    struct extents e = { 0 };
    struct state *s = m->state;
    uint64_t old_size = s->since.size;
    int ret = collect(s->journal, &s->view, m->offset, length, &e, m->err);

    for (guint i = 0; i < e.list->len && ret == 0; i++) {
        struct tt_extent x = g_array_index(e.list, struct tt_extent, i);
        uint64_t beyond = 0;

        if (x.offset + x.length > old_size) {
            beyond = x.offset + x.length - old_size;
            beyond = beyond < x.length ? beyond : x.length;
        }
        x.length -= beyond;
        if (x.length) {
            ret = put_change(m, &x);
        }
        if (ret == 0 && beyond) {
            ret = put(m, beyond, PIECE_DATA);
        }
    }
    g_array_free(e.list, TRUE);
    return ret;
}

int state_map(struct state *s, uint64_t offset, uint64_t length, bool one,
              piece_fn *fn, void *opaque, struct tt_error *err)
{
    struct mapper m = {
        .state = s, .fn = fn, .opaque = opaque, .err = err, .offset = offset
    };
    int ret;

    if (s->changes) {
        ret = map_changes(&m, length);
    } else {
        ret = map_view(&m, length, one);
    }
    return ret == 0 ? tell(&m) : ret;
}

static bool show_extent(void *opaque, const struct tt_extent *ext)
{
    static const char *const kinds[] = { "journal", "zero", "disk", "damaged" };

    (void)opaque;
    nbdkit_debug("lookup: %" PRIu64 "+%" PRIu64 ": %s, sequence number %" PRIu64
                 ", frame at %" PRIu64,
                 ext->offset, ext->length, kinds[ext->kind], ext->record_seq,
                 ext->frame_offset);
    return true;
}

void state_debug(struct state *s, uint64_t offset, uint64_t length)
{
    tt_reader_extents(s->journal->reader, &s->view, offset, length, show_extent,
                      NULL, NULL);
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
