/*
 * An index in memory, built and merged in random steps
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef SIMINDEX_H
#define SIMINDEX_H

#include <ttjournal/index.h>

struct si_file {
    uint8_t id[16];
    uint8_t *bytes;
    size_t length, room;
    uint64_t pins; /* pages that are held */
};

struct simindex {
    uint64_t random; /* the state of its own generator */
    struct si_file **files;
    size_t count;
    uint8_t *catalog; /* encoded; NULL: there is none yet */
    size_t catalog_length;
    /* An index that is open: */
    struct tt_run **runs;
    size_t run_count;
};

/* Of all indexes */
extern struct si_totals {
    uint64_t merges, from_footers, segments;
} si_totals;

void si_init(struct simindex *x, uint64_t seed);
void si_clear(struct simindex *x);

/*
 * Extends the index by some of what can be covered, or all of it, and merges
 * some runs or none.  -TT_EINDEX: it must be forgotten (si_clear()).
 */
int si_extend(struct simindex *x, const struct tt_source *src, bool all,
              struct tt_error *err);

/* Opens @h with it.  si_close() only after @h was freed. */
int si_open(struct simindex *x, struct tt_history *h,
            const struct tt_source *src, struct tt_error *err);
void si_close(struct simindex *x);

/* The catalog, decoded; the caller frees it. */
struct tt_catalog *si_catalog(const struct simindex *x,
                              const struct tt_source *src);
struct si_file *si_file_of(const struct simindex *x,
                           const struct tt_run_info *info);
struct tt_pages si_pages(struct si_file *f);

#endif
