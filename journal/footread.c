/*
 * Reading footers: see footread.h
 *
 * A footer's bytes fit their checksums, but nobody has looked at what they
 * say: frames and entries are held to the limits of records here, and to each
 * other.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "footread.h"

#define HEADER sizeof(struct tt_frame_header)

void tt_footer_times(const struct footer_part *part, uint32_t i,
                     struct footer_times *ret)
{
    struct tt_footer_frame f, before;

    memcpy(&f, part->frames + (size_t)i * sizeof(f), sizeof(f));
    *ret = (struct footer_times){
        .seq = part->first_seq + tt_get32(f.seq),
        .offset = part->segment_offset + tt_get32(f.offset),
        .time = (int64_t)tt_get64(f.time),
        .begins_frame = true,
    };
    if (i) {
        memcpy(&before, part->frames + (size_t)(i - 1) * sizeof(f), sizeof(f));
        ret->begins_frame = tt_get32(f.offset) != tt_get32(before.offset);
    }
}

static bool follows(const struct footer_times *t,
                    const struct footer_times *before)
{
    return t->seq > before->seq && t->offset >= before->offset &&
           t->time >= before->time &&
           (t->begins_frame || t->time != before->time);
}

static bool frames_in_order(const struct tt_super *super,
                            const struct footer_part *part)
{
    uint64_t end = part->segment_offset + super->segment_size;
    struct footer_times t, before = { 0 };

    for (uint32_t i = 0; i < part->frame_count; i++) {
        tt_footer_times(part, i, &t);
        if (t.seq > part->last_seq || t.time < part->first_time ||
            t.time > part->last_time || t.offset % TT_SECTOR ||
            t.offset + HEADER > end) {
            return false;
        }
        /* the first frame has the first record, and no other frame has it */
        if (i ? !follows(&t, &before)
              : (t.seq == part->first_seq) !=
                    (t.offset == part->segment_offset)) {
            return false;
        }
        before = t;
    }
    return true;
}

bool tt_footer_parse(const struct tt_super *super, const uint8_t *body,
                     uint32_t length, struct footer_part *ret)
{
    struct tt_footer_body b;
    uint64_t need = sizeof(b);

    if (length < need) {
        return false;
    }
    memcpy(&b, body, sizeof(b));
    *ret = (struct footer_part){
        .segment = tt_get64(b.segment),
        .first_seq = tt_get64(b.first_seq),
        .last_seq = tt_get64(b.last_seq),
        .epoch = tt_get64(b.epoch),
        .end_offset = tt_get64(b.end_offset),
        .last_chain = tt_get64(b.last_chain),
        .first_time = (int64_t)tt_get64(b.first_time),
        .last_time = (int64_t)tt_get64(b.last_time),
        .part = tt_get32(b.part),
        .part_count = tt_get32(b.part_count),
        .frame_count = tt_get32(b.frame_count),
        .entry_count = tt_get32(b.entry_count),
        .checksum_count = tt_get32(b.checksum_count),
        .frames = body + need,
    };
    need += (uint64_t)ret->frame_count * sizeof(struct tt_footer_frame);
    if (need > length) {
        return false;
    }
    ret->entries = body + need;
    need += (uint64_t)ret->entry_count * sizeof(struct tt_footer_entry);
    if (need > length) {
        return false;
    }
    ret->checksums = body + need;
    need += (uint64_t)ret->checksum_count * sizeof(tt_le64);
    if (need > length || !ret->first_seq || ret->last_seq > INT64_MAX ||
        ret->last_seq < ret->first_seq ||
        ret->segment >= TT_DISK_SIZE_MAX / super->segment_size) {
        return false;
    }
    ret->segment_offset = tt_segment_offset(super, ret->segment);
    return frames_in_order(super, ret);
}

/* Does a record of @kind with these @flags store bytes? */
static bool has_payload(uint16_t kind, uint16_t flags)
{
    return kind == TT_KIND_WRITE ||
           (kind == TT_KIND_PREIMAGE && !(flags & TT_RECORD_ZEROES));
}

