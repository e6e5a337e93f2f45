/*
 * The journal library: a core that does no I/O, reads no clock and starts no
 * thread.  Callers hand in bytes, times and a way to read the journal; the
 * library answers what to write where, and what was written when.
 *
 * Offsets and lengths are bytes; times are nanoseconds since 1970 UTC, signed,
 * unless they say otherwise.  Functions that can fail return 0, or a negative
 * enum tt_code and fill *err with one line that names what is wrong.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_H
#define TTJOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"

/* ---- errors ------------------------------------------------------------ */

enum tt_code {
    TT_OK = 0,
    TT_EIO = 1,      /* the caller's read failed; err->os_errno says how */
    TT_EFORMAT = 2,  /* not a journal, or one this reader cannot read */
    TT_EDAMAGED = 3, /* a checksum does not fit: bytes are not to be trusted */
    TT_ENOTTIME = 4, /* not a time, or one that is not unique or not covered */
    TT_ENODISK = 5,  /* the live disk is needed and there is none */
    TT_ENOMEM = 6,
    TT_EINVAL = 7,     /* an argument from a user that makes no sense */
    TT_ECHANGED = 8,   /* the journal was replaced below what was read before */
    TT_EOTHERDISK = 9, /* the disk is not as the journal left it */
    TT_EINDEX = 10,    /* the index is damaged or another's: forget it */
};

struct tt_error {
    int code;     /* enum tt_code, positive */
    int os_errno; /* positive, or 0 */
    char message[1024];
};

