/*
 * ttjournal filter driver: what is done in the background
 *
 * Three workers, one for each of journal, disk and checkpoints, so that they
 * do not wait for each other.  They have a thread of their own, if the drivers
 * below bear that: to bring a write to the disk takes about as much of a
 * processor as to record it.  What a worker does next is decided anew each time
 * from what there is to do; who changes that kicks them.
 *
 * The disk follows slowly as long as little is pending, and the faster the
 * more is: it shares the device with the guest's appends, and each request in
 * flight makes those wait longer.  Waiting pays, too: a block that is
 * overwritten meanwhile goes to the disk once.
 *
 * What the disk refuses stays pending; the worker tries again, the next flush
 * reports it, and writes for which there is no room get the disk's errno
 * instead of waiting for it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/units.h"

#include "ttjournal-int.h"

/* So long after the last append nothing else is going on. */
#define IDLE_NS (100 * SCALE_MS)

/*
 * Requests to the disk: while nothing else goes on, for what has been pending
 * too long, and at least.  A guest that writes one block after the other feels
 * each that is in flight besides.
 */
#define DEPTH_IDLE 32
#define DEPTH_AGED 16
#define DEPTH_MIN 2

/* As long as less than this part of what may be pending is, it waits. */
#define FEW_PART 4

/* So long after the last append room is made for the next. */
#define QUIET_NS (20 * SCALE_MS)

/*
 * Of what may be pending.  A flush of the journal holds appends up while the
 * file system commits what they have changed, so there are few; but what has
 * become durable is settled at once, and the less, the shorter the wait.
 */
#define UNDURABLE_PART 8

/* What was acknowledged is durable after this, also without a flush. */
#define UNDURABLE_NS (1000 * SCALE_MS)

/* After an error the worker tries again. */
#define RETRY_NS (1000 * SCALE_MS)

typedef enum TTJAction {
    TTJ_NOTHING,
    TTJ_FLUSH,      /* the journal */
    TTJ_FOOTER,     /* of the segment before this one */
    TTJ_WRITE,      /* to the disk */
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
    if (now >= s->lag.next_ns) {
        ttj_lag_look(s, now);
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
         undurable >= s->options.max_pending / UNDURABLE_PART ||
         now - s->undurable_ns >= UNDURABLE_NS)) {
        return TTJ_FLUSH;
    }
    if (ttj_has_footer(s) && !s->unrecorded && now >= s->footer_ns) {
        return TTJ_FOOTER;
    }
    if (s->appending) {
        return TTJ_NOTHING;
    }
    if (idle && ttj_untold(s) && now >= s->tell_ns) {
        return TTJ_TELL;
    }
    if (s->room_wanted && now >= s->room_ns &&
        now - s->appended_ns >= QUIET_NS) {
        return TTJ_ROOM;
    }
    return TTJ_NOTHING;
}

static unsigned ttj_depth_at(BDRVTtjournalState *s, int64_t now)
{
    uint64_t oldest = tt_pending_oldest(s->pending);
    uint64_t bytes = tt_pending_bytes(s->pending);
    uint64_t max = s->options.max_pending, few = max / FEW_PART;
    unsigned depth = 0;

    if (!oldest || oldest > s->writer.durable_seq || s->write_waiters ||
        (ttj_is_quiesced(s) && !s->waiting_for_room)) {
        return 0;
    }
    if (now - s->appended_ns >= IDLE_NS) {
        depth = DEPTH_IDLE;
    } else if (oldest <= s->aged_seq) {
        depth = DEPTH_AGED;
    }
    if (bytes > few) {
        double share = (double)(MIN(bytes, max) - few) / (double)(max - few);

        depth =
            MAX(depth, DEPTH_MIN + (unsigned)(share * share *
                                              (TTJ_FLIGHT_MAX - DEPTH_MIN)));
    }
    return s->waiting_for_room ? MAX(depth, DEPTH_IDLE) : depth;
}

