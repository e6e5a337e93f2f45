/*
 * What does a record say?
 *
 * One function per kind that has something to say names its fields once;
 * a sink makes text or JSON of them, so that `log` and `dump` and both their
 * outputs cannot disagree.  Bodies come from a file and are checked: one that
 * is too short for its kind, or whose checksum does not fit, is described as
 * such and never read beyond its end.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "record.h"

/* ---- sinks ------------------------------------------------------------- */

void sink_int(struct sink *s, const char *name, uint64_t value)
{
    if (s->json) {
        json_int(s->json, name, value);
    } else {
        g_string_append_printf(s->text, " %s=%" PRIu64, name, value);
    }
}

void sink_signed(struct sink *s, const char *name, int64_t value)
{
    if (s->json) {
        json_builder_set_member_name(s->json, name);
        json_builder_add_int_value(s->json, value);
    } else {
        g_string_append_printf(s->text, " %s=%" PRId64, name, value);
    }
}

void sink_hex(struct sink *s, const char *name, uint64_t value)
{
    if (s->json) {
        json_hex(s->json, name, value);
    } else {
        g_string_append_printf(s->text, " %s=%016" PRIx64, name, value);
    }
}

void sink_time(struct sink *s, const char *name, int64_t value)
{
    char buf[TT_TIME_SIZE];

    tt_time_format(value, buf);
    if (s->json) {
        json_string(s->json, name, buf);
    } else {
        g_string_append_printf(s->text, " %s=%s", name, buf);
    }
}

void sink_text(struct sink *s, const char *name, const char *value,
               size_t length)
{
    g_autofree char *visible = NULL;

    if (s->json) {
        json_text(s->json, name, value, length);
        return;
    }
    visible = tool_visible(value, length);
    g_string_append_printf(
        s->text, strchr(visible, ' ') ? " %s=\"%s\"" : " %s=%s", name, visible);
}

static void sink_string(struct sink *s, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0') {
        sink_text(s, name, value, strlen(value));
    }
}

static void sink_flag(struct sink *s, const char *name, bool value)
{
    if (s->json) {
        json_bool(s->json, name, value);
    } else {
        g_string_append_printf(s->text, " %s=%s", name, value ? "yes" : "no");
    }
}

/* ---- kinds ------------------------------------------------------------- */

struct body {
    const uint8_t *bytes;
    uint32_t length;
};

static bool body_copy(const struct body *body, void *ret, size_t size)
{
    if (body->length < size) {
        return false;
    }
    memcpy(ret, body->bytes, size);
    return true;
}

static bool describe_flush(struct sink *s, const struct body *body)
{
    struct tt_flush_body b;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    sink_int(s, "covered_seq", tt_get64(b.covered_seq));
    return true;
}

static bool describe_mark(struct sink *s, const struct body *body)
{
    sink_text(s, "name", (const char *)body->bytes, body->length);
    return true;
}

static bool describe_event(struct sink *s, const struct body *body)
{
    static const char *const sources[] = { "unknown", "host", "guest", "tool" };
    struct tt_event_body b;
    uint32_t source, length;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    source = tt_get32(b.source);
    length = tt_get32(b.length);
    if (length > body->length - sizeof(b)) {
        return false;
    }
    sink_string(s, "source",
                sources[source < G_N_ELEMENTS(sources) ? source : 0]);
    sink_text(s, "text", (const char *)body->bytes + sizeof(b), length);
    return true;
}

static bool describe_clock(struct sink *s, const struct body *body)
{
    static const char *const reasons[] = { "unknown", "backward", "forward",
                                           "another-boot" };
    struct tt_clock_body b;
    uint32_t reason;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    reason = tt_get32(b.reason);
    sink_string(s, "reason",
                reasons[reason < G_N_ELEMENTS(reasons) ? reason : 0]);
    sink_int(s, "old_epoch", tt_get64(b.old_epoch));
    sink_time(s, "old_last_time", (int64_t)tt_get64(b.old_last_time));
    sink_time(s, "old_end_time", (int64_t)tt_get64(b.old_end_time));
    sink_time(s, "new_time", (int64_t)tt_get64(b.new_time));
    sink_int(s, "old_boottime", tt_get64(b.old_boottime));
    sink_int(s, "new_boottime", tt_get64(b.new_boottime));
    return true;
}

