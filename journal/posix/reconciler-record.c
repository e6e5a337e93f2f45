/*
 * Reconciliation: records what compare has found
 *
 * reconciler.c says in which order, and why.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reconciler-int.h"

/* What is read at once, and the longest WRITE */
#define PIECE (64 * TT_KIB)
#define ZERO_MOST (32 * TT_MIB)
/* For the body of a CHECKPOINT and that of a GAP, and what is small */
#define GAP_ROOM (3 * TT_MIB)
/* Payload of the PREIMAGEs that may share their frame */
#define CAPTURES_BESIDE (256 * TT_KIB)
/* Ranges of one GAP: its body has 1 MiB at most */
#define RANGES_MAX 60000u

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- frames ------------------------------------------------------------ */

static int commit(struct tt_reconciler *r, struct tt_append *ret,
                  struct tt_error *err)
{
    struct tt_append ap = { 0 };
    int status = 0;

    if (tt_batch_count(r->pair.a->batch) > 0) {
        status = tt_appender_commit(r->pair.a, &ap, err);
    }
    if (ret != NULL) {
        *ret = ap;
    }
    tt_appender_begin(r->pair.a);
    r->used = 0;
    return status;
}

/* Adds a record to the frame, or to the next one if it is full. */
static int add(struct tt_reconciler *r, const struct tt_request *req,
               struct tt_error *err)
{
    int ret;

    if (tt_batch_add(r->pair.a->batch, req)) {
        return 0;
    }
    ret = commit(r, NULL, err);
    if (ret == 0 && !tt_batch_add(r->pair.a->batch, req)) {
        ret = tt_fail(err, TT_EINVAL, EINVAL,
                      "%s: a record of %u bytes does not fit", r->pair.a->path,
                      req->payload_length);
    }
    return ret;
}

/*
 * Adds a record of @length bytes of the disk, which are to be at buf + used.
 * One that opens the next frame has its bytes at the front.
 */
static int add_data(struct tt_reconciler *r, struct tt_request *req,
                    size_t length, struct tt_error *err)
{
    size_t at = r->used;
    int ret = 0;

    req->payload = r->buf + at;
    req->payload_length = (uint32_t)length;
    if (!tt_batch_add(r->pair.a->batch, req)) {
        ret = commit(r, NULL, err);
        memmove(r->buf, r->buf + at, length);
        req->payload = r->buf;
        if (ret == 0 && !tt_batch_add(r->pair.a->batch, req)) {
            ret = tt_fail(err, TT_EINVAL, EINVAL,
                          "%s: a record of %zu bytes does not fit",
                          r->pair.a->path, length);
        }
    }
    r->used += length;
    return ret;
}

static bool is_zero(const uint8_t *p, size_t length)
{
    return p[0] == 0 && memcmp(p, p + 1, length - 1) == 0;
}

/* Room for one more piece, and its bytes there. */
static int read_piece(struct tt_reconciler *r, uint64_t offset, size_t length,
                      struct tt_error *err)
{
    int ret = 0;

    if (FRAME_PAYLOAD - r->used < length) {
        ret = commit(r, NULL, err);
    }
    return ret < 0
               ? ret
               : tt_pair_read(&r->pair, offset, r->buf + r->used, length, err);
}

/*
 * GAP, RESIZE and CHECKPOINT belong into one frame: a RESIZE without the latter
 * would be redone, and zero what others have written behind the old end; a
 * CHECKPOINT without the GAP would say that all is well.  So there has to be
 * room for them in one segment.  The frame is empty.
 */
static int make_room(struct tt_reconciler *r, struct tt_error *err)
{
    struct tt_request durable = { .kind = TT_KIND_DURABLE };
    struct tt_writer *w = r->pair.a->writer;
    uint64_t used =
        (w->next_offset - w->super.segments_offset) % w->super.segment_size;
    int ret;

    if (w->super.segment_size - used >= GAP_ROOM) {
        return 0;
    }
    w->force_segment = true;
    ret = add(r, &durable, err);
    return ret < 0 ? ret : commit(r, NULL, err);
}

/* ---- captures ---------------------------------------------------------- */

