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
 * checksums in the record's descriptor, or in the footer that tells of it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "history.h"

#define HEADER sizeof(struct tt_frame_header)

/* ---- look-up ----------------------------------------------------------- */

static void answer_version(const struct version *v, uint64_t seq,
                           struct tt_extent *ext)
{
    ext->kind = v->zero ? TT_EXTENT_ZERO : TT_EXTENT_JOURNAL;
    ext->seq = seq;
    ext->record_seq = v->seq;
    ext->frame_offset = v->frame_offset;
    ext->record_index = v->record_index;
}

/* @cause: first of the missing records, or a GAP. */
static void answer_damaged(uint64_t cause, struct tt_extent *ext)
{
    *ext = (struct tt_extent){ .kind = TT_EXTENT_DAMAGED,
                               .offset = ext->offset,
                               .length = ext->length,
                               .record_seq = cause };
}

/* Narrows @ext to where @hit holds, and returns its version. */
static const struct version *narrow(struct tt_extent *ext,
                                    const struct index_hit *hit)
{
    if (hit->end - ext->offset < ext->length) {
        ext->length = hit->end - ext->offset;
    }
    return hit->version;
}

/* There is no version: may the live disk be asked? */
static void answer_disk(const struct tt_history *h, struct tt_extent *ext)
{
    const struct version *v;
    struct index_hit hit;

    if (h->blinds_count) {
        answer_damaged(h->blinds[0].damage_seq, ext);
        return;
    }
    ext->kind = TT_EXTENT_DISK;
    if (h->damage_record) {
        tt_index_oldest(&h->versions, ext->offset, &hit);
        v = narrow(ext, &hit);
        if (v && v->seq > h->damage_record) {
            answer_damaged(h->damages_count ? h->damages[0].first_seq
                                            : h->damage_record,
                           ext);
            return;
        }
    }
    if (h->gaps_count) {
        tt_index_oldest(&h->doubts, ext->offset, &hit);
        v = narrow(ext, &hit);
        if (v) {
            answer_damaged(v->seq, ext);
        }
    }
}

/* One answer for [offset, offset + ret->length), as far as is seen at once. */
static void look(const struct tt_history *h, uint64_t seq, uint64_t offset,
                 uint64_t length, struct tt_extent *ret)
{
    const struct blind *b = tt_history_blind_before(h, seq);
    struct index_hit hit, first;

    tt_index_newest(&h->versions, offset, seq, &hit);
    *ret = (struct tt_extent){ .offset = offset, .length = length };
    narrow(ret, &hit);
    if (b && (!hit.version || hit.version->seq < b->first_seq)) {
        answer_damaged(b->damage_seq, ret);
        return;
    }
    if (hit.version) {
        answer_version(hit.version, hit.version->seq, ret);
        return;
    }
    tt_index_oldest(&h->preimages, offset, &first);
    if (narrow(ret, &first)) {
        answer_version(first.version, 0, ret);
    } else {
        answer_disk(h, ret);
    }
}

