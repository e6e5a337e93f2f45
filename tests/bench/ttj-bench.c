/*
 * ttj-bench: load on a node graph inside one process, timed
 *
 * scripts/build-qemu compiles it in QEMU's tree, next to qemu-io; tests/bench/bench
 * runs it.  Why not qemu-img bench: it has neither random offsets nor a mix,
 * reuses one hot buffer, times no request, and stops its clock before the
 * disk is level.  Here the clock runs until all nodes are closed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/keyval.h"
#include "qemu/main-loop.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qnum.h"
#include "qom/object_interfaces.h"
#include "block/block.h"
#include "block/qdict.h"
#include "crypto/init.h"
#include "system/block-backend.h"

#include <getopt.h>
#include <math.h>
#include <sys/resource.h>

/* Larger than the caches, so that what is written comes from memory. */
#define ARENA_BYTES (64 * MiB)
#define HUGE_PAGE (2 * MiB)

/* ---- latencies ------------------------------------------------------------ */

/* 128 steps to each power of two: within 0.8 %. */
#define HISTOGRAM_BITS 7
#define HISTOGRAM_SLOTS (64 << HISTOGRAM_BITS)

typedef struct Histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t slots[HISTOGRAM_SLOTS];
} Histogram;

static unsigned histogram_slot(uint64_t ns)
{
    unsigned shift = 0;

    if (ns >> (HISTOGRAM_BITS + 1)) {
        shift = 63 - clz64(ns) - HISTOGRAM_BITS;
    }
    return (shift << HISTOGRAM_BITS) + (unsigned)(ns >> shift);
}

/* The middle of what falls into @slot. */
static double histogram_value(unsigned slot)
{
    unsigned shift = 0;

    if (slot >> (HISTOGRAM_BITS + 1)) {
        shift = (slot >> HISTOGRAM_BITS) - 1;
    }
    return ((double)(slot - (shift << HISTOGRAM_BITS)) + 0.5) *
           (double)(UINT64_C(1) << shift);
}

static void histogram_add(Histogram *h, uint64_t ns)
{
    h->count++;
    h->sum += ns;
    h->max = MAX(h->max, ns);
    h->slots[histogram_slot(ns)]++;
}

static double histogram_quantile(const Histogram *h, double q)
{
    uint64_t rank = (uint64_t)(q * (double)h->count);
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += h->slots[i];
        if (seen > rank) {
            return MIN(histogram_value(i), (double)h->max);
        }
    }
    return (double)h->max;
}

/* ---- random numbers ------------------------------------------------------- */

/* splitmix64: one addition and a good mixer, nothing to seed badly */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Below @n, which is less than 2^32; the bias is of no consequence here. */
static uint64_t random_below(uint64_t *state, uint64_t n)
{
    return ((next_random(state) >> 32) * n) >> 32;
}

/* In [0, 1) */
static double random_unit(uint64_t *state)
{
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

/*
 * Zipf over @n blocks, exactly, by Walker's alias method: slot i stands for
 * block i with probability keep[i], else for block other[i].
 */
typedef struct Zipf {
    double *keep;
    uint32_t *other;
} Zipf;

static void zipf_free(Zipf *z)
{
    g_free(z->keep);
    g_free(z->other);
}

static void zipf_init(Zipf *z, uint32_t n, double theta, uint64_t *random)
{
    g_autofree uint32_t *small = g_new(uint32_t, n);
    g_autofree uint32_t *large = g_new(uint32_t, n);
    uint32_t smalls = 0, larges = 0;
    double sum = 0;

    z->keep = g_new(double, n);
    z->other = g_new(uint32_t, n);
    for (uint32_t i = 0; i < n; i++) {
        z->other[i] = i;
        z->keep[i] = pow(i + 1.0, -theta);
        sum += z->keep[i];
    }
    /* The hot blocks lie anywhere, not side by side. */
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t k = (uint32_t)random_below(random, i + 1);
        double swap = z->keep[i];

        z->keep[i] = z->keep[k];
        z->keep[k] = swap;
    }
    for (uint32_t i = 0; i < n; i++) {
        z->keep[i] *= n / sum;
        if (z->keep[i] < 1) {
            small[smalls++] = i;
        } else {
            large[larges++] = i;
        }
    }
    while (smalls > 0 && larges > 0) {
        uint32_t s = small[--smalls], l = large[larges - 1];

        z->other[s] = l;
        z->keep[l] -= 1 - z->keep[s];
        if (z->keep[l] < 1) {
            larges--;
            small[smalls++] = l;
        }
    }
}

