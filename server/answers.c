/* What a session answers to each event of its dialogue, and when it waits. Nothing here
 * blocks on the client; what may block on others takes a place for it first. RFC 5321
 * 4.5.3.2 (timeouts), 3207 (STARTTLS).
 */
#include "server/answers.h"

#include <apr_strings.h>
#include <http_log.h>

#include "server/auth.h"
#include "server/connection.h"
#include "server/filter.h"
#include "server/flow.h"
#include "server/input.h"
#include "server/phase.h"
#include "server/names.h"
#include "server/registry.h"
#include "server/scanning.h"
#include "server/script.h"
#include "server/verdict.h"
#include "smtp/limits.h"

APLOG_USE_MODULE(nssmtpd);

/* Octets a second below which message data is too slow to wait for: the deadline of data=
 * moves on with what has come, so that a large message over a slow line has its time. */
#define DATA_RATE 500

/* A client that never pauses gives way to others after so many octets; a small read costs as much
 * as one of READ_COST, and a command, which is more work than octets of a message, as much as
 * COMMAND_COST of them. */
#define TURN_MAX (256 * 1024)
#define READ_COST (16 * 1024)
#define COMMAND_COST 1024

/* Replies go out together, but none is kept for longer than this, and what blocks next. */
#define UNSAID_MAX apr_time_from_sec(1)

static apr_interval_time_t timeout_of(const nssmtpd_session_t *session, nssmtpd_timeout_e which)
{
    return apr_time_from_sec(session->conf->timeout[which]);
}

/* Waiting */

static nssmtpd_wait_e wait_for_write(nssmtpd_session_t *session)
{
    if (!session->deadline) {
        session->deadline = apr_time_now() + timeout_of(session, NSSMTPD_TIMEOUT_COMMAND);
    }
    return NSSMTPD_WAIT_WRITE;
}

nssmtpd_wait_e nssmtpd_answers_send(nssmtpd_session_t *session)
{
    apr_status_t rv = nssmtpd_connection_send(session);

    session->unsaid = 0;
    if (rv == APR_EAGAIN) {
        return wait_for_write(session);
    }
    return rv == APR_SUCCESS ? NSSMTPD_GO_ON : NSSMTPD_CLOSE;
}

/* A deadline is for a whole command or message: what trickles in does not move it. */
nssmtpd_wait_e nssmtpd_answers_wait(nssmtpd_session_t *session)
{
    const nssmtpd_mail_t *mail = session->mail;

    if (session->dialogue.state == SMTP_STATE_DATA) {
        session->deadline = mail->data_started + timeout_of(session, NSSMTPD_TIMEOUT_DATA)
                            + apr_time_from_sec(mail->spool->length / DATA_RATE);
    }
    else if (!session->deadline) {
        session->deadline = apr_time_now() + timeout_of(session, NSSMTPD_TIMEOUT_COMMAND);
    }
    return NSSMTPD_WAIT_READ;
}

/* Events */

/* Too long at a stretch: from now on it needs a place, behind others who want one. */
static nssmtpd_wait_e give_way(nssmtpd_session_t *session)
{
    session->turn = 0;
    nssmtpd_answers_wait(session); /* for the deadline */
    nssmtpd_registry_give_place(session);
    return nssmtpd_registry_take_place(session, session->conf->max_busy) == 0 ? NSSMTPD_WAIT_PLACE
                                                                              : NSSMTPD_LOOK_UP;
}

static nssmtpd_wait_e on_more(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = nssmtpd_answers_send(session);
    apr_off_t n = 0;
    apr_status_t rv;

    if (wait != NSSMTPD_GO_ON) {
        return wait;
    }
    if (session->drained) {
        session->drained = 0;
        return nssmtpd_answers_wait(session);
    }
    if (session->turn >= TURN_MAX) {
        return give_way(session);
    }
    rv = nssmtpd_input_read(session);
    if (rv == APR_EAGAIN) {
        return nssmtpd_answers_wait(session);
    }
    if (rv != APR_SUCCESS) {
        session->eof = 1;
        return NSSMTPD_CLOSE;
    }
    apr_brigade_length(session->in, 0, &n);
    session->turn += n > READ_COST ? n : READ_COST;
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_command(nssmtpd_session_t *session)
{
    if (smtp_dialogue_is_verb(&session->dialogue, "MAIL")) {
        nssmtpd_transaction_log_refused(session, 1);
    }
    if (session->dialogue.last_code >= 400 && smtp_dialogue_is_verb(&session->dialogue, "RCPT")) {
        nssmtpd_count(NSSMTPD_COUNT_RCPT_REFUSED, 1);
    }
    if (session->mail && session->dialogue.last == smtp_reply(SMTP_REPLY_TOO_MANY_RCPTS)
        && !session->mail->too_many) {
        session->mail->too_many = 1;
        ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c,
                      "NS0029: denied: too many recipients (SmtpdMaxRecipients)");
    }
    return NSSMTPD_GO_ON;
}

