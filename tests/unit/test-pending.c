/*
 * Pending versions: each rule by hand
 *
 * test-pending-random makes random calls.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <ttjournal/pending.h>

#include "malloc-fails.h"

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
                                   NULL,
                               });
}
