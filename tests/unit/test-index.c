/*
 * The index as a whole: does a history that opens with one know the same?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>

#include "simindex.h"
#include "unit.h"

/* Writes until the next segment has begun. */
static void fill(struct unit *u)
{
    const struct tt_writer *w = &u->sw.w;
    uint64_t size = w->super.segment_size, first = w->super.segments_offset;
    uint64_t segment = (w->next_offset - first) / size;

    while ((w->next_offset - first - 1) / size == segment) {
        unit_write(u, 0, SIM_DISK_MAX);
    }
}

/* Some of each kind, in several segments; all but the end is durable. */
static void record(struct unit *u, uint64_t seed, unsigned segments)
{
    unit_begin(u, seed);
    for (unsigned k = 0; k < segments; k++) {
        char name[20];

        for (unsigned i = 0; i < 25; i++) {
            uint64_t at = 512 * sim_random(&u->world, 90);

            if (sim_chance(&u->world, 20)) {
                OK(&u->sw, sw_zero(&u->sw, at, 1024, SW_PRE_AFTER));
            } else if (sim_chance(&u->world, 8)) {
                uint64_t size = 512 * (100 + sim_random(&u->world, 28));

                OK(&u->sw, sw_resize(&u->sw, size));
            } else {
                unit_write(u, at, 512 * (1 + sim_random(&u->world, 9)));
            }
        }
        OK(&u->sw, sw_resize(&u->sw, SIM_DISK_MAX));
        snprintf(name, sizeof(name), "mark-%u", k);
        OK(&u->sw, sw_mark(&u->sw, name));
        if (k % 2) {
            unit_reopen(u);
        }
        if (k == 2) {
            unit_step_clock(u, -100);
            unit_write(u, 0, 512);
        } else {
            fill(u);
        }
        unit_write(u, 512 * k, 512);
        OK(&u->sw, sw_flush(&u->sw));
        OK(&u->sw, sw_durable(&u->sw));
    }
}

static void extend(struct simindex *x, struct unit *u, bool all)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    ck_assert_msg(si_extend(x, &src, all, &err) == 0, "%s", err.message);
}

static size_t runs_of(const struct simindex *x, struct unit *u)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_catalog *c = si_catalog(x, &src);
    size_t count;

    ck_assert_ptr_nonnull(c);
    tt_catalog_runs(c, &count);
    tt_catalog_free(c);
    return count;
}

/* ---- the same history -------------------------------------------------- */

static void same_lists(const struct tt_history *a, const struct tt_history *b)
{
    size_t n, m;
    const struct tt_mark *p = tt_history_marks(a, &n);
    const struct tt_mark *q = tt_history_marks(b, &m);
    const struct tt_session *s, *t;
    const struct tt_epoch *e, *f;

    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_eq(p[i].seq, q[i].seq);
        ck_assert_int_eq(p[i].time, q[i].time);
        ck_assert_str_eq(p[i].name, q[i].name);
    }
    s = tt_history_sessions(a, &n);
    t = tt_history_sessions(b, &m);
    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_eq(s[i].seq, t[i].seq);
        ck_assert_uint_eq(s[i].session, t[i].session);
        ck_assert_uint_eq(s[i].flags, t[i].flags);
    }
    e = tt_history_epochs(a, &n);
    f = tt_history_epochs(b, &m);
    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_eq(e[i].first_seq, f[i].first_seq);
        ck_assert_uint_eq(e[i].last_seq, f[i].last_seq);
        ck_assert_int_eq(e[i].first_time, f[i].first_time);
        ck_assert_int_eq(e[i].last_time, f[i].last_time);
        ck_assert_int_eq(e[i].end_time, f[i].end_time);
    }
}

