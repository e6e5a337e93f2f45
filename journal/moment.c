/*
 * Moments: which sequence number does this text name?
 *
 * Order is by sequence number; a clock may have shown a time twice, or never.
 * Within a clock epoch time never decreases, so there a time T names the last
 * record stamped T or before.  An epoch answers for the time from its first
 * record to what its clock showed when it ended.
 *
 *   one epoch answers for T      its last record stamped T or before
 *   several do                   refused: each is named, with its sequence
 *   none, T is behind the end    what there is now
 *   none, T is in between        the end of the epoch before, for nothing was
 *                                recorded then; several such: refused
 *   none, T is before all        refused
 *
 * What the user should know of the answer (the journal has not passed T yet,
 * nothing was recorded then, something is missing) goes into the note.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "history.h"
#include "timefmt.h"

#define NAMED_MAX 4u /* of several answers, so many are named */

/* ---- notes ------------------------------------------------------------- */

static void __attribute__((format(printf, 3, 4)))
append(char *buf, size_t size, const char *fmt, ...)
{
    size_t used = strlen(buf);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(buf + used, size - used, fmt, ap);
    va_end(ap);
}

/* The parts of a note are set apart by semicolons. */
#define NOTE(m, ...)                                                           \
    do {                                                                       \
        append((m)->note, sizeof((m)->note), "%s", (m)->note[0] ? "; " : "");  \
        append((m)->note, sizeof((m)->note), __VA_ARGS__);                     \
    } while (0)

static int64_t time_at(const struct tt_history *h, uint64_t seq)
{
    int64_t t = h->super.created;

    tt_history_time(h, seq, &t);
    return t;
}

/* The damage that @seq is one of the missing records of, or NULL. */
static const struct tt_damage *damage_of(const struct tt_history *h,
                                         uint64_t seq)
{
    for (size_t i = 0; i < h->damages_count; i++) {
        if (h->damages[i].first_seq <= seq && seq <= h->damages[i].last_seq) {
            return &h->damages[i];
        }
    }
    return NULL;
}

static void note_damage(const struct tt_history *h, struct tt_moment *m)
{
    const struct blind *b = tt_history_blind_before(h, m->seq);
    const struct tt_damage *d = NULL;

    for (size_t i = 0; i < h->damages_count; i++) {
        if (h->damages[i].first_seq <= m->seq) {
            d = &h->damages[i];
        }
    }
    if (b) {
        d = damage_of(h, b->damage_seq);
    }
    if (d) {
        NOTE(m,
             "the journal is damaged at %" PRIu64 " (+%" PRIu64 "), where "
             "the records %" PRIu64 " to %" PRIu64 " were: %s",
             d->offset, d->length, d->first_seq, d->last_seq,
             b ? "what they may have changed cannot be read"
               : "a footer tells what they were");
    } else if (h->blinds_count) {
        d = &h->damages[0];
        NOTE(m,
             "the journal is damaged behind this, at %" PRIu64 " (+%" PRIu64
             "): blocks without a version cannot be read",
             d->offset, d->length);
    }
}

/* Does @g put something of the moment in doubt? */
static bool is_in_doubt(const struct tt_gap *g, const struct tt_moment *m)
{
    return m->seq > g->from_seq ||
           (m->seq == g->from_seq && m->has_time && m->time > g->from_time);
}

/* The newest of those that put the moment in doubt; one that is open first */
static const struct tt_gap *gap_of(const struct tt_history *h,
                                   const struct tt_moment *m)
{
    const struct tt_gap *newest = NULL;

    for (size_t i = h->gaps_count; i > 0; i--) {
        const struct tt_gap *g = &h->gaps[i - 1];

        if (!is_in_doubt(g, m) || g->closed) {
            continue;
        }
        if (g->flags & TT_GAP_OPEN) {
            return g;
        }
        newest = newest ? newest : g;
    }
    return newest;
}

static void note_gaps(const struct tt_history *h, struct tt_moment *m)
{
    const struct tt_gap *g = gap_of(h, m);
    char from[TT_TIME_SIZE], to[TT_TIME_SIZE];
    bool open;

    if (!g) {
        return;
    }
    open = g->flags & TT_GAP_OPEN;
    NOTE(m,
         "%s a gap: from %s %s%s (seq:%" PRIu64 ") not everything was "
         "recorded, and %s may be wrong",
         m->seq < g->seq || open ? "in" : "after",
         tt_time_format(g->from_time, from), open ? "on" : "to ",
         open ? "" : tt_time_format(g->to_time, to), g->seq,
         g->range_count ? "some blocks" : "any block");
}

