/*
 * How much of the disk has a version?
 *
 * The writer keeps account of what it has captured, in the CHECKPOINTs' maps;
 * that account, and what would be redone, tells without a look at each version.
 * It says other than the versions do only
 *
 *   - in ranges of GAPs, which need no capture and may have no version;
 *   - in a block that an end of the disk once cut: what a RESIZE adds is a
 *     version from the old end on, and the account knows whole blocks;
 *   - anywhere, while a GAP is open or where records were missing: then all
 *     blocks count as captured, whatever they hold.
 *
 * There the versions themselves are asked, nowhere else.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>

#include "look.h"

/* Adds the bytes of [from, to) that have a version. */
static int count_versions(const struct tt_history *h, struct look_memo *memo,
                          uint64_t from, uint64_t to, uint64_t *bytes,
                          struct tt_error *err)
{
    for (uint64_t at = from; at < to;) {
        struct look v, p;
        uint64_t end;
        int ret = tt_look_newest(h, at, UINT64_MAX, memo, &v, err);

        if (ret == 0) {
            ret = tt_look_preimage(h, at, memo, &p, err);
        }
        if (ret < 0) {
            return ret;
        }
        end = v.end < p.end ? v.end : p.end;
        end = end < to ? end : to;
        if (v.found || p.found) {
            *bytes += end - at;
        }
        at = end;
    }
    return 0;
}

int tt_history_captured(const struct tt_history *h, uint64_t *ret_bytes,
                        struct tt_error *err)
{
    struct look_memo memo;
    int ret;

    *ret_bytes = 0;
    tt_look_begin(h, &memo);
    ret = count_versions(h, &memo, 0, tt_history_disk_size(h, UINT64_MAX),
                         ret_bytes, err);
    tt_look_end(&memo);
    return ret;
}

/* ---- where the account does not tell ----------------------------------- */

struct unsure {
    struct tt_blocks *blocks;
    uint64_t size; /* of the disk: all of them lie below */
    bool failed;   /* no memory */
};

static void add_unsure(struct unsure *u, uint64_t offset, uint64_t length)
{
    if (offset < u->size &&
        !tt_blocks_add(u->blocks, offset,
                       length < u->size - offset ? length : u->size - offset)) {
        u->failed = true;
    }
}

static void add_doubt(void *opaque, const struct version *v, uint64_t length)
{
    add_unsure(opaque, v->start, length);
}

/* While somebody records, @r may have read more: no GAP or RESIZE, though? */
static bool is_same_history(const struct tt_history *h,
                            const struct tt_recovery *r)
{
    const struct tt_scan *x = &h->scan, *y = &r->scan;

    return x->last_seq == y->last_seq ||
           (!x->empty && x->notable_offset == y->notable_offset &&
            x->disk_size == y->disk_size);
}

static bool is_account_kept(const struct tt_history *h,
                            const struct tt_recovery *r)
{
    return !h->damages_count && !h->stats.damages && !r->damage_count &&
           !r->open_gap && is_same_history(h, r);
}

static struct tt_blocks *find_unsure(const struct tt_history *h,
                                     const struct tt_recovery *r)
{
    struct unsure u = { .blocks = tt_blocks_new(TT_GRID),
                        .size = tt_history_disk_size(h, UINT64_MAX) };

    if (!u.blocks) {
        return NULL;
    }
    if (!is_account_kept(h, r)) {
        add_unsure(&u, 0, u.size);
    }
    tt_index_each(&h->doubts, add_doubt, &u);
    for (size_t i = 0; i < h->sizes_count; i++) {
        uint64_t cut = h->sizes[i].size % TT_GRID;

        if (cut) {
            add_unsure(&u, h->sizes[i].size - cut, TT_GRID);
        }
    }
    if (u.failed) {
        tt_blocks_free(u.blocks);
        return NULL;
    }
    return u.blocks;
}

/* ---- the account ------------------------------------------------------- */

/* Of [offset, end) the bytes that are in @captured, or not, and not @unsure. */
static uint64_t count_blocks(const struct tt_blocks *captured,
                             const struct tt_blocks *unsure, uint64_t offset,
                             uint64_t end, bool in)
{
    uint64_t bytes = 0;

    for (uint64_t at = offset, run; at < end; at += run) {
        bool asked = tt_blocks_test(unsure, at, end - at, &run);

        if (!asked) {
            bytes += tt_blocks_test(captured, at, run, &run) == in ? run : 0;
        }
    }
    return bytes;
}

int tt_recovery_captured(const struct tt_recovery *r,
                         const struct tt_history *h, uint64_t *ret_bytes,
                         struct tt_error *err)
{
    uint64_t size = tt_history_disk_size(h, UINT64_MAX);
    struct tt_blocks *unsure = find_unsure(h, r);
    struct look_memo memo;
    int ret = 0;

    if (!unsure) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    *ret_bytes = count_blocks(r->captured, unsure, 0, size, true);
    /* what is pending has a version, and is captured when it is written back */
    for (size_t i = 0; i < r->redo_count; i++) {
        const struct tt_redo *d = &r->redos[i];
        uint64_t end = d->disk_offset + d->disk_length;

        *ret_bytes += count_blocks(r->captured, unsure, d->disk_offset,
                                   end < size ? end : size, false);
    }
    tt_look_begin(h, &memo);
    for (uint64_t at = 0, run; ret == 0; at += run) {
        at = tt_blocks_next(unsure, at);
        if (at >= size) {
            break;
        }
        tt_blocks_test(unsure, at, size - at, &run);
        ret = count_versions(h, &memo, at, at + run, ret_bytes, err);
    }
    tt_look_end(&memo);
    tt_blocks_free(unsure);
    return ret;
}
