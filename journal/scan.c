/*
 * The scan: which frames are history, and where does it end?
 *
 * Frames are accepted while each is valid and links to the one before.  What
 * lies above everything known to be durable must be whole, payload included.
 * At the first place where none follows (expecting sequence q) the scan looks
 * behind it, for frames whose durable_seq is q or more; a valid header will do:
 *
 *   none    it is the torn end of an append that no flush covered;
 *   some    it is damage, for the writer had flushed what is missing.  With D
 *           the largest such durable_seq, what is missing up to D is damaged,
 *           and reading resumes at the next whole frame that is not stale and
 *           leaves no hole above D.  If there is none, history ends at D.
 *
 * A frame is stale if a later session began at or before its sequence number:
 * a power cut took what was before it, and its numbers were used again.  Any
 * valid header tells of that session, for what is not whole may be all that a
 * power cut has left of it.
 *
 * These are the rules of tests/model/scan.pml; its names are used here: E is
 * end_offset, Eq last_seq, ds durable_seq.  A reader needs nothing else, and
 * never trusts a segment header to be history: the newest one may be stale.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

#define HEADER sizeof(struct tt_frame_header)
#define CHUNK (1024 * 1024u)

struct scanner {
    const struct tt_super *super;
    const struct tt_source *src;
    const struct tt_scan_ops *ops;
    struct tt_scan *scan;
    struct tt_error *err; /* never NULL */
    struct tt_error own_err;
    uint64_t newest; /* segment of the newest valid segment header */
    uint64_t newest_session;
    struct begin *begins; /* of sessions, from the segment headers */
    size_t begin_count;
    bool begins_known;
    uint64_t stale_session, stale_from; /* of this session from here on */
    uint64_t vouched;    /* largest durable_seq in a header that counts */
    bool looks_ahead;    /* what later headers vouch for counts */
    bool ahead_ended;    /* they vouch for no more */
    bool trust_next;     /* the next frame's place in history is known */
    uint64_t seen_start; /* the segment start that was read last, */
    uint64_t seen_seq;   /* and the first_seq of the frame there, or 0 */
    uint8_t *head;       /* TT_HEAD_MAX bytes */
    uint8_t *payload;    /* TT_PAYLOAD_RECORD_MAX bytes once it is needed */
};

/* Where a session began */
struct begin {
    uint64_t session, first_seq;
};

/*
 * A frame found behind a break.  A valid header tells what the writer knew
 * also if the rest is not whole; only what is whole can be read on from.
 */
struct found {
    struct tt_frame frame;
    bool whole;
};

/* All of them, in order of their place */
struct zone {
    struct found *frames;
    size_t count, room;
    uint64_t first_nonzero, end_nonzero; /* unreadable counts as not zero */
    uint64_t durable;                    /* largest durable_seq of them */
    bool unreadable; /* a place that the medium does not give */
};

/*
 * 1 if the bytes were read, 0 if the medium cannot give them (what lies there
 * is damaged, and must not be taken for a torn end), negative otherwise.
 */
