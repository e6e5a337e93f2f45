/*
 * ttjournal dump: every header and record, field by field, for developers
 *
 * Fields are printed from the bytes on disk by two lists, one of a header's
 * fields and one of a descriptor's, so that nothing is left out and nothing
 * interpreted.  The salt alone is never shown: who knows it could make a guest
 * write what looks like a frame.  --raw-at decodes whatever lies at an offset
 * and says what is wrong with it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <string.h>

#include "record.h"

static gint64 opt_from, opt_raw_at = -1;
static gboolean opt_json;

static const GOptionEntry entries[] = {
    { "from", 0, 0, G_OPTION_ARG_INT64, &opt_from,
      "Begin with the frame that holds this record", "SEQ" },
    { "raw-at", 0, 0, G_OPTION_ARG_INT64, &opt_raw_at,
      "Decode what lies at this offset, valid or not", "OFFSET" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object a line",
      NULL },
    { NULL },
};

#define HEADER_FIELDS(I64, I32, HEX, TIME)                                     \
    I64(offset)                                                                \
    I64(segment)                                                               \
    I64(prev_offset)                                                           \
    HEX(chain)                                                                 \
    I64(session)                                                               \
    HEX(session_nonce)                                                         \
    I64(session_first_seq)                                                     \
    I64(epoch)                                                                 \
    I64(first_seq)                                                             \
    I64(durable_seq)                                                           \
    TIME(first_time)                                                           \
    TIME(last_time)                                                            \
    I64(boottime)                                                              \
    I64(checkpoint_offset)                                                     \
    I64(disk_size)                                                             \
    I64(first_leaf)                                                            \
    I64(segment_size)                                                          \
    I32(alignment)                                                             \
    I32(record_count)                                                          \
    I32(table_length)                                                          \
    I32(payload_offset)                                                        \
    I32(frame_length)                                                          \
    HEX(table_checksum)                                                        \
    I64(session_offset)                                                        \
    I64(epoch_offset)                                                          \
    I64(notable_offset)                                                        \
    I64(footer_offset)                                                         \
    I64(first_live_segment)                                                    \
    HEX(header_checksum)

#define SUPER_FIELDS(I64, I32, HEX, TIME)                                      \
    I32(version)                                                               \
    I32(size)                                                                  \
    HEX(feature_compat)                                                        \
    HEX(feature_ro_compat)                                                     \
    HEX(feature_incompat)                                                      \
    I64(offset)                                                                \
    TIME(created)                                                              \
    I64(disk_size)                                                             \
    I64(segments_offset)                                                       \
    I64(segment_size)                                                          \
    I32(alignment)                                                             \
    HEX(checksum)

#define FIELD_I64(name) sink_int(s, #name, tt_get64(h->name));
#define FIELD_I32(name) sink_int(s, #name, tt_get32(h->name));
#define FIELD_HEX(name) sink_hex(s, #name, tt_get64(h->name));
#define FIELD_TIME(name) sink_time(s, #name, (int64_t)tt_get64(h->name));

struct dump {
    const struct tool_journal *j;
    struct tt_error *err;
    uint64_t from_seq;
};

/* ---- one line ---------------------------------------------------------- */

static struct sink line_begin(const char *what)
{
    struct sink s = { 0 };

    if (opt_json) {
        s.json = json_builder_new();
        json_builder_begin_object(s.json);
        json_string(s.json, "is", what);
    } else {
        s.text = g_string_new(what);
    }
    return s;
}

static void line_end(struct sink *s)
{
    if (s->json) {
        json_builder_end_object(s->json);
        json_print(s->json, false);
    } else {
        puts(s->text->str);
        g_string_free(s->text, TRUE);
    }
}

static void sink_word(struct sink *s, const char *name, const char *value)
{
    sink_text(s, name, value, strlen(value));
}

static void sink_flags(struct sink *s, uint32_t flags, const char *const *names,
                       size_t count)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (size_t i = 0; i < 32; i++) {
        if (!(flags & UINT32_C(1) << i)) {
            continue;
        }
        if (text->len > 0) {
            g_string_append_c(text, ',');
        }
        if (i < count) {
            g_string_append(text, names[i]);
        } else {
            g_string_append_printf(text, "bit%zu", i);
        }
    }
    sink_text(s, "flags", text->len ? text->str : "none",
              text->len ? text->len : 4);
}

/* ---- what is dumped ---------------------------------------------------- */

static void header_fields(struct sink *s, const struct tt_frame_header *h)
{
    static const char *const names[] = { "segment-start", "session-start",
                                         "epoch-start", "after-damage" };

    HEADER_FIELDS(FIELD_I64, FIELD_I32, FIELD_HEX, FIELD_TIME)
    sink_flags(s, tt_get32(h->flags), names, G_N_ELEMENTS(names));
}

