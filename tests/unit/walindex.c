/*
 * The oracles once more, through an index: see wal.h
 *
 * The line has an index that grows with it, across crashes: what it covers was
 * durable, so it stays true in each fork.  A fork looks through that one, or
 * makes one of its own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal.h"

/* Both have all of history; the one with an index must know the same of it. */
static int compare(struct sim *s, struct rng *r, const struct tt_history *with,
                   const struct tt_history *without)
{
    uint64_t last = tt_history_end(without)->last_seq;
    size_t a, b;

    tt_history_epochs(with, &a);
    tt_history_epochs(without, &b);
    if (tt_history_end(with)->last_seq != last || a != b) {
        return sim_wrong(s, "index: seq %llu, %zu epochs, not %llu, %zu",
                         (ull)tt_history_end(with)->last_seq, a, (ull)last, b);
    }
    tt_history_sessions(with, &a);
    tt_history_sessions(without, &b);
    if (a != b) {
        return sim_wrong(s, "index: %zu sessions, not %zu", a, b);
    }
    for (unsigned i = 0; i < 4 && last; i++) {
        uint64_t seq = 1 + rng_below(r, last);
        struct tt_moment m, n;
        struct tt_error e = { 0 }, f = { 0 };
        int64_t t = 0, u = 0;
        char text[64];
        bool known = tt_history_time(without, seq, &t);

        if (tt_history_time(with, seq, &u) != known || t != u) {
            return sim_wrong(s, "index: seq %llu has time %lld, not %lld",
                             (ull)seq, (long long)u, (long long)t);
        }
        t += (int64_t)rng_below(r, 3) - 1;
        snprintf(text, sizeof(text), "@%lld.%09lld",
                 (long long)(t / 1000000000), (long long)(t % 1000000000));
        tt_moment_resolve(with, text, NULL, 0, &m, &e);
        tt_moment_resolve(without, text, NULL, 0, &n, &f);
        if (e.code != f.code || (!e.code && m.seq != n.seq)) {
            return sim_wrong(s, "index: %s is seq %llu %s, not %llu %s", text,
                             (ull)m.seq, e.message, (ull)n.seq, f.message);
        }
    }
    return 0;
}

static int look_through(struct sim *s, struct simindex *x, struct rng *r,
                        const struct node *end, unsigned lookups,
                        bool damage_ok)
{
    struct tt_source src = jmedia_source(&s->j);
    struct tt_history *with = tt_history_new(), *without = tt_history_new();
    struct tt_error err = { 0 };
    int ret;

    assert(with && without);
    ret = si_open(x, with, &src, &err);
    if (ret == -TT_EINDEX && damage_ok) {
        ret = 0;
    } else if (ret < 0) {
        ret = sim_wrong(s, "index: %s", err.message);
    } else {
        s->indexed += x->run_count ? lookups : 0;
        ret = check_lookups(s, with, end, lookups, damage_ok);
        if (ret == 0 && !damage_ok) {
            ret = tt_history_load(without, &src, &err);
            ret = ret < 0 ? sim_wrong(s, "history: %s", err.message)
                          : compare(s, r, with, without);
        }
    }
    tt_history_free(with);
    tt_history_free(without);
    si_close(x);
    return ret;
}

static int extend(struct sim *s, struct simindex *x, bool all)
{
    struct tt_source src = jmedia_source(&s->j);
    struct tt_error err = { 0 };

    if (si_extend(x, &src, all, &err) < 0) {
        return sim_wrong(s, "index: %s", err.message);
    }
    return 0;
}

int check_indexed(struct sim *s, const struct node *end, unsigned lookups,
                  bool damage_ok)
{
    struct rng r = { s->rng.state ^ UINT64_C(0x5deece66d) };
    struct simindex own;
    int ret = 0;

    if (!s->is_fork) {
        if (!s->index) {
            s->index = malloc(sizeof(*s->index));
            assert(s->index);
            si_init(s->index, rng_next(&r));
        }
        ret = extend(s, s->index, rng_chance(&r, 50));
        return ret == 0 ? look_through(s, s->index, &r, end, lookups, damage_ok)
                        : ret;
    }
    if (s->index && rng_chance(&r, 30)) {
        return look_through(s, s->index, &r, end, lookups, damage_ok);
    }
    if (rng_chance(&r, 50)) {
        return 0;
    }
    si_init(&own, rng_next(&r));
    ret = extend(s, &own, rng_chance(&r, 70));
    if (ret == 0) {
        ret = look_through(s, &own, &r, end, lookups, damage_ok);
    }
    si_clear(&own);
    return ret;
}
