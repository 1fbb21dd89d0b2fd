/* The life of a session: its start, the loop that takes what the client sent and lets the
 * dialogue make events of it, TLS when it begins, its end. What an event is answered with
 * is answers.c's. RFC 3207.
 */
#include "server/session.h"

#include <apr_hash.h>
#include <apr_strings.h>
#include <http_log.h>
#include <http_protocol.h>
#include <mpm_common.h>

#include "server/answers.h"
#include "server/board.h"
#include "server/connection.h"
#include "server/flow.h"
#include "server/input.h"
#include "server/permits.h"
#include "server/registry.h"
#include "server/state.h"
#include "server/tls.h"
#include "server/transaction.h"

APLOG_USE_MODULE(nssmtpd);

/* Replies are sent when nothing of the client's is left to take, or so many wait. */
#define OUT_MAX (8 * 1024)

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

/* Whether the client is trusted, by the list as it stands now. What a script has said of
 * this session holds until the client comes upon the list, or off it. */
static void look_up_client(nssmtpd_session_t *session)
{
    const nssmtpd_config_t *conf = session->conf;
    int was_listed = session->listed;

    session->clients_version = nssmtpd_permits_clients_version(conf);
    session->listed = nssmtpd_permits_client(conf, session->c->client_addr);
    if (session->listed && !was_listed) {
        session->flags |= NSSMTPD_FLAG_LOCAL;
    }
    else if (was_listed && !session->listed) {
        session->flags &= ~NSSMTPD_FLAG_LOCAL | (apr_uint32_t)conf->flags;
    }
}

/* Before each command: a script may have changed the list meanwhile. */
static void follow_list(nssmtpd_session_t *session)
{
    if (session->clients_version != nssmtpd_permits_clients_version(session->conf)
        && session->dialogue.event == SMTP_EVENT_MORE
        && session->dialogue.state != SMTP_STATE_DATA) {
        look_up_client(session);
        nssmtpd_session_apply_flags(session);
    }
}

/* What the host in session->conf offers to this client. Flags that a script has set hold
 * until TLS brings it to another host. */
static void set_terms(nssmtpd_session_t *session, const nssmtpd_config_t *before)
{
    const nssmtpd_config_t *conf = session->conf;
    smtp_dialogue_t *d = &session->dialogue;

    if (!before || conf != before) {
        use_own_timeout(session);
        session->flags = (apr_uint32_t)conf->flags | nssmtpd_scan_kinds(conf->server);
        session->listed = 0;
        look_up_client(session);
    }
    d->offer = &conf->offer;
    d->out = session->out;
    d->can_tls = conf->tls != NSSMTPD_TLS_OFF;
    d->need_tls = conf->tls_required;
    d->has_tls = session->tls == NSSMTPD_SECURE;
    d->can_auth = conf->auth_providers != NULL;
    d->auth_in_clear = conf->auth_plaintext;
    nssmtpd_session_apply_flags(session);
}

void nssmtpd_session_apply_flags(nssmtpd_session_t *session)
{
    const nssmtpd_config_t *conf = session->conf;
    int is_trusted = (session->flags & NSSMTPD_FLAG_LOCAL) != 0;

    session->dialogue.need_helo = (session->flags & NSSMTPD_FLAG_NEEDHELO) != 0;
    session->dialogue.normalize = (is_trusted ? conf->bare_newline_trusted : conf->bare_newline)
                                  == NSSMTPD_NEWLINE_NORMALIZE;
}

static int take_slot(nssmtpd_session_t *session)
{
    const nssmtpd_config_t *conf = session->conf;
    int is_trusted = (session->flags & NSSMTPD_FLAG_LOCAL) != 0;

    session->slot = nssmtpd_state_open(session->c->client_addr, host_key(conf->server),
                                       is_trusted ? 0 : conf->max_connections,
                                       is_trusted ? 0 : conf->max_connections_per_address);
    nssmtpd_board_open(session);
    return session->slot != NSSMTPD_NO_SLOT;
}

