/*
 * The disk as recovery changes it: a raw file or block device
 *
 * It is opened once, with QEMU's image lock on that very descriptor, so that
 * from the first look at it to the last write nobody else uses it: neither
 * QEMU, nor another recovery, nor, for a block device, the kernel (O_EXCL).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk.h"
#include "lock.h"
#include "target.h"

static int os_fail(const struct tt_target *t, const char *what,
                   struct tt_error *err)
{
    int e = errno;

    return tt_fail(err, TT_EIO, e, "the disk %s %s: %s", t->path, what,
                   strerror(e));
}

/* ---- open and close ---------------------------------------------------- */

static int open_quietly(struct tt_target *t, bool read_only,
                        struct tt_error *err)
{
    struct stat st;
    int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK;

    if (stat(t->path, &st) < 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? tt_fail(err, TT_ENODISK, errno, "the disk %s: %s", t->path,
                             strerror(errno))
                   : os_fail(t, "cannot be examined", err);
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "the disk %s is neither a regular file nor a block "
                       "device",
                       t->path);
    }
    t->device = S_ISBLK(st.st_mode);
    t->fd = read_only ? tt_open_quietly(t->path)
                      : open(t->path, flags | (t->device ? O_EXCL : 0));
    if (t->fd < 0 && t->device && errno == EBUSY) {
        return tt_fail(err, TT_EIO, EBUSY,
                       "the disk %s is in use: mounted, or part of another "
                       "device",
                       t->path);
    }
    return t->fd < 0 ? os_fail(t,
                               read_only ? "cannot be opened"
                                         : "cannot be opened for writing",
                               err)
                     : 0;
}

static int find_size(struct tt_target *t, struct tt_error *err)
{
    off_t end = lseek(t->fd, 0, SEEK_END); /* also for block devices */

    if (end < 0) {
        return os_fail(t, "does not tell its size", err);
    }
    if ((uint64_t)end > TT_DISK_SIZE_MAX) {
        return tt_fail(err, TT_EINVAL, EFBIG, "%s is larger than a disk can be",
                       t->path);
    }
    tt_file_wrap(&t->reading, t->fd, t->path, (uint64_t)end);
    t->size = ((uint64_t)end + TT_SECTOR - 1) / TT_SECTOR * TT_SECTOR;
    return 0;
}

int tt_target_open(const char *path, bool read_only, bool known_raw,
                   struct tt_target **ret, struct tt_error *err)
{
    struct tt_target *t = calloc(1, sizeof(*t));
    int r;

    if (t == NULL || (t->path = strdup(path)) == NULL) {
        free(t);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    t->fd = -1;
    r = open_quietly(t, read_only, err);
    if (r == 0) {
        r = read_only ? tt_lock_ask(t->fd, t->path, err)
                      : tt_lock_writer(t->fd, t->path, err);
    }
    if (r == 0) {
        r = find_size(t, err);
    }
    if (r == 0 && !known_raw) {
        r = tt_disk_check_raw(&t->reading.source, t->path, err);
    }
    if (r < 0) {
        tt_target_close(t);
        return r;
    }
    *ret = t;
    return 0;
}

void tt_target_close(struct tt_target *t)
{
    if (t != NULL) {
        if (t->fd >= 0) {
            close(t->fd);
        }
        free(t->path);
        free(t);
    }
}

bool tt_target_stat(const struct tt_target *t, uint64_t *ret_inode,
                    int64_t *ret_mtime)
{
    struct stat st;

    if (t->device || fstat(t->fd, &st) < 0) {
        return false;
    }
    *ret_inode = st.st_ino;
    *ret_mtime = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return true;
}

/* ---- reading ----------------------------------------------------------- */

int tt_target_read(const struct tt_target *t, uint64_t offset, void *buf,
                   size_t length, struct tt_error *err)
{
    return tt_disk_read_file(&t->reading.source, t->path, offset, buf, length,
                             err);
}

uint64_t tt_target_hole(const struct tt_target *t, uint64_t offset,
                        uint64_t length)
{
    off_t data;

    if (t->device) {
        return 0;
    }
    data = lseek(t->fd, (off_t)offset, SEEK_DATA);
    if (data < 0) {
        return errno == ENXIO ? length : 0; /* none up to the end */
    }
    return (uint64_t)data - offset < length ? (uint64_t)data - offset : length;
}

/* ---- writing ----------------------------------------------------------- */

/* What is written behind an odd end of the file makes it longer. */
static void note_end(struct tt_target *t, uint64_t end)
{
    if (end > t->reading.source.size) {
        t->reading.source.size = end;
    }
}

int tt_target_write(struct tt_target *t, uint64_t offset, const void *buf,
                    size_t length, struct tt_error *err)
{
    int r = tt_write_at(t->fd, buf, length, offset);

    if (r < 0) {
        return tt_fail(err, TT_EIO, -r,
                       "the disk %s cannot be written at %" PRIu64 ": %s",
                       t->path, offset, strerror(-r));
    }
    note_end(t, offset + length);
    return 0;
}

int tt_target_zero(struct tt_target *t, uint64_t offset, uint64_t length,
                   struct tt_error *err)
{
    static const uint8_t zeroes[64 * TT_KIB];

    if (!t->no_punch && offset + length <= t->reading.source.size) {
        if (fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)offset, (off_t)length) == 0) {
            return 0;
        }
        t->no_punch = true; /* writing says what is wrong, if anything is */
    }
    while (length > 0) {
        size_t n = length < sizeof(zeroes) ? length : sizeof(zeroes);
        int r = tt_target_write(t, offset, zeroes, n, err);

        if (r < 0) {
            return r;
        }
        offset += n;
        length -= n;
    }
    return 0;
}

int tt_target_resize(struct tt_target *t, uint64_t size, struct tt_error *err)
{
    if (t->device) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "the disk %s has %" PRIu64
                       " bytes and should have %" PRIu64
                       ": it is a block device, resize it first",
                       t->path, t->size, size);
    }
    if (ftruncate(t->fd, (off_t)size) < 0) {
        return os_fail(t, "cannot be resized", err);
    }
    t->size = size;
    t->reading.source.size = size;
    return 0;
}

int tt_target_flush(struct tt_target *t, struct tt_error *err)
{
    return fsync(t->fd) < 0 ? os_fail(t, "cannot be flushed", err) : 0;
}
