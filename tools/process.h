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

/*
 * Starts @argv with its output in @log.  With @dies_with_us it gets SIGTERM
 * when we end; else it has a session of its own and stays.
 */
int process_start(const char *const *argv, const char *log, bool dies_with_us,
                  struct process *ret);

/* Runs @argv to its end; an exit status of ours, its output in *ret_output. */
int process_run(const char *const *argv, char **ret_output);

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
