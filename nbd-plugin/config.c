/*
 * Parameters: which disks are served?
 *
 *     journal=FILE [disk=…] [name=…]     one disk; may be given many times
 *     machine=FILE [name=…]              several disks of one machine
 *     dir=DIR                            every *.ttj in a folder
 *
 * disk= and name= belong to what was given before them; where there is only
 * one journal, they may come first.
 *
 * A machine's file is one of keys and values, a group for each disk:
 *
 *     [vda]
 *     journal=vda.ttj
 *     disk=/dev/vg/vda
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ttview.h"

#define SUFFIX ".ttj"

/* Export names have at most 4,096 bytes, and a TIME must still fit. */
#define NAME_SIZE_MAX 1024u

const char config_help[] =
    "journal=<FILE>     A journal to serve; may be given many times.\n"
    "machine=<FILE>     Journals of one machine's disks, as a group.\n"
    "dir=<DIR>          Serve every *.ttj in this folder.\n"
    "at=<TIME>          The moment of the default export (default latest).\n"
    "single=<EXPORT>    Serve this [NAME@]TIME and refuse every other name.\n"
    "disk=<PATH|URI>    The live disk, if not as recorded.\n"
    "index=<DIR>        Keep indexes there, not beside the journals.\n"
    "tz=<ZONE>          The zone of times that are given without one.\n"
    "name=<NAME>        The journal's name in NAME@TIME (default FILE).\n";

/* What was given, before it is known whether it makes sense */
enum what { JOURNAL, MACHINE, FOLDER };

struct setting {
    enum what what;
    char *path;
    char *disk, *name;
};

static GPtrArray *settings; /* of struct setting */
static char *tz;
static char *early_disk, *early_name; /* given before any of them */

/* ---- one parameter -------------------------------------------------------- */

static void free_setting(gpointer p)
{
    struct setting *s = p;

    free(s->path);
    free(s->disk);
    free(s->name);
    g_free(s);
}

static int set_once(const char *key, char **ret, char *value)
{
    if (!value) {
        return -1; /* nbdkit has said why */
    }
    if (*ret) {
        nbdkit_error("%s= may be given only once", key);
        free(value);
        return -1;
    }
    *ret = value;
    return 0;
}

static char *copy(const char *value)
{
    char *ret = strdup(value);

    if (!ret) {
        nbdkit_error("out of memory");
    }
    return ret;
}

static int add_setting(enum what what, const char *value)
{
    char *path = nbdkit_absolute_path(value);
    struct setting *s;

    if (!path) {
        return -1;
    }
    s = g_new0(struct setting, 1);
    *s = (struct setting){ .what = what, .path = path };
    if (!settings) {
        settings = g_ptr_array_new_with_free_func(free_setting);
    }
    g_ptr_array_add(settings, s);
    return 0;
}

static struct setting *last_setting(void)
{
    if (!settings || !settings->len) {
        return NULL;
    }
    return g_ptr_array_index(settings, settings->len - 1);
}

/* A socket must still be found after the server has gone to /. */
static int check_uri(const char *uri)
{
    const char *query = strchr(uri, '?');
    const char *socket = query ? strstr(query, "socket=") : NULL;

    if (socket && strncmp(socket + 7, "/", 1) && strncmp(socket + 7, "%2", 2)) {
        nbdkit_error("disk=%s: the socket must be an absolute path", uri);
        return -1;
    }
    return 0;
}

static int set_disk(const char *value)
{
    struct setting *s = last_setting();
    char **to = s ? &s->disk : &early_disk;

    if (s && s->what != JOURNAL) {
        nbdkit_error("disk=%s belongs behind the journal=FILE whose disk it "
                     "is; a machine's file has it as disk= as well",
                     value);
        return -1;
    }
    if (!tt_disk_is_uri(value)) {
        return set_once("disk", to, nbdkit_absolute_path(value));
    }
    return check_uri(value) < 0 ? -1 : set_once("disk", to, copy(value));
}

static int set_name(const char *value)
{
    struct setting *s = last_setting();

    if (s && s->what == FOLDER) {
        nbdkit_error("name=%s belongs behind a journal=FILE or machine=FILE",
                     value);
        return -1;
    }
    if (strlen(value) > NAME_SIZE_MAX) {
        nbdkit_error("name= is longer than %u bytes", NAME_SIZE_MAX);
        return -1;
    }
    return set_once("name", s ? &s->name : &early_name, copy(value));
}

