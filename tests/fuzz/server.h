/*
 * As much of nbdkit as the plugin needs, in this process
 *
 * What nbdkit asks of a plugin is checked: errors are told, in one line, and
 * with an errno that a client knows; extents are told in order and within the
 * request; texts are clean.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef FUZZ_SERVER_H
#define FUZZ_SERVER_H

#include "fuzz.h"

/* CLOCK_REALTIME, as all of this process sees it, in nanoseconds */
extern int64_t server_now;
/* Reads seem to wait for a medium: then they are done in parts. */
extern bool server_cold;
/* The numbers that the system draws begin anew. */
void server_restart_random(void);

/* Once, before anything else */
void server_init(void);

/*
 * Parameters: a key, its value, …, NULL.  @threads: with those that it has
 * after a fork.  False if it does not start, and then nothing is left of it.
 */
bool server_start(const char *const *params, bool threads);
void server_stop(void);

/* What a client has open */
struct server_export {
    void *handle;
    char disk[40]; /* its name in export names */
    uint64_t seq;  /* that the plugin says it is bound to */
    bool changes;  /* it shows what changed since then: */
    uint64_t since;
    uint64_t size;
};

/* False: refused.  *ret_errno is what the client is told, of what follows. */
bool server_open(const char *name, struct server_export *ret, int *ret_errno);
void server_close(struct server_export *e);
/* As nbdkit does, so it is the caller who stays within the export. */
bool server_read(struct server_export *e, uint64_t offset, void *buf,
                 uint32_t length, int *ret_errno);
void server_cache(struct server_export *e, uint64_t offset, uint32_t length);

struct server_extent {
    uint64_t offset, length;
    uint32_t type; /* NBDKIT_EXTENT_HOLE, _ZERO */
};
/* At most @room are kept; *ret_count is how many. */
bool server_extents(struct server_export *e, uint64_t offset, uint32_t length,
                    bool one, struct server_extent *ret, size_t room,
                    size_t *ret_count);

/* Calls @fn for each name in the list. */
bool server_list(void (*fn)(void *opaque, const char *name), void *opaque);
/* What "" means; it stays as long as the server. */
const char *server_default(void);

#endif