nssmtpd_session_t *nssmtpd_session_create(conn_rec *c, apr_socket_t *socket,
                                          const nssmtpd_config_t *conf)
{
    nssmtpd_session_t *session = apr_pcalloc(c->pool, sizeof(*session));

    session->c = c;
    session->socket = socket;
    session->bell = session->parked = -1;
    session->conf = conf;
    session->in = apr_brigade_create(c->pool, c->bucket_alloc);
    session->out = apr_brigade_create(c->pool, c->bucket_alloc);
    set_terms(session, NULL);
    nssmtpd_count(NSSMTPD_COUNT_CONNECTIONS, 1);
    if (!take_slot(session)) {
        nssmtpd_count(NSSMTPD_COUNT_DENIED, 1);
        smtp_dialogue_close(&session->dialogue, SMTP_REPLY_TOO_MANY_CONNECTIONS);
        session->greeted = 1;
    }
    else if (conf->tls == NSSMTPD_TLS_IMMEDIATE) {
        session->tls = NSSMTPD_STARTING;
    }
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

apr_pool_t *nssmtpd_session_scratch(nssmtpd_session_t *session)
{
    if (session->scratch) {
        apr_pool_clear(session->scratch);
    }
    else {
        apr_pool_create(&session->scratch, session->c->pool);
    }
    return session->scratch;
}

int nssmtpd_client_is_gone(nssmtpd_transaction_t *t)
{
    nssmtpd_session_t *session = t->has_client ? ((nssmtpd_mail_t *)t)->session : NULL;
    char *rest;
    apr_size_t n;
    int was_reset;

    if (!session || !nssmtpd_connection_has_left(session, &was_reset)) {
        return 0;
    }
    while (!was_reset && nssmtpd_input_read(session) == APR_SUCCESS) {
        ; /* what came before the FIN */
    }
    if (was_reset || apr_brigade_pflatten(session->in, &rest, &n, t->r->pool) != APR_SUCCESS) {
        return 1;
    }
    return !smtp_dialogue_ends_in_quit(rest + session->in_taken, n - session->in_taken);
}

/* The loop */

static nssmtpd_wait_e step(nssmtpd_session_t *session)
{
    apr_off_t waiting = 0;
    smtp_event_e event;
    nssmtpd_wait_e wait;

    follow_list(session);
    event = next_event(session);
    nssmtpd_board_turn(session);
    wait = nssmtpd_answers_give(session, event);
    if (event != SMTP_EVENT_MORE && event != SMTP_EVENT_CONTENT && wait == NSSMTPD_GO_ON) {
        session->deadline = 0; /* a complete command: the next one has its own time */
        nssmtpd_connection_moves_on(session);
    }
    if (session->mail && !nssmtpd_session_has_mail(session)
        && session->dialogue.event == SMTP_EVENT_MORE) {
        nssmtpd_transaction_end(session);
    }
    nssmtpd_board_update(session, event);
    if (wait == NSSMTPD_GO_ON && apr_brigade_length(session->out, 0, &waiting) == APR_SUCCESS
        && waiting > OUT_MAX) {
        return nssmtpd_answers_send(session);
    }
    return wait;
}

static void drop_input(nssmtpd_session_t *session)
{
    apr_brigade_cleanup(session->in);
    session->in_taken = 0;
    session->drained = 0;
}

/* TLS begins, or goes on. Its handshake has the time of a command. */
static nssmtpd_wait_e step_tls(nssmtpd_session_t *session)
{
    const nssmtpd_config_t *before = session->conf;
    apr_status_t rv = APR_SUCCESS;

    if (session->tls == NSSMTPD_STARTING) {
        drop_input(session);
        session->tls = NSSMTPD_HANDSHAKE;
        rv = nssmtpd_tls_start(session);
    }
    if (rv == APR_SUCCESS) {
        rv = nssmtpd_tls_handshake(session);
    }
    if (rv == APR_EAGAIN) {
        return nssmtpd_answers_wait(session);
    }
    if (rv != APR_SUCCESS) {
        session->eof = 1;
        return NSSMTPD_CLOSE;
    }
    session->tls = NSSMTPD_SECURE;
    session->deadline = 0;
    set_terms(session, before);
    if (session->greeted) {
        smtp_dialogue_restart(&session->dialogue, &session->conf->offer);
        session->user = NULL;
    }
    nssmtpd_board_write(session);
    return NSSMTPD_GO_ON;
}

static nssmtpd_wait_e on_timeout(nssmtpd_session_t *session)
{
    if (session->c->data_in_output_filters || !nssmtpd_session_can_speak(session)) {
        session->eof = 1;
        return NSSMTPD_CLOSE;
    }
    smtp_dialogue_close(&session->dialogue, SMTP_REPLY_TIMEOUT);
    session->deadline = 0;
    return NSSMTPD_GO_ON;
}

/* Why was the session woken? Maybe for no octets of the client's. */
static nssmtpd_wait_e wake_up(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = NSSMTPD_GO_ON;

    if (session->tls == NSSMTPD_SECURE && !nssmtpd_tls_is_active(session)) {
        session->eof = 1; /* mod_ssl has left: what comes now is not to be believed */
        return NSSMTPD_CLOSE;
    }
    if (session->deadline && !session->queued && apr_time_now() > session->deadline) {
        wait = on_timeout(session);
    }
    if (wait == NSSMTPD_GO_ON && session->c->data_in_output_filters) {
        wait = nssmtpd_answers_send(session);
        session->deadline = wait == NSSMTPD_GO_ON ? 0 : session->deadline;
    }
    return wait;
}

/* The child stops, and there is no mail in hand. */
static int must_stop(const nssmtpd_session_t *session)
{
    return session->told && !nssmtpd_session_has_mail(session)
           && session->dialogue.state != SMTP_STATE_CLOSED;
}

nssmtpd_wait_e nssmtpd_session_run(nssmtpd_session_t *session)
{
    nssmtpd_wait_e wait = wake_up(session);

    session->turn = 0;
    while (wait == NSSMTPD_GO_ON) {
        if (session->tls == NSSMTPD_STARTING || session->tls == NSSMTPD_HANDSHAKE) {
            wait = step_tls(session);
            continue;
        }
        if (must_stop(session)) {
            smtp_dialogue_close(&session->dialogue, SMTP_REPLY_SHUTDOWN);
            session->greeted = 1; /* this was all it hears */
        }
        wait = session->greeted ? step(session) : nssmtpd_answers_greet(session);
        wait = wait == NSSMTPD_LOOK_UP ? wake_up(session) : wait;
    }
    if (wait != NSSMTPD_WAIT_PLACE) {
        nssmtpd_registry_give_place(session);
    }
    if (session->scratch) {
        apr_pool_destroy(session->scratch);
        session->scratch = NULL;
    }
    if (wait != NSSMTPD_CLOSE && session->mail && session->mail->t.offered) {
        nssmtpd_flow_rest(session);
    }
    return wait;
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
        if (session->dialogue.last == smtp_reply(rows[i].reply)) {
            ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c, "NS0023: denied: %s",
                          rows[i].reason);
        }
    }
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
    nssmtpd_registry_give_place(session);
    smtp_dialogue_end(&session->dialogue);
    nssmtpd_board_close(session);
    nssmtpd_state_close(session->slot);
}
