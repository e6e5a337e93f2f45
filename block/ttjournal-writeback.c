/*
 * ttjournal filter driver: from the journal to the disk
 *
 * What is durable in the journal is brought to the disk in rounds: a round
 * takes the ranges that have been pending longest, captures what they hold
 * on the disk if nobody ever has, makes that durable, and writes them.  A
 * guest's flush runs its rounds itself; else a worker does, once there is
 * much to write, somebody waits for room, data has been pending for long, or
 * nothing else is going on.  Waiting pays: a block that is overwritten
 * meanwhile goes to the disk once.
 *
 * Invariants:
 *   - the disk holds no byte that is not durable in the journal;
 *   - no block changes on the disk before what it held is durable, too.
 *
 * A round that the disk refuses leaves everything pending; the worker tries
 * again, the next flush reports it, and writes for which there is no room get
 * the disk's errno instead of waiting for it.
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

/* Requests of one round: few leave the disk idle, many wait for the last */
#define ROUND_MAX 128

/* And so many bytes, so that it does not last as long as TT_MTIME_SLACK */
#define ROUND_BYTES (16 * MiB)

/* Pre-images of data are read in pieces of this size at most. */
#define CAPTURE_MAX (64 * KiB)

/* So long after the last append nothing else is going on. */
#define IDLE_NS (100 * SCALE_MS)

/* So long after it room is made for the next. */
#define QUIET_NS (20 * SCALE_MS)

/* What was acknowledged is durable after this, also without a flush. */
#define UNDURABLE_NS (1000 * SCALE_MS)

/* After an error the worker tries again. */
#define RETRY_NS (1000 * SCALE_MS)

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

static int coroutine_fn GRAPH_RDLOCK
ttj_capture_all(BlockDriverState *bs, const TTJRange *ranges, unsigned count)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJCaptures all = { .list = QSIMPLEQ_HEAD_INITIALIZER(all.list) };
    int ret = 0;

    QEMU_LOCK_GUARD(&s->capture_lock);
    for (unsigned i = 0; i < count && ret == 0; i++) {
        ret = ttj_plan_captures(bs, &all, ranges[i].offset, ranges[i].bytes);
    }
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

    return ttj_capture_all(bs, &range, 1);
}

/* ---- a round ------------------------------------------------------------- */

typedef struct TTJWrite {
    AioTask task;
    BlockDriverState *bs;
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

static void coroutine_fn ttj_write_done(BlockDriverState *bs,
                                        struct tt_writeback *w, int ret)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    if (ret < 0) {
        tt_pending_refused(s->pending, w);
    } else {
        tt_pending_written(s->pending, w);
        ttj_room(bs);
    }
}

static int coroutine_fn ttj_write_entry(AioTask *task)
{
    TTJWrite *write = container_of(task, TTJWrite, task);
    int ret;

    assume_graph_lock();
    ret = ttj_write_disk(write->bs, &write->w);
    ttj_write_done(write->bs, &write->w, ret);
    return MIN(ret, 0);
}

/* What they held before is in the journal, durable. */
static int coroutine_fn GRAPH_RDLOCK
ttj_capture_writes(BlockDriverState *bs, TTJWrite **writes, unsigned count)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJRange ranges[ROUND_MAX];
    uint64_t seq;
    int ret;

    for (unsigned i = 0; i < count; i++) {
        ranges[i] = (TTJRange){ writes[i]->w.offset, writes[i]->w.length };
    }
    ret = ttj_capture_all(bs, ranges, count);
    if (ret < 0) {
        return ret;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        seq = s->capture_seq;
    }
    return ttj_make_durable(bs, seq);
}

static int coroutine_fn GRAPH_RDLOCK
ttj_run_writes(BlockDriverState *bs, TTJWrite **writes, unsigned count)
{
    AioTaskPool *pool;
    int ret = ttj_still_here(bs);

    if (ret == 0) {
        ret = ttj_capture_writes(bs, writes, count);
    }
    if (ret < 0) {
        for (unsigned i = 0; i < count; i++) {
            ttj_write_done(bs, &writes[i]->w, ret);
            g_free(writes[i]);
        }
        return ret;
    }
    pool = aio_task_pool_new(count);
    defer_call_begin();
    for (unsigned i = 0; i < count; i++) {
        writes[i]->task.func = ttj_write_entry;
        aio_task_pool_start_task(pool, &writes[i]->task); /* frees it */
    }
    defer_call_end();
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    aio_task_pool_free(pool);
    return ret;
}

