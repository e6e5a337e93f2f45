/*
 * The store: where is the index of this journal, and does it fit?
 *
 * On disk an index is a folder (indexdir.c) with runs, which never change, and
 * one catalog that names them, which is replaced by a rename.  So whoever reads
 * needs no lock: he opens the catalog, then its runs; if one has gone, since
 * another process has merged it meanwhile, there is a newer catalog.  Whoever
 * extends has the folder's lock (store-extend.c).  A power cut, rot or a hand
 * may leave anything there: all is checked when it is read, and what does not
 * fit is made anew.
 *
 * Invariants:
 * - A set does not change.  Its runs stay open, and so readable, as long as
 *   somebody has it.
 * - dir is touched only with the build lock held, set only with the lock held,
 *   which is not kept over I/O.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store-int.h"

/* Of pages, for all stores of this process */
#define CACHE_BYTES (64 * TT_MIB)
/* A catalog that is larger is none. */
#define CATALOG_MAX (1024 * TT_MIB)
/* How often a catalog may be replaced while its runs are being opened */
#define LOAD_TRIES 20

/* ---- sets -------------------------------------------------------------- */

static void set_free(struct tt_index_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        tt_run_file_put(set->files[i]);
    }
    free(set->files);
    free(set->runs);
    tt_catalog_free(set->catalog);
    free(set);
}

struct tt_index_set *tt_index_set_ref(struct tt_index_set *set)
{
    atomic_fetch_add(&set->users, 1);
    return set;
}

void tt_index_set_put(struct tt_index_set *set)
{
    if (set && atomic_fetch_sub(&set->users, 1) == 1) {
        set_free(set);
    }
}

struct tt_index_set *tt_set_new(struct tt_catalog *catalog)
{
    struct tt_index_set *set = calloc(1, sizeof(*set));
    size_t count;

    tt_catalog_runs(catalog, &count);
    if (set) {
        set->files = calloc(count + 1, sizeof(struct tt_run_file *));
        set->runs = calloc(count + 1, sizeof(struct tt_run *));
    }
    if (!set || !set->files || !set->runs) {
        if (set) {
            free(set->files);
            free(set->runs);
        }
        free(set);
        tt_catalog_free(catalog);
        return NULL;
    }
    atomic_init(&set->users, 1);
    set->catalog = catalog;
    return set;
}

void tt_set_add(struct tt_index_set *set, struct tt_run_file *file)
{
    set->files[set->count] = file;
    set->runs[set->count++] = tt_run_file_run(file);
}

const struct tt_catalog *tt_index_set_catalog(const struct tt_index_set *set)
{
    return set->catalog;
}

struct tt_run *const *tt_index_set_runs(const struct tt_index_set *set,
                                        size_t *ret_count)
{
    *ret_count = set->count;
    return set->runs;
}

uint64_t tt_index_set_bytes(const struct tt_index_set *set)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < set->count; i++) {
        sum += tt_run_info(set->runs[i])->pages * TT_PAGE;
    }
    return sum;
}

struct tt_index_set *tt_store_get(struct tt_store *s)
{
    struct tt_index_set *set;

    pthread_mutex_lock(&s->lock);
    set = s->set;
    if (set) {
        atomic_fetch_add(&set->users, 1);
    }
    pthread_mutex_unlock(&s->lock);
    return set;
}

void tt_store_install(struct tt_store *s, struct tt_index_set *set)
{
    struct tt_index_set *old;

    pthread_mutex_lock(&s->lock);
    old = s->set;
    s->set = set;
    pthread_mutex_unlock(&s->lock);
    tt_index_set_put(old);
}

/* ---- loading ----------------------------------------------------------- */

int tt_store_journal(const struct tt_store *s, struct tt_file *f,
                     struct tt_error *err)
{
    tt_file_wrap(f, s->fd, s->path, 0);
    return tt_file_update_size(f, err);
}

static int no_index(struct tt_error *err, int os_errno)
{
    return tt_fail(err, TT_EINDEX, os_errno, "no index: %s",
                   strerror(os_errno));
}

/* Reads a whole file: 0 or -errno. */
static int read_whole(int fd, uint64_t size, uint8_t **ret)
{
    uint8_t *buf = size <= CATALOG_MAX ? malloc(size + 1) : NULL;
    size_t done = 0;

    if (!buf) {
        return size <= CATALOG_MAX ? -ENOMEM : -EFBIG;
    }
    while (done < size) {
        ssize_t n = pread(fd, buf + done, size - done, (off_t)done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            int e = n < 0 ? errno : EBADMSG;

            free(buf);
            return -e;
        }
        done += (size_t)n;
    }
    *ret = buf;
    return 0;
}

struct file_id tt_file_id(const struct stat *st)
{
    return (struct file_id){ st->st_dev, st->st_ino, st->st_ctim };
}

/* A set without its runs. */
static int load_catalog(struct tt_store *s, const struct tt_index_dir *d,
                        struct tt_index_set **ret, struct tt_error *err)
{
    struct tt_catalog *catalog = NULL;
    uint64_t size = 0;
    uint8_t *buf = NULL;
    struct stat st;
    int fd = tt_index_dir_open_file(d, TT_INDEX_CATALOG, &size), r;

    if (fd < 0) {
        return no_index(err, -fd);
    }
    r = fstat(fd, &st) < 0 ? -errno : read_whole(fd, size, &buf);
    close(fd);
    if (r < 0) {
        return no_index(err, -r);
    }
    r = tt_catalog_decode(buf, size, &s->super, &catalog, err);
    free(buf);
    if (r < 0) {
        return r;
    }
    *ret = tt_set_new(catalog);
    if (!*ret) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    (*ret)->file = tt_file_id(&st);
    return 0;
}

