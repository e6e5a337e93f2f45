/*
 * Reading footers: what did a segment hold?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_FOOTREAD_H
#define TTJOURNAL_FOOTREAD_H

#include <ttjournal/ttjournal.h>

/* A WRITE, ZERO, PREIMAGE or RESIZE, and where its bytes are. */
struct placed {
    uint64_t seq;
    int64_t time;
    uint64_t disk_offset, disk_length; /* RESIZE: old size, new size */
    uint64_t payload;    /* in the journal; 0: no bytes are stored */
    const tt_le64 *sums; /* of the bytes' cells */
    uint16_t kind, flags;
};

/* As RESIZE it makes the disk longer by what reads as zeroes. */
static inline bool placed_is_growth(const struct placed *p)
{
    return p->kind == TT_KIND_RESIZE && p->disk_length > p->disk_offset;
}

/* A FOOTER's body, whose parts were checked to fit into it. */
struct footer_part {
    uint64_t segment, segment_offset;
    uint64_t first_seq, last_seq, epoch, end_offset, last_chain;
    int64_t last_time;
    uint32_t part, part_count;
    uint32_t entry_count, checksum_count;
    const uint8_t *entries, *checksums;
};

bool tt_footer_parse(const struct tt_super *super, const uint8_t *body,
                     uint32_t length, struct footer_part *ret);

/* False if entry @i is beyond the limits of records. */
bool tt_footer_entry(const struct tt_super *super,
                     const struct footer_part *part, uint32_t i,
                     struct placed *ret);

#endif
