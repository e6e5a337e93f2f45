/*
 * ttjournal filter driver: the bytes of writes
 *
 * A write is copied once, and the copy is shared by the frame that is to be
 * durable and by the version that is to reach the disk.  Copies come and go as
 * fast as the guest writes, and a fresh page costs more than to hash it.  So
 * some that were freed are kept for the next, each with the size of a power of
 * two; what would waste much of that is allocated as it is, and not kept.
 *
 * Large ones are cut from slabs, each a huge page where the system has them.
 * Memory that is one piece for the device, too, is one descriptor for it, and
 * not one for each 4 KiB: with those, one request of 1 MiB fills the queue of a
 * virtual disk.  A slab is freed when nobody uses any of it: so at worst all
 * slab classes keep what each of them once used at the same time, and that is
 * bounded by what may be pending.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"

#include "ttjournal-int.h"

#ifdef __SANITIZE_ADDRESS__
#define KEEPS false /* so that it is seen who uses what was freed */
#else
#define KEEPS true
#endif

QEMU_BUILD_BUG_ON(TT_PAYLOAD_RECORD_MAX > TTJ_DATA_MAX);
QEMU_BUILD_BUG_ON(TT_HEAD_MAX > TTJ_DATA_MAX);

/* A huge page of most processors */
#define SLAB_BYTES (2 * MiB)

/* Where a request has enough descriptors to matter */
#define SLAB_DATA_MIN (256 * KiB)

struct TTJSlab {
    uint8_t *bytes;
    unsigned used; /* of its data */
    unsigned count;
    QLIST_ENTRY(TTJSlab) next; /* in pool */
    TTJData data[];
};

static size_t ttj_class_size(unsigned class)
{
    return (size_t)TTJ_DATA_MIN << class;
}

static bool ttj_class_has_slabs(unsigned class)
{
    return KEEPS && class < TTJ_DATA_CLASSES &&
           ttj_class_size(class) >= SLAB_DATA_MIN;
}

/* The class of @bytes, or TTJ_DATA_CLASSES: it would be mostly waste. */
static unsigned ttj_class(size_t bytes)
{
    size_t size = MAX(pow2ceil(bytes), TTJ_DATA_MIN);

    assert(bytes && bytes <= TTJ_DATA_MAX);
    return bytes > TTJ_DATA_MIN && bytes <= size / 4 * 3
               ? TTJ_DATA_CLASSES
               : ctz64(size / TTJ_DATA_MIN);
}

void ttj_pool_init(TTJPool *pool)
{
    qemu_mutex_init(&pool->lock);
    for (unsigned i = 0; i < TTJ_DATA_CLASSES; i++) {
        QLIST_INIT(&pool->kept[i]);
    }
    QLIST_INIT(&pool->slabs);
}

static void ttj_pool_add(TTJPool *pool, TTJData *data)
{
    pool->kept_bytes += ttj_class_size(data->class);
    QLIST_INSERT_HEAD(&pool->kept[data->class], data, next);
}

static void ttj_pool_remove(TTJPool *pool, TTJData *data)
{
    pool->kept_bytes -= ttj_class_size(data->class);
    QLIST_REMOVE(data, next);
}

/* ---- slabs --------------------------------------------------------------- */

/* One of which nothing is used yet, or NULL: no memory */
static TTJSlab *ttj_slab_new(TTJPool *pool, unsigned class)
{
    unsigned count = SLAB_BYTES / ttj_class_size(class);
    uint8_t *bytes = qemu_try_memalign(SLAB_BYTES, SLAB_BYTES);
    TTJSlab *slab;

    if (!bytes) {
        return NULL;
    }
    /* it does as well without */
    qemu_madvise(bytes, SLAB_BYTES, QEMU_MADV_HUGEPAGE);
    slab = g_malloc0(sizeof(*slab) + count * sizeof(slab->data[0]));
    slab->bytes = bytes;
    slab->count = count;
    for (unsigned i = 0; i < count; i++) {
        slab->data[i] = (TTJData){
            .class = class,
            .pool = pool,
            .slab = slab,
            .bytes = bytes + i * ttj_class_size(class),
        };
    }
    return slab;
}

