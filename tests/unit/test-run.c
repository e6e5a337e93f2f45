/*
 * Runs: is each row found, merged or not, and is damage told?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "unit.h"

#include "../../journal/run.h"
#include "simindex.h"

#define ROWS_MAX 150000u

/* A lane's rows, and how they come about */
struct lane {
    unsigned id;
    unsigned places;   /* how many starts there are */
    uint64_t step;     /* from one to the next; 0: of the class */
    uint64_t seq_step; /* so much more a row, at most */
    unsigned rows;
};

static const struct lane lanes[] = {
    { 0 << 6 | 0, 100, 0, 3, 3000 },                /* pieces of a sector */
    { 0 << 6 | 2, 7, 0, 900, 20000 },               /* hot blocks, in cells */
    { 0 << 6 | 3, 100000, 0, 2, ROWS_MAX },         /* 4 KiB */
    { 0 << 6 | 4, 30, UINT64_C(1) << 50, 5, 4000 }, /* checksums beside */
    { 0 << 6 | 11, 900, 0, 1, 1000 },
    { 1 << 6 | 3, 1, 0, 1, 9000 }, /* nothing but numbers differ */
    { 1 << 6 | 53, 1, 0, 7, 20 },
    { 2 << 6 | 3, 3000, 0, 5, 3000 },
    { 3 << 6 | 21, 12, 0, 5, 30 },
    { 4 << 6 | 0, 8000, 513, 1, 8000 }, /* times */
};
#define LANES (sizeof(lanes) / sizeof(lanes[0]))

struct rows {
    struct run_row *row;
    tt_le64 *sums;
    unsigned count;
};

static int compare(const void *a, const void *b)
{
    const struct run_row *x = a, *y = b;

    if (x->start != y->start) {
        return x->start < y->start ? -1 : 1;
    }
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static uint64_t step_of(const struct lane *l)
{
    return l->step ? l->step : piece_size(l->id & 63);
}

/* Random rows of @l with numbers above *seq, sorted. */
static struct rows make_rows(struct sim_world *w, const struct lane *l,
                             unsigned count, uint64_t *seq)
{
    struct run_shape s = tt_run_shape(l->id, true);
    struct rows r = { .count = count };

    r.row = calloc(count, sizeof(*r.row));
    r.sums = calloc((size_t)count * (s.beside + 1), sizeof(*r.sums));
    for (unsigned i = 0; i < count; i++) {
        *seq += 1 + sim_random(w, l->seq_step);
        r.row[i].start = step_of(l) * sim_random(w, l->places);
        r.row[i].seq = *seq;
        if (l->id >> 6 == RUN_TIMES) {
            r.row[i].start = *seq * step_of(l);
        }
        if (run_kind_has_sums(l->id >> 6) || l->id >> 6 == RUN_TIMES) {
            r.row[i].place = TT_SECTOR * (1 + sim_random(w, 1u << 30));
        }
        r.row[i].cell = s.cell ? (uint8_t)sim_random(w, 64) : 0;
        r.row[i].sum = s.sum ? *seq * UINT64_C(0x9e3779b97f4a7c15) : 0;
    }
    qsort(r.row, count, sizeof(*r.row), compare);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < s.beside; k++) {
            r.sums[(size_t)i * s.beside + k] = tt_put64(r.row[i].seq << 9 | k);
        }
    }
    return r;
}

static void free_rows(struct rows *r)
{
    free(r->row);
    free(r->sums);
}

static int sink_write(void *opaque, uint64_t offset, const void *buf,
                      size_t length)
{
    struct si_file *f = opaque;

    if (offset + length > f->room) {
        f->room = (offset + length) * 2;
        f->bytes = realloc(f->bytes, f->room);
        ck_assert_ptr_nonnull(f->bytes);
    }
    memcpy(f->bytes + offset, buf, length);
    f->length = f->length < offset + length ? offset + length : f->length;
    return 0;
}

static const uint8_t uuid[TT_UUID_SIZE] = "a journal";

static struct si_file *new_file(uint8_t id)
{
    struct si_file *f = calloc(1, sizeof(*f));

    ck_assert_ptr_nonnull(f);
    memset(f->id, id, sizeof(f->id));
    return f;
}

