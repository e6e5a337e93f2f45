/*
 * Frames: when is what lies at this place a frame of this journal?
 *
 * A frame is VALID if and only if its header's checksum, the journal's UUID,
 * its own offset and every limit fit, and its table has the checksum that the
 * header names and only descriptors within the limits.  It is WHOLE if the
 * payload fits the descriptors' checksums too.  Guest data can look like a
 * frame, but a guest does not know the journal's salt.
 *
 * Everything here works on memory that may hold anything: each value is
 * checked before it is used in arithmetic.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

#define HEADER sizeof(struct tt_frame_header)
#define DESC sizeof(struct tt_record_header)

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

const char *tt_kind_name(uint16_t kind)
{
    switch (kind) {
#define X(value, name, text, about)                                            \
    case value:                                                                \
        return text;
        TT_RECORD_KINDS(X)
#undef X
    }
    return NULL;
}

bool tt_kind_is_version(uint16_t kind)
{
    return kind == TT_KIND_WRITE || kind == TT_KIND_ZERO ||
           kind == TT_KIND_PREIMAGE;
}

bool tt_kind_is_notable(uint16_t kind)
{
    return kind == TT_KIND_MARK || kind == TT_KIND_GAP ||
           kind == TT_KIND_DAMAGE || kind == TT_KIND_RESIZE ||
           kind == TT_KIND_BASE || kind == TT_KIND_PRUNE;
}

uint64_t tt_grid_origin(const struct tt_record *rec)
{
    return tt_kind_is_version(rec->kind) ? rec->disk_offset : 0;
}

static void decode_header(const struct tt_frame_header *h, struct tt_frame *f)
{
    *f = (struct tt_frame){
        .offset = tt_get64(h->offset),
        .segment = tt_get64(h->segment),
        .prev_offset = tt_get64(h->prev_offset),
        .chain = tt_get64(h->chain),
        .session = tt_get64(h->session),
        .session_nonce = tt_get64(h->session_nonce),
        .session_first_seq = tt_get64(h->session_first_seq),
        .epoch = tt_get64(h->epoch),
        .first_seq = tt_get64(h->first_seq),
        .durable_seq = tt_get64(h->durable_seq),
        .first_time = (int64_t)tt_get64(h->first_time),
        .last_time = (int64_t)tt_get64(h->last_time),
        .boottime = tt_get64(h->boottime),
        .checkpoint_offset = tt_get64(h->checkpoint_offset),
        .disk_size = tt_get64(h->disk_size),
        .first_leaf = tt_get64(h->first_leaf),
        .session_offset = tt_get64(h->session_offset),
        .epoch_offset = tt_get64(h->epoch_offset),
        .notable_offset = tt_get64(h->notable_offset),
        .footer_offset = tt_get64(h->footer_offset),
        .first_live_segment = tt_get64(h->first_live_segment),
        .alignment = tt_get32(h->alignment),
        .flags = tt_get32(h->flags),
        .record_count = tt_get32(h->record_count),
        .table_length = tt_get32(h->table_length),
        .payload_offset = tt_get32(h->payload_offset),
        .length = tt_get32(h->frame_length),
        .table_checksum = tt_get64(h->table_checksum),
        .own_chain = tt_checksum(h, HEADER),
    };
}

/* Limits and places, once the checksum says that a writer wrote this. */
static bool header_within_limits(const struct tt_super *super,
                                 const struct tt_frame *f)
{
    uint32_t align = f->alignment;
    uint64_t segment_start, segment_end;

    if (align < super->alignment || align > TT_ALIGNMENT_MAX ||
        (align & (align - 1)) || f->offset % align ||
        f->segment > (UINT64_MAX >> 1) / super->segment_size) {
        return false;
    }
    segment_start = tt_segment_offset(super, f->segment);
    segment_end = segment_start + super->segment_size;
    if (f->length > TT_FRAME_MAX || f->length % align ||
        f->offset < segment_start || f->offset >= segment_end ||
        f->length > segment_end - f->offset) {
        return false;
    }
    if (!!(f->flags & TT_FRAME_SEGMENT_START) != (f->offset == segment_start) ||
        (f->flags & ~(TT_FRAME_FLAGS_KNOWN | TT_FRAME_FLAGS_OPTIONAL))) {
        return false;
    }
    if (!f->record_count || f->table_length > TT_HEAD_MAX - HEADER ||
        f->record_count > f->table_length / DESC ||
        f->payload_offset != round_up(HEADER + f->table_length, align) ||
        f->payload_offset > f->length) {
        return false;
    }
    return f->first_seq && f->first_seq <= UINT64_MAX / 2 && f->session &&
           f->session <= UINT64_MAX / 2 && f->session_first_seq &&
           f->session_first_seq <= f->first_seq &&
           f->durable_seq < f->first_seq && f->prev_offset < f->offset &&
           f->checkpoint_offset < f->offset && f->session_offset <= f->offset &&
           f->epoch_offset <= f->offset && f->notable_offset < f->offset &&
           f->footer_offset < f->offset &&
           f->first_live_segment <= f->segment &&
           f->first_time <= f->last_time && f->disk_size <= TT_DISK_SIZE_MAX &&
           f->disk_size % TT_SECTOR == 0;
}