static int capture_block(struct tt_reconciler *r, uint64_t offset,
                         size_t length, struct tt_error *err)
{
    struct tt_recovery *rec = &r->pair.a->recovery;
    struct tt_request req = {
        .kind = TT_KIND_PREIMAGE,
        .disk_offset = offset,
        .disk_length = length,
    };
    int ret = read_piece(r, offset, length, err);

    if (ret < 0) {
        return ret;
    }
    if (!tt_blocks_add(rec->captured, offset, length) ||
        !tt_blocks_add(rec->unmapped, offset, length)) {
        return out_of_memory(err);
    }
    r->report.captured_bytes += length;
    if (is_zero(r->buf + r->used, length)) {
        req.flags = TT_RECORD_ZEROES;
        return add(r, &req, err);
    }
    return add_data(r, &req, length, err);
}

/*
 * What was never captured in a block of @set is still what the disk holds, as
 * far as anybody knows.  But not in a block that the disk's new end cuts: that
 * is not whole.
 */
static int capture_set(struct tt_reconciler *r, const struct tt_blocks *set,
                       struct tt_error *err)
{
    const struct tt_blocks *captured = r->pair.a->recovery.captured;
    uint64_t old = r->report.old_size, end = min_u64(old, r->report.new_size);
    uint64_t at = 0, run;
    int ret = 0;

    end -= end < old ? end % TT_GRID : 0;
    while (ret == 0 && (at = tt_blocks_next(set, at)) < end) {
        if (!tt_blocks_test(captured, at, TT_GRID, &run)) {
            ret = capture_block(r, at, min_u64(TT_GRID, end - at), err);
        }
        at += TT_GRID;
    }
    return ret;
}

/* Adds the blocks of @from to the map: they are never to be captured again. */
static bool add_to_map(struct tt_reconciler *r, const struct tt_blocks *from)
{
    struct tt_recovery *rec = &r->pair.a->recovery;
    uint64_t at = 0, run;

    while ((at = tt_blocks_next(from, at)) < r->report.new_size) {
        tt_blocks_test(from, at, r->report.new_size - at, &run);
        if (!tt_blocks_add(rec->captured, at, run) ||
            !tt_blocks_add(rec->unmapped, at, run)) {
            return false;
        }
        at += run;
    }
    return true;
}

/* What a RESIZE adds is born captured, in whole blocks. */
static bool add_born(struct tt_reconciler *r)
{
    struct tt_recovery *rec = &r->pair.a->recovery;
    uint64_t from = (r->report.old_size + TT_GRID - 1) / TT_GRID * TT_GRID;
    uint64_t size = r->report.new_size;

    return from >= size || (tt_blocks_add(rec->captured, from, size - from) &&
                            tt_blocks_add(rec->unmapped, from, size - from));
}

static int capture(struct tt_reconciler *r, struct tt_error *err)
{
    const struct tt_compare *c = &r->compare;
    int ret;

    tt_appender_begin(r->pair.a);
    ret = make_room(r, err);
    if (ret == 0 && !r->was_damaged) {
        /* damage may hide that something was captured: see captured.c */
        ret = capture_set(r, c->differ, err);
        if (ret == 0) { /* a block that the old end cuts */
            ret = capture_set(r, c->grown, err);
        }
    }
    if (ret == 0 && (!r->at_rest || r->used > CAPTURES_BESIDE)) {
        ret = commit(r, NULL, err);
        ret = ret < 0 ? ret : make_room(r, err);
    }
    if (ret == 0 && (!add_to_map(r, c->differ) || !add_to_map(r, c->unknown) ||
                     !add_to_map(r, c->grown) || !add_born(r))) {
        ret = out_of_memory(err);
    }
    return ret;
}

/* ---- the gap ----------------------------------------------------------- */

/*
 * All of the map but its last part, whose body is *ret_body: *ret_req is the
 * record that completes it.
 */
static int begin_checkpoint(struct tt_reconciler *r, uint8_t **ret_body,
                            struct tt_request *ret_req, struct tt_error *err)
{
    struct tt_checkpoint c = { 0 };
    struct tt_append ap;
    int ret = 0;

