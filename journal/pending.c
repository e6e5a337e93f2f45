/*
 * Versions that are in the journal and not yet on the disk: see pending.h
 *
 * Three maps of disjoint extents, each a piece of one version:
 *
 *   newest   what reads find: every pending byte's newest version;
 *   durable  what can be taken: the newest durable version of every byte that
 *            is neither on the disk nor unchanged in flight;
 *   flying   what requests have that were taken and did not come back.
 *
 * An extent of durable knows the oldest sequence number that waits for its
 * place: its own version's, or that of one it replaced there.  A list has the
 * extents in that order, so a block that is rewritten all the time keeps its
 * turn.  While a place is in flight, a newer durable version of it begins with
 * its own number, because what is older arrives with the request; should that
 * be refused, the newer one inherits the request's number after all.
 *
 * A version that is not durable waits in a queue, whatever lies over it.
 *
 * Only tt_pending_add() may fail, so it sets extents aside for all that is
 * done with a version later.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/queue.h>

#include <bsd/sys/tree.h>

#include <ttjournal/pending.h>

/* A record always fits a request. */
_Static_assert(TT_WRITEBACK_MAX >= TT_PAYLOAD_RECORD_MAX, "a WRITE is cut");

/*
 * To become durable, a version needs at most three extents: its own, and one
 * at each end where it cuts another, of durable or of flying but not of both
 * (what is in flight and has nothing newer over it is not in durable).
 */
#define RESERVE 3
/* To become the newest one of its range: its own, and if it lies in another */
#define RESERVE_NEWEST 2
/* Unused extents that are kept beyond those that are reserved */
#define SLACK 64

struct extent;

struct version {
    TAILQ_ENTRY(version) link; /* in the queue, until it is durable */
    uint64_t seq;
    uint64_t offset, length;
    uint64_t end; /* less than offset + length if the disk was shrunk */
    const uint8_t *data;
    void *owner;
    struct extent *whole; /* all of it that is in newest, or NULL: not known */
    unsigned refs;        /* extents, and the queue */
    uint16_t kind, flags;
};

struct extent {
    uint64_t start, end; /* next to the node's pointers: a search needs both */
    RB_ENTRY(extent) node;
    union {
        /* durable: by oldest; flying: a request's first extent is in flights */
        TAILQ_ENTRY(extent) link;
        SLIST_ENTRY(extent) spare;
    };
    struct version *version;
    uint64_t oldest;
    uint64_t request_oldest; /* of a request, in its first extent */
    bool covered;            /* flying: a newer one of its place is durable */
};

RB_HEAD(map, extent);

struct tt_pending {
    void (*release)(void *owner);
    struct map newest, durable, flying;
    TAILQ_HEAD(, extent) order;              /* of durable */
    TAILQ_HEAD(extent_list, extent) flights; /* by request_oldest */
    TAILQ_HEAD(version_queue, version) queue;
    size_t versions, queued;
    uint64_t bytes, captures, queued_bytes, last_seq;
    SLIST_HEAD(, extent) spares;
    size_t spare_count;
};

static int compare(const struct extent *a, const struct extent *b)
{
    return a->start < b->start ? -1 : a->start > b->start;
}

/* RB_GENERATE_STATIC() needs __unused, which libbsd does not define */
RB_GENERATE_INTERNAL(map, extent, node, compare, static __attribute__((unused)))

/* ---- extents and versions ---------------------------------------------- */

static size_t reserved(const struct tt_pending *p)
{
    return p->queued * RESERVE;
}

static void put_extent(struct tt_pending *p, struct extent *x)
{
    SLIST_INSERT_HEAD(&p->spares, x, spare);
    p->spare_count++;
}

static bool have_spares(struct tt_pending *p, size_t count)
{
    while (p->spare_count < count) {
        struct extent *x = malloc(sizeof(*x));

        if (!x) {
            return false;
        }
        put_extent(p, x);
    }
    return true;
}

/* NULL: out of memory.  Not if it takes what the caller had set aside. */
static struct extent *get_extent(struct tt_pending *p)
{
    struct extent *x;

    if (!have_spares(p, reserved(p) + 1)) {
        return NULL;
    }
    x = SLIST_FIRST(&p->spares);
    SLIST_REMOVE_HEAD(&p->spares, spare);
    p->spare_count--;
    return x;
}

/* To be done last in each call that takes things away. */
static void free_spares(struct tt_pending *p, size_t keep)
{
    while (p->spare_count > keep) {
        struct extent *x = SLIST_FIRST(&p->spares);

        SLIST_REMOVE_HEAD(&p->spares, spare);
        p->spare_count--;
        free(x);
    }
}

