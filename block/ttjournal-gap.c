/*
 * ttjournal filter driver: when the journal cannot be written
 *
 * What becomes of a guest's request then is the user's choice:
 *   report  it fails with the journal's errno;
 *   wait    it is held, and tried again until it can be recorded;
 *   continue  it goes to the disk unrecorded, and a GAP tells.
 *
 * A request is held in its own coroutine, with none of the driver's locks and
 * nothing admitted, so that whatever may make room can go on.  It is the error
 * of an append that is waited for: an append failed while the request was
 * tried, its own, or one of a PREIMAGE without which the disk must not be
 * written.  That another's failing append meets an error of the disk does not
 * matter: the next try tells.  What the disk says is reported, and so is a
 * journal that could not be flushed: time does not heal that.
 *
 * Whoever drains the node waits for its requests, so a drain ends the holding:
 * they fail with what the journal said.  So does whoever ends an export, which
 * waits for its clients' requests without a drain.
 *
 * A gap.  Room is kept for it (see ttjournal-grow.c), so a full journal can
 * still take its beginning.  In this order, with no write on its way:
 *   1. The disk is brought level and a CHECKPOINT made: after a crash nothing
 *      is redone, which might overwrite what is not recorded.
 *   2. GAP with OPEN, for the whole disk, durable.
 *   3. Writes go to the disk alone; what they may have changed is kept in a
 *      set, before they are issued.
 *   4. Once there is room for all that is in it: GAP with exact ranges, then
 *      what they hold now, as WRITE and ZERO with FOUND, durable.
 * If 1 or 2 fails nothing has gone unrecorded, and the errno is reported.  If
 * 4 fails half way the steps begin again at 1.  After a crash in between,
 * nobody knows the ranges: the next session closes the gap for the whole disk.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/qapi-events-block-core.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qemu/units.h"

#include "ttjournal-int.h"

/* A request that is held is tried again after this. */
#define HOLD_NS (100 * SCALE_MS)

/*
 * When somebody wants what is in flight to end, what was tried before is never
 * held again, however long a try takes.  What comes so much later is not held
 * either: it may have waited for another, or in a node above, and belong to
 * what is to end.
 */
#define CANCEL_NS (10 * HOLD_NS)

void ttj_try(BlockDriverState *bs, TTJHold *hold)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    hold->failures = s->failures;
    if (!hold->begun) {
        bool late = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) < s->no_hold_ns;

        hold->begun = true;
        hold->cancels = s->cancels - late;
    }
}

/* Called with lock held. */
static bool ttj_is_journals(BDRVTtjournalState *s, const TTJHold *hold)
{
    return s->failures != hold->failures ||
           (s->disk_error && s->disk_error_is_journals);
}

/* Called with lock held. */
static bool ttj_may_hold(BDRVTtjournalState *s, const TTJHold *hold)
{
    return s->options.on_error == TTJOURNAL_ON_ERROR_WAIT &&
           ttj_is_journals(s, hold) && !s->journal_error &&
           !ttj_is_quiesced(s) && hold->cancels == s->cancels;
}

void ttj_cancel_in_flight(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    s->cancels++;
    s->no_hold_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + CANCEL_NS;
}

static void GRAPH_RDLOCK ttj_say_waiting(BlockDriverState *bs, int error)
{
    BDRVTtjournalState *s = bs->opaque;

    warn_report("ttjournal: journal '%s' cannot be written: %s; writes to "
                "node '%s' are held until it can",
                ttj_name(s->journal->bs), strerror(error),
                bdrv_get_node_name(bs));
    qapi_event_send_ttjournal_waiting(bdrv_get_node_name(bs), strerror(error));
}

/* @error: why the last one has failed, or 0 */
static void GRAPH_RDLOCK ttj_say_resumed(BlockDriverState *bs, int error)
{
    BDRVTtjournalState *s = bs->opaque;

    if (error) {
        warn_report("ttjournal: journal '%s': writes to node '%s' that were "
                    "held have failed: %s",
                    ttj_name(s->journal->bs), bdrv_get_node_name(bs),
                    strerror(error));
    } else {
        info_report("ttjournal: journal '%s': writes to node '%s' go on",
                    ttj_name(s->journal->bs), bdrv_get_node_name(bs));
    }
    qapi_event_send_ttjournal_resumed(bdrv_get_node_name(bs),
                                      error ? strerror(error) : NULL);
}

/* ---- a gap --------------------------------------------------------------- */

/* So many ranges fit one record; with more the whole disk is in doubt. */
#define GAP_RANGES_MAX                                                         \
    ((TT_PAYLOAD_RECORD_MAX - sizeof(struct tt_gap_body)) /                    \
     sizeof(struct tt_range))

