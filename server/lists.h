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
    const char *word;       /* as written */
    const char *name;       /* lower case */
    const char *url;        /* its route as written; "": the default relay's */
    nssmtpd_route_t *route; /* NULL: the default relay's */
} nssmtpd_domain_t;

typedef struct nssmtpd_domains_t nssmtpd_domains_t;

/* One word of SmtpdTrustedClients. */
typedef struct nssmtpd_client_t {
    const char *word;            /* as written */
    const char *text;            /* the same, and what a host name stood for: see parse_client */
    apr_array_header_t *subnets; /* of apr_ipsubnet_t * */
    int is_name;
} nssmtpd_client_t;

/* Parses "domain", "domain:host[:port]" or "domain=URL". Returns what is wrong, or NULL. */
const char *nssmtpd_lists_parse_domain(apr_pool_t *p, nssmtpd_domain_t *domain, const char *word);

/* An index over an array of nssmtpd_domain_t; of equal names the last one counts. */
nssmtpd_domains_t *nssmtpd_lists_index(apr_pool_t *p, const apr_array_header_t *domains);

/* The entry of the domain (lower case) or of the nearest one above it, or NULL. */
const nssmtpd_domain_t *nssmtpd_lists_find(const nssmtpd_domains_t *domains, const char *domain);

/* Parses "ip", "ip/bits", "ip/mask" or a host name, whose addresses are looked up now. A
 * name's text, "name TAB address,address", may be parsed instead: it looks nothing up.
 * Returns what is wrong, or NULL. */
const char *nssmtpd_lists_parse_client(apr_pool_t *p, nssmtpd_client_t *client, const char *word);

/* 1 if the address is one of those of an array of nssmtpd_client_t. */
int nssmtpd_lists_has_client(const apr_array_header_t *clients, apr_sockaddr_t *addr);

/* 1 if ip is an address written in full, without a mask. */
int nssmtpd_lists_is_address(const char *ip);

/* What an entry is known by: two words of one list mean the same exactly if these are
 * equal. Of a domain its name, of a network its octets, of a host its name. */
const char *nssmtpd_lists_key(apr_pool_t *p, nssmtpd_list_e list, const char *word);

#endif
