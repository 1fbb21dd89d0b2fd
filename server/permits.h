/* The lists of relay permission as they hold now: those of the configuration, or what
 * scripts made of them. Thread safe.
 */
#ifndef NSSMTPD_PERMITS_H
#define NSSMTPD_PERMITS_H

#include "server/config.h"

/* In the child, before its first session. p must outlive every thread of the child. */
apr_status_t nssmtpd_permits_init(apr_pool_t *p);

/* 1 if the domain (lower case) or one above it is listed. *route lives as long as the
 * child; NULL: the default relay's. */
int nssmtpd_permits_domain(const nssmtpd_config_t *conf, const char *domain,
                           const nssmtpd_route_t **route);

/* 1 if the client's address is listed. */
int nssmtpd_permits_client(const nssmtpd_config_t *conf, apr_sockaddr_t *addr);

/* As long as this is the same, so is what nssmtpd_permits_client() says. One atomic read. */
apr_uint32_t nssmtpd_permits_clients_version(const nssmtpd_config_t *conf);

/* The route of a domain's entry: the configuration's where it has one of that URL, else one
 * made now. Returns what is wrong, or NULL. */
const char *nssmtpd_permits_route(const nssmtpd_config_t *conf, const nssmtpd_domain_t *domain,
                                  nssmtpd_route_t **route);

#endif
