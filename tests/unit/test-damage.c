/*
 * Damage in durable history: is it found, and does it cost only its place?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>

#include "unit.h"

/* A closed journal with a good deal of history, in two segments if @steps. */
static void record(struct unit *u, uint64_t seed, bool steps)
{
    unit_begin(u, seed);
    for (unsigned i = 0; i < 12; i++) {
        unit_write(u, 512 * (3 * i), 4096);
        if (i % 3 == 2) {
            OK(&u->sw, sw_flush(&u->sw));
        }
        if (steps && i == 6) {
            unit_step_clock(u, -3600);
        }
    }
    OK(&u->sw, sw_close(&u->sw));
}

static struct sim_node *node_with(struct unit *u, uint16_t kind, unsigned nth)
{
    struct sim_node *found = NULL;

    for (struct sim_node *n = u->sw.tip; n->parent; n = n->parent) {
        for (uint64_t i = 0; i <= n->last_seq - n->first_seq; i++) {
            if (n->states[i].kind == kind) {
                found = n;
                if (!nth--) {
                    return found;
                }
                break;
            }
        }
    }
    return found;
}

/*
 * Exactly these frames are missing.  If the first one began a segment, or the
 * last one ended one, the slack beside it may hold what is missing too.
 */
static void expect_damage(struct unit *u, const struct sim_node *first,
                          const struct sim_node *last)
{
    const struct sim_node *before = first->parent, *behind = u->sw.tip;
    const struct tt_damage *d;
    struct unit_scan s;

    while (behind->parent != last) {
        behind = behind->parent;
    }
    unit_scan(u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u->sw.tip->last_seq);
    ck_assert_uint_eq(s.damage_count, 1);
    d = &s.damages[0];
    ck_assert(d->offset == first->offset ||
              d->offset == before->offset + before->length);
    ck_assert_uint_eq(d->offset + d->length, behind->offset);
    ck_assert_uint_eq(d->first_seq, first->first_seq);
    ck_assert_uint_eq(d->last_seq, last->last_seq);
    ck_assert(!s.scan.damaged_end);
    ck_assert_uint_eq(s.seqs, u->sw.tip->last_seq -
                                  (last->last_seq - first->first_seq + 1));
}

/* Any frame but the last one: the one behind it vouches for it. */
static void destroy_each(bool steps, enum unit_part part)
{
    unsigned frames = 0;

    for (unsigned skip = 1;; skip++) {
        struct sim_node *n;
        struct unit u;

        record(&u, 1, steps);
        n = u.sw.tip;
        for (unsigned i = 0; i < skip && n->parent; i++) {
            n = n->parent;
        }
        if (!n->parent) {
            unit_end(&u);
            break;
        }
        unit_destroy(&u, n, part);
        expect_damage(&u, n, n);
        frames++;
        unit_end(&u);
    }
    ck_assert_uint_gt(frames, 20);
}

START_TEST(header_destroyed)
{
    destroy_each(false, UNIT_HEADER);
    destroy_each(true, UNIT_HEADER);
}
END_TEST

START_TEST(table_destroyed)
{
    destroy_each(false, UNIT_TABLE);
    destroy_each(true, UNIT_TABLE);
}
END_TEST

START_TEST(frame_destroyed)
{
    destroy_each(false, UNIT_WHOLE);
    destroy_each(true, UNIT_WHOLE);
}
END_TEST

/* Header and table say what it was: only its bytes are gone. */
START_TEST(payload_destroyed)
{
    for (int steps = 0; steps < 2; steps++) {
        for (unsigned nth = 0; nth < 12; nth++) {
            struct sim_node *n;
            struct unit_scan s;
            struct unit u;

            record(&u, 2, steps);
            n = node_with(&u, TT_KIND_WRITE, nth);
            unit_destroy(&u, n, UNIT_PAYLOAD);
            unit_scan(&u, &s);
            ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
            ck_assert_uint_eq(s.seqs, u.sw.tip->last_seq);
            ck_assert_uint_eq(s.damage_count, 0);
            unit_end(&u);
        }
    }
}
END_TEST

