/*
 * How does a tool add a record to a journal that nobody is recording into?
 *
 * It becomes a writer like any other, with a session of its own, but one that
 * has no disk.  In this order, each step durable before the next begins:
 *
 *   lock      the image lock: nobody else writes
 *   scan      what recovery needs (journal/recover.c), after the caller has
 *             looked and found nothing against going on
 *   rewrite   every accepted frame above the largest durable_seq, in place and
 *             with the same bytes: it may have been in a page cache only
 *   SESSION   alone in its frame, without TT_SESSION_RECORDER; then a DAMAGE
 *             for each damaged place that no earlier writer noted
 *   records   each in a frame of its own, durable when append() returns
 *   DURABLE   at close: its frame's durable_seq vouches for all before it
 *
 * The level of the disk is not this writer's business: it appends no
 * CHECKPOINT and redoes nothing, and every frame carries on the
 * checkpoint_offset it found.  So the next recorder finds the checkpoint it
 * left, followed by nothing but sessions that touched no disk.
 *
 * When a write or a flush fails, the same bytes are written again at the same
 * place and flushed; if that fails too, the appender is broken and only
 * closes: what it left behind the durable end is a torn end for the next one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "appender.h"
#include "lock.h"

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

/* ---- writing frames ---------------------------------------------------- */

/*
 * Writes and flushes, and once more if that fails: after a failed flush a page
 * may be clean in the cache and absent on the medium.
 */
static int write_durably(struct tt_appender *a, const uint8_t *buf,
                         size_t length, uint64_t offset, struct tt_error *err)
{
    int r = 0;

    if (offset > INT64_MAX || length > INT64_MAX - offset) {
        return tt_fail(err, TT_EINVAL, EFBIG, "%s: is full", a->path);
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        r = tt_write_at(a->fd, buf, length, offset);
        if (r == 0 && fsync(a->fd) < 0) {
            r = -errno;
        }
        if (r == 0) {
            return 0;
        }
    }
    a->broken = true;
    return tt_fail(err, TT_EIO, -r,
                   "%s: writing %zu bytes at %llu failed, nothing was added: "
                   "%s",
                   a->path, length, (unsigned long long)offset, strerror(-r));
}

static uint8_t *append_bytes(const struct tt_append *ap)
{
    uint8_t *buf = calloc(1, ap->length);
    size_t pos = ap->head_length;

    if (buf == NULL) {
        return NULL;
    }
    memcpy(buf, ap->head, ap->head_length);
    for (unsigned i = 0; i < ap->request_count; i++) {
        const struct tt_request *q = &ap->requests[i];

        if (q->payload_length > 0 && !(q->flags & TT_RECORD_INLINE)) {
            memcpy(buf + pos, q->payload, q->payload_length);
            pos += q->payload_length;
        }
    }
    return buf;
}

struct tt_now tt_clocks(void)
{
    struct timespec real, boot;

    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    return (struct tt_now){
        .realtime = (int64_t)real.tv_sec * 1000000000 + real.tv_nsec,
        .boottime = (uint64_t)boot.tv_sec * 1000000000 + (uint64_t)boot.tv_nsec,
    };
}

/* One frame of what is in the batch, durable on return. */
static int commit_batch(struct tt_appender *a, struct tt_now now,
                        struct tt_append *ret, struct tt_error *err)
{
    uint8_t *buf;
    int r;

    if (a->broken) {
        return tt_fail(err, TT_EIO, EIO,
                       "%s: an earlier write failed: open it again", a->path);
    }
    tt_writer_plan(a->writer, a->batch, now, ret);
    buf = append_bytes(ret);
    if (buf == NULL) {
        return out_of_memory(err);
    }
    r = write_durably(a, buf, ret->length, ret->offset, err);
    free(buf);
    if (r == 0) {
        /* without memory for it, the segment just has no footer */
        (void)tt_writer_commit(a->writer, a->batch);
        tt_writer_flushed(a->writer, ret->last_seq);
    }
    return r;
}

void tt_appender_begin(struct tt_appender *a)
{
    tt_batch_reset(a->batch, a->writer);
}