bool ttj_begin_writing(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    return s->served || !ttj_disk_changed(bs);
}

void ttj_end_writing(BlockDriverState *bs, bool ours)
{
    BDRVTtjournalState *s = bs->opaque;

    if (ours && !s->served) {
        ttj_disk_left(bs);
    }
}

/*
 * Called with lock held and nobody writing; drops the lock meanwhile.  1 if
 * something was written, 0 if there was nothing, -errno.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_round(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    bool ours = ttj_begin_writing(bs);
    TTJWrite *writes[ROUND_MAX];
    uint64_t failures = s->failures;
    unsigned count = 0;
    uint64_t bytes = 0;
    int ret = 0;

    assert(!s->writing);
    s->writing = true;
    for (; count < ROUND_MAX && bytes < ROUND_BYTES; count++) {
        TTJWrite *write = g_new(TTJWrite, 1);

        write->task = (AioTask){ 0 };
        write->bs = bs;
        if (!tt_pending_take(s->pending, &write->w)) {
            g_free(write);
            break;
        }
        writes[count] = write;
        bytes += write->w.length;
    }
    if (count) {
        qemu_mutex_unlock(&s->lock);
        ret = ttj_run_writes(bs, writes, count);
        qemu_mutex_lock(&s->lock);
        s->disk_error = ret;
        s->disk_error_is_journals = ret < 0 && s->failures > failures;
    }
    ttj_end_writing(bs, ours);
    s->writing = false;
    qemu_co_queue_restart_all(&s->written);
    if (ret < 0) {
        ttj_room(bs);
    }
    return ret < 0 ? ret : count > 0;
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
            qemu_co_queue_wait(&s->written, &s->lock);
            continue;
        }
        ret = ttj_round(bs);
        /* what is durable can be taken while nobody else writes */
        assert(ret);
    }
    return MIN(ret, 0);
}

/* ---- workers ------------------------------------------------------------- */

typedef enum TTJAction {
    TTJ_NOTHING,
    TTJ_FLUSH,      /* the journal */
    TTJ_WRITE,      /* a round */
    TTJ_CHECKPOINT, /* and the flush of the disk before it */
    TTJ_TELL,       /* a frame that says how far the journal is durable */
    TTJ_ROOM,       /* for what comes next */
    TTJ_END_GAP,    /* recording goes on */
} TTJAction;

bool ttj_unsettled(BDRVTtjournalState *s)
{
    return s->recording && s->pending &&
           (!tt_pending_empty(s->pending) || s->disk_doubtful || s->changed ||
            s->checkpointing || s->unrecorded);
}

/* What is older than half of max_pending_ns to max_pending_ns is aged. */
static void ttj_age(BDRVTtjournalState *s, int64_t now)
{
    if (now - s->young_ns >= s->options.max_pending_ns / 2) {
        s->aged_seq = s->young_seq;
        s->young_seq = ttj_last_seq(s);
        s->young_ns = now;
    }
}

/* Is there something durable that no frame has said to be so? */
static bool ttj_is_end_untold(BDRVTtjournalState *s)
{
    return s->told_seq < MIN(s->writer.durable_seq, s->said_seq);
}

/* Or a flush of the guest's that none has recorded? */
static bool ttj_untold(BDRVTtjournalState *s)
{
    return s->note_seq || ttj_is_end_untold(s);
}

