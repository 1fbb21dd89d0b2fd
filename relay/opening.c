/* Opening a relay connection: which worker, connect, greeting, EHLO or HELO, STARTTLS, AUTH.
 * RFC 5321 3.2, 3207, 4954. Until TLS is decided the socket is read without filters, line by
 * line. What was learnt before TLS is forgotten; a password goes only where the relay's
 * certificate was verified, as the connection itself says, unless encrypt was written out.
 */
#include "relay/opening.h"

#include <apr_encode.h>
#include <apr_portable.h>
#include <apr_strings.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_ssl.h>
#include <mod_ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <util_filter.h>

APLOG_USE_MODULE(nssmtpd);

#define LINK_KEY "nssmtpd-link"

/* Steps */

/* Says a step and hears its reply. 0: no reply. */
static int say(nssmtpd_upstream_t *u, smtp_step_e step, const char *arg, smtp_verdict_e *verdict)
{
    const smtp_reply_t *reply;

    u->t->step = smtp_step(step)->name;
    if (smtp_step(step)->command) {
        smtp_client_put(u->link->out, step, arg);
    }
    if (!nssmtpd_upstream_flush(u, step) || !nssmtpd_upstream_read(u, step, verdict, &reply)) {
        return 0;
    }
    u->link->in_step = 1;
    u->failure = reply;
    return 1;
}

/* The step was not taken and nothing else will do. Always 0. */
static int refused(nssmtpd_upstream_t *u, smtp_step_e step)
{
    nssmtpd_upstream_fault(u, step);
    nssmtpd_upstream_release(u, 1);
    return 0;
}

/* EHLO, or HELO where that is not known. */
static int introduce(nssmtpd_upstream_t *u)
{
    const char *name = nssmtpd_hostname(u->t->r->server);
    smtp_verdict_e verdict;

    u->link->client.capabilities = 0;
    if (!say(u, SMTP_STEP_EHLO, name, &verdict)) {
        return 0;
    }
    if (verdict != SMTP_VERDICT_TAKEN && u->answer->code >= 500
        && !say(u, SMTP_STEP_HELO, name, &verdict)) {
        return 0;
    }
    return verdict == SMTP_VERDICT_TAKEN ? 1 : refused(u, SMTP_STEP_EHLO);
}

static int greet(nssmtpd_upstream_t *u)
{
    smtp_verdict_e verdict;

    if (!say(u, SMTP_STEP_GREETING, NULL, &verdict)) {
        return 0;
    }
    return verdict == SMTP_VERDICT_TAKEN ? introduce(u) : refused(u, SMTP_STEP_GREETING);
}

/* TLS */

static int is_verified(nssmtpd_upstream_t *u)
{
    APR_OPTIONAL_FN_TYPE(ssl_var_lookup) *lookup = APR_RETRIEVE_OPTIONAL_FN(ssl_var_lookup);
    const request_rec *r = u->t->r;
    conn_rec *c = u->link->backend->connection;
    const char *result = lookup && u->link->backend->is_ssl
                             ? lookup(r->pool, r->server, c, NULL, "SSL_CLIENT_VERIFY")
                             : NULL;

    return result && strcmp(result, "SUCCESS") == 0;
}

/* Runs before a connection is closed for whatever reason, when the relay can hear it. */
static apr_status_t say_quit(void *baton)
{
    nssmtpd_link_t *link = baton;
    conn_rec *c = link->backend->connection;

    if (link->in_step && link->backend->sock && c && !c->aborted) {
        apr_socket_timeout_set(link->backend->sock, 0);
        smtp_client_put(link->out, SMTP_STEP_QUIT, NULL);
        APR_BRIGADE_INSERT_TAIL(link->out, apr_bucket_flush_create(link->out->bucket_alloc));
        ap_pass_brigade(c->output_filters, link->out);
    }
    /* What was read is of the connection's allocator, which goes before our brigades do. */
    apr_brigade_cleanup(link->in);
    apr_brigade_cleanup(link->out);
    return APR_SUCCESS;
}

/* The conn_rec with its filters, mod_ssl's among them if backend->is_ssl. */
static int create_connection(nssmtpd_upstream_t *u)
{
    nssmtpd_link_t *link = u->link;

    if (nssmtpd_proxy.connection_create(NSSMTPD_PROXY_FUNCTION, link->backend, NULL,
                                        u->t->r->server) != OK) {
        return nssmtpd_upstream_fail(u, SMTP_REPLY_LOCAL_FAULT);
    }
    apr_pool_pre_cleanup_register(link->backend->scpool, link, say_quit);
    return 1;
}

