/*
 * Salvage: which records did a damaged place hold, as far as a footer knows?
 *
 * A segment's footer lies in the next segment and names every version in it,
 * with place and checksums.  If all parts of it are whole, the versions among
 * the missing records are known again: where they wrote to, and what their
 * bytes must look like.  Only what no footer covers stays blind.
 *
 * A footer's bytes fit their checksums, but nobody has looked at what they
 * say: entries are held to the limits of records here.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "history.h"

/* ---- blinds ------------------------------------------------------------ */

static bool push_blind(struct tt_history *h, uint64_t first, uint64_t last,
                       uint64_t damage_seq)
{
    if (!tt_history_room(&h->blinds, h->blinds_count, &h->blinds_room,
                         sizeof(*h->blinds))) {
        return false;
    }
    h->blinds[h->blinds_count++] = (struct blind){ first, last, damage_seq };
    return true;
}

int tt_history_add_blind(struct tt_history *h, const struct tt_damage *d)
{
    if (d->last_seq < d->first_seq ||
        push_blind(h, d->first_seq, d->last_seq, d->first_seq)) {
        return 0;
    }
    return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
}

/* Takes [first, last] out of the blinds. */
static bool uncover(struct tt_history *h, uint64_t first, uint64_t last)
{
    struct blind *old = h->blinds;
    size_t count = h->blinds_count;
    bool ok = true;

    h->blinds = NULL;
    h->blinds_count = h->blinds_room = 0;
    for (size_t i = 0; i < count && ok; i++) {
        const struct blind *b = &old[i];

        if (b->last_seq < first || b->first_seq > last) {
            ok = push_blind(h, b->first_seq, b->last_seq, b->damage_seq);
            continue;
        }
        if (b->first_seq < first) {
            ok = push_blind(h, b->first_seq, first - 1, b->damage_seq);
        }
        if (ok && b->last_seq > last) {
            ok = push_blind(h, last + 1, b->last_seq, b->damage_seq);
        }
    }
    free(old);
    return ok;
}

const struct blind *tt_history_blind_before(const struct tt_history *h,
                                            uint64_t seq)
{
    size_t low = 0, high = h->blinds_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (h->blinds[mid].first_seq <= seq) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low ? &h->blinds[low - 1] : NULL;
}

static bool is_blind(const struct tt_history *h, uint64_t seq)
{
    const struct blind *b = tt_history_blind_before(h, seq);

    return b && seq <= b->last_seq;
}

/* ---- entries ----------------------------------------------------------- */

/* The parts of a FOOTER's payload, which were checked to fit into it. */
struct footer_view {
    struct tt_footer_body body;
    uint64_t segment_offset;
    uint64_t first_seq, last_seq;
    uint32_t entry_count, checksum_count;
    const uint8_t *entries, *checksums;
};

static bool parse_footer(const struct tt_history *h, const uint8_t *p,
                         uint32_t length, struct footer_view *v)
{
    uint64_t need = sizeof(v->body), segment;

    if (length < need) {
        return false;
    }
    memcpy(&v->body, p, sizeof(v->body));
    segment = tt_get64(v->body.segment);
    v->first_seq = tt_get64(v->body.first_seq);
    v->last_seq = tt_get64(v->body.last_seq);
    v->entry_count = tt_get32(v->body.entry_count);
    v->checksum_count = tt_get32(v->body.checksum_count);
    v->entries = p + need;
    need += (uint64_t)v->entry_count * sizeof(struct tt_footer_entry);
    v->checksums = p + need;
    need += (uint64_t)v->checksum_count * sizeof(tt_le64);
    if (need > length || segment >= h->last_segment || !v->first_seq ||
        v->last_seq < v->first_seq || v->last_seq > h->scan.last_seq) {
        return false;
    }
    v->segment_offset = tt_segment_offset(&h->super, segment);
    return true;
}

/* Does a record of @kind with these @flags store bytes? */
static bool has_payload(uint16_t kind, uint16_t flags)
{
    return kind == TT_KIND_WRITE ||
           (kind == TT_KIND_PREIMAGE && !(flags & TT_RECORD_ZEROES));
}

static bool range_within_limits(const struct salvaged *s)
{
    uint64_t max = s->kind == TT_KIND_RESIZE        ? TT_DISK_SIZE_MAX
                   : s->kind == TT_KIND_ZERO        ? TT_ZERO_RECORD_MAX
                   : has_payload(s->kind, s->flags) ? TT_PAYLOAD_RECORD_MAX
                                                    : TT_PREIMAGE_ZERO_MAX;

    if (!tt_kind_is_version(s->kind) && s->kind != TT_KIND_RESIZE) {
        return false;
    }
    if (s->disk_offset % TT_SECTOR || s->disk_length % TT_SECTOR ||
        s->disk_length > max || s->disk_offset > TT_DISK_SIZE_MAX) {
        return false;
    }
    return s->kind == TT_KIND_RESIZE ||
           (s->disk_length &&
            s->disk_offset <= TT_DISK_SIZE_MAX - s->disk_length);
}