    for (;;) {
        *ret_body = tt_pair_checkpoint(&r->pair, &c, ret_req, err);
        if (*ret_body == NULL) {
            return -TT_ENOMEM;
        }
        if (!(ret_req->flags & TT_RECORD_MORE)) {
            return 0;
        }
        ret = commit(r, NULL, err);
        ret = ret < 0 ? ret : add(r, ret_req, err);
        ret = ret < 0 ? ret : commit(r, &ap, err);
        ret = ret < 0 ? ret : make_room(r, err);
        if (ret == 0) {
            tt_pair_checkpoint_done(&r->pair, *ret_body, &ap);
        }
        free(*ret_body);
        *ret_body = NULL;
        if (ret < 0) {
            return ret;
        }
    }
}

/*
 * The disk is level up to the record before it, in the same frame; or up to the
 * one before that, if the clock has stepped and CLOCK comes first.
 */
static int add_checkpoint(struct tt_reconciler *r, uint8_t *body,
                          const struct tt_request *req, struct tt_error *err)
{
    struct tt_checkpoint_body head;

    memcpy(&head, body, sizeof(head));
    head.level_seq = tt_put64(r->pair.a->writer->next_seq +
                              tt_batch_count(r->pair.a->batch) - 1);
    memcpy(body, &head, sizeof(head));
    return add(r, req, err);
}

/* In words, for who reads the log. */
static int add_event(struct tt_reconciler *r, uint8_t *buf, size_t room,
                     struct tt_error *err)
{
    const struct tt_reconcile_report *rep = &r->report;
    struct tt_event_body body = { .source = tt_put32(3) };
    struct tt_request req = { .kind = TT_KIND_EVENT,
                              .flags = TT_RECORD_INLINE,
                              .payload = buf };
    int n = snprintf(
        (char *)buf + sizeof(body), room - sizeof(body),
        "reconcile: the disk was changed while nobody recorded: "
        "%" PRIu64 " bytes differ, %" PRIu64 " could not be told, %" PRIu64
        " were never captured and could not be compared",
        rep->differing_bytes, rep->unknown_bytes, rep->uncompared_bytes);

    body.length = tt_put32((uint32_t)n);
    memcpy(buf, &body, sizeof(body));
    req.payload_length = (uint32_t)(sizeof(body) + (size_t)n);
    return add(r, &req, err);
}

/* The next GAP for ranges of @set from *at on; NULL: out of memory. */
static uint8_t *gap_body(const struct tt_reconciler *r,
                         const struct tt_blocks *set, uint64_t *at,
                         uint32_t *ret_length)
{
    uint64_t end = max_u64(r->report.old_size, r->report.new_size), run;
    uint32_t count = 0, room = 64;
    struct tt_gap_body *b = malloc(sizeof(*b) + room * sizeof(struct tt_range));

    while (b != NULL && count < RANGES_MAX &&
           (*at = tt_blocks_next(set, *at)) < end) {
        struct tt_range range;

        tt_blocks_test(set, *at, end - *at, &run);
        if (count == room) {
            struct tt_gap_body *old = b;

            room *= 2;
            b = realloc(b, sizeof(*b) + room * sizeof(range));
            if (b == NULL) {
                free(old);
                return NULL;
            }
        }
        range.offset = tt_put64(*at);
        range.length = tt_put64(run);
        memcpy((uint8_t *)b + sizeof(*b) + count++ * sizeof(range), &range,
               sizeof(range));
        *at += run;
    }
    if (b != NULL) {
        *b = (struct tt_gap_body){
            .from_seq = tt_put64(r->report.from_seq),
            .from_epoch = tt_put64(r->from_epoch),
            .from_time = tt_put64((uint64_t)r->from_time),
            .to_time = tt_put64((uint64_t)tt_clocks().realtime),
            .reason = tt_put32(TT_GAP_CHANGED_BEHIND),
            .range_count = tt_put32(count),
        };
        *ret_length = (uint32_t)(sizeof(*b) + count * sizeof(struct tt_range));
    }
    return (uint8_t *)b;
}

static int add_gap(struct tt_reconciler *r, const uint8_t *body,
                   uint32_t length, struct tt_error *err)
{
    const struct tt_request req = {
        .kind = TT_KIND_GAP,
        .flags = length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0,
        .payload = body,
        .payload_length = length,
    };

    return add(r, &req, err);
}

