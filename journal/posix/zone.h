/*
 * Time zones, from the tz database
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_ZONE_H
#define TTJOURNAL_POSIX_ZONE_H

#include <ttjournal/ttjournal.h>

/*
 * Opens the zone called @name: one of the tz database, "UTC", "+02:00", or
 * "local" for this machine's.  NULL is the local one as not given by the user:
 * times without a zone are refused, and the message shows their local reading.
 */
int tt_zone_open(const char *name, struct tt_zone **ret, struct tt_error *err);
void tt_zone_close(struct tt_zone *zone);

#endif
