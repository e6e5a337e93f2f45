/*
 * How does a later command know what a view consists of?
 *
 * Each view has a run directory.  Its name comes from the target's, and making
 * it is what excludes a second mount there.  Its file "state" notes each step
 * once it is done, and the processes write who they are into notes of their
 * own before they become what they are.
 *
 * Whoever changes a view holds a lock on its directory.  The kernel drops that
 * when the holder dies, and a process that was just forked holds it until its
 * note is written: so whoever gets the lock finds all that was made in state
 * and notes, also behind a `ttjournal mount` that was killed half-way.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "view.h"

#define STATE_GROUP "view"

char *view_path(const struct view *v, const char *name)
{
    return g_build_filename(v->run_dir, name, NULL);
}

/* ---- places ------------------------------------------------------------- */

/* Below a directory that all may write to: it must really be ours. */
static char *base_in_tmp(void)
{
    char *base =
        g_strdup_printf("%s/ttjournal-%d", g_get_tmp_dir(), (int)geteuid());
    struct stat st;

    if (mkdir(base, 0700) < 0 && errno != EEXIST) {
        tool_fail(EXIT_IO, "%s: cannot be made: %s", base, g_strerror(errno));
    } else if (lstat(base, &st) < 0 || !S_ISDIR(st.st_mode) ||
               st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        tool_fail(EXIT_IO, "%s: is not a directory of ours alone", base);
    } else {
        return base;
    }
    g_free(base);
    return NULL;
}

static char *find_base(void)
{
    const char *run = g_getenv("XDG_RUNTIME_DIR");
    char *base;

    if (geteuid() == 0) {
        base = g_strdup("/run/ttjournal");
    } else if (run != NULL && access(run, W_OK) == 0) {
        base = g_build_filename(run, "ttjournal", NULL);
    } else {
        return base_in_tmp();
    }
    if (g_mkdir_with_parents(base, 0700) < 0) {
        tool_fail(EXIT_IO, "%s: cannot be made: %s", base, g_strerror(errno));
        g_clear_pointer(&base, g_free);
    }
    return base;
}

char *view_run_base(void)
{
    g_autofree char *base = find_base();

    /* as the kernel will name it */
    return base ? realpath(base, NULL) : NULL;
}

char *view_canonical(const char *dir)
{
    char *path = realpath(dir, NULL);
    int e = errno;
    g_autofree char *parent = NULL, *name = NULL, *real = NULL;

    /* what a dead server has left there cannot even be looked at */
    if (path != NULL || (e != ENOTCONN && e != EIO)) {
        return path;
    }
    parent = g_path_get_dirname(dir);
    name = g_path_get_basename(dir);
    real = realpath(parent, NULL);
    errno = e;
    return real ? g_build_filename(real, name, NULL) : NULL;
}

static char *run_dir_of(const char *base, const char *target)
{
    g_autofree char *hash =
        g_compute_checksum_for_string(G_CHECKSUM_SHA256, target, -1);

    hash[16] = '\0';
    return g_build_filename(base, hash, NULL);
}

static char *our_namespace(void)
{
    return g_file_read_link("/proc/self/ns/mnt", NULL);
}

/* ---- the file "state" --------------------------------------------------- */

/*
 * Names of files are any bytes, and GKeyFile gives back only what is UTF-8: so
 * texts are escaped.
 */
static void save_text(GKeyFile *file, const char *name, const char *value)
{
    g_autofree char *escaped = value ? g_strescape(value, NULL) : NULL;

    if (escaped != NULL) {
        g_key_file_set_string(file, STATE_GROUP, name, escaped);
    }
}

static char *load_text(GKeyFile *file, const char *name)
{
    g_autofree char *escaped =
        g_key_file_get_string(file, STATE_GROUP, name, NULL);

    return escaped ? g_strcompress(escaped) : NULL;
}

/* The members that are text. */
#define TEXTS(X)                                                               \
    X(target)                                                                  \
    X(source)                                                                  \
    X(device)                                                                  \
    X(nbd_owner)                                                               \
    X(file) X(litter) X(mount_namespace) X(journal) X(when) X(fs_type) X(how)

int view_save(const struct view *v)
{
    g_autofree char *path = view_path(v, "state");
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) error = NULL;

#define X(name) save_text(file, #name, v->name);
    TEXTS(X)
