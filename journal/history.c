/*
 * History: what was written when, taken from the tables of all frames
 *
 * The scan hands over every accepted frame, in order.  Each record's range
 * goes into the index of versions, or of pre-images (the versions at sequence
 * 0); everything else that moments and views ask for goes into small arrays in
 * order of sequence.  Payload is not read, but for bodies that do not lie in
 * the table.
 *
 * Invariants:
 *   - what the arrays hold ends with scan.last, unless the history is broken;
 *   - of the records of a damage nothing is in the index, except what a footer
 *     has told since, and blinds holds exactly those it has not told.
 *
 * A body that is damaged costs what it said, not the journal.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "history.h"

#define PUSH(h, name, ...)                                                     \
    (tt_history_room(&(h)->name, (h)->name##_count, &(h)->name##_room,         \
                     sizeof(*(h)->name))                                       \
         ? ((h)->name[(h)->name##_count++] = (__VA_ARGS__), true)              \
         : false)

bool tt_history_room(void *array, size_t count, size_t *room, size_t unit)
{
    void *p;
    size_t n;

    if (count < *room) {
        return true;
    }
    n = *room ? *room * 2 : 16;
    memcpy(&p, array, sizeof(p));
    if (n > SIZE_MAX / unit || !(p = realloc(p, n * unit))) {
        return false;
    }
    memcpy(array, &p, sizeof(p));
    *room = n;
    return true;
}

static int no_memory(struct tt_history *h)
{
    return tt_fail(h->err, TT_ENOMEM, ENOMEM, "out of memory");
}

/* ---- bodies ------------------------------------------------------------ */

int tt_history_body(struct tt_history *h, const struct tt_frame *f,
                    const struct tt_record *rec, const uint8_t **ret_body)
{
    uint64_t at = f->offset + rec->payload_offset;
    int ret;

    if (rec->body || !rec->payload_length) {
        *ret_body = rec->body ? rec->body : (const uint8_t *)"";
        return 1;
    }
    if (!h->body && !(h->body = malloc(TT_PAYLOAD_RECORD_MAX))) {
        return no_memory(h);
    }
    if (at > h->src->size || rec->payload_length > h->src->size - at) {
        return 0;
    }
    ret = h->src->read(h->src->opaque, at, h->body, rec->payload_length);
    if (ret < 0 && ret != -EIO) {
        return tt_fail(h->err, TT_EIO, -ret,
                       "cannot read the journal at %" PRIu64 ": %s", at,
                       strerror(-ret));
    }
    *ret_body = h->body;
    return ret == 0 && tt_payload_check(rec, h->body, NULL);
}

static int take_session(struct tt_history *h, const struct tt_frame *f,
                        const struct tt_record *rec)
{
    struct tt_record whole = *rec;
    struct tt_session s;
    int ret = tt_history_body(h, f, rec, &whole.body);

    if (ret == 0) {
        h->stats.clean = false; /* it may have been a recorder's */
        return 0;
    }
    if (ret > 0) {
        ret = tt_session_decode(&whole, &s, h->err);
    }
    if (ret < 0) {
        return ret == -TT_EDAMAGED ? 0 : ret;
    }
    s.session = f->session;
    if (s.flags & TT_SESSION_RECORDER) {
        h->stats.clean = false;
    }
    if (!PUSH(h, sessions, s)) {
        tt_session_clear(&s);
        return no_memory(h);
    }
    return 0;
}

static int take_mark(struct tt_history *h, const struct tt_frame *f,
                     const struct tt_record *rec)
{
    struct tt_mark m = { .seq = rec->seq, .time = rec->time };
    const uint8_t *body;
    int ret = tt_history_body(h, f, rec, &body);

    if (ret <= 0 || !tt_mark_name_ok((const char *)body, rec->payload_length)) {
        return ret < 0 ? ret : 0;
    }
    m.name = malloc(rec->payload_length + 1);
    if (!m.name) {
        return no_memory(h);
    }
    memcpy(m.name, body, rec->payload_length);
    m.name[rec->payload_length] = '\0';
    if (!PUSH(h, marks, m)) {
        free(m.name);
        return no_memory(h);
    }
    return 0;
}