static void settle(struct tt_pending *p)
{
    free_spares(p, reserved(p) + SLACK);
}

static void unref(struct tt_pending *p, struct version *v)
{
    assert(v->refs > 0);
    if (--v->refs == 0) {
        void *owner = v->owner;

        p->versions--;
        p->bytes -= v->length;
        p->captures -= tt_pending_capture(v->offset, v->length);
        free(v);
        p->release(owner);
    }
}

static const uint8_t *data_at(const struct version *v, uint64_t offset)
{
    return v->data ? v->data + (offset - v->offset) : NULL;
}

/* ---- maps -------------------------------------------------------------- */

/* The first extent that ends behind @offset */
static struct extent *find(const struct map *m, uint64_t offset)
{
    struct extent *x = RB_ROOT(m), *best = NULL;

    while (x) {
        if (x->end > offset) {
            best = x;
            x = RB_LEFT(x, node);
        } else {
            x = RB_RIGHT(x, node);
        }
    }
    return best;
}

/* The next one, if it begins before @end */
static struct extent *next_before(struct extent *x, uint64_t end)
{
    if (x->end >= end) {
        return NULL;
    }
    x = RB_NEXT(map, NULL, x);
    return x && x->start < end ? x : NULL;
}

static struct extent *find_before(const struct map *m, uint64_t offset,
                                  uint64_t end)
{
    struct extent *x = find(m, offset);

    return x && x->start < end ? x : NULL;
}

static void insert(struct map *m, struct extent *x)
{
    struct extent *other = RB_INSERT(map, m, x);

    assert(!other);
    (void)other;
}

static struct extent *new_extent(struct tt_pending *p, struct map *m,
                                 struct version *v, uint64_t start,
                                 uint64_t end, uint64_t oldest)
{
    struct extent *x = get_extent(p);

    if (x) {
        x->start = start;
        x->end = end;
        x->version = v;
        x->oldest = oldest;
        x->covered = false;
        v->refs++;
        insert(m, x);
    }
    return x;
}

/* Cuts @x at @offset, and keeps what is before; the rest, or NULL: no memory */
static struct extent *split(struct tt_pending *p, struct map *m,
                            struct extent *x, uint64_t offset)
{
    uint64_t end = x->end;
    struct extent *rest;

    assert(offset > x->start && offset < end);
    x->version->whole = m == &p->newest ? NULL : x->version->whole;
    x->end = offset;
    rest = new_extent(p, m, x->version, offset, end, x->oldest);
    if (!rest) {
        x->end = end;
        return NULL;
    }
    if (m == &p->durable) {
        TAILQ_INSERT_AFTER(&p->order, x, rest, link);
    }
    return rest;
}

static void drop(struct tt_pending *p, struct map *m, struct extent *x)
{
    struct version *v = x->version;

    RB_REMOVE(map, m, x);
    if (m == &p->durable) {
        TAILQ_REMOVE(&p->order, x, link);
    }
    if (v->whole == x) {
        v->whole = NULL;
    }
    put_extent(p, x);
    unref(p, v);
}

/*
 * [start, end) leaves the map; of @only, if that is not NULL.  Needs one
 * extent to spare if it lies within one.
 */
static void cut(struct tt_pending *p, struct map *m, uint64_t start,
                uint64_t end, const struct version *only)
{
    struct extent *x = find_before(m, start, end), *next;

    for (; x; x = next) {
        next = next_before(x, end);
        if (only && x->version != only) {
            continue;
        }
        if (x->start < start) {
            if (x->end > end) {
                struct extent *rest = split(p, m, x, end);

                assert(rest);
                (void)rest;
            }
            x->end = start;
        } else if (x->end > end) {
            x->start = end;
        } else {
            drop(p, m, x);
        }
    }
}

/* ---- life -------------------------------------------------------------- */

struct tt_pending *tt_pending_new(void (*release)(void *owner))
{
    struct tt_pending *p = calloc(1, sizeof(*p));

    if (p) {
        p->release = release;
        RB_INIT(&p->newest);
        RB_INIT(&p->durable);
        RB_INIT(&p->flying);
        TAILQ_INIT(&p->order);
        TAILQ_INIT(&p->flights);
        TAILQ_INIT(&p->queue);
        SLIST_INIT(&p->spares);
    }
    return p;
}

void tt_pending_free(struct tt_pending *p)
{
    if (p) {
        assert(RB_EMPTY(&p->flying));
        tt_pending_trim(p, 0);
        assert(!p->versions && !p->bytes && !p->captures && !p->queued_bytes);
        free_spares(p, 0);
        free(p);
    }
}

