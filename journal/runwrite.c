/*
 * Writing runs: see run.h
 *
 * Rows come in order.  Each level of a lane's tree has one page that is being
 * filled; when it is full it is written, and the level above gets a row for
 * it.  Memory does not grow with the run.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

#define OUT_PAGES 64u /* are written at once */

enum { START, SEQ, PLACE, COLUMNS };

struct column {
    uint64_t values[RUN_ROWS_MAX];
};

struct span {
    uint64_t least, most;
};

/* A page that is being filled.  Columns are in the lane's units. */
struct filling {
    struct column columns[COLUMNS];
    struct span spans[COLUMNS];
    uint64_t reach; /* so far starts may go with the width that they have */
    uint64_t sums[RUN_ROWS_MAX];
    uint8_t cells[RUN_ROWS_MAX];
    unsigned count, room; /* rows; so many have room with these widths */
    uint64_t written;     /* pages of this level, in this lane */
};

struct run_writer {
    const struct tt_sink *sink;
    struct run_head head;
    struct tt_error err;
    int failed; /* a negative code */
    uint64_t next_page;
    unsigned lane_count;
    unsigned lane; /* the one being written, if in_lane */
    bool in_lane;
    struct run_shape leaf, inner; /* of its pages */
    uint64_t entries;             /* of all lanes */
    uint64_t lane_entries;        /* of this one */
    struct filling *levels[RUN_DEPTH_MAX + 1];
    tt_le64 *beside; /* checksums of the leaf being filled */
    uint8_t *out;
    unsigned out_count;
    uint64_t out_first; /* page number of out[0] */
};

struct run_writer *tt_run_writer_new(const uint8_t id[static 16],
                                     const uint8_t uuid[static TT_UUID_SIZE],
                                     const struct tt_sink *sink)
{
    struct run_writer *w = calloc(1, sizeof(*w));

    if (w) {
        w->sink = sink;
        w->next_page = w->out_first = 1;
        w->head.type = RUN_PAGE_HEADER;
        w->head.version = tt_put32(RUN_VERSION);
        memcpy(w->head.magic, RUN_MAGIC, sizeof(w->head.magic));
        memcpy(w->head.id, id, sizeof(w->head.id));
        memcpy(w->head.uuid, uuid, sizeof(w->head.uuid));
        w->levels[0] = calloc(1, sizeof(struct filling));
        w->beside =
            malloc(RUN_SUM_PAGES_MAX * RUN_SUMS_A_PAGE * sizeof(tt_le64));
        w->out = malloc(OUT_PAGES * TT_PAGE);
        if (!w->levels[0] || !w->beside || !w->out) {
            tt_run_writer_free(w);
            w = NULL;
        }
    }
    return w;
}

void tt_run_writer_free(struct run_writer *w)
{
    if (w) {
        for (unsigned i = 0; i <= RUN_DEPTH_MAX; i++) {
            free(w->levels[i]);
        }
        free(w->beside);
        free(w->out);
        free(w);
    }
}

bool tt_run_writer_failed(const struct run_writer *w)
{
    return w->failed;
}

static void fail(struct run_writer *w, int code, int os_errno, const char *what)
{
    if (!w->failed) {
        w->failed = tt_fail(&w->err, code, os_errno, "%s", what);
    }
}

/* ---- pages ------------------------------------------------------------- */

static void sink_write(struct run_writer *w, uint64_t offset, const void *buf,
                       size_t length)
{
    int ret;

    if (w->failed) {
        return;
    }
    ret = w->sink->write(w->sink->opaque, offset, buf, length);
    if (ret < 0) {
        w->failed = tt_fail(&w->err, TT_EIO, -ret,
                            "cannot write to the index: %s", strerror(-ret));
    }
}

static void flush_out(struct run_writer *w)
{
    if (w->out_count) {
        sink_write(w, w->out_first * TT_PAGE, w->out,
                   (size_t)w->out_count * TT_PAGE);
        w->out_first += w->out_count;
        w->out_count = 0;
    }
}

/* The next page of the run, zeroed, to be filled and given to end_page(). */
static uint8_t *begin_page(struct run_writer *w)
{
    uint8_t *page;

    if (w->out_count == OUT_PAGES) {
        flush_out(w);
    }
    page = w->out + (size_t)w->out_count * TT_PAGE;
    memset(page, 0, TT_PAGE);
    return page;
}

static uint64_t end_page(struct run_writer *w, uint8_t *page)
{
    tt_le64 sum = tt_put64(tt_run_page_sum(w->head.id, w->next_page, page));

    memcpy(page, &sum, sizeof(sum));
    w->out_count++;
    return w->next_page++;
}

static unsigned width_of(const struct span *s)
{
    uint64_t range = s->most - s->least;

    return range ? (unsigned)(71 - __builtin_clzll(range)) / 8 : 0;
}

static inline uint8_t *put_column(uint8_t *at, const struct filling *f,
                                  unsigned c, unsigned i, unsigned width)
{
    tt_le64 v = tt_put64(f->columns[c].values[i] - f->spans[c].least);

    memcpy(at, &v, sizeof(v)); /* the rest is overwritten, or is free */
    return at + width;
}

