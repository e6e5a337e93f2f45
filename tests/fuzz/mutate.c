/*
 * Mutations, and checksums of a packed journal that fit again: see fuzz.h
 *
 * Everything here works on bytes that may hold anything.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "fuzz.h"

#define HEADER sizeof(struct tt_frame_header)
#define DESC sizeof(struct tt_record_header)

uint64_t fuzz_below(struct fuzz_random *r, uint64_t n)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % n;
}

/* What a length or an offset is when it is wrong. */
static uint64_t odd_number(struct fuzz_random *r, uint64_t old)
{
    switch (fuzz_below(r, 8)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return old + 1;
    case 3:
        return old - 1;
    case 4:
        return UINT64_C(1) << fuzz_below(r, 64);
    case 5:
        return (UINT64_C(1) << fuzz_below(r, 64)) - 1;
    case 6:
        return old ^ UINT64_C(1) << fuzz_below(r, 64);
    default:
        return old + 512 * (fuzz_below(r, 65) - 32);
    }
}

static void mutate_number(struct fuzz_random *r, uint8_t *part, size_t length)
{
    size_t width = (size_t)1 << fuzz_below(r, 4), at;
    uint64_t v = 0;

    if (width > length) {
        return;
    }
    at = fuzz_below(r, length / width) * width;
    for (size_t i = 0; i < width; i++) {
        v |= (uint64_t)part[at + i] << 8 * i;
    }
    v = odd_number(r, v);
    for (size_t i = 0; i < width; i++) {
        part[at + i] = (uint8_t)(v >> 8 * i);
    }
}

void fuzz_mutate_part(struct fuzz_random *r, uint8_t *part, size_t length)
{
    if (!length) {
        return;
    }
    if (fuzz_below(r, 3)) {
        mutate_number(r, part, length);
    } else {
        LLVMFuzzerMutate(part, length, length);
    }
}

/* ---- checksums --------------------------------------------------------- */

bool fuzz_frame_at(const uint8_t *data, size_t size, size_t at)
{
    return at >= FUZZ_SUPERS && at <= size && size - at >= HEADER &&
           !memcmp(data + at, TT_FRAME_MAGIC, TT_MAGIC_SIZE);
}

static void reseal_super(uint8_t *data, size_t size, unsigned copy)
{
    struct tt_superblock sb;

    if (size < FUZZ_SUPERS) {
        return;
    }
    memcpy(&sb, data + copy * sizeof(sb), sizeof(sb));
    sb.offset = tt_put64(copy * TT_SUPERBLOCK_COPY);
    sb.checksum =
        tt_put64(tt_checksum(&sb, offsetof(struct tt_superblock, checksum)));
    memcpy(data + copy * sizeof(sb), &sb, sizeof(sb));
}

/* The checksums of the record whose descriptor is at @desc. */
static void reseal_record(const uint8_t *frame, size_t room, uint8_t *desc,
                          uint32_t length)
{
    struct tt_record_header h;
    uint32_t at, bytes, pieces;
    uint64_t origin;

    memcpy(&h, desc, DESC);
    at = tt_get32(h.payload_offset);
    bytes = tt_get32(h.payload_length);
    origin = tt_kind_is_version(tt_get16(h.kind)) ? tt_get64(h.disk_offset) : 0;
    if (!bytes || (tt_get16(h.flags) & TT_RECORD_INLINE) || at > room ||
        bytes > room - at || origin > TT_DISK_SIZE_MAX) {
        return;
    }
    pieces = tt_grid_pieces(origin, bytes);
    if (pieces == tt_get32(h.checksum_count) &&
        pieces <= (length - DESC) / sizeof(tt_le64)) {
        tt_grid_checksums(frame + at, origin, bytes, (tt_le64 *)(desc + DESC));
    }
}

static void reseal_table(uint8_t *frame, size_t room, struct tt_frame_header *h)
{
    uint32_t length = tt_get32(h->table_length), pos = 0;

    if (length > room - HEADER) {
        return;
    }
    while (length - pos >= DESC) {
        struct tt_record_header d;
        uint32_t n;

        memcpy(&d, frame + HEADER + pos, DESC);
        n = tt_get32(d.length);
        if (n < DESC || n % 8 || n > length - pos) {
            break;
        }
        reseal_record(frame, room, frame + HEADER + pos, n);
        pos += n;
    }
    h->table_checksum = tt_put64(tt_checksum(frame + HEADER, length));
}

void fuzz_reseal(uint8_t *data, size_t size, bool links)
{
    const uint8_t *before = NULL;

    reseal_super(data, size, 0);
    reseal_super(data, size, 1);
    for (size_t at = FUZZ_SUPERS; at < size; at += TT_ALIGNMENT_MIN) {
        struct tt_frame_header h, prev;

        if (!fuzz_frame_at(data, size, at)) {
            continue;
        }
        memcpy(&h, data + at, HEADER);
        if (links && before) {
            memcpy(&prev, before, HEADER);
            h.prev_offset = prev.offset;
            h.chain = tt_put64(tt_checksum(&prev, HEADER));
        }
        if (links) {
            h.offset = tt_put64(at - FUZZ_SUPERS + TT_SEGMENTS_OFFSET);
        }
        reseal_table(data + at, size - at, &h);
        h.header_checksum = tt_put64(
            tt_checksum(&h, offsetof(struct tt_frame_header, header_checksum)));
        memcpy(data + at, &h, HEADER);
        before = data + at;
    }
}
