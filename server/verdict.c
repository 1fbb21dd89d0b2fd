/* Who may send what where: permission, Require, scripts and the delivery itself about the
 * sender, a recipient and the message, in the order in which they are asked. RFC 5321 3.6.
 * Called by answers.c.
 */
#include "server/verdict.h"

#include <apr_strings.h>
#include <http_log.h>

#include "server/body.h"
#include "server/filter.h"
#include "server/permits.h"
#include "server/phase.h"
#include "server/scanning.h"
#include "server/script.h"
#include "smtp/limits.h"

APLOG_USE_MODULE(nssmtpd);

static const char *span_dup(apr_pool_t *p, smtp_span_t span)
{
    return apr_pstrmemdup(p, span.p, span.n);
}

static const char *lower_domain(apr_pool_t *p, smtp_span_t domain)
{
    char *name = apr_pstrmemdup(p, domain.p, domain.n);

    ap_str_tolower(name);
    return name;
}

/* Where mail goes */

static int may_relay(const nssmtpd_session_t *session)
{
    return (session->flags & NSSMTPD_FLAG_LOCAL) || session->user;
}

const nssmtpd_route_t *nssmtpd_verdict_way(const nssmtpd_session_t *session,
                                           const char *domain)
{
    const nssmtpd_config_t *conf = session->conf;
    const nssmtpd_route_t *own;

    nssmtpd_permits_domain(conf, domain, &own);
    return own && !(may_relay(session) && conf->relay) ? own : conf->relay;
}

/* Where a recipient goes whom this client may address, or NULL. */
static const nssmtpd_route_t *permitted(const nssmtpd_session_t *session,
                                        const smtp_address_t *address)
{
    const nssmtpd_config_t *conf = session->conf;
    const char *domain = lower_domain(session->mail->t.r->pool, address->domain);
    const nssmtpd_route_t *own;
    int is_listed = nssmtpd_permits_domain(conf, domain, &own);

    if (may_relay(session) && conf->relay) {
        return conf->relay;
    }
    if (address->domain.n == 0) { /* RFC 5321 4.5.1: postmaster is always heard */
        return conf->relay ? conf->relay : APR_ARRAY_IDX(conf->domains, 0, nssmtpd_domain_t).route;
    }
    if (!is_listed || (!may_relay(session) && smtp_address_is_routed(address))) {
        return NULL;
    }
    return own ? own : conf->relay;
}

const nssmtpd_route_t *nssmtpd_verdict_route(nssmtpd_session_t *session,
                                             const smtp_reply_t **refusal)
{
    const smtp_address_t *address = &session->dialogue.address;
    const nssmtpd_route_t *route = permitted(session, address);

    if (!route) {
        ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c,
                      "NS0020: denied: relaying; from <%s> to <%s>", session->mail->t.from,
                      ap_escape_logitem(session->mail->t.r->pool,
                                        span_dup(session->mail->t.r->pool, address->text)));
        *refusal = smtp_reply(SMTP_REPLY_RELAY_DENIED);
        return NULL;
    }
    if (!nssmtpd_transaction_may_go(session->mail, route)) {
        *refusal = smtp_reply(SMTP_REPLY_OTHER_ROUTE);
        return NULL;
    }
    return route;
}

/* Recipients */

const apr_array_header_t *nssmtpd_rcpts_due(nssmtpd_transaction_t *t)
{
    apr_array_header_t *due = apr_array_make(t->r->pool, t->rcpts->nelts, t->rcpts->elt_size);
    int i;

    for (i = 0; i < t->rcpts->nelts; i++) {
        const nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(t->rcpts, i, nssmtpd_rcpt_t);

        if (nssmtpd_rcpt_is_due(rcpt)) {
            APR_ARRAY_PUSH(due, nssmtpd_rcpt_t) = *rcpt;
        }
    }
    return due;
}

nssmtpd_rcpt_t nssmtpd_rcpt_make(apr_pool_t *p, const smtp_address_t *address)
{
    nssmtpd_rcpt_t rcpt = { .flags = NSSMTPD_FLAG_VERIFIED };
    char local[SMTP_PATH_MAX];

    smtp_address_unquote(address, local, sizeof(local));
    rcpt.address = span_dup(p, address->text);
    rcpt.local = apr_pstrdup(p, local);
    rcpt.domain = lower_domain(p, address->domain);
    return rcpt;
}

