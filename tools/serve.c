/*
 * How does a past moment become a block device?
 *
 *   journal ─► nbdkit ttview ─► cow ─► nbdfuse ─► file ─► loop device
 *                 │          (overlay)
 *                 │            └────► the kernel's nbd
 *                 └─► socket ─► libguestfs, which has an overlay of its own
 *
 * One nbdkit per view, bound to seq:N, so that the view cannot move, and with
 * one export, which is what its filters take.  It is ready when the file of
 * nbdfuse is there, or the process id that nbdkit writes when it listens; it
 * may take as long as it takes to read the journal's history.  What it says
 * goes to the run directory's file "log", from where errors are reported.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop.h"
#include "nbd.h"
#include "view.h"

/* How long nbdfuse may take to end once it is unmounted */
#define SERVER_END_MS 5000
/* How long the kernel may hold the file of a loop device that was detached */
#define FUSE_BUSY_US (5 * G_USEC_PER_SEC)

/* ---- what the server says ---------------------------------------------- */

/* What says who speaks, in lines that tell why something failed. */
static const char *const speakers[] = { "nbdfuse: ", "fuse: ", "fusermount: ",
                                        "fusermount3: " };

/* The text behind "error: " in a line of a server's, or NULL. */
static const char *complaint_in(const char *line)
{
    const char *p = strstr(line, "error: ");

    if (p != NULL) {
        return p + strlen("error: ");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(speakers); i++) {
        if (g_str_has_prefix(line, speakers[i])) {
            return line;
        }
    }
    return NULL;
}

/* The lines of the log; NULL if there is none. */
static char **log_lines(const struct view *v)
{
    g_autofree char *path = view_path(v, "log");
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL)
               ? g_strsplit(text, "\n", -1)
               : NULL;
}

char *view_error(const struct view *v)
{
    g_auto(GStrv) lines = log_lines(v);
    const char *found = NULL;

    for (char **line = lines; line != NULL && *line != NULL && found == NULL;
         line++) {
        found = complaint_in(*line);
    }
    return g_strdup(found);
}

char *view_complaint(const struct view *v)
{
    g_auto(GStrv) lines = log_lines(v);
    const char *found = NULL;
    char *error = view_error(v);

    /* else the last thing it said that was more than a warning */
    for (char **line = lines; error == NULL && line != NULL && *line != NULL;
         line++) {
        if (**line != '\0' && strstr(*line, "warning: ") == NULL) {
            found = *line;
        }
    }
    return error ? error : g_strdup(found);
}

int view_server_failed(const struct view *v, const char *what)
{
    g_autofree char *complaint = view_complaint(v);

    if (process_interrupted()) {
        return tool_fail(EXIT_NO_VIEW, "interrupted; everything is undone");
    }
    return tool_fail(EXIT_NO_VIEW, "%s failed: %s", what,
                     complaint ? complaint : "the server ended");
}

/* ---- serving ----------------------------------------------------------- */

static char *plugin;

/* The plugin of the same build, or the installed one. */
static char *find_plugin(void)
{
    g_autofree char *exe = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = exe ? g_path_get_dirname(exe) : NULL;
    g_autofree char *built =
        dir ? g_build_filename(dir, "..", "nbd-plugin",
                               "nbdkit-ttview-plugin.so", NULL)
            : NULL;

    if (built != NULL && access(built, R_OK) == 0) {
        return g_steal_pointer(&built);
    }
    return g_strdup("ttview");
}

void view_find_plugin(void)
{
    if (plugin == NULL) {
        plugin = find_plugin();
    }
}

void argv_add(GPtrArray *argv, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_ptr_array_add(argv, g_strdup_vprintf(fmt, ap));
    va_end(ap);
}

/*
 * The filters work on one export each: this nbdkit has no other.  The overlay
 * is left out where nothing may be replayed, and where another follows.
 */
