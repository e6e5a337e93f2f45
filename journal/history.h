/*
 * What the library keeps in memory of a journal
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_HISTORY_H
#define TTJOURNAL_HISTORY_H

#include <ttjournal/index.h>

#include "footread.h"
#include "index.h"

/* From @seq on records have this time, until the next of these. */
struct time_point {
    uint64_t seq;
    int64_t time;
};

/* After the record @seq the disk had this size. */
struct size_point {
    uint64_t seq;
    uint64_t size;
};

/*
 * Sequence numbers of which nothing is known: lost to damage, and no footer
 * tells what they were.
 */
struct blind {
    uint64_t first_seq, last_seq;
    uint64_t damage_seq; /* first_seq of the damage it is part of */
};

/* A record whose frame is damaged, known again from its segment's footer. */
struct salvaged {
    uint64_t seq;
    int64_t time;
    uint64_t disk_offset, disk_length;
    uint64_t payload;   /* in the journal; 0: no bytes are stored */
    tt_le64 *checksums; /* owned, or NULL */
    uint16_t kind, flags;
};

/* A footer whose parts are coming in. */
struct footer_parts {
    uint64_t segment;
    uint32_t next_part; /* 0: none has begun */
    uint32_t part_count;
    uint64_t first_seq, last_seq; /* of the segment */
    struct salvaged *records;     /* what they tell of missing records */
    size_t count, room;
};

/* A range that the GAP with @seq puts in doubt; it may continue others. */
struct gap_range {
    uint64_t seq;
    uint64_t offset, length;
};

/* How an epoch ended, beside what is public of it. */
struct epoch_end {
    uint32_t reason; /* TT_CLOCK_…, 0: it has not ended */
};

/*
 * Where versions and times go instead of into the history, while a catalog is
 * built.  Negative codes stop.
 */
struct history_sink {
    int (*version)(void *opaque, const struct placed *p, struct tt_error *err);
    int (*frame)(void *opaque, const struct tt_frame *f, struct tt_error *err);
    void *opaque;
};

/*
 * Arrays named x come with x_count and x_room.  Unless it says otherwise, they
 * are in order of sequence.
 */
struct tt_history {
    struct tt_super super;
    struct tt_scan scan;
    bool loaded; /* super and scan are set */
    bool broken; /* a refresh failed half-way: load again */

    /*
     * What an index covers: records up to covered_seq.  All below is then of
     * the tail behind that, unless it says otherwise.
     */
    uint64_t covered_seq;
    uint64_t tail_offset; /* of the first frame behind it, or 0 */
    struct tt_run **runs; /* in order of sequence; not owned, but the array */
    size_t runs_count;
    const struct tt_source *journal; /* to look up times; NULL without runs */

    struct index versions; /* of WRITE, ZERO and RESIZE that grows */
    struct index preimages;
    struct index
        doubts;    /* of all history: ranges of GAPs; a version's seq is */
                   /* the GAP's */
    tt_le64 *sums; /* checksums of versions and preimages */
    size_t sums_count, sums_room;

    struct time_point *times;
    size_t times_count, times_room;

    /* Of all history */
    struct size_point *sizes;
    size_t sizes_count, sizes_room;
    struct tt_epoch *epochs;
    size_t epochs_count, epochs_room;
    struct epoch_end *ends; /* ends[i] belongs to epochs[i] */
    size_t ends_count, ends_room;
    struct tt_mark *marks;
    size_t marks_count, marks_room;
    struct tt_session *sessions;
    size_t sessions_count, sessions_room;
    /*
     * The first DAMAGE record, or 0.  Its writer could not know what had been
     * captured, so behind it a first touch may lack its PREIMAGE.
     */
    uint64_t damage_record;
    struct tt_damage *damages;
    size_t damages_count, damages_room;
    struct tt_gap *gaps;
    size_t gaps_count, gaps_room;
    struct gap_range *gap_ranges;
    size_t gap_ranges_count, gap_ranges_room;
    struct blind *blinds; /* none touches another */
    size_t blinds_count, blinds_room;
    struct salvaged *salvaged; /* of what is covered: without checksums */
    size_t salvaged_count, salvaged_room;

