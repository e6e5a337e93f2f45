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
    return 0;
}
