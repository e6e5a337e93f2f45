/*
 * The simulated recorder, one step at a time: see wal.h
 *
 * An append, a flush of the journal, up to WRITEBACKS writes and a flush of
 * the disk may be under way at once; each begins in one step and ends in
 * another, and what comes in between is up to chance.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal.h"

int sim_wrong(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(s->problem, sizeof(s->problem), fmt, ap);
    va_end(ap);
    return WAL_WRONG;
}

void sim_note(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    (void)s;
    printf("  ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

bool sim_fails(struct sim *s)
{
    return !s->quiet_fail && s->cfg.fail && rng_chance(&s->rng, s->cfg.fail);
}

/* ---- records ----------------------------------------------------------- */

static void release(void *owner)
{
    struct wbuf *b = owner;

    if (b && !--b->refs) {
        free(b);
    }
}

void rec_clear(struct rec *r)
{
    if (r->purpose == FOR_GUEST) {
        release(r->owner);
    } else {
        free(r->owner);
    }
    r->owner = NULL;
}

static void enqueue(struct sim *s, const struct rec *r)
{
    assert(s->queued < QUEUE_MAX);
    s->queue[s->queued++] = *r;
}

static unsigned disk_sectors(const struct sim *s)
{
    return (unsigned)(s->w.disk_size / WAL_SECTOR);
}

unsigned make_captures(struct sim *s, unsigned first, unsigned count,
                       uint32_t have, struct rec *recs)
{
    unsigned end = first + count, n = 0;

    for (unsigned at = first & ~(WAL_PER_BLOCK - 1), stop; at < end;
         at = stop) {
        struct rec *r = &recs[n];
        uint8_t *p;
        bool zero = true;

        stop = at + WAL_PER_BLOCK;
        if (have >> at / WAL_PER_BLOCK & 1) {
            continue;
        }
        while (stop < end && !(have >> stop / WAL_PER_BLOCK & 1)) {
            stop += WAL_PER_BLOCK;
        }
        if (stop > s->d.size) {
            stop = s->d.size;
        }
        if (stop <= at) {
            break;
        }
        *r = (struct rec){
            .req = { .kind = TT_KIND_PREIMAGE,
                     .disk_offset = (uint64_t)at * WAL_SECTOR,
                     .disk_length = (uint64_t)(stop - at) * WAL_SECTOR },
            .purpose = FOR_CAPTURE,
            .blocks = blocks_of(at, stop - at),
        };
        for (unsigned i = at; i < stop; i++) {
            zero &= !s->d.cache[i];
        }
        if (zero) {
            r->req.flags = TT_RECORD_ZEROES;
        } else {
            p = malloc(r->req.disk_length);
            assert(p);
            for (unsigned i = at; i < stop; i++) {
                sector_fill(p + (size_t)(i - at) * WAL_SECTOR, s->d.cache[i],
                            i);
            }
            r->owner = p;
            r->req.payload = p;
            r->req.payload_length = (uint32_t)r->req.disk_length;
        }
        n++;
    }
    return n;
}

static void enqueue_captures(struct sim *s, unsigned first, unsigned count)
{
    struct rec recs[WAL_BLOCKS];
    unsigned n = make_captures(s, first, count, s->cap_started, recs);

    for (unsigned i = 0; i < n; i++) {
        NOTE(s, "capture of blocks %x is queued", recs[i].blocks);
        enqueue(s, &recs[i]);
        s->cap_started |= recs[i].blocks;
    }
}

/* ---- frames ------------------------------------------------------------ */

static void tick(struct sim *s)
{
    static const int64_t steps[] = { 0, 1, 1000, 3000000 };
    int64_t step = steps[rng_below(&s->rng, 4)];

    s->now.realtime += step;
    s->now.boottime += (uint64_t)step;
}

int frame_plan(struct sim *s, const struct rec *recs, struct tt_append *ret)
{
    struct tt_frame f;
    struct node *n;
    uint8_t *p;

    tick(s);
    tt_writer_plan(&s->w, s->batch, s->now, ret);
    if (!tt_frame_decode(&s->super, ret->offset, ret->head, &f) ||
        !tt_table_check(&f, ret->head + sizeof(struct tt_frame_header))) {
        return sim_wrong(s, "the frame planned at %llu is not valid",
                         (ull)ret->offset);
    }
    n = model_append(s->model, s->tip, &f, ret, recs);
    n->boot = s->boot;
    s->app.node = n;
    if (n->bytes) {
        return 0;
    }
    p = arena_get(&s->model->arena, ret->length);
    n->bytes = p;
    memcpy(p, ret->head, ret->head_length);
    p += ret->head_length;
    for (unsigned i = 0; i < ret->request_count; i++) {
        const struct tt_request *req = &ret->requests[i];

        if (req->payload_length && !(req->flags & TT_RECORD_INLINE)) {
            memcpy(p, req->payload, req->payload_length);
            p += req->payload_length;
        }
    }
    memset(p, 0, ret->tail_zeroes);
    return 0;
}

void keep_frame(struct sim *s, const struct node *n)
{
    if (s->kept_count == s->kept_room) {
        s->kept_room = s->kept_room ? s->kept_room * 2 : 64;
        s->kept = realloc(s->kept, s->kept_room * sizeof(*s->kept));
        assert(s->kept);
    }
    s->kept[s->kept_count++].node = n;
}

void drop_kept(struct sim *s, uint64_t seq)
{
    size_t n = 0;

    for (size_t i = 0; i < s->kept_count; i++) {
        if (s->kept[i].node->last_seq > seq) {
            s->kept[n++] = s->kept[i];
        }
    }
    s->kept_count = n;
}

void frame_complete(struct sim *s)
{
    tt_writer_commit(&s->w, s->batch);
    s->tip = s->app.node;
    s->tail_unsure = false;
    keep_frame(s, s->tip);
}

/* ---- the guest's requests ---------------------------------------------- */

/* Which sequence number the guest knows to be recorded is all it knows. */
static void acknowledge(struct sim *s, struct node *n)
{
    if (n->last_seq > s->acked->last_seq) {
        s->acked = n;
    }
}

