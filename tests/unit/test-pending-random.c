/*
 * Pending versions: random calls against a naive model
 *
 * The model knows, for each unit of a small disk, the versions written to it
 * and which of them the disk holds.  From the definitions in pending.h alone
 * it says what reads find, what may be taken, what is level and which versions
 * are still referred to; all of it is compared after each call.  In some
 * rounds malloc() fails: then the level may be lower than it could be.
 *
 * TTJ_SEED and TTJ_ROUNDS in the environment choose the first round's seed
 * and how many there are.  A failing round prints its seed and what it did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdarg.h>
#include <stdio.h>

#include <ttjournal/pending.h>

#include "malloc-fails.h"

#define ROUNDS 3000

#define UNITS 64
#define OPS 250
#define FLIGHTS 4
#define LOG_LINE 100

struct model_version {
    uint64_t seq, unit_length;
    uint16_t kind, flags;
    unsigned first, count; /* units */
    uint8_t *data;
    unsigned released;
    bool live;
};

/* A unit of the disk: the versions newer than the disk's, oldest first */
struct unit_state {
    unsigned count;
    uint64_t seqs[OPS];
    int flight; /* or -1 */
    uint64_t flight_seq;
};

static struct model {
    struct sim_world world;
    struct tt_pending *p;
    struct model_version versions[OPS + 1]; /* by number */
    struct unit_state units[UNITS];
    struct tt_writeback flights[FLIGHTS];
    bool flying[FLIGHTS];
    uint64_t unit, last, durable, largest;
    unsigned size; /* of the disk, in units */
    bool scarce;   /* malloc() fails now and then */
    char problem[200];
    char log[OPS * 3][LOG_LINE];
    unsigned lines;
} m;

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (m.lines < OPS * 3) {
        vsnprintf(m.log[m.lines++], LOG_LINE, fmt, ap);
    }
    va_end(ap);
}

__attribute__((format(printf, 1, 2))) static bool wrong(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(m.problem, sizeof(m.problem), fmt, ap);
    va_end(ap);
    return false;
}

#define EXPECT(cond, ...)                                                      \
    do {                                                                       \
        if (!(cond)) {                                                         \
            return wrong(__VA_ARGS__);                                         \
        }                                                                      \
    } while (0)

static void model_release(void *owner)
{
    struct model_version *v = owner;

    v->released++;
    free(v->data);
    v->data = NULL;
}

static unsigned roll(unsigned n)
{
    return (unsigned)sim_random(&m.world, n);
}

static uint64_t newest_of(const struct unit_state *u)
{
    return u->count ? u->seqs[u->count - 1] : 0;
}

static uint64_t newest_durable_of(const struct unit_state *u)
{
    uint64_t seq = 0;

    for (unsigned i = 0; i < u->count && u->seqs[i] <= m.durable; i++) {
        seq = u->seqs[i];
    }
    return seq;
}

/* What may be taken of @u, or 0 */
static uint64_t ready_of(const struct unit_state *u)
{
    return u->flight >= 0 ? 0 : newest_durable_of(u);
}

/* What reads, a byte of each unit at a time, and in runs, should find */
static bool check_reads(void)
{
    uint64_t at = 0, end = UNITS * m.unit;

    while (at < end) {
        const struct unit_state *u = &m.units[at / m.unit];
        uint64_t seq = newest_of(u), run;
        const struct model_version *v = &m.versions[seq];
        const uint8_t *data;
        bool pending = tt_pending_read(m.p, at, end - at, &data, &run);

        EXPECT(pending == (seq != 0), "read of %llu: pending is %d",
               (ull)(at / m.unit), pending);
        EXPECT(run && run <= end - at && run % m.unit == 0,
               "read of %llu: run of %llu", (ull)(at / m.unit), (ull)run);
        for (uint64_t i = 0; i < run; i += m.unit) {
            EXPECT(newest_of(&m.units[(at + i) / m.unit]) == seq,
                   "read of %llu: the run is too long", (ull)(at / m.unit));
        }
        if (!pending) {
            EXPECT(at + run == end || newest_of(&m.units[(at + run) / m.unit]),
                   "read of %llu: the run is too short", (ull)(at / m.unit));
        } else if (v->kind == TT_KIND_ZERO) {
            EXPECT(!data, "read of %llu: not zeroes", (ull)(at / m.unit));
        } else {
            EXPECT(data == v->data + (at - v->first * m.unit),
                   "read of %llu: not version %llu", (ull)(at / m.unit),
                   (ull)seq);
        }
        at += run;
    }
    return true;
}

