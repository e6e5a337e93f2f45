/*
 * ttjournal filter driver: records every write, with its time and bytes, in
 * an append-only journal
 *
 *     -blockdev driver=ttjournal,node-name=d,file=disk0,journal=j0
 *
 * The way of a write, and why in this order:
 *   1. It waits until nothing that overlaps it is in flight, so that journal
 *      and disk see overlapping writes in one order.
 *   2. Its bytes are copied.  The guest can change its buffer meanwhile; what
 *      is hashed, recorded and written to the disk is this one copy.
 *   3. What its blocks held before, if never overwritten, is captured.
 *   4. It is appended to the journal, with others that arrive meanwhile.
 *   5. Captures are made durable: from here on originals cannot be lost.
 *   6. It is written to the disk, and acknowledged.
 * A write that is acknowledged is in the journal; one that is on the disk is
 * in the journal, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/range.h"

#include "ttjournal-int.h"

/* ---- requests ------------------------------------------------------------ */

/* Waits for everything in flight that overlaps, and keeps later ones out. */
static void coroutine_fn GRAPH_RDLOCK ttj_serialise(BlockDriverState *bs)
{
    BdrvTrackedRequest *req = bdrv_co_get_self_request(bs);

    bdrv_make_request_serialising(req, bs->bl.request_alignment);
}

/*
 * Refused writes hold the newest bytes of their range: what succeeds later is
 * copied over them.  Called with disk_lock held, and nothing that overlaps
 * in flight.
 */
static void coroutine_fn ttj_update_refused(BDRVTtjournalState *s,
                                            const struct tt_request *req)
{
    int64_t offset = req->disk_offset, end = offset + req->disk_length;
    const uint8_t *payload = req->payload;
    TTJRefused *r;

    QEMU_LOCK_GUARD(&s->lock);
    QTAILQ_FOREACH(r, &s->refused, next) {
        int64_t from = MAX(offset, r->offset);
        int64_t to = MIN(end, r->offset + r->bytes);

        if (from >= to) {
            continue;
        }
        if (payload) {
            memcpy(r->buf + (from - r->offset), payload + (from - offset),
                   to - from);
        } else {
            memset(r->buf + (from - r->offset), 0, to - from);
        }
    }
}

/* The disk refused what the journal has: the next flush will try again. */
static void coroutine_fn GRAPH_RDLOCK ttj_keep_refused(BlockDriverState *bs,
                                                       const TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJRefused *r = g_new(TTJRefused, 1);

    *r = (TTJRefused){
        .seq = e->seq,
        .offset = e->req.disk_offset,
        .bytes = e->req.disk_length,
        .buf = qemu_blockalign0(bs->file->bs, e->req.disk_length),
    };
    if (e->req.payload) {
        memcpy(r->buf, e->req.payload, r->bytes);
    }
    QEMU_LOCK_GUARD(&s->lock);
    QTAILQ_INSERT_TAIL(&s->refused, r, next);
}

int coroutine_fn ttj_write_disk(BlockDriverState *bs, TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;
    const struct tt_request *req = &e->req;
    int ret;

    qemu_co_rwlock_rdlock(&s->disk_lock);
    ttj_update_refused(s, req);
    if (req->kind == TT_KIND_WRITE) {
        ret = bdrv_co_pwrite(bs->file, req->disk_offset, req->disk_length,
                             req->payload, 0);
    } else {
        ret = bdrv_co_pwrite_zeroes(
            bs->file, req->disk_offset, req->disk_length,
            req->flags & TT_RECORD_UNMAP ? BDRV_REQ_MAY_UNMAP : 0);
    }
    if (ret < 0) {
        ttj_keep_refused(bs, e);
    }
    qemu_co_rwlock_unlock(&s->disk_lock);
    ttj_disk_done(bs, e);
    return ret;
}

