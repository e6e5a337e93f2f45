/*
 * Damage at the end of history: what survives behind it tells what was durable
 *
 * There lie torn and stale frames, too, and the next session's first ones; so
 * where history ends, and how, is to be told from what is left of them all.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

/* ---- stale frames beside damage ---------------------------------------- */

/*
 * A, B durable; C lost in a power cut and D left; then another boot, so the
 * new session begins in the next segment, where its first frame rots.
 */
START_TEST(stale_frame_before_a_rotten_segment)
{
    struct sim_node *session;
    struct unit_scan s;
    struct unit u;
    uint64_t lost, stale;

    unit_begin(&u, 6);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    OK(&u.sw, sw_journal_flush(&u.sw));
    lost = u.sw.w.next_offset;
    unit_write(&u, 0, 1024);
    stale = u.sw.w.next_offset;
    unit_write(&u, 0, 1024);
    unit_cut_power(&u, lost);
    u.sw.boot++;
    OK(&u.sw, sw_open(&u.sw));
    session = u.sw.durable;
    unit_write(&u, 0, 1024);
    OK(&u.sw, sw_flush(&u.sw));
    OK(&u.sw, sw_close(&u.sw));
    while (session->parent->session == session->session) {
        session = session->parent;
    }
    ck_assert_uint_eq(session->offset, TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    unit_destroy(&u, session, UNIT_HEADER);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.damages[0].first_seq, session->first_seq);
    ck_assert_uint_eq(s.damages[0].last_seq, session->last_seq);
    ck_assert_uint_lt(s.damages[0].offset, stale);
    unit_end(&u);
}
END_TEST

/*
 * The same, and of the new session nothing is whole: a power cut tore its last
 * frame, and those before have rotted.  That one's header tells all the same
 * what was durable, and that D is stale.
 */
START_TEST(torn_frame_tells_of_a_later_session)
{
    struct sim_node *n, *torn;
    struct unit_scan s;
    struct tt_frame f;
    struct unit u;
    uint64_t lost, q;

    unit_begin(&u, 7);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    OK(&u.sw, sw_journal_flush(&u.sw));
    q = u.sw.w.next_seq;
    lost = u.sw.w.next_offset;
    unit_write(&u, 0, 1024);
    unit_write(&u, 0, 1024);
    unit_cut_power(&u, lost);
    u.sw.boot++;
    OK(&u.sw, sw_open(&u.sw));
    unit_write(&u, 0, 1024);
    torn = u.sw.tip;
    for (n = torn->parent; n->session == torn->session; n = n->parent) {
        unit_destroy(&u, n, UNIT_HEADER);
    }
    ck_assert_uint_eq(n->last_seq + 1, q);
    ck_assert(tt_frame_decode(&u.sw.super, torn->offset,
                              u.sw.journal.cache + torn->offset, &f));
    ck_assert_uint_ge(f.durable_seq, q);
    unit_destroy(&u, torn, UNIT_PAYLOAD);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.damages[0].first_seq, q);
    ck_assert_uint_eq(s.damages[0].last_seq, f.durable_seq);
    ck_assert_uint_eq(s.scan.last_seq, f.durable_seq);
    ck_assert(s.scan.damaged_end);
    unit_end(&u);
}
END_TEST

/*
 * B is durable and rots; C was lost and D vouches for B: history ends there,
 * damaged, and nothing of it is written over.
 */
static uint64_t end_damaged(struct unit *u, uint64_t seed, uint8_t saved[512])
{
    uint64_t rotten;

    unit_begin(u, seed);
    unit_write(u, 0, 8192);
    OK(&u->sw, sw_flush(&u->sw));
    rotten = u->sw.w.next_offset;
    unit_write(u, 0, 1024);
    while (u->sw.durable != u->sw.tip) {
        OK(&u->sw, sw_journal_flush(&u->sw));
    }
    rotten = u->sw.tip->offset;
    unit_write(u, 2048, 1024);
    unit_write(u, 4096, 1024);
    simdisk_lose(&u->sw.journal, u->sw.tip->parent->offset, 512);
    sw_abandon(&u->sw);
    memcpy(saved, u->sw.journal.cache + rotten, 512);
    simdisk_destroy(&u->sw.journal, rotten, 512);
    u->sw.tip = u->sw.durable;
    u->sw.damage_ok = true;
    u->sw.disk_unsure = true;
    return rotten;
}

