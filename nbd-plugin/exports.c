/*
 * Export names: which moment of which disk does a client ask for?
 *
 *     NAME@TIME      the disk called NAME at TIME
 *     NAME@T1..T2    the same at T2, and its holes are what did not change
 *     @TIME          the same, if only one disk is served
 *     NAME, ""       the default moment: at=, else latest; "": the first disk
 *
 * NAME is compared as a whole before the name is split, so it may itself hold
 * an '@' (the longest that fits is meant), and TIME begins behind the '@' that
 * follows it, so TIME may begin with one ("vda@@1700000000.5").  Names that are
 * not listed can be opened all the same; the list only shows the moments that
 * mean something.
 *
 * A disk of a machine is MACHINE/NAME.  Its TIME is one of the machine: it is
 * bound in the journal of every disk, and refused if one of them refuses it.  A
 * mark may have been set in one journal only; then its time is what counts in
 * the others.  Sequence numbers are of one journal and concern that disk alone.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ttview.h"

/* nbdkit fails the whole list if there are more */
#define EXPORTS_MAX 10000

/* ---- the disks ------------------------------------------------------------ */

GPtrArray *serving_disks(struct serving *all)
{
    GPtrArray *disks;

    pthread_mutex_lock(&all->lock);
    disks = g_ptr_array_sized_new(all->disks->len);
    for (guint i = 0; i < all->disks->len; i++) {
        g_ptr_array_add(disks, g_ptr_array_index(all->disks, i));
    }
    pthread_mutex_unlock(&all->lock);
    return disks;
}

