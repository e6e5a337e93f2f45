/*
 * The live disk: what does a block hold that was never overwritten?
 *
 * Two kinds: a raw image or block device read with pread, and an NBD server
 * (QEMU's own, for disks that are not raw or that lie on another host).  Both
 * are read while a guest may be writing.  That is safe because a reader looks
 * up again after it has read (reader.c); a read may therefore fail, too, where
 * a disk has shrunk meanwhile, and the caller decides whether it matters.
 *
 * Invariants:
 * - Nothing is ever written, and no lock is taken: QEMU holds its own.
 * - tt_disk_read() fills its buffer whole or fails.
 * - A connection that died is made anew at the next read that finds it dead,
 *   and is used only if the server still has a disk of the same size.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef HAVE_LIBNBD
#include <libnbd.h>
#endif

#include "disk.h"
#include "file.h"

/* Connections to an NBD server, made as they are needed */
#define POOL 4

/* More than any limit that servers announce is never asked for at once */
#define NBD_READ_MAX (8 * TT_MIB)

struct connection {
    pthread_mutex_t lock;   /* protects nbd, also while it reads */
    struct nbd_handle *nbd; /* NULL: not connected */
};

struct tt_disk {
    char *where;
    uint64_t size; /* a multiple of TT_SECTOR */

    struct tt_file *file; /* or NULL: NBD */

    unsigned pool_size; /* 1 if the server allows no more */
    uint32_t block;     /* the server's minimum block size */
    struct connection pool[POOL];
    _Atomic unsigned turn; /* which connection is next */
};

/* ---- files ------------------------------------------------------------- */

struct signature {
    const char *format;
    unsigned offset, length;
    const char *bytes;
};

/* What images that are not raw begin with */
static const struct signature signatures[] = {
    { "qcow2", 0, 4, "QFI\xfb" },
    { "qed", 0, 4, "QED\0" },
    { "vmdk", 0, 4, "KDMV" },
    { "vmdk", 0, 4, "COWD" },
    { "vmdk", 0, 21, "# Disk DescriptorFile" },
    { "vhdx", 0, 8, "vhdxfile" },
    { "vpc", 0, 8, "conectix" },
    { "vdi", 64, 4, "\x7f\x10\xda\xbe" },
    { "parallels", 0, 16, "WithoutFreeSpace" },
    { "parallels", 0, 16, "WithouFreSpacExt" },
    { "luks", 0, 6, "LUKS\xba\xbe" },
    { "dmg", 0, 4, "koly" },
    { "bochs", 0, 27,
      "Bochs Virtual HD Image"
      "\0\0\0\0\0" },
    { "ttjournal", 0, 8, TT_SUPERBLOCK_MAGIC },
};

static const char *format_of(const uint8_t *head, size_t length)
{
    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
        const struct signature *s = &signatures[i];

        if (s->offset + s->length <= length &&
            !memcmp(head + s->offset, s->bytes, s->length)) {
            return s->format;
        }
    }
    return NULL;
}

/* A LUKS container may well be the raw disk of a guest: it is let pass. */
int tt_disk_check_raw(const struct tt_source *src, const char *where,
                      struct tt_error *err)
{
    uint8_t head[512];
    size_t length = src->size < sizeof(head) ? src->size : sizeof(head);
    const char *format;
    int ret = src->read(src->opaque, 0, head, length);

    if (ret < 0) {
        return tt_fail(err, TT_EIO, -ret, "cannot read the disk %s: %s", where,
                       strerror(-ret));
    }
    format = format_of(head, length);
    if (!format || !strcmp(format, "luks")) {
        return 0;
    }
    if (!strcmp(format, "ttjournal")) {
        return tt_fail(err, TT_EINVAL, EINVAL, "%s is a journal, not a disk",
                       where);
    }
    return tt_fail(err, TT_EINVAL, EINVAL,
                   "%s is a %s image and cannot be read as a raw disk: run "
                   "'qemu-nbd -r -f %s -k /PATH/SOCKET %s' and give "
                   "nbd+unix:///?socket=/PATH/SOCKET instead",
                   where, format, format, where);
}

static int open_file(struct tt_disk *d, bool known_raw, struct tt_error *err)
{
    int ret = tt_file_open(d->where, &d->file, err);

    if (ret < 0) {
        return ret;
    }
    if (d->file->source.size > TT_DISK_SIZE_MAX) {
        return tt_fail(err, TT_EINVAL, EFBIG, "%s is larger than a disk can be",
                       d->where);
    }
    d->size = (d->file->source.size + TT_SECTOR - 1) / TT_SECTOR * TT_SECTOR;
    return known_raw ? 0 : tt_disk_check_raw(&d->file->source, d->where, err);
}

