/*
 * The page cache: each page is read once, stays in its bound, and is right for
 * all threads
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <posix/pagecache.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "unit.h"

#define PAGE 4096u
#define ROOM 256u /* pages */
#define PAGES (10 * ROOM)
#define THREADS 8u

/* A file whose page p holds p and the file's tag. */
struct source {
    uint64_t tag;
    _Atomic unsigned fills[PAGES];
    _Atomic unsigned failures; /* so many fills fail, one after the other */
    bool slow;
};

/* Takes one of the failures, if there is one left. */
static bool fails(struct source *s)
{
    unsigned left = atomic_load(&s->failures);

    while (left &&
           !atomic_compare_exchange_weak(&s->failures, &left, left - 1)) {
    }
    return left > 0;
}

static int fill(void *opaque, uint64_t page, uint8_t *buf, struct tt_error *err)
{
    struct source *s = opaque;
    uint64_t words[PAGE / 8];

    atomic_fetch_add(&s->fills[page], 1);
    if (s->slow) {
        sched_yield();
    }
    for (size_t i = 0; i < PAGE / 8; i++) {
        words[i] = s->tag + page;
    }
    memcpy(buf, words, PAGE);
    return fails(s) ? tt_fail(err, TT_EIO, 5, "no") : 0;
}

static void check_page(const struct source *s, uint64_t page,
                       const struct tt_page *p)
{
    uint64_t words[PAGE / 8];

    memcpy(words, tt_page_bytes(p), PAGE);
    for (size_t i = 0; i < PAGE / 8; i++) {
        if (words[i] != s->tag + page) { /* ck_assert() itself is slow */
            ck_abort_msg("page %llu has %llu", (ull)page, (ull)words[i]);
        }
    }
}

static struct tt_page *get(struct tt_pagecache *pc, uint64_t file,
                           struct source *s, uint64_t page)
{
    struct tt_page *p;
    struct tt_error err;

    if (tt_pagecache_get(pc, file, page, fill, s, &p, &err) < 0) {
        ck_abort_msg("%s", err.message);
    }
    check_page(s, page, p);
    return p;
}

static void touch(struct tt_pagecache *pc, uint64_t file, struct source *s,
                  uint64_t page)
{
    tt_pagecache_put(pc, get(pc, file, s, page));
}

static size_t bytes(struct tt_pagecache *pc)
{
    struct tt_pagecache_stats stats;

    tt_pagecache_stats(pc, &stats);
    return stats.bytes;
}

static struct tt_pagecache *cache(void)
{
    struct tt_pagecache *pc = tt_pagecache_new(PAGE, ROOM * PAGE);

    ck_assert_ptr_nonnull(pc);
    return pc;
}

START_TEST(reads_once)
{
    struct tt_pagecache *pc = cache();
    uint64_t file = tt_pagecache_new_file(pc);
    struct tt_pagecache_stats stats;
    struct source s = { .tag = 1000 };

    for (unsigned i = 0; i < 100; i++) {
        touch(pc, file, &s, 7);
    }
    ck_assert_uint_eq(s.fills[7], 1);
    tt_pagecache_stats(pc, &stats);
    ck_assert_uint_eq(stats.hits, 99);
    ck_assert_uint_eq(stats.misses, 1);
    tt_pagecache_free(pc);
}
END_TEST

START_TEST(stays_in_its_bound)
{
    struct tt_pagecache *pc = cache();
    uint64_t file = tt_pagecache_new_file(pc);
    struct source s = { .tag = 1 };

    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t page = 1; page < PAGES; page++) {
            touch(pc, file, &s, page);
            touch(pc, file, &s, 0); /* in use all the time: it stays */
        }
        ck_assert_uint_le(bytes(pc), ROOM * PAGE);
    }
    ck_assert_uint_eq(s.fills[0], 1);
    ck_assert_uint_gt(s.fills[1], 1);
    tt_pagecache_free(pc);
}
END_TEST

START_TEST(pages_in_use_stay)
{
    struct tt_pagecache *pc = cache();
    uint64_t file = tt_pagecache_new_file(pc);
    static struct tt_page *held[PAGES];
    struct source s = { .tag = 1 };

    for (uint64_t page = 0; page < PAGES; page++) {
        held[page] = get(pc, file, &s, page);
    }
    ck_assert_uint_eq(bytes(pc), PAGES * PAGE);
    for (uint64_t page = 0; page < PAGES; page++) {
        check_page(&s, page, held[page]);
        ck_assert_uint_eq(s.fills[page], 1);
        tt_pagecache_put(pc, held[page]);
    }
    ck_assert_uint_le(bytes(pc), ROOM * PAGE);
    tt_pagecache_free(pc);
}
END_TEST

