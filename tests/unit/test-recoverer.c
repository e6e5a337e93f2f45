/*
 * Recovery of a disk in a file: what real recorders leave only by bad luck
 *
 * A tool's session writes the records, so that there are some without a
 * PREIMAGE, which recovery then has to capture before it overwrites.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <posix/file.h>
#include <posix/reader.h>
#include <posix/recoverer.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "unit.h"

#define DISK (4 * TT_MIB)

struct pair {
    char dir[256], journal[300], disk[300];
    uint8_t *original, *expected; /* DISK bytes */
    uint64_t random;
    unsigned warnings;
};

static uint64_t next_random(struct pair *p)
{
    p->random = p->random * 6364136223846793005u + 1442695040888963407u;
    return p->random >> 33;
}

static void fill(struct pair *p, uint8_t *buf, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        buf[i] = (uint8_t)next_random(p);
    }
}

static void write_disk(const struct pair *p, const uint8_t *bytes, size_t size)
{
    int fd = open(p->disk, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(tt_write_at(fd, bytes, size, 0), 0);
    ck_assert_int_eq(close(fd), 0);
}

/* An empty journal for a disk: a MiB of data, then a hole, then data. */
static void pair_begin(struct pair *p, uint64_t seed)
{
    uint8_t uuid[TT_UUID_SIZE] = { 1, 2, 3 };
    struct tt_super super;
    const struct tt_ahead ahead = { 0 };
    struct tt_error err;
    int fd;

    *p = (struct pair){ .random = seed };
    snprintf(p->dir, sizeof(p->dir), "%s/ttj-recoverer-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(p->dir));
    sprintf(p->journal, "%s/d.ttj", p->dir);
    sprintf(p->disk, "%s/disk", p->dir);
    p->original = calloc(1, DISK);
    p->expected = calloc(1, DISK);
    ck_assert(p->original && p->expected);
    fill(p, p->original, TT_MIB);
    fill(p, p->original + 3 * TT_MIB, TT_MIB);
    memcpy(p->expected, p->original, DISK);
    write_disk(p, p->original, TT_MIB);
    fd = open(p->disk, O_WRONLY);
    ck_assert_int_eq(
        tt_write_at(fd, p->original + 3 * TT_MIB, TT_MIB, 3 * TT_MIB), 0);
    close(fd);
    tt_super_init(&super, uuid, 4711, DISK, 512, 0);
    super.segment_size = 4 * TT_MIB;
    ck_assert_msg(tt_journal_create(p->journal, &super, (uid_t)-1, (gid_t)-1,
                                    &ahead, &err) == 0,
                  "%s", err.message);
}

static void pair_end(struct pair *p)
{
    unlink(p->journal);
    unlink(p->disk);
    rmdir(p->dir);
    free(p->original);
    free(p->expected);
}

static struct tt_appender *open_appender(struct pair *p)
{
    struct tt_appender *a;
    struct tt_error err;

    ck_assert_msg(tt_appender_open(p->journal, "test", NULL, NULL, &a, &err) ==
                      0,
                  "%s", err.message);
    return a;
}

static void add(struct pair *p, struct tt_appender *a, uint16_t kind,
                uint64_t offset, uint64_t length)
{
    uint8_t *payload = kind == TT_KIND_WRITE ? malloc(length) : NULL;
    struct tt_request req = {
        .kind = kind,
        .disk_offset = offset,
        .disk_length = length,
        .payload = payload,
        .payload_length = payload ? (uint32_t)length : 0,
    };
    struct tt_error err;
    uint64_t seq;
    int64_t time;

    if (payload) {
        fill(p, payload, length);
        memcpy(p->expected + offset, payload, length);
    } else if (kind == TT_KIND_ZERO) {
        memset(p->expected + offset, 0, length);
    }
    ck_assert_msg(tt_appender_append(a, &req, &seq, &time, &err) == 0, "%s",
                  err.message);
    free(payload);
}

static void close_appender(struct tt_appender *a)
{
    struct tt_error err;

    ck_assert_msg(tt_appender_close(a, &err) == 0, "%s", err.message);
}

static void count_warning(void *opaque, const char *line)
{
    struct pair *p = opaque;

    (void)line;
    p->warnings++;
}

static struct tt_recover_report recover(struct pair *p, bool dry_run)
{
    const struct tt_watcher ops = { .warn = count_warning, .opaque = p };
    struct tt_recover_report rep;
    struct tt_recoverer *r;
    struct tt_error err;

    ck_assert_msg(tt_recoverer_open(p->journal, p->disk, dry_run, &r, &err) ==
                      0,
                  "%s", err.message);
    ck_assert_msg(tt_recoverer_run(r, "test", &ops, &err) == 0, "%s",
                  err.message);
    rep = *tt_recoverer_report(r);
    tt_recoverer_close(r);
    return rep;
}

static void check_disk(const struct pair *p, const uint8_t *want, size_t size)
{
    uint8_t *held = malloc(size);
    int fd = open(p->disk, O_RDONLY);
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, size);
    ck_assert_int_eq(pread(fd, held, size, 0), (ssize_t)size);
    for (size_t i = 0; i < size; i += 512) {
        ck_assert_msg(!memcmp(held + i, want + i, 512), "the disk at %zu", i);
    }
    close(fd);
    free(held);
}

static void check_view(const struct pair *p, const char *moment,
                       const uint8_t *want, size_t size)
{
    uint8_t *held = malloc(size);
    struct tt_reader *r;
    struct tt_view v;
    struct tt_error err;

    ck_assert_msg(tt_reader_open(p->journal, p->disk, &r, &err) == 0, "%s",
                  err.message);
    ck_assert_msg(tt_reader_bind(r, moment, NULL, 0, &v, &err) == 0, "%s",
                  err.message);
    ck_assert_uint_eq(v.size, size);
    ck_assert_msg(tt_reader_read(r, &v, 0, held, size, &err) == 0, "%s",
                  err.message);
    for (size_t i = 0; i < size; i += 512) {
        ck_assert_msg(!memcmp(held + i, want + i, 512), "%s at %zu", moment, i);
    }
    tt_reader_close(r);
    free(held);
}

/* What redo overwrites and nobody captured is captured first, holes too. */
START_TEST(captures_before_it_redoes)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct tt_recover_report rep, told;
        struct tt_appender *a;
        struct pair p;

        pair_begin(&p, seed);
        a = open_appender(&p);
        for (unsigned i = 0; i < 60; i++) {
            uint64_t sectors = 1 + next_random(&p) % (i % 10 ? 20 : 600);
            uint64_t at = next_random(&p) % (DISK / 512 - sectors);

            add(&p, a, i % 7 ? TT_KIND_WRITE : TT_KIND_ZERO, at * 512,
                sectors * 512);
        }
        close_appender(a);
        told = recover(&p, true);
        check_disk(&p, p.original, DISK);
        rep = recover(&p, false);
        ck_assert_uint_gt(rep.captured_bytes, rep.write_bytes);
        ck_assert_uint_eq(told.captured_bytes, rep.captured_bytes);
        ck_assert_uint_eq(told.write_bytes, rep.write_bytes);
        ck_assert_uint_eq(told.zero_bytes, rep.zero_bytes);
        check_disk(&p, p.expected, DISK);
        check_view(&p, "seq:0", p.original, DISK);
        check_view(&p, "latest", p.expected, DISK);
        ck_assert(recover(&p, false).nothing);
        ck_assert_uint_eq(p.warnings, 0);
        pair_end(&p);
    }
}
END_TEST

