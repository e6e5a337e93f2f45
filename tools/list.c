/*
 * ttjournal mount --list: what is on the disk of a past moment?
 *
 * libblkid looks at the file that nbdfuse makes of the view: partitions, file
 * systems, and what else there is, with the option that opens it.  With
 * --isolated it is libguestfs that looks, and sees volumes, too.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "list.h"
#include "probe.h"

/* How to open it; g_free() it. */
static char *how_to(const struct probe *p, bool is_part)
{
    char *offer;

    if (probe_is_fs(p)) {
        return is_part ? g_strdup_printf("--partition %d", p->number)
                       : g_strdup("");
    }
    offer = fs_offer(p);
    return offer ? offer : g_strdup("");
}

static const char *kind(const struct probe *p)
{
    return p->ambiguous ? "ambiguous"
           : p->type    ? p->type
           : p->table   ? "partition-table"
                        : "unknown";
}

/* ---- text --------------------------------------------------------------- */

static void print_quoted(const char *what, const char *value)
{
    g_autofree char *text = value ? tool_visible(value, strlen(value)) : NULL;

    if (text != NULL && text[0] != '\0') {
        printf(", %s \"%s\"", what, text);
    }
}

static void print_one(const struct probe *p)
{
    g_autofree char *size = tool_size(p->size);
    g_autofree char *how = how_to(p, p->number > 0);

    if (p->number > 0) {
        printf("  partition %d: ", p->number);
    } else {
        printf("  the disk: ");
    }
    printf("%s, %s", kind(p), size);
    if (p->table != NULL) {
        printf(", partition table %s", p->table);
    }
    print_quoted("label", p->label);
    print_quoted("name", p->name);
    print_quoted("UUID", p->uuid);
    printf("%s%s\n", how[0] ? ": " : "", how);
}

/* ---- JSON --------------------------------------------------------------- */

static void json_optional(JsonBuilder *b, const char *name, const char *value)
{
    if (value != NULL) {
        json_string(b, name, value);
    }
}

/* @journal: where it is, if that is not the first. */
static void add_json(JsonBuilder *b, const struct probe *p, const char *journal)
{
    g_autofree char *how = how_to(p, p->number > 0);

    json_builder_begin_object(b);
    json_optional(b, "journal", journal);
    json_int(b, "partition", (uint64_t)p->number);
    json_int(b, "start", p->start);
    json_int(b, "size", p->size);
    json_string(b, "type", kind(p));
    json_bool(b, "mountable", probe_is_fs(p));
    json_optional(b, "usage", p->usage);
    json_optional(b, "table", p->table);
    json_optional(b, "label", p->label);
    json_optional(b, "name", p->name);
    json_optional(b, "uuid", p->uuid);
    json_optional(b, "set", p->part.set);
    json_optional(b, "member", p->part.own);
    json_string(b, "how", how);
    json_builder_end_object(b);
}

static JsonBuilder *begin_json(const struct view_request *req, const char *name)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    json_string(b, "journal", name);
    json_int(b, "seq", req->disks[0].seq);
    json_builder_set_member_name(b, "contents");
    json_builder_begin_array(b);
    return b;
}

static void end_json(JsonBuilder *b)
{
    json_builder_end_array(b);
    json_builder_end_object(b);
    json_print(b, true);
}

/* ---- what lies on several disks ----------------------------------------- */

/* How to go on, with all that is known of it. */
static const char *set_how(const struct probe *p, const char *missing)
{
    if (strcmp(p->type, "zfs_member") == 0) {
        return "libguestfs has no ZFS; mounting it tells how to import it";
    }
    return missing ? "name the journals of the disks they are on with --with"
           : probe_is_fs(p)
               ? "`ttjournal mount --isolated` with these disks mounts it"
               : "`ttjournal mount --list --isolated` with these disks lists "
                 "its volumes, --volume mounts one";
}

static void print_set(const struct probe *p, const char *missing, void *opaque)
{
    g_autofree char *what = member_describe(&p->part, p->type);
    g_autofree char *count = p->part.count
                                 ? g_strdup_printf("%u members", p->part.count)
                                 : g_strdup("how many members is not known");

    (void)opaque;
    printf("%s, %s%s%s: %s\n", what, count, missing ? ", missing: " : "",
           missing ? missing : "", set_how(p, missing));
}

static void add_set(const struct probe *p, const char *missing, void *opaque)
{
    JsonBuilder *b = opaque;

    json_builder_begin_object(b);
    json_string(b, "uuid", p->part.set);
    json_string(b, "type", p->type);
    json_optional(b, "name", p->part.name);
    json_optional(b, "level", p->part.level);
    if (p->part.count > 0) {
        json_int(b, "members", p->part.count);
    }
    json_string(b, "missing", missing);
    json_string(b, "how", set_how(p, missing));
    json_builder_end_object(b);
}

/* Calls @f for each set that a part was found of, once. */
static void each_set(GArray *const *found, unsigned n_disks,
                     void (*f)(const struct probe *, const char *, void *),
                     void *opaque)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new();
    g_autoptr(GPtrArray) probes = g_ptr_array_new();
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (unsigned disk = 0; disk < n_disks; disk++) {
        for (unsigned i = 0; i < found[disk]->len; i++) {
            struct probe *p = &g_array_index(found[disk], struct probe, i);

            if (p->part.set != NULL) {
                g_ptr_array_add(parts, &p->part);
                g_ptr_array_add(probes, p);
            }
        }
    }
    for (unsigned i = 0; i < probes->len; i++) {
        const struct probe *p = probes->pdata[i];
        g_autofree char *missing = NULL;

        if (g_hash_table_add(seen, p->part.set)) {
            missing = member_missing(parts, &p->part);
            f(p, missing, opaque);
        }
    }
}