/* RFC 3207 4.2 and CVE-2011-0411: nothing that came in plaintext behind STARTTLS may count
 * as said inside TLS. A client that sends on before our 220 is no client. */
static int has_more_input(nssmtpd_session_t *session)
{
    apr_off_t n = 0;

    nssmtpd_input_read(session);
    apr_brigade_length(session->in, 1, &n);
    return n > (apr_off_t)session->in_taken;
}

static nssmtpd_wait_e on_starttls(nssmtpd_session_t *session)
{
    if (has_more_input(session)) {
        smtp_dialogue_answer(&session->dialogue, smtp_reply(SMTP_REPLY_BEHIND_STARTTLS));
        return NSSMTPD_GO_ON;
    }
    smtp_dialogue_answer(&session->dialogue, NULL);
    session->tls = NSSMTPD_STARTING;
    return nssmtpd_answers_send(session);
}

/* RFC 2920 3.2: a client that has sent many commands at once is not to hear nothing while each of
 * them takes its time. What it does not take now waits with the next replies. */
static void say_what_is_known(nssmtpd_session_t *session, apr_time_t now)
{
    if (APR_BRIGADE_EMPTY(session->out)) {
        session->unsaid = 0;
    }
    else if (!session->unsaid) {
        session->unsaid = now;
    }
    else if (now > session->unsaid + UNSAID_MAX) {
        (void)nssmtpd_connection_send(session);
        session->unsaid = 0;
    }
}

/* Nobody hears what is done for it, and others are behind it in the queue. */
static int is_reset(nssmtpd_session_t *session)
{
    int was_reset;

    return nssmtpd_connection_has_left(session, &was_reset) && was_reset;
}

/* A place for work that blocks. GO_ON: taken, or *refusal is set because there was none in
 * time. WAIT_PLACE: later. CLOSE: the client has left meanwhile. It is given up when the session
 * comes to rest. */
static nssmtpd_wait_e take_place(nssmtpd_session_t *session, int blocks,
                                 const smtp_reply_t **refusal)
{
    apr_time_t now = apr_time_now();
    int rc;

    *refusal = NULL;
    if (!blocks) {
        session->queued = 0;
        return NSSMTPD_GO_ON;
    }
    say_what_is_known(session, now);
    rc = nssmtpd_registry_take_place(session, session->conf->max_busy);
    if (rc == 0 && !session->queued) {
        session->queued = now;
        session->deadline = now + timeout_of(session, NSSMTPD_TIMEOUT_CONNECT);
    }
    if (rc == 0 && now < session->deadline) {
        return NSSMTPD_WAIT_PLACE;
    }
    if (session->queued && is_reset(session)) {
        session->eof = 1;
        return NSSMTPD_CLOSE;
    }
    session->queued = 0;
    if (rc != 1) {
        nssmtpd_registry_give_place(session);
        *refusal = smtp_reply(SMTP_REPLY_BUSY);
        ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c,
                      "NS0024: no thread came free for a client in time (SmtpdMaxBusy)");
    }
    return NSSMTPD_GO_ON;
}

/* What was decided is said; a script may have ended the session with it. */
static nssmtpd_wait_e answer(nssmtpd_session_t *session, const smtp_reply_t *reply)
{
    smtp_dialogue_answer(&session->dialogue, reply);
    if (session->flags & NSSMTPD_FLAG_ABORT) {
        smtp_dialogue_abort(&session->dialogue);
    }
    return NSSMTPD_GO_ON;
}

/* The same about the mail; a script may have added recipients to it and deleted some. */
static nssmtpd_wait_e answer_envelope(nssmtpd_session_t *session, const smtp_reply_t *reply)
{
    answer(session, reply);
    session->dialogue.rcpts = session->mail->t.rcpts->nelts;
    return NSSMTPD_GO_ON;
}