static void promise(struct sim *s, struct node *n, uint64_t seq)
{
    if (n->last_seq > s->promised->last_seq) {
        s->promised = n;
    }
    if (s->cfg.mode == MODE_GUEST && seq > s->disk_floor) {
        s->disk_floor = seq;
    }
}

static bool covered(const struct sim *s, uint64_t seq)
{
    return s->w.durable_seq >= seq &&
           (s->cfg.mode == MODE_LAZY || s->level >= seq);
}

/* Flushes and FUA writes that have what they were waiting for */
static void complete_waiters(struct sim *s)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        struct guest *g = &s->guests[i];

        if (g->state == G_WAIT && covered(s, g->seq)) {
            struct node *n = node_at(s->tip, g->seq);

            NOTE(s, "FUA write of seq %llu is acknowledged", (ull)g->seq);
            acknowledge(s, n);
            promise(s, n, g->seq);
            g->state = G_FREE;
        } else if (g->state == G_FLUSH && covered(s, g->seq)) {
            NOTE(s, "the guest's flush of seq %llu completes", (ull)g->covers);
            promise(s, node_at(s->tip, g->covers), g->covers);
            if (s->flush_count < 8) {
                s->flush_seqs[s->flush_count++] = g->seq;
            }
            g->state = G_FREE;
        }
    }
}

static struct guest *free_guest(struct sim *s)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        if (s->guests[i].state == G_FREE) {
            s->guests[i] = (struct guest){ .order = ++s->orders };
            return &s->guests[i];
        }
    }
    return NULL;
}

static void submit_part(struct sim *s, struct guest *g, uint16_t kind,
                        uint16_t flags, unsigned first, unsigned count)
{
    struct rec r = {
        .req = { .kind = kind,
                 .flags = flags,
                 .disk_offset = (uint64_t)first * WAL_SECTOR,
                 .disk_length = (uint64_t)count * WAL_SECTOR },
        .purpose = FOR_GUEST,
        .guest = (unsigned)(g - s->guests),
    };

    if (kind == TT_KIND_WRITE) {
        struct wbuf *b = malloc(sizeof(*b) + (size_t)count * WAL_SECTOR);

        assert(b);
        b->refs = 1;
        r.id = s->model->next_id++;
        for (unsigned i = 0; i < count; i++) {
            sector_fill(b->bytes + (size_t)i * WAL_SECTOR, r.id, first + i);
        }
        r.owner = b;
        r.req.payload = b->bytes;
        r.req.payload_length = (uint32_t)r.req.disk_length;
    }
    g->parts++;
    enqueue(s, &r);
}

static void submit_change(struct sim *s, struct guest *g)
{
    struct rng *r = &s->rng;
    unsigned size = disk_sectors(s), hot = s->cfg.hot, first, count;
    uint16_t kind = rng_chance(r, 85) ? TT_KIND_WRITE : TT_KIND_ZERO;
    uint16_t flags;

    first =
        (unsigned)rng_below(r, rng_chance(r, 75) && hot < size ? hot : size);
    count = 1 + (unsigned)rng_below(r, rng_chance(r, 90) ? s->cfg.most_sectors
                                                         : WAL_SECTORS);
    if (rng_chance(r, 30)) {
        first &= ~(WAL_PER_BLOCK - 1);
    }
    if (count > size - first) {
        count = size - first;
    }
    g->state = G_QUEUED;
    g->fua = rng_chance(r, 8);
    flags = g->fua ? TT_RECORD_FUA : 0;
    if (kind == TT_KIND_ZERO && rng_chance(r, 50)) {
        flags |= TT_RECORD_DISCARD;
    }
    if (count > 1 && rng_chance(r, 10)) {
        /* as if it were larger than a record may be */
        unsigned half = 1 + (unsigned)rng_below(r, count - 1);

        submit_part(s, g, kind, flags | TT_RECORD_MORE, first, half);
        submit_part(s, g, kind, flags, first + half, count - half);
    } else {
        submit_part(s, g, kind, flags, first, count);
    }
    NOTE(s, "%s%s of sectors %u + %u is queued",
         kind == TT_KIND_WRITE ? "write" : "zero", g->fua ? ", FUA," : "",
         first, count);
}

static void submit(struct sim *s)
{
    struct guest *g = free_guest(s);
    unsigned dice = (unsigned)rng_below(&s->rng, 100);

    assert(g);
    if (dice < 4 && s->cfg.resizes) {
        s->rz.stage = R_QUIESCE;
        s->rz.guest = (unsigned)(g - s->guests);
        s->rz.old = disk_sectors(s);
        s->rz.size = 1 + (unsigned)rng_below(&s->rng, WAL_SECTORS);
        s->rz.queued = false;
        g->state = G_RESIZE;
        NOTE(s, "resize from %u to %u sectors is asked for", s->rz.old,
             s->rz.size);
    } else if (dice < 22) {
        g->state = G_FLUSH;
        g->seq = s->w.next_seq - 1;
        g->covers = s->acked->last_seq;
        NOTE(s, "flush up to seq %llu is asked for", (ull)g->seq);
        complete_waiters(s);
    } else {
        submit_change(s, g);
    }
}

/* ---- appends ----------------------------------------------------------- */

static int issue_append(struct sim *s)
{
    struct tt_append a;
    int ret;

    s->app.busy = true;
    ret = frame_plan(s, s->app.recs, &a);
    NOTE(s, "append of seq %llu to %llu at %llu + %llu begins",
         (ull)a.first_seq, (ull)a.last_seq, (ull)a.offset, (ull)a.length);
    return ret;
}

static bool put(struct sim *s, const struct rec *r)
{
    if (s->app.count == FRAME_RECS || !tt_batch_add(s->batch, &r->req)) {
        return false;
    }
    s->app.recs[s->app.count++] = *r;
    return true;
}

static void begin_frame(struct sim *s)
{
    tt_batch_reset(s->batch, &s->w);
    s->app.count = 0;
}

/* FLUSH costs no append of its own. */
static void put_flushes(struct sim *s)
{
    for (unsigned i = 0; i < s->flush_count; i++) {
        struct tt_flush_body *body = malloc(sizeof(*body));
        struct rec r = {
            .req = { .kind = TT_KIND_FLUSH,
                     .flags = TT_RECORD_INLINE,
                     .payload = body,
                     .payload_length = sizeof(*body) },
            .purpose = FOR_FLUSH,
            .owner = body,
        };

        assert(body);
        body->covered_seq = tt_put64(s->flush_seqs[i]);
        if (!put(s, &r)) {
            free(body);
            return;
        }
    }
}

