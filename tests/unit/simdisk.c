/*
 * A simulated medium: see simdisk.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "simdisk.h"

struct sim_write {
    uint64_t offset;
    size_t length;
    uint8_t *data;
    bool clean; /* a failed flush: no later flush writes it */
};

/* ---- chance ------------------------------------------------------------ */

void sim_world_init(struct sim_world *w, uint64_t seed)
{
    *w = (struct sim_world){ .rng = seed * 2 + 1, .fail_errno = EIO };
}

/* splitmix64: every seed is as good as any other */
uint64_t sim_random(struct sim_world *w, uint64_t below)
{
    uint64_t z = w->rng += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return below ? z % below : z;
}

bool sim_chance(struct sim_world *w, unsigned percent)
{
    return sim_random(w, 100) < percent;
}

/* What this call does: 0 go on, SIM_CRASH, or a negative errno. */
static int begin_call(struct sim_world *w)
{
    if (w->crashed) {
        return SIM_CRASH;
    }
    w->calls++;
    if (w->calls == w->crash_at) {
        w->crashed = true;
        return SIM_CRASH;
    }
    return 0;
}

static int begin_change(struct sim_world *w)
{
    int ret = begin_call(w);

    if (ret == 0) {
        w->changes++;
        if (w->changes == w->crash_change) {
            w->crashed = true;
            ret = SIM_CRASH;
        } else if (w->changes == w->fail_at) {
            ret = -w->fail_errno;
        }
    }
    return ret;
}

/* ---- the medium -------------------------------------------------------- */