/* So much is brought to the disk, by which it changes nothing, at once. */
#define FOUND_MAX (16 * MiB)

/* Around what the gap holds: records, padding, ends of segments */
#define FOUND_ROOM (2 * MiB)

static int coroutine_fn GRAPH_RDLOCK
ttj_append_gap(BlockDriverState *bs, const struct tt_gap_body *fixed,
               const struct tt_blocks *blocks, TTJEntry *e)
{
    struct tt_gap_body body = *fixed;
    size_t count = 0;
    struct tt_range *to;
    uint64_t at = 0, run;
    int ret;

    while (blocks && count <= GAP_RANGES_MAX &&
           (at = tt_blocks_next(blocks, at)) != UINT64_MAX) {
        tt_blocks_test(blocks, at, UINT64_MAX - at, &run);
        at += run;
        count++;
    }
    count = count > GAP_RANGES_MAX ? 0 : count;
    body.range_count = tt_put32(count);
    e->req = (struct tt_request){
        .kind = TT_KIND_GAP,
        .flags = count ? 0 : TT_RECORD_INLINE,
        .payload_length = sizeof(body) + count * sizeof(*to),
    };
    e->data = ttj_data_new(bs, e->req.payload_length);
    if (!e->data) {
        return -ENOMEM;
    }
    memcpy(e->data->bytes, &body, sizeof(body));
    to = (struct tt_range *)(e->data->bytes + sizeof(body));
    at = 0;
    for (size_t i = 0; i < count; i++) {
        at = tt_blocks_next(blocks, at);
        tt_blocks_test(blocks, at, UINT64_MAX - at, &run);
        to[i] = (struct tt_range){ tt_put64(at), tt_put64(run) };
        at += run;
    }
    e->req.payload = e->data->bytes;
    ret = ttj_append(bs, e, 1);
    ttj_data_unref(e->data);
    return ret;
}

int coroutine_fn ttj_close_gap(BlockDriverState *bs, uint64_t opens_seq,
                               uint64_t from_seq, uint64_t from_epoch,
                               int64_t from_time)
{
    BDRVTtjournalState *s = bs->opaque;
    struct tt_gap_body body = {
        .from_seq = tt_put64(from_seq),
        .opens_seq = tt_put64(opens_seq),
        .from_epoch = tt_put64(from_epoch),
        .from_time = tt_put64(from_time),
        .to_time = tt_put64(ttj_now().realtime),
        .reason = tt_put32(TT_GAP_JOURNAL_ERROR),
    };
    TTJEntry e = { 0 };
    int ret = ttj_append_gap(bs, &body, s->gap, &e);

    return ret < 0 ? ret : ttj_make_durable(bs, e.seq);
}

/* Steps 1 and 2; resize_lock is held for writing, and no gap is open. */
static int coroutine_fn GRAPH_RDLOCK ttj_open_gap(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    struct tt_gap_body body = {
        .reason = tt_put32(TT_GAP_JOURNAL_ERROR),
        .flags = tt_put32(TT_GAP_OPEN),
    };
    TTJEntry e = { 0 };
    int ret = ttj_level(bs);

    WITH_QEMU_LOCK_GUARD(&s->level_lock) {
        s->level_max = UINT64_MAX;
    }
    if (ret == 0) {
        ret = ttj_checkpoint(bs, 0);
    }
    if (ret < 0) {
        return ret;
    }
    /* recovery begins at the level: it must not get beyond the GAP unseen */
    WITH_QEMU_LOCK_GUARD(&s->level_lock) {
        s->gap_from_time = ttj_now().realtime;
        s->gap_from_seq = ttj_last_seq(s);
        s->gap_from_epoch = s->writer.epoch;
        body.from_seq = tt_put64(s->gap_from_seq);
        body.from_epoch = tt_put64(s->gap_from_epoch);
        body.from_time = body.to_time = tt_put64(s->gap_from_time);
        ret = ttj_append_gap(bs, &body, NULL, &e);
        s->level_max = ret == 0 ? s->gap_from_seq : UINT64_MAX;
    }
    if (ret == 0) {
        ret = ttj_make_durable(bs, e.seq);
        s->gap_seq = e.seq;
    }
    return ret;
}