/* Is a version among the records behind the durable end, up to @seq? */
static bool is_provisional(const struct tt_history *h, uint64_t seq)
{
    return h->undurable_count && h->undurable[0] <= seq;
}

/* What is told of every moment, once it is bound. */
static void finish(const struct tt_history *h, struct tt_moment *m)
{
    if (!m->has_time) {
        m->has_time = tt_history_time(h, m->seq, &m->time) && m->seq;
    }
    m->provisional = is_provisional(h, m->seq);
    note_damage(h, m);
    note_gaps(h, m);
}

/* ---- within an epoch --------------------------------------------------- */

/* The last record known to be stamped @time or before, in epoch @i. */
static int last_known(const struct tt_history *h, size_t i, int64_t time,
                      uint64_t *ret_seq, struct tt_error *err)
{
    int ret = tt_times_last(h, i, time, ret_seq, err);
    const struct tt_damage *d = ret == 0 ? damage_of(h, *ret_seq) : NULL;

    if (d) {
        *ret_seq = d->first_seq - 1;
    }
    return ret;
}

/* Of the missing records of @d, a footer knows the times of those it tells. */
static uint64_t last_salvaged(const struct tt_history *h,
                              const struct tt_damage *d, int64_t time)
{
    uint64_t seq = d->first_seq - 1;

    for (size_t i = 0; i < h->salvaged_count; i++) {
        const struct salvaged *s = &h->salvaged[i];

        if (s->seq >= d->first_seq && s->seq <= d->last_seq &&
            s->time <= time) {
            seq = s->seq;
        }
    }
    return seq;
}

/*
 * If records are missing behind m->seq, some of them may be stamped @time or
 * before: then they belong to the moment, and what they changed is unknown.
 */
static void reach_into_damage(const struct tt_history *h, int64_t time,
                              struct tt_moment *m)
{
    const struct tt_damage *d = damage_of(h, m->seq + 1);
    const struct blind *b;
    uint64_t known = m->seq;

    if (!d || time <= time_at(h, known)) {
        return;
    }
    b = tt_history_blind_before(h, d->last_seq);
    if (!b || b->last_seq < d->first_seq) {
        m->seq = last_salvaged(h, d, time);
        return;
    }
    m->seq = d->last_seq;
    NOTE(m,
         "it is not known which of the missing records were written by "
         "then: seq:%" PRIu64 " is the disk before them",
         known);
}

/* The session that begins with the record behind @seq, or NULL. */
static const struct tt_session *session_behind(const struct tt_history *h,
                                               uint64_t seq)
{
    for (size_t i = 0; i < h->sessions_count; i++) {
        const struct tt_session *s = &h->sessions[i];

        if (s->seq == seq + 1) {
            return s;
        }
        /* A CLOCK may stand in front of it. */
        for (size_t k = 0; s->seq == seq + 2 && k < h->epochs_count; k++) {
            if (h->epochs[k].first_seq == seq + 1) {
                return s;
            }
        }
    }
    return NULL;
}

static void note_between(const struct tt_history *h, int64_t time,
                         struct tt_moment *m)
{
    char from[TT_TIME_SIZE], to[TT_TIME_SIZE];
    int64_t last = time_at(h, m->seq);
    const struct tt_session *s = session_behind(h, m->seq);

    if (!s || time <= last) {
        return;
    }
    m->between = true;
    NOTE(m,
         "nothing was recorded between %s (seq:%" PRIu64 ") and %s, when "
         "the journal was opened again",
         tt_time_format(last, from), m->seq,
         tt_time_format(time_at(h, s->seq), to));
}

static int bind_in_epoch(const struct tt_history *h, size_t i, int64_t time,
                         struct tt_moment *m, struct tt_error *err)
{
    int ret = last_known(h, i, time, &m->seq, err);

    if (ret == 0) {
        note_between(h, time, m);
        reach_into_damage(h, time, m);
    }
    return ret;
}

/* ---- which epoch ------------------------------------------------------- */

static bool in_epoch(const struct tt_history *h, size_t i, int64_t time)
{
    return h->epochs[i].first_time <= time && time <= h->epochs[i].end_time;
}

