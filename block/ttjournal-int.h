/*
 * ttjournal filter driver: what its files share
 *
 * The journal is the disk's write-ahead log.  The way of a write: ttjournal.c
 * takes it from the guest and copies it; ttjournal-append.c puts it in the
 * journal, and it is acknowledged; once it is durable there,
 * ttjournal-writeback.c brings it to the disk, when ttjournal-worker.c
 * finds that it is time.  ttjournal-checkpoint.c says in the journal how far
 * the disk has come, ttjournal-resize.c changes its size, ttjournal-gap.c
 * decides what follows when the journal cannot be written,
 * ttjournal-qmp.c tells of all this and makes marks, and
 * ttjournal-open.c does everything from open to the first write, and close;
 * what the disk lacks then, ttjournal-redo.c brings to it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_TTJOURNAL_INT_H
#define BLOCK_TTJOURNAL_INT_H

#include "block/block_int.h"
#include "qemu/coroutine.h"
#include "qemu/queue.h"
#include "qemu/units.h"

#include <ttjournal/pending.h>
#include <ttjournal/ttjournal.h>

/* From a page to what a frame's head or a record takes */
#define TTJ_DATA_MIN 4096u
#define TTJ_DATA_MAX (TTJ_DATA_MIN << (TTJ_DATA_CLASSES - 1))
#define TTJ_DATA_CLASSES 9

/* What is kept for the next: as much as comes back from the disk at once */
#define TTJ_POOL_MAX (32 * MiB)

typedef struct TTJSlab TTJSlab;

/* Bytes that were freed; see ttjournal-data.c. */
typedef struct TTJPool {
    QemuMutex lock;
    QLIST_HEAD(, TTJData) kept[TTJ_DATA_CLASSES];
    QLIST_HEAD(, TTJSlab) slabs;
    size_t kept_bytes;
} TTJPool;

/* Bytes that several own: a frame that is not durable, and a version. */
typedef struct TTJData {
    unsigned refs; /* atomic */
    unsigned class;
    TTJPool *pool;
    TTJSlab *slab; /* that it is a part of, or NULL */
    uint8_t *bytes;
    QLIST_ENTRY(TTJData) next; /* in pool */
} TTJData;

/* One coroutine that waits for its records to be appended */
typedef struct TTJWaiter {
    Coroutine *co;
    unsigned left; /* of its records */
} TTJWaiter;

/* One record on its way into the journal; lives on a coroutine's stack. */
typedef struct TTJEntry {
    struct tt_request req;
    TTJData *data; /* req.payload is in it, unless it is inline or none */
    /*
     * A WRITE at the end of a segment may be cut: so many bytes of its payload
     * are in the journal already, and so many are in the append under way.
     */
    uint32_t from, taken;
    bool spare; /* does without, if it had to use up the journal's reserve */
    int ret;    /* 0 or -errno */
    uint64_t seq;
    uint64_t frame_offset;
    TTJWaiter *waiter;
    QSIMPLEQ_ENTRY(TTJEntry) next;
} TTJEntry;

typedef QSIMPLEQ_HEAD(TTJEntries, TTJEntry) TTJEntries;

/* A frame that is complete in the journal and not known durable there */
typedef struct TTJFrame {
    uint64_t offset, last_seq;
    QEMUIOVector qiov;
    unsigned data_count;
    TTJData **data; /* the head, and what the records have */
    QSIMPLEQ_ENTRY(TTJFrame) next;
} TTJFrame;

typedef QSIMPLEQ_HEAD(TTJFrames, TTJFrame) TTJFrames;

/* Whose append needs room?  See ttjournal-grow.c, "The reserve". */
typedef enum TTJGrowFor {
    TTJ_GROW_FOR_GUEST, /* WRITE or ZERO, or what can be done without */
    TTJ_GROW_FOR_US,    /* whatever makes good what was acknowledged */
} TTJGrowFor;