nssmtpd_rcpt_t nssmtpd_verdict_make_rcpt(nssmtpd_session_t *session,
                                         const smtp_address_t *address)
{
    nssmtpd_rcpt_t rcpt = nssmtpd_rcpt_make(session->mail->t.r->pool, address);
    const nssmtpd_route_t *own;

    rcpt.flags |= session->flags & NSSMTPD_FLAGS_SCAN;
    if (nssmtpd_permits_domain(session->conf, rcpt.domain, &own)) {
        rcpt.flags |= NSSMTPD_FLAG_RELAY;
    }
    return rcpt;
}

/* Phases */

/* The script of the phase about the mail in hand. */
static const smtp_reply_t *ask(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                               const char *line, const smtp_reply_t *outcome)
{
    return nssmtpd_script_run(session, phase, line, NULL, outcome, session->mail->t.r->pool);
}

static int is_refusal(const smtp_reply_t *reply)
{
    return reply && !smtp_reply_is_positive(reply);
}

/* The delivery has refused or failed: what the client hears of it may be a script's word. */
static const smtp_reply_t *on_refusal(nssmtpd_session_t *session, const smtp_reply_t *reply)
{
    nssmtpd_mail_t *mail = session->mail;
    const char *line;

    if (!nssmtpd_script_is_configured(session, NSSMTPD_PHASE_ERROR)) {
        return reply;
    }
    line = apr_psprintf(mail->t.r->pool, "%s: %s", mail->t.step ? mail->t.step : "connect",
                        smtp_reply_line(mail->t.r->pool, reply));
    return ask(session, NSSMTPD_PHASE_ERROR, line, reply);
}

static const smtp_reply_t *check_domain(nssmtpd_session_t *session)
{
    const nssmtpd_transaction_t *t = &session->mail->t;
    const char *domain = strrchr(t->from, '@'), *why;
    int takes_mail;

    if (!(session->flags & NSSMTPD_FLAG_NEEDDOMAIN) || !domain) {
        return NULL;
    }
    takes_mail = nssmtpd_domain_takes_mail(session->conf->server, t->r->pool, domain + 1, &why);
    if (takes_mail < 0) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, t->r, "NS0075: %s: needdomain: %s", t->id, why);
        return smtp_reply(SMTP_REPLY_DNS_FAULT);
    }
    return takes_mail ? NULL : smtp_reply(SMTP_REPLY_SENDER_DOMAIN);
}

const smtp_reply_t *nssmtpd_verdict_sender(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply = check_domain(session);

    if (!reply) {
        reply = nssmtpd_phase_authorize(session, NSSMTPD_PHASE_MAIL, NULL);
    }
    if (!reply) {
        reply = ask(session, NSSMTPD_PHASE_MAIL, session->mail->t.r->the_request, NULL);
    }
    return reply;
}

static int find_new(const nssmtpd_mail_t *mail)
{
    int i = mail->t.rcpts->nelts;

    while (--i >= 0 && !APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t).is_new) {
        ;
    }
    return i;
}

static void drop_new(nssmtpd_mail_t *mail)
{
    int i = find_new(mail);

    if (i >= 0) {
        nssmtpd_transaction_drop_rcpt(mail, i);
    }
}

/* A script may have deleted the recipient that it was asked about: refused, unless others
 * stand for it now. */
static const smtp_reply_t *ask_rcpt(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;
    const smtp_dialogue_t *d = &session->dialogue;
    int before = mail->t.rcpts->nelts;
    const char *line = apr_psprintf(mail->t.r->pool, "RCPT %.*s", (int)d->argument.n,
                                    d->argument.p);
    const smtp_reply_t *reply = ask(session, NSSMTPD_PHASE_RCPT, line, NULL);

    if (!reply && find_new(mail) < 0 && mail->t.rcpts->nelts < before) {
        return smtp_reply(SMTP_REPLY_NOT_AUTHORIZED);
    }
    return reply;
}

