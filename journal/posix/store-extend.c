/*
 * Extending an index: how does it get from what it covers to what the journal
 * holds?
 *
 * Under the folder's lock, and from the catalog that lies there then, whoever
 * made it:
 *
 *     segment by segment   tt_builder_fill()
 *     a run                new file, fsync, its name
 *     merges that are due  likewise
 *     the catalog          new file, fsync, rename over the old one
 *     clean-up             what the catalog does not name
 *
 * So a kill at any point leaves an index that covers a little less, and files
 * that the next one removes.
 *
 * What goes wrong:
 * - What is there does not fit the journal, or a page of it is damaged: it is
 *   forgotten, and all is made anew.  The old set serves until then.
 * - No folder can be written, or it is full: the work goes on from the same
 *   set in files without names, which need room elsewhere.
 * - The folder is removed: it is made again, and what was in it, too.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store-int.h"

/* Of versions that wait to be written */
#define BUILD_MEMORY (64 * TT_MIB)
/* How often it begins again before it gives up */
#define TRIES 4

struct extension {
    struct tt_store *s;
    struct tt_store_work *work;
    struct tt_error *err;
    struct tt_file journal;
    struct tt_index_set *base; /* what it went on from, or NULL */
    struct tt_builder *builder;
    struct tt_run_file **files; /* of the runs in the builder's catalog */
    size_t count, room;
    int os_errno; /* a file of the index could not be written */
};

/* ---- beginning --------------------------------------------------------- */

static int no_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

static struct tt_catalog *copy_catalog(struct tt_store *s,
                                       const struct tt_index_set *set)
{
    struct tt_catalog *copy = NULL;
    uint8_t *bytes;
    size_t length;

    if (!set) {
        return tt_catalog_new(&s->super);
    }
    bytes = tt_catalog_encode(set->catalog, &length);
    if (bytes && tt_catalog_decode(bytes, length, &s->super, &copy, NULL) < 0) {
        copy = NULL;
    }
    free(bytes);
    return copy;
}

static bool push_file(struct extension *x, struct tt_run_file *file)
{
    if (x->count == x->room) {
        size_t room = x->room ? 2 * x->room : 16;
        void *p = realloc(x->files, room * sizeof(struct tt_run_file *));

        if (!p) {
            tt_run_file_put(file);
            return false;
        }
        x->files = p;
        x->room = room;
    }
    x->files[x->count++] = file;
    return true;
}

/* Goes on from @base, which it takes. */
static int begin(struct extension *x, struct tt_index_set *base)
{
    struct tt_catalog *catalog = copy_catalog(x->s, base);
    int r;

    x->base = base;
    if (!catalog) {
        return no_memory(x->err);
    }
    r = tt_store_journal(x->s, &x->journal, x->err);
    if (r < 0) {
        tt_catalog_free(catalog);
        return r;
    }
    x->builder = tt_builder_new(catalog, &x->journal.source, BUILD_MEMORY);
    if (!x->builder) {
        tt_catalog_free(catalog);
        return no_memory(x->err);
    }
    for (size_t i = 0; base && i < base->count; i++) {
        if (!push_file(x, tt_run_file_ref(base->files[i]))) {
            return no_memory(x->err);
        }
    }
    return 0;
}

static void end(struct extension *x)
{
    tt_builder_free(x->builder);
    for (size_t i = 0; i < x->count; i++) {
        tt_run_file_put(x->files[i]);
    }
    free(x->files);
    tt_index_set_put(x->base);
}

/* ---- runs -------------------------------------------------------------- */

/* A file that is being written */
struct output {
    uint8_t id[TT_INDEX_ID_SIZE];
    char name[TT_INDEX_NAME_SIZE];
    struct tt_run_output writer;
    int fd;
};

static int cannot_write(struct extension *x, int os_errno)
{
    x->os_errno = os_errno;
    return tt_fail(x->err, TT_EIO, os_errno, "%s: no index can be written: %s",
                   x->s->dir.path, strerror(os_errno));
}

static int output_begin(struct extension *x, struct output *o)
{
    tt_index_dir_new_id(o->id);
    o->fd = tt_index_dir_create(&x->s->dir, o->id, o->name);
    if (o->fd < 0) {
        return cannot_write(x, -o->fd);
    }
    if (tt_run_output_begin(&o->writer, o->fd) < 0) {
        close(o->fd);
        tt_index_dir_discard(&x->s->dir, o->name);
        return no_memory(x->err);
    }
    return 0;
}

