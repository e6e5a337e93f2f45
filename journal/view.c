/*
 * Views: what did the disk hold at this place after the records 1 … S?
 *
 * The newest version up to S, if there is one, else the first pre-image, else
 * the live disk.  Nothing is replayed: a view costs no memory.
 *
 * Records that are missing may have written anywhere (blinds, history.h):
 *
 *   - between the version found and S: it may have been overwritten;
 *   - anywhere, if no version is found: one of them may be the pre-image, and
 *     the disk has changed since.
 *
 * A range of a GAP that has no version was changed without being captured.
 * So may be a range whose first version is behind a DAMAGE record: its writer
 * could not know what the missing records had captured, and a capture that
 * came too late would be taken for the original.
 *
 * Then the answer is that nobody knows.  Bytes are served only if they fit the
 * checksums that the journal has for them.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "look.h"

/* ---- look-up ----------------------------------------------------------- */

/* An answer, and what it was found in. */
struct answer {
    struct tt_extent ext;
    struct look found; /* if it is JOURNAL */
};

/* Narrows the answer to where @l holds; says whether it found something. */
static bool narrow(struct tt_extent *ext, const struct look *l)
{
    if (l->end - ext->offset < ext->length) {
        ext->length = l->end - ext->offset;
    }
    return l->found;
}

static void answer_version(const struct look *l, uint64_t seq,
                           struct answer *ret)
{
    struct tt_extent *ext = &ret->ext;

    ext->kind = l->zero ? TT_EXTENT_ZERO : TT_EXTENT_JOURNAL;
    ext->seq = seq;
    ext->record_seq = l->seq;
    if (!l->zero) {
        ext->place = l->place + (ext->offset - l->start);
        ret->found = *l;
    }
}

/* @cause: first of the missing records, or a GAP. */
static void answer_damaged(uint64_t cause, struct tt_extent *ext)
{
    *ext = (struct tt_extent){ .kind = TT_EXTENT_DAMAGED,
                               .offset = ext->offset,
                               .length = ext->length,
                               .record_seq = cause };
}

/* There is no version: may the live disk be asked? */
static int answer_disk(const struct tt_history *h, struct tt_extent *ext,
                       struct tt_error *err)
{
    struct index_hit hit;
    struct look l;
    int ret;

    if (h->blinds_count) {
        answer_damaged(h->blinds[0].damage_seq, ext);
        return 0;
    }
    ext->kind = TT_EXTENT_DISK;
    if (h->damage_record) {
        ret = tt_look_oldest(h, ext->offset, &l, err);
        if (ret < 0) {
            return ret;
        }
        if (narrow(ext, &l) && l.seq > h->damage_record) {
            answer_damaged(h->damages_count ? h->damages[0].first_seq
                                            : h->damage_record,
                           ext);
            return 0;
        }
    }
    if (h->gaps_count) {
        tt_index_oldest(&h->doubts, ext->offset, &hit);
        l = (struct look){ .found = hit.version, .end = hit.end };
        if (narrow(ext, &l)) {
            answer_damaged(hit.version->seq, ext);
        }
    }
    return 0;
}

/* One answer for [offset, offset + length), as far as is seen at once. */
static int look(const struct tt_history *h, uint64_t seq, uint64_t offset,
                uint64_t length, struct look_memo *memo, struct answer *ret,
                struct tt_error *err)
{
    const struct blind *b = tt_history_blind_before(h, seq);
    struct tt_extent *ext = &ret->ext;
    struct look l;
    int r = tt_look_newest(h, offset, seq, memo, &l, err);

    *ext = (struct tt_extent){ .offset = offset, .length = length };
    if (r < 0) {
        return r;
    }
    narrow(ext, &l);
    if (b && (!l.found || l.seq < b->first_seq)) {
        answer_damaged(b->damage_seq, ext);
        return 0;
    }
    if (l.found) {
        answer_version(&l, l.seq, ret);
        return 0;
    }
    r = tt_look_preimage(h, offset, memo, &l, err);
    if (r < 0) {
        return r;
    }
    if (narrow(ext, &l)) {
        answer_version(&l, 0, ret);
        return 0;
    }
    return answer_disk(h, ext, err);
}

bool tt_view_in_doubt(const struct tt_history *h, uint64_t seq, uint64_t offset,
                      uint64_t length)
{
    uint64_t end = offset + length;

    for (uint64_t at = offset; at < end;) {
        struct index_hit hit;

        tt_index_newest(&h->doubts, at, UINT64_MAX, &hit);
        if (hit.version && hit.version->seq > seq) {
            return true;
        }
        at = hit.end;
    }
    return false;
}

static bool same_answer(const struct tt_extent *a, const struct tt_extent *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    return a->kind == TT_EXTENT_ZERO || a->kind == TT_EXTENT_DISK ||
           a->record_seq == b->record_seq;
}

static uint64_t clip_length(uint64_t offset, uint64_t length)
{
    assert(offset <= TT_DISK_SIZE_MAX);
    return length > TT_DISK_SIZE_MAX * 2 - offset
               ? TT_DISK_SIZE_MAX * 2 - offset
               : length;
}

