/*
 * ttjournal verify: is every byte of the journal what was written?
 *
 * tt_verify() reads the whole journal and names each place that is not; this
 * file prints what it names, and how far it is for whoever waits at a
 * terminal.  What the journal does not hold it cannot vouch for, so the report
 * ends with how much of the disk was never overwritten.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "tool.h"

static gboolean opt_json;

static const GOptionEntry entries[] = {
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object", NULL },
    { NULL },
};

struct report {
    const char *path;
    JsonBuilder *json; /* NULL: text */
    struct tool_progress progress;
    uint64_t faults; /* findings that are not harmless */
};

static void progress(void *opaque, uint64_t done, uint64_t total)
{
    struct report *r = opaque;

    tool_progress(&r->progress, r->path, "checked", done, total);
}

static void finding_json(JsonBuilder *b, const struct tt_finding *f)
{
    json_builder_begin_object(b);
    json_string(b, "what", f->what);
    json_bool(b, "harmless", f->harmless);
    json_int(b, "offset", f->offset);
    json_int(b, "length", f->length);
    if (f->first_seq) {
        json_int(b, "first_seq", f->first_seq);
        json_int(b, "last_seq", f->last_seq);
    }
    if (f->disk_length) {
        json_int(b, "disk_offset", f->disk_offset);
        json_int(b, "disk_length", f->disk_length);
    }
    if (f->time) {
        json_time(b, "time", f->time);
    }
    json_builder_end_object(b);
}

static void finding_text(const struct tt_finding *f)
{
    char time[TT_TIME_SIZE];

    printf("%s%" PRIu64 "+%" PRIu64 ": %s", f->harmless ? "note: " : "",
           f->offset, f->length, f->what);
    if (f->first_seq) {
        printf("; records seq:%" PRIu64 " to seq:%" PRIu64, f->first_seq,
               f->last_seq);
    }
    if (f->disk_length) {
        printf("; disk %" PRIu64 "+%" PRIu64, f->disk_offset, f->disk_length);
    }
    if (f->time) {
        printf("; at or after %s", tt_time_format(f->time, time));
    }
    putchar('\n');
}

static void finding(void *opaque, const struct tt_finding *f)
{
    struct report *r = opaque;

    tool_progress_end(&r->progress);
    r->faults += !f->harmless;
    if (r->json) {
        finding_json(r->json, f);
    } else {
        finding_text(f);
    }
}

/* How much of the disk no check of ours covers, or -1 if that is not known. */
static bool live_bytes(const char *path, uint64_t *ret_live)
{
    struct tool_journal j;
    uint64_t size, captured;
    bool known;

    if (tool_open(path, true, &j) != EXIT_OK) {
        return false;
    }
    known = tt_history_captured(j.history, &captured, NULL) == 0;
    size = tt_history_disk_size(j.history, UINT64_MAX);
    if (known) {
        *ret_live = size > captured ? size - captured : 0;
    }
    tool_close(&j);
    return known;
}

static void summarise(struct report *r)
{
    g_autofree char *size = NULL;
    uint64_t live = 0;
    bool known = live_bytes(r->path, &live);

    if (r->json) {
        json_builder_end_array(r->json);
        json_bool(r->json, "whole", r->faults == 0);
        if (known) {
            json_int(r->json, "live_disk_bytes", live);
        }
        json_builder_end_object(r->json);
        json_print(r->json, true);
        return;
    }
    if (r->faults == 0) {
        printf("%s: whole\n", r->path);
    } else {
        printf("%s: %" PRIu64 " finding%s\n", r->path, r->faults,
               r->faults == 1 ? "" : "s");
    }
    if (known && live > 0) {
        size = tool_size(live);
        printf("%s of the disk were never overwritten: they are on the live "
               "disk, not in the journal, and were not checked\n",
               size);
    }
}

static int verify(const char *path, const struct tt_file *file)
{
    struct report r = { .path = path };
    struct tt_verify_ops ops = {
        .finding = finding,
        .progress = progress,
        .opaque = &r,
    };
    struct tt_error err = { 0 };
    uint64_t findings = 0;

    if (opt_json) {
        r.json = json_builder_new();
        json_builder_begin_object(r.json);
        json_string(r.json, "journal", path);
        json_builder_set_member_name(r.json, "findings");
        json_builder_begin_array(r.json);
    }
    if (tt_verify(&file->source, &ops, &findings, &err) < 0) {
        tool_progress_end(&r.progress);
        g_clear_object(&r.json);
        tt_file_name_error(path, -1, &err);
        return tool_report(&err);
    }
    tool_progress_end(&r.progress);
    summarise(&r);
    return r.faults == 0 ? EXIT_OK : EXIT_FOUND;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    struct tt_error err = { 0 };
    struct tt_file *file;

    if (status != EXIT_OK) {
        return status;
    }
    if (tt_file_open(argv[1], &file, &err) < 0) {
        return tool_fail(EXIT_NOT_JOURNAL, "%s", err.message);
    }
    status = verify(argv[1], file);
    tt_file_close(file);
    return status;
}

const struct tool_command cmd_verify = {
    .name = "verify",
    .synopsis = "JOURNAL",
    .summary = "Check every byte of a journal",
    .examples = "  ttjournal verify disk.ttj && echo whole\n"
                "  ttjournal verify --json disk.ttj | jq .findings\n",
    .run = run,
};