static void dump_record(const struct dump *d, const struct tt_frame *f,
                        const struct tt_record *rec, uint32_t index)
{
    static const char *const names[] = { "zeroes", "inline", "unmap", "discard",
                                         "fua",    "more",   "found" };
    struct sink s = line_begin("record");
    g_autoptr(GString) sums = g_string_new(NULL);
    char kind[16];

    sink_int(&s, "seq", rec->seq);
    sink_int(&s, "frame", f->offset);
    sink_int(&s, "index", index);
    sink_word(&s, "kind", record_kind(rec->kind, kind));
    sink_flags(&s, rec->flags, names, G_N_ELEMENTS(names));
    sink_time(&s, "time", rec->time);
    sink_int(&s, "disk_offset", rec->disk_offset);
    sink_int(&s, "disk_length", rec->disk_length);
    sink_int(&s, "payload_offset", rec->payload_offset);
    sink_int(&s, "payload_length", rec->payload_length);
    for (uint32_t i = 0; i < rec->checksum_count; i++) {
        g_string_append_printf(sums, "%s%016" PRIx64, i ? "," : "",
                               tt_get64(rec->checksums[i]));
    }
    sink_text(&s, "checksums", sums->str, sums->len);
    record_describe(&s, &d->j->file->source, f, rec);
    line_end(&s);
}

static void dump_records(const struct dump *d, const struct tt_frame *f,
                         const uint8_t *table)
{
    struct tt_record rec;
    uint32_t pos = 0, index = 0;

    for (uint32_t i = 0; tt_table_next(f, table, &pos, &index, &rec); i++) {
        dump_record(d, f, &rec, i);
    }
}

static void super_fields(struct sink *s, const struct tt_superblock *h)
{
    SUPER_FIELDS(FIELD_I64, FIELD_I32, FIELD_HEX, FIELD_TIME)
    sink_int(s, "checksum_type", tt_get16(h->checksum_type));
    sink_int(s, "sign_type", tt_get16(h->sign_type));
}

static void dump_super_at(const struct tool_journal *j, uint64_t offset)
{
    const struct tt_source *src = &j->file->source;
    struct sink s = line_begin("superblock");
    struct tt_superblock sb;
    g_autofree char *uuid = NULL;
    bool valid;

    sink_int(&s, "at", offset);
    if (offset > src->size || sizeof(sb) > src->size - offset ||
        src->read(src->opaque, offset, &sb, sizeof(sb)) < 0) {
        sink_word(&s, "valid", "unreadable");
        line_end(&s);
        return;
    }
    valid = memcmp(sb.magic, TT_SUPERBLOCK_MAGIC, TT_MAGIC_SIZE) == 0 &&
            tt_get64(sb.checksum) ==
                tt_checksum(&sb, offsetof(struct tt_superblock, checksum)) &&
            tt_get64(sb.offset) == offset;
    sink_word(&s, "valid", valid ? "yes" : "NO");
    uuid = tool_uuid(sb.uuid);
    sink_word(&s, "uuid", uuid);
    super_fields(&s, &sb);
    line_end(&s);
}

static int frame(void *opaque, const struct tt_frame *f, const uint8_t *table)
{
    struct dump *d = opaque;
    const struct tt_source *src = &d->j->file->source;
    struct tt_frame_header h;
    struct sink s;
    int r;

    if (tt_frame_last_seq(f) < d->from_seq) {
        return 0;
    }
    r = src->read(src->opaque, f->offset, &h, sizeof(h));
    if (r < 0) {
        return tt_fail(d->err, TT_EIO, -r, "frame at %" PRIu64 ": %s",
                       f->offset, g_strerror(-r));
    }
    s = line_begin("frame");
    header_fields(&s, &h);
    line_end(&s);
    dump_records(d, f, table);
    return 0;
}

static int damage(void *opaque, const struct tt_damage *dmg)
{
    struct sink s;

    (void)opaque;
    s = line_begin("damage");
    sink_int(&s, "offset", dmg->offset);
    sink_int(&s, "length", dmg->length);
    sink_int(&s, "first_seq", dmg->first_seq);
    sink_int(&s, "last_seq", dmg->last_seq);
    sink_time(&s, "after_time", dmg->after_time);
    sink_time(&s, "before_time", dmg->before_time);
    line_end(&s);
    return 0;
}

static void dump_end(const struct tt_scan *scan)
{
    struct sink s = line_begin("end");

    sink_int(&s, "offset", scan->end_offset);
    sink_int(&s, "last_seq", scan->last_seq);
    sink_int(&s, "durable_seq", scan->durable_seq);
    sink_int(&s, "max_session", scan->max_session);
    sink_int(&s, "torn_offset", scan->torn_offset);
    sink_int(&s, "torn_length", scan->torn_length);
    sink_int(&s, "checkpoint_offset", scan->checkpoint_offset);
    sink_word(&s, "in_damage", scan->damaged_end ? "yes" : "no");
    line_end(&s);
}

