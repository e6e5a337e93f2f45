/*
 * Sets of blocks: which units of the disk are in it?
 *
 * A tree over chunks of 32,768 units.  Where none or all of the units below a
 * place are in the set, a mark stands for them.  A chunk holds the words of
 * its bitmap that are not zero, in order, and all 512 of them once that takes
 * less.  So memory follows what was touched, however large the disk is, and is
 * at most 4 KiB for each 128 MiB of 4 KiB blocks; a test looks no further than
 * it is asked to.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

#define WORD_BITS 64
#define CHUNK_BITS 15
#define CHUNK_UNITS (1u << CHUNK_BITS)
#define CHUNK_WORDS (CHUNK_UNITS / WORD_BITS)
#define SPARSE_MAX 256u /* words; then a whole bitmap */
#define FAN_BITS 6
#define FAN (1u << FAN_BITS)

/*
 * words[0 … count), and behind words[room) the number of each as uint16_t.
 * Dense: room is CHUNK_WORDS, and there are no numbers.
 */
struct chunk {
    uint16_t count, room;
    uint64_t words[];
};

struct node {
    void *child[FAN]; /* NULL: none, ALL: all; else a node or a chunk */
};

static char all_mark;
#define ALL ((void *)&all_mark)

struct tt_blocks {
    unsigned shift;  /* a unit is 1 << shift bytes */
    unsigned height; /* levels of nodes above the chunks */
    void *root;
};

/* How many units lie below a place at @level. */
static uint64_t span_of(unsigned level)
{
    unsigned bits = CHUNK_BITS + FAN_BITS * level;

    return bits < 64 ? UINT64_C(1) << bits : UINT64_MAX;
}

struct tt_blocks *tt_blocks_new(uint32_t unit)
{
    struct tt_blocks *b = calloc(1, sizeof(*b));

    assert(unit && !(unit & (unit - 1)));
    if (b) {
        b->shift = (unsigned)__builtin_ctz(unit);
    }
    return b;
}

static void free_below(void *place, unsigned level)
{
    struct node *n = place;

    if (!place || place == ALL) {
        return;
    }
    for (unsigned i = 0; level && i < FAN; i++) {
        free_below(n->child[i], level - 1);
    }
    free(place);
}

void tt_blocks_free(struct tt_blocks *b)
{
    if (b) {
        free_below(b->root, b->height);
        free(b);
    }
}

/* ---- chunks ------------------------------------------------------------ */

static bool is_dense(const struct chunk *c)
{
    return c->room == CHUNK_WORDS;
}

static uint16_t *numbers(const struct chunk *c)
{
    return (uint16_t *)(c->words + c->room);
}

static struct chunk *new_chunk(unsigned room)
{
    size_t each = sizeof(uint64_t);
    struct chunk *c;

    if (room < CHUNK_WORDS) {
        each += sizeof(uint16_t);
    }
    c = calloc(1, sizeof(*c) + room * each);
    if (c) {
        c->room = (uint16_t)room;
    }
    return c;
}