static bool range_within_limits(const struct placed *p)
{
    uint64_t max = p->kind == TT_KIND_RESIZE        ? TT_DISK_SIZE_MAX
                   : p->kind == TT_KIND_ZERO        ? TT_ZERO_RECORD_MAX
                   : has_payload(p->kind, p->flags) ? TT_PAYLOAD_RECORD_MAX
                                                    : TT_PREIMAGE_ZERO_MAX;

    if (!tt_kind_is_version(p->kind) && p->kind != TT_KIND_RESIZE) {
        return false;
    }
    if (p->disk_offset % TT_SECTOR || p->disk_length > max ||
        p->disk_offset > TT_DISK_SIZE_MAX) {
        return false;
    }
    return p->kind == TT_KIND_RESIZE ||
           (p->disk_length &&
            p->disk_offset <= TT_DISK_SIZE_MAX - p->disk_length);
}

static uint32_t seq_at(const struct footer_part *part, uint32_t i)
{
    tt_le32 seq;

    memcpy(&seq, part->frames + (size_t)i * sizeof(struct tt_footer_frame),
           sizeof(seq));
    return tt_get32(seq);
}

static uint32_t offset_at(const struct footer_part *part, uint32_t i)
{
    tt_le32 offset;

    memcpy(&offset,
           part->frames + (size_t)i * sizeof(struct tt_footer_frame) +
               offsetof(struct tt_footer_frame, offset),
           sizeof(offset));
    return tt_get32(offset);
}

/* The first that is of a later frame than that at @i, or how many there are */
static uint32_t next_frame(const struct footer_part *part, uint32_t i)
{
    uint32_t offset = offset_at(part, i), low = i + 1, high = part->frame_count;

    /* most often it is the next one */
    while (low < high && offset_at(part, low) == offset) {
        uint32_t mid = low + (high - low) / 2;

        if (offset_at(part, mid) == offset) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/*
 * Finds the frame of the record @seq, counted from the segment's first, and its
 * time.  *ret_end: where the next frame begins that the part names, or the
 * segment ends.  Every entry comes here: an index is made of millions.
 */
static bool find_frame(const struct tt_super *super,
                       const struct footer_part *part, uint32_t seq,
                       struct footer_times *ret, uint64_t *ret_end)
{
    uint32_t i = 0, next;

    if (!part->frame_count || seq_at(part, 0) > seq) {
        return false;
    }
    for (uint32_t n = part->frame_count; n > 1; n -= n / 2) {
        i += seq_at(part, i + n / 2) <= seq ? n / 2 : 0;
    }
    tt_footer_times(part, i, ret);
    next = next_frame(part, i);
    *ret_end =
        part->segment_offset + (next < part->frame_count ? offset_at(part, next)
                                                         : super->segment_size);
    return true;
}

/* The bytes of @p begin @at behind the segment's start. */
static bool take_payload(struct footer_part *part, uint32_t at,
                         uint64_t frame_offset, uint64_t frame_end,
                         struct placed *p)
{
    uint32_t first = part->checksums_seen;
    uint32_t pieces = tt_grid_pieces(p->disk_offset, p->disk_length);

    p->payload = part->segment_offset + at;
    if (at % TT_SECTOR || p->payload < frame_offset + HEADER ||
        p->payload > frame_end || p->disk_length > frame_end - p->payload ||
        pieces > part->checksum_count - first) {
        return false;
    }
    p->sums =
        (const tt_le64 *)(part->checksums + (size_t)first * sizeof(tt_le64));
    part->checksums_seen += pieces;
    return true;
}

bool tt_footer_next(const struct tt_super *super, struct footer_part *part,
                    struct placed *ret)
{
    struct tt_footer_entry e;
    struct footer_times t;
    uint64_t sectors, end;
    uint32_t at;

    memcpy(&e, part->entries + (size_t)part->entries_seen++ * sizeof(e),
           sizeof(e));
    at = tt_get32(e.payload_offset);
    sectors = tt_get32(e.sectors);
    *ret = (struct placed){
        .seq = part->first_seq + tt_get32(e.seq),
        .disk_offset = tt_get64(e.disk_offset),
        .kind = e.kind,
        .flags = e.flags,
    };
    if (ret->kind == TT_KIND_RESIZE) {
        sectors |= (uint64_t)at << 32;
    }
    if (sectors > TT_DISK_SIZE_MAX / TT_SECTOR) {
        return false;
    }
    ret->disk_length = sectors * TT_SECTOR;
    if (ret->seq > part->last_seq || !range_within_limits(ret) ||
        !find_frame(super, part, tt_get32(e.seq), &t, &end)) {
        return false;
    }
    ret->time = t.time;
    return !has_payload(ret->kind, ret->flags) ||
           take_payload(part, at, t.offset, end, ret);
}
