/* The relays: a delivery URL made a worker or a balancer of mod_proxy.
 */
#ifndef NSSMTPD_ROUTE_H
#define NSSMTPD_ROUTE_H

#include "mod_nssmtpd.h"
#include "relay/proxy.h"

/* One relay of one server, of one route or more. After the fork each child counts for itself. */
typedef struct nssmtpd_relay_t {
    struct nssmtpd_relay_t *next; /* of the configuration */
    const server_rec *server;
    const char *name;   /* mod_proxy knows it by: smtp://host:port/ or balancer://name */
    const char *socket; /* "unix:/path|", or "" */
    proxy_worker *worker;      /* made at run time; NULL: mod_proxy's, by the name */
    int is_balancer;
    int is_implicit;           /* smtps: TLS from the first octet */
    nssmtpd_relay_tls_e tls;   /* never UNSET */
    const char *user;          /* NULL: no AUTH */
    const char *password;      /* reaches no log and no page */
    apr_uint32_t kept;  /* connections kept while clients think; atomic */
} nssmtpd_relay_t;

/* Makes the server ready to have relays, those of run time too. Returns what is missing, with
 * the remedy, or NULL. While httpd starts. */
const char *nssmtpd_route_prepare(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp);

/* nssmtpd_delivery_t.configure: smtp://host[:port], smtps://host[:port], balancer://name,
 * plain://user:password@host[:port], or a bare host[:port]. */
const char *nssmtpd_route_configure(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pool,
                                    apr_pool_t *ptemp);

#endif
