/*
 * A journal and its disk, as tools open them to append to the journal
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pair.h"

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

bool tt_pair_same_file(const char *a, const char *b)
{
    struct stat sa, sb;

    if (stat(a, &sa) < 0 || stat(b, &sb) < 0) {
        return false;
    }
    return S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode)
               ? sa.st_rdev == sb.st_rdev
               : sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* ---- who recorded ------------------------------------------------------ */

/* 1: @ret is the session that the frame at @at begins; 0: there is none. */
static int read_session(struct tt_appender *a, uint64_t at, uint8_t *head,
                        uint64_t *ret_prev, struct tt_session *ret,
                        struct tt_error *err)
{
    uint32_t pos = 0, index = 0;
    struct tt_record rec;
    struct tt_frame f;
    int r = tt_frame_read(&a->super, &a->reading.source, at, head, &f, err);

    *ret_prev = 0;
    if (r <= 0) {
        return r;
    }
    *ret_prev = f.prev_offset < at ? f.prev_offset : 0;
    while (tt_table_next(&f, head + sizeof(struct tt_frame_header), &pos,
                         &index, &rec)) {
        if (rec.kind == TT_KIND_SESSION) {
            return tt_session_decode(&rec, ret, NULL) == 0;
        }
    }
    return 0;
}

/* Where the session of the frame at @at begins; 0: that cannot be read. */
static int session_of(struct tt_appender *a, uint64_t at, uint8_t *head,
                      uint64_t *ret, struct tt_error *err)
{
    struct tt_frame f;
    int r = tt_frame_read(&a->super, &a->reading.source, at, head, &f, err);

    *ret = r > 0 && f.session_offset <= at ? f.session_offset : 0;
    return r < 0 ? r : 0;
}

/* The short cuts lead from session to session. */
int tt_pair_recorder(struct tt_appender *a, struct tt_session *ret,
                     struct tt_error *err)
{
    const struct tt_scan *scan = &a->recovery.scan;
    uint64_t at = scan->empty ? 0 : scan->last.session_offset, prev;
    uint8_t *head = malloc(TT_HEAD_MAX);
    int r = head == NULL ? out_of_memory(err) : 0;

    while (r == 0 && at != 0) {
        r = read_session(a, at, head, &prev, ret, err);
        if (r > 0 && (ret->flags & TT_SESSION_RECORDER)) {
            break;
        }
        if (r > 0) {
            tt_session_clear(ret);
            r = 0;
        }
        at = prev;
        if (r == 0 && at != 0) {
            r = session_of(a, at, head, &at, err);
        }
    }
    free(head);
    return r;
}

static int refuse_format(const char *disk, const char *format,
                         struct tt_error *err)
{
    return tt_fail(err, TT_EINVAL, EINVAL,
                   "the disk %s was recorded as %s: only a raw disk can be "
                   "recovered without QEMU; QEMU recovers when it opens the "
                   "two again",
                   disk, format);
}

int tt_pair_check_raw(struct tt_appender *a, const char *disk,
                      bool *ret_recorded, bool *ret_known_raw,
                      struct tt_error *err)
{
    struct tt_session s = { 0 };
    int ret = tt_pair_recorder(a, &s, err);

    *ret_known_raw = false;
    *ret_recorded = ret > 0;
    if (ret <= 0) {
        return ret;
    }
    ret = 0;
    if (s.disk_format != NULL && s.disk_format[0] != '\0') {
        *ret_known_raw = tt_disk_format_is_raw(s.disk_format);
        if (!*ret_known_raw) {
            ret = refuse_format(disk, s.disk_format, err);
        }
    }
    tt_session_clear(&s);
    return ret;
}

/* ---- the disk ---------------------------------------------------------- */

const char *tt_pair_disk_name(const struct tt_pair *p)
{
    return p->target != NULL ? p->target->path : tt_disk_where(p->nbd);
}

uint64_t tt_pair_disk_size(const struct tt_pair *p)
{
    return p->target != NULL ? p->target->size : tt_disk_size(p->nbd);
}

int tt_pair_read(const struct tt_pair *p, uint64_t offset, void *buf,
                 size_t length, struct tt_error *err)
{
    return p->target != NULL
               ? tt_target_read(p->target, offset, buf, length, err)
               : tt_disk_read(p->nbd, offset, buf, length, err);
}

uint64_t tt_pair_hole(const struct tt_pair *p, uint64_t offset, uint64_t length)
{
    return p->target != NULL ? tt_target_hole(p->target, offset, length) : 0;
}

static bool disk_stat(const struct tt_pair *p, uint64_t *ret_inode,
                      int64_t *ret_mtime)
{
    return p->target != NULL && tt_target_stat(p->target, ret_inode, ret_mtime);
}

