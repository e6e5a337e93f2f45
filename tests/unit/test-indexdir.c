/*
 * Folders of indexes: whose are they, and who may have them?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <posix/file.h>
#include <posix/indexdir.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#define SOMEBODY 65534

static const char *swap_for; /* what a folder that is made becomes a link to */

/* The library's: somebody may be quick between it and what comes next. */
int mkdir(const char *path, mode_t mode)
{
    int r = mkdirat(AT_FDCWD, path, mode);

    if (r == 0 && swap_for) {
        ck_assert_int_eq(rmdir(path), 0);
        ck_assert_int_eq(symlink(swap_for, path), 0);
    }
    return r;
}

struct place {
    char dir[64], journal[80], index[100], other[80];
    struct tt_file file;
};

static void begin(struct place *p)
{
    int fd;

    swap_for = NULL;
    snprintf(p->dir, sizeof(p->dir), "/tmp/ttj-indexdir-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(p->dir));
    snprintf(p->journal, sizeof(p->journal), "%s/j", p->dir);
    snprintf(p->index, sizeof(p->index), "%s/j.index", p->dir);
    snprintf(p->other, sizeof(p->other), "%s/other", p->dir);
    fd = open(p->journal, O_RDWR | O_CREAT | O_EXCL, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fchmod(fd, 0644), 0);
    tt_file_wrap(&p->file, fd, p->journal, 0);
}

static void end(struct place *p)
{
    char lock[120];

    snprintf(lock, sizeof(lock), "%s/lock", p->index);
    unlink(lock);
    close(p->file.fd);
    unlink(p->journal);
    if (rmdir(p->index) < 0) {
        unlink(p->index);
    }
    rmdir(p->other);
    ck_assert_int_eq(rmdir(p->dir), 0);
}

static int open_it(struct place *p, struct tt_index_dir *d)
{
    static const uint8_t uuid[TT_UUID_SIZE] = { 1 };

    return tt_index_dir_open(&p->file, uuid, NULL, 0, true, d);
}

/* Who may read the journal may read its index. */
START_TEST(a_new_folder)
{
    struct tt_index_dir d;
    struct place p;
    struct stat st;

    begin(&p);
    ck_assert_int_eq(open_it(&p, &d), 0);
    ck_assert_int_eq(fstat(d.fd, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0755);
    ck_assert(d.writable);
    tt_index_dir_close(&d);
    end(&p);
}
END_TEST

/* What somebody puts in its place does not get its mode. */
START_TEST(a_folder_that_is_exchanged)
{
    struct tt_index_dir d;
    struct place p;
    struct stat st;

    begin(&p);
    ck_assert_int_eq(mkdir(p.other, 0700), 0);
    swap_for = p.other;
    ck_assert_int_lt(open_it(&p, &d), 0);
    swap_for = NULL;
    ck_assert_int_eq(stat(p.other, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0700);
    end(&p);
}
END_TEST

/* What root makes for somebody is all his, the lock too. */
START_TEST(made_by_root)
{
    struct tt_index_dir d;
    struct place p;
    struct stat st;
    int lock;

    begin(&p);
    if (geteuid() != 0 || chown(p.journal, SOMEBODY, SOMEBODY) < 0) {
        printf("made_by_root: skipped, it takes root\n");
        end(&p);
        return;
    }
    ck_assert_int_eq(open_it(&p, &d), 0);
    ck_assert_int_eq(fstat(d.fd, &st), 0);
    ck_assert_int_eq(st.st_uid, SOMEBODY);
    lock = tt_index_dir_lock(&d, false);
    ck_assert_int_ge(lock, 0);
    ck_assert_int_eq(fstat(lock, &st), 0);
    ck_assert_int_eq(st.st_uid, SOMEBODY);
    ck_assert_int_eq(st.st_gid, SOMEBODY);
    ck_assert_int_eq(tt_index_dir_lock(&d, false), -EWOULDBLOCK);
    close(lock);
    tt_index_dir_close(&d);
    end(&p);
}
END_TEST

int main(void)
{
    return unit_run("indexdir", (const TTest *const *const[]){
                                    &a_new_folder,
                                    &a_folder_that_is_exchanged,
                                    &made_by_root,
                                    NULL,
                                });
}
