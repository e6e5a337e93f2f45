/*
 * ttjournal reconcile: record what a disk holds that others have changed
 *
 * posix/reconciler.c does it; this file prints what it found and did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <posix/reconciler.h>
#include <stdio.h>

#include "tool.h"

static char *opt_disk, *opt_index;
static gboolean opt_check, opt_as_is, opt_json;

static const GOptionEntry entries[] = {
    { "disk", 'd', 0, G_OPTION_ARG_FILENAME, &opt_disk,
      "The disk: a raw image, a block device or an NBD URI", "DISK" },
    { "check", 'n', 0, G_OPTION_ARG_NONE, &opt_check,
      "Compare only, and change nothing", NULL },
    { "as-is", 0, 0, G_OPTION_ARG_NONE, &opt_as_is,
      "Give up recorded writes that may not have reached the disk", NULL },
    { "index", 0, 0, G_OPTION_ARG_FILENAME, &opt_index,
      "Look for the index in this folder, not beside the journal", "DIR" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object", NULL },
    { NULL },
};

struct run {
    const char *journal;
    struct tool_watch watch;
};

/* ---- what was found and done ------------------------------------------- */

static void line_size(const char *name, uint64_t bytes, const char *what)
{
    g_autofree char *size = tool_size(bytes);

    if (bytes > 0) {
        printf("%-18s %s%s\n", name, size, what);
    }
}

static void text_found(const struct tt_reconcile_report *rep)
{
    if (rep->why[0] != '\0') {
        printf("%-18s %s\n", "suspicious", rep->why);
    }
    if (rep->old_size != rep->new_size) {
        printf("%-18s %" PRIu64 " bytes, and %" PRIu64 " in the journal\n",
               "size", rep->new_size, rep->old_size);
    }
    line_size("compared", rep->compared_bytes, "");
    line_size("differ", rep->differing_bytes, "");
    line_size("could not be told", rep->unknown_bytes,
              ": a gap or damage hides what the disk held");
    line_size("cut off", rep->lost_bytes,
              " that were never captured: they are lost");
    line_size("not compared", rep->uncompared_bytes,
              " that were never captured: a change there cannot be seen");
    if (rep->dropped > 0) {
        printf("%-18s %" PRIu64 " range%s that recovery would have written\n",
               "given up", rep->dropped, rep->dropped == 1 ? "" : "s");
    }
}

static bool has_work(const struct tt_reconcile_report *rep)
{
    return rep->differs || rep->touched;
}

static void text_result(const struct tt_reconcile_report *rep)
{
    char time[TT_TIME_SIZE];

    if (rep->checkpoint_seq == 0) {
        printf("%-18s %s\n", "result",
               !has_work(rep) ? "nothing differs"
               : rep->differs ? "they differ; nothing was changed (check)"
                              : "nothing differs, but the disk was touched; "
                                "nothing was changed (check)");
        return;
    }
    line_size("recorded", rep->write_bytes, "");
    line_size("recorded zeroes", rep->zero_bytes, "");
    line_size("captured before", rep->captured_bytes, "");
    if (rep->differs) {
        printf("%-18s from seq:%" PRIu64 "%s%s on\n", "in doubt", rep->from_seq,
               rep->has_from_time ? ", " : "",
               rep->has_from_time ? tt_time_format(rep->from_time, time) : "");
    }
    printf("%-18s views are exact again from seq:%" PRIu64
           " on; closed clean at seq:%" PRIu64 "\n",
           "result", rep->exact_seq, rep->checkpoint_seq);
}

static void print_json(const struct run *run,
                       const struct tt_reconcile_report *rep)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    json_string(b, "journal", run->journal);
    json_string(b, "disk", rep->disk);
    json_bool(b, "check", opt_check);
    json_bool(b, "differs", rep->differs);
    json_bool(b, "suspicious", rep->touched);
    if (rep->touched) {
        json_string(b, "suspicion", rep->why);
    }
    json_int(b, "last_seq", rep->last_seq);
    json_int(b, "old_size", rep->old_size);
    json_int(b, "new_size", rep->new_size);
    json_int(b, "compared_bytes", rep->compared_bytes);
    json_int(b, "differing_bytes", rep->differing_bytes);
    json_int(b, "unknown_bytes", rep->unknown_bytes);
    json_int(b, "lost_bytes", rep->lost_bytes);
    json_int(b, "uncompared_bytes", rep->uncompared_bytes);
    json_int(b, "dropped_ranges", rep->dropped);
    json_int(b, "from_seq", rep->from_seq);
    if (rep->has_from_time) {
        json_time(b, "from_time", rep->from_time);
    }
    if (rep->checkpoint_seq) {
        json_int(b, "captured_bytes", rep->captured_bytes);
        json_int(b, "write_bytes", rep->write_bytes);
        json_int(b, "zero_bytes", rep->zero_bytes);
        json_int(b, "exact_seq", rep->exact_seq);
        json_int(b, "checkpoint_seq", rep->checkpoint_seq);
    }
    json_builder_end_object(b);
    json_print(b, true);
}

/* ---- the command ------------------------------------------------------- */

static int reconcile(struct run *run)
{
    const struct tt_reconcile_options options = {
        .disk = opt_disk,
        .index = opt_index,
        .check = opt_check,
        .as_is = opt_as_is,
    };
    const struct tt_watcher ops = tool_watcher(&run->watch);
    const struct tt_reconcile_report *rep;
    struct tt_error err = { 0 };
    struct tt_reconciler *r;
    int status;

    if (tt_reconciler_open(run->journal, &options, &r, &err) < 0) {
        return tool_report(&err);
    }
    rep = tt_reconciler_report(r);
    status = tt_reconciler_run(r, "ttjournal " PACKAGE_VERSION " reconcile",
                               &ops, &err);
    tool_progress_end(&run->watch.progress);
    if (status < 0) {
        status = tool_report(&err);
    } else {
        if (opt_json) {
            print_json(run, rep);
        } else {
            printf("%-18s %s\n", "disk", rep->disk);
            printf("%-18s %s\n", "journal", run->journal);
            text_found(rep);
            text_result(rep);
        }
        status = opt_check && has_work(rep) ? EXIT_FOUND : EXIT_OK;
    }
    tt_reconciler_close(r);
    return status;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    struct run run = { 0 };

    if (status != EXIT_OK) {
        return status;
    }
    run.journal = argv[1];
    run.watch.name = run.journal;
    return reconcile(&run);
}

const struct tool_command cmd_reconcile = {
    .name = "reconcile",
    .synopsis = "JOURNAL [--disk DISK]",
    .summary = "Record how a disk was changed while nobody recorded",
    .examples = "  ttjournal reconcile disk.ttj --check\n"
                "  ttjournal reconcile disk.ttj --disk disk.img\n",
    .run = run,
};
