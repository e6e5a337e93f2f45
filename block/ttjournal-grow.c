/*
 * ttjournal filter driver: room for the journal's end
 *
 * What growing costs (tests/bench/growth measures it): an append that changes
 * a file's size, or is the first to write a block of it, changes the file
 * system's metadata, and the next flush has to commit that.  Room that is only
 * allocated (fallocate) spares the first, not the second.  Only blocks that
 * were written before, with zeroes, cost no more than overwriting.  Writing
 * zeroes under load takes the device from the load, and gains nothing.  So:
 *
 *   - An append that finds no room makes a large step of it, by fallocate.
 *   - While the driver is idle, zeroes are written into that room.
 *
 * The order, which keeps a late zero from overwriting a frame:
 *   1. Zeroes are only written above reach, the highest end that any append
 *      was ever granted, and only one such request is in flight.
 *   2. An append that ends above the start of that request waits for its end
 *      before it is granted.
 *   3. Both look at, and set, reach and zeroing under one lock.
 * And zeroes are only written where block status says that zeroes are read:
 * whatever else lies behind the end (what a crash tore, say) stays as it is.
 *
 * The reserve.  A guest that fills the file system must not keep the driver
 * from recording a CHECKPOINT, PREIMAGEs of what it has acknowledged, or a GAP.
 * So an append for the guest is granted only if the reserve is still there
 * behind it, in room that is allocated; one of the driver's own may use it up.
 * It grows with what is pending, which may have to be captured yet: so before
 * the guest is told that there is no room, the disk is brought level.
 * This holds where room is allocated: not on a sparse file system that cannot
 * fallocate, and not with ahead=0, where each append grows the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qemu/option.h"
#include "qemu/timer.h"
#include "qemu/units.h"

#include "ttjournal-int.h"

/* No sane journal has so much written ahead of it. */
#define AHEAD_MAX (1 * TiB)

/* The default: how much a guest may write in a burst at full speed */
#define AHEAD_DEFAULT (256 * MiB)

/*
 * A CHECKPOINT and a GAP of 1 MiB each, their heads, and what is lost at the
 * end of a segment; the driver adds what it has yet to capture.
 */
#define RESERVE (4 * MiB)

/* Of a journal that has little room in all, only a part is kept back. */
#define RESERVE_PART 16

/* The size of a file that grows is a multiple of this. */
#define ROUND (1 * MiB)

/*
 * Zeroes are written in steps, so that an append which has to wait for one
 * waits for little; the first steps, which it may well meet, are the smallest.
 */
#define ZERO_STEP_MIN (256 * KiB)
#define ZERO_STEP_MAX (4 * MiB)

/* So long there was no append: then the driver is idle. */
#define QUIET_MS 20

#define NO_ZEROING UINT64_MAX

/* ---- what kind of journal it is ------------------------------------------ */

/* A local file, all of it: it grows by being written, and is worth zeroing. */
static bool GRAPH_RDLOCK ttj_grow_is_file(BlockDriverState *bs)
{
    while (bs && bs->drv &&
           (bs->drv->is_filter || !strcmp(bs->drv->format_name, "raw"))) {
        bs = bdrv_primary_bs(bs);
    }
    return bs && bs->drv && !strcmp(bs->drv->format_name, "file");
}

/* What a file system says that has no more room, or gives us no more */
static bool ttj_is_full(int ret)
{
    return ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG;
}

static bool ttj_is_unsupported(int ret)
{
    return ret == -ENOTSUP || ret == -EOPNOTSUPP || ret == -EINVAL;
}

int ttj_grow_options(BlockDriverState *bs, QDict *options, Error **errp)
{
    static QemuOptsList list = {
        .name = "ttjournal-growth",
        .head = QTAILQ_HEAD_INITIALIZER(list.head),
        .desc = {
            {
                .name = "ahead",
                .type = QEMU_OPT_SIZE,
                .help = "How far room is made ahead in the journal's file",
            },
            { /* end of list */ },
        },
    };
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    QemuOpts *opts = qemu_opts_create(&list, NULL, 0, &error_abort);
    int ret = 0;

    if (!qemu_opts_absorb_qdict(opts, options, errp)) {
        ret = -EINVAL;
    } else {
        g->ahead_given = qemu_opt_find(opts, "ahead");
        g->ahead = qemu_opt_get_size(opts, "ahead", AHEAD_DEFAULT);
        if (g->ahead > AHEAD_MAX) {
            error_setg(errp,
                       "ttjournal: 'ahead' is %" PRIu64
                       " bytes: at most 1T can be made ahead",
                       g->ahead);
            ret = -EINVAL;
        }
    }
    qemu_opts_del(opts);
    return ret;
}

