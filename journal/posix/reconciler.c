/*
 * Reconciliation: the journal learns what a disk holds that others changed
 *
 * The disk counts: it is what a guest sees, and has seen.  Nothing is written
 * to it.  In this order, each step durable before the next begins:
 *
 *   lock      journal and disk: nobody else writes
 *   prove     is it the disk that was left?  The answer tells whether recovery
 *             can put the two in order, which is refused then
 *   compare   disk and view(latest), wherever the journal has a version
 *   SESSION
 *   capture   PREIMAGE of blocks that differ and were never captured: a write
 *             to them was recorded and never reached the disk
 *   GAP       with the ranges that differ.  In the same frame, so that it is
 *             there as a whole or not at all: before it, if the journal was not
 *             closed clean, the CHECKPOINT without which a recovery would write
 *             over what is recorded next; an EVENT in words; behind it the
 *             RESIZE of a disk that has another size.  (More ranges than a
 *             frame holds go into further frames.)
 *   found     what those blocks hold now, and those of which the journal could
 *             not tell what they hold: WRITE and ZERO with FOUND
 *   close     CHECKPOINT, which says that the disk is level and at rest
 *
 * Interrupted before the GAP, nothing was said of the disk; behind it, what was
 * not recorded yet is in doubt, and the next run records it.
 *
 * When was the disk changed?  Each block that differs once held its newest
 * version, while a session recorded; and while one records, nobody else
 * writes.  So it was after the end of the session of the oldest of these
 * versions, at the earliest: from there on all is in doubt.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "lock.h"
#include "pair.h"
#include "reconciler.h"

/* Payload of one frame */
#define FRAME_PAYLOAD (2 * TT_MIB)
/* What is read at once, and the longest WRITE */
#define PIECE (64 * TT_KIB)
#define ZERO_MOST (32 * TT_MIB)
/* Ranges of one GAP: its body has 1 MiB at most */
#define RANGES_MAX 60000u

struct tt_reconciler {
    bool check, as_is, recorded, at_rest;
    char *disk;
    struct tt_pair pair;
    struct tt_reader *reader;
    struct tt_view view;
    struct tt_compare compare;
    struct tt_reconcile_report report;
    const struct tt_reconcile_ops *ops;
    int64_t from_time;
    uint64_t from_epoch;
    bool was_damaged; /* records are missing: nothing may be captured */
    uint8_t *buf;     /* FRAME_PAYLOAD bytes */
    size_t used;      /* by the payloads of the frame that is forming */
    uint64_t done, total;
};

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- open and close ---------------------------------------------------- */

static int find_disk(struct tt_reconciler *r, const struct tt_session *s,
                     const char *given, struct tt_error *err)
{
    const char *where = given != NULL ? given : r->recorded ? s->disk_path : "";

    if (where == NULL || where[0] == '\0') {
        return tt_fail(err, TT_ENODISK, ENOENT,
                       "%s does not say which disk was recorded: give --disk",
                       r->pair.a->path);
    }
    r->disk = strdup(where);
    return r->disk != NULL ? 0 : out_of_memory(err);
}

/* What the journal calls @format is read through QEMU. */
static int refuse_format(const struct tt_reconciler *r, const char *format,
                         struct tt_error *err)
{
    return tt_fail(err, TT_EINVAL, EINVAL,
                   "the disk %s was recorded as %s, not raw: run 'qemu-nbd -r "
                   "-t -f %s -k /PATH/SOCKET %s' and give --disk "
                   "'nbd+unix:///?socket=/PATH/SOCKET'",
                   r->disk, format, format, r->disk);
}

static int open_disk(struct tt_reconciler *r, const char *given,
                     struct tt_error *err)
{
    const char *journal = r->pair.a->path;
    struct tt_session s = { 0 };
    int ret = tt_pair_recorder(r->pair.a, &s, err);
    bool has_format, raw;

