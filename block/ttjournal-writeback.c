/*
 * ttjournal filter driver: from the journal to the disk
 *
 * What is durable in the journal is brought to the disk by one coroutine at a
 * time: it takes the ranges that have been pending longest, captures what they
 * hold on the disk if nobody ever has, makes that durable, and keeps a number
 * of them in flight.  A guest's flush does so itself; else a worker does (see
 * ttjournal-worker.c).
 *
 * Invariants:
 *   - the disk holds no byte that is not durable in the journal;
 *   - no block changes on the disk before what it held is durable, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio_task.h"
#include "block/block-io.h"
#include "qemu/cutils.h"
#include "qemu/defer-call.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"

#include "ttjournal-int.h"

/* In flight at most, so that it does not last as long as TT_MTIME_SLACK */
#define FLIGHT_BYTES (16 * MiB)

/* Pre-images of data are read in pieces of this size at most. */
#define CAPTURE_MAX (64 * KiB)

/* Requests that are taken while the lock is held once */
#define TAKE_STEP 2

/* ---- room ---------------------------------------------------------------- */

static bool ttj_fits(BDRVTtjournalState *s, uint64_t bytes)
{
    uint64_t held = tt_pending_bytes(s->pending) + s->admitted;

    /* what is larger than the bound goes alone */
    return !held || held + bytes <= s->options.max_pending;
}

/* First come, first served: nobody passes those who wait. */
int coroutine_fn ttj_admit(BlockDriverState *bs, uint64_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    bool waits = false;

    QEMU_LOCK_GUARD(&s->lock);
    while (!ttj_fits(s, bytes) || (!waits && !qemu_co_queue_empty(&s->room))) {
        if (s->disk_error || s->journal_error) {
            return s->journal_error ? s->journal_error : s->disk_error;
        }
        s->waiting_for_room++;
        ttj_kick(bs);
        qemu_co_queue_wait_impl(&s->room, QEMU_MAKE_LOCKABLE(&s->lock),
                                waits ? CO_QUEUE_WAIT_FRONT : 0);
        s->waiting_for_room--;
        waits = true;
    }
    s->admitted += bytes;
    ttj_room(bs);
    return 0;
}

void ttj_room(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    if (s->disk_error || s->journal_error) {
        qemu_co_enter_all(&s->room, &s->lock);
    } else if (ttj_fits(s, 0)) {
        qemu_co_enter_next(&s->room, &s->lock);
    }
}

/* ---- captures ------------------------------------------------------------ */

/* What a range of the disk holds that nobody has captured */
typedef struct TTJCapture {
    BlockDriverState *bs;
    int64_t offset, bytes;
    TTJData *data; /* NULL: zeroes */
    QSIMPLEQ_ENTRY(TTJCapture) next;
} TTJCapture;

typedef struct TTJCaptures {
    QSIMPLEQ_HEAD(, TTJCapture) list;
    unsigned count;
} TTJCaptures;

static int ttj_add_capture(BlockDriverState *bs, TTJCaptures *all,
                           int64_t offset, int64_t bytes, bool zeroes)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJCapture *c;

    if (!tt_blocks_add(s->captured, offset, bytes)) {
        tt_blocks_remove(s->captured, offset, ROUND_UP(bytes, TT_GRID));
        return -ENOMEM;
    }
    c = g_new0(TTJCapture, 1);
    c->bs = bs;
    c->offset = offset;
    c->bytes = bytes;
    QSIMPLEQ_INSERT_TAIL(&all->list, c, next);
    all->count++;
    if (!zeroes) {
        c->data = ttj_data_new(bs, bytes);
        return c->data ? 0 : -ENOMEM;
    }
    return 0;
}

/*
 * Adds some of [offset, offset + bytes), which nobody has captured, and
 * returns how much.  A range that block status knows to be zero costs no
 * read, and is taken as far as it and the never captured range go: @room
 * bytes.
 */
static int64_t coroutine_fn GRAPH_RDLOCK
ttj_plan_some(BlockDriverState *bs, TTJCaptures *all, int64_t offset,
              int64_t bytes, int64_t room)
{
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
            ret = ttj_add_capture(bs, all, offset, pnum, true);
            return ret < 0 ? ret : pnum;
        }
    }
    bytes = MIN(bytes, CAPTURE_MAX);
    ret = ttj_add_capture(bs, all, offset, bytes, false);
    return ret < 0 ? ret : bytes;
}