/* The journal cannot take what the guest writes: it goes on without. */
static int coroutine_fn GRAPH_RDLOCK ttj_begin_gap(BlockDriverState *bs,
                                                   int error)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = 0;

    qemu_co_rwlock_wrlock(&s->resize_lock);
    if (!s->unrecorded) {
        s->gap = tt_blocks_new(TT_GRID);
        ret = s->gap ? ttj_open_gap(bs) : -ENOMEM;
        if (ret < 0) {
            tt_blocks_free(s->gap);
            s->gap = NULL;
        } else {
            QEMU_LOCK_GUARD(&s->lock);
            s->workers[TTJ_LEVEL_WORKER].retry_ns =
                qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + NANOSECONDS_PER_SECOND;
            s->unrecorded = true;
            s->counts.gaps++;
            s->counts.gap_begun = s->gap_from_time;
            ttj_kick(bs);
        }
        if (ret == 0) {
            warn_report("ttjournal: journal '%s' cannot be written: %s; "
                        "writes to node '%s' are NOT RECORDED until it can",
                        ttj_name(s->journal->bs), strerror(error),
                        bdrv_get_node_name(bs));
            qapi_event_send_ttjournal_gap_begun(bdrv_get_node_name(bs),
                                                strerror(error));
        }
    }
    qemu_co_rwlock_unlock(&s->resize_lock);
    return ret;
}

int coroutine_fn ttj_write_unrecorded(BlockDriverState *bs, TTJEntry *e,
                                      unsigned count)
{
    BDRVTtjournalState *s = bs->opaque;
    bool ok = true;
    int ret = 0;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        for (unsigned i = 0; i < count; i++) {
            s->admitted -= e[i].req.payload_length;
            ok = ok && tt_blocks_add(s->gap, e[i].req.disk_offset,
                                     e[i].req.disk_length);
        }
        ttj_room(bs);
    }
    for (unsigned i = 0; i < count && ok && ret >= 0; i++) {
        const struct tt_request *req = &e[i].req;

        ret = req->kind == TT_KIND_WRITE
                  ? bdrv_co_pwrite(bs->file, req->disk_offset, req->disk_length,
                                   req->payload, 0)
                  : bdrv_co_pwrite_zeroes(
                        bs->file, req->disk_offset, req->disk_length,
                        req->flags & TT_RECORD_UNMAP ? BDRV_REQ_MAY_UNMAP : 0);
        e[i].seq = s->gap_seq; /* durable, and above what is level */
    }
    return ok ? MIN(ret, 0) : -ENOMEM;
}

/* Appends what [offset, offset + bytes) holds. */
static int coroutine_fn GRAPH_RDLOCK
ttj_append_found(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e = { .data = ttj_data_new(bs, bytes) };
    bool zero;
    int ret;

    if (!e.data) {
        return -ENOMEM;
    }
    ret = bdrv_co_pread(bs->file, offset, bytes, e.data->bytes, 0);
    if (ret >= 0) {
        zero = buffer_is_zero(e.data->bytes, bytes);
        e.req = (struct tt_request){
            .kind = zero ? TT_KIND_ZERO : TT_KIND_WRITE,
            .flags = TT_RECORD_FOUND,
            .disk_offset = offset,
            .disk_length = bytes,
            .payload = zero ? NULL : e.data->bytes,
            .payload_length = zero ? 0 : bytes,
        };
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            s->admitted += e.req.payload_length;
        }
        ret = ttj_append(bs, &e, 1);
    }
    ttj_data_unref(e.data);
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK ttj_append_all_found(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t at = 0, run, held = 0;
    int ret = 0;

    while (ret == 0 &&
           (at = tt_blocks_next(s->gap, at)) < s->writer.disk_size) {
        tt_blocks_test(s->gap, at, s->writer.disk_size - at, &run);
        run = MIN(run, TT_PAYLOAD_RECORD_MAX);
        ret = ttj_append_found(bs, at, run);
        at += run;
        held += run;
        if (ret == 0 && held >= FOUND_MAX) {
            ret = ttj_level(bs);
            held = 0;
        }
    }
    return ret == 0 ? ttj_make_durable(bs, ttj_last_seq(s)) : ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_make_gap_room(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t at = 0, run, total = FOUND_ROOM;

    while ((at = tt_blocks_next(s->gap, at)) != UINT64_MAX) {
        tt_blocks_test(s->gap, at, UINT64_MAX - at, &run);
        /* the records' heads, and what the footer says of them */
        total += run + DIV_ROUND_UP(run, TT_PAYLOAD_RECORD_MAX) * 2 *
                           MAX(s->alignment, TT_GRID);
        at += run;
    }
    return ttj_grow(bs, s->writer.next_offset + total, TTJ_GROW_FOR_GUEST);
}

/* From here on the gap's blocks must not be captured. */
static bool coroutine_fn ttj_never_capture_gap(BDRVTtjournalState *s)
{
    uint64_t at = 0, run;

    QEMU_LOCK_GUARD(&s->capture_lock);
    while ((at = tt_blocks_next(s->gap, at)) != UINT64_MAX) {
        tt_blocks_test(s->gap, at, UINT64_MAX - at, &run);
        if (!tt_blocks_add(s->captured, at, run) ||
            !tt_blocks_add(s->unmapped, at, run)) {
            return false;
        }
        at += run;
    }
    return true;
}

/*
 * The gap may be closed in the journal, and nothing more can be said there:
 * if so (@error, or an earlier one), what the guest writes must fail.
 */
static void ttj_end_session(BDRVTtjournalState *s, int error)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->journal_error = s->journal_error ? s->journal_error : error;
    if (s->journal_error) {
        s->unrecorded = false;
    }
}

