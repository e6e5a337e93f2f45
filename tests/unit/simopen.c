/*
 * A small recorder for tests: how it opens a journal
 *
 * In the order of docs/journal-format.md, "Recovery": scan; is the disk the
 * one that was left?; rewrite and flush; SESSION, alone, and flush; captures,
 * and flush; redo, flush and CHECKPOINT.  Before that, what the library found
 * is held against the model.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "simwriter.h"

static int rewrite_undurable(struct simwriter *sw, const struct tt_recovery *r)
{
    for (size_t i = 0; i < r->rewrite_count; i++) {
        const struct tt_place *p = &r->rewrites[i];
        struct tt_append a = { .offset = p->offset, .length = p->length };
        uint8_t *bytes = malloc(p->length);
        int ret;

        assert(bytes);
        ret = simdisk_read(&sw->journal, p->offset, bytes, p->length);
        if (ret == 0) {
            ret = simdisk_write(&sw->journal, p->offset, bytes, p->length);
        }
        if (ret < 0) {
            free(bytes);
            return ret;
        }
        sw_keep(sw, &a, bytes);
    }
    return 0;
}

/* Is the disk the one that was left? */
static int compare_samples(struct simwriter *sw, const struct tt_source *src,
                           const struct tt_recovery *r)
{
    static uint8_t buf[SIM_DISK_MAX];

    for (size_t i = 0; i < r->sample_count; i++) {
        const struct tt_redo *s = &r->samples[i];
        struct tt_error err;
        int ret = simdisk_read(&sw->disk, s->disk_offset, buf, s->disk_length);

        if (ret == 0) {
            ret = tt_recovery_compare(&sw->super, src, s, buf, &err);
        }
        if (sw->world->crashed) {
            return SIM_CRASH;
        }
        if (ret != 1 && !sw->disk_unsure) {
            return sw_wrong(sw,
                            "sample %zu of %zu (seq %llu, disk %llu + "
                            "%llu): %d",
                            i, r->sample_count, (unsigned long long)s->seq,
                            (unsigned long long)s->disk_offset,
                            (unsigned long long)s->disk_length, ret);
        }
    }
    return 0;
}

static int append_session(struct simwriter *sw, const struct tt_scan *scan)
{
    struct tt_session s = {
        .realtime = sw->now.realtime,
        .boottime = sw->now.boottime,
        .disk_size = sw->w.disk_size,
        .torn_offset = scan->torn_offset,
        .torn_length = scan->torn_length,
        .flags = TT_SESSION_RECORDER,
        .program = "simwriter",
        .disk_format = "raw",
        .disk_path = "/simulated",
    };
    struct tt_request req = {
        .kind = TT_KIND_SESSION,
        .flags = TT_RECORD_INLINE,
    };
    uint8_t *body = tt_session_encode(&s, &req.payload_length);
    int ret;

    assert(body);
    req.payload = body;
    ret = sw_append_one(sw, &req, 1);
    free(body);
    return ret < 0 ? ret : sw_journal_flush(sw);
}

static int append_damages(struct simwriter *sw, const struct tt_recovery *r)
{
    for (size_t i = 0; i < r->damage_count; i++) {
        const struct tt_damage *d = &r->damages[i];
        struct tt_damage_body body = {
            tt_put64(d->offset),
            tt_put64(d->length),
            tt_put64(d->first_seq),
            tt_put64(d->last_seq),
        };
        struct tt_request req = {
            .kind = TT_KIND_DAMAGE,
            .flags = TT_RECORD_INLINE,
            .payload = &body,
            .payload_length = sizeof(body),
        };
        int ret = sw_append(sw, &req, 1);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Captures first, and durable; then redo. */
static int redo(struct simwriter *sw, const struct tt_recovery *r)
{
    static uint8_t buf[SIM_DISK_MAX];
    struct tt_request reqs[SIM_BLOCKS + 1];
    unsigned pre;
    int ret = 0;

    for (size_t i = 0; i < r->redo_count && ret == 0; i++) {
        const struct tt_redo *d = &r->redos[i];

        ret = sw_read_captures(sw, d->disk_offset, d->disk_length, buf, reqs,
                               &pre);
        if (ret == 0) {
            ret = sw_append_captured(sw, reqs, pre, NULL, SW_PRE_BEFORE);
        }
        sw_note_todo(sw, d->disk_offset, d->disk_length);
    }
    if (r->resized) {
        sw_note_todo(sw, sw->w.disk_size, SIM_DISK_MAX - sw->w.disk_size);
        sw->disk_size = sw->w.disk_size;
    }
    return ret < 0 ? ret : sw_flush(sw);
}

static int run_recovery(struct simwriter *sw, const struct tt_source *src,
                        struct tt_recovery *r, struct sim_node **ret_end)
{
    struct tt_error err = { 0 };
    int ret = sw->damage_ok ? 0 : sw_check_path(sw, sw->tip, ret_end);

    if (ret == 0 && !sw->disk_unsure) {
        ret = sw->damage_ok ? 0 : sw_check_disk_known(sw, *ret_end);
    }
    if (ret < 0) {
        return ret;
    }
    ret = tt_recovery_run(&sw->super, src, r, &err);
    if (sw->world->crashed) {
        return SIM_CRASH;
    }
    if (ret < 0) {
        return sw_wrong(sw, "recovery: %s", err.message);
    }
    if (sw->damage_ok) {
        *ret_end = sw->tip;
        while ((*ret_end)->parent && (*ret_end)->last_seq > r->scan.last_seq) {
            *ret_end = (*ret_end)->parent;
        }
        return (*ret_end)->last_seq == r->scan.last_seq
                   ? 0
                   : sw_wrong(sw, "history ends inside a frame, at %llu",
                              (unsigned long long)r->scan.last_seq);
    }
    return sw_check_recovery(sw, r, *ret_end);
}

static int start(struct simwriter *sw, struct tt_recovery *r,
                 struct sim_node *end)
{
    int ret = rewrite_undurable(sw, r);

    sw->w = r->writer;
    r->writer.footer = r->writer.ended = NULL;
    tt_writer_open(&sw->w, &sw->super, &r->scan, sw->alignment,
                   sim_random(sw->world, 0), end->boot == sw->boot);
    if (ret < 0) {
        return ret;
    }
    sw->tip = end;
    ret = sw_journal_flush(sw);
    if (ret == 0) {
        ret = append_session(sw, &r->scan);
    }
    if (ret < 0) {
        return ret;
    }
    sw->captured = r->captured;
    sw->unmapped = r->unmapped;
    sw->map_prev = r->map_prev;
    r->captured = r->unmapped = NULL;
    ret = append_damages(sw, r);
    if (ret == 0) {
        ret = sw_append_footer(sw);
    }
    return ret < 0 ? ret : redo(sw, r);
}

int sw_open(struct simwriter *sw)
{
    struct tt_source src = simdisk_source(&sw->journal);
    struct sim_node *end = NULL;
    struct tt_recovery r;
    int ret;

    memset(&r, 0, sizeof(r));
    ret = run_recovery(sw, &src, &r, &end);
    if (ret == 0) {
        ret = compare_samples(sw, &src, &r);
    }
    if (ret == 0) {
        ret = start(sw, &r, end);
    }
    tt_recovery_clear(&r);
    return ret;
}
