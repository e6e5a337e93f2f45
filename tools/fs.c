/*
 * How is each kind of file system mounted, and by whom?
 *
 * By the kernel if that knows it and we are root; else by a FUSE program; else
 * in libguestfs' virtual machine.  A file system that was in use replays its
 * journal into the overlay when it is mounted, read-only as that is: file
 * systems do so if the device below is writable.  Without replay the device is
 * read-only, too.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probe.h"
#include "view.h"

/* Nothing in a view may become a device, a privilege or a running program. */
#define SAFE "ro,nosuid,nodev,noexec" /* view.c checks that */

enum replay {
    REPLAY_NONE,  /* there is nothing to replay */
    REPLAY_MOUNT, /* mounting does it */
    REPLAY_NEVER, /* there would be, but nobody does it on a read-only mount */
};

static const struct fs_kind {
    const char *type;    /* as libblkid calls it */
    const char *driver;  /* as the kernel calls it; NULL: the same */
    const char *options; /* always; begins with a comma */
    const char *strict;  /* besides, so that nothing is replayed */
    enum replay replay;
    const char *fuse; /* a program that mounts it, too; or NULL */
} kinds[] = {
    { "ext2", NULL, "", "", REPLAY_NONE, "fuse2fs" },
    { "ext3", NULL, "", ",noload", REPLAY_MOUNT, "fuse2fs" },
    { "ext4", NULL, "", ",noload", REPLAY_MOUNT, "fuse2fs" },
    /* nouuid: its twin may be mounted */
    { "xfs", NULL, ",nouuid", ",norecovery", REPLAY_MOUNT, NULL },
    { "btrfs", NULL, "", ",rescue=nologreplay", REPLAY_MOUNT, NULL },
    { "ntfs", "ntfs3", "", "", REPLAY_NEVER, "ntfs-3g" },
    { "f2fs", NULL, "", ",norecovery", REPLAY_MOUNT, NULL },
    { "nilfs2", NULL, "", ",norecovery", REPLAY_MOUNT, NULL },
    { "jfs", NULL, "", "", REPLAY_NEVER, NULL },
    { "hfsplus", NULL, "", "", REPLAY_NEVER, NULL },
    { "exfat", NULL, "", "", REPLAY_NONE, "mount.exfat-fuse" },
    { "vfat", NULL, "", "", REPLAY_NONE, "fusefat" },
};

static const struct fs_kind *find_kind(const char *type)
{
    static struct fs_kind other;

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (strcmp(kinds[i].type, type) == 0) {
            return &kinds[i];
        }
    }
    other = (struct fs_kind){ .type = type, .options = "", .strict = "" };
    return &other;
}

/* ---- what it is --------------------------------------------------------- */

#define GUEST_LISTS                                                            \
    "with libguestfs, `ttjournal mount --list --isolated` lists what it "      \
    "holds, --volume mounts one of that, and --with names other disks of it"

/* What it is a part of, or @otherwise. */
static char *whole(const struct probe *p, const char *otherwise)
{
    return p->part.set ? member_describe(&p->part, p->type)
                       : g_strdup(otherwise);
}

char *fs_offer(const struct probe *p)
{
    g_autofree char *of = NULL;

    if (p->type == NULL) {
        return NULL;
    }
    if (strcmp(p->type, "LVM2_member") == 0 ||
        strcmp(p->type, "LVM1_member") == 0) {
        of = whole(p, "an LVM volume group");
        return g_strdup_printf(
            "a part of %s, which is not activated here: " GUEST_LISTS, of);
    }
    if (strcmp(p->type, "zfs_member") == 0) {
        of = whole(p, "a ZFS pool");
        return g_strdup_printf("a member of %s, which is not imported here, "
                               "nor by libguestfs, which has no ZFS",
                               of);
    }
    if (g_str_has_suffix(p->type, "raid_member") ||
        strcmp(p->type, "ddf") == 0) {
        of = whole(p, "a RAID");
        return g_strdup_printf(
            "a member of %s, which is not assembled here: " GUEST_LISTS, of);
    }
    if (strcmp(p->type, "crypto_LUKS") == 0 ||
        strcmp(p->type, "BitLocker") == 0) {
        return g_strdup("encrypted, and is not opened here: with libguestfs, "
                        "--key-file FILE or --ask-key opens it in a virtual "
                        "machine");
    }
    if (strcmp(p->type, "swap") == 0) {
        return g_strdup("swap space, which holds no files");
    }
    return NULL;
}

