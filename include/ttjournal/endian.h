/*
 * Fixed-width little-endian integers as types of their own
 *
 * On-disk integers are byte arrays in a struct, so assigning one to a host
 * integer (or the other way round) without converting does not compile, and
 * structs made of them need no packing and no alignment.  gcc and clang turn
 * each conversion into one load or store.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_ENDIAN_H
#define TTJOURNAL_ENDIAN_H

#include <stdint.h>

typedef struct {
    uint8_t b[2];
} tt_le16;
typedef struct {
    uint8_t b[4];
} tt_le32;
typedef struct {
    uint8_t b[8];
} tt_le64;

static inline uint16_t tt_get16(tt_le16 v)
{
    return (uint16_t)(v.b[0] | v.b[1] << 8);
}

static inline uint32_t tt_get32(tt_le32 v)
{
    return (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 |
           (uint32_t)v.b[3] << 24;
}

static inline uint64_t tt_get64(tt_le64 v)
{
    return (uint64_t)v.b[0] | (uint64_t)v.b[1] << 8 | (uint64_t)v.b[2] << 16 |
           (uint64_t)v.b[3] << 24 | (uint64_t)v.b[4] << 32 |
           (uint64_t)v.b[5] << 40 | (uint64_t)v.b[6] << 48 |
           (uint64_t)v.b[7] << 56;
}

static inline tt_le16 tt_put16(uint16_t v)
{
    return (tt_le16){ { (uint8_t)v, (uint8_t)(v >> 8) } };
}

static inline tt_le32 tt_put32(uint32_t v)
{
    return (tt_le32){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                        (uint8_t)(v >> 24) } };
}

static inline tt_le64 tt_put64(uint64_t v)
{
    return (tt_le64){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                        (uint8_t)(v >> 24), (uint8_t)(v >> 32),
                        (uint8_t)(v >> 40), (uint8_t)(v >> 48),
                        (uint8_t)(v >> 56) } };
}

#endif