int tt_disk_read_file(const struct tt_source *src, const char *where,
                      uint64_t offset, uint8_t *buf, size_t length,
                      struct tt_error *err)
{
    uint64_t left = offset < src->size ? src->size - offset : 0;
    size_t whole = length < left ? length : (size_t)left;
    int ret = whole ? src->read(src->opaque, offset, buf, whole) : 0;

    if (ret < 0) {
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the disk %s at %" PRIu64 ": %s", where,
                       offset, strerror(-ret));
    }
    memset(buf + whole, 0, length - whole);
    return 0;
}

bool tt_disk_format_is_raw(const char *format)
{
    static const char *const raw[] = { "raw", "file", "host_device", "nbd" };

    for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++) {
        if (!strcmp(format, raw[i])) {
            return true;
        }
    }
    return false;
}

/* ---- NBD --------------------------------------------------------------- */

bool tt_disk_is_uri(const char *where)
{
    static const char *const schemes[] = { "nbd", "nbds" };
    static const char *const over[] = { "://", "+unix://", "+vsock://" };

    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(schemes[i]);

        for (size_t k = 0; k < 3; k++) {
            if (!strncmp(where, schemes[i], n) &&
                !strncmp(where + n, over[k], strlen(over[k]))) {
                return true;
            }
        }
    }
    return false;
}

#ifdef HAVE_LIBNBD

static int nbd_fail(struct tt_disk *d, const char *what, struct tt_error *err)
{
    int os_errno = nbd_get_errno();

    return tt_fail(err, TT_EIO, os_errno ? os_errno : EIO,
                   "cannot %s the disk %s: %s", what, d->where,
                   nbd_get_error());
}

/* A server is not asked what it will not do; its size must fit. */
static int check_server(struct tt_disk *d, struct nbd_handle *nbd,
                        struct tt_error *err)
{
    int64_t size = nbd_get_size(nbd);

    if (size < 0) {
        return nbd_fail(d, "learn the size of", err);
    }
    if (d->size && (uint64_t)size != d->size) {
        return tt_fail(err, TT_EIO, EIO,
                       "the disk %s had %" PRIu64 " bytes and now has %" PRId64
                       ": start again",
                       d->where, d->size, size);
    }
    return 0;
}

static int connect_nbd(struct tt_disk *d, struct nbd_handle **ret_nbd,
                       struct tt_error *err)
{
    struct nbd_handle *nbd = nbd_create();
    int ret;

    if (!nbd) {
        return nbd_fail(d, "connect to", err);
    }
    if (nbd_connect_uri(nbd, d->where) < 0) {
        ret = nbd_fail(d, "connect to", err);
    } else {
        ret = check_server(d, nbd, err);
    }
    if (ret < 0) {
        nbd_close(nbd);
        return ret;
    }
    *ret_nbd = nbd;
    return 0;
}

static int open_nbd(struct tt_disk *d, struct tt_error *err)
{
    struct nbd_handle *nbd;
    int ret = connect_nbd(d, &nbd, err);
    int64_t size, block;

    if (ret < 0) {
        return ret;
    }
    d->pool[0].nbd = nbd;
    d->pool_size = nbd_can_multi_conn(nbd) > 0 ? POOL : 1;
    block = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
    d->block = block > 0 && block <= 65536 ? (uint32_t)block : 1;
    size = nbd_get_size(nbd);
    if (size % TT_SECTOR || (uint64_t)size > TT_DISK_SIZE_MAX) {
        return tt_fail(err, TT_EINVAL, EINVAL,
                       "the disk %s has %" PRId64
                       " bytes, which is not a multiple of %u",
                       d->where, size, TT_SECTOR);
    }
    d->size = (uint64_t)size;
    return 0;
}

static bool is_gone(struct nbd_handle *nbd)
{
    return nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd);
}

/* Reads through @c, which is locked; reconnects once if the server went. */
static int pread_nbd(struct tt_disk *d, struct connection *c, uint64_t offset,
                     void *buf, size_t length, struct tt_error *err)
{
    bool fresh = false;

    for (;;) {
        if (!c->nbd) {
            int ret = connect_nbd(d, &c->nbd, err);

            if (ret < 0) {
                return ret;
            }
            fresh = true;
        }
        if (nbd_pread(c->nbd, buf, length, offset, 0) == 0) {
            return 0;
        }
        if (fresh || !is_gone(c->nbd)) {
            return nbd_fail(d, "read", err);
        }
        nbd_close(c->nbd);
        c->nbd = NULL;
    }
}