/* Who has ZFS can look at a pool; these are the commands, for this moment. */
static int refuse_zfs(const struct view_request *req, const char *what,
                      const struct probe *p)
{
    g_autofree char *offer = fs_offer(p);
    g_autofree char *journal = g_shell_quote(req->disks[0].journal);
    g_autofree char *cut =
        req->partition ? g_strdup_printf(" partition=%u", req->partition)
                       : g_strdup("");
    g_autofree char *live =
        req->disks[0].live ? g_shell_quote(req->disks[0].live) : g_strdup("");
    g_autofree char *pool =
        p->part.name ? g_shell_quote(p->part.name) : g_strdup("POOL");

    return tool_fail(
        EXIT_NO_VIEW,
        "%s is %s: `nbdfuse --readonly DIR/disk [ nbdkit %sttview "
        "journal=%s at=seq:%" PRIu64 "%s%s%s ]`, so for each of its "
        "disks, then `zpool import -o readonly=on -d DIR %s`",
        what, offer, req->partition ? "--filter=partition " : "", journal,
        req->disks[0].seq, req->disks[0].live ? " disk=" : "", live, cut, pool);
}

static int refuse(const struct view *v, const struct view_request *req,
                  const struct probe *p)
{
    const char *what = req->partition ? "the partition" : "the disk";
    g_autofree char *offer = fs_offer(p);
    g_autofree char *error = view_error(v);

    /* nothing was found, and not all could be read: that is no finding */
    if (error != NULL) {
        return tool_fail(EXIT_DAMAGED,
                         "what %s holds cannot be told, because not all of it "
                         "can be read: %s",
                         what, error);
    }
    if (p->ambiguous) {
        return tool_fail(EXIT_NO_VIEW,
                         "%s has signatures of more than one file system: "
                         "--isolated lets libguestfs choose",
                         what);
    }
    if (g_strcmp0(p->type, "zfs_member") == 0) {
        return refuse_zfs(req, what, p);
    }
    if (p->type != NULL) {
        return tool_fail(EXIT_NO_VIEW,
                         "%s holds no file system but %s: it is %s", what,
                         p->type, offer ? offer : "nothing to mount");
    }
    if (p->table != NULL) {
        return tool_fail(EXIT_NO_VIEW,
                         "the disk has a partition table (%s): say which one "
                         "with --partition N; --list shows what is in them",
                         p->table);
    }
    return tool_fail(EXIT_NO_VIEW,
                     "%s holds no file system that is known here, at that "
                     "moment",
                     what);
}

/* Reports that a program could not mount it: because of damage, or by what it
 * has said itself. */
static int not_mounted(const struct view *v, const char *what, char *output)
{
    g_autofree char *error = view_error(v);

    g_strdelimit(output, "\n", ' ');
    return tool_fail(error ? EXIT_DAMAGED : EXIT_NO_VIEW, "%s failed: %s", what,
                     error ? error : output);
}

/* Looks at what is served, before anything else of this machine may. */
static int identify(struct view *v, const struct view_request *req,
                    struct probe *p)
{
    uint64_t size;
    int fd = view_open_served(v, &size);
    int status = EXIT_OK;

    if (fd < 0) {
        return EXIT_NO_VIEW;
    }
    probe_range(fd, 0, size, p);
    if (!probe_is_fs(p)) {
        status = refuse(v, req, p);
    } else {
        v->fs_type = g_strdup(p->type);
    }
    close(fd);
    return status;
}

/* ---- the kernel --------------------------------------------------------- */

static bool kernel_lists(const char *driver)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    bool found = false;

    if (!g_file_get_contents("/proc/filesystems", &text, NULL, NULL)) {
        return true; /* mounting will tell */
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL && !found; line++) {
        const char *tab = strchr(*line, '\t');

        found = tab != NULL && strcmp(tab + 1, driver) == 0;
    }
    return found;
}

static bool kernel_has(const char *driver)
{
    g_autofree char *module = g_strdup_printf("fs-%s", driver);
    const char *argv[] = { "modprobe", "-q", "--", module, NULL };
    g_autofree char *output = NULL;

    if (!kernel_lists(driver)) {
        process_succeeds(argv, &output);
    }
    return kernel_lists(driver);
}

static int mount_by_kernel(struct view *v, const struct fs_kind *kind,
                           bool strict)
{
    const char *driver = kind->driver ? kind->driver : kind->type;
    g_autofree char *options =
        g_strconcat(SAFE, kind->options, strict ? kind->strict : "", NULL);
    g_autofree char *output = NULL;
    const char *argv[] = { "mount", "-i",      "-t",      driver, "-o",
                           options, v->device, v->target, NULL };
    int status;

    v->source = g_strdup(v->device);
    status = view_save(v);
    if (status == EXIT_OK && !process_succeeds(argv, &output)) {
        g_autofree char *what = g_strdup_printf("mounting %s", v->fs_type);

        status = not_mounted(v, what, output);
    }
    return status;
}