static void same_moments(const struct tt_history *a, const struct tt_history *b)
{
    uint64_t last = tt_history_end(a)->last_seq;

    for (uint64_t seq = 0; seq <= last; seq++) {
        int64_t t = 0, u = 0;

        ck_assert_uint_eq(tt_history_disk_size(a, seq),
                          tt_history_disk_size(b, seq));
        ck_assert_int_eq(tt_history_time(a, seq, &t),
                         tt_history_time(b, seq, &u));
        ck_assert_int_eq(t, u);
        for (int64_t d = -1; d <= 1 && seq; d++) {
            struct tt_error e = { 0 }, f = { 0 };
            struct tt_moment m, n;
            char text[64];

            snprintf(text, sizeof(text), "@%lld.%09lld",
                     (long long)((t + d) / 1000000000),
                     (long long)((t + d) % 1000000000));
            tt_moment_resolve(a, text, NULL, 0, &m, &e);
            tt_moment_resolve(b, text, NULL, 0, &n, &f);
            ck_assert_str_eq(e.message, f.message);
            ck_assert_msg(e.code || m.seq == n.seq, "%s: %llu, not %llu", text,
                          (ull)m.seq, (ull)n.seq);
            ck_assert_str_eq(m.note, n.note);
        }
    }
}

static void same_views(struct unit *u, const struct tt_history *h,
                       uint64_t step)
{
    static uint8_t buf[SIM_DISK_MAX];

    for (uint64_t seq = 0; seq <= tt_history_end(h)->last_seq; seq += step) {
        const struct sim_state *s =
            sim_node_state(&u->sw.model, u->sw.tip, seq);

        OK(&u->sw, sw_read_view(&u->sw, h, seq, s->size, buf));
        ck_assert_msg(!memcmp(buf, s->data, s->size), "view(%llu)", (ull)seq);
    }
}

/* What was written last is found in the tail, and else in the newest runs. */
static void recent(const struct tt_history *h, uint64_t level_seq)
{
    struct tt_extent ext[24], now;
    struct tt_error err = { 0 };
    size_t count;

    ck_assert_int_eq(tt_history_recent(h, level_seq, ext, 24, &count, &err), 0);
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_le(ext[i].seq, level_seq);
        ck_assert(i == 0 || ext[i].seq <= ext[i - 1].seq);
        ck_assert_uint_le(ext[i].offset + ext[i].length,
                          tt_history_disk_size(h, UINT64_MAX));
        tt_view_lookup(h, UINT64_MAX, ext[i].offset, ext[i].length, &now, NULL);
        ck_assert_uint_eq(now.seq, ext[i].seq);
        ck_assert_uint_eq(now.length, ext[i].length);
    }
    /* the whole disk is written again and again: there is always something */
    ck_assert(count > 0 || level_seq < tt_history_end(h)->last_seq);
}

static void compare(struct unit *u, struct simindex *x, uint64_t step)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *with = tt_history_new(), *without = tt_history_new();
    struct tt_error err = { 0 };

    ck_assert_msg(si_open(x, with, &src, &err) == 0, "%s", err.message);
    ck_assert_int_eq(tt_history_load(without, &src, &err), 0);
    same_lists(with, without);
    same_moments(with, without);
    unit_same_stats(with, without);
    unit_same_scans(&src, with, step);
    same_views(u, with, step);
    recent(with, UINT64_MAX);
    recent(without, UINT64_MAX);
    recent(with, tt_history_end(with)->last_seq - 20);
    tt_history_free(with);
    tt_history_free(without);
    si_close(x);
}

START_TEST(knows_the_same)
{
    for (uint64_t seed = 40; seed < 40 + unit_rounds(3, 1); seed++) {
        struct simindex x;
        struct unit u;

        si_init(&x, seed);
        si_totals = (struct si_totals){ 0 };
        record(&u, seed, 5);
        extend(&x, &u, true);
        ck_assert_uint_ge(si_totals.segments, 4);
        ck_assert_uint_eq(si_totals.from_footers, si_totals.segments);
        ck_assert_uint_ge(runs_of(&x, &u), 1);
        compare(&u, &x, 707 / unit_rounds(101, 10));
        si_clear(&x);
        unit_end(&u);
    }
}
END_TEST

