/*
 * How does a past moment become a mounted directory, and cease to be one?
 *
 * serve.c makes a block device of it, with a throw-away overlay above: a file
 * system that was in use at that moment has its journal replayed into the
 * overlay when it is mounted, as after a power cut.  The mount is read-only
 * all the same (file systems replay on a read-only mount if the device is
 * writable), so nobody can change anything.  Without replay there is no
 * overlay, and no way to write at all.
 *
 * Each step is noted in the run directory's file "state" once it is done, and
 * view_down() undoes what is noted, in reverse; so it also cleans up after a
 * `ttjournal mount` that was killed half-way.  The run directory's name comes
 * from the target's, and making it is what excludes a second mount there.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop.h"
#include "view.h"

#define STATE_GROUP "view"
/* How long nbdfuse may take to end once it is unmounted */
#define SERVER_END_MS 5000
/* How long the kernel may hold the file of a loop device that was detached */
#define FUSE_BUSY_US (5 * G_USEC_PER_SEC)

char *view_path(const struct view *v, const char *name)
{
    return g_build_filename(v->run_dir, name, NULL);
}

/* ---- what was done so far ---------------------------------------------- */

char *view_run_base(void)
{
    if (geteuid() == 0) {
        return g_strdup("/run/ttjournal");
    }
    return g_build_filename(g_get_user_runtime_dir(), "ttjournal", NULL);
}

static char *run_dir_of(const char *target)
{
    g_autofree char *base = view_run_base();
    g_autofree char *hash =
        g_compute_checksum_for_string(G_CHECKSUM_SHA256, target, -1);

    hash[16] = '\0';
    return g_build_filename(base, hash, NULL);
}

int view_save(const struct view *v)
{
    g_autofree char *path = view_path(v, "state");
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) error = NULL;

    g_key_file_set_string(file, STATE_GROUP, "target", v->target);
    g_key_file_set_string(file, STATE_GROUP, "device",
                          v->device ? v->device : "");
    g_key_file_set_boolean(file, STATE_GROUP, "via-nbd", v->via_nbd);
    g_key_file_set_integer(file, STATE_GROUP, "server", v->server.pid);
    g_key_file_set_uint64(file, STATE_GROUP, "server-start", v->server.start);
    if (!g_key_file_save_to_file(file, path, &error)) {
        return tool_fail(EXIT_IO, "%s", error->message);
    }
    return EXIT_OK;
}

static void state_load(struct view *v)
{
    g_autofree char *path = view_path(v, "state");
    g_autoptr(GKeyFile) file = g_key_file_new();

    /* none: the mount was killed before it had started anything */
    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL)) {
        return;
    }
    v->device = g_key_file_get_string(file, STATE_GROUP, "device", NULL);
    if (v->device != NULL && v->device[0] == '\0') {
        g_clear_pointer(&v->device, g_free);
    }
    v->via_nbd = g_key_file_get_boolean(file, STATE_GROUP, "via-nbd", NULL);
    v->server.pid = g_key_file_get_integer(file, STATE_GROUP, "server", NULL);
    v->server.start =
        g_key_file_get_uint64(file, STATE_GROUP, "server-start", NULL);
}

void view_clear(struct view *v)
{
    if (v->device_fd >= 0) {
        close(v->device_fd);
    }
    g_free(v->run_dir);
    g_free(v->target);
    g_free(v->device);
    g_free(v->fs_type);
    *v = (struct view){ .device_fd = -1 };
}

/* ---- mounting ---------------------------------------------------------- */

/* One NAME=VALUE of blkid's "export" output; NULL if it is not there. */
static char *blkid_value(const char *output, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(output, "\n", -1);
    size_t length = strlen(name);

    for (char **line = lines; *line != NULL; line++) {
        if (strncmp(*line, name, length) == 0 && (*line)[length] == '=') {
            return g_strdup(*line + length + 1);
        }
    }
    return NULL;
}

static int find_fs(struct view *v, const struct view_request *req)
{
    const char *argv[] = { "blkid", "-p", "-o", "export", v->device, NULL };
    g_autofree char *output = NULL, *usage = NULL, *table = NULL;

    process_run(argv, &output); /* fails when it finds nothing */
    v->fs_type = blkid_value(output, "TYPE");
    usage = blkid_value(output, "USAGE");
    table = blkid_value(output, "PTTYPE");
    if (v->fs_type != NULL && g_strcmp0(usage, "filesystem") == 0) {
        return EXIT_OK;
    }
    if (v->fs_type != NULL) {
        return tool_fail(EXIT_NO_VIEW,
                         "%s holds no file system but %s: serve it with "
                         "`nbdkit ttview` and open it there",
                         req->partition ? "the partition" : "the disk",
                         v->fs_type);
    }
    if (table != NULL) {
        return tool_fail(EXIT_NO_VIEW,
                         "the disk has a partition table (%s): say which one "
                         "with --partition N",
                         table);
    }
    return tool_fail(EXIT_NO_VIEW,
                     "%s holds no file system that is known "
                     "here, at that moment",
                     req->partition ? "the partition" : "the disk");
}

