/*
 * Reading runs: see run.h
 *
 * A page has passed its checksum when it comes here.  That keeps accidents
 * out, and says nothing of whoever wrote the file: so each header is held to
 * its limits before it is used, and no page leads a look-up out of its run, or
 * in a circle.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* 12 classes with bytes and 22 of zeroes for pre-images, 12 and 54, times */
_Static_assert(RUN_LANES_MAX == 2 * PIECE_DATA_CLASSES + 22 + PIECE_CLASSES + 1,
               "each lane that there can be has room");
_Static_assert(sizeof(struct run_head) <= TT_PAGE, "the header is a page");
_Static_assert(sizeof(struct run_page_head) == 40, "no padding");

uint64_t tt_run_page_sum(const uint8_t id[static 16], uint64_t number,
                         const void *page)
{
    tt_le64 seed;

    memcpy(&seed, id, sizeof(seed));
    return tt_checksum((const uint8_t *)page + sizeof(tt_le64),
                       TT_PAGE - sizeof(tt_le64)) ^
           (tt_get64(seed) + number);
}

bool tt_run_page_ok(const struct tt_run_info *info, uint64_t number,
                    const void *page)
{
    tt_le64 sum;

    memcpy(&sum, page, sizeof(sum));
    return tt_get64(sum) == tt_run_page_sum(info->id, number, page) &&
           (number || tt_get64(sum) == info->checksum);
}

/* Pieces with bytes are no longer than a payload may be. */
static bool lane_id_possible(unsigned lane_id)
{
    unsigned kind = lane_id >> 6, c = lane_id & 63;

    return kind < RUN_KINDS && c < PIECE_CLASSES &&
           (!run_kind_has_sums(kind) || c < PIECE_DATA_CLASSES);
}

struct run_shape tt_run_shape(unsigned lane_id, bool leaf)
{
    unsigned kind = lane_id >> 6, c = lane_id & 63;
    struct run_shape s = { 0 };

    if (kind != RUN_TIMES) {
        s.start_shift = 9 + c;
    }
    if (leaf) {
        s.place_shift = 9;
        if (run_kind_has_sums(kind)) {
            s.cell = c < PIECE_GRID_CLASS;
            s.sum = c <= PIECE_GRID_CLASS;
            s.beside = s.sum ? 0 : piece_sums(c);
        }
    }
    return s;
}

/* ---- pages ------------------------------------------------------------- */

static int damaged(const struct tt_run *run, uint64_t number,
                   struct tt_error *err)
{
    return tt_fail(err, TT_EINDEX, EIO,
                   "the index is damaged: page %" PRIu64 " of the run of "
                   "records %" PRIu64 " to %" PRIu64,
                   number, run->info.first_seq, run->info.last_seq);
}

static int get_page(const struct tt_run *run, uint64_t number,
                    const void **ret_page, void **ret_pin, struct tt_error *err)
{
    int ret;

    if (number >= run->info.pages) {
        return damaged(run, number, err);
    }
    ret = run->pages.get(run->pages.opaque, number, ret_page, ret_pin);
    if (ret == -ENOMEM) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    if (ret < 0) {
        return tt_fail(err, TT_EINDEX, -ret,
                       "the index cannot be read: page %" PRIu64
                       " of the run of records %" PRIu64 " to %" PRIu64 ": %s",
                       number, run->info.first_seq, run->info.last_seq,
                       strerror(-ret));
    }
    return 0;
}

int tt_run_page_get(const struct tt_run *run, uint64_t number,
                    struct run_page *p, struct tt_error *err)
{
    const struct run_page_head *h;
    const void *page;
    int ret;