static uint32_t zipf_next(const Zipf *z, uint32_t n, uint64_t *random)
{
    uint32_t i = (uint32_t)random_below(random, n);

    return random_unit(random) < z->keep[i] ? i : z->other[i];
}

/* ---- the load ------------------------------------------------------------- */

typedef enum Pattern { RANDOM, SEQUENTIAL, ZIPF } Pattern;

typedef struct Bench {
    /* what is asked for */
    Pattern pattern;
    double theta;
    uint64_t block_size;
    uint64_t size; /* of the part of the disk that is used */
    unsigned depth;
    unsigned read_percent;
    unsigned flush_every;  /* a worker's writes to a flush of its own, or 0 */
    bool huge_pages;       /* as a guest's memory lies in, if it is lucky */
    uint64_t flush_beside; /* bytes to a flush that no write waits for, or 0 */
    double seconds, settle, idle;
    uint64_t count; /* requests, instead of a time; or 0 */
    uint64_t seed;

    BlockBackend *blk;
    uint64_t random;
    Zipf zipf;
    uint64_t blocks;
    uint64_t next; /* the next block, if sequential */
    uint8_t *arena;
    uint64_t arena_next;

    unsigned running;
    uint64_t issued;
    uint64_t beside; /* bytes written since the last flush_beside */
    bool flushing;
    bool settled;
    int64_t begin; /* of what counts */
    int64_t end;   /* nothing is issued after it */
    int error;

    uint64_t bytes_read, bytes_written;
    Histogram read, write, flush, commit;
} Bench;

static int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static int64_t seconds_to_ns(double seconds)
{
    return (int64_t)(seconds * NANOSECONDS_PER_SECOND);
}

static int64_t bench_offset(Bench *b)
{
    uint64_t block = 0;

    switch (b->pattern) {
    case RANDOM:
        block = random_below(&b->random, b->blocks);
        break;
    case SEQUENTIAL:
        block = b->next++ % b->blocks;
        break;
    case ZIPF:
        block = zipf_next(&b->zipf, (uint32_t)b->blocks, &b->random);
        break;
    }
    return (int64_t)(block * b->block_size);
}

static void *bench_buffer(Bench *b)
{
    void *buffer = b->arena + b->arena_next;

    b->arena_next += b->block_size;
    if (b->arena_next + b->block_size > ARENA_BYTES) {
        b->arena_next = 0;
    }
    return buffer;
}

/* Is there one more request to issue?  The end of settling is noticed here. */
static bool bench_goes_on(Bench *b, int64_t now)
{
    if (b->error) {
        return false;
    }
    if (b->count) {
        return b->issued < b->count;
    }
    if (!b->settled && now >= b->begin) {
        b->settled = true;
        b->begin = now;
        b->end = now + seconds_to_ns(b->seconds);
        b->bytes_read = b->bytes_written = 0;
        memset(&b->read, 0, sizeof(b->read));
        memset(&b->write, 0, sizeof(b->write));
        memset(&b->flush, 0, sizeof(b->flush));
        memset(&b->commit, 0, sizeof(b->commit));
    }
    return !b->settled || now < b->end;
}

/* What was issued while settling is not timed, and neither is what is late. */
static void bench_timed(Bench *b, Histogram *h, int64_t from, int64_t to)
{
    if (from >= b->begin) {
        histogram_add(h, (uint64_t)(to - from));
    }
}

static void coroutine_fn bench_flush_beside(void *opaque)
{
    Bench *b = opaque;
    int ret = blk_co_flush(b->blk);

    if (ret < 0 && !b->error) {
        b->error = ret;
    }
    b->flushing = false;
    b->running--;
}

