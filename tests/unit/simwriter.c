/*
 * A small recorder for tests: see simwriter.h
 *
 * The order of things, each of which may be the last one that happens:
 *
 *   write    PREIMAGE and WRITE are appended (in any order, or as one frame);
 *            strict: the sectors are noted, and reach the disk after the next
 *            flush of the journal.  Otherwise the journal is flushed if a
 *            PREIMAGE is not durable yet, then the disk is written.
 *   flush    journal flush; what is durable goes to the disk; disk flush;
 *            FLUSH and CHECKPOINT are appended.
 *   open     see simopen.c.
 *
 * After a failed flush everything since the last good one is written again.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simwriter.h"

int sw_wrong(struct simwriter *sw, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(sw->problem, sizeof(sw->problem), fmt, ap);
    va_end(ap);
    return SW_WRONG;
}

void sw_init(struct simwriter *sw, struct sim_world *world, const uint8_t *disk,
             uint64_t size, uint32_t alignment)
{
    static uint8_t area[TT_SEGMENTS_OFFSET];
    uint8_t uuid[TT_UUID_SIZE];

    *sw = (struct simwriter){
        .world = world,
        .now = { INT64_C(1790000000000000000), UINT64_C(1000000000000) },
        .boot = 1,
        .alignment = alignment,
        .disk_size = size,
        .strict = true,
    };
    simdisk_init(&sw->journal, world, SW_JOURNAL_MAX);
    simdisk_init(&sw->disk, world, SIM_DISK_MAX);
    sim_model_init(&sw->model, disk, size);
    memcpy(sw->disk.cache, disk, size);
    memcpy(sw->disk.medium, disk, size);
    sw->disk.size = sw->disk.durable_size = SIM_DISK_MAX;

    for (size_t i = 0; i < sizeof(uuid); i++) {
        uuid[i] = (uint8_t)sim_random(world, 256);
    }
    tt_super_init(&sw->super, uuid, sim_random(world, 0), size, alignment,
                  sw->now.realtime);
    sw->super.segment_size = TT_SEGMENT_MIN;
    tt_super_encode(&sw->super, area);
    memcpy(sw->journal.cache, area, sizeof(area));
    memcpy(sw->journal.medium, area, sizeof(area));
    sw->journal.size = sw->journal.durable_size = sizeof(area);
    sw->tip = sw->durable = sw->level = &sw->model.root;
    sw->batch = tt_batch_new();
    assert(sw->batch);
}

static void drop_kept(struct simwriter *sw, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(sw->kept[i].bytes);
    }
    sw->kept_count -= count;
    if (sw->kept_count) {
        memmove(sw->kept, sw->kept + count, sw->kept_count * sizeof(*sw->kept));
    }
}

void sw_abandon(struct simwriter *sw)
{
    drop_kept(sw, sw->kept_count);
    tt_writer_clear(&sw->w);
    tt_blocks_free(sw->captured);
    tt_blocks_free(sw->unmapped);
    sw->captured = sw->unmapped = NULL;
    sw->map_prev = 0;
    memset(&sw->w, 0, sizeof(sw->w));
    memset(sw->todo, 0, sizeof(sw->todo));
    memset(sw->dirty, 0, sizeof(sw->dirty));
}

void sw_clear(struct simwriter *sw)
{
    sw_abandon(sw);
    free(sw->kept);
    tt_batch_free(sw->batch);
    sim_model_clear(&sw->model);
    simdisk_clear(&sw->journal);
    simdisk_clear(&sw->disk);
}

void sw_kill(struct simwriter *sw)
{
    sw_abandon(sw);
    simdisk_kill(&sw->journal);
    simdisk_kill(&sw->disk);
    sw->world->crashed = false;
}

void sw_power_cut(struct simwriter *sw)
{
    sw_abandon(sw);
    simdisk_power_cut(&sw->journal);
    simdisk_power_cut(&sw->disk);
    sw->disk.size = sw->disk.durable_size = SIM_DISK_MAX;
    sw->tip = sw->durable;
    sw->disk_unsure |= !sw->strict;
    sw->world->crashed = false;
}

/* ---- the journal ------------------------------------------------------- */