/* Between the end of epoch @i and the start of the next. */
static bool in_hole(const struct tt_history *h, size_t i, int64_t time)
{
    return i + 1 < h->epochs_count && h->epochs[i].end_time < time &&
           time < h->epochs[i + 1].first_time;
}

static bool in_stop(const struct tt_history *h, size_t i, int64_t time)
{
    return h->ends[i].reason == TT_CLOCK_UNKNOWN && in_hole(h, i, time);
}

static bool in_jump(const struct tt_history *h, size_t i, int64_t time)
{
    return h->ends[i].reason != TT_CLOCK_UNKNOWN && in_hole(h, i, time);
}

typedef bool epoch_test(const struct tt_history *h, size_t i, int64_t time);

/* How many epochs pass @test, and the first that does. */
static size_t count_epochs(const struct tt_history *h, epoch_test *test,
                           int64_t time, size_t *ret_first)
{
    size_t n = 0;

    for (size_t i = 0; i < h->epochs_count; i++) {
        if (test(h, i, time)) {
            if (n++ == 0) {
                *ret_first = i;
            }
        }
    }
    return n;
}

/* More than one epoch passes @test: names them. */
static int refuse_several(const struct tt_history *h, epoch_test *test,
                          int64_t time, size_t count, const char *why,
                          struct tt_error *err)
{
    char list[800] = "", t[TT_TIME_SIZE], from[TT_TIME_SIZE], to[TT_TIME_SIZE];
    size_t named = 0;

    for (size_t i = 0; i < h->epochs_count && named < NAMED_MAX; i++) {
        const struct tt_epoch *e = &h->epochs[i];
        uint64_t seq;
        int ret;

        if (!test(h, i, time)) {
            continue;
        }
        ret = last_known(h, i, time, &seq, err);
        if (ret < 0) {
            return ret;
        }
        append(list, sizeof(list),
               "%sin epoch %" PRIu64 " (%s to %s) use "
               "at=seq:%" PRIu64,
               named ? ", " : "", e->number,
               tt_time_format(e->first_time, from),
               tt_time_format(e->end_time, to), seq);
        named++;
    }
    if (count > named) {
        append(list, sizeof(list), ", and %zu more", count - named);
    }
    return tt_fail(err, TT_ENOTTIME, EINVAL, "%s %s: %s",
                   tt_time_format(time, t), why, list);
}

static int refuse_before(const struct tt_history *h, int64_t time,
                         struct tt_error *err)
{
    char t[TT_TIME_SIZE], first[TT_TIME_SIZE];
    int64_t began =
        h->epochs_count ? h->epochs[0].first_time : h->super.created;

    return tt_fail(err, TT_ENOTTIME, EINVAL,
                   "%s is before the journal: recording began at %s; seq:0 is "
                   "the disk before it",
                   tt_time_format(time, t), tt_time_format(began, first));
}

static int bind_future(const struct tt_history *h, struct tt_moment *m)
{
    char end[TT_TIME_SIZE];

    m->future = true;
    m->seq = h->scan.last_seq;
    if (h->epochs_count) {
        NOTE(m,
             "the journal has not passed that time yet: it ends at %s "
             "(seq:%" PRIu64 ")",
             tt_time_format(h->epochs[h->epochs_count - 1].last_time, end),
             m->seq);
    } else {
        NOTE(m, "nothing has been recorded yet");
    }
    return 0;
}

/* Nothing was recorded then, or no clock showed that: the epoch before. */
static int bind_hole(const struct tt_history *h, size_t i, int64_t time,
                     bool jump, struct tt_moment *m, struct tt_error *err)
{
    char from[TT_TIME_SIZE], to[TT_TIME_SIZE];
    int ret = last_known(h, i, h->epochs[i].end_time, &m->seq, err);

    if (ret < 0) {
        return ret;
    }
    m->between = true;
    NOTE(m, "%s between %s (seq:%" PRIu64 ") and %s",
         jump ? "the clock was put forward and never showed the time"
              : "nothing was recorded",
         tt_time_format(h->epochs[i].end_time, from), m->seq,
         tt_time_format(h->epochs[i + 1].first_time, to));
    reach_into_damage(h, time, m);
    return 0;
}

static int bind_time(const struct tt_history *h, int64_t time,
                     struct tt_moment *m, struct tt_error *err)
{
    size_t i = 0, last = h->epochs_count, n;