#undef X
    g_key_file_set_uint64(file, STATE_GROUP, "seq", v->seq);
    g_key_file_set_boolean(file, STATE_GROUP, "private", v->is_private);
    g_key_file_set_integer(file, STATE_GROUP, "backend", v->backend.pid);
    g_key_file_set_uint64(file, STATE_GROUP, "backend_start", v->backend.start);
    if (!g_key_file_save_to_file(file, path, &error)) {
        return tool_fail(EXIT_IO, "%s", error->message);
    }
    return EXIT_OK;
}

static void load(struct view *v)
{
    g_autofree char *path = view_path(v, "state");
    g_autofree char *helper = view_path(v, "helper");
    g_autoptr(GKeyFile) file = g_key_file_new();

    /* none: the mount was killed before it had started anything */
    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL)) {
        return;
    }
#define X(name)                                                                \
    g_free(v->name);                                                           \
    v->name = load_text(file, #name);
    TEXTS(X)
#undef X
    v->seq = g_key_file_get_uint64(file, STATE_GROUP, "seq", NULL);
    v->is_private = g_key_file_get_boolean(file, STATE_GROUP, "private", NULL);
    v->backend.pid = g_key_file_get_integer(file, STATE_GROUP, "backend", NULL);
    v->backend.start =
        g_key_file_get_uint64(file, STATE_GROUP, "backend_start", NULL);
    v->helper = process_noted(helper);
    for (unsigned i = 0; i < VIEW_DISKS; i++) {
        g_autofree char *name = g_strdup_printf("server%u", i);
        g_autofree char *note = view_path(v, name);

        v->servers[i] = process_noted(note);
    }
}

void view_clear(struct view *v)
{
    if (v->device_fd >= 0) {
        close(v->device_fd);
    }
    if (v->lock >= 0) {
        close(v->lock);
    }
#define X(name) g_free(v->name);
    TEXTS(X)
#undef X
    g_free(v->run_dir);
    *v = (struct view){ .device_fd = -1, .lock = -1 };
}

/* ---- locks -------------------------------------------------------------- */

/* Is what we have open still what has that name? */
static bool same_place(int fd, const char *path)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/*
 * Locks @dir: a descriptor, or -1 with errno: ENOENT if it is gone,
 * EWOULDBLOCK if somebody is at work on it.
 */
static int lock_dir(const char *dir, bool wait)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int r, e;

    if (fd < 0) {
        return -1;
    }
    do {
        r = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
    } while (r < 0 && errno == EINTR && !process_interrupted());
    e = errno;
    if (r == 0 && same_place(fd, dir)) {
        return fd;
    }
    close(fd);
    errno = r < 0 ? e : ENOENT;
    return -1;
}

int view_open(struct view *v, const char *run_dir, bool wait)
{
    *v = (struct view){ .device_fd = -1, .lock = lock_dir(run_dir, wait) };
    if (v->lock < 0) {
        return errno == EWOULDBLOCK || errno == EINTR ? EXIT_LOCKED
                                                      : EXIT_USAGE;
    }
    v->run_dir = g_strdup(run_dir);
    load(v);
    return EXIT_OK;
}

/* What is in the way is taken down if it serves nobody any more. */
static int clear_the_way(const struct view *v)
{
    struct view old;
    int status = view_open(&old, v->run_dir, true);

    if (status == EXIT_LOCKED) {
        return tool_fail(EXIT_NO_VIEW, "%s: interrupted", v->target);
    }
    if (status != EXIT_OK) {
        return EXIT_OK; /* gone meanwhile */
    }
    switch (view_state(&old)) {
    case VIEW_LEFTOVER:
    case VIEW_BROKEN:
        status = view_down(&old);
        break;
    case VIEW_ELSEWHERE:
        status = tool_fail(EXIT_EXISTS,
                           "%s: a view is mounted there in another mount "
                           "namespace",
                           v->target);
        break;
    default:
        status = tool_fail(EXIT_EXISTS,
                           "%s: a view is mounted there already: "
                           "`ttjournal umount` it first",
                           v->target);
    }
    view_clear(&old);
    return status;
}

