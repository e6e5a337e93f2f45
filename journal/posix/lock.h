/*
 * QEMU's image lock, so that a journal has one writer
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_LOCK_H
#define TTJOURNAL_POSIX_LOCK_H

#include <ttjournal/ttjournal.h>

/*
 * Locks the file behind @fd as a writer that lets others only read.  The lock
 * lasts until @fd is closed.  When another holds it, err->os_errno is EBUSY.
 */
int tt_lock_writer(int fd, const char *path, struct tt_error *err);

/* Would tt_lock_writer() refuse?  Takes nothing, and @fd may be read-only. */
int tt_lock_ask(int fd, const char *path, struct tt_error *err);

/* Does another process write the file: 1, 0, or -errno if it cannot be told */
int tt_lock_is_written(int fd);

#endif