/* One record, one frame. */
static int append_frame(struct tt_appender *a, const struct tt_request *req,
                        struct tt_now now, struct tt_append *ret,
                        struct tt_error *err)
{
    tt_appender_begin(a);
    if (!tt_batch_add(a->batch, req)) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "%s: a record of kind %s and %u bytes cannot be added",
                       a->path, tt_kind_name(req->kind) ?: "unknown",
                       req->payload_length);
    }
    return commit_batch(a, now, ret, err);
}

/* A segment ended (the clock stepped, or it was full): says what it holds. */
static int append_footer(struct tt_appender *a, struct tt_error *err)
{
    struct tt_append ap;
    uint32_t length;
    uint8_t *body;
    uint32_t part = 0;
    bool last;

    while ((body = tt_footer_part(a->writer->ended, part, &length, &last)) !=
           NULL) {
        struct tt_request req = {
            .kind = TT_KIND_FOOTER,
            .flags = last ? 0 : TT_RECORD_MORE,
            .payload = body,
            .payload_length = length,
        };
        int r = append_frame(a, &req, tt_clocks(), &ap, err);

        free(body);
        if (r < 0) {
            return r;
        }
        part++;
    }
    if (part > 0) {
        tt_writer_footer_done(a->writer);
    }
    return 0;
}

int tt_appender_commit(struct tt_appender *a, struct tt_append *ret,
                       struct tt_error *err)
{
    int r = commit_batch(a, tt_clocks(), ret, err);

    if (r == 0) {
        /* what was asked for is durable; a footer is optional */
        (void)append_footer(a, NULL);
    }
    return r;
}

int tt_appender_add(struct tt_appender *a, const struct tt_request *req,
                    struct tt_append *ret, struct tt_error *err)
{
    struct tt_append ap;
    int r = append_frame(a, req, tt_clocks(), &ap, err);

    if (r < 0) {
        return r;
    }
    if (ret != NULL) {
        *ret = ap;
    }
    (void)append_footer(a, NULL);
    return 0;
}

int tt_appender_append(struct tt_appender *a, const struct tt_request *req,
                       uint64_t *ret_seq, int64_t *ret_time,
                       struct tt_error *err)
{
    struct tt_append ap;
    int r = tt_appender_add(a, req, &ap, err);

    if (r == 0) {
        *ret_seq = ap.first_seq;
        *ret_time = ap.time;
    }
    return r;
}

/* ---- opening ----------------------------------------------------------- */

