/*
 * Recovery: what must a writer know and do when it opens a journal?
 *
 * The scan begins at the segment that holds the first record which the disk
 * may lack, so it takes time in proportion to what was written since the last
 * checkpoint.  From its records follow
 *
 *   rewrites  accepted frames above the durable end: they may have been in a
 *             page cache only, and are written again in place and flushed;
 *   redos     of each range the newest version above level_seq, and only that
 *             one: going through them in order would put older bytes over
 *             newer ones that the disk already holds;
 *   samples   level versions, newest first, not overwritten since: if the disk
 *             does not hold them, it is not the disk that was left here;
 *   captured  the blocks that need no PREIMAGE any more (captured.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"

/* What is compared with the disk at most (design.md: a bounded amount) */
#define SAMPLES_MAX 4096u
#define SAMPLE_BYTES_MAX (16 * TT_MIB)
#define SAMPLE_FRAMES_MAX 16384u

static bool append_to(void *array, size_t *count, size_t *room, size_t size,
                      const void *item)
{
    void **p = array;

    if (*count == *room) {
        size_t n = *room ? *room * 2 : 64;
        void *q = realloc(*p, n * size);

        if (!q) {
            return false;
        }
        *p = q;
        *room = n;
    }
    memcpy((uint8_t *)*p + *count * size, item, size);
    (*count)++;
    return true;
}

static int no_memory(struct gather *g)
{
    return tt_fail(g->err, TT_ENOMEM, 0, "out of memory");
}

/* ---- records ----------------------------------------------------------- */

int tt_gather_body(struct gather *g, const struct tt_frame *f,
                   const struct tt_record *rec, const uint8_t **ret)
{
    int err;

    *ret = rec->body;
    if (rec->body || !rec->payload_offset) {
        return 0;
    }
    err = g->src->read(g->src->opaque, f->offset + rec->payload_offset, g->body,
                       rec->payload_length);
    if (err < 0) {
        return tt_fail(g->err, TT_EIO, -err,
                       "cannot read the journal at %" PRIu64 ": %s",
                       f->offset + rec->payload_offset, strerror(-err));
    }
    if (tt_payload_check(rec, g->body, NULL)) {
        *ret = g->body;
    }
    return 0;
}

bool tt_gather_checkpoint(const uint8_t *body, uint32_t length,
                          struct tt_checkpoint_body *ret)
{
    if (!body || length < sizeof(*ret)) {
        return false;
    }
    memcpy(ret, body, sizeof(*ret));
    return tt_get32(ret->range_count) <=
           (length - sizeof(*ret)) / sizeof(struct tt_range);
}

/* What the disk holds is not redone. */
static void forget_level(struct gather *g)
{
    size_t keep = 0;

    while (keep < g->seen_count &&
           g->seen[g->seen_count - 1 - keep].seq > g->r->level_seq) {
        keep++;
    }
    if (keep) {
        memmove(g->seen, g->seen + (g->seen_count - keep),
                keep * sizeof(*g->seen));
    }
    g->seen_count = keep;
}

static int see_checkpoint(struct gather *g, const struct tt_frame *f,
                          const struct tt_record *rec)
{
    struct tt_recovery *r = g->r;
    struct tt_checkpoint_body cp;
    const uint8_t *body;
    int ret = tt_gather_body(g, f, rec, &body);

    if (ret < 0 || (rec->flags & TT_RECORD_MORE)) {
        return ret;
    }
    if (!tt_gather_checkpoint(body, rec->payload_length, &cp) ||
        tt_get64(cp.level_seq) >= rec->seq) {
        return 0; /* damaged: the one before it serves */
    }
    r->level_seq = tt_get64(cp.level_seq);
    r->has_stat = tt_get32(cp.flags) & TT_CHECKPOINT_HAS_STAT;
    r->disk_inode = tt_get64(cp.disk_inode);
    r->disk_mtime = (int64_t)tt_get64(cp.disk_mtime);
    r->clean = tt_get32(cp.flags) & TT_CHECKPOINT_CLEAN;
    g->checkpoint = f->offset;
    g->checkpoint_seq = rec->seq;
    g->capture_count = 0; /* the map has them */
    forget_level(g);
    return 0;
}

