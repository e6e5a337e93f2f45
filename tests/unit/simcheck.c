/*
 * What a scan, a recovery and a view answer, held against the model
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "simwriter.h"

typedef unsigned long long ull;

static int quiet_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    const struct simdisk *d = opaque;

    assert(offset <= d->size && length <= d->size - offset);
    if (offset < d->bad_offset + d->bad_length &&
        d->bad_offset < offset + length) {
        return -EIO;
    }
    memcpy(buf, d->cache + offset, length);
    return 0;
}

struct tt_source sw_quiet_source(struct simwriter *sw)
{
    return (struct tt_source){
        .read = quiet_read,
        .opaque = &sw->journal,
        .size = sw->journal.size,
    };
}

/* ---- the path ---------------------------------------------------------- */

struct walk {
    struct simwriter *sw;
    struct sim_node *at;
    bool damage;
};

static int walk_frame(void *opaque, const struct tt_frame *f,
                      const uint8_t *table)
{
    struct walk *w = opaque;
    struct sim_node *n = sim_model_child(&w->sw->model, w->at, f->own_chain);

    (void)table;
    if (!n) {
        return sw_wrong(w->sw,
                        "invented: the frame at %llu (seq %llu) does "
                        "not follow seq %llu",
                        (ull)f->offset, (ull)f->first_seq,
                        (ull)w->at->last_seq);
    }
    w->at = n;
    return 0;
}

static int walk_damage(void *opaque, const struct tt_damage *d)
{
    struct walk *w = opaque;

    return sw_wrong(w->sw,
                    "false alarm: damage at %llu + %llu, seq %llu to "
                    "%llu",
                    (ull)d->offset, (ull)d->length, (ull)d->first_seq,
                    (ull)d->last_seq);
}

int sw_check_path(struct simwriter *sw, const struct sim_node *required,
                  struct sim_node **ret_end)
{
    struct walk w = { .sw = sw, .at = &sw->model.root };
    const struct tt_scan_ops ops = { .frame = walk_frame,
                                     .damage = walk_damage,
                                     .opaque = &w };
    struct tt_source src = sw_quiet_source(sw);
    struct tt_error err = { 0 };
    struct tt_scan scan;
    int ret = tt_scan_run(&sw->super, &src, 0, &ops, &scan, &err);

    if (ret < 0) {
        return ret == SW_WRONG ? ret : sw_wrong(sw, "scan: %s", err.message);
    }
    if (!sim_node_reaches(w.at, required)) {
        return sw_wrong(sw,
                        "lost: history ends at seq %llu, but seq %llu was "
                        "promised",
                        (ull)w.at->last_seq, (ull)required->last_seq);
    }
    if (scan.last_seq != w.at->last_seq || scan.damaged_end ||
        scan.empty != (w.at == &sw->model.root)) {
        return sw_wrong(sw,
                        "the scan says it ends at %llu, its last frame at "
                        "%llu",
                        (ull)scan.last_seq, (ull)w.at->last_seq);
    }
    *ret_end = w.at;
    return 0;
}

/* ---- the disk ---------------------------------------------------------- */

/* All states on the path to @end, by sequence number. */
static const struct sim_state **collect(struct simwriter *sw,
                                        const struct sim_node *end)
{
    const struct sim_state **states =
        calloc(end->last_seq + 1, sizeof(*states));

    assert(states);
    states[0] = &sw->model.original;
    for (const struct sim_node *n = end; n->parent; n = n->parent) {
        for (uint64_t seq = n->first_seq; seq <= n->last_seq; seq++) {
            states[seq] = &n->states[seq - n->first_seq];
        }
    }
    return states;
}

int sw_check_disk_known(struct simwriter *sw, const struct sim_node *end)
{
    const struct sim_state **states = collect(sw, end);
    int ret = 0;

    for (size_t at = 0; at < SIM_DISK_MAX && ret == 0; at += SIM_SECTOR) {
        uint64_t seq = sw->level->last_seq;

        while (
            seq <= end->last_seq &&
            memcmp(sw->disk.cache + at, states[seq]->data + at, SIM_SECTOR)) {
            seq++;
        }
        if (seq > end->last_seq) {
            ret = sw_wrong(sw,
                           "the disk at %zu holds what no moment from "
                           "seq %llu to %llu had there",
                           at, (ull)sw->level->last_seq, (ull)end->last_seq);
        }
    }
    free(states);
    return ret;
}

int sw_check_disk_level(struct simwriter *sw)
{
    const struct sim_state *s =
        sim_node_state(&sw->model, sw->tip, sw->tip->last_seq);

    for (size_t at = 0; at < SIM_DISK_MAX; at += SIM_SECTOR) {
        if (memcmp(sw->disk.cache + at, s->data + at, SIM_SECTOR)) {
            return sw_wrong(sw,
                            "the disk at %zu is not view(latest), seq "
                            "%llu",
                            at, (ull)sw->tip->last_seq);
        }
    }
    return 0;
}

/* ---- recovery ---------------------------------------------------------- */