/*
 * The file becomes a run of the index if @r, what its writer returned, is not
 * negative and @info not NULL.
 */
static int output_end(struct extension *x, struct output *o, int r,
                      const struct tt_run_info *info, struct tt_run_file **ret)
{
    char name[TT_INDEX_NAME_SIZE];
    int e = tt_run_output_end(&o->writer);

    if (e < 0) {
        r = cannot_write(x, -e);
    }
    if (r < 0 || !info) {
        close(o->fd);
        tt_index_dir_discard(&x->s->dir, o->name);
        return r;
    }
    tt_index_dir_run_name(o->id, name);
    e = tt_index_dir_finish(&x->s->dir, o->fd, o->name, name);
    if (e < 0) {
        close(o->fd);
        return cannot_write(x, -e);
    }
    return tt_run_file_open(o->fd, info, x->s->cache, ret, x->err);
}

static int write_run(struct extension *x)
{
    struct tt_catalog *catalog = tt_builder_catalog(x->builder);
    const struct tt_run_info *infos;
    struct tt_run_file *file = NULL;
    struct output o;
    size_t count;
    int r = output_begin(x, &o);

    if (r < 0) {
        return r;
    }
    r = tt_builder_write(x->builder, o.id, &o.writer.sink, x->err);
    infos = tt_catalog_runs(catalog, &count);
    /* Records that are no versions need no run. */
    r = output_end(
        x, &o, r, r == 0 && count > x->count ? &infos[count - 1] : NULL, &file);
    if (r < 0 || !file) {
        return r;
    }
    x->work->runs_written++;
    return push_file(x, file) ? 0 : no_memory(x->err);
}

static int merge(struct extension *x, size_t first, size_t count)
{
    struct tt_run **runs = calloc(count, sizeof(struct tt_run *));
    struct tt_run_file *file = NULL;
    struct tt_run_info info;
    struct output o;
    int r = runs ? output_begin(x, &o) : no_memory(x->err);

    if (r < 0) {
        free(runs);
        return r;
    }
    for (size_t i = 0; i < count; i++) {
        runs[i] = tt_run_file_run(x->files[first + i]);
    }
    r = tt_run_merge(runs, count, o.id, &o.writer.sink, &info, x->err);
    free(runs);
    r = output_end(x, &o, r, &info, &file);
    if (r < 0) {
        return r;
    }
    tt_catalog_merged(tt_builder_catalog(x->builder), first, count, &info);
    for (size_t i = 0; i < count; i++) {
        tt_run_file_put(x->files[first + i]);
    }
    x->files[first] = file;
    memmove(&x->files[first + 1], &x->files[first + count],
            (x->count - first - count) * sizeof(struct tt_run_file *));
    x->count -= count - 1;
    x->work->runs_merged += (unsigned)count;
    return 0;
}

/* ---- publishing -------------------------------------------------------- */

static bool is_named(void *opaque, const char *name)
{
    const struct tt_index_set *set = opaque;

    for (size_t i = 0; set && i < set->count; i++) {
        char run[TT_INDEX_NAME_SIZE];

        tt_index_dir_run_name(tt_run_info(set->runs[i])->id, run);
        if (!strcmp(run, name)) {
            return true;
        }
    }
    return false;
}

/* Puts the catalog into its file, whose identity is *ret_file. */
static int write_catalog(struct extension *x, const uint8_t *bytes,
                         size_t length, struct file_id *ret_file)
{
    const struct tt_index_dir *d = &x->s->dir;
    uint8_t id[TT_INDEX_ID_SIZE];
    char name[TT_INDEX_NAME_SIZE];
    struct stat st;
    int fd, r;

    tt_index_dir_new_id(id);
    fd = tt_index_dir_create(d, id, name);
    if (fd < 0) {
        return cannot_write(x, -fd);
    }
    r = tt_write_limited(fd, bytes, length, 0);
    if (r < 0) {
        tt_index_dir_discard(d, name);
    } else {
        r = tt_index_dir_finish(d, fd, name, TT_INDEX_CATALOG);
    }
    if (r == 0 && fstat(fd, &st) < 0) {
        r = -errno;
    }
    close(fd);
    if (r < 0) {
        return cannot_write(x, -r);
    }
    *ret_file = tt_file_id(&st);
    return 0;
}

