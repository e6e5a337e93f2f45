/*
 * Random recordings that end at any moment: are the promises kept?
 *
 * A run is made of steps, each with a seed of its own: one thing that the
 * guest, the recorder or a medium does, or the end of a session.  After many
 * of them the world is copied and crashes, recovers (and may crash in that,
 * several times in a row), and is held against the promises; then the run goes
 * on as if nothing had happened.  A crash point is one crash, with what must
 * hold at that moment and after recovery.
 *
 *   test-sim                 TTJ_CRASHES crash points (1000000), from TTJ_SEED
 *   test-sim SEED            this run
 *   test-sim K/N             the K-th of N shares of them, in other runs each
 *
 * A run that fails is made shorter, step by step, as long as it still fails and
 * for TTJ_SHRINK seconds at most, and printed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wal.h"

#define CRASHES 1000000
#define STEPS_MAX 400
#define SHARE_SEEDS UINT64_C(1000000000) /* no share takes so many */
#define JOURNAL_FULL (3u << 20)
#define CRASHES_IN_A_ROW 5
#define SHRINK_FORKS 30
#define SHRINK_SECONDS 20 /* or what TTJ_SHRINK says */

static struct model model;
static struct sim line, branch;
static uint64_t crashes, cuts, in_recovery, rots;

struct history {
    uint64_t seed;
    unsigned count;
    uint64_t steps[STEPS_MAX];
    uint64_t fork; /* the seed of the one that failed; 0: no fork did */
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    struct rng r = { a * UINT64_C(0x2545f4914f6cdd1d) + b };

    return rng_next(&r) | 1;
}

/* Opens after a crash; @percent: how likely it is that this crashes, too. */
static int recover(struct sim *s, bool power, unsigned percent)
{
    for (unsigned tries = 0;; tries++) {
        int ret;

        s->quiet_fail = tries >= CRASHES_IN_A_ROW;
        s->until_crash =
            tries < CRASHES_IN_A_ROW && rng_chance(&s->rng, percent)
                ? 1 + rng_below(&s->rng, 16)
                : 0;
        ret = sim_open(s, power);
        s->until_crash = 0;
        s->quiet_fail = false;
        if (ret == 0 || ret == WAL_WRONG) {
            return ret ? ret : check_level(s);
        }
        if (tries > 20) {
            return sim_wrong(s, "it cannot be opened");
        }
        power = ret == WAL_CRASH && rng_chance(&s->rng, 50);
        crashes += ret == WAL_CRASH;
        in_recovery += ret == WAL_CRASH;
        cuts += power;
        sim_crash(s, power);
    }
}

/* What if it crashed now? */
static int fork_crash(uint64_t seed)
{
    struct rng r = { seed };
    bool power = rng_chance(&r, 60);
    struct node *newest = model.newest;
    size_t used = model.arena.used;
    uint32_t next_id = model.next_id;
    int ret;

    crashes++;
    cuts += power;
    sim_fork(&branch, &line, r, power);
    used = model.arena.used > used ? used : model.arena.used;
    ret = recover(&branch, power, 35);
    if (ret == 0) {
        ret = check_views(&branch, 3);
    }
    if (ret == 0 && rng_chance(&branch.rng, 4)) {
        rots++;
        ret = check_rot(&branch);
    }
    if (ret < 0) {
        strcpy(line.problem, branch.problem);
    }
    sim_abandon(&branch);
    model_rewind(&model, newest, used, next_id);
    return ret;
}

static int end_session(struct sim *s)
{
    int ret = 0;

    if (rng_chance(&s->rng, 20)) {
        ret = sim_close(s);
    }
    if (ret == 0 || ret == WAL_ERROR) {
        bool power = rng_chance(&s->rng, 50);

        crashes++;
        cuts += power;
        sim_crash(s, power);
        ret = recover(s, power, 30);
    }
    return ret;
}

/* One step of the run; the journal is open afterwards. */
static int one_step(struct sim *s, uint64_t seed)
{
    int ret;

    s->rng.state = seed;
    if (!s->open) {
        ret = recover(s, false, 20);
        if (ret < 0) {
            return ret;
        }
    }
    if (rng_below(&s->rng, 1000) < s->cfg.crash) {
        ret = end_session(s);
    } else {
        ret = sim_step(s);
    }
    if (ret == WAL_ERROR) {
        NOTE(s, "the journal is in error, and opened anew");
        sim_crash(s, false);
        ret = recover(s, false, 20);
    }
    return ret;
}

