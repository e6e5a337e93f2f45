/*
 * nbdkit ttview: past states of a recorded disk, as read-only exports
 *
 * nbdkit calls in this order: config for each parameter, config_complete,
 * get_ready (journals are read and at= is bound here: the last place whose
 * errors reach the user), fork, then for each client open … close.  open() may
 * be called more than once per client, so it only takes in what was appended
 * and looks up a time.
 *
 * Which bytes a view has is decided in journal/posix/reader.c; what export
 * names mean, in exports.c.  Here is only NBD.
 *
 * Invariants:
 * - What struct served_list holds does not change after the fork.
 * - There are no callbacks that write, so exports are read-only.
 * - Extents never reach beyond the request (CVE-2025-47711).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ttview.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* One answer about extents takes at most so many look-ups, the rest follows */
#define LOOKUPS_MAX 65536

/* -D ttview.lookup=1: shows which extents answer a read */
NBDKIT_DLL_PUBLIC int ttview_debug_lookup = 0;

/* What the user asked for */
static struct {
    char *journal, *disk, *at, *tz, *name;
} config;

static struct served_list served;
static struct tt_zone *zone;

struct handle {
    struct served *served;
    struct tt_view view;
    bool fixed; /* the name means this moment whenever it is opened */
};

int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void report(const struct tt_error *err, int os_errno)
{
    nbdkit_error("%s", err->message);
    nbdkit_set_error(os_errno);
}

/* ---- configuration ----------------------------------------------------- */

static int set_once(const char *key, char **ret, char *value)
{
    if (!value) {
        return -1; /* nbdkit has said why */
    }
    if (*ret) {
        nbdkit_error("%s= may be given only once", key);
        free(value);
        return -1;
    }
    *ret = value;
    return 0;
}

static char *copy(const char *value)
{
    char *ret = strdup(value);

    if (!ret) {
        nbdkit_error("out of memory");
    }
    return ret;
}

/* A socket must still be found after the server has gone to /. */
static int check_uri(const char *uri)
{
    const char *query = strchr(uri, '?');
    const char *socket = query ? strstr(query, "socket=") : NULL;

    if (socket && strncmp(socket + 7, "/", 1) && strncmp(socket + 7, "%2", 2)) {
        nbdkit_error("disk=%s: the socket must be an absolute path", uri);
        return -1;
    }
    return 0;
}

static int set_disk(const char *value)
{
    if (tt_disk_is_uri(value)) {
        return check_uri(value) < 0
                   ? -1
                   : set_once("disk", &config.disk, copy(value));
    }
    return set_once("disk", &config.disk, nbdkit_absolute_path(value));
}

static int set_journal(const char *value)
{
    const char *base = strrchr(value, '/');
    size_t n;

    if (set_once("journal", &config.journal, nbdkit_absolute_path(value))) {
        return -1;
    }
    base = base ? base + 1 : value;
    n = strlen(base);
    if (n > 4 && !strcmp(base + n - 4, ".ttj")) {
        n -= 4;
    }
    served.list = calloc(1, sizeof(*served.list));
    if (!served.list || !(served.list[0].name = strndup(base, n))) {
        nbdkit_error("out of memory");
        return -1;
    }
    served.count = 1;
    return 0;
}

static int ttview_config(const char *key, const char *value)
{
    if (value[0] == '\0') {
        nbdkit_error("%s= needs a value", key);
        return -1;
    }
    if (!strcmp(key, "journal")) {
        return set_journal(value);
    }
    if (!strcmp(key, "disk")) {
        return set_disk(value);
    }
    if (!strcmp(key, "at")) {
        return set_once(key, &config.at, copy(value));
    }
    if (!strcmp(key, "tz")) {
        return set_once(key, &config.tz, copy(value));
    }
    if (!strcmp(key, "name")) {
        return set_once(key, &config.name, copy(value));
    }
    nbdkit_error("unknown parameter %s=: there are journal=, at=, disk=, tz= "
                 "and name=",
                 key);
    return -1;
}