static void add_nbdkit(GPtrArray *argv, const struct view_request *req,
                       unsigned i, bool overlay)
{
    const struct view_disk *disk = &req->disks[i];
    bool cut = req->partition > 0 && i == 0;

    if (cut) {
        argv_add(argv, "--filter=partition");
    }
    if (overlay) {
        argv_add(argv, "--filter=cow");
    }
    argv_add(argv, "%s", plugin);
    argv_add(argv, "journal=%s", disk->journal);
    argv_add(argv, "at=seq:%" PRIu64, disk->seq);
    if (disk->live != NULL) {
        argv_add(argv, "disk=%s", disk->live);
    }
    if (cut) {
        argv_add(argv, "partition=%u", req->partition);
    }
}

static int start_server(struct view *v, unsigned i, GPtrArray *argv)
{
    g_autofree char *log = view_path(v, "log");
    g_autofree char *name = g_strdup_printf("server%u", i);
    g_autofree char *note = view_path(v, name);
    const struct process_how how = {
        .log = log,
        .note = note,
        .dies_with_us = v->is_private,
    };

    g_ptr_array_add(argv, NULL);
    return process_start((const char *const *)argv->pdata, &how,
                         &v->servers[i]);
}

/* Waits until @path is there, or server @i has ended. */
static int await_file(const struct view *v, unsigned i, const char *path)
{
    while (access(path, F_OK) < 0) {
        if (process_interrupted() || !process_alive(&v->servers[i])) {
            return view_server_failed(v, "serving the moment");
        }
        process_pause();
    }
    return EXIT_OK;
}

/* ---- a file, and a loop device over it ---------------------------------- */

/* Remembers the nbdkit behind nbdfuse, whose pid file is there by now. */
static void find_backend(struct view *v, const char *pid_file)
{
    g_autofree char *text = NULL;

    if (g_file_get_contents(pid_file, &text, NULL, NULL)) {
        v->backend = process_of((pid_t)g_ascii_strtoll(text, NULL, 10));
    }
}

static int serve_by_fuse(struct view *v, const struct view_request *req)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *dir = view_path(v, "fuse");
    g_autofree char *file = view_path(v, "fuse/disk");
    g_autofree char *pid_file = view_path(v, "pid0");
    int status;

    if (access("/dev/fuse", R_OK | W_OK) < 0) {
        return tool_fail(EXIT_NO_VIEW,
                         "/dev/fuse cannot be opened, which serving a moment "
                         "takes: %s",
                         g_strerror(errno));
    }
    if (mkdir(dir, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: %s", dir, g_strerror(errno));
    }
    argv_add(argv, "nbdfuse");
    if (req->no_replay) {
        argv_add(argv, "--readonly");
    }
    argv_add(argv, "%s", file);
    argv_add(argv, "--command"); /* a socket would be left if it was killed */
    argv_add(argv, "nbdkit");
    argv_add(argv, "--single");
    argv_add(argv, "--exit-with-parent");
    argv_add(argv, "--pidfile=%s", pid_file);
    add_nbdkit(argv, req, 0, !req->no_replay);
    status = start_server(v, 0, argv);
    if (status == EXIT_OK) {
        status = await_file(v, 0, file);
    }
    if (status == EXIT_OK) {
        find_backend(v, pid_file);
        v->file = g_steal_pointer(&file);
        status = view_save(v);
    }
    return status;
}