    if (ret < 0) {
        return ret;
    }
    r->recorded = ret > 0;
    has_format = r->recorded && s.disk_format != NULL && s.disk_format[0];
    raw = has_format && tt_disk_format_is_raw(s.disk_format);
    ret = find_disk(r, &s, given, err);
    if (ret < 0) {
        /* it is said */
    } else if (tt_disk_is_uri(r->disk)) {
        ret = tt_disk_open(r->disk, true, &r->pair.nbd, err);
    } else if (tt_pair_same_file(journal, r->disk)) {
        ret = tt_fail(err, TT_EINVAL, EINVAL, "%s is the journal, not its disk",
                      r->disk);
    } else if (has_format && !raw) {
        ret = refuse_format(r, s.disk_format, err);
    } else {
        ret = tt_target_open(r->disk, r->check, raw, &r->pair.target, err);
    }
    tt_session_clear(&s);
    return ret;
}

/* Recovery knows what is right as long as it finds the disk that was left. */
static int refuse_unfinished(const struct tt_reconciler *r,
                             struct tt_error *err)
{
    const struct tt_recovery *rec = &r->pair.a->recovery;

    if (r->report.why[0] == '\0') {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "%s was not closed clean, and the disk %s looks as it "
                       "was left: run ttjournal recover first, or open both "
                       "with QEMU",
                       r->pair.a->path, r->disk);
    }
    if (rec->redo_count > 0 && !r->as_is && !r->check) {
        return tt_fail(err, TT_EOTHERDISK, ESTALE,
                       "%.200s has writes up to seq:%" PRIu64
                       " that may not have reached the disk %.200s, and %.300s:"
                       " to give them up and take the disk as it is, add "
                       "--as-is",
                       r->pair.a->path, rec->scan.last_seq, r->disk,
                       r->report.why);
    }
    return 0;
}

static int prove(struct tt_reconciler *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->pair.a->recovery;
    struct tt_error why;
    bool shrunk = false;
    int ret = tt_pair_prove(&r->pair, r->buf, &shrunk, &why);

    if (ret == -TT_EOTHERDISK) {
        snprintf(r->report.why, sizeof(r->report.why), "%s", why.message);
    } else if (ret < 0) {
        if (err != NULL) {
            *err = why;
        }
        return ret;
    }
    r->at_rest = rec->clean || (!r->recorded && !shrunk && !rec->resized &&
                                rec->redo_count == 0);
    r->report.dropped = r->at_rest ? 0 : rec->redo_count;
    return r->at_rest ? 0 : refuse_unfinished(r, err);
}

static int open_view(struct tt_reconciler *r, const char *index,
                     struct tt_error *err)
{
    const struct tt_reader_options options = { .index = index };
    struct tt_history_stats stats;
    const struct tt_history *h;
    size_t damages;
    int ret = tt_reader_open_with(r->pair.a->path, &options, &r->reader, err);

    if (ret == 0) {
        ret = tt_reader_bind(r->reader, "latest", NULL, 0, &r->view, err);
    }
    if (ret < 0) {
        return ret;
    }
    h = tt_reader_lock(r->reader);
    tt_history_stats(h, &stats);
    (void)tt_history_damages(h, &damages);
    r->was_damaged = stats.damages > 0 || damages > 0;
    tt_reader_unlock(r->reader);
    if (r->view.moment.seq != r->pair.a->recovery.scan.last_seq) {
        return tt_fail(err, TT_ECHANGED, EBUSY,
                       "%s was changed while it was read: try again",
                       r->pair.a->path);
    }
    return 0;
}

static int open_all(struct tt_reconciler *r, const char *journal,
                    const struct tt_reconcile_options *options,
                    struct tt_error *err)
{
    const struct tt_recovery *rec;
    int ret;

