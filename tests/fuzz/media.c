/*
 * The files that views are served from: see media.h
 *
 * A journal is changed in memory, packed (fuzz.h), and then written to its
 * file.  A PLACE in it is a byte 0 and an offset of three bytes; or a byte 1,
 * the number of a frame, and an offset from there of two; in the index's
 * files a byte 2 or more, which is the file, and an offset of three bytes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib.h>
#include <posix/reader.h>
#include <posix/store.h>

#include "media.h"
#include "server.h"

#define FILES_MAX 8 /* of one name, one after the other */
#define INDEX_MAX 8 /* files of an index */
#define FRAMES_MAX 256
#define LATER INT64_C(60000000000) /* the present, after the last record */

/* A file of an index */
struct kept {
    char name[64];
    uint8_t *bytes;
    size_t size;
};

/* A journal as it was written, and its index */
struct original {
    struct fuzz_base base;
    uint8_t *packed;
    size_t size;
    size_t frames[FRAMES_MAX];
    unsigned frame_count;
    struct kept index[INDEX_MAX];
    unsigned index_count;
};

static struct original originals[FUZZ_ALL_BASES];

struct media {
    const struct original *from;
    enum media_index mode;
    bool disk;
    uint8_t *packed;
    size_t size;
    size_t held; /* the file ends there; SIZE_MAX: with the journal */
    struct kept index[INDEX_MAX];
    bool index_harmed; /* since it was written */
    struct media_file files[FILES_MAX], second;
    unsigned file; /* the one that is there now */
};

/* Always of kind FUZZ_LONG */
#define SECOND "k.ttj"

const char *media_journal, *media_disk_path, *media_folder, *media_index,
    *media_machine;
static const char *top, *second_path, *beside;

/* ---- an input ------------------------------------------------------------ */

uint64_t script_take(struct script *s, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && s->left; i++) {
        v |= (uint64_t)*s->p++ << 8 * i;
        s->left--;
    }
    return v;
}

void script_text(struct script *s, char *ret, size_t size)
{
    size_t n = script_take(s, 1), i = 0;

    for (; n && s->left && i + 1 < size; n--) {
        ret[i] = (char)script_take(s, 1);
        i += ret[i] != '\0';
    }
    ret[i] = '\0';
}

/* ---- files --------------------------------------------------------------- */

static void put_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(write(fd, bytes, size) == (ssize_t)size);
    close(fd);
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void remove_all(void)
{
    remove_tree(top);
}

/* Folders as they are before anything is written. */
static void clean_folders(void)
{
    remove_tree(media_folder);
    remove_tree(media_index);
    FUZZ_CHECK(mkdir(media_folder, 0700) == 0);
    FUZZ_CHECK(mkdir(media_index, 0700) == 0);
}

/* The file keeps its place among the files that are open. */
static void put_journal(const struct fuzz_image *image, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static const size_t parts[] = { 0,
                                    sizeof(struct tt_superblock),
                                    TT_SUPERBLOCK_COPY,
                                    sizeof(struct tt_superblock),
                                    TT_SEGMENTS_OFFSET,
                                    SIZE_MAX };

    FUZZ_CHECK(fd >= 0);
    for (unsigned i = 0; i < 6 && parts[i] < image->size; i += 2) {
        size_t n = image->size - parts[i];

        n = n < parts[i + 1] ? n : parts[i + 1];
        FUZZ_CHECK(pwrite(fd, image->bytes + parts[i], n, (off_t)parts[i]) ==
                   (ssize_t)n);
    }
    FUZZ_CHECK(ftruncate(fd, (off_t)image->size) == 0);
    close(fd);
}

