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
 * The last is left out where nothing was taken in since the first look: then
 * it would tell the same (changes counts that).
 *
 * A view is immutable once its end is durable.  Above that a power cut may
 * take frames away and a later session put others in their place.  A view is
 * therefore bound to a frame by its chain value, which covers all before it.
 * While its end is not durable each read takes in the tail after it has read:
 * if what the history was built from is no longer there, history is read anew
 * and the view must be found in it, or the read fails.
 *
 * What an index on disk covers is not read.  Such a history is made beside the
 * one in use, takes in the tail with the lock held, and is then put in its
 * place: so nobody who has seen a frame meets a history without it.  That is
 * done when the journal's tail was replaced, when the index has grown, and when
 * a page of it turns out to be damaged: then what was asked is asked again.
 *
 * Invariants:
 * - past and what it holds change only with the lock held for writing, and past
 *   is replaced only by who has reload, too; generation counts that.
 * - The lock is not held while the live disk is read: a server that hangs
 *   holds up its own reader only.
 * - Bytes leave here only if the view was found in the present history after
 *   they had been read, or if its end is durable.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "reader-int.h"

/* Segments that are read at each opening rather than indexed then */
#define OPEN_SEGMENTS 4u
/* An opening waits so long for another process that indexes, and gets nowhere */
#define BUSY_TRIES 200u
#define BUSY_US 50000u
/* How often it is tried to get a history that fits */
#define TRIES 4u
/* So often an index is mended; then the disk that it is on is not trusted */
#define MENDED_MAX 8u
/* How many frames that are not durable are passed to find one that is */
#define BACK_MAX 64
/* Steps that the follower leaves out at most after the index failed */
#define PAUSE_MAX 256u

/* ---- history ----------------------------------------------------------- */

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

int tt_reader_named(const struct tt_reader *r, int ret, struct tt_error *err)
{
    struct tt_error e;

    if (ret < 0 && err && !strstr(err->message, r->file->path)) {
        e = *err;
        tt_fail(err, e.code, e.os_errno, "%s: %s", r->file->path, e.message);
    }
    return ret;
}

static void past_free(struct past *p)
{
    if (p) {
        tt_history_free(p->history);
        tt_index_set_put(p->set);
        free(p);
    }
}

/*
 * Reads what there is now; what @set (or NULL) covers comes from there.
 * @moving: nothing is looked for behind the end.
 */
static int past_read(struct tt_reader *r, struct tt_index_set *set, bool moving,
                     struct past **ret_past, struct tt_error *err)
{
    struct past *p = calloc(1, sizeof(*p));
    struct tt_run *const *runs;
    size_t count;
    int ret;

    if (!p || !(p->history = tt_history_new())) {
        free(p);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    tt_file_wrap(&p->file, r->file->fd, r->file->path, 0);
    ret = tt_file_update_size(&p->file, err);
    if (ret == 0 && !set) {
        ret = tt_history_load(p->history, &p->file.source, err);
    } else if (ret == 0) {
        p->set = tt_index_set_ref(set);
        runs = tt_index_set_runs(set, &count);
        ret = (moving ? tt_history_open_moving : tt_history_open)(
            p->history, &p->file.source, tt_index_set_catalog(set), runs, count,
            err);
    }
    if (ret < 0) {
        past_free(p);
        return ret;
    }
    *ret_past = p;
    return 0;
}

static bool read_frame(const struct past *p, uint64_t offset,
                       struct tt_frame *ret_frame)
{
    uint8_t head[TT_HEAD_MAX];

