/*
 * Writes what the fuzzers begin with: fuzz-seeds DIRECTORY
 *
 * One directory for each fuzzer, in DIRECTORY, which exists.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "footers.h"
#include "indexes.h"
#include "media.h"
#include "../unit/members.h"

static const char *directory;

static void die(const char *what)
{
    fprintf(stderr, "fuzz-seeds: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void keep(const char *fuzzer, const char *name, const void *bytes,
                 size_t size)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", directory, fuzzer);
    if (mkdir(path, 0777) < 0 && errno != EEXIST) {
        die(path);
    }
    snprintf(path, sizeof(path), "%s/%s/%s", directory, fuzzer, name);
    f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, size, f) != size || fclose(f)) {
        die(path);
    }
}

static void journals(void)
{
    for (unsigned i = 0; i < FUZZ_BASES; i++) {
        struct fuzz_base base;
        uint8_t *data;
        char name[20];
        size_t size;

        fuzz_base_make(&base, i);
        fuzz_pack(&base.image, &data, &size);
        snprintf(name, sizeof(name), "journal-%u", i);
        keep("frame", name, data, size);
        free(data);
        fuzz_base_clear(&base);
    }
}

/* Each footer in its own place; a frame in the middle is destroyed. */
static void footers(void)
{
    struct fuzz_footer ft[FUZZ_FOOTERS];
    struct fuzz_base base;
    unsigned count;

    fuzz_base_make(&base, FUZZ_LONG);
    count = fuzz_footers(&base, ft);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *data = fuzz_alloc(2 + ft[i].length);
        char name[20];

        data[0] = (uint8_t)i;
        data[1] = (uint8_t)(ft[i].frame_count / 2);
        memcpy(data + 2, base.image.bytes + ft[i].place, ft[i].length);
        snprintf(name, sizeof(name), "footer-%u", i);
        keep("footer", name, data, 2 + ft[i].length);
        free(data);
    }
    fuzz_base_clear(&base);
}

static void indexes(enum fuzz_kind kind)
{
    struct simindex x[FUZZ_INDEXES];
    struct fuzz_base base;
    struct tt_source src;

    fuzz_base_make(&base, kind);
    src = fuzz_source(&base.image);
    fuzz_index_make(x, &src);
    for (unsigned i = 0; i < FUZZ_INDEXES; i++) {
        uint8_t *data;
        char name[30];
        size_t size;

        fuzz_index_pack(&x[i], &data, &size);
        snprintf(name, sizeof(name), "index-%u-%u", kind, i);
        keep("index", name, data, size);
        free(data);
        si_clear(&x[i]);
    }
    fuzz_base_clear(&base);
}

/* The first byte: see fuzz-time.c */
static void times(void)
{
    static const char *const texts[] = {
        "\020latest",
        "\020seq:7",
        "\020mark:one",
        "\020@1790000000.123456789",
        "\020@-1.5",
        "\020-15min",
        "\020-2h",
        "\0202026-09-21T14:13:20Z",
        "\0202026-09-21 14:13:20.000000001+02:00",
        "\0212026-09-21T14:13:20",
        "\0222026-09-21 02:30",
        "\0212026-09-21T22:30:00",
        "\0232026-09-21T22:30:00",
        "\0242101-09-03T15:13:20Z",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char name[20];

        snprintf(name, sizeof(name), "time-%zu", i);
        keep("time", name, texts[i], strlen(texts[i]));
    }
}

/* ---- views: see media.h --------------------------------------------------- */

#define HEAD(kind, form, index, flags, at) kind, form, index, flags, at
#define AT(offset) 0, (offset)&0xff, (offset) >> 8 & 0xff, (offset) >> 16
#define FRAME(n, offset) 1, n, (offset)&0xff, (offset) >> 8
#define INDEX(file, offset) 2 + (file), (offset)&0xff, (offset) >> 8, 0
#define ALL(slot) slot, 0, 0, 0, 0xff, 0xff, 0xff /* nearly */
#define SEQ(slot, n) STEP_OPEN, slot, 1, n
#define NAMED(slot, text) STEP_OPEN, slot, 7, text

/* clang-format off: a line is a step */
static const uint8_t nothing[] = {
    HEAD(FUZZ_PLAIN, FORM_JOURNAL, INDEX_NONE, FLAG_DISK, 0),
};

static const uint8_t payload[] = {
    HEAD(FUZZ_LONG, FORM_JOURNAL, INDEX_NONE, 0, 0),
    STEP_BYTES,
    FRAME(9, 600),
    3,
    'x',
    'y',
    'z',
    'x',
    SEQ(0, 40),
    STEP_WALK,
    0,
    3,
};

static const uint8_t destroyed[] = {
    HEAD(FUZZ_LONG, FORM_FOLDER, INDEX_DAMAGED, FLAG_THREADS, 0),
    STEP_FILL,
    FRAME(20, 0),
    0,
    2,
    0,
    STEP_OPEN,
    0,
    2,
    10,
    30,
    STEP_EXTENTS,
    ALL(0),
    0,
    STEP_CACHE,
    ALL(0),
};

