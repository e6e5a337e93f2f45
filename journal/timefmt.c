/*
 * Times: what moment does this text name?
 *
 * A time is taken only if it names one moment: with a zone, or with the zone
 * that the user gave beside it, and then not in the hour that a clock showed
 * twice or not at all.  Otherwise it is refused, and the message shows what
 * could be meant in a form that is accepted.  Nothing is rounded.
 *
 * Internally a time is nanoseconds since 1970 UTC in 64 bits, without leap
 * seconds, which covers the years 1678 to 2261 and a part of 2262.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "timefmt.h"

#define NS INT64_C(1000000000)
#define DAY INT64_C(86400)
#define YEAR_MIN 1678u
#define YEAR_MAX 2262u

/* A wall clock's reading. */
struct civil {
    unsigned year, month, day, hour, minute, second;
    uint32_t nanos;
};

const char *tt_quote(const char *text, char buf[static QUOTE_SIZE])
{
    size_t i = 0;

    for (; text[i] && i < QUOTE_SIZE - 4; i++) {
        unsigned char c = (unsigned char)text[i];

        buf[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    memcpy(buf + i, text[i] ? "..." : "", text[i] ? 4 : 1);
    return buf;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool tt_parse_number(const char **text, uint64_t *ret)
{
    const char *p = *text;
    uint64_t v = 0;

    if (!is_digit(*p)) {
        return false;
    }
    for (; is_digit(*p); p++) {
        if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v)) {
            return false;
        }
    }
    *text = p;
    *ret = v;
    return true;
}

/* Exactly @digits digits. */
static bool parse_fixed(const char **text, unsigned digits, unsigned *ret)
{
    unsigned v = 0;

    for (unsigned i = 0; i < digits; i++) {
        if (!is_digit((*text)[i])) {
            return false;
        }
        v = v * 10 + (unsigned)((*text)[i] - '0');
    }
    *text += digits;
    *ret = v;
    return true;
}

/* ---- calendar ---------------------------------------------------------- */

static bool is_leap(unsigned year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static unsigned month_days(unsigned year, unsigned month)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30,
                                    31, 31, 30, 31, 30, 31 };

    return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days from 0000-01-01 to the first of January of @year. */
static int64_t year_days(unsigned year)
{
    unsigned before = year - 1;

    return INT64_C(365) * year + before / 4 - before / 100 + before / 400 + 1;
}

static int64_t civil_seconds(const struct civil *c)
{
    int64_t days = year_days(c->year) - year_days(1970) + c->day - 1;

    for (unsigned m = 1; m < c->month; m++) {
        days += month_days(c->year, m);
    }
    return days * DAY + c->hour * 3600 + c->minute * 60 + c->second;
}

static void civil_from_time(int64_t time, struct civil *c)
{
    int64_t seconds = time / NS, nanos = time % NS, days, rest;

    if (nanos < 0) {
        nanos += NS;
        seconds--;
    }
    c->nanos = (uint32_t)nanos;
    days = seconds / DAY;
    rest = seconds % DAY;
    if (rest < 0) {
        rest += DAY;
        days--;
    }
    c->hour = (unsigned)(rest / 3600);
    c->minute = (unsigned)(rest / 60 % 60);
    c->second = (unsigned)(rest % 60);
    days += year_days(1970);
    c->year = (unsigned)(days / 366);
    while (year_days(c->year + 1) <= days) {
        c->year++;
    }
    days -= year_days(c->year);
    for (c->month = 1; days >= month_days(c->year, c->month); c->month++) {
        days -= month_days(c->year, c->month);
    }
    c->day = (unsigned)days + 1;
}

const char *tt_time_format(int64_t time, char buf[static TT_TIME_SIZE])
{
    struct civil c;

    civil_from_time(time, &c);
    snprintf(buf, TT_TIME_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%09" PRIu32 "Z",
             c.year, c.month, c.day, c.hour, c.minute, c.second, c.nanos);
    return buf;
}

/* ---- parts of a time --------------------------------------------------- */

static int refuse(struct tt_error *err, const char *text, const char *why)
{
    char q[QUOTE_SIZE];

    return tt_fail(err, TT_ENOTTIME, EINVAL, "'%s' %s", tt_quote(text, q), why);
}

static int not_a_time(struct tt_error *err, const char *text)
{
    return refuse(err, text,
                  "is not a time: use 2026-11-20T12:00:00Z, "
                  "@SECONDS, -15min, seq:N, mark:NAME or latest");
}

/* ".digits", if there is a point; false if it is malformed. */
static bool parse_fraction(const char **text, uint32_t *ret, bool *ret_long)
{
    const char *p = *text;
    uint32_t v = 0, digits = 0;

    *ret_long = false;
    *ret = 0;
    if (*p != '.') {
        return true;
    }
    for (p++; is_digit(*p); p++) {
        if (digits < 9) {
            v = v * 10 + (uint32_t)(*p - '0');
            digits++;
        } else {
            *ret_long = true;
        }
    }
    if (!digits) {
        return false;
    }
    for (; digits < 9; digits++) {
        v *= 10;
    }
    *text = p;
    *ret = v;
    return true;
}

static int to_time(const char *text, int64_t seconds, uint32_t nanos,
                   int64_t *ret, struct tt_error *err)
{
    if (__builtin_mul_overflow(seconds, NS, ret) ||
        __builtin_add_overflow(*ret, (int64_t)nanos, ret)) {
        return refuse(err, text,
                      "is out of range: times are from the year "
                      "1678 to April 2262");
    }
    return 0;
}

/* "@-1.5" is half a second before @-1. */
static int parse_epoch(const char *text, int64_t *ret, struct tt_error *err)
{
    const char *p = text + 1;
    bool negative = *p == '-', too_long;
    uint64_t seconds;
    uint32_t nanos;
    int r;

    p += negative;
    if (!tt_parse_number(&p, &seconds) ||
        !parse_fraction(&p, &nanos, &too_long) || *p) {
        return not_a_time(err, text);
    }
    if (too_long) {
        return refuse(err, text, "has more than nine digits behind the point");
    }
    r = to_time(text, seconds > INT64_MAX ? INT64_MAX : (int64_t)seconds, nanos,
                ret, err);
    if (r == 0 && negative) {
        *ret = -*ret;
    }
    return r;
}

static int parse_relative(const char *text, int64_t now, int64_t *ret,
                          struct tt_error *err)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {
        { "ms", NS / 1000 }, { "min", 60 * NS },    { "sec", NS },
        { "s", NS },         { "m", 60 * NS },      { "h", 3600 * NS },
        { "d", DAY * NS },   { "w", 7 * DAY * NS },
    };
    const char *p = text + 1;
    int64_t back = 0;

    do {
        uint64_t n;
        int64_t part;
        size_t u = 0;

        if (!tt_parse_number(&p, &n)) {
            return not_a_time(err, text);
        }
        while (u < sizeof(units) / sizeof(units[0]) &&
               strncmp(p, units[u].name, strlen(units[u].name))) {
            u++;
        }
        if (u == sizeof(units) / sizeof(units[0])) {
            return refuse(err, text,
                          "is not a time: its units are w, d, h, "
                          "min, s and ms, as in -1h30min");
        }
        p += strlen(units[u].name);
        if (n > INT64_MAX ||
            __builtin_mul_overflow((int64_t)n, units[u].ns, &part) ||
            __builtin_add_overflow(back, part, &back)) {
            return refuse(err, text, "is too long ago");
        }
    } while (*p);
    if (__builtin_sub_overflow(now, back, ret)) {
        return refuse(err, text, "is too long ago");
    }
    return 0;
}

