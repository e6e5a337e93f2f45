/*
 * ttjournal filter driver: the journal's end
 *
 * Group commit: while one append is under way, arriving records wait; then
 * one of those who wait takes as many as fit into the next frame.  Nobody
 * waits for a timer, and a lone record goes at once.
 *
 * What may go wrong, and what then holds:
 *   - An append fails: its records fail with the real errno, nothing was
 *     acknowledged, and the next frame goes to the same place with the same
 *     sequence numbers.
 *   - A flush of the journal fails: what it should have covered may be clean
 *     in a cache and absent on the medium.  All frames since the last good
 *     flush are kept in memory until then; they are written again, at the same
 *     places, and flushed.  If that fails too, see journal_error.
 *
 * Order: a flush covers what was complete when it was issued, so every number
 * is taken before the call and used after it has returned.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "qemu/error-report.h"

#include "ttjournal-int.h"

/* Records that become durable while the lock is held once */
#define DURABLE_STEP 4

/* And before whoever waits for this processor has it: less than 0.1 ms */
#define DURABLE_TURN 64

/* ---- frames that are not durable ----------------------------------------- */

static bool ttj_has_payload(const struct tt_request *req)
{
    return req->payload_length && !(req->flags & TT_RECORD_INLINE);
}

/* What of @e is not in the journal yet */
static struct tt_request ttj_rest(const TTJEntry *e)
{
    struct tt_request req = e->req;

    if (e->from) {
        req.disk_offset += e->from;
        req.disk_length -= e->from;
        req.payload = (const uint8_t *)req.payload + e->from;
        req.payload_length -= e->from;
    }
    return req;
}

/* And of that, what the append under way has */
static struct tt_request ttj_taken(const TTJEntry *e)
{
    struct tt_request req = ttj_rest(e);

    if (req.kind == TT_KIND_WRITE) {
        req.disk_length = req.payload_length = e->taken;
    }
    return req;
}

/*
 * What is to be written for @a, whose payloads are those of @entries, in order.
 * NULL: out of memory.
 */
static TTJFrame *ttj_frame_new(BlockDriverState *bs, const struct tt_append *a,
                               const TTJEntries *entries)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJData *head = ttj_data_new(bs, a->head_length);
    TTJFrame *f;
    TTJEntry *e;

    if (!head) {
        return NULL;
    }
    memcpy(head->bytes, a->head, a->head_length);
    f = g_new(TTJFrame, 1);
    *f = (TTJFrame){
        .offset = a->offset,
        .last_seq = a->last_seq,
        .data = g_new(TTJData *, a->request_count + 1),
    };
    f->data[f->data_count++] = head;
    qemu_iovec_init(&f->qiov, a->request_count + 2);
    qemu_iovec_add(&f->qiov, head->bytes, a->head_length);
    QSIMPLEQ_FOREACH(e, entries, next) {
        if (ttj_has_payload(&e->req)) {
            struct tt_request req = ttj_taken(e);

            f->data[f->data_count++] = ttj_data_ref(e->data);
            qemu_iovec_add(&f->qiov, (void *)req.payload, req.payload_length);
        }
    }
    if (a->tail_zeroes) {
        qemu_iovec_add(&f->qiov, s->zeroes, a->tail_zeroes);
    }
    assert(f->qiov.size == a->length);
    return f;
}

static void ttj_frame_free(TTJFrame *f)
{
    for (unsigned i = 0; i < f->data_count; i++) {
        ttj_data_unref(f->data[i]);
    }
    qemu_iovec_destroy(&f->qiov);
    g_free(f->data);
    g_free(f);
}

static void ttj_frames_take(BDRVTtjournalState *s, uint64_t durable_seq,
                            TTJFrames *ret)
{
    TTJFrame *f;

    while ((f = QSIMPLEQ_FIRST(&s->frames)) && f->last_seq <= durable_seq) {
        QSIMPLEQ_REMOVE_HEAD(&s->frames, next);
        QSIMPLEQ_INSERT_TAIL(ret, f, next);
    }
}

static void ttj_frames_free(TTJFrames *frames)
{
    TTJFrame *f;

    while ((f = QSIMPLEQ_FIRST(frames))) {
        QSIMPLEQ_REMOVE_HEAD(frames, next);
        ttj_frame_free(f);
    }
}