/* Fills *err (which may be NULL) and returns -code. */
int tt_fail(struct tt_error *err, int code, int os_errno, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- where the journal's bytes come from ------------------------------- */

/*
 * read() fills @buf with @length bytes from @offset and returns 0 or a
 * negative errno; it is never asked for bytes at or beyond @size.  @size may
 * be raised by the owner between calls into the library.
 */
struct tt_source {
    int (*read)(void *opaque, uint64_t offset, void *buf, size_t length);
    void *opaque;
    uint64_t size;
    /*
     * Where at or behind @offset is the first byte that need not be zero?
     * @size or more if there is none.  It spares reading holes, and may be
     * NULL, or return @offset, where nobody knows.
     */
    uint64_t (*next_data)(void *opaque, uint64_t offset);
};

/*
 * How much at @offset, of @length at most, is certain to be zero: a multiple
 * of @unit.
 */
uint64_t tt_source_zeroes(const struct tt_source *src, uint64_t offset,
                          uint64_t length, uint64_t unit);

/* ---- checksums --------------------------------------------------------- */

uint64_t tt_checksum(const void *buf, size_t length); /* XXH3, 64 bits */

/* How many pieces the 4 KiB grid cuts [offset, offset + length) into. */
uint32_t tt_grid_pieces(uint64_t offset, uint64_t length);

/* Checksums of those pieces of @buf, which holds that range. */
void tt_grid_checksums(const void *buf, uint64_t offset, uint64_t length,
                       tt_le64 *ret_checksums);

/* ---- superblock -------------------------------------------------------- */

struct tt_super {
    uint8_t uuid[TT_UUID_SIZE];
    int64_t created;
    uint64_t disk_size;
    uint64_t segments_offset;
    uint64_t segment_size;
    uint32_t alignment;
    uint64_t feature_compat, feature_ro_compat, feature_incompat;
    uint8_t public_key[32];
    uint16_t sign_type;
    uint64_t salt; /* random; keeps guest data from passing as a frame */
};

/* Sets the defaults of a new journal; the caller supplies what is random. */
void tt_super_init(struct tt_super *super, const uint8_t uuid[TT_UUID_SIZE],
                   uint64_t salt, uint64_t disk_size, uint32_t alignment,
                   int64_t now);

/* Checks what a user may choose: sizes and alignment against the limits. */
int tt_super_check(const struct tt_super *super, struct tt_error *err);

/* The first TT_SEGMENTS_OFFSET bytes of a new journal, both copies. */
void tt_super_encode(const struct tt_super *super,
                     uint8_t ret_area[static TT_SEGMENTS_OFFSET]);

/* Reads whichever copy is whole; *ret_damaged counts copies that are not. */
int tt_super_read(const struct tt_source *src, struct tt_super *ret_super,
                  unsigned *ret_damaged, struct tt_error *err);

uint64_t tt_segment_offset(const struct tt_super *super, uint64_t segment);
/* The number of the segment that the byte at @offset lies in. */
uint64_t tt_segment_at(const struct tt_super *super, uint64_t offset);

/* ---- frames and records ------------------------------------------------ */

/* A frame header, decoded.  Validated unless a function says otherwise. */
struct tt_frame {
    uint64_t offset, segment, prev_offset, chain;
    uint64_t session, session_nonce, session_first_seq;
    uint64_t epoch, first_seq, durable_seq;
    int64_t first_time, last_time;
    uint64_t boottime, checkpoint_offset, disk_size, first_leaf;
    uint64_t session_offset, epoch_offset, notable_offset, footer_offset;
    uint64_t first_live_segment;
    uint32_t alignment, flags, record_count, table_length;
    uint32_t payload_offset, length;
    uint64_t table_checksum;
    uint64_t own_chain; /* what the next frame's chain must be */
};

static inline uint64_t tt_frame_end(const struct tt_frame *f)
{
    return f->offset + f->length;
}

static inline uint64_t tt_frame_last_seq(const struct tt_frame *f)
{
    return f->first_seq + f->record_count - 1;
}

/*
 * Decodes the header in @buf as the one at @offset of this journal.  Returns
 * false if it is none: magic, checksum, UUID, own offset or a limit does not
 * fit.  Says nothing about table and payload.
 */
bool tt_frame_decode(const struct tt_super *super, uint64_t offset,
                     const uint8_t buf[static sizeof(struct tt_frame_header)],
                     struct tt_frame *ret_frame);

/* A record's descriptor, decoded; pointers go into the table. */
struct tt_record {
    uint64_t seq;
    uint16_t kind, flags;
    int64_t time;
    uint64_t disk_offset, disk_length;
    uint32_t payload_offset; /* from the frame's start; 0 if there is none */
    uint32_t payload_length;
    uint32_t checksum_count;
    const tt_le64 *checksums;
    const uint8_t *body; /* inline body, payload_length bytes, or NULL */
};

/* True for the kinds whose ranges are versions of the disk. */
bool tt_kind_is_version(uint16_t kind);
/* True for the kinds that a header's notable_offset leads to. */
bool tt_kind_is_notable(uint16_t kind);
const char *tt_kind_name(uint16_t kind); /* "write", …, or NULL */

/*
 * Checks the table that follows the header of @f (@table_length bytes) and
 * every descriptor in it against the limits.
 */
bool tt_table_check(const struct tt_frame *f, const uint8_t *table);

/*
 * Walks a checked table: start with *pos = 0, *index = 0; false at its end.
 */
bool tt_table_next(const struct tt_frame *f, const uint8_t *table,
                   uint32_t *pos, uint32_t *index, struct tt_record *ret_rec);

/*
 * Checks a record's payload (@payload_length bytes at @payload) against its
 * checksums.  *ret_bad is the first grid piece that does not fit.
 */
bool tt_payload_check(const struct tt_record *rec, const uint8_t *payload,
                      uint32_t *ret_bad);

/* Where checksums of @rec are cut: disk offset, or 0 for a body. */
uint64_t tt_grid_origin(const struct tt_record *rec);

/*
 * Reads header and table of the frame at @offset into @buf (TT_HEAD_MAX
 * bytes).  Returns 1 if a whole one lies there, 0 if not, negative on a read
 * error.  The table is at buf + sizeof(struct tt_frame_header).
 */
int tt_frame_read(const struct tt_super *super, const struct tt_source *src,
                  uint64_t offset, uint8_t *buf, struct tt_frame *ret_frame,
                  struct tt_error *err);

/*
 * Does @next follow @prev in one line of history?  (@prev NULL: is it the
 * first frame?)  Says nothing about where the two lie.
 */
bool tt_frame_links(const struct tt_frame *prev, const struct tt_frame *next);

/* ---- appending --------------------------------------------------------- */

/* Everything a writer knows of the journal's end. Plain data, no ownership
 * but @footer. */
struct tt_writer {
    struct tt_super super;
    uint32_t alignment; /* of what this session writes */
    uint64_t session, session_nonce, session_first_seq;
    uint64_t next_offset; /* where the next frame goes, if it fits */
    uint64_t next_seq;
    uint64_t durable_seq;
    uint64_t epoch;
    int64_t last_time;
    uint64_t last_boottime;
    uint64_t prev_offset, chain;
    uint64_t checkpoint_offset, session_offset, epoch_offset;
    uint64_t notable_offset, footer_offset, first_live_segment;
    uint64_t next_leaf;
    uint64_t disk_size;       /* after all that was appended */
    bool same_boot;           /* last_boottime is of this boot */
    bool force_segment;       /* the next frame begins a segment */
    bool after_damage;        /* and links over a damaged place */
    struct tt_footer *footer; /* what the current segment holds; owned */
    struct tt_footer *ended;  /* of a segment that ended, not yet appended */
};

/* The clocks, read by the caller when the sequence numbers are taken. */
struct tt_now {
    int64_t realtime;  /* CLOCK_REALTIME */
    uint64_t boottime; /* CLOCK_BOOTTIME */
};

/*
 * A frame being put together.  Payload is not copied: the caller keeps it
 * alive and unchanged until the frame is written.
 */
struct tt_batch;

struct tt_batch *tt_batch_new(void);
void tt_batch_free(struct tt_batch *b);
void tt_batch_reset(struct tt_batch *b, const struct tt_writer *w);

/* A record to be appended; fields as in struct tt_record. */
struct tt_request {
    uint16_t kind, flags;
    uint64_t disk_offset, disk_length;
    const void *payload; /* or the body if TT_RECORD_INLINE */
    uint32_t payload_length;
};

/* Adds a record; false if it goes to the next frame (write this one first). */
bool tt_batch_add(struct tt_batch *b, const struct tt_request *req);
/*
 * How much of a WRITE is to be added to @b, in bytes: all of it, or what fits
 * the rest of the segment, up to the end of a block, if that is worth a record.
 * The rest is another record then, of the next frame.
 */
uint32_t tt_batch_fits(const struct tt_batch *b, const struct tt_request *req);
unsigned tt_batch_count(const struct tt_batch *b);

/*
 * Where the frame goes and what it is: head (header, table, padding), then
 * the payloads in order, then @tail_zeroes bytes of zero.
 */
struct tt_append {
    uint64_t offset;
    uint64_t length;
    uint64_t first_seq; /* of the first record the caller added */
    uint64_t last_seq;
    const uint8_t *head;
    uint32_t head_length;
    const struct tt_request *requests; /* request_count of them */
    unsigned request_count;
    uint32_t tail_zeroes;
    bool starts_segment;
    int64_t time;
};

/*
 * Takes sequence numbers and time for the records in @b and plans the append.
 * A step of the clock puts a CLOCK record in front and begins a new segment.
 * Changes nothing in @w: the caller tells what became of the write with
 * tt_writer_commit() or tt_writer_failed().  @ret_append points into @b.
 */
void tt_writer_plan(const struct tt_writer *w, struct tt_batch *b,
                    struct tt_now now, struct tt_append *ret_append);

/* The append that was planned last for @b is complete. False: no memory for
 * the footer; the segment will have none. */
bool tt_writer_commit(struct tt_writer *w, const struct tt_batch *b);

/*
 * The append that was planned last for @b has failed.  What is planned next
 * goes to the same place, or further on; never back to an earlier one, for
 * the failed frame may be whole there.
 */
void tt_writer_failed(struct tt_writer *w, const struct tt_batch *b);

/* A flush that was issued when all up to @seq was appended has succeeded. */
void tt_writer_flushed(struct tt_writer *w, uint64_t seq);

/*
 * The parts of the footer of a segment that ended, as FOOTER bodies to be
 * appended; NULL when there is none (left), or no memory.  The caller frees
 * them with free().  All that lies between them is the writer's next frames.
 * @ret_last: no part follows; the record of each other one is TT_RECORD_MORE.
 */
uint8_t *tt_footer_part(struct tt_footer *ft, uint32_t part,
                        uint32_t *ret_length, bool *ret_last);
void tt_footer_free(struct tt_footer *ft);
/* Nothing is left to be appended of @w's. */
void tt_writer_footer_done(struct tt_writer *w);
/* Or the caller keeps it, and appends it while @w goes on. NULL: none. */
struct tt_footer *tt_writer_take_footer(struct tt_writer *w);
void tt_writer_clear(struct tt_writer *w);

/*
 * A scan hands every accepted frame to the writer that will be opened behind
 * it (zeroed before), so that it knows what the unfinished segment holds.
 * False if out of memory.
 */
bool tt_writer_seen(struct tt_writer *w, const struct tt_frame *f,
                    const uint8_t *table);

/*
 * Starts a new session where a scan ended; the caller supplies the nonce and
 * has already rewritten and flushed what the scan accepted above durable_seq.
 * @alignment is what the journal's node asks for now; @same_boot says whether
 * the last frame's boottime is of the boot we are in.
 */
struct tt_scan;
void tt_writer_open(struct tt_writer *w, const struct tt_super *super,
                    const struct tt_scan *scan, uint32_t alignment,
                    uint64_t nonce, bool same_boot);

/* ---- bodies of records ------------------------------------------------- */

struct tt_session {
    uint64_t seq, session;
    int64_t realtime;
    uint64_t boottime;
    uint8_t boot_id[TT_UUID_SIZE];
    uint64_t disk_size, disk_inode;
    int64_t disk_mtime;
    uint64_t recovered_from, torn_offset, torn_length;
    uint32_t flags, pid;
    char *program, *host, *node, *disk_format, *disk_path, *machine_id;
    char *vm_name, *vm_uuid;
};

/* Returns the body (free() it), or NULL if a string is over its limit. */
uint8_t *tt_session_encode(const struct tt_session *s, uint32_t *ret_length);
/* Strings of *ret are owned by it: tt_session_clear(). */
int tt_session_decode(const struct tt_record *rec, struct tt_session *ret,
                      struct tt_error *err);
void tt_session_clear(struct tt_session *s);

/* Names of marks: [A-Za-z0-9._-]+, at most TT_NAME_MAX, no "..". */
bool tt_mark_name_ok(const char *name, size_t length);

/* ---- scanning ---------------------------------------------------------- */

/* A place in durable history that does not hold what was written there. */
struct tt_damage {
    uint64_t offset, length;         /* in the journal */
    uint64_t first_seq, last_seq;    /* of the records that are missing */
    int64_t after_time, before_time; /* records around it */
};

struct tt_scan_ops {
    /* Each accepted frame in order of history; a negative code stops. */
    int (*frame)(void *opaque, const struct tt_frame *f, const uint8_t *table);
    int (*damage)(void *opaque, const struct tt_damage *d);
    void *opaque;
    /*
     * A writer goes on: nothing is looked for behind the end, which costs much
     * and is over before it is known, if the newest segment's start was
     * accepted; and what a later header knows to be durable need not be whole.
     * What is behind damage in that segment is found once another one begins.
     */
    bool moving;
};

/* What a scan found at the journal's end. */
struct tt_scan {
    bool empty;           /* no frame yet */
    struct tt_frame last; /* the last accepted frame, unless empty */
    uint64_t end_offset;  /* where it ends, or where the first one goes */
    uint64_t last_seq;    /* 0 if empty; counts damaged ones */
    uint64_t durable_seq; /* the largest one vouched for */
    uint64_t max_session; /* in any whole header, stale ones too */
    uint64_t torn_offset; /* first thing behind the end that is not zero */
    uint64_t torn_length; /* 0: nothing */
    bool damaged_end;     /* history ends in damage */
    uint64_t checkpoint_offset; /* newest frame with a CHECKPOINT, or 0 */
    uint64_t disk_size;         /* after the last accepted frame */
    uint64_t notable_offset, footer_offset; /* newest, the last one's too */
    uint64_t unreadable;   /* places where the medium gave EIO */
    uint64_t newest_start; /* newest valid segment header that a run met */
};

/*
 * Accepts every frame of the journal in order of history, from the first, or
 * from the frame at @from if that is not 0 (its place in history is trusted).
 * Frames above the durable end are accepted only if their payload is whole.
 */
int tt_scan_run(const struct tt_super *super, const struct tt_source *src,
                uint64_t from, const struct tt_scan_ops *ops,
                struct tt_scan *ret_scan, struct tt_error *err);

/*
 * Where a scan for recovery may begin: the first frame of the segment that
 * holds what the newest segment header knows to be durable; 0: the first.
 */
int tt_scan_start(const struct tt_super *super, const struct tt_source *src,
                  uint64_t *ret_from, struct tt_error *err);

/*
 * Follows the end found by an earlier scan: accepts what was appended since.
 * -TT_ECHANGED: the end that was read before is there no more (a writer's
 * power cut or failed append): read again from the start.
 */
int tt_scan_follow(const struct tt_super *super, const struct tt_source *src,
                   const struct tt_scan_ops *ops, struct tt_scan *scan,
                   struct tt_error *err);

/* ---- sets of blocks ---------------------------------------------------- */

/*
 * A set of blocks of a disk, in units of a power of two.  Memory follows what
 * was added, and time what is asked for, however large the disk is.
 */
struct tt_blocks;

struct tt_blocks *tt_blocks_new(uint32_t unit);
void tt_blocks_free(struct tt_blocks *b);
/* Ranges are widened (add) or narrowed (remove) to whole units.  False: out
 * of memory; the set is then as before or holds a part of the range.  (What
 * cannot be removed for want of memory stays.) */
bool tt_blocks_add(struct tt_blocks *b, uint64_t offset, uint64_t length);
void tt_blocks_remove(struct tt_blocks *b, uint64_t offset, uint64_t length);
/* Is the unit that holds @offset in the set?  *ret_run: how many bytes from
 * @offset on, at most @length, have the same answer. */
bool tt_blocks_test(const struct tt_blocks *b, uint64_t offset, uint64_t length,
                    uint64_t *ret_run);
/* The first unit in the set at or after @offset; UINT64_MAX: none. */
uint64_t tt_blocks_next(const struct tt_blocks *b, uint64_t offset);

/* ---- recovery ---------------------------------------------------------- */

/* A range of the disk to be brought up to date, or to be compared. */
struct tt_redo {
    uint64_t seq;
    uint64_t disk_offset, disk_length;
    uint16_t kind; /* TT_KIND_WRITE or TT_KIND_ZERO */
    uint64_t frame_offset;
    uint32_t record_index;
    uint64_t payload; /* WRITE: where these bytes are in the journal */
};

struct tt_place {
    uint64_t offset, length;
};

/*
 * What a writer must know and do when it opens a journal.  Arrays are owned.
 * The order is binding (design.md, "Recovery"): prove that the disk is the
 * one that was left; rewrite in place what is not known durable and flush;
 * append SESSION, alone, and flush; capture, and flush; redo.
 */
struct tt_recovery {
    struct tt_scan scan;
    struct tt_writer writer; /* opened by tt_writer_open() */
    bool clean;              /* closed clean, and only tools came after */
    uint64_t level_seq;      /* the disk holds all up to here */
    bool has_stat;           /* the newest CHECKPOINT knew the file: */
    uint64_t disk_inode;
    int64_t disk_mtime;
    struct tt_place *rewrites; /* accepted, above the durable end */
    size_t rewrite_count;
    struct tt_redo *redos; /* newest versions above level_seq */
    size_t redo_count;
    struct tt_redo *samples; /* level versions to compare, newest first */
    size_t sample_count;
    struct tt_damage *damages; /* found by this scan, not yet recorded */
    size_t damage_count;
    struct tt_blocks *captured; /* blocks that need no PREIMAGE any more */
    struct tt_blocks *unmapped; /* those that no CHECKPOINT has yet */
    uint64_t map_prev;          /* newest CHECKPOINT with a part of the map */
    uint32_t map_links;         /* how many make up the map */
    bool resized;               /* a RESIZE above level_seq is to be redone */
    uint64_t *sizes;            /* before and after each of these */
    size_t size_count;
    /*
     * A GAP that nothing closes, or 0.  What the disk holds is unknown then:
     * there are no samples, and all blocks count as captured.  (A GAP behind
     * which its own session appended nothing closes none: that append may have
     * failed, and the gap gone on.)
     */
    uint64_t open_gap;
    uint64_t gap_from_seq, gap_from_epoch; /* what it says of its beginning */
    int64_t gap_from_time;
    bool has_boot_id; /* of the last session: */
    uint8_t boot_id[TT_UUID_SIZE];
};

/*
 * Scans from the last checkpoint on and fills *ret_recovery, which the caller
 * clears also after a failure.  *ret_recovery is not a function of anything
 * older than the last checkpoint, but for the map and the samples.
 */
int tt_recovery_run(const struct tt_super *super, const struct tt_source *src,
                    struct tt_recovery *ret_recovery, struct tt_error *err);
void tt_recovery_clear(struct tt_recovery *r);

/*
 * Does @disk (what the disk holds at the range of @sample now) have the
 * checksums that the journal recorded for it?  1 yes, 0 no.
 */
int tt_recovery_compare(const struct tt_super *super,
                        const struct tt_source *src,
                        const struct tt_redo *sample, const void *disk,
                        struct tt_error *err);

/*
 * After a crash the disk's last change follows the journal's by what a write
 * takes.  More than this means that somebody else has changed the disk; who
 * goes on writing to the disk appends often enough.
 */
#define TT_MTIME_SLACK INT64_C(10000000000)

/*
 * Is the disk the one that was left?  0, or -TT_EOTHERDISK with the reason.
 * @size: *ret_shrunk if it is shorter than the journal says since a crash came
 * between its shrinking and the RESIZE, which is to be appended.
 * Times are of local files; @journal_mtime is NULL if the journal is none.
 * @disk: what lies at the range of @sample now.
 */
int tt_prove_size(const struct tt_recovery *r, uint64_t size, bool *ret_shrunk,
                  struct tt_error *err);
int tt_prove_time(const struct tt_recovery *r, int64_t disk_mtime,
                  const int64_t *journal_mtime, struct tt_error *err);
int tt_prove_sample(const struct tt_super *super, const struct tt_source *src,
                    const struct tt_redo *sample, const void *disk,
                    struct tt_error *err);

/*
 * Reads the bytes of @redo, a WRITE, to @buf (disk_length bytes), checked
 * against their checksums; -TT_EDAMAGED if they do not fit.
 */
int tt_redo_read(const struct tt_super *super, const struct tt_source *src,
                 const struct tt_redo *redo, void *buf, struct tt_error *err);

/*
 * The same for many: keeps the frame that was read last, for the redos of one
 * frame follow each other in struct tt_recovery.  NULL: out of memory.
 */
struct tt_redo_reader;
struct tt_redo_reader *tt_redo_reader_new(const struct tt_super *super,
                                          const struct tt_source *src);
void tt_redo_reader_free(struct tt_redo_reader *rr);
int tt_redo_reader_read(struct tt_redo_reader *rr, const struct tt_redo *redo,
                        void *buf, struct tt_error *err);

/* A body longer than this goes to the payload, not inline. */
#define TT_INLINE_MAX 4096u

struct tt_checkpoint {
    uint64_t level_seq, map_prev;
    uint64_t disk_inode;
    int64_t disk_mtime;
    bool has_stat, clean;
};

/*
 * The body of the next CHECKPOINT: the disk is durable up to level_seq, the
 * blocks in @unmapped need no PREIMAGE any more since the one at map_prev.  If
 * they do not fit, *ret_more is set: the record gets TT_RECORD_MORE, and one
 * more follows in a later frame.  free() the body; NULL: out of memory.
 */
uint8_t *tt_checkpoint_encode(const struct tt_checkpoint *c,
                              const struct tt_blocks *unmapped,
                              uint32_t *ret_length, bool *ret_more);
/* The CHECKPOINT with @body was appended: its ranges leave @unmapped.
 * Returns how many there were. */
uint32_t tt_checkpoint_done(const uint8_t *body, struct tt_blocks *unmapped);

/* ---- history: what was written when ------------------------------------ */

struct tt_history; /* in memory; one writer or many readers at a time */

struct tt_epoch {
    uint64_t number;
    uint64_t first_seq, last_seq; /* last_seq of the newest: what is known */
    int64_t first_time;
    int64_t last_time; /* of its last record */
    int64_t end_time;  /* what its clock showed, or would have, at its end */
};

struct tt_mark {
    uint64_t seq;
    int64_t time;
    char *name;
};

/*
 * Of what an index covers, frames, flushes and duplicate_preimages are not
 * counted.
 */
struct tt_history_stats {
    uint64_t records, writes, zeroes, preimages, resizes, flushes;
    uint64_t sessions, marks, gaps, damages; /* records of these kinds */
    uint64_t written_bytes;                  /* payload of WRITEs */
    uint64_t frames, segments;
    uint64_t duplicate_preimages;
    uint64_t provisional_from; /* first version not durable, or 0 */
    bool clean;                /* closed clean: nothing after it */
    uint64_t level_seq;        /* of the newest CHECKPOINT */
};

/* A GAP: what was written between two moments may not be recorded. */
struct tt_gap {
    uint64_t seq, from_seq, opens_seq;
    int64_t from_time, to_time;
    uint32_t reason, flags, range_count;
    bool followed; /* its own session went on behind it: it was appended */
    bool closed;   /* it was open, and another one has ended it */
};

struct tt_history *tt_history_new(void);
void tt_history_free(struct tt_history *h);

/* Reads the whole journal; on failure the history is as if new. */
int tt_history_load(struct tt_history *h, const struct tt_source *src,
                    struct tt_error *err);
/*
 * Reads what was appended since; *ret_grown says whether anything was.
 * -TT_ECHANGED: what was read before is no longer there; load again, and know
 * that a view beyond the durable end may be of something else now.
 */
int tt_history_refresh(struct tt_history *h, const struct tt_source *src,
                       bool *ret_grown, struct tt_error *err);

const struct tt_super *tt_history_super(const struct tt_history *h);
const struct tt_scan *tt_history_end(const struct tt_history *h);
void tt_history_stats(const struct tt_history *h,
                      struct tt_history_stats *ret_stats);
/*
 * Bytes of the disk as it is that have a version.  Looks at each version of
 * it: this takes a while.
 */
int tt_history_captured(const struct tt_history *h, uint64_t *ret_bytes,
                        struct tt_error *err);
/*
 * The same of a journal of which @r is the recovery, from the account that its
 * writer kept: looks at versions only where that does not tell.
 */
int tt_recovery_captured(const struct tt_recovery *r,
                         const struct tt_history *h, uint64_t *ret_bytes,
                         struct tt_error *err);
const struct tt_epoch *tt_history_epochs(const struct tt_history *h,
                                         size_t *ret_count);
const struct tt_mark *tt_history_marks(const struct tt_history *h,
                                       size_t *ret_count);
const struct tt_session *tt_history_sessions(const struct tt_history *h,
                                             size_t *ret_count);
const struct tt_damage *tt_history_damages(const struct tt_history *h,
                                           size_t *ret_count);
const struct tt_gap *tt_history_gaps(const struct tt_history *h,
                                     size_t *ret_count);
/* The newest session that recorded a disk, or NULL. */
const struct tt_session *tt_history_recorder(const struct tt_history *h);

/* Was @size the disk's after any of the records from @seq on? */
bool tt_history_had_size(const struct tt_history *h, uint64_t seq,
                         uint64_t size);
/* Size of the disk after the records up to @seq. */
uint64_t tt_history_disk_size(const struct tt_history *h, uint64_t seq);
/*
 * Where a scan may begin (tt_scan_run()) that is to meet the record @seq and
 * all behind it; also, if @time is not NULL, those before it in its epoch that
 * are stamped *@time.  0: the journal's beginning, which is all that is known
 * without an index.
 */
int tt_history_scan_from(const struct tt_history *h, uint64_t seq,
                         const int64_t *time, uint64_t *ret_from,
                         struct tt_error *err);
/* The last record that an index covers, or 0: what is behind it was read. */
uint64_t tt_history_covered(const struct tt_history *h);
/*
 * Time of the newest record at or before @seq; false if there is none, or if it
 * cannot be read.
 */
bool tt_history_time(const struct tt_history *h, uint64_t seq,
                     int64_t *ret_time);

/* ---- moments ----------------------------------------------------------- */

/* Formats: RFC 3339, UTC, nine digits. */
#define TT_TIME_SIZE 40
const char *tt_time_format(int64_t time, char buf[static TT_TIME_SIZE]);

struct tt_moment {
    uint64_t seq; /* the view holds the records 1 … seq */
    bool has_time;
    int64_t time;     /* as asked, or of the record at seq */
    bool future;      /* the journal has not passed it: bound to its end */
    bool between;     /* in a time when nothing was recorded */
    bool provisional; /* a power cut might still take some of it */
    bool latest;      /* asked for as "latest" */
    char note[512];   /* one line to tell the user, or "" */
};

/*
 * A time zone, for times that name none.  The core knows of no zone files:
 * journal/posix/zone.h opens one.  @civil is a wall clock's reading, counted
 * in seconds as if it were UTC.  offsets() tells the offsets from UTC, in
 * seconds, at which clocks of this zone show it, and returns how many: 1; 2
 * (clocks went back); or 0 (clocks were put forward over it, and ret_offsets
 * are those before and after).  A negative value: it cannot be told.
 */
struct tt_zone {
    const char *name;
    int (*offsets)(void *opaque, int64_t civil, int32_t ret_offsets[2]);
    void *opaque;
    bool given; /* by the user; else it only shows what may be meant */
};

/*
 * Parses @text ("latest", "seq:N", "mark:NAME", "@SECONDS[.FRACTION]", RFC
 * 3339, "-15min") and binds it.  @now is used for relative times.  A time
 * without a zone is one of @zone; it is refused if that is NULL or not given.
 */
int tt_moment_resolve(const struct tt_history *h, const char *text,
                      const struct tt_zone *zone, int64_t now,
                      struct tt_moment *ret, struct tt_error *err);

/* ---- views ------------------------------------------------------------- */

enum tt_extent_kind {
    TT_EXTENT_JOURNAL, /* bytes in the journal */
    TT_EXTENT_ZERO,
    TT_EXTENT_DISK,    /* never overwritten: on the live disk */
    TT_EXTENT_DAMAGED, /* what was there cannot be known */
};

struct tt_extent {
    enum tt_extent_kind kind;
    uint64_t offset, length; /* of the disk */
    uint64_t seq;            /* of the record, 0 for a pre-image or disk */
    uint64_t record_seq;     /* of the record that holds it; DAMAGED: the */
                             /* first missing one, or the GAP in doubt */
    uint64_t place;          /* JOURNAL: of the first byte, in the journal */
};

/*
 * What the disk held at @offset after the records up to @seq: the longest run
 * from there, at most @length, that has one answer.  -TT_EINDEX if the index
 * that @h was opened with is damaged there; without one this cannot fail.
 */
int tt_view_lookup(const struct tt_history *h, uint64_t seq, uint64_t offset,
                   uint64_t length, struct tt_extent *ret_extent,
                   struct tt_error *err);

/*
 * The same of one record: neighbours that are both zero are one run above, and
 * may be two here.  It may end where nothing changes.
 */
int tt_view_run(const struct tt_history *h, uint64_t seq, uint64_t offset,
                uint64_t length, struct tt_extent *ret_extent,
                struct tt_error *err);

/*
 * Calls @fn for all of these runs in order, until it returns false or the range
 * ends.  It is not called for the run in which the index turns out damaged.
 */
typedef bool tt_extent_fn(void *opaque, const struct tt_extent *ext);
int tt_view_extents(const struct tt_history *h, uint64_t seq, uint64_t offset,
                    uint64_t length, tt_extent_fn *fn, void *opaque,
                    struct tt_error *err);

/*
 * Some of what was written last, at or below @level_seq, and is what the disk
 * holds now, if that is level so far: at most @room extents, newest first.
 * Takes no longer for a longer history.
 */
int tt_history_recent(const struct tt_history *h, uint64_t level_seq,
                      struct tt_extent *ret_extents, size_t room,
                      size_t *ret_count, struct tt_error *err);

/*
 * Does a GAP behind the version @seq put some of [offset, offset + length) in
 * doubt?  Then the disk may hold something else there now.
 */
bool tt_view_in_doubt(const struct tt_history *h, uint64_t seq, uint64_t offset,
                      uint64_t length);

/*
 * Reads JOURNAL extents: checks the grid pieces it needs and copies [offset,
 * offset + length), which lies inside @ext, to @buf.
 */
int tt_extent_read(const struct tt_history *h, const struct tt_source *src,
                   const struct tt_extent *ext, uint64_t offset,
                   uint64_t length, void *buf, struct tt_error *err);

/* ---- verification ------------------------------------------------------ */

struct tt_finding {
    uint64_t offset, length;           /* in the journal */
    uint64_t first_seq, last_seq;      /* 0 if unknown */
    uint64_t disk_offset, disk_length; /* touched, 0 if unknown */
    int64_t time;                      /* of the record, or after which it is */
    bool harmless;    /* no part of history is damaged: bytes that */
                      /* do not belong to it, records to ignore */
    const char *what; /* one line */
};

struct tt_verify_ops {
    void (*finding)(void *opaque, const struct tt_finding *f);
    void (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/* Checks every byte of the journal; *ret_findings counts what was reported. */
int tt_verify(const struct tt_source *src, const struct tt_verify_ops *ops,
              uint64_t *ret_findings, struct tt_error *err);

#endif
