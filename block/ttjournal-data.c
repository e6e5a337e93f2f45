/*
 * ttjournal filter driver: the bytes of writes
 *
 * A write is copied once, and the copy is shared by the frame that is to be
 * durable and by the version that is to reach the disk.  Copies come and go as
 * fast as the guest writes, and a fresh page costs more than to hash it.  So
 * some that were freed are kept for the next, each with the size of a power of
 * two; what would waste much of that is allocated as it is, and not kept.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/memalign.h"

#include "ttjournal-int.h"

#ifdef __SANITIZE_ADDRESS__
#define KEEPS false /* so that it is seen who uses what was freed */
#else
#define KEEPS true
#endif

QEMU_BUILD_BUG_ON(TT_PAYLOAD_RECORD_MAX > TTJ_DATA_MAX);
QEMU_BUILD_BUG_ON(TT_HEAD_MAX > TTJ_DATA_MAX);

static size_t ttj_class_size(unsigned class)
{
    return (size_t)TTJ_DATA_MIN << class;
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
        QSLIST_INIT(&pool->kept[i]);
    }
}

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
    qemu_mutex_lock(&pool->lock);
    data = QSLIST_FIRST(&pool->kept[class]);
    if (data) {
        QSLIST_REMOVE_HEAD(&pool->kept[class], next);
        pool->kept_bytes -= ttj_class_size(class);
    }
    qemu_mutex_unlock(&pool->lock);
    return data;
}

static bool ttj_pool_put(TTJPool *pool, TTJData *data)
{
    size_t size = ttj_class_size(data->class);
    bool keep;

    if (!KEEPS || data->class == TTJ_DATA_CLASSES) {
        return false;
    }
    qemu_mutex_lock(&pool->lock);
    keep = pool->kept_bytes + size <= TTJ_POOL_MAX;
    if (keep) {
        pool->kept_bytes += size;
        QSLIST_INSERT_HEAD(&pool->kept[data->class], data, next);
    }
    qemu_mutex_unlock(&pool->lock);
    return keep;
}

void ttj_pool_trim(TTJPool *pool)
{
    for (unsigned i = 0; i < TTJ_DATA_CLASSES; i++) {
        TTJData *data;

        while ((data = ttj_pool_get(pool, i))) {
            ttj_data_free(data);
        }
    }
}

void ttj_pool_destroy(TTJPool *pool)
{
    ttj_pool_trim(pool);
    qemu_mutex_destroy(&pool->lock);
}

TTJData *ttj_data_new(BlockDriverState *bs, size_t bytes)
{
    BDRVTtjournalState *s = bs->opaque;
    unsigned class = ttj_class(bytes);
    TTJData *data = ttj_pool_get(&s->pool, class);
    uint8_t *p;

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
    if (data && qatomic_fetch_dec(&data->refs) == 1 &&
        !ttj_pool_put(data->pool, data)) {
        ttj_data_free(data);
    }
}