START_TEST(history_that_ends_damaged)
{
    static uint8_t before[TT_MIB];
    struct unit_scan s;
    struct unit u;
    uint8_t saved[512];
    uint64_t rotten = end_damaged(&u, 7, saved);
    uint64_t size = u.sw.journal.size;

    unit_scan(&u, &s);
    ck_assert(s.scan.damaged_end);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.durable->last_seq);
    ck_assert_uint_eq(s.damages[0].offset, rotten);
    ck_assert_uint_le(size, sizeof(before));
    memcpy(before, u.sw.journal.cache, size);
    OK(&u.sw, sw_open(&u.sw));
    unit_write(&u, 8192, 512);
    OK(&u.sw, sw_close(&u.sw));
    ck_assert_mem_eq(before, u.sw.journal.cache, size);

    unit_scan(&u, &s);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.damages[0].offset, rotten);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert(!s.scan.damaged_end);
    unit_end(&u);
}
END_TEST

/*
 * Of the last segment only heads are left, and what comes before it is
 * destroyed: so its first frame is of no use, but it was there when the journal
 * was read, and is no news afterwards.
 */
START_TEST(history_that_ends_damaged_is_not_replaced)
{
    struct tt_history *h = tt_history_new();
    struct sim_node *n;
    struct tt_source src;
    bool grown = true;
    struct unit u;

    unit_begin(&u, 9);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    unit_step_clock(&u, -3600);
    unit_write(&u, 1024, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    unit_write(&u, 1536, 4096);
    for (n = u.sw.tip; n->parent->offset >= TT_SEGMENT_MIN; n = n->parent) {
        simdisk_destroy(&u.sw.journal, n->offset + n->length - 512, 512);
    }
    ck_assert_uint_eq(n->offset, TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    simdisk_destroy(&u.sw.journal, n->offset + n->length - 512, 512);
    unit_destroy(&u, n->parent, UNIT_HEADER);
    src = sw_quiet_source(&u.sw);
    ck_assert_int_eq(tt_history_load(h, &src, NULL), 0);
    ck_assert(tt_history_end(h)->damaged_end);
    ck_assert_uint_eq(tt_history_end(h)->last.offset,
                      n->parent->parent->offset);
    ck_assert_uint_ge(tt_history_end(h)->last_seq, n->first_seq);
    ck_assert_int_eq(tt_history_refresh(h, &src, &grown, NULL), 0);
    ck_assert(!grown);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

/* Nor is a frame that is cut off, of which a forged one says it is durable. */
START_TEST(frame_cut_off_is_not_replaced)
{
    struct tt_history *h = tt_history_new();
    struct tt_frame_header f;
    struct tt_source src;
    uint8_t *frame;
    bool grown = true;
    struct unit u;

    unit_begin(&u, 10);
    unit_write(&u, 0, 4096);
    unit_write(&u, 8192, 4096);
    /* its payload holds what passes for the frame behind it */
    frame = u.sw.journal.cache + u.sw.tip->offset;
    memcpy(frame + 1024, frame, 512);
    memcpy(&f, frame, sizeof(f));
    f.offset = tt_put64(u.sw.tip->offset + 1024);
    f.first_seq = tt_put64(u.sw.tip->last_seq + 1);
    f.durable_seq = tt_put64(u.sw.tip->last_seq);
    f.header_checksum = tt_put64(
        tt_checksum(&f, offsetof(struct tt_frame_header, header_checksum)));
    memcpy(frame + 1024, &f, sizeof(f));
    u.sw.journal.size = u.sw.tip->offset + 2048;
    src = sw_quiet_source(&u.sw);
    ck_assert_int_eq(tt_history_load(h, &src, NULL), 0);
    ck_assert_uint_eq(tt_history_end(h)->last_seq, u.sw.tip->last_seq);
    ck_assert_int_eq(tt_history_refresh(h, &src, &grown, NULL), 0);
    ck_assert(!grown);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

START_TEST(damage_that_heals)
{
    struct unit_scan s;
    struct unit u;
    uint8_t saved[512];
    uint64_t rotten = end_damaged(&u, 8, saved);

    OK(&u.sw, sw_open(&u.sw));
    unit_write(&u, 8192, 512);
    OK(&u.sw, sw_close(&u.sw));
    memcpy(u.sw.journal.cache + rotten, saved, sizeof(saved));
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.damage_count, 0);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.seqs, u.sw.tip->last_seq);
    unit_end(&u);
}
END_TEST

/*
 * A power cut leaves the head of a frame, a session begins in its stead in the
 * next segment, and the first frame of that rots: what is missing is that
 * frame, and the torn one must not take its place.  With @steps sessions or
 * segments behind it say so, else only frames of the segment.
 */
static void torn_and_rotten(unsigned steps)
{
    const struct sim_node *torn, *session;
    struct unit_scan s;
    struct unit u;

    unit_begin(&u, 15 + steps);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    unit_write(&u, 16384, 4096);
    torn = u.sw.tip;
    unit_cut_power(&u, torn->offset + torn->length - 512);
    u.sw.boot++;
    u.sw.now.boottime = 17;
    OK(&u.sw, sw_open(&u.sw));
    unit_write(&u, 20480, 512);
    OK(&u.sw, sw_flush(&u.sw));
    for (unsigned i = 0; i < steps; i++) {
        unit_step_clock(&u, -3600);
        if (i == 1) {
            unit_reopen(&u);
        }
        unit_write(&u, 20480, 512);
        OK(&u.sw, sw_flush(&u.sw));
    }
    session = sim_node_at(u.sw.tip, torn->first_seq);
    ck_assert_uint_eq(session->first_seq, torn->first_seq);
    ck_assert_uint_eq(session->offset, TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    unit_destroy(&u, session, UNIT_HEADER);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.damages[0].first_seq, session->first_seq);
    ck_assert_uint_eq(s.damages[0].last_seq, session->last_seq);
    unit_end(&u);
}

START_TEST(torn_frame_before_a_rotten_segment)
{
    for (unsigned steps = 0; steps < 4; steps++) {
        torn_and_rotten(steps);
    }
}
END_TEST

/*
 * What a power cut left lies behind the last frames of the session that went
 * on in its stead, and of these the last one rots: only those before it can
 * tell that what lies behind is stale.
 */
START_TEST(stale_frames_behind_a_rotten_end)
{
    const struct sim_node *last;
    struct unit_scan s;
    struct unit u;
    uint64_t end;

    unit_begin(&u, 19);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    end = u.sw.tip->offset + u.sw.tip->length;
    unit_write(&u, 16384, 16384);
    for (unsigned i = 0; i < 12; i++) {
        OK(&u.sw, sw_durable(&u.sw));
    }
    unit_cut_power(&u, end);
    OK(&u.sw, sw_open(&u.sw));
    for (unsigned i = 0; i < 3; i++) {
        OK(&u.sw, sw_durable(&u.sw));
    }
    last = u.sw.tip;
    OK(&u.sw, sw_journal_flush(&u.sw));
    sw_kill(&u.sw);
    u.sw.boot++;
    u.sw.now.boottime = 17;
    OK(&u.sw, sw_open(&u.sw));
    unit_write(&u, 0, 512);
    OK(&u.sw, sw_flush(&u.sw));
    unit_destroy(&u, last, UNIT_HEADER);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.damages[0].first_seq, last->first_seq);
    ck_assert_uint_eq(s.damages[0].last_seq, last->last_seq);
    unit_end(&u);
}
END_TEST

/* Samples prove nothing where missing records may have written over them. */
START_TEST(no_samples_from_before_damage)
{
    struct tt_error err = { 0 };
    struct tt_recovery r;
    struct tt_source src;
    struct unit u;
    uint8_t saved[512];
    uint64_t last;

    end_damaged(&u, 10, saved);
    last = u.sw.durable->first_seq;
    OK(&u.sw, sw_open(&u.sw));
    unit_write(&u, 32768, 512);
    OK(&u.sw, sw_flush(&u.sw));
    src = sw_quiet_source(&u.sw);
    ck_assert_msg(tt_recovery_run(&u.sw.super, &src, &r, &err) == 0, "%s",
                  err.message);
    for (size_t i = 0; i < r.sample_count; i++) {
        ck_assert_uint_gt(r.samples[i].seq, last);
    }
    tt_recovery_clear(&r);
    unit_end(&u);
}
END_TEST

int main(void)
{
    return unit_run("damage-end",
                    (const TTest *const *const[]){
                        &stale_frame_before_a_rotten_segment,
                        &torn_frame_tells_of_a_later_session,
                        &history_that_ends_damaged,
                        &history_that_ends_damaged_is_not_replaced,
                        &frame_cut_off_is_not_replaced,
                        &damage_that_heals,
                        &torn_frame_before_a_rotten_segment,
                        &stale_frames_behind_a_rotten_end,
                        &no_samples_from_before_damage,
                        NULL,
                    });
}
