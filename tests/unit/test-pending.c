/*
 * Pending versions: each rule by hand, and random calls against a naive model
 *
 * The model knows, for each unit of a small disk, the versions written to it
 * and which of them the disk holds.  From the definitions in pending.h alone
 * it says what reads find, what may be taken, what is level and which versions
 * are still referred to; all of it is compared after each call.  In some
 * rounds malloc() fails: then the level may be lower than it could be.
 *
 * TTJ_SEED and TTJ_ROUNDS in the environment choose the first round's seed
 * and how many there are.  A failing round prints its seed and what it did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdarg.h>
#include <stdio.h>

#include <ttjournal/pending.h>

#include "unit.h"

#define ROUNDS 3000

/* ---- memory that fails ------------------------------------------------- */

static unsigned malloc_fails; /* percent */
static struct sim_world *malloc_world;
static unsigned malloc_failures;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
    if (malloc_fails && sim_chance(malloc_world, malloc_fails)) {
        malloc_failures++;
        return NULL;
    }
    return __real_malloc(size);
}

/* ---- by hand ----------------------------------------------------------- */

#define S TT_SECTOR

static uint8_t bytes[64][TT_MIB]; /* of the version with this number */
static unsigned released[64];
static struct tt_pending *p;
static struct tt_writeback w1, w2, w3;

static void count_release(void *owner)
{
    unsigned *count = owner;

    (*count)++;
}

static void begin(void)
{
    memset(released, 0, sizeof(released));
    p = tt_pending_new(count_release);
    ck_assert_ptr_nonnull(p);
}

static void end(uint64_t last)
{
    ck_assert(tt_pending_empty(p));
    ck_assert_uint_eq(tt_pending_bytes(p), 0);
    ck_assert_uint_eq(tt_pending_level(p, 77), 77);
    ck_assert_uint_eq(tt_pending_oldest(p), 0);
    for (unsigned i = 1; i <= last; i++) {
        ck_assert_msg(released[i] == 1, "%u was released %u times", i,
                      released[i]);
    }
    tt_pending_free(p);
}

/* Sectors [from, to) */
static void add(unsigned seq, uint64_t from, uint64_t to)
{
    ck_assert(tt_pending_add(p, seq, TT_KIND_WRITE, 0, from * S,
                             (to - from) * S, bytes[seq], &released[seq]));
}

static void zero(unsigned seq, uint64_t from, uint64_t to, uint16_t flags)
{
    ck_assert(tt_pending_add(p, seq, TT_KIND_ZERO, flags, from * S,
                             (to - from) * S, NULL, &released[seq]));
}

static void added_durable(unsigned seq, uint64_t from, uint64_t to)
{
    add(seq, from, to);
    tt_pending_durable(p, seq);
}

/* The next request is of [from, to), in so many parts. */
static void take(struct tt_writeback *w, uint64_t from, uint64_t to,
                 unsigned parts)
{
    ck_assert(tt_pending_take(p, w));
    ck_assert_uint_eq(w->offset, from * S);
    ck_assert_uint_eq(w->length, (to - from) * S);
    ck_assert_uint_eq(w->part_count, parts);
    ck_assert_uint_eq(w->kind, parts ? TT_KIND_WRITE : TT_KIND_ZERO);
}

/* Part @i holds @sectors of version @seq, from its sector @skip on. */
static void part(const struct tt_writeback *w, unsigned i, unsigned seq,
                 uint64_t skip, uint64_t sectors)
{
    ck_assert_uint_lt(i, w->part_count);
    ck_assert_ptr_eq(w->parts[i].data, bytes[seq] + skip * S);
    ck_assert_uint_eq(w->parts[i].length, sectors * S);
}

static void nothing(void)
{
    ck_assert(!tt_pending_take(p, &w3));
}

static void level(uint64_t seq)
{
    ck_assert_uint_eq(tt_pending_level(p, 77), seq);
    ck_assert_uint_eq(tt_pending_oldest(p), seq == 77 ? 0 : seq + 1);
}

/* A read of [from, to) finds version @seq (0: none) from @skip, up to @run. */
static void reads(uint64_t from, uint64_t to, uint64_t run, unsigned seq,
                  uint64_t skip)
{
    const uint8_t *data;
    uint64_t got;
    bool pending = tt_pending_read(p, from * S, (to - from) * S, &data, &got);

    ck_assert_uint_eq(pending, seq != 0);
    ck_assert_uint_eq(got, (run - from) * S);
    if (seq) {
        ck_assert_ptr_eq(data, bytes[seq] + skip * S);
    }
}

static void undurable(uint64_t sectors, uint64_t last)
{
    uint64_t got;

    ck_assert_uint_eq(tt_pending_undurable(p, &got), sectors * S);
    ck_assert_uint_eq(got, last);
}