/* ---- is it the right disk? --------------------------------------------- */

static int prove_times(const struct tt_pair *p, struct tt_error *err)
{
    uint64_t inode;
    int64_t disk, journal;
    struct stat st;
    bool has_journal = fstat(p->a->fd, &st) == 0 && S_ISREG(st.st_mode);

    if (!disk_stat(p, &inode, &disk)) {
        return 0;
    }
    if (has_journal) {
        journal = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    }
    return tt_prove_time(&p->a->recovery, disk, has_journal ? &journal : NULL,
                         err);
}

static int prove_samples(const struct tt_pair *p, void *buf,
                         struct tt_error *err)
{
    const struct tt_recovery *rec = &p->a->recovery;
    int ret = 0;

    for (size_t i = 0; i < rec->sample_count && ret == 0; i++) {
        const struct tt_redo *s = &rec->samples[i];

        if (s->disk_offset + s->disk_length > tt_pair_disk_size(p)) {
            continue; /* a RESIZE is to be redone */
        }
        ret = tt_pair_read(p, s->disk_offset, buf, s->disk_length, err);
        if (ret == 0) {
            ret = tt_prove_sample(&p->a->super, &p->a->reading.source, s, buf,
                                  err);
        }
    }
    return ret;
}

int tt_pair_prove(const struct tt_pair *p, void *buf, bool *ret_shrunk,
                  struct tt_error *err)
{
    int ret =
        tt_prove_size(&p->a->recovery, tt_pair_disk_size(p), ret_shrunk, err);

    if (ret == 0) {
        ret = prove_times(p, err);
    }
    return ret < 0 ? ret : prove_samples(p, buf, err);
}

/* ---- a session --------------------------------------------------------- */

int tt_pair_start(const struct tt_pair *p, const char *program,
                  struct tt_error *err)
{
    const char *name = tt_pair_disk_name(p);
    char *path = p->target != NULL ? realpath(name, NULL) : NULL;
    struct tt_session s = {
        .program = (char *)program,
        .disk_format = (char *)(p->target != NULL ? "raw" : "nbd"),
        .disk_path = path != NULL ? path : (char *)name,
    };
    int ret;

    if (disk_stat(p, &s.disk_inode, &s.disk_mtime)) {
        s.flags |= TT_SESSION_HAS_STAT;
    }
    ret = tt_appender_start(p->a, &s, err);
    free(path);
    return ret;
}

uint8_t *tt_pair_checkpoint(const struct tt_pair *p, struct tt_checkpoint *c,
                            struct tt_request *ret_req, struct tt_error *err)
{
    struct tt_recovery *rec = &p->a->recovery;
    uint32_t length;
    uint8_t *body;
    bool more;

    c->map_prev = rec->map_prev;
    body = tt_checkpoint_encode(c, rec->unmapped, &length, &more);
    if (body == NULL) {
        out_of_memory(err);
        return NULL;
    }
    *ret_req = (struct tt_request){
        .kind = TT_KIND_CHECKPOINT,
        .flags = (more ? TT_RECORD_MORE : 0) |
                 (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0),
        .payload = body,
        .payload_length = length,
    };
    return body;
}

void tt_pair_checkpoint_done(const struct tt_pair *p, const uint8_t *body,
                             const struct tt_append *ap)
{
    struct tt_recovery *rec = &p->a->recovery;

    if (tt_checkpoint_done(body, rec->unmapped) > 0) {
        rec->map_prev = ap->offset;
    }
}

int tt_pair_close(const struct tt_pair *p, uint64_t *ret_checkpoint_seq,
                  struct tt_error *ret_warning, struct tt_error *err)
{
    struct tt_request req, durable = { .kind = TT_KIND_DURABLE };
    struct tt_checkpoint c = {
        .level_seq = p->a->writer->next_seq - 1,
        .clean = true,
    };
    int ret = p->target != NULL ? tt_target_flush(p->target, err) : 0;
    bool more = true;

    c.has_stat = disk_stat(p, &c.disk_inode, &c.disk_mtime);
    while (ret == 0 && more) {
        uint8_t *body = tt_pair_checkpoint(p, &c, &req, err);
        struct tt_append ap;

        if (body == NULL) {
            return -TT_ENOMEM;
        }
        more = req.flags & TT_RECORD_MORE;
        ret = tt_appender_add(p->a, &req, &ap, err);
        if (ret == 0) {
            *ret_checkpoint_seq = ap.first_seq;
            tt_pair_checkpoint_done(p, body, &ap);
        }
        free(body);
    }
    if (ret == 0) {
        (void)tt_appender_add(p->a, &durable, NULL, ret_warning);
    }
    return ret;
}