/* Room behind the journal's end; all but what says otherwise under its lock */
typedef struct TTJGrowth {
    CoMutex lock;    /* not held during I/O: growing or zeroing says who does */
    CoQueue changed; /* growing or zeroing */
    bool ahead_given;
    uint64_t ahead;    /* how far room is made, and written, beyond the end */
    uint64_t reserve;  /* what the guest must leave */
    uint64_t captures; /* and what PREIMAGEs of pending data take; atomic */

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
    int64_t last_append; /* ms */
    uint8_t *zeroes;
} TTJGrowth;

/* What the user chooses; see BlockdevOptionsTtjournal. */
typedef struct TTJOptions {
    bool lazy; /* a guest's flush waits for the journal alone */
    TtjournalOnError on_error;
    uint64_t max_pending;
    int64_t max_pending_ns;
    uint64_t checkpoint_bytes;
    int64_t checkpoint_ns;
} TTJOptions;

/* What is done in the background, one thing of each kind at a time */
typedef enum TTJWorkerKind {
    TTJ_JOURNAL_WORKER, /* flushes the journal, makes room in it */
    TTJ_DISK_WORKER,    /* writes back */
    TTJ_LEVEL_WORKER,   /* makes checkpoints */
    TTJ_WORKERS,
} TTJWorkerKind;

/* Where they run */
typedef struct TTJThread {
    AioContext *ctx;
    QemuThread thread;
    bool ended;
} TTJThread;

typedef struct TTJWorker {
    bool working;     /* a coroutine, while there is something to do */
    int64_t retry_ns; /* after an error, not before */
} TTJWorker;

/* Where the journal's end was, now and then; see ttjournal-qmp.c. */
#define TTJ_LAGS 64
typedef struct TTJLag {
    unsigned count;
    int64_t step_ns, next_ns;
    struct {
        uint64_t seq; /* the last record */
        int64_t ns;   /* monotonic */
    } at[TTJ_LAGS];
} TTJLag;

/* What was counted since the node was opened; times are CLOCK_REALTIME's */
typedef struct TTJCounts {
    uint64_t checkpoints, checkpoint_seq, gaps;
    int64_t checkpoint_time, gap_begun, gap_ended;
    uint64_t flush_errors, disk_errors;
} TTJCounts;

/* The journal of a node that is read-only, as it was when that was opened */
typedef struct TTJFound {
    bool known;
    struct tt_super super;
    uint64_t session, session_seq;
    uint64_t last_seq, durable_seq, end, chain;
    int64_t last_time;
} TTJFound;

