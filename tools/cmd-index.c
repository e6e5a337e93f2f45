/*
 * ttjournal index: is all that can be indexed of a journal in its index?
 *
 * Whoever opens a view makes the index that he needs; this command makes it
 * ahead of time, or beside a recorder that goes on (--follow).  It writes to
 * the index alone, in steps that can be interrupted anywhere, and tells what
 * it did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <posix/store.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tool.h"

#define FOLLOW_US G_USEC_PER_SEC

static gboolean opt_follow, opt_json;
static char *opt_index;

static const GOptionEntry entries[] = {
    { "follow", 'f', 0, G_OPTION_ARG_NONE, &opt_follow,
      "Go on as the journal grows, until interrupted", NULL },
    { "index", 0, 0, G_OPTION_ARG_FILENAME, &opt_index,
      "Keep the index in this folder, not beside the journal", "DIR" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &opt_json,
      "One JSON object in each line", NULL },
    { NULL },
};

struct job {
    const char *path;
    struct tt_file *file; /* NULL: not open */
    struct tt_store *store;
    struct tool_progress progress;
    char *said; /* the last warning */
};

/* ---- open and close ---------------------------------------------------- */

static void job_close(struct job *j)
{
    tt_store_close(j->store);
    tt_file_close(j->file);
    j->store = NULL;
    j->file = NULL;
}

static int job_open(struct job *j, struct tt_error *err)
{
    struct tt_super super;
    int r = tt_file_open(j->path, &j->file, err);

    if (r < 0) {
        j->file = NULL;
        return r;
    }
    r = tt_super_read(&j->file->source, &super, NULL, err);
    if (r < 0) {
        tt_file_name_error(j->path, r, err);
    } else {
        r = tt_store_open(j->file, &super, opt_index, &j->store, err);
    }
    if (r < 0) {
        j->store = NULL;
        job_close(j);
    }
    return r;
}

/* A journal that was put in the place of the one that is open is another. */
static bool job_is_replaced(const struct job *j)
{
    struct stat a, b;

    return fstat(j->file->fd, &a) < 0 || stat(j->path, &b) < 0 ||
           a.st_dev != b.st_dev || a.st_ino != b.st_ino;
}

/* ---- telling ----------------------------------------------------------- */

static void tell_json(const struct job *j, const struct tt_store_work *w,
                      const struct tt_index_set *set, const char *where,
                      double seconds)
{
    JsonBuilder *b = json_builder_new();
    size_t runs = 0;

    json_builder_begin_object(b);
    json_string(b, "journal", j->path);
    json_string(b, "index", where);
    if (set) {
        tt_index_set_runs(set, &runs);
        json_int(b, "last_seq", tt_catalog_last_seq(tt_index_set_catalog(set)));
        json_int(b, "bytes", tt_index_set_bytes(set));
    }
    json_int(b, "runs", runs);
    json_int(b, "segments_added", w->stats.segments);
    json_int(b, "segments_from_footers", w->stats.from_footers);
    json_int(b, "versions_added", w->stats.versions);
    json_int(b, "runs_written", w->runs_written);
    json_int(b, "runs_merged", w->runs_merged);
    json_builder_set_member_name(b, "seconds");
    json_builder_add_double_value(b, seconds);
    json_builder_end_object(b);
    json_print(b, false);
}

static void tell_text(const struct job *j, const struct tt_store_work *w,
                      const struct tt_index_set *set, const char *where,
                      double seconds)
{
    g_autofree char *size = set ? tool_size(tt_index_set_bytes(set)) : NULL;
    size_t runs = 0;

    if (!set) {
        printf("%s: nothing to index yet: no segment has ended\n", j->path);
        return;
    }
    if (w->stats.segments) {
        printf("%s: %" PRIu64 " version%s of %" PRIu64 " segment%s (%" PRIu64
               " by footer) added in %.1f s\n",
               j->path, w->stats.versions, w->stats.versions == 1 ? "" : "s",
               w->stats.segments, w->stats.segments == 1 ? "" : "s",
               w->stats.from_footers, seconds);
    }
    tt_index_set_runs(set, &runs);
    printf("%s: the index holds seq:1 to seq:%" PRIu64 ", %zu run%s, %s, in "
           "%s\n",
           j->path, tt_catalog_last_seq(tt_index_set_catalog(set)), runs,
           runs == 1 ? "" : "s", size, where);
}