START_TEST(grows_with_the_journal)
{
    struct simindex x;
    struct unit u;

    si_init(&x, 1);
    record(&u, 44, 2);
    for (unsigned i = 0; i < 4; i++) {
        extend(&x, &u, i % 2);
        compare(&u, &x, 31);
        fill(&u);
        unit_write(&u, 0, 4096);
        OK(&u.sw, sw_durable(&u.sw));
    }
    extend(&x, &u, true);
    compare(&u, &x, 31);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* What is not durable is never covered. */
START_TEST(an_undurable_segment_is_not_covered)
{
    struct tt_source src;
    struct tt_catalog *c;
    struct simindex x;
    struct unit u;

    si_init(&x, 1);
    unit_begin(&u, 45);
    u.sw.strict = false;
    fill(&u);
    unit_write(&u, 0, 512);
    extend(&x, &u, true);
    src = sw_quiet_source(&u.sw);
    c = si_catalog(&x, &src);
    if (u.sw.w.durable_seq < u.sw.tip->last_seq) {
        ck_assert_uint_le(tt_catalog_last_seq(c), u.sw.w.durable_seq);
    }
    tt_catalog_free(c);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* ---- damaged journals -------------------------------------------------- */

static const struct sim_node *node_with(struct unit *u, uint16_t kind,
                                        unsigned nth)
{
    const struct sim_node *n = u->sw.tip;

    for (; n->parent; n = n->parent) {
        uint8_t head[TT_HEAD_MAX];
        struct tt_source src = sw_quiet_source(&u->sw);
        uint32_t pos = 0, index = 0;
        struct tt_record rec;
        struct tt_frame f;

        ck_assert_int_eq(
            tt_frame_read(&u->sw.super, &src, n->offset, head, &f, NULL), 1);
        while (tt_table_next(&f, head + sizeof(struct tt_frame_header), &pos,
                             &index, &rec)) {
            if (rec.kind == kind && nth-- == 0) {
                return n;
            }
        }
    }
    ck_abort_msg("no frame with such a record");
    return NULL;
}

/* With destroyed frames, an index gives the answers that a scan would. */
static void same_answers(struct unit *u, struct simindex *x)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *with = tt_history_new(), *without = tt_history_new();
    uint64_t last, step = 303 / unit_rounds(101, 10);
    struct tt_error err = { 0 };

    ck_assert_msg(si_open(x, with, &src, &err) == 0, "%s", err.message);
    ck_assert_int_eq(tt_history_load(without, &src, &err), 0);
    same_lists(with, without);
    last = tt_history_end(with)->last_seq;
    ck_assert_uint_eq(last, tt_history_end(without)->last_seq);
    for (uint64_t seq = 0; seq <= last; seq += step) {
        for (uint64_t at = 0; at < SIM_DISK_MAX; at += 512) {
            uint8_t buf[2][512];
            struct tt_extent a, b;
            int ret;

            ck_assert_int_eq(tt_view_lookup(with, seq, at, 512, &a, NULL), 0);
            ck_assert_int_eq(tt_view_lookup(without, seq, at, 512, &b, NULL),
                             0);
            ck_assert_msg(a.kind == b.kind && a.record_seq == b.record_seq &&
                              a.place == b.place && a.length == b.length,
                          "view(%llu) at %llu: %d of %llu, not %d of %llu",
                          (ull)seq, (ull)at, a.kind, (ull)a.record_seq, b.kind,
                          (ull)b.record_seq);
            if (a.kind != TT_EXTENT_JOURNAL || at % 8192) {
                continue;
            }
            ret = tt_extent_read(with, &src, &a, at, 512, buf[0], NULL);
            ck_assert_int_eq(
                tt_extent_read(without, &src, &b, at, 512, buf[1], NULL), ret);
            ck_assert(ret < 0 || !memcmp(buf[0], buf[1], 512));
        }
    }
    tt_history_free(with);
    tt_history_free(without);
    si_close(x);
}

/* Destroys @length bytes of the frame @n, before or after the index is made. */
static void destroyed(const char *what, uint16_t kind, unsigned nth,
                      size_t offset, size_t length, bool before)
{
    const struct sim_node *n;
    struct simindex x;
    struct unit u;

    si_init(&x, nth);
    record(&u, 50, 5);
    n = node_with(&u, kind, nth);
    if (!before) {
        extend(&x, &u, true);
    }
    simdisk_destroy(&u.sw.journal, n->offset + offset,
                    length ? length : (size_t)n->length);
    if (before) {
        extend(&x, &u, true);
        ck_assert_msg(runs_of(&x, &u) > 0, "%s", what);
    }
    same_answers(&u, &x);
    si_clear(&x);
    unit_end(&u);
}

START_TEST(destroyed_before)
{
    destroyed("a footer's bytes", TT_KIND_FOOTER, 2, 1024, 512, true);
    destroyed("a footer's frame", TT_KIND_FOOTER, 1, 0, 256, true);
    destroyed("a mark", TT_KIND_MARK, 2, 0, 256, true);
    destroyed("a session", TT_KIND_SESSION, 1, 0, 256, true);
    destroyed("a resize", TT_KIND_RESIZE, 9, 0, 256, true);
    destroyed("a clock, and a segment's start", TT_KIND_CLOCK, 0, 0, 256, true);
    destroyed("a write", TT_KIND_WRITE, 120, 0, 0, true);
    destroyed("a write's header", TT_KIND_WRITE, 150, 0, 256, true);
    destroyed("a write's bytes", TT_KIND_WRITE, 150, 1024, 1024, true);
    destroyed("the first frame", TT_KIND_SESSION, 2, 0, 256, true);
}
END_TEST

/* Bytes that are destroyed later: the version is known, and not served. */
START_TEST(destroyed_after)
{
    destroyed("a write's bytes", TT_KIND_WRITE, 150, 1024, 1024, false);
    destroyed("a preimage's bytes", TT_KIND_PREIMAGE, 2, 1024, 1024, false);
}
END_TEST

/* ---- gaps -------------------------------------------------------------- */

/* Returns its number. */
static uint64_t gap(struct unit *u, uint64_t opens_seq, uint32_t flags)
{
    struct tt_gap_body b = {
        .from_seq = tt_put64(u->sw.tip->last_seq),
        .opens_seq = tt_put64(opens_seq),
        .reason = tt_put32(TT_GAP_PAUSED),
        .flags = tt_put32(flags),
        .range_count = tt_put32(1),
    };
    struct tt_range range = { tt_put64(512 * sim_random(&u->world, 60)),
                              tt_put64(512 * (1 + sim_random(&u->world, 60))) };
    uint8_t body[sizeof(b) + sizeof(range)];
    struct tt_request req = { .kind = TT_KIND_GAP,
                              .flags = TT_RECORD_INLINE,
                              .payload = body,
                              .payload_length = sizeof(body) };

    memcpy(body, &b, sizeof(b));
    memcpy(body + sizeof(b), &range, sizeof(range));
    OK(&u->sw, sw_append(&u->sw, &req, 1));
    return u->sw.tip->last_seq;
}

static void same_gaps(struct unit *u, struct simindex *x)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *with = tt_history_new(), *without = tt_history_new();
    struct tt_error err = { 0 };
    const struct tt_gap *a, *b;
    size_t n, m, followed = 0, closed = 0;

    ck_assert_msg(si_open(x, with, &src, &err) == 0, "%s", err.message);
    ck_assert_int_eq(tt_history_load(without, &src, &err), 0);
    a = tt_history_gaps(with, &n);
    b = tt_history_gaps(without, &m);
    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_eq(a[i].seq, b[i].seq);
        ck_assert_uint_eq(a[i].from_seq, b[i].from_seq);
        ck_assert_uint_eq(a[i].range_count, b[i].range_count);
        ck_assert_int_eq(a[i].followed, b[i].followed);
        ck_assert_int_eq(a[i].closed, b[i].closed);
        followed += a[i].followed;
        closed += a[i].closed;
    }
    ck_assert(followed > 0 && followed < n && closed > 0 && closed < n / 2);
    tt_history_free(with);
    tt_history_free(without);
    si_close(x);
}

