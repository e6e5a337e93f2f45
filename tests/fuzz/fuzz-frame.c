/*
 * Fuzzing what reads a journal: superblocks, frames, tables, the scan, views,
 * verify, recovery
 *
 * An input is a packed journal (fuzz.h).  What must hold, for any bytes:
 *
 *   - nothing is read behind the end, and nothing is accepted that is not a
 *     frame of this journal, in order;
 *   - load, scan and verify say the same of the journal's end; if verify has
 *     nothing to say, then nothing is missing and everything can be read;
 *   - if each header that passes for one is one that the recorder wrote (no
 *     checksum was made to fit), a view gives what was on the disk, or says
 *     that it cannot.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "views.h"

#define HEADER sizeof(struct tt_frame_header)

static struct fuzz_base bases[FUZZ_BASES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < FUZZ_BASES; i++) {
        fuzz_base_make(&bases[i], i);
    }
    return 0;
}

/* ---- is it one of ours? ------------------------------------------------ */

static const struct fuzz_base *truth_of(const struct fuzz_image *image,
                                        const struct tt_super *super)
{
    for (unsigned i = 0; i < FUZZ_BASES; i++) {
        if (fuzz_is_honest(image, super, &bases[i])) {
            return &bases[i];
        }
    }
    return NULL;
}

/* ---- scanning ---------------------------------------------------------- */

struct seen {
    const struct tt_source *src;
    bool honest;
    uint64_t last_seq, seqs, frames, damages;
};

static int on_frame(void *opaque, const struct tt_frame *f,
                    const uint8_t *table)
{
    struct seen *s = opaque;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;

    FUZZ_CHECK(f->offset < s->src->size && f->record_count);
    FUZZ_CHECK(f->first_seq > s->last_seq);
    FUZZ_CHECK(tt_table_check(f, table));
    while (tt_table_next(f, table, &pos, &index, &rec)) {
        FUZZ_CHECK(rec.seq == f->first_seq + index - 1);
        FUZZ_CHECK(
            rec.payload_offset <= f->length &&
            (rec.body || rec.payload_length <= f->length - rec.payload_offset));
    }
    FUZZ_CHECK(index == f->record_count);
    s->last_seq = tt_frame_last_seq(f);
    s->seqs += f->record_count;
    s->frames++;
    return 0;
}

static int on_damage(void *opaque, const struct tt_damage *d)
{
    struct seen *s = opaque;

    FUZZ_CHECK(d->first_seq == s->last_seq + 1);
    /* a forged frame with the right number need not link to the last one */
    FUZZ_CHECK(d->last_seq >= d->first_seq - !s->honest);
    s->last_seq = d->last_seq;
    s->damages++;
    return 0;
}

static int scan(const struct tt_super *super, const struct tt_source *src,
                uint64_t from, bool honest, struct seen *ret_seen,
                struct tt_scan *ret)
{
    const struct tt_scan_ops ops = { on_frame, on_damage, ret_seen };
    struct tt_error err = { 0 };
    int r;

    *ret_seen = (struct seen){ .src = src, .honest = honest };
    r = fuzz_told(tt_scan_run(super, src, from, &ops, ret, &err), &err);
    if (r == 0) {
        FUZZ_CHECK(ret->last_seq == ret_seen->last_seq);
        FUZZ_CHECK(ret->empty == !ret_seen->frames);
        FUZZ_CHECK(ret->durable_seq <= ret->last_seq);
    }
    return r;
}

/* ---- verify ------------------------------------------------------------ */

struct found {
    const struct tt_source *src;
    uint64_t all, harmful;
};

static void on_finding(void *opaque, const struct tt_finding *f)
{
    struct found *found = opaque;

    FUZZ_CHECK(f->what && f->what[0] && !strchr(f->what, '\n'));
    FUZZ_CHECK(f->offset <= UINT64_MAX - f->length);
    FUZZ_CHECK(f->last_seq + 1 >= f->first_seq); /* see on_damage() */
    found->all++;
    found->harmful += !f->harmless;
}

static int verify(const struct tt_source *src, struct found *ret)
{
    const struct tt_verify_ops ops = { .finding = on_finding, .opaque = ret };
    struct tt_error err = { 0 };
    uint64_t findings = 0;
    int r;

    *ret = (struct found){ .src = src };
    r = fuzz_told(tt_verify(src, &ops, &findings, &err), &err);
    FUZZ_CHECK(findings == ret->all);
    return r;
}

/* ---- recovery ---------------------------------------------------------- */

