/*
 * ttjournal umount: take mounted moments down
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "view.h"

static int take_down(const char *target)
{
    struct view v;
    int status = view_find(&v, target);

    if (status == EXIT_OK) {
        status = view_state(&v) == VIEW_ELSEWHERE
                     ? tool_fail(EXIT_NO_VIEW,
                                 "%s: is mounted in another mount namespace: "
                                 "unmount it there",
                                 target)
                     : view_down(&v);
        view_clear(&v);
    }
    return status;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, NULL, &argc, &argv, 1, G_MAXINT16);
    int first = status;

    if (status != EXIT_OK) {
        return status;
    }
    process_catch_signals();
    for (int i = 1; i < argc && !process_interrupted(); i++) {
        status = take_down(argv[i]);
        first = first != EXIT_OK ? first : status;
    }
    return first;
}

const struct tool_command cmd_umount = {
    .name = "umount",
    .synopsis = "DIR…",
    .summary = "Unmount what `ttjournal mount` has mounted",
    .examples = "  ttjournal umount /mnt/before /mnt/after\n",
    .run = run,
};
