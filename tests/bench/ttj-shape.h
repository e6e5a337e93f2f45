/*
 * What history ttj-generate is to write
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJ_SHAPE_H
#define TTJ_SHAPE_H

#include <glib.h>
#include <ttjournal/ttjournal.h>

struct shape {
    uint64_t versions; /* WRITE and ZERO */
    uint64_t disk_size, segment_size;
    double skew;       /* 0: all blocks are alike */
    double span;       /* seconds from the first version to the last */
    uint64_t length;   /* of each version; 0: mixed */
    gboolean in_order; /* the disk from its beginning, again and again */
    gboolean random_payload;
    int frame; /* versions in one, at most */
    int alignment, sessions, epochs, marks, seed;
    const char *journal, *image;
};

/* Fills *s from the command line; ends the program where that is wrong. */
void ttj_shape_parse(int argc, char **argv, struct shape *s);

/* Says why, and ends the program. */
void ttj_die(const char *fmt, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

#endif
