/*
 * The index on disk: versions in immutable runs, and the small rest of history
 *
 * An index is a cache beside a journal: some runs, and one catalog that names
 * them and says which part of the journal they cover.  It covers whole
 * segments from the first one on, durable ones only; what lies behind is read
 * from the journal when it is opened, the tail.
 *
 *   run       versions sorted by place and sequence number, in pages of
 *             TT_PAGE bytes: a tree of fence keys, the places in the journal
 *             and the checksums of what lies there.  Written once.
 *   catalog   the runs, which are adjacent in history, in order; where to read
 *             on, with the chain value of the last frame that is covered; and
 *             the marks, sessions, epochs, damages, gaps and sizes of all that
 *             they cover.  It is replaced as a whole (write, then rename).
 *
 * Nothing here opens, locks or names files: pages come and go by callbacks.
 * An index is never trusted more than its journal.  A page counts only if its
 * checksum fits its place in its run; a catalog only if the journal still
 * holds, where it says, a frame with the chain value that it says.  Whatever
 * does not fit is -TT_EINDEX: forget the index, build it anew.
 *
 * What a user of an index does:
 *
 *     tt_catalog_decode()  the catalog's file
 *     tt_run_open()        each run that it names
 *     tt_history_open()    instead of tt_history_load(); then all of
 *                          tt_history_…, tt_moment_…, tt_view_… as ever
 *
 * and what builds or extends it, one process at a time:
 *
 *     tt_builder_new()     from a catalog, or from nothing
 *     tt_builder_fill()    reads on, as much as fits into memory
 *     tt_builder_write()   one run
 *     tt_merge_due(), tt_run_merge(), tt_catalog_merged()
 *     tt_catalog_encode()  and only then may old runs be unlinked
 *
 * Unless it says otherwise nothing is shared between calls: functions on
 * different objects may run in several threads, and any number of threads may
 * look into one run or history at once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_INDEX_ON_DISK_H
#define TTJOURNAL_INDEX_ON_DISK_H

#include "ttjournal.h"

/* ---- pages ------------------------------------------------------------- */

#define TT_PAGE 4096u

/*
 * Where the pages of a run come from.  get() returns 0 and the page (aligned
 * to 8 bytes, unchanged until put()), or a negative errno.  It must have
 * passed tt_run_page_ok() since it was read: the caller checks a page once,
 * when it enters a cache.  @pin is what put() is given; it may be NULL.  A
 * look-up holds one page at a time.  Called from any thread that looks up.
 */
struct tt_pages {
    int (*get)(void *opaque, uint64_t page, const void **ret_page,
               void **ret_pin);
    void (*put)(void *opaque, void *pin);
    void *opaque;
};

/* What the catalog knows of a run. */
struct tt_run_info {
    uint8_t id[16];     /* also in the run; random: its name, if one likes */
    uint64_t pages;     /* of TT_PAGE bytes, the header (page 0) included */
    uint64_t first_seq; /* the part of history that it covers */
    uint64_t last_seq;
    uint64_t versions; /* records that it tells of, in … */
    uint64_t entries;  /* … pieces */
    uint64_t checksum; /* of its header */
};

/*
 * Is @page, as read from the file, page number @number of the run @info?  Page
 * 0 is the header.
 */
bool tt_run_page_ok(const struct tt_run_info *info, uint64_t number,
                    const void *page);

struct tt_run; /* some hundred bytes, however large the run */

/*
 * Opens the run that the catalog calls @info; reads its header.  @pages is
 * copied; what it leads to must stay until tt_run_close().  -TT_EINDEX: it is
 * damaged, or another one.
 */
int tt_run_open(const struct tt_run_info *info, const struct tt_pages *pages,
                struct tt_run **ret_run, struct tt_error *err);
void tt_run_close(struct tt_run *run);
const struct tt_run_info *tt_run_info(const struct tt_run *run);

/* ---- writing runs ------------------------------------------------------ */

/*
 * Takes the bytes of a new run: in order of offset from TT_PAGE on, and page 0
 * at last.  0 or a negative errno, which stops the writing.
 */
struct tt_sink {
    int (*write)(void *opaque, uint64_t offset, const void *buf, size_t length);
    void *opaque;
};

/*
 * Merges @count runs, adjacent in history and in order, into one.  Memory is
 * bounded by their number, not by their size.  @id: random, for the new one.
 * -TT_EINDEX: one of them is damaged.  -TT_EIO: os_errno is the sink's.
 */
int tt_run_merge(struct tt_run *const *runs, size_t count,
                 const uint8_t id[static 16], const struct tt_sink *sink,
                 struct tt_run_info *ret_info, struct tt_error *err);

/* ---- the catalog ------------------------------------------------------- */

struct tt_catalog;

/* An empty one of this journal: it covers nothing. */
struct tt_catalog *tt_catalog_new(const struct tt_super *super);
void tt_catalog_free(struct tt_catalog *c);

/*
 * -TT_EINDEX if the bytes are not a whole catalog, are of another version of
 * the library, or of another journal than @super.
 */
int tt_catalog_decode(const void *buf, size_t length,
                      const struct tt_super *super, struct tt_catalog **ret,
                      struct tt_error *err);
/* The bytes, to be freed with free(); NULL: out of memory. */
uint8_t *tt_catalog_encode(const struct tt_catalog *c, size_t *ret_length);

/*
 * Does the journal still hold what @c covers?  0; -TT_EINDEX if not (it was
 * replaced, or cut short): build anew.  Reads one frame.
 */
int tt_catalog_check(const struct tt_catalog *c, const struct tt_source *src,
                     struct tt_error *err);

