/*
 * ttjournal mount: a past moment as a directory
 *
 * The moment is bound to a sequence number first, so that what is mounted is
 * what is printed; view.c does the rest.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "list.h"
#include "view.h"

static gboolean opt_list, opt_json;

static const GOptionEntry own_options[] = {
    { "list", 'l', 0, G_OPTION_ARG_NONE, &opt_list,
      "Only list what is on the disk; DIR is left out", NULL },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "With --list: JSON", NULL },
};

/* Ours, then those that say which view is meant. */
static GArray *all_options(void)
{
    GArray *all = g_array_new(TRUE, TRUE, sizeof(GOptionEntry));
    unsigned n = 0;

    while (view_options[n].long_name != NULL) {
        n++;
    }
    g_array_append_vals(all, own_options, G_N_ELEMENTS(own_options));
    g_array_append_vals(all, view_options, n);
    return all;
}

/* Mounts, and says what was mounted. */
static int mount_moment(const struct view_request *req, const char *name,
                        const char *target)
{
    struct view v;
    int status = view_up(&v, req, target);

    if (status != EXIT_OK) {
        return status;
    }
    if (req->no_replay && req->isolated) {
        tool_warn("%s: strict: what the file system had only in its own "
                  "journal is not visible, however durable it was",
                  v.target);
    }
    printf("%s: %s@seq:%" PRIu64 "%s, %s, read-only, by %s\n", v.target, name,
           v.seq, req->when, v.fs_type ? v.fs_type : "in isolation", v.how);
    view_clear(&v);
    return EXIT_OK;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    g_autoptr(GArray) options = all_options();
    int status = tool_parse(command, (const GOptionEntry *)options->data, &argc,
                            &argv, 1, 2);
    g_autofree char *path = NULL, *text = NULL;
    struct view_request req;

    if (status == EXIT_OK && (opt_list ? argc != 2 : argc != 3)) {
        status =
            tool_fail(EXIT_USAGE, "usage: ttjournal mount [OPTION…] %s",
                      opt_list ? "--list JOURNAL@TIME" : command->synopsis);
    }
    if (status == EXIT_OK && opt_json && !opt_list) {
        status = tool_fail(EXIT_USAGE, "--json goes with --list");
    }
    if (status == EXIT_OK) {
        status = tool_split_moment(argv[1], &path, &text);
    }
    if (status == EXIT_OK) {
        process_catch_signals();
        status = view_request(&req, path, text);
    }
    if (status == EXIT_OK && opt_list && req.key != NULL) {
        view_request_clear(&req);
        status = tool_fail(EXIT_USAGE, "--list: opens nothing, and takes no "
                                       "key");
    }
    if (status == EXIT_OK) {
        status = opt_list ? list_view(&req, path, opt_json)
                          : mount_moment(&req, path, argv[2]);
        view_request_clear(&req);
    }
    return status;
}

const struct tool_command cmd_mount = {
    .name = "mount",
    .synopsis = "JOURNAL@TIME DIR",
    .summary = "Mount the disk as it was at a moment, read-only",
    .examples = "  ttjournal mount disk.ttj@2026-11-20T12:00:00Z /mnt/before\n"
                "  ttjournal mount --list disk.ttj@latest\n"
                "  ttjournal mount disk.ttj@latest /mnt/after --partition 1\n"
                "  ttjournal mount disk.ttj@latest /mnt/root --volume vg/root\n"
                "  diff -r /mnt/before /mnt/after\n",
    .run = run,
};