bool tt_pending_add(struct tt_pending *p, uint64_t seq, uint16_t kind,
                    uint16_t flags, uint64_t offset, uint64_t length,
                    const uint8_t *data, void *owner)
{
    uint64_t most =
        kind == TT_KIND_ZERO ? TT_ZERO_RECORD_MAX : TT_PAYLOAD_RECORD_MAX;
    struct version *v;
    struct extent *x;

    assert(kind == TT_KIND_WRITE || kind == TT_KIND_ZERO);
    assert((kind == TT_KIND_ZERO) == !data);
    assert(length && length <= most && seq > p->last_seq);
    (void)most;

    if (!have_spares(p, reserved(p) + RESERVE + RESERVE_NEWEST)) {
        return false;
    }
    v = malloc(sizeof(*v));
    if (!v) {
        return false;
    }
    *v = (struct version){
        .seq = seq,
        .kind = kind,
        .flags = flags,
        .offset = offset,
        .length = length,
        .end = offset + length,
        .data = data,
        .owner = owner,
        .refs = 1, /* the queue's */
    };
    p->last_seq = seq;
    p->versions++;
    p->bytes += length;
    p->captures += tt_pending_capture(offset, length);
    TAILQ_INSERT_TAIL(&p->queue, v, link);
    p->queued++;
    p->queued_bytes += length;

    cut(p, &p->newest, offset, v->end, NULL);
    x = new_extent(p, &p->newest, v, offset, v->end, 0);
    assert(x);
    v->whole = x;
    settle(p);
    return true;
}

static void leave_queue(struct tt_pending *p, struct version *v)
{
    TAILQ_REMOVE(&p->queue, v, link);
    p->queued--;
    p->queued_bytes -= v->length;
}

/* ---- becoming durable -------------------------------------------------- */

/*
 * The first extent of durable or flying in [start, end), after those that
 * reach over an end of it are cut there.
 */
static struct extent *cut_ends(struct tt_pending *p, struct map *m,
                               uint64_t start, uint64_t end)
{
    struct extent *first = find_before(m, start, end), *x, *next;

    if (first && first->start < start && !first->covered) {
        first = split(p, m, first, start);
        assert(first);
    }
    for (x = first; x && x->end < end; x = next) {
        next = next_before(x, end);
    }
    if (x && x->end > end && !x->covered) {
        x = split(p, m, x, end);
        assert(x);
    }
    return first;
}

/* The whole of @x is of @v now; it keeps its turn. */
static void replace(struct tt_pending *p, struct extent *x, struct version *v)
{
    struct version *old = x->version;

    x->version = v;
    v->refs++;
    unref(p, old);
}

/*
 * @v, which is newer than all in the map, takes its places in it: it inherits
 * the turn of what was there, and has its own where nothing was.
 */
static void become_durable(struct tt_pending *p, struct version *v)
{
    uint64_t at = v->offset, end = v->end;
    struct extent *x, *last = NULL;

    /* what is in flight there has a newer one now: it need not come back */
    x = cut_ends(p, &p->flying, at, end);
    for (; x; x = next_before(x, end)) {
        x->covered = true;
    }

    /* before the gaps are filled, which can do without memory */
    x = cut_ends(p, &p->durable, at, end);
    while (at < end) {
        uint64_t gap_end = x ? x->start : end;

        if (at < gap_end) {
            struct extent *gap =
                new_extent(p, &p->durable, v, at, gap_end, v->seq);

            if (gap) {
                TAILQ_INSERT_TAIL(&p->order, gap, link);
            } else {
                /* no memory: a neighbour's turn, which is earlier, will do;
                 * the first gap has an extent set aside */
                assert(last);
                last->end = gap_end;
            }
        }
        if (!x) {
            break;
        }
        replace(p, x, v);
        last = x;
        at = x->end;
        x = next_before(x, end);
    }
}

void tt_pending_durable(struct tt_pending *p, uint64_t seq)
{
    struct version *v;

    while ((v = TAILQ_FIRST(&p->queue)) && v->seq <= seq) {
        leave_queue(p, v);
        become_durable(p, v);
        unref(p, v);
    }
    settle(p);
}

/* ---- questions --------------------------------------------------------- */

bool tt_pending_read(const struct tt_pending *p, uint64_t offset,
                     uint64_t length, const uint8_t **ret_data,
                     uint64_t *ret_run)
{
    const struct extent *x = find(&p->newest, offset);
    bool pending = x && x->start <= offset;
    uint64_t run = !x ? length : (pending ? x->end : x->start) - offset;

    *ret_run = run < length ? run : length;
    *ret_data = pending ? data_at(x->version, offset) : NULL;
    return pending;
}