static bool describe_checkpoint(struct sink *s, const struct body *body)
{
    struct tt_checkpoint_body b;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    sink_int(s, "level_seq", tt_get64(b.level_seq));
    sink_int(s, "map_prev", tt_get64(b.map_prev));
    if (tt_get32(b.flags) & TT_CHECKPOINT_HAS_STAT) {
        sink_int(s, "disk_inode", tt_get64(b.disk_inode));
        sink_time(s, "disk_mtime", (int64_t)tt_get64(b.disk_mtime));
    }
    sink_int(s, "ranges", tt_get32(b.range_count));
    sink_flag(s, "clean", tt_get32(b.flags) & TT_CHECKPOINT_CLEAN);
    return true;
}

static bool describe_gap(struct sink *s, const struct body *body)
{
    static const char *const reasons[] = { "unknown", "journal-error", "paused",
                                           "changed-behind", "unknown" };
    struct tt_gap_body b;
    uint32_t reason;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    reason = tt_get32(b.reason);
    sink_string(s, "reason",
                reasons[reason < G_N_ELEMENTS(reasons) ? reason : 0]);
    sink_int(s, "from_seq", tt_get64(b.from_seq));
    sink_time(s, "from_time", (int64_t)tt_get64(b.from_time));
    sink_int(s, "from_epoch", tt_get64(b.from_epoch));
    sink_time(s, "to_time", (int64_t)tt_get64(b.to_time));
    if (tt_get64(b.opens_seq) != 0) {
        sink_int(s, "closes_gap", tt_get64(b.opens_seq));
    }
    sink_flag(s, "open", tt_get32(b.flags) & TT_GAP_OPEN);
    if (tt_get32(b.range_count) == 0) {
        sink_string(s, "in_doubt", "whole-disk");
    } else {
        sink_int(s, "ranges_in_doubt", tt_get32(b.range_count));
    }
    return true;
}

static bool describe_seal(struct sink *s, const struct body *body)
{
    struct tt_seal_body b;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    sink_int(s, "tree_size", tt_get64(b.tree_size));
    sink_int(s, "last_seq", tt_get64(b.last_seq));
    sink_time(s, "sealed_time", (int64_t)tt_get64(b.time));
    sink_int(s, "key_epoch", tt_get32(b.key_epoch));
    return true;
}

static bool describe_footer(struct sink *s, const struct body *body)
{
    struct tt_footer_body b;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    sink_int(s, "of_segment", tt_get64(b.segment));
    sink_int(s, "first_seq", tt_get64(b.first_seq));
    sink_int(s, "last_seq", tt_get64(b.last_seq));
    sink_int(s, "end_offset", tt_get64(b.end_offset));
    sink_int(s, "part", tt_get32(b.part));
    sink_int(s, "parts", tt_get32(b.part_count));
    sink_int(s, "entries", tt_get32(b.entry_count));
    sink_int(s, "frames", tt_get32(b.frame_count));
    return true;
}

static bool describe_damage(struct sink *s, const struct body *body)
{
    struct tt_damage_body b;

    if (!body_copy(body, &b, sizeof(b))) {
        return false;
    }
    sink_int(s, "damage_offset", tt_get64(b.offset));
    sink_int(s, "damage_length", tt_get64(b.length));
    sink_int(s, "first_seq", tt_get64(b.first_seq));
    sink_int(s, "last_seq", tt_get64(b.last_seq));
    return true;
}

static bool describe_session(struct sink *s, const struct tt_frame *f,
                             const struct tt_record *rec)
{
    g_autofree char *boot = NULL;
    struct tt_session session;

    if (tt_session_decode(rec, &session, NULL) < 0) {
        return false;
    }
    sink_int(s, "session", f->session);
    sink_string(s, "role",
                session.flags & TT_SESSION_RECORDER ? "recorder" : "tool");
    if (f->session > 1) {
        sink_flag(s, "after_clean_close", session.flags & TT_SESSION_CLEAN);
    }
    sink_string(s, "program", session.program);
    sink_string(s, "host", session.host);
    sink_string(s, "machine_id", session.machine_id);
    sink_int(s, "pid", session.pid);
    sink_string(s, "node", session.node);
    sink_string(s, "disk_format", session.disk_format);
    sink_string(s, "disk_path", session.disk_path);
    sink_int(s, "disk_size", session.disk_size);
    boot = tool_uuid(session.boot_id);
    sink_string(s, "boot_id", boot);
    sink_int(s, "boottime", session.boottime);
    if (session.recovered_from) {
        sink_int(s, "recovered_from", session.recovered_from);
    }
    if (session.torn_length) {
        sink_int(s, "torn_offset", session.torn_offset);
        sink_int(s, "torn_length", session.torn_length);
    }
    tt_session_clear(&session);
    return true;
}