/* Thousands of captures do not fit in one frame, nor in one segment. */
START_TEST(many_captures)
{
    struct tt_recover_report rep;
    struct tt_appender *a;
    struct pair p;

    pair_begin(&p, 7);
    a = open_appender(&p);
    for (uint64_t at = 0; at < DISK; at += TT_MIB) {
        add(&p, a, TT_KIND_WRITE, at, TT_MIB);
    }
    close_appender(a);
    rep = recover(&p, false);
    ck_assert_uint_eq(rep.captured_bytes, DISK);
    check_disk(&p, p.expected, DISK);
    check_view(&p, "seq:0", p.original, DISK);
    check_view(&p, "latest", p.expected, DISK);
    pair_end(&p);
}
END_TEST

/* The disk grows, or is cut; what was cut off is not redone. */
START_TEST(redoes_sizes)
{
    for (unsigned grow = 0; grow < 2; grow++) {
        uint64_t size = grow ? 6 * TT_MIB : 2 * TT_MIB + 512;
        uint8_t *want = calloc(1, size);
        struct tt_recover_report rep;
        struct tt_appender *a;
        struct pair p;

        pair_begin(&p, 8);
        a = open_appender(&p);
        add(&p, a, TT_KIND_WRITE, 2 * TT_MIB - 1024, 8192);
        add(&p, a, TT_KIND_WRITE, 3 * TT_MIB, 4096);
        memcpy(want, p.expected, size < DISK ? size : DISK);
        add(&p, a, TT_KIND_RESIZE, DISK, size);
        close_appender(a);
        rep = recover(&p, false);
        ck_assert_uint_eq(rep.old_size, DISK);
        ck_assert_uint_eq(rep.new_size, size);
        check_disk(&p, want, size);
        check_view(&p, "latest", want, size);
        pair_end(&p);
        free(want);
    }
}
END_TEST

/* An odd end of the file is a whole sector to the guest. */
START_TEST(odd_end_of_the_file)
{
    struct tt_appender *a;
    struct pair p;

    pair_begin(&p, 9);
    memset(p.original + DISK - 100, 0, 100);
    memset(p.expected + DISK - 100, 0, 100);
    ck_assert_int_eq(truncate(p.disk, DISK - 100), 0);
    a = open_appender(&p);
    add(&p, a, TT_KIND_WRITE, DISK - 1024, 1024);
    close_appender(a);
    recover(&p, false);
    check_disk(&p, p.expected, DISK);
    check_view(&p, "seq:0", p.original, DISK);
    pair_end(&p);
}
END_TEST

/* An empty journal, and one that only marks are in: nothing is written. */
START_TEST(nothing_to_do)
{
    const struct tt_request mark = {
        .kind = TT_KIND_MARK,
        .flags = TT_RECORD_INLINE,
        .payload = "here",
        .payload_length = 4,
    };
    struct tt_appender *a;
    struct stat before, after;
    struct tt_error err;
    struct pair p;
    uint64_t seq;
    int64_t time;

    pair_begin(&p, 10);
    ck_assert_int_eq(stat(p.journal, &before), 0);
    ck_assert(recover(&p, false).nothing);
    a = open_appender(&p);
    ck_assert_int_eq(tt_appender_append(a, &mark, &seq, &time, &err), 0);
    close_appender(a);
    ck_assert_int_eq(stat(p.journal, &before), 0);
    ck_assert(recover(&p, false).nothing);
    ck_assert_int_eq(stat(p.journal, &after), 0);
    ck_assert_int_eq(before.st_size, after.st_size);
    check_disk(&p, p.original, DISK);
    pair_end(&p);
}
END_TEST

int main(void)
{
    return unit_run("recoverer", (const TTest *const *const[]){
                                     &captures_before_it_redoes,
                                     &many_captures,
                                     &redoes_sizes,
                                     &odd_end_of_the_file,
                                     &nothing_to_do,
                                     NULL,
                                 });
}
