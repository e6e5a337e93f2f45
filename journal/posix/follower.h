/*
 * A thread that looks at journals now and then
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_FOLLOWER_H
#define TTJOURNAL_POSIX_FOLLOWER_H

#include <ttjournal/ttjournal.h>

struct tt_follower;

/* Often enough to see a new segment within a second */
#define TT_FOLLOW_MS 500u

/*
 * Calls @step, now and every @ms milliseconds, in a thread of its own.  No
 * signal comes there.
 */
int tt_follower_start(unsigned ms, void (*step)(void *opaque), void *opaque,
                      struct tt_follower **ret, struct tt_error *err);
/* Waits until a step that is under way has ended; @f may be NULL. */
void tt_follower_stop(struct tt_follower *f);

#endif
