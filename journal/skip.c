/*
 * Segments that need not be read: their footers say what they hold
 *
 * A footer lists the versions of its segment with their places and checksums,
 * and names the chain value of the segment's last frame.  The header of the
 * next segment, which is in history, names it too: so the footer is of this
 * history, and speaks of all of the segment.  That is all that it is trusted
 * for.  Bytes are checked when they are read, as ever.
 *
 * That a segment's header is in history only frames behind it can say: one that
 * is names the frame before it, and where one frame is history the first frame
 * of its segment is, for there a writer begins.  What no frame names may be all
 * that a power cut left of an append, with its footer, if history went on in a
 * segment behind it.
 *
 * What is no version is found by the short cuts of the next segment's header:
 * they go from one notable frame, or session, to the one before.  If one of
 * these cannot be read, or anything else does not fit, the segment is not
 * skipped, and a scan finds out what is wrong.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "skip.h"

#define HEADER sizeof(struct tt_frame_header)

/* ---- frames ------------------------------------------------------------ */

/* 1 and *f if a valid frame lies there; 0 also if the medium has an error. */
static int get_frame(const struct skip *s, uint64_t offset, uint8_t *head,
                     struct tt_frame *f)
{
    struct tt_error err = { 0 };
    int ret = tt_frame_read(s->super, s->src, offset, head, f, &err);

    if (ret == -TT_EIO && err.os_errno == EIO) {
        return 0;
    }
    if (ret < 0 && s->err) {
        *s->err = err;
    }
    return ret;
}

static bool in_segment(const struct skip *s, uint64_t offset)
{
    return offset >= s->head.offset &&
           offset < tt_segment_offset(s->super, s->segment + 1);
}

