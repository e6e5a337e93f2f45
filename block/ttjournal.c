/*
 * ttjournal filter driver: records every write, with its time and bytes, in
 * an append-only journal
 *
 *     -blockdev driver=ttjournal,node-name=d,file=disk0,journal=j0
 *
 * The way of a write, and why in this order:
 *   1. Its bytes are copied.  The guest can change its buffer meanwhile; what
 *      is hashed, recorded and written to the disk is this one copy.
 *   2. It is appended to the journal, with others that arrive meanwhile.  The
 *      order in which writes arrive here is their order in the journal, and
 *      so on the disk.
 *   3. It is acknowledged.  Reads find it in memory from here on.
 *   4. A flush makes it durable in the journal: the guest's, or our own.
 *   5. What its blocks held before, if never overwritten, is captured, and
 *      made durable: from here on originals cannot be lost.
 *   6. It is written to the disk.
 * A guest's flush returns after 4 (disk-flush=lazy), or after 6 and a flush of
 * the disk (disk-flush=guest).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/iov.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qemu/units.h"

#include "ttjournal-int.h"

/* ---- flushes ------------------------------------------------------------- */

/* Everything up to @seq is as safe as the guest was promised. */
static int coroutine_fn GRAPH_RDLOCK ttj_flush_to(BlockDriverState *bs,
                                                  uint64_t seq)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = ttj_make_durable(bs, seq);

    if (ret < 0 || (s->options.lazy && !qatomic_read(&s->unrecorded))) {
        return ret;
    }
    ret = ttj_write_back(bs, seq);
    return ret < 0 ? ret : ttj_flush_disk(bs, seq);
}

/* The same for the guest, which may be held meanwhile */
static int coroutine_fn GRAPH_RDLOCK
ttj_flush_guest(BlockDriverState *bs, uint64_t seq, TTJHold *hold)
{
    int ret;

    do {
        ttj_try(bs, hold);
        ret = ttj_flush_to(bs, seq);
    } while (ttj_try_again(bs, hold, ret));
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_co_flush(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJHold hold = { 0 };
    uint64_t seq;
    int ret;

    if (!s->recording) {
        return bdrv_co_flush(bs->file->bs);
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        seq = ttj_last_seq(s);
        /*
         * The block layer lets flushes in one by one.  When several writers
         * flush, the one before us is writing already: with its write covered,
         * too, those behind us in the queue find nothing left to do, and write
         * together.  Without, each would flush for one write, for ever.
         */
        if (s->writer.durable_seq < seq && s->appending) {
            qemu_co_queue_wait(&s->append_idle, &s->lock);
            seq = ttj_last_seq(s);
        }
    }
    ret = ttj_flush_guest(bs, seq, &hold);
    if (ret == 0) {
        QEMU_LOCK_GUARD(&s->lock);
        s->note_seq = MAX(s->note_seq, seq);
        ttj_kick(bs);
    }
    return ret;
}

/* ---- writes -------------------------------------------------------------- */

/*
 * The journal is full, but for what is kept to capture pending data: without
 * any there may be room.
 */
static int coroutine_fn GRAPH_RDLOCK
ttj_append_again(BlockDriverState *bs, TTJEntry *e, unsigned count)
{
    BDRVTtjournalState *s = bs->opaque;

    if (ttj_level(bs) < 0) {
        return -ENOSPC;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        for (unsigned i = 0; i < count; i++) {
            s->admitted += e[i].req.payload_length;
        }
    }
    return ttj_append(bs, e, count);
}

/* Step 2; resize_lock is held, and let go. */
static int coroutine_fn GRAPH_RDLOCK ttj_record(BlockDriverState *bs,
                                                TTJEntry *e, unsigned count)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = s->unrecorded ? ttj_write_unrecorded(bs, e, count)
                            : ttj_append(bs, e, count);

    if (ret == -ENOSPC && !s->unrecorded) {
        ret = ttj_append_again(bs, e, count);
    }
    qemu_co_rwlock_unlock(&s->resize_lock);
    return ret;
}