    r->buf = malloc(FRAME_PAYLOAD);
    if (r->buf == NULL) {
        return out_of_memory(err);
    }
    ret = tt_appender_prepare(journal, r->check, NULL, NULL, &r->pair.a, err);
    if (ret < 0) {
        return ret;
    }
    rec = &r->pair.a->recovery;
    if (rec->open_gap) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "%s ends in a gap (seq:%" PRIu64 "), in which the disk "
                       "was written and not recorded: QEMU closes it when it "
                       "opens the two again; reconcile them after that",
                       journal, rec->open_gap);
    }
    ret = open_disk(r, options->disk, err);
    if (ret == 0) {
        r->report.disk = r->disk;
        r->report.last_seq = rec->scan.last_seq;
        r->report.old_size = rec->scan.disk_size;
        r->report.new_size = tt_pair_disk_size(&r->pair);
        ret = prove(r, err);
    }
    return ret < 0 ? ret : open_view(r, options->index, err);
}

int tt_reconciler_open(const char *journal,
                       const struct tt_reconcile_options *options,
                       struct tt_reconciler **ret, struct tt_error *err)
{
    struct tt_reconciler *r = calloc(1, sizeof(*r));
    int status;

    if (r == NULL) {
        return out_of_memory(err);
    }
    r->check = options->check;
    r->as_is = options->as_is;
    status = open_all(r, journal, options, err);
    if (status < 0) {
        tt_reconciler_close(r);
        return status;
    }
    *ret = r;
    return 0;
}

const struct tt_reconcile_report *
tt_reconciler_report(const struct tt_reconciler *r)
{
    return &r->report;
}

void tt_reconciler_close(struct tt_reconciler *r)
{
    if (r != NULL) {
        tt_compare_clear(&r->compare);
        tt_reader_close(r->reader);
        tt_target_close(r->pair.target);
        tt_disk_close(r->pair.nbd);
        tt_appender_free(r->pair.a);
        free(r->disk);
        free(r->buf);
        free(r);
    }
}

/* ---- what differs ------------------------------------------------------ */

static void say_compared(void *opaque, uint64_t done, uint64_t total)
{
    struct tt_reconciler *r = opaque;

    if (r->ops->progress != NULL) {
        r->ops->progress(r->ops->opaque, "compared", done, total);
    }
}

/* The end of the session in which @seq was written */
static uint64_t session_end(const struct tt_history *h, uint64_t seq,
                            uint64_t last_seq)
{
    size_t count;
    const struct tt_session *s = tt_history_sessions(h, &count);

    for (size_t i = 0; i < count; i++) {
        if (s[i].seq > seq && s[i].seq > 1) {
            return s[i].seq - 1;
        }
    }
    return last_seq;
}

/* Since when is it in doubt? */
static void find_beginning(struct tt_reconciler *r)
{
    struct tt_reconcile_report *rep = &r->report;
    const struct tt_history *h = tt_reader_lock(r->reader);
    const struct tt_epoch *e;
    size_t count;

    rep->from_seq = session_end(h, r->compare.oldest, rep->last_seq);
    rep->has_from_time = tt_history_time(h, rep->from_seq, &r->from_time);
    rep->from_time = r->from_time;
    e = tt_history_epochs(h, &count);
    for (size_t i = 0; i < count; i++) {
        if (e[i].first_seq <= rep->from_seq) {
            r->from_epoch = e[i].number;
        }
    }
    tt_reader_unlock(r->reader);
}

static int compare(struct tt_reconciler *r, struct tt_error *err)
{
    struct tt_reconcile_report *rep = &r->report;
    struct tt_compare *c = &r->compare;
    int ret;

    c->pair = &r->pair;
    c->reader = r->reader;
    c->view = &r->view;
    c->progress = say_compared;
    c->opaque = r;
    ret = tt_compare_run(c, err);
    if (ret < 0) {
        return ret;
    }
    rep->compared_bytes = c->compared;
    rep->differing_bytes = c->differing;
    rep->unknown_bytes = c->unknown_bytes;
    rep->uncompared_bytes = c->uncompared;
    rep->lost_bytes = c->lost_bytes;
    rep->differs = rep->differing_bytes > 0 || rep->unknown_bytes > 0 ||
                   rep->old_size != rep->new_size;
    rep->touched = rep->why[0] != '\0';
    find_beginning(r);
    return 0;
}