/* Where replies live that are said at once. */
static apr_pool_t *pool_of(nssmtpd_session_t *session)
{
    return session->mail ? session->mail->t.r->pool : nssmtpd_session_scratch(session);
}

/* A phase that is not about a mail. */
static const smtp_reply_t *ask(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                               const char *line, const char *user, const smtp_reply_t *outcome)
{
    const smtp_reply_t *reply = nssmtpd_script_run(session, phase, line, user, outcome,
                                                   pool_of(session));

    nssmtpd_session_apply_flags(session);
    return reply;
}

static const smtp_reply_t *check_name(nssmtpd_session_t *session)
{
    const nssmtpd_config_t *conf = session->conf;
    const char *name, *why;
    nssmtpd_names_e has_name;

    if (!(session->flags & NSSMTPD_FLAG_RESOLVE)) {
        return NULL;
    }
    has_name = nssmtpd_names_host(nssmtpd_session_scratch(session), conf->name_servers,
                                  NSSMTPD_DNS_TIMEOUT, session->c->client_addr, &name, &why);
    if (has_name == NSSMTPD_NAMES_UNKNOWN) {
        ap_log_cerror(APLOG_MARK, APLOG_ERR, 0, session->c, "NS0078: resolve: %s", why);
        return smtp_reply(SMTP_REPLY_DNS_FAULT_CLOSE);
    }
    if (has_name == NSSMTPD_NAMES_NO) {
        ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c,
                      "NS0079: denied: address without a name (SmtpdFlags resolve)");
        return smtp_reply(SMTP_REPLY_NO_NAME);
    }
    session->c->remote_host = apr_pstrdup(session->c->pool, name); /* for logs and scanners */
    session->c->double_reverse = 1;
    return NULL;
}

nssmtpd_wait_e nssmtpd_answers_greet(nssmtpd_session_t *session)
{
    int blocks = (session->flags & NSSMTPD_FLAG_RESOLVE)
                 || nssmtpd_script_is_configured(session, NSSMTPD_PHASE_CONNECT);
    const smtp_reply_t *reply;
    nssmtpd_wait_e wait = take_place(session, blocks, &reply);

    if (wait != NSSMTPD_GO_ON) {
        return wait;
    }
    if (!reply) {
        reply = check_name(session);
    }
    if (!reply) {
        reply = ask(session, NSSMTPD_PHASE_CONNECT, NULL, NULL, NULL);
    }
    if (reply && !smtp_reply_is_positive(reply)) {
        nssmtpd_count(NSSMTPD_COUNT_DENIED, 1);
    }
    smtp_dialogue_greet(&session->dialogue, &session->conf->offer, session->out, reply);
    session->greeted = 1;
    session->deadline = 0; /* of the wait for a place: the first command has its own time */
    session->drained = session->tls == NSSMTPD_CLEAR; /* a client waits for it, as a rule */
    if (session->flags & NSSMTPD_FLAG_ABORT) {
        smtp_dialogue_abort(&session->dialogue);
    }
    return NSSMTPD_GO_ON;
}

static const smtp_reply_t *ask_helo(nssmtpd_session_t *session)
{
    const smtp_dialogue_t *d = &session->dialogue;
    char line[SMTP_DOMAIN_MAX + 8];

    apr_snprintf(line, sizeof(line), "%s %.*s", smtp_dialogue_is_verb(d, "EHLO") ? "EHLO" : "HELO",
                 (int)d->argument.n, d->argument.p);
    return ask(session, NSSMTPD_PHASE_HELO, line, NULL, NULL);
}

static nssmtpd_wait_e on_helo(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply;
    nssmtpd_wait_e wait;

    if (!nssmtpd_script_is_configured(session, NSSMTPD_PHASE_HELO)) {
        return answer(session, NULL);
    }
    if ((wait = take_place(session, 1, &reply)) != NSSMTPD_GO_ON) {
        return wait;
    }
    if (!reply) {
        reply = ask_helo(session);
    }
    return answer(session, reply);
}

static nssmtpd_wait_e on_mail(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply;
    nssmtpd_wait_e wait;
    int blocks;

    if (!session->mail) { /* or it comes back from waiting for a place */
        nssmtpd_transaction_begin(session);
    }
    blocks = (session->flags & NSSMTPD_FLAG_NEEDDOMAIN)
             || nssmtpd_script_is_configured(session, NSSMTPD_PHASE_MAIL);
    if ((wait = take_place(session, blocks, &reply)) != NSSMTPD_GO_ON) {
        return wait;
    }
    if (!reply) {
        reply = nssmtpd_verdict_sender(session);
        nssmtpd_session_apply_flags(session);
    }
    session->mail->outcome = reply && !smtp_reply_is_positive(reply) ? reply : NULL;
    return answer_envelope(session, reply);
}

