/*
 * Which moment does the user mean, and can it be served?
 *
 * The same reader that the plugin serves from answers both, before anything is
 * started: so errors come with their own exit status and not second-hand from
 * a server, and the view is bound to a sequence number once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <string.h>

#include <posix/reader.h>
#include <posix/zone.h>

#include "view.h"

int view_check_options(int partition, const char *via)
{
    if (partition < 0 || partition > 1024) {
        return tool_fail(EXIT_USAGE, "--partition: %d is none", partition);
    }
    if (via != NULL && strcmp(via, "nbdfuse") != 0 && strcmp(via, "nbd") != 0) {
        return tool_fail(EXIT_USAGE, "--via: nbdfuse or nbd, not '%s'", via);
    }
    return EXIT_OK;
}

/* Warns of what the user should know about the view. */
static void warn(struct tt_reader *r, const struct view_request *req,
                 const struct tt_moment *moment)
{
    const char *problem = tt_reader_disk_problem(r);

    if (moment->note[0] != '\0') {
        tool_warn("%s: %s", req->journal, moment->note);
    }
    if (tt_reader_disk(r) != NULL && problem[0] != '\0') {
        tool_warn("%s: %s", req->journal, problem);
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

static int bind_with(struct tt_reader *r, struct view_request *req,
                     const char *text, const struct tt_zone *zone,
                     char **ret_when)
{
    struct tt_error err = { 0 };
    struct tt_view v;
    int ret = tt_reader_bind(r, text, zone, tool_now(), &v, &err);

    if (ret == 0) {
        warn(r, req, &v.moment);
        ret = tt_reader_check(r, &v, &err);
    }
    if (ret < 0) {
        return tool_report(&err);
    }
    req->seq = v.moment.seq;
    *ret_when = when(r, v.moment.seq);
    return EXIT_OK;
}

int view_bind(struct view_request *req, const char *text, const char *tz,
              char **ret_when)
{
    struct tt_error err = { 0 };
    struct tt_zone *zone = NULL;
    struct tt_reader *r;
    int status;

    if (!g_file_test(req->journal, G_FILE_TEST_EXISTS)) {
        return tool_fail(EXIT_NOT_JOURNAL, "%s: there is no such journal",
                         req->journal);
    }
    /* the local zone only makes a message better: none will do */
    if (tt_zone_open(tz, &zone, &err) < 0 && tz != NULL) {
        return tool_report(&err);
    }
    if (tt_reader_open(req->journal, req->disk, &r, &err) < 0) {
        status = tool_report(&err);
        if (err.os_errno == ENOENT) { /* the journal is there */
            status = EXIT_NO_DISK;
        }
    } else {
        status = bind_with(r, req, text, zone, ret_when);
        tt_reader_close(r);
    }
    tt_zone_close(zone);
    return status;
}