/* ---- frames ------------------------------------------------------------ */

static int commit(struct tt_reconciler *r, struct tt_append *ret,
                  struct tt_error *err)
{
    struct tt_append ap = { 0 };
    int status = 0;

    if (tt_batch_count(r->pair.a->batch) > 0) {
        status = tt_appender_commit(r->pair.a, &ap, err);
    }
    if (ret != NULL) {
        *ret = ap;
    }
    tt_appender_begin(r->pair.a);
    r->used = 0;
    return status;
}

/* Adds a record to the frame, or to the next one if it is full. */
static int add(struct tt_reconciler *r, const struct tt_request *req,
               struct tt_error *err)
{
    int ret;

    if (tt_batch_add(r->pair.a->batch, req)) {
        return 0;
    }
    ret = commit(r, NULL, err);
    if (ret == 0 && !tt_batch_add(r->pair.a->batch, req)) {
        ret = tt_fail(err, TT_EINVAL, EINVAL,
                      "%s: a record of %u bytes does not fit", r->pair.a->path,
                      req->payload_length);
    }
    return ret;
}

/*
 * Adds a record of @length bytes of the disk, which are to be at buf + used.
 * One that opens the next frame has its bytes at the front.
 */
static int add_data(struct tt_reconciler *r, struct tt_request *req,
                    size_t length, struct tt_error *err)
{
    size_t at = r->used;
    int ret = 0;

    req->payload = r->buf + at;
    req->payload_length = (uint32_t)length;
    if (!tt_batch_add(r->pair.a->batch, req)) {
        ret = commit(r, NULL, err);
        memmove(r->buf, r->buf + at, length);
        req->payload = r->buf;
        if (ret == 0 && !tt_batch_add(r->pair.a->batch, req)) {
            ret = tt_fail(err, TT_EINVAL, EINVAL,
                          "%s: a record of %zu bytes does not fit",
                          r->pair.a->path, length);
        }
    }
    r->used += length;
    return ret;
}

static bool is_zero(const uint8_t *p, size_t length)
{
    return p[0] == 0 && memcmp(p, p + 1, length - 1) == 0;
}

/* Room for one more piece, and its bytes there. */
static int read_piece(struct tt_reconciler *r, uint64_t offset, size_t length,
                      struct tt_error *err)
{
    int ret = 0;

    if (FRAME_PAYLOAD - r->used < length) {
        ret = commit(r, NULL, err);
    }
    return ret < 0
               ? ret
               : tt_pair_read(&r->pair, offset, r->buf + r->used, length, err);
}

/* ---- captures ---------------------------------------------------------- */

static int capture_block(struct tt_reconciler *r, uint64_t offset,
                         size_t length, struct tt_error *err)
{
    struct tt_recovery *rec = &r->pair.a->recovery;
    struct tt_request req = {
        .kind = TT_KIND_PREIMAGE,
        .disk_offset = offset,
        .disk_length = length,
    };
    int ret = read_piece(r, offset, length, err);

    if (ret < 0) {
        return ret;
    }
    if (!tt_blocks_add(rec->captured, offset, length) ||
        !tt_blocks_add(rec->unmapped, offset, length)) {
        return out_of_memory(err);
    }
    r->report.captured_bytes += length;
    if (is_zero(r->buf + r->used, length)) {
        req.flags = TT_RECORD_ZEROES;
        return add(r, &req, err);
    }
    return add_data(r, &req, length, err);
}

/*
 * What was never captured in a block of @set is still what the disk holds, as
 * far as anybody knows.  But not in a block that the disk's new end cuts: that
 * is not whole.
 */