    m->has_time = true;
    m->time = time;
    n = count_epochs(h, in_epoch, time, &i);
    if (n > 1) {
        return refuse_several(h, in_epoch, time, n,
                              "was shown more than once, for the clock was "
                              "set back",
                              err);
    }
    if (n == 1) {
        return bind_in_epoch(h, i, time, m, err);
    }
    if (last ? time > h->epochs[last - 1].end_time : time >= h->super.created) {
        return bind_future(h, m);
    }
    n = count_epochs(h, in_stop, time, &i);
    if (n > 1) {
        return refuse_several(h, in_stop, time, n,
                              "lies in several times when nothing was "
                              "recorded; for the disk at their beginning",
                              err);
    }
    if (n == 1) {
        return bind_hole(h, i, time, false, m, err);
    }
    n = count_epochs(h, in_jump, time, &i);
    if (n > 1) {
        return refuse_several(h, in_jump, time, n,
                              "was never shown, for the clock was put forward "
                              "over it more than once",
                              err);
    }
    if (n == 1) {
        return bind_hole(h, i, time, true, m, err);
    }
    return refuse_before(h, time, err);
}

/* ---- by name ----------------------------------------------------------- */

static int bind_seq(const struct tt_history *h, const char *text,
                    struct tt_moment *m, struct tt_error *err)
{
    const char *p = text + strlen("seq:");
    char q[QUOTE_SIZE];
    uint64_t seq = 0;
    bool digits = *p != '\0' && strspn(p, "0123456789") == strlen(p);

    if (!digits) {
        return tt_fail(err, TT_ENOTTIME, EINVAL,
                       "'%s' is not a sequence number: use seq:N",
                       tt_quote(text, q));
    }
    /* A number too large for 64 bits is beyond the end as well. */
    if (!tt_parse_number(&p, &seq) || seq > h->scan.last_seq) {
        return tt_fail(
            err, TT_ENOTTIME, EINVAL,
            "'%s' is beyond the journal: its last record is seq:%" PRIu64,
            tt_quote(text, q), h->scan.last_seq);
    }
    m->seq = seq;
    return 0;
}

static int bind_mark(const struct tt_history *h, const char *text,
                     struct tt_moment *m, struct tt_error *err)
{
    const char *name = text + strlen("mark:");
    const struct tt_mark *found = NULL;
    char q[QUOTE_SIZE];

    if (!tt_mark_name_ok(name, strlen(name))) {
        return tt_fail(err, TT_ENOTTIME, EINVAL,
                       "'%s' is not the name of a mark: use letters, digits, "
                       "'.', '_' and '-', and no '..'",
                       tt_quote(text, q));
    }
    for (size_t i = 0; i < h->marks_count; i++) {
        if (strcmp(h->marks[i].name, name)) {
            continue;
        }
        if (found) {
            return tt_fail(err, TT_ENOTTIME, EINVAL,
                           "'%s' names more than one moment: use seq:%" PRIu64
                           " or seq:%" PRIu64,
                           tt_quote(text, q), found->seq, h->marks[i].seq);
        }
        found = &h->marks[i];
    }
    if (!found) {
        return tt_fail(err, TT_ENOTTIME, EINVAL,
                       "'%s': the journal has no such mark; 'ttjournal log' "
                       "lists them",
                       tt_quote(text, q));
    }
    m->seq = found->seq;
    m->has_time = true;
    m->time = found->time;
    return 0;
}

int tt_moment_resolve(const struct tt_history *h, const char *text,
                      const struct tt_zone *zone, int64_t now,
                      struct tt_moment *ret, struct tt_error *err)
{
    int64_t time;
    int r = 0;

    *ret = (struct tt_moment){ 0 };
    if (!strcmp(text, "latest")) {
        ret->latest = true;
        ret->seq = h->scan.last_seq;
    } else if (!strncmp(text, "seq:", 4)) {
        r = bind_seq(h, text, ret, err);
    } else if (!strncmp(text, "mark:", 5)) {
        r = bind_mark(h, text, ret, err);
    } else {
        r = tt_time_parse(text, zone, now, &time, err);
        if (r == 0) {
            r = bind_time(h, time, ret, err);
        }
    }
    if (r == 0) {
        finish(h, ret);
    }
    return r;
}