typedef struct BDRVTtjournalState {
    BdrvChild *journal;
    TTJGrowth growth;
    TTJPool pool;

    TTJOptions options; /* changed by a reopen alone, which drains */

    /*
     * Protects everything below but what says otherwise.  Never held across
     * a yield: whoever does I/O first sets appending, flushing or writing.
     */
    QemuLockable lock;
    QemuMutex mutex;      /* what it locks */
    unsigned lock_wanted; /* who waits for it; atomic */

    bool recording; /* a session is open: set by open and close alone */
    /*
     * While nobody writes through the filter, others may write below it (it
     * can be inserted above a disk in use).  What they write is not recorded,
     * so the disk must be as it was when the last writer left: its generation
     * in the block layer, and a local file's inode and time.
     */
    bool served; /* somebody may write through the filter */
    unsigned left_gen;
    bool left_has_stat;
    uint64_t left_inode;
    int64_t left_mtime;

    /* ---- the journal's end (ttjournal-append.c) ---- */
    uint32_t alignment; /* what the journal's medium writes at once, or more */
    struct tt_writer writer;
    struct tt_batch *batch; /* owned by whoever set appending */
    bool appending;         /* one append at a time */
    bool grouped;           /* the last frame had several records */
    TTJEntries queue;       /* to be appended, in order of arrival */
    CoQueue append_idle;    /* flushers that need appending for themselves */
    TTJFrames frames;       /* complete, not durable, in order */
    bool flushing;          /* one flush of the journal at a time */
    CoQueue flushed;        /* until flushing ends */
    uint8_t *zeroes;        /* TT_ALIGNMENT_MAX bytes, constant */
    bool room_wanted;       /* ttj_grow_idle() may have something to do */
    int64_t room_ns;        /* but not before */
    uint64_t said_seq;      /* of the last record that is worth being durable */
    uint64_t told_seq;      /* durable_seq of the newest complete frame */
    int64_t appended_ns;    /* when that was complete; monotonic */
    uint64_t note_seq; /* a FLUSH that is to ride in the next frame, or 0 */
    int64_t tell_ns;   /* not before this by a frame of its own */
    uint64_t failures; /* appends that have failed */
    /* Of a segment that ended; whoever appends footers changes both. */
    struct tt_footer *footer;
    uint32_t footer_part; /* the next one */
    int64_t footer_ns;    /* but not before */
    unsigned held;      /* the guest's requests that wait for one to succeed */
    uint64_t cancels;   /* how often the holding was ended */
    int64_t no_hold_ns; /* what comes before this is not held either */

    /* ---- a gap in the recording (ttjournal-gap.c) ---- */
    bool unrecorded; /* changed with resize_lock held for writing, too */
    uint64_t gap_seq, gap_from_seq, gap_from_epoch;
    uint64_t level_max; /* what a CHECKPOINT says meanwhile, at most */
    int64_t gap_from_time;
    struct tt_blocks *gap; /* what may have been written since */
    /*
     * A flush of the journal has failed, and what was acknowledged could not
     * be written again.  Everything fails with this errno until the journal
     * is opened again, when recovery rewrites what is not known durable.
     */
    int journal_error;

    /* ---- what is not on the disk yet (ttjournal-writeback.c) ---- */
    struct tt_pending *pending;
    uint64_t admitted;      /* bytes let in that are not in pending yet */
    CoQueue room;           /* writes that wait for room in pending, in order */
    bool writing;           /* one coroutine at a time */
    bool writing_ours;      /* and nobody else has */
    CoQueue written;        /* until writing ends */
    unsigned write_waiters; /* for that; the worker makes way for them */
    int disk_error;         /* of the newest round; 0 once one succeeds */
    bool disk_error_is_journals; /* it is what an append said */
    /*
     * A flush of the disk has failed: the disk may have dropped what was
     * written since the last good one.  All that is written again, from the
     * journal, before a flush counts.
     */
    bool disk_doubtful;
    bool settling; /* ttj_child_perm() has kept what is to be given up then */

    bool running; /* the workers: from the session's start to its end */
    TTJWorker workers[TTJ_WORKERS];
    TTJThread thread; /* theirs, from open to close */
    unsigned waiting_for_room;
    int64_t undurable_ns; /* since when something is not durable */
    /* Nothing new is begun: drained (QEMU may say so twice), or at its end */
    bool drained, stopping;
    QEMUTimer *timer; /* of their thread */
    QEMUBH *settled_bh;
    TTJLag lag;
    uint64_t aged_seq; /* what is older than this has been pending too long */
    uint64_t young_seq;
    int64_t young_ns;

    /*
     * Taken before lock.  Invariant: a block that is not in captured has never
     * been changed since the journal began, and nobody is changing it.
     */
    CoMutex capture_lock;
    struct tt_blocks *captured;
    struct tt_blocks *unmapped; /* captured, and in no CHECKPOINT yet */
    uint64_t capture_seq;       /* of the newest PREIMAGE */

    /* ---- checkpoints (ttjournal-checkpoint.c) ---- */
    /* Taken before capture_lock: one flush of the disk, and what follows it */
    CoMutex level_lock;
    uint64_t level_seq;     /* of the newest good one; under level_lock */
    uint64_t checkpoint_at; /* the journal's end when the last was made */
    int64_t checkpoint_time;
    bool changed; /* something was recorded since */
    bool checkpointing;
    uint64_t map_prev;
    uint32_t map_links;    /* CHECKPOINTs with ranges in the chain */
    uint64_t map_ranges;   /* and the ranges in them */
    uint64_t whole_ranges; /* when the map was last written whole */

    /* ---- what QMP asks for (ttjournal-qmp.c) ---- */
    TTJCounts counts;
    TTJFound found;
    unsigned marking;       /* marks that are being made; the main loop's */
    CoMutex mark_lock;      /* taken before resize_lock: one mark at a time */
    GHashTable *mark_names; /* all that there are; NULL: not asked for yet */

    /*
     * Taken before all others.  Read-locked by a write from its look at the
     * disk's size until it is recorded, write-locked by a resize.
     */
    CoRwlock resize_lock;
} BDRVTtjournalState;

