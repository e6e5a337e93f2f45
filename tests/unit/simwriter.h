/*
 * A small recorder for tests, by the rules of docs/journal-format.md,
 * "Writing" and "Recovery": journal first, a PREIMAGE durable before its
 * block changes on the disk, write-through, CHECKPOINT at a flush, FOOTERs
 * when a segment has ended.
 *
 * Functions return 0, a negative errno that the guest would see, or
 * SIM_CRASH.  Where the library answers what the model knows to be wrong,
 * sw->problem says what, and the function returns SW_WRONG.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef SIMWRITER_H
#define SIMWRITER_H

#include "simdisk.h"
#include "simmodel.h"

#define SW_WRONG (-513)
#define SW_JOURNAL_MAX (48 * TT_MIB)

enum sw_order { SW_PRE_BEFORE, SW_PRE_WITH, SW_PRE_AFTER };

/* A frame that no flush has covered */
struct sw_frame {
    uint64_t offset;
    size_t length;
    uint8_t *bytes;
};

struct simwriter {
    struct sim_world *world;
    struct simdisk journal, disk;
    struct sim_model model;
    struct sim_node *tip;     /* acknowledged: no kill takes it */
    struct sim_node *durable; /* flushed: no power cut takes it */
    struct sim_node *level;   /* the disk alone is at least this new */

    bool strict;        /* the disk gets only what is durable in the journal */
    bool disk_unsure;   /* not strict, and there was a power cut */
    struct tt_now now;  /* the clocks */
    uint64_t boot;      /* number of the host's boot */
    uint32_t alignment; /* what the journal's node asks for now */

    /* of the session; none after a crash */
    struct tt_super super;
    struct tt_writer w;
    struct tt_batch *batch;
    struct tt_blocks *captured, *unmapped;
    uint64_t map_prev;
    struct sw_frame *kept;
    size_t kept_count, kept_room;
    uint8_t todo[SIM_DISK_MAX / SIM_SECTOR];  /* sectors the disk lacks, */
    uint8_t dirty[SIM_DISK_MAX / SIM_SECTOR]; /* has, but not flushed */
    uint64_t disk_size;                       /* the disk file's own size */
    bool damage_ok;                           /* the test destroyed something */

    char problem[1400];
};

/* A new journal for a disk with these contents; no session yet. */
void sw_init(struct simwriter *sw, struct sim_world *world, const uint8_t *disk,
             uint64_t size, uint32_t alignment);
void sw_clear(struct simwriter *sw);

int sw_open(struct simwriter *sw);
int sw_write(struct simwriter *sw, uint64_t offset, uint64_t length,
             const uint8_t *buf, enum sw_order order);
int sw_zero(struct simwriter *sw, uint64_t offset, uint64_t length,
            enum sw_order order);
int sw_resize(struct simwriter *sw, uint64_t size);
int sw_flush(struct simwriter *sw);
int sw_mark(struct simwriter *sw, const char *name);
int sw_durable(struct simwriter *sw); /* an idle journal's last word */
int sw_close(struct simwriter *sw);   /* flush, and a CLEAN checkpoint */
/* Appends @count records as they are in one frame. */
int sw_append(struct simwriter *sw, const struct tt_request *reqs,
              unsigned count);
/* Only the journal's flush. */
int sw_journal_flush(struct simwriter *sw);
/* Ends the session without another word. */
void sw_abandon(struct simwriter *sw);
void sw_kill(struct simwriter *sw);
void sw_power_cut(struct simwriter *sw);

/* ---- parts, for simopen.c ---------------------------------------------- */

int sw_append_one(struct simwriter *sw, const struct tt_request *reqs,
                  unsigned count);
int sw_append_footer(struct simwriter *sw);
void sw_keep(struct simwriter *sw, const struct tt_append *a, uint8_t *bytes);
/* The blocks of a range that still need a PREIMAGE, as records; the bytes go
 * to @buf, at their place on the disk. */
int sw_read_captures(struct simwriter *sw, uint64_t offset, uint64_t length,
                     uint8_t *buf, struct tt_request *reqs,
                     unsigned *ret_count);
int sw_append_captured(struct simwriter *sw, struct tt_request *reqs,
                       unsigned pre, const struct tt_request *change,
                       enum sw_order order);
void sw_note_todo(struct simwriter *sw, uint64_t offset, uint64_t length);

/* Sets sw->problem and returns SW_WRONG. */
int sw_wrong(struct simwriter *sw, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- checks (simcheck.c) ----------------------------------------------- */

/* The journal, read without being counted, crashed or failed. */
struct tt_source sw_quiet_source(struct simwriter *sw);
/* History is a path of the model that reaches @required; *ret_end its end. */
int sw_check_path(struct simwriter *sw, const struct sim_node *required,
                  struct sim_node **ret_end);
/* After a crash: each sector of the disk is one that history up to @end
 * knows, and not older than sw->level. */
int sw_check_disk_known(struct simwriter *sw, const struct sim_node *end);
/* The disk is view(latest). */
int sw_check_disk_level(struct simwriter *sw);
/* What recovery found is what the path to @end says. */
int sw_check_recovery(struct simwriter *sw, const struct tt_recovery *r,
                      const struct sim_node *end);
/* Every moment of the path to sw->tip can be read, exactly; or @most of them,
 * chosen at random (simviews.c). */
int sw_check_views(struct simwriter *sw, unsigned most);
/* The whole view(@seq), which has @size bytes. */
int sw_read_view(struct simwriter *sw, const struct tt_history *h, uint64_t seq,
                 uint64_t size, uint8_t *buf);

#endif