/* Gaps in the midst of a segment and at its end, gone on behind or not. */
START_TEST(gaps)
{
    struct simindex x;
    struct unit u;

    si_init(&x, 8);
    unit_begin(&u, 70);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t open;

        if (i >= 3) {
            /* the closing one is to be the segment's last frame, or nearly */
            unit_fill_segment(&u, 512 * (i - 2));
        }
        open = gap(&u, 0, TT_GAP_OPEN);
        if (i % 3 == 0) {
            unit_write(&u, 0, 4096);
        }
        gap(&u, open, 0);
        if (i % 3 != 1) {
            unit_write(&u, 4096 * i, 512);
        }
        OK(&u.sw, sw_flush(&u.sw));
        if (i % 3 == 1) {
            sw_abandon(&u.sw);
            OK(&u.sw, sw_open(&u.sw));
        }
        extend(&x, &u, true);
    }
    /* one that nothing of its session follows */
    gap(&u, gap(&u, 0, TT_GAP_OPEN), 0);
    OK(&u.sw, sw_journal_flush(&u.sw));
    sw_abandon(&u.sw);
    OK(&u.sw, sw_open(&u.sw));
    for (unsigned i = 0; i < 3; i++) {
        fill(&u);
        OK(&u.sw, sw_flush(&u.sw));
        extend(&x, &u, i % 2);
    }
    extend(&x, &u, true);
    ck_assert_uint_ge(runs_of(&x, &u), 1);
    same_gaps(&u, &x);
    same_answers(&u, &x);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* ---- other journals ---------------------------------------------------- */