/* What the clock of the epoch that ended showed at last. */
static int take_clock(struct tt_history *h, const struct tt_frame *f,
                      const struct tt_record *rec)
{
    struct tt_clock_body b;
    const uint8_t *body;
    int ret = tt_history_body(h, f, rec, &body);
    size_t n = h->epochs_count;
    struct tt_epoch *old;
    uint32_t reason;

    if (ret <= 0 || rec->payload_length < sizeof(b) || n < 2) {
        return ret < 0 ? ret : 0;
    }
    memcpy(&b, body, sizeof(b));
    old = &h->epochs[n - 2];
    reason = tt_get32(b.reason);
    if (rec->seq != h->epochs[n - 1].first_seq ||
        tt_get64(b.old_epoch) != old->number ||
        (reason != TT_CLOCK_BACKWARD && reason != TT_CLOCK_FORWARD)) {
        return 0;
    }
    h->ends[n - 2].reason = reason;
    if ((int64_t)tt_get64(b.old_end_time) > old->last_time) {
        old->end_time = (int64_t)tt_get64(b.old_end_time);
    }
    return 0;
}

static int take_checkpoint(struct tt_history *h, const struct tt_frame *f,
                           const struct tt_record *rec)
{
    struct tt_checkpoint_body b;
    const uint8_t *body;
    int ret = tt_history_body(h, f, rec, &body);

    h->stats.clean = false;
    if (ret > 0 && rec->payload_length >= sizeof(b)) {
        memcpy(&b, body, sizeof(b));
        h->stats.clean = tt_get32(b.flags) & TT_CHECKPOINT_CLEAN;
        h->stats.level_seq = tt_get64(b.level_seq);
    }
    return ret < 0 ? ret : 0;
}

/* ---- versions ---------------------------------------------------------- */

/* A RESIZE that a footer tells of comes after newer ones. */
static bool add_size(struct tt_history *h, uint64_t seq, uint64_t size)
{
    size_t i = h->sizes_count;

    if (!PUSH(h, sizes, (struct size_point){ seq, size })) {
        return false;
    }
    while (i > 0 && h->sizes[i - 1].seq > seq) {
        h->sizes[i] = h->sizes[i - 1];
        h->sizes[--i] = (struct size_point){ seq, size };
    }
    return true;
}

/*
 * The first pre-image of a byte wins.  That is for the look-up to decide, by
 * sequence: what a footer tells comes late, and may yet be the first.
 */
static int add_preimage(struct tt_history *h, const struct placed *p,
                        const struct version *v)
{
    uint64_t end = p->disk_offset + p->disk_length;
    struct index_hit hit;

    tt_index_oldest(&h->preimages, p->disk_offset, &hit);
    if (hit.version || hit.end < end) {
        h->stats.duplicate_preimages++;
        if (hit.version && hit.end >= end && hit.version->seq < v->seq) {
            return 0;
        }
    }
    return tt_index_add(&h->preimages, p->disk_offset, p->disk_length, v)
               ? 0
               : no_memory(h);
}

/* Keeps the checksums of @p; false if out of memory. */
static bool keep_sums(struct tt_history *h, const struct placed *p,
                      uint32_t *ret_first)
{
    uint32_t n = tt_grid_pieces(p->disk_offset, p->disk_length);

    while (h->sums_room < h->sums_count + n) {
        if (h->sums_room > UINT32_MAX / 2 ||
            !tt_history_room(&h->sums, h->sums_room, &h->sums_room,
                             sizeof(*h->sums))) {
            return false;
        }
    }
    memcpy(h->sums + h->sums_count, p->sums, n * sizeof(*p->sums));
    *ret_first = (uint32_t)h->sums_count;
    h->sums_count += n;
    return true;
}