/* Steps 3 to 6 for a WRITE or ZERO of at most one record. */
static int coroutine_fn GRAPH_RDLOCK ttj_record(BlockDriverState *bs,
                                                TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t offset = e->req.disk_offset, bytes = e->req.disk_length;
    int ret = ttj_capture(bs, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    e->to_disk = true;
    ret = ttj_append(bs, e);
    if (ret < 0) {
        return ret;
    }
    ret = ttj_captures_durable(bs, offset, bytes);
    if (ret < 0) {
        ttj_keep_refused(bs, e);
        ttj_disk_done(bs, e);
        return ret;
    }
    ret = ttj_write_disk(bs, e);
    if (ret == 0 && s->checkpoint_wanted && ttj_flush(bs, false, 0) < 0) {
        /*
         * A segment has begun, and a checkpoint would have bounded what
         * recovery has to redo.  The write itself is done; what is wrong will
         * fail the guest's next flush.
         */
        s->checkpoint_wanted = true;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_WRITE,
            .disk_offset = offset,
            .disk_length = bytes,
            .payload_length = bytes,
        },
    };
    uint8_t *copy;
    int ret;

    /* refresh_limits: the block layer cuts requests, and aligns them */
    assert((uint64_t)bytes <= TT_PAYLOAD_RECORD_MAX &&
           (size_t)bytes == qiov->size);
    copy = qemu_try_blockalign(bs->file->bs, bytes);
    if (!copy) {
        return -ENOMEM;
    }
    ttj_serialise(bs);
    qemu_iovec_to_buf(qiov, 0, copy, bytes);
    e.req.payload = copy;
    ret = ttj_record(bs, &e);
    qemu_vfree(copy);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_zero(BlockDriverState *bs, int64_t offset, int64_t bytes, uint16_t flags)
{
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_ZERO,
            .flags = flags,
            .disk_offset = offset,
            .disk_length = bytes,
        },
    };

    assert((uint64_t)bytes <= TT_ZERO_RECORD_MAX);
    ttj_serialise(bs);
    return ttj_record(bs, &e);
}

static int coroutine_fn GRAPH_RDLOCK
ttj_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     BdrvRequestFlags flags)
{
    return ttj_zero(bs, offset, bytes,
                    flags & BDRV_REQ_MAY_UNMAP ? TT_RECORD_UNMAP : 0);
}

/* What a discarded range reads as afterwards must be known: zeroes. */
static int coroutine_fn GRAPH_RDLOCK
ttj_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return ttj_zero(bs, offset, bytes, TT_RECORD_UNMAP | TT_RECORD_DISCARD);
}

static int coroutine_fn GRAPH_RDLOCK
ttj_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, bytes, qiov, flags);
}

static int coroutine_fn GRAPH_RDLOCK ttj_co_flush(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    if (!s->recording) {
        return bdrv_co_flush(bs->file->bs);
    }
    return ttj_flush(bs, true, 0);
}

/* ---- resize -------------------------------------------------------------- */

/* Refused writes behind the disk's new end are gone with it. */
static void coroutine_fn ttj_trim_refused(BDRVTtjournalState *s, int64_t size)
{
    TTJRefused *r, *next;

    QEMU_LOCK_GUARD(&s->lock);
    QTAILQ_FOREACH_SAFE(r, &s->refused, next, next) {
        if (r->offset + r->bytes <= size) {
            continue;
        }
        if (r->offset < size) {
            r->bytes = size - r->offset;
            continue;
        }
        QTAILQ_REMOVE(&s->refused, r, next);
        qemu_vfree(r->buf);
        g_free(r);
    }
}

/* Appends RESIZE; it is in flight until the caller has changed the disk. */
static int coroutine_fn GRAPH_RDLOCK
ttj_record_resize(BlockDriverState *bs, TTJEntry *e, int64_t from, int64_t to)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    *e = (TTJEntry){
        .req = {
            .kind = TT_KIND_RESIZE,
            .disk_offset = from,
            .disk_length = to,
        },
        .to_disk = true,
    };
    ret = ttj_append(bs, e);
    if (ret < 0) {
        return ret;
    }
    if (to < from) {
        ttj_trim_refused(s, to);
        return 0;
    }
    /* the block that the old end cuts is not born: it was captured before */
    from = ROUND_UP(from, TT_GRID);
    QEMU_LOCK_GUARD(&s->capture_lock);
    if (from < to && (!tt_blocks_add(s->unmapped, from, to - from) ||
                      !tt_blocks_add(s->captured, from, to - from))) {
        /* recovery finds it in the RESIZE; until then it is captured twice */
        warn_report("ttjournal: out of memory for the map of new blocks");
    }
    return 0;
}

