/*
 * Fuzzing footers: what they say is believed where frames are not read
 *
 * An input is a footer's body, behind two bytes that choose the footer whose
 * place it takes, and a frame of that segment to be destroyed.  All checksums
 * fit.  What must hold:
 *
 *   - an entry that is taken lies within the limits of records, its checksums
 *     within the body;
 *   - as long as all frames can be read, a history knows the truth, whatever
 *     the footer says, and verify tells that a footer of the segment that it
 *     follows does not;
 *   - an index that is made from it, and a history that looks there for what
 *     was destroyed, read nothing that is not there.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "../../journal/footread.h"
#include "../unit/simindex.h"
#include "footers.h"
#include "views.h"

static struct fuzz_base base;
static struct fuzz_footer footers[FUZZ_FOOTERS];
static unsigned footer_count;
static uint8_t *packed;
static size_t packed_size;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_base_make(&base, FUZZ_LONG);
    footer_count = fuzz_footers(&base, footers);
    fuzz_pack(&base.image, &packed, &packed_size);
    return 0;
}

/* ---- the body alone ---------------------------------------------------- */

static void check_entry(struct footer_part *part, const uint8_t *end)
{
    const struct tt_super *super = &base.sw.super;
    uint64_t sum = 0;
    struct placed p;

    if (!tt_footer_next(super, part, &p)) {
        return;
    }
    FUZZ_CHECK(p.seq >= part->first_seq && p.seq <= part->last_seq);
    FUZZ_CHECK(p.time >= part->first_time && p.time <= part->last_time);
    FUZZ_CHECK(p.disk_offset % TT_SECTOR == 0 &&
               p.disk_offset <= TT_DISK_SIZE_MAX &&
               p.disk_length <= TT_DISK_SIZE_MAX);
    if (p.payload) {
        uint32_t n = tt_grid_pieces(p.disk_offset, p.disk_length);

        FUZZ_CHECK(p.payload > part->segment_offset &&
                   p.payload + p.disk_length <=
                       part->segment_offset + super->segment_size);
        FUZZ_CHECK((const uint8_t *)(p.sums + n) <= end);
        for (uint32_t k = 0; k < n; k++) {
            sum ^= tt_get64(p.sums[k]);
        }
    }
    /* read, not only pointed at */
    __asm__ volatile("" : : "r"(sum));
}

static void check_body(const uint8_t *data, size_t size)
{
    uint8_t *body = fuzz_alloc(size);
    struct footer_part part;

    memcpy(body, data, size);
    if (tt_footer_parse(&base.sw.super, body, (uint32_t)size, &part)) {
        for (uint32_t i = 0; i < part.entry_count; i++) {
            check_entry(&part, body + size);
        }
    }
    free(body);
}

/* ---- in a journal ------------------------------------------------------ */

static void make_image(const struct fuzz_footer *ft, const uint8_t *body,
                       size_t size, struct fuzz_image *ret)
{
    uint8_t *data = fuzz_alloc(packed_size);
    size_t at = ft->place - TT_SEGMENTS_OFFSET + FUZZ_SUPERS;

    memcpy(data, packed, packed_size);
    memcpy(data + at, body, size < ft->length ? size : ft->length);
    fuzz_reseal(data, packed_size, true);
    fuzz_unpack(data, packed_size, ret);
    free(data);
}

static void check_history(struct fuzz_image *image, bool honest, bool whole)
{
    struct tt_source src = fuzz_source(image);
    struct tt_history *h = tt_history_new();
    struct fuzz_views v = {
        .h = h, .src = &src, .truth = honest ? &base : NULL, .whole = whole
    };

    FUZZ_CHECK(h && tt_history_load(h, &src, NULL) == 0);
    FUZZ_CHECK(tt_history_end(h)->last_seq == base.sw.tip->last_seq);
    fuzz_check_views(&v);
    tt_history_free(h);
}

static void check_index(struct fuzz_image *image, bool honest, bool whole)
{
    struct tt_source src = fuzz_source(image);
    struct tt_history *h = tt_history_new();
    struct fuzz_views v = { .h = h,
                            .src = &src,
                            .truth = honest ? &base : NULL,
                            .whole = whole,
                            .index = !honest };
    struct tt_error err = { 0 };
    struct simindex x;

    FUZZ_CHECK(h);
    si_init(&x, 1);
    if (fuzz_told(si_extend(&x, &src, true, &err), &err) == 0 &&
        fuzz_told(si_open(&x, h, &src, &err), &err) == 0) {
        fuzz_check_views(&v);
    } else {
        FUZZ_CHECK(!honest);
    }
    tt_history_free(h);
    si_close(&x);
    si_clear(&x);
}

static uint64_t verify(struct fuzz_image *image)
{
    const struct tt_verify_ops ops = { 0 };
    struct tt_source src = fuzz_source(image);
    uint64_t findings;

    FUZZ_CHECK(tt_verify(&src, &ops, &findings, NULL) == 0);
    return findings;
}

/*
 * Verify compares a footer with the segment before it.  One that says it is of
 * an older segment has nothing to be compared with.
 */
static void check_verify(struct fuzz_image *image, const struct fuzz_footer *ft,
                         bool same)
{
    const size_t hash = offsetof(struct tt_footer_body, tree_hash);
    const size_t rest = offsetof(struct tt_footer_body, part);
    const uint8_t *is = image->bytes + ft->place;
    const uint8_t *was = base.image.bytes + ft->place;
    uint64_t findings = verify(image);

    if (same) {
        FUZZ_CHECK(!findings);
    } else if (!memcmp(is, was, 8) &&
               (memcmp(is, was, hash) ||
                memcmp(is + rest, was + rest, ft->length - rest))) {
        FUZZ_CHECK(findings);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct fuzz_footer *ft;
    struct fuzz_image image;
    bool same;

    if (size < 2) {
        return 0;
    }
    ft = &footers[data[0] % footer_count];
    check_body(data + 2, size - 2);
    make_image(ft, data + 2, size - 2, &image);
    same = !memcmp(image.bytes, base.image.bytes, image.size);
    check_history(&image, true, true);
    check_verify(&image, ft, same);
    check_index(&image, same, same);
    /* the first bytes of a header are enough */
    memset(image.bytes + ft->frames[data[1] % ft->frame_count], 0x55, 16);
    check_history(&image, same, false);
    check_index(&image, same, false);
    free(image.bytes);
    return 0;
}

/* ---- mutations --------------------------------------------------------- */

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room,
                               unsigned seed)
{
    const size_t head = sizeof(struct tt_footer_body);
    const size_t entry = sizeof(struct tt_footer_entry);
    struct fuzz_random r = { seed };
    uint64_t times = 1 + fuzz_below(&r, 3);

    if (size < 2 + head + entry || fuzz_below(&r, 8) == 0) {
        return LLVMFuzzerMutate(data, size, room);
    }
    while (times--) {
        uint8_t *body = data + 2;
        uint64_t places = (size - 2 - head - entry) / 8 + 1;

        if (fuzz_below(&r, 4) == 0) {
            fuzz_mutate_part(&r, data, 2);
        } else if (fuzz_below(&r, 2)) {
            fuzz_mutate_part(&r, body, head);
        } else {
            /* a frame or an entry, or what is across two of them */
            fuzz_mutate_part(&r, body + head + fuzz_below(&r, places) * 8,
                             entry);
        }
    }
    return size;
}