/* The records that [offset, offset + bytes) is cut into */
static unsigned ttj_count_parts(int64_t offset, int64_t bytes)
{
    int64_t from = QEMU_ALIGN_DOWN(offset, TT_GRID);

    return DIV_ROUND_UP(offset + bytes - from, TT_PAYLOAD_RECORD_MAX);
}

static void ttj_drop_parts(TTJEntry *e, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ttj_data_unref(e[i].data);
        e[i].data = NULL; /* not copied, if it is tried again */
    }
}

/* Copies the request into as many records as it takes, or none of it. */
static int ttj_copy_parts(BlockDriverState *bs, TTJEntry *e, unsigned count,
                          int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                          BdrvRequestFlags flags)
{
    size_t from = 0;

    for (unsigned i = 0; i < count; i++) {
        /* cut on the grid, so that no block has two checksums */
        size_t part = MIN(bytes - from,
                          TT_PAYLOAD_RECORD_MAX - (offset + from) % TT_GRID);

        e[i].data = ttj_data_new(bs, part);
        if (!e[i].data) {
            ttj_drop_parts(e, i);
            return -ENOMEM;
        }
        qemu_iovec_to_buf(qiov, from, e[i].data->bytes, part);
        e[i].req = (struct tt_request){
            .kind = TT_KIND_WRITE,
            .flags = flags & BDRV_REQ_FUA ? TT_RECORD_FUA : 0,
            .disk_offset = offset + from,
            .disk_length = part,
            .payload = e[i].data->bytes,
            .payload_length = part,
        };
        from += part;
    }
    assert((int64_t)from == bytes);
    return 0;
}

/* Steps 1 and 2; what was copied is kept for the next try. */
static int coroutine_fn GRAPH_RDLOCK
ttj_write(BlockDriverState *bs, TTJEntry *e, unsigned count, int64_t offset,
          int64_t bytes, QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = ttj_admit(bs, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!e->data) {
        ret = ttj_copy_parts(bs, e, count, offset, bytes, qiov, flags);
    }
    if (ret == 0) {
        ret = ttj_lock_size(bs, offset + bytes);
    }
    if (ret == 0) {
        return ttj_record(bs, e, count);
    }
    QEMU_LOCK_GUARD(&s->lock);
    s->admitted -= bytes;
    ttj_room(bs);
    return ret;
}

/* A large request is several records, acknowledged after the last. */
static int coroutine_fn GRAPH_RDLOCK
ttj_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    unsigned count = ttj_count_parts(offset, bytes);
    TTJEntry one = { 0 };
    g_autofree TTJEntry *many = count > 1 ? g_new0(TTJEntry, count) : NULL;
    TTJEntry *e = many ? many : &one;
    TTJHold hold = { 0 };
    int ret;

    if (!bytes) {
        return 0; /* it changes nothing, and no record can say that */
    }
    do {
        ttj_try(bs, &hold);
        ret = ttj_write(bs, e, count, offset, bytes, qiov, flags);
    } while (ttj_try_again(bs, &hold, ret));
    ttj_drop_parts(e, count);
    return ret == 0 && (flags & BDRV_REQ_FUA)
               ? ttj_flush_guest(bs, e[count - 1].seq, &hold)
               : ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_zero(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              uint16_t flags,
                                              BdrvRequestFlags request)
{
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_ZERO,
            .flags = flags | (request & BDRV_REQ_FUA ? TT_RECORD_FUA : 0),
            .disk_offset = offset,
            .disk_length = bytes,
        },
    };
    TTJHold hold = { 0 };
    int ret;

    if (!bytes) {
        return 0;
    }
    assert((uint64_t)bytes <= TT_ZERO_RECORD_MAX);
    do {
        ttj_try(bs, &hold);
        ret = ttj_admit(bs, 0);
        if (ret == 0) {
            ret = ttj_lock_size(bs, offset + bytes);
        }
        if (ret == 0) {
            ret = ttj_record(bs, &e, 1);
        }
    } while (ttj_try_again(bs, &hold, ret));
    return ret == 0 && (request & BDRV_REQ_FUA)
               ? ttj_flush_guest(bs, e.seq, &hold)
               : ret;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     BdrvRequestFlags flags)
{
    return ttj_zero(bs, offset, bytes,
                    flags & BDRV_REQ_MAY_UNMAP ? TT_RECORD_UNMAP : 0, flags);
}