/* Each block that it touches may be captured, and needs a head then. */
static uint64_t room_to_capture(const struct model_version *v)
{
    uint64_t block = UINT64_MAX, room = 0;

    for (unsigned i = v->first; i < v->first + v->count; i++) {
        for (uint64_t at = i * m.unit; at < (i + 1) * m.unit; at += TT_SECTOR) {
            room += at / TT_GRID != block ? 2 * TT_GRID : 0;
            block = at / TT_GRID;
        }
    }
    return room;
}

/* Level, and which versions anything refers to */
static bool check_state(void)
{
    uint64_t oldest = UINT64_MAX, held = 0, undurable = 0, last = 0, got, n;
    uint64_t captures = 0;
    bool any = false;

    for (unsigned i = 1; i <= m.last; i++) {
        m.versions[i].live = false;
    }
    for (unsigned i = 0; i < UNITS; i++) {
        const struct unit_state *u = &m.units[i];

        if (u->count && u->seqs[0] < oldest) {
            oldest = u->seqs[0];
        }
        m.versions[newest_of(u)].live = true;
        m.versions[ready_of(u)].live = true;
        if (u->flight >= 0) {
            m.versions[u->flight_seq].live = true;
            /* a newer one that is durable waits behind it */
            m.versions[newest_durable_of(u)].live = true;
        }
        for (unsigned k = 0; k < u->count; k++) {
            if (u->seqs[k] > m.durable) {
                m.versions[u->seqs[k]].live = true;
            }
        }
    }
    for (unsigned i = 1; i <= m.last; i++) {
        const struct model_version *v = &m.versions[i];

        EXPECT(v->released == !v->live, "version %u was released %u times", i,
               v->released);
        if (v->live) {
            any = true;
            held += v->count * m.unit;
            captures += room_to_capture(v);
            if (i > m.durable) {
                undurable += v->count * m.unit;
                last = i;
            }
        }
    }
    EXPECT(tt_pending_bytes(m.p) == held, "%llu bytes, not %llu",
           (ull)tt_pending_bytes(m.p), (ull)held);
    got = tt_pending_captures(m.p);
    EXPECT(got == captures, "%llu bytes to be captured, not %llu", (ull)got,
           (ull)captures);
    EXPECT(tt_pending_empty(m.p) == !any, "empty is wrong");
    got = tt_pending_undurable(m.p, &n);
    EXPECT(got == undurable && n == last,
           "undurable: %llu bytes up to %llu, not %llu up to %llu", (ull)got,
           (ull)n, (ull)undurable, (ull)last);
    oldest = oldest == UINT64_MAX ? 0 : oldest;
    got = tt_pending_oldest(m.p);
    n = tt_pending_level(m.p, m.last);
    EXPECT(n == (got ? got - 1 : m.last), "level %llu, oldest %llu", (ull)n,
           (ull)got);
    EXPECT(got == oldest || (m.scarce && got && got < oldest),
           "the oldest is %llu, not %llu", (ull)got, (ull)oldest);
    return true;
}

static bool op_add(void)
{
    uint64_t seq = m.last + 1;
    struct model_version *v = &m.versions[seq];
    unsigned most = sim_chance(&m.world, 70) ? 6 : 31;
    bool ok;

    memset(v, 0, sizeof(*v));
    v->seq = seq;
    v->first = roll(m.size);
    v->count = 1 + roll(most);
    if (v->count > m.size - v->first) {
        v->count = m.size - v->first;
    }
    v->kind = sim_chance(&m.world, 25) ? TT_KIND_ZERO : TT_KIND_WRITE;
    if (v->kind == TT_KIND_ZERO) {
        v->flags = sim_chance(&m.world, 30) ? TT_RECORD_UNMAP : 0;
    } else {
        v->data = __real_malloc(v->count * m.unit);
        if (!v->data) {
            abort();
        }
    }
    note("add %llu: %s %u + %u, flags %u", (ull)seq, tt_kind_name(v->kind),
         v->first, v->count, v->flags);
    ok = tt_pending_add(m.p, seq, v->kind, v->flags, v->first * m.unit,
                        v->count * m.unit, v->data, v);
    if (!ok) {
        note("  no memory");
        free(v->data);
        EXPECT(m.scarce, "there is memory");
        return true;
    }
    m.last = seq;
    for (unsigned i = 0; i < v->count; i++) {
        struct unit_state *u = &m.units[v->first + i];

        u->seqs[u->count++] = seq;
    }
    return true;
}

