/*
 * Recovery: which blocks need no PREIMAGE any more?
 *
 * Those of the map, which is in the CHECKPOINTs, and what was captured behind
 * the newest of them.
 *
 * Where damage may hide a PREIMAGE a block must not be captured again: what
 * it holds now is not what it held first.  Then every block counts as
 * captured, and views say that they do not know.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "recover.h"

static int no_memory(struct gather *g)
{
    return tt_fail(g->err, TT_ENOMEM, 0, "out of memory");
}

static int add_blocks(struct gather *g, struct tt_blocks *b, uint64_t offset,
                      uint64_t length)
{
    uint64_t end = g->r->scan.disk_size;

    /* what a shrink took away needs no map, and may be absurdly large */
    if (offset >= end) {
        return 0;
    }
    if (length > end - offset) {
        length = end - offset;
    }
    return tt_blocks_add(b, offset, length) ? 0 : no_memory(g);
}

static int add_map_part(struct gather *g, const uint8_t *body, uint32_t length,
                        uint64_t *ret_prev)
{
    struct tt_checkpoint_body cp;

    if (!tt_gather_checkpoint(body, length, &cp)) {
        return tt_fail(g->err, TT_EDAMAGED, 0, "damaged");
    }
    for (uint32_t i = 0; i < tt_get32(cp.range_count); i++) {
        struct tt_range range;
        int ret;

        memcpy(&range, body + sizeof(cp) + i * sizeof(range), sizeof(range));
        ret = add_blocks(g, g->r->captured, tt_get64(range.offset),
                         tt_get64(range.length));
        if (ret < 0) {
            return ret;
        }
    }
    if (tt_get32(cp.range_count)) {
        g->r->map_links++;
    }
    *ret_prev = tt_get64(cp.map_prev);
    return 0;
}

/* Follows the CHECKPOINTs from the newest; -TT_EDAMAGED: the map has a hole. */
static int load_map(struct gather *g)
{
    uint64_t at = g->checkpoint, prev;

    while (at) {
        uint32_t pos = 0, index = 0, links = g->r->map_links;
        struct tt_record rec;
        struct tt_frame f;
        int ret = tt_frame_read(g->super, g->src, at, g->head, &f, g->err);

        if (ret <= 0) {
            return ret < 0 ? ret : tt_fail(g->err, TT_EDAMAGED, 0, "damaged");
        }
        prev = at;
        while (tt_table_next(&f, g->head + HEADER, &pos, &index, &rec)) {
            const uint8_t *body;

            if (rec.kind != TT_KIND_CHECKPOINT) {
                continue;
            }
            ret = tt_gather_body(g, &f, &rec, &body);
            if (ret == 0) {
                ret = add_map_part(g, body, rec.payload_length, &prev);
            }
            if (ret < 0) {
                return ret;
            }
        }
        if (!g->r->map_prev && g->r->map_links > links) {
            g->r->map_prev = at;
        }
        if (prev >= at) {
            return tt_fail(g->err, TT_EDAMAGED, 0, "damaged");
        }
        at = prev;
    }
    return 0;
}

static int add_unmapped(struct gather *g, uint64_t offset, uint64_t length)
{
    return add_blocks(g, g->r->unmapped, offset, length);
}

static int see_captures_only(void *opaque, const struct tt_frame *f,
                             const uint8_t *table)
{
    struct gather *g = opaque;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;

    while (tt_table_next(f, table, &pos, &index, &rec)) {
        uint64_t offset, length;
        int ret = 0;

        if (rec.kind == TT_KIND_PREIMAGE) {
            ret =
                add_blocks(g, g->r->unmapped, rec.disk_offset, rec.disk_length);
        } else if (tt_gather_born(&rec, &offset, &length)) {
            ret = add_blocks(g, g->r->unmapped, offset, length);
        } else if (rec.kind == TT_KIND_DAMAGE) {
            tt_gather_damage_record(g, &rec);
        } else if (rec.kind == TT_KIND_GAP) {
            const uint8_t *part;

            ret = tt_gather_body(g, f, &rec, &part);
            if (ret == 0 && !tt_gather_is_open_gap(part, rec.payload_length)) {
                ret = tt_gather_gap_ranges(g, part, rec.payload_length,
                                           add_unmapped);
            }
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* The map has a hole: all of history tells what was captured. */
static int rebuild_map(struct gather *g)
{
    const struct tt_scan_ops ops = {
        .frame = see_captures_only,
        .damage = tt_gather_damage,
        .opaque = g,
    };
    struct tt_scan scan;

    g->r->map_prev = 0;
    g->r->map_links = 0;
    g->r->damage_count = 0; /* this scan finds all of it again */
    return tt_scan_run(g->super, g->src, 0, &ops, &scan, g->err);
}

/*
 * A whole map knows all captures up to its CHECKPOINT.  What is missing behind
 * it, or anywhere if the map has a hole, may have been captures too.
 */
int tt_gather_captured(struct gather *g)
{
    struct tt_recovery *r = g->r;
    uint64_t known = g->checkpoint_seq;
    int ret = load_map(g);

    if (ret == -TT_EDAMAGED) {
        known = 0;
        ret = rebuild_map(g);
    }
    for (size_t i = 0; i < g->capture_count && ret == 0; i++) {
        ret = add_blocks(g, r->unmapped, g->captures[i].offset,
                         g->captures[i].length);
    }
    if (ret == 0 && (g->damaged_to > known || r->open_gap)) {
        ret = add_blocks(g, r->unmapped, 0, r->scan.disk_size);
    }
    for (uint64_t at = 0; ret == 0;) {
        uint64_t run;

        at = tt_blocks_next(r->unmapped, at);
        if (at == UINT64_MAX) {
            break;
        }
        tt_blocks_test(r->unmapped, at, UINT64_MAX - at, &run);
        ret = add_blocks(g, r->captured, at, run);
        at += run;
    }
    return ret;
}
