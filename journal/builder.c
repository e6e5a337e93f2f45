/*
 * Building an index: segment after segment
 *
 * A segment that can be skipped (skip.c) is: its versions come from its
 * footer.  Another one is scanned, frame by frame, and so are those behind it
 * while they are damaged: what a footer tells later of missing records must be
 * in the same run as they would be.  If durable history ends before that is
 * over, all of it is left to whoever reads the tail.
 *
 * What is covered ends at the start of a segment whose first frame is durable,
 * as a scan of the journal's end has found (from tt_scan_start() on); from
 * there back, frames tell which segments begin with history (tt_skip_vouch()),
 * and footers are taken from these alone.
 *
 * Invariant: the catalog's rest is that of all that was taken in, written or
 * not.  A segment is taken in whole or not at all.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "catalog.h"
#include "pend.h"
#include "skip.h"

#define HEADER sizeof(struct tt_frame_header)
/* Of so many frames the time is stored once. */
#define FRAMES_A_POINT 8u
#define RECORDS_MAX (1u << 20) /* in a segment whose frames are kept */

/* A frame that begins with a record */
struct start {
    uint32_t offset; /* from the segment's; 0: none, or it is the first one */
    int64_t time;
};

struct tt_builder {
    struct tt_catalog *catalog;
    const struct tt_source *src;
    struct tt_super super;
    size_t memory;
    bool begun;
    bool broken; /* what was taken in is not whole */

    /* Where reading goes on, as in the catalog once all is written */
    uint64_t next_offset, next_chain, end_chain, last_seq;
    uint64_t limit; /* nothing behind this may be covered */
    /* Bits for the segments from there on to the limit's: begin with history */
    uint64_t vouched_from;
    uint8_t *vouched;
    struct pend pend;
    struct tt_builder_stats stats;

    /* The segment that is being taken in */
    const struct skip *skip;
    struct start *starts; /* by its records, or NULL if there are too many */
    uint64_t newest_version;
    int64_t last_time;
    struct tt_history_stats counts;

    /* The stretch that is being scanned */
    uint64_t stretch; /* where it began */
    bool damaged;     /* since the last segment's start */
    bool ended;
    unsigned frames; /* since the last point */
    struct tt_error *err;

    uint8_t body[TT_PAYLOAD_RECORD_MAX];
};

static int no_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

struct tt_builder *tt_builder_new(struct tt_catalog *catalog,
                                  const struct tt_source *src, size_t memory)
{
    struct tt_builder *b = calloc(1, sizeof(*b));

    if (b) {
        b->catalog = catalog;
        b->src = src;
        b->memory = memory < TT_MIB ? TT_MIB : memory;
        b->next_offset = catalog->next_offset;
        b->next_chain = catalog->next_chain;
        b->end_chain = catalog->end_chain;
        b->last_seq = catalog->last_seq;
    }
    return b;
}

void tt_builder_free(struct tt_builder *b)
{
    if (b) {
        tt_catalog_free(b->catalog);
        tt_pend_clear(&b->pend);
        free(b->vouched);
        free(b->starts);
        free(b);
    }
}

struct tt_catalog *tt_builder_catalog(struct tt_builder *b)
{
    return b->catalog;
}

bool tt_builder_pending(const struct tt_builder *b)
{
    return b->last_seq != b->catalog->last_seq;
}

void tt_builder_stats(const struct tt_builder *b,
                      struct tt_builder_stats *ret_stats)
{
    *ret_stats = b->stats;
    ret_stats->journal_end = b->next_offset;
    ret_stats->journal_due = b->limit;
}

/* What is covered ends before the frame @f. */
static void covered_until(struct tt_builder *b, const struct tt_frame *f)
{
    b->next_offset = f->offset;
    b->next_chain = f->own_chain;
    b->end_chain = f->chain;
    b->last_seq = f->first_seq - 1;
}

/* ---- by its footer ----------------------------------------------------- */

/* The parts of a footer name a frame with versions once or more. */
static bool note_starts(struct tt_builder *b, const struct footer_part *part)
{
    for (uint32_t i = 0; i < part->frame_count && b->starts; i++) {
        struct footer_times t;
        struct start *s;

        tt_footer_times(part, i, &t);
        if (!t.begins_frame || t.seq == part->first_seq) {
            continue;
        }
        s = &b->starts[t.seq - part->first_seq];
        if (s->offset && (s->offset != t.offset - part->segment_offset ||
                          s->time != t.time)) {
            return false;
        }
        s->offset = (uint32_t)(t.offset - part->segment_offset);
        s->time = t.time;
    }
    return true;
}

