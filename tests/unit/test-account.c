/*
 * Does the writer's account say as much as the versions do?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

/* Both ways say the same. */
static void check_same(struct unit *u, uint64_t seed, unsigned step)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    uint64_t walked, told;
    struct tt_recovery r;

    ck_assert_ptr_nonnull(h);
    ck_assert_msg(tt_history_load(h, &src, &err) == 0, "%s", err.message);
    ck_assert_msg(tt_recovery_run(&u->sw.super, &src, &r, &err) == 0, "%s",
                  err.message);
    ck_assert_int_eq(tt_history_captured(h, &walked, &err), 0);
    ck_assert_int_eq(tt_recovery_captured(&r, h, &told, &err), 0);
    ck_assert_msg(told == walked, "seed %llu, step %u: %llu, and not %llu",
                  (ull)seed, step, (ull)told, (ull)walked);
    tt_recovery_clear(&r);
    tt_history_free(h);
}

/* A size of whole blocks, or any if @cut */
static void resize(struct unit *u, bool cut)
{
    uint64_t size = 512 * (40 + sim_random(&u->world, 89));

    OK(&u->sw, sw_resize(&u->sw, cut ? size : size / TT_GRID * TT_GRID));
}

static void change(struct unit *u)
{
    static const enum sw_order orders[] = { SW_PRE_BEFORE, SW_PRE_WITH,
                                            SW_PRE_AFTER };
    uint64_t size = u->sw.w.disk_size, at = sim_random(&u->world, size / 512);
    uint64_t most = size / 512 - at;
    uint64_t length = 1 + sim_random(&u->world, most < 20 ? most : 20);

    if (sim_chance(&u->world, 30)) {
        OK(&u->sw, sw_zero(&u->sw, at * 512, length * 512,
                           orders[sim_random(&u->world, 3)]));
    } else {
        unit_write(u, at * 512, length * 512);
    }
}

static void end_session(struct unit *u)
{
    switch (sim_random(&u->world, 3)) {
    case 0:
        OK(&u->sw, sw_close(&u->sw));
        break;
    case 1:
        sw_kill(&u->sw);
        break;
    case 2:
        /* without the model nobody knows what else is left */
        while (u->sw.damage_ok && u->sw.durable != u->sw.tip) {
            OK(&u->sw, sw_journal_flush(&u->sw));
        }
        sw_power_cut(&u->sw);
        break;
    }
}

/*
 * One that has a beginning and an end, or is known when it has passed.  Who
 * finds one open closes it for the whole disk.
 */
static void gap(struct unit *u, uint64_t seed, unsigned step)
{
    uint64_t at = 512 * sim_random(&u->world, 100), open = 0;
    uint64_t length =
        sim_chance(&u->world, 10) ? 0 : 512 * (1 + sim_random(&u->world, 20));

    if (sim_chance(&u->world, 50)) {
        open = unit_gap(u, 0, TT_GAP_OPEN, at, length);
        check_same(u, seed, step);
        if (sim_chance(&u->world, 20)) {
            end_session(u);
            OK(&u->sw, sw_open(&u->sw));
            change(u);
            check_same(u, seed, step);
            length = 0;
        }
    }
    unit_gap(u, open, 0, at, length);
    OK(&u->sw, sw_durable(&u->sw));
}

enum what { WRITES, RESIZES, CUTS, GAPS, ALL };

static void random_history(enum what what, uint64_t seed)
{
    struct unit u;

    unit_begin(&u, seed);
    u.sw.damage_ok = what >= GAPS; /* the model knows none */
    for (unsigned step = 0; step < 40; step++) {
        unsigned dice = (unsigned)sim_random(&u.world, 100);

        if (dice < 8 && what != WRITES && what != GAPS) {
            resize(&u, what != RESIZES);
        } else if (dice < 14 && what >= GAPS) {
            gap(&u, seed, step);
        } else if (dice < 24) {
            OK(&u.sw, sw_flush(&u.sw));
        } else if (dice < 28) {
            end_session(&u);
            check_same(&u, seed, step);
            OK(&u.sw, sw_open(&u.sw));
        } else {
            change(&u);
        }
        check_same(&u, seed, step);
    }
    unit_end(&u);
}

static void random_histories(enum what what)
{
    for (uint64_t seed = 1; seed < unit_rounds(60, 10); seed++) {
        random_history(what, seed * 100 + what);
    }
}

START_TEST(writes)
{
    random_histories(WRITES);
}
END_TEST

START_TEST(resizes)
{
    random_histories(RESIZES);
}
END_TEST

START_TEST(ends_that_cut_a_block)
{
    random_histories(CUTS);
}
END_TEST

/* A writer may resize without a capture of what the disk's end cuts. */
START_TEST(ends_of_blocks_never_captured)
{
    static const uint64_t sizes[] = { 61952, SIM_DISK_MAX, 58880, 60416 };
    struct unit u;

    unit_begin(&u, 7);
    u.sw.damage_ok = true;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct tt_request req = {
            .kind = TT_KIND_RESIZE,
            .disk_offset = u.sw.w.disk_size,
            .disk_length = sizes[i],
        };

        OK(&u.sw, sw_append_one(&u.sw, &req, 1));
        check_same(&u, 7, i);
    }
    /* nothing is to be redone any more */
    u.sw.disk_size = u.sw.w.disk_size;
    OK(&u.sw, sw_close(&u.sw));
    check_same(&u, 7, 9);
    unit_end(&u);
}
END_TEST

/* What is pending is not captured yet. */
START_TEST(writes_before_their_captures)
{
    struct unit u;

    unit_begin(&u, 8);
    u.sw.damage_ok = true;
    for (unsigned i = 0; i < 6; i++) {
        struct tt_request req = {
            .kind = TT_KIND_ZERO,
            .disk_offset = 3072 * i,
            .disk_length = 3584,
        };

        OK(&u.sw, sw_append_one(&u.sw, &req, 1));
        check_same(&u, 8, i);
    }
    unit_gap(&u, 0, 0, 4096, 4096);
    check_same(&u, 8, 6);
    unit_end(&u);
}
END_TEST

START_TEST(gaps)
{
    random_histories(GAPS);
}
END_TEST

START_TEST(gaps_and_resizes)
{
    random_histories(ALL);
}
END_TEST

int main(void)
{
    return unit_run("account", (const TTest *const *const[]){
                                   &writes,
                                   &resizes,
                                   &ends_that_cut_a_block,
                                   &ends_of_blocks_never_captured,
                                   &writes_before_their_captures,
                                   &gaps,
                                   &gaps_and_resizes,
                                   NULL,
                               });
}