void simdisk_init(struct simdisk *d, struct sim_world *w, uint64_t capacity)
{
    *d = (struct simdisk){ .world = w, .capacity = capacity };
    /* mapped, so that what is never touched costs nothing, in valgrind too */
    d->cache = mmap(NULL, capacity, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->medium = mmap(NULL, capacity, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(d->cache != MAP_FAILED && d->medium != MAP_FAILED);
}

static void drop_log(struct simdisk *d, size_t count)
{
    size_t left = d->log_count - count;

    for (size_t i = 0; i < count; i++) {
        free(d->log[i].data);
    }
    if (left) {
        memmove(d->log, d->log + count, left * sizeof(*d->log));
    }
    d->log_count = left;
}

void simdisk_clear(struct simdisk *d)
{
    drop_log(d, d->log_count);
    free(d->log);
    munmap(d->cache, d->capacity);
    munmap(d->medium, d->capacity);
    *d = (struct simdisk){ 0 };
}

int simdisk_read(struct simdisk *d, uint64_t offset, void *buf, size_t length)
{
    int ret = begin_call(d->world);

    assert(offset <= d->size && length <= d->size - offset);
    if (ret < 0) {
        return ret;
    }
    if (offset < d->bad_offset + d->bad_length &&
        d->bad_offset < offset + length) {
        return -EIO;
    }
    memcpy(buf, d->cache + offset, length);
    return 0;
}

static void log_write(struct simdisk *d, uint64_t offset, const void *buf,
                      size_t length)
{
    struct sim_write *w;

    if (!length) {
        return;
    }
    if (d->log_count == d->log_room) {
        d->log_room = d->log_room ? d->log_room * 2 : 32;
        d->log = realloc(d->log, d->log_room * sizeof(*d->log));
        assert(d->log);
    }
    w = &d->log[d->log_count++];
    *w = (struct sim_write){ offset, length, malloc(length), false };
    assert(w->data);
    memcpy(w->data, buf, length);
    memcpy(d->cache + offset, buf, length);
    if (d->size < offset + length) {
        d->size = offset + length;
    }
}

int simdisk_write(struct simdisk *d, uint64_t offset, const void *buf,
                  size_t length)
{
    bool dead = d->world->crashed;
    int ret = begin_change(d->world);
    size_t done;

    assert(offset % SIM_SECTOR == 0 && length % SIM_SECTOR == 0);
    if (dead) {
        return ret;
    }
    if (ret == 0 && (offset > d->capacity || length > d->capacity - offset)) {
        ret = -ENOSPC;
    }
    if (ret < 0) {
        /* what failed, or was under way, may be there in part, or whole */
        done =
            (size_t)sim_random(d->world, length / SIM_SECTOR + 1) * SIM_SECTOR;
        if (offset >= d->capacity) {
            done = 0;
        } else if (done > d->capacity - offset) {
            done = (size_t)(d->capacity - offset);
        }
        log_write(d, offset, buf, done);
        return ret;
    }
    log_write(d, offset, buf, length);
    return 0;
}

/* One sector's new version reaches the medium. */
static void land(struct simdisk *d, const struct sim_write *w, size_t at)
{
    memcpy(d->medium + w->offset + at, w->data + at, SIM_SECTOR);
    if (d->durable_size < w->offset + at + SIM_SECTOR) {
        d->durable_size = w->offset + at + SIM_SECTOR;
    }
}

static void land_some(struct simdisk *d, const struct sim_write *w,
                      unsigned percent)
{
    for (size_t at = 0; at < w->length; at += SIM_SECTOR) {
        if (sim_chance(d->world, percent)) {
            land(d, w, at);
        }
    }
}

int simdisk_flush_issue(struct simdisk *d)
{
    if (d->world->crashed) {
        return SIM_CRASH;
    }
    d->flush_mark = d->log_count;
    return 0;
}

int simdisk_flush_complete(struct simdisk *d)
{
    int ret = begin_change(d->world);
    size_t kept = 0;

    if (ret == SIM_CRASH) {
        return ret;
    }
    if (ret < 0) {
        /* some of it was written; all of it counts as clean from now on */
        unsigned percent = (unsigned)sim_random(d->world, 101);

        for (size_t i = 0; i < d->flush_mark; i++) {
            if (!d->log[i].clean) {
                land_some(d, &d->log[i], percent);
            }
            d->log[i].clean = true;
        }
        return ret;
    }
    for (size_t i = 0; i < d->log_count; i++) {
        if (i < d->flush_mark && !d->log[i].clean) {
            land_some(d, &d->log[i], 100);
            free(d->log[i].data);
        } else {
            /* a page that no flush will write stays in the cache alone */
            d->log[kept++] = d->log[i];
        }
    }
    d->log_count = kept;
    return 0;
}

int simdisk_flush(struct simdisk *d)
{
    int ret = simdisk_flush_issue(d);

    return ret < 0 ? ret : simdisk_flush_complete(d);
}

/* ---- the end of the world ---------------------------------------------- */

void simdisk_kill(struct simdisk *d)
{
    /* simdisk_write() has already left what was under way partial */
    d->flush_mark = 0;
}

/* From now on the cache knows what the medium knows. */
static void forget_cache(struct simdisk *d)
{
    if (d->size > d->durable_size) {
        memset(d->cache + d->durable_size, 0, d->size - d->durable_size);
    }
    for (size_t i = 0; i < d->log_count; i++) {
        const struct sim_write *w = &d->log[i];

        memcpy(d->cache + w->offset, d->medium + w->offset, w->length);
    }
    d->size = d->durable_size;
    d->flush_mark = 0;
    drop_log(d, d->log_count);
}

void simdisk_power_cut(struct simdisk *d)
{
    static const unsigned percents[] = { 0, 10, 50, 90, 100 };

    for (size_t i = 0; i < d->log_count; i++) {
        if (!d->log[i].clean) {
            land_some(d, &d->log[i], percents[sim_random(d->world, 5)]);
        }
    }
    forget_cache(d);
}

void simdisk_tear_last(struct simdisk *d, size_t bytes)
{
    for (size_t i = 0; i < d->log_count; i++) {
        struct sim_write *w = &d->log[i];

        for (size_t at = 0; at < w->length; at += SIM_SECTOR) {
            if (i + 1 < d->log_count || at < bytes) {
                land(d, w, at);
            }
        }
    }
    forget_cache(d);
}

void simdisk_lose(struct simdisk *d, uint64_t offset, uint64_t length)
{
    for (size_t i = 0; i < d->log_count; i++) {
        struct sim_write *w = &d->log[i];

        for (size_t at = 0; at < w->length; at += SIM_SECTOR) {
            if (w->offset + at < offset || w->offset + at >= offset + length) {
                land(d, w, at);
            }
        }
    }
    forget_cache(d);
}

void simdisk_flip(struct simdisk *d, uint64_t offset, unsigned bit)
{
    assert(offset < d->size);
    d->cache[offset] ^= (uint8_t)(1u << bit);
    d->medium[offset] ^= (uint8_t)(1u << bit);
}

void simdisk_destroy(struct simdisk *d, uint64_t offset, size_t length)
{
    assert(offset <= d->size && length <= d->size - offset);
    for (size_t i = 0; i < length; i++) {
        uint8_t junk = (uint8_t)sim_random(d->world, 256);

        d->cache[offset + i] = d->medium[offset + i] = junk;
    }
}

static int source_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    return simdisk_read(opaque, offset, buf, length);
}

struct tt_source simdisk_source(struct simdisk *d)
{
    return (struct tt_source){
        .read = source_read,
        .opaque = d,
        .size = d->size,
    };
}
