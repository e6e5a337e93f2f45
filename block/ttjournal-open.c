/*
 * ttjournal filter driver: from open to the first write, and close
 *
 * The order is binding.  Nothing is written before it is certain that journal
 * and disk belong together and that the disk is the one that was left:
 *   1. scan the journal, from the last checkpoint on;
 *   2. compare what the journal knows to be on the disk with the disk;
 *   3. write again in place what was accepted and is not known durable, flush;
 *   4. append SESSION, alone, and flush;
 *   5. capture what redo will overwrite, and flush;
 *   6. redo the newest version of each range that the disk may lack, and
 *      leave a CHECKPOINT.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "crypto/random.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "qemu/processor.h"
#include "qemu/uuid.h"
#include "qemu-version.h"

#include "ttjournal-int.h"

/* About 100 us: longer than the lock is held, unless its holder sleeps. */
#define LOCK_SPINS 2000

struct tt_now ttj_now(void)
{
    struct timespec real, boot;

    clock_gettime(CLOCK_REALTIME, &real);
#ifdef CLOCK_BOOTTIME
    clock_gettime(CLOCK_BOOTTIME, &boot);
#else
    clock_gettime(CLOCK_MONOTONIC, &boot);
#endif
    return (struct tt_now){
        .realtime = real.tv_sec * NANOSECONDS_PER_SECOND + real.tv_nsec,
        .boottime = boot.tv_sec * NANOSECONDS_PER_SECOND + boot.tv_nsec,
    };
}

/* ---- running coroutines from open and close ------------------------------ */

static void coroutine_fn ttj_step_entry(void *opaque)
{
    TTJStart *st = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        st->ret = st->step(st, st->errp);
    }
    st->done = true;
    aio_wait_kick();
}

static int ttj_run(TTJStart *st, int (*step)(TTJStart *st, Error **errp),
                   Error **errp)
{
    Coroutine *co = qemu_coroutine_create(ttj_step_entry, st);

    st->step = step;
    st->errp = errp;
    st->done = false;
    aio_co_enter(bdrv_get_aio_context(st->bs), co);
    BDRV_POLL_WHILE(st->bs, !st->done);
    return st->ret;
}

int ttj_read_journal(void *opaque, uint64_t offset, void *buf, size_t length)
{
    BlockDriverState *bs = opaque;
    BDRVTtjournalState *s = bs->opaque;

    return bdrv_pread(s->journal, offset, length, buf, 0);
}

static bool ttj_boot_id(uint8_t ret[TT_UUID_SIZE])
{
    g_autofree char *text = NULL;
    QemuUUID uuid;

    if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL,
                             NULL) ||
        qemu_uuid_parse(g_strstrip(text), &uuid) < 0) {
        memset(ret, 0, TT_UUID_SIZE);
        return false;
    }
    memcpy(ret, uuid.data, TT_UUID_SIZE);
    return true;
}

/* What the user is told names the journal and what to do about it. */
int ttj_error(BlockDriverState *bs, int ret, Error **errp,
              const struct tt_error *err)
{
    BDRVTtjournalState *s = bs->opaque;

    error_setg(errp, "ttjournal: journal '%s': %s", ttj_name(s->journal->bs),
               err->message);
    if (err->os_errno) {
        return -err->os_errno;
    }
    return ret == -TT_ENOMEM ? -ENOMEM : -EINVAL;
}