int tt_history_add_version(struct tt_history *h, const struct placed *p)
{
    struct version v = { .seq = p->seq,
                         .place = p->payload,
                         .zero = p->payload == 0 };
    uint64_t offset = p->disk_offset, length = p->disk_length;

    if (p->kind == TT_KIND_RESIZE && !add_size(h, p->seq, p->disk_length)) {
        return no_memory(h);
    }
    if (h->sink) {
        return h->sink->version(h->sink->opaque, p, h->err);
    }
    if (p->payload && !keep_sums(h, p, &v.sum)) {
        return no_memory(h);
    }
    if (p->kind == TT_KIND_PREIMAGE) {
        return add_preimage(h, p, &v);
    }
    if (p->kind == TT_KIND_RESIZE) {
        length = placed_is_growth(p) ? p->disk_length - p->disk_offset : 0;
    }
    return tt_index_add(&h->versions, offset, length, &v) ? 0 : no_memory(h);
}

static int take_version(struct tt_history *h, const struct tt_frame *f,
                        const struct tt_record *rec)
{
    struct placed p = {
        .seq = rec->seq,
        .time = rec->time,
        .disk_offset = rec->disk_offset,
        .disk_length = rec->disk_length,
        .payload = rec->payload_offset ? f->offset + rec->payload_offset : 0,
        .sums = rec->checksums,
        .kind = rec->kind,
        .flags = rec->flags,
    };

    h->stats.clean = false;
    h->stats.writes += rec->kind == TT_KIND_WRITE;
    h->stats.zeroes += rec->kind == TT_KIND_ZERO;
    h->stats.preimages += rec->kind == TT_KIND_PREIMAGE;
    h->stats.resizes += rec->kind == TT_KIND_RESIZE;
    if (rec->kind == TT_KIND_WRITE) {
        h->stats.written_bytes += rec->payload_length;
    }
    if (!h->sink && !PUSH(h, undurable, rec->seq)) {
        return no_memory(h);
    }
    return tt_history_add_version(h, &p);
}

/* ---- frames ------------------------------------------------------------ */

static int take_time(struct tt_history *h, const struct tt_record *rec)
{
    size_t n = h->times_count;

    if (h->sink || (n && h->times[n - 1].time == rec->time)) {
        return 0;
    }
    return PUSH(h, times, (struct time_point){ rec->seq, rec->time })
               ? 0
               : no_memory(h);
}

/* A record that is no version. */
static int take_other(struct tt_history *h, const struct tt_frame *f,
                      const struct tt_record *rec)
{
    switch (rec->kind) {
    case TT_KIND_FLUSH:
        h->stats.flushes++;
        return 0;
    case TT_KIND_SESSION:
        h->stats.sessions++;
        return take_session(h, f, rec);
    case TT_KIND_MARK:
        h->stats.marks++;
        return take_mark(h, f, rec);
    case TT_KIND_CLOCK:
        return take_clock(h, f, rec);
    case TT_KIND_CHECKPOINT:
        return take_checkpoint(h, f, rec);
    case TT_KIND_GAP:
        h->stats.gaps++;
        return tt_history_gap(h, f, rec);
    case TT_KIND_FOOTER:
        return tt_history_footer(h, f, rec);
    case TT_KIND_DAMAGE:
        h->stats.damages++;
        if (!h->damage_record) {
            h->damage_record = rec->seq;
        }
        break;
    }
    return 0;
}

static bool is_version(const struct tt_record *rec)
{
    return tt_kind_is_version(rec->kind) || rec->kind == TT_KIND_RESIZE;
}

static int take_record(struct tt_history *h, const struct tt_frame *f,
                       const struct tt_record *rec)
{
    int ret = take_time(h, rec);

    h->stats.records++;
    if (ret < 0) {
        return ret;
    }
    return is_version(rec) ? take_version(h, f, rec) : take_other(h, f, rec);
}

static bool begin_epoch(struct tt_history *h, const struct tt_frame *f)
{
    struct tt_epoch e = {
        .number = f->epoch,
        .first_seq = f->first_seq,
        .first_time = f->first_time,
    };

    if (h->ends_count) {
        h->ends[h->ends_count - 1].reason = TT_CLOCK_UNKNOWN;
    }
    return PUSH(h, epochs, e) && PUSH(h, ends, (struct epoch_end){ 0 });
}

