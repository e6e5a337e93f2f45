/*
 * What is on a disk?
 *
 * libblkid looks at a file or device; nothing is attached, scanned or
 * activated for that.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <blkid.h>
#include <string.h>

#include "probe.h"
#include "process.h"
#include "tool.h"

/* As many as --partition takes; a forged table can have millions */
#define PARTITIONS_MAX 1024

void probe_clear(struct probe *p)
{
    g_free(p->table);
    g_free(p->type);
    g_free(p->usage);
    g_free(p->version);
    g_free(p->label);
    g_free(p->uuid);
    g_free(p->name);
    member_clear(&p->part);
    memset(p, 0, sizeof(*p));
}

bool probe_is_fs(const struct probe *p)
{
    /* libblkid counts a member of a pool as one, too */
    return p->type != NULL && g_strcmp0(p->usage, "filesystem") == 0 &&
           strcmp(p->type, "zfs_member") != 0;
}

static char *value(blkid_probe pr, const char *name)
{
    const char *data = NULL;

    return blkid_probe_lookup_value(pr, name, &data, NULL) == 0 ? g_strdup(data)
                                                                : NULL;
}

static blkid_probe open_probe(int fd, uint64_t start, uint64_t size)
{
    blkid_probe pr = blkid_new_probe();

    if (pr != NULL && blkid_probe_set_device(pr, fd, (blkid_loff_t)start,
                                             (blkid_loff_t)size) < 0) {
        blkid_free_probe(pr);
        pr = NULL;
    }
    return pr;
}

void probe_range(int fd, uint64_t start, uint64_t size, struct probe *ret)
{
    blkid_probe pr = open_probe(fd, start, size);
    g_autofree char *magic = NULL;

    *ret = (struct probe){ .start = start, .size = size };
    if (pr == NULL) {
        return;
    }
    blkid_probe_enable_superblocks(pr, 1);
    blkid_probe_set_superblocks_flags(
        pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL |
                BLKID_SUBLKS_UUID | BLKID_SUBLKS_VERSION | BLKID_SUBLKS_MAGIC);
    blkid_probe_enable_partitions(pr, 1);
    ret->ambiguous = blkid_do_safeprobe(pr) == -2;
    if (!ret->ambiguous) {
        ret->type = value(pr, "TYPE");
        ret->usage = value(pr, "USAGE");
        ret->version = value(pr, "VERSION");
        ret->label = value(pr, "LABEL");
        ret->uuid = value(pr, "UUID");
        ret->table = value(pr, "PTTYPE");
        magic = value(pr, "SBMAGIC_OFFSET");
        member_read(fd, start, ret->type,
                    magic ? g_ascii_strtoull(magic, NULL, 10) : 0, ret->label,
                    ret->uuid, &ret->part);
    }
    blkid_free_probe(pr);
}

static void add_partition(GArray *array, int fd, blkid_partition part,
                          uint64_t disk_size)
{
    uint64_t start = (uint64_t)blkid_partition_get_start(part) * 512;
    uint64_t size = (uint64_t)blkid_partition_get_size(part) * 512;
    struct probe p = { .start = start, .size = size };

    /* a table may say anything, also what is not there */
    if (start < disk_size && size <= disk_size - start) {
        probe_range(fd, start, size, &p);
    }
    p.number = blkid_partition_get_partno(part);
    p.name = g_strdup(blkid_partition_get_name(part));
    g_array_append_val(array, p);
}

GArray *probe_disk(int fd, uint64_t size)
{
    GArray *array = g_array_new(FALSE, TRUE, sizeof(struct probe));
    struct probe disk;
    blkid_probe pr;
    blkid_partlist list;
    int count;

    g_array_set_clear_func(array, (GDestroyNotify)probe_clear);
    probe_range(fd, 0, size, &disk);
    g_array_append_val(array, disk);
    pr = disk.table ? open_probe(fd, 0, size) : NULL;
    list = pr ? blkid_probe_get_partitions(pr) : NULL;
    count = list ? blkid_partlist_numof_partitions(list) : 0;
    if (count > PARTITIONS_MAX) {
        tool_warn("the disk has %d partitions: looking at the first %d", count,
                  PARTITIONS_MAX);
        count = PARTITIONS_MAX;
    }
    for (int i = 0; i < count && !process_interrupted(); i++) {
        blkid_partition part = blkid_partlist_get_partition(list, i);

        if (!blkid_partition_is_extended(part)) {
            add_partition(array, fd, part, size);
        }
    }
    if (pr != NULL) {
        blkid_free_probe(pr);
    }
    return array;
}