static nssmtpd_wait_e on_auth(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply;
    nssmtpd_wait_e wait = take_place(session, 1, &reply);

    if (wait != NSSMTPD_GO_ON) {
        return wait;
    }
    if (reply) {
        return answer(session, smtp_reply(SMTP_REPLY_AUTH_FAULT));
    }
    reply = nssmtpd_auth_check(session);
    reply = ask(session, NSSMTPD_PHASE_AUTH, "AUTH", session->dialogue.sasl.user, reply);
    if (reply && !smtp_reply_is_positive(reply)) {
        session->user = NULL;
    }
    return answer(session, reply);
}

static nssmtpd_wait_e on_rcpt(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply = NULL;
    const nssmtpd_route_t *route = nssmtpd_verdict_route(session, &reply);

    if (route) {
        int blocks = route->delivery->blocks
                     || nssmtpd_script_is_configured(session, NSSMTPD_PHASE_RCPT);
        nssmtpd_wait_e wait = take_place(session, blocks, &reply);

        if (wait != NSSMTPD_GO_ON) {
            return wait;
        }
        if (!reply) {
            reply = nssmtpd_verdict_rcpt(session, route);
            nssmtpd_session_apply_flags(session);
        }
    }
    nssmtpd_transaction_note(session, reply);
    return answer_envelope(session, reply);
}

static nssmtpd_wait_e on_data(nssmtpd_session_t *session)
{
    nssmtpd_transaction_data(session);
    nssmtpd_flow_begin(session);
    return answer(session, NULL);
}

static nssmtpd_wait_e on_content(nssmtpd_session_t *session)
{
    nssmtpd_transaction_content(session, session->dialogue.content);
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_end(nssmtpd_session_t *session)
{
    const nssmtpd_route_t *route = session->mail->t.route; /* NULL: a script has said 250 and
                                                            * deleted whom it was for */
    const smtp_reply_t *reply = nssmtpd_transaction_check(session);

    if (!reply) {
        int blocks = (route && route->delivery->blocks) || nssmtpd_filter_is_wanted(session)
                     || nssmtpd_scanning_is_wanted(session->mail)
                     || nssmtpd_script_is_configured(session, NSSMTPD_PHASE_DATA);
        nssmtpd_wait_e wait = take_place(session, blocks, &reply);

        if (wait != NSSMTPD_GO_ON) {
            return wait;
        }
        if (!reply) {
            reply = nssmtpd_verdict_message(session);
            nssmtpd_session_apply_flags(session);
        }
    }
    session->mail->outcome = reply;
    session->sends_well = nssmtpd_connection_is_quick(session) && smtp_reply_is_positive(reply);
    answer(session, reply);
    session->deadline = 0;
    /* Nothing between the relay's word and ours: the log comes after it is on its way. */
    return nssmtpd_answers_send(session);
}

static nssmtpd_wait_e on_close(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = nssmtpd_answers_send(session);

    return wait == NSSMTPD_GO_ON ? NSSMTPD_CLOSE : wait;
}

static nssmtpd_wait_e (*const answers[])(nssmtpd_session_t *session) = {
    [SMTP_EVENT_MORE] = on_more,       [SMTP_EVENT_COMMAND] = on_command,
    [SMTP_EVENT_CONTENT] = on_content, [SMTP_EVENT_CLOSE] = on_close,
    [SMTP_EVENT_HELO] = on_helo,       [SMTP_EVENT_STARTTLS] = on_starttls,
    [SMTP_EVENT_AUTH] = on_auth,       [SMTP_EVENT_MAIL] = on_mail,
    [SMTP_EVENT_RCPT] = on_rcpt,       [SMTP_EVENT_DATA] = on_data,
    [SMTP_EVENT_END] = on_end
};

nssmtpd_wait_e nssmtpd_answers_give(nssmtpd_session_t *session, smtp_event_e event)
{
    if (event != SMTP_EVENT_MORE && event != SMTP_EVENT_CONTENT) {
        session->turn += COMMAND_COST;
    }
    return answers[event](session);
}