START_TEST(one_version)
{
    begin();
    ck_assert(tt_pending_empty(p));
    level(77);
    undurable(0, 0);
    nothing();

    add(1, 8, 16);
    undurable(8, 1);
    level(0);
    reads(8, 16, 16, 1, 0);
    nothing();

    tt_pending_durable(p, 0);
    nothing();
    tt_pending_durable(p, 1);
    undurable(0, 0);
    level(0);
    take(&w1, 8, 16, 1);
    part(&w1, 0, 1, 0, 8);
    nothing();
    level(0);
    reads(8, 16, 16, 1, 0);
    ck_assert_uint_eq(released[1], 0);
    ck_assert(!tt_pending_empty(p));

    tt_pending_written(p, &w1);
    reads(8, 16, 16, 0, 0);
    end(1);
}
END_TEST

START_TEST(reads_in_parts)
{
    const uint8_t *data;
    uint64_t run;

    begin();
    add(1, 8, 24);
    added_durable(2, 12, 16);
    zero(3, 20, 22, 0);
    reads(0, 64, 8, 0, 0);
    reads(4, 6, 6, 0, 0);
    reads(8, 64, 12, 1, 0);
    reads(10, 11, 11, 1, 2);
    reads(12, 64, 16, 2, 0);
    reads(16, 64, 20, 1, 8);
    ck_assert(tt_pending_read(p, 20 * S, 10 * S, &data, &run));
    ck_assert_ptr_null(data);
    ck_assert_uint_eq(run, 2 * S);
    reads(22, 64, 24, 1, 14);
    reads(24, 64, 64, 0, 0);

    ck_assert(tt_pending_read(p, 13 * S + 100, 5, &data, &run));
    ck_assert_ptr_eq(data, bytes[2] + S + 100);
    ck_assert_uint_eq(run, 5);
    tt_pending_free(p);
    ck_assert(released[1] == 1 && released[2] == 1 && released[3] == 1);
}
END_TEST

/* An older version can be durable below a newer one that is not. */
START_TEST(newest_durable)
{
    begin();
    add(1, 0, 8);
    add(2, 4, 8);
    tt_pending_durable(p, 1);
    undurable(4, 2);
    take(&w1, 0, 8, 1);
    part(&w1, 0, 1, 0, 8);
    tt_pending_written(p, &w1);
    ck_assert_uint_eq(released[1], 1);
    level(1);
    reads(0, 8, 4, 0, 0);
    reads(4, 8, 8, 2, 0);
    tt_pending_durable(p, 2);
    take(&w1, 4, 8, 1);
    tt_pending_written(p, &w1);
    end(2);
}
END_TEST

/* A replaced version is level only once what replaced it is on the disk. */
START_TEST(replaced_is_not_level)
{
    begin();
    added_durable(1, 0, 4);
    added_durable(2, 100, 104);
    added_durable(3, 0, 4);
    ck_assert_uint_eq(released[1], 1);
    level(0);
    take(&w1, 0, 4, 1);
    part(&w1, 0, 3, 0, 4);
    level(0);
    take(&w2, 100, 104, 1);
    tt_pending_written(p, &w2);
    level(0);
    tt_pending_written(p, &w1);
    end(3);

    /* in part: exactly the replaced part keeps the old number */
    begin();
    added_durable(1, 0, 8);
    added_durable(2, 100, 104);
    added_durable(3, 4, 12);
    level(0);
    take(&w1, 0, 12, 2);
    part(&w1, 0, 1, 0, 4);
    part(&w1, 1, 3, 0, 8);
    tt_pending_written(p, &w1);
    level(1);
    take(&w1, 100, 104, 1);
    tt_pending_written(p, &w1);
    end(3);
}
END_TEST

/* What is written all the time is not put off. */
START_TEST(hot_block)
{
    begin();
    added_durable(1, 0, 1);
    for (unsigned seq = 2; seq < 60; seq++) {
        if (seq % 2) {
            added_durable(seq, 0, 1);
        } else {
            added_durable(seq, 2 * seq, 2 * seq + 1);
        }
        undurable(0, 0);
    }
    level(0);
    take(&w1, 0, 1, 1);
    part(&w1, 0, 59, 0, 1);
    tt_pending_written(p, &w1);
    level(1);
    take(&w1, 4, 5, 1);
    tt_pending_written(p, &w1);
    level(3);
    tt_pending_free(p);
    for (unsigned i = 1; i < 60; i++) {
        ck_assert_uint_eq(released[i], 1);
    }
}
END_TEST

