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

/* Some places at some moments */
static void same_answers(struct unit *u, struct simindex *x, uint64_t seed)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *with = tt_history_new(), *without = tt_history_new();
    struct tt_error err = { 0 };
    uint64_t last, step;
    size_t n, m;

    ck_assert_msg(si_open(x, with, &src, &err) == 0, "seed %llu: %s", (ull)seed,
                  err.message);
    ck_assert_int_eq(tt_history_load(without, &src, &err), 0);
    tt_history_sessions(with, &n);
    tt_history_sessions(without, &m);
    ck_assert_uint_eq(n, m);
    last = tt_history_end(without)->last_seq;
    ck_assert_uint_eq(tt_history_end(with)->last_seq, last);
    step = 1 + last / unit_rounds(600, 60);
    for (uint64_t seq = 0; seq <= last; seq += step) {
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
    for (uint64_t seed = 0; seed < unit_rounds(9, 2); seed++) {
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
    for (uint64_t seed = 0; seed < unit_rounds(6, 2); seed++) {
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
        if (seed % 2) {
            go_on(&u, 1);
        } else {
            fill_until(&u, segment_now(&u) + 1);
        }
        u.sw.journal.bad_length = 0;
        simdisk_destroy(&u.sw.journal, start, 256);
        extend(&x, &u);
        same_answers(&u, &x, seed);
        si_clear(&x);
        unit_end(&u);
    }
}
END_TEST

/* ---- a medium that is well again --------------------------------------- */

/* Several segments, with a frame in the second one that cannot be read. */
static uint64_t with_bad_frame(struct unit *u, uint64_t seed, bool start)
{
    uint64_t bad;

    unit_begin(u, seed);
    unit_write(u, 0, SIM_DISK_MAX);
    fill_until(u, 1);
    unit_write(u, 0, 512);
    bad = start ? tt_segment_offset(&u->sw.super, segment_now(u))
                : u->sw.w.next_offset;
    OK(&u->sw, sw_mark(&u->sw, "m")); /* what a footer does not tell */
    go_on(u, 3);
    return bad;
}

/* What cannot be read for a time is damage for that time. */
START_TEST(damage_that_is_over)
{
    for (uint64_t seed = 0; seed < unit_rounds(4, 2); seed++) {
        struct tt_source src;
        struct tt_history *h;
        struct simindex x;
        struct unit u;
        size_t n;

        si_init(&x, seed);
        u.sw.journal.bad_offset = with_bad_frame(&u, 100 + seed, seed % 2);
        u.sw.journal.bad_length = 512;
        extend(&x, &u);
        same_answers(&u, &x, seed);
        src = sw_quiet_source(&u.sw);
        h = tt_history_new();
        ck_assert_int_eq(si_open(&x, h, &src, NULL), 0);
        tt_history_damages(h, &n);
        ck_assert_uint_eq(n, 1);
        tt_history_free(h);
        si_close(&x);
        /* more of the journal does not change what was found */
        go_on(&u, 1);
        extend(&x, &u);
        same_answers(&u, &x, seed);

        u.sw.journal.bad_length = 0;
        src = sw_quiet_source(&u.sw);
        h = tt_history_new();
        ck_assert_int_eq(si_open(&x, h, &src, NULL), -TT_EINDEX);
        tt_history_free(h);
        ck_assert_int_eq(si_extend(&x, &src, true, NULL), -TT_EINDEX);
        si_clear(&x);
        si_init(&x, seed);
        extend(&x, &u);
        same_answers(&u, &x, seed);
        si_clear(&x);
        unit_end(&u);
    }
}
END_TEST

/* Where the catalog ends, too, and then it is made anew. */
START_TEST(the_end_cannot_be_read)
{
    struct tt_source src;
    struct tt_history *h = tt_history_new();
    struct tt_catalog *c;
    struct simindex x;
    struct unit u;

    si_init(&x, 9);
    with_bad_frame(&u, 9, false);
    extend(&x, &u);
    src = sw_quiet_source(&u.sw);
    c = si_catalog(&x, &src);
    u.sw.journal.bad_offset = tt_catalog_end_offset(c);
    u.sw.journal.bad_length = 512;
    tt_catalog_free(c);
    ck_assert_int_eq(si_open(&x, h, &src, NULL), -TT_EINDEX);
    tt_history_free(h);
    ck_assert_int_eq(si_extend(&x, &src, true, NULL), -TT_EINDEX);
    si_clear(&x);
    si_init(&x, 9);
    extend(&x, &u);
    same_answers(&u, &x, 9);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* ---- a catalog that was forged ----------------------------------------- */

/* Ranges in doubt that no GAP can have would be written beside an array. */
START_TEST(ranges_that_cannot_be)
{
    static const uint64_t forged[][2] = {
        { UINT64_C(1) << 63, 512 },
        { 100, 512 },
        { 512, 100 },
        { 1024, UINT64_C(1) << 63 },
    };
    struct tt_range range = { tt_put64(512), tt_put64(4096) };
    struct tt_gap_body body = {
        .reason = tt_put32(TT_GAP_PAUSED),
        .range_count = tt_put32(1),
    };
    uint8_t gap[sizeof(body) + sizeof(range)];
    struct tt_request req = { .kind = TT_KIND_GAP,
                              .flags = TT_RECORD_INLINE,
                              .payload = gap,
                              .payload_length = sizeof(gap) };
    struct tt_source src;
    struct simindex x;
    struct unit u;
    uint8_t *at = NULL;

    memcpy(gap, &body, sizeof(body));
    memcpy(gap + sizeof(body), &range, sizeof(range));
    si_init(&x, 9);
    unit_begin(&u, 9);
    OK(&u.sw, sw_append(&u.sw, &req, 1));
    go_on(&u, 3);
    extend(&x, &u);
    for (size_t i = 0; i + sizeof(range) <= x.catalog_length && !at; i++) {
        if (!memcmp(x.catalog + i, &range, sizeof(range))) {
            at = x.catalog + i;
        }
    }
    ck_assert_ptr_nonnull(at);
    src = sw_quiet_source(&u.sw);
    for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        struct tt_catalog *c;
        tt_le64 sum;

        range =
            (struct tt_range){ tt_put64(forged[i][0]), tt_put64(forged[i][1]) };
        memcpy(at, &range, sizeof(range));
        sum = tt_put64(tt_checksum(x.catalog + 8, x.catalog_length - 8));
        memcpy(x.catalog, &sum, 8);
        c = si_catalog(&x, &src);
        ck_assert_ptr_null(c);
    }
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* No disk is that large, or not of whole sectors. */
START_TEST(sizes_that_cannot_be)
{
    static const struct {
        uint64_t size;
        bool possible;
    } forged[] = {
        { SIM_DISK_MAX, true },
        { SIM_DISK_MAX + 1, false },
        { TT_DISK_SIZE_MAX, true },
        { TT_DISK_SIZE_MAX + TT_SECTOR, false },
        { UINT64_MAX - TT_SECTOR + 1, false },
    };
    const tt_le64 first[2] = { tt_put64(0), tt_put64(SIM_DISK_MAX) };
    struct tt_source src;
    struct simindex x;
    struct unit u;
    uint8_t *at = NULL;

    si_init(&x, 10);
    unit_begin(&u, 10);
    go_on(&u, 3);
    extend(&x, &u);
    src = sw_quiet_source(&u.sw);
    for (size_t i = 0; i + sizeof(first) <= x.catalog_length && !at; i++) {
        if (!memcmp(x.catalog + i, first, sizeof(first))) {
            at = x.catalog + i + sizeof(first[0]);
        }
    }
    ck_assert_ptr_nonnull(at);
    for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        tt_le64 size = tt_put64(forged[i].size), sum;
        struct tt_catalog *c;

        memcpy(at, &size, sizeof(size));
        sum = tt_put64(tt_checksum(x.catalog + 8, x.catalog_length - 8));
        memcpy(x.catalog, &sum, sizeof(sum));
        c = si_catalog(&x, &src);
        ck_assert_int_eq(c != NULL, forged[i].possible);
        tt_catalog_free(c);
    }
    si_clear(&x);
    unit_end(&u);
}
END_TEST

int main(void)
{
    const TTest *const *const tests[] = {
        &damage_that_is_over,
        &the_end_cannot_be_read,
        &ranges_that_cannot_be,
        &sizes_that_cannot_be,
        &stale_segments_are_not_skipped,
        &stale_segments_before_a_bad_one,
        NULL,
    };

    return unit_run("index-media", tests);
}
