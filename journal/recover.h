/*
 * Recovery: what the scan's records are gathered in
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_RECOVER_H
#define TTJOURNAL_RECOVER_H

#include <ttjournal/ttjournal.h>

#define HEADER sizeof(struct tt_frame_header)

struct accepted {
    struct tt_place place;
    uint64_t last_seq;
};

struct gather {
    const struct tt_super *super;
    const struct tt_source *src;
    struct tt_recovery *r;
    struct tt_error *err;
    uint8_t *head, *body;
    struct tt_redo *seen; /* above the level; RESIZE: its sizes */
    size_t seen_count, seen_room;
    struct accepted *frames; /* those that may not be durable, in order */
    size_t frame_count, frame_room;
    struct tt_place *captures; /* since the newest CHECKPOINT */
    size_t capture_count, capture_room;
    uint64_t checkpoint;     /* frame of the newest one */
    uint64_t damaged_to;     /* last sequence that is missing, or 0 */
    uint64_t checkpoint_seq; /* of the newest one */
    struct {
        uint64_t frame, session; /* 0: the frame before has none */
    } closer;                    /* of the open gap; see see_closer() */
    size_t damage_room, redo_room, sample_room, size_room;
    struct tt_blocks *covered; /* ranges with something newer */
};

/* The record's body, in memory until the next call; NULL: it is damaged. */
int tt_gather_body(struct gather *g, const struct tt_frame *f,
                   const struct tt_record *rec, const uint8_t **ret);

/* The fixed part of a CHECKPOINT, if its ranges fit behind it. */
bool tt_gather_checkpoint(const uint8_t *body, uint32_t length,
                          struct tt_checkpoint_body *ret);

/* tt_scan_ops.damage; @opaque is the struct gather. */
int tt_gather_damage(void *opaque, const struct tt_damage *d);
/* A DAMAGE record says that a session before us has found it. */
void tt_gather_damage_record(struct gather *g, const struct tt_record *rec);

/*
 * What a RESIZE gave to the disk needs no PREIMAGE.  Of the block that the old
 * end cut the front was there before: that one still needs it.
 */
bool tt_gather_born(const struct tt_record *rec, uint64_t *ret_offset,
                    uint64_t *ret_length);

bool tt_gather_is_open_gap(const uint8_t *body, uint32_t length);
/* Calls @add for each range of a GAP; for the whole disk if they are unknown.
 */
int tt_gather_gap_ranges(struct gather *g, const uint8_t *body, uint32_t length,
                         int (*add)(struct gather *g, uint64_t offset,
                                    uint64_t length));

/* After the scan: fills captured and unmapped (captured.c). */
int tt_gather_captured(struct gather *g);

#endif
