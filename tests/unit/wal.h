/*
 * The simulated recorder: a write-ahead log on media that lie
 *
 * Contents are not bytes but names: every WRITE gives its sectors an id that
 * no other has, and a sector's 512 bytes follow from id and place.  So the
 * disk is an array of ids, and what it held at each moment another; only the
 * journal is bytes, for the library reads it.
 *
 *   walmedia.c   journal and disk: caches, flushes, tears, power cuts
 *   walmodel.c   every frame that was ever handed to the journal, a tree, and
 *                the disk after each of its records
 *   walwriter.c  the recorder, as a machine that takes one step at a time
 *   walopen.c    how it opens a journal after a crash
 *   walcheck.c   the oracles
 *
 * The writer follows the driver's rules (docs/design.md, "The recorder"):
 *
 *   1. A write is copied, queued in order of arrival, put in the forming
 *      frame, acknowledged in order when its frame is complete; from then on
 *      it is pending.  No PREIMAGE needs to be there yet.
 *   2. A flush of the journal takes its number before the call.  After a
 *      failed one all frames since the last good one are written again at the
 *      same places, and flushed; if that fails, too, the journal is in error
 *      until it is opened anew.
 *   3. Write-back takes durable ranges.  What of their blocks was never
 *      captured is read from the disk first, appended and made durable.
 *   4. A flush of the disk takes its level before it is issued.  After a
 *      failed one what the journal has above the last CHECKPOINT is written
 *      again while no write-back runs, before the next flush counts.
 *   5. A guest's flush: lazy, a flush of the journal; guest, also write-back
 *      up to there and a flush of the disk.  FLUSH rides in the next frame.
 *   6. CHECKPOINT after a flush of the disk, with its level; now and then.
 *   7. Open: scan, prove, rewrite and flush, SESSION alone and flush, captures
 *      and flush, redo of the newest.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef WAL_H
#define WAL_H

#include <ttjournal/pending.h>

#include "simindex.h"

#define WAL_SECTOR 512u
#define WAL_SECTORS 64u
#define WAL_PER_BLOCK (TT_GRID / WAL_SECTOR)
#define WAL_BLOCKS (WAL_SECTORS / WAL_PER_BLOCK)
#define WAL_DISK (WAL_SECTORS * WAL_SECTOR)

#define WAL_CRASH (-512) /* the process or the power is gone */
#define WAL_WRONG (-513) /* a promise is broken: sim->problem says which */
#define WAL_ERROR (-514) /* the journal is in error: it must be reopened */

typedef unsigned long long ull;

/* ---- chance ------------------------------------------------------------ */

struct rng {
    uint64_t state;
};

uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t below); /* 0 … below - 1 */
bool rng_chance(struct rng *r, unsigned percent);

/* ---- memory that is given back in one go ------------------------------- */

struct arena {
    uint8_t *base;
    size_t used, room;
};

void *arena_get(struct arena *a, size_t size);

/* ---- media ------------------------------------------------------------- */

/* What was written to the journal and is not known to be on the medium */
struct jlog {
    uint64_t offset;
    uint32_t length;
    bool clean; /* a failed flush: no later one writes it */
    const uint8_t *data;
};

#define JMEDIA_MAX (4u << 20)
#define JMEDIA_GRANULE 65536u

struct jmedia {
    uint8_t *cache, *medium;
    uint64_t size, durable_size;
    uint32_t used[JMEDIA_MAX / JMEDIA_GRANULE];
    struct jlog *log;
    size_t log_count, log_room;
    size_t mark; /* what the flush under way covers */
};

void jmedia_init(struct jmedia *m);
void jmedia_free(struct jmedia *m);
void jmedia_reset(struct jmedia *m);
/* False: no room; nothing is written. */
bool jmedia_write(struct jmedia *m, uint64_t offset, const uint8_t *data,
                  uint32_t length);
/* Any of its sectors. */
void jmedia_write_some(struct jmedia *m, struct rng *r, uint64_t offset,
                       const uint8_t *data, uint32_t length);
void jmedia_flush_issue(struct jmedia *m);
void jmedia_flush_done(struct jmedia *m, struct rng *r, bool ok);
void jmedia_power_cut(struct jmedia *m, struct rng *r);
/* @to gets what @m holds, also what is not durable. */
void jmedia_copy(struct jmedia *to, const struct jmedia *m);
struct tt_source jmedia_source(struct jmedia *m);

struct dlog {
    bool clean, is_size;
    uint8_t first, count; /* is_size: count is the new size */
    uint32_t *ids;
};

struct dmedia {
    uint32_t cache[WAL_SECTORS], medium[WAL_SECTORS];
    unsigned size, durable_size; /* in sectors */
    struct dlog *log;
    size_t log_count, log_room;
    size_t mark;
};

void dmedia_write(struct dmedia *m, unsigned first, unsigned count,
                  uint32_t *ids);
