/*
 * What md, LVM and btrfs write at the beginning of a disk, as far as the tool
 * reads it: written here by hand, after their formats
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef MEMBERS_H
#define MEMBERS_H

#include <stdint.h>

#define MEMBERS_DISK 8192 /* enough for all but btrfs */
#define MEMBERS_MD1 4096  /* where version 1.2 has its superblock */
#define MEMBERS_LABEL 512 /* of LVM; its text is at 4608 */
#define MEMBERS_TEXT 4608
#define MEMBERS_BTRFS_SUPER 65536

/* @disk: zeroed, MEMBERS_DISK bytes */
void members_md1(uint8_t *disk, unsigned role, unsigned count, uint64_t events);
void members_md0(uint8_t *disk, unsigned role, unsigned count,
                 uint64_t events); /* at 0 */
void members_lvm(uint8_t *disk, const char *text);
/* @super: 4 KiB */
void members_btrfs(uint8_t *super, uint64_t id, uint64_t count);

/* A volume group "vg" of two disks, "pv-a" and "pv-b" */
extern const char members_vg[];

#endif