static void coroutine_fn bench_written(Bench *b)
{
    b->bytes_written += b->block_size;
    b->beside += b->block_size;
    if (b->flush_beside && b->beside >= b->flush_beside && !b->flushing) {
        b->beside = 0;
        b->flushing = true;
        b->running++;
        qemu_coroutine_enter(qemu_coroutine_create(bench_flush_beside, b));
    }
}

static int coroutine_fn bench_write(Bench *b, unsigned *unflushed)
{
    int64_t from = now_ns(), written;
    int ret = blk_co_pwrite(b->blk, bench_offset(b), (int64_t)b->block_size,
                            bench_buffer(b), 0);

    if (ret < 0) {
        return ret;
    }
    written = now_ns();
    bench_written(b);
    bench_timed(b, &b->write, from, written);
    if (b->flush_every && ++*unflushed >= b->flush_every) {
        *unflushed = 0;
        ret = blk_co_flush(b->blk);
        if (ret < 0) {
            return ret;
        }
        bench_timed(b, &b->flush, written, now_ns());
        bench_timed(b, &b->commit, from, now_ns());
    }
    return 0;
}

static int coroutine_fn bench_read(Bench *b)
{
    int64_t from = now_ns();
    int ret = blk_co_pread(b->blk, bench_offset(b), (int64_t)b->block_size,
                           bench_buffer(b), 0);

    if (ret < 0) {
        return ret;
    }
    b->bytes_read += b->block_size;
    bench_timed(b, &b->read, from, now_ns());
    return 0;
}

static void coroutine_fn bench_worker(void *opaque)
{
    Bench *b = opaque;
    unsigned unflushed = 0;
    int ret;

    while (bench_goes_on(b, now_ns())) {
        b->issued++;
        if (b->read_percent > random_below(&b->random, 100)) {
            ret = bench_read(b);
        } else {
            ret = bench_write(b, &unflushed);
        }
        if (ret < 0 && !b->error) {
            b->error = ret;
        }
    }
    b->running--;
}

static void coroutine_fn bench_sleep(void *opaque)
{
    Bench *b = opaque;

    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, seconds_to_ns(b->idle));
    b->running--;
}

/* The drivers may do what they do while there is no load. */
static void bench_idle(Bench *b)
{
    if (b->idle > 0) {
        b->running++;
        qemu_coroutine_enter(qemu_coroutine_create(bench_sleep, b));
    }
    while (b->running > 0) {
        main_loop_wait(false);
    }
}

static void bench_load(Bench *b)
{
    b->begin = now_ns() + seconds_to_ns(b->settle);
    if (b->count) {
        b->begin = now_ns();
    }
    for (unsigned i = 0; i < b->depth; i++) {
        b->running++;
        qemu_coroutine_enter(qemu_coroutine_create(bench_worker, b));
    }
    while (b->running > 0) {
        main_loop_wait(false);
    }
}

/* ---- what it costs -------------------------------------------------------- */

/* The number after @name in one of /proc/self's files. */
static int64_t proc_number(const char *file, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/self/%s", file);
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    const char *at;

    if (!g_file_get_contents(path, &text, NULL, &error)) {
        error_report("%s", error->message);
        exit(1);
    }
    at = strstr(text, name);
    if (!at) {
        error_report("%s: no %s", path, name);
        exit(1);
    }
    return g_ascii_strtoll(at + strlen(name), NULL, 10);
}

/* From here on VmHWM is the peak of what follows. */
static void reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");

    if (!f || fputs("5", f) < 0 || fclose(f) != 0) {
        error_report("/proc/self/clear_refs: %s", strerror(errno));
        exit(1);
    }
}

