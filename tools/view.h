/*
 * A past moment, mounted
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_VIEW_H
#define TTJOURNAL_VIEW_H

#include "process.h"
#include "tool.h"

struct view_request {
    const char *journal;
    uint64_t seq;
    const char *disk;   /* the live disk; NULL: from the journal */
    unsigned partition; /* 0: the whole disk */
    bool no_replay;
    const char *via; /* "nbdfuse", "nbd", or NULL: what there is */
};

/* --partition and --via, as both mount and cat have them. */
int view_check_options(int partition, const char *via);

/*
 * Binds a time as the user typed it to req->seq, and makes sure that what is
 * not in the journal can be read: an exit status, and what is wrong has been
 * reported.  *ret_when is the time of the newest record in the view, in
 * brackets; g_free() it.
 */
int view_bind(struct view_request *req, const char *text, const char *tz,
              char **ret_when);

/* What has been made, so that it can be unmade in reverse. */
struct view {
    char *run_dir; /* ours alone, holds all below */
    char *target;  /* where the file system is mounted, canonical */
    char *device;  /* block device it is mounted from */
    int device_fd; /* keeps that device until it is mounted, or -1 */
    struct process server;
    bool via_nbd;
    bool is_private; /* in a mount namespace of our own */
    char *fs_type;
};

/* Where views keep their state: /run/ttjournal, or the user's own. */
char *view_run_base(void);

/*
 * Mounts at @target, and undoes everything if a step fails.  An exit status;
 * what is wrong has been reported.
 */
int view_up(struct view *v, const struct view_request *req, const char *target);
/* The same in a private mount namespace, below a directory of its own. */
int view_up_private(struct view *v, const struct view_request *req);

/* Finds the view that was mounted at @target. */
int view_find(struct view *v, const char *target);
/* Takes it all down; what could not be is reported and left to try again. */
int view_down(struct view *v);
void view_clear(struct view *v);

/* What the server said first about an error; NULL if nothing.  g_free() it. */
char *view_complaint(const struct view *v);

/* ---- between view.c and serve.c ---------------------------------------- */

/* A name in the run directory; g_free() it. */
char *view_path(const struct view *v, const char *name);
/* Notes what has been made. */
int view_save(const struct view *v);
/* Makes v->device; what was made of it before a failure is in *v. */
int view_serve(struct view *v, const struct view_request *req);

#endif
