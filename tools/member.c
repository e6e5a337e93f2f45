/*
 * Of what is this disk or partition a part, and what else belongs to it?
 *
 * libblkid tells what it is; what a RAID of md, an LVM volume group or a btrfs
 * says of its other members is read here.  Nothing is assembled for that.
 *
 * The bytes may be forged: whatever they say is bounded, and used for messages
 * only.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "member.h"
#include "tool.h"

/* More than md, LVM and btrfs can have in practice */
#define MEMBERS_MAX 1024
#define SECTOR 512
/* LVM's own default is 1 MiB */
#define LVM_TEXT_MAX (4 * 1024 * 1024)
/* LVM's own limit */
#define LVM_NAME_MAX 127
/* Devices whose roles md's superblock has room for */
#define MD_ROLES_MAX 1920
/* What is missing is told in one line */
#define NAMED_MAX 16

void member_clear(struct member *m)
{
    g_free(m->set);
    g_free(m->name);
    g_free(m->level);
    g_strfreev(m->all);
    g_free(m->own);
    *m = (struct member){ 0 };
}

/* ---- bytes -------------------------------------------------------------- */

static bool read_at(int fd, uint64_t at, void *buf, size_t length)
{
    ssize_t n;

    do {
        n = pread(fd, buf, length, (off_t)at);
    } while (n < 0 && errno == EINTR);
    return n >= 0 && (size_t)n == length;
}

static uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t le32(const uint8_t *p)
{
    return le16(p) | (uint32_t)le16(p + 2) << 16;
}

static uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

/* ---- md ----------------------------------------------------------------- */

static char *md_level(int32_t level)
{
    switch (level) {
    case -1:
        return g_strdup("linear");
    case -4:
        return g_strdup("multipath");
    default:
        return g_strdup_printf("raid%d", (int)level);
    }
}

/* They are called by their numbers. */
static void number_all(struct member *m, unsigned count)
{
    g_autoptr(GStrvBuilder) b = g_strv_builder_new();

    if (count == 0 || count > MEMBERS_MAX) {
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *name = g_strdup_printf("%u", i);

        g_strv_builder_add(b, name);
    }
    m->count = count;
    m->all = g_strv_builder_end(b);
}

static void number_own(struct member *m, unsigned role)
{
    if (role < m->count) {
        m->own = g_strdup_printf("%u", role);
    }
}

/* Version 1: the roles of all devices follow the superblock. */
static void read_md1(int fd, uint64_t at, const uint8_t *sb, struct member *m)
{
    uint32_t device = le32(sb + 160), devices = le32(sb + 220);
    uint8_t role[2];

    m->level = md_level((int32_t)le32(sb + 72));
    m->age = le64(sb + 200);
    number_all(m, le32(sb + 92));
    if (device < devices && device < MD_ROLES_MAX &&
        read_at(fd, at + 256 + (uint64_t)device * 2, role, sizeof(role))) {
        number_own(m, le16(role));
    }
}

/* Version 0.90: in the byte order of who wrote it, nearly always this one. */
static void read_md0(const uint8_t *sb, struct member *m)
{
    m->level = md_level((int32_t)le32(sb + 7 * 4));
    m->age = le64(sb + 39 * 4);
    number_all(m, le32(sb + 10 * 4));
    number_own(m, le32(sb + (992 + 3) * 4));
}

static void read_md(int fd, uint64_t at, struct member *m)
{
    static const uint8_t magic[] = { 0xfc, 0x4e, 0x2b, 0xa9 };
    uint8_t sb[4096];

    if (!read_at(fd, at, sb, sizeof(sb)) ||
        memcmp(sb, magic, sizeof(magic)) != 0) {
        return;
    }
    if (le32(sb + 4) == 1) {
        read_md1(fd, at, sb, m);
    } else if (le32(sb + 4) == 0) {
        read_md0(sb, m);
    }
}

/* ---- LVM ---------------------------------------------------------------- */

