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

struct gap {
    struct tt_gap_body body;
    struct tt_range range;
};

uint64_t unit_gap(struct unit *u, uint64_t opens, uint32_t flags,
                  uint64_t offset, uint64_t length)
{
    struct gap gap = {
        .body = {
            .from_seq = tt_put64(u->sw.w.next_seq - 1),
            .opens_seq = tt_put64(opens),
            .reason = tt_put32(TT_GAP_JOURNAL_ERROR),
            .flags = tt_put32(flags),
            .range_count = tt_put32(length ? 1 : 0),
        },
        .range = { tt_put64(offset), tt_put64(length) },
    };
    struct tt_request req = {
        .kind = TT_KIND_GAP,
        .flags = TT_RECORD_INLINE,
        .payload = &gap,
        .payload_length = length ? sizeof(gap) : sizeof(gap.body),
    };

    OK(&u->sw, sw_append_one(&u->sw, &req, 1));
    return u->sw.w.next_seq - 1;
}

void unit_cut_power(struct unit *u, uint64_t lost)
{
    sw_abandon(&u->sw);
    simdisk_lose(&u->sw.journal, lost, 512);
    u->sw.tip = u->sw.durable;
}

void unit_step_clock(struct unit *u, int64_t seconds)
{
    u->sw.now.realtime += seconds * INT64_C(1000000000);
}

void unit_destroy(struct unit *u, const struct sim_node *n, enum unit_part part)
{
    uint64_t payload = 0;
    struct tt_frame f;

    ck_assert(tt_frame_decode(&u->sw.super, n->offset,
                              u->sw.journal.cache + n->offset, &f));
    payload = f.payload_offset;
    switch (part) {
    case UNIT_HEADER:
        simdisk_destroy(&u->sw.journal, n->offset, 100);
        break;
    case UNIT_TABLE:
        simdisk_flip(&u->sw.journal,
                     n->offset + sizeof(struct tt_frame_header) + 9, 3);
        break;
    case UNIT_PAYLOAD:
        simdisk_flip(&u->sw.journal, n->offset + payload, 5);
        break;
    case UNIT_WHOLE:
        simdisk_destroy(&u->sw.journal, n->offset, n->length);
        break;
    }
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
    const struct tt_scan_ops ops = { .frame = count_frame,
                                     .damage = count_damage,
                                     .opaque = ret };
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    memset(ret, 0, sizeof(*ret));
    ck_assert_msg(tt_scan_run(&u->sw.super, &src, 0, &ops, &ret->scan, &err) ==
                      0,
                  "%s", err.message);
}

/* ---- histories with an index, and without ------------------------------- */

/* The first record that a scan has met that @seq or @time asks for */
struct meet {
    uint64_t first, seq;
    int64_t time;
    bool by_time;
    uint64_t epoch; /* of @seq */
};

static int meet_frame(void *opaque, const struct tt_frame *f,
                      const uint8_t *table)
{
    struct meet *m = opaque;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;

    while (!m->first && tt_table_next(f, table, &pos, &index, &rec)) {
        if (rec.seq >= m->seq ||
            (m->by_time && f->epoch == m->epoch && rec.time == m->time)) {
            m->first = rec.seq;
        }
    }
    return m->first ? -TT_EINVAL : 0;
}

static uint64_t meet(const struct tt_source *src, uint64_t from, struct meet m)
{
    const struct tt_scan_ops ops = { .frame = meet_frame, .opaque = &m };
    struct tt_super super;
    struct tt_scan scan;

    ck_assert_int_eq(tt_super_read(src, &super, NULL, NULL), 0);
    tt_scan_run(&super, src, from, &ops, &scan, NULL);
    return m.first;
}

void unit_same_scans(const struct tt_source *src, const struct tt_history *h,
                     uint64_t step)
{
    uint64_t last = tt_history_end(h)->last_seq, later = 0;
    size_t e = 0, count;
    const struct tt_epoch *epochs = tt_history_epochs(h, &count);

    for (uint64_t seq = 1; seq <= last; seq += step) {
        struct meet m = { .seq = seq };
        uint64_t from;

        ck_assert(tt_history_time(h, seq, &m.time));
        while (e + 1 < count && epochs[e].last_seq < seq) {
            e++;
        }
        m.epoch = epochs[e].number;
        for (unsigned i = 0; i < 2; i++) {
            m.by_time = i;
            ck_assert_int_eq(
                tt_history_scan_from(h, seq, i ? &m.time : NULL, &from, NULL),
                0);
            ck_assert_uint_eq(meet(src, from, m), meet(src, 0, m));
            later += from > 0;
        }
    }
    ck_assert(later > 0 || !tt_history_covered(h));
}

void unit_same_stats(const struct tt_history *a, const struct tt_history *b)
{
    struct tt_history_stats s, t;
    uint64_t x, y;

    tt_history_stats(a, &s);
    tt_history_stats(b, &t);
    ck_assert_uint_eq(s.records, t.records);
    ck_assert_uint_eq(s.writes, t.writes);
    ck_assert_uint_eq(s.zeroes, t.zeroes);
    ck_assert_uint_eq(s.preimages, t.preimages);
    ck_assert_uint_eq(s.resizes, t.resizes);
    ck_assert_uint_eq(s.sessions, t.sessions);
    ck_assert_uint_eq(s.marks, t.marks);
    ck_assert_uint_eq(s.gaps, t.gaps);
    ck_assert_uint_eq(s.damages, t.damages);
    ck_assert_uint_eq(s.written_bytes, t.written_bytes);
    ck_assert_uint_eq(s.segments, t.segments);
    ck_assert_uint_eq(s.level_seq, t.level_seq);
    ck_assert_int_eq(s.clean, t.clean);
    ck_assert_uint_eq(s.provisional_from, t.provisional_from);
    ck_assert_int_eq(tt_history_captured(a, &x, NULL), 0);
    ck_assert_int_eq(tt_history_captured(b, &y, NULL), 0);
    ck_assert_uint_eq(x, y);
}

unsigned unit_rounds(unsigned all, unsigned least)
{
    const char *s = getenv("TTJ_ROUNDS_IN");
    unsigned in = s ? (unsigned)strtoul(s, NULL, 10) : 1;

    all /= in ? in : 1;
    return all > least ? all : least;
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
