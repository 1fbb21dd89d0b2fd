/* A relay connection in use: reading and writing with a total deadline per step, what a
 * failure means, giving it back. RFC 5321 4.5.3.2 (deadlines). The relay may do anything:
 * drip, flood, hang, close. opening.c opens it.
 */
#include "relay/upstream.h"

#include <apr_portable.h>
#include <errno.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <poll.h>
#include <sys/socket.h>
#include <util_filter.h>

#include "relay/register.h"

APLOG_USE_MODULE(nssmtpd);

/* RFC 5321 4.5.3.2.6 gives a client ten minutes from its dot to our reply; of ours, the
 * last part is kept for the relay's answer: a dot that nobody waits for doubles the mail. */
#define DOT_TO_DOT apr_time_from_sec(540)
#define DOT_RESERVE apr_time_from_sec(30)

/* Failures */

int nssmtpd_upstream_fail(nssmtpd_upstream_t *u, smtp_reply_e reply)
{
    u->failure = smtp_reply(reply);
    nssmtpd_upstream_release(u, 1);
    return 0;
}

static int lost(nssmtpd_upstream_t *u, smtp_step_e step, apr_status_t rv)
{
    int is_usual = (u->link->used && step < SMTP_STEP_DATA) || u->is_early;

    if (is_usual && !APR_STATUS_IS_TIMEUP(rv)) {
        u->is_stale = 1; /* as relays close idle connections: no news for the log */
        return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_LOST);
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, u->t->r,
                  "NS0040: %s: relay %s: connection lost or timed out at %s", u->t->id, u->peer,
                  smtp_step(step)->name);
    return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_LOST);
}

static int garbled(nssmtpd_upstream_t *u, smtp_step_e step)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                  "NS0041: %s: relay %s: answer to %s is not SMTP", u->t->id, u->peer,
                  smtp_step(step)->name);
    return nssmtpd_upstream_fail(u, SMTP_REPLY_RELAY_FAULT);
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
    u->t->step = smtp_step(step)->name;
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
    u->link->deadline = u->deadline;
    apr_socket_timeout_set(u->link->backend->sock, left);
    return 1;
}

/* Below mod_ssl's filter, which reads until a record or the handshake is whole: a relay could
 * send an octet before each poll's timeout. */
static apr_status_t filter_deadline(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode,
                                    apr_read_type_e block, apr_off_t n)
{
    const nssmtpd_link_t *link = f->ctx;
    apr_interval_time_t left = link->deadline - apr_time_now();

    if (block == APR_BLOCK_READ) {
        if (left <= 0) {
            return APR_TIMEUP;
        }
        apr_socket_timeout_set(link->backend->sock, left);
    }
    return ap_get_brigade(f->next, bb, mode, block, n);
}

static const char deadline_filter[] = "NSSMTPD_DEADLINE";

void nssmtpd_upstream_register(void)
{
    ap_register_input_filter(deadline_filter, filter_deadline, NULL, AP_FTYPE_NETWORK - 1);
}

void nssmtpd_upstream_bound(nssmtpd_upstream_t *u)
{
    u->link->deadline = u->deadline;
    ap_add_input_filter(deadline_filter, u->link, NULL, u->link->backend->connection);
}

/* Writing and reading */

/* Before STARTTLS there is no conn_rec: its filters would read on into the handshake. */
static int pass_raw(nssmtpd_upstream_t *u, apr_bucket_brigade *bb)
{
    apr_status_t rv;
    apr_size_t n;
    char *data;

    rv = apr_brigade_pflatten(bb, &data, &n, u->t->r->pool);
    apr_brigade_cleanup(bb);
    while (rv == APR_SUCCESS && n && set_timeout(u)) {
        apr_size_t sent = n;

        rv = apr_socket_send(u->link->backend->sock, data, &sent);
        data += sent;
        n -= sent;
    }
    return rv == APR_SUCCESS && n == 0;
}

static void drop_sent(apr_bucket_brigade *bb, apr_size_t sent)
{
    while (sent) {
        apr_bucket *b = APR_BRIGADE_FIRST(bb);

        if (b->length > sent) {
            apr_bucket_split(b, sent);
        }
        sent -= b->length;
        apr_bucket_delete(b);
    }
}

/* What is in memory and goes out in one piece, as nearly all does, needs no filter to put it
 * aside. 0: there is something left for the filters. */
static int send_at_once(nssmtpd_upstream_t *u, apr_bucket_brigade *bb)
{
    enum { PIECES = 8 };
    struct iovec pieces[PIECES];
    struct msghdr message = { .msg_iov = pieces };
    apr_os_sock_t fd;
    apr_bucket *b;
    ssize_t sent;

    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = APR_BUCKET_NEXT(b)) {
        struct iovec *piece = &pieces[message.msg_iovlen++];
        const char *data;

        if (message.msg_iovlen > PIECES || b->length == (apr_size_t)-1 || APR_BUCKET_IS_FILE(b)
            || apr_bucket_read(b, &data, &piece->iov_len, APR_BLOCK_READ) != APR_SUCCESS) {
            return 0;
        }
        piece->iov_base = (char *)data;
    }
    apr_os_sock_get(&fd, u->link->backend->sock);
    sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    drop_sent(bb, sent > 0 ? (apr_size_t)sent : 0);
    return APR_BRIGADE_EMPTY(bb);
}

