/*
 * Journal and disk as media: see wal.h
 *
 * Writes go to a cache.  A flush makes durable what was complete when it was
 * issued; one that fails leaves pages clean in the cache and absent on the
 * medium, as Linux does.  A power cut keeps of each sector what was durable or
 * any version written since, each on its own.  A change of the disk's size
 * keeps its place among the writes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "wal.h"

/* splitmix64: every seed is as good as any other */
uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t below)
{
    return (uint64_t)(((unsigned __int128)rng_next(r) * below) >> 64);
}

bool rng_chance(struct rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

void *arena_get(struct arena *a, size_t size)
{
    void *p;

    if (!a->base) {
        a->room = (size_t)1 << 28;
        a->base = mmap(NULL, a->room, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert(a->base != MAP_FAILED);
    }
    size = (size + 15) & ~(size_t)15;
    assert(size <= a->room - a->used);
    p = a->base + a->used;
    a->used += size;
    return p;
}

/* What survives of unflushed sectors: all, none, or some */
static unsigned survivors(struct rng *r)
{
    static const unsigned percents[] = { 0, 10, 50, 90, 100, 100 };

    return percents[rng_below(r, 6)];
}

/* ---- the journal ------------------------------------------------------- */

static uint8_t *map_medium(void)
{
    void *p = mmap(NULL, JMEDIA_MAX, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert(p != MAP_FAILED);
    return p;
}

void jmedia_init(struct jmedia *m)
{
    memset(m, 0, sizeof(*m));
    m->cache = map_medium();
    m->medium = map_medium();
}

void jmedia_free(struct jmedia *m)
{
    munmap(m->cache, JMEDIA_MAX);
    munmap(m->medium, JMEDIA_MAX);
    free(m->log);
}

void jmedia_reset(struct jmedia *m)
{
    for (size_t i = 0; i < JMEDIA_MAX / JMEDIA_GRANULE; i++) {
        memset(m->cache + i * JMEDIA_GRANULE, 0, m->used[i]);
        memset(m->medium + i * JMEDIA_GRANULE, 0, m->used[i]);
        m->used[i] = 0;
    }
    m->size = m->durable_size = 0;
    m->log_count = m->mark = 0;
}

static void note_used(struct jmedia *m, uint64_t offset, uint64_t end)
{
    for (; offset < end; offset = (offset | (JMEDIA_GRANULE - 1)) + 1) {
        size_t i = offset / JMEDIA_GRANULE;
        uint64_t last = (i + 1) * (uint64_t)JMEDIA_GRANULE;
        uint32_t used =
            (uint32_t)((end < last ? end : last) - i * JMEDIA_GRANULE);

        if (m->used[i] < used) {
            m->used[i] = used;
        }
    }
}

bool jmedia_write(struct jmedia *m, uint64_t offset, const uint8_t *data,
                  uint32_t length)
{
    if (offset > JMEDIA_MAX || length > JMEDIA_MAX - offset) {
        return false;
    }
    if (m->log_count == m->log_room) {
        m->log_room = m->log_room ? m->log_room * 2 : 256;
        m->log = realloc(m->log, m->log_room * sizeof(*m->log));
        assert(m->log);
    }
    m->log[m->log_count++] = (struct jlog){ offset, length, false, data };
    memcpy(m->cache + offset, data, length);
    note_used(m, offset, offset + length);
    if (m->size < offset + length) {
        m->size = offset + length;
    }
    return true;
}

void jmedia_write_some(struct jmedia *m, struct rng *r, uint64_t offset,
                       const uint8_t *data, uint32_t length)
{
    unsigned percent = survivors(r);
    uint32_t from = 0, at;

    for (at = 0; at < length; at += WAL_SECTOR) {
        if (!rng_chance(r, percent)) {
            if (at > from) {
                jmedia_write(m, offset + from, data + from, at - from);
            }
            from = at + WAL_SECTOR;
        }
    }
    if (at > from) {
        jmedia_write(m, offset + from, data + from, at - from);
    }
}

static void jland(struct jmedia *m, struct rng *r, const struct jlog *l,
                  unsigned percent)
{
    if (percent == 0) {
        return;
    }
    if (percent == 100) {
        memcpy(m->medium + l->offset, l->data, l->length);
        if (m->durable_size < l->offset + l->length) {
            m->durable_size = l->offset + l->length;
        }
        return;
    }
    for (uint32_t at = 0; at < l->length; at += WAL_SECTOR) {
        if (rng_chance(r, percent)) {
            uint64_t end = l->offset + at + WAL_SECTOR;

            memcpy(m->medium + l->offset + at, l->data + at, WAL_SECTOR);
            if (m->durable_size < end) {
                m->durable_size = end;
            }
        }
    }
}

void jmedia_flush_issue(struct jmedia *m)
{
    m->mark = m->log_count;
}

void jmedia_flush_done(struct jmedia *m, struct rng *r, bool ok)
{
    unsigned percent = ok ? 100 : survivors(r);
    size_t kept = 0;

    for (size_t i = 0; i < m->log_count; i++) {
        struct jlog *l = &m->log[i];

        if (i < m->mark && !l->clean) {
            jland(m, r, l, percent);
            if (ok) {
                continue;
            }
            l->clean = true;
        }
        m->log[kept++] = *l;
    }
    m->log_count = kept;
    m->mark = 0;
}

void jmedia_power_cut(struct jmedia *m, struct rng *r)
{
    for (size_t i = 0; i < m->log_count; i++) {
        if (!m->log[i].clean) {
            jland(m, r, &m->log[i], survivors(r));
        }
    }
    for (size_t i = 0; i < m->log_count; i++) {
        const struct jlog *l = &m->log[i];

        memcpy(m->cache + l->offset, m->medium + l->offset, l->length);
    }
    m->size = m->durable_size;
    m->log_count = m->mark = 0;
}

void jmedia_copy(struct jmedia *to, const struct jmedia *m)
{
    for (size_t i = 0; i < JMEDIA_MAX / JMEDIA_GRANULE; i++) {
        size_t at = i * JMEDIA_GRANULE;

        memcpy(to->cache + at, m->cache + at, m->used[i]);
        memcpy(to->medium + at, m->medium + at, m->used[i]);
        if (to->used[i] > m->used[i]) {
            memset(to->cache + at + m->used[i], 0, to->used[i] - m->used[i]);
            memset(to->medium + at + m->used[i], 0, to->used[i] - m->used[i]);
        }
        to->used[i] = m->used[i];
    }
    to->size = m->size;
    to->durable_size = m->durable_size;
    to->mark = m->mark;
    if (to->log_room < m->log_count) {
        to->log_room = m->log_room;
        to->log = realloc(to->log, to->log_room * sizeof(*to->log));
        assert(to->log);
    }
    to->log_count = m->log_count;
    if (m->log_count) {
        memcpy(to->log, m->log, m->log_count * sizeof(*m->log));
    }
}

static int source_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    const struct jmedia *m = opaque;

    assert(offset <= m->size && length <= m->size - offset);
    memcpy(buf, m->cache + offset, length);
    return 0;
}

struct tt_source jmedia_source(struct jmedia *m)
{
    return (struct tt_source){
        .read = source_read,
        .opaque = m,
        .size = m->size,
    };
}

/* ---- the disk ---------------------------------------------------------- */

static struct dlog *dlog_add(struct dmedia *m)
{
    if (m->log_count == m->log_room) {
        m->log_room = m->log_room ? m->log_room * 2 : 64;
        m->log = realloc(m->log, m->log_room * sizeof(*m->log));
        assert(m->log);
    }
    memset(&m->log[m->log_count], 0, sizeof(*m->log));
    return &m->log[m->log_count++];
}

void dmedia_write(struct dmedia *m, unsigned first, unsigned count,
                  uint32_t *ids)
{
    struct dlog *l = dlog_add(m);

    assert(first + count <= m->size);
    l->first = (uint8_t)first;
    l->count = (uint8_t)count;
    l->ids = ids;
    memcpy(m->cache + first, ids, count * sizeof(*ids));
}

void dmedia_write_some(struct dmedia *m, struct rng *r, unsigned first,
                       unsigned count, uint32_t *ids)
{
    unsigned percent = survivors(r);

    for (unsigned i = 0; i < count; i++) {
        if (rng_chance(r, percent)) {
            dmedia_write(m, first + i, 1, ids + i);
        }
    }
}

static void set_size(uint32_t *ids, unsigned size)
{
    memset(ids + size, 0, (WAL_SECTORS - size) * sizeof(*ids));
}

void dmedia_truncate(struct dmedia *m, unsigned size)
{
    struct dlog *l = dlog_add(m);

    l->is_size = true;
    l->count = (uint8_t)size;
    set_size(m->cache, size);
    m->size = size;
}

static void dland(struct dmedia *m, struct rng *r, const struct dlog *l,
                  unsigned percent)
{
    if (l->is_size) {
        m->durable_size = l->count;
        set_size(m->medium, l->count);
        return;
    }
    for (unsigned i = 0; i < l->count; i++) {
        /* what lies behind the end has nowhere to go */
        if (l->first + i < m->durable_size && rng_chance(r, percent)) {
            m->medium[l->first + i] = l->ids[i];
        }
    }
}

void dmedia_flush_issue(struct dmedia *m)
{
    m->mark = m->log_count;
}

/* Sizes are metadata: of a flush that failed the first ones count, in order. */
static unsigned sizes_to_land(struct dmedia *m, struct rng *r, size_t count)
{
    unsigned n = 0;

    for (size_t i = 0; i < count; i++) {
        n += m->log[i].is_size && !m->log[i].clean;
    }
    return n ? (unsigned)rng_below(r, n + 1) : 0;
}

void dmedia_flush_done(struct dmedia *m, struct rng *r, bool ok)
{
    unsigned percent = ok ? 100 : survivors(r);
    unsigned sizes = ok ? UINT32_MAX : sizes_to_land(m, r, m->mark);
    size_t kept = 0;

    for (size_t i = 0; i < m->log_count; i++) {
        struct dlog *l = &m->log[i];

        if (i < m->mark && !l->clean) {
            if (!l->is_size) {
                dland(m, r, l, percent);
            } else if (sizes) {
                dland(m, r, l, percent);
                sizes--;
            } else {
                /* a file system does not forget a size, it may only be late */
                m->log[kept++] = *l;
                continue;
            }
            if (ok) {
                continue;
            }
            l->clean = true;
        }
        m->log[kept++] = *l;
    }
    m->log_count = kept;
    m->mark = 0;
}

void dmedia_power_cut(struct dmedia *m, struct rng *r)
{
    unsigned sizes = sizes_to_land(m, r, m->log_count);

    for (size_t i = 0; i < m->log_count; i++) {
        struct dlog *l = &m->log[i];

        if (!l->clean && (!l->is_size || sizes)) {
            sizes -= l->is_size;
            dland(m, r, l, survivors(r));
        }
    }
    memcpy(m->cache, m->medium, sizeof(m->cache));
    m->size = m->durable_size;
    m->log_count = m->mark = 0;
}

void dmedia_copy(struct dmedia *to, const struct dmedia *m)
{
    struct dlog *log = to->log;
    size_t room = to->log_room;

    if (room < m->log_count) {
        room = m->log_room;
        log = realloc(log, room * sizeof(*log));
        assert(log);
    }
    *to = *m;
    to->log = log;
    to->log_room = room;
    if (m->log_count) {
        memcpy(log, m->log, m->log_count * sizeof(*log));
    }
}

/* ---- sectors ----------------------------------------------------------- */

#define MIX UINT64_C(0x9e3779b97f4a7c15)
#define UNMIX UINT64_C(0xf1de83e19937733d) /* MIX * UNMIX == 1 */

_Static_assert(MIX *UNMIX == 1, "the inverse of MIX");

void sector_fill(uint8_t *p, uint32_t id, unsigned sector)
{
    uint64_t word = id ? ((uint64_t)id << 8 | sector) * MIX : 0;

    for (unsigned i = 0; i < WAL_SECTOR; i += 8) {
        memcpy(p + i, &word, 8);
    }
}

bool sector_read(const uint8_t *p, unsigned sector, uint32_t *ret_id)
{
    uint64_t word, diff = 0;

    memcpy(&word, p, 8);
    for (unsigned i = 8; i < WAL_SECTOR; i += 8) {
        uint64_t other;

        memcpy(&other, p + i, 8);
        diff |= other ^ word;
    }
    word *= UNMIX;
    *ret_id = (uint32_t)(word >> 8);
    return !diff &&
           (!word || ((word & 0xff) == sector && *ret_id && word >> 40 == 0));
}