/* The place of the first word whose number is @number or larger. */
static unsigned place_of(const struct chunk *c, unsigned number)
{
    const uint16_t *at = numbers(c);
    unsigned low = 0, high = c->count;

    if (is_dense(c)) {
        return number;
    }
    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (at[middle] < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint64_t get_word(const struct chunk *c, unsigned number)
{
    unsigned i = place_of(c, number);

    if (is_dense(c)) {
        return c->words[i];
    }
    return i < c->count && numbers(c)[i] == number ? c->words[i] : 0;
}

/* Room for one more word in *slot, which is full. */
static bool widen(void **slot)
{
    struct chunk *old = *slot;
    unsigned room = old ? old->room * 2u : 4;
    struct chunk *c = new_chunk(room < SPARSE_MAX ? room : CHUNK_WORDS);

    if (!c) {
        return false;
    }
    for (unsigned i = 0; old && i < old->count; i++) {
        unsigned to = is_dense(c) ? numbers(old)[i] : i;

        c->words[to] = old->words[i];
        if (!is_dense(c)) {
            numbers(c)[i] = numbers(old)[i];
            c->count++;
        }
    }
    free(old);
    *slot = c;
    return true;
}

static bool add_bits(void **slot, unsigned number, uint64_t mask)
{
    struct chunk *c = *slot;
    unsigned i = c ? place_of(c, number) : 0;
    unsigned behind;

    if (c && (is_dense(c) || (i < c->count && numbers(c)[i] == number))) {
        c->words[i] |= mask;
        return true;
    }
    if (!c || c->count == c->room) {
        return widen(slot) && add_bits(slot, number, mask);
    }
    behind = c->count - i;
    memmove(c->words + i + 1, c->words + i, behind * sizeof(uint64_t));
    memmove(numbers(c) + i + 1, numbers(c) + i, behind * sizeof(uint16_t));
    c->words[i] = mask;
    numbers(c)[i] = (uint16_t)number;
    c->count++;
    return true;
}

static void remove_bits(struct chunk *c, unsigned number, uint64_t mask)
{
    unsigned i = place_of(c, number), behind;

    if (!is_dense(c) && (i == c->count || numbers(c)[i] != number)) {
        return;
    }
    c->words[i] &= ~mask;
    if (!is_dense(c) && !c->words[i]) {
        behind = --c->count - i;
        memmove(c->words + i, c->words + i + 1, behind * sizeof(uint64_t));
        memmove(numbers(c) + i, numbers(c) + i + 1, behind * sizeof(uint16_t));
    }
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

static bool holds_all(const struct chunk *c)
{
    if (!is_dense(c)) {
        return false;
    }
    for (unsigned i = CHUNK_WORDS; i-- > 0;) {
        if (c->words[i] != UINT64_MAX) {
            return false;
        }
    }
    return true;
}

static bool add_to_chunk(void **slot, uint64_t from, uint64_t to)
{
    unsigned number = 0;

    while (from < to) {
        uint64_t bits, mask = word_mask(from, to - from, &bits);

        number = (unsigned)(from / WORD_BITS);
        if (!add_bits(slot, number, mask)) {
            return false;
        }
        from += bits;
    }
    if (get_word(*slot, number) == UINT64_MAX && holds_all(*slot)) {
        free(*slot);
        *slot = ALL;
    }
    return true;
}

static void remove_from_chunk(struct chunk *c, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t bits, mask = word_mask(from, to - from, &bits);

        remove_bits(c, (unsigned)(from / WORD_BITS), mask);
        from += bits;
    }
}

/* The first unit of [from, to) whose bit is @value, or @to. */
static uint64_t find_in_chunk(const struct chunk *c, uint64_t from, uint64_t to,
                              bool value)
{
    while (from < to) {
        unsigned number = (unsigned)(from / WORD_BITS), i;
        uint64_t word = get_word(c, number);

        word = (value ? word : ~word) >> from % WORD_BITS;
        if (word) {
            from += (uint64_t)__builtin_ctzll(word);
            break;
        }
        from = (from / WORD_BITS + 1) * WORD_BITS;
        if (value && !is_dense(c)) { /* over words that are zero */
            i = place_of(c, number + 1);
            if (i == c->count) {
                return to;
            }
            if (numbers(c)[i] > number + 1) {
                from = (uint64_t)numbers(c)[i] * WORD_BITS;
            }
        }
    }
    return from < to ? from : to;
}

/* ---- the tree ---------------------------------------------------------- */

/* Adds [from, to), counted from the first unit below *slot. */
static bool add_below(void **slot, unsigned level, uint64_t from, uint64_t to)
{
    uint64_t each;
    struct node *n;

    if (*slot == ALL) {
        return true;
    }
    if (from == 0 && to == span_of(level)) {
        free_below(*slot, level);
        *slot = ALL;
        return true;
    }
    if (level == 0) {
        return add_to_chunk(slot, from, to);
    }
    if (!*slot) {
        *slot = calloc(1, sizeof(*n));
        if (!*slot) {
            return false;
        }
    }
    n = *slot;
    each = span_of(level - 1);
    while (from < to) {
        uint64_t first = from / each * each;
        uint64_t end = to - first < each ? to : first + each;

        if (!add_below(&n->child[from / each], level - 1, from - first,
                       end - first)) {
            return false;
        }
        from = end;
    }
    return true;
}

/* What ALL stands for, one level further down. */
static bool split_all(void **slot, unsigned level)
{
    struct node *n;
    struct chunk *c;

    if (level == 0) {
        c = new_chunk(CHUNK_WORDS);
        if (c) {
            memset(c->words, 0xff, CHUNK_WORDS * sizeof(uint64_t));
            *slot = c;
        }
        return c;
    }
    n = malloc(sizeof(*n));
    if (n) {
        for (unsigned i = 0; i < FAN; i++) {
            n->child[i] = ALL;
        }
        *slot = n;
    }
    return n;
}

static void remove_below(void **slot, unsigned level, uint64_t from,
                         uint64_t to)
{
    uint64_t each;
    struct node *n;

    if (!*slot) {
        return;
    }
    if (from == 0 && to == span_of(level)) {
        free_below(*slot, level);
        *slot = NULL;
        return;
    }
    if (*slot == ALL && !split_all(slot, level)) {
        return;
    }
    if (level == 0) {
        remove_from_chunk(*slot, from, to);
        return;
    }
    n = *slot;
    each = span_of(level - 1);
    while (from < to) {
        uint64_t first = from / each * each;
        uint64_t end = to - first < each ? to : first + each;

        remove_below(&n->child[from / each], level - 1, from - first,
                     end - first);
        from = end;
    }
}

/* The first unit of [from, to) that is in the set or not, or @to. */
static uint64_t find_below(const void *place, unsigned level, uint64_t from,
                           uint64_t to, bool value)
{
    const struct node *n = place;
    uint64_t each;

    if (!place || place == ALL) {
        return value == (place == ALL) ? from : to;
    }
    if (level == 0) {
        return find_in_chunk(place, from, to, value);
    }
    each = span_of(level - 1);
    while (from < to) {
        uint64_t first = from / each * each;
        uint64_t end = to - first < each ? to : first + each;
        uint64_t found = first + find_below(n->child[from / each], level - 1,
                                            from - first, end - first, value);

        if (found < end) {
            return found;
        }
        from = end;
    }
    return to;
}

/* ---- the set ----------------------------------------------------------- */

/* The same of the whole set, which has nothing behind its root's span. */
static uint64_t find(const struct tt_blocks *b, uint64_t from, uint64_t to,
                     bool value)
{
    uint64_t span = span_of(b->height), end = to < span ? to : span;

    if (from < end) {
        from = find_below(b->root, b->height, from, end, value);
    }
    if (value && from >= end) {
        return to;
    }
    return from < to ? from : to;
}

bool tt_blocks_add(struct tt_blocks *b, uint64_t offset, uint64_t length)
{
    uint64_t unit = offset >> b->shift, end;

    if (!length) {
        return true;
    }
    end = ((offset + length - 1) >> b->shift) + 1;
    while (span_of(b->height) < end) {
        if (b->root) {
            struct node *n = calloc(1, sizeof(*n));

            if (!n) {
                return false;
            }
            n->child[0] = b->root;
            b->root = n;
        }
        b->height++;
    }
    return add_below(&b->root, b->height, unit, end);
}

void tt_blocks_remove(struct tt_blocks *b, uint64_t offset, uint64_t length)
{
    uint64_t mask = (UINT64_C(1) << b->shift) - 1, span = span_of(b->height);
    uint64_t unit = (offset >> b->shift) + ((offset & mask) != 0);
    uint64_t end = (offset + length) >> b->shift;

    end = end < span ? end : span;
    if (unit < end) {
        remove_below(&b->root, b->height, unit, end);
    }
}

bool tt_blocks_test(const struct tt_blocks *b, uint64_t offset, uint64_t length,
                    uint64_t *ret_run)
{
    uint64_t unit = offset >> b->shift, last = length ? length - 1 : 0, end;
    bool in = find(b, unit, unit + 1, true) == unit;

    if (ret_run) {
        if (last > UINT64_MAX - offset) {
            last = UINT64_MAX - offset;
        }
        last = (offset + last) >> b->shift;
        end = find(b, unit, last + 1, !in);
        *ret_run = end <= last ? (end << b->shift) - offset : length;
    }
    return in;
}

uint64_t tt_blocks_next(const struct tt_blocks *b, uint64_t offset)
{
    uint64_t span = span_of(b->height), unit = offset >> b->shift;
    uint64_t found = unit < span ? find(b, unit, span, true) : span;

    if (found == span) {
        return UINT64_MAX;
    }
    found <<= b->shift;
    return found > offset ? found : offset;
}