/* What a discarded range reads as afterwards must be known: zeroes. */
static int coroutine_fn GRAPH_RDLOCK
ttj_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    /* The block layer hands unaligned ends down; they keep their contents. */
    if (!QEMU_IS_ALIGNED(offset | bytes, bs->bl.request_alignment)) {
        return -ENOTSUP;
    }
    return ttj_zero(bs, offset, bytes, TT_RECORD_UNMAP | TT_RECORD_DISCARD, 0);
}

/* ---- reads --------------------------------------------------------------- */

/* A part of a read that the disk has to answer */
typedef struct TTJHole {
    int64_t from, bytes; /* within the request */
} TTJHole;

/*
 * Answers what is pending of a read, and lists the rest.  Under the lock, so
 * that the bytes stay: copying is short beside a request to the disk.
 */
static GArray *ttj_read_pending(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov)
{
    BDRVTtjournalState *s = bs->opaque;
    GArray *holes = NULL;

    QEMU_LOCK_GUARD(&s->lock);
    for (int64_t at = 0; at < bytes;) {
        const uint8_t *data;
        uint64_t run;

        if (tt_pending_read(s->pending, offset + at, bytes - at, &data, &run)) {
            if (data) {
                qemu_iovec_from_buf(qiov, at, data, run);
            } else {
                qemu_iovec_memset(qiov, at, 0, run);
            }
        } else if ((int64_t)run < bytes) {
            TTJHole hole = { at, run };

            holes = holes ? holes : g_array_new(false, false, sizeof(hole));
            g_array_append_val(holes, hole);
        } else {
            return NULL; /* nothing of it is pending */
        }
        at += run;
    }
    return holes ? holes : g_array_new(false, false, sizeof(TTJHole));
}

static int coroutine_fn GRAPH_RDLOCK
ttj_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    BDRVTtjournalState *s = bs->opaque;
    GArray *holes =
        s->pending ? ttj_read_pending(bs, offset, bytes, qiov) : NULL;
    int ret = 0;

    if (!holes) {
        return bdrv_co_preadv(bs->file, offset, bytes, qiov, flags);
    }
    for (guint i = 0; i < holes->len && ret >= 0; i++) {
        TTJHole *hole = &g_array_index(holes, TTJHole, i);

        ret = bdrv_co_preadv_part(bs->file, offset + hole->from, hole->bytes,
                                  qiov, hole->from, flags);
    }
    g_array_free(holes, true);
    return MIN(ret, 0);
}

#ifdef BDRV_WANT_ALLOCATED
typedef unsigned TTJWanted; /* QEMU from 10.1 on */
#else
typedef bool TTJWanted;
#endif

static int coroutine_fn GRAPH_RDLOCK
ttj_co_block_status(BlockDriverState *bs, TTJWanted wanted, int64_t offset,
                    int64_t bytes, int64_t *pnum, int64_t *map,
                    BlockDriverState **file)
{
    BDRVTtjournalState *s = bs->opaque;
    const uint8_t *data = NULL;
    uint64_t run = bytes;
    bool pending = false;

    if (s->pending) {
        QEMU_LOCK_GUARD(&s->lock);
        pending = tt_pending_read(s->pending, offset, bytes, &data, &run);
    }
    /* what is pending may have been written with a smaller alignment */
    *pnum = QEMU_ALIGN_DOWN(run, bs->bl.request_alignment);
    if (!*pnum) {
        *pnum = bs->bl.request_alignment;
        return BDRV_BLOCK_DATA;
    }
    if (pending) {
        return data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO;
    }
    *map = offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
}

static int64_t coroutine_fn GRAPH_RDLOCK ttj_co_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

/* ---- the node ------------------------------------------------------------ */

static void GRAPH_RDLOCK ttj_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment =
        MAX(bs->file->bs->bl.request_alignment, TT_SECTOR);
    bs->bl.max_pwrite_zeroes = TT_ZERO_RECORD_MAX;
    bs->bl.max_pdiscard = TT_ZERO_RECORD_MAX;
}