int served_journal(struct served *s, struct journal **ret, struct tt_error *err)
{
    struct journal *fresh;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    if (!s->journal || journal_replaced(s->journal)) {
        r = journal_open(s->path, s->disk, &fresh, err);
        if (r == 0) {
            journal_unref(s->journal);
            s->journal = fresh;
        }
    }
    if (r == 0) {
        *ret = journal_ref(s->journal);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* ---- from a TIME to a state ------------------------------------------------ */

/* A journal with all that was appended to it. */
static int fresh_journal(struct served *s, struct journal **ret,
                         struct tt_error *err)
{
    int r = served_journal(s, ret, err);

    if (r == 0) {
        r = journal_refresh(*ret, err);
        if (r < 0) {
            journal_unref(*ret);
        }
    }
    return r;
}

/*
 * The time of a mark that @s itself does not have, but another disk of its
 * machine.  Where several have it, the first one's counts.
 */
static char *time_of_mark(struct served *s, const char *mark)
{
    for (guint i = 0; i < s->machine->disks->len; i++) {
        struct served *other = g_ptr_array_index(s->machine->disks, i);
        struct journal *j;
        int64_t time;
        bool found;

        if (served_journal(other, &j, NULL) < 0) {
            continue;
        }
        found = journal_mark(j, mark, &time);
        journal_unref(j);
        if (found) {
            return other == s
                       ? NULL
                       : g_strdup_printf("@%" PRId64 ".%09" PRId64,
                                         time / 1000000000, time % 1000000000);
        }
    }
    return NULL;
}

/* One end of a TIME, as the journal of @s knows it. */
static char *own_time(struct served *s, const char *time)
{
    char *ret = NULL;

    if (s->machine && g_str_has_prefix(time, "mark:")) {
        ret = time_of_mark(s, time + strlen("mark:"));
    }
    return ret ? ret : g_strdup(time);
}

static int bind_disk(const struct serving *all, struct served *s,
                     const char *time, int64_t now, struct state *ret,
                     struct tt_error *err)
{
    char **ends = g_strsplit(time, "..", 2);
    struct journal *j;
    int r = fresh_journal(s, &j, err);

    if (r < 0) {
        g_strfreev(ends);
        return r;
    }
    for (char **end = ends; *end; end++) {
        char *own = own_time(s, *end);

        g_free(*end);
        *end = own;
    }
    if (ends[0]) {
        char *own = g_strjoinv("..", ends);

        r = state_bind(j, own, all->zone, now, ret, err);
        g_free(own);
    } else {
        r = state_bind(j, "", all->zone, now, ret, err);
    }
    g_strfreev(ends);
    journal_unref(j);
    return r;
}

static bool is_of_machine(const struct served *s, const char *time)
{
    return s->machine && s->machine->disks->len > 1 && !strstr(time, "seq:");
}

/* Binds @time in the others as well, and tells where. */
static int bind_others(const struct serving *all, struct served *s,
                       const char *time, int64_t now, char **ret_others,
                       struct tt_error *err)
{
    GString *text = g_string_new("");

    for (guint i = 0; i < s->machine->disks->len; i++) {
        struct served *other = g_ptr_array_index(s->machine->disks, i);
        struct tt_error why;
        struct state state;
        int ret;

        if (other == s) {
            continue;
        }
        ret = bind_disk(all, other, time, now, &state, &why);
        if (ret < 0) {
            g_string_free(text, TRUE);
            return tt_fail(err, why.code, why.os_errno,
                           "%s cannot be opened, as %s of the same machine "
                           "cannot: %.800s",
                           s->name, other->name, why.message);
        }
        g_string_append_printf(text, "; %s is at sequence number %" PRIu64,
                               other->name, state.view.moment.seq);
        state_clear(&state);
    }
    *ret_others = g_string_free(text, FALSE);
    return 0;
}

static int bind_time(const struct serving *all, struct served *s,
                     const char *time, struct state *ret, char **ret_others,
                     struct tt_error *err)
{
    int64_t now = now_ns();
    int r = bind_disk(all, s, time, now, ret, err);

    *ret_others = NULL;
    if (r == 0 && is_of_machine(s, time)) {
        r = bind_others(all, s, time, now, ret_others, err);
        if (r < 0) {
            state_clear(ret);
        }
    }
    if (r == 0 && !*ret_others) {
        *ret_others = g_strdup("");
    }
    return r;
}

/* ---- the default ------------------------------------------------------------ */

static int out_of_memory(struct tt_error *err)
{
    return tt_fail(err, TT_ENOMEM, ENOMEM, "out of memory");
}

int set_fallback(const struct serving *all, struct served *s,
                 struct tt_error *err)
{
    struct state state;
    char *others, *time;
    int ret = bind_time(all, s, all->at, &state, &others, err);

    if (ret < 0) {
        return ret;
    }
    g_free(others);
    time = state_time(&state, false);
    if (!time) {
        state_clear(&state);
        return out_of_memory(err);
    }
    /* Whatever the text was: this is bound once and for all. */
    state.fixed = !state.moving;
    pthread_mutex_lock(&s->lock);
    state_clear(&s->fallback);
    free(s->fallback_time);
    s->fallback = state;
    s->fallback_time = time;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* False if what was bound at the start is of another journal, or moves. */
static bool get_fallback(struct served *s, struct state *ret)
{
    bool good;

    pthread_mutex_lock(&s->lock);
    good = s->fallback.journal && s->fallback.journal == s->journal &&
           !s->fallback.moving;
    if (good) {
        state_copy(ret, &s->fallback);
    }
    pthread_mutex_unlock(&s->lock);
    return good;
}

/* What NAME alone means; g_free() it.  "latest" if at= could not be bound. */
static char *fallback_time(struct served *s)
{
    char *time;

    pthread_mutex_lock(&s->lock);
    time = g_strdup(s->fallback_time ? s->fallback_time : "latest");
    pthread_mutex_unlock(&s->lock);
    return time;
}

static int open_fallback(const struct serving *all, struct served *s,
                         struct state *ret, char **ret_others,
                         struct tt_error *err)
{
    struct journal *now;
    int r = served_journal(s, &now, err);
    bool bound, replaced;
    char *time;

    if (r < 0) {
        return r;
    }
    pthread_mutex_lock(&s->lock);
    bound = s->fallback.journal != NULL;
    replaced = s->fallback.journal != now;
    pthread_mutex_unlock(&s->lock);
    journal_unref(now);
    if (bound && replaced) {
        r = set_fallback(all, s, err);
    }
    if (r == 0 && get_fallback(s, ret)) {
        *ret_others = g_strdup("");
        return 0;
    }
    if (r == 0) {
        time = fallback_time(s);
        r = bind_time(all, s, bound ? time : all->at, ret, ret_others, err);
        g_free(time);
    }
    return r;
}

/* ---- names ------------------------------------------------------------------- */

/* Made fit for a line of a log: a name may be 4,096 bytes of anything. */
static void quote(const char *name, char buf[static 128])
{
    size_t i = 0;

    for (; name[i] && i < 100; i++) {
        unsigned char c = (unsigned char)name[i];

        buf[i] = c < 0x20 || c > 0x7e || c == '"' ? '?' : (char)c;
    }
    strcpy(buf + i, name[i] ? "..." : "");
}

static int no_such_export(GPtrArray *disks, const char *name,
                          struct tt_error *err)
{
    const struct served *first;
    char q[128];

    quote(name, q);
    if (!disks->len) {
        return tt_fail(err, TT_EINVAL, ENOENT,
                       "no export \"%s\": there is no journal to serve yet", q);
    }
    first = g_ptr_array_index(disks, 0);
    return tt_fail(
        err, TT_EINVAL, ENOENT,
        "no export \"%s\": names are %.200s@TIME or "
        "%.200s@TIME..TIME%s%.200s%s",
        q, first->name, first->name, disks->len > 1 ? ", or of " : "",
        disks->len > 1 ? ((struct served *)g_ptr_array_index(disks, 1))->name
                       : " (or without the name)",
        disks->len > 2 ? " or others that are listed" : "");
}

/* The disk with the longest name that @name begins with, or NULL. */
static struct served *match(GPtrArray *disks, const char *name)
{
    struct served *best = NULL;
    size_t length = 0;

    for (guint i = 0; i < disks->len; i++) {
        struct served *s = g_ptr_array_index(disks, i);
        size_t n = strlen(s->name);

        if (!strncmp(name, s->name, n) && (!name[n] || name[n] == '@') &&
            (!best || n > length)) {
            best = s;
            length = n;
        }
    }
    return best;
}

/* *ret_time: in @name, or NULL for the default. */
static int find_in(GPtrArray *disks, const char *name, struct served **ret_disk,
                   const char **ret_time, struct tt_error *err)
{
    struct served *s = match(disks, name);
    size_t n = 0;

    if (s) {
        n = strlen(s->name);
    } else if (disks->len &&
               (!name[0] || (name[0] == '@' && disks->len == 1))) {
        s = g_ptr_array_index(disks, 0);
    } else {
        return no_such_export(disks, name, err);
    }
    *ret_disk = s;
    *ret_time = name[n] ? name + n + 1 : NULL;
    return 0;
}

/* What is not known may have come to a folder since. */
static int find_export(struct serving *all, const char *name,
                       struct served **ret_disk, const char **ret_time,
                       struct tt_error *err)
{
    GPtrArray *disks = serving_disks(all);
    int ret = find_in(disks, name, ret_disk, ret_time, err);

    if (ret < 0 && all->folders->len) {
        scan_folders(all, false);
        g_ptr_array_unref(disks);
        disks = serving_disks(all);
        ret = find_in(disks, name, ret_disk, ret_time, err);
    }
    g_ptr_array_unref(disks);
    return ret;
}

/* ---- one export only ----------------------------------------------------------- */

/* single= is a whole name, or a TIME if there is one disk. */
int set_single(struct serving *all, struct tt_error *err)
{
    GPtrArray *disks = serving_disks(all);
    struct served *s = match(disks, all->single);
    const char *time = all->single;
    char *others;
    int ret;

    if (s && all->single[strlen(s->name)]) {
        time += strlen(s->name) + 1;
    } else if (s) {
        time = "latest";
    } else if (disks->len == 1) {
        s = g_ptr_array_index(disks, 0);
    } else {
        ret = tt_fail(err, TT_EINVAL, ENOENT,
                      "single=%.200s: of %u disks, it must name one as "
                      "NAME@TIME",
                      all->single, disks->len);
        g_ptr_array_unref(disks);
        return ret;
    }
    g_ptr_array_unref(disks);
    ret = bind_time(all, s, time, &all->single_state, &others, err);
    if (ret < 0) {
        return ret;
    }
    g_free(others);
    all->single_disk = s;
    /* Whoever connects, and when: it stays the same. */
    all->single_state.fixed = true;
    all->single_name = g_strdup_printf("%s@%s", s->name, time);
    all->single_time = state_time(&all->single_state, true);
    return all->single_time ? 0 : out_of_memory(err);
}

static int open_single(struct serving *all, const char *name,
                       struct served **ret_disk, struct state *ret,
                       struct tt_error *err)
{
    struct served *s = all->single_disk;
    char *only = default_name(all);
    bool good = !name[0] || !strcmp(name, only) || !strcmp(name, s->name) ||
                !strcmp(name, all->single) || !strcmp(name, all->single_name);
    char q[128];
    int r = 0;

    if (good) {
        *ret_disk = s;
        state_copy(ret, &all->single_state);
    } else {
        quote(name, q);
        r = tt_fail(err, TT_EINVAL, ENOENT,
                    "no export \"%s\": only \"%.500s\" is served (single=)", q,
                    only);
    }
    g_free(only);
    return r;
}

int open_export(struct serving *all, const char *name, struct served **ret_disk,
                struct state *ret_state, char **ret_others,
                struct tt_error *err)
{
    const char *time;
    int ret;

    if (all->single) {
        ret = open_single(all, name, ret_disk, ret_state, err);
        *ret_others = ret == 0 ? g_strdup("") : NULL;
        return ret;
    }
    ret = find_export(all, name, ret_disk, &time, err);
    if (ret < 0) {
        return ret;
    }
    return time ? bind_time(all, *ret_disk, time, ret_state, ret_others, err)
                : open_fallback(all, *ret_disk, ret_state, ret_others, err);
}

char *default_name(struct serving *all)
{
    GPtrArray *disks;
    char *name = NULL, *time;

    if (all->single) {
        return g_strdup_printf("%s@%s", all->single_disk->name,
                               all->single_time);
    }
    disks = serving_disks(all);
    if (disks->len) {
        struct served *s = g_ptr_array_index(disks, 0);

        time = fallback_time(s);
        name = g_strdup_printf("%s@%s", s->name, time);
        g_free(time);
    }
    g_ptr_array_unref(disks);
    return name ? name : g_strdup("");
}

/* ---- the list -------------------------------------------------------------------- */

/* Names to be listed, with what is said of each. */
struct entry {
    char *name, *about;
};

static void free_entry(gpointer p)
{
    struct entry *e = p;

    g_free(e->name);
    g_free(e->about);
    g_free(e);
}

/* The entries of one disk */
struct lister {
    struct serving *all;
    struct served *disk;
    GPtrArray *entries; /* of struct entry */
    guint room;         /* how many there may be */
    GHashTable *marks;  /* of a machine: those that are listed already */
};

static bool add_entry(struct lister *l, const char *time, const char *about)
{
    struct entry *e;

    if (l->entries->len >= l->room) {
        return false;
    }
    e = g_new0(struct entry, 1);
    e->name = g_strdup_printf("%s@%s", l->disk->name, time);
    e->about = g_strdup(about);
    g_ptr_array_add(l->entries, e);
    return true;
}

static bool add_listed(void *opaque, const struct listed *entry)
{
    return add_entry(opaque, entry->time, entry->about);
}

/* A mark of any disk opens all disks, once. */
static bool add_machine_mark(void *opaque, const struct listed *entry)
{
    struct lister *l = opaque;

    if (!entry->name || g_hash_table_contains(l->marks, entry->name)) {
        return true;
    }
    g_hash_table_add(l->marks, g_strdup(entry->name));
    return add_entry(l, entry->time, entry->about);
}

static void list_machine_marks(struct lister *l)
{
    const GPtrArray *disks = l->disk->machine->disks;

    l->marks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (guint i = 0; i < disks->len; i++) {
        struct journal *j;

        if (served_journal(g_ptr_array_index(disks, i), &j, NULL) == 0) {
            journal_list_marks(j, add_machine_mark, l);
            journal_unref(j);
        }
    }
    g_hash_table_destroy(l->marks);
}

/* Clients stop at a name that is listed and cannot be opened. */
static int usable_journal(struct served *s, struct journal **ret,
                          struct tt_error *err)
{
    int r = fresh_journal(s, ret, err);

    if (r == 0) {
        r = journal_usable(*ret, err);
        if (r < 0) {
            journal_unref(*ret);
        }
    }
    return r;
}

static int list_disk(struct lister *l, struct tt_error *err)
{
    char *fallback = fallback_time(l->disk);
    struct journal *j;
    int ret = usable_journal(l->disk, &j, err);

    if (ret == 0) {
        if (strcmp(fallback, "latest")) {
            char *about = g_strdup_printf("the default, at=%s", l->all->at);

            add_entry(l, fallback, about);
            g_free(about);
        }
        add_entry(l, "latest", "the newest state when it is opened");
        if (l->disk->machine) {
            list_machine_marks(l);
        } else {
            journal_list_marks(j, add_listed, l);
        }
        journal_list_sessions(j, add_listed, l);
        journal_unref(j);
    }
    g_free(fallback);
    return ret;
}

static int give_entries(const GPtrArray *entries,
                        struct nbdkit_exports *exports)
{
    for (guint i = 0; i < entries->len; i++) {
        const struct entry *e = g_ptr_array_index(entries, i);

        if (nbdkit_add_export(exports, e->name, e->about) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A journal that cannot be read costs its own entries. */
static int list_disks(struct serving *all, GPtrArray *disks,
                      struct nbdkit_exports *exports)
{
    guint left = EXPORTS_MAX;
    int ret = 0;

    for (guint i = 0; i < disks->len && ret == 0 && left; i++) {
        struct lister l = {
            .all = all,
            .disk = g_ptr_array_index(disks, i),
            .entries = g_ptr_array_new_with_free_func(free_entry),
            .room = left / (disks->len - i) ? left / (disks->len - i) : 1,
        };
        struct tt_error err;

        if (l.disk->in_folder && access(l.disk->path, F_OK) < 0) {
            nbdkit_debug("%s is not listed: it is gone", l.disk->name);
        } else if (list_disk(&l, &err) < 0) {
            nbdkit_error("%s is not listed: %s", l.disk->name, err.message);
        }
        ret = give_entries(l.entries, exports);
        left -= l.entries->len;
        g_ptr_array_unref(l.entries);
    }
    return ret;
}

int list_exports(struct serving *all, struct nbdkit_exports *exports)
{
    GPtrArray *disks;
    char *only;
    int ret;

    if (all->single) {
        only = default_name(all);
        ret = nbdkit_add_export(exports, only, "the only one (single=)");
        g_free(only);
        return ret;
    }
    scan_folders(all, false);
    disks = serving_disks(all);
    ret = list_disks(all, disks, exports);
    g_ptr_array_unref(disks);
    return ret;
}
