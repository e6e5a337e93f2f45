/*
 * Recovery of a raw disk, as QEMU's driver does it when it opens one
 *
 * In this order, each step durable before the next begins:
 *
 *   lock      journal and disk: nobody else writes
 *   scan      what recovery needs (journal/recover.c)
 *   prove     that the disk is the one that was left (journal/prove.c); else
 *             nothing is written
 *   rewrite   what was accepted above the durable end, and SESSION and DAMAGE
 *             (appender.c); RESIZE if a crash came between a shrink and it
 *   capture   what redo will overwrite and nobody captured (PREIMAGE)
 *   redo      the newest version of each range that the disk may lack, without
 *             comparing first, and the disk's size; then the disk is flushed
 *   close     CHECKPOINT, which says that the disk is level and at rest, then
 *             DURABLE, which vouches for it
 *
 * No step depends on what an interrupted run has done: until the CHECKPOINT is
 * there, the next run finds the same level and begins again.
 *
 * The session is a tool's: no guest is recorded.  The journal must go on while
 * the disk is written, for the next one compares their times; so a DURABLE is
 * appended now and then.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "appender.h"
#include "disk.h"
#include "lock.h"
#include "pair.h"
#include "recoverer.h"
#include "target.h"

/* Pre-images of data are read in pieces of this size at most. */
#define CAPTURE_MAX (64 * TT_KIB)
/* Payload of one frame of them */
#define CAPTURES_MAX (2 * TT_MIB)

struct tt_recoverer {
    bool dry_run, shrunk;
    bool recorded; /* a session that recorded a disk was found */
    struct tt_appender *a;
    struct tt_target *disk;
    uint64_t size; /* of the disk once it is level */
    struct tt_recover_report report;
    uint8_t *buf; /* CAPTURES_MAX bytes */
    struct tt_redo_reader *reader;
    /* while it runs: */
    const struct tt_watcher *ops;
    uint64_t done;
};

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

/* ---- is it the right disk? --------------------------------------------- */

static int prove(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_pair pair = { r->a, r->disk, NULL };
    struct tt_error why;
    int ret = tt_pair_prove(&pair, r->buf, &r->shrunk, &why);

    if (ret == -TT_EOTHERDISK) {
        return tt_fail(err, TT_EOTHERDISK, ESTALE,
                       "disk %.200s is not as journal %.200s left it: %.400s; "
                       "nothing was changed: see ttjournal reconcile",
                       r->disk->path, r->a->path, why.message);
    }
    if (ret < 0 && err != NULL) {
        *err = why;
    }
    return ret;
}

/* A device has the size that it has: say so before anything is written. */
static int check_resize(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->a->recovery;

    r->size = r->shrunk ? r->disk->size : rec->scan.disk_size;
    r->report.old_size = r->disk->size;
    r->report.new_size = r->size;
    if (r->disk->device && r->disk->size != r->size) {
        return tt_target_resize(r->disk, r->size, err);
    }
    return 0;
}

/* ---- what there is to do ----------------------------------------------- */

/* The part of @redo that the disk has room for; false: none. */
static bool clip(const struct tt_recoverer *r, const struct tt_redo *redo,
                 struct tt_redo *ret)
{
    if (redo->disk_offset >= r->size) {
        return false; /* cut off by a shrink */
    }
    *ret = *redo;
    if (ret->disk_length > r->size - ret->disk_offset) {
        ret->disk_length = r->size - ret->disk_offset;
    }
    return true;
}

static int time_of(struct tt_recoverer *r, const struct tt_redo *redo,
                   int64_t *ret, struct tt_error *err)
{
    uint8_t *head = malloc(TT_HEAD_MAX);
    uint32_t pos = 0, index = 0;
    struct tt_record rec;
    struct tt_frame f;
    int ret_read;

    if (head == NULL) {
        return out_of_memory(err);
    }
    ret_read = tt_frame_read(&r->a->super, &r->a->reading.source,
                             redo->frame_offset, head, &f, err);
    while (ret_read > 0 &&
           tt_table_next(&f, head + sizeof(struct tt_frame_header), &pos,
                         &index, &rec)) {
        if (rec.seq == redo->seq) {
            *ret = rec.time;
        }
    }
    free(head);
    return ret_read < 0 ? ret_read : 0;
}

