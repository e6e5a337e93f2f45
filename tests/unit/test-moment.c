/*
 * Moments: which sequence number does a text name?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <inttypes.h>
#include <stdio.h>

#include "unit.h"

static struct tt_history *history;

static void load(struct unit *u)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    tt_history_free(history);
    history = tt_history_new();
    ck_assert_msg(tt_history_load(history, &src, &err) == 0, "%s", err.message);
}

static void end(struct unit *u)
{
    tt_history_free(history);
    history = NULL;
    unit_end(u);
}

static int resolve(const char *text, int64_t now, struct tt_moment *m,
                   struct tt_error *err)
{
    memset(err, 0, sizeof(*err));
    return tt_moment_resolve(history, text, NULL, now, m, err);
}

/* The text names @seq. */
static struct tt_moment named(const char *text, uint64_t seq)
{
    struct tt_moment m;
    struct tt_error err;

    ck_assert_msg(resolve(text, 0, &m, &err) == 0, "%s: %s", text, err.message);
    ck_assert_msg(m.seq == seq, "%s is seq %llu, should be %llu (%s)", text,
                  (ull)m.seq, (ull)seq, m.note);
    return m;
}

/* The text is refused, with words that hold @why. */
static void refused(const char *text, const char *why)
{
    struct tt_moment m;
    struct tt_error err;

    ck_assert_msg(resolve(text, 0, &m, &err) == -TT_ENOTTIME ||
                      err.code == TT_EINVAL,
                  "%s is taken: seq %llu", text, (ull)m.seq);
    ck_assert_msg(!why || strstr(err.message, why), "%s: %s", text,
                  err.message);
    ck_assert_ptr_null(strchr(err.message, '\n'));
}

static const char *at(int64_t time)
{
    static char buf[TT_TIME_SIZE];

    return tt_time_format(time, buf);
}

/* A record each second, on the second. */
static void record(struct unit *u, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        u->sw.now.realtime += INT64_C(1000000000);
        u->sw.now.boottime += UINT64_C(1000000000);
        unit_write(u, 512 * i, 512);
    }
}

/* T - 1 ns, T and T + 1 ns around each record of each epoch */
static void check_around(struct unit *u)
{
    const struct sim_node *last = u->sw.tip;

    for (uint64_t seq = 2; seq <= last->last_seq; seq++) {
        const struct sim_node *n = sim_node_at(last, seq);
        const struct sim_node *before = sim_node_at(last, seq - 1);
        int64_t t = sim_node_state(&u->sw.model, last, seq)->time;
        uint64_t end = seq;

        if (sim_node_state(&u->sw.model, last, seq - 1)->time == t ||
            before->epoch != n->epoch) {
            continue;
        }
        while (end < last->last_seq &&
               sim_node_at(last, end + 1)->epoch == n->epoch &&
               sim_node_state(&u->sw.model, last, end + 1)->time == t) {
            end++;
        }
        named(at(t - 1), seq - 1);
        named(at(t), end);
        if (end == last->last_seq ||
            sim_node_state(&u->sw.model, last, end + 1)->time > t + 1) {
            named(at(t + 1), end);
        }
    }
}

START_TEST(around_a_record)
{
    struct unit u;

    unit_begin(&u, 1);
    record(&u, 20);
    load(&u);
    check_around(&u);
    end(&u);
}
END_TEST

START_TEST(printed_times_name_the_same_record)
{
    char text[TT_TIME_SIZE];
    struct unit u;
    int64_t t;

    unit_begin(&u, 2);
    record(&u, 5);
    load(&u);
    for (uint64_t seq = 1; seq <= u.sw.tip->last_seq; seq++) {
        ck_assert(tt_history_time(history, seq, &t));
        ck_assert_int_eq(t, sim_node_state(&u.sw.model, u.sw.tip, seq)->time);
        tt_time_format(t, text);
        ck_assert_uint_eq(strlen(text), strlen("2026-11-20T12:00:00"
                                               ".000000000Z"));
    }
    end(&u);
}
END_TEST