static int capture_set(struct tt_reconciler *r, const struct tt_blocks *set,
                       struct tt_error *err)
{
    const struct tt_blocks *captured = r->pair.a->recovery.captured;
    uint64_t old = r->report.old_size, end = min_u64(old, r->report.new_size);
    uint64_t at = 0, run;
    int ret = 0;

    end -= end < old ? end % TT_GRID : 0;
    while (ret == 0 && (at = tt_blocks_next(set, at)) < end) {
        if (!tt_blocks_test(captured, at, TT_GRID, &run)) {
            ret = capture_block(r, at, min_u64(TT_GRID, end - at), err);
        }
        at += TT_GRID;
    }
    return ret;
}

/*
 * What recovery would have captured before its redo: it is not redone any more,
 * and the next write to these blocks must not take them for untouched ones.
 */
static int capture_redos(struct tt_reconciler *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->pair.a->recovery;
    struct tt_blocks *redos = tt_blocks_new(TT_GRID);
    bool ok = redos != NULL;
    int ret;

    for (size_t i = 0; i < rec->redo_count && ok && !r->at_rest; i++) {
        ok = tt_blocks_add(redos, rec->redos[i].disk_offset,
                           rec->redos[i].disk_length);
    }
    ret = ok ? capture_set(r, redos, err) : out_of_memory(err);
    tt_blocks_free(redos);
    return ret;
}

/* Adds the blocks of @from to the map: they are never to be captured again. */
static bool add_to_map(struct tt_reconciler *r, const struct tt_blocks *from)
{
    struct tt_recovery *rec = &r->pair.a->recovery;
    uint64_t at = 0, run;

    while ((at = tt_blocks_next(from, at)) < r->report.new_size) {
        tt_blocks_test(from, at, r->report.new_size - at, &run);
        if (!tt_blocks_add(rec->captured, at, run) ||
            !tt_blocks_add(rec->unmapped, at, run)) {
            return false;
        }
        at += run;
    }
    return true;
}

/* What a RESIZE adds is born captured, in whole blocks. */
static bool add_born(struct tt_reconciler *r)
{
    struct tt_recovery *rec = &r->pair.a->recovery;
    uint64_t from = (r->report.old_size + TT_GRID - 1) / TT_GRID * TT_GRID;
    uint64_t size = r->report.new_size;

    return from >= size || (tt_blocks_add(rec->captured, from, size - from) &&
                            tt_blocks_add(rec->unmapped, from, size - from));
}

static int capture(struct tt_reconciler *r, struct tt_error *err)
{
    const struct tt_compare *c = &r->compare;
    int ret = 0;

    tt_appender_begin(r->pair.a);
    if (!r->was_damaged) {
        /* damage may hide that something was captured: see captured.c */
        ret = capture_redos(r, err);
        if (ret == 0) {
            ret = capture_set(r, c->differ, err);
        }
        if (ret == 0) { /* a block that the old end cuts */
            ret = capture_set(r, c->grown, err);
        }
    }
    if (ret == 0) {
        ret = commit(r, NULL, err);
    }
    if (ret == 0 && (!add_to_map(r, c->differ) || !add_to_map(r, c->unknown) ||
                     !add_to_map(r, c->grown) || !add_born(r))) {
        ret = out_of_memory(err);
    }
    return ret;
}

/* ---- the gap ----------------------------------------------------------- */

/* The CHECKPOINT up to the end that was found, ready to share a frame. */
static int begin_with_checkpoint(struct tt_reconciler *r, uint8_t **ret_body,
                                 struct tt_error *err)
{
    struct tt_checkpoint c = { .level_seq = r->report.last_seq };
    struct tt_request req;
    bool more = true;
    int ret = 0;

    *ret_body = NULL;
    while (ret == 0 && more) {
        struct tt_append ap;

        *ret_body = tt_pair_checkpoint(&r->pair, &c, &req, err);
        if (*ret_body == NULL) {
            return -TT_ENOMEM;
        }
        more = req.flags & TT_RECORD_MORE;
        ret = add(r, &req, err);
        if (ret == 0 && more) {
            ret = commit(r, &ap, err);
            if (ret == 0) {
                tt_pair_checkpoint_done(&r->pair, *ret_body, &ap);
            }
            free(*ret_body);
            *ret_body = NULL;
        }
    }
    return ret;
}

