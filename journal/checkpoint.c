/*
 * The body of a CHECKPOINT: how far is the disk, and which blocks need no
 * PREIMAGE any more?
 *
 * The map of captured blocks is a chain: each CHECKPOINT names the ranges
 * that were added since the one at map_prev, and the first of a chain begins
 * with an empty map.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

#define FIXED ((uint32_t)sizeof(struct tt_checkpoint_body))
#define RANGE ((uint32_t)sizeof(struct tt_range))
#define RANGES_MAX ((uint32_t)((TT_PAYLOAD_RECORD_MAX - FIXED) / RANGE))

/* How many ranges of @b one body takes; *ret_more: not all. */
static uint32_t count_ranges(const struct tt_blocks *b, bool *ret_more)
{
    uint32_t count = 0;
    uint64_t at = tt_blocks_next(b, 0), run;

    while (at != UINT64_MAX && count < RANGES_MAX) {
        tt_blocks_test(b, at, UINT64_MAX - at, &run);
        count++;
        at = tt_blocks_next(b, at + run);
    }
    *ret_more = at != UINT64_MAX;
    return count;
}

uint8_t *tt_checkpoint_encode(const struct tt_checkpoint *c,
                              const struct tt_blocks *unmapped,
                              uint32_t *ret_length, bool *ret_more)
{
    uint32_t count = count_ranges(unmapped, ret_more);
    struct tt_checkpoint_body body = {
        .level_seq = tt_put64(c->level_seq),
        .map_prev = tt_put64(c->map_prev),
        .disk_inode = tt_put64(c->disk_inode),
        .disk_mtime = tt_put64((uint64_t)c->disk_mtime),
        .flags = tt_put32((c->clean ? TT_CHECKPOINT_CLEAN : 0) |
                          (c->has_stat ? TT_CHECKPOINT_HAS_STAT : 0)),
        .range_count = tt_put32(count),
    };
    uint8_t *buf = malloc(FIXED + (size_t)count * RANGE), *p = buf;
    uint64_t at = 0, run;

    if (!buf) {
        return NULL;
    }
    memcpy(p, &body, FIXED);
    p += FIXED;
    for (uint32_t i = 0; i < count; i++) {
        struct tt_range range;

        at = tt_blocks_next(unmapped, at);
        tt_blocks_test(unmapped, at, UINT64_MAX - at, &run);
        range.offset = tt_put64(at);
        range.length = tt_put64(run);
        memcpy(p, &range, RANGE);
        p += RANGE;
        at += run;
    }
    *ret_length = (uint32_t)(p - buf);
    return buf;
}

uint32_t tt_checkpoint_done(const uint8_t *body, struct tt_blocks *unmapped)
{
    struct tt_checkpoint_body cp;
    uint32_t count;

    memcpy(&cp, body, FIXED);
    count = tt_get32(cp.range_count);
    for (uint32_t i = 0; i < count; i++) {
        struct tt_range range;

        memcpy(&range, body + FIXED + (size_t)i * RANGE, RANGE);
        tt_blocks_remove(unmapped, tt_get64(range.offset),
                         tt_get64(range.length));
    }
    return count;
}
