/*
 * ttjournal filter driver: the disk's size
 *
 * While the size changes no write is on its way, nothing is pending, and no
 * CHECKPOINT is made, which would have to know whether the disk has its new
 * size already.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/error-report.h"

#include "ttjournal-int.h"

/*
 * Appends RESIZE.  What it adds is born captured, and the map that a
 * CHECKPOINT carries is as of its place: no CHECKPOINT between the two.
 */
static int coroutine_fn GRAPH_RDLOCK
ttj_append_resize(BlockDriverState *bs, TTJEntry *e, int64_t from, int64_t to)
{
    BDRVTtjournalState *s = bs->opaque;
    /* the block that the old end cuts was captured before */
    int64_t born = ROUND_UP(from, TT_GRID);
    int ret;

    e->req = (struct tt_request){
        .kind = TT_KIND_RESIZE,
        .disk_offset = from,
        .disk_length = to,
    };
    QEMU_LOCK_GUARD(&s->capture_lock);
    ret = ttj_append(bs, e, 1);
    if (ret == 0 && born < to &&
        (!tt_blocks_add(s->unmapped, born, to - born) ||
         !tt_blocks_add(s->captured, born, to - born))) {
        /* recovery finds it in the RESIZE; until then it is captured twice */
        warn_report("ttjournal: out of memory for the map of new blocks");
    }
    return ret;
}

/* The journal names one size: a disk that is only "large enough" has another. */
static int coroutine_fn GRAPH_RDLOCK
ttj_resize_disk(BlockDriverState *bs, int64_t size, PreallocMode prealloc,
                BdrvRequestFlags flags, Error **errp)
{
    int ret = bdrv_co_truncate(bs->file, size, true, prealloc, flags, errp);

    if (ret == 0 && bdrv_co_getlength(bs->file->bs) != size) {
        error_setg(errp, "ttjournal: disk '%s' cannot have %" PRId64 " bytes",
                   ttj_name(bs->file->bs), size);
        ret = -ENOTSUP;
    }
    return ret;
}

/* The journal does not say what size the disk has: nothing more is recorded. */
static void coroutine_fn ttj_lost_size(BDRVTtjournalState *s, int error)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->journal_error = s->journal_error ? s->journal_error : error;
}

static int coroutine_fn GRAPH_RDLOCK ttj_capture_to_end(BlockDriverState *bs,
                                                        int64_t from)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t end = s->writer.disk_size, step;
    int ret = 0;

    for (; from < end && ret == 0; from += step) {
        step = MIN(end - from, (int64_t)TT_ZERO_RECORD_MAX);
        ret = ttj_capture(bs, from, step);
    }
    return ret;
}

/*
 * Once what a shrink takes away is captured, and all is durable, every byte of
 * it is in the journal: then the disk goes first, and if it refuses there is
 * nothing to undo.  After a crash in between the disk is shorter than the
 * journal says, and recovery appends the RESIZE.
 */
static int coroutine_fn GRAPH_RDLOCK
ttj_shrink(BlockDriverState *bs, int64_t size, PreallocMode prealloc,
           BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t old = s->writer.disk_size;
    TTJEntry e = { 0 };
    int ret = ttj_capture_to_end(bs, size);

    if (ret == 0) {
        ret = ttj_make_durable(bs, s->capture_seq);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "ttjournal: cannot record what is cut off");
        return ret;
    }
    ret = ttj_resize_disk(bs, size, prealloc, flags, errp);
    if (ret < 0) {
        return ret;
    }
    ret = ttj_append_resize(bs, &e, old, size);
    if (ret < 0) {
        ttj_lost_size(s, ret);
        error_setg_errno(errp, -ret, "ttjournal: cannot record the new size");
    }
    return ret;
}