/* So also of the first frame of a segment. */
START_TEST(payload_of_a_segments_first_frame)
{
    struct sim_node *n;
    struct unit_scan s;
    struct unit u;

    record(&u, 2, true);
    for (n = u.sw.tip; n->parent->offset >= TT_SEGMENT_MIN; n = n->parent) {
    }
    ck_assert_uint_eq(n->offset, TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    unit_destroy(&u, n, UNIT_PAYLOAD);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.seqs, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.damage_count, 0);
    unit_end(&u);
}
END_TEST

START_TEST(several_frames_destroyed)
{
    struct sim_node *a, *b;
    struct unit u;

    for (unsigned nth = 3; nth < 11; nth++) {
        record(&u, 3, nth & 1);
        b = node_with(&u, TT_KIND_WRITE, nth);
        a = b->parent->parent->parent;
        for (struct sim_node *n = b; n != a->parent; n = n->parent) {
            unit_destroy(&u, n, UNIT_WHOLE);
        }
        expect_damage(&u, a, b);
        unit_end(&u);
    }
}
END_TEST

START_TEST(two_places_destroyed)
{
    struct sim_node *a, *b;
    struct unit_scan s;
    struct unit u;

    record(&u, 4, true);
    a = node_with(&u, TT_KIND_WRITE, 9);
    b = node_with(&u, TT_KIND_WRITE, 2);
    unit_destroy(&u, a, UNIT_HEADER);
    unit_destroy(&u, b, UNIT_HEADER);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.damage_count, 2);
    ck_assert_uint_eq(s.damages[0].offset, a->offset);
    ck_assert_uint_eq(s.damages[1].offset, b->offset);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    unit_end(&u);
}
END_TEST

START_TEST(whole_first_segment_destroyed)
{
    struct unit_scan s;
    struct unit u;

    record(&u, 5, true);
    simdisk_destroy(&u.sw.journal, TT_SEGMENTS_OFFSET, TT_SEGMENT_MIN);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.damages[0].first_seq, 1);
    ck_assert_uint_eq(s.damages[0].offset, TT_SEGMENTS_OFFSET);
    ck_assert_uint_eq(s.damages[0].length, TT_SEGMENT_MIN);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    unit_end(&u);
}
END_TEST

/* ---- recovery ---------------------------------------------------------- */

static void recover(struct unit *u, struct tt_recovery *r)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };

    ck_assert_msg(tt_recovery_run(&u->sw.super, &src, r, &err) == 0, "%s",
                  err.message);
}

static void expect_all_captured(struct unit *u, size_t damages)
{
    struct tt_recovery r;

    recover(u, &r);
    for (uint64_t at = 0; at < SIM_DISK_MAX; at += TT_GRID) {
        ck_assert_msg(tt_blocks_test(r.captured, at, 1, NULL),
                      "block %llu would be captured again",
                      (ull)(at / TT_GRID));
    }
    ck_assert_uint_eq(r.damage_count, damages);
    tt_recovery_clear(&r);
}

/* Recovery of a damaged journal ends at its n-th write or flush. */
static bool open_damaged(struct unit *u, unsigned nth)
{
    int ret;

    unit_begin(u, 9);
    unit_write(u, 0, 4096);
    OK(&u->sw, sw_flush(&u->sw));
    unit_write(u, 16384, 4096);
    OK(&u->sw, sw_journal_flush(&u->sw));
    unit_write(u, 0, 512);
    unit_destroy(u, node_with(u, TT_KIND_PREIMAGE, 0), UNIT_HEADER);
    expect_all_captured(u, 1);
    sw_kill(&u->sw);
    u->sw.damage_ok = true;
    u->world.crash_change = u->world.changes + nth;
    ret = sw_open(&u->sw);
    u->world.crash_change = 0;
    ck_assert_msg(ret == 0 || ret == SIM_CRASH, "%d %s", ret, u->sw.problem);
    return ret == 0;
}

/* What the damage may hide must not be captured again, ever: also if the
 * session that found it and said so dies before its CHECKPOINT. */
START_TEST(no_second_capture_behind_damage)
{
    bool done = false;

    for (unsigned nth = 1; !done; nth++) {
        struct tt_recovery r;
        struct unit u;

        done = open_damaged(&u, nth);
        sw_kill(&u.sw);
        recover(&u, &r);
        for (uint64_t at = 0; at < SIM_DISK_MAX; at += TT_GRID) {
            ck_assert_msg(tt_blocks_test(r.captured, at, 1, NULL),
                          "%u: block %llu would be captured again", nth,
                          (ull)(at / TT_GRID));
        }
        ck_assert_uint_eq(r.damage_count, done ? 0 : r.damage_count);
        tt_recovery_clear(&r);
        unit_end(&u);
    }
}
END_TEST