bool tt_frame_decode(const struct tt_super *super, uint64_t offset,
                     const uint8_t buf[static sizeof(struct tt_frame_header)],
                     struct tt_frame *ret_frame)
{
    struct tt_frame_header h;

    if (memcmp(buf, TT_FRAME_MAGIC, TT_MAGIC_SIZE)) {
        return false;
    }
    memcpy(&h, buf, HEADER);
    if (tt_get64(h.header_checksum) !=
            tt_checksum(&h,
                        offsetof(struct tt_frame_header, header_checksum)) ||
        memcmp(h.uuid, super->uuid, TT_UUID_SIZE) ||
        tt_get64(h.salt) != super->salt || tt_get64(h.offset) != offset ||
        tt_get64(h.segment_size) != super->segment_size) {
        return false;
    }
    decode_header(&h, ret_frame);
    return header_within_limits(super, ret_frame);
}

/* ---- the table --------------------------------------------------------- */

static bool version_within_limits(const struct tt_record *r)
{
    uint64_t max = r->kind == TT_KIND_WRITE      ? TT_PAYLOAD_RECORD_MAX
                   : r->kind == TT_KIND_ZERO     ? TT_ZERO_RECORD_MAX
                   : r->flags & TT_RECORD_ZEROES ? TT_PREIMAGE_ZERO_MAX
                                                 : TT_PAYLOAD_RECORD_MAX;
    bool has_payload =
        r->kind == TT_KIND_WRITE ||
        (r->kind == TT_KIND_PREIMAGE && !(r->flags & TT_RECORD_ZEROES));

    return r->disk_length && r->disk_length <= max &&
           r->disk_offset <= TT_DISK_SIZE_MAX - r->disk_length &&
           r->disk_offset % TT_SECTOR == 0 && r->disk_length % TT_SECTOR == 0 &&
           !r->body &&
           (has_payload ? r->payload_length == r->disk_length
                        : !r->payload_length && !r->payload_offset);
}

static bool payload_within_frame(const struct tt_frame *f,
                                 const struct tt_record *r)
{
    if (r->body || !r->payload_length) {
        return r->checksum_count == 0 && r->payload_offset == 0;
    }
    return r->payload_length <= TT_PAYLOAD_RECORD_MAX &&
           r->payload_offset >= f->payload_offset &&
           r->payload_offset <= f->length &&
           r->payload_length <= f->length - r->payload_offset &&
           r->checksum_count ==
               tt_grid_pieces(tt_grid_origin(r), r->payload_length);
}

static bool record_within_limits(const struct tt_frame *f,
                                 const struct tt_record *r)
{
    if (!tt_kind_name(r->kind) && r->kind < TT_KIND_OPTIONAL) {
        return false;
    }
    if ((r->flags & ~(TT_RECORD_FLAGS_KNOWN | TT_RECORD_FLAGS_OPTIONAL)) ||
        r->time < f->first_time || r->time > f->last_time) {
        return false;
    }
    if (tt_kind_is_version(r->kind) && !version_within_limits(r)) {
        return false;
    }
    if (r->kind == TT_KIND_RESIZE &&
        (r->disk_offset > TT_DISK_SIZE_MAX || r->disk_offset % TT_SECTOR ||
         r->disk_length > TT_DISK_SIZE_MAX || r->disk_length % TT_SECTOR)) {
        return false;
    }
    return payload_within_frame(f, r);
}

/* Decodes the descriptor at @pos; false if it does not fit the table. */
static bool decode_record(const struct tt_frame *f, const uint8_t *table,
                          uint32_t pos, uint32_t index, struct tt_record *r,
                          uint32_t *ret_length)
{
    struct tt_record_header h;
    uint32_t length, sums, body;

    if (f->table_length - pos < DESC) {
        return false;
    }
    memcpy(&h, table + pos, DESC);
    length = tt_get32(h.length);
    sums = tt_get32(h.checksum_count);
    if (length < DESC || length % 8 || length > f->table_length - pos ||
        sums > (length - DESC) / sizeof(tt_le64) || tt_get16(h.compression) ||
        tt_get16(h.reserved)) {
        return false;
    }
    *r = (struct tt_record){
        .seq = f->first_seq + index,
        .kind = tt_get16(h.kind),
        .flags = tt_get16(h.flags),
        .time = (int64_t)tt_get64(h.time),
        .disk_offset = tt_get64(h.disk_offset),
        .disk_length = tt_get64(h.disk_length),
        .payload_offset = tt_get32(h.payload_offset),
        .payload_length = tt_get32(h.payload_length),
        .checksum_count = sums,
        .checksums = (const tt_le64 *)(table + pos + DESC),
    };
    body = length - DESC - sums * (uint32_t)sizeof(tt_le64);
    if (r->flags & TT_RECORD_INLINE) {
        if (r->payload_length > body ||
            round_up(r->payload_length, 8) != body) {
            return false;
        }
        r->body = table + pos + DESC + sums * sizeof(tt_le64);
    } else if (body) {
        return false;
    }
    *ret_length = length;
    return true;
}

