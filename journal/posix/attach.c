/*
 * Attaching: is this the disk that the journal recorded, and can it be read?
 *
 * A view that filled its never overwritten blocks from some other disk, or
 * from the inside of a qcow2 file, would look right and be wrong.  So a disk
 * is taken only if
 *
 *   - it is raw: the recorder says so of its path, or it is an NBD URI, or a
 *     path the user gave that does not begin like an image of another format;
 *   - its size is the journal's newest one;
 *   - it holds what the journal says it must: some of the newest blocks that a
 *     checkpoint calls level, and that were not overwritten since, are read
 *     from both.  None alike: another disk, refused.  Some unlike: it was
 *     written without being recorded, or a power cut took records that had
 *     reached the disk already; refused if the journal was closed clean, for
 *     then there was no power cut, else reported.
 *
 * While a guest writes, a block may change between the two reads; then the
 * journal has a newer version of it, and the block proves nothing.
 *
 * A file that was modified well after the journal's last record is reported:
 * the journal may have been cut short, or the disk used without the recorder,
 * but also just copied or touched.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "reader-int.h"

/* How many blocks are compared, and how much of each */
#define SAMPLES 32
#define SAMPLE_SIZE TT_GRID
/* How many frames are searched for them */
#define SAMPLE_FRAMES 8192

/* How far the disk may trail behind the journal, in nanoseconds */
#define LAG_MAX INT64_C(60000000000)

/* What the journal says of its disk: a copy that needs no lock */
struct recorded {
    bool any;            /* a recording session is there */
    char *format, *path; /* "" if unknown */
    uint64_t size;       /* the newest */
    int64_t last_time;   /* of the newest record, if any */
    bool has_time;
    uint64_t level_seq;
    bool clean;
};

/* ---- what was recorded ------------------------------------------------- */

static int get_recorded(struct tt_reader *r, struct recorded *rec,
                        struct tt_error *err)
{
    const struct tt_history *h = tt_reader_lock(r);
    const struct tt_session *s = tt_history_recorder(h);
    struct tt_history_stats stats;

    tt_history_stats(h, &stats);
    rec->any = s != NULL;
    rec->format = strdup(s && s->disk_format ? s->disk_format : "");
    rec->path = strdup(s && s->disk_path ? s->disk_path : "");
    rec->size = tt_history_disk_size(h, tt_history_end(h)->last_seq);
    rec->has_time =
        tt_history_time(h, tt_history_end(h)->last_seq, &rec->last_time);
    rec->level_seq = stats.level_seq;
    rec->clean = stats.clean;
    tt_reader_unlock(r);
    if (!rec->format || !rec->path) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    return 0;
}

static void clear_recorded(struct recorded *rec)
{
    free(rec->format);
    free(rec->path);
}

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;

    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

/* ---- is it the right one? ---------------------------------------------- */

struct sample {
    uint64_t offset, seq;
    uint32_t length;
};

struct sampler {
    const struct tt_history *history;
    uint64_t last_seq, level_seq;
    struct sample list[SAMPLES];
    size_t count;
};

/* Takes @rec, or some of it, if that is level and nothing was written over it. */
static int take_sample(struct sampler *s, const struct tt_record *rec,
                       struct tt_error *err)
{
    uint64_t at = rec->disk_offset, end = at + rec->disk_length;
    struct tt_extent ext;

    if ((rec->kind != TT_KIND_WRITE && rec->kind != TT_KIND_ZERO) ||
        rec->seq > s->level_seq) {
        return 0;
    }
    for (; at < end; at += ext.length) {
        int ret =
            tt_view_lookup(s->history, s->last_seq, at, end - at, &ext, err);

        if (ret < 0) {
            return ret;
        }
        if (ext.record_seq == rec->seq && ext.seq == rec->seq &&
            (ext.kind == TT_EXTENT_JOURNAL || ext.kind == TT_EXTENT_ZERO) &&
            !tt_view_in_doubt(s->history, ext.seq, ext.offset, ext.length)) {
            s->list[s->count++] = (struct sample){
                .offset = ext.offset,
                .seq = ext.seq,
                .length = ext.length < SAMPLE_SIZE ? (uint32_t)ext.length
                                                   : SAMPLE_SIZE,
            };
            return 0;
        }
    }
    return 0;
}

static int take_frame(struct sampler *s, const struct tt_frame *f,
                      const uint8_t *table, struct tt_error *err)
{
    uint32_t pos = 0, index = 0;
    struct tt_record rec;
    int ret = 0;

    while (ret == 0 && s->count < SAMPLES &&
           tt_table_next(f, table, &pos, &index, &rec)) {
        ret = take_sample(s, &rec, err);
    }
    return ret;
}