int tt_view_extents(const struct tt_history *h, uint64_t seq, uint64_t offset,
                    uint64_t length, tt_extent_fn *fn, void *opaque,
                    struct tt_error *err)
{
    uint64_t at = offset, end = offset + clip_length(offset, length);
    struct look_memo memo;
    struct answer a;
    bool more = true;
    int ret;

    tt_look_begin(h, &memo);
    ret = look(h, seq, at, end - at, &memo, &a, err);
    while (ret == 0 && more) {
        struct tt_extent ext = a.ext;

        at += ext.length;
        while (at < end) {
            ret = look(h, seq, at, end - at, &memo, &a, err);
            if (ret < 0 || !same_answer(&ext, &a.ext)) {
                break;
            }
            ext.length += a.ext.length;
            at += a.ext.length;
        }
        if (ret == 0) {
            more = fn(opaque, &ext) && at < end;
        }
    }
    tt_look_end(&memo);
    return ret;
}

static bool take_first(void *opaque, const struct tt_extent *ext)
{
    *(struct tt_extent *)opaque = *ext;
    return false;
}

int tt_view_lookup(const struct tt_history *h, uint64_t seq, uint64_t offset,
                   uint64_t length, struct tt_extent *ret_extent,
                   struct tt_error *err)
{
    *ret_extent = (struct tt_extent){ .offset = offset };
    return tt_view_extents(h, seq, offset, length, take_first, ret_extent, err);
}

int tt_view_run(const struct tt_history *h, uint64_t seq, uint64_t offset,
                uint64_t length, struct tt_extent *ret_extent,
                struct tt_error *err)
{
    struct look_memo memo;
    struct answer a;
    int ret;

    tt_look_begin(h, &memo);
    ret = look(h, seq, offset, clip_length(offset, length), &memo, &a, err);
    tt_look_end(&memo);
    if (ret == 0) {
        *ret_extent = a.ext;
    }
    return ret;
}

/* ---- pieces ------------------------------------------------------------ */

/* Cuts a JOURNAL answer into cells, as many as there is room for. */
static int cut_cells(const struct answer *a, struct tt_piece *p, size_t room,
                     size_t *ret_count, struct tt_error *err)
{
    const struct look *l = &a->found;
    uint64_t at = a->ext.offset, end = at + a->ext.length;
    bool small = l->piece_class < PIECE_GRID_CLASS;
    tt_le64 sums[1u << (PIECE_DATA_CLASSES - 1 - PIECE_GRID_CLASS)];
    uint64_t cells = small ? 1 : (end + TT_GRID - 1) / TT_GRID - at / TT_GRID;
    size_t n = cells < room ? (size_t)cells : room;
    int ret = tt_look_sums(l, at, (unsigned)n, sums, err);

    for (size_t i = 0; i < n && ret == 0; i++) {
        uint64_t start =
            small ? l->start - cell_skip(l->cell) : at - at % TT_GRID;
        uint64_t length = small ? cell_length(l->cell) : TT_GRID;
        uint64_t stop = end < start + length ? end : start + length;

        p[i] = (struct tt_piece){
            .kind = TT_EXTENT_JOURNAL,
            .offset = at,
            .length = stop - at,
            .record_seq = l->seq,
            .at = l->place + (start - l->start),
            .checksum = tt_get64(sums[i]),
            .cell_length = (uint16_t)length,
            .skip = (uint16_t)(at - start),
        };
        at = stop;
    }
    *ret_count = n;
    return ret;
}

int tt_view_pieces(const struct tt_history *h, uint64_t seq, uint64_t offset,
                   uint64_t length, struct tt_piece *ret_pieces, size_t room,
                   size_t *ret_count, struct tt_error *err)
{
    uint64_t at = offset, end = offset + clip_length(offset, length);
    struct look_memo memo;
    size_t count = 0;
    int ret = 0;

    tt_look_begin(h, &memo);
    while (at < end && count < room && ret == 0) {
        struct tt_piece *p = &ret_pieces[count];
        struct answer a;
        size_t n = 1;

        ret = look(h, seq, at, end - at, &memo, &a, err);
        if (ret == 0 && a.ext.kind == TT_EXTENT_JOURNAL) {
            ret = cut_cells(&a, p, room - count, &n, err);
        } else if (ret == 0) {
            *p = (struct tt_piece){ .kind = a.ext.kind,
                                    .offset = at,
                                    .length = a.ext.length,
                                    .record_seq = a.ext.record_seq };
        }
        if (ret == 0) {
            count += n;
            at = p[n - 1].offset + p[n - 1].length;
        }
    }
    tt_look_end(&memo);
    *ret_count = count;
    return ret;
}

/* ---- reading ----------------------------------------------------------- */

struct reading {
    const struct tt_history *h;
    const struct tt_source *src;
    uint64_t offset; /* of the disk: where buf begins */
    uint8_t *buf;
    struct tt_error *err;
};

