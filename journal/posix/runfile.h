/*
 * Runs of an index as files
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_RUNFILE_H
#define TTJOURNAL_POSIX_RUNFILE_H

#include <ttjournal/index.h>

#include "pagecache.h"

/* A run that is open.  Several may use it; the last one closes it. */
struct tt_run_file;

/* Takes @fd, whatever the result.  -TT_EINDEX: not the run @info. */
int tt_run_file_open(int fd, const struct tt_run_info *info,
                     struct tt_pagecache *cache, struct tt_run_file **ret,
                     struct tt_error *err);
struct tt_run_file *tt_run_file_ref(struct tt_run_file *f);
void tt_run_file_put(struct tt_run_file *f); /* @f may be NULL */
struct tt_run *tt_run_file_run(const struct tt_run_file *f);

/* Writes a run to a file. */
struct tt_run_output {
    struct tt_sink sink; /* for tt_builder_write() and the like */
    int fd;
    int os_errno;    /* of the write that failed, or 0 */
    uint8_t *buf;    /* owned */
    size_t used;     /* bytes in buf … */
    uint64_t offset; /* … that belong here */
};

/* -ENOMEM if there is no memory.  Does not take @fd. */
int tt_run_output_begin(struct tt_run_output *w, int fd);
/* Writes what is left; 0 or -errno. */
int tt_run_output_end(struct tt_run_output *w);

/* Writes all of @buf, also where a limit on files' sizes (RLIMIT_FSIZE) would
 * kill the process: 0 or -errno. */
int tt_write_limited(int fd, const uint8_t *buf, size_t length,
                     uint64_t offset);

#endif