/*
 * The ranges of @set.  If they do not fit one GAP each has a frame of its own,
 * but for the last one's, which others follow: *ret_body is its body.
 */
static int add_gaps(struct tt_reconciler *r, const struct tt_blocks *set,
                    uint8_t **ret_body, struct tt_error *err)
{
    uint64_t end = max_u64(r->report.old_size, r->report.new_size), at = 0;
    uint32_t length;
    int ret = 0;

    *ret_body = NULL;
    while (ret == 0 && tt_blocks_next(set, at) < end) {
        if (*ret_body != NULL) {
            ret = commit(r, NULL, err);
            free(*ret_body);
            *ret_body = NULL;
            ret = ret < 0 ? ret : make_room(r, err);
        }
        if (ret == 0) {
            *ret_body = gap_body(r, set, &at, &length);
            ret = *ret_body != NULL ? add_gap(r, *ret_body, length, err)
                                    : out_of_memory(err);
        }
    }
    return ret;
}

/* All that is in doubt, but for what lies behind the old end. */
static int collect_doubts(const struct tt_reconciler *r,
                          struct tt_blocks *doubts, struct tt_error *err)
{
    const struct tt_compare *c = &r->compare;
    const struct tt_blocks *from[] = { c->differ, c->lost };
    uint64_t old = r->report.old_size, size = r->report.new_size;
    uint64_t end = max_u64(old, size), run;
    bool ok = true;

    for (size_t i = 0; i < 2; i++) {
        for (uint64_t at = 0; ok && (at = tt_blocks_next(from[i], at)) < end;
             at += run) {
            tt_blocks_test(from[i], at, end - at, &run);
            ok = tt_blocks_add(doubts, at, run);
        }
    }
    if (old != size) {
        ok = ok && tt_blocks_add(doubts, min_u64(old, size),
                                 end - min_u64(old, size));
    }
    return ok ? 0 : out_of_memory(err);
}

static int add_resize(struct tt_reconciler *r, struct tt_error *err)
{
    struct tt_request req = {
        .kind = TT_KIND_RESIZE,
        .disk_offset = r->report.old_size,
        .disk_length = r->report.new_size,
    };

    return r->report.old_size != r->report.new_size ? add(r, &req, err) : 0;
}

/* What was gained is not all zero: it is in doubt until it is recorded. */
static int add_grown(struct tt_reconciler *r, uint8_t **ret_body,
                     struct tt_error *err)
{
    uint64_t at = 0;
    uint32_t length;

    *ret_body = NULL;
    if (tt_blocks_next(r->compare.grown, 0) == UINT64_MAX) {
        return 0;
    }
    *ret_body = gap_body(r, r->compare.grown, &at, &length);
    return *ret_body != NULL ? add_gap(r, *ret_body, length, err)
                             : out_of_memory(err);
}

static int append_doubts(struct tt_reconciler *r,
                         const struct tt_blocks *doubts, struct tt_error *err)
{
    uint8_t event[512], *map, *gap = NULL, *grown = NULL;
    struct tt_request req;
    struct tt_append ap;
    int ret = begin_checkpoint(r, &map, &req, err);

    if (ret == 0) {
        ret = add_gaps(r, doubts, &gap, err);
    }
    if (ret == 0) {
        ret = add_resize(r, err);
    }
    if (ret == 0) {
        ret = add_grown(r, &grown, err);
    }
    if (ret == 0) {
        ret = add_event(r, event, sizeof(event), err);
    }
    if (ret == 0) {
        ret = add_checkpoint(r, map, &req, err);
    }
    if (ret == 0) {
        ret = commit(r, &ap, err);
    }
    if (ret == 0) {
        tt_pair_checkpoint_done(&r->pair, map, &ap);
    }
    free(map);
    free(gap);
    free(grown);
    return ret;
}

static int append_gap(struct tt_reconciler *r, struct tt_error *err)
{
    struct tt_blocks *doubts = tt_blocks_new(TT_SECTOR);
    int ret =
        doubts != NULL ? collect_doubts(r, doubts, err) : out_of_memory(err);

    if (ret == 0) {
        ret = append_doubts(r, doubts, err);
    }
    tt_blocks_free(doubts);
    return ret;
}

