/*
 * Runs: versions in pages, sorted
 *
 * A run is a file of pages.  Page 0 is its header.  Then, lane after lane, a
 * search tree over the lane's rows, written from left to right and bottom up:
 * whenever a page is full it goes out, and a row for it goes into the page
 * above.  So a writer needs memory for one page a level only.
 *
 * A lane holds the pieces of one class that have bytes in the journal, or that
 * are zero; of versions or of pre-images.  One more holds times.  Rows of a
 * lane are sorted by (start, seq):
 *
 *   lane         start             seq             place
 *   pieces       on the disk       of the record   of the bytes, in the journal
 *   times        a record's seq    its time        of its frame
 *   page above   of the first row of the page below, and the page's number
 *
 * In a page each column has a base and a width in bytes, the least that will
 * do.  Checksums of pieces up to 4 KiB are in their row, others in pages of
 * their own behind the leaf.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_RUN_H
#define TTJOURNAL_RUN_H

#include <ttjournal/index.h>

#include "piece.h"

#define RUN_MAGIC "TTJRUN\r\n"
#define RUN_VERSION 1u

enum run_kind {
    RUN_DATA,
    RUN_ZERO,
    RUN_PRE_DATA,
    RUN_PRE_ZERO,
    RUN_TIMES,
    RUN_KINDS,
};

#define RUN_LANES_MAX 101u /* by the limits of the format: see run.c */
#define RUN_DEPTH_MAX 12u
#define RUN_ROWS_MAX 1024u    /* in a page */
#define RUN_SUM_PAGES_MAX 16u /* behind a leaf */

static inline unsigned run_lane_id(unsigned kind, unsigned c)
{
    return kind << 6 | c;
}

static inline bool run_kind_has_sums(unsigned kind)
{
    return kind == RUN_DATA || kind == RUN_PRE_DATA;
}

enum { RUN_PAGE_HEADER = 1, RUN_PAGE_LEAF, RUN_PAGE_INNER, RUN_PAGE_SUMS };

struct run_lane_head {
    tt_le64 first_page; /* its pages end where those of the next lane begin */
    tt_le64 root;
    tt_le64 entries;
    tt_le16 id;
    uint8_t depth; /* pages above a leaf */
    uint8_t reserved[5];
};

struct run_head {
    tt_le64 checksum; /* of the page behind it */
    uint8_t type;
    uint8_t reserved[3];
    tt_le32 version;
    uint8_t magic[8];
    uint8_t id[16];
    uint8_t uuid[TT_UUID_SIZE]; /* of the journal */
    tt_le64 first_seq, last_seq;
    tt_le64 chain; /* of the last frame covered, or as far as is known */
    tt_le64 pages, versions, entries;
    tt_le32 lane_count;
    tt_le32 reserved2;
    struct run_lane_head lanes[RUN_LANES_MAX];
};

struct run_page_head {
    tt_le64 checksum; /* of the page behind it, seeded with its place */
    uint8_t type;
    uint8_t start_width, seq_width, place_width;
    tt_le16 count;
    tt_le16 lane;
    tt_le64 start_base, seq_base, place_base;
};

/* Rows are read eight bytes at a time: so much is left free at the end. */
#define RUN_PAGE_ROOM (TT_PAGE - sizeof(struct run_page_head) - 8)

struct run_sums_head {
    tt_le64 checksum;
    uint8_t type;
    uint8_t reserved[7];
};
#define RUN_SUMS_A_PAGE                                                        \
    ((TT_PAGE - sizeof(struct run_sums_head)) / sizeof(tt_le64))

/* What the checksum of page @number of the run @id must be. */
uint64_t tt_run_page_sum(const uint8_t id[static 16], uint64_t number,
                         const void *page);

/* Which units a lane's columns are counted in, and what its rows have. */
struct run_shape {
    unsigned start_shift, place_shift;
    bool cell;       /* one byte */
    bool sum;        /* in the row */
    unsigned beside; /* checksums a row in pages of their own */
};
struct run_shape tt_run_shape(unsigned lane_id, bool leaf);