/* What failed on the way into TLS may be tried without. Always 0. */
static int give_up_tls(nssmtpd_upstream_t *u, const char *why)
{
    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, u->t->r,
                  "NS0095: %s: relay %s: %s; the mail goes in plaintext (SmtpdRelayTLS may)",
                  u->t->id, u->peer, why);
    u->without_tls = 1;
    return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_INSECURE);
}

/* From here on all octets are TLS. 0: the handshake has failed, or the relay is not who it
 * should be; u->without_tls says whether plaintext may be tried. */
static int secure(nssmtpd_upstream_t *u)
{
    proxy_conn_rec *backend = u->link->backend;
    apr_bucket_brigade *bb = u->link->in;
    apr_status_t rv;

    u->link->in_step = 0;
    backend->is_ssl = 1;
    backend->ssl_hostname = apr_pstrdup(backend->scpool, backend->hostname);
    if (!create_connection(u)) {
        return 0;
    }
    nssmtpd_upstream_bound(u);
    rv = ap_get_brigade(backend->connection->input_filters, bb, AP_MODE_INIT, APR_BLOCK_READ, 0);
    if (rv == APR_SUCCESS && ap_ssl_conn_is_ssl(backend->connection)
        && (u->relay->tls != NSSMTPD_RELAY_TLS_VERIFY || is_verified(u))) {
        return 1;
    }
    if (u->relay->tls == NSSMTPD_RELAY_TLS_MAY) {
        return give_up_tls(u, "the TLS handshake has failed");
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, u->t->r, "NS0048: %s: relay %s: TLS failed, or its "
                  "certificate is not good (SmtpdRelayTLS)", u->t->id, u->peer);
    return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_INSECURE);
}

static int is_loopback(const proxy_conn_rec *backend)
{
    const apr_sockaddr_t *addr = backend->addr;
    const unsigned char *ip = addr ? addr->ipaddr_ptr : NULL;

    return backend->uds_path || !addr || (addr->family == APR_INET && ip[0] == 127)
           || (addr->family == APR_INET6
               && IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)addr->ipaddr_ptr));
}

static int wants_tls(const nssmtpd_upstream_t *u)
{
    switch (u->relay->tls) {
    case NSSMTPD_RELAY_TLS_NONE:
        return 0;
    case NSSMTPD_RELAY_TLS_MAY:
        return !u->without_tls && !is_loopback(u->link->backend)
               && (u->link->client.capabilities & SMTP_CAN_STARTTLS);
    default:
        return 1;
    }
}

/* In TLS 1.3 our side of the handshake ends first: what the relay has against it, such as the
 * lack of a client certificate, comes instead of its answer (RFC 8446 4.4.2.4). */
static int introduce_inside(nssmtpd_upstream_t *u)
{
    if (introduce(u)) {
        return 1;
    }
    return u->relay->tls == NSSMTPD_RELAY_TLS_MAY
                   && u->failure == smtp_reply(SMTP_REPLY_RELAY_LOST)
               ? give_up_tls(u, "it was lost right after the TLS handshake")
               : 0;
}

/* RFC 3207 and CVE-2021-38371: a relay that sends on behind its 220, before the handshake,
 * is not one whose words are read. */
static int starttls(nssmtpd_upstream_t *u)
{
    smtp_verdict_e verdict;

    if (!(u->link->client.capabilities & SMTP_CAN_STARTTLS)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                      "NS0049: %s: relay %s offers no STARTTLS (SmtpdRelayTLS)", u->t->id, u->peer);
        return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_INSECURE);
    }
    if (!say(u, SMTP_STEP_STARTTLS, NULL, &verdict)) {
        return 0;
    }
    if (verdict != SMTP_VERDICT_TAKEN) {
        return u->relay->tls == NSSMTPD_RELAY_TLS_MAY
                   ? give_up_tls(u, "STARTTLS was refused")
                   : refused(u, SMTP_STEP_STARTTLS);
    }
    if (nssmtpd_upstream_has_words(u)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                      "NS0050: %s: relay %s: plaintext behind the answer to STARTTLS", u->t->id,
                      u->peer);
        return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_FAULT);
    }
    return secure(u) && introduce_inside(u);
}

/* AUTH */

static const char *plain_response(const nssmtpd_upstream_t *u)
{
    apr_pool_t *p = u->t->r->pool;
    apr_size_t user = strlen(u->relay->user), password = strlen(u->relay->password);
    char *octets = apr_pcalloc(p, user + password + 3);

    memcpy(octets + 1, u->relay->user, user);
    memcpy(octets + user + 2, u->relay->password, password);
    return apr_pencode_base64_binary(p, (unsigned char *)octets, user + password + 2, 0, NULL);
}

