/*
 * The page cache: which pages of the index have been read and checked already?
 *
 * A page comes in by pread, and never by a mapping: a file that is cut short
 * while it is mapped kills its reader.  It is checked when it comes in, so
 * whoever finds it here need not check again, and a file that changes
 * underneath cannot change a page that is here.
 *
 * The cache is cut into shards by the page's number, each with a lock of its
 * own.  Pages leave by the clock algorithm: a hand goes round and takes the
 * first that nobody uses or has used since it last came by.
 *
 * Invariants, with the shard's lock held:
 * - A page is in the table exactly if its state is LOADING or READY.
 * - A page with users is neither taken nor freed.  If all have users another
 *   one is made above the bound, which is given back when its users have gone.
 * - The bytes of a LOADING page belong to the thread that loads it, those of
 *   a READY page change no more.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "pagecache.h"

#define SHARDS 16u
#define ROOM_MIN 4u /* pages of a shard, however small the cache is to be */

enum state {
    FREE,
    LOADING,
    READY,
    FAILED, /* could not be read: those who waited for it try themselves */
};

struct tt_page {
    uint64_t file, page; /* the key; set before it goes into the table */
    enum state state;
    unsigned users;
    bool used;     /* since the hand came by */
    bool extra;    /* above the bound */
    uint8_t *data; /* owned */
};

struct shard {
    pthread_mutex_t lock; /* protects all that follows, and the pages */
    pthread_cond_t loaded;
    GHashTable *table;
    GPtrArray *pages; /* owned, but for the extra ones */
    size_t hand;
    uint64_t hits, misses;
    size_t extra_count;
};

struct tt_pagecache {
    size_t page_size;
    size_t room; /* pages of a shard */
    _Atomic uint64_t last_file;
    struct shard shards[SHARDS];
};

/* ---- keys -------------------------------------------------------------- */

static uint64_t hash_of(uint64_t file, uint64_t page)
{
    uint64_t h = (page ^ file << 40) * UINT64_C(0x9e3779b97f4a7c15);

    return h ^ h >> 32;
}

static guint page_hash(gconstpointer key)
{
    const struct tt_page *p = key;

    return (guint)hash_of(p->file, p->page);
}

static gboolean page_equal(gconstpointer a, gconstpointer b)
{
    const struct tt_page *p = a, *q = b;

    return p->page == q->page && p->file == q->file;
}

static struct shard *shard_of(struct tt_pagecache *pc, uint64_t file,
                              uint64_t page)
{
    return &pc->shards[hash_of(file, page) >> 48 & (SHARDS - 1)];
}

/* ---- making and freeing ------------------------------------------------ */

struct tt_pagecache *tt_pagecache_new(size_t page_size, size_t bytes)
{
    struct tt_pagecache *pc = calloc(1, sizeof(*pc));

    if (!pc) {
        return NULL;
    }
    pc->page_size = page_size;
    pc->room = bytes / page_size / SHARDS;
    if (pc->room < ROOM_MIN) {
        pc->room = ROOM_MIN;
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &pc->shards[i];

        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->loaded, NULL);
        s->table = g_hash_table_new(page_hash, page_equal);
        s->pages = g_ptr_array_new();
    }
    return pc;
}

static void free_page(struct tt_page *p)
{
    free(p->data);
    free(p);
}

void tt_pagecache_free(struct tt_pagecache *pc)
{
    for (unsigned i = 0; pc && i < SHARDS; i++) {
        struct shard *s = &pc->shards[i];

        for (guint k = 0; k < s->pages->len; k++) {
            free_page(g_ptr_array_index(s->pages, k));
        }
        g_ptr_array_free(s->pages, TRUE);
        g_hash_table_destroy(s->table);
        pthread_cond_destroy(&s->loaded);
        pthread_mutex_destroy(&s->lock);
    }
    free(pc);
}

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct tt_pagecache *shared; /* with shared_lock */
static unsigned shared_users;       /* with shared_lock */

struct tt_pagecache *tt_pagecache_shared(size_t page_size, size_t bytes)
{
    struct tt_pagecache *pc;

    pthread_mutex_lock(&shared_lock);
    if (!shared) {
        shared = tt_pagecache_new(page_size, bytes);
    }
    pc = shared;
    shared_users += pc != NULL;
    pthread_mutex_unlock(&shared_lock);
    return pc;
}

void tt_pagecache_shared_put(void)
{
    pthread_mutex_lock(&shared_lock);
    if (--shared_users == 0) {
        tt_pagecache_free(shared);
        shared = NULL;
    }
    pthread_mutex_unlock(&shared_lock);
}

uint64_t tt_pagecache_new_file(struct tt_pagecache *pc)
{
    return atomic_fetch_add(&pc->last_file, 1) + 1;
}

