/*
 * Reading a view: which bytes are in the journal, and which on the live disk?
 *
 * reader.c says why there are two looks, and which history they are into.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "reader-int.h"

/* Pieces of a view that are looked up and read at once */
#define WINDOW 256u

/* A part of a request that the first look-up found on the live disk. */
struct part {
    uint64_t offset, length;
    bool failed;
};

struct request {
    struct tt_reader *r;
    struct tt_view *v;
    uint64_t offset, length;
    uint8_t *buf;
    struct part *parts;
    size_t count, room;
    uint64_t generation;      /* of the history that was looked into last */
    uint64_t changes;         /* to it, at the first look */
    struct tt_error disk_err; /* of the first part that failed */
    struct tt_error *err;
};

static int no_disk(struct tt_reader *r, uint64_t offset, struct tt_error *err)
{
    return tt_fail(err, TT_ENODISK, ENXIO,
                   "%s: the block at %" PRIu64 " was never overwritten and is "
                   "only on the live disk: %s",
                   r->file->path, offset,
                   r->cut ? "but the journal was cut short or replaced since "
                            "it was opened, and the disk no longer fits it"
                          : r->problem);
}

/* The damage that the record @seq was lost to, or NULL. */
static const struct tt_damage *find_damage(const struct past *past,
                                           uint64_t seq)
{
    size_t count;
    const struct tt_damage *d = tt_history_damages(past->history, &count);

    for (size_t i = 0; i < count; i++) {
        if (d[i].first_seq <= seq && seq <= d[i].last_seq) {
            return &d[i];
        }
    }
    return NULL;
}

static int damaged(const struct request *q, const struct tt_piece *p)
{
    const struct past *past = q->r->past;
    const struct tt_super *super = tt_history_super(past->history);
    const struct tt_damage *d = find_damage(past, p->record_seq);
    uint64_t first, last;

    if (!d) {
        return tt_fail(q->err, TT_EDAMAGED, EIO,
                       "%s: what the disk held at %" PRIu64 " (+%" PRIu64
                       ") up to sequence number %" PRIu64 " cannot be known: "
                       "the journal is damaged (see ttjournal verify)",
                       q->r->file->path, p->offset, p->length,
                       q->v->moment.seq);
    }
    first = tt_segment_at(super, d->offset);
    last = tt_segment_at(super, d->offset + (d->length ? d->length - 1 : 0));
    return tt_fail(q->err, TT_EDAMAGED, EIO,
                   "%s: what the disk held at %" PRIu64 " (+%" PRIu64
                   ") up to sequence number %" PRIu64 " cannot be known: the "
                   "journal is damaged at %" PRIu64 " (+%" PRIu64
                   ") in segment %" PRIu64 "%s%.0" PRIu64 ", where the records "
                   "%" PRIu64 " to %" PRIu64 " were",
                   q->r->file->path, p->offset, p->length, q->v->moment.seq,
                   d->offset, d->length, first, last > first ? " to " : "",
                   last > first ? last : 0, d->first_seq, d->last_seq);
}

/* ---- looks ------------------------------------------------------------- */

static int add_part(struct request *q, const struct tt_piece *p)
{
    struct part *last = q->count ? &q->parts[q->count - 1] : NULL;

    if (!q->r->disk || q->r->cut) {
        return no_disk(q->r, p->offset, q->err);
    }
    if (last && last->offset + last->length == p->offset) {
        last->length += p->length;
        return 0;
    }
    if (q->count == q->room) {
        size_t room = q->room ? q->room * 2 : 16;
        void *to = realloc(q->parts, room * sizeof(*q->parts));

        if (!to) {
            return tt_fail(q->err, TT_ENOMEM, ENOMEM, "out of memory");
        }
        q->parts = to;
        q->room = room;
    }
    q->parts[q->count++] =
        (struct part){ .offset = p->offset, .length = p->length };
    return 0;
}

/* What the disk is still needed for at the second look; @p was found there. */
static int keep_part(struct request *q, const struct part *from)
{
    if (q->r->cut) {
        return no_disk(q->r, from->offset, q->err);
    }
    if (from->failed) {
        if (q->err) {
            *q->err = q->disk_err;
        }
        return -q->disk_err.code;
    }
    return 0;
}

/*
 * Serves what the history alone answers of [offset, end), with the lock held.
 * @from: the part of the second look, or NULL for the first.
 */
static int look(struct request *q, uint64_t offset, uint64_t end,
                const struct part *from)
{
    const struct past *past = q->r->past;
    struct tt_piece pieces[WINDOW];
    size_t count;
    int ret = 0;

    while (offset < end && ret == 0) {
        ret = tt_view_pieces(past->history, q->v->moment.seq, offset,
                             end - offset, pieces, WINDOW, &count, q->err);
        for (size_t i = 0; i < count && ret == 0; i++) {
            if (pieces[i].kind == TT_EXTENT_DISK) {
                ret = from ? keep_part(q, from) : add_part(q, &pieces[i]);
            } else if (pieces[i].kind == TT_EXTENT_DAMAGED) {
                ret = damaged(q, &pieces[i]);
            }
        }
        if (ret == 0) {
            ret = tt_pieces_read(past->history, &past->file.source, pieces,
                                 count, q->offset, q->buf, q->err);
            offset = pieces[count - 1].offset + pieces[count - 1].length;
        }
    }
    return ret;
}

static int first_look(struct request *q)
{
    int ret;

    tt_reader_lock(q->r);
    q->generation = atomic_load(&q->r->generation);
    q->changes = tt_reader_changes(q->r);
    ret = tt_reader_still_holds(q->r, q->v, q->err);
    if (ret == 0) {
        ret = look(q, q->offset, q->offset + q->length, NULL);
    }
    tt_reader_unlock(q->r);
    return ret;
}

