/*
 * A past moment, mounted
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_VIEW_H
#define TTJOURNAL_VIEW_H

#include "process.h"
#include "tool.h"

/* ---- what is asked for -------------------------------------------------- */

/* As many disks of one machine can be put together */
#define VIEW_DISKS 16

struct view_disk {
    char *journal; /* absolute: the server may not be where we are */
    uint64_t seq;
    const char *live; /* the live disk; NULL: from the journal */
};

struct view_request {
    struct view_disk disks[VIEW_DISKS]; /* the first is what is mounted */
    unsigned n_disks;
    char *when;         /* time of the newest record, in brackets, or "" */
    unsigned partition; /* 0: the whole disk */
    bool no_replay;
    bool isolated;      /* no driver of this machine may touch it */
    bool distrusted;    /* the user said so: nor may libblkid */
    const char *volume; /* "VG/LV", "md127", …; NULL: the disk itself */
    const char *via;    /* "nbdfuse", "nbd", or NULL: what there is */
    char *key;          /* of what is encrypted; NULL: nothing is */
};

/* The options that say which view is meant, for mount and cat. */
extern const GOptionEntry view_options[];

/*
 * Checks the options, and binds the time as the user typed it to a sequence
 * number in each journal.  An exit status; what is wrong has been reported.
 */
int view_request(struct view_request *req, const char *journal,
                 const char *text);
void view_request_clear(struct view_request *req);
/* The key in @file ("-": standard input), or asked for if that is NULL. */
int view_read_key(const char *file, char **ret);

/* ---- what was made ------------------------------------------------------ */

/* All that can be unmade, in reverse.  What is NULL or 0 was not made. */
struct view {
    char *run_dir;   /* ours alone, holds all below */
    int lock;        /* of run_dir, or -1: only its holder changes anything */
    char *target;    /* where the file system is mounted, canonical */
    char *source;    /* what is mounted there, as /proc/mounts names it */
    char *device;    /* the block device, loop or nbd */
    int device_fd;   /* keeps a loop device until it is mounted, or -1 */
    char *nbd_owner; /* what sysfs says of an nbd device that is ours */
    char *file;      /* nbdfuse's file with the disk or partition in it */
    struct process servers[VIEW_DISKS];
    struct process backend; /* nbdfuse's nbdkit */
    struct process helper;  /* that serves the file system itself */
    char *litter;           /* a folder a killed libguestfs leaves */
    bool is_private;        /* ends with this command */
    char *mount_namespace;  /* where the target is */

    /* for people */
    char *journal, *when, *fs_type, *how;
    uint64_t seq;
};

/*
 * Mounts at @target, and undoes everything if a step fails.  An exit status;
 * what is wrong has been reported.
 */
int view_up(struct view *v, const struct view_request *req, const char *target);
/* The same below a directory of its own, for this command only. */
int view_up_private(struct view *v, const struct view_request *req);
/* Serves for this command only, and mounts nothing: v->file has it. */
int view_up_file(struct view *v, const struct view_request *req);

/* Finds the view that was mounted at @target, and locks it; waits for that. */
int view_find(struct view *v, const char *target);
/* Takes it all down; what could not be is reported and left to try again. */
int view_down(struct view *v);
void view_clear(struct view *v);

/*
 * What the server said first about an error, such as damage that it met; NULL
 * if nothing.  g_free() it.
 */
char *view_error(const struct view *v);
/* That, or else what was said last. */
char *view_complaint(const struct view *v);

/* ---- state.c: what was made, on disk ------------------------------------ */

/* Where views keep their state; NULL, reported, if there is no place. */
char *view_run_base(void);
/* The canonical name of a directory, also of one whose server is dead. */
char *view_canonical(const char *dir);
/* A name in the run directory; g_free() it. */
char *view_path(const struct view *v, const char *name);
/* Notes what has been made. */
int view_save(const struct view *v);
/* Makes v->run_dir for v->target, locked, or says what is there. */
int view_claim(struct view *v);
/* Locks and reads an existing one; EXIT_LOCKED, not reported, if busy. */
int view_open(struct view *v, const char *run_dir, bool wait);
int view_forget(struct view *v);

enum view_state {
    VIEW_MOUNTED,
    VIEW_BROKEN,    /* mounted, and a process that serves it is gone */
    VIEW_ELSEWHERE, /* alive in another mount namespace */
    VIEW_LEFTOVER,  /* not mounted any more, or never was */
};
enum view_state view_state(const struct view *v);
/* Is the source mounted at the target, whatever may be over it? */
bool view_is_mounted(const char *target, const char *source);
/* What is mounted topmost there, as /proc/mounts names it; NULL: nothing. */
char *view_topmost(const char *target);

/* ---- serve.c: a moment as a block device, a file, or sockets ------------ */

/*
 * Finds the plugin, once.  In another mount namespace we could not tell where
 * we are ourselves.
 */
void view_find_plugin(void);
/* Makes v->file or v->device of the first disk. */
int view_serve(struct view *v, const struct view_request *req);
/* Opens what is served, to be read; -1 if that fails, and is told. */
int view_open_served(const struct view *v, uint64_t *ret_size);
/* Makes v->device of v->file, if that is not done yet. */
int view_attach(struct view *v, bool writable);
/* One socket for each disk; the path of number @i is view_socket(v, i). */
int view_serve_sockets(struct view *v, const struct view_request *req);
char *view_socket(const struct view *v, unsigned i);
/* Unmounts a directory: 0, or -1 with errno. */
int view_unmount(const char *dir);
/* Undoes all of that. */
int view_unserve(struct view *v);
/* The last words of a process that should have gone on. */
int view_server_failed(const struct view *v, const char *what);

/* ---- fs.c, guest.c: who reads the file system --------------------------- */

/* Mounts what is served at v->target. */
int fs_mount(struct view *v, const struct view_request *req);
/* What to do with what is no file system; NULL: nothing known; g_free() it. */
struct probe;
char *fs_offer(const struct probe *p);
/* NULL if guestfish can be used here, else what is missing. */
const char *guest_missing(void);
/* Mounts in libguestfs' virtual machine; serves by itself. */
int guest_mount(struct view *v, const struct view_request *req);
/* Notes what a killed libguestfs would leave, and removes that. */
int guest_note_litter(struct view *v);
void guest_remove_litter(struct view *v);
/* Lists what libguestfs finds: lines "DEVICE: TYPE"; g_free() it. */
int guest_list(struct view *v, const struct view_request *req, char **ret);

/*
 * Starts @argv, which mounts v->source at v->target and may read @input, as
 * v->helper, and waits until it is there.
 */
int view_start_helper(struct view *v, GPtrArray *argv, const char *const *env,
                      const char *input);

/* A printf-like argument of a command. */
void argv_add(GPtrArray *argv, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
