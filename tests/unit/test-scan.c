/*
 * The scan, where nothing durable was destroyed: where does history end?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

START_TEST(empty_journal)
{
    struct unit u;
    struct unit_scan s;

    unit_create(&u, 1);
    unit_scan(&u, &s);
    ck_assert(s.scan.empty);
    ck_assert_uint_eq(s.scan.last_seq, 0);
    ck_assert_uint_eq(s.scan.end_offset, TT_SEGMENTS_OFFSET);
    ck_assert_uint_eq(s.scan.disk_size, SIM_DISK_MAX);
    ck_assert_uint_eq(s.damage_count, 0);
    unit_end(&u);
}
END_TEST

START_TEST(one_frame)
{
    struct unit u;
    struct unit_scan s;

    unit_begin(&u, 2);
    /* SESSION, then FLUSH and CHECKPOINT; keep the first one only */
    u.sw.journal.size = sim_node_at(u.sw.tip, 2)->offset;
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.frames, 1);
    ck_assert_uint_eq(s.scan.last_seq, 1);
    ck_assert_uint_eq(s.scan.last.session, 1);
    ck_assert_uint_eq(s.scan.durable_seq, 0);
    unit_end(&u);
}
END_TEST

START_TEST(file_longer_than_history)
{
    struct unit u;
    struct unit_scan s;

    unit_begin(&u, 3);
    unit_write(&u, 0, 4096);
    u.sw.journal.size += 3 * TT_MIB + 100; /* not even whole sectors */
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.scan.torn_length, 0);
    unit_end(&u);
}
END_TEST

/* A source that counts what is read, and knows where its data are */
struct counted {
    struct tt_source below;
    uint64_t read, data, data_end; /* all but [data, data_end) is zero */
};

static int counted_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    struct counted *c = opaque;

    c->read += length;
    return c->below.read(c->below.opaque, offset, buf, length);
}

static uint64_t counted_next(void *opaque, uint64_t offset)
{
    const struct counted *c = opaque;

    if (offset >= c->data_end) {
        return UINT64_MAX;
    }
    return offset < c->data ? c->data : offset;
}

START_TEST(holes_are_not_read)
{
    const struct tt_scan_ops ops = { 0 };
    struct tt_scan plain, scan;
    struct unit_scan before;
    struct tt_error err;
    struct unit u;

    unit_begin(&u, 31);
    unit_write(&u, 0, 4096);
    unit_scan(&u, &before);
    u.sw.journal.size += 3 * TT_MIB;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t end = before.scan.end_offset;
        struct counted c = {
            .below = simdisk_source(&u.sw.journal),
            .data_end = end,
        };
        struct tt_source src = {
            .read = counted_read,
            .opaque = &c,
            .size = c.below.size,
        };
        uint64_t all;

        if (i) { /* something torn in the midst of the hole */
            c.data = end + TT_MIB + 512;
            c.data_end = c.data + 700;
            memset(u.sw.journal.cache + c.data, 0xa5, 700);
        }
        ck_assert_int_ge(tt_scan_run(&u.sw.super, &src, 0, &ops, &plain, &err),
                         0);
        all = c.read;
        c.read = 0;
        src.next_data = counted_next;
        ck_assert_int_ge(tt_scan_run(&u.sw.super, &src, 0, &ops, &scan, &err),
                         0);
        ck_assert_uint_gt(all, 3 * TT_MIB);
        ck_assert_uint_lt(c.read, all - 3 * TT_MIB / 2);
        ck_assert_uint_eq(scan.end_offset, plain.end_offset);
        ck_assert_uint_eq(scan.end_offset, end);
        ck_assert_uint_eq(scan.torn_offset, plain.torn_offset);
        ck_assert_uint_eq(scan.torn_length, plain.torn_length);
        ck_assert_uint_eq(scan.torn_length, i ? 700 : 0);
    }
    unit_end(&u);
}
END_TEST