static int add_frame(struct skip *s, uint64_t offset)
{
    if (!tt_history_room(&s->frames, s->frame_count, &s->frame_room,
                         sizeof(*s->frames))) {
        return tt_fail(s->err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    s->frames[s->frame_count++] = offset;
    return 1;
}

/* ---- which segments begin with history ----------------------------------- */

/*
 * The start of the segment of @above is history, that of the segment before it
 * cannot be read.  May @f, the start of one below, be history?  Sessions follow
 * each other; what a later one began in the stead of is stale.
 */
static bool comes_before(const struct tt_frame *f, const struct tt_frame *above)
{
    return f->first_seq < above->first_seq && f->session <= above->session &&
           (f->session == above->session ||
            f->first_seq < above->session_first_seq);
}

int tt_skip_vouch(const struct tt_super *super, const struct tt_source *src,
                  uint64_t first, uint64_t last, uint8_t *bits,
                  struct tt_error *err)
{
    const struct skip s = { .super = super, .src = src, .err = err };
    uint8_t head[TT_HEAD_MAX];
    struct tt_frame f, above = { .first_seq = UINT64_MAX,
                                 .session = UINT64_MAX,
                                 .session_first_seq = UINT64_MAX };
    uint64_t named = last; /* by a frame that is history */

    for (uint64_t k = last;; k--) {
        int ret = get_frame(&s, tt_segment_offset(super, k), head, &f);

        if (ret < 0) {
            return ret;
        }
        if (ret > 0 && k > named) {
            ret = 0; /* a power cut left it, and history went by */
        } else if (ret > 0 && k < named) {
            ret = comes_before(&f, &above);
        }
        if (ret > 0) {
            bits[(k - first) / 8] |= (uint8_t)(1u << (k - first) % 8);
            above = f;
            named = f.prev_offset < super->segments_offset
                        ? 0
                        : tt_segment_at(super, f.prev_offset);
        }
        if (k == first) {
            return 0;
        }
    }
}

/* ---- short cuts -------------------------------------------------------- */

static bool has_notable(const struct tt_frame *f, const uint8_t *table,
                        bool *ret_gap)
{
    uint32_t pos = 0, index = 0;
    struct tt_record rec;
    bool any = false;

    *ret_gap = false;
    while (tt_table_next(f, table, &pos, &index, &rec)) {
        any |= tt_kind_is_notable(rec.kind);
        *ret_gap |= rec.kind == TT_KIND_GAP;
    }
    return any;
}

/* What a GAP says depends on whether its own session went on behind it. */
static int add_follower(struct skip *s, const struct tt_frame *gap,
                        uint8_t *head)
{
    struct tt_frame f;
    int ret;

    if (s->next.prev_offset == gap->offset) {
        return 1; /* it is taken with its segment */
    }
    ret = in_segment(s, tt_frame_end(gap))
              ? get_frame(s, tt_frame_end(gap), head, &f)
              : 0;
    if (ret > 0) {
        ret = tt_frame_links(gap, &f) ? add_frame(s, f.offset) : 0;
    }
    return ret;
}

static int add_notables(struct skip *s, uint8_t *head)
{
    uint64_t at = s->next.notable_offset;
    int ret = 1;

    while (ret > 0 && in_segment(s, at)) {
        struct tt_frame f;
        bool gap = false;

        ret = get_frame(s, at, head, &f);
        if (ret > 0) {
            ret = has_notable(&f, head + HEADER, &gap) ? add_frame(s, at) : 0;
            at = f.notable_offset; /* valid: it is below f.offset */
        }
        if (ret > 0 && gap) {
            ret = add_follower(s, &f, head);
        }
    }
    return ret;
}

/* The frame before @f, as its chain value says. */
static int get_previous(const struct skip *s, const struct tt_frame *f,
                        uint8_t *head, struct tt_frame *ret_prev)
{
    int ret = in_segment(s, f->prev_offset)
                  ? get_frame(s, f->prev_offset, head, ret_prev)
                  : 0;

    return ret > 0 ? ret_prev->own_chain == f->chain : ret;
}

/* Sessions that began in the segment behind its first frame. */
static int add_sessions(struct skip *s, uint8_t *head)
{
    struct tt_frame f, start = s->next;
    int ret = get_previous(s, &s->next, head, &f);

    while (ret > 0 && f.session != s->head.session) {
        ret = in_segment(s, f.session_offset) && f.session > s->head.session
                  ? get_frame(s, f.session_offset, head, &start)
                  : 0;
        if (ret > 0) {
            ret = start.session == f.session &&
                          (start.flags & TT_FRAME_SESSION_START)
                      ? add_frame(s, start.offset)
                      : 0;
        }
        if (ret > 0) {
            ret = get_previous(s, &start, head, &f);
        }
        if (ret > 0 && f.session >= start.session) {
            ret = 0;
        }
    }
    return ret;
}

static int add_checkpoint(struct skip *s, uint8_t *head)
{
    struct tt_frame f;
    int ret;

    if (!in_segment(s, s->next.checkpoint_offset)) {
        return 1;
    }
    s->checkpoint = s->next.checkpoint_offset;
    ret = get_frame(s, s->checkpoint, head, &f);
    return ret > 0 ? add_frame(s, s->checkpoint) : ret;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void sort_frames(struct skip *s)
{
    size_t kept = 1;

    qsort(s->frames, s->frame_count, sizeof(*s->frames), compare_offsets);
    for (size_t i = 1; i < s->frame_count; i++) {
        if (s->frames[i] != s->frames[kept - 1]) {
            s->frames[kept++] = s->frames[i];
        }
    }
    s->frame_count = kept;
}

/* Do the two segments' first frames fit together? */
static bool starts_fit(const struct skip *s, uint64_t first_seq)
{
    return s->head.segment == s->segment &&
           (s->head.flags & TT_FRAME_SEGMENT_START) &&
           s->head.first_seq == first_seq &&
           s->next.segment == s->segment + 1 &&
           (s->next.flags & TT_FRAME_SEGMENT_START) &&
           !(s->next.flags & TT_FRAME_AFTER_DAMAGE) &&
           s->next.first_seq > first_seq && s->next.session >= s->head.session;
}

int tt_skip_look(struct skip *s, const struct tt_super *super,
                 const struct tt_source *src, uint64_t segment,
                 uint64_t first_seq, struct tt_error *err)
{
    uint8_t head[TT_HEAD_MAX];
    int ret;

    *s = (struct skip){
        .super = super, .src = src, .err = err, .segment = segment
    };
    ret = get_frame(s, tt_segment_offset(super, segment), head, &s->head);
    if (ret > 0) {
        ret =
            get_frame(s, tt_segment_offset(super, segment + 1), head, &s->next);
    }
    if (ret > 0) {
        ret = starts_fit(s, first_seq) ? add_frame(s, s->head.offset) : 0;
    }
    if (ret > 0) {
        ret = add_notables(s, head);
    }
    if (ret > 0) {
        ret = add_sessions(s, head);
    }
    if (ret > 0) {
        ret = add_checkpoint(s, head);
    }
    if (ret > 0) {
        sort_frames(s);
    }
    return ret;
}

void tt_skip_clear(struct skip *s)
{
    free(s->frames);
    *s = (struct skip){ 0 };
}

/* ---- the footer -------------------------------------------------------- */

struct footer_walk {
    const struct skip *s;
    uint8_t *body;
    skip_part_fn *part;
    void *opaque;
    uint32_t next_part, part_count;
    bool whole;
};

static bool part_fits(const struct footer_walk *w, const struct footer_part *p)
{
    const struct skip *s = w->s;

    return p->part < p->part_count &&
           (!w->next_part || p->part_count == w->part_count) &&
           p->first_seq == s->head.first_seq &&
           p->last_seq + 1 == s->next.first_seq &&
           p->last_chain == s->next.chain && p->epoch == s->head.epoch;
}

/* 1: go on, or it is whole; 0: this footer is no good. */
static int take_footer(struct footer_walk *w, const struct tt_frame *f,
                       const struct tt_record *rec)
{
    const uint8_t *body = rec->body;
    uint64_t at = f->offset + rec->payload_offset;
    struct footer_part p;
    int ret;

    if (!body) {
        if (at > w->s->src->size ||
            rec->payload_length > w->s->src->size - at) {
            return 0;
        }
        ret = w->s->src->read(w->s->src->opaque, at, w->body,
                              rec->payload_length);
        if (ret < 0 && ret != -EIO) {
            return tt_fail(w->s->err, TT_EIO, -ret,
                           "cannot read the journal at %" PRIu64 ": %s", at,
                           strerror(-ret));
        }
        if (ret < 0 || !tt_payload_check(rec, w->body, NULL)) {
            return 0;
        }
        body = w->body;
    }
    if (!tt_footer_parse(w->s->super, body, rec->payload_length, &p)) {
        return 0;
    }
    if (p.segment != w->s->segment) {
        return 1;
    }
    if (!part_fits(w, &p) || p.part > w->next_part) {
        return 0;
    }
    if (p.part < w->next_part) {
        return 1; /* its writer died before the last one; another began anew */
    }
    ret = w->part(w->opaque, &p);
    w->part_count = p.part_count;
    w->whole = ret > 0 && ++w->next_part == p.part_count;
    return ret;
}

int tt_skip_footer(const struct skip *s, uint8_t *body, skip_part_fn *part,
                   void *opaque)
{
    struct footer_walk w = {
        .s = s, .body = body, .part = part, .opaque = opaque
    };
    uint64_t end = tt_segment_offset(s->super, s->segment + 2);
    struct tt_frame f = s->next, prev;
    uint8_t head[TT_HEAD_MAX];
    int ret = get_frame(s, f.offset, head, &f);

    while (ret > 0) {
        uint32_t pos = 0, index = 0;
        struct tt_record rec;

        while (ret > 0 && !w.whole &&
               tt_table_next(&f, head + HEADER, &pos, &index, &rec)) {
            if (rec.kind == TT_KIND_FOOTER) {
                ret = take_footer(&w, &f, &rec);
            }
        }
        if (ret <= 0 || w.whole || tt_frame_end(&f) >= end) {
            break;
        }
        prev = f;
        ret = get_frame(s, tt_frame_end(&prev), head, &f);
        if (ret > 0 && !tt_frame_links(&prev, &f)) {
            ret = 0;
        }
    }
    return ret > 0 ? w.whole : ret;
}
