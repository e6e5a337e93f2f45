/*
 * The oracles: see wal.h
 *
 *   1 exact      after recovery the disk is view(latest), and so are looks at
 *                other moments; reads of the guest (walwriter.c), too
 *   2 first      at the crash every sector of the disk is a version that is
 *                on the journal's medium, or original, and a block that is not
 *                original has its PREIMAGE there
 *   3 recorded   history reaches what was acknowledged (kill), or promised by
 *                a flush (power cut); the disk alone is not older than that
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "wal.h"

/* ---- what is on the medium --------------------------------------------- */

void check_advance_phys(struct sim *s)
{
    struct node *path[512];
    unsigned n = 0;

    for (struct node *at = s->tip; at != s->phys && at->parent;
         at = at->parent) {
        if (n == 512) {
            /* too long to be remembered: only the older ones are looked at */
            memmove(path, path + 1, 511 * sizeof(*path));
            n--;
        }
        path[n++] = at;
    }
    while (n-- && path[n]->offset + path[n]->length <= s->j.durable_size &&
           !memcmp(s->j.medium + path[n]->offset, path[n]->bytes,
                   path[n]->length)) {
        s->phys = path[n];
    }
}

/* ---- the disk at the crash --------------------------------------------- */

static void equal(uint8_t *known, const uint32_t *a, const uint32_t *b)
{
    for (unsigned i = 0; i < WAL_SECTORS; i++) {
        known[i] |= a[i] == b[i];
    }
}

int check_disk_alone(struct sim *s)
{
    uint8_t known[WAL_SECTORS] = { 0 };
    const struct state *original = &s->model->original;
    uint64_t floor = s->disk_floor;
    struct node *n = s->phys;

    for (; n->parent && n->last_seq >= floor; n = n->parent) {
        for (uint64_t seq = n->last_seq; seq >= n->first_seq && seq >= floor;
             seq--) {
            equal(known, s->d.cache, n->states[seq - n->first_seq].ids);
        }
        if (n->first_seq <= floor) {
            break;
        }
    }
    if (!floor) {
        equal(known, s->d.cache, original->ids);
    }
    for (unsigned i = 0; i < s->d.size; i++) {
        if (!known[i]) {
            return sim_wrong(s,
                             "the disk alone: sector %u is %u, which was "
                             "not there from seq %llu to %llu (all that is "
                             "durable)",
                             i, s->d.cache[i], (ull)floor,
                             (ull)s->phys->last_seq);
        }
        if (i < original->size && s->d.cache[i] != original->ids[i] &&
            !(s->phys->captured >> i / WAL_PER_BLOCK & 1)) {
            return sim_wrong(s,
                             "sector %u is changed, and what it held is not "
                             "durable",
                             i);
        }
    }
    return 0;
}

/* ---- history ----------------------------------------------------------- */

static int check_reaches(struct sim *s, const struct node *end,
                         const struct node *n, const char *what)
{
    return node_reaches(end, n)
               ? 0
               : sim_wrong(s, "lost: history ends at seq %llu, but %llu was %s",
                           (ull)end->last_seq, (ull)n->last_seq, what);
}

/* A session's number may not be that of a frame that can still be seen. */
int check_session_number(struct sim *s)
{
    for (const struct node *n = s->model->newest; n; n = n->before) {
        if (n->session >= s->w.session && n->offset + n->head <= s->j.size &&
            !memcmp(s->j.cache + n->offset, n->bytes, n->head)) {
            return sim_wrong(s,
                             "session number %llu: a frame at %llu is of "
                             "session %llu",
                             (ull)s->w.session, (ull)n->offset,
                             (ull)n->session);
        }
    }
    return 0;
}

int check_history(struct sim *s, struct tt_recovery *r, bool power,
                  struct node **ret_end)
{
    struct node *end = &s->model->root;
    const struct state *st;
    int ret = 0;

