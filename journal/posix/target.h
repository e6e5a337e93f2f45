/*
 * A raw disk that recovery writes to
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_TARGET_H
#define TTJOURNAL_POSIX_TARGET_H

#include "file.h"

struct tt_target {
    int fd;
    char *path;
    struct tt_file reading; /* the same descriptor */
    uint64_t size;          /* a multiple of TT_SECTOR, as QEMU has it */
    bool device;
    bool no_punch; /* holes cannot be made: zeroes are written */
};

/*
 * Opens the file or block device at @path and takes the locks that QEMU takes
 * who writes to a disk (@read_only: only asks whether somebody has them).
 * What begins like an image of another format is refused unless @known_raw.
 */
int tt_target_open(const char *path, bool read_only, bool known_raw,
                   struct tt_target **ret, struct tt_error *err);
void tt_target_close(struct tt_target *t);

/* Inode and modification time (ns); false if it is no regular file. */
bool tt_target_stat(const struct tt_target *t, uint64_t *ret_inode,
                    int64_t *ret_mtime);

int tt_target_read(const struct tt_target *t, uint64_t offset, void *buf,
                   size_t length, struct tt_error *err);
/* How many bytes from @offset on, at most @length, are known to be zero. */
uint64_t tt_target_hole(const struct tt_target *t, uint64_t offset,
                        uint64_t length);

int tt_target_write(struct tt_target *t, uint64_t offset, const void *buf,
                    size_t length, struct tt_error *err);
int tt_target_zero(struct tt_target *t, uint64_t offset, uint64_t length,
                   struct tt_error *err);
int tt_target_resize(struct tt_target *t, uint64_t size, struct tt_error *err);
int tt_target_flush(struct tt_target *t, struct tt_error *err);

#endif
