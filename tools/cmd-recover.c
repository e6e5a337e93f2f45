/*
 * ttjournal recover: bring a raw disk up to date with its journal
 *
 * What QEMU does when it opens the two again, for whoever wants the disk image
 * by itself after a crash.  posix/recoverer.c does it; this file prints what
 * it did, and how far it is for whoever waits at a terminal.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <posix/recoverer.h>
#include <stdio.h>
#include <unistd.h>

#include "tool.h"

static char *opt_disk;
static gboolean opt_dry_run, opt_json;

static const GOptionEntry entries[] = {
    { "disk", 'd', 0, G_OPTION_ARG_FILENAME, &opt_disk,
      "The raw disk image or block device that was recorded", "DISK" },
    { "dry-run", 'n', 0, G_OPTION_ARG_NONE, &opt_dry_run,
      "Say what would be done, and change nothing", NULL },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object", NULL },
    { NULL },
};

struct run {
    const char *journal;
    gint64 started;
    struct tool_watch watch;
};

/* ---- what was done ----------------------------------------------------- */

static void line_size(const char *name, uint64_t bytes)
{
    g_autofree char *size = tool_size(bytes);

    if (bytes > 0) {
        printf("%-18s %s\n", name, size);
    }
}

static void text_redo(const struct tt_recover_report *rep)
{
    char time[TT_TIME_SIZE];

    if (rep->records > 0) {
        printf("%-18s %" PRIu64 " record%s, %" PRIu64 " range%s\n",
               opt_dry_run ? "to be redone" : "redone", rep->records,
               rep->records == 1 ? "" : "s", rep->ranges,
               rep->ranges == 1 ? "" : "s");
        printf("%-18s seq:%" PRIu64 ", %s\n", "from", rep->first_seq,
               tt_time_format(rep->first_time, time));
        printf("%-18s seq:%" PRIu64 ", %s\n", "to", rep->newest_seq,
               tt_time_format(rep->newest_time, time));
    }
    line_size("bytes", rep->write_bytes);
    line_size("zeroes", rep->zero_bytes);
    line_size("captured before", rep->captured_bytes);
    if (rep->old_size != rep->new_size) {
        printf("%-18s from %" PRIu64 " to %" PRIu64 " bytes\n",
               opt_dry_run ? "to be resized" : "resized", rep->old_size,
               rep->new_size);
    }
    line_size("DAMAGED, not redone", rep->damaged_bytes);
}

static void text_journal(const struct tt_recover_report *rep)
{
    if (rep->rewritten_frames > 0) {
        printf("%-18s %" PRIu64 " frame%s that may be in a cache only, %" PRIu64
               " bytes, %s again\n",
               "journal's tail", rep->rewritten_frames,
               rep->rewritten_frames == 1 ? "" : "s", rep->rewritten_bytes,
               opt_dry_run ? "to be written" : "written");
    }
    if (rep->damages > 0) {
        printf("%-18s %" PRIu64 " new place%s in the journal: see ttjournal "
               "verify\n",
               "DAMAGE", rep->damages, rep->damages == 1 ? "" : "s");
    }
}

static void print_text(const struct run *run,
                       const struct tt_recover_report *rep)
{
    printf("%-18s %s\n", "disk", opt_disk);
    printf("%-18s %s\n", "journal", run->journal);
    if (rep->nothing) {
        printf("%-18s nothing to do: the journal %s\n", "result",
               rep->last_seq == 0 ? "is empty" : "was closed clean");
        return;
    }
    printf("%-18s certain to hold all up to seq:%" PRIu64 " of %" PRIu64 "\n",
           "the disk was", rep->level_seq, rep->last_seq);
    text_journal(rep);
    text_redo(rep);
    if (opt_dry_run) {
        printf("%-18s nothing was changed (dry run)\n", "result");
    } else {
        printf("%-18s level with the journal and closed clean at seq:%" PRIu64
               ", in %.1f s\n",
               "result", rep->checkpoint_seq,
               (double)(g_get_monotonic_time() - run->started) /
                   G_USEC_PER_SEC);
    }
}

static void print_json(const struct run *run,
                       const struct tt_recover_report *rep)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    json_string(b, "journal", run->journal);
    json_string(b, "disk", opt_disk);
    json_bool(b, "dry_run", opt_dry_run);
    json_bool(b, "nothing_to_do", rep->nothing);
    json_int(b, "level_seq", rep->level_seq);
    json_int(b, "last_seq", rep->last_seq);
    json_int(b, "rewritten_frames", rep->rewritten_frames);
    json_int(b, "rewritten_bytes", rep->rewritten_bytes);
    json_int(b, "new_damages", rep->damages);
    json_int(b, "records", rep->records);
    json_int(b, "ranges", rep->ranges);
    json_int(b, "write_bytes", rep->write_bytes);
    json_int(b, "zero_bytes", rep->zero_bytes);
    if (rep->records > 0) {
        json_int(b, "first_seq", rep->first_seq);
        json_time(b, "first_time", rep->first_time);
        json_int(b, "newest_seq", rep->newest_seq);
        json_time(b, "newest_time", rep->newest_time);
    }
    json_int(b, "captured_bytes", rep->captured_bytes);
    json_int(b, "old_size", rep->old_size);
    json_int(b, "new_size", rep->new_size);
    json_int(b, "damaged_bytes", rep->damaged_bytes);
    if (rep->checkpoint_seq) {
        json_int(b, "checkpoint_seq", rep->checkpoint_seq);
    }
    json_builder_end_object(b);
    json_print(b, true);
}

/* ---- the command ------------------------------------------------------- */

static int exit_status(const struct tt_recover_report *rep)
{
    if (rep->damaged_bytes > 0) {
        return tool_fail(EXIT_DAMAGED,
                         "%s: %" PRIu64 " bytes %s: the journal is damaged "
                         "there, and the disk keeps what it has",
                         opt_disk, rep->damaged_bytes,
                         opt_dry_run ? "cannot be redone"
                                     : "could not be redone");
    }
    return opt_dry_run && !rep->nothing ? EXIT_FOUND : EXIT_OK;
}

static int recover(struct run *run)
{
    const struct tt_watcher ops = tool_watcher(&run->watch);
    const struct tt_recover_report *rep;
    struct tt_error err = { 0 };
    struct tt_recoverer *r;
    int status;

    if (tt_recoverer_open(run->journal, opt_disk, opt_dry_run, &r, &err) < 0) {
        return tool_report(&err);
    }
    rep = tt_recoverer_report(r);
    status = tt_recoverer_run(r, "ttjournal " PACKAGE_VERSION " recover", &ops,
                              &err);
    tool_progress_end(&run->watch.progress);
    if (status < 0) {
        status = tool_report(&err);
    } else {
        if (opt_json) {
            print_json(run, rep);
        } else {
            print_text(run, rep);
        }
        status = exit_status(rep);
    }
    tt_recoverer_close(r);
    return status;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    struct run run = { .started = g_get_monotonic_time() };

    if (status != EXIT_OK) {
        return status;
    }
    if (opt_disk == NULL) {
        return tool_fail(EXIT_USAGE, "recover: which disk? give --disk DISK");
    }
    run.journal = argv[1];
    run.watch.name = opt_disk;
    return recover(&run);
}

const struct tool_command cmd_recover = {
    .name = "recover",
    .synopsis = "JOURNAL --disk DISK",
    .summary = "Bring a raw disk up to date with its journal after a crash",
    .examples = "  ttjournal recover disk.ttj --disk disk.img --dry-run\n"
                "  ttjournal recover disk.ttj --disk disk.img\n",
    .run = run,
};
