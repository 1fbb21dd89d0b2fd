/* What follows from DNS for mail: verdicts on domains (RFC 5321 5.1, RFC 7505) and on the names of
 * addresses. How name servers are asked is resolver.c's. What they answer was written by strangers:
 * names are checked before they are used or shown.
 */
#include "server/names.h"

#include <apr_strings.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <string.h>

#include "server/resolver.h"
#include "smtp/address.h"

/* A name as text, without the final dot; its form on the wire has 255 octets (RFC 1035 2.3.4). */
#define NAME_LENGTH_MAX 253

/* Of the names of an address so many are tried: whoever rules a reverse zone may list thousands. */
#define REVERSE_NAMES_MAX 8

#define INVALID_NAME "has a name that is not valid"

static int is_address(int family, const char *ip)
{
    struct in6_addr address; /* the larger one */

    return inet_pton(family, ip, &address) == 1;
}

const char *nssmtpd_names_parse_server(apr_pool_t *p, apr_array_header_t *servers, const char *word)
{
    char *ip = apr_pstrdup(p, word), *scope = NULL;
    apr_port_t port = 0;
    int is_v6 = is_address(AF_INET6, word); /* bare: its end must not be taken for a port */

    if (!is_v6 && apr_parse_addr_port(&ip, &scope, &port, word, p) == APR_SUCCESS && ip && !scope) {
        is_v6 = is_address(AF_INET6, ip);
    }
    if (!is_v6 && !(ip && is_address(AF_INET, ip))) {
        return apr_psprintf(p, "\"%s\" is no address of a name server; write ip, ip:port or "
                            "[ipv6]:port", word);
    }
    APR_ARRAY_PUSH(servers, const char *) = apr_psprintf(p, is_v6 ? "[%s]:%d" : "%s:%d", ip,
                                                         port ? port : 53);
    return NULL;
}

static nssmtpd_names_e answer(const nssmtpd_lookup_t *l, nssmtpd_names_e verdict,
                              const char **why, const char *name, const char *what)
{
    *why = apr_pstrcat(l->p, name, " ", what, NULL);
    return verdict;
}

/* The last question had no answer. */
static nssmtpd_names_e cannot_say(const nssmtpd_lookup_t *l, const char **why,
                                  const char *what, const char *name)
{
    *why = apr_psprintf(l->p, "%s of %s: %s", what, name, nssmtpd_resolver_failure(l));
    return NSSMTPD_NAMES_UNKNOWN;
}

/* RFC 5321 5.1: without an MX the domain's addresses are its mail servers. */
static nssmtpd_names_e judge_addresses(nssmtpd_lookup_t *l, const char *domain, const char **why)
{
    static const int families[] = { AF_INET, AF_INET6 };
    nssmtpd_names_e verdict = answer(l, NSSMTPD_NAMES_NO, why, domain,
                                     "has no MX and no address");
    int i;

    for (i = 0; i < 2; i++) {
        struct hostent *host = nssmtpd_resolver_ask_addresses(l, domain, families[i]);

        if (host) {
            ares_free_hostent(host);
            return answer(l, NSSMTPD_NAMES_YES, why, domain, "has no MX, but an address");
        }
        if (!nssmtpd_resolver_is_nothing(l->status)) { /* the other family may still say yes */
            verdict = cannot_say(l, why, "address", domain);
        }
    }
    return verdict;
}

/* 1 if one of the MX records is not the null MX; 0: none is, or l->status says why. */
static int ask_mx(nssmtpd_lookup_t *l, const char *domain)
{
    struct ares_mx_reply *records = NULL, *mx;
    int is_real = 0;

    nssmtpd_resolver_ask(l, domain, ns_t_mx);
    if (l->status == ARES_SUCCESS) {
        int rc = ares_parse_mx_reply(l->reply, l->length, &records);

        nssmtpd_resolver_conclude(l, rc, records != NULL);
    }
    for (mx = records; mx; mx = mx->next) {
        is_real |= *mx->host != '\0'; /* "." is an empty name here, RFC 7505 3 */
    }
    ares_free_data(records);
    return is_real;
}

