/*
 * Versions that are in the journal and not yet on the disk
 *
 * The journal is the disk's write-ahead log: a write is acknowledged when its
 * frame is in the journal, and brought to the disk later, from the same bytes.
 * Meanwhile it is pending.  A version's way, which only goes forward:
 *
 *   added       its frame is complete in the journal; reads see it;
 *   durable     a flush of the journal covers it; it may go to the disk;
 *   in flight   a request of tt_pending_take() has it;
 *   gone        it is on the disk, or newer durable ones are in all its places.
 *
 * Invariants:
 *   - what take() hands out is durable, the newest durable version of its
 *     range, and overlaps nothing that is in flight;
 *   - a range replaced by a newer version counts as level only once that or a
 *     still newer one is on the disk.
 *
 * No I/O, no clock, no locks: the caller keeps two calls from running at once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_PENDING_H
#define TTJOURNAL_PENDING_H

#include "ttjournal.h"

struct tt_pending;

/* Bytes of one request that take() makes of neighbours, and its parts */
#define TT_WRITEBACK_MAX TT_MIB
#define TT_WRITEBACK_PARTS 128

/*
 * @release is called once for the owner of each version that was added, when
 * nothing refers to its bytes any more (from within any call below).
 */
struct tt_pending *tt_pending_new(void (*release)(void *owner));
/* Releases everything that is left. Nothing may be in flight. */
void tt_pending_free(struct tt_pending *p);

/*
 * A WRITE or ZERO whose frame is complete.  @data are its bytes, NULL for a
 * ZERO; they do not change and live until @owner is released.  Sequence
 * numbers only grow.  False: out of memory, and nothing has changed.
 */
bool tt_pending_add(struct tt_pending *p, uint64_t seq, uint16_t kind,
                    uint16_t flags, uint64_t offset, uint64_t length,
                    const uint8_t *data, void *owner);

/* The journal is durable up to @seq. */
void tt_pending_durable(struct tt_pending *p, uint64_t seq);

/*
 * What a read of [offset, offset + length) finds first: true if @offset is
 * pending, and *ret_data are its newest bytes (NULL: zeroes).  *ret_run: how
 * far this goes, at most @length; if not pending, how far nothing is.
 */
bool tt_pending_read(const struct tt_pending *p, uint64_t offset,
                     uint64_t length, const uint8_t **ret_data,
                     uint64_t *ret_run);

/* Lengths of the versions: each counts whole until it is released, a ZERO
 * too. */
uint64_t tt_pending_bytes(const struct tt_pending *p);
/*
 * What a version at [offset, offset + length) may need of the journal before
 * it can go to the disk, if none of its blocks was ever captured: pre-images of
 * whole blocks, and their share of frames.
 */
uint64_t tt_pending_capture(uint64_t offset, uint64_t length);
/* The same for all that is pending */
uint64_t tt_pending_captures(const struct tt_pending *p);
/* Is anything pending at all, in flight or not durable? */
bool tt_pending_empty(const struct tt_pending *p);
/* Bytes that are not durable yet, and the newest sequence among them, or 0 */
uint64_t tt_pending_undurable(const struct tt_pending *p, uint64_t *ret_last);
/* The oldest sequence number that is not level (0: all is). */
uint64_t tt_pending_oldest(const struct tt_pending *p);

/* One request to the disk. Parts are adjacent; a ZERO has none. */
struct tt_writeback {
    uint16_t kind;  /* TT_KIND_WRITE or TT_KIND_ZERO */
    uint16_t flags; /* of the ZERO */
    uint64_t offset, length;
    unsigned part_count;
    struct {
        const uint8_t *data;
        uint64_t length;
    } parts[TT_WRITEBACK_PARTS];
    void *in_flight; /* for tt_pending alone */
};

/*
 * Takes what has been unlevel longest and is durable, with neighbours that
 * can be written by the same request, of at most TT_WRITEBACK_MAX bytes.
 * False if there is nothing (that does not overlap what is in flight).
 */
bool tt_pending_take(struct tt_pending *p, struct tt_writeback *ret);
/* It is on the disk (in its cache; level counts once a flush covers it). */
void tt_pending_written(struct tt_pending *p, struct tt_writeback *w);
/* The disk refused it: it is pending as before, behind newer ones of its
 * places that have become durable meanwhile. */
void tt_pending_refused(struct tt_pending *p, struct tt_writeback *w);

/*
 * The largest sequence such that every version up to it, or a newer one over
 * it, is on the disk; @last if nothing is pending.  Taken before a flush of
 * the disk is issued, it is what that flush makes level.
 */
uint64_t tt_pending_level(const struct tt_pending *p, uint64_t last);

/* The disk ends at @size now: what lies behind it is gone.  Nothing that
 * reaches there is in flight. */
void tt_pending_trim(struct tt_pending *p, uint64_t size);

#endif
