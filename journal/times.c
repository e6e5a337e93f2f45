/*
 * Times: when was this record written, and which was the last one by then?
 *
 * Of the tail each change of the time is known.  Of what an index covers each
 * run knows some frames, with the time and number of their first record: at
 * the start of each segment, and every so often in between.  From there on
 * the frames' headers are read.  Within an epoch times never decrease, so one
 * of them is found by bisection over sequence numbers.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "run.h"
#include "times.h"

#define HEADER sizeof(struct tt_frame_header)

/* ---- the tail ---------------------------------------------------------- */

/* The first index whose point is behind @seq. */
static size_t points_after(const struct tt_history *h, uint64_t seq)
{
    size_t low = 0, high = h->times_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (h->times[mid].seq <= seq) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/*
 * The last of the points for [first, last] that is not after @time; false if
 * there is none.
 */
static bool last_point(const struct tt_history *h, uint64_t first,
                       uint64_t last, int64_t time, size_t *ret_point)
{
    size_t low = points_after(h, first), high = points_after(h, last);

    low -= low > 0;
    if (low >= high || h->times[low].time > time) {
        return false;
    }
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;

        if (h->times[mid].time <= time) {
            low = mid;
        } else {
            high = mid;
        }
    }
    *ret_point = low;
    return true;
}

/* ---- frames that runs know --------------------------------------------- */

struct known {
    uint64_t seq, frame;
    int64_t time;
};

/* The last one at or before @seq.  1; 0: there is none. */
static int known_frame(const struct tt_history *h, uint64_t seq,
                       struct known *ret, struct tt_error *err)
{
    for (size_t i = h->runs_count; i > 0; i--) {
        const struct tt_run *run = h->runs[i - 1];
        unsigned lane = run->first_lane[RUN_TIMES];
        struct run_hit hit;
        int r;

        if (run->info.first_seq > seq || lane == run->lane_count) {
            continue;
        }
        r = tt_run_floor(run, &run->lanes[lane], seq, UINT64_MAX, NULL, &hit,
                         err);
        if (r < 0) {
            return r;
        }
        if (hit.found) {
            *ret = (struct known){ hit.row.start, hit.row.place,
                                   times_unbias(hit.row.seq) };
            return 1;
        }
    }
    return 0;
}

/*
 * A frame of history.  Its table is read only when it is needed, and so is the
 * header of the next segment: only once for each.
 */
struct step {
    const struct tt_history *h;
    struct tt_frame frame;
    struct tt_frame next_start; /* of the segment after this frame's */
    bool next_known, next_valid;
    uint8_t head[TT_HEAD_MAX];
    struct tt_error *err;
};

