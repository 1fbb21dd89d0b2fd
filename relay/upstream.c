/* A relay connection on top of mod_proxy's workers: acquire, connect, greet, read and write
 * with a total deadline per step, release. RFC 5321 4.5.3.2 (deadlines), 3.2 (HELO after a
 * refused EHLO). The relay may do anything: drip, flood, hang, close.
 */
#include "relay/upstream.h"

#include <apr_portable.h>
#include <apr_strings.h>
#include <http_log.h>
#include <http_protocol.h>
#include <poll.h>
#include <sys/socket.h>
#include <util_filter.h>

APLOG_USE_MODULE(nssmtpd);

#define FUNCTION "SMTP" /* how mod_proxy names us in its log */
#define LINK_KEY "nssmtpd-link"

/* RFC 5321 4.5.3.2.6 gives a client ten minutes from its dot to our reply; of ours, the
 * last part is kept for the relay's answer: a dot that nobody waits for doubles the mail. */
#define DOT_TO_DOT apr_time_from_sec(540)
#define DOT_RESERVE apr_time_from_sec(30)

/* Failures */

/* The connection is of no use any more and nothing was delivered over it. Always 0. */
static int fail(nssmtpd_upstream_t *u, smtp_reply_e reply)
{
    u->failure = smtp_reply(reply);
    nssmtpd_upstream_release(u, 1);
    return 0;
}

static int lost(nssmtpd_upstream_t *u, smtp_step_e step, apr_status_t rv)
{
    if (u->link->used && step < SMTP_STEP_DATA && !APR_STATUS_IS_TIMEUP(rv)) {
        u->is_stale = 1; /* as relays close idle connections: no news for the log */
        return fail(u, SMTP_REPLY_RELAY_LOST);
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, u->t->r,
                  "NS0040: %s: relay %s: connection lost or timed out at %s", u->t->id, u->peer,
                  smtp_step(step)->name);
    return fail(u, SMTP_REPLY_RELAY_LOST);
}

static int garbled(nssmtpd_upstream_t *u, smtp_step_e step)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                  "NS0041: %s: relay %s: answer to %s is not SMTP", u->t->id, u->peer,
                  smtp_step(step)->name);
    return fail(u, SMTP_REPLY_RELAY_FAULT);
}

/* Time */

static nssmtpd_timeout_e timeout_of(smtp_step_e step)
{
    static const nssmtpd_timeout_e timeouts[] = {
        [SMTP_WAIT_CONNECT] = NSSMTPD_TIMEOUT_CONNECT,
        [SMTP_WAIT_RELAY] = NSSMTPD_TIMEOUT_RELAY,
        [SMTP_WAIT_DOT] = NSSMTPD_TIMEOUT_DOT
    };

    return timeouts[smtp_step(step)->wait];
}

void nssmtpd_upstream_start_step(nssmtpd_upstream_t *u, smtp_step_e step)
{
    u->deadline = apr_time_now() + nssmtpd_timeout(u->t->r->server, timeout_of(step));
    if (u->t->ended && u->deadline > u->t->ended + DOT_TO_DOT) {
        u->deadline = u->t->ended + DOT_TO_DOT;
    }
}

int nssmtpd_upstream_has_time(const nssmtpd_upstream_t *u)
{
    return apr_time_now() + DOT_RESERVE < u->t->ended + DOT_TO_DOT;
}

/* httpd's filters take the socket's timeout for each poll; ours is for all of them. 0: it
 * is over. */
static int set_timeout(nssmtpd_upstream_t *u)
{
    apr_interval_time_t left = u->deadline - apr_time_now();

    if (left <= 0) {
        return 0;
    }
    apr_socket_timeout_set(u->link->backend->sock, left);
    return 1;
}

/* Writing and reading */

int nssmtpd_upstream_pass(nssmtpd_upstream_t *u, apr_bucket_brigade *bb)
{
    conn_rec *c = u->link->backend->connection;
    apr_status_t rv;

    if (!set_timeout(u)) {
        return 0;
    }
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(bb->bucket_alloc));
    rv = ap_pass_brigade(c->output_filters, bb);
    apr_brigade_cleanup(bb);
    return rv == APR_SUCCESS && !c->aborted;
}

int nssmtpd_upstream_flush(nssmtpd_upstream_t *u, smtp_step_e step)
{
    u->link->in_step = 0;
    if (!APR_BRIGADE_EMPTY(u->link->out) && !nssmtpd_upstream_pass(u, u->link->out)) {
        return lost(u, step, APR_SUCCESS);
    }
    return 1;
}

static apr_status_t fill(nssmtpd_upstream_t *u)
{
    apr_status_t rv;

    do {
        if (!set_timeout(u)) {
            return APR_TIMEUP;
        }
        rv = ap_get_brigade(u->link->backend->connection->input_filters, u->link->in,
                            AP_MODE_READBYTES, APR_BLOCK_READ, 8192);
    } while (APR_STATUS_IS_EAGAIN(rv) || APR_STATUS_IS_EINTR(rv));
    if (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(u->link->in)) {
        return APR_EOF;
    }
    return rv;
}