static void free_file(struct si_file *f)
{
    ck_assert_uint_eq(f->pins, 0);
    free(f->bytes);
    free(f);
}

static void write_run(struct si_file *f, const struct rows *rows,
                      struct tt_run_info *info)
{
    struct tt_sink sink = { sink_write, f };
    struct run_writer *w = tt_run_writer_new(f->id, uuid, &sink);
    struct tt_error err = { 0 };

    ck_assert_ptr_nonnull(w);
    for (size_t i = 0; i < LANES; i++) {
        struct run_shape s = tt_run_shape(lanes[i].id, true);

        if (!rows[i].count) {
            continue;
        }
        tt_run_writer_lane(w, lanes[i].id);
        for (unsigned k = 0; k < rows[i].count; k++) {
            tt_run_writer_add(w, &rows[i].row[k],
                              rows[i].sums + (size_t)k * s.beside);
        }
    }
    ck_assert_msg(tt_run_writer_end(w, 77, info, &err) == 0, "%s", err.message);
    tt_run_writer_free(w);
    ck_assert_uint_eq(f->length, info->pages * TT_PAGE);
}

static struct tt_run *open_run(struct si_file *f,
                               const struct tt_run_info *info)
{
    struct tt_pages pages = si_pages(f);
    struct tt_error err = { 0 };
    struct tt_run *run;

    ck_assert_msg(tt_run_open(info, &pages, &run, &err) == 0, "%s",
                  err.message);
    return run;
}

static const struct run_lane *lane_of(const struct tt_run *run, unsigned id)
{
    for (unsigned i = 0; i < run->lane_count; i++) {
        if (run->lanes[i].id == id) {
            return &run->lanes[i];
        }
    }
    return NULL;
}

/* ---- what must be found ------------------------------------------------ */

static void same_row(const struct run_row *a, const struct run_row *b)
{
    ck_assert_uint_eq(a->start, b->start);
    ck_assert_uint_eq(a->seq, b->seq);
    ck_assert_uint_eq(a->place, b->place);
    ck_assert_uint_eq(a->cell, b->cell);
    ck_assert_uint_eq(a->sum, b->sum);
}