void ttj_frames_clear(BDRVTtjournalState *s)
{
    ttj_frames_free(&s->frames);
}

/* ---- one append ---------------------------------------------------------- */

/* The guest's, or what makes good what it was told already? */
static TTJGrowFor ttj_entry_for(const TTJEntry *e)
{
    return e->spare || e->req.kind == TT_KIND_WRITE ||
                   e->req.kind == TT_KIND_ZERO
               ? TTJ_GROW_FOR_GUEST
               : TTJ_GROW_FOR_US;
}

/*
 * What is pending once @entries are, too, may have to be captured yet.  (What a
 * ZERO needs counts from the next append on: the first of a disk may well want
 * more than there is, and block status tells most of it to be zero.)
 */
static uint64_t ttj_to_be_captured(BDRVTtjournalState *s,
                                   const TTJEntries *entries)
{
    uint64_t bytes = tt_pending_captures(s->pending);
    const TTJEntry *e;

    QSIMPLEQ_FOREACH(e, entries, next) {
        if (e->req.kind == TT_KIND_WRITE) {
            bytes += tt_pending_capture(e->req.disk_offset, e->req.disk_length);
        }
    }
    return bytes;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_write_frame(BlockDriverState *bs, TTJFrame *f, TTJGrowFor who)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = ttj_grow(bs, f->offset + f->qiov.size, who);

    return ret < 0 ? ret
                   : bdrv_co_pwritev(s->journal, f->offset, f->qiov.size,
                                     &f->qiov, 0);
}

/*
 * Plans, writes and commits s->batch, which holds @entries (and a FLUSH in
 * front, perhaps).  Called with lock held and appending set; drops the lock
 * meanwhile.
 */
static int coroutine_fn GRAPH_RDLOCK
ttj_commit_batch(BlockDriverState *bs, const TTJEntries *entries,
                 struct tt_append *ret_append)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t durable = s->writer.durable_seq;
    TTJGrowFor who = ttj_entry_for(QSIMPLEQ_FIRST(entries));
    TTJFrame *f;
    int ret = s->journal_error;

    if (ret < 0) {
        return ret;
    }
    qatomic_set(&s->growth.captures, ttj_to_be_captured(s, entries));
    tt_writer_plan(&s->writer, s->batch, ttj_now(), ret_append);
    f = ttj_frame_new(bs, ret_append, entries);
    if (!f) {
        tt_writer_failed(&s->writer, s->batch);
        return -ENOMEM;
    }
    qemu_lockable_unlock(&s->lock);
    ret = ttj_write_frame(bs, f, who);
    qemu_lockable_lock(&s->lock);
    if (ret < 0) {
        tt_writer_failed(&s->writer, s->batch);
        ttj_frame_free(f);
        return ret;
    }
    s->room_wanted = true;
    tt_writer_commit(&s->writer, s->batch);
    QSIMPLEQ_INSERT_TAIL(&s->frames, f, next);
    s->told_seq = durable;
    s->appended_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    return 0;
}

/* A FLUSH that has not been recorded yet, as the first of the next frame */
static void ttj_add_note(BDRVTtjournalState *s, struct tt_flush_body *body)
{
    struct tt_request req = {
        .kind = TT_KIND_FLUSH,
        .flags = TT_RECORD_INLINE,
        .payload = body,
        .payload_length = sizeof(*body),
    };
    bool added = tt_batch_add(s->batch, &req);

    assert(added);
}

/* Adds @e to batch, or what of it fits the segment; false: neither. */
static bool ttj_take(BDRVTtjournalState *s, TTJEntry *e)
{
    struct tt_request req = ttj_rest(e);

    if (req.kind == TT_KIND_WRITE) {
        e->taken = tt_batch_fits(s->batch, &req);
        req.disk_length = req.payload_length = e->taken;
    }
    return tt_batch_add(s->batch, &req);
}

static bool ttj_is_cut(const TTJEntry *e)
{
    return e->req.kind == TT_KIND_WRITE &&
           e->from + e->taken < e->req.payload_length;
}

/*
 * Moves the first waiting records that fit one frame to @ret_taken and to
 * batch, behind a FLUSH if @note.  What the guest wants does not go with what
 * the driver itself needs to record, for which room is kept in a full journal.
 * Drops the lock while they are hashed.
 */