    uint64_t *undurable; /* versions and RESIZEs above the durable end */
    size_t undurable_count, undurable_room;

    struct footer_parts footer;
    struct tt_history_stats stats;
    uint64_t last_segment; /* of the last frame */
    bool after_damage;     /* no frame since the last damage */
    bool gap_more;         /* the next GAP continues the last one */
    uint64_t gap_frame;    /* the frame before, if it has a GAP, or 0 */
    uint64_t gap_session;  /* of that frame */
    size_t gap_first;      /* its first in gaps */
    bool gaps_changed;     /* doubts does not hold all gap_ranges yet */
    const struct history_sink *sink;

    /* Set while frames are taken in */
    const struct tt_source *src;
    struct tt_error *err;
    uint8_t *body; /* TT_PAYLOAD_RECORD_MAX bytes, when needed */
};

/* Makes room for one more; false if memory ran out. */
bool tt_history_room(void *array, size_t count, size_t *room, size_t unit);

/*
 * The body of @rec, inline or read from the payload.  1 and *ret_body (valid
 * until the next call), 0 if it is damaged, negative if it cannot be read.
 */
int tt_history_body(struct tt_history *h, const struct tt_frame *f,
                    const struct tt_record *rec, const uint8_t **ret_body);

/* Adds a WRITE, ZERO, PREIMAGE or RESIZE. */
int tt_history_add_version(struct tt_history *h, const struct placed *p);

/* Takes in a frame of history, or a damage: for the scan. */
int tt_history_take_frame(void *opaque, const struct tt_frame *f,
                          const uint8_t *table);
int tt_history_take_damage(void *opaque, const struct tt_damage *d);
/*
 * Takes in a frame of a segment whose versions come from its footer: all that
 * is neither a version nor counted.
 */
int tt_history_take_rest(struct tt_history *h, const struct tt_frame *f,
                         const uint8_t *table);
/* Forgets all. */
void tt_history_reset(struct tt_history *h);
/* After frames were taken in: forgets what only that needed. */
int tt_history_settle(struct tt_history *h);
/* The superblock is read, and nothing is known yet.  @h was reset. */
int tt_history_begin(struct tt_history *h, const struct tt_source *src,
                     struct tt_error *err);

/* The small rest of history, for a catalog. */
struct bytes;
struct byte_reader;
bool tt_rest_encode(struct tt_history *h, struct bytes *b);
/* Into a history that is new; a negative code, and it must be reset. */
int tt_rest_decode(struct tt_history *h, struct byte_reader *r);

/*
 * The last record of epoch @i that is stamped @time or before, as far as
 * records are known; the epoch's first if there is none.
 */
int tt_times_last(const struct tt_history *h, size_t i, int64_t time,
                  uint64_t *ret_seq, struct tt_error *err);

/* Takes in a GAP; what is in doubt is known after tt_history_gaps_settle(). */
int tt_history_gap(struct tt_history *h, const struct tt_frame *f,
                   const struct tt_record *rec);
bool tt_history_gaps_settle(struct tt_history *h); /* false: out of memory */
/* Before the records of each frame: has the writer of a GAP gone on? */
void tt_history_gap_followed(struct tt_history *h, const struct tt_frame *f);

/* What a FOOTER record tells of missing records. */
int tt_history_footer(struct tt_history *h, const struct tt_frame *f,
                      const struct tt_record *rec);
void tt_history_footer_clear(struct footer_parts *p);

/* Notes that the records of @d are missing. */
int tt_history_add_blind(struct tt_history *h, const struct tt_damage *d);

/* The newest blind that begins at or before @seq, or NULL. */
const struct blind *tt_history_blind_before(const struct tt_history *h,
                                            uint64_t seq);

#endif
