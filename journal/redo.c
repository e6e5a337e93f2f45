/*
 * Redo and comparison: the bytes of one record, checked
 *
 * What recovery writes to the disk is checked against the record's checksums
 * first, and what it compares with the disk needs no payload at all: the
 * checksums are enough.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

#define HEADER sizeof(struct tt_frame_header)

static int is_zero(const uint8_t *p, uint64_t length)
{
    return !length || (!p[0] && !memcmp(p, p + 1, length - 1));
}

/* Finds the record @seq of the frame at @offset: 1, 0 if it is not there. */
static int find_record(const struct tt_super *super,
                       const struct tt_source *src, uint64_t offset,
                       uint64_t seq, uint8_t *head, struct tt_record *ret_rec,
                       struct tt_error *err)
{
    uint32_t pos = 0, index = 0;
    struct tt_frame f;
    int ret = tt_frame_read(super, src, offset, head, &f, err);

    while (ret > 0 && tt_table_next(&f, head + HEADER, &pos, &index, ret_rec)) {
        if (ret_rec->seq == seq) {
            return 1;
        }
    }
    return ret < 0 ? ret : 0;
}

/* Where the grid cuts a record after @at. */
static uint64_t piece_end(const struct tt_record *rec, uint64_t at)
{
    uint64_t end = rec->disk_offset + rec->disk_length;
    uint64_t next = at - at % TT_GRID + TT_GRID;

    return next < end ? next : end;
}

/* Is piece @i of @rec, at @at of the disk, whole in the journal?  Or -errno. */
static int is_piece_whole(const struct tt_source *src, uint64_t frame_offset,
                          const struct tt_record *rec, uint32_t i, uint64_t at)
{
    uint8_t piece[TT_GRID];
    uint64_t length = piece_end(rec, at) - at;
    int ret =
        src->read(src->opaque,
                  frame_offset + rec->payload_offset + (at - rec->disk_offset),
                  piece, length);

    if (ret < 0) {
        return ret == -EIO ? 0 : ret;
    }
    return tt_checksum(piece, length) == tt_get64(rec->checksums[i]);
}

/*
 * The disk is another one if it lacks a piece that the journal has.  Where the
 * journal has lost it, too, there is no telling: redo could not write it.
 */
static int compare_pieces(const struct tt_source *src, uint64_t frame_offset,
                          const struct tt_record *rec, const uint8_t *disk,
                          struct tt_error *err)
{
    uint64_t at = rec->disk_offset, end = at + rec->disk_length, next;

    for (uint32_t i = 0; at < end; i++, at = next) {
        int ret;

        next = piece_end(rec, at);
        if (tt_checksum(disk + (at - rec->disk_offset), next - at) ==
            tt_get64(rec->checksums[i])) {
            continue;
        }
        ret = is_piece_whole(src, frame_offset, rec, i, at);
        if (ret < 0) {
            return tt_fail(err, TT_EIO, -ret,
                           "cannot read the journal at %" PRIu64 ": %s",
                           frame_offset, strerror(-ret));
        }
        if (ret) {
            return 0;
        }
    }
    return 1;
}

int tt_recovery_compare(const struct tt_super *super,
                        const struct tt_source *src,
                        const struct tt_redo *sample, const void *disk,
                        struct tt_error *err)
{
    struct tt_record rec;
    uint8_t *head;
    int ret;

    if (sample->kind == TT_KIND_ZERO) {
        return is_zero(disk, sample->disk_length);
    }
    head = malloc(TT_HEAD_MAX);
    if (!head) {
        return tt_fail(err, TT_ENOMEM, 0, "out of memory");
    }
    ret = find_record(super, src, sample->frame_offset, sample->seq, head, &rec,
                      err);
    if (ret > 0) {
        ret = rec.disk_offset == sample->disk_offset &&
                      rec.disk_length == sample->disk_length &&
                      rec.checksum_count &&
                      rec.payload_length == rec.disk_length
                  ? compare_pieces(src, sample->frame_offset, &rec, disk, err)
                  : 0;
    }
    free(head);
    return ret;
}

/* Do the pieces of @rec that [offset, offset + length) needs fit? */
static bool pieces_fit(const struct tt_record *rec, const uint8_t *payload,
                       uint64_t offset, uint64_t length)
{
    uint64_t at = rec->disk_offset, end = at + rec->disk_length, next;

    for (uint32_t i = 0; at < end; i++, at = next) {
        next = piece_end(rec, at);
        if (at < offset + length && next > offset &&
            tt_checksum(payload + (at - rec->disk_offset), next - at) !=
                tt_get64(rec->checksums[i])) {
            return false;
        }
    }
    return true;
}

static int read_redo(const struct tt_source *src, const struct tt_redo *redo,
                     const struct tt_record *rec, uint8_t *payload, void *buf,
                     struct tt_error *err)
{
    uint64_t from = redo->disk_offset - rec->disk_offset;
    int ret = src->read(src->opaque, redo->frame_offset + rec->payload_offset,
                        payload, rec->payload_length);

    if (ret < 0 && ret != -EIO) {
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s",
                       redo->frame_offset, strerror(-ret));
    }
    if (ret < 0 ||
        !pieces_fit(rec, payload, redo->disk_offset, redo->disk_length)) {
        return tt_fail(err, TT_EDAMAGED, EIO,
                       "the journal is damaged at %" PRIu64
                       ": what record %" PRIu64 " wrote to the disk at %" PRIu64
                       " (+%" PRIu64 ") does not fit its checksum",
                       redo->payload, redo->seq, redo->disk_offset,
                       redo->disk_length);
    }
    memcpy(buf, payload + from, redo->disk_length);
    return 0;
}

int tt_redo_read(const struct tt_super *super, const struct tt_source *src,
                 const struct tt_redo *redo, void *buf, struct tt_error *err)
{
    uint8_t *head = malloc(TT_HEAD_MAX);
    uint8_t *payload = malloc(TT_PAYLOAD_RECORD_MAX);
    struct tt_record rec;
    int ret;

    if (!head || !payload) {
        ret = tt_fail(err, TT_ENOMEM, 0, "out of memory");
        goto out;
    }
    ret =
        find_record(super, src, redo->frame_offset, redo->seq, head, &rec, err);
    if (ret > 0 && rec.kind == TT_KIND_WRITE &&
        rec.disk_offset <= redo->disk_offset &&
        rec.disk_offset + rec.disk_length >=
            redo->disk_offset + redo->disk_length) {
        ret = read_redo(src, redo, &rec, payload, buf, err);
    } else if (ret >= 0) {
        ret = tt_fail(err, TT_EDAMAGED, EIO,
                      "the journal's frame at %" PRIu64
                      " is not what it was a moment ago",
                      redo->frame_offset);
    }
out:
    free(head);
    free(payload);
    return ret;
}