START_TEST(failures_are_not_kept)
{
    struct tt_pagecache *pc = cache();
    uint64_t file = tt_pagecache_new_file(pc);
    struct source s = { .tag = 1, .failures = 2 };
    struct tt_page *p;
    struct tt_error err;

    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(tt_pagecache_get(pc, file, 3, fill, &s, &p, &err),
                         -TT_EIO);
        ck_assert_str_eq(err.message, "no");
    }
    touch(pc, file, &s, 3);
    ck_assert_uint_eq(s.fills[3], 3);
    for (uint64_t page = 0; page < PAGES; page++) {
        s.failures = page % 2;
        if (tt_pagecache_get(pc, file, page, fill, &s, &p, &err) == 0) {
            tt_pagecache_put(pc, p);
        }
    }
    ck_assert_uint_le(bytes(pc), ROOM * PAGE);
    tt_pagecache_free(pc);
}
END_TEST

START_TEST(files_are_told_apart)
{
    struct tt_pagecache *pc = cache();
    uint64_t a = tt_pagecache_new_file(pc), b = tt_pagecache_new_file(pc);
    struct source s = { .tag = 1 }, t = { .tag = 1000000 };

    for (uint64_t page = 0; page < 10; page++) {
        touch(pc, a, &s, page);
        touch(pc, b, &t, page);
    }
    tt_pagecache_drop_file(pc, a);
    for (uint64_t page = 0; page < 10; page++) {
        touch(pc, a, &s, page);
        touch(pc, b, &t, page);
        ck_assert_uint_eq(s.fills[page], 2);
        ck_assert_uint_eq(t.fills[page], 1);
    }
    tt_pagecache_free(pc);
}
END_TEST

struct reader {
    pthread_t thread;
    struct tt_pagecache *pc;
    uint64_t file, random;
    struct source *source;
    unsigned failed;
};

static void *read_pages(void *opaque)
{
    struct reader *r = opaque;
    struct tt_page *last = NULL;
    uint64_t last_page = 0;

    for (unsigned i = 0; i < 5000; i++) {
        struct tt_page *p;
        uint64_t page;
        struct tt_error err;

        r->random = r->random * 6364136223846793005u + 1442695040888963407u;
        page = (r->random >> 33) % PAGES;
        page = page % 3 ? page % 100 : page; /* some are wanted more often */
        if (tt_pagecache_get(r->pc, r->file, page, fill, r->source, &p, &err) <
            0) {
            r->failed++;
            continue;
        }
        check_page(r->source, page, p);
        if (last) { /* still the same, whatever the others did meanwhile */
            check_page(r->source, last_page, last);
            tt_pagecache_put(r->pc, last);
        }
        last = p;
        last_page = page;
    }
    if (last) {
        tt_pagecache_put(r->pc, last);
    }
    return NULL;
}

START_TEST(many_threads)
{
    struct tt_pagecache *pc = cache();
    uint64_t file = tt_pagecache_new_file(pc);
    struct source s = { .tag = 5, .failures = 50 };
    struct reader readers[THREADS];
    unsigned failed = 0;

    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){
            .pc = pc, .file = file, .random = i, .source = &s
        };
        pthread_create(&readers[i].thread, NULL, read_pages, &readers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        failed += readers[i].failed;
    }
    ck_assert_uint_ge(failed, 1);
    ck_assert_uint_le(failed, 50);
    ck_assert_uint_le(bytes(pc), ROOM * PAGE);
    tt_pagecache_free(pc);
}
END_TEST

static void *read_one(void *opaque)
{
    struct reader *r = opaque;

    for (uint64_t page = 0; page < ROOM / 4; page++) {
        touch(r->pc, r->file, r->source, page);
    }
    return NULL;
}

/* Who wants a page that another one is reading waits for that. */
START_TEST(no_page_is_read_twice_at_once)
{
    struct tt_pagecache *pc = cache();
    uint64_t file = tt_pagecache_new_file(pc);
    struct source s = { .tag = 5, .slow = true };
    struct reader readers[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){ .pc = pc, .file = file, .source = &s };
        pthread_create(&readers[i].thread, NULL, read_one, &readers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
    }
    /* Shards fill unevenly, but not so that a quarter of the room were not
     * enough: nothing had to leave. */
    for (uint64_t page = 0; page < ROOM / 4; page++) {
        ck_assert_uint_eq(s.fills[page], 1);
    }
    tt_pagecache_free(pc);
}
END_TEST

int main(void)
{
    return unit_run("pagecache", (const TTest *const *const[]){
                                     &reads_once,
                                     &stays_in_its_bound,
                                     &pages_in_use_stay,
                                     &failures_are_not_kept,
                                     &files_are_told_apart,
                                     &many_threads,
                                     &no_page_is_read_twice_at_once,
                                     NULL,
                                 });
}