static void check_redos(const struct tt_super *super,
                        const struct tt_source *src, const struct tt_redo *redo,
                        size_t count)
{
    static uint8_t buf[TT_PAYLOAD_RECORD_MAX];

    for (size_t i = 0; i < count && i < 16; i++) {
        struct tt_error err = { 0 };

        if (redo[i].kind == TT_KIND_WRITE) {
            FUZZ_CHECK(redo[i].disk_length <= sizeof(buf));
            fuzz_told(tt_redo_read(super, src, &redo[i], buf, &err), &err);
        }
    }
}

static void check_recovery(const struct tt_super *super,
                           const struct tt_source *src)
{
    struct tt_recovery r;
    struct tt_error err = { 0 };

    if (fuzz_told(tt_recovery_run(super, src, &r, &err), &err) == 0) {
        for (size_t i = 0; i < r.rewrite_count; i++) {
            FUZZ_CHECK(r.rewrites[i].offset <= src->size &&
                       r.rewrites[i].length <=
                           src->size - r.rewrites[i].offset);
        }
        check_redos(super, src, r.redos, r.redo_count);
        check_redos(super, src, r.samples, r.sample_count);
    }
    tt_recovery_clear(&r);
}

/* ---- one input --------------------------------------------------------- */

static void check_lists(const struct tt_history *h)
{
    uint64_t last = tt_history_end(h)->last_seq;
    struct tt_history_stats stats;
    size_t n;

    const struct tt_mark *m = tt_history_marks(h, &n);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(tt_mark_name_ok(m[i].name, strlen(m[i].name)));
        FUZZ_CHECK(m[i].seq <= last && (!i || m[i].seq > m[i - 1].seq));
    }
    const struct tt_session *s = tt_history_sessions(h, &n);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(s[i].seq <= last && (!i || s[i].seq > s[i - 1].seq));
    }
    const struct tt_epoch *e = tt_history_epochs(h, &n);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(e[i].first_seq <= e[i].last_seq && e[i].last_seq <= last);
    }
    const struct tt_gap *g = tt_history_gaps(h, &n);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(g[i].seq <= last);
    }
    tt_history_stats(h, &stats);
    FUZZ_CHECK(stats.provisional_from <= last);
}