static double cpu_seconds(void)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
           (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static void put_double(QDict *d, const char *name, double value)
{
    qdict_put(d, name, qnum_from_double(value));
}

static void put_histogram(QDict *parent, const char *name, const Histogram *h)
{
    QDict *d = qdict_new();

    qdict_put_int(d, "count", (int64_t)h->count);
    if (h->count) {
        put_double(d, "mean", (double)h->sum / (double)h->count / 1e9);
        put_double(d, "p50", histogram_quantile(h, 0.5) / 1e9);
        put_double(d, "p99", histogram_quantile(h, 0.99) / 1e9);
        put_double(d, "p99.9", histogram_quantile(h, 0.999) / 1e9);
        put_double(d, "max", (double)h->max / 1e9);
    }
    qdict_put(parent, name, d);
}

/* ---- the node graph ------------------------------------------------------- */

static BlockDriverState *open_node(const char *options)
{
    Error *err = NULL;
    BlockDriverState *bs;
    QDict *d = keyval_parse(options, "driver", NULL, &err);

    if (d) {
        qdict_flatten(d);
        /* -blockdev's defaults, which bdrv_open() does not know */
        qdict_set_default_str(d, BDRV_OPT_CACHE_DIRECT, "off");
        qdict_set_default_str(d, BDRV_OPT_CACHE_NO_FLUSH, "off");
        qdict_set_default_str(d, BDRV_OPT_READ_ONLY, "off");
        bs = bdrv_open(NULL, NULL, d, 0, &err);
        if (bs) {
            return bs;
        }
    }
    error_reportf_err(err, "%s: ", options);
    exit(1);
}

static BlockBackend *open_backend(const char *node)
{
    Error *err = NULL;
    BlockDriverState *bs = bdrv_lookup_bs(NULL, node, &err);
    BlockBackend *blk;

    if (bs) {
        blk = blk_new(qemu_get_aio_context(),
                      BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
        if (blk_insert_bs(blk, bs, &err) == 0) {
            return blk;
        }
    }
    error_reportf_err(err, "%s: ", node);
    exit(1);
}

/* ---- the command line ----------------------------------------------------- */

static void usage(void)
{
    printf(
        "Usage: ttj-bench [OPTION...] --blockdev NODE... --node NAME\n"
        "\n"
        "Loads the node NAME, and prints what it measured as JSON: times in\n"
        "seconds, from the first request until every node is closed.\n"
        "\n"
        "  --object OBJECT         as for qemu-storage-daemon; repeatable\n"
        "  --blockdev NODE         likewise\n"
        "  --node NAME             the node to load\n"
        "  --pattern PATTERN       random (default), sequential or zipf:THETA\n"
        "  --block-size BYTES      of a request (4k)\n"
        "  --size BYTES            use only the disk's beginning\n"
        "  --depth N               requests in flight (1)\n"
        "  --read PERCENT          how many of them read (0)\n"
        "  --flush-every N         each of the N in flight flushes after so\n"
        "                          many writes of its own (0: never)\n"
        "  --flush-beside BYTES    flush after so much was written, while the\n"
        "                          writes go on (0: never)\n"
        "  --huge-pages            write from memory in huge pages\n"
        "  --seconds S             how long (1)\n"
        "  --settle S              run so long before anything counts (0)\n"
        "  --idle S                before that, do nothing for so long (0);\n"
        "                          bytes written to devices count already\n"
        "  --count N               so many requests, instead of a time\n"
        "  --seed N                of the random numbers (1)\n");
}

static void G_NORETURN G_GNUC_PRINTF(1, 2) bad_usage(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    error_vreport(format, ap);
    va_end(ap);
    exit(1);
}

static uint64_t parse_number(const char *name, const char *text, uint64_t max)
{
    uint64_t value;

    if (qemu_strtosz(text, NULL, &value) < 0 || value > max) {
        bad_usage("--%s: '%s' is not a number up to %" PRIu64, name, text, max);
    }
    return value;
}

static double parse_seconds(const char *name, const char *text)
{
    double value;

    if (qemu_strtod_finite(text, NULL, &value) < 0 || value < 0 ||
        value > 1e6) {
        bad_usage("--%s: '%s' is not a time in seconds", name, text);
    }
    return value;
}

static void parse_pattern(Bench *b, const char *text)
{
    const char *theta;

    if (!strcmp(text, "random")) {
        b->pattern = RANDOM;
    } else if (!strcmp(text, "sequential")) {
        b->pattern = SEQUENTIAL;
    } else if (strstart(text, "zipf:", &theta) &&
               qemu_strtod_finite(theta, NULL, &b->theta) == 0 &&
               b->theta > 0) {
        b->pattern = ZIPF;
    } else {
        bad_usage("--pattern: '%s' is none", text);
    }
}

typedef struct Setup {
    GPtrArray *nodes; /* of char *, in the order given */
    const char *node;
} Setup;

static void parse_options(Bench *b, Setup *setup, int argc, char **argv)
{
    enum {
        OPT_OBJECT = 256,
        OPT_BLOCKDEV,
        OPT_NODE,
        OPT_PATTERN,
        OPT_BLOCK_SIZE,
        OPT_SIZE,
        OPT_DEPTH,
        OPT_READ,
        OPT_FLUSH_EVERY,
        OPT_FLUSH_BESIDE,
        OPT_HUGE_PAGES,
        OPT_SECONDS,
        OPT_SETTLE,
        OPT_IDLE,
        OPT_COUNT,
        OPT_SEED,
        OPT_HELP
    };
    static const struct option options[] = {
        { "object", required_argument, NULL, OPT_OBJECT },
        { "blockdev", required_argument, NULL, OPT_BLOCKDEV },
        { "node", required_argument, NULL, OPT_NODE },
        { "pattern", required_argument, NULL, OPT_PATTERN },
        { "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
        { "size", required_argument, NULL, OPT_SIZE },
        { "depth", required_argument, NULL, OPT_DEPTH },
        { "read", required_argument, NULL, OPT_READ },
        { "flush-every", required_argument, NULL, OPT_FLUSH_EVERY },
        { "flush-beside", required_argument, NULL, OPT_FLUSH_BESIDE },
        { "huge-pages", no_argument, NULL, OPT_HUGE_PAGES },
        { "seconds", required_argument, NULL, OPT_SECONDS },
        { "settle", required_argument, NULL, OPT_SETTLE },
        { "idle", required_argument, NULL, OPT_IDLE },
        { "count", required_argument, NULL, OPT_COUNT },
        { "seed", required_argument, NULL, OPT_SEED },
        { "help", no_argument, NULL, OPT_HELP },
        { NULL, 0, NULL, 0 },
    };
    int option, index;

    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        const char *name = option == '?' ? NULL : options[index].name;

        switch (option) {
        case OPT_OBJECT:
            user_creatable_process_cmdline(optarg);
            break;
        case OPT_BLOCKDEV:
            g_ptr_array_add(setup->nodes, optarg);
            break;
        case OPT_NODE:
            setup->node = optarg;
            break;
        case OPT_PATTERN:
            parse_pattern(b, optarg);
            break;
        case OPT_BLOCK_SIZE:
            b->block_size = parse_number(name, optarg, ARENA_BYTES);
            break;
        case OPT_SIZE:
            b->size = parse_number(name, optarg, INT64_MAX);
            break;
        case OPT_DEPTH:
            b->depth = (unsigned)parse_number(name, optarg, 1024);
            break;
        case OPT_READ:
            b->read_percent = (unsigned)parse_number(name, optarg, 100);
            break;
        case OPT_FLUSH_EVERY:
            b->flush_every = (unsigned)parse_number(name, optarg, INT_MAX);
            break;
        case OPT_FLUSH_BESIDE:
            b->flush_beside = parse_number(name, optarg, INT64_MAX);
            break;
        case OPT_HUGE_PAGES:
            b->huge_pages = true;
            break;
        case OPT_SECONDS:
            b->seconds = parse_seconds(name, optarg);
            break;
        case OPT_SETTLE:
            b->settle = parse_seconds(name, optarg);
            break;
        case OPT_IDLE:
            b->idle = parse_seconds(name, optarg);
            break;
        case OPT_COUNT:
            b->count = parse_number(name, optarg, INT64_MAX);
            break;
        case OPT_SEED:
            b->seed = parse_number(name, optarg, INT64_MAX);
            break;
        case OPT_HELP:
            usage();
            exit(0);
        default:
            bad_usage("see ttj-bench --help");
        }
    }
    if (optind < argc) {
        bad_usage("unexpected argument '%s'", argv[optind]);
    }
    if (!setup->node || !setup->nodes->len) {
        bad_usage("give --blockdev and --node");
    }
    if (!b->depth || b->block_size < BDRV_SECTOR_SIZE) {
        bad_usage("--depth and --block-size: less than there can be");
    }
}

static void bench_prepare(Bench *b)
{
    int64_t length = blk_getlength(b->blk);

    if (length < 0) {
        bad_usage("the disk's size: %s", strerror((int)-length));
    }
    if (!b->size) {
        b->size = (uint64_t)length;
    }
    b->blocks = b->size / b->block_size;
    if (b->size > (uint64_t)length || !b->blocks || b->blocks > UINT32_MAX) {
        bad_usage("%" PRIu64 " bytes in blocks of %" PRIu64
                  ": not on a disk of %" PRId64,
                  b->size, b->block_size, length);
    }
    b->random = b->seed;
    if (b->pattern == ZIPF) {
        zipf_init(&b->zipf, (uint32_t)b->blocks, b->theta, &b->random);
    }
    /* Aligned for any node, and so that huge pages fit. */
    b->arena = qemu_memalign(HUGE_PAGE, ARENA_BYTES);
    if (b->huge_pages) {
        qemu_madvise(b->arena, ARENA_BYTES, QEMU_MADV_HUGEPAGE);
    }
    /* What does not compress, and no page of it the same. */
    for (uint64_t i = 0; i < ARENA_BYTES; i += sizeof(uint64_t)) {
        stq_he_p(b->arena + i, next_random(&b->random));
    }
}

int main(int argc, char **argv)
{
    g_autofree Bench *b = g_new0(Bench, 1);
    Setup setup = { .nodes = g_ptr_array_new() };
    g_autoptr(GPtrArray) opened = g_ptr_array_new();
    g_autoptr(QDict) result = qdict_new();
    g_autoptr(GString) json = NULL;
    int64_t begin, loaded, read_bytes, write_bytes;
    double cpu;
    int ret;

    b->block_size = 4 * KiB;
    b->depth = 1;
    b->seconds = 1;
    b->seed = 1;

    error_init(argv[0]);
    qemu_init_exec_dir(argv[0]);
    qcrypto_init(&error_fatal);
    module_call_init(MODULE_INIT_QOM);
    bdrv_init();
    qemu_init_main_loop(&error_fatal);

    parse_options(b, &setup, argc, argv);
    for (guint i = 0; i < setup.nodes->len; i++) {
        g_ptr_array_add(opened, open_node(setup.nodes->pdata[i]));
    }
    b->blk = open_backend(setup.node);
    bench_prepare(b);

    reset_peak();
    read_bytes = proc_number("io", "\nread_bytes: ");
    write_bytes = proc_number("io", "\nwrite_bytes: ");
    bench_idle(b);
    cpu = cpu_seconds();
    begin = now_ns();
    bench_load(b);
    loaded = now_ns();
    ret = blk_flush(b->blk);
    if (b->error || ret < 0) {
        error_report("%s: %s", b->error ? "a request failed" : "flush",
                     strerror(-(b->error ? b->error : ret)));
        exit(1);
    }
    blk_unref(b->blk);
    for (guint i = opened->len; i-- > 0;) {
        bdrv_unref(opened->pdata[i]);
    }

    if (b->settle > 0 && !b->count) {
        begin = b->begin;
    }
    put_double(result, "seconds", (double)(now_ns() - begin) / 1e9);
    put_double(result, "load_seconds", (double)(loaded - begin) / 1e9);
    put_double(result, "cpu_seconds", cpu_seconds() - cpu);
    qdict_put_int(result, "bytes_read", (int64_t)b->bytes_read);
    qdict_put_int(result, "bytes_written", (int64_t)b->bytes_written);
    qdict_put_int(result, "device_bytes_read",
                  proc_number("io", "\nread_bytes: ") - read_bytes);
    qdict_put_int(result, "device_bytes_written",
                  proc_number("io", "\nwrite_bytes: ") - write_bytes);
    qdict_put_int(result, "peak_bytes",
                  proc_number("status", "\nVmHWM:") * 1024 -
                      (int64_t)ARENA_BYTES);
    put_histogram(result, "read", &b->read);
    put_histogram(result, "write", &b->write);
    put_histogram(result, "flush", &b->flush);
    put_histogram(result, "commit", &b->commit);
    json = qobject_to_json(QOBJECT(result));
    puts(json->str);

    zipf_free(&b->zipf);
    qemu_vfree(b->arena);
    g_ptr_array_free(setup.nodes, true);
    return 0;
}
