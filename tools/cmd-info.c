/*
 * ttjournal info: what is in this journal, and how is it?
 *
 * Everything is gathered into one struct and printed from it twice, as lines
 * or as JSON.
 *
 * Where there is an index, history comes from there, and of the journal only
 * its end is read: what the index does not cover, and what is behind the
 * newest CHECKPOINT.  What is printed is the same without an index.  So what
 * only the frames can tell, each one of them (how many there are, records that
 * neither change the disk nor are notable, second pre-images), is counted on
 * demand: --full reads them all.  Of damage an index knows what was in its
 * way; "indexed" says up to where nobody has looked.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <posix/lock.h>
#include <stdio.h>
#include <string.h>

#include "record.h"

static gboolean opt_json, opt_full;
static char *opt_index;

static const GOptionEntry entries[] = {
    { "full", 0, 0, G_OPTION_ARG_NONE, &opt_full,
      "Read all of the journal, and count frames and every kind of record",
      NULL },
    { "index", 0, 0, G_OPTION_ARG_FILENAME, &opt_index,
      "Look for the index in this folder, not beside the journal", "DIR" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object", NULL },
    { NULL },
};

/* Kinds this version knows are counted one by one, others together */
#define KIND_SLOTS 64

struct info {
    const struct tool_journal *j;
    const struct tt_scan *end;
    struct tt_history_stats stats;
    uint64_t captured; /* bytes of the disk that have a version */
    uint64_t disk_size;
    uint64_t indexed; /* the last record that an index answers for, or 0 */
    int64_t first_time, last_time;
    bool has_time;
    uint64_t kinds[KIND_SLOTS]; /* by number; without --full not all of them */
    uint64_t other;             /* records that are not in kinds */
    uint64_t behind_records, behind_bytes; /* above the checkpoint's level */
    uint64_t redo_ranges, redo_bytes;      /* newest versions of those */
    bool resized;                          /* a RESIZE is among them */
    int written; /* another process writes it: 1, 0, or negative: unknown */
};

/* ---- gathering --------------------------------------------------------- */

/* What was appended since the history was read is not counted. */
static int count_frame(void *opaque, const struct tt_frame *f,
                       const uint8_t *table)
{
    struct info *info = opaque;
    struct tt_record rec;
    uint32_t pos = 0, index = 0;

    while (tt_table_next(f, table, &pos, &index, &rec) &&
           rec.seq <= info->end->last_seq) {
        if (opt_full) {
            info->kinds[rec.kind < KIND_SLOTS ? rec.kind : 0]++;
        }
        if (rec.seq > info->stats.level_seq &&
            (rec.kind == TT_KIND_WRITE || rec.kind == TT_KIND_ZERO)) {
            info->behind_records++;
            info->behind_bytes += rec.disk_length;
        }
    }
    return 0;
}

/* Counts what may be behind the newest CHECKPOINT's level, or (--full) all. */
static int count_records(const struct tool_journal *j, struct info *info,
                         struct tt_error *err)
{
    const struct tt_scan_ops ops = { .frame = count_frame, .opaque = info };
    struct tt_scan scan;
    uint64_t from = 0;
    int ret = 0;

    if (!opt_full) {
        ret = tt_history_scan_from(j->history, info->stats.level_seq + 1, NULL,
                                   &from, err);
    }
    return ret < 0 ? ret
                   : tt_scan_run(&j->super, &j->file->source, from, &ops, &scan,
                                 err);
}

/* The kinds that history counts wherever it comes from */
static void count_kinds(struct info *info)
{
    const struct tt_history_stats *st = &info->stats;

    if (!opt_full) {
        info->kinds[TT_KIND_WRITE] = st->writes;
        info->kinds[TT_KIND_ZERO] = st->zeroes;
        info->kinds[TT_KIND_PREIMAGE] = st->preimages;
        info->kinds[TT_KIND_RESIZE] = st->resizes;
        info->kinds[TT_KIND_SESSION] = st->sessions;
        info->kinds[TT_KIND_MARK] = st->marks;
        info->kinds[TT_KIND_GAP] = st->gaps;
        info->kinds[TT_KIND_DAMAGE] = st->damages;
    }
    info->other = st->records;
    for (size_t i = 0; i < KIND_SLOTS; i++) {
        /* footers may lie */
        info->other -=
            info->kinds[i] < info->other ? info->kinds[i] : info->other;
    }
}

static void find_span(const struct tool_journal *j, struct info *info)
{
    size_t count;
    const struct tt_epoch *e = tt_history_epochs(j->history, &count);

    info->has_time = count > 0;
    if (count > 0) {
        info->first_time = e[0].first_time;
        info->last_time = e[count - 1].last_time;
    }
}

