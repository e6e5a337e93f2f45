/*
 * Members of RAIDs and the like: is what is missing told, and nothing that a
 * forged one could do with a terminal?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/member.h"
#include "../../tools/tool.h"
#include "members.h"
#include "unit.h"

struct disks {
    struct member part[8];
    GPtrArray *found;
};

/* Reads @size bytes, which are at @at, as one more member. */
static struct member *add(struct disks *d, const uint8_t *bytes, size_t size,
                          uint64_t at, const char *type, uint64_t magic,
                          const char *uuid)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    struct member *m = &d->part[d->found ? d->found->len : 0];

    if (d->found == NULL) {
        d->found = g_ptr_array_new();
    }
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, size, (off_t)at), (ssize_t)size);
    member_read(fd, 0, type, magic, NULL, uuid, m);
    close(fd);
    g_ptr_array_add(d->found, m);
    return m;
}

static void clear(struct disks *d)
{
    for (unsigned i = 0; i < d->found->len; i++) {
        member_clear(d->found->pdata[i]);
    }
    g_ptr_array_unref(d->found);
}

static struct member *add_md1(struct disks *d, unsigned role, unsigned count,
                              uint64_t events)
{
    uint8_t disk[MEMBERS_DISK] = { 0 };

    members_md1(disk, role, count, events);
    return add(d, disk, sizeof(disk), 0, "linux_raid_member", MEMBERS_MD1,
               "raid");
}

static struct member *add_lvm(struct disks *d, const char *text,
                              const char *uuid)
{
    uint8_t disk[MEMBERS_DISK] = { 0 };

    members_lvm(disk, text);
    return add(d, disk, sizeof(disk), 0, "LVM2_member", MEMBERS_LABEL + 24,
               uuid);
}

#define MISSING(d, want)                                                       \
    do {                                                                       \
        g_autofree char *missing_ =                                            \
            member_missing((d)->found, (d)->found->pdata[0]);                  \
        ck_assert_pstr_eq(missing_, want);                                     \
    } while (0)

START_TEST(md)
{
    struct disks d = { 0 };
    struct member *m = add_md1(&d, 0, 3, 10);

    ck_assert_str_eq(m->level, "raid1");
    ck_assert_str_eq(m->own, "0");
    ck_assert_str_eq(m->set, "raid");
    MISSING(&d, "1, 2");
    add_md1(&d, 2, 3, 8);
    MISSING(&d, "1, 2 (out of date)");
    /* the one that replaced it, named after it */
    add_md1(&d, 2, 3, 11);
    MISSING(&d, "1");
    /* a spare is none of them, nor is one that says nonsense */
    ck_assert_ptr_null(add_md1(&d, 0xffff, 3, 11)->own);
    ck_assert_ptr_null(add_md1(&d, 7, 3, 11)->own);
    add_md1(&d, 1, 3, 11);
    MISSING(&d, NULL);
    clear(&d);
}
END_TEST

START_TEST(md_to_the_limits)
{
    struct disks d = { 0 };

    add_md1(&d, 0, 2, UINT64_MAX);
    add_md1(&d, 1, 2, UINT64_MAX);
    MISSING(&d, NULL);
    add_md1(&d, 1, 1025, 1);
    ck_assert_uint_eq(d.part[2].count, 0);
    clear(&d);

    d = (struct disks){ 0 };
    add_md1(&d, 0, 1024, 1);
    MISSING(&d, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 "
                "and 1007 more");
    clear(&d);
}
END_TEST

START_TEST(old_md)
{
    uint8_t disk[4096] = { 0 };
    struct disks d = { 0 };
    struct member *m;

    members_md0(disk, 1, 3, 5);
    m = add(&d, disk, sizeof(disk), 0, "linux_raid_member", 0, "raid");
    ck_assert_str_eq(m->level, "raid5");
    ck_assert_str_eq(m->own, "1");
    ck_assert_uint_eq(m->age, 5);
    MISSING(&d, "0, 2");
    clear(&d);
}
END_TEST

START_TEST(lvm)
{
    struct disks d = { 0 };
    struct member *m = add_lvm(&d, members_vg, "pv-a");

    ck_assert_str_eq(m->name, "vg");
    ck_assert_str_eq(m->set, "group-id");
    ck_assert_uint_eq(m->count, 2);
    MISSING(&d, "pv-b");
    add_lvm(&d, members_vg, "pv-b");
    MISSING(&d, NULL);
    clear(&d);
}
END_TEST