static const char *coded(const nssmtpd_upstream_t *u, const char *text)
{
    return apr_pencode_base64(u->t->r->pool, text, APR_ENCODE_STRING, 0, NULL);
}

static int login(nssmtpd_upstream_t *u, smtp_verdict_e *verdict)
{
    return say(u, SMTP_STEP_LOGIN, NULL, verdict)
           && (*verdict != SMTP_VERDICT_TAKEN
               || say(u, SMTP_STEP_LOGIN_USER, coded(u, u->relay->user), verdict))
           && (*verdict != SMTP_VERDICT_TAKEN
               || say(u, SMTP_STEP_LOGIN_PASSWORD, coded(u, u->relay->password), verdict));
}

static int authenticate(nssmtpd_upstream_t *u)
{
    unsigned can = u->link->client.capabilities;
    smtp_verdict_e verdict;
    int heard;

    if (!is_verified(u) && u->relay->tls != NSSMTPD_RELAY_TLS_ENCRYPT) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                      "NS0051: %s: relay %s is not verified: no password is sent to it", u->t->id,
                      u->peer);
        return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_INSECURE);
    }
    if (!(can & (SMTP_CAN_AUTH_PLAIN | SMTP_CAN_AUTH_LOGIN))) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                      "NS0052: %s: relay %s offers neither AUTH PLAIN nor LOGIN", u->t->id,
                      u->peer);
        return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_CREDENTIALS);
    }
    heard = can & SMTP_CAN_AUTH_PLAIN ? say(u, SMTP_STEP_AUTH, plain_response(u), &verdict)
                                      : login(u, &verdict);
    if (!heard) {
        return 0;
    }
    if (verdict != SMTP_VERDICT_TAKEN) {
        nssmtpd_upstream_fault(u, SMTP_STEP_AUTH);
        return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_CREDENTIALS);
    }
    return 1;
}

/* A connection */

static nssmtpd_link_t *make_link(proxy_conn_rec *backend)
{
    nssmtpd_link_t *link = apr_pcalloc(backend->scpool, sizeof(*link));
    apr_bucket_alloc_t *ba = apr_bucket_alloc_create(backend->scpool);

    link->backend = backend;
    link->in = apr_brigade_create(backend->scpool, ba);
    link->out = apr_brigade_create(backend->scpool, ba);
    apr_pool_userdata_setn(link, LINK_KEY, NULL, backend->scpool);
    return link;
}

static int set_up(nssmtpd_upstream_t *u)
{
    if (u->relay->is_implicit ? !(secure(u) && greet(u)) : !greet(u)) {
        return 0;
    }
    if (!u->link->backend->connection
        && !(wants_tls(u) ? starttls(u) : create_connection(u))) {
        return 0;
    }
    return u->relay->user ? authenticate(u) : 1;
}

/* The socket and, on a new connection, all that comes before the first mail. */
static int connect_backend(nssmtpd_upstream_t *u, proxy_conn_rec *backend)
{
    server_rec *s = u->t->r->server;

    backend->is_ssl = 0;
    if (nssmtpd_proxy.connect_backend(NSSMTPD_PROXY_FUNCTION, backend, u->worker, s) != OK) {
        backend->close = 1;
        nssmtpd_proxy.release_connection(NSSMTPD_PROXY_FUNCTION, backend, s);
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r, "NS0043: %s: relay %s cannot be reached",
                      u->t->id, u->peer);
        u->failure = smtp_reply(SMTP_REPLY_RELAY_UNREACHABLE);
        return 0;
    }
    u->link = make_link(backend);
    return set_up(u);
}

/* A connection that another mail has used; what came before the first is done. NULL: a new one. */
static nssmtpd_link_t *pooled(const proxy_conn_rec *backend)
{
    void *link = NULL;

    if (backend->sock && backend->connection) {
        apr_pool_userdata_get(&link, LINK_KEY, backend->scpool);
    }
    return link;
}

static int use_pooled(nssmtpd_upstream_t *u, proxy_conn_rec *backend)
{
    u->link = pooled(backend);
    if (u->link) { /* mod_proxy binds TLS to this use of the connection again */
        nssmtpd_proxy.connection_create(NSSMTPD_PROXY_FUNCTION, backend, NULL,
                                        u->t->r->server);
    }
    return u->link != NULL;
}

/* 1 if it says nothing and has not left: else an idle 421 lies unread, or worse. */
static int is_silent(nssmtpd_upstream_t *u, proxy_conn_rec *backend)
{
    int is_quiet;

    u->link = pooled(backend);
    is_quiet = u->link && nssmtpd_upstream_is_quiet(u);
    u->link = NULL;
    return is_quiet;
}

