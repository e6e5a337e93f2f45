/*
 * Bodies of SESSION records, and names of marks
 *
 * A SESSION's body is a fixed part and a list of strings with tags.  A reader
 * skips tags that it does not know.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

/* Where the string with @tag is kept in @s, or NULL. */
static char **string_of(struct tt_session *s, uint16_t tag)
{
    switch (tag) {
    case TT_STRING_PROGRAM:
        return &s->program;
    case TT_STRING_HOST:
        return &s->host;
    case TT_STRING_NODE:
        return &s->node;
    case TT_STRING_DISK_FORMAT:
        return &s->disk_format;
    case TT_STRING_DISK_PATH:
        return &s->disk_path;
    case TT_STRING_MACHINE_ID:
        return &s->machine_id;
    case TT_STRING_VM_NAME:
        return &s->vm_name;
    case TT_STRING_VM_UUID:
        return &s->vm_uuid;
    }
    return NULL;
}

static const uint16_t all_tags[] = {
#define X(value, name, text) TT_STRING_##name,
    TT_SESSION_STRINGS(X)
#undef X
};
#define TAG_COUNT (sizeof(all_tags) / sizeof(all_tags[0]))

static size_t padded(size_t length)
{
    return (sizeof(struct tt_string) + length + 7) / 8 * 8;
}

static void encode_fixed(const struct tt_session *s, uint8_t *p)
{
    struct tt_session_body b = {
        .realtime = tt_put64((uint64_t)s->realtime),
        .boottime = tt_put64(s->boottime),
        .disk_size = tt_put64(s->disk_size),
        .disk_inode = tt_put64(s->disk_inode),
        .disk_mtime = tt_put64((uint64_t)s->disk_mtime),
        .recovered_from = tt_put64(s->recovered_from),
        .torn_offset = tt_put64(s->torn_offset),
        .torn_length = tt_put64(s->torn_length),
        .flags = tt_put32(s->flags),
        .pid = tt_put32(s->pid),
    };

    memcpy(b.boot_id, s->boot_id, TT_UUID_SIZE);
    memcpy(p, &b, sizeof(b));
}

uint8_t *tt_session_encode(const struct tt_session *s, uint32_t *ret_length)
{
    struct tt_session copy = *s;
    size_t length = sizeof(struct tt_session_body);
    uint8_t *buf, *p;

    for (size_t i = 0; i < TAG_COUNT; i++) {
        const char *text = *string_of(&copy, all_tags[i]);

        if (text && strlen(text) > TT_TEXT_MAX) {
            return NULL;
        }
        length += text ? padded(strlen(text)) : 0;
    }
    buf = calloc(1, length);
    if (!buf) {
        return NULL;
    }
    encode_fixed(s, buf);
    p = buf + sizeof(struct tt_session_body);
    for (size_t i = 0; i < TAG_COUNT; i++) {
        const char *text = *string_of(&copy, all_tags[i]);

        if (text) {
            struct tt_string head = { tt_put16(all_tags[i]),
                                      tt_put16((uint16_t)strlen(text)) };

            memcpy(p, &head, sizeof(head));
            memcpy(p + sizeof(head), text, strlen(text));
            p += padded(strlen(text));
        }
    }
    *ret_length = (uint32_t)length;
    return buf;
}

static int not_whole(const struct tt_record *rec, struct tt_error *err)
{
    return tt_fail(err, TT_EDAMAGED, EIO,
                   "the SESSION record %" PRIu64 " is not well-formed",
                   rec->seq);
}

static int decode_strings(const struct tt_record *rec, struct tt_session *s,
                          struct tt_error *err)
{
    const uint8_t *p = rec->body + sizeof(struct tt_session_body);
    size_t left = rec->payload_length - sizeof(struct tt_session_body);

    while (left) {
        struct tt_string head;
        char **to;
        size_t length;

        if (left < sizeof(head)) {
            return not_whole(rec, err);
        }
        memcpy(&head, p, sizeof(head));
        length = tt_get16(head.length);
        if (length > TT_TEXT_MAX || padded(length) > left) {
            return not_whole(rec, err);
        }
        to = string_of(s, tt_get16(head.tag));
        if (to && !*to) {
            *to = malloc(length + 1);
            if (!*to) {
                return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
            }
            memcpy(*to, p + sizeof(head), length);
            (*to)[length] = '\0';
        }
        p += padded(length);
        left -= padded(length);
    }
    return 0;
}

int tt_session_decode(const struct tt_record *rec, struct tt_session *ret,
                      struct tt_error *err)
{
    struct tt_session_body b;
    int r;

    if (!rec->body || rec->payload_length < sizeof(b)) {
        return not_whole(rec, err);
    }
    memcpy(&b, rec->body, sizeof(b));
    *ret = (struct tt_session){
        .seq = rec->seq,
        .realtime = (int64_t)tt_get64(b.realtime),
        .boottime = tt_get64(b.boottime),
        .disk_size = tt_get64(b.disk_size),
        .disk_inode = tt_get64(b.disk_inode),
        .disk_mtime = (int64_t)tt_get64(b.disk_mtime),
        .recovered_from = tt_get64(b.recovered_from),
        .torn_offset = tt_get64(b.torn_offset),
        .torn_length = tt_get64(b.torn_length),
        .flags = tt_get32(b.flags),
        .pid = tt_get32(b.pid),
    };
    memcpy(ret->boot_id, b.boot_id, TT_UUID_SIZE);
    r = decode_strings(rec, ret, err);
    if (r < 0) {
        tt_session_clear(ret);
    }
    return r;
}

void tt_session_clear(struct tt_session *s)
{
    for (size_t i = 0; i < TAG_COUNT; i++) {
        free(*string_of(s, all_tags[i]));
    }
    *s = (struct tt_session){ 0 };
}

bool tt_mark_name_ok(const char *name, size_t length)
{
    if (!length || length > TT_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        char c = name[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
            !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-') {
            return false;
        }
        if (c == '.' && i + 1 < length && name[i + 1] == '.') {
            return false;
        }
    }
    return true;
}
