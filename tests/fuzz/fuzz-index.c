/*
 * Fuzzing an index of a journal that is whole
 *
 * An input is an index (indexes.h).  As long as each catalog and each page
 * that passes for one is one that was written, by any of the indexes of this
 * journal or of one that began as it did, what is then said of the journal is
 * what a history without an index says, or -TT_EINDEX.  Once a checksum was
 * made to fit something else, answers have to make sense, and nothing more.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>

#include "../../journal/run.h"
#include "indexes.h"
#include "views.h"

static struct fuzz_base base, fork_base;
static struct tt_source source;
static struct tt_history *truth; /* without an index */
static struct simindex written[2 * FUZZ_INDEXES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct tt_source src;

    (void)argc;
    (void)argv;
    fuzz_base_make(&base, FUZZ_LONG);
    fuzz_base_make(&fork_base, FUZZ_FORK);
    source = fuzz_source(&base.image);
    truth = tt_history_new();
    FUZZ_CHECK(truth && tt_history_load(truth, &source, NULL) == 0);
    fuzz_index_make(written, &source);
    src = fuzz_source(&fork_base.image);
    fuzz_index_make(written + FUZZ_INDEXES, &src);
    return 0;
}

/* ---- was it written so? ------------------------------------------------ */

static bool catalog_was_written(const struct fuzz_index *in)
{
    for (size_t i = 0; i < 2 * FUZZ_INDEXES; i++) {
        if (in->catalog_length == written[i].catalog_length &&
            !memcmp(in->catalog, written[i].catalog, in->catalog_length)) {
            return true;
        }
    }
    return false;
}

static bool page_was_written(const uint8_t *id, uint64_t page,
                             const uint8_t *bytes)
{
    for (size_t i = 0; i < 2 * FUZZ_INDEXES; i++) {
        for (size_t k = 0; k < written[i].count; k++) {
            const struct si_file *f = written[i].files[k];

            if (!memcmp(f->id, id, 16) && (page + 1) * TT_PAGE <= f->length &&
                !memcmp(f->bytes + page * TT_PAGE, bytes, TT_PAGE)) {
                return true;
            }
        }
    }
    return false;
}

/*
 * What a page's checksum has to be.  Said here anew, for the library is what
 * is tested.
 */
static uint64_t page_sum(const uint8_t *id, uint64_t number,
                         const uint8_t *page)
{
    tt_le64 seed;

    memcpy(&seed, id, sizeof(seed));
    return tt_checksum(page + 8, TT_PAGE - 8) ^ (tt_get64(seed) + number);
}

static bool sum_fits(const uint8_t *at, uint64_t sum)
{
    tt_le64 v;

    memcpy(&v, at, sizeof(v));
    return tt_get64(v) == sum;
}

/* A checksum was made to fit what was never written. */
static bool page_is_forged(const uint8_t *id, uint64_t number,
                           const uint8_t *page)
{
    return sum_fits(page, page_sum(id, number, page)) &&
           !page_was_written(id, number, page);
}

static bool catalog_is_forged(const struct fuzz_index *in)
{
    return in->catalog_length >= 8 &&
           sum_fits(in->catalog,
                    tt_checksum(in->catalog + 8, in->catalog_length - 8)) &&
           !catalog_was_written(in);
}

/* ---- pages ------------------------------------------------------------- */

/* A run's file, as long as it is open */
struct file {
    const struct fuzz_run *run;
    struct tt_run_info info;
    bool *forged, *refused; /* of all files: a page was met that … */
    unsigned held; /* a look-up goes on holding leaves that it has met */
};

static int page_get(void *opaque, uint64_t page, const void **ret_page,
                    void **ret_pin)
{
    struct file *f = opaque;
    uint8_t *copy;

    if (page >= f->run->length / TT_PAGE) {
        *f->refused = true;
        return -EIO;
    }
    /* a page of its own, so that a look beyond is seen */
    copy = fuzz_alloc(TT_PAGE);
    memcpy(copy, f->run->bytes + page * TT_PAGE, TT_PAGE);
    if (!tt_run_page_ok(&f->info, page, copy)) {
        free(copy);
        *f->refused = true;
        return -EBADMSG;
    }
    *f->forged |= page_is_forged(f->info.id, page, copy);
    f->held++;
    *ret_page = copy;
    *ret_pin = copy;
    return 0;
}

static void page_put(void *opaque, void *pin)
{
    struct file *f = opaque;

    FUZZ_CHECK(f->held);
    f->held--;
    free(pin);
}

/* ---- an index that is open --------------------------------------------- */