void dmedia_write_some(struct dmedia *m, struct rng *r, unsigned first,
                       unsigned count, uint32_t *ids);
void dmedia_truncate(struct dmedia *m, unsigned size);
void dmedia_flush_issue(struct dmedia *m);
void dmedia_flush_done(struct dmedia *m, struct rng *r, bool ok);
void dmedia_power_cut(struct dmedia *m, struct rng *r);
void dmedia_copy(struct dmedia *to, const struct dmedia *m);

/* The bytes of a sector, and back; false: they are no one sector's. */
void sector_fill(uint8_t *p, uint32_t id, unsigned sector);
bool sector_read(const uint8_t *p, unsigned sector, uint32_t *ret_id);

/* ---- the model --------------------------------------------------------- */

/* The disk after one record; ids behind the size are 0. */
struct state {
    uint32_t ids[WAL_SECTORS];
    uint32_t size;
    uint16_t kind;
};

struct node {
    struct node *parent, *child, *sibling;
    struct node *before; /* that was made before it */
    struct node *hash_next;
    uint64_t first_seq, last_seq, chain, offset;
    uint64_t session, session_first_seq;
    uint32_t length, head; /* of it: header and table */
    uint32_t captured;     /* a bit for each block that needs no PREIMAGE */
    uint64_t boot;
    const uint8_t *bytes;
    struct state *states;
};

#define MODEL_HASH 256u

struct model {
    struct arena arena;
    struct node root;
    struct state original;
    struct node *newest;
    struct node *hash[MODEL_HASH];
    uint32_t next_id;
};

/* What a record does to the disk, beside the request that it is */
struct rec {
    struct tt_request req;
    uint32_t id;
    enum rec_for {
        FOR_GUEST,
        FOR_CAPTURE,
        FOR_RESIZE,
        FOR_NOBODY,
        FOR_FLUSH,
        FOR_CHECKPOINT,
        FOR_FOOTER,
    } purpose;
    unsigned guest;  /* FOR_GUEST: its slot */
    uint32_t blocks; /* FOR_CAPTURE */
    void *owner;     /* WRITE: of the bytes; else to be freed, or NULL */
};

struct node *model_append(struct model *m, struct node *parent,
                          const struct tt_frame *f, const struct tt_append *a,
                          const struct rec *recs);
struct node *model_child(const struct node *parent, uint64_t chain);
struct node *model_find(struct model *m, uint64_t chain);
bool node_reaches(const struct node *n, const struct node *above);
/* The node on the path to @n with @seq; NULL: the root. */
struct node *node_at(struct node *n, uint64_t seq);
const struct state *model_state(const struct model *m, const struct node *n,
                                uint64_t seq);
/* Forgets what was made since the arena had @used. */
void model_rewind(struct model *m, struct node *newest, size_t used,
                  uint32_t next_id);

/* ---- the recorder ------------------------------------------------------ */

enum wal_mode { MODE_GUEST, MODE_LAZY };

/* Bytes of a guest's write, which it may not change any more */
struct wbuf {
    unsigned refs;
    uint8_t bytes[];
};

#define GUESTS 12u
#define QUEUE_MAX 96u
#define WRITEBACKS 6u
#define FRAME_RECS 64u

struct guest {
    enum { G_FREE, G_QUEUED, G_WAIT, G_FLUSH, G_RESIZE } state;
    bool fua, failed;
    unsigned parts;  /* records that are not complete yet */
    uint64_t seq;    /* of its last record; of a flush what it covers */
    uint64_t covers; /* the newest acknowledged when it came */
    uint64_t order;
};

struct writeback {
    enum { W_FREE, W_TAKEN, W_CAPTURING, W_READY, W_FLIGHT } state;
    struct tt_writeback w;
    uint32_t *ids;
};

struct kept {
    const struct node *node;
};

struct waiting {
    uint64_t seq;
    uint32_t blocks;
};

struct config {
    enum wal_mode mode;
    unsigned weight[20];   /* of the actions */
    unsigned fail;         /* percent of calls */
    unsigned crash;        /* per 1000 steps: the session ends */
    unsigned fork;         /* percent of steps */
    unsigned most_sectors; /* of a write */
    unsigned hot;          /* sectors that most writes go to */
    unsigned segment_shift;
    uint32_t alignment;
    bool resizes;
};

struct sim {
    struct model *model;
    struct config cfg;
    struct rng rng;
    struct jmedia j;
    struct dmedia d;
    struct tt_super super;
    struct tt_now now;
    uint64_t boot;
    uint32_t alignment;

    /* what the guest knows, and what follows from it */
    struct node *acked;    /* no kill takes it */
    struct node *promised; /* no power cut takes it */
    uint64_t disk_floor;   /* the disk alone is at least this new */
    struct node *tip;      /* the last frame that is complete */
    struct node *phys;     /* the last that is on the medium, whole */

