/*
 * A journal with a long history, in a moment and on a small disk
 *
 *     ttj-generate --versions 64M --disk 100G --skew 1.1 big.ttj
 *
 * writes what a recorder would have written over a year: sessions, writes,
 * zeroes and pre-images, flushes, checkpoints with their maps, footers, marks
 * and steps of the clock, through the library's own writer.  What is written
 * to the disk is zeroes unless --payload random says otherwise, and lies in
 * holes of the file: their checksums are those of zeroes, so the journal is
 * as valid as any other, and takes about a hundred bytes a version.
 *
 * The same options give the same journal, byte by byte.  What was made is told
 * on stdout, as JSON.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ttj-shape.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define BILLION INT64_C(1000000000)
#define BEGIN (INT64_C(1735689600) * BILLION) /* 2025-01-01 */
#define FRAME_NS 1000                         /* an append takes */
#define CHECKPOINT_EVERY (64 * MIB)           /* of journal */
#define FLUSH_EVERY 8                         /* frames */
#define CAPTURES_MAX 512                      /* in one frame */

struct generator {
    struct shape shape;
    int fd, image;
    struct tt_super super;
    struct tt_writer writer;
    struct tt_batch *batch;
    struct tt_now now;
    uint64_t step; /* ns between frames of versions */
    GRand *random;
    uint8_t *payload; /* of the frame that is forming */
    size_t payload_used;
    struct tt_range captures[CAPTURES_MAX]; /* what it touches first */
    unsigned capture_count;
    struct tt_blocks *captured, *unmapped;
    uint64_t map_prev, map_links, map_ranges, whole_ranges;
    uint64_t checkpoint_at;
    uint64_t blocks, stride; /* of the disk; scatters the hot ones */
    double zipf_end;         /* integral of the density over all ranks */
    uint64_t made, writes, zeroes, preimages, frames, bytes;
    uint64_t sequential_at;
    uint64_t first_version_seq;
    int64_t first_time;
};

/* ---- chance -------------------------------------------------------------- */

static uint64_t random64(struct generator *g)
{
    uint64_t high = g_rand_int(g->random);

    return high << 32 | g_rand_int(g->random);
}

static uint64_t random_below(struct generator *g, uint64_t n)
{
    return random64(g) % n;
}

/*
 * A rank in [0, blocks) whose density falls as 1 / (rank + 1)^skew, by
 * inversion of its integral.
 */
static uint64_t random_rank(struct generator *g)
{
    double s = 1 - g->shape.skew, u = g_rand_double(g->random) * g->zipf_end;
    double x = fabs(s) < 1e-9 ? exp(u) : pow(1 + u * s, 1 / s);

    return x < 1 ? 0 : MIN((uint64_t)(x - 1), g->blocks - 1);
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    return b ? greatest_common_divisor(b, a % b) : a;
}

static void prepare_ranks(struct generator *g)
{
    double s = 1 - g->shape.skew, n = (double)g->blocks + 1;

    g->zipf_end = fabs(s) < 1e-9 ? log(n) : (pow(n, s) - 1) / s;
    /* coprime: the ranks are a permutation of the blocks */
    g->stride = (uint64_t)((double)g->blocks * 0.6180339887) | 1;
    while (greatest_common_divisor(g->stride, g->blocks) != 1) {
        g->stride += 2;
    }
}

static uint64_t block_of_rank(const struct generator *g, uint64_t rank)
{
    return (uint64_t)((unsigned __int128)rank * g->stride % g->blocks) *
           TT_GRID;
}

/* About what guests do: mostly 4 KiB, now and then much more or less. */
static uint64_t random_length(struct generator *g)
{
    unsigned chance = (unsigned)random_below(g, 1000);

    if (g->shape.length) {
        return g->shape.length;
    }
    if (chance < 600) {
        return TT_GRID;
    }
    if (chance < 680) {
        return TT_SECTOR * (1 + random_below(g, 7));
    }
    if (chance < 930) {
        return 2 * TT_GRID * (1 + random_below(g, 4));
    }
    if (chance < 990) {
        return 64 * KIB * (1 + random_below(g, 2));
    }
    return TT_SECTOR * (1 + random_below(g, MIB / TT_SECTOR));
}