START_TEST(newer_over_in_flight)
{
    begin();
    added_durable(1, 0, 8);
    take(&w1, 0, 8, 1);
    added_durable(2, 2, 4);
    added_durable(3, 20, 22);
    level(0);
    /* 2 is in the way of a request */
    take(&w2, 20, 22, 1);
    nothing();
    tt_pending_written(p, &w1);
    ck_assert_uint_eq(released[1], 1);
    reads(0, 8, 2, 0, 0);
    reads(2, 8, 4, 2, 0);
    level(1);
    take(&w1, 2, 4, 1);
    tt_pending_written(p, &w1);
    level(2);
    tt_pending_written(p, &w2);
    end(3);
}
END_TEST

START_TEST(refused)
{
    begin();
    added_durable(1, 0, 8);
    take(&w1, 0, 8, 1);
    tt_pending_refused(p, &w1);
    level(0);
    take(&w1, 0, 8, 1);
    part(&w1, 0, 1, 0, 8);
    added_durable(2, 100, 108);
    added_durable(3, 2, 4);
    added_durable(4, 6, 12);
    added_durable(5, 200, 201);
    tt_pending_refused(p, &w1);
    level(0);
    reads(0, 12, 2, 1, 0);
    reads(2, 12, 4, 3, 0);
    reads(4, 12, 6, 1, 4);
    reads(6, 12, 12, 4, 0);
    take(&w1, 0, 12, 4);
    part(&w1, 0, 1, 0, 2);
    part(&w1, 1, 3, 0, 2);
    part(&w1, 2, 1, 4, 2);
    part(&w1, 3, 4, 0, 6);
    level(0);
    tt_pending_written(p, &w1);
    level(1);
    take(&w1, 100, 108, 1);
    tt_pending_written(p, &w1);
    take(&w1, 200, 201, 1);
    tt_pending_written(p, &w1);
    end(5);

    /* what covers all of it inherits its turn; the rest of it does not */
    begin();
    zero(1, 0, 4, 0);
    tt_pending_durable(p, 1);
    take(&w1, 0, 4, 0);
    added_durable(2, 100, 104);
    added_durable(3, 0, 8);
    tt_pending_refused(p, &w1);
    ck_assert_uint_eq(released[1], 1);
    level(0);
    zero(4, 0, 4, 0);
    tt_pending_durable(p, 4);
    take(&w1, 0, 4, 0);
    tt_pending_written(p, &w1);
    level(1);
    take(&w1, 100, 104, 1);
    tt_pending_written(p, &w1);
    level(2);
    take(&w1, 4, 8, 1);
    part(&w1, 0, 3, 4, 4);
    tt_pending_written(p, &w1);
    end(4);
}
END_TEST

START_TEST(out_of_order)
{
    begin();
    added_durable(1, 0, 1);
    added_durable(2, 10, 11);
    added_durable(3, 20, 21);
    take(&w1, 0, 1, 1);
    take(&w2, 10, 11, 1);
    take(&w3, 20, 21, 1);
    tt_pending_written(p, &w3);
    level(0);
    tt_pending_written(p, &w1);
    level(1);
    tt_pending_written(p, &w2);
    end(3);
}
END_TEST

START_TEST(merging)
{
    const uint64_t mib = TT_MIB / S, zero_max = TT_ZERO_RECORD_MAX / S;

    /* neighbours of both sides, up to 1 MiB */
    begin();
    added_durable(1, mib, mib + 8);
    added_durable(2, mib + 8, 2 * mib);
    added_durable(3, mib - 8, mib);
    added_durable(4, mib - 9, mib - 8);
    take(&w1, mib, 2 * mib, 2);
    take(&w2, mib - 9, mib, 2);
    part(&w2, 0, 4, 0, 1);
    part(&w2, 1, 3, 0, 8);
    tt_pending_written(p, &w1);
    tt_pending_written(p, &w2);

    /* not what is in flight, nor what lies under it */
    added_durable(5, 8, 16);
    take(&w1, 8, 16, 1);
    added_durable(6, 0, 8);
    added_durable(7, 12, 20);
    take(&w2, 0, 8, 1);
    nothing();
    tt_pending_written(p, &w1);
    take(&w1, 12, 20, 1);
    tt_pending_written(p, &w1);
    tt_pending_written(p, &w2);

    /* kinds and flags apart */
    add(8, 8, 16);
    zero(9, 16, 24, 0);
    zero(10, 24, 32, TT_RECORD_UNMAP);
    zero(11, 32, 40, TT_RECORD_UNMAP);
    add(12, 40, 48);
    tt_pending_durable(p, 12);
    take(&w1, 8, 16, 1);
    tt_pending_written(p, &w1);
    take(&w1, 16, 24, 0);
    ck_assert_uint_eq(w1.flags, 0);
    tt_pending_written(p, &w1);
    take(&w1, 24, 40, 0);
    ck_assert_uint_eq(w1.flags, TT_RECORD_UNMAP);
    tt_pending_written(p, &w1);
    take(&w1, 40, 48, 1);
    tt_pending_written(p, &w1);

    /* a large ZERO is one request */
    zero(13, 0, zero_max, 0);
    zero(14, zero_max, zero_max + 8, 0);
    tt_pending_durable(p, 14);
    take(&w1, 0, zero_max, 0);
    tt_pending_written(p, &w1);
    take(&w1, zero_max, zero_max + 8, 0);
    tt_pending_written(p, &w1);

    /* pieces of one version, which waited for different times: one part */
    added_durable(15, 8, 16);
    added_durable(16, 0, 24);
    take(&w1, 0, 24, 1);
    part(&w1, 0, 16, 0, 24);
    tt_pending_written(p, &w1);
    end(16);
}
END_TEST