/* What the header says that the records before did not. */
static int take_header(struct tt_history *h, const struct tt_frame *f)
{
    struct tt_epoch *e;
    bool new_epoch =
        !h->epochs_count || h->epochs[h->epochs_count - 1].number != f->epoch;

    if (new_epoch && !begin_epoch(h, f)) {
        return no_memory(h);
    }
    /* The search for a time needs points where it may not run on. */
    if ((new_epoch || h->after_damage) && !h->sink &&
        !PUSH(h, times, (struct time_point){ f->first_seq, f->first_time })) {
        return no_memory(h);
    }
    e = &h->epochs[h->epochs_count - 1];
    e->last_seq = tt_frame_last_seq(f);
    e->last_time = e->end_time = f->last_time;
    if (h->sizes[h->sizes_count - 1].size != f->disk_size &&
        !add_size(h, f->first_seq - 1, f->disk_size)) {
        return no_memory(h);
    }
    if (!h->stats.frames || h->last_segment != f->segment) {
        h->stats.segments++;
    }
    h->last_segment = f->segment;
    h->stats.frames++;
    h->after_damage = false;
    return 0;
}

int tt_history_take_frame(void *opaque, const struct tt_frame *f,
                          const uint8_t *table)
{
    struct tt_history *h = opaque;
    uint32_t pos = 0, next = 0;
    struct tt_record rec;
    int ret = h->sink ? h->sink->frame(h->sink->opaque, f, h->err) : 0;

    if (ret == 0) {
        ret = take_header(h, f);
    }
    tt_history_gap_followed(h, f);
    if (h->undurable_count &&
        h->undurable[h->undurable_count - 1] <= f->durable_seq) {
        h->undurable_count = 0;
    }
    while (ret == 0 && tt_table_next(f, table, &pos, &next, &rec)) {
        ret = take_record(h, f, &rec);
    }
    h->broken = ret < 0;
    return ret;
}

int tt_history_take_rest(struct tt_history *h, const struct tt_frame *f,
                         const uint8_t *table)
{
    uint32_t pos = 0, next = 0;
    struct tt_record rec;
    int ret = take_header(h, f);

    tt_history_gap_followed(h, f);
    while (ret == 0 && tt_table_next(f, table, &pos, &next, &rec)) {
        if (rec.kind == TT_KIND_RESIZE) {
            h->stats.resizes++;
            ret = add_size(h, rec.seq, rec.disk_length) ? 0 : no_memory(h);
        } else if (!is_version(&rec) && rec.kind != TT_KIND_FOOTER) {
            ret = take_other(h, f, &rec);
        }
    }
    return ret;
}

int tt_history_take_damage(void *opaque, const struct tt_damage *d)
{
    struct tt_history *h = opaque;
    int ret;

    h->stats.clean = false;
    h->after_damage = true;
    ret = PUSH(h, damages, *d) ? tt_history_add_blind(h, d) : no_memory(h);
    h->broken = ret < 0;
    return ret;
}

/* ---- loading ----------------------------------------------------------- */

struct tt_history *tt_history_new(void)
{
    return calloc(1, sizeof(struct tt_history));
}

void tt_history_reset(struct tt_history *h)
{
    for (size_t i = 0; i < h->marks_count; i++) {
        free(h->marks[i].name);
    }
    for (size_t i = 0; i < h->sessions_count; i++) {
        tt_session_clear(&h->sessions[i]);
    }
    for (size_t i = 0; i < h->salvaged_count; i++) {
        free(h->salvaged[i].checksums);
    }
    tt_history_footer_clear(&h->footer);
    tt_index_clear(&h->versions);
    tt_index_clear(&h->preimages);
    tt_index_clear(&h->doubts);
    free(h->gap_ranges);
    free(h->runs);
    free(h->sums);
    free(h->times);
    free(h->sizes);
    free(h->epochs);
    free(h->ends);
    free(h->marks);
    free(h->sessions);
    free(h->damages);
    free(h->gaps);
    free(h->blinds);
    free(h->salvaged);
    free(h->undurable);
    free(h->body);
    *h = (struct tt_history){ 0 };
}

