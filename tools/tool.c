/*
 * What the subcommands share: options, messages, opening a journal
 *
 * An error is one line on stderr that begins with "ttjournal: "; whoever
 * reports it returns the exit status that belongs to it (tool.h).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <posix/zone.h>

#include "tool.h"

/* ---- options ----------------------------------------------------------- */

int tool_parse(const struct tool_command *command, const GOptionEntry *entries,
               int *argc, char ***argv, int min, int max)
{
    g_autofree char *name = g_strdup_printf("ttjournal %s", command->name);
    g_autofree char *description =
        g_strdup_printf("Examples:\n%s\nttjournal(1) says more, also what the "
                        "exit statuses mean.",
                        command->examples);
    g_autoptr(GOptionContext) context = g_option_context_new(command->synopsis);
    g_autoptr(GError) error = NULL;

    g_set_prgname(name);
    g_option_context_set_summary(context, command->summary);
    g_option_context_set_description(context, description);
    if (entries != NULL) {
        g_option_context_add_main_entries(context, entries, NULL);
    }
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return tool_fail(EXIT_USAGE, "%s: %s: try ttjournal %s --help",
                         command->name, error->message, command->name);
    }
    if (*argc > 1 && strcmp((*argv)[1], "--") == 0) {
        (*argv)++;
        (*argc)--;
    }
    if (*argc - 1 < min || *argc - 1 > max) {
        return tool_fail(EXIT_USAGE, "usage: ttjournal %s [OPTION…] %s",
                         command->name, command->synopsis);
    }
    return EXIT_OK;
}

/* ---- messages ---------------------------------------------------------- */

static void say(const char *fmt, va_list ap)
{
    g_autofree char *raw = g_strdup_vprintf(fmt, ap);
    g_autofree char *line = tool_visible(raw, strlen(raw));

    fflush(stdout);
    fprintf(stderr, "ttjournal: %s\n", line);
}

void tool_warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

int tool_fail(int status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return status;
}

static int exit_status(const struct tt_error *err)
{
    switch (err->code) {
    case TT_EIO:
        return err->os_errno == EBUSY    ? EXIT_LOCKED
               : err->os_errno == EEXIST ? EXIT_EXISTS
                                         : EXIT_IO;
    case TT_EFORMAT:
        return EXIT_NOT_JOURNAL;
    case TT_EDAMAGED:
        return EXIT_DAMAGED;
    case TT_ENOTTIME:
        return EXIT_NO_MOMENT;
    case TT_ENODISK:
        return EXIT_NO_DISK;
    case TT_EOTHERDISK:
        return EXIT_OTHER_DISK;
    case TT_EINVAL:
        return err->os_errno == EEXIST ? EXIT_EXISTS : EXIT_USAGE;
    default:
        return EXIT_IO;
    }
}

int tool_report(const struct tt_error *err)
{
    return tool_fail(exit_status(err), "%s", err->message);
}

int tool_finish(int status)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return tool_fail(EXIT_IO, "standard output cannot be written: %s",
                         g_strerror(errno));
    }
    return status;
}

void tool_progress(struct tool_progress *p, const char *name, const char *what,
                   uint64_t done, uint64_t total)
{
    gint64 now = g_get_monotonic_time();
    double elapsed, part;

    if (what != p->what) { /* another step, with a speed of its own */
        p->what = what;
        p->started = now;
    }
    elapsed = (double)(now - p->started) / G_USEC_PER_SEC;
    part = total ? (double)done / (double)total : 0;
    if (elapsed < 1 || now - p->shown < G_USEC_PER_SEC / 5 || part <= 0 ||
        !isatty(STDERR_FILENO)) {
        return;
    }
    fprintf(stderr, "\r\033[K%s: %.1f %% %s, about %.0f s left", name,
            part * 100, what, elapsed / part * (1 - part));
    p->shown = now;
    p->line = true;
}

void tool_progress_end(struct tool_progress *p)
{
    if (p->line) {
        fputs("\r\033[K", stderr);
        p->line = false;
    }
}

static void watch_progress(void *opaque, const char *what, uint64_t done,
                           uint64_t total)
{
    struct tool_watch *w = opaque;

    tool_progress(&w->progress, w->name, what, done, total);
}

static void watch_warn(void *opaque, const char *line)
{
    struct tool_watch *w = opaque;

    tool_progress_end(&w->progress);
    tool_warn("%s", line);
}

struct tt_watcher tool_watcher(struct tool_watch *w)
{
    return (struct tt_watcher){
        .progress = watch_progress,
        .warn = watch_warn,
        .opaque = w,
    };
}

/* ---- journals ---------------------------------------------------------- */

static int load(const char *path, bool with_history, struct tool_journal *j,
                struct tt_error *err)
{
    int r = tt_super_read(&j->file->source, &j->super, &j->damaged_superblocks,
                          err);

    if (r == 0 && with_history) {
        j->history = tt_history_new();
        r = j->history == NULL
                ? tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory")
                : tt_history_load(j->history, &j->file->source, err);
    }
    return tt_file_name_error(path, r, err);
}

