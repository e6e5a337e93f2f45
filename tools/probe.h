/*
 * What is on a disk: partitions, and what is in them
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_PROBE_H
#define TTJOURNAL_PROBE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "member.h"

struct probe {
    int number;     /* of the partition; 0: the disk itself */
    uint64_t start; /* byte offset */
    uint64_t size;
    char *table; /* there is a partition table in it, of this kind; or NULL */
    char *type;  /* as libblkid calls it; NULL if it knows nothing there */
    char *usage; /* "filesystem", "raid", "crypto", "other"; or NULL */
    char *version, *label, *uuid;
    char *name;         /* of the partition, in its table; or NULL */
    bool ambiguous;     /* there are signatures of several */
    struct member part; /* of what lies on several disks, if it is */
};

/* What lies at [@start, @start + @size) of the file or device @fd. */
void probe_range(int fd, uint64_t start, uint64_t size, struct probe *ret);
/* The disk, then its partitions: an array of struct probe. */
GArray *probe_disk(int fd, uint64_t size);

void probe_clear(struct probe *p);

bool probe_is_fs(const struct probe *p);

#endif