/* Step 4; resize_lock is held for writing. */
static int coroutine_fn GRAPH_RDLOCK ttj_settle_gap(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret, again;

    if (tt_blocks_next(s->gap, 0) == UINT64_MAX) {
        /* nothing was written; no range at all would say: all of the disk */
        ret = ttj_capture(bs, 0, TT_GRID);
        if (ret == 0 && !tt_blocks_add(s->gap, 0, TT_GRID)) {
            ret = -ENOMEM;
        }
        if (ret < 0) {
            return ret;
        }
    }
    ret = ttj_make_gap_room(bs);
    if (ret == 0 && !ttj_never_capture_gap(s)) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        ret = ttj_close_gap(bs, s->gap_seq, s->gap_from_seq, s->gap_from_epoch,
                            s->gap_from_time);
    }
    if (ret < 0) {
        ttj_end_session(s, 0);
        return ret; /* open as before, or the session has ended */
    }
    ret = ttj_append_all_found(bs);
    if (ret < 0) {
        again = ttj_open_gap(bs);
        if (again < 0) {
            ttj_end_session(s, again);
        }
    }
    return ret;
}

/* @error: why nothing is recorded, nor written, from here on; or 0 */
static void GRAPH_RDLOCK ttj_say_gap_ended(BlockDriverState *bs, int error)
{
    BDRVTtjournalState *s = bs->opaque;

    if (error) {
        error_report("ttjournal: journal '%s': what was missed cannot be "
                     "recorded: %s; writes to node '%s' fail until it is "
                     "opened again",
                     ttj_name(s->journal->bs), strerror(error),
                     bdrv_get_node_name(bs));
    } else {
        info_report("ttjournal: journal '%s': writes to node '%s' are recorded "
                    "again; a GAP tells what may have been missed",
                    ttj_name(s->journal->bs), bdrv_get_node_name(bs));
    }
    qapi_event_send_ttjournal_gap_ended(bdrv_get_node_name(bs),
                                        error ? strerror(error) : NULL);
}

int coroutine_fn ttj_end_gap(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    bool open, ended;
    int ret = 0;

    qemu_co_rwlock_wrlock(&s->resize_lock);
    open = s->unrecorded;
    if (open) {
        ret = ttj_settle_gap(bs);
    }
    if (open && ret == 0) {
        QEMU_LOCK_GUARD(&s->lock);
        s->unrecorded = false;
        s->level_max = UINT64_MAX;
        tt_blocks_free(s->gap);
        s->gap = NULL;
    }
    ended = open && !s->unrecorded; /* so, or with the session */
    if (ended) {
        QEMU_LOCK_GUARD(&s->lock);
        s->counts.gap_ended = ttj_now().realtime;
    }
    qemu_co_rwlock_unlock(&s->resize_lock);
    if (ended) {
        ttj_say_gap_ended(bs, -ret);
    }
    return ret;
}

/* ---- a guest's request --------------------------------------------------- */

/* Called with lock held. */
static bool ttj_may_go_on(BDRVTtjournalState *s, const TTJHold *hold)
{
    return s->options.on_error == TTJOURNAL_ON_ERROR_CONTINUE &&
           s->failures != hold->failures && !s->journal_error;
}

bool coroutine_fn ttj_try_again(BlockDriverState *bs, TTJHold *hold, int ret)
{
    BDRVTtjournalState *s = bs->opaque;
    bool again, told = false, go_on, failed;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        again = ret < 0 && ttj_may_hold(s, hold);
        go_on = ret < 0 && ttj_may_go_on(s, hold);
        failed = ret < 0 && !again && ttj_is_journals(s, hold);
        if (again != hold->held) {
            s->held += again ? 1 : -1;
            told = s->held == again;
            hold->held = again;
        }
    }
    if (go_on && ttj_begin_gap(bs, -ret) == 0) {
        return true;
    }
    if (failed) {
        ttj_say_error(bs, TTJOURNAL_OPERATION_APPEND, -ret);
    }
    if (go_on) {
        return false;
    }
    if (told && again) {
        ttj_say_waiting(bs, -ret);
    } else if (told) {
        ttj_say_resumed(bs, -ret);
    }
    if (again) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, HOLD_NS);
    }
    return again;
}