START_TEST(clock_set_back)
{
    struct tt_moment m;
    struct tt_error err;
    struct unit u;
    uint64_t before, after;
    int64_t t;
    char want[64];

    unit_begin(&u, 3);
    record(&u, 10);
    before = u.sw.tip->last_seq;
    t = u.sw.now.realtime;
    unit_step_clock(&u, -5);
    record(&u, 10);
    after = u.sw.tip->last_seq;
    load(&u);
    /* what both epochs showed is refused, with both readings */
    ck_assert_int_eq(resolve(at(t - INT64_C(2000000000)), 0, &m, &err),
                     -TT_ENOTTIME);
    for (uint64_t seq = 1; seq <= after; seq++) {
        if (sim_node_state(&u.sw.model, u.sw.tip, seq)->time <=
                t - INT64_C(2000000000) &&
            (seq == after ||
             sim_node_at(u.sw.tip, seq)->epoch !=
                 sim_node_at(u.sw.tip, seq + 1)->epoch ||
             sim_node_state(&u.sw.model, u.sw.tip, seq + 1)->time >
                 t - INT64_C(2000000000))) {
            snprintf(want, sizeof(want), "seq:%" PRIu64, seq);
            ck_assert_msg(strstr(err.message, want) != NULL, "%s: %s", want,
                          err.message);
        }
    }
    /* what only one showed is not */
    named(at(u.sw.now.realtime + 1), after);
    ck_assert_int_eq(resolve(at(t - INT64_C(9000000000)), 0, &m, &err), 0);
    ck_assert_uint_lt(m.seq, before);
    ck_assert_int_le(sim_node_state(&u.sw.model, u.sw.tip, m.seq)->time,
                     t - INT64_C(9000000000));
    ck_assert_int_gt(sim_node_state(&u.sw.model, u.sw.tip, m.seq + 1)->time,
                     t - INT64_C(9000000000));
    end(&u);
}
END_TEST

START_TEST(a_minute_in_2099_does_not_blind)
{
    int64_t century = 75LL * 365 * 86400;
    struct unit u;
    uint64_t first, last;
    int64_t t;

    unit_begin(&u, 4);
    record(&u, 5);
    t = u.sw.now.realtime;
    first = u.sw.tip->last_seq;
    unit_step_clock(&u, century);
    record(&u, 5);
    unit_step_clock(&u, -century);
    record(&u, 5);
    last = u.sw.tip->last_seq;
    load(&u);
    named(at(t), first);
    named(at(t - 1), sim_node_at(u.sw.tip, first)->first_seq - 1);
    named(at(u.sw.now.realtime), last);
    check_around(&u);
    end(&u);
}
END_TEST

START_TEST(before_and_behind)
{
    struct tt_moment m;
    struct unit u;
    int64_t first;

    unit_begin(&u, 5);
    record(&u, 3);
    load(&u);
    first = sim_node_state(&u.sw.model, u.sw.tip, 1)->time;
    refused(at(first - 1), "before");
    m = named(at(u.sw.now.realtime + INT64_C(3600000000000)),
              u.sw.tip->last_seq);
    ck_assert(m.future);
    ck_assert(m.note[0]);
    m = named("latest", u.sw.tip->last_seq);
    ck_assert(m.latest);
    ck_assert(!m.future);
    m = named("seq:0", 0);
    m = named("seq:3", 3);
    ck_assert(m.has_time);
    refused("seq:1000000", "beyond");
    refused("seq:99999999999999999999999999", "beyond");
    end(&u);
}
END_TEST

START_TEST(while_nothing_was_recorded)
{
    struct tt_moment m;
    struct unit u;
    uint64_t last;
    int64_t t;

    unit_begin(&u, 6);
    record(&u, 3);
    OK(&u.sw, sw_close(&u.sw));
    t = u.sw.now.realtime;
    last = u.sw.tip->last_seq;
    u.sw.boot++;
    u.sw.now.boottime = 5;
    unit_step_clock(&u, 86400);
    OK(&u.sw, sw_open(&u.sw));
    record(&u, 3);
    load(&u);
    m = named(at(t + INT64_C(3600000000000)), last);
    ck_assert(m.between);
    ck_assert(m.note[0]);
    end(&u);
}
END_TEST

START_TEST(marks)
{
    struct tt_moment m;
    struct unit u;
    uint64_t seq;

    unit_begin(&u, 7);
    record(&u, 2);
    OK(&u.sw, sw_mark(&u.sw, "before-upgrade_1.0"));
    seq = u.sw.tip->last_seq;
    record(&u, 2);
    OK(&u.sw, sw_mark(&u.sw, "twice"));
    OK(&u.sw, sw_mark(&u.sw, "twice"));
    OK(&u.sw, sw_mark(&u.sw, "no/slash"));
    load(&u);
    m = named("mark:before-upgrade_1.0", seq);
    ck_assert(m.has_time);
    refused("mark:twice", "seq:");
    refused("mark:none", "none");
    refused("mark:", NULL);
    refused("mark:no/slash", NULL);
    refused("mark:..", NULL);
    end(&u);
}
END_TEST

