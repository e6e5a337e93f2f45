/*
 * The small rest of history as bytes: all that is no version
 *
 * Marks, sessions, epochs, damages, gaps and sizes are few.  They go into the
 * catalog of an index, field by field, and come back out of it as they were.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bytes.h"
#include "history.h"

/*
 * One function says what there is, in order, for both directions: f64() and
 * the like write if w is set, and else read.
 */
struct io {
    struct bytes *w;
    struct byte_reader *r;
    bool no_memory;
};

static void f64(struct io *io, uint64_t *v)
{
    if (io->w) {
        bytes_put64(io->w, *v);
    } else {
        *v = bytes_get64(io->r);
    }
}

static void f_time(struct io *io, int64_t *v)
{
    uint64_t u = (uint64_t)*v;

    f64(io, &u);
    *v = (int64_t)u;
}

static void f32(struct io *io, uint32_t *v)
{
    uint64_t u = *v;

    f64(io, &u);
    *v = (uint32_t)u;
}

static void f16(struct io *io, uint16_t *v)
{
    uint64_t u = *v;

    f64(io, &u);
    *v = (uint16_t)u;
}

static void f_bool(struct io *io, bool *v)
{
    uint64_t u = *v;

    f64(io, &u);
    *v = u != 0;
}

static void f_bytes(struct io *io, uint8_t *p, size_t n)
{
    if (io->w) {
        bytes_put(io->w, p, n);
    } else {
        const uint8_t *from = bytes_get(io->r, n);

        if (from) {
            memcpy(p, from, n);
        }
    }
}

/* NULL is told from "". */
static void f_string(struct io *io, char **s)
{
    uint64_t n = io->w && *s ? strlen(*s) + 1 : 0;
    const uint8_t *from;

    f64(io, &n);
    if (io->w) {
        bytes_put(io->w, *s, n);
        return;
    }
    *s = NULL;
    from = n ? bytes_get(io->r, n) : NULL;
    if (from && from[n - 1] == '\0') {
        *s = malloc(n);
        if (*s) {
            memcpy(*s, from, n);
        } else {
            io->no_memory = true;
        }
    }
}

static bool is_over(const struct io *io)
{
    return io->no_memory || (io->w ? io->w->failed : io->r->bad);
}

/* The next element of an array that is read. */
static bool grow(struct io *io, void *array, size_t *count, size_t *room,
                 size_t unit)
{
    uint8_t *p;

    if (!tt_history_room(array, *count, room, unit)) {
        io->no_memory = true;
        return false;
    }
    memcpy(&p, array, sizeof(p));
    memset(p + *count * unit, 0, unit);
    (*count)++;
    return true;
}

/* Does the following for each element @e of the array @name. */
#define EACH(io, h, type, e, name, ...)                                        \
    do {                                                                       \
        uint64_t each_n = (h)->name##_count;                                   \
        f64(io, &each_n);                                                      \
        for (uint64_t each_i = 0; each_i < each_n && !is_over(io); each_i++) { \
            type *e;                                                           \
            if (!(io)->w && !grow(io, &(h)->name, &(h)->name##_count,          \
                                  &(h)->name##_room, sizeof(*(h)->name))) {    \
                break;                                                         \
            }                                                                  \
            e = &(h)->name[each_i];                                            \
            __VA_ARGS__                                                        \
        }                                                                      \
    } while (0)

static void io_session(struct io *io, struct tt_session *s)
{
    char **strings[] = { &s->program,     &s->host,      &s->node,
                         &s->disk_format, &s->disk_path, &s->machine_id,
                         &s->vm_name,     &s->vm_uuid };

    f64(io, &s->seq);
    f64(io, &s->session);
    f_time(io, &s->realtime);
    f64(io, &s->boottime);
    f_bytes(io, s->boot_id, sizeof(s->boot_id));
    f64(io, &s->disk_size);
    f64(io, &s->disk_inode);
    f_time(io, &s->disk_mtime);
    f64(io, &s->recovered_from);
    f64(io, &s->torn_offset);
    f64(io, &s->torn_length);
    f32(io, &s->flags);
    f32(io, &s->pid);
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        f_string(io, strings[i]);
    }
}

static void io_stats(struct io *io, struct tt_history_stats *s)
{
    f64(io, &s->records);
    f64(io, &s->writes);
    f64(io, &s->zeroes);
    f64(io, &s->preimages);
    f64(io, &s->resizes);
    f64(io, &s->flushes);
    f64(io, &s->sessions);
    f64(io, &s->marks);
    f64(io, &s->gaps);
    f64(io, &s->damages);
    f64(io, &s->written_bytes);
    f64(io, &s->frames);
    f64(io, &s->segments);
    f64(io, &s->duplicate_preimages);
    f_bool(io, &s->clean);
    f64(io, &s->level_seq);
}

