/*
 * How does a file become a block device, and cease to be one?
 *
 * With the kernel's loop devices.  They are attached with "autoclear": the
 * device goes when its last user goes, so that nothing stays behind if we are
 * killed, or if somebody unmounts the view by hand.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "loop.h"
#include "process.h"
#include "tool.h"

/* Another process may take a free device before us: so often we try again */
#define ATTEMPTS 64
/* How long the kernel may take to let go of a device */
#define DETACH_US (5 * G_USEC_PER_SEC)

static int fail(const char *device)
{
    int e = errno;

    return tool_fail(EXIT_NO_VIEW, "attaching a loop device: %s: %s%s", device,
                     g_strerror(e),
                     geteuid() != 0 ? " (mounting takes root)" : "");
}

/* One try; EBUSY in errno means that somebody was faster. */
static int attach_once(int control, const struct loop_config *config,
                       char **ret_device, int *ret_fd)
{
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    g_autofree char *device = NULL;
    int fd, e;

    if (number < 0) {
        return -1;
    }
    device = g_strdup_printf("/dev/loop%d", number);
    fd = open(device,
              (config->info.lo_flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) |
                  O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    if (ioctl(fd, LOOP_CONFIGURE, config) < 0) {
        e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    *ret_device = g_steal_pointer(&device);
    *ret_fd = fd;
    return 0;
}

int loop_attach(const char *file, bool writable, char **ret_device, int *ret_fd)
{
    struct loop_config config = {
        .info.lo_flags =
            LO_FLAGS_AUTOCLEAR | (writable ? 0 : LO_FLAGS_READ_ONLY),
    };
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int fd, r = -1, status = EXIT_OK;

    if (control < 0) {
        return fail("/dev/loop-control");
    }
    fd = open(file, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0) {
        status = fail(file);
    } else {
        config.fd = (__u32)fd;
        errno = EBUSY;
        for (int i = 0; i < ATTEMPTS && r < 0 && errno == EBUSY; i++) {
            r = attach_once(control, &config, ret_device, ret_fd);
        }
        if (r < 0) {
            status = fail("no free one");
        }
        close(fd);
    }
    close(control);
    return status;
}

/* Is it @file that the device is attached to, and not another's by now? */
static bool is_ours(const char *device, const char *file)
{
    g_autofree char *name = g_path_get_basename(device);
    g_autofree char *path =
        g_strdup_printf("/sys/block/%s/loop/backing_file", name);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    g_strchomp(text);
    return g_strcmp0(text, file) == 0;
}

int loop_detach(const char *device, const char *file)
{
    gint64 deadline = g_get_monotonic_time() + DETACH_US;
    int fd, r;

    /* the kernel clears it behind our back, and tells nobody when it has */
    while (is_ours(device, file)) {
        if (g_get_monotonic_time() > deadline) {
            return tool_fail(EXIT_NO_VIEW, "detaching %s: still in use",
                             device);
        }
        fd = open(device, O_RDONLY | O_CLOEXEC);
        /* ENXIO: gone already, as autoclear promised */
        r = fd < 0 ? -1 : ioctl(fd, LOOP_CLR_FD);
        if (r < 0 && errno != ENXIO && errno != ENOENT && errno != EBUSY) {
            r = tool_fail(EXIT_NO_VIEW, "detaching %s: %s", device,
                          g_strerror(errno));
            if (fd >= 0) {
                close(fd);
            }
            return r;
        }
        if (fd >= 0) {
            close(fd);
        }
        process_pause();
    }
    return EXIT_OK;
}