static TTJAction ttj_journal_action(BDRVTtjournalState *s, int64_t now)
{
    uint64_t last, undurable = tt_pending_undurable(s->pending, &last);
    uint64_t oldest = tt_pending_oldest(s->pending);
    bool idle = now - s->appended_ns >= IDLE_NS;
    bool writable = oldest && oldest <= s->writer.durable_seq;

    if (last && !s->flushing &&
        (idle || (s->waiting_for_room && !writable) ||
         undurable >= s->options.max_pending / 8 ||
         now - s->undurable_ns >= UNDURABLE_NS)) {
        return TTJ_FLUSH;
    }
    if (s->appending) {
        return TTJ_NOTHING;
    }
    if (idle && ttj_untold(s)) {
        return TTJ_TELL;
    }
    if (s->room_wanted && now >= s->room_ns &&
        now - s->appended_ns >= QUIET_NS) {
        return TTJ_ROOM;
    }
    return TTJ_NOTHING;
}

static TTJAction ttj_disk_action(BDRVTtjournalState *s, int64_t now)
{
    uint64_t oldest = tt_pending_oldest(s->pending);
    bool idle = now - s->appended_ns >= IDLE_NS;

    if (!s->writing && oldest && oldest <= s->writer.durable_seq &&
        (idle || s->waiting_for_room || oldest <= s->aged_seq ||
         tt_pending_bytes(s->pending) >= s->options.max_pending / 2)) {
        return TTJ_WRITE;
    }
    return TTJ_NOTHING;
}

static TTJAction ttj_next_action(BDRVTtjournalState *s, TTJWorkerKind kind,
                                 int64_t now)
{
    if ((ttj_is_quiesced(s) && !s->waiting_for_room) ||
        now < s->workers[kind].retry_ns || s->journal_error) {
        return TTJ_NOTHING;
    }
    ttj_age(s, now);
    switch (kind) {
    case TTJ_JOURNAL_WORKER:
        return ttj_journal_action(s, now);
    case TTJ_DISK_WORKER:
        return ttj_disk_action(s, now);
    default:
        if (s->unrecorded) {
            return TTJ_END_GAP;
        }
        return ttj_checkpoint_due(s, now) ? TTJ_CHECKPOINT : TTJ_NOTHING;
    }
}

/* When the workers have to look again, if nothing else happens */
static void ttj_arm(BDRVTtjournalState *s, int64_t now)
{
    int64_t at = INT64_MAX;

    if (!s->timer) {
        return;
    }
    if (s->unrecorded) {
        at = now + IDLE_NS;
    } else if (s->room_wanted) {
        at = MAX(now + QUIET_NS, s->room_ns);
    } else if (!tt_pending_empty(s->pending) || ttj_untold(s)) {
        at = now + IDLE_NS;
    } else if (s->changed) {
        at = s->checkpoint_time + s->options.checkpoint_ns;
    }
    if (at < INT64_MAX) {
        /* what is due already is being done, or is tried again later */
        at = MAX(at, now + QUIET_NS);
        if (!timer_pending(s->timer) ||
            timer_expire_time_ns(s->timer) > (uint64_t)at) {
            timer_mod_ns(s->timer, at);
        }
    }
}

/* A frame of its own, so that the journal's end does not stay provisional */
static int coroutine_fn GRAPH_RDLOCK ttj_tell(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e = { .req.kind = TT_KIND_DURABLE };

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        /* a guest may flush a full journal for ever: FLUSH alone can wait */
        e.spare = !ttj_is_end_untold(s);
    }
    return ttj_append(bs, &e, 1);
}

static int coroutine_fn GRAPH_RDLOCK ttj_make_room(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int wait_ms = ttj_grow_idle(bs);

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->room_wanted = wait_ms > 0;
        s->room_ns =
            qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + wait_ms * SCALE_MS;
    }
    /* what the file system has to commit for it does not wait for a guest */
    return wait_ms == 1 ? ttj_flush_ahead(bs) : 0;
}

static int coroutine_fn GRAPH_RDLOCK ttj_act(BlockDriverState *bs,
                                             TTJAction action)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t last;
    int ret = 0;

    switch (action) {
    case TTJ_FLUSH:
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            last = ttj_last_seq(s);
        }
        return ttj_make_durable(bs, last);
    case TTJ_WRITE:
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            /* a flush may have begun one meanwhile */
            ret = s->writing ? 0 : ttj_round(bs);
        }
        return ret;
    case TTJ_CHECKPOINT:
        return ttj_checkpoint(bs, 0);
    case TTJ_TELL:
        return ttj_tell(bs);
    case TTJ_ROOM:
        return ttj_make_room(bs);
    case TTJ_END_GAP:
        return ttj_end_gap(bs);
    case TTJ_NOTHING:
        break;
    }
    return 0;
}

