/* What DNS says of domains and hosts, for decisions about mail: does a domain take mail, and is an
 * address what its name says. By c-ares, so that SmtpdNameServer and deadlines hold. No cache (name
 * servers are one) and no /etc/hosts. Called in threads that already work for a mail: it blocks.
 */
#ifndef NSSMTPD_NAMES_H
#define NSSMTPD_NAMES_H

#include <apr_network_io.h>
#include <apr_tables.h>
#include <apr_time.h>

typedef enum nssmtpd_names_e {
    NSSMTPD_NAMES_NO,
    NSSMTPD_NAMES_YES,
    NSSMTPD_NAMES_UNKNOWN /* DNS failed: a later try may know more, so never a 5xx */
} nssmtpd_names_e;

/* Appends a word of SmtpdNameServer, "ip", "ip:port" or "[ipv6]:port", to an array of const char *
 * as the functions below take it. Returns what is wrong with the word, or NULL. */
const char *nssmtpd_names_parse_server(apr_pool_t *p, apr_array_header_t *servers,
                                       const char *word);

/* Can mail be sent to the domain: has it an MX that is not the null MX (RFC 7505), or no MX but an
 * address (RFC 5321 5.1)? Address literals are answered yes and impossible names no, without DNS;
 * names are ASCII, IDN as A-labels. Asks the servers; NULL: those of resolv.conf, read for each
 * call. Takes timeout in all, no longer. *why is the reason, whatever the answer: a clause, such as
 * "example.com has no MX and no address", printable ASCII. Memory is p's. May run in many threads
 * at once, each with a pool of its own. */
nssmtpd_names_e nssmtpd_names_domain(apr_pool_t *p, const apr_array_header_t *servers,
                                     apr_interval_time_t timeout, const char *domain,
                                     const char **why);

/* Which name does the address have: one whose own addresses have this one among them, so that who
 * rules only the reverse zone cannot claim it? YES: *name is it, a valid domain, no final dot; else
 * *name is NULL. The rest is as above. */
nssmtpd_names_e nssmtpd_names_host(apr_pool_t *p, const apr_array_header_t *servers,
                                   apr_interval_time_t timeout, const apr_sockaddr_t *address,
                                   const char **name, const char **why);

#endif