int config_set(struct serving *all, const char *key, const char *value)
{
    if (value[0] == '\0') {
        nbdkit_error("%s= needs a value", key);
        return -1;
    }
    if (!strcmp(key, "journal")) {
        return add_setting(JOURNAL, value);
    }
    if (!strcmp(key, "machine")) {
        return add_setting(MACHINE, value);
    }
    if (!strcmp(key, "dir")) {
        return add_setting(FOLDER, value);
    }
    if (!strcmp(key, "disk")) {
        return set_disk(value);
    }
    if (!strcmp(key, "name")) {
        return set_name(value);
    }
    if (!strcmp(key, "at")) {
        return set_once(key, &all->at, copy(value));
    }
    if (!strcmp(key, "single")) {
        return set_once(key, &all->single, copy(value));
    }
    if (!strcmp(key, "index")) {
        return set_once(key, &journal_index, nbdkit_absolute_path(value));
    }
    if (!strcmp(key, "tz")) {
        return set_once(key, &tz, copy(value));
    }
    nbdkit_error("unknown parameter %s=: there are journal=, machine=, dir=, "
                 "at=, single=, disk=, index=, tz= and name=",
                 key);
    return -1;
}

/* ---- disks ---------------------------------------------------------------- */

static struct served *find_disk(const struct serving *all, const char *name)
{
    for (guint i = 0; i < all->disks->len; i++) {
        struct served *s = g_ptr_array_index(all->disks, i);

        if (!strcmp(s->name, name)) {
            return s;
        }
    }
    return NULL;
}

/* Takes @name. */
static struct served *new_disk(char *name, const char *path, const char *disk)
{
    struct served *s = g_new0(struct served, 1);