    *p = (struct run_page){ .run = run, .number = number };
    ret = get_page(run, number, &page, &p->pin, err);
    if (ret < 0) {
        return ret;
    }
    h = page;
    p->type = h->type;
    p->lane = tt_get16(h->lane);
    if (p->type != RUN_PAGE_SUMS && !lane_id_possible(p->lane)) {
        tt_run_page_put(p);
        return damaged(run, number, err);
    }
    if (p->type != RUN_PAGE_SUMS) {
        p->shape = tt_run_shape(p->lane, p->type == RUN_PAGE_LEAF);
    }
    p->rows = (const uint8_t *)(h + 1);
    p->count = tt_get16(h->count);
    p->start_width = h->start_width;
    p->seq_width = h->seq_width;
    p->place_width = h->place_width;
    p->start_base = tt_get64(h->start_base);
    p->seq_base = tt_get64(h->seq_base);
    p->place_base = tt_get64(h->place_base);
    p->row_size = p->start_width + p->seq_width + p->place_width +
                  (p->shape.cell ? 1 : 0) + (p->shape.sum ? 8 : 0);
    if (p->type != RUN_PAGE_SUMS &&
        ((p->type != RUN_PAGE_LEAF && p->type != RUN_PAGE_INNER) || !p->count ||
         p->start_width > 8 || p->seq_width > 8 || p->place_width > 8 ||
         (size_t)p->count * p->row_size > RUN_PAGE_ROOM)) {
        tt_run_page_put(p);
        return damaged(run, number, err);
    }
    return 0;
}

void tt_run_page_put(struct run_page *p)
{
    p->run->pages.put(p->run->pages.opaque, p->pin);
}

static inline uint64_t column(const uint8_t *at, unsigned width)
{
    tt_le64 v;

    memcpy(&v, at, sizeof(v));
    return width == 8 ? tt_get64(v)
                      : tt_get64(v) & ((UINT64_C(1) << width * 8) - 1);
}

void tt_run_row(const struct run_page *p, unsigned i, struct run_row *ret)
{
    const uint8_t *at = p->rows + (size_t)i * p->row_size;

    ret->start = (p->start_base + column(at, p->start_width))
                 << p->shape.start_shift;
    at += p->start_width;
    ret->seq = p->seq_base + column(at, p->seq_width);
    at += p->seq_width;
    ret->place = (p->place_base + column(at, p->place_width))
                 << p->shape.place_shift;
    at += p->place_width;
    ret->cell = p->shape.cell ? *at++ : 0;
    ret->sum = p->shape.sum ? column(at, 8) : 0;
}

/* How many of the rows [@from, @end) are at or before (start, seq)?  Plus
 * @from. */
static unsigned rows_until(const struct run_page *p, unsigned from,
                           unsigned end, uint64_t start, uint64_t seq)
{
    uint64_t s = start >> p->shape.start_shift;

    if (s < p->start_base) {
        return from;
    }
    s -= p->start_base;
    while (from < end) {
        unsigned mid = from + (end - from) / 2;
        const uint8_t *at = p->rows + (size_t)mid * p->row_size;
        uint64_t v = column(at, p->start_width);

        if (v < s ||
            (v == s &&
             p->seq_base + column(at + p->start_width, p->seq_width) <= seq)) {
            from = mid + 1;
        } else {
            end = mid;
        }
    }
    return from;
}

/* Is row @i at or before (start, seq)? */
static bool is_until(const struct run_page *p, unsigned i, uint64_t start,
                     uint64_t seq)
{
    return rows_until(p, i, i + 1, start, seq) > i;
}

/*
 * As rows_until() for all rows, found in steps that double from @near on: it
 * is where the search of a place before this one has ended.
 */
static unsigned rows_near(const struct run_page *p, unsigned near,
                          uint64_t start, uint64_t seq)
{
    unsigned from = near, step = 1;

    if (near > p->count || (near && !is_until(p, near - 1, start, seq))) {
        return rows_until(p, 0, p->count, start, seq);
    }
    while (step <= p->count - from &&
           is_until(p, from + step - 1, start, seq)) {
        from += step;
        step *= 2;
    }
    return rows_until(p, from, step < p->count - from ? from + step : p->count,
                      start, seq);
}

static uint64_t row_start(const struct run_page *p, unsigned i)
{
    return (p->start_base +
            column(p->rows + (size_t)i * p->row_size, p->start_width))
           << p->shape.start_shift;
}

/* ---- searching --------------------------------------------------------- */

/* The page below row @i of an inner page lies before it in the file. */
static int child(const struct run_page *p, unsigned i, uint64_t *ret_page,
                 struct tt_error *err)
{
    struct run_row row;

    tt_run_row(p, i, &row);
    if (row.place >= p->number) {
        return damaged(p->run, p->number, err);
    }
    *ret_page = row.place;
    return 0;
}

static int get_level(const struct tt_run *run, const struct run_lane *lane,
                     uint64_t number, unsigned level, struct run_page *p,
                     struct tt_error *err)
{
    int ret = tt_run_page_get(run, number, p, err);