int view_claim(struct view *v)
{
    g_autofree char *base = view_run_base();
    int status = base ? EXIT_OK : EXIT_IO;

    if (base != NULL) {
        v->run_dir = run_dir_of(base, v->target);
        v->mount_namespace = our_namespace();
    }
    while (status == EXIT_OK) {
        if (mkdir(v->run_dir, 0700) == 0) {
            v->lock = lock_dir(v->run_dir, false);
            if (v->lock >= 0) {
                return EXIT_OK;
            }
            /* somebody took it for a leftover, and now it is gone: again */
        } else if (errno == EEXIST) {
            status = clear_the_way(v);
        } else {
            status = tool_fail(EXIT_IO, "%s: cannot be made: %s", v->run_dir,
                               g_strerror(errno));
        }
    }
    return status;
}

int view_find(struct view *v, const char *target)
{
    g_autofree char *real = view_canonical(target);
    g_autofree char *base = NULL, *run_dir = NULL;
    int status;

    *v = (struct view){ .device_fd = -1, .lock = -1 };
    if (real == NULL) {
        return tool_fail(EXIT_USAGE, "%s: %s", target, g_strerror(errno));
    }
    base = view_run_base();
    if (base == NULL) {
        return EXIT_IO;
    }
    run_dir = run_dir_of(base, real);
    status = view_open(v, run_dir, true);
    if (status == EXIT_LOCKED) {
        return tool_fail(status, "%s: interrupted", target);
    }
    if (status != EXIT_OK) {
        return tool_fail(
            status, "%s: `ttjournal mount` has mounted no view there", target);
    }
    if (v->target == NULL) {
        v->target = g_steal_pointer(&real);
    }
    return EXIT_OK;
}

/* ---- what is there now -------------------------------------------------- */

static char *mounted(const char *target, const char *source)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    struct mntent *entry;
    char *found = NULL;

    while (f != NULL && (entry = getmntent(f)) != NULL) {
        if (strcmp(entry->mnt_dir, target) == 0 &&
            (source == NULL || strcmp(entry->mnt_fsname, source) == 0)) {
            g_free(found);
            found = g_strdup(entry->mnt_fsname);
        }
    }
    if (f != NULL) {
        endmntent(f);
    }
    return found;
}

bool view_is_mounted(const char *target, const char *source)
{
    g_autofree char *found = mounted(target, source);

    return found != NULL;
}

char *view_topmost(const char *target)
{
    return mounted(target, NULL);
}

/* How many of its processes are left? */
static unsigned count_alive(const struct view *v, unsigned *ret_all)
{
    const struct process *others[] = { &v->helper, &v->backend };
    unsigned alive = 0;

    *ret_all = 0;
    for (unsigned i = 0; i < VIEW_DISKS + G_N_ELEMENTS(others); i++) {
        const struct process *p =
            i < VIEW_DISKS ? &v->servers[i] : others[i - VIEW_DISKS];

        *ret_all += p->pid > 0;
        alive += p->pid > 0 && process_alive(p);
    }
    return alive;
}

enum view_state view_state(const struct view *v)
{
    g_autofree char *here = our_namespace();
    unsigned all, alive = count_alive(v, &all);

    if (v->target == NULL || alive == 0 || v->mount_namespace == NULL ||
        g_strcmp0(v->mount_namespace, here) == 0) {
        if (v->source == NULL || v->target == NULL ||
            !view_is_mounted(v->target, v->source)) {
            return VIEW_LEFTOVER;
        }
        return alive == all ? VIEW_MOUNTED : VIEW_BROKEN;
    }
    return VIEW_ELSEWHERE;
}

/* ---- the end ------------------------------------------------------------ */

/* How long a server that has been ended may go on making files */
#define FORGET_US (10 * G_USEC_PER_SEC)

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int view_forget(struct view *v)
{
    gint64 deadline = g_get_monotonic_time() + FORGET_US;

    /*
     * An nbdkit that nobody had noted yet ends by itself, and may have made
     * its pid file while we were at it: then again.  Once the directory is
     * gone it can make none.
     *
     * Not with FTW_MOUNT: overlayfs gives files another device than folders.
     * Nothing is mounted in there any more, or it stays, being in use.
     */
    while (nftw(v->run_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0) {
        int e = errno;

        if (access(v->run_dir, F_OK) < 0 && errno == ENOENT) {
            break;
        }
        if ((e != ENOTEMPTY && e != ENOENT) ||
            g_get_monotonic_time() > deadline) {
            return tool_fail(EXIT_NO_VIEW, "%s: %s", v->run_dir, g_strerror(e));
        }
        process_pause();
    }
    return EXIT_OK;
}