START_TEST(zeroes_in_units)
{
    struct counted c = { .data = 10000, .data_end = 20000 };
    struct tt_source src = {
        .opaque = &c,
        .size = 30000,
        .next_data = counted_next,
    };

    ck_assert_uint_eq(tt_source_zeroes(&src, 0, 30000, 4096), 8192);
    ck_assert_uint_eq(tt_source_zeroes(&src, 512, 30000, 4096), 8192);
    ck_assert_uint_eq(tt_source_zeroes(&src, 0, 5000, 4096), 5000);
    ck_assert_uint_eq(tt_source_zeroes(&src, 9000, 5000, 4096), 0);
    ck_assert_uint_eq(tt_source_zeroes(&src, 10000, 5000, 512), 0);
    ck_assert_uint_eq(tt_source_zeroes(&src, 20000, 10000, 512), 10000);
    src.next_data = NULL;
    ck_assert_uint_eq(tt_source_zeroes(&src, 0, 30000, 512), 0);
}
END_TEST

static void check_segment_end(uint64_t left)
{
    struct unit u;

    unit_begin(&u, 4 + left);
    unit_fill_segment(&u, left);
    ck_assert_uint_lt(u.sw.tip->offset, TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    unit_write(&u, 4096, 4096);
    /* the footer came behind it */
    ck_assert_ptr_null(u.sw.w.ended);
    ck_assert_uint_gt(u.sw.w.footer_offset,
                      TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    OK(&u.sw, sw_flush(&u.sw));
    unit_write(&u, 8192, 4096);
    unit_reopen(&u);
    OK(&u.sw, sw_check_disk_level(&u.sw));
    OK(&u.sw, sw_check_views(&u.sw, 40));
    unit_end(&u);
}

START_TEST(segment_filled_exactly)
{
    check_segment_end(0);
}
END_TEST

START_TEST(segment_with_slack)
{
    check_segment_end(512);
    check_segment_end(4096);
}
END_TEST

START_TEST(clock_steps)
{
    static const int64_t steps[] = { -3600, 75LL * 365 * 86400,
                                     -75LL * 365 * 86400, 3, 1 };
    struct unit u;

    unit_begin(&u, 5);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        unit_write(&u, 4096 * i, 4096);
        ck_assert_uint_eq(u.sw.w.epoch, i + 1);
        unit_step_clock(&u, steps[i]);
    }
    /* one second is within what a slew may do */
    unit_write(&u, 0, 512);
    ck_assert_uint_eq(u.sw.w.epoch, 5);
    /* the guest may have slept: both clocks went on */
    u.sw.now.realtime += INT64_C(86400000000000);
    u.sw.now.boottime += UINT64_C(86400000000000);
    unit_write(&u, 0, 512);
    ck_assert_uint_eq(u.sw.w.epoch, 5);
    unit_reopen(&u);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    unit_end(&u);
}
END_TEST

START_TEST(another_boot_is_another_epoch)
{
    struct unit u;

    unit_begin(&u, 6);
    unit_write(&u, 0, 4096);
    sw_kill(&u.sw);
    u.sw.boot++;
    u.sw.now.boottime = 17;
    OK(&u.sw, sw_open(&u.sw));
    ck_assert_uint_eq(u.sw.w.epoch, 2);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_close(&u.sw));
    OK(&u.sw, sw_open(&u.sw));
    ck_assert_uint_eq(u.sw.w.epoch, 2);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    unit_end(&u);
}
END_TEST

/* ---- torn ends --------------------------------------------------------- */

