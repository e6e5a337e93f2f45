/*
 * Is somebody else writing this file?
 *
 * QEMU answers that with open-file-description locks on single bytes, and so
 * do we, to exclude QEMU and each other.  Each way of using an image is a
 * permission with a number i.  Whoever holds a permission has a shared lock on
 * byte 100 + i; whoever does not let others have it, on byte 200 + i.  The
 * locks are shared ones, so taking them never fails: a user announces itself
 * first and then asks whether an exclusive lock would be refused, which is so
 * if somebody
 *
 *  - forbids what we hold (a lock on 200 + i, i held), or
 *  - holds what we forbid (a lock on 100 + i, i forbidden).
 *
 * Announcing before asking means that of two that start at the same time at
 * least one sees the other; perhaps both do and both give up, which is safe.
 * Nothing is written to the file, and the kernel drops the locks with the
 * last descriptor, however the process ends.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lock.h"

enum {
    PERM_CONSISTENT_READ = 1 << 0,
    PERM_WRITE = 1 << 1,
    PERM_WRITE_UNCHANGED = 1 << 2,
    PERM_RESIZE = 1 << 3,
    PERM_COUNT = 4,
};

#define HELD_BASE 100
#define FORBIDDEN_BASE 200

static const unsigned held = PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE;
static const unsigned forbidden =
    PERM_WRITE | PERM_WRITE_UNCHANGED | PERM_RESIZE;

static int byte_lock(int fd, int command, short type, off_t byte, short *ret)
{
    struct flock lock = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = byte,
        .l_len = 1,
    };

    if (fcntl(fd, command, &lock) < 0) {
        return -errno;
    }
    *ret = lock.l_type;
    return 0;
}

/* Takes the shared locks that say what we do and what we forbid. */
static int announce(int fd)
{
    short ignored;

    for (unsigned i = 0; i < PERM_COUNT; i++) {
        int r = 0;

        if (held & 1u << i) {
            r = byte_lock(fd, F_OFD_SETLK, F_RDLCK, HELD_BASE + i, &ignored);
        }
        if (r == 0 && (forbidden & 1u << i)) {
            r = byte_lock(fd, F_OFD_SETLK, F_RDLCK, FORBIDDEN_BASE + i,
                          &ignored);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* 1 if another open file has a lock on @byte, 0 if not, or -errno. */
static int taken(int fd, off_t byte)
{
    short type = F_UNLCK;
    int r = byte_lock(fd, F_OFD_GETLK, F_WRLCK, byte, &type);

    return r < 0 ? r : type != F_UNLCK;
}

static int conflict(int fd)
{
    int r = 0;

    for (unsigned i = 0; i < PERM_COUNT && r == 0; i++) {
        if (held & 1u << i) {
            r = taken(fd, FORBIDDEN_BASE + i);
        }
        if (r == 0 && (forbidden & 1u << i)) {
            r = taken(fd, HELD_BASE + i);
        }
    }
    return r;
}

static void withdraw(int fd)
{
    short ignored;

    for (unsigned i = 0; i < PERM_COUNT; i++) {
        byte_lock(fd, F_OFD_SETLK, F_UNLCK, HELD_BASE + i, &ignored);
        byte_lock(fd, F_OFD_SETLK, F_UNLCK, FORBIDDEN_BASE + i, &ignored);
    }
}

static int in_use(const char *path, struct tt_error *err)
{
    return tt_fail(err, TT_EIO, EBUSY,
                   "%s: in use by another process, which holds QEMU's image "
                   "lock on it: a recording in progress?",
                   path);
}

int tt_lock_writer(int fd, const char *path, struct tt_error *err)
{
    int r = announce(fd);

    /* only a lock that is not QEMU's (an exclusive one) refuses a shared one */
    if (r == -EAGAIN || r == -EACCES) {
        r = 1;
    } else if (r == 0) {
        r = conflict(fd);
    }
    if (r == 0) {
        return 0;
    }
    withdraw(fd);
    return r > 0 ? in_use(path, err)
                 : tt_fail(err, TT_EIO, -r,
                           "%s: cannot be locked against other writers: %s",
                           path, strerror(-r));
}

int tt_lock_ask(int fd, const char *path, struct tt_error *err)
{
    int r = conflict(fd);

    if (r > 0) {
        return in_use(path, err);
    }
    return r == 0 ? 0
                  : tt_fail(err, TT_EIO, -r,
                            "%s: whether others use it cannot be told: %s",
                            path, strerror(-r));
}

int tt_lock_is_written(int fd)
{
    return taken(fd, HELD_BASE + __builtin_ctz(PERM_WRITE));
}