int tool_open(const char *path, bool with_history, struct tool_journal *ret)
{
    struct tt_error err = { 0 };
    struct tool_journal j = { 0 };

    if (tt_file_open(path, &j.file, &err) < 0) {
        return tool_fail(EXIT_NOT_JOURNAL, "%s", err.message);
    }
    if (load(path, with_history, &j, &err) < 0) {
        tool_close(&j);
        return tool_report(&err);
    }
    if (j.damaged_superblocks > 0) {
        tool_warn("%s: one of its two superblocks is damaged", path);
    }
    *ret = j;
    return EXIT_OK;
}

/* The history by what the index knows; -TT_EINDEX: it does not fit. */
static int load_indexed(struct tool_journal *j, struct tt_error *err)
{
    struct tt_run *const *runs;
    size_t count;

    j->history = tt_history_new();
    if (j->history == NULL) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    j->set = tt_store_get(j->store);
    if (j->set == NULL) {
        return tt_history_load(j->history, &j->file->source, err);
    }
    runs = tt_index_set_runs(j->set, &count);
    return tt_history_open(j->history, &j->file->source,
                           tt_index_set_catalog(j->set), runs, count, err);
}

/* Reads all of the journal, so that no index is needed. */
static int load_whole(struct tool_journal *j, struct tt_error *err)
{
    int r = tt_history_load(j->history, &j->file->source, err);

    tt_index_set_put(j->set);
    j->set = NULL;
    return r;
}

int tool_load_indexed(struct tool_journal *j, const char *folder,
                      struct tt_error *err)
{
    int r = tt_store_open(j->file, &j->super, folder, &j->store, err);

    if (r < 0) {
        j->store = NULL;
        return r;
    }
    r = load_indexed(j, err);
    if (r == -TT_EINDEX) {
        tool_warn("%s: %s; all of the journal is read", j->file->path,
                  err->message);
        r = load_whole(j, err);
    }
    return r;
}

int tool_open_indexed(const char *path, const char *folder,
                      struct tool_journal *ret)
{
    struct tt_error err = { 0 };
    int r, status = tool_open(path, false, ret);

    if (status != EXIT_OK) {
        return status;
    }
    r = tool_load_indexed(ret, folder, &err);
    if (r < 0) {
        tt_file_name_error(path, r, &err);
        tool_close(ret);
        return tool_report(&err);
    }
    return EXIT_OK;
}

bool tool_index_failed(struct tool_journal *j, int ret)
{
    struct tt_error err = { 0 };

    if (j->set == NULL || (ret != -TT_EINDEX && ret != -TT_EDAMAGED)) {
        return false;
    }
    tool_warn("%s: %s; all of the journal is read", j->file->path,
              ret == -TT_EINDEX ? "its index is damaged"
                                : "a frame that the index names is damaged");
    if (load_whole(j, &err) < 0) {
        tt_file_name_error(j->file->path, -err.code, &err);
        tool_report(&err);
        return false;
    }
    return true;
}

void tool_close(struct tool_journal *j)
{
    tt_history_free(j->history);
    tt_index_set_put(j->set);
    tt_store_close(j->store);
    tt_file_close(j->file);
    memset(j, 0, sizeof(*j));
}

int64_t tool_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int tool_resolve(struct tool_journal *j, const char *text, const char *tz,
                 struct tt_moment *ret)
{
    struct tt_error err = { 0 };
    struct tt_zone *zone = NULL;
    int r;

    /* the local zone only makes a message better: none will do */
    if (tt_zone_open(tz, &zone, &err) < 0 && tz != NULL) {
        return tool_report(&err);
    }
    do {
        r = tt_moment_resolve(j->history, text, zone, tool_now(), ret, &err);
    } while (tool_index_failed(j, r));
    tt_zone_close(zone);
    if (r < 0) {
        tt_file_name_error(j->file->path, r, &err);
        return tool_report(&err);
    }
    if (ret->note[0] != '\0') {
        tool_warn("%s: %s", j->file->path, ret->note);
    }
    return EXIT_OK;
}

int tool_split_moment(const char *text, char **ret_journal, char **ret_time)
{
    const char *slash = strrchr(text, '/');
    const char *at;

    for (at = strchr(text, '@'); at != NULL; at = strchr(at + 1, '@')) {
        g_autofree char *path = g_strndup(text, (gsize)(at - text));

        if (g_file_test(path, G_FILE_TEST_EXISTS) &&
            !g_file_test(path, G_FILE_TEST_IS_DIR)) {
            break;
        }
    }
    if (at == NULL) { /* say which file is missing */
        at = strchr(slash ? slash : text, '@');
    }
    if (at == NULL || at == text || at[1] == '\0') {
        return tool_fail(EXIT_USAGE,
                         "'%s' does not say which moment: write JOURNAL@TIME, "
                         "such as disk.ttj@latest",
                         text);
    }
    *ret_journal = g_strndup(text, (gsize)(at - text));
    *ret_time = g_strdup(at + 1);
    return EXIT_OK;
}