/* Called with lock held. */
static inline bool ttj_is_quiesced(const BDRVTtjournalState *s)
{
    return s->drained || s->stopping;
}

/* ---- ttjournal-data.c ---------------------------------------------------- */

void ttj_pool_init(TTJPool *pool);
/* Frees what is kept, and keeps on keeping. */
void ttj_pool_trim(TTJPool *pool);
void ttj_pool_destroy(TTJPool *pool);

/* @bytes, or NULL: no memory.  The caller has the only reference. */
TTJData *ttj_data_new(BlockDriverState *bs, size_t bytes);
TTJData *ttj_data_ref(TTJData *data);
void ttj_data_unref(TTJData *data);

/* ---- ttjournal-append.c ------------------------------------------------- */

/*
 * Puts @count records at @e in the journal, one after the other, and returns
 * when their frames are complete: 0, or the first error.  WRITEs and ZEROes
 * are pending then.
 */
int coroutine_fn GRAPH_RDLOCK ttj_append(BlockDriverState *bs, TTJEntry *e,
                                         unsigned count);

/* Returns when the journal is durable up to @seq. */
int coroutine_fn GRAPH_RDLOCK ttj_make_durable(BlockDriverState *bs,
                                               uint64_t seq);

/*
 * Appends what says which versions the segments that ended hold; one caller at
 * a time.  A segment without a footer is none the worse.
 */
int coroutine_fn GRAPH_RDLOCK ttj_append_footers(BlockDriverState *bs);
/* Is there any? Called with lock held. */
bool ttj_has_footer(BDRVTtjournalState *s);

/* Flushes the journal if nobody is doing so. */
int coroutine_fn GRAPH_RDLOCK ttj_flush_ahead(BlockDriverState *bs);

/* The last record whose frame is complete */
uint64_t ttj_last_seq(BDRVTtjournalState *s);

/*
 * Before the disk is written without an append: the journal's time must not
 * fall behind the disk's, or the next open would take that for a change by
 * somebody else.
 */
int coroutine_fn GRAPH_RDLOCK ttj_still_here(BlockDriverState *bs);

void ttj_frames_clear(BDRVTtjournalState *s);

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

/* ---- ttjournal-writeback.c ---------------------------------------------- */

/* Waits until @bytes fit into what may be pending: 0 or -errno. */
int coroutine_fn ttj_admit(BlockDriverState *bs, uint64_t bytes);
/* Lets those in who wait and for whom there is room. Called with lock held. */
void ttj_room(BlockDriverState *bs);

/*
 * PREIMAGEs for what was never captured of [offset, offset + bytes): in the
 * journal when it returns, durable up to capture_seq is what they need.
 */
int coroutine_fn GRAPH_RDLOCK ttj_capture(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes);

/* Requests that are in flight to the disk at most */
#define TTJ_FLIGHT_MAX 128

/*
 * Brings to the disk what is pending up to @seq, which is durable, or for the
 * worker (@seq is 0) as much as ttj_write_depth() wants.  1 if something was
 * written, 0 if there was nothing, or what the disk said.  Called with lock
 * held and nobody writing; drops the lock meanwhile.
 */
int coroutine_fn GRAPH_RDLOCK ttj_write_some(BlockDriverState *bs,
                                             uint64_t seq);

/*
 * Brings to the disk all that is pending up to @seq, which is durable, and
 * returns 0 or what the disk said.
 */
int coroutine_fn GRAPH_RDLOCK ttj_write_back(BlockDriverState *bs,
                                             uint64_t seq);

/*
 * Around what we write to the disk, one at a time: after the last writer has
 * left it is not to be taken for the writing of others.  Called with lock
 * held, as is what waits until nobody writes.
 */
