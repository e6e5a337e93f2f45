/*
 * ttjournal log: which records are there in this range of time?
 *
 * The ends of the range are bound to sequence numbers first, with the rules of
 * views (tt_moment_resolve), so that a clock that once was in 2099 confuses
 * nobody; then the records are streamed in order of history.  Both ends are
 * inclusive: --from T begins with the first record stamped T or later.
 *
 * Where there is an index it tells the times, and which frame to begin with,
 * so that what lies before is not read.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <string.h>

#include "record.h"

static gchar *opt_from, *opt_to, *opt_kind, *opt_tz, *opt_index;
static gint64 opt_limit = G_MININT64; /* not given */
static gboolean opt_json;

static const GOptionEntry entries[] = {
    { "from", 0, 0, G_OPTION_ARG_STRING, &opt_from,
      "Begin with records of this moment", "TIME" },
    { "to", 0, 0, G_OPTION_ARG_STRING, &opt_to,
      "End with records of this moment", "TIME" },
    { "kind", 'k', 0, G_OPTION_ARG_STRING, &opt_kind,
      "Only these kinds of records", "KIND,…" },
    { "limit", 'n', 0, G_OPTION_ARG_INT64, &opt_limit,
      "Stop after so many records", "N" },
    { "tz", 0, 0, G_OPTION_ARG_STRING, &opt_tz, "Zone of times that have none",
      "ZONE" },
    { "index", 0, 0, G_OPTION_ARG_FILENAME, &opt_index,
      "Look for the index in this folder, not beside the journal", "DIR" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object a line",
      NULL },
    { NULL },
};

struct log {
    const struct tt_source *src;
    uint64_t from_seq, to_seq;
    bool from_exact; /* records stamped from_time lie below from_seq too */
    int64_t from_time;
    GHashTable *kinds; /* NULL: all */
    gint64 left;       /* negative: no limit */
};

/* Stops the scan; not an error, and told apart by log.left or to_seq. */
#define STOP (-TT_EINVAL)

static bool wanted(const struct log *log, const struct tt_record *rec)
{
    if (rec->seq < log->from_seq &&
        !(log->from_exact && rec->time == log->from_time)) {
        return false;
    }
    return log->kinds == NULL ||
           g_hash_table_contains(log->kinds, GINT_TO_POINTER((int)rec->kind));
}

static bool has_range(const struct tt_record *rec)
{
    return tt_kind_is_version(rec->kind);
}

static void print_json(const struct log *log, const struct tt_frame *f,
                       const struct tt_record *rec)
{
    struct sink sink = { .json = json_builder_new() };
    char kind[16];

    json_builder_begin_object(sink.json);
    json_int(sink.json, "seq", rec->seq);
    json_time(sink.json, "time", rec->time);
    json_int(sink.json, "epoch", f->epoch);
    json_string(sink.json, "kind", record_kind(rec->kind, kind));
    if (has_range(rec)) {
        json_int(sink.json, "offset", rec->disk_offset);
        json_int(sink.json, "length", rec->disk_length);
    }
    record_describe(&sink, log->src, f, rec);
    json_builder_end_object(sink.json);
    json_print(sink.json, false);
}

static void print_text(const struct log *log, const struct tt_frame *f,
                       const struct tt_record *rec)
{
    struct sink sink = { .text = g_string_new(NULL) };
    char kind[16], time[TT_TIME_SIZE];

    if (has_range(rec)) {
        g_string_append_printf(sink.text, " %" PRIu64 "+%" PRIu64,
                               rec->disk_offset, rec->disk_length);
    }
    record_describe(&sink, log->src, f, rec);
    printf("%" PRIu64 " %s %s%s\n", rec->seq, tt_time_format(rec->time, time),
           record_kind(rec->kind, kind), sink.text->str);
    g_string_free(sink.text, TRUE);
}

static int frame(void *opaque, const struct tt_frame *f, const uint8_t *table)
{
    struct log *log = opaque;
    struct tt_record rec;
    uint32_t pos = 0, index = 0;

    while (tt_table_next(f, table, &pos, &index, &rec)) {
        if (rec.seq > log->to_seq || log->left == 0 || ferror(stdout)) {
            return STOP;
        }
        if (!wanted(log, &rec)) {
            continue;
        }
        if (opt_json) {
            print_json(log, f, &rec);
        } else {
            print_text(log, f, &rec);
        }
        log->left -= log->left > 0;
    }
    /* the scan need not look for an end that nobody asked for */
    return tt_frame_last_seq(f) >= log->to_seq || log->left == 0 ? STOP : 0;
}

