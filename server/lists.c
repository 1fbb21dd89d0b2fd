/* The two lists of relay permission. Domains match themselves and every sub-domain, the
 * most specific entry first; clients match by address. Called by config.c while httpd
 * starts and by the session for each connection and recipient.
 */
#include "server/lists.h"

#include <apr_strings.h>
#include <arpa/inet.h>
#include <string.h>

#include "smtp/address.h"

struct nssmtpd_domains_t {
    apr_hash_t *by_name; /* of nssmtpd_domain_t */
};

static nssmtpd_route_t *route_to(apr_pool_t *p, const char *url)
{
    static const char *const none[] = { NULL };
    nssmtpd_route_t *route = apr_pcalloc(p, sizeof(*route));

    route->url = url;
    route->params = none;
    return route;
}

const char *nssmtpd_lists_parse_domain(apr_pool_t *p, nssmtpd_domain_t *domain, const char *word)
{
    apr_size_t n = strcspn(word, ":=");
    char *name = apr_pstrmemdup(p, word, n);

    ap_str_tolower(name);
    if (smtp_address_check_domain((smtp_span_t){ name, n }) != SMTP_OK || *name == '[') {
        return apr_psprintf(p, "\"%s\" does not begin with a domain name", word);
    }
    domain->name = name;
    domain->route = NULL;
    if (word[n]) {
        if (!word[n + 1]) {
            return apr_psprintf(p, "\"%s\" has no route behind the '%c'", word, word[n]);
        }
        domain->route = route_to(p, word + n + 1);
    }
    return NULL;
}

nssmtpd_domains_t *nssmtpd_lists_index(apr_pool_t *p, const apr_array_header_t *domains)
{
    nssmtpd_domains_t *list = apr_palloc(p, sizeof(*list));
    int i;

    list->by_name = apr_hash_make(p);
    for (i = 0; domains && i < domains->nelts; i++) {
        const nssmtpd_domain_t *domain = &APR_ARRAY_IDX(domains, i, nssmtpd_domain_t);

        apr_hash_set(list->by_name, domain->name, APR_HASH_KEY_STRING, domain);
    }
    return list;
}

const nssmtpd_domain_t *nssmtpd_lists_find(const nssmtpd_domains_t *domains, const char *domain)
{
    while (domain && *domain) {
        const nssmtpd_domain_t *found = apr_hash_get(domains->by_name, domain, APR_HASH_KEY_STRING);

        if (found) {
            return found;
        }
        if ((domain = strchr(domain, '.'))) {
            domain++;
        }
    }
    return NULL;
}

/* apr_ipsubnet_create() takes "10.1" for a network; here an address is written in full,
 * lest a typing error trusts sixteen million clients. */
static int is_address(const char *word)
{
    return strchr(word, ':') || strspn(word, "0123456789.") == strlen(word);
}

static int is_complete(const char *ip)
{
    struct in_addr v4;

    return strchr(ip, ':') || inet_pton(AF_INET, ip, &v4) == 1;
}

static const char *resolve(apr_pool_t *p, apr_array_header_t *subnets, const char *name)
{
    apr_sockaddr_t *addr;
    apr_ipsubnet_t *subnet;
    char *ip;

    if (apr_sockaddr_info_get(&addr, name, APR_UNSPEC, 0, 0, p) != APR_SUCCESS) {
        return apr_psprintf(p, "\"%s\" is no address, no network, and no host that can be "
                               "resolved now", name);
    }
    for (; addr; addr = addr->next) {
        if (apr_sockaddr_ip_get(&ip, addr) == APR_SUCCESS
            && apr_ipsubnet_create(&subnet, ip, NULL, p) == APR_SUCCESS) {
            APR_ARRAY_PUSH(subnets, apr_ipsubnet_t *) = subnet;
        }
    }
    return NULL;
}

const char *nssmtpd_lists_parse_client(apr_pool_t *p, apr_array_header_t *subnets,
                                       const char *word, int *is_name)
{
    char *ip = apr_pstrdup(p, word), *mask = strchr(ip, '/');
    apr_ipsubnet_t *subnet;

    if (mask) {
        *mask++ = '\0';
    }
    *is_name = !is_address(ip);
    if (*is_name) {
        return mask ? apr_psprintf(p, "\"%s\" is no network", word) : resolve(p, subnets, ip);
    }
    if (!is_complete(ip) || apr_ipsubnet_create(&subnet, ip, mask, p) != APR_SUCCESS) {
        return apr_psprintf(p, "\"%s\" is no address or network", word);
    }
    APR_ARRAY_PUSH(subnets, apr_ipsubnet_t *) = subnet;
    return NULL;
}

int nssmtpd_lists_has_client(const apr_array_header_t *subnets, apr_sockaddr_t *addr)
{
    int i;

    for (i = 0; i < subnets->nelts; i++) {
        if (apr_ipsubnet_test(APR_ARRAY_IDX(subnets, i, apr_ipsubnet_t *), addr)) {
            return 1;
        }
    }
    return 0;
}
