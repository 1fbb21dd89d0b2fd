/* Questions to name servers by c-ares, one after the other and with one deadline for all of them.
 * Each call has a channel of its own: making one costs 30 microseconds, resolv.conf among them, and
 * so there is nothing to share between threads, each call has new source ports, and resolv.conf may
 * change. Sending, TCP, EDNS and checking of replies are c-ares'.
 */
#include "server/resolver.h"

#include <apr_strings.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <poll.h>
#include <string.h>

void nssmtpd_resolver_close(nssmtpd_lookup_t *l)
{
    if (l->channel) {
        ares_destroy(l->channel);
    }
}

/* NOCHECKRESP hands us a server's SERVFAIL and the like. Without it c-ares asks the next server by
 * itself, but calls it all "connection refused" in the end, and nobody knows what happened. */
int nssmtpd_resolver_open(nssmtpd_lookup_t *l, apr_pool_t *p, const apr_array_header_t *servers,
                          apr_interval_time_t timeout)
{
    struct ares_options options = { .flags = ARES_FLAG_EDNS | ARES_FLAG_NOCHECKRESP, .tries = 3 };

    memset(l, 0, sizeof(*l));
    l->p = p;
    l->deadline = apr_time_now() + timeout;
    options.timeout = apr_time_as_msec(timeout) / 5 + 1; /* so that a second server gets its turn */
    l->status = ares_init_options(&l->channel, &options,
                                  ARES_OPT_FLAGS | ARES_OPT_TRIES | ARES_OPT_TIMEOUTMS);
    if (l->status != ARES_SUCCESS) {
        l->channel = NULL;
        return 0;
    }
    if (servers && servers->nelts) {
        l->status = ares_set_servers_ports_csv(l->channel, apr_array_pstrcat(p, servers, ','));
    }
    return l->status == ARES_SUCCESS;
}

static void take_reply(void *baton, int status, int timeouts, unsigned char *reply, int length)
{
    nssmtpd_lookup_t *l = baton;

    (void)timeouts;
    l->status = status;
    l->reply = reply ? apr_pmemdup(l->p, reply, length) : NULL;
    l->length = length;
    l->is_done = 1;
}

/* How long c-ares wants to wait at most, in ms, rounded up. */
static int next_step(ares_channel channel, apr_interval_time_t left)
{
    struct timeval most = { apr_time_sec(left), apr_time_usec(left) }, buf;
    const struct timeval *step = ares_timeout(channel, &most, &buf); /* most or buf */

    return step->tv_sec * 1000 + step->tv_usec / 1000 + 1;
}

/* Waits for what c-ares waits for and lets it work. poll(): a child of httpd has descriptors that
 * an fd_set cannot hold. */
static void wait_once(nssmtpd_lookup_t *l, apr_interval_time_t left)
{
    ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
    struct pollfd polled[ARES_GETSOCK_MAXNUM];
    int wanted = ares_getsock(l->channel, sockets, ARES_GETSOCK_MAXNUM), n, i, ready;

    for (n = 0; n < ARES_GETSOCK_MAXNUM; n++) {
        short events = (ARES_GETSOCK_READABLE(wanted, n) ? POLLIN : 0)
                       | (ARES_GETSOCK_WRITABLE(wanted, n) ? POLLOUT : 0);

        if (!events) {
            break;
        }
        polled[n] = (struct pollfd){ .fd = sockets[n], .events = events };
    }
    ready = poll(polled, n, next_step(l->channel, left));
    for (i = 0; ready > 0 && i < n; i++) {
        if (polled[i].revents) {
            ares_process_fd(l->channel,
                            polled[i].revents & ~POLLOUT ? polled[i].fd : ARES_SOCKET_BAD,
                            polled[i].revents & POLLOUT ? polled[i].fd : ARES_SOCKET_BAD);
        }
    }
    ares_process_fd(l->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/* Leaves out the first name server, if there are others. */
static int drop_server(nssmtpd_lookup_t *l)
{
    struct ares_addr_port_node *servers = NULL;
    int dropped = ares_get_servers_ports(l->channel, &servers) == ARES_SUCCESS && servers
                  && servers->next
                  && ares_set_servers_ports(l->channel, servers->next) == ARES_SUCCESS;

    ares_free_data(servers);
    return dropped;
}

static int is_servers_fault(int status)
{
    return status == ARES_ESERVFAIL || status == ARES_EREFUSED || status == ARES_ENOTIMP
           || status == ARES_EFORMERR;
}

void nssmtpd_resolver_ask(nssmtpd_lookup_t *l, const char *name, int type)
{
    do {
        l->is_done = 0;
        ares_query(l->channel, name, ns_c_in, type, take_reply, l);
        while (!l->is_done) {
            apr_interval_time_t left = l->deadline - apr_time_now();

            if (left > 0) {
                wait_once(l, left);
            }
            else {
                ares_cancel(l->channel);
            }
        }
    } while (is_servers_fault(l->status) && drop_server(l));
}

int nssmtpd_resolver_is_nothing(int status)
{
    return status == ARES_ENOTFOUND || status == ARES_ENODATA;
}

const char *nssmtpd_resolver_failure(const nssmtpd_lookup_t *l)
{
    static const struct {
        int status;
        const char *text;
    } failures[] = {
        { ARES_ESERVFAIL, "the name server cannot find out (SERVFAIL)" },
        { ARES_EREFUSED, "the name server refuses to answer (REFUSED)" },
        { ARES_ENOTIMP, "the name server does not know such questions (NOTIMP)" },
        { ARES_EFORMERR, "the name server does not understand the question (FORMERR)" },
        { ARES_EBADRESP, "the name server's answer is malformed" },
        { ARES_ECONNREFUSED, "no name server can be reached" },
        { ARES_ETIMEOUT, "no name server answered in time" },
        { ARES_ECANCELLED, "no name server answered in time" },
        { 0, NULL }
    };
    int i;

    for (i = 0; failures[i].text && failures[i].status != l->status; i++) {
    }
    return failures[i].text ? failures[i].text : ares_strerror(l->status);
}

void nssmtpd_resolver_conclude(nssmtpd_lookup_t *l, int status, int found)
{
    l->status = status == ARES_SUCCESS && !found ? ARES_ENODATA : status;
}

struct hostent *nssmtpd_resolver_ask_addresses(nssmtpd_lookup_t *l, const char *name, int family)
{
    struct hostent *host = NULL;
    int rc;

    nssmtpd_resolver_ask(l, name, family == AF_INET ? ns_t_a : ns_t_aaaa);
    if (l->status != ARES_SUCCESS) {
        return NULL;
    }
    rc = family == AF_INET ? ares_parse_a_reply(l->reply, l->length, &host, NULL, NULL)
                           : ares_parse_aaaa_reply(l->reply, l->length, &host, NULL, NULL);
    nssmtpd_resolver_conclude(l, rc, host && host->h_addr_list && host->h_addr_list[0]);
    if (l->status != ARES_SUCCESS && host) {
        ares_free_hostent(host);
        host = NULL;
    }
    return host;
}
