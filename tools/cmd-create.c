/*
 * ttjournal create: an empty journal for a disk
 *
 * Everything a user may choose is checked before the file is made; then it is
 * made whole and durable, or not at all (tt_journal_create).  The disk is only
 * looked at.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "tool.h"

/* How much a guest may write at full speed before anything else was idle */
#define AHEAD_DEFAULT (256 * TT_MIB)

static gchar *opt_disk, *opt_size, *opt_segment_size, *opt_alignment,
    *opt_owner, *opt_ahead;

static const GOptionEntry entries[] = {
    { "disk", 'd', 0, G_OPTION_ARG_FILENAME, &opt_disk,
      "The disk image or block device to be recorded", "IMAGE" },
    { "size", 's', 0, G_OPTION_ARG_STRING, &opt_size,
      "The disk's size, if IMAGE is not raw", "BYTES" },
    { "segment-size", 0, 0, G_OPTION_ARG_STRING, &opt_segment_size,
      "Size of the journal's segments (64M)", "BYTES" },
    { "alignment", 0, 0, G_OPTION_ARG_STRING, &opt_alignment,
      "Least alignment of what is appended (4096)", "BYTES" },
    { "ahead", 0, 0, G_OPTION_ARG_STRING, &opt_ahead,
      "Room to write ahead (256M, or a quarter of a small disk)", "BYTES" },
    { "owner", 0, 0, G_OPTION_ARG_STRING, &opt_owner,
      "Who shall own the journal", "USER[:GROUP]" },
    { NULL },
};

/* A number with an optional K, M, G or T. */
static int parse_size(const char *option, const char *text, uint64_t *ret)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    char *end;
    guint64 value;
    unsigned shift = 0;

    errno = 0;
    value = g_ascii_strtoull(text, &end, 10);
    if (g_ascii_isdigit(text[0]) && errno == 0 && *end != '\0' &&
        (suffix = strchr(suffixes, g_ascii_toupper(*end))) != NULL) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (!g_ascii_isdigit(text[0]) || errno != 0 || *end != '\0' ||
        value > UINT64_MAX >> shift) {
        return tool_fail(EXIT_USAGE,
                         "%s: '%s' is not a size: write bytes, or a number "
                         "with K, M, G or T",
                         option, text);
    }
    *ret = value << shift;
    return EXIT_OK;
}

static int find_disk_size(uint64_t *ret)
{
    const char *format = "raw";
    uint64_t file_size = 0;
    int status = EXIT_OK;

    if (opt_disk == NULL && opt_size == NULL) {
        return tool_fail(EXIT_USAGE, "create: which disk? give --disk IMAGE "
                                     "or --size BYTES");
    }
    if (opt_disk != NULL) {
        status = image_probe(opt_disk, &format, &file_size);
    }
    if (status != EXIT_OK) {
        return status;
    }
    if (opt_size != NULL) {
        status = parse_size("--size", opt_size, ret);
    } else {
        *ret = file_size;
    }
    if (status == EXIT_OK && opt_size == NULL && strcmp(format, "raw") != 0) {
        return tool_fail(EXIT_USAGE,
                         "%s: looks like a %s image, whose file is not as "
                         "large as its disk: give --size with the virtual "
                         "size that `qemu-img info` shows",
                         opt_disk, format);
    }
    if (status == EXIT_OK && opt_size != NULL && opt_disk != NULL &&
        strcmp(format, "raw") == 0 && *ret != file_size) {
        return tool_fail(EXIT_USAGE,
                         "--size: %s is a raw image of %" PRIu64
                         " bytes, not %" PRIu64,
                         opt_disk, file_size, *ret);
    }
    return status;
}

/* A number, or a name that @lookup knows. */
static bool parse_id(const char *text, bool (*lookup)(const char *, guint64 *),
                     guint64 *ret)
{
    return lookup(text, ret) ||
           g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX - 1, ret, NULL);
}

static bool lookup_user(const char *name, guint64 *ret)
{
    struct passwd *pw = getpwnam(name);

    if (pw != NULL) {
        *ret = pw->pw_uid;
    }
    return pw != NULL;
}

static bool lookup_group(const char *name, guint64 *ret)
{
    struct group *gr = getgrnam(name);

    if (gr != NULL) {
        *ret = gr->gr_gid;
    }
    return gr != NULL;
}

/* USER[:GROUP]; without a group, the user's own. */
static int parse_owner(uid_t *ret_uid, gid_t *ret_gid)
{
    g_auto(GStrv) parts = NULL;
    struct passwd *pw;
    guint64 id;

    *ret_uid = (uid_t)-1;
    *ret_gid = (gid_t)-1;
    if (opt_owner == NULL) {
        return EXIT_OK;
    }
    parts = g_strsplit(opt_owner, ":", 2);
    if (!parse_id(parts[0], lookup_user, &id)) {
        return tool_fail(EXIT_USAGE, "--owner: there is no user '%s'",
                         parts[0]);
    }
    *ret_uid = (uid_t)id;
    pw = getpwuid(*ret_uid);
    if (pw != NULL) {
        *ret_gid = pw->pw_gid;
    }
    if (parts[1] == NULL) {
        return EXIT_OK;
    }
    if (!parse_id(parts[1], lookup_group, &id)) {
        return tool_fail(EXIT_USAGE, "--owner: there is no group '%s'",
                         parts[1]);
    }
    *ret_gid = (gid_t)id;
    return EXIT_OK;
}

