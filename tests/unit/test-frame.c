/*
 * Frames: encode and decode, every limit, hostile headers and tables, batches
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stddef.h>
#include <stdio.h>

#include "unit.h"

#define HEADER sizeof(struct tt_frame_header)

static struct tt_super super;
static struct tt_writer writer;
static struct tt_batch *batch;
static uint8_t frame[TT_FRAME_MAX];

static void begin(uint32_t alignment)
{
    static const uint8_t uuid[TT_UUID_SIZE] = "0123456789abcde";
    struct tt_scan scan = { .empty = true,
                            .disk_size = TT_GIB,
                            .end_offset = TT_SEGMENTS_OFFSET };

    tt_super_init(&super, uuid, 7, TT_GIB, alignment, 0);
    super.segment_size = 4 * TT_MIB;
    memset(&writer, 0, sizeof(writer));
    tt_writer_open(&writer, &super, &scan, alignment, 99, false);
    batch = tt_batch_new();
    tt_batch_reset(batch, &writer);
}

static void end(void)
{
    tt_batch_free(batch);
    tt_writer_clear(&writer);
}

static void plan(struct tt_append *a)
{
    tt_writer_plan(&writer, batch, (struct tt_now){ 1000, 500 }, a);
    memcpy(frame, a->head, a->head_length);
}

static bool decode(uint64_t offset, struct tt_frame *f)
{
    return tt_frame_decode(&super, offset, frame, f);
}

/* Sets a field of the header, or the table, and makes the checksums fit. */
static void poke(size_t at, uint64_t value, size_t length)
{
    tt_le64 v = tt_put64(value);
    struct tt_frame_header h;
    uint32_t table;

    memcpy(frame + at, &v, length);
    memcpy(&h, frame, HEADER);
    table = tt_get32(h.table_length);
    if (at >= HEADER && table <= TT_HEAD_MAX - HEADER) {
        h.table_checksum = tt_put64(tt_checksum(frame + HEADER, table));
    }
    h.header_checksum = tt_put64(
        tt_checksum(&h, offsetof(struct tt_frame_header, header_checksum)));
    memcpy(frame, &h, HEADER);
}

static const uint8_t body[8192] = "a body";

static const struct tt_request write_req = {
    .kind = TT_KIND_WRITE,
    .flags = TT_RECORD_FUA,
    .disk_offset = 3584,
    .disk_length = 8192,
    .payload = body,
    .payload_length = 8192,
};

static void one_frame(struct tt_append *a)
{
    const struct tt_request reqs[] = {
        write_req,
        { .kind = TT_KIND_ZERO, .disk_offset = 4096, .disk_length = 512 },
        { .kind = TT_KIND_MARK,
          .flags = TT_RECORD_INLINE,
          .payload = "abc",
          .payload_length = 3 },
        { .kind = TT_KIND_RESIZE,
          .disk_offset = TT_GIB,
          .disk_length = 2 * TT_GIB },
    };

    begin(512);
    for (size_t i = 0; i < 4; i++) {
        ck_assert(tt_batch_add(batch, &reqs[i]));
    }
    plan(a);
}