/* Holes where there are zeroes */
static void put_disk(const uint8_t *bytes, size_t size)
{
    static const uint8_t zeroes[TT_GRID];
    int fd = open(media_disk_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0);
    for (size_t at = 0; at < size; at += TT_GRID) {
        size_t n = size - at < TT_GRID ? size - at : TT_GRID;

        if (memcmp(bytes + at, zeroes, n)) {
            FUZZ_CHECK(pwrite(fd, bytes + at, n, (off_t)at) == (ssize_t)n);
        }
    }
    FUZZ_CHECK(ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

/* ---- originals ----------------------------------------------------------- */

/* As `ttjournal index` does. */
static void make_index(const char *path)
{
    struct tt_store_work work = { .wait = true };
    struct tt_error err = { 0 };
    struct tt_super super;
    struct tt_store *store;
    struct tt_file *f;

    FUZZ_CHECK(tt_file_open(path, &f, &err) == 0);
    if (fuzz_told(tt_super_read(&f->source, &super, NULL, &err), &err) == 0 &&
        fuzz_told(tt_store_open(f, &super, NULL, &store, &err), &err) == 0) {
        fuzz_told(tt_store_extend(store, &work, &err), &err);
        tt_store_close(store);
    }
    tt_file_close(f);
}

static void keep_index(struct original *o)
{
    DIR *dir = opendir(beside);
    struct dirent *e;

    FUZZ_CHECK(dir);
    while ((e = readdir(dir))) {
        struct kept *k = &o->index[o->index_count];
        g_autofree char *path = g_build_filename(beside, e->d_name, NULL);
        gsize size;
        gchar *bytes;

        if (strncmp(e->d_name, "run-", 4) && strcmp(e->d_name, "catalog")) {
            continue;
        }
        FUZZ_CHECK(o->index_count < INDEX_MAX);
        FUZZ_CHECK(g_file_get_contents(path, &bytes, &size, NULL));
        g_strlcpy(k->name, e->d_name, sizeof(k->name));
        k->bytes = (uint8_t *)bytes;
        k->size = size;
        o->index_count++;
    }
    closedir(dir);
    FUZZ_CHECK(o->index_count > 1);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct kept *)a)->name,
                  ((const struct kept *)b)->name);
}

static void make_original(struct original *o, enum fuzz_kind kind)
{
    fuzz_base_make(&o->base, kind);
    fuzz_pack(&o->base.image, &o->packed, &o->size);
    for (size_t at = FUZZ_SUPERS; at < o->size; at += TT_ALIGNMENT_MIN) {
        if (fuzz_frame_at(o->packed, o->size, at)) {
            FUZZ_CHECK(o->frame_count < FRAMES_MAX);
            o->frames[o->frame_count++] = at;
        }
    }
    clean_folders();
    put_journal(&o->base.image, media_journal);
    make_index(media_journal);
    keep_index(o);
    qsort(o->index, o->index_count, sizeof(o->index[0]), by_name);
}

void media_init(void)
{
    char *folder = g_build_filename(g_get_tmp_dir(), "fuzz-XXXXXX", NULL);
    char *cache;

    FUZZ_CHECK(mkdtemp(folder));
    top = folder;
    atexit(remove_all);
    media_folder = g_build_filename(top, "journals", NULL);
    media_index = g_build_filename(top, "indexes", NULL);
    media_journal = g_build_filename(media_folder, "j.ttj", NULL);
    beside = g_build_filename(media_folder, "j.ttj.index", NULL);
    second_path = g_build_filename(media_folder, SECOND, NULL);
    media_disk_path = g_build_filename(media_folder, "j.raw", NULL);
    media_machine = g_build_filename(media_folder, "m.machine", NULL);
    /* where an index could be, too: not the user's */
    cache = g_build_filename(top, "cache", NULL);
    setenv("XDG_CACHE_HOME", cache, 1);
    g_free(cache);
    for (unsigned i = 0; i < FUZZ_ALL_BASES; i++) {
        make_original(&originals[i], i);
    }
    server_now = originals[FUZZ_LONG].base.sw.now.realtime + LATER;
}

const struct fuzz_base *media_base(unsigned kind)
{
    return &originals[kind].base;
}

/* ---- files for one input ------------------------------------------------- */

struct media *media_new(unsigned kind, enum media_index index, bool disk)
{
    struct media *m = fuzz_alloc(sizeof(*m));

    m->from = &originals[kind];
    m->mode = index;
    m->disk = disk;
    m->size = m->from->size;
    m->packed = fuzz_alloc(m->size);
    memcpy(m->packed, m->from->packed, m->size);
    m->held = SIZE_MAX;
    for (unsigned i = 0; i < m->from->index_count; i++) {
        const struct kept *k = &m->from->index[i];

        m->index[i] = *k;
        m->index[i].bytes = fuzz_alloc(k->size);
        memcpy(m->index[i].bytes, k->bytes, k->size);
    }
    m->files[0] = (struct media_file){ ~0u, true, false };
    m->second = (struct media_file){ 1u << FUZZ_LONG, true, false };
    return m;
}

void media_free(struct media *m)
{
    for (unsigned i = 0; i < m->from->index_count; i++) {
        free(m->index[i].bytes);
    }
    free(m->packed);
    free(m);
}

struct media_file *media_now(struct media *m)
{
    return &m->files[m->file];
}

struct media_file *media_second(struct media *m)
{
    return &m->second;
}

unsigned media_kind(const struct media *m)
{
    return (unsigned)(m->from - originals);
}

/* The disk has all that was recorded. */
const uint8_t *media_disk(const struct media *m)
{
    const struct fuzz_base *b = &m->from->base;

    return m->disk ? fuzz_truth(b, b->sw.tip->last_seq)->data : NULL;
}

