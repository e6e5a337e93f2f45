/*
 * Fuzzing the NBD read path over a damaged journal
 *
 * An input (media.h) is a journal, harm that comes to it and to its index
 * before the plugin starts and while it serves, and what clients ask for.  The
 * plugin itself is what answers, and all below it.  What must hold:
 *
 *   - what is served is what was recorded, or it is an error, as long as no
 *     checksum was made to fit;
 *   - what a view says twice is the same: read in other pieces, or asked for
 *     its extents;
 *   - of a journal without damage all can be read, whatever its index is like;
 *   - nbdkit's rules are kept (server.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "media.h"
#include "server.h"

#define SLOTS 4u
#define NAME_SIZE 300
#define EXTENTS_MAX 512
#define STEPS_MAX 64 /* of an input: it is to end */
#define LISTED_MAX 12

/* An export that is open */
struct slot {
    struct server_export e;
    const struct media_file *file; /* NULL: nothing is open */
    bool second;                   /* it is of the journal without damage */
};

struct scene {
    struct script script;
    struct media *media;
    enum media_form form;
    char at[80];
    bool threads;
    struct slot slots[SLOTS];
    char listed[LISTED_MAX][NAME_SIZE];
    unsigned listed_count;
};

static uint8_t first[SIM_DISK_MAX], second[SIM_DISK_MAX];
static struct server_extent extents[EXTENTS_MAX];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    server_init();
    media_init();
    return 0;
}

/* ---- is it true? --------------------------------------------------------- */

/*
 * The bytes of sector @at of the state @seq; @behind: some may be of a disk
 * that is newer.
 */
static bool sector_is(const struct scene *c, const struct slot *s,
                      const struct sim_state *state, uint64_t at, uint64_t end,
                      const uint8_t *bytes)
{
    uint64_t next = (at / TT_SECTOR + 1) * TT_SECTOR;
    uint64_t n = (next < end ? next : end) - at;
    const uint8_t *disk = s->second ? NULL : media_disk(c->media);

    return !memcmp(state->data + at, bytes, n) ||
           (s->file->behind && disk && !memcmp(disk + at, bytes, n));
}

static bool is_of(const struct scene *c, const struct slot *s,
                  const struct fuzz_base *b, uint64_t offset, uint64_t length,
                  const uint8_t *bytes)
{
    const struct sim_state *state;
    uint64_t at = offset, end = offset + length;

    if (s->e.seq > b->sw.tip->last_seq) {
        return false;
    }
    state = fuzz_truth(b, s->e.seq);
    while (at < end) {
        if (!sector_is(c, s, state, at, end, bytes + (at - offset))) {
            return false;
        }
        at = (at / TT_SECTOR + 1) * TT_SECTOR;
    }
    return true;
}

/* What was served is what was recorded. */
static void is_true(const struct scene *c, const struct slot *s,
                    uint64_t offset, uint64_t length, const uint8_t *bytes)
{
    bool any = !s->file->fits;

    FUZZ_CHECK(offset + length <= SIM_DISK_MAX || any);
    for (unsigned i = 0; i < FUZZ_ALL_BASES && !any; i++) {
        any = (s->file->fits & 1u << i) &&
              is_of(c, s, media_base(i), offset, length, bytes);
    }
    FUZZ_CHECK(any);
}

/* What is told to be the same as of another moment is so. */
static bool is_same(const struct slot *s, const struct fuzz_base *b,
                    const struct server_extent *x)
{
    return s->e.seq <= b->sw.tip->last_seq &&
           !memcmp(fuzz_truth(b, s->e.seq)->data + x->offset,
                   fuzz_truth(b, s->e.since)->data + x->offset, x->length);
}

static void did_not_change(const struct slot *s, const struct server_extent *x)
{
    bool any = !s->file->fits;

    for (unsigned i = 0; i < FUZZ_ALL_BASES && !any; i++) {
        any = (s->file->fits & 1u << i) && is_same(s, media_base(i), x);
    }
    FUZZ_CHECK(any);
}

/* ---- what clients ask ---------------------------------------------------- */

/* False: it could not be read. */
static bool read_range(const struct scene *c, struct slot *s, uint64_t offset,
                       uint32_t length, uint8_t *buf, int fill)
{
    int why = 0;

    memset(buf, fill, length);
    if (!server_read(&s->e, offset, buf, length, &why)) {
        FUZZ_CHECK(!s->file->whole);
        return false;
    }
    is_true(c, s, offset, length, buf);
    return true;
}

/* Each byte is put there by who serves it. */
static bool read_twice(const struct scene *c, struct slot *s, uint64_t offset,
                       uint32_t length)
{
    bool one = read_range(c, s, offset, length, first, 0x00);
    bool two = read_range(c, s, offset, length, second, 0xff);

    if (one && two && s->file->fits) {
        FUZZ_CHECK(!memcmp(first, second, length));
    }
    return one && two;
}

