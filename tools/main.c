/*
 * ttjournal: make, inspect and mount journals of disks
 *
 * Finds the subcommand and hands over; each is a file cmd-*.c with a
 * struct tool_command of its own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

static const struct tool_command *const commands[] = {
    &cmd_create,  &cmd_info,      &cmd_log,   &cmd_verify, &cmd_mark,
    &cmd_recover, &cmd_reconcile, &cmd_mount, &cmd_umount, &cmd_mounts,
    &cmd_cat,     &cmd_dump,      &cmd_index,
};

static void print_help(void)
{
    printf("Usage: ttjournal COMMAND [OPTION…] ARGUMENT…\n\n"
           "Inspects the journal of a virtual machine's disk and brings its "
           "past back.\n\nCommands:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        printf("  %-9s %s\n", commands[i]->name, commands[i]->summary);
    }
    printf("\nTIME is RFC 3339 with a zone (2026-11-20T12:00:00.5Z), "
           "@SECONDS[.FRACTION],\nseq:N, mark:NAME, latest, or relative "
           "(-15min).\n\nExit status:\n");
#define X(value, name, text) printf("  %-3d %s\n", value, text);
    TOOL_EXITS(X)
#undef X
    printf("\n`ttjournal COMMAND --help` shows options and examples; "
           "ttjournal(1) says more.\n");
}

static const struct tool_command *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const struct tool_command *command;

    setlocale(LC_CTYPE, ""); /* file names; numbers and times stay plain */
    if (argc < 2) {
        return tool_fail(EXIT_USAGE, "which command? try: ttjournal --help");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help();
        return tool_finish(EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("ttjournal %s (journal format %d)\n", PACKAGE_VERSION,
               TT_FORMAT_VERSION);
        return tool_finish(EXIT_OK);
    }
    command = find_command(argv[1]);
    if (command == NULL) {
        return tool_fail(
            EXIT_USAGE, "'%s' is not a command: try ttjournal --help", argv[1]);
    }
    return tool_finish(command->run(command, argc - 1, argv + 1));
}
