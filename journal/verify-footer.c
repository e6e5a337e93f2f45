/*
 * Verification of footers: does each say what its segment holds?
 *
 * While frames pass by, what the footer of their segment will have to say is
 * kept.  A footer mostly comes early in the next segment, and finds that.  One
 * that comes later, or after another's, has its segment's frames read again:
 * the frames count, wherever the footer lies.
 *
 * Each part is held to the segment for itself.  A footer may lack parts where
 * its writer was killed, or had no room for them, and a footer that lacks some
 * is none: that is told, and no damage.  But a writer that appends the footers
 * of later segments was able to append the rest of this one.
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
    /* Of its footer, what should come next, if nothing is missing since */
    uint32_t next_part, part_count;
    size_t next_entry;
    uint64_t breaks;  /* v->breaks at its latest part */
    uint64_t session; /* which wrote that part */
    uint64_t begun;   /* sequence of its first part */
    struct tt_finding last;
    bool lost; /* a part was wrong: those behind it have no certain place */
    bool complete;
};

/* A session that has completed footers: where the last of them began */
struct footer_session {
    uint64_t session, begun;
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

    v->breaks += broken;
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

/* ---- parts ------------------------------------------------------------- */

/* Where do the entries of the part @b begin?  False if they cannot be there. */
static bool part_begins(const struct verifier *v, struct verified_segment *s,
                        const uint8_t *body, uint32_t length,
                        const struct tt_footer_body *b, size_t *ret_first)
{
    uint32_t part = tt_get32(b->part), count = tt_get32(b->entry_count);
    struct tt_footer *ft = v->ended;
    uint64_t entries = sizeof(*b) + (uint64_t)tt_get32(b->frame_count) *
                                        sizeof(struct tt_footer_frame);

    if (part == 0) {
        *ret_first = 0;
    } else if (!s->lost && s->breaks == v->breaks) {
        *ret_first = s->next_entry;
        return part == s->next_part && tt_get32(b->part_count) == s->part_count;
    } else if (part + 1 == tt_get32(b->part_count) || !count) {
        *ret_first = count < ft->count ? ft->count - count : 0;
    } else {
        return length >= entries + sizeof(struct tt_footer_entry) &&
               tt_footer_find(ft, body + entries, ret_first);
    }
    return true;
}

/* 1 if the part @body says what the segment that ended holds, 0 if not. */
static int part_fits(struct verifier *v, const uint8_t *body, uint32_t length,
                     size_t first)
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
    if (count > ft->count - first ||
        (part + 1 == parts && count < ft->count - first)) {
        return 0;
    }
    expected = tt_footer_span(ft, first, count, part, parts, &expected_length);
    if (!expected) {
        return no_memory(v);
    }
    ret = length >= expected_length && !memcmp(body, expected, hash) &&
          !memcmp(body + rest, expected + rest, expected_length - rest);
    free(expected);
    return ret;
}

static int note_complete(struct verifier *v, const struct verified_segment *s)
{
    size_t n = v->footer_session_count;
    struct footer_session *fs = n ? &v->footer_sessions[n - 1] : NULL;

    if (!fs || fs->session != s->session) {
        if (!tt_history_room(&v->footer_sessions, n, &v->footer_session_room,
                             sizeof(*v->footer_sessions))) {
            return no_memory(v);
        }
        fs = &v->footer_sessions[v->footer_session_count++];
        *fs = (struct footer_session){ .session = s->session };
    }
    fs->begun = s->begun > fs->begun ? s->begun : fs->begun;
    return 0;
}

/* The part @b has come, and does @fit or not: which is the next? */
static int note_part(struct verifier *v, struct verified_segment *s,
                     const struct tt_frame *f, const struct tt_record *r,
                     const struct tt_footer_body *b, size_t first, bool fits)
{
    uint32_t part = tt_get32(b->part);

    if (part == 0) {
        s->begun = r->seq;
    }
    s->lost = !fits;
    s->next_part = part + 1;
    s->part_count = tt_get32(b->part_count);
    s->next_entry = first + tt_get32(b->entry_count);
    s->breaks = v->breaks;
    s->session = f->session;
    s->last = tt_verify_about(f, r);
    if (!fits || s->next_part < s->part_count) {
        return 0;
    }
    s->complete = true;
    return note_complete(v, s);
}

/* The part @body of a footer of @number, whose frames were all met */
static int check_part(struct verifier *v, const struct tt_frame *f,
                      const struct tt_record *r, const uint8_t *body,
                      uint64_t number)
{
    struct verified_segment *s = &v->segments[number];
    struct tt_footer_body b;
    size_t first = 0;
    int fits, ret = get_ended(v, number);

    if (ret <= 0) {
        return ret;
    }
    memcpy(&b, body, sizeof(b));
    fits = part_begins(v, s, body, r->payload_length, &b, &first);
    if (fits) {
        fits = part_fits(v, body, r->payload_length, first);
    }
    if (fits < 0) {
        return fits;
    }
    if (!fits) {
        tt_verify_report(v, tt_verify_about(f, r),
                         "the footer of segment %" PRIu64
                         " does not say what that segment holds",
                         number);
    }
    return note_part(v, s, f, r, &b, first, fits);
}

int tt_verify_footer(struct verifier *v, const struct tt_frame *f,
                     const struct tt_record *r, const uint8_t *body)
{
    struct tt_footer_body b;
    uint32_t part, parts;
    uint64_t number;

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
    part = tt_get32(b.part);
    parts = tt_get32(b.part_count);
    if (part >= parts || !!(r->flags & TT_RECORD_MORE) != (parts - part > 1)) {
        tt_verify_report(
            v, tt_verify_about(f, r),
            "a footer of segment %" PRIu64 " is part %" PRIu32 " of %" PRIu32
            ", and its record is %sfollowed by more",
            number, part, parts, r->flags & TT_RECORD_MORE ? "" : "not ");
        v->segments[number].lost = true;
        return 0;
    }
    return v->segments[number].whole ? check_part(v, f, r, body, number) : 0;
}

/* ---- parts that never came --------------------------------------------- */

/* Has the session that wrote the latest part completed a later footer? */
static bool went_on(const struct verifier *v, const struct verified_segment *s)
{
    size_t low = 0, high = v->footer_session_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (v->footer_sessions[mid].session < s->session) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < v->footer_session_count &&
           v->footer_sessions[low].session == s->session &&
           v->footer_sessions[low].begun > s->last.last_seq;
}

void tt_verify_footers_end(struct verifier *v)
{
    for (size_t i = 0; i < v->segment_count; i++) {
        struct verified_segment *s = &v->segments[i];

        /* What lay in a damaged place may have been the rest. */
        if (!s->next_part || s->complete || s->lost || s->breaks != v->breaks) {
            continue;
        }
        s->last.harmless = !went_on(v, s);
        tt_verify_report(v, s->last,
                         "the footer of segment %zu ends with part %" PRIu32
                         " of %" PRIu32 "%s",
                         i, s->next_part, s->part_count,
                         s->last.harmless
                             ? ": its writer could not complete it"
                             : ", and its writer went on to later ones");
    }
}

void tt_verify_footers_clear(struct verifier *v)
{
    tt_footer_free(v->current);
    tt_footer_free(v->ended);
    free(v->segments);
    free(v->footer_sessions);
}
