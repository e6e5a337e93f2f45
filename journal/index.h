/*
 * The tail's versions in memory, found by place and sequence number
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_INDEX_H
#define TTJOURNAL_INDEX_H

#include "piece.h"

/* A piece of a record's range.  Its length is that of its class. */
struct version {
    uint64_t start; /* on the disk, a multiple of the piece's length */
    uint64_t seq;   /* of the record that holds it */
    uint64_t place; /* of its bytes in the journal */
    uint32_t sum;   /* which checksum of those that are kept is its first */
    uint8_t cell;   /* see piece.h */
    uint8_t zero;   /* not 0: it reads as zeroes, and has no bytes */
};

struct tier;

/* Zeroed is empty. */
struct index {
    struct tier *tiers[PIECE_CLASSES]; /* NULL: no version of that class */
    uint64_t used;                     /* bit c: tiers[c] is not NULL */
};

/* What a look-up found at a place. */
struct index_hit {
    const struct version *version; /* NULL: none */
    unsigned piece_class;          /* of the version */
    uint64_t end;                  /* the answer holds up to here, at least */
};

void tt_index_clear(struct index *x);

/*
 * Adds @v for [offset, offset + length): place and sum are those of its first
 * byte, start and cell are ignored.
 */
bool tt_index_add(struct index *x, uint64_t offset, uint64_t length,
                  const struct version *v);

/* The version of the byte at @at with the largest seq that is <= @seq. */
void tt_index_newest(const struct index *x, uint64_t at, uint64_t seq,
                     struct index_hit *ret);

/* The version of the byte at @at with the smallest seq. */
void tt_index_oldest(const struct index *x, uint64_t at, struct index_hit *ret);

/* Merges all runs: after a load, look-ups should search few. */
bool tt_index_compact(struct index *x);

size_t tt_index_memory(const struct index *x);

#endif