/* The last write of the journal is torn after @bytes. */
static bool tear(uint64_t seed, bool flushed_before, uint64_t bytes)
{
    const struct sim_node *last;
    struct sim_node *end;
    struct unit u;
    bool whole;

    unit_begin(&u, seed);
    unit_write(&u, 512, 6144);
    OK(&u.sw, sw_flush(&u.sw));
    if (!flushed_before) {
        unit_write(&u, 0, 12288);
    }
    unit_write(&u, 2048, 9216);
    last = u.sw.tip;
    whole = bytes >= last->length;
    sw_abandon(&u.sw);
    simdisk_tear_last(&u.sw.journal, bytes);
    u.sw.tip = u.sw.durable;
    OK(&u.sw, sw_check_path(&u.sw, u.sw.durable, &end));
    ck_assert_ptr_eq(end, whole ? last : last->parent);
    OK(&u.sw, sw_open(&u.sw));
    OK(&u.sw, sw_check_disk_level(&u.sw));
    unit_write(&u, 30000 / 512 * 512, 512);
    unit_reopen(&u);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    unit_end(&u);
    return whole;
}

START_TEST(torn_at_every_sector)
{
    for (int flushed = 0; flushed < 2; flushed++) {
        uint64_t bytes = 0;

        while (!tear(7, flushed, bytes)) {
            bytes += 512;
        }
        ck_assert_uint_ge(bytes, 9216);
    }
}
END_TEST

/* Each sector of the frames behind the flush is the only one that is lost. */
START_TEST(any_sector_lost)
{
    for (uint64_t at = 0;; at += 512) {
        const struct sim_node *n;
        struct sim_node *end;
        struct unit u;
        uint64_t from;

        unit_begin(&u, 8);
        unit_write(&u, 512, 6144);
        OK(&u.sw, sw_flush(&u.sw));
        from = u.sw.tip->offset;
        unit_write(&u, 0, 1024);
        OK(&u.sw, sw_durable(&u.sw));
        unit_write(&u, 4096, 5120);
        unit_write(&u, 1024, 512);
        if (from + at >= tt_frame_end(&(struct tt_frame){
                             .offset = u.sw.tip->offset,
                             .length = (uint32_t)u.sw.tip->length })) {
            unit_end(&u);
            break;
        }
        for (n = u.sw.tip; n->offset > from + at; n = n->parent) {
        }
        unit_cut_power(&u, from + at);
        OK(&u.sw, sw_check_path(&u.sw, u.sw.durable, &end));
        /* A sector that held the same before, zeroes, cannot be lost. */
        ck_assert(end == n->parent || sim_node_reaches(end, n));
        OK(&u.sw, sw_open(&u.sw));
        OK(&u.sw, sw_check_disk_level(&u.sw));
        OK(&u.sw, sw_check_views(&u.sw, 100));
        unit_end(&u);
    }
}
END_TEST

/* ---- what must not come back ------------------------------------------- */

START_TEST(stale_frames_stay_dead)
{
    struct unit u;
    uint64_t lost;

    unit_begin(&u, 9);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    OK(&u.sw, sw_journal_flush(&u.sw));
    for (unsigned round = 0; round < 6; round++) {
        uint64_t session = u.sw.w.session;

        lost = u.sw.w.next_offset;
        unit_write(&u, 0, 512 << round % 3);
        for (unsigned i = 0; i < 12; i++) {
            unit_write(&u, 512 * i, 512);
        }
        unit_cut_power(&u, lost);
        /* the same boot: the new session goes over the stale frames */
        OK(&u.sw, sw_open(&u.sw));
        ck_assert_uint_gt(u.sw.w.session, session);
        for (unsigned i = 0; i < round; i++) {
            OK(&u.sw, sw_durable(&u.sw));
        }
        OK(&u.sw, sw_journal_flush(&u.sw));
        OK(&u.sw, sw_check_views(&u.sw, 60));
    }
    unit_end(&u);
}
END_TEST

/* A whole frame behind the end counts, whatever it is doing there. */
START_TEST(session_exceeds_stale_ones)
{
    struct tt_request req = { .kind = TT_KIND_DURABLE };
    struct tt_append a;
    struct tt_writer w;
    struct unit u;

    unit_begin(&u, 10);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    w = u.sw.w;
    w.session = 9;
    w.chain ^= 1;
    w.durable_seq = 0;
    w.next_offset += 8192;
    tt_batch_reset(u.sw.batch, &w);
    ck_assert(tt_batch_add(u.sw.batch, &req));
    tt_writer_plan(&w, u.sw.batch, u.sw.now, &a);
    OK(&u.sw, simdisk_write(&u.sw.journal, a.offset, a.head, a.length));
    unit_reopen(&u);
    ck_assert_uint_eq(u.sw.w.session, 10);
    unit_end(&u);
}
END_TEST

