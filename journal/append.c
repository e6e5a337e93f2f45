/*
 * The append planner: where does the next frame go, and what is in it?
 *
 * A batch collects records; tt_writer_plan() gives them sequence numbers, a
 * time and a place, and fills in the header; the caller writes that and tells
 * with tt_writer_commit() that it is complete.  After a failure the next frame
 * goes to the same place with the same numbers, or further on; never back, as
 * readers prefer the later of two places.  One append is under way at a time.
 *
 * Invariants of what is planned:
 *   - a frame lies in one segment, at a multiple of its alignment, directly
 *     behind the one before or at the start of a later segment;
 *   - sequence numbers follow on; times never decrease within an epoch;
 *   - durable_seq is what was known to be flushed before the plan was made.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "footer.h"

#define HEADER ((uint32_t)sizeof(struct tt_frame_header))
#define DESC ((uint32_t)sizeof(struct tt_record_header))
#define CLOCK_DESC (DESC + (uint32_t)sizeof(struct tt_clock_body))
#define MAX_REQUESTS ((TT_HEAD_MAX - HEADER) / DESC)

/*
 * A forward step: CLOCK_REALTIME gained on CLOCK_BOOTTIME by more than a slew
 * explains.  adjtime() slews by at most 0.05 %; twice that, and a second for
 * a leap second that was not smeared.
 */
#define STEP_MIN INT64_C(1000000000)
#define SLEW_DIVISOR 1000

/*
 * So much at the end of a segment is worth a record of its own, in bytes.
 * Without that, half of a large write is left unused there on average.
 */
#define CUT_MIN (32 * 1024)

struct tt_batch {
    uint8_t *head;         /* TT_HEAD_MAX bytes, on a page boundary */
    uint32_t table_length; /* of the caller's records */
    uint64_t payload_total;
    uint32_t alignment;
    uint64_t max_length;
    uint64_t room; /* to the end of the segment */
    unsigned count;
    struct tt_request requests[MAX_REQUESTS];
    uint32_t desc_at[MAX_REQUESTS]; /* in the table, before any CLOCK */
    /* set by the last plan */
    struct tt_frame frame;
    uint32_t table_shift; /* CLOCK_DESC if there is a CLOCK in front */
};

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

struct tt_batch *tt_batch_new(void)
{
    struct tt_batch *b = calloc(1, sizeof(*b));

    if (b) {
        b->head = aligned_alloc(TT_GRID, TT_HEAD_MAX);
        if (!b->head) {
            free(b);
            return NULL;
        }
    }
    return b;
}

void tt_batch_free(struct tt_batch *b)
{
    if (b) {
        free(b->head);
        free(b);
    }
}

void tt_batch_reset(struct tt_batch *b, const struct tt_writer *w)
{
    b->table_length = 0;
    b->table_shift = 0;
    b->payload_total = 0;
    b->count = 0;
    b->alignment = w->alignment;
    b->max_length = w->super.segment_size < TT_FRAME_MAX ? w->super.segment_size
                                                         : TT_FRAME_MAX;
    b->room =
        w->super.segment_size -
        (w->next_offset - w->super.segments_offset) % w->super.segment_size;
}

unsigned tt_batch_count(const struct tt_batch *b)
{
    return b->count;
}

static bool has_payload(const struct tt_request *req)
{
    return req->payload_length && !(req->flags & TT_RECORD_INLINE);
}

static uint64_t grid_origin(const struct tt_request *req)
{
    return tt_kind_is_version(req->kind) ? req->disk_offset : 0;
}

static void encode_descriptor(uint8_t *p, const struct tt_request *req,
                              uint32_t length, uint32_t sums)
{
    struct tt_record_header h = {
        .kind = tt_put16(req->kind),
        .flags = tt_put16(req->flags),
        .length = tt_put32(length),
        .disk_offset = tt_put64(req->disk_offset),
        .disk_length = tt_put64(req->disk_length),
        .payload_length = tt_put32(req->payload_length),
        .checksum_count = tt_put32(sums),
    };

    memset(p, 0, length);
    memcpy(p, &h, DESC);
    if (sums) {
        /* p is 8-byte aligned: the table and every descriptor are */
        tt_grid_checksums(req->payload, grid_origin(req), req->payload_length,
                          (tt_le64 *)(p + DESC));
    } else if (req->payload_length) {
        memcpy(p + DESC, req->payload, req->payload_length);
    }
}