static int form_footer(struct sim *s)
{
    uint32_t length;
    bool last;
    uint8_t *body = tt_footer_part(s->w.ended, s->footer_part, &length, &last);
    struct rec r = { .purpose = FOR_FOOTER, .owner = body };

    if (!body) {
        tt_writer_footer_done(&s->w);
        s->footer_part = 0;
        return 0;
    }
    r.req = (struct tt_request){
        .kind = TT_KIND_FOOTER,
        .flags = (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0) |
                 (last ? 0 : TT_RECORD_MORE),
        .payload = body,
        .payload_length = length,
    };
    begin_frame(s);
    if (!put(s, &r)) {
        /* longer than the simulation's small segments: it has none */
        free(body);
        tt_writer_footer_done(&s->w);
        s->footer_part = 0;
        return 0;
    }
    return issue_append(s);
}

static int form_checkpoint(struct sim *s, bool clean)
{
    struct tt_checkpoint c = {
        .level_seq = s->level,
        .map_prev = s->map_prev,
        .clean = clean,
    };
    struct rec r = { .purpose = FOR_CHECKPOINT };
    uint32_t length;
    bool more;

    begin_frame(s);
    put_flushes(s);
    r.owner = tt_checkpoint_encode(&c, s->unmapped, &length, &more);
    assert(r.owner && !more);
    r.req = (struct tt_request){
        .kind = TT_KIND_CHECKPOINT,
        .flags = TT_RECORD_INLINE,
        .payload = r.owner,
        .payload_length = length,
    };
    if (!put(s, &r)) {
        return sim_wrong(s, "a CHECKPOINT does not fit");
    }
    NOTE(s, "CHECKPOINT: level is %llu", (ull)s->level);
    return issue_append(s);
}

static int form_durable(struct sim *s)
{
    struct rec r = { .req = { .kind = TT_KIND_DURABLE },
                     .purpose = FOR_NOBODY };

    begin_frame(s);
    put(s, &r);
    return issue_append(s);
}

static int form(struct sim *s)
{
    unsigned most = 1 + (unsigned)rng_below(&s->rng, s->queued + 1);
    unsigned n = 0;

    if (s->w.ended && rng_chance(&s->rng, s->queued ? 60 : 100)) {
        return form_footer(s);
    }
    if (!s->queued) {
        return 0;
    }
    begin_frame(s);
    put_flushes(s);
    while (n < s->queued && n < most && put(s, &s->queue[n])) {
        n++;
    }
    if (!n) {
        /* nothing but the FLUSHes fits: they go alone */
        assert(s->app.count);
    }
    s->queued -= n;
    memmove(s->queue, s->queue + n, s->queued * sizeof(*s->queue));
    return issue_append(s);
}

static void wait_durable(struct sim *s, uint64_t seq, uint32_t blocks)
{
    if (s->wait_count == 32) {
        /* the newest of them waits for all */
        s->waiting[31].seq = seq;
        s->waiting[31].blocks |= blocks;
        return;
    }
    s->waiting[s->wait_count++] = (struct waiting){ seq, blocks };
}

static void resized(struct sim *s, uint64_t seq)
{
    unsigned from = (s->rz.old + WAL_PER_BLOCK - 1) & ~(WAL_PER_BLOCK - 1);

    s->change_seq = seq;
    if (s->rz.size > s->rz.old) {
        if (s->rz.size > from) {
            uint32_t born = blocks_of(from, s->rz.size - from);

            tt_blocks_add(s->unmapped, (uint64_t)from * WAL_SECTOR,
                          (uint64_t)(s->rz.size - from) * WAL_SECTOR);
            s->cap_started |= born;
            wait_durable(s, seq, born);
        }
        s->rz.stage = R_DURABLE;
        s->rz.seq = seq;
    } else {
        tt_pending_trim(s->pending, (uint64_t)s->rz.size * WAL_SECTOR);
        s->rz.stage = R_NONE;
        s->guests[s->rz.guest].state = G_FREE;
        acknowledge(s, s->tip);
    }
}

static int record_complete(struct sim *s, struct rec *r, uint64_t seq)
{
    const struct tt_request *q = &r->req;
    struct guest *g = &s->guests[r->guest];

    switch (r->purpose) {
    case FOR_GUEST:
        s->change_seq = seq;
        if (!tt_pending_add(s->pending, seq, q->kind, q->flags, q->disk_offset,
                            q->disk_length, q->payload, r->owner)) {
            return sim_wrong(s, "out of memory");
        }
        r->owner = NULL;
        g->seq = seq;
        if (--g->parts) {
            return 0;
        }
        if (g->failed) {
            g->state = G_FREE;
        } else if (g->fua) {
            g->state = G_WAIT;
        } else {
            NOTE(s, "write of seq %llu is acknowledged", (ull)seq);
            g->state = G_FREE;
            acknowledge(s, s->tip);
        }
        return 0;
    case FOR_CAPTURE:
        tt_blocks_add(s->unmapped, q->disk_offset, q->disk_length);
        wait_durable(s, seq, r->blocks);
        break;
    case FOR_RESIZE:
        resized(s, seq);
        break;
    case FOR_FLUSH:
        s->flush_count--;
        memmove(s->flush_seqs, s->flush_seqs + 1,
                s->flush_count * sizeof(*s->flush_seqs));
        break;
    case FOR_CHECKPOINT: {
        struct tt_checkpoint_body body;

        memcpy(&body, r->owner, sizeof(body));
        s->checkpoint_level = tt_get64(body.level_seq);
        s->checkpoint_seq = seq;
        if (tt_checkpoint_done(r->owner, s->unmapped)) {
            s->map_prev = s->tip->offset;
        }
        break;
    }
    case FOR_FOOTER:
        s->footer_part++;
        if (!(q->flags & TT_RECORD_MORE)) {
            tt_writer_footer_done(&s->w);
            s->footer_part = 0;
        }
        break;
    case FOR_NOBODY:
        break;
    }
    rec_clear(r);
    return 0;
}