/* Takes one that nobody uses out of @pool, and frees it. */
static void ttj_slab_free(TTJPool *pool, TTJSlab *slab)
{
    assert(!slab->used);
    for (unsigned i = 0; i < slab->count; i++) {
        ttj_pool_remove(pool, &slab->data[i]);
    }
    QLIST_REMOVE(slab, next);
    qemu_vfree(slab->bytes);
    g_free(slab);
}

static TTJData *ttj_data_of_new_slab(TTJPool *pool, unsigned class)
{
    TTJSlab *slab = ttj_slab_new(pool, class);

    if (!slab) {
        return NULL;
    }
    QEMU_LOCK_GUARD(&pool->lock);
    QLIST_INSERT_HEAD(&pool->slabs, slab, next);
    for (unsigned i = 1; i < slab->count; i++) {
        ttj_pool_add(pool, &slab->data[i]);
    }
    slab->used = 1;
    return &slab->data[0];
}

/* ---- the pool ------------------------------------------------------------ */

static void ttj_data_free(TTJData *data)
{
    qemu_vfree(data->bytes);
    g_free(data);
}

/* One that was kept, or NULL */
static TTJData *ttj_pool_get(TTJPool *pool, unsigned class)
{
    TTJData *data;

    if (class == TTJ_DATA_CLASSES) {
        return NULL;
    }
    QEMU_LOCK_GUARD(&pool->lock);
    data = QLIST_FIRST(&pool->kept[class]);
    if (data) {
        ttj_pool_remove(pool, data);
        if (data->slab) {
            data->slab->used++;
        }
    }
    return data;
}

/* Keeps @data or frees it: a slab's goes when all of it is free. */
static void ttj_pool_put(TTJPool *pool, TTJData *data)
{
    TTJSlab *slab = data->slab;

    WITH_QEMU_LOCK_GUARD(&pool->lock) {
        bool keep =
            KEEPS && data->class < TTJ_DATA_CLASSES &&
            pool->kept_bytes + ttj_class_size(data->class) <= TTJ_POOL_MAX;

        if (keep || slab) {
            ttj_pool_add(pool, data);
            if (slab && --slab->used == 0 && !keep) {
                ttj_slab_free(pool, slab);
            }
            return;
        }
    }
    ttj_data_free(data);
}

void ttj_pool_trim(TTJPool *pool)
{
    TTJSlab *slab, *next;

    for (unsigned i = 0; i < TTJ_DATA_CLASSES; i++) {
        TTJData *data;

        while (!ttj_class_has_slabs(i) && (data = ttj_pool_get(pool, i))) {
            ttj_data_free(data);
        }
    }
    QEMU_LOCK_GUARD(&pool->lock);
    QLIST_FOREACH_SAFE(slab, &pool->slabs, next, next) {
        if (!slab->used) {
            ttj_slab_free(pool, slab);
        }
    }
}

void ttj_pool_destroy(TTJPool *pool)
{
    ttj_pool_trim(pool);
    assert(!pool->kept_bytes);
    qemu_mutex_destroy(&pool->lock);
}

/* ---- bytes that several own ---------------------------------------------- */

TTJData *ttj_data_new(BlockDriverState *bs, size_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    unsigned class = ttj_class(bytes);
    TTJData *data = ttj_pool_get(&s->pool, class);
    uint8_t *p;

    if (!data && ttj_class_has_slabs(class)) {
        data = ttj_data_of_new_slab(&s->pool, class);
        if (!data) {
            return NULL;
        }
    }
    if (data) {
        data->refs = 1;
        return data;
    }
    bytes = class == TTJ_DATA_CLASSES ? bytes : ttj_class_size(class);
    p = qemu_try_memalign(qemu_real_host_page_size(), bytes);
    if (!p) {
        return NULL;
    }
    data = g_new(TTJData, 1);
    *data = (TTJData){
        .refs = 1,
        .class = class,
        .pool = &s->pool,
        .bytes = p,
    };
    return data;
}

TTJData *ttj_data_ref(TTJData *data)
{
    if (data) {
        qatomic_inc(&data->refs);
    }
    return data;
}

void ttj_data_unref(TTJData *data)
{
    if (data && qatomic_fetch_dec(&data->refs) == 1) {
        ttj_pool_put(data->pool, data);
    }
}
