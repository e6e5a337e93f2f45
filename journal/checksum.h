/*
 * The checksum for processors with AVX2; the result is the same everywhere.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJ_CHECKSUM_H
#define TTJ_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t tt_checksum_avx2(const void *buf, size_t length);

#endif
