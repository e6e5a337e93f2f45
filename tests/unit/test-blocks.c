/*
 * Sets of blocks against an array of bool, and the map chain of CHECKPOINTs
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

#define UNITS 70000u /* more than two chunks */

static void against_array(uint64_t seed, uint32_t unit)
{
    static bool want[UNITS];
    struct tt_blocks *b = tt_blocks_new(unit);
    struct sim_world w;

    sim_world_init(&w, seed);
    memset(want, 0, sizeof(want));
    for (unsigned i = 0, all = unit_rounds(400, 100); i < all; i++) {
        uint64_t most = sim_chance(&w, 80) ? 200 : UNITS;
        uint64_t at = sim_random(&w, (uint64_t)UNITS * unit);
        uint64_t length = sim_random(&w, most * unit), run;
        bool is;

        if (length > (uint64_t)UNITS * unit - at) {
            length = (uint64_t)UNITS * unit - at;
        }
        if (sim_chance(&w, 50)) {
            ck_assert(tt_blocks_add(b, at, length));
            for (uint64_t u = at / unit; length && u * unit < at + length;
                 u++) {
                want[u] = true;
            }
        } else {
            tt_blocks_remove(b, at, length);
            for (uint64_t u = (at + unit - 1) / unit;
                 (u + 1) * unit <= at + length; u++) {
                want[u] = false;
            }
        }
        at = sim_random(&w, (uint64_t)UNITS * unit - 1);
        is = tt_blocks_test(b, at, (uint64_t)UNITS * unit - at, &run);
        ck_assert(is == want[at / unit]);
        ck_assert_uint_gt(run, 0);
        for (uint64_t u = at / unit; u * unit < at + run; u++) {
            if (want[u] != is) {
                ck_abort_msg("seed %llu: unit %llu", (ull)seed, (ull)u);
            }
        }
        if (at + run < (uint64_t)UNITS * unit) {
            ck_assert_uint_eq((at + run) % unit, 0);
            ck_assert(want[(at + run) / unit] != is);
        }
        run = tt_blocks_next(b, at);
        for (uint64_t u = at / unit; u < UNITS; u++) {
            if (want[u]) {
                ck_assert_uint_eq(run, u * unit > at ? u * unit : at);
                break;
            }
            if (run <= u * unit) {
                ck_abort_msg("seed %llu: next of %llu", (ull)seed, (ull)at);
            }
        }
    }
    tt_blocks_free(b);
}

START_TEST(as_an_array)
{
    for (uint64_t seed = 0; seed < unit_rounds(20, 2); seed++) {
        against_array(seed, seed % 2 ? 512 : 4096);
    }
}
END_TEST

START_TEST(empty_set)
{
    struct tt_blocks *b = tt_blocks_new(4096);
    uint64_t run;

    ck_assert_uint_eq(tt_blocks_next(b, 0), UINT64_MAX);
    ck_assert(!tt_blocks_test(b, 12345, 99, &run));
    ck_assert_uint_eq(run, 99);
    ck_assert(!tt_blocks_test(b, 0, UINT64_MAX, &run));
    ck_assert(tt_blocks_add(b, 77, 0));
    ck_assert_uint_eq(tt_blocks_next(b, 0), UINT64_MAX);
    tt_blocks_remove(b, 0, UINT64_C(1) << 62);
    tt_blocks_free(b);
}
END_TEST

START_TEST(ends_of_a_large_disk)
{
    struct tt_blocks *b = tt_blocks_new(4096);
    uint64_t at = UINT64_C(1) << 42, run;

    ck_assert(tt_blocks_add(b, at, 512));
    ck_assert_uint_eq(tt_blocks_next(b, 0), at);
    ck_assert(tt_blocks_test(b, at + 4095, 8192, &run));
    ck_assert_uint_eq(run, 1);
    ck_assert(!tt_blocks_test(b, at - 1, 8192, &run));
    ck_assert_uint_eq(run, 1);
    tt_blocks_free(b);
}
END_TEST

/*
 * A block here and there of a disk as large as the format allows, all of it,
 * and all but one: neither takes memory or time for the disk's size.
 */