/* What recovery would redo, and what it knows to be captured */
static int count_redos(const struct tool_journal *j, struct info *info,
                       struct tt_error *err)
{
    struct tt_recovery r;
    int ret = tt_recovery_run(&j->super, &j->file->source, &r, err);

    if (ret == 0) {
        info->redo_ranges = r.redo_count;
        info->resized = r.resized;
        for (size_t i = 0; i < r.redo_count; i++) {
            info->redo_bytes += r.redos[i].disk_length;
        }
    }
    if (ret == 0) {
        ret = opt_full
                  ? tt_history_captured(j->history, &info->captured, err)
                  : tt_recovery_captured(&r, j->history, &info->captured, err);
    }
    tt_recovery_clear(&r);
    return ret;
}

static int gather_once(const struct tool_journal *j, struct info *info,
                       struct tt_error *err)
{
    int ret;

    *info = (struct info){
        .j = j,
        .end = tt_history_end(j->history),
        .indexed = tt_history_covered(j->history),
        .written = tt_lock_is_written(j->file->fd),
    };
    tt_history_stats(j->history, &info->stats);
    info->disk_size = tt_history_disk_size(j->history, UINT64_MAX);
    find_span(j, info);
    ret = count_redos(j, info, err);
    if (ret == 0 && (opt_full || info->redo_ranges > 0 || info->resized)) {
        ret = count_records(j, info, err);
    }
    count_kinds(info);
    return ret;
}

static int gather(struct tool_journal *j, struct info *info)
{
    struct tt_error err = { 0 };
    int ret;

    do {
        ret = gather_once(j, info, &err);
    } while (tool_index_failed(j, ret));
    if (ret < 0) {
        tt_file_name_error(j->file->path, ret, &err);
        return tool_report(&err);
    }
    return EXIT_OK;
}

static uint64_t live_bytes(const struct info *info)
{
    return info->disk_size > info->captured ? info->disk_size - info->captured
                                            : 0;
}

/* Room behind the end of history: no part of it, whatever lies there */
static uint64_t made_ahead(const struct info *info)
{
    uint64_t size = info->j->file->source.size;

    return size > info->end->end_offset ? size - info->end->end_offset : 0;
}

static const char *kind_at(size_t slot, char buf[static 16])
{
    return slot == 0 ? "unknown" : record_kind((uint16_t)slot, buf);
}

/* ---- text -------------------------------------------------------------- */

static void line_size(const char *name, uint64_t bytes)
{
    g_autofree char *size = tool_size(bytes);

    printf("%-18s %s\n", name, size);
}

static void text_header(const struct info *info)
{
    const struct tt_super *s = &info->j->super;
    g_autofree char *uuid = tool_uuid(s->uuid);
    char buf[TT_TIME_SIZE];

    printf("%-18s %s\n", "journal", info->j->file->path);
    printf("%-18s %s\n", "uuid", uuid);
    printf("%-18s %s\n", "created", tt_time_format(s->created, buf));
    line_size("journal size", info->j->file->source.size);
    line_size("made ahead", made_ahead(info));
    line_size("disk size", info->disk_size);
    line_size("segment size", s->segment_size);
    printf("%-18s %u bytes\n", "alignment", s->alignment);
    if (!info->has_time) {
        printf("%-18s nothing is recorded yet\n", "span");
        return;
    }
    printf("%-18s %s\n", "first record", tt_time_format(info->first_time, buf));
    printf("%-18s %s\n", "last record", tt_time_format(info->last_time, buf));
}

static void text_records(const struct info *info)
{
    const struct tt_history_stats *st = &info->stats;
    char kind[16];

    printf("%-18s %" PRIu64, "records", st->records);
    for (size_t i = 0; i < KIND_SLOTS; i++) {
        if (info->kinds[i] > 0) {
            printf(", %s %" PRIu64, kind_at(i, kind), info->kinds[i]);
        }
    }
    if (info->other > 0) {
        printf(", other %" PRIu64, info->other);
    }
    printf("\n%-18s %" PRIu64 "\n", "segments", st->segments);
    if (opt_full) {
        printf("%-18s %" PRIu64 "\n", "frames", st->frames);
    }
    line_size("written by guest", st->written_bytes);
}