/*
 * The metadata, as text, that the label at @label of @start leads to; NULL if
 * there is none.  The label names areas; an area names the latest text, which
 * goes on at the area's begin, behind a sector, where it meets its end.
 */
static char *lvm_text(int fd, uint64_t start, const uint8_t *label)
{
    uint32_t p = le32(label + 20) + 40; /* behind UUID and size */
    uint64_t area, size, at, length, first;
    uint8_t header[SECTOR];
    g_autofree char *text = NULL;

    while (p + 16 <= SECTOR && le64(label + p) != 0) { /* data areas */
        p += 16;
    }
    p += 16; /* their end */
    if (p + 16 > SECTOR) {
        return NULL;
    }
    area = le64(label + p);
    size = le64(label + p + 8);
    if (area == 0 || size <= SECTOR || area > INT64_MAX / 4 ||
        size > INT64_MAX / 4 ||
        !read_at(fd, start + area, header, sizeof(header))) {
        return NULL;
    }
    at = le64(header + 40);
    length = le64(header + 48);
    if (at < SECTOR || at >= size || length == 0 || length > LVM_TEXT_MAX ||
        length > size - SECTOR) {
        return NULL;
    }
    text = g_malloc0(length + 1);
    first = MIN(length, size - at);
    if (!read_at(fd, start + area + at, text, first) ||
        !read_at(fd, start + area + SECTOR, text + first, length - first)) {
        return NULL;
    }
    return g_steal_pointer(&text);
}

/* The string in the next id = "..." from @text on; NULL if there is none. */
static char *lvm_id(const char *text, const char **ret_end)
{
    static const char word[] = "id = \"";
    const char *begin = strstr(text, word), *end;

    if (begin == NULL) {
        return NULL;
    }
    begin += strlen(word);
    end = strchr(begin, '"');
    if (end == NULL || end - begin > 64) {
        return NULL;
    }
    *ret_end = end;
    return g_strndup(begin, (gsize)(end - begin));
}

/* The UUIDs in the section physical_volumes, which has one level below it. */
static void lvm_members(const char *text, struct member *m)
{
    const char *p = strstr(text, "physical_volumes {");
    g_autoptr(GStrvBuilder) b = g_strv_builder_new();
    const char *close, *open, *end;

    p = p ? strchr(p, '{') + 1 : NULL;
    while (p != NULL && m->count < MEMBERS_MAX) {
        g_autofree char *id = NULL;

        open = strchr(p, '{');
        close = strchr(p, '}');
        if (open == NULL || close == NULL || close < open) {
            break;
        }
        id = lvm_id(open, &end);
        if (id == NULL || end > close) {
            break;
        }
        g_strv_builder_add(b, id);
        m->count++;
        p = close + 1;
    }
    m->all = g_strv_builder_end(b);
}

static void read_lvm(int fd, uint64_t start, uint64_t magic, const char *uuid,
                     struct member *m)
{
    uint64_t at = magic / SECTOR * SECTOR;
    uint8_t label[SECTOR];
    g_autofree char *text = NULL, *set = NULL;
    const char *brace, *end;

    if (!read_at(fd, start + at, label, sizeof(label)) ||
        le32(label + 20) > SECTOR) {
        return;
    }
    text = lvm_text(fd, start, label);
    brace = text ? strstr(text, " {") : NULL;
    if (brace == NULL || brace == text || brace - text > LVM_NAME_MAX) {
        return; /* of no group yet */
    }
    set = lvm_id(brace, &end);
    m->set = set ? tool_visible(set, strlen(set)) : NULL;
    m->name = tool_visible(text, (gsize)(brace - text));
    m->own = g_strdup(uuid);
    lvm_members(brace, m);
}

/* ---- btrfs -------------------------------------------------------------- */

