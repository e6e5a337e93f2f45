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
    uint64_t payload;     /* in the journal; 0: no bytes are stored */
    const tt_le64 *sums;  /* of the bytes' cells */
    uint16_t kind, flags; /* a footer has no optional flags */
};

/* As RESIZE it makes the disk longer by what reads as zeroes. */
static inline bool placed_is_growth(const struct placed *p)
{
    return p->kind == TT_KIND_RESIZE && p->disk_length > p->disk_offset;
}

/* Records of a frame that have one time, or all of them: see format.h */
struct footer_times {
    uint64_t seq;    /* the first of them */
    uint64_t offset; /* of the frame, in the journal */
    int64_t time;
    bool begins_frame; /* else it goes on with those before it */
};

/* A FOOTER's body, whose parts were checked to fit into it. */
struct footer_part {
    uint64_t segment, segment_offset;
    uint64_t first_seq, last_seq, epoch, end_offset, last_chain;
    int64_t first_time, last_time;
    uint32_t part, part_count;
    uint32_t frame_count, entry_count, checksum_count;
    const uint8_t *frames, *entries, *checksums;
    /* how many of them tt_footer_next() has gone by */
    uint32_t entries_seen, checksums_seen;
};

/* The frames it names are in order, and within the segment and its times. */
bool tt_footer_parse(const struct tt_super *super, const uint8_t *body,
                     uint32_t length, struct footer_part *ret);

void tt_footer_times(const struct footer_part *part, uint32_t i,
                     struct footer_times *ret);

/*
 * The next entry, of @entry_count; false if it is beyond the limits of records,
 * or cannot be in the frame that it should be in.
 */
bool tt_footer_next(const struct tt_super *super, struct footer_part *part,
                    struct placed *ret);

#endif
