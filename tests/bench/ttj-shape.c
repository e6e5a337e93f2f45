/*
 * The command line of ttj-generate
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ttj-shape.h"

#define KIB UINT64_C(1024)

void ttj_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("ttj-generate: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

/* A number with a suffix k, M, G of @unit (1000 or 1024). */
static uint64_t parse_number(const char *option, const char *text,
                             uint64_t unit)
{
    static const char suffixes[] = "kMGT";
    char *end;
    const char *s;
    uint64_t v;
    size_t power;

    errno = 0;
    v = g_ascii_strtoull(text, &end, 10);
    s = *end ? strchr(suffixes, *end == 'K' ? 'k' : *end) : NULL;
    if (end == text || *text == '-' || errno || (*end && (!s || end[1]))) {
        ttj_die("--%s: '%s' is not a number, or one with k, M, G or T", option,
                text);
    }
    for (power = s ? (size_t)(s - suffixes) + 1 : 0; power > 0; power--) {
        if (v > UINT64_MAX / unit) {
            ttj_die("--%s: '%s' is too large", option, text);
        }
        v *= unit;
    }
    return v;
}

static void check_shape(const struct shape *s)
{
    if (!s->versions || s->versions > UINT64_C(1) << 40) {
        ttj_die("--versions: 1 to 2^40");
    }
    if (s->disk_size % TT_GRID || s->disk_size < 2 * TT_PAYLOAD_RECORD_MAX) {
        ttj_die("--disk: a multiple of 4 KiB, and 2 MiB at least");
    }
    if (s->frame < 1 || s->sessions < 1 || s->epochs < 1 || s->marks < 0 ||
        s->seed < 0 || !(s->skew >= 0) || s->skew > 10 || !(s->span > 0)) {
        ttj_die(
            "--frame, --sessions, --epochs, --span: 1 at least; --skew: 0 to "
            "10; --marks, --seed: not negative");
    }
    if (s->span * 1e9 * s->frame / (double)s->versions > 1e18) {
        ttj_die("--span: too long for so few versions");
    }
}

void ttj_shape_parse(int argc, char **argv, struct shape *s)
{
    g_autofree char *versions = NULL, *disk = NULL, *segment = NULL;
    g_autofree char *sizes = NULL, *payload = NULL;
    const GOptionEntry entries[] = {
        { "versions", 'n', 0, G_OPTION_ARG_STRING, &versions,
          "WRITEs and ZEROs, e.g. 64M: 64 million (1M)", "N" },
        { "disk", 0, 0, G_OPTION_ARG_STRING, &disk, "its size (100G)",
          "BYTES" },
        { "sizes", 0, 0, G_OPTION_ARG_STRING, &sizes,
          "of versions: BYTES, or mix: 512 to 1 MiB, and ZEROs (4k)", "KIND" },
        { "skew", 0, 0, G_OPTION_ARG_DOUBLE, &s->skew,
          "exponent of the blocks' popularity; 0: all alike (0)", "S" },
        { "in-order", 0, 0, G_OPTION_ARG_NONE, &s->in_order,
          "write the disk from its beginning to its end", NULL },
        { "frame", 0, 0, G_OPTION_ARG_INT, &s->frame,
          "versions in a frame, at most (32)", "N" },
        { "segment-size", 0, 0, G_OPTION_ARG_STRING, &segment, "(64M)",
          "BYTES" },
        { "alignment", 0, 0, G_OPTION_ARG_INT, &s->alignment,
          "of frames (4096)", "BYTES" },
        { "span", 0, 0, G_OPTION_ARG_DOUBLE, &s->span,
          "of the history (31557600: a year)", "SECONDS" },
        { "sessions", 0, 0, G_OPTION_ARG_INT, &s->sessions,
          "of the recorder (1)", "N" },
        { "epochs", 0, 0, G_OPTION_ARG_INT, &s->epochs,
          "of its clock, each set back by an hour (1)", "N" },
        { "marks", 0, 0, G_OPTION_ARG_INT, &s->marks, "mark-1, mark-2 ... (0)",
          "N" },
        { "payload", 0, 0, G_OPTION_ARG_STRING, &payload,
          "zeroes, in holes, or random (zeroes)", "KIND" },
        { "image", 0, 0, G_OPTION_ARG_FILENAME, &s->image,
          "the disk as it is in the end, a new raw file", "FILE" },
        { "seed", 0, 0, G_OPTION_ARG_INT, &s->seed, "(1)", "N" },
        { NULL, 0, 0, 0, NULL, NULL, NULL },
    };
    GOptionContext *context =
        g_option_context_new("JOURNAL - write a long history");
    GError *error = NULL;

    *s = (struct shape){ .frame = 32,
                         .alignment = TT_GRID,
                         .span = 31557600,
                         .sessions = 1,
                         .epochs = 1,
                         .seed = 1 };
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        ttj_die("%s", error->message);
    }
    g_option_context_free(context);
    if (argc != 2) {
        ttj_die("name one journal, which must not exist; see --help");
    }
    s->journal = argv[1];
    s->versions = parse_number("versions", versions ? versions : "1M", 1000);
    s->disk_size = parse_number("disk", disk ? disk : "100G", KIB);
    s->segment_size =
        parse_number("segment-size", segment ? segment : "64M", KIB);
    if (g_strcmp0(sizes, "mix")) {
        s->length = parse_number("sizes", sizes ? sizes : "4k", KIB);
        if (!s->length || s->length % TT_SECTOR ||
            s->length > TT_PAYLOAD_RECORD_MAX) {
            ttj_die("--sizes: mix, or a multiple of 512 up to 1M");
        }
    }
    s->random_payload = g_strcmp0(payload, "random") == 0;
    if (payload && !s->random_payload && strcmp(payload, "zeroes")) {
        ttj_die("--payload: zeroes or random");
    }
    check_shape(s);
}