/* What tt_table_check() demands: a writer never writes what nobody reads. */
static bool request_is_valid(const struct tt_request *req)
{
    uint64_t end = req->disk_offset + req->disk_length;

    if (req->payload_length > TT_PAYLOAD_RECORD_MAX) {
        return false;
    }
    if (!tt_kind_is_version(req->kind)) {
        return true;
    }
    return req->disk_length && end > req->disk_offset &&
           end <= TT_DISK_SIZE_MAX && req->disk_offset % TT_SECTOR == 0 &&
           end % TT_SECTOR == 0 &&
           (!req->payload_length || req->payload_length == req->disk_length);
}

/*
 * Bytes of the disk begin at a multiple of a sector, also in the journal: an
 * index knows no other place.  Behind a body of another length they do not.
 */
static bool is_place_for(const struct tt_batch *b, const struct tt_request *req)
{
    return !has_payload(req) || !tt_kind_is_version(req->kind) ||
           b->payload_total % TT_SECTOR == 0;
}

uint32_t tt_batch_fits(const struct tt_batch *b, const struct tt_request *req)
{
    uint32_t length = req->payload_length;
    uint32_t sums = tt_grid_pieces(grid_origin(req), length);
    uint64_t head = HEADER + CLOCK_DESC + b->table_length + DESC +
                    sums * (uint64_t)sizeof(tt_le64);
    uint64_t used = round_up(head, b->alignment) + b->payload_total;
    uint64_t end;

    assert(req->kind == TT_KIND_WRITE && has_payload(req));
    if (round_up(used + length, b->alignment) <= b->room ||
        used + CUT_MIN > b->room) {
        return length;
    }
    /* on the grid, so that no block has two checksums */
    end = req->disk_offset + (b->room - used);
    end -= end % TT_GRID;
    return end < req->disk_offset + CUT_MIN
               ? length
               : (uint32_t)(end - req->disk_offset);
}

bool tt_batch_add(struct tt_batch *b, const struct tt_request *req)
{
    uint32_t sums = 0, length;
    uint64_t payload = b->payload_total, frame;

    assert(request_is_valid(req));
    if (has_payload(req)) {
        sums = tt_grid_pieces(grid_origin(req), req->payload_length);
        length = DESC + sums * (uint32_t)sizeof(tt_le64);
        payload += req->payload_length;
    } else {
        length = DESC + (uint32_t)round_up(req->payload_length, 8);
    }
    frame =
        round_up(HEADER + CLOCK_DESC + b->table_length + length, b->alignment) +
        round_up(payload, b->alignment);
    /* A segment is filled up: only what does not fit alone goes to the next. */
    if (b->count == MAX_REQUESTS || !is_place_for(b, req) ||
        HEADER + CLOCK_DESC + b->table_length + length > TT_HEAD_MAX ||
        frame > b->max_length || (frame > b->room && b->payload_total)) {
        return false;
    }
    encode_descriptor(b->head + HEADER + b->table_length, req, length, sums);
    b->desc_at[b->count] = b->table_length;
    b->requests[b->count++] = *req;
    b->table_length += length;
    b->payload_total = payload;
    return true;
}

/* ---- planning ---------------------------------------------------------- */

/* 0: the epoch goes on; else why a new one begins. */
static uint32_t clock_step(const struct tt_writer *w, struct tt_now now)
{
    int64_t real, boot, gained;

    if (w->next_seq == 1) {
        return 0;
    }
    if (!w->same_boot) {
        return TT_CLOCK_UNKNOWN;
    }
    if (now.realtime < w->last_time) {
        return TT_CLOCK_BACKWARD;
    }
    boot = (int64_t)(now.boottime - w->last_boottime);
    if (__builtin_sub_overflow(now.realtime, w->last_time, &real) ||
        __builtin_sub_overflow(real, boot, &gained) ||
        gained > STEP_MIN + boot / SLEW_DIVISOR) {
        return TT_CLOCK_FORWARD;
    }
    return 0;
}

/* What the old epoch's clock would show now. */
static int64_t old_clock(const struct tt_writer *w, struct tt_now now,
                         uint32_t reason)
{
    int64_t t;

    if (reason == TT_CLOCK_UNKNOWN || now.boottime < w->last_boottime ||
        __builtin_add_overflow(
            w->last_time, (int64_t)(now.boottime - w->last_boottime), &t)) {
        return w->last_time;
    }
    return t;
}

