/* Who may send where: recipient domains taken from anybody (SmtpdRelayDomains) and
 * clients trusted with any recipient (SmtpdTrustedClients). Parsing and matching only;
 * what follows from a match is transaction.c's.
 */
#ifndef NSSMTPD_LISTS_H
#define NSSMTPD_LISTS_H

#include <apr_hash.h>
#include <apr_network_io.h>
#include <apr_tables.h>

#include "mod_nssmtpd.h"

/* One word of SmtpdRelayDomains. */
typedef struct nssmtpd_domain_t {
    const char *name;       /* lower case */
    nssmtpd_route_t *route; /* NULL: the default relay's */
} nssmtpd_domain_t;

typedef struct nssmtpd_domains_t nssmtpd_domains_t;

/* Parses "domain", "domain:host[:port]" or "domain=URL". Returns what is wrong, or NULL. */
const char *nssmtpd_lists_parse_domain(apr_pool_t *p, nssmtpd_domain_t *domain, const char *word);

/* An index over an array of nssmtpd_domain_t; of equal names the last one counts. */
nssmtpd_domains_t *nssmtpd_lists_index(apr_pool_t *p, const apr_array_header_t *domains);

/* The entry of the domain (lower case) or of the nearest one above it, or NULL. */
const nssmtpd_domain_t *nssmtpd_lists_find(const nssmtpd_domains_t *domains, const char *domain);

/* Appends the apr_ipsubnet_t * of "ip", "ip/bits", "ip/mask" or a host name, whose
 * addresses are looked up now. *is_name tells the latter. Returns what is wrong, or NULL. */
const char *nssmtpd_lists_parse_client(apr_pool_t *p, apr_array_header_t *subnets,
                                       const char *word, int *is_name);

/* 1 if the address is in one of the subnets. */
int nssmtpd_lists_has_client(const apr_array_header_t *subnets, apr_sockaddr_t *addr);

#endif
