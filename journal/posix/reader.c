/*
 * The reader: what did the disk hold at a moment, while recording goes on?
 *
 * A view takes its bytes from the journal, and blocks that were never
 * overwritten from the live disk.  The guest may overwrite such a block while
 * we read it.  The recorder makes the block's old contents visible in the
 * journal before the disk changes, so:
 *
 *     look up             the block has no version: it is on the disk
 *     read the disk       old bytes, new bytes, a mixture, or an error
 *     take in the tail    undurable frames included
 *     look up again       still no version: what was read was old, and right;
 *                         a version now: use that, drop what was read
 *
 * A view is immutable once its end is durable.  Above that a power cut may
 * take frames away and a later session put others in their place.  A view is
 * therefore bound to a frame by its chain value, which covers all before it.
 * While its end is not durable each read takes in the tail after it has read:
 * if what the history was built from is no longer there, history is read anew
 * and the view must be found in it, or the read fails.
 *
 * Invariants:
 * - history and file->source.size change only with the lock held for writing;
 *   generation counts the times that history was read anew.
 * - The lock is not held while the live disk is read: a server that hangs
 *   holds up its own reader only.
 * - Bytes leave here only if the view was found in the present history after
 *   they had been read, or if its end is durable.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "file.h"
#include "reader.h"

/* How many frames that are not durable are passed to find one that is */
#define BACK_MAX 64

struct tt_reader {
    pthread_rwlock_t lock;
    struct tt_file *file;        /* its size: protected by lock */
    struct tt_history *history;  /* protected by lock */
    _Atomic uint64_t generation; /* written with the lock held for writing */

    /*
     * What was known to be durable can only be missing from a journal that was
     * cut short or exchanged for another: then pre-images are missing, too, and
     * the live disk does not fit what is left.
     */
    uint64_t durable_seq; /* protected by lock, like what follows */
    bool has_durable_frame;
    uint64_t durable_offset, durable_chain; /* of a frame up to there */
    _Atomic bool cut; /* written with the lock held for writing */

    struct tt_disk *disk; /* set at open, NULL if there is none */
    char problem[TT_PROBLEM_SIZE];
};

/* ---- open and refresh -------------------------------------------------- */

/*
 * Prefers writers: without that, readers that never pause would keep the tail
 * from being taken in.
 */
