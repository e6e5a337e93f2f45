/*
 * Time zones: at which offsets did clocks of this zone show a reading?
 *
 * GLib knows the offset at a moment.  A reading is shown at offset o if the
 * moment that it names with o has the offset o.  The only candidates are the
 * offsets of about that time: a day before and after, and of the moments that
 * these lead to.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "zone.h"

#define DAY 86400

/* The zone's offset at @moment, seconds since 1970. */
static int32_t offset_at(GTimeZone *tz, int64_t moment)
{
    int i = g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL, moment);

    return i < 0 ? 0 : g_time_zone_get_offset(tz, i);
}

static int find_offsets(void *opaque, int64_t civil, int32_t ret_offsets[2])
{
    GTimeZone *tz = opaque;
    int32_t before = offset_at(tz, civil - DAY);
    int32_t after = offset_at(tz, civil + DAY);
    int32_t candidates[] = { before, after, offset_at(tz, civil - before),
                             offset_at(tz, civil - after) };
    int found = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(candidates) && found < 2; i++) {
        int32_t o = candidates[i];

        if (offset_at(tz, civil - o) == o &&
            (found == 0 || ret_offsets[0] != o)) {
            ret_offsets[found++] = o;
        }
    }
    if (!found) {
        ret_offsets[0] = before;
        ret_offsets[1] = after;
    }
    return found;
}

static GTimeZone *open_tz(const char *name)
{
    if (!name || !strcmp(name, "local")) {
        return g_time_zone_new_local();
    }
    /* GLib would also take an empty name, and a path to any file */
    if (!*name || *name == '/' || *name == ':' || strstr(name, "..")) {
        return NULL;
    }
    return g_time_zone_new_identifier(name);
}

int tt_zone_open(const char *name, struct tt_zone **ret, struct tt_error *err)
{
    GTimeZone *tz = open_tz(name);
    struct tt_zone *z;

    if (!tz) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "tz=%.100s: no such time zone; use a name such as "
                       "Europe/Berlin, UTC, +02:00 or local",
                       name);
    }
    z = calloc(1, sizeof(*z));
    if (!z) {
        g_time_zone_unref(tz);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    *z = (struct tt_zone){
        .name = g_time_zone_get_identifier(tz),
        .offsets = find_offsets,
        .opaque = tz,
        .given = name != NULL,
    };
    *ret = z;
    return 0;
}

void tt_zone_close(struct tt_zone *zone)
{
    if (zone) {
        g_time_zone_unref(zone->opaque);
        free(zone);
    }
}