/* 1 and *s, or 0 if entry @i makes no sense, or negative. */
static int decode_entry(struct tt_history *h, const struct footer_view *v,
                        uint32_t i, struct salvaged *s)
{
    struct tt_footer_entry e;
    uint32_t at, first, pieces;

    memcpy(&e, v->entries + i * sizeof(e), sizeof(e));
    *s = (struct salvaged){
        .seq = v->first_seq + tt_get32(e.seq),
        .time = (int64_t)tt_get64(e.time),
        .disk_offset = tt_get64(e.disk_offset),
        .disk_length = tt_get64(e.disk_length),
        .kind = tt_get16(e.kind),
        .flags = tt_get16(e.flags),
    };
    if (s->seq > v->last_seq || !range_within_limits(s)) {
        return 0;
    }
    if (!has_payload(s->kind, s->flags)) {
        return 1;
    }
    at = tt_get32(e.payload_offset);
    first = tt_get32(e.first_checksum);
    pieces = tt_grid_pieces(s->disk_offset, s->disk_length);
    if (!at || at > h->super.segment_size ||
        s->disk_length > h->super.segment_size - at ||
        first > v->checksum_count || pieces > v->checksum_count - first) {
        return 0;
    }
    s->payload = v->segment_offset + at;
    s->checksums = malloc(pieces * sizeof(tt_le64));
    if (!s->checksums) {
        return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    memcpy(s->checksums, v->checksums + first * sizeof(tt_le64),
           pieces * sizeof(tt_le64));
    return 1;
}

/* ---- footers ----------------------------------------------------------- */

void tt_history_footer_clear(struct footer_parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->records[i].checksums);
    }
    free(p->records);
    *p = (struct footer_parts){ 0 };
}

/* Takes what one part says of missing records.  1, or 0 if it is no good. */
static int take_part(struct tt_history *h, const struct footer_view *v)
{
    struct footer_parts *p = &h->footer;
    int ret = 1;

    for (uint32_t i = 0; i < v->entry_count && ret > 0; i++) {
        struct salvaged s;

        ret = decode_entry(h, v, i, &s);
        if (ret <= 0 || !is_blind(h, s.seq)) {
            if (ret > 0) {
                free(s.checksums);
            }
            continue;
        }
        if (!tt_history_room(&p->records, p->count, &p->room,
                             sizeof(*p->records))) {
            free(s.checksums);
            return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
        }
        p->records[p->count++] = s;
    }
    return ret;
}

static int compare_salvaged(const void *a, const void *b)
{
    const struct salvaged *x = a, *y = b;

    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* All parts are here: their records are no longer missing. */
static int commit(struct tt_history *h)
{
    struct footer_parts *p = &h->footer;
    int ret = 0;

    for (size_t i = 0; i < p->count && ret == 0; i++) {
        const struct salvaged *s = &p->records[i];
        struct tt_record rec = {
            .seq = s->seq,
            .kind = s->kind,
            .flags = s->flags,
            .disk_offset = s->disk_offset,
            .disk_length = s->disk_length,
        };

        if (!tt_history_room(&h->salvaged, h->salvaged_count, &h->salvaged_room,
                             sizeof(*h->salvaged))) {
            return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
        }
        ret = tt_history_add_version(h, &rec, 0, 0);
        h->salvaged[h->salvaged_count++] = *s;
        p->records[i].checksums = NULL; /* the other one owns them now */
    }
    if (p->count) {
        qsort(h->salvaged, h->salvaged_count, sizeof(*h->salvaged),
              compare_salvaged);
    }
    if (ret == 0 && !uncover(h, p->first_seq, p->last_seq)) {
        ret = tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    return ret;
}

int tt_history_footer(struct tt_history *h, const struct tt_frame *f,
                      const struct tt_record *rec)
{
    struct footer_parts *p = &h->footer;
    struct footer_view v;
    const uint8_t *body;
    int ret;

    if (!h->blinds_count) {
        return 0;
    }
    ret = tt_history_body(h, f, rec, &body);
    if (ret < 0) {
        return ret;
    }
    if (ret > 0 && parse_footer(h, body, rec->payload_length, &v)) {
        uint32_t part = tt_get32(v.body.part);

        if (part == 0) {
            tt_history_footer_clear(p);
            p->segment = tt_get64(v.body.segment);
            p->part_count = tt_get32(v.body.part_count);
            p->first_seq = v.first_seq;
            p->last_seq = v.last_seq;
        }
        if (part == p->next_part && part < p->part_count &&
            p->segment == tt_get64(v.body.segment) &&
            p->first_seq == v.first_seq && p->last_seq == v.last_seq) {
            ret = take_part(h, &v);
            if (ret > 0) {
                p->next_part++;
                if (p->next_part < p->part_count) {
                    return 0;
                }
                ret = commit(h);
            }
        }
    }
    tt_history_footer_clear(p);
    return ret < 0 ? ret : 0;
}

const struct salvaged *tt_history_salvaged(const struct tt_history *h,
                                           uint64_t seq)
{
    struct salvaged key = { .seq = seq };

    if (!h->salvaged_count) {
        return NULL;
    }
    return bsearch(&key, h->salvaged, h->salvaged_count, sizeof(*h->salvaged),
                   compare_salvaged);
}