/* Redos come newest first, those of one record together. */
static int count_redos(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->a->recovery;
    struct tt_recover_report *rep = &r->report;
    const struct tt_redo *first = NULL, *newest = NULL;
    struct tt_redo part;
    int ret = 0;

    for (size_t i = 0; i < rec->redo_count; i++) {
        const struct tt_redo *redo = &rec->redos[i];

        if (!clip(r, redo, &part)) {
            continue;
        }
        rep->records += first == NULL || first->seq != redo->seq;
        rep->ranges++;
        *(part.kind == TT_KIND_WRITE ? &rep->write_bytes : &rep->zero_bytes) +=
            part.disk_length;
        newest = newest == NULL ? redo : newest;
        first = redo;
    }
    if (first != NULL) {
        rep->first_seq = first->seq;
        rep->newest_seq = newest->seq;
        ret = time_of(r, first, &rep->first_time, err);
        if (ret == 0) {
            ret = time_of(r, newest, &rep->newest_time, err);
        }
    }
    return ret;
}

static int make_report(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->a->recovery;
    struct tt_recover_report *rep = &r->report;

    rep->nothing = rec->clean || (!r->recorded && !r->shrunk && !rec->resized &&
                                  rec->redo_count == 0);
    rep->level_seq = rec->level_seq;
    rep->last_seq = rec->scan.last_seq;
    rep->damages = rec->damage_count;
    rep->rewritten_frames = rec->rewrite_count;
    for (size_t i = 0; i < rec->rewrite_count; i++) {
        rep->rewritten_bytes += rec->rewrites[i].length;
    }
    return count_redos(r, err);
}

/* ---- open and close ---------------------------------------------------- */

static int open_both(struct tt_recoverer *r, const char *journal,
                     const char *disk, struct tt_error *err)
{
    bool known_raw = false;
    int ret;

    if (tt_pair_same_file(journal, disk)) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "%s is the journal, not its disk", disk);
    }
    r->buf = malloc(CAPTURES_MAX);
    if (r->buf == NULL) {
        return out_of_memory(err);
    }
    ret = tt_appender_prepare(journal, r->dry_run, NULL, NULL, &r->a, err);
    if (ret == 0 && r->a->recovery.open_gap) {
        ret = tt_fail(err, TT_EINVAL, EINVAL,
                      "%s ends in a gap (seq:%" PRIu64 "), in which the disk "
                      "was written and not recorded: there is nothing to "
                      "recover; QEMU closes it when it opens the two again",
                      journal, r->a->recovery.open_gap);
    }
    if (ret == 0) {
        ret = tt_pair_check_raw(r->a, disk, &r->recorded, &known_raw, err);
    }
    if (ret == 0) {
        ret = tt_target_open(disk, r->dry_run, known_raw, &r->disk, err);
    }
    if (ret == 0) {
        ret = prove(r, err);
    }
    if (ret == 0) {
        ret = check_resize(r, err);
    }
    return ret < 0 ? ret : make_report(r, err);
}

int tt_recoverer_open(const char *journal, const char *disk, bool dry_run,
                      struct tt_recoverer **ret, struct tt_error *err)
{
    struct tt_recoverer *r = calloc(1, sizeof(*r));
    int status;

    if (r == NULL) {
        return out_of_memory(err);
    }
    r->dry_run = dry_run;
    status = open_both(r, journal, disk, err);
    if (status < 0) {
        tt_recoverer_close(r);
        return status;
    }
    *ret = r;
    return 0;
}

