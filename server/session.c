/* The loop of a session: takes what the client sent, lets the dialogue make events of it,
 * answers those that need a decision, and says what it waits for. It never blocks on the
 * client; what may block on others takes a place for it first. RFC 5321 4.5.3.2 (timeouts).
 */
#include "server/session.h"

#include <apr_hash.h>
#include <apr_strings.h>
#include <http_log.h>
#include <http_protocol.h>
#include <mpm_common.h>

#include "server/connection.h"
#include "server/registry.h"
#include "server/state.h"
#include "server/transaction.h"

APLOG_USE_MODULE(nssmtpd);

/* Replies are sent when nothing of the client's is left to take, or so many wait. */
#define OUT_MAX (16 * 1024)

/* Octets a second below which message data is too slow to wait for: the deadline of data=
 * moves on with what has come, so that a large message over a slow line has its time. */
#define DATA_RATE 500

static apr_interval_time_t timeout_of(const nssmtpd_session_t *session, nssmtpd_timeout_e which)
{
    return apr_time_from_sec(session->conf->timeout[which]);
}

/* Start */

static apr_uint32_t host_key(const server_rec *s)
{
    apr_ssize_t n = APR_HASH_KEY_STRING;

    return apr_hashfunc_default(s->server_hostname, &n) + s->defn_line_number;
}

/* The event MPM waits with the main server's Timeout; its own hook, run on a request that
 * exists for this call only, makes it ours, which config.c made as long as our deadlines. */
static void use_own_timeout(nssmtpd_session_t *session)
{
    apr_array_header_t *hooks = ap_hook_get_post_read_request();
    request_rec r;
    int i;

    memset(&r, 0, sizeof(r));
    r.connection = session->c;
    r.server = session->conf->server;
    r.pool = session->c->pool;
    for (i = 0; hooks && i < hooks->nelts; i++) {
        ap_LINK_post_read_request_t *hook = &((ap_LINK_post_read_request_t *)hooks->elts)[i];

        if (strcmp(hook->szName, "event.c") == 0) {
            hook->pFunc(&r);
        }
    }
}

static void refuse_connection(nssmtpd_session_t *session)
{
    session->dialogue.offer = &session->conf->offer;
    session->dialogue.out = session->out;
    smtp_dialogue_close(&session->dialogue, SMTP_REPLY_TOO_MANY_CONNECTIONS);
}

nssmtpd_session_t *nssmtpd_session_create(conn_rec *c, const nssmtpd_config_t *conf)
{
    nssmtpd_session_t *session = apr_pcalloc(c->pool, sizeof(*session));

    session->c = c;
    session->conf = conf;
    session->in = apr_brigade_create(c->pool, c->bucket_alloc);
    session->out = apr_brigade_create(c->pool, c->bucket_alloc);
    session->trusted = (conf->flags & NSSMTPD_FLAG_LOCAL)
                       || nssmtpd_lists_has_client(conf->trusted, c->client_addr);
    use_own_timeout(session);
    session->slot = nssmtpd_state_open(c->client_addr, host_key(conf->server),
                                       session->trusted ? 0 : conf->max_connections,
                                       session->trusted ? 0 : conf->max_connections_per_address);
    if (session->slot == NSSMTPD_NO_SLOT) {
        refuse_connection(session);
        return session;
    }
    session->dialogue.need_helo = (conf->flags & NSSMTPD_FLAG_NEEDHELO) != 0;
    session->dialogue.normalize = (session->trusted ? conf->bare_newline_trusted
                                                    : conf->bare_newline)
                                  == NSSMTPD_NEWLINE_NORMALIZE;
    smtp_dialogue_init(&session->dialogue, &conf->offer, session->out);
    return session;
}

/* Input */

static smtp_event_e next_event(nssmtpd_session_t *session)
{
    smtp_dialogue_t *d = &session->dialogue;
    const char *data = NULL, *at = NULL;
    apr_size_t n;

    while (!APR_BRIGADE_EMPTY(session->in)) {
        apr_bucket *b = APR_BRIGADE_FIRST(session->in);
        smtp_event_e event;

        if (APR_BUCKET_IS_EOS(b)
            || apr_bucket_read(b, &data, &n, APR_BLOCK_READ) != APR_SUCCESS) {
            session->eof = 1;
            n = 0;
        }
        at = data + session->in_taken;
        event = smtp_dialogue_next(d, &at, data + n);
        session->in_taken = at - data;
        if (event != SMTP_EVENT_MORE) {
            return event;
        }
        apr_bucket_delete(b);
        session->in_taken = 0;
        at = data = NULL;
    }
    return smtp_dialogue_next(d, &at, data);
}