/* ---- what there is to be known of a journal ------------------------------ */

static unsigned honest_to(struct fuzz_image *image)
{
    struct tt_source src = fuzz_source(image);
    struct tt_super super;
    unsigned fits = 0;
    bool any = tt_super_read(&src, &super, NULL, NULL) == 0;

    for (unsigned i = 0; i < FUZZ_ALL_BASES; i++) {
        const struct fuzz_base *b = &originals[i].base;

        /* Without a superblock it is read by who has read it before. */
        fits |= (unsigned)fuzz_is_honest(image, any ? &super : &b->sw.super, b)
                << i;
    }
    return fits;
}

static bool ends_early(struct media *m, struct fuzz_image *image)
{
    struct tt_source src = fuzz_source(image);
    struct tt_history *h = tt_history_new();
    bool early = tt_history_load(h, &src, NULL) < 0 ||
                 tt_history_end(h)->last_seq < m->from->base.sw.tip->last_seq;

    tt_history_free(h);
    return early;
}

/* The journal's file becomes what is in memory. */
static void write_journal(struct media *m)
{
    struct media_file *f = media_now(m);
    const struct fuzz_image *whole = &m->from->base.image;
    struct fuzz_image image;

    fuzz_unpack(m->packed, m->size < m->held ? m->size : m->held, &image);
    f->whole &= image.size == whole->size &&
                fuzz_same_at(&image, whole, 0, whole->size);
    if (!f->whole) {
        f->fits &= honest_to(&image);
        f->behind |= m->disk && (!(f->fits & 1u << media_kind(m)) ||
                                 ends_early(m, &image));
    } else {
        f->fits &= 1u << media_kind(m);
    }
    put_journal(&image, media_journal);
    free(image.bytes);
}

static void write_files(struct media *m, const char *folder)
{
    FUZZ_CHECK(mkdir(folder, 0700) == 0 || errno == EEXIST);
    for (unsigned i = 0; i < m->from->index_count; i++) {
        g_autofree char *path =
            g_build_filename(folder, m->index[i].name, NULL);

        put_file(path, m->index[i].bytes, m->index[i].size);
    }
}

/* Below index= each journal has a folder, whose name is its UUID. */
static void write_index(struct media *m)
{
    const uint8_t *u = m->from->base.sw.super.uuid;
    g_autofree char *below = g_strdup_printf(
        "%s/%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
        "%02x%02x%02x%02x%02x%02x",
        media_index, u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9],
        u[10], u[11], u[12], u[13], u[14], u[15]);

    if (m->mode == INDEX_WHOLE) {
        write_files(m, beside);
    } else if (m->mode == INDEX_FOLDER) {
        write_files(m, below);
    } else if (m->mode == INDEX_DAMAGED) {
        make_index(media_journal);
    }
    m->index_harmed = false;
}

void media_ready(struct media *m)
{
    const struct fuzz_base *b = &m->from->base;
    const uint8_t *disk = media_disk(m);

    clean_folders();
    server_restart_random();
    write_journal(m);
    write_index(m);
    if (disk) {
        put_disk(disk, fuzz_truth(b, b->sw.tip->last_seq)->size);
    }
    put_journal(&originals[FUZZ_LONG].base.image, second_path);
}

bool media_index_option(const struct media *m)
{
    return m->mode == INDEX_FOLDER;
}

void media_put_machine(const struct media *m)
{
    g_autofree char *text =
        g_strdup_printf("[a]\njournal=j.ttj\n%s[b]\njournal=" SECOND "\n",
                        m->disk ? "disk=j.raw\n" : "");

    put_file(media_machine, text, strlen(text));
}

void media_follow(struct media *m)
{
    const struct tt_reader_options options = {
        .index = media_index_option(m) ? media_index : NULL,
    };
    struct tt_error err = { 0 };
    struct tt_reader *r;

    if (fuzz_told(tt_reader_open_with(media_journal, &options, &r, &err),
                  &err) == 0) {
        fuzz_told(tt_reader_follow(r, &err), &err);
        tt_reader_close(r);
    }
}

/* ---- harm ---------------------------------------------------------------- */

/* A range of bytes somewhere */
struct place {
    uint8_t *at;
    size_t left; /* from there to the end; may be 0 */
    size_t offset;
    struct kept *index; /* or NULL: of the journal */
};

static struct place take_place(struct media *m, struct script *s)
{
    uint64_t which = script_take(s, 1), n = script_take(s, 3);
    unsigned files = m->from->index_count;
    struct place p = { .at = m->packed, .left = m->size };

