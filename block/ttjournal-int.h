/*
 * ttjournal filter driver: what its files share
 *
 * The way of a write: ttjournal.c takes it from the guest, copies it, and has
 * ttjournal-append.c put it in the journal; then it goes to the disk.
 * ttjournal-open.c does everything from open to the first write, and close.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_TTJOURNAL_INT_H
#define BLOCK_TTJOURNAL_INT_H

#include "block/block_int.h"
#include "qemu/coroutine.h"
#include "qemu/queue.h"

#include <ttjournal/ttjournal.h>

/*
 * After a crash the disk's last change follows the journal's by what a write
 * takes.  More than this means that somebody else has changed the disk.
 */
#define MTIME_SLACK_NS (10 * NANOSECONDS_PER_SECOND)

/* One record on its way into the journal; lives on a coroutine's stack. */
typedef struct TTJEntry {
    struct tt_request req;
    bool to_disk; /* the disk is to be changed after this */
    bool done;    /* ret and seq are set */
    int ret;      /* 0 or -errno */
    uint64_t seq;
    uint64_t frame_offset;
    QSIMPLEQ_ENTRY(TTJEntry) next;    /* in pending */
    QTAILQ_ENTRY(TTJEntry) in_flight; /* in in_flight, if to_disk */
} TTJEntry;

/*
 * A write that is in the journal and that the disk refused.  Its buffer is
 * kept up to date with newer writes, so that writing it again is always right.
 */
typedef struct TTJRefused {
    uint64_t seq;
    int64_t offset, bytes;
    uint8_t *buf;
    QTAILQ_ENTRY(TTJRefused) next;
} TTJRefused;

/* A PREIMAGE that is in the journal but not yet durable there */
typedef struct TTJCapture {
    uint64_t seq;
    int64_t offset, bytes;
    QTAILQ_ENTRY(TTJCapture) next;
} TTJCapture;

/* Whose append needs room?  See ttjournal-grow.c, "The reserve". */
typedef enum TTJGrowFor {
    TTJ_GROW_FOR_GUEST, /* WRITE or ZERO, and a PREIMAGE that one waits for */
    TTJ_GROW_FOR_US,    /* whatever makes good what was acknowledged */
} TTJGrowFor;

/* Room behind the journal's end; all but what says otherwise under its lock */
typedef struct TTJGrowth {
    CoMutex lock;    /* not held during I/O: growing or zeroing says who does */
    CoQueue changed; /* growing or zeroing */
    bool ahead_given;
    uint64_t ahead;   /* how far room is made, and written, beyond the end */
    uint64_t reserve; /* what the guest must leave; the driver may raise it */

    bool known;     /* what follows */
    bool is_file;   /* a local file, which grows by being written */
    bool sparse;    /* it cannot allocate without writing */
    uint64_t room;  /* the journal's size, as long as we alone change it */
    uint64_t step;  /* how much room to try for next */
    uint64_t reach; /* no append was granted that ends above this; 0: none */
    bool growing;   /* the size is being changed */

    uint64_t zeroed;  /* what lies between reach and this is written */
    uint64_t zeroing; /* where a request that writes zeroes begins, or -1 */
    /* Zeroing begins when half of it is used up and goes on until all is. */
    bool filling;
    bool stuck; /* zeroing has failed: not again before the size changes */
    int64_t last_append;     /* ms */
    uint64_t zeroes_written; /* bytes, for whoever counts */
    uint8_t *zeroes;
    bool working; /* ttj_grow_later()'s coroutine runs; atomic */
} TTJGrowth;