static void check_history(struct fuzz_image *image,
                          const struct tt_super *super)
{
    struct tt_source src = fuzz_source(image);
    const struct fuzz_base *truth = truth_of(image, super);
    struct fuzz_views v = { .src = &src, .truth = truth };
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    struct tt_scan end;
    struct found found;
    struct seen seen;
    bool grown = true;
    int ret;

    FUZZ_CHECK(h);
    ret = fuzz_told(tt_history_load(h, &src, &err), &err);
    FUZZ_CHECK(scan(super, &src, 0, truth, &seen, &end) == 0 || ret < 0);
    FUZZ_CHECK((verify(&src, &found) < 0) == (ret < 0));
    if (ret == 0) {
        FUZZ_CHECK(end.last_seq == tt_history_end(h)->last_seq &&
                   end.end_offset == tt_history_end(h)->end_offset);
        if (!found.harmful) {
            FUZZ_CHECK(!seen.damages && seen.seqs == end.last_seq);
        }
        check_lists(h);
        v.h = h;
        v.whole = !found.harmful;
        fuzz_check_views(&v);
        if (truth && image->size == truth->image.size &&
            fuzz_same_at(image, &truth->image, 0, image->size)) {
            FUZZ_CHECK(!found.harmful);
            FUZZ_CHECK(end.last_seq == truth->sw.tip->last_seq);
        }
        FUZZ_CHECK(tt_history_refresh(h, &src, &grown, &err) == 0 && !grown);
    }
    tt_history_free(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_image image;
    struct tt_error err = { 0 };
    struct tt_super super;
    struct tt_source src;
    unsigned damaged;

    fuzz_unpack(data, size, &image);
    src = fuzz_source(&image);
    if (fuzz_told(tt_super_read(&src, &super, &damaged, &err), &err) == 0) {
        uint64_t from = 0;

        FUZZ_CHECK(damaged < 2);
        check_history(&image, &super);
        check_recovery(&super, &src);
        if (tt_scan_start(&super, &src, &from, &err) == 0 && from) {
            struct tt_scan end;
            struct seen seen;

            scan(&super, &src, from, false, &seen, &end);
        }
    }
    free(image.bytes);
    return 0;
}

/* ---- mutations --------------------------------------------------------- */

/* A place where a frame begins, or FUZZ_SUPERS if none was found. */
static size_t some_frame(struct fuzz_random *r, const uint8_t *data,
                         size_t size)
{
    size_t sectors = (size - FUZZ_SUPERS) / TT_ALIGNMENT_MIN;
    size_t first = sectors ? fuzz_below(r, sectors) : 0;

    for (size_t i = 0; i < sectors; i++) {
        size_t at = FUZZ_SUPERS + (first + i) % sectors * TT_ALIGNMENT_MIN;

        if (fuzz_frame_at(data, size, at)) {
            return at;
        }
    }
    return FUZZ_SUPERS;
}

/*
 * A descriptor whose lengths fit each other, but perhaps not the table.  The
 * first of a frame, for the others do not begin at a known place.
 */
static void mutate_record(struct fuzz_random *r, uint8_t *desc)
{
    static const uint32_t lengths[] = { 0,    8,     16,     512,
                                        4096, 32768, 131072, UINT32_MAX };
    struct tt_record_header h;
    uint32_t body = lengths[fuzz_below(r, 8)] & ~7u;

    memcpy(&h, desc, sizeof(h));
    if (tt_get16(h.flags) & TT_RECORD_INLINE) {
        h.payload_length = tt_put32(body - (uint32_t)fuzz_below(r, 8));
    } else {
        h.checksum_count = tt_put32(body / 8);
    }
    h.length = tt_put32((uint32_t)sizeof(h) + body);
    memcpy(desc, &h, sizeof(h));
}

/* Header, one descriptor of the table, or what comes behind it. */
static void mutate_frame(struct fuzz_random *r, uint8_t *data, size_t size)
{
    size_t at = some_frame(r, data, size), left = size - at;
    uint64_t part = fuzz_below(r, 4);
    uint8_t *frame = data + at;

    if (left < TT_ALIGNMENT_MIN) {
        return;
    }
    if (part == 0) {
        /* what says that it is one stays */
        fuzz_mutate_part(r, frame + 24, HEADER - 24);
    } else if (part == 1) {
        mutate_record(r, frame + HEADER);
    } else if (part == 2) {
        size_t n = sizeof(struct tt_record_header) * 2;

        n = n < left - HEADER ? n : left - HEADER;
        fuzz_mutate_part(r, frame + HEADER, n);
    } else {
        size_t skip = fuzz_below(r, left < 8192 ? left : 8192);

        fuzz_mutate_part(r, frame + skip,
                         left - skip < 512 ? left - skip : 512);
    }
}

/* Copies, destroys or swaps sectors, as media and people do. */
static void mutate_sectors(struct fuzz_random *r, uint8_t *data, size_t size)
{
    uint8_t *segments = data + FUZZ_SUPERS;
    size_t all = (size - FUZZ_SUPERS) / TT_ALIGNMENT_MIN;
    size_t from, to, n;

    if (!all) {
        return;
    }
    from = fuzz_below(r, all);
    to = fuzz_below(r, all);
    n = 1 + fuzz_below(r, 8);
    n = n < all - from ? n : all - from;
    n = n < all - to ? n : all - to;
    if (fuzz_below(r, 2)) {
        memset(segments + to * TT_ALIGNMENT_MIN, 0, n * TT_ALIGNMENT_MIN);
    } else {
        memmove(segments + to * TT_ALIGNMENT_MIN,
                segments + from * TT_ALIGNMENT_MIN, n * TT_ALIGNMENT_MIN);
    }
}

static size_t mutate_once(struct fuzz_random *r, uint8_t *data, size_t size,
                          size_t room)
{
    switch (fuzz_below(r, 12)) {
    case 0:
        return LLVMFuzzerMutate(data, size, room);
    case 1:
        fuzz_mutate_part(r, data, FUZZ_SUPERS);
        return size;
    case 2:
        /* cut short */
        return size - fuzz_below(r, size - FUZZ_SUPERS + 1);
    case 3:
    case 4:
        mutate_sectors(r, data, size);
        return size;
    default:
        mutate_frame(r, data, size);
        return size;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room,
                               unsigned seed)
{
    struct fuzz_random r = { seed };
    uint64_t times = 1 + fuzz_below(&r, 3), repair = fuzz_below(&r, 4);

    while (times-- && size >= FUZZ_SUPERS) {
        size = mutate_once(&r, data, size, room);
    }
    if (size < FUZZ_SUPERS) {
        return LLVMFuzzerMutate(data, size, room);
    }
    if (repair) {
        fuzz_reseal(data, size, repair > 1);
    }
    return size;
}
