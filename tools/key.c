/*
 * Where does the key of an encrypted disk come from?
 *
 * From a file or from who sits at the terminal; never from the command line,
 * which others can read.  It goes to libguestfs by a pipe.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bsd/readpassphrase.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "process.h"
#include "view.h"

/* libguestfs takes one line; a pipe holds as much without a reader */
#define KEY_MAX 4096

/* Reads at most @size bytes; -1 with errno. */
static ssize_t read_up_to(int fd, char *buf, size_t size)
{
    size_t length = 0;
    ssize_t n = 1;

    while (length < size && n != 0) {
        n = read(fd, buf + length, size - length);
        if (n < 0 && (errno != EINTR || process_interrupted())) {
            return -1;
        }
        length += (size_t)MAX(n, 0);
    }
    return (ssize_t)length;
}

static int from_file(const char *path, char buf[KEY_MAX + 2])
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read_up_to(fd, buf, KEY_MAX + 2);
    int e = errno;

    if (fd >= 0 && !standard) {
        close(fd);
    }
    if (length < 0) {
        return tool_fail(EXIT_USAGE, "--key-file %s: %s", path, g_strerror(e));
    }
    if (length > 0 && buf[length - 1] == '\n') {
        length--;
    }
    if (length == 0 || length > KEY_MAX ||
        memchr(buf, '\n', (size_t)length) != NULL ||
        memchr(buf, '\0', (size_t)length) != NULL) {
        return tool_fail(EXIT_USAGE,
                         "--key-file %s: is not one line of at most %d bytes, "
                         "which is what libguestfs takes",
                         path, KEY_MAX);
    }
    buf[length] = '\0';
    return EXIT_OK;
}

static int from_terminal(char buf[KEY_MAX + 2])
{
    if (readpassphrase("Passphrase: ", buf, KEY_MAX + 1, RPP_REQUIRE_TTY) ==
        NULL) {
        return process_interrupted()
                   ? tool_fail(EXIT_NO_VIEW, "interrupted; nothing was done")
                   : tool_fail(EXIT_USAGE,
                               "--ask-key: there is no terminal to ask at "
                               "(%s): --key-file takes it from a file",
                               g_strerror(errno));
    }
    if (buf[0] == '\0') {
        return tool_fail(EXIT_USAGE, "--ask-key: that was empty");
    }
    return EXIT_OK;
}

/*
 * Nobody who has the key, we or what we start, leaves a core file; 1 byte is
 * what the kernel takes for "nor tell a program that collects them".
 */
static int forbid_cores(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = MIN(limit.rlim_max, 1);
        if (setrlimit(RLIMIT_CORE, &limit) == 0) {
            return EXIT_OK;
        }
    }
    return tool_fail(EXIT_IO, "core files cannot be forbidden: %s",
                     g_strerror(errno));
}

int view_read_key(const char *file, char **ret)
{
    char buf[KEY_MAX + 2];
    int status = forbid_cores();

    if (status == EXIT_OK) {
        status = file ? from_file(file, buf) : from_terminal(buf);
    }
    if (status == EXIT_OK) {
        *ret = g_strdup(buf);
    }
    explicit_bzero(buf, sizeof(buf));
    return status;
}
