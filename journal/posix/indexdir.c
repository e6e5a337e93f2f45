/*
 * The folder of an index: where is it, who may change it, and what is left
 * when its maker is killed?
 *
 * An index is a cache.  It lies beside its journal, as JOURNAL.index, where all
 * who may read the journal find it; where nobody can write there, in the
 * cache of the user who needs it; and where there is no room at all, in files
 * without a name, which are as good for one process.  Folders that are shared
 * by journals have a folder for each, whose name is the journal's UUID.
 *
 * What may be there after a kill or a power cut: files that no list names
 * (they are removed by the next one who has the lock), or a list whose files
 * are not whole (their checksums say so).  A file is never changed once it has
 * its final name, so whoever has it open goes on reading what he found.
 *
 * An index says what an image held.  So a folder counts only if it is ours,
 * the journal's owner's or root's, and nobody else may write in it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "indexdir.h"

#define SUFFIX ".index"
#define LOCK "lock"
#define NAME_DIGITS (2 * TT_INDEX_ID_SIZE)

/* ---- finding the folder ------------------------------------------------ */

static char *uuid_name(const uint8_t uuid[TT_UUID_SIZE])
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < TT_UUID_SIZE; i++) {
        g_string_append_printf(s, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                               uuid[i]);
    }
    return g_string_free(s, FALSE);
}

/* Who may read the journal may read its index; only its maker writes it. */
static mode_t folder_mode(const struct stat *journal)
{
    mode_t read = journal->st_mode & (S_IRGRP | S_IROTH);

    return 0700 | read | read >> 2;
}

/*
 * A folder that was just made becomes readable for those who may read the
 * journal, and root makes it for whom the journal belongs to, who could not
 * extend it otherwise.  If that fails it still serves us.
 */
static void share_folder(const char *path, const struct stat *journal)
{
    if ((geteuid() == 0 &&
         lchown(path, journal->st_uid, journal->st_gid) < 0) ||
        chmod(path, folder_mode(journal)) < 0) {
        errno = 0;
    }
}

/* 0, or -errno: it cannot be used. */
static int open_folder(const char *path, const struct stat *journal, bool make,
                       struct tt_index_dir *d)
{
    struct stat st;
    int fd, r = 0;

    if (make && mkdir(path, 0700) == 0) {
        share_folder(path, journal);
    } else if (make && errno != EEXIST) {
        return -errno;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &st) < 0) {
        r = -errno;
    } else if ((st.st_uid != geteuid() && st.st_uid != 0 &&
                st.st_uid != journal->st_uid) ||
               (st.st_mode & (S_IWGRP | S_IWOTH))) {
        r = -EPERM;
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    *d = (struct tt_index_dir){ .fd = fd, .path = g_strdup(path) };
    d->writable = faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0;
    return 0;
}

/* A block device lies in /dev, which is no place for files. */
static int open_beside(const struct tt_file *journal, const struct stat *st,
                       bool make, struct tt_index_dir *d)
{
    char *real = S_ISREG(st->st_mode) ? realpath(journal->path, NULL) : NULL;
    g_autofree char *path = real ? g_strconcat(real, SUFFIX, NULL) : NULL;

    free(real);
    return path ? open_folder(path, st, make, d) : -ENOTSUP;
}

static int open_below(const char *folder, const uint8_t uuid[TT_UUID_SIZE],
                      const struct stat *st, bool make, struct tt_index_dir *d)
{
    g_autofree char *name = uuid_name(uuid);
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return open_folder(path, st, make, d);
}

static int open_cache(const uint8_t uuid[TT_UUID_SIZE], const struct stat *st,
                      bool make, struct tt_index_dir *d)
{
    g_autofree char *folder =
        g_build_filename(g_get_user_cache_dir(), "ttjournal", NULL);

    if (!g_path_is_absolute(folder)) {
        return -ENOENT;
    }
    if (make && g_mkdir_with_parents(folder, 0700) < 0) {
        return -errno;
    }
    return open_below(folder, uuid, st, make, d);
}