/* ---- who looks ---------------------------------------------------------- */

static void print_header(const struct view_request *req, const char *name)
{
    printf("%s@seq:%" PRIu64 "%s\n", name, req->disks[0].seq, req->when);
}

static void print_text(GArray *const *found, const struct view_request *req,
                       const char *name)
{
    print_header(req, name);
    for (unsigned disk = 0; disk < req->n_disks; disk++) {
        if (disk > 0) {
            printf("%s@seq:%" PRIu64 "\n", req->disks[disk].journal,
                   req->disks[disk].seq);
        }
        for (unsigned i = 0; i < found[disk]->len; i++) {
            print_one(&g_array_index(found[disk], struct probe, i));
        }
    }
    each_set(found, req->n_disks, print_set, NULL);
}

static void print_json(GArray *const *found, const struct view_request *req,
                       const char *name)
{
    JsonBuilder *b = begin_json(req, name);

    for (unsigned disk = 0; disk < req->n_disks; disk++) {
        for (unsigned i = 0; i < found[disk]->len; i++) {
            add_json(b, &g_array_index(found[disk], struct probe, i),
                     disk > 0 ? req->disks[disk].journal : NULL);
        }
    }
    json_builder_end_array(b);
    json_builder_set_member_name(b, "sets");
    json_builder_begin_array(b);
    each_set(found, req->n_disks, add_set, b);
    end_json(b);
}

/* What could not be read may have held more than what was found: that is
 * said, and is the status when it has been listed. */
static int probe_view(const struct view *v, GArray **ret, bool *ret_damaged)
{
    g_autofree char *error = NULL;
    uint64_t size;
    int fd = view_open_served(v, &size);

    if (fd < 0) {
        return EXIT_NO_VIEW;
    }
    *ret = probe_disk(fd, size);
    close(fd);
    error = view_error(v);
    if (error != NULL) {
        tool_warn("what is listed may not be all, because not all can be "
                  "read: %s",
                  error);
        *ret_damaged = true;
    }
    return EXIT_OK;
}

/* Serves disk number @i by itself, and looks at it. */
static int look(const struct view_request *req, unsigned i, GArray **ret,
                bool *ret_damaged)
{
    struct view_request one = *req;
    struct view v;
    int status, down;

    one.disks[0] = req->disks[i];
    one.n_disks = 1;
    one.isolated = false;
    status = view_up_file(&v, &one);
    if (status != EXIT_OK) {
        return status;
    }
    status = probe_view(&v, ret, ret_damaged);
    down = view_down(&v);
    view_clear(&v);
    return status != EXIT_OK ? status : down;
}

static int list_here(const struct view_request *req, const char *name,
                     bool json)
{
    GArray *found[VIEW_DISKS] = { 0 };
    int status = EXIT_OK;
    bool damaged = false;

    for (unsigned i = 0; i < req->n_disks && status == EXIT_OK; i++) {
        status = look(req, i, &found[i], &damaged);
    }
    if (status == EXIT_OK && json) {
        print_json(found, req, name);
    } else if (status == EXIT_OK) {
        print_text(found, req, name);
    }
    for (unsigned i = 0; i < req->n_disks; i++) {
        g_clear_pointer(&found[i], g_array_unref);
    }
    return status == EXIT_OK && damaged ? EXIT_DAMAGED : status;
}

/* For a shell; the virtual machine may have been led astray by the disk. */
static char *as_volume(const char *device)
{
    static const char plain[] = G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "/+_.-";
    const char *name = device + (g_str_has_prefix(device, "/dev/") ? 5 : 0);
    g_autofree char *quoted = strspn(name, plain) == strlen(name)
                                  ? g_strdup(name)
                                  : g_shell_quote(name);

    return tool_visible(quoted, strlen(quoted));
}

/* One line of libguestfs, "DEVICE: TYPE". */
static void print_found(JsonBuilder *b, const char *line)
{
    const char *colon = strstr(line, ": ");
    g_autofree char *device =
        colon ? g_strndup(line, (gsize)(colon - line)) : NULL;
    g_autofree char *text = tool_visible(line, strlen(line));
    g_autofree char *volume = device ? as_volume(device) : NULL;

    if (device == NULL) { /* a warning of qemu's or the like */
        tool_warn("libguestfs: %s", line);
    } else if (b == NULL) {
        bool key = strcmp(colon + 2, "crypto_LUKS") == 0 ||
                   strcmp(colon + 2, "BitLocker") == 0;

        printf("  %s: --volume %s%s\n", text, volume,
               key ? " --key-file FILE" : "");
    } else {
        json_builder_begin_object(b);
        json_string(b, "device", device);
        json_string(b, "type", colon + 2);
        json_builder_end_object(b);
    }
}

static int list_isolated(struct view *v, const struct view_request *req,
                         const char *name, bool json)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    int status = guest_list(v, req, &text);
    JsonBuilder *b = NULL;

    if (status != EXIT_OK) {
        return status;
    }
    if (json) {
        b = begin_json(req, name);
    } else {
        print_header(req, name);
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL; line++) {
        if (**line != '\0') {
            print_found(b, *line);
        }
    }
    if (json) {
        end_json(b);
    }
    return EXIT_OK;
}

int list_view(const struct view_request *req, const char *name, bool json)
{
    struct view v;
    int status, down;

    if (!req->distrusted && req->volume == NULL) {
        return list_here(req, name, json);
    }
    status = view_up_file(&v, req);
    if (status != EXIT_OK) {
        return status;
    }
    status = list_isolated(&v, req, name, json);
    down = view_down(&v);
    view_clear(&v);
    return status != EXIT_OK ? status : down;
}
