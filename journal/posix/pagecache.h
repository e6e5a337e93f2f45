/*
 * Pages of files, checked once and shared by all views and threads
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_PAGECACHE_H
#define TTJOURNAL_POSIX_PAGECACHE_H

#include <ttjournal/ttjournal.h>

struct tt_pagecache;
struct tt_page; /* a page that stays where it is until it is put back */

/*
 * Reads page @page of @opaque's file to @buf and checks it; negative (with
 * *err filled) keeps it out of the cache.  Called with no lock held.
 */
typedef int tt_page_fill(void *opaque, uint64_t page, uint8_t *buf,
                         struct tt_error *err);

/* Keeps at most @bytes of pages of @page_size each, but for those in use. */
struct tt_pagecache *tt_pagecache_new(size_t page_size, size_t bytes);
void tt_pagecache_free(struct tt_pagecache *pc); /* no page is in use */

/*
 * The one that all of this process share, made by the first who asks for it;
 * freed when all who asked have put it back.  NULL: out of memory.
 */
struct tt_pagecache *tt_pagecache_shared(size_t page_size, size_t bytes);
void tt_pagecache_shared_put(void);

/* A number for a file that no other file of this cache ever had. */
uint64_t tt_pagecache_new_file(struct tt_pagecache *pc);
/* Forgets all of @file's pages; none is in use. */
void tt_pagecache_drop_file(struct tt_pagecache *pc, uint64_t file);

/*
 * The page @page of @file, filled by @fill if it is not there yet.  The bytes
 * behind tt_page_bytes() do not change before tt_pagecache_put().
 */
int tt_pagecache_get(struct tt_pagecache *pc, uint64_t file, uint64_t page,
                     tt_page_fill *fill, void *opaque, struct tt_page **ret,
                     struct tt_error *err);
const uint8_t *tt_page_bytes(const struct tt_page *p);
void tt_pagecache_put(struct tt_pagecache *pc, struct tt_page *p);

struct tt_pagecache_stats {
    uint64_t hits, misses;
    size_t bytes; /* of pages now */
};
void tt_pagecache_stats(struct tt_pagecache *pc,
                        struct tt_pagecache_stats *ret_stats);

#endif
