/*
 * Which live disk belongs to a journal
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_ATTACH_H
#define TTJOURNAL_POSIX_ATTACH_H

#include "disk.h"
#include "reader.h"

#define TT_PROBLEM_SIZE 1024

/*
 * Finds and checks the live disk of @r, which has its history but no disk yet.
 * With @spec that disk is taken or refused.  Without, one that cannot be taken
 * is no failure: *ret_disk is NULL and @problem says why.  @problem also warns
 * of a disk that was taken although it looks doubtful; else it is "".
 */
int tt_attach_disk(struct tt_reader *r, const char *spec,
                   struct tt_disk **ret_disk, char problem[TT_PROBLEM_SIZE],
                   struct tt_error *err);

#endif
