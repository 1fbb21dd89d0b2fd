/* Sockets to scanners' daemons, without waiting: connecting, sending a question, collecting the
 * answer. It reads before it writes, since a daemon that has seen enough answers early and
 * closes. Called by the scanners of this folder, in the loop of scan.c.
 */
#include "filters/peer.h"

#include <apr_strings.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct socket_t {
    struct sockaddr_storage address;
    socklen_t length;
} socket_t;

/* Addresses */

static const char *parse_path(apr_pool_t *p, const char *path, nssmtpd_peer_address_t *a)
{
    apr_array_header_t *sockets = apr_array_make(p, 1, sizeof(socket_t));
    socket_t *s = apr_array_push(sockets);
    struct sockaddr_un *un = (struct sockaddr_un *)&s->address;

    if (*path != '/' || strlen(path) >= sizeof(un->sun_path)) {
        return apr_psprintf(p, "'%s' is no path of a unix socket: it must begin with '/' and have "
                            "fewer than %d octets", path, (int)sizeof(un->sun_path));
    }
    memset(&s->address, 0, sizeof(s->address));
    un->sun_family = AF_UNIX;
    apr_cpystrn(un->sun_path, path, sizeof(un->sun_path));
    s->length = sizeof(*un);
    a->host = "localhost";
    a->sockets = sockets;
    return NULL;
}

static apr_array_header_t *copy_sockets(apr_pool_t *p, const struct addrinfo *info)
{
    apr_array_header_t *sockets = apr_array_make(p, 2, sizeof(socket_t));

    for (; info; info = info->ai_next) {
        socket_t *s = apr_array_push(sockets);

        memcpy(&s->address, info->ai_addr, info->ai_addrlen);
        s->length = info->ai_addrlen;
    }
    return sockets;
}

static const char *look_up(apr_pool_t *p, const char *host, apr_port_t port,
                           nssmtpd_peer_address_t *a)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *info;
    int rc = getaddrinfo(host, apr_itoa(p, port), &hints, &info);

    if (rc) {
        return apr_psprintf(p, "'%s' cannot be looked up: %s", host, gai_strerror(rc));
    }
    a->host = host;
    a->sockets = copy_sockets(p, info);
    freeaddrinfo(info);
    return NULL;
}

const char *nssmtpd_peer_parse(apr_pool_t *p, const char *text, apr_port_t port,
                               const nssmtpd_peer_address_t **address)
{
    nssmtpd_peer_address_t *a = apr_pcalloc(p, sizeof(*a));
    char *host, *scope;
    apr_port_t given = 0;

    *address = a;
    a->text = text;
    if (*text == '/' || strncmp(text, "unix:", 5) == 0) {
        return parse_path(p, *text == '/' ? text : text + 5, a);
    }
    if (apr_parse_addr_port(&host, &scope, &given, text, p) != APR_SUCCESS || !host || scope) {
        return apr_psprintf(p, "'%s' is no address: write host:port, [ipv6]:port or unix:/path",
                            text);
    }
    return look_up(p, host, given ? given : port, a);
}

/* Connecting */

void nssmtpd_peer_fail(nssmtpd_scan_t *scan, const nssmtpd_peer_address_t *address,
                       const char *text)
{
    scan->verdict = NSSMTPD_VERDICT_ERROR;
    scan->why = apr_pstrcat(scan->p, address->text, ": ", text, NULL);
}

static void fail(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan, int error)
{
    char text[128];

    nssmtpd_peer_fail(scan, peer->address, apr_strerror(error, text, sizeof(text)));
}

void nssmtpd_peer_end(nssmtpd_scan_t *scan)
{
    if (scan->fd >= 0) {
        close(scan->fd);
        scan->fd = -1;
    }
}

/* Tries the sockets of the address that are left. 0: the verdict is set. */
static int begin(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan, int error)
{
    while (peer->next < peer->address->sockets->nelts) {
        const socket_t *s = &APR_ARRAY_IDX(peer->address->sockets, peer->next++, socket_t);

        nssmtpd_peer_end(scan);
        scan->fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        scan->events = POLLOUT;
        if (scan->fd < 0) {
            error = errno;
            continue;
        }
        if (connect(scan->fd, (const struct sockaddr *)&s->address, s->length) == 0
            || errno == EINPROGRESS) {
            return 1;
        }
        error = errno; /* EAGAIN: a unix socket whose queue of connections is full */
    }
    fail(peer, scan, error);
    return 0;
}

void nssmtpd_peer_start(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan,
                        const nssmtpd_peer_address_t *address, const struct iovec *question,
                        int count)
{
    memset(peer, 0, sizeof(*peer));
    peer->address = address;
    memcpy(peer->question, question, count * sizeof(*question));
    peer->count = count;
    peer->room = 4096;
    peer->answer = apr_pcalloc(scan->p, peer->room);
    scan->fd = -1;
    begin(peer, scan, EADDRNOTAVAIL);
}