const struct tt_recover_report *
tt_recoverer_report(const struct tt_recoverer *r)
{
    return &r->report;
}

void tt_recoverer_close(struct tt_recoverer *r)
{
    if (r != NULL) {
        tt_redo_reader_free(r->reader);
        tt_appender_free(r->a);
        tt_target_close(r->disk);
        free(r->buf);
        free(r);
    }
}

/* ---- the session ------------------------------------------------------- */

/* A crash came between the disk's shrinking and its RESIZE. */
static int append_shrink(struct tt_recoverer *r, struct tt_error *err)
{
    struct tt_request req = {
        .kind = TT_KIND_RESIZE,
        .disk_offset = r->a->recovery.scan.disk_size,
        .disk_length = r->size,
    };

    return r->shrunk ? tt_appender_add(r->a, &req, NULL, err) : 0;
}

static void progress(struct tt_recoverer *r, const char *what, uint64_t done,
                     uint64_t total)
{
    if (r->ops->progress != NULL) {
        r->ops->progress(r->ops->opaque, what, done, total);
    }
}

/* ---- captures ---------------------------------------------------------- */

/* Pre-images on their way into one frame; their bytes are in buf. */
struct captures {
    struct tt_recoverer *r;
    size_t used; /* of buf */
};

static int commit_captures(struct captures *c, struct tt_error *err)
{
    struct tt_append ap;
    int ret = 0;

    if (tt_batch_count(c->r->a->batch) > 0) {
        ret = tt_appender_commit(c->r->a, &ap, err);
    }
    tt_appender_begin(c->r->a);
    c->used = 0;
    return ret;
}

static bool is_zero(const uint8_t *p, size_t length)
{
    return p[0] == 0 && memcmp(p, p + 1, length - 1) == 0;
}

/* Captures [offset, offset + length); @data: from the end of buf. */
static int add_capture(struct captures *c, uint64_t offset, uint64_t length,
                       bool data, struct tt_error *err)
{
    struct tt_recovery *rec = &c->r->a->recovery;
    struct tt_request req = {
        .kind = TT_KIND_PREIMAGE,
        .flags = data ? 0 : TT_RECORD_ZEROES,
        .disk_offset = offset,
        .disk_length = length,
        .payload = data ? c->r->buf + c->used : NULL,
        .payload_length = data ? (uint32_t)length : 0,
    };
    int ret = 0;

    if (!tt_blocks_add(rec->captured, offset, length) ||
        !tt_blocks_add(rec->unmapped, offset, length)) {
        return out_of_memory(err);
    }
    c->r->report.captured_bytes += length;
    if (c->r->dry_run) {
        return 0;
    }
    if (!tt_batch_add(c->r->a->batch, &req)) {
        /* a full frame; this one's bytes move to the front of the buffer */
        size_t at = c->used;

        ret = commit_captures(c, err);
        if (data) {
            memmove(c->r->buf, c->r->buf + at, length);
            req.payload = c->r->buf;
        }
        if (ret == 0 && !tt_batch_add(c->r->a->batch, &req)) {
            ret = tt_fail(err, TT_EINVAL, EINVAL,
                          "%s: a pre-image of %" PRIu64 " bytes does not fit",
                          c->r->a->path, length);
        }
    }
    c->used += data ? length : 0;
    return ret;
}

/*
 * Captures some of @length bytes that nobody has captured; *ret_done is how
 * much.  A hole costs no read, and is taken as far as it and the never
 * captured range go: @room bytes.
 */
