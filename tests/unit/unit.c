/*
 * What the unit tests share: see unit.h
 *
 * Tests run in one process, so that valgrind and the sanitizers see all.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

void unit_create(struct unit *u, uint64_t seed)
{
    static uint8_t disk[SIM_DISK_MAX];

    sim_world_init(&u->world, seed);
    for (size_t i = 0; i < sizeof(disk); i++) {
        disk[i] = (uint8_t)sim_random(&u->world, 256);
    }
    sw_init(&u->sw, &u->world, disk, sizeof(disk), 512);
}

void unit_begin(struct unit *u, uint64_t seed)
{
    unit_create(u, seed);
    OK(&u->sw, sw_open(&u->sw));
}

void unit_end(struct unit *u)
{
    sw_clear(&u->sw);
}

void unit_write(struct unit *u, uint64_t offset, uint64_t length)
{
    static uint8_t buf[SIM_DISK_MAX];

    for (uint64_t i = 0; i < length; i++) {
        buf[i] = (uint8_t)sim_random(&u->world, 256);
    }
    OK(&u->sw, sw_write(&u->sw, offset, length, buf, SW_PRE_BEFORE));
}

void unit_fill_segment(struct unit *u, uint64_t left)
{
    const struct tt_writer *w = &u->sw.w;
    uint64_t segment =
        (w->next_offset - w->super.segments_offset) / w->super.segment_size;
    uint64_t end = tt_segment_offset(&w->super, segment + 1) - left;
    uint64_t head = 1024;

    /* all blocks are captured first, so that a write is one frame */
    OK(&u->sw, sw_zero(&u->sw, 0, SIM_DISK_MAX, SW_PRE_BEFORE));
    while (w->next_offset + head < end) {
        uint64_t length = end - w->next_offset - head;

        if (length > SIM_DISK_MAX) {
            length = SIM_DISK_MAX;
            if (end - w->next_offset < 3 * SIM_DISK_MAX) {
                length = SIM_DISK_MAX / 2;
            }
        } else {
            /* the last one: header, table and its payload fill it exactly */
            uint64_t pieces = tt_grid_pieces(0, length + 512);

            head = 304 + pieces * 8 <= 512 ? 512 : 1024;
            length = end - w->next_offset - head;
        }
        unit_write(u, 0, length);
        head = 1024;
    }
    ck_assert_uint_eq(w->next_offset, end);
}

void unit_reopen(struct unit *u)
{
    sw_kill(&u->sw);
    OK(&u->sw, sw_open(&u->sw));
}

void unit_step_clock(struct unit *u, int64_t seconds)
{
    u->sw.now.realtime += seconds * INT64_C(1000000000);
}

static int count_frame(void *opaque, const struct tt_frame *f,
                       const uint8_t *table)
{
    struct unit_scan *s = opaque;

    (void)table;
    s->frames++;
    s->seqs += f->record_count;
    return 0;
}

static int count_damage(void *opaque, const struct tt_damage *d)
{
    struct unit_scan *s = opaque;

    ck_assert_uint_lt(s->damage_count, UNIT_DAMAGES);
    s->damages[s->damage_count++] = *d;
    return 0;
}

void unit_scan(struct unit *u, struct unit_scan *ret)
{
    const struct tt_scan_ops ops = { count_frame, count_damage, ret };
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    memset(ret, 0, sizeof(*ret));
    ck_assert_msg(tt_scan_run(&u->sw.super, &src, 0, &ops, &ret->scan, &err) ==
                      0,
                  "%s", err.message);
}

int unit_run(const char *name, const TTest *const *const *tests)
{
    Suite *s = suite_create(name);
    TCase *tc = tcase_create(name);
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 0);
    for (size_t i = 0; tests[i]; i++) {
        tcase_add_test(tc, *tests[i]);
    }
    suite_add_tcase(s, tc);
    sr = srunner_create(s);
    srunner_set_fork_status(sr, CK_NOFORK);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