static bool op_durable(void)
{
    if (m.last > m.durable) {
        m.durable += roll((unsigned)(m.last - m.durable) + 1);
    }
    note("durable %llu", (ull)m.durable);
    tt_pending_durable(m.p, m.durable);
    return true;
}

/* A unit that waits, in a run of such units that nothing in flight touches;
 * the oldest number of these, or UINT64_MAX if there are none */
static uint64_t must_take(void)
{
    uint64_t oldest = UINT64_MAX;

    for (unsigned i = 0, end; i < UNITS; i = end + 1) {
        uint64_t run = UINT64_MAX;

        for (end = i; end < UNITS && ready_of(&m.units[end]); end++) {
            if (m.units[end].seqs[0] < run) {
                run = m.units[end].seqs[0];
            }
        }
        if ((i == 0 || m.units[i - 1].flight < 0) &&
            (end == UNITS || m.units[end].flight < 0) && run < oldest) {
            oldest = run;
        }
    }
    return oldest;
}

static bool check_request(const struct tt_writeback *w, int flight)
{
    uint64_t first = w->offset / m.unit, oldest = UINT64_MAX, part = 0,
             skip = 0;
    uint64_t must = must_take();

    EXPECT(w->length && w->offset % m.unit == 0 && w->length % m.unit == 0 &&
               w->offset + w->length <= m.size * m.unit,
           "a request of %llu + %llu", (ull)w->offset, (ull)w->length);
    EXPECT(w->length <= TT_WRITEBACK_MAX ||
               (w->kind == TT_KIND_ZERO && w->length <= m.largest),
           "a request of %llu bytes", (ull)w->length);
    EXPECT(w->kind == TT_KIND_WRITE ? w->part_count >= 1 : !w->part_count,
           "%u parts", w->part_count);
    for (uint64_t i = first; i < first + w->length / m.unit; i++) {
        struct unit_state *u = &m.units[i];
        uint64_t seq = ready_of(u);
        const struct model_version *v = &m.versions[seq];

        EXPECT(u->flight < 0, "unit %llu is in flight already", (ull)i);
        EXPECT(seq, "unit %llu has nothing durable", (ull)i);
        EXPECT(v->kind == w->kind, "unit %llu: kind", (ull)i);
        if (w->kind == TT_KIND_ZERO) {
            EXPECT(v->flags == w->flags, "unit %llu: flags", (ull)i);
        } else {
            EXPECT(part < w->part_count &&
                       w->parts[part].data + skip ==
                           v->data + (i - v->first) * m.unit,
                   "unit %llu: not version %llu", (ull)i, (ull)seq);
            skip += m.unit;
            if (skip >= w->parts[part].length) {
                EXPECT(skip == w->parts[part].length, "an odd part");
                part++;
                skip = 0;
            }
        }
        if (u->seqs[0] < oldest) {
            oldest = u->seqs[0];
        }
    }
    EXPECT(part == w->part_count, "%u parts", w->part_count);
    EXPECT(oldest <= must || m.scarce, "took %llu, and %llu waits", (ull)oldest,
           (ull)must);
    for (uint64_t i = first; i < first + w->length / m.unit; i++) {
        m.units[i].flight_seq = ready_of(&m.units[i]);
        m.units[i].flight = flight;
    }
    return true;
}

static bool op_take(void)
{
    int flight = 0;

    while (flight < FLIGHTS && m.flying[flight]) {
        flight++;
    }
    if (flight == FLIGHTS) {
        return true;
    }
    memset(&m.flights[flight], 0xee, sizeof(m.flights[flight]));
    if (!tt_pending_take(m.p, &m.flights[flight])) {
        note("take: nothing");
        EXPECT(must_take() == UINT64_MAX || m.scarce, "%llu was not taken",
               (ull)must_take());
        return true;
    }
    note("take: request %d: %llu + %llu in %u parts", flight,
         (ull)(m.flights[flight].offset / m.unit),
         (ull)(m.flights[flight].length / m.unit),
         m.flights[flight].part_count);
    m.flying[flight] = true;
    return check_request(&m.flights[flight], flight);
}