/* Takes octets of the first bucket: SMTP_MORE has used it up. */
static smtp_parse_e take(nssmtpd_upstream_t *u, smtp_reply_t *reply, apr_status_t *rv)
{
    apr_bucket *b = APR_BRIGADE_FIRST(u->link->in);
    const char *data, *at;
    apr_size_t n;
    smtp_parse_e rc;

    *rv = APR_BUCKET_IS_EOS(b) ? APR_EOF : apr_bucket_read(b, &data, &n, APR_BLOCK_READ);
    if (*rv != APR_SUCCESS) {
        return SMTP_BAD;
    }
    at = data;
    rc = smtp_client_read(&u->link->client, u->t->r->pool, &at, data + n, reply);
    if (at < data + n) {
        apr_bucket_split(b, at - data);
    }
    apr_bucket_delete(b);
    return rc;
}

int nssmtpd_upstream_read(nssmtpd_upstream_t *u, smtp_step_e step, smtp_verdict_e *verdict,
                          const smtp_reply_t **reply)
{
    smtp_reply_t *answer = apr_palloc(u->t->r->pool, sizeof(*answer));
    smtp_parse_e rc = SMTP_MORE;
    apr_status_t rv = APR_SUCCESS;

    while (rc == SMTP_MORE) {
        if (APR_BRIGADE_EMPTY(u->link->in) && (rv = fill(u)) != APR_SUCCESS) {
            return lost(u, step, rv);
        }
        rc = take(u, answer, &rv);
    }
    if (rc == SMTP_BAD) {
        return rv == APR_SUCCESS ? garbled(u, step) : lost(u, step, rv);
    }
    *verdict = smtp_client_judge(step, answer, u->t->r->pool, reply);
    if (step == SMTP_STEP_EHLO && *verdict == SMTP_VERDICT_TAKEN) {
        smtp_client_take_capabilities(&u->link->client, answer);
    }
    u->answer = answer;
    return 1;
}

void nssmtpd_upstream_fault(nssmtpd_upstream_t *u, smtp_step_e step)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r, "NS0042: %s: relay %s: %s was answered by %s",
                  u->t->id, u->peer, smtp_step(step)->name,
                  smtp_reply_line(u->t->r->pool, u->answer));
    u->link->is_broken = 1;
}

int nssmtpd_upstream_is_quiet(nssmtpd_upstream_t *u)
{
    struct pollfd pfd = { -1, POLLIN, 0 };

    apr_os_sock_get(&pfd.fd, u->link->backend->sock);
    return APR_BRIGADE_EMPTY(u->link->in) && poll(&pfd, 1, 0) == 0;
}

/* Opening */