/* Journals [offset, end) as the disk holds it: it did not shrink after all. */
static int coroutine_fn GRAPH_RDLOCK
ttj_record_found(BlockDriverState *bs, int64_t offset, int64_t end)
{
    uint8_t *buf = qemu_try_blockalign(bs->file->bs, TT_PAYLOAD_RECORD_MAX);
    int ret = buf ? 0 : -ENOMEM;

    while (offset < end && ret >= 0) {
        int64_t bytes = MIN(end - offset, (int64_t)TT_PAYLOAD_RECORD_MAX);
        TTJEntry e = {
            .req = {
                .kind = TT_KIND_WRITE,
                .flags = TT_RECORD_FOUND,
                .disk_offset = offset,
                .disk_length = bytes,
                .payload = buf,
                .payload_length = bytes,
            },
        };

        ret = bdrv_co_pread(bs->file, offset, bytes, buf, 0);
        if (ret >= 0) {
            ret = ttj_append(bs, &e);
        }
        offset += bytes;
    }
    qemu_vfree(buf);
    return ret;
}

/* The disk keeps its size and contents: the journal has to say so. */
static void coroutine_fn GRAPH_RDLOCK ttj_undo_resize(BlockDriverState *bs,
                                                      int64_t from, int64_t to)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e;
    int ret = ttj_record_resize(bs, &e, to, from);

    if (ret == 0) {
        ttj_disk_done(bs, &e);
        ret = ttj_record_found(bs, MIN(from, to), from);
    }
    if (ret < 0) {
        s->disk_error = ret;
    }
}

/*
 * The journal first, as for writes.  A range that a shrink takes away is
 * captured before; one that growth adds is zero from its RESIZE on, so the
 * disk is told to make it so.
 */
static int coroutine_fn GRAPH_RDLOCK
ttj_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t old = s->writer.disk_size;
    int64_t at, step;
    TTJEntry e;
    int ret = 0;

    if (offset == old) {
        return 0;
    }
    if (offset % TT_SECTOR || (uint64_t)offset > TT_DISK_SIZE_MAX) {
        error_setg(errp,
                   "ttjournal: new size %" PRId64 " is not a multiple "
                   "of %u or too large",
                   offset, TT_SECTOR);
        return -EINVAL;
    }
    /* the disk's last block, too, if growth makes it longer */
    at = MIN(offset, QEMU_ALIGN_DOWN(old, TT_GRID));
    for (; at < old && ret == 0; at += step) {
        step = MIN(old - at, (int64_t)TT_ZERO_RECORD_MAX);
        ret = ttj_capture(bs, at, step);
    }
    if (ret == 0) {
        ret = ttj_record_resize(bs, &e, old, offset);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot record the new size");
        return ret;
    }
    ret = ttj_captures_durable(bs, MIN(offset, old), old);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot flush the journal");
    } else {
        ret = bdrv_co_truncate(
            bs->file, offset, exact, prealloc,
            offset > old ? flags | BDRV_REQ_ZERO_WRITE : flags, errp);
    }
    ttj_disk_done(bs, &e);
    if (ret < 0) {
        ttj_undo_resize(bs, old, offset);
    }
    return ret;
}

static int64_t coroutine_fn GRAPH_RDLOCK ttj_co_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

/* ---- the node ------------------------------------------------------------ */

static void ttj_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment =
        MAX(bs->file->bs->bl.request_alignment, TT_SECTOR);
    bs->bl.max_transfer =
        MIN_NON_ZERO(bs->bl.max_transfer, TT_PAYLOAD_RECORD_MAX);
    bs->bl.max_pwrite_zeroes = TT_ZERO_RECORD_MAX;
    bs->bl.max_pdiscard = TT_ZERO_RECORD_MAX;
}

