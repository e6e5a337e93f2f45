/*
 * ttjournal mounts: which moments are mounted?
 *
 * What a killed command, a killed server or an umount by hand has left of a
 * view is taken down on the way.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "view.h"

static gboolean opt_json;

static const GOptionEntry entries[] = {
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json,
      "Print JSON, one object per line", NULL },
    { NULL },
};

static void print_json(const struct view *v, const char *state)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    json_string(b, "target", v->target);
    json_string(b, "state", state);
    json_string(b, "journal", v->journal);
    json_int(b, "seq", v->seq);
    if (v->fs_type != NULL) {
        json_string(b, "type", v->fs_type);
    }
    json_string(b, "by", v->how);
    if (v->device != NULL) {
        json_string(b, "device", v->device);
    }
    json_builder_end_object(b);
    json_print(b, false);
}

static void print_text(const struct view *v, const char *state)
{
    g_autofree char *target = tool_visible(v->target, strlen(v->target));
    g_autofree char *journal =
        v->journal ? tool_visible(v->journal, strlen(v->journal))
                   : g_strdup("?");

    printf("%s: %s@seq:%" PRIu64 "%s, %s, by %s%s%s\n", target, journal, v->seq,
           v->when ? v->when : "", v->fs_type ? v->fs_type : "in isolation",
           v->how ? v->how : "?", state[0] ? ", " : "", state);
}

static void print(const struct view *v, const char *state, const char *remark)
{
    if (opt_json) {
        print_json(v, state);
    } else {
        print_text(v, remark);
    }
}

/* What cannot serve any more is taken down, if nobody is in it. */
static int clean(struct view *v)
{
    bool was_mounted = v->source != NULL && v->target != NULL &&
                       view_is_mounted(v->target, v->source);
    g_autofree char *target = g_strdup(v->target ? v->target : v->run_dir);
    int status = view_down(v);

    if (status == EXIT_OK) {
        tool_warn("%s: %s; it is cleaned up", target,
                  was_mounted ? "what served the view has ended"
                              : "it is not mounted any more");
    } else if (was_mounted) {
        print(v, "broken", "broken: what served it has ended");
    }
    return status;
}

static int show(struct view *v)
{
    switch (view_state(v)) {
    case VIEW_MOUNTED:
        print(v, "mounted", "");
        return EXIT_OK;
    case VIEW_ELSEWHERE:
        print(v, "elsewhere", "in another mount namespace");
        return EXIT_OK;
    default:
        return clean(v);
    }
}

/* The names of run directories: other things may lie beside them. */
static bool is_run_dir(const char *name)
{
    return strlen(name) == 16 &&
           strspn(name, "0123456789abcdef") == strlen(name);
}

static int show_all(GDir *dir, const char *base)
{
    const char *name;
    int first = EXIT_OK;

    while ((name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *path = g_build_filename(base, name, NULL);
        struct view v;
        int status = EXIT_OK;

        /* what is locked is being made or unmade just now */
        if (is_run_dir(name) && view_open(&v, path, false) == EXIT_OK) {
            status = show(&v);
            view_clear(&v);
        }
        first = first != EXIT_OK ? first : status;
    }
    return first;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 0, 0);
    g_autofree char *base = status == EXIT_OK ? view_run_base() : NULL;
    g_autoptr(GError) error = NULL;
    GDir *dir;

    if (base == NULL) {
        return status != EXIT_OK ? status : EXIT_IO;
    }
    process_catch_signals();
    dir = g_dir_open(base, 0, &error);
    if (dir == NULL) {
        return tool_fail(EXIT_IO, "%s", error->message);
    }
    status = show_all(dir, base);
    g_dir_close(dir);
    return status;
}

const struct tool_command cmd_mounts = {
    .name = "mounts",
    .synopsis = "",
    .summary = "List the moments that are mounted, and clean up what is left",
    .examples = "  ttjournal mounts\n"
                "  ttjournal mounts --json | jq -r .target\n",
    .run = run,
};