START_TEST(many_parts)
{
    static unsigned count[2 * TT_WRITEBACK_PARTS + 8];
    unsigned n = sizeof(count) / sizeof(count[0]), i;

    p = tt_pending_new(count_release);
    for (i = 0; i < n; i++) {
        ck_assert(tt_pending_add(p, i + 1, TT_KIND_WRITE, 0, i * S, S, bytes[0],
                                 &count[i]));
    }
    tt_pending_durable(p, n);
    take(&w1, 0, TT_WRITEBACK_PARTS, TT_WRITEBACK_PARTS);
    take(&w2, TT_WRITEBACK_PARTS, 2 * TT_WRITEBACK_PARTS, TT_WRITEBACK_PARTS);
    take(&w3, 2 * TT_WRITEBACK_PARTS, n, 8);
    tt_pending_written(p, &w2);
    ck_assert_uint_eq(tt_pending_level(p, n), 0);
    tt_pending_written(p, &w1);
    ck_assert_uint_eq(tt_pending_level(p, n), 2 * TT_WRITEBACK_PARTS);
    tt_pending_written(p, &w3);
    ck_assert(tt_pending_empty(p));
    tt_pending_free(p);
    for (i = 0; i < n; i++) {
        ck_assert_uint_eq(count[i], 1);
    }
}
END_TEST

START_TEST(trim)
{
    begin();
    added_durable(1, 0, 8);
    added_durable(2, 8, 16);
    added_durable(3, 32, 40);
    add(4, 4, 20);
    add(5, 20, 24);
    tt_pending_trim(p, 12 * S);
    ck_assert_uint_eq(released[3], 1);
    ck_assert_uint_eq(released[5], 1);
    undurable(16, 4);
    ck_assert_uint_eq(tt_pending_bytes(p), (8 + 8 + 16) * S);
    reads(0, 64, 4, 1, 0);
    reads(4, 64, 12, 4, 0);
    reads(12, 64, 64, 0, 0);
    take(&w1, 0, 12, 2);
    part(&w1, 1, 2, 0, 4);
    tt_pending_written(p, &w1);
    level(3);
    tt_pending_durable(p, 5);
    take(&w1, 4, 12, 1);
    part(&w1, 0, 4, 0, 8);
    tt_pending_written(p, &w1);
    end(5);
}
END_TEST

START_TEST(no_memory)
{
    struct sim_world world;
    bool added;

    sim_world_init(&world, 1);
    malloc_world = &world;
    begin();
    malloc_fails = 100; /* for check, too */
    added =
        tt_pending_add(p, 1, TT_KIND_WRITE, 0, 0, S, bytes[1], &released[1]);
    malloc_fails = 0;
    ck_assert(!added);
    ck_assert(tt_pending_empty(p));
    level(77);
    reads(0, 8, 8, 0, 0);
    ck_assert_uint_eq(released[1], 0);
    added_durable(1, 0, 8);
    take(&w1, 0, 8, 1);
    tt_pending_written(p, &w1);
    end(1);
}
END_TEST

/* Gaps between what it replaces take their neighbours' turns then. */
START_TEST(no_memory_for_gaps)
{
    static unsigned count[130];
    struct sim_world world;
    unsigned n = sizeof(count) / sizeof(count[0]), i;

    sim_world_init(&world, 1);
    malloc_world = &world;
    begin();
    memset(count, 0, sizeof(count));
    for (i = 1; i < n; i++) {
        ck_assert(tt_pending_add(p, i, TT_KIND_WRITE, 0, 2 * i * S, S, bytes[0],
                                 &count[i]));
    }
    tt_pending_durable(p, n - 1);
    ck_assert(tt_pending_add(p, n, TT_KIND_WRITE, 0, S, 2 * n * S, bytes[1],
                             &count[0]));
    malloc_failures = 0;
    malloc_fails = 100; /* for check, too */
    tt_pending_durable(p, n);
    malloc_fails = 0;
    ck_assert_uint_gt(malloc_failures, 0);
    for (i = 1; i < n; i++) {
        ck_assert_uint_eq(count[i], 1);
    }
    level(0);
    take(&w1, 1, 2 * n + 1, 1);
    part(&w1, 0, 1, 0, 2 * n);
    tt_pending_written(p, &w1);
    ck_assert_uint_eq(count[0], 1);
    end(0);
}
END_TEST

