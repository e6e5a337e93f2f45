/*
 * ttjournal filter driver: is the disk the one that was left?
 *
 * A disk that was changed while nobody recorded must not be taken for the one
 * that the journal knows: redo would destroy it, and views would show what
 * never was.  So before anything is written the disk must have the size that
 * the journal says, a local file must not have been changed after recording
 * ended, and a bounded amount of what the journal knows to be on the disk is
 * compared with it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "qemu/memalign.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "ttjournal-int.h"

/* ---- what lies below ------------------------------------------------------ */

const char *ttj_name(BlockDriverState *bs)
{
    return bs->filename[0] ? bs->filename : bdrv_get_node_name(bs);
}

const char *GRAPH_RDLOCK ttj_disk_file(BlockDriverState *bs,
                                       const char **ret_format,
                                       const char **ret_path)
{
    BlockDriverState *disk = bdrv_skip_filters(bs->file->bs);
    BlockDriverState *proto = disk;
    bool raw = true;

    *ret_format = disk->drv->format_name;
    if (disk->file && !disk->drv->protocol_name) {
        proto = bdrv_skip_filters(disk->file->bs);
        raw = !strcmp(disk->drv->format_name, "raw") &&
              disk->total_sectors == proto->total_sectors;
        if (!raw && !strcmp(disk->drv->format_name, "raw")) {
            *ret_format = "raw-slice";
        }
    } else {
        *ret_format = "raw";
    }
    *ret_path =
        proto->exact_filename[0] ? proto->exact_filename : proto->filename;
    if (!raw || !proto->drv->protocol_name || !proto->exact_filename[0] ||
        (strcmp(proto->drv->format_name, "file") &&
         strcmp(proto->drv->format_name, "host_device"))) {
        return NULL;
    }
    return proto->exact_filename;
}

/* Below libc, so that a preloaded library that fakes times is not asked. */
static bool ttj_stat(const char *path, uint64_t *ret_inode, int64_t *ret_mtime)
{
#ifdef __NR_statx
    struct statx st;

    if (syscall(__NR_statx, AT_FDCWD, path, 0,
                STATX_INO | STATX_MTIME | STATX_TYPE, &st) < 0 ||
        !S_ISREG(st.stx_mode)) {
        return false;
    }
    *ret_inode = st.stx_ino;
    *ret_mtime =
        st.stx_mtime.tv_sec * NANOSECONDS_PER_SECOND + st.stx_mtime.tv_nsec;
    return true;
#else
    return false;
#endif
}

bool ttj_disk_stat(BlockDriverState *bs, uint64_t *ret_inode,
                   int64_t *ret_mtime)
{
    const char *format, *path, *file = ttj_disk_file(bs, &format, &path);

    return file && ttj_stat(file, ret_inode, ret_mtime);
}

/* The sector size of the medium that a local file or device lies on, or 0. */
static uint32_t ttj_physical_sector(const char *path)
{
    static const char *const places[] = { "queue", "../queue" };
    struct stat st;
    dev_t dev;

    if (stat(path, &st) < 0) {
        return 0;
    }
    dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        g_autofree char *text = NULL;
        g_autofree char *name =
            g_strdup_printf("/sys/dev/block/%u:%u/%s/physical_block_size",
                            major(dev), minor(dev), places[i]);
        unsigned size;

        if (g_file_get_contents(name, &text, NULL, NULL) &&
            qemu_strtoui(g_strstrip(text), NULL, 10, &size) == 0) {
            return size;
        }
    }
    return 0;
}

/*
 * A power cut during an append may tear all of a physical sector: what is
 * durable must not share one with what comes next.
 */
uint32_t GRAPH_RDLOCK ttj_journal_alignment(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;
    BlockDriverState *proto = bdrv_skip_filters(s->journal->bs);
    uint32_t alignment = s->journal->bs->bl.request_alignment;
    BlockSizes sizes;

    if (bdrv_probe_blocksizes(s->journal->bs, &sizes) == 0) {
        alignment = MAX(alignment, sizes.phys);
    }
    if (!proto->drv->protocol_name && proto->file) {
        proto = bdrv_skip_filters(proto->file->bs);
    }
    if (proto->exact_filename[0]) {
        alignment = MAX(alignment, ttj_physical_sector(proto->exact_filename));
    }
    alignment = MAX(alignment, TT_ALIGNMENT_MIN);
    return MIN(pow2ceil(alignment), TT_ALIGNMENT_MAX);
}

