/*
 * nbdkit ttview: past states of a recorded disk, as read-only exports
 *
 * nbdkit calls in this order: config for each parameter, config_complete,
 * get_ready (journals are read and at= is bound here: the last place whose
 * errors reach the user), fork, after_fork, then for each client open … close,
 * cleanup, unload.  open() may be called more than once per client, so it only
 * takes in what was appended and looks up a time; after a fork a thread takes
 * it in each second, so that little is left to do.
 *
 * Here is only NBD: ttview.h says what is where.
 *
 * Invariants:
 * - There are no callbacks that write, so exports are read-only.
 * - Extents never reach beyond the request (CVE-2025-47711).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool.h"
#include "ttview.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* -D ttview.lookup=1: shows which extents answer a read */
NBDKIT_DLL_PUBLIC int ttview_debug_lookup = 0;
/* -D ttview.time=1: shows how long exports take to open */
NBDKIT_DLL_PUBLIC int ttview_debug_time = 0;

static struct serving serving;

struct handle {
    struct served *disk;
    struct state state;
    char *others;     /* where the other disks of the machine are */
    atomic_bool cold; /* the last long read had to wait for the medium */
};

int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t elapsed_us(const struct timespec *since)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 1000000 +
           (now.tv_nsec - since->tv_nsec) / 1000;
}

void warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("nbdkit: ttview: warning: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* One line to the user's log, and an errno that NBD knows to the client. */
static void report(const struct tt_error *err, int os_errno)
{
    nbdkit_error("%s", err->message);
    nbdkit_set_error(os_errno);
}

/* ---- configuration ----------------------------------------------------- */

static int ttview_config(const char *key, const char *value)
{
    return config_set(&serving, key, value);
}

static int ttview_config_complete(void)
{
    return config_complete(&serving);
}

static void ttview_dump_plugin(void)
{
    printf("ttview_format_version=%d\n", TT_FORMAT_VERSION);
    printf("ttview_time_forms=latest seq:N mark:NAME RFC3339 "
           "@SECONDS[.FRACTION] -DURATION\n");
    printf(
        "ttview_parameters=journal machine dir at single disk index tz name\n");
#ifdef HAVE_LIBNBD
    printf("ttview_disk_uri=yes\n");
#else
    printf("ttview_disk_uri=no\n");
#endif
}

/* ---- start and end ----------------------------------------------------- */

static int open_journal(struct served *s, struct tt_error *err)
{
    struct journal *j;
    char *note;
    int ret = served_journal(s, &j, err);

    if (ret < 0) {
        return ret;
    }
    if (journal_warning(j)[0]) {
        warn("%s", journal_warning(j));
    }
    note = journal_index_note(j);
    if (note && note[0]) {
        warn("%s", note);
    }
    free(note);
    journal_unref(j);
    return 0;
}

static int start(struct served *s, struct tt_error *err)
{
    int ret = set_fallback(&serving, s, err);

    if (ret < 0 && s->in_folder) {
        warn("\"%s\" alone is no export: %s", s->name, err->message);
        return 0;
    }
    if (ret == 0 && s->fallback.view.moment.note[0]) {
        warn("%s", s->fallback.view.moment.note);
    }
    if (ret == 0) {
        nbdkit_debug("%s: the default export is %s@%s", s->path, s->name,
                     s->fallback_time);
    }
    return ret;
}

/* A mark may be in any journal of a machine, so all are opened first. */
static int start_all(struct tt_error *err)
{
    GPtrArray *disks = serving_disks(&serving);
    int ret = 0;

    for (guint i = 0; i < disks->len && ret == 0; i++) {
        ret = open_journal(g_ptr_array_index(disks, i), err);
    }
    for (guint i = 0; i < disks->len && ret == 0 && !serving.single; i++) {
        ret = start(g_ptr_array_index(disks, i), err);
    }
    g_ptr_array_unref(disks);
    if (ret == 0 && serving.single) {
        ret = set_single(&serving, err);
    }
    return ret;
}

static int ttview_get_ready(void)
{
    struct tt_error err;

    scan_folders(&serving, true);
    if (start_all(&err) < 0) {
        nbdkit_error("%s", err.message);
        return -1;
    }
    if (serving.single && serving.single_state.view.moment.note[0]) {
        warn("%s", serving.single_state.view.moment.note);
    }
    return 0;
}

static void ttview_unload(void)
{
    config_free(&serving);
}

/* ---- following --------------------------------------------------------- */

/* Takes in what is appended, so that whoever opens an export finds it done. */
static struct {
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool end; /* protected by lock */
} follower = { .lock = PTHREAD_MUTEX_INITIALIZER };

#define FOLLOW_SECONDS 1

static void follow_all(void)
{
    GPtrArray *disks = serving_disks(&serving);

    for (guint i = 0; i < disks->len; i++) {
        struct served *s = g_ptr_array_index(disks, i);
        struct journal *j = NULL;

        pthread_mutex_lock(&s->lock);
        if (s->journal) {
            j = journal_ref(s->journal);
        }
        pthread_mutex_unlock(&s->lock);
        if (j) {
            journal_follow(j);
            journal_unref(j);
        }
    }
    g_ptr_array_unref(disks);
}

static void *follow(void *unused)
{
    struct timespec until;

    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &until);
    pthread_mutex_lock(&follower.lock);
    while (!follower.end) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        until.tv_sec = now.tv_sec + FOLLOW_SECONDS;
        until.tv_nsec = now.tv_nsec;
        while (!follower.end &&
               pthread_cond_timedwait(&follower.cond, &follower.lock, &until) !=
                   ETIMEDOUT) {
        }
        if (!follower.end) {
            pthread_mutex_unlock(&follower.lock);
            follow_all();
            pthread_mutex_lock(&follower.lock);
        }
    }
    pthread_mutex_unlock(&follower.lock);
    return NULL;
}

