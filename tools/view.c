/*
 * How does a past moment become a mounted directory, and cease to be one?
 *
 * serve.c makes a file or device of it, with a throw-away overlay above: a
 * file system that was in use at that moment has its journal replayed into the
 * overlay when it is mounted, as after a power cut.  fs.c mounts that
 * read-only, so that nobody can change anything; without replay there is no
 * overlay, and no way to write at all.  Or libguestfs does both (guest.c).
 *
 * Each step is noted in the run directory (state.c) once it is done, and
 * view_down() undoes what is noted, in reverse; so it also cleans up after a
 * `ttjournal mount` that was killed half-way.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "view.h"

/* How long what serves the file system may take to end once it is unmounted;
 * for libguestfs that is a virtual machine's end */
#define HELPER_END_MS 60000

/* ---- up ----------------------------------------------------------------- */

/* A program may call what it mounts otherwise than we have asked it to. */
static int adopt(struct view *v, const char *before)
{
    g_autofree char *topmost = view_topmost(v->target);

    if (topmost == NULL || g_strcmp0(topmost, before) == 0) {
        return EXIT_OK;
    }
    g_free(v->source);
    v->source = g_steal_pointer(&topmost);
    return view_save(v);
}

int view_start_helper(struct view *v, GPtrArray *argv, const char *const *env,
                      const char *input)
{
    g_autofree char *log = view_path(v, "log");
    g_autofree char *note = view_path(v, "helper");
    const struct process_how how = {
        .log = log,
        .note = note,
        .env = env,
        .input = input,
        .dies_with_us = v->is_private,
    };
    g_autofree char *before = view_topmost(v->target);
    int status = view_save(v); /* the source, before it is there */

    g_ptr_array_add(argv, NULL);
    if (status == EXIT_OK) {
        status =
            process_start((const char *const *)argv->pdata, &how, &v->helper);
    }
    while (status == EXIT_OK && !view_is_mounted(v->target, v->source)) {
        if (process_interrupted() || !process_alive(&v->helper)) {
            return view_server_failed(v, v->how ? v->how : argv->pdata[0]);
        }
        process_pause();
        status = guest_note_litter(v);
        if (status == EXIT_OK) {
            status = adopt(v, before);
        }
    }
    return status;
}

/* It must answer, and be mounted as was asked for. */
static int check_mount(const struct view *v)
{
    const unsigned long want = ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC;
    struct statvfs st;

    if (statvfs(v->target, &st) < 0) {
        return v->helper.pid > 0 && !process_alive(&v->helper)
                   ? view_server_failed(v, "mounting")
                   : tool_fail(EXIT_NO_VIEW, "%s: %s", v->target,
                               g_strerror(errno));
    }
    if ((st.f_flag & want) != want) {
        return tool_fail(EXIT_NO_VIEW,
                         "%s is not mounted ro,nosuid,nodev,noexec: that is a "
                         "bug",
                         v->target);
    }
    return EXIT_OK;
}

static void describe(struct view *v, const struct view_request *req)
{
    v->journal = g_strdup(req->disks[0].journal);
    v->seq = req->disks[0].seq;
    v->when = g_strdup(req->when);
}

static int build(struct view *v, const struct view_request *req)
{
    int status;

    describe(v, req);
    status = view_save(v);
    if (status == EXIT_OK && req->isolated) {
        status = guest_mount(v, req);
    } else if (status == EXIT_OK) {
        status = view_serve(v, req);
        if (status == EXIT_OK) {
            status = fs_mount(v, req);
        }
    }
    if (status == EXIT_OK) {
        status = check_mount(v);
    }
    if (status == EXIT_OK) {
        status = view_save(v);
    }
    if (status != EXIT_OK) {
        view_down(v);
    }
    return status;
}