/* What has been built is the index from now on. */
static int publish(struct extension *x)
{
    size_t length;
    uint8_t *bytes = tt_catalog_encode(tt_builder_catalog(x->builder), &length);
    struct tt_catalog *catalog = NULL;
    struct file_id file = { 0 };
    struct tt_index_set *set;
    int r = 0;

    if (!bytes) {
        return no_memory(x->err);
    }
    if (x->s->dir.fd >= 0) {
        r = write_catalog(x, bytes, length, &file);
    }
    if (r == 0) {
        r = tt_catalog_decode(bytes, length, &x->s->super, &catalog, x->err);
    }
    free(bytes);
    if (r < 0) {
        return r;
    }
    set = tt_set_new(catalog);
    if (!set) {
        return no_memory(x->err);
    }
    set->file = file;
    for (size_t i = 0; i < x->count; i++) {
        tt_set_add(set, tt_run_file_ref(x->files[i]));
    }
    tt_index_dir_clean(&x->s->dir, is_named, set);
    tt_store_install(x->s, set);
    x->work->grown = true;
    return 0;
}

/* ---- the work ---------------------------------------------------------- */

/* What waits becomes a run, and part of the index. */
static int settle(struct extension *x)
{
    size_t first, count;
    int r = write_run(x);

    while (r == 0 &&
           tt_merge_due(tt_builder_catalog(x->builder), &first, &count)) {
        r = merge(x, first, count);
    }
    return r == 0 ? publish(x) : r;
}

/* False: it is told to stop. */
static bool show(struct extension *x)
{
    struct tt_store_work *w = x->work;

    tt_builder_stats(x->builder, &w->stats);
    w->stopped = w->progress && !w->progress(w->opaque, &w->stats);
    return !w->stopped;
}

static int work(struct extension *x)
{
    int r = 0;

    while (r == 0) {
        r = tt_builder_fill(x->builder, x->err);
        if (r > 0) {
            r = 0;
            if (!show(x)) {
                return 0;
            }
        } else if (r == 0 && !tt_builder_pending(x->builder)) {
            break;
        } else if (r == 0) {
            r = settle(x);
        }
    }
    tt_builder_stats(x->builder, &x->work->stats);
    return r;
}

/* Is there enough to do? */
static int is_due(struct tt_store *s, const struct tt_store_work *w,
                  bool *ret_due, struct tt_error *err)
{
    struct extension x = { .s = s, .err = err };
    struct tt_builder_stats stats;
    uint64_t from = s->super.segments_offset;
    int r;

    if (s->set && tt_catalog_end_offset(s->set->catalog) > from) {
        from = tt_catalog_end_offset(s->set->catalog);
    }
    r = begin(&x, tt_store_get(s));
    if (r == 0) {
        r = tt_builder_look(x.builder, from + w->at_least, err);
    }
    if (r >= 0) {
        tt_builder_stats(x.builder, &stats);
        *ret_due = r > 0 && stats.journal_due >= from + w->at_least;
        r = 0;
    }
    end(&x);
    return r;
}

/* ---- the folder -------------------------------------------------------- */