static int lock_init(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    int ret = pthread_rwlockattr_init(&attr);

    if (ret) {
        return ret;
    }
    pthread_rwlockattr_setkind_np(&attr,
                                  PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    ret = pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return ret;
}

/* Puts the journal's name in front of what the core says of its bytes. */
static int named(const struct tt_reader *r, int ret, struct tt_error *err)
{
    struct tt_error e;

    if (ret < 0 && err && !strstr(err->message, r->file->path)) {
        e = *err;
        tt_fail(err, e.code, e.os_errno, "%s: %s", r->file->path, e.message);
    }
    return ret;
}

static bool read_frame(struct tt_reader *r, uint64_t offset,
                       struct tt_frame *ret_frame)
{
    uint8_t head[TT_HEAD_MAX];

    return tt_frame_read(tt_history_super(r->history), &r->file->source, offset,
                         head, ret_frame, NULL) > 0;
}

/*
 * Goes one frame back.  False if that one is not whole or not the one that *f
 * followed (damage), or if *f is the first.
 */
static bool step_back(struct tt_reader *r, struct tt_frame *f)
{
    struct tt_frame prev;

    if (!f->prev_offset || f->prev_offset >= f->offset ||
        !read_frame(r, f->prev_offset, &prev) || prev.own_chain != f->chain) {
        return false;
    }
    *f = prev;
    return true;
}

/* Remembers what is durable, by a frame near its end. */
static void note_durable(struct tt_reader *r)
{
    const struct tt_scan *end = tt_history_end(r->history);
    struct tt_frame f = end->last;

    r->durable_seq = end->durable_seq;
    for (int i = 0; i < BACK_MAX && !end->empty; i++) {
        if (tt_frame_last_seq(&f) <= end->durable_seq) {
            r->has_durable_frame = true;
            r->durable_offset = f.offset;
            r->durable_chain = f.own_chain;
            break;
        }
        if (!step_back(r, &f)) {
            break;
        }
    }
}

/* Is what was durable still there? */
static bool keeps_durable(struct tt_reader *r)
{
    struct tt_frame f;

    if (tt_history_end(r->history)->last_seq < r->durable_seq) {
        return false;
    }
    return !r->has_durable_frame || (read_frame(r, r->durable_offset, &f) &&
                                     f.own_chain == r->durable_chain);
}

static int load(struct tt_reader *r, struct tt_error *err)
{
    struct tt_history *fresh = tt_history_new();
    int ret;

    if (!fresh) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    ret = tt_history_load(fresh, &r->file->source, err);
    if (ret < 0) {
        tt_history_free(fresh);
        return ret;
    }
    tt_history_free(r->history);
    r->history = fresh;
    atomic_fetch_add(&r->generation, 1);
    atomic_store(&r->cut, !keeps_durable(r));
    return 0;
}

int tt_reader_open(const char *path, const char *disk,
                   struct tt_reader **ret_reader, struct tt_error *err)
{
    struct tt_reader *r = calloc(1, sizeof(*r));
    int ret;

    if (!r || lock_init(&r->lock)) {
        free(r);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    ret = tt_file_open(path, &r->file, err);
    if (ret == 0) {
        ret = named(r, load(r, err), err);
    }
    if (ret == 0) {
        note_durable(r);
        ret = tt_attach_disk(r, disk, &r->disk, r->problem, err);
    }
    if (ret < 0) {
        tt_reader_close(r);
        return ret;
    }
    *ret_reader = r;
    return 0;
}

void tt_reader_close(struct tt_reader *r)
{
    if (!r) {
        return;
    }
    tt_disk_close(r->disk);
    tt_history_free(r->history);
    tt_file_close(r->file);
    pthread_rwlock_destroy(&r->lock);
    free(r);
}

static int stop_at_first(void *opaque, const struct tt_frame *f,
                         const uint8_t *table)
{
    (void)f, (void)table;
    *(bool *)opaque = true;
    return -TT_ECHANGED;
}

/*
 * Asks, with the lock held for reading, whether the journal's end is where it
 * was: the common answer, which costs no other reader anything.
 */
static int peek(struct tt_reader *r, bool *ret_grown, struct tt_error *err)
{
    struct tt_scan_ops ops = { .frame = stop_at_first, .opaque = ret_grown };
    struct tt_scan scan = *tt_history_end(r->history);
    struct tt_file file = *r->file; /* a size of our own */
    int ret = tt_file_update_size(&file, err);

    *ret_grown = false;
    if (ret < 0) {
        return ret;
    }
    ret = tt_scan_follow(tt_history_super(r->history), &file.source, &ops,
                         &scan, err);
    *ret_grown |= file.source.size != r->file->source.size;
    return *ret_grown ? 0 : ret;
}

static int take_in(struct tt_reader *r, struct tt_error *err)
{
    bool grown;
    int ret = tt_file_update_size(r->file, err);

    if (ret == 0) {
        ret = tt_history_refresh(r->history, &r->file->source, &grown, err);
    }
    if (ret == -TT_ECHANGED) {
        ret = load(r, err);
    }
    if (ret == 0 && (!r->cut || keeps_durable(r))) {
        r->cut = false;
        note_durable(r);
    }
    return ret;
}

int tt_reader_refresh(struct tt_reader *r, struct tt_error *err)
{
    bool grown;
    int ret;

    pthread_rwlock_rdlock(&r->lock);
    ret = peek(r, &grown, err);
    pthread_rwlock_unlock(&r->lock);
    if ((ret < 0 && ret != -TT_ECHANGED) || (ret == 0 && !grown)) {
        return named(r, ret, err);
    }
    pthread_rwlock_wrlock(&r->lock);
    ret = take_in(r, err);
    pthread_rwlock_unlock(&r->lock);
    return named(r, ret, err);
}

const struct tt_history *tt_reader_lock(struct tt_reader *r)
{
    pthread_rwlock_rdlock(&r->lock);
    return r->history;
}

void tt_reader_unlock(struct tt_reader *r)
{
    pthread_rwlock_unlock(&r->lock);
}

const char *tt_reader_disk(const struct tt_reader *r)
{
    return r->disk ? tt_disk_where(r->disk) : NULL;
}

const char *tt_reader_disk_problem(const struct tt_reader *r)
{
    return r->problem;
}

bool tt_reader_disk_zero(const struct tt_reader *r, uint64_t offset,
                         uint64_t length, uint64_t *ret_run)
{
    *ret_run = length;
    return r->disk && !r->cut && tt_disk_zero(r->disk, offset, length, ret_run);
}

/* ---- which history a view is of ---------------------------------------- */

/*
 * Finds the frame that @v hangs on: of a durable view the last durable frame,
 * else the one that holds its last record.  Where damage bars the way back the
 * frame behind it serves as well: it covers more than is needed.
 */
static void find_anchor(struct tt_reader *r, struct tt_view *v)
{
    const struct tt_scan *end = tt_history_end(r->history);
    struct tt_frame f = end->last;

    v->anchored = !end->empty;
    if (end->empty) {
        return;
    }
    while (tt_frame_last_seq(&f) > end->durable_seq &&
           f.first_seq > v->moment.seq && step_back(r, &f)) {
    }
    v->anchor_offset = f.offset;
    v->anchor_chain = f.own_chain;
    v->anchor_durable = tt_frame_last_seq(&f) <= end->durable_seq;
}

/*
 * Is the anchor part of the present history?  One that was durable must only
 * be there; another is looked for on the way back from the end, since a frame
 * that lost its place in history may still lie where it was.
 */
static bool anchor_found(struct tt_reader *r, const struct tt_view *v)
{
    struct tt_frame f = tt_history_end(r->history)->last;

    if (tt_history_end(r->history)->empty) {
        return false;
    }
    if (v->anchor_durable) {
        return read_frame(r, v->anchor_offset, &f) &&
               f.own_chain == v->anchor_chain;
    }
    while (f.offset != v->anchor_offset) {
        if (!step_back(r, &f)) {
            return false;
        }
    }
    return f.own_chain == v->anchor_chain;
}

/* With the lock held: fails if the history is not the one that @v is of. */
static int still_holds(struct tt_reader *r, struct tt_view *v,
                       struct tt_error *err)
{
    uint64_t generation = atomic_load(&r->generation);

    if (atomic_load(&v->generation) == generation) {
        return 0;
    }
    if (memcmp(v->uuid, tt_history_super(r->history)->uuid, TT_UUID_SIZE) ||
        (v->anchored && !anchor_found(r, v))) {
        return tt_fail(err, TT_ECHANGED, ESTALE,
                       "%s: what was recorded up to sequence number %" PRIu64
                       " was not durable and has been replaced: open the view "
                       "again",
                       r->file->path, v->moment.seq);
    }
    atomic_store(&v->generation, generation);
    return 0;
}

int tt_reader_bind(struct tt_reader *r, const char *text,
                   const struct tt_zone *zone, int64_t now, struct tt_view *v,
                   struct tt_error *err)
{
    const struct tt_history *h = tt_reader_lock(r);
    int ret;

    memset(v, 0, sizeof(*v));
    ret = tt_moment_resolve(h, text, zone, now, &v->moment, err);
    if (ret == 0) {
        v->size = tt_history_disk_size(h, v->moment.seq);
        memcpy(v->uuid, tt_history_super(h)->uuid, TT_UUID_SIZE);
        atomic_init(&v->generation, atomic_load(&r->generation));
        find_anchor(r, v);
    }
    tt_reader_unlock(r);
    return named(r, ret, err);
}

bool tt_reader_provisional(struct tt_reader *r, const struct tt_view *v)
{
    const struct tt_history *h = tt_reader_lock(r);
    bool provisional = v->moment.seq > tt_history_end(h)->durable_seq;

    tt_reader_unlock(r);
    return provisional;
}

/* ---- reading ----------------------------------------------------------- */

/* A part of a request that the first look-up found on the live disk. */
struct piece {
    uint64_t offset, length;
    bool failed;
};

struct request {
    struct tt_reader *r;
    struct tt_view *v;
    uint64_t offset, length;
    uint8_t *buf;
    struct piece *pieces;
    size_t count, room;
    struct tt_error disk_err; /* of the first piece that failed */
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
static const struct tt_damage *find_damage(struct tt_reader *r, uint64_t seq)
{
    size_t count;
    const struct tt_damage *d = tt_history_damages(r->history, &count);

    for (size_t i = 0; i < count; i++) {
        if (d[i].first_seq <= seq && seq <= d[i].last_seq) {
            return &d[i];
        }
    }
    return NULL;
}

static int damaged(struct tt_reader *r, const struct tt_view *v,
                   const struct tt_extent *ext, struct tt_error *err)
{
    const struct tt_super *super = tt_history_super(r->history);
    const struct tt_damage *d = find_damage(r, ext->record_seq);
    uint64_t first, last;

    if (!d) {
        return tt_fail(err, TT_EDAMAGED, EIO,
                       "%s: what the disk held at %" PRIu64 " (+%" PRIu64
                       ") up to sequence number %" PRIu64 " cannot be known: "
                       "the journal is damaged (see ttjournal verify)",
                       r->file->path, ext->offset, ext->length, v->moment.seq);
    }
    first = tt_segment_at(super, d->offset);
    last = tt_segment_at(super, d->offset + (d->length ? d->length - 1 : 0));
    return tt_fail(err, TT_EDAMAGED, EIO,
                   "%s: what the disk held at %" PRIu64 " (+%" PRIu64
                   ") up to sequence number %" PRIu64 " cannot be known: the "
                   "journal is damaged at %" PRIu64 " (+%" PRIu64
                   ") in segment %" PRIu64 "%s%.0" PRIu64 ", where the records "
                   "%" PRIu64 " to %" PRIu64 " were",
                   r->file->path, ext->offset, ext->length, v->moment.seq,
                   d->offset, d->length, first, last > first ? " to " : "",
                   last > first ? last : 0, d->first_seq, d->last_seq);
}

static int add_piece(struct request *q, const struct tt_extent *ext)
{
    if (!q->r->disk || q->r->cut) {
        return no_disk(q->r, ext->offset, q->err);
    }
    if (q->count == q->room) {
        size_t room = q->room ? q->room * 2 : 16;
        void *p = realloc(q->pieces, room * sizeof(*q->pieces));

        if (!p) {
            return tt_fail(q->err, TT_ENOMEM, ENOMEM, "out of memory");
        }
        q->pieces = p;
        q->room = room;
    }
    q->pieces[q->count++] =
        (struct piece){ .offset = ext->offset, .length = ext->length };
    return 0;
}

/* Serves what the history alone answers; the lock is held. */
static int serve(struct request *q, const struct tt_extent *ext)
{
    uint8_t *to = q->buf + (ext->offset - q->offset);

    switch (ext->kind) {
    case TT_EXTENT_ZERO:
        memset(to, 0, ext->length);
        return 0;
    case TT_EXTENT_JOURNAL:
        return tt_extent_read(q->r->history, &q->r->file->source, ext,
                              ext->offset, ext->length, to, q->err);
    case TT_EXTENT_DISK:
    case TT_EXTENT_DAMAGED:
        break;
    }
    return damaged(q->r, q->v, ext, q->err);
}

static void lookup(const struct request *q, uint64_t offset, uint64_t end,
                   struct tt_extent *ret_ext)
{
    tt_view_lookup(q->r->history, q->v->moment.seq, offset, end - offset,
                   ret_ext);
}

static int first_look(struct request *q)
{
    uint64_t end = q->offset + q->length;
    struct tt_extent ext;
    int ret;

    tt_reader_lock(q->r);
    ret = still_holds(q->r, q->v, q->err);
    for (uint64_t at = q->offset; at < end && ret == 0; at += ext.length) {
        lookup(q, at, end, &ext);
        ret = ext.kind == TT_EXTENT_DISK ? add_piece(q, &ext) : serve(q, &ext);
    }
    tt_reader_unlock(q->r);
    return ret;
}

/* A failure counts only if the disk is still what is needed afterwards. */
static void read_pieces(struct request *q)
{
    struct tt_error err;

    for (size_t i = 0; i < q->count; i++) {
        struct piece *p = &q->pieces[i];

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

static int second_look_piece(struct request *q, const struct piece *p)
{
    uint64_t end = p->offset + p->length;
    struct tt_extent ext;
    int ret = 0;

    for (uint64_t at = p->offset; at < end && ret == 0; at += ext.length) {
        lookup(q, at, end, &ext);
        if (ext.kind != TT_EXTENT_DISK) {
            ret = serve(q, &ext);
        } else if (q->r->cut) {
            ret = no_disk(q->r, ext.offset, q->err);
        } else if (p->failed) {
            if (q->err) {
                *q->err = q->disk_err;
            }
            ret = -q->disk_err.code;
        }
    }
    return ret;
}

static int second_look(struct request *q)
{
    int ret = tt_reader_refresh(q->r, q->err);

    if (ret < 0) {
        return ret;
    }
    tt_reader_lock(q->r);
    ret = still_holds(q->r, q->v, q->err);
    for (size_t i = 0; i < q->count && ret == 0; i++) {
        ret = second_look_piece(q, &q->pieces[i]);
    }
    tt_reader_unlock(q->r);
    return ret;
}

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
        ret = first_look(&q);
    }
    if (ret == 0) {
        read_pieces(&q);
        if (q.count || tt_reader_provisional(r, v)) {
            ret = second_look(&q);
        }
    }
    free(q.pieces);
    return named(r, ret, err);
}

int tt_reader_extents(struct tt_reader *r, struct tt_view *v, uint64_t offset,
                      uint64_t length, tt_extent_fn *fn, void *opaque,
                      struct tt_error *err)
{
    struct request q = { .r = r, .v = v };
    struct tt_extent ext;
    int ret = check_range(v, offset, length, err);

    if (ret < 0) {
        return ret;
    }
    tt_reader_lock(r);
    ret = still_holds(r, v, err);
    for (uint64_t at = offset; at < offset + length && ret == 0;
         at += ext.length) {
        lookup(&q, at, offset + length, &ext);
        if (!fn(opaque, &ext)) {
            break;
        }
    }
    tt_reader_unlock(r);
    return named(r, ret, err);
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
