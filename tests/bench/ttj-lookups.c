/*
 * What does it cost to build an index, to open a history, and to look into it?
 *
 *     ttj-lookups [--build] [--index DIR] JOURNAL
 *
 * Prints one line of JSON; tests/bench/views makes tables of it.  Times are in
 * microseconds.  An open is what a server does for its first view: find the
 * index ("store"), load what it does not cover ("tail"), and find the record
 * that was the last at a random time ("time"); the look-up behind it is the
 * first one, with no page of the library's in memory.  Cold means that the
 * system's page cache has none of the journal and the index either.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "posix/store.h"

#define PIECES 512 /* of one look-up */

static struct {
    const char *journal, *index;
    gboolean build;
    int lookups, opens, length, seed;
    gint64 hottest;
} options = { .lookups = 200000, .opens = 25, .length = TT_GRID, .seed = 1 };

/* An opened journal. */
struct opened {
    struct tt_file *file;
    struct tt_super super;
    struct tt_store *store;
    struct tt_index_set *set;
    struct tt_history *history;
    uint64_t last_seq, disk_size;
};

/* How long the steps of an open took, in microseconds. */
enum step { STORE, TAIL, TIME, LOOKUP, STEPS };
static const char *const step_names[STEPS] = { "store", "tail", "time",
                                               "lookup" };

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("ttj-lookups: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static void check(int r, const struct tt_error *err)
{
    if (r < 0) {
        die("%s", err->message);
    }
}

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- figures ------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts @v and prints its median, 99th percentile, largest and mean. */
static void print_times(const char *name, double *v, size_t n)
{
    double sum = 0;

    qsort(v, n, sizeof(*v), compare_doubles);
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
    }
    printf(", \"%s\": {\"median\": %.3f, \"p99\": %.3f, \"max\": %.3f, "
           "\"mean\": %.3f}",
           name, v[n / 2], v[n * 99 / 100], v[n - 1], sum / (double)n);
}

/* ---- opening ------------------------------------------------------------- */

static void open_store(struct opened *o)
{
    struct tt_error err;
    unsigned damaged;

    check(tt_file_open(options.journal, &o->file, &err), &err);
    check(tt_super_read(&o->file->source, &o->super, &damaged, &err), &err);
    check(tt_store_open(o->file, &o->super, options.index, &o->store, &err),
          &err);
}

static void open_history(struct opened *o)
{
    struct tt_error err;
    struct tt_run *const *runs;
    size_t count;

    o->history = tt_history_new();
    if (!o->history) {
        die("out of memory");
    }
    runs = tt_index_set_runs(o->set, &count);
    check(tt_history_open(o->history, &o->file->source,
                          tt_index_set_catalog(o->set), runs, count, &err),
          &err);
    o->last_seq = tt_history_end(o->history)->last_seq;
    o->disk_size = tt_history_disk_size(o->history, o->last_seq);
}

static void close_all(struct opened *o)
{
    tt_history_free(o->history);
    tt_index_set_put(o->set);
    tt_store_close(o->store);
    tt_file_close(o->file);
}

static void find_random_time(struct opened *o, GRand *random)
{
    size_t count;
    const struct tt_epoch *e = tt_history_epochs(o->history, &count);
    int64_t from, to, t;
    struct tt_moment m;
    struct tt_error err;
    char text[64];

    /* the newest epoch, but for what an earlier one may have shown, too */
    e += count - 1;
    from = e->first_time + (e->last_time - e->first_time) / 4;
    to = e->last_time;
    t = from + (int64_t)(g_rand_double(random) * (double)(to - from));
    snprintf(text, sizeof(text), "@%" G_GINT64_FORMAT ".%09" G_GINT64_FORMAT,
             t / 1000000000, t % 1000000000);
    check(tt_moment_resolve(o->history, text, NULL, 0, &m, &err), &err);
}

/* How many pieces answer it */
static uint64_t look_up(struct opened *o, uint64_t seq, uint64_t offset)
{
    struct tt_piece pieces[PIECES];
    struct tt_error err;
    size_t count;

    check(tt_view_pieces(o->history, seq, offset, (uint64_t)options.length,
                         pieces, PIECES, &count, &err),
          &err);
    return count;
}

