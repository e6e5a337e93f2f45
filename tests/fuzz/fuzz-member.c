/*
 * Fuzzing what the tool reads of members of RAIDs, volume groups and the like
 *
 * An input is some disks: four bytes each (what libblkid takes it for, where
 * its signature is, in sectors, and how many bytes follow), and those bytes.
 * What must hold:
 *
 *   - nothing is printed that is not valid UTF-8, or drives a terminal;
 *   - what is missing is told in one line that is not longer than what one can
 *     read.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/member.h"
#include "fuzz.h"

#define DISKS 8
/* Of 16 names of LVM's, which are 64 bytes long, four letters for each */
#define LINE_MAX_BYTES 8192

static int fd;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fd = memfd_create("disk", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    return 0;
}

static const char *const types[] = { "linux_raid_member", "LVM2_member",
                                     "btrfs", "zfs_member", "ext4" };

/* Its own name, and its set's, of a few that there are. */
static char *make_uuid(const uint8_t *head)
{
    static const char *const names[] = { "pv-a", "pv-b", "set", NULL };

    return g_strdup(names[head[0] / 8 % 4]);
}

/* Reads a disk of the input; how many bytes it was. */
static size_t read_disk(const uint8_t *data, size_t size, struct member *ret,
                        const char **ret_type)
{
    size_t length = MIN((size_t)data[2] | (size_t)data[3] << 8, size - 4);
    off_t at;
    g_autofree char *uuid = make_uuid(data);
    g_autofree char *label = g_strndup((const char *)data + 4, MIN(length, 16));

    *ret_type = types[data[0] % 8 % G_N_ELEMENTS(types)];
    at = strcmp(*ret_type, "btrfs") == 0 ? 65536 : 0;
    FUZZ_CHECK(ftruncate(fd, 0) == 0);
    FUZZ_CHECK(pwrite(fd, data + 4, length, at) == (ssize_t)length);
    member_read(fd, 0, *ret_type, (uint64_t)data[1] * 512, label, uuid, ret);
    return 4 + length;
}

static void check_line(const char *text)
{
    FUZZ_CHECK(text[0] && strlen(text) < LINE_MAX_BYTES);
    FUZZ_CHECK(g_utf8_validate(text, -1, NULL));
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        FUZZ_CHECK(!g_unichar_iscntrl(g_utf8_get_char(p)));
    }
}

static void check_set(const GPtrArray *found, const struct member *m,
                      const char *type)
{
    g_autofree char *missing = NULL, *what = NULL;

    if (m->set == NULL) {
        return;
    }
    what = member_describe(m, type);
    check_line(what);
    missing = member_missing(found, m);
    if (missing != NULL) {
        check_line(missing);
    }
    FUZZ_CHECK(m->all == NULL || g_strv_length(m->all) == m->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct member parts[DISKS] = { 0 };
    const char *kinds[DISKS];
    g_autoptr(GPtrArray) found = g_ptr_array_new();

    while (size > 4 && found->len < DISKS) {
        unsigned i = found->len;
        size_t n = read_disk(data, size, &parts[i], &kinds[i]);

        g_ptr_array_add(found, &parts[i]);
        data += n;
        size -= n;
    }
    for (unsigned i = 0; i < found->len; i++) {
        check_set(found, &parts[i], kinds[i]);
    }
    for (unsigned i = 0; i < found->len; i++) {
        member_clear(&parts[i]);
    }
    return 0;
}