    s->name = name;
    s->path = g_strdup(path);
    s->disk = g_strdup(disk);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

static void free_disk(gpointer p)
{
    struct served *s = p;

    state_clear(&s->fallback);
    journal_unref(s->journal);
    free(s->fallback_time);
    g_free(s->name);
    g_free(s->path);
    g_free(s->disk);
    pthread_mutex_destroy(&s->lock);
    g_free(s);
}

static int add_disk(struct serving *all, struct served *s)
{
    const struct served *same = find_disk(all, s->name);

    if (same) {
        nbdkit_error("%s and %s would both be served as \"%s\": give one of "
                     "them another name with name=",
                     same->path, s->path, s->name);
        free_disk(s);
        return -1;
    }
    g_ptr_array_add(all->disks, s);
    return 0;
}

/* The file's name without folder and @suffix, or without what follows a '.' */
static char *name_of(const char *path, const char *suffix)
{
    char *base = g_path_get_basename(path);
    char *end = strrchr(base, '.');

    if (end && end > base && (!suffix || !strcmp(end, suffix))) {
        *end = '\0';
    }
    return base;
}

static int add_journal(struct serving *all, const struct setting *set)
{
    char *name = set->name ? g_strdup(set->name) : name_of(set->path, SUFFIX);

    return add_disk(all, new_disk(name, set->path, set->disk));
}

/* ---- machines -------------------------------------------------------------- */

static int bad_machine(const char *path, const char *group, const char *why)
{
    nbdkit_error("machine=%s: [%s] %s: it has journal=FILE, and disk=PATH|URI "
                 "if the disk is not where it was recorded",
                 path, group, why);
    return -1;
}

/* Paths are as seen from the machine's file. */
static char *beside(const char *file, const char *path)
{
    char *folder, *ret;

    if (tt_disk_is_uri(path)) {
        return g_strdup(path);
    }
    folder = g_path_get_dirname(file);
    ret = g_canonicalize_filename(path, folder);
    g_free(folder);
    return ret;
}

static int check_keys(GKeyFile *file, const char *path, const char *group)
{
    char **keys = g_key_file_get_keys(file, group, NULL, NULL);
    int ret = 0;

    for (char **key = keys; key && *key && ret == 0; key++) {
        if (strcmp(*key, "journal") && strcmp(*key, "disk")) {
            ret = bad_machine(path, group, "has a key that is not known");
        }
    }
    g_strfreev(keys);
    return ret;
}

static int add_machine_disk(struct serving *all, struct machine *m,
                            GKeyFile *file, const char *path, const char *group)
{
    char *journal = g_key_file_get_string(file, group, "journal", NULL);
    char *disk = g_key_file_get_string(file, group, "disk", NULL);
    char *where = disk ? beside(path, disk) : NULL;
    struct served *s;
    int ret = 0;

    if (!journal || !journal[0]) {
        ret = bad_machine(path, group, "names no journal");
    } else if (disk && !disk[0]) {
        ret = bad_machine(path, group, "has an empty disk=");
    } else if (disk && tt_disk_is_uri(disk)) {
        ret = check_uri(disk);
    }
    if (ret == 0) {
        char *from = beside(path, journal);

        s = new_disk(g_strdup_printf("%s/%s", m->name, group), from, where);
        s->machine = m;
        g_free(from);
        ret = add_disk(all, s);
    }
    if (ret == 0) {
        g_ptr_array_add(m->disks, s);
    }
    g_free(journal);
    g_free(disk);
    g_free(where);
    return ret;
}

static void free_machine(gpointer p)
{
    struct machine *m = p;

    g_ptr_array_unref(m->disks);
    g_free(m->name);
    g_free(m);
}

static int add_groups(struct serving *all, struct machine *m, GKeyFile *file,
                      const char *path)
{
    char **groups = g_key_file_get_groups(file, NULL);
    int ret = 0;

    if (!groups[0]) {
        nbdkit_error("machine=%s: it names no disk: a disk is a line [NAME], "
                     "and behind it journal=FILE",
                     path);
        ret = -1;
    }
    for (char **group = groups; *group && ret == 0; group++) {
        ret = check_keys(file, path, *group);
        if (ret == 0 && strlen(*group) > NAME_SIZE_MAX) {
            ret = bad_machine(path, "…", "has too long a name");
        }
        if (ret == 0) {
            ret = add_machine_disk(all, m, file, path, *group);
        }
    }
    g_strfreev(groups);
    return ret;
}

static int add_machine(struct serving *all, const struct setting *set)
{
    GKeyFile *file = g_key_file_new();
    struct machine *m;
    GError *error = NULL;
    int ret = -1;

    if (!g_key_file_load_from_file(file, set->path, G_KEY_FILE_NONE, &error)) {
        nbdkit_error("machine=%s: %s", set->path, error->message);
        g_error_free(error);
    } else {
        m = g_new0(struct machine, 1);
        m->name = set->name ? g_strdup(set->name) : name_of(set->path, NULL);
        m->disks = g_ptr_array_new();
        g_ptr_array_add(all->machines, m);
        ret = add_groups(all, m, file, set->path);
    }
    g_key_file_free(file);
    return ret;
}

/* ---- folders ---------------------------------------------------------------- */

static int add_folder(struct serving *all, const struct setting *set)
{
    GError *error = NULL;
    GDir *dir = g_dir_open(set->path, 0, &error);

    if (!dir) {
        nbdkit_error("dir=%s: %s", set->path, error->message);
        g_error_free(error);
        return -1;
    }
    g_dir_close(dir);
    g_ptr_array_add(all->folders, g_strdup(set->path));
    return 0;
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static GPtrArray *journals_in(const char *folder)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        if (g_str_has_suffix(name, SUFFIX) && strlen(name) > strlen(SUFFIX)) {
            g_ptr_array_add(list, g_strdup(name));
        }
    }
    if (dir) {
        g_dir_close(dir);
    }
    g_ptr_array_sort(list, by_name);
    return list;
}

/* Serves what is there for the first time and can be opened. */
static void scan_file(struct serving *all, const char *folder, const char *file,
                      bool start)
{
    char *path = g_build_filename(folder, file, NULL);
    char *name = name_of(path, SUFFIX);
    const struct served *same;
    struct tt_error err;
    struct served *s;

    pthread_mutex_lock(&all->lock);
    same = find_disk(all, name);
    pthread_mutex_unlock(&all->lock);
    if (same) {
        if (start && strcmp(same->path, path)) {
            warn("%s is not served: %s has the same name", path, same->path);
        }
        g_free(name);
        g_free(path);
        return;
    }
    s = new_disk(name, path, NULL);
    s->in_folder = true;
    g_free(path);
    if (journal_open(s->path, NULL, &s->journal, &err) < 0) {
        if (start) {
            warn("not served: %s", err.message);
        } else {
            nbdkit_debug("not served: %s", err.message);
        }
        free_disk(s);
        return;
    }
    pthread_mutex_lock(&all->lock);
    g_ptr_array_add(all->disks, s);
    pthread_mutex_unlock(&all->lock);
}

