/*
 * The journal's format, version 2
 *
 * docs/journal-format.md is normative; this header holds its structs and
 * constants and nothing else.  Sizes and offsets are asserted in
 * journal/ondisk.c.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_FORMAT_H
#define TTJOURNAL_FORMAT_H

#include "endian.h"

#define TT_KIB 1024ull
#define TT_MIB (1024 * TT_KIB)
#define TT_GIB (1024 * TT_MIB)

#define TT_FORMAT_VERSION 2
#define TT_SUPERBLOCK_MAGIC "\x89TTJ\r\n\x1a\n"
#define TT_FRAME_MAGIC "\x89TTFRM\r\n"
#define TT_MAGIC_SIZE 8
#define TT_UUID_SIZE 16

/* Where the two identical superblocks and the first segment lie */
#define TT_SUPERBLOCK_COPY (32 * TT_KIB)
#define TT_SEGMENTS_OFFSET (64 * TT_KIB)

/* Limits of the format: a reader refuses what lies beyond them */
#define TT_ALIGNMENT_MIN 512u
#define TT_ALIGNMENT_MAX (32 * 1024u)
#ifndef TT_SEGMENT_MIN /* the simulator is built with less */
#define TT_SEGMENT_MIN (4 * TT_MIB)
#endif
#define TT_SEGMENT_MAX (4 * TT_GIB)
#define TT_SEGMENT_DEFAULT (64 * TT_MIB)
#define TT_HEAD_MAX (32 * 1024u)         /* frame header and table together */
#define TT_FRAME_MAX (16 * TT_MIB)       /* a whole frame, padding included */
#define TT_PAYLOAD_RECORD_MAX TT_MIB     /* payload bytes of one record */
#define TT_ZERO_RECORD_MAX (32 * TT_MIB) /* disk bytes of one ZERO */
#define TT_PREIMAGE_ZERO_MAX TT_GIB /* disk bytes of a PREIMAGE of zeroes */
#define TT_DISK_SIZE_MAX (UINT64_C(1) << 62)
#define TT_NAME_MAX 255u  /* of a mark */
#define TT_TEXT_MAX 4096u /* of an event, or one session string */

#define TT_GRID 4096u  /* checksums are cut on the disk's absolute 4 KiB grid */
#define TT_SECTOR 512u /* disk offsets and lengths are multiples of this */
#define TT_LEAF 65536u /* bytes of a frame in one leaf of the hash tree */

/* Features: a reader that does not know a bit acts by the set it is in */
#define TT_COMPAT_KNOWN UINT64_C(0)    /* unknown: ignore */
#define TT_RO_COMPAT_KNOWN UINT64_C(0) /* unknown: read, never append */
#define TT_INCOMPAT_KNOWN UINT64_C(0)  /* unknown: refuse */

#define TT_CHECKSUM_XXH3_64 1
#define TT_SIGN_NONE 0
#define TT_SIGN_ED25519 1

struct tt_superblock {
    uint8_t magic[TT_MAGIC_SIZE];
    tt_le32 version;
    tt_le32 size; /* bytes of this struct: 512 */
    tt_le64 feature_compat;
    tt_le64 feature_ro_compat;
    tt_le64 feature_incompat;
    uint8_t uuid[TT_UUID_SIZE];
    tt_le64 offset;    /* of this copy in the journal */
    tt_le64 created;   /* ns UTC, signed */
    tt_le64 disk_size; /* bytes, when the journal was created */
    tt_le64 segments_offset;
    tt_le64 segment_size;
    tt_le32 alignment; /* the least that any frame has */
    tt_le16 checksum_type;
    tt_le16 sign_type;
    uint8_t public_key[32]; /* first key; zero if sign_type is none */
    tt_le64 salt;           /* random, in every frame header, never shown */
    uint8_t reserved[360];
    tt_le64 checksum; /* over all bytes before it */
};

enum {
    TT_FRAME_SEGMENT_START = 1 << 0, /* the first frame of its segment */
    TT_FRAME_SESSION_START = 1 << 1, /* holds the SESSION record, alone */
    TT_FRAME_EPOCH_START = 1 << 2,   /* the first frame of its clock epoch */
    TT_FRAME_AFTER_DAMAGE = 1 << 3,  /* links to the last one before damage */
    TT_FRAME_FLAGS_KNOWN = (1 << 4) - 1,
    TT_FRAME_FLAGS_OPTIONAL = (int)0xffff0000, /* unknown ones are ignored */
};