void ttj_grow_init(BDRVTtjournalState *s)
{
    TTJGrowth *g = &s->growth;

    qemu_co_mutex_init(&g->lock);
    qemu_co_queue_init(&g->changed);
    g->reserve = RESERVE;
    g->zeroing = NO_ZEROING;
}

void ttj_grow_clear(BDRVTtjournalState *s)
{
    TTJGrowth *g = &s->growth;

    qemu_vfree(g->zeroes);
    g->zeroes = NULL;
    g->known = false;
    g->room = g->reach = g->zeroed = 0;
}

/* Called with lock held; drops it. */
static int coroutine_fn GRAPH_RDLOCK ttj_grow_look(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    int64_t length;

    qemu_co_mutex_unlock(&g->lock);
    length = bdrv_co_getlength(s->journal->bs);
    qemu_co_mutex_lock(&g->lock);
    if (length < 0) {
        return length;
    }
    g->room = length;
    if (!g->known) {
        g->known = true;
        g->is_file = ttj_grow_is_file(s->journal->bs);
        g->sparse = false;
        g->filling = g->stuck = false;
        if (!g->ahead_given) {
            /* not more than a fair part of what a small disk takes itself */
            g->ahead = MIN(AHEAD_DEFAULT,
                           ROUND_UP(s->writer.disk_size / 4 + 1, ROUND));
        }
        g->step = g->ahead;
    }
    return 0;
}

/* ---- room ----------------------------------------------------------------- */

static uint64_t ttj_grow_need(const TTJGrowth *g, uint64_t end, TTJGrowFor who)
{
    /* not more than a part of what has been used, or a small one never fills */
    uint64_t reserve = MIN(g->reserve, end / RESERVE_PART);

    return who == TTJ_GROW_FOR_GUEST && g->ahead
               ? end + reserve + qatomic_read(&g->captures)
               : end;
}

/* Grows the journal to @size, by fallocate if it can.  Called without lock. */
static int coroutine_fn GRAPH_RDLOCK ttj_grow_to(BlockDriverState *bs,
                                                 uint64_t size)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    int64_t length = bdrv_co_getlength(s->journal->bs);
    int ret = -ENOTSUP;

    if (length < 0 || (uint64_t)length >= size) {
        return MIN(length, 0); /* whatever we believe, it never shrinks */
    }
    if (!g->sparse) {
        ret = bdrv_co_truncate(s->journal, size, false, PREALLOC_MODE_FALLOC, 0,
                               NULL);
    }
    if (ttj_is_unsupported(ret)) {
        g->sparse = true;
        ret = bdrv_co_truncate(s->journal, size, false, PREALLOC_MODE_OFF, 0,
                               NULL);
    }
    /* A device that cannot grow is a full journal. */
    return ttj_is_unsupported(ret) || ttj_is_full(ret) ? -ENOSPC : ret;
}

/*
 * Makes room for @need bytes in all, by a step if there is so much.  Called
 * with lock held and growing set; drops the lock meanwhile.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_grow_room(BlockDriverState *bs,
                                                   uint64_t need)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    /* The user may have made a device larger since it was full. */
    int ret = ttj_grow_look(bs);
    uint64_t step = g->step, size;

    while (ret == 0 && g->room < need) {
        size = step ? ROUND_UP(need + step, ROUND) : ROUND_UP(need, TT_GRID);
        qemu_co_mutex_unlock(&g->lock);
        ret = ttj_grow_to(bs, size);
        qemu_co_mutex_lock(&g->lock);
        if (ret == 0) {
            g->room = size;
            g->stuck = false;
            /* there may be more room again than last time */
            g->step = MIN(MAX(step * 2, ROUND), g->ahead);
        } else if (ret == -ENOSPC && step) {
            /* remembered: not every append begins with the largest step */
            step = step / 2 < ROUND ? 0 : step / 2;
            g->step = step;
            ret = 0;
        }
    }
    return ret;
}

int coroutine_fn ttj_grow(BlockDriverState *bs, uint64_t end, TTJGrowFor who)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    int ret = 0;

    qemu_co_mutex_lock(&g->lock);
    g->last_append = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    if (!g->known) {
        ret = ttj_grow_look(bs);
    }
    while (ret == 0) {
        uint64_t need = ttj_grow_need(g, end, who);
        bool room = need <= g->room || (!g->ahead && g->is_file);

        if (room && end <= g->zeroing) {
            g->reach = MAX(g->reach, end);
            break;
        }
        if (room || g->growing) {
            qemu_co_queue_wait(&g->changed, &g->lock);
            continue;
        }
        g->growing = true;
        ret = ttj_grow_room(bs, need);
        g->growing = false;
        qemu_co_queue_restart_all(&g->changed);
    }
    qemu_co_mutex_unlock(&g->lock);
    return ret;
}

/* ---- zeroes --------------------------------------------------------------- */

/*
 * Writes zeroes to [@from, @to), or less, unless something is written there
 * already; returns the end of what is written now, or -errno.
 */