/* ---- 1: superblock and scan ---------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK
ttj_initialise(TTJStart *st, int64_t disk_size, Error **errp)
{
    BDRVTtjournalState *s = st->bs->opaque;
    g_autofree uint8_t *area = g_malloc(TT_SEGMENTS_OFFSET);
    uint8_t random[TT_UUID_SIZE];
    uint64_t salt;
    int ret;

    if (qcrypto_random_bytes(random, sizeof(random), errp) < 0 ||
        qcrypto_random_bytes(&salt, sizeof(salt), errp) < 0) {
        return -EIO;
    }
    random[6] = (random[6] & 0x0f) | 0x40; /* RFC 4122: random UUID */
    random[8] = (random[8] & 0x3f) | 0x80;
    tt_super_init(&st->super, random, salt, disk_size, s->alignment,
                  ttj_now().realtime);
    tt_super_encode(&st->super, area);
    ret = bdrv_co_truncate(s->journal, TT_SEGMENTS_OFFSET, false,
                           PREALLOC_MODE_OFF, 0, errp);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pwrite(s->journal, 0, TT_SEGMENTS_OFFSET, area, 0);
    if (ret == 0) {
        ret = bdrv_co_flush(s->journal->bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "ttjournal: cannot initialise journal "
                         "'%s'",
                         ttj_name(s->journal->bs));
    }
    st->source.size = TT_SEGMENTS_OFFSET;
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK ttj_scan(TTJStart *st, Error **errp)
{
    BlockDriverState *bs = st->bs;
    BDRVTtjournalState *s = bs->opaque;
    int64_t disk_size = bdrv_co_getlength(bs->file->bs);
    int64_t journal_size = bdrv_co_getlength(s->journal->bs);
    struct tt_error err;
    unsigned damaged;
    int ret;

    if (disk_size < 0 || journal_size < 0) {
        ret = disk_size < 0 ? disk_size : journal_size;
        error_setg_errno(errp, -ret, "ttjournal: cannot get the size of %s",
                         disk_size < 0 ? "the disk" : "the journal");
        return ret;
    }
    st->source = (struct tt_source){
        .read = ttj_read_journal,
        .next_data = ttj_next_data,
        .opaque = bs,
        .size = journal_size,
    };
    if (journal_size == 0 && s->recording) {
        ret = ttj_initialise(st, disk_size, errp);
        if (ret < 0) {
            return ret;
        }
    }
    ret = tt_super_read(&st->source, &st->super, &damaged, &err);
    if (ret < 0) {
        return ttj_error(bs, ret, errp, &err);
    }
    if (damaged) {
        warn_report("ttjournal: journal '%s': %u of 2 superblocks damaged",
                    ttj_name(s->journal->bs), damaged);
    }
    if (s->recording && (st->super.feature_ro_compat & ~TT_RO_COMPAT_KNOWN)) {
        error_setg(errp,
                   "ttjournal: journal '%s' uses features that this "
                   "version can read but not write: use a newer ttjournal",
                   ttj_name(s->journal->bs));
        return -ENOTSUP;
    }
    ret = tt_recovery_run(&st->super, &st->source, &st->recovery, &err);
    return ret < 0 ? ttj_error(bs, ret, errp, &err) : 0;
}

static int coroutine_fn ttj_scan_and_prove(TTJStart *st, Error **errp)
{
    int ret;

    assume_graph_lock();
    ret = ttj_scan(st, errp);
    return ret < 0 ? ret : ttj_prove(st, errp);
}

/* ---- 3 and 4: the journal's tail, and a new session ----------------------- */

/* Copies what was accepted and is not known durable over itself, and flushes. */
static int coroutine_fn GRAPH_RDLOCK ttj_rewrite_tail(TTJStart *st)
{
    BDRVTtjournalState *s = st->bs->opaque;
    struct tt_recovery *r = &st->recovery;
    int ret = 0;

    for (size_t i = 0; i < r->rewrite_count && ret >= 0; i++) {
        const struct tt_place *p = &r->rewrites[i];
        uint8_t *buf = qemu_try_blockalign(s->journal->bs, p->length);

        if (!buf) {
            return -ENOMEM;
        }
        ret = bdrv_co_pread(s->journal, p->offset, p->length, buf, 0);
        if (ret >= 0) {
            ret = bdrv_co_pwrite(s->journal, p->offset, p->length, buf, 0);
        }
        qemu_vfree(buf);
    }
    return ret < 0 ? ret : bdrv_co_flush(s->journal->bs);
}

