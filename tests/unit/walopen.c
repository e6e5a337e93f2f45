/*
 * How the simulated recorder opens a journal: see wal.h
 *
 * In the order of docs/journal-format.md, "Recovery": scan; is the disk the
 * one that was left?; rewrite and flush; SESSION, alone, and flush; captures,
 * and flush; redo, flush and CHECKPOINT.  Any call may be the last one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "wal.h"

/* ---- calls that may be the last ---------------------------------------- */

static bool last_call(struct sim *s)
{
    return s->until_crash && --s->until_crash == 0;
}

static int write_journal(struct sim *s, uint64_t offset, const uint8_t *data,
                         uint32_t length)
{
    bool last = last_call(s);

    if (last || sim_fails(s)) {
        jmedia_write_some(&s->j, &s->rng, offset, data, length);
        return last ? WAL_CRASH : WAL_ERROR;
    }
    return jmedia_write(&s->j, offset, data, length) ? 0 : WAL_ERROR;
}

static int flush_journal(struct sim *s)
{
    bool ok;

    jmedia_flush_issue(&s->j);
    if (last_call(s)) {
        return WAL_CRASH;
    }
    ok = !sim_fails(s);
    jmedia_flush_done(&s->j, &s->rng, ok);
    NOTE(s, "recovery: flush of the journal %s", ok ? "succeeds" : "fails");
    return ok ? 0 : WAL_ERROR;
}

static int write_disk(struct sim *s, unsigned first, unsigned count,
                      uint32_t *ids)
{
    bool last = last_call(s);

    if (last || sim_fails(s)) {
        dmedia_write_some(&s->d, &s->rng, first, count, ids);
        return last ? WAL_CRASH : WAL_ERROR;
    }
    NOTE(s, "recovery: sectors %u + %u are redone", first, count);
    dmedia_write(&s->d, first, count, ids);
    return 0;
}

static int flush_disk(struct sim *s)
{
    bool ok;

    dmedia_flush_issue(&s->d);
    if (last_call(s)) {
        return WAL_CRASH;
    }
    ok = !sim_fails(s);
    dmedia_flush_done(&s->d, &s->rng, ok);
    NOTE(s, "recovery: flush of the disk %s", ok ? "succeeds" : "fails");
    return ok ? 0 : WAL_ERROR;
}

/* ---- appends ----------------------------------------------------------- */

/* One frame of what is in the batch: the records at @recs */
static int append_batch(struct sim *s, const struct rec *recs)
{
    int ret = WAL_ERROR;

    for (unsigned tries = 0; tries < 3 && ret == WAL_ERROR; tries++) {
        struct tt_append a;

        ret = frame_plan(s, recs, &a);
        if (ret == 0) {
            ret = write_journal(s, a.offset, s->app.node->bytes,
                                (uint32_t)a.length);
        }
        NOTE(s, "recovery: append of seq %llu to %llu at %llu + %llu: %d",
             (ull)a.first_seq, (ull)a.last_seq, (ull)a.offset, (ull)a.length,
             ret);
        if (ret == WAL_ERROR) {
            tt_writer_failed(&s->w, s->batch);
        }
    }
    if (ret == 0) {
        frame_complete(s);
    }
    return ret;
}

/* In as many frames as it takes */
static int append(struct sim *s, const struct rec *recs, unsigned count)
{
    int ret = 0;

    while (count && ret == 0) {
        unsigned n = 0;

        tt_batch_reset(s->batch, &s->w);
        while (n < count && tt_batch_add(s->batch, &recs[n].req)) {
            n++;
        }
        if (!n) {
            return sim_wrong(s, "a record does not fit a frame");
        }
        ret = append_batch(s, recs);
        recs += n;
        count -= n;
    }
    return ret;
}

static int make_durable(struct sim *s)
{
    int ret = flush_journal(s);

    if (ret == WAL_ERROR) {
        for (size_t i = 0; i < s->kept_count; i++) {
            const struct node *n = s->kept[i].node;

            ret = write_journal(s, n->offset, n->bytes, n->length);
            if (ret < 0) {
                return ret;
            }
        }
        ret = flush_journal(s);
    }
    if (ret == 0 && s->tip->parent) {
        drop_kept(s, s->tip->last_seq);
        tt_writer_flushed(&s->w, s->tip->last_seq);
    }
    return ret;
}