static bool is_recorder(const struct tt_record *rec)
{
    struct tt_session_body s;

    if (!rec->body || rec->payload_length < sizeof(s)) {
        return true;
    }
    memcpy(&s, rec->body, sizeof(s));
    return tt_get32(s.flags) & TT_SESSION_RECORDER;
}

void tt_gather_damage_record(struct gather *g, const struct tt_record *rec)
{
    struct tt_recovery *r = g->r;
    struct tt_damage_body d;

    if (!rec->body || rec->payload_length < sizeof(d)) {
        return;
    }
    memcpy(&d, rec->body, sizeof(d));
    if (g->damaged_to < tt_get64(d.last_seq)) {
        g->damaged_to = tt_get64(d.last_seq);
    }
    for (size_t i = 0; i < r->damage_count; i++) {
        if (r->damages[i].offset == tt_get64(d.offset) &&
            r->damages[i].first_seq == tt_get64(d.first_seq)) {
            r->damages[i] = r->damages[--r->damage_count];
            return;
        }
    }
}

bool tt_gather_born(const struct tt_record *rec, uint64_t *ret_offset,
                    uint64_t *ret_length)
{
    uint64_t from = (rec->disk_offset + TT_GRID - 1) / TT_GRID * TT_GRID;

    if (rec->kind != TT_KIND_RESIZE || rec->disk_length <= from) {
        return false;
    }
    *ret_offset = from;
    *ret_length = rec->disk_length - from;
    return true;
}

static bool remember(struct gather *g, const struct tt_frame *f,
                     const struct tt_record *rec, uint32_t index)
{
    const struct tt_redo redo = {
        .seq = rec->seq,
        .disk_offset = rec->disk_offset,
        .disk_length = rec->disk_length,
        .kind = rec->kind,
        .frame_offset = f->offset,
        .record_index = index,
        .payload = rec->payload_offset ? f->offset + rec->payload_offset : 0,
    };
    struct tt_place capture = { rec->disk_offset, rec->disk_length };

    if (rec->kind != TT_KIND_PREIMAGE &&
        !append_to(&g->seen, &g->seen_count, &g->seen_room, sizeof(redo),
                   &redo)) {
        return false;
    }
    if (rec->kind != TT_KIND_PREIMAGE &&
        !tt_gather_born(rec, &capture.offset, &capture.length)) {
        return true;
    }
    return append_to(&g->captures, &g->capture_count, &g->capture_room,
                     sizeof(capture), &capture);
}

/* The fixed part of a GAP, if its ranges fit behind it. */
static bool get_gap(const uint8_t *body, uint32_t length,
                    struct tt_gap_body *ret)
{
    if (!body || length < sizeof(*ret)) {
        return false;
    }
    memcpy(ret, body, sizeof(*ret));
    return tt_get32(ret->range_count) <=
           (length - sizeof(*ret)) / sizeof(struct tt_range);
}

bool tt_gather_is_open_gap(const uint8_t *body, uint32_t length)
{
    struct tt_gap_body gap;

    return get_gap(body, length, &gap) && (tt_get32(gap.flags) & TT_GAP_OPEN);
}

int tt_gather_gap_ranges(struct gather *g, const uint8_t *body, uint32_t length,
                         int (*add)(struct gather *g, uint64_t offset,
                                    uint64_t length))
{
    struct tt_gap_body gap;
    int ret = 0;

    if (!get_gap(body, length, &gap) || !tt_get32(gap.range_count)) {
        return add(g, 0, TT_DISK_SIZE_MAX);
    }
    for (uint32_t i = 0; i < tt_get32(gap.range_count) && ret == 0; i++) {
        struct tt_range range;
        uint64_t from;

        memcpy(&range, body + sizeof(gap) + i * sizeof(range), sizeof(range));
        from = tt_get64(range.offset);
        if (from < TT_DISK_SIZE_MAX) {
            uint64_t most = TT_DISK_SIZE_MAX - from;

            ret = add(g, from,
                      tt_get64(range.length) < most ? tt_get64(range.length)
                                                    : most);
        }
    }
    return ret;
}

