/*
 * ttjournal filter driver: what QMP asks of a node, and what it is told
 *
 * Counters, sizes and times, which change with each write, are statistics
 * (query-blockstats with query-nodes); which journal this is, in which session,
 * is the image's information (query-named-block-nodes, qemu-img info).
 *
 * A mark's name must be new in its journal.  The names that are there are read
 * when the first mark of a session is made: each frame's header leads to the
 * newest one before it that holds a mark, or something else of note, so that
 * little is read of a large journal.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-core.h"
#include "qapi/qapi-events-block-core.h"
#include "qemu/cutils.h"
#include "qemu/uuid.h"

#include "ttjournal-int.h"

/* ---- for how long something has been pending ------------------------------ */

/* Between two looks at the journal's end, as long as there are few */
#define LAG_STEP_NS (100 * SCALE_MS)

void ttj_lag_look(BDRVTtjournalState *s, int64_t now)
{
    TTJLag *lag = &s->lag;
    uint64_t oldest = tt_pending_oldest(s->pending), last = ttj_last_seq(s);
    unsigned gone = 0, i;

    while (gone < lag->count && (!oldest || lag->at[gone].seq < oldest)) {
        gone++;
    }
    lag->count -= gone;
    memmove(lag->at, lag->at + gone, lag->count * sizeof(lag->at[0]));
    if (!lag->count) {
        lag->step_ns = LAG_STEP_NS;
    }
    if (lag->count == TTJ_LAGS) {
        /* what has been pending for so long need not be known so well */
        for (i = 0; i < TTJ_LAGS / 2; i++) {
            lag->at[i] = lag->at[2 * i];
        }
        lag->count = i;
        lag->step_ns *= 2;
    }
    if (oldest && (!lag->count || lag->at[lag->count - 1].seq < last)) {
        lag->at[lag->count].seq = last;
        lag->at[lag->count++].ns = now;
    }
    lag->next_ns = now + lag->step_ns;
}

/* Called with lock held. */
static uint64_t ttj_pending_age(BDRVTtjournalState *s, int64_t now)
{
    uint64_t oldest = tt_pending_oldest(s->pending);

    for (unsigned i = 0; oldest && i < s->lag.count; i++) {
        if (s->lag.at[i].seq >= oldest) {
            return now - s->lag.at[i].ns;
        }
    }
    return 0;
}

/* ---- state ---------------------------------------------------------------- */

/* Called with lock held. */
static TtjournalState ttj_state(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    if (!s->running) {
        return s->recording || bs->open_flags & BDRV_O_INACTIVE
                   ? TTJOURNAL_STATE_INACTIVE
                   : TTJOURNAL_STATE_READ_ONLY;
    }
    if (s->journal_error) {
        return TTJOURNAL_STATE_FAILED;
    }
    if (s->unrecorded) {
        return TTJOURNAL_STATE_GAP;
    }
    return s->held ? TTJOURNAL_STATE_WAITING : TTJOURNAL_STATE_RECORDING;
}

/* Called with lock held, while a session is open. */
static void ttj_stats_of_session(BlockDriverState *bs,
                                 BlockStatsSpecificTtjournal *st)
{
    BDRVTtjournalState *s = bs->opaque;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    uint64_t room = qatomic_read(&s->growth.room);

    st->last_seq = ttj_last_seq(s);
    st->has_last_time = st->last_seq > 0;
    st->last_time = s->writer.last_time;
    st->durable_seq = s->writer.durable_seq;
    st->disk_seq =
        MIN(tt_pending_level(s->pending, st->last_seq), s->level_max);
    st->journal_bytes = s->writer.next_offset;
    /* one that grows by being written has none */
    st->journal_room = room > st->journal_bytes ? room - st->journal_bytes : 0;
    st->undurable_bytes = tt_pending_undurable(s->pending, NULL);
    st->undurable_age = st->undurable_bytes ? now - s->undurable_ns : 0;
    st->pending_bytes = tt_pending_bytes(s->pending);
    st->pending_age = ttj_pending_age(s, now);
}