    if (ret == 0 && (p->lane != lane->id ||
                     p->type != (level ? RUN_PAGE_INNER : RUN_PAGE_LEAF))) {
        tt_run_page_put(p);
        ret = damaged(run, number, err);
    }
    return ret;
}

/* What the way down has passed on its right. */
struct passed {
    bool any;
    uint64_t start; /* of the first row of the page to the right */
    uint64_t page;  /* that page */
    unsigned level; /* its level */
};

/* Gets the leaf that (start, seq) belongs in, into *p. */
static int descend(const struct tt_run *run, const struct run_lane *lane,
                   uint64_t start, uint64_t seq, struct run_page *p,
                   struct passed *right, struct tt_error *err)
{
    uint64_t number = lane->root;

    right->any = false;
    for (unsigned level = lane->depth;; level--) {
        unsigned i;
        int ret = get_level(run, lane, number, level, p, err);

        if (ret < 0 || level == 0) {
            return ret;
        }
        i = rows_until(p, 0, p->count, start, seq);
        if (i < p->count) {
            right->any = true;
            right->start = row_start(p, i);
            right->level = level - 1;
            ret = child(p, i, &right->page, err);
        }
        if (ret == 0) {
            ret = child(p, i ? i - 1 : 0, &number, err);
        }
        tt_run_page_put(p);
        if (ret < 0) {
            return ret;
        }
    }
}

static void take_row(const struct run_page *p, unsigned i, struct run_hit *ret)
{
    tt_run_row(p, i, &ret->row);
    ret->found = true;
    ret->run = p->run;
    ret->page = p->number;
    ret->index = i;
}

/* The least start above @start; if *p ends before, what is to the right. */
static int next_start(const struct run_page *p, unsigned from, uint64_t start,
                      const struct passed *right, uint64_t *ret_next)
{
    unsigned i = rows_near(p, from, start, UINT64_MAX);

    *ret_next = UINT64_MAX;
    if (i < p->count) {
        *ret_next = row_start(p, i);
    } else if (right->any) {
        *ret_next = right->start;
    }
    return *ret_next > start;
}

/* The least start above @start, from the leaf that has the last of @start. */
static int look_behind(const struct tt_run *run, const struct run_lane *lane,
                       uint64_t start, uint64_t *ret_next, struct tt_error *err)
{
    struct run_page p;
    struct passed right;
    int r = descend(run, lane, start, UINT64_MAX, &p, &right, err);

    if (r == 0) {
        next_start(&p, 0, start, &right, ret_next);
        tt_run_page_put(&p);
    }
    return r;
}

static uint64_t round_start(const struct run_lane *lane, uint64_t start)
{
    struct run_shape s = tt_run_shape(lane->id, true);

    return start >> s.start_shift << s.start_shift;
}

void tt_run_memo_clear(struct run_memo *memo)
{
    if (memo->leaf) {
        tt_run_page_put(&memo->page);
    }
    *memo = (struct run_memo){ 0 };
}

/*
 * The search ends at row @i of what find_leaf() has got; @memo goes on holding
 * that, if it is its own.
 */
static void leave_leaf(struct run_memo *memo, struct run_page *p, unsigned i)
{
    if (memo) {
        memo->index = i;
    }
    if (!memo || memo->leaf != p->number) {
        tt_run_page_put(p);
    }
}

/* As descend(), or straight to the leaf that @memo knows. */
static int find_leaf(const struct tt_run *run, const struct run_lane *lane,
                     uint64_t start, uint64_t seq, struct run_memo *memo,
                     struct run_page *p, struct passed *right,
                     struct tt_error *err)
{
    int ret;

    if (memo && memo->leaf && start >= memo->low && start <= memo->high) {
        *right = (struct passed){ .any = memo->high != UINT64_MAX,
                                  .start = memo->high + 1 };
        *p = memo->page;
        return 0;
    }
    ret = descend(run, lane, start, seq, p, right, err);
    if (memo && ret == 0) {
        if (memo->leaf) {
            tt_run_page_put(&memo->page);
        }
        /* all of it may be of the place 0, and go on in the next leaf */
        memo->leaf = right->any && !right->start ? 0 : p->number;
        memo->page = *p;
        memo->index = 0;
        memo->low = p->number == lane->first_page ? 0 : row_start(p, 0) + 1;
        memo->high = right->any ? right->start - 1 : UINT64_MAX;
    }
    return ret;
}