uint64_t tt_pending_bytes(const struct tt_pending *p)
{
    return p->bytes;
}

uint64_t tt_pending_capture(uint64_t offset, uint64_t length)
{
    uint64_t first = offset / TT_GRID;
    uint64_t end = (offset + length + TT_GRID - 1) / TT_GRID;

    /* a block and its head for each: few may share a frame */
    return (end - first) * 2 * TT_GRID;
}

uint64_t tt_pending_captures(const struct tt_pending *p)
{
    return p->captures;
}

bool tt_pending_empty(const struct tt_pending *p)
{
    return !p->versions;
}

uint64_t tt_pending_undurable(const struct tt_pending *p, uint64_t *ret_last)
{
    struct version *v = TAILQ_LAST(&p->queue, version_queue);

    if (ret_last) {
        *ret_last = v ? v->seq : 0;
    }
    return p->queued_bytes;
}

uint64_t tt_pending_oldest(const struct tt_pending *p)
{
    const struct extent *x = TAILQ_FIRST(&p->order);
    const struct extent *flight = TAILQ_FIRST(&p->flights);
    const struct version *v = TAILQ_FIRST(&p->queue);
    uint64_t oldest = x ? x->oldest : UINT64_MAX;

    if (v && v->seq < oldest) {
        oldest = v->seq;
    }
    if (flight && flight->request_oldest < oldest) {
        oldest = flight->request_oldest;
    }
    return oldest == UINT64_MAX ? 0 : oldest;
}

uint64_t tt_pending_level(const struct tt_pending *p, uint64_t last)
{
    uint64_t oldest = tt_pending_oldest(p);

    return oldest ? oldest - 1 : last;
}

/* ---- requests to the disk ---------------------------------------------- */

/* May @x, next to @edge, be part of the same request?  Then it counts. */
static bool join(struct tt_writeback *w, const struct extent *edge,
                 const struct extent *x)
{
    const struct version *a = edge->version, *b = x->version;
    uint64_t length = w->length + (x->end - x->start);
    unsigned parts = w->part_count + (w->kind == TT_KIND_WRITE && a != b);

    if (b->kind != w->kind ||
        (b->kind == TT_KIND_ZERO && b->flags != w->flags) ||
        length > TT_WRITEBACK_MAX || parts > TT_WRITEBACK_PARTS) {
        return false;
    }
    w->part_count = parts;
    w->length = length;
    return true;
}

static void add_part(struct tt_writeback *w, const struct extent *x,
                     const struct version *previous)
{
    uint64_t length = x->end - x->start;

    if (x->version == previous) {
        w->parts[w->part_count - 1].length += length;
    } else {
        w->parts[w->part_count].data = data_at(x->version, x->start);
        w->parts[w->part_count].length = length;
        w->part_count++;
    }
}

/* In the order of their turns; what is taken last is mostly the last. */
static void add_flight(struct tt_pending *p, struct extent *x)
{
    struct extent *before = TAILQ_LAST(&p->flights, extent_list);

    while (before && before->request_oldest > x->request_oldest) {
        before = TAILQ_PREV(before, extent_list, link);
    }
    if (before) {
        TAILQ_INSERT_AFTER(&p->flights, before, x, link);
    } else {
        TAILQ_INSERT_HEAD(&p->flights, x, link);
    }
}

bool tt_pending_take(struct tt_pending *p, struct tt_writeback *ret)
{
    struct extent *first, *last, *x, *next;
    const struct version *previous = NULL;
    uint64_t from = 0, to = UINT64_MAX; /* between requests in flight */
    uint64_t end, oldest = UINT64_MAX;

    TAILQ_FOREACH(first, &p->order, link) {
        if (!find_before(&p->flying, first->start, first->end)) {
            break;
        }
    }
    if (!first) {
        return false;
    }
    x = find(&p->flying, first->start);
    to = x ? x->start : to;
    x = x ? RB_PREV(map, NULL, x) : RB_MAX(map, &p->flying);
    from = x ? x->end : from;

    last = first;
    ret->kind = first->version->kind;
    ret->flags = ret->kind == TT_KIND_ZERO ? first->version->flags : 0;
    ret->length = first->end - first->start;
    ret->part_count = 1;
    while ((x = RB_NEXT(map, NULL, last)) && x->start == last->end &&
           x->end <= to && join(ret, last, x)) {
        last = x;
    }
    while ((x = RB_PREV(map, NULL, first)) && x->end == first->start &&
           x->start >= from && join(ret, first, x)) {
        first = x;
    }

    ret->offset = first->start;
    ret->part_count = 0;
    ret->in_flight = first;
    end = ret->offset + ret->length;
    for (x = first; x; x = next) {
        next = next_before(x, end);
        if (ret->kind == TT_KIND_WRITE) {
            add_part(ret, x, previous);
        }
        previous = x->version;
        if (x->oldest < oldest) {
            oldest = x->oldest;
        }
        RB_REMOVE(map, &p->durable, x);
        TAILQ_REMOVE(&p->order, x, link);
        insert(&p->flying, x);
    }
    first->request_oldest = oldest;
    add_flight(p, first);
    return true;
}