bool tt_view_in_doubt(const struct tt_history *h, uint64_t seq, uint64_t offset,
                      uint64_t length)
{
    struct tt_extent ext = { .offset = offset, .length = length };
    uint64_t end = offset + length;

    while (ext.offset < end) {
        const struct version *v;
        struct index_hit hit;

        tt_index_newest(&h->doubts, ext.offset, UINT64_MAX, &hit);
        v = narrow(&ext, &hit);
        if (v && v->seq > seq) {
            return true;
        }
        ext.offset += ext.length;
        ext.length = end - ext.offset;
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

void tt_view_lookup(const struct tt_history *h, uint64_t seq, uint64_t offset,
                    uint64_t length, struct tt_extent *ret_extent)
{
    struct tt_extent next;

    assert(offset <= TT_DISK_SIZE_MAX);
    if (length > TT_DISK_SIZE_MAX * 2 - offset) {
        length = TT_DISK_SIZE_MAX * 2 - offset;
    }
    look(h, seq, offset, length, ret_extent);
    while (ret_extent->length < length) {
        look(h, seq, offset + ret_extent->length, length - ret_extent->length,
             &next);
        if (!same_answer(ret_extent, &next)) {
            break;
        }
        ret_extent->length += next.length;
    }
}

/* ---- reading ----------------------------------------------------------- */

/* Where a record's bytes are, and what they must look like. */
struct stored {
    uint64_t seq;
    int64_t time;
    uint64_t disk_offset, disk_length;
    uint64_t payload; /* in the journal */
    const tt_le64 *checksums;
    uint64_t segment;
};

static int fail_at(const struct stored *s, uint64_t at, uint64_t disk_offset,
                   uint64_t length, struct tt_error *err)
{
    char time[TT_TIME_SIZE];

    return tt_fail(err, TT_EDAMAGED, EIO,
                   "the journal is damaged at %" PRIu64 " in segment %" PRIu64
                   ": what record %" PRIu64
                   " (%s) wrote to the disk at %" PRIu64 " (+%" PRIu64
                   ") does not fit its checksum",
                   at, s->segment, s->seq, tt_time_format(s->time, time),
                   disk_offset, length);
}

static int read_source(const struct tt_source *src, uint64_t offset, void *buf,
                       size_t length, struct tt_error *err)
{
    int ret;

    if (offset > src->size || length > src->size - offset) {
        return tt_fail(err, TT_EDAMAGED, EIO,
                       "the journal is cut short: it ends at %" PRIu64
                       ", and %zu bytes at %" PRIu64 " are missing",
                       src->size, length, offset);
    }
    ret = src->read(src->opaque, offset, buf, length);
    if (ret < 0) {
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    return 0;
}

/* The end of the grid piece of @s that holds @at. */
static uint64_t piece_end(const struct stored *s, uint64_t at)
{
    uint64_t end = at - at % TT_GRID + TT_GRID;
    uint64_t last = s->disk_offset + s->disk_length;

    return end < last ? end : last;
}

static uint64_t piece_start(const struct stored *s, uint64_t at)
{
    uint64_t start = at - at % TT_GRID;

    return start > s->disk_offset ? start : s->disk_offset;
}

/* Does the piece at @start, whose bytes are in @buf, fit its checksum? */
static bool piece_fits(const struct stored *s, uint64_t start,
                       const uint8_t *buf)
{
    uint64_t i = start / TT_GRID - s->disk_offset / TT_GRID;

    return tt_checksum(buf, piece_end(s, start) - start) ==
           tt_get64(s->checksums[i]);
}

/* Reads one piece, checks it, and copies the part that is asked for. */
static int read_part(const struct stored *s, const struct tt_source *src,
                     uint64_t offset, uint64_t length, uint8_t *to,
                     struct tt_error *err)
{
    uint64_t start = piece_start(s, offset), end = piece_end(s, offset);
    uint64_t at = s->payload + (start - s->disk_offset);
    uint8_t piece[TT_GRID];
    int ret = read_source(src, at, piece, end - start, err);

    if (ret < 0) {
        return ret;
    }
    if (!piece_fits(s, start, piece)) {
        return fail_at(s, at, start, end - start, err);
    }
    memcpy(to, piece + (offset - start), length);
    return 0;
}

/* Reads whole pieces to where they belong, and checks them there. */
static int read_whole(const struct stored *s, const struct tt_source *src,
                      uint64_t offset, uint64_t length, uint8_t *to,
                      struct tt_error *err)
{
    uint64_t at = s->payload + (offset - s->disk_offset);
    int ret = read_source(src, at, to, length, err);

    for (uint64_t done = 0; done < length && ret == 0;) {
        uint64_t start = offset + done, size = piece_end(s, start) - start;

        if (!piece_fits(s, start, to + done)) {
            ret = fail_at(s, at + done, start, size, err);
        }
        done += size;
    }
    return ret;
}

static int read_stored(const struct stored *s, const struct tt_source *src,
                       uint64_t offset, uint64_t length, uint8_t *to,
                       struct tt_error *err)
{
    uint64_t end = offset + length;
    int ret = 0;

    while (offset < end && ret == 0) {
        uint64_t stop = piece_end(s, offset);

        if (stop > end || piece_start(s, offset) != offset) {
            stop = stop < end ? stop : end;
            ret = read_part(s, src, offset, stop - offset, to, err);
        } else {
            while (stop < end && piece_end(s, stop) <= end) {
                stop = piece_end(s, stop);
            }
            ret = read_whole(s, src, offset, stop - offset, to, err);
        }
        to += stop - offset;
        offset = stop;
    }
    return ret;
}

/* Finds the record of @ext in its frame, read anew to @head. */
static int find_record(const struct tt_history *h, const struct tt_source *src,
                       const struct tt_extent *ext, uint8_t *head,
                       struct stored *s, struct tt_error *err)
{
    uint32_t pos = 0, index = 0;
    struct tt_frame f;
    struct tt_record r = { 0 };
    int ret = tt_frame_read(&h->super, src, ext->frame_offset, head, &f, err);

    if (ret < 0) {
        return ret;
    }
    while (ret > 0 && index <= ext->record_index &&
           tt_table_next(&f, head + HEADER, &pos, &index, &r)) {
    }
    if (ret == 0 || r.seq != ext->record_seq || !r.payload_offset ||
        !tt_kind_is_version(r.kind)) {
        char time[TT_TIME_SIZE] = "at an unknown time";
        int64_t t;

        if (tt_history_time(h, ext->record_seq, &t)) {
            tt_time_format(t, time);
        }
        return tt_fail(err, TT_EDAMAGED, EIO,
                       "the journal is damaged at %" PRIu64
                       " in segment %" PRIu64 ": the frame that lay there, "
                       "with record %" PRIu64 " (%s) of the disk at %" PRIu64
                       " (+%" PRIu64 "), is not whole",
                       ext->frame_offset,
                       tt_segment_at(&h->super, ext->frame_offset),
                       ext->record_seq, time, ext->offset, ext->length);
    }
    *s = (struct stored){ r.seq,
                          r.time,
                          r.disk_offset,
                          r.disk_length,
                          f.offset + r.payload_offset,
                          r.checksums,
                          f.segment };
    return 0;
}

static int find_salvaged(const struct tt_history *h,
                         const struct tt_extent *ext, struct stored *s,
                         struct tt_error *err)
{
    const struct salvaged *r = tt_history_salvaged(h, ext->record_seq);

    if (!r || !r->checksums) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "no such extent of record %" PRIu64, ext->record_seq);
    }
    *s = (struct stored){ r->seq,
                          r->time,
                          r->disk_offset,
                          r->disk_length,
                          r->payload,
                          r->checksums,
                          tt_segment_at(&h->super, r->payload) };
    return 0;
}

int tt_extent_read(const struct tt_history *h, const struct tt_source *src,
                   const struct tt_extent *ext, uint64_t offset,
                   uint64_t length, void *buf, struct tt_error *err)
{
    uint8_t head[TT_HEAD_MAX];
    struct stored s = { 0 };
    int ret;

    assert(ext->kind == TT_EXTENT_JOURNAL);
    assert(offset >= ext->offset && length <= ext->length &&
           offset - ext->offset <= ext->length - length);
    ret = ext->frame_offset ? find_record(h, src, ext, head, &s, err)
                            : find_salvaged(h, ext, &s, err);
    if (ret < 0) {
        return ret;
    }
    if (offset < s.disk_offset || length > s.disk_length ||
        offset - s.disk_offset > s.disk_length - length) {
        return tt_fail(err, TT_EDAMAGED, EIO,
                       "record %" PRIu64 " in the journal at %" PRIu64
                       " is not the one that was indexed: the journal was "
                       "changed",
                       ext->record_seq, s.payload);
    }
    return read_stored(&s, src, offset, length, buf, err);
}