START_TEST(round_trip)
{
    uint32_t pos = 0, index = 0;
    struct tt_append a;
    struct tt_record r;
    struct tt_frame f;

    one_frame(&a);
    ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
    ck_assert(tt_table_check(&f, frame + HEADER));
    ck_assert_uint_eq(f.record_count, 4);
    ck_assert_uint_eq(f.first_seq, 1);
    ck_assert_uint_eq(f.session, 1);
    ck_assert_uint_eq(f.session_nonce, 99);
    ck_assert_int_eq(f.last_time, 1000);
    ck_assert_uint_eq(f.boottime, 500);
    ck_assert_uint_eq(f.disk_size, TT_GIB);
    ck_assert_uint_eq(f.length, a.length);
    ck_assert(f.flags & TT_FRAME_SEGMENT_START);
    ck_assert(f.flags & TT_FRAME_EPOCH_START);
    ck_assert_uint_eq(a.length, f.payload_offset + 8192);

    ck_assert(tt_table_next(&f, frame + HEADER, &pos, &index, &r));
    ck_assert_uint_eq(r.seq, 1);
    ck_assert_int_eq(r.kind, TT_KIND_WRITE);
    ck_assert_int_eq(r.flags, TT_RECORD_FUA);
    ck_assert_uint_eq(r.disk_offset, 3584);
    ck_assert_uint_eq(r.checksum_count, 3);
    ck_assert_uint_eq(r.payload_offset, f.payload_offset);
    ck_assert(tt_payload_check(&r, body, NULL));
    ck_assert(tt_table_next(&f, frame + HEADER, &pos, &index, &r));
    ck_assert(tt_table_next(&f, frame + HEADER, &pos, &index, &r));
    ck_assert_uint_eq(r.payload_length, 3);
    ck_assert_mem_eq(r.body, "abc", 3);
    ck_assert(tt_table_next(&f, frame + HEADER, &pos, &index, &r));
    ck_assert_uint_eq(r.disk_length, 2 * TT_GIB);
    ck_assert_uint_eq(r.seq, 4);
    ck_assert(!tt_table_next(&f, frame + HEADER, &pos, &index, &r));

    tt_writer_commit(&writer, batch);
    ck_assert_uint_eq(writer.disk_size, 2 * TT_GIB);
    ck_assert_uint_eq(writer.next_seq, 5);
    ck_assert_uint_eq(writer.notable_offset, TT_SEGMENTS_OFFSET);
    end();
}
END_TEST

START_TEST(every_bit_of_the_head)
{
    struct tt_append a;
    struct tt_frame f;

    one_frame(&a);
    ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
    for (size_t bit = 0; bit < (HEADER + f.table_length) * 8; bit++) {
        struct tt_frame g;

        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert(!decode(TT_SEGMENTS_OFFSET, &g) ||
                  !tt_table_check(&g, frame + HEADER));
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    ck_assert(!decode(TT_SEGMENTS_OFFSET + 512, &f));
    super.uuid[3] ^= 1;
    ck_assert(!decode(TT_SEGMENTS_OFFSET, &f));
    end();
}
END_TEST

START_TEST(payload_pieces)
{
    uint8_t bytes[8192];
    uint32_t pos = 0, index = 0, bad = 9;
    struct tt_append a;
    struct tt_record r;
    struct tt_frame f;

    one_frame(&a);
    ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
    ck_assert(tt_table_next(&f, frame + HEADER, &pos, &index, &r));
    for (size_t at = 0; at < sizeof(bytes); at++) {
        memcpy(bytes, body, sizeof(bytes));
        bytes[at] ^= 4;
        ck_assert(!tt_payload_check(&r, bytes, &bad));
        ck_assert_uint_eq(bad, (3584 + at) / 4096);
    }
    end();
}
END_TEST

#define AT(field) offsetof(struct tt_frame_header, field)
#define SIZE(field) sizeof(((struct tt_frame_header *)0)->field)

START_TEST(header_limits)
{
/* clang-format off: a table is read by line */
#define BAD(field, value)                                                      \
    {                                                                          \
        AT(field), SIZE(field), value, #field                                  \
    }
    static const struct {
        size_t at, length;
        uint64_t value;
        const char *name;
    } bad[] = {
        BAD(offset, 0),
        BAD(offset, TT_SEGMENTS_OFFSET + 512),
        BAD(segment, 1),
        BAD(segment, UINT64_MAX),
        BAD(segment, UINT64_C(1) << 41),
        BAD(segment, (uint64_t)INT64_MAX),
        BAD(prev_offset, TT_SEGMENTS_OFFSET),
        BAD(prev_offset, UINT64_MAX),
        BAD(session, 0),
        BAD(session, UINT64_C(1) << 63),
        BAD(session_first_seq, 0),
        BAD(session_first_seq, 2),
        BAD(first_seq, 0),
        BAD(first_seq, UINT64_C(1) << 63),
        BAD(first_seq, UINT64_MAX),
        BAD(durable_seq, 1),
        BAD(durable_seq, UINT64_MAX),
        BAD(first_time, 1001),
        BAD(last_time, 999),
        BAD(checkpoint_offset, TT_SEGMENTS_OFFSET),
        BAD(notable_offset, TT_SEGMENTS_OFFSET),
        BAD(footer_offset, TT_SEGMENTS_OFFSET),
        BAD(session_offset, TT_SEGMENTS_OFFSET + 1),
        BAD(epoch_offset, UINT64_MAX),
        BAD(first_live_segment, 1),
        BAD(disk_size, 1),
        BAD(disk_size, (UINT64_C(1) << 62) + 512),
        BAD(segment_size, 8 * TT_MIB),
        BAD(segment_size, 0),
        BAD(alignment, 0),
        BAD(alignment, 256),
        BAD(alignment, 513),
        BAD(alignment, 65536),
        BAD(alignment, 0x80000000u),
        BAD(flags, 0),
        BAD(flags, 0x11),
        BAD(flags, 0x8001),
        BAD(record_count, 0),
        BAD(record_count, 1000),
        BAD(record_count, UINT32_MAX),
        BAD(table_length, 0),
        BAD(table_length, TT_HEAD_MAX),
        BAD(table_length, UINT32_MAX),
        BAD(table_length, 0xffffff00u),
        BAD(payload_offset, 0),
        BAD(payload_offset, 1024),
        BAD(payload_offset, UINT32_MAX),
        BAD(frame_length, 0),
        BAD(frame_length, 100),
        BAD(frame_length, 511 + 8192),
        BAD(frame_length, 5 * TT_MIB),
        BAD(frame_length, 0xfffffe00u),
        BAD(salt, 8),
    };
#undef BAD
    /* clang-format on */

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct tt_append a;
        struct tt_frame f;

        one_frame(&a);
        poke(bad[i].at, bad[i].value, bad[i].length);
        ck_assert_msg(!decode(TT_SEGMENTS_OFFSET, &f), "%s = %llu is accepted",
                      bad[i].name, (ull)bad[i].value);
        end();
    }
}
END_TEST

