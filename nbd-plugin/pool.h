/*
 * Reading with several threads at once
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTVIEW_POOL_H
#define TTVIEW_POOL_H

#include <stdatomic.h>

#include "journal.h"

/* Without threads (not started, or none could be) callers read themselves. */
void pool_start(void);
/* Ends what is under way; what only waits is forgotten. */
void pool_end(void);

/*
 * As state_read(), but long ranges may be read in parts at once.  *cold is kept
 * by the caller for the next one, and false at first.
 */
int pool_read(struct state *s, atomic_bool *cold, uint64_t offset, void *buf,
              size_t length, struct tt_error *err);

/*
 * Reads it to nowhere: soon the system has it in its cache.  Returns at once;
 * it is forgotten if there is too much to do already.
 */
void pool_prefetch(struct state *s, uint64_t offset, uint64_t length);

#endif
