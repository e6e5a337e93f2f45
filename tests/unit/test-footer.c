/*
 * Footers: does one list every version of its segment, in order?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "../../journal/footer.h"
#include "../../journal/skip.h"
#include "simindex.h"
#include "unit.h"

struct seen {
    uint64_t offset, length, seq;
    uint64_t frame; /* from the segment's start */
    int64_t time;
    uint16_t kind, flags;
    uint64_t payload;
    uint32_t sums;
    uint64_t sum[SIM_DISK_MAX / TT_GRID + 1];
};

struct listing {
    struct seen *items;
    size_t count;
    uint64_t segment, first_seq, last_seq, end, chain, leaves, first_leaf;
    uint64_t max_length;
    const struct tt_super *super;
};

static int list_frame(void *opaque, const struct tt_frame *f,
                      const uint8_t *table)
{
    struct listing *l = opaque;
    uint32_t pos = 0, index = 0;
    struct tt_record r;

    if (f->segment != l->segment) {
        return 0;
    }
    if (!l->first_seq) {
        l->first_seq = f->first_seq;
        l->first_leaf = f->first_leaf;
    }
    l->last_seq = tt_frame_last_seq(f);
    l->end = tt_frame_end(f);
    l->chain = f->own_chain;
    l->leaves += (f->length + TT_LEAF - 1) / TT_LEAF;
    while (tt_table_next(f, table, &pos, &index, &r)) {
        struct seen *s = &l->items[l->count];

        if (!tt_kind_is_version(r.kind) && r.kind != TT_KIND_RESIZE) {
            continue;
        }
        *s = (struct seen){
            .offset = r.disk_offset,
            .length = r.disk_length,
            .seq = r.seq,
            .frame = f->offset - tt_segment_offset(l->super, l->segment),
            .time = r.time,
            .kind = r.kind,
            .flags = r.flags,
            .sums = r.checksum_count,
            .payload = r.payload_offset
                           ? f->offset + r.payload_offset -
                                 tt_segment_offset(l->super, l->segment)
                           : 0,
        };
        for (uint32_t i = 0; i < r.checksum_count; i++) {
            s->sum[i] = tt_get64(r.checksums[i]);
        }
        if (r.kind != TT_KIND_RESIZE && r.disk_length > l->max_length) {
            l->max_length = r.disk_length;
        }
        l->count++;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;

    return x->offset != y->offset ? (x->offset < y->offset ? -1 : 1)
                                  : (x->seq > y->seq) - (x->seq < y->seq);
}

/* Each is of some entry, and the one that it is found by */
static void check_frames(const uint8_t *frames, uint32_t count,
                         const struct listing *l, size_t at, uint32_t n)
{
    uint8_t *used = calloc(count + 1, 1);

    for (uint32_t i = 0; i < n; i++) {
        const struct seen *s = &l->items[at + i];
        struct tt_footer_frame f;
        uint32_t k = count;

        do {
            ck_assert_uint_gt(k, 0);
            memcpy(&f, frames + --k * sizeof(f), sizeof(f));
        } while (l->first_seq + tt_get32(f.seq) > s->seq);
        ck_assert_uint_eq(tt_get32(f.offset), s->frame);
        ck_assert_int_eq((int64_t)tt_get64(f.time), s->time);
        used[k] = 1;
    }
    for (uint32_t k = 0; k < count; k++) {
        ck_assert_msg(used[k], "frame %u of %u is of no entry", k, count);
    }
    free(used);
}

/* What a reader makes of one part, without the others */
static void check_reader(const struct listing *l, const uint8_t *body,
                         uint32_t length, size_t at)
{
    struct footer_part part;
    struct placed p;

    ck_assert(tt_footer_parse(l->super, body, length, &part));
    ck_assert(!tt_footer_parse(l->super, body, length - 1, &part));
    ck_assert(tt_footer_parse(l->super, body, length, &part));
    for (uint32_t i = 0; i < part.entry_count; i++, at++) {
        const struct seen *s = &l->items[at];

        ck_assert(tt_footer_next(l->super, &part, &p));
        ck_assert_uint_eq(p.seq, s->seq);
        ck_assert_int_eq(p.time, s->time);
        ck_assert_uint_eq(p.disk_offset, s->offset);
        ck_assert_uint_eq(p.disk_length, s->length);
        ck_assert_uint_eq(p.kind, s->kind);
        ck_assert_uint_eq(p.flags, s->flags);
        ck_assert_uint_eq(p.payload,
                          s->payload ? part.segment_offset + s->payload : 0);
        for (uint32_t k = 0; k < s->sums; k++) {
            ck_assert_uint_eq(tt_get64(p.sums[k]), s->sum[k]);
        }
    }
}

/* Holds part @part against the sorted items from *at on. */
static void check_part(const struct listing *l, const uint8_t *body,
                       uint32_t length, uint32_t part, uint32_t parts,
                       size_t *at)
{
    const uint8_t *frames = body + sizeof(struct tt_footer_body);
    const uint8_t *entries, *sums;
    uint32_t n, m, done = 0;
    struct tt_footer_body b;

    memcpy(&b, body, sizeof(b));
    n = tt_get32(b.entry_count);
    m = tt_get32(b.frame_count);
    entries = frames + m * sizeof(struct tt_footer_frame);
    sums = entries + n * sizeof(struct tt_footer_entry);
    ck_assert_uint_eq(length,
                      (size_t)(sums - body) + tt_get32(b.checksum_count) * 8);
    ck_assert_uint_eq(tt_get64(b.segment), l->segment);
    ck_assert_uint_eq(tt_get64(b.first_seq), l->first_seq);
    ck_assert_uint_eq(tt_get64(b.last_seq), l->last_seq);
    ck_assert_uint_eq(tt_get64(b.end_offset), l->end);
    ck_assert_uint_eq(tt_get64(b.last_chain), l->chain);
    ck_assert_uint_eq(tt_get64(b.first_leaf), l->first_leaf);
    ck_assert_uint_eq(tt_get64(b.leaf_count), l->leaves);
    ck_assert_uint_eq(tt_get64(b.max_disk_length), l->max_length);
    ck_assert_uint_eq(tt_get32(b.part), part);
    ck_assert_uint_eq(tt_get32(b.part_count), parts);
    ck_assert_uint_le(*at + n, l->count);
    check_frames(frames, m, l, *at, n);
    check_reader(l, body, length, *at);
    for (uint32_t i = 0; i < n; i++, (*at)++) {
        const struct seen *s = &l->items[*at];
        bool resize = s->kind == TT_KIND_RESIZE;
        struct tt_footer_entry e;

        memcpy(&e, entries + i * sizeof(e), sizeof(e));
        ck_assert_uint_eq(tt_get64(e.disk_offset), s->offset);
        ck_assert_uint_eq(tt_get32(e.sectors), (uint32_t)(s->length / 512));
        ck_assert_uint_eq(tt_get32(e.seq), s->seq - l->first_seq);
        ck_assert_uint_eq(e.kind, s->kind);
        ck_assert_uint_eq(e.flags, s->flags);
        ck_assert_uint_eq(tt_get32(e.payload_offset),
                          resize ? s->length / 512 >> 32 : s->payload);
        for (uint32_t k = 0; k < s->sums; k++, done++) {
            tt_le64 sum;

            memcpy(&sum, sums + done * 8, 8);
            ck_assert_uint_eq(tt_get64(sum), s->sum[k]);
        }
    }
    ck_assert_uint_eq(done, tt_get32(b.checksum_count));
}

static void check_footer(struct unit *u)
{
    struct listing l = { .segment = 0, .super = &u->sw.super };
    const struct tt_scan_ops ops = { .frame = list_frame, .opaque = &l };
    struct tt_source src = sw_quiet_source(&u->sw);
    uint32_t parts = 0, length;
    bool last;
    struct tt_scan scan;
    size_t at = 0;
    uint8_t *body;

    l.items = calloc(u->sw.tip->last_seq + 1, sizeof(*l.items));
    OK(&u->sw, tt_scan_run(&u->sw.super, &src, 0, &ops, &scan, NULL));
    qsort(l.items, l.count, sizeof(*l.items), by_place);
    do {
        body = tt_footer_part(u->sw.w.ended, parts++, &length, &last);
        ck_assert(body != NULL);
        free(body);
    } while (!last);
    ck_assert(!tt_footer_part(u->sw.w.ended, parts, &length, &last));
    for (uint32_t i = 0; i < parts; i++) {
        body = tt_footer_part(u->sw.w.ended, i, &length, &last);
        ck_assert_int_eq(last, i + 1 == parts);
        check_part(&l, body, length, i, parts, &at);
        free(body);
    }
    ck_assert_uint_eq(at, l.count);
    free(l.items);
}

/* The clock's step begins a segment; its footer is not appended yet. */
static void end_segment(struct unit *u)
{
    struct tt_request req = { .kind = TT_KIND_DURABLE };

    unit_step_clock(u, -3600);
    OK(&u->sw, sw_append_one(&u->sw, &req, 1));
    ck_assert_ptr_nonnull(u->sw.w.ended);
}

START_TEST(lists_every_version)
{
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct unit u;

        unit_begin(&u, seed);
        for (unsigned i = 0; i < 40; i++) {
            uint64_t at = sim_random(&u.world, 100) * 512;

            if (sim_chance(&u.world, 20)) {
                OK(&u.sw, sw_zero(&u.sw, at, 1024, SW_PRE_WITH));
            } else if (sim_chance(&u.world, 5)) {
                OK(&u.sw, sw_resize(&u.sw, SIM_DISK_MAX - 4096));
                OK(&u.sw, sw_resize(&u.sw, SIM_DISK_MAX));
            } else {
                unit_write(&u, at, 512 * (1 + sim_random(&u.world, 20)));
            }
            if (sim_chance(&u.world, 5)) {
                unit_reopen(&u); /* the next session goes on with the list */
            }
        }
        end_segment(&u);
        check_footer(&u);
        unit_end(&u);
    }
}
END_TEST

