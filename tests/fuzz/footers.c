/*
 * The footers in a journal: see footers.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "footers.h"

struct search {
    const struct tt_super *super;
    struct fuzz_footer *footers;
    unsigned count;
};

static int on_frame(void *opaque, const struct tt_frame *f,
                    const uint8_t *table)
{
    struct search *s = opaque;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;

    while (tt_table_next(f, table, &pos, &index, &rec)) {
        if (rec.kind == TT_KIND_FOOTER && rec.body && s->count < FUZZ_FOOTERS) {
            s->footers[s->count++] = (struct fuzz_footer){
                .place = f->offset + sizeof(struct tt_frame_header) +
                         (uint64_t)(rec.body - table),
                .length = rec.payload_length,
            };
        }
    }
    return 0;
}

static int on_member(void *opaque, const struct tt_frame *f,
                     const uint8_t *table)
{
    struct search *s = opaque;

    (void)table;
    for (unsigned i = 0; i < s->count; i++) {
        struct fuzz_footer *ft = &s->footers[i];

        if (f->segment + 1 == tt_segment_at(s->super, ft->place) &&
            ft->frame_count < FUZZ_FRAMES) {
            ft->frames[ft->frame_count++] = f->offset;
        }
    }
    return 0;
}

unsigned fuzz_footers(struct fuzz_base *b, struct fuzz_footer ret[FUZZ_FOOTERS])
{
    struct search s = { &b->sw.super, ret, 0 };
    struct tt_scan_ops ops = { .frame = on_frame, .opaque = &s };
    struct tt_source src = fuzz_source(&b->image);
    struct tt_scan end;

    FUZZ_CHECK(tt_scan_run(&b->sw.super, &src, 0, &ops, &end, NULL) == 0);
    ops.frame = on_member;
    FUZZ_CHECK(tt_scan_run(&b->sw.super, &src, 0, &ops, &end, NULL) == 0);
    FUZZ_CHECK(s.count > 1);
    for (unsigned i = 0; i < s.count; i++) {
        FUZZ_CHECK(ret[i].frame_count > 1);
    }
    return s.count;
}