static void read_btrfs(int fd, uint64_t start, struct member *m)
{
    uint8_t sb[0x200];
    uint64_t devices;

    if (!read_at(fd, start + 64 * 1024, sb, sizeof(sb))) {
        return;
    }
    devices = le64(sb + 0x88);
    if (devices > 1 && devices <= MEMBERS_MAX) {
        m->count = (unsigned)devices;
        m->own = g_strdup_printf("%" PRIu64, le64(sb + 0xc9));
    }
}

/* ---- all ---------------------------------------------------------------- */

void member_read(int fd, uint64_t start, const char *type, uint64_t magic,
                 const char *label, const char *uuid, struct member *ret)
{
    struct member m = { 0 };

    if (g_strcmp0(type, "linux_raid_member") == 0) {
        read_md(fd, start + magic, &m);
    } else if (g_strcmp0(type, "LVM2_member") == 0) {
        read_lvm(fd, start, magic, uuid, &m);
    } else if (g_strcmp0(type, "btrfs") == 0) {
        read_btrfs(fd, start, &m);
    } else if (g_strcmp0(type, "zfs_member") != 0) {
        *ret = m;
        return;
    }
    /* of the others, libblkid's UUID is that of the whole */
    if (m.set == NULL && g_strcmp0(type, "LVM2_member") != 0 &&
        (m.count > 0 || g_strcmp0(type, "btrfs") != 0)) {
        m.set = g_strdup(uuid);
    }
    if (m.name == NULL && label != NULL) {
        m.name = tool_visible(label, strlen(label));
    }
    *ret = m;
}

/* ---- the whole ---------------------------------------------------------- */

static bool same_set(const struct member *a, const struct member *b)
{
    return g_strcmp0(a->set, b->set) == 0;
}

/* What there is of @set: the newest of each name; and the newest of all. */
static GHashTable *present(const GPtrArray *found, const struct member *set,
                           const struct member **ret_newest)
{
    GHashTable *names = g_hash_table_new(g_str_hash, g_str_equal);

    *ret_newest = set;
    for (unsigned i = 0; i < found->len; i++) {
        struct member *m = found->pdata[i];
        const struct member *other;

        if (!same_set(m, set)) {
            continue;
        }
        if (m->age > (*ret_newest)->age) {
            *ret_newest = m;
        }
        other = m->own ? g_hash_table_lookup(names, m->own) : NULL;
        if (m->own != NULL && (other == NULL || m->age > other->age)) {
            g_hash_table_replace(names, m->own, m);
        }
    }
    return names;
}

char *member_missing(const GPtrArray *found, const struct member *set)
{
    const struct member *newest; /* it knows best who belongs to it */
    g_autoptr(GHashTable) names = present(found, set, &newest);
    unsigned n = g_hash_table_size(names), count = 0;
    GString *s = g_string_new(NULL);

    if (newest->all == NULL && n < newest->count) {
        g_string_printf(s, "%u of %u members", newest->count - n,
                        newest->count);
    }
    for (char **name = newest->all; name != NULL && *name != NULL; name++) {
        const struct member *m = g_hash_table_lookup(names, *name);
        g_autofree char *text = NULL;

        /* md counts one change when it starts, disk by disk */
        if (m != NULL && newest->age - m->age <= 1) {
            continue;
        }
        if (++count <= NAMED_MAX) {
            text = tool_visible(*name, strlen(*name));
            g_string_append_printf(s, "%s%s%s", s->len ? ", " : "", text,
                                   m ? " (out of date)" : "");
        }
    }
    if (count > NAMED_MAX) {
        g_string_append_printf(s, " and %u more", count - NAMED_MAX);
    }
    return g_string_free(s, s->len == 0);
}

char *member_describe(const struct member *m, const char *type)
{
    const char *what = m->level                             ? m->level
                       : g_strcmp0(type, "zfs_member") == 0 ? "ZFS pool"
                       : g_strcmp0(type, "LVM2_member") == 0
                           ? "LVM volume group"
                           : type;

    return m->name && m->name[0] ? g_strdup_printf("%s \"%s\"", what, m->name)
                                 : g_strdup_printf("%s %s", what, m->set);
}