static void ttj_take_queue(BDRVTtjournalState *s, uint64_t note,
                           TTJEntries *ret_taken)
{
    struct tt_flush_body body = { .covered_seq = tt_put64(note) };
    TTJEntries waiting = QSIMPLEQ_HEAD_INITIALIZER(waiting);
    TTJEntry *e;

    QSIMPLEQ_CONCAT(&waiting, &s->queue);
    qemu_lockable_unlock(&s->lock);
    tt_batch_reset(s->batch, &s->writer);
    if (note) {
        ttj_add_note(s, &body);
    }
    while ((e = QSIMPLEQ_FIRST(&waiting)) &&
           (QSIMPLEQ_EMPTY(ret_taken) ||
            ttj_entry_for(e) == ttj_entry_for(QSIMPLEQ_FIRST(ret_taken))) &&
           ttj_take(s, e)) {
        QSIMPLEQ_REMOVE_HEAD(&waiting, next);
        QSIMPLEQ_INSERT_TAIL(ret_taken, e, next);
        if (ttj_is_cut(e)) {
            break; /* the segment is full */
        }
    }
    /* One record within the format's limits always fits. */
    assert(!QSIMPLEQ_EMPTY(ret_taken));
    qemu_lockable_lock(&s->lock);
    QSIMPLEQ_CONCAT(&waiting, &s->queue);
    QSIMPLEQ_CONCAT(&s->queue, &waiting);
}

/* It is in the journal: what it does to the disk is pending from here on. */
static void ttj_entry_done(BlockDriverState *bs, TTJEntry *e)
{
    BDRVTtjournalState *s = bs->opaque;
    struct tt_request req = ttj_taken(e);
    uint64_t last;

    if (req.kind != TT_KIND_WRITE && req.kind != TT_KIND_ZERO) {
        return;
    }
    if (e->ret < 0) {
        s->admitted -= ttj_rest(e).payload_length;
        ttj_room(bs);
        return;
    }
    s->admitted -= req.payload_length;
    if (!tt_pending_undurable(s->pending, &last)) {
        s->undurable_ns = s->appended_ns;
    }
    s->changed = true;
    if (!tt_pending_add(s->pending, e->seq, req.kind,
                        req.flags & ~TT_RECORD_FUA, req.disk_offset,
                        req.disk_length, req.payload, ttj_data_ref(e->data))) {
        /* as g_new() would */
        error_report("ttjournal: out of memory for what is pending");
        abort();
    }
}

static void ttj_wake(TTJWaiter *w)
{
    Coroutine *co = w->co;

    /* once: it sets this again, under lock, before it waits again */
    w->co = NULL;
    if (co) {
        aio_co_wake(co);
    }
}

/* A segment without a footer is none the worse: no reason for a gap */
static bool ttj_all_footers(const TTJEntries *entries)
{
    const TTJEntry *e;

    QSIMPLEQ_FOREACH(e, entries, next) {
        if (e->req.kind != TT_KIND_FOOTER) {
            return false;
        }
    }
    return true;
}

/* Appends one frame of waiting records and tells their owners. */
static void coroutine_fn GRAPH_RDLOCK ttj_lead(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntries taken = QSIMPLEQ_HEAD_INITIALIZER(taken);
    uint64_t note = s->note_seq, seq;
    struct tt_append a;
    TTJEntry *e;
    int ret;

    ttj_take_queue(s, note, &taken);
    ret = ttj_commit_batch(bs, &taken, &a);
    seq = ret == 0 ? a.first_seq : 0;
    if (ret == 0 && note) {
        seq++;
        s->note_seq = s->note_seq == note ? 0 : s->note_seq;
    }
    s->failures += ret < 0 && !ttj_all_footers(&taken);
    s->grouped = QSIMPLEQ_NEXT(QSIMPLEQ_FIRST(&taken), next);
    while ((e = QSIMPLEQ_FIRST(&taken))) {
        QSIMPLEQ_REMOVE_HEAD(&taken, next);
        e->ret = ret;
        if (ret == 0) {
            e->seq = seq++;
            e->frame_offset = a.offset;
            if (e->req.kind != TT_KIND_DURABLE) {
                s->said_seq = e->seq;
            }
        }
        ttj_entry_done(bs, e);
        if (ret == 0 && ttj_is_cut(e)) {
            /* it was the last one: its rest goes first now */
            assert(QSIMPLEQ_EMPTY(&taken));
            e->from += e->taken;
            QSIMPLEQ_INSERT_HEAD(&s->queue, e, next);
        } else if (--e->waiter->left == 0) {
            ttj_wake(e->waiter);
        }
    }
}

