/*
 * What is on the disk of a past moment
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_LIST_H
#define TTJOURNAL_LIST_H

#include "view.h"

/* Lists it; @name is the journal as the user typed it.  An exit status. */
int list_view(const struct view_request *req, const char *name, bool json);

#endif