int view_open_served(const struct view *v, uint64_t *ret_size)
{
    const char *path = v->file ? v->file : v->device;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (size < 0) {
        tool_fail(EXIT_NO_VIEW, "%s: %s", path, g_strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    *ret_size = (uint64_t)size;
    return fd;
}

int view_attach(struct view *v, bool writable)
{
    int status;

    if (v->device != NULL) {
        return EXIT_OK;
    }
    status = loop_attach(v->file, writable, &v->device, &v->device_fd);
    return status == EXIT_OK ? view_save(v) : status;
}

/* ---- sockets ------------------------------------------------------------ */

char *view_socket(const struct view *v, unsigned i)
{
    g_autofree char *name = g_strdup_printf("socket%u", i);

    return view_path(v, name);
}

static int serve_socket(struct view *v, const struct view_request *req,
                        unsigned i, bool overlay)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *socket = view_socket(v, i);
    g_autofree char *name = g_strdup_printf("pid%u", i);
    g_autofree char *ready = view_path(v, name);
    int status;

    /* nbdkit (1.32 at least) in the foreground ends with its parent, also
     * without being told so: then it must not be us */
    if (!v->is_private) {
        argv_add(argv, "sh");
        argv_add(argv, "-c");
        argv_add(argv, "\"$@\" & wait");
        argv_add(argv, "sh");
    }
    argv_add(argv, "nbdkit");
    argv_add(argv, "--exit-with-parent");
    argv_add(argv, "--unix=%s", socket);
    argv_add(argv, "--pidfile=%s", ready); /* written when it listens */
    add_nbdkit(argv, req, i, overlay);
    status = start_server(v, i, argv);
    return status == EXIT_OK ? await_file(v, i, ready) : status;
}

int view_serve_sockets(struct view *v, const struct view_request *req)
{
    int status = EXIT_OK;

    for (unsigned i = 0; i < req->n_disks && status == EXIT_OK; i++) {
        status = serve_socket(v, req, i, false);
    }
    return status;
}

static int serve_by_nbd(struct view *v, const struct view_request *req)
{
    g_autofree char *socket = view_socket(v, 0);
    int status = serve_socket(v, req, 0, !req->no_replay);

    return status == EXIT_OK ? nbd_attach(v, socket, req->no_replay) : status;
}

int view_serve(struct view *v, const struct view_request *req)
{
    g_autofree char *fuse = g_find_program_in_path("nbdfuse");
    bool nbd = req->via ? strcmp(req->via, "nbd") == 0
                        : fuse == NULL && geteuid() == 0;

    return nbd ? serve_by_nbd(v, req) : serve_by_fuse(v, req);
}

/* ---- the end ------------------------------------------------------------ */

static int detach_device(struct view *v)
{
    int status = EXIT_OK;

    if (v->device_fd >= 0) {
        close(v->device_fd);
        v->device_fd = -1;
    }
    if (v->device != NULL) {
        status = v->nbd_owner ? nbd_detach(v) : loop_detach(v->device, v->file);
    }
    if (status == EXIT_OK) {
        g_clear_pointer(&v->device, g_free);
        g_clear_pointer(&v->nbd_owner, g_free);
    }
    return status;
}

int view_unmount(const char *dir)
{
    g_autofree char *output = NULL;
    const char *argv[] = { "fusermount3", "-u", dir, NULL };

    if (geteuid() == 0) {
        return umount2(dir, UMOUNT_NOFOLLOW);
    }
    if (process_succeeds(argv, &output)) {
        return 0;
    }
    /* it tells its caller no more than that it failed */
    errno = output != NULL && strstr(output, "busy") ? EBUSY : EPERM;
    return -1;
}

static int unmount_fuse(const struct view *v)
{
    gint64 deadline = g_get_monotonic_time() + FUSE_BUSY_US;
    g_autofree char *dir = view_path(v, "fuse");
    g_autofree char *what = view_topmost(dir);

    while (what != NULL && view_unmount(dir) < 0) {
        if (errno != EBUSY || g_get_monotonic_time() > deadline) {
            return tool_fail(EXIT_NO_VIEW, "%s: %s", dir, g_strerror(errno));
        }
        process_pause();
    }
    return EXIT_OK;
}

int view_unserve(struct view *v)
{
    int status = detach_device(v);

    if (status == EXIT_OK) {
        status = unmount_fuse(v);
    }
    if (status != EXIT_OK) {
        return status;
    }
    for (unsigned i = 0; i < VIEW_DISKS; i++) {
        process_end(&v->servers[i], v->file != NULL ? SERVER_END_MS : 0);
    }
    process_end(&v->backend, SERVER_END_MS);
    g_clear_pointer(&v->file, g_free);
    return unmount_fuse(v); /* nbdfuse may just have been mounting */
}