const struct tt_run_info *tt_catalog_runs(const struct tt_catalog *c,
                                          size_t *ret_count);
/* The last record that is covered (0: none), and where reading goes on. */
uint64_t tt_catalog_last_seq(const struct tt_catalog *c);
uint64_t tt_catalog_end_offset(const struct tt_catalog *c);

/* Is a merge due?  Then of the runs [*ret_first, *ret_first + *ret_count). */
bool tt_merge_due(const struct tt_catalog *c, size_t *ret_first,
                  size_t *ret_count);
/* Those runs are now the one with @info, from tt_run_merge(). */
void tt_catalog_merged(struct tt_catalog *c, size_t first, size_t count,
                       const struct tt_run_info *info);

/* ---- building ---------------------------------------------------------- */

struct tt_builder;

struct tt_builder_stats {
    uint64_t segments;     /* taken in … */
    uint64_t from_footers; /* … of these by their footers alone */
    uint64_t versions, entries;
    uint64_t journal_end; /* covered up to this offset of the journal */
    uint64_t journal_due; /* what can be covered at present ends here */
};

/*
 * Extends @catalog, which the builder owns from now on (NULL: out of memory,
 * and the caller still does).  @memory: about so many bytes are used for
 * versions that wait to be written; at least 1 MiB.  @src stays the caller's,
 * who raises its size as the journal grows.
 */
struct tt_builder *tt_builder_new(struct tt_catalog *catalog,
                                  const struct tt_source *src, size_t memory);
void tt_builder_free(struct tt_builder *b);

/*
 * Takes in one more segment, if a whole one is durable and fits into memory.
 *   1   one was taken in: go on (a good place to show progress)
 *   0   enough: write a run if tt_builder_pending(), then go on; if nothing
 *       was pending, all that can be covered is
 * Negative: -TT_EINDEX if the journal is not the one that the catalog covers.
 */
int tt_builder_fill(struct tt_builder *b, struct tt_error *err);
/*
 * Is there something to take in, up to tt_builder_stats' journal_due?  1 or 0.
 * That may be less than there is if it is at least @enough.
 */
int tt_builder_look(struct tt_builder *b, uint64_t enough,
                    struct tt_error *err);
/* Versions that wait to be written, or records without any. */
bool tt_builder_pending(const struct tt_builder *b);
/* Writes them as one run, which the catalog has now.  @id: random. */
int tt_builder_write(struct tt_builder *b, const uint8_t id[static 16],
                     const struct tt_sink *sink, struct tt_error *err);

/*
 * The catalog: complete while nothing is pending.  The caller may merge runs
 * in it between calls.
 */
struct tt_catalog *tt_builder_catalog(struct tt_builder *b);
void tt_builder_stats(const struct tt_builder *b,
                      struct tt_builder_stats *ret_stats);

/* ---- a history with an index ------------------------------------------- */

/*
 * As tt_history_load(), but what @catalog covers is not read: versions come
 * from @runs (one for each that it names, in order), the rest from @catalog,
 * which is copied.  @runs stay the caller's until tt_history_free() or the
 * next load.  So does @src, which is read by questions about times as well.
 * -TT_EINDEX: the index does not fit the journal; load without, build anew.
 */
int tt_history_open(struct tt_history *h, const struct tt_source *src,
                    const struct tt_catalog *catalog,
                    struct tt_run *const *runs, size_t run_count,
                    struct tt_error *err);
/*
 * Likewise, for who has just followed the journal to its end, which moves:
 * nothing is looked for behind that (struct tt_scan_ops).
 */
int tt_history_open_moving(struct tt_history *h, const struct tt_source *src,
                           const struct tt_catalog *catalog,
                           struct tt_run *const *runs, size_t run_count,
                           struct tt_error *err);

/* Bytes of memory that @h holds: the tail and the small rest. */
size_t tt_history_memory(const struct tt_history *h);

/* ---- reading ----------------------------------------------------------- */

/*
 * A part of a view.  Of a JOURNAL piece the bytes are in the journal, and fit
 * one checksum: read [at, at + cell_length), call tt_piece_ok(), then use
 * @length bytes from @skip on.  No other byte of the journal need be read.
 * Pieces that follow each other on the disk often do so in the journal: read
 * them at once.
 */
struct tt_piece {
    enum tt_extent_kind kind;
    uint64_t offset, length; /* of the disk: what it answers for */
    uint64_t record_seq;     /* as in struct tt_extent */
    uint64_t at;             /* JOURNAL: where its cell is */
    uint64_t checksum;       /* of the cell */
    uint16_t cell_length;    /* at most TT_GRID */
    uint16_t skip;           /* the piece's bytes in the cell */
};

static inline bool tt_piece_ok(const struct tt_piece *p, const void *cell)
{
    return tt_checksum(cell, p->cell_length) == p->checksum;
}

/*
 * What the disk held in [offset, offset + length) after the records up to
 * @seq, in order: at most @room pieces, from @offset on, without holes
 * between them.  JOURNAL pieces are of at most TT_GRID bytes.
 */
int tt_view_pieces(const struct tt_history *h, uint64_t seq, uint64_t offset,
                   uint64_t length, struct tt_piece *ret_pieces, size_t room,
                   size_t *ret_count, struct tt_error *err);

/*
 * Reads the JOURNAL and ZERO ones of @pieces to where they belong in @buf,
 * whose first byte is the disk's at @offset.  The others are left alone.
 */
int tt_pieces_read(const struct tt_history *h, const struct tt_source *src,
                   const struct tt_piece *pieces, size_t count, uint64_t offset,
                   void *buf, struct tt_error *err);

#endif