static int coroutine_fn GRAPH_RDLOCK ttj_plan_captures(BlockDriverState *bs,
                                                       TTJCaptures *all,
                                                       int64_t offset,
                                                       int64_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t size = s->writer.disk_size;
    int64_t end = MIN(ROUND_UP(offset + bytes, TT_GRID), size);
    int64_t at = QEMU_ALIGN_DOWN(offset, TT_GRID);
    int64_t done = 0;

    for (; at < end && done >= 0; at += done) {
        uint64_t run;

        if (tt_blocks_test(s->captured, at, size - at, &run)) {
            done = run;
            continue;
        }
        done = ttj_plan_some(bs, all, at, MIN(run, end - at), run);
    }
    return MIN(done, 0);
}

/* What the pool frees when it is done */
typedef struct TTJRead {
    AioTask task;
    TTJCapture *capture;
} TTJRead;

static int coroutine_fn ttj_read_capture(AioTask *task)
{
    TTJCapture *c = container_of(task, TTJRead, task)->capture;
    int ret;

    assume_graph_lock();
    ret = bdrv_co_pread(c->bs->file, c->offset, c->bytes, c->data->bytes, 0);
    if (ret >= 0 && buffer_is_zero(c->data->bytes, c->bytes)) {
        ttj_data_unref(c->data);
        c->data = NULL;
    }
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK ttj_read_captures(TTJCaptures *all)
{
    AioTaskPool *pool = aio_task_pool_new(all->count);
    TTJCapture *c;
    int ret;

    defer_call_begin();
    QSIMPLEQ_FOREACH(c, &all->list, next) {
        if (c->data) {
            TTJRead *read = g_new(TTJRead, 1);

            *read = (TTJRead){ .task.func = ttj_read_capture, .capture = c };
            aio_task_pool_start_task(pool, &read->task);
        }
    }
    defer_call_end();
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    aio_task_pool_free(pool);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_append_captures(BlockDriverState *bs,
                                                         TTJCaptures *all)
{
    BDRVTtjournalState *s = bs->opaque;
    g_autofree TTJEntry *entries = g_new0(TTJEntry, all->count);
    TTJEntry *e = entries;
    TTJCapture *c;
    int ret;

    QSIMPLEQ_FOREACH(c, &all->list, next) {
        e->data = c->data;
        e->req = (struct tt_request){
            .kind = TT_KIND_PREIMAGE,
            .flags = c->data ? 0 : TT_RECORD_ZEROES,
            .disk_offset = c->offset,
            .disk_length = c->bytes,
            .payload = c->data ? c->data->bytes : NULL,
            .payload_length = c->data ? c->bytes : 0,
        };
        e++;
    }
    ret = ttj_append(bs, entries, all->count);
    if (ret == 0) {
        QEMU_LOCK_GUARD(&s->lock);
        s->capture_seq = entries[all->count - 1].seq;
    }
    return ret;
}

/*
 * All is in the journal, or nothing counts: what was appended before an error
 * is captured once more, and the first one of a block is what readers take.
 */
static int ttj_settle_captures(BDRVTtjournalState *s, TTJCaptures *all, int ret)
{
    TTJCapture *c, *next;

    QSIMPLEQ_FOREACH_SAFE(c, &all->list, next, next)
    {
        if (ret == 0 && !tt_blocks_add(s->unmapped, c->offset, c->bytes)) {
            ret = -ENOMEM;
        }
    }
    QSIMPLEQ_FOREACH_SAFE(c, &all->list, next, next)
    {
        if (ret < 0) {
            tt_blocks_remove(s->captured, c->offset,
                             ROUND_UP(c->bytes, TT_GRID));
        }
        ttj_data_unref(c->data);
        g_free(c);
    }
    return ret;
}

typedef struct TTJRange {
    int64_t offset, bytes;
} TTJRange;

/* *ret_found: was there anything that nobody had captured? */
static int coroutine_fn GRAPH_RDLOCK ttj_capture_all(BlockDriverState *bs,
                                                     const TTJRange *ranges,
                                                     unsigned count,
                                                     bool *ret_found)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJCaptures all = { .list = QSIMPLEQ_HEAD_INITIALIZER(all.list) };
    int ret = 0;

    QEMU_LOCK_GUARD(&s->capture_lock);
    for (unsigned i = 0; i < count && ret == 0; i++) {
        ret = ttj_plan_captures(bs, &all, ranges[i].offset, ranges[i].bytes);
    }
    *ret_found = all.count > 0;
    if (ret == 0 && all.count) {
        ret = ttj_read_captures(&all);
    }
    if (ret == 0 && all.count) {
        ret = ttj_append_captures(bs, &all);
    }
    return ttj_settle_captures(s, &all, ret);
}

int coroutine_fn ttj_capture(BlockDriverState *bs, int64_t offset,
                             int64_t bytes)
{
    TTJRange range = { offset, bytes };
    bool found;

    return ttj_capture_all(bs, &range, 1, &found);
}

/* ---- writing ------------------------------------------------------------- */

/* Whoever writes: one at a time */
typedef struct TTJFlight {
    BlockDriverState *bs;
    AioTaskPool *pool;
    unsigned requests; /* that were taken and did not come back */
    uint64_t bytes;
    /*
     * Blocks are met that nobody has captured.  Each batch waits for a flush
     * of the journal then, so it is to be large.
     */
    bool captures;
} TTJFlight;

typedef struct TTJWrite {
    AioTask task;
    TTJFlight *flight;
    struct tt_writeback w;
} TTJWrite;

static int coroutine_fn GRAPH_RDLOCK ttj_write_disk(BlockDriverState *bs,
                                                    struct tt_writeback *w)
{
    QEMUIOVector qiov;
    int ret;

    if (w->kind == TT_KIND_ZERO) {
        return bdrv_co_pwrite_zeroes(
            bs->file, w->offset, w->length,
            w->flags & TT_RECORD_UNMAP ? BDRV_REQ_MAY_UNMAP : 0);
    }
    qemu_iovec_init(&qiov, w->part_count);
    for (unsigned i = 0; i < w->part_count; i++) {
        qemu_iovec_add(&qiov, (void *)w->parts[i].data, w->parts[i].length);
    }
    ret = bdrv_co_pwritev(bs->file, w->offset, w->length, &qiov, 0);
    qemu_iovec_destroy(&qiov);
    return ret;
}

static void coroutine_fn ttj_write_done(TTJWrite *write, int ret)
{
    TTJFlight *f = write->flight;
    BDRVTtjournalState *s = f->bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    f->requests--;
    f->bytes -= write->w.length;
    if (ret < 0) {
        tt_pending_refused(s->pending, &write->w);
    } else {
        tt_pending_written(s->pending, &write->w);
        ttj_room(f->bs);
    }
}

static int coroutine_fn ttj_write_entry(AioTask *task)
{
    TTJWrite *write = container_of(task, TTJWrite, task);
    int ret;

    assume_graph_lock();
    ret = ttj_write_disk(write->flight->bs, &write->w);
    ttj_write_done(write, ret);
    return MIN(ret, 0);
}

/* What they held before is in the journal, durable. */
static int coroutine_fn GRAPH_RDLOCK
ttj_capture_writes(TTJFlight *f, TTJWrite **writes, unsigned count)
{
    BDRVTtjournalState *s = f->bs->opaque;
    TTJRange ranges[TTJ_FLIGHT_MAX];
    uint64_t seq;
    int ret;

    for (unsigned i = 0; i < count; i++) {
        ranges[i] = (TTJRange){ writes[i]->w.offset, writes[i]->w.length };
    }
    ret = ttj_capture_all(f->bs, ranges, count, &f->captures);
    if (ret < 0) {
        return ret;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        seq = s->capture_seq;
    }
    return ttj_make_durable(f->bs, seq);
}

/* Starts what was taken, and frees it if that fails. */
static int coroutine_fn GRAPH_RDLOCK
ttj_start_writes(TTJFlight *f, TTJWrite **writes, unsigned count)
{
    int ret = ttj_still_here(f->bs);

    if (ret == 0) {
        ret = ttj_capture_writes(f, writes, count);
    }
    if (ret < 0) {
        for (unsigned i = 0; i < count; i++) {
            ttj_write_done(writes[i], ret);
            g_free(writes[i]);
        }
        return ret;
    }
    defer_call_begin();
    for (unsigned i = 0; i < count; i++) {
        writes[i]->task.func = ttj_write_entry;
        aio_task_pool_start_task(f->pool, &writes[i]->task); /* frees it */
    }
    defer_call_end();
    return 0;
}

/*
 * Takes what may be in flight besides, many at once: to submit each on its
 * own would cost more than it takes the device.  Called with lock held; drops
 * it now and then.
 */
static unsigned ttj_take_writes(TTJFlight *f, unsigned depth, TTJWrite **writes)
{
    BDRVTtjournalState *s = f->bs->opaque;
    unsigned count = 0;

    depth = f->captures && depth ? TTJ_FLIGHT_MAX : depth;
    if (f->requests > depth / 2) {
        return 0;
    }
    while (f->requests < depth && f->bytes < FLIGHT_BYTES) {
        TTJWrite *write;

        if (count && count % TAKE_STEP == 0) {
            ttj_make_way(s);
        }
        write = g_new(TTJWrite, 1);

        if (!tt_pending_take(s->pending, &write->w)) {
            g_free(write);
            break;
        }
        write->task = (AioTask){ 0 };
        write->flight = f;
        writes[count++] = write;
        f->requests++;
        f->bytes += write->w.length;
    }
    return count;
}

void ttj_begin_writing(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    assert(!s->writing);
    s->writing = true;
    s->writing_ours = s->served || !ttj_disk_changed(bs);
}

void ttj_stop_writing(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    if (s->writing_ours && !s->served) {
        ttj_disk_left(bs);
    }
    s->writing = false;
    qemu_co_queue_restart_all(&s->written);
    ttj_kick(bs); /* who looked meanwhile has found somebody writing */
}

/*
 * Waits until nobody writes.  The worker makes way until whoever waits has
 * really run: with the queue alone it would be the first again.
 */
void coroutine_fn ttj_wait_written(BDRVTtjournalState *s)
{
    s->write_waiters++;
    qemu_co_queue_wait(&s->written, &s->lock);
    s->write_waiters--;
}

/*
 * How many may be in flight for what is to be done: everything up to @seq, or
 * if that is 0 what the worker wants.  0: nothing more.
 */
static unsigned ttj_wanted_depth(BDRVTtjournalState *s, uint64_t seq)
{
    uint64_t oldest = tt_pending_oldest(s->pending);

    if (!seq) {
        return ttj_write_depth(s);
    }
    return oldest && oldest <= seq ? TTJ_FLIGHT_MAX : 0;
}

/*
 * Called with lock held and nobody writing; drops the lock meanwhile.  1 if
 * something was written, 0 if there was nothing, -errno; *ret_journals: it is
 * what an append said.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_fly(TTJFlight *f, uint64_t seq,
                                             bool *ret_journals)
{
    BDRVTtjournalState *s = f->bs->opaque;
    TTJWrite *writes[TTJ_FLIGHT_MAX];
    uint64_t failures;
    bool any = false;
    int ret = 0;

    while (ret == 0) {
        unsigned depth = ttj_wanted_depth(s, seq);
        unsigned count = ttj_take_writes(f, depth, writes);

        assert(depth || !count);
        if (!depth || !f->requests) {
            break;
        }
        any = true;
        failures = s->failures;
        qemu_lockable_unlock(&s->lock);
        if (count) {
            ret = ttj_start_writes(f, writes, count);
            g_thread_yield(); /* as ttj_settle_durable() does */
        }
        if (ret == 0) {
            if (f->requests) { /* only this thread changes it */
                aio_task_pool_wait_one(f->pool);
            }
            ret = aio_task_pool_status(f->pool);
        } else {
            *ret_journals = true; /* unless it was the disk that was captured */
        }
        qemu_lockable_lock(&s->lock);
        *ret_journals = *ret_journals && s->failures > failures;
        if (ret == 0) {
            s->disk_error = 0; /* some have come back, none refused */
            s->disk_error_is_journals = false;
        }
    }
    qemu_lockable_unlock(&s->lock);
    aio_task_pool_wait_all(f->pool);
    ret = ret < 0 ? ret : aio_task_pool_status(f->pool);
    qemu_lockable_lock(&s->lock);
    return ret < 0 ? ret : any;
}

