/*
 * The files that views are served from, and the harm that comes to them
 *
 * A journal of the simulated recorder, its index, the live disk, and a second
 * journal that nothing happens to.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef FUZZ_MEDIA_H
#define FUZZ_MEDIA_H

#include "fuzz.h"

/* ---- an input, which is a list of steps ---------------------------------- */

struct script {
    const uint8_t *p;
    size_t left;
};

/* A number of @bytes, little-endian; behind the end there are zeroes. */
uint64_t script_take(struct script *s, unsigned bytes);
/* A text that begins with its length. */
void script_text(struct script *s, char *ret, size_t size);

/*
 * What an input begins with, a byte each:
 *
 *     kind of journal, enum media_form, enum media_index, flags, at=
 *
 * where at= is a text.  Then steps: a byte says which, and what it needs
 * follows.  PLACE is a byte that says of what, and three more: see media.c.
 */
enum media_form {
    FORM_JOURNAL,
    FORM_FOLDER,
    FORM_MACHINE,
    FORM_SINGLE,
    FORMS,
};

enum media_index {
    INDEX_NONE,    /* the plugin makes one if that is worth it */
    INDEX_WHOLE,   /* made before there was any damage */
    INDEX_DAMAGED, /* made of what there is when the server starts */
    INDEX_FOLDER,  /* as INDEX_WHOLE, but index= says where */
    INDEXES,
};

#define FLAG_DISK 1u    /* there is a live disk */
#define FLAG_THREADS 2u /* the server has gone into the background */
#define FLAG_COLD 4u    /* reads wait for the medium */

enum step {
    STEP_BYTES,   /* PLACE, how many (1), those bytes */
    STEP_FILL,    /* PLACE, length (2), with what (1) */
    STEP_COPY,    /* PLACE from, PLACE to, length (2) */
    STEP_SWAP,    /* the same */
    STEP_CUT,     /* PLACE */
    STEP_NUMBER,  /* PLACE, width (1), how (1), by how much (1) */
    STEP_OTHER,   /* PLACE, length (2): as another journal has it (1) */
    STEP_RESEAL,  /* checksums fit again; and links (1), too */
    STEP_HOLD,    /* PLACE: what comes behind it is not yet written */
    STEP_GROW,    /* now it is */
    STEP_REPAIR,  /* the journal is as it was */
    STEP_REPLACE, /* a copy of it takes its place */
    STEP_OPEN,    /* slot (1), kind of name (1), and what that needs */
    STEP_CLOSE,   /* slot (1) */
    STEP_READ,    /* slot (1), offset (3), length (3) */
    STEP_EXTENTS, /* the same; one only (1) */
    STEP_CACHE,   /* slot (1), offset (3), length (3) */
    STEP_WALK,    /* slot (1), sectors at once (1) */
    STEP_LIST,
    STEP_FOLLOW, /* another process brings the index up to date */
    STEPS,
};

/* ---- files --------------------------------------------------------------- */

/* One file, as long as some view of it may be open */
struct media_file {
    /*
     * The journals that it was always honest to (a bit for each of enum
     * fuzz_kind): what a view holds is what one of them says.  0: checksums
     * were made to fit, and a view may hold anything.
     */
    unsigned fits;
    bool whole;  /* no byte was ever changed */
    bool behind; /* the live disk was newer than its end */
};

/* Once, before anything else */
void media_init(void);
const struct fuzz_base *media_base(unsigned kind);

struct media;
/* Files for an input; nothing of another one is left. */
struct media *media_new(unsigned kind, enum media_index index, bool disk);
void media_free(struct media *m);
/* Those before STEP_OPEN.  @now: what is there is changed at once. */
void media_step(struct media *m, enum step step, struct script *s, bool now);
/* All is there that the server is to find. */
void media_ready(struct media *m);
struct media_file *media_now(struct media *m);
struct media_file *media_second(struct media *m);
unsigned media_kind(const struct media *m);
/* The live disk's bytes, or NULL. */
const uint8_t *media_disk(const struct media *m);
/* Is index= to be given? */
bool media_index_option(const struct media *m);
/* Writes a machine's file: the disk "a" is the journal, "b" the second one. */
void media_put_machine(const struct media *m);
/* Another process follows the journal. */
void media_follow(struct media *m);

/* Paths: of a journal, its live disk, where journals and indexes lie, … */
extern const char *media_journal, *media_disk_path, *media_folder, *media_index,
    *media_machine;

#endif