static int opens(struct simindex *x, const struct tt_source *src)
{
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    int ret = si_open(x, h, src, &err);

    ck_assert(ret == 0 || err.message[0]);
    tt_history_free(h);
    if (ret == 0) {
        si_close(x);
    }
    return ret;
}

START_TEST(another_journal_is_refused)
{
    struct tt_source src;
    struct tt_catalog *c;
    struct simindex x;
    struct unit u, v;
    uint64_t end;

    si_init(&x, 3);
    record(&u, 60, 3);
    record(&v, 61, 3);
    extend(&x, &u, true);
    src = sw_quiet_source(&u.sw);
    ck_assert_int_eq(opens(&x, &src), 0);
    c = si_catalog(&x, &src);
    end = tt_catalog_end_offset(c);
    tt_catalog_free(c);
    /* one of another UUID */
    src = sw_quiet_source(&v.sw);
    ck_assert_int_eq(opens(&x, &src), -TT_EINDEX);
    ck_assert_int_eq(si_extend(&x, &src, true, NULL), -TT_EINDEX);
    /* cut short where the index ends */
    src = sw_quiet_source(&u.sw);
    src.size = end;
    ck_assert_int_eq(opens(&x, &src), -TT_EINDEX);
    ck_assert_int_eq(si_extend(&x, &src, true, NULL), -TT_EINDEX);
    /* something else there */
    src = sw_quiet_source(&u.sw);
    simdisk_destroy(&u.sw.journal, end, 256);
    ck_assert_int_eq(opens(&x, &src), -TT_EINDEX);
    si_clear(&x);
    unit_end(&u);
    unit_end(&v);
}
END_TEST

