/*
 * Times as users type them
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_TIMEFMT_H
#define TTJOURNAL_TIMEFMT_H

#include <ttjournal/ttjournal.h>

/* @text made fit for a one-line message: short, and printable. */
#define QUOTE_SIZE 84
const char *tt_quote(const char *text, char buf[static QUOTE_SIZE]);

/* Parses digits at *text and moves it behind them; false: none, too large. */
bool tt_parse_number(const char **text, uint64_t *ret);

/* Parses an absolute or relative time; as in tt_moment_resolve(). */
int tt_time_parse(const char *text, const struct tt_zone *zone, int64_t now,
                  int64_t *ret, struct tt_error *err);

#endif
