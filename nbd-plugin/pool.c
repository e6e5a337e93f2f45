/*
 * Reading with several threads at once
 *
 * What lies together on the disk was written at many times, and lies apart in
 * the journal.  A client that waits for each of its reads would wait for one
 * place after the other; so a long read is cut into parts, which are read at
 * once.  A client that has many reads in flight is served by nbdkit's threads
 * in parallel as it is.  Nor are threads worth their cost where there is no
 * waiting: reads are cut only if of the one before a good part came from the
 * medium, which is what the system counts for each thread (ru_inblock).
 *
 * A range is a job.  Its parts are taken one by one, by the threads here and by
 * the caller, who so never waits for a thread that has not begun.  The job is
 * counted: a thread may come to it when its caller has gone, finds that no part
 * is left, and touches nothing else.
 *
 * Invariants:
 * - A part is taken by one thread: next goes up only.
 * - state and buf are used by who took a part only, and the caller waits until
 *   all parts are done; a prefetch has a state of its own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "pool.h"

#define THREADS 16
#define PART (16u * 1024)       /* a multiple of the grid */
#define SPLIT_MIN (2 * PART)    /* shorter ones are not cut */
#define BUSY 2                  /* reads in flight that are enough */
#define COLD 4                  /* of so much, one part comes from the medium */
#define QUEUE_MAX (8 * THREADS) /* jobs that wait */
#define PREFETCH_MAX (4u << 20) /* of one prefetch */

struct job {
    atomic_uint refs;
    struct state *state; /* the caller's; or own */
    struct state own;
    uint64_t offset, length;
    uint8_t *buf; /* NULL: to nowhere */
    unsigned parts;
    atomic_uint next; /* part to be taken */

    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned done; /* parts; this and what follows is protected by lock */
    uint64_t read; /* bytes from the medium */
    int ret;
    struct tt_error err; /* of the first that failed */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    GQueue *queue; /* of struct job, one for each thread that may help */
    bool end;
    pthread_t threads[THREADS];
    unsigned count; /* threads; does not change while requests are served */
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .cond = PTHREAD_COND_INITIALIZER };

static atomic_uint reads; /* in flight */

/* ---- jobs --------------------------------------------------------------- */

static struct job *new_job(uint64_t offset, uint64_t length, uint8_t *buf)
{
    struct job *job = calloc(1, sizeof(*job));

    if (!job) {
        return NULL;
    }
    job->offset = offset;
    job->length = length;
    job->buf = buf;
    /* Parts end where those of the disk do. */
    job->parts = (unsigned)((offset % PART + length + PART - 1) / PART);
    atomic_init(&job->refs, 1);
    atomic_init(&job->next, 0);
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->cond, NULL);
    return job;
}

static void job_unref(struct job *job)
{
    if (atomic_fetch_sub(&job->refs, 1) > 1) {
        return;
    }
    state_clear(&job->own);
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->cond);
    free(job);
}

/* Where part @i begins, counted from the job's beginning. */
static uint64_t part_start(const struct job *job, unsigned i)
{
    uint64_t at = (uint64_t)i * PART;
    uint64_t skip = job->offset % PART;

    if (i == 0) {
        return 0;
    }
    return i >= job->parts ? job->length : at - skip;
}

/* Bytes that came from a medium for this thread, since it is there */
static uint64_t from_medium(void)
{
    struct rusage usage;

    if (getrusage(RUSAGE_THREAD, &usage) < 0) {
        return 0;
    }
    return (uint64_t)usage.ru_inblock * 512;
}

/* A few bytes that were not in a cache are not worth the threads. */
static bool is_cold(uint64_t read, uint64_t length)
{
    return read >= length / COLD;
}

static void read_part(struct job *job, unsigned i)
{
    uint64_t from = part_start(job, i), to = part_start(job, i + 1);
    uint8_t nowhere[PART];
    struct tt_error err;
    uint64_t before = from_medium();
    int ret = state_read(job->state, job->offset + from,
                         job->buf ? job->buf + from : nowhere, to - from, &err);

    pthread_mutex_lock(&job->lock);
    if (ret < 0 && job->ret == 0) {
        job->ret = ret;
        job->err = err;
    }
    job->read += from_medium() - before;
    if (++job->done == job->parts) {
        pthread_cond_signal(&job->cond);
    }
    pthread_mutex_unlock(&job->lock);
}