/* Plans a frame and writes all of it, but the writer is told it failed. */
static void failed_but_whole(struct unit *u, struct tt_request *req)
{
    struct simwriter *sw = &u->sw;
    uint8_t frame[1024];
    struct tt_append a;

    tt_batch_reset(sw->batch, &sw->w);
    ck_assert(tt_batch_add(sw->batch, req));
    tt_writer_plan(&sw->w, sw->batch, sw->now, &a);
    ck_assert_uint_le(a.length, sizeof(frame));
    ck_assert_uint_eq(a.length, a.head_length);
    memcpy(frame, a.head, a.head_length);
    OK(sw, simdisk_write(&sw->journal, a.offset, frame, a.length));
}

START_TEST(failed_append_left_whole)
{
    struct tt_request mark = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = "never",
        .payload_length = 5,
    };
    struct unit u;
    struct unit_scan s;

    unit_begin(&u, 11);
    unit_write(&u, 0, 8192);
    failed_but_whole(&u, &mark);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq + 1);
    /* the clock steps: the writer goes on in the next segment */
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_eq(s.damage_count, 0);
    unit_reopen(&u);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    unit_end(&u);
}
END_TEST

/* What a later session did not find must not come back before it. */
START_TEST(the_later_session_is_right)
{
    struct tt_request mark = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = "never",
        .payload_length = 5,
    };
    uint64_t next = TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN;
    uint8_t frame[512];
    struct sim_node *end;
    struct unit u;

    unit_begin(&u, 17);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    u.sw.w.force_segment = true;
    failed_but_whole(&u, &mark);
    memcpy(frame, u.sw.journal.cache + next, sizeof(frame));
    memset(u.sw.journal.cache + next, 0, sizeof(frame));
    unit_reopen(&u);
    ck_assert_uint_lt(u.sw.tip->offset, next);
    unit_write(&u, 0, 512);
    memcpy(u.sw.journal.cache + next, frame, sizeof(frame));
    OK(&u.sw, sw_check_path(&u.sw, u.sw.tip, &end));
    ck_assert_ptr_eq(end, u.sw.tip);
    unit_end(&u);
}
END_TEST

START_TEST(failed_append_is_replaced_in_place)
{
    struct tt_request mark = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = "never",
        .payload_length = 5,
    };
    struct unit u;

    unit_begin(&u, 12);
    unit_write(&u, 0, 8192);
    failed_but_whole(&u, &mark);
    unit_write(&u, 0, 512);
    unit_reopen(&u);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    unit_end(&u);
}
END_TEST

/* A guest that reads the journal writes frames of it to its own disk. */
START_TEST(guest_data_like_a_frame)
{
    struct unit u;
    struct sim_node *end;
    uint8_t buf[8192] = { 0 };
    struct tt_frame_header h;

    unit_begin(&u, 13);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    OK(&u.sw, sw_durable(&u.sw));
    memcpy(buf, u.sw.journal.cache + u.sw.tip->offset, 512);
    memcpy(buf + 4096, buf, 512);
    /* with the right place, a large number, and a checksum that fits */
    memcpy(&h, buf, sizeof(h));
    h.offset = tt_put64(u.sw.w.next_offset + 512 + 4096);
    h.durable_seq = tt_put64(1000);
    h.first_seq = tt_put64(1001);
    h.salt = tt_put64(tt_get64(h.salt) ^ 1); /* which the guest cannot know */
    h.header_checksum = tt_put64(
        tt_checksum(&h, offsetof(struct tt_frame_header, header_checksum)));
    memcpy(buf + 4096, &h, sizeof(h));
    OK(&u.sw, sw_write(&u.sw, 0, sizeof(buf), buf, SW_PRE_BEFORE));
    unit_cut_power(&u, u.sw.tip->offset);
    OK(&u.sw, sw_check_path(&u.sw, u.sw.durable, &end));
    OK(&u.sw, sw_open(&u.sw));
    ck_assert_uint_eq(u.sw.w.session, 2);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    unit_end(&u);
}
END_TEST