int tt_index_dir_check(const char *folder, struct tt_error *err)
{
    struct stat st;
    int e = stat(folder, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;

    return e ? tt_fail(err, TT_EINVAL, e,
                       "%s: no folder that an index could be in: %s", folder,
                       strerror(e))
             : 0;
}

int tt_index_dir_open(const struct tt_file *journal,
                      const uint8_t uuid[TT_UUID_SIZE], const char *folder,
                      unsigned n, bool make, struct tt_index_dir *ret)
{
    struct stat st;

    *ret = (struct tt_index_dir){ .fd = -1 };
    if (n >= (folder ? 1 : 2)) {
        return -ERANGE;
    }
    if (fstat(journal->fd, &st) < 0) {
        return -errno;
    }
    if (folder) {
        return open_below(folder, uuid, &st, make, ret);
    }
    return n == 0 ? open_beside(journal, &st, make, ret)
                  : open_cache(uuid, &st, make, ret);
}

void tt_index_dir_none(const char *where, int os_errno,
                       struct tt_index_dir *ret)
{
    const char *tmp = getenv("TMPDIR");

    *ret = (struct tt_index_dir){ .fd = -1, .writable = true };
    ret->path = g_strdup(tmp && tmp[0] ? tmp : "/var/tmp");
    snprintf(ret->note, sizeof(ret->note),
             "%.200s: no index can be written there (%s): it is in %.200s as "
             "long as it is needed, and has to be made anew next time",
             where, strerror(os_errno), ret->path);
}

void tt_index_dir_close(struct tt_index_dir *d)
{
    if (d->fd >= 0) {
        close(d->fd);
    }
    g_free(d->path);
    *d = (struct tt_index_dir){ .fd = -1 };
}

/* ---- the lock ---------------------------------------------------------- */

/* Is the file that is locked still the one that others would lock? */
static bool still_named(const struct tt_index_dir *d, int fd)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 &&
           fstatat(d->fd, LOCK, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int lock_once(const struct tt_index_dir *d, bool wait)
{
    int fd =
        openat(d->fd, LOCK,
               O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    int r;

    if (fd < 0) {
        return -errno;
    }
    do {
        r = flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

int tt_index_dir_lock(const struct tt_index_dir *d, bool wait)
{
    if (d->fd < 0) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
    }
    for (;;) {
        int fd = lock_once(d, wait);

        if (fd < 0 || still_named(d, fd)) {
            return fd;
        }
        close(fd);
    }
}

/* ---- files ------------------------------------------------------------- */

void tt_index_dir_new_id(uint8_t ret_id[TT_INDEX_ID_SIZE])
{
    guint32 words[TT_INDEX_ID_SIZE / 4];

    /* Only a kernel that is still starting has none yet. */
    if (getrandom(words, sizeof(words), 0) != (ssize_t)sizeof(words)) {
        for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
            words[i] = g_random_int();
        }
    }
    memcpy(ret_id, words, TT_INDEX_ID_SIZE);
}

static void name_of(const char *prefix, const uint8_t id[TT_INDEX_ID_SIZE],
                    char ret_name[static TT_INDEX_NAME_SIZE])
{
    size_t n = (size_t)snprintf(ret_name, TT_INDEX_NAME_SIZE, "%s", prefix);

    for (unsigned i = 0; i < TT_INDEX_ID_SIZE; i++, n += 2) {
        snprintf(ret_name + n, TT_INDEX_NAME_SIZE - n, "%02x", id[i]);
    }
}

void tt_index_dir_run_name(const uint8_t id[TT_INDEX_ID_SIZE],
                           char ret_name[static TT_INDEX_NAME_SIZE])
{
    name_of("run-", id, ret_name);
}

int tt_index_dir_open_file(const struct tt_index_dir *d, const char *name,
                           uint64_t *ret_size)
{
    struct stat st;
    int fd, r = 0;

    if (d->fd < 0) {
        return -ENOENT;
    }
    fd = openat(d->fd, name,
                O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &st) < 0) {
        r = -errno;
    } else if (!S_ISREG(st.st_mode)) {
        r = -EINVAL;
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_size = (uint64_t)st.st_size;
    return fd;
}

static int create_nameless(const char *folder)
{
    g_autofree char *path = NULL;
    int fd = open(folder, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);

    if (fd >= 0) {
        return fd;
    }
    path = g_build_filename(folder, "ttjournal-XXXXXX", NULL);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        unlink(path);
        return fd;
    }
    fd = memfd_create("ttjournal-index", MFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static mode_t file_mode(const struct tt_index_dir *d)
{
    struct stat st;

    return fstat(d->fd, &st) < 0 ? 0600
                                 : 0600 | (st.st_mode & (S_IRGRP | S_IROTH));
}

int tt_index_dir_create(const struct tt_index_dir *d,
                        const uint8_t id[TT_INDEX_ID_SIZE],
                        char ret_name[static TT_INDEX_NAME_SIZE])
{
    struct stat st;
    int fd;

    ret_name[0] = '\0';
    if (d->fd < 0) {
        return create_nameless(d->path);
    }
    if (!d->writable) {
        return -EROFS;
    }
    name_of("new-", id, ret_name);
    fd = openat(d->fd, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    /* As for the folder: it may stay root's and private. */
    if (geteuid() == 0 && fstat(d->fd, &st) == 0 &&
        fchown(fd, st.st_uid, st.st_gid) < 0) {
        errno = 0;
    }
    if (fchmod(fd, file_mode(d)) < 0) {
        errno = 0;
    }
    return fd;
}

int tt_index_dir_finish(const struct tt_index_dir *d, int fd, const char *name,
                        const char *to)
{
    int r = 0;

    if (d->fd < 0) {
        return 0; /* gone with the process anyway */
    }
    if (fsync(fd) < 0 || renameat(d->fd, name, d->fd, to) < 0 ||
        fsync(d->fd) < 0) {
        r = -errno;
        tt_index_dir_discard(d, name);
    }
    return r;
}

void tt_index_dir_discard(const struct tt_index_dir *d, const char *name)
{
    if (d->fd >= 0) {
        unlinkat(d->fd, name, 0); /* else the next clean-up does it */
    }
}

static bool is_ours(const char *name)
{
    return (!strncmp(name, "run-", 4) || !strncmp(name, "new-", 4)) &&
           strspn(name + 4, "0123456789abcdef") == NAME_DIGITS &&
           name[4 + NAME_DIGITS] == '\0';
}

void tt_index_dir_clean(const struct tt_index_dir *d, tt_index_keep *keep,
                        void *opaque)
{
    int fd = d->fd < 0 ? -1 : openat(d->fd, ".", O_RDONLY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (!dir) {
        if (fd >= 0) {
            close(fd);
        }
        return; /* what is left takes room, and harms nobody */
    }
    while ((e = readdir(dir))) {
        if (is_ours(e->d_name) && !keep(opaque, e->d_name)) {
            unlinkat(d->fd, e->d_name, 0);
        }
    }
    closedir(dir);
}