/* Whoever waits may append now. Called with lock held. */
static void ttj_stop_appending(BDRVTtjournalState *s)
{
    TTJEntry *e = QSIMPLEQ_FIRST(&s->queue);

    s->appending = false;
    /* both: who waits for the first may not append, and so wake nobody */
    qemu_co_queue_restart_all(&s->append_idle);
    if (e) {
        ttj_wake(e->waiter);
    }
}

/*
 * Those who were acknowledged together come back one after the other: lets
 * them all arrive, so that they make one frame again.
 */
static void coroutine_fn ttj_let_others_arrive(void)
{
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

int coroutine_fn ttj_append(BlockDriverState *bs, TTJEntry *e, unsigned count)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJWaiter self = { .left = count };

    qemu_lockable_lock(&s->lock);
    for (unsigned i = 0; i < count; i++) {
        e[i].waiter = &self;
        e[i].from = 0;
        QSIMPLEQ_INSERT_TAIL(&s->queue, &e[i], next);
    }
    while (self.left) {
        if (s->appending) {
            self.co = qemu_coroutine_self();
            qemu_lockable_unlock(&s->lock);
            qemu_coroutine_yield();
            qemu_lockable_lock(&s->lock);
            continue;
        }
        s->appending = true;
        if (s->grouped) {
            qemu_lockable_unlock(&s->lock);
            ttj_let_others_arrive();
            qemu_lockable_lock(&s->lock);
        }
        ttj_lead(bs);
        ttj_stop_appending(s);
    }
    ttj_kick(bs);
    qemu_lockable_unlock(&s->lock);
    for (unsigned i = 0; i < count; i++) {
        if (e[i].ret < 0) {
            return e[i].ret;
        }
    }
    return 0;
}

int coroutine_fn ttj_still_here(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e = { .req.kind = TT_KIND_DURABLE };
    uint64_t last;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        last = s->writer.last_boottime;
    }
    return ttj_now().boottime - last < TT_MTIME_SLACK / 4
               ? 0
               : ttj_append(bs, &e, 1);
}

/* ---- footers -------------------------------------------------------------- */

typedef struct TTJFooterPart {
    struct tt_footer *footer;
    uint32_t part, length;
    bool last;
    uint8_t *body;
} TTJFooterPart;

/* Sorts, if it is the first: that may take some milliseconds. */
static int ttj_make_part(void *opaque)
{
    TTJFooterPart *p = opaque;

    p->body = tt_footer_part(p->footer, p->part, &p->length, &p->last);
    return p->body ? 0 : -ENOMEM;
}

/* Appends the next part of s->footer. */
static int coroutine_fn GRAPH_RDLOCK ttj_append_footer(BlockDriverState *bs,
                                                       bool *ret_last)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJFooterPart p = { .footer = s->footer, .part = s->footer_part };
    TTJEntry e = { 0 };
    int ret = thread_pool_submit_co(ttj_make_part, &p);

    if (ret == 0) {
        e.data = ttj_data_new(bs, p.length);
        ret = e.data ? 0 : -ENOMEM;
    }
    if (ret == 0) {
        memcpy(e.data->bytes, p.body, p.length);
        e.req = (struct tt_request){
            .kind = TT_KIND_FOOTER,
            .flags = p.last ? 0 : TT_RECORD_MORE,
            .payload = e.data->bytes,
            .payload_length = p.length,
        };
        ret = ttj_append(bs, &e, 1);
    }
    *ret_last = p.last;
    ttj_data_unref(e.data);
    free(p.body);
    return ret;
}

bool ttj_has_footer(BDRVTtjournalState *s)
{
    return s->footer || s->writer.ended;
}

int coroutine_fn ttj_append_footers(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = 0;

    while (ret == 0) {
        bool last;

        WITH_QEMU_LOCK_GUARD(&s->lock) {
            if (!s->footer) {
                s->footer = tt_writer_take_footer(&s->writer);
                s->footer_part = 0;
            }
        }
        if (!s->footer) {
            break;
        }
        ret = ttj_append_footer(bs, &last);
        s->footer_part += ret == 0;
        if (ret == -ENOMEM || (ret == 0 && last)) {
            QEMU_LOCK_GUARD(&s->lock);
            tt_footer_free(s->footer);
            s->footer = NULL;
        }
    }
    return ret;
}