static void count(struct tt_history_stats *s, const struct placed *v)
{
    s->writes += v->kind == TT_KIND_WRITE;
    s->zeroes += v->kind == TT_KIND_ZERO;
    s->preimages += v->kind == TT_KIND_PREIMAGE;
    s->written_bytes += v->kind == TT_KIND_WRITE ? v->disk_length : 0;
}

static int take_part(void *opaque, struct footer_part *part)
{
    struct tt_builder *b = opaque;

    b->last_time = part->last_time;
    if (!note_starts(b, part)) {
        return 0;
    }
    for (uint32_t i = 0; i < part->entry_count; i++) {
        struct placed v;

        if (!tt_footer_next(&b->super, part, &v)) {
            return 0;
        }
        if (!tt_pend_version(&b->pend, &v)) {
            return no_memory(b->err);
        }
        count(&b->counts, &v);
        if (v.seq > b->newest_version) {
            b->newest_version = v.seq;
        }
    }
    return 1;
}

/* 1; 0: the parts of the footer do not agree on the order of frames. */
static int add_points(struct tt_builder *b)
{
    const struct tt_frame *head = &b->skip->head;
    uint64_t count = b->skip->next.first_seq - head->first_seq;
    struct start last = { 0, head->first_time };

    b->frames = 0;
    if (!tt_pend_time(&b->pend, head->first_seq, head->first_time,
                      head->offset)) {
        return no_memory(b->err);
    }
    for (uint64_t i = 1; b->starts && i < count; i++) {
        const struct start *s = &b->starts[i];

        if (!s->offset) {
            continue;
        }
        if (s->offset <= last.offset || s->time < last.time) {
            return 0;
        }
        last = *s;
        if (++b->frames < FRAMES_A_POINT) {
            continue;
        }
        b->frames = 0;
        if (!tt_pend_time(&b->pend, head->first_seq + i, s->time,
                          head->offset + s->offset)) {
            return no_memory(b->err);
        }
    }
    return 1;
}

/* Takes in what the footer did not say. */
static int take_rest(struct tt_builder *b)
{
    struct tt_history *h = b->catalog->rest;
    const struct skip *s = b->skip;
    bool clean = h->stats.clean && !b->newest_version;
    uint64_t checkpoint_seq = 0;
    uint8_t head[TT_HEAD_MAX];
    struct tt_epoch *e;
    int ret = 1;

    for (size_t i = 0; i < s->frame_count && ret > 0; i++) {
        struct tt_frame f;

        ret = tt_frame_read(&b->super, b->src, s->frames[i], head, &f, b->err);
        if (ret == 0) {
            ret = tt_fail(b->err, TT_ECHANGED, 0,
                          "the journal was changed at %" PRIu64, s->frames[i]);
        }
        if (ret > 0) {
            if (f.offset == s->checkpoint) {
                checkpoint_seq = tt_frame_last_seq(&f);
            }
            ret = tt_history_take_rest(h, &f, head + HEADER);
            ret = ret < 0 ? ret : 1;
        }
    }
    if (ret < 0) {
        b->broken = true;
        return ret;
    }
    if (!checkpoint_seq) {
        h->stats.clean = h->stats.clean && clean;
    } else if (b->newest_version > checkpoint_seq) {
        h->stats.clean = false;
    }
    e = &h->epochs[h->epochs_count - 1];
    e->last_seq = s->next.first_seq - 1;
    e->last_time = b->last_time;
    if (e->end_time < e->last_time) {
        e->end_time = e->last_time;
    }
    h->scan.last_seq = e->last_seq;
    h->last_segment = s->segment;
    h->stats.records += s->next.first_seq - s->head.first_seq;
    h->stats.writes += b->counts.writes;
    h->stats.zeroes += b->counts.zeroes;
    h->stats.preimages += b->counts.preimages;
    h->stats.written_bytes += b->counts.written_bytes;
    return 1;
}