START_TEST(several_parts)
{
    struct unit u;
    struct tt_request reqs[512];

    unit_begin(&u, 3);
    for (unsigned i = 0; i < 512; i++) {
        reqs[i] = (struct tt_request){
            .kind = TT_KIND_PREIMAGE,
            .flags = TT_RECORD_ZEROES,
            .disk_offset = i * TT_GRID % SIM_DISK_MAX,
            .disk_length = TT_GRID,
        };
    }
    OK(&u.sw, sw_zero(&u.sw, 0, SIM_DISK_MAX, SW_PRE_BEFORE));
    for (unsigned i = 0; i < 64; i++) {
        OK(&u.sw, sw_append(&u.sw, reqs, 512));
    }
    end_segment(&u);
    ck_assert_ptr_nonnull(u.sw.w.ended);
    check_footer(&u);
    /* all of it is appended, and found again by the next session */
    OK(&u.sw, sw_append_footer(&u.sw));
    ck_assert_ptr_null(u.sw.w.ended);
    unit_reopen(&u);
    ck_assert_ptr_null(u.sw.w.ended);
    unit_end(&u);
}
END_TEST

/* Appends the part @i of those of @some entries each; are there more? */
static bool append_part(struct unit *u, struct tt_footer *ft, size_t some,
                        size_t count, uint32_t i)
{
    uint32_t parts = (uint32_t)((count + some - 1) / some), length;
    size_t n = i + 1 < parts ? some : count - some * i;
    uint8_t *body = tt_footer_span(ft, some * i, n, i, parts, &length);
    struct tt_request req = {
        .kind = TT_KIND_FOOTER,
        .flags = (i + 1 < parts ? TT_RECORD_MORE : 0) |
                 (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0),
        .payload = body,
        .payload_length = length,
    };

    OK(&u->sw, sw_append_one(&u->sw, &req, 1));
    free(body);
    unit_write(u, 4096, 512); /* among other frames */
    return i + 1 < parts;
}