/* Does @memo know that nothing is to be found at @start? */
static bool is_absent(const struct run_memo *memo, uint64_t start,
                      struct run_hit *ret)
{
    if (!memo || start < memo->from || start >= memo->next) {
        return false;
    }
    *ret = (struct run_hit){ .next = memo->next };
    return true;
}

static void note_absent(struct run_memo *memo, uint64_t start,
                        const struct run_hit *hit)
{
    if (memo) {
        memo->from = hit->found && hit->row.start == start ? start + 1 : start;
        memo->next = hit->next;
    }
}

int tt_run_floor(const struct tt_run *run, const struct run_lane *lane,
                 uint64_t start, uint64_t seq, struct run_memo *memo,
                 struct run_hit *ret, struct tt_error *err)
{
    struct run_page p;
    struct passed right;
    unsigned i;
    bool known;
    int r;

    start = round_start(lane, start);
    if (is_absent(memo, start, ret)) {
        return 0;
    }
    r = find_leaf(run, lane, start, seq, memo, &p, &right, err);
    *ret = (struct run_hit){ 0 };
    if (r < 0) {
        return r;
    }
    i = rows_near(&p, memo ? memo->index : 0, start, seq);
    if (i > 0) {
        take_row(&p, i - 1, ret);
    } else if (p.number != lane->first_page) {
        /* only the leftmost leaf may begin behind what is looked for */
        r = damaged(run, p.number, err);
    }
    known = next_start(&p, i, start, &right, &ret->next);
    leave_leaf(memo, &p, i);
    if (r == 0 && !known) {
        /* versions of this place go on in the next leaf */
        r = look_behind(run, lane, start, &ret->next, err);
    }
    if (r == 0) {
        note_absent(memo, start, ret);
    }
    return r;
}

/* Goes down to the leftmost leaf below @page and looks at its first row. */
static int leftmost(const struct tt_run *run, const struct run_lane *lane,
                    uint64_t page, unsigned level, struct run_hit *ret,
                    struct tt_error *err)
{
    for (;; level--) {
        struct run_page p;
        int r = get_level(run, lane, page, level, &p, err);

        if (r < 0) {
            return r;
        }
        if (level == 0) {
            take_row(&p, 0, ret);
        } else {
            r = child(&p, 0, &page, err);
        }
        tt_run_page_put(&p);
        if (r < 0 || level == 0) {
            return r;
        }
    }
}

int tt_run_first(const struct tt_run *run, const struct run_lane *lane,
                 uint64_t start, struct run_memo *memo, struct run_hit *ret,
                 struct tt_error *err)
{
    struct run_page p;
    struct passed right;
    bool known;
    unsigned i;
    int r;

    start = round_start(lane, start);
    if (is_absent(memo, start, ret)) {
        return 0;
    }
    r = find_leaf(run, lane, start, 0, memo, &p, &right, err);
    *ret = (struct run_hit){ 0 };
    if (r < 0) {
        return r;
    }
    i = rows_near(&p, memo ? memo->index : 0, start, 0);
    if (i < p.count && row_start(&p, i) == start) {
        take_row(&p, i, ret);
    }
    known = next_start(&p, i, start, &right, &ret->next);
    leave_leaf(memo, &p, i);
    if (!known) {
        /* they begin, or go on, in the next leaf, if there is one */
        if (!right.any) {
            return damaged(run, lane->root, err);
        }
        if (!ret->found) {
            r = leftmost(run, lane, right.page, right.level, ret, err);
        }
        if (r == 0 && (!ret->found || ret->row.start != start)) {
            r = damaged(run, lane->root, err);
        }
        if (r == 0) {
            r = look_behind(run, lane, start, &ret->next, err);
        }
    }
    if (r == 0) {
        note_absent(memo, start, ret);
    }
    return r;
}