BlockStatsSpecific *ttj_get_specific_stats(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    BlockStatsSpecific *stats = g_new0(BlockStatsSpecific, 1);
    BlockStatsSpecificTtjournal *st = &stats->u.ttjournal;

    stats->driver = BLOCKDEV_DRIVER_TTJOURNAL;
    QEMU_LOCK_GUARD(&s->lock);
    st->state = ttj_state(bs);
    st->disk_flush = s->options.lazy ? TTJOURNAL_DISK_FLUSH_LAZY
                                     : TTJOURNAL_DISK_FLUSH_GUEST;
    if (s->running) {
        ttj_stats_of_session(bs, st);
    } else if (s->found.known) {
        st->last_seq = st->disk_seq = s->found.last_seq;
        if (s->pending) {
            /* after a crash the disk is behind, and reads know it */
            st->disk_seq = tt_pending_level(s->pending, st->last_seq);
            st->pending_bytes = tt_pending_bytes(s->pending);
        }
        st->has_last_time = st->last_seq > 0;
        st->last_time = s->found.last_time;
        st->durable_seq = s->found.durable_seq;
        st->journal_bytes = s->found.end;
    }
    st->checkpoints = s->counts.checkpoints;
    st->checkpoint_seq = s->counts.checkpoint_seq;
    st->has_checkpoint_time = st->checkpoints > 0;
    st->checkpoint_time = s->counts.checkpoint_time;
    st->gaps = s->counts.gaps;
    st->has_gap_begun = st->gaps > 0;
    st->gap_begun = s->counts.gap_begun;
    st->has_gap_ended = st->gaps > 0 && !s->unrecorded;
    st->gap_ended = s->counts.gap_ended;
    st->held = s->held;
    st->append_errors = s->failures;
    st->flush_errors = s->counts.flush_errors;
    st->disk_errors = s->counts.disk_errors;
    return stats;
}

void ttj_remember_found(TTJStart *st)
{
    BDRVTtjournalState *s = st->bs->opaque;
    const struct tt_scan *scan = &st->recovery.scan;

    s->found = (TTJFound){
        .known = true,
        .super = st->super,
        .session = scan->last.session,
        .session_seq = scan->last.session_first_seq,
        .last_seq = scan->last_seq,
        .last_time = scan->last.last_time,
        .durable_seq = scan->durable_seq,
        .end = scan->end_offset,
        .chain = scan->last.own_chain,
    };
}

/* What a session has is in its writer.  Called with lock held. */
static TTJFound ttj_found_now(BDRVTtjournalState *s)
{
    const struct tt_writer *w = &s->writer;

    return s->running ? (TTJFound){
        .known = true,
        .super = w->super,
        .session = w->session,
        .session_seq = w->session_first_seq,
        .last_seq = ttj_last_seq(s),
        .chain = w->chain,
    } : s->found;
}

ImageInfoSpecific *ttj_get_specific_info(BlockDriverState *bs, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    ImageInfoSpecificTtjournal *data;
    ImageInfoSpecific *info;
    char created[TT_TIME_SIZE];
    QemuUUID uuid;
    TTJFound found;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        found = ttj_found_now(s);
    }
    if (!found.known) {
        return NULL; /* inactive: it is another's */
    }
    QEMU_BUILD_BUG_ON(sizeof(uuid.data) != TT_UUID_SIZE);
    memcpy(uuid.data, found.super.uuid, TT_UUID_SIZE);
    data = g_new(ImageInfoSpecificTtjournal, 1);
    *data = (ImageInfoSpecificTtjournal){
        .uuid = qemu_uuid_unparse_strdup(&uuid),
        .created = g_strdup(tt_time_format(found.super.created, created)),
        .session = found.session,
        .session_seq = found.session_seq,
        .last_seq = found.last_seq,
        .chain = g_strdup_printf("%016" PRIx64, found.chain),
    };
    info = g_new0(ImageInfoSpecific, 1);
    info->type = IMAGE_INFO_SPECIFIC_KIND_TTJOURNAL;
    info->u.ttjournal.data = data;
    return info;
}

void ttj_say_error(BlockDriverState *bs, TtjournalOperation operation,
                   int error)
{
    qapi_event_send_ttjournal_error(bdrv_get_node_name(bs), operation,
                                    strerror(error));
}

/* Called with lock held. */
void ttj_disk_failed(BlockDriverState *bs, int error)
{
    BDRVTtjournalState *s = bs->opaque;

    s->counts.disk_errors++;
    ttj_say_error(bs, TTJOURNAL_OPERATION_WRITE_BACK, error);
}

/* ---- marks ---------------------------------------------------------------- */

static void ttj_take_names(GHashTable *names, const struct tt_frame *f,
                           const uint8_t *table)
{
    uint32_t pos = 0, index = 0;
    struct tt_record r;

    while (tt_table_next(f, table, &pos, &index, &r)) {
        if (r.kind == TT_KIND_MARK && r.body) {
            g_hash_table_add(names,
                             g_strndup((const char *)r.body, r.payload_length));
        }
    }
}

