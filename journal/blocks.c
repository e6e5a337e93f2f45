/*
 * Sets of blocks: which units of the disk are in it?
 *
 * A sparse bitmap: chunks of 32,768 units, allocated when the first of their
 * units is added.  Adding and testing cost one look-up a chunk, and memory
 * follows what was touched: 4 KiB for each 128 MiB of 4 KiB blocks.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

#define WORD_BITS 64
#define CHUNK_UNITS (1u << 15)
#define CHUNK_WORDS (CHUNK_UNITS / WORD_BITS)

struct tt_blocks {
    unsigned shift; /* a unit is 1 << shift bytes */
    size_t chunk_count;
    uint64_t **chunks; /* NULL: none of its units */
};

struct tt_blocks *tt_blocks_new(uint32_t unit)
{
    struct tt_blocks *b = calloc(1, sizeof(*b));

    assert(unit && !(unit & (unit - 1)));
    if (b) {
        b->shift = (unsigned)__builtin_ctz(unit);
    }
    return b;
}

void tt_blocks_free(struct tt_blocks *b)
{
    if (b) {
        for (size_t i = 0; i < b->chunk_count; i++) {
            free(b->chunks[i]);
        }
        free(b->chunks);
        free(b);
    }
}

static uint64_t *get_chunk(struct tt_blocks *b, uint64_t index)
{
    if (index >= b->chunk_count) {
        size_t count = b->chunk_count ? b->chunk_count : 16;
        uint64_t **p;

        while (count <= index) {
            count *= 2;
        }
        p = realloc(b->chunks, count * sizeof(*p));
        if (!p) {
            return NULL;
        }
        memset(p + b->chunk_count, 0, (count - b->chunk_count) * sizeof(*p));
        b->chunks = p;
        b->chunk_count = count;
    }
    if (!b->chunks[index]) {
        b->chunks[index] = calloc(CHUNK_WORDS, sizeof(uint64_t));
    }
    return b->chunks[index];
}

/* The bits from @first (in a chunk) that one word holds, up to @count. */
static uint64_t word_mask(uint64_t first, uint64_t count, uint64_t *ret_bits)
{
    uint64_t bit = first % WORD_BITS, bits = WORD_BITS - bit;

    if (bits > count) {
        bits = count;
    }
    *ret_bits = bits;
    return (bits == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << bits) - 1) << bit;
}

bool tt_blocks_add(struct tt_blocks *b, uint64_t offset, uint64_t length)
{
    uint64_t unit = offset >> b->shift, end;

    if (!length) {
        return true;
    }
    end = ((offset + length - 1) >> b->shift) + 1;
    while (unit < end) {
        uint64_t *chunk = get_chunk(b, unit / CHUNK_UNITS);
        uint64_t bits, mask;

        if (!chunk) {
            return false;
        }
        mask = word_mask(unit % CHUNK_UNITS, end - unit, &bits);
        chunk[unit % CHUNK_UNITS / WORD_BITS] |= mask;
        unit += bits;
    }
    return true;
}

void tt_blocks_remove(struct tt_blocks *b, uint64_t offset, uint64_t length)
{
    uint64_t unit = (offset + (UINT64_C(1) << b->shift) - 1) >> b->shift;
    uint64_t end = (offset + length) >> b->shift;

    while (unit < end) {
        uint64_t index = unit / CHUNK_UNITS, bits, mask;

        if (index >= b->chunk_count) {
            return;
        }
        if (!b->chunks[index]) {
            unit = (index + 1) * CHUNK_UNITS;
            continue;
        }
        mask = word_mask(unit % CHUNK_UNITS, end - unit, &bits);
        b->chunks[index][unit % CHUNK_UNITS / WORD_BITS] &= ~mask;
        unit += bits;
    }
}

/*
 * The first unit at or after @unit whose bit is @value, or UINT64_MAX: none
 * (which only happens for bits that are set).
 */
static uint64_t find_bit(const struct tt_blocks *b, uint64_t unit, bool value)
{
    while (unit / CHUNK_UNITS < b->chunk_count) {
        const uint64_t *chunk = b->chunks[unit / CHUNK_UNITS];
        uint64_t word;

        if (!chunk) {
            if (!value) {
                return unit;
            }
            unit = (unit / CHUNK_UNITS + 1) * CHUNK_UNITS;
            continue;
        }
        word = chunk[unit % CHUNK_UNITS / WORD_BITS];
        word = (value ? word : ~word) >> unit % WORD_BITS;
        if (word) {
            return unit + (uint64_t)__builtin_ctzll(word);
        }
        unit = (unit / WORD_BITS + 1) * WORD_BITS;
    }
    return value ? UINT64_MAX : unit;
}

bool tt_blocks_test(const struct tt_blocks *b, uint64_t offset, uint64_t length,
                    uint64_t *ret_run)
{
    uint64_t unit = offset >> b->shift;
    bool in = find_bit(b, unit, true) == unit;
    uint64_t end = find_bit(b, unit, !in);

    if (ret_run) {
        uint64_t limit = UINT64_MAX >> b->shift;
        uint64_t run = end >= limit ? UINT64_MAX : (end << b->shift) - offset;
        *ret_run = run < length ? run : length;
    }
    return in;
}

uint64_t tt_blocks_next(const struct tt_blocks *b, uint64_t offset)
{
    uint64_t unit = find_bit(b, offset >> b->shift, true);

    if (unit == UINT64_MAX) {
        return UINT64_MAX;
    }
    unit <<= b->shift;
    return unit > offset ? unit : offset;
}