static void random_op(struct generator *g, struct tt_request *ret)
{
    uint64_t length = random_length(g), at;

    if (g->shape.in_order) {
        at = g->sequential_at;
        at = at + length > g->shape.disk_size ? 0 : at;
        g->sequential_at = at + length;
    } else {
        at = block_of_rank(g, random_rank(g));
        if (length % TT_GRID) {
            at += TT_SECTOR * random_below(g, TT_GRID / TT_SECTOR);
        }
        at = MIN(at, g->shape.disk_size - length);
    }
    *ret = (struct tt_request){
        .kind = !g->shape.length && random_below(g, 50) == 0 ? TT_KIND_ZERO
                                                             : TT_KIND_WRITE,
        .disk_offset = at,
        .disk_length = length,
    };
    if (ret->kind == TT_KIND_ZERO) {
        ret->flags = TT_RECORD_UNMAP;
    } else {
        ret->payload_length = (uint32_t)length;
    }
}

/* splitmix64: nothing in it can be compressed, or is twice the same. */
static void fill(uint8_t *buf, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i += sizeof(uint64_t)) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        memcpy(buf + i, &z, sizeof(z));
    }
}

/* ---- files --------------------------------------------------------------- */

static void put(int fd, const char *path, const void *buf, size_t length,
                uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = pwrite(fd, (const uint8_t *)buf + done, length - done,
                           (off_t)(offset + done));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            ttj_die("%s: writing at %" G_GUINT64_FORMAT " failed: %s", path,
                    offset + done, strerror(n ? errno : ENOSPC));
        }
        done += (size_t)n;
    }
}

static int create(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0) {
        ttj_die("%s: cannot be created: %s", path, strerror(errno));
    }
    return fd;
}

static void set_size(int fd, const char *path, uint64_t size)
{
    if (ftruncate(fd, (off_t)size) < 0) {
        ttj_die("%s: cannot be made %" G_GUINT64_FORMAT " bytes long: %s", path,
                size, strerror(errno));
    }
}

/* ---- frames -------------------------------------------------------------- */

static bool is_version_of_guest(uint16_t kind)
{
    return kind == TT_KIND_WRITE || kind == TT_KIND_ZERO;
}

/* The image's bytes, as they are after @r; it began as a hole. */
static void write_image(struct generator *g, const struct tt_request *r)
{
    static const uint8_t zeroes[TT_PAYLOAD_RECORD_MAX];

    if (g->image >= 0 && g->shape.random_payload &&
        is_version_of_guest(r->kind)) {
        put(g->image, g->shape.image, r->payload ? r->payload : zeroes,
            r->disk_length, r->disk_offset);
    }
}

static void pass_time(struct generator *g, uint64_t ns)
{
    g->now.realtime += (int64_t)ns;
    g->now.boottime += ns;
}

/* What is in the batch becomes the next frame, and is durable at once. */
static void write_frame(struct generator *g, struct tt_append *ret)
{
    uint64_t at;

    tt_writer_plan(&g->writer, g->batch, g->now, ret);
    put(g->fd, g->shape.journal, ret->head, ret->head_length, ret->offset);
    at = ret->offset + ret->head_length;
    for (unsigned i = 0; i < ret->request_count; i++) {
        const struct tt_request *r = &ret->requests[i];
        bool stored = r->payload_length && !(r->flags & TT_RECORD_INLINE);

        if (stored &&
            (g->shape.random_payload || !is_version_of_guest(r->kind))) {
            put(g->fd, g->shape.journal, r->payload, r->payload_length, at);
        }
        at += stored ? r->payload_length : 0;
        write_image(g, r);
    }
    if (!tt_writer_commit(&g->writer, g->batch)) {
        ttj_die("out of memory");
    }
    tt_writer_flushed(&g->writer, ret->last_seq);
    pass_time(g, FRAME_NS);
    g->frames++;
}

/* A record in a frame of its own */
static void append_alone(struct generator *g, uint16_t kind, const void *body,
                         uint32_t length, bool more, struct tt_append *ret)
{
    struct tt_request req = {
        .kind = kind,
        .flags = (uint16_t)((more ? TT_RECORD_MORE : 0) |
                            (length <= TT_INLINE_MAX ? TT_RECORD_INLINE : 0)),
        .payload = body,
        .payload_length = length,
    };

    tt_batch_reset(g->batch, &g->writer);
    if (!tt_batch_add(g->batch, &req)) {
        ttj_die("a record of %u bytes does not fit a frame", length);
    }
    write_frame(g, ret);
}

static void append_footer(struct generator *g)
{
    struct tt_append ap;
    uint32_t length;
    bool last = false;

    for (uint32_t part = 0; !last; part++) {
        uint8_t *body = tt_footer_part(g->writer.ended, part, &length, &last);

        if (!body) {
            break;
        }
        append_alone(g, TT_KIND_FOOTER, body, length, !last, &ap);
        free(body);
    }
    tt_writer_footer_done(&g->writer);
}