static int dump_all(const struct tool_journal *j)
{
    struct tt_error err = { 0 };
    struct dump d = { .j = j, .err = &err, .from_seq = (uint64_t)opt_from };
    struct tt_scan_ops ops = {
        .frame = frame,
        .damage = damage,
        .opaque = &d,
    };
    struct tt_scan scan;

    if (tt_scan_run(&j->super, &j->file->source, 0, &ops, &scan, &err) < 0) {
        tt_file_name_error(j->file->path, -1, &err);
        return tool_report(&err);
    }
    dump_end(&scan);
    return EXIT_OK;
}

/* ---- --raw-at ---------------------------------------------------------- */

static const char *header_verdict(const struct tool_journal *j,
                                  const struct tt_frame_header *h,
                                  uint64_t offset)
{
    struct tt_frame f;

    if (memcmp(h->magic, TT_FRAME_MAGIC, TT_MAGIC_SIZE) != 0) {
        return "no-magic";
    }
    if (tt_get64(h->header_checksum) !=
        tt_checksum(h, offsetof(struct tt_frame_header, header_checksum))) {
        return "bad-checksum";
    }
    if (j->super.segment_size == 0) {
        return "no-superblock";
    }
    if (memcmp(h->uuid, j->super.uuid, TT_UUID_SIZE) != 0) {
        return "of-another-journal";
    }
    if (tt_get64(h->offset) != offset) {
        return "of-another-place";
    }
    if (!tt_frame_decode(&j->super, offset, (const uint8_t *)h, &f)) {
        return "beyond-limits";
    }
    return "yes";
}

static int dump_raw(const struct tool_journal *j, uint64_t offset)
{
    const struct tt_source *src = &j->file->source;
    g_autofree uint8_t *head = g_malloc(TT_HEAD_MAX);
    struct dump d = { .j = j };
    struct tt_frame_header h;
    struct tt_error err = { 0 };
    struct tt_frame f;
    struct sink s;
    int r;

    if (offset > src->size || sizeof(h) > src->size - offset) {
        return tool_fail(EXIT_USAGE,
                         "--raw-at: %" PRIu64 " is behind the end of %s, "
                         "which has %" PRIu64 " bytes",
                         offset, j->file->path, src->size);
    }
    r = src->read(src->opaque, offset, &h, sizeof(h));
    if (r < 0) {
        return tool_fail(EXIT_IO, "%s: reading at %" PRIu64 ": %s",
                         j->file->path, offset, g_strerror(-r));
    }
    s = line_begin("raw");
    sink_int(&s, "at", offset);
    sink_word(&s, "valid", header_verdict(j, &h, offset));
    header_fields(&s, &h);
    r = j->super.segment_size == 0 /* there is none: nothing to go by */
            ? 0
            : tt_frame_read(&j->super, src, offset, head, &f, &err);
    sink_word(&s, "table", r == 1 ? "whole" : "damaged");
    line_end(&s);
    if (r == 1) {
        dump_records(&d, &f, head + sizeof(h));
    }
    return EXIT_OK;
}

/* Shows what can be shown, whatever state the superblocks are in. */
static int dump(struct tool_journal *j)
{
    struct tt_error err = { 0 };
    int r = tt_super_read(&j->file->source, &j->super, &j->damaged_superblocks,
                          &err);
    int status;

    if (r < 0) {
        memset(&j->super, 0, sizeof(j->super));
    }
    if (opt_raw_at >= 0) {
        return dump_raw(j, (uint64_t)opt_raw_at);
    }
    dump_super_at(j, 0);
    dump_super_at(j, TT_SUPERBLOCK_COPY);
    if (r < 0) {
        tt_file_name_error(j->file->path, r, &err);
        status = tool_report(&err);
    } else {
        status = dump_all(j);
    }
    return status;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    struct tool_journal j = { 0 };
    struct tt_error err = { 0 };

    if (status == EXIT_OK && (opt_raw_at < -1 || opt_from < 0)) {
        status = tool_fail(EXIT_USAGE, "dump: numbers must not be negative");
    }
    if (status == EXIT_OK && tt_file_open(argv[1], &j.file, &err) < 0) {
        status = tool_fail(EXIT_NOT_JOURNAL, "%s", err.message);
    }
    if (status != EXIT_OK) {
        return status;
    }
    status = dump(&j);
    tool_close(&j);
    return status;
}

const struct tool_command cmd_dump = {
    .name = "dump",
    .synopsis = "JOURNAL",
    .summary = "Show every frame and record, for developers",
    .examples = "  ttjournal dump disk.ttj | less\n"
                "  ttjournal dump --json --from 4711 disk.ttj\n"
                "  ttjournal dump --raw-at 65536 disk.ttj\n",
    .run = run,
};
