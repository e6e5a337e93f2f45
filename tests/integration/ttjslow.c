/*
 * Preloaded into a recorder: zeroes that are written ahead come late
 *
 * A write of 64 KiB or more that is all zero waits first, for TTJ_SLOW
 * microseconds, so that whatever does not wait for it overtakes it.  Tests
 * compile this themselves.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define LATE 65536
#define DELAY_US 40000

static bool is_zero(const char *p, size_t length)
{
    return length == 0 || (p[0] == 0 && memcmp(p, p + 1, length - 1) == 0);
}

static void wait_if_late(const struct iovec *iov, int count)
{
    size_t length = 0;

    for (int i = 0; i < count; i++) {
        if (!is_zero(iov[i].iov_base, iov[i].iov_len)) {
            return;
        }
        length += iov[i].iov_len;
    }
    if (length >= LATE) {
        const char *delay = getenv("TTJ_SLOW");

        usleep(delay ? (useconds_t)atol(delay) : DELAY_US);
    }
}

#define LINEAR(name, off)                                                      \
    ssize_t name(int fd, const void *buf, size_t length, off offset)           \
    {                                                                          \
        ssize_t (*real)(int, const void *, size_t, off) =                      \
            (ssize_t(*)(int, const void *, size_t, off))dlsym(RTLD_NEXT,       \
                                                              #name);          \
        struct iovec iov = { (void *)buf, length };                            \
                                                                               \
        wait_if_late(&iov, 1);                                                 \
        return real(fd, buf, length, offset);                                  \
    }

#define VECTOR(name, off)                                                      \
    ssize_t name(int fd, const struct iovec *iov, int count, off offset)       \
    {                                                                          \
        ssize_t (*real)(int, const struct iovec *, int, off) =                 \
            (ssize_t(*)(int, const struct iovec *, int, off))dlsym(RTLD_NEXT,  \
                                                                   #name);     \
                                                                               \
        wait_if_late(iov, count);                                              \
        return real(fd, iov, count, offset);                                   \
    }

LINEAR(pwrite, off_t)
LINEAR(pwrite64, off64_t)
VECTOR(pwritev, off_t)
VECTOR(pwritev64, off64_t)
