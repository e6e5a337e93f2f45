/*
 * Preloaded: the process is killed at its n-th call that changes a file
 *
 *   KILL_AT=N      at the N-th call
 *   KILL_HOW=before|half|after    half: a write is cut in its middle
 *   KILL_COUNT=FILE    at the end, how many calls there were
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;

static void die(void)
{
    kill(getpid(), SIGKILL);
    pause();
}

/* Is this the call?  Dies if it is to do so before; else says how. */
static const char *at_call(void)
{
    const char *at = getenv("KILL_AT"), *how = getenv("KILL_HOW");

    if (++calls != (at ? atol(at) : 0)) {
        return NULL;
    }
    how = how ? how : "before";
    if (!strcmp(how, "before")) {
        die();
    }
    return how;
}

static void *next(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);

    if (!p) {
        abort();
    }
    return p;
}

typedef ssize_t pwrite_fn(int, const void *, size_t, off_t);

static ssize_t write_at(const char *name, int fd, const void *buf,
                        size_t length, off_t offset)
{
    pwrite_fn *real = (pwrite_fn *)next(name);
    const char *how = at_call();
    ssize_t ret;

    if (how && !strcmp(how, "half")) {
        length = length / 2 / 512 * 512;
    }
    ret = length ? real(fd, buf, length, offset) : 0;
    if (how) {
        die();
    }
    return ret;
}

ssize_t pwrite(int fd, const void *buf, size_t length, off_t offset)
{
    return write_at("pwrite", fd, buf, length, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t length, off_t offset)
{
    return write_at("pwrite64", fd, buf, length, offset);
}

static int change_size(const char *name, int fd, off_t size)
{
    int (*real)(int, off_t) = (int (*)(int, off_t))next(name);
    const char *how = at_call();
    int ret = real(fd, size);

    if (how) {
        die();
    }
    return ret;
}

int ftruncate(int fd, off_t size)
{
    return change_size("ftruncate", fd, size);
}

int ftruncate64(int fd, off_t size)
{
    return change_size("ftruncate64", fd, size);
}

typedef int fallocate_fn(int, int, off_t, off_t);

static int punch(const char *name, int fd, int mode, off_t at, off_t length)
{
    fallocate_fn *real = (fallocate_fn *)next(name);
    const char *how = at_call();
    int ret = real(fd, mode, at, length);

    if (how) {
        die();
    }
    return ret;
}

int fallocate(int fd, int mode, off_t at, off_t length)
{
    return punch("fallocate", fd, mode, at, length);
}

int fallocate64(int fd, int mode, off_t at, off_t length)
{
    return punch("fallocate64", fd, mode, at, length);
}

static int sync_file(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))next(name);
    const char *how = at_call();
    int ret = real(fd);

    if (how) {
        die();
    }
    return ret;
}

int fsync(int fd)
{
    return sync_file("fsync", fd);
}

int fdatasync(int fd)
{
    return sync_file("fdatasync", fd);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int (*real)(int, const char *, int, const char *) =
        (int (*)(int, const char *, int, const char *))next("renameat");
    const char *how = at_call();
    int ret = real(from_dir, from, to_dir, to);

    if (how) {
        die();
    }
    return ret;
}

int unlinkat(int dir, const char *path, int flags)
{
    int (*real)(int, const char *, int) =
        (int (*)(int, const char *, int))next("unlinkat");
    const char *how = at_call();
    int ret = real(dir, path, flags);

    if (how) {
        die();
    }
    return ret;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("KILL_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;

    if (f) {
        fprintf(f, "%ld\n", calls);
        fclose(f);
    }
}