struct opened {
    struct file files[FUZZ_RUNS];
    struct tt_run *runs[FUZZ_RUNS];
    size_t count;
    bool forged, refused;
};

static const struct fuzz_run *run_of(const struct fuzz_index *in,
                                     const struct tt_run_info *info)
{
    for (size_t i = 0; i < in->run_count; i++) {
        if (!memcmp(in->runs[i].id, info->id, sizeof(info->id))) {
            return &in->runs[i];
        }
    }
    return NULL;
}

/* 0, or a negative code: the index is to be forgotten. */
static int open_runs(struct opened *o, const struct fuzz_index *in,
                     const struct tt_catalog *c)
{
    size_t count;
    const struct tt_run_info *info = tt_catalog_runs(c, &count);

    for (size_t i = 0; i < count; i++) {
        const struct fuzz_run *run = run_of(in, &info[i]);
        struct file *f = &o->files[i];
        struct tt_error err = { 0 };
        int ret;

        if (!run || i >= FUZZ_RUNS) {
            o->refused = true;
            return -TT_EINDEX;
        }
        *f = (struct file){ run, info[i], &o->forged, &o->refused, 0 };
        ret = fuzz_told(tt_run_open(&info[i],
                                    &(struct tt_pages){ page_get, page_put, f },
                                    &o->runs[i], &err),
                        &err);
        if (ret < 0) {
            FUZZ_CHECK(ret == -TT_EINDEX);
            FUZZ_CHECK(o->forged || o->refused);
            return ret;
        }
        o->count++;
    }
    return 0;
}

static void close_runs(struct opened *o)
{
    for (size_t i = 0; i < o->count; i++) {
        tt_run_close(o->runs[i]);
        FUZZ_CHECK(!o->files[i].held);
    }
}

/* ---- what it says ------------------------------------------------------ */

/*
 * The pages that a look-up will meet are not known before: so all that there
 * are count.
 */
static bool is_forged(const struct opened *o)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct fuzz_run *run = o->files[i].run;

        for (uint64_t page = 0; page < run->length / TT_PAGE; page++) {
            if (page_is_forged(run->id, page, run->bytes + page * TT_PAGE)) {
                return true;
            }
        }
    }
    return false;
}

static void check_times(const struct opened *o, const struct tt_history *h,
                        bool forged)
{
    uint64_t last = tt_history_end(h)->last_seq;

    for (uint64_t i = 0; i <= 16; i++) {
        uint64_t seq = last / 16 * i;
        int64_t a = 0, b = 0;

        if (!tt_history_time(h, seq, &a)) {
            /* a page may be met here for the first time */
            FUZZ_CHECK(forged || o->refused || !seq);
        } else if (!forged) {
            FUZZ_CHECK(tt_history_time(truth, seq, &b) && a == b);
        }
    }
}

static void check_history(struct opened *o, const struct tt_catalog *c,
                          bool forged)
{
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    struct tt_extent recent[8];
    size_t count;
    int ret;

    FUZZ_CHECK(h);
    ret = fuzz_told(tt_history_open(h, &source, c, o->runs, o->count, &err),
                    &err);
    if (ret == 0) {
        struct fuzz_views v = { .h = h, .src = &source, .index = true };

        if (!forged) {
            FUZZ_CHECK(tt_history_end(h)->last_seq ==
                       tt_history_end(truth)->last_seq);
            v.truth = &base;
            v.same = truth;
            v.whole = true;
        }
        fuzz_check_views(&v);
        check_times(o, h, forged);
        fuzz_told(tt_history_recent(h, UINT64_MAX, recent, 8, &count, &err),
                  &err);
    } else {
        FUZZ_CHECK(ret == -TT_EINDEX || forged);
    }
    tt_history_free(h);
}

static int sink_write(void *opaque, uint64_t offset, const void *buf,
                      size_t length)
{
    uint64_t *written_bytes = opaque;

    FUZZ_CHECK(buf && offset % TT_PAGE == 0 && length % TT_PAGE == 0);
    *written_bytes += length;
    return 0;
}

static void check_merge(struct opened *o)
{
    static const uint8_t id[16] = { 1 };
    uint64_t bytes = 0;
    const struct tt_sink sink = { sink_write, &bytes };
    struct tt_error err = { 0 };
    struct tt_run_info info;

    if (o->count < 2) {
        return;
    }
    if (fuzz_told(tt_run_merge(o->runs, o->count, id, &sink, &info, &err),
                  &err) == 0) {
        FUZZ_CHECK(info.pages == bytes / TT_PAGE);
    } else {
        FUZZ_CHECK(err.code == TT_EINDEX && (o->forged || o->refused));
    }
}

