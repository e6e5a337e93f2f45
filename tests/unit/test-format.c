/*
 * Integers, checksums and the superblock
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "unit.h"

START_TEST(little_endian)
{
    tt_le16 a = tt_put16(0x1234);
    tt_le32 b = tt_put32(0x12345678);
    tt_le64 c = tt_put64(UINT64_C(0x123456789abcdef0));

    ck_assert_int_eq(a.b[0], 0x34);
    ck_assert_int_eq(b.b[0], 0x78);
    ck_assert_int_eq(c.b[0], 0xf0);
    ck_assert_int_eq(c.b[7], 0x12);
    ck_assert_uint_eq(tt_get16(a), 0x1234);
    ck_assert_uint_eq(tt_get32(b), 0x12345678);
    ck_assert_uint_eq(tt_get64(c), UINT64_C(0x123456789abcdef0));
    ck_assert_uint_eq(tt_get16(tt_put16(UINT16_MAX)), UINT16_MAX);
    ck_assert_uint_eq(tt_get32(tt_put32(UINT32_MAX)), UINT32_MAX);
    ck_assert_uint_eq(tt_get64(tt_put64(UINT64_MAX)), UINT64_MAX);
    ck_assert_int_eq((int64_t)tt_get64(tt_put64((uint64_t)INT64_MIN)),
                     INT64_MIN);
}
END_TEST

START_TEST(structs_have_no_alignment)
{
    ck_assert_uint_eq(_Alignof(struct tt_superblock), 1);
    ck_assert_uint_eq(_Alignof(struct tt_frame_header), 1);
    ck_assert_uint_eq(_Alignof(struct tt_record_header), 1);
    ck_assert_uint_eq(sizeof(struct tt_superblock), 512);
    ck_assert_uint_eq(sizeof(struct tt_frame_header), 256);
    ck_assert_uint_eq(sizeof(struct tt_record_header), 48);
    ck_assert_uint_eq(sizeof(struct tt_seal_body), 224);
    ck_assert_uint_eq(sizeof(struct tt_footer_body), 144);
    ck_assert_uint_eq(sizeof(struct tt_footer_frame), 16);
    ck_assert_uint_eq(sizeof(struct tt_footer_entry), 22);
}
END_TEST

/* Of the xxHash specification: XXH3_64bits, seed 0 */
START_TEST(checksum_is_xxh3)
{
    uint8_t buf[5000];

    ck_assert_uint_eq(tt_checksum("", 0), UINT64_C(0x2d06800538d394c2));
    /* whatever the processor has, the result is the baseline's */
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (size_t length = 0; length <= sizeof(buf); length += 1 + length / 40) {
        ck_assert_uint_eq(tt_checksum(buf, length), XXH3_64bits(buf, length));
        ck_assert_uint_eq(tt_checksum(buf + 1, length / 2),
                          XXH3_64bits(buf + 1, length / 2));
    }
}
END_TEST

START_TEST(grid)
{
    uint8_t buf[3 * 4096];
    tt_le64 sums[5], again[1];

    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] = (uint8_t)(i * 7 + i / 256);
    }
    ck_assert_uint_eq(tt_grid_pieces(0, 0), 0);
    ck_assert_uint_eq(tt_grid_pieces(0, 1), 1);
    ck_assert_uint_eq(tt_grid_pieces(0, 4096), 1);
    ck_assert_uint_eq(tt_grid_pieces(512, 4096), 2);
    ck_assert_uint_eq(tt_grid_pieces(3584, 512), 1);
    ck_assert_uint_eq(tt_grid_pieces(3584, 4608 + 512), 3);
    ck_assert_uint_eq(tt_grid_pieces(TT_DISK_SIZE_MAX - 512, TT_MIB), 257);
    tt_grid_checksums(buf, 3584, 512 + 4096 + 512, sums);
    ck_assert_uint_eq(tt_get64(sums[0]), tt_checksum(buf, 512));
    ck_assert_uint_eq(tt_get64(sums[2]), tt_checksum(buf + 4608, 512));
    /* a block has the same checksum whatever it is stored with */
    tt_grid_checksums(buf + 512, 4096, 4096, again);
    ck_assert_mem_eq(&sums[1], again, sizeof(again[0]));
}
END_TEST

/* ---- the superblock ---------------------------------------------------- */

struct area {
    uint8_t bytes[TT_SEGMENTS_OFFSET];
    bool eio;
};

static int read_area(void *opaque, uint64_t offset, void *buf, size_t length)
{
    const struct area *a = opaque;

    ck_assert_uint_le(offset + length, sizeof(a->bytes));
    if (a->eio && offset == 0) {
        return -EIO;
    }
    memcpy(buf, a->bytes + offset, length);
    return 0;
}

static void make(struct area *a, struct tt_super *s)
{
    static const uint8_t uuid[TT_UUID_SIZE] = "0123456789abcde";

    tt_super_init(s, uuid, 42, 10 * TT_MIB, 4096, -5);
    s->public_key[3] = 9;
    s->sign_type = TT_SIGN_ED25519;
    tt_super_encode(s, a->bytes);
    a->eio = false;
}

