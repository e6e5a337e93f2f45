/*
 * How does a past moment become a block device?
 *
 *   journal ─► nbdkit ttview ─► cow ─► nbdfuse ─► loop device
 *                            (overlay)  or the kernel's nbd
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
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop.h"
#include "view.h"

/* ---- what the server says ---------------------------------------------- */

/* The text behind "error: " in a line of nbdkit's or nbdfuse's, or NULL. */
static const char *complaint_in(const char *line)
{
    const char *p = strstr(line, "error: ");

    if (p != NULL) {
        return p + strlen("error: ");
    }
    return g_str_has_prefix(line, "nbdfuse: ") ? line : NULL;
}

char *view_complaint(const struct view *v)
{
    g_autofree char *path = view_path(v, "log");
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    const char *found = NULL;
    bool is_error;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return NULL;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL && found == NULL; line++) {
        found = complaint_in(*line);
    }
    is_error = found != NULL;
    /* else the last thing it said that was more than a warning */
    for (char **line = lines; !is_error && *line != NULL; line++) {
        if (**line != '\0' && strstr(*line, "warning: ") == NULL) {
            found = *line;
        }
    }
    return g_strdup(found);
}

static int server_failed(const struct view *v)
{
    g_autofree char *complaint = view_complaint(v);

    if (process_interrupted()) {
        return tool_fail(EXIT_NO_VIEW, "interrupted; everything is undone");
    }
    return tool_fail(EXIT_NO_VIEW, "serving the moment failed: %s",
                     complaint ? complaint : "the server ended");
}

/* ---- serving ----------------------------------------------------------- */

/* The plugin of the same build, or the installed one. */
static char *find_plugin(void)
{
    g_autofree char *exe = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = exe ? g_path_get_dirname(exe) : NULL;
    g_autofree char *plugin =
        dir ? g_build_filename(dir, "..", "nbd-plugin",
                               "nbdkit-ttview-plugin.so", NULL)
            : NULL;

    if (plugin != NULL && access(plugin, R_OK) == 0) {
        return g_steal_pointer(&plugin);
    }
    return g_strdup("ttview");
}

static void add(GPtrArray *argv, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void add(GPtrArray *argv, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_ptr_array_add(argv, g_strdup_vprintf(fmt, ap));
    va_end(ap);
}

/* The filters work on one export each: this nbdkit has no other. */
static void add_nbdkit(GPtrArray *argv, const struct view_request *req)
{
    g_autofree char *plugin = find_plugin();

    if (req->partition > 0) {
        add(argv, "--filter=partition");
    }
    if (!req->no_replay) {
        add(argv, "--filter=cow");
    }
    add(argv, "%s", plugin);
    add(argv, "journal=%s", req->journal);
    add(argv, "at=seq:%" PRIu64, req->seq);
    if (req->disk != NULL) {
        add(argv, "disk=%s", req->disk);
    }
    if (req->partition > 0) {
        add(argv, "partition=%u", req->partition);
    }
}

static int start_server(struct view *v, GPtrArray *argv)
{
    g_autofree char *log = view_path(v, "log");
    int status;

    g_ptr_array_add(argv, NULL);
    status = process_start((const char *const *)argv->pdata, log, v->is_private,
                           &v->server);
    return status == EXIT_OK ? view_save(v) : status;
}

/* Waits until @path is there, or the server has ended. */
static int await_file(const struct view *v, const char *path)
{
    while (access(path, F_OK) < 0) {
        if (process_interrupted() || !process_alive(&v->server)) {
            return server_failed(v);
        }
        process_pause();
    }
    return EXIT_OK;
}

/* nbdfuse makes a file of the export, a loop device makes a disk of that. */
static int serve_by_fuse(struct view *v, const struct view_request *req)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *dir = view_path(v, "fuse");
    g_autofree char *file = view_path(v, "fuse/disk");
    int status;

    if (mkdir(dir, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: %s", dir, g_strerror(errno));
    }
    add(argv, "nbdfuse");
    if (req->no_replay) {
        add(argv, "--readonly");
    }
    add(argv, "%s", file);
    add(argv, "--command"); /* a socket would be left if it was killed */
    add(argv, "nbdkit");
    add(argv, "--single");
    add(argv, "--exit-with-parent");
    add_nbdkit(argv, req);
    status = start_server(v, argv);
    if (status == EXIT_OK) {
        status = await_file(v, file);
    }
    if (status == EXIT_OK) {
        status = loop_attach(file, !req->no_replay, &v->device, &v->device_fd);
    }
    return status == EXIT_OK ? view_save(v) : status;
}

/* A device that no nbd client uses; NULL if there is none. */
static char *free_nbd_device(void)
{
    for (int i = 0; i < 256; i++) {
        g_autofree char *device = g_strdup_printf("/dev/nbd%d", i);
        g_autofree char *used = g_strdup_printf("/sys/block/nbd%d/pid", i);

        if (access(device, F_OK) < 0) {
            return NULL;
        }
        if (access(used, F_OK) < 0) {
            return g_steal_pointer(&device);
        }
    }
    return NULL;
}

static int attach_nbd(struct view *v, const char *socket, bool read_only)
{
    g_autofree char *device = free_nbd_device();
    g_autofree char *output = NULL;
    const char *argv[] = {
        "nbd-client", "-unix", socket, device, read_only ? "-readonly" : NULL,
        NULL
    };

    if (device == NULL) {
        return tool_fail(EXIT_NO_VIEW, "there is no free /dev/nbd device: "
                                       "modprobe nbd, or install nbdfuse");
    }
    if (process_run(argv, &output) != EXIT_OK) {
        return tool_fail(EXIT_NO_VIEW, "attaching %s: %s", device, output);
    }
    v->device = g_steal_pointer(&device);
    return view_save(v);
}

static int serve_by_nbd(struct view *v, const struct view_request *req)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *socket = view_path(v, "socket");
    g_autofree char *ready = view_path(v, "pid");
    int status;

    v->via_nbd = true;
    add(argv, "nbdkit");
    add(argv, "--foreground");
    if (v->is_private) {
        add(argv, "--exit-with-parent");
    }
    add(argv, "--unix=%s", socket);
    add(argv, "--pidfile=%s", ready); /* written when it listens */
    add_nbdkit(argv, req);
    status = start_server(v, argv);
    if (status == EXIT_OK) {
        status = await_file(v, ready);
    }
    return status == EXIT_OK ? attach_nbd(v, socket, req->no_replay) : status;
}

int view_serve(struct view *v, const struct view_request *req)
{
    g_autofree char *fuse = g_find_program_in_path("nbdfuse");
    const char *via = req->via ? req->via : fuse ? "nbdfuse" : "nbd";

    return strcmp(via, "nbd") == 0 ? serve_by_nbd(v, req)
                                   : serve_by_fuse(v, req);
}