static uint64_t random_below(GRand *random, uint64_t n)
{
    return ((uint64_t)g_rand_int(random) << 32 | g_rand_int(random)) % n;
}

static uint64_t random_offset(const struct opened *o, GRand *random)
{
    uint64_t blocks = (o->disk_size - (uint64_t)options.length) / TT_GRID + 1;

    return random_below(random, blocks) * TT_GRID;
}

/* One open with all its steps. */
static void open_once(GRand *random, double took[static STEPS])
{
    struct opened o = { 0 };
    double t[STEPS + 1];

    t[0] = now_us();
    open_store(&o);
    o.set = tt_store_get(o.store);
    if (!o.set) {
        die("%s: there is no index: use --build", options.journal);
    }
    t[1] = now_us();
    open_history(&o);
    t[2] = now_us();
    find_random_time(&o, random);
    t[3] = now_us();
    look_up(&o, 1 + random_below(random, o.last_seq),
            random_offset(&o, random));
    t[4] = now_us();
    for (int i = 0; i < STEPS; i++) {
        took[i] = t[i + 1] - t[i];
    }
    close_all(&o);
}

/* ---- the page cache ------------------------------------------------------ */

static void evict(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;

    if (fd < 0) {
        die("%s: %s", path, strerror(errno));
    }
    if (fdatasync(fd) < 0) {
        die("%s: cannot be flushed: %s", path, strerror(errno));
    }
    r = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (r) {
        die("%s: cannot be dropped from the page cache: %s", path, strerror(r));
    }
    close(fd);
}

static void evict_all(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    struct stat st;

    if (!d) {
        die("%s: %s", folder, strerror(errno));
    }
    evict(options.journal);
    while ((e = readdir(d))) {
        g_autofree char *path = g_build_filename(folder, e->d_name, NULL);

        if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            evict(path);
        }
    }
    closedir(d);
}

static void time_opens(GRand *random, const char *folder, const char *suffix)
{
    g_autofree double *took = g_new(double, (size_t)options.opens *STEPS);
    g_autofree double *one = g_new(double, (size_t)options.opens);
    double sums[STEPS];

    /* the same times twice: what the first round reads is warm in the second */
    for (int round = folder ? 1 : 0; round < 2; round++) {
        g_rand_set_seed(random, (guint32)options.seed);
        for (int i = 0; i < options.opens; i++) {
            if (folder) {
                evict_all(folder);
            }
            open_once(random, took + i * STEPS);
        }
    }
    for (int s = 0; s < STEPS; s++) {
        g_autofree char *name = g_strdup_printf("%s_%s", step_names[s], suffix);

        for (int i = 0; i < options.opens; i++) {
            one[i] = took[i * STEPS + s];
        }
        print_times(name, one, (size_t)options.opens);
        sums[s] = one[options.opens / 2];
    }
    printf(", \"open_%s\": %.3f", suffix, sums[STORE] + sums[TIME]);
}

/* ---- look-ups ------------------------------------------------------------ */

enum what { AT_RANDOM, AT_LATEST, ON_HOTTEST };

static void time_lookups(struct opened *o, GRand *random, enum what what,
                         const char *name)
{
    size_t n = (size_t)options.lookups;
    g_autofree double *took = g_new(double, n);
    uint64_t pieces = 0;

    for (unsigned warm = 0; warm < 2; warm++) {
        pieces = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t offset = what == ON_HOTTEST ? (uint64_t)options.hottest
                                                 : random_offset(o, random);
            uint64_t seq = what == AT_LATEST
                               ? o->last_seq
                               : 1 + random_below(random, o->last_seq);
            double began = now_us();

            pieces += look_up(o, seq, offset);
            took[i] = now_us() - began;
        }
    }
    print_times(name, took, n);
    printf(", \"%s_pieces\": %.3f", name, (double)pieces / (double)n);
}

