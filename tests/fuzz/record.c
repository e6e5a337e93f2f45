/*
 * The journals that the fuzzers begin with: see fuzz.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "fuzz.h"

#define DISK (4 * TT_GRID)
#define WIDE_DISK (16 * TT_GRID)

static void done(struct fuzz_base *b, int ret)
{
    if (ret) {
        fprintf(stderr, "the recorder failed: %d %s\n", ret, b->sw.problem);
        abort();
    }
}

static void write_some(struct fuzz_base *b, uint64_t offset, uint64_t length)
{
    uint8_t buf[2 * TT_GRID];

    for (uint64_t i = 0; i < length; i++) {
        /* few different bytes: small corpora, and copies that look alike */
        buf[i] = (uint8_t)(b->letter + sim_random(&b->world, 4));
    }
    done(b, sw_write(&b->sw, offset, length, buf,
                     sim_chance(&b->world, 50) ? SW_PRE_BEFORE : SW_PRE_AFTER));
}

/*
 * A write of one or two sectors, or zeroes, in one block: so much fits what is
 * left of a segment, or the next one.
 */
static void change(struct fuzz_base *b)
{
    const uint64_t blocks = b->sw.w.disk_size / TT_GRID;
    uint64_t block = TT_GRID * sim_random(&b->world, blocks);
    uint64_t at = block + TT_SECTOR * sim_random(&b->world, 7);
    uint64_t length = TT_SECTOR * (1 + sim_random(&b->world, 2));

    if (sim_chance(&b->world, 25)) {
        done(b, sw_zero(&b->sw, at, length, SW_PRE_AFTER));
    } else {
        write_some(b, at, length);
    }
}

static void changes(struct fuzz_base *b, unsigned count)
{
    while (count--) {
        change(b);
    }
}

static void step_clock(struct fuzz_base *b, int64_t seconds)
{
    b->sw.now.realtime += seconds * INT64_C(1000000000);
}

static void close_clean(struct fuzz_base *b)
{
    done(b, sw_close(&b->sw));
    sw_abandon(&b->sw);
}

static void record_plain(struct fuzz_base *b)
{
    changes(b, 3);
    done(b, sw_mark(&b->sw, "before"));
    done(b, sw_flush(&b->sw));
    changes(b, 2);
    close_clean(b);
}

/*
 * What a power cut leaves of a journal may go on in two ways: with other
 * letters nothing but the bytes, and so the chain, is different.
 */
static void record_forked(struct fuzz_base *b, char letter)
{
    changes(b, 8);
    done(b, sw_flush(&b->sw));
    b->letter = letter;
    done(b, sw_mark(&b->sw, "one"));
    done(b, sw_resize(&b->sw, DISK - TT_GRID));
    done(b, sw_resize(&b->sw, DISK));
    step_clock(b, -3600);
    changes(b, 8);
    sw_kill(&b->sw);
    done(b, sw_open(&b->sw));
    changes(b, 8);
    done(b, sw_flush(&b->sw));
    done(b, sw_mark(&b->sw, "two"));
    step_clock(b, 75 * INT64_C(365) * 86400);
    changes(b, 8);
    step_clock(b, -75 * INT64_C(365) * 86400);
    changes(b, 4);
    done(b, sw_durable(&b->sw));
    close_clean(b);
}

static void record_long(struct fuzz_base *b)
{
    record_forked(b, 'a');
}

static void record_fork(struct fuzz_base *b)
{
    record_forked(b, 'q');
}

static void record_open(struct fuzz_base *b)
{
    changes(b, 4);
    done(b, sw_flush(&b->sw));
    changes(b, 6);
    sw_abandon(&b->sw);
}

/* A GAP that says of one sector that it is in doubt. */
static void gap(struct fuzz_base *b)
{
    struct {
        struct tt_gap_body gap;
        struct tt_range range;
    } body = {
        .gap.from_seq = tt_put64(b->sw.w.next_seq - 1),
        .gap.from_epoch = tt_put64(b->sw.w.epoch),
        .gap.from_time = tt_put64((uint64_t)b->sw.w.last_time),
        .gap.to_time = tt_put64((uint64_t)b->sw.w.last_time),
        .gap.reason = tt_put32(TT_GAP_JOURNAL_ERROR),
        .gap.range_count = tt_put32(1),
        .range = { tt_put64(TT_GRID), tt_put64(TT_SECTOR) },
    };
    const struct tt_request req = {
        .kind = TT_KIND_GAP,
        .flags = TT_RECORD_INLINE,
        .payload = &body,
        .payload_length = sizeof(body),
    };

    done(b, sw_append(&b->sw, &req, 1));
}