/* How many rows are at or before (start, seq)? */
static unsigned rank(const struct rows *r, uint64_t start, uint64_t seq)
{
    struct run_row key = { .start = start, .seq = seq };
    unsigned low = 0, high = r->count;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (compare(&r->row[mid], &key) <= 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static void check_sums(const struct run_hit *hit, const struct lane *l,
                       struct sim_world *w)
{
    unsigned n = piece_sums(l->id & 63);
    unsigned first = (unsigned)sim_random(w, n);
    unsigned count = 1 + (unsigned)sim_random(w, n - first);
    tt_le64 sums[256];
    struct tt_error err = { 0 };

    ck_assert_int_eq(tt_run_sums(hit, l->id & 63, first, count, sums, &err), 0);
    for (unsigned i = 0; i < count && n > 1; i++) {
        ck_assert_uint_eq(tt_get64(sums[i]), hit->row.seq << 9 | (first + i));
    }
}

static void check_look(const struct tt_run *run, const struct lane *l,
                       const struct rows *r, uint64_t start, uint64_t seq,
                       struct sim_world *w)
{
    const struct run_lane *lane = lane_of(run, l->id);
    unsigned n = rank(r, start, seq), next = rank(r, start, UINT64_MAX);
    unsigned first = rank(r, start, 0);
    uint64_t next_start = next < r->count ? r->row[next].start : UINT64_MAX;
    struct tt_error err = { 0 };
    struct run_hit hit;

    ck_assert_msg(tt_run_floor(run, lane, start, seq, NULL, &hit, &err) == 0,
                  "%s", err.message);
    ck_assert_int_eq(hit.found, n > 0);
    ck_assert_uint_eq(hit.next, next_start);
    if (n > 0) {
        same_row(&hit.row, &r->row[n - 1]);
        if (run_kind_has_sums(l->id >> 6)) {
            check_sums(&hit, l, w);
        }
    }
    ck_assert_msg(tt_run_first(run, lane, start, NULL, &hit, &err) == 0, "%s",
                  err.message);
    ck_assert_int_eq(hit.found, next > first);
    ck_assert_uint_eq(hit.next, next_start);
    if (hit.found) {
        same_row(&hit.row, &r->row[first]);
    }
}

/* Searches that go on from each other find the same as those that do not. */
static void check_memo(const struct tt_run *run, const struct lane *l,
                       struct sim_world *w)
{
    const struct run_lane *lane = lane_of(run, l->id);
    uint64_t unit = UINT64_C(1) << tt_run_shape(l->id, true).start_shift;

    for (unsigned i = 0; i < 30; i++) {
        uint64_t seq = 1 + sim_random(w, l->rows * (l->seq_step + 1));
        uint64_t start = step_of(l) * sim_random(w, l->places);
        struct run_memo floor = { 0 }, first = { 0 };

        for (unsigned k = 0; k < 100; k++) {
            struct tt_error err = { 0 };
            struct run_hit a, b;
            bool at;

            tt_run_floor(run, lane, start, seq, &floor, &a, &err);
            tt_run_floor(run, lane, start, seq, NULL, &b, &err);
            ck_assert_uint_eq(err.code, 0);
            /* that nothing is at this start may be all that is known */
            at = b.found && b.row.start == start;
            ck_assert_int_eq(a.found && a.row.start == start, at);
            ck_assert_uint_eq(a.next, b.next);
            ck_assert(!at || (a.row.seq == b.row.seq && a.page == b.page &&
                              a.index == b.index));
            tt_run_first(run, lane, start, &first, &a, &err);
            tt_run_first(run, lane, start, NULL, &b, &err);
            ck_assert_uint_eq(err.code, 0);
            ck_assert_int_eq(a.found, b.found);
            ck_assert_uint_eq(a.next, b.next);
            ck_assert(!a.found || (a.row.seq == b.row.seq && a.page == b.page));
            if (start > UINT64_MAX - 8 * unit) {
                break;
            }
            start += unit * sim_random(w, 4);
        }
        tt_run_memo_clear(&floor);
        tt_run_memo_clear(&first);
    }
}

static void check_lane(const struct tt_run *run, const struct lane *l,
                       const struct rows *r, struct sim_world *w)
{
    uint64_t unit = UINT64_C(1) << tt_run_shape(l->id, true).start_shift;

    for (unsigned i = 0; i < 3000; i++) {
        const struct run_row *row = &r->row[sim_random(w, r->count)];
        uint64_t start = row->start;
        uint64_t seq = row->seq + sim_random(w, 3) - 1;

        if (sim_chance(w, 20)) {
            start += unit * (sim_random(w, 3) - 1);
        }
        if (sim_chance(w, 10)) {
            seq = sim_chance(w, 50) ? UINT64_MAX : 0;
        }
        if (start <= UINT64_MAX - 2 * unit) {
            check_look(run, l, r, start, seq, w);
        }
    }
}

START_TEST(each_row_is_found)
{
    struct sim_world w;
    struct rows rows[LANES];
    struct tt_run_info info = { .first_seq = 1, .last_seq = 1000000 };
    struct si_file *f = new_file(7);
    struct tt_run *run;
    uint64_t entries = 0;

    sim_world_init(&w, 11);
    for (size_t i = 0; i < LANES; i++) {
        uint64_t seq = 0;

        rows[i] = make_rows(&w, &lanes[i], lanes[i].rows, &seq);
        entries += lanes[i].id >> 6 != RUN_TIMES ? rows[i].count : 0;
    }
    write_run(f, rows, &info);
    ck_assert_uint_eq(info.entries, entries);
    run = open_run(f, &info);
    ck_assert_uint_eq(run->lane_count, LANES);
    for (size_t i = 0; i < LANES; i++) {
        check_lane(run, &lanes[i], &rows[i], &w);
        check_memo(run, &lanes[i], &w);
        free_rows(&rows[i]);
    }
    /* hot blocks and the largest lane have pages above their leaves */
    ck_assert_uint_ge(lane_of(run, lanes[1].id)->depth, 1);
    ck_assert_uint_ge(lane_of(run, lanes[2].id)->depth, 2);
    tt_run_close(run);
    free_file(f);
}
END_TEST

/* ---- merging ----------------------------------------------------------- */

#define PARTS 9

START_TEST(merged_is_as_written_at_once)
{
    struct sim_world w;
    struct rows all[LANES] = { { 0 } };
    struct rows parts[PARTS][LANES] = { { { 0 } } };
    struct tt_run_info info[PARTS], merged, whole;
    struct si_file *files[PARTS], *f = new_file(1), *g = new_file(1);
    struct tt_run *runs[PARTS];
    struct tt_sink sink = { sink_write, f };
    struct tt_error err = { 0 };

    sim_world_init(&w, 12);
    for (size_t i = 0; i < LANES; i++) {
        uint64_t seq = 0;
        size_t beside = tt_run_shape(lanes[i].id, true).beside;

        all[i] = make_rows(&w, &lanes[i], lanes[i].rows, &seq);
        for (unsigned p = 0; p < PARTS; p++) {
            struct rows *r = &parts[p][i];
            uint64_t from = p * (seq / PARTS);
            uint64_t to = p + 1 < PARTS ? from + seq / PARTS : UINT64_MAX;

            r->row = calloc(all[i].count, sizeof(*r->row));
            r->sums = calloc(all[i].count * (beside + 1), sizeof(*r->sums));
            for (unsigned k = 0; k < all[i].count; k++) {
                if (all[i].row[k].seq > from && all[i].row[k].seq <= to) {
                    memcpy(r->sums + r->count * beside,
                           all[i].sums + k * beside, beside * sizeof(*r->sums));
                    r->row[r->count++] = all[i].row[k];
                }
            }
        }
    }
    for (unsigned p = 0; p < PARTS; p++) {
        info[p] = (struct tt_run_info){ .first_seq = p * 10 + 1,
                                        .last_seq = p * 10 + 10,
                                        .versions = 3 };
        files[p] = new_file((uint8_t)(p + 10));
        write_run(files[p], parts[p], &info[p]);
        runs[p] = open_run(files[p], &info[p]);
    }
    ck_assert_msg(tt_run_merge(runs, PARTS, f->id, &sink, &merged, &err) == 0,
                  "%s", err.message);
    whole = (struct tt_run_info){ .first_seq = 1,
                                  .last_seq = PARTS * 10,
                                  .versions = PARTS * 3 };
    write_run(g, all, &whole);
    ck_assert_uint_eq(merged.checksum, whole.checksum);
    ck_assert_uint_eq(f->length, g->length);
    ck_assert_int_eq(memcmp(f->bytes, g->bytes, f->length), 0);

    /* not adjacent */
    ck_assert_int_eq(tt_run_merge((struct tt_run *[]){ runs[0], runs[2] }, 2,
                                  f->id, &sink, &merged, &err),
                     -TT_EINDEX);
    for (unsigned p = 0; p < PARTS; p++) {
        tt_run_close(runs[p]);
        free_file(files[p]);
        for (size_t i = 0; i < LANES; i++) {
            free_rows(&parts[p][i]);
        }
    }
    for (size_t i = 0; i < LANES; i++) {
        free_rows(&all[i]);
    }
    free_file(f);
    free_file(g);
}
END_TEST

/* ---- damage ------------------------------------------------------------ */

/* A small run of all lanes. */
static struct si_file *small_run(struct sim_world *w, struct rows *rows,
                                 struct tt_run_info *info)
{
    struct si_file *f = new_file(3);

    *info = (struct tt_run_info){ .first_seq = 1, .last_seq = 5000 };
    for (size_t i = 0; i < LANES; i++) {
        uint64_t seq = 0;
        unsigned n = lanes[i].rows < 700 ? lanes[i].rows : 700;

        rows[i] = make_rows(w, &lanes[i], n, &seq);
    }
    write_run(f, rows, info);
    return f;
}

START_TEST(each_flipped_byte_is_seen)
{
    struct rows rows[LANES];
    struct tt_run_info info;
    struct sim_world w;
    struct si_file *f;

    sim_world_init(&w, 13);
    f = small_run(&w, rows, &info);
    for (uint64_t page = 0; page < info.pages; page++) {
        uint8_t *p = f->bytes + page * TT_PAGE;
        /* each byte of the first pages; of the others some */
        unsigned step = page < 12 ? 1 : 61;

        ck_assert(tt_run_page_ok(&info, page, p));
        for (unsigned i = 0; i < TT_PAGE; i += step) {
            uint8_t bit = (uint8_t)(1 << sim_random(&w, 8));

            p[i] ^= bit;
            ck_assert_msg(!tt_run_page_ok(&info, page, p), "page %llu byte %u",
                          (ull)page, i);
            p[i] ^= bit;
        }
        /* a page of another place, or of another run */
        ck_assert(!tt_run_page_ok(&info, page + 1, p));
        info.id[0] ^= 1;
        ck_assert(!tt_run_page_ok(&info, page, p));
        info.id[0] ^= 1;
    }
    for (size_t i = 0; i < LANES; i++) {
        free_rows(&rows[i]);
    }
    free_file(f);
}
END_TEST

static bool opens(struct si_file *f, const struct tt_run_info *info)
{
    struct tt_pages pages = si_pages(f);
    struct tt_run *run = NULL;
    struct tt_error err = { 0 };
    int ret = tt_run_open(info, &pages, &run, &err);

    ck_assert(ret == 0 || (ret == -TT_EINDEX && err.message[0]));
    tt_run_close(run);
    return ret == 0;
}

START_TEST(another_header_is_refused)
{
    struct rows rows[LANES];
    struct tt_run_info info, other;
    struct sim_world w;
    struct si_file *f;

    sim_world_init(&w, 14);
    f = small_run(&w, rows, &info);
    ck_assert(opens(f, &info));
#define OTHER(field)                                                           \
    other = info;                                                              \
    other.field++;                                                             \
    ck_assert_msg(!opens(f, &other), #field);
    OTHER(id[15])
    OTHER(pages)
    OTHER(first_seq)
    OTHER(last_seq)
    OTHER(versions)
    OTHER(entries)
    OTHER(checksum)
#undef OTHER
    /* cut short: pages that are not there */
    f->length = TT_PAGE - 1;
    ck_assert(!opens(f, &info));
    for (size_t i = 0; i < LANES; i++) {
        free_rows(&rows[i]);
    }
    free_file(f);
}
END_TEST

static void seal_page(struct si_file *f, uint64_t page)
{
    tt_le64 sum =
        tt_put64(tt_run_page_sum(f->id, page, f->bytes + page * TT_PAGE));

    memcpy(f->bytes + page * TT_PAGE, &sum, sizeof(sum));
}

/* Nor may a page say that it is of a lane that there cannot be. */
START_TEST(pages_of_impossible_lanes)
{
    static const unsigned kinds[] = { RUN_DATA, RUN_PRE_DATA };
    struct rows rows[LANES];
    struct tt_run_info info;
    struct tt_run *run;
    struct sim_world w;
    struct si_file *f;

    sim_world_init(&w, 16);
    f = small_run(&w, rows, &info);
    run = open_run(f, &info);
    for (unsigned c = PIECE_DATA_CLASSES; c < 64; c++) {
        uint64_t page = run->lanes[0].first_page;
        struct run_page p;
        struct run_page_head h;

        memcpy(&h, f->bytes + page * TT_PAGE, sizeof(h));
        h.lane = tt_put16((uint16_t)run_lane_id(kinds[c % 2], c));
        memcpy(f->bytes + page * TT_PAGE, &h, sizeof(h));
        seal_page(f, page);
        ck_assert_int_eq(tt_run_page_get(run, page, &p, NULL), -TT_EINDEX);
    }
    tt_run_close(run);
    for (size_t i = 0; i < LANES; i++) {
        free_rows(&rows[i]);
    }
    free_file(f);
}
END_TEST

/* What fits its checksum may still be nonsense: no look-up leaves the run. */
START_TEST(hostile_pages)
{
    struct rows rows[LANES];
    struct tt_run_info info;
    struct sim_world w;
    struct si_file *f;
    uint8_t *good;
    unsigned told = 0, opened = 0, rounds = unit_rounds(4000, 100);

    sim_world_init(&w, 15);
    f = small_run(&w, rows, &info);
    good = malloc(f->length);
    memcpy(good, f->bytes, f->length);
    for (unsigned round = 0; round < rounds; round++) {
        struct tt_run_info bad = info;
        struct tt_pages pages = si_pages(f);
        struct tt_run *run, *both[1];
        struct si_file *to = new_file(9);
        struct tt_sink sink = { sink_write, to };
        struct tt_run_info merged;
        struct tt_error err = { 0 };
        tt_le64 sum;

        for (unsigned n = 1 + (unsigned)sim_random(&w, 4); n > 0; n--) {
            uint64_t page = sim_chance(&w, 30) ? 0 : sim_random(&w, info.pages);
            unsigned most = sim_chance(&w, 70) ? 128 : TT_PAGE;

            f->bytes[page * TT_PAGE + 8 + sim_random(&w, most - 8)] =
                (uint8_t)(sim_chance(&w, 30) ? 255 : sim_random(&w, 256));
            seal_page(f, page);
        }
        memcpy(&sum, f->bytes, sizeof(sum));
        bad.checksum = tt_get64(sum);
        if (tt_run_open(&bad, &pages, &run, &err) == 0) {
            opened++;
            both[0] = run;
            told += tt_run_merge(both, 1, to->id, &sink, &merged, &err) < 0;
            for (unsigned i = 0; i < run->lane_count; i++) {
                struct run_memo memo = { 0 };

                for (unsigned k = 0; k < 20; k++) {
                    const struct rows *r = &rows[i % LANES];
                    const struct run_row *row =
                        &r->row[sim_random(&w, r->count)];
                    struct run_hit hit;
                    tt_le64 sums[256];
                    unsigned c = run->lanes[i].id & 63;

                    told += tt_run_floor(run, &run->lanes[i], row->start,
                                         row->seq, &memo, &hit, &err) < 0;
                    if (hit.found && run_kind_has_sums(run->lanes[i].id >> 6)) {
                        tt_run_sums(&hit, c, 0, piece_sums(c), sums, &err);
                    }
                    told += tt_run_first(run, &run->lanes[i], row->start, NULL,
                                         &hit, &err) < 0;
                }
                tt_run_memo_clear(&memo);
            }
            tt_run_close(run);
        }
        free_file(to);
        memcpy(f->bytes, good, f->length);
    }
    ck_assert_uint_gt(opened, rounds / 4);
    ck_assert_uint_gt(told, rounds / 14);
    for (size_t i = 0; i < LANES; i++) {
        free_rows(&rows[i]);
    }
    free(good);
    free_file(f);
}
END_TEST

/* A sink that fails is told, wherever it does. */
static int failing_write(void *opaque, uint64_t offset, const void *buf,
                         size_t length)
{
    (void)offset, (void)buf, (void)length;
    return (*(unsigned *)opaque)-- == 0 ? -28 : 0;
}

START_TEST(no_room)
{
    struct rows rows[LANES];
    struct tt_run_info info;
    struct sim_world w;
    struct si_file *f;
    struct tt_run *run;

    sim_world_init(&w, 16);
    f = small_run(&w, rows, &info);
    run = open_run(f, &info);
    for (unsigned nth = 0;; nth++) {
        unsigned left = nth;
        struct tt_sink sink = { failing_write, &left };
        struct tt_error err = { 0 };
        struct tt_run_info merged;
        int ret = tt_run_merge(&run, 1, f->id, &sink, &merged, &err);

        if (ret == 0) {
            ck_assert_uint_ge(nth, 2);
            break;
        }
        ck_assert_int_eq(ret, -TT_EIO);
        ck_assert_int_eq(err.os_errno, 28);
    }
    tt_run_close(run);
    for (size_t i = 0; i < LANES; i++) {
        free_rows(&rows[i]);
    }
    free_file(f);
}
END_TEST

int main(void)
{
    const TTest *const *const tests[] = {
        &each_row_is_found,
        &merged_is_as_written_at_once,
        &each_flipped_byte_is_seen,
        &another_header_is_refused,
        &pages_of_impossible_lanes,
        &hostile_pages,
        &no_room,
        NULL,
    };

    return unit_run("run", tests);
}
