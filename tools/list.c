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
    const char *offer = fs_offer(p->type);

    if (probe_is_fs(p)) {
        return is_part ? g_strdup_printf("--partition %d", p->number)
                       : g_strdup("");
    }
    return g_strdup(offer ? offer : "");
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

static void add_json(JsonBuilder *b, const struct probe *p)
{
    g_autofree char *how = how_to(p, p->number > 0);

    json_builder_begin_object(b);
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

/* ---- who looks ---------------------------------------------------------- */

static void print_header(const struct view_request *req, const char *name)
{
    printf("%s@seq:%" PRIu64 "%s\n", name, req->disks[0].seq, req->when);
}

static void print_all(const GArray *found, const struct view_request *req,
                      const char *name, bool json)
{
    JsonBuilder *b = json ? begin_json(req, name) : NULL;

    if (!json) {
        print_header(req, name);
    }
    for (unsigned i = 0; i < found->len; i++) {
        const struct probe *p = &g_array_index(found, struct probe, i);

        if (json) {
            add_json(b, p);
        } else {
            print_one(p);
        }
    }
    if (json) {
        end_json(b);
    }
}

static int list_here(const struct view *v, const struct view_request *req,
                     const char *name, bool json)
{
    g_autoptr(GArray) found = NULL;
    uint64_t size;
    int fd = view_open_served(v, &size);

    if (fd < 0) {
        return EXIT_NO_VIEW;
    }
    found = probe_disk(fd, size);
    print_all(found, req, name, json);
    close(fd);
    return EXIT_OK;
}

/* One line of libguestfs, "DEVICE: TYPE". */
static void print_found(JsonBuilder *b, const char *line)
{
    const char *colon = strstr(line, ": ");
    g_autofree char *device =
        colon ? g_strndup(line, (gsize)(colon - line)) : NULL;
    g_autofree char *text = tool_visible(line, strlen(line));

    if (device == NULL) { /* a warning of qemu's or the like */
        tool_warn("libguestfs: %s", line);
    } else if (b == NULL) {
        printf("  %s: --volume %s\n", text,
               g_str_has_prefix(device, "/dev/") ? device + 5 : device);
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
    int status = view_up_file(&v, req);
    int down;

    if (status != EXIT_OK) {
        return status;
    }
    status = req->isolated ? list_isolated(&v, req, name, json)
                           : list_here(&v, req, name, json);
    down = view_down(&v);
    view_clear(&v);
    return status != EXIT_OK ? status : down;
}
