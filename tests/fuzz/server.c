/*
 * As much of nbdkit as the plugin needs: see server.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

#define TEXT_MAX 8192

static struct nbdkit_plugin *plugin;
static const char *asked; /* the export's name, while it is opened */
static GPtrArray *interned;
static atomic_uint errors; /* that were told */
static _Thread_local int told_errno;

struct nbdkit_plugin *plugin_init(void);

/* ---- what a plugin may say ------------------------------------------------ */

static void is_clean(const char *text)
{
    FUZZ_CHECK(text[0]);
    for (const char *p = text; *p; p++) {
        FUZZ_CHECK(!iscntrl((unsigned char)*p));
    }
}

void nbdkit_verror(const char *fmt, va_list args)
{
    char text[TEXT_MAX];

    FUZZ_CHECK(vsnprintf(text, sizeof(text), fmt, args) > 0);
    is_clean(text);
    atomic_fetch_add(&errors, 1);
}

void nbdkit_error(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    nbdkit_verror(fmt, args);
    va_end(args);
}

void nbdkit_set_error(int err)
{
    told_errno = err;
}

/* Where an export is bound is told to the log alone. */
static struct server_export *opening;

static void parse_opened(const char *text)
{
    static const char at[] = " at sequence number ";
    const size_t skip = strlen("export \"\" is ") + strlen(asked);
    const char *disk = text + skip, *where;

    if (strlen(text) < skip || strncmp(text, "export \"", 8)) {
        return;
    }
    where = strstr(disk, at);
    FUZZ_CHECK(where && (size_t)(where - disk) < sizeof(opening->disk));
    memcpy(opening->disk, disk, (size_t)(where - disk));
    opening->seq = strtoull(where + strlen(at), NULL, 10);
}

void nbdkit_debug(const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    FUZZ_CHECK(vsnprintf(text, sizeof(text), fmt, args) > 0);
    va_end(args);
    if (opening && asked) {
        parse_opened(text);
    }
}

/* ---- what a plugin may ask ------------------------------------------------ */

char *nbdkit_absolute_path(const char *path)
{
    FUZZ_CHECK(path[0] == '/');
    return strdup(path);
}

const char *nbdkit_export_name(void)
{
    return asked;
}

static const char *intern(char *text)
{
    g_ptr_array_add(interned, text);
    return text;
}

const char *nbdkit_strdup_intern(const char *str)
{
    return intern(g_strdup(str));
}

const char *nbdkit_printf_intern(const char *fmt, ...)
{
    va_list args;
    char *text;

    va_start(args, fmt);
    text = g_strdup_vprintf(fmt, args);
    va_end(args);
    return intern(text);
}

struct nbdkit_extents {
    uint64_t at, end; /* what is still to be told */
    struct server_extent *list;
    size_t room, count;
};

int nbdkit_add_extent(struct nbdkit_extents *x, uint64_t offset,
                      uint64_t length, uint32_t type)
{
    FUZZ_CHECK(offset == x->at && length && length <= x->end - x->at);
    FUZZ_CHECK(!(type & ~(NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO)));
    x->at += length;
    if (x->count < x->room) {
        x->list[x->count++] = (struct server_extent){ offset, length, type };
    }
    return 0;
}

struct nbdkit_exports {
    void (*fn)(void *opaque, const char *name);
    void *opaque;
};

int nbdkit_add_export(struct nbdkit_exports *exports, const char *name,
                      const char *description)
{
    is_clean(name);
    is_clean(description);
    exports->fn(exports->opaque, name);
    return 0;
}

/* ---- the system ------------------------------------------------------------ */

/*
 * The linker puts these in the place of the system's (--wrap), so that an
 * input goes the same way every time, and nothing waits for a disk.
 */
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __real_clock_gettime(clockid_t id, struct timespec *ts);
ssize_t __wrap_getrandom(void *buf, size_t length, unsigned flags);
int __wrap_fsync(int fd);
int __wrap_getrusage(int who, struct rusage *usage);
int __real_getrusage(int who, struct rusage *usage);

int64_t server_now;
bool server_cold;
static atomic_uint drawn, waited;

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    if (id != CLOCK_REALTIME) {
        return __real_clock_gettime(id, ts);
    }
    ts->tv_sec = server_now / 1000000000;
    ts->tv_nsec = server_now % 1000000000;
    return 0;
}

void server_restart_random(void)
{
    atomic_store(&drawn, 0);
}

ssize_t __wrap_getrandom(void *buf, size_t length, unsigned flags)
{
    struct fuzz_random r = { atomic_fetch_add(&drawn, 1) };
    uint8_t *p = buf;

    (void)flags;
    for (size_t i = 0; i < length; i++) {
        p[i] = (uint8_t)fuzz_below(&r, 256);
    }
    return (ssize_t)length;
}

int __wrap_fsync(int fd)
{
    (void)fd;
    return 0;
}

int __wrap_getrusage(int who, struct rusage *usage)
{
    int ret = __real_getrusage(who, usage);

    /* only the plugin asks of a thread */
    if (who == RUSAGE_THREAD) {
        usage->ru_inblock =
            server_cold ? (long)atomic_fetch_add(&waited, 1) : 0;
    }
    return ret;
}

