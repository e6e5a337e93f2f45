/*
 * What the parts of verification share
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_VERIFY_H
#define TTJOURNAL_VERIFY_H

#include <string.h>

#include "history.h"

struct verifier {
    const struct tt_source *src;
    const struct tt_verify_ops *ops;
    struct tt_error *err;
    struct tt_history *history; /* sessions, damages, what was salvaged */
    uint64_t findings;
    uint8_t *buf; /* TT_PAYLOAD_RECORD_MAX bytes */

    /* What the next header must say, unless records are missing before it. */
    struct tt_frame prev;
    bool has_prev, after_damage;
    uint64_t checkpoint_offset, notable_offset, footer_offset;
    uint64_t next_leaf, disk_size;

    /* What the footers of the present segment, and of one that has ended, must
     * say; and of all segments so far how much may be expected of them. */
    struct tt_footer *current, *ended;
    struct verified_segment *segments; /* by number */
    size_t segment_count;
    uint64_t breaks; /* how often records were missing so far */
    struct footer_session *footer_sessions; /* ascending */
    size_t footer_session_count, footer_session_room;
};

static inline bool tt_verify_is_zero(const uint8_t *p, size_t length)
{
    return !length || (!p[0] && !memcmp(p, p + 1, length - 1));
}

/* Hands a finding to the caller; its text is made here. */
void __attribute__((format(printf, 3, 4)))
tt_verify_report(struct verifier *v, struct tt_finding f, const char *fmt, ...);

/* Reads to v->buf.  1, or 0 if the medium cannot or the journal is short. */
int tt_verify_read(struct verifier *v, uint64_t offset, size_t length);

/* A finding about what @r says of itself or of others. */
struct tt_finding tt_verify_about(const struct tt_frame *f,
                                  const struct tt_record *r);

/* ---- footers (verify-footer.c) ----------------------------------------- */

/* Keeps what the footer of this frame's segment will have to say. */
int tt_verify_follow(struct verifier *v, const struct tt_frame *f,
                     const uint8_t *table);
/* Holds the FOOTER record @r, whose payload @body is whole, to its segment. */
int tt_verify_footer(struct verifier *v, const struct tt_frame *f,
                     const struct tt_record *r, const uint8_t *body);
/* All of history has passed: which footers have never become complete? */
void tt_verify_footers_end(struct verifier *v);
void tt_verify_footers_clear(struct verifier *v);

/* ---- what is no frame (outside.c) --------------------------------------- */

/* Both superblocks, and the padding behind them. */
int tt_verify_super(struct verifier *v);

/*
 * Mentions what lies in [from, to), where no frame of history does.  @torn:
 * behind the end, where a crash leaves bytes that nobody has named yet.
 */
int tt_verify_slack(struct verifier *v, uint64_t from, uint64_t to,
                    int64_t time, bool torn);

#endif
