/*
 * The oracle: what must every moment of the disk hold?
 *
 * Each frame that was ever handed to the medium is a node of a tree, below
 * the frame it follows, with the whole disk as it is after each of its
 * records.  A power cut or a failed append makes the tree fork.  History as a
 * scan finds it must be a path from the root; which node it must at least
 * reach follows from what was acknowledged, or flushed.
 *
 * Nothing here uses the library but the chain value that names a frame.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef SIMMODEL_H
#define SIMMODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <ttjournal/ttjournal.h>

#define SIM_DISK_MAX (64 * 1024u)
#define SIM_BLOCKS (SIM_DISK_MAX / TT_GRID)

/* The disk after one record */
struct sim_state {
    uint8_t *data; /* SIM_DISK_MAX bytes; zero behind the size */
    bool own;      /* else it is that of the state before */
    uint64_t size;
    int64_t time;
    uint16_t kind;
    uint64_t disk_offset, disk_length;
};

struct sim_node {
    struct sim_node *parent, *next;
    uint64_t first_seq, last_seq;
    uint64_t chain, offset, length;
    uint64_t captured; /* a bit for each block with a PREIMAGE or born */
    uint64_t epoch, session, boot;
    struct sim_state *states;
};

struct sim_model {
    struct sim_node root; /* the disk as it was: sequence 0 */
    struct sim_state original;
    struct sim_node *all;
};

void sim_model_init(struct sim_model *m, const uint8_t *disk, uint64_t size);
void sim_model_clear(struct sim_model *m);

/* The frame that was planned below @parent, made or found. */
struct sim_node *sim_model_append(struct sim_model *m, struct sim_node *parent,
                                  const struct tt_frame *f,
                                  const struct tt_append *a);
struct sim_node *sim_model_child(struct sim_model *m,
                                 const struct sim_node *parent, uint64_t chain);
/* Is @n the node @above, or below it? */
bool sim_node_reaches(const struct sim_node *n, const struct sim_node *above);
/* The disk after @seq, on the path to @n. */
const struct sim_state *sim_node_state(const struct sim_model *m,
                                       const struct sim_node *n, uint64_t seq);
/* The node on the path to @n that holds @seq; NULL: the root. */
const struct sim_node *sim_node_at(const struct sim_node *n, uint64_t seq);

#endif