static int ttview_config_complete(void)
{
    struct tt_error err;

    if (!config.journal) {
        nbdkit_error("journal=FILE is missing: which journal is to be served?");
        return -1;
    }
    if (tt_zone_open(config.tz, &zone, &err) < 0) {
        nbdkit_error("%s", err.message);
        return -1;
    }
    served.zone = zone;
    served.at = config.at ? config.at : "latest";
    if (config.name) {
        free(served.list[0].name);
        served.list[0].name = config.name;
        config.name = NULL;
    }
    served.list[0].path = config.journal;
    config.journal = NULL;
    return 0;
}

#define ttview_config_help                                                     \
    "journal=<FILE>     (required) The journal to serve.\n"                    \
    "at=<TIME>          The moment of the default export (default latest).\n"  \
    "disk=<PATH|URI>    The live disk, if not as recorded.\n"                  \
    "tz=<ZONE>          The zone of times that are given without one.\n"       \
    "name=<NAME>        The journal's name in NAME@TIME (default FILE).\n"

static void ttview_dump_plugin(void)
{
    printf("ttview_format_version=%d\n", TT_FORMAT_VERSION);
    printf("ttview_time_forms=latest seq:N mark:NAME RFC3339 "
           "@SECONDS[.FRACTION] -DURATION\n");
#ifdef HAVE_LIBNBD
    printf("ttview_disk_uri=yes\n");
#else
    printf("ttview_disk_uri=no\n");
#endif
}

/* ---- start and end ----------------------------------------------------- */

/* For what is worth knowing and no error; -f or not, stderr is still there. */
static void warn(const char *text)
{
    fprintf(stderr, "nbdkit: ttview: warning: %s\n", text);
}

static int start(struct served *s, struct tt_error *err)
{
    int ret = tt_reader_open(s->path, config.disk, &s->reader, err);

    if (ret == 0) {
        ret = set_default(&served, s, err);
    }
    if (ret < 0) {
        return ret;
    }
    if (tt_reader_disk(s->reader) && tt_reader_disk_problem(s->reader)[0]) {
        warn(tt_reader_disk_problem(s->reader));
    }
    if (s->default_view.moment.note[0]) {
        warn(s->default_view.moment.note);
    }
    nbdkit_debug("%s: the default export is %s@%s", s->path, s->name,
                 s->default_time);
    return 0;
}

static int ttview_get_ready(void)
{
    struct tt_error err;

    for (size_t i = 0; i < served.count; i++) {
        if (start(&served.list[i], &err) < 0) {
            nbdkit_error("%s", err.message);
            return -1;
        }
    }
    return 0;
}

static void ttview_unload(void)
{
    for (size_t i = 0; i < served.count; i++) {
        struct served *s = &served.list[i];

        tt_reader_close(s->reader);
        free(s->name);
        free(s->path);
        free(s->default_time);
    }
    free(served.list);
    tt_zone_close(zone);
    free(config.journal);
    free(config.disk);
    free(config.at);
    free(config.tz);
    free(config.name);
}

/* ---- exports ----------------------------------------------------------- */

static int ttview_list_exports(int readonly, int is_tls,
                               struct nbdkit_exports *exports)
{
    (void)readonly, (void)is_tls;
    for (size_t i = 0; i < served.count; i++) {
        struct tt_error err;

        if (tt_reader_refresh(served.list[i].reader, &err) < 0) {
            report(&err, EIO);
            return -1;
        }
        if (list_journal(&served, &served.list[i], exports) < 0) {
            return -1;
        }
    }
    return 0;
}

