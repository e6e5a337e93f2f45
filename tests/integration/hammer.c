/*
 * hammer: what the guest of test-threads runs
 *
 *     hammer DEVICE SECTORS THREADS OPERATIONS SEED
 *
 * Threads, one for each CPU in turn, write to one disk at once, past the page
 * cache and over each other.  Every sector that is written holds the number of
 * the write and its own: see ttjmodel.py.  A write's number is
 * (thread + 1) << 32 | how many writes of this thread it makes.  Each thread
 * says now and then how many of them were acknowledged.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SECTOR 512
#define MOST 64 /* sectors in one write */
#define THREADS 64

static int fd;
static uint64_t sectors, operations, seed;

struct thread {
    pthread_t thread;
    uint64_t number;
    uint64_t writes;
    uint64_t rng;
};

static uint32_t chance(struct thread *t)
{
    t->rng ^= t->rng >> 12;
    t->rng ^= t->rng << 25;
    t->rng ^= t->rng >> 27;
    return (t->rng * 2685821657736338717u) >> 32;
}

static void die(const char *what)
{
    printf("HAMMER %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

static void one(struct thread *t, uint64_t *buf)
{
    uint64_t number = (t->number + 1) << 32 | (t->writes + 1);
    uint64_t count = 1 + chance(t) % (chance(t) % 4 ? 8 : MOST);
    /* most of it where the others are, too */
    uint64_t span = chance(t) % 4 ? 2 * MOST : sectors;
    uint64_t first = chance(t) % (span - count + 1);
    uint32_t kind = chance(t) % 100;

    if (kind < 4) {
        uint64_t range[2] = { first * SECTOR, count * SECTOR };

        if (ioctl(fd, kind < 2 ? BLKZEROOUT : BLKDISCARD, range) < 0) {
            die("zeroes");
        }
        return;
    }
    for (uint64_t i = 0; i < count * SECTOR / 8; i += 2) {
        buf[i] = number;
        buf[i + 1] = first + i / (SECTOR / 8);
    }
    if (pwrite(fd, buf, count * SECTOR, first * SECTOR) !=
        (ssize_t)(count * SECTOR)) {
        die("write");
    }
    t->writes++;
    if (kind < 8 && fdatasync(fd) < 0) {
        die("flush");
    }
}

static void *run(void *opaque)
{
    struct thread *t = opaque;
    cpu_set_t cpus;
    void *buf;

    CPU_ZERO(&cpus);
    CPU_SET(t->number % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    if (posix_memalign(&buf, 4096, MOST * SECTOR)) {
        die("memory");
    }
    for (uint64_t i = 1; i <= operations; i++) {
        one(t, buf);
        if (i % 64 == 0 || i == operations) {
            printf("DONE %lu %lu\n", (unsigned long)t->number,
                   (unsigned long)t->writes);
            fflush(stdout);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct thread threads[THREADS];
    unsigned count;

    if (argc != 6) {
        return 2;
    }
    fd = open(argv[1], O_RDWR | O_DIRECT);
    if (fd < 0) {
        die(argv[1]);
    }
    sectors = strtoull(argv[2], NULL, 10);
    count = atoi(argv[3]);
    operations = strtoull(argv[4], NULL, 10);
    seed = strtoull(argv[5], NULL, 10);
    if (count > THREADS) {
        return 2;
    }
    for (unsigned i = 0; i < count; i++) {
        threads[i] = (struct thread){
            .number = i,
            .rng = (seed * THREADS + i + 1) * 11400714819323198485u | 1,
        };
        if (pthread_create(&threads[i].thread, NULL, run, &threads[i])) {
            die("thread");
        }
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i].thread, NULL);
    }
    return 0;
}