    return tt_frame_read(tt_history_super(p->history), &p->file.source, offset,
                         head, ret_frame, NULL) > 0;
}

/*
 * Goes one frame back.  False if that one is not whole or not the one that *f
 * followed (damage), or if *f is the first.
 */
static bool step_back(const struct past *p, struct tt_frame *f)
{
    struct tt_frame prev;

    if (!f->prev_offset || f->prev_offset >= f->offset ||
        !read_frame(p, f->prev_offset, &prev) || prev.own_chain != f->chain) {
        return false;
    }
    *f = prev;
    return true;
}

/* Unless it was cut: remembers what is durable, by a frame near its end. */
static void note_durable(struct tt_reader *r)
{
    const struct tt_scan *end = tt_history_end(r->past->history);
    struct tt_frame f = end->last;

    if (r->cut) {
        return;
    }
    r->durable_seq = end->durable_seq;
    for (int i = 0; i < BACK_MAX && !end->empty; i++) {
        if (tt_frame_last_seq(&f) <= end->durable_seq) {
            r->has_durable_frame = true;
            r->durable_offset = f.offset;
            r->durable_chain = f.own_chain;
            break;
        }
        if (!step_back(r->past, &f)) {
            break;
        }
    }
}

/* Is what was durable still there? */
static bool keeps_durable(const struct tt_reader *r)
{
    const struct past *p = r->past;
    struct tt_frame f;

    if (tt_history_end(p->history)->last_seq < r->durable_seq) {
        return false;
    }
    return !r->has_durable_frame || (read_frame(p, r->durable_offset, &f) &&
                                     f.own_chain == r->durable_chain);
}

/* Does @p know all that @old does?  What is behind damage it may have missed. */
static bool reaches(const struct past *p, const struct past *old)
{
    const struct tt_scan *a = tt_history_end(p->history);
    const struct tt_scan *b = tt_history_end(old->history);

    return a->last_seq >= b->last_seq && a->end_offset >= b->end_offset &&
           a->damaged_end == b->damaged_end;
}

/*
 * Puts @p, which it takes, in the place of the present one; @moving: unless
 * that reaches further (-TT_ECHANGED).
 */
static int past_install(struct tt_reader *r, struct past *p, bool moving,
                        struct tt_error *err)
{
    struct past *old = p;
    bool grown;
    int ret;

    pthread_rwlock_wrlock(&r->lock);
    ret = tt_file_update_size(&p->file, err);
    if (ret == 0) {
        ret = tt_history_refresh(p->history, &p->file.source, &grown, err);
    }
    if (ret == 0 && moving && !reaches(p, r->past)) {
        ret = tt_fail(err, TT_ECHANGED, 0, "the journal's end is damaged");
    }
    if (ret == 0) {
        old = r->past;
        r->past = p;
        atomic_fetch_add(&r->generation, 1);
        atomic_fetch_add(&r->changes, 1);
        atomic_store(&r->cut, !keeps_durable(r));
        note_durable(r);
    }
    pthread_rwlock_unlock(&r->lock);
    past_free(old);
    return ret;
}

/* ---- the index --------------------------------------------------------- */

/* Extends it if @segments can be added; 1: another process is at it. */
static int extend(struct tt_reader *r, uint64_t segments, bool *ret_grown,
                  struct tt_error *err)
{
    struct tt_store_work work = {
        .at_least = segments * r->super.segment_size,
    };
    int ret = tt_store_extend(r->store, &work, err);