static void GRAPH_RDLOCK ttj_describe(TTJStart *st, struct tt_session *se)
{
    BlockDriverState *bs = st->bs;
    struct tt_recovery *r = &st->recovery;
    struct tt_now now = ttj_now();
    const char *format, *path;
    g_autofree char *machine_id = NULL;

    ttj_disk_file(bs, &format, &path);

    *se = (struct tt_session){
        .realtime = now.realtime,
        .boottime = now.boottime,
        .disk_size = r->scan.disk_size,
        .recovered_from = r->rewrite_count ? r->scan.durable_seq + 1 : 0,
        .torn_offset = r->scan.torn_length ? r->scan.torn_offset : 0,
        .torn_length = r->scan.torn_length,
        .flags = TT_SESSION_RECORDER | (r->clean ? TT_SESSION_CLEAN : 0),
        .pid = getpid(),
        .program = g_strdup("QEMU " QEMU_FULL_VERSION),
        .host = g_strdup(g_get_host_name()),
        .node = g_strdup(bdrv_get_node_name(bs)),
        .disk_format = g_strdup(format),
        .disk_path = g_file_test(path, G_FILE_TEST_EXISTS)
                         ? g_canonicalize_filename(path, NULL)
                         : g_strdup(path),
    };
    ttj_boot_id(se->boot_id);
    if (ttj_disk_stat(bs, &se->disk_inode, &se->disk_mtime)) {
        se->flags |= TT_SESSION_HAS_STAT;
    }
    if (g_file_get_contents("/etc/machine-id", &machine_id, NULL, NULL)) {
        se->machine_id = g_strdup(g_strstrip(machine_id));
    }
}

static void ttj_describe_free(struct tt_session *se)
{
    g_free(se->program);
    g_free(se->host);
    g_free(se->node);
    g_free(se->disk_format);
    g_free(se->disk_path);
    g_free(se->machine_id);
}

static int coroutine_fn GRAPH_RDLOCK ttj_append_session(TTJStart *st)
{
    struct tt_session se;
    TTJEntry e = {
        .req.kind = TT_KIND_SESSION,
        .req.flags = TT_RECORD_INLINE,
    };
    uint8_t *body;
    int ret;

    ttj_describe(st, &se);
    body = tt_session_encode(&se, &e.req.payload_length);
    ttj_describe_free(&se);
    if (!body) {
        return -ENOMEM;
    }
    e.req.payload = body;
    ret = ttj_append(st->bs, &e, 1);
    free(body);
    return ret < 0 ? ret : ttj_make_durable(st->bs, e.seq);
}

/* What the scan found damaged is said once, behind the session that found it. */
static int coroutine_fn GRAPH_RDLOCK ttj_append_damages(TTJStart *st)
{
    struct tt_recovery *r = &st->recovery;
    int ret = 0;

    for (size_t i = 0; i < r->damage_count && ret == 0; i++) {
        const struct tt_damage *d = &r->damages[i];
        struct tt_damage_body body = {
            .offset = tt_put64(d->offset),
            .length = tt_put64(d->length),
            .first_seq = tt_put64(d->first_seq),
            .last_seq = tt_put64(d->last_seq),
        };
        TTJEntry e = {
            .req = {
                .kind = TT_KIND_DAMAGE,
                .flags = TT_RECORD_INLINE,
                .payload = &body,
                .payload_length = sizeof(body),
            },
        };

        warn_report("ttjournal: the journal is damaged at %" PRIu64
                    ": records %" PRIu64 " to %" PRIu64 " are missing",
                    d->offset, d->first_seq, d->last_seq);
        ret = ttj_append(st->bs, &e, 1);
    }
    return ret;
}

/* A crash came between the disk's shrinking and its RESIZE. */
static int coroutine_fn GRAPH_RDLOCK ttj_append_shrink(TTJStart *st)
{
    int64_t size = bdrv_co_getlength(st->bs->file->bs);
    TTJEntry e = {
        .req = {
            .kind = TT_KIND_RESIZE,
            .disk_offset = st->recovery.scan.disk_size,
            .disk_length = size,
        },
    };

    return size < 0 ? size : ttj_append(st->bs, &e, 1);
}

