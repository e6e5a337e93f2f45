/*
 * Pieces: the range of a record, cut so that it can be searched for
 *
 * Ranges overlap, and would spoil a predecessor search.  So a record's range
 * is cut into aligned pieces whose lengths are powers of two: 512 bytes <<
 * class.  Two pieces of one class are at the same place or do not touch.
 *
 * Bytes in the journal have checksums for each cell of the disk's 4 KiB grid,
 * as far as the record fills it.  A piece of 4 KiB or more consists of whole
 * cells; a smaller one lies in one cell, which may be larger: that cell is
 * what has to be read to check it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_PIECE_H
#define TTJOURNAL_PIECE_H

#include <ttjournal/ttjournal.h>

#define PIECE_CLASSES 54u     /* up to the largest disk */
#define PIECE_GRID_CLASS 3u   /* 4 KiB */
#define PIECE_DATA_CLASSES 12 /* up to 1 MiB, which is the longest payload */

static inline uint64_t piece_size(unsigned c)
{
    return (uint64_t)TT_SECTOR << c;
}

/* How many cells a piece with bytes consists of */
static inline unsigned piece_sums(unsigned c)
{
    return c > PIECE_GRID_CLASS ? 1u << (c - PIECE_GRID_CLASS) : 1;
}

/* The class of the largest piece that may begin [offset, offset + length). */
static inline unsigned piece_class(uint64_t offset, uint64_t length)
{
    unsigned by_length = 63 - (unsigned)__builtin_clzll(length / TT_SECTOR);
    unsigned by_place = PIECE_CLASSES - 1;

    if (offset) {
        by_place = (unsigned)__builtin_ctzll(offset / TT_SECTOR);
    }
    return by_length < by_place ? by_length : by_place;
}

/*
 * Where a piece of less than 4 KiB lies in its cell: sectors before it, and
 * sectors of the cell less one.  0 for larger pieces.
 */
static inline uint8_t piece_cell(uint64_t disk_offset, uint64_t disk_length,
                                 uint64_t start, unsigned c)
{
    uint64_t first = start - start % TT_GRID, end = first + TT_GRID;

    if (c >= PIECE_GRID_CLASS) {
        return 0;
    }
    if (first < disk_offset) {
        first = disk_offset;
    }
    if (end > disk_offset + disk_length) {
        end = disk_offset + disk_length;
    }
    return (uint8_t)((start - first) / TT_SECTOR |
                     ((end - first) / TT_SECTOR - 1) << 3);
}

static inline unsigned cell_skip(uint8_t cell)
{
    return (cell & 7) * TT_SECTOR;
}

static inline unsigned cell_length(uint8_t cell)
{
    return ((cell >> 3 & 7) + 1) * TT_SECTOR;
}

/* Which of a record's checksums is the first of the piece at @start? */
static inline uint32_t piece_first_sum(uint64_t disk_offset, uint64_t start)
{
    return (uint32_t)(start / TT_GRID - disk_offset / TT_GRID);
}

#endif