/* Runs before a connection is closed for whatever reason, when the relay can hear it. */
static apr_status_t say_quit(void *baton)
{
    static const char quit[] = "QUIT\r\n";
    nssmtpd_link_t *link = baton;
    apr_os_sock_t fd;

    if (link->in_step && link->backend->sock
        && apr_os_sock_get(&fd, link->backend->sock) == APR_SUCCESS) {
        (void)send(fd, quit, sizeof(quit) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return APR_SUCCESS;
}

static nssmtpd_link_t *make_link(proxy_conn_rec *backend)
{
    nssmtpd_link_t *link = apr_pcalloc(backend->scpool, sizeof(*link));
    apr_bucket_alloc_t *ba = backend->connection->bucket_alloc;

    link->backend = backend;
    link->in = apr_brigade_create(backend->scpool, ba);
    link->out = apr_brigade_create(backend->scpool, ba);
    apr_pool_userdata_setn(link, LINK_KEY, NULL, backend->scpool);
    apr_pool_pre_cleanup_register(backend->scpool, link, say_quit);
    return link;
}

/* One step of the opening; 0: failed. */
static int open_step(nssmtpd_upstream_t *u, smtp_step_e step, smtp_verdict_e *verdict)
{
    const smtp_reply_t *reply;

    if (smtp_step(step)->command) {
        smtp_client_put(u->link->out, step, nssmtpd_hostname(u->t->r->server));
    }
    if (!nssmtpd_upstream_flush(u, step) || !nssmtpd_upstream_read(u, step, verdict, &reply)) {
        return 0;
    }
    u->failure = reply;
    return 1;
}

/* EHLO, or HELO where that is not known. */
static int introduce(nssmtpd_upstream_t *u, smtp_verdict_e *verdict)
{
    if (!open_step(u, SMTP_STEP_EHLO, verdict)) {
        return 0;
    }
    if (u->answer->code >= 500 && !open_step(u, SMTP_STEP_HELO, verdict)) {
        return 0;
    }
    return 1;
}

static int greet(nssmtpd_upstream_t *u)
{
    smtp_verdict_e verdict;

    if (!open_step(u, SMTP_STEP_GREETING, &verdict)
        || (verdict == SMTP_VERDICT_TAKEN && !introduce(u, &verdict))) {
        return 0;
    }
    u->link->in_step = 1;
    if (verdict != SMTP_VERDICT_TAKEN) {
        nssmtpd_upstream_fault(u, SMTP_STEP_GREETING);
        nssmtpd_upstream_release(u, 1);
        return 0;
    }
    return 1;
}

/* The conn_rec and, on a new connection, the greeting. */
static int connect_backend(nssmtpd_upstream_t *u, proxy_conn_rec *backend)
{
    server_rec *s = u->t->r->server;
    void *link = NULL;

    if (nssmtpd_proxy.connect_backend(FUNCTION, backend, u->worker, s) != OK
        || nssmtpd_proxy.connection_create(FUNCTION, backend, NULL, s) != OK) {
        backend->close = 1;
        nssmtpd_proxy.release_connection(FUNCTION, backend, s);
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r, "NS0043: %s: relay %s cannot be reached",
                      u->t->id, u->peer);
        u->failure = smtp_reply(SMTP_REPLY_RELAY_UNREACHABLE);
        return 0;
    }
    apr_pool_userdata_get(&link, LINK_KEY, backend->scpool);
    u->link = link;
    if (u->link) {
        return 1;
    }
    u->link = make_link(backend);
    return greet(u);
}

static int use_worker(nssmtpd_upstream_t *u, char *url, int fresh)
{
    request_rec *r = u->t->r;
    proxy_conn_rec *backend = NULL;
    apr_uri_t uri;
    char port[8];

    u->deadline = apr_time_now() + nssmtpd_timeout(r->server, NSSMTPD_TIMEOUT_CONNECT);
    u->peer = apr_psprintf(r->pool, "%s:%d", u->worker->s->hostname_ex, u->worker->s->port);
    nssmtpd_set_variable(u->t, "SMTP_RELAY", u->peer);
    if (nssmtpd_proxy.acquire_connection(FUNCTION, &backend, u->worker, r->server) != OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "NS0044: %s: relay %s: no connection came free, or it is disabled",
                      u->t->id, u->peer);
        u->failure = smtp_reply(PROXY_WORKER_IS_USABLE(u->worker) ? SMTP_REPLY_BUSY
                                                                  : SMTP_REPLY_RELAY_UNREACHABLE);
        return 0;
    }
    if (fresh) {
        backend->close = 1;
    }
    if (nssmtpd_proxy.determine_connection(r->pool, r, nssmtpd_proxy_conf(r->server), u->worker,
                                           backend, &uri, &url, NULL, 0, port, sizeof(port))
        != OK) {
        nssmtpd_proxy.release_connection(FUNCTION, backend, r->server);
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "NS0045: %s: relay %s has no address",
                      u->t->id, u->peer);
        u->failure = smtp_reply(SMTP_REPLY_RELAY_UNREACHABLE);
        return 0;
    }
    /* A relay's idle 421 lies unread: then the connection is closed and a new one made. */
    nssmtpd_proxy.check_connection(FUNCTION, backend, r->server, 0, PROXY_CHECK_CONN_EMPTY);
    return connect_backend(u, backend);
}

static int open_balanced(nssmtpd_upstream_t *u, int fresh)
{
    request_rec *r = u->t->r;
    proxy_balancer *balancer = NULL;
    int attempt, members = 1;

    for (attempt = 0; attempt < members; attempt++) {
        char *url = apr_pstrdup(r->pool, u->relay->name);

        balancer = NULL;
        u->worker = NULL;
        if (nssmtpd_proxy.pre_request(&u->worker, &balancer, r, nssmtpd_proxy_conf(r->server),
                                      &url) != OK) {
            break;
        }
        if (use_worker(u, url, fresh)) {
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

int nssmtpd_upstream_open(nssmtpd_upstream_t *u, int fresh)
{
    request_rec *r = u->t->r;

    u->failure = NULL;
    if (u->relay->is_balancer) {
        return open_balanced(u, fresh);
    }
    u->worker = nssmtpd_proxy.get_worker(r->pool, NULL, nssmtpd_proxy_conf(r->server),
                                         u->relay->name);
    if (!u->worker) {
        u->failure = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
        return 0;
    }
    return use_worker(u, apr_pstrdup(r->pool, u->relay->name), fresh);
}

void nssmtpd_upstream_release(nssmtpd_upstream_t *u, int close)
{
    nssmtpd_link_t *link = u->link;

    if (!link) {
        return;
    }
    u->link = NULL;
    if (close || link->is_broken || !link->in_step || !APR_BRIGADE_EMPTY(link->in)) {
        link->backend->close = 1;
    }
    link->used = 1;
    nssmtpd_proxy.release_connection(FUNCTION, link->backend, u->t->r->server);
}