    *ret_grown = work.grown;
    return ret < 0 ? ret : work.busy;
}

/* At most so much of the journal is not covered. */
static uint64_t uncovered(struct tt_reader *r)
{
    struct tt_index_set *set = tt_store_get(r->store);
    uint64_t from = r->super.segments_offset, end = r->file->source.size;

    if (set) {
        from = tt_catalog_end_offset(tt_index_set_catalog(set));
        tt_index_set_put(set);
    }
    return end > from ? end - from : 0;
}

/*
 * While another process makes the index, waiting for it costs less than to do
 * the same; unless it hangs.  That the index cannot be written is no failure:
 * what it does not cover is kept in memory.
 */
static void extend_at_open(struct tt_reader *r)
{
    bool grown;

    for (unsigned i = 0;
         i < BUSY_TRIES &&
         uncovered(r) >= OPEN_SEGMENTS * r->super.segment_size &&
         extend(r, OPEN_SEGMENTS, &grown, NULL) > 0;
         i = grown ? 0 : i + 1) {
        g_usleep(BUSY_US);
    }
}

/* With reload: @set does not fit, or is damaged. */
static void mend(struct tt_reader *r, const struct tt_index_set *set)
{
    bool grown;

    tt_store_forget(r->store, set);
    if (++r->mended >= MENDED_MAX) {
        return;
    }
    /* all of history in memory would cost more than to wait for another */
    for (unsigned i = 0;
         i < BUSY_TRIES && extend(r, OPEN_SEGMENTS, &grown, NULL) > 0;
         i = grown ? 0 : i + 1) {
        g_usleep(BUSY_US);
    }
}

/* With reload: reads history anew, but for what an index covers. */
static int reload(struct tt_reader *r, struct tt_error *err)
{
    int ret = 0;

    for (unsigned i = 0; i < MENDED_MAX + TRIES; i++) {
        struct tt_index_set *set = NULL;
        struct past *p = NULL;

        if (r->store && r->mended < MENDED_MAX) {
            set = tt_store_get(r->store);
        }
        ret = past_read(r, set, false, &p, err);
        if (ret == 0) {
            ret = past_install(r, p, false, err);
        }
        if (ret == -TT_EINDEX && set) {
            mend(r, set);
        }
        tt_index_set_put(set);
        if (ret != -TT_EINDEX && ret != -TT_ECHANGED) {
            break;
        }
    }
    return ret;
}

/*
 * The history of @generation does not serve any more: its tail was replaced,
 * or (@damaged) its index does not fit.
 */
static int replace(struct tt_reader *r, uint64_t generation, bool damaged,
                   struct tt_error *err)
{
    int ret = 0;

    pthread_mutex_lock(&r->reload);
    if (atomic_load(&r->generation) == generation) {
        if (damaged && r->past->set) {
            mend(r, r->past->set);
        }
        ret = reload(r, err);
    }
    pthread_mutex_unlock(&r->reload);
    return ret;
}

bool tt_reader_mended(struct tt_reader *r, uint64_t generation, int ret)
{
    return ret == -TT_EINDEX && replace(r, generation, true, NULL) == 0;
}

/* ---- open and refresh -------------------------------------------------- */

static int open_index(struct tt_reader *r, const char *folder,
                      struct tt_error *err)
{
    int ret = tt_store_open(r->file, &r->super, folder, &r->store, err);

    if (ret < 0) {
        r->store = NULL;
        return ret;
    }
    extend_at_open(r);
    return 0;
}

static int open_journal(struct tt_reader *r, const char *path,
                        const struct tt_reader_options *options,
                        struct tt_error *err)
{
    int ret = tt_file_open(path, &r->file, err);

    if (ret < 0) {
        r->file = NULL;
        return ret;
    }
    ret = tt_super_read(&r->file->source, &r->super, NULL, err);
    if (ret == 0 && !options->no_index) {
        ret = open_index(r, options->index, err);
    }
    if (ret == 0) {
        ret = reload(r, err);
    }
    return tt_reader_named(r, ret, err);
}

int tt_reader_open_with(const char *path,
                        const struct tt_reader_options *options,
                        struct tt_reader **ret_reader, struct tt_error *err)
{
    struct tt_reader *r = calloc(1, sizeof(*r));
    int ret;

    if (!r || lock_init(&r->lock)) {
        free(r);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    pthread_mutex_init(&r->reload, NULL);
    ret = open_journal(r, path, options, err);
    if (ret == 0) {
        ret = tt_attach_disk(r, options->disk, &r->disk, r->problem, err);
    }
    if (ret < 0) {
        tt_reader_close(r);
        return ret;
    }
    *ret_reader = r;
    return 0;
}

int tt_reader_open(const char *path, const char *disk, struct tt_reader **ret,
                   struct tt_error *err)
{
    const struct tt_reader_options options = { .disk = disk };

