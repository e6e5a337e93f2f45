/*
 * What views of a history may say
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef FUZZ_VIEWS_H
#define FUZZ_VIEWS_H

#include <ttjournal/index.h>

#include "fuzz.h"

struct fuzz_views {
    const struct tt_history *h;
    const struct tt_source *src;
    /*
     * What was recorded, or NULL if the bytes were made to look like another
     * history: then an answer has to make sense, and nothing more.
     */
    const struct fuzz_base *truth;
    bool whole; /* verify found nothing: all that has a version can be read */
    bool index; /* -TT_EINDEX is an answer */
    const struct tt_history *same; /* or NULL: what answers as @h must */
};

/* Reads the whole disk as of some moments. */
void fuzz_check_views(const struct fuzz_views *v);

#endif