static void record_failed(struct sim *s, struct rec *r)
{
    struct guest *g = &s->guests[r->guest];

    switch (r->purpose) {
    case FOR_GUEST:
        g->failed = true;
        if (!--g->parts) {
            g->state = G_FREE;
        }
        break;
    case FOR_CAPTURE:
        enqueue(s, r);
        return;
    case FOR_RESIZE:
        if (s->rz.size < s->rz.old) {
            enqueue(s, r); /* the disk is shorter already */
            return;
        }
        s->rz.stage = R_NONE;
        s->guests[s->rz.guest].state = G_FREE;
        break;
    default:
        break;
    }
    rec_clear(r);
}

static int append_done(struct sim *s)
{
    const struct node *n = s->app.node;
    uint64_t seq = n->last_seq + 1 - s->app.count;
    bool retry;
    int ret = 0;

    if (!sim_fails(s) && jmedia_write(&s->j, n->offset, n->bytes, n->length)) {
        NOTE(s, "append at %llu is complete", (ull)n->offset);
        s->app.busy = false;
        frame_complete(s);
        for (unsigned i = 0; i < s->app.count && ret == 0; i++) {
            ret = record_complete(s, &s->app.recs[i], seq + i);
        }
        if (ret == 0) {
            complete_waiters(s);
        }
        return ret;
    }
    if (n->offset + n->length > JMEDIA_MAX) {
        return WAL_ERROR;
    }
    jmedia_write_some(&s->j, &s->rng, n->offset, n->bytes, n->length);
    tt_writer_failed(&s->w, s->batch);
    s->tail_unsure = true;
    retry = rng_chance(&s->rng, 60);
    NOTE(s, "append at %llu fails%s", (ull)n->offset,
         retry ? " and is tried again" : "");
    if (retry) {
        return issue_append(s);
    }
    s->app.busy = false;
    for (unsigned i = 0; i < s->app.count; i++) {
        record_failed(s, &s->app.recs[i]);
    }
    return 0;
}

/* ---- the journal's flush ----------------------------------------------- */

static void issue_journal_flush(struct sim *s)
{
    s->jnumber = s->w.next_seq - 1;
    NOTE(s, "flush of the journal begins, up to seq %llu", (ull)s->jnumber);
    jmedia_flush_issue(&s->j);
    s->jstate = J_FLUSH;
}

static int rewrite_journal(struct sim *s)
{
    NOTE(s, "%zu frames are written again", s->kept_count);
    for (size_t i = 0; i < s->kept_count; i++) {
        const struct node *n = s->kept[i].node;

        if (sim_fails(s) && rng_chance(&s->rng, 30)) {
            jmedia_write_some(&s->j, &s->rng, n->offset, n->bytes, n->length);
            return WAL_ERROR;
        }
        jmedia_write(&s->j, n->offset, n->bytes, n->length);
    }
    s->jnumber = s->w.next_seq - 1;
    jmedia_flush_issue(&s->j);
    s->jstate = J_AGAIN;
    return 0;
}

static void journal_durable(struct sim *s, uint64_t seq)
{
    unsigned left = 0;

    tt_writer_flushed(&s->w, seq);
    tt_pending_durable(s->pending, seq);
    drop_kept(s, seq);
    for (unsigned i = 0; i < s->wait_count; i++) {
        if (s->waiting[i].seq <= seq) {
            s->cap_done |= s->waiting[i].blocks;
        } else {
            s->waiting[left++] = s->waiting[i];
        }
    }
    s->wait_count = left;
}

static int journal_flush_done(struct sim *s)
{
    bool ok = !sim_fails(s);

    jmedia_flush_done(&s->j, &s->rng, ok);
    NOTE(s, "flush of the journal %s", ok ? "succeeds" : "fails");
    if (ok) {
        s->jstate = J_IDLE;
        journal_durable(s, s->jnumber);
        complete_waiters(s);
        return 0;
    }
    if (s->jstate == J_AGAIN) {
        return WAL_ERROR;
    }
    s->jstate = J_REWRITE;
    return 0;
}

/* ---- write-back -------------------------------------------------------- */

static int take(struct sim *s)
{
    struct writeback *b = s->wbs;
    uint64_t at;

    while (b->state != W_FREE) {
        b++;
    }
    if (!tt_pending_take(s->pending, &b->w)) {
        return 0;
    }
    b->state = W_TAKEN;
    b->ids =
        arena_get(&s->model->arena, b->w.length / WAL_SECTOR * sizeof(*b->ids));
    memset(b->ids, 0, b->w.length / WAL_SECTOR * sizeof(*b->ids));
    at = b->w.offset;
    for (unsigned i = 0; b->w.kind == TT_KIND_WRITE && i < b->w.part_count;
         i++) {
        for (uint64_t k = 0; k < b->w.parts[i].length; k += WAL_SECTOR) {
            unsigned sector = (unsigned)(at / WAL_SECTOR);

            if (at >= b->w.offset + b->w.length ||
                !sector_read(b->w.parts[i].data + k, sector,
                             &b->ids[sector - b->w.offset / WAL_SECTOR])) {
                return sim_wrong(s, "write-back of sector %u: other bytes",
                                 sector);
            }
            at += WAL_SECTOR;
        }
    }
    if (b->w.kind == TT_KIND_WRITE && at != b->w.offset + b->w.length) {
        return sim_wrong(s, "write-back of %llu bytes at %llu: parts of %llu",
                         (ull)b->w.length, (ull)b->w.offset,
                         (ull)(at - b->w.offset));
    }
    NOTE(s, "write-back of sectors %llu + %llu is taken",
         (ull)b->w.offset / WAL_SECTOR, (ull)b->w.length / WAL_SECTOR);
    return 0;
}