static int use_worker(nssmtpd_upstream_t *u, char *url, int fresh)
{
    request_rec *r = u->t->r;
    proxy_conn_rec *backend = NULL;
    apr_uri_t uri;
    char port[8];

    u->t->step = "connect";
    u->deadline = apr_time_now() + nssmtpd_timeout(r->server, NSSMTPD_TIMEOUT_CONNECT);
    u->peer = apr_psprintf(r->pool, "%s:%d", u->worker->s->hostname_ex, u->worker->s->port);
    nssmtpd_set_variable(u->t, "SMTP_RELAY", apr_pstrcat(r->pool, "smtp://", u->peer, NULL));
    if (nssmtpd_proxy.acquire_connection(NSSMTPD_PROXY_FUNCTION, &backend, u->worker, r->server)
        != OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "NS0044: %s: relay %s: no connection came free, or it is disabled",
                      u->t->id, u->peer);
        u->failure = smtp_reply(PROXY_WORKER_IS_USABLE(u->worker) ? SMTP_REPLY_BUSY
                                                                  : SMTP_REPLY_RELAY_UNREACHABLE);
        return 0;
    }
    backend->is_ssl = backend->connection && ap_ssl_conn_is_ssl(backend->connection);
    if (fresh || (backend->sock && !is_silent(u, backend))) {
        backend->close = 1;
    }
    if (nssmtpd_proxy.determine_connection(r->pool, r, nssmtpd_proxy_conf(r->server), u->worker,
                                           backend, &uri, &url, NULL, 0, port, sizeof(port))
        != OK) {
        nssmtpd_proxy.release_connection(NSSMTPD_PROXY_FUNCTION, backend, r->server);
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "NS0045: %s: relay %s has no address",
                      u->t->id, u->peer);
        u->failure = smtp_reply(SMTP_REPLY_RELAY_UNREACHABLE);
        return 0;
    }
    return use_pooled(u, backend) || connect_backend(u, backend);
}

/* The same, and once more without TLS where that is allowed. */
static int try_worker(nssmtpd_upstream_t *u, const char *url, int fresh)
{
    apr_pool_t *p = u->t->r->pool;

    u->without_tls = 0;
    return use_worker(u, apr_pstrdup(p, url), fresh)
           || (u->without_tls && use_worker(u, apr_pstrdup(p, url), 1));
}

/* mod_proxy_balancer's choice. It looks at a request as mod_proxy would have made it. */
static int choose_member(nssmtpd_upstream_t *u, proxy_balancer **balancer, char **url)
{
    request_rec *r = u->t->r;
    char *filename = r->filename;
    int rc;

    u->worker = NULL;
    r->proxyreq = PROXYREQ_REVERSE;
    rc = nssmtpd_proxy.pre_request(&u->worker, balancer, r, nssmtpd_proxy_conf(r->server), url);
    r->proxyreq = PROXYREQ_NONE;
    r->filename = filename;
    if (rc == OK) { /* in a child that is not the first nobody has done it */
        nssmtpd_proxy.initialize_worker(u->worker, r->server, nssmtpd_proxy_conf(r->server)->pool);
    }
    return rc == OK;
}

static int open_balanced(nssmtpd_upstream_t *u, int fresh)
{
    request_rec *r = u->t->r;
    int attempt, members = 1;

    for (attempt = 0; attempt < members; attempt++) {
        char *url = apr_pstrdup(r->pool, u->relay->name);
        proxy_balancer *balancer = NULL;

        if (!choose_member(u, &balancer, &url)) {
            break;
        }
        if (try_worker(u, url, fresh)) {
            return 1;
        }
        members = balancer ? balancer->workers->nelts : 1;
        if (u->failure != smtp_reply(SMTP_REPLY_BUSY)) {
            u->worker->s->error_time = apr_time_now();
            u->worker->s->status |= PROXY_WORKER_IN_ERROR;
        }
    }
    u->failure = u->failure ? u->failure : smtp_reply(SMTP_REPLY_RELAY_UNREACHABLE);
    return 0;
}

int nssmtpd_opening_open(nssmtpd_upstream_t *u, int fresh)
{
    request_rec *r = u->t->r;

    u->failure = NULL;
    if (u->relay->is_balancer) {
        return open_balanced(u, fresh);
    }
    u->worker = u->relay->worker ? u->relay->worker
                                 : nssmtpd_proxy.get_worker(r->pool, NULL,
                                                            nssmtpd_proxy_conf(r->server),
                                                            u->relay->name);
    if (!u->worker) {
        u->failure = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
        return 0;
    }
    return try_worker(u, u->relay->name, fresh);
}