static int tell(struct job *j, const struct tt_store_work *w, double seconds)
{
    struct tt_index_set *set = tt_store_get(j->store);
    char *where = tt_store_where(j->store);

    (opt_json ? tell_json : tell_text)(j, w, set, where ? where : "", seconds);
    tt_index_set_put(set);
    free(where);
    return fflush(stdout) == 0 ? EXIT_OK : EXIT_IO;
}

/* ---- the work ---------------------------------------------------------- */

static bool progress(void *opaque, const struct tt_builder_stats *stats)
{
    struct job *j = opaque;

    tool_progress(&j->progress, j->path, "indexed", stats->journal_end,
                  stats->journal_due);
    return true;
}

static int extend(struct job *j, struct tt_store_work *w, struct tt_error *err)
{
    int r;

    *w = (struct tt_store_work){
        .named = true,
        .progress = progress,
        .opaque = j,
    };
    r = tt_store_extend(j->store, w, err);
    if (r == 0 && w->busy) {
        tool_warn("%s: another process is at its index: waiting for that",
                  j->path);
        w->wait = true;
        r = tt_store_extend(j->store, w, err);
    }
    tool_progress_end(&j->progress);
    return r;
}

/* Extends and tells; the exit status. */
static int build(struct job *j)
{
    gint64 began = g_get_monotonic_time();
    struct tt_store_work w;
    struct tt_error err;

    if (job_open(j, &err) < 0 || extend(j, &w, &err) < 0) {
        return tool_report(&err);
    }
    return tell(j, &w,
                (double)(g_get_monotonic_time() - began) / G_USEC_PER_SEC);
}

/* The same trouble is told once. */
static void warn_once(struct job *j, const char *message)
{
    if (g_strcmp0(j->said, message)) {
        tool_warn("%s", message);
    }
    g_free(j->said);
    j->said = g_strdup(message);
}

static int follow_one(struct job *j)
{
    struct tt_store_work w = { .named = true, .at_least = 1 };
    gint64 began = g_get_monotonic_time();
    struct tt_error err;
    int r = 0;

    if (j->file && job_is_replaced(j)) {
        job_close(j);
    }
    if (!j->file) {
        r = job_open(j, &err);
    }
    if (r == 0) {
        r = tt_store_extend(j->store, &w, &err);
    }
    if (r < 0) {
        warn_once(j, err.message);
        return EXIT_OK;
    }
    g_clear_pointer(&j->said, g_free);
    return w.grown && w.stats.segments
               ? tell(j, &w,
                      (double)(g_get_monotonic_time() - began) / G_USEC_PER_SEC)
               : EXIT_OK;
}

static int follow(struct job *jobs, int count)
{
    int status = EXIT_OK;

    while (status == EXIT_OK) {
        g_usleep(FOLLOW_US);
        for (int i = 0; i < count && status == EXIT_OK; i++) {
            status = follow_one(&jobs[i]);
        }
    }
    return status;
}

static int run(const struct tool_command *command, int argc, char **argv)
{
    int status = tool_parse(command, entries, &argc, &argv, 1, INT_MAX);
    int count = argc - 1;
    struct job *jobs;

    if (status != EXIT_OK) {
        return status;
    }
    jobs = g_new0(struct job, count);
    for (int i = 0; i < count; i++) {
        int s;

        jobs[i].path = argv[i + 1];
        s = build(&jobs[i]);
        status = status == EXIT_OK ? s : status;
        if (!opt_follow) { /* as many journals as one likes */
            job_close(&jobs[i]);
        }
    }
    if (opt_follow && status == EXIT_OK) {
        status = follow(jobs, count);
    }
    for (int i = 0; i < count; i++) {
        job_close(&jobs[i]);
        g_free(jobs[i].said);
    }
    g_free(jobs);
    return status;
}

const struct tool_command cmd_index = {
    .name = "index",
    .synopsis = "JOURNAL…",
    .summary = "Index a journal, so that views of it open at once",
    .examples = "  ttjournal index disk.ttj\n"
                "  ttjournal index --follow --index /var/cache/ttj *.ttj\n",
    .run = run,
};
