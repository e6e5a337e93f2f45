/*
 * ttjournal filter driver: the journal's end
 *
 * Group commit: while one append is under way, arriving records wait; then
 * the first that wakes takes as many as fit into the next frame.  Nobody
 * waits for a timer, and a lone record goes at once.
 *
 * What may go wrong, and what then holds:
 *   - An append fails: its records fail with the real errno, nothing was
 *     acknowledged, and the next frame goes to the same place with the same
 *     sequence numbers.
 *   - A flush of the journal fails: nothing is believed any more, see
 *     journal_error.
 *   - The disk refuses a write that is in the journal: it is kept and written
 *     again by the next flush, which fails if that does.  No CHECKPOINT says
 *     that the disk has it.
 *
 * Order: a flush covers what was complete when it was issued, so every number
 * is taken before the call and used after it has returned.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qemu/range.h"
#include "qemu/units.h"

#include "ttjournal-int.h"

/* Pre-images of data are read in pieces of this size at most. */
#define CAPTURE_MAX (64 * KiB)

/* ---- one append --------------------------------------------------------- */

/*
 * The guest's, or one of our own?  A PREIMAGE is taken before its WRITE is
 * acknowledged, so it is the guest's.
 */
static TTJGrowFor ttj_append_for(const struct tt_append *a)
{
    for (unsigned i = 0; i < a->request_count; i++) {
        switch (a->requests[i].kind) {
        case TT_KIND_WRITE:
        case TT_KIND_ZERO:
        case TT_KIND_PREIMAGE:
            return TTJ_GROW_FOR_GUEST;
        }
    }
    return TTJ_GROW_FOR_US;
}

static int coroutine_fn GRAPH_RDLOCK ttj_write_frame(BlockDriverState *bs,
                                                     const struct tt_append *a)
{
    BDRVTtjournalState *s = bs->opaque;
    QEMUIOVector qiov;
    int ret;

    ret = ttj_grow(bs, a->offset + a->length, ttj_append_for(a));
    if (ret < 0) {
        return ret;
    }
    qemu_iovec_init(&qiov, a->request_count + 2);
    qemu_iovec_add(&qiov, (void *)a->head, a->head_length);
    for (unsigned i = 0; i < a->request_count; i++) {
        const struct tt_request *req = &a->requests[i];

        if (req->payload_length && !(req->flags & TT_RECORD_INLINE)) {
            qemu_iovec_add(&qiov, (void *)req->payload, req->payload_length);
        }
    }
    if (a->tail_zeroes) {
        qemu_iovec_add(&qiov, s->zeroes, a->tail_zeroes);
    }
    assert(qiov.size == a->length);
    ret = bdrv_co_pwritev(s->journal, a->offset, qiov.size, &qiov, 0);
    qemu_iovec_destroy(&qiov);
    return ret;
}

/*
 * Plans, writes and commits s->batch.  Called with lock held and appending
 * set; drops the lock meanwhile.
 */
static int coroutine_fn GRAPH_RDLOCK
ttj_commit_batch(BlockDriverState *bs, struct tt_append *ret_append)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = s->journal_error;

    if (ret < 0) {
        return ret;
    }
    tt_writer_plan(&s->writer, s->batch, ttj_now(), ret_append);
    qemu_co_mutex_unlock(&s->lock);
    ret = ttj_write_frame(bs, ret_append);
    qemu_co_mutex_lock(&s->lock);
    if (ret == 0) {
        tt_writer_commit(&s->writer, s->batch);
        s->checkpoint_wanted |= ret_append->starts_segment;
        ttj_grow_later(bs);
    } else {
        tt_writer_failed(&s->writer, s->batch);
    }
    return ret;
}

/*
 * Appends the footer of the segment that ended.  If that fails it is tried
 * again after the next frame; a segment without a footer is none the worse.
 */