static void io_times(struct io *io, struct tt_history *h)
{
    EACH(io, h, struct size_point, e, sizes, {
        f64(io, &e->seq);
        f64(io, &e->size);
    });
    EACH(io, h, struct tt_epoch, e, epochs, {
        f64(io, &e->number);
        f64(io, &e->first_seq);
        f64(io, &e->last_seq);
        f_time(io, &e->first_time);
        f_time(io, &e->last_time);
        f_time(io, &e->end_time);
    });
    EACH(io, h, struct epoch_end, e, ends, { f32(io, &e->reason); });
}

static void io_damages(struct io *io, struct tt_history *h)
{
    f64(io, &h->damage_record);
    f_bool(io, &h->after_damage);
    EACH(io, h, struct tt_damage, e, damages, {
        f64(io, &e->offset);
        f64(io, &e->length);
        f64(io, &e->first_seq);
        f64(io, &e->last_seq);
        f_time(io, &e->after_time);
        f_time(io, &e->before_time);
    });
    EACH(io, h, struct blind, e, blinds, {
        f64(io, &e->first_seq);
        f64(io, &e->last_seq);
        f64(io, &e->damage_seq);
    });
    EACH(io, h, struct salvaged, e, salvaged, {
        f64(io, &e->seq);
        f_time(io, &e->time);
        f64(io, &e->disk_offset);
        f64(io, &e->disk_length);
        f16(io, &e->kind);
        f16(io, &e->flags);
    });
}

static void io_gaps(struct io *io, struct tt_history *h)
{
    uint64_t first = h->gap_first;

    f_bool(io, &h->gap_more);
    f64(io, &h->gap_frame);
    f64(io, &h->gap_session);
    f64(io, &first);
    h->gap_first = (size_t)first;
    EACH(io, h, struct tt_gap, e, gaps, {
        f64(io, &e->seq);
        f64(io, &e->from_seq);
        f64(io, &e->opens_seq);
        f_time(io, &e->from_time);
        f_time(io, &e->to_time);
        f32(io, &e->reason);
        f32(io, &e->flags);
        f32(io, &e->range_count);
        f_bool(io, &e->followed);
    });
    EACH(io, h, struct gap_range, e, gap_ranges, {
        f64(io, &e->seq);
        f64(io, &e->offset);
        f64(io, &e->length);
    });
    h->gaps_changed = true; /* what is in doubt is not stored */
}

static void io_rest(struct io *io, struct tt_history *h)
{
    f64(io, &h->last_segment);
    io_stats(io, &h->stats);
    io_times(io, h);
    EACH(io, h, struct tt_mark, e, marks, {
        f64(io, &e->seq);
        f_time(io, &e->time);
        f_string(io, &e->name);
    });
    EACH(io, h, struct tt_session, e, sessions, { io_session(io, e); });
    io_damages(io, h);
    io_gaps(io, h);
}

bool tt_rest_encode(struct tt_history *h, struct bytes *b)
{
    struct io io = { .w = b };

    io_rest(&io, h);
    return !is_over(&io);
}

/* Do the arrays that others count on say what they must? */
static bool is_possible(const struct tt_history *h)
{
    for (size_t i = 0; i < h->marks_count; i++) {
        const char *name = h->marks[i].name;

        if (!name || !tt_mark_name_ok(name, strlen(name))) {
            return false;
        }
    }
    for (size_t i = 0; i < h->gap_ranges_count; i++) {
        const struct gap_range *r = &h->gap_ranges[i];

        if (r->offset % TT_SECTOR || r->length % TT_SECTOR ||
            r->offset > TT_DISK_SIZE_MAX ||
            r->length > TT_DISK_SIZE_MAX - r->offset) {
            return false;
        }
    }
    for (size_t i = 0; i < h->sizes_count; i++) {
        if (h->sizes[i].size % TT_SECTOR ||
            h->sizes[i].size > TT_DISK_SIZE_MAX) {
            return false;
        }
    }
    return h->sizes_count && h->ends_count == h->epochs_count &&
           (!h->gap_frame || h->gap_first < h->gaps_count);
}

int tt_rest_decode(struct tt_history *h, struct byte_reader *r)
{
    struct io io = { .r = r };

    h->sizes_count = 0; /* the superblock's, which is the first one stored */
    io_rest(&io, h);
    if (io.no_memory) {
        return -TT_ENOMEM;
    }
    return is_over(&io) || !is_possible(h) ? -TT_EINDEX : 0;
}