/*
 * The request's first extent: its others are found by their place, because
 * requests do not overlap.
 */
static struct extent *land(struct tt_pending *p, const struct tt_writeback *w)
{
    struct extent *x = w->in_flight;

    assert(x && x->start == w->offset);
    TAILQ_REMOVE(&p->flights, x, link);
    return x;
}

/* @x leaves flying; returns the next one of the request, or NULL. */
static struct extent *land_next(struct tt_pending *p,
                                const struct tt_writeback *w, struct extent *x)
{
    struct extent *next = next_before(x, w->offset + w->length);

    RB_REMOVE(map, &p->flying, x);
    return next;
}

/* What newest has of @v in [start, end) is on the disk. */
static void leave_newest(struct tt_pending *p, struct version *v,
                         uint64_t start, uint64_t end)
{
    struct extent *x = v->whole;

    if (x && x->start >= start && x->end <= end) {
        drop(p, &p->newest, x);
    } else {
        cut(p, &p->newest, start, end, v);
    }
}

void tt_pending_written(struct tt_pending *p, struct tt_writeback *w)
{
    struct extent *x, *next;

    for (x = land(p, w); x; x = next) {
        struct version *v = x->version;
        uint64_t start = x->start, end = x->end;

        next = land_next(p, w, x);
        /* first, so that there is one to spare */
        put_extent(p, x);
        leave_newest(p, v, start, end);
        unref(p, v);
    }
    settle(p);
}

/* Into the list, where its turn is: near its head, among what is oldest */
static void queue_up(struct tt_pending *p, struct extent *x)
{
    struct extent *other;

    TAILQ_FOREACH(other, &p->order, link) {
        if (other->oldest > x->oldest) {
            TAILQ_INSERT_BEFORE(other, x, link);
            return;
        }
    }
    TAILQ_INSERT_TAIL(&p->order, x, link);
}

/*
 * What is durable in [start, end) waits since @oldest.  Without memory, the
 * rest of an extent that reaches out of it does, too: that is only careful.
 */
static void inherit(struct tt_pending *p, uint64_t start, uint64_t end,
                    uint64_t oldest)
{
    struct extent *x = find_before(&p->durable, start, end);

    for (; x; x = next_before(x, end)) {
        if (x->oldest <= oldest) {
            continue;
        }
        if (x->start < start) {
            struct extent *rest = split(p, &p->durable, x, start);

            x = rest ? rest : x;
        }
        if (x->end > end) {
            split(p, &p->durable, x, end);
        }
        TAILQ_REMOVE(&p->order, x, link);
        x->oldest = oldest;
        queue_up(p, x);
    }
}

void tt_pending_refused(struct tt_pending *p, struct tt_writeback *w)
{
    struct extent *x, *next;

    for (x = land(p, w); x; x = next) {
        next = land_next(p, w, x);
        if (x->covered) {
            struct version *v = x->version;
            uint64_t start = x->start, end = x->end, oldest = x->oldest;

            put_extent(p, x);
            inherit(p, start, end, oldest);
            unref(p, v);
        } else {
            insert(&p->durable, x);
            queue_up(p, x);
        }
    }
    settle(p);
}

/* ---- the disk shrinks -------------------------------------------------- */

void tt_pending_trim(struct tt_pending *p, uint64_t size)
{
    struct version *v, *next;

    assert(!find(&p->flying, size));
    for (v = TAILQ_FIRST(&p->queue); v; v = next) {
        next = TAILQ_NEXT(v, link);
        if (v->offset >= size) {
            leave_queue(p, v);
            unref(p, v);
        } else if (v->end > size) {
            v->end = size;
        }
    }
    cut(p, &p->durable, size, UINT64_MAX, NULL);
    cut(p, &p->newest, size, UINT64_MAX, NULL);
    settle(p);
}
