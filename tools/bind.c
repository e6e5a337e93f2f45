/*
 * Which view does the user mean, and can it be served?
 *
 * The same reader that the plugin serves from answers both, before anything is
 * started: so errors come with their own exit status and not second-hand from
 * a server, and the view is bound to a sequence number once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <posix/reader.h>
#include <posix/zone.h>

#include "view.h"

static gchar *opt_disk, *opt_tz, *opt_via, *opt_volume, *opt_key_file;
static gchar **opt_with;
static gint opt_partition;
static gboolean opt_no_replay, opt_isolated, opt_ask_key;

const GOptionEntry view_options[] = {
    { "disk", 'd', 0, G_OPTION_ARG_STRING, &opt_disk,
      "Where the live disk is: a raw image, a device or an NBD URI", "WHERE" },
    { "partition", 'p', 0, G_OPTION_ARG_INT, &opt_partition,
      "This partition of the disk", "N" },
    { "no-replay", 0, 0, G_OPTION_ARG_NONE, &opt_no_replay,
      "Strictly what lay on the disk; the file system's own journal is not "
      "replayed",
      NULL },
    { "isolated", 0, 0, G_OPTION_ARG_NONE, &opt_isolated,
      "By libguestfs' virtual machine: nothing here reads the disk's "
      "structures",
      NULL },
    { "volume", 0, 0, G_OPTION_ARG_STRING, &opt_volume,
      "This volume of LVM (VG/LV) or RAID (md/UUID), by libguestfs", "NAME" },
    { "with", 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_with,
      "Another disk of the same machine, for volumes across disks",
      "JOURNAL[@TIME]" },
    { "key-file", 0, 0, G_OPTION_ARG_FILENAME, &opt_key_file,
      "It is encrypted, and the first line of this file is the passphrase; -: "
      "of standard input",
      "FILE" },
    { "ask-key", 0, 0, G_OPTION_ARG_NONE, &opt_ask_key,
      "It is encrypted: ask for the passphrase at the terminal", NULL },
    { "via", 0, 0, G_OPTION_ARG_STRING, &opt_via,
      "How to make a block device of it", "nbdfuse|nbd" },
    { "tz", 0, 0, G_OPTION_ARG_STRING, &opt_tz, "Zone of times that have none",
      "ZONE" },
    { NULL },
};

static bool has_key(void)
{
    return opt_key_file != NULL || opt_ask_key;
}

/* What only libguestfs can do. */
static bool in_guest(void)
{
    return opt_isolated || opt_volume != NULL || opt_with != NULL || has_key();
}

static int check_options(void)
{
    bool guest = in_guest();

    if (opt_partition < 0 || opt_partition > 1024) {
        return tool_fail(EXIT_USAGE, "--partition: %d is none", opt_partition);
    }
    if (opt_via != NULL && strcmp(opt_via, "nbdfuse") != 0 &&
        strcmp(opt_via, "nbd") != 0) {
        return tool_fail(EXIT_USAGE, "--via: nbdfuse or nbd, not '%s'",
                         opt_via);
    }
    if (opt_via != NULL && guest) {
        return tool_fail(EXIT_USAGE, "--via: libguestfs takes no block device");
    }
    if (opt_key_file != NULL && opt_ask_key) {
        return tool_fail(EXIT_USAGE, "--key-file and --ask-key: which one?");
    }
    if (opt_volume != NULL && opt_partition > 0 && !has_key()) {
        return tool_fail(EXIT_USAGE, "--volume and --partition: a volume is "
                                     "looked for in all partitions");
    }
    if (opt_volume != NULL && strspn(opt_volume, "/") == strlen(opt_volume)) {
        return tool_fail(EXIT_USAGE, "--volume: which one?");
    }
    if (opt_volume != NULL && strpbrk(opt_volume, ":,") != NULL) {
        return tool_fail(EXIT_USAGE, "--volume: '%s' is none", opt_volume);
    }
    return EXIT_OK;
}

/* Warns of what the user should know about the view. */
static void warn(struct tt_reader *r, const struct view_disk *disk,
                 const struct tt_moment *moment)
{
    const char *problem = tt_reader_disk_problem(r);

    if (moment->note[0] != '\0') {
        tool_warn("%s: %s", disk->journal, moment->note);
    }
    if (tt_reader_disk(r) != NULL && problem[0] != '\0') {
        tool_warn("%s: %s", disk->journal, problem);
    }
}

static char *when(struct tt_reader *r, uint64_t seq)
{
    const struct tt_history *h = tt_reader_lock(r);
    char buf[TT_TIME_SIZE];
    int64_t time;
    bool known = tt_history_time(h, seq, &time);

    tt_reader_unlock(r);
    return known ? g_strdup_printf(" (%s)", tt_time_format(time, buf))
                 : g_strdup("");
}

