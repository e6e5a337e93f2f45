/*
 * The footers in a journal
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef FUZZ_FOOTERS_H
#define FUZZ_FOOTERS_H

#include "fuzz.h"

#define FUZZ_FOOTERS 8u
#define FUZZ_FRAMES 64u

struct fuzz_footer {
    uint64_t place; /* of its body, in the journal */
    uint32_t length;
    uint64_t frames[FUZZ_FRAMES]; /* those of the segment it tells of */
    unsigned frame_count;
};

/* Returns how many there are. */
unsigned fuzz_footers(struct fuzz_base *b,
                      struct fuzz_footer ret[FUZZ_FOOTERS]);

#endif
