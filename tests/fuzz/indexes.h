/*
 * An index as an input: its catalog, then its runs
 *
 *   catalog   le32 length, bytes
 *   run       id, le32 length, bytes; then the next one, up to the end
 *
 * Lengths beyond the end are cut.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef FUZZ_INDEXES_H
#define FUZZ_INDEXES_H

#include <ttjournal/index.h>

#include "../unit/simindex.h"
#include "fuzz.h"

#define FUZZ_RUNS 8u

struct fuzz_run {
    uint8_t *id;
    uint8_t *bytes;
    size_t length;
};

/* Pointers go into the input. */
struct fuzz_index {
    uint8_t *catalog;
    size_t catalog_length;
    struct fuzz_run runs[FUZZ_RUNS];
    size_t run_count;
};

void fuzz_index_parse(uint8_t *data, size_t size, struct fuzz_index *ret);
void fuzz_index_pack(const struct simindex *x, uint8_t **ret, size_t *ret_size);

/* Indexes of the same journal: of part of it, and of all. */
#define FUZZ_INDEXES 3u
void fuzz_index_make(struct simindex x[FUZZ_INDEXES],
                     const struct tt_source *src);

#endif
