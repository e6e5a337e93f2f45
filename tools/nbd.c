/*
 * How does what a server serves become a device of the kernel's nbd?
 *
 * By nbd-client, on a device that nobody uses.  All views of a machine, and
 * whoever else has nbd, take from the same few devices.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd.h"

/* How long nbd-client may take to let go of what was detached */
#define DETACH_US (5 * G_USEC_PER_SEC)

/* ---- which device ------------------------------------------------------- */

/* What sysfs says of who has attached it; NULL if nobody has. */
static char *nbd_owner(const char *device)
{
    g_autofree char *name = g_path_get_basename(device);
    g_autofree char *path = g_strdup_printf("/sys/block/%s/pid", name);
    char *text = NULL;

    if (g_file_get_contents(path, &text, NULL, NULL)) {
        g_strchomp(text);
    }
    return text;
}

/*
 * Opens and locks @device, if no nbd client uses it: udev leaves a device
 * alone that is locked, so that nothing is activated there before we know what
 * is on it; and so does another mount that looks for one.  The descriptor; -1
 * with errno, which is EBUSY if it is somebody's.
 */
static int claim(const char *device)
{
    g_autofree char *owner = NULL;
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    int e;

    if (fd < 0) {
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        e = errno == EWOULDBLOCK ? EBUSY : errno;
    } else {
        owner = nbd_owner(device);
        if (owner == NULL) {
            return fd;
        }
        e = EBUSY;
    }
    close(fd);
    errno = e;
    return -1;
}

/* Finds a device that is free, and locks it as v->device_fd. */
static int find_device(struct view *v, char **ret_device)
{
    const char *modprobe[] = { "modprobe", "-q", "nbd", NULL };
    g_autofree char *output = NULL;

    if (access("/sys/block/nbd0", F_OK) < 0) {
        process_succeeds(modprobe, &output); /* what follows will tell */
    }
    for (int i = 0; i < 256; i++) {
        g_autofree char *device = g_strdup_printf("/dev/nbd%d", i);

        v->device_fd = claim(device);
        if (v->device_fd >= 0) {
            *ret_device = g_steal_pointer(&device);
            return EXIT_OK;
        }
        if (errno == ENOENT || errno == ENXIO) {
            break;
        }
        if (errno != EBUSY) {
            return tool_fail(EXIT_NO_VIEW, "%s: %s", device, g_strerror(errno));
        }
    }
    return tool_fail(EXIT_NO_VIEW, "there is no free /dev/nbd device: "
                                   "modprobe nbd, or install nbdfuse");
}

/* ---- how large is it? ---------------------------------------------------- */

static bool exchange(int fd, const void *out, size_t out_size, void *in,
                     size_t in_size)
{
    char *p = in;

    if (send(fd, out, out_size, MSG_NOSIGNAL) != (ssize_t)out_size) {
        return false;
    }
    while (in_size > 0) {
        ssize_t n = recv(fd, p, in_size, MSG_WAITALL);

        if (n <= 0) {
            return false;
        }
        p += n;
        in_size -= (size_t)n;
    }
    return true;
}

/*
 * The size of what is served at @socket, 0 if it is not told.  NBD's shortest
 * way: a greeting of 18 bytes; our flags (new style, no padding) and the
 * option 1, an export, which has no name; its size, and flags.
 */
static uint64_t served_size(const char *socket_path)
{
    static const uint8_t option[] = { 0,   0,   0,   3,   'I', 'H', 'A',
                                      'V', 'E', 'O', 'P', 'T', 0,   0,
                                      0,   1,   0,   0,   0,   0 };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    uint8_t greeting[18], told[10];
    uint64_t size = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 &&
        g_strlcpy(address.sun_path, socket_path, sizeof(address.sun_path)) <
            sizeof(address.sun_path) &&
        connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        exchange(fd, "", 0, greeting, sizeof(greeting)) &&
        exchange(fd, option, sizeof(option), told, sizeof(told))) {
        memcpy(&size, told, sizeof(size));
    }
    if (fd >= 0) {
        close(fd);
    }
    return GUINT64_FROM_BE(size);
}

/* ---- attaching, detaching ----------------------------------------------- */

/*
 * Waits until @device is the disk of @size.  Depending on the version of
 * nbd-client another process of it does the last step, and the kernel names
 * the owner before it sets the size: in between the device is empty, or as
 * large as what it was before.  Until then, it goes with the server.
 */
static int await_disk(struct view *v, const char *device, uint64_t size)
{
    g_autofree char *owner = NULL;

    while ((owner = nbd_owner(device)) == NULL ||
           lseek(v->device_fd, 0, SEEK_END) != (off_t)size) {
        g_clear_pointer(&owner, g_free);
        if (process_interrupted() || !process_alive(&v->servers[0])) {
            return view_server_failed(v, "serving the moment");
        }
        process_pause();
    }
    v->nbd_owner = g_steal_pointer(&owner);
    return EXIT_OK;
}

int nbd_attach(struct view *v, const char *socket, bool read_only)
{
    g_autofree char *device = NULL, *output = NULL;
    uint64_t size = served_size(socket);
    int status;

    if (size == 0) {
        return view_server_failed(v, "asking for the disk's size");
    }
    status = find_device(v, &device);
    if (status == EXIT_OK) {
        /* by netlink it attaches nothing that somebody has open, as we have */
        const char *argv[] = { "nbd-client",  "-nonetlink",
                               "-block-size", "512",
                               "-unix",       socket,
                               device,        read_only ? "-readonly" : NULL,
                               NULL };

        if (!process_succeeds(argv, &output)) {
            return tool_fail(EXIT_NO_VIEW, "attaching %s: %s", device, output);
        }
        status = await_disk(v, device, size);
    }
    if (status == EXIT_OK) {
        v->device = g_steal_pointer(&device);
        status = view_save(v);
    }
    return status;
}

static bool still_ours(const struct view *v)
{
    g_autofree char *owner = nbd_owner(v->device);

    return owner != NULL && g_strcmp0(owner, v->nbd_owner) == 0;
}

int nbd_detach(const struct view *v)
{
    gint64 deadline = g_get_monotonic_time() + DETACH_US;
    g_autofree char *output = NULL;
    const char *argv[] = { "nbd-client", "-d", v->device, NULL };

    if (still_ours(v) && !process_succeeds(argv, &output)) {
        return tool_fail(EXIT_NO_VIEW, "detaching %s: %s", v->device, output);
    }
    /* who attached it lets go a little later; when its server is ended, at
     * the latest */
    while (still_ours(v) && g_get_monotonic_time() < deadline) {
        process_pause();
    }
    return EXIT_OK;
}