static int never_capture(struct gather *g, uint64_t offset, uint64_t length)
{
    struct tt_place capture = { offset, length };

    return append_to(&g->captures, &g->capture_count, &g->capture_room,
                     sizeof(capture), &capture)
               ? 0
               : no_memory(g);
}

/* What changed unseen must not be captured, and may be anything. */
static int see_gap(struct gather *g, const struct tt_frame *f,
                   const struct tt_record *rec)
{
    struct tt_recovery *r = g->r;
    struct tt_gap_body gap;
    const uint8_t *body;
    int ret = tt_gather_body(g, f, rec, &body);

    if (ret < 0) {
        return ret;
    }
    r->clean = false;
    if (get_gap(body, rec->payload_length, &gap)) {
        if (r->open_gap && tt_get64(gap.opens_seq) == r->open_gap &&
            !(rec->flags & TT_RECORD_MORE)) {
            g->closer.frame = f->offset;
            g->closer.session = f->session;
        }
        if (tt_get32(gap.flags) & TT_GAP_OPEN) {
            r->open_gap = rec->seq;
            g->closer.frame = 0; /* of another one */
            r->gap_from_seq = tt_get64(gap.from_seq);
            r->gap_from_epoch = tt_get64(gap.from_epoch);
            r->gap_from_time = (int64_t)tt_get64(gap.from_time);
            return 0;
        }
    }
    return tt_gather_gap_ranges(g, body, rec->payload_length, never_capture);
}

static int see_record(struct gather *g, const struct tt_frame *f,
                      const struct tt_record *rec, uint32_t index)
{
    struct tt_recovery *r = g->r;

    switch (rec->kind) {
    case TT_KIND_CHECKPOINT:
        return see_checkpoint(g, f, rec);
    case TT_KIND_SESSION:
        if (is_recorder(rec)) {
            r->clean = false;
        }
        break;
    case TT_KIND_DAMAGE:
        tt_gather_damage_record(g, rec);
        break;
    case TT_KIND_GAP:
        return see_gap(g, f, rec);
    case TT_KIND_WRITE:
    case TT_KIND_ZERO:
    case TT_KIND_PREIMAGE:
    case TT_KIND_RESIZE:
        r->clean = false;
        if (!remember(g, f, rec, index)) {
            return no_memory(g);
        }
        break;
    }
    return 0;
}

/*
 * The frame @f comes next.  A GAP that closes the open one counts only if its
 * own session went on behind it: if its append had failed, whole though it is,
 * the writer knew the gap to be open, and what went unrecorded after that may
 * be in no range.  That it is durable says nothing: recovery makes it so.
 */
static void see_closer(struct gather *g, const struct tt_frame *f)
{
    if (g->closer.frame && f->prev_offset == g->closer.frame &&
        f->session == g->closer.session) {
        g->r->open_gap = 0;
    }
    g->closer.frame = 0;
}

/* Keeps what may have to be written again: usually the last few frames. */
static bool keep_frame(struct gather *g, const struct tt_frame *f)
{
    const struct accepted a = { { f->offset, f->length },
                                tt_frame_last_seq(f) };

    if (g->frame_count &&
        g->frames[g->frame_count - 1].last_seq <= f->durable_seq) {
        g->frame_count = 0;
    }
    return append_to(&g->frames, &g->frame_count, &g->frame_room, sizeof(a),
                     &a);
}