/* One that was put back, and went on otherwise: all is alike but its chain. */
START_TEST(another_future_is_refused)
{
    struct tt_source src;
    struct simindex x;
    struct unit u[2];

    si_init(&x, 3);
    for (unsigned i = 0; i < 2; i++) {
        unit_begin(&u[i], 66);
        unit_write(&u[i], 4096, 512);
        OK(&u[i].sw, sw_mark(&u[i].sw, i ? "a" : "b"));
        fill(&u[i]);
        OK(&u[i].sw, sw_flush(&u[i].sw));
        fill(&u[i]);
    }
    ck_assert_uint_eq(u[0].sw.tip->last_seq, u[1].sw.tip->last_seq);
    extend(&x, &u[0], true);
    ck_assert_uint_eq(runs_of(&x, &u[0]), 1);
    src = sw_quiet_source(&u[0].sw);
    ck_assert_int_eq(opens(&x, &src), 0);
    src = sw_quiet_source(&u[1].sw);
    ck_assert_int_eq(opens(&x, &src), -TT_EINDEX);
    ck_assert_int_eq(si_extend(&x, &src, true, NULL), -TT_EINDEX);
    si_clear(&x);
    unit_end(&u[0]);
    unit_end(&u[1]);
}
END_TEST

/* ---- damaged catalogs -------------------------------------------------- */