static const char *ttview_default_export(int readonly, int is_tls)
{
    const struct served *s = &served.list[0];

    (void)readonly, (void)is_tls;
    return nbdkit_printf_intern("%s@%s", s->name, s->default_time);
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

static void *ttview_open(int readonly)
{
    const char *name = nbdkit_export_name();
    struct handle *h = calloc(1, sizeof(*h));
    const char *time;
    struct tt_error err;

    (void)readonly;
    if (!h || !name) {
        nbdkit_error("out of memory");
        free(h);
        return NULL;
    }
    if (find_export(&served, name, &h->served, &time, &err) < 0 ||
        bind_time(&served, h->served, time, &h->view, &h->fixed, &err) < 0) {
        report(&err, open_errno(&err));
        free(h);
        return NULL;
    }
    nbdkit_debug("export \"%s\" is %s at sequence number %" PRIu64 "%s%s%s",
                 name, h->served->name, h->view.moment.seq,
                 h->view.moment.provisional ? ", provisional" : "",
                 h->view.moment.note[0] ? "; " : "", h->view.moment.note);
    return h;
}

static void ttview_close(void *handle)
{
    free(handle);
}

static const char *ttview_export_description(void *handle)
{
    struct handle *h = handle;
    char *text = describe_view(h->served, &h->view);
    const char *ret = text ? nbdkit_strdup_intern(text) : NULL;

    free(text);
    return ret;
}

static int64_t ttview_get_size(void *handle)
{
    struct handle *h = handle;

    return (int64_t)h->view.size; /* at most TT_DISK_SIZE_MAX */
}

static int ttview_can_multi_conn(void *handle)
{
    struct handle *h = handle;

    return h->fixed;
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

static bool show_extent(void *opaque, const struct tt_extent *ext)
{
    static const char *const kinds[] = { "journal", "zero", "disk", "damaged" };

    (void)opaque;
    nbdkit_debug("lookup: %" PRIu64 "+%" PRIu64 ": %s, sequence number %" PRIu64
                 ", in the journal at %" PRIu64,
                 ext->offset, ext->length, kinds[ext->kind], ext->record_seq,
                 ext->place);
    return true;
}

static int ttview_pread(void *handle, void *buf, uint32_t count,
                        uint64_t offset, uint32_t flags)
{
    struct handle *h = handle;
    struct tt_error err;
    int ret = 0;

    (void)flags;
    if (ttview_debug_lookup) {
        ret = tt_reader_extents(h->served->reader, &h->view, offset, count,
                                show_extent, NULL, &err);
    }
    if (ret == 0) {
        ret = tt_reader_read(h->served->reader, &h->view, offset, buf, count,
                             &err);
    }
    if (ret < 0) {
        report(&err, err.code == TT_ENOMEM ? ENOMEM : EIO);
        return -1;
    }
    return 0;
}

struct extents {
    struct nbdkit_extents *list;
    unsigned left; /* look-ups that may still be made */
    int ret;
};

static bool add_extent(void *opaque, const struct tt_extent *ext)
{
    struct extents *e = opaque;
    uint32_t type = ext->kind == TT_EXTENT_ZERO
                        ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO
                        : 0;

    e->ret = nbdkit_add_extent(e->list, ext->offset, ext->length, type);
    return e->ret == 0 && --e->left > 0;
}

static int ttview_extents(void *handle, uint32_t count, uint64_t offset,
                          uint32_t flags, struct nbdkit_extents *list)
{
    struct handle *h = handle;
    struct extents e = {
        .list = list,
        .left = flags & NBDKIT_FLAG_REQ_ONE ? 1 : LOOKUPS_MAX,
    };
    struct tt_error err;

    if (tt_reader_extents(h->served->reader, &h->view, offset, count,
                          add_extent, &e, &err) < 0) {
        report(&err, EIO);
        return -1;
    }
    return e.ret;
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
    .config_help = ttview_config_help,
    .dump_plugin = ttview_dump_plugin,
    .get_ready = ttview_get_ready,
    .unload = ttview_unload,
    .list_exports = ttview_list_exports,
    .default_export = ttview_default_export,
    .open = ttview_open,
    .close = ttview_close,
    .export_description = ttview_export_description,
    .get_size = ttview_get_size,
    .can_multi_conn = ttview_can_multi_conn,
    .can_extents = ttview_can_extents,
    .block_size = ttview_block_size,
    .pread = ttview_pread,
    .extents = ttview_extents,
    .errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