/* *ret_gone: a file is not there. */
static int load_run(struct tt_store *s, const struct tt_index_dir *d,
                    struct tt_index_set *set, const struct tt_run_info *info,
                    bool *ret_gone, struct tt_error *err)
{
    char name[TT_INDEX_NAME_SIZE];
    struct tt_run_file *file;
    uint64_t size;
    int fd, r;

    tt_index_dir_run_name(info->id, name);
    fd = tt_index_dir_open_file(d, name, &size);
    if (fd < 0) {
        *ret_gone = fd == -ENOENT;
        return no_index(err, -fd);
    }
    r = tt_run_file_open(fd, info, s->cache, &file, err);
    if (r == 0) {
        tt_set_add(set, file);
    }
    return r;
}

static int load_once(struct tt_store *s, const struct tt_index_dir *d,
                     struct tt_index_set **ret, bool *ret_gone,
                     struct tt_error *err)
{
    const struct tt_run_info *infos;
    struct tt_index_set *set;
    struct tt_file journal;
    size_t count;
    int r = load_catalog(s, d, &set, err);

    *ret_gone = false;
    if (r < 0) {
        return r;
    }
    infos = tt_catalog_runs(set->catalog, &count);
    for (size_t i = 0; i < count && r == 0; i++) {
        r = load_run(s, d, set, &infos[i], ret_gone, err);
    }
    if (r == 0) {
        r = tt_store_journal(s, &journal, err);
    }
    if (r == 0) {
        r = tt_catalog_check(set->catalog, &journal.source, err);
    }
    if (r < 0) {
        tt_index_set_put(set);
        return r;
    }
    *ret = set;
    return 0;
}

int tt_store_load(struct tt_store *s, const struct tt_index_dir *d,
                  struct tt_index_set **ret, struct tt_error *err)
{
    bool gone;
    int r;

    for (unsigned i = 0; i < LOAD_TRIES; i++) {
        r = load_once(s, d, ret, &gone, err);
        if (r == 0 || !gone) {
            break;
        }
    }
    return r;
}

uint64_t tt_set_covered(const struct tt_index_set *set)
{
    return set ? tt_catalog_last_seq(set->catalog) : 0;
}

/* ---- opening ----------------------------------------------------------- */

static void remember_place(struct tt_store *s)
{
    pthread_mutex_lock(&s->lock);
    free(s->where);
    free(s->note);
    s->where = s->dir.path ? strdup(s->dir.path) : NULL;
    s->note = strdup(s->dir.note);
    pthread_mutex_unlock(&s->lock);
}

void tt_store_use_dir(struct tt_store *s, const struct tt_index_dir *d)
{
    tt_index_dir_close(&s->dir);
    s->dir = *d;
    remember_place(s);
}

/* Looks at all places; the index that covers most is taken. */
static int find(struct tt_store *s, struct tt_error *err)
{
    for (unsigned n = 0;; n++) {
        struct tt_index_set *set;
        struct tt_index_dir d;
        int r =
            tt_index_dir_open(&(struct tt_file){ .fd = s->fd, .path = s->path },
                              s->super.uuid, s->folder, n, false, &d);

        if (r == -ERANGE) {
            return 0;
        }
        if (r < 0) {
            continue;
        }
        r = tt_store_load(s, &d, &set, err);
        if (r == 0 &&
            (!s->set || tt_set_covered(set) > tt_set_covered(s->set))) {
            tt_store_install(s, set);
            tt_store_use_dir(s, &d);
            continue;
        }
        if (r == 0) {
            tt_index_set_put(set);
        }
        tt_index_dir_close(&d);
        if (r == -TT_ENOMEM) {
            return r;
        }
    }
}

int tt_store_open(const struct tt_file *journal, const struct tt_super *super,
                  const char *folder, struct tt_store **ret,
                  struct tt_error *err)
{
    int r = folder ? tt_index_dir_check(folder, err) : 0;
    struct tt_store *s;

    if (r < 0) {
        return r;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    pthread_mutex_init(&s->build, NULL);
    pthread_mutex_init(&s->lock, NULL);
    s->dir.fd = -1;
    s->fd = journal->fd;
    s->super = *super;
    s->path = strdup(journal->path);
    s->folder = folder ? strdup(folder) : NULL;
    s->cache = tt_pagecache_shared(TT_PAGE, CACHE_BYTES);
    if (!s->path || (folder && !s->folder) || !s->cache) {
        r = tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    } else {
        r = find(s, err);
    }
    if (r < 0) {
        tt_store_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

void tt_store_close(struct tt_store *s)
{
    if (!s) {
        return;
    }
    tt_index_set_put(s->set);
    tt_index_dir_close(&s->dir);
    if (s->cache) {
        tt_pagecache_shared_put();
    }
    pthread_mutex_destroy(&s->build);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s->folder);
    free(s->where);
    free(s->note);
    free(s);
}

static char *copy_of(struct tt_store *s, char *const *text)
{
    char *copy;

    pthread_mutex_lock(&s->lock);
    copy = *text ? strdup(*text) : NULL;
    pthread_mutex_unlock(&s->lock);
    return copy;
}

char *tt_store_where(struct tt_store *s)
{
    return copy_of(s, &s->where);
}

char *tt_store_note(struct tt_store *s)
{
    char *note = copy_of(s, &s->note);

    return note ? note : strdup("");
}