/* In words, for who reads the log. */
static int add_event(struct tt_reconciler *r, uint8_t *buf, size_t room,
                     struct tt_error *err)
{
    const struct tt_reconcile_report *rep = &r->report;
    struct tt_event_body body = { .source = tt_put32(3) };
    struct tt_request req = { .kind = TT_KIND_EVENT,
                              .flags = TT_RECORD_INLINE,
                              .payload = buf };
    int n = snprintf(
        (char *)buf + sizeof(body), room - sizeof(body),
        "reconcile: the disk was changed while nobody recorded: "
        "%" PRIu64 " bytes differ, %" PRIu64 " could not be told, %" PRIu64
        " were never captured and could not be compared",
        rep->differing_bytes, rep->unknown_bytes, rep->uncompared_bytes);

    body.length = tt_put32((uint32_t)n);
    memcpy(buf, &body, sizeof(body));
    req.payload_length = (uint32_t)(sizeof(body) + (size_t)n);
    return add(r, &req, err);
}

/* The next GAP for ranges of @set from *at on; NULL: out of memory. */
static uint8_t *gap_body(const struct tt_reconciler *r,
                         const struct tt_blocks *set, uint64_t *at,
                         uint32_t *ret_length)
{
    uint64_t end = max_u64(r->report.old_size, r->report.new_size), run;
    uint32_t count = 0, room = 64;
    struct tt_gap_body *b = malloc(sizeof(*b) + room * sizeof(struct tt_range));

    while (b != NULL && count < RANGES_MAX &&
           (*at = tt_blocks_next(set, *at)) < end) {
        struct tt_range range;

        tt_blocks_test(set, *at, end - *at, &run);
        if (count == room) {
            struct tt_gap_body *old = b;

            room *= 2;
            b = realloc(b, sizeof(*b) + room * sizeof(range));
            if (b == NULL) {
                free(old);
                return NULL;
            }
        }
        range.offset = tt_put64(*at);
        range.length = tt_put64(run);
        memcpy((uint8_t *)b + sizeof(*b) + count++ * sizeof(range), &range,
               sizeof(range));
        *at += run;
    }
    if (b != NULL) {
        *b = (struct tt_gap_body){
            .from_seq = tt_put64(r->report.from_seq),
            .from_epoch = tt_put64(r->from_epoch),
            .from_time = tt_put64((uint64_t)r->from_time),
            .to_time = tt_put64((uint64_t)tt_clocks().realtime),
            .reason = tt_put32(TT_GAP_CHANGED_BEHIND),
            .range_count = tt_put32(count),
        };
        *ret_length = (uint32_t)(sizeof(*b) + count * sizeof(struct tt_range));
    }
    return (uint8_t *)b;
}

/* Bodies that the frame needs until it is committed */
#define BODIES 16u
struct bodies {
    uint8_t *of[BODIES];
    size_t count;
};

static void free_bodies(struct bodies *b)
{
    for (size_t i = 0; i < b->count; i++) {
        free(b->of[i]);
    }
    b->count = 0;
}

/* Appends what the frame has so far: later records go to another one. */
static int split(struct tt_reconciler *r, struct bodies *b,
                 struct tt_error *err)
{
    int ret = commit(r, NULL, err);

    free_bodies(b);
    return ret;
}

static int add_gaps(struct tt_reconciler *r, const struct tt_blocks *set,
                    struct bodies *b, struct tt_error *err)
{
    uint64_t end = max_u64(r->report.old_size, r->report.new_size), at = 0;
    int ret = 0;

