/* Between the transaction and the scanners of filters/, which know nothing of it. A message
 * is scanned if any recipient wants it; a rejecting verdict refuses it only if all do, else
 * it is marked. Called by verdict.c at the end of data.
 */
#include "server/scanning.h"

#include <apr_strings.h>
#include <http_log.h>

#include "server/fields.h"

APLOG_USE_MODULE(nssmtpd);

#define FOUND (NSSMTPD_FLAG_GOTVIRUS | NSSMTPD_FLAG_GOTSPAM)

/* The kinds that some recipient wants, and those that all want. */
static apr_uint32_t wanted_by(const nssmtpd_mail_t *mail, apr_uint32_t *by_all)
{
    apr_uint32_t by_some = 0;
    int i;

    *by_all = NSSMTPD_FLAGS_SCAN;
    for (i = 0; i < mail->t.rcpts->nelts; i++) {
        const nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t);

        by_some |= rcpt->flags & NSSMTPD_FLAGS_SCAN;
        *by_all &= rcpt->flags;
    }
    return by_some & nssmtpd_scan_kinds(mail->session->conf->server);
}

int nssmtpd_scanning_is_wanted(const nssmtpd_mail_t *mail)
{
    apr_uint32_t by_all;

    return !(mail->session->flags & NSSMTPD_FLAG_FASTPROXY) && wanted_by(mail, &by_all);
}

void nssmtpd_scanning_forget(nssmtpd_session_t *session)
{
    session->flags &= ~FOUND;
}

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static void fill_job(nssmtpd_scan_job_t *job, nssmtpd_mail_t *mail)
{
    const nssmtpd_session_t *session = mail->session;

    job->p = mail->t.r->pool;
    job->s = session->conf->server;
    job->r = mail->t.r;
    job->id = mail->t.id;
    job->from = mail->t.from;
    job->helo = or_empty(session->dialogue.helo);
    job->client = session->c->client_ip;
    job->user = or_empty(session->user);
    job->rcpts = mail->t.rcpts;
}

/* Each is told of the kinds that it wants. */
static void mark_rcpts(nssmtpd_mail_t *mail, const nssmtpd_scanned_t *found)
{
    apr_uint32_t spam = found->is_spam ? NSSMTPD_FLAG_GOTSPAM : 0;
    apr_uint32_t virus = found->virus ? NSSMTPD_FLAG_GOTVIRUS : 0;
    int i;

    mail->session->flags |= spam | virus;
    for (i = 0; i < mail->t.rcpts->nelts; i++) {
        nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t);

        if (rcpt->flags & NSSMTPD_FLAG_VIRUSCHECK) {
            rcpt->flags |= virus;
        }
        if (rcpt->flags & NSSMTPD_FLAG_SPAMCHECK) {
            rcpt->flags |= spam;
            rcpt->score = found->score;
        }
    }
}

static void mark_message(nssmtpd_mail_t *mail, const nssmtpd_scanned_t *found)
{
    int i;

    for (i = 0; found->remove && i < found->remove->nelts; i++) {
        nssmtpd_fields_delete(mail, APR_ARRAY_IDX(found->remove, i, const char *));
    }
    for (i = 0; found->add && i < found->add->nelts; i++) {
        const nssmtpd_field_t *field = &APR_ARRAY_IDX(found->add, i, nssmtpd_field_t);

        nssmtpd_fields_add(mail, field->name, field->value);
    }
    if (found->subject) {
        nssmtpd_fields_set(mail, "Subject", found->subject);
    }
}

/* No verdict is no "No". */
static void publish(nssmtpd_mail_t *mail, const nssmtpd_scanned_t *found)
{
    if (found->has_score) {
        nssmtpd_set_variable(&mail->t, "SMTP_SPAM", found->is_spam ? "Yes" : "No");
        nssmtpd_set_variable(&mail->t, "SMTP_SPAM_SCORE",
                             apr_psprintf(mail->t.r->pool, "%.2f", found->score));
    }
    if (found->virus) {
        nssmtpd_set_variable(&mail->t, "SMTP_VIRUS", found->virus);
    }
    if (found->failed) {
        nssmtpd_set_variable(&mail->t, "SMTP_SCAN", found->failed);
    }
}

const smtp_reply_t *nssmtpd_scanning_run(nssmtpd_mail_t *mail, int *is_discarded)
{
    nssmtpd_scanned_t found = { 0 };
    nssmtpd_scan_job_t job = { 0 };
    apr_uint32_t by_all, kinds = wanted_by(mail, &by_all);
    apr_status_t rv;

    *is_discarded = 0;
    if (!nssmtpd_scanning_is_wanted(mail)) {
        return NULL;
    }
    fill_job(&job, mail);
    rv = nssmtpd_spool_map(mail->spool, &job.message);
    if (rv != APR_SUCCESS) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, mail->t.r,
                      "NS0022: %s: cannot read the spool", mail->t.id);
        return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    nssmtpd_scan(&job, kinds, by_all, &found);
    mark_rcpts(mail, &found);
    mark_message(mail, &found);
    publish(mail, &found);
    *is_discarded = found.is_discarded;
    return found.reply;
}
