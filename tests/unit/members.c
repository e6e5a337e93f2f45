/*
 * Superblocks and labels by hand: see members.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "members.h"

const char members_vg[] = "vg {\nid = \"group-id\"\nseqno = 2\n"
                          "physical_volumes {\n\n"
                          "pv0 {\nid = \"pv-a\"\ndevice = \"/dev/sda1\"\n}\n\n"
                          "pv1 {\nid = \"pv-b\"\ndevice = \"/dev/sdb1\"\n}\n}\n"
                          "logical_volumes {\n\n"
                          "root {\nid = \"lv-id\"\n}\n}\n}\n";

static void put(uint8_t *p, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(value >> 8 * i);
    }
}

void members_md1(uint8_t *disk, unsigned role, unsigned count, uint64_t events)
{
    uint8_t *sb = disk + MEMBERS_MD1;

    put(sb, 0xa92b4efc, 4);
    put(sb + 4, 1, 4);
    memset(sb + 16, 0x11, 16); /* UUID */
    strcpy((char *)sb + 32, "host:name");
    put(sb + 72, 1, 4); /* RAID 1 */
    put(sb + 92, count, 4);
    put(sb + 160, 3, 4); /* its place among the roles */
    put(sb + 200, events, 8);
    put(sb + 220, 16, 4); /* places */
    memset(sb + 256, 0xff, 32);
    put(sb + 256 + 3 * 2, role, 2);
}

void members_md0(uint8_t *disk, unsigned role, unsigned count, uint64_t events)
{
    put(disk, 0xa92b4efc, 4);
    put(disk + 7 * 4, 5, 4); /* RAID 5 */
    put(disk + 10 * 4, count, 4);
    put(disk + 39 * 4, events, 8);
    put(disk + (992 + 3) * 4, role, 4);
}

void members_lvm(uint8_t *disk, const char *text)
{
    uint8_t *label = disk + MEMBERS_LABEL, *header = disk + 4096;
    size_t length = strlen(text) + 1;

    memcpy(label, "LABELONE", 8);
    put(label + 20, 32, 4);      /* where the header of the volume is */
    put(label + 72, 1 << 20, 8); /* one area of data, and their end */
    put(label + 104, 4096, 8);   /* one of metadata, 4 KiB */
    put(label + 112, 4096, 8);
    put(header + 24, 4096, 8);
    put(header + 32, 4096, 8);
    put(header + 40, MEMBERS_TEXT - 4096, 8);
    put(header + 48, length, 8);
    memcpy(disk + MEMBERS_TEXT, text, length);
}

void members_btrfs(uint8_t *super, uint64_t id, uint64_t count)
{
    memcpy(super + 0x40, "_BHRfS_M", 8);
    put(super + 0x88, count, 8);
    put(super + 0xc9, id, 8);
}
