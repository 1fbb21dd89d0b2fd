/* Puts a message together for delivery: the trace field (RFC 5321 4.4, keywords of RFC
 * 3848) and the spool's buckets, which stay where they are. Called by transaction.c.
 */
#include "server/body.h"

#include <apr_strings.h>

#include "server/fields.h"

const char *nssmtpd_body_protocol(const nssmtpd_session_t *session)
{
    static const char *const keywords[2][2] = { { "ESMTP", "ESMTPA" }, { "ESMTPS", "ESMTPSA" } };

    if (!session->dialogue.extended) {
        return "SMTP";
    }
    return keywords[session->tls == NSSMTPD_SECURE][session->user != NULL];
}

/* The name a client gave may be anything printable; in a field only what a name or an
 * address literal is made of stands for itself. */
static const char *safe_name(apr_pool_t *p, const char *name)
{
    static const char also[] = ".:[]";
    char *safe = apr_pstrdup(p, name ? name : "unknown"), *at;

    for (at = safe; *at; at++) {
        if (!smtp_char_is(*at, SMTP_CHAR_LDH) && !strchr(also, *at)) {
            *at = '?';
        }
    }
    return safe;
}

/* RFC 5322 3.3 wants a numeric zone where APR writes GMT. */
const char *nssmtpd_date_now(apr_pool_t *p)
{
    char date[APR_RFC822_DATE_LEN];

    apr_rfc822_date(date, apr_time_now());
    return apr_pstrcat(p, apr_pstrmemdup(p, date, sizeof(date) - 5), " +0000", NULL);
}

static const char *received(nssmtpd_mail_t *mail)
{
    const nssmtpd_session_t *session = mail->session;
    const char *ip = session->c->client_ip, *recipient = "";
    apr_pool_t *p = mail->t.r->pool;

    if (mail->t.rcpts->nelts == 1 && !session->user) { /* a trace must not tell too much */
        recipient = apr_psprintf(p, "\r\n\tfor <%s>",
                                 APR_ARRAY_IDX(mail->t.rcpts, 0, nssmtpd_rcpt_t).address);
    }
    return apr_psprintf(p, "Received: from %s ([%s%s])\r\n\tby %s with %s id %s%s;\r\n\t%s\r\n",
                        safe_name(p, session->dialogue.helo), strchr(ip, ':') ? "IPv6:" : "", ip,
                        session->conf->offer.hostname, nssmtpd_body_protocol(session), mail->t.id,
                        recipient, nssmtpd_date_now(p));
}

apr_status_t nssmtpd_body_prepare(nssmtpd_mail_t *mail)
{
    apr_bucket_brigade *bb = mail->t.body;
    apr_off_t added = 0, body;
    apr_status_t rv;

    if (!bb) {
        bb = apr_brigade_create(mail->t.r->pool, mail->session->c->bucket_alloc);
    }
    if (mail->session->conf->received && !mail->flows) {
        const char *field = received(mail);

        added = strlen(field);
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_pool_create(field, added, mail->t.r->pool,
                                                           bb->bucket_alloc));
    }
    mail->t.body = bb;
    mail->t.body_is_8bit = mail->spool->is_8bit;
    mail->t.body_has_dots = mail->session->dialogue.dot.unstuffed || mail->is_rewritten;
    rv = nssmtpd_fields_message(mail, bb, &body, &mail->t.body_length);
    mail->t.body_length += added;
    return rv;
}
