/*
 * Verification: is every byte of the journal what was written there?
 *
 * The scan decides which frames are history; here each of them is held to
 * everything that a reader may rely on but does not look at: every piece of
 * payload, padding, the short cuts and running values of the header, footers
 * against the segments that they describe.  Slack and what lies behind the end
 * are no part of history: bytes there are mentioned, unless a SESSION has
 * named them as torn, and are not called damage.
 *
 * A place that cannot be read is a finding like any other.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify.h"

#define HEADER sizeof(struct tt_frame_header)
#define DESC sizeof(struct tt_record_header)

/* ---- findings ---------------------------------------------------------- */

void tt_verify_report(struct verifier *v, struct tt_finding f, const char *fmt,
                      ...)
{
    char what[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    f.what = what;
    v->findings++;
    if (v->ops && v->ops->finding) {
        v->ops->finding(v->ops->opaque, &f);
    }
}

/* A finding about the header of @f. */
static void report_frame(struct verifier *v, const struct tt_frame *f,
                         const char *field, uint64_t is, uint64_t should)
{
    tt_verify_report(v,
                     (struct tt_finding){ .offset = f->offset,
                                          .length = HEADER,
                                          .first_seq = f->first_seq,
                                          .last_seq = tt_frame_last_seq(f),
                                          .time = f->first_time },
                     "the frame's %s is %" PRIu64 ", and should be %" PRIu64,
                     field, is, should);
}

struct tt_finding tt_verify_about(const struct tt_frame *f,
                                  const struct tt_record *r)
{
    struct tt_finding finding = {
        .offset = f->offset,
        .length = f->payload_offset,
        .first_seq = r->seq,
        .last_seq = r->seq,
        .time = r->time,
    };

    if (r->payload_offset) {
        finding.offset = f->offset + r->payload_offset;
        finding.length = r->payload_length;
    }
    if (tt_kind_is_version(r->kind)) {
        finding.disk_offset = r->disk_offset;
        finding.disk_length = r->disk_length;
    }
    return finding;
}

/* Reads to v->buf.  1, or 0 if the medium cannot or the journal is short. */
int tt_verify_read(struct verifier *v, uint64_t offset, size_t length)
{
    int ret;

    if (offset > v->src->size || length > v->src->size - offset) {
        return 0;
    }
    ret = v->src->read(v->src->opaque, offset, v->buf, length);
    if (ret < 0 && ret != -EIO) {
        return tt_fail(v->err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    return ret == 0;
}

/* ---- payload and padding ----------------------------------------------- */

/* The payload of @r is in v->buf: names each run of pieces that does not fit */
static void check_pieces(struct verifier *v, const struct tt_frame *f,
                         const struct tt_record *r)
{
    uint64_t origin = tt_grid_origin(r), end = origin + r->payload_length;
    uint64_t bad = 0, at = origin;
    struct tt_finding finding = tt_verify_about(f, r);

    for (uint32_t i = 0; i <= r->checksum_count; i++) {
        uint64_t next = at - at % TT_GRID + TT_GRID;
        bool fits = true;

        next = next < end ? next : end;
        if (i < r->checksum_count) {
            fits = tt_checksum(v->buf + (at - origin), next - at) ==
                   tt_get64(r->checksums[i]);
        }
        if (!fits) {
            bad += next - at;
        } else if (bad) {
            finding.offset =
                f->offset + r->payload_offset + (at - bad - origin);
            finding.length = bad;
            if (tt_kind_is_version(r->kind)) {
                finding.disk_offset = at - bad;
                finding.disk_length = bad;
            }
            tt_verify_report(v, finding,
                             "what a %s record stored does not fit its "
                             "checksum",
                             tt_kind_name(r->kind));
            bad = 0;
        }
        at = next;
    }
}

/* 1 if the payload is whole and in v->buf; 0, reported, if it is not. */
static int check_payload(struct verifier *v, const struct tt_frame *f,
                         const struct tt_record *r)
{
    const char *kind = tt_kind_name(r->kind);
    int ret;

    if (!r->payload_offset) {
        return 1;
    }
    ret = tt_verify_read(v, f->offset + r->payload_offset, r->payload_length);
    if (ret == 0) {
        tt_verify_report(v, tt_verify_about(f, r),
                         "what a %s record stored cannot be read",
                         kind ? kind : "later");
    } else if (ret > 0 && !tt_payload_check(r, v->buf, NULL)) {
        check_pieces(v, f, r);
        ret = 0;
    }
    return ret;
}

static int check_padding(struct verifier *v, uint64_t offset, uint64_t length,
                         const char *what)
{
    int ret = length ? tt_verify_read(v, offset, length) : 1;

    if (ret < 0) {
        return ret;
    }
    if (ret == 0) {
        tt_verify_report(
            v, (struct tt_finding){ .offset = offset, .length = length },
            "%s cannot be read", what);
    } else if (length && !tt_verify_is_zero(v->buf, length)) {
        tt_verify_report(
            v, (struct tt_finding){ .offset = offset, .length = length },
            "%s is not zero", what);
    }
    return 0;
}

/* ---- records ----------------------------------------------------------- */

static void check_range(struct verifier *v, const struct tt_frame *f,
                        const struct tt_record *r)
{
    uint64_t end = r->disk_offset + r->disk_length;

    if (r->kind == TT_KIND_RESIZE) {
        if (r->disk_offset != v->disk_size) {
            tt_verify_report(v, tt_verify_about(f, r),
                             "the disk is resized from %" PRIu64
                             ", but its size was %" PRIu64,
                             r->disk_offset, v->disk_size);
        }
        v->disk_size = r->disk_length;
    } else if (tt_kind_is_version(r->kind) && end > v->disk_size) {
        tt_verify_report(v, tt_verify_about(f, r),
                         "a %s record reaches beyond the disk's end at "
                         "%" PRIu64,
                         tt_kind_name(r->kind), v->disk_size);
    }
}

static int check_session(struct verifier *v, const struct tt_frame *f,
                         const struct tt_record *r, const uint8_t *body)
{
    struct tt_record whole = *r;
    struct tt_session s;
    int ret;

    whole.body = body;
    ret = tt_session_decode(&whole, &s, v->err);
    if (ret == 0) {
        tt_session_clear(&s);
    } else if (ret == -TT_EDAMAGED) {
        tt_verify_report(v, tt_verify_about(f, r),
                         "a SESSION record is not well-formed");
        ret = 0;
    }
    return ret;
}

/* The body of @r, which is whole. */
static int check_body(struct verifier *v, const struct tt_frame *f,
                      const struct tt_record *r, const uint8_t *body)
{
    struct tt_checkpoint_body cp;

    switch (r->kind) {
    case TT_KIND_SESSION:
        return check_session(v, f, r, body);
    case TT_KIND_MARK:
        if (!tt_mark_name_ok((const char *)body, r->payload_length)) {
            tt_verify_report(v, tt_verify_about(f, r),
                             "a MARK record has no valid name");
        }
        break;
    case TT_KIND_CHECKPOINT:
        if (r->payload_length < sizeof(cp)) {
            tt_verify_report(v, tt_verify_about(f, r),
                             "a CHECKPOINT record is too short");
            break;
        }
        memcpy(&cp, body, sizeof(cp));
        if (tt_get64(cp.level_seq) >= r->seq ||
            tt_get64(cp.map_prev) >= f->offset) {
            tt_verify_report(v, tt_verify_about(f, r),
                             "a CHECKPOINT record refers to what comes "
                             "after it");
        }
        break;
    case TT_KIND_CLOCK:
        if (r->payload_length < sizeof(struct tt_clock_body)) {
            tt_verify_report(v, tt_verify_about(f, r),
                             "a CLOCK record is too short");
        }
        break;
    case TT_KIND_GAP:
        if (r->payload_length < sizeof(struct tt_gap_body)) {
            tt_verify_report(v, tt_verify_about(f, r),
                             "a GAP record is too short");
        }
        break;
    case TT_KIND_FOOTER:
        return tt_verify_footer(v, f, r, body);
    }
    return 0;
}

static void note_short_cuts(struct verifier *v, const struct tt_frame *f,
                            const struct tt_record *r)
{
    bool more = r->flags & TT_RECORD_MORE;

    if (r->kind == TT_KIND_CHECKPOINT && !more) {
        v->checkpoint_offset = f->offset;
    } else if (r->kind == TT_KIND_FOOTER && !more) {
        v->footer_offset = f->offset;
    } else if (tt_kind_is_notable(r->kind)) {
        v->notable_offset = f->offset;
    }
}

static int check_record(struct verifier *v, const struct tt_frame *f,
                        const struct tt_record *r)
{
    int ret = check_payload(v, f, r);

    if (ret > 0 && !tt_kind_is_version(r->kind)) {
        ret = check_body(v, f, r, r->body ? r->body : v->buf);
    }
    if (r->body && r->payload_length % 8 &&
        !tt_verify_is_zero(r->body + r->payload_length,
                           8 - r->payload_length % 8)) {
        tt_verify_report(v, tt_verify_about(f, r),
                         "the padding of a record is not zero");
    }
    check_range(v, f, r);
    note_short_cuts(v, f, r);
    return ret < 0 ? ret : 0;
}

/* ---- frames ------------------------------------------------------------ */

#define EXPECT(field, should)                                                  \
    do {                                                                       \
        if (f->field != (should)) {                                            \
            report_frame(v, f, #field, f->field, (should));                    \
        }                                                                      \
    } while (0)

/* What the links do not hold the header to. */
static void check_header(struct verifier *v, const struct tt_frame *f)
{
    const struct tt_frame *prev = &v->prev;

    /* Who wrote behind damage did not know what can be read there again. */
    if (v->after_damage || (f->flags & TT_FRAME_AFTER_DAMAGE)) {
        v->disk_size = f->disk_size;
        v->checkpoint_offset = f->checkpoint_offset;
        v->notable_offset = f->notable_offset;
        v->footer_offset = f->footer_offset;
        return;
    }
    EXPECT(disk_size, v->disk_size);
    EXPECT(checkpoint_offset, v->checkpoint_offset);
    EXPECT(notable_offset, v->notable_offset);
    EXPECT(footer_offset, v->footer_offset);
    EXPECT(first_leaf, v->next_leaf);
    EXPECT(session_offset, f->flags & TT_FRAME_SESSION_START
                               ? f->offset
                               : prev->session_offset);
    EXPECT(epoch_offset,
           f->flags & TT_FRAME_EPOCH_START ? f->offset : prev->epoch_offset);
    if (v->has_prev && f->session == prev->session &&
        f->boottime < prev->boottime) {
        report_frame(v, f, "boottime", f->boottime, prev->boottime);
    }
}

static int check_frame(void *opaque, const struct tt_frame *f,
                       const uint8_t *table)
{
    struct verifier *v = opaque;
    uint32_t pos = 0, index = 0;
    uint64_t payload_end = f->payload_offset;
    uint64_t table_end = HEADER + f->table_length;
    uint64_t slack = v->has_prev ? tt_frame_end(&v->prev)
                                 : v->history->super.segments_offset;
    struct tt_record r;
    int ret = 0;

    if (!v->after_damage) {
        ret = tt_verify_slack(v, slack, f->offset, f->first_time, false);
    }
    check_header(v, f);
    if (ret == 0) {
        ret = tt_verify_follow(v, f, table);
    }
    while (ret == 0 && tt_table_next(f, table, &pos, &index, &r)) {
        ret = check_record(v, f, &r);
        if (r.payload_offset) {
            payload_end = r.payload_offset + r.payload_length;
        }
    }
    if (ret == 0) {
        ret = check_padding(v, f->offset + table_end,
                            f->payload_offset - table_end,
                            "the padding behind a frame's table");
    }
    if (ret == 0) {
        ret = check_padding(v, f->offset + payload_end, f->length - payload_end,
                            "the padding behind a frame's payload");
    }
    v->prev = *f;
    v->has_prev = true;
    v->after_damage = false;
    v->next_leaf = f->first_leaf + (f->length + TT_LEAF - 1) / TT_LEAF;
    if (v->ops && v->ops->progress) {
        v->ops->progress(v->ops->opaque, tt_frame_end(f), v->src->size);
    }
    return ret;
}

/* ---- damage ------------------------------------------------------------ */

/* What a footer says of a missing record: are its bytes still there? */
static int check_salvaged(struct verifier *v, const struct salvaged *s)
{
    struct tt_record r = {
        .kind = s->kind,
        .disk_offset = s->disk_offset,
        .payload_length = (uint32_t)s->disk_length,
        .checksum_count = tt_grid_pieces(s->disk_offset, s->disk_length),
        .checksums = s->checksums,
    };
    int ret;

    if (!s->checksums) {
        return 0;
    }
    ret = tt_verify_read(v, s->payload, s->disk_length);
    if (ret == 0 || (ret > 0 && !tt_payload_check(&r, v->buf, NULL))) {
        tt_verify_report(
            v,
            (struct tt_finding){ s->payload, s->disk_length, s->seq, s->seq,
                                 s->disk_offset, s->disk_length, s->time, false,
                                 NULL },
            "what a missing %s record stored is lost; its footer tells "
            "where it wrote",
            tt_kind_name(s->kind));
    }
    return ret < 0 ? ret : 0;
}

static int check_damage(void *opaque, const struct tt_damage *d)
{
    struct verifier *v = opaque;
    const struct tt_history *h = v->history;
    const struct blind *b = tt_history_blind_before(h, d->last_seq);
    int ret = 0;

    v->after_damage = true;
    tt_verify_report(v,
                     (struct tt_finding){ .offset = d->offset,
                                          .length = d->length,
                                          .first_seq = d->first_seq,
                                          .last_seq = d->last_seq,
                                          .time = d->after_time },
                     "damaged: %" PRIu64 " records are missing%s",
                     d->last_seq - d->first_seq + 1,
                     b && b->last_seq >= d->first_seq
                         ? ""
                         : "; a footer tells what they wrote, and where");
    for (size_t i = 0; i < h->salvaged_count && ret == 0; i++) {
        if (h->salvaged[i].seq >= d->first_seq &&
            h->salvaged[i].seq <= d->last_seq) {
            ret = check_salvaged(v, &h->salvaged[i]);
        }
    }
    return ret;
}

/* ---- entry point ------------------------------------------------------- */

static int verify_all(struct verifier *v)
{
    struct tt_scan_ops ops = { .frame = check_frame,
                               .damage = check_damage,
                               .opaque = v };
    const struct tt_super *super = &v->history->super;
    struct tt_scan scan;
    int ret = tt_verify_super(v);

    v->disk_size = super->disk_size;
    if (ret == 0) {
        ret = tt_scan_run(super, v->src, 0, &ops, &scan, v->err);
    }
    if (ret == 0) {
        tt_verify_footers_end(v);
    }
    if (ret == 0 && v->history->stats.duplicate_preimages) {
        tt_verify_report(v, (struct tt_finding){ .harmless = true },
                         "%" PRIu64
                         " PREIMAGE records are of blocks that had one, and "
                         "are ignored",
                         v->history->stats.duplicate_preimages);
    }
    if (ret == 0 && scan.end_offset < v->src->size) {
        ret = tt_verify_slack(v, scan.end_offset, v->src->size,
                              scan.empty ? 0 : scan.last.last_time, true);
    }
    if (ret == 0 && v->ops && v->ops->progress) {
        v->ops->progress(v->ops->opaque, v->src->size, v->src->size);
    }
    return ret;
}

int tt_verify(const struct tt_source *src, const struct tt_verify_ops *ops,
              uint64_t *ret_findings, struct tt_error *err)
{
    struct verifier v = { .src = src, .ops = ops, .err = err };
    int ret = 0;

    v.history = tt_history_new();
    v.buf = malloc(TT_PAYLOAD_RECORD_MAX);
    if (!v.history || !v.buf) {
        ret = tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    if (ret == 0) {
        ret = tt_history_load(v.history, src, err);
    }
    if (ret == 0) {
        ret = verify_all(&v);
    }
    *ret_findings = v.findings;
    tt_verify_footers_clear(&v);
    free(v.buf);
    tt_history_free(v.history);
    return ret;
}