static int ttview_after_fork(void)
{
    pthread_condattr_t attr;
    int ret;

    pool_start();
    if (serving.single) {
        return 0; /* nothing is opened any more */
    }
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&follower.cond, &attr);
    pthread_condattr_destroy(&attr);
    follower.end = false;
    ret = pthread_create(&follower.thread, NULL, follow, NULL);
    if (ret) {
        nbdkit_error("cannot start a thread: %s", strerror(ret));
        return -1;
    }
    follower.running = true;
    return 0;
}

static void ttview_cleanup(void)
{
    pool_end();
    if (!follower.running) {
        return;
    }
    pthread_mutex_lock(&follower.lock);
    follower.end = true;
    pthread_cond_signal(&follower.cond);
    pthread_mutex_unlock(&follower.lock);
    pthread_join(follower.thread, NULL);
    pthread_cond_destroy(&follower.cond);
    follower.running = false;
}

/* ---- exports ----------------------------------------------------------- */

static int ttview_list_exports(int readonly, int is_tls,
                               struct nbdkit_exports *exports)
{
    (void)readonly, (void)is_tls;
    return list_exports(&serving, exports);
}

static const char *ttview_default_export(int readonly, int is_tls)
{
    char *name = default_name(&serving);
    const char *ret = nbdkit_strdup_intern(name);

    (void)readonly, (void)is_tls;
    g_free(name);
    return ret;
}

/* To a client an export that cannot be made does not exist. */
static int open_errno(const struct tt_error *err)
{
    switch (err->code) {
    case TT_EINVAL:
    case TT_ENOTTIME:
        return ENOENT;
    case TT_ENODISK:
        return ENXIO;
    case TT_ENOMEM:
        return ENOMEM;
    default:
        return EIO;
    }
}

static void show_open(const struct handle *h, const char *name,
                      const struct timespec *began)
{
    const struct tt_moment *m = &h->state.view.moment;

    nbdkit_debug("export \"%s\" is %s at sequence number %" PRIu64 "%s%s%s%s",
                 name, h->disk->name, m->seq,
                 m->provisional ? ", provisional" : "", m->note[0] ? "; " : "",
                 m->note, h->others);
    if (ttview_debug_time) {
        nbdkit_debug("it took %" PRId64 " us to open", elapsed_us(began));
    }
}

