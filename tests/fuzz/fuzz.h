/*
 * What the fuzzers share
 *
 * The journals they begin with are made by the simulated recorder of the unit
 * tests, always the same ones, in segments of TT_SEGMENT_MIN, which is small
 * here.  The recorder's model knows what each moment of their disk holds.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "../unit/simwriter.h"

/* An invariant: libFuzzer keeps the input that breaks it. */
#define FUZZ_CHECK(condition)                                                  \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fuzz_wrong(__FILE__, __LINE__, #condition);                        \
        }                                                                      \
    } while (0)
void fuzz_wrong(const char *file, int line, const char *what)
    __attribute__((noreturn));

void *fuzz_alloc(size_t size); /* zeroed; ends the program if there is none */

/* What came back is 0 or a failure that is told as the rules have it. */
int fuzz_told(int ret, const struct tt_error *err);

/* ---- what libFuzzer calls, and what it offers -------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room,
                               unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);

/* ---- bytes that are a journal ------------------------------------------ */

struct fuzz_image {
    uint8_t *bytes; /* owned, exactly that many: a look beyond is seen */
    size_t size;
};

/* Reads within the image only; whoever asks for more is wrong. */
struct tt_source fuzz_source(struct fuzz_image *image);

/*
 * A journal as an input is shorter: what lies behind each superblock is left
 * out.  (The rest of that area is of no interest: verify alone looks at it.)
 */
#define FUZZ_SUPERS (2 * sizeof(struct tt_superblock))
void fuzz_unpack(const uint8_t *data, size_t size, struct fuzz_image *ret);
void fuzz_pack(const struct fuzz_image *image, uint8_t **ret, size_t *ret_size);

/* ---- journals from the real writer ------------------------------------- */

enum fuzz_kind {
    FUZZ_PLAIN, /* one session, closed clean */
    FUZZ_LONG,  /* several sessions, epochs and segments with footers */
    FUZZ_OPEN,  /* not closed: the end is not durable */
    FUZZ_GAPS,  /* of which some writes are not recorded */
    FUZZ_FORK,  /* begins as FUZZ_LONG does, and goes on with other bytes */
    FUZZ_BASES,
    FUZZ_WIDE = FUZZ_BASES, /* of a disk that is worth reading in parts; it */
    FUZZ_ALL_BASES,         /* is too long for an input */
};

struct fuzz_base {
    struct sim_world world;
    struct simwriter sw; /* its model tells the truth */
    struct fuzz_image image;
    char letter; /* the first of those that are written */
};

void fuzz_base_make(struct fuzz_base *b, enum fuzz_kind kind);
void fuzz_base_clear(struct fuzz_base *b);
/* The disk after the records up to @seq. */
const struct sim_state *fuzz_truth(const struct fuzz_base *b, uint64_t seq);

/* Does @a have the same bytes there as @b? */
bool fuzz_same_at(const struct fuzz_image *a, const struct fuzz_image *b,
                  size_t at, size_t length);
/*
 * Was no checksum made to fit: is each header that passes for one in a journal
 * with @super as @base has it?
 */
bool fuzz_is_honest(const struct fuzz_image *image,
                    const struct tt_super *super, const struct fuzz_base *base);

/* ---- mutations --------------------------------------------------------- */

struct fuzz_random {
    uint64_t state;
};
uint64_t fuzz_below(struct fuzz_random *r, uint64_t n);

/* Changes some of @length bytes, as numbers or as libFuzzer does. */
void fuzz_mutate_part(struct fuzz_random *r, uint8_t *part, size_t length);

/*
 * Makes the checksums in a packed journal fit what they cover, from the
 * payloads up.  @links: also what ties a frame to the one before it.
 */
void fuzz_reseal(uint8_t *data, size_t size, bool links);
/* Is there a frame's magic at @at of a packed journal?  Its bytes may lie. */
bool fuzz_frame_at(const uint8_t *data, size_t size, size_t at);

#endif