static void step_writeback(struct sim *s, struct writeback *b)
{
    unsigned first = (unsigned)(b->w.offset / WAL_SECTOR);
    unsigned count = (unsigned)(b->w.length / WAL_SECTOR);
    uint32_t blocks = blocks_of(first, count);

    switch (b->state) {
    case W_FREE:
        break;
    case W_TAKEN:
        if (blocks & ~s->cap_done) {
            if (!sim_fails(s)) { /* else the disk cannot be read just now */
                enqueue_captures(s, first, count);
                b->state = W_CAPTURING;
            }
            break;
        }
        b->state = W_READY;
        /* fall through */
    case W_READY:
        b->state = W_FLIGHT;
        NOTE(s, "write of sectors %u + %u to the disk begins", first, count);
        break;
    case W_CAPTURING:
        if (!(blocks & ~s->cap_done)) {
            b->state = W_READY;
        }
        break;
    case W_FLIGHT:
        b->state = W_FREE;
        if (sim_fails(s)) {
            NOTE(s, "write of sectors %u + %u to the disk fails", first, count);
            dmedia_write_some(&s->d, &s->rng, first, count, b->ids);
            tt_pending_refused(s->pending, &b->w);
        } else {
            NOTE(s, "write of sectors %u + %u to the disk is complete", first,
                 count);
            dmedia_write(&s->d, first, count, b->ids);
            tt_pending_written(s->pending, &b->w);
        }
        break;
    }
}

static unsigned writebacks(const struct sim *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < WRITEBACKS; i++) {
        n += s->wbs[i].state != W_FREE;
    }
    return n;
}

/* ---- the disk's flush -------------------------------------------------- */

static void issue_disk_flush(struct sim *s)
{
    s->dlevel = tt_pending_level(s->pending, s->w.next_seq - 1);
    NOTE(s, "flush of the disk begins, level %llu", (ull)s->dlevel);
    dmedia_flush_issue(&s->d);
    s->dflush = true;
}

static void disk_flush_done(struct sim *s)
{
    bool ok = !sim_fails(s);

    s->dflush = false;
    dmedia_flush_done(&s->d, &s->rng, ok);
    NOTE(s, "flush of the disk %s", ok ? "succeeds" : "fails");
    if (!ok) {
        s->disk_bad = true;
        return;
    }
    if (s->level < s->dlevel) {
        s->level = s->dlevel;
    }
    complete_waiters(s);
}

/* The journal is asked what the disk should hold. */
static int begin_redo(struct sim *s)
{
    struct tt_source src = jmedia_source(&s->j);
    struct tt_error err = { 0 };

    if (tt_recovery_run(&s->super, &src, &s->redo, &err) < 0) {
        return sim_wrong(s, "reading for a redo: %s", err.message);
    }
    if (s->redo.scan.last_seq != s->w.next_seq - 1) {
        return sim_wrong(s, "reading for a redo: seq %llu, not %llu",
                         (ull)s->redo.scan.last_seq, (ull)s->w.next_seq - 1);
    }
    NOTE(s, "after a failed flush %zu ranges are to be written again",
         s->redo.redo_count);
    s->redoing = true;
    s->redo_next = 0;
    for (size_t i = 0; i < s->redo.redo_count; i++) {
        const struct tt_redo *r = &s->redo.redos[i];

        enqueue_captures(s, (unsigned)(r->disk_offset / WAL_SECTOR),
                         (unsigned)(r->disk_length / WAL_SECTOR));
    }
    if (s->redo.resized) {
        dmedia_truncate(&s->d, (unsigned)(s->redo.scan.disk_size / WAL_SECTOR));
    }
    return 0;
}

static int step_redo(struct sim *s)
{
    struct tt_redo *r;
    unsigned first, count;
    uint32_t *ids;

    if (!s->redoing) {
        if (s->app.busy || s->jstate != J_IDLE) {
            return 0;
        }
        /* what a failed append left must not be taken for history */
        return s->tail_unsure ? form_durable(s) : begin_redo(s);
    }
    if (s->w.durable_seq < s->redo.scan.last_seq) {
        return 0;
    }
    if (s->redo_next == s->redo.redo_count) {
        tt_recovery_clear(&s->redo);
        s->redoing = s->disk_bad = false;
        return 0;
    }
    r = &s->redo.redos[s->redo_next];
    first = (unsigned)(r->disk_offset / WAL_SECTOR);
    count = (unsigned)(r->disk_length / WAL_SECTOR);
    if (blocks_of(first, count) & ~s->cap_done) {
        return 0;
    }
    ids = arena_get(&s->model->arena, count * sizeof(*ids));
    memset(ids, 0, count * sizeof(*ids));
    for (unsigned i = 0; r->kind == TT_KIND_WRITE && i < count; i++) {
        if (!sector_read(s->j.cache + r->payload + (size_t)i * WAL_SECTOR,
                         first + i, &ids[i])) {
            return sim_wrong(s, "redo of sector %u: other bytes", first + i);
        }
    }
    if (sim_fails(s)) {
        dmedia_write_some(&s->d, &s->rng, first, count, ids);
    } else {
        NOTE(s, "sectors %u + %u are written again", first, count);
        dmedia_write(&s->d, first, count, ids);
        s->redo_next++;
    }
    return 0;
}

/* ---- resize ------------------------------------------------------------ */

static bool others_active(const struct sim *s)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        if (s->guests[i].state != G_FREE && i != s->rz.guest) {
            return true;
        }
    }
    return false;
}

/*
 * A disk that is shorter than the journal says may lack a RESIZE above the last
 * CHECKPOINT, or have a later shrink already.  So that it can be told, no shrink
 * begins before a durable CHECKPOINT says that all changes are level.
 */
static bool changes_are_level(const struct sim *s)
{
    return s->change_seq <= s->checkpoint_level &&
           s->checkpoint_seq <= s->w.durable_seq;
}

static void queue_resize(struct sim *s)
{
    struct rec r = {
        .req = { .kind = TT_KIND_RESIZE,
                 .disk_offset = (uint64_t)s->rz.old * WAL_SECTOR,
                 .disk_length = (uint64_t)s->rz.size * WAL_SECTOR },
        .purpose = FOR_RESIZE,
    };

    s->rz.stage = R_APPEND;
    if (!s->rz.queued) {
        s->rz.queued = true;
        enqueue(s, &r);
    }
}

/*
 * A resize waits for what is in flight.  A shrink goes to the disk first, once
 * all that it takes away is captured and durable; growth to the journal, and
 * to the disk once that is durable.
 */