int coroutine_fn ttj_write_some(BlockDriverState *bs, uint64_t seq)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJFlight f = { .bs = bs, .pool = aio_task_pool_new(TTJ_FLIGHT_MAX) };
    bool journals = false;
    int ret;

    ttj_begin_writing(bs);
    ret = ttj_fly(&f, seq, &journals);
    if (ret) {
        s->disk_error = MIN(ret, 0);
        s->disk_error_is_journals = journals;
    }
    if (ret < 0) {
        if (!journals && !s->journal_error) {
            ttj_disk_failed(bs, -ret);
        }
        ttj_room(bs);
    }
    ttj_stop_writing(bs);
    aio_task_pool_free(f.pool);
    return ret;
}

int coroutine_fn ttj_write_back(BlockDriverState *bs, uint64_t seq)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t oldest;
    int ret = 0;

    QEMU_LOCK_GUARD(&s->lock);
    while (ret >= 0 && (oldest = tt_pending_oldest(s->pending)) &&
           oldest <= seq) {
        if (s->writing) {
            ttj_wait_written(s);
            continue;
        }
        ret = ttj_write_some(bs, seq);
        /* what is durable can be taken while nobody else writes */
        assert(ret);
    }
    ttj_kick(bs); /* the worker made way */
    return MIN(ret, 0);
}
