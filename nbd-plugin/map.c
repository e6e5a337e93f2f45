/*
 * Extents: where does a view have data, and what changed between two?
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

#include <glib.h>
#include <inttypes.h>

#include "journal-int.h"

/* Up to this length of what did not change, what is in doubt is told apart */
#define DOUBT_MAX (16 * TT_MIB)

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

    if (!length) {
        return 0;
    }
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

/* What the disk is asked for a map, and what of it was told. */
struct asked {
    GArray *runs; /* of struct run, in order */
    guint next;   /* the first that is not told yet */
    bool holes;   /* there are some */
    bool again;   /* look again whether they are holes still */
};

/* What there are too many runs for is left out: it need not be a hole. */
static void ask_disk(const struct tt_reader *r, const struct tt_extent *x,
                     struct asked *a)
{
    struct run run;

    for (uint64_t left = x->length; left && a->runs->len < LOOKUPS_MAX;
         left -= run.length) {
        run.offset = x->offset + (x->length - left);
        run.zero = tt_reader_disk_zero(r, run.offset, left, &run.length);
        a->holes |= run.zero;
        g_array_append_val(a->runs, run);
    }
}

/* Asks the disk for all of it first, then takes in the tail once. */
static int ask(struct mapper *m, const GArray *list, uint64_t changes,
               struct asked *a)
{
    struct tt_reader *r = m->state->journal->reader;
    int ret = 0;

    for (guint i = 0; i < list->len; i++) {
        const struct tt_extent *x = &g_array_index(list, struct tt_extent, i);

        if (x->kind == TT_EXTENT_DISK) {
            ask_disk(r, x, a);
        }
    }
    if (a->holes) {
        ret = tt_reader_refresh(r, m->err);
        a->again = tt_reader_changes(r) != changes;
    }
    return ret;
}

static int put_disk(struct mapper *m, const struct tt_extent *x,
                    struct asked *a)
{
    uint64_t left = x->length;
    int ret = 0;

    while (left && a->next < a->runs->len && ret == 0) {
        const struct run *p = &g_array_index(a->runs, struct run, a->next++);

        if (p->zero && a->again) {
            ret = put_hole(m, p);
        } else {
            ret = put(m, p->length, p->zero ? PIECE_ZERO : PIECE_DATA);
        }
        left -= p->length;
    }
    return ret < 0 ? ret : put(m, left, PIECE_DATA);
}

static int put_extents(struct mapper *m, const GArray *list, struct asked *a)
{
    int ret = 0;

    for (guint i = 0; i < list->len && ret == 0; i++) {
        const struct tt_extent *x = &g_array_index(list, struct tt_extent, i);

        if (x->kind == TT_EXTENT_DISK) {
            ret = put_disk(m, x, a);
        } else {
            ret = put(m, x->length, is_data(x) ? PIECE_DATA : PIECE_ZERO);
        }
    }
    return ret;
}

static int map_view(struct mapper *m, uint64_t length, bool one)
{
    struct extents e = { .one = one, .merge = true };
    struct state *s = m->state;
    uint64_t changes = tt_reader_changes(s->journal->reader);
    int ret = collect(s->journal, &s->view, m->offset, length, &e, m->err);

    if (ret == 0) {
        struct asked a = { .runs =
                               g_array_new(FALSE, FALSE, sizeof(struct run)) };

        ret = ask(m, e.list, changes, &a);
        if (ret == 0) {
            ret = put_extents(m, e.list, &a);
        }
        g_array_free(a.runs, TRUE);
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

static bool in_doubt(struct state *s, uint64_t offset, uint64_t length)
{
    const struct tt_history *h = tt_reader_lock(s->journal->reader);
    bool doubt = has_gap(h, s) &&
                 tt_view_in_doubt(h, s->since.moment.seq, offset, length);

    tt_reader_unlock(s->journal->reader);
    return doubt;
}

/*
 * What has no newer version is the same, unless a gap leaves it in doubt.  Gaps
 * are of whole grid pieces; of a very large range all is in doubt, or nothing.
 */
static int put_same(struct mapper *m, uint64_t offset, uint64_t length)
{
    bool exact = length <= DOUBT_MAX;
    int ret = 0;

    while (length && ret == 0) {
        uint64_t run = length;
        bool doubt = in_doubt(m->state, offset, run);

        while (doubt && exact && run > TT_GRID - offset % TT_GRID) {
            run = (offset + run / 2) / TT_GRID * TT_GRID;
            run = run > offset ? run - offset : TT_GRID - offset % TT_GRID;
            doubt = in_doubt(m->state, offset, run);
        }
        ret = put(m, run, doubt ? PIECE_DATA : PIECE_SAME);
        offset += run;
        length -= run;
    }
    return ret;
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
    case TT_EXTENT_DISK: /* what is in doubt there is damaged */
        return put(m, x->length, PIECE_SAME);
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
                 ext->place);
    return true;
}

void state_debug(struct state *s, uint64_t offset, uint64_t length)
{
    tt_reader_extents(s->journal->reader, &s->view, offset, length, show_extent,
                      NULL, NULL);
}