/* ---- building ------------------------------------------------------------ */

static double cpu_seconds(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void build(struct opened *o)
{
    struct tt_store_work work = { .wait = true, .named = true };
    struct rusage before, after;
    struct tt_error err;
    double began = now_us(), seconds, cpu;

    getrusage(RUSAGE_SELF, &before);
    check(tt_store_extend(o->store, &work, &err), &err);
    getrusage(RUSAGE_SELF, &after);
    seconds = (now_us() - began) / 1e6;
    /* what was too short to be counted is not nothing */
    cpu = MAX(cpu_seconds(&after) - cpu_seconds(&before), 1e-6);
    printf(", \"built_versions\": %" G_GUINT64_FORMAT
           ", \"built_entries\": %" G_GUINT64_FORMAT
           ", \"build_seconds\": %.6f, \"build_cpu_seconds\": %.6f"
           ", \"build_peak_bytes\": %ld, \"runs_written\": %u"
           ", \"runs_merged\": %u",
           work.stats.versions, work.stats.entries, seconds, cpu,
           after.ru_maxrss * 1024, work.runs_written, work.runs_merged);
}

/* ---- the command line ---------------------------------------------------- */

static void parse_arguments(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        { "build", 0, 0, G_OPTION_ARG_NONE, &options.build,
          "bring the index up to date first", NULL },
        { "index", 0, 0, G_OPTION_ARG_FILENAME, &options.index,
          "where it lies (beside the journal)", "DIR" },
        { "lookups", 0, 0, G_OPTION_ARG_INT, &options.lookups,
          "of each kind (200000)", "N" },
        { "opens", 0, 0, G_OPTION_ARG_INT, &options.opens,
          "warm, and as many cold (25)", "N" },
        { "length", 0, 0, G_OPTION_ARG_INT, &options.length,
          "of what is looked up (4096)", "BYTES" },
        { "hottest", 0, 0, G_OPTION_ARG_INT64, &options.hottest,
          "where the block lies that has most versions (0)", "OFFSET" },
        { "seed", 0, 0, G_OPTION_ARG_INT, &options.seed, "(1)", "N" },
        { NULL, 0, 0, 0, NULL, NULL, NULL },
    };
    GOptionContext *context =
        g_option_context_new("JOURNAL - what look-ups cost");
    GError *error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        die("%s", error->message);
    }
    g_option_context_free(context);
    if (argc != 2 || options.lookups < 1 || options.opens < 1 ||
        options.length < 1 || options.length > (int)TT_PAYLOAD_RECORD_MAX ||
        options.hottest < 0) {
        die("name one journal, and numbers in their range; see --help");
    }
    options.journal = argv[1];
}

int main(int argc, char **argv)
{
    GRand *random;
    struct opened o = { 0 };
    g_autofree char *folder = NULL;
    size_t runs;

    parse_arguments(argc, argv);
    random = g_rand_new_with_seed((guint32)options.seed);
    printf("{\"seed\": %d", options.seed);
    open_store(&o);
    if (options.build) {
        build(&o);
    }
    o.set = tt_store_get(o.store);
    folder = tt_store_where(o.store);
    if (!o.set || !folder) {
        die("%s: there is no index: use --build", options.journal);
    }
    open_history(&o);
    tt_index_set_runs(o.set, &runs);
    printf(", \"index_bytes\": %" G_GUINT64_FORMAT ", \"runs\": %zu"
           ", \"history_bytes\": %zu, \"tail_records\": %" G_GUINT64_FORMAT,
           tt_index_set_bytes(o.set), runs, tt_history_memory(o.history),
           o.last_seq - tt_catalog_last_seq(tt_index_set_catalog(o.set)));
    time_lookups(&o, random, AT_RANDOM, "random");
    time_lookups(&o, random, AT_LATEST, "latest");
    time_lookups(&o, random, ON_HOTTEST, "hottest");
    close_all(&o);
    time_opens(random, NULL, "warm");
    time_opens(random, folder, "cold");
    printf("}\n");
    g_rand_free(random);
    return 0;
}