static int is_plain(const nssmtpd_upstream_t *u)
{
    return !u->link->backend->is_ssl
           && u->link->backend->connection->output_filters->frec == ap_core_output_filter_handle;
}

int nssmtpd_upstream_pass(nssmtpd_upstream_t *u, apr_bucket_brigade *bb)
{
    conn_rec *c = u->link->backend->connection;
    apr_status_t rv;

    if (!set_timeout(u)) {
        return 0;
    }
    if (!c) {
        return pass_raw(u, bb);
    }
    if (is_plain(u) && send_at_once(u, bb)) {
        return 1;
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

static int milliseconds_left(const nssmtpd_upstream_t *u)
{
    apr_interval_time_t left = u->deadline - apr_time_now();

    return left <= 0 ? 0 : (int)apr_time_as_msec(left) + 1;
}

/* Reads what is there, but no further than the end of a line: what follows may be the TLS
 * handshake, which is mod_ssl's to read. */
static apr_status_t fill_raw(nssmtpd_upstream_t *u)
{
    apr_socket_t *sock = u->link->backend->sock;
    apr_os_sock_t fd;
    char data[1024], *lf;
    apr_size_t n;
    ssize_t seen;
    apr_status_t rv;

    apr_os_sock_get(&fd, sock);
    if (poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, milliseconds_left(u)) == 0) {
        return APR_TIMEUP;
    }
    seen = recv(fd, data, sizeof(data), MSG_PEEK | MSG_DONTWAIT);
    if (seen <= 0) {
        return seen == 0 ? APR_EOF : APR_FROM_OS_ERROR(errno);
    }
    lf = memchr(data, '\n', seen);
    n = lf ? (apr_size_t)(lf + 1 - data) : (apr_size_t)seen;
    if ((rv = apr_socket_recv(sock, data, &n)) != APR_SUCCESS) {
        return rv;
    }
    return apr_brigade_write(u->link->in, NULL, NULL, data, n);
}

/* The core's filter would look for more each time, and holds nothing, never being asked. Nor
 * is the reply there yet when we come to read it, so what waits comes first. */
static apr_status_t fill_plain(nssmtpd_upstream_t *u)
{
    apr_os_sock_t fd;
    char data[2048];
    ssize_t n;

    apr_os_sock_get(&fd, u->link->backend->sock);
    if (poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, milliseconds_left(u)) == 0) {
        return APR_TIMEUP;
    }
    n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
    if (n <= 0) {
        return n == 0 ? APR_EOF : APR_FROM_OS_ERROR(errno);
    }
    return apr_brigade_write(u->link->in, NULL, NULL, data, n);
}

static apr_status_t fill(nssmtpd_upstream_t *u)
{
    apr_status_t rv;

    do {
        if (!set_timeout(u)) {
            return APR_TIMEUP;
        }
        if (!u->link->backend->connection) {
            rv = fill_raw(u);
            continue;
        }
        if (!u->link->backend->is_ssl) {
            rv = fill_plain(u);
            continue;
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

/* A relay could give a password back in its text. */
static const char *loggable(nssmtpd_upstream_t *u, smtp_step_e step)
{
    return smtp_step(step)->secret ? apr_itoa(u->t->r->pool, u->answer->code)
                                   : smtp_reply_line(u->t->r->pool, u->answer);
}

void nssmtpd_upstream_fault(nssmtpd_upstream_t *u, smtp_step_e step)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r, "NS0042: %s: relay %s: %s was answered by %s",
                  u->t->id, u->peer, smtp_step(step)->name, loggable(u, step));
    u->link->is_broken = 1;
}

int nssmtpd_upstream_has_words(nssmtpd_upstream_t *u)
{
    apr_os_sock_t fd;
    char octet;

    apr_os_sock_get(&fd, u->link->backend->sock);
    return !APR_BRIGADE_EMPTY(u->link->in) || recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

int nssmtpd_upstream_is_quiet(nssmtpd_upstream_t *u)
{
    proxy_conn_rec *backend = u->link->backend;
    struct pollfd pfd = { -1, POLLIN, 0 };

    if (!APR_BRIGADE_EMPTY(u->link->in)) {
        return 0;
    }
    if (!backend->is_ssl) {
        apr_os_sock_get(&pfd.fd, backend->sock);
        return poll(&pfd, 1, 0) == 0;
    }
    /* TLS has words of its own, such as session tickets, and its filters have taken from the
     * socket what nobody has read yet: it would not show there. */
    return APR_STATUS_IS_EAGAIN(ap_get_brigade(backend->connection->input_filters, u->link->in,
                                               AP_MODE_READBYTES, APR_NONBLOCK_READ, 8192))
           && APR_BRIGADE_EMPTY(u->link->in);
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
    nssmtpd_proxy.release_connection(NSSMTPD_PROXY_FUNCTION, link->backend, u->t->r->server);
}
