/*
 * ttjournal filter driver: how far the disk has come
 *
 * A CHECKPOINT says that the disk is durable up to a sequence number, and
 * which blocks need no PREIMAGE any more; recovery begins there.  It follows a
 * flush of the disk, and its number was taken before that was issued.
 *
 * A flush of the disk that fails may have dropped what was written since the
 * last good one, and a later one that succeeds says nothing of it.  So before
 * the next one counts, all that the journal has above the last CHECKPOINT is
 * written again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"

#include "ttjournal-int.h"

/* ---- the disk's flush ---------------------------------------------------- */

/* Called with level_lock held. */
static int coroutine_fn GRAPH_RDLOCK ttj_write_again(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        while (s->writing) {
            ttj_wait_written(s);
        }
        ttj_begin_writing(bs);
    }
    ret = ttj_redo_again(bs);
    QEMU_LOCK_GUARD(&s->lock);
    ttj_stop_writing(bs);
    if (ret == 0) {
        s->disk_doubtful = false;
    }
    return ret;
}

/* Called with level_lock held. */
static int coroutine_fn GRAPH_RDLOCK ttj_flush_disk_locked(BlockDriverState *bs,
                                                           uint64_t *ret_level)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret = 0;

    if (s->disk_doubtful) {
        ret = ttj_write_again(bs);
    }
    if (ret < 0) {
        return ret;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        *ret_level =
            MIN(tt_pending_level(s->pending, ttj_last_seq(s)), s->level_max);
    }
    ret = bdrv_co_flush(bs->file->bs);
    if (ret < 0) {
        s->disk_doubtful = true;
        QEMU_LOCK_GUARD(&s->lock);
        ttj_disk_failed(bs, -ret);
    } else {
        s->level_seq = MAX(s->level_seq, *ret_level);
    }
    return ret;
}

int coroutine_fn ttj_flush_disk(BlockDriverState *bs, uint64_t seq)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t level;

    QEMU_LOCK_GUARD(&s->level_lock);
    /* the flush of somebody else that we waited for may have covered us */
    return s->level_seq >= seq && !qatomic_read(&s->unrecorded)
               ? 0
               : ttj_flush_disk_locked(bs, &level);
}

/* ---- the map of captured blocks ------------------------------------------ */

/*
 * A chain of many small maps takes long to load: it is begun anew when the
 * links outweigh the map, so that loading costs at most a constant times the
 * map, and so does writing.
 */
static void ttj_begin_new_map(BDRVTtjournalState *s)
{
    uint64_t at = 0, run;

    if (s->map_links < 64 ||
        s->map_links * 32ull + s->map_ranges < 2 * s->whole_ranges) {
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

/* ---- the record ---------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK
ttj_append_part(BlockDriverState *bs, struct tt_checkpoint *c, bool *ret_more)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJEntry e = { .req.kind = TT_KIND_CHECKPOINT };
    uint32_t length, ranges;
    uint8_t *body;
    int ret;

    c->map_prev = s->map_prev;
    body = tt_checkpoint_encode(c, s->unmapped, &length, ret_more);
    e.data = body && length > TT_INLINE_MAX ? ttj_data_new(bs, length) : NULL;
    if (!body || (length > TT_INLINE_MAX && !e.data)) {
        free(body);
        return -ENOMEM;
    }
    if (e.data) {
        memcpy(e.data->bytes, body, length);
    }
    e.req.payload = e.data ? e.data->bytes : body;
    e.req.payload_length = length;
    e.req.flags =
        (*ret_more ? TT_RECORD_MORE : 0) | (e.data ? 0 : TT_RECORD_INLINE);
    ret = ttj_append(bs, &e, 1);
    if (ret == 0) {
        ranges = tt_checkpoint_done(body, s->unmapped);
        if (ranges) {
            s->map_prev = e.frame_offset;
            s->map_links++;
            s->map_ranges += ranges;
        }
    }
    ttj_data_unref(e.data);
    free(body);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_append_checkpoint(BlockDriverState *bs, uint64_t level, uint32_t flags)
{
    BDRVTtjournalState *s = bs->opaque;
    struct tt_checkpoint c = {
        .level_seq = level,
        .clean = flags & TT_CHECKPOINT_CLEAN,
    };
    bool more = true;
    int ret = 0;

    if (c.clean && !s->served && ttj_disk_changed(bs)) {
        /* others wrote below us: the next open must see that it has changed */
        c.has_stat = s->left_has_stat;
        c.disk_inode = s->left_inode;
        c.disk_mtime = s->left_mtime;
    } else if (c.clean) {
        c.has_stat = ttj_disk_stat(bs, &c.disk_inode, &c.disk_mtime);
    }

    /* The map is as of its place in the journal: no captures meanwhile. */
    QEMU_LOCK_GUARD(&s->capture_lock);
    ttj_begin_new_map(s);
    while (more && ret == 0) {
        ret = ttj_append_part(bs, &c, &more);
    }
    return ret;
}

int coroutine_fn ttj_checkpoint(BlockDriverState *bs, uint32_t flags)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t level, end;
    int ret;

    QEMU_LOCK_GUARD(&s->level_lock);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        end = s->writer.next_offset;
        s->changed = false;
        s->checkpointing = true;
    }
    ret = ttj_flush_disk_locked(bs, &level);
    if (ret == 0) {
        ret = ttj_append_checkpoint(bs, level, flags);
    }
    QEMU_LOCK_GUARD(&s->lock);
    s->checkpointing = false;
    if (ret < 0) {
        s->changed = true;
    } else {
        s->checkpoint_at = end;
        s->checkpoint_time = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        s->counts.checkpoints++;
        s->counts.checkpoint_seq = level;
        s->counts.checkpoint_time = ttj_now().realtime;
        /* what was not level is for the next one */
        s->changed |= level < ttj_last_seq(s) && !tt_pending_empty(s->pending);
    }
    return ret;
}

bool ttj_checkpoint_due(BDRVTtjournalState *s, int64_t now)
{
    uint64_t appended = s->writer.next_offset - s->checkpoint_at;

    return s->changed && ((!s->served && tt_pending_empty(s->pending)) ||
                          appended >= s->options.checkpoint_bytes ||
                          now - s->checkpoint_time >= s->options.checkpoint_ns);
}

int coroutine_fn ttj_level(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    uint64_t last;
    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        last = ttj_last_seq(s);
    }
    ret = ttj_make_durable(bs, last);
    return ret < 0 ? ret : ttj_write_back(bs, last);
}