/*
 * Others must not write below the filter once it records for somebody; until
 * then they may, so that it can be inserted above a disk in use.  And while
 * the disk is behind its journal, what it holds is of no use to others.
 */
static void GRAPH_RDLOCK ttj_child_perm(BlockDriverState *bs, BdrvChild *c,
                                        BdrvChildRole role,
                                        BlockReopenQueue *reopen_queue,
                                        uint64_t perm, uint64_t shared,
                                        uint64_t *nperm, uint64_t *nshared)
{
    BDRVTtjournalState *s = bs->opaque;

    bdrv_default_perms(bs, c, role, reopen_queue, perm, shared, nperm, nshared);
    if (!(role & BDRV_CHILD_FILTERED)) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->settling = ttj_unsettled(s);
        if (s->settling) {
            /* the last parent may leave before the disk has everything */
            *nperm |= BLK_PERM_WRITE;
        }
        if (s->recording && s->pending && !tt_pending_empty(s->pending)) {
            *nshared &= ~BLK_PERM_CONSISTENT_READ;
        }
    }
    if (!QLIST_EMPTY(&bs->parents)) {
        if (perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            /* what changes nothing is recorded and written all the same */
            *nperm |= BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
            *nshared &= ~BLK_PERM_CONSISTENT_READ;
        }
        *nshared &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
}

/* ---- options ------------------------------------------------------------- */

#define MAX_PENDING_DEFAULT (64 * MiB)
#define MAX_PENDING_MIN (1 * MiB)
#define MAX_PENDING_MAX (16 * GiB)
#define MAX_PENDING_TIME_DEFAULT 5
#define CHECKPOINT_BYTES_DEFAULT (256 * MiB)
#define CHECKPOINT_BYTES_MIN (1 * MiB)
#define CHECKPOINT_INTERVAL_DEFAULT 30
#define SECONDS_MAX 86400

static QemuOptsList ttj_opts = {
    .name = "ttjournal",
    .head = QTAILQ_HEAD_INITIALIZER(ttj_opts.head),
    .desc = {
        {
            .name = "disk-flush",
            .type = QEMU_OPT_STRING,
            .help = "what a guest's flush waits for: guest or lazy",
        },
        {
            .name = "on-journal-error",
            .type = QEMU_OPT_STRING,
            .help = "what becomes of a write that cannot be recorded",
        },
        {
            .name = "max-pending",
            .type = QEMU_OPT_SIZE,
            .help = "bytes in the journal that the disk may lack",
        },
        {
            .name = "max-pending-time",
            .type = QEMU_OPT_NUMBER,
            .help = "seconds that the disk may lack them",
        },
        {
            .name = "checkpoint-bytes",
            .type = QEMU_OPT_SIZE,
            .help = "bytes that recovery may have to read",
        },
        {
            .name = "checkpoint-interval",
            .type = QEMU_OPT_NUMBER,
            .help = "seconds between two checkpoints",
        },
        { /* end of list */ },
    },
};

static bool ttj_take_number(QemuOpts *opts, const char *name, bool is_size,
                            uint64_t initial, uint64_t min, uint64_t max,
                            uint64_t *ret_value, Error **errp)
{
    *ret_value = is_size ? qemu_opt_get_size(opts, name, initial)
                         : qemu_opt_get_number(opts, name, initial);
    if (*ret_value >= min && *ret_value <= max) {
        return true;
    }
    error_setg(errp,
               "ttjournal: %s=%" PRIu64 " is out of range: %" PRIu64
               " to %" PRIu64,
               name, *ret_value, min, max);
    return false;
}