static int capture_some(struct captures *c, uint64_t offset, uint64_t length,
                        uint64_t room, uint64_t *ret_done, struct tt_error *err)
{
    struct tt_recoverer *r = c->r;
    uint64_t hole;
    int ret;

    room = room < TT_PREIMAGE_ZERO_MAX ? room : TT_PREIMAGE_ZERO_MAX;
    hole = tt_target_hole(r->disk, offset, room);
    if (hole < room) {
        hole -= hole % TT_GRID; /* whole blocks, or all of it */
    }
    if (hole > 0) {
        *ret_done = hole;
        return add_capture(c, offset, hole, false, err);
    }
    *ret_done = length < CAPTURE_MAX ? length : CAPTURE_MAX;
    if (r->dry_run) {
        return add_capture(c, offset, *ret_done, true, err);
    }
    if (CAPTURES_MAX - c->used < *ret_done) {
        ret = commit_captures(c, err);
        if (ret < 0) {
            return ret;
        }
    }
    ret = tt_target_read(r->disk, offset, r->buf + c->used, *ret_done, err);
    return ret < 0 ? ret
                   : add_capture(c, offset, *ret_done,
                                 !is_zero(r->buf + c->used, *ret_done), err);
}

static int capture_range(struct captures *c, uint64_t offset, uint64_t length,
                         struct tt_error *err)
{
    uint64_t at = offset - offset % TT_GRID;
    uint64_t end = (offset + length + TT_GRID - 1) / TT_GRID * TT_GRID;
    uint64_t size = c->r->size, done;
    int ret = 0;

    if (end > size) {
        end = size;
    }
    for (; at < end && ret == 0; at += done) {
        if (!tt_blocks_test(c->r->a->recovery.captured, at, size - at, &done)) {
            ret = capture_some(c, at, done < end - at ? done : end - at, done,
                               &done, err);
        }
    }
    return ret;
}

static int capture_redos(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->a->recovery;
    struct captures c = { .r = r };
    uint64_t size = r->disk->size;
    int ret = 0;

    tt_appender_begin(r->a);
    for (size_t i = 0; i < rec->redo_count && ret == 0; i++) {
        uint64_t at = rec->redos[i].disk_offset;
        uint64_t length = rec->redos[i].disk_length;

        /* what the disk does not have yet is a RESIZE's, and born captured */
        if (at < size) {
            ret = capture_range(&c, at, length < size - at ? length : size - at,
                                err);
        }
        progress(r, "looked at", i, rec->redo_count);
    }
    return ret < 0 || r->dry_run ? ret : commit_captures(&c, err);
}

/* ---- redo -------------------------------------------------------------- */

/* The journal's time must not fall behind the disk's (journal/prove.c). */
static int still_here(struct tt_recoverer *r, struct tt_error *err)
{
    struct tt_request req = { .kind = TT_KIND_DURABLE };

    return tt_clocks().boottime - r->a->writer->last_boottime <
                   TT_MTIME_SLACK / 4
               ? 0
               : tt_appender_add(r->a, &req, NULL, err);
}

/* Writes one range whose bytes are in buf. */
static int write_range(struct tt_recoverer *r, const struct tt_redo *redo,
                       struct tt_error *err)
{
    int ret;

    if (r->dry_run) {
        return 0;
    }
    ret = still_here(r, err);
    return ret < 0 ? ret
                   : tt_target_write(r->disk, redo->disk_offset, r->buf,
                                     redo->disk_length, err);
}

/* Reads and checks the bytes of a redo. */
static int read_range(struct tt_recoverer *r, const struct tt_redo *redo,
                      struct tt_error *err)
{
    int ret =
        tt_redo_read(&r->a->super, &r->a->reading.source, redo, r->buf, err);

    return ret < 0 ? tt_file_name_error(r->a->path, ret, err) : 0;
}

/*
 * Damage costs the grid pieces that it hit: the disk keeps what it has there,
 * and views say that they do not know.
 */
static int redo_pieces(struct tt_recoverer *r, const struct tt_redo *redo,
                       struct tt_error *err)
{
    uint64_t at = redo->disk_offset, end = at + redo->disk_length, next;
    struct tt_error piece_err;
    bool warned = false;
    int ret = 0;