/* ---- flushing the journal ------------------------------------------------ */

uint64_t ttj_last_seq(BDRVTtjournalState *s)
{
    return s->writer.next_seq - 1;
}

/*
 * A flush has failed: writes all frames again that no good one has covered,
 * and flushes.  Called with lock held and flushing set; drops the lock
 * meanwhile.  *ret_complete is what it covered.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_flush_again(BlockDriverState *bs,
                                                     uint64_t *ret_complete)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJFrame *f;
    int ret = 0;

    while (s->appending) {
        qemu_co_queue_wait(&s->append_idle, &s->lock);
    }
    s->appending = true; /* nobody but us changes the list of frames now */
    *ret_complete = ttj_last_seq(s);
    qemu_lockable_unlock(&s->lock);
    QSIMPLEQ_FOREACH(f, &s->frames, next) {
        ret = bdrv_co_pwritev(s->journal, f->offset, f->qiov.size, &f->qiov, 0);
        if (ret < 0) {
            break;
        }
    }
    if (ret == 0) {
        ret = bdrv_co_flush(s->journal->bs);
    }
    qemu_lockable_lock(&s->lock);
    ttj_stop_appending(s);
    return ret;
}

/*
 * What is durable up to @seq may go to the disk, and need not be written again.
 * Called with lock held; drops it now and then, because there may be so much
 * that appends would feel it.  And it yields: a guest's thread that was woken
 * on this processor is not always given another one, though that be idle, and
 * waited for milliseconds.
 */
static void ttj_settle_durable(BDRVTtjournalState *s, uint64_t seq)
{
    TTJFrames frames = QSIMPLEQ_HEAD_INITIALIZER(frames);
    uint64_t at = s->writer.durable_seq, turn = at;

    ttj_frames_take(s, seq, &frames);
    while (at < seq) {
        at = MIN(at + DURABLE_STEP, seq);
        tt_pending_durable(s->pending, at);
        if (at - turn < DURABLE_TURN) {
            ttj_make_way(s);
        } else {
            turn = at;
            qemu_lockable_unlock(&s->lock);
            g_thread_yield();
            qemu_lockable_lock(&s->lock);
        }
    }
    qemu_lockable_unlock(&s->lock);
    ttj_frames_free(&frames);
    qemu_lockable_lock(&s->lock);
}

static void coroutine_fn GRAPH_RDLOCK ttj_flush_journal(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t complete = ttj_last_seq(s);
    int ret;

    s->flushing = true;
    qemu_lockable_unlock(&s->lock);
    ret = bdrv_co_flush(s->journal->bs);
    qemu_lockable_lock(&s->lock);
    if (ret < 0) {
        s->counts.flush_errors++;
        ret = ttj_flush_again(bs, &complete);
    }
    if (ret == 0) {
        ttj_settle_durable(s, complete);
    }
    s->flushing = false;
    if (ret < 0) {
        if (s->running) {
            error_report("ttjournal: journal '%s' cannot be flushed: %s; "
                         "nothing more is recorded until it is opened again",
                         ttj_name(s->journal->bs), strerror(-ret));
            ttj_say_error(bs, TTJOURNAL_OPERATION_FLUSH, -ret);
        }
        s->journal_error = ret;
        ttj_room(bs);
    } else {
        tt_writer_flushed(&s->writer, complete);
        s->undurable_ns = s->appended_ns;
        ttj_kick(bs);
    }
    qemu_co_queue_restart_all(&s->flushed);
}

int coroutine_fn ttj_make_durable(BlockDriverState *bs, uint64_t seq)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    qemu_lockable_lock(&s->lock);
    while (s->writer.durable_seq < seq && !s->journal_error) {
        if (s->flushing) {
            qemu_co_queue_wait(&s->flushed, &s->lock);
        } else {
            ttj_flush_journal(bs);
        }
    }
    ret = s->writer.durable_seq < seq ? s->journal_error : 0;
    qemu_lockable_unlock(&s->lock);
    return ret;
}

int coroutine_fn ttj_flush_ahead(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    if (!s->flushing && !s->journal_error) {
        ttj_flush_journal(bs);
    }
    return s->journal_error;
}