static char *mount_options(const struct view *v, const struct view_request *req)
{
    GString *s = g_string_new("ro,nosuid,nodev,noexec");

    if (strcmp(v->fs_type, "xfs") == 0) { /* twins may be mounted */
        g_string_append(s, ",nouuid");
    }
    if (req->no_replay && g_str_has_prefix(v->fs_type, "ext")) {
        g_string_append(s, ",noload");
    } else if (req->no_replay && strcmp(v->fs_type, "xfs") == 0) {
        g_string_append(s, ",norecovery");
    } else if (req->no_replay && strcmp(v->fs_type, "btrfs") == 0) {
        g_string_append(s, ",rescue=nologreplay");
    }
    return g_string_free(s, FALSE);
}

static int mount_device(struct view *v, const struct view_request *req)
{
    g_autofree char *options = mount_options(v, req);
    g_autofree char *output = NULL;
    const char *argv[] = { "mount", "-t",      v->fs_type, "-o",
                           options, v->device, v->target,  NULL };

    if (process_run(argv, &output) != EXIT_OK) {
        g_strdelimit(output, "\n", ' ');
        return tool_fail(EXIT_NO_VIEW, "mounting %s failed: %s", v->fs_type,
                         output);
    }
    if (v->device_fd >= 0) { /* the mount holds the device from now on */
        close(v->device_fd);
        v->device_fd = -1;
    }
    return EXIT_OK;
}

static int build(struct view *v, const struct view_request *req)
{
    int status = view_save(v);

    if (status == EXIT_OK) {
        status = view_serve(v, req);
    }
    if (status == EXIT_OK) {
        status = find_fs(v, req);
    }
    if (status == EXIT_OK && process_interrupted()) {
        status = tool_fail(EXIT_NO_VIEW, "interrupted; everything is undone");
    }
    if (status == EXIT_OK) {
        status = mount_device(v, req);
    }
    if (status != EXIT_OK) {
        view_down(v);
    }
    return status;
}

static int make_run_dir(struct view *v)
{
    g_autofree char *base = view_run_base();

    if (g_mkdir_with_parents(base, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: cannot be made: %s", base,
                         g_strerror(errno));
    }
    if (mkdir(v->run_dir, 0700) == 0) {
        return EXIT_OK;
    }
    if (errno == EEXIST) {
        return tool_fail(EXIT_EXISTS,
                         "%s: a view is mounted there already, or was: "
                         "`ttjournal umount` it first",
                         v->target);
    }
    return tool_fail(EXIT_IO, "%s: cannot be made: %s", v->run_dir,
                     g_strerror(errno));
}

int view_up(struct view *v, const struct view_request *req, const char *target)
{
    int status;

    *v = (struct view){ .device_fd = -1, .target = realpath(target, NULL) };
    if (v->target == NULL || !g_file_test(v->target, G_FILE_TEST_IS_DIR)) {
        status =
            tool_fail(EXIT_USAGE, "%s: %s", target,
                      v->target ? "is not a directory" : g_strerror(errno));
        view_clear(v);
        return status;
    }
    v->run_dir = run_dir_of(v->target);
    status = make_run_dir(v);
    if (status == EXIT_OK) {
        status = build(v, req);
    }
    if (status != EXIT_OK) {
        view_clear(v);
    }
    return status;
}

/*
 * A mount namespace of our own, with a file system in memory over the run
 * directory: however we end, the kernel takes all of it away.
 */
static int go_private(const char *base)
{
    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return tool_fail(EXIT_NO_VIEW, "mounting privately: %s%s",
                         g_strerror(errno),
                         geteuid() == 0 ? "" : " (mounting takes root)");
    }
    if (g_mkdir_with_parents(base, 0700) < 0 ||
        mount("ttjournal", base, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0700") < 0) {
        return tool_fail(EXIT_NO_VIEW, "%s: %s", base, g_strerror(errno));
    }
    return EXIT_OK;
}

int view_up_private(struct view *v, const struct view_request *req)
{
    g_autofree char *base = view_run_base();
    int status = go_private(base);

    *v = (struct view){ .device_fd = -1, .is_private = true };
    if (status != EXIT_OK) {
        return status;
    }
    v->run_dir = g_build_filename(base, "cat", NULL);
    v->target = view_path(v, "view");
    if (mkdir(v->run_dir, 0700) < 0 || mkdir(v->target, 0700) < 0) {
        status = tool_fail(EXIT_IO, "%s: %s", v->run_dir, g_strerror(errno));
    } else {
        status = build(v, req);
    }
    if (status != EXIT_OK) {
        view_clear(v);
    }
    return status;
}