    if (!r->scan.empty) {
        end = model_find(s->model, r->scan.last.own_chain);
        if (!end || end->offset != r->scan.last.offset ||
            end->last_seq != r->scan.last_seq) {
            return sim_wrong(s, "invented: no frame ends with seq %llu at %llu",
                             (ull)r->scan.last_seq, (ull)r->scan.last.offset);
        }
    }
    if (r->damage_count) {
        return sim_wrong(s, "false alarm: damage at %llu",
                         (ull)r->damages[0].offset);
    }
    if (power) {
        ret = check_reaches(s, end, s->promised, "promised by a flush");
    } else {
        ret = check_reaches(s, end, s->acked, "acknowledged");
        if (ret == 0) {
            ret = check_reaches(s, end, s->tip, "complete");
        }
    }
    if (ret == 0) {
        ret = check_reaches(s, end, s->phys, "on the medium");
    }
    if (ret < 0) {
        return ret;
    }
    st = model_state(s->model, end, end->last_seq);
    if (r->scan.disk_size != (uint64_t)st->size * WAL_SECTOR) {
        return sim_wrong(s, "recovery: a disk of %llu bytes, not %u sectors",
                         (ull)r->scan.disk_size, st->size);
    }
    for (unsigned b = 0; b * WAL_PER_BLOCK < st->size; b++) {
        if (tt_blocks_test(r->captured, (uint64_t)b * TT_GRID, 1, NULL) !=
            (end->captured >> b & 1)) {
            return sim_wrong(s, "recovery: block %u is%s captured", b,
                             end->captured >> b & 1 ? "" : " not");
        }
    }
    *ret_end = end;
    return 0;
}

int check_samples(struct sim *s, const struct tt_recovery *r)
{
    struct tt_source src = jmedia_source(&s->j);
    static uint8_t buf[WAL_DISK];

    if (r->resized) {
        return 0;
    }
    for (size_t i = 0; i < r->sample_count && i < 3; i++) {
        const struct tt_redo *d =
            &r->samples[rng_below(&s->rng, r->sample_count)];
        unsigned first = (unsigned)(d->disk_offset / WAL_SECTOR);
        unsigned count = (unsigned)(d->disk_length / WAL_SECTOR);
        struct tt_error err = { 0 };

        if (first + count > s->d.size) {
            continue;
        }
        for (unsigned k = 0; k < count; k++) {
            sector_fill(buf + (size_t)k * WAL_SECTOR, s->d.cache[first + k],
                        first + k);
        }
        if (tt_recovery_compare(&s->super, &src, d, buf, &err) != 1) {
            return sim_wrong(s,
                             "recovery would refuse the disk: sectors %u + "
                             "%u of seq %llu %s",
                             first, count, (ull)d->seq, err.message);
        }
    }
    return 0;
}

/* ---- after recovery ---------------------------------------------------- */

int check_level(struct sim *s)
{
    const struct state *st = model_state(s->model, s->tip, s->tip->last_seq);

    if (s->d.size != st->size) {
        return sim_wrong(s, "the disk has %u sectors, not %u", s->d.size,
                         st->size);
    }
    for (unsigned i = 0; i < st->size; i++) {
        if (s->d.cache[i] != st->ids[i]) {
            return sim_wrong(s,
                             "the disk is not view(latest): sector %u is %u, "
                             "not %u",
                             i, s->d.cache[i], st->ids[i]);
        }
    }
    return 0;
}

/* One extent; @live: what the disk holds. */
static int check_extent(struct sim *s, const struct tt_history *h,
                        const struct tt_extent *e, uint64_t seq,
                        const struct state *st, bool damage_ok)
{
    struct tt_source src = jmedia_source(&s->j);
    static uint8_t buf[WAL_DISK];
    unsigned first = (unsigned)(e->offset / WAL_SECTOR);
    unsigned count = (unsigned)(e->length / WAL_SECTOR);
    struct tt_error err = { 0 };

    if (e->kind == TT_EXTENT_DAMAGED && damage_ok) {
        return 0;
    }
    if (e->kind == TT_EXTENT_DAMAGED) {
        return sim_wrong(s, "view(%llu): sector %u is damaged", (ull)seq,
                         first);
    }
    if (e->kind == TT_EXTENT_JOURNAL &&
        tt_extent_read(h, &src, e, e->offset, e->length, buf, &err) < 0) {
        return damage_ok && err.code == TT_EDAMAGED
                   ? 0
                   : sim_wrong(s, "view(%llu): sector %u: %s", (ull)seq, first,
                               err.message);
    }
    for (unsigned i = 0; i < count; i++) {
        uint32_t id = 0;

        if (e->kind == TT_EXTENT_DISK) {
            id = s->d.cache[first + i];
        } else if (e->kind == TT_EXTENT_JOURNAL &&
                   !sector_read(buf + (size_t)i * WAL_SECTOR, first + i, &id)) {
            return sim_wrong(s, "view(%llu): sector %u: other bytes", (ull)seq,
                             first + i);
        }
        if (id != st->ids[first + i]) {
            return sim_wrong(s,
                             "view(%llu): sector %u is %u, not %u; from "
                             "record %llu",
                             (ull)seq, first + i, id, st->ids[first + i],
                             (ull)e->record_seq);
        }
    }
    return 0;
}