static void coroutine_fn GRAPH_RDLOCK ttj_append_footer(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    uint32_t length, next_length;
    uint8_t *body = tt_writer_footer_part(&s->writer, 0, &length);

    for (uint32_t part = 0; body; part++) {
        uint8_t *next =
            tt_writer_footer_part(&s->writer, part + 1, &next_length);
        struct tt_request req = {
            .kind = TT_KIND_FOOTER,
            .flags = next ? TT_RECORD_MORE : 0,
            .payload = body,
            .payload_length = length,
        };
        struct tt_append a;
        int ret;

        tt_batch_reset(s->batch, &s->writer);
        tt_batch_add(s->batch, &req);
        ret = ttj_commit_batch(bs, &a);
        free(body);
        if (ret < 0) {
            free(next);
            return;
        }
        body = next;
        length = next_length;
    }
    tt_writer_footer_done(&s->writer);
}

/* Moves the first pending records that fit one frame to @batch. */
static void ttj_take_pending(BDRVTtjournalState *s, TTJEntry **ret_entries,
                             unsigned *ret_count)
{
    TTJEntry *e;
    unsigned n = 0;

    tt_batch_reset(s->batch, &s->writer);
    while ((e = QSIMPLEQ_FIRST(&s->pending)) &&
           tt_batch_add(s->batch, &e->req)) {
        QSIMPLEQ_REMOVE_HEAD(&s->pending, next);
        ret_entries[n++] = e;
    }
    /* One record within the format's limits always fits. */
    assert(n > 0);
    *ret_count = n;
}

/* Appends one frame of pending records and tells their owners. */
static void coroutine_fn GRAPH_RDLOCK ttj_lead(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    g_autofree TTJEntry **entries =
        g_new(TTJEntry *, TT_HEAD_MAX / sizeof(struct tt_record_header));
    struct tt_append a;
    unsigned count;
    int ret;

    ttj_take_pending(s, entries, &count);
    ret = ttj_commit_batch(bs, &a);
    for (unsigned i = 0; i < count; i++) {
        TTJEntry *e = entries[i];

        e->ret = ret;
        e->done = true;
        if (ret == 0) {
            e->seq = a.first_seq + i;
            e->frame_offset = a.offset;
            if (e->to_disk) {
                QTAILQ_INSERT_TAIL(&s->in_flight, e, in_flight);
            }
        }
    }
    if (ret == 0 && s->writer.ended) {
        ttj_append_footer(bs);
    }
}

int coroutine_fn ttj_append(BlockDriverState *bs, TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;

    e->done = false;
    qemu_co_mutex_lock(&s->lock);
    QSIMPLEQ_INSERT_TAIL(&s->pending, e, next);
    while (!e->done) {
        if (s->appending) {
            qemu_co_queue_wait(&s->changed, &s->lock);
            continue;
        }
        s->appending = true;
        ttj_lead(bs);
        s->appending = false;
        qemu_co_queue_restart_all(&s->changed);
    }
    qemu_co_mutex_unlock(&s->lock);
    return e->ret;
}

int coroutine_fn ttj_still_here(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e = { .req.kind = TT_KIND_DURABLE };
    uint64_t last;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        last = s->writer.last_boottime;
    }
    return ttj_now().boottime - last < MTIME_SLACK_NS / 4 ? 0
                                                          : ttj_append(bs, &e);
}

void coroutine_fn ttj_disk_done(BlockDriverState *bs, TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    QTAILQ_REMOVE(&s->in_flight, e, in_flight);
}

/* ---- flushing the journal ----------------------------------------------- */