static int super_read(struct area *a, uint64_t size, struct tt_super *s,
                      unsigned *bad, struct tt_error *err)
{
    struct tt_source src = { .read = read_area, .opaque = a, .size = size };

    memset(err, 0, sizeof(*err));
    return tt_super_read(&src, s, bad, err);
}

/* Changes a copy and makes its checksum fit again. */
static void reseal(struct area *a, uint64_t at)
{
    struct tt_superblock sb;

    memcpy(&sb, a->bytes + at, sizeof(sb));
    sb.checksum = tt_put64(tt_checksum(&sb, sizeof(sb) - 8));
    memcpy(a->bytes + at, &sb, sizeof(sb));
}

static struct area area;

START_TEST(super_round_trip)
{
    struct tt_super s, got;
    struct tt_error err;
    unsigned bad = 7;

    make(&area, &s);
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &got, &bad, &err),
                     0);
    ck_assert_uint_eq(bad, 0);
    ck_assert_mem_eq(got.uuid, s.uuid, TT_UUID_SIZE);
    ck_assert_int_eq(got.created, -5);
    ck_assert_uint_eq(got.disk_size, 10 * TT_MIB);
    ck_assert_uint_eq(got.segment_size, TT_SEGMENT_DEFAULT);
    ck_assert_uint_eq(got.segments_offset, TT_SEGMENTS_OFFSET);
    ck_assert_uint_eq(got.alignment, 4096);
    ck_assert_uint_eq(got.salt, 42);
    ck_assert_uint_eq(got.sign_type, TT_SIGN_ED25519);
    ck_assert_mem_eq(got.public_key, s.public_key, 32);
}
END_TEST

START_TEST(super_one_copy_is_enough)
{
    for (unsigned copy = 0; copy < 2; copy++) {
        for (unsigned bit = 0; bit < 512 * 8; bit++) {
            struct tt_super s, got;
            struct tt_error err;
            unsigned bad = 0;
            int ret;

            make(&area, &s);
            area.bytes[copy * TT_SUPERBLOCK_COPY + bit / 8] ^=
                (uint8_t)(1u << bit % 8);
            ret = super_read(&area, sizeof(area.bytes), &got, &bad, &err);
            ck_assert_msg(ret == 0, "bit %u: %s", bit, err.message);
            ck_assert_uint_eq(got.salt, 42);
            /* a copy of a newer version is no damage */
            ck_assert(bad == 1 || (bit / 8 >= 8 && bit / 8 < 12));
        }
    }
}
END_TEST

START_TEST(super_both_damaged)
{
    struct tt_super s;
    struct tt_error err;

    make(&area, &s);
    area.bytes[70] ^= 1;
    area.bytes[TT_SUPERBLOCK_COPY + 70] ^= 1;
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &s, NULL, &err),
                     -TT_EDAMAGED);
    ck_assert_ptr_nonnull(strstr(err.message, "damaged"));
}
END_TEST

START_TEST(super_of_something_else)
{
    static const uint64_t sizes[] = { 1, 511, 512, 40000, 65536 };
    struct tt_super s;
    struct tt_error err;

    memset(&area, 'x', sizeof(area.bytes));
    area.eio = false;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        ck_assert_int_eq(super_read(&area, sizes[i], &s, NULL, &err),
                         -TT_EFORMAT);
        ck_assert_msg(strstr(err.message, "not a ttjournal journal") != NULL,
                      "%llu bytes: %s", (ull)sizes[i], err.message);
    }
    ck_assert_int_eq(super_read(&area, 0, &s, NULL, &err), -TT_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "empty"));
}
END_TEST

START_TEST(super_cut_short)
{
    struct tt_super s, got;
    struct tt_error err;
    unsigned bad = 0;

    make(&area, &s);
    for (uint64_t size = 8; size < TT_SEGMENTS_OFFSET; size += 504) {
        ck_assert_int_eq(super_read(&area, size, &got, &bad, &err),
                         -TT_EDAMAGED);
        ck_assert_ptr_nonnull(strstr(err.message, "cut short"));
    }
    ck_assert_int_eq(super_read(&area, TT_SEGMENTS_OFFSET, &got, &bad, &err),
                     0);
}
END_TEST

START_TEST(super_newer_version)
{
    struct tt_super s;
    struct tt_error err;

    make(&area, &s);
    area.bytes[8] = TT_FORMAT_VERSION + 1;
    area.bytes[TT_SUPERBLOCK_COPY + 8] = TT_FORMAT_VERSION + 1;
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &s, NULL, &err),
                     -TT_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "newer"));
}
END_TEST