static void put_clock_record(struct tt_batch *b, const struct tt_writer *w,
                             struct tt_now now, uint32_t reason)
{
    struct tt_clock_body body = {
        .old_epoch = tt_put64(w->epoch),
        .old_last_time = tt_put64((uint64_t)w->last_time),
        .old_end_time = tt_put64((uint64_t)old_clock(w, now, reason)),
        .new_time = tt_put64((uint64_t)now.realtime),
        .old_boottime = tt_put64(w->last_boottime),
        .new_boottime = tt_put64(now.boottime),
        .reason = tt_put32(reason),
    };
    struct tt_request req = {
        .kind = TT_KIND_CLOCK,
        .flags = TT_RECORD_INLINE,
        .payload = &body,
        .payload_length = sizeof(body),
    };

    encode_descriptor(b->head + HEADER, &req, CLOCK_DESC, 0);
}

/* Makes room for a CLOCK record in front, or takes that room away. */
static void shift_table(struct tt_batch *b, uint32_t shift)
{
    memmove(b->head + HEADER + shift, b->head + HEADER + b->table_shift,
            b->table_length);
    b->table_shift = shift;
}

static void place_frame(const struct tt_writer *w, struct tt_batch *b,
                        bool new_segment)
{
    const struct tt_super *super = &w->super;
    struct tt_frame *f = &b->frame;
    uint64_t offset = w->next_offset, segment = 0;

    if (offset > super->segments_offset) {
        /* the segment that the byte before @offset lies in */
        segment = (offset - 1 - super->segments_offset) / super->segment_size;
        if (new_segment || offset % f->alignment ||
            offset + f->length > tt_segment_offset(super, segment + 1)) {
            segment++;
            offset = tt_segment_offset(super, segment);
        }
    }
    f->offset = offset;
    f->segment = segment;
    if (offset == tt_segment_offset(super, segment)) {
        f->flags |= TT_FRAME_SEGMENT_START;
    }
}

static void stamp_descriptors(struct tt_batch *b, int64_t time)
{
    uint8_t *table = b->head + HEADER;
    uint32_t payload = b->frame.payload_offset;
    tt_le64 t = tt_put64((uint64_t)time);

    if (b->table_shift) {
        memcpy(table + offsetof(struct tt_record_header, time), &t, sizeof(t));
    }
    for (unsigned i = 0; i < b->count; i++) {
        uint8_t *p = table + b->table_shift + b->desc_at[i];

        memcpy(p + offsetof(struct tt_record_header, time), &t, sizeof(t));
        if (has_payload(&b->requests[i])) {
            tt_le32 at = tt_put32(payload);

            memcpy(p + offsetof(struct tt_record_header, payload_offset), &at,
                   sizeof(at));
            payload += b->requests[i].payload_length;
        }
    }
}

static void encode_header(const struct tt_writer *w, struct tt_batch *b)
{
    struct tt_frame *f = &b->frame;
    struct tt_frame_header h = {
        .offset = tt_put64(f->offset),
        .segment = tt_put64(f->segment),
        .prev_offset = tt_put64(f->prev_offset),
        .chain = tt_put64(f->chain),
        .session = tt_put64(f->session),
        .session_nonce = tt_put64(f->session_nonce),
        .session_first_seq = tt_put64(f->session_first_seq),
        .epoch = tt_put64(f->epoch),
        .first_seq = tt_put64(f->first_seq),
        .durable_seq = tt_put64(f->durable_seq),
        .first_time = tt_put64((uint64_t)f->first_time),
        .last_time = tt_put64((uint64_t)f->last_time),
        .boottime = tt_put64(f->boottime),
        .checkpoint_offset = tt_put64(f->checkpoint_offset),
        .disk_size = tt_put64(f->disk_size),
        .first_leaf = tt_put64(f->first_leaf),
        .salt = tt_put64(w->super.salt),
        .session_offset = tt_put64(f->session_offset),
        .epoch_offset = tt_put64(f->epoch_offset),
        .notable_offset = tt_put64(f->notable_offset),
        .footer_offset = tt_put64(f->footer_offset),
        .first_live_segment = tt_put64(f->first_live_segment),
        .segment_size = tt_put64(w->super.segment_size),
        .alignment = tt_put32(f->alignment),
        .flags = tt_put32(f->flags),
        .record_count = tt_put32(f->record_count),
        .table_length = tt_put32(f->table_length),
        .payload_offset = tt_put32(f->payload_offset),
        .frame_length = tt_put32(f->length),
    };

    f->table_checksum = tt_checksum(b->head + HEADER, f->table_length);
    h.table_checksum = tt_put64(f->table_checksum);
    memcpy(h.magic, TT_FRAME_MAGIC, TT_MAGIC_SIZE);
    memcpy(h.uuid, w->super.uuid, TT_UUID_SIZE);
    h.header_checksum = tt_put64(
        tt_checksum(&h, offsetof(struct tt_frame_header, header_checksum)));
    memcpy(b->head, &h, HEADER);
    f->own_chain = tt_checksum(&h, HEADER);
}