/* ---- what was found ---------------------------------------------------- */

/*
 * Records some of [offset, offset + length); *ret_done is how much.  What is
 * known to be zero costs no read.
 */
static int add_found(struct tt_reconciler *r, uint64_t offset, uint64_t length,
                     uint64_t *ret_done, struct tt_error *err)
{
    struct tt_request req = { .kind = TT_KIND_ZERO,
                              .flags = TT_RECORD_FOUND,
                              .disk_offset = offset };
    uint64_t hole = tt_pair_hole(&r->pair, offset, min_u64(length, ZERO_MOST));
    int ret;

    hole -= hole < length ? hole % TT_GRID : 0;
    if (hole > 0) {
        req.disk_length = *ret_done = hole;
        r->report.zero_bytes += hole;
        return add(r, &req, err);
    }
    req.disk_length = *ret_done = min_u64(length, PIECE);
    ret = read_piece(r, offset, *ret_done, err);
    if (ret < 0) {
        return ret;
    }
    if (is_zero(r->buf + r->used, *ret_done)) {
        r->report.zero_bytes += *ret_done;
        return add(r, &req, err);
    }
    req.kind = TT_KIND_WRITE;
    r->report.write_bytes += *ret_done;
    return add_data(r, &req, *ret_done, err);
}

static int append_found(struct tt_reconciler *r, const struct tt_blocks *set,
                        struct tt_error *err)
{
    uint64_t size = r->report.new_size, at = 0, run, done;
    int ret = 0;

    while (ret == 0 && (at = tt_blocks_next(set, at)) < size) {
        tt_blocks_test(set, at, size - at, &run);
        for (; run > 0 && ret == 0; at += done, run -= done) {
            ret = add_found(r, at, run, &done, err);
            r->done += done;
            if (r->ops->progress != NULL) {
                r->ops->progress(r->ops->opaque, "recorded", r->done, r->total);
            }
        }
    }
    return ret;
}

/* Each block once: what differs, is unknown, or was gained. */
static int append_all_found(struct tt_reconciler *r, struct tt_error *err)
{
    const struct tt_compare *c = &r->compare;
    const struct tt_blocks *from[] = { c->differ, c->unknown, c->grown };
    struct tt_blocks *all = tt_blocks_new(TT_GRID);
    uint64_t size = r->report.new_size, run;
    int ret = all != NULL ? 0 : out_of_memory(err);

    for (size_t i = 0; i < 3; i++) {
        for (uint64_t at = 0;
             ret == 0 && (at = tt_blocks_next(from[i], at)) < size; at += run) {
            tt_blocks_test(from[i], at, size - at, &run);
            if (!tt_blocks_add(all, at, run)) {
                ret = out_of_memory(err);
            }
        }
    }
    for (uint64_t at = 0; ret == 0 && (at = tt_blocks_next(all, at)) < size;
         at += run) {
        tt_blocks_test(all, at, size - at, &run);
        r->total += run;
    }
    tt_appender_begin(r->pair.a);
    if (ret == 0) {
        ret = append_found(r, all, err);
    }
    if (ret == 0) {
        ret = commit(r, NULL, err);
    }
    tt_blocks_free(all);
    return ret;
}

/* ---- all of it ---------------------------------------------------------- */

int tt_reconciler_record(struct tt_reconciler *r, const char *program,
                         struct tt_error *err)
{
    struct tt_error warning = { 0 };
    int ret = tt_pair_start(&r->pair, program, err);

    if (ret == 0) {
        ret = capture(r, err);
    }
    if (ret == 0) {
        ret = append_gap(r, err);
    }
    if (ret == 0) {
        ret = append_all_found(r, err);
    }
    if (ret == 0) {
        r->report.exact_seq = r->pair.a->writer->next_seq - 1;
        ret = tt_pair_close(&r->pair, &r->report.checkpoint_seq, &warning, err);
    }
    if (ret == 0 && warning.code) {
        r->ops->warn(r->ops->opaque, warning.message); /* it is done */
    }
    return ret;
}
