/*
 * What kind of disk image is this, and how large is its disk?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_IMAGE_H
#define TTJOURNAL_IMAGE_H

#include <stdint.h>

/* "raw", or the format whose magic is found; an exit status. */
int image_probe(const char *path, const char **ret_format,
                uint64_t *ret_file_size);

#endif