static bool op_finish(bool well)
{
    int flight = (int)roll(FLIGHTS);

    for (unsigned i = 0; !m.flying[flight]; i++) {
        if (i == FLIGHTS) {
            return true;
        }
        flight = (flight + 1) % FLIGHTS;
    }
    note("request %d is %s", flight, well ? "written" : "refused");
    for (unsigned i = 0; i < UNITS; i++) {
        struct unit_state *u = &m.units[i];
        unsigned gone = 0;

        if (u->flight != flight) {
            continue;
        }
        u->flight = -1;
        while (well && gone < u->count && u->seqs[gone] <= u->flight_seq) {
            gone++;
        }
        u->count -= gone;
        memmove(u->seqs, u->seqs + gone, u->count * sizeof(u->seqs[0]));
    }
    m.flying[flight] = false;
    (well ? tt_pending_written : tt_pending_refused)(m.p, &m.flights[flight]);
    memset(&m.flights[flight], 0xdd, sizeof(m.flights[flight]));
    return true;
}

static bool op_trim(void)
{
    unsigned least = 1;

    for (unsigned i = 0; i < UNITS; i++) {
        if (m.units[i].flight >= 0) {
            least = i + 1;
        }
    }
    /* or it grows */
    m.size = least + roll(UNITS - least + 1);
    note("resize to %u", m.size);
    for (unsigned i = m.size; i < UNITS; i++) {
        m.units[i].count = 0;
    }
    tt_pending_trim(m.p, m.size * m.unit);
    return true;
}

static bool one_op(void)
{
    unsigned dice = roll(100);

    if (dice < 40) {
        return op_add();
    } else if (dice < 58) {
        return op_durable();
    } else if (dice < 76) {
        return op_take();
    } else if (dice < 97) {
        return op_finish(sim_chance(&m.world, 75));
    }
    return op_trim();
}

/* Writes all that is left, or lets it be released. */
static bool last_ops(void)
{
    bool all = sim_chance(&m.world, 50);

    m.durable = all ? m.last : m.durable;
    tt_pending_durable(m.p, m.durable);
    note("%s", all ? "the rest" : "the end");
    for (bool more = true; more;) {
        more = false;
        if (all && (!op_take() || !check_state())) {
            return false;
        }
        for (unsigned i = 0; i < FLIGHTS; i++) {
            more = more || m.flying[i];
        }
        if (!op_finish(true) || !check_state() || !check_reads()) {
            return false;
        }
    }
    EXPECT(!all || tt_pending_empty(m.p), "something is left");
    return true;
}

static bool run_round(uint64_t seed)
{
    static const uint64_t units[] = { 512, 4096, 32768, 32768 };
    unsigned percent = 0;
    bool ok = true;

    memset(&m, 0, sizeof(m));
    sim_world_init(&m.world, seed);
    m.unit = units[roll(4)];
    m.size = UNITS;
    m.largest = 31 * m.unit;
    m.scarce = sim_chance(&m.world, 25);
    for (unsigned i = 0; i < UNITS; i++) {
        m.units[i].flight = -1;
    }
    m.p = tt_pending_new(model_release);
    ck_assert_ptr_nonnull(m.p);

    malloc_world = &m.world;
    for (unsigned i = 0; ok && i < OPS; i++) {
        if (m.scarce && sim_chance(&m.world, 10)) {
            static const unsigned percents[] = { 0, 50, 95, 100 };

            percent = percents[roll(4)];
        }
        malloc_fails = percent;
        ok = one_op();
        malloc_fails = 0;
        ok = ok && check_state() && check_reads();
    }
    ok = ok && last_ops();
    if (ok) {
        tt_pending_free(m.p);
        for (unsigned i = 1; ok && i <= m.last; i++) {
            if (m.versions[i].released != 1) {
                ok = wrong("version %u was released %u times", i,
                           m.versions[i].released);
            }
        }
    }
    if (!ok) {
        for (unsigned i = 0; i < m.lines; i++) {
            printf("  %s\n", m.log[i]);
        }
        printf("seed %llu: %s\nagain: TTJ_SEED=%llu TTJ_ROUNDS=1\n", (ull)seed,
               m.problem, (ull)seed);
    }
    return ok;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

START_TEST(at_random)
{
    uint64_t seed = env_number("TTJ_SEED", 1);
    uint64_t rounds = env_number("TTJ_ROUNDS", ROUNDS);

    printf("seed %llu, %llu rounds\n", (ull)seed, (ull)rounds);
    fflush(stdout);
    for (uint64_t i = 0; i < rounds; i++) {
        ck_assert(run_round(seed + i));
    }
    printf("malloc() failed %u times\n", malloc_failures);
    ck_assert_msg(malloc_failures || rounds < 20, "malloc() never failed");
}
END_TEST

int main(void)
{
    return unit_run("pending-random", (const TTest *const *const[]){
                                          &at_random,
                                          NULL,
                                      });
}
