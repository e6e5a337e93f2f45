/*
 * What is in a footer: from frames made by hand; what contradicts itself; and
 * how many bytes it takes
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "../../journal/footer.h"
#include "../../journal/footread.h"
#include "unit.h"

/* ---- frames by hand ------------------------------------------------------- */

/* A record of a frame, with the checksums 1, 2, … of its cells */
struct made {
    uint16_t kind, flags;
    int64_t time;
    uint64_t offset, length;
};

struct made_frame {
    struct tt_frame f;
    uint8_t table[TT_HEAD_MAX];
};

/* What is not looked at by who writes a footer is left out. */
static void make_frame(struct made_frame *m, uint64_t first_seq,
                       uint64_t offset, const struct made *records, size_t n)
{
    uint8_t *at = m->table;

    memset(m, 0, sizeof(*m));
    m->f = (struct tt_frame){
        .offset = offset,
        .first_seq = first_seq,
        .record_count = (uint32_t)n,
        .first_time = records[0].time,
        .last_time = records[n - 1].time,
        .payload_offset = 4096,
        .length = 4096,
    };
    for (size_t i = 0; i < n; i++) {
        const struct made *r = &records[i];
        bool payload = r->kind == TT_KIND_WRITE;
        uint32_t sums = payload ? tt_grid_pieces(r->offset, r->length) : 0;
        struct tt_record_header h = {
            .kind = tt_put16(r->kind),
            .flags = tt_put16(r->flags),
            .length = tt_put32((uint32_t)sizeof(h) + sums * 8),
            .time = tt_put64((uint64_t)r->time),
            .disk_offset = tt_put64(r->offset),
            .disk_length = tt_put64(r->length),
            .payload_offset = tt_put32(payload ? m->f.length : 0),
            .payload_length = tt_put32(payload ? (uint32_t)r->length : 0),
            .checksum_count = tt_put32(sums),
        };

        memcpy(at, &h, sizeof(h));
        at += sizeof(h);
        for (uint32_t k = 1; k <= sums; k++, at += 8) {
            tt_le64 sum = tt_put64(k);

            memcpy(at, &sum, 8);
        }
        m->f.length += payload ? (uint32_t)r->length : 0;
    }
    m->f.table_length = (uint32_t)(at - m->table);
}

#define SEGMENT 3u

static struct tt_super some_super(void)
{
    struct tt_super s;

    tt_super_init(&s, (uint8_t[TT_UUID_SIZE]){ 1 }, 2, TT_GIB, 4096, 0);
    return s;
}

static struct tt_footer *make_footer(const struct tt_super *super,
                                     struct made_frame *frames, size_t n)
{
    uint64_t at = tt_segment_offset(super, SEGMENT);
    struct tt_footer *ft = tt_footer_new(SEGMENT, at, &frames[0].f);

    for (size_t i = 0; i < n; i++) {
        ck_assert(tt_footer_add_frame(ft, &frames[i].f, frames[i].table));
    }
    return ft;
}

