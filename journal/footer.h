/*
 * What the writer remembers of the segment it is filling
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_FOOTER_H
#define TTJOURNAL_FOOTER_H

#include <ttjournal/ttjournal.h>

struct tt_footer {
    uint64_t segment;
    uint64_t segment_offset;
    uint64_t first_seq, last_seq, epoch;
    int64_t first_time, last_time;
    uint64_t end_offset, last_chain, max_disk_length;
    uint64_t first_leaf, leaf_count;
    bool incomplete; /* memory ran out: no footer for this segment */
    bool sorted;
    struct tt_footer_entry *entries;
    size_t count, room;
    tt_le64 *sums; /* of all entries, in order of sequence */
    size_t sum_count, sum_room;
};

struct tt_footer *tt_footer_new(uint64_t segment, uint64_t segment_offset,
                                const struct tt_frame *first);
/*
 * The part @part of @parts, if it holds the entries [@first, @first + @count),
 * of which there are so many: where it is cut is its writer's choice.  The
 * caller frees it; NULL: no memory.
 */
uint8_t *tt_footer_span(struct tt_footer *ft, size_t first, size_t count,
                        uint32_t part, uint32_t parts, uint32_t *ret_length);
/* Which entry has the place and the sequence of @entry?  False if none has. */
bool tt_footer_find(struct tt_footer *ft, const uint8_t *entry,
                    size_t *ret_index);
/* Adds what @f holds; false if memory ran out, and the footer is given up. */
bool tt_footer_add_frame(struct tt_footer *ft, const struct tt_frame *f,
                         const uint8_t *table);

#endif