static void encode_rows(const struct filling *f, struct run_shape s,
                        const unsigned widths[COLUMNS], uint8_t *at)
{
    for (unsigned i = 0; i < f->count; i++) {
        at = put_column(at, f, START, i, widths[START]);
        at = put_column(at, f, SEQ, i, widths[SEQ]);
        at = put_column(at, f, PLACE, i, widths[PLACE]);
        if (s.cell) {
            *at++ = f->cells[i];
        }
        if (s.sum) {
            tt_le64 sum = tt_put64(f->sums[i]);

            memcpy(at, &sum, sizeof(sum));
            at += sizeof(sum);
        }
    }
    memset(at, 0, sizeof(tt_le64)); /* what the last column left */
}

static uint64_t write_rows(struct run_writer *w, const struct filling *f,
                           bool leaf)
{
    unsigned widths[COLUMNS] = { width_of(&f->spans[START]),
                                 width_of(&f->spans[SEQ]),
                                 width_of(&f->spans[PLACE]) };
    uint8_t *page = begin_page(w);
    struct run_page_head h = {
        .type = leaf ? RUN_PAGE_LEAF : RUN_PAGE_INNER,
        .start_width = (uint8_t)widths[START],
        .seq_width = (uint8_t)widths[SEQ],
        .place_width = (uint8_t)widths[PLACE],
        .count = tt_put16((uint16_t)f->count),
        .lane = tt_put16((uint16_t)w->lane),
        .start_base = tt_put64(f->spans[START].least),
        .seq_base = tt_put64(f->spans[SEQ].least),
        .place_base = tt_put64(f->spans[PLACE].least),
    };

    memcpy(page, &h, sizeof(h));
    encode_rows(f, leaf ? w->leaf : w->inner, widths, page + sizeof(h));
    return end_page(w, page);
}

static void write_beside(struct run_writer *w, size_t count)
{
    for (size_t at = 0; at < count;) {
        uint8_t *page = begin_page(w);
        struct run_sums_head h = { .type = RUN_PAGE_SUMS };
        size_t n = count - at < RUN_SUMS_A_PAGE ? count - at : RUN_SUMS_A_PAGE;

        memcpy(page, &h, sizeof(h));
        memcpy(page + sizeof(h), w->beside + at, n * sizeof(tt_le64));
        end_page(w, page);
        at += n;
    }
}

/* ---- filling ----------------------------------------------------------- */

/* How many rows have room in a page with these widths */
static unsigned rows_in_page(const struct run_shape *s, const unsigned *widths)
{
    unsigned size = widths[START] + widths[SEQ] + widths[PLACE] +
                    (s->cell ? 1 : 0) + (s->sum ? 8 : 0);
    unsigned n = RUN_ROWS_MAX;

    if (size && n > RUN_PAGE_ROOM / size) {
        n = RUN_PAGE_ROOM / size;
    }
    if (s->beside && n > RUN_SUM_PAGES_MAX * RUN_SUMS_A_PAGE / s->beside) {
        n = RUN_SUM_PAGES_MAX * RUN_SUMS_A_PAGE / s->beside;
    }
    return n;
}

/* Is there room for a row whose values may make columns wider?  Makes it. */
static bool widen(struct filling *f, const struct run_shape *s,
                  const uint64_t values[COLUMNS])
{
    struct span spans[COLUMNS];
    unsigned widths[COLUMNS], room;

    for (unsigned c = 0; c < COLUMNS; c++) {
        uint64_t v = values[c];

        spans[c] = f->count ? f->spans[c] : (struct span){ v, v };
        spans[c].least = v < spans[c].least ? v : spans[c].least;
        spans[c].most = v > spans[c].most ? v : spans[c].most;
        widths[c] = width_of(&spans[c]);
    }
    room = rows_in_page(s, widths);
    if (f->count >= room) {
        return false;
    }
    for (unsigned c = 0; c < COLUMNS; c++) {
        f->spans[c] = spans[c];
    }
    f->reach = widths[START] == 8 ? UINT64_MAX
                                  : (UINT64_C(1) << 8 * widths[START]) - 1;
    f->room = room;
    return true;
}

static inline bool in_span(const struct span *s, uint64_t v)
{
    return v - s->least <= s->most - s->least;
}

/*
 * As widen(); mostly there is nothing to reckon: starts come in order and go
 * a little further each, the rest is between what there was.
 */
static inline bool make_room(struct filling *f, const struct run_shape *s,
                             const uint64_t values[COLUMNS])
{
    struct span *start = &f->spans[START];

    if (!f->count || f->count >= f->room ||
        values[START] - start->least > f->reach ||
        !in_span(&f->spans[SEQ], values[SEQ]) ||
        !in_span(&f->spans[PLACE], values[PLACE])) {
        return widen(f, s, values);
    }
    if (values[START] > start->most) {
        start->most = values[START];
    }
    return true;
}

static void add_row(struct run_writer *w, unsigned level,
                    const struct run_row *row);

