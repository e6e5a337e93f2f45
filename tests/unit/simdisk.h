/*
 * A simulated medium: what is in the cache, and what is on the platter?
 *
 * Writes go to a cache, which is what every reader on the host sees.  A flush
 * makes durable what was complete when it was issued.  A power cut keeps of
 * each 512-byte sector what was durable or any version written since, each
 * sector on its own; kill -9 keeps the cache, but may leave the write that was
 * under way partial.  A failed flush leaves pages clean in the cache and
 * absent on the medium, as Linux does: later flushes skip them.
 *
 * All chance comes from one struct sim_world, so a seed reproduces a run; it
 * also counts the calls of all its media, and ends them all at the one at
 * which the world is to end.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef SIMDISK_H
#define SIMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ttjournal/ttjournal.h>

#define SIM_SECTOR 512u
/* What every call returns once the process was killed or the power is off */
#define SIM_CRASH (-512)

struct sim_world {
    uint64_t rng;
    uint64_t calls;    /* of writes, flushes and reads on all media */
    uint64_t crash_at; /* the call that does not return; 0: none does */
    bool crashed;
    uint64_t changes;      /* of those the writes and flushes */
    uint64_t crash_change; /* the one of them that does not return; 0: none */
    uint64_t fail_at;      /* the one of them that fails, 0: none does */
    int fail_errno;        /* with what: EIO, ENOSPC */
};

void sim_world_init(struct sim_world *w, uint64_t seed);
uint64_t sim_random(struct sim_world *w, uint64_t below); /* 0 … below-1 */
bool sim_chance(struct sim_world *w, unsigned percent);

struct sim_write;

struct simdisk {
    struct sim_world *world;
    uint64_t capacity; /* ENOSPC beyond it */
    uint64_t size;     /* where the last byte written ends */
    uint64_t durable_size;
    uint8_t *cache, *medium;
    struct sim_write *log; /* writes since the last flush, in order */
    size_t log_count, log_room;
    size_t flush_mark;               /* how many the flush under way covers */
    uint64_t bad_offset, bad_length; /* reading this range gives EIO */
};

void simdisk_init(struct simdisk *d, struct sim_world *w, uint64_t capacity);
void simdisk_clear(struct simdisk *d);

/* Each returns 0, a negative errno, or SIM_CRASH. */
int simdisk_read(struct simdisk *d, uint64_t offset, void *buf, size_t length);
int simdisk_write(struct simdisk *d, uint64_t offset, const void *buf,
                  size_t length);
int simdisk_flush(struct simdisk *d);
/* The two halves of a flush, for writes that complete in between. */
int simdisk_flush_issue(struct simdisk *d);
int simdisk_flush_complete(struct simdisk *d);

/* kill -9: the cache stays, the write under way may be partial. */
void simdisk_kill(struct simdisk *d);
/* Any subset of the sectors that no flush covered survives. */
void simdisk_power_cut(struct simdisk *d);
/* Only the first @bytes of the last write survive, and all before it. */
void simdisk_tear_last(struct simdisk *d, size_t bytes);

/* All survives but what the last writes put into this range. */
void simdisk_lose(struct simdisk *d, uint64_t offset, uint64_t length);

/* Behind everybody's back, on the medium and in the cache: rot. */
void simdisk_flip(struct simdisk *d, uint64_t offset, unsigned bit);
void simdisk_destroy(struct simdisk *d, uint64_t offset, size_t length);

struct tt_source simdisk_source(struct simdisk *d);

#endif