static nssmtpd_names_e judge_domain(nssmtpd_lookup_t *l, const char *domain, const char **why)
{
    int is_real = ask_mx(l, domain);

    switch (l->status) {
    case ARES_SUCCESS:
        return is_real ? answer(l, NSSMTPD_NAMES_YES, why, domain, "has an MX")
                       : answer(l, NSSMTPD_NAMES_NO, why, domain, "takes no mail (null MX)");
    case ARES_ENOTFOUND:
        return answer(l, NSSMTPD_NAMES_NO, why, domain, "does not exist");
    case ARES_ENODATA:
        return judge_addresses(l, domain, why);
    default:
        return cannot_say(l, why, "MX", domain);
    }
}

/* The name without its final dot; NULL: it cannot be one. */
static const char *valid_name(apr_pool_t *p, const char *name)
{
    apr_size_t n = strlen(name);

    if (*name == '[' || smtp_address_check_domain((smtp_span_t){ name, n }) != SMTP_OK) {
        return NULL;
    }
    n -= name[n - 1] == '.';
    return n <= NAME_LENGTH_MAX ? apr_pstrmemdup(p, name, n) : NULL;
}

nssmtpd_names_e nssmtpd_names_domain(apr_pool_t *p, const apr_array_header_t *servers,
                                     apr_interval_time_t timeout, const char *domain,
                                     const char **why)
{
    nssmtpd_lookup_t l;
    nssmtpd_names_e verdict;
    const char *name = valid_name(p, domain);

    if (*domain == '['
        && smtp_address_check_domain((smtp_span_t){ domain, strlen(domain) }) == SMTP_OK) {
        *why = "an address literal needs no DNS";
        return NSSMTPD_NAMES_YES;
    }
    if (!name) {
        *why = "it is no valid domain name";
        return NSSMTPD_NAMES_NO;
    }
    if (nssmtpd_resolver_open(&l, p, servers, timeout)) {
        verdict = judge_domain(&l, name, why);
    }
    else {
        verdict = cannot_say(&l, why, "MX", name);
    }
    nssmtpd_resolver_close(&l);
    return verdict;
}

/* An address as DNS sees it: IPv4 clients of an IPv6 socket are IPv4. */
typedef struct address_t {
    int family;
    const unsigned char *octets;
    apr_size_t n;
    const char *text;
} address_t;

static int read_address(apr_pool_t *p, address_t *a, const apr_sockaddr_t *sa)
{
    char text[INET6_ADDRSTRLEN];

    if (sa->family != AF_INET && sa->family != AF_INET6) {
        return 0;
    }
    a->family = sa->family;
    a->octets = sa->ipaddr_ptr;
    a->n = sa->ipaddr_len;
    if (a->family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)a->octets)) {
        a->family = AF_INET;
        a->octets += 12;
        a->n = 4;
    }
    a->text = apr_pstrdup(p, inet_ntop(a->family, a->octets, text, sizeof(text)));
    return 1;
}

/* RFC 1035 3.5 and RFC 3596 2.5 */
static const char *reverse_name(apr_pool_t *p, const address_t *a)
{
    const unsigned char *o = a->octets;
    char nibbles[16 * 4 + 1];
    int i;

    if (a->family == AF_INET) {
        return apr_psprintf(p, "%d.%d.%d.%d.in-addr.arpa", o[3], o[2], o[1], o[0]);
    }
    for (i = 0; i < 16; i++) {
        apr_snprintf(nibbles + 4 * i, 5, "%x.%x.", o[15 - i] & 15, o[15 - i] >> 4);
    }
    return apr_pstrcat(p, nibbles, "ip6.arpa", NULL);
}