static void tick(struct simwriter *sw)
{
    static const int64_t steps[] = { 0, 1, 1000, 3000000 };
    int64_t step = steps[sim_random(sw->world, 4)];

    sw->now.realtime += step;
    sw->now.boottime += (uint64_t)step;
}

static void put_together(const struct tt_append *a, uint8_t *p)
{
    memcpy(p, a->head, a->head_length);
    p += a->head_length;
    for (unsigned i = 0; i < a->request_count; i++) {
        const struct tt_request *req = &a->requests[i];

        if (req->payload_length && !(req->flags & TT_RECORD_INLINE)) {
            memcpy(p, req->payload, req->payload_length);
            p += req->payload_length;
        }
    }
    memset(p, 0, a->tail_zeroes);
}

void sw_keep(struct simwriter *sw, const struct tt_append *a, uint8_t *bytes)
{
    if (sw->kept_count == sw->kept_room) {
        sw->kept_room = sw->kept_room ? sw->kept_room * 2 : 16;
        sw->kept = realloc(sw->kept, sw->kept_room * sizeof(*sw->kept));
        assert(sw->kept);
    }
    sw->kept[sw->kept_count++] =
        (struct sw_frame){ a->offset, (size_t)a->length, bytes };
}

/* One attempt at the frame in sw->batch. */
static int try_append(struct simwriter *sw)
{
    struct tt_append a;
    struct tt_frame f;
    struct sim_node *n;
    uint8_t *bytes;
    int ret;

    tick(sw);
    tt_writer_plan(&sw->w, sw->batch, sw->now, &a);
    if (!tt_frame_decode(&sw->super, a.offset, a.head, &f) ||
        !tt_table_check(&f, a.head + sizeof(struct tt_frame_header))) {
        return sw_wrong(sw, "the frame planned at %llu is not valid",
                        (unsigned long long)a.offset);
    }
    n = sim_model_append(&sw->model, sw->tip, &f, &a);
    n->boot = sw->boot;
    bytes = malloc(a.length);
    assert(bytes);
    put_together(&a, bytes);
    ret = simdisk_write(&sw->journal, a.offset, bytes, a.length);
    if (ret < 0) {
        free(bytes);
        /* once the next segment was tried there is no way back */
        sw->w.force_segment |= a.offset != sw->w.next_offset;
        return ret;
    }
    tt_writer_commit(&sw->w, sw->batch);
    sw_keep(sw, &a, bytes);
    sw->tip = n;
    return 0;
}

int sw_append_one(struct simwriter *sw, const struct tt_request *reqs,
                  unsigned count)
{
    int ret;

    tt_batch_reset(sw->batch, &sw->w);
    for (unsigned i = 0; i < count; i++) {
        if (!tt_batch_add(sw->batch, &reqs[i])) {
            return sw_wrong(sw, "%u records do not fit a frame", count);
        }
    }
    ret = try_append(sw);
    if (ret < 0 && ret > SIM_CRASH && sim_chance(sw->world, 70)) {
        ret = try_append(sw);
    }
    return ret;
}

int sw_append(struct simwriter *sw, const struct tt_request *reqs,
              unsigned count)
{
    int ret = sw_append_one(sw, reqs, count);

    return ret < 0 ? ret : sw_append_footer(sw);
}

int sw_append_footer(struct simwriter *sw)
{
    bool last = false;
    int ret = 0;

    if (!sw->w.ended) {
        return 0;
    }
    for (uint32_t part = 0; !last && ret == 0; part++) {
        uint32_t length;
        uint8_t *body = tt_footer_part(sw->w.ended, part, &length, &last);
        struct tt_request req = {
            .kind = TT_KIND_FOOTER,
            .flags = (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0) |
                     (last ? 0 : TT_RECORD_MORE),
            .payload = body,
            .payload_length = length,
        };

        if (!body) {
            break;
        }
        ret = sw_append_one(sw, &req, 1);
        free(body);
    }
    if (ret == 0) {
        tt_writer_footer_done(&sw->w);
    }
    return ret;
}