struct run_row {
    uint64_t start, seq, place;
    uint64_t sum; /* if the row has one */
    uint8_t cell;
};

/* ---- reading ----------------------------------------------------------- */

struct run_lane {
    unsigned id, depth;
    uint64_t first_page, end_page, root, entries;
};

struct tt_run {
    struct tt_run_info info;
    uint8_t uuid[TT_UUID_SIZE];
    uint64_t chain;
    struct tt_pages pages;
    unsigned lane_count;
    unsigned first_lane[RUN_KINDS + 1]; /* of each kind */
    struct run_lane lanes[];
};

/* A page that is held, its header decoded and found possible. */
struct run_page {
    const struct tt_run *run;
    void *pin;
    uint64_t number;
    const uint8_t *rows;
    struct run_shape shape;
    unsigned type, lane, count, row_size;
    unsigned start_width, seq_width, place_width;
    uint64_t start_base, seq_base, place_base;
};

/* Gets a leaf or inner page; -TT_EINDEX. */
int tt_run_page_get(const struct tt_run *run, uint64_t number,
                    struct run_page *ret, struct tt_error *err);
void tt_run_page_put(struct run_page *p);
void tt_run_row(const struct run_page *p, unsigned i, struct run_row *ret);

/* Where a row was found. */
struct run_hit {
    bool found;
    struct run_row row;
    const struct tt_run *run;
    uint64_t page; /* of the leaf */
    unsigned index;
    uint64_t next; /* the least start above the one asked for, or UINT64_MAX */
};

/*
 * What one search of a lane tells the next one, whose start is near.  Zeroed
 * it tells nothing.
 */
struct run_memo {
    /* No row begins in [from, next) that the same kind of search would find */
    uint64_t from, next;
    /* Rows that begin in [low, high] are in this leaf, as far as there are */
    uint64_t leaf, low, high;
    struct run_page page; /* that one; held, unless leaf is 0 */
    unsigned index;       /* of the row in it where the last search ended */
};

/* Lets go of what @memo holds; it tells nothing then. */
void tt_run_memo_clear(struct run_memo *memo);

/* The last row that is at or before (start, seq).  @memo may be NULL. */
int tt_run_floor(const struct tt_run *run, const struct run_lane *lane,
                 uint64_t start, uint64_t seq, struct run_memo *memo,
                 struct run_hit *ret, struct tt_error *err);
/* The first row with exactly this start. */
int tt_run_first(const struct tt_run *run, const struct run_lane *lane,
                 uint64_t start, struct run_memo *memo, struct run_hit *ret,
                 struct tt_error *err);

/* The checksums [first, first + count) of the piece of @hit. */
int tt_run_sums(const struct run_hit *hit, unsigned c, unsigned first,
                unsigned count, tt_le64 *ret_sums, struct tt_error *err);

/* ---- writing ----------------------------------------------------------- */

struct run_writer;

struct run_writer *tt_run_writer_new(const uint8_t id[static 16],
                                     const uint8_t uuid[static TT_UUID_SIZE],
                                     const struct tt_sink *sink);
void tt_run_writer_free(struct run_writer *w);
/* Lanes in order of their number, rows in order of (start, seq). */
void tt_run_writer_lane(struct run_writer *w, unsigned lane_id);
/* @sums: of lanes that have them beside their rows. */
void tt_run_writer_add(struct run_writer *w, const struct run_row *row,
                       const tt_le64 *sums);
/*
 * Writes the rest and the header.  *info has first_seq, last_seq and versions,
 * and gets the rest.  Errors of all calls since _new() are told here.
 */
int tt_run_writer_end(struct run_writer *w, uint64_t chain,
                      struct tt_run_info *info, struct tt_error *err);
/* Has something failed already?  Then there is no point in going on. */
bool tt_run_writer_failed(const struct run_writer *w);

#endif