struct tt_frame_header {
    uint8_t magic[TT_MAGIC_SIZE];
    uint8_t uuid[TT_UUID_SIZE];
    tt_le64 offset;      /* of this header in the journal */
    tt_le64 segment;     /* number of the segment it lies in */
    tt_le64 prev_offset; /* the frame before it in history, or 0 */
    tt_le64 chain;       /* chain value of that frame, or 0 */
    tt_le64 session;
    tt_le64 session_nonce;
    tt_le64 session_first_seq;
    tt_le64 epoch;
    tt_le64 first_seq;
    tt_le64 durable_seq;
    tt_le64 first_time; /* ns UTC, signed */
    tt_le64 last_time;
    tt_le64 boottime;          /* CLOCK_BOOTTIME, ns, read with last_time */
    tt_le64 checkpoint_offset; /* newest frame before it with a CHECKPOINT */
    tt_le64 disk_size;         /* before the first record of this frame */
    tt_le64 first_leaf;        /* leaves of the hash tree before this frame */
    tt_le64 segment_size;      /* as in the superblock */
    tt_le32 alignment;         /* of this frame and all in its segment */
    tt_le32 flags;
    tt_le32 record_count;
    tt_le32 table_length;
    tt_le32 payload_offset; /* from the frame's start */
    tt_le32 frame_length;
    tt_le64 table_checksum;
    tt_le64 salt;               /* as in the superblock */
    tt_le64 session_offset;     /* this session's SESSION, may be this frame */
    tt_le64 epoch_offset;       /* first frame of this epoch, or this one */
    tt_le64 notable_offset;     /* newest before it with MARK, GAP, DAMAGE, */
                                /* RESIZE, BASE or PRUNE, or 0 */
    tt_le64 footer_offset;      /* newest before it that ends a FOOTER, or 0 */
    tt_le64 first_live_segment; /* older ones were pruned */
    uint8_t reserved[8];
    tt_le64 header_checksum; /* over all bytes before it */
};

/*
 * Record kinds: value, C name, name in print, what it says.  Each takes one
 * sequence number.  Kinds from TT_KIND_OPTIONAL on may be skipped by a reader
 * that does not know them.
 */
#define TT_KIND_OPTIONAL 0x8000
#define TT_RECORD_KINDS(X)                                                     \
    X(1, WRITE, "write", "the guest wrote these bytes")                        \
    X(2, ZERO, "zero", "the guest zeroed or discarded this range")             \
    X(3, PREIMAGE, "preimage", "what this range held at sequence 0")           \
    X(4, FLUSH, "flush", "a flush of the guest completed")                     \
    X(5, RESIZE, "resize", "the disk's size changed")                          \
    X(6, MARK, "mark", "a named moment")                                       \
    X(7, EVENT, "event", "a text from outside or from the guest")              \
    X(8, CLOCK, "clock", "the clock stepped: a new epoch begins")              \
    X(9, SESSION, "session", "a writer opened the journal")                    \
    X(10, CHECKPOINT, "checkpoint", "the disk is durable up to a sequence")    \
    X(11, GAP, "gap", "something may not have been recorded")                  \
    X(12, SEAL, "seal", "a signed head of the hash tree")                      \
    X(13, FOOTER, "footer", "what an ended segment holds")                     \
    X(14, DAMAGE, "damage", "recovery found a damaged place")                  \
    X(15, BASE, "base", "reserved for retention")                              \
    X(16, PRUNE, "prune", "reserved for retention")                            \
    X(17, DURABLE, "durable", "says only how far the journal is durable")

enum tt_kind {
#define X(value, name, text, about) TT_KIND_##name = value,
    TT_RECORD_KINDS(X)
#undef X
};

