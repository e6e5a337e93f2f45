/*
 * ttjcut: an nbdkit plugin, for the tests, of disks that can lose power
 *
 *     nbdkit -t 64 ttjcut.so control=SOCKET disk=FILE journal=FILE
 *
 * Each NAME=FILE is an export of that name and of the file's size.  All lose
 * power at the same instant.  The file is the medium: it holds at each moment
 * what would be there after a power cut that takes the whole cache with it.
 * Writes go to a volatile cache, and reach the medium by a flush, by FUA, or
 * sometimes on their own, sector by sector and in any order.  A flush that is
 * made to fail is as bad as a real one: a part of the cache reaches the
 * medium, and the rest is read as before, but counts as clean and is gone with
 * the next power cut.  A write that is made to fail has changed some of its
 * sectors.
 *
 * The test speaks to the socket; one line is one command, with one line for an
 * answer.  EXPORT and KIND (read, write, flush, zero, trim) may be "any".
 *
 *   count                            how often each was called, as JSON
 *   fail EXPORT KIND N COUNT ERRNO   the N-th call from now on (1: the next)
 *                                    and COUNT in all (0: for good) fail
 *   late EXPORT KIND N COUNT ERRNO   the same, but all of it has happened
 *   hold EXPORT KIND N               they are not answered from the N-th on
 *   go EXPORT KIND                   ends that; what is held goes on
 *   delay EXPORT KIND MICROSECONDS   each takes up to so long
 *   clear                            end all of these; what is held goes on
 *   evict                            what is clean is read from the medium
 *   settle                           bring the medium up to date, as an
 *                                    orderly end does; what a failed flush
 *                                    has lost stays lost
 *   seed N                           for what is left to chance
 *   cut N PERCENT...                 power cut before the N-th call from now
 *                                    (0: at once); of the sectors in each
 *                                    export's cache so many in a hundred
 *                                    survive.  Answered when it has happened.
 *
 *   leave                            connections made until now are dead: no
 *                                    call of theirs happens or is answered
 *
 * From a power cut on no call is answered.  Then kill the server, and start
 * another one: some versions of nbdkit abort when they answer a client that
 * has died.  So before killing one, say "leave".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define SECTOR 512
#define EXPORTS 4
#define RULES 64
#define ANY (-1)

enum kind { READ, WRITE, FLUSH, ZERO, TRIM, KINDS };
static const char *const kind_names[KINDS] = { "read", "write", "flush", "zero",
                                               "trim" };

struct export
{
    char *name, *file;
    int64_t size;
    uint8_t *medium;  /* the file, mapped */
    uint8_t *cache;   /* what a read returns */
    uint64_t *dirty;  /* sectors, one bit each: to go to the medium */
    uint64_t *differ; /* cache and medium may differ: all of dirty, and */
                      /* what failed flushes have lost */
    uint64_t calls[KINDS];
    uint64_t cleared[KINDS]; /* what is held waits until this changes */
    uint64_t failed;         /* of the calls */
    unsigned held;
    unsigned survive; /* a cut, in percent */
};

struct connection {
    struct export *e;
    uint64_t left; /* as it was when the connection was made */
};

enum what { FAIL, LATE, HOLD, DELAY };

struct rule {
    enum what what;
    int export, kind;
    uint64_t first, count; /* calls from 1; 0: for good */
    uint64_t seen;
    int value; /* errno or microseconds */
};

/* Everything below is protected by lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct export exports[EXPORTS];
static int export_count;
static struct rule rules[RULES];
static int rule_count;
static bool on = true;
static uint64_t left;      /* how often clients were left to die */
static uint64_t cut_after; /* calls until the cut; 0: none is planned */
static uint64_t rng = 88172645463325252u;
static char *control;
static int control_fd = -1;

/* xorshift64*; never 0 */
static uint32_t chance(void)
{
    rng ^= rng >> 12;
    rng ^= rng << 25;
    rng ^= rng >> 27;
    return (rng * 2685821657736338717u) >> 32;
}

/* ---- cache and medium ---------------------------------------------------- */

static bool test_bit(const uint64_t *map, int64_t i)
{
    return map[i / 64] >> (i % 64) & 1;
}

static void set_bit(uint64_t *map, int64_t i)
{
    map[i / 64] |= (uint64_t)1 << (i % 64);
}

static void clear_bit(uint64_t *map, int64_t i)
{
    map[i / 64] &= ~((uint64_t)1 << (i % 64));
}