bool tt_table_next(const struct tt_frame *f, const uint8_t *table,
                   uint32_t *pos, uint32_t *index, struct tt_record *ret_rec)
{
    uint32_t length;

    if (*index >= f->record_count ||
        !decode_record(f, table, *pos, *index, ret_rec, &length)) {
        return false;
    }
    *pos += length;
    (*index)++;
    return true;
}

bool tt_table_check(const struct tt_frame *f, const uint8_t *table)
{
    uint32_t pos = 0, index = 0;
    int64_t time = f->first_time;
    uint64_t payload = f->payload_offset;
    struct tt_record r;

    if (tt_checksum(table, f->table_length) != f->table_checksum) {
        return false;
    }
    while (tt_table_next(f, table, &pos, &index, &r)) {
        if (!record_within_limits(f, &r) || r.time < time) {
            return false;
        }
        time = r.time;
        /* Payloads lie back to back, so every byte has one owner. */
        if (r.payload_offset) {
            if (r.payload_offset != payload ||
                (tt_kind_is_version(r.kind) && payload % TT_SECTOR)) {
                return false;
            }
            payload += r.payload_length;
        }
    }
    return index == f->record_count && pos == f->table_length &&
           time == f->last_time && round_up(payload, f->alignment) == f->length;
}

bool tt_payload_check(const struct tt_record *rec, const uint8_t *payload,
                      uint32_t *ret_bad)
{
    uint64_t offset = tt_grid_origin(rec), left = rec->payload_length;

    for (uint32_t i = 0; i < rec->checksum_count; i++) {
        uint64_t piece = TT_GRID - offset % TT_GRID;

        if (piece > left) {
            piece = left;
        }
        if (tt_checksum(payload, piece) != tt_get64(rec->checksums[i])) {
            if (ret_bad) {
                *ret_bad = i;
            }
            return false;
        }
        payload += piece;
        offset += piece;
        left -= piece;
    }
    return true;
}

int tt_frame_read(const struct tt_super *super, const struct tt_source *src,
                  uint64_t offset, uint8_t *buf, struct tt_frame *ret_frame,
                  struct tt_error *err)
{
    /* Most tables fit in what is read at first; the rest is a second read. */
    size_t first = TT_ALIGNMENT_MIN, need;
    int ret;

    if (offset >= src->size || src->size - offset < first) {
        return 0;
    }
    ret = src->read(src->opaque, offset, buf, first);
    if (ret >= 0) {
        if (!tt_frame_decode(super, offset, buf, ret_frame)) {
            return 0;
        }
        need = HEADER + ret_frame->table_length;
        if (need > src->size - offset) {
            return 0;
        }
        if (need > first) {
            ret = src->read(src->opaque, offset + first, buf + first,
                            need - first);
        }
    }
    if (ret < 0) {
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    return tt_table_check(ret_frame, buf + HEADER);
}

/* The session goes on, or a later one begins with this frame. */
static bool session_links(const struct tt_frame *prev,
                          const struct tt_frame *next)
{
    if (next->session == prev->session) {
        return next->session_nonce == prev->session_nonce &&
               next->session_first_seq == prev->session_first_seq &&
               !(next->flags & TT_FRAME_SESSION_START);
    }
    return next->session > prev->session &&
           next->session_first_seq == next->first_seq &&
           (next->flags & TT_FRAME_SESSION_START);
}

/* The clock epoch goes on, or the next one begins with this frame. */
static bool epoch_links(const struct tt_frame *prev,
                        const struct tt_frame *next)
{
    if (next->epoch == prev->epoch) {
        return next->first_time >= prev->last_time &&
               !(next->flags & TT_FRAME_EPOCH_START);
    }
    return next->epoch == prev->epoch + 1 &&
           (next->flags & TT_FRAME_EPOCH_START) &&
           (next->flags & TT_FRAME_SEGMENT_START);
}

bool tt_frame_links(const struct tt_frame *prev, const struct tt_frame *next)
{
    if (!prev) {
        return next->first_seq == 1 && !next->prev_offset && !next->chain &&
               (next->flags & TT_FRAME_SESSION_START) &&
               (next->flags & TT_FRAME_EPOCH_START);
    }
    return next->prev_offset == prev->offset &&
           next->chain == prev->own_chain &&
           next->first_seq == tt_frame_last_seq(prev) + 1 &&
           next->durable_seq >= prev->durable_seq &&
           ((next->flags & TT_FRAME_SEGMENT_START) ||
            next->alignment == prev->alignment) &&
           session_links(prev, next) && epoch_links(prev, next);
}