/* Appends parts of some entries each, without the last @missing of them. */
static void append_parts(struct unit *u, struct tt_footer *ft, size_t some,
                         size_t missing, bool to_the_end)
{
    size_t count = ft->count - missing;
    uint32_t parts = (uint32_t)((count + some - 1) / some);

    for (uint32_t i = 0; i < (to_the_end ? parts : parts - 1); i++) {
        append_part(u, ft, some, count, i);
    }
}

struct found {
    uint64_t wrong, notes, lost; /* lost: records in damaged places */
};

static void note_finding(void *opaque, const struct tt_finding *f)
{
    struct found *found = opaque;

    found->notes += f->harmless;
    found->lost += !strncmp(f->what, "damaged", 7);
    found->wrong += !f->harmless && strncmp(f->what, "damaged", 7);
}

static struct found verify(struct unit *u)
{
    struct found found = { 0 };
    const struct tt_verify_ops ops = { .finding = note_finding,
                                       .opaque = &found };
    struct tt_source src = sw_quiet_source(&u->sw);
    struct tt_error err = { 0 };
    uint64_t count = 0;

    ck_assert_msg(tt_verify(&src, &ops, &count, &err) == 0, "%s", err.message);
    return found;
}

static uint64_t findings(struct unit *u)
{
    struct found found = verify(u);

    return found.wrong + found.notes + found.lost;
}