/* Goes from one notable frame to the one before, from that at @offset on. */
static bool coroutine_fn GRAPH_RDLOCK
ttj_read_names(BlockDriverState *bs, const struct tt_super *super,
               uint64_t offset, uint64_t end, GHashTable *names, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    g_autofree uint8_t *head = g_malloc(TT_HEAD_MAX);
    struct tt_source source = {
        .read = ttj_read_journal,
        .opaque = bs,
        .size = end,
    };
    struct tt_error err;
    struct tt_frame f;

    while (offset) {
        int ret = tt_frame_read(super, &source, offset, head, &f, &err);

        if (ret < 0) {
            ttj_error(bs, ret, errp, &err);
            return false;
        }
        if (!ret) {
            error_setg(errp,
                       "ttjournal: journal '%s' is damaged at %" PRIu64
                       ", where its marks are found: whether the name is free "
                       "cannot be told; stop recording, and use 'ttjournal "
                       "mark'",
                       ttj_name(s->journal->bs), offset);
            return false;
        }
        ttj_take_names(names, &f, head + sizeof(struct tt_frame_header));
        offset = f.notable_offset; /* always below f.offset */
    }
    return true;
}

/* Called with mark_lock held. */
static bool coroutine_fn GRAPH_RDLOCK ttj_load_names(BlockDriverState *bs,
                                                     Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    g_autoptr(GHashTable) names =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    struct tt_super super;
    uint64_t offset, end;

    if (s->mark_names) {
        return true;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        super = s->writer.super;
        offset = s->writer.notable_offset;
        end = s->writer.next_offset;
    }
    if (!ttj_read_names(bs, &super, offset, end, names, errp)) {
        return false;
    }
    s->mark_names = g_steal_pointer(&names);
    return true;
}

void ttj_forget_names(BDRVTtjournalState *s)
{
    if (s->mark_names) {
        g_hash_table_unref(s->mark_names);
        s->mark_names = NULL;
    }
}

/*
 * Appends EVENT, if there is a @text, and MARK, durably.  What is kept for the
 * driver's own records in a full journal is not for these.
 */
static int coroutine_fn GRAPH_RDLOCK ttj_append_mark(BlockDriverState *bs,
                                                     const char *name,
                                                     const char *text,
                                                     TTJEntry *ret_mark)
{
    size_t length = text ? strlen(text) : 0;
    struct tt_event_body body = {
        .source = tt_put32(TT_EVENT_HOST),
        .length = tt_put32(length),
    };
    TTJEntry e[2] = { 0 };
    unsigned count = 0;
    int ret;

    if (text) {
        e[0].data = ttj_data_new(bs, sizeof(body) + length);
        if (!e[0].data) {
            return -ENOMEM;
        }
        memcpy(e[0].data->bytes, &body, sizeof(body));
        memcpy(e[0].data->bytes + sizeof(body), text, length);
        e[0].req = (struct tt_request){
            .kind = TT_KIND_EVENT,
            .flags =
                sizeof(body) + length > TT_INLINE_MAX ? 0 : TT_RECORD_INLINE,
            .payload = e[0].data->bytes,
            .payload_length = sizeof(body) + length,
        };
        e[count++].spare = true;
    }
    e[count].req = (struct tt_request){
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = name,
        .payload_length = strlen(name),
    };
    e[count++].spare = true;
    ret = ttj_append(bs, e, count);
    if (ret == 0) {
        *ret_mark = e[count - 1];
        ret = ttj_make_durable(bs, ret_mark->seq);
    }
    ttj_data_unref(e[0].data);
    return ret;
}

/* When was the record @e appended?  The journal says it. */
static bool coroutine_fn GRAPH_RDLOCK ttj_time_of(BlockDriverState *bs,
                                                  const TTJEntry *e,
                                                  int64_t *ret_time,
                                                  Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    g_autofree uint8_t *head = g_malloc(TT_HEAD_MAX);
    struct tt_source source = { .read = ttj_read_journal, .opaque = bs };
    struct tt_super super;
    struct tt_error err;
    struct tt_frame f;
    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        super = s->writer.super;
        source.size = s->writer.next_offset;
    }
    ret = tt_frame_read(&super, &source, e->frame_offset, head, &f, &err);
    if (ret > 0) {
        *ret_time = f.last_time; /* of all its records but a CLOCK */
        return true;
    }
    if (!ret) {
        tt_fail(&err, TT_EDAMAGED, 0,
                "the mark at %" PRIu64 " is not as it was written",
                e->frame_offset);
        ret = -TT_EDAMAGED;
    }
    ttj_error(bs, ret, errp, &err);
    return false;
}