static int64_t coroutine_fn GRAPH_RDLOCK
ttj_grow_zero(BlockDriverState *bs, uint64_t from, uint64_t to, uint64_t target)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    QEMUIOVector qiov;
    int64_t pnum;
    int ret;

    ret = bdrv_co_block_status_above(s->journal->bs, NULL, from, target - from,
                                     &pnum, NULL, NULL);
    if (ret < 0) {
        return ret;
    }
    if (!(ret & BDRV_BLOCK_ZERO) || (ret & BDRV_BLOCK_DATA)) {
        return pnum > 0 ? (int64_t)from + pnum : -EIO;
    }
    to = MIN(to, from + pnum);
    if (!g->zeroes) {
        g->zeroes = qemu_try_blockalign(s->journal->bs, ZERO_STEP_MIN);
        if (!g->zeroes) {
            return -ENOMEM;
        }
        memset(g->zeroes, 0, ZERO_STEP_MIN);
    }
    /* Not a request to zero: that would make the file system forget again. */
    qemu_iovec_init(&qiov, ZERO_STEP_MAX / ZERO_STEP_MIN);
    for (uint64_t at = from; at < to; at += ZERO_STEP_MIN) {
        qemu_iovec_add(&qiov, g->zeroes, MIN(ZERO_STEP_MIN, to - at));
    }
    ret = bdrv_co_pwritev(s->journal, from, qiov.size, &qiov, 0);
    qemu_iovec_destroy(&qiov);
    return ret < 0 ? ret : (int64_t)to;
}

/* Is zeroing due?  If so sets what to do next; see TTJGrowth.filling. */
static bool ttj_grow_due(BDRVTtjournalState *s, uint64_t *ret_from,
                         uint64_t *ret_target)
{
    TTJGrowth *g = &s->growth;
    uint64_t align = MAX(s->alignment, TT_GRID);
    uint64_t from = MAX(g->zeroed, ROUND_UP(g->reach, align));
    uint64_t target = ROUND_UP(g->reach + g->ahead, align);

    /* Before the first append the end is not known. */
    if (!g->reach || !g->is_file || !g->ahead || g->stuck) {
        return false;
    }
    if (from >= target) {
        g->filling = false;
    } else if (from - g->reach <= g->ahead / 2) {
        g->filling = true;
    }
    *ret_from = from;
    *ret_target = target;
    return g->filling;
}

int coroutine_fn ttj_grow_idle(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJGrowth *g = &s->growth;
    uint64_t from, to, target;
    int64_t quiet, ret = 0;

    qemu_co_mutex_lock(&g->lock);
    if (!ttj_grow_due(s, &from, &target)) {
        qemu_co_mutex_unlock(&g->lock);
        return 0;
    }
    quiet = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - g->last_append;
    if (quiet < QUIET_MS || g->growing || g->zeroing != NO_ZEROING) {
        qemu_co_mutex_unlock(&g->lock);
        return quiet < QUIET_MS && quiet >= 0 ? QUIET_MS - quiet : QUIET_MS;
    }
    to = MIN(target,
             from + MIN(MAX(from - g->reach, ZERO_STEP_MIN), ZERO_STEP_MAX));
    if (target > g->room) {
        /* All at once, so that a full file system is known before writing. */
        uint64_t size =
            ROUND_UP(ttj_grow_need(g, target, TTJ_GROW_FOR_GUEST), ROUND);

        g->growing = true;
        qemu_co_mutex_unlock(&g->lock);
        ret = ttj_grow_to(bs, size);
        qemu_co_mutex_lock(&g->lock);
        g->growing = false;
        if (ret == 0) {
            g->room = size;
        }
    } else {
        g->zeroing = from;
        qemu_co_mutex_unlock(&g->lock);
        ret = ttj_grow_zero(bs, from, to, target);
        qemu_co_mutex_lock(&g->lock);
        g->zeroing = NO_ZEROING;
        if (ret > 0) {
            g->zeroed = ret;
            g->filling = g->zeroed < target;
        }
    }
    /* It is no one's request that failed; an append that grows tries again. */
    g->stuck = ret < 0;
    qemu_co_queue_restart_all(&g->changed);
    qemu_co_mutex_unlock(&g->lock);
    return ret < 0 ? 0 : 1;
}

/* A scan need not read what is only allocated. */
uint64_t ttj_next_data(void *opaque, uint64_t offset)
{
    BlockDriverState *bs = opaque;
    BDRVTtjournalState *s = bs->opaque;
    int64_t pnum = 0;
    int ret = bdrv_block_status_above(s->journal->bs, NULL, offset, 1 * GiB,
                                      &pnum, NULL, NULL);

    return ret >= 0 && (ret & BDRV_BLOCK_ZERO) ? offset + pnum : offset;
}
