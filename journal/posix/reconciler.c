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
 *   capture   PREIMAGE of what differs and was never captured: a write to it
 *             was recorded and has not reached the disk, or a size ended in it
 *   GAP       with the ranges that differ.  In the same frame, so that all of
 *             it is there or nothing: before it the last PREIMAGEs; behind it
 *             the RESIZE of a disk that has another size, an EVENT in words,
 *             and the CHECKPOINT without which a recovery would write older
 *             contents, or a new end's zeroes, over what is recorded next.
 *             (More ranges than a GAP holds go into further ones before.)
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

#include "lock.h"
#include "reconciler-int.h"

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
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
        snprintf(r->report.why, sizeof(r->report.why), "%.511s", why.message);
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

/* ---- all together ------------------------------------------------------ */

/* A check has no lock: has somebody begun to write meanwhile? */
static int ask_again(struct tt_reconciler *r, struct tt_error *err)
{
    int ret = tt_lock_ask(r->pair.a->fd, r->pair.a->path, err);

    return ret < 0 || r->pair.target == NULL
               ? ret
               : tt_lock_ask(r->pair.target->fd, r->pair.target->path, err);
}

int tt_reconciler_run(struct tt_reconciler *r, const char *program,
                      const struct tt_watcher *ops, struct tt_error *err)
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
               ? tt_reconciler_record(r, program, err)
               : 0;
}