START_TEST(optional_frame_flags_are_ignored)
{
    struct tt_append a;
    struct tt_frame f;

    one_frame(&a);
    poke(AT(flags), TT_FRAME_SEGMENT_START | 0x80000000u, 4);
    ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
    end();
}
END_TEST

#define FIELD(field) offsetof(struct tt_record_header, field)
#define FSIZE(field) sizeof(((struct tt_record_header *)0)->field)

/* Of the WRITE, the ZERO and the MARK of one_frame() */
START_TEST(descriptor_limits)
{
/* clang-format off */
#define BAD(rec, field, value) \
    { rec, FIELD(field), FSIZE(field), value, #field }
    static const struct {
        unsigned rec;
        size_t at, length;
        uint64_t value;
        const char *name;
    } bad[] = {
        BAD(0, kind, 0), BAD(0, kind, 18), BAD(0, kind, 0x7fff),
        BAD(0, flags, 128), BAD(0, flags, TT_RECORD_INLINE),
        BAD(0, length, 0), BAD(0, length, 40), BAD(0, length, 49),
        BAD(0, length, UINT32_MAX), BAD(0, length, 0xfffffff8u),
        BAD(0, length, 80), BAD(0, time, 999), BAD(0, time, 1001),
        BAD(0, disk_offset, 1), BAD(0, disk_offset, UINT64_MAX),
        BAD(0, disk_offset, TT_DISK_SIZE_MAX),
        BAD(0, disk_length, 0), BAD(0, disk_length, 4096),
        BAD(0, disk_length, 2 * TT_MIB), BAD(0, disk_length, UINT64_MAX),
        BAD(0, payload_offset, 0), BAD(0, payload_offset, 256),
        BAD(0, payload_offset, 1024), BAD(0, payload_offset, UINT32_MAX),
        BAD(0, payload_length, 0), BAD(0, payload_length, 4096),
        BAD(0, payload_length, UINT32_MAX),
        BAD(0, checksum_count, 0), BAD(0, checksum_count, 2),
        BAD(0, checksum_count, UINT32_MAX), BAD(0, compression, 1),
        BAD(0, reserved, 1),
        BAD(1, disk_length, 0), BAD(1, disk_length, 33 * TT_MIB),
        BAD(1, disk_length, 513), BAD(1, disk_offset, 511),
        BAD(1, payload_length, 512), BAD(1, payload_offset, 512),
        BAD(1, checksum_count, 1),
        BAD(2, payload_length, 9), BAD(2, payload_length, UINT32_MAX),
        BAD(2, payload_offset, 512), BAD(2, flags, 0),
        BAD(3, disk_length, 511),
        BAD(3, disk_offset, (UINT64_C(1) << 62) + 512),
    };
#undef BAD
    /* clang-format on */

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        static const unsigned places[] = { 0, 72, 120, 176 };
        struct tt_append a;
        struct tt_frame f;

        one_frame(&a);
        poke(HEADER + places[bad[i].rec] + bad[i].at, bad[i].value,
             bad[i].length);
        ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
        ck_assert_msg(!tt_table_check(&f, frame + HEADER),
                      "record %u: %s = %llu is accepted", bad[i].rec,
                      bad[i].name, (ull)bad[i].value);
        end();
    }
}
END_TEST

