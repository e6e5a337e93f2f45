/*
 * Times in a run: rows of (record, time, frame)
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_TIMES_H
#define TTJOURNAL_TIMES_H

#include <stdint.h>

/* So that what is signed has the order of what is not */
static inline uint64_t times_bias(int64_t time)
{
    return (uint64_t)time ^ UINT64_C(1) << 63;
}

static inline int64_t times_unbias(uint64_t v)
{
    return (int64_t)(v ^ UINT64_C(1) << 63);
}

#endif