static void record_gaps(struct fuzz_base *b)
{
    changes(b, 3);
    gap(b);
    changes(b, 3);
    step_clock(b, 1000);
    gap(b);
    changes(b, 1);
    close_clean(b);
}

/* All of a disk is touched, then some of it twice. */
static void record_wide(struct fuzz_base *b)
{
    for (uint64_t at = 0; at < WIDE_DISK; at += TT_GRID) {
        write_some(b, at, TT_SECTOR);
    }
    done(b, sw_flush(&b->sw));
    done(b, sw_mark(&b->sw, "wide"));
    changes(b, 12);
    done(b, sw_resize(&b->sw, WIDE_DISK - TT_GRID));
    changes(b, 4);
    close_clean(b);
}

void fuzz_base_make(struct fuzz_base *b, enum fuzz_kind kind)
{
    static void (*const record[FUZZ_ALL_BASES])(struct fuzz_base *) = {
        [FUZZ_PLAIN] = record_plain, [FUZZ_LONG] = record_long,
        [FUZZ_OPEN] = record_open,   [FUZZ_GAPS] = record_gaps,
        [FUZZ_FORK] = record_fork,   [FUZZ_WIDE] = record_wide,
    };
    const size_t size = kind == FUZZ_WIDE ? WIDE_DISK : DISK;
    uint8_t disk[WIDE_DISK];

    *b = (struct fuzz_base){ .letter = 'a' };
    sim_world_init(&b->world, kind == FUZZ_FORK ? FUZZ_LONG : kind);
    for (size_t i = 0; i < size; i++) {
        disk[i] = (uint8_t)('A' + sim_random(&b->world, 4));
    }
    sw_init(&b->sw, &b->world, disk, size, TT_ALIGNMENT_MIN);
    done(b, sw_open(&b->sw));
    record[kind](b);
    b->image.size = b->sw.journal.size;
    b->image.bytes = fuzz_alloc(b->image.size);
    memcpy(b->image.bytes, b->sw.journal.cache, b->image.size);
}

/* ---- what comes of them ------------------------------------------------ */

void fuzz_base_clear(struct fuzz_base *b)
{
    sw_clear(&b->sw);
    free(b->image.bytes);
    memset(b, 0, sizeof(*b));
}

const struct sim_state *fuzz_truth(const struct fuzz_base *b, uint64_t seq)
{
    return sim_node_state(&b->sw.model, b->sw.tip, seq);
}

bool fuzz_same_at(const struct fuzz_image *a, const struct fuzz_image *b,
                  size_t at, size_t length)
{
    return at <= a->size && length <= a->size - at && at <= b->size &&
           length <= b->size - at &&
           !memcmp(a->bytes + at, b->bytes + at, length);
}

/*
 * May what is at @at pass for a header?  Said here anew, for the library is
 * what is tested.
 */
static bool may_pass(const struct fuzz_image *image, size_t at,
                     const struct tt_super *super)
{
    struct tt_frame_header h;

    memcpy(&h, image->bytes + at, sizeof(h));
    return !memcmp(h.magic, TT_FRAME_MAGIC, TT_MAGIC_SIZE) &&
           !memcmp(h.uuid, super->uuid, TT_UUID_SIZE) &&
           tt_get64(h.salt) == super->salt && tt_get64(h.offset) == at &&
           tt_get64(h.header_checksum) ==
               tt_checksum(&h,
                           offsetof(struct tt_frame_header, header_checksum));
}

bool fuzz_is_honest(const struct fuzz_image *image,
                    const struct tt_super *super, const struct fuzz_base *base)
{
    const size_t header = sizeof(struct tt_frame_header);

    if (memcmp(super, &base->sw.super, sizeof(*super))) {
        return false;
    }
    for (size_t at = TT_SEGMENTS_OFFSET; at + header <= image->size;
         at += TT_ALIGNMENT_MIN) {
        if (may_pass(image, at, super) &&
            !fuzz_same_at(image, &base->image, at, header)) {
            return false;
        }
    }
    return true;
}
