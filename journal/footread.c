/*
 * Reading footers: see footread.h
 *
 * A footer's bytes fit their checksums, but nobody has looked at what they
 * say: entries are held to the limits of records here.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "footread.h"

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
        .last_time = (int64_t)tt_get64(b.last_time),
        .part = tt_get32(b.part),
        .part_count = tt_get32(b.part_count),
        .entry_count = tt_get32(b.entry_count),
        .checksum_count = tt_get32(b.checksum_count),
        .entries = body + need,
    };
    need += (uint64_t)ret->entry_count * sizeof(struct tt_footer_entry);
    ret->checksums = body + need;
    need += (uint64_t)ret->checksum_count * sizeof(tt_le64);
    if (need > length || !ret->first_seq || ret->last_seq < ret->first_seq ||
        ret->segment >= TT_DISK_SIZE_MAX / super->segment_size) {
        return false;
    }
    ret->segment_offset = tt_segment_offset(super, ret->segment);
    return true;
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
    if (p->disk_offset % TT_SECTOR || p->disk_length % TT_SECTOR ||
        p->disk_length > max || p->disk_offset > TT_DISK_SIZE_MAX) {
        return false;
    }
    return p->kind == TT_KIND_RESIZE ||
           (p->disk_length &&
            p->disk_offset <= TT_DISK_SIZE_MAX - p->disk_length);
}

bool tt_footer_entry(const struct tt_super *super,
                     const struct footer_part *part, uint32_t i,
                     struct placed *ret)
{
    struct tt_footer_entry e;
    uint32_t at, first, pieces;

    memcpy(&e, part->entries + (size_t)i * sizeof(e), sizeof(e));
    *ret = (struct placed){
        .seq = part->first_seq + tt_get32(e.seq),
        .time = (int64_t)tt_get64(e.time),
        .disk_offset = tt_get64(e.disk_offset),
        .disk_length = tt_get64(e.disk_length),
        .kind = tt_get16(e.kind),
        .flags = tt_get16(e.flags),
    };
    if (ret->seq > part->last_seq || !range_within_limits(ret)) {
        return false;
    }
    if (!has_payload(ret->kind, ret->flags)) {
        return true;
    }
    at = tt_get32(e.payload_offset);
    first = tt_get32(e.first_checksum);
    pieces = tt_grid_pieces(ret->disk_offset, ret->disk_length);
    if (!at || at % TT_SECTOR || at > super->segment_size ||
        ret->disk_length > super->segment_size - at ||
        first > part->checksum_count || pieces > part->checksum_count - first) {
        return false;
    }
    ret->payload = part->segment_offset + at;
    ret->sums = (const tt_le64 *)(part->checksums + first * sizeof(tt_le64));
    return true;
}
