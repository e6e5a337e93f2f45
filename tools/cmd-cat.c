/*
 * ttjournal cat: one file, as it was at a moment
 *
 * The moment is mounted in a mount namespace of our own, so nobody else sees
 * it and nothing stays behind.  The path is resolved as if the view were the
 * root: a symbolic link of the guest never leads to a file of the host.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "view.h"

static int open_inside(const char *root, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd, e;

    if (dir < 0) {
        return -1;
    }
    fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
    e = errno;
    close(dir);
    errno = e;
    return fd;
}

static int write_all(const char *buf, size_t length)
{
    while (length > 0) {
        ssize_t n = write(STDOUT_FILENO, buf, length);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        buf += n;
        length -= (size_t)n;
    }
    return 0;
}

static int read_failed(const struct view *v, const char *path)
{
    int e = errno;
    g_autofree char *complaint = view_complaint(v);

    return tool_fail(e == EIO ? EXIT_DAMAGED : EXIT_IO,
                     "%s: %s%s%s: what was written so far is not all", path,
                     g_strerror(e), complaint ? ": " : "",
                     complaint ? complaint : "");
}

static int copy(const struct view *v, int fd, const char *path)
{
    size_t size = 128 * 1024;
    g_autofree char *buf = g_malloc(size);

    for (;;) {
        ssize_t n = read(fd, buf, size);

        if (process_interrupted()) {
            return tool_fail(EXIT_NO_VIEW, "interrupted");
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return read_failed(v, path);
        }
        if (n == 0) {
            return EXIT_OK;
        }
        if (write_all(buf, (size_t)n) < 0) {
            return tool_fail(EXIT_IO, "standard output cannot be written: %s",
                             g_strerror(errno));
        }
    }
}

static int print_file(const struct view *v, const char *path)
{
    int fd = open_inside(v->target, path);
    int status;
    struct stat st;

    if (fd < 0) {
        return errno == EIO
                   ? read_failed(v, path)
                   : tool_fail(EXIT_NO_FILE, "%s: %s", path, g_strerror(errno));
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        status = tool_fail(EXIT_NO_FILE, "%s: %s", path,
                           S_ISDIR(st.st_mode) ? "is a directory"
                                               : "is no regular file");
    } else {
        status = copy(v, fd, path);
    }
    close(fd);
    return status;
}

static int cat(const struct view_request *req, const char *path)
{
    struct view v;
    int status, down;

    signal(SIGPIPE, SIG_IGN); /* a reader that went is a failed write */
    status = view_up_private(&v, req);
    if (status != EXIT_OK) {
        return status;
    }
    status = print_file(&v, path);
    down = view_down(&v);
    view_clear(&v);
    return status != EXIT_OK ? status : down;
}

/* Cuts JOURNAL@TIME:/PATH; *ret_text is TIME, and *ret_path is behind it. */
static int split(const char *arg, char **ret_journal, char **ret_text,
                 char **ret_path)
{
    int status = tool_split_moment(arg, ret_journal, ret_text);
    char *colon;

    if (status != EXIT_OK) {
        return status;
    }
    colon = strstr(*ret_text, ":/");
    if (colon == NULL) {
        return tool_fail(EXIT_USAGE,
                         "'%s' does not say which file: write "
                         "JOURNAL@TIME:/path",
                         arg);
    }
    *colon = '\0';
    *ret_path = colon + 1;
    return EXIT_OK;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, view_options, &argc, &argv, 1, 1);
    g_autofree char *journal = NULL, *text = NULL;
    struct view_request req;
    char *path = NULL;

    if (status == EXIT_OK) {
        status = split(argv[1], &journal, &text, &path);
    }
    if (status == EXIT_OK) {
        process_catch_signals();
        status = view_request(&req, journal, text);
    }
    if (status == EXIT_OK) {
        status = cat(&req, path);
        view_request_clear(&req);
    }
    return status;
}

const struct tool_command cmd_cat = {
    .name = "cat",
    .synopsis = "JOURNAL@TIME:/PATH",
    .summary = "Print a file of the disk as it was at a moment",
    .examples =
        "  ttjournal cat disk.ttj@2026-11-20T12:00:00Z:/etc/passwd\n"
        "  ttjournal cat disk.ttj@mark:before-upgrade:/var/log/auth.log "
        "-p 1\n",
    .run = run,
};