int nssmtpd_client_is_gone(nssmtpd_transaction_t *t)
{
    nssmtpd_session_t *session = ((nssmtpd_mail_t *)t)->session;
    char *rest;
    apr_size_t n;
    int was_reset;

    if (!nssmtpd_connection_has_left(session, &was_reset)) {
        return 0;
    }
    while (!was_reset && nssmtpd_connection_read(session) == APR_SUCCESS) {
        ; /* what came before the FIN */
    }
    if (was_reset || apr_brigade_pflatten(session->in, &rest, &n, t->r->pool) != APR_SUCCESS) {
        return 1;
    }
    return !smtp_dialogue_ends_in_quit(rest + session->in_taken, n - session->in_taken);
}

/* Events */

static nssmtpd_wait_e wait_for_write(nssmtpd_session_t *session)
{
    if (!session->deadline) {
        session->deadline = apr_time_now() + timeout_of(session, NSSMTPD_TIMEOUT_COMMAND);
    }
    return NSSMTPD_WAIT_WRITE;
}

static nssmtpd_wait_e send_replies(nssmtpd_session_t *session)
{
    apr_status_t rv = nssmtpd_connection_send(session);

    if (rv == APR_EAGAIN) {
        return wait_for_write(session);
    }
    return rv == APR_SUCCESS ? NSSMTPD_GO_ON : NSSMTPD_CLOSE;
}

/* A deadline is for a whole command or message: what trickles in does not move it. */
static nssmtpd_wait_e wait_for_read(nssmtpd_session_t *session)
{
    const nssmtpd_mail_t *mail = session->mail;

    if (session->dialogue.state == SMTP_STATE_DATA) {
        session->deadline = mail->data_started + timeout_of(session, NSSMTPD_TIMEOUT_DATA)
                            + apr_time_from_sec(mail->spool->length / DATA_RATE);
    }
    else if (!session->deadline) {
        session->deadline = apr_time_now() + timeout_of(session, NSSMTPD_TIMEOUT_COMMAND);
    }
    if (mail && mail->t.offered) {
        mail->t.route->delivery->idle(&session->mail->t);
    }
    return NSSMTPD_WAIT_READ;
}