/*
 * From the newest checkpoint back, frame by frame: what was written last is
 * the first that somebody else changes, and this takes no longer for a larger
 * disk or a longer history.  What cannot be read ends it; what was found till
 * then must do.
 */
static int take_samples(struct tt_reader *r, struct sampler *s,
                        struct tt_error *err)
{
    uint8_t *head = malloc(TT_HEAD_MAX);
    const struct tt_scan *end;
    struct tt_frame f;
    uint64_t offset;
    int ret = 0;

    if (!head) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    s->history = tt_reader_lock(r);
    end = tt_history_end(s->history);
    s->last_seq = end->last_seq;
    offset = end->checkpoint_offset;
    for (unsigned i = 0;
         offset && i < SAMPLE_FRAMES && s->count < SAMPLES && ret == 0; i++) {
        if (tt_frame_read(&r->super, &r->past->file.source, offset, head, &f,
                          NULL) <= 0) {
            break;
        }
        ret = take_frame(s, &f, head + sizeof(struct tt_frame_header), err);
        offset = f.prev_offset;
    }
    tt_reader_unlock(r);
    free(head);
    return ret;
}

static bool take_first(void *opaque, const struct tt_extent *ext)
{
    *(struct tt_extent *)opaque = *ext;
    return false;
}

/* If @s is still what the newest state holds there, puts its bytes in @buf. */
static bool read_sample(struct tt_reader *r, const struct sample *s,
                        uint8_t *buf)
{
    struct tt_extent ext = { 0 };
    struct tt_view v;

    return tt_reader_bind(r, "latest", NULL, 0, &v, NULL) == 0 &&
           s->offset + s->length <= v.size &&
           tt_reader_extents(r, &v, s->offset, s->length, take_first, &ext,
                             NULL) == 0 &&
           ext.seq == s->seq && ext.length == s->length &&
           tt_reader_read(r, &v, s->offset, buf, s->length, NULL) == 0;
}

enum verdict { LIKE, UNLIKE, NO_PROOF };

static enum verdict compare_sample(struct tt_reader *r, struct tt_disk *d,
                                   const struct sample *s)
{
    uint8_t ours[SAMPLE_SIZE], theirs[SAMPLE_SIZE];

    if (!read_sample(r, s, ours) ||
        tt_disk_read(d, s->offset, theirs, s->length, NULL) < 0) {
        return NO_PROOF;
    }
    if (!memcmp(ours, theirs, s->length)) {
        return LIKE;
    }
    return tt_reader_refresh(r, NULL) == 0 && read_sample(r, s, ours)
               ? UNLIKE
               : NO_PROOF;
}

static int check_contents(struct tt_reader *r, struct tt_disk *d,
                          const struct recorded *rec,
                          char problem[TT_PROBLEM_SIZE], struct tt_error *err)
{
    struct sampler sampler = { .level_seq = rec->level_seq };
    unsigned like = 0, unlike = 0;
    int ret = take_samples(r, &sampler, err);

    for (size_t i = 0; i < sampler.count && ret == 0; i++) {
        enum verdict verdict = compare_sample(r, d, &sampler.list[i]);

        like += verdict == LIKE;
        unlike += verdict == UNLIKE;
    }
    if (ret < 0 || !unlike) {
        return ret;
    }
    if (!like || rec->clean) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "the disk %s is not as the journal left it (%u of %u "
                       "blocks compared differ): it is another disk, or was "
                       "written without being recorded; give a copy from "
                       "before that as disk=",
                       tt_disk_where(d), unlike, like + unlike);
    }
    snprintf(problem, TT_PROBLEM_SIZE,
             "the disk %s differs from the journal in %u of %u blocks compared:"
             " blocks that were never recorded may have changed, too",
             tt_disk_where(d), unlike, like + unlike);
    return 0;
}

/* Is nothing of the disk from @offset on needed, as it was all captured? */
static bool is_captured_from(const struct tt_history *h, uint64_t offset,
                             uint64_t end)
{
    while (offset < end) {
        struct tt_extent ext;

        /* an index that is damaged does not say that all is captured */
        if (tt_view_lookup(h, 0, offset, end - offset, &ext, NULL) < 0 ||
            ext.kind == TT_EXTENT_DISK) {
            return false;
        }
        offset += ext.length;
    }
    return true;
}

/*
 * Between a RESIZE that grows and the disk's change, the disk has an earlier
 * size; between the disk's shrinking and its RESIZE it is shorter than the
 * journal says, and what it has lost is captured.
 */
static int check_size(struct tt_reader *r, struct tt_disk *d,
                      const struct recorded *rec, struct tt_error *err)
{
    const struct tt_history *h = tt_reader_lock(r);
    uint64_t size = tt_disk_size(d);
    bool fits = tt_history_had_size(h, rec->level_seq, size) ||
                (!rec->clean && size < rec->size &&
                 is_captured_from(h, size, rec->size));

    tt_reader_unlock(r);
    if (fits) {
        return 0;
    }
    return tt_fail(err, TT_EINVAL, EINVAL,
                   "the disk %s has %" PRIu64 " bytes, but the journal's disk "
                   "has %" PRIu64 ": is it the right one?",
                   tt_disk_where(d), tt_disk_size(d), rec->size);
}

