/* The fields of a mail's envelope, for a filter that is told only a message: RFC 5321 4.4. They
 * are made for the filter alone and never delivered. Called by spamd.c and rspamd.c.
 */
#include "filters/trace.h"

#include <apr_strings.h>
#include <http_core.h>
#include <string.h>

/* Only what names, addresses and address literals are made of: a blank or a bracket in a
 * client's word would be read as another part of the field. */
static const char *safe(apr_pool_t *p, const char *text)
{
    char *word = apr_pstrdup(p, *text ? text : "unknown"), *at;

    for (at = word; *at; at++) {
        if (!smtp_char_is(*at, SMTP_CHAR_ATEXT) && !strchr(".@:[]", *at)) {
            *at = '?';
        }
    }
    return word;
}

const char *nssmtpd_trace_client_name(const nssmtpd_scan_job_t *job)
{
    const char *name;

    if (!job->r || !*job->client) {
        return NULL;
    }
    name = ap_get_remote_host(job->r->connection, job->r->per_dir_config, REMOTE_HOST, NULL);
    return job->r->connection->double_reverse == 1 ? name : NULL;
}

/* "name [1.2.3.4]" */
static const char *client(const nssmtpd_scan_job_t *job)
{
    const char *name = nssmtpd_trace_client_name(job);

    return apr_pstrcat(job->p, name ? safe(job->p, name) : "", name ? " [" : "[", job->client, "]",
                       NULL);
}

static const char *protocol(const nssmtpd_scan_job_t *job)
{
    const char *word = job->r ? apr_table_get(job->r->subprocess_env, "SMTP_PROTOCOL") : NULL;

    return word ? word : *job->user ? "ESMTPA" : "ESMTP";
}

/* RFC 5322 3.3 wants a numeric zone where APR writes GMT. */
static const char *date_now(apr_pool_t *p)
{
    char date[APR_RFC822_DATE_LEN];

    apr_rfc822_date(date, apr_time_now());
    return apr_pstrcat(p, apr_pstrmemdup(p, date, sizeof(date) - 5), " +0000", NULL);
}

const char *nssmtpd_trace_make(const nssmtpd_scan_job_t *job)
{
    const char *from = *job->from ? safe(job->p, job->from) : "";

    if (!*job->client) {
        return "";
    }
    return apr_psprintf(job->p,
                        "Return-Path: <%s>\r\n"
                        "Received: from %s (%s)\r\n\tby %s with %s id %s\r\n"
                        "\t(envelope-from <%s>);\r\n\t%s\r\n",
                        from, safe(job->p, job->helo), client(job), nssmtpd_hostname(job->s),
                        protocol(job), job->id, from, date_now(job->p));
}