static bool ttj_take_options(QemuOpts *opts, TTJOptions *ret, Error **errp)
{
    const char *flush = qemu_opt_get(opts, "disk-flush");
    uint64_t pending_time, interval;
    const char *on_error = qemu_opt_get(opts, "on-journal-error");
    int mode = qapi_enum_parse(&TtjournalDiskFlush_lookup, flush,
                               TTJOURNAL_DISK_FLUSH_GUEST, errp);
    int policy = mode < 0 ? mode
                          : qapi_enum_parse(&TtjournalOnError_lookup, on_error,
                                            TTJOURNAL_ON_ERROR_REPORT, errp);

    if (policy < 0 ||
        !ttj_take_number(opts, "max-pending", true, MAX_PENDING_DEFAULT,
                         MAX_PENDING_MIN, MAX_PENDING_MAX, &ret->max_pending,
                         errp) ||
        !ttj_take_number(opts, "max-pending-time", false,
                         MAX_PENDING_TIME_DEFAULT, 1, SECONDS_MAX,
                         &pending_time, errp) ||
        !ttj_take_number(opts, "checkpoint-bytes", true,
                         CHECKPOINT_BYTES_DEFAULT, CHECKPOINT_BYTES_MIN,
                         INT64_MAX, &ret->checkpoint_bytes, errp) ||
        !ttj_take_number(opts, "checkpoint-interval", false,
                         CHECKPOINT_INTERVAL_DEFAULT, 1, SECONDS_MAX, &interval,
                         errp)) {
        return false;
    }
    ret->lazy = mode == TTJOURNAL_DISK_FLUSH_LAZY;
    ret->on_error = policy;
    ret->max_pending_ns = pending_time * NANOSECONDS_PER_SECOND;
    ret->checkpoint_ns = interval * NANOSECONDS_PER_SECOND;
    return true;
}

/* Takes ours out of @options. */
static bool ttj_parse_options(QDict *options, TTJOptions *ret, Error **errp)
{
    QemuOpts *opts = qemu_opts_create(&ttj_opts, NULL, 0, &error_abort);
    bool ok = qemu_opts_absorb_qdict(opts, options, errp) &&
              ttj_take_options(opts, ret, errp);

    qemu_opts_del(opts);
    return ok;
}

/* ---- opening ------------------------------------------------------------- */

static int ttj_open_children(BlockDriverState *bs, QDict *options, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    if (!ttj_parse_options(options, &s->options, errp)) {
        return -EINVAL;
    }
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
    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_FUA;
    bs->supported_zero_flags =
        BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP;
    bs->supported_truncate_flags =
        bs->file->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE;
    bdrv_graph_rdunlock_main_loop();

    if (bs->open_flags & BDRV_O_INACTIVE) {
        return 0; /* ttj_co_invalidate_cache() follows */
    }
    return ttj_start(bs, errp);
}

static int ttj_open(BlockDriverState *bs, QDict *options, int flags,
                    Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    ttj_init_state(s);
    s->drained = bs->quiesce_counter > 0;
    ret = ttj_open_workers(bs, errp);
    if (ret < 0) {
        ttj_destroy_state(s);
        return ret;
    }
    ret = ttj_open_children(bs, options, errp);
    if (ret < 0) {
        ttj_close_workers(bs);
        ttj_destroy_state(s);
    }
    return ret;
}

static void ttj_close(BlockDriverState *bs)
{
    ttj_stop(bs);
    ttj_close_workers(bs);
    ttj_destroy_state(bs->opaque);
}

/* Does @perm allow changing the disk through the filter? */
static bool ttj_is_writer(uint64_t perm)
{
    return perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE);
}

static int GRAPH_RDLOCK ttj_check_perm(BlockDriverState *bs, uint64_t perm,
                                       uint64_t shared, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (!s->recording || s->served || !ttj_is_writer(perm) ||
            (s->writing && s->writing_ours) || !ttj_disk_changed(bs)) {
            return 0;
        }
    }
    error_setg(errp,
               "ttjournal: disk '%s' was written below node '%s' while that "
               "had no user, and not recorded: remove the node and begin a "
               "new journal",
               ttj_name(bs->file->bs), bdrv_get_node_name(bs));
    return -ESTALE;
}

static void GRAPH_RDLOCK ttj_set_perm(BlockDriverState *bs, uint64_t perm,
                                      uint64_t shared)
{
    BDRVTtjournalState *s = bs->opaque;

    /* at once: a write that ends in between would count as somebody else's */
    QEMU_LOCK_GUARD(&s->lock);
    if (s->recording && s->served && !ttj_is_writer(perm)) {
        ttj_disk_left(bs);
    }
    s->served = ttj_is_writer(perm);
    if (!s->served) {
        s->appended_ns = 0; /* nothing more comes: the disk can follow */
        ttj_kick(bs);
    }
}