/* ---- following --------------------------------------------------------- */

struct follower {
    uint64_t next_seq;
    unsigned frames;
};

static int follow_frame(void *opaque, const struct tt_frame *f,
                        const uint8_t *table)
{
    struct follower *fo = opaque;

    (void)table;
    ck_assert_uint_eq(f->first_seq, fo->next_seq);
    fo->next_seq = tt_frame_last_seq(f) + 1;
    fo->frames++;
    return 0;
}

static int follow(struct unit *u, struct follower *fo, struct tt_scan *scan)
{
    const struct tt_scan_ops ops = { .frame = follow_frame, .opaque = fo };
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err;

    return tt_scan_follow(&u->sw.super, &src, &ops, scan, &err);
}

START_TEST(follow_sees_each_frame_once)
{
    struct follower fo = { 0 };
    struct unit_scan s;
    struct unit u;

    unit_create(&u, 14);
    unit_scan(&u, &s);
    fo.next_seq = 1;
    OK(&u.sw, follow(&u, &fo, &s.scan));
    OK(&u.sw, sw_open(&u.sw));
    OK(&u.sw, follow(&u, &fo, &s.scan));
    for (unsigned i = 0; i < 30; i++) {
        unit_write(&u, 512 * i, 4096);
        if (i % 7 == 0) {
            unit_step_clock(&u, -3600);
        }
        if (i % 5 == 0) {
            OK(&u.sw, sw_flush(&u.sw));
        }
        if (i % 9 == 0) {
            unit_reopen(&u);
        }
        if (i % 2) {
            OK(&u.sw, follow(&u, &fo, &s.scan));
            ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
            ck_assert_uint_eq(fo.next_seq, u.sw.tip->last_seq + 1);
        }
    }
    unit_end(&u);
}
END_TEST

START_TEST(follow_notices_a_replaced_end)
{
    struct follower fo = { 0 };
    struct unit_scan s;
    struct unit u;

    unit_begin(&u, 15);
    unit_write(&u, 0, 8192);
    OK(&u.sw, sw_flush(&u.sw));
    OK(&u.sw, sw_journal_flush(&u.sw));
    unit_write(&u, 0, 512);
    unit_scan(&u, &s);
    fo.next_seq = s.scan.last_seq + 1;
    OK(&u.sw, follow(&u, &fo, &s.scan));
    unit_cut_power(&u, u.sw.tip->offset);
    ck_assert_int_eq(follow(&u, &fo, &s.scan), -TT_ECHANGED);
    OK(&u.sw, sw_open(&u.sw));
    ck_assert_int_eq(follow(&u, &fo, &s.scan), -TT_ECHANGED);
    ck_assert_uint_eq(fo.frames, 0);
    unit_end(&u);
}
END_TEST

/* The frame that a reader saw last was a failed append. */
START_TEST(follow_leaves_a_failed_append)
{
    struct tt_request mark = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = "never",
        .payload_length = 5,
    };
    struct follower fo = { 0 };
    struct unit_scan s;
    struct unit u;

    unit_begin(&u, 16);
    unit_write(&u, 0, 8192);
    failed_but_whole(&u, &mark);
    unit_scan(&u, &s);
    fo.next_seq = s.scan.last_seq + 1;
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    ck_assert_int_eq(follow(&u, &fo, &s.scan), -TT_ECHANGED);
    unit_end(&u);
}
END_TEST

/*
 * A reader on another host than the one whose power was cut: what it read last
 * is gone, or torn, and what came behind that survived; or it read on, and only
 * what came before is gone, where the next session begins.
 */