static int coroutine_fn ttj_begin_session(TTJStart *st, Error **errp)
{
    BDRVTtjournalState *s = st->bs->opaque;
    struct tt_recovery *r = &st->recovery;
    uint8_t boot_id[TT_UUID_SIZE];
    bool same_boot;
    uint64_t nonce;
    int ret;

    assume_graph_lock();
    if (qcrypto_random_bytes(&nonce, sizeof(nonce), errp) < 0) {
        return -EIO;
    }
    same_boot = ttj_boot_id(boot_id) && r->has_boot_id &&
                !memcmp(boot_id, r->boot_id, TT_UUID_SIZE);
    ret = ttj_rewrite_tail(st);
    if (ret == 0) {
        s->writer = r->writer;
        memset(&r->writer, 0, sizeof(r->writer));
        tt_writer_open(&s->writer, &st->super, &r->scan, s->alignment, nonce,
                       same_boot);
        if (r->damage_count || r->scan.unreadable) {
            s->writer.force_segment = true;
        }
        s->captured = g_steal_pointer(&r->captured);
        s->unmapped = g_steal_pointer(&r->unmapped);
        s->map_prev = r->map_prev;
        s->map_links = r->map_links;
        ret = ttj_append_session(st);
    }
    if (ret == 0) {
        ret = ttj_append_damages(st);
    }
    if (ret == 0 && r->open_gap) {
        ret = ttj_close_gap(st->bs, r->open_gap, r->gap_from_seq,
                            r->gap_from_epoch, r->gap_from_time);
    }
    if (ret == 0 && st->shrunk) {
        ret = ttj_append_shrink(st);
    }
    if (ret == 0) {
        ret = ttj_capture_redos(st);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "ttjournal: cannot append to journal "
                         "'%s'",
                         ttj_name(s->journal->bs));
    }
    return ret;
}

static int coroutine_fn ttj_redo_and_checkpoint(TTJStart *st, Error **errp)
{
    struct tt_recovery *r = &st->recovery;
    int ret;

    assume_graph_lock();
    ret = ttj_redo(st, errp);
    if (ret < 0) {
        return ret;
    }
    ret = ttj_checkpoint(st->bs, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot flush after recovery");
        return ret;
    }
    info_report("ttjournal: recovered: %zu ranges written again to the disk, "
                "which was behind since record %" PRIu64,
                r->redo_count, r->level_seq);
    return 0;
}

/* ---- open and close ------------------------------------------------------- */

static bool GRAPH_RDLOCK ttj_is_never_flushed(BlockDriverState *bs)
{
    while (bs && !(bs->open_flags & BDRV_O_NO_FLUSH)) {
        bs = bdrv_primary_bs(bs);
    }
    return bs;
}

static bool GRAPH_RDLOCK ttj_check_children(BlockDriverState *bs, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;

    if (bdrv_skip_filters(s->journal->bs) == bdrv_skip_filters(bs->file->bs)) {
        error_setg(errp, "ttjournal: 'file' and 'journal' are the same node");
        return false;
    }
    if (!s->recording) {
        return true;
    }
    if (bdrv_is_read_only(s->journal->bs) || bdrv_is_read_only(bs->file->bs)) {
        error_setg(errp,
                   "ttjournal: node '%s' is read-only: open it "
                   "read-write to record, or this one read-only",
                   bdrv_get_node_name(bdrv_is_read_only(s->journal->bs)
                                          ? s->journal->bs
                                          : bs->file->bs));
        return false;
    }
    if (ttj_is_never_flushed(s->journal->bs) ||
        ttj_is_never_flushed(bs->file->bs)) {
        error_setg(errp,
                   "ttjournal: cache.no-flush on the %s: a journal that "
                   "is never flushed proves nothing; leave it out",
                   ttj_is_never_flushed(s->journal->bs) ? "journal" : "disk");
        return false;
    }
    return true;
}

static int ttj_start_recording(TTJStart *st, Error **errp)
{
    BlockDriverState *bs = st->bs;
    struct tt_recovery *r = &st->recovery;
    bool redo = r->redo_count || r->resized;
    int ret = ttj_run(st, ttj_begin_session, errp);

    if (ret < 0 || !redo) {
        return ret;
    }
    /* Writing below a filter without parents needs a permission of its own */
    bdrv_graph_rdlock_main_loop();
    ret = bdrv_child_try_set_perm(
        bs->file, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
        BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE), errp);
    bdrv_graph_rdunlock_main_loop();
    if (ret < 0) {
        return ret;
    }
    ret = ttj_run(st, ttj_redo_and_checkpoint, errp);
    bdrv_graph_rdlock_main_loop();
    if (ret < 0) {
        bdrv_child_refresh_perms(bs, bs->file, NULL);
    } else {
        ret = bdrv_child_refresh_perms(bs, bs->file, errp);
    }
    bdrv_graph_rdunlock_main_loop();
    return ret;
}