static void commit(struct generator *g)
{
    struct tt_append ap;

    write_frame(g, &ap);
    if (g->writer.ended) {
        append_footer(g);
    }
}

static void append_body(struct generator *g, uint16_t kind, const void *body,
                        uint32_t length, bool more, struct tt_append *ret)
{
    append_alone(g, kind, body, length, more, ret);
    if (g->writer.ended) {
        append_footer(g);
    }
}

/* ---- what a recorder adds ------------------------------------------------ */

static void append_session(struct generator *g, bool clean)
{
    static char program[] = "ttj-generate", node[] = "disk", raw[] = "raw";
    g_autofree char *path =
        g->shape.image ? realpath(g->shape.image, NULL) : NULL;
    struct tt_session s = {
        .realtime = g->now.realtime,
        .boottime = g->now.boottime,
        .boot_id = { 1 },
        .disk_size = g->shape.disk_size,
        .flags = TT_SESSION_RECORDER | (clean ? TT_SESSION_CLEAN : 0),
        .program = program,
        .node = node,
        .disk_format = raw,
        .disk_path = path,
    };
    struct tt_append ap;
    uint32_t length;
    uint8_t *body = tt_session_encode(&s, &length);

    if (!body) {
        ttj_die("%s: its path is too long", g->shape.image);
    }
    append_body(g, TT_KIND_SESSION, body, length, false, &ap);
    free(body);
}

/*
 * The map is written whole when its chain outweighs it twice; the whole one is
 * a part of the next chain.
 */
static void begin_new_map(struct generator *g)
{
    uint64_t at = 0, run;

    if (g->map_links < 64 ||
        g->map_links * 32 + g->map_ranges < 2 * g->whole_ranges) {
        return;
    }
    g->whole_ranges = 0;
    while ((at = tt_blocks_next(g->captured, at)) != UINT64_MAX) {
        tt_blocks_test(g->captured, at, UINT64_MAX - at, &run);
        if (!tt_blocks_add(g->unmapped, at, run)) {
            ttj_die("out of memory");
        }
        g->whole_ranges++;
        at += run;
    }
    g->map_prev = g->map_links = g->map_ranges = 0;
}

static void append_checkpoint(struct generator *g, bool clean)
{
    struct tt_checkpoint c = {
        .level_seq = g->writer.next_seq - 1,
        .clean = clean,
    };
    struct tt_append ap;
    bool more = true;

    g->checkpoint_at = g->writer.next_offset;
    begin_new_map(g);
    while (more) {
        uint32_t length, ranges;
        uint8_t *body;

        c.map_prev = g->map_prev;
        body = tt_checkpoint_encode(&c, g->unmapped, &length, &more);
        if (!body) {
            ttj_die("out of memory");
        }
        append_body(g, TT_KIND_CHECKPOINT, body, length, more, &ap);
        ranges = tt_checkpoint_done(body, g->unmapped);
        if (ranges) {
            g->map_prev = ap.offset;
            g->map_links++;
            g->map_ranges += ranges;
        }
        free(body);
    }
}

/* The next writer of the journal, which the last one left in order */
static void begin_session(struct generator *g)
{
    bool first = g->writer.next_seq == 1;

    if (!first) {
        append_checkpoint(g, true);
        g->writer.session++;
        g->writer.session_nonce = random64(g);
        g->writer.session_first_seq = g->writer.next_seq;
    }
    append_session(g, !first);
}

static void append_mark(struct generator *g, unsigned number)
{
    struct tt_append ap;
    char name[32];
    int length = snprintf(name, sizeof(name), "mark-%u", number);

    append_body(g, TT_KIND_MARK, name, (uint32_t)length, false, &ap);
}

/* ---- versions ------------------------------------------------------------ */

/*
 * Does the frame have room for the captures of @r, too?  Notes them: each
 * whole block that nobody has captured.
 */
static bool note_captures(struct generator *g, const struct tt_request *r)
{
    uint64_t at = r->disk_offset / TT_GRID * TT_GRID, run;
    uint64_t end =
        (r->disk_offset + r->disk_length + TT_GRID - 1) / TT_GRID * TT_GRID;

    /* every second block is the worst */
    if (g->capture_count + (end - at) / TT_GRID / 2 + 1 > CAPTURES_MAX) {
        return false;
    }
    for (; at < end; at += run) {
        if (!tt_blocks_test(g->captured, at, end - at, &run)) {
            g->captures[g->capture_count++] = (struct tt_range){
                .offset = tt_put64(at),
                .length = tt_put64(run),
            };
            if (!tt_blocks_add(g->captured, at, run) ||
                !tt_blocks_add(g->unmapped, at, run)) {
                ttj_die("out of memory");
            }
        }
    }
    return true;
}