void GRAPH_RDLOCK ttj_begin_writing(BlockDriverState *bs);
void GRAPH_RDLOCK ttj_stop_writing(BlockDriverState *bs);
void coroutine_fn ttj_wait_written(BDRVTtjournalState *s);

/* ---- ttjournal-worker.c -------------------------------------------------- */

/*
 * How many requests to the disk there should be in flight now, 0: none.
 * Called with lock held.
 */
unsigned ttj_write_depth(BDRVTtjournalState *s);

/* May the disk have to be written? Called with lock held. */
bool ttj_unsettled(BDRVTtjournalState *s);

/* Starts workers that have something to do. Called with lock held. */
void ttj_kick(BlockDriverState *bs);
/* Is any of them at work? */
bool ttj_is_working(BDRVTtjournalState *s);
/* What they need from open to close; none must be at work at the end. */
int ttj_open_workers(BlockDriverState *bs, Error **errp);
void ttj_close_workers(BlockDriverState *bs);
void ttj_drain_begin(BlockDriverState *bs);
void ttj_drain_end(BlockDriverState *bs);

/* ---- ttjournal-checkpoint.c --------------------------------------------- */

/*
 * Flushes the disk, unless that was done since all up to @seq is on it: this
 * is level then, and in a gap all that was on the disk.
 */
int coroutine_fn GRAPH_RDLOCK ttj_flush_disk(BlockDriverState *bs,
                                             uint64_t seq);

/* Flushes the disk and appends a CHECKPOINT with @flags. */
int coroutine_fn GRAPH_RDLOCK ttj_checkpoint(BlockDriverState *bs,
                                             uint32_t flags);
/* Is one due?  Called with lock held. */
bool ttj_checkpoint_due(BDRVTtjournalState *s, int64_t now);

/* Brings to the disk all that is in the journal now; does not flush it. */
int coroutine_fn GRAPH_RDLOCK ttj_level(BlockDriverState *bs);

/* ---- ttjournal-gap.c ---------------------------------------------------- */

/* One request of the guest, which may be held; zero in the beginning */
typedef struct TTJHold {
    bool begun, held;
    uint64_t cancels;  /* when the first try began */
    uint64_t failures; /* when the newest did */
} TTJHold;

/* Before each try */
void ttj_try(BlockDriverState *bs, TTJHold *hold);
/*
 * After it: is it to be tried again?  If so some time has passed.  Called with
 * no lock held, and nothing admitted.
 */
bool coroutine_fn GRAPH_RDLOCK ttj_try_again(BlockDriverState *bs,
                                             TTJHold *hold, int ret);

/*
 * While unrecorded: writes the @count records at @e to the disk alone.
 * resize_lock is held.
 */
int coroutine_fn GRAPH_RDLOCK ttj_write_unrecorded(BlockDriverState *bs,
                                                   TTJEntry *e, unsigned count);
/* Records what the gap's blocks hold now, and that there was a gap. */
int coroutine_fn GRAPH_RDLOCK ttj_end_gap(BlockDriverState *bs);
/* A GAP for the whole disk that closes the one with @opens_seq. */
int coroutine_fn GRAPH_RDLOCK
ttj_close_gap(BlockDriverState *bs, uint64_t opens_seq, uint64_t from_seq,
              uint64_t from_epoch, int64_t from_time);

/* Somebody is about to wait for what is in flight: what is held fails. */
void GRAPH_RDLOCK ttj_cancel_in_flight(BlockDriverState *bs);

/* ---- ttjournal-resize.c ------------------------------------------------- */

int coroutine_fn GRAPH_RDLOCK
ttj_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                PreallocMode prealloc, BdrvRequestFlags flags, Error **errp);
/*
 * Takes resize_lock for a write up to @end.  A format above the filter lets
 * its file grow by writing behind its end.
 */
int coroutine_fn GRAPH_RDLOCK ttj_lock_size(BlockDriverState *bs, int64_t end);

/* ---- ttjournal-open.c --------------------------------------------------- */

