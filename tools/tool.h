/*
 * What the subcommands of ttjournal share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_TOOL_H
#define TTJOURNAL_TOOL_H

#include <glib.h>
#include <inttypes.h>
#include <json-glib/json-glib.h>
#include <posix/store.h>
#include <posix/watcher.h>
#include <ttjournal/ttjournal.h>

/* ---- exit statuses ----------------------------------------------------- */

/*
 * The one list of exit statuses: value, C name, what it says.  `ttjournal
 * --help` prints it, and docs/ttjournal.pod repeats it.
 */
#define TOOL_EXITS(X)                                                          \
    X(0, OK, "done; verify: the journal is whole")                             \
    X(1, FOUND, "verify found damage; --dry-run, --check: there is work")      \
    X(2, USAGE, "the command line makes no sense")                             \
    X(3, NOT_JOURNAL, "no such journal, or none that can be read")             \
    X(4, NO_MOMENT, "no such time or mark, or it is not unique")               \
    X(5, LOCKED, "another process is using the journal, or the disk")          \
    X(6, IO, "the system failed: input, output or memory")                     \
    X(7, DAMAGED, "what was asked for lies in a damaged place")                \
    X(8, EXISTS, "the file or name exists already")                            \
    X(9, NO_DISK, "the live disk is needed and was not found")                 \
    X(10, NO_VIEW, "the moment could not be mounted or unmounted")             \
    X(11, NO_FILE, "cat: no such file at that moment")                         \
    X(12, OTHER_DISK, "the disk is not as the journal left it")

enum tool_exit {
#define X(value, name, text) EXIT_##name = value,
    TOOL_EXITS(X)
#undef X
};

/* ---- subcommands ------------------------------------------------------- */

struct tool_command {
    const char *name;
    const char *synopsis; /* what follows the name */
    const char *summary;
    const char *examples; /* lines, each ending in a newline */
    int (*run)(const struct tool_command *command, int argc, char **argv);
};

extern const struct tool_command cmd_create, cmd_info, cmd_log, cmd_verify,
    cmd_mark, cmd_cat, cmd_dump, cmd_mount, cmd_umount, cmd_mounts, cmd_recover,
    cmd_reconcile, cmd_index;

/*
 * Parses the options; @entries may be NULL.  On success argv[1 …] are the
 * arguments, between @min and @max of them, and EXIT_OK is returned.
 */
int tool_parse(const struct tool_command *command, const GOptionEntry *entries,
               int *argc, char ***argv, int min, int max);

/* ---- messages ---------------------------------------------------------- */

/* One line on stderr, control characters made visible. */
void tool_warn(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The same, and returns @status. */
int tool_fail(int status, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Reports what a function of the library said. */
int tool_report(const struct tt_error *err);
/* Says what write errors on stdout came to: @status, or EXIT_IO. */
int tool_finish(int status);

/*
 * A line on a terminal that says how far something is, if it takes more than
 * a second.  All zero at first.
 */
struct tool_progress {
    gint64 started, shown; /* monotonic microseconds */
    const char *what;      /* the step that this is about */
    bool line;             /* one stands on the terminal */
};

/* "NAME: 12.3 % WHAT, about 4 s left" */
void tool_progress(struct tool_progress *p, const char *name, const char *what,
                   uint64_t done, uint64_t total);
/* Before anything else is printed there. */
void tool_progress_end(struct tool_progress *p);

/* A run that is followed on the terminal, under @name */
struct tool_watch {
    const char *name;
    struct tool_progress progress;
};
struct tt_watcher tool_watcher(struct tool_watch *w);

/* ---- journals ---------------------------------------------------------- */

struct tool_journal {
    struct tt_file *file;
    struct tt_history *history; /* NULL if not asked for */
    struct tt_super super;
    unsigned damaged_superblocks;
    struct tt_store *store;   /* or NULL */
    struct tt_index_set *set; /* what the history was opened with, or NULL */
};

/* Returns an exit status; what is wrong has been reported. */
int tool_open(const char *path, bool with_history, struct tool_journal *ret);
/*
 * The same with history, which comes from an index if there is one: below
 * @folder, or (NULL) where it usually lies.  None is made, and none changed.
 */
int tool_open_indexed(const char *path, const char *folder,
                      struct tool_journal *ret);
/* The same for a journal whose file and super are there; says why it failed. */
int tool_load_indexed(struct tool_journal *j, const char *folder,
                      struct tt_error *err);
/*
 * After @ret, which a question about the history returned: true if an index
 * answered and was wrong, or did not know where whoever reads all would.  All
 * was read now: ask again.
 */
bool tool_index_failed(struct tool_journal *j, int ret);
void tool_close(struct tool_journal *j);

/* Now, CLOCK_REALTIME in ns. */
int64_t tool_now(void);

/* Binds a time as the user typed it; reports notes too. */
int tool_resolve(struct tool_journal *j, const char *text, const char *tz,
                 struct tt_moment *ret);

/* Splits JOURNAL@TIME at the first '@' after an existing file's name. */
int tool_split_moment(const char *text, char **ret_journal, char **ret_time);

/* ---- printing ---------------------------------------------------------- */

/* Bytes for people: "12345 (12.1 KiB)"; g_free() it. */
char *tool_size(uint64_t bytes);
/* A UUID as 8-4-4-4-12 hex digits; g_free() it. */
char *tool_uuid(const uint8_t uuid[TT_UUID_SIZE]);
/* @text with whatever could upset a terminal made visible; g_free() it. */
char *tool_visible(const char *text, size_t length);

void json_string(JsonBuilder *b, const char *name, const char *value);
void json_text(JsonBuilder *b, const char *name, const char *value,
               size_t length);
void json_int(JsonBuilder *b, const char *name, uint64_t value);
void json_hex(JsonBuilder *b, const char *name, uint64_t value);
void json_bool(JsonBuilder *b, const char *name, bool value);
void json_time(JsonBuilder *b, const char *name, int64_t value);

/* Prints what @b holds, on one line or indented, and frees @b. */
void json_print(JsonBuilder *b, bool pretty);

#endif