static void step_resize(struct sim *s)
{
    unsigned cut = s->rz.old - s->rz.size;

    switch (s->rz.stage) {
    case R_NONE:
    case R_APPEND:
        break;
    case R_QUIESCE:
        if (others_active(s) || s->app.busy || writebacks(s) || s->dflush ||
            s->disk_bad || s->jstate != J_IDLE) {
            break;
        }
        if (s->rz.size < s->rz.old) {
            if (!changes_are_level(s)) {
                break;
            }
            s->rz.stage = R_CAPTURE;
            enqueue_captures(s, s->rz.size, cut);
        } else {
            queue_resize(s);
        }
        break;
    case R_CAPTURE:
        if (blocks_of(s->rz.size, cut) & ~s->cap_done) {
            break;
        }
        if (sim_fails(s)) {
            s->rz.stage = R_NONE;
            s->guests[s->rz.guest].state = G_FREE;
            break;
        }
        NOTE(s, "the disk is shrunk to %u sectors", s->rz.size);
        dmedia_truncate(&s->d, s->rz.size);
        queue_resize(s);
        break;
    case R_DURABLE:
        if (s->w.durable_seq >= s->rz.seq && !sim_fails(s)) {
            NOTE(s, "the disk grows to %u sectors", s->rz.size);
            dmedia_truncate(&s->d, s->rz.size);
            s->rz.stage = R_NONE;
            s->guests[s->rz.guest].state = G_FREE;
            acknowledge(s, node_at(s->tip, s->rz.seq));
        }
        break;
    }
}

/* ---- reads ------------------------------------------------------------- */

static int check_read(struct sim *s)
{
    const struct state *st = model_state(s->model, s->tip, s->tip->last_seq);
    unsigned size = disk_sectors(s);
    unsigned at = (unsigned)rng_below(&s->rng, size);
    unsigned end = at + 1 + (unsigned)rng_below(&s->rng, size - at);

    if (s->rz.stage > R_QUIESCE) {
        return 0;
    }
    while (at < end) {
        const uint8_t *data;
        uint64_t run;
        bool found =
            tt_pending_read(s->pending, (uint64_t)at * WAL_SECTOR,
                            (uint64_t)(end - at) * WAL_SECTOR, &data, &run);

        if (!run || run > (uint64_t)(end - at) * WAL_SECTOR) {
            return sim_wrong(s, "read of sector %u: a run of %llu bytes", at,
                             (ull)run);
        }
        for (uint64_t i = 0; i < run; i += WAL_SECTOR, at++) {
            uint32_t id = found ? 0 : s->d.cache[at];

            if (found && data && !sector_read(data + i, at, &id)) {
                return sim_wrong(s, "read of sector %u: other bytes", at);
            }
            if (id != st->ids[at]) {
                return sim_wrong(s, "read of sector %u: %u, not %u", at, id,
                                 st->ids[at]);
            }
        }
    }
    return 0;
}

/* ---- steps ------------------------------------------------------------- */

enum action {
    A_SUBMIT,
    A_FORM,
    A_APPENDED,
    A_JOURNAL_FLUSH,
    A_JOURNAL_FLUSHED,
    A_TAKE,
    A_WRITEBACK,
    A_DISK_FLUSH,
    A_DISK_FLUSHED,
    A_CHECKPOINT,
    A_CLOCK,
    A_DURABLE,
    A_READ,
    A_RESIZE,
    A_REDO,
    A_FOLLOW,
    ACTIONS,
};

static bool can(struct sim *s, enum action a)
{
    switch (a) {
    case A_SUBMIT:
        for (unsigned i = 0; i < GUESTS; i++) {
            if (s->guests[i].state == G_FREE) {
                return s->rz.stage == R_NONE;
            }
        }
        return false;
    case A_FORM:
        return !s->app.busy && (s->queued || s->w.ended);
    case A_APPENDED:
        return s->app.busy;
    case A_JOURNAL_FLUSH:
        return s->jstate == J_REWRITE ||
               (s->jstate == J_IDLE && s->w.durable_seq + 1 < s->w.next_seq);
    case A_JOURNAL_FLUSHED:
        return s->jstate == J_FLUSH || s->jstate == J_AGAIN;
    case A_TAKE:
        return !s->disk_bad && writebacks(s) < WRITEBACKS &&
               (s->rz.stage == R_NONE ||
                (s->rz.stage == R_QUIESCE &&
                 (others_active(s) || !changes_are_level(s))));
    case A_WRITEBACK:
        return writebacks(s);
    case A_DISK_FLUSH:
        return !s->dflush && !s->disk_bad && s->rz.stage <= R_QUIESCE &&
               s->level + 1 < s->w.next_seq;
    case A_DISK_FLUSHED:
        return s->dflush;
    case A_CHECKPOINT:
        return !s->app.busy && s->level > s->checkpoint_level && !s->disk_bad;
    case A_CLOCK:
    case A_READ:
    case A_FOLLOW:
        return true;
    case A_DURABLE:
        return !s->app.busy && !s->queued;
    case A_RESIZE:
        return s->rz.stage != R_NONE;
    case A_REDO:
        return s->disk_bad && !writebacks(s);
    default:
        return false;
    }
}

static void step_clock(struct sim *s)
{
    static const int64_t hours[] = { -1, 75 * 365 * 24, -75 * 365 * 24, 1 };
    int64_t h = hours[rng_below(&s->rng, 4)], to;

    NOTE(s, "the clock steps by %lld hours", (long long)h);
    if (!__builtin_add_overflow(s->now.realtime, h * INT64_C(3600000000000),
                                &to)) {
        s->now.realtime = to;
    }
}

static int act(struct sim *s, enum action a)
{
    switch (a) {
    case A_SUBMIT:
        submit(s);
        return 0;
    case A_FORM:
        return form(s);
    case A_APPENDED:
        return append_done(s);
    case A_JOURNAL_FLUSH:
        if (s->jstate == J_REWRITE) {
            return rewrite_journal(s);
        }
        issue_journal_flush(s);
        return 0;
    case A_JOURNAL_FLUSHED:
        return journal_flush_done(s);
    case A_TAKE:
        return take(s);
    case A_WRITEBACK: {
        unsigned n = (unsigned)rng_below(&s->rng, writebacks(s));
        struct writeback *b = s->wbs;

        while (b->state == W_FREE || n--) {
            b++;
        }
        step_writeback(s, b);
        return 0;
    }
    case A_DISK_FLUSH:
        issue_disk_flush(s);
        return 0;
    case A_DISK_FLUSHED:
        disk_flush_done(s);
        return 0;
    case A_CHECKPOINT:
        return form_checkpoint(s, false);
    case A_CLOCK:
        step_clock(s);
        return 0;
    case A_DURABLE:
        return form_durable(s);
    case A_READ:
        return check_read(s);
    case A_RESIZE:
        step_resize(s);
        return 0;
    case A_REDO:
        return step_redo(s);
    case A_FOLLOW:
        return check_reader(s);
    default:
        return 0;
    }
}