START_TEST(lvm_in_two_pieces)
{
    uint8_t disk[MEMBERS_DISK] = { 0 };
    struct disks d = { 0 };
    size_t first = 64;
    struct member *m;

    /* the text goes on at the area's begin */
    members_lvm(disk, members_vg);
    memset(disk + MEMBERS_TEXT, 0, strlen(members_vg));
    memcpy(disk + 8192 - first, members_vg, first);
    memcpy(disk + MEMBERS_TEXT, members_vg + first, strlen(members_vg) - first);
    disk[4096 + 40] = (4096 - first) & 0xff;
    disk[4096 + 41] = (4096 - first) >> 8;
    m = add(&d, disk, sizeof(disk), 0, "LVM2_member", MEMBERS_LABEL + 24,
            "pv-a");
    ck_assert_str_eq(m->name, "vg");
    MISSING(&d, "pv-b");
    clear(&d);
}
END_TEST

START_TEST(btrfs)
{
    uint8_t super[4096] = { 0 };
    struct disks d = { 0 };

    members_btrfs(super, 1, 3);
    add(&d, super, sizeof(super), MEMBERS_BTRFS_SUPER, "btrfs", 0, "fs");
    MISSING(&d, "2 of 3 members");
    members_btrfs(super, 2, 3);
    add(&d, super, sizeof(super), MEMBERS_BTRFS_SUPER, "btrfs", 0, "fs");
    MISSING(&d, "1 of 3 members");
    clear(&d);
}
END_TEST

static void check_harmless(const char *text)
{
    ck_assert(g_utf8_validate(text, -1, NULL));
    for (const char *p = text; *p != '\0'; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        ck_assert_msg(!g_unichar_iscntrl(c) && c != 0x202e, "%s", text);
    }
}

START_TEST(names_drive_no_terminal)
{
    static const char *const texts[] = {
        " {\nid = \"\033[2J\"\n}",
        "\033]0;x\a {\nid = \"\033[2J\"\n}",
        "\xc2\x9b"
        "2J\xff\xe2\x80\xae {\nid = \"\xc2\x9b"
        "2J\"\n"
        "physical_volumes {\np {\nid = \"\033[31m\xff\"\n}\n}\n}",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct disks d = { 0 };
        struct member *m = add_lvm(&d, texts[i], "pv");
        g_autofree char *what = NULL, *missing = NULL;

        if (m->set != NULL) {
            what = member_describe(m, "LVM2_member");
            check_harmless(what);
            missing = member_missing(d.found, m);
        }
        if (missing != NULL) {
            check_harmless(missing);
        }
        if (i == 2) {
            ck_assert_str_eq(missing, "\\x1b[31m\\xff");
        }
        clear(&d);
    }
}
END_TEST

START_TEST(json_drives_no_terminal)
{
    static const char odd[] = "a\033\x1f\x7f\xc2\x9b\xe2\x80\xae\xff\"\\"
                              "\xc3\xa9";
    int fd = memfd_create("stdout", MFD_CLOEXEC), saved = dup(STDOUT_FILENO);
    JsonBuilder *b = json_builder_new();
    g_autoptr(JsonParser) parser = json_parser_new();
    char text[400] = "";
    JsonObject *object;

    json_builder_begin_object(b);
    json_string(b, "x", odd);
    json_builder_end_object(b);
    fflush(stdout);
    dup2(fd, STDOUT_FILENO);
    json_print(b, true);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    ck_assert_int_gt(pread(fd, text, sizeof(text) - 1, 0), 0);
    close(fd);
    ck_assert(json_parser_load_from_data(parser, text, -1, NULL));
    object = json_node_get_object(json_parser_get_root(parser));
    ck_assert_str_eq(json_object_get_string_member(object, "x"),
                     "a\033\x1f\x7f\xc2\x9b\xe2\x80\xae\xef\xbf\xbd\"\\"
                     "\xc3\xa9");
    g_strdelimit(text, "\n", ' ');
    check_harmless(text);
}
END_TEST

int main(void)
{
    return unit_run("member",
                    (const TTest *const *const[]){
                        &md, &md_to_the_limits, &old_md, &lvm,
                        &lvm_in_two_pieces, &btrfs, &names_drive_no_terminal,
                        &json_drives_no_terminal, NULL });
}
