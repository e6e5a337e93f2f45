/*
 * Where do a journal's bytes come from, and how does a new one come to be?
 *
 * Reading opens read-only, takes no lock and, where the system lets it, does
 * not even touch the access time: reading never writes.  A file that grows
 * while it is read is no error; its new size is asked for explicitly.
 *
 * Creating either leaves a whole, durable journal behind or nothing: a regular
 * file is made by us alone (O_EXCL) and removed again if a step fails; a block
 * device must not be in use and must begin with zeroes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "lock.h"

/* How much of a block device must be zero before a journal goes on it */
#define BLANK_SIZE TT_MIB

/* What is written ahead goes to the medium in pieces of this size. */
#define AHEAD_STEP (16 * TT_MIB)

static int os_fail(struct tt_error *err, const char *path, const char *what)
{
    int e = errno;

    return tt_fail(err, TT_EIO, e, "%s: %s: %s", path, what, strerror(e));
}

int tt_file_name_error(const char *path, int r, struct tt_error *err)
{
    char message[sizeof(err->message)];

    if (err != NULL) {
        memcpy(message, err->message, sizeof(message));
        snprintf(err->message, sizeof(err->message), "%.400s: %.600s", path,
                 message);
    }
    return r;
}

/* ---- reading ----------------------------------------------------------- */

static int file_read(void *opaque, uint64_t offset, void *buf, size_t length)
{
    struct tt_file *f = opaque;
    uint8_t *p = buf;

    if (offset > INT64_MAX || length > INT64_MAX - offset) {
        return -EINVAL;
    }
    while (length > 0) {
        ssize_t n = pread(f->fd, p, length, (off_t)offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            /*
             * Shorter than when its size was asked: room behind the end that
             * its writer could not keep.  What else is missing does not fit
             * its checksum.
             */
            memset(p, 0, length);
            return 0;
        }
        p += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

/* What was only allocated is a hole to the system, as long as it is zero. */
static uint64_t file_next_data(void *opaque, uint64_t offset)
{
    struct tt_file *f = opaque;
    off_t data;

    if (offset > INT64_MAX) {
        return offset;
    }
    data = lseek(f->fd, (off_t)offset, SEEK_DATA);
    if (data < 0) {
        return errno == ENXIO ? UINT64_MAX : offset;
    }
    return (uint64_t)data;
}

uint64_t tt_file_next_hole(const struct tt_file *f, uint64_t offset)
{
    off_t hole = -1;

    if (offset <= INT64_MAX) {
        hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    }
    return hole < 0 ? UINT64_MAX : (uint64_t)hole;
}

int tt_open_quietly(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME | O_NONBLOCK);

    if (fd < 0 && errno == EPERM) { /* O_NOATIME is for the owner only */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    return fd;
}

int tt_file_update_size(struct tt_file *f, struct tt_error *err)
{
    off_t end = lseek(f->fd, 0, SEEK_END); /* also for block devices */

    if (end < 0) {
        return os_fail(err, f->path, "its size cannot be found");
    }
    f->source.size = (uint64_t)end;
    return 0;
}

static int check_type(int fd, const char *path, struct tt_error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return os_fail(err, path, "cannot be examined");
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "%s: is neither a regular file nor a block device",
                       path);
    }
    return 0;
}

int tt_file_open(const char *path, struct tt_file **ret, struct tt_error *err)
{
    struct tt_file *f = calloc(1, sizeof(*f));
    int r = 0;

    if (f == NULL || (f->path = strdup(path)) == NULL) {
        free(f);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "%s: out of memory", path);
    }
    f->source = (struct tt_source){
        .read = file_read,
        .opaque = f,
        .next_data = file_next_data,
    };
    f->fd = tt_open_quietly(path);
    if (f->fd < 0) {
        r = os_fail(err, path, "cannot be opened");
    }
    if (r == 0) {
        r = check_type(f->fd, path, err);
    }
    if (r == 0) {
        r = tt_file_update_size(f, err);
    }
    if (r < 0) {
        tt_file_close(f);
        return r;
    }
    *ret = f;
    return 0;
}

void tt_file_wrap(struct tt_file *f, int fd, const char *path, uint64_t size)
{
    *f = (struct tt_file){
        .fd = fd,
        .path = (char *)path,
        .source = {
            .read = file_read,
            .opaque = f,
            .size = size,
            .next_data = file_next_data,
        },
    };
}

