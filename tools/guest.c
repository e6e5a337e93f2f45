/*
 * How is a file system read that no driver of this machine should touch, or
 * can?
 *
 * By libguestfs: a small virtual machine that has the disks, finds partitions,
 * RAID and LVM in them, mounts, and hands the files out by FUSE.  Each disk
 * comes by a socket from an nbdkit of its own; libguestfs puts an overlay over
 * each, which is where journals are replayed.  The host parses nothing of the
 * disk.  No root is needed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "view.h"

/* As many RAIDs as one would read of */
#define WARNINGS_MAX 16

static bool can_fuse(void)
{
    return access("/dev/fuse", R_OK | W_OK) == 0;
}

static bool has(const char *program)
{
    g_autofree char *path = g_find_program_in_path(program);

    return path != NULL;
}

static const char *guestfish_missing(void)
{
    return has("guestfish") ? NULL
                            : "guestfish is not installed (libguestfs; "
                              "Debian's package is guestfish)";
}

const char *guest_missing(void)
{
    const char *missing = guestfish_missing();

    if (missing == NULL && !can_fuse()) {
        missing = "/dev/fuse cannot be opened";
    }
    return missing;
}

/* The disks as libguestfs' programs take them. */
static void add_disks(GPtrArray *argv, const struct view *v,
                      const struct view_request *req)
{
    argv_add(argv, "--ro");
    argv_add(argv, "--format=raw");
    for (unsigned i = 0; i < req->n_disks; i++) {
        g_autofree char *socket = view_socket(v, i);
        g_autofree char *escaped = g_uri_escape_string(
            socket, G_URI_RESERVED_CHARS_ALLOWED_IN_PATH, FALSE);

        argv_add(argv, "--add=nbd://?socket=%s", escaped);
    }
}

/* Where it keeps the virtual machine's files, for all to come. */
static const char *cache_dir(void)
{
    const char *dir = g_getenv("LIBGUESTFS_CACHEDIR");

    dir = dir ? dir : g_getenv("TMPDIR");
    return dir ? dir : "/var/tmp";
}

/*
 * Whatever else it makes goes with the run directory.  RAIDs that it finds
 * stay read-only until somebody writes, so that none is brought level first.
 */
static char **environment(const struct view *v, char **ret_dir)
{
    const char *append = g_getenv("LIBGUESTFS_APPEND");
    char **env = g_new0(char *, 5);
    char *dir = view_path(v, "tmp");

    env[0] = g_strdup_printf("LIBGUESTFS_TMPDIR=%s", dir);
    env[1] = g_strdup_printf("XDG_RUNTIME_DIR=%s", dir);
    env[2] = g_strdup_printf("LIBGUESTFS_CACHEDIR=%s", cache_dir());
    env[3] = g_strdup_printf("LIBGUESTFS_APPEND=%s%smd_mod.start_ro=1",
                             append ? append : "", append ? " " : "");
    *ret_dir = dir;
    return env;
}

/* ---- sockets ------------------------------------------------------------ */

/* The folder of libguestfs' socket in a command line of QEMU's, or NULL. */
static char *socket_dir(const char *cmdline, gsize length)
{
    static const char name[] = "/guestfsd.sock";
    const char *end = memmem(cmdline, length, name, strlen(name));
    const char *start = end;

    while (start != NULL && start > cmdline && start[-1] != '=' &&
           start[-1] != '\0') {
        start--;
    }
    return start && *start == '/' ? g_strndup(start, (gsize)(end - start))
                                  : NULL;
}

/*
 * For root it makes its sockets in /tmp, whatever we say, and if it is killed
 * they stay: remember where, as long as QEMU's command line tells.
 */
static void find_litter(struct view *v)
{
    g_autofree char *path = g_strdup_printf(
        "/proc/%d/task/%d/children", (int)v->helper.pid, (int)v->helper.pid);
    g_autofree char *text = NULL;
    g_auto(GStrv) children = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return;
    }
    children = g_strsplit(text, " ", -1);
    for (char **c = children; *c != NULL && v->litter == NULL; c++) {
        g_autofree char *file = g_strdup_printf("/proc/%s/cmdline", *c);
        g_autofree char *cmdline = NULL;
        gsize length;

        if (**c != '\0' && g_file_get_contents(file, &cmdline, &length, NULL)) {
            v->litter = socket_dir(cmdline, length);
        }
    }
}

int guest_note_litter(struct view *v)
{
    if (v->litter != NULL || g_strcmp0(v->how, "libguestfs") != 0 ||
        !process_alive(&v->helper)) {
        return EXIT_OK;
    }
    find_litter(v);
    return v->litter ? view_save(v) : EXIT_OK;
}

void guest_remove_litter(struct view *v)
{
    static const char *const names[] = { "guestfsd.sock", "console.sock",
                                         "qmp.sock" };
    g_autofree char *name = v->litter ? g_path_get_basename(v->litter) : NULL;

    if (name == NULL || !g_str_has_prefix(name, "libguestfs")) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(v->litter, names[i], NULL);

        unlink(path);
    }
    rmdir(v->litter); /* it did so itself unless it was killed */
}