/* A range within the export, as nbdkit sees to it; false: there is none. */
static bool take_range(struct scene *c, const struct slot *s,
                       uint64_t *ret_offset, uint32_t *ret_length)
{
    uint64_t offset = script_take(&c->script, 3);
    uint64_t length = script_take(&c->script, 3), left;

    if (!s->file || !s->e.size) {
        return false;
    }
    *ret_offset = offset % s->e.size;
    left = s->e.size - *ret_offset;
    left = left < SIM_DISK_MAX ? left : SIM_DISK_MAX;
    *ret_length = (uint32_t)(length % left + 1);
    return true;
}

static void check_zeroes(const struct scene *c, struct slot *s,
                         const struct server_extent *x)
{
    static const uint8_t zeroes[SIM_DISK_MAX];
    uint64_t length = x->length < SIM_DISK_MAX ? x->length : SIM_DISK_MAX;

    /* who copies the export does not read there */
    is_true(c, s, x->offset, length, zeroes);
    if (read_range(c, s, x->offset, (uint32_t)length, first, 0xff) &&
        s->file->fits) {
        FUZZ_CHECK(!memcmp(first, zeroes, length));
    }
}

static void check_extents(const struct scene *c, struct slot *s,
                          uint64_t offset, uint32_t length, bool one)
{
    size_t count;

    if (!server_extents(&s->e, offset, length, one, extents, EXTENTS_MAX,
                        &count)) {
        FUZZ_CHECK(!s->file->whole);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct server_extent x = extents[i];

        if (x.type & NBDKIT_EXTENT_ZERO) {
            check_zeroes(c, s, &x);
        } else if (x.type && s->e.changes) {
            did_not_change(s, &x);
        }
    }
}

/* All of an export, so many sectors at once, after asking where data is */
static void walk(const struct scene *c, struct slot *s, uint64_t step)
{
    uint64_t size = s->e.size < SIM_DISK_MAX ? s->e.size : SIM_DISK_MAX;

    if (!s->file || !size) {
        return;
    }
    check_extents(c, s, 0, (uint32_t)size, false);
    for (uint64_t at = 0; at < size; at += step) {
        uint64_t n = size - at < step ? size - at : step;

        read_twice(c, s, at, (uint32_t)n);
    }
}

/* ---- names --------------------------------------------------------------- */

/* What names of the main disk begin with; @other: of the other one. */
static const char *disk_name(const struct scene *c, bool other)
{
    static const char *const names[FORMS][2] = {
        [FORM_JOURNAL] = { "j", "j" },
        [FORM_FOLDER] = { "j", "k" },
        [FORM_MACHINE] = { "m/a", "m/b" },
        [FORM_SINGLE] = { "j", "j" },
    };

    return names[c->form][other];
}

static void make_name(struct scene *c, char name[static NAME_SIZE])
{
    struct script *s = &c->script;
    uint64_t kind = script_take(s, 1), n;
    const char *disk = disk_name(c, kind & 0x80);
    char text[NAME_SIZE / 2];

    switch (kind % 0x80) {
    case 0:
        snprintf(name, NAME_SIZE, "%s@latest", disk);
        break;
    case 1:
        snprintf(name, NAME_SIZE, "%s@seq:%" PRIu64, disk, script_take(s, 1));
        break;
    case 2:
        n = script_take(s, 1);
        snprintf(name, NAME_SIZE, "%s@seq:%" PRIu64 "..seq:%" PRIu64, disk, n,
                 n + script_take(s, 1));
        break;
    case 3:
        snprintf(name, NAME_SIZE, "%s", disk);
        break;
    case 4:
        name[0] = '\0';
        break;
    case 5:
        script_text(s, name, NAME_SIZE);
        break;
    case 6:
        n = script_take(s, 1);
        snprintf(name, NAME_SIZE, "%s",
                 c->listed_count ? c->listed[n % c->listed_count]
                                 : server_default());
        break;
    default:
        script_text(s, text, sizeof(text));
        snprintf(name, NAME_SIZE, "%s@%s", disk, text);
    }
}

static void close_slot(struct slot *s)
{
    if (s->file) {
        server_close(&s->e);
    }
    memset(s, 0, sizeof(*s));
}

/* A sequence number that a name asks for is the one that it gets. */
static void check_name(const struct scene *c, const struct slot *s,
                       const char *name)
{
    const char *disk = disk_name(c, false), *time;
    char end;
    uint64_t seq;

    if (strncmp(name, disk, strlen(disk)) || c->form == FORM_SINGLE) {
        return;
    }
    time = name + strlen(disk);
    if (sscanf(time, "@seq:%" SCNu64 "%c", &seq, &end) == 1 && time[5] != '-') {
        FUZZ_CHECK(s->e.seq == seq && !s->e.changes);
    }
}

static void open_slot(struct scene *c, struct slot *s, const char *name)
{
    int why = 0;

    close_slot(s);
    if (!server_open(name, &s->e, &why)) {
        return;
    }
    s->second = strcmp(s->e.disk, disk_name(c, false));
    s->file = s->second ? media_second(c->media) : media_now(c->media);
    FUZZ_CHECK(!s->second || !strcmp(s->e.disk, disk_name(c, true)));
    check_name(c, s, name);
}