int view_up(struct view *v, const struct view_request *req, const char *target)
{
    int status;

    *v = (struct view){ .device_fd = -1, .lock = -1 };
    view_find_plugin();
    v->target = view_canonical(target);
    if (v->target == NULL) {
        return tool_fail(EXIT_USAGE, "%s: %s", target, g_strerror(errno));
    }
    status = view_claim(v);
    if (status == EXIT_OK && !g_file_test(v->target, G_FILE_TEST_IS_DIR)) {
        status = tool_fail(EXIT_USAGE, "%s: is not a directory", target);
        view_forget(v);
    } else if (status == EXIT_OK) {
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
        return tool_fail(EXIT_NO_VIEW, "mounting privately: %s",
                         g_strerror(errno));
    }
    if (mount("ttjournal", base, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0700") < 0) {
        return tool_fail(EXIT_NO_VIEW, "%s: %s", base, g_strerror(errno));
    }
    return EXIT_OK;
}

/*
 * A view of this command's own.  Who is not root has no namespace of his own:
 * what is left behind by a kill, `ttjournal mounts` takes down.
 */
static int claim_private(struct view *v)
{
    g_autofree char *base = view_run_base();
    int status = base ? EXIT_OK : EXIT_IO;

    *v = (struct view){ .device_fd = -1, .lock = -1, .is_private = true };
    view_find_plugin();
    if (base != NULL && geteuid() == 0) {
        status = go_private(base);
    }
    if (status == EXIT_OK) {
        v->target = g_strdup_printf("%s/view-%d", base, (int)getpid());
        if (mkdir(v->target, 0700) < 0 && errno != EEXIST) {
            status = tool_fail(EXIT_IO, "%s: %s", v->target, g_strerror(errno));
        }
    }
    return status == EXIT_OK ? view_claim(v) : status;
}

int view_up_private(struct view *v, const struct view_request *req)
{
    int status = claim_private(v);

    if (status == EXIT_OK) {
        status = build(v, req);
    }
    if (status != EXIT_OK) {
        view_clear(v);
    }
    return status;
}

int view_up_file(struct view *v, const struct view_request *req)
{
    int status = claim_private(v);

    if (status == EXIT_OK) {
        describe(v, req);
        status = view_save(v);
    }
    if (status == EXIT_OK && !req->isolated) {
        status = view_serve(v, req);
        if (status != EXIT_OK) {
            view_down(v);
        }
    }
    if (status != EXIT_OK) {
        view_clear(v);
    }
    return status;
}

/* ---- down --------------------------------------------------------------- */

static int unmount_target(const struct view *v)
{
    g_autofree char *topmost = NULL;

    if (v->target == NULL || v->source == NULL ||
        !view_is_mounted(v->target, v->source)) {
        return EXIT_OK; /* by hand, or never mounted */
    }
    topmost = view_topmost(v->target);
    if (topmost != NULL && strcmp(topmost, v->source) != 0) {
        return tool_fail(EXIT_NO_VIEW,
                         "%s: %s is mounted over the view: unmount it first",
                         v->target, topmost);
    }
    if (view_unmount(v->target) < 0) {
        return tool_fail(EXIT_NO_VIEW, "%s: %s%s", v->target, g_strerror(errno),
                         errno == EBUSY ? ": `fuser -vm` shows who uses it"
                                        : "");
    }
    return EXIT_OK;
}

int view_down(struct view *v)
{
    bool mounted = v->target != NULL && v->source != NULL &&
                   view_is_mounted(v->target, v->source);
    int status = unmount_target(v);

    if (status == EXIT_OK) {
        guest_note_litter(v);
        process_end(&v->helper, mounted ? HELPER_END_MS : 0);
        guest_remove_litter(v);
        status = unmount_target(v); /* it may just have been mounting */
    }
    if (status == EXIT_OK) {
        status = view_unserve(v);
    }
    if (status == EXIT_OK && v->is_private && v->target != NULL) {
        rmdir(v->target);
    }
    return status == EXIT_OK ? view_forget(v) : status;
}