/* Records of a frame need not have one time; lengths and sizes may be any. */
START_TEST(times_and_lengths)
{
    const struct tt_super super = some_super();
    const uint64_t at = tt_segment_offset(&super, SEGMENT), top = UINT64_C(1)
                                                                  << 62;
    const struct made first[] = {
        { TT_KIND_FLUSH, 0, -7, 0, 0 },
        { TT_KIND_WRITE, TT_RECORD_FUA, -7, 512, TT_MIB },
        { TT_KIND_ZERO, TT_RECORD_UNMAP, -6, TT_MIB, TT_ZERO_RECORD_MAX },
        { TT_KIND_PREIMAGE, TT_RECORD_ZEROES, -6, TT_GIB, TT_GIB },
        { TT_KIND_RESIZE, 0, 5, 512, top },
        { TT_KIND_RESIZE, 0, 5, top, 512 },
        { TT_KIND_RESIZE, 0, 6, 4096, UINT64_C(512) << 32 },
    };
    const struct made without[] = { { TT_KIND_FLUSH, 0, 6, 0, 0 } };
    const struct made last[] = {
        { TT_KIND_FLUSH, 0, 7, 0, 0 },
        { TT_KIND_WRITE, 0, 8, top - 512, 512 },
        { TT_KIND_RESIZE, 0, 9, top, 0 },
    };
    /* by place: their indexes in those, and in the segment */
    const struct {
        const struct made *r;
        unsigned seq;
    } order[] = {
        { &first[1], 1 }, { &first[4], 4 }, { &first[6], 6 }, { &first[2], 2 },
        { &first[3], 3 }, { &last[1], 9 },  { &first[5], 5 }, { &last[2], 10 },
    };
    struct made_frame frames[3];
    struct footer_part part;
    struct tt_footer *ft;
    struct placed p;
    uint32_t length;
    uint8_t *body;
    bool is_last;

    make_frame(&frames[0], 100, at, first, 7);
    make_frame(&frames[1], 107, tt_frame_end(&frames[0].f), without, 1);
    make_frame(&frames[2], 108, tt_frame_end(&frames[1].f), last, 3);
    ft = make_footer(&super, frames, 3);
    body = tt_footer_part(ft, 0, &length, &is_last);
    ck_assert(body && is_last);
    ck_assert(tt_footer_parse(&super, body, length, &part));
    ck_assert_uint_eq(part.frame_count, 4 + 3);
    ck_assert_uint_eq(part.entry_count, 8);
    for (uint32_t i = 0; i < part.entry_count; i++) {
        const struct made *r = order[i].r;

        ck_assert_msg(tt_footer_next(&super, &part, &p), "entry %u", i);
        ck_assert_uint_eq(p.seq, 100 + order[i].seq);
        ck_assert_int_eq(p.time, r->time);
        ck_assert_uint_eq(p.kind, r->kind);
        ck_assert_uint_eq(p.flags, r->flags);
        ck_assert_uint_eq(p.disk_offset, r->offset);
        ck_assert_uint_eq(p.disk_length, r->length);
        if (r->kind == TT_KIND_WRITE) {
            ck_assert_uint_eq(p.payload,
                              frames[r == &last[1] ? 2 : 0].f.offset + 4096);
            ck_assert_uint_eq(tt_get64(p.sums[0]), 1);
        } else {
            ck_assert_uint_eq(p.payload, 0);
        }
    }
    free(body);
    tt_footer_free(ft);
}
END_TEST

/* All times that a frame can have, and the longest record: one part holds it */
START_TEST(longest_part)
{
    enum { TIMES = (TT_HEAD_MAX - 256 - 48 - 257 * 8) / 48 };
    static struct made records[TIMES + 1];
    const struct tt_super super = some_super();
    struct made_frame frame;
    struct tt_footer *ft;
    struct footer_part part;
    struct placed p;
    uint32_t length;
    uint8_t *body;
    bool last;

    for (unsigned i = 0; i < TIMES; i++) {
        records[i] = (struct made){ TT_KIND_FLUSH, 0, i, 0, 0 };
    }
    records[TIMES] =
        (struct made){ TT_KIND_WRITE, 0, TIMES, 512, TT_PAYLOAD_RECORD_MAX };
    make_frame(&frame, 1, tt_segment_offset(&super, SEGMENT), records,
               TIMES + 1);
    ft = make_footer(&super, &frame, 1);
    body = tt_footer_part(ft, 0, &length, &last);
    ck_assert(body && last);
    ck_assert_uint_le(length, 128 * 1024);
    ck_assert(tt_footer_parse(&super, body, length, &part));
    ck_assert_uint_eq(part.frame_count, TIMES + 1);
    ck_assert(tt_footer_next(&super, &part, &p));
    ck_assert_int_eq(p.time, TIMES);
    free(body);
    tt_footer_free(ft);
}
END_TEST

/* ---- what contradicts itself ---------------------------------------------- */

struct lie {
    size_t at, width;
    uint64_t value;
};

/* Does a reader take all of the part, with these bytes? */
static bool is_taken(const struct tt_super *super, const uint8_t *body,
                     uint32_t length, struct lie lie)
{
    uint8_t *copy = malloc(length);
    struct footer_part part;
    struct placed p;
    bool ok;

    memcpy(copy, body, length);
    for (size_t i = 0; i < lie.width; i++) {
        copy[lie.at + i] = (uint8_t)(lie.value >> 8 * i);
    }
    ok = tt_footer_parse(super, copy, length, &part);
    for (uint32_t i = 0; ok && i < part.entry_count; i++) {
        ok = tt_footer_next(super, &part, &p);
    }
    free(copy);
    return ok;
}

