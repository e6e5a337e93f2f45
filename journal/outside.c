/*
 * Verification of what lies outside of frames
 *
 * Superblocks are held to each other, the padding behind them must be zero.
 * Slack, between the last frame of a segment and the segment's end, and what
 * lies behind the end of history, are mentioned where they are not zero, and
 * where no SESSION has named them as torn.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stddef.h>

#include "verify.h"

/* Has a SESSION named [from, to), in whole sectors, as torn? */
static bool was_torn(const struct tt_history *h, uint64_t from, uint64_t to)
{
    for (size_t i = 0; i < h->sessions_count; i++) {
        const struct tt_session *s = &h->sessions[i];
        uint64_t first = s->torn_offset - s->torn_offset % TT_SECTOR;
        uint64_t end;

        if (s->torn_length &&
            !__builtin_add_overflow(s->torn_offset, s->torn_length, &end) &&
            first <= from && (to <= end || to - end < TT_SECTOR)) {
            return true;
        }
    }
    return false;
}

int tt_verify_slack(struct verifier *v, uint64_t from, uint64_t to,
                    int64_t time, bool torn)
{
    uint64_t first = 0, end = 0;

    for (uint64_t at = from; at < to;) {
        size_t len;
        int ret;

        at += tt_source_zeroes(v->src, at, to - at, TT_SECTOR);
        if (at >= to) {
            break;
        }
        len = to - at < TT_PAYLOAD_RECORD_MAX ? (size_t)(to - at)
                                              : TT_PAYLOAD_RECORD_MAX;
        ret = tt_verify_read(v, at, len);
        if (ret < 0) {
            return ret;
        }
        for (size_t i = 0;
             i < len && (ret == 0 || !tt_verify_is_zero(v->buf, len));
             i += TT_SECTOR) {
            size_t n = len - i < TT_SECTOR ? len - i : TT_SECTOR;

            if ((ret && tt_verify_is_zero(v->buf + i, n)) ||
                was_torn(v->history, at + i, at + i + n)) {
                continue;
            }
            first = end ? first : at + i;
            end = at + i + n;
        }
        at += len;
    }
    if (end) {
        tt_verify_report(
            v,
            (struct tt_finding){ .offset = first,
                                 .length = end - first,
                                 .time = time,
                                 .harmless = true },
            torn ? "not part of the history: what a crash, or an append "
                   "under way, left behind its end"
                 : "not part of the history: bytes between frames");
    }
    return 0;
}

/* Is @p a whole superblock that says what *first does? (0: it is *first) */
static bool copy_fits(const uint8_t *p, uint64_t offset,
                      struct tt_superblock *first)
{
    const size_t id = offsetof(struct tt_superblock, offset);
    const size_t rest = offsetof(struct tt_superblock, created);
    const size_t sum = offsetof(struct tt_superblock, checksum);
    struct tt_superblock sb;

    memcpy(&sb, p, sizeof(sb));
    if (memcmp(sb.magic, TT_SUPERBLOCK_MAGIC, TT_MAGIC_SIZE) ||
        tt_get64(sb.offset) != offset ||
        tt_get64(sb.checksum) != tt_checksum(&sb, sum)) {
        return false;
    }
    if (tt_get64(first->checksum) == 0) {
        *first = sb;
    }
    return !memcmp(&sb, first, id) &&
           !memcmp(p + rest, (const uint8_t *)first + rest, sum - rest);
}

int tt_verify_super(struct verifier *v)
{
    struct tt_superblock first = { 0 };

    for (uint64_t at = 0; at < TT_SEGMENTS_OFFSET; at += TT_SECTOR) {
        bool copy = at == 0 || at == TT_SUPERBLOCK_COPY;
        int ret = tt_verify_read(v, at, TT_SECTOR);

        if (ret < 0) {
            return ret;
        }
        if (ret == 0 || (copy ? !copy_fits(v->buf, at, &first)
                              : !tt_verify_is_zero(v->buf, TT_SECTOR))) {
            tt_verify_report(
                v, (struct tt_finding){ .offset = at, .length = TT_SECTOR },
                copy ? "a copy of the superblock is damaged"
                     : "the padding of the superblock is not zero");
        }
    }
    return 0;
}
