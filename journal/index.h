/*
 * Versions of the disk, found by place and sequence number
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_INDEX_H
#define TTJOURNAL_INDEX_H

#include <ttjournal/ttjournal.h>

/* Classes of pieces: 512 bytes << class, up to the largest disk */
#define INDEX_CLASSES 54u

/* A piece of a record's range.  Its length is that of its class. */
struct version {
    uint64_t start;        /* on the disk, a multiple of the piece's length */
    uint64_t seq;          /* of the record that holds it */
    uint64_t frame_offset; /* of that record's frame; 0: only a footer knows */
    uint32_t record_index; /* in the frame's table */
    uint32_t zero;         /* not 0: it reads as zeroes */
};

struct tier;

/* Zeroed is empty. */
struct index {
    struct tier *tiers[INDEX_CLASSES]; /* NULL: no version of that class */
    uint64_t used;                     /* bit c: tiers[c] is not NULL */
};

/* What a look-up found at a place. */
struct index_hit {
    const struct version *version; /* NULL: none */
    uint64_t end;                  /* the answer holds up to here, at least */
};

void tt_index_clear(struct index *x);

/* Adds @v for [offset, offset + length); v->start is ignored. */
bool tt_index_add(struct index *x, uint64_t offset, uint64_t length,
                  const struct version *v);

/* The version of the byte at @at with the largest seq that is <= @seq. */
void tt_index_newest(const struct index *x, uint64_t at, uint64_t seq,
                     struct index_hit *ret);

/* The version of the byte at @at with the smallest seq. */
void tt_index_oldest(const struct index *x, uint64_t at, struct index_hit *ret);

/* Merges all runs: after a load, look-ups should search few. */
bool tt_index_compact(struct index *x);

#endif