static int count_entries(void *opaque, struct footer_part *part)
{
    *(size_t *)opaque += part->entry_count;
    return 1;
}

/* How many versions an index would take from the footer of the segment */
static size_t indexed(struct unit *u, const struct tt_footer *ft)
{
    struct tt_source src = sw_quiet_source(&u->sw);
    uint8_t *body = malloc(TT_PAYLOAD_RECORD_MAX);
    struct skip s;
    size_t count = 0;

    ck_assert_int_eq(
        tt_skip_look(&s, &u->sw.super, &src, ft->segment, ft->first_seq, NULL),
        1);
    ck_assert_int_eq(tt_skip_footer(&s, body, count_entries, &count), 1);
    tt_skip_clear(&s);
    free(body);
    return count;
}

/* Where a footer is cut is its writer's choice; and one may have died amid. */
START_TEST(parts_of_any_size)
{
    for (size_t some = 1; some < 12; some++) {
        for (size_t missing = 0; missing < 2; missing++) {
            struct tt_footer *ft;
            struct unit u;

            unit_begin(&u, 5 + some);
            for (unsigned i = 0; i < 4; i++) {
                unit_write(&u, i * 8192, 4096);
            }
            end_segment(&u);
            ft = tt_writer_take_footer(&u.sw.w);
            ck_assert_uint_ge(ft->count, 4);
            append_parts(&u, ft, some, 0, false);
            append_parts(&u, ft, some, missing, true);
            /* or it would not have been compared */
            ck_assert_uint_eq(u.sw.w.footer->segment, ft->segment + 1);
            ck_assert_uint_eq(findings(&u) != 0, missing != 0);
            ck_assert(missing || indexed(&u, ft) == ft->count);
            tt_footer_free(ft);
            unit_end(&u);
        }
    }
}
END_TEST

/* What a forger might say: another time, place, content; a version less */
static void forge(struct tt_footer *ft, unsigned how)
{
    struct footer_version *v = &ft->versions[ft->count / 2];

    switch (how) {
    case 1:
        ft->stretches[v->frame].time++;
        break;
    case 2:
        v->disk_offset += 512;
        break;
    case 3:
        ft->sums[0] = tt_put64(tt_get64(ft->sums[0]) ^ 1);
        break;
    case 4:
        ft->count--;
        break;
    case 5:
        ft->last_time++;
        break;
    case 6:
        ft->stretches[v->frame].offset -= 512;
        break;
    case 7:
        v->disk_length += 512;
        break;
    }
}

#define FORGERIES 8 /* the first is none */

/* The segment after the next has begun, and the footers are still to come. */
static void end_two_segments(struct unit *u, uint64_t seed,
                             struct tt_footer *ret[static 2])
{
    unit_begin(u, seed);
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 0; i < 5; i++) {
            unit_write(u, i * 8192, 4096);
        }
        end_segment(u);
        ret[k] = tt_writer_take_footer(&u->sw.w);
        ck_assert_uint_ge(ret[k]->count, 5);
    }
    unit_write(u, 0, 4096);
}

START_TEST(footers_that_come_late)
{
    for (unsigned how = 0; how < FORGERIES; how++) {
        for (unsigned forged = 0; forged < 2; forged++) {
            struct tt_footer *ft[2];
            struct unit u;

            end_two_segments(&u, 6 + how, ft);
            forge(ft[forged], how);
            append_parts(&u, ft[0], 3, 0, true);
            append_parts(&u, ft[1], 100, 0, true);
            ck_assert_uint_eq(u.sw.w.footer->segment, ft[0]->segment + 2);
            ck_assert_msg((findings(&u) != 0) == (how != 0),
                          "%u: %llu findings", how, (ull)findings(&u));
            tt_footer_free(ft[0]);
            tt_footer_free(ft[1]);
            unit_end(&u);
        }
    }
}
END_TEST

