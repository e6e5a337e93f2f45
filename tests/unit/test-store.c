/*
 * The index on disk, whatever happens to its files: always the right bytes
 *
 * A tool's session writes a journal of small segments; views of it by readers
 * with an index are compared with a model that does the writes again.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <posix/file.h>
#include <posix/reader.h>
#include <posix/store.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#define DISK (2 * TT_MIB)
#define SEGMENT (4 * TT_MIB)
#define OPS_MAX 4000u

struct op {
    uint64_t seq, offset, length, seed; /* seed 0: zeroes */
};

struct world {
    char dir[256], journal[300], index[300];
    uint64_t random;
    uint64_t first_seq; /* from here on all of the disk was written */
    struct op ops[OPS_MAX];
    size_t count;
};

/* ---- the journal and its model ----------------------------------------- */

static uint64_t mix(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void fill(uint64_t seed, uint8_t *buf, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = seed ? mix(&seed) << 20 ^ i : 0;

        memcpy(buf + i, &word, 8);
    }
}

static void create(struct world *w, const char *path, uint8_t tag)
{
    const uint8_t uuid[TT_UUID_SIZE] = { tag, 2, 3 };
    const struct tt_ahead ahead = { 0 };
    struct tt_super super;
    struct tt_error err;

    (void)w;
    tt_super_init(&super, uuid, 4711u + tag, DISK, 512, 0);
    super.segment_size = SEGMENT;
    ck_assert_msg(tt_journal_create(path, &super, (uid_t)-1, (gid_t)-1, &ahead,
                                    &err) == 0,
                  "%s", err.message);
}

static void append(struct world *w, struct tt_appender *a, struct op op)
{
    static uint8_t payload[TT_PAYLOAD_RECORD_MAX];
    struct tt_request req = {
        .kind = op.seed ? TT_KIND_WRITE : TT_KIND_ZERO,
        .disk_offset = op.offset,
        .disk_length = op.length,
        .payload = op.seed ? payload : NULL,
        .payload_length = op.seed ? (uint32_t)op.length : 0,
    };
    struct tt_error err;
    int64_t time;

    fill(op.seed, payload, op.length);
    ck_assert_msg(tt_appender_append(a, &req, &op.seq, &time, &err) == 0, "%s",
                  err.message);
    ck_assert_uint_lt(w->count, OPS_MAX);
    w->ops[w->count++] = op;
}

/* Records what fills @segments, and some more. */
static void record(struct world *w, unsigned segments)
{
    struct tt_appender *a;
    struct tt_error err;
    uint64_t left = segments * SEGMENT;

    ck_assert_msg(tt_appender_open(w->journal, "test", NULL, NULL, &a, &err) ==
                      0,
                  "%s", err.message);
    if (!w->count) {
        for (uint64_t at = 0; at < DISK; at += TT_MIB) {
            append(
                w, a,
                (struct op){ .offset = at, .length = TT_MIB, .seed = 1 + at });
        }
        w->first_seq = w->ops[w->count - 1].seq;
    }
    while (left > 0) {
        uint64_t length =
            512 *
            (1 + mix(&w->random) % (mix(&w->random) % 2 == 0 ? 2048 : 16));
        uint64_t offset = 512 * (mix(&w->random) % ((DISK - length) / 512 + 1));

        append(w, a,
               (struct op){ .offset = offset,
                            .length = length,
                            .seed = mix(&w->random) % 8 ? 1 + mix(&w->random)
                                                        : 0 });
        left -= left < length ? left : length;
    }
    ck_assert_msg(tt_appender_close(a, &err) == 0, "%s", err.message);
}

static void world_begin(struct world *w, uint64_t seed, unsigned segments)
{
    *w = (struct world){ .random = seed };
    snprintf(w->dir, sizeof(w->dir), "%s/ttj-store-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(w->journal, sizeof(w->journal), "%s/d.ttj", w->dir);
    snprintf(w->index, sizeof(w->index), "%s/d.ttj.index", w->dir);
    create(w, w->journal, 1);
    record(w, segments);
}

static void remove_folder(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d) {
        closedir(d);
    }
    rmdir(path);
}

static void world_end(struct world *w)
{
    remove_folder(w->index);
    remove_folder(w->dir);
}

/* ---- views ------------------------------------------------------------- */

static struct tt_reader *open_reader(const struct world *w)
{
    struct tt_reader *r;
    struct tt_error err;