/* ---- RFC 3339 ---------------------------------------------------------- */

/* What a text says; fields are within their limits. */
struct reading {
    struct civil civil;
    bool has_time, has_zone, too_long;
    int32_t offset; /* from UTC, in seconds */
};

static bool parse_date(const char **p, struct civil *c)
{
    return parse_fixed(p, 4, &c->year) && *(*p)++ == '-' &&
           parse_fixed(p, 2, &c->month) && *(*p)++ == '-' &&
           parse_fixed(p, 2, &c->day);
}

static bool parse_clock(const char **p, struct reading *r)
{
    struct civil *c = &r->civil;

    if (!parse_fixed(p, 2, &c->hour) || *(*p)++ != ':' ||
        !parse_fixed(p, 2, &c->minute)) {
        return false;
    }
    if (**p != ':') {
        return true;
    }
    (*p)++;
    return parse_fixed(p, 2, &c->second) &&
           parse_fraction(p, &c->nanos, &r->too_long);
}

static bool parse_zone(const char **p, struct reading *r)
{
    unsigned hours, minutes;
    char sign = **p;

    r->has_zone = true;
    (*p)++;
    if (sign == 'Z' || sign == 'z') {
        return true;
    }
    if ((sign != '+' && sign != '-') || !parse_fixed(p, 2, &hours) ||
        *(*p)++ != ':' || !parse_fixed(p, 2, &minutes) || hours > 23 ||
        minutes > 59) {
        return false;
    }
    r->offset = (int32_t)(hours * 3600 + minutes * 60);
    if (sign == '-') {
        r->offset = -r->offset;
    }
    return true;
}

static bool parse_rfc3339(const char *text, struct reading *r)
{
    const char *p = text;

    if (!parse_date(&p, &r->civil)) {
        return false;
    }
    if (*p == 'T' || *p == 't' || *p == ' ') {
        p++;
        r->has_time = true;
        if (!parse_clock(&p, r) || (*p && !parse_zone(&p, r))) {
            return false;
        }
    }
    return !*p;
}