int coroutine_fn ttj_make_durable(BlockDriverState *bs, uint64_t seq)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = 0;

    qemu_co_mutex_lock(&s->lock);
    while (s->writer.durable_seq < seq && !s->journal_error) {
        uint64_t complete = s->writer.next_seq - 1;

        if (s->flushing) {
            qemu_co_queue_wait(&s->changed, &s->lock);
            continue;
        }
        s->flushing = true;
        qemu_co_mutex_unlock(&s->lock);
        ret = bdrv_co_flush(s->journal->bs);
        qemu_co_mutex_lock(&s->lock);
        s->flushing = false;
        if (ret < 0) {
            s->journal_error = ret;
        } else {
            tt_writer_flushed(&s->writer, complete);
        }
        qemu_co_queue_restart_all(&s->changed);
    }
    ret = s->writer.durable_seq < seq ? s->journal_error : 0;
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

int coroutine_fn ttj_make_all_durable(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t last;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        last = s->writer.next_seq - 1;
    }
    return ttj_make_durable(bs, last);
}

/* ---- checkpoints --------------------------------------------------------- */

/* The largest sequence such that the disk has been given all up to it. */
static uint64_t ttj_level(BDRVTtjournalState *s)
{
    uint64_t level = s->writer.next_seq - 1;
    TTJEntry *e = QTAILQ_FIRST(&s->in_flight);
    TTJRefused *r;

    if (e) {
        level = MIN(level, e->seq - 1);
    }
    QTAILQ_FOREACH(r, &s->refused, next) {
        level = MIN(level, r->seq - 1);
    }
    return level;
}

/* Writes again what the disk refused; the first error that it repeats. */
static int coroutine_fn GRAPH_RDLOCK ttj_repeat_refused(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJRefused *r, *next;
    /* the last writer may have left before: this is not others' writing */
    bool ours = !s->served && !ttj_disk_changed(bs);
    int ret = 0;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (QTAILQ_EMPTY(&s->refused)) {
            return 0;
        }
    }
    qemu_co_rwlock_wrlock(&s->disk_lock);
    QTAILQ_FOREACH_SAFE(r, &s->refused, next, next) {
        int err = ttj_still_here(bs);

        if (err == 0) {
            err = bdrv_co_pwrite(bs->file, r->offset, r->bytes, r->buf, 0);
        }
        if (err < 0) {
            ret = ret ? ret : err;
            continue;
        }
        qemu_co_mutex_lock(&s->lock);
        QTAILQ_REMOVE(&s->refused, r, next);
        qemu_co_mutex_unlock(&s->lock);
        qemu_vfree(r->buf);
        g_free(r);
    }
    if (ours) {
        ttj_disk_left(bs);
    }
    qemu_co_rwlock_unlock(&s->disk_lock);
    return ret;
}

/*
 * A chain of many small maps takes long to load: it is begun anew when the
 * links outweigh the map, so that loading costs at most a constant times the
 * map, and so does writing.
 */