static int rewrite_tail(struct tt_appender *a, struct tt_error *err)
{
    for (size_t i = 0; i < a->recovery.rewrite_count; i++) {
        const struct tt_place *t = &a->recovery.rewrites[i];
        uint8_t *buf = malloc(t->length);
        int r;

        if (buf == NULL) {
            return out_of_memory(err);
        }
        r = a->reading.source.read(&a->reading, t->offset, buf, t->length);
        if (r < 0) {
            r = tt_fail(err, TT_EIO, -r, "%s: reading %llu bytes at %llu: %s",
                        a->path, (unsigned long long)t->length,
                        (unsigned long long)t->offset, strerror(-r));
        } else {
            r = write_durably(a, buf, t->length, t->offset, err);
        }
        free(buf);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* The first line of a small file of the system; "" if there is none. */
static void read_line(const char *path, char *buf, int size)
{
    FILE *f = fopen(path, "re");

    buf[0] = '\0';
    if (f == NULL) {
        return;
    }
    if (fgets(buf, size, f) == NULL) {
        buf[0] = '\0';
    }
    fclose(f);
    buf[strcspn(buf, "\n")] = '\0';
}

static void read_boot_id(uint8_t ret[TT_UUID_SIZE])
{
    char text[64];
    const char *p = text;
    unsigned byte;

    memset(ret, 0, TT_UUID_SIZE);
    read_line("/proc/sys/kernel/random/boot_id", text, sizeof(text));
    for (int i = 0; i < TT_UUID_SIZE; i++) {
        p += *p == '-';
        if (sscanf(p, "%2x", &byte) != 1) {
            return;
        }
        ret[i] = (uint8_t)byte;
        p += p[1] ? 2 : 1;
    }
}

static int append_session(struct tt_appender *a, const struct tt_session *about,
                          const uint8_t boot_id[TT_UUID_SIZE],
                          struct tt_error *err)
{
    const struct tt_scan *scan = &a->recovery.scan;
    char host[256] = "", machine[64];
    struct tt_now now = tt_clocks();
    struct tt_session s = *about;
    struct tt_request req = { .kind = TT_KIND_SESSION,
                              .flags = TT_RECORD_INLINE };
    struct tt_append ap;
    uint8_t *body;
    int r;

    s.realtime = now.realtime;
    s.boottime = now.boottime;
    s.disk_size = a->writer->disk_size;
    s.recovered_from =
        scan->last_seq > scan->durable_seq ? scan->durable_seq + 1 : 0;
    s.torn_offset = scan->torn_offset;
    s.torn_length = scan->torn_length;
    s.flags |= a->recovery.clean ? TT_SESSION_CLEAN : 0;
    s.pid = (uint32_t)getpid();
    s.host = host;
    s.machine_id = machine;
    memcpy(s.boot_id, boot_id, sizeof(s.boot_id));
    if (gethostname(host, sizeof(host) - 1) < 0) {
        host[0] = '\0';
    }
    read_line("/etc/machine-id", machine, sizeof(machine));
    body = tt_session_encode(&s, &req.payload_length);
    if (body == NULL) {
        return out_of_memory(err);
    }
    req.payload = body;
    r = append_frame(a, &req, now, &ap, err);
    free(body);
    return r;
}

static int append_damages(struct tt_appender *a, struct tt_error *err)
{
    for (size_t i = 0; i < a->recovery.damage_count; i++) {
        const struct tt_damage *d = &a->recovery.damages[i];
        struct tt_damage_body body = {
            .offset = tt_put64(d->offset),
            .length = tt_put64(d->length),
            .first_seq = tt_put64(d->first_seq),
            .last_seq = tt_put64(d->last_seq),
        };
        struct tt_request req = {
            .kind = TT_KIND_DAMAGE,
            .flags = TT_RECORD_INLINE,
            .payload = &body,
            .payload_length = sizeof(body),
        };
        int r = tt_appender_add(a, &req, NULL, err);

        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* The physical sector of the medium that the journal lies on; 0: unknown. */
static unsigned physical_sector(int fd)
{
    static const char *const places[] = { "queue", "../queue" };
    struct stat st;
    unsigned size;

    if (ioctl(fd, BLKPBSZGET, &size) == 0) {
        return size;
    }
    if (fstat(fd, &st) < 0) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char path[128], line[32];

        snprintf(path, sizeof(path),
                 "/sys/dev/block/%u:%u/%s/physical_block_size",
                 major(st.st_dev), minor(st.st_dev), places[i]);
        read_line(path, line, sizeof(line));
        if (sscanf(line, "%u", &size) == 1) {
            return size;
        }
    }
    return 0;
}

/*
 * What this session's frames are aligned to: never less than was used, nor
 * than what a power cut may tear at once.
 */
static uint32_t choose_alignment(const struct tt_appender *a)
{
    const struct tt_scan *scan = &a->recovery.scan;
    uint32_t alignment = a->super.alignment;
    unsigned physical = physical_sector(a->fd);

    if (!scan->empty && scan->last.alignment > alignment) {
        alignment = scan->last.alignment;
    }
    while (alignment < physical && alignment < TT_ALIGNMENT_MAX) {
        alignment *= 2;
    }
    return alignment;
}

int tt_appender_start(struct tt_appender *a, const struct tt_session *about,
                      struct tt_error *err)
{
    const struct tt_recovery *rec = &a->recovery;
    uint8_t boot_id[TT_UUID_SIZE];
    uint64_t nonce;
    int r = rewrite_tail(a, err);

    if (r < 0) {
        return r;
    }
    if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce)) {
        return tt_fail(err, TT_EIO, errno, "no random number to be had: %s",
                       strerror(errno));
    }
    read_boot_id(boot_id);
    tt_writer_open(a->writer, &a->super, &rec->scan, choose_alignment(a), nonce,
                   rec->has_boot_id &&
                       memcmp(boot_id, rec->boot_id, sizeof(boot_id)) == 0);
    if (rec->damage_count > 0 || rec->scan.unreadable > 0) {
        a->writer->force_segment = true;
    }
    r = append_session(a, about, boot_id, err);
    if (r == 0) {
        r = append_footer(a, err);
    }
    if (r == 0) {
        r = append_damages(a, err);
    }
    return r;
}

static int scan_journal(struct tt_appender *a, tt_accept_fn *accept,
                        void *opaque, struct tt_error *err)
{
    unsigned damaged;
    int r = tt_super_read(&a->reading.source, &a->super, &damaged, err);

    if (r == 0 && (a->super.feature_ro_compat & ~TT_RO_COMPAT_KNOWN)) {
        r = tt_fail(err, TT_EFORMAT, EROFS,
                    "uses features (0x%llx) with which this version can only "
                    "read it: use a newer one",
                    (unsigned long long)a->super.feature_ro_compat);
    }
    if (r == 0 && accept != NULL) {
        r = accept(opaque, &a->reading, err);
    }
    if (r == 0) {
        r = tt_recovery_run(&a->super, &a->reading.source, &a->recovery, err);
    }
    return r < 0 ? tt_file_name_error(a->path, r, err) : 0;
}

static int open_journal(struct tt_appender *a, struct tt_error *err)
{
    struct stat st;
    off_t end;

    a->fd = a->read_only ? tt_open_quietly(a->path)
                         : open(a->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (a->fd < 0 || fstat(a->fd, &st) < 0) {
        return tt_fail(err,
                       errno == ENOENT || errno == EISDIR ? TT_EFORMAT : TT_EIO,
                       errno, "%s: cannot be opened%s: %s", a->path,
                       a->read_only ? "" : " for writing", strerror(errno));
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return tt_fail(err, TT_EFORMAT, EINVAL,
                       "%s: is neither a regular file nor a block device",
                       a->path);
    }
    if ((a->read_only ? tt_lock_ask(a->fd, a->path, err)
                      : tt_lock_writer(a->fd, a->path, err)) < 0) {
        return -TT_EIO;
    }
    end = lseek(a->fd, 0, SEEK_END); /* under the lock: it does not change */
    if (end < 0) {
        return tt_fail(err, TT_EIO, errno, "%s: its size cannot be found: %s",
                       a->path, strerror(errno));
    }
    tt_file_wrap(&a->reading, a->fd, a->path, (uint64_t)end);
    return 0;
}

void tt_appender_free(struct tt_appender *a)
{
    if (a == NULL) {
        return;
    }
    tt_recovery_clear(&a->recovery);
    tt_batch_free(a->batch);
    if (a->fd >= 0) {
        close(a->fd);
    }
    free(a->path);
    free(a);
}

int tt_appender_prepare(const char *path, bool read_only, tt_accept_fn *accept,
                        void *opaque, struct tt_appender **ret,
                        struct tt_error *err)
{
    struct tt_appender *a = calloc(1, sizeof(*a));
    int r;

    if (a == NULL) {
        return out_of_memory(err);
    }
    a->fd = -1;
    a->read_only = read_only;
    a->writer = &a->recovery.writer;
    a->path = strdup(path);
    a->batch = tt_batch_new();
    if (a->path == NULL || a->batch == NULL) {
        tt_appender_free(a);
        return out_of_memory(err);
    }
    r = open_journal(a, err);
    if (r == 0) {
        r = scan_journal(a, accept, opaque, err);
    }
    if (r < 0) {
        tt_appender_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

int tt_appender_open(const char *path, const char *program,
                     tt_accept_fn *accept, void *opaque,
                     struct tt_appender **ret, struct tt_error *err)
{
    const struct tt_session about = { .program = (char *)program };
    struct tt_appender *a;
    int r = tt_appender_prepare(path, false, accept, opaque, &a, err);

    if (r == 0) {
        r = tt_appender_start(a, &about, err);
        if (r < 0) {
            tt_appender_free(a);
            return r;
        }
        *ret = a;
    }
    return r;
}

/* ---- closing ----------------------------------------------------------- */

int tt_appender_close(struct tt_appender *a, struct tt_error *err)
{
    struct tt_request req = { .kind = TT_KIND_DURABLE };
    int r = a->broken ? 0 : tt_appender_add(a, &req, NULL, err);

    tt_appender_free(a);
    return r;
}