/*
 * Held for microseconds, by the guest's thread and by the workers': to sleep
 * and to be woken takes longer than what is waited for, so it spins at first.
 */
static void ttj_lock(void *opaque)
{
    BDRVTtjournalState *s = opaque;

    if (qemu_mutex_trylock(&s->mutex) == 0) {
        return;
    }
    qatomic_inc(&s->lock_wanted);
    for (unsigned i = 0; i < LOCK_SPINS; i++) {
        cpu_relax();
        if (qemu_mutex_trylock(&s->mutex) == 0) {
            qatomic_dec(&s->lock_wanted);
            return;
        }
    }
    qemu_mutex_lock(&s->mutex);
    qatomic_dec(&s->lock_wanted);
}

static void ttj_unlock(void *opaque)
{
    BDRVTtjournalState *s = opaque;

    qemu_mutex_unlock(&s->mutex);
}

void ttj_make_way(BDRVTtjournalState *s)
{
    if (!qatomic_read(&s->lock_wanted)) {
        return;
    }
    qemu_lockable_unlock(&s->lock);
    for (unsigned i = 0; i < LOCK_SPINS && qatomic_read(&s->lock_wanted); i++) {
        cpu_relax();
    }
    qemu_lockable_lock(&s->lock);
}

static void ttj_lock_init(BDRVTtjournalState *s)
{
    qemu_mutex_init(&s->mutex);
    s->lock = (QemuLockable){
        .object = s,
        .lock = ttj_lock,
        .unlock = ttj_unlock,
    };
}

/* What a node has from open to close */
void ttj_init_state(BDRVTtjournalState *s)
{
    ttj_lock_init(s);
    ttj_grow_init(s);
    ttj_pool_init(&s->pool);
    qemu_co_rwlock_init(&s->resize_lock);
    qemu_co_mutex_init(&s->level_lock);
    qemu_co_mutex_init(&s->capture_lock);
    qemu_co_mutex_init(&s->mark_lock);
    qemu_co_queue_init(&s->append_idle);
    qemu_co_queue_init(&s->flushed);
    qemu_co_queue_init(&s->room);
    qemu_co_queue_init(&s->written);
    s->level_max = UINT64_MAX;
    QSIMPLEQ_INIT(&s->queue);
    QSIMPLEQ_INIT(&s->frames);
}

void ttj_destroy_state(BDRVTtjournalState *s)
{
    ttj_free_state(s);
    ttj_pool_destroy(&s->pool);
    qemu_mutex_destroy(&s->mutex);
}

/* Forgets the session; the node can start another. */
void ttj_free_state(BDRVTtjournalState *s)
{
    ttj_grow_clear(s);
    ttj_forget_names(s);
    s->found.known = false;
    s->lag.count = 0;
    ttj_frames_clear(s);
    tt_pending_free(s->pending);
    tt_writer_clear(&s->writer);
    tt_footer_free(s->footer);
    s->footer = NULL;
    tt_batch_free(s->batch);
    tt_blocks_free(s->captured);
    tt_blocks_free(s->unmapped);
    qemu_vfree(s->zeroes);
    memset(&s->writer, 0, sizeof(s->writer));
    s->pending = NULL;
    s->batch = NULL;
    s->captured = s->unmapped = NULL;
    s->zeroes = NULL;
    s->recording = s->running = s->room_wanted = false;
    s->journal_error = s->disk_error = 0;
    tt_blocks_free(s->gap);
    s->gap = NULL;
    s->unrecorded = false;
    s->level_max = UINT64_MAX;
    s->disk_doubtful = s->changed = s->settling = false;
    s->note_seq = s->told_seq = s->said_seq = s->capture_seq = 0;
    s->aged_seq = s->young_seq = s->level_seq = 0;
    s->map_prev = s->map_ranges = s->whole_ranges = 0;
    s->map_links = 0;
}

static void ttj_release(void *owner)
{
    ttj_data_unref(owner);
}

static int ttj_prepare(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    s->zeroes = qemu_blockalign0(s->journal->bs, TT_ALIGNMENT_MAX);
    s->batch = tt_batch_new();
    s->pending = tt_pending_new(ttj_release);
    return s->batch && s->pending ? 0 : -ENOMEM;
}