/* Room for the segment's records, by number; without it, few times are known */
static void begin_starts(struct tt_builder *b)
{
    uint64_t n = b->skip->next.first_seq - b->skip->head.first_seq;

    free(b->starts);
    b->starts = n <= RECORDS_MAX ? calloc(n, sizeof(*b->starts)) : NULL;
}

/* Is it known that segment @k, up to the limit's, begins with history? */
static bool is_vouched(const struct tt_builder *b, uint64_t k)
{
    uint64_t i = k - b->vouched_from;

    return b->vouched[i / 8] >> i % 8 & 1;
}

/* 1 if segment @k was taken in by its footer, 0 if it must be scanned. */
static int take_segment(struct tt_builder *b, uint64_t k)
{
    struct pend_mark mark;
    struct skip skip;
    int ret;

    if (!is_vouched(b, k) || !is_vouched(b, k + 1)) {
        return 0;
    }
    ret = tt_skip_look(&skip, &b->super, b->src, k, b->last_seq + 1, b->err);
    if (ret > 0) {
        b->skip = &skip;
        b->newest_version = 0;
        b->counts = (struct tt_history_stats){ 0 };
        begin_starts(b);
        tt_pend_mark(&b->pend, &mark);
        ret = tt_skip_footer(&skip, b->body, take_part, b);
        if (ret > 0) {
            ret = add_points(b);
        }
        if (ret > 0) {
            ret = take_rest(b);
        }
        if (ret > 0) {
            covered_until(b, &skip.next);
            b->stats.from_footers++;
            b->stats.segments++;
        } else {
            tt_pend_back(&b->pend, &mark);
        }
    }
    b->skip = NULL;
    tt_skip_clear(&skip);
    return ret;
}

/* ---- frame by frame ---------------------------------------------------- */

static int sink_version(void *opaque, const struct placed *v,
                        struct tt_error *err)
{
    struct tt_builder *b = opaque;

    return tt_pend_version(&b->pend, v) ? 0 : no_memory(err);
}

static int sink_frame(void *opaque, const struct tt_frame *f,
                      struct tt_error *err)
{
    struct tt_builder *b = opaque;

    if (!(f->flags & TT_FRAME_SEGMENT_START) &&
        !b->catalog->rest->after_damage && ++b->frames < FRAMES_A_POINT) {
        return 0;
    }
    b->frames = 0;
    return tt_pend_time(&b->pend, f->first_seq, f->first_time, f->offset)
               ? 0
               : no_memory(err);
}

static int scan_frame(void *opaque, const struct tt_frame *f,
                      const uint8_t *table)
{
    struct tt_builder *b = opaque;

    if (f->offset >= b->limit ||
        ((f->flags & TT_FRAME_SEGMENT_START) && f->offset != b->stretch)) {
        /* the footer that tells of damage is in the segment behind it */
        if (!b->damaged && (f->flags & TT_FRAME_SEGMENT_START)) {
            covered_until(b, f);
            b->ended = true;
        }
        if (b->ended || f->offset >= b->limit) {
            return -TT_ECHANGED;
        }
        b->damaged = false;
        b->stats.segments++;
    }
    return tt_history_take_frame(b->catalog->rest, f, table);
}

/*
 * Is there what should be missing?  Then the medium had an error for a moment
 * only; or the frame is stale, which a scan knows.
 */
static bool can_be_read(const struct tt_builder *b, uint64_t offset)
{
    const struct tt_scan *scan = &b->catalog->rest->scan;
    uint8_t head[TT_HEAD_MAX];
    struct tt_frame f;

    return tt_frame_read(&b->super, b->src, offset, head, &f, NULL) > 0 &&
           tt_frame_links(scan->empty ? NULL : &scan->last, &f);
}

static int scan_damage(void *opaque, const struct tt_damage *d)
{
    struct tt_builder *b = opaque;
    uint64_t look, next = tt_segment_offset(
                       &b->super, tt_segment_at(&b->super, d->offset) + 1);
    int ret =
        tt_catalog_look(&b->super, b->src, d, &look, b->catalog->rest->err);

    if (ret < 0) {
        return ret;
    }
    if (b->catalog->rest->scan.unreadable &&
        (can_be_read(b, d->offset) || can_be_read(b, next))) {
        return -TT_ECHANGED; /* not now: it is covered another time */
    }
    b->damaged = true;
    return tt_catalog_add_look(b->catalog, look)
               ? tt_history_take_damage(b->catalog->rest, d)
               : no_memory(b->catalog->rest->err);
}

