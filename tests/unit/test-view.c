/*
 * Views: does every moment read back exactly, and is damage never served?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>

#include "unit.h"

static struct tt_history *load(struct unit *u)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };

    ck_assert_ptr_nonnull(h);
    ck_assert_msg(tt_history_load(h, &src, &err) == 0, "%s", err.message);
    return h;
}

START_TEST(every_moment)
{
    for (uint64_t seed = 1; seed < 8; seed++) {
        struct unit u;

        unit_begin(&u, seed);
        for (unsigned i = 0; i < 60; i++) {
            uint64_t at = 512 * sim_random(&u.world, 90);

            if (sim_chance(&u.world, 20)) {
                OK(&u.sw, sw_zero(&u.sw, at, 1024, SW_PRE_AFTER));
            } else if (sim_chance(&u.world, 8)) {
                OK(&u.sw,
                   sw_resize(&u.sw, 512 * (100 + sim_random(&u.world, 29))));
            } else {
                unit_write(&u, at, 512 * (1 + sim_random(&u.world, 9)));
            }
        }
        OK(&u.sw, sw_check_views(&u.sw, 1000));
        unit_end(&u);
    }
}
END_TEST

/* First touches of each kind, with every order of PREIMAGE and change, ended
 * by a crash at every call. */
static bool first_touch(unsigned kind, enum sw_order order, bool power,
                        unsigned nth)
{
    uint8_t block[4096] = "new";
    struct unit u;
    int ret;

    unit_begin(&u, 20 + kind);
    u.sw.strict = !(nth & 1) || power;
    u.world.crash_at = u.world.calls + nth;
    switch (kind) {
    case 0:
        ret = sw_write(&u.sw, 8192 - 512, 4096, block, order);
        break;
    case 1:
        ret = sw_zero(&u.sw, 8192 - 512, 4096, order);
        break;
    case 2:
        ret = sw_resize(&u.sw, 32768);
        break;
    default:
        ret = sw_resize(&u.sw, 30720);
        if (ret == 0) {
            ret = sw_resize(&u.sw, SIM_DISK_MAX);
        }
        break;
    }
    if (ret == 0) {
        ret = sw_flush(&u.sw);
    }
    u.world.crash_at = 0;
    ck_assert_msg(ret == 0 || ret == SIM_CRASH, "%d %s", ret, u.sw.problem);
    if (power) {
        sw_power_cut(&u.sw);
    } else {
        sw_kill(&u.sw);
    }
    OK(&u.sw, sw_open(&u.sw));
    OK(&u.sw, sw_check_disk_level(&u.sw));
    OK(&u.sw, sw_check_views(&u.sw, 1000));
    unit_write(&u, 0, 512);
    OK(&u.sw, sw_check_views(&u.sw, 1000));
    unit_end(&u);
    return ret == 0;
}

START_TEST(first_touches)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        for (unsigned order = 0; order < 3; order++) {
            for (int power = 0; power < 2; power++) {
                unsigned nth = 1;

                while (!first_touch(kind, order, power, nth)) {
                    nth++;
                }
                ck_assert_uint_gt(nth, 3);
            }
        }
    }
}
END_TEST