enum {
    TT_RECORD_ZEROES = 1 << 0,  /* PREIMAGE: all zero, no payload */
    TT_RECORD_INLINE = 1 << 1,  /* body in the table, not the payload */
    TT_RECORD_UNMAP = 1 << 2,   /* ZERO: may unmap */
    TT_RECORD_DISCARD = 1 << 3, /* ZERO: the guest asked for a discard */
    TT_RECORD_FUA = 1 << 4,     /* WRITE, ZERO: with force unit access */
    TT_RECORD_MORE = 1 << 5,    /* the next record of its kind continues it */
    TT_RECORD_FOUND = 1 << 6,   /* WRITE, ZERO: found so, not seen written */
    TT_RECORD_FLAGS_KNOWN = (1 << 7) - 1,
    TT_RECORD_FLAGS_OPTIONAL = 0xff00, /* unknown ones are ignored */
};

struct tt_record_header {
    tt_le16 kind;
    tt_le16 flags;
    tt_le32 length;         /* of this descriptor with its tail */
    tt_le64 time;           /* ns UTC, signed */
    tt_le64 disk_offset;    /* RESIZE: the old size */
    tt_le64 disk_length;    /* RESIZE: the new size */
    tt_le32 payload_offset; /* from the frame's start; 0 if there is none */
    tt_le32 payload_length; /* stored bytes, inline ones too */
    tt_le32 checksum_count;
    tt_le16 compression; /* 0: none; others are reserved */
    tt_le16 reserved;
    /* then tt_le64 checksums[checksum_count], then an inline body */
};

struct tt_session_body {
    tt_le64 realtime; /* ns UTC, read next to boottime */
    tt_le64 boottime; /* ns */
    uint8_t boot_id[TT_UUID_SIZE];
    tt_le64 disk_size;      /* bytes */
    tt_le64 disk_inode;     /* with HAS_STAT: of the local raw file */
    tt_le64 disk_mtime;     /* ns UTC */
    tt_le64 recovered_from; /* first sequence found undurable, or 0 */
    tt_le64 torn_offset;    /* what lay behind the end, or 0 */
    tt_le64 torn_length;
    tt_le32 flags;
    tt_le32 pid;
    /* then strings: struct tt_string, bytes, zeroes to a multiple of 8 */
};

enum {
    TT_SESSION_RECORDER = 1 << 0, /* a guest's disk is being recorded */
    TT_SESSION_CLEAN = 1 << 1,    /* the journal had been closed clean */
    TT_SESSION_HAS_STAT = 1 << 2, /* disk_inode and disk_mtime are set */
};

struct tt_string {
    tt_le16 tag;
    tt_le16 length;
};

#define TT_SESSION_STRINGS(X)                                                  \
    X(1, PROGRAM, "program")                                                   \
    X(2, HOST, "host")                                                         \
    X(3, NODE, "node")                                                         \
    X(4, DISK_FORMAT, "disk-format")                                           \
    X(5, DISK_PATH, "disk-path")                                               \
    X(6, MACHINE_ID, "machine-id")                                             \
    X(7, VM_NAME, "vm-name")                                                   \
    X(8, VM_UUID, "vm-uuid")

enum tt_session_tag {
#define X(value, name, text) TT_STRING_##name = value,
    TT_SESSION_STRINGS(X)
#undef X
};

struct tt_flush_body {
    tt_le64 covered_seq;
};

struct tt_clock_body {
    tt_le64 old_epoch;
    tt_le64 old_last_time; /* of the last record before */
    tt_le64 old_end_time;  /* what the old clock would have shown now */
    tt_le64 new_time;
    tt_le64 old_boottime; /* of the last frame before */
    tt_le64 new_boottime;
    tt_le32 reason;
    tt_le32 reserved;
};

enum {
    TT_CLOCK_BACKWARD = 1,
    TT_CLOCK_FORWARD = 2,
    TT_CLOCK_UNKNOWN = 3, /* another boot: the two cannot be compared */
};

/*
 * Of these a CHECKPOINT carries those that need no PREIMAGE any more, a GAP
 * those that are in doubt.
 */
struct tt_range {
    tt_le64 offset;
    tt_le64 length;
};

struct tt_checkpoint_body {
    tt_le64 level_seq;
    tt_le64 map_prev;   /* frame of the CHECKPOINT whose map this extends */
    tt_le64 disk_inode; /* as in struct tt_session_body */
    tt_le64 disk_mtime;
    tt_le32 flags;
    tt_le32 range_count;
};