/* Writes what is in the page of @level, and tells the level above. */
static uint64_t close_page(struct run_writer *w, unsigned level, bool tell)
{
    struct filling *f = w->levels[level];
    const struct run_shape *s = level == 0 ? &w->leaf : &w->inner;
    uint64_t number = write_rows(w, f, level == 0);
    struct run_row up = {
        .start = f->columns[START].values[0] << s->start_shift,
        .seq = f->columns[SEQ].values[0],
        .place = number,
    };

    if (level == 0) {
        write_beside(w, (size_t)f->count * s->beside);
    }
    f->count = 0;
    f->written++;
    if (tell) {
        add_row(w, level + 1, &up);
    }
    return number;
}

static bool has_level(struct run_writer *w, unsigned level)
{
    if (level > RUN_DEPTH_MAX) {
        fail(w, TT_EINVAL, 0, "the index is too large");
    } else if (!w->levels[level]) {
        w->levels[level] = calloc(1, sizeof(struct filling));
        if (!w->levels[level]) {
            fail(w, TT_ENOMEM, ENOMEM, "out of memory");
        }
    }
    return !w->failed;
}

static void add_row(struct run_writer *w, unsigned level,
                    const struct run_row *row)
{
    const struct run_shape *s = level == 0 ? &w->leaf : &w->inner;
    const uint64_t values[COLUMNS] = { row->start >> s->start_shift, row->seq,
                                       row->place >> s->place_shift };
    struct filling *f;

    if (w->failed || !has_level(w, level)) {
        return;
    }
    f = w->levels[level];
    if (!make_room(f, s, values)) {
        close_page(w, level, true);
        make_room(f, s, values);
    }
    f->columns[START].values[f->count] = values[START];
    f->columns[SEQ].values[f->count] = values[SEQ];
    f->columns[PLACE].values[f->count] = values[PLACE];
    f->cells[f->count] = row->cell;
    f->sums[f->count] = row->sum;
    f->count++;
}

static void end_lane(struct run_writer *w)
{
    struct run_lane_head *l = &w->head.lanes[w->lane_count];
    unsigned level = 0;

    w->in_lane = false;
    if (!w->lane_entries || w->failed) {
        return;
    }
    /* the root is the one page of its level */
    while (!w->failed && w->levels[level]->written) {
        if (w->levels[level]->count) {
            close_page(w, level, true);
        }
        level++;
    }
    if (w->failed) {
        return;
    }
    l->root = tt_put64(close_page(w, level, false));
    l->depth = (uint8_t)level;
    l->entries = tt_put64(w->lane_entries);
    l->id = tt_put16((uint16_t)w->lane);
    w->lane_count++;
}

void tt_run_writer_lane(struct run_writer *w, unsigned lane_id)
{
    if (w->in_lane) {
        end_lane(w);
    }
    if (w->lane_count == RUN_LANES_MAX) {
        fail(w, TT_EINVAL, 0, "the index has too many lanes");
        return;
    }
    w->in_lane = true;
    w->lane = lane_id;
    w->leaf = tt_run_shape(lane_id, true);
    w->inner = tt_run_shape(lane_id, false);
    w->lane_entries = 0;
    w->head.lanes[w->lane_count].first_page = tt_put64(w->next_page);
    for (unsigned i = 0; i <= RUN_DEPTH_MAX; i++) {
        if (w->levels[i]) {
            w->levels[i]->count = 0;
            w->levels[i]->written = 0;
        }
    }
}

void tt_run_writer_add(struct run_writer *w, const struct run_row *row,
                       const tt_le64 *sums)
{
    unsigned beside = w->leaf.beside;

    add_row(w, 0, row);
    if (beside && !w->failed) {
        /* the row is the last of the page that is being filled */
        memcpy(w->beside + (size_t)(w->levels[0]->count - 1) * beside, sums,
               beside * sizeof(*sums));
    }
    w->entries += w->lane >> 6 != RUN_TIMES;
    w->lane_entries++;
}

int tt_run_writer_end(struct run_writer *w, uint64_t chain,
                      struct tt_run_info *info, struct tt_error *err)
{
    uint8_t page[TT_PAGE] = { 0 };

    if (w->in_lane) {
        end_lane(w);
    }
    flush_out(w);
    memcpy(info->id, w->head.id, sizeof(info->id));
    info->pages = w->next_page;
    info->entries = w->entries;
    w->head.first_seq = tt_put64(info->first_seq);
    w->head.last_seq = tt_put64(info->last_seq);
    w->head.chain = tt_put64(chain);
    w->head.pages = tt_put64(info->pages);
    w->head.versions = tt_put64(info->versions);
    w->head.entries = tt_put64(info->entries);
    w->head.lane_count = tt_put32(w->lane_count);
    memcpy(page, &w->head, sizeof(w->head));
    info->checksum = tt_run_page_sum(w->head.id, 0, page);
    w->head.checksum = tt_put64(info->checksum);
    memcpy(page, &w->head.checksum, sizeof(w->head.checksum));
    sink_write(w, 0, page, sizeof(page));
    if (w->failed && err) {
        *err = w->err;
    }
    return w->failed;
}
