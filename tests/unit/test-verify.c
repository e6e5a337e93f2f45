/*
 * Verification: is every bit that changes found?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "unit.h"

struct found {
    unsigned count, harmless;
    struct tt_finding last;
    char what[300];
};

static void note_finding(void *opaque, const struct tt_finding *f)
{
    struct found *found = opaque;

    found->count++;
    found->harmless += f->harmless;
    found->last = *f;
    snprintf(found->what, sizeof(found->what), "%s", f->what);
}

static void verify(struct unit *u, struct found *found)
{
    const struct tt_verify_ops ops = { .finding = note_finding,
                                       .opaque = found };
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };
    uint64_t count = 99;

    memset(found, 0, sizeof(*found));
    ck_assert_msg(tt_verify(&src, &ops, &count, &err) == 0, "%s", err.message);
    ck_assert_uint_eq(count, found->count);
}

static void expect_whole(struct unit *u)
{
    struct found found;

    verify(u, &found);
    ck_assert_msg(found.count == 0, "%u findings: %s", found.count, found.what);
}

START_TEST(whole_journals)
{
    for (uint64_t seed = 1; seed < 12; seed++) {
        struct unit u;

        unit_begin(&u, seed);
        expect_whole(&u);
        for (unsigned i = 0; i < 30; i++) {
            unit_write(&u, 512 * sim_random(&u.world, 100), 4608);
            if (sim_chance(&u.world, 20)) {
                OK(&u.sw, sw_flush(&u.sw));
            }
            if (sim_chance(&u.world, 5)) {
                unit_step_clock(&u, -3600);
            }
            if (sim_chance(&u.world, 5)) {
                OK(&u.sw, sw_mark(&u.sw, "here"));
                OK(&u.sw, sw_resize(&u.sw, SIM_DISK_MAX - 8192));
                OK(&u.sw, sw_resize(&u.sw, SIM_DISK_MAX));
            }
            if (sim_chance(&u.world, 10)) {
                unit_reopen(&u);
            }
        }
        expect_whole(&u);
        OK(&u.sw, sw_close(&u.sw));
        expect_whole(&u);
        unit_end(&u);
    }
}
END_TEST

/* What a power cut left behind the end is not called damage. */
START_TEST(torn_end_is_no_damage)
{
    struct found found;
    struct unit u;

    unit_begin(&u, 2);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    unit_write(&u, 0, 8192);
    sw_abandon(&u.sw);
    simdisk_tear_last(&u.sw.journal, 4096);
    verify(&u, &found);
    ck_assert_uint_eq(found.count, found.harmless);
    unit_end(&u);
}
END_TEST

static void small_journal(struct unit *u)
{
    static const uint8_t block[512] = "twelve";

    unit_begin(u, 3);
    OK(&u->sw, sw_write(&u->sw, 512, 512, block, SW_PRE_WITH));
    OK(&u->sw, sw_mark(&u->sw, "x"));
    OK(&u->sw, sw_zero(&u->sw, 4096, 4096, SW_PRE_AFTER));
    OK(&u->sw, sw_close(&u->sw));
    ck_assert_uint_le(u->sw.journal.size, 2 * 65536);
}

START_TEST(every_bit)
{
    uint64_t in = 1000 / unit_rounds(1000, 1);
    uint64_t step = (in * in) | 1; /* odd: the sample has all bits of a byte */
    struct found found;
    struct unit u;
    uint64_t bits;

    small_journal(&u);
    expect_whole(&u);
    bits = u.sw.journal.size * 8;
    for (uint64_t bit = 0; bit < bits; bit += step) {
        uint64_t at = bit / 8;

        /* of the padding behind a superblock, a sample */
        if (at < TT_SEGMENTS_OFFSET && at % TT_SUPERBLOCK_COPY >= 512 &&
            at % 509) {
            continue;
        }
        simdisk_flip(&u.sw.journal, at, bit % 8);
        verify(&u, &found);
        ck_assert_msg(found.count > 0, "bit %llu of byte %llu is not found",
                      (ull)(bit % 8), (ull)at);
        simdisk_flip(&u.sw.journal, at, bit % 8);
    }
    expect_whole(&u);
    unit_end(&u);
}
END_TEST

/* One finding, that names the place on the disk and in time. */
START_TEST(names_what_is_damaged)
{
    const struct sim_node *n;
    struct found found;
    struct tt_frame f;
    struct unit u;

    unit_begin(&u, 4);
    unit_write(&u, 0, SIM_DISK_MAX / 2);
    unit_write(&u, 8192, 8192);
    n = u.sw.tip;
    unit_write(&u, 0, 512);
    OK(&u.sw, sw_close(&u.sw));
    ck_assert(tt_frame_decode(&u.sw.super, n->offset,
                              u.sw.journal.cache + n->offset, &f));
    simdisk_flip(&u.sw.journal, n->offset + f.payload_offset + 5000, 0);
    verify(&u, &found);
    ck_assert_uint_eq(found.count, 1);
    ck_assert_uint_eq(found.last.disk_offset, 12288);
    ck_assert_uint_eq(found.last.disk_length, 4096);
    ck_assert_uint_eq(found.last.offset, n->offset + f.payload_offset + 4096);
    ck_assert_uint_eq(found.last.first_seq, n->last_seq);
    ck_assert_int_eq(found.last.time, n->states[0].time);
    unit_end(&u);
}
END_TEST

START_TEST(not_a_journal)
{
    struct tt_source src;
    struct tt_error err = { 0 };
    struct unit u;
    uint64_t count;

    unit_create(&u, 5);
    memset(u.sw.journal.cache, 'x', u.sw.journal.size);
    src = sw_quiet_source(&u.sw);
    ck_assert_int_eq(tt_verify(&src, NULL, &count, &err), -TT_EFORMAT);
    unit_end(&u);
}
END_TEST

int main(void)
{
    return unit_run("verify", (const TTest *const *const[]){
                                  &whole_journals,
                                  &torn_end_is_no_damage,
                                  &every_bit,
                                  &names_what_is_damaged,
                                  &not_a_journal,
                                  NULL,
                              });
}