    ck_assert_msg(tt_reader_open(w->journal, NULL, &r, &err) == 0, "%s",
                  err.message);
    return r;
}

static struct tt_view bind(struct tt_reader *r, uint64_t seq)
{
    struct tt_view v;
    struct tt_error err;
    char text[32];

    snprintf(text, sizeof(text), "seq:%llu", (ull)seq);
    ck_assert_msg(tt_reader_bind(r, text, NULL, 0, &v, &err) == 0, "%s",
                  err.message);
    return v;
}

/* Goes on from the operation *next to @seq. */
static void model_on(const struct world *w, size_t *next, uint64_t seq,
                     uint8_t *disk)
{
    for (; *next < w->count && w->ops[*next].seq <= seq; ++*next) {
        const struct op *op = &w->ops[*next];

        fill(op->seed, disk + op->offset, op->length);
    }
}

static void model(const struct world *w, uint64_t seq, uint8_t *disk)
{
    size_t next = 0;

    model_on(w, &next, seq, disk);
}

static void check_bytes(struct tt_reader *r, struct tt_view *v,
                        const uint8_t *want)
{
    static uint8_t held[DISK];
    struct tt_error err;

    for (uint64_t at = 0; at < DISK; at += DISK / 4) {
        ck_assert_msg(tt_reader_read(r, v, at, held + at, DISK / 4, &err) == 0,
                      "%s", err.message);
    }
    for (size_t i = 0; i < DISK; i += 512) {
        if (memcmp(held + i, want + i, 512)) {
            ck_abort_msg("seq:%llu at %zu", (ull)v->moment.seq, i);
        }
    }
}

static void check_view(const struct world *w, struct tt_reader *r,
                       struct tt_view *v)
{
    static uint8_t want[DISK];

    model(w, v->moment.seq, want);
    check_bytes(r, v, want);
}

/* Some moments, the first and the last among them. */
static void check_reader(const struct world *w, struct tt_reader *r)
{
    static uint8_t want[DISK];
    size_t next = 0;

    for (unsigned i = 0; i <= 6; i++) {
        const struct op *op = &w->ops[(w->count - 1) * i / 6];
        struct tt_view v =
            bind(r, op->seq < w->first_seq ? w->first_seq : op->seq);

        model_on(w, &next, v.moment.seq, want);
        check_bytes(r, &v, want);
    }
}

static void check_views(const struct world *w)
{
    struct tt_reader *r = open_reader(w);

    check_reader(w, r);
    tt_reader_close(r);
}

/* ---- the index's files ------------------------------------------------- */

/* What an index in the usual place covers; 0: there is none that fits. */
static uint64_t indexed(const struct world *w)
{
    struct tt_index_set *set;
    struct tt_super super;
    struct tt_store *s;
    struct tt_error err;
    struct tt_file *f;
    uint64_t seq = 0;

    ck_assert_int_eq(tt_file_open(w->journal, &f, &err), 0);
    ck_assert_int_eq(tt_super_read(&f->source, &super, NULL, &err), 0);
    ck_assert_msg(tt_store_open(f, &super, NULL, &s, &err) == 0, "%s",
                  err.message);
    set = tt_store_get(s);
    if (set) {
        seq = tt_catalog_last_seq(tt_index_set_catalog(set));
    }
    tt_index_set_put(set);
    tt_store_close(s);
    tt_file_close(f);
    return seq;
}

typedef void file_fn(int dir, const char *name, void *opaque);

static unsigned each_file(const struct world *w, const char *prefix,
                          file_fn *fn, void *opaque)
{
    char names[64][64];
    unsigned count = 0;
    DIR *d = opendir(w->index);
    struct dirent *e;

    ck_assert_ptr_nonnull(d);
    while ((e = readdir(d))) {
        if (!strncmp(e->d_name, prefix, strlen(prefix)) && count < 64) {
            snprintf(names[count++], sizeof(names[0]), "%.63s", e->d_name);
        }
    }
    for (unsigned i = 0; i < count && fn; i++) {
        fn(dirfd(d), names[i], opaque);
    }
    closedir(d);
    return count;
}

static void damage(int dir, const char *name, void *opaque)
{
    const off_t *from = opaque;
    uint8_t garbage[512];
    int fd = openat(dir, name, O_WRONLY);
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    memset(garbage, 0x5a, sizeof(garbage));
    for (off_t at = *from; at < st.st_size; at += 4096) {
        ck_assert_int_eq(pwrite(fd, garbage, 512, at + 1024), 512);
    }
    close(fd);
}