/* Called with mark_lock held; the name is free. */
static bool coroutine_fn GRAPH_RDLOCK
ttj_make_mark(BlockDriverState *bs, const char *name, const char *text,
              TTJEntry *ret_mark, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    int ret;

    qemu_co_rwlock_rdlock(&s->resize_lock); /* no gap begins meanwhile */
    if (s->unrecorded) {
        qemu_co_rwlock_unlock(&s->resize_lock);
        error_setg(errp,
                   "ttjournal: writes to node '%s' are not recorded just now, "
                   "so this moment cannot be marked: make room for the journal",
                   bdrv_get_node_name(bs));
        return false;
    }
    ret = ttj_append_mark(bs, name, text, ret_mark);
    qemu_co_rwlock_unlock(&s->resize_lock);
    if (ret < 0) {
        /* it may be there, or be durable after all: read the names anew */
        ttj_forget_names(s);
        error_setg_errno(errp, -ret,
                         "ttjournal: mark '%s' cannot be recorded in journal "
                         "'%s'",
                         name, ttj_name(s->journal->bs));
        return false;
    }
    g_hash_table_add(s->mark_names, g_strdup(name));
    return true;
}

static TtjournalMark *coroutine_fn GRAPH_RDLOCK
ttj_mark(BlockDriverState *bs, const char *name, const char *text, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    char rfc3339[TT_TIME_SIZE];
    TtjournalMark *mark;
    TTJEntry e = { 0 };
    int64_t time;

    QEMU_LOCK_GUARD(&s->mark_lock);
    if (!ttj_load_names(bs, errp)) {
        return NULL;
    }
    if (g_hash_table_contains(s->mark_names, name)) {
        error_setg(errp,
                   "ttjournal: mark '%s' exists already in journal '%s': "
                   "choose another name",
                   name, ttj_name(s->journal->bs));
        return NULL;
    }
    if (!ttj_make_mark(bs, name, text, &e, errp) ||
        !ttj_time_of(bs, &e, &time, errp)) {
        return NULL;
    }
    mark = g_new(TtjournalMark, 1);
    *mark = (TtjournalMark){
        .seq = e.seq,
        .time = g_strdup(tt_time_format(time, rfc3339)),
        .time_ns = time,
    };
    return mark;
}

static bool ttj_check_mark(const char *name, const char *text, Error **errp)
{
    if (!tt_mark_name_ok(name, strlen(name))) {
        /* without it: it may be anything, and an error is one line */
        error_setg(errp,
                   "the name of a mark is up to %u of the characters A-Z a-z "
                   "0-9 . _ - without '..'",
                   TT_NAME_MAX);
        return false;
    }
    if (text && (!*text || strlen(text) > TT_TEXT_MAX)) {
        error_setg(errp,
                   "the text of a mark is 1 to %u bytes, not %zu: shorten it, "
                   "or leave it out",
                   TT_TEXT_MAX, strlen(text));
        return false;
    }
    return true;
}

/* The node, if it can be marked */
static BlockDriverState *GRAPH_RDLOCK ttj_find_node(const char *name,
                                                    Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(name);
    BDRVTtjournalState *s;

    if (!bs) {
        error_setg(errp,
                   "there is no node '%s': query-named-block-nodes "
                   "lists those that there are",
                   name);
        return NULL;
    }
    if (!bs->drv || strcmp(bs->drv->format_name, "ttjournal")) {
        error_setg(errp,
                   "node '%s' is not ttjournal but %s: name the node that "
                   "records",
                   name, bs->drv ? bs->drv->format_name : "not open");
        return NULL;
    }
    s = bs->opaque;
    if (s->running) {
        return bs;
    }
    error_setg(errp,
               "ttjournal: node '%s' is %s: it records nothing that "
               "could be marked",
               name,
               bs->open_flags & BDRV_O_INACTIVE ? "inactive" : "read-only");
    return NULL;
}

TtjournalMark *coroutine_fn qmp_ttjournal_mark(const char *node_name,
                                               const char *name,
                                               const char *text, Error **errp)
{
    BDRVTtjournalState *s;
    BlockDriverState *bs;
    TtjournalMark *mark;
    AioContext *old;

    if (!ttj_check_mark(name, text, errp)) {
        return NULL;
    }
    /*
     * In flight only with the graph lock held, as ttj_work() is.  Until then
     * this is the main loop's, which alone removes nodes and ends sessions.
     */
    GRAPH_RDLOCK_GUARD();
    bs = ttj_find_node(node_name, errp);
    if (!bs) {
        return NULL;
    }
    s = bs->opaque;
    s->marking++;
    old = bdrv_co_enter(bs);
    mark = ttj_mark(bs, name, text, errp);
    bdrv_co_leave(bs, old);
    s->marking--;
    aio_wait_kick(); /* for ttj_inactivate() */
    return mark;
}