static int see_frame(void *opaque, const struct tt_frame *f,
                     const uint8_t *table)
{
    struct gather *g = opaque;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;

    tt_writer_seen(&g->r->writer, f, table);
    see_closer(g, f);
    if (!keep_frame(g, f)) {
        return no_memory(g);
    }
    while (tt_table_next(f, table, &pos, &index, &rec)) {
        int ret = see_record(g, f, &rec, index - 1);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int tt_gather_damage(void *opaque, const struct tt_damage *d)
{
    struct gather *g = opaque;

    if (g->damaged_to < d->last_seq) {
        g->damaged_to = d->last_seq;
    }
    return append_to(&g->r->damages, &g->r->damage_count, &g->damage_room,
                     sizeof(*d), d)
               ? 0
               : no_memory(g);
}

/* ---- where to begin ---------------------------------------------------- */

/* level_seq of the newest CHECKPOINT before the frame at @from; 0: none. */
static int level_before(struct gather *g, uint64_t from, uint64_t *ret_level)
{
    struct tt_frame f;
    struct tt_record rec;
    uint32_t pos = 0, index = 0;
    int ret = tt_frame_read(g->super, g->src, from, g->head, &f, g->err);

    *ret_level = 0;
    if (ret <= 0 || !f.checkpoint_offset) {
        return ret < 0 ? ret : 0;
    }
    ret = tt_frame_read(g->super, g->src, f.checkpoint_offset, g->head, &f,
                        g->err);
    if (ret <= 0) {
        return ret;
    }
    while (tt_table_next(&f, g->head + HEADER, &pos, &index, &rec)) {
        struct tt_checkpoint_body cp;
        const uint8_t *body;

        if (rec.kind != TT_KIND_CHECKPOINT) {
            continue;
        }
        ret = tt_gather_body(g, &f, &rec, &body);
        if (ret < 0) {
            return ret;
        }
        if (tt_gather_checkpoint(body, rec.payload_length, &cp)) {
            *ret_level = tt_get64(cp.level_seq);
        }
    }
    return 0;
}

/* The first frame of the segment from which every redo can be found. */
static int where_to_begin(struct gather *g, uint64_t *ret_from)
{
    uint64_t level, segment;
    struct tt_frame f;
    int ret = tt_scan_start(g->super, g->src, ret_from, g->err);

    if (ret < 0 || !*ret_from) {
        return ret;
    }
    ret = level_before(g, *ret_from, &level);
    if (ret < 0 || !level) {
        *ret_from = 0;
        return ret;
    }
    segment = (*ret_from - g->super->segments_offset) / g->super->segment_size;
    for (; segment > 0; segment--) {
        uint64_t start = tt_segment_offset(g->super, segment);

        ret = tt_frame_read(g->super, g->src, start, g->head, &f, g->err);
        if (ret < 0) {
            return ret;
        }
        if (ret && f.first_seq <= level + 1) {
            *ret_from = start;
            return 0;
        }
    }
    *ret_from = 0;
    return 0;
}

/* ---- redos and samples ------------------------------------------------- */

static int cover(struct gather *g, uint64_t offset, uint64_t length)
{
    return tt_blocks_add(g->covered, offset, length) ? 0 : no_memory(g);
}

/* Adds the parts of [offset, offset + length) that nothing newer covers. */
static int add_redo(struct gather *g, const struct tt_redo *from,
                    uint64_t offset, uint64_t length, uint16_t kind)
{
    struct tt_recovery *r = g->r;
    uint64_t end = offset + length;

    for (uint64_t at = offset, run; at < end; at += run) {
        struct tt_redo part = *from;

        if (tt_blocks_test(g->covered, at, end - at, &run)) {
            continue;
        }
        part.kind = kind;
        part.disk_offset = at;
        part.disk_length = run;
        if (part.payload) {
            part.payload += at - offset;
        }
        if (!append_to(&r->redos, &r->redo_count, &g->redo_room, sizeof(part),
                       &part)) {
            return no_memory(g);
        }
    }
    return cover(g, offset, length);
}

/* A range behind the disk's end is gone; nothing older is to be seen. */
static int redo_resize(struct gather *g, const struct tt_redo *from)
{
    uint64_t old = from->disk_offset, size = from->disk_length;
    struct tt_recovery *r = g->r;

    r->resized = true;
    if (!append_to(&r->sizes, &r->size_count, &g->size_room, sizeof(old),
                   &old) ||
        !append_to(&r->sizes, &r->size_count, &g->size_room, sizeof(size),
                   &size)) {
        return no_memory(g);
    }
    if (size > old) {
        return add_redo(g, from, old, size - old, TT_KIND_ZERO);
    }
    return cover(g, size, old - size);
}

/* Nothing is redone behind the disk's end. */
static int cover_behind_end(struct gather *g, const struct tt_redo *seen)
{
    uint64_t size = g->r->scan.disk_size;
    uint64_t end = seen->disk_offset + seen->disk_length;
    uint64_t from = seen->disk_offset > size ? seen->disk_offset : size;

    return seen->kind == TT_KIND_RESIZE || end <= size
               ? 0
               : cover(g, from, end - from);
}

static int find_redos(struct gather *g)
{
    struct tt_recovery *r = g->r;
    int ret = 0;

    for (size_t i = g->seen_count; i-- > 0 && ret == 0;) {
        ret = cover_behind_end(g, &g->seen[i]);
    }
    for (size_t i = g->seen_count; i-- > 0 && ret == 0;) {
        const struct tt_redo *s = &g->seen[i];

        if (s->seq <= r->level_seq) {
            break;
        }
        ret = s->kind == TT_KIND_RESIZE
                  ? redo_resize(g, s)
                  : add_redo(g, s, s->disk_offset, s->disk_length, s->kind);
    }
    return ret;
}

/* Adds a sample if nothing newer covers any of it, as far as is bounded. */
static int add_sample(struct gather *g, const struct tt_redo *from,
                      uint64_t *bytes)
{
    struct tt_redo s = *from;
    uint64_t run;

    if (s.disk_offset + s.disk_length > g->r->scan.disk_size ||
        tt_blocks_test(g->covered, s.disk_offset, s.disk_length, &run) ||
        run < s.disk_length) {
        return cover(g, from->disk_offset, from->disk_length);
    }
    if (s.disk_length > TT_PAYLOAD_RECORD_MAX) {
        s.disk_length = TT_PAYLOAD_RECORD_MAX; /* of a ZERO */
    }
    if (!append_to(&g->r->samples, &g->r->sample_count, &g->sample_room,
                   sizeof(s), &s)) {
        return no_memory(g);
    }
    *bytes += s.disk_length;
    return cover(g, from->disk_offset, from->disk_length);
}

/* An open one has a newer one that closes it: that knows the ranges. */
static int sample_gap(struct gather *g, const struct tt_frame *f,
                      const struct tt_record *rec)
{
    const uint8_t *body;
    int ret = tt_gather_body(g, f, rec, &body);

    if (ret < 0 || tt_gather_is_open_gap(body, rec->payload_length)) {
        return ret;
    }
    return tt_gather_gap_ranges(g, body, rec->payload_length, cover);
}

static int sample_frame(struct gather *g, const struct tt_frame *f,
                        uint64_t *bytes)
{
    struct tt_record recs[TT_HEAD_MAX / sizeof(struct tt_record_header)];
    uint32_t pos = 0, index = 0, count = 0;
    int ret = 0;

    while (count < sizeof(recs) / sizeof(recs[0]) &&
           tt_table_next(f, g->head + HEADER, &pos, &index, &recs[count])) {
        count++;
    }
    for (uint32_t i = count; i-- > 0 && ret == 0;) {
        const struct tt_record *rec = &recs[i];
        struct tt_redo s = {
            .seq = rec->seq,
            .disk_offset = rec->disk_offset,
            .disk_length = rec->disk_length,
            .kind = rec->kind,
            .frame_offset = f->offset,
            .record_index = i,
        };

        if (rec->kind == TT_KIND_GAP) {
            ret = sample_gap(g, f, rec);
            continue;
        }
        if (rec->seq > g->r->level_seq) {
            continue; /* a redo covers it */
        }
        if (rec->kind == TT_KIND_WRITE || rec->kind == TT_KIND_ZERO) {
            ret = add_sample(g, &s, bytes);
        } else if (rec->kind == TT_KIND_RESIZE &&
                   rec->disk_length < rec->disk_offset) {
            ret =
                cover(g, rec->disk_length, rec->disk_offset - rec->disk_length);
        }
    }
    return ret;
}

/* Walks back from the last frame; damage ends it early, which is no error. */
static int find_samples(struct gather *g)
{
    struct tt_recovery *r = g->r;
    uint64_t at = r->scan.empty ? 0 : r->scan.last.offset, bytes = 0;
    int ret = 0;

    for (unsigned n = 0;
         at && n < SAMPLE_FRAMES_MAX && r->sample_count < SAMPLES_MAX &&
         bytes < SAMPLE_BYTES_MAX;
         n++) {
        struct tt_frame f;

        ret = tt_frame_read(g->super, g->src, at, g->head, &f, g->err);
        if (ret <= 0) {
            return ret;
        }
        ret = sample_frame(g, &f, &bytes);
        if (ret < 0) {
            return ret;
        }
        if (f.flags & TT_FRAME_AFTER_DAMAGE) {
            break; /* what is missing may be newer than what is before it */
        }
        at = f.prev_offset;
    }
    return 0;
}

/* ---- all together ------------------------------------------------------ */

static int find_rewrites(struct gather *g)
{
    struct tt_recovery *r = g->r;
    size_t room = 0;

    for (size_t i = 0; i < g->frame_count; i++) {
        if (g->frames[i].last_seq > r->scan.durable_seq &&
            !append_to(&r->rewrites, &r->rewrite_count, &room,
                       sizeof(g->frames[i].place), &g->frames[i].place)) {
            return no_memory(g);
        }
    }
    return 0;
}

/* The boot that the last frame's boottime belongs to, if it can be read. */
static int find_boot_id(struct gather *g)
{
    struct tt_recovery *r = g->r;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;
    struct tt_frame f;
    int ret;

    if (r->scan.empty || !r->scan.last.session_offset) {
        return 0;
    }
    ret = tt_frame_read(g->super, g->src, r->scan.last.session_offset, g->head,
                        &f, g->err);
    while (ret > 0 && tt_table_next(&f, g->head + HEADER, &pos, &index, &rec)) {
        struct tt_session_body s;

        if (rec.kind == TT_KIND_SESSION && rec.body &&
            rec.payload_length >= sizeof(s)) {
            memcpy(&s, rec.body, sizeof(s));
            memcpy(r->boot_id, s.boot_id, TT_UUID_SIZE);
            r->has_boot_id = true;
        }
    }
    return ret < 0 ? ret : 0;
}

static int gather_all(struct gather *g)
{
    const struct tt_scan_ops ops = {
        .frame = see_frame,
        .damage = tt_gather_damage,
        .opaque = g,
    };
    struct tt_recovery *r = g->r;
    uint64_t from;
    int ret;

    g->head = malloc(TT_HEAD_MAX);
    g->body = malloc(TT_PAYLOAD_RECORD_MAX);
    g->covered = tt_blocks_new(TT_SECTOR);
    r->captured = tt_blocks_new(TT_GRID);
    r->unmapped = tt_blocks_new(TT_GRID);
    if (!g->head || !g->body || !g->covered || !r->captured || !r->unmapped) {
        return no_memory(g);
    }
    r->writer.super = *g->super;
    ret = where_to_begin(g, &from);
    if (ret == 0) {
        ret = tt_scan_run(g->super, g->src, from, &ops, &r->scan, g->err);
    }
    if (ret == 0) {
        ret = find_rewrites(g);
    }
    if (ret == 0) {
        ret = tt_gather_captured(g);
    }
    if (ret == 0) {
        ret = find_redos(g);
    }
    if (ret == 0 && !r->open_gap) {
        ret = find_samples(g);
    }
    if (ret == 0) {
        ret = find_boot_id(g);
    }
    return ret;
}

int tt_recovery_run(const struct tt_super *super, const struct tt_source *src,
                    struct tt_recovery *ret_recovery, struct tt_error *err)
{
    struct tt_error own_err;
    struct gather g = {
        .super = super,
        .src = src,
        .r = ret_recovery,
        .err = err ? err : &own_err,
    };
    int ret;

    memset(ret_recovery, 0, sizeof(*ret_recovery));
    ret = gather_all(&g);
    free(g.head);
    free(g.body);
    free(g.seen);
    free(g.frames);
    free(g.captures);
    tt_blocks_free(g.covered);
    return ret;
}

void tt_recovery_clear(struct tt_recovery *r)
{
    tt_writer_clear(&r->writer);
    free(r->rewrites);
    free(r->redos);
    free(r->samples);
    free(r->damages);
    free(r->sizes);
    tt_blocks_free(r->captured);
    tt_blocks_free(r->unmapped);
    memset(r, 0, sizeof(*r));
}
