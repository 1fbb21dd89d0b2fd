/* Where no filter, scanner or script judges the message, a spool's file would be written and
 * read once for nothing, and the relay's 354 be waited for only when all else is done. What is
 * refused after it, or breaks off, ends with the relay's connection, without the dot (RFC 5321
 * 4.1.1.4). Called by answers.c and transaction.c.
 */
#include "server/flow.h"

#include "server/body.h"
#include "server/connection.h"
#include "server/filter.h"
#include "server/phase.h"
#include "server/registry.h"
#include "server/scanning.h"
#include "server/script.h"
#include "smtp/limits.h"

/* Octets a second of a client that holds up nobody's relay. */
#define QUICK_RATE (256 * 1024)

/* Who has not sent a message by then is slow, and others go before at the relay. */
#define SLOW_AFTER apr_time_from_sec(1)

/* Shorter pieces are gathered in the spool's memory, so that a message of many short runs is
 * not as many small writes. */
#define DIRECT_MIN (16 * 1024)
#define GATHERED_MAX (64 * 1024)

static int comes_quickly(const nssmtpd_mail_t *mail, apr_size_t n)
{
    apr_time_t since = apr_time_now() - mail->data_started;

    return mail->spool->length + (apr_off_t)n >= since * QUICK_RATE / APR_USEC_PER_SEC;
}

/* Nobody asks for the message as a whole. */
static int is_unseen(nssmtpd_session_t *session)
{
    return !nssmtpd_filter_is_wanted(session) && !nssmtpd_scanning_is_wanted(session->mail)
           && !nssmtpd_script_is_configured(session, NSSMTPD_PHASE_DATA)
           && !nssmtpd_script_is_configured(session, NSSMTPD_PHASE_ERROR)
           && nssmtpd_phase_state(session, NSSMTPD_PHASE_DATA).is_plain;
}

/* Nor does the delivery mind. */
static int may_flow(nssmtpd_session_t *session)
{
    const nssmtpd_transaction_t *t = &session->mail->t;

    return t->route && t->route->delivery->flow && t->offered && is_unseen(session);
}

void nssmtpd_flow_begin(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;

    if (session->sends_well && nssmtpd_connection_is_quick(session) && may_flow(session)) {
        mail->t.route->delivery->begin(&mail->t);
    }
}

void nssmtpd_flow_rest(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;

    mail->t.is_slow = session->dialogue.state == SMTP_STATE_DATA && !mail->flows
                      && apr_time_now() - mail->data_started > SLOW_AFTER;
    mail->t.route->delivery->idle(&mail->t);
}

/* It will be refused at its end: the rest is only heard. */
static int is_hopeless(const nssmtpd_session_t *session)
{
    const smtp_dot_t *dot = &session->dialogue.dot;

    return dot->bare_cr || (dot->bare_lf && !dot->normalize)
           || session->mail->hops >= SMTP_HOPS_MAX;
}

static int is_enough(const nssmtpd_mail_t *mail, apr_size_t n)
{
    apr_size_t gathered = mail->spool->memory_len + n, max = mail->spool->memory_max;

    return gathered > max || (mail->flows && (n >= DIRECT_MIN || gathered > GATHERED_MAX));
}

/* What the spool holds and content. 0: the delivery wants it whole. The client is not charged for
 * the time that the relay takes. */
static int pass(nssmtpd_mail_t *mail, smtp_span_t content)
{
    apr_time_t start = apr_time_now();
    apr_status_t rv = nssmtpd_body_prepare(mail);
    apr_bucket_brigade *bb = mail->t.body;

    if (rv == APR_SUCCESS) {
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_transient_create(content.p, content.n,
                                                                bb->bucket_alloc));
        mail->flows = mail->t.route->delivery->flow(&mail->t);
    }
    apr_brigade_cleanup(bb);
    mail->data_started += apr_time_now() - start;
    return rv == APR_SUCCESS && mail->flows;
}

int nssmtpd_flow_take(nssmtpd_session_t *session, smtp_span_t content)
{
    nssmtpd_mail_t *mail = session->mail;

    if (mail->spool->file || !is_enough(mail, content.n)
        || !(mail->flows || (comes_quickly(mail, content.n) && may_flow(session)))
        || !nssmtpd_registry_try_place(session, session->conf->max_busy)) {
        return 0; /* and into the file, from where on there is no way back */
    }
    if (!is_hopeless(session) && !pass(mail, content)) {
        return 0;
    }
    nssmtpd_spool_pass_by(mail->spool, content.n);
    return 1;
}