/*
 * Gives up what ttj_child_perm() has kept.  Of the main loop itself, so that
 * it does not run while somebody who changes the graph polls.
 */
static void ttj_settled_bh(void *opaque)
{
    BlockDriverState *bs = opaque;

    bdrv_graph_rdlock_main_loop();
    bdrv_child_refresh_perms(bs, bs->file, NULL);
    bdrv_graph_rdunlock_main_loop();
}

/* What a worker's coroutine is given; it frees it */
typedef struct TTJWork {
    BlockDriverState *bs;
    TTJWorkerKind kind;
} TTJWork;

/*
 * Does what is to be done next; false if there is nothing.  In flight only
 * with the graph lock held: who waits for it must not be waited for by a
 * drain, which QEMU 10.0 begins also with that lock held for writing.
 */
static bool coroutine_fn ttj_work(BlockDriverState *bs, TTJWorkerKind kind)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJAction action;
    int ret;

    GRAPH_RDLOCK_GUARD();
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        action =
            ttj_next_action(s, kind, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
        if (action == TTJ_NOTHING) {
            return false;
        }
        bdrv_inc_in_flight(bs);
    }
    ret = ttj_act(bs, action);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (ret < 0) {
            s->workers[kind].retry_ns =
                qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + RETRY_NS;
        }
    }
    bdrv_dec_in_flight(bs);
    return true;
}

static void coroutine_fn ttj_worker(void *opaque)
{
    g_autofree TTJWork *work = opaque;
    BDRVTtjournalState *s = work->bs->opaque;

    while (ttj_work(work->bs, work->kind)) {
        /* until there is nothing to do */
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (s->settling && !ttj_unsettled(s)) {
            s->settling = false;
            qemu_bh_schedule(s->settled_bh);
        }
        s->workers[work->kind].working = false;
        ttj_kick(work->bs); /* for what has come since, or arms the timer */
    }
    aio_wait_kick(); /* of ttj_stop_worker() */
}

bool ttj_is_working(BDRVTtjournalState *s)
{
    for (unsigned i = 0; i < TTJ_WORKERS; i++) {
        if (qatomic_read(&s->workers[i].working)) {
            return true;
        }
    }
    return false;
}

void ttj_kick(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (!s->running) {
        return;
    }
    for (unsigned i = 0; i < TTJ_WORKERS; i++) {
        TTJWork *work;

        if (s->workers[i].working ||
            ttj_next_action(s, i, now) == TTJ_NOTHING) {
            continue;
        }
        s->workers[i].working = true;
        work = g_new(TTJWork, 1);
        *work = (TTJWork){ .bs = bs, .kind = i };
        aio_co_schedule(bdrv_get_aio_context(bs),
                        qemu_coroutine_create(ttj_worker, work));
    }
    ttj_arm(s, now);
}

static void ttj_timer(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    ttj_kick(bs);
}

void ttj_attach_timer(BlockDriverState *bs, AioContext *ctx)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    s->timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_NS, ttj_timer, bs);
}

void ttj_open_workers(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    s->settled_bh = aio_bh_new(iohandler_get_aio_context(), ttj_settled_bh, bs);
    ttj_attach_timer(bs, bdrv_get_aio_context(bs));
}

void ttj_close_workers(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    ttj_detach_timer(bs);
    qemu_bh_delete(s->settled_bh);
}

void ttj_detach_timer(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    /* the node's thread may be about to arm it */
    QEMU_LOCK_GUARD(&s->lock);
    timer_free(s->timer);
    s->timer = NULL;
}

void ttj_drain_begin(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    s->drained = true;
}

void ttj_drain_end(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    s->drained = false;
    ttj_kick(bs);
}