static void *ttview_open(int readonly)
{
    const char *name = nbdkit_export_name();
    struct handle *h = calloc(1, sizeof(*h));
    struct timespec began;
    struct tt_error err;

    (void)readonly;
    if (!h || !name) {
        nbdkit_error("out of memory");
        free(h);
        return NULL;
    }
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (open_export(&serving, name, &h->disk, &h->state, &h->others, &err) <
        0) {
        report(&err, open_errno(&err));
        free(h);
        return NULL;
    }
    show_open(h, name, &began);
    return h;
}

static void ttview_close(void *handle)
{
    struct handle *h = handle;

    state_clear(&h->state);
    g_free(h->others);
    free(h);
}

static const char *ttview_export_description(void *handle)
{
    struct handle *h = handle;
    char *text = state_describe(&h->state, h->disk->name);
    const char *ret = NULL;

    if (text) {
        ret = nbdkit_printf_intern("%s%.2000s", text, h->others);
    }
    free(text);
    return ret;
}

static int64_t ttview_get_size(void *handle)
{
    struct handle *h = handle;

    return (int64_t)h->state.view.size; /* at most TT_DISK_SIZE_MAX */
}

static int ttview_can_multi_conn(void *handle)
{
    struct handle *h = handle;

    return h->state.fixed;
}

static int ttview_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NATIVE;
}

static int ttview_block_size(void *handle, uint32_t *minimum,
                             uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = TT_GRID;
    *maximum = 32 * TT_MIB;
    return 0;
}

/* ---- reading ----------------------------------------------------------- */

static int ttview_pread(void *handle, void *buf, uint32_t count,
                        uint64_t offset, uint32_t flags)
{
    struct handle *h = handle;
    struct tt_error err;

    (void)flags;
    if (ttview_debug_lookup) {
        state_debug(&h->state, offset, count);
    }
    if (pool_read(&h->state, &h->cold, offset, buf, count, &err) < 0) {
        report(&err, err.code == TT_ENOMEM ? ENOMEM : EIO);
        return -1;
    }
    return 0;
}

/* What cannot be read is found out by who reads it. */
static int ttview_cache(void *handle, uint32_t count, uint64_t offset,
                        uint32_t flags)
{
    struct handle *h = handle;

    (void)flags;
    pool_prefetch(&h->state, offset, count);
    return 0;
}

static int add_extent(void *opaque, uint64_t offset, uint64_t length,
                      enum piece_kind kind)
{
    static const uint32_t types[] = {
        [PIECE_DATA] = 0,
        [PIECE_ZERO] = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO,
        [PIECE_SAME] = NBDKIT_EXTENT_HOLE,
    };

    return nbdkit_add_extent(opaque, offset, length, types[kind]);
}

static int ttview_extents(void *handle, uint32_t count, uint64_t offset,
                          uint32_t flags, struct nbdkit_extents *list)
{
    struct handle *h = handle;
    struct tt_error err = { 0 };
    int ret = state_map(&h->state, offset, count, flags & NBDKIT_FLAG_REQ_ONE,
                        add_extent, list, &err);

    if (ret < 0 && err.code) {
        report(&err, EIO);
    }
    return ret < 0 ? -1 : 0;
}

static int ttview_can_extents(void *handle)
{
    (void)handle;
    return 1;
}

static struct nbdkit_plugin plugin = {
    .name = "ttview",
    .longname = "past states of a recorded disk",
    .version = TTVIEW_VERSION,
    .description = "Serves any moment of a ttjournal as a read-only disk",
    .magic_config_key = "journal",
    .config = ttview_config,
    .config_complete = ttview_config_complete,
    .config_help = config_help,
    .dump_plugin = ttview_dump_plugin,
    .get_ready = ttview_get_ready,
    .after_fork = ttview_after_fork,
    .cleanup = ttview_cleanup,
    .unload = ttview_unload,
    .list_exports = ttview_list_exports,
    .default_export = ttview_default_export,
    .open = ttview_open,
    .close = ttview_close,
    .export_description = ttview_export_description,
    .get_size = ttview_get_size,
    .can_multi_conn = ttview_can_multi_conn,
    .can_cache = ttview_can_cache,
    .can_extents = ttview_can_extents,
    .block_size = ttview_block_size,
    .pread = ttview_pread,
    .cache = ttview_cache,
    .extents = ttview_extents,
    .errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
