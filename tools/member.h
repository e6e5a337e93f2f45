/*
 * What a part of something that can lie on several disks says of the rest
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_MEMBER_H
#define TTJOURNAL_MEMBER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* All of it as the disk says; it may lie. */
struct member {
    char *set;      /* the UUID of what it is a part of; NULL: of nothing */
    char *name;     /* of the set; or NULL */
    char *level;    /* "raid1", …; NULL: not a RAID */
    unsigned count; /* of members, when whole; 0: it does not say */
    char **all;     /* what they are called, to a NULL; or NULL */
    char *own;      /* what this one is called; NULL: a spare, or unknown */
    uint64_t age;   /* of its latest change; those of less are out of date */
};

/*
 * Fills in what is found behind the file system type @type that libblkid has
 * found at @start of @fd; @magic is where, from there, its signature is.
 */
void member_read(int fd, uint64_t start, const char *type, uint64_t magic,
                 const char *label, const char *uuid, struct member *ret);
void member_clear(struct member *m);

/*
 * Which of @set's members are not among @found, pointers to struct member?
 * In words; NULL if all are there.  g_free() it.
 */
char *member_missing(const GPtrArray *found, const struct member *set);
/* "RAID1", "LVM volume group", …, with its name, in words; g_free() it. */
char *member_describe(const struct member *m, const char *type);

#endif