static int rewrite_kept(struct simwriter *sw)
{
    for (size_t i = 0; i < sw->kept_count; i++) {
        int ret = simdisk_write(&sw->journal, sw->kept[i].offset,
                                sw->kept[i].bytes, sw->kept[i].length);

        if (ret < 0) {
            return ret;
        }
    }
    return simdisk_flush_issue(&sw->journal);
}

int sw_journal_flush(struct simwriter *sw)
{
    struct sim_node *at = sw->tip;
    size_t count = sw->kept_count;
    int ret = simdisk_flush_issue(&sw->journal);

    if (ret == 0 && sw->captured && sim_chance(sw->world, 20)) {
        /* completes while the flush is under way: not covered */
        struct tt_request req = { .kind = TT_KIND_DURABLE };

        ret = sw_append(sw, &req, 1);
    }
    if (ret == 0) {
        ret = simdisk_flush_complete(&sw->journal);
        if (ret < 0 && ret > SIM_CRASH) {
            count = sw->kept_count;
            at = sw->tip;
            ret = rewrite_kept(sw);
            if (ret == 0) {
                ret = simdisk_flush_complete(&sw->journal);
            }
        }
    }
    if (ret == 0) {
        tt_writer_flushed(&sw->w, at->last_seq);
        sw->durable = at;
        drop_kept(sw, count);
    }
    return ret;
}

/* ---- the disk ---------------------------------------------------------- */