static int damage(void *opaque, const struct tt_damage *d)
{
    const struct log *log = opaque;

    if (d->last_seq >= log->from_seq && d->first_seq <= log->to_seq) {
        tool_warn("damage: records seq:%" PRIu64 " to seq:%" PRIu64
                  " are missing (journal bytes %" PRIu64 "+%" PRIu64 ")",
                  d->first_seq, d->last_seq, d->offset, d->length);
    }
    return 0;
}

/* A moment named by its number begins with that record, a time with its own */
static int bind_from(struct tool_journal *j, struct log *log)
{
    struct tt_moment m;
    int status;

    if (opt_from == NULL) {
        return EXIT_OK;
    }
    status = tool_resolve(j, opt_from, opt_tz, &m);
    if (status != EXIT_OK) {
        return status;
    }
    if (g_str_has_prefix(opt_from, "seq:") ||
        g_str_has_prefix(opt_from, "mark:") || m.latest) {
        log->from_seq = m.seq;
        return EXIT_OK;
    }
    log->from_seq = m.seq + 1;
    log->from_exact = m.has_time;
    log->from_time = m.time;
    return EXIT_OK;
}

static int bind_range(struct tool_journal *j, struct log *log)
{
    struct tt_moment m;
    int status = bind_from(j, log);

    log->to_seq = tt_history_end(j->history)->last_seq;
    if (status == EXIT_OK && opt_to != NULL) {
        status = tool_resolve(j, opt_to, opt_tz, &m);
        log->to_seq = m.seq;
    }
    if (status == EXIT_OK && opt_kind != NULL) {
        status = record_parse_kinds(opt_kind, &log->kinds);
    }
    return status;
}

/* The frame to begin with; 0: the first. */
static int find_start(struct tool_journal *j, const struct log *log,
                      uint64_t *ret_from, struct tt_error *err)
{
    int r;

    do {
        /* a time was found in the epoch of the last record by then */
        r = log->from_exact
                ? tt_history_scan_from(j->history, log->from_seq - 1,
                                       &log->from_time, ret_from, err)
                : tt_history_scan_from(j->history, log->from_seq, NULL,
                                       ret_from, err);
    } while (tool_index_failed(j, r));
    return r;
}

static int stream(struct tool_journal *j, struct log *log)
{
    struct tt_scan_ops ops = {
        .frame = frame,
        .damage = damage,
        .opaque = log,
    };
    struct tt_error err = { 0 };
    struct tt_scan scan;
    uint64_t from;
    int r = find_start(j, log, &from, &err);

    if (r == 0) {
        r = tt_scan_run(&j->super, log->src, from, &ops, &scan, &err);
    }
    if (r < 0 && err.code != 0) {
        tt_file_name_error(j->file->path, -1, &err);
        return tool_report(&err);
    }
    return EXIT_OK;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    struct tool_journal j;
    struct log log = { 0 };

    if (status == EXIT_OK && opt_limit < 0 && opt_limit != G_MININT64) {
        status = tool_fail(EXIT_USAGE, "--limit: must not be negative");
    }
    if (status == EXIT_OK) {
        status = tool_open_indexed(argv[1], opt_index, &j);
    }
    if (status != EXIT_OK) {
        return status;
    }
    log.src = &j.file->source;
    log.left = opt_limit;
    status = bind_range(&j, &log);
    if (status == EXIT_OK && !tt_history_end(j.history)->empty) {
        status = stream(&j, &log);
    }
    g_clear_pointer(&log.kinds, g_hash_table_unref);
    tool_close(&j);
    return status;
}

const struct tool_command cmd_log = {
    .name = "log",
    .synopsis = "JOURNAL",
    .summary = "List the records in a range of time",
    .examples =
        "  ttjournal log disk.ttj --kind mark,session\n"
        "  ttjournal log disk.ttj --from 2026-11-20T12:00:00Z --to seq:4711\n"
        "  ttjournal log disk.ttj --from -15min --json | jq .kind\n",
    .run = run,
};