/* The disk held zeroes: a descriptor is all that says so. */
static void append_captures(struct generator *g)
{
    tt_batch_reset(g->batch, &g->writer);
    for (unsigned i = 0; i < g->capture_count; i++) {
        struct tt_request req = {
            .kind = TT_KIND_PREIMAGE,
            .flags = TT_RECORD_ZEROES,
            .disk_offset = tt_get64(g->captures[i].offset),
            .disk_length = tt_get64(g->captures[i].length),
        };

        if (!tt_batch_add(g->batch, &req)) {
            ttj_die("%u pre-images do not fit a frame", g->capture_count);
        }
    }
    g->preimages += g->capture_count;
    g->capture_count = 0;
    commit(g);
}

static void add_flush(struct generator *g, struct tt_flush_body *body)
{
    struct tt_request req = {
        .kind = TT_KIND_FLUSH,
        .flags = TT_RECORD_INLINE,
        .payload = body,
        .payload_length = sizeof(*body),
    };

    if (!tt_batch_add(g->batch, &req)) {
        ttj_die("a flush does not fit a frame");
    }
}

/* False: the frame has no room for @r. */
static bool add_version(struct generator *g, struct tt_request *r)
{
    if (r->payload_length) {
        r->payload = g->payload;
        if (g->shape.random_payload) {
            r->payload = g->payload + g->payload_used;
            if (g->payload_used + r->payload_length > TT_FRAME_MAX) {
                return false;
            }
            fill(g->payload + g->payload_used, r->payload_length,
                 (g->made + 1) * UINT64_C(0x2545f4914f6cdd1d));
        }
    }
    if (g->capture_count + TT_PAYLOAD_RECORD_MAX / TT_GRID / 2 + 2 >
            CAPTURES_MAX ||
        !tt_batch_add(g->batch, r)) {
        return false;
    }
    if (!note_captures(g, r)) {
        ttj_die("too many captures for one frame");
    }
    g->payload_used += r->payload_length;
    g->bytes += r->payload_length;
    g->writes += r->kind == TT_KIND_WRITE;
    g->zeroes += r->kind == TT_KIND_ZERO;
    g->made++;
    return true;
}

/* @next: the version that is to be made, also on return. */
static void append_versions(struct generator *g, struct tt_request *next)
{
    struct tt_flush_body flush = {
        .covered_seq = tt_put64(g->writer.next_seq - 1),
    };
    uint64_t until = MIN(g->made + (uint64_t)g->shape.frame, g->shape.versions);

    tt_batch_reset(g->batch, &g->writer);
    g->payload_used = 0;
    if (g->frames % FLUSH_EVERY == 0) {
        add_flush(g, &flush);
    }
    while (g->made < until && add_version(g, next)) {
        random_op(g, next);
    }
    commit(g);
    if (g->capture_count) {
        append_captures(g);
    }
    pass_time(g, g->step);
}

/* ---- the whole history --------------------------------------------------- */

/* Has number @done of @count events, spread over the versions, come up? */
static bool due(const struct generator *g, unsigned done, int count)
{
    return done < (unsigned)count &&
           g->made >= g->shape.versions * (done + 1) / ((unsigned)count + 1);
}

static void show_progress(const struct generator *g, unsigned *percent)
{
    unsigned now = (unsigned)(g->made * 100 / g->shape.versions);

    if (now != *percent && isatty(STDERR_FILENO)) {
        *percent = now;
        fprintf(stderr, "\r%u %%%s", now, now == 100 ? "\n" : "");
    }
}

static void generate(struct generator *g)
{
    unsigned sessions = 0, epochs = 0, marks = 0, percent = 0;
    struct tt_request next;

    begin_session(g);
    g->first_time = g->now.realtime;
    g->first_version_seq = g->writer.next_seq;
    random_op(g, &next);
    while (g->made < g->shape.versions) {
        append_versions(g, &next);
        if (g->writer.next_offset - g->checkpoint_at >= CHECKPOINT_EVERY) {
            append_checkpoint(g, false);
        }
        if (due(g, sessions, g->shape.sessions - 1)) {
            begin_session(g);
            sessions++;
        }
        if (due(g, epochs, g->shape.epochs - 1)) {
            g->now.realtime = g->writer.last_time - 3600 * BILLION;
            epochs++;
        }
        if (due(g, marks, g->shape.marks)) {
            append_mark(g, ++marks);
        }
        show_progress(g, &percent);
    }
    append_checkpoint(g, true);
}

