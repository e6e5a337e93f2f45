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

/* ---- the bytes of redos ------------------------------------------------ */

#define RECORDS_MAX (TT_HEAD_MAX / sizeof(struct tt_record_header))

struct tt_redo_reader {
    const struct tt_super *super;
    const struct tt_source *src;
    bool valid; /* the frame that was read last: */
    struct tt_frame frame;
    uint32_t positions[RECORDS_MAX]; /* of its records, in the table */
    uint8_t *head;                   /* TT_HEAD_MAX bytes */
    uint8_t *payload;                /* TT_PAYLOAD_RECORD_MAX bytes */
};

struct tt_redo_reader *tt_redo_reader_new(const struct tt_super *super,
                                          const struct tt_source *src)
{
    struct tt_redo_reader *rr = calloc(1, sizeof(*rr));

    if (rr) {
        rr->super = super;
        rr->src = src;
        rr->head = malloc(TT_HEAD_MAX);
        rr->payload = malloc(TT_PAYLOAD_RECORD_MAX);
        if (!rr->head || !rr->payload) {
            tt_redo_reader_free(rr);
            return NULL;
        }
    }
    return rr;
}

void tt_redo_reader_free(struct tt_redo_reader *rr)
{
    if (rr) {
        free(rr->head);
        free(rr->payload);
        free(rr);
    }
}

/* Reads the frame at @offset, unless it is there already: 1, or 0: none. */
static int get_frame(struct tt_redo_reader *rr, uint64_t offset,
                     struct tt_error *err)
{
    uint32_t pos = 0, index = 0, at = 0;
    struct tt_record rec;
    int ret;

    if (rr->valid && rr->frame.offset == offset) {
        return 1;
    }
    rr->valid = false;
    ret = tt_frame_read(rr->super, rr->src, offset, rr->head, &rr->frame, err);
    if (ret > 0) {
        while (
            index < RECORDS_MAX &&
            tt_table_next(&rr->frame, rr->head + HEADER, &pos, &index, &rec)) {
            rr->positions[index - 1] = at;
            at = pos;
        }
        rr->valid = true;
    }
    return ret;
}

/* The record that @redo is of: 1, 0 if it is not there. */
static int get_record(struct tt_redo_reader *rr, const struct tt_redo *redo,
                      struct tt_record *ret_rec, struct tt_error *err)
{
    uint32_t pos, index = redo->record_index;
    int ret = get_frame(rr, redo->frame_offset, err);

    if (ret <= 0 || index >= rr->frame.record_count || index >= RECORDS_MAX) {
        return ret < 0 ? ret : 0;
    }
    pos = rr->positions[index];
    return tt_table_next(&rr->frame, rr->head + HEADER, &pos, &index,
                         ret_rec) &&
           ret_rec->seq == redo->seq && ret_rec->kind == TT_KIND_WRITE &&
           ret_rec->disk_offset <= redo->disk_offset &&
           ret_rec->disk_offset + ret_rec->disk_length >=
               redo->disk_offset + redo->disk_length;
}

/* Do the pieces of [from, to), which lies in @rec and is @bytes, fit? */
static bool pieces_fit(const struct tt_record *rec, uint64_t from, uint64_t to,
                       const uint8_t *bytes)
{
    uint64_t first = rec->disk_offset / TT_GRID;

    for (uint64_t at = from, next; at < to; at = next) {
        next = piece_end(rec, at);
        if (tt_checksum(bytes + (at - from), next - at) !=
            tt_get64(rec->checksums[at / TT_GRID - first])) {
            return false;
        }
    }
    return true;
}

/* Reads the whole pieces that @redo needs, checks them, and takes its part. */
static int read_pieces(struct tt_redo_reader *rr, const struct tt_redo *redo,
                       const struct tt_record *rec, void *buf,
                       struct tt_error *err)
{
    uint64_t end = redo->disk_offset + redo->disk_length;
    uint64_t from = redo->disk_offset - redo->disk_offset % TT_GRID;
    uint64_t to = piece_end(rec, end - 1);
    uint8_t *bytes;
    int ret;

    from = from > rec->disk_offset ? from : rec->disk_offset;
    bytes = from == redo->disk_offset && to == end ? buf : rr->payload;
    ret = rr->src->read(rr->src->opaque,
                        redo->frame_offset + rec->payload_offset +
                            (from - rec->disk_offset),
                        bytes, to - from);
    if (ret < 0 && ret != -EIO) {
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s",
                       redo->frame_offset, strerror(-ret));
    }
    if (ret < 0 || !pieces_fit(rec, from, to, bytes)) {
        return tt_fail(err, TT_EDAMAGED, EIO,
                       "the journal is damaged at %" PRIu64
                       ": what record %" PRIu64 " wrote to the disk at %" PRIu64
                       " (+%" PRIu64 ") does not fit its checksum",
                       redo->payload, redo->seq, redo->disk_offset,
                       redo->disk_length);
    }
    if (bytes != buf) {
        memcpy(buf, bytes + (redo->disk_offset - from), redo->disk_length);
    }
    return 0;
}

int tt_redo_reader_read(struct tt_redo_reader *rr, const struct tt_redo *redo,
                        void *buf, struct tt_error *err)
{
    struct tt_record rec;
    int ret = get_record(rr, redo, &rec, err);

    if (ret > 0) {
        return read_pieces(rr, redo, &rec, buf, err);
    }
    return ret < 0 ? ret
                   : tt_fail(err, TT_EDAMAGED, EIO,
                             "the journal's frame at %" PRIu64
                             " is not what it was a moment ago",
                             redo->frame_offset);
}

int tt_redo_read(const struct tt_super *super, const struct tt_source *src,
                 const struct tt_redo *redo, void *buf, struct tt_error *err)
{
    struct tt_redo_reader *rr = tt_redo_reader_new(super, src);
    int ret;

    if (!rr) {
        return tt_fail(err, TT_ENOMEM, 0, "out of memory");
    }
    ret = tt_redo_reader_read(rr, redo, buf, err);
    tt_redo_reader_free(rr);
    return ret;
}