/* The UUID and the salt, which keeps a guest from forging frames. */
static int make_random(uint8_t ret_uuid[TT_UUID_SIZE], uint64_t *ret_salt)
{
    if (getrandom(ret_uuid, TT_UUID_SIZE, 0) != TT_UUID_SIZE ||
        getrandom(ret_salt, sizeof(*ret_salt), 0) != sizeof(*ret_salt)) {
        return tool_fail(EXIT_IO, "no random numbers to be had: %s",
                         g_strerror(errno));
    }
    ret_uuid[6] = (ret_uuid[6] & 0x0f) | 0x40; /* RFC 9562, version 4 */
    ret_uuid[8] = (ret_uuid[8] & 0x3f) | 0x80;
    return EXIT_OK;
}

static int choose(struct tt_super *super)
{
    uint8_t uuid[TT_UUID_SIZE];
    uint64_t disk_size = 0, segment_size = TT_SEGMENT_DEFAULT;
    uint64_t alignment = 4096, salt;
    int status = find_disk_size(&disk_size);

    if (status == EXIT_OK && opt_segment_size != NULL) {
        status = parse_size("--segment-size", opt_segment_size, &segment_size);
    }
    if (status == EXIT_OK && opt_alignment != NULL) {
        status = parse_size("--alignment", opt_alignment, &alignment);
    }
    if (status == EXIT_OK && alignment > UINT32_MAX) {
        status = tool_fail(EXIT_USAGE, "--alignment: %" PRIu64 " is too large",
                           alignment);
    }
    if (status == EXIT_OK) {
        status = make_random(uuid, &salt);
    }
    if (status != EXIT_OK) {
        return status;
    }
    tt_super_init(super, uuid, salt, disk_size, (uint32_t)alignment,
                  tool_now());
    super->segment_size = segment_size;
    return EXIT_OK;
}

/* ---- writing ahead ------------------------------------------------------- */

/* The same default as the driver's option `ahead` has */
static int choose_ahead(const char *path, uint64_t disk_size, uint64_t *ret)
{
    struct stat st;
    uint64_t part = (disk_size / 4 / TT_MIB + 1) * TT_MIB;

    if (opt_ahead != NULL) {
        return parse_size("--ahead", opt_ahead, ret);
    }
    *ret = MIN(AHEAD_DEFAULT, part);
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
        *ret = 0;
    }
    return EXIT_OK;
}

struct writing {
    const char *path;
    gint64 started, shown; /* monotonic microseconds */
    bool line;             /* of progress stands on the terminal */
};

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    interrupted = number;
}

/* So that an interrupted command leaves nothing behind */
static void catch_interrupts(void)
{
    const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction sa = { .sa_handler = interrupt };

    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        sigaction(signals[i], &sa, NULL);
    }
}

static bool progress(void *opaque, uint64_t done, uint64_t total)
{
    struct writing *w = opaque;
    gint64 now = g_get_monotonic_time();

    if (now - w->started >= G_USEC_PER_SEC &&
        now - w->shown >= G_USEC_PER_SEC / 5 && isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[K%s: %.0f %% of %" PRIu64 " MiB written ahead",
                w->path, (double)done / (double)total * 100,
                (uint64_t)(total / TT_MIB));
        w->shown = now;
        w->line = true;
    }
    return !interrupted;
}

static int create(const char *path, const struct tt_super *super, uid_t uid,
                  gid_t gid, uint64_t bytes)
{
    struct writing w = { .path = path, .started = g_get_monotonic_time() };
    struct tt_ahead ahead = {
        .bytes = bytes,
        .progress = progress,
        .opaque = &w,
    };
    struct tt_error err = { 0 };
    int r;

    catch_interrupts();
    r = tt_journal_create(path, super, uid, gid, &ahead, &err);
    if (w.line) {
        fputs("\r\033[K", stderr);
    }
    return r < 0 ? tool_report(&err) : EXIT_OK;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, 1);
    g_autofree char *uuid = NULL, *size = NULL, *room = NULL;
    struct tt_super super;
    uint64_t ahead = 0;
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;

    if (status == EXIT_OK) {
        status = choose(&super);
    }
    if (status == EXIT_OK) {
        status = parse_owner(&uid, &gid);
    }
    if (status == EXIT_OK) {
        status = choose_ahead(argv[1], super.disk_size, &ahead);
    }
    if (status == EXIT_OK) {
        status = create(argv[1], &super, uid, gid, ahead);
    }
    if (status != EXIT_OK) {
        return status;
    }
    uuid = tool_uuid(super.uuid);
    size = tool_size(super.disk_size);
    room = tool_size(ahead);
    printf("%s: journal %s for a disk of %s, %s written ahead\n", argv[1], uuid,
           size, room);
    return EXIT_OK;
}

const struct tool_command cmd_create = {
    .name = "create",
    .synopsis = "JOURNAL",
    .summary = "Make an empty journal for a disk",
    .examples =
        "  ttjournal create disk.ttj --disk disk.img\n"
        "  ttjournal create disk.ttj --disk vm.qcow2 --size 20G --ahead 2G\n"
        "  ttjournal create disk.ttj --disk /dev/vg0/vm --owner libvirt-qemu\n",
    .run = run,
};