static nssmtpd_wait_e on_more(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = send_replies(session);
    apr_status_t rv;

    if (wait != NSSMTPD_GO_ON) {
        return wait;
    }
    rv = nssmtpd_connection_read(session);
    if (rv == APR_EAGAIN) {
        return wait_for_read(session);
    }
    if (rv != APR_SUCCESS) {
        session->eof = 1;
        return NSSMTPD_CLOSE;
    }
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_command(nssmtpd_session_t *session)
{
    if (smtp_dialogue_is_verb(&session->dialogue, "MAIL")) {
        nssmtpd_transaction_log_refused(session, 1);
    }
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_helo(nssmtpd_session_t *session)
{
    smtp_dialogue_answer(&session->dialogue, NULL);
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_mail(nssmtpd_session_t *session)
{
    nssmtpd_transaction_begin(session);
    smtp_dialogue_answer(&session->dialogue, NULL);
    return NSSMTPD_GO_ON;
}

/* Takes a place for work that blocks. GO_ON: taken. WAIT_BUSY: later. CLOSE is never given;
 * *refusal is set when it took too long. */
static nssmtpd_wait_e enter_work(nssmtpd_session_t *session, const nssmtpd_route_t *route,
                                 const smtp_reply_t **refusal)
{
    apr_time_t now;

    *refusal = NULL;
    if (!route->delivery->blocks || nssmtpd_registry_enter_work(session->conf->max_busy)) {
        session->queued = 0;
        return NSSMTPD_GO_ON;
    }
    now = apr_time_now();
    if (!session->queued) {
        session->queued = now;
    }
    if (now - session->queued < timeout_of(session, NSSMTPD_TIMEOUT_CONNECT)) {
        session->deadline = 0;
        return NSSMTPD_WAIT_BUSY;
    }
    session->queued = 0;
    *refusal = smtp_reply(SMTP_REPLY_BUSY);
    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, session->mail->t.r,
                  "NS0024: %s: no thread came free for it in time (SmtpdMaxBusy)",
                  session->mail->t.id);
    return NSSMTPD_GO_ON;
}

static void leave_work(const nssmtpd_route_t *route)
{
    if (route->delivery->blocks) {
        nssmtpd_registry_leave_work();
    }
}

static nssmtpd_wait_e on_rcpt(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply = NULL;
    const nssmtpd_route_t *route = nssmtpd_transaction_route(session, &reply);

    if (route) {
        nssmtpd_wait_e wait = enter_work(session, route, &reply);

        if (wait != NSSMTPD_GO_ON) {
            return wait;
        }
        if (!reply) {
            reply = nssmtpd_transaction_rcpt(session, route);
            leave_work(route);
        }
    }
    smtp_dialogue_answer(&session->dialogue, reply);
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_data(nssmtpd_session_t *session)
{
    nssmtpd_transaction_data(session);
    smtp_dialogue_answer(&session->dialogue, NULL);
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_content(nssmtpd_session_t *session)
{
    nssmtpd_transaction_content(session, session->dialogue.content);
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_end(nssmtpd_session_t *session)
{
    const nssmtpd_route_t *route = session->mail->t.route;
    const smtp_reply_t *reply = nssmtpd_transaction_check(session);

    if (!reply) {
        nssmtpd_wait_e wait = enter_work(session, route, &reply);

        if (wait != NSSMTPD_GO_ON) {
            return wait;
        }
        if (!reply) {
            reply = nssmtpd_transaction_deliver(session);
            leave_work(route);
        }
    }
    session->mail->outcome = reply;
    smtp_dialogue_answer(&session->dialogue, reply);
    /* Nothing between the relay's word and ours: the log comes after it is on its way. */
    return send_replies(session);
}

/* One form for whoever counts them, fail2ban for one: "denied: what (directive)". */
static void log_denial(const nssmtpd_session_t *session)
{
    static const struct {
        smtp_reply_e reply;
        const char *reason;
    } rows[] = {
        { SMTP_REPLY_TOO_MANY_CONNECTIONS, "too many connections (SmtpdMaxConnections)" },
        { SMTP_REPLY_TOO_MANY_ERRORS, "too many errors (SmtpdMaxErrors)" },
        { SMTP_REPLY_TOO_MANY_COMMANDS, "too many commands without a mail (SmtpdMaxErrors)" },
        { SMTP_REPLY_HTTP_VERB, "HTTP on an SMTP port" }
    };
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (session->dialogue.farewell == smtp_reply(rows[i].reply)) {
            ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c, "NS0023: denied: %s",
                          rows[i].reason);
        }
    }
}

static nssmtpd_wait_e on_close(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = send_replies(session);

    return wait == NSSMTPD_GO_ON ? NSSMTPD_CLOSE : wait;
}

static nssmtpd_wait_e (*const handlers[])(nssmtpd_session_t *session) = {
    [SMTP_EVENT_MORE] = on_more,       [SMTP_EVENT_COMMAND] = on_command,
    [SMTP_EVENT_CONTENT] = on_content, [SMTP_EVENT_CLOSE] = on_close,
    [SMTP_EVENT_HELO] = on_helo,       [SMTP_EVENT_MAIL] = on_mail,
    [SMTP_EVENT_RCPT] = on_rcpt,       [SMTP_EVENT_DATA] = on_data,
    [SMTP_EVENT_END] = on_end
};

/* The loop */

static nssmtpd_wait_e step(nssmtpd_session_t *session)
{
    apr_off_t waiting = 0;
    smtp_event_e event = next_event(session);
    nssmtpd_wait_e wait = handlers[event](session);

    if (event != SMTP_EVENT_MORE && event != SMTP_EVENT_CONTENT && wait == NSSMTPD_GO_ON) {
        session->deadline = 0; /* a complete command: the next one has its own time */
    }
    if (session->mail && !nssmtpd_session_has_mail(session)) {
        nssmtpd_transaction_end(session);
    }
    if (wait == NSSMTPD_GO_ON && apr_brigade_length(session->out, 0, &waiting) == APR_SUCCESS
        && waiting > OUT_MAX) {
        return send_replies(session);
    }
    return wait;
}

/* Why was the session woken? Maybe for no octets of the client's. */
static nssmtpd_wait_e wake_up(nssmtpd_session_t *session)
{
    if (session->deadline && apr_time_now() > session->deadline) {
        if (session->c->data_in_output_filters || session->dialogue.state == SMTP_STATE_CLOSED) {
            return NSSMTPD_CLOSE;
        }
        smtp_dialogue_close(&session->dialogue, SMTP_REPLY_TIMEOUT);
        session->deadline = 0;
    }
    if (session->c->data_in_output_filters) {
        nssmtpd_wait_e wait = send_replies(session);

        if (wait == NSSMTPD_GO_ON) {
            session->deadline = 0;
        }
        return wait;
    }
    return NSSMTPD_GO_ON;
}

nssmtpd_wait_e nssmtpd_session_run(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = wake_up(session);

    while (wait == NSSMTPD_GO_ON) {
        if (nssmtpd_registry_is_stopping() && !nssmtpd_session_has_mail(session)
            && session->dialogue.state != SMTP_STATE_CLOSED) {
            smtp_dialogue_close(&session->dialogue, SMTP_REPLY_SHUTDOWN);
        }
        wait = step(session);
    }
    return wait;
}

void nssmtpd_session_end(nssmtpd_session_t *session)
{
    const smtp_dialogue_t *d = &session->dialogue;

    if (session->over) {
        return;
    }
    session->over = 1;
    log_denial(session);
    apr_table_setn(session->c->notes, "short-lingering-close", "1");
    if (session->mail) {
        if (d->state != SMTP_STATE_CLOSED) {
            session->mail->outcome = smtp_reply(SMTP_REPLY_CLIENT_GONE);
        }
        nssmtpd_transaction_end(session);
    }
    else if (!session->had_mail && d->last_code >= 400) {
        nssmtpd_transaction_log_refused(session, 0);
    }
    nssmtpd_state_close(session->slot);
}
