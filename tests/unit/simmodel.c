/*
 * The oracle: see simmodel.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "simmodel.h"

void sim_model_init(struct sim_model *m, const uint8_t *disk, uint64_t size)
{
    *m = (struct sim_model){ 0 };
    assert(size <= SIM_DISK_MAX);
    m->original.data = calloc(1, SIM_DISK_MAX);
    assert(m->original.data);
    memcpy(m->original.data, disk, size);
    m->original.size = size;
}

static void free_node(struct sim_node *n)
{
    for (uint64_t i = 0; i <= n->last_seq - n->first_seq; i++) {
        if (n->states[i].own) {
            free(n->states[i].data);
        }
    }
    free(n->states);
    free(n);
}

void sim_model_clear(struct sim_model *m)
{
    for (struct sim_node *n = m->all, *next; n; n = next) {
        next = n->next;
        free_node(n);
    }
    free(m->original.data);
    *m = (struct sim_model){ 0 };
}

static void own_data(struct sim_state *s)
{
    uint8_t *p = malloc(SIM_DISK_MAX);

    assert(p);
    memcpy(p, s->data, SIM_DISK_MAX);
    s->data = p;
    s->own = true;
}

static void mark_captured(struct sim_node *n, uint64_t offset, uint64_t end)
{
    /* a block of which only a part was born is not captured */
    for (uint64_t at = (offset + TT_GRID - 1) / TT_GRID * TT_GRID; at < end;
         at += TT_GRID) {
        n->captured |= UINT64_C(1) << at / TT_GRID;
    }
}

static void apply(struct sim_node *n, struct sim_state *s,
                  const struct tt_request *req)
{
    s->kind = req->kind;
    s->disk_offset = req->disk_offset;
    s->disk_length = req->disk_length;
    switch (req->kind) {
    case TT_KIND_WRITE:
        own_data(s);
        memcpy(s->data + req->disk_offset, req->payload, req->disk_length);
        break;
    case TT_KIND_ZERO:
        own_data(s);
        memset(s->data + req->disk_offset, 0, req->disk_length);
        break;
    case TT_KIND_RESIZE:
        own_data(s);
        memset(s->data + req->disk_length, 0, SIM_DISK_MAX - req->disk_length);
        s->size = req->disk_length;
        if (req->disk_length > req->disk_offset) {
            mark_captured(n, req->disk_offset, req->disk_length);
        }
        break;
    case TT_KIND_PREIMAGE:
        mark_captured(n, req->disk_offset, req->disk_offset + req->disk_length);
        break;
    }
}

static struct sim_node *new_node(struct sim_model *m, struct sim_node *parent,
                                 const struct tt_frame *f)
{
    struct sim_node *n = calloc(1, sizeof(*n));

    assert(n);
    n->parent = parent;
    n->first_seq = f->first_seq;
    n->last_seq = tt_frame_last_seq(f);
    n->chain = f->own_chain;
    n->offset = f->offset;
    n->length = f->length;
    n->captured = parent->captured;
    n->epoch = f->epoch;
    n->session = f->session;
    n->states = calloc(f->record_count, sizeof(*n->states));
    assert(n->states);
    n->next = m->all;
    m->all = n;
    return n;
}

struct sim_node *sim_model_child(struct sim_model *m,
                                 const struct sim_node *parent, uint64_t chain)
{
    for (struct sim_node *n = m->all; n; n = n->next) {
        if (n->parent == parent && n->chain == chain) {
            return n;
        }
    }
    return NULL;
}

struct sim_node *sim_model_append(struct sim_model *m, struct sim_node *parent,
                                  const struct tt_frame *f,
                                  const struct tt_append *a)
{
    struct sim_node *n = sim_model_child(m, parent, f->own_chain);
    const struct sim_state *last;

    if (n) {
        return n;
    }
    assert(f->first_seq == parent->last_seq + 1);
    n = new_node(m, parent, f);
    last = sim_node_state(m, parent, parent->last_seq);
    for (uint64_t seq = n->first_seq; seq <= n->last_seq; seq++) {
        struct sim_state *s = &n->states[seq - n->first_seq];

        *s = *last;
        s->own = false;
        s->time = a->time;
        s->kind = TT_KIND_CLOCK;
        s->disk_offset = s->disk_length = 0;
        if (seq >= a->first_seq) {
            apply(n, s, &a->requests[seq - a->first_seq]);
        }
        last = s;
    }
    return n;
}

bool sim_node_reaches(const struct sim_node *n, const struct sim_node *above)
{
    while (n && n != above) {
        n = n->parent;
    }
    return n == above;
}

const struct sim_node *sim_node_at(const struct sim_node *n, uint64_t seq)
{
    while (n->parent && n->first_seq > seq) {
        n = n->parent;
    }
    return n->parent && n->last_seq >= seq ? n : NULL;
}

const struct sim_state *sim_node_state(const struct sim_model *m,
                                       const struct sim_node *n, uint64_t seq)
{
    n = sim_node_at(n, seq);
    return n ? &n->states[seq - n->first_seq] : &m->original;
}