int check_lookups(struct sim *s, const struct tt_history *h,
                  const struct node *end, unsigned lookups, bool damage_ok)
{
    uint64_t last = tt_history_end(h)->last_seq;

    for (unsigned i = 0; i < lookups; i++) {
        uint64_t seq = i ? rng_below(&s->rng, last + 1) : last;
        const struct state *st = model_state(s->model, end, seq);
        uint64_t size = (uint64_t)st->size * WAL_SECTOR;
        uint64_t at = rng_below(&s->rng, st->size) * WAL_SECTOR;
        struct tt_extent e;
        int ret;

        if (tt_history_disk_size(h, seq) != size) {
            if (damage_ok) {
                continue;
            }
            return sim_wrong(s, "view(%llu) has %llu bytes, not %llu", (ull)seq,
                             (ull)tt_history_disk_size(h, seq), (ull)size);
        }
        for (unsigned k = 0; k < 2 && at < size; k++, at += e.length) {
            tt_view_lookup(h, seq, at, size - at, &e, NULL);
            if (e.offset != at || !e.length || e.length > size - at) {
                return sim_wrong(s, "view(%llu) at %llu: %llu + %llu", (ull)seq,
                                 (ull)at, (ull)e.offset, (ull)e.length);
            }
            ret = check_extent(s, h, &e, seq, st, damage_ok);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

int check_views(struct sim *s, unsigned lookups)
{
    struct tt_source src = jmedia_source(&s->j);
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    int ret;

    assert(h);
    if (tt_history_load(h, &src, &err) < 0) {
        ret = sim_wrong(s, "history: %s", err.message);
    } else if (tt_history_end(h)->last_seq != s->tip->last_seq) {
        ret =
            sim_wrong(s, "history ends at seq %llu, not %llu",
                      (ull)tt_history_end(h)->last_seq, (ull)s->tip->last_seq);
    } else {
        ret = check_lookups(s, h, s->tip, lookups, false);
    }
    tt_history_free(h);
    return ret == 0 ? check_indexed(s, s->tip, lookups, false) : ret;
}

/*
 * A reader that follows the recording sees all frames that are complete, and
 * perhaps one that failed; across crashes it goes on, or is told to read again.
 */
int check_reader(struct sim *s)
{
    struct tt_source src = jmedia_source(&s->j);
    const struct node *end = &s->model->root;
    struct tt_error err = { 0 };
    const struct tt_scan *scan;
    bool grown;
    int ret = -TT_ECHANGED;

    if (s->reader) {
        ret = tt_history_refresh(s->reader, &src, &grown, &err);
    }
    if (ret == -TT_ECHANGED) {
        tt_history_free(s->reader);
        s->reader = tt_history_new();
        assert(s->reader);
        ret = tt_history_load(s->reader, &src, &err);
    }
    if (ret < 0) {
        return sim_wrong(s, "reader: %s", err.message);
    }
    scan = tt_history_end(s->reader);
    NOTE(s, "a reader sees seq %llu", (ull)scan->last_seq);
    if (!scan->empty) {
        end = model_find(s->model, scan->last.own_chain);
        if (!end) {
            return sim_wrong(s, "reader: no frame ends with seq %llu",
                             (ull)scan->last_seq);
        }
    }
    if (!node_reaches(end, s->tip)) {
        return sim_wrong(s, "reader: history ends at seq %llu, not %llu",
                         (ull)end->last_seq, (ull)s->tip->last_seq);
    }
    ret = check_lookups(s, s->reader, end, 4, false);
    return ret == 0 ? check_indexed(s, end, 4, false) : ret;
}

/* ---- rot --------------------------------------------------------------- */

#define ROTTEN_MAX 3u

struct walk {
    struct sim *s;
    const struct node *end;
    const struct node *rotten[ROTTEN_MAX];
    unsigned rotten_count;
    bool hidden;
};

static bool is_rotten(const struct walk *w, const struct node *n)
{
    for (unsigned i = 0; i < w->rotten_count; i++) {
        if (w->rotten[i] == n) {
            return true;
        }
    }
    return false;
}

/*
 * Is there a frame to tell that a later session took the numbers of @n?  A
 * scan looks for it in the segment that is damaged, and at the first frames of
 * those behind it.
 */
static bool can_be_told(const struct walk *w, const struct node *n)
{
    const struct tt_super *super = &w->s->super;

    for (const struct node *p = w->end; p->parent; p = p->parent) {
        uint64_t at = p->offset - super->segments_offset;

        if (p->session > n->session && p->session_first_seq <= n->first_seq &&
            !is_rotten(w, p) &&
            (at % super->segment_size == 0 ||
             at / super->segment_size ==
                 (n->offset - super->segments_offset) / super->segment_size)) {
            return true;
        }
    }
    return false;
}

static int walk_frame(void *opaque, const struct tt_frame *f,
                      const uint8_t *table)
{
    struct walk *w = opaque;
    struct node *n = model_find(w->s->model, f->own_chain);

    (void)table;
    if (!n || !node_reaches(w->end, n)) {
        if (n && !can_be_told(w, n)) {
            w->hidden = true;
            return 0;
        }
        return sim_wrong(w->s,
                         "stale: the frame at %llu, seq %llu, is not of this "
                         "history",
                         (ull)f->offset, (ull)f->first_seq);
    }
    return 0;
}

/*
 * Frames that are durable, or only their bytes, are destroyed: no other frame
 * may pass for them, and what is served is right or an error.  Places before
 * a segment's end are chosen often: behind them is what once was history.
 */
int check_rot(struct sim *s)
{
    struct walk w = { .s = s, .end = s->tip };
    const struct tt_scan_ops ops = { .frame = walk_frame, .opaque = &w };
    struct tt_source src = jmedia_source(&s->j);
    struct tt_history *h;
    struct tt_error err = { 0 };
    struct tt_scan scan;
    unsigned frames = 0, nth;
    struct node *n, *behind = NULL;
    uint64_t segment;
    int ret;

    for (n = s->tip; n->parent; n = n->parent) {
        frames++;
    }
    if (frames < 2) {
        return 0;
    }
    nth = (unsigned)rng_below(&s->rng, frames - 1) + 1;
    for (n = s->tip; nth--; n = n->parent) {
        behind = n;
    }
    if (rng_chance(&s->rng, 70)) {
        while (n->parent->parent && n->offset + n->length == behind->offset) {
            behind = n;
            n = n->parent;
        }
    }
    segment = (n->offset - s->super.segments_offset) / s->super.segment_size;
    segment = tt_segment_offset(&s->super, segment);
    for (unsigned i = 0; i < ROTTEN_MAX && n->parent; i++, n = n->parent) {
        uint64_t at =
            n->offset + rng_below(&s->rng, n->length / WAL_SECTOR) * WAL_SECTOR;

        NOTE(s, "rot at %llu", (ull)at);
        w.rotten[w.rotten_count++] = n;
        memset(s->j.cache + (rng_chance(&s->rng, 70) ? n->offset : at), 0xa5,
               WAL_SECTOR);
        /* two segments' first frames would hide all that is behind them */
        if (rng_chance(&s->rng, 60) || n->parent->offset < segment) {
            break;
        }
    }
    ret = tt_scan_run(&s->super, &src, 0, &ops, &scan, &err);
    if (ret < 0) {
        return ret == WAL_WRONG ? ret : sim_wrong(s, "scan: %s", err.message);
    }
    if (w.hidden) {
        return 0;
    }
    h = tt_history_new();
    assert(h);
    ret = tt_history_load(h, &src, &err);
    ret = ret < 0 ? sim_wrong(s, "history: %s", err.message)
                  : check_lookups(s, h, s->tip, 4, true);
    tt_history_free(h);
    return ret == 0 ? check_indexed(s, s->tip, 4, true) : ret;
}