static bool covers(const struct sim_state *s, uint64_t at)
{
    if (s->kind == TT_KIND_WRITE || s->kind == TT_KIND_ZERO) {
        return at >= s->disk_offset && at < s->disk_offset + s->disk_length;
    }
    /* growth gives zeroes to what was not there */
    return s->kind == TT_KIND_RESIZE && at >= s->disk_offset &&
           at < s->disk_length;
}

static int check_redo(struct simwriter *sw, const struct tt_redo *d,
                      const struct sim_state **states, uint64_t last,
                      uint64_t at)
{
    uint64_t newest = last;

    while (newest && !covers(states[newest], at)) {
        newest--;
    }
    if (newest != d->seq) {
        return sw_wrong(sw,
                        "redo of disk %llu from seq %llu, the newest "
                        "there is %llu",
                        (ull)at, (ull)d->seq, (ull)newest);
    }
    if (d->kind == TT_KIND_WRITE) {
        uint64_t from = d->payload + (at - d->disk_offset);

        if (from + SIM_SECTOR > sw->journal.size ||
            memcmp(sw->journal.cache + from, states[last]->data + at,
                   SIM_SECTOR)) {
            return sw_wrong(sw, "redo of disk %llu from seq %llu: other bytes",
                            (ull)at, (ull)d->seq);
        }
    }
    return 0;
}

static int check_redos(struct simwriter *sw, const struct tt_recovery *r,
                       const struct sim_node *end)
{
    const struct sim_state **states = collect(sw, end);
    uint8_t redone[SIM_DISK_MAX / SIM_SECTOR] = { 0 };
    uint64_t size = states[end->last_seq]->size;
    int ret = 0;

    for (size_t i = 0; i < r->redo_count && ret == 0; i++) {
        const struct tt_redo *d = &r->redos[i];

        if (d->disk_offset + d->disk_length > size) {
            ret = sw_wrong(sw, "a redo behind the disk's end");
        }
        for (uint64_t at = d->disk_offset;
             at < d->disk_offset + d->disk_length && ret == 0;
             at += SIM_SECTOR) {
            ret = redone[at / SIM_SECTOR]++
                      ? sw_wrong(sw, "disk %llu is redone twice", (ull)at)
                      : check_redo(sw, d, states, end->last_seq, at);
        }
    }
    for (uint64_t seq = r->level_seq + 1; seq <= end->last_seq && ret == 0;
         seq++) {
        for (uint64_t at = 0; at < size; at += SIM_SECTOR) {
            if (covers(states[seq], at) && !redone[at / SIM_SECTOR]) {
                ret = sw_wrong(sw, "seq %llu at disk %llu is not redone",
                               (ull)seq, (ull)at);
                break;
            }
        }
    }
    free(states);
    return ret;
}

static int check_captured(struct simwriter *sw, const struct tt_recovery *r,
                          const struct sim_node *end)
{
    for (uint64_t at = 0; at < r->scan.disk_size; at += TT_GRID) {
        bool is = tt_blocks_test(r->captured, at, 1, NULL);
        bool want = end->captured >> at / TT_GRID & 1;

        if (is != want) {
            return sw_wrong(sw, "block %llu: %s captured, says recovery",
                            (ull)(at / TT_GRID), is ? "is" : "is not");
        }
    }
    return 0;
}

static int check_rewrites(struct simwriter *sw, const struct tt_recovery *r,
                          const struct sim_node *end)
{
    size_t i = r->rewrite_count;

    for (const struct sim_node *n = end;
         n->parent && n->last_seq > r->scan.durable_seq; n = n->parent) {
        if (!i || r->rewrites[i - 1].offset != n->offset ||
            r->rewrites[i - 1].length != n->length) {
            return sw_wrong(sw,
                            "seq %llu may not be durable, and is not "
                            "rewritten",
                            (ull)n->last_seq);
        }
        i--;
    }
    return i ? sw_wrong(sw, "%zu frames rewritten without need", i) : 0;
}

int sw_check_recovery(struct simwriter *sw, const struct tt_recovery *r,
                      const struct sim_node *end)
{
    uint64_t size = sim_node_state(&sw->model, end, end->last_seq)->size;
    int ret;

    if (r->scan.last_seq != end->last_seq || r->scan.disk_size != size) {
        return sw_wrong(sw,
                        "recovery: seq %llu, disk %llu; should be %llu, "
                        "%llu",
                        (ull)r->scan.last_seq, (ull)r->scan.disk_size,
                        (ull)end->last_seq, (ull)size);
    }
    if (r->scan.durable_seq > sw->durable->last_seq ||
        r->level_seq > sw->level->last_seq || r->damage_count) {
        return sw_wrong(sw,
                        "recovery: durable %llu, level %llu; but %llu, "
                        "%llu were; %zu damages",
                        (ull)r->scan.durable_seq, (ull)r->level_seq,
                        (ull)sw->durable->last_seq, (ull)sw->level->last_seq,
                        r->damage_count);
    }
    for (const struct sim_node *n = sw->model.all; n; n = n->next) {
        if (n->session > r->scan.max_session && sim_node_reaches(end, n)) {
            return sw_wrong(sw, "session %llu was not seen", (ull)n->session);
        }
    }
    ret = check_captured(sw, r, end);
    if (ret == 0) {
        ret = check_rewrites(sw, r, end);
    }
    return ret < 0 ? ret : check_redos(sw, r, end);
}