/* Parts of two footers by turns, and a segment's end between them */
START_TEST(footers_in_several_segments)
{
    for (unsigned how = 0; how < FORGERIES; how++) {
        struct tt_footer *ft[2];
        bool more[2] = { true, true };
        struct unit u;

        end_two_segments(&u, 60 + how, ft);
        forge(ft[1], how);
        for (uint32_t i = 0; more[0] || more[1]; i++) {
            for (unsigned k = 0; k < 2; k++) {
                more[k] = more[k] && append_part(&u, ft[k], 2, ft[k]->count, i);
            }
            end_segment(&u);
            OK(&u.sw, sw_append_footer(&u.sw));
        }
        ck_assert_uint_gt(u.sw.w.footer->segment, ft[1]->segment + 2);
        ck_assert_msg((findings(&u) != 0) == (how != 0), "%u: %llu findings",
                      how, (ull)findings(&u));
        tt_footer_free(ft[0]);
        tt_footer_free(ft[1]);
        unit_end(&u);
    }
}
END_TEST

/* A segment of some versions has ended; its footer is the caller's. */
static struct tt_footer *end_small_segment(struct unit *u, uint64_t seed)
{
    struct tt_footer *ft;

    unit_begin(u, seed);
    for (unsigned i = 0; i < 6; i++) {
        unit_write(u, i * 8192, 4096);
    }
    end_segment(u);
    ft = tt_writer_take_footer(&u->sw.w);
    ck_assert_uint_ge(ft->count, 6);
    return ft;
}

/* A part of @count entries that says it is of @parts, with @flags */
static void append_alone(struct unit *u, struct tt_footer *ft, size_t count,
                         uint32_t parts, uint16_t flags)
{
    uint32_t length;
    uint8_t *body = tt_footer_span(ft, 0, count, 0, parts, &length);
    struct tt_request req = {
        .kind = TT_KIND_FOOTER,
        .flags = flags | (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0),
        .payload = body,
        .payload_length = length,
    };

    OK(&u->sw, sw_append_one(&u->sw, &req, 1));
    free(body);
}

/* MORE says the same as the numbers: one who waits for parts waits in vain. */
START_TEST(more_parts_than_there_are)
{
    for (unsigned more = 0; more < 2; more++) {
        for (uint32_t parts = 0; parts < 3; parts++) {
            struct tt_footer *ft;
            struct found found;
            struct unit u;

            ft = end_small_segment(&u, 70);
            append_alone(&u, ft, ft->count, parts == 2 ? 256 : parts,
                         more ? TT_RECORD_MORE : 0);
            found = verify(&u);
            ck_assert_uint_eq(found.wrong, more ? parts < 2 : parts != 1);
            /* the rest may have been to come when the writer was killed */
            ck_assert_uint_eq(found.notes, more && parts == 2);
            tt_footer_free(ft);
            unit_end(&u);
        }
    }
}
END_TEST

/* Who goes on to the next footer could have appended the rest, too. */
START_TEST(writers_that_go_on)
{
    for (unsigned killed = 0; killed < 2; killed++) {
        struct tt_footer *ft;
        struct found found;
        struct unit u;

        ft = end_small_segment(&u, 71);
        append_parts(&u, ft, 2, 0, false);
        found = verify(&u);
        ck_assert_uint_eq(found.wrong, 0);
        ck_assert_uint_eq(found.notes, 1);
        if (killed) {
            /* the next session knows that it is not complete */
            unit_reopen(&u);
            ck_assert_uint_eq(findings(&u), 0);
        }
        end_segment(&u);
        OK(&u.sw, sw_append_footer(&u.sw));
        found = verify(&u);
        ck_assert_uint_eq(found.wrong, !killed);
        ck_assert_uint_eq(found.notes, 0);
        tt_footer_free(ft);
        unit_end(&u);
    }
}
END_TEST

/* What is there of a footer is compared, whatever is missing before it. */
START_TEST(parts_behind_damage)
{
    for (uint32_t lost = 0; lost < 3; lost++) {
        for (unsigned how = 0; how < 2; how++) {
            struct tt_footer *ft;
            struct found found;
            uint64_t at = 0;
            size_t some;
            struct unit u;

            ft = end_small_segment(&u, 72);
            some = (ft->count + 2) / 3;
            for (uint32_t i = 0; i < 3; i++) {
                uint64_t here = u.sw.w.next_offset;

                at = i == lost ? here : at;
                if (how && i == (lost == 1 ? 2 : 1)) {
                    ft->versions[some * i].flags ^= TT_RECORD_FUA;
                }
                ck_assert_int_eq(append_part(&u, ft, some, ft->count, i),
                                 i < 2);
            }
            /* what is behind says that it was durable */
            OK(&u.sw, sw_flush(&u.sw));
            unit_write(&u, 0, 512);
            memset(u.sw.journal.cache + at, 0x55, 16);
            found = verify(&u);
            ck_assert_uint_eq(found.lost, 1);
            ck_assert_msg(found.wrong == how, "%u %u: %llu", lost, how,
                          (ull)found.wrong);
            ck_assert_uint_eq(found.notes, 0);
            tt_footer_free(ft);
            u.sw.damage_ok = true;
            unit_end(&u);
        }
    }
}
END_TEST