/* The first sector at or after @i that is in @map, or the number of sectors */
static int64_t next_bit(const struct export *e, const uint64_t *map, int64_t i)
{
    int64_t count = e->size / SECTOR;

    while (i < count && !test_bit(map, i)) {
        i = map[i / 64] >> (i % 64) ? i + 1 : (i / 64 + 1) * 64;
    }
    return i < count ? i : count;
}

#define FOR_EACH(i, e, map)                                                    \
    for (int64_t i = next_bit(e, map, 0); i < (e)->size / SECTOR;              \
         i = next_bit(e, map, i + 1))

static void to_medium(struct export *e, int64_t i)
{
    memcpy(e->medium + i * SECTOR, e->cache + i * SECTOR, SECTOR);
    clear_bit(e->dirty, i);
    clear_bit(e->differ, i);
}

/* @data: NULL for zeroes.  Only a part of the sectors if the call fails. */
static void write_cache(struct export *e, uint64_t offset, uint32_t bytes,
                        const uint8_t *data, bool failing)
{
    unsigned percent = failing ? 50 * (chance() % 3) : 100;

    for (uint64_t at = offset, end = offset + bytes, next; at < end;
         at = next) {
        int64_t i = at / SECTOR;

        next =
            (i + 1) * SECTOR < (int64_t)end ? (uint64_t)(i + 1) * SECTOR : end;
        if (percent < 100 && chance() % 100 >= percent) {
            continue;
        }
        /* Between two flushes any version may reach the medium. */
        if (test_bit(e->dirty, i) && chance() % 4 == 0) {
            to_medium(e, i);
        }
        if (data) {
            memcpy(e->cache + at, data + (at - offset), next - at);
        } else {
            memset(e->cache + at, 0, next - at);
        }
        set_bit(e->dirty, i);
        set_bit(e->differ, i);
    }
}

static void flush_range(struct export *e, uint64_t offset, uint32_t bytes)
{
    for (int64_t i = offset / SECTOR; i * SECTOR < (int64_t)(offset + bytes);
         i++) {
        if (test_bit(e->dirty, i)) {
            to_medium(e, i);
        }
    }
}

static void flush_cache(struct export *e, bool failing)
{
    FOR_EACH(i, e, e->dirty)
    {
        if (!failing || chance() % 2) {
            to_medium(e, i);
        } else {
            clear_bit(e->dirty, i);
        }
    }
}

/* What is clean is read from the medium again. */
static void evict(struct export *e)
{
    FOR_EACH(i, e, e->differ)
    {
        if (!test_bit(e->dirty, i)) {
            memcpy(e->cache + i * SECTOR, e->medium + i * SECTOR, SECTOR);
            clear_bit(e->differ, i);
        }
    }
}

static void cut(void)
{
    for (int n = 0; n < export_count; n++) {
        struct export *e = &exports[n];

        FOR_EACH(i, e, e->dirty)
        {
            if (chance() % 100 < e->survive) {
                to_medium(e, i);
            } else {
                clear_bit(e->dirty, i);
            }
        }
        evict(e);
    }
    cut_after = 0;
    on = false;
    pthread_cond_broadcast(&changed);
}

/* ---- calls --------------------------------------------------------------- */

/*
 * What every call does first: it is counted, and then delayed, held, told to
 * fail, or the power is cut before it.  Returns the errno to fail with, with
 * lock held; a negative one if it happens all the same.
 */
static int begin(const struct connection *c, enum kind kind)
{
    struct export *e = c->e;
    uint64_t delay = 0, cleared;
    bool hold = false;
    int error = 0;

    pthread_mutex_lock(&lock);
    while (c->left != left) {
        pthread_cond_wait(&changed, &lock);
    }
    e->calls[kind]++;
    if (cut_after && --cut_after == 0) {
        cut();
    }
    for (int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];

        if ((r->export != ANY && &exports[r->export] != e) ||
            (r->kind != ANY && r->kind != (int)kind)) {
            continue;
        }
        r->seen++;
        if (r->seen < r->first ||
            (r->count && r->seen - r->first >= r->count)) {
            continue;
        }
        if (r->what == FAIL || r->what == LATE) {
            error = r->what == FAIL ? r->value : -r->value;
        } else if (r->what == HOLD) {
            hold = true;
        } else if (r->value > 0) {
            delay = chance() % r->value;
        }
    }
    cleared = e->cleared[kind];
    if (delay) {
        pthread_mutex_unlock(&lock);
        usleep(delay);
        pthread_mutex_lock(&lock);
    }
    e->held++;
    while (!on || c->left != left || (hold && cleared == e->cleared[kind])) {
        pthread_cond_wait(&changed, &lock);
    }
    e->held--;
    e->failed += error != 0;
    return error;
}