/* ---- mounting, listing -------------------------------------------------- */

static char *volume_name(const struct view_request *req)
{
    return req->volume[0] == '/' ? g_strdup(req->volume)
                                 : g_strdup_printf("/dev/%s", req->volume);
}

/* With a key, a volume of a partition is one of LVM behind the key. */
static bool volume_inside(const struct view_request *req)
{
    return req->volume != NULL && req->partition > 0;
}

/* What is mounted, or opened with the key. */
static char *device_name(const struct view_request *req)
{
    return req->volume == NULL || volume_inside(req) ? g_strdup("/dev/sda")
                                                     : volume_name(req);
}

/* A command of guestfish's; its first word begins with the separator. */
static void add_command(GPtrArray *argv, const char *const *words)
{
    argv_add(argv, ":");
    for (const char *const *word = words; *word != NULL; word++) {
        argv_add(argv, "%s", *word);
    }
}

/*
 * Makes RAIDs ready, in the virtual machine.  What lacks members and was not
 * started is, if it can do without them.  None is brought level: with the
 * first write, a file system's replay, the kernel would copy one member over
 * another, all of it, into the overlay.  And each gets a name that is known
 * without looking there, since the numbers depend on who comes first.
 */
#define EACH_RAID                                                              \
    "for d in /sys/block/md*/md; do\n"                                         \
    "[ -e $d ] || continue\n"                                                  \
    "m=${d%/md} m=/dev/${m##*/}\n"                                             \
    "u=$(mdadm --detail --export $m | sed -n s/^MD_UUID=//p | tr -d :)\n"      \
    "u=$(echo $u | sed -E "                                                    \
    "\"s/^(.{8})(.{4})(.{4})(.{4})/\\1-\\2-\\3-\\4-/\")\n"

/* What a line begins with that is meant for the user */
#define DEGRADED "ttjournal-degraded "

/* clang-format off */
static const char make_ready[] = EACH_RAID
    "if [ \"$(cat $d/array_state)\" = inactive ]; then\n"
    "  mdadm --run $m >/dev/null 2>&1 && lvm vgchange -aay >/dev/null\n"
    "fi\n"
    "[ ! -e $d/sync_action ] || echo frozen >$d/sync_action || exit 1\n"
    "mkdir -p /dev/md && ln -sfn $m /dev/md/$u || exit 1\n"
    "done";

/* A line for each: what it is called, what it is, and what there is of it. */
static const char tell[] = EACH_RAID
    "set -- $d/dev-*\n"
    "e=$(mdadm --examine --export /dev/${1##*/dev-})\n"
    "l=$(echo \"$e\" | sed -n s/^MD_LEVEL=//p)\n"
    "n=$(echo \"$e\" | sed -n s/^MD_DEVICES=//p)\n"
    "echo \"/dev/md/$u: $l on $# of $n disks, $(cat $d/array_state)\"\n"
    "done";
/*
 * What of all that is below the device in $1 runs without a member: a line
 * each.  A member that is out of date was left out when it was assembled.
 */
static const char degraded[] =
    "walk() {\n"
    "  echo $1\n"
    "  for s in /sys/class/block/$1/slaves/*; do\n"
    "    [ ! -e $s ] || walk ${s##*/}\n"
    "  done\n"
    "  if [ -e /sys/class/block/$1/partition ]; then\n"
    "    p=$(readlink -f /sys/class/block/$1) p=${p%/*}\n"
    "    walk ${p##*/}\n"
    "  fi\n"
    "}\n"
    "r=$(readlink -f \"$1\")\n"
    "below=\" $(echo $(walk ${r##*/})) \"\n"
    "h=$(lvm lvs --noheadings -o lv_health_status \"$1\" 2>/dev/null)\n"
    "h=$(echo $h)\n"
    "[ -z \"$h\" ] || echo \"" DEGRADED "$1: $h\"\n"
    EACH_RAID
    "case \"$below\" in *\" ${m##*/} \"*) ;; *) continue ;; esac\n"
    "n=$(cat $d/raid_disks) i=0 l=\n"
    "while [ $i -lt $n ] && [ $i -lt 64 ]; do\n"
    "  [ -e $d/rd$i ] || l=\"$l${l:+, }$i\"\n"
    "  i=$((i + 1))\n"
    "done\n"
    "[ -z \"$l\" ] || echo \"" DEGRADED "/dev/md/$u: $l of $n\"\n"
    "done\n"
    "true";
/* clang-format on */

static void add_shell(GPtrArray *argv, const char *script)
{
    const char *words[] = { "debug", "sh", script, NULL };

    add_command(argv, words);
}