void tt_history_free(struct tt_history *h)
{
    if (h) {
        tt_history_reset(h);
        free(h);
    }
}

int tt_history_settle(struct tt_history *h)
{
    size_t kept = 0;
    int ret = tt_history_gaps_settle(h) ? 0 : no_memory(h);

    free(h->body);
    h->body = NULL;
    h->src = NULL;
    h->err = NULL;
    for (size_t i = 0; i < h->undurable_count; i++) {
        if (h->undurable[i] > h->scan.durable_seq) {
            h->undurable[kept++] = h->undurable[i];
        }
    }
    h->undurable_count = kept;
    return ret;
}

int tt_history_begin(struct tt_history *h, const struct tt_source *src,
                     struct tt_error *err)
{
    int ret;

    h->src = src;
    h->err = err;
    ret = tt_super_read(src, &h->super, NULL, err);
    if (ret == 0 &&
        !PUSH(h, sizes, (struct size_point){ 0, h->super.disk_size })) {
        ret = no_memory(h);
    }
    return ret;
}

/* Reads on from the frame at @from; @moving: as in struct tt_scan_ops. */
static int load_from(struct tt_history *h, uint64_t from, bool moving)
{
    struct tt_scan_ops ops = { tt_history_take_frame, tt_history_take_damage, h,
                               moving };
    int ret = tt_scan_run(&h->super, h->src, from, &ops, &h->scan, h->err);

    if (ret == 0 &&
        !(tt_index_compact(&h->versions) && tt_index_compact(&h->preimages))) {
        ret = no_memory(h);
    }
    return ret == 0 ? tt_history_settle(h) : ret;
}

static int loaded(struct tt_history *h, int ret)
{
    if (ret < 0) {
        tt_history_reset(h);
    } else {
        h->loaded = true;
    }
    return ret;
}

int tt_history_load(struct tt_history *h, const struct tt_source *src,
                    struct tt_error *err)
{
    int ret;

    tt_history_reset(h);
    ret = tt_history_begin(h, src, err);
    return loaded(h, ret == 0 ? load_from(h, 0, false) : ret);
}

/* What the catalog and the runs know, before the tail is read. */
static int take_index(struct tt_history *h, const struct tt_catalog *catalog,
                      struct tt_run *const *runs, size_t run_count)
{
    int ret = tt_catalog_check(catalog, h->src, h->err);

    if (ret == 0) {
        ret = tt_catalog_rest(catalog, h, h->err);
    }
    if (ret == 0) {
        ret = tt_catalog_has_runs(catalog, runs, run_count, h->err);
    }
    if (ret < 0 || !run_count) {
        return ret;
    }
    h->runs = malloc(run_count * sizeof(*h->runs));
    if (!h->runs) {
        return no_memory(h);
    }
    memcpy(h->runs, runs, run_count * sizeof(*h->runs));
    h->runs_count = run_count;
    h->covered_seq = tt_catalog_last_seq(catalog);
    h->tail_offset = tt_catalog_end_offset(catalog);
    h->journal = h->src;
    return 0;
}

static int open_index(struct tt_history *h, const struct tt_source *src,
                      const struct tt_catalog *catalog,
                      struct tt_run *const *runs, size_t run_count, bool moving,
                      struct tt_error *err)
{
    int ret;

    tt_history_reset(h);
    ret = tt_history_begin(h, src, err);
    if (ret == 0) {
        ret = take_index(h, catalog, runs, run_count);
    }
    if (ret == 0) {
        ret = load_from(h, tt_catalog_end_offset(catalog), moving);
    }
    return loaded(h, ret);
}

int tt_history_open(struct tt_history *h, const struct tt_source *src,
                    const struct tt_catalog *catalog,
                    struct tt_run *const *runs, size_t run_count,
                    struct tt_error *err)
{
    return open_index(h, src, catalog, runs, run_count, false, err);
}

