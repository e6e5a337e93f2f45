/*
 * Processes that serve a view: start, wait until ready, end
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_PROCESS_H
#define TTJOURNAL_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A process, and when it started, so that a reused number is noticed. */
struct process {
    pid_t pid; /* 0: none */
    uint64_t start;
};

/* How a process is started. */
struct process_how {
    const char *log;        /* its output is added there */
    const char *note;       /* it writes who it is there, first; or NULL */
    const char *const *env; /* NAME=VALUE, besides ours, to a NULL; or NULL */
    const char *input;      /* what it reads, 4 KiB at most; or NULL */
    bool dies_with_us;      /* SIGTERM when we end; else it stays */
};

/*
 * Starts @argv.  What we hold with O_CLOEXEC, it holds until its note is
 * written: a lock that is free tells that no note is still to come.
 */
int process_start(const char *const *argv, const struct process_how *how,
                  struct process *ret);

/* The process that has this number now. */
struct process process_of(pid_t pid);

/* Who left the note; pid 0 if nobody did. */
struct process process_noted(const char *note);

/*
 * Runs @argv to its end: its output, and its exit status (-1: a signal) in
 * *ret_exit.  An exit status of ours.
 */
int process_run(const char *const *argv, char **ret_output, int *ret_exit);
/* The same; did it exit with 0? */
bool process_succeeds(const char *const *argv, char **ret_output);

/* Is it still running?  (Also collects it if it is a child of ours.) */
bool process_alive(const struct process *p);

/* Waits until it ends by itself; then asks; then kills.  Clears *p. */
void process_end(struct process *p, unsigned patience_ms);

/* From now on SIGINT, SIGTERM and SIGHUP only set process_interrupted(). */
void process_catch_signals(void);
bool process_interrupted(void);

/* A short pause in a loop that waits for what cannot be waited for. */
void process_pause(void);

#endif