static void check_age(struct tt_disk *d, const struct recorded *rec,
                      char problem[TT_PROBLEM_SIZE])
{
    char modified[TT_TIME_SIZE], last[TT_TIME_SIZE];
    int64_t time;

    if (!problem[0] && rec->has_time && tt_disk_modified(d, &time) &&
        time > LAG_MAX && time - LAG_MAX > rec->last_time) {
        snprintf(problem, TT_PROBLEM_SIZE,
                 "the disk %s was modified at %s, but the journal's last record"
                 " is of %s: blocks that were never recorded may have changed",
                 tt_disk_where(d), tt_time_format(time, modified),
                 tt_time_format(rec->last_time, last));
    }
}

/* ---- finding it -------------------------------------------------------- */

/* Opens and checks; *ret_disk is set only if it is to be used. */
static int open_checked(struct tt_reader *r, const char *where, bool known_raw,
                        const struct recorded *rec, struct tt_disk **ret_disk,
                        char problem[TT_PROBLEM_SIZE], struct tt_error *err)
{
    struct tt_disk *d;
    int ret = tt_disk_open(where, known_raw, &d, err);

    if (ret < 0) {
        return ret;
    }
    ret = check_size(r, d, rec, err);
    if (ret == 0) {
        ret = check_contents(r, d, rec, problem, err);
    }
    if (ret < 0) {
        tt_disk_close(d);
        return ret;
    }
    check_age(d, rec, problem);
    *ret_disk = d;
    return 0;
}

/* What to do about a disk that is not raw. */
static void say_not_raw(const char *path, const char *format,
                        char problem[TT_PROBLEM_SIZE])
{
    snprintf(problem, TT_PROBLEM_SIZE,
             "the disk %s is not raw (%s) and cannot be read as a file: run "
             "'qemu-nbd -r -t -f %s -k /PATH/SOCKET %s' or, while its machine "
             "runs, QMP nbd-server-start and nbd-server-add of the disk's node,"
             " and give disk='nbd+unix:///?socket=/PATH/SOCKET'",
             path, format[0] ? format : "format unknown",
             format[0] ? format : "FORMAT", path);
}

/* The disk the user named: taken or refused. */
static int attach_given(struct tt_reader *r, const char *spec,
                        const struct recorded *rec, struct tt_disk **ret_disk,
                        char problem[TT_PROBLEM_SIZE], struct tt_error *err)
{
    bool raw = tt_disk_format_is_raw(rec->format);

    if (rec->any && !raw && rec->format[0] && same_file(spec, rec->path)) {
        say_not_raw(spec, rec->format, problem);
        return tt_fail(err, TT_EINVAL, EINVAL, "%s", problem);
    }
    return open_checked(r, spec, raw, rec, ret_disk, problem, err);
}

/* The disk the recorder named: why it cannot be taken goes to @problem. */
static void attach_recorded(struct tt_reader *r, const struct recorded *rec,
                            struct tt_disk **ret_disk,
                            char problem[TT_PROBLEM_SIZE])
{
    struct tt_error err;

    if (!rec->any || !rec->path[0]) {
        snprintf(problem, TT_PROBLEM_SIZE,
                 "the journal does not name the disk: give it as disk=");
    } else if (!tt_disk_format_is_raw(rec->format)) {
        say_not_raw(rec->path, rec->format, problem);
    } else if (rec->path[0] != '/' && !tt_disk_is_uri(rec->path)) {
        snprintf(
            problem, TT_PROBLEM_SIZE,
            "the disk is recorded as %s, which is no absolute path: give it"
            " as disk=",
            rec->path);
    } else if (open_checked(r, rec->path, true, rec, ret_disk, problem, &err) <
               0) {
        snprintf(problem, TT_PROBLEM_SIZE, "%.*s (disk= gives another)",
                 TT_PROBLEM_SIZE - 64, err.message);
    }
}

int tt_attach_disk(struct tt_reader *r, const char *spec,
                   struct tt_disk **ret_disk, char problem[TT_PROBLEM_SIZE],
                   struct tt_error *err)
{
    struct recorded rec;
    int ret = get_recorded(r, &rec, err);

    *ret_disk = NULL;
    problem[0] = '\0';
    if (ret == 0 && spec) {
        ret = attach_given(r, spec, &rec, ret_disk, problem, err);
    } else if (ret == 0) {
        attach_recorded(r, &rec, ret_disk, problem);
    }
    clear_recorded(&rec);
    return ret;
}