/* Servers may want whole blocks: what is not aligned goes through a copy. */
static int pread_blocks(struct tt_disk *d, struct connection *c,
                        uint64_t offset, uint8_t *buf, size_t length,
                        struct tt_error *err)
{
    uint64_t from = offset / d->block * d->block;
    uint64_t to = (offset + length + d->block - 1) / d->block * d->block;
    uint8_t *copy;
    int ret;

    if (to > d->size) {
        to = d->size;
    }
    if (from == offset && to == offset + length) {
        return pread_nbd(d, c, offset, buf, length, err);
    }
    copy = malloc(to - from);
    if (!copy) {
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    ret = pread_nbd(d, c, from, copy, to - from, err);
    if (ret == 0) {
        memcpy(buf, copy + (offset - from), length);
    }
    free(copy);
    return ret;
}

static int read_nbd(struct tt_disk *d, uint64_t offset, uint8_t *buf,
                    size_t length, struct tt_error *err)
{
    struct connection *c =
        &d->pool[atomic_fetch_add(&d->turn, 1) % d->pool_size];
    int ret = 0;

    pthread_mutex_lock(&c->lock);
    while (length && ret == 0) {
        size_t n = length < NBD_READ_MAX ? length : NBD_READ_MAX;

        ret = pread_blocks(d, c, offset, buf, n, err);
        offset += n;
        buf += n;
        length -= n;
    }
    pthread_mutex_unlock(&c->lock);
    return ret;
}

static void close_nbd(struct tt_disk *d)
{
    for (unsigned i = 0; i < POOL; i++) {
        if (d->pool[i].nbd) {
            nbd_close(d->pool[i].nbd);
        }
    }
}

#else /* !HAVE_LIBNBD */

static int open_nbd(struct tt_disk *d, struct tt_error *err)
{
    return tt_fail(err, TT_EINVAL, ENOTSUP,
                   "cannot use %s as disk: this was built without libnbd",
                   d->where);
}

static int read_nbd(struct tt_disk *d, uint64_t offset, uint8_t *buf,
                    size_t length, struct tt_error *err)
{
    (void)offset, (void)buf, (void)length;
    return open_nbd(d, err);
}

static void close_nbd(struct tt_disk *d)
{
    (void)d;
}

#endif

/* ---- both -------------------------------------------------------------- */

int tt_disk_open(const char *where, bool known_raw, struct tt_disk **ret_disk,
                 struct tt_error *err)
{
    struct tt_disk *d = calloc(1, sizeof(*d));
    int ret;

    if (d) {
        d->where = strdup(where);
    }
    if (!d || !d->where) {
        free(d);
        return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < POOL; i++) {
        pthread_mutex_init(&d->pool[i].lock, NULL);
    }
    ret =
        tt_disk_is_uri(where) ? open_nbd(d, err) : open_file(d, known_raw, err);
    if (ret < 0) {
        tt_disk_close(d);
        return ret;
    }
    *ret_disk = d;
    return 0;
}

void tt_disk_close(struct tt_disk *d)
{
    if (!d) {
        return;
    }
    if (d->file) {
        tt_file_close(d->file);
    }
    close_nbd(d);
    for (unsigned i = 0; i < POOL; i++) {
        pthread_mutex_destroy(&d->pool[i].lock);
    }
    free(d->where);
    free(d);
}

const char *tt_disk_where(const struct tt_disk *d)
{
    return d->where;
}

uint64_t tt_disk_size(const struct tt_disk *d)
{
    return d->size;
}

bool tt_disk_modified(const struct tt_disk *d, int64_t *ret_time)
{
    struct stat st;

    if (!d->file || fstat(d->file->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return false;
    }
    *ret_time = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return true;
}

int tt_disk_read(struct tt_disk *d, uint64_t offset, void *buf, size_t length,
                 struct tt_error *err)
{
    if (offset > d->size || length > d->size - offset) {
        return tt_fail(err, TT_EIO, EIO,
                       "the disk %s ends at %" PRIu64 ", before what is needed"
                       " at %" PRIu64,
                       d->where, d->size, offset);
    }
    return d->file ? tt_disk_read_file(&d->file->source, d->where, offset, buf,
                                       length, err)
                   : read_nbd(d, offset, buf, length, err);
}

/* The system knows holes of files; what another server knows is not asked. */
bool tt_disk_zero(const struct tt_disk *d, uint64_t offset, uint64_t length,
                  uint64_t *ret_run)
{
    uint64_t data, hole;

    *ret_run = length;
    if (!d->file) {
        return false;
    }
    data = d->file->source.next_data(d->file, offset);
    if (data > offset) {
        *ret_run = data - offset < length ? data - offset : length;
        return true;
    }
    hole = tt_file_next_hole(d->file, offset);
    if (hole > offset && hole - offset < length) {
        *ret_run = hole - offset;
    }
    return false;
}