static int does_not_fit(const struct reading *r, const struct tt_piece *p)
{
    char time[TT_TIME_SIZE] = "at an unknown time";
    int64_t t;

    if (tt_history_time(r->h, p->record_seq, &t)) {
        tt_time_format(t, time);
    }
    return tt_fail(r->err, TT_EDAMAGED, EIO,
                   "the journal is damaged at %" PRIu64 " in segment %" PRIu64
                   ": what record %" PRIu64
                   " (%s) wrote to the disk at %" PRIu64
                   " (+%u) does not fit its checksum",
                   p->at, tt_segment_at(&r->h->super, p->at), p->record_seq,
                   time, p->offset - p->skip, p->cell_length);
}

static int read_source(const struct reading *r, uint64_t offset, void *buf,
                       size_t length)
{
    int ret;

    if (offset > r->src->size || length > r->src->size - offset) {
        return tt_fail(r->err, TT_EDAMAGED, EIO,
                       "the journal is cut short: it ends at %" PRIu64
                       ", and %zu bytes at %" PRIu64 " are missing",
                       r->src->size, length, offset);
    }
    ret = r->src->read(r->src->opaque, offset, buf, length);
    if (ret < 0) {
        return tt_fail(r->err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    return 0;
}

static bool is_whole_cell(const struct tt_piece *p)
{
    return p->kind == TT_EXTENT_JOURNAL && p->length == p->cell_length;
}

/* Reads one cell, checks it, and copies the part that is asked for. */
static int read_part(const struct reading *r, const struct tt_piece *p)
{
    uint8_t cell[TT_GRID];
    int ret = read_source(r, p->at, cell, p->cell_length);

    if (ret == 0 && !tt_piece_ok(p, cell)) {
        ret = does_not_fit(r, p);
    }
    if (ret == 0) {
        memcpy(r->buf + (p->offset - r->offset), cell + p->skip, p->length);
    }
    return ret;
}

/* Reads whole cells that lie side by side to where they belong. */
static int read_whole(const struct reading *r, const struct tt_piece *p,
                      size_t count)
{
    const struct tt_piece *last = &p[count - 1];
    uint8_t *to = r->buf + (p->offset - r->offset);
    int ret =
        read_source(r, p->at, to, last->offset + last->length - p->offset);

    for (size_t i = 0; i < count && ret == 0; i++) {
        if (!tt_piece_ok(&p[i], to + (p[i].offset - p->offset))) {
            ret = does_not_fit(r, &p[i]);
        }
    }
    return ret;
}

static int read_pieces(const struct reading *r, const struct tt_piece *p,
                       size_t count)
{
    int ret = 0;

    for (size_t i = 0, n; i < count && ret == 0; i += n) {
        n = 1;
        if (is_whole_cell(&p[i])) {
            while (i + n < count && is_whole_cell(&p[i + n]) &&
                   p[i + n].at == p[i + n - 1].at + p[i + n - 1].length) {
                n++;
            }
            ret = read_whole(r, &p[i], n);
        } else if (p[i].kind == TT_EXTENT_JOURNAL) {
            ret = read_part(r, &p[i]);
        } else if (p[i].kind == TT_EXTENT_ZERO) {
            memset(r->buf + (p[i].offset - r->offset), 0, p[i].length);
        }
    }
    return ret;
}

int tt_pieces_read(const struct tt_history *h, const struct tt_source *src,
                   const struct tt_piece *pieces, size_t count, uint64_t offset,
                   void *buf, struct tt_error *err)
{
    struct reading r = { h, src, offset, buf, err };

    return read_pieces(&r, pieces, count);
}

int tt_extent_read(const struct tt_history *h, const struct tt_source *src,
                   const struct tt_extent *ext, uint64_t offset,
                   uint64_t length, void *buf, struct tt_error *err)
{
    struct tt_piece pieces[64];
    struct reading r = { h, src, offset, buf, err };
    uint64_t end = offset + length;
    int ret = 0;

    assert(ext->kind == TT_EXTENT_JOURNAL);
    assert(offset >= ext->offset && length <= ext->length &&
           offset - ext->offset <= ext->length - length);
    while (offset < end && ret == 0) {
        size_t n;

        /* as of its own record, the extent has no other version anywhere */
        ret = tt_view_pieces(h, ext->seq, offset, end - offset, pieces,
                             sizeof(pieces) / sizeof(pieces[0]), &n, err);
        for (size_t i = 0; i < n && ret == 0; i++) {
            if (pieces[i].record_seq != ext->record_seq ||
                pieces[i].kind != TT_EXTENT_JOURNAL) {
                ret = tt_fail(err, TT_EINVAL, EINVAL,
                              "no such extent of record %" PRIu64,
                              ext->record_seq);
            }
        }
        if (ret == 0) {
            ret = read_pieces(&r, pieces, n);
            offset = pieces[n - 1].offset + pieces[n - 1].length;
        }
    }
    return ret;
}