START_TEST(bad_times)
{
    static const char *const bad[] = {
        /* clang-format off */
        "", " ", "now", "yesterday", "2026", "2026-11-20", "12:00",
        "2026-11-20T12:00:00", "2026-11-20 12:00", "2026-13-20T12:00:00Z",
        "2026-11-31T12:00:00Z", "2026-02-29T12:00:00Z",
        "2026-11-20T24:00:00Z", "2026-11-20T12:60:00Z",
        "2026-11-20T12:00:61Z", "2026-11-20T12:00:00+25:00",
        "2026-11-20T12:00:00.Z", "2026-11-20T12:00:00.1234567890Z",
        "2026-11-20T12:00:00ZZ", "2026-11-20T12:00:00 Z ", "@", "@x", "@1.",
        "@99999999999999999999", "@-", "seq:", "seq:-1", "seq:0x1",
        "seq:1 ", "-", "-15", "-min", "-99999999999999999999min", "+5min",
        "Latest", "latest ", "mark", "\x1b[2J", "9999-12-31T23:59:59Z",
        /* clang-format on */
    };
    static char longest[5000];
    struct unit u;

    unit_begin(&u, 8);
    record(&u, 3);
    load(&u);
    for (size_t i = 0; i + 1 < sizeof(bad) / sizeof(bad[0]); i++) {
        refused(bad[i], NULL);
    }
    memset(longest, '9', sizeof(longest) - 1);
    refused(longest, NULL);
    longest[0] = '@';
    refused(longest, NULL);
    memcpy(longest, "seq:", 4);
    refused(longest, NULL);
    end(&u);
}
END_TEST

START_TEST(forms_of_a_time)
{
    struct tt_moment m;
    struct tt_error err;
    struct unit u;
    char text[80], iso[TT_TIME_SIZE];
    uint64_t last;
    int64_t t;

    unit_begin(&u, 9);
    record(&u, 6);
    load(&u);
    last = u.sw.tip->last_seq;
    t = sim_node_state(&u.sw.model, u.sw.tip, last - 2)->time;
    while (sim_node_state(&u.sw.model, u.sw.tip, last)->time != t) {
        last--;
    }
    snprintf(text, sizeof(text), "@%lld.%09lld", (long long)(t / 1000000000),
             (long long)(t % 1000000000));
    named(text, last);
    tt_time_format(t, iso);
    named(iso, last);
    /* the same, somewhere else */
    snprintf(text, sizeof(text), "%.29s+00:00", iso);
    named(text, last);
    snprintf(text, sizeof(text), "%.29s-00:00", iso);
    ck_assert_int_le(resolve(text, 0, &m, &err), 0);
    /* relative to now */
    ck_assert_int_eq(resolve("-15min", t + INT64_C(900000000000), &m, &err), 0);
    ck_assert_uint_eq(m.seq, last);
    ck_assert_int_eq(resolve("-1h", t + INT64_C(3600000000000), &m, &err), 0);
    ck_assert_uint_eq(m.seq, last);
    end(&u);
}
END_TEST

static int two_hours(void *opaque, int64_t civil, int32_t ret[2])
{
    (void)opaque;
    (void)civil;
    ret[0] = 7200;
    return 1;
}

START_TEST(a_zone_given_by_the_user)
{
    struct tt_zone zone = { .name = "Test/Zone",
                            .offsets = two_hours,
                            .given = true };
    struct tt_moment m;
    struct tt_error err;
    struct unit u;
    char text[TT_TIME_SIZE];

    unit_begin(&u, 10);
    record(&u, 6);
    load(&u);
    tt_time_format(u.sw.now.realtime + INT64_C(7200000000000), text);
    text[strlen(text) - 1] = '\0'; /* no zone */
    ck_assert_msg(tt_moment_resolve(history, text, &zone, 0, &m, &err) == 0,
                  "%s", err.message);
    ck_assert_uint_eq(m.seq, u.sw.tip->last_seq);
    zone.given = false;
    ck_assert_int_lt(tt_moment_resolve(history, text, &zone, 0, &m, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.message, "Test/Zone"));
    ck_assert_int_lt(tt_moment_resolve(history, text, NULL, 0, &m, &err), 0);
    end(&u);
}
END_TEST

int main(void)
{
    return unit_run("moment", (const TTest *const *const[]){
                                  &around_a_record,
                                  &printed_times_name_the_same_record,
                                  &clock_set_back,
                                  &a_minute_in_2099_does_not_blind,
                                  &before_and_behind,
                                  &while_nothing_was_recorded,
                                  &marks,
                                  &bad_times,
                                  &forms_of_a_time,
                                  &a_zone_given_by_the_user,
                                  NULL,
                              });
}
