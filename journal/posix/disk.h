/*
 * The live disk: what a view takes of blocks that were never overwritten
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_DISK_H
#define TTJOURNAL_POSIX_DISK_H

#include <ttjournal/ttjournal.h>

struct tt_disk;

/* True for NBD URIs: nbd://, nbds+unix:// and their like. */
bool tt_disk_is_uri(const char *where);

/*
 * Opens @where, the path of a raw image or block device, or an NBD URI,
 * read-only and without a lock.  A file that begins like an image of another
 * format is refused unless @known_raw: a guest may write what it likes to
 * block 0 of a raw disk, so the first bytes prove nothing if the recorder
 * knew better.
 */
int tt_disk_open(const char *where, bool known_raw, struct tt_disk **ret,
                 struct tt_error *err);
void tt_disk_close(struct tt_disk *d);

const char *tt_disk_where(const struct tt_disk *d);

/* Bytes, a multiple of TT_SECTOR: QEMU rounds a file's odd end up, too. */
uint64_t tt_disk_size(const struct tt_disk *d);

/* When it was modified last, in ns UTC; false if it is no regular file. */
bool tt_disk_modified(const struct tt_disk *d, int64_t *ret_time);

/* Fills @buf whole or fails.  May be called by several threads at once. */
int tt_disk_read(struct tt_disk *d, uint64_t offset, void *buf, size_t length,
                 struct tt_error *err);

/*
 * Does the disk read as zeroes at @offset, as far as can be told without
 * reading?  *ret_run: how far, of @length at most, that answer holds.
 */
bool tt_disk_zero(const struct tt_disk *d, uint64_t offset, uint64_t length,
                  uint64_t *ret_run);

/* ---- for who writes to a disk's file (target.c) -------------------------- */

/* Refuses what begins like an image of another format, or a journal. */
int tt_disk_check_raw(const struct tt_source *src, const char *where,
                      struct tt_error *err);
/* Behind the end of the file there are zeroes, as in QEMU. */
int tt_disk_read_file(const struct tt_source *src, const char *where,
                      uint64_t offset, uint8_t *buf, size_t length,
                      struct tt_error *err);
/* Does a driver of QEMU that is called so hand through what it opens? */
bool tt_disk_format_is_raw(const char *format);

#endif
