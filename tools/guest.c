/*
 * How is a file system read that no driver of this machine should touch, or
 * can?
 *
 * By libguestfs: a small virtual machine that has the disks, finds partitions,
 * RAID and LVM in them, mounts, and hands the files out by FUSE.  Each disk
 * comes by a socket from an nbdkit of its own; libguestfs puts an overlay over
 * each, which is where journals are replayed.  The host parses nothing of the
 * disk.  No root is needed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "view.h"

static bool can_fuse(void)
{
    return access("/dev/fuse", R_OK | W_OK) == 0;
}

static bool has(const char *program)
{
    g_autofree char *path = g_find_program_in_path(program);

    return path != NULL;
}

const char *guest_missing(void)
{
    if (!has("guestmount")) {
        return "guestmount is not installed (libguestfs; Debian's package is "
               "guestmount)";
    }
    return can_fuse() ? NULL : "/dev/fuse cannot be opened";
}

/* The disks as libguestfs' programs take them. */
static void add_disks(GPtrArray *argv, const struct view *v,
                      const struct view_request *req)
{
    argv_add(argv, "--ro");
    argv_add(argv, "--format=raw");
    for (unsigned i = 0; i < req->n_disks; i++) {
        g_autofree char *socket = view_socket(v, i);
        g_autofree char *escaped = g_uri_escape_string(
            socket, G_URI_RESERVED_CHARS_ALLOWED_IN_PATH, FALSE);

        argv_add(argv, "--add=nbd://?socket=%s", escaped);
    }
}

/* Where it keeps the virtual machine's files, for all to come. */
static const char *cache_dir(void)
{
    const char *dir = g_getenv("LIBGUESTFS_CACHEDIR");

    dir = dir ? dir : g_getenv("TMPDIR");
    return dir ? dir : "/var/tmp";
}

/* Whatever else it makes goes with the run directory. */
static char **environment(const struct view *v, char **ret_dir)
{
    char **env = g_new0(char *, 4);
    char *dir = view_path(v, "tmp");

    env[0] = g_strdup_printf("LIBGUESTFS_TMPDIR=%s", dir);
    env[1] = g_strdup_printf("XDG_RUNTIME_DIR=%s", dir);
    env[2] = g_strdup_printf("LIBGUESTFS_CACHEDIR=%s", cache_dir());
    *ret_dir = dir;
    return env;
}

/* ---- sockets ------------------------------------------------------------ */

/* The folder of libguestfs' socket in a command line of QEMU's, or NULL. */
static char *socket_dir(const char *cmdline, gsize length)
{
    static const char name[] = "/guestfsd.sock";
    const char *end = memmem(cmdline, length, name, strlen(name));
    const char *start = end;

    while (start != NULL && start > cmdline && start[-1] != '=' &&
           start[-1] != '\0') {
        start--;
    }
    return start && *start == '/' ? g_strndup(start, (gsize)(end - start))
                                  : NULL;
}

/*
 * For root it makes its sockets in /tmp, whatever we say, and if it is killed
 * they stay: remember where, as long as QEMU's command line tells.
 */
static void find_litter(struct view *v)
{
    g_autofree char *path = g_strdup_printf(
        "/proc/%d/task/%d/children", (int)v->helper.pid, (int)v->helper.pid);
    g_autofree char *text = NULL;
    g_auto(GStrv) children = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return;
    }
    children = g_strsplit(text, " ", -1);
    for (char **c = children; *c != NULL && v->litter == NULL; c++) {
        g_autofree char *file = g_strdup_printf("/proc/%s/cmdline", *c);
        g_autofree char *cmdline = NULL;
        gsize length;

        if (**c != '\0' && g_file_get_contents(file, &cmdline, &length, NULL)) {
            v->litter = socket_dir(cmdline, length);
        }
    }
}