START_TEST(a_damaged_catalog_is_refused)
{
    struct tt_source src;
    struct simindex x;
    struct unit u;
    size_t length;

    si_init(&x, 4);
    record(&u, 62, 3);
    extend(&x, &u, true);
    src = sw_quiet_source(&u.sw);
    length = x.catalog_length;
    for (size_t i = 0; i < length; i++) {
        x.catalog[i] ^= 1u << i % 8;
        ck_assert_ptr_null(si_catalog(&x, &src));
        x.catalog[i] ^= 1u << i % 8;
    }
    for (x.catalog_length = 0; x.catalog_length < length; x.catalog_length++) {
        ck_assert_ptr_null(si_catalog(&x, &src));
    }
    ck_assert_int_eq(opens(&x, &src), 0);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* Nonsense that fits its checksum is not believed blindly. */
START_TEST(a_hostile_catalog)
{
    struct tt_source src;
    unsigned opened = 0, rounds = unit_rounds(3000, 150);
    struct simindex x;
    struct unit u;
    uint8_t *good;

    si_init(&x, 5);
    record(&u, 63, 3);
    extend(&x, &u, true);
    src = sw_quiet_source(&u.sw);
    good = malloc(x.catalog_length);
    memcpy(good, x.catalog, x.catalog_length);
    for (unsigned i = 0; i < rounds; i++) {
        size_t at = 8 + sim_random(&u.world, x.catalog_length - 8);
        struct tt_catalog *c;
        tt_le64 sum;

        x.catalog[at] = (uint8_t)sim_random(&u.world, 256);
        if (sim_chance(&u.world, 30)) {
            memset(x.catalog + at / 8 * 8, 255, 8);
        }
        sum = tt_put64(tt_checksum(x.catalog + 8, x.catalog_length - 8));
        memcpy(x.catalog, &sum, 8);
        c = si_catalog(&x, &src);
        if (c) {
            size_t count;
            const struct tt_run_info *info = tt_catalog_runs(c, &count);
            bool known = true;

            for (size_t k = 0; k < count; k++) {
                known &= si_file_of(&x, &info[k]) != NULL;
            }
            tt_catalog_free(c);
            opened += known && opens(&x, &src) == 0;
        }
        memcpy(x.catalog, good, x.catalog_length);
    }
    ck_assert_uint_gt(opened, rounds / 30);
    free(good);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* A page that is damaged fails the look-ups that need it, and no others. */
START_TEST(damaged_pages_are_told)
{
    static uint8_t buf[SIM_DISK_MAX];
    struct tt_source src;
    struct tt_history *h;
    struct tt_error err = { 0 };
    unsigned told = 0, right = 0;
    struct simindex x;
    struct unit u;

    si_init(&x, 6);
    record(&u, 64, 4);
    extend(&x, &u, true);
    src = sw_quiet_source(&u.sw);
    h = tt_history_new();
    ck_assert_int_eq(si_open(&x, h, &src, &err), 0);
    for (size_t f = 0; f < x.count; f++) {
        for (uint64_t at = TT_PAGE; at < x.files[f]->length; at += TT_PAGE) {
            x.files[f]->bytes[at + sim_random(&u.world, TT_PAGE)] ^= 16;
            for (unsigned i = 0; i < 40; i++) {
                uint64_t seq =
                    sim_random(&u.world, tt_history_end(h)->last_seq + 1);
                uint64_t place = 512 * sim_random(&u.world, 100);
                const struct sim_state *s =
                    sim_node_state(&u.sw.model, u.sw.tip, seq);
                struct tt_piece p[4];
                size_t n;
                int ret;

                if (place >= s->size) {
                    continue;
                }
                ret = tt_view_pieces(h, seq, place, 512, p, 4, &n, &err);
                if (ret < 0) {
                    ck_assert_int_eq(ret, -TT_EINDEX);
                    ck_assert_ptr_nonnull(strstr(err.message, "index"));
                    told++;
                    continue;
                }
                ck_assert_uint_eq(n, 1);
                if (p[0].kind == TT_EXTENT_DISK) {
                    memcpy(buf, u.sw.disk.cache + place, 512);
                } else {
                    ck_assert_int_eq(
                        tt_pieces_read(h, &src, p, n, place, buf, &err), 0);
                }
                ck_assert(!memcmp(buf, s->data + place, 512));
                right++;
            }
        }
    }
    ck_assert_uint_gt(told, 50);
    ck_assert_uint_gt(right, 50);
    tt_history_free(h);
    si_close(&x);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

/* ---- what a read costs ------------------------------------------------- */

static struct tt_source counted;
static size_t bytes_read;

static int count_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    (void)opaque;
    bytes_read += length;
    return counted.read(counted.opaque, offset, buf, length);
}

/* Promise 6: a 4 KiB read checks what it serves, and reads 64 KiB at most. */
START_TEST(a_read_is_small)
{
    struct tt_error err = { 0 };
    struct tt_source src;
    struct tt_history *h;
    size_t most = 0;
    struct simindex x;
    struct unit u;

    si_init(&x, 7);
    record(&u, 65, 5);
    extend(&x, &u, true);
    counted = sw_quiet_source(&u.sw);
    src = counted;
    src.read = count_read;
    h = tt_history_new();
    ck_assert_int_eq(si_open(&x, h, &src, &err), 0);
    for (uint64_t seq = 0; seq <= tt_history_end(h)->last_seq; seq++) {
        uint64_t at = TT_GRID * sim_random(&u.world, 12);
        struct tt_piece p[16];
        uint8_t buf[TT_GRID];
        size_t n;

        bytes_read = 0;
        ck_assert_int_eq(tt_view_pieces(h, seq, at, TT_GRID, p, 16, &n, &err),
                         0);
        ck_assert_int_eq(tt_pieces_read(h, &src, p, n, at, buf, &err), 0);
        most = bytes_read > most ? bytes_read : most;
    }
    ck_assert_uint_ge(most, TT_GRID);
    ck_assert_uint_le(most, 64 * TT_KIB);
    tt_history_free(h);
    si_close(&x);
    si_clear(&x);
    unit_end(&u);
}
END_TEST

int main(void)
{
    const TTest *const *const tests[] = {
        &knows_the_same,
        &grows_with_the_journal,
        &an_undurable_segment_is_not_covered,
        &destroyed_before,
        &destroyed_after,
        &gaps,
        &another_journal_is_refused,
        &another_future_is_refused,
        &a_damaged_catalog_is_refused,
        &a_hostile_catalog,
        &damaged_pages_are_told,
        &a_read_is_small,
        NULL,
    };

    return unit_run("index", tests);
}