/* The builder goes on from any catalog. */
static void check_builder(struct tt_catalog *c)
{
    struct tt_builder *b = tt_builder_new(c, &source, TT_MIB);
    struct tt_error err = { 0 };
    int ret;

    FUZZ_CHECK(b);
    do {
        ret = fuzz_told(tt_builder_fill(b, &err), &err);
    } while (ret > 0);
    tt_builder_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_alloc(size), *exact;
    struct fuzz_index in;
    struct tt_catalog *c;
    struct tt_error err = { 0 };
    struct opened o = { 0 };

    memcpy(copy, data, size);
    fuzz_index_parse(copy, size, &in);
    exact = fuzz_alloc(in.catalog_length);
    memcpy(exact, in.catalog, in.catalog_length);
    if (fuzz_told(tt_catalog_decode(exact, in.catalog_length, &base.sw.super,
                                    &c, &err),
                  &err) == 0) {
        o.forged = catalog_is_forged(&in);
        FUZZ_CHECK(o.forged || catalog_was_written(&in));
        FUZZ_CHECK(tt_catalog_check(c, &source, &err) == 0 ||
                   err.code == TT_EINDEX);
        if (open_runs(&o, &in, c) == 0) {
            check_history(&o, c, o.forged || is_forged(&o));
            check_merge(&o);
        }
        close_runs(&o);
        check_builder(c); /* which owns it */
    } else {
        FUZZ_CHECK(!catalog_was_written(&in));
    }
    free(exact);
    free(copy);
    return 0;
}

/* ---- mutations --------------------------------------------------------- */

#define CATALOG_RUNS 88u /* where the runs begin: see catalog.c */
#define CATALOG_RUN 64u

static void put_sum(uint8_t *at, uint64_t sum)
{
    const tt_le64 v = tt_put64(sum);

    memcpy(at, &v, sizeof(v));
}

/* The catalog says of each run what its header is. */
static void reseal_catalog(struct fuzz_index *in)
{
    uint8_t *c = in->catalog;
    size_t length = in->catalog_length;

    for (size_t at = CATALOG_RUNS; at + CATALOG_RUN <= length;
         at += CATALOG_RUN) {
        for (size_t i = 0; i < in->run_count; i++) {
            if (!memcmp(in->runs[i].id, c + at, 16) &&
                in->runs[i].length >= TT_PAGE) {
                memcpy(c + at + CATALOG_RUN - 8, in->runs[i].bytes, 8);
            }
        }
    }
    if (length >= 8) {
        put_sum(c, tt_checksum(c + 8, length - 8));
    }
}

static void reseal(struct fuzz_index *in)
{
    for (size_t i = 0; i < in->run_count; i++) {
        struct fuzz_run *run = &in->runs[i];

        for (size_t p = 0; p < run->length / TT_PAGE; p++) {
            uint8_t *page = run->bytes + p * TT_PAGE;

            put_sum(page, page_sum(run->id, p, page));
        }
    }
    reseal_catalog(in);
}

static void mutate_run(struct fuzz_random *r, struct fuzz_run *run)
{
    size_t pages = run->length / TT_PAGE;
    uint8_t *page, *other;

    if (!pages) {
        return;
    }
    page = run->bytes + fuzz_below(r, pages) * TT_PAGE;
    other = run->bytes + fuzz_below(r, pages) * TT_PAGE;
    switch (fuzz_below(r, 6)) {
    case 0:
        memmove(page, other, TT_PAGE);
        break;
    case 1:
        fuzz_mutate_part(r, run->bytes, sizeof(struct run_head));
        break;
    case 2:
    case 3:
        fuzz_mutate_part(r, page + 8, sizeof(struct run_page_head) - 8);
        break;
    default:
        fuzz_mutate_part(r, page + sizeof(struct run_page_head), 256);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room,
                               unsigned seed)
{
    struct fuzz_random r = { seed };
    uint64_t times = 1 + fuzz_below(&r, 3);
    struct fuzz_index in;

    if (fuzz_below(&r, 16) == 0) {
        size = LLVMFuzzerMutate(data, size, room);
    }
    fuzz_index_parse(data, size, &in);
    while (times--) {
        if (!in.run_count || fuzz_below(&r, 4) == 0) {
            size_t skip =
                in.catalog_length ? fuzz_below(&r, in.catalog_length) : 0;
            size_t left = in.catalog_length - skip;

            fuzz_mutate_part(&r, in.catalog + skip, left < 64 ? left : 64);
        } else {
            mutate_run(&r, &in.runs[fuzz_below(&r, in.run_count)]);
        }
    }
    if (fuzz_below(&r, 4)) {
        reseal(&in);
    }
    return size;
}