/* ---- btrfs -------------------------------------------------------------- */

/* On how many devices it lies; 0 if that cannot be read. */
static uint64_t btrfs_devices(const struct view *v)
{
    int fd = open(v->file ? v->file : v->device, O_RDONLY | O_CLOEXEC);
    uint64_t devices = 0;

    /* a field of its superblock */
    if (fd >= 0 && pread(fd, &devices, sizeof(devices), 64 * 1024 + 0x88) !=
                       sizeof(devices)) {
        devices = 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return GUINT64_FROM_LE(devices);
}

/*
 * btrfs knows its file systems by their UUID: of two with the same it would
 * show one in both places, unless the kernel gives the second a temporary one.
 * NULL if it can be mounted, else why not.
 */
static const char *btrfs_obstacle(const struct probe *p)
{
    g_autofree char *twin = g_strdup_printf("/sys/fs/btrfs/%s", p->uuid);

    if (access(twin, F_OK) == 0 &&
        access("/sys/fs/btrfs/features/temp_fsid", F_OK) < 0) {
        return "one with the same UUID is mounted, and this kernel cannot "
               "tell them apart (temp_fsid is in Linux 6.7 and newer)";
    }
    return NULL;
}

/* Is it our device that the kernel has mounted? */
static bool btrfs_is_ours(const struct view *v)
{
    g_autofree char *name = g_path_get_basename(v->device);
    GDir *dir = g_dir_open("/sys/fs/btrfs", 0, NULL);
    const char *uuid;
    bool found = false;

    while (dir != NULL && !found && (uuid = g_dir_read_name(dir)) != NULL) {
        g_autofree char *path =
            g_strdup_printf("/sys/fs/btrfs/%s/devices/%s", uuid, name);

        found = access(path, F_OK) == 0;
    }
    if (dir != NULL) {
        g_dir_close(dir);
    }
    return found;
}

/* ---- FUSE --------------------------------------------------------------- */

/* Runs e2fsck on the journal of ext3 or ext4. */
static int check_ext(const struct view *v, const char *how, char **ret_output)
{
    const char *argv[] = { "e2fsck", how, "-E", "journal_only", v->file, NULL };
    int code, status = process_run(argv, ret_output, &code);

    /* 1: it has corrected something, which is what it should */
    if (status == EXIT_OK && code != 0 && code != 1) {
        status = not_mounted(v, "replaying the journal", *ret_output);
    }
    return status;
}

/* Is the file system valid and without errors, as its superblock says? */
static bool ext_is_good(const struct view *v)
{
    int fd = open(v->file, O_RDONLY | O_CLOEXEC);
    uint16_t state = 0;
    bool known = fd >= 0 &&
                 pread(fd, &state, sizeof(state), 1024 + 0x3a) == sizeof(state);

    if (fd >= 0) {
        close(fd);
    }
    return known && (GUINT16_FROM_LE(state) & 3) == 1;
}

/*
 * Replays the journal of ext3 or ext4 into the overlay; fuse2fs itself does
 * so only if it may write.  Nothing is repaired: a journal that e2fsck cannot
 * use it would delete, so it is asked first (-n); and where a transaction is
 * broken it stops, and notes that the file system is not valid.
 */
static int replay_ext(const struct view *v)
{
    g_autofree char *asked = NULL, *output = NULL;
    bool was_good = ext_is_good(v);
    int status = check_ext(v, "-n", &asked);

    if (status == EXIT_OK) {
        status = check_ext(v, "-p", &output);
    }
    if (status == EXIT_OK && was_good && !ext_is_good(v)) {
        status = not_mounted(v, "replaying the journal", output);
    }
    return status;
}

static int mount_by_fuse(struct view *v, const struct fs_kind *kind,
                         bool strict)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    const char *disk = v->file ? v->file : v->device;
    bool ext = strcmp(kind->fuse, "fuse2fs") == 0;
    int status = EXIT_OK;

    if (ext && kind->replay == REPLAY_MOUNT && !strict) {
        status = replay_ext(v);
    }
    argv_add(argv, "%s", kind->fuse);
    if (ext) {
        /* fakeroot: whoever may read the disk may read all that is on it */
        argv_add(argv, "-f");
        argv_add(argv, "-r"); /* its "ro" does not reach the kernel */
        argv_add(argv, "-o");
        argv_add(argv, SAFE ",fakeroot%s", strict ? ",norecovery" : "");
    } else if (strcmp(kind->fuse, "ntfs-3g") == 0) {
        argv_add(argv, "-o");
        argv_add(argv, SAFE ",no_detach,streams_interface=xattr");
    } else {
        argv_add(argv, "-f");
        argv_add(argv, "-o");
        argv_add(argv, SAFE ",fsname=%s", disk);
    }
    argv_add(argv, "%s", disk);
    argv_add(argv, "%s", v->target);
    v->source = g_strdup(disk);
    if (status == EXIT_OK) {
        status = view_start_helper(v, argv, NULL, NULL);
    }
    return status;
}