/* Warnings go to stderr: a line each, of which nobody wants to see millions. */
static ssize_t check_warning(void *cookie, const char *text, size_t length)
{
    (void)cookie;
    for (size_t i = 0; i < length; i++) {
        FUZZ_CHECK(!iscntrl((unsigned char)text[i]) ||
                   (text[i] == '\n' && i + 1 == length));
    }
    return (ssize_t)length;
}

void server_init(void)
{
    const cookie_io_functions_t io = { .write = check_warning };

    stderr = fopencookie(NULL, "w", io);
    FUZZ_CHECK(stderr);
    setvbuf(stderr, NULL, _IONBF, 0);
    plugin = plugin_init();
}

/* ---- start and end --------------------------------------------------------- */

/* Before a callback: how many errors were told. */
static unsigned count_errors(void)
{
    told_errno = 0;
    return atomic_load(&errors);
}

/* @ret of a callback: has it failed, then it was told why. */
static bool good(int ret, unsigned errors_before)
{
    FUZZ_CHECK(ret == 0 || ret == -1);
    FUZZ_CHECK(ret == 0 || atomic_load(&errors) > errors_before);
    return ret == 0;
}

static bool configure(const char *const *params)
{
    unsigned before = count_errors();

    for (; *params; params += 2) {
        if (!good(plugin->config(params[0], params[1]), before)) {
            return false;
        }
    }
    return good(plugin->config_complete(), before) &&
           good(plugin->get_ready(), before);
}

static void forget_texts(void)
{
    g_ptr_array_unref(interned);
    interned = NULL;
}

bool server_start(const char *const *params, bool threads)
{
    interned = g_ptr_array_new_with_free_func(g_free);
    if (!configure(params)) {
        plugin->unload();
        forget_texts();
        return false;
    }
    if (threads) {
        FUZZ_CHECK(plugin->after_fork() == 0);
    }
    return true;
}

void server_stop(void)
{
    plugin->cleanup();
    plugin->unload();
    forget_texts();
}

/* ---- exports --------------------------------------------------------------- */

static int client_errno(void)
{
    switch (told_errno) {
    case EIO:
    case ENOMEM:
    case ENXIO:
    case ENOENT:
        return told_errno;
    default:
        FUZZ_CHECK(!"an errno that is meant for clients");
    }
}

static void describe(struct server_export *e)
{
    static const char since[] = ", since sequence number ";
    const char *text = plugin->export_description(e->handle), *at;

    if (!text) {
        return;
    }
    is_clean(text);
    FUZZ_CHECK(g_str_has_prefix(text, e->disk));
    at = strstr(text, since);
    if (at) {
        e->changes = true;
        e->since = strtoull(at + strlen(since), NULL, 10);
        FUZZ_CHECK(e->since <= e->seq);
    }
}

bool server_open(const char *name, struct server_export *ret, int *ret_errno)
{
    unsigned before = count_errors();
    int64_t size;

    memset(ret, 0, sizeof(*ret));
    asked = name;
    opening = ret;
    ret->handle = plugin->open(true);
    opening = NULL;
    asked = NULL;
    if (!ret->handle) {
        FUZZ_CHECK(atomic_load(&errors) > before);
        *ret_errno = client_errno();
        return false;
    }
    FUZZ_CHECK(ret->disk[0]);
    size = plugin->get_size(ret->handle);
    FUZZ_CHECK(size >= 0 && (uint64_t)size <= TT_DISK_SIZE_MAX);
    ret->size = (uint64_t)size;
    FUZZ_CHECK(plugin->can_multi_conn(ret->handle) >= 0);
    describe(ret);
    return true;
}

void server_close(struct server_export *e)
{
    plugin->close(e->handle);
    memset(e, 0, sizeof(*e));
}

static void is_within(const struct server_export *e, uint64_t offset,
                      uint32_t length)
{
    FUZZ_CHECK(length && offset < e->size && length <= e->size - offset);
}

bool server_read(struct server_export *e, uint64_t offset, void *buf,
                 uint32_t length, int *ret_errno)
{
    unsigned before = count_errors();

    is_within(e, offset, length);
    if (good(plugin->pread(e->handle, buf, length, offset, 0), before)) {
        return true;
    }
    *ret_errno = client_errno();
    return false;
}

void server_cache(struct server_export *e, uint64_t offset, uint32_t length)
{
    is_within(e, offset, length);
    FUZZ_CHECK(plugin->cache(e->handle, length, offset, 0) == 0);
}

bool server_extents(struct server_export *e, uint64_t offset, uint32_t length,
                    bool one, struct server_extent *ret, size_t room,
                    size_t *ret_count)
{
    struct nbdkit_extents x = {
        .at = offset, .end = offset + length, .list = ret, .room = room
    };
    unsigned before = count_errors();
    int r;

    is_within(e, offset, length);
    r = plugin->extents(e->handle, length, offset,
                        one ? NBDKIT_FLAG_REQ_ONE : 0, &x);
    *ret_count = x.count;
    if (!good(r, before)) {
        client_errno();
        return false;
    }
    FUZZ_CHECK(x.at > offset);
    return true;
}

bool server_list(void (*fn)(void *opaque, const char *name), void *opaque)
{
    struct nbdkit_exports exports = { fn, opaque };

    return plugin->list_exports(true, false, &exports) == 0;
}

const char *server_default(void)
{
    const char *name = plugin->default_export(true, false);

    FUZZ_CHECK(name);
    return name;
}