static int is_connected(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan)
{
    int error = 0;
    socklen_t n = sizeof(error);

    if (!peer->is_connected) {
        if (getsockopt(scan->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0) {
            error = errno;
        }
        if (error) {
            begin(peer, scan, error);
            return 0;
        }
        peer->is_connected = 1;
    }
    return 1;
}

/* Question and answer */

/* Makes room for more. 0: the verdict is set. */
static int make_room(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan)
{
    char *answer;

    if (peer->length + 1 < peer->room) {
        return 1;
    }
    if (peer->room >= NSSMTPD_PEER_ANSWER_MAX) {
        nssmtpd_peer_fail(scan, peer->address, "the answer does not end");
        return 0;
    }
    peer->room *= 2;
    answer = apr_palloc(scan->p, peer->room);
    memcpy(answer, peer->answer, peer->length);
    peer->answer = answer;
    return 1;
}

/* 1: something was read, or the end; 0: nothing is there, or the verdict is set. */
static int hear(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan)
{
    apr_size_t before = peer->length;

    while (make_room(peer, scan)) {
        ssize_t n = read(scan->fd, peer->answer + peer->length, peer->room - peer->length - 1);

        if (n > 0) {
            peer->length += n;
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN && !(errno == ECONNRESET && peer->length)) {
            fail(peer, scan, errno);
            return 0;
        }
        peer->is_over = n == 0 || errno != EAGAIN;
        peer->answer[peer->length] = '\0';
        return peer->is_over || peer->length > before;
    }
    return 0;
}

static void drop_sent(nssmtpd_peer_t *peer, apr_size_t n)
{
    while (peer->first < peer->count && n >= peer->question[peer->first].iov_len) {
        n -= peer->question[peer->first++].iov_len;
    }
    if (n) {
        struct iovec *piece = &peer->question[peer->first];

        piece->iov_base = (char *)piece->iov_base + n;
        piece->iov_len -= n;
    }
}

/* A daemon that has closed may have answered before: what it said, or the fault, is read next. */
static void say(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan)
{
    while (peer->first < peer->count) {
        struct msghdr message = { .msg_iov = peer->question + peer->first,
                                  .msg_iovlen = peer->count - peer->first };
        ssize_t n = sendmsg(scan->fd, &message, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            peer->first = peer->count;
            break;
        }
        if (n >= 0) {
            drop_sent(peer, n);
            peer->is_asked = peer->first == peer->count;
        }
    }
    scan->events = POLLIN | (peer->first < peer->count ? POLLOUT : 0);
}

int nssmtpd_peer_step(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan)
{
    int has_grown;

    if (!is_connected(peer, scan)) {
        return 0;
    }
    has_grown = hear(peer, scan);
    if (scan->verdict == NSSMTPD_VERDICT_NONE && !peer->is_over) {
        say(peer, scan);
    }
    return has_grown;
}

void nssmtpd_peer_conclude(const nssmtpd_peer_t *peer, nssmtpd_scan_t *scan)
{
    int goes_on = scan->verdict == NSSMTPD_VERDICT_CLEAN || scan->verdict == NSSMTPD_VERDICT_TAG;

    if (goes_on && !peer->is_asked) {
        nssmtpd_peer_fail(scan, peer->address, "answered before it had the whole message");
    }
}

/* Asking and waiting */

/* 0: in vain, *why. */
static int wait_for(const nssmtpd_scan_t *scan, apr_time_t deadline)
{
    struct pollfd fd = { .fd = scan->fd, .events = scan->events };
    apr_interval_time_t left = deadline - apr_time_now();

    return left > 0 && (poll(&fd, 1, (int)apr_time_as_msec(left) + 1) >= 0 || errno == EINTR);
}

const char *nssmtpd_peer_ask(apr_pool_t *p, const nssmtpd_peer_address_t *address,
                             const struct iovec *question, int count,
                             apr_interval_time_t timeout, smtp_span_t *answer)
{
    apr_time_t deadline = apr_time_now() + timeout;
    nssmtpd_scan_t scan = { .p = p, .fd = -1 };
    nssmtpd_peer_t peer;

    nssmtpd_peer_start(&peer, &scan, address, question, count);
    while (scan.verdict == NSSMTPD_VERDICT_NONE && !peer.is_over) {
        if (!wait_for(&scan, deadline)) {
            nssmtpd_peer_fail(&scan, address, "no answer in time");
            break;
        }
        nssmtpd_peer_step(&peer, &scan);
    }
    nssmtpd_peer_end(&scan);
    *answer = (smtp_span_t){ peer.answer, peer.length };
    return scan.why;
}
