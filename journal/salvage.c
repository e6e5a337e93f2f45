/*
 * Salvage: which records did a damaged place hold, as far as a footer knows?
 *
 * A segment's footer lies in the next segment and names every version in it,
 * with place and checksums.  If all parts of it are whole, the versions among
 * the missing records are known again: where they wrote to, and what their
 * bytes must look like.  Only what no footer covers stays blind.
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

/* ---- footers ----------------------------------------------------------- */

void tt_history_footer_clear(struct footer_parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->records[i].checksums);
    }
    free(p->records);
    *p = (struct footer_parts){ 0 };
}

static bool keep_record(struct footer_parts *p, const struct placed *e)
{
    struct salvaged s = {
        .seq = e->seq,
        .time = e->time,
        .disk_offset = e->disk_offset,
        .disk_length = e->disk_length,
        .payload = e->payload,
        .kind = e->kind,
        .flags = e->flags,
    };
    uint32_t pieces = tt_grid_pieces(e->disk_offset, e->disk_length);

    if (!tt_history_room(&p->records, p->count, &p->room,
                         sizeof(*p->records))) {
        return false;
    }
    if (e->payload) {
        s.checksums = malloc(pieces * sizeof(tt_le64));
        if (!s.checksums) {
            return false;
        }
        memcpy(s.checksums, e->sums, pieces * sizeof(tt_le64));
    }
    p->records[p->count++] = s;
    return true;
}

/* Takes what one part says of missing records.  1, or 0 if it is no good. */
static int take_part(struct tt_history *h, struct footer_part *v)
{
    for (uint32_t i = 0; i < v->entry_count; i++) {
        struct placed e;

        if (!tt_footer_next(&h->super, v, &e)) {
            return 0;
        }
        if (is_blind(h, e.seq) && !keep_record(&h->footer, &e)) {
            return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
        }
    }
    return 1;
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
        struct placed rec = {
            .seq = s->seq,
            .time = s->time,
            .kind = s->kind,
            .flags = s->flags,
            .disk_offset = s->disk_offset,
            .disk_length = s->disk_length,
            .payload = s->payload,
            .sums = s->checksums,
        };

        if (!tt_history_room(&h->salvaged, h->salvaged_count, &h->salvaged_room,
                             sizeof(*h->salvaged))) {
            return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
        }
        ret = tt_history_add_version(h, &rec);
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

/*
 * What an index covers is told by its runs, which are searched by sequence: a
 * footer that comes later cannot add to them.
 */
static bool is_usable(const struct tt_history *h, const struct footer_part *v)
{
    return v->segment < h->last_segment && v->last_seq <= h->scan.last_seq &&
           v->first_seq > h->covered_seq;
}

int tt_history_footer(struct tt_history *h, const struct tt_frame *f,
                      const struct tt_record *rec)
{
    struct footer_parts *p = &h->footer;
    struct footer_part v;
    const uint8_t *body;
    int ret;

    if (!h->blinds_count) {
        return 0;
    }
    ret = tt_history_body(h, f, rec, &body);
    if (ret < 0) {
        return ret;
    }
    if (ret > 0 && tt_footer_parse(&h->super, body, rec->payload_length, &v) &&
        is_usable(h, &v)) {
        uint32_t part = v.part;

        if (part == 0) {
            tt_history_footer_clear(p);
            p->segment = v.segment;
            p->part_count = v.part_count;
            p->first_seq = v.first_seq;
            p->last_seq = v.last_seq;
        }
        if (part == p->next_part && part < p->part_count &&
            p->segment == v.segment && p->first_seq == v.first_seq &&
            p->last_seq == v.last_seq) {
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