/* ---- who does it -------------------------------------------------------- */

/* Is it there, and can it do so for us? */
static bool fuse_usable(const struct view *v, const struct fs_kind *kind)
{
    g_autofree char *path = NULL;

    if (kind->fuse == NULL || v->file == NULL) {
        return false;
    }
    path = g_find_program_in_path(kind->fuse);
    /* the others mount by themselves, which takes root */
    return path != NULL &&
           (geteuid() == 0 || strcmp(kind->fuse, "fuse2fs") == 0);
}

/* Serves it anew, for libguestfs. */
static int mount_by_guest(struct view *v, const struct view_request *req,
                          const char *why)
{
    int status;

    tool_warn("%s: mounting it in libguestfs' virtual machine, because %s",
              v->target, why);
    status = view_unserve(v);
    return status == EXIT_OK ? guest_mount(v, req) : status;
}

static int no_way(const struct view *v, const struct fs_kind *kind,
                  const char *why)
{
    g_autofree char *fuse =
        kind->fuse && (geteuid() == 0 || strcmp(kind->fuse, "fuse2fs") == 0)
            ? g_strdup_printf("%s or ", kind->fuse)
            : g_strdup("");

    return tool_fail(EXIT_NO_VIEW,
                     "%s cannot be mounted here, because %s: it takes %s"
                     "guestfish, and %s",
                     v->fs_type, why, fuse, guest_missing());
}

static int mount_identified(struct view *v, const struct view_request *req,
                            const struct probe *p)
{
    const struct fs_kind *kind = find_kind(v->fs_type);
    bool strict = req->no_replay || kind->replay == REPLAY_NEVER;
    const char *why = NULL;
    bool btrfs = strcmp(kind->type, "btrfs") == 0;
    int status;

    if (btrfs && btrfs_devices(v) != 1) {
        return tool_fail(EXIT_NO_VIEW,
                         "this btrfs lies on several devices: name the "
                         "journals of the others with --with");
    }
    if (geteuid() != 0) {
        why = "mounting by the kernel takes root";
    } else if (!kernel_has(kind->driver ? kind->driver : kind->type)) {
        why = "this kernel does not know it";
    } else if (btrfs) {
        why = btrfs_obstacle(p);
    }
    if (why == NULL) {
        status = view_attach(v, !strict);
        if (status == EXIT_OK) {
            v->how = g_strdup("kernel");
            status = mount_by_kernel(v, kind, strict);
        }
    } else if (fuse_usable(v, kind)) {
        v->how = g_strdup(kind->fuse);
        status = mount_by_fuse(v, kind, strict);
    } else if (guest_missing() == NULL) {
        return mount_by_guest(v, req, why);
    } else {
        return no_way(v, kind, why);
    }
    if (status == EXIT_OK && btrfs && !btrfs_is_ours(v)) {
        status = tool_fail(EXIT_NO_VIEW,
                           "the kernel has mounted another btrfs with the "
                           "same UUID: unmount that first");
    }
    if (status == EXIT_OK && strict && kind->replay != REPLAY_NONE) {
        tool_warn("%s: strict%s: what the file system had only in its own "
                  "journal is not visible, however durable it was",
                  v->target,
                  req->no_replay ? "" : ", as always with this file system");
    }
    return status;
}

int fs_mount(struct view *v, const struct view_request *req)
{
    struct probe p = { 0 };
    int status = identify(v, req, &p);

    if (status == EXIT_OK && process_interrupted()) {
        status = tool_fail(EXIT_NO_VIEW, "interrupted; everything is undone");
    }
    if (status == EXIT_OK) {
        status = mount_identified(v, req, &p);
    }
    if (v->device_fd >= 0) { /* the mount holds the device from now on */
        close(v->device_fd);
        v->device_fd = -1;
    }
    probe_clear(&p);
    return status;
}