static bool is_listed(const struct tt_store *s, const struct tt_index_set *set)
{
    struct file_id now;
    struct stat st;

    if (s->dir.fd < 0 || !set || !set->file.ino ||
        fstatat(s->dir.fd, TT_INDEX_CATALOG, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return false;
    }
    now = tt_file_id(&st);
    return now.dev == set->file.dev && now.ino == set->file.ino &&
           now.changed.tv_sec == set->file.changed.tv_sec &&
           now.changed.tv_nsec == set->file.changed.tv_nsec;
}

/* Is the folder that is open still where it was? */
static bool dir_is_there(const struct tt_store *s)
{
    struct stat a, b;

    return s->dir.fd < 0 ||
           (fstat(s->dir.fd, &a) == 0 && lstat(s->dir.path, &b) == 0 &&
            a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

static int need_dir(struct extension *x)
{
    struct tt_store *s = x->s;
    const char *where = s->folder ? s->folder : s->path;
    struct tt_index_dir d;
    int first = 0, r;

    if (s->dir.path && s->dir.writable && dir_is_there(s)) {
        return 0;
    }
    for (unsigned n = 0;; n++) {
        r = tt_index_dir_open(&(struct tt_file){ .fd = s->fd, .path = s->path },
                              s->super.uuid, s->folder, n, true, &d);
        if (r == 0 && d.writable) {
            tt_store_use_dir(s, &d);
            return 0;
        }
        if (r == -ERANGE) {
            break;
        }
        first = first ? first : r < 0 ? -r : EROFS;
        tt_index_dir_close(&d);
    }
    if (x->work->named) {
        return tt_fail(x->err, TT_EIO, first,
                       "%s: no index can be written there: %s: name another "
                       "folder for it",
                       where, strerror(first));
    }
    tt_index_dir_none(where, first, &d);
    tt_store_use_dir(s, &d);
    return 0;
}

/* What the index is now, whoever made it; *ret may be NULL. */
static int present(struct tt_store *s, struct tt_store_work *w,
                   struct tt_index_set **ret, struct tt_error *err)
{
    struct tt_index_set *set = NULL;
    int r;

    if (s->dir.fd < 0 || is_listed(s, s->set)) {
        *ret = tt_store_get(s);
        return 0;
    }
    r = tt_store_load(s, &s->dir, &set, err);
    if (r < 0 && r != -TT_EINDEX) {
        return r;
    }
    *ret = set;
    if (set && tt_set_covered(set) >= tt_set_covered(s->set)) {
        atomic_fetch_add(&set->users, 1);
        tt_store_install(s, set);
        w->grown = true;
    }
    return 0;
}

static int extend_locked(struct extension *x)
{
    struct tt_index_set *base;
    int r = present(x->s, x->work, &base, x->err);

    if (r == 0) {
        /* what one who was killed has left, or what does not fit */
        tt_index_dir_clean(&x->s->dir, is_named, base);
        r = begin(x, base);
    }
    return r == 0 ? work(x) : r;
}

static void forget(struct tt_store *s, const struct tt_index_set *set)
{
    if (is_listed(s, set)) {
        /* Without the lock: at worst a newer one is made anew, too. */
        unlinkat(s->dir.fd, TT_INDEX_CATALOG, 0);
    }
    if (s->dir.fd >= 0 && !s->dir.writable) {
        struct tt_index_dir none = { .fd = -1 };

        tt_store_use_dir(s, &none);
    }
    if (s->set == set) {
        tt_store_install(s, NULL);
    }
}

void tt_store_forget(struct tt_store *s, const struct tt_index_set *set)
{
    pthread_mutex_lock(&s->build);
    if (s->set == set) {
        forget(s, set);
    }
    pthread_mutex_unlock(&s->build);
}

/*
 * After a failure: is there another way?  A damaged set is forgotten, and a
 * folder that cannot be written is left.
 */
static bool can_retry(struct extension *x, int r)
{
    struct tt_store *s = x->s;
    struct tt_index_dir d = { .fd = -1 };

    if (r == -TT_EINDEX && x->base) {
        forget(s, x->base);
        return true;
    }
    if (!x->os_errno || s->dir.fd < 0) {
        return false;
    }
    if (dir_is_there(s)) {
        if (x->work->named) {
            return false;
        }
        tt_index_dir_none(s->dir.path, x->os_errno, &d);
    }
    tt_store_use_dir(s, &d);
    return true;
}

static int extend_once(struct extension *x)
{
    struct tt_store *s = x->s;
    int lock, r = need_dir(x);

    if (r < 0) {
        return r;
    }
    if (s->dir.fd < 0) {
        return extend_locked(x);
    }
    lock = tt_index_dir_lock(&s->dir, x->work->wait);
    if (lock == -EWOULDBLOCK) {
        struct tt_index_set *set = NULL;

        x->work->busy = true;
        r = present(s, x->work, &set, x->err);
        tt_index_set_put(set);
        return r;
    }
    if (lock < 0) {
        return cannot_write(x, -lock);
    }
    r = extend_locked(x);
    close(lock);
    return r;
}

int tt_store_extend(struct tt_store *s, struct tt_store_work *work,
                    struct tt_error *err)
{
    bool due = false;
    int r;

    work->busy = work->grown = work->stopped = false;
    work->runs_written = work->runs_merged = 0;
    work->stats = (struct tt_builder_stats){ 0 };
    pthread_mutex_lock(&s->build);
    r = is_due(s, work, &due, err);
    if (r == -TT_EINDEX && s->set) {
        forget(s, s->set);
        due = true;
        r = 0;
    }
    due |= work->at_least == 0 && s->dir.fd >= 0 && s->dir.writable;
    for (unsigned i = 0; r == 0 && due && i < TRIES; i++) {
        struct extension x = { .s = s, .work = work, .err = err };
        bool again;

        r = extend_once(&x);
        again = r < 0 && can_retry(&x, r);
        end(&x);
        if (!again) {
            break;
        }
        r = i + 1 < TRIES ? 0 : r;
    }
    pthread_mutex_unlock(&s->build);
    return r;
}