int tt_run_sums(const struct run_hit *hit, unsigned c, unsigned first,
                unsigned count, tt_le64 *ret_sums, struct tt_error *err)
{
    uint64_t at = (uint64_t)hit->index * piece_sums(c) + first;

    if (c <= PIECE_GRID_CLASS) {
        *ret_sums = tt_put64(hit->row.sum);
        return 0;
    }
    while (count) {
        uint64_t number = hit->page + 1 + at / RUN_SUMS_A_PAGE;
        unsigned slot = at % RUN_SUMS_A_PAGE;
        unsigned n = RUN_SUMS_A_PAGE - slot;
        const void *page;
        void *pin;
        int ret = get_page(hit->run, number, &page, &pin, err);

        if (ret < 0) {
            return ret;
        }
        if (n > count) {
            n = count;
        }
        if (((const struct run_sums_head *)page)->type == RUN_PAGE_SUMS) {
            memcpy(ret_sums,
                   (const uint8_t *)page + sizeof(struct run_sums_head) +
                       slot * sizeof(tt_le64),
                   n * sizeof(tt_le64));
        } else {
            ret = damaged(hit->run, number, err);
        }
        hit->run->pages.put(hit->run->pages.opaque, pin);
        if (ret < 0) {
            return ret;
        }
        ret_sums += n;
        at += n;
        count -= n;
    }
    return 0;
}

/* ---- opening ----------------------------------------------------------- */

static bool lane_possible(const struct run_lane *l, const struct run_lane *prev)
{
    return lane_id_possible(l->id) && (!prev || l->id > prev->id) &&
           l->depth <= RUN_DEPTH_MAX &&
           l->first_page >= (prev ? prev->first_page + 1 : 1) && l->entries;
}

static bool decode_lanes(struct tt_run *run, const struct run_head *h)
{
    uint64_t end = run->info.pages;

    for (unsigned i = 0; i < run->lane_count; i++) {
        struct run_lane *l = &run->lanes[i];

        *l = (struct run_lane){
            .id = tt_get16(h->lanes[i].id),
            .depth = h->lanes[i].depth,
            .first_page = tt_get64(h->lanes[i].first_page),
            .root = tt_get64(h->lanes[i].root),
            .entries = tt_get64(h->lanes[i].entries),
        };
        if (!lane_possible(l, i ? l - 1 : NULL)) {
            return false;
        }
        for (unsigned k = l->id >> 6; k < RUN_KINDS; k++) {
            run->first_lane[k + 1] = i + 1;
        }
    }
    for (unsigned i = run->lane_count; i > 0; i--) {
        struct run_lane *l = &run->lanes[i - 1];

        l->end_page = end;
        end = l->first_page;
        if (l->root < l->first_page || l->root >= l->end_page) {
            return false;
        }
    }
    return true;
}

static bool head_fits(const struct run_head *h, const struct tt_run_info *info)
{
    return h->type == RUN_PAGE_HEADER && tt_get32(h->version) == RUN_VERSION &&
           !memcmp(h->magic, RUN_MAGIC, sizeof(h->magic)) &&
           !memcmp(h->id, info->id, sizeof(h->id)) &&
           tt_get64(h->checksum) == info->checksum &&
           tt_get64(h->first_seq) == info->first_seq &&
           tt_get64(h->last_seq) == info->last_seq &&
           tt_get64(h->pages) == info->pages &&
           tt_get64(h->versions) == info->versions &&
           tt_get64(h->entries) == info->entries &&
           tt_get32(h->lane_count) <= RUN_LANES_MAX;
}

int tt_run_open(const struct tt_run_info *info, const struct tt_pages *pages,
                struct tt_run **ret_run, struct tt_error *err)
{
    struct tt_run probe = { .info = *info, .pages = *pages };
    const struct run_head *h;
    const void *page;
    struct tt_run *run = NULL;
    void *pin;
    int ret = get_page(&probe, 0, &page, &pin, err);

    if (ret < 0) {
        return ret;
    }
    h = page;
    if (head_fits(h, info)) {
        unsigned n = tt_get32(h->lane_count);

        run = calloc(1, sizeof(*run) + n * sizeof(run->lanes[0]));
        if (!run) {
            ret = tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
        } else {
            *run = probe;
            run->lane_count = n;
            memcpy(run->uuid, h->uuid, TT_UUID_SIZE);
            run->chain = tt_get64(h->chain);
            if (!decode_lanes(run, h)) {
                free(run);
                run = NULL;
            }
        }
    }
    pages->put(pages->opaque, pin);
    if (ret == 0 && !run) {
        ret = damaged(&probe, 0, err);
    }
    *ret_run = run;
    return ret;
}

void tt_run_close(struct tt_run *run)
{
    free(run);
}

const struct tt_run_info *tt_run_info(const struct tt_run *run)
{
    return &run->info;
}