typedef struct BDRVTtjournalState {
    BdrvChild *journal;
    TTJGrowth growth;

    /*
     * Protects everything below but what says otherwise.  Not held during
     * I/O: whoever does I/O first sets appending or flushing.
     */
    CoMutex lock;

    bool recording; /* a session is open: set by open, not by lock */
    /*
     * While nobody writes through the filter, others may write below it (it
     * can be inserted above a disk in use).  What they write is not recorded,
     * so the disk must be as it was when the last writer left: its generation
     * in the block layer, and a local file's inode and time.  Main loop only.
     */
    bool served; /* somebody may write through the filter */
    unsigned left_gen;
    bool left_has_stat;
    uint64_t left_inode;
    int64_t left_mtime;

    uint32_t alignment; /* what the journal's medium writes at once, or more */
    struct tt_writer writer;
    struct tt_batch *batch;            /* owned by whoever set appending */
    bool appending;                    /* one append at a time */
    bool flushing;                     /* one flush of the journal at a time */
    CoQueue changed;                   /* appending, flushing or durable_seq */
    QSIMPLEQ_HEAD(, TTJEntry) pending; /* in order of arrival */
    uint8_t *zeroes;                   /* TT_ALIGNMENT_MAX bytes, constant */

    /*
     * A flush of the journal has failed: its page cache may have dropped what
     * was acknowledged, and no later success can be believed.  Everything
     * fails with this errno until the journal is opened again, when recovery
     * rewrites what is not known durable.
     */
    int journal_error;
    /* The same for the disk: level_seq must not advance any more. */
    int disk_error;

    /* Records whose change of the disk is not complete, in order */
    QTAILQ_HEAD(, TTJEntry) in_flight;

    /* Read-locked by writes to the disk, write-locked to repeat refused ones */
    CoRwlock disk_lock;
    QTAILQ_HEAD(, TTJRefused) refused;

    /*
     * Taken before the others.  Read-locked by a write from its look at the
     * disk's size until it is on the disk, write-locked by a resize.
     */
    CoRwlock resize_lock;

    /*
     * Taken before lock.  Invariant: a block that is not in captured has never
     * been changed since the journal began, and nobody is changing it.
     */
    CoMutex capture_lock;
    struct tt_blocks *captured;
    struct tt_blocks *unmapped; /* captured, and in no CHECKPOINT yet */
    QTAILQ_HEAD(, TTJCapture) undurable;

    bool checkpoint_wanted; /* a segment has begun */
    uint64_t map_prev;
    uint32_t map_links;    /* CHECKPOINTs with ranges in the chain */
    uint64_t map_ranges;   /* and the ranges in them */
    uint64_t whole_ranges; /* when the map was last written whole */
} BDRVTtjournalState;

/* ---- ttjournal-append.c ------------------------------------------------- */

/*
 * Puts @e in the journal and returns when its frame is complete: 0 or -errno.
 * If @e->to_disk, it is in flight until ttj_disk_done().
 */
int coroutine_fn GRAPH_RDLOCK ttj_append(BlockDriverState *bs, TTJEntry *e);

/*
 * Before the disk is written without an append: the journal's time must not
 * fall behind the disk's, or the next open would take that for a change by
 * somebody else.
 */
int coroutine_fn GRAPH_RDLOCK ttj_still_here(BlockDriverState *bs);

/* The disk has been changed as @e says. */
void coroutine_fn ttj_disk_done(BlockDriverState *bs, TTJEntry *e);

/* Returns when the journal is durable up to @seq. */
int coroutine_fn GRAPH_RDLOCK ttj_make_durable(BlockDriverState *bs,
                                               uint64_t seq);

/* The same for all that is complete now. */
int coroutine_fn GRAPH_RDLOCK ttj_make_all_durable(BlockDriverState *bs);

/*
 * Brings the disk level and makes both durable, then appends FLUSH (if
 * @guest) and a CHECKPOINT with @flags.
 */
int coroutine_fn GRAPH_RDLOCK ttj_flush(BlockDriverState *bs, bool guest,
                                        uint32_t flags);

/*
 * PREIMAGEs for what was never captured of [offset, offset + bytes): in the
 * journal when it returns, made durable by ttj_captures_durable().
 */
int coroutine_fn GRAPH_RDLOCK ttj_capture(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes);
int coroutine_fn GRAPH_RDLOCK
ttj_captures_durable(BlockDriverState *bs, int64_t offset, int64_t bytes);

/* ---- ttjournal-grow.c --------------------------------------------------- */