static void cut(int dir, const char *name, void *opaque)
{
    int fd = openat(dir, name, O_WRONLY);

    ck_assert_int_eq(ftruncate(fd, *(off_t *)opaque), 0);
    close(fd);
}

static void drop(int dir, const char *name, void *opaque)
{
    (void)opaque;
    ck_assert_int_eq(unlinkat(dir, name, 0), 0);
}

static void add_name(int dir, const char *name, void *opaque)
{
    GString *names = opaque;

    (void)dir;
    g_string_append(names, name);
}

/* The index has no run any more that it had when @names were taken. */
static void check_remade(const struct world *w, GString *names)
{
    GString *now = g_string_new(NULL);

    ck_assert_uint_eq(each_file(w, "run-", add_name, now), 1);
    ck_assert_ptr_null(strstr(names->str, now->str));
    g_string_free(now, TRUE);
    g_string_free(names, TRUE);
}

static GString *run_names(const struct world *w)
{
    GString *names = g_string_new(NULL);

    each_file(w, "run-", add_name, names);
    return names;
}

/* ---- tests ------------------------------------------------------------- */

START_TEST(index_is_made_and_used)
{
    struct world w;
    struct stat before, after;
    char catalog[320];

    world_begin(&w, 1, 9);
    ck_assert_uint_eq(indexed(&w), 0);
    check_views(&w);
    ck_assert_uint_gt(indexed(&w), w.ops[w.count / 2].seq);
    snprintf(catalog, sizeof(catalog), "%s/catalog", w.index);
    ck_assert_int_eq(stat(catalog, &before), 0);
    check_views(&w);
    ck_assert_int_eq(stat(catalog, &after), 0);
    ck_assert_uint_eq(before.st_ino, after.st_ino); /* not made again */
    world_end(&w);
}
END_TEST

START_TEST(small_journals_need_none)
{
    struct world w;

    world_begin(&w, 2, 2);
    check_views(&w);
    ck_assert_int_lt(access(w.index, F_OK), 0);
    world_end(&w);
}
END_TEST

START_TEST(reader_follows)
{
    struct world w;
    struct tt_reader *r;
    struct tt_view old;
    struct tt_error err;
    uint64_t covered;

    world_begin(&w, 3, 6);
    r = open_reader(&w);
    old = bind(r, w.ops[w.count - 1].seq);
    for (unsigned i = 0; i < 3; i++) {
        covered = indexed(&w);
        record(&w, 2);
        ck_assert_msg(tt_reader_follow(r, &err) == 0, "%s", err.message);
        ck_assert_uint_gt(indexed(&w), covered);
        check_reader(&w, r);
        check_view(&w, r, &old);
    }
    tt_reader_close(r);
    world_end(&w);
}
END_TEST

/* Destroys a frame some way before the journal's end. */
static void damage_near_end(const struct world *w, struct tt_reader *r)
{
    const struct tt_history *h = tt_reader_lock(r);
    struct tt_frame f = tt_history_end(h)->last;
    uint8_t head[TT_HEAD_MAX];
    struct tt_file *file;
    struct tt_error err;
    int fd;

    ck_assert_int_eq(tt_file_open(w->journal, &file, &err), 0);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_gt(tt_frame_read(tt_history_super(h), &file->source,
                                       f.prev_offset, head, &f, &err),
                         0);
    }
    tt_reader_unlock(r);
    tt_file_close(file);
    ck_assert(!(f.flags & TT_FRAME_SEGMENT_START));
    fd = open(w->journal, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, "lost", 4, (off_t)f.offset), 4);
    close(fd);
}

static uint64_t last_seq(struct tt_reader *r, size_t *ret_damages)
{
    const struct tt_history *h = tt_reader_lock(r);
    uint64_t seq = tt_history_end(h)->last_seq;

    tt_history_damages(h, ret_damages);
    tt_reader_unlock(r);
    return seq;
}

/*
 * A reader that has found damage in the newest segment, and what is behind it,
 * does not lose either when it goes over to an index.
 */