/* No reader takes bytes of the disk from beside a sector of the journal. */
START_TEST(payload_beside_a_sector)
{
    const size_t second = 48 + 8; /* behind the FOOTER and its checksum */
    const struct tt_request reqs[] = {
        { .kind = TT_KIND_FOOTER, .payload = body, .payload_length = 1024 },
        { .kind = TT_KIND_PREIMAGE,
          .disk_length = 512,
          .payload = body,
          .payload_length = 512 },
    };

    for (unsigned shift = 0; shift < 512; shift += 8) {
        struct tt_append a;
        struct tt_frame f;

        begin(512);
        ck_assert(tt_batch_add(batch, &reqs[0]));
        ck_assert(tt_batch_add(batch, &reqs[1]));
        plan(&a);
        ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
        poke(HEADER + FIELD(payload_length), 1024 - shift, 4);
        poke(HEADER + second + FIELD(payload_offset),
             f.payload_offset + 1024 - shift, 4);
        ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
        ck_assert_int_eq(tt_table_check(&f, frame + HEADER), shift == 0);
        end();
    }
}
END_TEST

START_TEST(optional_kinds_and_flags_are_skipped)
{
    struct tt_append a;
    struct tt_frame f;

    one_frame(&a);
    poke(HEADER + 120, 0x8001, 2); /* the MARK */
    poke(HEADER + 2, 0x4010, 2);   /* flags of the WRITE */
    ck_assert(decode(TT_SEGMENTS_OFFSET, &f));
    ck_assert(tt_table_check(&f, frame + HEADER));
    end();
}
END_TEST

/* Junk under checksums that fit: refused or read, but never out of bounds. */
START_TEST(hostile_tables)
{
    static const uint64_t values[] = {
        0,           1,           7,          8,         48,
        255,         256,         4095,       4096,      0x7fffffff,
        0x80000000u, 0xfffffff8u, UINT32_MAX, INT64_MAX, UINT64_MAX,
    };
    struct sim_world w;

    sim_world_init(&w, 5);
    for (unsigned i = 0; i < 60000; i++) {
        uint32_t pos = 0, index = 0;
        struct tt_append a;
        struct tt_record r;
        struct tt_frame f;
        uint8_t *table;

        one_frame(&a);
        for (uint64_t n = 1 + sim_random(&w, 3); n; n--) {
            size_t at = 24 + 4 * (size_t)sim_random(&w, 95);

            if (at + 8 <= 184 || at >= HEADER) {
                poke(at, values[sim_random(&w, 15)], 1 + sim_random(&w, 8));
            }
        }
        if (decode(TT_SEGMENTS_OFFSET, &f)) {
            /* of its own size, so that reading over it shows */
            table = malloc(f.table_length);
            memcpy(table, frame + HEADER, f.table_length);
            if (tt_table_check(&f, table)) {
                while (tt_table_next(&f, table, &pos, &index, &r)) {
                    for (uint32_t k = 0; k < r.checksum_count; k++) {
                        ck_assert_ptr_nonnull(&r.checksums[k]);
                        (void)*(volatile const uint8_t *)&r.checksums[k];
                    }
                    if (r.body && r.payload_length) {
                        (void)*(volatile const uint8_t *)&r
                            .body[r.payload_length - 1];
                    }
                    ck_assert_uint_le(r.payload_offset, f.length);
                }
            }
            free(table);
        }
        end();
    }
}
END_TEST

/* ---- batches ----------------------------------------------------------- */