static void add_mount(GPtrArray *argv, const struct view *v,
                      const struct view_request *req, const char *device)
{
    g_autofree char *options =
        g_strdup_printf("options:ro,nosuid,nodev,noexec,fsname=%s", v->source);
    /* norecovery: what ext3, ext4, XFS, f2fs and nilfs2 understand; of
     * which kind it is only the virtual machine knows */
    const char *mount[] = { "mount-options",
                            req->no_replay ? "ro,norecovery" : "ro", device,
                            "/", NULL };
    const char *local[] = { "mount-local", v->target, "readonly:true", options,
                            NULL };
    static const char *const serve[] = { "mount-local-run", NULL };
    g_autofree char *quoted = g_shell_quote(device);
    g_autofree char *look = g_strdup_printf("set -- %s\n%s", quoted, degraded);

    add_command(argv, mount);
    add_shell(argv, look);
    add_command(argv, local);
    add_command(argv, serve);
}

/*
 * Opens @device, with the key that comes on standard input: what is behind it,
 * as a device.  What is replayed into that goes to the overlay, encrypted.
 */
static char *add_open(GPtrArray *argv, const struct view_request *req,
                      const char *device)
{
    const char *open[] = { "cryptsetup-open", device, "opened",
                           req->no_replay ? "readonly:true" : "readonly:false",
                           NULL };
    static const char *const scan[] = { "lvm-scan", "true", NULL };

    add_command(argv, open);
    if (!volume_inside(req)) {
        return g_strdup("/dev/mapper/opened");
    }
    add_command(argv, scan);
    return volume_name(req);
}

/* guestfish ends when it is unmounted. */
static int start_guestfish(struct view *v, const struct view_request *req,
                           const char *const *env)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *device = device_name(req);
    g_autofree char *name = g_path_get_basename(v->run_dir);

    v->source = g_strdup_printf("ttjournal-%s", name);
    argv_add(argv, "stdbuf"); /* what it says is read while it runs */
    argv_add(argv, "--output=L");
    argv_add(argv, "guestfish");
    argv_add(argv, "--keys-from-stdin");
    add_disks(argv, v, req);
    argv_add(argv, "run");
    add_shell(argv, make_ready);
    if (req->key != NULL) {
        g_autofree char *opened = add_open(argv, req, device);

        add_mount(argv, v, req, opened);
    } else {
        add_mount(argv, v, req, device);
    }
    return view_start_helper(v, argv, env, req->key);
}

/* A line each for what is mounted though not all of it is there. */
static void warn_degraded(const struct view *v)
{
    g_autofree char *path = view_path(v, "log");
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    unsigned count = 0;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        tool_warn("%s: whether all members are there is not known: the log "
                  "cannot be read",
                  v->target);
        return;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL && count < WARNINGS_MAX; line++) {
        if (g_str_has_prefix(*line, DEGRADED)) {
            tool_warn("%s: mounted degraded, with members missing or out of "
                      "date: %.500s",
                      v->target, *line + strlen(DEGRADED));
            count++;
        }
    }
}

int guest_mount(struct view *v, const struct view_request *req)
{
    g_autofree char *dir = NULL;
    g_auto(GStrv) env = environment(v, &dir);
    const char *missing = guest_missing();
    int status;

    if (missing != NULL) {
        return tool_fail(EXIT_NO_VIEW, "%s", missing);
    }
    if (mkdir(dir, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: %s", dir, g_strerror(errno));
    }
    g_free(v->how);
    v->how = g_strdup("libguestfs");
    status = view_serve_sockets(v, req);
    if (status == EXIT_OK) {
        status = start_guestfish(v, req, (const char *const *)env);
    }
    if (status == EXIT_OK) {
        warn_degraded(v);
    }
    return status;
}

int guest_list(struct view *v, const struct view_request *req, char **ret)
{
    static const char *const list[] = { "list-filesystems", NULL };
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *dir = NULL;
    g_auto(GStrv) env = environment(v, &dir);
    int status;

    *ret = NULL;
    if (guestfish_missing() != NULL) {
        return tool_fail(EXIT_NO_VIEW, "%s", guestfish_missing());
    }
    if (mkdir(dir, 0700) < 0) {
        return tool_fail(EXIT_IO, "%s: %s", dir, g_strerror(errno));
    }
    status = view_serve_sockets(v, req);
    if (status != EXIT_OK) {
        return status;
    }
    for (char **e = env; *e != NULL; e++) {
        g_auto(GStrv) pair = g_strsplit(*e, "=", 2);

        g_setenv(pair[0], pair[1], TRUE);
    }
    argv_add(argv, "guestfish");
    add_disks(argv, v, req);
    argv_add(argv, "run");
    add_shell(argv, make_ready);
    add_command(argv, list);
    add_shell(argv, tell);
    g_ptr_array_add(argv, NULL);
    if (!process_succeeds((const char *const *)argv->pdata, ret)) {
        g_strdelimit(*ret, "\n", ' ');
        return tool_fail(EXIT_NO_VIEW, "libguestfs failed: %s", *ret);
    }
    return EXIT_OK;
}
