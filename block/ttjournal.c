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
#include "qemu/units.h"

#include "ttjournal-int.h"

/* Bytes that the disk refused and that are kept for the next flush */
#define REFUSED_MAX (64 * MiB)

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

/*
 * The disk refused what the journal has: the next flush will try again.  With
 * too much of it, recovery has to: the disk is not believed any more.  Called
 * behind ttj_update_refused(), under the same disk_lock.
 */
static void coroutine_fn GRAPH_RDLOCK
ttj_keep_refused(BlockDriverState *bs, const TTJEntry *e, int error)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t offset = e->req.disk_offset, bytes = e->req.disk_length;
    int64_t total = bytes;
    TTJRefused *r;
    uint8_t *buf;

    QEMU_LOCK_GUARD(&s->lock);
    QTAILQ_FOREACH(r, &s->refused, next) {
        if (r->offset <= offset && offset + bytes <= r->offset + r->bytes) {
            return; /* it holds these bytes already */
        }
        total += r->bytes;
    }
    buf =
        total <= REFUSED_MAX ? qemu_try_blockalign(bs->file->bs, bytes) : NULL;
    if (!buf) {
        s->disk_error = s->disk_error ? s->disk_error : error;
        return;
    }
    if (e->req.payload) {
        memcpy(buf, e->req.payload, bytes);
    } else {
        memset(buf, 0, bytes);
    }
    r = g_new(TTJRefused, 1);
    *r = (TTJRefused){
        .seq = e->seq,
        .offset = offset,
        .bytes = bytes,
        .buf = buf,
    };
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
        ttj_keep_refused(bs, e, ret);
    }
    qemu_co_rwlock_unlock(&s->disk_lock);
    ttj_disk_done(bs, e);
    return ret;
}

/* ---- resize -------------------------------------------------------------- */

/* Refused writes behind the disk's new end are gone with it. */
static void coroutine_fn ttj_trim_refused(BDRVTtjournalState *s, int64_t size)
{
    TTJRefused *r, *next;

    qemu_co_rwlock_wrlock(&s->disk_lock);
    qemu_co_mutex_lock(&s->lock);
    QTAILQ_FOREACH_SAFE(r, &s->refused, next, next) {
        if (r->offset >= size) {
            QTAILQ_REMOVE(&s->refused, r, next);
            qemu_vfree(r->buf);
            g_free(r);
        } else {
            r->bytes = MIN(r->bytes, size - r->offset);
        }
    }
    qemu_co_mutex_unlock(&s->lock);
    qemu_co_rwlock_unlock(&s->disk_lock);
}

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
    ret = ttj_append(bs, e);
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
        ret = ttj_make_all_durable(bs);
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
    ttj_trim_refused(s, size);
    ret = ttj_append_resize(bs, &e, old, size);
    if (ret < 0) {
        ttj_lost_size(s, ret);
        error_setg_errno(errp, -ret, "ttjournal: cannot record the new size");
    }
    return ret;
}

/* What growth adds is zero from its RESIZE on: the disk is told to make it so. */
static int coroutine_fn GRAPH_RDLOCK
ttj_extend(BlockDriverState *bs, int64_t size, PreallocMode prealloc,
           BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t old = s->writer.disk_size;
    int64_t cut = QEMU_ALIGN_DOWN(old, TT_GRID);
    TTJEntry e = { .to_disk = true }, back = { 0 };
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
        ret = ttj_captures_durable(bs, cut, old - cut);
    }
    if (ret == 0) {
        ret = ttj_append_resize(bs, &e, old, size);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot record the new size");
        return ret;
    }
    ret =
        ttj_resize_disk(bs, size, prealloc, flags | BDRV_REQ_ZERO_WRITE, errp);
    ttj_disk_done(bs, &e);
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
    return size < old ? ttj_shrink(bs, size, prealloc, flags, errp)
                      : ttj_extend(bs, size, prealloc, flags, errp);
}

static int coroutine_fn GRAPH_RDLOCK
ttj_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    qemu_co_rwlock_wrlock(&s->resize_lock);
    ret = ttj_resize(bs, offset, prealloc, flags, errp);
    qemu_co_rwlock_unlock(&s->resize_lock);
    return ret;
}

/*
 * Takes resize_lock for a write up to @end.  A format above the filter lets
 * its file grow by writing behind its end.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_lock_size(BlockDriverState *bs,
                                                   int64_t end)
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

/* ---- recording ----------------------------------------------------------- */

/* Steps 3 to 6 for a WRITE or ZERO of at most one record. */
static int coroutine_fn GRAPH_RDLOCK ttj_record_locked(BlockDriverState *bs,
                                                       TTJEntry *e)
{
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
        /* journal_error: no CHECKPOINT will pass it, and recovery redoes it */
        ttj_disk_done(bs, e);
        return ret;
    }
    return ttj_write_disk(bs, e);
}

