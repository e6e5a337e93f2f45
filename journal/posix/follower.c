/*
 * The follower: has the journal grown?
 *
 * It asks a few times a second, which costs a handful of reads.  Being told
 * (inotify) would be told of each append of a busy recorder, and of none on
 * another host or a block device.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "follower.h"

struct tt_follower {
    pthread_t thread;
    void (*step)(void *opaque);
    void *opaque;
    unsigned ms;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping; /* protected by lock */
};

static struct timespec after(unsigned ms)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

/* False once it is told to end. */
static bool pause_step(struct tt_follower *f)
{
    struct timespec until = after(f->ms);
    int r = 0;

    pthread_mutex_lock(&f->lock);
    while (!f->stopping && r != ETIMEDOUT) {
        r = pthread_cond_timedwait(&f->wake, &f->lock, &until);
    }
    r = f->stopping;
    pthread_mutex_unlock(&f->lock);
    return !r;
}

static void *follow(void *opaque)
{
    struct tt_follower *f = opaque;

    do {
        f->step(f->opaque);
    } while (pause_step(f));
    return NULL;
}

static void destroy(struct tt_follower *f)
{
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

int tt_follower_start(unsigned ms, void (*step)(void *opaque), void *opaque,
                      struct tt_follower **ret, struct tt_error *err)
{
    struct tt_follower *f = calloc(1, sizeof(*f));
    pthread_condattr_t attr;
    sigset_t all, old;
    int e;

    if (!f) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    f->step = step;
    f->opaque = opaque;
    f->ms = ms;
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->wake, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    e = pthread_create(&f->thread, NULL, follow, f);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e) {
        destroy(f);
        return tt_fail(err, TT_ENOMEM, e, "no thread can be started: %s",
                       strerror(e));
    }
    *ret = f;
    return 0;
}

void tt_follower_stop(struct tt_follower *f)
{
    if (!f) {
        return;
    }
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    destroy(f);
}