START_TEST(follower_keeps_what_is_behind_damage)
{
    struct world w;
    struct tt_reader *r;
    struct tt_error err;
    uint64_t last;
    size_t damages;

    world_begin(&w, 13, 2);
    r = open_reader(&w);
    last = last_seq(r, &damages);
    ck_assert_uint_eq(damages, 0);
    damage_near_end(&w, r);
    tt_reader_close(r);
    r = open_reader(&w);
    ck_assert_uint_eq(last_seq(r, &damages), last);
    ck_assert_uint_eq(damages, 1);
    ck_assert_uint_eq(indexed(&w), 0);
    ck_assert_msg(tt_reader_follow(r, &err) == 0, "%s", err.message);
    ck_assert_uint_gt(indexed(&w), 0);
    ck_assert_uint_eq(last_seq(r, &damages), last);
    ck_assert_uint_eq(damages, 1);
    tt_reader_close(r);
    world_end(&w);
}
END_TEST

START_TEST(damaged_pages)
{
    /* all from there on; the header is the first page */
    static off_t places[] = { 4096, 0 };
    struct world w;

    world_begin(&w, 4, 8);
    check_views(&w);
    for (unsigned i = 0; i < 4; i++) {
        file_fn *harm = i % 2 ? cut : damage;
        GString *names = run_names(&w);
        struct tt_reader *r;

        ck_assert_uint_ge(each_file(&w, "run-", harm, &places[i / 2]), 1);
        check_views(&w);
        check_remade(&w, names);
        /* and behind an open reader, which has read but the headers */
        r = open_reader(&w);
        names = run_names(&w);
        each_file(&w, "run-", harm, &places[0]);
        check_reader(&w, r);
        check_remade(&w, names);
        check_reader(&w, r);
        tt_reader_close(r);
        check_views(&w);
    }
    world_end(&w);
}
END_TEST

START_TEST(lost_files)
{
    static const char *const prefixes[] = { "catalog", "run-", "lock", "" };
    struct world w;

    world_begin(&w, 5, 8);
    check_views(&w);
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        struct tt_reader *r = open_reader(&w);

        ck_assert_uint_ge(each_file(&w, prefixes[i], NULL, NULL), 1);
        if (prefixes[i][0]) {
            each_file(&w, prefixes[i], drop, NULL);
        } else {
            remove_folder(w.index);
        }
        check_reader(&w, r);
        tt_reader_close(r);
        check_views(&w);
        ck_assert_uint_gt(indexed(&w), 0);
    }
    world_end(&w);
}
END_TEST

START_TEST(folder_is_removed_under_a_follower)
{
    struct world w;
    struct tt_reader *r;
    struct tt_error err;

    world_begin(&w, 6, 8);
    r = open_reader(&w);
    remove_folder(w.index);
    record(&w, 2);
    ck_assert_msg(tt_reader_follow(r, &err) == 0, "%s", err.message);
    check_reader(&w, r);
    ck_assert_uint_gt(indexed(&w), w.ops[w.count / 2].seq);
    tt_reader_close(r);
    world_end(&w);
}
END_TEST

/* What a killed indexer leaves goes; what is not ours stays. */
START_TEST(left_overs)
{
    struct world w;
    char ours[400], other[400];

    world_begin(&w, 7, 8);
    check_views(&w);
    snprintf(ours, sizeof(ours), "%s/new-%032x", w.index, 1);
    snprintf(other, sizeof(other), "%s/new-notes", w.index);
    close(open(ours, O_WRONLY | O_CREAT, 0600));
    close(open(other, O_WRONLY | O_CREAT, 0600));
    record(&w, 5);
    check_views(&w);
    ck_assert_int_lt(access(ours, F_OK), 0);
    ck_assert_int_eq(access(other, F_OK), 0);
    world_end(&w);
}
END_TEST

static void copy_file(const char *from, const char *to)
{
    static uint8_t buf[TT_MIB];
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT, 0600);
    off_t at = 0;
    ssize_t n;

    ck_assert(in >= 0 && out >= 0);
    while ((n = read(in, buf, sizeof(buf))) > 0) {
        ck_assert_int_eq(tt_write_at(out, buf, (size_t)n, (uint64_t)at), 0);
        at += n;
    }
    ck_assert_int_eq(ftruncate(out, at), 0);
    close(in);
    close(out);
}