static int end(int error)
{
    pthread_mutex_unlock(&lock);
    if (error) {
        nbdkit_set_error(abs(error));
        return -1;
    }
    return 0;
}

static int ttjcut_pread(void *handle, void *buf, uint32_t count,
                        uint64_t offset, uint32_t flags)
{
    struct connection *c = handle;
    int error = begin(c, READ);

    (void)flags;
    if (!error) {
        memcpy(buf, c->e->cache + offset, count);
    }
    return end(error);
}

static int change(struct connection *c, enum kind kind, const void *buf,
                  uint32_t count, uint64_t offset, uint32_t flags)
{
    int error = begin(c, kind);

    write_cache(c->e, offset, count, buf, error > 0);
    if (error <= 0 && flags & NBDKIT_FLAG_FUA) {
        flush_range(c->e, offset, count);
    }
    return end(error);
}

static int ttjcut_pwrite(void *handle, const void *buf, uint32_t count,
                         uint64_t offset, uint32_t flags)
{
    return change(handle, WRITE, buf, count, offset, flags);
}

static int ttjcut_zero(void *handle, uint32_t count, uint64_t offset,
                       uint32_t flags)
{
    return change(handle, ZERO, NULL, count, offset, flags);
}

static int ttjcut_trim(void *handle, uint32_t count, uint64_t offset,
                       uint32_t flags)
{
    return change(handle, TRIM, NULL, count, offset, flags);
}

static int ttjcut_flush(void *handle, uint32_t flags)
{
    struct connection *c = handle;
    int error = begin(c, FLUSH);

    (void)flags;
    flush_cache(c->e, error > 0);
    return end(error);
}

/* Blocks of 4 KiB that are all zero are holes: they are quick to tell. */
static int ttjcut_extents(void *handle, uint32_t count, uint64_t offset,
                          uint32_t flags, struct nbdkit_extents *extents)
{
    struct export *e = ((struct connection *)handle)->e;
    uint64_t at = offset & ~(uint64_t)4095, end_ = offset + count;
    int ret = 0;

    (void)flags;
    pthread_mutex_lock(&lock);
    for (int n = 0; n < 1024 && at < end_ && ret == 0; n++) {
        uint64_t bytes = e->size - at < 4096 ? e->size - at : 4096;
        const uint8_t *p = e->cache + at;
        bool zero = p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;

        ret = nbdkit_add_extent(extents, at, bytes,
                                zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO
                                     : 0);
        at += bytes;
    }
    pthread_mutex_unlock(&lock);
    return ret;
}

static void *ttjcut_open(int readonly)
{
    const char *name = nbdkit_export_name();

    (void)readonly;
    for (int i = 0; name && i < export_count; i++) {
        if (strcmp(exports[i].name, name) == 0) {
            struct connection *c = malloc(sizeof(*c));

            if (!c) {
                nbdkit_error("out of memory");
                return NULL;
            }
            pthread_mutex_lock(&lock);
            *c = (struct connection){ .e = &exports[i], .left = left };
            pthread_mutex_unlock(&lock);
            return c;
        }
    }
    nbdkit_error("no export '%s'", name ? name : "");
    return NULL;
}

static void ttjcut_close(void *handle)
{
    free(handle);
}

static int64_t ttjcut_get_size(void *handle)
{
    return ((struct connection *)handle)->e->size;
}

static int ttjcut_block_size(void *handle, uint32_t *minimum,
                             uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = SECTOR;
    *preferred = 4096;
    *maximum = 32 << 20;
    return 0;
}

static int yes(void *handle)
{
    (void)handle;
    return 1;
}