/* Undurable versions until no more extents are there than are set aside */
static void use_up_spares(unsigned first)
{
    for (unsigned seq = first; seq < 60; seq++) {
        add(seq, seq * 100, seq * 100 + 8);
    }
    add(60, first * 100 + 4, first * 100 + 5);
}

/* More than what was refused inherits its turn then. */
START_TEST(no_memory_to_inherit)
{
    struct sim_world world;

    sim_world_init(&world, 1);
    malloc_world = &world;
    begin();
    added_durable(1, 8, 16);
    take(&w1, 8, 16, 1);
    added_durable(2, 0, 24);
    use_up_spares(3);
    malloc_failures = 0;
    malloc_fails = 100; /* for check, too */
    tt_pending_refused(p, &w1);
    malloc_fails = 0;
    ck_assert_uint_gt(malloc_failures, 0);
    level(0);
    take(&w1, 0, 24, 1);
    part(&w1, 0, 2, 0, 24);
    tt_pending_written(p, &w1);
    level(2);
    tt_pending_durable(p, 60);
    while (tt_pending_take(p, &w1)) {
        tt_pending_written(p, &w1);
    }
    end(60);
}
END_TEST

/* What is written lies within what reads find, with no extent to spare. */
START_TEST(no_memory_to_split)
{
    struct sim_world world;

    sim_world_init(&world, 1);
    malloc_world = &world;
    begin();
    added_durable(1, 0, 8);
    take(&w1, 0, 8, 1);
    added_durable(2, 8, 16);
    added_durable(3, 0, 24);
    take(&w2, 8, 24, 1);
    use_up_spares(4);
    malloc_fails = 100; /* for check, too */
    tt_pending_written(p, &w2);
    malloc_fails = 0;
    reads(0, 24, 8, 3, 0);
    reads(8, 24, 24, 0, 0);
    tt_pending_written(p, &w1);
    level(2);
    tt_pending_durable(p, 60);
    while (tt_pending_take(p, &w1)) {
        tt_pending_written(p, &w1);
    }
    end(60);
}
END_TEST

/* ---- at random --------------------------------------------------------- */

#define UNITS 64
#define OPS 250
#define FLIGHTS 4
#define LOG_LINE 100

struct model_version {
    uint64_t seq, unit_length;
    uint16_t kind, flags;
    unsigned first, count; /* units */
    uint8_t *data;
    unsigned released;
    bool live;
};

/* A unit of the disk: the versions newer than the disk's, oldest first */
struct unit_state {
    unsigned count;
    uint64_t seqs[OPS];
    int flight; /* or -1 */
    uint64_t flight_seq;
};

static struct model {
    struct sim_world world;
    struct tt_pending *p;
    struct model_version versions[OPS + 1]; /* by number */
    struct unit_state units[UNITS];
    struct tt_writeback flights[FLIGHTS];
    bool flying[FLIGHTS];
    uint64_t unit, last, durable, largest;
    unsigned size; /* of the disk, in units */
    bool scarce;   /* malloc() fails now and then */
    char problem[200];
    char log[OPS * 3][LOG_LINE];
    unsigned lines;
} m;

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (m.lines < OPS * 3) {
        vsnprintf(m.log[m.lines++], LOG_LINE, fmt, ap);
    }
    va_end(ap);
}

__attribute__((format(printf, 1, 2))) static bool wrong(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(m.problem, sizeof(m.problem), fmt, ap);
    va_end(ap);
    return false;
}

#define EXPECT(cond, ...)                                                      \
    do {                                                                       \
        if (!(cond)) {                                                         \
            return wrong(__VA_ARGS__);                                         \
        }                                                                      \
    } while (0)

static void model_release(void *owner)
{
    struct model_version *v = owner;

    v->released++;
    free(v->data);
    v->data = NULL;
}

static unsigned roll(unsigned n)
{
    return (unsigned)sim_random(&m.world, n);
}

static uint64_t newest_of(const struct unit_state *u)
{
    return u->count ? u->seqs[u->count - 1] : 0;
}

static uint64_t newest_durable_of(const struct unit_state *u)
{
    uint64_t seq = 0;

    for (unsigned i = 0; i < u->count && u->seqs[i] <= m.durable; i++) {
        seq = u->seqs[i];
    }
    return seq;
}

/* What may be taken of @u, or 0 */
static uint64_t ready_of(const struct unit_state *u)
{
    return u->flight >= 0 ? 0 : newest_durable_of(u);
}