/* Another process may take over: nothing is written while inactive. */
static int GRAPH_RDLOCK ttj_inactivate(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    BDRV_POLL_WHILE(bs, s->marking);
    ret = ttj_stop(bs);
    if (ret == 0) {
        ttj_free_state(bs->opaque);
    } else {
        ttj_run_worker(bs); /* the node stays active and goes on recording */
    }
    return ret;
}

/* Filters may come and go between @bs and its disk, nothing else. */
static bool ttj_is_its_disk(BlockDriverState *bs, BlockDriverState *file)
{
    bool same;

    bdrv_graph_rdlock_main_loop();
    same = bdrv_skip_filters(file) == bdrv_skip_filters(bs->file->bs);
    bdrv_graph_rdunlock_main_loop();
    return same;
}

/*
 * A reopen of the filter itself may change its options; read-only and
 * read-write are different sessions.
 */
static int ttj_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                              Error **errp)
{
    BDRVTtjournalState *s = state->bs->opaque;
    const char *name = qdict_get_try_str(state->options, "file");
    BlockDriverState *file = name ? bdrv_find_node(name) : NULL;

    if (file && !ttj_is_its_disk(state->bs, file)) {
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
    state->opaque = g_new(TTJOptions, 1);
    if (!ttj_parse_options(state->options, state->opaque, errp)) {
        g_free(state->opaque);
        return -EINVAL;
    }
    return 0;
}

static void ttj_reopen_commit(BDRVReopenState *state)
{
    BDRVTtjournalState *s = state->bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    s->options = *(TTJOptions *)state->opaque;
    g_free(state->opaque);
}

static void ttj_reopen_abort(BDRVReopenState *state)
{
    g_free(state->opaque);
}

static const char *const ttj_strong_runtime_opts[] = { NULL };

static const char *const ttj_mutable_opts[] = {
    "disk-flush",
    "on-journal-error",
    "max-pending",
    "max-pending-time",
    "checkpoint-bytes",
    "checkpoint-interval",
    NULL,
};

static BlockDriver bdrv_ttjournal = {
    .format_name = "ttjournal",
    .instance_size = sizeof(BDRVTtjournalState),

    .bdrv_open = ttj_open,
    .bdrv_close = ttj_close,
    .bdrv_inactivate = ttj_inactivate,
    .bdrv_co_invalidate_cache = ttj_co_start_again,
    .bdrv_reopen_prepare = ttj_reopen_prepare,
    .bdrv_reopen_commit = ttj_reopen_commit,
    .bdrv_reopen_abort = ttj_reopen_abort,
    .bdrv_drain_begin = ttj_drain_begin,
    .bdrv_drain_end = ttj_drain_end,
    .bdrv_cancel_in_flight = ttj_cancel_in_flight,
    .bdrv_child_perm = ttj_child_perm,
    .bdrv_check_perm = ttj_check_perm,
    .bdrv_set_perm = ttj_set_perm,
    .bdrv_refresh_limits = ttj_refresh_limits,
    .strong_runtime_opts = ttj_strong_runtime_opts,
    .mutable_opts = ttj_mutable_opts,

    .bdrv_get_specific_stats = ttj_get_specific_stats,
    .bdrv_get_specific_info = ttj_get_specific_info,

    .bdrv_co_getlength = ttj_co_getlength,
    .bdrv_co_preadv = ttj_co_preadv,
    .bdrv_co_pwritev = ttj_co_pwritev,
    .bdrv_co_pwrite_zeroes = ttj_co_pwrite_zeroes,
    .bdrv_co_pdiscard = ttj_co_pdiscard,
    .bdrv_co_flush = ttj_co_flush,
    .bdrv_co_truncate = ttj_co_truncate,
    .bdrv_co_block_status = ttj_co_block_status,

    .is_filter = true,
};

static void ttj_init(void)
{
    bdrv_register(&bdrv_ttjournal);
}

block_init(ttj_init);