    for (; at < end && ret == 0; at = next) {
        struct tt_redo piece = *redo;

        next = at - at % TT_GRID + TT_GRID;
        next = next < end ? next : end;
        piece.disk_offset = at;
        piece.disk_length = next - at;
        piece.payload += at - redo->disk_offset;
        ret = read_range(r, &piece, &piece_err);
        if (ret == 0) {
            ret = write_range(r, &piece, err);
        } else if (ret == -TT_EDAMAGED) {
            r->report.damaged_bytes += piece.disk_length;
            if (!warned) {
                r->ops->warn(r->ops->opaque, piece_err.message);
            }
            warned = true;
            ret = 0;
        } else if (err != NULL) {
            *err = piece_err;
        }
    }
    return ret;
}

static int redo_write(struct tt_recoverer *r, const struct tt_redo *redo,
                      struct tt_error *err)
{
    int ret =
        tt_redo_read(&r->a->super, &r->a->reading.source, redo, r->buf, err);

    if (ret == -TT_EDAMAGED) {
        ret = redo_pieces(r, redo, err);
    } else if (ret == 0) {
        ret = write_range(r, redo, err);
    }
    r->done += redo->disk_length;
    progress(r, r->dry_run ? "checked" : "written", r->done,
             r->report.write_bytes);
    return ret;
}

static int redo_zero(struct tt_recoverer *r, const struct tt_redo *redo,
                     struct tt_error *err)
{
    int ret;

    if (r->dry_run) {
        return 0;
    }
    ret = still_here(r, err);
    return ret < 0 ? ret
                   : tt_target_zero(r->disk, redo->disk_offset,
                                    redo->disk_length, err);
}

static int redo_all(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_recovery *rec = &r->a->recovery;
    struct tt_redo redo;
    int ret = 0;

    r->reader = tt_redo_reader_new(&r->a->super, &r->a->reading.source);
    if (r->reader == NULL) {
        return out_of_memory(err);
    }
    if (!r->dry_run && r->disk->size != r->size) {
        ret = tt_target_resize(r->disk, r->size, err);
    }
    for (size_t i = 0; i < rec->redo_count && ret == 0; i++) {
        if (clip(r, &rec->redos[i], &redo)) {
            ret = redo.kind == TT_KIND_WRITE ? redo_write(r, &redo, err)
                                             : redo_zero(r, &redo, err);
        }
    }
    return ret;
}

/* ---- the end ----------------------------------------------------------- */

static int close_clean(struct tt_recoverer *r, struct tt_error *err)
{
    const struct tt_pair pair = { r->a, r->disk, NULL };
    struct tt_error warning = { 0 };
    int ret = tt_pair_close(&pair, &r->report.checkpoint_seq, &warning, err);

    if (ret == 0 && warning.code) {
        r->ops->warn(r->ops->opaque, warning.message); /* it is done */
    }
    return ret;
}

/* A dry run has no lock: has somebody begun to write meanwhile? */
static int ask_again(struct tt_recoverer *r, struct tt_error *err)
{
    int ret = tt_lock_ask(r->a->fd, r->a->path, err);

    return ret < 0 ? ret : tt_lock_ask(r->disk->fd, r->disk->path, err);
}

int tt_recoverer_run(struct tt_recoverer *r, const char *program,
                     const struct tt_watcher *ops, struct tt_error *err)
{
    int ret = 0;

    r->ops = ops;
    if (r->report.nothing) {
        return 0;
    }
    if (!r->dry_run) {
        const struct tt_pair pair = { r->a, r->disk, NULL };

        ret = tt_pair_start(&pair, program, err);
        if (ret == 0) {
            ret = append_shrink(r, err);
        }
    }
    if (ret == 0) {
        ret = capture_redos(r, err);
    }
    if (ret == 0) {
        ret = redo_all(r, err);
    }
    if (ret == 0) {
        ret = r->dry_run ? ask_again(r, err) : close_clean(r, err);
    }
    return ret;
}
