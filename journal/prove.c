/*
 * Is the disk the one that was left?
 *
 * A disk that was changed while nobody recorded must not be taken for the one
 * that the journal knows: redo would destroy it, and views would show what
 * never was.  So before anything is written the disk must have the size that
 * the journal says, a local file must not have been changed after recording
 * ended, and a bounded amount of what the journal knows to be on the disk is
 * compared with it (tt_recovery_compare()).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>

#include <ttjournal/ttjournal.h>

/* A crash came before the disk had the size that it was to have. */
static bool is_size_to_be(const struct tt_recovery *r, uint64_t size)
{
    for (size_t i = 0; i < r->size_count; i++) {
        if (r->sizes[i] == size) {
            return true;
        }
    }
    return false;
}

int tt_prove_size(const struct tt_recovery *r, uint64_t size, bool *ret_shrunk,
                  struct tt_error *err)
{
    uint64_t run;

    *ret_shrunk = false;
    if (size == r->scan.disk_size || is_size_to_be(r, size)) {
        return 0;
    }
    /* a shrink goes to the disk first, level, once what it takes is captured */
    if (!r->clean && !r->open_gap && !r->redo_count &&
        size < r->scan.disk_size &&
        tt_blocks_test(r->captured, size, r->scan.disk_size - size, &run) &&
        run == r->scan.disk_size - size) {
        *ret_shrunk = true;
        return 0;
    }
    return tt_fail(err, TT_EOTHERDISK, ESTALE,
                   "it has %" PRIu64 " bytes and should have %" PRIu64, size,
                   r->scan.disk_size);
}

int tt_prove_time(const struct tt_recovery *r, int64_t disk_mtime,
                  const int64_t *journal_mtime, struct tt_error *err)
{
    char was[TT_TIME_SIZE], is[TT_TIME_SIZE];
    int64_t ended, limit;

    if (r->scan.empty || r->open_gap ||
        (r->clean ? !r->has_stat : !journal_mtime)) {
        return 0;
    }
    ended = r->clean ? r->disk_mtime : *journal_mtime;
    if (__builtin_add_overflow(ended, r->clean ? 0 : TT_MTIME_SLACK, &limit)) {
        limit = INT64_MAX;
    }
    if (disk_mtime <= limit) {
        return 0;
    }
    return tt_fail(
        err, TT_EOTHERDISK, ESTALE,
        "it was changed at %s, recording ended at %s (if it was only "
        "copied, give it that time with touch -d)",
        tt_time_format(disk_mtime, is), tt_time_format(ended, was));
}

int tt_prove_sample(const struct tt_super *super, const struct tt_source *src,
                    const struct tt_redo *sample, const void *disk,
                    struct tt_error *err)
{
    int ret = tt_recovery_compare(super, src, sample, disk, err);

    if (ret != 0) {
        return ret < 0 ? ret : 0;
    }
    return tt_fail(err, TT_EOTHERDISK, ESTALE,
                   "at %" PRIu64 " it does not hold the %" PRIu64
                   " bytes of record %" PRIu64,
                   sample->disk_offset, sample->disk_length, sample->seq);
}