/* What reads, a byte of each unit at a time, and in runs, should find */
static bool check_reads(void)
{
    uint64_t at = 0, end = UNITS * m.unit;

    while (at < end) {
        const struct unit_state *u = &m.units[at / m.unit];
        uint64_t seq = newest_of(u), run;
        const struct model_version *v = &m.versions[seq];
        const uint8_t *data;
        bool pending = tt_pending_read(m.p, at, end - at, &data, &run);

        EXPECT(pending == (seq != 0), "read of %llu: pending is %d",
               (ull)(at / m.unit), pending);
        EXPECT(run && run <= end - at && run % m.unit == 0,
               "read of %llu: run of %llu", (ull)(at / m.unit), (ull)run);
        for (uint64_t i = 0; i < run; i += m.unit) {
            EXPECT(newest_of(&m.units[(at + i) / m.unit]) == seq,
                   "read of %llu: the run is too long", (ull)(at / m.unit));
        }
        if (!pending) {
            EXPECT(at + run == end || newest_of(&m.units[(at + run) / m.unit]),
                   "read of %llu: the run is too short", (ull)(at / m.unit));
        } else if (v->kind == TT_KIND_ZERO) {
            EXPECT(!data, "read of %llu: not zeroes", (ull)(at / m.unit));
        } else {
            EXPECT(data == v->data + (at - v->first * m.unit),
                   "read of %llu: not version %llu", (ull)(at / m.unit),
                   (ull)seq);
        }
        at += run;
    }
    return true;
}

/* Level, and which versions anything refers to */
static bool check_state(void)
{
    uint64_t oldest = UINT64_MAX, held = 0, undurable = 0, last = 0, got, n;
    bool any = false;

    for (unsigned i = 1; i <= m.last; i++) {
        m.versions[i].live = false;
    }
    for (unsigned i = 0; i < UNITS; i++) {
        const struct unit_state *u = &m.units[i];

        if (u->count && u->seqs[0] < oldest) {
            oldest = u->seqs[0];
        }
        m.versions[newest_of(u)].live = true;
        m.versions[ready_of(u)].live = true;
        if (u->flight >= 0) {
            m.versions[u->flight_seq].live = true;
            /* a newer one that is durable waits behind it */
            m.versions[newest_durable_of(u)].live = true;
        }
        for (unsigned k = 0; k < u->count; k++) {
            if (u->seqs[k] > m.durable) {
                m.versions[u->seqs[k]].live = true;
            }
        }
    }
    for (unsigned i = 1; i <= m.last; i++) {
        const struct model_version *v = &m.versions[i];

        EXPECT(v->released == !v->live, "version %u was released %u times", i,
               v->released);
        if (v->live) {
            any = true;
            held += v->count * m.unit;
            if (i > m.durable) {
                undurable += v->count * m.unit;
                last = i;
            }
        }
    }
    EXPECT(tt_pending_bytes(m.p) == held, "%llu bytes, not %llu",
           (ull)tt_pending_bytes(m.p), (ull)held);
    EXPECT(tt_pending_empty(m.p) == !any, "empty is wrong");
    got = tt_pending_undurable(m.p, &n);
    EXPECT(got == undurable && n == last,
           "undurable: %llu bytes up to %llu, not %llu up to %llu", (ull)got,
           (ull)n, (ull)undurable, (ull)last);
    oldest = oldest == UINT64_MAX ? 0 : oldest;
    got = tt_pending_oldest(m.p);
    n = tt_pending_level(m.p, m.last);
    EXPECT(n == (got ? got - 1 : m.last), "level %llu, oldest %llu", (ull)n,
           (ull)got);
    EXPECT(got == oldest || (m.scarce && got && got < oldest),
           "the oldest is %llu, not %llu", (ull)got, (ull)oldest);
    return true;
}

static bool op_add(void)
{
    uint64_t seq = m.last + 1;
    struct model_version *v = &m.versions[seq];
    unsigned most = sim_chance(&m.world, 70) ? 6 : 31;
    bool ok;

    memset(v, 0, sizeof(*v));
    v->seq = seq;
    v->first = roll(m.size);
    v->count = 1 + roll(most);
    if (v->count > m.size - v->first) {
        v->count = m.size - v->first;
    }
    v->kind = sim_chance(&m.world, 25) ? TT_KIND_ZERO : TT_KIND_WRITE;
    if (v->kind == TT_KIND_ZERO) {
        v->flags = sim_chance(&m.world, 30) ? TT_RECORD_UNMAP : 0;
    } else {
        v->data = __real_malloc(v->count * m.unit);
        if (!v->data) {
            abort();
        }
    }
    note("add %llu: %s %u + %u, flags %u", (ull)seq, tt_kind_name(v->kind),
         v->first, v->count, v->flags);
    ok = tt_pending_add(m.p, seq, v->kind, v->flags, v->first * m.unit,
                        v->count * m.unit, v->data, v);
    if (!ok) {
        note("  no memory");
        free(v->data);
        EXPECT(m.scarce, "there is memory");
        return true;
    }
    m.last = seq;
    for (unsigned i = 0; i < v->count; i++) {
        struct unit_state *u = &m.units[v->first + i];

        u->seqs[u->count++] = seq;
    }
    return true;
}