/* Makes a copy say that it is of the version before, with its checksum. */
static void make_older(unsigned copy)
{
    uint8_t *sb = area.bytes + copy * TT_SUPERBLOCK_COPY;
    const size_t checksum = offsetof(struct tt_superblock, checksum);
    tt_le64 sum;

    sb[8] = TT_FORMAT_VERSION - 1;
    sum = tt_put64(tt_checksum(sb, checksum));
    memcpy(sb + checksum, &sum, sizeof(sum));
}

START_TEST(super_older_version)
{
    struct tt_super s;
    struct tt_error err;

    make(&area, &s);
    make_older(0);
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &s, NULL, &err), 0);
    make_older(1);
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &s, NULL, &err),
                     -TT_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "older"));
    /* only a whole copy is believed */
    area.bytes[70] ^= 1;
    area.bytes[TT_SUPERBLOCK_COPY + 70] ^= 1;
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &s, NULL, &err),
                     -TT_EDAMAGED);
}
END_TEST

START_TEST(super_unknown_features)
{
    struct tt_super s, got;
    struct tt_error err;

    make(&area, &s);
    s.feature_incompat = 0x10;
    tt_super_encode(&s, area.bytes);
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &got, NULL, &err),
                     -TT_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "0x10"));
    s.feature_incompat = 0;
    s.feature_compat = 4;
    s.feature_ro_compat = 8;
    tt_super_encode(&s, area.bytes);
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &got, NULL, &err),
                     0);
    ck_assert_uint_eq(got.feature_compat, 4);
    ck_assert_uint_eq(got.feature_ro_compat, 8);
}
END_TEST

/* "a bit counts as set if either has it" */
START_TEST(super_feature_in_one_copy)
{
    struct tt_super s, got;
    struct tt_error err;

    make(&area, &s);
    area.bytes[TT_SUPERBLOCK_COPY + 32] = 1;
    reseal(&area, TT_SUPERBLOCK_COPY);
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &got, NULL, &err),
                     -TT_EFORMAT);
}
END_TEST

START_TEST(super_limits)
{
    static const struct {
        unsigned at, length;
        uint64_t value;
    } bad[] = {
        { 12, 4, 511 },        { 12, 4, 1024 },
        { 72, 8, 513 },        { 72, 8, (UINT64_C(1) << 62) + 512 },
        { 80, 8, 131072 },     { 88, 8, 2 * TT_MIB },
        { 88, 8, 5 * TT_MIB }, { 88, 8, 8 * TT_GIB },
        { 88, 8, 0 },          { 96, 4, 0 },
        { 96, 4, 256 },        { 96, 4, 768 },
        { 96, 4, 65536 },      { 100, 2, 2 },
        { 100, 2, 0 },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tt_le64 v = tt_put64(bad[i].value);
        struct tt_super s;
        struct tt_error err;

        make(&area, &s);
        memcpy(area.bytes + bad[i].at, &v, bad[i].length);
        memcpy(area.bytes + TT_SUPERBLOCK_COPY + bad[i].at, &v, bad[i].length);
        reseal(&area, 0);
        reseal(&area, TT_SUPERBLOCK_COPY);
        ck_assert_msg(super_read(&area, sizeof(area.bytes), &s, NULL, &err) < 0,
                      "%u = %llu", bad[i].at, (ull)bad[i].value);
        ck_assert(err.message[0]);
    }
}
END_TEST

START_TEST(super_first_copy_unreadable)
{
    struct tt_super s, got;
    struct tt_error err;
    unsigned bad = 0;

    make(&area, &s);
    area.eio = true;
    ck_assert_int_eq(super_read(&area, sizeof(area.bytes), &got, &bad, &err),
                     0);
    ck_assert_uint_eq(bad, 1);
    ck_assert_uint_eq(got.salt, 42);
}
END_TEST

START_TEST(error_lines)
{
    struct tt_error err;

    ck_assert_int_eq(tt_fail(&err, TT_EIO, ENOSPC, "at %d", 7), -TT_EIO);
    ck_assert_int_eq(err.code, TT_EIO);
    ck_assert_int_eq(err.os_errno, ENOSPC);
    ck_assert_str_eq(err.message, "at 7");
    ck_assert_int_eq(tt_fail(NULL, TT_EINVAL, 0, "nobody listens"), -TT_EINVAL);
    tt_fail(&err, TT_EINVAL, 0, "%2000d", 1);
    ck_assert_uint_lt(strlen(err.message), sizeof(err.message));
}
END_TEST

int main(void)
{
    return unit_run("format", (const TTest *const *const[]){
                                  &little_endian,
                                  &structs_have_no_alignment,
                                  &checksum_is_xxh3,
                                  &grid,
                                  &super_round_trip,
                                  &super_one_copy_is_enough,
                                  &super_both_damaged,
                                  &super_of_something_else,
                                  &super_cut_short,
                                  &super_newer_version,
                                  &super_older_version,
                                  &super_unknown_features,
                                  &super_feature_in_one_copy,
                                  &super_limits,
                                  &super_first_copy_unreadable,
                                  &error_lines,
                                  NULL,
                              });
}