START_TEST(second_preimage_is_ignored)
{
    struct tt_history_stats stats;
    struct tt_request req = {
        .kind = TT_KIND_PREIMAGE,
        .disk_offset = 4096,
        .disk_length = 4096,
        .flags = TT_RECORD_ZEROES,
    };
    uint8_t two[8192];
    struct tt_history *h;
    struct unit u;

    unit_begin(&u, 30);
    unit_write(&u, 4096, 512);
    OK(&u.sw, sw_append(&u.sw, &req, 1));
    unit_write(&u, 4096, 512);
    OK(&u.sw, sw_check_views(&u.sw, 100));
    /* one that repeats a block, and is the first of another */
    memset(two, 'x', 4096);
    memcpy(two + 4096, u.sw.disk.cache + 8192, 4096);
    req.flags = 0;
    req.disk_length = 8192;
    req.payload = two;
    req.payload_length = 8192;
    OK(&u.sw, sw_append(&u.sw, &req, 1));
    OK(&u.sw, sw_check_views(&u.sw, 100));
    h = load(&u);
    tt_history_stats(h, &stats);
    ck_assert_uint_eq(stats.duplicate_preimages, 2);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

/* ---- extents ----------------------------------------------------------- */

START_TEST(extents_are_clipped_and_joined)
{
    struct tt_history *h;
    struct tt_extent ext;
    uint64_t seq;
    struct unit u;

    unit_begin(&u, 31);
    OK(&u.sw, sw_zero(&u.sw, 8192, 8192, SW_PRE_BEFORE));
    OK(&u.sw, sw_zero(&u.sw, 16384, 4096, SW_PRE_BEFORE));
    h = load(&u);
    tt_view_lookup(h, u.sw.tip->last_seq, 8704, 512, &ext, NULL);
    ck_assert_int_eq(ext.kind, TT_EXTENT_ZERO);
    ck_assert_uint_eq(ext.length, 512);
    tt_view_lookup(h, u.sw.tip->last_seq, 8192, SIM_DISK_MAX - 8192, &ext,
                   NULL);
    ck_assert_uint_eq(ext.length, 12288);
    /* two records */
    tt_view_run(h, u.sw.tip->last_seq, 8704, SIM_DISK_MAX - 8704, &ext, NULL);
    ck_assert_int_eq(ext.kind, TT_EXTENT_ZERO);
    ck_assert_uint_eq(ext.offset, 8704);
    ck_assert_uint_eq(ext.length, 16384 - 8704);
    seq = ext.seq;
    tt_view_run(h, u.sw.tip->last_seq, 16384, 8192, &ext, NULL);
    ck_assert_uint_eq(ext.length, 4096);
    ck_assert_uint_gt(ext.seq, seq);
    tt_view_lookup(h, u.sw.tip->last_seq, 0, SIM_DISK_MAX, &ext, NULL);
    ck_assert_int_eq(ext.kind, TT_EXTENT_DISK);
    ck_assert_uint_eq(ext.length, 8192);
    tt_view_lookup(h, 0, 0, SIM_DISK_MAX, &ext, NULL);
    ck_assert_uint_eq(ext.length, 8192);
    tt_view_lookup(h, 0, 8192, 100, &ext, NULL);
    ck_assert_int_eq(ext.kind, TT_EXTENT_JOURNAL);
    ck_assert_uint_eq(ext.seq, 0);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

/* ---- damage ------------------------------------------------------------ */

/*
 * Writes to blocks 0, 2 and 4, in three frames, closed.  The first segment
 * has ended, and has a footer, if @footer.  *ret: the frame of block 2.
 */
static const struct sim_node *record(struct unit *u, bool footer)
{
    const struct sim_node *n;

    unit_begin(u, 40);
    unit_write(u, 0, 4096);
    unit_write(u, 16384, 4096);
    OK(&u->sw, sw_flush(&u->sw));
    unit_write(u, 8192, 4096);
    n = u->sw.tip;
    unit_write(u, 16384, 4096);
    if (footer) {
        unit_step_clock(u, -3600);
    }
    OK(&u->sw, sw_close(&u->sw));
    return n;
}

static enum tt_extent_kind kind_at(const struct tt_history *h, uint64_t seq,
                                   uint64_t offset)
{
    struct tt_extent ext;

    tt_view_lookup(h, seq, offset, 512, &ext, NULL);
    return ext.kind;
}

START_TEST(damaged_payload_is_not_served)
{
    const struct sim_node *n;
    struct tt_source src;
    struct tt_history *h;
    struct tt_extent ext;
    struct tt_error err = { 0 };
    struct tt_frame f;
    struct unit u;
    uint8_t buf[4096];

    n = record(&u, false);
    ck_assert(tt_frame_decode(&u.sw.super, n->offset,
                              u.sw.journal.cache + n->offset, &f));
    simdisk_flip(&u.sw.journal, n->offset + f.payload_offset + 100, 2);
    h = load(&u);
    src = sw_quiet_source(&u.sw);
    tt_view_lookup(h, u.sw.tip->last_seq, 8192, 4096, &ext, NULL);
    ck_assert_int_eq(ext.kind, TT_EXTENT_JOURNAL);
    ck_assert_int_eq(tt_extent_read(h, &src, &ext, 8192, 4096, buf, &err),
                     -TT_EDAMAGED);
    ck_assert(strstr(err.message, "damaged"));
    /* all else is as it was */
    OK(&u.sw,
       sw_read_view(&u.sw, h, u.sw.tip->last_seq, 8192, (uint8_t[8192]){ 0 }));
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

START_TEST(missing_records_without_footer)
{
    const struct sim_node *n = NULL;
    struct tt_history *h;
    struct unit u;
    uint64_t last;

    n = record(&u, false);
    last = u.sw.tip->last_seq;
    simdisk_destroy(&u.sw.journal, n->offset, 256);
    h = load(&u);
    /* after them block 4 was written again; of the rest nobody knows */
    ck_assert_int_eq(kind_at(h, last, 16384), TT_EXTENT_JOURNAL);
    ck_assert_int_eq(kind_at(h, last, 0), TT_EXTENT_DAMAGED);
    ck_assert_int_eq(kind_at(h, last, 8192), TT_EXTENT_DAMAGED);
    ck_assert_int_eq(kind_at(h, last, 32768), TT_EXTENT_DAMAGED);
    /* before them what has a version is known */
    ck_assert_int_eq(kind_at(h, n->first_seq - 1, 0), TT_EXTENT_JOURNAL);
    ck_assert_int_eq(kind_at(h, n->first_seq - 1, 16384), TT_EXTENT_JOURNAL);
    /* and what has none may have its pre-image in the damage */
    ck_assert_int_eq(kind_at(h, n->first_seq - 1, 32768), TT_EXTENT_DAMAGED);
    ck_assert_int_eq(kind_at(h, 0, 0), TT_EXTENT_JOURNAL);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

START_TEST(missing_records_with_footer)
{
    const struct sim_node *n;
    struct tt_history *h;
    struct unit u;
    uint64_t last;

    n = record(&u, true);
    last = u.sw.tip->last_seq;
    /* the header is gone, the payload is not: the footer knows where it is */
    simdisk_destroy(&u.sw.journal, n->offset, 256);
    h = load(&u);
    ck_assert_int_eq(kind_at(h, last, 0), TT_EXTENT_JOURNAL);
    ck_assert_int_eq(kind_at(h, last, 16384), TT_EXTENT_JOURNAL);
    ck_assert_int_eq(kind_at(h, last, 32768), TT_EXTENT_DISK);
    ck_assert_int_eq(kind_at(h, n->first_seq - 1, 0), TT_EXTENT_JOURNAL);
    tt_history_free(h);
    OK(&u.sw, sw_check_views(&u.sw, 1000));

    /* with its payload it is known only that it was there */
    simdisk_destroy(&u.sw.journal, n->offset, n->length);
    h = load(&u);
    {
        struct tt_source src = sw_quiet_source(&u.sw);
        struct tt_extent ext;
        uint8_t buf[512];

        tt_view_lookup(h, last, 8192, 512, &ext, NULL);
        ck_assert(ext.kind == TT_EXTENT_DAMAGED ||
                  tt_extent_read(h, &src, &ext, 8192, 512, buf, NULL) < 0);
        ck_assert_int_eq(kind_at(h, last, 0), TT_EXTENT_JOURNAL);
    }
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

/* Any one frame destroyed: what is served is right, or is not served. */
START_TEST(damage_is_never_served)
{
    static uint8_t buf[SIM_DISK_MAX];

    for (unsigned skip = 0;; skip++) {
        const struct sim_node *n;
        struct tt_source src;
        struct tt_history *h;
        struct unit u;
        unsigned served = 0;

        record(&u, skip & 1);
        n = u.sw.tip;
        for (unsigned i = 0; i < skip / 4 && n->parent; i++) {
            n = n->parent;
        }
        if (!n->parent) {
            unit_end(&u);
            break;
        }
        simdisk_destroy(&u.sw.journal, n->offset,
                        skip & 2 ? (size_t)n->length : 256);
        h = load(&u);
        src = sw_quiet_source(&u.sw);
        for (uint64_t seq = 0; seq <= tt_history_end(h)->last_seq; seq++) {
            const struct sim_state *s =
                sim_node_state(&u.sw.model, u.sw.tip, seq);

            for (uint64_t at = 0; at < SIM_DISK_MAX; at += TT_GRID) {
                struct tt_extent ext;

                tt_view_lookup(h, seq, at, TT_GRID, &ext, NULL);
                ck_assert_uint_eq(ext.length, TT_GRID);
                if (ext.kind == TT_EXTENT_DAMAGED ||
                    (ext.kind == TT_EXTENT_JOURNAL &&
                     tt_extent_read(h, &src, &ext, at, TT_GRID, buf, NULL) <
                         0)) {
                    continue;
                }
                if (ext.kind == TT_EXTENT_ZERO) {
                    memset(buf, 0, TT_GRID);
                } else if (ext.kind == TT_EXTENT_DISK) {
                    memcpy(buf, u.sw.disk.cache + at, TT_GRID);
                }
                ck_assert_msg(!memcmp(buf, s->data + at, TT_GRID),
                              "frame of seq %llu destroyed (%u): view(%llu) "
                              "at %llu is wrong",
                              (ull)n->first_seq, skip & 3, (ull)seq, (ull)at);
                served++;
            }
        }
        ck_assert_uint_gt(served, 0);
        tt_history_free(h);
        unit_end(&u);
    }
}
END_TEST

/* ---- a recording in progress ------------------------------------------- */

START_TEST(refresh_follows)
{
    struct tt_source src;
    struct tt_history *h;
    struct tt_error err;
    struct unit u;
    bool grown;

    unit_begin(&u, 50);
    h = load(&u);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t seq = u.sw.tip->last_seq;
        static uint8_t buf[SIM_DISK_MAX];

        unit_write(&u, 512 * i, 4096);
        if (i % 6 == 5) {
            unit_step_clock(&u, -3600);
        }
        src = sw_quiet_source(&u.sw);
        ck_assert_int_eq(tt_history_refresh(h, &src, &grown, &err), 0);
        ck_assert(grown);
        ck_assert_uint_eq(tt_history_end(h)->last_seq, u.sw.tip->last_seq);
        ck_assert_int_eq(tt_history_refresh(h, &src, &grown, &err), 0);
        ck_assert(!grown);
        /* what was there before is as it was */
        OK(&u.sw, sw_read_view(&u.sw, h, seq, SIM_DISK_MAX, buf));
        ck_assert_mem_eq(buf, sim_node_state(&u.sw.model, u.sw.tip, seq)->data,
                         SIM_DISK_MAX);
    }
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

START_TEST(refresh_tells_of_a_replaced_end)
{
    struct tt_source src;
    struct tt_history *h;
    struct tt_error err;
    struct unit u;
    bool grown;

    unit_begin(&u, 51);
    unit_write(&u, 0, 4096);
    OK(&u.sw, sw_journal_flush(&u.sw));
    unit_write(&u, 0, 512);
    h = load(&u);
    unit_cut_power(&u, u.sw.tip->offset);
    OK(&u.sw, sw_open(&u.sw));
    src = sw_quiet_source(&u.sw);
    ck_assert_int_eq(tt_history_refresh(h, &src, &grown, &err), -TT_ECHANGED);
    ck_assert_int_eq(tt_history_load(h, &src, &err), 0);
    ck_assert_uint_eq(tt_history_end(h)->last_seq, u.sw.tip->last_seq);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

START_TEST(provisional_until_flushed)
{
    struct tt_history_stats stats;
    struct tt_moment m;
    struct tt_history *h;
    struct unit u;

    unit_begin(&u, 52);
    OK(&u.sw, sw_journal_flush(&u.sw));
    OK(&u.sw, sw_durable(&u.sw));
    unit_write(&u, 0, 4096);
    h = load(&u);
    tt_history_stats(h, &stats);
    ck_assert_uint_eq(stats.provisional_from, u.sw.tip->parent->first_seq);
    ck_assert_int_eq(tt_moment_resolve(h, "latest", NULL, 0, &m, NULL), 0);
    ck_assert(m.provisional);
    tt_history_free(h);
    while (u.sw.durable != u.sw.tip) {
        OK(&u.sw, sw_journal_flush(&u.sw));
    }
    OK(&u.sw, sw_durable(&u.sw));
    h = load(&u);
    tt_history_stats(h, &stats);
    ck_assert_uint_eq(stats.provisional_from, 0);
    ck_assert_int_eq(tt_moment_resolve(h, "latest", NULL, 0, &m, NULL), 0);
    ck_assert(!m.provisional);
    tt_history_free(h);
    unit_end(&u);
}
END_TEST

int main(void)
{
    return unit_run("view", (const TTest *const *const[]){
                                &every_moment,
                                &first_touches,
                                &second_preimage_is_ignored,
                                &extents_are_clipped_and_joined,
                                &damaged_payload_is_not_served,
                                &missing_records_without_footer,
                                &missing_records_with_footer,
                                &damage_is_never_served,
                                &refresh_follows,
                                &refresh_tells_of_a_replaced_end,
                                &provisional_until_flushed,
                                NULL,
                            });
}