void tt_pagecache_drop_file(struct tt_pagecache *pc, uint64_t file)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &pc->shards[i];

        pthread_mutex_lock(&s->lock);
        for (guint k = 0; k < s->pages->len; k++) {
            struct tt_page *p = g_ptr_array_index(s->pages, k);

            if (p->file == file && p->state == READY) {
                g_hash_table_remove(s->table, p);
                p->state = FREE;
            }
        }
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- taking a page ----------------------------------------------------- */

static struct tt_page *new_page(struct tt_pagecache *pc, struct shard *s)
{
    struct tt_page *p = calloc(1, sizeof(*p));

    if (p) {
        p->data = malloc(pc->page_size);
    }
    if (!p || !p->data) {
        free(p);
        return NULL;
    }
    if (s->pages->len < pc->room) {
        g_ptr_array_add(s->pages, p);
    } else {
        p->extra = true;
        s->extra_count++;
    }
    return p;
}

/* One that nobody uses, out of the table; or NULL. */
static struct tt_page *evict(struct shard *s)
{
    for (guint left = 2 * s->pages->len; left > 0; left--) {
        struct tt_page *p = g_ptr_array_index(s->pages, s->hand);

        s->hand = (s->hand + 1) % s->pages->len;
        if (p->users) {
            continue;
        }
        if (p->used && p->state == READY) {
            p->used = false;
            continue;
        }
        if (p->state == READY) {
            g_hash_table_remove(s->table, p);
        }
        p->state = FREE;
        return p;
    }
    return NULL;
}

static struct tt_page *take_page(struct tt_pagecache *pc, struct shard *s)
{
    struct tt_page *p = NULL;

    if (s->pages->len == pc->room) {
        p = evict(s);
    }
    return p ? p : new_page(pc, s);
}

/* With the lock held: @p loses a user. */
static void unuse(struct shard *s, struct tt_page *p)
{
    if (--p->users || !p->extra) {
        return;
    }
    if (p->state == READY) {
        g_hash_table_remove(s->table, p);
    }
    s->extra_count--;
    free_page(p);
}

/* The lock is held, but not while @fill runs. */
static int load(struct tt_pagecache *pc, struct shard *s,
                const struct tt_page *key, tt_page_fill *fill, void *opaque,
                struct tt_page **ret, struct tt_error *err)
{
    struct tt_page *p = take_page(pc, s);
    int r;

    if (!p) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    p->file = key->file;
    p->page = key->page;
    p->state = LOADING;
    p->users = 1;
    g_hash_table_add(s->table, p);
    s->misses++;
    pthread_mutex_unlock(&s->lock);
    r = fill(opaque, p->page, p->data, err);
    pthread_mutex_lock(&s->lock);
    if (r < 0) {
        g_hash_table_remove(s->table, p);
        p->state = FAILED;
    } else {
        p->state = READY;
        p->used = false; /* who reads all pages once drives out no others */
    }
    pthread_cond_broadcast(&s->loaded);
    if (r < 0) {
        unuse(s, p);
        return r;
    }
    *ret = p;
    return 0;
}

int tt_pagecache_get(struct tt_pagecache *pc, uint64_t file, uint64_t page,
                     tt_page_fill *fill, void *opaque, struct tt_page **ret,
                     struct tt_error *err)
{
    struct tt_page key = { .file = file, .page = page }, *p;
    struct shard *s = shard_of(pc, file, page);
    int r = 0;

    pthread_mutex_lock(&s->lock);
    while ((p = g_hash_table_lookup(s->table, &key))) {
        p->users++;
        while (p->state == LOADING) {
            pthread_cond_wait(&s->loaded, &s->lock);
        }
        if (p->state == READY) {
            p->used = true;
            s->hits++;
            *ret = p;
            break;
        }
        unuse(s, p);
    }
    if (!p) {
        r = load(pc, s, &key, fill, opaque, ret, err);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

const uint8_t *tt_page_bytes(const struct tt_page *p)
{
    return p->data;
}

void tt_pagecache_put(struct tt_pagecache *pc, struct tt_page *p)
{
    struct shard *s = shard_of(pc, p->file, p->page);

    pthread_mutex_lock(&s->lock);
    unuse(s, p);
    pthread_mutex_unlock(&s->lock);
}

void tt_pagecache_stats(struct tt_pagecache *pc,
                        struct tt_pagecache_stats *ret_stats)
{
    *ret_stats = (struct tt_pagecache_stats){ 0 };
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &pc->shards[i];

        pthread_mutex_lock(&s->lock);
        ret_stats->hits += s->hits;
        ret_stats->misses += s->misses;
        ret_stats->bytes += (s->pages->len + s->extra_count) * pc->page_size;
        pthread_mutex_unlock(&s->lock);
    }
}