static int step(struct sim *s, bool closing)
{
    unsigned total = 0, dice;

    for (unsigned a = 0; a < ACTIONS; a++) {
        if (closing && (a == A_SUBMIT || a == A_CLOCK || a == A_READ ||
                        a == A_FOLLOW || a == A_DURABLE)) {
            continue;
        }
        total += can(s, a) ? s->cfg.weight[a] : 0;
    }
    if (!total) {
        return 0;
    }
    dice = (unsigned)rng_below(&s->rng, total);
    for (unsigned a = 0; a < ACTIONS; a++) {
        if (closing && (a == A_SUBMIT || a == A_CLOCK || a == A_READ ||
                        a == A_FOLLOW || a == A_DURABLE)) {
            continue;
        }
        if (can(s, a)) {
            if (dice < s->cfg.weight[a]) {
                return act(s, a);
            }
            dice -= s->cfg.weight[a];
        }
    }
    return 0;
}

int sim_step(struct sim *s)
{
    return step(s, false);
}

static bool busy(const struct sim *s)
{
    bool guests = false;

    for (unsigned i = 0; i < GUESTS; i++) {
        guests |= s->guests[i].state != G_FREE;
    }
    return guests || s->queued || s->app.busy || s->jstate != J_IDLE ||
           writebacks(s) || s->dflush || s->disk_bad || s->w.ended ||
           !tt_pending_empty(s->pending);
}

/* The append, then the flush, without anything in between */
static int finish(struct sim *s, int ret)
{
    while (ret == 0 && s->app.busy) {
        ret = append_done(s);
    }
    if (ret == 0) {
        issue_journal_flush(s);
        ret = journal_flush_done(s);
    }
    return ret;
}

int sim_close(struct sim *s)
{
    int ret = 0;

    NOTE(s, "close");
    s->quiet_fail = true;
    for (unsigned i = 0; ret == 0 && busy(s); i++) {
        if (i == 20000) {
            return sim_wrong(s, "it does not come to an end");
        }
        ret = step(s, true);
    }
    if (ret == 0) {
        issue_disk_flush(s);
        disk_flush_done(s);
        if (s->level != s->w.next_seq - 1) {
            ret = sim_wrong(s, "nothing is pending, and the level is %llu",
                            (ull)s->level);
        }
    }
    if (ret == 0) {
        ret = check_level(s);
    }
    if (ret == 0) {
        ret = finish(s, form_checkpoint(s, true));
    }
    if (ret == 0) {
        ret = finish(s, form_durable(s));
    }
    s->quiet_fail = false;
    if (ret == 0) {
        s->acked = s->promised = s->tip;
        s->disk_floor = s->level;
    }
    return ret;
}

/* ---- the beginning and the end ----------------------------------------- */

void sim_abandon(struct sim *s)
{
    for (unsigned i = 0; i < WRITEBACKS; i++) {
        if (s->wbs[i].state != W_FREE) {
            tt_pending_refused(s->pending, &s->wbs[i].w);
            s->wbs[i].state = W_FREE;
        }
    }
    if (s->pending) {
        tt_pending_free(s->pending);
        s->pending = NULL;
    }
    for (unsigned i = 0; s->app.busy && i < s->app.count; i++) {
        rec_clear(&s->app.recs[i]);
    }
    for (unsigned i = 0; i < s->queued; i++) {
        rec_clear(&s->queue[i]);
    }
    s->queued = 0;
    s->app.busy = false;
    tt_writer_clear(&s->w);
    memset(&s->w, 0, sizeof(s->w));
    tt_blocks_free(s->unmapped);
    s->unmapped = NULL;
    if (s->redoing) {
        tt_recovery_clear(&s->redo);
    }
    memset(s->guests, 0, sizeof(s->guests));
    s->kept_count = 0;
    s->jstate = J_IDLE;
    s->flush_count = s->wait_count = 0;
    s->cap_started = s->cap_done = 0;
    s->dflush = s->disk_bad = s->redoing = s->tail_unsure = false;
    s->rz.stage = R_NONE;
    s->footer_part = 0;
    s->level = s->checkpoint_level = 0;
    s->change_seq = s->checkpoint_seq = 0;
    s->map_prev = 0;
    s->open = false;
}

static void land_flight(struct sim *to, const struct sim *s)
{
    if (s->app.busy) {
        const struct node *n = s->app.node;

        jmedia_write_some(&to->j, &to->rng, n->offset, n->bytes, n->length);
    }
    for (unsigned i = 0; i < WRITEBACKS; i++) {
        const struct writeback *b = &s->wbs[i];

        if (b->state == W_FLIGHT) {
            dmedia_write_some(&to->d, &to->rng,
                              (unsigned)(b->w.offset / WAL_SECTOR),
                              (unsigned)(b->w.length / WAL_SECTOR), b->ids);
        }
    }
}

static void after_power(struct sim *s)
{
    jmedia_power_cut(&s->j, &s->rng);
    dmedia_power_cut(&s->d, &s->rng);
    s->acked = s->promised;
    s->boot++;
    s->now.boottime = 1000000000;
    s->now.realtime += INT64_C(60000000000);
}

void sim_opened(struct sim *s)
{
    s->pending = tt_pending_new(release);
    assert(s->pending);
    s->open = true;
    s->acked = s->tip;
    s->promised = node_at(s->tip, s->w.durable_seq);
    s->disk_floor = s->level;
}