/* What is at hand from open to the first write */
typedef struct TTJStart {
    BlockDriverState *bs;
    struct tt_super super;
    struct tt_source source;
    struct tt_recovery recovery;
    struct tt_redo_reader *reader; /* while something is redone */
    bool shrunk; /* the disk is shorter than the journal says */
    int (*step)(struct TTJStart *st, Error **errp);
    Error **errp;
    int ret;
    bool done;
} TTJStart;

void ttj_init_state(BDRVTtjournalState *s);
/* Called with lock held: lets another thread have it for once. */
void ttj_make_way(BDRVTtjournalState *s);
void ttj_destroy_state(BDRVTtjournalState *s);
void ttj_free_state(BDRVTtjournalState *s);

/* Opens a session if the node is writable, after proof and recovery. */
int ttj_start(BlockDriverState *bs, Error **errp);
/* The same after the node was inactive; refuses if there is much to redo. */
void coroutine_fn GRAPH_RDLOCK ttj_co_start_again(BlockDriverState *bs,
                                                  Error **errp);
/* Levels the disk and closes the session clean: 0 or -errno.  The worker
 * has ended, in either case. */
int ttj_stop(BlockDriverState *bs);
/* From here on the worker brings to the disk what is recorded. */
void GRAPH_RDLOCK ttj_run_worker(BlockDriverState *bs);

/* Remembers the disk as it is now; see BDRVTtjournalState.served. */
void GRAPH_RDLOCK ttj_disk_left(BlockDriverState *bs);
/* Has anybody written below the filter since? */
bool GRAPH_RDLOCK ttj_disk_changed(BlockDriverState *bs);
struct tt_now ttj_now(void);

/* Tells what the library says of the journal, and returns -errno. */
int ttj_error(BlockDriverState *bs, int ret, Error **errp,
              const struct tt_error *err);

/* tt_source.read of the journal; @opaque is the filter's node. */
int ttj_read_journal(void *opaque, uint64_t offset, void *buf, size_t length);

/* ---- ttjournal-qmp.c ----------------------------------------------------- */

BlockStatsSpecific *ttj_get_specific_stats(BlockDriverState *bs);
ImageInfoSpecific *ttj_get_specific_info(BlockDriverState *bs, Error **errp);
/* For the latter, of a node that is opened read-only */
void ttj_remember_found(TTJStart *st);
/* Now and then, at lag.next_ns or later. Called with lock held. */
void ttj_lag_look(BDRVTtjournalState *s, int64_t now);
/* The session ends. */
void ttj_forget_names(BDRVTtjournalState *s);
/* Emits TTJOURNAL_ERROR; @error is an errno. */
void ttj_say_error(BlockDriverState *bs, TtjournalOperation operation,
                   int error);
/* The same of the disk, and counts it. Called with lock held. */
void ttj_disk_failed(BlockDriverState *bs, int error);

/* ---- ttjournal-redo.c --------------------------------------------------- */

/* Captures what is to be redone, durably. */
int coroutine_fn GRAPH_RDLOCK ttj_capture_redos(TTJStart *st);
/* Then writes it to the disk, which gets its size first. */
int coroutine_fn GRAPH_RDLOCK ttj_redo(TTJStart *st, Error **errp);
/* Or loads it as if it were pending. */
int coroutine_fn ttj_load_redos(TTJStart *st, Error **errp);
/*
 * Writes to the disk the newest versions that the journal has above the last
 * CHECKPOINT's level.  Nothing is written back meanwhile.
 */
int coroutine_fn GRAPH_RDLOCK ttj_redo_again(BlockDriverState *bs);

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
bool GRAPH_RDLOCK ttj_disk_stat(BlockDriverState *bs, uint64_t *ret_inode,
                                int64_t *ret_mtime);
/* What frames must be aligned to: a physical sector of the journal's medium */
uint32_t GRAPH_RDLOCK ttj_journal_alignment(BlockDriverState *bs);
/* Compares the disk with what the journal says: 0, or why it is refused. */
int coroutine_fn GRAPH_RDLOCK ttj_prove(TTJStart *st, Error **errp);

#endif