static void check_planned(const struct tt_append *a)
{
    struct tt_frame f;

    memcpy(frame, a->head, a->head_length);
    ck_assert(decode(a->offset, &f));
    ck_assert(tt_table_check(&f, frame + HEADER));
    ck_assert_uint_le(HEADER + f.table_length, TT_HEAD_MAX);
    ck_assert_uint_le(f.length, TT_FRAME_MAX);
}

/* Any number of records that the batch takes makes a valid frame, with a
 * CLOCK in front too. */
static void fill(const struct tt_request *req, uint32_t alignment,
                 unsigned least)
{
    struct tt_append a;
    unsigned count = 0;

    begin(alignment);
    while (tt_batch_add(batch, req)) {
        count++;
    }
    ck_assert_uint_ge(count, least);
    ck_assert_uint_eq(tt_batch_count(batch), count);
    ck_assert(!tt_batch_add(batch, req));
    tt_writer_plan(&writer, batch, (struct tt_now){ 1000, 500 }, &a);
    check_planned(&a);
    tt_writer_commit(&writer, batch);
    tt_batch_reset(batch, &writer);
    while (tt_batch_add(batch, req)) {
    }
    /* the clock went back */
    tt_writer_plan(&writer, batch, (struct tt_now){ 10, 600 }, &a);
    ck_assert_uint_eq(a.first_seq, writer.next_seq + 1);
    check_planned(&a);
    /* and planned again when it is right again: no CLOCK */
    tt_writer_plan(&writer, batch, (struct tt_now){ 1100, 600 }, &a);
    ck_assert_uint_eq(a.first_seq, writer.next_seq);
    check_planned(&a);
    end();
}

/* Bytes of the disk behind a body that is no whole sectors: not in this frame */
START_TEST(batch_keeps_payloads_at_sectors)
{
    static const uint8_t bytes[1000];
    struct tt_request body_req = { .kind = TT_KIND_FOOTER, .payload = bytes };
    struct tt_request other = { .kind = TT_KIND_ZERO, .disk_length = 512 };
    struct tt_request preimage = { .kind = TT_KIND_PREIMAGE,
                                   .disk_length = 512,
                                   .payload = bytes,
                                   .payload_length = 512 };

    begin(512);
    ck_assert(tt_batch_add(batch, &preimage));
    body_req.payload_length = 512;
    ck_assert(tt_batch_add(batch, &body_req));
    ck_assert(tt_batch_add(batch, &preimage));
    body_req.payload_length = 1000;
    ck_assert(tt_batch_add(batch, &body_req));
    ck_assert(!tt_batch_add(batch, &preimage));
    ck_assert(!tt_batch_add(batch, &write_req));
    ck_assert(tt_batch_add(batch, &other));
    tt_batch_reset(batch, &writer);
    ck_assert(tt_batch_add(batch, &preimage));
    end();
}
END_TEST

START_TEST(batch_of_small_records)
{
    struct tt_request req = { .kind = TT_KIND_DURABLE };

    fill(&req, 512, 670);
    fill(&req, 4096, 670);
    fill(&req, 32768, 670);
}
END_TEST

START_TEST(batch_of_large_records)
{
    static uint8_t mib[TT_MIB];
    struct tt_request req = {
        .kind = TT_KIND_WRITE,
        .disk_offset = 512,
        .disk_length = TT_MIB,
        .payload = mib,
        .payload_length = TT_MIB,
    };

    fill(&req, 512, 3);
    fill(&req, 32768, 3);
}
END_TEST

/* What a batch of @req and others leaves of the segment that is filled */
static uint64_t left(void)
{
    return super.segment_size -
           (writer.next_offset - super.segments_offset) % super.segment_size;
}

static void check_cut(const struct tt_request *req, uint32_t fits)
{
    ck_assert_uint_le(fits, req->payload_length);
    if (fits < req->payload_length) {
        ck_assert_uint_ge(fits, 32 * TT_KIB);
        ck_assert_uint_eq((req->disk_offset + fits) % TT_GRID, 0);
    }
}

