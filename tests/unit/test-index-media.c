/*
 * Indexes of journals that power cuts and bad media have been at
 *
 * What a history says that opens with an index is held against what one says
 * that reads all of the journal.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>

#include "simindex.h"
#include "unit.h"

static void extend(struct simindex *x, struct unit *u)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    ck_assert_msg(si_extend(x, &src, true, &err) == 0, "%s", err.message);
}

static void same_answer(const struct tt_source *src,
                        const struct tt_history *with,
                        const struct tt_history *without, uint64_t seq,
                        uint64_t at, uint64_t seed)
{
    struct tt_extent a, b;
    uint8_t buf[2][512];
    int ret;

    ck_assert_int_eq(tt_view_lookup(with, seq, at, 512, &a, NULL), 0);
    ck_assert_int_eq(tt_view_lookup(without, seq, at, 512, &b, NULL), 0);
    ck_assert_msg(a.kind == b.kind && a.record_seq == b.record_seq &&
                      a.place == b.place,
                  "seed %llu: view(%llu) at %llu: %d of %llu, not %d of %llu",
                  (ull)seed, (ull)seq, (ull)at, a.kind, (ull)a.record_seq,
                  b.kind, (ull)b.record_seq);
    if (a.kind == TT_EXTENT_JOURNAL) {
        ret = tt_extent_read(with, src, &a, at, 512, buf[0], NULL);
        ck_assert_int_eq(
            tt_extent_read(without, src, &b, at, 512, buf[1], NULL), ret);
        ck_assert(ret < 0 || !memcmp(buf[0], buf[1], 512));
    }
}

/* Some of each moment; the newest ones at all places. */
static void same_answers(struct unit *u, struct simindex *x, uint64_t seed)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *with = tt_history_new(), *without = tt_history_new();
    struct tt_error err = { 0 };
    uint64_t last;
    size_t n, m;

    ck_assert_msg(si_open(x, with, &src, &err) == 0, "seed %llu: %s", (ull)seed,
                  err.message);
    ck_assert_int_eq(tt_history_load(without, &src, &err), 0);
    tt_history_sessions(with, &n);
    tt_history_sessions(without, &m);
    ck_assert_uint_eq(n, m);
    tt_history_damages(with, &n);
    tt_history_damages(without, &m);
    ck_assert_uint_eq(n, m);
    last = tt_history_end(without)->last_seq;
    ck_assert_uint_eq(tt_history_end(with)->last_seq, last);
    for (uint64_t seq = 0; seq <= last; seq++) {
        for (uint64_t at = 512 * (seq % 7); at < SIM_DISK_MAX; at += 7 * 512) {
            same_answer(&src, with, without, seq, at, seed);
        }
    }
    tt_history_free(with);
    tt_history_free(without);
    si_close(x);
}

/* ---- what a power cut left --------------------------------------------- */

static uint64_t segment_now(const struct unit *u)
{
    return tt_segment_at(&u->sw.super, u->sw.w.next_offset - 1);
}

static void fill_until(struct unit *u, uint64_t segment)
{
    while (segment_now(u) < segment) {
        unit_write(u, 512 * sim_random(&u->world, 64), 512 * 60);
    }
}

/*
 * A power cut takes one of the frames that no flush has covered, and leaves
 * those behind it, some segment's first ones and their footers among them; the
 * medium gives an error where the lost one was.  So a new session goes on
 * behind all of them.  Returns the last number that a stale frame has.
 */
static uint64_t cut_short(struct unit *u, uint64_t seed)
{
    uint64_t lost, stale, segments = 1 + seed % 3, before = seed / 3 % 3;

    unit_begin(u, seed);
    unit_write(u, 0, SIM_DISK_MAX); /* all is captured */
    fill_until(u, before);
    OK(&u->sw, sw_flush(&u->sw));
    OK(&u->sw, sw_journal_flush(&u->sw));
    for (unsigned i = 0; i < seed % 4; i++) {
        unit_write(u, 0, 1024);
    }
    lost = u->sw.w.next_offset;
    fill_until(u, before + segments);
    unit_write(u, 512, 1024);
    ck_assert_uint_gt(u->sw.tip->offset, lost);
    stale = u->sw.tip->last_seq;
    sw_abandon(&u->sw);
    u->sw.journal.bad_offset = lost;
    u->sw.journal.bad_length = 512;
    while (u->sw.tip->offset >= lost) {
        u->sw.tip = u->sw.tip->parent;
    }
    ck_assert(sim_node_reaches(u->sw.tip, u->sw.durable));
    u->sw.boot++;
    u->sw.damage_ok = u->sw.disk_unsure = true;
    OK(&u->sw, sw_open(&u->sw));
    ck_assert_uint_gt(segment_now(u), before + segments);
    return stale;
}

static void go_on(struct unit *u, unsigned segments)
{
    for (; segments; segments--) {
        fill_until(u, segment_now(u) + 1);
        OK(&u->sw, sw_flush(&u->sw));
    }
    unit_write(u, 0, 512);
    OK(&u->sw, sw_flush(&u->sw));
    OK(&u->sw, sw_durable(&u->sw));
}

/* Their footers are of frames that are no history. */
START_TEST(stale_segments_are_not_skipped)
{
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct simindex x;
        struct unit u;

        si_init(&x, seed);
        si_totals = (struct si_totals){ 0 };
        cut_short(&u, seed);
        if (seed % 2) {
            extend(&x, &u);
        }
        go_on(&u, 3);
        extend(&x, &u);
        ck_assert_uint_gt(si_totals.from_footers, 0);
        same_answers(&u, &x, seed);
        si_clear(&x);
        unit_end(&u);
    }
}
END_TEST

/* Nor if what began behind them cannot be read any more. */
START_TEST(stale_segments_before_a_bad_one)
{
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct simindex x;
        struct unit u;
        uint64_t start, stale;

        si_init(&x, seed);
        stale = cut_short(&u, seed);
        /* so many that the next segment's header knows them to be durable */
        while (u.sw.tip->last_seq <= stale) {
            unit_write(&u, 0, 512);
        }
        OK(&u.sw, sw_journal_flush(&u.sw));
        start = tt_segment_offset(&u.sw.super, segment_now(&u));
        go_on(&u, 1);
        u.sw.journal.bad_length = 0;
        simdisk_destroy(&u.sw.journal, start, 256);
        extend(&x, &u);
        same_answers(&u, &x, seed);
        si_clear(&x);
        unit_end(&u);
    }
}
END_TEST

int main(void)
{
    const TTest *const *const tests[] = {
        &stale_segments_are_not_skipped,
        &stale_segments_before_a_bad_one,
        NULL,
    };

    return unit_run("index-media", tests);
}