static int bind_with(struct tt_reader *r, struct view_disk *disk,
                     const char *text, const struct tt_zone *zone, int64_t now,
                     char **ret_when)
{
    struct tt_error err = { 0 };
    struct tt_view v;
    int ret = tt_reader_bind(r, text, zone, now, &v, &err);

    if (ret == 0) {
        warn(r, disk, &v.moment);
        ret = tt_reader_check(r, &v, &err);
    }
    if (ret < 0) {
        return tool_report(&err);
    }
    disk->seq = v.moment.seq;
    *ret_when = when(r, v.moment.seq);
    return EXIT_OK;
}

/*
 * Binds a time as the user typed it, and makes sure that what is not in the
 * journal can be read.
 */
static int bind_disk(struct view_disk *disk, const char *text,
                     const struct tt_zone *zone, int64_t now, char **ret_when)
{
    struct tt_error err = { 0 };
    struct tt_reader *r;
    int status;

    if (!g_file_test(disk->journal, G_FILE_TEST_EXISTS)) {
        return tool_fail(EXIT_NOT_JOURNAL, "%s: there is no such journal",
                         disk->journal);
    }
    if (access(disk->journal, R_OK) < 0) {
        return tool_fail(EXIT_NOT_JOURNAL, "%s: cannot be opened: %s",
                         disk->journal, g_strerror(errno));
    }
    if (tt_reader_open(disk->journal, disk->live, &r, &err) < 0) {
        status = tool_report(&err);
        /* the journal is there */
        return err.os_errno == ENOENT ? EXIT_NO_DISK : status;
    }
    status = bind_with(r, disk, text, zone, now, ret_when);
    tt_reader_close(r);
    return status;
}

/* The server may not be where we are. */
static char *absolute(const char *path)
{
    char *real = realpath(path, NULL);

    return real ? real : g_strdup(path);
}

/* One more disk: JOURNAL at the time of the first, or JOURNAL@TIME. */
static int bind_other(struct view_request *req, const char *arg,
                      const char *text, const struct tt_zone *zone, int64_t now)
{
    struct view_disk *disk = &req->disks[req->n_disks];
    g_autofree char *journal = NULL, *own = NULL, *ignored = NULL;
    int status = EXIT_OK;

    if (req->n_disks == VIEW_DISKS) {
        return tool_fail(EXIT_USAGE, "--with: %d disks at most", VIEW_DISKS);
    }
    if (g_file_test(arg, G_FILE_TEST_EXISTS)) {
        journal = g_strdup(arg);
    } else {
        status = tool_split_moment(arg, &journal, &own);
    }
    if (status == EXIT_OK && own == NULL && g_str_has_prefix(text, "seq:")) {
        status = tool_fail(EXIT_USAGE,
                           "--with %s: a sequence number counts in its own "
                           "journal: say which moment with JOURNAL@TIME",
                           arg);
    }
    if (status == EXIT_OK) {
        disk->journal = absolute(journal);
        req->n_disks++;
        status = bind_disk(disk, own ? own : text, zone, now, &ignored);
    }
    return status;
}

int view_request(struct view_request *req, const char *journal,
                 const char *text)
{
    struct tt_error err = { 0 };
    struct tt_zone *zone = NULL;
    int64_t now = tool_now(); /* one for all disks */
    int status = check_options();

    *req = (struct view_request){
        .disks = { { .journal = absolute(journal), .live = opt_disk } },
        .n_disks = 1,
        .partition = (unsigned)opt_partition,
        .no_replay = opt_no_replay,
        .isolated = in_guest(),
        .distrusted = opt_isolated,
        .volume = opt_volume,
        .via = opt_via,
    };
    /* the local zone only makes a message better: none will do */
    if (status == EXIT_OK && tt_zone_open(opt_tz, &zone, &err) < 0 &&
        opt_tz != NULL) {
        status = tool_report(&err);
    }
    if (status == EXIT_OK) {
        status = bind_disk(&req->disks[0], text, zone, now, &req->when);
    }
    for (char **with = opt_with;
         status == EXIT_OK && with != NULL && *with != NULL; with++) {
        status = bind_other(req, *with, text, zone, now);
    }
    tt_zone_close(zone);
    if (status == EXIT_OK && has_key()) {
        status = view_read_key(opt_key_file, &req->key);
    }
    if (status != EXIT_OK) {
        view_request_clear(req);
    }
    return status;
}

void view_request_clear(struct view_request *req)
{
    for (unsigned i = 0; i < req->n_disks; i++) {
        g_free(req->disks[i].journal);
    }
    g_free(req->when);
    if (req->key != NULL) {
        explicit_bzero(req->key, strlen(req->key));
        g_free(req->key);
    }
    *req = (struct view_request){ 0 };
}
