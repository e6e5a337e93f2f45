/*
 * Recovery: what must be redone, written again, compared, captured?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

static void recover(struct unit *u, struct tt_recovery *r)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    ck_assert_msg(tt_recovery_run(&u->sw.super, &src, r, &err) == 0, "%s",
                  err.message);
}

START_TEST(of_an_empty_journal)
{
    struct tt_recovery r;
    struct unit u;

    unit_create(&u, 1);
    recover(&u, &r);
    ck_assert(r.scan.empty);
    ck_assert_uint_eq(r.redo_count + r.rewrite_count + r.sample_count, 0);
    ck_assert(!tt_blocks_test(r.captured, 0, 1, NULL));
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

START_TEST(closed_clean)
{
    struct tt_recovery r;
    struct unit u;

    unit_begin(&u, 2);
    unit_write(&u, 0, 4096);
    recover(&u, &r);
    ck_assert(!r.clean);
    tt_recovery_clear(&r);
    OK(&u.sw, sw_close(&u.sw));
    recover(&u, &r);
    ck_assert(r.clean);
    ck_assert_uint_eq(r.redo_count, 0);
    tt_recovery_clear(&r);
    OK(&u.sw, sw_open(&u.sw));
    recover(&u, &r);
    ck_assert(!r.clean);
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

/* Random writes over a few blocks, in the model's eyes at every step */
START_TEST(newest_only_and_complete)
{
    for (uint64_t seed = 1; seed < 30; seed++) {
        struct tt_recovery r;
        struct unit u;

        unit_begin(&u, seed);
        for (unsigned i = 0; i < 25; i++) {
            uint64_t at = sim_random(&u.world, 60) * 512;

            if (sim_chance(&u.world, 20)) {
                OK(&u.sw, sw_zero(&u.sw, at, 3072, SW_PRE_AFTER));
            } else if (sim_chance(&u.world, 10)) {
                OK(&u.sw,
                   sw_resize(&u.sw, 512 * (70 + sim_random(&u.world, 59))));
            } else if (sim_chance(&u.world, 10)) {
                OK(&u.sw, sw_flush(&u.sw));
            } else {
                unit_write(&u, at, 512 * (1 + sim_random(&u.world, 9)));
            }
            recover(&u, &r);
            OK(&u.sw, sw_check_recovery(&u.sw, &r, u.sw.tip));
            tt_recovery_clear(&r);
        }
        unit_end(&u);
    }
}
END_TEST

