/*
 * What kind of disk image is this, and how large is its disk?
 *
 * Only a raw image is as large as its disk.  Other formats are recognised by
 * their magic so that a file's size is never taken for a disk's; what they
 * hold is QEMU's to read, not ours.  A guest can write any magic into a raw
 * disk, so a wrong guess must be harmless: the user is asked, nothing more.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "image.h"
#include "tool.h"

struct magic {
    const char *format;
    uint32_t offset, length;
    const char *bytes;
};

static const struct magic magics[] = {
    { "qcow2", 0, 4, "QFI\xfb" },
    { "qed", 0, 4, "QED\0" },
    { "vmdk", 0, 4, "KDMV" },
    { "vmdk", 0, 4, "COWD" },
    { "vmdk", 0, 21, "# Disk DescriptorFile" },
    { "vhdx", 0, 8, "vhdxfile" },
    { "vpc", 0, 8, "conectix" },
    { "vdi", 64, 4, "\x7f\x10\xda\xbe" },
    { "luks", 0, 6, "LUKS\xba\xbe" },
    { "parallels", 0, 16, "WithoutFreeSpace" },
    { "parallels", 0, 16, "WithouFreSpacExt" },
};

static const char *find_magic(const uint8_t *head, size_t length)
{
    for (size_t i = 0; i < G_N_ELEMENTS(magics); i++) {
        const struct magic *m = &magics[i];

        if (m->offset + m->length <= length &&
            memcmp(head + m->offset, m->bytes, m->length) == 0) {
            return m->format;
        }
    }
    return "raw";
}

int image_probe(const char *path, const char **ret_format,
                uint64_t *ret_file_size)
{
    struct tt_error err = { 0 };
    uint8_t head[512];
    struct tt_file *f;
    size_t length;
    int r;

    if (tt_file_open(path, &f, &err) < 0) {
        return tool_fail(EXIT_IO, "%s", err.message);
    }
    length = MIN(sizeof(head), f->source.size);
    r = f->source.read(f, 0, head, length);
    *ret_file_size = f->source.size;
    tt_file_close(f);
    if (r < 0) {
        return tool_fail(EXIT_IO, "%s: cannot be read: %s", path,
                         g_strerror(-r));
    }
    *ret_format = find_magic(head, length);
    return EXIT_OK;
}