static void open_all(struct generator *g)
{
    const struct shape *s = &g->shape;
    uint8_t uuid[TT_UUID_SIZE], *area = g_malloc(TT_SEGMENTS_OFFSET);
    struct tt_scan scan = { .empty = true };
    struct tt_error err;

    fill(uuid, sizeof(uuid), (uint64_t)s->seed);
    g->random = g_rand_new_with_seed((guint32)s->seed);
    g->now = (struct tt_now){ .realtime = BEGIN, .boottime = 60 * BILLION };
    tt_super_init(&g->super, uuid, random64(g), s->disk_size,
                  (uint32_t)s->alignment, BEGIN);
    g->super.segment_size = s->segment_size;
    if (tt_super_check(&g->super, &err) < 0) {
        ttj_die("%s", err.message);
    }
    scan.end_offset = g->super.segments_offset;
    tt_writer_open(&g->writer, &g->super, &scan, (uint32_t)s->alignment,
                   random64(g), true);
    g->fd = create(s->journal);
    g->image = s->image ? create(s->image) : -1;
    if (s->image) {
        set_size(g->image, s->image, s->disk_size);
    }
    tt_super_encode(&g->super, area);
    put(g->fd, s->journal, area, TT_SEGMENTS_OFFSET, 0);
    g_free(area);
    g->batch = tt_batch_new();
    g->captured = tt_blocks_new(TT_GRID);
    g->unmapped = tt_blocks_new(TT_GRID);
    g->payload =
        g_malloc0(s->random_payload ? TT_FRAME_MAX : TT_PAYLOAD_RECORD_MAX);
    if (!g->batch || !g->captured || !g->unmapped) {
        ttj_die("out of memory");
    }
    g->blocks = s->disk_size / TT_GRID;
    prepare_ranks(g);
    g->step = MAX(
        (uint64_t)(s->span * (double)BILLION * s->frame / (double)s->versions),
        1);
}

static void close_all(struct generator *g, struct stat *ret_stat)
{
    set_size(g->fd, g->shape.journal, g->writer.next_offset);
    if (fstat(g->fd, ret_stat) < 0 || close(g->fd) < 0 ||
        (g->image >= 0 && close(g->image) < 0)) {
        ttj_die("%s: cannot be closed: %s", g->shape.journal, strerror(errno));
    }
    tt_writer_clear(&g->writer);
    tt_batch_free(g->batch);
    tt_blocks_free(g->captured);
    tt_blocks_free(g->unmapped);
    g_rand_free(g->random);
    g_free(g->payload);
}

static void tell(const struct generator *g, struct stat st, double seconds)
{
    const struct {
        const char *name;
        int64_t value;
    } facts[] = {
        { "versions", (int64_t)g->made },
        { "writes", (int64_t)g->writes },
        { "zeroes", (int64_t)g->zeroes },
        { "preimages", (int64_t)g->preimages },
        { "frames", (int64_t)g->frames },
        { "written_bytes", (int64_t)g->bytes },
        { "journal_bytes", (int64_t)st.st_size },
        { "allocated_bytes", (int64_t)st.st_blocks * 512 },
        { "disk_size", (int64_t)g->shape.disk_size },
        { "first_seq", (int64_t)g->first_version_seq },
        { "last_seq", (int64_t)g->writer.next_seq - 1 },
        { "first_time", g->first_time },
        { "last_time", g->writer.last_time },
        { "hottest", (int64_t)block_of_rank(g, 0) },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(facts); i++) {
        printf("%s\"%s\": %" G_GINT64_FORMAT, i ? ", " : "{", facts[i].name,
               facts[i].value);
    }
    printf(", \"seconds\": %.3f, \"versions_per_second\": %.0f}\n", seconds,
           (double)g->made / seconds);
}

int main(int argc, char **argv)
{
    struct generator *g = g_new0(struct generator, 1);
    struct stat st;
    int64_t began;

    ttj_shape_parse(argc, argv, &g->shape);
    began = g_get_monotonic_time();
    open_all(g);
    generate(g);
    close_all(g, &st);
    tell(g, st, (double)(g_get_monotonic_time() - began) / 1e6);
    g_free(g);
    return 0;
}