static void text_sessions(const struct info *info)
{
    const struct tt_session *s;
    char buf[TT_TIME_SIZE];
    bool recorded = false; /* by a session before */
    size_t count;

    s = tt_history_sessions(info->j->history, &count);
    for (size_t i = 0; i < count; i++) {
        g_autofree char *about = NULL, *visible = NULL;

        about = g_strdup_printf(
            "%s%s%s%s%s%s%s", s[i].program ? s[i].program : "?",
            s[i].host && *s[i].host ? " on " : "", s[i].host ? s[i].host : "",
            s[i].disk_path && *s[i].disk_path ? ", disk " : "",
            s[i].disk_path ? s[i].disk_path : "",
            s[i].disk_format && *s[i].disk_format ? " as " : "",
            s[i].disk_format ? s[i].disk_format : "");
        visible = tool_visible(about, strlen(about));
        printf("%-18s %s, %s, seq:%" PRIu64 ": %s%s\n", "session",
               tt_time_format(s[i].realtime, buf),
               s[i].flags & TT_SESSION_RECORDER ? "recorder" : "tool", s[i].seq,
               visible,
               recorded && !(s[i].flags & TT_SESSION_CLEAN)
                   ? "; the recording before was not closed"
                   : "");
        recorded = recorded || s[i].flags & TT_SESSION_RECORDER;
    }
}

static void text_epochs(const struct info *info)
{
    const struct tt_epoch *e;
    char from[TT_TIME_SIZE], to[TT_TIME_SIZE];
    size_t count;

    e = tt_history_epochs(info->j->history, &count);
    for (size_t i = 0; i < count; i++) {
        printf("%-18s %" PRIu64 ": seq:%" PRIu64 " to seq:%" PRIu64
               ", %s to %s\n",
               "clock epoch", e[i].number, e[i].first_seq, e[i].last_seq,
               tt_time_format(e[i].first_time, from),
               tt_time_format(e[i].last_time, to));
    }
}

static void text_damage(const struct info *info)
{
    const struct tt_damage *d;
    const struct tt_gap *g;
    char from[TT_TIME_SIZE], to[TT_TIME_SIZE];
    size_t count;

    d = tt_history_damages(info->j->history, &count);
    for (size_t i = 0; i < count; i++) {
        printf("%-18s journal bytes %" PRIu64 "+%" PRIu64
               ", records seq:%" PRIu64 " to seq:%" PRIu64 ", %s to %s\n",
               "DAMAGE", d[i].offset, d[i].length, d[i].first_seq,
               d[i].last_seq, tt_time_format(d[i].after_time, from),
               tt_time_format(d[i].before_time, to));
    }
    g = tt_history_gaps(info->j->history, &count);
    for (size_t i = 0; i < count; i++) {
        bool open = g[i].flags & TT_GAP_OPEN;

        if (!g[i].closed) {
            printf("%-18s seq:%" PRIu64 ", %s %s%s: not all was recorded\n",
                   "GAP", g[i].seq, tt_time_format(g[i].from_time, from),
                   open ? "on" : "to ",
                   open ? "" : tt_time_format(g[i].to_time, to));
        }
    }
}

static const char *state(const struct info *info)
{
    const struct tt_session *s;
    size_t count;

    s = tt_history_sessions(info->j->history, &count);
    if (info->written > 0) {
        return count > 0 && !(s[count - 1].flags & TT_SESSION_RECORDER)
                   ? "being written now"
                   : "being recorded now";
    }
    if (tt_history_recorder(info->j->history) == NULL) {
        return "never recorded into";
    }
    if (info->stats.clean) {
        return "closed clean";
    }
    return info->written == 0 ? "not closed: after a crash"
                              : "not closed: being recorded, or after a crash";
}

static void text_health(const struct info *info)
{
    const struct tt_history_stats *st = &info->stats;
    const struct tt_gap *g;
    size_t damages, count, gaps = 0;

    tt_history_damages(info->j->history, &damages);
    g = tt_history_gaps(info->j->history, &count);
    for (size_t i = 0; i < count; i++) {
        gaps += !g[i].closed; /* who has closed it counts */
    }
    text_damage(info);
    printf("%-18s %s, %zu damaged place%s in frames, %zu gap%s\n", "health",
           state(info), damages, damages == 1 ? "" : "s", gaps,
           gaps == 1 ? "" : "s");
    if (info->indexed > 0) {
        printf("%-18s up to seq:%" PRIu64 ": what is damaged there may not be "
               "known; --full looks at all frames, verify at all bytes\n",
               "indexed", info->indexed);
    }
    if (info->j->damaged_superblocks) {
        printf("%-18s one of two superblocks is damaged\n", "");
    }
    if (opt_full && st->duplicate_preimages) {
        printf("%-18s %" PRIu64 " pre-images came twice; the first counts\n",
               "", st->duplicate_preimages);
    }
    if (st->provisional_from) {
        printf("%-18s from seq:%" PRIu64 " on: a power cut might still take "
               "it\n",
               "provisional", st->provisional_from);
    }
    if (info->end->torn_length) {
        printf("%-18s %" PRIu64 " bytes at %" PRIu64 " behind the end\n",
               "torn end", info->end->torn_length, info->end->torn_offset);
    }
}