    while (ret == 0 && (at = tt_blocks_next(set, at)) < end) {
        struct tt_request req = { .kind = TT_KIND_GAP };
        uint8_t *body = gap_body(r, set, &at, &req.payload_length);

        if (body == NULL) {
            return out_of_memory(err);
        }
        req.payload = body;
        req.flags = req.payload_length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0;
        if (b->count == BODIES || !tt_batch_add(r->pair.a->batch, &req)) {
            ret = split(r, b, err);
            if (ret == 0) {
                ret = add(r, &req, err);
            }
        }
        b->of[b->count++] = body;
    }
    return ret;
}

/* All that is in doubt, but for what lies behind the old end. */
static int collect_doubts(const struct tt_reconciler *r,
                          struct tt_blocks *doubts, struct tt_error *err)
{
    const struct tt_compare *c = &r->compare;
    const struct tt_blocks *from[] = { c->differ, c->lost };
    uint64_t old = r->report.old_size, size = r->report.new_size;
    uint64_t end = max_u64(old, size), run;
    bool ok = true;

    for (size_t i = 0; i < 2; i++) {
        for (uint64_t at = 0; ok && (at = tt_blocks_next(from[i], at)) < end;
             at += run) {
            tt_blocks_test(from[i], at, end - at, &run);
            ok = tt_blocks_add(doubts, at, run);
        }
    }
    if (old != size) {
        ok = ok && tt_blocks_add(doubts, min_u64(old, size),
                                 end - min_u64(old, size));
    }
    return ok ? 0 : out_of_memory(err);
}

static int add_resize(struct tt_reconciler *r, struct tt_error *err)
{
    struct tt_request req = {
        .kind = TT_KIND_RESIZE,
        .disk_offset = r->report.old_size,
        .disk_length = r->report.new_size,
    };

    return r->report.old_size != r->report.new_size ? add(r, &req, err) : 0;
}

static int append_doubts(struct tt_reconciler *r,
                         const struct tt_blocks *doubts, struct bodies *b,
                         struct tt_error *err)
{
    uint8_t event[512];
    int ret = 0;

    tt_appender_begin(r->pair.a);
    if (!r->at_rest) {
        ret = begin_with_checkpoint(r, &b->of[0], err);
        b->count = b->of[0] != NULL;
    }
    if (ret == 0) {
        ret = add_event(r, event, sizeof(event), err);
    }
    if (ret == 0) {
        ret = add_gaps(r, doubts, b, err);
    }
    if (ret == 0) {
        ret = add_resize(r, err);
    }
    if (ret == 0) {
        ret = add_gaps(r, r->compare.grown, b, err);
    }
    if (ret == 0) {
        ret = commit(r, NULL, err);
    }
    return ret;
}

static int append_gap(struct tt_reconciler *r, struct tt_error *err)
{
    struct tt_blocks *doubts = tt_blocks_new(TT_SECTOR);
    struct bodies b = { .count = 0 };
    int ret =
        doubts != NULL ? collect_doubts(r, doubts, err) : out_of_memory(err);

    if (ret == 0) {
        ret = append_doubts(r, doubts, &b, err);
    }
    free_bodies(&b);
    tt_blocks_free(doubts);
    return ret;
}

/* ---- what was found ---------------------------------------------------- */

/*
 * Records some of [offset, offset + length); *ret_done is how much.  What is
 * known to be zero costs no read.
 */
static int add_found(struct tt_reconciler *r, uint64_t offset, uint64_t length,
                     uint64_t *ret_done, struct tt_error *err)
{
    struct tt_request req = { .kind = TT_KIND_ZERO,
                              .flags = TT_RECORD_FOUND,
                              .disk_offset = offset };
    uint64_t hole = tt_pair_hole(&r->pair, offset, min_u64(length, ZERO_MOST));
    int ret;

    hole -= hole < length ? hole % TT_GRID : 0;
    if (hole > 0) {
        req.disk_length = *ret_done = hole;
        r->report.zero_bytes += hole;
        return add(r, &req, err);
    }
    req.disk_length = *ret_done = min_u64(length, PIECE);
    ret = read_piece(r, offset, *ret_done, err);
    if (ret < 0) {
        return ret;
    }
    if (is_zero(r->buf + r->used, *ret_done)) {
        r->report.zero_bytes += *ret_done;
        return add(r, &req, err);
    }
    req.kind = TT_KIND_WRITE;
    r->report.write_bytes += *ret_done;
    return add_data(r, &req, *ret_done, err);
}

