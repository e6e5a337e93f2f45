/*
 * Comparing a disk at rest with the newest state that its journal knows
 *
 * Three kinds of ranges: those with a version, which is compared; those whose
 * contents the journal cannot tell (damage, a gap), where only the disk knows;
 * and those that were never overwritten, which are on the disk alone, so that
 * whatever is there has to be taken for what always was there.
 *
 * Windows of the disk are looked up, then read, then compared.  A look-up that
 * meets a damaged index is made again without it.  Memory does not grow with
 * the history: one window, and sets of what was found.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "reader-int.h"

#define WINDOW (256 * TT_KIB)
#define SPANS (WINDOW / TT_SECTOR)

/* A part of a window with one version, to be compared. */
struct span {
    uint64_t offset, length, seq;
};

struct window {
    uint64_t at, end; /* looked up so far */
    struct span spans[SPANS];
    size_t count;
};

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

static bool is_zero(const uint8_t *p, size_t length)
{
    return p[0] == 0 && memcmp(p, p + 1, length - 1) == 0;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- looking up -------------------------------------------------------- */

/*
 * The first run of [at, end), and whether it is in doubt; a run of which a part
 * only is in doubt ends with a block.
 */
static int next_run(struct tt_compare *c, uint64_t at, uint64_t end,
                    struct tt_extent *ret, bool *ret_doubt,
                    struct tt_error *err)
{
    uint64_t generation;
    int r;

    do {
        const struct tt_history *h = tt_reader_lock(c->reader);

        generation = atomic_load(&c->reader->generation);
        *ret_doubt = false;
        r = tt_view_run(h, c->view->moment.seq, at, end - at, ret, err);
        if (r == 0 &&
            (ret->kind == TT_EXTENT_JOURNAL || ret->kind == TT_EXTENT_ZERO) &&
            tt_view_in_doubt(h, ret->seq, at, ret->length)) {
            ret->length = min_u64(ret->length, TT_GRID - at % TT_GRID);
            *ret_doubt = tt_view_in_doubt(h, ret->seq, at, ret->length);
        }
        tt_reader_unlock(c->reader);
    } while (tt_reader_mended(c->reader, generation, r));
    return tt_reader_named(c->reader, r, err);
}

static int add_unknown(struct tt_compare *c, uint64_t offset, uint64_t length,
                       struct tt_error *err)
{
    c->unknown_bytes += length;
    return tt_blocks_add(c->unknown, offset, length) ? 0 : out_of_memory(err);
}

/*
 * Looks up [at, end), or less of it: what has to be read and compared goes to
 * @w, all else is counted.
 */
static int look_up(struct tt_compare *c, struct window *w, uint64_t at,
                   uint64_t end, struct tt_error *err)
{
    uint64_t stop = end;
    int ret = 0;

    *w = (struct window){ .at = at, .end = at };
    while (ret == 0 && w->end < stop && w->count < SPANS) {
        struct tt_extent ext;
        bool doubt;

        ret = next_run(c, w->end, stop, &ext, &doubt, err);
        if (ret < 0) {
            break;
        }
        if (ext.kind == TT_EXTENT_DISK) {
            c->uncompared += ext.length;
        } else if (ext.kind == TT_EXTENT_DAMAGED || doubt) {
            ret = add_unknown(c, w->end, ext.length, err);
        } else if (ext.kind == TT_EXTENT_ZERO &&
                   tt_pair_hole(c->pair, w->end, ext.length) == ext.length) {
            c->compared += ext.length;
        } else {
            /* from the first span on, a window has so many bytes */
            stop = min_u64(stop,
                           (w->count ? w->spans[0].offset : w->end) + WINDOW);
            ext.length = min_u64(ext.length, stop - w->end);
            w->spans[w->count++] =
                (struct span){ w->end, ext.length, ext.record_seq };
        }
        w->end += ext.length;
    }
    return ret;
}

/* ---- comparing --------------------------------------------------------- */

static int differs(struct tt_compare *c, const struct span *s, uint64_t offset,
                   uint64_t length, struct tt_error *err)
{
    c->differing += length;
    c->oldest = min_u64(c->oldest, s->seq);
    return tt_blocks_add(c->differ, offset, length) ? 0 : out_of_memory(err);
}

/* @ours and @theirs are what [offset, offset + length) of @s holds. */
static int compare(struct tt_compare *c, const struct span *s, uint64_t offset,
                   uint64_t length, const uint8_t *ours, const uint8_t *theirs,
                   struct tt_error *err)
{
    int ret = 0;

    c->compared += length;
    if (memcmp(ours, theirs, length) == 0) {
        return 0;
    }
    for (uint64_t at = 0; at < length && ret == 0; at += TT_SECTOR) {
        if (memcmp(ours + at, theirs + at, TT_SECTOR) != 0) {
            ret = differs(c, s, offset + at, TT_SECTOR, err);
        }
    }
    return ret;
}

/* Block by block, for some of them cannot be read from the journal. */
static int compare_blocks(struct tt_compare *c, const struct span *s,
                          const uint8_t *theirs, struct tt_error *err)
{
    uint64_t end = s->offset + s->length, next;
    uint8_t ours[TT_GRID];
    int ret = 0;

    for (uint64_t at = s->offset; at < end && ret == 0; at = next) {
        struct tt_error read_err;

        next = min_u64(at - at % TT_GRID + TT_GRID, end);
        ret =
            tt_reader_read(c->reader, c->view, at, ours, next - at, &read_err);
        if (ret == -TT_EDAMAGED) {
            ret = add_unknown(c, at, next - at, err);
        } else if (ret < 0) {
            if (err != NULL) {
                *err = read_err;
            }
        } else {
            ret = compare(c, s, at, next - at, ours, theirs + (at - s->offset),
                          err);
        }
    }
    return ret;
}

/* Compares @count spans that lie side by side. */
static int compare_spans(struct tt_compare *c, const struct span *s,
                         size_t count, struct tt_error *err)
{
    uint64_t from = s->offset;
    size_t length = s[count - 1].offset + s[count - 1].length - from;
    struct tt_error read_err;
    int ret = tt_pair_read(c->pair, from, c->theirs, length, err), read;

    if (ret < 0) {
        return ret;
    }
    read = tt_reader_read(c->reader, c->view, from, c->ours, length, &read_err);
    if (read < 0 && read != -TT_EDAMAGED) {
        if (err != NULL) {
            *err = read_err;
        }
        return read;
    }
    for (size_t i = 0; i < count && ret == 0; i++) {
        uint64_t at = s[i].offset - from;

        ret = read < 0 ? compare_blocks(c, &s[i], c->theirs + at, err)
                       : compare(c, &s[i], s[i].offset, s[i].length,
                                 c->ours + at, c->theirs + at, err);
    }
    return ret;
}

static int compare_window(struct tt_compare *c, const struct window *w,
                          struct tt_error *err)
{
    int ret = 0;

    for (size_t i = 0, n; i < w->count && ret == 0; i += n) {
        n = 1;
        while (i + n < w->count &&
               w->spans[i + n].offset ==
                   w->spans[i + n - 1].offset + w->spans[i + n - 1].length) {
            n++;
        }
        ret = compare_spans(c, &w->spans[i], n, err);
    }
    return ret;
}

/* ---- another size ------------------------------------------------------ */

/*
 * What the disk has gained would be zero if it had been recorded.  If it is
 * not, all of it is to be recorded, for one range says where.
 */
static int look_at_growth(struct tt_compare *c, uint64_t from, uint64_t to,
                          struct tt_error *err)
{
    bool zero = true;
    int ret = 0;

    for (uint64_t at = from, length; at < to && ret == 0; at += length) {
        length = tt_pair_hole(c->pair, at, to - at);
        if (length > 0) {
            continue;
        }
        length = min_u64(TT_GRID - at % TT_GRID, to - at);
        ret = tt_pair_read(c->pair, at, c->theirs, length, err);
        if (ret == 0 && !is_zero(c->theirs, length)) {
            c->differing += length;
            zero = false;
        }
        c->progress(c->opaque, at, to);
    }
    return ret == 0 && !zero && !tt_blocks_add(c->grown, from, to - from)
               ? out_of_memory(err)
               : ret;
}

/* What was cut off and never captured is gone. */
static int look_at_shrink(struct tt_compare *c, uint64_t from, uint64_t to,
                          struct tt_error *err)
{
    for (uint64_t at = from, run; at < to; at += run) {
        if (!tt_blocks_test(c->pair->a->recovery.captured, at, to - at, &run)) {
            c->lost_bytes += run;
            if (!tt_blocks_add(c->lost, at, run)) {
                return out_of_memory(err);
            }
        }
    }
    return 0;
}

/* ---- all of it --------------------------------------------------------- */

static int begin(struct tt_compare *c, struct tt_error *err)
{
    c->oldest = UINT64_MAX;
    c->differ = tt_blocks_new(TT_GRID);
    c->unknown = tt_blocks_new(TT_GRID);
    c->grown = tt_blocks_new(TT_GRID);
    c->lost = tt_blocks_new(TT_SECTOR);
    c->ours = malloc(WINDOW);
    c->theirs = malloc(WINDOW);
    return c->differ && c->unknown && c->grown && c->lost && c->ours &&
                   c->theirs
               ? 0
               : out_of_memory(err);
}

int tt_compare_run(struct tt_compare *c, struct tt_error *err)
{
    uint64_t old = c->view->size, size = tt_pair_disk_size(c->pair);
    uint64_t end = min_u64(old, size);
    struct window w;
    int ret = begin(c, err);

    for (uint64_t at = 0; at < end && ret == 0; at = w.end) {
        ret = look_up(c, &w, at, end, err);
        if (ret == 0) {
            ret = compare_window(c, &w, err);
        }
        c->progress(c->opaque, w.end, size > old ? size : end);
    }
    if (ret == 0 && size > old) {
        ret = look_at_growth(c, old, size, err);
    } else if (ret == 0) {
        ret = look_at_shrink(c, size, old, err);
    }
    return ret;
}

void tt_compare_clear(struct tt_compare *c)
{
    tt_blocks_free(c->differ);
    tt_blocks_free(c->unknown);
    tt_blocks_free(c->grown);
    tt_blocks_free(c->lost);
    free(c->ours);
    free(c->theirs);
    memset(c, 0, sizeof(*c));
}