static int check_civil(const char *text, const struct reading *r,
                       struct tt_error *err)
{
    const struct civil *c = &r->civil;

    if (r->too_long) {
        return refuse(err, text, "has more than nine digits behind the point");
    }
    if (c->year < YEAR_MIN || c->year > YEAR_MAX) {
        return refuse(err, text,
                      "is out of range: times are from the year "
                      "1678 to April 2262");
    }
    if (c->second == 60) {
        return refuse(err, text,
                      "names a leap second: the clock that is "
                      "recorded has none, give the second before or after it");
    }
    if (c->month < 1 || c->month > 12 || c->day < 1 ||
        c->day > month_days(c->year, c->month)) {
        return refuse(err, text, "is not a time: there is no such day");
    }
    if (c->hour > 23 || c->minute > 59 || c->second > 59) {
        return refuse(err, text, "is not a time: no clock shows that");
    }
    return 0;
}

/* "2026-10-25T00:30:00.000000000Z (offset +02:00)" */
static const char *reading_at(int64_t civil, uint32_t nanos, int32_t offset,
                              char *buf, size_t size)
{
    unsigned off = (unsigned)(offset < 0 ? -offset : offset);
    char time[TT_TIME_SIZE] = "out of range";
    int64_t t;

    if (!__builtin_mul_overflow(civil - offset, NS, &t) &&
        !__builtin_add_overflow(t, (int64_t)nanos, &t)) {
        tt_time_format(t, time);
    }
    snprintf(buf, size, "%s (offset %c%02u:%02u)", time, offset < 0 ? '-' : '+',
             off / 3600, off / 60 % 60);
    return buf;
}

#define READING_SIZE (TT_TIME_SIZE + 40)

/* No zone in the text, and none given beside it. */
static int refuse_zoneless(const char *text, int64_t civil, uint32_t nanos,
                           const struct tt_zone *zone, struct tt_error *err)
{
    char utc[READING_SIZE], local[READING_SIZE], q[QUOTE_SIZE];
    int32_t offsets[2];

    reading_at(civil, nanos, 0, utc, sizeof(utc));
    if (!zone || zone->offsets(zone->opaque, civil, offsets) < 1) {
        return tt_fail(err, TT_ENOTTIME, EINVAL,
                       "'%s' has no zone: read as UTC it is %s; add Z or an "
                       "offset, or say tz=",
                       tt_quote(text, q), utc);
    }
    return tt_fail(err, TT_ENOTTIME, EINVAL,
                   "'%s' has no zone: read as UTC it is %s, read as local "
                   "time (%s) it is %s; add Z or an offset, or say tz=",
                   tt_quote(text, q), utc, zone->name,
                   reading_at(civil, nanos, offsets[0], local, sizeof(local)));
}

static int resolve_local(const char *text, int64_t civil, uint32_t nanos,
                         const struct tt_zone *zone, int64_t *ret,
                         struct tt_error *err)
{
    char a[READING_SIZE], b[READING_SIZE], q[QUOTE_SIZE];
    int32_t offsets[2];
    int n;

    if (!zone || !zone->given) {
        return refuse_zoneless(text, civil, nanos, zone, err);
    }
    n = zone->offsets(zone->opaque, civil, offsets);
    if (n < 0) {
        return tt_fail(err, TT_ENOTTIME, EINVAL,
                       "'%s' cannot be read in the zone %s: add Z or an "
                       "offset",
                       tt_quote(text, q), zone->name);
    }
    if (n == 1) {
        return to_time(text, civil - offsets[0], nanos, ret, err);
    }
    return tt_fail(err, TT_ENOTTIME, EINVAL,
                   "'%s' %s in %s, where the clocks were put %s: use %s or %s",
                   tt_quote(text, q), n ? "was shown twice" : "was never shown",
                   zone->name, n ? "back" : "forward",
                   reading_at(civil, nanos, offsets[0], a, sizeof(a)),
                   reading_at(civil, nanos, offsets[1], b, sizeof(b)));
}

static int parse_absolute(const char *text, const struct tt_zone *zone,
                          int64_t *ret, struct tt_error *err)
{
    struct reading r = { 0 };
    int64_t civil;
    int code;

    if (!parse_rfc3339(text, &r)) {
        return not_a_time(err, text);
    }
    code = check_civil(text, &r, err);
    if (code < 0) {
        return code;
    }
    civil = civil_seconds(&r.civil);
    if (!r.has_zone) {
        return resolve_local(text, civil, r.civil.nanos, zone, ret, err);
    }
    return to_time(text, civil - r.offset, r.civil.nanos, ret, err);
}

int tt_time_parse(const char *text, const struct tt_zone *zone, int64_t now,
                  int64_t *ret, struct tt_error *err)
{
    if (*text == '@') {
        return parse_epoch(text, ret, err);
    }
    if (*text == '-') {
        return parse_relative(text, now, ret, err);
    }
    return parse_absolute(text, zone, ret, err);
}