static bool op_durable(void)
{
    if (m.last > m.durable) {
        m.durable += roll((unsigned)(m.last - m.durable) + 1);
    }
    note("durable %llu", (ull)m.durable);
    tt_pending_durable(m.p, m.durable);
    return true;
}

/* A unit that waits, in a run of such units that nothing in flight touches;
 * the oldest number of these, or UINT64_MAX if there are none */
static uint64_t must_take(void)
{
    uint64_t oldest = UINT64_MAX;

    for (unsigned i = 0, end; i < UNITS; i = end + 1) {
        uint64_t run = UINT64_MAX;

        for (end = i; end < UNITS && ready_of(&m.units[end]); end++) {
            if (m.units[end].seqs[0] < run) {
                run = m.units[end].seqs[0];
            }
        }
        if ((i == 0 || m.units[i - 1].flight < 0) &&
            (end == UNITS || m.units[end].flight < 0) && run < oldest) {
            oldest = run;
        }
    }
    return oldest;
}

static bool check_request(const struct tt_writeback *w, int flight)
{
    uint64_t first = w->offset / m.unit, oldest = UINT64_MAX, part = 0,
             skip = 0;
    uint64_t must = must_take();

    EXPECT(w->length && w->offset % m.unit == 0 && w->length % m.unit == 0 &&
               w->offset + w->length <= m.size * m.unit,
           "a request of %llu + %llu", (ull)w->offset, (ull)w->length);
    EXPECT(w->length <= TT_WRITEBACK_MAX ||
               (w->kind == TT_KIND_ZERO && w->length <= m.largest),
           "a request of %llu bytes", (ull)w->length);
    EXPECT(w->kind == TT_KIND_WRITE ? w->part_count >= 1 : !w->part_count,
           "%u parts", w->part_count);
    for (uint64_t i = first; i < first + w->length / m.unit; i++) {
        struct unit_state *u = &m.units[i];
        uint64_t seq = ready_of(u);
        const struct model_version *v = &m.versions[seq];

        EXPECT(u->flight < 0, "unit %llu is in flight already", (ull)i);
        EXPECT(seq, "unit %llu has nothing durable", (ull)i);
        EXPECT(v->kind == w->kind, "unit %llu: kind", (ull)i);
        if (w->kind == TT_KIND_ZERO) {
            EXPECT(v->flags == w->flags, "unit %llu: flags", (ull)i);
        } else {
            EXPECT(part < w->part_count &&
                       w->parts[part].data + skip ==
                           v->data + (i - v->first) * m.unit,
                   "unit %llu: not version %llu", (ull)i, (ull)seq);
            skip += m.unit;
            if (skip >= w->parts[part].length) {
                EXPECT(skip == w->parts[part].length, "an odd part");
                part++;
                skip = 0;
            }
        }
        if (u->seqs[0] < oldest) {
            oldest = u->seqs[0];
        }
    }
    EXPECT(part == w->part_count, "%u parts", w->part_count);
    EXPECT(oldest <= must || m.scarce, "took %llu, and %llu waits", (ull)oldest,
           (ull)must);
    for (uint64_t i = first; i < first + w->length / m.unit; i++) {
        m.units[i].flight_seq = ready_of(&m.units[i]);
        m.units[i].flight = flight;
    }
    return true;
}

static bool op_take(void)
{
    int flight = 0;

    while (flight < FLIGHTS && m.flying[flight]) {
        flight++;
    }
    if (flight == FLIGHTS) {
        return true;
    }
    memset(&m.flights[flight], 0xee, sizeof(m.flights[flight]));
    if (!tt_pending_take(m.p, &m.flights[flight])) {
        note("take: nothing");
        EXPECT(must_take() == UINT64_MAX || m.scarce, "%llu was not taken",
               (ull)must_take());
        return true;
    }
    note("take: request %d: %llu + %llu in %u parts", flight,
         (ull)(m.flights[flight].offset / m.unit),
         (ull)(m.flights[flight].length / m.unit),
         m.flights[flight].part_count);
    m.flying[flight] = true;
    return check_request(&m.flights[flight], flight);
}

static bool op_finish(bool well)
{
    int flight = (int)roll(FLIGHTS);

    for (unsigned i = 0; !m.flying[flight]; i++) {
        if (i == FLIGHTS) {
            return true;
        }
        flight = (flight + 1) % FLIGHTS;
    }
    note("request %d is %s", flight, well ? "written" : "refused");
    for (unsigned i = 0; i < UNITS; i++) {
        struct unit_state *u = &m.units[i];
        unsigned gone = 0;

        if (u->flight != flight) {
            continue;
        }
        u->flight = -1;
        while (well && gone < u->count && u->seqs[gone] <= u->flight_seq) {
            gone++;
        }
        u->count -= gone;
        memmove(u->seqs, u->seqs + gone, u->count * sizeof(u->seqs[0]));
    }
    m.flying[flight] = false;
    (well ? tt_pending_written : tt_pending_refused)(m.p, &m.flights[flight]);
    memset(&m.flights[flight], 0xdd, sizeof(m.flights[flight]));
    return true;
}