static void ttj_begin_new_map(BDRVTtjournalState *s)
{
    uint64_t at = 0, run;

    if (s->map_links < 64 ||
        s->map_links * 32ull + s->map_ranges < s->whole_ranges) {
        return;
    }
    s->whole_ranges = 0;
    while ((at = tt_blocks_next(s->captured, at)) != UINT64_MAX) {
        tt_blocks_test(s->captured, at, UINT64_MAX - at, &run);
        if (!tt_blocks_add(s->unmapped, at, run)) {
            return; /* the chain as it is serves, too */
        }
        s->whole_ranges++;
        at += run;
    }
    s->map_prev = 0;
    s->map_links = 0;
    s->map_ranges = 0;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_append_checkpoint(BlockDriverState *bs, uint64_t level, uint32_t flags)
{
    BDRVTtjournalState *s = bs->opaque;
    struct tt_checkpoint c = {
        .level_seq = level,
        .clean = flags & TT_CHECKPOINT_CLEAN,
    };
    bool more;

    if (c.clean && !s->served && ttj_disk_changed(bs)) {
        /* others wrote below us: the next open must see that it has changed */
        c.has_stat = s->left_has_stat;
        c.disk_inode = s->left_inode;
        c.disk_mtime = s->left_mtime;
    } else if (c.clean) {
        c.has_stat = ttj_disk_stat(bs, &c.disk_inode, &c.disk_mtime);
    }

    /* The map is as of its place in the journal: no captures meanwhile. */
    qemu_co_mutex_lock(&s->capture_lock);
    ttj_begin_new_map(s);
    do {
        TTJEntry e = { .req.kind = TT_KIND_CHECKPOINT };
        uint32_t length, ranges;
        uint8_t *body;

        c.map_prev = s->map_prev;
        body = tt_checkpoint_encode(&c, s->unmapped, &length, &more);
        if (!body) {
            qemu_co_mutex_unlock(&s->capture_lock);
            return -ENOMEM;
        }
        e.req.payload = body;
        e.req.payload_length = length;
        e.req.flags = (more ? TT_RECORD_MORE : 0) |
                      (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0);
        e.ret = ttj_append(bs, &e);
        if (e.ret < 0) {
            free(body);
            qemu_co_mutex_unlock(&s->capture_lock);
            return e.ret;
        }
        ranges = tt_checkpoint_done(body, s->unmapped);
        if (ranges) {
            s->map_prev = e.frame_offset;
            s->map_links++;
            s->map_ranges += ranges;
        }
        free(body);
    } while (more);
    qemu_co_mutex_unlock(&s->capture_lock);
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK ttj_append_flush(BlockDriverState *bs,
                                                      uint64_t covered)
{
    struct tt_flush_body body = { .covered_seq = tt_put64(covered) };
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_FLUSH,
            .flags = TT_RECORD_INLINE,
            .payload = &body,
            .payload_length = sizeof(body),
        },
    };

    return ttj_append(bs, &e);
}

static int coroutine_fn GRAPH_RDLOCK ttj_flush_all(BlockDriverState *bs,
                                                   bool guest, uint32_t flags)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t complete, level;
    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        complete = s->writer.next_seq - 1;
    }
    ret = ttj_make_durable(bs, complete);
    if (ret < 0) {
        return ret;
    }
    ret = ttj_repeat_refused(bs);
    if (ret < 0) {
        return ret;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        /* in flight later than this it may be, but not durable then */
        level = MIN(ttj_level(s), complete);
    }
    ret = s->disk_error ? s->disk_error : bdrv_co_flush(bs->file->bs);
    if (s->disk_error) {
        ret = s->disk_error; /* one that we waited for has failed */
    }
    if (ret < 0) {
        s->disk_error = ret;
        return ret;
    }
    if (guest) {
        ret = ttj_append_flush(bs, complete);
    }
    return ret < 0 ? ret : ttj_append_checkpoint(bs, level, flags);
}

int coroutine_fn ttj_flush(BlockDriverState *bs, bool guest, uint32_t flags)
{
    BDRVTtjournalState *s = bs->opaque;
    bool wanted;
    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        wanted = s->checkpoint_wanted;
        s->checkpoint_wanted = false;
    }
    ret = ttj_flush_all(bs, guest, flags);
    if (ret < 0) {
        QEMU_LOCK_GUARD(&s->lock);
        s->checkpoint_wanted |= wanted;
    }
    return ret;
}

/* ---- captures ------------------------------------------------------------ */

/* Marks [offset, offset + bytes) as captured by the PREIMAGE @seq. */
static int ttj_mark_captured(BDRVTtjournalState *s, uint64_t seq,
                             int64_t offset, int64_t bytes)
{
    TTJCapture *c;

    if (!tt_blocks_add(s->unmapped, offset, bytes) ||
        !tt_blocks_add(s->captured, offset, bytes)) {
        return -ENOMEM;
    }
    c = g_new(TTJCapture, 1);
    *c = (TTJCapture){ .seq = seq, .offset = offset, .bytes = bytes };
    QTAILQ_INSERT_TAIL(&s->undurable, c, next);
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK ttj_append_preimage(BlockDriverState *bs,
                                                         int64_t offset,
                                                         int64_t bytes,
                                                         const uint8_t *buf)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_PREIMAGE,
            .flags = buf ? 0 : TT_RECORD_ZEROES,
            .disk_offset = offset,
            .disk_length = bytes,
            .payload = buf,
            .payload_length = buf ? bytes : 0,
        },
    };
    int ret = ttj_append(bs, &e);

    return ret < 0 ? ret : ttj_mark_captured(s, e.seq, offset, bytes);
}

