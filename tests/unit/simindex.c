/*
 * An index in memory: see simindex.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "simindex.h"

struct si_totals si_totals;

static uint64_t next_random(struct simindex *x)
{
    uint64_t z = x->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t below(struct simindex *x, uint64_t n)
{
    return next_random(x) % n;
}

void si_init(struct simindex *x, uint64_t seed)
{
    *x = (struct simindex){ .random = seed };
}

static void free_file(struct si_file *f)
{
    assert(f->pins == 0);
    free(f->bytes);
    free(f);
}

void si_clear(struct simindex *x)
{
    uint64_t random = x->random;

    assert(!x->runs);
    for (size_t i = 0; i < x->count; i++) {
        free_file(x->files[i]);
    }
    free(x->files);
    free(x->catalog);
    si_init(x, random);
}

/* ---- files ------------------------------------------------------------- */

static int sink_write(void *opaque, uint64_t offset, const void *buf,
                      size_t length)
{
    struct si_file *f = opaque;

    if (offset + length > f->room) {
        f->room = (offset + length) * 2;
        f->bytes = realloc(f->bytes, f->room);
        assert(f->bytes);
    }
    if (offset > f->length) {
        /* page 0, which comes last */
        assert(f->length == 0 && offset == TT_PAGE);
    }
    memcpy(f->bytes + offset, buf, length);
    if (f->length < offset + length) {
        f->length = offset + length;
    }
    return 0;
}

static int page_get(void *opaque, uint64_t page, const void **ret_page,
                    void **ret_pin)
{
    struct si_file *f = opaque;
    struct tt_run_info info = { 0 };
    tt_le64 sum;

    if ((page + 1) * TT_PAGE > f->length) {
        return -EIO;
    }
    memcpy(info.id, f->id, sizeof(info.id));
    memcpy(&sum, f->bytes, sizeof(sum));
    info.checksum = tt_get64(sum);
    if (!tt_run_page_ok(&info, page, f->bytes + page * TT_PAGE)) {
        return -EBADMSG;
    }
    *ret_page = f->bytes + page * TT_PAGE;
    *ret_pin = f;
    __atomic_add_fetch(&f->pins, 1, __ATOMIC_RELAXED);
    return 0;
}

static void page_put(void *opaque, void *pin)
{
    struct si_file *f = opaque;

    assert(pin == f && f->pins > 0);
    __atomic_sub_fetch(&f->pins, 1, __ATOMIC_RELAXED);
}

struct tt_pages si_pages(struct si_file *f)
{
    return (struct tt_pages){ page_get, page_put, f };
}

static struct si_file *new_file(struct simindex *x)
{
    struct si_file *f = calloc(1, sizeof(*f));

    assert(f);
    for (size_t i = 0; i < sizeof(f->id); i++) {
        f->id[i] = (uint8_t)next_random(x);
    }
    x->files = realloc(x->files, (x->count + 1) * sizeof(struct si_file *));
    assert(x->files);
    x->files[x->count++] = f;
    return f;
}

struct si_file *si_file_of(const struct simindex *x,
                           const struct tt_run_info *info)
{
    for (size_t i = 0; i < x->count; i++) {
        if (!memcmp(x->files[i]->id, info->id, sizeof(info->id))) {
            return x->files[i];
        }
    }
    return NULL;
}

/* ---- the catalog ------------------------------------------------------- */

struct tt_catalog *si_catalog(const struct simindex *x,
                              const struct tt_source *src)
{
    struct tt_catalog *c = NULL;
    struct tt_super super;

    if (tt_super_read(src, &super, NULL, NULL) < 0) {
        return NULL;
    }
    if (!x->catalog) {
        return tt_catalog_new(&super);
    }
    /* exactly its bytes, so that a look beyond them is seen */
    uint8_t *copy = malloc(x->catalog_length);

    assert(copy);
    memcpy(copy, x->catalog, x->catalog_length);
    tt_catalog_decode(copy, x->catalog_length, &super, &c, NULL);
    free(copy);
    return c;
}

static void keep_catalog(struct simindex *x, const struct tt_catalog *c)
{
    free(x->catalog);
    x->catalog = tt_catalog_encode(c, &x->catalog_length);
    assert(x->catalog);
}

static int open_runs(struct simindex *x, const struct tt_run_info *info,
                     size_t count, struct tt_run **ret_runs,
                     struct tt_error *err)
{
    for (size_t i = 0; i < count; i++) {
        struct si_file *f = si_file_of(x, &info[i]);
        struct tt_pages pages = si_pages(f);
        int ret = tt_run_open(&info[i], &pages, &ret_runs[i], err);

        if (ret < 0) {
            while (i-- > 0) {
                tt_run_close(ret_runs[i]);
            }
            return ret;
        }
    }
    return 0;
}

/* ---- extending --------------------------------------------------------- */