void tt_file_close(struct tt_file *f)
{
    if (f == NULL) {
        return;
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    free(f->path);
    free(f);
}

/* ---- writing ---------------------------------------------------------------- */

int tt_write_at(int fd, const uint8_t *buf, size_t length, uint64_t offset)
{
    while (length > 0) {
        ssize_t n = pwrite(fd, buf, length, (off_t)offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        buf += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

/* ---- creating ---------------------------------------------------------- */

/* Makes the name @path durable in its directory. */
static int sync_directory(const char *path)
{
    char *copy = strdup(path);
    int fd, r, e;

    if (copy == NULL) {
        return -1;
    }
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0) {
        return -1;
    }
    r = fsync(fd);
    e = errno;
    close(fd);
    errno = e;
    return r;
}

static int write_superblocks(int fd, const char *path,
                             const struct tt_super *super, struct tt_error *err)
{
    uint8_t *area = malloc(TT_SEGMENTS_OFFSET);
    int r = 0;

    if (area == NULL) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "%s: out of memory", path);
    }
    tt_super_encode(super, area);
    r = tt_write_at(fd, area, TT_SEGMENTS_OFFSET, 0);
    if (r < 0) {
        errno = -r;
        r = os_fail(err, path, "cannot be written");
    } else if (fsync(fd) < 0) {
        r = os_fail(err, path, "cannot be made durable");
    }
    free(area);
    return r;
}

/*
 * Allocates the room, so that a full file system is known at once, and writes
 * it: only blocks that were written before cost no more than overwriting.
 */
static int write_ahead(int fd, const char *path, const struct tt_ahead *ahead,
                       struct tt_error *err)
{
    const off_t from = TT_SEGMENTS_OFFSET;
    uint8_t *zeroes;
    int r = 0;

    if (ahead->bytes > (uint64_t)(INT64_MAX - from)) {
        errno = EFBIG;
        return os_fail(err, path, "so much cannot be written ahead");
    }
    if (ahead->bytes == 0) {
        return 0;
    }
    if (fallocate(fd, 0, from, (off_t)ahead->bytes) < 0 &&
        errno != EOPNOTSUPP) {
        return os_fail(err, path, "no room can be made ahead");
    }
    zeroes = calloc(1, AHEAD_STEP);
    if (zeroes == NULL) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "%s: out of memory", path);
    }
    for (uint64_t done = 0; done < ahead->bytes && r == 0;) {
        uint64_t left = ahead->bytes - done;
        size_t length = left < AHEAD_STEP ? (size_t)left : AHEAD_STEP;

        r = tt_write_at(fd, zeroes, length, (uint64_t)from + done);
        if (r < 0) {
            errno = -r;
            r = os_fail(err, path, "cannot be written");
        } else if (fdatasync(fd) < 0) {
            r = os_fail(err, path, "cannot be made durable");
        }
        done += length;
        if (r == 0 && ahead->progress != NULL &&
            !ahead->progress(ahead->opaque, done, ahead->bytes)) {
            errno = EINTR;
            r = os_fail(err, path, "not created");
        }
    }
    free(zeroes);
    return r;
}

static int fill_new_file(int fd, const char *path, const struct tt_super *super,
                         uid_t uid, gid_t gid, const struct tt_ahead *ahead,
                         struct tt_error *err)
{
    int r = tt_lock_writer(fd, path, err);

    if (r < 0) {
        return r;
    }
    if (fchmod(fd, 0600) < 0) { /* whatever the umask is */
        return os_fail(err, path, "its mode cannot be set");
    }
    if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchown(fd, uid, gid) < 0) {
        return os_fail(err, path, "its owner cannot be set");
    }
    r = write_ahead(fd, path, ahead, err);
    if (r == 0) {
        r = write_superblocks(fd, path, super, err);
    }
    if (r == 0 && sync_directory(path) < 0) {
        r = os_fail(err, path, "its directory cannot be made durable");
    }
    return r;
}

static int check_blank(int fd, const char *path, struct tt_error *err)
{
    struct tt_file f;
    off_t end = lseek(fd, 0, SEEK_END);
    uint8_t *buf;
    int r = 0;

    if (end < 0 || (uint64_t)end < TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN) {
        return tt_fail(err, TT_EINVAL, ENOSPC,
                       "%s: too small for a journal: it needs %llu bytes at "
                       "the very least",
                       path, TT_SEGMENTS_OFFSET + TT_SEGMENT_MIN);
    }
    buf = malloc(BLANK_SIZE);
    if (buf == NULL) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "%s: out of memory", path);
    }
    tt_file_wrap(&f, fd, path, (uint64_t)end);
    r = file_read(&f, 0, buf, BLANK_SIZE);
    if (r < 0) {
        errno = -r;
        r = os_fail(err, path, "cannot be read");
    } else if (buf[0] != 0 || memcmp(buf, buf + 1, BLANK_SIZE - 1) != 0) {
        r = tt_fail(err, TT_EINVAL, EEXIST,
                    "%s: holds data: a journal goes only on a device whose "
                    "first MiB is zero (blkdiscard -z, if it is the right one)",
                    path);
    }
    free(buf);
    return r;
}

static int create_on_device(const char *path, const struct tt_super *super,
                            struct tt_error *err)
{
    int fd =
        open(path, O_RDWR | O_EXCL | O_CLOEXEC); /* nobody has mounted it */
    int r;

    if (fd < 0) {
        return os_fail(err, path, "cannot be opened for writing");
    }
    r = tt_lock_writer(fd, path, err);
    if (r == 0) {
        r = check_blank(fd, path, err);
    }
    if (r == 0) {
        r = write_superblocks(fd, path, super, err);
    }
    close(fd);
    return r;
}

int tt_journal_create(const char *path, const struct tt_super *super, uid_t uid,
                      gid_t gid, const struct tt_ahead *ahead,
                      struct tt_error *err)
{
    struct stat st;
    int fd, r;

    r = tt_super_check(super, err);
    if (r < 0) {
        return r;
    }
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
        if (ahead->bytes) {
            return tt_fail(err, TT_EINVAL, EINVAL,
                           "%s: is a block device, which never grows: nothing "
                           "is written ahead there",
                           path);
        }
        return create_on_device(path, super, err);
    }
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EEXIST) {
        return tt_fail(err, TT_EINVAL, EEXIST,
                       "%s: exists already, and a journal never overwrites a "
                       "file: choose another name",
                       path);
    }
    if (fd < 0) {
        return os_fail(err, path, "cannot be created");
    }
    r = fill_new_file(fd, path, super, uid, gid, ahead, err);
    if (r < 0) {
        unlink(path);
    }
    if (close(fd) < 0 && r == 0) {
        r = os_fail(err, path, "cannot be written");
        unlink(path);
    }
    return r;
}