enum {
    TT_CHECKPOINT_CLEAN = 1 << 0, /* closed: the disk is level and at rest */
    TT_CHECKPOINT_HAS_STAT = 1 << 1,
};

/*
 * After from_seq the ranges are in doubt, until a version behind this record
 * covers them.
 */
struct tt_gap_body {
    tt_le64 from_seq;
    tt_le64 opens_seq; /* the open GAP that this one closes, or 0 */
    tt_le64 from_epoch;
    tt_le64 from_time;
    tt_le64 to_time; /* of this record's epoch */
    tt_le32 reason;
    tt_le32 flags;
    tt_le32 range_count; /* 0: the whole disk is in doubt */
    tt_le32 reserved;
};

enum {
    TT_GAP_JOURNAL_ERROR = 1,
    TT_GAP_PAUSED = 2,
    TT_GAP_CHANGED_BEHIND = 3, /* the disk was changed by others */
    TT_GAP_UNKNOWN = 4,
};

enum {
    TT_GAP_OPEN = 1 << 0, /* still going on when this was written */
};

struct tt_damage_body {
    tt_le64 offset; /* in the journal */
    tt_le64 length;
    tt_le64 first_seq; /* of what is missing */
    tt_le64 last_seq;
};

enum {
    TT_EVENT_HOST = 1,
    TT_EVENT_GUEST = 2,
    TT_EVENT_TOOL = 3,
};

struct tt_event_body {
    tt_le32 source; /* who asserts it, TT_EVENT_… */
    tt_le32 length;
    /* then the text, UTF-8 */
};

/*
 * The payload of a FOOTER: the frames that its entries are of, in order, the
 * entries, sorted by (disk_offset, seq), and all their checksums, in the same
 * order.  The entries of one part sort before those of the next.
 */
struct tt_footer_body {
    tt_le64 segment;
    tt_le64 first_seq; /* of the segment */
    tt_le64 last_seq;
    tt_le64 epoch;
    tt_le64 first_time;
    tt_le64 last_time;
    tt_le64 end_offset; /* where its frames end */
    tt_le64 last_chain; /* chain value of its last frame */
    tt_le64 first_leaf;
    tt_le64 leaf_count;
    tt_le64 max_disk_length; /* of all its entries, RESIZE left out */
    uint8_t tree_hash[32];   /* zero: not computed */
    tt_le32 part;            /* 0, 1, …: a footer may take several records */
    tt_le32 part_count;
    tt_le32 entry_count;    /* in this part */
    tt_le32 checksum_count; /* in this part */
    tt_le32 frame_count;    /* in this part */
    tt_le32 reserved;
};

/*
 * Records of a frame that have one time: most often all of them.  If not,
 * several of these follow each other, with one offset.
 */
struct tt_footer_frame {
    tt_le32 seq;    /* of the first of them, minus the segment's first_seq */
    tt_le32 offset; /* of the frame, from the segment's start */
    tt_le64 time;   /* ns UTC, signed */
};

struct tt_footer_entry {
    tt_le64 disk_offset;    /* as in the record's descriptor */
    tt_le32 sectors;        /* disk_length in units of TT_SECTOR */
    tt_le32 seq;            /* minus the segment's first_seq */
    tt_le32 payload_offset; /* from the segment's start; 0 if none; RESIZE: */
                            /* the upper half of sectors */
    uint8_t kind;
    uint8_t flags; /* the lower half of them */
};

struct tt_seal_body {
    tt_le64 tree_size; /* leaves covered */
    tt_le64 session;   /* of the frame that ends with last_seq */
    tt_le64 last_seq;
    tt_le64 chain; /* that frame's chain value */
    tt_le64 epoch;
    tt_le64 time;
    tt_le64 disk_size;
    tt_le32 key_epoch;
    tt_le32 flags;
    uint8_t root[32];
    uint8_t public_key[32];
    uint8_t next_public_key[32]; /* zero unless the key is handed over */
    uint8_t signature[64];       /* over all before it and the UUID */
};

#endif