static void work(struct job *job)
{
    unsigned i;

    while ((i = atomic_fetch_add(&job->next, 1)) < job->parts) {
        read_part(job, i);
    }
}

/* ---- threads ------------------------------------------------------------ */

static void *serve(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    while (!pool.end) {
        struct job *job = g_queue_pop_head(pool.queue);

        if (!job) {
            pthread_cond_wait(&pool.cond, &pool.lock);
            continue;
        }
        pthread_mutex_unlock(&pool.lock);
        work(job);
        job_unref(job);
        pthread_mutex_lock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

void pool_start(void)
{
    pool.queue = g_queue_new();
    pool.end = false;
    while (pool.count < THREADS &&
           pthread_create(&pool.threads[pool.count], NULL, serve, NULL) == 0) {
        pool.count++;
    }
}

void pool_end(void)
{
    struct job *job;

    if (!pool.queue) {
        return;
    }
    pthread_mutex_lock(&pool.lock);
    pool.end = true;
    pthread_cond_broadcast(&pool.cond);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned i = 0; i < pool.count; i++) {
        pthread_join(pool.threads[i], NULL);
    }
    pool.count = 0;
    while ((job = g_queue_pop_head(pool.queue))) {
        job_unref(job);
    }
    g_queue_free(pool.queue);
    pool.queue = NULL;
}

/* Asks so many threads to help, as far as there is room. */
static void ask_for_help(struct job *job, unsigned count)
{
    pthread_mutex_lock(&pool.lock);
    for (; count && g_queue_get_length(pool.queue) < QUEUE_MAX; count--) {
        atomic_fetch_add(&job->refs, 1);
        g_queue_push_tail(pool.queue, job);
        pthread_cond_signal(&pool.cond);
    }
    pthread_mutex_unlock(&pool.lock);
}

static unsigned helpers(const struct job *job)
{
    return job->parts < pool.count ? job->parts : pool.count;
}

/* ---- reading ------------------------------------------------------------ */

static int read_in_parts(struct job *job, atomic_bool *cold,
                         struct tt_error *err)
{
    int ret;

    ask_for_help(job, helpers(job) - 1);
    work(job);
    pthread_mutex_lock(&job->lock);
    while (job->done < job->parts) {
        pthread_cond_wait(&job->cond, &job->lock);
    }
    ret = job->ret;
    if (ret < 0) {
        *err = job->err;
    }
    atomic_store(cold, is_cold(job->read, job->length));
    pthread_mutex_unlock(&job->lock);
    return ret;
}

static int read_whole(struct state *s, atomic_bool *cold, uint64_t offset,
                      void *buf, size_t length, struct tt_error *err)
{
    uint64_t before;
    int ret;

    if (length < SPLIT_MIN) {
        return state_read(s, offset, buf, length, err);
    }
    before = from_medium();
    ret = state_read(s, offset, buf, length, err);
    atomic_store(cold, is_cold(from_medium() - before, length));
    return ret;
}

int pool_read(struct state *s, atomic_bool *cold, uint64_t offset, void *buf,
              size_t length, struct tt_error *err)
{
    bool busy = atomic_fetch_add(&reads, 1) >= BUSY;
    struct job *job = NULL;
    int ret;

    if (!busy && atomic_load(cold) && pool.count && length >= SPLIT_MIN) {
        job = new_job(offset, length, buf);
    }
    if (job) {
        job->state = s;
        ret = read_in_parts(job, cold, err);
        job_unref(job);
    } else {
        ret = read_whole(s, cold, offset, buf, length, err);
    }
    atomic_fetch_sub(&reads, 1);
    return ret;
}

void pool_prefetch(struct state *s, uint64_t offset, uint64_t length)
{
    struct job *job;

    if (length > s->view.size - offset) {
        length = s->view.size - offset;
    }
    if (length > PREFETCH_MAX) {
        length = PREFETCH_MAX;
    }
    if (!length || !pool.count || !(job = new_job(offset, length, NULL))) {
        return;
    }
    state_copy(&job->own, s);
    job->state = &job->own;
    ask_for_help(job, helpers(job));
    job_unref(job);
}