static void follow_lost(bool torn, bool read_on)
{
    const struct sim_node *lost;
    struct follower fo = { 0 };
    struct unit_scan s;
    struct unit u;

    unit_begin(&u, 20);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    if (read_on) {
        unit_step_clock(&u, -3600);
    }
    unit_write(&u, 0, 1024);
    lost = u.sw.tip;
    if (read_on) {
        for (lost = u.sw.tip; lost->parent->offset > TT_SEGMENT_MIN;
             lost = lost->parent) {
        }
        OK(&u.sw, sw_durable(&u.sw));
    }
    unit_scan(&u, &s);
    fo.next_seq = s.scan.last_seq + 1;
    OK(&u.sw, sw_durable(&u.sw));
    unit_cut_power(&u, torn ? lost->offset + lost->length - 512 : lost->offset);
    u.sw.boot++;
    u.sw.now.boottime = 17;
    OK(&u.sw, sw_open(&u.sw));
    ck_assert_int_eq(follow(&u, &fo, &s.scan), -TT_ECHANGED);
    unit_end(&u);
}

START_TEST(follow_across_a_power_cut)
{
    follow_lost(false, false);
    follow_lost(true, false);
    follow_lost(false, true);
}
END_TEST

/* And a frame tells of it. */
static void make_durable(struct unit *u)
{
    OK(&u->sw, sw_journal_flush(&u->sw));
    OK(&u->sw, sw_durable(&u->sw));
}

/* What could not be read, another segment knows to have been durable. */
START_TEST(follow_meets_damage)
{
    const struct sim_node *lost;
    struct follower fo = { 0 };
    struct unit_scan s;
    struct unit u;

    unit_begin(&u, 21);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_flush(&u.sw));
    unit_scan(&u, &s);
    fo.next_seq = s.scan.last_seq + 1;
    OK(&u.sw, follow(&u, &fo, &s.scan));
    unit_write(&u, 0, 1024);
    lost = u.sw.tip;
    unit_write(&u, 512, 1024);
    make_durable(&u);
    simdisk_destroy(&u.sw.journal, lost->offset, 512);
    OK(&u.sw, follow(&u, &fo, &s.scan));
    ck_assert_uint_lt(s.scan.last_seq, lost->first_seq);
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    ck_assert_int_eq(follow(&u, &fo, &s.scan), -TT_ECHANGED);
    /* and once is enough */
    unit_scan(&u, &s);
    ck_assert_uint_eq(s.damage_count, 1);
    ck_assert_uint_eq(s.scan.last_seq, u.sw.tip->last_seq);
    fo.next_seq = s.scan.last_seq + 1;
    OK(&u.sw, follow(&u, &fo, &s.scan));
    unit_end(&u);
}
END_TEST

/* Payload of what a later header vouches for is not read, the rest is. */
START_TEST(follow_reads_heads)
{
    const uint32_t length = 64 * TT_KIB, count = 8;
    struct follower fo = { 0 };
    const struct tt_scan_ops ops = { .frame = follow_frame, .opaque = &fo };
    struct counted c = { 0 };
    struct tt_source src = { .read = counted_read, .opaque = &c };
    struct tt_error err;
    struct unit_scan s;
    struct unit u;
    uint64_t durable;

    unit_begin(&u, 22);
    unit_scan(&u, &s);
    fo.next_seq = s.scan.last_seq + 1;
    for (unsigned i = 0; i < count; i++) {
        unit_write(&u, 0, length);
    }
    make_durable(&u);
    unit_write(&u, 0, 512);
    durable = u.sw.tip->last_seq;
    unit_write(&u, 0, length);
    simdisk_destroy(&u.sw.journal, u.sw.tip->offset + u.sw.tip->length - 512,
                    1);
    c.below = simdisk_source(&u.sw.journal);
    src.size = c.below.size;
    OK(&u.sw, tt_scan_follow(&u.sw.super, &src, &ops, &s.scan, &err));
    ck_assert_uint_eq(s.scan.last_seq, durable);
    ck_assert_uint_ge(fo.frames, count + 1);
    ck_assert_uint_lt(c.read, 3 * length);
    unit_end(&u);
}
END_TEST

