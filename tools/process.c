/*
 * How are the processes behind a view started, watched and ended?
 *
 * A view outlives the `ttjournal mount` that made it, and another process
 * takes it down, perhaps days later.  So a process is known by its number and
 * the time it started (field 22 of /proc/PID/stat), and a pidfd is used to
 * wait for it and to signal it: a number that was reused is never killed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "tool.h"

/* How long a process that was asked to end may take */
#define TERM_MS 5000

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void process_catch_signals(void)
{
    struct sigaction sa = { .sa_handler = on_signal };

    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

bool process_interrupted(void)
{
    return interrupted;
}

void process_pause(void)
{
    struct timespec ts = { .tv_nsec = 2 * 1000 * 1000 };

    nanosleep(&ts, NULL);
}

/* ---- who is it --------------------------------------------------------- */

/* When process @pid started, in the kernel's ticks; 0 if there is none. */
static uint64_t start_time(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    g_auto(GStrv) fields = NULL;
    const char *rest;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    rest = strrchr(text, ')'); /* a command's name may hold anything */
    if (rest == NULL) {
        return 0;
    }
    fields = g_strsplit(rest + 1, " ", -1); /* [0] is "", [1] is field 3 */
    return g_strv_length(fields) > 20 ? g_ascii_strtoull(fields[20], NULL, 10)
                                      : 0;
}

struct process process_of(pid_t pid)
{
    return (struct process){ .pid = pid, .start = start_time(pid) };
}

/* A pidfd of the process that was started, or -1 if it is gone. */
static int open_process(const struct process *p)
{
    int fd;

    if (p->pid <= 0) {
        return -1;
    }
    fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (fd >= 0 && start_time(p->pid) != p->start) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- starting ---------------------------------------------------------- */

static void child_signals(void)
{
    sigset_t none;

    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Writes who we are to the file @note. */
static void leave_note(const char *note)
{
    pid_t pid = getpid();
    int fd = open(note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 ||
        dprintf(fd, "%d %" PRIu64 "\n", (int)pid, start_time(pid)) < 0) {
        dprintf(STDERR_FILENO, "%s: %s\n", note, strerror(errno));
        _exit(127);
    }
    close(fd);
}

static void child(const char *const *argv, const struct process_how *how,
                  int input, int output, pid_t parent)
{
    child_signals();
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    if (how->dies_with_us) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) { /* it died before we asked */
            _exit(127);
        }
    } else {
        setsid();
    }
    if (how->note != NULL) {
        leave_note(how->note);
    }
    for (const char *const *e = how->env; e != NULL && *e != NULL; e++) {
        putenv((char *)*e);
    }
    execvp(argv[0], (char *const *)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Where @text can be read, a pipe that holds all of it; -1 with errno. */
static int open_input(const char *text)
{
    ssize_t n;
    int fds[2];

    if (text == NULL) {
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    if (pipe2(fds, O_CLOEXEC) < 0) {
        return -1;
    }
    n = write(fds[1], text, strlen(text)); /* of up to 4 KiB: all or nothing */
    close(fds[1]);
    if (n < 0) {
        close(fds[0]);
        return -1;
    }
    return fds[0];
}

static int start(const char *const *argv, const struct process_how *how,
                 int output, pid_t *ret_pid)
{
    int input = open_input(how->input);
    pid_t parent = getpid();
    pid_t pid = -1;

    if (input >= 0) {
        fflush(NULL);
        pid = fork();
    }
    if (pid == 0) {
        child(argv, how, input, output, parent);
    }
    if (input >= 0) {
        int e = errno;

        close(input);
        errno = e;
    }
    if (pid < 0) {
        return tool_fail(EXIT_IO, "%s cannot be started: %s", argv[0],
                         g_strerror(errno));
    }
    *ret_pid = pid;
    return EXIT_OK;
}

int process_start(const char *const *argv, const struct process_how *how,
                  struct process *ret)
{
    int fd = open(how->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_t pid = 0;
    int status;

    if (fd < 0) {
        return tool_fail(EXIT_IO, "%s: cannot be written: %s", how->log,
                         g_strerror(errno));
    }
    status = start(argv, how, fd, &pid);
    close(fd);
    if (status == EXIT_OK) {
        *ret = process_of(pid);
    }
    return status;
}

struct process process_noted(const char *note)
{
    g_autofree char *text = NULL;
    unsigned long long began;
    struct process p = { 0 };
    int pid;

    /* without its end the writer was killed in the middle: it is no more */
    if (g_file_get_contents(note, &text, NULL, NULL) &&
        g_str_has_suffix(text, "\n") &&
        sscanf(text, "%d %llu", &pid, &began) == 2) {
        p = (struct process){ .pid = pid, .start = began };
    }
    return p;
}

/* Reads all that comes, until the other end is closed. */
static char *read_all(int fd)
{
    GString *s = g_string_new(NULL);
    char buf[4096];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)) {
        g_string_append_len(s, buf, MAX(n, 0));
    }
    return g_string_free(s, FALSE);
}

int process_run(const char *const *argv, char **ret_output, int *ret_exit)
{
    static const struct process_how with_us = { .dies_with_us = true };
    int pipe_fds[2], how, status;
    pid_t pid;

    *ret_output = NULL;
    *ret_exit = -1;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return tool_fail(EXIT_IO, "no pipe: %s", g_strerror(errno));
    }
    status = start(argv, &with_us, pipe_fds[1], &pid);
    close(pipe_fds[1]);
    if (status != EXIT_OK) {
        close(pipe_fds[0]);
        return status;
    }
    *ret_output = read_all(pipe_fds[0]);
    close(pipe_fds[0]);
    while (waitpid(pid, &how, 0) < 0 && errno == EINTR) {
        continue;
    }
    g_strchomp(*ret_output);
    if (WIFEXITED(how)) {
        *ret_exit = WEXITSTATUS(how);
    }
    return EXIT_OK;
}

bool process_succeeds(const char *const *argv, char **ret_output)
{
    int code;

    return process_run(argv, ret_output, &code) == EXIT_OK && code == 0;
}

/* ---- ending ------------------------------------------------------------ */

/* True if it ended within @timeout_ms. */
static bool await(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int r;

    do {
        r = poll(&p, 1, timeout_ms);
    } while (r < 0 && errno == EINTR);
    return r > 0;
}

bool process_alive(const struct process *p)
{
    int fd;
    bool alive;

    waitpid(p->pid, NULL, WNOHANG); /* fails if it is no child; no matter */
    fd = open_process(p);
    if (fd < 0) {
        return false;
    }
    alive = !await(fd, 0);
    close(fd);
    return alive;
}

void process_end(struct process *p, unsigned patience_ms)
{
    int fd = open_process(p);

    if (fd >= 0 && !await(fd, (int)patience_ms)) {
        syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
        if (!await(fd, TERM_MS)) {
            syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
            await(fd, TERM_MS);
        }
    }
    if (fd >= 0) {
        close(fd);
        waitpid(p->pid, NULL, WNOHANG);
    }
    *p = (struct process){ 0 };
}
