/*
 * Gaps: which ranges may have changed without being recorded?
 *
 * A GAP names ranges, or the whole disk.  One that is open goes on until
 * another closes it, and that one's ranges count instead of its own.  A range
 * in doubt that has no version must not be taken from the live disk, for any
 * moment: it may have been overwritten without having been captured.
 *
 * A GAP whose append has failed may be whole all the same, and be history after
 * a crash.  Its writer knew the gap to be open, so it is no end of one: only
 * what the same session appended behind it proves that it knew better.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <string.h>

#include "history.h"

/* A GAP whose body is damaged: all is in doubt since the record before it. */
static struct tt_gap gap_unknown(const struct tt_record *rec)
{
    return (struct tt_gap){
        .seq = rec->seq,
        .from_seq = rec->seq - 1,
        .from_time = rec->time,
        .to_time = rec->time,
        .reason = TT_GAP_UNKNOWN,
    };
}

static bool add_range(struct tt_history *h, uint64_t seq, uint64_t offset,
                      uint64_t length)
{
    uint64_t first = offset % TT_SECTOR;

    if (!tt_history_room(&h->gap_ranges, h->gap_ranges_count,
                         &h->gap_ranges_room, sizeof(*h->gap_ranges))) {
        return false;
    }
    if (offset >= TT_DISK_SIZE_MAX) {
        return true; /* beyond any disk */
    }
    offset -= first;
    if (length > TT_DISK_SIZE_MAX - offset - first) {
        length = TT_DISK_SIZE_MAX - offset;
    } else {
        length = (length + first + TT_SECTOR - 1) / TT_SECTOR * TT_SECTOR;
    }
    h->gap_ranges[h->gap_ranges_count++] =
        (struct gap_range){ seq, offset, length };
    return true;
}

/* The body of a GAP, whose ranges follow it; false if it is too short. */
static bool take_body(struct tt_gap *g, const struct tt_record *rec,
                      const uint8_t *body)
{
    struct tt_gap_body b;

    if (rec->payload_length < sizeof(b)) {
        return false;
    }
    memcpy(&b, body, sizeof(b));
    g->from_seq = tt_get64(b.from_seq);
    g->opens_seq = tt_get64(b.opens_seq);
    g->from_time = (int64_t)tt_get64(b.from_time);
    g->to_time = (int64_t)tt_get64(b.to_time);
    g->reason = tt_get32(b.reason);
    g->flags = tt_get32(b.flags);
    g->range_count = tt_get32(b.range_count);
    return g->range_count <=
           (rec->payload_length - sizeof(b)) / sizeof(struct tt_range);
}

static bool add_ranges(struct tt_history *h, const struct tt_gap *g,
                       const uint8_t *body)
{
    const uint8_t *p;

    if (!g->range_count) {
        return add_range(h, g->seq, 0, TT_DISK_SIZE_MAX);
    }
    p = body + sizeof(struct tt_gap_body);
    for (uint32_t i = 0; i < g->range_count; i++) {
        struct tt_range r;

        memcpy(&r, p + i * sizeof(r), sizeof(r));
        if (!add_range(h, g->seq, tt_get64(r.offset), tt_get64(r.length))) {
            return false;
        }
    }
    return true;
}

int tt_history_gap(struct tt_history *h, const struct tt_frame *f,
                   const struct tt_record *rec)
{
    struct tt_gap g = gap_unknown(rec);
    const uint8_t *body = NULL;
    int ret = tt_history_body(h, f, rec, &body);
    bool ok = true;

    if (ret < 0) {
        return ret;
    }
    if (ret == 0 || !take_body(&g, rec, body)) {
        g = gap_unknown(rec);
    }
    if (h->gap_more && h->gaps_count) {
        struct tt_gap *first = &h->gaps[h->gaps_count - 1];

        first->range_count = g.range_count && first->range_count
                                 ? first->range_count + g.range_count
                                 : 0;
        g.seq = first->seq;
    } else {
        ok = tt_history_room(&h->gaps, h->gaps_count, &h->gaps_room,
                             sizeof(*h->gaps));
        if (ok) {
            h->gaps[h->gaps_count++] = g;
        }
    }
    h->gap_more = rec->flags & TT_RECORD_MORE;
    if (h->gap_frame != f->offset) {
        h->gap_frame = f->offset;
        h->gap_session = f->session;
        h->gap_first = h->gaps_count - 1;
    }
    h->gaps_changed = true;
    if (!ok || !add_ranges(h, &g, body)) {
        return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    return 0;
}

void tt_history_gap_followed(struct tt_history *h, const struct tt_frame *f)
{
    if (h->gap_frame && f->prev_offset == h->gap_frame &&
        f->session == h->gap_session) {
        size_t end = h->gaps_count - h->gap_more;

        for (size_t i = h->gap_first; i < end; i++) {
            h->gaps[i].followed = true;
            h->gaps_changed = true;
        }
    }
    h->gap_frame = 0;
}

/*
 * One that nothing of its own session follows closes none: its append may have
 * failed, and the gap gone on.
 */
static bool has_closer(const struct tt_history *h, const struct tt_gap *g)
{
    for (size_t i = h->gaps_count; i > 0; i--) {
        const struct tt_gap *later = &h->gaps[i - 1];

        if (later->seq <= g->seq) {
            break;
        }
        if (later->opens_seq == g->seq && later->followed) {
            return true;
        }
    }
    return false;
}

/* The GAP with @seq, or NULL. */
static const struct tt_gap *find_gap(const struct tt_history *h, uint64_t seq)
{
    size_t low = 0, high = h->gaps_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (h->gaps[mid].seq < seq) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < h->gaps_count && h->gaps[low].seq == seq ? &h->gaps[low]
                                                          : NULL;
}

bool tt_history_gaps_settle(struct tt_history *h)
{
    const struct tt_gap *last = NULL;

    if (!h->gaps_changed) {
        return true;
    }
    for (size_t i = 0; i < h->gaps_count; i++) {
        struct tt_gap *g = &h->gaps[i];

        g->closed = (g->flags & TT_GAP_OPEN) && has_closer(h, g);
    }
    tt_index_clear(&h->doubts);
    for (size_t i = 0; i < h->gap_ranges_count; i++) {
        const struct gap_range *r = &h->gap_ranges[i];
        struct version v = { .seq = r->seq };

        if (!last || last->seq != r->seq) {
            last = find_gap(h, r->seq);
        }
        if (last && !last->closed &&
            !tt_index_add(&h->doubts, r->offset, r->length, &v)) {
            return false;
        }
    }
    h->gaps_changed = false;
    return true;
}