static int merge(struct simindex *x, struct tt_catalog *c, size_t first,
                 size_t count, struct tt_error *err)
{
    size_t all;
    const struct tt_run_info *info = tt_catalog_runs(c, &all);
    struct tt_run **runs = calloc(count, sizeof(*runs));
    struct tt_run_info merged;
    struct si_file *f = new_file(x);
    struct tt_sink sink = { sink_write, f };
    int ret;

    assert(runs && first + count <= all);
    ret = open_runs(x, info + first, count, runs, err);
    if (ret == 0) {
        ret = tt_run_merge(runs, count, f->id, &sink, &merged, err);
        for (size_t i = 0; i < count; i++) {
            tt_run_close(runs[i]);
        }
    }
    if (ret == 0) {
        tt_catalog_merged(c, first, count, &merged);
        si_totals.merges++;
    }
    free(runs);
    return ret;
}

static int merge_some(struct simindex *x, struct tt_catalog *c,
                      struct tt_error *err)
{
    size_t first, count, all;
    int ret = 0;

    while (ret == 0 && tt_merge_due(c, &first, &count)) {
        ret = merge(x, c, first, count, err);
    }
    tt_catalog_runs(c, &all);
    if (ret == 0 && all >= 2 && below(x, 3) == 0) {
        first = below(x, all - 1);
        count = 2 + below(x, all - first - 1);
        ret = merge(x, c, first, count, err);
    }
    return ret;
}

static int write_run(struct simindex *x, struct tt_builder *b,
                     struct tt_error *err)
{
    struct si_file *f = new_file(x);
    struct tt_sink sink = { sink_write, f };

    return tt_builder_write(b, f->id, &sink, err);
}

static int fill(struct simindex *x, struct tt_builder *b, bool all,
                struct tt_error *err)
{
    for (;;) {
        int ret = tt_builder_fill(b, err);

        if (ret < 0) {
            return ret;
        }
        if (tt_builder_pending(b) && (ret == 0 || below(x, 3) == 0)) {
            int r = write_run(x, b, err);

            if (r == 0) {
                r = merge_some(x, tt_builder_catalog(b), err);
            }
            if (r < 0) {
                return r;
            }
            if (!all && below(x, 4) == 0) {
                return 0;
            }
        } else if (ret == 0) {
            return 0;
        }
    }
}

/* Forgets files that no catalog names. */
static void drop_files(struct simindex *x, const struct tt_catalog *c)
{
    size_t count, kept = 0;
    const struct tt_run_info *info = tt_catalog_runs(c, &count);

    for (size_t i = 0; i < x->count; i++) {
        bool used = false;

        for (size_t k = 0; k < count; k++) {
            used |= !memcmp(x->files[i]->id, info[k].id, sizeof(info[k].id));
        }
        if (used) {
            x->files[kept++] = x->files[i];
        } else {
            free_file(x->files[i]);
        }
    }
    x->count = kept;
}

int si_extend(struct simindex *x, const struct tt_source *src, bool all,
              struct tt_error *err)
{
    struct tt_catalog *c = si_catalog(x, src);
    struct tt_builder_stats stats;
    struct tt_builder *b;
    int ret;

    if (!c) {
        return tt_fail(err, TT_EINDEX, 0, "the catalog does not fit");
    }
    b = tt_builder_new(c, src, TT_MIB << below(x, 4));
    assert(b);
    ret = fill(x, b, all, err);
    if (ret == 0) {
        tt_builder_stats(b, &stats);
        si_totals.from_footers += stats.from_footers;
        si_totals.segments += stats.segments;
        keep_catalog(x, tt_builder_catalog(b));
        drop_files(x, tt_builder_catalog(b));
    }
    tt_builder_free(b);
    return ret;
}

int si_open(struct simindex *x, struct tt_history *h,
            const struct tt_source *src, struct tt_error *err)
{
    struct tt_catalog *c = si_catalog(x, src);
    const struct tt_run_info *info;
    size_t count;
    int ret;

    if (!c) {
        return tt_fail(err, TT_EINDEX, 0, "the catalog does not fit");
    }
    info = tt_catalog_runs(c, &count);
    assert(!x->runs);
    x->runs = calloc(count + 1, sizeof(struct tt_run *));
    assert(x->runs);
    ret = open_runs(x, info, count, x->runs, err);
    x->run_count = ret == 0 ? count : 0;
    if (ret == 0) {
        ret = tt_history_open(h, src, c, x->runs, count, err);
    }
    tt_catalog_free(c);
    if (ret < 0) {
        si_close(x);
    }
    return ret;
}

void si_close(struct simindex *x)
{
    for (size_t i = 0; i < x->run_count; i++) {
        tt_run_close(x->runs[i]);
    }
    free(x->runs);
    x->runs = NULL;
    x->run_count = 0;
}
