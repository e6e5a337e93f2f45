/*
 * Fuzzing times as users type them
 *
 * An input is what was typed; its first byte chooses the journal, the zone and
 * what "now" is.  What must hold:
 *
 *   - whatever is taken is a moment of the journal, and the time that is then
 *     printed is taken as well, and is the same;
 *   - whatever is refused is refused in one printable line.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "../../journal/timefmt.h"
#include "fuzz.h"

static struct tt_history *histories[FUZZ_BASES];
static struct fuzz_base bases[FUZZ_BASES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < FUZZ_BASES; i++) {
        struct tt_source src;

        fuzz_base_make(&bases[i], i);
        src = fuzz_source(&bases[i].image);
        histories[i] = tt_history_new();
        FUZZ_CHECK(histories[i] &&
                   tt_history_load(histories[i], &src, NULL) == 0);
    }
    return 0;
}

/* A zone whose clocks go forward and back once a day. */
static int offsets(void *opaque, int64_t civil, int32_t ret_offsets[2])
{
    int64_t hour = ((civil / 3600) % 24 + 24) % 24;

    (void)opaque;
    ret_offsets[0] = 3600;
    ret_offsets[1] = 7200;
    return hour == 2 ? 0 : hour == 22 ? 2 : 1;
}

static int unknown_offsets(void *opaque, int64_t civil, int32_t ret_offsets[2])
{
    (void)opaque;
    (void)civil;
    (void)ret_offsets;
    return -1;
}

/* What is before 1678 is printed, and refused with these words. */
static bool may_be_refused(int64_t time)
{
    return time < INT64_C(-9214560000) * 1000000000;
}

/* A time that was taken is printed, and taken again. */
static void check_time(const char *text, const struct tt_zone *zone,
                       int64_t now)
{
    char printed[TT_TIME_SIZE];
    struct tt_error err = { 0 };
    int64_t time, again;

    if (fuzz_told(tt_time_parse(text, zone, now, &time, &err), &err) == 0) {
        FUZZ_CHECK(tt_time_format(time, printed) == printed);
        if (tt_time_parse(printed, NULL, 0, &again, &err) < 0) {
            FUZZ_CHECK(may_be_refused(time) && strstr(err.message, "1678"));
        } else {
            FUZZ_CHECK(again == time);
        }
    }
}

static void check_moment(const struct tt_history *h, const char *text,
                         const struct tt_zone *zone, int64_t now)
{
    struct tt_error err = { 0 };
    struct tt_moment m, again;
    char printed[TT_TIME_SIZE];

    if (fuzz_told(tt_moment_resolve(h, text, zone, now, &m, &err), &err) < 0) {
        FUZZ_CHECK(err.code == TT_ENOTTIME || err.code == TT_EINVAL);
        return;
    }
    FUZZ_CHECK(m.seq <= tt_history_end(h)->last_seq);
    FUZZ_CHECK(!strchr(m.note, '\n') && strlen(m.note) < sizeof(m.note));
    FUZZ_CHECK(m.latest == !strcmp(text, "latest"));
    if (m.has_time && !may_be_refused(m.time) && text[0] != 's' &&
        text[0] != 'm' && !m.latest) {
        tt_time_format(m.time, printed);
        FUZZ_CHECK(tt_moment_resolve(h, printed, NULL, 0, &again, NULL) == 0);
        FUZZ_CHECK(again.seq == m.seq);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t nows[] = { INT64_C(1790000000000000000), 0, INT64_MAX,
                                    INT64_MIN };
    const struct tt_zone zones[] = {
        { "Away", offsets, NULL, true },
        { "Home", offsets, NULL, false },
        { "Lost", unknown_offsets, NULL, true },
    };
    const struct tt_zone *zone = NULL;
    int64_t now;
    char *text;

    if (!size) {
        return 0;
    }
    if (data[0] & 3) {
        zone = &zones[(data[0] & 3) - 1];
    }
    now = nows[data[0] >> 2 & 3];
    text = fuzz_alloc(size);
    memcpy(text, data + 1, size - 1);
    check_time(text, zone, now);
    check_moment(histories[(data[0] >> 4) % FUZZ_BASES], text, zone, now);
    free(text);
    return 0;
}