/* Makes the rest what it was. */
static int take_back(struct tt_builder *b, const struct bytes *rest)
{
    struct byte_reader r = { .p = rest->p, .left = rest->count };
    struct tt_history *h = b->catalog->rest;
    int ret;

    tt_history_reset(h);
    h->super = b->super;
    ret = tt_rest_decode(h, &r);
    b->broken = ret < 0;
    return ret < 0 ? no_memory(b->err) : 0;
}

/* 1 if what is next was taken in, 0 if it cannot be covered yet. */
static int scan_stretch(struct tt_builder *b)
{
    const struct tt_scan_ops ops = { .frame = scan_frame,
                                     .damage = scan_damage,
                                     .opaque = b };
    const struct history_sink sink = { sink_version, sink_frame, b };
    struct tt_history *h = b->catalog->rest;
    uint64_t from = b->last_seq ? b->next_offset : 0;
    struct tt_builder_stats stats = b->stats;
    size_t looks = b->catalog->look_count;
    struct bytes before = { 0 };
    struct pend_mark mark;
    struct tt_error err = { 0 };
    int ret;

    if (!tt_rest_encode(h, &before)) {
        free(before.p);
        return no_memory(b->err);
    }
    tt_pend_mark(&b->pend, &mark);
    b->stretch = b->next_offset;
    b->damaged = b->ended = false;
    b->stats.segments++;
    b->frames = 0;
    h->src = b->src;
    h->err = &err;
    h->sink = &sink;
    h->covered_seq = b->catalog->last_seq;
    ret = tt_scan_run(&b->super, b->src, from, &ops, &h->scan, &err);
    if (b->ended) {
        ret = tt_history_settle(h);
        h->sink = NULL;
        ret = ret < 0 ? no_memory(b->err) : 1;
    } else {
        bool failed = ret < 0 && err.code;

        tt_pend_back(&b->pend, &mark);
        b->stats = stats;
        b->catalog->look_count = looks;
        ret = take_back(b, &before);
        if (ret == 0 && failed) {
            if (b->err) {
                *b->err = err;
            }
            ret = -err.code;
        }
    }
    free(before.p);
    return ret;
}

/* ---- filling ----------------------------------------------------------- */

static int begin(struct tt_builder *b)
{
    struct tt_history *h = b->catalog->rest;
    int ret = tt_catalog_check(b->catalog, b->src, b->err);

    if (ret == 0) {
        ret = tt_super_read(b->src, &b->super, NULL, b->err);
    }
    if (ret == 0 && b->last_seq) {
        h->super = b->super;
    } else if (ret == 0) {
        tt_history_reset(h);
        ret = tt_history_begin(h, b->src, b->err);
        b->next_offset = b->super.segments_offset;
    }
    b->begun = ret == 0;
    return ret;
}

/* Starts of segments that a scan has accepted */
struct starts {
    struct segment_start {
        uint64_t offset, last_seq; /* of its first frame */
    } * list;
    size_t count, room;
    const struct tt_scan *scan;
    bool ended; /* the newest one is durable */
};

/* Stops once nothing more can come of it. */
static bool is_enough(struct starts *s)
{
    const struct segment_start *last;

    if (s->count) {
        last = &s->list[s->count - 1];
        s->ended = last->offset >= s->scan->newest_start &&
                   last->last_seq <= s->scan->durable_seq;
    }
    return s->ended;
}

static int note_start(void *opaque, const struct tt_frame *f,
                      const uint8_t *table)
{
    struct starts *s = opaque;

    (void)table;
    if (!(f->flags & TT_FRAME_SEGMENT_START)) {
        return is_enough(s) ? -TT_ECHANGED : 0;
    }
    if (!tt_history_room(&s->list, s->count, &s->room, sizeof(*s->list))) {
        return -TT_ENOMEM;
    }
    s->list[s->count++] =
        (struct segment_start){ f->offset, tt_frame_last_seq(f) };
    return is_enough(s) ? -TT_ECHANGED : 0;
}