static int fua_native(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

/* ---- control ------------------------------------------------------------- */

static int find(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return strcmp(name, "any") == 0 ? ANY : -2;
}

static int find_export(const char *name)
{
    const char *names[EXPORTS];

    for (int i = 0; i < export_count; i++) {
        names[i] = exports[i].name;
    }
    return find(name, names, export_count);
}

static const char *add_rule(enum what what, const char *line)
{
    char export[32], kind[32];
    struct rule r = { .what = what, .first = 1 };
    int n;

    if (what == FAIL || what == LATE) {
        n = sscanf(line, "%31s %31s %" SCNu64 " %" SCNu64 " %d", export, kind,
                   &r.first, &r.count, &r.value) == 5;
    } else if (what == HOLD) {
        n = sscanf(line, "%31s %31s %" SCNu64, export, kind, &r.first) == 3;
    } else {
        n = sscanf(line, "%31s %31s %d", export, kind, &r.value) == 3;
    }
    if (!n) {
        return "error: arguments\n";
    }
    r.export = find_export(export);
    r.kind = find(kind, kind_names, KINDS);
    if (r.export == -2 || r.kind == -2 || r.first == 0 || rule_count == RULES) {
        return "error: arguments\n";
    }
    rules[rule_count++] = r;
    return "ok\n";
}

/* What is held of these calls goes on; with @end_rules no more of them is. */
static void let_go(int export, int kind, bool end_rules)
{
    for (int i = 0; i < rule_count;) {
        struct rule *r = &rules[i];

        if (end_rules && r->what == HOLD && r->export == export &&
            r->kind == kind) {
            *r = rules[--rule_count];
        } else {
            i++;
        }
    }
    for (int n = 0; n < export_count; n++) {
        for (int k = 0; k < KINDS; k++) {
            exports[n].cleared[k] +=
                (export == ANY || export == n) && (kind == ANY || kind == k);
        }
    }
    pthread_cond_broadcast(&changed);
}

static const char *command_go(const char *arguments)
{
    char export[32], kind[32];
    int e, k;

    if (sscanf(arguments, "%31s %31s", export, kind) != 2 ||
        (e = find_export(export)) == -2 ||
        (k = find(kind, kind_names, KINDS)) == -2) {
        return "error: arguments\n";
    }
    let_go(e, k, true);
    return "ok\n";
}

static void answer_count(FILE *out)
{
    fputc('{', out);
    for (int n = 0; n < export_count; n++) {
        struct export *e = &exports[n];
        uint64_t dirty = 0;

        FOR_EACH(i, e, e->dirty)
        {
            dirty++;
        }
        fprintf(out,
                "%s\"%s\": {\"held\": %u, \"dirty\": %" PRIu64
                ", \"failed\": %" PRIu64,
                n ? ", " : "", e->name, e->held, dirty, e->failed);
        for (int k = 0; k < KINDS; k++) {
            fprintf(out, ", \"%s\": %" PRIu64, kind_names[k], e->calls[k]);
        }
        fputc('}', out);
    }
    fputs("}\n", out);
}

/* Called with lock held. */
static const char *command_cut(const char *arguments)
{
    uint64_t after;
    int n;

    if (sscanf(arguments, "%" SCNu64 "%n", &after, &n) != 1) {
        return "error: arguments\n";
    }
    for (int i = 0; i < export_count; i++) {
        arguments += n;
        if (sscanf(arguments, "%u%n", &exports[i].survive, &n) != 1) {
            return "error: arguments\n";
        }
    }
    cut_after = after;
    if (after == 0 && on) {
        cut();
    }
    while (on) {
        pthread_cond_wait(&changed, &lock);
    }
    return "ok\n";
}

/* Called with lock held; NULL if the answer is written already. */
static const char *command(const char *line, FILE *out)
{
    char word[16] = "";
    int length = 0;
    const char *rest;

    sscanf(line, "%15s %n", word, &length);
    rest = line + length;
    if (strcmp(word, "count") == 0) {
        answer_count(out);
        return NULL;
    } else if (strcmp(word, "fail") == 0) {
        return add_rule(FAIL, rest);
    } else if (strcmp(word, "late") == 0) {
        return add_rule(LATE, rest);
    } else if (strcmp(word, "go") == 0) {
        return command_go(rest);
    } else if (strcmp(word, "hold") == 0) {
        return add_rule(HOLD, rest);
    } else if (strcmp(word, "delay") == 0) {
        return add_rule(DELAY, rest);
    } else if (strcmp(word, "clear") == 0) {
        rule_count = 0;
        let_go(ANY, ANY, false);
    } else if (strcmp(word, "evict") == 0) {
        for (int n = 0; n < export_count; n++) {
            evict(&exports[n]);
        }
    } else if (strcmp(word, "settle") == 0) {
        for (int n = 0; n < export_count; n++) {
            flush_cache(&exports[n], false);
            evict(&exports[n]);
        }
    } else if (strcmp(word, "leave") == 0) {
        left++;
    } else if (strcmp(word, "seed") == 0) {
        /* the odd constant keeps small seeds apart, and the sum from 0 */
        rng = strtoull(rest, NULL, 10) * 2 * 11400714819323198485u + 1;
        chance();
    } else if (strcmp(word, "cut") == 0) {
        return command_cut(rest);
    } else {
        return "error: what?\n";
    }
    return "ok\n";
}

static void *serve(void *opaque)
{
    int fd = (intptr_t)opaque;
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    char line[256];

    while (in && out && fgets(line, sizeof(line), in)) {
        const char *answer;

        pthread_mutex_lock(&lock);
        answer = command(line, out);
        pthread_mutex_unlock(&lock);
        if (answer) {
            fputs(answer, out);
        }
        if (fflush(out)) {
            break;
        }
    }
    if (out) {
        fclose(out);
    }
    if (in) {
        fclose(in);
    }
    return NULL;
}

static void *listen_for_control(void *opaque)
{
    (void)opaque;
    for (;;) {
        int fd = accept(control_fd, NULL, NULL);
        pthread_t thread;

        if (fd < 0) {
            continue;
        }
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd)) {
            close(fd);
        } else {
            pthread_detach(thread);
        }
    }
    return NULL;
}