START_TEST(contradictions)
{
    enum {
        BODY = sizeof(struct tt_footer_body),
        FRAMES = BODY, /* 3 stretches, of 2 frames, and 3 entries */
        ENTRIES = FRAMES + 3 * sizeof(struct tt_footer_frame),
        SEQ = offsetof(struct tt_footer_frame, seq),
        PLACE = offsetof(struct tt_footer_frame, offset),
        TIME = offsetof(struct tt_footer_frame, time),
        NEXT = sizeof(struct tt_footer_frame),
        ENTRY = sizeof(struct tt_footer_entry),
    };
    const struct made first[] = {
        { TT_KIND_WRITE, 0, 5, 0, 4096 },
        { TT_KIND_WRITE, 0, 6, 4096, 4096 },
    };
    const struct made second[] = { { TT_KIND_WRITE, 0, 7, 8192, 4096 } };
    const struct tt_super super = some_super();
    const uint64_t at = tt_segment_offset(&super, SEGMENT);
    struct made_frame frames[2];
    struct tt_footer *ft;
    uint32_t length, end;
    uint8_t *body;
    bool last;

    make_frame(&frames[0], 100, at, first, 2);
    make_frame(&frames[1], 102, tt_frame_end(&frames[0].f), second, 1);
    end = frames[0].f.length;
    ft = make_footer(&super, frames, 2);
    body = tt_footer_part(ft, 0, &length, &last);
    ck_assert_uint_eq(length, ENTRIES + 3 * ENTRY + 3 * 8);
    {
        const struct lie lies[] = {
            { FRAMES + SEQ, 4, 1 }, /* not the segment's first record */
            { FRAMES + PLACE, 4, 512 },
            { FRAMES + NEXT + SEQ, 4, 0 }, /* one of them twice */
            { FRAMES + NEXT + SEQ, 4, 2 },
            { FRAMES + 2 * NEXT + SEQ, 4, 3 }, /* behind the last */
            { FRAMES + 2 * NEXT + SEQ, 4, UINT32_MAX },
            { FRAMES + NEXT + TIME, 8, 5 }, /* no other time */
            { FRAMES + NEXT + TIME, 8, 4 }, /* backwards */
            { FRAMES + 2 * NEXT + TIME, 8, 5 },
            { FRAMES + 2 * NEXT + TIME, 8, 8 }, /* after the segment */
            { FRAMES + 2 * NEXT + TIME, 8, (uint64_t)INT64_MAX },
            { FRAMES + TIME, 8, 4 }, /* before it */
            { FRAMES + TIME, 8, (uint64_t)INT64_MIN },
            { FRAMES + 2 * NEXT + PLACE, 4, end + 256 },
            { FRAMES + 2 * NEXT + PLACE, 4, end - 512 },  /* in the payload */
            { FRAMES + 2 * NEXT + PLACE, 4, end + 4096 }, /* behind its own */
            { FRAMES + 2 * NEXT + PLACE, 4, (uint32_t)super.segment_size },
            { FRAMES + 2 * NEXT + PLACE, 4, UINT32_MAX - 511 },
            { ENTRIES + 8, 4, 0 }, /* sectors */
            { ENTRIES + 8, 4, 9 }, /* one checksum too many */
            { ENTRIES + 8, 4, UINT32_MAX },
            { ENTRIES + 12, 4, 3 },   /* seq */
            { ENTRIES + 12, 4, 2 },   /* of the other frame */
            { ENTRIES + 16, 4, 0 },   /* payload_offset */
            { ENTRIES + 16, 4, 257 }, /* of no sector */
            { ENTRIES + 16, 4, end }, /* of the other frame */
            { ENTRIES + 16, 4, UINT32_MAX - 511 },
            { ENTRIES + 2 * ENTRY + 16, 4, 4096 },
            { ENTRIES + 20, 1, TT_KIND_MARK }, /* kind */
            { offsetof(struct tt_footer_body, frame_count), 4, 0 },
            { offsetof(struct tt_footer_body, frame_count), 4, 2 },
            { offsetof(struct tt_footer_body, frame_count), 4, UINT32_MAX },
            { offsetof(struct tt_footer_body, entry_count), 4, UINT32_MAX },
            { offsetof(struct tt_footer_body, checksum_count), 4, 2 },
            { offsetof(struct tt_footer_body, checksum_count), 4, UINT32_MAX },
            { offsetof(struct tt_footer_body, last_seq), 8, 101 },
            { offsetof(struct tt_footer_body, last_seq), 8, UINT64_MAX },
            { offsetof(struct tt_footer_body, first_seq), 8, 0 },
            { offsetof(struct tt_footer_body, first_time), 8, 6 },
            { offsetof(struct tt_footer_body, last_time), 8, 6 },
            { offsetof(struct tt_footer_body, segment), 8, UINT64_MAX },
        };

        ck_assert(is_taken(&super, body, length, (struct lie){ 0 }));
        /* what says the same, or nothing that could be wrong */
        ck_assert(is_taken(&super, body, length,
                           (struct lie){ FRAMES + 2 * NEXT + TIME, 8, 6 }));
        for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
            ck_assert_msg(!is_taken(&super, body, length, lies[i]), "lie %zu",
                          i);
        }
    }
    free(body);
    tt_footer_free(ft);
}
END_TEST