int tt_history_open_moving(struct tt_history *h, const struct tt_source *src,
                           const struct tt_catalog *catalog,
                           struct tt_run *const *runs, size_t run_count,
                           struct tt_error *err)
{
    return open_index(h, src, catalog, runs, run_count, true, err);
}

int tt_history_refresh(struct tt_history *h, const struct tt_source *src,
                       bool *ret_grown, struct tt_error *err)
{
    struct tt_scan_ops ops = { .frame = tt_history_take_frame,
                               .damage = tt_history_take_damage,
                               .opaque = h };
    uint64_t frames = h->stats.frames;
    int ret, settled;

    *ret_grown = false;
    if (!h->loaded || h->broken) {
        return tt_fail(err, TT_ECHANGED, 0,
                       "the journal was not read whole: read it again");
    }
    h->src = src;
    h->err = err;
    ret = tt_scan_follow(&h->super, src, &ops, &h->scan, err);
    settled = tt_history_settle(h);
    h->broken |= settled < 0;
    *ret_grown = h->stats.frames != frames;
    return ret < 0 ? ret : settled;
}

/* ---- questions --------------------------------------------------------- */

const struct tt_super *tt_history_super(const struct tt_history *h)
{
    return &h->super;
}

const struct tt_scan *tt_history_end(const struct tt_history *h)
{
    return &h->scan;
}

#define LIST(type, name)                                                       \
    const struct type *tt_history_##name(const struct tt_history *h,           \
                                         size_t *ret_count)                    \
    {                                                                          \
        *ret_count = h->name##_count;                                          \
        return h->name;                                                        \
    }
LIST(tt_epoch, epochs)
LIST(tt_mark, marks)
LIST(tt_session, sessions)
LIST(tt_damage, damages)
LIST(tt_gap, gaps)
#undef LIST

uint64_t tt_history_covered(const struct tt_history *h)
{
    return h->covered_seq;
}

const struct tt_session *tt_history_recorder(const struct tt_history *h)
{
    for (size_t i = h->sessions_count; i > 0; i--) {
        if (h->sessions[i - 1].flags & TT_SESSION_RECORDER) {
            return &h->sessions[i - 1];
        }
    }
    return NULL;
}

void tt_history_stats(const struct tt_history *h,
                      struct tt_history_stats *ret_stats)
{
    *ret_stats = h->stats;
    if (h->undurable_count) {
        ret_stats->provisional_from = h->undurable[0];
    }
}

bool tt_history_had_size(const struct tt_history *h, uint64_t seq,
                         uint64_t size)
{
    for (size_t i = h->sizes_count; i-- > 0 && h->sizes[i].seq > seq;) {
        if (h->sizes[i].size == size) {
            return true;
        }
    }
    return tt_history_disk_size(h, seq) == size;
}

uint64_t tt_history_disk_size(const struct tt_history *h, uint64_t seq)
{
    size_t low = 0, high = h->sizes_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (h->sizes[mid].seq <= seq) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low ? h->sizes[low - 1].size : h->super.disk_size;
}

size_t tt_history_memory(const struct tt_history *h)
{
    return sizeof(*h) + tt_index_memory(&h->versions) +
           tt_index_memory(&h->preimages) + tt_index_memory(&h->doubts) +
           h->sums_room * sizeof(*h->sums) + h->runs_count * sizeof(*h->runs) +
           h->times_room * sizeof(*h->times) +
           h->sizes_room * sizeof(*h->sizes) +
           h->epochs_room * sizeof(*h->epochs) +
           h->ends_room * sizeof(*h->ends) + h->marks_room * sizeof(*h->marks) +
           h->sessions_room * sizeof(*h->sessions) +
           h->damages_room * sizeof(*h->damages) +
           h->gaps_room * sizeof(*h->gaps) +
           h->gap_ranges_room * sizeof(*h->gap_ranges) +
           h->blinds_room * sizeof(*h->blinds) +
           h->salvaged_room * sizeof(*h->salvaged) +
           h->undurable_room * sizeof(*h->undurable);
}
