/*
 * Every moment, read through the library and held against the model
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "simwriter.h"

typedef unsigned long long ull;

int sw_read_view(struct simwriter *sw, const struct tt_history *h, uint64_t seq,
                 uint64_t size, uint8_t *buf)
{
    struct tt_source src = sw_quiet_source(sw);
    struct tt_extent ext;
    struct tt_error err = { 0 };

    for (uint64_t at = 0; at < size; at += ext.length) {
        tt_view_lookup(h, seq, at, size - at, &ext, NULL);
        if (ext.offset != at || !ext.length || ext.length > size - at) {
            return sw_wrong(sw, "view(%llu) at %llu: an extent of %llu + %llu",
                            (ull)seq, (ull)at, (ull)ext.offset,
                            (ull)ext.length);
        }
        switch (ext.kind) {
        case TT_EXTENT_JOURNAL:
            if (tt_extent_read(h, &src, &ext, at, ext.length, buf + at, &err) <
                0) {
                return sw_wrong(sw, "view(%llu) at %llu: %s", (ull)seq, (ull)at,
                                err.message);
            }
            break;
        case TT_EXTENT_ZERO:
            memset(buf + at, 0, ext.length);
            break;
        case TT_EXTENT_DISK:
            memcpy(buf + at, sw->disk.cache + at, ext.length);
            break;
        case TT_EXTENT_DAMAGED:
            return sw_wrong(sw,
                            "view(%llu) at %llu is damaged, says the "
                            "library",
                            (ull)seq, (ull)at);
        }
    }
    return 0;
}

static int check_view(struct simwriter *sw, const struct tt_history *h,
                      uint64_t seq)
{
    static uint8_t buf[SIM_DISK_MAX];
    const struct sim_state *s = sim_node_state(&sw->model, sw->tip, seq);
    uint64_t size = tt_history_disk_size(h, seq);
    int ret;

    if (size != s->size) {
        return sw_wrong(sw, "view(%llu) has %llu bytes, should have %llu",
                        (ull)seq, (ull)size, (ull)s->size);
    }
    ret = sw_read_view(sw, h, seq, size, buf);
    for (uint64_t at = 0; at < size && ret == 0; at += SIM_SECTOR) {
        if (memcmp(buf + at, s->data + at, SIM_SECTOR)) {
            struct tt_extent ext;

            tt_view_lookup(h, seq, at, SIM_SECTOR, &ext, NULL);
            ret = sw_wrong(sw,
                           "view(%llu) at %llu is wrong: kind %d, seq "
                           "%llu, record %llu",
                           (ull)seq, (ull)at, ext.kind, (ull)ext.seq,
                           (ull)ext.record_seq);
        }
    }
    return ret;
}

int sw_check_views(struct simwriter *sw, unsigned most)
{
    struct tt_source src = sw_quiet_source(sw);
    struct tt_history *h = tt_history_new();
    struct tt_error err = { 0 };
    uint64_t last = sw->tip->last_seq;
    int ret = h ? tt_history_load(h, &src, &err) : -TT_ENOMEM;

    if (ret < 0) {
        ret = sw_wrong(sw, "history: %s", err.message);
    } else if (tt_history_end(h)->last_seq != last) {
        ret = sw_wrong(sw, "history ends at %llu, should end at %llu",
                       (ull)tt_history_end(h)->last_seq, (ull)last);
    }
    for (uint64_t i = 0; ret == 0 && i <= last && i < most; i++) {
        ret = check_view(sw, h,
                         last < most ? i : sim_random(sw->world, last + 1));
    }
    tt_history_free(h);
    return ret;
}
