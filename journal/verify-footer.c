/*
 * Verification of footers: does each say what its segment holds?
 *
 * While frames pass by, what the footer of their segment will have to say is
 * kept.  A footer mostly comes early in the next segment, and finds that.  One
 * that comes later, or after another's, has its segment's frames read again:
 * the frames count, wherever the footer lies.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "footer.h"
#include "verify.h"

#define HEADER sizeof(struct tt_frame_header)

/* A segment that has ended, or is in use: what its footer is held to */
struct verified_segment {
    uint64_t end; /* of its last frame */
    bool whole;   /* all its frames were met: else nobody knows */
    /* of its footer, what should come next */
    uint32_t next_part, part_count;
    size_t next_entry;
};

static int no_memory(struct verifier *v)
{
    return tt_fail(v->err, TT_ENOMEM, ENOMEM, "out of memory");
}

/* Numbers of segments are no larger than the journal has room for. */
static struct verified_segment *segment_at(struct verifier *v, uint64_t number)
{
    if (number >= v->segment_count) {
        size_t count = number + 1 + number / 2;
        void *p = realloc(v->segments, count * sizeof(*v->segments));

        if (!p) {
            return NULL;
        }
        v->segments = p;
        memset(v->segments + v->segment_count, 0,
               (count - v->segment_count) * sizeof(*v->segments));
        v->segment_count = count;
    }
    return &v->segments[number];
}

int tt_verify_follow(struct verifier *v, const struct tt_frame *f,
                     const uint8_t *table)
{
    bool broken = v->after_damage || (f->flags & TT_FRAME_AFTER_DAMAGE);
    struct verified_segment *s;

    if (broken && v->current) {
        v->segments[v->current->segment].whole = false;
    }
    s = segment_at(v, f->segment);
    if (!s) {
        return no_memory(v);
    }
    if (!v->current || v->current->segment != f->segment) {
        tt_footer_free(v->ended);
        v->ended = v->current;
        v->current = tt_footer_new(
            f->segment, tt_segment_offset(&v->history->super, f->segment), f);
        s->whole = f->flags & TT_FRAME_SEGMENT_START;
    }
    s->end = tt_frame_end(f);
    return v->current && tt_footer_add_frame(v->current, f, table)
               ? 0
               : no_memory(v);
}

/* 1, or 0, reported, if a frame that was there is not any more. */
static int read_again(struct verifier *v, struct tt_footer **ft,
                      uint64_t number, uint64_t end)
{
    const struct tt_super *super = &v->history->super;
    uint64_t start = tt_segment_offset(super, number);
    uint8_t head[TT_HEAD_MAX];
    struct tt_frame f;

    for (uint64_t at = start; at < end; at = tt_frame_end(&f)) {
        struct tt_error err = { 0 };
        int ret = tt_frame_read(super, v->src, at, head, &f, &err);

        if (ret < 0 && (ret != -TT_EIO || err.os_errno != EIO)) {
            return tt_fail(v->err, -ret, err.os_errno, "%s", err.message);
        }
        if (ret <= 0) {
            tt_verify_report(
                v, (struct tt_finding){ .offset = at, .length = HEADER },
                "a frame of segment %" PRIu64
                " cannot be read again, to compare it with its "
                "footer",
                number);
            return 0;
        }
        if (!*ft) {
            *ft = tt_footer_new(number, start, &f);
        }
        if (!*ft || !tt_footer_add_frame(*ft, &f, head + HEADER)) {
            return no_memory(v);
        }
    }
    return 1;
}

/* Makes v->ended what the footer of @number should say; as read_again(). */
static int get_ended(struct verifier *v, uint64_t number)
{
    int ret;

    if (v->ended && v->ended->segment == number) {
        return v->ended->incomplete ? no_memory(v) : 1;
    }
    tt_footer_free(v->ended);
    v->ended = NULL;
    ret = read_again(v, &v->ended, number, v->segments[number].end);
    if (ret <= 0) {
        tt_footer_free(v->ended);
        v->ended = NULL;
    }
    return ret;
}

/* 1 if the part @body says what the segment that ended holds, 0 if not. */
static int footer_fits(struct verifier *v, struct verified_segment *s,
                       const uint8_t *body, uint32_t length)
{
    const size_t hash = offsetof(struct tt_footer_body, tree_hash);
    const size_t rest = offsetof(struct tt_footer_body, part);
    struct tt_footer *ft = v->ended;
    struct tt_footer_body b;
    uint32_t count, part, parts, expected_length = 0;
    uint8_t *expected;
    int ret;

    memcpy(&b, body, sizeof(b));
    part = tt_get32(b.part);
    parts = tt_get32(b.part_count);
    count = tt_get32(b.entry_count);
    if (part == 0) {
        s->next_part = 0;
        s->part_count = parts;
        s->next_entry = 0;
    }
    if (part != s->next_part || parts != s->part_count || part >= parts ||
        count > ft->count - s->next_entry ||
        (part + 1 == parts && count < ft->count - s->next_entry)) {
        return 0;
    }
    expected =
        tt_footer_span(ft, s->next_entry, count, part, parts, &expected_length);
    if (!expected) {
        return no_memory(v);
    }
    ret = length >= expected_length && !memcmp(body, expected, hash) &&
          !memcmp(body + rest, expected + rest, expected_length - rest);
    free(expected);
    s->next_part++;
    s->next_entry += count;
    return ret;
}

int tt_verify_footer(struct verifier *v, const struct tt_frame *f,
                     const struct tt_record *r, const uint8_t *body)
{
    struct tt_footer_body b;
    uint64_t number;
    int ret;

    if (r->payload_length < sizeof(b)) {
        tt_verify_report(v, tt_verify_about(f, r), "a footer is too short");
        return 0;
    }
    memcpy(&b, body, sizeof(b));
    number = tt_get64(b.segment);
    if (number >= f->segment) {
        tt_verify_report(
            v, tt_verify_about(f, r),
            "a footer is of segment %" PRIu64 ", which has not ended", number);
        return 0;
    }
    if (!v->segments[number].whole) {
        return 0;
    }
    ret = get_ended(v, number);
    if (ret <= 0) {
        return ret;
    }
    ret = footer_fits(v, &v->segments[number], body, r->payload_length);
    if (ret == 0) {
        tt_verify_report(v, tt_verify_about(f, r),
                         "the footer of segment %" PRIu64
                         " does not say what that segment holds",
                         number);
    }
    return ret < 0 ? ret : 0;
}

void tt_verify_footers_clear(struct verifier *v)
{
    tt_footer_free(v->current);
    tt_footer_free(v->ended);
    free(v->segments);
}