/* What growth adds is zero from its RESIZE on: the disk is told to make it so. */
static int coroutine_fn GRAPH_RDLOCK
ttj_enlarge(BlockDriverState *bs, int64_t size, PreallocMode prealloc,
            BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t old = s->writer.disk_size;
    int64_t cut = QEMU_ALIGN_DOWN(old, TT_GRID);
    TTJEntry e = { 0 }, back = { 0 };
    int ret, err;

    if (!(bs->file->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE)) {
        error_setg(errp,
                   "ttjournal: disk '%s' cannot grow by zeroes: remove "
                   "the node, grow the disk, and begin a new journal",
                   ttj_name(bs->file->bs));
        return -ENOTSUP;
    }
    ret = ttj_capture_to_end(bs, cut);
    if (ret == 0) {
        ret = ttj_make_durable(bs, s->capture_seq);
    }
    if (ret == 0) {
        ret = ttj_append_resize(bs, &e, old, size);
    }
    if (ret == 0) {
        /* a power cut must not leave a disk that is larger than it says */
        ret = ttj_make_durable(bs, e.seq);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot record the new size");
        return ret;
    }
    ret =
        ttj_resize_disk(bs, size, prealloc, flags | BDRV_REQ_ZERO_WRITE, errp);
    if (ret < 0) {
        err = ttj_append_resize(bs, &back, size, old);
        if (err < 0) {
            ttj_lost_size(s, err);
        }
    }
    return ret;
}

/* Called with resize_lock held for writing: no write is on its way. */
static int coroutine_fn GRAPH_RDLOCK
ttj_resize(BlockDriverState *bs, int64_t size, PreallocMode prealloc,
           BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t old = s->writer.disk_size;
    int ret;

    if (s->journal_error) {
        /* perhaps of a resize: the disk may have another size than @old */
        error_setg_errno(errp, -s->journal_error,
                         "ttjournal: the journal cannot be written");
        return s->journal_error;
    }
    if (size == old) {
        return 0;
    }
    if (size % TT_SECTOR || (uint64_t)size > TT_DISK_SIZE_MAX) {
        error_setg(errp,
                   "ttjournal: new size %" PRId64 " is not a multiple "
                   "of %u or too large",
                   size, TT_SECTOR);
        return -EINVAL;
    }
    if (s->unrecorded) {
        error_setg(errp, "ttjournal: not while writes go unrecorded, because "
                         "the journal cannot be written");
        return -EBUSY;
    }
    ret = ttj_level(bs);
    if (ret == 0 && size < old) {
        /* or, after a crash, a short disk might pass for a growth not done */
        ret = ttj_checkpoint(bs, 0);
    }
    if (ret == 0 && size < old) {
        ret = ttj_make_durable(bs, s->writer.next_seq - 1);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot bring the disk level");
        return ret;
    }
    QEMU_LOCK_GUARD(&s->level_lock);
    return size < old ? ttj_shrink(bs, size, prealloc, flags, errp)
                      : ttj_enlarge(bs, size, prealloc, flags, errp);
}

int coroutine_fn ttj_co_truncate(BlockDriverState *bs, int64_t offset,
                                 bool exact, PreallocMode prealloc,
                                 BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    /* There may be room again, and the worker has not tried yet. */
    ttj_end_gap(bs);
    qemu_co_rwlock_wrlock(&s->resize_lock);
    ret = ttj_resize(bs, offset, prealloc, flags, errp);
    qemu_co_rwlock_unlock(&s->resize_lock);
    return ret;
}

int coroutine_fn ttj_lock_size(BlockDriverState *bs, int64_t end)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = 0;

    qemu_co_rwlock_rdlock(&s->resize_lock);
    while ((uint64_t)end > s->writer.disk_size && ret == 0) {
        qemu_co_rwlock_unlock(&s->resize_lock);
        qemu_co_rwlock_wrlock(&s->resize_lock);
        if ((uint64_t)end > s->writer.disk_size) {
            ret = ttj_resize(bs, end, PREALLOC_MODE_OFF, 0, NULL);
        }
        qemu_co_rwlock_downgrade(&s->resize_lock);
    }
    if (ret < 0) {
        qemu_co_rwlock_unlock(&s->resize_lock);
    }
    return ret;
}