/* A failure counts only if the disk is still what is needed afterwards. */
static void read_parts(struct request *q)
{
    struct tt_error err;

    for (size_t i = 0; i < q->count; i++) {
        struct part *p = &q->parts[i];

        if (tt_disk_read(q->r->disk, p->offset,
                         q->buf + (p->offset - q->offset), p->length,
                         &err) < 0) {
            p->failed = true;
            if (!q->disk_err.code) {
                q->disk_err = err;
            }
        }
    }
}

static int second_look(struct request *q)
{
    int ret = tt_reader_refresh(q->r, q->err);
    bool same;

    if (ret < 0) {
        return ret;
    }
    tt_reader_lock(q->r);
    same = tt_reader_changes(q->r) == q->changes;
    q->generation = atomic_load(&q->r->generation);
    ret = tt_reader_still_holds(q->r, q->v, q->err);
    for (size_t i = 0; i < q->count && ret == 0; i++) {
        const struct part *p = &q->parts[i];

        /* without a change all of them are on the disk, as they were */
        ret = same ? keep_part(q, p)
                   : look(q, p->offset, p->offset + p->length, p);
    }
    tt_reader_unlock(q->r);
    return ret;
}

/* ---- the public functions ---------------------------------------------- */

static int check_range(const struct tt_view *v, uint64_t offset,
                       uint64_t length, struct tt_error *err)
{
    if (offset > v->size || length > v->size - offset) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "the disk had %" PRIu64 " bytes then, and %" PRIu64
                       " (+%" PRIu64 ") is beyond its end",
                       v->size, offset, length);
    }
    return 0;
}

static int read_once(struct request *q)
{
    int ret = first_look(q);

    if (ret == 0) {
        read_parts(q);
        if (q->count || tt_reader_provisional(q->r, q->v)) {
            ret = second_look(q);
        }
    }
    return ret;
}

int tt_reader_read(struct tt_reader *r, struct tt_view *v, uint64_t offset,
                   void *buf, size_t length, struct tt_error *err)
{
    struct request q = { .r = r,
                         .v = v,
                         .offset = offset,
                         .length = length,
                         .buf = buf,
                         .err = err };
    int ret = check_range(v, offset, length, err);

    if (ret == 0) {
        do {
            q.count = 0;
            q.disk_err.code = 0;
            ret = read_once(&q);
        } while (tt_reader_mended(r, q.generation, ret));
    }
    free(q.parts);
    return tt_reader_named(r, ret, err);
}

struct walk {
    tt_extent_fn *fn;
    void *opaque;
    uint64_t at, end; /* what fn() has not been told of yet */
    uint64_t generation;
};

static bool walk_on(void *opaque, const struct tt_extent *ext)
{
    struct walk *w = opaque;

    w->at += ext->length;
    return w->fn(w->opaque, ext);
}

static int walk(struct tt_reader *r, struct tt_view *v, struct walk *w,
                struct tt_error *err)
{
    int ret;

    tt_reader_lock(r);
    w->generation = atomic_load(&r->generation);
    ret = tt_reader_still_holds(r, v, err);
    if (ret == 0 && w->at < w->end) {
        ret = tt_view_extents(r->past->history, v->moment.seq, w->at,
                              w->end - w->at, walk_on, w, err);
    }
    tt_reader_unlock(r);
    return ret;
}

int tt_reader_extents(struct tt_reader *r, struct tt_view *v, uint64_t offset,
                      uint64_t length, tt_extent_fn *fn, void *opaque,
                      struct tt_error *err)
{
    struct walk w = {
        .fn = fn, .opaque = opaque, .at = offset, .end = offset + length
    };
    int ret = check_range(v, offset, length, err);

    if (ret == 0) {
        do {
            ret = walk(r, v, &w, err);
        } while (tt_reader_mended(r, w.generation, ret));
    }
    return tt_reader_named(r, ret, err);
}

static bool find_disk_extent(void *opaque, const struct tt_extent *ext)
{
    struct tt_extent *found = opaque;

    if (ext->kind == TT_EXTENT_DISK) {
        *found = *ext;
        return false;
    }
    return true;
}

int tt_reader_check(struct tt_reader *r, struct tt_view *v,
                    struct tt_error *err)
{
    struct tt_extent found = { 0 };
    int ret;

    if (r->disk && !r->cut) {
        return 0;
    }
    ret = tt_reader_extents(r, v, 0, v->size, find_disk_extent, &found, err);
    if (ret == 0 && found.length) {
        ret = no_disk(r, found.offset, err);
    }
    return ret;
}

int tt_reader_recent(struct tt_reader *r, uint64_t level_seq,
                     struct tt_extent *ret_extents, size_t room,
                     size_t *ret_count, struct tt_error *err)
{
    uint64_t generation;
    size_t found, n;
    int ret;

    do {
        const struct tt_history *h = tt_reader_lock(r);

        generation = atomic_load(&r->generation);
        ret = tt_history_recent(h, level_seq, ret_extents, room, &found, err);
        n = 0;
        for (size_t i = 0; i < found && ret == 0; i++) {
            const struct tt_extent *e = &ret_extents[i];

            if (!tt_view_in_doubt(h, e->seq, e->offset, e->length)) {
                ret_extents[n++] = *e;
            }
        }
        tt_reader_unlock(r);
    } while (tt_reader_mended(r, generation, ret));
    *ret_count = n;
    return tt_reader_named(r, ret, err);
}