/* Back to an older copy, in the same file, and on from there otherwise. */
START_TEST(older_copy)
{
    struct world w;
    struct tt_reader *r;
    struct tt_error err;
    char copy[320];
    size_t count;

    world_begin(&w, 8, 6);
    snprintf(copy, sizeof(copy), "%s/copy", w.dir);
    copy_file(w.journal, copy);
    count = w.count;
    record(&w, 6);
    check_views(&w);
    r = open_reader(&w);
    copy_file(copy, w.journal);
    w.count = count;
    ck_assert_msg(tt_reader_refresh(r, &err) == 0, "%s", err.message);
    check_reader(&w, r);
    check_views(&w);
    w.random = 99;
    record(&w, 7);
    ck_assert_msg(tt_reader_follow(r, &err) == 0, "%s", err.message);
    check_reader(&w, r);
    tt_reader_close(r);
    check_views(&w);
    ck_assert_uint_gt(indexed(&w), w.ops[w.count / 2].seq);
    world_end(&w);
}
END_TEST

/* The index of another journal, whose versions have the same numbers. */
START_TEST(foreign_index)
{
    struct world w;
    char path[400];

    world_begin(&w, 9, 8);
    check_views(&w);
    snprintf(path, sizeof(path), "%s.other", w.index);
    ck_assert_int_eq(rename(w.index, path), 0);
    ck_assert_int_eq(unlink(w.journal), 0);
    create(&w, w.journal, 2);
    w.count = 0;
    record(&w, 8);
    ck_assert_int_eq(rename(path, w.index), 0);
    ck_assert_uint_eq(indexed(&w), 0);
    check_views(&w);
    ck_assert_uint_gt(indexed(&w), 0);
    world_end(&w);
}
END_TEST

static int extend(const struct world *w, struct tt_store_work *work,
                  struct tt_error *err)
{
    struct tt_super super;
    struct tt_store *s;
    struct tt_file *f;
    int ret;

    ck_assert_int_eq(tt_file_open(w->journal, &f, err), 0);
    ck_assert_int_eq(tt_super_read(&f->source, &super, NULL, err), 0);
    ck_assert_int_eq(tt_store_open(f, &super, NULL, &s, err), 0);
    ret = tt_store_extend(s, work, err);
    tt_store_close(s);
    tt_file_close(f);
    return ret;
}

/*
 * In a process of its own, whose files may not grow (Check's neither, so
 * without it): the step that went wrong, or 0.
 */
static int without_room(const struct world *w)
{
    static uint8_t want[DISK], held[DISK];
    const struct rlimit limit = { 8192, 8192 };
    struct tt_store_work work = { .named = true };
    struct tt_super super;
    struct tt_store *s;
    struct tt_reader *r;
    struct tt_view v;
    struct tt_error err;
    struct tt_file *f;
    char *note;

    if (setrlimit(RLIMIT_FSIZE, &limit) < 0 ||
        tt_file_open(w->journal, &f, &err) < 0 ||
        tt_super_read(&f->source, &super, NULL, &err) < 0 ||
        tt_store_open(f, &super, NULL, &s, &err) < 0) {
        return 1;
    }
    if (tt_store_extend(s, &work, &err) != -TT_EIO || err.os_errno != EFBIG ||
        !strstr(err.message, w->index)) {
        return 2;
    }
    tt_store_close(s);
    tt_file_close(f);
    if (tt_reader_open(w->journal, NULL, &r, &err) < 0) {
        return 3;
    }
    note = tt_reader_index_note(r);
    if (!strstr(note, w->index)) {
        return 4;
    }
    free(note);
    model(w, UINT64_MAX, want);
    if (tt_reader_bind(r, "latest", NULL, 0, &v, &err) < 0 ||
        tt_reader_read(r, &v, 0, held, DISK, &err) < 0 ||
        memcmp(held, want, DISK)) {
        return 5;
    }
    tt_reader_close(r);
    return 0;
}

/* The index is in memory then, and nobody is killed for it. */
START_TEST(no_room)
{
    struct world w;
    int status;
    pid_t pid;

    world_begin(&w, 10, 8);
    pid = fork();
    if (pid == 0) {
        _exit(without_room(&w));
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "status %#x", (unsigned)status);
    ck_assert_uint_eq(each_file(&w, "new-", NULL, NULL), 0);
    ck_assert_uint_eq(indexed(&w), 0);
    check_views(&w);
    ck_assert_uint_gt(indexed(&w), 0);
    world_end(&w);
}
END_TEST

