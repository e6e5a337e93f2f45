/*
 * ttjournal umount: take a mounted moment down
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "view.h"

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, NULL, &argc, &argv, 1, 1);
    struct view v;

    if (status == EXIT_OK) {
        status = view_find(&v, argv[1]);
    }
    if (status != EXIT_OK) {
        return status;
    }
    status = view_down(&v);
    view_clear(&v);
    return status;
}

const struct tool_command cmd_umount = {
    .name = "umount",
    .synopsis = "DIR",
    .summary = "Unmount what `ttjournal mount` has mounted",
    .examples = "  ttjournal umount /mnt/before\n",
    .run = run,
};