static int append_session(struct sim *s, const struct tt_scan *scan)
{
    struct tt_session body = {
        .realtime = s->now.realtime,
        .boottime = s->now.boottime,
        .disk_size = s->w.disk_size,
        .torn_offset = scan->torn_offset,
        .torn_length = scan->torn_length,
        .flags = TT_SESSION_RECORDER,
        .program = "simulated",
    };
    struct rec r = {
        .req = { .kind = TT_KIND_SESSION, .flags = TT_RECORD_INLINE },
        .purpose = FOR_NOBODY,
    };
    int ret;

    r.owner = tt_session_encode(&body, &r.req.payload_length);
    assert(r.owner);
    r.req.payload = r.owner;
    ret = append(s, &r, 1);
    rec_clear(&r);
    return ret < 0 ? ret : make_durable(s);
}

static int append_checkpoint(struct sim *s, uint64_t level)
{
    struct tt_checkpoint c = { .level_seq = level, .map_prev = s->map_prev };
    struct rec r = { .purpose = FOR_CHECKPOINT };
    uint32_t length;
    bool more;
    int ret;

    r.owner = tt_checkpoint_encode(&c, s->unmapped, &length, &more);
    assert(r.owner && !more);
    r.req = (struct tt_request){
        .kind = TT_KIND_CHECKPOINT,
        .flags = TT_RECORD_INLINE,
        .payload = r.owner,
        .payload_length = length,
    };
    ret = append(s, &r, 1);
    if (ret == 0) {
        if (tt_checkpoint_done(r.owner, s->unmapped)) {
            s->map_prev = s->tip->offset;
        }
        s->checkpoint_level = level;
        s->checkpoint_seq = s->tip->last_seq;
    }
    rec_clear(&r);
    return ret;
}

/* ---- the steps of recovery --------------------------------------------- */

static int rewrite(struct sim *s, const struct tt_recovery *r)
{
    for (size_t i = 0; i < r->rewrite_count; i++) {
        const struct tt_place *p = &r->rewrites[i];
        const struct node *n = s->tip;
        uint8_t *bytes;
        int ret;

        while (n->parent && n->offset != p->offset) {
            n = n->parent;
        }
        if (!n->parent || n->length != p->length) {
            return sim_wrong(s, "no frame at %llu + %llu to be rewritten",
                             (ull)p->offset, (ull)p->length);
        }
        bytes = arena_get(&s->model->arena, p->length);
        memcpy(bytes, s->j.cache + p->offset, p->length);
        ret = write_journal(s, p->offset, bytes, (uint32_t)p->length);
        if (ret < 0) {
            return ret;
        }
        keep_frame(s, n);
    }
    return 0;
}

/* A crash came between the disk's shrinking and its RESIZE. */
static int append_shrink(struct sim *s)
{
    struct rec r = {
        .req = { .kind = TT_KIND_RESIZE,
                 .disk_offset = s->w.disk_size,
                 .disk_length = (uint64_t)s->d.size * WAL_SECTOR },
        .purpose = FOR_NOBODY,
    };

    return append(s, &r, 1);
}

static int redo_range(struct sim *s, const struct tt_redo *d)
{
    struct tt_source src = jmedia_source(&s->j);
    static uint8_t buf[WAL_DISK];
    unsigned first = (unsigned)(d->disk_offset / WAL_SECTOR);
    unsigned count = (unsigned)(d->disk_length / WAL_SECTOR);
    uint32_t *ids = arena_get(&s->model->arena, count * sizeof(*ids));
    struct tt_error err = { 0 };

    memset(ids, 0, count * sizeof(*ids));
    if (d->kind == TT_KIND_WRITE) {
        if (tt_redo_read(&s->super, &src, d, buf, &err) < 0) {
            return sim_wrong(s, "redo of seq %llu: %s", (ull)d->seq,
                             err.message);
        }
        for (unsigned i = 0; i < count; i++) {
            if (!sector_read(buf + (size_t)i * WAL_SECTOR, first + i,
                             &ids[i])) {
                return sim_wrong(s, "redo of sector %u: other bytes",
                                 first + i);
            }
        }
    }
    if (first >= s->d.size) {
        return 0; /* shrunk */
    }
    if (count > s->d.size - first) {
        count = s->d.size - first;
    }
    return write_disk(s, first, count, ids);
}

static int redo_all(struct sim *s, const struct tt_recovery *r)
{
    int ret = 0;

    for (size_t i = 0; i < r->redo_count && ret == 0; i++) {
        ret = redo_range(s, &r->redos[i]);
    }
    return ret < 0 ? ret : flush_disk(s);
}