void tt_writer_plan(const struct tt_writer *w, struct tt_batch *b,
                    struct tt_now now, struct tt_append *ret_append)
{
    uint32_t reason = clock_step(w, now);
    uint32_t shift = reason ? CLOCK_DESC : 0;
    struct tt_frame *f = &b->frame;
    bool session = b->count && b->requests[0].kind == TT_KIND_SESSION;

    assert(b->count);
    shift_table(b, shift);
    if (reason) {
        put_clock_record(b, w, now, reason);
    }
    *f = (struct tt_frame){
        .prev_offset = w->prev_offset,
        .chain = w->chain,
        .session = w->session,
        .session_nonce = w->session_nonce,
        .session_first_seq = w->session_first_seq,
        .epoch = w->epoch + (reason != 0),
        .first_seq = w->next_seq,
        .durable_seq = w->durable_seq,
        .first_time = now.realtime,
        .last_time = now.realtime,
        .boottime = now.boottime,
        .checkpoint_offset = w->checkpoint_offset,
        .disk_size = w->disk_size,
        .first_leaf = w->next_leaf,
        .session_offset = w->session_offset,
        .epoch_offset = w->epoch_offset,
        .notable_offset = w->notable_offset,
        .footer_offset = w->footer_offset,
        .first_live_segment = w->first_live_segment,
        .alignment = w->alignment,
        .record_count = b->count + (reason != 0),
        .table_length = shift + b->table_length,
    };
    f->payload_offset =
        (uint32_t)round_up(HEADER + f->table_length, f->alignment);
    f->length =
        f->payload_offset + (uint32_t)round_up(b->payload_total, f->alignment);
    if (session) {
        f->flags |= TT_FRAME_SESSION_START;
    }
    if (reason || w->next_seq == 1) {
        f->flags |= TT_FRAME_EPOCH_START;
    }
    if (w->after_damage) {
        f->flags |= TT_FRAME_AFTER_DAMAGE;
    }
    place_frame(w, b, reason || w->force_segment || w->after_damage);
    if (f->flags & TT_FRAME_SESSION_START) {
        f->session_offset = f->offset;
    }
    if (f->flags & TT_FRAME_EPOCH_START) {
        f->epoch_offset = f->offset;
    }
    stamp_descriptors(b, now.realtime);
    memset(b->head + HEADER + f->table_length, 0,
           f->payload_offset - HEADER - f->table_length);
    encode_header(w, b);

    *ret_append = (struct tt_append){
        .offset = f->offset,
        .length = f->length,
        .first_seq = f->first_seq + (reason != 0),
        .last_seq = tt_frame_last_seq(f),
        .head = b->head,
        .head_length = f->payload_offset,
        .requests = b->requests,
        .request_count = b->count,
        .tail_zeroes =
            f->length - f->payload_offset - (uint32_t)b->payload_total,
        .starts_segment = f->flags & TT_FRAME_SEGMENT_START,
        .time = now.realtime,
    };
}

/* ---- the writer -------------------------------------------------------- */

static bool follow_segment(struct tt_writer *w, const struct tt_frame *f,
                           const uint8_t *table)
{
    /* Behind a damaged place the list is not whole: no footer. */
    if (w->footer && f->first_seq != w->footer->last_seq + 1) {
        w->footer->incomplete = true;
    }
    if (!w->footer || w->footer->segment != f->segment) {
        if (w->footer && (f->flags & TT_FRAME_SEGMENT_START)) {
            tt_footer_free(w->ended);
            w->ended = w->footer;
        } else {
            tt_footer_free(w->footer);
        }
        /* Without the segment's first frame the list would not be whole. */
        w->footer = f->flags & TT_FRAME_SEGMENT_START
                        ? tt_footer_new(f->segment,
                                        f->segment * w->super.segment_size +
                                            w->super.segments_offset,
                                        f)
                        : NULL;
    }
    return w->footer && tt_footer_add_frame(w->footer, f, table);
}

