/*
 * ttjournal mount: a past moment as a directory
 *
 * The moment is bound to a sequence number here, so that what is mounted is
 * what is printed; view.c does the rest.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "view.h"

static gchar *opt_disk, *opt_tz, *opt_via;
static gint opt_partition;
static gboolean opt_no_replay;

static const GOptionEntry entries[] = {
    { "disk", 'd', 0, G_OPTION_ARG_STRING, &opt_disk,
      "Where the live disk is: a raw image, a device or an NBD URI", "WHERE" },
    { "partition", 'p', 0, G_OPTION_ARG_INT, &opt_partition,
      "Mount this partition of the disk", "N" },
    { "no-replay", 0, 0, G_OPTION_ARG_NONE, &opt_no_replay,
      "Mount strictly what lay on the disk; the file system's own journal is "
      "not replayed",
      NULL },
    { "via", 0, 0, G_OPTION_ARG_STRING, &opt_via,
      "How to make a block device of it", "nbdfuse|nbd" },
    { "tz", 0, 0, G_OPTION_ARG_STRING, &opt_tz, "Zone of times that have none",
      "ZONE" },
    { NULL },
};

/* Mounts, and says what was mounted. */
static int mount_moment(const struct view_request *req, const char *name,
                        const char *when, const char *target)
{
    struct view v;
    int status = view_up(&v, req, target);

    if (status != EXIT_OK) {
        return status;
    }
    if (req->no_replay) {
        tool_warn("%s: strict: what the file system had only in its own "
                  "journal is not visible, however durable it was",
                  target);
    }
    printf("%s: %s@seq:%" PRIu64 "%s, %s, read-only%s\n", v.target, name,
           req->seq, when, v.fs_type,
           req->no_replay ? "" : ", its journal replayed into an overlay");
    view_clear(&v);
    return EXIT_OK;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 2, 2);
    g_autofree char *path = NULL, *text = NULL, *when = NULL, *absolute = NULL;
    struct view_request req;

    if (status == EXIT_OK) {
        status = view_check_options(opt_partition, opt_via);
    }
    if (status == EXIT_OK) {
        status = tool_split_moment(argv[1], &path, &text);
    }
    if (status != EXIT_OK) {
        return status;
    }
    absolute = realpath(path, NULL); /* the server may not be where we are */
    req = (struct view_request){
        .journal = absolute ? absolute : path,
        .disk = opt_disk,
        .partition = (unsigned)opt_partition,
        .no_replay = opt_no_replay,
        .via = opt_via,
    };
    process_catch_signals();
    status = view_bind(&req, text, opt_tz, &when);
    return status == EXIT_OK ? mount_moment(&req, path, when, argv[2]) : status;
}

const struct tool_command cmd_mount = {
    .name = "mount",
    .synopsis = "JOURNAL@TIME DIR",
    .summary = "Mount the disk as it was at a moment, read-only",
    .examples = "  ttjournal mount disk.ttj@2026-11-20T12:00:00Z /mnt/before\n"
                "  ttjournal mount disk.ttj@latest /mnt/after --partition 1\n"
                "  diff -r /mnt/before /mnt/after\n",
    .run = run,
};
