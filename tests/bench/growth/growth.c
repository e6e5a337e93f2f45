/*
 * What does an append cost that makes its file grow?
 *
 *     growth DIR [ROUNDS]
 *
 * Appends to a file in DIR that was made ready in different ways, one append
 * at a time, as a journal's are: 8 KiB is a small write with its frame's head,
 * 132 KiB are 32 of them in one frame.  All ways of a line take turns, ROUNDS
 * times (5), so that what else the machine does hits all alike.  Printed are
 * the median of appends per second, its ratio to the file that was written
 * beforehand, and the median round's slowest append of a thousand.  The clock
 * stops when all is durable.  The last table is what a step of room costs.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KIB 1024ul
#define MIB (1024 * KIB)
#define BLOCK 4096ul
#define ROUNDS_MAX 99
#define APPENDS_MAX (1u << 20)
#define CASE_NS 1000000000ll /* a case is cut short after this */

enum layout { GROWING, SPARSE, FALLOC, KEEP_SIZE, ZEROED, LAYOUTS };

static const char *const layout_names[LAYOUTS] = {
    "growing", "truncated", "fallocate", "keep-size", "zeroed",
};

struct line {
    size_t size;    /* of an append */
    size_t total;   /* bytes, unless time is over before */
    unsigned every; /* fdatasync after so many; 0: only at the end */
    int flags;
};

struct result {
    double rate; /* appends per second */
    double p999; /* of an append and its fdatasync, microseconds */
};

static const char *path;
static uint8_t *data;
static int64_t taken[APPENDS_MAX];

static void fail(const char *what)
{
    fprintf(stderr, "growth: %s: %s: %s\n", path, what, strerror(errno));
    unlink(path);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void write_at(int fd, size_t length, size_t offset)
{
    ssize_t n = pwrite(fd, data, length, (off_t)offset);

    if (n >= 0 && (size_t)n != length) {
        errno = ENOSPC;
    }
    if (n < 0 || (size_t)n != length) {
        fail("write");
    }
}

/* A new file of this kind, durable; its first block is always written. */
static int make(enum layout layout, size_t total, int flags)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | flags, 0600);
    int ret = 0;

    if (fd < 0) {
        fail("open");
    }
    write_at(fd, BLOCK, 0);
    switch (layout) {
    case GROWING:
        break;
    case SPARSE:
        ret = ftruncate(fd, (off_t)(BLOCK + total));
        break;
    case FALLOC:
        ret = fallocate(fd, 0, BLOCK, (off_t)total);
        break;
    case KEEP_SIZE:
        ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, BLOCK, (off_t)total);
        break;
    default:
        memset(data, 0, MIB);
        for (size_t at = 0; at < total; at += MIB) {
            write_at(fd, MIB, BLOCK + at);
        }
    }
    if (ret < 0 || fsync(fd) < 0) {
        fail(layout_names[layout]);
    }
    memset(data, 0x5a, MIB);
    return fd;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static struct result measure(const struct line *l, enum layout layout)
{
    int fd = make(layout, l->total, l->flags);
    size_t at = BLOCK, n = 0;
    int64_t begin = now(), last = begin, t;

    while (at - BLOCK + l->size <= l->total && n < APPENDS_MAX &&
           last - begin < CASE_NS) {
        write_at(fd, l->size, at);
        at += l->size;
        if (l->every && (n + 1) % l->every == 0 && fdatasync(fd) < 0) {
            fail("fdatasync");
        }
        t = now();
        taken[n++] = t - last;
        last = t;
    }
    if (fdatasync(fd) < 0) {
        fail("fdatasync");
    }
    t = now() - begin;
    close(fd);
    qsort(taken, n, sizeof(*taken), by_time);
    return (struct result){
        .rate = (double)n * 1e9 / (double)t,
        .p999 = (double)taken[n - 1 - n / 1000] / 1e3,
    };
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct result *)a)->rate;
    double y = ((const struct result *)b)->rate;

    return (x > y) - (x < y);
}

static void run_line(const struct line *l, unsigned rounds)
{
    static struct result r[LAYOUTS][ROUNDS_MAX];
    char every[24] = "never";
    double zeroed;

    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned k = 0; k < LAYOUTS; k++) {
            /* nobody is always the first */
            unsigned layout = (k + i) % LAYOUTS;

            r[layout][i] = measure(l, layout);
        }
    }
    for (unsigned k = 0; k < LAYOUTS; k++) {
        qsort(r[k], rounds, sizeof(r[k][0]), by_rate);
    }
    zeroed = r[ZEROED][rounds / 2].rate;
    if (l->every) {
        snprintf(every, sizeof(every), "each %u", l->every);
    }
    printf("%3zu KiB  %-8s  %-7s", l->size / KIB,
           l->flags & O_DIRECT ? "O_DIRECT" : "buffered", every);
    for (unsigned k = 0; k < LAYOUTS; k++) {
        const struct result *m = &r[k][rounds / 2];

        printf(" | %6.0f %4.2f %6.0f", m->rate, m->rate / zeroed, m->p999);
    }
    printf("\n");
    fflush(stdout);
}

/* How long does an append wait that makes a step of room? */
static void run_steps(unsigned rounds)
{
    static const size_t steps[] = { 1, 16, 64, 256 };
    int64_t t[ROUNDS_MAX];

    printf("\nfallocate of a step, then fdatasync (microseconds, median)\n");
    for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        int64_t sync[ROUNDS_MAX];

        for (unsigned k = 0; k < rounds; k++) {
            int fd = make(GROWING, 0, O_DIRECT);
            int64_t begin = now();

            if (fallocate(fd, 0, BLOCK, (off_t)(steps[i] * MIB)) < 0) {
                fail("fallocate");
            }
            t[k] = now() - begin;
            begin = now();
            if (fdatasync(fd) < 0) {
                fail("fdatasync");
            }
            sync[k] = now() - begin;
            close(fd);
        }
        qsort(t, rounds, sizeof(*t), by_time);
        qsort(sync, rounds, sizeof(*sync), by_time);
        printf("%3zu MiB %8.0f %8.0f\n", steps[i], (double)t[rounds / 2] / 1e3,
               (double)sync[rounds / 2] / 1e3);
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = { 8 * KIB, 132 * KIB };
    static const unsigned every[] = { 1, 64, 0 };
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 5;
    char name[4096];

    if (argc < 2 || argc > 3 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "Usage: growth DIR [ROUNDS]\n");
        return 2;
    }
    if ((size_t)snprintf(name, sizeof(name), "%s/growth.%ld", argv[1],
                         (long)getpid()) >= sizeof(name)) {
        fprintf(stderr, "growth: '%s' is too long\n", argv[1]);
        return 2;
    }
    path = name;
    if (posix_memalign((void **)&data, BLOCK, MIB)) {
        fprintf(stderr, "growth: out of memory\n");
        return 1;
    }
    printf("appends per second, ratio to zeroed, 99.9th percentile (us)\n"
           "append   mode      sync   ");
    for (unsigned k = 0; k < LAYOUTS; k++) {
        printf(" | %-18s", layout_names[k]);
    }
    printf("\n");
    for (unsigned i = 0; i < 12; i++) {
        struct line l = {
            .size = sizes[i / 6],
            .total = i / 6 ? 256 * MIB : 64 * MIB,
            .every = every[i % 3],
            .flags = i / 3 % 2 ? 0 : O_DIRECT,
        };

        run_line(&l, rounds);
    }
    run_steps(rounds);
    unlink(path);
    return 0;
}