/* A frame of a few random writes, the last of which may be cut */
static bool add_writes(unsigned *seed)
{
    static uint8_t bytes[TT_MIB];
    unsigned count = (unsigned)rand_r(seed) % 3 + 1;

    tt_batch_reset(batch, &writer);
    for (unsigned i = 0; i < count; i++) {
        struct tt_request req = {
            .kind = TT_KIND_WRITE,
            .disk_offset = (unsigned)rand_r(seed) % 100000 * TT_SECTOR,
            .payload = bytes,
            .payload_length =
                ((unsigned)rand_r(seed) % (TT_MIB / TT_SECTOR) + 1) * TT_SECTOR,
        };
        uint32_t fits = tt_batch_fits(batch, &req);
        bool cut = fits < req.payload_length;

        check_cut(&req, fits);
        req.disk_length = req.payload_length = fits;
        if (!tt_batch_add(batch, &req)) {
            ck_assert(!cut && i);
            return false;
        }
        if (cut) {
            return true;
        }
    }
    return false;
}

START_TEST(large_writes_fill_the_segment)
{
    static const uint32_t alignments[] = { 512, 4096, 32768 };
    unsigned seed = 1, cuts = 0;

    for (unsigned i = 0; i < 3 * 500; i++) {
        uint32_t alignment = alignments[i / 500];
        uint64_t before, slack = 2 * alignment + 2 * TT_GRID;
        struct tt_append a;
        bool cut;

        if (i % 500 == 0) {
            begin(alignment);
        }
        before = left();
        cut = add_writes(&seed);
        tt_writer_plan(&writer, batch, (struct tt_now){ 1000, 500 }, &a);
        if (a.starts_segment) {
            /* what was left was not worth a record */
            ck_assert(before == super.segment_size ||
                      before < 32 * TT_KIB + slack);
        }
        tt_writer_commit(&writer, batch);
        if (cut) {
            ck_assert(left() == super.segment_size || left() < slack);
            cuts++;
        }
        if (i % 500 == 499) {
            end();
        }
    }
    ck_assert_uint_gt(cuts, 100);
}
END_TEST

START_TEST(batch_of_inline_bodies)
{
    struct tt_request req = {
        .kind = TT_KIND_EVENT,
        .flags = TT_RECORD_INLINE,
        .payload = body,
        .payload_length = TT_INLINE_MAX,
    };

    for (uint32_t n = 1; n < 20; n++) {
        req.payload_length = n;
        fill(&req, 512, 400);
    }
    req.payload_length = TT_INLINE_MAX;
    fill(&req, 512, 7);
}
END_TEST

START_TEST(failed_append_is_planned_at_the_same_place)
{
    struct tt_append a, b;

    one_frame(&a);
    tt_writer_plan(&writer, batch, (struct tt_now){ 2000, 1500 }, &b);
    ck_assert_uint_eq(a.offset, b.offset);
    ck_assert_uint_eq(a.first_seq, b.first_seq);
    ck_assert_int_eq(b.time, 2000);
    check_planned(&b);
    end();
}
END_TEST

/* What an old or forged journal says of the clocks must not overflow. */
START_TEST(clocks_from_anywhere)
{
    static const int64_t times[] = { INT64_MIN, -1, 0, INT64_MAX };
    static const uint64_t boots[] = { 0, UINT64_C(1) << 63, UINT64_MAX };
    struct tt_append a;

    one_frame(&a);
    tt_writer_commit(&writer, batch);
    for (unsigned i = 0; i < 4 * 3 * 4; i++) {
        writer.last_time = times[i % 4];
        writer.last_boottime = boots[i / 4 % 3];
        tt_writer_plan(&writer, batch, (struct tt_now){ times[i / 12], 1000 },
                       &a);
        check_planned(&a);
    }
    end();
}
END_TEST

int main(void)
{
    return unit_run("frame", (const TTest *const *const[]){
                                 &round_trip,
                                 &every_bit_of_the_head,
                                 &payload_pieces,
                                 &header_limits,
                                 &optional_frame_flags_are_ignored,
                                 &descriptor_limits,
                                 &optional_kinds_and_flags_are_skipped,
                                 &hostile_tables,
                                 &batch_keeps_payloads_at_sectors,
                                 &payload_beside_a_sector,
                                 &batch_of_small_records,
                                 &batch_of_large_records,
                                 &large_writes_fill_the_segment,
                                 &batch_of_inline_bodies,
                                 &failed_append_is_planned_at_the_same_place,
                                 &clocks_from_anywhere,
                                 NULL,
                             });
}