static int read_at(struct scanner *s, uint64_t offset, void *buf, size_t len)
{
    int ret = s->src->read(s->src->opaque, offset, buf, len);

    if (ret == -EIO) {
        s->scan->unreadable++;
        return 0;
    }
    if (ret < 0) {
        return tt_fail(s->err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    return 1;
}

/* As tt_frame_read(), but what the medium cannot give is no frame. */
static int frame_at(struct scanner *s, uint64_t offset, struct tt_frame *f)
{
    int ret = tt_frame_read(s->super, s->src, offset, s->head, f, s->err);

    if (ret == -TT_EIO && s->err->os_errno == EIO) {
        s->scan->unreadable++;
        return 0;
    }
    return ret;
}

uint64_t tt_source_zeroes(const struct tt_source *src, uint64_t offset,
                          uint64_t length, uint64_t unit)
{
    uint64_t data = src->next_data ? src->next_data(src->opaque, offset) : 0;

    if (data <= offset) {
        return 0;
    }
    if (data - offset >= length) {
        return length;
    }
    return data - offset - (data - offset) % unit;
}

static uint64_t segment_of(const struct tt_super *super, uint64_t offset)
{
    return (offset - super->segments_offset) / super->segment_size;
}

static uint64_t segment_count(const struct scanner *s)
{
    if (s->src->size <= s->super->segments_offset) {
        return 0;
    }
    return segment_of(s->super, s->src->size - 1) + 1;
}

/* 1 if [from, to) of the frame is zero, as padding is; 0 if not. */
static int padding_zero(struct scanner *s, const struct tt_frame *f,
                        uint32_t from, uint32_t to)
{
    int ret =
        from < to ? read_at(s, f->offset + from, s->payload, to - from) : 1;

    for (uint32_t i = 0; ret > 0 && i < to - from; i++) {
        if (s->payload[i]) {
            return 0;
        }
    }
    return ret;
}

/* 1 if all payloads fit their checksums and the padding is zero, 0 if not. */
static int payload_whole(struct scanner *s, const struct tt_frame *f,
                         const uint8_t *table)
{
    uint32_t pos = 0, index = 0, end = f->payload_offset;
    struct tt_record r;
    int ret;

    if (tt_frame_end(f) > s->src->size) {
        return 0;
    }
    if (!s->payload) {
        s->payload = malloc(TT_PAYLOAD_RECORD_MAX);
        if (!s->payload) {
            return tt_fail(s->err, TT_ENOMEM, 0, "out of memory");
        }
    }
    while (tt_table_next(f, table, &pos, &index, &r)) {
        if (!r.payload_offset) {
            continue;
        }
        ret = read_at(s, f->offset + r.payload_offset, s->payload,
                      r.payload_length);
        if (ret <= 0) {
            return ret;
        }
        if (!tt_payload_check(&r, s->payload, NULL)) {
            return 0;
        }
        end = r.payload_offset + r.payload_length;
    }
    ret = padding_zero(s, f, (uint32_t)HEADER + f->table_length,
                       f->payload_offset);
    return ret > 0 ? padding_zero(s, f, end, f->length) : ret;
}

/* What the frame's records change of what later headers say. */
static void note_records(struct tt_scan *scan, const struct tt_frame *f,
                         const uint8_t *table)
{
    uint32_t pos = 0, index = 0;
    struct tt_record r;

    scan->checkpoint_offset = f->checkpoint_offset;
    scan->disk_size = f->disk_size;
    scan->notable_offset = f->notable_offset;
    scan->footer_offset = f->footer_offset;
    while (tt_table_next(f, table, &pos, &index, &r)) {
        if (r.kind == TT_KIND_CHECKPOINT && !(r.flags & TT_RECORD_MORE)) {
            scan->checkpoint_offset = f->offset;
        } else if (r.kind == TT_KIND_RESIZE) {
            scan->disk_size = r.disk_length;
        } else if (r.kind == TT_KIND_FOOTER && !(r.flags & TT_RECORD_MORE)) {
            scan->footer_offset = f->offset;
        }
        if (tt_kind_is_notable(r.kind)) {
            scan->notable_offset = f->offset;
        }
    }
}

static int accept(struct scanner *s, const struct tt_frame *f)
{
    struct tt_scan *scan = s->scan;
    const uint8_t *table = s->head + HEADER;

    scan->empty = false;
    scan->last = *f;
    scan->end_offset = tt_frame_end(f);
    scan->last_seq = tt_frame_last_seq(f);
    scan->damaged_end = false;
    if (f->durable_seq > scan->durable_seq) {
        scan->durable_seq = f->durable_seq;
    }
    if (f->session > scan->max_session) {
        scan->max_session = f->session;
    }
    note_records(scan, f, table);
    return s->ops->frame ? s->ops->frame(s->ops->opaque, f, table) : 0;
}

/* The header that follows @f, wherever it is: 1 and *ret; 0: there is none. */
static int header_after(struct scanner *s, const struct tt_frame *f,
                        struct tt_frame *ret)
{
    uint64_t places[2] = { tt_frame_end(f),
                           tt_segment_offset(s->super, f->segment + 1) };
    uint8_t buf[HEADER];

    for (unsigned i = 0; i < 2; i++) {
        int got;

        if (places[i] >= s->src->size || s->src->size - places[i] < HEADER) {
            continue;
        }
        got = read_at(s, places[i], buf, HEADER);
        if (got < 0 ||
            (got > 0 && tt_frame_decode(s->super, places[i], buf, ret) &&
             tt_frame_links(f, ret))) {
            return got;
        }
    }
    return 0;
}

/*
 * Finds out whether a header behind @f vouches for it: if so, its payload need
 * not be read.  Each header is met about once, for those before the one that
 * is found are vouched for as well.
 */
static int look_ahead(struct scanner *s, const struct tt_frame *f)
{
    struct tt_frame at = *f;
    int ret = 1;

    while (!s->ahead_ended && s->vouched < tt_frame_last_seq(f)) {
        struct tt_frame next;

        ret = header_after(s, &at, &next);
        if (ret <= 0) {
            s->ahead_ended = true;
            break;
        }
        if (next.durable_seq > s->vouched) {
            s->vouched = next.durable_seq;
        }
        at = next;
    }
    return ret;
}

/*
 * Is the frame at @offset the next of history?  1 and *f if so.  A frame that
 * is already known to be durable need not be whole: its payload is checked by
 * whoever reads it.  But all of it must be there: the next look takes one that
 * ends behind the journal's end for cut off since.
 */
static int try_next(struct scanner *s, uint64_t offset, bool must_be_whole,
                    struct tt_frame *f)
{
    const struct tt_scan *scan = s->scan;
    int ret = frame_at(s, offset, f);

    if (ret <= 0 || s->trust_next) {
        return ret;
    }
    if (!tt_frame_links(scan->empty ? NULL : &scan->last, f)) {
        return 0;
    }
    if (!must_be_whole && s->looks_ahead) {
        ret = look_ahead(s, f);
        if (ret < 0) {
            return ret;
        }
    }
    if (must_be_whole || tt_frame_last_seq(f) > s->vouched) {
        return payload_whole(s, f, s->head + HEADER);
    }
    return tt_frame_end(f) <= s->src->size;
}

/* Does the frame at the start of the segment after @end follow? */
static int try_next_segment(struct scanner *s, uint64_t end, struct tt_frame *f)
{
    uint64_t start = s->super->segments_offset;
    int ret;

    if (end > start) {
        start = tt_segment_offset(s->super, segment_of(s->super, end - 1) + 1);
    }
    if (start == end) {
        return 0;
    }
    if (start != s->seen_start) {
        ret = frame_at(s, start, f);
        if (ret < 0) {
            return ret;
        }
        s->seen_start = start;
        s->seen_seq = ret ? f->first_seq : 0;
    }
    return s->seen_seq == s->scan->last_seq + 1 ? try_next(s, start, true, f)
                                                : 0;
}

/*
 * Finds the next frame at the two places where it may lie: where the last one
 * ends, and at the start of the next segment.  Both can link, for an append
 * that failed may have left a whole frame at the end while the writer went on
 * in the next segment; or a new session did so because the frame at the end
 * could not be read.  The higher session is right, and within one session the
 * next segment, for a writer never turns back.
 *
 * s->head holds the head of *f afterwards.
 */
static int find_next(struct scanner *s, struct tt_frame *f)
{
    uint64_t end = s->scan->end_offset;
    struct tt_frame at_end;
    int ret, ret_end;

    ret = s->trust_next ? 0 : try_next_segment(s, end, f);
    if (ret < 0) {
        return ret;
    }
    ret_end = try_next(s, end, ret > 0, ret > 0 ? &at_end : f);
    if (ret == 0 || ret_end < 0) {
        return ret_end;
    }
    if (ret_end > 0 && at_end.session > f->session) {
        *f = at_end;
        return 1;
    }
    return frame_at(s, f->offset, f);
}

/* ---- behind a break ---------------------------------------------------- */

static int zone_add(struct scanner *s, struct zone *z, const struct tt_frame *f,
                    bool whole)
{
    if (z->count == z->room) {
        size_t room = z->room ? z->room * 2 : 64;
        void *p = realloc(z->frames, room * sizeof(*z->frames));

        if (!p) {
            return tt_fail(s->err, TT_ENOMEM, 0, "out of memory");
        }
        z->frames = p;
        z->room = room;
    }
    z->frames[z->count++] = (struct found){ *f, whole };
    if (z->end_nonzero < tt_frame_end(f)) {
        z->end_nonzero = tt_frame_end(f);
    }
    if (z->durable < f->durable_seq) {
        z->durable = f->durable_seq;
    }
    return 0;
}

/*
 * Adds the frame at @offset if one is valid there; *ret_length is its length if
 * it is whole, else 0.
 */
static int zone_probe(struct scanner *s, struct zone *z, uint64_t offset,
                      uint64_t *ret_length)
{
    struct tt_frame f;
    int ret = frame_at(s, offset, &f);

    *ret_length = 0;
    if (ret <= 0) {
        return ret;
    }
    if (f.session > s->scan->max_session) {
        s->scan->max_session = f.session;
    }
    ret = payload_whole(s, &f, s->head + HEADER);
    if (ret < 0) {
        return ret;
    }
    *ret_length = ret ? f.length : 0;
    return zone_add(s, z, &f, ret);
}

static void note_used(struct zone *z, uint64_t first, uint64_t end)
{
    if (!z->end_nonzero) {
        z->first_nonzero = first;
    }
    if (z->end_nonzero < end) {
        z->end_nonzero = end;
    }
}

static void note_nonzero(struct zone *z, uint64_t offset, const uint8_t *buf,
                         size_t len)
{
    size_t first = 0, end = len;

    while (first < len && !buf[first]) {
        first++;
    }
    if (first == len) {
        return;
    }
    while (!buf[end - 1]) {
        end--;
    }
    note_used(z, offset + first, offset + end);
}

/*
 * Reads a chunk for the sweep.  Where the medium gives an error it is read in
 * small pieces: one bad sector must not hide the frames around it.
 */
static int read_chunk(struct scanner *s, struct zone *z, uint64_t at,
                      uint8_t *chunk, size_t len)
{
    int ret = read_at(s, at, chunk, len);

    for (size_t i = 0; ret == 0 && i < len; i += TT_GRID) {
        size_t piece = len - i < TT_GRID ? len - i : TT_GRID;
        int got = read_at(s, at + i, chunk + i, piece);

        if (got < 0) {
            return got;
        }
        if (got == 0) {
            memset(chunk + i, 0, piece);
            note_used(z, at + i, at + i + piece);
            z->unreadable = true;
        }
    }
    return ret < 0 ? ret : 1;
}

/* Looks at every aligned place of [from, to) for whole frames. */
static int zone_sweep(struct scanner *s, struct zone *z, uint64_t from,
                      uint64_t to)
{
    uint32_t step = s->super->alignment;
    uint64_t skip_to = from;
    uint8_t *chunk;
    int ret = 0;

    if (to > s->src->size) {
        to = s->src->size;
    }
    chunk = malloc(CHUNK);
    if (!chunk) {
        return tt_fail(s->err, TT_ENOMEM, 0, "out of memory");
    }
    for (uint64_t at = from; at < to && ret >= 0; at += CHUNK) {
        size_t len;

        at += tt_source_zeroes(s->src, at, to - at, step);
        if (at >= to) {
            break;
        }
        len = to - at < CHUNK ? (size_t)(to - at) : CHUNK;
        ret = read_chunk(s, z, at, chunk, len);
        if (ret < 0) {
            break;
        }
        note_nonzero(z, at, chunk, len);
        for (size_t i = 0; i + TT_MAGIC_SIZE <= len && ret >= 0; i += step) {
            uint64_t length;

            if (at + i < skip_to ||
                memcmp(chunk + i, TT_FRAME_MAGIC, TT_MAGIC_SIZE)) {
                continue;
            }
            ret = zone_probe(s, z, at + i, &length);
            skip_to = at + i + length;
        }
    }
    free(chunk);
    return ret;
}

/*
 * Sweeps the segments from @from on until one has shown that @q was durable (a
 * stale frame shows nothing: the segments behind it may be history); of the
 * rest only the first frames, which tell of later sessions.  Nothing was ever
 * written behind the segment that follows the newest segment header, so space
 * that was only allocated is not read.
 */
static int zone_collect(struct scanner *s, struct zone *z, uint64_t from,
                        uint64_t q)
{
    uint64_t count = segment_count(s), last = segment_of(s->super, from);

    if (last < s->newest) {
        last = s->newest;
    }
    if (count > last + 2) {
        count = last + 2;
    }
    for (uint64_t k = segment_of(s->super, from); k < count; k++) {
        uint64_t start = tt_segment_offset(s->super, k);
        uint64_t length;
        int ret;

        if (start < from) {
            start = from;
        }
        if (z->durable >= q) {
            ret = zone_probe(s, z, start, &length);
        } else {
            ret = zone_sweep(s, z, start, tt_segment_offset(s->super, k + 1));
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static bool is_stale(const struct scanner *s, const struct zone *z,
                     const struct tt_frame *f)
{
    /* that session may be known by what was accepted alone */
    if (!s->scan->empty && f->session < s->scan->last.session) {
        return true;
    }
    for (size_t i = 0; i < z->count; i++) {
        const struct tt_frame *later = &z->frames[i].frame;

        if (later->session > f->session &&
            f->first_seq >= later->session_first_seq) {
            return true;
        }
    }
    return false;
}

/* Does the header at @offset say that it follows @f?  1, 0, or an error. */
static int header_links(struct scanner *s, uint64_t offset,
                        const struct tt_frame *f)
{
    uint8_t buf[HEADER];
    struct tt_frame next;
    int ret;

    if (offset >= s->src->size || s->src->size - offset < HEADER) {
        return 0;
    }
    ret = read_at(s, offset, buf, HEADER);
    return ret > 0 ? tt_frame_decode(s->super, offset, buf, &next) &&
                         tt_frame_links(f, &next)
                   : ret;
}

/* Which sessions do the segments from @segment on know of? */
static int find_begins(struct scanner *s, uint64_t segment)
{
    uint64_t session = 0, count = s->newest - segment + 1;

    s->begins_known = true;
    s->begins = segment <= s->newest ? calloc(count, sizeof(*s->begins)) : NULL;
    if (segment <= s->newest && !s->begins) {
        return tt_fail(s->err, TT_ENOMEM, 0, "out of memory");
    }
    for (; segment <= s->newest; segment++) {
        struct tt_frame f;
        int ret = frame_at(s, tt_segment_offset(s->super, segment), &f);

        if (ret < 0) {
            return ret;
        }
        if (ret > 0 && f.session != session) {
            session = f.session;
            s->begins[s->begin_count++] =
                (struct begin){ session, f.session_first_seq };
        }
    }
    return 0;
}

/*
 * @f follows the last frame, but a later session is known, which may have
 * begun in its stead: if what that began with is damaged, frames that a power
 * cut left behind must not take its place.  1: it is the next; 0: it is stale.
 *
 * What the segment headers know is asked first.  A session that began and
 * ended within a segment they do not know; but then a frame that another one
 * follows was in history when that was written.
 */
static int not_stale(struct scanner *s, struct tt_frame *f)
{
    uint64_t end = tt_frame_end(f);
    struct zone z = { 0 };
    int ret = 0;

    if (f->session >= s->newest_session || s->trust_next) {
        return 1;
    }
    if (!s->begins_known) {
        ret = find_begins(s, f->segment);
    }
    if (ret == 0 && s->stale_session != f->session) {
        s->stale_session = f->session;
        s->stale_from = UINT64_MAX;
        for (size_t i = 0; i < s->begin_count; i++) {
            if (s->begins[i].session > f->session &&
                s->begins[i].first_seq < s->stale_from) {
                s->stale_from = s->begins[i].first_seq;
            }
        }
    }
    if (ret == 0 && f->first_seq >= s->stale_from) {
        return 0;
    }
    if (ret == 0) {
        ret = header_links(s, end, f);
    }
    if (ret == 0) {
        ret = header_links(s, tt_segment_offset(s->super, f->segment + 1), f);
    }
    if (ret == 0) {
        ret = zone_collect(s, &z, end, tt_frame_last_seq(f) + 1);
        if (ret == 0) {
            ret = !is_stale(s, &z, f);
        }
        free(z.frames);
    }
    /* s->head is to hold the head of *f */
    return ret > 0 ? frame_at(s, f->offset, f) : ret;
}

/* The frame at which reading resumes, given D; NULL if there is none. */
static const struct tt_frame *zone_resume(const struct scanner *s,
                                          const struct zone *z, uint64_t q,
                                          uint64_t durable)
{
    for (size_t i = 0; i < z->count; i++) {
        const struct tt_frame *f = &z->frames[i].frame;

        if (z->frames[i].whole && f->first_seq >= q &&
            f->first_seq <= durable + 1 && !is_stale(s, z, f)) {
            return f;
        }
    }
    return NULL;
}

static int report_damage(struct scanner *s, uint64_t offset, uint64_t end,
                         uint64_t first_seq, uint64_t last_seq, int64_t before)
{
    struct tt_damage d = {
        .offset = offset,
        .length = end > offset ? end - offset : 0,
        .first_seq = first_seq,
        .last_seq = last_seq,
        .after_time = s->scan->empty ? INT64_MIN : s->scan->last.last_time,
        .before_time = before,
    };

    return s->ops->damage ? s->ops->damage(s->ops->opaque, &d) : 0;
}

/*
 * The frame that was expected is not at the end it was at, though durable: one
 * with a sound header and table is history all the same, only its payload is
 * damaged; unless a later session took its number, and the frame is what a
 * power cut left of an append.  1 if it was accepted.
 */
static int accept_unwhole(struct scanner *s, const struct zone *z,
                          uint64_t durable)
{
    uint64_t end = s->scan->end_offset;
    uint64_t places[2] = { end, end };

    if (end > s->super->segments_offset) {
        places[1] =
            tt_segment_offset(s->super, segment_of(s->super, end - 1) + 1);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct tt_frame f;
        int ret = frame_at(s, places[i], &f);

        if (ret > 0 && tt_frame_last_seq(&f) <= durable &&
            tt_frame_end(&f) <= s->src->size && !is_stale(s, z, &f) &&
            tt_frame_links(s->scan->empty ? NULL : &s->scan->last, &f)) {
            ret = accept(s, &f);
            return ret ? ret : 1;
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * A session that found damage at the end of history went on behind it, with
 * the number q.  What was damaged can be read again, so nothing is missing.
 */
static const struct tt_frame *
zone_after_damage(const struct scanner *s, const struct zone *z, uint64_t q)
{
    for (size_t i = 0; i < z->count; i++) {
        const struct tt_frame *f = &z->frames[i].frame;

        if (z->frames[i].whole && (f->flags & TT_FRAME_AFTER_DAMAGE) &&
            f->first_seq == q && !is_stale(s, z, f)) {
            return f;
        }
    }
    return NULL;
}

/* 1: the scan goes on; 0: history ends here. */
static int judge_break(struct scanner *s)
{
    struct tt_scan *scan = s->scan;
    struct zone z = { 0 };
    const struct tt_frame *resume;
    uint64_t q = scan->last_seq + 1, at = scan->end_offset, durable;
    int ret;

    if (s->ops->moving && s->vouched < q && !scan->empty &&
        scan->last.offset >= scan->newest_start) {
        return 0;
    }
    ret = zone_collect(s, &z, at, q);
    /* what the newest segment's header said at first counts as well */
    durable = z.durable > s->vouched ? z.durable : s->vouched;
    if (ret < 0) {
        goto out;
    }
    resume = zone_after_damage(s, &z, q);
    if (resume) {
        scan->end_offset = resume->offset;
        s->trust_next = true;
        ret = 1;
        goto out;
    }
    if (durable < q) {
        scan->torn_offset = z.first_nonzero;
        scan->torn_length = z.end_nonzero - z.first_nonzero;
        if (z.unreadable) {
            /* it may have been durable: a writer must stay clear of it */
            scan->damaged_end = true;
            scan->end_offset = z.end_nonzero;
        }
        ret = 0;
        goto out;
    }
    if (durable > s->vouched) {
        s->vouched = durable;
    }
    ret = accept_unwhole(s, &z, durable);
    if (ret) {
        goto out;
    }
    resume = zone_resume(s, &z, q, durable);
    ret = report_damage(s, at, resume ? resume->offset : z.end_nonzero, q,
                        resume ? resume->first_seq - 1 : durable,
                        resume ? resume->first_time : INT64_MAX);
    if (ret) {
        goto out;
    }
    if (durable > scan->durable_seq) {
        scan->durable_seq = durable;
    }
    if (resume) {
        scan->end_offset = resume->offset;
        s->trust_next = true;
        ret = 1;
    } else {
        scan->last_seq = durable;
        scan->damaged_end = true;
        scan->end_offset = z.end_nonzero > at ? z.end_nonzero : at;
        ret = 0;
    }
out:
    free(z.frames);
    return ret;
}

/* ---- entry points ------------------------------------------------------ */

static int scanner_init(struct scanner *s, struct tt_error *err)
{
    s->err = err ? err : &s->own_err;
    s->head = malloc(TT_HEAD_MAX);
    if (!s->head) {
        return tt_fail(err, TT_ENOMEM, 0, "out of memory");
    }
    return 0;
}

static void scanner_clear(struct scanner *s)
{
    free(s->head);
    free(s->payload);
    free(s->begins);
}

/* The newest valid segment header: 1 and *f, or 0. */
static int newest_segment(struct scanner *s, struct tt_frame *f)
{
    for (uint64_t k = segment_count(s); k > 0; k--) {
        int ret = frame_at(s, tt_segment_offset(s->super, k - 1), f);

        if (ret) {
            return ret;
        }
    }
    return 0;
}

int tt_scan_run(const struct tt_super *super, const struct tt_source *src,
                uint64_t from, const struct tt_scan_ops *ops,
                struct tt_scan *ret_scan, struct tt_error *err)
{
    struct scanner s = {
        .super = super, .src = src, .ops = ops, .scan = ret_scan
    };
    struct tt_frame f;
    int ret = scanner_init(&s, err);

    if (ret < 0) {
        return ret;
    }
    *ret_scan = (struct tt_scan){
        .empty = true,
        .end_offset = from ? from : super->segments_offset,
        .disk_size = super->disk_size,
    };
    s.trust_next = from != 0;
    s.looks_ahead = ops->moving;
    ret = newest_segment(&s, &f);
    if (ret > 0) {
        ret_scan->newest_start = f.offset;
        s.vouched = f.durable_seq;
        s.newest = f.segment;
        s.newest_session = f.session;
    }
    while (ret >= 0) {
        ret = find_next(&s, &f);
        if (ret > 0) {
            ret = not_stale(&s, &f);
        }
        if (ret > 0) {
            s.trust_next = false;
            ret = accept(&s, &f);
            if (ret) {
                break;
            }
        } else if (ret == 0) {
            ret = judge_break(&s);
            if (ret <= 0) {
                break;
            }
        }
    }
    scanner_clear(&s);
    return ret;
}

/*
 * A frame that is as old as what is durable may be stale all the same, if the
 * header of the segment in which history went on cannot be read.
 */
static int start_is_stale(struct scanner *s, const struct tt_frame *f)
{
    for (uint64_t k = f->segment + 1; k <= s->newest; k++) {
        struct tt_frame later;
        int ret = frame_at(s, tt_segment_offset(s->super, k), &later);

        if (ret < 0 || (ret > 0 && later.session > f->session &&
                        later.session_first_seq <= f->first_seq)) {
            return ret;
        }
    }
    return 0;
}

int tt_scan_start(const struct tt_super *super, const struct tt_source *src,
                  uint64_t *ret_from, struct tt_error *err)
{
    struct tt_scan scan = { 0 };
    struct scanner s = { .super = super, .src = src, .scan = &scan };
    struct tt_frame f = { 0 };
    uint64_t durable;
    int ret = scanner_init(&s, err);

    *ret_from = 0;
    if (ret < 0) {
        return ret;
    }
    ret = newest_segment(&s, &f);
    durable = f.durable_seq;
    s.newest = f.segment;
    for (uint64_t k = ret > 0 ? f.segment : 0; ret >= 0 && k > 0; k--) {
        ret = frame_at(&s, tt_segment_offset(super, k), &f);
        if (ret > 0 && f.first_seq <= durable) {
            ret = start_is_stale(&s, &f);
            if (ret == 0) {
                *ret_from = f.offset;
                break;
            }
        }
    }
    scanner_clear(&s);
    return ret < 0 ? ret : 0;
}

/* Is the frame that was read last still what lies at its place? */
static int last_still_there(struct scanner *s)
{
    const struct tt_frame *last = &s->scan->last;
    struct tt_frame f;
    int ret;

    if (s->scan->empty) {
        return 1;
    }
    if (s->src->size < tt_frame_end(last)) {
        return 0;
    }
    ret = frame_at(s, last->offset, &f);
    return ret <= 0 ? ret : f.own_chain == last->own_chain;
}

/*
 * Did the writer leave what was read last behind, as an append that failed,
 * and go on in the next segment?  Or did a later session find damage, and go
 * on behind it, in the next segment or the one after?  Or did one begin in the
 * stead of what was read and not durable?  Or is there, behind what cannot be
 * read, a segment that knows it to have been durable?  (A writer who has gone
 * on since the end was looked at is met there, too: the end tells.)
 */
static int left_behind(struct scanner *s, bool *ret_behind)
{
    const struct tt_scan *scan = s->scan;
    const struct tt_frame *last = &scan->last;

    *ret_behind = false;
    for (uint64_t k = last->segment; !scan->empty; k--) {
        struct tt_frame f;
        int ret = frame_at(s, tt_segment_offset(s->super, k), &f);

        if (ret < 0) {
            return ret;
        }
        if (ret > 0 && f.session > scan->max_session) {
            return 1;
        }
        if (!k || (ret > 0 && f.first_seq <= scan->durable_seq)) {
            break;
        }
    }
    for (unsigned i = 1; i <= 2 && !scan->empty; i++) {
        uint64_t at = tt_segment_offset(s->super, last->segment + i);
        struct tt_frame f;
        int ret = frame_at(s, at, &f);

        if (ret < 0) {
            return ret;
        }
        /* what lies before the end is known, and part of what is damaged */
        if (ret > 0 && (f.session > scan->max_session ||
                        (at >= scan->end_offset && f.session == last->session &&
                         f.session_nonce == last->session_nonce &&
                         f.first_seq <= scan->last_seq))) {
            return 1;
        }
        *ret_behind |= ret > 0 && f.session == last->session &&
                       f.session_nonce == last->session_nonce &&
                       f.durable_seq > scan->last_seq;
    }
    return 0;
}

/* Accepts what follows; 0 at the end, *ret_count frames on. */
static int accept_next(struct scanner *s, uint64_t *ret_count)
{
    struct tt_frame f;
    int ret;

    *ret_count = 0;
    s->ahead_ended = false;
    s->seen_start = 0;
    while ((ret = find_next(s, &f)) > 0) {
        ret = accept(s, &f);
        if (ret) {
            return ret;
        }
        ++*ret_count;
    }
    return ret;
}

/* Likewise, and 1 if the end is not where it was, or another lies behind it. */
static int accept_to_end(struct scanner *s)
{
    bool behind = false;
    uint64_t count;
    int ret;

    do {
        ret = accept_next(s, &count);
        if (ret || (behind && !count)) {
            break;
        }
        ret = left_behind(s, &behind);
    } while (ret == 0 && behind);
    return ret == 0 ? behind : ret;
}

int tt_scan_follow(const struct tt_super *super, const struct tt_source *src,
                   const struct tt_scan_ops *ops, struct tt_scan *scan,
                   struct tt_error *err)
{
    struct scanner s = {
        .super = super,
        .src = src,
        .ops = ops,
        .scan = scan,
        .looks_ahead = true,
    };
    int ret = scanner_init(&s, err);

    if (ret < 0) {
        return ret;
    }
    s.vouched = scan->durable_seq;
    /* first, or what a power cut left of its followers would pass for news */
    ret = last_still_there(&s);
    if (ret >= 0) {
        ret = ret ? accept_to_end(&s) : 1;
    }
    if (ret > 0) {
        ret = tt_fail(err, TT_ECHANGED, 0,
                      "the journal's end at %" PRIu64 " was replaced",
                      scan->end_offset);
    }
    scanner_clear(&s);
    return ret < 0 ? ret : 0;
}