/* Writes the sectors in @map as they are after @n. */
static int write_sectors(struct simwriter *sw, const struct sim_node *n,
                         const uint8_t *map)
{
    const uint8_t *data = sim_node_state(&sw->model, n, n->last_seq)->data;
    size_t count = SIM_DISK_MAX / SIM_SECTOR;

    for (size_t i = 0, end; i < count; i = end) {
        int ret;

        for (end = i + 1; end < count && map[end] == map[i]; end++) {
        }
        if (!map[i]) {
            continue;
        }
        memset(sw->dirty + i, 1, end - i);
        ret = simdisk_write(&sw->disk, i * SIM_SECTOR, data + i * SIM_SECTOR,
                            (end - i) * SIM_SECTOR);
        if (ret < 0 && ret > SIM_CRASH) {
            ret = simdisk_write(&sw->disk, i * SIM_SECTOR,
                                data + i * SIM_SECTOR, (end - i) * SIM_SECTOR);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int disk_flush(struct simwriter *sw, const struct sim_node *n)
{
    int ret = simdisk_flush(&sw->disk);

    if (ret < 0 && ret > SIM_CRASH) {
        ret = write_sectors(sw, n, sw->dirty);
        if (ret == 0) {
            ret = simdisk_flush(&sw->disk);
        }
    }
    if (ret == 0) {
        memset(sw->dirty, 0, sizeof(sw->dirty));
    }
    return ret;
}

/* What is durable in the journal goes to the disk; the rest stays to do. */
static int write_back(struct simwriter *sw, const struct sim_node *n)
{
    int ret = write_sectors(sw, n, sw->todo);

    if (ret < 0) {
        return ret;
    }
    if (n == sw->tip) {
        memset(sw->todo, 0, sizeof(sw->todo));
    }
    sw->disk_size = sim_node_state(&sw->model, n, n->last_seq)->size;
    return 0;
}

void sw_note_todo(struct simwriter *sw, uint64_t offset, uint64_t length)
{
    memset(sw->todo + offset / SIM_SECTOR, 1, length / SIM_SECTOR);
}

/* ---- captures ---------------------------------------------------------- */

/* The blocks of a range that still need a PREIMAGE, as records. */
int sw_read_captures(struct simwriter *sw, uint64_t offset, uint64_t length,
                     uint8_t *buf, struct tt_request *reqs, unsigned *ret_count)
{
    uint64_t end = offset + length;

    *ret_count = 0;
    for (uint64_t at = offset & ~(uint64_t)(TT_GRID - 1), run; at < end;
         at += run) {
        struct tt_request *req = &reqs[*ret_count];
        uint64_t left = (end - at + TT_GRID - 1) & ~(uint64_t)(TT_GRID - 1);
        int ret;

        if (tt_blocks_test(sw->captured, at, left, &run)) {
            continue;
        }
        if (sw->w.disk_size < at + run) {
            run = sw->w.disk_size - at;
        }
        *req = (struct tt_request){
            .kind = TT_KIND_PREIMAGE,
            .disk_offset = at,
            .disk_length = run,
        };
        ret = simdisk_read(&sw->disk, at, buf + at, run);
        if (ret < 0) {
            return ret;
        }
        if (!buf[at] && !memcmp(buf + at, buf + at + 1, run - 1)) {
            req->flags = TT_RECORD_ZEROES;
        } else {
            req->payload = buf + at;
            req->payload_length = (uint32_t)run;
        }
        (*ret_count)++;
    }
    return 0;
}

static void mark_captured(struct simwriter *sw, const struct tt_request *reqs,
                          unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        tt_blocks_add(sw->captured, reqs[i].disk_offset, reqs[i].disk_length);
        tt_blocks_add(sw->unmapped, reqs[i].disk_offset, reqs[i].disk_length);
    }
}

/*
 * A capture that failed half way may or may not be in the journal; the block
 * was not changed, so that a second one says the same and is ignored.
 */
int sw_append_captured(struct simwriter *sw, struct tt_request *reqs,
                       unsigned pre, const struct tt_request *change,
                       enum sw_order order)
{
    int ret = 0;

    if (change && order == SW_PRE_AFTER) {
        ret = sw_append(sw, change, 1);
        change = NULL;
    } else if (change && order == SW_PRE_WITH) {
        reqs[pre] = *change;
        ret = sw_append(sw, reqs, pre + 1);
        if (ret == 0) {
            mark_captured(sw, reqs, pre);
        }
        return ret;
    }
    if (ret == 0 && pre) {
        ret = sw_append(sw, reqs, pre);
        if (ret == 0) {
            mark_captured(sw, reqs, pre);
        }
    }
    if (ret == 0 && change) {
        ret = sw_append(sw, change, 1);
    }
    return ret;
}

/* ---- what the guest asks for ------------------------------------------- */

static uint64_t block_mask(uint64_t offset, uint64_t length)
{
    uint64_t mask = 0;

    for (uint64_t at = offset / TT_GRID; at * TT_GRID < offset + length; at++) {
        mask |= UINT64_C(1) << at;
    }
    return mask;
}

/* The journal holds the change: now the disk may. */
static int change_disk(struct simwriter *sw, uint64_t offset, uint64_t length)
{
    int ret = 0;

    sw_note_todo(sw, offset, length);
    if (sw->strict) {
        return 0;
    }
    if (block_mask(offset, length) & ~sw->durable->captured) {
        ret = sw_journal_flush(sw);
    }
    if (ret == 0 && !(block_mask(offset, length) & ~sw->durable->captured)) {
        ret = write_back(sw, sw->tip);
    }
    return ret;
}

static int change(struct simwriter *sw, const struct tt_request *req,
                  enum sw_order order)
{
    static uint8_t buf[SIM_DISK_MAX];
    struct tt_request reqs[SIM_BLOCKS + 1];
    unsigned pre;
    int ret = sw_read_captures(sw, req->disk_offset, req->disk_length, buf,
                               reqs, &pre);

    if (ret == 0) {
        ret = sw_append_captured(sw, reqs, pre, req, order);
    }
    return ret < 0 ? ret : change_disk(sw, req->disk_offset, req->disk_length);
}

int sw_write(struct simwriter *sw, uint64_t offset, uint64_t length,
             const uint8_t *buf, enum sw_order order)
{
    struct tt_request req = {
        .kind = TT_KIND_WRITE,
        .disk_offset = offset,
        .disk_length = length,
        .payload = buf,
        .payload_length = (uint32_t)length,
    };

    return change(sw, &req, order);
}

int sw_zero(struct simwriter *sw, uint64_t offset, uint64_t length,
            enum sw_order order)
{
    struct tt_request req = {
        .kind = TT_KIND_ZERO,
        .flags = sim_chance(sw->world, 50) ? TT_RECORD_DISCARD : 0,
        .disk_offset = offset,
        .disk_length = length,
    };

    return change(sw, &req, order);
}

int sw_resize(struct simwriter *sw, uint64_t size)
{
    static uint8_t buf[SIM_DISK_MAX];
    struct tt_request reqs[SIM_BLOCKS + 1];
    struct tt_request req = {
        .kind = TT_KIND_RESIZE,
        .disk_offset = sw->w.disk_size,
        .disk_length = size,
    };
    uint64_t old = sw->w.disk_size;
    unsigned pre = 0;
    int ret = 0;

    if (size < old) {
        ret = sw_read_captures(sw, size, old - size, buf, reqs, &pre);
        if (ret == 0) {
            ret = sw_append_captured(sw, reqs, pre, NULL, SW_PRE_BEFORE);
        }
        if (ret == 0 && !sw->strict) {
            ret = sw_journal_flush(sw);
        }
    }
    if (ret == 0) {
        ret = sw_append(sw, &req, 1);
    }
    if (ret < 0) {
        return ret;
    }
    if (size > old) {
        /* of the block that the old end cut only the front was there */
        req.disk_offset = (old + TT_GRID - 1) / TT_GRID * TT_GRID;
        if (req.disk_offset < size) {
            req.disk_length = size - req.disk_offset;
            mark_captured(sw, &req, 1);
        }
        sw_note_todo(sw, old, size - old);
    } else {
        sw_note_todo(sw, size, old - size);
    }
    return sw->strict ? 0 : write_back(sw, sw->tip);
}

static int append_checkpoint(struct simwriter *sw, uint64_t level, bool clean)
{
    struct tt_checkpoint c = {
        .level_seq = level,
        .map_prev = sw->map_prev,
        .clean = clean,
    };
    struct tt_request reqs[2] = { { .kind = TT_KIND_FLUSH } };
    struct tt_flush_body fl = { tt_put64(level) };
    uint32_t length;
    bool more;
    uint8_t *body;
    int ret;

    /* the map is as of the record's own place: nothing may come between */
    body = tt_checkpoint_encode(&c, sw->unmapped, &length, &more);
    assert(body && !more);
    reqs[0].flags = TT_RECORD_INLINE;
    reqs[0].payload = &fl;
    reqs[0].payload_length = sizeof(fl);
    reqs[1] = (struct tt_request){
        .kind = TT_KIND_CHECKPOINT,
        .flags = TT_RECORD_INLINE,
        .payload = body,
        .payload_length = length,
    };
    ret = sw_append_one(sw, reqs, 2);
    if (ret == 0) {
        if (tt_checkpoint_done(body, sw->unmapped)) {
            sw->map_prev = sw->tip->offset;
        }
        if (!clean) {
            ret = sw_append_footer(sw);
        }
    }
    free(body);
    return ret;
}

static int flush(struct simwriter *sw, bool clean)
{
    const struct sim_node *n;
    int ret = sw_journal_flush(sw);

    if (ret < 0) {
        return ret;
    }
    n = sw->durable;
    ret = write_back(sw, n);
    if (ret == 0) {
        ret = disk_flush(sw, n);
    }
    if (ret == 0) {
        sw->level = (struct sim_node *)n;
        ret = append_checkpoint(sw, n->last_seq, clean);
    }
    return ret;
}

int sw_flush(struct simwriter *sw)
{
    return flush(sw, false);
}

int sw_mark(struct simwriter *sw, const char *name)
{
    struct tt_request req = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = name,
        .payload_length = (uint32_t)strlen(name),
    };

    return sw_append(sw, &req, 1);
}

int sw_durable(struct simwriter *sw)
{
    struct tt_request req = { .kind = TT_KIND_DURABLE };

    return sw_append(sw, &req, 1);
}

int sw_close(struct simwriter *sw)
{
    int ret = flush(sw, true);

    if (ret == 0) {
        ret = sw_journal_flush(sw);
    }
    if (ret == 0) {
        ret = sw_durable(sw);
    }
    if (ret == 0) {
        ret = simdisk_flush(&sw->journal);
    }
    if (ret == 0) {
        sw->durable = sw->tip;
        sw_abandon(sw);
    }
    return ret;
}