static nssmtpd_names_e confirm(nssmtpd_lookup_t *l, const address_t *a, const char *name,
                               const char **why)
{
    struct hostent *host = nssmtpd_resolver_ask_addresses(l, name, a->family);
    int i, found = 0;

    if (!host && !nssmtpd_resolver_is_nothing(l->status)) {
        return cannot_say(l, why, "address", name);
    }
    for (i = 0; host && host->h_addr_list[i]; i++) {
        found |= memcmp(host->h_addr_list[i], a->octets, a->n) == 0;
    }
    if (host) {
        ares_free_hostent(host);
    }
    *why = apr_psprintf(l->p, found ? "%s is %s" : "%s calls itself %s, but that name does not "
                        "lead back to it", a->text, name);
    return found ? NSSMTPD_NAMES_YES : NSSMTPD_NAMES_NO;
}

/* The names, which a stranger chose; "cannot say" of one outweighs "no" of another. */
static nssmtpd_names_e judge_names(nssmtpd_lookup_t *l, const address_t *a, char **names,
                                   const char **name, const char **why)
{
    nssmtpd_names_e verdict = answer(l, NSSMTPD_NAMES_NO, why, a->text, INVALID_NAME);
    int i;

    for (i = 0; names[i] && i < REVERSE_NAMES_MAX; i++) {
        const char *candidate = valid_name(l->p, names[i]), *reason;
        nssmtpd_names_e one;

        if (!candidate) {
            continue;
        }
        one = confirm(l, a, candidate, &reason);
        if (one == NSSMTPD_NAMES_YES) {
            *name = candidate;
            *why = reason;
            return one;
        }
        if (verdict == NSSMTPD_NAMES_NO) {
            verdict = one;
            *why = reason;
        }
    }
    return verdict;
}

static nssmtpd_names_e judge_host(nssmtpd_lookup_t *l, const address_t *a, const char **name,
                                  const char **why)
{
    struct hostent *host = NULL;
    nssmtpd_names_e verdict;
    int rc = ARES_SUCCESS, found = 0;

    nssmtpd_resolver_ask(l, reverse_name(l->p, a), ns_t_ptr);
    if (l->status == ARES_SUCCESS) {
        rc = ares_parse_ptr_reply(l->reply, l->length, a->octets, a->n, a->family, &host);
        found = host && host->h_aliases && host->h_aliases[0];
        nssmtpd_resolver_conclude(l, rc, found);
    }
    if (found && l->status == ARES_SUCCESS) {
        verdict = judge_names(l, a, host->h_aliases, name, why);
    }
    else if (nssmtpd_resolver_is_nothing(l->status)) {
        verdict = answer(l, NSSMTPD_NAMES_NO, why, a->text, "has no name");
    }
    else if (rc == ARES_EBADRESP) { /* so c-ares calls names with odd octets; they stay odd */
        verdict = answer(l, NSSMTPD_NAMES_NO, why, a->text, INVALID_NAME);
    }
    else {
        verdict = cannot_say(l, why, "name", a->text);
    }
    if (host) {
        ares_free_hostent(host);
    }
    return verdict;
}

nssmtpd_names_e nssmtpd_names_host(apr_pool_t *p, const apr_array_header_t *servers,
                                   apr_interval_time_t timeout, const apr_sockaddr_t *address,
                                   const char **name, const char **why)
{
    nssmtpd_lookup_t l;
    address_t a;
    nssmtpd_names_e verdict;

    *name = NULL;
    if (!read_address(p, &a, address)) {
        *why = "only IP addresses have names";
        return NSSMTPD_NAMES_NO;
    }
    if (nssmtpd_resolver_open(&l, p, servers, timeout)) {
        verdict = judge_host(&l, &a, name, why);
    }
    else {
        verdict = cannot_say(&l, why, "name", a.text);
    }
    nssmtpd_resolver_close(&l);
    return verdict;
}