/* Takes the option `ahead` out of @options. */
int ttj_grow_options(BlockDriverState *bs, QDict *options, Error **errp);
/* Once, before anything else but that */
void ttj_grow_init(BDRVTtjournalState *s);
/* A session has ended: nothing is in flight. */
void ttj_grow_clear(BDRVTtjournalState *s);

/*
 * Before each append, which ends at @end: makes room for it.  0, -ENOSPC, or
 * -errno.  Several may be called at once; an append that was granted may fail
 * and be tried again.
 */
int coroutine_fn GRAPH_RDLOCK ttj_grow(BlockDriverState *bs, uint64_t end,
                                       TTJGrowFor who);

/*
 * While no append is under way nor wanted: one bounded step of writing zeroes
 * behind the end.  0 if nothing is left to do before the next append;
 * otherwise call it again in so many ms.  If that is 1, a step was taken: the
 * caller flushes the journal, as it always does, for it alone knows what a
 * flush that fails means.
 */
int coroutine_fn GRAPH_RDLOCK ttj_grow_idle(BlockDriverState *bs);

/* tt_source.next_data of the journal; @opaque is the filter's node. */
uint64_t ttj_next_data(void *opaque, uint64_t offset);

/* After each append: does that in the background, until the next drain. */
void coroutine_fn ttj_grow_later(BlockDriverState *bs);

/* What is at hand from open to the first write */
typedef struct TTJStart {
    BlockDriverState *bs;
    struct tt_super super;
    struct tt_source source;
    struct tt_recovery recovery;
    bool shrunk; /* the disk is shorter than the journal says */
    int (*step)(struct TTJStart *st, Error **errp);
    Error **errp;
    int ret;
    bool done;
} TTJStart;

/* ---- ttjournal-open.c --------------------------------------------------- */

void ttj_init_state(BDRVTtjournalState *s);
void ttj_free_state(BDRVTtjournalState *s);

/* Opens a session if the node is writable, after proof and recovery. */
int ttj_start(BlockDriverState *bs, Error **errp);
/* The same after the node was inactive; refuses if there is much to redo. */
void coroutine_fn GRAPH_RDLOCK ttj_co_start_again(BlockDriverState *bs,
                                                  Error **errp);
/* Levels the disk and closes the session clean: 0 or -errno. */
int ttj_stop(BlockDriverState *bs);

/* Remembers the disk as it is now; see BDRVTtjournalState.served. */
void ttj_disk_left(BlockDriverState *bs);
/* Has anybody written below the filter since? */
bool ttj_disk_changed(BlockDriverState *bs);
struct tt_now ttj_now(void);

/* Tells what the library says of the journal, and returns -errno. */
int ttj_error(BlockDriverState *bs, int ret, Error **errp,
              const struct tt_error *err);

/* ---- ttjournal-prove.c -------------------------------------------------- */

/*
 * The raw file that is the disk, or NULL: it has another format, is only a
 * part of a file, or is no local file.  Format and file of any disk in *ret_.
 */
const char *GRAPH_RDLOCK ttj_disk_file(BlockDriverState *bs,
                                       const char **ret_format,
                                       const char **ret_path);
/* What a message calls @bs: its file, or if that has no name the node */
const char *ttj_name(BlockDriverState *bs);
/* Inode and modification time (ns) of that file; false if there is none. */
bool ttj_disk_stat(BlockDriverState *bs, uint64_t *ret_inode,
                   int64_t *ret_mtime);
/* What frames must be aligned to: a physical sector of the journal's medium */
uint32_t GRAPH_RDLOCK ttj_journal_alignment(BlockDriverState *bs);
/* Compares the disk with what the journal says: 0, or why it is refused. */
int coroutine_fn GRAPH_RDLOCK ttj_prove(TTJStart *st, Error **errp);

/* ---- ttjournal.c -------------------------------------------------------- */

/* Writes to the disk what the journal has, and remembers what it refuses. */
int coroutine_fn GRAPH_RDLOCK ttj_write_disk(BlockDriverState *bs, TTJEntry *e);

#endif