/* While it is recorded the recorder brings the disk level by itself. */
static void text_behind(const struct info *info)
{
    g_autofree char *all = tool_size(info->behind_bytes);
    g_autofree char *newest = tool_size(info->redo_bytes);
    bool now = info->written > 0;

    printf("%-18s %s; certain to hold all up to seq:%" PRIu64 " of %" PRIu64
           "; may lack %" PRIu64 " write%s of %s%s\n",
           "disk", now ? "follows the recording" : "may be BEHIND",
           info->stats.level_seq, info->end->last_seq, info->behind_records,
           info->behind_records == 1 ? "" : "s", all,
           info->resized ? ", and a new size" : "");
    printf("%-18s %" PRIu64 " range%s of %s%s\n", "newest of them",
           info->redo_ranges, info->redo_ranges == 1 ? "" : "s", newest,
           now ? ": what a crash now would leave to redo"
               : ": ttjournal recover redoes them, or QEMU's next start");
}

static void text_disk(const struct info *info)
{
    if (info->stats.clean || (info->behind_records == 0 && !info->resized)) {
        printf("%-18s level with the journal\n", "disk");
    } else {
        text_behind(info);
    }
    line_size("captured", info->captured);
    line_size("on live disk", live_bytes(info));
}

static void print_text(const struct info *info)
{
    size_t marks;

    tt_history_marks(info->j->history, &marks);
    text_header(info);
    text_records(info);
    printf("%-18s %zu\n", "marks", marks);
    text_sessions(info);
    text_epochs(info);
    text_health(info);
    text_disk(info);
}

/* ---- JSON -------------------------------------------------------------- */

static void array(JsonBuilder *b, const char *name)
{
    json_builder_set_member_name(b, name);
    json_builder_begin_array(b);
}

static void json_header(JsonBuilder *b, const struct info *info)
{
    const struct tt_super *s = &info->j->super;
    g_autofree char *uuid = tool_uuid(s->uuid);

    json_string(b, "journal", info->j->file->path);
    json_string(b, "uuid", uuid);
    json_time(b, "created", s->created);
    json_int(b, "journal_size", info->j->file->source.size);
    json_int(b, "end_offset", info->end->end_offset);
    json_int(b, "ahead_bytes", made_ahead(info));
    json_int(b, "disk_size", info->disk_size);
    json_int(b, "segment_size", s->segment_size);
    json_int(b, "alignment", s->alignment);
    if (info->has_time) {
        json_time(b, "first_time", info->first_time);
        json_time(b, "last_time", info->last_time);
    }
    json_int(b, "last_seq", info->end->last_seq);
    json_int(b, "durable_seq", info->end->durable_seq);
}

static void json_records(JsonBuilder *b, const struct info *info)
{
    char kind[16];

    json_builder_set_member_name(b, "records");
    json_builder_begin_object(b);
    for (size_t i = 0; i < KIND_SLOTS; i++) {
        if (info->kinds[i] > 0) {
            json_int(b, kind_at(i, kind), info->kinds[i]);
        }
    }
    if (info->other > 0) {
        json_int(b, "other", info->other);
    }
    json_builder_end_object(b);
    json_int(b, "record_count", info->stats.records);
    if (opt_full) {
        json_int(b, "frames", info->stats.frames);
    }
    json_int(b, "segments", info->stats.segments);
    json_int(b, "written_bytes", info->stats.written_bytes);
}