/* The steps of @h, and forks on the way or, if not @forks, at the end. */
static int run(struct history *h, bool forks)
{
    int ret = 0;

    h->fork = 0;
    sim_begin(&line, &model, h->seed);
    for (unsigned i = 0; i < h->count && ret == 0; i++) {
        ret = one_step(&line, h->steps[i]);
        if (ret < 0) {
            h->count = i + 1;
        } else if (forks && mix(h->steps[i], 1) % 100 < line.cfg.fork) {
            h->fork = mix(h->steps[i], 2);
            ret = fork_crash(h->fork);
            if (ret < 0) {
                h->count = i + 1;
                break;
            }
            h->fork = 0;
        }
        if (line.j.size > JOURNAL_FULL) {
            break;
        }
    }
    return ret;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- a run that fails -------------------------------------------------- */

/* The first letters tell which promise it is. */
static bool is_the_same(const char *problem)
{
    return !strncmp(line.problem, problem, 12);
}

/* Does it fail in its steps, or if it crashes after the last? */
static bool still_fails(struct history *h, uint64_t fork, const char *problem)
{
    if (run(h, false) < 0) {
        return is_the_same(problem);
    }
    for (unsigned i = 0; i < SHRINK_FORKS; i++) {
        h->fork = i ? mix(fork, i) : fork;
        if (fork_crash(h->fork) < 0 && is_the_same(problem)) {
            return true;
        }
    }
    return false;
}

static void leave_out(const struct history *h, unsigned from, unsigned count,
                      struct history *ret)
{
    *ret = *h;
    ret->count = h->count - count;
    memmove(ret->steps + from, ret->steps + from + count,
            (ret->count - from) * sizeof(*ret->steps));
}

static void make_shorter(struct history *h, const char *problem)
{
    double end = seconds() + (double)env_number("TTJ_SHRINK", SHRINK_SECONDS);
    uint64_t fork = h->fork ? h->fork : 1;
    static struct history try;
    bool again = true;

    while (again && seconds() < end) {
        again = false;
        for (unsigned size = h->count / 2; size > 0 && seconds() < end;
             size /= 2) {
            for (unsigned from = 0; from + size <= h->count;) {
                leave_out(h, from, size, &try);
                if (try.count && still_fails(&try, fork, problem)) {
                    *h = try;
                    fork = h->fork ? h->fork : fork;
                    again = true;
                } else {
                    from += size;
                }
            }
        }
    }
}

static void report(struct history *h)
{
    unsigned long_count = h->count;
    char problem[sizeof(line.problem)];
    uint64_t fork;

    printf("seed %llu fails after %u steps: %s\n"
           "again: test-sim %llu\n",
           (ull)h->seed, h->count, line.problem, (ull)h->seed);
    strcpy(problem, line.problem);
    make_shorter(h, problem);
    printf("made shorter, %u of %u steps:\n", h->count, long_count);
    fork = h->fork;
    line.verbose = true;
    sim_begin(&line, &model, h->seed);
    sim_note(&line,
             "disk-flush=%s, failing calls: %u%%, a disk of %u sectors, "
             "alignment %u",
             line.cfg.mode == MODE_GUEST ? "guest" : "lazy", line.cfg.fail,
             line.d.size, line.alignment);
    if (run(h, false) == 0) {
        fork_crash(fork);
    }
    printf("%s\n", line.problem);
}

static bool run_seed(uint64_t seed)
{
    static struct history h;
    struct rng r = { seed };

    h.seed = seed;
    h.count = 30 + (unsigned)rng_below(&r, STEPS_MAX - 30);
    for (unsigned i = 0; i < h.count; i++) {
        h.steps[i] = mix(seed, i + 1);
    }
    if (run(&h, true) == 0) {
        return true;
    }
    report(&h);
    return false;
}

int main(int argc, char **argv)
{
    uint64_t wanted = env_number("TTJ_CRASHES", CRASHES);
    uint64_t seed = env_number("TTJ_SEED", 1), first;
    double start = seconds();
    unsigned share, shares;
    bool ok = true;

    setvbuf(stdout, NULL, _IOLBF, 0);
    /* what the library takes and gives back in each recovery stays ours */
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    mallopt(M_TOP_PAD, 8 << 20);
    if (argc > 1 && sscanf(argv[1], "%u/%u", &share, &shares) == 2 &&
        share > 0 && share <= shares) {
        wanted = (wanted + shares - 1) / shares;
        seed += (share - 1) * SHARE_SEEDS;
    } else if (argc > 1) {
        ok = run_seed(strtoull(argv[1], NULL, 0));
        wanted = 0;
    }
    first = seed;
    while (ok && crashes < wanted) {
        ok = run_seed(seed++);
    }
    printf("%s: %llu crash points in %llu runs from seed %llu, %.1f s\n",
           ok ? "ok" : "FAILED", (ull)crashes, (ull)(seed - first), (ull)first,
           seconds() - start);
    printf("%llu looks went through an index, of %llu segments, %llu of them "
           "by their footers; %llu merges\n",
           (ull)(line.indexed + branch.indexed), (ull)si_totals.segments,
           (ull)si_totals.from_footers, (ull)si_totals.merges);
    printf("%llu by power cut, %llu in recovery; %llu times rot was added\n",
           (ull)cuts, (ull)in_recovery, (ull)rots);
    sim_free(&line);
    sim_free(&branch);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
