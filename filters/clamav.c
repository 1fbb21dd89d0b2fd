/* Scanner "clamav": libclamav inside httpd, a module of its own so that nobody else links it. It
 * scans the message where it is, in the thread that scan.c gives it. Needs the public header
 * only; the signatures are signatures.c's.
 */
#include "mod_nssmtpd.h"

#include <ap_provider.h>
#include <apr_strings.h>
#include <clamav.h>
#include <http_config.h>
#include <mpm_common.h>

#include "filters/signatures.h"

static const char *configure(nssmtpd_scan_conf_t *conf, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    nssmtpd_signatures_t settings;
    const char *wrong = NULL;
    apr_finfo_t info;
    int i;

    (void)s, (void)pconf;
    if (conf->address) {
        return "takes no address: it scans inside httpd. clamd is the one with a daemon";
    }
    nssmtpd_signatures_init(&settings, ptemp);
    for (i = 0; i < conf->params->nelts && !wrong; i++) {
        wrong = nssmtpd_signatures_set(&settings, APR_ARRAY_IDX(conf->params, i, const char *),
                                       ptemp);
    }
    if (wrong) {
        return wrong;
    }
    nssmtpd_signatures_set_time(&settings, conf->timeout);
    if (apr_stat(&info, settings.database, APR_FINFO_TYPE, ptemp) != APR_SUCCESS
        || info.filetype != APR_DIR) {
        return apr_psprintf(ptemp, "there is no directory %s; run freshclam, or name the one with "
                            "the signatures with database=", settings.database);
    }
    conf->baton = nssmtpd_signatures_engine(&settings);
    return NULL;
}

/* Called for each file inside a message: the way to end a scan that takes too long, or that
 * nobody waits for any more. */
static cl_error_t may_go_on(int fd, const char *type, void *context)
{
    const nssmtpd_scan_t *scan = context;

    (void)fd, (void)type;
    return scan->is_unwanted || apr_time_now() > scan->deadline ? CL_VIRUS : CL_CLEAN;
}

/* libclamav takes a mail for a mail by its first field, and looks into no attachment of what
 * it takes for a text. */
static int begins_as_mail(smtp_span_t message)
{
    static const char *const fields[] = { "Received: ", "Return-Path: ", "From: ", "To: ",
                                          "Date: ", "Subject: ", "Message-ID: " };
    apr_size_t i;

    for (i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        apr_size_t n = strlen(fields[i]);

        if (message.n >= n && memcmp(message.p, fields[i], n) == 0) {
            return 1;
        }
    }
    return 0;
}

static const char first_field[] = "Received: by mod_nssmtpd\r\n";

/* The message with that field before it. */
static off_t read_with_field(void *handle, void *buffer, size_t n, off_t offset)
{
    const smtp_span_t *message = handle;
    apr_size_t before = sizeof(first_field) - 1, done = 0, at = offset;

    if (at < before) {
        done = n < before - at ? n : before - at;
        memcpy(buffer, first_field + at, done);
    }
    at = at + done - before;
    if (done < n && at < message->n) {
        apr_size_t rest = n - done < message->n - at ? n - done : message->n - at;

        memcpy((char *)buffer + done, message->p + at, rest);
        done += rest;
    }
    return done;
}

static cl_fmap_t *map(const nssmtpd_scan_job_t *job)
{
    return job->is_file || begins_as_mail(job->message)
               ? cl_fmap_open_memory(job->message.p, job->message.n)
               : cl_fmap_open_handle((void *)&job->message, 0,
                                     job->message.n + sizeof(first_field) - 1, read_with_field, 1);
}

static void judge(nssmtpd_scan_t *scan, cl_error_t rc, const char *name)
{
    static const char limit[] = "Heuristics.Limits.Exceeded";

    if (scan->is_unwanted || apr_time_now() > scan->deadline || rc == CL_ETIMEOUT
        || (name && strcmp(name, "Heuristics.Limits.Exceeded.MaxScanTime") == 0)) {
        scan->verdict = NSSMTPD_VERDICT_ERROR;
        scan->why = "did not come to an end in time";
    }
    else if ((name && strncmp(name, limit, sizeof(limit) - 1) == 0) || rc == CL_EMAXREC
             || rc == CL_EMAXSIZE || rc == CL_EMAXFILES) {
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE;
        scan->why = apr_pstrdup(scan->p, name ? name : cl_strerror(rc));
    }
    else if (rc == CL_VIRUS) {
        scan->verdict = NSSMTPD_VERDICT_BAD;
        scan->found = apr_pstrdup(scan->p, name);
    }
    else if (rc == CL_CLEAN) {
        scan->verdict = NSSMTPD_VERDICT_CLEAN;
    }
    else {
        scan->verdict = NSSMTPD_VERDICT_ERROR;
        scan->why = cl_strerror(rc);
    }
}

static void run(nssmtpd_scan_t *scan)
{
    const struct cl_engine *engine = nssmtpd_signatures_use(scan->conf->baton);
    struct cl_scan_options options = { .general = CL_SCAN_GENERAL_HEURISTICS, .parse = ~0u,
                                       .heuristic = CL_SCAN_HEURISTIC_EXCEEDS_MAX };
    const char *name = NULL;
    cl_error_t rc = CL_EMEM;
    cl_fmap_t *file;

    if ((long long)scan->job->message.n > cl_engine_get_num(engine, CL_ENGINE_MAX_FILESIZE, NULL)) {
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE; /* libclamav would call it a virus */
        scan->why = "larger than maxfilesize=";
        return;
    }
    file = map(scan->job);
    if (file) {
        rc = cl_scanmap_callback(file, NULL, &name, NULL, engine, &options, scan);
    }
    judge(scan, rc, name);
    if (file) {
        cl_fmap_close(file); /* name is gone with it */
    }
}

static const char *version(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const char **why)
{
    (void)why;
    return nssmtpd_signatures_version(conf->baton, p);
}

static void register_hooks(apr_pool_t *p)
{
    static const nssmtpd_scanner_t scanner = { .configure = configure, .run = run,
                                               .version = version };

    ap_register_provider(p, NSSMTPD_SCANNER_GROUP, "clamav", NSSMTPD_SCANNER_VERSION, &scanner);
    nssmtpd_signatures_set_callback(may_go_on);
    ap_hook_pre_config(nssmtpd_signatures_pre_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(nssmtpd_signatures_post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(nssmtpd_signatures_child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_monitor(nssmtpd_signatures_monitor, NULL, NULL, APR_HOOK_MIDDLE);
}

extern module AP_MODULE_DECLARE_DATA nssmtpd_clamav_module __attribute__((visibility("default")));

AP_DECLARE_MODULE(nssmtpd_clamav) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0
};