/* A footer written after damage must not claim to be whole. */
START_TEST(no_footer_for_a_damaged_segment)
{
    struct tt_recovery r;
    struct unit u;

    unit_begin(&u, 11);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    unit_write(&u, 16384, 4096);
    OK(&u.sw, sw_journal_flush(&u.sw));
    unit_write(&u, 0, 512);
    unit_destroy(&u, node_with(&u, TT_KIND_WRITE, 1), UNIT_HEADER);
    recover(&u, &r);
    ck_assert_uint_eq(r.damage_count, 1);
    tt_recovery_clear(&r);
    sw_kill(&u.sw);
    u.sw.damage_ok = true;
    OK(&u.sw, sw_open(&u.sw));
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    for (const struct sim_node *n = u.sw.tip; n->parent; n = n->parent) {
        for (uint64_t i = 0; i <= n->last_seq - n->first_seq; i++) {
            ck_assert_int_ne(n->states[i].kind, TT_KIND_FOOTER);
        }
    }
    unit_end(&u);
}
END_TEST

/* ---- a medium that gives EIO ------------------------------------------- */

START_TEST(unreadable_in_the_middle)
{
    struct unit_scan s;
    struct sim_node *n;
    struct unit u;

    for (unsigned nth = 1; nth < 10; nth++) {
        record(&u, 12, nth & 1);
        n = node_with(&u, TT_KIND_WRITE, nth);
        u.sw.journal.bad_offset = n->offset;
        u.sw.journal.bad_length = 512;
        expect_damage(&u, n, n);
        unit_scan(&u, &s);
        ck_assert_uint_gt(s.scan.unreadable, 0);
        unit_end(&u);
    }
}
END_TEST

START_TEST(unreadable_payload)
{
    struct unit_scan s;
    struct sim_node *n;
    struct unit u;

    record(&u, 13, false);
    n = node_with(&u, TT_KIND_WRITE, 4);
    u.sw.journal.bad_offset = n->offset + 1024;
    u.sw.journal.bad_length = 512;
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    unit_end(&u);
}
END_TEST

/* It may be the last thing that was flushed: it is never written over. */
START_TEST(unreadable_end_is_left_alone)
{
    static const uint64_t lengths[] = { 512, 4096, 20000 };

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint64_t offset;
        struct unit_scan s;
        struct unit u;

        unit_begin(&u, 14);
        unit_write(&u, 0, 8192);
        OK(&u.sw, sw_flush(&u.sw));
        unit_write(&u, 0, 4096);
        OK(&u.sw, sw_journal_flush(&u.sw));
        sw_kill(&u.sw);
        offset = u.sw.tip->offset;
        u.sw.journal.bad_offset = offset;
        u.sw.journal.bad_length = lengths[i];
        unit_scan(&u, &s);
        ck_assert_uint_gt(s.scan.unreadable, 0);
        u.sw.damage_ok = true;
        u.sw.disk_unsure = true;
        u.sw.tip = u.sw.tip->parent;
        while (u.sw.tip->last_seq > s.scan.last_seq) {
            u.sw.tip = u.sw.tip->parent;
        }
        OK(&u.sw, sw_open(&u.sw));
        ck_assert_uint_ge(u.sw.tip->offset,
                          TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
        /* and what was written behind it is found */
        unit_scan(&u, &s);
        ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
        unit_end(&u);
    }
}
END_TEST

int main(void)
{
    return unit_run("damage", (const TTest *const *const[]){
                                  &header_destroyed,
                                  &table_destroyed,
                                  &frame_destroyed,
                                  &payload_destroyed,
                                  &payload_of_a_segments_first_frame,
                                  &several_frames_destroyed,
                                  &two_places_destroyed,
                                  &whole_first_segment_destroyed,
                                  &no_second_capture_behind_damage,
                                  &no_footer_for_a_damaged_segment,
                                  &unreadable_in_the_middle,
                                  &unreadable_payload,
                                  &unreadable_end_is_left_alone,
                                  NULL,
                              });
}
