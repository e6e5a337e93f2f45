/*
 * The model: see wal.h
 *
 * Each frame that was ever handed to the journal is a node below the frame
 * that it follows.  A power cut or a failed append makes the tree fork.
 * History as the library finds it must be a path from the root.  Nothing here
 * uses the library, but for the chain value that names a frame.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <string.h>

#include "wal.h"

uint32_t blocks_of(unsigned first, unsigned count)
{
    uint32_t mask = 0;

    for (unsigned b = first / WAL_PER_BLOCK; b * WAL_PER_BLOCK < first + count;
         b++) {
        mask |= 1u << b;
    }
    return mask;
}

static void apply(struct node *n, struct state *s, const struct rec *rec)
{
    unsigned first = (unsigned)(rec->req.disk_offset / WAL_SECTOR);
    unsigned count = (unsigned)(rec->req.disk_length / WAL_SECTOR);

    s->kind = rec->req.kind;
    switch (rec->req.kind) {
    case TT_KIND_WRITE:
    case TT_KIND_ZERO:
        for (unsigned i = 0; i < count; i++) {
            s->ids[first + i] = rec->id;
        }
        break;
    case TT_KIND_PREIMAGE:
        n->captured |= blocks_of(first, count);
        break;
    case TT_KIND_RESIZE:
        s->size = count;
        memset(s->ids + count, 0, (WAL_SECTORS - count) * sizeof(*s->ids));
        /* of the block that the old end cut, the front was there before */
        first = (first + WAL_PER_BLOCK - 1) / WAL_PER_BLOCK * WAL_PER_BLOCK;
        if (count > first) {
            n->captured |= blocks_of(first, count - first);
        }
        break;
    }
}

struct node *model_child(const struct node *parent, uint64_t chain)
{
    struct node *n = parent->child;

    while (n && n->chain != chain) {
        n = n->sibling;
    }
    return n;
}

struct node *model_find(struct model *m, uint64_t chain)
{
    struct node *n = m->hash[chain % MODEL_HASH];

    while (n && n->chain != chain) {
        n = n->hash_next;
    }
    return n;
}

struct node *model_append(struct model *m, struct node *parent,
                          const struct tt_frame *f, const struct tt_append *a,
                          const struct rec *recs)
{
    struct node *n = model_child(parent, f->own_chain);
    const struct state *last;

    if (n) {
        return n;
    }
    assert(f->first_seq == parent->last_seq + 1);
    n = arena_get(&m->arena, sizeof(*n));
    *n = (struct node){
        .parent = parent,
        .sibling = parent->child,
        .before = m->newest,
        .hash_next = m->hash[f->own_chain % MODEL_HASH],
        .first_seq = f->first_seq,
        .last_seq = tt_frame_last_seq(f),
        .chain = f->own_chain,
        .session = f->session,
        .session_first_seq = f->session_first_seq,
        .offset = f->offset,
        .length = f->length,
        .head = (uint32_t)sizeof(struct tt_frame_header) + f->table_length,
        .captured = parent->captured,
    };
    n->states = arena_get(&m->arena, f->record_count * sizeof(*n->states));
    last = model_state(m, parent, parent->last_seq);
    for (uint64_t seq = n->first_seq; seq <= n->last_seq; seq++) {
        struct state *s = &n->states[seq - n->first_seq];

        *s = *last;
        s->kind = TT_KIND_CLOCK;
        if (seq >= a->first_seq) {
            apply(n, s, &recs[seq - a->first_seq]);
        }
        last = s;
    }
    parent->child = n;
    m->newest = n;
    m->hash[n->chain % MODEL_HASH] = n;
    return n;
}

bool node_reaches(const struct node *n, const struct node *above)
{
    while (n && n != above && n->first_seq >= above->first_seq) {
        n = n->parent;
    }
    return n == above;
}

struct node *node_at(struct node *n, uint64_t seq)
{
    while (n->parent && n->first_seq > seq) {
        n = n->parent;
    }
    return n;
}

const struct state *model_state(const struct model *m, const struct node *n,
                                uint64_t seq)
{
    while (n->parent && n->first_seq > seq) {
        n = n->parent;
    }
    return n->parent ? &n->states[seq - n->first_seq] : &m->original;
}

void model_rewind(struct model *m, struct node *newest, size_t used,
                  uint32_t next_id)
{
    for (struct node *n = m->newest; n != newest; n = n->before) {
        n->parent->child = n->sibling;
        m->hash[n->chain % MODEL_HASH] = n->hash_next;
    }
    m->newest = newest;
    m->arena.used = used;
    m->next_id = next_id;
}