static int append_found(struct tt_reconciler *r, const struct tt_blocks *set,
                        struct tt_error *err)
{
    uint64_t size = r->report.new_size, at = 0, run, done;
    int ret = 0;

    while (ret == 0 && (at = tt_blocks_next(set, at)) < size) {
        tt_blocks_test(set, at, size - at, &run);
        for (; run > 0 && ret == 0; at += done, run -= done) {
            ret = add_found(r, at, run, &done, err);
            r->done += done;
            if (r->ops->progress != NULL) {
                r->ops->progress(r->ops->opaque, "recorded", r->done, r->total);
            }
        }
    }
    return ret;
}

/* Each block once: what differs, is unknown, or was gained. */
static int append_all_found(struct tt_reconciler *r, struct tt_error *err)
{
    const struct tt_compare *c = &r->compare;
    const struct tt_blocks *from[] = { c->differ, c->unknown, c->grown };
    struct tt_blocks *all = tt_blocks_new(TT_GRID);
    uint64_t size = r->report.new_size, run;
    int ret = all != NULL ? 0 : out_of_memory(err);

    for (size_t i = 0; i < 3; i++) {
        for (uint64_t at = 0;
             ret == 0 && (at = tt_blocks_next(from[i], at)) < size; at += run) {
            tt_blocks_test(from[i], at, size - at, &run);
            if (!tt_blocks_add(all, at, run)) {
                ret = out_of_memory(err);
            }
        }
    }
    for (uint64_t at = 0; ret == 0 && (at = tt_blocks_next(all, at)) < size;
         at += run) {
        tt_blocks_test(all, at, size - at, &run);
        r->total += run;
    }
    tt_appender_begin(r->pair.a);
    if (ret == 0) {
        ret = append_found(r, all, err);
    }
    if (ret == 0) {
        ret = commit(r, NULL, err);
    }
    tt_blocks_free(all);
    return ret;
}

/* ---- all together ------------------------------------------------------ */

static int record(struct tt_reconciler *r, const char *program,
                  struct tt_error *err)
{
    struct tt_error warning = { 0 };
    int ret = tt_pair_start(&r->pair, program, err);

    if (ret == 0) {
        ret = capture(r, err);
    }
    if (ret == 0) {
        ret = append_gap(r, err);
    }
    if (ret == 0) {
        ret = append_all_found(r, err);
    }
    if (ret == 0) {
        r->report.exact_seq = r->pair.a->writer->next_seq - 1;
        ret = tt_pair_close(&r->pair, &r->report.checkpoint_seq, &warning, err);
    }
    if (ret == 0 && warning.code) {
        r->ops->warn(r->ops->opaque, warning.message); /* it is done */
    }
    return ret;
}

/* A check has no lock: has somebody begun to write meanwhile? */
static int ask_again(struct tt_reconciler *r, struct tt_error *err)
{
    int ret = tt_lock_ask(r->pair.a->fd, r->pair.a->path, err);

    return ret < 0 || r->pair.target == NULL
               ? ret
               : tt_lock_ask(r->pair.target->fd, r->pair.target->path, err);
}

int tt_reconciler_run(struct tt_reconciler *r, const char *program,
                      const struct tt_reconcile_ops *ops, struct tt_error *err)
{
    int ret;

    r->ops = ops;
    ret = compare(r, err);
    if (ret < 0) {
        return ret;
    }
    if (r->check) {
        return ask_again(r, err);
    }
    return r->report.differs || r->report.touched || !r->at_rest
               ? record(r, program, err)
               : 0;
}