    return tt_reader_open_with(path, &options, ret, err);
}

void tt_reader_close(struct tt_reader *r)
{
    if (!r) {
        return;
    }
    tt_disk_close(r->disk);
    past_free(r->past);
    tt_store_close(r->store);
    tt_file_close(r->file);
    pthread_mutex_destroy(&r->reload);
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
    const struct tt_history *h = r->past->history;
    struct tt_scan scan = *tt_history_end(h);
    struct tt_file file = r->past->file; /* a size of our own */
    int ret = tt_file_update_size(&file, err);

    *ret_grown = false;
    if (ret < 0) {
        return ret;
    }
    ret = tt_scan_follow(tt_history_super(h), &file.source, &ops, &scan, err);
    *ret_grown |= file.source.size != r->past->file.source.size;
    return *ret_grown ? 0 : ret;
}

/* With the lock held for writing */
static int take_in(struct tt_reader *r, struct tt_error *err)
{
    struct past *p = r->past;
    bool grown;
    int ret = tt_file_update_size(&p->file, err);

    /* also if it fails: some may have been taken in */
    atomic_fetch_add(&r->changes, 1);
    if (ret == 0) {
        ret = tt_history_refresh(p->history, &p->file.source, &grown, err);
    }
    if (ret == 0 && (!r->cut || keeps_durable(r))) {
        atomic_store(&r->cut, false);
        note_durable(r);
    }
    return ret;
}

int tt_reader_refresh(struct tt_reader *r, struct tt_error *err)
{
    uint64_t generation;
    bool grown;
    int ret;

    pthread_rwlock_rdlock(&r->lock);
    ret = peek(r, &grown, err);
    pthread_rwlock_unlock(&r->lock);
    if ((ret < 0 && ret != -TT_ECHANGED) || (ret == 0 && !grown)) {
        return tt_reader_named(r, ret, err);
    }
    pthread_rwlock_wrlock(&r->lock);
    generation = atomic_load(&r->generation);
    ret = take_in(r, err);
    pthread_rwlock_unlock(&r->lock);
    if (ret == -TT_ECHANGED || ret == -TT_EINDEX) {
        ret = replace(r, generation, ret == -TT_EINDEX, err);
    }
    return tt_reader_named(r, ret, err);
}

uint64_t tt_reader_changes(const struct tt_reader *r)
{
    return atomic_load(&r->changes);
}

/* ---- following --------------------------------------------------------- */

/* Has a segment ended that the history in use does not get from the index? */
static bool segment_ended(struct tt_reader *r)
{
    uint64_t from = r->super.segments_offset;
    const struct tt_scan *end;
    bool ended;

    pthread_rwlock_rdlock(&r->lock);
    end = tt_history_end(r->past->history);
    if (r->past->set) {
        from = tt_catalog_end_offset(tt_index_set_catalog(r->past->set));
    }
    ended =
        !end->empty && tt_segment_offset(&r->super, end->last.segment) > from;
    pthread_rwlock_unlock(&r->lock);
    return ended;
}

/*
 * With reload: goes over to the newest index, and reads of what that does not
 * cover what it must.  If that will not do, all is looked at as at an opening.
 */
static int advance(struct tt_reader *r, struct tt_error *err)
{
    struct tt_index_set *set = tt_store_get(r->store);
    struct past *p;
    int ret = -TT_EINDEX;

    if (set) {
        ret = past_read(r, set, true, &p, err);
        if (ret == 0) {
            ret = past_install(r, p, true, err);
        }
    }
    tt_index_set_put(set);
    return ret == 0 ? 0 : reload(r, err);
}

/* With reload */
static int follow_index(struct tt_reader *r, struct tt_error *err)
{
    struct tt_index_set *set;
    bool grown, newer;
    int ret;

    if (r->pause > 0) {
        r->pause--;
        return 0;
    }
    ret = extend(r, 1, &grown, err);
    if (ret < 0) {
        r->failures += r->failures < 31;
        r->pause =
            1u << r->failures < PAUSE_MAX ? 1u << r->failures : PAUSE_MAX;
        return ret;
    }
    r->failures = 0;
    set = tt_store_get(r->store);
    newer = set != r->past->set;
    tt_index_set_put(set);
    return newer ? advance(r, err) : 0;
}

int tt_reader_follow(struct tt_reader *r, struct tt_error *err)
{
    int ret = tt_reader_refresh(r, err);

    if (ret < 0 || !r->store || !segment_ended(r)) {
        return ret;
    }
    pthread_mutex_lock(&r->reload);
    if (r->mended < MENDED_MAX) {
        ret = follow_index(r, err);
    }
    pthread_mutex_unlock(&r->reload);
    return tt_reader_named(r, ret, err);
}

char *tt_reader_index_note(struct tt_reader *r)
{
    return r->store ? tt_store_note(r->store) : strdup("");
}

const struct tt_history *tt_reader_lock(struct tt_reader *r)
{
    pthread_rwlock_rdlock(&r->lock);
    return r->past->history;
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
    const struct tt_scan *end = tt_history_end(r->past->history);
    struct tt_frame f = end->last;

    v->anchored = !end->empty;
    if (end->empty) {
        return;
    }
    while (tt_frame_last_seq(&f) > end->durable_seq &&
           f.first_seq > v->moment.seq && step_back(r->past, &f)) {
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
    struct tt_frame f = tt_history_end(r->past->history)->last;

    if (tt_history_end(r->past->history)->empty) {
        return false;
    }
    if (v->anchor_durable) {
        return read_frame(r->past, v->anchor_offset, &f) &&
               f.own_chain == v->anchor_chain;
    }
    while (f.offset != v->anchor_offset) {
        if (!step_back(r->past, &f)) {
            return false;
        }
    }
    return f.own_chain == v->anchor_chain;
}

int tt_reader_still_holds(struct tt_reader *r, struct tt_view *v,
                          struct tt_error *err)
{
    uint64_t generation = atomic_load(&r->generation);

    if (atomic_load(&v->generation) == generation) {
        return 0;
    }
    if (memcmp(v->uuid, tt_history_super(r->past->history)->uuid,
               TT_UUID_SIZE) ||
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

static int bind_once(struct tt_reader *r, const char *text,
                     const struct tt_zone *zone, int64_t now, struct tt_view *v,
                     uint64_t *ret_generation, struct tt_error *err)
{
    const struct tt_history *h = tt_reader_lock(r);
    int ret;

    *ret_generation = atomic_load(&r->generation);
    memset(v, 0, sizeof(*v));
    ret = tt_moment_resolve(h, text, zone, now, &v->moment, err);
    if (ret == 0) {
        v->size = tt_history_disk_size(h, v->moment.seq);
        memcpy(v->uuid, tt_history_super(h)->uuid, TT_UUID_SIZE);
        atomic_init(&v->generation, *ret_generation);
        find_anchor(r, v);
    }
    tt_reader_unlock(r);
    return ret;
}

int tt_reader_bind(struct tt_reader *r, const char *text,
                   const struct tt_zone *zone, int64_t now, struct tt_view *v,
                   struct tt_error *err)
{
    uint64_t generation;
    int ret;

    do {
        ret = bind_once(r, text, zone, now, v, &generation, err);
    } while (tt_reader_mended(r, generation, ret));
    return tt_reader_named(r, ret, err);
}

bool tt_reader_provisional(struct tt_reader *r, const struct tt_view *v)
{
    const struct tt_history *h = tt_reader_lock(r);
    bool provisional = v->moment.seq > tt_history_end(h)->durable_seq;

    tt_reader_unlock(r);
    return provisional;
}