static void describe_flags(struct sink *s, const struct tt_record *rec)
{
    if (rec->flags & TT_RECORD_DISCARD) {
        sink_string(s, "as", "discard");
    } else if (rec->flags & TT_RECORD_UNMAP) {
        sink_string(s, "as", "unmap");
    }
    if (rec->flags & TT_RECORD_FOUND) {
        sink_flag(s, "found", true);
    }
    if (rec->flags & TT_RECORD_FUA) {
        sink_flag(s, "fua", true);
    }
    if (rec->kind == TT_KIND_PREIMAGE && rec->flags & TT_RECORD_ZEROES) {
        sink_string(s, "content", "zeroes");
    }
}

typedef bool describe_fn(struct sink *s, const struct body *body);

static describe_fn *body_describer(uint16_t kind)
{
    switch (kind) {
    case TT_KIND_FLUSH:
        return describe_flush;
    case TT_KIND_MARK:
        return describe_mark;
    case TT_KIND_EVENT:
        return describe_event;
    case TT_KIND_CLOCK:
        return describe_clock;
    case TT_KIND_CHECKPOINT:
        return describe_checkpoint;
    case TT_KIND_GAP:
        return describe_gap;
    case TT_KIND_SEAL:
        return describe_seal;
    case TT_KIND_FOOTER:
        return describe_footer;
    case TT_KIND_DAMAGE:
        return describe_damage;
    default:
        return NULL;
    }
}

/*
 * The record's body, from the table or from the journal; NULL if it cannot be
 * read or its checksum does not fit.  @ret_owned is to be g_free()d.
 */
static const uint8_t *record_body(const struct tt_source *src,
                                  const struct tt_frame *f,
                                  const struct tt_record *rec,
                                  uint8_t **ret_owned)
{
    uint64_t offset = f->offset + rec->payload_offset;
    uint32_t bad;

    *ret_owned = NULL;
    if (rec->body != NULL || rec->payload_length == 0) {
        return rec->body ? rec->body : (const uint8_t *)"";
    }
    if (rec->payload_length > TT_PAYLOAD_RECORD_MAX || offset < f->offset ||
        offset > src->size || rec->payload_length > src->size - offset) {
        return NULL;
    }
    *ret_owned = g_malloc(rec->payload_length);
    if (src->read(src->opaque, offset, *ret_owned, rec->payload_length) < 0 ||
        !tt_payload_check(rec, *ret_owned, &bad)) {
        return NULL;
    }
    return *ret_owned;
}

void record_describe(struct sink *s, const struct tt_source *src,
                     const struct tt_frame *f, const struct tt_record *rec)
{
    describe_fn *describe = body_describer(rec->kind);
    g_autofree uint8_t *owned = NULL;
    struct body body = { .length = rec->payload_length };
    bool whole = true;

    if (rec->kind == TT_KIND_RESIZE) {
        sink_int(s, "old_size", rec->disk_offset);
        sink_int(s, "new_size", rec->disk_length);
    } else if (rec->kind == TT_KIND_SESSION) {
        whole = describe_session(s, f, rec);
    } else if (describe != NULL) {
        body.bytes = record_body(src, f, rec, &owned);
        whole = body.bytes != NULL && describe(s, &body);
    }
    describe_flags(s, rec);
    if (!whole) {
        sink_string(s, "damaged", "body");
    }
}

const char *record_kind(uint16_t kind, char buf[static 16])
{
    const char *name = tt_kind_name(kind);

    if (name == NULL) {
        g_snprintf(buf, 16, "kind-%u", kind);
        name = buf;
    }
    return name;
}

/* ---- kinds as users type them ------------------------------------------ */

static int kind_by_name(const char *name)
{
#define X(value, id, text, about)                                              \
    if (strcmp(name, text) == 0) {                                             \
        return value;                                                          \
    }
    TT_RECORD_KINDS(X)
#undef X
    return 0;
}

int record_parse_kinds(const char *text, GHashTable **ret_kinds)
{
    g_autoptr(GHashTable) kinds = g_hash_table_new(NULL, NULL);
    g_auto(GStrv) names = g_strsplit(text, ",", -1);

    for (char **name = names; *name != NULL; name++) {
        int kind = kind_by_name(g_strstrip(*name));

        if (kind == 0) {
#define X(value, id, kind_name, about) " " kind_name
            return tool_fail(EXIT_USAGE,
                             "--kind: '%s' is not a kind of record; there "
                             "are:" TT_RECORD_KINDS(X),
                             *name);
#undef X
        }
        g_hash_table_add(kinds, GINT_TO_POINTER(kind));
    }
    *ret_kinds = g_steal_pointer(&kinds);
    return EXIT_OK;
}