static const smtp_reply_t *offer_new(nssmtpd_session_t *session, const nssmtpd_route_t *route)
{
    nssmtpd_mail_t *mail = session->mail;
    nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(mail->t.rcpts, find_new(mail), nssmtpd_rcpt_t);
    const smtp_reply_t *reply = NULL;

    if (!nssmtpd_transaction_go(mail, route)) { /* a script has added another's before */
        return smtp_reply(SMTP_REPLY_OTHER_ROUTE);
    }
    if (!(rcpt->flags & NSSMTPD_FLAG_DELIVERED)) {
        mail->t.offered = 1;
        reply = route->delivery->rcpt(&mail->t, rcpt);
        rcpt->is_told = !is_refusal(reply);
    }
    return is_refusal(reply) ? on_refusal(session, reply) : reply;
}

const smtp_reply_t *nssmtpd_verdict_rcpt(nssmtpd_session_t *session,
                                         const nssmtpd_route_t *route)
{
    nssmtpd_mail_t *mail = session->mail;
    nssmtpd_rcpt_t rcpt = nssmtpd_verdict_make_rcpt(session, &session->dialogue.address);
    const smtp_reply_t *reply, *words = NULL;
    int i;

    reply = nssmtpd_phase_authorize(session, NSSMTPD_PHASE_RCPT, rcpt.address);
    if (reply) {
        return reply;
    }
    rcpt.is_new = 1;
    APR_ARRAY_PUSH(mail->t.rcpts, nssmtpd_rcpt_t) = rcpt;
    if (nssmtpd_script_is_configured(session, NSSMTPD_PHASE_RCPT)) {
        reply = words = ask_rcpt(session);
    }
    if (!is_refusal(reply) && find_new(mail) >= 0) {
        reply = offer_new(session, route);
    }
    if (is_refusal(reply)) {
        drop_new(mail);
        return reply;
    }
    if ((i = find_new(mail)) >= 0) {
        APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t).is_new = 0;
    }
    return words ? words : reply;
}

/* The message */

static int has_due(const nssmtpd_mail_t *mail)
{
    int i;

    for (i = 0; i < mail->t.rcpts->nelts; i++) {
        if (nssmtpd_rcpt_is_due(&APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t))) {
            return 1;
        }
    }
    return 0;
}

/* Filters, scanners, Require, the script. *is_done: the mail needs no delivery any more. */
static const smtp_reply_t *judge_message(nssmtpd_session_t *session, int *is_done)
{
    nssmtpd_mail_t *mail = session->mail;
    const smtp_reply_t *reply = nssmtpd_filter_run(session);
    int is_discarded = 0;

    *is_done = 1;
    if (!reply) {
        reply = nssmtpd_scanning_run(mail, &is_discarded);
    }
    if (is_discarded) {
        return reply;
    }
    if (!reply) {
        reply = nssmtpd_phase_authorize(session, NSSMTPD_PHASE_DATA, NULL);
    }
    if (!reply) {
        reply = ask(session, NSSMTPD_PHASE_DATA, "DATA", NULL);
        mail->reworded = is_refusal(reply) ? NULL : reply;
    }
    if (is_refusal(reply)) {
        return reply;
    }
    if (!has_due(mail)) { /* all were deleted, or a script has delivered them */
        return mail->t.rcpts->nelts || reply ? reply : smtp_reply(SMTP_REPLY_NO_RCPT_LEFT);
    }
    *is_done = 0;
    return NULL;
}

static const smtp_reply_t *hand_over(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;
    apr_status_t rv = nssmtpd_body_prepare(mail);
    const smtp_reply_t *reply;

    if (rv != APR_SUCCESS) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, mail->t.r, "NS0022: %s: cannot read the spool",
                      mail->t.id);
        return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    mail->t.offered = 1; /* a script may have kept all from it until now */
    reply = mail->t.route->delivery->deliver(&mail->t);
    if (is_refusal(reply)) {
        return on_refusal(session, reply);
    }
    return mail->reworded ? mail->reworded : reply;
}

const smtp_reply_t *nssmtpd_verdict_message(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;
    const smtp_reply_t *reply;
    int is_done = 0;

    reply = mail->flows ? NULL : judge_message(session, &is_done);
    if (is_done && !is_refusal(reply)) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, mail->t.r,
                      "NS0076: %s: accepted and sent nowhere: a scanner has discarded it, or "
                      "/smtp/data has taken all recipients", mail->t.id);
        nssmtpd_set_variable(&mail->t, "SMTP_RELAY", "none");
    }
    if (!is_done) {
        reply = hand_over(session);
    }
    return reply ? reply : smtp_reply(SMTP_REPLY_ACCEPTED);
}