static void run_counted(struct unit *u, bool moving, struct tt_scan *ret,
                        uint64_t *ret_read)
{
    const struct tt_scan_ops ops = { .moving = moving };
    struct counted c = { .below = simdisk_source(&u->sw.journal) };
    struct tt_source src = {
        .read = counted_read,
        .opaque = &c,
        .size = c.below.size,
    };
    struct tt_error err;

    OK(&u->sw, tt_scan_run(&u->sw.super, &src, 0, &ops, ret, &err));
    *ret_read = c.read;
}

/* The end is not swept while it moves; what is before it is judged as ever. */
START_TEST(a_moving_end)
{
    struct tt_scan all, moving;
    uint64_t read, more;
    struct unit u;

    unit_begin(&u, 23);
    unit_write(&u, 0, 4096);
    make_durable(&u);
    unit_write(&u, 0, 4096);
    u.sw.journal.size += 2 * TT_MIB;
    run_counted(&u, false, &all, &more);
    run_counted(&u, true, &moving, &read);
    ck_assert_uint_eq(moving.end_offset, all.end_offset);
    ck_assert_uint_eq(moving.last_seq, u.sw.tip->last_seq);
    ck_assert_uint_gt(more, 2 * TT_MIB);
    ck_assert_uint_lt(read, TT_MIB / 4);
    unit_end(&u);
}
END_TEST

START_TEST(a_moving_end_behind_damage)
{
    const struct sim_node *lost;
    struct tt_scan moving;
    struct unit u;
    uint64_t read;

    /* before the newest segment, whose start does not vouch for it */
    unit_begin(&u, 24);
    unit_write(&u, 0, 4096);
    make_durable(&u);
    unit_write(&u, 0, 4096);
    lost = u.sw.tip;
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    make_durable(&u);
    simdisk_destroy(&u.sw.journal, lost->offset, 512);
    run_counted(&u, true, &moving, &read);
    ck_assert_uint_eq(moving.last_seq, u.sw.tip->last_seq);

    unit_end(&u);

    /* in it: not before there is another */
    unit_begin(&u, 25);
    unit_write(&u, 0, 4096);
    make_durable(&u);
    unit_write(&u, 0, 512);
    lost = u.sw.tip;
    make_durable(&u);
    simdisk_destroy(&u.sw.journal, lost->offset, 512);
    run_counted(&u, true, &moving, &read);
    ck_assert_uint_eq(moving.last_seq, lost->first_seq - 1);
    unit_step_clock(&u, -3600);
    unit_write(&u, 0, 512);
    run_counted(&u, true, &moving, &read);
    ck_assert_uint_eq(moving.last_seq, u.sw.tip->last_seq);
    unit_end(&u);
}
END_TEST

int main(void)
{
    return unit_run("scan", (const TTest *const *const[]){
                                &empty_journal,
                                &one_frame,
                                &file_longer_than_history,
                                &holes_are_not_read,
                                &zeroes_in_units,
                                &segment_filled_exactly,
                                &segment_with_slack,
                                &clock_steps,
                                &another_boot_is_another_epoch,
                                &torn_at_every_sector,
                                &any_sector_lost,
                                &stale_frames_stay_dead,
                                &session_exceeds_stale_ones,
                                &failed_append_left_whole,
                                &the_later_session_is_right,
                                &failed_append_is_replaced_in_place,
                                &guest_data_like_a_frame,
                                &follow_sees_each_frame_once,
                                &follow_notices_a_replaced_end,
                                &follow_leaves_a_failed_append,
                                &follow_across_a_power_cut,
                                &follow_meets_damage,
                                &follow_reads_heads,
                                &a_moving_end,
                                &a_moving_end_behind_damage,
                                NULL,
                            });
}
