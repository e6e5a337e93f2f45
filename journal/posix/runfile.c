/*
 * Runs as files: how does a page get from one into the cache, and a new run
 * into another?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "runfile.h"

#define BUFFER (256 * TT_KIB)

struct tt_run_file {
    _Atomic unsigned users;
    int fd;
    struct tt_pagecache *cache;
    uint64_t file; /* its number there */
    struct tt_run_info info;
    struct tt_run *run;
};

/* ---- reading ----------------------------------------------------------- */

static int read_page(int fd, uint64_t page, uint8_t *buf)
{
    size_t done = 0;

    while (done < TT_PAGE) {
        ssize_t n = pread(fd, buf + done, TT_PAGE - done,
                          (off_t)(page * TT_PAGE + done));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EBADMSG; /* it was cut short */
        }
        done += (size_t)n;
    }
    return 0;
}

static int fill(void *opaque, uint64_t page, uint8_t *buf, struct tt_error *err)
{
    const struct tt_run_file *f = opaque;
    int r = page < f->info.pages ? read_page(f->fd, page, buf) : -EBADMSG;

    if (r == 0 && !tt_run_page_ok(&f->info, page, buf)) {
        r = -EBADMSG;
    }
    return r < 0 ? tt_fail(err, TT_EINDEX, -r, "%s", strerror(-r)) : 0;
}

static int get_page(void *opaque, uint64_t page, const void **ret_page,
                    void **ret_pin)
{
    struct tt_run_file *f = opaque;
    struct tt_page *p;
    struct tt_error err;

    if (tt_pagecache_get(f->cache, f->file, page, fill, f, &p, &err) < 0) {
        return -err.os_errno;
    }
    *ret_page = tt_page_bytes(p);
    *ret_pin = p;
    return 0;
}

static void put_page(void *opaque, void *pin)
{
    struct tt_run_file *f = opaque;

    tt_pagecache_put(f->cache, pin);
}

int tt_run_file_open(int fd, const struct tt_run_info *info,
                     struct tt_pagecache *cache, struct tt_run_file **ret,
                     struct tt_error *err)
{
    struct tt_run_file *f = calloc(1, sizeof(*f));
    struct tt_pages pages = { get_page, put_page, f };
    int r;

    if (!f) {
        close(fd);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    atomic_init(&f->users, 1);
    f->fd = fd;
    f->cache = cache;
    f->file = tt_pagecache_new_file(cache);
    f->info = *info;
    r = tt_run_open(info, &pages, &f->run, err);
    if (r < 0) {
        f->run = NULL;
        tt_run_file_put(f);
        return r;
    }
    *ret = f;
    return 0;
}

struct tt_run_file *tt_run_file_ref(struct tt_run_file *f)
{
    atomic_fetch_add(&f->users, 1);
    return f;
}

void tt_run_file_put(struct tt_run_file *f)
{
    if (!f || atomic_fetch_sub(&f->users, 1) > 1) {
        return;
    }
    if (f->run) {
        tt_run_close(f->run);
    }
    tt_pagecache_drop_file(f->cache, f->file);
    close(f->fd);
    free(f);
}

struct tt_run *tt_run_file_run(const struct tt_run_file *f)
{
    return f->run;
}

/* ---- writing ----------------------------------------------------------- */

/* The signal comes to the thread that writes: nobody else's is touched. */
int tt_write_limited(int fd, const uint8_t *buf, size_t length, uint64_t offset)
{
    static const struct timespec now = { 0 };
    sigset_t limit, old;
    int r;

    sigemptyset(&limit);
    sigaddset(&limit, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &limit, &old);
    r = tt_write_at(fd, buf, length, offset);
    if (r == -EFBIG && !sigismember(&old, SIGXFSZ)) {
        sigtimedwait(&limit, NULL, &now);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static int flush(struct tt_run_output *w)
{
    int r = 0;

    if (w->used && !w->os_errno) {
        r = tt_write_limited(w->fd, w->buf, w->used, w->offset);
        w->os_errno = -r;
    }
    w->used = 0;
    return -w->os_errno;
}

static int sink_write(void *opaque, uint64_t offset, const void *buf,
                      size_t length)
{
    struct tt_run_output *w = opaque;

    for (const uint8_t *p = buf; length > 0;) {
        size_t n = length < BUFFER - w->used ? length : BUFFER - w->used;

        if ((w->used == BUFFER || offset != w->offset + w->used) &&
            flush(w) < 0) {
            break;
        }
        if (w->used == 0) {
            w->offset = offset;
            n = length < BUFFER ? length : BUFFER;
        }
        memcpy(w->buf + w->used, p, n);
        w->used += n;
        p += n;
        offset += n;
        length -= n;
    }
    return -w->os_errno;
}

int tt_run_output_begin(struct tt_run_output *w, int fd)
{
    *w = (struct tt_run_output){ .sink = { sink_write, w }, .fd = fd };
    w->buf = malloc(BUFFER);
    return w->buf ? 0 : -ENOMEM;
}

int tt_run_output_end(struct tt_run_output *w)
{
    int r = flush(w);

    free(w->buf);
    w->buf = NULL;
    return r;
}
