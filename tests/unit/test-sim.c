/*
 * Random recordings that end at random moments: are the promises kept?
 *
 * Each round records random operations on a small disk that already has
 * contents, ends them by kill -9 or a power cut at any call (also during
 * recovery), fails calls, steps the clock, and opens the journal again, a few
 * times over.  After each end
 *
 *   - what was acknowledged (kill) or flushed (power cut) is history, and
 *     nothing else is: the frames are a path of the model's tree;
 *   - recovery finds what the model says: redos, rewrites, captured blocks;
 *   - the disk holds nothing that history does not know, and after recovery
 *     is view(latest);
 *   - every earlier moment reads back exactly.
 *
 * TTJ_SEED and TTJ_ROUNDS in the environment choose the first round's seed
 * and how many there are.  A failing round prints its seed and what it did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#define ROUNDS 2500
#define LOG_LINES 512

static char op_log[LOG_LINES][100];
static unsigned op_count;

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(op_log[op_count % LOG_LINES], sizeof(op_log[0]), fmt, ap);
    va_end(ap);
    op_count++;
}

static void print_log(void)
{
    unsigned i = op_count > LOG_LINES ? op_count - LOG_LINES : 0;

    for (; i < op_count; i++) {
        printf("  %s\n", op_log[i % LOG_LINES]);
    }
}

/* ---- one operation ----------------------------------------------------- */

static uint64_t random_range(struct simwriter *sw, uint64_t *ret_length)
{
    struct sim_world *w = sw->world;
    uint64_t sectors = sw->w.disk_size / SIM_SECTOR;
    uint64_t most = sim_chance(w, 70) ? 16 : sectors;
    uint64_t at =
        sim_random(w, sim_chance(w, 50) && sectors > 24 ? 24 : sectors);

    *ret_length = 1 + sim_random(w, most);
    if (*ret_length > sectors - at) {
        *ret_length = sectors - at;
    }
    if (sim_chance(w, 40)) {
        at &= ~(uint64_t)7;
    }
    *ret_length *= SIM_SECTOR;
    return at * SIM_SECTOR;
}

static int op_write(struct simwriter *sw)
{
    static uint8_t buf[SIM_DISK_MAX];
    uint64_t length, offset = random_range(sw, &length);
    enum sw_order order = sim_random(sw->world, 3);

    for (uint64_t i = 0; i < length; i += 8) {
        uint64_t v = sim_random(sw->world, 0);

        memcpy(buf + i, &v, 8);
    }
    if (sim_chance(sw->world, 5)) {
        /* a guest that read our journal writes a frame of it */
        memcpy(buf, sw->journal.cache + sw->tip->offset, SIM_SECTOR);
    }
    note("write %llu + %llu, order %d", (ull)offset, (ull)length, order);
    return sw_write(sw, offset, length, buf, order);
}

static int op_zero(struct simwriter *sw)
{
    uint64_t length, offset = random_range(sw, &length);

    note("zero %llu + %llu", (ull)offset, (ull)length);
    return sw_zero(sw, offset, length, sim_random(sw->world, 3));
}

static int op_resize(struct simwriter *sw)
{
    uint64_t size =
        (1 + sim_random(sw->world, SIM_DISK_MAX / SIM_SECTOR)) * SIM_SECTOR;

    if (sim_chance(sw->world, 60)) {
        size = (size + TT_GRID - 1) / TT_GRID * TT_GRID;
    }
    note("resize to %llu", (ull)size);
    return sw_resize(sw, size);
}

static void op_clock(struct simwriter *sw)
{
    static const int64_t hours[] = { -1, 75 * 365 * 24, -75 * 365 * 24, 1 };
    int64_t h = hours[sim_random(sw->world, 4)];

    note("the clock steps by %lld h", (long long)h);
    sw->now.realtime += h * INT64_C(3600000000000);
}

static int one_op(struct simwriter *sw)
{
    unsigned dice = (unsigned)sim_random(sw->world, 100);

    if (dice < 60) {
        return op_write(sw);
    } else if (dice < 70) {
        return op_zero(sw);
    } else if (dice < 87) {
        note("flush");
        return sw_flush(sw);
    } else if (dice < 91) {
        return op_resize(sw);
    } else if (dice < 95) {
        note("durable");
        return sw_durable(sw);
    } else if (dice < 98) {
        note("mark");
        return sw_mark(sw, "m");
    }
    op_clock(sw);
    return 0;
}