START_TEST(one_at_a_time)
{
    struct tt_store_work work = { 0 };
    struct world w;
    struct tt_error err;
    char lock[320];
    int fd;

    world_begin(&w, 11, 6);
    check_views(&w);
    record(&w, 2);
    snprintf(lock, sizeof(lock), "%s/lock", w.index);
    fd = open(lock, O_RDWR);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(extend(&w, &work, &err), 0);
    ck_assert(work.busy && !work.grown);
    close(fd);
    ck_assert_int_eq(extend(&w, &work, &err), 0);
    ck_assert(!work.busy && work.grown);
    world_end(&w);
}
END_TEST

/* Many small runs become few. */
START_TEST(runs_are_merged)
{
    struct world w;
    struct tt_error err;
    unsigned merged = 0;

    world_begin(&w, 13, 5);
    for (unsigned i = 0; i < 12; i++) {
        struct tt_store_work work = { 0 };

        record(&w, 1);
        ck_assert_msg(extend(&w, &work, &err) == 0, "%s", err.message);
        merged += work.runs_merged;
        ck_assert_uint_eq(each_file(&w, "new-", NULL, NULL), 0);
        if (i % 4 == 3) {
            check_views(&w);
        }
    }
    ck_assert_uint_ge(merged, 8);
    ck_assert_uint_lt(each_file(&w, "run-", NULL, NULL), 8);
    world_end(&w);
}
END_TEST

/* ---- threads ----------------------------------------------------------- */

struct thread {
    pthread_t thread;
    const struct world *w;
    struct tt_reader *r;
    const uint8_t *want; /* at seq */
    uint64_t seq, random;
    atomic_bool *stop;
    char wrong[200];
};

static void *read_on(void *opaque)
{
    struct thread *t = opaque;
    uint8_t buf[65536];
    struct tt_view v;
    struct tt_error err;
    char text[32];

    snprintf(text, sizeof(text), "seq:%llu", (ull)t->seq);
    if (tt_reader_bind(t->r, text, NULL, 0, &v, &err) < 0) {
        snprintf(t->wrong, sizeof(t->wrong), "%.150s", err.message);
        return NULL;
    }
    while (!atomic_load(t->stop) && !t->wrong[0]) {
        uint64_t length = 1 + mix(&t->random) % sizeof(buf);
        uint64_t at = mix(&t->random) % (DISK - length);

        if (tt_reader_read(t->r, &v, at, buf, length, &err) < 0) {
            snprintf(t->wrong, sizeof(t->wrong), "%.150s", err.message);
        } else if (memcmp(buf, t->want + at, length)) {
            snprintf(t->wrong, sizeof(t->wrong), "seq:%llu at %llu+%llu",
                     (ull)t->seq, (ull)at, (ull)length);
        }
    }
    return NULL;
}

/* Views are read while the journal grows and the index is damaged. */
START_TEST(threads)
{
    static uint8_t want[4][DISK];
    struct thread t[4];
    struct world w;
    struct tt_reader *r;
    struct tt_error err;
    atomic_bool stop = false;
    off_t from = 4096;

    world_begin(&w, 12, 6);
    r = open_reader(&w);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t seq = w.ops[w.count - 1 - i * w.count / 5].seq;

        t[i] = (struct thread){ .w = &w,
                                .r = r,
                                .want = want[i],
                                .seq = seq,
                                .random = i,
                                .stop = &stop };
        model(&w, seq, want[i]);
        ck_assert_int_eq(pthread_create(&t[i].thread, NULL, read_on, &t[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        record(&w, 1);
        each_file(&w, "run-", i % 2 ? damage : cut, &from);
        ck_assert_msg(tt_reader_follow(r, &err) == 0, "%s", err.message);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(t[i].thread, NULL);
        ck_assert_msg(!t[i].wrong[0], "%s", t[i].wrong);
    }
    check_reader(&w, r);
    tt_reader_close(r);
    world_end(&w);
}
END_TEST

int main(void)
{
    return unit_run("store", (const TTest *const *const[]){
                                 &index_is_made_and_used,
                                 &small_journals_need_none,
                                 &reader_follows,
                                 &follower_keeps_what_is_behind_damage,
                                 &damaged_pages,
                                 &lost_files,
                                 &folder_is_removed_under_a_follower,
                                 &left_overs,
                                 &older_copy,
                                 &foreign_index,
                                 &no_room,
                                 &one_at_a_time,
                                 &runs_are_merged,
                                 &threads,
                                 NULL,
                             });
}