static void json_sessions(JsonBuilder *b, const struct info *info)
{
    const struct tt_session *s;
    size_t count;

    s = tt_history_sessions(info->j->history, &count);
    array(b, "sessions");
    for (size_t i = 0; i < count; i++) {
        json_builder_begin_object(b);
        json_int(b, "session", s[i].session);
        json_int(b, "seq", s[i].seq);
        json_time(b, "time", s[i].realtime);
        json_bool(b, "recorder", s[i].flags & TT_SESSION_RECORDER);
        json_bool(b, "after_clean_close", s[i].flags & TT_SESSION_CLEAN);
        json_string(b, "program", s[i].program);
        json_string(b, "host", s[i].host);
        json_string(b, "node", s[i].node);
        json_string(b, "disk_path", s[i].disk_path);
        json_string(b, "disk_format", s[i].disk_format);
        json_int(b, "disk_size", s[i].disk_size);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
}

static void json_epochs(JsonBuilder *b, const struct info *info)
{
    const struct tt_epoch *e;
    size_t count;

    e = tt_history_epochs(info->j->history, &count);
    array(b, "epochs");
    for (size_t i = 0; i < count; i++) {
        json_builder_begin_object(b);
        json_int(b, "epoch", e[i].number);
        json_int(b, "first_seq", e[i].first_seq);
        json_int(b, "last_seq", e[i].last_seq);
        json_time(b, "first_time", e[i].first_time);
        json_time(b, "last_time", e[i].last_time);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
}

static void json_marks(JsonBuilder *b, const struct info *info)
{
    const struct tt_mark *m;
    size_t count;

    m = tt_history_marks(info->j->history, &count);
    array(b, "marks");
    for (size_t i = 0; i < count; i++) {
        json_builder_begin_object(b);
        json_string(b, "name", m[i].name);
        json_int(b, "seq", m[i].seq);
        json_time(b, "time", m[i].time);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
}

static void json_damage(JsonBuilder *b, const struct info *info)
{
    const struct tt_damage *d;
    const struct tt_gap *g;
    size_t count;

    d = tt_history_damages(info->j->history, &count);
    array(b, "damages");
    for (size_t i = 0; i < count; i++) {
        json_builder_begin_object(b);
        json_int(b, "offset", d[i].offset);
        json_int(b, "length", d[i].length);
        json_int(b, "first_seq", d[i].first_seq);
        json_int(b, "last_seq", d[i].last_seq);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
    g = tt_history_gaps(info->j->history, &count);
    array(b, "gaps");
    for (size_t i = 0; i < count; i++) {
        if (g[i].closed) {
            continue; /* the one that has closed it knows more */
        }
        json_builder_begin_object(b);
        json_int(b, "seq", g[i].seq);
        json_time(b, "from_time", g[i].from_time);
        if (g[i].flags & TT_GAP_OPEN) {
            json_bool(b, "open", true);
        } else {
            json_time(b, "to_time", g[i].to_time);
        }
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
}

static void json_health(JsonBuilder *b, const struct info *info)
{
    const struct tt_history_stats *st = &info->stats;

    json_bool(b, "clean", st->clean);
    if (info->written >= 0) {
        json_bool(b, "being_written", info->written > 0);
    }
    json_int(b, "damaged_superblocks", info->j->damaged_superblocks);
    json_int(b, "indexed_seq", info->indexed);
    if (opt_full) {
        json_int(b, "duplicate_preimages", st->duplicate_preimages);
    }
    if (st->provisional_from) {
        json_int(b, "provisional_from", st->provisional_from);
    }
    json_int(b, "torn_offset", info->end->torn_offset);
    json_int(b, "torn_length", info->end->torn_length);
    json_int(b, "level_seq", st->level_seq);
    json_int(b, "disk_behind_records", info->behind_records);
    json_int(b, "disk_behind_bytes", info->behind_bytes);
    json_bool(b, "disk_behind",
              !st->clean && (info->behind_records > 0 || info->resized));
    json_int(b, "redo_ranges", info->redo_ranges);
    json_int(b, "redo_bytes", info->redo_bytes);
    json_int(b, "captured_bytes", info->captured);
    json_int(b, "live_disk_bytes", live_bytes(info));
}

static void print_json(const struct info *info)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    json_header(b, info);
    json_records(b, info);
    json_sessions(b, info);
    json_epochs(b, info);
    json_marks(b, info);
    json_damage(b, info);
    json_health(b, info);
    json_builder_end_object(b);
    json_print(b, true);
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    struct tool_journal j;
    struct info info;

    if (status == EXIT_OK) {
        status = opt_full ? tool_open(argv[1], true, &j)
                          : tool_open_indexed(argv[1], opt_index, &j);
    }
    if (status != EXIT_OK) {
        return status;
    }
    status = gather(&j, &info);
    if (status == EXIT_OK && opt_json) {
        print_json(&info);
    } else if (status == EXIT_OK) {
        print_text(&info);
    }
    tool_close(&j);
    return status;
}

const struct tool_command cmd_info = {
    .name = "info",
    .synopsis = "JOURNAL",
    .summary = "Show what a journal holds and how it is",
    .examples = "  ttjournal info disk.ttj\n"
                "  ttjournal info --json disk.ttj | jq .marks\n",
    .run = run,
};