/*
 * Others must not write below the filter once it records for somebody; until
 * then they may, so that it can be inserted above a disk in use.
 */
static void ttj_child_perm(BlockDriverState *bs, BdrvChild *c,
                           BdrvChildRole role, BlockReopenQueue *reopen_queue,
                           uint64_t perm, uint64_t shared, uint64_t *nperm,
                           uint64_t *nshared)
{
    BDRVTtjournalState *s = bs->opaque;

    bdrv_default_perms(bs, c, role, reopen_queue, perm, shared, nperm, nshared);
    if (!(role & BDRV_CHILD_FILTERED)) {
        return;
    }
    if (!QTAILQ_EMPTY(&s->refused)) {
        /* the last parent may leave before the disk has taken everything */
        *nperm |= BLK_PERM_WRITE;
    }
    if (!QLIST_EMPTY(&bs->parents)) {
        if (perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            *nperm |= BLK_PERM_CONSISTENT_READ;
        }
        *nshared &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
}

static int ttj_open(BlockDriverState *bs, QDict *options, int flags,
                    Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    ttj_init_state(s);
    ret = bdrv_open_file_child(NULL, options, "file", bs, errp);
    if (ret < 0) {
        return ret;
    }
    s->journal = bdrv_open_child(NULL, options, "journal", bs, &child_of_bds,
                                 BDRV_CHILD_METADATA, false, errp);
    if (!s->journal) {
        return -EINVAL;
    }
    bdrv_graph_rdlock_main_loop();
    bs->total_sectors = bs->file->bs->total_sectors;
    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED;
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_MAY_UNMAP;
    bs->supported_truncate_flags =
        bs->file->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE;
    bdrv_graph_rdunlock_main_loop();

    if (bs->open_flags & BDRV_O_INACTIVE) {
        return 0; /* ttj_co_invalidate_cache() follows */
    }
    return ttj_start(bs, errp);
}

static void ttj_close(BlockDriverState *bs)
{
    ttj_stop(bs);
    ttj_free_state(bs->opaque);
}

/* Another process may take over: nothing is written while inactive. */
static int ttj_inactivate(BlockDriverState *bs)
{
    return ttj_stop(bs);
}

/*
 * What a reopen of the filter itself may change is nothing that it keeps;
 * read-only and read-write are different sessions.
 */
static int ttj_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                              Error **errp)
{
    BDRVTtjournalState *s = state->bs->opaque;

    if (!(state->flags & BDRV_O_INACTIVE) &&
        s->recording != !!(state->flags & BDRV_O_RDWR)) {
        error_setg(errp,
                   "ttjournal: a node cannot be reopened from "
                   "read-only to read-write or back: remove it and add it "
                   "again");
        return -ENOTSUP;
    }
    return 0;
}

static const char *const ttj_strong_runtime_opts[] = { NULL };

static BlockDriver bdrv_ttjournal = {
    .format_name = "ttjournal",
    .instance_size = sizeof(BDRVTtjournalState),

    .bdrv_open = ttj_open,
    .bdrv_close = ttj_close,
    .bdrv_inactivate = ttj_inactivate,
    .bdrv_co_invalidate_cache = ttj_co_start_again,
    .bdrv_reopen_prepare = ttj_reopen_prepare,
    .bdrv_child_perm = ttj_child_perm,
    .bdrv_refresh_limits = ttj_refresh_limits,
    .strong_runtime_opts = ttj_strong_runtime_opts,

    .bdrv_co_getlength = ttj_co_getlength,
    .bdrv_co_preadv = ttj_co_preadv,
    .bdrv_co_pwritev = ttj_co_pwritev,
    .bdrv_co_pwrite_zeroes = ttj_co_pwrite_zeroes,
    .bdrv_co_pdiscard = ttj_co_pdiscard,
    .bdrv_co_flush = ttj_co_flush,
    .bdrv_co_truncate = ttj_co_truncate,

    .is_filter = true,
};

static void ttj_init(void)
{
    bdrv_register(&bdrv_ttjournal);
}

block_init(ttj_init);