int guest_note_litter(struct view *v)
{
    if (v->litter != NULL || g_strcmp0(v->how, "libguestfs") != 0 ||
        !process_alive(&v->helper)) {
        return EXIT_OK;
    }
    find_litter(v);
    return v->litter ? view_save(v) : EXIT_OK;
}

void guest_remove_litter(struct view *v)
{
    static const char *const names[] = { "guestfsd.sock", "console.sock",
                                         "qmp.sock" };
    g_autofree char *name = v->litter ? g_path_get_basename(v->litter) : NULL;

    if (name == NULL || !g_str_has_prefix(name, "libguestfs")) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(v->litter, names[i], NULL);

        unlink(path);
    }
    rmdir(v->litter); /* it did so itself unless it was killed */
}

/* ---- mounting, listing -------------------------------------------------- */

static char *device_name(const struct view_request *req)
{
    if (req->volume == NULL) {
        return g_strdup("/dev/sda");
    }
    return req->volume[0] == '/' ? g_strdup(req->volume)
                                 : g_strdup_printf("/dev/%s", req->volume);
}

static int start_guestmount(struct view *v, const struct view_request *req,
                            const char *const *env)
{
    static const char *const safe[] = { "ro", "nosuid", "nodev", "noexec" };
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *device = device_name(req);
    g_autofree char *name = g_path_get_basename(v->run_dir);

    v->source = g_strdup_printf("ttjournal-%s", name);
    argv_add(argv, "guestmount");
    argv_add(argv, "--no-fork");
    add_disks(argv, v, req);
    /* norecovery: what ext3, ext4, XFS, f2fs and nilfs2 understand; of
     * which kind it is only the virtual machine knows */
    argv_add(argv, "--mount=%s:/:ro%s", device,
             req->no_replay ? ",norecovery" : "");
    for (size_t i = 0; i < G_N_ELEMENTS(safe); i++) {
        argv_add(argv, "-o"); /* it takes one at a time */
        argv_add(argv, "%s", safe[i]);
    }
    argv_add(argv, "-o");
    argv_add(argv, "fsname=%s", v->source);
    argv_add(argv, "%s", v->target);
    return view_start_helper(v, argv, env);
}

int guest_mount(struct view *v, const struct view_request *req)
{
    g_autofree char *dir = NULL;
    g_auto(GStrv) env = environment(v, &dir);
    const char *missing = guest_missing();
    int status;

    if (missing != NULL) {
        return tool_fail(EXIT_NO_VIEW, "%s", missing);
    }
    if (mkdir(dir, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: %s", dir, g_strerror(errno));
    }
    g_free(v->how);
    v->how = g_strdup("libguestfs");
    status = view_serve_sockets(v, req);
    if (status == EXIT_OK) {
        status = start_guestmount(v, req, (const char *const *)env);
    }
    return status;
}

int guest_list(struct view *v, const struct view_request *req, char **ret)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *dir = NULL;
    g_auto(GStrv) env = environment(v, &dir);
    int status;

    *ret = NULL;
    if (!has("guestfish")) {
        return tool_fail(EXIT_NO_VIEW, "guestfish is not installed "
                                       "(libguestfs; Debian's package is "
                                       "guestfish)");
    }
    if (mkdir(dir, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: %s", dir, g_strerror(errno));
    }
    status = view_serve_sockets(v, req);
    if (status != EXIT_OK) {
        return status;
    }
    for (char **e = env; *e != NULL; e++) {
        g_auto(GStrv) pair = g_strsplit(*e, "=", 2);

        g_setenv(pair[0], pair[1], TRUE);
    }
    argv_add(argv, "guestfish");
    add_disks(argv, v, req);
    argv_add(argv, "run");
    argv_add(argv, ":");
    argv_add(argv, "list-filesystems");
    g_ptr_array_add(argv, NULL);
    if (!process_succeeds((const char *const *)argv->pdata, ret)) {
        g_strdelimit(*ret, "\n", ' ');
        return tool_fail(EXIT_NO_VIEW, "libguestfs failed: %s", *ret);
    }
    return EXIT_OK;
}
