/*
 * Checksums, and the grid that payload is cut on
 *
 * XXH3 with 64 bits, from libxxhash, compiled in so that the core needs no
 * library at run time.  Pieces are cut on the disk's absolute 4 KiB grid: a
 * block has the same checksum wherever and with whatever it is stored.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <ttjournal/ttjournal.h>

#include "checksum.h"

#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#include <xxhash.h>

uint64_t tt_checksum(const void *buf, size_t length)
{
#ifdef TT_HAVE_AVX2
    /* with short ones the difference is lost in the call */
    if (length > XXH3_MIDSIZE_MAX && __builtin_cpu_supports("avx2")) {
        return tt_checksum_avx2(buf, length);
    }
#endif
    return XXH3_64bits(buf, length);
}

uint32_t tt_grid_pieces(uint64_t offset, uint64_t length)
{
    if (!length) {
        return 0;
    }
    return (uint32_t)((offset % TT_GRID + length + TT_GRID - 1) / TT_GRID);
}

void tt_grid_checksums(const void *buf, uint64_t offset, uint64_t length,
                       tt_le64 *ret_checksums)
{
    const uint8_t *p = buf;

    while (length) {
        uint64_t piece = TT_GRID - offset % TT_GRID;

        if (piece > length) {
            piece = length;
        }
        *ret_checksums++ = tt_put64(tt_checksum(p, piece));
        p += piece;
        offset += piece;
        length -= piece;
    }
}