bool tt_writer_seen(struct tt_writer *w, const struct tt_frame *f,
                    const uint8_t *table)
{
    bool ret = follow_segment(w, f, table);
    uint32_t pos = 0, index = 0;
    struct tt_record r;

    while (w->ended && tt_table_next(f, table, &pos, &index, &r)) {
        /* one that comes later may be of a segment before that */
        if (r.kind == TT_KIND_FOOTER && !(r.flags & TT_RECORD_MORE) &&
            f->segment == w->ended->segment + 1) {
            tt_writer_footer_done(w);
        }
    }
    return ret;
}

bool tt_writer_commit(struct tt_writer *w, const struct tt_batch *b)
{
    const struct tt_frame *f = &b->frame;

    assert(f->first_seq == w->next_seq);
    w->next_offset = tt_frame_end(f);
    w->next_seq = tt_frame_last_seq(f) + 1;
    w->prev_offset = f->offset;
    w->chain = f->own_chain;
    w->epoch = f->epoch;
    w->last_time = f->last_time;
    w->last_boottime = f->boottime;
    w->same_boot = true;
    w->force_segment = false;
    w->after_damage = false;
    w->session_offset = f->session_offset;
    w->epoch_offset = f->epoch_offset;
    w->next_leaf += (f->length + TT_LEAF - 1) / TT_LEAF;
    for (unsigned i = 0; i < b->count; i++) {
        const struct tt_request *req = &b->requests[i];

        if (req->kind == TT_KIND_RESIZE) {
            w->disk_size = req->disk_length;
        } else if (req->kind == TT_KIND_CHECKPOINT &&
                   !(req->flags & TT_RECORD_MORE)) {
            w->checkpoint_offset = f->offset;
        }
        if (tt_kind_is_notable(req->kind)) {
            w->notable_offset = f->offset;
        } else if (req->kind == TT_KIND_FOOTER &&
                   !(req->flags & TT_RECORD_MORE)) {
            w->footer_offset = f->offset;
        }
    }
    return follow_segment(w, f, b->head + HEADER);
}

void tt_writer_failed(struct tt_writer *w, const struct tt_batch *b)
{
    /* the next segment's start has been tried: do not turn back from it */
    if (b->frame.flags & TT_FRAME_SEGMENT_START) {
        w->force_segment = true;
    }
}

void tt_writer_flushed(struct tt_writer *w, uint64_t seq)
{
    assert(seq < w->next_seq);
    if (seq > w->durable_seq) {
        w->durable_seq = seq;
    }
}

void tt_writer_open(struct tt_writer *w, const struct tt_super *super,
                    const struct tt_scan *scan, uint32_t alignment,
                    uint64_t nonce, bool same_boot)
{
    const struct tt_frame *last = &scan->last;

    w->super = *super;
    w->alignment = alignment > super->alignment ? alignment : super->alignment;
    w->session = scan->max_session + 1;
    w->session_nonce = nonce;
    w->session_first_seq = scan->last_seq + 1;
    w->next_offset = scan->end_offset;
    w->next_seq = scan->last_seq + 1;
    w->durable_seq = scan->last_seq;
    w->epoch = 1;
    w->disk_size = super->disk_size;
    w->force_segment = w->after_damage = scan->damaged_end;
    if (!scan->empty) {
        w->epoch = last->epoch;
        w->last_time = last->last_time;
        w->last_boottime = last->boottime;
        w->same_boot = same_boot;
        w->prev_offset = last->offset;
        w->chain = last->own_chain;
        w->checkpoint_offset = scan->checkpoint_offset;
        w->session_offset = last->session_offset;
        w->epoch_offset = last->epoch_offset;
        w->notable_offset = scan->notable_offset;
        w->footer_offset = scan->footer_offset;
        w->first_live_segment = last->first_live_segment;
        w->next_leaf =
            last->first_leaf + (last->length + TT_LEAF - 1) / TT_LEAF;
        w->disk_size = scan->disk_size;
        if (last->alignment != w->alignment) {
            w->force_segment = true;
        }
    }
}

void tt_writer_clear(struct tt_writer *w)
{
    tt_footer_free(w->footer);
    tt_footer_free(w->ended);
    w->footer = w->ended = NULL;
}