static int coroutine_fn GRAPH_RDLOCK ttj_record(BlockDriverState *bs,
                                                TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = ttj_lock_size(bs, e->req.disk_offset + e->req.disk_length);

    if (ret < 0) {
        return ret;
    }
    ret = ttj_record_locked(bs, e);
    qemu_co_rwlock_unlock(&s->resize_lock);
    if (ret == 0 && s->checkpoint_wanted && !s->disk_error) {
        /*
         * A segment has begun: what recovery has to redo stays bounded.  The
         * write itself is done; what is wrong fails the guest's next flush.
         */
        ttj_flush(bs, false, 0);
    }
    return ret;
}

/* One record; @copy has room for it. */
static int coroutine_fn GRAPH_RDLOCK
ttj_write_part(BlockDriverState *bs, int64_t offset, QEMUIOVector *qiov,
               size_t from, size_t bytes, uint8_t *copy)
{
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_WRITE,
            .disk_offset = offset,
            .disk_length = bytes,
            .payload = copy,
            .payload_length = bytes,
        },
    };

    qemu_iovec_to_buf(qiov, from, copy, bytes);
    return ttj_record(bs, &e);
}

/* A large request is several records, acknowledged after the last. */
static int coroutine_fn GRAPH_RDLOCK
ttj_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    size_t left = bytes, part;
    uint8_t *copy;
    int ret = 0;

    if (!bytes) {
        return 0; /* it changes nothing, and no record can say that */
    }
    copy = qemu_try_blockalign(bs->file->bs, MIN(left, TT_PAYLOAD_RECORD_MAX));
    if (!copy) {
        return -ENOMEM;
    }
    ttj_serialise(bs);
    for (; left && ret == 0; left -= part, offset += part) {
        /* cut on the grid, so that no block has two checksums */
        part = MIN(left, TT_PAYLOAD_RECORD_MAX - offset % TT_GRID);
        ret = ttj_write_part(bs, offset, qiov, bytes - left, part, copy);
    }
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

    if (!bytes) {
        return 0;
    }
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
    /* The block layer hands unaligned ends down; they keep their contents. */
    if (!QEMU_IS_ALIGNED(offset | bytes, bs->bl.request_alignment)) {
        return -ENOTSUP;
    }
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

static int64_t coroutine_fn GRAPH_RDLOCK ttj_co_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

/* ---- the node ------------------------------------------------------------ */

static void ttj_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment =
        MAX(bs->file->bs->bl.request_alignment, TT_SECTOR);
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
            /* what changes nothing is recorded and written all the same */
            *nperm |= BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
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
    ret = ttj_grow_options(bs, options, errp);
    if (ret < 0) {
        return ret;
    }
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

/* Does @perm allow changing the disk through the filter? */
static bool ttj_is_writer(uint64_t perm)
{
    return perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE);
}

static int ttj_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                          Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;

    if (!s->recording || s->served || !ttj_is_writer(perm) ||
        !ttj_disk_changed(bs)) {
        return 0;
    }
    error_setg(errp,
               "ttjournal: disk '%s' was written below node '%s' while that "
               "had no user, and not recorded: remove the node and begin a "
               "new journal",
               ttj_name(bs->file->bs), bdrv_get_node_name(bs));
    return -ESTALE;
}

static void ttj_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    BDRVTtjournalState *s = bs->opaque;

    if (s->recording && s->served && !ttj_is_writer(perm)) {
        ttj_disk_left(bs);
    }
    s->served = ttj_is_writer(perm);
}

/* Another process may take over: nothing is written while inactive. */
static int ttj_inactivate(BlockDriverState *bs)
{
    int ret = ttj_stop(bs);

    if (ret == 0) {
        ttj_free_state(bs->opaque);
    }
    return ret; /* if it failed, the node stays active and goes on recording */
}

/*
 * What a reopen of the filter itself may change is nothing that it keeps;
 * read-only and read-write are different sessions.
 */
static int ttj_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                              Error **errp)
{
    BDRVTtjournalState *s = state->bs->opaque;
    const char *name = qdict_get_try_str(state->options, "file");
    BlockDriverState *file = name ? bdrv_find_node(name) : NULL;

    /* filters may come and go between here and the disk, nothing else */
    if (file &&
        bdrv_skip_filters(file) != bdrv_skip_filters(state->bs->file->bs)) {
        error_setg(errp,
                   "ttjournal: node '%s' is not the disk that is "
                   "recorded: remove this node and add another",
                   name);
        return -EINVAL;
    }
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
    .bdrv_check_perm = ttj_check_perm,
    .bdrv_set_perm = ttj_set_perm,
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