/* ---- start --------------------------------------------------------------- */

static int ttjcut_config(const char *key, const char *value)
{
    struct export *e;

    if (strcmp(key, "control") == 0) {
        free(control);
        control = nbdkit_absolute_path(value);
        return control ? 0 : -1;
    }
    if (export_count == EXPORTS) {
        nbdkit_error("more than %d exports", EXPORTS);
        return -1;
    }
    e = &exports[export_count++];
    e->name = strdup(key);
    e->file = nbdkit_absolute_path(value);
    return e->name && e->file ? 0 : -1;
}

static int load(struct export *e)
{
    int fd = open(e->file, O_RDWR | O_CLOEXEC);
    struct stat st;
    size_t words;

    if (fd < 0 || fstat(fd, &st) < 0) {
        nbdkit_error("%s: %m", e->file);
        return -1;
    }
    if (st.st_size == 0 || st.st_size % SECTOR) {
        nbdkit_error("%s: the size is not a multiple of %d", e->file, SECTOR);
        return -1;
    }
    e->size = st.st_size;
    words = e->size / SECTOR / 64 + 1;
    e->medium = mmap(NULL, e->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    /* A page of it is the medium's until it is written. */
    e->cache = mmap(NULL, e->size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    e->dirty = calloc(words, sizeof(*e->dirty));
    e->differ = calloc(words, sizeof(*e->differ));
    if (e->medium == MAP_FAILED || e->cache == MAP_FAILED || !e->dirty ||
        !e->differ) {
        nbdkit_error("%s: %m", e->file);
        return -1;
    }
    close(fd);
    return 0;
}

static int ttjcut_get_ready(void)
{
    for (int i = 0; i < export_count; i++) {
        if (load(&exports[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Threads live from here on: before, nbdkit may fork. */
static int ttjcut_after_fork(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    pthread_t thread;

    if (!control || strlen(control) >= sizeof(address.sun_path)) {
        nbdkit_error("control=SOCKET is missing or too long");
        return -1;
    }
    strcpy(address.sun_path, control);
    control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control_fd < 0 ||
        bind(control_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(control_fd, 5) < 0) {
        nbdkit_error("%s: %m", control);
        return -1;
    }
    if (pthread_create(&thread, NULL, listen_for_control, NULL)) {
        nbdkit_error("cannot make a thread");
        return -1;
    }
    pthread_detach(thread);
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "ttjcut",
    .description = "disks that lose power, for tests of ttjournal",
    .config = ttjcut_config,
    .config_help = "control=SOCKET NAME=FILE...  see the plugin's source",
    .get_ready = ttjcut_get_ready,
    .after_fork = ttjcut_after_fork,
    .open = ttjcut_open,
    .close = ttjcut_close,
    .get_size = ttjcut_get_size,
    .block_size = ttjcut_block_size,
    .can_write = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_extents = yes,
    .can_multi_conn = yes,
    .can_fua = fua_native,
    .pread = ttjcut_pread,
    .pwrite = ttjcut_pwrite,
    .flush = ttjcut_flush,
    .zero = ttjcut_zero,
    .trim = ttjcut_trim,
    .extents = ttjcut_extents,
    .errno_is_preserved = 0,
};

NBDKIT_REGISTER_PLUGIN(plugin)