/* What a part may tell of the two frames from here on, which others do not */
static void forge_frames(struct tt_footer *ft, unsigned how, uint32_t next_part)
{
    struct footer_stretch *a = &ft->stretches[0], *b = &ft->stretches[1];

    if (how == 1 && next_part == 1) {
        a->time++;
    } else if (how == 2 && next_part == 3) {
        b->offset += 512;
    } else if (how == 3 && next_part == 2) {
        /* no part tells of both: each for itself may be true */
        b->offset = a->offset - 512;
    } else if (how == 4 && next_part == 2) {
        b->time = a->time - 1;
    }
}

/* Parts that do not agree where a frame is: the segment is scanned instead. */
START_TEST(parts_that_disagree)
{
    for (unsigned how = 0; how < 5; how++) {
        struct tt_error err = { 0 };
        struct tt_source src;
        struct tt_footer *ft;
        struct simindex x;
        struct unit u;

        unit_begin(&u, 70);
        for (unsigned i = 0; i < 2; i++) {
            struct tt_request reqs[4];

            for (unsigned k = 0; k < 4; k++) {
                reqs[k] = (struct tt_request){
                    .kind = TT_KIND_PREIMAGE,
                    .flags = TT_RECORD_ZEROES,
                    .disk_offset = (k + 4 * i) * TT_GRID,
                    .disk_length = TT_GRID,
                };
            }
            u.sw.now.realtime += 1000;
            u.sw.now.boottime += 1000;
            OK(&u.sw, sw_append(&u.sw, reqs, 4));
        }
        end_segment(&u);
        ft = tt_writer_take_footer(&u.sw.w);
        ck_assert_uint_eq(ft->count, 8);
        ck_assert_uint_eq(ft->stretch_count, 2);
        ck_assert_uint_gt(ft->stretches[0].offset, 512);
        ck_assert_int_gt(ft->stretches[0].time, ft->first_time);
        ck_assert_int_gt(ft->stretches[1].time, ft->stretches[0].time);
        for (uint32_t i = 0; i < 4; i++) {
            /* each part tells of two records of one frame */
            append_part(&u, ft, 2, 8, i);
            forge_frames(ft, how, i + 1);
        }
        OK(&u.sw, sw_flush(&u.sw));
        OK(&u.sw, sw_durable(&u.sw));
        si_init(&x, 1);
        si_totals = (struct si_totals){ 0 };
        src = sw_quiet_source(&u.sw);
        ck_assert_msg(si_extend(&x, &src, true, &err) == 0, "%s", err.message);
        ck_assert_uint_ge(si_totals.segments, 1);
        ck_assert_msg((si_totals.from_footers > 0) == (how == 0), "%u", how);
        si_clear(&x);
        tt_footer_free(ft);
        unit_end(&u);
    }
}
END_TEST

START_TEST(crash_before_the_footer)
{
    struct sim_node *n;
    unsigned footers = 0;
    struct unit u;

    unit_begin(&u, 4);
    unit_write(&u, 0, 8192);
    end_segment(&u);
    unit_reopen(&u);
    for (n = u.sw.tip; n->parent; n = n->parent) {
        for (uint64_t i = 0; i <= n->last_seq - n->first_seq; i++) {
            footers += n->states[i].kind == TT_KIND_FOOTER;
        }
    }
    ck_assert_uint_eq(footers, 1);
    unit_end(&u);
}
END_TEST

int main(void)
{
    return unit_run("footer", (const TTest *const *const[]){
                                  &lists_every_version,
                                  &several_parts,
                                  &parts_of_any_size,
                                  &footers_that_come_late,
                                  &footers_in_several_segments,
                                  &more_parts_than_there_are,
                                  &writers_that_go_on,
                                  &parts_behind_damage,
                                  &parts_that_disagree,
                                  &crash_before_the_footer,
                                  NULL,
                              });
}
