/*
 * Who follows a long run over a journal and its disk
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_WATCHER_H
#define TTJOURNAL_POSIX_WATCHER_H

#include <stdint.h>

struct tt_watcher {
    /* How much of a step is @what ("written"); may be NULL. */
    void (*progress)(void *opaque, const char *what, uint64_t done,
                     uint64_t total);
    /* One line about something that does not stop the run. */
    void (*warn)(void *opaque, const char *line);
    void *opaque;
};

#endif