/* Finds out which segments up to the limit may be skipped. */
static int vouch(struct tt_builder *b)
{
    uint64_t first = tt_segment_at(&b->super, b->next_offset);
    uint64_t last = tt_segment_at(&b->super, b->limit);
    int ret;

    free(b->vouched);
    b->vouched_from = first;
    b->vouched = calloc(1, (last - first) / 8 + 1);
    ret = b->vouched ? tt_skip_vouch(&b->super, b->src, first, last, b->vouched,
                                     b->err)
                     : no_memory(b->err);
    if (ret < 0) {
        b->limit = 0; /* nothing is known of what is before it */
    }
    return ret;
}

/*
 * Finds out how far can be gone; 0 if that is not beyond what was.  The first
 * frame behind what is covered must be durable, too: the catalog names it; so
 * nothing before that is read again; nor is anything if the headers of
 * segments alone tell that it can be gone up to @enough.
 */
static int find_limit(struct tt_builder *b, uint64_t enough)
{
    struct tt_scan scan;
    struct starts starts = { .scan = &scan };
    const struct tt_scan_ops ops = {
        .frame = note_start,
        .opaque = &starts,
        .moving = true,
    };
    uint64_t from = 0;
    int ret = tt_scan_start(&b->super, b->src, &from, b->err);

    b->limit = from;
    if (ret == 0 && from < enough) {
        if (b->last_seq && from < b->next_offset) {
            from = b->next_offset;
        }
        ret = tt_scan_run(&b->super, b->src, from, &ops, &scan, b->err);
        if (ret == -TT_ENOMEM) {
            ret = no_memory(b->err);
        } else if (starts.ended) {
            ret = 0;
        }
    }
    for (size_t i = 0; i < starts.count && ret == 0; i++) {
        const struct segment_start *s = &starts.list[i];

        if (s->last_seq <= scan.durable_seq && s->offset > b->limit) {
            b->limit = s->offset;
        }
    }
    free(starts.list);
    if (ret == 0 && b->next_offset < b->limit) {
        ret = vouch(b);
        return ret < 0 ? ret : 1;
    }
    return ret;
}

int tt_builder_look(struct tt_builder *b, uint64_t enough, struct tt_error *err)
{
    int ret = 0;

    b->err = err;
    if (!b->begun) {
        ret = begin(b);
    }
    if (ret == 0) {
        ret = find_limit(b, enough);
    }
    b->err = NULL;
    return ret;
}

int tt_builder_fill(struct tt_builder *b, struct tt_error *err)
{
    struct tt_history *h = b->catalog->rest;
    int ret = 0;

    b->err = err;
    if (b->broken) {
        return tt_fail(err, TT_EINVAL, 0, "the index was not built whole");
    }
    if (!b->begun) {
        ret = begin(b);
    }
    if (ret < 0 || b->pend.memory >= b->memory) {
        return ret;
    }
    if (b->next_offset >= b->limit) {
        ret = find_limit(b, b->next_offset + 1);
        if (ret <= 0) {
            return ret;
        }
    }
    h->src = b->src;
    h->err = err;
    ret = take_segment(b, (b->next_offset - b->super.segments_offset) /
                              b->super.segment_size);
    if (ret == 0) {
        ret = scan_stretch(b);
    }
    free(h->body);
    h->body = NULL;
    h->src = NULL;
    h->err = NULL;
    b->err = NULL;
    return ret;
}

int tt_builder_write(struct tt_builder *b, const uint8_t id[static 16],
                     const struct tt_sink *sink, struct tt_error *err)
{
    struct tt_catalog *c = b->catalog;
    struct tt_run_info info = {
        .first_seq = c->last_seq + 1,
        .last_seq = b->last_seq,
        .versions = b->pend.versions,
    };
    struct run_writer *w = tt_run_writer_new(id, c->uuid, sink);
    int ret = 0;

    if (!w || !tt_pend_write(&b->pend, w)) {
        ret = no_memory(err);
    }
    if (ret == 0) {
        ret = tt_run_writer_end(w, b->end_chain, &info, err);
    }
    if (ret == 0 && !tt_catalog_add_run(c, &info)) {
        ret = no_memory(err);
    }
    tt_run_writer_free(w);
    if (ret < 0) {
        return ret;
    }
    b->stats.versions += info.versions;
    b->stats.entries += info.entries;
    tt_pend_reset(&b->pend);
    c->next_offset = b->next_offset;
    c->next_chain = b->next_chain;
    c->end_chain = b->end_chain;
    c->last_seq = b->last_seq;
    return 0;
}