static int ttj_refuse_behind(Error **errp, const char *what_to_do)
{
    error_setg(errp,
               "ttjournal: the disk is behind its journal after a "
               "crash: %s",
               what_to_do);
    return -EUCLEAN;
}

void ttj_run_worker(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    ttj_disk_left(bs);
    QEMU_LOCK_GUARD(&s->lock);
    s->checkpoint_at = s->writer.next_offset;
    s->checkpoint_time = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    s->running = true;
    ttj_kick(bs);
}

static void ttj_stop_worker(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->running = false;
        s->stopping = true;
    }
    BDRV_POLL_WHILE(bs, ttj_is_working(s));
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->stopping = false;
    }
}

int ttj_start(BlockDriverState *bs, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJStart st = { .bs = bs };
    int ret;

    s->recording = bs->open_flags & BDRV_O_RDWR;
    bdrv_graph_rdlock_main_loop();
    ret = ttj_check_children(bs, errp) ? 0 : -EINVAL;
    s->alignment = ttj_journal_alignment(bs);
    bdrv_graph_rdunlock_main_loop();
    if (ret < 0) {
        s->recording = false;
        return ret;
    }
    ret = ttj_prepare(bs);
    if (ret == 0) {
        ret = ttj_run(&st, ttj_scan_and_prove, errp);
    }
    if (ret == 0 && s->recording) {
        ret = ttj_start_recording(&st, errp);
    } else if (ret == 0 && st.recovery.resized) {
        ret = ttj_refuse_behind(errp, "open it read-write once, which brings "
                                      "it up to date");
    } else if (ret == 0) {
        ret = ttj_run(&st, ttj_load_redos, errp);
        ttj_remember_found(&st);
    }
    tt_recovery_clear(&st.recovery);
    if (ret < 0) {
        ttj_free_state(s);
    } else if (s->recording) {
        bdrv_graph_rdlock_main_loop();
        ttj_run_worker(bs);
        bdrv_graph_rdunlock_main_loop();
    }
    return ret;
}

void coroutine_fn ttj_co_start_again(BlockDriverState *bs, Error **errp)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJStart st = { .bs = bs };
    int ret;

    if (s->recording || !(bs->open_flags & BDRV_O_RDWR)) {
        return;
    }
    s->recording = true;
    if (!ttj_check_children(bs, errp)) {
        s->recording = false;
        return;
    }
    s->alignment = MAX(s->alignment, s->journal->bs->bl.request_alignment);
    ret = ttj_prepare(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "ttjournal: cannot start");
    } else {
        ret = ttj_scan_and_prove(&st, errp);
    }
    if (ret == 0 && (st.recovery.redo_count || st.recovery.resized)) {
        ret =
            ttj_refuse_behind(errp, "open it read-write where nothing is "
                                    "migrated to, which brings it up to date");
    }
    if (ret == 0) {
        ret = ttj_begin_session(&st, errp);
    }
    tt_recovery_clear(&st.recovery);
    if (ret < 0) {
        ttj_free_state(s);
    } else {
        ttj_run_worker(bs);
    }
}

static int coroutine_fn ttj_seal(TTJStart *st, Error **errp)
{
    int ret;

    assume_graph_lock();
    ret = ttj_end_gap(st->bs);
    if (ret == 0) {
        ret = ttj_level(st->bs);
    }
    if (ret == 0) {
        ret = ttj_checkpoint(st->bs, TT_CHECKPOINT_CLEAN);
    }
    if (ret == 0) {
        ttj_append_footers(st->bs);
    }
    if (ret == 0) {
        BDRVTtjournalState *s = st->bs->opaque;

        ret = ttj_make_durable(st->bs, ttj_last_seq(s));
    }
    return ret;
}

int ttj_stop(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    TTJStart st = { .bs = bs };
    int ret;

    if (!s->recording) {
        return 0;
    }
    ttj_stop_worker(bs);
    ret = ttj_run(&st, ttj_seal, NULL);
    if (ret < 0) {
        error_report("ttjournal: the journal could not be closed clean: %s; "
                     "the next open will recover",
                     strerror(-ret));
    }
    return ret;
}