/* 1 and *f if a header is there, 0 if not. */
static int get_header(const struct step *s, uint64_t offset, struct tt_frame *f)
{
    const struct tt_source *src = s->h->journal;
    uint8_t buf[HEADER];
    int ret;

    if (offset >= src->size || src->size - offset < HEADER) {
        return 0;
    }
    ret = src->read(src->opaque, offset, buf, HEADER);
    if (ret < 0) {
        return tt_fail(s->err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    return tt_frame_decode(&s->h->super, offset, buf, f);
}

/* The table of the present frame is in s->head then.  1, 0 if it is not. */
static int get_table(struct step *s)
{
    struct tt_frame f;
    int ret = tt_frame_read(&s->h->super, s->h->journal, s->frame.offset,
                            s->head, &f, s->err);

    return ret > 0 ? f.own_chain == s->frame.own_chain : ret;
}

/*
 * Goes to the next frame; 0 if none is there.  What begins the next segment
 * and follows this frame does so though another one lies behind it: that is
 * an append that failed.
 */
static int next_frame(struct step *s)
{
    uint64_t end = tt_frame_end(&s->frame);
    uint64_t start = tt_segment_offset(&s->h->super, s->frame.segment + 1);
    struct tt_frame f;
    int ret;

    if (!s->next_known) {
        ret = get_header(s, start, &s->next_start);
        if (ret < 0) {
            return ret;
        }
        s->next_known = true;
        s->next_valid = ret > 0;
    }
    if (s->next_valid && tt_frame_links(&s->frame, &s->next_start)) {
        s->frame = s->next_start;
        s->next_known = false;
        return 1;
    }
    ret = end < start ? get_header(s, end, &f) : 0;
    if (ret > 0) {
        ret = tt_frame_links(&s->frame, &f);
        s->frame = ret ? f : s->frame;
    }
    return ret;
}

static int begin_step(struct step *s, const struct known *k)
{
    int ret = get_header(s, k->frame, &s->frame);

    s->next_known = false;
    return ret > 0 ? s->frame.first_seq == k->seq : ret;
}

static struct step *new_step(const struct tt_history *h, struct tt_error *err)
{
    struct step *s = malloc(sizeof(*s));

    if (s) {
        s->h = h;
        s->err = err;
    } else {
        tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    return s;
}

/* ---- time of a record -------------------------------------------------- */

static void time_in_frame(struct step *s, uint64_t seq, int64_t *ret_time)
{
    uint32_t pos = 0, index = 0;
    struct tt_record rec;

    if (seq >= tt_frame_last_seq(&s->frame) || get_table(s) <= 0) {
        *ret_time = seq >= tt_frame_last_seq(&s->frame) ? s->frame.last_time
                                                        : s->frame.first_time;
        return;
    }
    while (tt_table_next(&s->frame, s->head + HEADER, &pos, &index, &rec) &&
           rec.seq <= seq) {
        *ret_time = rec.time;
    }
}

static bool covered_time(const struct tt_history *h, uint64_t seq,
                         int64_t *ret_time)
{
    struct known k;
    struct step *s;
    int ret;

    if (known_frame(h, seq, &k, NULL) <= 0) {
        return false;
    }
    *ret_time = k.time;
    s = new_step(h, NULL);
    if (!s) {
        return true;
    }
    ret = begin_step(s, &k);
    while (ret > 0 && s->frame.first_seq <= seq) {
        time_in_frame(s, seq, ret_time);
        ret = tt_frame_last_seq(&s->frame) < seq ? next_frame(s) : 0;
    }
    free(s);
    return true;
}

bool tt_history_time(const struct tt_history *h, uint64_t seq,
                     int64_t *ret_time)
{
    size_t i = seq > h->covered_seq ? points_after(h, seq) : 0;

    if (i > 0) {
        *ret_time = h->times[i - 1].time;
        return true;
    }
    return h->journal && covered_time(h, seq, ret_time);
}

/* ---- the last record by a time ----------------------------------------- */

/* The last record of the frame that is not after @time.  1, or negative. */
static int last_in_frame(struct step *s, int64_t time, uint64_t *ret_seq)
{
    const struct tt_frame *f = &s->frame;
    uint32_t pos = 0, index = 0;
    struct tt_record rec;
    int ret;

    if (f->last_time <= time || f->first_time > time) {
        *ret_seq =
            f->last_time <= time ? tt_frame_last_seq(f) : f->first_seq - 1;
        return 1;
    }
    ret = get_table(s);
    if (ret <= 0) {
        return ret < 0 ? ret
                       : tt_fail(s->err, TT_EDAMAGED, EIO,
                                 "the journal is damaged at %" PRIu64
                                 ": which record was the last by then is not "
                                 "known; use seq:N, or mark:NAME",
                                 f->offset);
    }
    while (tt_table_next(f, s->head + HEADER, &pos, &index, &rec) &&
           rec.time <= time) {
        *ret_seq = rec.seq;
    }
    return 1;
}

static bool is_known_damage(const struct tt_history *h, uint64_t seq)
{
    for (size_t i = 0; i < h->damages_count; i++) {
        if (h->damages[i].first_seq <= seq && seq <= h->damages[i].last_seq) {
            return true;
        }
    }
    return false;
}

/* A frame that is not there, and no damage is known: so nobody looked. */
static int frame_missing(const struct step *s, uint64_t seq,
                         struct tt_error *err)
{
    return tt_fail(err, TT_EDAMAGED, EIO,
                   "the journal is damaged at %" PRIu64 ": it cannot be told "
                   "which records behind seq:%" PRIu64 " were written by then; "
                   "use seq:N, or mark:NAME",
                   tt_frame_end(&s->frame), seq);
}

/* Goes on from a frame that begins by @time; nothing above @last is asked. */
static int walk(struct step *s, uint64_t last, int64_t time, uint64_t *ret_seq)
{
    int ret = 1;

    while (ret > 0) {
        ret = last_in_frame(s, time, ret_seq);
        if (ret < 0) {
            return ret;
        }
        if (*ret_seq < tt_frame_last_seq(&s->frame) || *ret_seq >= last) {
            return 0;
        }
        ret = next_frame(s);
        if (ret == 0 && !is_known_damage(s->h, *ret_seq + 1)) {
            ret = frame_missing(s, *ret_seq, s->err);
        }
    }
    return ret;
}

/* As tt_times_last(), for the records [first, last], which are covered. */
static int covered_last(const struct tt_history *h, uint64_t first,
                        uint64_t last, int64_t time, uint64_t *ret_seq,
                        struct tt_error *err)
{
    uint64_t low = first, high = last;
    struct known best = { 0 }, k;
    struct step *s;
    int ret;

    while (low <= high) {
        uint64_t mid = low + (high - low) / 2;

        ret = known_frame(h, mid, &k, err);
        if (ret < 0) {
            return ret;
        }
        if (ret == 0 || k.seq < first || k.time <= time) {
            if (ret > 0 && k.seq >= first) {
                best = k;
            }
            low = mid + 1;
        } else {
            high = k.seq - 1;
        }
    }
    *ret_seq = first;
    if (!best.seq) {
        return 0;
    }
    s = new_step(h, err);
    if (!s) {
        return -TT_ENOMEM;
    }
    ret = begin_step(s, &best);
    if (ret > 0) {
        ret = walk(s, last, time, ret_seq);
    } else if (ret == 0) {
        s->frame = (struct tt_frame){ .offset = best.frame };
        ret = frame_missing(s, best.seq - 1, err);
    }
    free(s);
    return ret;
}

int tt_times_last(const struct tt_history *h, size_t i, int64_t time,
                  uint64_t *ret_seq, struct tt_error *err)
{
    uint64_t first = h->epochs[i].first_seq;
    uint64_t last = i + 1 < h->epochs_count ? h->epochs[i + 1].first_seq - 1
                                            : h->scan.last_seq;
    uint64_t from = first > h->covered_seq ? first : h->covered_seq + 1;
    size_t p;

    if (from <= last && last_point(h, from, last, time, &p)) {
        *ret_seq =
            p + 1 < h->times_count ? h->times[p + 1].seq - 1 : h->scan.last_seq;
        return 0;
    }
    if (first <= h->covered_seq) {
        return covered_last(h, first,
                            last < h->covered_seq ? last : h->covered_seq, time,
                            ret_seq, err);
    }
    *ret_seq = h->times_count ? points_after(h, first) : 0;
    *ret_seq = *ret_seq < h->times_count ? h->times[*ret_seq].seq - 1
                                         : h->scan.last_seq;
    return 0;
}

/* ---- where to begin a scan --------------------------------------------- */

/*
 * A damaged frame is no place to begin at, for then a scan could not tell what
 * is missing: the one before is as good.
 */
static int covered_frame(const struct tt_history *h, uint64_t seq,
                         uint64_t *ret_from, struct tt_error *err)
{
    uint8_t head[TT_HEAD_MAX];
    struct tt_error e = { 0 };
    struct tt_frame f;
    struct known k;
    int ret;

    *ret_from = 0;
    while (seq && (ret = known_frame(h, seq, &k, err)) != 0) {
        if (ret > 0) {
            ret = tt_frame_read(&h->super, h->journal, k.frame, head, &f, &e);
            ret = ret == -TT_EIO && e.os_errno == EIO ? 0 : ret;
        }
        if (ret < 0) {
            if (err && e.code) {
                *err = e;
            }
            return ret;
        }
        if (ret > 0 && f.first_seq == k.seq) {
            *ret_from = k.frame;
            break;
        }
        seq = k.seq - 1;
    }
    return 0;
}

/* The last record before those of @seq's epoch that have @time, or @seq. */
static int before_time(const struct tt_history *h, uint64_t *seq, int64_t time,
                       struct tt_error *err)
{
    uint64_t last;
    size_t i = 0;
    int ret;

    while (i < h->epochs_count && h->epochs[i].last_seq < *seq) {
        i++;
    }
    if (i == h->epochs_count || time == INT64_MIN) {
        return 0;
    }
    ret = tt_times_last(h, i, time - 1, &last, err);
    if (ret == 0 && last < *seq) {
        *seq = last;
    }
    return ret;
}

int tt_history_scan_from(const struct tt_history *h, uint64_t seq,
                         const int64_t *time, uint64_t *ret_from,
                         struct tt_error *err)
{
    int ret;

    *ret_from = 0;
    if (!h->journal) {
        return 0;
    }
    if (time) {
        ret = before_time(h, &seq, *time, err);
        if (ret < 0) {
            return ret;
        }
    }
    if (seq > h->covered_seq) {
        *ret_from = h->tail_offset;
        return 0;
    }
    return covered_frame(h, seq, ret_from, err);
}