/* ---- taking down ------------------------------------------------------- */

int view_find(struct view *v, const char *target)
{
    struct stat st;
    int status = EXIT_OK;

    *v = (struct view){ .device_fd = -1, .target = realpath(target, NULL) };
    if (v->target == NULL) {
        return tool_fail(EXIT_USAGE, "%s: %s", target, g_strerror(errno));
    }
    v->run_dir = run_dir_of(v->target);
    if (stat(v->run_dir, &st) < 0) {
        status = tool_fail(EXIT_USAGE,
                           "%s: `ttjournal mount` has mounted no view there",
                           target);
    } else if (st.st_uid != geteuid()) {
        status = tool_fail(EXIT_NO_VIEW, "%s: is not ours", v->run_dir);
    }
    if (status != EXIT_OK) {
        view_clear(v);
        return status;
    }
    state_load(v);
    return EXIT_OK;
}

/* The device that is mounted topmost at @target; NULL if nothing is. */
static char *mounted_device(const char *target)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    struct mntent *entry;
    char *device = NULL;

    while (f != NULL && (entry = getmntent(f)) != NULL) {
        if (strcmp(entry->mnt_dir, target) == 0) {
            g_free(device);
            device = g_strdup(entry->mnt_fsname);
        }
    }
    if (f != NULL) {
        endmntent(f);
    }
    return device;
}

static int unmount_target(const struct view *v)
{
    g_autofree char *device = mounted_device(v->target);

    if (device == NULL || v->device == NULL) {
        return EXIT_OK; /* by hand, or never mounted */
    }
    if (strcmp(device, v->device) != 0) {
        return tool_fail(EXIT_NO_VIEW,
                         "%s: %s is mounted over the view: unmount it first",
                         v->target, device);
    }
    if (umount2(v->target, UMOUNT_NOFOLLOW) < 0) {
        return tool_fail(EXIT_NO_VIEW, "%s: %s%s", v->target, g_strerror(errno),
                         errno == EBUSY ? ": `fuser -vm` shows who uses it"
                                        : "");
    }
    return EXIT_OK;
}

static int detach_device(struct view *v)
{
    g_autofree char *output = NULL;
    const char *argv[] = { "nbd-client", "-d", v->device, NULL };
    int status;

    if (v->device_fd >= 0) {
        close(v->device_fd);
        v->device_fd = -1;
    }
    if (v->device == NULL) {
        return EXIT_OK;
    }
    if (v->via_nbd) {
        status = process_run(argv, &output);
        if (status != EXIT_OK) {
            status =
                tool_fail(EXIT_NO_VIEW, "detaching %s: %s", v->device, output);
        }
    } else {
        status = loop_detach(v->device);
    }
    if (status == EXIT_OK) {
        g_clear_pointer(&v->device, g_free);
    }
    return status;
}

static int unmount_once(const char *dir)
{
    g_autofree char *output = NULL;
    const char *argv[] = { "fusermount3", "-u", dir, NULL };

    if (geteuid() == 0) {
        return umount2(dir, UMOUNT_NOFOLLOW);
    }
    errno = EBUSY;
    return process_run(argv, &output) == EXIT_OK ? 0 : -1;
}

static int unmount_fuse(const struct view *v)
{
    gint64 deadline = g_get_monotonic_time() + FUSE_BUSY_US;
    g_autofree char *dir = view_path(v, "fuse");
    g_autofree char *mounted = mounted_device(dir);

    while (mounted != NULL && unmount_once(dir) < 0) {
        if (errno != EBUSY || g_get_monotonic_time() > deadline) {
            return tool_fail(EXIT_NO_VIEW, "%s: %s", dir, g_strerror(errno));
        }
        process_pause();
    }
    return EXIT_OK;
}

static int remove_run_dir(const struct view *v)
{
    static const char *const files[] = { "state", "log", "pid", "socket" };

    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = view_path(v, files[i]);

        unlink(path);
    }
    if (v->is_private) {
        rmdir(v->target);
    }
    g_autofree char *fuse = view_path(v, "fuse");
    rmdir(fuse);
    if (rmdir(v->run_dir) < 0 && errno != ENOENT) {
        return tool_fail(EXIT_NO_VIEW, "%s: %s", v->run_dir, g_strerror(errno));
    }
    return EXIT_OK;
}

int view_down(struct view *v)
{
    int status = unmount_target(v);

    if (status == EXIT_OK) {
        status = detach_device(v);
    }
    if (status == EXIT_OK) {
        status = unmount_fuse(v);
    }
    if (status != EXIT_OK) {
        return status;
    }
    process_end(&v->server, v->via_nbd ? 0 : SERVER_END_MS);
    return remove_run_dir(v);
}
