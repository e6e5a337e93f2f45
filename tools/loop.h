/*
 * Block devices for a view: a loop device over a file, or a kernel's nbd
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_LOOP_H
#define TTJOURNAL_LOOP_H

#include <stdbool.h>

/*
 * Attaches @file to a free loop device.  It detaches by itself when nobody
 * uses it any more: keep *ret_fd open until it is mounted.  An exit status.
 */
int loop_attach(const char *file, bool writable, char **ret_device,
                int *ret_fd);

/*
 * Detaches @device if it is attached to @file, and not to another by now; and
 * waits until the kernel has let go of the file.
 */
int loop_detach(const char *device, const char *file);

#endif
