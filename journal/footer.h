/*
 * What the writer remembers of the segment it is filling
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_FOOTER_H
#define TTJOURNAL_FOOTER_H

#include <ttjournal/ttjournal.h>

/* Records of a frame that have one time; a frame's are side by side. */
struct footer_stretch {
    uint32_t seq;    /* of the first of them, minus the segment's first_seq */
    uint32_t offset; /* of the frame, from the segment's start */
    int64_t time;
    uint32_t mark; /* of a frame's first: it is in the part with this mark */
};

struct footer_version {
    uint64_t disk_offset, disk_length; /* RESIZE: old size, new size */
    uint32_t seq;                      /* minus the segment's first_seq */
    uint32_t payload;                  /* from the segment's start; 0: none */
    uint32_t frame;                    /* its first stretch */
    uint32_t first_sum;
    uint16_t kind, flags;
};

struct tt_footer {
    uint64_t segment;
    uint64_t segment_offset;
    uint64_t first_seq, last_seq, epoch;
    int64_t first_time, last_time;
    uint64_t end_offset, last_chain, max_disk_length;
    uint64_t first_leaf, leaf_count;
    bool incomplete; /* memory ran out: no footer for this segment */
    bool sorted;
    struct footer_version *versions;
    size_t count, room;
    struct footer_stretch *stretches; /* of frames with versions, in order */
    size_t stretch_count, stretch_room;
    uint32_t mark; /* the last one that was used */
    size_t *cuts;  /* each part's first version; none: not cut yet */
    size_t cut_count, cut_room;
    tt_le64 *sums; /* of all entries, in order of sequence */
    size_t sum_count, sum_room;
};

struct tt_footer *tt_footer_new(uint64_t segment, uint64_t segment_offset,
                                const struct tt_frame *first);
/*
 * The part @part of @parts, if it holds the versions [@first, @first + @count),
 * of which there are so many: where it is cut is its writer's choice.  The
 * caller frees it; NULL: no memory.
 */
uint8_t *tt_footer_span(struct tt_footer *ft, size_t first, size_t count,
                        uint32_t part, uint32_t parts, uint32_t *ret_length);
/* Which version has the place and the sequence of @entry?  False if none has. */
bool tt_footer_find(struct tt_footer *ft, const uint8_t *entry,
                    size_t *ret_index);
/* Adds what @f holds; false if memory ran out, and the footer is given up. */
bool tt_footer_add_frame(struct tt_footer *ft, const struct tt_frame *f,
                         const uint8_t *table);

#endif