    /* of the session */
    bool open;
    struct tt_writer w;
    struct tt_batch *batch;
    struct tt_pending *pending;
    struct tt_blocks *unmapped;
    uint64_t map_prev;
    struct guest guests[GUESTS];
    uint64_t orders;
    struct rec queue[QUEUE_MAX];
    unsigned queued;
    struct { /* the append under way */
        bool busy;
        struct rec recs[FRAME_RECS];
        unsigned count;
        struct node *node;
    } app;
    uint32_t footer_part;
    bool tail_unsure; /* a failed append may be whole on the medium */
    struct kept *kept;
    size_t kept_count, kept_room;
    enum { J_IDLE, J_FLUSH, J_REWRITE, J_AGAIN } jstate;
    uint64_t jnumber;
    uint64_t flush_seqs[8]; /* of the guest's, to be recorded */
    unsigned flush_count;
    uint32_t cap_started, cap_done;
    struct waiting waiting[32];
    unsigned wait_count;
    struct writeback wbs[WRITEBACKS];
    bool dflush;
    uint64_t dlevel, level, checkpoint_level;
    bool disk_bad; /* a failed flush: everything is to be written again */
    bool redoing;
    struct tt_recovery redo;
    size_t redo_next;
    struct { /* the resize under way */
        enum { R_NONE, R_QUIESCE, R_CAPTURE, R_APPEND, R_DURABLE } stage;
        unsigned guest, size, old;
        uint64_t seq;
        bool queued;
    } rz;
    uint64_t change_seq; /* of the last WRITE, ZERO or RESIZE */
    uint64_t checkpoint_seq;

    struct tt_history *reader; /* that follows, also across crashes */
    /* Of the line, also across crashes; forks look into it only */
    struct simindex *index;
    bool is_fork;
    uint64_t indexed; /* look-ups that went through runs */

    uint64_t until_crash; /* in recovery: calls that are left, 0: no end */
    bool quiet_fail;      /* no failing calls now */
    bool verbose;
    char problem[800];
};

int sim_wrong(struct sim *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void sim_note(struct sim *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
#define NOTE(s, ...)                                                           \
    do {                                                                       \
        if ((s)->verbose) {                                                    \
            sim_note(s, __VA_ARGS__);                                          \
        }                                                                      \
    } while (0)

/* @s is zeroed once and keeps its memory from run to run. */
void sim_begin(struct sim *s, struct model *m, uint64_t seed);
void sim_free(struct sim *s);
/* One step of anything, chosen by s->rng. */
int sim_step(struct sim *s);
/* All that was asked for comes to its end, and CHECKPOINT says so. */
int sim_close(struct sim *s);
/* Recovery is over: the guest is served. */
void sim_opened(struct sim *s);
/* The process is gone; media are as they are. */
void sim_abandon(struct sim *s);
bool sim_fails(struct sim *s);
/* What was under way happens in part. */
void sim_crash(struct sim *s, bool power);
/* @to is @s after a crash; @s goes on as if nothing had happened. */
void sim_fork(struct sim *to, struct sim *s, struct rng rng, bool power);

/* parts that walopen.c needs too */
int frame_plan(struct sim *s, const struct rec *recs, struct tt_append *ret);
void frame_complete(struct sim *s);
void keep_frame(struct sim *s, const struct node *n);
void drop_kept(struct sim *s, uint64_t seq);
unsigned make_captures(struct sim *s, unsigned first, unsigned count,
                       uint32_t have, struct rec *recs);
uint32_t blocks_of(unsigned first, unsigned count);
void rec_clear(struct rec *r);

/* Opens the journal after a crash; @power: how it came. */
int sim_open(struct sim *s, bool power);

/* ---- oracles ----------------------------------------------------------- */

void check_advance_phys(struct sim *s);
/* Promise 2, and 3 for the disk alone: before recovery, on the path to @s. */
int check_disk_alone(struct sim *s);
int check_history(struct sim *s, struct tt_recovery *r, bool power,
                  struct node **ret_end);
int check_session_number(struct sim *s);
int check_samples(struct sim *s, const struct tt_recovery *r);
int check_level(struct sim *s);
int check_views(struct sim *s, unsigned lookups);
/* Looks at random moments by a reader that was opened earlier. */
int check_reader(struct sim *s);
/*
 * The same through an index: the line's, or one that is made for this.
 * @damage_ok: some of the journal may be destroyed.
 */
int check_indexed(struct sim *s, const struct node *end, unsigned lookups,
                  bool damage_ok);
/* walcheck.c: looks at some moments.  @end: where history ends. */
int check_lookups(struct sim *s, const struct tt_history *h,
                  const struct node *end, unsigned lookups, bool damage_ok);
/* Some of what is durable rots: nothing else may be served for it. */
int check_rot(struct sim *s);

#endif