void sim_crash(struct sim *s, bool power)
{
    check_advance_phys(s);
    land_flight(s, s);
    sim_abandon(s);
    NOTE(s, "---- %s", power ? "power cut" : "kill -9");
    if (power) {
        after_power(s);
    }
    if (rng_chance(&s->rng, 10)) {
        s->alignment = s->super.alignment << rng_below(&s->rng, 3);
    }
}

static void prepare(struct sim *s)
{
    if (!s->batch) {
        jmedia_init(&s->j);
        s->batch = tt_batch_new();
        assert(s->batch);
    }
}

void sim_fork(struct sim *to, struct sim *s, struct rng rng, bool power)
{
    check_advance_phys(s);
    prepare(to);
    to->model = s->model;
    to->cfg = s->cfg;
    to->rng = rng;
    jmedia_copy(&to->j, &s->j);
    dmedia_copy(&to->d, &s->d);
    to->super = s->super;
    to->now = s->now;
    to->boot = s->boot;
    to->alignment = s->alignment;
    to->acked = s->acked;
    to->promised = s->promised;
    to->disk_floor = s->disk_floor;
    to->tip = s->tip;
    to->phys = s->phys;
    to->verbose = s->verbose;
    to->is_fork = true;
    to->index = s->index;
    to->quiet_fail = false;
    to->until_crash = 0;
    land_flight(to, s);
    NOTE(to, "---- %s", power ? "power cut" : "kill -9");
    if (power) {
        after_power(to);
    }
    if (rng_chance(&to->rng, 10)) {
        to->alignment = s->super.alignment << rng_below(&to->rng, 3);
    }
}

static void choose_config(struct sim *s)
{
    struct rng *r = &s->rng;
    static const unsigned weights[ACTIONS] = {
        [A_SUBMIT] = 30,
        [A_FORM] = 30,
        [A_APPENDED] = 40,
        [A_JOURNAL_FLUSH] = 8,
        [A_JOURNAL_FLUSHED] = 30,
        [A_TAKE] = 15,
        [A_WRITEBACK] = 30,
        [A_DISK_FLUSH] = 5,
        [A_DISK_FLUSHED] = 20,
        [A_CHECKPOINT] = 5,
        [A_CLOCK] = 1,
        [A_DURABLE] = 2,
        [A_READ] = 2,
        [A_RESIZE] = 20,
        [A_REDO] = 30,
        [A_FOLLOW] = 1,
    };

    memset(&s->cfg, 0, sizeof(s->cfg));
    s->cfg.mode = rng_chance(r, 50) ? MODE_GUEST : MODE_LAZY;
    for (unsigned a = 0; a < ACTIONS; a++) {
        /* each run has its own idea of what is fast and what is slow */
        static const unsigned factors[] = { 1, 4, 4, 4, 12 };

        s->cfg.weight[a] = weights[a] * factors[rng_below(r, 5)];
    }
    s->cfg.weight[A_CLOCK] = rng_chance(r, 30) ? 4 : 0;
    s->cfg.fail = rng_chance(r, 50) ? 0 : 1 + (unsigned)rng_below(r, 12);
    s->cfg.crash = (unsigned)rng_below(r, 20);
    s->cfg.fork = 35;
    s->cfg.most_sectors = 1 + (unsigned)rng_below(r, 10);
    s->cfg.hot = 2 + (unsigned)rng_below(r, 30);
    s->cfg.segment_shift = 16 + (unsigned)rng_below(r, 2);
    s->cfg.alignment = rng_chance(r, 80) ? 512 : 1024;
    s->cfg.resizes = rng_chance(r, 30);
}

void sim_begin(struct sim *s, struct model *m, uint64_t seed)
{
    static uint8_t area[TT_SEGMENTS_OFFSET];
    uint8_t uuid[TT_UUID_SIZE];
    unsigned size = WAL_SECTORS;

    prepare(s);
    sim_abandon(s);
    tt_history_free(s->reader);
    s->reader = NULL;
    if (s->index) {
        si_clear(s->index);
    }
    jmedia_reset(&s->j);
    m->arena.used = 0;
    m->newest = NULL;
    m->next_id = 1;
    memset(m->hash, 0, sizeof(m->hash));
    memset(&m->root, 0, sizeof(m->root));
    memset(&m->original, 0, sizeof(m->original));
    s->model = m;
    s->rng = (struct rng){ seed };
    choose_config(s);

    if (rng_chance(&s->rng, 20)) {
        size = 1 + (unsigned)rng_below(&s->rng, WAL_SECTORS);
    }
    for (unsigned i = 0; i < size; i++) {
        m->original.ids[i] = i / WAL_PER_BLOCK % 4 == 3 ? 0 : m->next_id++;
    }
    m->original.size = size;
    s->d.size = s->d.durable_size = size;
    s->d.log_count = s->d.mark = 0;
    memcpy(s->d.cache, m->original.ids, sizeof(s->d.cache));
    memcpy(s->d.medium, m->original.ids, sizeof(s->d.medium));

    s->now = (struct tt_now){ INT64_C(1790000000000000000), 1000000000000 };
    s->boot = 1;
    s->alignment = s->cfg.alignment;
    for (unsigned i = 0; i < sizeof(uuid); i++) {
        uuid[i] = (uint8_t)rng_below(&s->rng, 256);
    }
    tt_super_init(&s->super, uuid, rng_next(&s->rng),
                  (uint64_t)size * WAL_SECTOR, s->cfg.alignment,
                  s->now.realtime);
    s->super.segment_size = UINT64_C(1) << s->cfg.segment_shift;
    tt_super_encode(&s->super, area);
    memcpy(s->j.cache, area, sizeof(area));
    memcpy(s->j.medium, area, sizeof(area));
    s->j.size = s->j.durable_size = sizeof(area);
    s->j.used[0] = sizeof(area);
    s->tip = s->acked = s->promised = s->phys = &m->root;
    s->disk_floor = 0;
    s->quiet_fail = false;
    s->until_crash = 0;
    s->problem[0] = 0;
}

void sim_free(struct sim *s)
{
    sim_abandon(s);
    tt_history_free(s->reader);
    if (s->index && !s->is_fork) {
        si_clear(s->index);
        free(s->index);
    }
    jmedia_free(&s->j);
    free(s->d.log);
    free(s->kept);
    tt_batch_free(s->batch);
    memset(s, 0, sizeof(*s));
}
