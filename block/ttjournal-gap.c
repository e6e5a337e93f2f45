/*
 * ttjournal filter driver: when the journal cannot be written
 *
 * What becomes of a guest's request then is the user's choice:
 *   report  it fails with the journal's errno;
 *   wait    it is held, and tried again until it can be recorded.
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
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/qapi-events-block-core.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"

#include "ttjournal-int.h"

/* A request that is held is tried again after this. */
#define HOLD_NS (100 * SCALE_MS)

/*
 * So long nothing is held when somebody wants what is in flight to end: all
 * that is held is tried meanwhile, and what comes late is not held anew.
 */
#define CANCEL_NS (10 * HOLD_NS)

void ttj_try(BlockDriverState *bs, TTJHold *hold)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    hold->failures = s->failures;
}

/* Called with lock held. */
static bool ttj_may_hold(BDRVTtjournalState *s, const TTJHold *hold)
{
    bool journals = s->failures != hold->failures ||
                    (s->disk_error && s->disk_error_is_journals);

    return s->options.on_error == TTJOURNAL_ON_ERROR_WAIT && journals &&
           !s->journal_error && !s->quiesced &&
           qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= s->no_hold_ns;
}

void ttj_cancel_in_flight(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
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

bool coroutine_fn ttj_try_again(BlockDriverState *bs, TTJHold *hold, int ret)
{
    BDRVTtjournalState *s = bs->opaque;
    bool again, told = false;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        again = ret < 0 && ttj_may_hold(s, hold);
        if (again != hold->held) {
            s->held += again ? 1 : -1;
            told = s->held == again;
            hold->held = again;
        }
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
