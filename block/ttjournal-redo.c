/*
 * ttjournal filter driver: what the disk lacks, from the journal
 *
 * After a crash, and after a flush of the disk that failed: what the blocks
 * hold is captured, and durable, before they are overwritten; then of each
 * range the newest version is written.  A node that is opened to be read loads
 * it into memory, and writes nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"

#include "ttjournal-int.h"

/* ---- to the disk ---------------------------------------------------------- */

int coroutine_fn ttj_capture_redos(TTJStart *st)
{
    BDRVTtjournalState *s = st->bs->opaque;
    struct tt_recovery *r = &st->recovery;
    int64_t length = bdrv_co_getlength(st->bs->file->bs);
    uint64_t size = MAX(length, 0);
    int ret = MIN(length, 0);

    for (size_t i = 0; i < r->redo_count && ret == 0; i++) {
        /* what the disk does not have yet is a RESIZE's, and born captured */
        if (r->redos[i].disk_offset < size) {
            ret = ttj_capture(
                st->bs, r->redos[i].disk_offset,
                MIN(r->redos[i].disk_length, size - r->redos[i].disk_offset));
        }
    }
    return ret < 0 ? ret : ttj_make_durable(st->bs, ttj_last_seq(s));
}

/* 1 if it was written, 0 if the journal has lost it, -errno */
static int coroutine_fn GRAPH_RDLOCK
ttj_redo_range(TTJStart *st, const struct tt_redo *r, struct tt_error *err)
{
    uint8_t *buf = qemu_try_blockalign(st->bs->file->bs, r->disk_length);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = tt_redo_reader_read(st->reader, r, buf, err);
    if (ret == -TT_EDAMAGED) {
        ret = 0;
    } else if (ret < 0) {
        ret = err->os_errno ? -err->os_errno : -ENOMEM;
    } else {
        ret = bdrv_co_pwrite(st->bs->file, r->disk_offset, r->disk_length, buf,
                             0);
        ret = ret < 0 ? ret : 1;
    }
    qemu_vfree(buf);
    return ret;
}

/*
 * The payload is checked before it goes to the disk.  What is damaged cannot
 * be redone, and costs its own blocks only: the disk keeps what it has there,
 * and views say so.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_redo_write(TTJStart *st,
                                                    const struct tt_redo *r)
{
    struct tt_redo piece = *r;
    struct tt_error err;
    int ret = ttj_redo_range(st, r, &err);

    if (ret != 0) {
        return MIN(ret, 0);
    }
    warn_report("ttjournal: not redone: %s", err.message);
    for (uint64_t at = r->disk_offset, end = at + r->disk_length;
         at < end && ret >= 0; at += piece.disk_length) {
        piece.disk_offset = at;
        piece.disk_length = MIN(TT_GRID - at % TT_GRID, end - at);
        piece.payload = r->payload + (at - r->disk_offset);
        ret = ttj_redo_range(st, &piece, &err);
    }
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK ttj_redo_ranges(TTJStart *st, Error **errp)
{
    BlockDriverState *bs = st->bs;
    BDRVTtjournalState *s = bs->opaque;
    struct tt_recovery *r = &st->recovery;
    uint64_t size = s->writer.disk_size;
    int ret = 0;

    if (!st->shrunk && r->resized &&
        (uint64_t)bdrv_co_getlength(bs->file->bs) != r->scan.disk_size) {
        ret = bdrv_co_truncate(bs->file, r->scan.disk_size, true,
                               PREALLOC_MODE_OFF, 0, errp);
        if (ret < 0) {
            return ret;
        }
    }
    for (size_t i = 0; i < r->redo_count && ret >= 0; i++) {
        struct tt_redo part = r->redos[i], *redo = &part;

        if (redo->disk_offset >= size) {
            continue; /* cut off by a shrink */
        }
        redo->disk_length = MIN(redo->disk_length, size - redo->disk_offset);
        ret = ttj_still_here(bs);
        if (ret < 0) {
            break;
        }
        ret =
            redo->kind == TT_KIND_WRITE
                ? ttj_redo_write(st, redo)
                : bdrv_co_pwrite_zeroes(bs->file, redo->disk_offset,
                                        redo->disk_length, BDRV_REQ_MAY_UNMAP);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "ttjournal: cannot bring the disk up to "
                         "date with its journal");
    }
    return ret;
}

