/*
 * Records in words: the fields of each kind, as text or JSON
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_RECORD_H
#define TTJOURNAL_RECORD_H

#include "tool.h"

/* Where fields go: JSON if @json is set, else " name=value" on @text. */
struct sink {
    JsonBuilder *json;
    GString *text;
};

void sink_int(struct sink *s, const char *name, uint64_t value);
void sink_signed(struct sink *s, const char *name, int64_t value);
void sink_hex(struct sink *s, const char *name, uint64_t value);
void sink_time(struct sink *s, const char *name, int64_t value);
void sink_text(struct sink *s, const char *name, const char *value,
               size_t length);

/* The kind's name, or "kind-N" for one this version does not know. */
const char *record_kind(uint16_t kind, char buf[static 16]);

/*
 * What the record's kind adds to sequence, time and range: a mark's name, a
 * session's program …  Reads the body from @src if it is not in the table.
 */
void record_describe(struct sink *s, const struct tt_source *src,
                     const struct tt_frame *f, const struct tt_record *rec);

/* A set of kinds as users type it: "write,mark"; an exit status. */
int record_parse_kinds(const char *text, GHashTable **ret_kinds);

#endif