    if (which >= 2) {
        p.index = &m->index[(which - 2) % files];
        p.at = p.index->bytes;
        p.left = p.index->size;
        m->index_harmed = true;
    } else if (which == 1) {
        n = m->from->frames[(n & 0xff) % m->from->frame_count] + (n >> 8);
    }
    p.offset = p.left ? n % p.left : 0;
    p.at += p.offset;
    p.left -= p.offset;
    return p;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void put_bytes(struct media *m, struct script *s)
{
    struct place p = take_place(m, s);
    size_t n = 1 + script_take(s, 1) % 16;

    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)script_take(s, 1);

        if (i < p.left) {
            p.at[i] = byte;
        }
    }
}

static void fill(struct media *m, struct script *s)
{
    struct place p = take_place(m, s);
    size_t n = least(p.left, script_take(s, 2));

    memset(p.at, (int)script_take(s, 1), n);
}

static void copy_or_swap(struct media *m, struct script *s, bool swap)
{
    struct place from = take_place(m, s), to = take_place(m, s);
    size_t n = least(least(from.left, to.left), script_take(s, 2));
    uint8_t *old = fuzz_alloc(n), *new = fuzz_alloc(n);

    memcpy(old, to.at, n);
    memcpy(new, from.at, n);
    memcpy(to.at, new, n);
    if (swap) {
        memcpy(from.at, old, n);
    }
    free(old);
    free(new);
}

static void cut(struct media *m, struct script *s)
{
    struct place p = take_place(m, s);

    if (p.index) {
        p.index->size = p.offset;
    } else {
        m->size = p.offset;
    }
}

static void put_number(struct media *m, struct script *s)
{
    struct place p = take_place(m, s);
    size_t width = (size_t)1 << script_take(s, 1) % 4;
    uint64_t how = script_take(s, 1), by = script_take(s, 1), v = 0;

    if (width > p.left) {
        return;
    }
    for (size_t i = 0; i < width; i++) {
        v |= (uint64_t)p.at[i] << 8 * i;
    }
    switch (how % 5) {
    case 0:
        v += by;
        break;
    case 1:
        v -= by;
        break;
    case 2:
        v ^= UINT64_C(1) << by % 64;
        break;
    case 3:
        v = UINT64_C(1) << by % 64;
        break;
    default:
        v = (UINT64_C(1) << by % 64) - 1;
    }
    for (size_t i = 0; i < width; i++) {
        p.at[i] = (uint8_t)(v >> 8 * i);
    }
}

static void put_other(struct media *m, struct script *s)
{
    struct place p = take_place(m, s);
    size_t n = least(p.left, script_take(s, 2));
    const struct original *o = &originals[script_take(s, 1) % FUZZ_ALL_BASES];

    if (!p.index && p.offset < o->size) {
        memcpy(p.at, o->packed + p.offset, least(n, o->size - p.offset));
    }
}

static void repair(struct media *m)
{
    free(m->packed);
    m->size = m->from->size;
    m->packed = fuzz_alloc(m->size);
    memcpy(m->packed, m->from->packed, m->size);
}

/* As a copy program does that writes to another name, then renames. */
static void replace(struct media *m)
{
    if (m->file + 1 < FILES_MAX && unlink(media_journal) == 0) {
        m->files[++m->file] = (struct media_file){ ~0u, true, false };
        write_journal(m);
    }
}

static void hold(struct media *m, struct script *s)
{
    struct place p = take_place(m, s);

    if (!p.index) {
        m->held = p.offset;
    }
}

static void harm(struct media *m, enum step step, struct script *s)
{
    switch (step) {
    case STEP_BYTES:
        put_bytes(m, s);
        break;
    case STEP_FILL:
        fill(m, s);
        break;
    case STEP_COPY:
    case STEP_SWAP:
        copy_or_swap(m, s, step == STEP_SWAP);
        break;
    case STEP_CUT:
        cut(m, s);
        break;
    case STEP_NUMBER:
        put_number(m, s);
        break;
    case STEP_OTHER:
        put_other(m, s);
        break;
    case STEP_RESEAL:
        fuzz_reseal(m->packed, m->size, script_take(s, 1));
        break;
    case STEP_HOLD:
        hold(m, s);
        break;
    case STEP_GROW:
        m->held = SIZE_MAX;
        break;
    case STEP_REPAIR:
        repair(m);
        break;
    default:
        break;
    }
}

void media_step(struct media *m, enum step step, struct script *s, bool now)
{
    if (step == STEP_REPLACE) {
        if (now) {
            replace(m);
        }
        return;
    }
    harm(m, step, s);
    if (now && m->index_harmed) {
        write_index(m);
    } else if (now) {
        write_journal(m);
    }
}