/* ---- the disk is the one that was left ------------------------------------ */

/* What the library finds, or why it could not look */
static int GRAPH_RDLOCK ttj_refuse(BlockDriverState *bs, int ret, Error **errp,
                                   const struct tt_error *err)
{
    BDRVTtjournalState *s = bs->opaque;

    if (ret != -TT_EOTHERDISK) {
        return ttj_error(bs, ret, errp, err);
    }
    error_setg(errp,
               "ttjournal: disk '%s' is not as journal '%s' left it: "
               "%s; nothing was changed: see ttjournal reconcile",
               ttj_name(bs->file->bs), ttj_name(s->journal->bs), err->message);
    return -ESTALE;
}

static int coroutine_fn GRAPH_RDLOCK ttj_check_size(TTJStart *st, Error **errp)
{
    int64_t size = bdrv_co_getlength(st->bs->file->bs);
    struct tt_error err;
    int ret;

    if (size < 0) {
        error_setg_errno(errp, -size, "ttjournal: cannot get the disk's size");
        return size;
    }
    ret = tt_prove_size(&st->recovery, size, &st->shrunk, &err);
    return ret < 0 ? ttj_refuse(st->bs, ret, errp, &err) : 0;
}

/* A local file's time tells of changes that leave its contents look right. */
static int GRAPH_RDLOCK ttj_check_mtime(TTJStart *st, Error **errp)
{
    BDRVTtjournalState *s = st->bs->opaque;
    BlockDriverState *proto = bdrv_skip_filters(s->journal->bs);
    uint64_t inode, journal_inode;
    int64_t mtime, journal_mtime;
    struct tt_error err;
    bool is_file;
    int ret;

    if (!ttj_disk_stat(st->bs, &inode, &mtime)) {
        return 0;
    }
    if (!proto->drv->protocol_name && proto->file) {
        proto = bdrv_skip_filters(proto->file->bs);
    }
    is_file = proto->exact_filename[0] &&
              ttj_stat(proto->exact_filename, &journal_inode, &journal_mtime);
    ret = tt_prove_time(&st->recovery, mtime, is_file ? &journal_mtime : NULL,
                        &err);
    return ret < 0 ? ttj_refuse(st->bs, ret, errp, &err) : 0;
}

static int coroutine_fn GRAPH_RDLOCK
ttj_check_sample(TTJStart *st, const struct tt_redo *sample, uint8_t *buf,
                 Error **errp)
{
    struct tt_error err;
    int ret = bdrv_co_pread(st->bs->file, sample->disk_offset,
                            sample->disk_length, buf, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "ttjournal: cannot read the disk at %" PRIu64,
                         sample->disk_offset);
        return ret;
    }
    ret = tt_prove_sample(&st->super, &st->source, sample, buf, &err);
    return ret < 0 ? ttj_refuse(st->bs, ret, errp, &err) : 0;
}

static int coroutine_fn GRAPH_RDLOCK ttj_check_samples(TTJStart *st,
                                                       Error **errp)
{
    struct tt_recovery *r = &st->recovery;
    int64_t size = bdrv_co_getlength(st->bs->file->bs);
    uint8_t *buf = qemu_try_blockalign(st->bs->file->bs, TT_PAYLOAD_RECORD_MAX);
    int ret = !buf ? -ENOMEM : MIN(size, 0);

    for (size_t i = 0; i < r->sample_count && ret == 0; i++) {
        const struct tt_redo *sample = &r->samples[i];

        /* behind the disk's end a RESIZE is to be redone */
        if (sample->disk_offset + sample->disk_length <= (uint64_t)size) {
            ret = ttj_check_sample(st, sample, buf, errp);
        }
    }
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn ttj_prove(TTJStart *st, Error **errp)
{
    int ret = ttj_check_size(st, errp);

    if (ret == 0) {
        ret = ttj_check_mtime(st, errp);
    }
    return ret < 0 ? ret : ttj_check_samples(st, errp);
}

/* ---- while nobody writes through the filter ------------------------------ */

void ttj_disk_left(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    s->left_gen = qatomic_read(&bs->file->bs->write_gen);
    s->left_has_stat = ttj_disk_stat(bs, &s->left_inode, &s->left_mtime);
}

bool ttj_disk_changed(BlockDriverState *bs)
{
    BDRVTtjournalState *s = bs->opaque;

    return qatomic_read(&bs->file->bs->write_gen) != s->left_gen;
}