/* ---- how many bytes ------------------------------------------------------- */

struct load {
    struct tt_writer w;
    struct tt_batch *batch;
    struct tt_now now;
    uint64_t random, journal, guest;
};

static uint8_t a_block[TT_MIB];

static void commit_load(struct load *l)
{
    struct tt_append ap;

    tt_writer_plan(&l->w, l->batch, l->now, &ap);
    ck_assert(tt_writer_commit(&l->w, l->batch));
    l->journal += ap.length;
    l->now.realtime += 1000000;
    l->now.boottime += 1000000;
    tt_batch_reset(l->batch, &l->w);
}

static void append_load_footer(struct load *l)
{
    struct tt_footer *ft = tt_writer_take_footer(&l->w);
    uint32_t part = 0, length;
    bool last = !ft;

    while (!last) {
        uint8_t *body = tt_footer_part(ft, part++, &length, &last);
        struct tt_request req = {
            .kind = TT_KIND_FOOTER,
            .flags = last ? 0 : TT_RECORD_MORE,
            .payload = body,
            .payload_length = length,
        };

        ck_assert_ptr_nonnull(body);
        tt_batch_reset(l->batch, &l->w);
        ck_assert(tt_batch_add(l->batch, &req));
        commit_load(l);
        free(body);
    }
    tt_footer_free(ft);
}

/* One frame of @depth writes of @length bytes at random places of 8 GiB. */
static void write_load(struct load *l, unsigned depth, uint32_t length)
{
    for (unsigned i = 0; i < depth; i++) {
        struct tt_request req = {
            .kind = TT_KIND_WRITE,
            .disk_length = length,
            .payload = a_block,
            .payload_length = length,
        };

        l->random = l->random * UINT64_C(6364136223846793005) + 1;
        req.disk_offset = (l->random >> 33) % (8 * TT_GIB / length) * length;
        if (!tt_batch_add(l->batch, &req)) {
            commit_load(l);
            ck_assert(tt_batch_add(l->batch, &req));
        }
        l->guest += length;
    }
    commit_load(l);
}

static double bytes_per_byte(uint32_t alignment, unsigned depth,
                             uint32_t length)
{
    struct load l = { .batch = tt_batch_new(), .random = 1 };
    struct tt_super super;
    struct tt_scan scan = { .empty = true };
    double ratio;

    tt_super_init(&super, (uint8_t[TT_UUID_SIZE]){ 1 }, 2, 8 * TT_GIB,
                  alignment, 0);
    scan.end_offset = super.segments_offset;
    tt_writer_open(&l.w, &super, &scan, alignment, 3, true);
    tt_batch_reset(l.batch, &l.w);
    while (l.w.next_offset < tt_segment_offset(&super, 4)) {
        write_load(&l, depth, length);
        append_load_footer(&l);
    }
    ratio = (double)l.journal / (double)l.guest;
    printf("%u writes of %u KiB a frame, aligned to %u: %.4f bytes of journal "
           "a byte\n",
           depth, length / 1024, alignment, ratio);
    tt_writer_clear(&l.w);
    tt_batch_free(l.batch);
    return ratio;
}

START_TEST(bytes_of_the_journal)
{
    ck_assert_double_le(bytes_per_byte(512, 1, 4096), 1.14);
    ck_assert_double_le(bytes_per_byte(4096, 1, 4096), 2.02);
    ck_assert_double_le(bytes_per_byte(512, 32, 4096), 1.025);
    ck_assert_double_le(bytes_per_byte(4096, 32, 4096), 1.04);
    ck_assert_double_le(bytes_per_byte(512, 1, TT_MIB), 1.006);
    /* of which 4096 / TT_MIB is the frame's head, and half that checksums */
    ck_assert_double_le(bytes_per_byte(4096, 1, TT_MIB), 1.0062);
}
END_TEST

int main(void)
{
    return unit_run("footer-format", (const TTest *const *const[]){
                                         &times_and_lengths,
                                         &longest_part,
                                         &contradictions,
                                         &bytes_of_the_journal,
                                         NULL,
                                     });
}
