/*
 * Segments that need not be read: their footers say what they hold
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_SKIP_H
#define TTJOURNAL_SKIP_H

#include "footread.h"

/* A segment that can be skipped, if it has a footer. */
struct skip {
    const struct tt_super *super;
    const struct tt_source *src;
    struct tt_error *err;
    uint64_t segment;
    struct tt_frame head; /* its first frame */
    struct tt_frame next; /* that of the next segment */
    /* Frames that hold more than versions and flushes, in order */
    uint64_t *frames;
    size_t frame_count, frame_room;
    uint64_t checkpoint; /* one of them, or 0 */
};

/*
 * Sets a bit in @bits, from @first on, for each segment up to @last whose first
 * frame is history.  That of @last is, as the caller knows.
 */
int tt_skip_vouch(const struct tt_super *super, const struct tt_source *src,
                  uint64_t first, uint64_t last, uint8_t *bits,
                  struct tt_error *err);

/*
 * Are both segment starts where they should be, the first record @first_seq,
 * and all that is no version to be found by the short cuts?  1, 0, or a
 * negative code.  The caller calls tt_skip_clear().
 */
int tt_skip_look(struct skip *s, const struct tt_super *super,
                 const struct tt_source *src, uint64_t segment,
                 uint64_t first_seq, struct tt_error *err);
void tt_skip_clear(struct skip *s);

/*
 * Looks for the footer in the next segment and hands over its parts in order.
 * 1 if it is whole, 0 if not, or what part() returned if that is negative.
 * @body: TT_PAYLOAD_RECORD_MAX bytes to work with.
 */
typedef int skip_part_fn(void *opaque, struct footer_part *part);
int tt_skip_footer(const struct skip *s, uint8_t *body, skip_part_fn *part,
                   void *opaque);

#endif