START_TEST(huge_disks)
{
    struct tt_blocks *b = tt_blocks_new(512);
    unsigned rounds = unit_rounds(20000, 1000);
    uint64_t size = TT_DISK_SIZE_MAX, hole = (size / 3) & ~UINT64_C(4095), run;
    struct sim_world w;

    sim_world_init(&w, 5);
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t at = (sim_random(&w, size / 4096 - 1)) * 4096;

        ck_assert(tt_blocks_add(b, at, 4096));
        ck_assert(tt_blocks_test(b, at, size - at, &run));
        ck_assert_uint_ge(run, 4096);
        ck_assert_uint_eq(tt_blocks_next(b, at), at);
    }
    ck_assert(tt_blocks_add(b, 0, size));
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t at = sim_random(&w, size);

        ck_assert(tt_blocks_test(b, at, size - at, &run));
        ck_assert_uint_eq(run, size - at);
    }
    tt_blocks_remove(b, hole, 4096);
    ck_assert(!tt_blocks_test(b, hole, size - hole, &run));
    ck_assert_uint_eq(run, 4096);
    ck_assert(tt_blocks_test(b, 0, size, &run));
    ck_assert_uint_eq(run, hole);
    ck_assert_uint_eq(tt_blocks_next(b, hole), hole + 4096);
    ck_assert(tt_blocks_add(b, hole, 4096));
    ck_assert(tt_blocks_test(b, 0, size, &run));
    ck_assert_uint_eq(run, size);
    tt_blocks_remove(b, 0, size);
    ck_assert_uint_eq(tt_blocks_next(b, 0), UINT64_MAX);
    tt_blocks_free(b);
}
END_TEST

/* ---- the map in CHECKPOINTs -------------------------------------------- */

START_TEST(map_in_several_parts)
{
    struct tt_blocks *set = tt_blocks_new(4096), *got = tt_blocks_new(4096);
    struct tt_checkpoint c = { .level_seq = 5,
                               .map_prev = 4096,
                               .has_stat = true,
                               .disk_inode = 3,
                               .disk_mtime = -1 };
    unsigned parts = 0, ranges = 0;
    bool more = true;

    /* every other block: more ranges than one body takes */
    for (uint64_t i = 0; i < 150000; i++) {
        ck_assert(tt_blocks_add(set, i * 8192, 4096));
    }
    while (more) {
        struct tt_checkpoint_body cp;
        uint32_t length;
        uint8_t *body = tt_checkpoint_encode(&c, set, &length, &more);

        ck_assert_ptr_nonnull(body);
        ck_assert_uint_le(length, TT_PAYLOAD_RECORD_MAX);
        memcpy(&cp, body, sizeof(cp));
        ck_assert_uint_eq(tt_get64(cp.level_seq), 5);
        ck_assert_uint_eq(tt_get32(cp.flags), TT_CHECKPOINT_HAS_STAT);
        ck_assert_uint_eq(length, sizeof(cp) + tt_get32(cp.range_count) * 16);
        for (uint32_t i = 0; i < tt_get32(cp.range_count); i++) {
            struct tt_range r;

            memcpy(&r, body + sizeof(cp) + i * sizeof(r), sizeof(r));
            ck_assert(
                tt_blocks_add(got, tt_get64(r.offset), tt_get64(r.length)));
        }
        ranges += tt_checkpoint_done(body, set);
        free(body);
        parts++;
    }
    ck_assert_uint_gt(parts, 1);
    ck_assert_uint_eq(ranges, 150000);
    ck_assert_uint_eq(tt_blocks_next(set, 0), UINT64_MAX);
    for (uint64_t i = 0; i < 150000; i++) {
        uint64_t run;

        ck_assert(tt_blocks_test(got, i * 8192, 8192, &run));
        ck_assert_uint_eq(run, 4096);
    }
    tt_blocks_free(set);
    tt_blocks_free(got);
}
END_TEST

START_TEST(empty_map)
{
    struct tt_blocks *set = tt_blocks_new(4096);
    struct tt_checkpoint c = { .level_seq = 9, .clean = true };
    uint32_t length;
    bool more;
    uint8_t *body = tt_checkpoint_encode(&c, set, &length, &more);

    ck_assert(!more);
    ck_assert_uint_eq(length, sizeof(struct tt_checkpoint_body));
    ck_assert_uint_eq(tt_checkpoint_done(body, set), 0);
    free(body);
    tt_blocks_free(set);
}
END_TEST

int main(void)
{
    return unit_run("blocks", (const TTest *const *const[]){
                                  &as_an_array,
                                  &empty_set,
                                  &ends_of_a_large_disk,
                                  &huge_disks,
                                  &map_in_several_parts,
                                  &empty_map,
                                  NULL,
                              });
}