static int capture(struct sim *s, const struct tt_recovery *r)
{
    struct rec recs[WAL_BLOCKS];
    uint32_t have = 0;
    int ret = 0;

    for (unsigned b = 0; b < WAL_BLOCKS; b++) {
        if (tt_blocks_test(r->captured, (uint64_t)b * TT_GRID, 1, NULL)) {
            have |= 1u << b;
        }
    }
    for (size_t i = 0; i < r->redo_count && ret == 0; i++) {
        const struct tt_redo *d = &r->redos[i];
        unsigned n =
            make_captures(s, (unsigned)(d->disk_offset / WAL_SECTOR),
                          (unsigned)(d->disk_length / WAL_SECTOR), have, recs);

        if (n) {
            ret = append(s, recs, n);
        }
        for (unsigned k = 0; k < n; k++) {
            if (ret == 0) {
                have |= recs[k].blocks;
                tt_blocks_add(s->unmapped, recs[k].req.disk_offset,
                              recs[k].req.disk_length);
            }
            rec_clear(&recs[k]);
        }
    }
    s->cap_started = s->cap_done = have;
    return ret < 0 ? ret : make_durable(s);
}

/* The disk has a size that a crash may have left it with. */
static int check_size(struct sim *s, const struct tt_recovery *r,
                      bool *ret_shrunk)
{
    struct tt_error err = { 0 };

    return tt_prove_size(r, (uint64_t)s->d.size * WAL_SECTOR, ret_shrunk,
                         &err) < 0
               ? sim_wrong(s, "the disk is refused: %s", err.message)
               : 0;
}

static int start(struct sim *s, struct tt_recovery *r, bool shrunk)
{
    unsigned size = (unsigned)(r->scan.disk_size / WAL_SECTOR);
    bool same_boot = !s->tip->parent || s->tip->boot == s->boot;
    uint64_t level;
    int ret = rewrite(s, r);

    s->w = r->writer;
    r->writer.footer = r->writer.ended = NULL;
    tt_writer_open(&s->w, &s->super, &r->scan, s->alignment, rng_next(&s->rng),
                   same_boot);
    if (ret == 0) {
        ret = check_session_number(s);
    }
    if (ret == 0) {
        ret = make_durable(s);
    }
    if (ret == 0) {
        ret = append_session(s, &r->scan);
    }
    if (ret < 0) {
        return ret;
    }
    s->unmapped = r->unmapped;
    s->map_prev = r->map_prev;
    r->unmapped = NULL;
    if (shrunk) {
        ret = append_shrink(s);
        s->change_seq = s->tip->last_seq;
    } else if (r->resized) {
        s->change_seq = r->scan.last_seq;
    }
    if (ret == 0) {
        ret = capture(s, r);
    }
    if (ret == 0 && r->resized && s->d.size != size) {
        if (last_call(s)) {
            return WAL_CRASH;
        }
        dmedia_truncate(&s->d, size);
    }
    level = s->tip->last_seq;
    if (ret == 0) {
        ret = redo_all(s, r);
        if (ret == WAL_ERROR) {
            /* what a failed flush lost is written again */
            ret = redo_all(s, r);
        }
    }
    if (ret == 0) {
        s->level = level;
        ret = append_checkpoint(s, level);
    }
    return ret;
}

int sim_open(struct sim *s, bool power)
{
    struct tt_source src = jmedia_source(&s->j);
    struct tt_error err = { 0 };
    struct tt_recovery r;
    struct node *end;
    bool shrunk = false;
    int ret = check_disk_alone(s);

    if (ret < 0) {
        return ret;
    }
    if (tt_recovery_run(&s->super, &src, &r, &err) < 0) {
        tt_recovery_clear(&r);
        return sim_wrong(s, "recovery: %s", err.message);
    }
    NOTE(s, "recovery: history ends at seq %llu, level %llu, %zu redos",
         (ull)r.scan.last_seq, (ull)r.level_seq, r.redo_count);
    ret = check_history(s, &r, power, &end);
    if (ret == 0) {
        s->tip = end;
        ret = check_samples(s, &r);
    }
    if (ret == 0) {
        ret = check_size(s, &r, &shrunk);
    }
    if (ret == 0) {
        ret = start(s, &r, shrunk);
    }
    tt_recovery_clear(&r);
    if (ret < 0) {
        return ret;
    }
    sim_opened(s);
    return 0;
}