static const uint8_t cut_index[] = {
    HEAD(FUZZ_GAPS, FORM_JOURNAL, INDEX_WHOLE, FLAG_DISK, 0),
    STEP_CUT,
    INDEX(1, 5000),
    STEP_LIST,
    STEP_OPEN,
    1,
    6,
    2,
};

static const uint8_t rotten_run[] = {
    HEAD(FUZZ_LONG, FORM_MACHINE, INDEX_FOLDER, FLAG_DISK, 0),
    SEQ(0, 50),
    STEP_NUMBER,
    INDEX(1, 4200),
    2,
    2,
    7,
    STEP_WALK,
    0,
    8,
    STEP_OPEN,
    2,
    0x80,
    STEP_WALK,
    2,
    8,
    STEP_FOLLOW,
};

static const uint8_t forged[] = {
    HEAD(FUZZ_FORK, FORM_JOURNAL, INDEX_NONE, 0, 0),
    STEP_NUMBER,
    FRAME(5, 200),
    3,
    0,
    64,
    STEP_RESEAL,
    1,
    STEP_SWAP,
    FRAME(7, 0),
    FRAME(8, 0),
    0,
    2,
    STEP_RESEAL,
    0,
};

static const uint8_t grows[] = {
    HEAD(FUZZ_OPEN, FORM_JOURNAL, INDEX_NONE, FLAG_THREADS | FLAG_DISK, 0),
    STEP_HOLD,
    FRAME(8, 0),
    NAMED(0, 6),
    'l',
    'a',
    't',
    'e',
    's',
    't',
    STEP_GROW,
    STEP_OPEN,
    1,
    0,
    STEP_WALK,
    0,
    7,
    STEP_WALK,
    1,
    7,
    STEP_REPLACE,
    STEP_OPEN,
    2,
    3,
    STEP_WALK,
    2,
    1,
    STEP_CLOSE,
    0,
};

static const uint8_t one_moment[] = {
    HEAD(FUZZ_LONG, FORM_SINGLE, INDEX_WHOLE, FLAG_COLD, 8),
    'm',
    'a',
    'r',
    'k',
    ':',
    'o',
    'n',
    'e',
    STEP_OPEN,
    0,
    4,
    STEP_OTHER,
    FRAME(30, 0),
    0,
    8,
    FUZZ_FORK,
    STEP_READ,
    0,
    1,
    0,
    0,
    0,
    16,
    0,
    STEP_REPAIR,
    STEP_WALK,
    0,
    127,
};

static const uint8_t in_parts[] = {
    HEAD(FUZZ_WIDE, FORM_JOURNAL, INDEX_NONE, FLAG_COLD | FLAG_THREADS, 0),
    STEP_COPY,
    AT(4096),
    AT(9000),
    0,
    2,
    STEP_OPEN,
    0,
    5,
    6,
    'j',
    '@',
    '@',
    '1',
    '.',
    '5',
    SEQ(1, 30),
    STEP_CACHE,
    ALL(1),
    STEP_WALK,
    1,
    100,
    STEP_READ,
    ALL(1),
};
/* clang-format on */

static void views(void)
{
#define VIEW(name)                                                             \
    {                                                                          \
#name, name, sizeof(name)                                              \
    }
    static const struct {
        const char *name;
        const uint8_t *bytes;
        size_t size;
    } seeds[] = {
        VIEW(nothing),   VIEW(payload),    VIEW(destroyed),
        VIEW(cut_index), VIEW(forged),     VIEW(rotten_run),
        VIEW(grows),     VIEW(one_moment), VIEW(in_parts),
    };

    for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
        keep("view", seeds[i].name, seeds[i].bytes, seeds[i].size);
    }
}

/* Two of each kind, as fuzz-member.c has it. */
static void members(void)
{
    static uint8_t input[2 * (4 + MEMBERS_DISK)];

    for (unsigned kind = 0; kind < 4; kind++) {
        static const uint8_t magics[] = { 8, 1, 0, 0 };
        char name[20];

        memset(input, 0, sizeof(input));
        for (unsigned i = 0; i < 2; i++) {
            uint8_t *head = input + i * (4 + MEMBERS_DISK);

            /* LVM's are "pv-a" and "pv-b"; the others of one set */
            head[0] =
                (uint8_t)((kind == 3 ? 0 : kind) | (kind == 1 ? i : 2) * 8);
            head[1] = magics[kind];
            head[2] = MEMBERS_DISK & 255;
            head[3] = MEMBERS_DISK >> 8;
            if (kind == 0) {
                members_md1(head + 4, i, 3, 7 - 3 * i);
            } else if (kind == 1) {
                members_lvm(head + 4, members_vg);
            } else if (kind == 2) {
                members_btrfs(head + 4, i, 3);
            } else {
                members_md0(head + 4, i, 3, 7);
            }
        }
        snprintf(name, sizeof(name), "kind-%u", kind);
        keep("member", name, input, sizeof(input));
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "Usage: fuzz-seeds DIRECTORY\n");
        return 1;
    }
    directory = argv[1];
    journals();
    footers();
    indexes(FUZZ_LONG);
    indexes(FUZZ_FORK);
    times();
    views();
    members();
    return 0;
}