static bool op_trim(void)
{
    unsigned least = 1;

    for (unsigned i = 0; i < UNITS; i++) {
        if (m.units[i].flight >= 0) {
            least = i + 1;
        }
    }
    /* or it grows */
    m.size = least + roll(UNITS - least + 1);
    note("resize to %u", m.size);
    for (unsigned i = m.size; i < UNITS; i++) {
        m.units[i].count = 0;
    }
    tt_pending_trim(m.p, m.size * m.unit);
    return true;
}

static bool one_op(void)
{
    unsigned dice = roll(100);

    if (dice < 40) {
        return op_add();
    } else if (dice < 58) {
        return op_durable();
    } else if (dice < 76) {
        return op_take();
    } else if (dice < 97) {
        return op_finish(sim_chance(&m.world, 75));
    }
    return op_trim();
}

/* Writes all that is left, or lets it be released. */
static bool last_ops(void)
{
    bool all = sim_chance(&m.world, 50);

    m.durable = all ? m.last : m.durable;
    tt_pending_durable(m.p, m.durable);
    note("%s", all ? "the rest" : "the end");
    for (bool more = true; more;) {
        more = false;
        if (all && (!op_take() || !check_state())) {
            return false;
        }
        for (unsigned i = 0; i < FLIGHTS; i++) {
            more = more || m.flying[i];
        }
        if (!op_finish(true) || !check_state() || !check_reads()) {
            return false;
        }
    }
    EXPECT(!all || tt_pending_empty(m.p), "something is left");
    return true;
}

static bool run_round(uint64_t seed)
{
    static const uint64_t units[] = { 512, 4096, 32768, 32768 };
    unsigned percent = 0;
    bool ok = true;

    memset(&m, 0, sizeof(m));
    sim_world_init(&m.world, seed);
    m.unit = units[roll(4)];
    m.size = UNITS;
    m.largest = 31 * m.unit;
    m.scarce = sim_chance(&m.world, 25);
    for (unsigned i = 0; i < UNITS; i++) {
        m.units[i].flight = -1;
    }
    m.p = tt_pending_new(model_release);
    ck_assert_ptr_nonnull(m.p);

    malloc_world = &m.world;
    for (unsigned i = 0; ok && i < OPS; i++) {
        if (m.scarce && sim_chance(&m.world, 10)) {
            static const unsigned percents[] = { 0, 50, 95, 100 };

            percent = percents[roll(4)];
        }
        malloc_fails = percent;
        ok = one_op();
        malloc_fails = 0;
        ok = ok && check_state() && check_reads();
    }
    ok = ok && last_ops();
    if (ok) {
        tt_pending_free(m.p);
        for (unsigned i = 1; ok && i <= m.last; i++) {
            if (m.versions[i].released != 1) {
                ok = wrong("version %u was released %u times", i,
                           m.versions[i].released);
            }
        }
    }
    if (!ok) {
        for (unsigned i = 0; i < m.lines; i++) {
            printf("  %s\n", m.log[i]);
        }
        printf("seed %llu: %s\nagain: TTJ_SEED=%llu TTJ_ROUNDS=1\n", (ull)seed,
               m.problem, (ull)seed);
    }
    return ok;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

START_TEST(at_random)
{
    uint64_t seed = env_number("TTJ_SEED", 1);
    uint64_t rounds = env_number("TTJ_ROUNDS", ROUNDS);

    printf("seed %llu, %llu rounds\n", (ull)seed, (ull)rounds);
    fflush(stdout);
    for (uint64_t i = 0; i < rounds; i++) {
        ck_assert(run_round(seed + i));
    }
    printf("malloc() failed %u times\n", malloc_failures);
    ck_assert_msg(malloc_failures || rounds < 20, "malloc() never failed");
}
END_TEST

int main(void)
{
    return unit_run("pending", (const TTest *const *const[]){
                                   &one_version,
                                   &reads_in_parts,
                                   &newest_durable,
                                   &replaced_is_not_level,
                                   &hot_block,
                                   &newer_over_in_flight,
                                   &refused,
                                   &out_of_order,
                                   &merging,
                                   &many_parts,
                                   &trim,
                                   &no_memory,
                                   &no_memory_for_gaps,
                                   &no_memory_to_inherit,
                                   &no_memory_to_split,
                                   &at_random,
                                   NULL,
                               });
}
