/*
 * The one place that opens journals and disks as files, for plugin and tools
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_POSIX_FILE_H
#define TTJOURNAL_POSIX_FILE_H

#include <sys/types.h>
#include <ttjournal/ttjournal.h>

/* ---- reading: a journal, or a raw disk image or block device ------------ */

struct tt_file {
    int fd;
    char *path;              /* as given, for messages */
    struct tt_source source; /* opaque is this tt_file */
};

/* Opens read-only, takes no lock; *ret is freed by tt_file_close(). */
int tt_file_open(const char *path, struct tt_file **ret, struct tt_error *err);
void tt_file_close(struct tt_file *f);

/* A descriptor for reading that leaves the access time alone; -1 and errno. */
int tt_open_quietly(const char *path);

/* Puts the file's name in front of a message of the library; returns @r. */
int tt_file_name_error(const char *path, int r, struct tt_error *err);

/* Asks the system again how large the file is. */
int tt_file_update_size(struct tt_file *f, struct tt_error *err);

/* The first hole at or behind @offset, or UINT64_MAX. */
uint64_t tt_file_next_hole(const struct tt_file *f, uint64_t offset);

/* Reads through @fd, which stays the caller's; @path must outlive *f. */
void tt_file_wrap(struct tt_file *f, int fd, const char *path, uint64_t size);

/* Writes all of @buf: 0 or -errno. */
int tt_write_at(int fd, const uint8_t *buf, size_t length, uint64_t offset);

/* ---- appending --------------------------------------------------------- */

/* Room that is made in a new journal's file, and written with zeroes */
struct tt_ahead {
    uint64_t bytes;
    /* May be NULL; false stops it, and nothing is created. */
    bool (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/*
 * Creates @path, which must not exist (or be a block device that begins with
 * zeroes, which is all room), with mode 0600, owned by @uid:@gid where they are
 * not -1, and makes it durable.  Nothing is left behind on failure.
 */
int tt_journal_create(const char *path, const struct tt_super *super, uid_t uid,
                      gid_t gid, const struct tt_ahead *ahead,
                      struct tt_error *err);

/*
 * A session of a tool: takes QEMU's image lock, recovers the journal's tail
 * (what is found above its durable end is rewritten in place and flushed; the
 * disk is not touched), and appends SESSION, which names @program.
 */
struct tt_appender;

/*
 * Looks at the journal under the lock and before anything is written; negative
 * (with *err filled) refuses to go on.
 */
typedef int tt_accept_fn(void *opaque, struct tt_file *journal,
                         struct tt_error *err);

/* @accept may be NULL. */
int tt_appender_open(const char *path, const char *program,
                     tt_accept_fn *accept, void *opaque,
                     struct tt_appender **ret, struct tt_error *err);
/* Appends and makes durable; *ret_seq and *ret_time are the record's. */
int tt_appender_append(struct tt_appender *a, const struct tt_request *req,
                       uint64_t *ret_seq, int64_t *ret_time,
                       struct tt_error *err);
/* Leaves a last frame that vouches for what was appended; frees @a. */
int tt_appender_close(struct tt_appender *a, struct tt_error *err);

#endif
