/*
 * ttjournal mark: give this moment of a journal a name
 *
 * The journal is closed, so "this moment" is its end.  A repeated name is
 * refused under the lock that every writer takes and before a byte is written,
 * so that no two marks have one name, also when two marks are made at once.
 * Where there is an index, it tells the names, and only the journal's end is
 * read.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

static char *opt_index;

static const GOptionEntry entries[] = {
    { "index", 0, 0, G_OPTION_ARG_FILENAME, &opt_index,
      "Look for the index in this folder, not beside the journal", "DIR" },
    { NULL },
};

static int find_name(const struct tt_history *h, const char *name,
                     struct tt_error *err)
{
    char buf[TT_TIME_SIZE];
    size_t count;
    const struct tt_mark *m = tt_history_marks(h, &count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(m[i].name, name) == 0) {
            return tt_fail(err, TT_EINVAL, EEXIST,
                           "mark '%s' exists already, at seq:%" PRIu64
                           ", %s: choose another name",
                           name, m[i].seq, tt_time_format(m[i].time, buf));
        }
    }
    return 0;
}

/*
 * Refuses a journal that has a mark of this name.  An index knows all marks
 * that it covers, so that little is read.
 */
static int name_is_free(void *opaque, struct tt_file *journal,
                        struct tt_error *err)
{
    struct tool_journal j = { .file = journal };
    int r =
        tt_super_read(&journal->source, &j.super, &j.damaged_superblocks, err);

    if (r == 0) {
        r = tool_load_indexed(&j, opt_index, err);
    }
    if (r == 0) {
        r = find_name(j.history, opaque, err);
    }
    j.file = NULL; /* it is the appender's */
    tool_close(&j);
    return r;
}

static int report_open(const struct tt_error *err)
{
    if (err->os_errno == EBUSY) {
        return tool_fail(EXIT_LOCKED,
                         "%s; a journal that is being recorded is marked by "
                         "its recorder: use QMP's ttjournal-mark",
                         err->message);
    }
    return tool_report(err);
}

static int append_mark(struct tt_appender *a, const char *name,
                       uint64_t *ret_seq, int64_t *ret_time)
{
    struct tt_request req = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = name,
        .payload_length = (uint32_t)strlen(name),
    };
    struct tt_error err = { 0 }, close_err = { 0 };
    int r = tt_appender_append(a, &req, ret_seq, ret_time, &err);
    int closed = tt_appender_close(a, &close_err);

    if (r < 0) {
        return tool_report(&err);
    }
    if (closed < 0) {
        tool_warn("%s; the mark itself is made and durable", close_err.message);
    }
    return EXIT_OK;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 2, 2);
    const char *path, *name;
    struct tt_appender *a;
    struct tt_error err = { 0 };
    char buf[TT_TIME_SIZE];
    uint64_t seq;
    int64_t time;

    if (status != EXIT_OK) {
        return status;
    }
    path = argv[1];
    name = argv[2];
    if (!tt_mark_name_ok(name, strlen(name))) {
        return tool_fail(EXIT_USAGE,
                         "'%s' cannot name a mark: use up to %u of the "
                         "characters A-Z a-z 0-9 . _ - and no '..'",
                         name, TT_NAME_MAX);
    }
    if (tt_appender_open(path, "ttjournal " PACKAGE_VERSION, name_is_free,
                         (void *)name, &a, &err) < 0) {
        return report_open(&err);
    }
    status = append_mark(a, name, &seq, &time);
    if (status == EXIT_OK) {
        printf("mark:%s is seq:%" PRIu64 ", %s\n", name, seq,
               tt_time_format(time, buf));
    }
    return status;
}

const struct tool_command cmd_mark = {
    .name = "mark",
    .synopsis = "JOURNAL NAME",
    .summary = "Name this moment of a journal that nobody is writing",
    .examples = "  ttjournal mark disk.ttj before-upgrade\n"
                "  ttjournal mount disk.ttj@mark:before-upgrade /mnt/before\n",
    .run = run,
};