/* Calls @work, which reads what is to be redone. */
static int coroutine_fn GRAPH_RDLOCK
ttj_with_reader(TTJStart *st, int (*work)(TTJStart *st, Error **errp),
                Error **errp)
{
    int ret;

    st->reader = tt_redo_reader_new(&st->super, &st->source);
    if (!st->reader) {
        error_setg(errp, "ttjournal: out of memory");
        return -ENOMEM;
    }
    ret = work(st, errp);
    tt_redo_reader_free(st->reader);
    st->reader = NULL;
    return ret;
}

int coroutine_fn ttj_redo(TTJStart *st, Error **errp)
{
    return ttj_with_reader(st, ttj_redo_ranges, errp);
}

int coroutine_fn ttj_redo_again(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJStart st = { .bs = bs, .super = s->writer.super };
    struct tt_error err;
    Error *local_err = NULL;
    uint64_t last;
    int ret;

    st.source = (struct tt_source){ .read = ttj_read_journal,
                                    .next_data = ttj_next_data,
                                    .opaque = bs };
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        while (s->appending) {
            qemu_co_queue_wait(&s->append_idle, &s->lock);
        }
        /* no frame above this, or what it hides would be left out */
        st.source.size = s->writer.next_offset;
        last = ttj_last_seq(s);
    }
    ret = ttj_make_durable(bs, last);
    if (ret < 0) {
        return ret;
    }
    ret = tt_recovery_run(&st.super, &st.source, &st.recovery, &err);
    if (ret < 0) {
        ret = ttj_error(bs, ret, &local_err, &err);
    } else {
        /* some of it is still pending, and was never captured */
        ret = ttj_capture_redos(&st);
    }
    if (ret == 0) {
        /* what is pending is written once more after this */
        ret = ttj_redo(&st, &local_err);
    }
    if (local_err) {
        error_report_err(local_err);
    }
    tt_recovery_clear(&st.recovery);
    return ret;
}

/* ---- to memory ------------------------------------------------------------ */

/* One range of the journal, as if it were pending; @n counts them. */
static int coroutine_fn GRAPH_RDLOCK
ttj_load_redo(TTJStart *st, const struct tt_redo *r, uint64_t n, Error **errp)
{
    BDRVTtjournalState *s = st->bs->opaque;
    bool is_write = r->kind == TT_KIND_WRITE;
    TTJData *data = is_write ? ttj_data_new(st->bs, r->disk_length) : NULL;
    struct tt_error err;
    int ret = is_write && !data ? -ENOMEM : 0;

    if (ret == 0 && is_write) {
        ret = tt_redo_reader_read(st->reader, r, data->bytes, &err);
        if (ret < 0) {
            ttj_data_unref(data);
            return ttj_error(st->bs, ret, errp, &err);
        }
    }
    if (ret == 0 &&
        !tt_pending_add(s->pending, n, r->kind, 0, r->disk_offset,
                        r->disk_length, data ? data->bytes : NULL, data)) {
        ttj_data_unref(data);
        ret = -ENOMEM;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot read the journal");
    }
    return ret;
}

/* A reader of a disk that is behind finds the rest in memory. */
static int coroutine_fn GRAPH_RDLOCK ttj_load_ranges(TTJStart *st, Error **errp)
{
    struct tt_recovery *r = &st->recovery;
    int ret = 0;

    for (size_t i = 0; i < r->redo_count && ret == 0; i++) {
        ret = ttj_load_redo(st, &r->redos[i], i + 1, errp);
    }
    return ret;
}

int coroutine_fn ttj_load_redos(TTJStart *st, Error **errp)
{
    assume_graph_lock();
    return ttj_with_reader(st, ttj_load_ranges, errp);
}