/*
 * Captures some of [offset, offset + bytes), which nobody has captured, and
 * returns how much.  A range that block status knows to be zero costs no read,
 * and is taken as far as it and the never captured range go: @room bytes.
 */
static int64_t coroutine_fn GRAPH_RDLOCK ttj_capture_some(BlockDriverState *bs,
                                                          int64_t offset,
                                                          int64_t bytes,
                                                          int64_t room)
{
    g_autofree uint8_t *unused = NULL;
    uint8_t *buf;
    int64_t pnum;
    int ret;

    ret = bdrv_co_block_status_above(bs->file->bs, NULL, offset,
                                     MIN(room, TT_PREIMAGE_ZERO_MAX), &pnum,
                                     NULL, NULL);
    if (ret >= 0 && (ret & BDRV_BLOCK_ZERO)) {
        /* whole blocks, or all up to the end of what is to be captured */
        if (pnum < room) {
            pnum = QEMU_ALIGN_DOWN(pnum, TT_GRID);
        }
        if (pnum) {
            ret = ttj_append_preimage(bs, offset, pnum, NULL);
            return ret < 0 ? ret : pnum;
        }
    }
    bytes = MIN(bytes, CAPTURE_MAX);
    buf = qemu_try_blockalign(bs->file->bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    ret = bdrv_co_pread(bs->file, offset, bytes, buf, 0);
    if (ret >= 0) {
        ret = ttj_append_preimage(bs, offset, bytes,
                                  buffer_is_zero(buf, bytes) ? NULL : buf);
    }
    qemu_vfree(buf);
    return ret < 0 ? ret : bytes;
}

int coroutine_fn ttj_capture(BlockDriverState *bs, int64_t offset,
                             int64_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t size = s->writer.disk_size;
    int64_t end = MIN(ROUND_UP(offset + bytes, TT_GRID), size);
    int64_t at = QEMU_ALIGN_DOWN(offset, TT_GRID);
    int64_t done = 0;

    QEMU_LOCK_GUARD(&s->capture_lock);
    for (; at < end && done >= 0; at += done) {
        uint64_t run;

        if (tt_blocks_test(s->captured, at, size - at, &run)) {
            done = run;
            continue;
        }
        done = ttj_capture_some(bs, at, MIN(run, end - at), run);
    }
    return MIN(done, 0);
}

/* The newest PREIMAGE of the range that is not durable, or 0. */
static uint64_t coroutine_fn ttj_undurable(BDRVTtjournalState *s,
                                           int64_t offset, int64_t bytes)
{
    TTJCapture *c, *next;
    uint64_t seq = 0, durable;

    offset = QEMU_ALIGN_DOWN(offset, TT_GRID);
    bytes = ROUND_UP(bytes, TT_GRID) + TT_GRID;
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        durable = s->writer.durable_seq;
    }
    QEMU_LOCK_GUARD(&s->capture_lock);
    QTAILQ_FOREACH_SAFE(c, &s->undurable, next, next) {
        if (c->seq <= durable) {
            QTAILQ_REMOVE(&s->undurable, c, next);
            g_free(c);
        } else if (ranges_overlap(c->offset, c->bytes, offset, bytes)) {
            seq = MAX(seq, c->seq);
        }
    }
    return seq;
}

int coroutine_fn ttj_captures_durable(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t seq = ttj_undurable(s, offset, bytes);

    return seq ? ttj_make_durable(bs, seq) : 0;
}