unsigned ttj_write_depth(BDRVTtjournalState *s)
{
    return ttj_depth_at(s, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
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
        return !s->writing && ttj_depth_at(s, now) ? TTJ_WRITE : TTJ_NOTHING;
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

    if (s->unrecorded || !tt_pending_empty(s->pending) || ttj_untold(s)) {
        at = now + IDLE_NS;
    } else if (s->changed) {
        at = s->checkpoint_time + s->options.checkpoint_ns;
    }
    if (ttj_has_footer(s) && !s->unrecorded && !s->journal_error) {
        at =
            MIN(at, MAX(s->footer_ns, s->workers[TTJ_JOURNAL_WORKER].retry_ns));
    }
    if (s->room_wanted) {
        at = MIN(at, MAX(s->appended_ns + QUIET_NS, s->room_ns));
    }
    if (at < INT64_MAX) {
        /* what is due already is being done, or is tried again later */
        at = at > now ? at : now + QUIET_NS;
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

    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        /* a guest may flush a full journal for ever: FLUSH alone can wait */
        e.spare = !ttj_is_end_untold(s);
    }
    ret = ttj_append(bs, &e, 1);
    if (ret == -ENOSPC && e.spare) {
        QEMU_LOCK_GUARD(&s->lock);
        s->tell_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + RETRY_NS;
        ret = 0;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_make_room(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t begin = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), end;
    int wait_ms = ttj_grow_idle(bs);
    /* what the file system has to commit for it does not wait for a guest */
    int ret = wait_ms == 1 ? ttj_flush_ahead(bs) : 0;

    QEMU_LOCK_GUARD(&s->lock);
    end = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    s->room_wanted = wait_ms > 0;
    /* half of the device's time is left to whoever reads */
    s->room_ns = end + MAX(wait_ms * SCALE_MS, end - begin);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_act(BlockDriverState *bs,
                                             TTJAction action)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t last;
    bool idle;
    int ret = 0;

    switch (action) {
    case TTJ_FLUSH:
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            last = ttj_last_seq(s);
        }
        return ttj_make_durable(bs, last);
    case TTJ_FOOTER:
        ret = ttj_append_footers(bs);
        if (ret < 0) {
            /* the guest's next append says what is wrong */
            QEMU_LOCK_GUARD(&s->lock);
            s->footer_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + RETRY_NS;
        }
        return 0;
    case TTJ_WRITE:
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            /* a flush may have begun one meanwhile */
            ret = s->writing ? 0 : ttj_write_some(bs, 0);
        }
        return MIN(ret, 0);
    case TTJ_CHECKPOINT:
        ret = ttj_checkpoint(bs, 0);
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            idle = !ttj_unsettled(s);
        }
        if (idle) {
            ttj_pool_trim(&s->pool); /* the guest may stay so */
        }
        return ret;
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

/* A file or device of the host's, with nothing in between */
static bool GRAPH_RDLOCK ttj_is_plain(const BlockDriverState *bs)
{
    while (bs && bs->drv && !strcmp(bs->drv->format_name, "raw")) {
        bs = bs->file ? bs->file->bs : NULL;
    }
    return bs && bs->drv &&
           (!strcmp(bs->drv->format_name, "file") ||
            !strcmp(bs->drv->format_name, "host_device"));
}

/*
 * Where workers may do I/O.  Not all drivers bear requests from a thread that
 * is not their node's: qcow2 cleans its caches there, without a lock; those of
 * network protocols wake coroutines there; a mirror counts without a lock.
 */
static AioContext *GRAPH_RDLOCK ttj_worker_context(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    return ttj_is_plain(bs->file->bs) && ttj_is_plain(s->journal->bs)
               ? s->thread.ctx
               : bdrv_get_aio_context(bs);
}

/*
 * Does what is to be done next; false if there is nothing.  In flight only
 * with the graph lock held: who waits for it must not be waited for by a
 * drain, which QEMU 10.0 begins also with that lock held for writing.
 */
static bool coroutine_fn ttj_work(BlockDriverState *bs, TTJWorkerKind kind)
{
    BDRVTtjournalState *s = bs->opaque;
    AioContext *ctx;
    TTJAction action;
    int ret;

    WITH_GRAPH_RDLOCK_GUARD() {
        ctx = ttj_worker_context(bs);
    }
    aio_co_reschedule_self(ctx);
    GRAPH_RDLOCK_GUARD();
    if (ttj_worker_context(bs) != ctx) {
        return true; /* the graph has changed meanwhile */
    }
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
    /*
     * For ttj_stop_worker(), and for who waits for the graph lock that was let
     * go: QEMU 10.2 does not always wake it.
     */
    aio_wait_kick();
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
        aio_co_schedule(s->thread.ctx, qemu_coroutine_create(ttj_worker, work));
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

/* ---- their thread --------------------------------------------------------- */

static void *ttj_thread_run(void *opaque)
{
    TTJThread *thread = opaque;

    rcu_register_thread();
    qemu_set_current_aio_context(thread->ctx);
    while (!thread->ended) {
        aio_poll(thread->ctx, true);
    }
    rcu_unregister_thread();
    return NULL;
}

static void ttj_thread_end(void *opaque)
{
    TTJThread *thread = opaque;

    thread->ended = true; /* by its own hand */
}

int ttj_open_workers(BlockDriverState *bs, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJThread *thread = &s->thread;

    thread->ctx = aio_context_new(errp);
    if (!thread->ctx) {
        return -EMFILE;
    }
    thread->ended = false;
    s->settled_bh = aio_bh_new(iohandler_get_aio_context(), ttj_settled_bh, bs);
    s->timer = aio_timer_new(thread->ctx, QEMU_CLOCK_REALTIME, SCALE_NS,
                             ttj_timer, bs);
    qemu_thread_create(&thread->thread, "ttjournal", ttj_thread_run, thread,
                       QEMU_THREAD_JOINABLE);
    return 0;
}

void ttj_close_workers(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    aio_bh_schedule_oneshot(s->thread.ctx, ttj_thread_end, &s->thread);
    qemu_thread_join(&s->thread.thread);
    timer_free(s->timer);
    qemu_bh_delete(s->settled_bh);
    aio_context_unref(s->thread.ctx);
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