/* One at a time: who finds the scan under way waits for what it finds. */
static pthread_mutex_t scan_lock = PTHREAD_MUTEX_INITIALIZER;

void scan_folders(struct serving *all, bool start)
{
    pthread_mutex_lock(&scan_lock);
    for (guint i = 0; i < all->folders->len; i++) {
        const char *folder = g_ptr_array_index(all->folders, i);
        GPtrArray *files = journals_in(folder);

        for (guint k = 0; k < files->len; k++) {
            scan_file(all, folder, g_ptr_array_index(files, k), start);
        }
        if (start && !files->len) {
            warn("there is no *" SUFFIX " in %s yet", folder);
        }
        g_ptr_array_unref(files);
    }
    pthread_mutex_unlock(&scan_lock);
}

/* ---- all of them ------------------------------------------------------------ */

static int add_early(void)
{
    struct setting *only = settings->len == 1 ? last_setting() : NULL;

    if (!early_disk && !early_name) {
        return 0;
    }
    if (!only || only->what == FOLDER ||
        (only->what == MACHINE && early_disk)) {
        nbdkit_error("%s= belongs behind the journal=FILE that it is for",
                     early_disk ? "disk" : "name");
        return -1;
    }
    if (early_disk && set_once("disk", &only->disk, early_disk) < 0) {
        early_disk = NULL;
        return -1;
    }
    early_disk = NULL;
    if (early_name && set_once("name", &only->name, early_name) < 0) {
        early_name = NULL;
        return -1;
    }
    early_name = NULL;
    return 0;
}

static int add_settings(struct serving *all)
{
    static int (*const add[])(struct serving *, const struct setting *) = {
        [JOURNAL] = add_journal,
        [MACHINE] = add_machine,
        [FOLDER] = add_folder,
    };

    for (guint i = 0; i < settings->len; i++) {
        const struct setting *s = g_ptr_array_index(settings, i);

        if (add[s->what](all, s) < 0) {
            return -1;
        }
    }
    return 0;
}

int config_complete(struct serving *all)
{
    struct tt_error err;

    if (!settings) {
        nbdkit_error("journal=FILE is missing: which journal is to be served? "
                     "(dir= and machine= serve several)");
        return -1;
    }
    if (all->single && all->at) {
        nbdkit_error("single= says which moment is served: leave out at=");
        return -1;
    }
    if (tt_zone_open(tz, &all->zone, &err) < 0) {
        nbdkit_error("%s", err.message);
        return -1;
    }
    if (!all->at && !(all->at = copy("latest"))) {
        return -1;
    }
    pthread_mutex_init(&all->lock, NULL);
    all->disks = g_ptr_array_new_with_free_func(free_disk);
    all->machines = g_ptr_array_new_with_free_func(free_machine);
    all->folders = g_ptr_array_new_with_free_func(g_free);
    return add_early() < 0 ? -1 : add_settings(all);
}

/* As if nothing had been given: the plugin may be set up anew. */
static void forget_settings(void)
{
    if (settings) {
        g_ptr_array_unref(settings);
    }
    free(journal_index);
    free(tz);
    free(early_disk);
    free(early_name);
    settings = NULL;
    journal_index = tz = early_disk = early_name = NULL;
}

void config_free(struct serving *all)
{
    state_clear(&all->single_state);
    if (all->disks) {
        g_ptr_array_unref(all->disks);
        g_ptr_array_unref(all->machines);
        g_ptr_array_unref(all->folders);
        pthread_mutex_destroy(&all->lock);
    }
    tt_zone_close(all->zone);
    free(all->at);
    free(all->single);
    free(all->single_time);
    g_free(all->single_name);
    *all = (struct serving){ 0 };
    forget_settings();
}