static void add_listed(void *opaque, const char *name)
{
    struct scene *c = opaque;

    if (c->listed_count < LISTED_MAX && strlen(name) < NAME_SIZE) {
        strcpy(c->listed[c->listed_count++], name);
    }
}

/* ---- steps --------------------------------------------------------------- */

static void serve_step(struct scene *c, enum step step)
{
    struct script *in = &c->script;
    struct slot *s = NULL;
    char name[NAME_SIZE];
    uint64_t offset;
    uint32_t length;

    if (step == STEP_LIST) {
        c->listed_count = 0;
        server_list(add_listed, c);
        return;
    }
    if (step == STEP_FOLLOW) {
        media_follow(c->media);
        return;
    }
    s = &c->slots[script_take(in, 1) % SLOTS];
    switch (step) {
    case STEP_OPEN:
        make_name(c, name);
        open_slot(c, s, name);
        break;
    case STEP_CLOSE:
        close_slot(s);
        break;
    case STEP_WALK:
        walk(c, s, TT_SECTOR * (1 + script_take(in, 1) % 128));
        break;
    case STEP_READ:
        if (take_range(c, s, &offset, &length)) {
            read_twice(c, s, offset, length);
        }
        break;
    case STEP_EXTENTS:
        if (take_range(c, s, &offset, &length)) {
            check_extents(c, s, offset, length, script_take(in, 1));
        }
        break;
    case STEP_CACHE:
        if (take_range(c, s, &offset, &length)) {
            server_cache(&s->e, offset, length);
        }
        break;
    default:
        FUZZ_CHECK(!"a step that is known");
    }
}

/* The parameters: see media.h */
static bool start(struct scene *c)
{
    const char *params[20];
    unsigned n = 0;
    const bool disk = media_disk(c->media);

    media_ready(c->media);
    switch (c->form) {
    case FORM_MACHINE:
        media_put_machine(c->media);
        params[n++] = "machine";
        params[n++] = media_machine;
        break;
    case FORM_FOLDER:
        params[n++] = "dir";
        params[n++] = media_folder;
        break;
    default:
        params[n++] = "journal";
        params[n++] = media_journal;
        if (disk) {
            params[n++] = "disk";
            params[n++] = media_disk_path;
        }
    }
    if (c->at[0]) {
        params[n++] = c->form == FORM_SINGLE ? "single" : "at";
        params[n++] = c->at;
    }
    if (media_index_option(c->media)) {
        params[n++] = "index";
        params[n++] = media_index;
    }
    params[n] = NULL;
    return server_start(params, c->threads);
}

/* Whatever was asked before: some moments, whole. */
static void ask_the_rest(struct scene *c)
{
    const uint64_t last = media_base(media_kind(c->media))->sw.tip->last_seq;

    for (unsigned i = 0; i < SLOTS; i++) {
        char name[NAME_SIZE];

        if (c->slots[i].file) {
            walk(c, &c->slots[i], SIM_DISK_MAX);
            continue;
        }
        if (i < 2) {
            snprintf(name, sizeof(name), "%s@seq:%" PRIu64, disk_name(c, false),
                     last * (i + 1) / 3);
        } else if (i == 2) {
            name[0] = '\0';
        } else {
            snprintf(name, sizeof(name), "%s@seq:%" PRIu64 "..latest",
                     disk_name(c, false), last / 2);
        }
        open_slot(c, &c->slots[i], name);
        walk(c, &c->slots[i], TT_GRID);
    }
}

static void play(struct scene *c)
{
    bool served = false;

    for (unsigned i = 0; i < STEPS_MAX && c->script.left; i++) {
        enum step step = script_take(&c->script, 1) % STEPS;

        if (step < STEP_OPEN) {
            media_step(c->media, step, &c->script, served);
            continue;
        }
        if (!served && !start(c)) {
            return;
        }
        served = true;
        serve_step(c, step);
    }
    if (!served && !start(c)) {
        return;
    }
    ask_the_rest(c);
    for (unsigned i = 0; i < SLOTS; i++) {
        close_slot(&c->slots[i]);
    }
    server_stop();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scene *c = fuzz_alloc(sizeof(*c));
    unsigned kind, flags;
    enum media_index index;

    c->script = (struct script){ data, size };
    kind = script_take(&c->script, 1) % FUZZ_ALL_BASES;
    c->form = script_take(&c->script, 1) % FORMS;
    index = script_take(&c->script, 1) % INDEXES;
    flags = (unsigned)script_take(&c->script, 1);
    c->threads = flags & FLAG_THREADS;
    server_cold = flags & FLAG_COLD;
    script_text(&c->script, c->at, sizeof(c->at));
    c->media = media_new(kind, index, flags & FLAG_DISK);
    play(c);
    media_free(c->media);
    free(c);
    return 0;
}