/* ---- one session, and its end ------------------------------------------ */

static int session(struct simwriter *sw)
{
    struct sim_world *w = sw->world;
    unsigned ops = (unsigned)sim_random(w, 20);
    int ret;

    note("open");
    ret = sw_open(sw);
    if (ret == 0 && !sw->disk_unsure) {
        ret = sw_check_disk_level(sw);
    }
    for (unsigned i = 0; i < ops && ret == 0; i++) {
        ret = one_op(sw);
    }
    if (ret == 0 && sim_chance(w, 30)) {
        note("close");
        ret = sw_close(sw);
    }
    return ret;
}

static void end_session(struct simwriter *sw)
{
    struct sim_world *w = sw->world;

    if (sim_chance(w, 50)) {
        note("kill at call %llu", (ull)w->calls);
        sw_kill(sw);
    } else {
        note("power cut at call %llu", (ull)w->calls);
        sw_power_cut(sw);
        sw->boot++;
        sw->now.boottime = 1000000000;
        sw->now.realtime += INT64_C(60000000000);
    }
    if (sim_chance(w, 20)) {
        sw->alignment = 512u << sim_random(w, 4);
    }
}

static int round_of(struct simwriter *sw, struct sim_world *w)
{
    unsigned sessions = 1 + (unsigned)sim_random(w, 4);
    int ret = 0;

    for (unsigned i = 0; i < sessions && ret != SW_WRONG; i++) {
        w->crash_at = sim_chance(w, 80) ? w->calls + 1 + sim_random(w, 120) : 0;
        w->fail_at = sim_chance(w, 30) ? w->changes + 1 + sim_random(w, 40) : 0;
        w->fail_errno = sim_chance(w, 50) ? EIO : ENOSPC;
        ret = session(sw);
        note("-> %d", ret);
        if (ret != SW_WRONG) {
            end_session(sw);
        }
    }
    if (ret == SW_WRONG) {
        return ret;
    }
    w->crash_at = w->fail_at = 0;
    note("last open");
    ret = sw_open(sw);
    if (ret == 0 && !sw->disk_unsure) {
        ret = sw_check_disk_level(sw);
    }
    return ret == 0 ? sw_check_views(sw, 24) : ret;
}

static bool run_round(uint64_t seed)
{
    struct simwriter sw;
    struct sim_world w;
    uint8_t disk[SIM_DISK_MAX];
    uint64_t size;
    int ret;

    op_count = 0;
    sim_world_init(&w, seed);
    size = (1 + sim_random(&w, SIM_DISK_MAX / SIM_SECTOR)) * SIM_SECTOR;
    if (sim_chance(&w, 70)) {
        size = SIM_DISK_MAX;
    }
    for (size_t i = 0; i < sizeof(disk); i++) {
        disk[i] = i / TT_GRID % 4 == 3 ? 0 : (uint8_t)sim_random(&w, 256);
    }
    sw_init(&sw, &w, disk, size, sim_chance(&w, 80) ? 512 : 4096);
    sw.strict = sim_chance(&w, 75);
    ret = round_of(&sw, &w);
    if (ret != 0) {
        printf("round with seed %llu failed (%d): %s\n"
               "again: TTJ_SEED=%llu TTJ_ROUNDS=1\n",
               (ull)seed, ret, ret == SW_WRONG ? sw.problem : strerror(-ret),
               (ull)seed);
        print_log();
    }
    sw_clear(&sw);
    return ret == 0;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

START_TEST(random_recordings)
{
    uint64_t seed = env_number("TTJ_SEED", 1);
    uint64_t rounds = env_number("TTJ_ROUNDS", ROUNDS);
    unsigned failed = 0;

    printf("seed %llu, %llu rounds\n", (ull)seed, (ull)rounds);
    for (uint64_t i = 0; i < rounds && failed < 1; i++) {
        failed += !run_round(seed + i);
    }
    ck_assert_uint_eq(failed, 0);
}
END_TEST

int main(void)
{
    return unit_run("simulation", (const TTest *const *const[]){
                                      &random_recordings,
                                      NULL,
                                  });
}