/* The samples are level, newest, disjoint, and alike; another disk is not. */
START_TEST(samples_tell_the_disk)
{
    static uint8_t buf[SIM_DISK_MAX];
    uint8_t seen[SIM_DISK_MAX / 512] = { 0 };
    struct tt_source src;
    struct tt_recovery r;
    struct unit u;

    unit_begin(&u, 3);
    for (unsigned i = 0; i < 20; i++) {
        unit_write(&u, 512 * (i * 7 % 100), 2048);
    }
    OK(&u.sw, sw_zero(&u.sw, 1024, 512, SW_PRE_BEFORE));
    OK(&u.sw, sw_flush(&u.sw));
    src = sw_quiet_source(&u.sw);
    recover(&u, &r);
    ck_assert_uint_gt(r.sample_count, 5);
    for (size_t i = 0; i < r.sample_count; i++) {
        const struct tt_redo *s = &r.samples[i];

        ck_assert_uint_le(s->seq, r.level_seq);
        ck_assert(i == 0 || s->seq < r.samples[i - 1].seq);
        for (uint64_t at = s->disk_offset; at < s->disk_offset + s->disk_length;
             at += 512) {
            ck_assert(!seen[at / 512]++);
        }
        memcpy(buf, u.sw.disk.cache + s->disk_offset, s->disk_length);
        ck_assert_int_eq(tt_recovery_compare(&u.sw.super, &src, s, buf, NULL),
                         1);
        buf[s->disk_length - 1] ^= 1;
        ck_assert_int_eq(tt_recovery_compare(&u.sw.super, &src, s, buf, NULL),
                         0);
    }
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

static unsigned samples_in(const struct tt_recovery *r, uint64_t from,
                           uint64_t to)
{
    unsigned count = 0;

    for (size_t i = 0; i < r->sample_count; i++) {
        const struct tt_redo *s = &r->samples[i];

        count += s->disk_offset < to && s->disk_offset + s->disk_length > from;
    }
    return count;
}

/* What may have changed unseen proves nothing, and must not be captured. */
START_TEST(gaps_have_no_samples)
{
    struct tt_recovery r;
    uint64_t open, run;
    struct unit u;

    unit_begin(&u, 4);
    for (unsigned i = 0; i < 8; i++) {
        unit_write(&u, 4096 * i, 512);
    }
    OK(&u.sw, sw_flush(&u.sw));
    recover(&u, &r);
    ck_assert_uint_eq(samples_in(&r, 4096, 3 * 4096), 2);
    ck_assert(!tt_blocks_test(r.captured, 40960, 4096, NULL));
    tt_recovery_clear(&r);

    open = unit_gap(&u, 0, TT_GAP_OPEN, 0, 0);
    OK(&u.sw, sw_durable(&u.sw));
    recover(&u, &r);
    ck_assert_uint_eq(r.open_gap, open);
    ck_assert_uint_eq(r.gap_from_seq, open - 1);
    ck_assert_uint_eq(r.sample_count, 0);
    ck_assert(tt_blocks_test(r.captured, 0, u.sw.disk_size, &run));
    ck_assert_uint_eq(run, u.sw.disk_size);
    tt_recovery_clear(&r);

    unit_gap(&u, open, 0, 4096, 2 * 4096);
    unit_gap(&u, 0, 0, 40960, 4096);
    recover(&u, &r);
    ck_assert_uint_eq(r.open_gap, 0);
    ck_assert_uint_eq(samples_in(&r, 4096, 3 * 4096), 0);
    ck_assert_uint_eq(samples_in(&r, 0, 4096), 1);
    ck_assert_uint_ge(r.sample_count, 6);
    ck_assert(tt_blocks_test(r.captured, 40960, 4096, NULL));
    ck_assert(!tt_blocks_test(r.captured, 45056, 4096, NULL));
    tt_recovery_clear(&r);

    /* whose ranges nobody knows */
    unit_gap(&u, 0, 0, 0, 0);
    recover(&u, &r);
    ck_assert_uint_eq(r.open_gap, 0);
    ck_assert_uint_eq(r.sample_count, 0);
    ck_assert(tt_blocks_test(r.captured, 45056, 4096, NULL));
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

/* To recovery and to a reader of the newest moment */
static void check_gap_open(struct unit *u, bool open)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    struct tt_recovery r;
    struct tt_moment m;

    recover(u, &r);
    ck_assert(!r.open_gap == !open);
    tt_recovery_clear(&r);
    ck_assert_int_eq(tt_history_load(h, &src, &err), 0);
    ck_assert_int_eq(tt_moment_resolve(h, "latest", NULL, 0, &m, &err), 0);
    ck_assert_msg(!strstr(m.note, " on (seq:") == !open, "%s", m.note);
    tt_history_free(h);
}

/*
 * A GAP whose append has failed may be whole all the same.  Its writer went on
 * unrecorded, so it must not end the gap for those who find it: not as it is,
 * and not once the next session has made it durable.
 */
START_TEST(a_failed_append_closes_no_gap)
{
    for (int power = 0; power < 2; power++) {
        uint64_t open;
        struct unit u;

        unit_begin(&u, 7);
        unit_write(&u, 0, 4096);
        OK(&u.sw, sw_flush(&u.sw));
        open = unit_gap(&u, 0, TT_GAP_OPEN, 0, 0);
        OK(&u.sw, sw_durable(&u.sw));
        unit_gap(&u, open, 0, 4096, 4096);
        OK(&u.sw, sw_journal_flush(&u.sw));
        check_gap_open(&u, true);
        if (power) {
            sw_power_cut(&u.sw);
        } else {
            sw_kill(&u.sw);
        }
        u.sw.damage_ok = true; /* the model knows no gaps */
        OK(&u.sw, sw_open(&u.sw));
        check_gap_open(&u, true);
        unit_gap(&u, open, 0, 0, 0);
        check_gap_open(&u, true);
        OK(&u.sw, sw_durable(&u.sw));
        check_gap_open(&u, false);
        unit_end(&u);
    }
}
END_TEST

/* What a later session says of the gap's beginning is what the GAP said. */
START_TEST(a_gap_keeps_its_beginning)
{
    struct tt_gap_body body = {
        .from_seq = tt_put64(2),
        .from_epoch = tt_put64(41),
        .from_time = tt_put64(77),
        .flags = tt_put32(TT_GAP_OPEN),
    };
    const struct tt_request req = {
        .kind = TT_KIND_GAP,
        .flags = TT_RECORD_INLINE,
        .payload = &body,
        .payload_length = sizeof(body),
    };
    struct tt_recovery r;
    struct unit u;

    unit_begin(&u, 8);
    OK(&u.sw, sw_append(&u.sw, &req, 1));
    unit_step_clock(&u, -3600);
    OK(&u.sw, sw_durable(&u.sw));
    recover(&u, &r);
    ck_assert_uint_eq(r.gap_from_seq, 2);
    ck_assert_uint_eq(r.gap_from_epoch, 41);
    ck_assert_int_eq(r.gap_from_time, 77);
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

static bool is_size(const struct tt_recovery *r, uint64_t size)
{
    struct tt_error err = { 0 };
    bool shrunk;
    int ret = tt_prove_size(r, size, &shrunk, &err);

    ck_assert(!shrunk);
    ck_assert(ret == 0 || (err.code == TT_EOTHERDISK && strlen(err.message)));
    return ret == 0;
}

/* A RESIZE to be redone excuses the sizes that it names, and no other. */
START_TEST(sizes_are_named)
{
    struct tt_recovery r;
    struct unit u;

    unit_begin(&u, 9);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_resize(&u.sw, 40960));
    OK(&u.sw, sw_flush(&u.sw));
    recover(&u, &r);
    ck_assert(!r.resized);
    ck_assert(is_size(&r, 40960));
    ck_assert(!is_size(&r, SIM_DISK_MAX));
    ck_assert(!is_size(&r, 40960 + 512));
    tt_recovery_clear(&r);
    OK(&u.sw, sw_resize(&u.sw, 45056));
    OK(&u.sw, sw_resize(&u.sw, 53248));
    recover(&u, &r);
    ck_assert(r.resized);
    ck_assert(is_size(&r, 40960));
    ck_assert(is_size(&r, 45056));
    ck_assert(is_size(&r, 53248));
    ck_assert(!is_size(&r, SIM_DISK_MAX));
    ck_assert(!is_size(&r, 40960 - 512));
    ck_assert(!is_size(&r, 49152));
    ck_assert(!is_size(&r, 0));
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

/*
 * A redo is what the record wrote, also where newer ones left only a part of
 * it; and what is damaged is not redone, but the rest of the record is.
 */
START_TEST(redo_is_checked)
{
    static uint8_t buf[SIM_DISK_MAX];
    struct tt_source src;
    struct tt_recovery r;
    struct tt_error err;
    struct unit u;
    const struct sim_state *want;
    unsigned damaged = 0;
    uint64_t payload;

    unit_begin(&u, 5);
    unit_write(&u, 512, 16384);
    OK(&u.sw, sw_zero(&u.sw, 5120, 512, SW_PRE_BEFORE));
    unit_write(&u, 40960, 512);
    want = &u.sw.tip->states[u.sw.tip->last_seq - u.sw.tip->first_seq];
    src = sw_quiet_source(&u.sw);
    recover(&u, &r);
    ck_assert_uint_ge(r.redo_count, 4);
    for (size_t i = 0; i < r.redo_count; i++) {
        const struct tt_redo *d = &r.redos[i];

        if (d->kind == TT_KIND_WRITE) {
            OK(&u.sw, tt_redo_read(&u.sw.super, &src, d, buf, &err));
            ck_assert(
                !memcmp(buf, want->data + d->disk_offset, d->disk_length));
        }
    }
    /* the last byte of the large write: the part behind the zeroes has it */
    payload = 0;
    for (size_t i = 0; i < r.redo_count; i++) {
        if (r.redos[i].disk_offset == 5632) {
            payload = r.redos[i].payload + r.redos[i].disk_length - 1;
        }
    }
    ck_assert(payload);
    simdisk_flip(&u.sw.journal, payload, 3);
    for (size_t i = 0; i < r.redo_count; i++) {
        if (r.redos[i].kind == TT_KIND_WRITE &&
            tt_redo_read(&u.sw.super, &src, &r.redos[i], buf, &err) < 0) {
            ck_assert_int_eq(err.code, TT_EDAMAGED);
            ck_assert_uint_eq(r.redos[i].disk_offset, 5632);
            damaged++;
        }
    }
    ck_assert_uint_eq(damaged, 1);
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

/* It looks at what was written since the checkpoint, not at all history. */
START_TEST(takes_time_by_the_tail)
{
    struct tt_recovery r;
    struct tt_source src;
    struct unit u;
    uint64_t calls;

    unit_begin(&u, 4);
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned k = 0; k < 40; k++) {
            unit_write(&u, 512 * k, 512);
        }
        OK(&u.sw, sw_flush(&u.sw));
        unit_step_clock(&u, -3600);
    }
    unit_write(&u, 0, 512);
    OK(&u.sw, sw_flush(&u.sw));
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    src = simdisk_source(&u.sw.journal);
    calls = u.world.calls;
    OK(&u.sw, tt_recovery_run(&u.sw.super, &src, &r, NULL));
    ck_assert_uint_eq(r.scan.last_seq, u.sw.tip->last_seq);
    OK(&u.sw, sw_check_recovery(&u.sw, &r, u.sw.tip));
    /* the samples walk back by headers; no payload but the tail's is read */
    ck_assert_uint_lt(u.world.calls - calls, 1000);
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

/* One part of the map cannot be read: all of history is asked. */
START_TEST(map_with_a_hole)
{
    struct tt_recovery r;
    const struct sim_node *n;
    struct tt_frame f;
    struct unit u;

    unit_begin(&u, 5);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    n = u.sw.tip;
    ck_assert(tt_frame_decode(&u.sw.super, n->offset,
                              u.sw.journal.cache + n->offset, &f));
    unit_write(&u, 8192, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    unit_step_clock(&u, -3600);
    for (unsigned i = 0; i < 4; i++) {
        OK(&u.sw, sw_flush(&u.sw));
    }
    simdisk_flip(&u.sw.journal, n->offset + 300, 1);
    recover(&u, &r);
    ck_assert(tt_blocks_test(r.captured, 0, 1, NULL));
    ck_assert(tt_blocks_test(r.captured, 8192, 1, NULL));
    ck_assert_uint_eq(r.damage_count, 1);
    tt_recovery_clear(&r);
    /* the next session notes the damage; it is not new to those behind it */
    sw_kill(&u.sw);
    u.sw.damage_ok = true;
    OK(&u.sw, sw_open(&u.sw));
    recover(&u, &r);
    ck_assert_uint_eq(r.damage_count, 0);
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

/* A crash at each call of recovery, and again at each call of the next. */
START_TEST(crash_at_every_call_of_recovery)
{
    for (int power = 0; power < 2; power++) {
        bool done = false;

        for (unsigned nth = 1; !done; nth++) {
            struct unit u;
            int ret;

            unit_begin(&u, 6);
            unit_write(&u, 512, 6144);
            OK(&u.sw, sw_flush(&u.sw));
            unit_write(&u, 16384, 4096);
            OK(&u.sw, sw_resize(&u.sw, 40960));
            OK(&u.sw, sw_journal_flush(&u.sw));
            unit_write(&u, 0, 9216);
            sw_kill(&u.sw);
            u.world.crash_at = u.world.calls + nth;
            ret = sw_open(&u.sw);
            u.world.crash_at = 0;
            done = ret == 0;
            ck_assert_msg(done || ret == SIM_CRASH, "%u: %d %s", nth, ret,
                          u.sw.problem);
            if (power) {
                sw_power_cut(&u.sw);
            } else {
                sw_kill(&u.sw);
            }
            OK(&u.sw, sw_open(&u.sw));
            OK(&u.sw, sw_check_disk_level(&u.sw));
            OK(&u.sw, sw_check_views(&u.sw, 100));
            unit_end(&u);
        }
    }
}
END_TEST

int main(void)
{
    return unit_run("recover", (const TTest *const *const[]){
                                   &of_an_empty_journal,
                                   &closed_clean,
                                   &newest_only_and_complete,
                                   &samples_tell_the_disk,
                                   &gaps_have_no_samples,
                                   &a_failed_append_closes_no_gap,
                                   &a_gap_keeps_its_beginning,
                                   &sizes_are_named,
                                   &redo_is_checked,
                                   &takes_time_by_the_tail,
                                   &map_with_a_hole,
                                   &crash_at_every_call_of_recovery,
                                   NULL,
                               });
}
